"""Write a file or a folder completely or not at all."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

REPORT = "report.json"
"""File in every folder of results. Only folders with this file are ever replaced."""


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``. The file written there becomes ``path`` at the end.

    After a crash or an error the old file is unchanged.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def check_target(target: Path, force: bool) -> Path:
    """Return ``target`` after checking that :func:`new_folder` may write it.

    It may be absent or empty. With ``force`` it may be a folder of results, which is replaced.

    Raises:
        ValueError: in any other case.
    """
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return target
    if not (target / REPORT).is_file():
        raise ValueError(
            f"{target}: must not exist yet, got files of another origin; choose another --output."
        )
    if not force:
        raise ValueError(f"{target}: must not exist yet; replace it with --force.")
    return target


@contextmanager
def new_folder(target: Path, report: Mapping[str, Any]) -> Iterator[Path]:
    """Give a new folder to fill. It becomes ``target`` when the block ends without an error.

    Args:
        target: path that :func:`check_target` has checked. Its old content is replaced.
        report: content of ``report.json`` in the folder.
    """
    with replaced_folder(target.resolve()) as folder:
        yield folder
        text = json.dumps(report, indent=1, ensure_ascii=False)
        (folder / REPORT).write_text(text + "\n", encoding="utf-8")


@contextmanager
def replaced_folder(target: Path) -> Iterator[Path]:
    """Give a new folder to fill. It becomes ``target`` in one step when the block ends.

    The old content of ``target`` is then removed. After an error the old content is unchanged.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as scratch:
        folder, old = Path(scratch, "new"), Path(scratch, "old")
        folder.mkdir()
        yield folder
        try:
            if target.exists():
                target.replace(old)
            folder.replace(target)
        except BaseException:  # after an interrupt, the clean-up would delete the old content
            if old.exists():
                old.replace(target)
            raise
