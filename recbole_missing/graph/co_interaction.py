"""The item-item co-interaction graph."""

from __future__ import annotations

from logging import getLogger
from typing import Any

import numpy as np
from scipy import sparse


def co_interaction(
    interactions: sparse.spmatrix,
    top_k: int,
    block_work: int = 2**22,
    max_user_items: int | None = None,
    engine: Any = None,
) -> sparse.csr_matrix:
    """Item-item graph: who was interacted with by the same users, each row's strongest ``top_k``.

    Args:
        interactions: training interactions R, shape ``(n_users, n_items)``; any non-zero entry is
            one interaction.
        top_k: entries a row keeps, the item itself (its degree) among them. Larger count first,
            then smaller item id. Rows with fewer co-interacted items stay shorter: no filler.
        block_work: pairs of items that one block of rows of R^T R may have; it bounds memory, the
            product is never whole. A user with d items makes d^2 pairs, so that all cost
            sum_u d_u^2, which is logged.
        max_user_items: leave users with more items than that out of the graph, because they square
            the work and say little. Counts are then those of the other users, and an item that
            nobody else has gets an empty row. Default: everyone counts.
        engine: its method ``map`` runs the blocks (:mod:`recbole_missing.parallel`);
            default one after the other, here.

    Returns:
        Co-interaction counts as CSR, shape ``(n_items, n_items)``, float32, columns sorted;
        directed, because the top-k is taken row by row. The same for every ``block_work`` and
        ``engine``.
    """
    items_by_user = _ones(interactions)
    if max_user_items is not None:
        items_by_user = _without_popular(items_by_user, max_user_items)
    user_items = np.diff(items_by_user.indptr).astype(np.int64)
    _log_pairs(user_items)
    users_by_item = items_by_user.T.tocsr()
    shared = (users_by_item, items_by_user, top_k)
    tasks = _row_blocks(users_by_item, users_by_item @ user_items, block_work)
    if engine is None:
        blocks = [strongest_rows(*shared, rows) for rows in tasks]
    else:
        blocks = list(engine.map(strongest_rows, shared, tasks, "co-interaction"))
    return sparse.vstack(blocks, format="csr")


def strongest_rows(
    users_by_item: sparse.csr_matrix,
    items_by_user: sparse.csr_matrix,
    top_k: int,
    rows: tuple[int, int],
) -> sparse.csr_matrix:
    """Rows ``rows[0]`` to ``rows[1]`` of the graph that :func:`co_interaction` describes.

    The entries are sorted once, as integers that hold (row, falling count, item) in this order.
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
    """Row, column, count (int64), without the ones behind a row's first ``top_k`` ones.

    They are most of a sparse catalogue's pairs, and by the tie rule none of them can be kept.
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
    """Say what the product costs, and who causes it; ``user_items``: items of each user."""
    pairs = int((user_items**2).sum())
    getLogger().info(f"co_interaction: {pairs:,} pairs of items from {len(user_items):,} users.")
    top = np.sort(user_items)[len(user_items) - len(user_items) // 100 :]
    share = int((top**2).sum()) / max(pairs, 1)
    if share > 0.5:
        getLogger().warning(
            f"co_interaction: 1 % of the users, with {top[0]:,} items or more, cause {share:.0%} "
            f"of the {pairs:,} pairs with {top.sum() / user_items.sum():.0%} of the interactions; "
            f"max_user_items={top[0]} leaves out who has more."
        )


def _row_blocks(
    users_by_item: sparse.csr_matrix, pairs: np.ndarray, block_work: int
) -> list[tuple[int, int]]:
    """Consecutive rows of at most ``block_work`` pairs, or one row.

    Blocks are also short enough for a key of :func:`strongest_rows` to fit into 63 bits.
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
