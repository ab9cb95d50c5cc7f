"""The layout of MMRec (https://github.com/enoche/MMRec, ``src/utils/dataset.py``).

- ``<dataset>.inter``, tab separated, with the columns ``userID``, ``itemID`` and ``x_label``
  (0 training, 1 validation, 2 test). ``rating`` and ``timestamp`` are kept if they are there.
- ``<modality>_feat.npy``: row r is the item with ``itemID`` r.
- ``missed_img_itemIDs.csv``, optional: the items whose row of ``image_feat.npy`` was filled with
  the mean of the others (``preprocessing/3feat-encoder.ipynb``).
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recbole_missing.convert.folder import (
    ITEM,
    KEPT_COLUMNS,
    SPLITS,
    USER,
    Interactions,
    Layout,
)
from recbole_missing.convert.reading import (
    ROW_NUMBER,
    check_rows,
    checked,
    feature_files,
    read_features,
    row_numbers,
)
from recbole_missing.data.files import read_lines, read_rows
from recbole_missing.data.single_files import LABEL

HOLES = {"missed_img_itemIDs.csv": "image"}
"""File -> modality that its items lack. MMRec fills their rows with the mean of the others."""


def read_mmrec(source: Path) -> Layout:
    """Read a folder of MMRec.

    Users without a training interaction are removed from validation and test, as in MMRec.

    Raises:
        ValueError: if the folder is incomplete or inconsistent.
    """
    layout = read_plain(source)
    masks = sorted(path.name for path in source.glob("missing_items_*.npy"))
    if masks:
        layout.notes.append(f"{', '.join(masks)}: not read; `import dgmrec` reads masks")
    return layout


def read_plain(source: Path) -> Layout:
    """Read what MMRec and DGMRec share: interactions, features, items that lack a modality."""
    notes: list[str] = []
    path = inter_file(source)
    interactions = read_interactions(path, notes)
    features, holes = read_features(feature_files(source), notes)
    check_rows(path.name, interactions, features)
    interactions = checked(interactions, notes, f"{LABEL} (0, 1 or 2)")
    for file, modality in HOLES.items():
        if (source / file).exists() and modality in features:
            listed = _read_holes(source / file, len(features[modality]))
            holes[modality] = np.union1d(holes.get(modality, []), listed).astype(np.int64)
            notes.append(f"{file}: {len(listed)} items have no {modality}; rows left out")
    return Layout(interactions, features, holes, notes=notes)


def inter_file(source: Path) -> Path:
    """The interaction file. If there are several, it is the one with the folder's name.

    Raises:
        ValueError: if there is no such file.
    """
    found = sorted(p for p in source.glob("*.inter") if not p.stem.endswith("_del"))
    named = [path for path in found if path.stem == source.resolve().name]
    chosen = named or found
    if len(chosen) != 1:
        raise ValueError(
            f"{source}: must hold one <dataset>.inter, got {[path.name for path in found]}; "
            f"name one after the folder."
        )
    return chosen[0]


def read_interactions(path: Path, notes: list[str]) -> Interactions:
    """Rows by split, as text. Ids are names, so they are not parsed as numbers.

    Raises:
        ValueError: if the file is no such table.
    """
    lines = read_rows(path, "\t")
    header = lines[0][1] if lines else []
    absent = [column for column in (USER, ITEM, LABEL) if column not in header]
    if absent:
        raise ValueError(f"{path}: the header must name {absent}, got {header}.")
    columns = [column for column in KEPT_COLUMNS if column in header]
    places = [header.index(column) for column in columns]
    label = header.index(LABEL)
    splits: dict[str, list[list[str]]] = {split: [] for split in SPLITS}
    for number, cells in lines[1:]:
        _check_row(f"{path}: line {number}", header, cells)
        splits[SPLITS[int(cells[label])]].append([cells[place] for place in places])
    left_out = [column for column in header if column not in (*columns, LABEL)]
    if left_out:
        notes.append(f"{path.name}: columns {', '.join(left_out)} left out")
    return Interactions(columns, splits)


def _check_row(who: str, header: list[str], cells: list[str]) -> None:
    row = dict(zip(header, cells))
    if len(cells) != len(header) or not row[USER]:
        raise ValueError(f"{who} must have {len(header)} cells and a {USER}, got {cells}.")
    if not ROW_NUMBER.fullmatch(row[ITEM]):
        raise ValueError(f"{who}: {ITEM} must be a row number of the features, got {row[ITEM]!r}.")
    if row[LABEL] not in ("0", "1", "2"):
        raise ValueError(
            f"{who}: {LABEL} must be 0 (training), 1 (validation) or 2 (test), got {row[LABEL]!r}."
        )


def _read_holes(path: Path, n_rows: int) -> NDArray[np.int64]:
    """Read item ids, perhaps in quotes, that are separated by tabs, commas or line breaks."""
    words = re.findall(r'[^\s,"]+', "\n".join(read_lines(path)))
    return row_numbers(str(path), words, n_rows)
