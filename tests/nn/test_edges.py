"""Operations on learned edges, and their gradients, against dense formulas written here."""

from __future__ import annotations

import pytest
import torch
from helpers import dense, random_matrix

from recbole_missing.graph.normalise import row_sum_norm
from recbole_missing.nn import edges


def test_edge_operations_and_their_gradients_equal_dense_ones() -> None:
    pattern, full = random_matrix(), dense(random_matrix()) != 0
    rows, cols, _ = pattern.edges()
    values = torch.randn(rows.numel(), requires_grad=True)
    right, left = torch.randn(5, 3, requires_grad=True), torch.randn(7, 3, requires_grad=True)
    matrix = torch.zeros(7, 5).index_put((rows, cols), values)
    pairs = [
        (edges.edge_product(pattern, values, right), matrix @ right),
        (edges.edge_t_product(pattern, values, left), matrix.T @ left),
        (edges.edge_dots(pattern, left, right), (left @ right.T)[rows, cols]),
        (edges.edge_softmax(pattern, values), softmax(matrix, full, 1)[rows, cols]),
        (edges.edge_softmax(pattern, values, 0), softmax(matrix, full, 0)[rows, cols]),
        (
            edges.edge_softmax(pattern, values, 0, bound=9.0),
            softmax(matrix, full, 0)[rows, cols],
        ),
    ]
    for ours, expected in pairs:
        torch.testing.assert_close(ours, expected)
        weight = torch.randn(ours.shape)
        inputs = (values, left, right)
        for mine, theirs in zip(
            torch.autograd.grad(
                (ours * weight).sum(), inputs, allow_unused=True, retain_graph=True
            ),
            torch.autograd.grad(
                (expected * weight).sum(), inputs, allow_unused=True, retain_graph=True
            ),
        ):
            assert (mine is None) == (theirs is None)
            if mine is not None:
                torch.testing.assert_close(mine, theirs)


def softmax(matrix: torch.Tensor, present: torch.Tensor, dim: int) -> torch.Tensor:
    return torch.where(present, matrix, torch.tensor(-1e9)).softmax(dim=dim)


def test_a_softmax_of_large_logits_is_finite() -> None:
    pattern = random_matrix()
    logits = torch.randn(pattern.values.numel())
    torch.testing.assert_close(
        edges.edge_softmax(pattern, logits + 1000),
        edges.edge_softmax(pattern, logits),
        rtol=1e-3,
        atol=0,
    )


@pytest.mark.parametrize("dtype", [torch.float, torch.double])
def test_the_values_of_the_pattern_are_not_read(dtype: torch.dtype) -> None:
    pattern = random_matrix()
    rows, cols, _ = pattern.edges()
    pattern.values.fill_(torch.nan)
    left, right = torch.randn(7, 3, dtype=dtype), torch.randn(5, 3, dtype=dtype)
    values = torch.randn(rows.numel(), dtype=dtype, requires_grad=True)
    dots = edges.edge_dots(pattern, left, right)
    torch.testing.assert_close(dots, (left @ right.T)[rows, cols])
    product = edges.edge_product(pattern, values, right)
    (gradient,) = torch.autograd.grad(product.sum(), values)
    assert torch.isfinite(product).all() and torch.isfinite(gradient).all()


def test_edge_dots_without_mkl(monkeypatch: pytest.MonkeyPatch) -> None:
    left, right = torch.randn(7, 3), torch.randn(5, 3)
    expected = edges.edge_dots(random_matrix(), left, right)
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: False)
    pattern = random_matrix()
    torch.testing.assert_close(edges.edge_dots(pattern, left, right), expected)
    torch.testing.assert_close(edges._dots(pattern, left, right, block_size=2), expected)


def test_summed_and_normalised_edges_equal_the_constant_ones() -> None:
    one, other = random_matrix(6, 6, seed=1), random_matrix(6, 6, seed=2)
    both = edges.join_edges([one.edges(), edges.scale_edges(other.edges(), 0.5)])
    x = torch.randn(6, 3)
    full = dense(one) + 0.5 * dense(other)
    torch.testing.assert_close(edges.sum_edges([both], 6) @ x, full @ x)
    rows, cols = full.nonzero(as_tuple=True)
    constant = type(one)(rows, cols, full[rows, cols], (6, 6))
    normalised = edges.sum_edges([edges.row_sum_norm_edges(both, 6)], 6)
    torch.testing.assert_close(normalised.detached() @ x, row_sum_norm(constant) @ x)


def test_row_sums_that_are_not_positive_give_zeros_and_finite_gradients() -> None:
    """Row 1 adds up to a negative number, row 2 to zero."""
    rows, cols = torch.tensor([1, 1, 2, 2, 3]), torch.tensor([1, 2, 1, 2, 3])
    values = torch.tensor([1.0, -3.0, -1.0, 1.0, 4.0], requires_grad=True)
    normalised = edges.row_sum_norm_edges((rows, cols, values), 4)[2]
    normalised.square().sum().backward()
    assert normalised.tolist() == [0, 0, 0, 0, 1]
    assert torch.isfinite(values.grad).all()


def test_the_gradient_flows_through_the_row_sums() -> None:
    matrix = random_matrix(6, 6)
    rows, cols, values = matrix.edges()
    values = values.clone().requires_grad_()
    full = torch.zeros(6, 6).index_put((rows, cols), values)
    roots = full.sum(dim=1).clamp(min=1e-12).sqrt()
    expected = (full / roots[:, None] / roots)[rows, cols]
    has_sum = (full.sum(dim=1) > 0)[cols]
    ours = edges.row_sum_norm_edges((rows, cols, values), 6)[2]
    torch.testing.assert_close(ours[has_sum], expected[has_sum])
    weight = torch.randn(int(has_sum.sum()))
    mine, theirs = (
        torch.autograd.grad((x[has_sum] * weight).sum(), values)[0] for x in (ours, expected)
    )
    torch.testing.assert_close(mine, theirs)
