"""Every model learns: a checkerboard whose withheld diagonal is the only right answer."""

from __future__ import annotations

import pytest
import torch
from helpers import TinyDataset, model_defaults, tiny_config, tiny_modalities

from recbole_missing.model import MODELS

SIZE, SEED = 20, 13


def checkerboard() -> tuple[TinyDataset, torch.Tensor]:
    """User u likes the items of u's parity; item u itself is withheld. Returns the likes too."""
    ids = torch.arange(SIZE)
    likes = (ids[:, None] + ids[None]) % 2 == 0
    users, items = (likes & ~torch.eye(SIZE, dtype=torch.bool)).nonzero(as_tuple=True)
    modalities = tiny_modalities(SIZE + 1, {"smell": 6, "text": 5}, missing=0.3, seed=SEED)
    assert modalities.observed[1:].any(dim=1).all(), "MILK gives items without content no rank"
    return TinyDataset(users + 1, items + 1, SIZE + 1, SIZE + 1, modalities), likes


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_the_withheld_item_ranks_first(name: str) -> None:
    torch.manual_seed(0)
    dataset, likes = checkerboard()
    settings = {**model_defaults(name), "embedding_size": 16, "knn_k": 5}
    model = MODELS[name](tiny_config(**settings), dataset)
    auxiliary = {id(parameter) for parameter in model.auxiliary_parameters()}
    optimizer = torch.optim.Adam([p for p in model.parameters() if id(p) not in auxiliary], 0.01)
    users, items = dataset.inter_feat["user_id"], dataset.inter_feat["item_id"]
    disliked = (~likes).nonzero()[:, 1].view(SIZE, -1)
    for _ in range(30):
        model.train()
        model.on_epoch_start(lambda loss: None)
        for rows in torch.randperm(len(users)).split(32):
            picks = torch.randint(disliked.shape[1], (len(rows),))
            negatives = disliked[users[rows] - 1, picks] + 1
            batch = {"user_id": users[rows], "item_id": items[rows], "neg_item_id": negatives}
            optimizer.zero_grad()
            model.calculate_loss(batch).backward()
            optimizer.step()
    scores = model.eval().full_sort_predict({"user_id": torch.arange(1, SIZE + 1)})
    scores = scores.detach().view(SIZE, SIZE + 1)
    scores[users - 1, items], scores[:, 0] = -torch.inf, -torch.inf
    assert torch.equal(scores.argmax(dim=1), torch.arange(1, SIZE + 1))
