"""Entropic optimal transport between two sets of points; the kernel is streamed, never stored.

The coupling of rows x_i and columns y_j with kernel K_ij = exp(-|x_i - y_j|^2 / width) is found
by Sinkhorn's iterations (Cuturi, NIPS 2013): starting from K, every iteration divides each row by
its sum, then each column by its sum. In the end columns sum to one, rows only nearly: coupling
rows to columns is not the transpose of coupling columns to rows. The coupling is a constant for
the gradient, which flows through the averaged points alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

_CACHED = 2**19
"""Entries of a block on the CPU: it stays in the cache from the product to the last sum."""


def transport(rows: Tensor, cols: Tensor, width: float, n_iterations: int) -> Tensor:
    """Average ``cols`` with the coupling from ``rows`` to ``cols``.

    Args:
        rows, cols: shapes ``(n_rows, d)``, ``(n_cols, d)``; ``cols`` alone gets a gradient.
        width: divides the squared distances.
        n_iterations: of Sinkhorn, at least one; each is one pass over the kernel.

    Returns:
        Shape ``(n_rows, d)``.
    """
    kernel = _Kernel(rows.detach(), cols.detach(), width)
    on_rows, on_cols = kernel.scalings(n_iterations, n_couplings=1)
    nothing = rows.new_empty(len(rows), 0)
    product, _ = _Products.apply(on_cols[0] * cols, nothing, kernel)
    averages: Tensor = on_rows[0] * product
    return averages


def mutual_transport(
    left: Tensor, right: Tensor, width: float, n_iterations: int
) -> tuple[Tensor, Tensor]:
    """``transport(left, right)`` and ``transport(right, left)``, both from one kernel."""
    kernel = _Kernel(left.detach(), right.detach(), width)
    on_rows, on_cols = kernel.scalings(n_iterations, n_couplings=2)
    to_left, to_right = _Products.apply(on_cols[0] * right, on_rows[1] * left, kernel)
    return on_rows[0] * to_left, on_cols[1] * to_right


class _Kernel:
    """K up to a factor per row and one per column, made anew in blocks of rows at every pass.

    With both sets centred, E_ij = exp(2 <x_i, y_j> / width) is K without such factors, which the
    scalings absorb. Its mean exponent is zero in every row and column, so no sum vanishes, and a
    block is one matrix product.

    Raises:
        ValueError: if the width is so small that an exponential might overflow.
    """

    def __init__(self, rows: Tensor, cols: Tensor, width: float) -> None:
        """Centre the points; keep the factors of K in which the iterations start."""
        row_mean, col_mean = rows.mean(dim=0), cols.mean(dim=0)
        self.row_factors = _gauss(rows - col_mean, width)
        self.col_factors = _gauss(cols - row_mean, width)
        self.rows = (rows - row_mean) * (2.0 / width)
        self.cols = (cols - col_mean).T.contiguous()
        largest = float(self.rows.norm(dim=1).max() * self.cols.norm(dim=0).max())
        if largest > 80:
            raise ValueError(
                f"transport: width must be larger for points so far apart, got {width} (exponents "
                f"up to {largest:.0f}); raise transport_width."
            )

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """Row slices and their entries of E; an entry lives until the next block is taken."""
        n_rows, n_cols = len(self.rows), self.cols.shape[1]
        entries = _CACHED if self.rows.device.type == "cpu" else 2**7 * _CACHED
        size = min(n_rows, max(64, entries // n_cols))
        buffer = self.rows.new_empty(size, n_cols)
        for start in range(0, n_rows, size):
            part = slice(start, min(start + size, n_rows))
            block = buffer[: part.stop - start]
            torch.mm(self.rows[part], self.cols, out=block)
            yield part, block.exp_()

    def scalings(self, n_iterations: int, n_couplings: int) -> tuple[Tensor, Tensor]:
        """Factors that turn E into couplings, shapes ``(k, n_rows, 1)`` and ``(k, n_cols, 1)``.

        Number 0 couples rows to columns. Number 1 couples columns to rows: it begins at the other
        side, so its rows are one step behind and are made up for after the last pass.
        """
        on_rows = self.row_factors.repeat(n_couplings, 1)
        on_cols = self.col_factors.repeat(n_couplings, 1)
        for step in range(n_iterations):
            sums = torch.zeros_like(on_cols, dtype=torch.float64)  # of hundreds of blocks
            for part, block in self.blocks():
                for k in range(n_couplings):  # vector by vector: a product with two is slower
                    if k == 0 or step > 0:
                        on_rows[k, part] = (block @ on_cols[k]).reciprocal_()
                    sums[k] += block.T @ on_rows[k, part]
            on_cols = sums.reciprocal_().to(on_cols)
        if n_couplings == 2:
            for part, block in self.blocks():
                on_rows[1, part] = (block @ on_cols[1]).reciprocal_()
        return on_rows[..., None], on_cols[..., None]

    def products(self, on_cols: Tensor, on_rows: Tensor) -> tuple[Tensor, Tensor]:
        """``E @ on_cols (n_cols, a)`` and ``E.T @ on_rows (n_rows, b)`` in one pass."""
        to_rows = on_cols.new_empty(len(self.rows), on_cols.shape[1])
        shape = (self.cols.shape[1], on_rows.shape[1])
        to_cols = on_rows.new_zeros(shape, dtype=torch.float64)
        for part, block in self.blocks():
            torch.mm(block, on_cols, out=to_rows[part])
            to_cols += block.T @ on_rows[part]
        return to_rows, to_cols.to(on_rows)


class _Products(torch.autograd.Function):
    """Both products with a constant kernel; the backward pass is one more pass over it."""

    @staticmethod
    def forward(
        ctx: Any, on_cols: Tensor, on_rows: Tensor, kernel: _Kernel
    ) -> tuple[Tensor, Tensor]:
        ctx.kernel = kernel
        return kernel.products(on_cols, on_rows)

    @staticmethod
    def backward(ctx: Any, to_rows: Tensor, to_cols: Tensor) -> tuple[Tensor, Tensor, None]:
        on_rows, on_cols = ctx.kernel.products(to_cols, to_rows)
        return on_cols, on_rows, None


def _gauss(points: Tensor, width: float) -> Tensor:
    """exp(-|p|^2 / width) up to a common factor that makes the largest one."""
    squares = points.square().sum(dim=1)
    return ((squares.min() - squares) / width).exp()
