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

import torch
from torch import Tensor, nn

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

    def bound(self, specific: Tensor, general: Tensor) -> Tensor:
        """Half of the bound, mean over the rows. The model minimises it.

        Args:
            specific, general: the parts of the same items, both ``(rows, d)``.
        """
        other = general.index_select(0, torch.randperm(len(general), device=general.device))
        mean, log_variance = self._gaussian(specific)
        gap = (mean - other).square() - (mean - general).square()
        return 0.5 * (gap / log_variance.exp()).sum(dim=1).mean()

    def negative_log_likelihood(self, specific: Tensor, general: Tensor) -> Tensor:
        """Minus twice the log-likelihood without its constants, mean over the rows.

        The estimator minimises it. Arguments as in :meth:`bound`.
        """
        mean, log_variance = self._gaussian(specific)
        error = (mean - general).square() / log_variance.exp()
        return (error + log_variance).sum(dim=1).mean()

    def _gaussian(self, specific: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of q, both ``(rows, d)``."""
        return self.mean(specific), torch.tanh(self.log_variance(specific))


def _network(size: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(size, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, size))
