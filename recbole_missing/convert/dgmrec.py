"""The layout of the DGMRec release (https://github.com/ptkjw1997/DGMRec, ``data/masks``).

It is MMRec's layout (:mod:`recbole_missing.convert.mmrec`) and in addition:

- ``missing_items_<ratio>.npy``: a pickled dict of item ids. A key has one letter for each modality
  that its items lack (``v`` image, ``t`` text, ``a`` audio), or is ``all``.
- ``<dataset>_del.inter``: the interactions without those of new items in training, or
  ``new_items.npy``: the ids of the new items.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recbole_missing.convert.folder import ITEM, Lacking, Layout
from recbole_missing.convert.legacy_pickle import load_pickled_arrays
from recbole_missing.convert.mmrec import inter_file, read_interactions, read_plain
from recbole_missing.convert.reading import in_range, row_numbers
from recbole_missing.data.files import read_ids

LETTERS = {"v": "image", "t": "text", "a": "audio"}
"""Letters of a mask's keys."""
MASK_FILE = re.compile(r"missing_items_(\d+(?:\.\d+)?)\.npy")


def read_dgmrec(source: Path) -> Layout:
    """Read a folder of the DGMRec release.

    New items are the training items of ``X.inter`` that are no training items of ``X_del.inter``.
    Without that file they are the items of ``new_items.npy``.

    Raises:
        ValueError: as :func:`~recbole_missing.convert.mmrec.read_mmrec`, or if a mask is absent,
            ill-formed or unsafe.
    """
    layout = read_plain(source)
    return replace(layout, masks=_masks(source, layout), new_items=_new(source, layout))


def _masks(source: Path, layout: Layout) -> dict[str, Lacking]:
    """Ratio, as in the file name -> the modalities that each item lacks; smallest ratio first."""
    ratios = {}
    for path in source.glob("missing_items_*.npy"):
        match = MASK_FILE.fullmatch(path.name)
        if match is None:
            raise ValueError(f"{path}: must be named missing_items_<ratio>.npy, such as 0.6.")
        ratios[match[1]] = path
    if not ratios:
        raise ValueError(
            f"{source}: must hold missing_items_<ratio>.npy, got none; `import mmrec` needs no "
            "mask."
        )
    return {ratio: read_mask(ratios[ratio], layout) for ratio in sorted(ratios, key=float)}


def read_mask(path: Path, layout: Layout) -> Lacking:
    """Item token -> modalities that it lacks. Modalities without features are left out.

    Raises:
        ValueError: if the file is ill-formed or unsafe.
    """
    arrays = load_pickled_arrays(path)
    _check_mask(path, arrays, min(map(len, layout.features.values())))
    letters = [letter for letter in LETTERS if any(letter in key for key in arrays if key != "all")]
    # "all" means all modalities that the file names. If it names only one, it means all three.
    everything = letters if len(letters) > 1 else list(LETTERS)
    keys = {key: everything if key == "all" else list(key) for key in arrays}
    spoken = {LETTERS[letter] for key in keys.values() for letter in key}
    for modality in sorted(spoken - set(layout.features)):
        layout.notes.append(f"{path.name}: names {modality}, which has no features; left out")
    for modality in sorted(set(layout.features) - spoken):
        layout.notes.append(f"{path.name}: says nothing of {modality}, so no item lacks it")
    lacking = {}
    for key, items in arrays.items():
        modalities = [name for name in layout.features if name in {LETTERS[x] for x in keys[key]}]
        lacking.update({item: modalities for item in items.tolist() if modalities})
    return _known(path.name, {str(item): lacking[item] for item in sorted(lacking)}, layout)


def _check_mask(path: Path, arrays: Mapping[str, NDArray[np.int64]], n_rows: int) -> None:
    strange = [key for key in arrays if key != "all" and (not key or set(key) - set(LETTERS))]
    if strange or not arrays:
        raise ValueError(
            f"{path}: keys must be 'all' or made of the letters {', '.join(LETTERS)}, "
            f"got {list(arrays)}."
        )
    for key, items in arrays.items():
        in_range(f"{path}, key {key!r}", items, n_rows)
    items, counts = np.unique(np.concatenate(list(arrays.values())), return_counts=True)
    if (counts > 1).any():
        raise ValueError(
            f"{path}: an item must be under one key once, got several entries for "
            f"{items[counts > 1][:5].tolist()}."
        )


def _known(who: str, lacking: Lacking, layout: Layout) -> Lacking:
    """Remove items that the data set will not have, such as those without an interaction."""
    items = set(layout.items)
    known = {token: names for token, names in lacking.items() if token in items}
    if len(known) < len(lacking):
        layout.notes.append(
            f"{who}: items without interaction left out: {len(lacking) - len(known)}"
        )
    return known


def _new(source: Path, layout: Layout) -> list[str]:
    """Tokens of the new items in the order of their ids; empty if the source names none."""
    stem = inter_file(source).stem
    deleted, listed = source / f"{stem}_del.inter", source / "new_items.npy"
    if deleted.exists():
        new = layout.interactions.tokens(ITEM, "train")
        new -= read_interactions(deleted, []).tokens(ITEM, "train")
        if listed.exists():
            layout.notes.append(f"{listed.name}: not read; {deleted.name} says what is new")
    elif listed.exists():
        n_rows = min(map(len, layout.features.values()))
        items = row_numbers(str(listed), read_ids(listed), n_rows)
        new = set(_known(listed.name, {str(item): [] for item in items}, layout))
    else:
        new = set()
    return sorted(new, key=int)
