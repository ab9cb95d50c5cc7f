"""VBPR against its formulas in plain sums."""

from __future__ import annotations

import torch
from helpers import (
    model_defaults,
    plain_bpr,
    same_terms_and_gradients,
    tiny_batch,
    tiny_config,
    tiny_dataset,
)

from recbole_missing.model.vbpr import VBPR


def test_scores_and_losses_equal_the_plain_formulas() -> None:
    dataset = tiny_dataset(("smell", "text", "hue"))
    torch.manual_seed(0)
    settings = {**model_defaults("VBPR"), "embedding_size": 4, "reg_weight": 0.3}
    model, batch = VBPR(tiny_config(**settings), dataset), tiny_batch(dataset)
    with torch.no_grad():
        model.projection.bias.normal_()  # zero at the start
    features = torch.cat([m.features for m in dataset.modalities.values()], dim=1)
    content = features @ model.projection.weight.T + model.projection.bias
    gamma_u, theta_u = model.user_embedding.split(4, dim=1)
    expected = gamma_u @ model.item_embedding.T + theta_u @ content.T
    users, items = model.encode()
    torch.testing.assert_close(users @ items.T, expected)

    u, p, n = batch["user_id"], batch["item_id"], batch["neg_item_id"]
    both = torch.cat([model.item_embedding, content], dim=1)
    blocks = (model.user_embedding[u], both[p], both[n])
    norms = sum(block.square().sum().sqrt() for block in blocks)
    plain = {
        "bpr": plain_bpr(model.user_embedding, both, batch),
        "reg": 0.3 * norms / len(u),
    }
    same_terms_and_gradients(model, model.loss_terms(batch), plain)
