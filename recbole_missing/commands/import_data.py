"""``recbole-missing import``: turn another project's files, or raw tables, into a data set."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from recbole_missing.commands import import_table

LAYOUTS = {
    "mmrec": "a folder of MMRec: X.inter, <modality>_feat.npy",
    "dgmrec": "a folder of the DGMRec release: as MMRec, with masks and new items",
}
"""Layout -> its line in ``--help``; ``convert.importers.import_<layout>`` reads it."""


def arguments(parser: ArgumentParser) -> None:
    """Declare the command's options: one sub-command a layout, and ``table``."""
    layouts = parser.add_subparsers(dest="layout", required=True, metavar="LAYOUT")
    for layout, line in LAYOUTS.items():
        about = f"Read {line}."
        add_target(layouts.add_parser(layout, help=line, description=about), "folder to read")
    line = "a raw table of interactions (CSV, TSV, Parquet), with items and pictures"
    table = layouts.add_parser("table", help=line, description=f"Read {line}.")
    add_target(table, "table of interactions: one row for each user who bought an item")
    import_table.arguments(table)


def add_target(parser: ArgumentParser, source: str) -> None:
    """Declare what every layout takes: the source, and where the data set goes."""
    parser.add_argument("source", type=Path, help=source)
    parser.add_argument("--name", required=True, help="name of the new data set")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("dataset"),
        help="folder of data set folders (default: dataset)",
    )
    parser.add_argument("--force", action="store_true", help="replace a data set of that name")


def execute(known: Namespace) -> None:
    """Run the command.

    Raises:
        ValueError: for files that are refused, or a data set that exists.
    """
    if known.layout == "table":
        import_table.execute(known)
        return
    from recbole_missing.convert import importers

    read = getattr(importers, f"import_{known.layout}")
    print(read(known.source, known.name, output=known.output, force=known.force))
