"""What all imputers on item graphs have in common; FeatProp, NeighMean, and FeatProp's limit."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from helpers import catalogue, dense_propagation
from published import adjacency, table
from published import published as published
from scipy import sparse
from sklearn.base import clone

from recbole_missing.graph.co_interaction import co_interaction
from recbole_missing.graph.smoothness import dirichlet_energy
from recbole_missing.imputation.diffusion import (
    Heat,
    HeatUntruncated,
    PersPageRank,
    PersPageRankUntruncated,
)
from recbole_missing.imputation.propagation import (
    FeatProp,
    NeighMean,
    equilibrium,
    fixed_point,
    propagate,
    reach,
)
from recbole_missing.modality import Modalities
from recbole_missing.parallel import Serial

N_ITEMS = 60
METHODS = {
    "featprop": FeatProp,
    "heat": Heat,
    "heat_untruncated": HeatUntruncated,
    "neigh_mean": NeighMean,
    "pers_page_rank": PersPageRank,
    "pers_page_rank_untruncated": PersPageRankUntruncated,
}


# --------------------------------------------------------------------------------------- contract


@pytest.mark.parametrize("name", METHODS)
def test_habits(name: str, interactions: sparse.csr_matrix, features: np.ndarray) -> None:
    method = clone(METHODS[name](top_k=5, fallback="zeros"))
    before = features.copy()
    result = method.fit(interactions).transform(features)
    np.testing.assert_array_equal(features, before)
    known = ~np.isnan(before).any(axis=1)
    np.testing.assert_array_equal(result[known], before[known])
    assert np.isfinite(result).all()
    assert (result[-3:] == 0).all(), "items without interactions get the fallback"
    counts = method.report_["X"]
    assert counts["unreached"] >= 3
    assert counts["reached"] == (np.abs(result[~known]).sum(axis=1) > 0).sum()
    assert set(METHODS[name].hyperparameters) == set(method.get_params())


@pytest.mark.parametrize("name", METHODS)
def test_fallback_is_the_mean_of_donors(
    name: str, interactions: sparse.csr_matrix, features: np.ndarray
) -> None:
    donors = torch.arange(N_ITEMS) >= 4
    result = METHODS[name](top_k=5).fit(interactions, donors).transform(features)
    rows = features[4:][~np.isnan(features[4:]).any(axis=1)]
    expected = rows.mean(axis=0, dtype=np.float64)
    np.testing.assert_allclose(result[-3:], np.tile(expected, (3, 1)), rtol=1e-6)


@pytest.mark.parametrize("name", METHODS)
def test_what_missing_rows_hold_does_not_matter(
    name: str, interactions: sparse.csr_matrix, features: np.ndarray
) -> None:
    observed = ~np.isnan(features).any(axis=1)
    noise = np.where(observed[:, None], features, np.float32(1e3))
    method = METHODS[name](top_k=5).fit(interactions)
    np.testing.assert_array_equal(
        method.transform(noise, observed), method.transform(features, observed)
    )


@pytest.mark.parametrize("name", METHODS)
def test_items_that_are_no_donors_send_nothing(
    name: str, interactions: sparse.csr_matrix, features: np.ndarray
) -> None:
    donors = torch.ones(N_ITEMS, dtype=torch.bool)
    donors[:10] = False
    changed = features.copy()
    changed[:10] += 1
    missing = np.isnan(features).any(axis=1)
    everyone = METHODS[name](top_k=8).fit(interactions)
    assert not np.array_equal(
        everyone.transform(changed)[missing], everyone.transform(features)[missing]
    )
    some = METHODS[name](top_k=8).fit(interactions, donors)
    np.testing.assert_array_equal(
        some.transform(changed)[missing], some.transform(features)[missing]
    )


@pytest.mark.parametrize("name", METHODS)
def test_blocks_do_not_change_the_result(
    name: str,
    interactions: sparse.csr_matrix,
    features: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected = METHODS[name](top_k=5).fit(interactions).transform(features)
    backwards = METHODS[name](top_k=5)
    backwards.engine = Recorder()
    for module in ("propagation", "diffusion"):
        monkeypatch.setattr(f"recbole_missing.imputation.{module}.column_blocks", narrow)
    got = backwards.fit(interactions).transform(features)
    assert backwards.engine.n_tasks >= 3, "work does not go through the engine"
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def narrow(n_columns: int, n_rows: int) -> list[tuple[int, int]]:
    return [(start, min(start + 2, n_columns)) for start in range(0, n_columns, 2)]


class Recorder(Serial):
    """Counts its blocks and lends them what they share read-only, as Ray does."""

    n_tasks = 0

    def map(self, function: Any, shared: tuple[Any, ...], tasks: Any, label: str) -> Any:
        """Run as :class:`Serial` does."""
        self.n_tasks += len(tasks)
        lent = [read_only(value) for value in shared]
        return super().map(function, tuple(lent), tasks, label)


def read_only(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        value = value.copy()
        value.flags.writeable = False
    if isinstance(value, sparse.csr_matrix):
        value = value.copy()
        for array in (value.data, value.indices, value.indptr):
            array.flags.writeable = False
    return value


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layers": 0}, "FeatProp: layers must be an int >= 1, or 'converge', got 0"),
        ({"layers": "convergence"}, "FeatProp: layers must be"),
        ({"graph": "co_purchase"}, "FeatProp: graph must be one of co_interaction, edges, knn"),
        ({"tolerance": 0.0}, "FeatProp: tolerance must be a number between"),
    ],
)
def test_settings_are_checked_without_a_config(
    settings: dict[str, Any], message: str, interactions: sparse.csr_matrix
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        FeatProp(**settings).fit(interactions)


# ----------------------------------------------------------------------------------------- graphs


def test_edges_are_kept_by_weight_and_counted_alike(interactions: sparse.csr_matrix) -> None:
    edges = sparse.lil_matrix((N_ITEMS, N_ITEMS))
    edges[0, [5, 7, 9, 3]] = [2.0, 9.0, 2.0, 1.0]
    edges[1, [1, 2]] = [4.0, 0.5]
    graph = FeatProp(graph="edges", top_k=2).fit(interactions, edges=edges).graph_
    assert sorted(zip(*graph.nonzero())) == [(0, 5), (0, 7), (1, 1), (1, 2)]
    assert set(graph.data) == {1.0}


def test_repeated_edges_are_one_edge(interactions: sparse.csr_matrix) -> None:
    row = np.zeros(N_ITEMS + 1, dtype=int)
    row[1:] = 3
    edges = sparse.csr_matrix((np.array([3.0, 2.0, 2.0]), np.array([7, 9, 9]), row))
    edges.resize(N_ITEMS, N_ITEMS)
    graph = FeatProp(graph="edges", top_k=1).fit(interactions, edges=edges).graph_
    assert list(zip(*graph.nonzero())) == [(0, 9)]


def test_the_divisor_of_neigh_mean_ignores_short_rows(
    interactions: sparse.csr_matrix, features: np.ndarray
) -> None:
    edges = sparse.lil_matrix((N_ITEMS, N_ITEMS))
    edges[1, [0, 2, 3]] = 1.0  # item 3 is missing
    method = NeighMean(top_k=10, graph="edges").fit(interactions, edges=edges)
    expected = (features[0] + features[2]) / 10
    np.testing.assert_allclose(method.transform(features)[1], expected, rtol=1e-6)


def test_given_edges_equal_to_the_co_interactions_give_the_same(
    interactions: sparse.csr_matrix, features: np.ndarray
) -> None:
    counts = co_interaction(interactions, N_ITEMS)
    for method in (FeatProp(top_k=6), PersPageRank(top_k=6)):
        expected = method.fit(interactions).transform(features)
        user = clone(method).set_params(graph="edges")
        got = user.fit(interactions, edges=counts).transform(features)
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize(
    ("edges", "message"),
    [
        (None, "must be given as a (60, 60) matrix, got none"),
        (sparse.eye(59), "must have shape (60, 60) for the 60 items of the interactions"),
        (-sparse.eye(N_ITEMS), "must be finite and not negative, got -1"),
        (sparse.eye(N_ITEMS) * np.nan, "must be finite and not negative"),
    ],
)
def test_wrong_edges(edges: Any, message: str, interactions: sparse.csr_matrix) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        FeatProp(graph="edges").fit(interactions, edges=edges)


def test_another_modality_guides(interactions: sparse.csr_matrix, pair: Modalities) -> None:
    method = FeatProp(layers=2, top_k=6, graph="knn", guide="text", fallback="zeros")
    method.fit(interactions)
    result = method.transform(pair)
    text, image = pair["text"], pair["image"]
    unit = torch.nn.functional.normalize(text.features).numpy()
    similarity = unit @ unit.T
    has_text = text.observed.numpy()
    similarity[~has_text] = similarity[:, ~has_text] = -2
    nearest = np.zeros((N_ITEMS, N_ITEMS))
    for item in has_text.nonzero()[0]:
        nearest[item, np.argsort(-similarity[item])[:6]] = 1
    np.testing.assert_array_equal(method.graph_.toarray(), nearest)
    np.fill_diagonal(nearest, 0)
    expected = dense_propagation(
        image.features.numpy(), image.observed.numpy(), nearest / 5, layers=2
    )
    np.testing.assert_allclose(result["image"].features.numpy(), expected, atol=1e-6)
    assert method.report_["text"]["reached"] == 0, "the guide cannot guide itself"
    assert torch.equal(result["text"].features, text.features)


@pytest.mark.parametrize("name", METHODS)
def test_a_guide_works_with_every_method_and_without_padding(
    name: str, interactions: sparse.csr_matrix, features: np.ndarray
) -> None:
    text = np.random.default_rng(2).standard_normal((N_ITEMS, 4)).astype(np.float32)
    method = METHODS[name](graph="knn", guide="text", top_k=30, fallback="zeros")
    result = method.fit(interactions).transform({"image": features, "text": text})
    assert (np.abs(result["image"]).sum(axis=1) > 0).all()
    assert method.graph_[0].nnz == 30, "item 0 is an ordinary row"


def test_new_items_guide_nobody(interactions: sparse.csr_matrix, pair: Modalities) -> None:
    donors = torch.arange(N_ITEMS) < 40
    method = FeatProp(graph="knn", guide="text", top_k=6).fit(interactions, donors)
    method.transform(pair)
    graph = method.graph_
    assert graph.indices.max() < 40
    text = pair["text"].observed.numpy()
    np.testing.assert_array_equal(graph.getnnz(axis=1), np.where(text, 6, 0))


@pytest.mark.parametrize("guide", [None, "sound"])
def test_an_unknown_guide_names_the_choices(
    guide: str | None, interactions: sparse.csr_matrix, pair: Modalities
) -> None:
    method = FeatProp(graph="knn", guide=guide).fit(interactions)
    with pytest.raises(ValueError, match=f"guide must be one of image, text .*got {guide!r}"):
        method.transform(pair)


def test_a_single_modality_has_no_guide(interactions: sparse.csr_matrix, pair: Modalities) -> None:
    method = FeatProp(graph="knn", guide="text").fit(interactions)
    with pytest.raises(ValueError, match="guide must be another modality than the only one"):
        method.transform(pair["text"])


# ------------------------------------------------------------------------------------ propagation


def test_missing_rows_alone_are_iterated_with_equal_numbers(
    interactions: sparse.csr_matrix, features: np.ndarray
) -> None:
    method = FeatProp(layers=20, top_k=6).fit(interactions)
    observed = ~np.isnan(features).any(axis=1)
    clean = np.where(observed[:, None], features, 0)
    dense = method.operator_.toarray().astype(np.float64)
    for layers in (1, 2, 20):
        got, _ = propagate(
            torch.from_numpy(clean), torch.from_numpy(observed), method.operator_, layers
        )
        expected = dense_propagation(clean, observed, dense, layers)
        np.testing.assert_allclose(got.numpy(), expected, rtol=1e-5, atol=1e-6)


def test_featprop_is_the_loop_of_the_paper() -> None:
    """With nothing but the defaults of ``overall.yaml``, restated on dense matrices from R on."""
    interactions = catalogue()
    n_items = interactions.shape[1]
    features = np.random.default_rng(2).standard_normal((n_items, 5)).astype(np.float32)
    known = np.arange(n_items) % 3 == 0
    binary = (interactions.toarray() > 0).astype(np.float64)
    counts = binary.T @ binary  # C
    lists = np.zeros_like(counts)  # A
    for item, row in enumerate(counts):
        strongest = sorted(range(n_items), key=lambda other: (-row[other], other))[:20]
        lists[item, [other for other in strongest if row[other] > 0]] = 1
    np.fill_diagonal(lists, 0)  # B
    degree = lists.sum(axis=1)
    assert len(set(degree)) > 3, "the two sides of the normalisation should differ"
    root = np.where(degree > 0, 1 / np.sqrt(np.maximum(degree, 1)), 0)
    step = root[:, None] * lists * root  # P
    x = np.where(known[:, None], features, 0).astype(np.float64)
    for _ in range(3):
        x = step @ x
        x[known] = features[known]
    nothing = ~known & ~x.any(axis=1)
    assert nothing.any()
    x[nothing] = features[known].mean(axis=0, dtype=np.float64)
    got = FeatProp().fit(interactions).transform(features, known)
    np.testing.assert_allclose(got, x, rtol=1e-5, atol=1e-6)


def test_neigh_mean_is_the_sum_over_the_list_divided_by_its_length() -> None:
    interactions = catalogue()
    n_items = interactions.shape[1]
    features = np.random.default_rng(2).standard_normal((n_items, 5)).astype(np.float32)
    known = np.arange(n_items) % 3 == 0
    lists = (co_interaction(interactions, 20).toarray() > 0).astype(np.float64)
    expected = lists @ np.where(known[:, None], features, 0) / 20
    rows = ~known & expected.any(axis=1)
    got = NeighMean().fit(interactions).transform(features, known)
    np.testing.assert_allclose(got[rows], expected[rows], rtol=1e-5, atol=1e-6)


def test_senders_without_a_row_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    chain = sparse.diags([np.ones(4)], [-1], format="csr")
    assert FeatProp().operator(chain)[1].nnz == 0
    assert "got 1 without; give edges in both directions" in caplog.text


def test_reach_counts_steps_and_survives_long_ways() -> None:
    n_items = 400  # a float32 weight of 20^-400 would vanish
    chain = sparse.diags([np.full(n_items - 1, 1e-30)], [-1], format="csr")
    observed = torch.arange(n_items) == 0
    for layers in (1, 3, 399):
        assert reach(chain, observed, layers).sum() == layers + 1
    assert reach(chain, observed).all()
    assert reach(chain.T.tocsr(), observed).sum() == 1


# ------------------------------------------------------------------------------------ convergence


def test_converge_equals_a_dense_solve_and_many_layers(
    interactions: sparse.csr_matrix, features: np.ndarray
) -> None:
    method = FeatProp(layers="converge", top_k=6, fallback="zeros", tolerance=1e-9).fit(
        interactions
    )
    got = method.transform(features)
    observed = ~np.isnan(features).any(axis=1)
    reached = reach(method.operator_, torch.from_numpy(observed)).numpy()
    solved = reached & ~observed
    assert 0 < solved.sum() < (~observed).sum(), "both kinds of missing items should be there"
    dense = method.operator_.toarray().astype(np.float64)
    right = dense[np.ix_(solved, observed)] @ features[observed]
    system = np.eye(solved.sum()) - dense[np.ix_(solved, solved)]
    np.testing.assert_allclose(got[solved], np.linalg.solve(system, right), rtol=1e-5, atol=1e-6)
    assert (got[~reached] == 0).all()
    many = FeatProp(layers=3000, top_k=6, fallback="zeros").fit(interactions).transform(features)
    np.testing.assert_allclose(got, many, rtol=1e-4, atol=1e-5)
    few = FeatProp(layers=2, top_k=6, fallback="zeros").fit(interactions).transform(features)
    assert np.abs(few - many).max() > 1e-2, "2 layers would do as well: the test shows nothing"


def test_converge_reports_and_obeys_its_tolerance(
    interactions: sparse.csr_matrix, features: np.ndarray
) -> None:
    reports = []
    for tolerance in (1e-2, 1e-8):
        method = FeatProp(layers="converge", top_k=6, tolerance=tolerance).fit(interactions)
        method.transform(features)
        reports.append(method.report_["X"])
        assert 0 < reports[-1]["residual"] <= tolerance
        assert reports[-1]["reached"] + reports[-1]["unreached"] == reports[-1]["missing"]
    assert 1 <= reports[0]["iterations"] < reports[1]["iterations"] < 100


def test_converge_that_fails_says_so(
    interactions: sparse.csr_matrix,
    features: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(fixed_point, "__defaults__", (1,))
    method = FeatProp(layers="converge", top_k=6, tolerance=1e-8).fit(interactions)
    method.transform(features)
    residual = method.report_["X"]["residual"]
    assert residual > 1e-8
    assert f"must converge to a residual of 1e-08, got {residual:.3g}" in caplog.text


def random_lists(n: int, k: int, seed: int) -> sparse.csr_matrix:
    cols = np.random.default_rng(seed).integers(0, n, (n, k)).ravel()
    return sparse.csr_matrix((np.ones(n * k), (np.repeat(np.arange(n), k), cols)), shape=(n, n))


def grid(side: int) -> sparse.csr_matrix:
    line = sparse.diags([np.ones(side - 1)] * 2, [-1, 1])
    return sparse.kronsum(line, line).tocsr()


@pytest.mark.parametrize(
    ("graph", "known"),
    [
        (sparse.diags([np.ones(199), [1.0]], [-1, 199], format="csr"), [0]),
        (sparse.diags([np.ones(199)] * 2, [-1, 1], format="csr"), [0, 199]),
        (grid(20), [0, 1, 399]),
        (random_lists(300, 1, 0), range(40)),
        (random_lists(300, 3, 0), [0]),
        (sparse.diags([np.ones(199), np.full(199, 1.0)], [1, -2], shape=(200, 200)), [0]),
    ],
    ids=["one way", "path", "grid", "tree", "lists", "drift"],
)
def test_equilibrium_on_awkward_graphs(graph: sparse.csr_matrix, known: Any) -> None:
    operator = FeatProp(layers="converge").operator(graph)
    observed = torch.zeros(graph.shape[0], dtype=torch.bool)
    observed[list(known)] = True
    features = torch.randn(graph.shape[0], 3, generator=torch.Generator().manual_seed(0))
    values, reached, details = equilibrium(features, observed, operator, 1e-9)
    assert details["residual"] <= 1e-9
    solved = (reached & ~observed).numpy()
    assert solved.any()
    dense = operator.toarray().astype(np.float64)
    right = dense[np.ix_(solved, observed.numpy())] @ features[observed].numpy()
    expected = np.linalg.solve(np.eye(solved.sum()) - dense[np.ix_(solved, solved)], right)
    np.testing.assert_allclose(values[solved].numpy(), expected, rtol=1e-3, atol=1e-5)


def test_equilibrium_has_the_least_energy_on_a_symmetric_graph(features: np.ndarray) -> None:
    half = random_lists(N_ITEMS, 3, 4)
    graph = ((half + half.T) > 0).astype(np.float64).tocsr()
    observed = torch.from_numpy(~np.isnan(features).any(axis=1))
    clean = torch.nan_to_num(torch.from_numpy(features))
    operator = FeatProp().operator(graph)
    best = equilibrium(clean, observed, operator, 1e-9)[0].numpy()
    least = dirichlet_energy(best, graph)
    assert least < 0.9 * dirichlet_energy(clean, graph)
    generator = np.random.default_rng(5)
    for size in (1e-2, 1e-1):
        step = size * generator.standard_normal(best.shape) * (~observed.numpy())[:, None]
        higher = dirichlet_energy(best + step, graph)
        assert higher > least
        curvature = dirichlet_energy(step, graph)  # energy is quadratic: no linear term is left
        assert higher - least == pytest.approx(curvature, rel=1e-3)


def test_fixed_point_of_columns_that_need_no_work() -> None:
    matrix = sparse.diags([0.5, 0.0, 0.25], format="csr")
    right = np.array([[1.0, 0.0], [2.0, 0.0], [3.0, 0.0]])
    values, iterations, residual = fixed_point(matrix, right, 1e-12)
    np.testing.assert_allclose(values, [[2.0, 0.0], [2.0, 0.0], [4.0, 0.0]], rtol=1e-10)
    assert iterations <= 3
    assert residual <= 1e-12


# ------------------------------------------------------------------------------ published numbers


def test_published_featprop_is_near_its_limit(published: dict[str, Any]) -> None:
    """20 published layers are closer to our limit than 3, and 3 than 1."""
    for letter in published["meta"]["modalities"]:
        features, observed = table(published, letter)
        for top_k in (5, 10, 20):
            operator = FeatProp().operator(adjacency(published, top_k))
            limit = equilibrium(features, observed, operator, 1e-8)[0].numpy()
            away = [
                np.abs(limit - published[f"feat_prop__layers{n}_topk{top_k}/{letter}"]).max()
                for n in (1, 3, 20)
            ]
            assert away[0] > away[1] > away[2]
            assert away[2] < 1e-3 * np.abs(limit).max()
