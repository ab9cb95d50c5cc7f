"""Each loss, and its gradient, against a plain formula written here."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from recbole_missing.nn.distinct import Distinct, distinct
from recbole_missing.nn.losses import (
    batch_softmax_loss,
    bpr_loss,
    info_nce,
    norm_loss,
    squared_loss,
    weighted_log_sum_exp,
)


@pytest.fixture
def blocks() -> list[Tensor]:
    """Three blocks of five rows that get gradients."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(5, 3, generator=generator).requires_grad_() for _ in range(3)]


def same(ours: Tensor, expected: Tensor, inputs: list[Tensor]) -> None:
    torch.testing.assert_close(ours, expected)
    mine, theirs = (torch.autograd.grad(loss, inputs) for loss in (ours, expected))
    torch.testing.assert_close(mine, theirs)


def unit(x: Tensor) -> Tensor:
    return x / x.norm(dim=1, keepdim=True)


def test_bpr(blocks: list[Tensor]) -> None:
    total = 0.0
    for user, positive, negative in zip(*blocks):
        total = total - torch.log(1 / (1 + torch.exp(user @ negative - user @ positive)))
    same(bpr_loss(*blocks), total / 5, blocks)


def test_norms_are_unsquared_and_divided_by_the_rows_of_the_first_block(
    blocks: list[Tensor],
) -> None:
    two = [blocks[0], torch.cat([blocks[1], blocks[1]])]
    expected = ((blocks[0] ** 2).sum() ** 0.5 + (2 * (blocks[1] ** 2).sum()) ** 0.5) / 5
    same(norm_loss(*two), expected, blocks[:2])


def test_squares_are_halved_and_summed(blocks: list[Tensor]) -> None:
    expected = sum(entry**2 for block in blocks for entry in block.flatten()) / 2
    same(squared_loss(*blocks), expected, blocks)


@pytest.mark.parametrize("kept", [[1, 1, 1, 1, 1], [1, 0, 0, 1, 0], [0, 0, 0, 0, 0]])
def test_batch_softmax(blocks: list[Tensor], kept: list[int]) -> None:
    total = 0.0 * (blocks[0].sum() + blocks[1].sum())
    for row in range(5):
        if kept[row]:
            powers = [torch.exp(blocks[0][row] @ other / 0.3) for other in blocks[1]]
            total = total - torch.log(powers[row] / sum(powers))
    ours = batch_softmax_loss(*blocks[:2], 0.3, torch.tensor(kept).bool())
    same(ours, total / max(sum(kept), 1), blocks[:2])


def test_info_nce(blocks: list[Tensor]) -> None:
    anchors, others = unit(blocks[0]), unit(blocks[1])
    total = 0.0
    for row in range(5):
        powers = [torch.exp(anchors[row] @ other / 0.3) for other in others]
        total = total - torch.log(powers[row] / sum(powers))
    same(info_nce(*blocks[:2], 0.3), total / 5, blocks[:2])


def test_info_nce_over_a_table_counts_the_whole_table(blocks: list[Tensor]) -> None:
    anchors, others, table = blocks[0][:2], blocks[1][:2], blocks[2]
    a, o, t = unit(anchors), unit(others), unit(table)
    total = 0.0
    for row in range(2):
        powers = [torch.exp(a[row] @ candidate / 0.3) for candidate in t]
        total = total - torch.log(torch.exp(a[row] @ o[row] / 0.3) / sum(powers))
    same(info_nce(anchors, others, 0.3, candidates=table), total / 2, blocks)
    torch.testing.assert_close(
        info_nce(anchors, others, 0.3, candidates=others), info_nce(anchors, others, 0.3)
    )


def test_info_nce_of_no_rows_is_zero() -> None:
    nobody = torch.zeros(0, 3, requires_grad=True)
    loss = info_nce(nobody, nobody, 0.3)
    loss.backward()
    assert loss.item() == 0.0 and nobody.grad is not None


USERS, ITEMS = torch.tensor([3, 1, 3, 3, 2]), torch.tensor([4, 4, 1, 4, 2])


def padded(ids: Distinct) -> Distinct:
    """The form that a GPU has: two entries that do not count."""
    longer = torch.cat([ids.ids, torch.zeros(2, dtype=torch.long)])
    return Distinct(longer, torch.cat([ids.counts, torch.zeros(2)]), ids.numbers)


@pytest.mark.parametrize("form", [lambda ids: ids, padded])
@pytest.mark.parametrize("temperature", [0.3, 0.01])  # a bound of the inner products, or none
def test_info_nce_of_distinct_rows_is_that_of_all_rows(form: Any, temperature: float) -> None:
    torch.manual_seed(0)
    tables = [torch.randn(5, 3, dtype=torch.double, requires_grad=True) for _ in range(2)]
    one, other = tables
    users, items = form(distinct(USERS)), form(distinct(ITEMS))
    ours = info_nce(one[users.ids], other[items.ids], temperature, users, items)
    same(ours, info_nce(one[USERS], other[ITEMS], temperature), tables)
    ours = info_nce(one[users.ids], other[users.ids], temperature, users)
    same(ours, info_nce(one[USERS], other[USERS], temperature), tables)
    ours = info_nce(one[users.ids], other[users.ids], temperature, users, candidates=other)
    same(ours, info_nce(one[USERS], other[USERS], temperature, candidates=other), tables)


@pytest.mark.parametrize("form", [lambda ids: ids, padded])
def test_batch_softmax_of_distinct_rows_is_that_of_all_rows(form: Any) -> None:
    torch.manual_seed(0)
    tables = [torch.randn(5, 3, requires_grad=True) for _ in range(2)]
    items, kept = form(distinct(ITEMS)), torch.tensor([True, False, True, False, True])
    ours = batch_softmax_loss(*(table[items.ids] for table in tables), 0.3, kept[items.ids], items)
    expected = batch_softmax_loss(*(table[ITEMS] for table in tables), 0.3, kept[ITEMS])
    same(ours, expected, tables)


@pytest.mark.parametrize("bound", [None, 20.0])
@pytest.mark.parametrize("block_rows", [1, 3, 9, None])
def test_weighted_log_sum_exp_equals_the_dense_one(
    block_rows: int | None, bound: float | None
) -> None:
    torch.manual_seed(0)
    anchors = torch.randn(4, 5, requires_grad=True)
    candidates = torch.randn(7, 5, requires_grad=True)
    weights, counts = torch.tensor([0.5, 0.0, 0.2, 0.3]), torch.tensor([1.0, 2, 0, 1, 3, 1, 1])
    ours = weighted_log_sum_exp(anchors, candidates, weights, counts, bound, block_rows)
    powers = (anchors @ candidates.T).exp() * counts
    same(ours, weights @ powers.sum(dim=1).log(), [anchors, candidates])
    ours = weighted_log_sum_exp(anchors, candidates, weights, None, bound, block_rows)
    dense = torch.logsumexp(anchors @ candidates.T, dim=1)
    same(ours, weights @ dense, [anchors, candidates])


def test_a_candidate_that_does_not_count_is_never_the_largest() -> None:
    """exp(120) would overflow, and 1 / exp(120) vanish."""
    anchors, candidates = torch.tensor([[1.0, 0]]), torch.tensor([[120.0, 0], [0, 0]])
    counts = torch.tensor([0.0, 1])
    assert weighted_log_sum_exp(anchors, candidates, torch.ones(1), counts) == 0


def test_the_gradient_of_norms_is_that_of_torch_and_zero_at_zero():
    blocks = [torch.randn(5, 3), torch.zeros(5, 3)]
    grads = []
    for norm_of in (norm_loss, lambda *b: sum(map(torch.linalg.vector_norm, b)) / 5):
        leaves = [block.clone().requires_grad_() for block in blocks]
        norm_of(*leaves).backward()
        grads.append([leaf.grad for leaf in leaves])
    torch.testing.assert_close(grads[0], grads[1])
    assert not grads[0][1].any()
