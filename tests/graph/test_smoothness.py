"""Dirichlet energy and homophily against their sums, and published homophily."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from helpers import catalogue
from published import adjacency, numbers
from published import published as published
from scipy import sparse

from recbole_missing.graph.item_graph import interaction_graph
from recbole_missing.graph.smoothness import dirichlet_energy, homophily


def test_energy_and_homophily_restate_their_sums() -> None:
    interactions = catalogue()
    n_items = interactions.shape[1]
    graph = interaction_graph(interactions, torch.ones(n_items, dtype=torch.bool), 6)
    x = np.random.default_rng(3).standard_normal((n_items, 40))
    rows, cols = graph.nonzero()
    degree = np.bincount(rows[rows != cols], minlength=n_items)
    y = x / np.sqrt(np.maximum(degree, 1))[:, None] * (degree > 0)[:, None]
    other = rows != cols
    energy = 0.5 * np.square(y[rows[other]] - y[cols[other]]).sum()
    assert dirichlet_energy(torch.from_numpy(x), graph) == pytest.approx(energy, rel=1e-9)
    middle = (x[rows] + x[cols]).mean(axis=0) / 2
    left, right = x[rows] - middle, x[cols] - middle
    expected = (left * right).sum() / np.sqrt(np.square(left).sum() * np.square(right).sum())
    assert homophily(x, graph) == pytest.approx(expected, rel=1e-9)
    assert homophily(np.ones((n_items, 2)), graph) == 0
    assert homophily(x, sparse.csr_matrix((n_items, n_items))) == 0


def test_published_homophily(published: dict[str, Any]) -> None:
    keys = [key for key in published if key.startswith("homophily__")]
    assert keys
    for key in keys:
        graph = adjacency(published, int(numbers(key)["topk"]))
        got = homophily(published[f"feat_{key[-1]}"], graph)
        assert got == pytest.approx(float(published[key]), rel=1e-5), key
