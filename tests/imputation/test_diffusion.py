"""Diffusions against dense matrices, and their published operators and results."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from helpers import dense_propagation
from published import adjacency, close, numbers, table
from published import published as published
from scipy import linalg, sparse

from recbole_missing.imputation import IMPUTERS
from recbole_missing.imputation.diffusion import Heat, PersPageRank
from recbole_missing.imputation.propagation import GraphImputer, propagate

N_ITEMS = 60
TRUNCATED = ("heat", "pers_page_rank")
UNTRUNCATED = ("heat_untruncated", "pers_page_rank_untruncated")


def diffusion(name: str, layers: int, top_k: int, parameter: float) -> GraphImputer:
    key = "time" if "heat" in name else "alpha"
    settings = {"layers": layers, "top_k": top_k, key: parameter, "fallback": "zeros"}
    return IMPUTERS[name](**settings)


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
@pytest.mark.parametrize("name", UNTRUNCATED)
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


@pytest.mark.parametrize("name", TRUNCATED)
def test_the_whole_way_from_interactions_to_values(
    name: str, interactions: sparse.csr_matrix, features: np.ndarray
) -> None:
    """With the defaults of ``overall.yaml``: top_k 20, 3 steps, alpha 0.1, time 5."""
    method = IMPUTERS[name](fallback="zeros").fit(interactions)
    walk = (method.graph_.toarray() + np.eye(N_ITEMS)) / 21
    operator = dense_truncation(dense_diffusion(name, walk, 5.0 if name == "heat" else 0.1), 20)
    observed = ~np.isnan(features).any(axis=1)
    expected = dense_propagation(np.nan_to_num(features), observed, operator, 3)
    np.testing.assert_allclose(method.transform(features), expected, rtol=1e-5, atol=1e-6)


def test_equal_flows_go_to_smaller_items() -> None:
    """A hub that everybody lists sends the same to all; they differ in their number alone."""
    n_items, hub = 9, 4
    rows = np.concatenate([np.arange(n_items), np.delete(np.arange(n_items), hub)])
    cols = np.concatenate([np.arange(n_items), np.full(n_items - 1, hub)])
    star = sparse.csr_matrix((np.ones(len(rows)), (rows, cols)), shape=(n_items, n_items))
    for method in (PersPageRank(top_k=4), Heat(top_k=4, time=2.0)):
        assert list(method.operator(star)[:, hub].nonzero()[0]) == [0, 1, 2, 4]


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
