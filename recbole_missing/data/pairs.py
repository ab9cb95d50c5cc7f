"""Training interactions from files -> a sparse matrix of users and items."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from scipy import sparse

from recbole_missing.convert.importers import LABEL
from recbole_missing.data.files import read_columns, read_header, read_lines

_TRAINING = "0"  # what LABEL says of a training interaction
_USER = ("user", "userid", "uid")  # header words, in small letters and without "_"
_ITEM = ("item", "itemid", "iid")


def read_interactions(path: Path) -> tuple[sparse.csr_matrix, list[str]]:
    """Read training interactions.

    Args:
        path: a ``.npz`` of :func:`scipy.sparse.save_npz` (users x items), or text with one
            interaction a line, the user first, then the item, cells separated by tabs (``.csv``:
            by commas). A first line that begins with ``user``, ``user_id`` or ``userID`` (a type
            such as ``:token`` may follow) is a header; where it names ``x_label`` (MMRec), the
            lines labelled 0 are the training ones.

    Returns:
        Matrix ``(n_users, n_columns)`` and the item token of each column.

    Raises:
        ValueError: if the file is neither.
    """
    if path.suffix == ".npz":
        matrix = _read_sparse(path)
        return matrix, [str(column) for column in range(matrix.shape[1])]
    lines = read_lines(path)
    separator = "," if path.suffix == ".csv" else "\t"
    names = read_header(path, separator)
    if _word(names[0]) not in _USER:
        return count(_pairs_without_header(path, lines, separator))
    item = next((name for name in names if _word(name) in _ITEM), None)
    if item is None:
        raise ValueError(f"{path}: the header must name a column item_id or itemID, got {names}.")
    rows = read_columns(path, [names[0], item, *({LABEL} & set(names))], separator)
    return count((row[0], row[1]) for row in rows if row[2:] in ((), (_TRAINING,)))


def count(pairs: Iterable[tuple[str, ...]]) -> tuple[sparse.csr_matrix, list[str]]:
    """Matrix of users and items, both numbered as they appear, and the items' tokens."""
    users: dict[str, int] = {}
    items: dict[str, int] = {}
    rows, columns = [], []
    for user, item in pairs:
        rows.append(users.setdefault(user, len(users)))
        columns.append(items.setdefault(item, len(items)))
    ones = np.ones(len(rows), dtype=np.float32)
    return sparse.csr_matrix((ones, (rows, columns)), (len(users), len(items))), list(items)


def on_items(
    path: Path, matrix: sparse.csr_matrix, columns: Sequence[str], items: Sequence[str]
) -> sparse.csr_matrix:
    """The columns of ``matrix``, put where ``items`` has their tokens.

    Args:
        path: where the interactions are from, for messages.
        matrix: shape ``(n_users, n_columns)``.
        columns: the item token of each column, all of them in ``items``.
        items: item tokens.

    Returns:
        Shape ``(n_users, n_items)``.

    Raises:
        ValueError: if there is no interaction.
    """
    if not matrix.count_nonzero():
        raise ValueError(f"{path}: must hold training interactions, got none; check the split.")
    place = {item: number for number, item in enumerate(items)}
    edges = matrix.tocoo()
    places = np.array([place[token] for token in columns])
    shape = (matrix.shape[0], len(items))
    return sparse.csr_matrix((edges.data, (edges.row, places[edges.col])), shape)


def _read_sparse(path: Path) -> sparse.csr_matrix:
    try:
        return sparse.csr_matrix(sparse.load_npz(path))
    except (ValueError, OSError, KeyError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path}: must be a sparse matrix that scipy.sparse.save_npz wrote, got: {error}; "
            "write it again, or give text."
        ) from error


def _word(name: str) -> str:
    return name.lower().replace("_", "")


def _pairs_without_header(path: Path, lines: list[str], separator: str) -> list[tuple[str, str]]:
    pairs = []
    for number, line in enumerate(lines, 1):
        cells = line.split(separator)
        if len(cells) < 2 or not cells[0] or not cells[1]:
            raise ValueError(
                f"{path}: line {number} must be a user, {separator!r} and an item, got {line!r}; "
                "correct it, or begin the file with a header user_id, item_id."
            )
        pairs.append((cells[0], cells[1]))
    return pairs
