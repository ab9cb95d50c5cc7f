"""Shared losses and layers against formulas written here."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from helpers import tiny_modalities

from recbole_missing.graph.knn import knn_graph
from recbole_missing.graph.normalise import row_sum_norm
from recbole_missing.nn.layers import knn_item_graph, perturb
from recbole_missing.nn.losses import info_nce, log_sum_exp


@pytest.mark.parametrize("block_entries", [1, 12, 400])
def test_streamed_log_sum_exp_equals_the_dense_one(block_entries: int) -> None:
    torch.manual_seed(0)
    anchors = torch.randn(4, 5, requires_grad=True)
    candidates = (3 * torch.randn(7, 5)).requires_grad_()
    weight = torch.randn(4)
    ours = log_sum_exp(anchors, candidates, block_entries)
    dense = torch.logsumexp(anchors @ candidates.T, dim=1)
    torch.testing.assert_close(ours, dense)
    for mine, theirs in zip(
        torch.autograd.grad((ours * weight).sum(), (anchors, candidates)),
        torch.autograd.grad((dense * weight).sum(), (anchors, candidates)),
    ):
        torch.testing.assert_close(mine, theirs)


def test_info_nce_over_a_table_counts_the_whole_table() -> None:
    torch.manual_seed(0)
    anchors, others, table = torch.randn(3, 4), torch.randn(3, 4), torch.randn(9, 4)
    normal = [F.normalize(x) for x in (anchors, others, table)]
    positive = (normal[0] * normal[1]).sum(dim=1) / 0.3
    expected = (torch.logsumexp(normal[0] @ normal[2].T / 0.3, dim=1) - positive).mean()
    torch.testing.assert_close(info_nce(anchors, others, 0.3, candidates=table), expected)
    torch.testing.assert_close(
        info_nce(anchors, others, 0.3, candidates=others), info_nce(anchors, others, 0.3)
    )


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
