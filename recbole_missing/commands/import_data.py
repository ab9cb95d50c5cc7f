"""``recbole-missing import``: turn another project's files into a RecBole data set."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path


def arguments(parser: ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument(
        "layout", choices=["mmrec", "dgmrec"], help="project whose layout the folder has"
    )
    parser.add_argument("source", type=Path, help="folder to read")
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
    from recbole_missing.convert import importers

    command = {"mmrec": importers.import_mmrec, "dgmrec": importers.import_dgmrec}[known.layout]
    print(command(known.source, known.name, output=known.output, force=known.force))
