"""Turn a raw catalogue into a RecBole data set folder.

A raw catalogue is a table of interactions, and perhaps a table of items, a folder of pictures and
matrices of features. :func:`import_table` reads them with :mod:`.purchases` and :mod:`.items`,
and writes ``NAME.inter``, ``NAME.item``, features and a YAML file that runs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from recbole_missing.atomic import new_folder, write_report
from recbole_missing.convert import times
from recbole_missing.convert.folder import (
    IMAGE,
    RANDOM_SPLIT,
    copy_pictures,
    evaluation,
    next_command,
    target_folder,
    yaml_text,
)
from recbole_missing.convert.items import Items, ItemTable, read_items
from recbole_missing.convert.purchases import Purchases, PurchaseTable, read_purchases
from recbole_missing.convert.raw import check_there
from recbole_missing.data.files import write_rows
from recbole_missing.data.missing import write_token_file
from recbole_missing.tables import counted
from recbole_missing.version import __version__

SPLIT_RULES = ("time", "last", "random")
"""How interactions are split: see ``split`` of :func:`import_table`."""

_CHUNK = 1 << 20  # interactions that are written at a time


@dataclass(frozen=True)
class TableReport:
    """What an import read, left out and wrote. ``str()`` gives a text for the user.

    Args:
        folder: the data set folder.
        is_written: False after a dry run.
        source, items_source: names of the tables; the latter is empty if there is none.
        rows, item_rows: number of their rows.
        dropped, item_dropped: rule -> number of rows that it left out.
        users, bought, interactions: what is left, where ``bought`` counts items.
        items: number of candidates, with or without an interaction.
        period: first and last time, for people; empty without times.
        modalities: modality -> number of items that have it.
        copied: number and bytes of the pictures that are copied.
        notes: sentences on what may surprise.
    """

    folder: Path
    is_written: bool
    source: str
    rows: int
    dropped: dict[str, int]
    users: int
    bought: int
    interactions: int
    period: tuple[str, ...]
    items_source: str
    item_rows: int
    item_dropped: dict[str, int]
    items: int
    modalities: dict[str, int]
    copied: tuple[int, int]
    notes: list[str]

    @property
    def density(self) -> float:
        """Share of all pairs of user and item that are an interaction."""
        return self.interactions / (self.users * self.bought)

    def __str__(self) -> str:
        """Return the report as text; its end is the command to run next."""
        lines = [f"Read {self.source}: {self.rows:,} rows", *_left_out(self.dropped)]
        lines.append(
            f"  {self.interactions:,} interactions of {self.users:,} users with {self.bought:,} "
            f"items (density {100 * self.density:.3g}%)"
        )
        if self.period:
            lines.append(f"  times: {self.period[0]} to {self.period[1]}")
        if self.items_source:
            lines.append(f"Read {self.items_source}: {self.item_rows:,} rows")
            lines += _left_out(self.item_dropped)
        lines.append(
            f"  {self.items:,} items can be recommended; {self.items - self.bought:,} of them have "
            "no interaction"
        )
        for name, count in self.modalities.items():
            lines.append(f"  {name}: {count:,} items have it, {self.items - count:,} lack it")
        if self.copied[0]:
            lines.append(f"  pictures to copy: {self.copied[0]:,} ({self.copied[1] / 1e6:,.1f} MB)")
        lines += [f"  note: {note}" for note in self.notes]
        if not self.is_written:
            return "\n".join([*lines, f"Nothing is written. Without --dry-run: {self.folder}"])
        lines.append(f"Wrote {self.folder}")
        if self.modalities:
            lines.append(f"A first look: recbole-missing describe {self.folder}")
        lines.append(next_command("DGMRec" if self.modalities else "LightGCN", self.folder))
        return "\n".join(lines)


def _left_out(dropped: Mapping[str, int]) -> list[str]:
    counts = "; ".join(f"{rule}: {count:,}" for rule, count in dropped.items())
    return [f"  left out: {counts}"] if counts else []


def import_table(
    purchases: PurchaseTable,
    name: str,
    items: ItemTable | None = None,
    split: str | None = None,
    output: Path | str = Path("dataset"),
    force: bool = False,
    dry_run: bool = False,
) -> TableReport:
    """Turn raw tables into the RecBole data set folder ``<output>/<name>``.

    Args:
        purchases: the table of interactions, and what to keep of it.
        name: name of the new data set.
        items: the table of items and their pictures; None if there is none.
        split: what RecBole makes of each user's interactions. ``time``: the latest tenth is the
            test and the tenth before it validation. ``last``: one interaction each. ``random``:
            tenths at random. None: ``time`` if there are times, ``random`` otherwise.
        output: the folder of RecBole data sets; created if absent.
        force: whether the files that an earlier import wrote are replaced; other files stay.
        dry_run: read and count, write nothing.

    Returns:
        What was read, left out and written.

    Raises:
        ValueError: if a file, a column, a cell or an option is wrong, or
            :func:`.atomic.new_folder` may not write the target. Nothing is written then.
    """
    split = split or ("time" if purchases.time else "random")
    if split not in SPLIT_RULES:
        raise ValueError(f"--split: must be one of {', '.join(SPLIT_RULES)}, got {split!r}.")
    if split != "random" and purchases.time is None:
        raise ValueError(f"--split {split}: must come with --time, got none; name the column.")
    check_there(Path(purchases.path))
    target = target_folder(Path(purchases.path).parent, name, Path(output))
    asked = items or ItemTable()
    if asked.catalogue is None:
        has_all = asked.path is not None and not purchases.k_core
        asked = replace(asked, catalogue="all" if has_all else "bought")
    if dry_run:
        return _report(target, purchases, asked, *_read(purchases, asked), is_written=False)
    with new_folder(target, "import", force) as folder:
        found, found_items = _read(purchases, asked)
        _write(found, found_items, folder, target.name)
        text = _yaml(found, found_items, asked, target, split)
        (folder / f"{target.name}.yaml").write_text(text, encoding="utf-8")
        report = _report(target, purchases, asked, found, found_items, is_written=True)
        about = {"version": __version__, "layout": "table", **asdict(report)}
        write_report(folder, {**about, "folder": target.name})
    return report


def _read(purchases: PurchaseTable, items: ItemTable) -> tuple[Purchases, Items]:
    found = read_purchases(purchases)
    codes = np.unique(found.items.cat.codes)
    bought = [str(found.items.cat.categories[code]) for code in codes]
    found_items = read_items(items, bought, purchases.item)
    _check_negatives(purchases, found, len(found_items.tokens))
    return found, found_items


def _check_negatives(purchases: PurchaseTable, found: Purchases, n_items: int) -> None:
    """Refuse users who have every item: RecBole cannot draw negative items for them."""
    counts = np.bincount(found.users.cat.codes)
    if found.repeats and counts.max() >= n_items:
        pairs = pd.DataFrame({"user": found.users.cat.codes, "item": found.items.cat.codes})
        counts = np.bincount(pairs.drop_duplicates()["user"])
    full = np.flatnonzero(counts >= n_items)
    if len(full):
        raise ValueError(
            f"{purchases.path}: every user must have at least one item without an interaction; "
            f"training draws it as a negative example, got {counted(len(full), 'user')} with all "
            f"{n_items:,}, such as {found.users.cat.categories[full[0]]!r}; leave them "
            "out, or add items (--catalogue all)."
        )


def _report(
    target: Path,
    purchases: PurchaseTable,
    asked: ItemTable,
    found: Purchases,
    items: Items,
    is_written: bool,
) -> TableReport:
    period: tuple[str, ...] = ()
    if found.times is not None:
        period = tuple(times.shown(moment) for moment in (found.times.min(), found.times.max()))
    copied = [] if items.folder else list(items.pictures.values())
    return TableReport(
        folder=target,
        is_written=is_written,
        source=Path(purchases.path).name,
        rows=found.rows,
        dropped=found.dropped,
        users=int(found.users.nunique()),
        bought=int(found.items.nunique()),
        interactions=len(found),
        period=period,
        items_source=asked.path.name if asked.path else "",
        item_rows=items.rows,
        item_dropped=items.dropped,
        items=len(items.tokens),
        modalities={name: int(has.sum()) for name, has in items.present.items()},
        copied=(len(copied), sum(path.stat().st_size for path in copied)),
        notes=[*found.notes, *items.notes],
    )


# ---------------------------------------------------------------------------------------- writing


def _write(found: Purchases, items: Items, folder: Path, name: str) -> None:
    """Write all files of the data set but the YAML file."""
    write_rows(folder / f"{name}.inter", _interactions(found))
    types = {"text": "token_seq", "tags": "token_seq", "vector": "float"}
    header = ["item_id:token"]
    header += [f"{items.fields[c]}:{types[items.encoders[c]]}" for c in items.columns]
    write_rows(folder / f"{name}.item", [header, *zip(items.tokens, *items.columns.values())])
    if items.matrices:
        (folder / "features").mkdir()
    for modality, (matrix, ids) in items.matrices.items():
        np.save(folder / "features" / f"{modality}.npy", matrix)
        write_token_file(folder / "features" / f"{modality}.ids", ids)
    if items.pictures and items.folder is None:
        copy_pictures(items.pictures, folder)


def _interactions(found: Purchases) -> Iterator[Sequence[Any]]:
    """Rows of the ``.inter`` file, header first."""
    header = ["user_id:token", "item_id:token"]
    columns: list[Any] = [found.users, found.items]
    if found.ratings is not None:
        header.append("rating:float")
        columns.append(_whole(found.ratings))
    if found.times is not None:
        header.append("timestamp:float")
        columns.append(_whole(found.times))
    yield header
    for start in range(0, len(found), _CHUNK):
        parts = [column[start : start + _CHUNK] for column in columns]
        yield from zip(*(_cells(part) for part in parts))


def _cells(part: pd.Series | NDArray[Any]) -> list[Any]:
    """Cells of a column; an empty number is an empty cell."""
    cells: list[Any] = np.asarray(part).tolist()
    is_number = isinstance(part, np.ndarray) and part.dtype.kind == "f"
    return ["" if cell != cell else cell for cell in cells] if is_number else cells


def _whole(values: NDArray[np.float64]) -> NDArray[Any]:
    """Integers if all numbers are whole, so that they are written without a point."""
    is_whole = bool((np.abs(values) < 2**53).all()) and bool((values % 1 == 0).all())
    return values.astype(np.int64) if is_whole else values


# ------------------------------------------------------------------------------------ the settings


def _yaml(found: Purchases, items: Items, asked: ItemTable, target: Path, split: str) -> str:
    """YAML text of a RecBole config. A comment above a setting says what to try next."""
    parts: list[tuple[str, dict[str, Any]]] = [
        ("Written by `recbole-missing import table`. The comments say what to try next.", {}),
        *_columns(found, asked, target),
    ]
    if items.present:
        parts += _modalities(items, asked, target)
    parts += _evaluation(found, len(items.tokens), split)
    return yaml_text(parts)


def _columns(
    found: Purchases, asked: ItemTable, target: Path
) -> Iterator[tuple[str, dict[str, Any]]]:
    fields = {"USER_ID_FIELD": "user_id", "ITEM_ID_FIELD": "item_id"}
    columns = ["user_id", "item_id"]
    if found.times is not None:
        fields["TIME_FIELD"] = "timestamp"
        columns.append("timestamp")
    yield "The folder of data sets, and the columns.", {"data_path": str(target.parent), **fields}
    comment = ""
    if asked.path is not None:
        comment = (
            "Every item of the table of items can be recommended, with or without an interaction.\n"
            "Only those with one: import again with `--catalogue bought`."
            if asked.catalogue == "all"
            else "Only items with an interaction can be recommended. The others of the table too:\n"
            "import again with `--catalogue all`."
        )
    if found.ratings is not None:
        comment += (
            "\nThe column rating is not read. To use it, add it to `inter` and set, for example, "
            '`val_interval: {rating: "[4,inf)"}`.'
        )
    yield comment, {"load_col": {"inter": columns, "item": ["item_id"]}}


def _modalities(
    items: Items, asked: ItemTable, target: Path
) -> Iterator[tuple[str, dict[str, Any]]]:
    names = list(items.present)
    yield "Try a subset, to see what each modality adds.", {"modalities": names}
    for name, chosen in asked.modalities.items():
        settings: dict[str, Any] = {f"{name}_columns": [items.fields[c] for c in chosen.columns]}
        settings[f"{name}_encoder"] = chosen.encoder
        if chosen.encoder == "vector":
            settings[f"{name}_scale"] = "standard"
        yield _ADVICE[chosen.encoder].format(name=name), settings
    if asked.images is not None:
        folder = items.folder or target / "images"
        path = os.path.relpath(folder.resolve(), target.resolve())  # both may move together
        yield _ADVICE[IMAGE].format(name=IMAGE), {f"{IMAGE}_images": Path(path).as_posix()}
    for name in items.matrices:
        settings = {f"{name}_features": f"features/{name}.npy"}
        yield "", {**settings, f"{name}_ids": f"features/{name}.ids"}
    holes = "How holes are filled before training. Try zeros, mean, nearest_neighbour."
    yield holes, {"imputation": "featprop"}


_ADVICE = {
    "text": "Words are counted and weighted (TF-IDF), then reduced to {name}_dim numbers (64). A "
    "language model\nknows more: `{name}_encoder: sentence` with `{name}_model: all-MiniLM-L6-v2`.",
    "tags": "Each tag is one feature.",
    "vector": "Each number is one feature, scaled to mean 0 and deviation 1.",
    IMAGE: "Pictures become colours and a thumbnail. A vision model knows more:\n"
    "`{name}_model: clip-ViT-B-32`.",
}


def _evaluation(found: Purchases, n_items: int, split: str) -> Iterator[tuple[str, dict[str, Any]]]:
    comment = {
        "time": "The latest tenth of each user's interactions is the test, the tenth before it "
        "validation.\nAt random: `order: RO`. Results look better then, "
        "because a model also trains on later interactions.",
        "last": "The last interaction of each user is the test, the one before it validation.",
        "random": "A random tenth of each user's interactions is the test, another one validation.",
    }[split]
    settings: dict[str, Any] = dict(RANDOM_SPLIT)
    if split != "random":
        settings["order"] = "TO"
    if split == "last":
        settings["split"] = {"LS": "valid_and_test"}
    yield comment, {"eval_args": settings}
    if found.repeats:
        yield (
            "Users come back to the same items, so what was bought can be recommended again.",
            {"repeatable": True},
        )
    yield evaluation(n_items)
