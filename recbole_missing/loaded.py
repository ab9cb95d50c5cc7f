"""Whether the code of a module in memory is still that of its file.

Python does not tell when a module was loaded. So a finder that finds nothing is asked first for
every module, and notes the time, from :func:`watch` to :func:`stop`. Modules that were loaded at
another time count as loaded when this package was imported.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any


class _Clock:
    """Finder that finds nothing; it notes when a module begins to be loaded."""

    def __init__(self) -> None:
        self.start = time.time_ns()
        self.times: dict[str, int] = {}

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """Note the time; the other finders go on. ``target`` is a module that is reloaded."""
        if name not in sys.modules or target is not None:
            self.times[name] = time.time_ns()
        return None


_clock = _Clock()


def watch() -> None:
    """Begin to note when modules are loaded; a second call does nothing."""
    if _clock not in sys.meta_path:
        sys.meta_path.insert(0, _clock)


def stop() -> None:
    """End what :func:`watch` began."""
    if _clock in sys.meta_path:
        sys.meta_path.remove(_clock)


def is_current(module: str, path: Path) -> bool:
    """Tell whether a module was loaded after the last change of its file, or is not loaded."""
    status = path.stat()
    changed = max(status.st_mtime_ns, status.st_ctime_ns)  # a copy may keep an old st_mtime
    return module not in sys.modules or changed <= _clock.times.get(module, _clock.start)
