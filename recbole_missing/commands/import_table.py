"""``recbole-missing import table``: turn raw tables and pictures into a RecBole data set."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recbole_missing.convert.items import ItemTable

_ENCODERS = {"text": "text", "tags": "tags", "numbers": "vector"}
"""Option that makes a modality of columns, also its default name -> encoder."""


_SHARED = ("separator", "encoding", "drop_incomplete")
"""Options that hold for both tables."""


def arguments(parser: ArgumentParser) -> None:
    """Declare the options beside the source and the target."""
    _add_interactions(parser)
    _add_reading(parser)
    _add_items(parser)
    _add_features(parser)


def execute(known: Namespace) -> None:
    """Run the command.

    Raises:
        ValueError: for files, columns, cells and options that are refused, or a data set that
            exists.
    """
    from recbole_missing.convert.purchases import PurchaseTable
    from recbole_missing.convert.table import import_table

    chosen = _given(known, "user", "item", "time", "time_format", "day_first", "rating")
    chosen.update(_given(known, "min_rating", "duplicates", "k_core", *_SHARED))
    options = _given(known, "split", "output", "force", "dry_run")
    print(import_table(PurchaseTable(known.source, **chosen), known.name, _items(known), **options))


def _add_interactions(parser: ArgumentParser) -> None:
    group = parser.add_argument_group("interactions")
    group.add_argument("--user", required=True, metavar="COLUMN", help="ids of the users")
    group.add_argument("--item", required=True, metavar="COLUMN", help="ids of the items")
    group.add_argument("--time", metavar="COLUMN", help="times: numbers, or dates (UTC)")
    group.add_argument(
        "--time-format", metavar="FORMAT", help="format of odd dates, such as %%Y%%m%%d"
    )
    group.add_argument(
        "--day-first", action="store_true", help="01/02/2023 is the first of February"
    )
    group.add_argument(
        "--rating",
        metavar="COLUMN",
        help="column of ratings; kept in the file, read by --min-rating alone",
    )
    group.add_argument(
        "--min-rating", type=float, metavar="X", help="leave out rows with a rating below X"
    )
    group.add_argument(
        "--duplicates",
        choices=("last", "first", "keep", "error"),
        default="last",
        help="rows of one user and one item: keep the last by time (default), the first, or all, "
        "or refuse them. If all are kept, RecBole counts every one of them in training and graphs.",
    )


def _add_reading(parser: ArgumentParser) -> None:
    group = parser.add_argument_group("filters, split and files")
    group.add_argument(
        "--k-core",
        type=int,
        default=0,
        metavar="K",
        help="leave out users and items with fewer than K interactions until there are none",
    )
    group.add_argument(
        "--split",
        choices=("time", "last", "random"),
        help="what is tested of each user: the latest tenth (time, the default if there are "
        "times), the last one (last), or a random tenth (random, the default otherwise)",
    )
    group.add_argument(
        "--drop-incomplete",
        action="store_true",
        help="leave out rows without a user, item or time, which are an error otherwise",
    )
    group.add_argument("--separator", help="between two cells (default: by suffix, , or tab)")
    group.add_argument("--encoding", default="utf-8", help="of text files (default: utf-8)")
    group.add_argument(
        "--dry-run", action="store_true", help="read and count everything, write nothing"
    )


def _add_items(parser: ArgumentParser) -> None:
    group = parser.add_argument_group("items")
    group.add_argument("--items", type=Path, metavar="FILE", help="table of items")
    group.add_argument("--item-id", metavar="COLUMN", help="its ids (default: as --item)")
    kinds = {"text": "texts", "tags": "words of a fixed list", "numbers": "numbers"}
    for option, what in kinds.items():
        group.add_argument(
            f"--{option}",
            action="append",
            default=[],
            metavar="[NAME=]COLUMN[,COLUMN...]",
            help=f"columns of {what} that make one modality, NAME (default: {option}); may be "
            "given several times",
        )
    group.add_argument(
        "--tag-separator",
        default="|",
        metavar="SIGN",
        help="between two tags of a cell (default: |)",
    )
    group.add_argument(
        "--catalogue",
        choices=("all", "bought"),
        help="items that can be recommended: all of the table (default), or those with an "
        "interaction (default with --k-core)",
    )


def _add_features(parser: ArgumentParser) -> None:
    group = parser.add_argument_group("pictures and features of the items")
    group.add_argument(
        "--images", type=Path, metavar="FOLDER", help="pictures named by item id: 0108775015.jpg"
    )
    group.add_argument(
        "--image-column", metavar="COLUMN", help="names the picture, if its name is not the id"
    )
    group.add_argument(
        "--images-in-place",
        dest="in_place",
        action="store_true",
        help="do not copy the pictures; a checkpoint then needs --set image_images=FOLDER",
    )
    group.add_argument(
        "--matrix",
        action="append",
        default=[],
        metavar="NAME=FILE",
        help="features that exist already (.npy, .npz, .safetensors)",
    )
    group.add_argument(
        "--ids", action="append", default=[], metavar="NAME=FILE", help="the item id of each row"
    )


def _items(known: Namespace) -> ItemTable:
    """What the options say of the items.

    Raises:
        ValueError: if names of modalities are absent, repeated or do not fit.
    """
    from recbole_missing.commands.options import named
    from recbole_missing.convert.items import Columns, ItemTable

    matrices, ids = (named(f"--{key}", getattr(known, key)) for key in ("matrix", "ids"))
    if set(matrices) != set(ids):
        raise ValueError(
            f"--matrix, --ids: must name the same modalities, got {sorted(matrices)} and "
            f"{sorted(ids)}; give both for each."
        )
    modalities: dict[str, Columns] = {}
    for option, encoder in _ENCODERS.items():
        for name, columns in _columns(option, getattr(known, option)).items():
            if name in modalities:
                raise ValueError(f"--{option}: must have a new name, got {name!r}; rename one.")
            modalities[name] = Columns(encoder, columns)
    return ItemTable(
        path=known.items,
        modalities=modalities,
        matrices={name: (Path(matrices[name]), Path(ids[name])) for name in matrices},
        **_given(
            known, "item_id", "tag_separator", "images", "image_column", "in_place", "catalogue"
        ),
        **_given(known, *_SHARED),
    )


def _given(known: Namespace, *names: str) -> dict[str, Any]:
    return {name: getattr(known, name) for name in names}


def _columns(option: str, words: Sequence[str]) -> dict[str, list[str]]:
    """Read ``NAME=COLUMN,COLUMN`` words; without a name it is the option's.

    Raises:
        ValueError: if a name or a column comes twice, or a part is empty.
    """
    found: dict[str, list[str]] = {}
    for word in words:
        name, equals, rest = word.partition("=")
        name, rest = (name, rest) if equals else (option, word)
        columns = rest.split(",")
        if not name or not all(columns):
            raise ValueError(
                f"--{option}: must read COLUMN,COLUMN or NAME=COLUMN,COLUMN, got {word!r}."
            )
        if name in found:
            raise ValueError(
                f"--{option}: must name {name} once, got it twice; join its columns by commas, or "
                f"give the other one a name: --{option} NAME={rest}."
            )
        found[name] = columns
    return found
