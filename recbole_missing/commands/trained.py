"""Options and functions that commands on a trained model share."""

from __future__ import annotations

import sys
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


def add_checkpoint(parser: ArgumentParser) -> None:
    """Add the checkpoint, and what it cannot decide: paths, settings, classes from outside."""
    parser.add_argument("checkpoint", type=Path, help="file of a trained model (.pth)")
    parser.add_argument(
        "--data-path", type=Path, metavar="DIR",
        help="folder of the data set folders (default: dataset); a checkpoint decides no path",
    )  # fmt: skip
    parser.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE",
        help="settings over those of the run, such as image_features=FILE",
    )  # fmt: skip
    for option, registered in (("--model", "register_model"), ("--imputation", "register_imputer")):
        parser.add_argument(
            option,
            metavar="MODULE:CLASS",
            help=f"class of yours that the checkpoint was made with ({registered})",
        )


def trained(known: Namespace) -> tuple[Any, ...]:
    """Load a model and its data as RecBole's ``load_data_and_model`` does, without its log.

    Remarks on the checkpoint go to standard error.

    Args:
        known: arguments of :func:`add_checkpoint`; the classes are imported because the user names
            them, never because the checkpoint does.

    Raises:
        ValueError: if the file is no checkpoint, the data have changed since, or it was made with a
            class that the user has not named.
    """
    from recbole_missing import checkpoint
    from recbole_missing.commands.options import named, value
    from recbole_missing.imputation import IMPUTERS
    from recbole_missing.plugin import get_model

    with quiet():
        for find, word in ((get_model, known.model), (IMPUTERS.resolve, known.imputation)):
            if word is not None:
                find(word)
        settings = {key: value(text) for key, text in named("--set", known.set).items()}
        state = checkpoint.load(known.checkpoint)
        remarks, found = checkpoint.restored(state, known.data_path, settings)
    for remark in remarks:
        print(remark, file=sys.stderr)
    return found


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
