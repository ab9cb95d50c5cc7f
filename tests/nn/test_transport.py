"""Streamed entropic transport against a dense Sinkhorn that follows the definition."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from recbole_missing.nn import transport as streamed
from recbole_missing.nn.transport import mutual_transport, transport

WIDTH, STEPS = 0.2, 10
"""A small width: after ten steps the two couplings still differ."""


@pytest.fixture
def points() -> tuple[Tensor, Tensor]:
    """Two sets of points with different means."""
    generator = torch.Generator().manual_seed(3)
    shape = (301, 12)
    left = (3 * torch.randn(shape, generator=generator)).sigmoid() + 1.0
    return left, (3 * torch.randn(shape, generator=generator)).sigmoid()


@pytest.fixture(autouse=True, params=[0, 150 * 301, 2**26], ids=["none kept", "some", "all"])
def several_blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streamed, "cached_rows", lambda *_, **__: 64)  # does not divide 301
    monkeypatch.setattr(streamed, "_KEPT", request.param)


def dense(rows: Tensor, cols: Tensor, steps: int = STEPS) -> Tensor:
    """The coupling itself, in double precision."""
    distances = torch.cdist(rows.detach().double(), cols.detach().double()).square()
    plan = torch.exp(-distances / WIDTH)
    plan = plan / plan.sum()
    for _ in range(steps):
        plan = plan / plan.sum(dim=1, keepdim=True) / len(rows)
        plan = plan / plan.sum(dim=0, keepdim=True) / len(cols)
    return plan * len(rows)


@pytest.mark.parametrize("steps", [1, 2, STEPS])
def test_transport_is_a_dense_coupling_times_the_columns(points, steps) -> None:
    rows, cols = points
    expected = dense(rows, cols, steps) @ cols.double()
    torch.testing.assert_close(
        transport(rows, cols, WIDTH, steps).double(), expected, rtol=1e-5, atol=0
    )


@pytest.mark.parametrize("steps", [1, 2, STEPS])
def test_mutual_transport_is_transport_both_ways(points, steps) -> None:
    left, right = points
    to_left, to_right = mutual_transport(left, right, WIDTH, steps)
    torch.testing.assert_close(to_left, transport(left, right, WIDTH, steps))
    torch.testing.assert_close(to_right, transport(right, left, WIDTH, steps))
    transposed = dense(left, right, steps).T @ left.double()
    assert (to_right - transposed).abs().max() > 1e-3, "the two couplings are no transposes"


def test_gradients_flow_through_the_averaged_points_alone(points) -> None:
    left, right = (x.clone().requires_grad_() for x in points)
    weights = torch.randn(2, *left.shape, generator=torch.Generator().manual_seed(4))
    to_right = dense(left, right).T.float() @ weights[0]
    to_left = dense(right, left).T.float() @ weights[1]
    both = mutual_transport(left, right, WIDTH, STEPS)
    got = torch.autograd.grad(sum((w * x).sum() for w, x in zip(weights, both)), (left, right))
    torch.testing.assert_close(got, (to_left, to_right))
    alone = (weights[0] * transport(left, right, WIDTH, STEPS)).sum()
    got = torch.autograd.grad(alone, (left, right), allow_unused=True)
    assert got[0] is None or not got[0].any()
    torch.testing.assert_close(got[1], to_right)


def test_far_sets_of_different_sizes_stay_finite() -> None:
    """Here every entry of the plain kernel is zero in float32."""
    rows, cols = torch.rand(70, 64) + 6.0, torch.rand(90, 64)
    moved = transport(rows, cols, 5.0, STEPS)
    assert torch.exp(-torch.cdist(rows, cols).square() / 5.0).max() == 0
    torch.testing.assert_close(moved.sum(dim=0), cols.sum(dim=0))
