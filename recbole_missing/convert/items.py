"""The items of a raw catalogue: texts, tags and numbers of a table, and a folder of pictures."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from recbole_missing.convert.folder import IMAGE, check_modality_names, find_pictures
from recbole_missing.convert.purchases import numbers, settle_incomplete
from recbole_missing.convert.raw import RawTable, open_table, texts
from recbole_missing.convert.reading import noted_holes
from recbole_missing.data import pictures
from recbole_missing.data.catalogue import first_few
from recbole_missing.data.encoders import split
from recbole_missing.data.files import read_ids, read_matrix
from recbole_missing.tables import counted

_TAG_SEPARATORS = ("|", ",", ";")


@dataclass(frozen=True)
class Columns:
    """A modality that is made of columns of the item table; ``encoder`` is text, tags or vector."""

    encoder: str
    columns: Sequence[str]


@dataclass(frozen=True)
class ItemTable:
    """A raw table of items, and what is known of them besides.

    Args:
        path: CSV, TSV or Parquet file, or None.
        item_id: column of the ids; None for the item column of the interactions.
        modalities: modality -> its columns.
        tag_separator: separator between two tags of a cell.
        images: folder of pictures, searched with its sub-folders, or None.
        image_column: column that names the picture of an item, relative to ``images``; None if a
            picture bears the id of its item.
        in_place: pictures are not copied into the data set. A checkpoint does not find them then,
            because a checkpoint may only name files inside its data set;
            ``--set image_images=FOLDER`` does.
        matrices: modality -> file of its features and file of their item ids.
        catalogue: ``all`` makes every item of the table a candidate, ``bought`` only those with an
            interaction. None means ``all`` without a k-core, ``bought`` with one.
        drop_incomplete: leave out rows without an id instead of refusing them.
        separator, encoding: of a text file.
    """

    path: Path | None = None
    item_id: str | None = None
    modalities: Mapping[str, Columns] = field(default_factory=dict)
    tag_separator: str = "|"
    images: Path | None = None
    image_column: str | None = None
    in_place: bool = False
    matrices: Mapping[str, tuple[Path, Path]] = field(default_factory=dict)
    catalogue: str | None = None
    drop_incomplete: bool = False
    separator: str | None = None
    encoding: str = "utf-8"

    def names(self) -> list[str]:
        """All modalities."""
        return [*self.modalities, *([IMAGE] if self.images else []), *self.matrices]


@dataclass
class Items:
    """The items of the new data set.

    Attributes:
        tokens: id of each item.
        bought: bool ``(n_items,)``.
        fields: column of the raw table -> its name in the ``.item`` file.
        encoders: column of the raw table -> encoder of its modality.
        columns: column of the raw table -> cell of each item, as it is to be written.
        present: modality -> bool ``(n_items,)``, who has it.
        pictures: item id -> its picture.
        folder: the folder of the pictures if they are not copied.
        matrices: modality -> features and their ids.
        rows: number of rows of the table.
        dropped: rule -> number of rows that it left out.
        notes: sentences for the user.
    """

    tokens: NDArray[np.object_]
    bought: NDArray[np.bool_]
    fields: dict[str, str] = field(default_factory=dict)
    encoders: dict[str, str] = field(default_factory=dict)
    columns: dict[str, NDArray[np.object_]] = field(default_factory=dict)
    present: dict[str, NDArray[np.bool_]] = field(default_factory=dict)
    pictures: dict[str, Path] = field(default_factory=dict)
    folder: Path | None = None
    matrices: dict[str, tuple[NDArray, list[str]]] = field(default_factory=dict)
    rows: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def read_items(wanted: ItemTable, bought: Sequence[str], item: str) -> Items:
    """Read the items of a catalogue.

    Args:
        wanted: the table and the pictures; ``catalogue`` is ``all`` or ``bought``.
        bought: ids of the items that have an interaction.
        item: item column of the interactions.

    Raises:
        ValueError: if a file, a column or a cell is wrong, no id is one of ``bought``, or no item
            has a modality.
    """
    _check(wanted)
    found = _read_table(wanted, bought, item)
    if wanted.images is not None:
        _find_pictures(wanted, found)
    for name, files in wanted.matrices.items():
        found.matrices[name] = _read_matrix(name, files, found)
    for name, present in found.present.items():
        if not present.any():
            raise ValueError(
                f"{name}: some item must have it, got none of {len(present):,}; leave it out, or "
                "name other columns."
            )
    lacks_all = ~np.logical_or.reduce(list(found.present.values()) or [np.ones(1, dtype=bool)])
    if lacks_all.any():
        found.notes.append(f"{int(lacks_all.sum()):,} items have no modality at all")
    return found


def _check(wanted: ItemTable) -> None:
    repeated = [name for name, count in Counter(wanted.names()).items() if count > 1]
    if repeated:
        raise ValueError(
            f"import: modalities must have different names, got {repeated[0]!r} twice."
        )
    for name in wanted.names():
        if not (name.isidentifier() and name.isascii()):
            raise ValueError(
                f"import: a modality must have a plain name such as title, got {name!r}; rename it."
            )
    check_modality_names(wanted.names())
    needs_table = {
        "--text, --tags, --numbers": wanted.modalities, "--item-id": wanted.item_id,
        "--image-column": wanted.image_column,
        "--catalogue all": wanted.catalogue == "all",
    }  # fmt: skip
    for option, value in needs_table.items():
        if value and wanted.path is None:
            raise ValueError(f"{option}: must come with --items, got no table of items; name it.")
    if wanted.image_column and wanted.images is None:
        raise ValueError("--image-column: must come with --images, got no folder; name it.")
    if wanted.in_place and (wanted.images is None or wanted.image_column):
        raise ValueError(
            "--images-in-place: must come with --images, whose pictures bear ids (no "
            "--image-column); leave it out."
        )
    if not wanted.tag_separator:
        raise ValueError("--tag-separator: must be one character or more, got none.")


# --------------------------------------------------------------------------------------- the table


def _read_table(wanted: ItemTable, bought: Sequence[str], item: str) -> Items:
    if wanted.path is None:
        tokens = np.array(bought, dtype=object)
        return Items(tokens, np.ones(len(tokens), dtype=bool))
    item_id = wanted.item_id or item
    table = open_table(wanted.path, wanted.separator, wanted.encoding)
    options = _options(wanted, item_id)
    table.check_columns(options)
    frame = table.read(list(options.values()), ids=(item_id,))
    if frame.empty:
        raise ValueError(f"{wanted.path}: must have rows, got a header only; fill the table.")
    rows = len(frame)
    lacks = {item_id: frame[item_id].isna().to_numpy()}
    incomplete = settle_incomplete(wanted.path, table, lacks, wanted.drop_incomplete)
    frame = frame[~incomplete]
    frame, repeats = _distinct(wanted.path, table, frame, item_id)
    tokens = texts(frame[item_id])
    unknown = _match(wanted.path, item_id, tokens, bought)
    is_bought = pd.Series(tokens).isin(bought).to_numpy()
    kept = is_bought if wanted.catalogue == "bought" else np.ones(len(tokens), dtype=bool)
    frame = frame[kept]
    tokens = np.concatenate([tokens[kept], np.array(unknown, dtype=object)])
    is_bought = np.concatenate([is_bought[kept], np.ones(len(unknown), dtype=bool)])
    found = Items(tokens, is_bought, rows=rows)
    counts = {
        "without id": int(incomplete.sum()), "equal repeats": repeats,
        "without an interaction that is left": int((~kept).sum()),
    }  # fmt: skip
    found.dropped = {rule: count for rule, count in counts.items() if count}
    if unknown:
        found.notes.append(
            f"{len(unknown):,} of {len(bought):,} items with an interaction are not in "
            f"{wanted.path.name}, for example {first_few(unknown, 3)}"
            f"{_likeness(tokens.tolist(), unknown)}; they have holes"
        )
    _fill_columns(wanted, table, frame, len(unknown), found)
    return found


def _options(wanted: ItemTable, item_id: str) -> dict[str, str]:
    """What asks for a column -> the column."""
    options = {"--item-id" if wanted.item_id else "--item (or give --item-id)": item_id}
    for name, chosen in wanted.modalities.items():
        for number, column in enumerate(chosen.columns):
            options[f"modality {name}" + (f" (column {number + 1})" if number else "")] = column
    if wanted.image_column:
        options["--image-column"] = wanted.image_column
    return options


def _distinct(
    path: Path, table: RawTable, frame: pd.DataFrame, item_id: str
) -> tuple[pd.DataFrame, int]:
    """One row for each id, and the number of equal repeats.

    Raises:
        ValueError: if rows of one id differ.
    """
    plain = frame.drop_duplicates()
    torn = plain[item_id].duplicated(keep=False)
    if torn.any():
        ids = list(dict.fromkeys(texts(plain[item_id][torn])))
        two = plain[(plain[item_id] == ids[0]).to_numpy()].iloc[:2]
        odd = [name for name in two if len(set(texts(two[name]))) > 1]
        places = " and ".join(table.where(int(row)) for row in two.index)
        raise ValueError(
            f"{path}: an item must have one row, got rows that differ for "
            f"{counted(len(ids), 'id')}: {first_few(ids)} (the first in "
            f"{', '.join(odd)}, {places}); keep one row each."
        )
    return plain, len(frame) - len(plain)


def _match(
    path: Path, item_id: str, tokens: NDArray[np.object_], bought: Sequence[str]
) -> list[str]:
    """Items with an interaction that the table lacks.

    Raises:
        ValueError: if it lacks all of them.
    """
    known = set(tokens)
    unknown = [token for token in bought if token not in known]
    if len(unknown) == len(bought):
        reason = _likeness(tokens.tolist(), bought)
        raise ValueError(
            f"{path}: {item_id} must hold ids of the interactions, got none of "
            f"{len(bought):,}: there an item is {bought[0]!r}, here {tokens[0]!r}{reason}; write "
            "ids alike, or name the column of the ids with --item-id."
        )
    return unknown


def _likeness(one: Sequence[str], other: Sequence[str]) -> str:
    """Why ids of two files differ, if it is a usual reason."""
    reasons = {
        "zeros at the beginning are lost in one of them": lambda word: word.lstrip("0"),
        "numbers end with .0 in one of them": lambda word: re.sub(r"\.0+$", "", word),
        "capital letters or spaces differ": lambda word: word.strip().lower(),
    }
    for reason, plain in reasons.items():
        if {plain(word) for word in one} & {plain(word) for word in other}:
            return f" ({reason})"
    return ""


def _fill_columns(
    wanted: ItemTable, table: RawTable, frame: pd.DataFrame, n_unknown: int, found: Items
) -> None:
    """Add the cells of each modality, and who has it. Items behind the table's have none."""
    assert wanted.path is not None
    for name, chosen in wanted.modalities.items():
        cells: list[NDArray] = [texts(frame[column]) for column in chosen.columns]
        if chosen.encoder == "tags":
            found.notes.append(_tags_note(wanted, name, cells))
            cells = [_tags(column, wanted.tag_separator) for column in cells]
        elif chosen.encoder == "vector":
            for column in chosen.columns:
                numbers(f"{wanted.path}: {column}", frame[column], table)
            cells = _whole_vectors(name, chosen.columns, cells, found.notes)
        else:
            cells = [_one_line_end(column) for column in cells]
        filled = [[bool(cell.strip()) for cell in column] for column in cells]
        present = np.logical_or.reduce(np.array(filled, dtype=bool), axis=0)
        found.present[name] = np.append(present, np.zeros(n_unknown, dtype=bool))
        for column, values in zip(chosen.columns, cells):
            found.encoders[column] = chosen.encoder
            found.columns[column] = np.append(values, np.full(n_unknown, "", dtype=object))
    found.fields = _field_names(list(found.columns))
    if wanted.image_column:
        named = texts(frame[wanted.image_column])
        found.pictures = {t: Path(n) for t, n in zip(found.tokens.tolist(), named) if n.strip()}


def _whole_vectors(
    name: str, columns: Sequence[str], cells: Sequence[NDArray], notes: list[str]
) -> list[NDArray]:
    """Cells of items that have a number in every column; the others get empty ones."""
    filled = [column != "" for column in cells]
    whole = np.logical_and.reduce(filled)
    some = int((np.logical_or.reduce(filled) & ~whole).sum())
    if some:
        notes.append(
            f"{name}: {some:,} items have only some of {', '.join(columns)}; they count as holes"
        )
    return [np.where(whole, column, "").astype(object) for column in cells]


def _tags(column: NDArray[np.object_], separator: str) -> NDArray[np.object_]:
    """Tags joined by spaces, which are the separator in RecBole; a space inside a tag is ``_``."""
    return np.array(
        [" ".join("_".join(tag.split()) for tag in split(cell, separator)) for cell in column],
        dtype=object,
    )


def _tags_note(wanted: ItemTable, name: str, cells: Sequence[NDArray[np.object_]]) -> str:
    separator = wanted.tag_separator
    filled = [cell for column in cells for cell in column if cell]
    counts = Counter(tag.strip() for cell in filled for tag in split(cell, separator))
    common = [tag for tag, _ in counts.most_common(3)]
    note = f"{name}: {len(counts):,} different tags, for example {first_few(common, 3)}"
    others = [sign for sign in _TAG_SEPARATORS if sign != separator]
    often = [sign for sign in others if 2 * sum(sign in cell for cell in filled) > len(filled)]
    if often and not any(separator in cell for cell in filled):
        note += f"; no cell has {separator!r} but most have {often[0]!r}, see --tag-separator"
    return note


def _one_line_end(column: NDArray[np.object_]) -> NDArray[np.object_]:
    """Texts in which every line end is a line feed: readers of CSV disagree on the others."""
    return np.array([re.sub("\r\n?", "\n", cell) for cell in column], dtype=object)


def _field_names(columns: Sequence[str]) -> dict[str, str]:
    """Column -> a name for the header of an atomic file, which may hold no colon, tab or quote."""
    names: dict[str, str] = {}
    for column in columns:
        plain = name = re.sub(r"\W+", "_", column).strip("_") or "column"
        number = 2
        while name in ("item_id", *names.values()):
            name, number = f"{plain}_{number}", number + 1
        names[column] = name
    return names


# ------------------------------------------------------------------------- pictures and matrices


def _find_pictures(wanted: ItemTable, found: Items) -> None:
    """Find the picture of each item.

    Raises:
        ValueError: if there is no such folder, it has no pictures, no item has one, or an item has
            several.
    """
    folder = wanted.images
    assert folder is not None
    if not folder.is_dir():
        raise ValueError(f"--images: must be a folder, got {str(folder)!r}; correct the path.")
    files = find_pictures(folder, found.notes)
    if not files:
        raise ValueError(
            f"--images: {folder} must hold pictures ({', '.join(pictures.SUFFIXES)}), got none; "
            "name the right folder."
        )
    if wanted.image_column:
        _take_named(folder, files, found)
    else:
        _take_by_stem(files, found)
    _leave_out_unreadable(found)
    found.folder = folder if wanted.in_place else None
    has = found.pictures
    found.present[IMAGE] = np.array([token in has for token in found.tokens], dtype=bool)


def _leave_out_unreadable(found: Items) -> None:
    """Keep the pictures whose header can be read. What is damaged behind it, a run finds."""
    odd = {t: path.name for t, path in found.pictures.items() if not pictures.n_pixels(path)}
    if odd and len(odd) == len(found.pictures):
        raise ValueError(
            f"--images: one picture or more must be readable, got none of {len(odd):,}: "
            f"{first_few(odd.values(), 3)}; replace them, or leave out --images."
        )
    if odd:
        found.notes.append(
            f"{IMAGE}: {len(odd):,} of {len(found.pictures):,} pictures cannot be read, left out: "
            f"{first_few(odd.values(), 3)}"
        )
        found.pictures = {t: path for t, path in found.pictures.items() if t not in odd}


def _take_named(folder: Path, files: Sequence[Path], found: Items) -> None:
    """Keep the pictures that the item table names and that are in the folder."""
    known = {path.relative_to(folder) for path in files}
    named = {token: Path(os.path.normpath(path)) for token, path in found.pictures.items()}
    odd = [token for token in named if not _is_file_name(token)]
    if odd:
        strange = set(odd)
        named = {token: path for token, path in named.items() if token not in strange}
        found.notes.append(
            f"{IMAGE}: {len(odd):,} items whose ids can be no file names lack it, for example "
            f"{first_few(odd, 3)}"
        )
    found.pictures = {token: folder / path for token, path in named.items() if path in known}
    absent = [str(path) for path in named.values() if path not in known]
    if not found.pictures:
        there = [str(path) for path in sorted(known)]
        raise ValueError(
            f"--image-column: must name pictures in {folder}, got none that is there: the table "
            f"has {first_few(absent, 3)}, the folder has {first_few(there, 3)}; "
            "write paths relative to the folder."
        )
    if absent:
        found.notes.append(
            f"{IMAGE}: {len(absent):,} pictures that the table names are not in {folder}, for "
            f"example {first_few(absent, 3)}"
        )


def _is_file_name(token: str) -> bool:
    """Tell whether a picture can bear the name on every system."""
    return not (re.search(r'[<>:"/\\|?*\x00-\x1f]|^\.|[. ]$', token) or len(token.encode()) > 200)


def _take_by_stem(files: Sequence[Path], found: Items) -> None:
    """Keep the pictures whose file name without suffix is the id of an item."""
    found.pictures, others = pictures.of_items(
        "--images",
        files,
        set(found.tokens),
        "keep one, or let the table of items name it (--image-column)",
    )
    strangers = [path.name for path in others]
    if not found.pictures:
        stems = [path.stem for path in files]
        raise ValueError(
            f"--images: pictures must bear ids of items, such as {found.tokens[0]!r} with a "
            f"suffix, got none of {len(files):,} that does: {first_few(strangers, 3)}"
            f"{_likeness(stems, found.tokens.tolist())}; rename them, or let the table of items "
            "name them (--image-column)."
        )
    if strangers:
        found.notes.append(
            f"{IMAGE}: {len(strangers):,} of {len(files):,} pictures are of no item, for example "
            f"{first_few(strangers, 3)}"
        )


def _read_matrix(name: str, files: tuple[Path, Path], found: Items) -> tuple[NDArray, list[str]]:
    """Features that exist already, and the item id of each row.

    Raises:
        ValueError: if a file is wrong, the two differ in length, or no id is that of an item.
    """
    matrix, ids = read_matrix(files[0]), read_ids(files[1])
    if len(matrix) != len(ids):
        raise ValueError(
            f"{files[1]}: must have one id for each of the {len(matrix):,} rows of {files[0]}, got "
            f"{len(ids):,}; write both again, without a header."
        )
    known = set(found.tokens)
    if known.isdisjoint(ids):
        raise ValueError(
            f"{files[1]}: must hold ids of items, such as {found.tokens[0]!r}, got "
            f"{first_few(ids, 3)}{_likeness(ids, found.tokens.tolist())}; write ids alike."
        )
    holes = noted_holes(name, files[0], matrix, found.notes)
    has = set(np.delete(np.array(ids, dtype=object), holes).tolist())
    found.present[name] = np.array([token in has for token in found.tokens], dtype=bool)
    return matrix, ids
