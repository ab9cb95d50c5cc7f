"""The CLUB estimator against its formulas, row by row."""

from __future__ import annotations

import pytest
import torch

from recbole_missing.nn import layers
from recbole_missing.nn.club import ClubEstimator


def test_bound_and_likelihood() -> None:
    torch.manual_seed(0)
    club = ClubEstimator(3)
    specific, general = torch.randn(5, 3), torch.randn(5, 3)
    torch.manual_seed(1)
    other = general[torch.randperm(5)]
    torch.manual_seed(1)
    bound, likelihood = 0.0, 0.0
    for x, y, y_other in zip(specific, general, other):
        mean, log_variance = club.mean(x), torch.tanh(club.log_variance(x))
        variance = torch.exp(log_variance)
        gap = (mean - y_other) ** 2 - (mean - y) ** 2
        bound = bound + (gap / variance).sum() / 2 / 5
        likelihood = likelihood + ((mean - y) ** 2 / variance + log_variance).sum() / 5
    parts = torch.cat([general, specific], dim=1)
    padding = torch.randn(1, 6)
    torch.manual_seed(1)
    torch.testing.assert_close(club.bound(torch.cat([padding, parts])), bound)
    torch.testing.assert_close(club.negative_log_likelihood(specific, general), likelihood)


def test_both_networks_have_a_hidden_layer_with_relu() -> None:
    club = ClubEstimator(3)
    first, _, second = club.mean
    x = torch.randn(5, 3)
    hidden = (x @ first.weight.T + first.bias).clamp(min=0)
    torch.testing.assert_close(club.mean(x), hidden @ second.weight.T + second.bias)


def test_gradient_of_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "CPU_BLOCK", 4)  # the last block is shorter
    torch.manual_seed(0)
    club = ClubEstimator(3).double()
    parts = torch.randn(11, 6, dtype=torch.float64, requires_grad=True)  # row 0 is padding
    torch.manual_seed(1)
    order = torch.randperm(10)
    general, specific = parts[1:].chunk(2, dim=1)
    mean, log_variance = club.mean(specific), torch.tanh(club.log_variance(specific))
    gap = (mean - general[order]) ** 2 - (mean - general) ** 2
    plain = (gap / log_variance.exp()).sum() / 2 / 10
    torch.manual_seed(1)
    fast = club.bound(parts)
    gradients = [torch.autograd.grad(3 * loss, parts)[0] for loss in (fast, plain)]
    torch.testing.assert_close(fast, plain)
    torch.testing.assert_close(*gradients)
