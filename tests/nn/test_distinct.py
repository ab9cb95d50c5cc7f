"""Distinct ids of a batch, on a CPU and in the form that a GPU has."""

from __future__ import annotations

import pytest
import torch

from recbole_missing.nn.distinct import distinct, shares


@pytest.mark.parametrize("ids", [[5, 2, 5, 9, 2, 5], [3], [1, 2, 3], [7, 7]])
def test_distinct_ids_are_ascending_and_counted(ids: list[int]) -> None:
    batch = torch.tensor(ids)
    found = distinct(batch)
    assert found.ids.tolist() == sorted(set(ids))
    assert found.counts.tolist() == [ids.count(one) for one in sorted(set(ids))]
    assert torch.equal(found.spread(found.ids[:, None].float())[:, 0], batch.float())


def test_no_ids() -> None:
    found = distinct(torch.zeros(0, dtype=torch.long))
    assert len(found.ids) == len(found.counts) == len(found.numbers) == 0


def test_a_set_holds_the_kept_ids_once() -> None:
    kept = distinct(torch.tensor([5, 2, 5, 9])).once().where(torch.tensor([False, True, True]))
    assert kept.ids.tolist() == [5, 9] and kept.counts.tolist() == [1, 1]
    assert kept.numbers is None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_padding_follows_and_nothing_waits() -> None:
    batch = torch.tensor([5, 2, 5, 9], device="cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = distinct(batch)
        kept = found.once().where(found.ids > 2)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert found.ids.tolist() == [2, 5, 9, 0] and found.counts.tolist() == [1, 2, 1, 0]
    assert torch.equal(found.spread(found.ids[:, None].float())[:, 0], batch.float())
    assert kept.counts.tolist() == [0, 1, 1, 0]


def test_shares_add_up_to_one_or_are_zero() -> None:
    found = distinct(torch.tensor([5, 2, 5, 9]))
    assert shares(found.counts).tolist() == [0.25, 0.5, 0.25]
    assert shares(torch.zeros(3)).tolist() == [0, 0, 0]
    exact = found.where(found.ids > 2).like(torch.ones(1).double()).equal_shares()
    assert exact.dtype == torch.double and exact.tolist() == [0.5, 0.5]
