"""BM3 against its formulas in dense matrices, dropout and stopped gradients included."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from helpers import (
    dense_adjacency,
    dense_symmetric,
    model_defaults,
    same_terms_and_gradients,
    tiny_batch,
    tiny_config,
    tiny_dataset,
)

from recbole_missing.model.bm3 import BM3


def test_vectors_and_losses_equal_the_dense_formulas() -> None:
    dataset = tiny_dataset(("smell", "text", "hue"))
    torch.manual_seed(0)
    small = {"embedding_size": 4, "n_ui_layers": 2, "reg_weight": 0.3, "cl_weight": 0.7}
    settings = {**model_defaults("BM3"), **small, "dropout": 0.5}
    model, batch = BM3(tiny_config(**settings), dataset), tiny_batch(dataset)

    def predict(x: torch.Tensor) -> torch.Tensor:
        return x @ model.predictor.weight.T + model.predictor.bias

    def apart(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        norms = x.norm(dim=1).clamp(min=1e-8) * y.norm(dim=1).clamp(min=1e-8)
        return 1 - ((x * y).sum(dim=1) / norms).mean()

    graph = dense_symmetric(dense_adjacency(dataset))
    nodes = torch.cat([model.user_embedding, model.item_embedding])
    nodes = (nodes + graph @ nodes + graph @ graph @ nodes) / 3
    users, items = nodes.split([model.n_users, model.n_items])
    items = items + model.item_embedding
    ours = model.eval().encode()
    torch.testing.assert_close(ours[0], predict(users))
    torch.testing.assert_close(ours[1], predict(items))

    torch.manual_seed(1)
    terms = model.train().loss_terms(batch)
    torch.manual_seed(1)
    u, i = users[batch["user_id"]], items[batch["item_id"]]
    user_target, item_target = F.dropout(u.detach(), 0.5), F.dropout(i.detach(), 0.5)
    modal = 0.0
    for name, projection in model.projections.items():
        content = model.features[name] @ projection.weight.T + projection.bias
        content = content[batch["item_id"]]
        own_target = F.dropout(content.detach(), 0.5)
        modal = modal + apart(predict(content), item_target) + apart(predict(content), own_target)
    norms = users[1:].square().sum().sqrt() + items[1:].square().sum().sqrt()
    expected = {
        "graph": apart(predict(u), item_target) + apart(predict(i), user_target),
        "cl": 0.7 * modal,
        "reg": 0.3 * norms / (model.n_items - 1),
    }
    same_terms_and_gradients(model, terms, expected)
