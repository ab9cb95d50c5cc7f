"""CLUB: an upper bound of the mutual information between two vectors of the same item.

Paper: Cheng, Hao, Dai, Liu, Gan and Carin, "CLUB: A Contrastive Log-ratio Upper Bound of Mutual
Information", ICML 2020, https://arxiv.org/abs/2006.12013. DGMRec uses half of the bound and
compares a row with one random other row instead of all of them.

For rows i of specific parts x_i and general parts y_i, and a random permutation pi of the rows:

    mu_i    = L2 relu(L1 x_i)                          -> ClubEstimator.mean
    v_i     = exp(tanh(L4 relu(L3 x_i)))               -> ClubEstimator.log_variance, exp
    bound   = mean_i 1/2 sum_d ((mu_i - y_pi(i))^2 - (mu_i - y_i)^2) / v_i         -> .bound
    loss    = mean_i sum_d ((mu_i - y_i)^2 / v_i + log v_i)      -> .negative_log_likelihood
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from recbole_missing.nn.layers import row_blocks

HIDDEN = 32  # width of the hidden layers


class ClubEstimator(nn.Module):
    """Estimates the distribution q(y | x) of a general part y given the specific part x.

    q is a Gaussian with a diagonal covariance. ``size`` is the width d of both parts.
    """

    def __init__(self, size: int) -> None:
        """Create both networks with torch's default initialisation."""
        super().__init__()
        self.mean = _network(size)
        self.log_variance = _network(size)

    def bound(self, parts: Tensor) -> Tensor:
        """Half of the bound, mean over the rows but the first one. The model minimises it.

        The parts get gradients from it. The estimator gets none: its own loss is the other one.

        Args:
            parts: ``(n_items, 2 d)``, the general and the specific part of an item side by side.
                Row 0 is the padding item.
        """
        bound: Tensor = _Bound.apply(parts, self)
        return bound

    def negative_log_likelihood(self, specific: Tensor, general: Tensor) -> Tensor:
        """Minus twice the log-likelihood without its constants, mean over the rows.

        The estimator minimises it.

        Args:
            specific, general: the parts of the same items, both ``(rows, d)``.
        """
        mean, log_variance = self._gaussian(specific)
        error = (mean - general).square() / log_variance.exp()
        return (error + log_variance).sum(dim=1).mean()

    def _gaussian(self, specific: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of q, both ``(rows, d)``."""
        return self.mean(specific), torch.tanh(self.log_variance(specific))


class _Bound(torch.autograd.Function):
    """The bound of the parts of all rows, and its gradients, in one pass over blocks of rows.

    As (mu - y')^2 - (mu - y)^2 = (y - y') (2 mu - y - y'), a row's terms of the sum are
    t = (y - y') (2 mu - y - y') / v. Half of them has the derivatives (y - y') / v for mu,
    -t / 2 for log v, (mu - y) / v for y, and -(mu - y') / v for y'.
    """

    @staticmethod
    def forward(ctx: Any, parts: Tensor, club: ClubEstimator) -> Tensor:
        to_parts = torch.empty_like(parts)
        to_parts[:1] = 0
        general, specific = parts[1:].chunk(2, dim=1)
        to_general, to_specific = to_parts[1:].chunk(2, dim=1)
        order = torch.randperm(len(general), device=parts.device)
        others = general.index_select(0, order)
        to_others = torch.empty_like(others)
        total = parts.new_zeros(())
        tables = specific, general, others, to_specific, to_general, to_others
        for x, y, other, to_x, to_y, to_other in row_blocks(*tables):
            hidden, mean = _run(club.mean, x)
            hidden_v, log_variance = _run(club.log_variance, x)
            log_variance.tanh_()
            precision = log_variance.neg().exp_()
            to_mean = (y - other).mul_(precision)
            terms = torch.sub(mean, y).add_(mean).sub_(other).mul_(to_mean)
            total += terms.sum()
            to_log_variance = log_variance.square_().sub_(1).mul_(terms).mul_(0.5)  # through tanh
            torch.sub(mean, y, out=to_y).mul_(precision)
            torch.add(to_y, to_mean, out=to_other)
            torch.add(
                _run_back(club.mean, hidden, to_mean),
                _run_back(club.log_variance, hidden_v, to_log_variance),
                out=to_x,
            )
        inverse = torch.empty_like(order)
        inverse[order] = torch.arange(len(order), device=order.device)
        to_general -= to_others.index_select(0, inverse)
        ctx.save_for_backward(to_parts)
        return total * (0.5 / len(general))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (to_parts,) = ctx.saved_tensors
        return to_parts * (grad / (len(to_parts) - 1)), None


def _run(network: nn.Sequential, x: Tensor) -> tuple[Tensor, Tensor]:
    """What the hidden and the last layer of a network give for ``x``."""
    hidden = network[0](x).relu_()
    return hidden, network[2](hidden)


def _run_back(network: nn.Sequential, hidden: Tensor, grad: Tensor) -> Tensor:
    """Gradient for the input of a network, for that of its result."""
    first, _, second, _ = network.parameters()
    return (grad @ second).mul_(hidden.sign()) @ first  # the sign is the slope of relu


def _network(size: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(size, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, size))
