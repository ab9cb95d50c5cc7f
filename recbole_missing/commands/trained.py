"""Options and functions that commands on a trained model share."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from recbole_missing.atomic import check_file, whole_file
from recbole_missing.quiet import quiet


def add_output(parser: ArgumentParser, metavar: str) -> None:
    """Add ``--output`` and ``--force``."""
    parser.add_argument(
        "--output", type=Path, metavar=metavar, help="file to write (default: print)"
    )
    parser.add_argument("--force", action="store_true", help="replace the file")


def add_classes(parser: ArgumentParser) -> None:
    """Add ``--model`` and ``--imputation``: classes from outside that a checkpoint may need."""
    for option, registered in (("--model", "register_model"), ("--imputation", "register_imputer")):
        parser.add_argument(
            option,
            metavar="MODULE:CLASS",
            help=f"class of yours that the checkpoint was made with ({registered})",
        )


def trained(known: Namespace) -> tuple[Any, ...]:
    """Load a model and its data as RecBole's ``load_data_and_model`` does, without its log.

    Args:
        known: arguments ``checkpoint``, ``model`` and ``imputation``; the classes are imported
            because the user names them, never because the checkpoint does.

    Raises:
        ValueError: if the file is no checkpoint, the data have changed since, or it was made with a
            class that the user has not named.
    """
    from recbole_missing.checkpoint import load_data_and_model
    from recbole_missing.imputation import IMPUTERS
    from recbole_missing.plugin import get_model

    with quiet():
        for find, word in ((get_model, known.model), (IMPUTERS.resolve, known.imputation)):
            if word is not None:
                find(word)
        return load_data_and_model(str(known.checkpoint))


def check_output(path: Path | None, force: bool) -> None:
    """Refuse to replace a file unless ``force`` is set.

    Raises:
        ValueError: if there is something of that name.
    """
    if path is not None:
        check_file(path, force)


def write_new(path: Path, lines: Iterable[str], force: bool) -> None:
    """Write a text file as a whole or not at all.

    Raises:
        ValueError: as :func:`check_output`, for a file that came into being meanwhile.
    """
    with whole_file(path, force) as new, new.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(lines)
