"""Item graphs, propagation and its limit, diffusions; the published operators and homophily."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import tiny_modalities
from scipy import linalg, sparse
from sklearn.base import clone

from recbole_missing.graph.co_interaction import co_interaction
from recbole_missing.graph.smoothness import dirichlet_energy, homophily
from recbole_missing.imputation.diffusion import (
    Heat,
    HeatUntruncated,
    PersPageRank,
    PersPageRankUntruncated,
)
from recbole_missing.imputation.propagation import (
    FeatProp,
    GraphImputer,
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
TRUNCATED = {"pers_page_rank": PersPageRank, "heat": Heat}


@pytest.fixture
def interactions() -> sparse.csr_matrix:
    """Random interactions; the last three items have none."""
    full = np.random.default_rng(0).random((80, N_ITEMS)) < 0.08
    full[:, -3:] = False
    return sparse.csr_matrix(full.astype(np.float32))


@pytest.fixture
def pair() -> Modalities:
    return tiny_modalities(N_ITEMS, {"image": 7, "text": 3}, missing=0.6)


@pytest.fixture
def features() -> np.ndarray:
    """An array without padding; item 0 is observed, every second one and the last ones are not."""
    values = np.random.default_rng(1).standard_normal((N_ITEMS, 5)).astype(np.float32)
    values[1::2] = np.nan
    values[-3:] = np.nan
    return values


def dense_propagation(
    x: np.ndarray, observed: np.ndarray, operator: np.ndarray, layers: int
) -> np.ndarray:
    """The published loop, restated on dense matrices."""
    start = np.where(observed[:, None], x, 0.0)
    value = start
    for _ in range(layers):
        value = np.where(observed[:, None], start, operator @ value)
    return value


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


def test_energy_and_homophily_restate_their_sums(interactions: sparse.csr_matrix) -> None:
    graph = FeatProp(top_k=6).fit(interactions).graph_
    x = np.random.default_rng(3).standard_normal((N_ITEMS, 40))
    rows, cols = graph.nonzero()
    degree = np.bincount(rows[rows != cols], minlength=N_ITEMS)
    y = x / np.sqrt(np.maximum(degree, 1))[:, None] * (degree > 0)[:, None]
    other = rows != cols
    energy = 0.5 * np.square(y[rows[other]] - y[cols[other]]).sum()
    assert dirichlet_energy(torch.from_numpy(x), graph) == pytest.approx(energy, rel=1e-9)
    middle = (x[rows] + x[cols]).mean(axis=0) / 2
    left, right = x[rows] - middle, x[cols] - middle
    expected = (left * right).sum() / np.sqrt(np.square(left).sum() * np.square(right).sum())
    assert homophily(x, graph) == pytest.approx(expected, rel=1e-9)
    assert homophily(np.ones((N_ITEMS, 2)), graph) == 0
    assert homophily(x, sparse.csr_matrix((N_ITEMS, N_ITEMS))) == 0


# -------------------------------------------------------------------------------------- diffusion


def diffusion(name: str, layers: int, top_k: int, parameter: float) -> GraphImputer:
    key = "time" if "heat" in name else "alpha"
    settings = {"layers": layers, "top_k": top_k, key: parameter, "fallback": "zeros"}
    return METHODS[name](**settings)


def dense_diffusion(name: str, walk: np.ndarray, parameter: float) -> np.ndarray:
    identity = np.eye(len(walk))
    if "heat" in name:
        return linalg.expm(-parameter * (identity - walk))
    return parameter * np.linalg.inv(identity - (1 - parameter) * walk)


def dense_truncation(diffusion: np.ndarray, top_k: int) -> np.ndarray:
    kept = np.zeros_like(diffusion)
    for source in range(len(diffusion)):
        column = np.where(diffusion[:, source] < 1e-10, 0, diffusion[:, source])
        largest = np.argsort(-np.round(column, 9), kind="stable")[:top_k]
        kept[largest, source] = column[largest] / column[largest].sum()
    return kept


@pytest.mark.parametrize("parameter", [0.05, 0.5, 1.0])
@pytest.mark.parametrize("top_k", [3, 10, 100])
@pytest.mark.parametrize("name", TRUNCATED)
def test_truncated_diffusion(
    name: str, top_k: int, parameter: float, interactions: sparse.csr_matrix
) -> None:
    parameter = 20 * parameter if name == "heat" else parameter
    method = diffusion(name, 2, top_k, parameter).fit(interactions)
    walk = (method.graph_.toarray() + np.eye(N_ITEMS)) / (top_k + 1)
    expected = dense_truncation(dense_diffusion(name, walk, parameter), top_k)
    operator = method.operator_
    assert operator.getnnz(axis=0).max() <= top_k
    np.testing.assert_allclose(operator.sum(axis=0), 1.0)
    np.testing.assert_allclose(operator.toarray(), expected, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("name", ["pers_page_rank_untruncated", "heat_untruncated"])
def test_untruncated_diffusion(
    name: str, layers: int, interactions: sparse.csr_matrix, features: np.ndarray
) -> None:
    parameter = 4.0 if "heat" in name else 0.1
    method = diffusion(name, layers, 30, parameter).fit(interactions)
    assert len(set(method.graph_.getnnz(axis=1))) > 2, "degrees should differ"
    looped = method.graph_.toarray() + np.eye(N_ITEMS)
    walk = looped / looped.sum(axis=1, keepdims=True)
    observed = ~np.isnan(features).any(axis=1)
    expected = dense_propagation(
        np.nan_to_num(features), observed, dense_diffusion(name, walk, parameter), layers
    )
    np.testing.assert_allclose(method.transform(features), expected, rtol=1e-5, atol=2e-6)
    assert method.report_["X"]["error"] <= 1e-7


def test_equal_flows_go_to_smaller_items() -> None:
    """A hub that everybody lists sends the same to all; they differ in their number alone."""
    n_items, hub = 9, 4
    rows = np.concatenate([np.arange(n_items), np.delete(np.arange(n_items), hub)])
    cols = np.concatenate([np.arange(n_items), np.full(n_items - 1, hub)])
    star = sparse.csr_matrix((np.ones(len(rows)), (rows, cols)), shape=(n_items, n_items))
    for method in (PersPageRank(top_k=4), Heat(top_k=4, time=2.0)):
        assert list(method.operator(star)[:, hub].nonzero()[0]) == [0, 1, 2, 4]


def test_fixed_point_of_columns_that_need_no_work() -> None:
    matrix = sparse.diags([0.5, 0.0, 0.25], format="csr")
    right = np.array([[1.0, 0.0], [2.0, 0.0], [3.0, 0.0]])
    values, iterations, residual = fixed_point(matrix, right, 1e-12)
    np.testing.assert_allclose(values, [[2.0, 0.0], [2.0, 0.0], [4.0, 0.0]], rtol=1e-10)
    assert iterations <= 3
    assert residual <= 1e-12


# ------------------------------------------------------------------------------ published numbers


@pytest.fixture(scope="module")
def published(request: pytest.FixtureRequest) -> dict[str, Any]:
    path: Path = request.config.getoption("golden_dir") / "imputation.npz"
    if not path.is_file():
        pytest.skip(f"{path} is absent")
    with np.load(path) as stored:
        return {**dict(stored), "meta": json.loads(str(stored["meta"]))}


def numbers(key: str) -> dict[str, float]:
    """``op__heat_topk10_time5.0`` -> topk 10, time 5.0."""
    return {word: float(n) for word, n in re.findall(r"([a-z]+)(\d+(?:\.\d+)?)", key)}


def adjacency(npz: dict[str, Any], top_k: int) -> sparse.csr_matrix:
    rows, cols = npz[f"adj__topk{top_k}_row"], npz[f"adj__topk{top_k}_col"]
    shape = (int(npz["n_items"]),) * 2
    return sparse.csr_matrix((np.ones(len(rows)), (rows, cols)), shape=shape)


def table(npz: dict[str, Any], letter: str) -> tuple[torch.Tensor, torch.Tensor]:
    features = torch.from_numpy(npz[f"feat_{letter}"])
    observed = torch.ones(len(features), dtype=torch.bool)
    observed[npz[f"missing_{letter}"]] = False
    return features, observed


def close(actual: Any, expected: np.ndarray, key: str) -> None:
    np.testing.assert_allclose(
        actual, expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max(), err_msg=key
    )


def imputer(method: str, values: dict[str, float]) -> GraphImputer:
    parameter = values["time" if method == "heat" else "alpha"]
    layers = int(values.get("layers", 1))
    return diffusion(method, layers, int(values["topk"]), parameter)


@pytest.mark.parametrize("method", TRUNCATED)
def test_published_results_from_published_operators(method: str, published: dict[str, Any]) -> None:
    keys = [key for key in published if key.startswith(f"{method}__")]
    assert keys
    for key in keys:
        operator = key.split("/")[0].replace(f"{method}__", f"op__{method}_")
        operator = re.sub(r"_layers\d+", "", operator)
        features, observed = table(published, key[-1])
        layers = int(numbers(key)["layers"])
        dense = sparse.csr_matrix(published[operator].astype(np.float64))
        close(propagate(features, observed, dense, layers)[0], published[key], key)


@pytest.mark.parametrize("method", TRUNCATED)
def test_published_operators_and_results_from_the_published_graph(
    method: str, published: dict[str, Any]
) -> None:
    ties = published["meta"]["ties"]
    operators = {
        name: values for name, values in ties.items()
        if name.startswith(f"{method}_") and values["safe_from_adjacency"]
    }  # fmt: skip
    assert operators, "no setting is free of ties"
    for name in operators:
        values = numbers(name)
        top_k = int(values["topk"])
        operator = imputer(method, values).operator(adjacency(published, top_k))
        (stored,) = (
            key for key in published if key.startswith(f"op__{method}") and numbers(key) == values
        )
        close(operator.toarray(), published[stored], stored)
        for key in published:
            found = numbers(key)
            layers = found.pop("layers", 0)
            if key.startswith(f"{method}__") and found == values:
                features, observed = table(published, key[-1])
                got = propagate(features, observed, operator, int(layers))[0]
                close(got, published[key], key)


@pytest.mark.parametrize("method", TRUNCATED)
def test_published_operators_keep_the_same_amounts_where_ties_decide(
    method: str, published: dict[str, Any]
) -> None:
    """Which of several equal receivers is kept is free; how much they get is not."""
    for key in published:
        if key.startswith(f"op__{method}_"):
            values = numbers(key)
            graph = adjacency(published, int(values["topk"]))
            ours = imputer(method, values).operator(graph).toarray()
            close(np.sort(ours, axis=0), np.sort(published[key], axis=0), key)


def test_published_homophily(published: dict[str, Any]) -> None:
    keys = [key for key in published if key.startswith("homophily__")]
    assert keys
    for key in keys:
        graph = adjacency(published, int(numbers(key)["topk"]))
        got = homophily(published[f"feat_{key[-1]}"], graph)
        assert got == pytest.approx(float(published[key]), rel=1e-5), key


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
