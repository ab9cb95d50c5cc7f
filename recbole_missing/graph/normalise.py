"""Normalisations of an adjacency: each is one function and one formula."""

from __future__ import annotations

import torch
from torch import Tensor

from recbole_missing.graph.sparse import SparseMatrix


def symmetric_norm(adjacency: SparseMatrix) -> SparseMatrix:
    """D_r^-1/2 B D_c^-1/2 with row sums D_r and column sums D_c; a zero sum gives zero.

    For a bipartite R this is the user-item block of LightGCN's D^-1/2 A D^-1/2. Published code
    adds 1e-7 to every degree, which changes no value by more than 1e-7.
    """
    rows, cols, values = adjacency.edges()
    row_factor = _inverse_root(adjacency.row_sums())
    sums = values.new_zeros(adjacency.shape[1]).index_add_(0, cols, values)
    values = values * row_factor[rows] * _inverse_root(sums)[cols]
    return SparseMatrix(rows, cols, values, adjacency.shape)


def row_sum_norm(adjacency: SparseMatrix) -> SparseMatrix:
    """B_ij r_i^-1/2 r_j^-1/2 with r = row sums on both sides, although B may be directed.

    This is what the published kNN graphs do (LATTICE and its successors). Rows whose sum is not
    positive get zeros.
    """
    rows, cols, values = adjacency.edges()
    factor = _inverse_root(adjacency.row_sums())
    return SparseMatrix(rows, cols, values * factor[rows] * factor[cols], adjacency.shape)


def row_mean_norm(adjacency: SparseMatrix) -> SparseMatrix:
    """D_r^-1 B: every product is a mean over the row's entries; an empty row gives zeros."""
    rows, cols, values = adjacency.edges()
    factor = _inverse_root(adjacency.row_sums()) ** 2
    return SparseMatrix(rows, cols, values * factor[rows], adjacency.shape)


def _inverse_root(sums: Tensor) -> Tensor:
    return torch.where(sums > 0, sums.clamp(min=1e-30).rsqrt(), torch.zeros_like(sums))
