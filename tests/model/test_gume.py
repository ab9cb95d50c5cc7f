"""GUME's noise, which the golden files set to zero."""

from __future__ import annotations

import torch
from helpers import model_defaults, tiny_config, tiny_dataset

from recbole_missing.model.gume import GUME
from recbole_missing.nn.distinct import distinct
from recbole_missing.nn.losses import info_nce


def test_noisy_copies_are_contrasted(monkeypatch) -> None:
    """Two copies of each view; a user who stands in the batch twice has one noise a copy."""
    settings = {**model_defaults("GUME"), "embedding_size": 4, "taste_temperature": 0.3}
    model = GUME(tiny_config(**settings), tiny_dataset())
    user_ids = torch.tensor([5, 2, 5, 7])
    users = distinct(user_ids)  # 2, 5, 7
    i, t = torch.randn(3, 4), torch.randn(3, 4)
    noise = torch.rand(4, 4, 4)
    draws = iter(noise)
    monkeypatch.setattr(torch, "rand_like", lambda x: next(draws))
    ours = model._taste_contrast(users, i, t, 4)
    i, t = i[users.numbers], t[users.numbers]
    copies = []
    for view, drawn in zip((i, i, t, t), noise):
        unit = drawn / drawn.norm(dim=1, keepdim=True)
        by_user = {user: unit[place] for place, user in enumerate((2, 5, 7))}
        pushed = torch.stack([by_user[user] for user in user_ids.tolist()])
        copies.append(view + 0.1 * view.sign() * pushed)
    expected = info_nce(t, i, 0.3) + info_nce(*copies[:2], 0.3) + info_nce(*copies[2:], 0.3)
    torch.testing.assert_close(ours, expected)
