"""The item-item co-interaction graph."""

from __future__ import annotations

from logging import getLogger
from typing import Any

import numpy as np
from scipy import sparse

from recbole_missing.parallel import SERIAL

_SECONDS_OF_WORK = 10**7
"""Pairs that take about a second; nobody needs advice about fewer."""


def co_interaction(
    interactions: sparse.spmatrix,
    top_k: int,
    block_work: int = 2**22,
    max_user_items: int | None = None,
    engine: Any = SERIAL,
) -> sparse.csr_matrix:
    """Item-item graph: two items are linked if a user interacted with both of them.

    Args:
        interactions: training interactions R, shape ``(n_users, n_items)``; any non-zero entry is
            one interaction.
        top_k: entries that a row keeps, the item itself (its number of users) among them. The
            larger count wins, then the smaller item id. A row with fewer co-interacted items stays
            shorter.
        block_work: pairs of items in one block of rows of R^T R. It bounds memory, because the
            product never exists as a whole. A user with d items makes d^2 pairs; their sum over
            the users, which is logged, is the cost of the graph.
        max_user_items: leave out users with more items than that, because they cost most and say
            little about each item. Counts are then those of the other users, and an item that
            nobody else has gets an empty row. Default: everyone counts.
        engine: runs the blocks (:mod:`recbole_missing.parallel`).

    Returns:
        Co-interaction counts as CSR, shape ``(n_items, n_items)``, float32, columns sorted. The
        graph is directed, because the top-k is taken row by row. It is the same for every
        ``block_work`` and ``engine``.
    """
    items_by_user = _ones(interactions)
    if max_user_items is not None:
        items_by_user = _without_popular(items_by_user, max_user_items)
    user_items = np.diff(items_by_user.indptr).astype(np.int64)
    _log_pairs(user_items)
    users_by_item = items_by_user.T.tocsr()
    shared = (users_by_item, items_by_user, top_k)
    tasks = _row_blocks(users_by_item, users_by_item @ user_items, block_work)
    blocks = list(engine.map(strongest_rows, shared, tasks, "co-interaction"))
    return sparse.vstack(blocks, format="csr")


def strongest_rows(
    users_by_item: sparse.csr_matrix,
    items_by_user: sparse.csr_matrix,
    top_k: int,
    rows: tuple[int, int],
) -> sparse.csr_matrix:
    """Rows ``rows[0]`` to ``rows[1]`` of the graph that :func:`co_interaction` describes.

    Each entry becomes one integer that holds its row, its count (reversed, so that the largest
    comes first) and its item, in this order. Sorting these integers ranks all rows at once.
    """
    counts = users_by_item[rows[0] : rows[1]] @ items_by_user
    counts.sort_indices()
    row, col, count = _without_late_ones(counts, top_k)
    width, height = counts.shape[1], int(counts.data.max(initial=0)) + 1
    keys = (row * height + (height - 1 - count)) * width + col
    keys.sort()
    row = keys // (height * width)
    first = np.searchsorted(row, np.arange(counts.shape[0]))
    kept = np.arange(row.size) - first[row] < top_k
    row, rest = row[kept], keys[kept] % (height * width)
    values = (height - 1 - rest // width).astype(np.float32)
    strongest = sparse.csr_matrix((values, (row, rest % width)), shape=counts.shape)
    strongest.sort_indices()
    return strongest


def _without_late_ones(counts: sparse.csr_matrix, top_k: int) -> tuple[np.ndarray, ...]:
    """Row, column and count (int64) of the entries that may be kept.

    Of the counts of 1 in a row, only the first ``top_k`` can be: the rest lose the tie. They are
    most of a sparse catalogue's pairs.
    """
    row = np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr))
    one = counts.data == 1
    ones = np.concatenate([[0], np.cumsum(one)])  # how many of them stand before an entry
    kept = ~one | (ones[:-1] - ones[counts.indptr[:-1]][row] < top_k)
    return row[kept], counts.indices[kept].astype(np.int64), counts.data[kept].astype(np.int64)


def _ones(interactions: sparse.spmatrix) -> sparse.csr_matrix:
    """R with ones, int32, each interaction once; a copy."""
    matrix = interactions.tocsr(copy=True)
    matrix.eliminate_zeros()
    matrix = sparse.csr_matrix(
        (np.ones(matrix.nnz, dtype=np.int32), matrix.indices, matrix.indptr), matrix.shape
    )
    matrix.sum_duplicates()
    matrix.data[:] = 1
    return matrix


def _without_popular(items_by_user: sparse.csr_matrix, limit: int) -> sparse.csr_matrix:
    few = np.diff(items_by_user.indptr) <= limit
    kept = items_by_user[few]
    getLogger().info(
        f"co_interaction: {(~few).sum():,} of {len(few):,} users have more than {limit} items and "
        f"are left out, with {1 - kept.nnz / max(items_by_user.nnz, 1):.1%} of the interactions."
    )
    return kept


def _log_pairs(user_items: np.ndarray) -> None:
    """Say how much work the product is; ``user_items``: number of items of each user."""
    pairs = int((user_items**2).sum())
    getLogger().info(f"co_interaction: {pairs:,} pairs of items from {len(user_items):,} users.")
    n_top = len(user_items) // 100
    if n_top == 0 or pairs < _SECONDS_OF_WORK:
        return
    top = np.sort(user_items)[-n_top:]
    share = int((top**2).sum()) / pairs
    if share > 0.5:
        getLogger().warning(
            f"co_interaction: the {n_top:,} users with the most items (1 % of all users, each with "
            f"{top[0]:,} items or more) make {share:.0%} of the {pairs:,} pairs of items, but only "
            f"{top.sum() / user_items.sum():.0%} of the interactions; if the graph takes too long, "
            f"leave out users with more than {top[0]:,} items (max_user_items={top[0]})."
        )


def _row_blocks(
    users_by_item: sparse.csr_matrix, pairs: np.ndarray, block_work: int
) -> list[tuple[int, int]]:
    """Ranges of rows with at most ``block_work`` pairs each, or of a single row.

    They are also so short that the integers of :func:`strongest_rows` fit into 63 bits.
    """
    n_items = users_by_item.shape[0]
    largest = int(np.diff(users_by_item.indptr).max(initial=0)) + 1
    most_rows = max(2**63 // (largest * max(n_items, 1)), 1)
    ends, blocks, start, done = np.cumsum(pairs), [], 0, 0
    while start < n_items:
        stop = int(np.searchsorted(ends, done + block_work, side="right"))
        stop = min(max(stop, start + 1), start + most_rows)
        blocks.append((start, stop))
        start, done = stop, int(ends[stop - 1])
    return blocks
