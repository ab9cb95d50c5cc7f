"""The co-interaction graph in blocks of bounded work, and the engines that run blocks."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import sparse

from recbole_missing.graph.co_interaction import _row_blocks, co_interaction
from recbole_missing.imputation import FeatProp
from recbole_missing.parallel import Ray, Serial


def catalogue(n_users: int = 300, n_items: int = 120, seed: int = 0) -> sparse.csr_matrix:
    """Interactions with popular items and users, repeated ones, and items that nobody has."""
    generator = np.random.default_rng(seed)
    degrees = np.minimum(generator.pareto(1.5, n_users).astype(int) + 1, n_items)
    users = np.repeat(np.arange(n_users), degrees)
    items = (n_items * generator.random(len(users)) ** 3).astype(int)
    ones = np.ones(len(users), dtype=np.float32)
    return sparse.coo_matrix((ones, (users, items)), shape=(n_users, n_items + 3)).tocsr()


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


def assert_same_bits(got: sparse.csr_matrix, expected: sparse.csr_matrix) -> None:
    assert got.shape == expected.shape
    for name in ("data", "indices", "indptr"):
        ours, theirs = getattr(got, name), getattr(expected, name)
        assert ours.dtype == theirs.dtype
        assert np.array_equal(ours, theirs), name


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


def test_what_the_graph_costs_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    even = sparse.csr_matrix(np.kron(np.eye(200, dtype=np.float32), np.ones((1, 3))))
    with caplog.at_level(logging.INFO):
        co_interaction(even, 5)
    assert f"{200 * 9:,} pairs" in caplog.text
    assert not [record for record in caplog.records if record.levelno > logging.INFO]
    busy = even.tolil()
    busy[7, :100] = 1
    busy[8, :100] = 1
    caplog.clear()
    with caplog.at_level(logging.INFO):
        co_interaction(busy.tocsr(), 5)
        co_interaction(busy.tocsr(), 5, max_user_items=3)
    (warning,) = [record for record in caplog.records if record.levelno > logging.INFO]
    share = 2 * 101**2 / (198 * 9 + 2 * 101**2)  # each has 100 items and one or two of its own
    assert "1 % of the users" in warning.getMessage()
    assert f"{share:.0%}" in warning.getMessage()
    assert "max_user_items" in warning.getMessage()
    assert "2 of 200 users have more than 3 items" in caplog.text


# ---------------------------------------------------------------------------------- engines


def scaled(table: np.ndarray, factor: float, task: int) -> tuple[int, np.ndarray, int]:
    return task, table[task] * factor, torch.get_num_threads()


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


@pytest.fixture(scope="module")
def two_workers() -> Iterator[Ray]:
    ray = pytest.importorskip("ray")
    engine = Ray(num_cpus=2)
    try:
        engine._connect()
    except Exception as error:  # noqa: BLE001
        engine.close()
        pytest.skip(f"Ray does not start on this machine: {error}")
    yield engine
    engine.close()
    assert not ray.is_initialized(), "what the engine started still runs"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_ray_gives_equal_results_in_order(two_workers: Ray) -> None:
    table = np.arange(40.0)
    results = list(two_workers.map(scaled, (table, 2.0), list(range(40)), "doubling"))
    assert [result[:2] for result in results] == [(task, 2.0 * task) for task in range(40)]
    assert {result[2] for result in results} == {1}, "workers share the cores"

    interactions = catalogue()
    got = co_interaction(interactions, 5, 500, engine=two_workers)
    assert_same_bits(got, co_interaction(interactions, 5))

    features = np.random.default_rng(0).random((interactions.shape[1], 6), dtype=np.float32)
    observed = np.arange(len(features)) % 2 == 0
    local, distributed = FeatProp(), FeatProp()
    distributed.engine = two_workers
    expected = local.fit(interactions).transform(features, observed)
    assert np.array_equal(distributed.fit(interactions).transform(features, observed), expected)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_ray_of_somebody_else_is_left_alone(two_workers: Ray) -> None:
    import ray

    with Ray() as guest:
        assert next(iter(guest.map(scaled, (np.ones(1), 1.0), [0], "visiting")))[0] == 0
    assert ray.is_initialized()
