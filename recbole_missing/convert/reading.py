"""What every layout is read and checked with: feature files, row numbers, interactions by split."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recbole_missing.convert.folder import ITEM, USER, WHOLE, Interactions
from recbole_missing.data.files import read_matrix
from recbole_missing.imputation import arrays

FEATURES = "_feat.npy"
"""End of the name of a feature file in the layouts of MMRec, DGMRec, MMSSL and DiffMM."""
ORDER = ("image", "text", "audio")
"""Modalities that are listed first."""
ROW_NUMBER = re.compile(r"0|[1-9][0-9]{0,17}")
"""A whole number that fits 64 bits."""

_CHUNK = 4096  # rows that are read at a time


def feature_files(source: Path) -> dict[str, Path]:
    """Modality -> its ``_feat.npy``. Modalities of :data:`ORDER` come first.

    Raises:
        ValueError: if there is none, or a name cannot be the name of a modality.
    """
    files = {path.name[: -len(FEATURES)]: path for path in source.glob(f"*{FEATURES}")}
    if not files:
        raise ValueError(f"{source}: must hold <modality>{FEATURES} files, got none; add them.")
    return listed(files)


def listed(files: Mapping[str, Path]) -> dict[str, Path]:
    """Return the same files with the modalities of :data:`ORDER` first, then by name.

    Raises:
        ValueError: if a name cannot be the name of a modality.
    """
    for modality, path in files.items():
        if not modality.isidentifier():
            raise ValueError(f"{path}: {modality!r} must be an identifier such as image; rename.")

    def rank(modality: str) -> tuple[int, str]:
        return (ORDER.index(modality) if modality in ORDER else len(ORDER), modality)

    return {modality: files[modality] for modality in sorted(files, key=rank)}


def read_features(
    files: Mapping[str, Path], notes: list[str]
) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[np.int64]]]:
    """Read matrices, mapped from disk, and find the rows that are holes.

    Args:
        files: modality -> file.
        notes: gets a sentence for each modality with holes.

    Returns:
        Modality -> matrix, and modality -> rows in which every number is NaN.

    Raises:
        ValueError: if a file is damaged, holds no matrix of numbers, or a row has a number that is
            not finite in float32 beside others that are.
    """
    features, holes = {}, {}
    for modality, path in files.items():
        features[modality] = matrix = read_matrix(path)
        rows = noted_holes(modality, path, matrix, notes)
        if rows.size:
            holes[modality] = rows
    return features, holes


def noted_holes(
    modality: str, path: Path, matrix: NDArray[Any], notes: list[str]
) -> NDArray[np.int64]:
    """:func:`nan_rows`, with a sentence for the user if there are some."""
    rows = nan_rows(path, matrix)
    if rows.size:
        notes.append(f"{path.name}: {rows.size:,} rows are NaN; their items have no {modality}")
    return rows


def nan_rows(path: Path, matrix: NDArray[Any]) -> NDArray[np.int64]:
    """Rows in which every number is NaN.

    Args:
        path: file or folder of the matrix, for messages.
        matrix: real numbers ``(n_rows, dim)``.

    Raises:
        ValueError: if another row has a number that is not finite in float32.
    """
    holes: list[int] = []
    broken: list[int] = []
    for start in range(0, len(matrix), _CHUNK):
        with np.errstate(over="ignore"):  # what overflows float32 becomes inf
            hole, wrong = arrays.holes(matrix[start : start + _CHUNK].astype(np.float32))
        holes.extend(start + np.flatnonzero(hole))
        broken.extend(start + np.flatnonzero(wrong))
    if broken:
        raise ValueError(
            f"{path}: every number must be finite in float32, got NaN, inf or overflow in "
            f"{len(broken):,} rows such as {[int(row) for row in broken[:5]]}; repair them, or "
            "make the whole row NaN where the item lacks the modality."
        )
    return np.array(holes, dtype=np.int64)


def is_number(text: str) -> bool:
    """Tell whether a cell is a finite number. Python's own ``1_001`` is none in a table."""
    try:
        return text.isascii() and "_" not in text and math.isfinite(float(text))
    except ValueError:
        return False


def row_numbers(who: str, words: Sequence[str], n_rows: int) -> NDArray[np.int64]:
    """Read item ids that are row numbers of the features; distinct and in order.

    Raises:
        ValueError: if a word is no such number.
    """
    strange = [word for word in words if not ROW_NUMBER.fullmatch(word)]
    if strange:
        raise ValueError(f"{who}: must hold item ids, got {strange[:5]}; remove them.")
    return in_range(who, np.array([int(word) for word in words], np.int64), n_rows)


def in_range(who: str, items: NDArray[np.int64], n_rows: int) -> NDArray[np.int64]:
    """Distinct ids in order.

    Raises:
        ValueError: if one is not a row of the features.
    """
    strange = items[(items < 0) | (items >= n_rows)]
    if strange.size:
        raise ValueError(
            f"{who}: item ids must be between 0 and {n_rows - 1}, got {strange[:5].tolist()}; "
            "correct them."
        )
    return np.unique(items)


def check_rows(who: str, interactions: Interactions, features: Mapping[str, NDArray[Any]]) -> None:
    """Check that every item of the interactions is a row of every matrix.

    Raises:
        ValueError: if a matrix has too few rows.
    """
    last = max(map(int, interactions.tokens(ITEM)), default=-1)
    for modality, matrix in features.items():
        if len(matrix) <= last:
            raise ValueError(
                f"{modality}{FEATURES} has {len(matrix)} rows, {who} has item {last}; a row "
                f"belongs to the item of its number, so {last + 1} rows or more are needed."
            )


def checked(interactions: Interactions, notes: list[str], where: str) -> Interactions:
    """Check what every layout must have, and count what a reader should know.

    Users without a training interaction are removed from validation and test: no model knows them.
    Repeated pairs are kept and counted.

    Args:
        interactions: rows by split.
        notes: gets a sentence on what was removed or repeated.
        where: says where the split of an interaction stands, for messages.

    Raises:
        ValueError: if a split is empty, or is empty without those users.
    """
    whole = WHOLE in interactions.splits
    kept = interactions if whole else _without_cold_users(interactions, notes)
    for split, rows in kept.splits.items():
        if not rows:
            lost = len(interactions.splits[split])
            got = f"{lost} of users without training interaction" if lost else "none"
            wanted = "" if whole else " of users in training"
            remedy = "" if whole else ", a data set needs three parts"
            raise ValueError(
                f"{split} interactions: must be one or more{wanted}, got {got}; see "
                f"{where}{remedy}."
            )
    _count_repeats(kept, notes)
    return kept


def _without_cold_users(interactions: Interactions, notes: list[str]) -> Interactions:
    known = interactions.tokens(USER, "train")
    place = interactions.columns.index(USER)
    splits = {
        split: [row for row in rows if row[place] in known]
        for split, rows in interactions.splits.items()
    }
    dropped = {split: len(interactions.splits[split]) - len(rows) for split, rows in splits.items()}
    if any(dropped.values()):
        users = interactions.tokens(USER) - known
        counts = ", ".join(f"{split} {count}" for split, count in dropped.items() if count)
        notes.append(f"{len(users)} users without training interaction dropped from {counts}")
    return replace(interactions, splits=splits)


def _count_repeats(interactions: Interactions, notes: list[str]) -> None:
    places = [interactions.columns.index(column) for column in (USER, ITEM)]
    pairs = {
        split: [tuple(row[place] for place in places) for row in rows]
        for split, rows in interactions.splits.items()
    }
    for split, found in pairs.items():
        again = len(found) - len(set(found))
        if again:
            notes.append(f"{split}: {again:,} interactions repeat an earlier pair; kept")
    shared = Counter(pair for found in pairs.values() for pair in set(found))
    several = sum(count > 1 for count in shared.values())
    if several:
        notes.append(
            f"{several:,} pairs of user and item are in two splits or more; kept, though a model "
            "that has seen a pair in training cannot recommend it in a test"
        )
