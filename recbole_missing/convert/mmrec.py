"""The layout of MMRec (https://github.com/enoche/MMRec, ``src/utils/dataset.py``).

- ``<dataset>.inter``, tab separated, with the columns ``userID``, ``itemID`` and ``x_label``
  (0 training, 1 validation, 2 test). ``rating`` and ``timestamp`` are kept if they are there.
- ``<modality>_feat.npy``: row r is the item with ``itemID`` r.
- ``missed_img_itemIDs.csv``, optional: the items whose row of ``image_feat.npy`` was filled with
  the mean of the others (``preprocessing/3feat-encoder.ipynb``).

:func:`read_mmrec` reads it, :func:`write_mmrec` writes it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import chain
from pathlib import Path

import numpy as np
import yaml  # type: ignore[import-untyped]
from numpy.typing import NDArray

from recbole_missing.convert.content import Content, numbered
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
from recbole_missing.data.files import read_lines, read_rows, write_rows
from recbole_missing.data.missing import write_token_file
from recbole_missing.data.single_files import LABEL, NO_MASK

HOLES = {"missed_img_itemIDs.csv": "image"}
"""File -> modality that its items lack. MMRec fills their rows with the mean of the others."""
FEATURE_FILES = {"image": "vision_feature_file", "text": "text_feature_file"}
"""The modalities that MMRec reads, and its setting for each."""


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


def write_mmrec(content: Content, folder: Path, target: Path) -> str:
    """Write MMRec's files and its settings.

    Users and items are numbered from 0 in the order of their tokens. ``u_id_mapping.csv`` and
    ``i_id_mapping.csv`` (tab separated, as in MMRec) hold the tokens. MMRec has no masks. So every
    item needs every modality, and ``missed_<modality>_itemIDs.csv`` lists the items whose features
    were imputed; MMRec itself has such a list for images.

    Args:
        content: the data set.
        folder: an empty folder.
        target: what the folder will become.

    Returns:
        What the user does next.

    Raises:
        ValueError: if an item lacks a modality.
    """
    for name in content.features:
        count = int((~content.has(name)).sum())
        if count:
            raise ValueError(
                f"export: every item must have every modality in MMRec, got {count:,} items "
                f"without {name}; impute their features with --method mean (as MMRec's own files "
                f"do), featprop or another, or lift a mask with --missing {NO_MASK}."
            )
    users = numbered(folder / "u_id_mapping.csv", ("user_id", USER), content.users)
    items = numbered(folder / "i_id_mapping.csv", ("item_id", ITEM), content.items)
    labelled = (
        (users[user], items[item], str(SPLITS.index(split)))
        for split, pairs in content.pairs.items()
        for user, item in pairs
    )
    write_rows(folder / f"{target.name}.inter", chain([(USER, ITEM, LABEL)], labelled))
    for name, matrix in content.features.items():
        np.save(folder / f"{name}_feat.npy", matrix)
        missed = np.flatnonzero(~content.observed[name])
        if missed.size:
            hole_files = {modality: file for file, modality in HOLES.items()}
            file = hole_files.get(name, f"missed_{name}_itemIDs.csv")
            write_token_file(folder / file, [str(item) for item in missed])
    settings = folder / f"{target.name}.yaml"
    settings.write_text(_settings(target.name, content.features), encoding="utf-8")
    content.notes.extend(_notes(content.features))
    return (
        f"copy the folder into MMRec's data/ and {target / settings.name} into\n"
        "MMRec's src/configs/dataset/."
    )


def _settings(name: str, modalities: Iterable[str]) -> str:
    """MMRec's settings of a data set."""
    settings = {
        "USER_ID_FIELD": USER,
        "ITEM_ID_FIELD": ITEM,
        "filter_out_cod_start_users": True,  # spelled so in MMRec
        "inter_file_name": f"{name}.inter",
        "inter_splitting_label": LABEL,
        "field_separator": "\t",
    }
    read = {FEATURE_FILES[m]: f"{m}_feat.npy" for m in modalities if m in FEATURE_FILES}
    head = "# For src/configs/dataset/ of MMRec. Written by `recbole-missing export mmrec`.\n"
    return head + yaml.safe_dump({**settings, **read}, sort_keys=False)


def _notes(modalities: Iterable[str]) -> list[str]:
    """Notes on what the user of MMRec must know or do."""
    strangers = [name for name in modalities if name not in FEATURE_FILES]
    notes = ["DualGNN, DRAGON and others also need user_graph_dict.npy, which MMRec's script makes"]
    if strangers:
        read = ", ".join(FEATURE_FILES)
        notes.append(f"MMRec reads {read}; {', '.join(strangers)} needs a model of your own")
    return notes
