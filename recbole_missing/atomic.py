"""A file or a folder that is written as a whole or not at all."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

REPORT = "report.json"
"""File that every folder of results holds; only a folder with it is ever replaced."""


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; the file written there becomes ``path`` at the end.

    After a crash or an error the former file is there as before.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def check_target(target: Path, force: bool) -> Path:
    """Return ``target``, after checking that :func:`new_folder` replaces nothing but results.

    Raises:
        ValueError: if it exists and is neither empty nor, with ``force``, a folder of results.
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
    """Give a folder to fill; it becomes ``target`` when the block ends without an error.

    Args:
        target: where it goes, checked by :func:`check_target`; what it held is replaced.
        report: becomes its ``report.json``.
    """
    with replaced_folder(target.resolve()) as folder:
        yield folder
        text = json.dumps(report, indent=1, ensure_ascii=False)
        (folder / REPORT).write_text(text + "\n", encoding="utf-8")


@contextmanager
def replaced_folder(target: Path) -> Iterator[Path]:
    """Give a folder to fill; it becomes ``target`` in one step when the block ends.

    The former content of ``target`` is removed then. After an error it is there as before.
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
        except BaseException:  # an interrupt must not leave what was there to the clean-up
            if old.exists():
                old.replace(target)
            raise
