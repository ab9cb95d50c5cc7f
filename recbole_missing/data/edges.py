"""An item graph of the user's own, from a file of item tokens."""

from __future__ import annotations

from collections.abc import Sequence
from logging import getLogger
from pathlib import Path

import numpy as np
from scipy import sparse

from recbole_missing.data.files import read_columns, read_header

ITEM, NEIGHBOUR, WEIGHT = "item_id", "neighbour_id", "weight"


def read_edges(path: Path, tokens: Sequence[str], separator: str = "\t") -> sparse.csr_matrix:
    """Read item-item edges, an atomic file with ``item_id:token``, ``neighbour_id:token``.

    A column ``weight:float`` is optional; without it every edge weighs 1. An edge says that the
    item receives from the neighbour; write both directions if both hold. Edges of items that the
    data set does not have are counted and left out.

    Args:
        path: the file.
        tokens: item tokens by item id; ``tokens[0]`` is the padding.
        separator: between the cells of a line.

    Returns:
        Shape ``(n_items, n_items)``, row = receiving item.

    Raises:
        ValueError: if the file is absent or ill-formed, a weight is not a positive number, or no
            edge joins two items of the data set.
    """
    if not path.is_file():
        raise ValueError(f"{path}: must be a file of item-item edges, got no such file; add it.")
    fields = [ITEM, NEIGHBOUR]
    fields += [WEIGHT] if WEIGHT in read_header(path, separator) else []
    lines = read_columns(path, fields, separator)
    item_of = {token: item for item, token in enumerate(tokens) if item}
    found = [
        (item_of[line[0]], item_of[line[1]], _weight(path, line))
        for line in lines
        if line[0] in item_of and line[1] in item_of
    ]
    if len(found) < len(lines):
        getLogger().info(
            f"{path}: {len(lines) - len(found)} of {len(lines)} edges are of items "
            "that the data set does not have; left out."
        )
    if not found:
        raise ValueError(
            f"{path}: edges must join items of the data set, got none of {len(lines)} that do; "
            "write item tokens."
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
        raise ValueError(f"{path}: a weight must be a positive number, got {line[2]!r}; mend it.")
    return weight
