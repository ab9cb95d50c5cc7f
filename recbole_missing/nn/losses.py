"""Losses as pure functions; each states its reduction."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def bpr_loss(users: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
    """-log sigmoid(<u, p> - <u, n>), mean over the batch.

    Args:
        users, positives, negatives: shape ``(batch, d)``.

    Source: Rendle et al., UAI 2009, eq. 4.
    """
    return -F.logsigmoid((users * (positives - negatives)).sum(dim=1)).mean()


def norm_loss(*blocks: Tensor) -> Tensor:
    """(|B_1|_F + |B_2|_F + ...) / rows of B_1, with unsquared Frobenius norms."""
    norms = torch.stack([torch.linalg.vector_norm(block) for block in blocks])
    return norms.sum() / max(blocks[0].shape[0], 1)


def squared_loss(*blocks: Tensor) -> Tensor:
    """(|B_1|_F^2 + |B_2|_F^2 + ...) / 2, a sum over rows; the caller divides."""
    return 0.5 * torch.stack([block.square().sum() for block in blocks]).sum()


def cosine_loss(online: Tensor, target: Tensor) -> Tensor:
    """1 - cos(online, target), mean over rows; norms are clamped below at 1e-8.

    Args:
        online, target: shape ``(rows, d)``.
    """
    return 1.0 - F.cosine_similarity(online, target, dim=-1, eps=1e-8).mean()


def batch_softmax_loss(anchors: Tensor, others: Tensor, temperature: float, kept: Tensor) -> Tensor:
    """-log softmax_b' (<anchor_b, other_b'> / temperature) at b' = b, mean over the kept rows b.

    Args:
        anchors, others: shape ``(batch, d)``; not normalised. Row b of both is the positive pair,
            all rows of ``others`` stand in the denominator.
        temperature: divides the inner products.
        kept: bool ``(batch,)``, the rows that count. The loss of no rows is zero.
    """
    positives = torch.arange(len(anchors), device=anchors.device)
    losses = F.cross_entropy(anchors @ others.T / temperature, positives, reduction="none")
    return torch.where(kept, losses, 0.0).sum() / kept.sum().clamp(min=1)


def info_nce(
    anchors: Tensor, others: Tensor, temperature: float, candidates: Tensor | None = None
) -> Tensor:
    """-log softmax_j (cos(anchor_r, other_j) / temperature) at j = r, mean over rows r.

    Args:
        anchors, others: shape ``(rows, d)``; normalised here. Row r of both is the positive pair,
            all rows of ``others`` stand in the denominator. The loss of no rows is zero.
        temperature: divides the cosine.
        candidates: shape ``(n, d)``. If given, its rows stand in the denominator instead of
            those of ``others``, for instance all items. Nothing of ``rows x n`` is stored.

    Source: van den Oord et al., 2018, eq. 4, with cosine similarity.
    """
    if anchors.shape[0] == 0:
        return anchors.sum()
    anchors = F.normalize(anchors, eps=1e-12) / temperature
    others = F.normalize(others, eps=1e-12)
    rivals = others if candidates is None else F.normalize(candidates, eps=1e-12)
    return (log_sum_exp(anchors, rivals) - (anchors * others).sum(dim=1)).mean()


def log_sum_exp(anchors: Tensor, candidates: Tensor, block_entries: int | None = None) -> Tensor:
    """Log sum_j exp <anchor_r, candidate_j> of every row r, shape ``(rows,)``.

    The candidates are taken in blocks, and the backward pass computes each block again. So the
    memory is that of one block.

    Args:
        anchors: shape ``(rows, d)``, at least one.
        candidates: shape ``(n, d)``, at least one.
        block_entries: inner products of one block. The default is 2^18 on a CPU (1 MiB, which its
            cache holds) and 2^26 on a GPU, where few large blocks are faster.
    """
    entries = block_entries or (2**18 if anchors.device.type == "cpu" else 2**26)
    logs: Tensor = _LogSumExp.apply(anchors, candidates, max(1, entries // len(anchors)))
    return logs


class _LogSumExp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, anchors: Tensor, candidates: Tensor, block_size: int) -> Tensor:
        logs = anchors.new_full((anchors.shape[0],), -torch.inf)
        for block in candidates.split(block_size):
            logs = torch.logaddexp(logs, torch.logsumexp(anchors @ block.T, dim=1))
        ctx.block_size = block_size
        ctx.save_for_backward(anchors, candidates, logs)
        return logs

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        anchors, candidates, logs = ctx.saved_tensors
        to_anchors, to_candidates = torch.zeros_like(anchors), []
        for block in candidates.split(ctx.block_size):
            shares = (anchors @ block.T).sub_(logs[:, None]).exp_().mul_(grad[:, None])
            to_anchors.addmm_(shares, block)
            to_candidates.append(shares.T @ anchors)
        return to_anchors, torch.cat(to_candidates), None
