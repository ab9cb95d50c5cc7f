"""Normalisations of an adjacency: each is one function and one formula.

All of them divide by degrees through :func:`inverse_root`.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from recbole_missing.graph.sparse import SparseMatrix


def inverse_root(degree: Tensor) -> Tensor:
    """d^-1/2, and 0 where d is not positive, same shape and dtype.

    The gradient is that of d^-1/2, and 0 where d is not positive.
    """
    positive = degree > 0
    return torch.where(positive, degree, torch.ones_like(degree)).rsqrt() * positive


def symmetric_norm(adjacency: SparseMatrix) -> SparseMatrix:
    """D_r^-1/2 B D_c^-1/2 with row sums D_r and column sums D_c; a zero sum gives zero.

    For a bipartite R this is the user-item block of LightGCN's D^-1/2 A D^-1/2. Published code
    adds 1e-7 to every degree, which changes no value by more than 1e-7.
    """
    rows, cols, values = adjacency.edges()
    row_factor = inverse_root(adjacency.row_sums())
    sums = values.new_zeros(adjacency.shape[1]).index_add_(0, cols, values)
    values = values * row_factor[rows] * inverse_root(sums)[cols]
    return SparseMatrix(rows, cols, values, adjacency.shape)


def row_sum_norm(adjacency: SparseMatrix) -> SparseMatrix:
    """B_ij r_i^-1/2 r_j^-1/2 with r = row sums on both sides, although B may be directed.

    This is what the published kNN graphs do (LATTICE and its successors). Rows whose sum is not
    positive get zeros.
    """
    rows, cols, values = adjacency.edges()
    factor = inverse_root(adjacency.row_sums())
    return SparseMatrix(rows, cols, values * factor[rows] * factor[cols], adjacency.shape)


def row_mean_norm(adjacency: SparseMatrix) -> SparseMatrix:
    """D_r^-1 B: every product is a mean over the row's entries; an empty row gives zeros."""
    rows, cols, values = adjacency.edges()
    factor = inverse_root(adjacency.row_sums()) ** 2
    return SparseMatrix(rows, cols, values * factor[rows], adjacency.shape)


def row_sum_norm_scipy(adjacency: sparse.spmatrix) -> sparse.csr_matrix:
    """:func:`row_sum_norm` of a scipy matrix, in float64; entries that become 0 are dropped."""
    edges = adjacency.tocoo()
    factor = inverse_root_array(np.asarray(adjacency.sum(axis=1), dtype=np.float64).ravel())
    values = edges.data * factor[edges.row] * factor[edges.col]
    normalised = sparse.csr_matrix((values, (edges.row, edges.col)), shape=edges.shape)
    normalised.eliminate_zeros()
    return normalised


def inverse_root_array(degree: np.ndarray) -> np.ndarray:
    """:func:`inverse_root` of an array."""
    return inverse_root(torch.from_numpy(degree)).numpy()
