"""The items of a data set, and which row of a file belongs to which item.

A row is found by the token of its item. :func:`read_edges` reads the user's own item graph, which
also names items by token.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

import numpy as np
from scipy import sparse

from recbole_missing.data.files import read_columns, read_header

_ITEM, _NEIGHBOUR, _WEIGHT = "item_id", "neighbour_id", "weight"  # columns of an edge file


@dataclass(frozen=True)
class Catalogue:
    """The items of a dataset, and the folder and format of its files.

    Args:
        dataset: name of the dataset, first part of the names of its atomic files.
        folder: the dataset's folder.
        tokens: item tokens by item id; ``tokens[0]`` is RecBole's ``"[PAD]"``.
        item_field: name of the item column in atomic files.
        field_separator: separator between two cells of an atomic file.
        seq_separator: separator between two words of a cell.
        encoding: encoding of the atomic files.
    """

    dataset: str
    folder: Path
    tokens: Sequence[str]
    item_field: str
    field_separator: str = "\t"
    seq_separator: str = " "
    encoding: str = "utf-8"


def rows_in_order(name: str, path: Path, n_rows: int, catalogue: Catalogue) -> np.ndarray:
    """Give the r-th row to the item with the r-th smallest token, int ``(n_items,)``.

    Raises:
        ValueError: if there are more or fewer rows than items, or a token is not an integer.
    """
    remedy = f"give an id file ({name}_ids)."
    tokens = [str(token) for token in catalogue.tokens[1:]]
    if n_rows != len(tokens):
        raise ValueError(
            f"{path.name} has {n_rows} rows, dataset {catalogue.dataset!r} has {len(tokens)} "
            f"items; {remedy}"
        )
    words = [token for token in tokens if not re.fullmatch("-?[0-9]+", token)]
    if words or len({int(token) for token in tokens}) < len(tokens):
        got = repr(words[0]) if words else "two tokens of one number"
        raise ValueError(
            f"{path.name}: item tokens must be distinct integers to say which row is whose, "
            f"got {got}; {remedy}"
        )
    rows = np.full(len(tokens) + 1, -1)
    rows[1 + np.argsort([int(token) for token in tokens])] = np.arange(len(tokens))
    return rows


def rows_by_token(
    path: Path,
    tokens: Sequence[str],
    catalogue: Catalogue,
    same: Callable[[int, int], bool],
) -> np.ndarray:
    """Find the row of each item, int ``(n_items,)``; -1 if the item has no row.

    Args:
        path: file of the tokens, for messages.
        tokens: the token of each row; a row whose token is not an item is ignored.
        catalogue: the items.
        same: tells whether two rows with the same token hold the same data.

    Raises:
        ValueError: if no token is an item, or an item has several rows and they differ.
    """
    items = {str(token): item for item, token in enumerate(catalogue.tokens) if item}
    rows = np.full(len(catalogue.tokens), -1)
    strangers: list[str] = []
    repeated: list[str] = []
    torn: list[str] = []
    for row, token in enumerate(tokens):
        item = items.get(token)
        if item is None:
            strangers.append(token)
        elif rows[item] < 0:
            rows[item] = row
        else:
            (repeated if same(rows[item], row) else torn).append(token)
    if tokens and len(strangers) == len(tokens):
        raise ValueError(f"{path.name}: ids must be {no_match(catalogue.tokens, tokens)}")
    if torn:
        raise ValueError(
            f"{path.name}: an item must have one row, got rows that differ for "
            f"{first_few(torn)}; keep one row each."
        )
    for why, found in {"no such item": strangers, "equal repeats, one kept": repeated}.items():
        if found:
            logging.getLogger().warning(
                f"{path.name}: {len(found):,} of {len(tokens):,} rows ignored, {why}: "
                f"{first_few(found)}."
            )
    return rows


def no_match(tokens: Sequence[str], found: Sequence[str]) -> str:
    """End of a message: no id of a file is an item token.

    Args:
        tokens: item tokens by item id; ``tokens[0]`` is the padding.
        found: ids of the file.
    """
    return (
        f"item tokens, no id matches ({len(found):,} ids, {len(tokens) - 1:,} items): the data set "
        f"has {str(tokens[1])!r}, the file has {found[0]!r}; write ids alike."
    )


def first_few(words: Iterable[str], count: int = 5) -> str:
    """The first different words in quotes, for messages."""
    different = list(dict.fromkeys(words))
    shown = ", ".join(map(repr, different[:count]))
    return shown + (", ..." if len(different) > count else "")


def read_edges(
    path: Path, tokens: Sequence[str], separator: str = "\t", encoding: str = "utf-8"
) -> sparse.csr_matrix:
    """Read an item graph from an atomic file with ``item_id:token`` and ``neighbour_id:token``.

    A column ``weight:float`` is optional. Without it every edge has the weight 1. Along an edge the
    item receives from the neighbour. An edge in both directions needs two lines. Edges of items
    that are not in the data set are left out, and a log line counts them.

    Args:
        path: the file.
        tokens: item tokens by item id; ``tokens[0]`` is the padding.
        separator: separator between two cells.
        encoding: encoding of the file.

    Returns:
        Matrix ``(n_items, n_items)``. A row belongs to the receiving item.

    Raises:
        ValueError: if the file is absent or ill-formed, a weight is not a positive number, or no
            edge joins two items of the data set.
    """
    if not path.is_file():
        raise ValueError(f"{path}: must be a file of item-item edges, got no such file; add it.")
    fields = [_ITEM, _NEIGHBOUR]
    fields += [_WEIGHT] if _WEIGHT in read_header(path, separator, encoding) else []
    lines = read_columns(path, fields, separator, encoding)
    item_of = {token: item for item, token in enumerate(tokens) if item}
    found = [
        (item_of[line[0]], item_of[line[1]], _weight(path, line))
        for line in lines
        if line[0] in item_of and line[1] in item_of
    ]
    if len(found) < len(lines):
        logging.getLogger().info(
            f"{path}: {len(lines) - len(found)} of {len(lines)} edges are of items "
            "that the data set does not have; left out."
        )
    if not found:
        raise ValueError(
            f"{path}: edges must join two items, got none of {len(lines)} that do; ids must be "
            f"{no_match(tokens, [line[0] for line in lines])}"
        )
    rows, cols, weights = (np.array(column) for column in zip(*found))
    return sparse.csr_matrix((weights.astype(np.float32), (rows, cols)), (len(tokens),) * 2)


def _weight(path: Path, line: tuple[str, ...]) -> float:
    if len(line) < 3:
        return 1.0
    try:
        weight = float(line[2])
    except ValueError:
        weight = np.nan
    if not 0 < weight < np.inf:
        raise ValueError(f"{path}: a weight must be a positive number, got {line[2]!r}; fix it.")
    return weight
