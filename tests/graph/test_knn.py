"""The neighbour search against loops over single pairs."""

from __future__ import annotations

import pytest
import torch
from helpers import dense

from recbole_missing.graph.knn import (
    KNN_MISSING,
    Cosines,
    SharedCosines,
    block_rows,
    knn_graph,
    largest,
    nearest,
    places,
    stable_topk,
    top_columns,
)
from recbole_missing.graph.sparse import SparseMatrix
from recbole_missing.imputation.base import Table
from recbole_missing.parallel import Serial


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


# ------------------------------------------------------------------------------------- searches


def test_queries_and_candidates_may_differ() -> None:
    generator = torch.Generator().manual_seed(0)
    queries, candidates = (torch.randn(n, 6, generator=generator) for n in (9, 14))
    candidates[[3, 8]] = candidates[11].clone()
    expected = torch.cosine_similarity(queries[:, None], candidates[None], dim=2)
    cosines = Cosines(queries, candidates)
    torch.testing.assert_close(cosines(torch.arange(9)), expected)
    torch.testing.assert_close(cosines.mean(), expected.mean())
    for block_size in (1, 4, 100):
        values, found = nearest(cosines, torch.tensor([7, 2]), 14, block_size)
        for row, query in enumerate((7, 2)):
            order = sorted(range(14), key=lambda c: (-round(float(expected[query, c]), 5), c))
            assert found[row].tolist() == order
        torch.testing.assert_close(values, expected[[7, 2]].gather(1, found))


def test_equal_rows_have_equal_similarities_to_the_last_bit() -> None:
    features = torch.randn(300, 37, generator=torch.Generator().manual_seed(0))
    features[250:] = features[17].clone()
    similarity = Cosines(features[:250], features)(torch.arange(250))
    assert (similarity[:, 250:] == similarity[:, 17, None]).all()


def test_shared_cosines_are_summed_over_what_both_have() -> None:
    generator = torch.Generator().manual_seed(0)
    tables = []
    for name, dim in (("image", 4), ("text", 7), ("sound", 2)):
        observed = torch.rand(20, generator=generator) < 0.6
        tables.append(Table(name, torch.randn(20, dim, generator=generator), observed))
    queries, candidates = torch.tensor([1, 4, 19]), torch.arange(2, 18)
    got = SharedCosines(tables, queries, candidates)(torch.arange(3))
    alone = 0
    for row, query in enumerate(queries.tolist()):
        for col, candidate in enumerate(candidates.tolist()):
            shared = [t for t in tables if t.observed[query] and t.observed[candidate]]
            cosines = [
                torch.cosine_similarity(t.features[query], t.features[candidate], dim=0)
                for t in shared
            ]
            alone += not shared
            expected = sum(cosines) if shared else -torch.inf
            assert float(got[row, col]) == pytest.approx(float(expected), abs=1e-6)
    assert alone > 0


def test_a_search_keeps_leading_dimensions_and_runs_on_an_engine() -> None:
    tables = [Cosines(torch.randn(12, dim)) for dim in (3, 5)]
    seen = []

    class Engine(Serial):
        def map(self, function, shared, tasks, label):
            seen.extend(tasks)
            return super().map(function, shared, tasks, label)

    def both(queries: torch.Tensor) -> torch.Tensor:
        return torch.stack([table(queries) for table in tables])

    values, found = nearest(both, torch.arange(12), 4, 5, Engine())
    assert values.shape == found.shape == (2, 12, 4)
    assert len(seen) == 3
    for part, table in enumerate(tables):
        alone = nearest(table, torch.arange(12), 4, 12)
        torch.testing.assert_close(values[part], alone[0])
        assert torch.equal(found[part], alone[1])


def test_topk_is_in_falling_order_and_equal_ones_by_column() -> None:
    similarity = torch.tensor([[0.5, 0.9, 0.5, 0.9, 0.5 + 2e-7, 0.1], [0, 0, 0, 0, 0, 0]])
    values, columns = stable_topk(similarity, 4)
    assert columns.tolist() == [[1, 3, 0, 2], [0, 1, 2, 3]]
    assert torch.equal(values, similarity.gather(1, columns))


@pytest.mark.parametrize("n_columns", [1, 5, 255, 256, 700, 1283])
def test_largest_of_many_columns(n_columns: int) -> None:
    """Groups of columns with a rest behind them; equal values, also at the k-th place."""
    torch.manual_seed(n_columns)
    key = torch.randint(0, 90, (40, n_columns)).float()
    key[0], key[1, n_columns // 2] = 7.0, torch.inf
    for k in {1, min(2, n_columns), min(5, n_columns)}:
        values, columns = largest(key, k)
        assert torch.equal(values, key.topk(k).values)
        assert torch.equal(values, key.gather(1, columns))
        assert all(len(set(row)) == k for row in columns.tolist())
        order = key.argsort(dim=1, descending=True, stable=True)
        assert torch.equal(top_columns(key, k), order[:, :k])


@pytest.mark.parametrize("block_size", [1, 7, 100])
def test_places_count_who_is_better_and_who_ties(block_size: int) -> None:
    features = torch.randn(30, 5, generator=torch.Generator().manual_seed(3))
    features[[4, 9]] = features[20].clone()
    features[2] = torch.nan
    queries, own = features[torch.tensor([20, 1, 2])], torch.tensor([9, 8, 5])
    candidates = features.nan_to_num(0)
    better, ties = places(Cosines(queries, candidates), own, block_size)
    assert better.tolist()[0] == 0 and ties.tolist()[0] == 3
    cosines = torch.cosine_similarity(queries[1, None], candidates)
    assert better[1] == (cosines > cosines[8] + 1e-6).sum()
    assert ties[1] == 1
    assert better[2] == 30 and ties[2] == 0, "a query that is no number finds nothing"


def test_blocks_hold_a_bounded_number_of_similarities(monkeypatch: pytest.MonkeyPatch) -> None:
    assert block_rows(500_000) * 500_000 <= 2**25
    assert block_rows(10) == 1024
    assert block_rows(2**30) == 1
    monkeypatch.setattr("recbole_missing.graph.knn.BLOCK_ENTRIES", 50)
    sizes = []
    original = Cosines.__call__

    def recorded(self: Cosines, queries: torch.Tensor) -> torch.Tensor:
        sizes.append(len(queries))
        return original(self, queries)

    monkeypatch.setattr(Cosines, "__call__", recorded)
    features, observed = tied_features()
    built = knn_graph(features, 4, observed)
    assert max(sizes) == 2, "20 candidates, 50 entries"
    monkeypatch.undo()
    assert neighbours_of(built) == neighbours_of(knn_graph(features, 4, observed))


def test_the_search_moves_to_the_given_device() -> None:
    features, observed = tied_features()
    with pytest.raises((NotImplementedError, RuntimeError)):  # a meta tensor holds no numbers
        knn_graph(features, 1, observed, device="meta")
    assert knn_graph(features, 1, observed, device="cpu").values.device == features.device


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("missing", KNN_MISSING)
def test_a_gpu_finds_the_same_neighbours(missing: str) -> None:
    features, observed = tied_features()
    here = knn_graph(features, 4, observed, missing)
    there = knn_graph(features, 4, observed, missing, device="cuda")
    assert there.values.device == features.device
    assert torch.equal(here.col, there.col)
    torch.testing.assert_close(here.values, there.values)
