"""GUME's noise, which the golden files set to zero."""

from __future__ import annotations

import torch
from helpers import model_defaults, tiny_config, tiny_dataset

from recbole_missing.model.gume import GUME, moment_gap
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


def test_a_row_enters_the_moments_as_often_as_it_counts() -> None:
    content, counts = torch.randn(3, 4, 2), torch.tensor([2.0, 0.0, 1.0, 1.0])
    rows = content[:, [0, 0, 2, 3]].flatten(1)
    gaps = []
    for a, b in ((0, 1), (0, 2), (1, 2)):
        gaps.append((rows[a].var() - rows[b].var()).abs() + (rows[a].mean() - rows[b].mean()).abs())
    torch.testing.assert_close(moment_gap(content, counts), sum(gaps) / 3)
    assert moment_gap(content, torch.zeros(4)) == 0
    assert moment_gap(content[:1], counts) == 0
