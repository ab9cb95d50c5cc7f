"""The layouts of MMSSL and DiffMM: each split is a matrix of users and items.

MMSSL (https://github.com/HKUDS/MMSSL, ``MMSSL/main.py`` and the README) has a folder for each data
set. LATTICE and MICRO (https://github.com/CRIPAC-DIG) use the same files, the JSON ones in a folder
``5-core``:

- ``train.json``, ``val.json``, ``test.json``: ``{"<user>": [item, ...]}``,
- ``train_mat``: a pickled CSR matrix of ``train.json``. Only ``train.json`` is used here. If the
  matrix can be read it is compared.

DiffMM (https://github.com/HKUDS/DiffMM, ``DataHandler.py``) has

- ``trnMat.pkl``, ``valMat.pkl``, ``tstMat.pkl``: pickled sparse matrices, users x items. A value
  that is not 0 is an interaction.

Both have ``<modality>_feat.npy``, in which row r is item r. Pickles are read by
:mod:`recbole_missing.convert.legacy_pickle`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from recbole_missing.convert.folder import ITEM, SPLITS, USER, Interactions, Layout
from recbole_missing.convert.legacy_pickle import load_pickled_matrix
from recbole_missing.convert.reading import (
    FEATURES,
    ROW_NUMBER,
    check_rows,
    checked,
    feature_files,
    read_features,
)
from recbole_missing.data.files import read_text

JSON_FILES = {"train": "train.json", "valid": "val.json", "test": "test.json"}
PICKLES = {"train": "trnMat.pkl", "valid": "valMat.pkl", "test": "tstMat.pkl"}
TRAIN_MATRIX = "train_mat"

_TIKTOK = (59_541, {3_051, 6_130})
"""Training pairs of TikTok, and pairs of its other two splits, which are swapped in some copies."""

Pairs = list[tuple[int, int]]
_LARGEST = 10**18


def read_mmssl(source: Path) -> Layout:
    """Read a folder of MMSSL, LATTICE or MICRO.

    Raises:
        ValueError: if the folder is incomplete or inconsistent.
    """
    notes: list[str] = []
    folder = _json_folder(source)
    pairs = {split: _read_json(folder / file) for split, file in JSON_FILES.items()}
    for place in sorted({source, folder}):
        if (place / TRAIN_MATRIX).is_file():
            notes.append(_compared(place / TRAIN_MATRIX, pairs["train"]))
    return _layout(source, pairs, list(JSON_FILES.values()), None, notes)


def read_diffmm(source: Path) -> Layout:
    """Read a folder of DiffMM.

    Raises:
        ValueError: if the folder is incomplete or inconsistent, or a pickle is unsafe.
    """
    _check_files(source, PICKLES.values())
    matrices = {split: load_pickled_matrix(source / file) for split, file in PICKLES.items()}
    shapes = {PICKLES[split]: matrix.shape for split, matrix in matrices.items()}
    if len(set(shapes.values())) > 1:
        raise ValueError(
            f"{source}: matrices must have one shape (users, items), got {shapes}; they are not of "
            "one data set."
        )
    pairs = {
        split: list(zip(matrix.row.tolist(), matrix.col.tolist()))
        for split, matrix in matrices.items()
    }
    return _layout(source, pairs, list(PICKLES.values()), matrices["train"].shape[1], [])


def _layout(
    source: Path,
    pairs: dict[str, Pairs],
    files: Sequence[str],
    n_items: int | None,
    notes: list[str],
) -> Layout:
    """Join the splits with the features.

    Args:
        source: the folder.
        pairs: split -> user and item numbers.
        files: file of each split, for messages.
        n_items: number of items, if the files say it.
        notes: gets sentences on what was left out.
    """
    splits = {split: [[str(user), str(item)] for user, item in pairs[split]] for split in SPLITS}
    interactions = Interactions([USER, ITEM], splits)
    features, holes = read_features(feature_files(source), notes)
    check_rows(", ".join(files), interactions, features)
    sizes = {modality: len(matrix) for modality, matrix in features.items()}
    if n_items is None:
        n_items = max(sizes.values())
    wrong = [
        f"{modality}{FEATURES} {size:,}" for modality, size in sizes.items() if size != n_items
    ]
    if wrong:
        raise ValueError(
            f"{source}: features must have a row for each of {n_items:,} items, got "
            f"{', '.join(wrong)}; they are not of one data set."
        )
    notes += _swapped(splits)
    interactions = checked(interactions, notes, " / ".join(files))
    idle = n_items - len(interactions.tokens(ITEM))
    if idle:
        notes.append(f"{idle:,} of {n_items:,} items have no interaction; no items of the data set")
    return Layout(interactions, features, holes, notes=notes)


def _swapped(splits: dict[str, list[list[str]]]) -> list[str]:
    """A note if these are the splits of TikTok, of which two orders are in use."""
    sizes = {split: len(rows) for split, rows in splits.items()}
    if sizes["train"] != _TIKTOK[0] or {sizes["valid"], sizes["test"]} != _TIKTOK[1]:
        return []
    here, other = ("DiffMM", "DGMRec")[:: 1 if sizes["valid"] < sizes["test"] else -1]
    return [
        f"TikTok: validation has {sizes['valid']:,} interactions and test {sizes['test']:,}, as in "
        f"{here}; {other} has the two the other way round, so results cannot be compared"
    ]


def _check_files(folder: Path, files: Any) -> None:
    absent = [file for file in files if not (folder / file).is_file()]
    if absent:
        raise ValueError(
            f"{folder}: must hold {', '.join(files)}, got no {', '.join(absent)}; a data set needs "
            "three parts."
        )


def _json_folder(source: Path) -> Path:
    """The folder of the JSON files: the source, or its only ``<k>-core`` folder (LATTICE)."""
    if not (source / JSON_FILES["train"]).is_file():
        cores = sorted(source.glob(f"*-core/{JSON_FILES['train']}"))
        if len(cores) > 1:
            names = [path.parent.name for path in cores]
            raise ValueError(
                f"{source}: must hold one split, got {names}; move all but one of them away."
            )
        if cores:
            source = cores[0].parent
    _check_files(source, JSON_FILES.values())
    return source


def _read_json(path: Path) -> Pairs:
    """User and item numbers, in the order of the file."""
    try:
        content = json.loads(read_text(path), object_pairs_hook=list)
    except (ValueError, RecursionError) as error:  # also a number of thousands of digits
        raise ValueError(f"{path}: must be whole JSON, got: {error}; copy it again.") from error
    users = [pair[0] for pair in content if isinstance(pair, tuple)]
    if not isinstance(content, list) or len(users) != len(content):
        raise ValueError(f'{path}: must be {{"<user>": [item, ...]}}, got another kind of JSON.')
    if len(set(users)) < len(users):
        raise ValueError(f"{path}: a user must have one list, got several; merge them.")
    pairs: Pairs = []
    for user, items in content:
        number = _number(path, "a user", int(user) if ROW_NUMBER.fullmatch(user) else user)
        if not isinstance(items, list):
            raise ValueError(f"{path}: user {user!r} must have a list of items, got {items!r:.50}.")
        pairs += [(number, _number(path, f"an item of user {user!r}", item)) for item in items]
    return pairs


def _number(path: Path, who: str, value: Any) -> int:
    if type(value) is not int or not 0 <= value < _LARGEST:
        raise ValueError(
            f"{path}: {who} must be an integer of 0 or more that fits 64 bits, a row of the "
            f"features, got {value!r:.50}; correct it."
        )
    return value


def _compared(path: Path, train: Pairs) -> str:
    """A note on how the pickled training matrix relates to ``train.json``."""
    try:
        matrix = load_pickled_matrix(path)
    except ValueError as error:
        return f"{path.name}: not read, and not needed beside train.json ({error})"
    pickled = set(zip(matrix.row.tolist(), matrix.col.tolist()))
    here, there = set(train) - pickled, pickled - set(train)
    if not here and not there:
        return f"{path.name}: the same {len(pickled):,} pairs as train.json"
    return (
        f"{path.name}: differs from train.json, which is used: {len(there):,} pairs are only in "
        f"the matrix, {len(here):,} only in train.json"
    )
