"""``recbole-missing export``: a data set in another project's layout."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from recbole_missing.commands.options import add_imputation, imputation_settings


def arguments(parser: ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("layout", choices=["mmrec"], help="whose files to write")
    parser.add_argument("source", type=Path, help="a RecBole data set folder with its YAML")
    parser.add_argument(
        "--output", type=Path, default=Path("mmrec"), help="folder of data sets to put it in"
    )
    parser.add_argument("--method", help="word of the setting `imputation`, for missing features")
    add_imputation(parser)


def execute(known: Namespace) -> None:
    """Run the command.

    Raises:
        ValueError: for a setting without a method, and whatever the files are refused for.
    """
    from recbole_missing.convert.exporters import export_mmrec

    if known.set and not known.method:
        raise ValueError("export: --set must come with --method; add it or drop --set.")
    settings = None
    if known.method:
        chosen = imputation_settings([known.method], known.set)
        settings = {"imputation": known.method, **chosen}
    print(export_mmrec(known.source, known.output, settings, known.missing, known.force))
