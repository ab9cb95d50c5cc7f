"""Shared layers against formulas written here."""

from __future__ import annotations

import pytest
import torch
from helpers import dense, tiny_modalities

from recbole_missing.graph.knn import knn_graph
from recbole_missing.graph.normalise import row_sum_norm
from recbole_missing.nn.layers import (
    FrozenFeatures,
    Integration,
    PurifiedItems,
    cached_rows,
    knn_item_graph,
    node_tables,
    perturb,
    stacked_rows,
    trained_features,
    unit_rows,
    xavier_table,
)

NOBODY = torch.zeros(12, dtype=torch.bool)


def test_padding_rows_are_zero_and_do_not_widen_the_distribution() -> None:
    torch.manual_seed(0)
    table = xavier_table(5, 2)
    torch.manual_seed(0)
    without = torch.nn.init.xavier_uniform_(torch.empty(4, 2))
    assert torch.equal(table.detach(), torch.cat([torch.zeros(1, 2), without]))
    torch.manual_seed(0)
    users, items = node_tables(4, 3, 2)
    torch.manual_seed(0)
    nodes = torch.nn.init.xavier_normal_(torch.empty(5, 2))
    assert torch.equal(torch.cat([users[1:], items[1:]]), nodes)
    assert not users[0].any() and not items[0].any()


def test_features_are_copies_in_the_order_of_the_config() -> None:
    modalities = tiny_modalities(12, {"smell": 3, "hue": 4})
    for features in (FrozenFeatures(modalities), trained_features(modalities)):
        assert [name for name, _ in features.items()] == ["smell", "hue"]
        for name, modality in modalities.items():
            assert torch.equal(features[name], modality.features)
            assert features[name].data_ptr() != modality.features.data_ptr()


def test_an_item_graph_hides_new_items_while_it_trains() -> None:
    modality = tiny_modalities(12, {"smell": 6}, missing=0.2)["smell"]
    new_items = NOBODY.clone()
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
    assert knn_item_graph(modality, 4, "imputed", NOBODY).without_new is None


def test_purified_items() -> None:
    modalities = tiny_modalities(12, {"smell": 6, "hue": 5})
    purified = PurifiedItems(modalities, 3, 4, "imputed", NOBODY)
    identities = torch.randn(12, 3)
    for name, smoothed in purified(identities, 2).items():
        first, second, _ = purified.gates[name]
        inner = modalities[name].features @ first.weight.T + first.bias
        gate = 1 / (1 + torch.exp(-(inner @ second.weight.T + second.bias)))
        graph = dense(purified.item_graphs[name].full)
        torch.testing.assert_close(smoothed, graph @ graph @ (identities * gate))


def test_integration() -> None:
    torch.manual_seed(0)
    integration = Integration(3, ["smell", "hue"])
    behaviour, content = torch.randn(4, 3), torch.randn(2, 4, 3)
    inner, _, outer = integration.attention
    logits = torch.tanh(content @ inner.weight.T + inner.bias) @ outer.weight.T
    weights = logits.exp() / logits.exp().sum(dim=0)
    common = weights[0] * content[0] + weights[1] * content[1]
    expected = common
    for gate, vectors in zip(integration.preferences.values(), content):
        liked = 1 / (1 + torch.exp(-(behaviour @ gate.weight.T + gate.bias)))
        expected = expected + liked * (vectors - common)
    torch.testing.assert_close(integration(behaviour, content), expected / 3)


def test_unit_rows_and_their_gradient() -> None:
    """A row shorter than ``eps`` is divided by it; then the gradient does not see its length."""
    torch.manual_seed(0)
    x = torch.randn(2, 4, 3, dtype=torch.float64)
    x[0, 1], x[1, 2] = 0.0, 1e-3
    x.requires_grad_()
    ours = unit_rows(x, length=5.0, eps=0.1)
    expected = 5 * x / x.norm(dim=-1, keepdim=True).clamp(min=0.1)
    torch.testing.assert_close(ours, expected)
    weight = torch.randn_like(x)
    grads = [torch.autograd.grad((unit * weight).sum(), x)[0] for unit in (ours, expected)]
    torch.testing.assert_close(*grads)


def test_stacked_rows() -> None:
    tables, ids = [torch.randn(4, 2), torch.randn(4, 2)], torch.tensor([3, 0, 3])
    assert torch.equal(stacked_rows(tables, ids), torch.stack([table[ids] for table in tables]))


def test_perturb_moves_every_row_by_a_tenth_away_from_zero() -> None:
    torch.manual_seed(0)
    x = torch.randn(6, 4)
    moved = perturb(x) - x
    torch.testing.assert_close(moved.norm(dim=1), torch.full((6,), 0.1))
    assert torch.equal(moved.sign(), x.sign())


def test_perturb_takes_the_first_of_more_draws() -> None:
    x = torch.randn(2, 4)
    torch.manual_seed(0)
    of_more = perturb(x, n_draws=5)
    after = torch.rand(1)
    torch.manual_seed(0)
    five = perturb(torch.cat([x, x, x[:1]]))
    assert torch.equal(of_more, five[:2]) and torch.equal(torch.rand(1), after)


def test_rows_of_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.zeros(1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert cached_rows(2**10, x) == 2**8 and cached_rows(2**10, x, entries=2**19) == 2**9
    assert cached_rows(2**20, x) == 1 and cached_rows(2**20, x, fewest=32) == 32
    assert cached_rows(0, x) == 2**18
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert cached_rows(2**10, x) == 2**9
