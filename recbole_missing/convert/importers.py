"""Turn folders in the layout of other projects into RecBole data set folders.

:func:`import_mmrec` reads the layout of MMRec (enoche/MMRec):

- ``<dataset>.inter`` with ``userID``, ``itemID`` and ``x_label``
  (0 training, 1 validation, 2 test),
- ``<modality>_feat.npy`` with one row for each ``itemID``,
- optionally ``missed_img_itemIDs.csv``.

:func:`import_dgmrec` also reads the masks and new items that DGMRec (ptkjw1997/DGMRec) releases.
Pickled masks are read by :mod:`recbole_missing.convert.legacy_pickle`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recbole_missing.atomic import new_folder
from recbole_missing.convert.folder import (
    ITEM,
    KEPT_COLUMNS,
    SPLITS,
    USER,
    ImportReport,
    Interactions,
    Lacking,
    Layout,
    target_folder,
    write,
)
from recbole_missing.convert.legacy_pickle import integers, kind_of, load_pickled_arrays
from recbole_missing.data.files import read_lines, read_rows
from recbole_missing.data.single_files import LABEL

# The letters of DGMRec's masks; also the order in which modalities are listed.
LETTERS = {"v": "image", "t": "text", "a": "audio"}
# The items in these files lack the modality. MMRec fills their rows with the mean of the others.
HOLES = {"missed_img_itemIDs.csv": "image"}

MASK_FILE = re.compile(r"missing_items_(\d+(?:\.\d+)?)\.npy")


def import_mmrec(
    source: Path | str, name: str, output: Path | str = Path("dataset"), force: bool = False
) -> ImportReport:
    """Turn a folder in MMRec's layout into the RecBole dataset folder ``<output>/<name>``.

    Users without a training interaction are removed from validation and test, as in MMRec.

    Args:
        source: the folder of the ``.inter`` file and the features.
        name: name of the new data set.
        output: the folder of RecBole data sets; created if absent.
        force: whether the files that an earlier import wrote are replaced; other files stay.

    Returns:
        What was written and what was left out.

    Raises:
        ValueError: if the source is incomplete or inconsistent, ``name`` is not a plain folder
            name, another process writes the target, or :func:`.atomic.new_folder` may not replace
            it. Nothing is written then.
    """
    target = target_folder(Path(source), name, Path(output))
    with new_folder(target, "import", force) as folder:
        layout = _read_mmrec(Path(source))
        masks = sorted(path.name for path in layout.inter_file.parent.glob("missing_items_*.npy"))
        if masks:
            layout.notes.append(f"{', '.join(masks)}: not read; `import dgmrec` reads masks")
        return write(layout, folder, target, "mmrec")


def import_dgmrec(
    source: Path | str, name: str, output: Path | str = Path("dataset"), force: bool = False
) -> ImportReport:
    """Turn a folder in DGMRec's layout into the RecBole dataset folder ``<output>/<name>``.

    This does what :func:`import_mmrec` does. In addition it writes each mask
    ``missing_items_<ratio>.npy`` as ``missing_<ratio>.tsv``, and the new items as
    ``new_items.txt``. New items are the training items of ``X.inter`` that are no training items
    of ``X_del.inter``. Without that file they are the items of ``new_items.npy``.

    Args:
        source: the folder of the ``.inter`` file, the features and the masks.
        name: name of the new data set.
        output: the folder of RecBole data sets; created if absent.
        force: whether the files that an earlier import wrote are replaced; other files stay.

    Returns:
        What was written and what was left out.

    Raises:
        ValueError: as :func:`import_mmrec`, or if a mask is absent, ill-formed or unsafe.
    """
    target = target_folder(Path(source), name, Path(output))
    with new_folder(target, "import", force) as folder:
        layout = _read_mmrec(Path(source))
        layout = replace(layout, masks=_masks(layout), new_items=_new(layout))
        return write(layout, folder, target, "dgmrec")


def import_rows(source: Path, output: Path, mask: Path | None = None) -> tuple[Path, list[str]]:
    """Import a folder in either layout so that each row of its features becomes an item.

    :func:`import_mmrec` leaves out items without an interaction, as MMRec does. But a completed
    feature file should have all rows of the original file. So this function writes a ``.item`` file
    that lists all of them.

    Args:
        source: the folder of the ``.inter`` file and the features.
        output: parent folder of the data set folder, which is named after the ``.inter`` file.
        mask: one of DGMRec's masks, which becomes the mask of the data set, or None.

    Returns:
        The data set folder, and sentences on what was left out.

    Raises:
        ValueError: if the source or the mask is wrong.
    """
    layout = replace(_read_mmrec(source), every_row=True)
    if mask is not None:
        name = mask.stem.replace("missing_items_", "")
        layout = replace(layout, masks={name: _read_mask(mask, layout)})
    target = output / layout.inter_file.stem
    with new_folder(target, "import") as folder:
        write(layout, folder, target, "mmrec")
    return target, layout.notes


def _read_mmrec(source: Path) -> Layout:
    """Read what both layouts have: interactions, features, items that lack a modality."""
    notes: list[str] = []
    inter_file = _inter_file(source)
    interactions = _read_interactions(inter_file, notes)
    features = {modality: _read_features(path) for modality, path in _feature_files(source).items()}
    last = max(map(int, interactions.tokens(ITEM)), default=-1)
    for modality, matrix in features.items():
        if len(matrix) <= last:
            raise ValueError(
                f"{modality}_feat.npy has {len(matrix)} rows, {inter_file.name} has item {last}; "
                f"a row belongs to the itemID of its number, so {last + 1} rows or more are needed."
            )
    interactions = _without_cold_users(interactions, notes)
    holes = {}
    for file, modality in HOLES.items():
        if (source / file).exists() and modality in features:
            holes[modality] = _read_holes(source / file, len(features[modality]))
            notes.append(f"{file}: {len(holes[modality])} items have no {modality}; rows left out")
    return Layout(inter_file, interactions, features, holes, notes=notes)


def _inter_file(source: Path) -> Path:
    """The interaction file. If there are several, it is the one with the folder's name."""
    found = sorted(p for p in source.glob("*.inter") if not p.stem.endswith("_del"))
    named = [path for path in found if path.stem == source.resolve().name]
    chosen = named or found
    if len(chosen) != 1:
        raise ValueError(
            f"{source}: must hold one <dataset>.inter, got {[path.name for path in found]}; "
            f"name one after the folder."
        )
    return chosen[0]


def _read_interactions(path: Path, notes: list[str]) -> Interactions:
    """Rows by split, as text. Ids are names, so they are not parsed as numbers."""
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
    if not re.fullmatch(r"0|[1-9][0-9]*", row[ITEM]):
        raise ValueError(f"{who}: {ITEM} must be a row number of the features, got {row[ITEM]!r}.")
    if row[LABEL] not in ("0", "1", "2"):
        raise ValueError(
            f"{who}: {LABEL} must be 0 (training), 1 (validation) or 2 (test), got {row[LABEL]!r}."
        )


def _without_cold_users(interactions: Interactions, notes: list[str]) -> Interactions:
    """Remove users without a training interaction from validation and test."""
    known = interactions.tokens(USER, "train")
    place = interactions.columns.index(USER)
    splits = {
        split: [row for row in rows if row[place] in known]
        for split, rows in interactions.splits.items()
    }
    for split, rows in splits.items():
        if not rows:
            raise ValueError(
                f"{split} interactions: must be one or more, got none with {LABEL} "
                f"{SPLITS.index(split)} of a user in training; the importer needs three parts."
            )
    dropped = {split: len(interactions.splits[split]) - len(rows) for split, rows in splits.items()}
    if any(dropped.values()):
        users = interactions.tokens(USER) - known
        counts = ", ".join(f"{split} {count}" for split, count in dropped.items() if count)
        notes.append(f"{len(users)} users without training interaction dropped from {counts}")
    return replace(interactions, splits=splits)


def _feature_files(source: Path) -> dict[str, Path]:
    """Modality -> its ``_feat.npy``. Modalities of :data:`LETTERS` come first."""
    files = {path.name[: -len("_feat.npy")]: path for path in source.glob("*_feat.npy")}
    if not files:
        raise ValueError(f"{source}: must hold <modality>_feat.npy files, got none.")
    for modality, path in files.items():
        if not modality.isidentifier():
            raise ValueError(f"{path}: {modality!r} must be an identifier such as image; rename.")
    order = list(LETTERS.values())
    return dict(sorted(files.items(), key=lambda pair: _rank(pair[0], order)))


def _rank(modality: str, order: list[str]) -> tuple[int, str]:
    return (order.index(modality) if modality in order else len(order), modality)


def _read_features(path: Path) -> NDArray[Any]:
    """The matrix, mapped from disk."""
    matrix = _load(path)
    if matrix.ndim != 2 or matrix.dtype.kind not in "fiub":
        raise ValueError(f"{path}: must be a matrix of numbers, got {kind_of(matrix)}.")
    return matrix


def _load(path: Path) -> NDArray[Any]:
    try:
        array = np.load(path, mmap_mode="r")
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f"{path}: must be a whole, unpickled .npy file, got: {error}") from error
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{path}: must be one .npy array, got {kind_of(array)}.")
    return array


def _read_holes(path: Path, n_rows: int) -> NDArray[np.int64]:
    """Read item ids, perhaps in quotes, that are separated by tabs, commas or line breaks."""
    words = re.findall(r'[^\s,"]+', "\n".join(read_lines(path)))
    strange = [word for word in words if not re.fullmatch(r"[0-9]+", word)]
    if strange:
        raise ValueError(f"{path}: must hold item ids, got {strange[:5]}; remove them.")
    return _in_range(str(path), np.array([int(word) for word in words], np.int64), n_rows)


def _in_range(who: str, items: NDArray[np.int64], n_rows: int) -> NDArray[np.int64]:
    """Distinct ids in order. Raise an error if one is not a row of the features."""
    strange = items[(items < 0) | (items >= n_rows)]
    if strange.size:
        raise ValueError(
            f"{who}: item ids must be between 0 and {n_rows - 1}, got {strange[:5].tolist()}."
        )
    return np.unique(items)


def _masks(layout: Layout) -> dict[str, Lacking]:
    """Ratio, as in the file name -> the modalities that each item lacks; smallest ratio first."""
    ratios = {}
    for path in layout.inter_file.parent.glob("missing_items_*.npy"):
        match = MASK_FILE.fullmatch(path.name)
        if match is None:
            raise ValueError(f"{path}: must be named missing_items_<ratio>.npy, such as 0.6.")
        ratios[match[1]] = path
    if not ratios:
        raise ValueError(
            f"{layout.inter_file.parent}: must hold missing_items_<ratio>.npy, got none; "
            f"`import mmrec` needs no mask."
        )
    return {ratio: _read_mask(ratios[ratio], layout) for ratio in sorted(ratios, key=float)}


def _read_mask(path: Path, layout: Layout) -> Lacking:
    """Item token -> modalities that it lacks. Modalities without features are left out."""
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
        _in_range(f"{path}, key {key!r}", items, n_rows)
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


def _new(layout: Layout) -> list[str]:
    """Tokens of the new items in the order of their ids; empty if the source names none."""
    folder, stem = layout.inter_file.parent, layout.inter_file.stem
    deleted, listed = folder / f"{stem}_del.inter", folder / "new_items.npy"
    if deleted.exists():
        new = layout.interactions.tokens(ITEM, "train")
        new -= _read_interactions(deleted, []).tokens(ITEM, "train")
        if listed.exists():
            layout.notes.append(f"{listed.name}: not read; {deleted.name} says what is new")
    elif listed.exists():
        n_rows = min(map(len, layout.features.values()))
        items = _in_range(str(listed), integers(str(listed), _load(listed)), n_rows)
        new = set(_known(listed.name, {str(item): [] for item in items}, layout))
    else:
        new = set()
    return sorted(new, key=int)
