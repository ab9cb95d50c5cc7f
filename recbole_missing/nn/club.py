"""CLUB, an upper bound of the mutual information of two parts of the same rows.

Cheng, Hao, Dai, Liu, Gan and Carin, ICML 2020, as DGMRec uses it: half the bound, and one random
other row in place of all of them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

HIDDEN = 32


class ClubEstimator(nn.Module):
    """Gaussian q(general | specific) for parts ``(rows, 2, d)``."""

    def __init__(self, size: int) -> None:
        """Create both networks, with torch's default initialisation."""
        super().__init__()
        self.mean = _network(size)
        self.log_variance = _network(size)

    def bound(self, parts: Tensor) -> Tensor:
        """Half the bound, mean over rows: distance to another row's general part minus own."""
        general, specific = parts.unbind(dim=1)
        other = general.index_select(0, torch.randperm(len(general), device=general.device))
        mean, log_variance = self.mean(specific), torch.tanh(self.log_variance(specific))
        gap = (mean - other).square() - (mean - general).square()
        return 0.5 * (gap / log_variance.exp()).sum(dim=1).mean()

    def negative_log_likelihood(self, parts: Tensor) -> Tensor:
        """What the estimator itself minimises, mean over rows, constants left out."""
        general, specific = parts.unbind(dim=1)
        mean, log_variance = self.mean(specific), torch.tanh(self.log_variance(specific))
        error = (mean - general).square() / log_variance.exp()
        return (error + log_variance).sum(dim=1).mean()


def _network(size: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(size, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, size))
