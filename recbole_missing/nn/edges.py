"""Sparse graphs whose edge values are learned: products, inner products, softmax, normalisation.

A ``pattern`` is a :class:`~recbole_missing.graph.sparse.SparseMatrix` that says where the edges
are; its own values are not read. ``values`` holds one number an edge, in the order of
``pattern.edges()``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from recbole_missing.graph.normalise import inverse_root
from recbole_missing.graph.sparse import SparseMatrix, product
from recbole_missing.nn.layers import exp_is_safe

Edges = tuple[Tensor, Tensor, Tensor]
"""Rows, columns and values, each ``(n_edges,)``; the values may have a gradient."""


def edge_product(pattern: SparseMatrix, values: Tensor, dense: Tensor) -> Tensor:
    """M @ dense, where M has ``values`` on the edges of ``pattern``; both get gradients.

    Args:
        pattern: shape ``(n_rows, n_cols)``.
        values: shape ``(n_edges,)``.
        dense: shape ``(n_cols, d)``.

    Returns:
        Shape ``(n_rows, d)``.
    """
    product: Tensor = _EdgeProduct.apply(values, dense, pattern, False)
    return product


def edge_t_product(pattern: SparseMatrix, values: Tensor, dense: Tensor) -> Tensor:
    """M^T @ dense of the same M: ``dense (n_rows, d)`` gives ``(n_cols, d)``."""
    product: Tensor = _EdgeProduct.apply(values, dense, pattern, True)
    return product


def edge_dots(pattern: SparseMatrix, left: Tensor, right: Tensor) -> Tensor:
    """<left[i], right[j]> for every edge (i, j) of ``pattern``, shape ``(n_edges,)``.

    Args:
        pattern: shape ``(n_rows, n_cols)``.
        left, right: shapes ``(n_rows, d)``, ``(n_cols, d)``; both get gradients.
    """
    dots: Tensor = _EdgeDots.apply(left, right, pattern)
    return dots


def edge_softmax(
    pattern: SparseMatrix, logits: Tensor, dim: int = 1, bound: float | None = None
) -> Tensor:
    """Softmax of ``logits`` over the edges of each row or of each column.

    Args:
        pattern: shape ``(n_rows, n_cols)``.
        logits: shape ``(n_edges,)``.
        dim: 1 for a softmax over the edges of a row, 0 over those of a column.
        bound: of the absolute logits, if one is known. A small one spares the search for the
            largest logit of every row.

    Returns:
        Shape ``(n_edges,)``: exp(l_e) / sum over the edges e' of the same row of exp(l_e').
    """
    shares: Tensor = _EdgeSoftmax.apply(
        logits, pattern.ends()[1 - dim], pattern.shape[1 - dim], exp_is_safe(bound)
    )
    return shares


@dataclass(frozen=True)
class LearnedGraph:
    """A square graph: ``values``, which may have a gradient, on the edges of ``pattern``."""

    pattern: SparseMatrix
    values: Tensor

    def __matmul__(self, dense: Tensor) -> Tensor:
        """Multiply by ``dense (n, d)``."""
        return edge_product(self.pattern, self.values, dense)

    def detached(self) -> LearnedGraph:
        """Return the same graph as a constant."""
        return LearnedGraph(self.pattern, self.values.detach())


def sum_edges(parts: Sequence[Edges], n: int) -> LearnedGraph:
    """Sum of graphs ``(n, n)`` that are given by their edges; repeated edges are added up."""
    rows, cols, values = join_edges(parts)
    pattern = SparseMatrix(rows, cols, values.detach(), (n, n))
    pattern_rows, pattern_cols, _ = pattern.edges()
    keys = pattern_rows * n + pattern_cols  # ascending
    place = torch.searchsorted(keys, rows * n + cols)
    return LearnedGraph(pattern, values.new_zeros(len(keys)).index_add(0, place, values))


def join_edges(parts: Sequence[Edges]) -> Edges:
    """Concatenate lists of edges; an edge that occurs twice stays twice."""
    rows, cols, values = (torch.cat(arrays) for arrays in zip(*parts))
    return rows, cols, values


def scale_edges(edges: Edges, factor: Tensor | float) -> Edges:
    """Multiply the values by ``factor``."""
    rows, cols, values = edges
    return rows, cols, values * factor


def row_sum_norm_edges(edges: Edges, n: int) -> Edges:
    """r_i^-1/2 B_ij r_j^-1/2 with r = row sums of B ``(n, n)``, with a gradient.

    This is :func:`~recbole_missing.graph.normalise.row_sum_norm` for values that are learned: the
    gradient also flows through the row sums. A repeated edge counts as often as it stands there.
    Where a row sum is not positive, values and gradients are zero.
    """
    rows, cols, values = edges
    sums = values.new_zeros(n).index_add(0, rows, values)
    factor = inverse_root(sums)
    return rows, cols, values * factor[rows] * factor[cols]


class _EdgeProduct(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, values: Tensor, dense: Tensor, pattern: SparseMatrix, transposed: bool
    ) -> Tensor:
        ctx.pattern, ctx.transposed = pattern, transposed
        ctx.save_for_backward(values, dense)
        return product(pattern.t_csr(values) if transposed else pattern.csr(values), dense)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        values, dense = ctx.saved_tensors
        pattern, to_values, to_dense = ctx.pattern, None, None
        if ctx.needs_input_grad[0]:
            to_values = _dots(pattern, *((dense, grad) if ctx.transposed else (grad, dense)))
        if ctx.needs_input_grad[1]:
            back = pattern.csr(values) if ctx.transposed else pattern.t_csr(values)
            to_dense = product(back, grad)
        return to_values, to_dense, None, None


class _EdgeDots(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, left: Tensor, right: Tensor, pattern: SparseMatrix) -> Tensor:
        ctx.pattern = pattern
        ctx.save_for_backward(left, right)
        return _dots(pattern, left, right)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        left, right = ctx.saved_tensors
        to_left = product(ctx.pattern.csr(grad), right)
        return to_left, product(ctx.pattern.t_csr(grad), left), None


class _EdgeSoftmax(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, group: Tensor, n_groups: int, is_safe: bool) -> Tensor:
        if not is_safe:
            highest = logits.new_full((n_groups,), -torch.inf)
            highest = highest.scatter_reduce(0, group.long(), logits, "amax")
            logits = logits - highest.index_select(0, group)
        powers = logits.exp()
        sums = powers.new_zeros(n_groups).index_add_(0, group, powers)
        shares = powers / sums.index_select(0, group)
        ctx.n_groups = n_groups
        ctx.save_for_backward(shares, group)
        return shares

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        shares, group = ctx.saved_tensors
        parts = shares * grad
        sums = parts.new_zeros(ctx.n_groups).index_add_(0, group, parts)
        return parts - shares * sums.index_select(0, group), None, None, None


def _dots(pattern: SparseMatrix, left: Tensor, right: Tensor, block_size: int = 2**18) -> Tensor:
    matrix = pattern.csr(left.new_zeros(len(pattern.col)))
    if matrix.layout == torch.sparse_csr:
        return torch.sparse.sampled_addmm(matrix, left, right.T, beta=0).values()
    rows, cols, _ = pattern.edges()
    blocks = zip(rows.split(block_size), cols.split(block_size))
    return torch.cat([(left[row] * right[col]).sum(dim=1) for row, col in blocks])
