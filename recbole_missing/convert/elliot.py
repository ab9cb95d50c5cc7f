"""The layout of Elliot (https://github.com/sisinflab/elliot) with features of Ducho.

- ``train.tsv``, ``validation.tsv`` or ``val.tsv``, ``test.tsv``: user, item, rating and time, tab
  separated, without a header (``elliot/dataset/dataset.py``, strategy ``fixed``). Rating and time
  may be absent.
- ``<modality>_embeddings``: a folder of Ducho (https://github.com/sisinflab/Ducho,
  ``ducho/internal/father_classes/DatasetFather.py``). Its innermost folder
  ``<backend>/<model>/<layer>`` has one ``<item>.npy`` for each item that has the modality, a vector
  ``(dim,)`` or ``(1, dim)``.

Elliot calls the modalities ``visual``, ``textual`` and ``audio``; here they are ``image``, ``text``
and ``audio``.
"""

from __future__ import annotations

import math
from pathlib import Path

from recbole_missing.convert.folder import ITEM, KEPT_COLUMNS, SPLITS, Interactions, Layout
from recbole_missing.convert.reading import checked, listed, nan_rows
from recbole_missing.data.files import read_folder, read_rows

NAMES = {"image": "visual", "text": "textual"}
"""Our name of a modality -> Elliot's; others are the same."""
FILES = {"train": ["train.tsv"], "valid": ["validation.tsv", "val.tsv"], "test": ["test.tsv"]}
EMBEDDINGS = "_embeddings"


def read_elliot(source: Path) -> Layout:
    """Read a folder of Elliot.

    Raises:
        ValueError: if the folder is incomplete or inconsistent.
    """
    notes: list[str] = []
    tables = {split: _read_table(_file(source, split)) for split in SPLITS}
    width = min(len(row) for rows in tables.values() for row in rows)
    splits = {split: [row[:width] for row in rows] for split, rows in tables.items()}
    columns = list(KEPT_COLUMNS)[:width]
    interactions = checked(Interactions(columns, splits), notes, "the three files")
    items = interactions.tokens(ITEM)
    features, ids, holes = {}, {}, {}
    for name, folder in _folders(source).items():
        names = sorted(path.name[: -len(".npy")] for path in folder.glob("*.npy"))
        features[name], ids[name] = read_folder(folder, names), names
        holes[name] = nan_rows(folder, features[name])
        lacking = len(items - {*names} | {names[row] for row in holes[name]})
        if lacking == len(items):
            raise ValueError(
                f"{folder}: must hold <item>.npy for one item or more, got {names[:3]}, items are "
                f"named {min(items)!r}; write ids alike."
            )
        if lacking:
            notes.append(f"{folder.name}: {lacking:,} of {len(items):,} items have no {name}")
    return Layout(interactions, features, holes, ids, notes=notes)


def _file(source: Path, split: str) -> Path:
    found = [source / file for file in FILES[split] if (source / file).is_file()]
    if len(found) != 1:
        names = [path.name for path in found]
        raise ValueError(f"{source}: must hold one of {FILES[split]}, got {names}; add it.")
    return found[0]


def _read_table(path: Path) -> list[list[str]]:
    rows = []
    for number, cells in read_rows(path, "\t"):
        if not 2 <= len(cells) <= len(KEPT_COLUMNS) or not all(cells[:2]) or not _numbers(cells):
            raise ValueError(
                f"{path}: line {number} must be user, item, rating, time without a header, got "
                f"{cells[:5]}; correct it."
            )
        rows.append(cells)
    if not rows:
        raise ValueError(f"{path}: must hold interactions, got none; a data set needs three parts.")
    return rows


def _numbers(cells: list[str]) -> bool:
    """Tell whether rating and time are numbers."""
    try:
        return all(math.isfinite(float(cell)) for cell in cells[2:])
    except ValueError:
        return False


def _folders(source: Path) -> dict[str, Path]:
    """Modality -> the folder with its ``.npy`` files."""
    ours = {theirs: name for name, theirs in NAMES.items()}
    folders = {}
    for top in sorted(source.glob(f"*{EMBEDDINGS}")):
        theirs = top.name[: -len(EMBEDDINGS)]
        inner = sorted({path.parent for path in top.rglob("*.npy")})
        if len(inner) != 1:
            raise ValueError(
                f"{top}: must hold one folder of .npy files, got "
                f"{[str(path.relative_to(top)) for path in inner[:5]]}; keep one."
            )
        name = ours.get(theirs, theirs)
        if not name.isidentifier():
            raise ValueError(f"{top}: {name!r} must be an identifier such as visual; rename.")
        folders[name] = inner[0]
    if not folders:
        raise ValueError(f"{source}: must hold <modality>{EMBEDDINGS} folders, got none; add them.")
    return listed(folders)
