"""LightGCNM against its formulas in dense matrices; no published numbers exist for it."""

from __future__ import annotations

import torch
from helpers import (
    dense_adjacency,
    dense_bpr_and_reg,
    dense_content,
    dense_symmetric,
    model_defaults,
    same_terms_and_gradients,
    tiny_batch,
    tiny_config,
    tiny_dataset,
)

from recbole_missing.model.lightgcnm import LightGCNM


def build(dataset) -> LightGCNM:
    torch.manual_seed(0)
    settings = {"embedding_size": 4, "reg_weight": 0.3, "n_ui_layers": 3}
    return LightGCNM(tiny_config(**{**model_defaults("LightGCNM"), **settings}), dataset)


def dense_nodes(model, dataset) -> tuple[torch.Tensor, torch.Tensor]:
    graph = dense_symmetric(dense_adjacency(dataset))
    layer = torch.cat([model.user_embedding, model.item_embedding])
    total = layer
    for _ in range(3):
        layer = graph @ layer
        total = total + layer
    users, items = (total / 4).split([model.n_users, model.n_items])
    content = dense_content(model, dataset)
    return torch.cat([users, model.preference], dim=1), torch.cat([items, content], dim=1)


def test_vectors_and_losses_equal_the_dense_formulas() -> None:
    dataset = tiny_dataset()
    model, batch = build(dataset), tiny_batch(dataset)
    users, items = dense_nodes(model, dataset)
    ours = model.encode()
    torch.testing.assert_close(ours[0], users)
    torch.testing.assert_close(ours[1], items)
    expected = dense_bpr_and_reg(users, items, batch, 0.3)
    same_terms_and_gradients(model, model.loss_terms(batch), expected)


def test_tables_start_as_published() -> None:
    dataset = tiny_dataset(n_users=400, n_items=300)
    model = build(dataset)
    for table in (model.user_embedding, model.item_embedding):
        assert not table[0].any()
        assert abs(float(table.detach()[1:].std()) - 0.1) < 0.01
    limit = (6 / (399 + 4)) ** 0.5  # Xavier uniform
    assert 0.95 * limit < float(model.preference.detach().abs().max()) <= limit
