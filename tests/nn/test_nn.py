"""Shared layers against formulas written here."""

from __future__ import annotations

import torch
from helpers import tiny_modalities

from recbole_missing.graph.knn import knn_graph
from recbole_missing.graph.normalise import row_sum_norm
from recbole_missing.nn.layers import knn_item_graph, perturb


def test_an_item_graph_hides_new_items_while_it_trains() -> None:
    modality = tiny_modalities(12, {"smell": 6}, missing=0.2)["smell"]
    new_items = torch.zeros(12, dtype=torch.bool)
    new_items[[2, 9]] = True
    graph = knn_item_graph(modality, 4, "imputed", new_items)
    x = torch.randn(12, 3)
    full = row_sum_norm(knn_graph(modality.features, 4, modality.observed))
    torch.testing.assert_close(graph.eval() @ x, full @ x)
    changed = x.clone()
    changed[new_items] = 100.0
    seen, before = graph.train() @ changed, graph @ x
    assert torch.equal(seen[~new_items], before[~new_items])
    assert torch.equal(seen[new_items], changed[new_items])
    assert knn_item_graph(modality, 4, "imputed", new_items & False).without_new is None


def test_perturb_moves_every_row_by_a_tenth_away_from_zero() -> None:
    torch.manual_seed(0)
    x = torch.randn(6, 4)
    moved = perturb(x) - x
    torch.testing.assert_close(moved.norm(dim=1), torch.full((6,), 0.1))
    assert torch.equal(moved.sign(), x.sign())
    draws = torch.tensor([0, 1, 0, 2, 1, 0])
    noise = ((perturb(x, draws) - x) / x.sign()).abs()
    torch.testing.assert_close(noise[0], noise[2])
    assert not torch.allclose(noise[0], noise[1])
