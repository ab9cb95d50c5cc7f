"""What commands on a trained model share: loading it quietly, writing a file as a whole."""

from __future__ import annotations

import logging
import warnings
from argparse import ArgumentParser
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from recbole_missing.atomic import whole_file


def add_output(parser: ArgumentParser, metavar: str) -> None:
    """Add ``--output`` and ``--force``."""
    parser.add_argument("--output", type=Path, metavar=metavar, help="default: print")
    parser.add_argument("--force", action="store_true", help="replace the file")


def trained(checkpoint: Path) -> tuple[Any, ...]:
    """What RecBole's ``load_data_and_model`` returns, without its log.

    Raises:
        ValueError: if the file is no checkpoint, or the data have changed since.
    """
    from recbole_missing.checkpoint import load_data_and_model

    with quiet():
        return load_data_and_model(str(checkpoint))


@contextmanager
def quiet() -> Iterator[None]:
    """Keep back what reading data and settings logs and warns of: training has told all of it."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        logging.disable(disabled)


def check_output(path: Path | None, force: bool) -> None:
    """Refuse to replace a file unasked.

    Raises:
        ValueError: if there is something of that name.
    """
    if path is not None and path.exists() and not (force and path.is_file()):
        raise ValueError(f"{path}: must not exist yet; replace a file with --force.")


def write_new(path: Path, lines: Iterable[str]) -> None:
    """Write a text file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(lines)
