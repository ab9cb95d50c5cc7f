"""``recbole-missing import``: turn another project's files, or raw tables, into a data set."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from recbole_missing.commands import import_table

LAYOUTS = {
    "mmrec": "a folder of MMRec: X.inter, <modality>_feat.npy",
    "dgmrec": "a folder of the DGMRec release: as MMRec, with masks and new items",
    "mmssl": "a folder of MMSSL, LATTICE or MICRO: train.json, val.json, test.json, *_feat.npy",
    "diffmm": "a folder of DiffMM: trnMat.pkl, valMat.pkl, tstMat.pkl, <modality>_feat.npy",
    "microlens": "a folder of MicroLens: *_pairs.csv, titles, covers or features",
    "cornac": "files of Cornac: rating.txt, <modality>_features.npy with item_ids.txt, text.txt",
    "elliot": "a folder of Elliot: train.tsv, val.tsv, test.tsv, <modality>_embeddings of Ducho",
}
"""Layout -> its line in ``--help``; ``convert.importers.READERS`` has its reader."""
OPTIONS: dict[str, dict[str, dict[str, Any]]] = {
    "cornac": {
        "ratings": {"default": "rating.txt", "help": "file of ratings (default: rating.txt)"},
        "fmt": {"default": "UIR", "help": "UI, UIR or UIRT, as fmt of cornac.data.Reader"},
        "sep": {"default": "\t", "help": "its separator (default: tab)"},
        "skip_lines": {"default": 0, "type": int, "help": "its first lines to skip"},
    },
}
"""Layout -> option of its reader -> how ``argparse`` declares it."""


def arguments(parser: ArgumentParser) -> None:
    """Declare the command's options: one sub-command a layout, and ``table``."""
    layouts = parser.add_subparsers(dest="layout", required=True, metavar="LAYOUT")
    for layout, line in LAYOUTS.items():
        about = f"Read {line}."
        sub = layouts.add_parser(layout, help=line, description=about)
        add_target(sub, "folder to read")
        for option, declared in OPTIONS.get(layout, {}).items():
            sub.add_argument(f"--{option.replace('_', '-')}", dest=option, **declared)
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
    from recbole_missing.convert.importers import import_folder

    options = {option: getattr(known, option) for option in OPTIONS.get(known.layout, ())}
    print(
        import_folder(known.layout, known.source, known.name, known.output, known.force, **options)
    )
