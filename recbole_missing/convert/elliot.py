"""The layout of Elliot (https://github.com/sisinflab/elliot) with features of Ducho.

- ``train.tsv``, ``validation.tsv`` or ``val.tsv``, ``test.tsv``: user, item, rating and time, tab
  separated, without a header (``elliot/dataset/dataset.py``, strategy ``fixed``). Rating and time
  may be absent.
- ``<modality>_embeddings``: a folder of Ducho (https://github.com/sisinflab/Ducho,
  ``ducho/internal/father_classes/DatasetFather.py``). Its innermost folder
  ``<backend>/<model>/<layer>`` has one ``<item>.npy`` for each item that has the modality, a vector
  ``(dim,)`` or ``(1, dim)``.

Elliot calls the modalities ``visual``, ``textual`` and ``audio``; here they are ``image``, ``text``
and ``audio``. Elliot reads ids as integers (``int(f.split('.')[0])`` of a file name in
``modular_loaders/visual/visual_attribute.py``), wants vectors of shape ``(dim,)`` there
(``.shape[0]``), and drops items without a file (``self.items = items & inner_items``). Ducho writes
``(1, dim)`` for its transformers, and cuts a name at its first dot.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import yaml  # type: ignore[import-untyped]

from recbole_missing.convert.content import Content, numbered
from recbole_missing.convert.folder import ITEM, KEPT_COLUMNS, SPLITS, Interactions, Layout
from recbole_missing.convert.reading import ROW_NUMBER, checked, is_number, listed, nan_rows
from recbole_missing.data.files import read_folder, read_rows, write_rows

NAMES = {"image": "visual", "text": "textual"}
"""Our name of a modality -> Elliot's; others are the same."""
FILES = {"train": ["train.tsv"], "valid": ["validation.tsv", "val.tsv"], "test": ["test.tsv"]}
EMBEDDINGS = "_embeddings"
LOADERS = {"image": "VisualAttribute", "text": "TextualAttribute"}
"""Our name of a modality -> the class that loads it in Elliot, which has no other."""

_FILE_NAME = re.compile(r"[\w-]{1,200}")
_INNER = Path("recbole_missing") / "features" / "0"
"""Ducho's ``<backend>/<model>/<layer>``."""


def read_elliot(source: Path) -> Layout:
    """Read a folder of Elliot.

    Raises:
        ValueError: if the folder is incomplete or inconsistent.
    """
    notes: list[str] = []
    tables = {split: _read_table(_file(source, split)) for split in SPLITS}
    width = min(len(row) for rows in tables.values() for row in rows)
    if any(len(row) > width for rows in tables.values() for row in rows):
        absent = ", ".join(list(KEPT_COLUMNS)[width:])
        notes.append(f"{absent}: left out, for some lines have none")
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
        fits = 2 <= len(cells) <= len(KEPT_COLUMNS)
        if not fits or not all(cells[:2]) or not all(map(is_number, cells[2:])):
            raise ValueError(
                f"{path}: line {number} must be user, item, rating, time without a header, got "
                f"{cells[:5]}; correct it."
            )
        rows.append(cells)
    if not rows:
        raise ValueError(f"{path}: must hold interactions, got none; a data set needs three parts.")
    return rows


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


def write_elliot(content: Content, folder: Path, target: Path) -> str:
    """Write Elliot's three tables, the features, and a YAML file with both.

    Ids stay as they are if all of them are integers. Otherwise they are numbered from 0, and
    ``u_id_mapping.csv`` or ``i_id_mapping.csv`` holds the tokens. The rating is 1 if the run loads
    none. Times are left out: a run holds them in single precision, too coarse for time stamps.

    Args:
        content: the data set.
        folder: an empty folder.
        target: what the folder will become.

    Returns:
        What the user does next.
    """
    users = _names(folder / "u_id_mapping.csv", ("user_id", "userId"), content.users, ROW_NUMBER)
    items = _names(folder / "i_id_mapping.csv", ("item_id", "itemId"), content.items, ROW_NUMBER)
    for split, pairs in content.pairs.items():
        ratings = content.ratings.get(split, [1.0] * len(pairs))
        rows = ((users[u], items[i], f"{rating:.9g}") for (u, i), rating in zip(pairs, ratings))
        write_rows(folder / FILES[split][0], rows)
    _write_vectors(content, folder, items, one_row=False)
    (folder / "elliot.yml").write_text(_config(content, target.name), encoding="utf-8")
    dropped = np.zeros(len(content.items), dtype=bool)
    for name in content.features:
        if name in LOADERS:
            dropped |= ~content.has(name)
        else:
            content.notes.append(f"Elliot has no loader for {name}; it is not in elliot.yml")
    if dropped.any():
        content.notes.append(
            f"Elliot drops {int(dropped.sum()):,} of {len(dropped):,} items, for want of a file of "
            "some modality; complete them with --method"
        )
    return f"run_experiment('{target / 'elliot.yml'}') in Elliot."


def write_ducho(content: Content, folder: Path, target: Path) -> str:
    """Write the features as Ducho does: one ``(1, dim)`` file for each item that has the modality.

    A token that is no file name, or that holds a dot, makes all items numbers from 0, with
    ``i_id_mapping.csv``.

    Args:
        content: the data set.
        folder: an empty folder.
        target: what the folder will become.

    Returns:
        What the user does next.
    """
    items = _names(folder / "i_id_mapping.csv", ("item_id", "number"), content.items, _FILE_NAME)
    places = _write_vectors(content, folder, items, one_row=True)
    return "name the folders, here " + ", ".join(
        f"{name}_features: {target / place}" for name, place in places.items()
    )


def _names(
    path: Path, columns: tuple[str, str], tokens: Sequence[str], form: re.Pattern[str]
) -> dict[str, str]:
    """Token -> its name in the export: itself, or a number if a token has not this form."""
    if all(form.fullmatch(token) for token in tokens):
        return {token: token for token in tokens}
    return numbered(path, columns, tokens)


def _write_vectors(
    content: Content, folder: Path, items: dict[str, str], one_row: bool
) -> dict[str, Path]:
    """Write one file for each item and modality; return the folder of each modality."""
    places = {}
    for name, matrix in content.features.items():
        places[name] = Path(NAMES.get(name, name) + EMBEDDINGS) / _INNER
        (folder / places[name]).mkdir(parents=True)
        for row in np.flatnonzero(content.has(name)):
            vector = matrix[row : row + 1] if one_row else matrix[row]
            np.save(folder / places[name] / f"{items[content.items[row]]}.npy", vector)
    return places


def _config(content: Content, name: str) -> str:
    """Elliot's YAML. A path that begins with a dot starts at the folder of the YAML file."""
    side = [
        {
            "dataloader": LOADERS[modality],
            f"{NAMES[modality]}_features": f"./{NAMES[modality]}{EMBEDDINGS}/{_INNER.as_posix()}",
        }
        for modality in content.features
        if modality in LOADERS
    ]
    paths = {"train_path": "train", "validation_path": "valid", "test_path": "test"}
    experiment = {
        "dataset": name,
        "data_config": {
            "strategy": "fixed",
            **{key: f"./{FILES[split][0]}" for key, split in paths.items()},
            **({"side_information": side} if side else {}),
        },
        "top_k": 20,
        "evaluation": {"cutoffs": [10, 20], "simple_metrics": ["Recall", "nDCG"]},
        "models": {"MostPop": {"meta": {"save_recs": False}}},
    }
    head = "# Written by `recbole-missing export elliot`. Put your models under `models`.\n"
    return head + str(yaml.safe_dump({"experiment": experiment}, sort_keys=False))
