"""Read feature files and training interactions that the user names one by one, without RecBole."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from scipy import sparse

from recbole_missing.data.catalogue import Catalogue, read_edges
from recbole_missing.data.collection import Collection, in_order
from recbole_missing.data.files import read_ids, read_matrix, read_rows
from recbole_missing.data.missing import read_missing_file
from recbole_missing.data.sources import modality_settings, open_source
from recbole_missing.imputation.arrays import as_interactions
from recbole_missing.imputation.base import Table

NO_MASK = "none"
"""Value of ``--missing`` that hides nothing. Items without a row still lack the modality."""

LABEL = "x_label"
"""MMRec's column with the split of an interaction: 0 training, 1 validation, 2 test."""

LABELS = ("0", "1", "2")
"""Values of :data:`LABEL`."""

USER_NAMES = ("user", "userid", "uid", "reviewerid")
ITEM_NAMES = ("item", "itemid", "iid", "asin", "parentasin", "productid", "movieid", "trackid")
RATING_NAMES = ("rating", "ratings", "label")
"""Names of columns, compared in lower case without ``_``, ``-`` and blanks."""

_PADDING = "[PAD]"
_FEW = 10  # files are refused if fewer than one in so many ids occurs in the other file


def read_files(
    interactions: Path,
    features: Mapping[str, Path],
    ids: Mapping[str, Path],
    mask: str | None = None,
    edges: str | None = None,
) -> Collection:
    """Read a collection from single files.

    Args:
        interactions: training interactions (:func:`read_interactions`).
        features: modality -> matrix, or folder with one ``<item>.npy`` for each item (as in Ducho
            and Elliot).
        ids: modality -> file with the item token of each row of its matrix. Without a file, row r
            is item r.
        mask: a mask file (:func:`~recbole_missing.data.missing.read_missing_file`); None or
            ``none`` hides nothing.
        edges: a file of item-item edges (:func:`~recbole_missing.data.catalogue.read_edges`).

    Raises:
        ValueError: if a file is wrong, or too few ids of the interactions have features.
    """
    _check_names(features, ids)
    tokens = _tokens(features, ids)
    known = {token for names in tokens.values() for token in names}
    matrix, columns, note = _read(interactions, known)
    notes = [note]
    for name, found in tokens.items():
        numbered = name not in ids and not features[name].is_dir()
        _check_match(interactions, columns, name, found, numbered)
        lacking = len(set(columns) - set(found))
        if lacking:
            notes.append(f"{lacking:,} of {len(columns):,} interaction items have no row of {name}")
    items = in_order({*columns, *known})
    catalogue = Catalogue(interactions.stem, Path(), [_PADDING, *items], "item_id")
    return Collection(
        interactions.stem,
        items,
        _tables(features, ids, mask, catalogue),
        _on_items(matrix, columns, items),
        edges=None if edges is None else read_edges(Path(edges), catalogue.tokens)[1:, 1:],
        notes=notes,
    )


def read_interactions(path: Path, known: Iterable[str] = ()) -> tuple[sparse.csr_matrix, list[str]]:
    """Read training interactions.

    A text file holds one interaction on each line. Cells are separated by commas in a ``.csv`` file
    and by tabs in any other. Quotes are read as in CSV. The first line is a header if it names a
    column of :data:`USER_NAMES` and one of :data:`ITEM_NAMES`. Its columns can have any order, and
    a type such as ``:token`` may follow a name. If the header names ``x_label``, only lines with
    the label 0 are training interactions. Without a header the first cell is the user and the
    second is the item. Other columns are not read, but values of a rating or a label must be
    positive (:data:`RATING_NAMES`).

    Args:
        path: a ``.npz`` file of :func:`scipy.sparse.save_npz` (users x items), or a text file.
        known: item tokens that have features. If the first line does not name known columns, it
            is an interaction only if its item is one of these. So a header is never read as data.

    Returns:
        Matrix ``(n_users, n_columns)``, and the item token of each column.

    Raises:
        ValueError: if the file has another format, holds no interaction, or one without a positive
            rating; without a header, also if the ids of the features are those of the users.
    """
    return _read(path, known)[:2]


def _read(path: Path, known: Iterable[str]) -> tuple[sparse.csr_matrix, list[str], str]:
    """What :func:`read_interactions` returns, and which columns that were, for people."""
    if path.suffix == ".npz":
        matrix = _read_sparse(path)
        tokens = [str(column) for column in range(matrix.shape[1])]
        note = f"{path.name}: users are rows, items are columns"
    else:
        pairs, note = _pairs(path, set(known))
        matrix, tokens = _count(pairs)
    if not matrix.count_nonzero():
        raise ValueError(f"{path}: must hold training interactions, got none; check the file.")
    return matrix, tokens, note


def _pairs(path: Path, known: set[str]) -> tuple[list[tuple[str, str]], str]:
    """User and item of every training interaction of a text file; which columns they are in."""
    separator = "," if path.suffix == ".csv" else "\t"
    rows = read_rows(path, separator)
    if not rows:
        raise ValueError(f"{path}: must hold interactions, got empty lines; write it again.")
    number, first = rows[0]
    names = [cell.partition(":")[0].strip() for cell in first]
    places = _places(path, names)
    if places is None:
        if len(first) < 2 or first[1] not in known:
            raise ValueError(
                f"{path}: line {number} must be a header that names a user and an item column, or "
                f"a user and an item that has features, got {first}, separated by {separator!r}; "
                "begin the file with a header such as user_id, item_id (a .csv file has commas, "
                "any other file tabs)."
            )
        kept = _training_rows(path, rows, (0, 1), [])
        _check_sides(path, [cells[:2] for cells in kept], known)
        how = f"no header, the first line {first} is an interaction"
    else:
        kept = _training_rows(path, rows[1:], places, names)
        _check_ratings(path, names, kept)
        how = f"header {names}"
    user, item = places or (0, 1)
    note = f"{path.name}: user: column {user + 1}, item: column {item + 1}; {how}"
    return [(cells[user], cells[item]) for cells in kept], note


def _training_rows(
    path: Path,
    rows: Sequence[tuple[int, list[str]]],
    places: tuple[int, int],
    names: Sequence[str],
) -> list[list[str]]:
    """Cells of the training interactions; ``names`` are those of the header, if there is one."""
    label = names.index(LABEL) if LABEL in names else None
    width = len(names) or len(rows[0][1])
    kept = []
    for number, cells in rows:
        if len(cells) != width or not all(cells[place] for place in places):
            raise ValueError(
                f"{path}: line {number} must have {width} cells, a user and an item among them, "
                f"got {cells}; correct it."
            )
        if label is not None and cells[label] not in LABELS:
            raise ValueError(
                f"{path}: line {number}: {LABEL} must be one of {', '.join(LABELS)}, got "
                f"{cells[label]!r}; correct it."
            )
        if label is None or cells[label] == LABELS[0]:
            kept.append(cells)
    return kept


def _check_ratings(path: Path, names: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Refuse interactions that are none: with a rating or label of 0 or less."""
    for place, name in enumerate(names):
        wrong = 0
        if _word(name) in RATING_NAMES:
            wrong = sum(_is_negative(cells[place]) for cells in rows)
        if wrong:
            raise ValueError(
                f"{path}: every line must be a positive interaction, got {wrong:,} of "
                f"{len(rows):,} with {name} 0 or less; remove those lines, or the column if it "
                "does not say so."
            )


def _check_sides(path: Path, pairs: Sequence[Sequence[str]], known: set[str]) -> None:
    """Refuse a file without a header whose first column looks more like items than its second."""
    users, items = (set(side) for side in zip(*pairs))
    found = [(len(side & known) / len(side), len(side & known)) for side in (users, items)]
    if found[0] > found[1]:
        raise ValueError(
            f"{path}: without a header the columns must be user, item, got features for "
            f"{found[0][1]:,} of {len(users):,} users and {found[1][1]:,} of {len(items):,} items, "
            "as if it were item, user; write the header user_id, item_id or item_id, user_id."
        )


def _word(name: str) -> str:
    return name.lower().translate(str.maketrans("", "", "_- "))


def _is_negative(cell: str) -> bool:
    try:
        return float(cell) <= 0
    except ValueError:
        return False


def _places(path: Path, names: Sequence[str]) -> tuple[int, int] | None:
    """Positions of the user and of the item column; None if the line is not a header."""
    words = [_word(name) for name in names]
    users = [place for place, word in enumerate(words) if word in USER_NAMES]
    items = [place for place, word in enumerate(words) if word in ITEM_NAMES]
    if not users and not items:
        return None
    if len(users) != 1 or len(items) != 1:
        raise ValueError(
            f"{path}: the header must name one user and one item column, got {list(names)}; call "
            "them user_id and item_id."
        )
    return users[0], items[0]


def _count(pairs: Iterable[tuple[str, str]]) -> tuple[sparse.csr_matrix, list[str]]:
    """Matrix of users and items, numbered in the order of appearance, and the item tokens."""
    users: dict[str, int] = {}
    items: dict[str, int] = {}
    rows, columns = [], []
    for user, item in pairs:
        rows.append(users.setdefault(user, len(users)))
        columns.append(items.setdefault(item, len(items)))
    ones = np.ones(len(rows), dtype=np.float32)
    return sparse.csr_matrix((ones, (rows, columns)), (len(users), len(items))), list(items)


def _read_sparse(path: Path) -> sparse.csr_matrix:
    try:
        matrix = sparse.load_npz(path)
    except (ValueError, OSError, KeyError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path}: must be a sparse matrix that scipy.sparse.save_npz wrote, got: {error}; "
            "write it again, or give text."
        ) from error
    return as_interactions(str(path), matrix)


def _on_items(
    matrix: sparse.csr_matrix, columns: Sequence[str], items: Sequence[str]
) -> sparse.csr_matrix:
    """The matrix with its columns in the order of ``items``."""
    place = {item: number for number, item in enumerate(items)}
    edges = matrix.tocoo()
    places = np.array([place[token] for token in columns])
    shape = (matrix.shape[0], len(items))
    return sparse.csr_matrix((edges.data, (edges.row, places[edges.col])), shape)


def _check_names(features: Mapping[str, Path], ids: Mapping[str, Path]) -> None:
    for name in features:
        if not name.isidentifier():
            raise ValueError(f"features: a name must be an identifier such as image, got {name!r}.")
    strangers = [name for name in ids if name not in features]
    if strangers:
        raise ValueError(
            f"ids: must belong to one of the features {list(features)}, got {strangers}; name the "
            "modality whose rows they are."
        )


def _tokens(features: Mapping[str, Path], ids: Mapping[str, Path]) -> dict[str, list[str]]:
    """Modality -> item tokens of its rows, from an id file, file names, or row numbers."""
    tokens = {}
    for name, path in features.items():
        if name in ids:
            tokens[name] = read_ids(ids[name])
        elif path.is_dir():
            tokens[name] = [file.stem for file in sorted(path.glob("*.npy"))]
        else:
            tokens[name] = [str(row) for row in range(len(read_matrix(path)))]
    return tokens


def _check_match(
    path: Path, columns: Sequence[str], name: str, tokens: Sequence[str], numbered: bool
) -> None:
    """Refuse files in which too few ids match: ids are written in two ways, or columns swapped.

    Args:
        path: file of the interactions, for messages.
        columns: items of the interactions.
        name: the modality.
        tokens: items of its rows.
        numbered: whether ``tokens`` are row numbers. Then every item must be one of them.
    """
    matched = len(set(columns) & set(tokens))
    wanted = len(columns) if numbered else min(len(columns), len(set(tokens))) / _FEW
    if matched and matched >= wanted:
        return
    count = f"only {matched:,} of {len(columns):,} ids match" if matched else "no id matches"
    stranger = next(token for token in columns if token not in set(tokens))
    example = repr(tokens[0]) if tokens else "no row"
    what = f"row numbers of {name}" if numbered else f"items of {name}"
    remedy = f"say which row is whose with --ids {name}=FILE" if numbered else "write ids alike"
    raise ValueError(
        f"{path}: items must be {what}, {count}: interactions have {stranger!r}, features have "
        f"{example}; {remedy}."
    )


def _tables(
    features: Mapping[str, Path], ids: Mapping[str, Path], mask: str | None, catalogue: Catalogue
) -> dict[str, Table]:
    hidden = np.zeros((len(catalogue.tokens), len(features)), dtype=bool)
    if mask not in (None, NO_MASK):
        hidden = read_missing_file(Path(str(mask)), catalogue.tokens, list(features))
    tables = {}
    for column, (name, path) in enumerate(features.items()):
        settings = dict.fromkeys(modality_settings(name))
        settings[f"{name}_features"] = str(path.resolve())
        settings[f"{name}_ids"] = str(ids[name].resolve()) if name in ids else None
        source = open_source(name, settings, catalogue)
        observed = source.present & ~hidden[:, column]
        if not observed.any():
            raise ValueError(
                f"modality {name!r}: must be observed for at least one item, got 0 of "
                f"{len(observed) - 1}; hide fewer (--missing {NO_MASK} hides nothing)."
            )
        rows = torch.from_numpy(source.features(observed)[1:])
        tables[name] = Table(name, rows, torch.from_numpy(observed[1:]))
    return tables
