"""Hits of a ranking within a group, by a slow sort, and the order of candidates of equal score."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from recbole_missing.evaluation import within
from recbole_missing.evaluation.within import Ranking

N_ITEMS = 40


def ranking(scores: Tensor, positives: Tensor, k: int) -> Ranking:
    """All users have consecutive ids; ``positives`` is bool of the shape of ``scores``."""
    items = scores.topk(k, dim=1).indices
    users = torch.arange(1, len(scores) + 1)
    return Ranking(scores, users, items, positives.flatten().nonzero()[:, 0])


def slow_hits(scores: Tensor, positives: Tensor, group: Tensor, k: int) -> dict[int, list[bool]]:
    found = {}
    for row in range(len(scores)):
        if not (positives[row] & group).any():
            continue
        candidates = group.nonzero()[:, 0].tolist()
        ranked = sorted(candidates, key=lambda item: -scores[row, item].item())[:k]
        hits = [bool(positives[row, item]) for item in ranked]
        found[row] = hits + [False] * (k - len(hits))
    return found


@pytest.mark.parametrize("block", [1, 3 * N_ITEMS, 2**22])
@pytest.mark.parametrize("k", [1, 3, 12, 40])
@pytest.mark.parametrize("share", [0.05, 0.3, 0.97])
def test_hits_equal_a_slow_sort(
    monkeypatch: pytest.MonkeyPatch, share: float, k: int, block: int
) -> None:
    monkeypatch.setattr(within, "_BLOCK", block)
    generator = torch.Generator().manual_seed(k)
    scores = torch.rand(50, N_ITEMS, generator=generator)
    group = torch.rand(N_ITEMS, generator=generator) < share
    group[[0, 7]] = torch.tensor([False, True])
    positives = torch.rand(50, N_ITEMS, generator=generator) < 0.06
    hidden = (torch.rand(50, N_ITEMS, generator=generator) < 0.2) & ~positives
    scores[hidden] = -torch.inf
    scores[:, 0] = -torch.inf
    rows, hits = ranking(scores, positives, k).hits_within(group, group.nonzero()[:, 0])
    expected = slow_hits(scores, positives, group, k)
    assert expected
    assert dict(zip(rows.tolist(), hits.tolist())) == expected


def lists_of(scores: Tensor, n_candidates: int, k: int) -> Tensor:
    """Candidates at each place for each user, by asking for one candidate after the other."""
    group = torch.zeros(N_ITEMS, dtype=torch.bool)
    group[5 : 5 + n_candidates] = True
    lists = torch.zeros(len(scores), min(k, n_candidates), dtype=torch.long)
    for item in range(5, 5 + n_candidates):
        positives = torch.zeros(scores.shape, dtype=torch.bool)
        positives[:, item] = True
        _, hits = ranking(scores, positives, k).hits_within(group, group.nonzero()[:, 0])
        assert not hits[:, n_candidates:].any()
        lists[hits[:, :n_candidates]] = item
    return lists


@pytest.mark.parametrize("n_candidates", [1, 7, 12])
def test_candidates_of_equal_score_stand_in_a_random_order(
    monkeypatch: pytest.MonkeyPatch, n_candidates: int
) -> None:
    n_users, k = 3000, 3
    scores = torch.zeros(n_users, N_ITEMS)
    lists = lists_of(scores, n_candidates, k)
    assert all(len(set(row)) == min(k, n_candidates) for row in lists.tolist())
    for place in lists.T:
        counts = torch.bincount(place, minlength=N_ITEMS)[5 : 5 + n_candidates]
        assert (counts / n_users - 1 / n_candidates).abs().max() < 0.01
    monkeypatch.setattr(within, "_BLOCK", 1)  # one user at a time
    few = lists_of(scores[:20], n_candidates, k)
    assert few.equal(lists[:20]), "the order does not depend on the batch"


def test_only_candidates_of_equal_score_change_places() -> None:
    scores = torch.full((900, N_ITEMS), 9.0)
    scores[:, 5:13] = torch.tensor([1, 5, 2, 2, 2, 0, -torch.inf, -torch.inf])
    lists = lists_of(scores, 8, 8)
    assert lists[:, 0].eq(6).all()
    assert lists[:, 4].eq(5).all()
    assert lists[:, 5].eq(10).all()
    assert lists[:, 1:4].sort(dim=1).values.eq(torch.tensor([7, 8, 9])).all()
    at_the_cut = torch.bincount(lists_of(scores, 8, 2)[:, 1], minlength=N_ITEMS)[7:10]
    assert (at_the_cut > 50).all(), "a candidate just below the cut has its turn"
    assert at_the_cut.sum() == 900
