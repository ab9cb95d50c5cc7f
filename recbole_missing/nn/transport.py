"""Entropic optimal transport between two sets of points, in memory that does not grow with pairs.

The kernel of points x_i (rows) and y_j (columns) is K_ij = exp(-|x_i - y_j|^2 / width). Sinkhorn's
iterations (Cuturi, NIPS 2013) turn K into a coupling: each one divides every row by its sum and
then every column by its sum,

    S = K;  n_iterations times:  S = D_r^-1 S, then S = S D_c^-1,  D_r, D_c row and column sums.

The last step leaves columns that sum to one and rows that do so only nearly. So the coupling of
rows to columns is not the transpose of the coupling of columns to rows. For the gradient the
coupling is a constant: the gradient flows through the averaged points only.

All steps scale rows or columns, so S_ij = a_i K_ij b_j, and two vectors a, b describe the coupling.
K itself is computed in blocks of rows. The first 2^26 entries (256 MiB) are kept for the next pass,
until the backward pass is done. The others are computed anew in every pass. Every call keeps its
own: a model that makes M calls, one for each of M >= 3 modalities, keeps up to M x 256 MiB.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recbole_missing.nn.layers import cached_rows

_KEPT = 2**26
"""Entries of the kernel that are kept from pass to pass."""


def transport(rows: Tensor, cols: Tensor, width: float, n_iterations: int) -> Tensor:
    """S(rows, cols) cols: the averages of ``cols`` by the coupling of ``rows`` to ``cols``.

    Args:
        rows, cols: shapes ``(n_rows, d)``, ``(n_cols, d)``; only ``cols`` gets a gradient.
        width: divides the squared distances.
        n_iterations: of Sinkhorn, at least one. Each is one pass over the kernel.

    Returns:
        Shape ``(n_rows, d)``.

    Raises:
        ValueError: if the width is so small that an exponential might overflow.
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
    """``transport(left, right)`` and ``transport(right, left)``.

    Both use one pass over the kernel where two calls would use two.
    """
    kernel = _Kernel(left.detach(), right.detach(), width)
    on_rows, on_cols = kernel.scalings(n_iterations, n_couplings=2)
    to_left, to_right = _Products.apply(on_cols[0] * right, on_rows[1] * left, kernel)
    return on_rows[0] * to_left, on_cols[1] * to_right


class _Kernel:
    """The kernel K, up to factors of its rows and columns, in blocks of rows.

    Let p and q be the means of the rows x_i and of the columns y_j. Up to a constant,

        -|x_i - y_j|^2 = 2 <x_i - p, y_j - q> - |x_i - q|^2 - |y_j - p|^2,

    so K_ij is E_ij = exp(2 <x_i - p, y_j - q> / width) times a factor for row i and one for column
    j. The iterations start from these factors. The exponents of E have mean zero in every row and
    every column, so no sum of a row or column vanishes, however far apart the two sets are. A
    block of E is one matrix product.

    Raises:
        ValueError: if the width is so small that an exponential might overflow. On a GPU nobody
            looks; the couplings are then not finite.
    """

    def __init__(self, rows: Tensor, cols: Tensor, width: float) -> None:
        """Centre the points, and compute the factors of rows and columns that make E into K."""
        row_mean, col_mean = rows.mean(dim=0), cols.mean(dim=0)
        self.row_factors = _gauss(rows - col_mean, width)
        self.col_factors = _gauss(cols - row_mean, width)
        self.rows = (rows - row_mean) * (2.0 / width)
        self.cols = (cols - col_mean).T.contiguous()
        kept_rows = min(len(rows), _KEPT // len(cols))
        self.kept = _empty(rows, kept_rows * len(cols))  # the first rows of E, one after the other
        self.is_filled = False
        if rows.is_cuda:
            return  # reading the largest exponent would make the CPU wait
        largest = float(self.rows.norm(dim=1).max() * self.cols.norm(dim=0).max())
        if largest > 80:
            raise ValueError(
                f"transport: width must be larger for points so far apart, got {width} (exponents "
                f"up to {largest:.0f}); raise transport_width."
            )

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """Yield slices of rows and their block of E. It holds until the next one is asked for."""
        n_rows, n_cols = len(self.rows), self.cols.shape[1]
        size = min(n_rows, cached_rows(n_cols, self.rows, entries=2**19, fewest=64))
        buffer = self.rows.new_empty(size, n_cols)
        for start in range(0, n_rows, size):
            part = slice(start, min(start + size, n_rows))
            is_kept = part.stop * n_cols <= len(self.kept)
            block = buffer[: part.stop - start]
            if is_kept:
                block = self.kept[start * n_cols : part.stop * n_cols].view_as(block)
            if not (is_kept and self.is_filled):
                torch.mm(self.rows[part], self.cols, out=block).exp_()
            yield part, block
        self.is_filled = True

    def scalings(self, n_iterations: int, n_couplings: int) -> tuple[Tensor, Tensor]:
        """Factors that turn E into couplings, shapes ``(k, n_rows, 1)`` and ``(k, n_cols, 1)``.

        Coupling 0 is that of rows to columns: each pass divides rows, then columns. Coupling 1 is
        that of columns to rows: it divides columns first. A pass goes through the rows, so for
        coupling 1 the division of rows that belongs to a pass is done in the next pass, and the
        last one in a pass of its own.
        """
        on_rows = self.row_factors.repeat(n_couplings, 1)
        on_cols = self.col_factors.repeat(n_couplings, 1)
        for step in range(n_iterations):
            sums = torch.zeros_like(on_cols, dtype=torch.float64)  # hundreds of blocks are added
            divided = n_couplings if step > 0 else 1
            for part, block in self.blocks():
                on_rows[:divided, part] = (on_cols[:divided] @ block.T).reciprocal_()
                sums += on_rows[:, part] @ block
            on_cols = sums.reciprocal_().to(on_cols)
        if n_couplings == 2:
            for part, block in self.blocks():
                on_rows[1:, part] = (on_cols[1:] @ block.T).reciprocal_()
        return on_rows[..., None], on_cols[..., None]

    def products(self, on_cols: Tensor, on_rows: Tensor) -> tuple[Tensor, Tensor]:
        """``E @ on_cols (n_cols, a)`` and ``E.T @ on_rows (n_rows, b)`` in one pass."""
        to_rows = on_cols.new_empty(len(self.rows), on_cols.shape[1])
        shape = (on_rows.shape[1], self.cols.shape[1])
        to_cols = on_rows.new_zeros(shape, dtype=torch.float64)  # transposed: the faster form
        some = on_rows.new_zeros(shape)  # of a few blocks, before they are added to the others
        for number, (part, block) in enumerate(self.blocks()):
            torch.mm(block, on_cols, out=to_rows[part])
            some.addmm_(on_rows[part].T, block)
            if number % 16 == 15:
                to_cols += some
                some.zero_()
        to_cols += some
        return to_rows, to_cols.T.to(on_rows)


class _Products(torch.autograd.Function):
    """Both products with a constant kernel. The backward pass is one more pass over the kernel."""

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
    """exp(-|p|^2 / width) for every point, times a common factor that makes the largest one."""
    squares = points.square().sum(dim=1)
    return ((squares.min() - squares) / width).exp()


def _empty(like: Tensor, size: int) -> Tensor:
    """Memory for many numbers. On Linux numpy asks for huge pages, which are faster to get."""
    if like.device.type != "cpu":
        return like.new_empty(size)
    return torch.from_numpy(np.empty(size, like.numpy().dtype))
