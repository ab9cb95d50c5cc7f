"""NGCFM against its formulas in dense matrices; no published numbers exist for it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
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

from recbole_missing.model.ngcfm import NGCFM


def build(dataset, dropout: float) -> NGCFM:
    torch.manual_seed(0)
    settings = {"embedding_size": 4, "reg_weight": 0.3, "n_ui_layers": 2, "dropout": dropout}
    model = NGCFM(tiny_config(**{**model_defaults("NGCFM"), **settings}), dataset)
    with torch.no_grad():  # at the start the product of two small vectors is next to nothing
        model.user_embedding.mul_(3)
        model.item_embedding.mul_(3)
    return model


def dense_nodes(model, dataset, dropout: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Wang et al., SIGIR 2019, eq. 7: leaky((A + I) E W_1 + (A E) * E W_2)."""
    adjacency = dense_adjacency(dataset)
    graph, identity = dense_symmetric(adjacency), torch.eye(len(adjacency))
    nodes = torch.cat([model.user_embedding, model.item_embedding])
    total = nodes
    for one, two in zip(model.sum_maps, model.product_maps):
        sums = (graph + identity) @ nodes @ one.weight.T + one.bias
        products = ((graph @ nodes) * nodes) @ two.weight.T + two.bias
        both = sums + products
        output = torch.where(both > 0, both, 0.01 * both)
        output = F.dropout(output, dropout)
        nodes = output / output.norm(dim=1, keepdim=True).clamp(min=1e-12)
        total = total + nodes
    users, items = (total / 3).split([model.n_users, model.n_items])
    content = dense_content(model, dataset)
    return torch.cat([users, model.preference], dim=1), torch.cat([items, content], dim=1)


def test_vectors_equal_the_dense_formulas() -> None:
    dataset = tiny_dataset()
    model = build(dataset, dropout=0.5).eval()  # an evaluation drops nothing
    users, items = dense_nodes(model, dataset, dropout=0.0)
    ours = model.encode()
    torch.testing.assert_close(ours[0], users)
    torch.testing.assert_close(ours[1], items)


def test_losses_equal_the_dense_formulas_under_the_same_dropout() -> None:
    dataset = tiny_dataset()
    model, batch = build(dataset, dropout=0.5).train(), tiny_batch(dataset)
    torch.manual_seed(1)
    ours = model.loss_terms(batch)
    torch.manual_seed(1)
    users, items = dense_nodes(model, dataset, dropout=0.5)
    same_terms_and_gradients(model, ours, dense_bpr_and_reg(users, items, batch, 0.3))


def test_identities_start_as_in_ngcf() -> None:
    model = build(tiny_dataset(n_users=400, n_items=300), dropout=0.0)
    for table, n_rows in ((model.user_embedding, 399), (model.item_embedding, 299)):
        limit = 3 * (6 / (n_rows + 4)) ** 0.5  # Xavier uniform, times the 3 of build
        assert not table[0].any()
        assert 0.95 * limit < float(table.detach().abs().max()) <= 1.0001 * limit
