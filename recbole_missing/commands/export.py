"""``recbole-missing export``: a data set in another project's layout."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from recbole_missing.commands.opened import add_data_set, imputation_of, opened
from recbole_missing.commands.options import add_imputation

LAYOUTS = {
    "mmrec": "MMRec's files",
    "elliot": "Elliot's tables, features and YAML",
    "ducho": "the features alone, a file for each item",
}
"""Layout -> its part of ``--help``; ``convert.exporters.WRITERS`` has its writer."""


def arguments(parser: ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("layout", choices=LAYOUTS, help="; ".join(map(": ".join, LAYOUTS.items())))
    add_data_set(parser)
    parser.add_argument(
        "--output", type=Path, help="folder to put the data set's folder in (default: LAYOUT)"
    )
    parser.add_argument("--method", help="word of the setting `imputation`, for missing features")
    add_imputation(parser)


def execute(known: Namespace) -> None:
    """Run the command.

    Raises:
        ValueError: for a setting without a method, and whatever the files are refused for.
    """
    from recbole_missing.convert.exporters import export_folder

    if known.set and not known.method:
        raise ValueError("export: --set must come with --method; add it or drop --set.")
    with opened(known, known.missing) as data:
        settings = None
        if known.method:
            settings = {
                **imputation_of([known.method], known.set, data.config),
                "imputation": known.method,
            }
        print(
            export_folder(
                known.layout, data.splits, known.output, settings, data.notes, known.force
            )
        )
