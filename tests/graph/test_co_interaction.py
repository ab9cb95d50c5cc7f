"""The co-interaction graph, built in blocks of bounded work."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from helpers import assert_same_bits, catalogue
from scipy import sparse

from recbole_missing.graph.co_interaction import _row_blocks, co_interaction
from recbole_missing.parallel import Serial


def random_interactions(seed: int = 0) -> sparse.csr_matrix:
    generator = np.random.default_rng(seed)
    full = generator.random((30, 25)) < 0.2
    full[0] = full[:, 0] = full[:, 7] = False  # padding, and an item that nobody has
    return sparse.csr_matrix(full.astype(np.float32))


@pytest.mark.parametrize("block_size", [1, 4, 100])
def test_co_interaction_keeps_the_strongest_with_the_stated_tie_rule(block_size: int) -> None:
    interactions = random_interactions()
    counts = (interactions.T @ interactions).toarray()
    adjacency = co_interaction(interactions, 5, block_size).toarray()
    for item, row in enumerate(counts):
        ranked = sorted((-count, other) for other, count in enumerate(row) if count > 0)[:5]
        expected = {other: -count for count, other in ranked}
        assert {col: adjacency[item, col] for col in adjacency[item].nonzero()[0]} == expected


def test_co_interaction_counts_a_repeated_interaction_once() -> None:
    once = random_interactions()
    arrays = np.ones(2 * once.nnz), np.repeat(once.indices, 2), 2 * once.indptr
    twice = sparse.csr_matrix(arrays, shape=once.shape)
    assert twice.nnz == 2 * once.nnz
    assert_same_bits(co_interaction(twice, 5), co_interaction(once, 5))


def sorted_whole(interactions: sparse.csr_matrix, top_k: int) -> sparse.csr_matrix:
    """The same graph from the whole product, ordered by three sorts."""
    binary = (interactions != 0).astype(np.float32)
    counts = (binary.T @ binary).tocoo()
    order = np.lexsort((counts.col, -counts.data, counts.row))
    row, col, count = counts.row[order], counts.col[order], counts.data[order]
    first = np.searchsorted(row, np.arange(counts.shape[0]))
    kept = np.arange(row.size) - first[row] < top_k
    matrix = sparse.csr_matrix((count[kept], (row[kept], col[kept])), shape=counts.shape)
    matrix.sort_indices()
    return matrix


@pytest.mark.parametrize("top_k", [1, 2, 7, 50, 1000])
@pytest.mark.parametrize("block_work", [1, 500, 2**30])
def test_every_block_size_gives_the_graph_of_the_sorted_whole(top_k: int, block_work: int) -> None:
    for seed in range(3):
        interactions = catalogue(seed=seed)
        got = co_interaction(interactions, top_k, block_work)
        assert_same_bits(got, sorted_whole(interactions, top_k))


def test_the_interactions_may_be_of_any_kind_and_stay_as_they_are() -> None:
    interactions = catalogue()
    expected = co_interaction(interactions, 5)
    ratings = sparse.csc_matrix(interactions.astype(np.float64) * 0.4)
    before = ratings.copy()
    assert_same_bits(co_interaction(ratings, 5), expected)
    assert_same_bits(ratings, before)
    absent = sparse.coo_matrix((np.zeros(5), (np.arange(5), np.arange(5))), ratings.shape)
    pairs = [(part.row, part.col) for part in (interactions.tocoo(), absent)]
    values = np.concatenate([interactions.data, absent.data])
    stored_zeros = sparse.coo_matrix((values, np.hstack(pairs)), ratings.shape)
    assert_same_bits(co_interaction(stored_zeros, 5), expected)
    interactions.data[::7] = 0.0
    before = interactions.copy()
    co_interaction(interactions, 5)
    assert_same_bits(interactions, before)


def test_blocks_are_bounded_by_their_pairs_or_hold_one_row() -> None:
    users_by_item = catalogue().T.tocsr()
    pairs = np.random.default_rng(0).pareto(1.0, users_by_item.shape[0]).astype(np.int64) * 10
    blocks = _row_blocks(users_by_item, pairs, 100)
    assert [start for start, _ in blocks] == [0, *(stop for _, stop in blocks[:-1])]
    assert blocks[-1][1] == len(pairs)
    work = [pairs[start:stop].sum() for start, stop in blocks]
    assert all(sum_ <= 100 or stop == start + 1 for sum_, (start, stop) in zip(work, blocks))
    together = [work[i] + pairs[blocks[i][1]] for i in range(len(blocks) - 1)]
    assert min(together) > 100, "a block ends although the next row still fits"


def test_blocks_are_so_short_that_their_keys_fit_into_an_integer() -> None:
    n_items, popular = 2**20, 2**31
    matrix: Any = SimpleNamespace(shape=(n_items, 1), indptr=np.array([0, popular - 1, popular]))
    blocks = _row_blocks(matrix, np.zeros(n_items, dtype=np.int64), 1)
    rows = max(stop - start for start, stop in blocks)
    assert rows * popular * n_items <= 2**63 < 2 * rows * popular * n_items


def test_popular_users_can_be_left_out() -> None:
    interactions = catalogue()
    items = np.diff(sparse.csr_matrix(interactions != 0).indptr)
    assert (items > 6).any()
    got = co_interaction(interactions, 5, max_user_items=6)
    assert_same_bits(got, co_interaction(interactions[items <= 6], 5))


def warnings_of(caplog: pytest.LogCaptureFixture, interactions: sparse.spmatrix) -> list[str]:
    caplog.clear()
    with caplog.at_level(logging.INFO):
        co_interaction(interactions, 5)
    return [r.getMessage() for r in caplog.records if r.levelno > logging.INFO]


def test_what_the_graph_costs_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    even = sparse.csr_matrix(np.kron(np.eye(200, dtype=np.float32), np.ones((1, 3))))
    assert not warnings_of(caplog, even)
    assert f"{200 * 9:,} pairs of items from 200 users" in caplog.text
    with caplog.at_level(logging.INFO):
        co_interaction(sparse.vstack([even, np.ones((2, 600))]), 5, max_user_items=3)
    assert "2 of 202 users have more than 3 items" in caplog.text


def test_a_few_users_that_make_most_of_a_large_graph_are_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    n_items = 2500
    few = sparse.csr_matrix((np.ones(298), (np.arange(298), np.arange(298))), (298, n_items))
    busy = sparse.vstack([few, np.ones((2, n_items))]).tocsr()
    (warning,) = warnings_of(caplog, busy)
    pairs = 298 + 2 * n_items**2
    assert "the 3 users with the most items (1 % of all users, each with 1 items" in warning
    assert f"make 100% of the {pairs:,} pairs" in warning
    assert f"only {(2 * n_items + 1) / (2 * n_items + 298):.0%} of the interactions" in warning


@pytest.mark.parametrize("n_users", [50, 300])
def test_small_or_even_graphs_need_no_advice(
    n_users: int, caplog: pytest.LogCaptureFixture
) -> None:
    """A percent of 50 users is nobody; pairs that take no time, or users all alike, are fine."""
    one_busy = sparse.lil_matrix((n_users, 400))
    one_busy[:, 0] = 1
    one_busy[0] = 1
    assert not warnings_of(caplog, one_busy.tocsr())
    assert not warnings_of(caplog, sparse.csr_matrix(np.ones((n_users, 20_000 // n_users + 250))))


def test_an_engine_runs_the_blocks_of_the_graph() -> None:
    seen = []

    class Engine(Serial):
        def map(self, function: Any, shared: Any, tasks: Any, label: str) -> Iterator[Any]:
            seen.extend(tasks)
            return super().map(function, shared, tasks, label)

    interactions = catalogue()
    got = co_interaction(interactions, 5, 500, engine=Engine())
    assert_same_bits(got, co_interaction(interactions, 5))
    assert len(seen) > 1
