"""The layout of MicroLens (https://github.com/westlake-repl/MicroLens), 50k, 100k or 1M.

The files are those of its download page (https://recsys.westlake.edu.cn/MicroLens-50k-Dataset):

- ``MicroLens-50k_pairs.csv``: the header ``user,item,timestamp``, then one interaction a line.
- ``MicroLens-50k_titles.csv`` (header ``item,title``) or ``MicroLens-100k_title_en.csv`` (no
  header, a title may hold commas): the modality ``title``.
- ``MicroLens-50k_covers``: a folder of ``<item>.jpg``, the modality ``image``.
- ``MicroLens-100k_<image|title_en_text|video>_features_<encoder>.npy``, perhaps in the folder
  ``extracted_modality_features``: the modalities ``image``, ``text`` and ``video``. Row r is item
  r + 1 (``Data Processing/video_feature_extraction_(from_lmdb).py``). They go before titles and
  covers.

The paper (https://arxiv.org/abs/2309.15379) splits by leave-one-out: a user's last interaction is
for test, the one before for validation, all others are for training.
"""

from __future__ import annotations

import re
from pathlib import Path

from recbole_missing.convert.folder import ITEM, SPLITS, USER, Interactions, Layout, find_pictures
from recbole_missing.convert.reading import ROW_NUMBER, checked, is_number, listed, read_features
from recbole_missing.data import pictures
from recbole_missing.data.files import read_lines, read_rows

COLUMNS = {"user": USER, "item": ITEM, "timestamp": "timestamp"}
FEATURE_FILE = re.compile(r".*_(image|text|video|audio)_features_\w+\.npy")
TITLES = ("*_titles.csv", "*_title_en.csv")


def read_microlens(source: Path) -> Layout:
    """Read a folder of MicroLens, and split it by leave-one-out.

    Raises:
        ValueError: if the folder is incomplete or inconsistent.
    """
    notes: list[str] = []
    rows = _read_pairs(_one(source, "*_pairs.csv"))
    interactions = checked(_leave_one_out(rows, notes), notes, "the time stamps")
    items = interactions.tokens(ITEM)
    features, holes = read_features(_feature_files(source), notes)
    for modality, matrix in features.items():
        _check_items(modality, len(matrix), items)
    ids = {name: [str(row + 1) for row in range(len(matrix))] for name, matrix in features.items()}
    titles = _titles(source, items, "text" in features, notes)
    images = _covers(source, items, "image" in features, notes)
    if not features and not titles and not images:
        raise ValueError(
            f"{source}: must hold features, {' or '.join(TITLES)}, or a folder *_covers, got none; "
            "add what you have."
        )
    return Layout(interactions, features, holes, ids, titles, images, notes=notes)


def _one(source: Path, pattern: str) -> Path:
    found = sorted(source.glob(pattern))
    if len(found) != 1:
        names = [path.name for path in found]
        raise ValueError(f"{source}: must hold one {pattern}, got {names}; keep one.")
    return found[0]


def _read_pairs(path: Path) -> list[tuple[str, str, str]]:
    """User, item and time of every interaction, in the order of the file."""
    lines = read_rows(path, ",")
    header = lines[0][1] if lines else []
    absent = [column for column in COLUMNS if column not in header]
    if absent:
        raise ValueError(f"{path}: the header must name {absent}, got {header}; write it.")
    places = [header.index(column) for column in COLUMNS]
    rows = []
    for number, cells in lines[1:]:
        if len(cells) != len(header):
            raise ValueError(f"{path}: line {number} must have {len(header)} cells, got {cells}.")
        user, item, time = (cells[place] for place in places)
        if not user or not ROW_NUMBER.fullmatch(item) or item == "0" or not is_number(time):
            raise ValueError(
                f"{path}: line {number} must be a user, an item from 1 and a time stamp, got "
                f"{cells}; correct it."
            )
        rows.append((user, item, time))
    return rows


def _leave_one_out(rows: list[tuple[str, str, str]], notes: list[str]) -> Interactions:
    """Each user's last interaction for test, the one before for validation, others for training.

    Interactions of one time stay in the order of the file. Users with fewer than three are for
    training alone.
    """
    splits: dict[str, list[list[str]]] = {split: [] for split in SPLITS}
    short = ties = 0
    histories: dict[str, list[list[str]]] = {}
    for row in rows:
        histories.setdefault(row[0], []).append(list(row))
    for history in histories.values():
        history.sort(key=lambda row: float(row[2]))  # stable
        if len(history) < len(SPLITS):
            short += 1
            splits["train"] += history
            continue
        *train, valid, test = history
        ties += float(train[-1][2]) == float(valid[2]) or float(valid[2]) == float(test[2])
        splits["train"] += train
        splits["valid"].append(valid)
        splits["test"].append(test)
    if short:
        notes.append(f"{short:,} users with fewer than three interactions: in training alone")
    if ties:
        notes.append(f"{ties:,} users have equal times where they are split: as in the file")
    return Interactions(list(COLUMNS.values()), splits)


def _feature_files(source: Path) -> dict[str, Path]:
    """Modality -> its matrix.

    Raises:
        ValueError: if there are two for a modality.
    """
    files: dict[str, Path] = {}
    for path in sorted((*source.glob("*.npy"), *source.glob("extracted_modality_features/*.npy"))):
        match = FEATURE_FILE.fullmatch(path.name)
        if match and match[1] in files:
            raise ValueError(
                f"{source}: must hold one matrix of {match[1]}, got {files[match[1]].name} and "
                f"{path.name}; move one away."
            )
        if match:
            files[match[1]] = path
    return listed(files)


def _check_items(modality: str, n_rows: int, items: set[str]) -> None:
    last = max(map(int, items))
    if last > n_rows:
        raise ValueError(
            f"{modality} features must have a row for each item from 1, got {n_rows:,} rows and "
            f"item {last}; the files are not of one data set."
        )


def _titles(
    source: Path, items: set[str], has_features: bool, notes: list[str]
) -> dict[str, dict[str, str]]:
    """Modality ``title``, if there is a file of titles and no matrix of text."""
    found = sorted(path for pattern in TITLES for path in source.glob(pattern))
    if not found or has_features:
        notes += [f"{path.name}: not read; the text features are used" for path in found]
        return {}
    if len(found) > 1:
        raise ValueError(f"{source}: must hold one file of titles, got {found}; move one away.")
    titles = _read_titles(found[0])
    absent = sum(not titles.get(item, "").strip() for item in items)
    strangers = len(titles.keys() - items)
    if absent:
        notes.append(f"{found[0].name}: {absent:,} of {len(items):,} items have no title")
    if strangers:
        notes.append(f"{found[0].name}: {strangers:,} titles of items without interaction left out")
    return {"title": {item: title for item, title in titles.items() if item in items}}


def _read_titles(path: Path) -> dict[str, str]:
    """Item -> title. With the header ``item,title`` the file is CSV; else a line is cut once."""
    first, *_ = read_lines(path)
    if first.split(",")[0].strip('"') == "item":
        lines = read_rows(path, ",")[1:]
        rows = [(number, cells[0], ",".join(cells[1:])) for number, cells in lines]
    else:
        cut = ((number, line.partition(",")) for number, line in enumerate(read_lines(path), 1))
        rows = [(number, item, _unquoted(title)) for number, (item, _, title) in cut if item]
    titles: dict[str, str] = {}
    for number, item, title in rows:
        if not ROW_NUMBER.fullmatch(item) or item in titles:
            raise ValueError(
                f"{path}: line {number} must be a new item and its title, got item {item!r}; "
                "correct it."
            )
        titles[item] = title
    return titles


def _unquoted(text: str) -> str:
    if len(text) > 1 and text[0] == text[-1] == '"':
        return text[1:-1].replace('""', '"')
    return text


def _covers(source: Path, items: set[str], has_features: bool, notes: list[str]) -> dict[str, Path]:
    """The cover of each item, if there is a folder of covers and no matrix of images."""
    found = [path for path in sorted(source.glob("*_covers")) if path.is_dir()]
    if not found or has_features:
        notes += [f"{path.name}: not used; the image features are" for path in found]
        return {}
    if len(found) > 1:
        raise ValueError(f"{source}: must hold one folder of covers, got {found}; move one away.")
    files = find_pictures(found[0], notes)
    covers, strangers = pictures.of_items(str(found[0]), files, items)
    if not covers:
        raise ValueError(
            f"{found[0]}: must hold <item>.jpg for one item or more, got {len(files):,} pictures "
            "of other names; unpack the covers there."
        )
    absent = len(items) - len(covers)
    if absent:
        notes.append(f"{found[0].name}: {absent:,} of {len(items):,} items have no picture")
    if strangers:
        notes.append(
            f"{found[0].name}: {len(strangers):,} pictures of items without interaction left out"
        )
    return covers
