"""GRCN against its formulas on single edges, with and without the paper's routing."""

from __future__ import annotations

import pytest
import torch
from helpers import (
    dense_adjacency,
    model_defaults,
    plain_bpr,
    same_terms_and_gradients,
    tiny_batch,
    tiny_config,
    tiny_dataset,
)

from recbole_missing.model.grcn import GRCN

NAMES = ("smell", "text", "hue")


def build(dataset, routing_steps: int) -> GRCN:
    torch.manual_seed(0)
    small = {"embedding_size": 4, "latent_size": 3, "n_ui_layers": 2, "reg_weight": 0.3}
    settings = {**model_defaults("GRCN"), **small, "routing_steps": routing_steps}
    return GRCN(tiny_config(**settings), dataset)


def unit(x: torch.Tensor) -> torch.Tensor:
    return x / x.norm(dim=1, keepdim=True).clamp(min=1e-12)


def attention(adjacency: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Row i holds a(j -> i), a softmax over the neighbours j of i."""
    powers = (x @ x.T).exp() * adjacency
    return powers / powers.sum(dim=1, keepdim=True).clamp(min=1e-30)


def dense_nodes(model, dataset) -> torch.Tensor:
    adjacency = dense_adjacency(dataset)
    confidence = torch.cat([model.user_confidence, model.item_confidence])
    contents, products = [], []
    for position, (name, modality) in enumerate(dataset.modalities.items()):
        projection = model.projections[name]
        projected = modality.features @ projection.weight.T + projection.bias
        items = unit(torch.where(projected > 0, projected, 0.01 * projected))
        users = unit(model.preferences[name])
        for _ in range(model.routing_steps):
            shares = attention(adjacency, torch.cat([users, items]))
            users = unit(users + shares[: model.n_users, model.n_users :] @ items)
        x = torch.cat([users, items])
        shares = attention(adjacency, x)
        contents.append(x + shares @ x)
        products.append(shares * confidence[:, position])  # of the sender, the column
    weights = torch.stack(products).max(dim=0).values.clamp(min=0) * adjacency
    layer = unit(torch.cat([model.user_embedding, model.item_embedding]))
    total = layer
    for _ in range(2):
        layer = weights @ layer
        total = total + layer
    return torch.cat([total, *contents], dim=1)


@pytest.mark.parametrize("routing_steps", [0, 2])
def test_vectors_and_losses_equal_the_dense_formulas(routing_steps: int) -> None:
    dataset = tiny_dataset(NAMES)
    model, batch = build(dataset, routing_steps), tiny_batch(dataset)
    users, items = dense_nodes(model, dataset).split([model.n_users, model.n_items])
    ours = model.encode()
    torch.testing.assert_close(ours[0], users)
    torch.testing.assert_close(ours[1], items)

    u, p, n = batch["user_id"], batch["item_id"], batch["neg_item_id"]
    of_items = torch.cat([model.item_embedding[p], model.item_embedding[n]])
    squares = (model.user_embedding[u] ** 2).mean() + (of_items**2).mean()
    for name in NAMES:
        squares = squares + (model.preferences[name][u] ** 2).mean()
    expected = {
        "bpr": plain_bpr(users, items, batch),
        "reg_batch": 0.3 * squares,
        "reg_all": 0.3 * (model.preferences[NAMES[0]][1:] ** 2).mean(),
    }
    same_terms_and_gradients(model, model.loss_terms(batch), expected)
