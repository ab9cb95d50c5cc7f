"""Graphs against dense formulas written here."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import dense, random_matrix
from scipy import sparse

from recbole_missing.graph.co_interaction import co_interaction
from recbole_missing.graph.knn import KNN_MISSING, knn_graph
from recbole_missing.graph.normalise import row_mean_norm, row_sum_norm, symmetric_norm
from recbole_missing.graph.sparse import SparseMatrix, bipartite, blend_rows, light_gcn, whole_graph


def test_products_and_their_gradients_equal_dense_ones() -> None:
    matrix = random_matrix()
    for product, full in ((matrix.__matmul__, dense(matrix)), (matrix.t_matmul, dense(matrix).T)):
        x = torch.randn(full.shape[1], 3, requires_grad=True)
        weight = torch.randn(full.shape[0], 3)
        (product(x) * weight).sum().backward()
        torch.testing.assert_close(product(x), full @ x)
        torch.testing.assert_close(x.grad, full.T @ weight)


def test_repeated_edges_are_summed_and_bipartite_counts_once() -> None:
    rows, cols = torch.tensor([1, 1, 2]), torch.tensor([2, 2, 1])
    summed = SparseMatrix(rows, cols, torch.ones(3), (3, 3))
    assert dense(summed)[1, 2] == 2
    assert dense(bipartite(rows, cols, 3, 3)).sum() == 2


def test_a_state_dict_with_another_number_of_edges_loads() -> None:
    stored, other = random_matrix(seed=1), random_matrix(seed=2)
    assert stored.values.numel() != other.values.numel()
    other.load_state_dict(stored.state_dict())
    x = torch.randn(7, 2)
    torch.testing.assert_close(dense(other), dense(stored))
    torch.testing.assert_close(other.t_matmul(x), dense(stored).T @ x)


def test_normalisations_equal_their_formulas() -> None:
    matrix = random_matrix(6, 6)
    full = dense(matrix)
    row, col = full.sum(1), full.sum(0)

    def power(sums: torch.Tensor, exponent: float) -> torch.Tensor:
        return torch.where(sums > 0, sums**exponent, torch.zeros(()))

    half_row, half_col = power(row, -0.5), power(col, -0.5)
    expected = {
        symmetric_norm: half_row[:, None] * full * half_col,
        row_sum_norm: half_row[:, None] * full * half_row,
        row_mean_norm: power(row, -1.0)[:, None] * full,
    }
    for normalise, values in expected.items():
        torch.testing.assert_close(dense(normalise(matrix)), values)


def test_light_gcn_equals_the_mean_of_dense_layers() -> None:
    matrix = random_matrix(4, 5)
    users, items = torch.randn(4, 3), torch.randn(5, 3)
    full = torch.zeros(9, 9)
    full[:4, 4:], full[4:, :4] = dense(matrix), dense(matrix).T
    layers = [torch.cat([users, items])]
    for _ in range(3):
        layers.append(full @ layers[-1])
    expected = torch.stack(layers).mean(0)
    got = torch.cat(light_gcn(matrix, users, items, 3))
    torch.testing.assert_close(got, expected)


def test_blend_rows() -> None:
    old, new = random_matrix(5, 5, seed=3), random_matrix(5, 5, seed=4)
    rows = torch.tensor([False, True, False, True, False])
    blended = dense(blend_rows(old, new, rows, 0.3))
    mixed = 0.3 * dense(new) + 0.7 * dense(old)
    torch.testing.assert_close(blended, torch.where(rows[:, None], mixed, dense(old)))


# ---------------------------------------------------------------------------------------- kNN


def slow_knn(features: torch.Tensor, k: int, candidates: list[int]) -> dict[int, list[int]]:
    """Neighbours by (similarity, then smaller id), one row at a time."""
    unit = torch.nn.functional.normalize(features)
    neighbours = {}
    for row in candidates:
        scored = [(-round(float(unit[row] @ unit[col]), 5), col) for col in candidates]
        neighbours[row] = sorted(col for _, col in sorted(scored)[:k])
    return neighbours


def neighbours_of(matrix: SparseMatrix) -> dict[int, list[int]]:
    rows, cols, _ = matrix.edges()
    found: dict[int, list[int]] = {}
    for row, col in zip(rows.tolist(), cols.tolist()):
        found.setdefault(row, []).append(col)
    return found


def tied_features() -> tuple[torch.Tensor, torch.Tensor]:
    """Twenty items, of which six share one imputed row and three are exact copies."""
    features = torch.randn(21, 4, generator=torch.Generator().manual_seed(0))
    observed = torch.ones(21, dtype=torch.bool)
    features[0], observed[0] = 0, False
    imputed = torch.tensor([2, 5, 6, 11, 17, 20])
    observed[imputed] = False
    features[imputed] = features[observed].mean(0)
    features[[4, 9, 13]] = features[3].clone()
    return features, observed


@pytest.mark.parametrize("block_size", [1, 3, 7, 1000])
def test_ties_go_to_the_smaller_id_for_every_block_size(block_size: int) -> None:
    features, observed = tied_features()
    matrix = knn_graph(features, 4, observed, block_size=block_size)
    assert neighbours_of(matrix) == slow_knn(features, 4, list(range(1, 21)))


def test_isolated_items_have_themselves_only() -> None:
    features, observed = tied_features()
    seen = observed.nonzero()[:, 0].tolist()
    before = neighbours_of(knn_graph(features, 4, observed, "isolated"))
    assert {item: before[item] for item in seen} == slow_knn(features, 4, seen)
    after = neighbours_of(knn_graph(features, 4, observed, "isolated_after_topk"))
    everyone = slow_knn(features, 4, list(range(1, 21)))
    for item in range(1, 21):
        if item in seen:
            assert after[item] == [col for col in everyone[item] if col in seen]
        else:
            assert before[item] == after[item] == [item]


def test_k_beyond_the_candidates_takes_them_all_and_weights_are_cosines() -> None:
    features, observed = tied_features()
    matrix = knn_graph(features, 50, observed)
    assert all(len(found) == 20 for found in neighbours_of(matrix).values())
    unit = torch.nn.functional.normalize(features)
    torch.testing.assert_close(dense(matrix), unit @ unit.T, atol=1e-6, rtol=1e-5)
    assert set(knn_graph(features, 3, observed, weighted=False).values.tolist()) == {1.0}


# ---------------------------------------------------------------------------- co-interaction


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
    twice = sparse.vstack([once]).tocoo()
    twice = sparse.csr_matrix(
        (np.tile(twice.data, 2), (np.tile(twice.row, 2), np.tile(twice.col, 2))), shape=once.shape
    )
    expected, got = co_interaction(once, 5), co_interaction(twice, 5)
    assert (expected != got).nnz == 0


def test_the_whole_graph_holds_both_directions_and_the_loops() -> None:
    matrix = random_matrix()
    expected = torch.zeros(12, 12)
    expected[:7, 7:], expected[7:, :7] = dense(matrix), dense(matrix).T
    assert torch.equal(dense(whole_graph(matrix)), expected)
    assert torch.equal(dense(whole_graph(matrix, self_loops=True)), expected + torch.eye(12))


def test_an_excluded_item_keeps_a_self_loop_and_leaves_its_place_to_others() -> None:
    torch.manual_seed(0)
    features = torch.randn(8, 4)
    features[0] = 0
    observed = torch.ones(8, dtype=torch.bool)
    observed[[0, 5]] = False
    excluded = torch.zeros(8, dtype=torch.bool)
    excluded[3] = True
    rest = (~excluded).nonzero()[:, 0]
    unit = torch.nn.functional.normalize(features)
    for missing in KNN_MISSING:
        built = dense(knn_graph(features, 3, observed, missing, excluded=excluded))
        assert built[3].nonzero().tolist() == [[3]]
        assert built[:, 3].nonzero().tolist() == [[3]]
        cosines = unit @ unit.T
        cut = [3] if missing != "isolated" else [3, 5]
        cosines[cut], cosines[:, cut] = 0.0, 0.0  # as the releases do it, before the top-k
        cosines[:, 0] = -torch.inf
        for item in rest[1:].tolist():
            if missing != "imputed" and item == 5:
                assert built[5].nonzero().tolist() == [[5]]
                continue
            value, neighbour = cosines[item].topk(3)
            expected = torch.zeros(8).index_put_((neighbour,), value)
            if missing != "imputed":
                expected[5] = 0.0
            torch.testing.assert_close(built[item], expected)
