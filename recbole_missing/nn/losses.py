"""Losses as pure functions; each states its reduction."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from recbole_missing.nn.distinct import Distinct, shares
from recbole_missing.nn.layers import cached_rows, exp_is_safe, unit_rows


def bpr_loss(users: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
    """-log sigmoid(<u, p> - <u, n>), mean over the batch.

    Args:
        users, positives, negatives: shape ``(batch, d)``.

    Source: Rendle et al., UAI 2009, eq. 4.
    """
    return -F.logsigmoid((users * (positives - negatives)).sum(dim=1)).mean()


def norm_loss(*blocks: Tensor) -> Tensor:
    """(|B_1|_F + |B_2|_F + ...) / rows of B_1, with unsquared Frobenius norms."""
    norms = torch.stack([_Norm.apply(block) for block in blocks])
    return norms.sum() / max(blocks[0].shape[0], 1)


class _Norm(torch.autograd.Function):
    """Frobenius norm whose backward pass goes over the block once; torch's goes three times."""

    @staticmethod
    def forward(ctx: Any, block: Tensor) -> Tensor:
        norm = torch.linalg.vector_norm(block)
        ctx.save_for_backward(block, norm)
        return norm

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        block, norm = ctx.saved_tensors
        scale = torch.where(norm > 0, grad / norm, 0.0)  # a block of zeros has the gradient 0
        return block * scale


def squared_loss(*blocks: Tensor) -> Tensor:
    """(|B_1|_F^2 + |B_2|_F^2 + ...) / 2, a sum over rows; the caller divides."""
    return 0.5 * torch.stack([block.square().sum() for block in blocks]).sum()


def batch_softmax_loss(
    anchors: Tensor,
    others: Tensor,
    temperature: float,
    kept: Tensor,
    ids: Distinct | None = None,
) -> Tensor:
    """-log softmax_b' (<anchor_b, other_b'> / temperature) at b' = b, mean over the kept rows b.

    Args:
        anchors, others: shape ``(n, d)``; not normalised. Row b of both is the positive pair, all
            rows of ``others`` stand in the denominator.
        temperature: divides the inner products.
        kept: bool ``(n,)``, the rows that count. The loss of no rows is zero.
        ids: whose vectors the rows are. A row counts as often as its id. None: every row once.
    """
    counts = _counts(anchors, ids)
    anchors, weights = anchors / temperature, shares(counts * kept)
    agreement = weights @ (anchors * others).sum(dim=1)
    return weighted_log_sum_exp(anchors, others, weights, counts) - agreement


def info_nce(
    anchors: Tensor,
    others: Tensor,
    temperature: float,
    anchor_ids: Distinct | None = None,
    other_ids: Distinct | None = None,
    candidates: Tensor | None = None,
) -> Tensor:
    """-log softmax_j (cos(anchor_r, other_j) / temperature) at j = r, mean over the rows r.

    Row r of both is the positive pair, all rows of ``others`` stand in the denominator. The loss of
    no rows is zero. In a batch the same ids stand in many rows. Then the vectors of its distinct
    ids are enough::

        users, items = distinct(user_ids), distinct(item_ids)
        info_nce(user_vectors[users.ids], item_vectors[items.ids], temperature, users, items)

    Args:
        anchors: shape ``(n_anchors, d)``; normalised here.
        others: shape ``(n_others, d)``; normalised here.
        temperature: divides the cosine.
        anchor_ids: the rows of the batch, in terms of ``anchors``. None: each of these is a row.
        other_ids: the same for ``others``. None: as ``anchor_ids``.
        candidates: shape ``(n, d)``. If given, its rows stand in the denominator instead of
            those of ``others``, each once, for instance all items.

    Nothing of rows x candidates is stored.

    Source: van den Oord et al., 2018, eq. 4, with cosine similarity.
    """
    if len(anchors) == 0:
        return anchors.sum()
    anchors, others = unit_rows(anchors, 1 / temperature), unit_rows(others)
    weights = shares(_counts(anchors, anchor_ids))
    if anchor_ids is None or other_ids is None:
        agreement = weights @ (anchors * others).sum(dim=1)
    else:
        pairs = anchor_ids.spread(anchors), other_ids.spread(others)
        agreement = (pairs[0] * pairs[1]).sum() / len(pairs[0])
    counts: Tensor | None = None
    if candidates is None:
        candidates, counts = others, _counts(others, other_ids or anchor_ids)
    else:
        candidates = unit_rows(candidates)
    bound = 1 / temperature  # of an inner product
    return weighted_log_sum_exp(anchors, candidates, weights, counts, bound) - agreement


def _counts(vectors: Tensor, ids: Distinct | None) -> Tensor:
    """How often each vector counts."""
    return vectors.new_ones(len(vectors)) if ids is None else ids.like(vectors).counts


def weighted_log_sum_exp(
    anchors: Tensor,
    candidates: Tensor,
    weights: Tensor,
    counts: Tensor | None = None,
    bound: float | None = None,
    block_rows: int | None = None,
) -> Tensor:
    """Sum_r w_r log sum_j c_j exp <anchor_r, candidate_j>, one number.

    The anchors are taken in blocks. Each block gives its part of the sum and of the gradients at
    once, so its inner products are computed once and then forgotten.

    Args:
        anchors: shape ``(rows, d)``.
        candidates: shape ``(n, d)``.
        weights: w, shape ``(rows,)``, without gradient. Anchors of weight 0 are left out.
        counts: c >= 0, shape ``(n,)``, without gradient. None: 1 for each candidate.
        bound: of the absolute inner products, if one is known. A small one spares the search for
            the largest inner product of every row.
        block_rows: anchors of a block. The default is what the cache holds, at least 32.
    """
    block_rows = block_rows or cached_rows(len(candidates), anchors, fewest=32)
    total: Tensor = _WeightedLogSumExp.apply(
        anchors, candidates, weights, counts, exp_is_safe(bound), block_rows
    )
    return total


class _WeightedLogSumExp(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        anchors: Tensor,
        candidates: Tensor,
        weights: Tensor,
        counts: Tensor | None,
        is_safe: bool,
        block_rows: int,
    ) -> Tensor:
        total = anchors.new_zeros(())
        ones = candidates.new_ones(len(candidates)) if counts is None else counts
        counted = candidates if counts is None else candidates * counts[:, None]
        to_anchors, to_candidates = torch.empty_like(anchors), torch.zeros_like(candidates)
        blocks = (tensor.split(block_rows) for tensor in (anchors, weights, to_anchors))
        if not is_safe and counts is not None and len(counts) > 0:
            # One of count 0 must not be the largest: it becomes a copy of one that counts.
            counting = candidates.index_select(0, counts.argmax(dim=0, keepdim=True))
            candidates = torch.where(counts[:, None] > 0, candidates, counting)
        for block, weight, to_block in zip(*blocks):
            powers = block @ candidates.T
            if not is_safe and len(candidates) > 0:
                highest = powers.amax(dim=1)
                total += weight @ highest
                powers -= highest[:, None]
            sums = (powers.exp_() @ ones).masked_fill_(weight == 0, 1.0)
            total += weight @ sums.log()
            share = (weight / sums)[:, None]
            torch.mul(powers @ counted, share, out=to_block)
            to_candidates.addmm_(powers.T, block * share)
        if counts is not None:
            to_candidates *= counts[:, None]
        ctx.save_for_backward(to_anchors, to_candidates)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        to_anchors, to_candidates = ctx.saved_tensors
        return grad * to_anchors, grad * to_candidates, None, None, None, None
