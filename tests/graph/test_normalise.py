"""Each normalisation against its formula."""

from __future__ import annotations

import numpy as np
import torch
from helpers import dense, random_matrix
from scipy import sparse

from recbole_missing.graph.normalise import (
    inverse_root,
    row_mean_norm,
    row_sum_norm,
    row_sum_norm_scipy,
    symmetric_norm,
)
from recbole_missing.graph.sparse import SparseMatrix


def test_normalisations_equal_their_formulas() -> None:
    matrix = random_matrix(6, 6)
    full = dense(matrix)
    row, col = full.sum(1), full.sum(0)

    def power(sums: torch.Tensor, exponent: float) -> torch.Tensor:
        return torch.where(sums > 0, sums**exponent, torch.zeros(()))

    half_row, half_col = power(row, -0.5), power(col, -0.5)
    expected = {
        symmetric_norm: half_row[:, None] * full * half_col,
        row_sum_norm: half_row[:, None] * full * half_row,
        row_mean_norm: power(row, -1.0)[:, None] * full,
    }
    for normalise, values in expected.items():
        torch.testing.assert_close(dense(normalise(matrix)), values)


def test_inverse_root_is_zero_where_the_degree_is_not_positive() -> None:
    degree = torch.tensor([-1.0, 0.0, 4.0, 0.25], dtype=torch.double, requires_grad=True)
    roots = inverse_root(degree)
    assert roots.tolist() == [0.0, 0.0, 0.5, 2.0]
    roots.sum().backward()
    assert degree.grad is not None
    assert degree.grad.tolist() == [0.0, 0.0, -0.5 * 4**-1.5, -0.5 * 0.25**-1.5]


def test_both_kinds_of_matrices_are_normalised_alike() -> None:
    full = np.random.default_rng(0).random((9, 9)) * (np.random.default_rng(1).random((9, 9)) < 0.4)
    full[3] = 0
    matrix = sparse.csr_matrix(full)
    ours = row_sum_norm_scipy(matrix)
    theirs = dense(row_sum_norm(SparseMatrix.from_scipy(matrix)))
    np.testing.assert_allclose(ours.toarray(), theirs.numpy(), rtol=1e-5)
    assert ours.dtype == np.float64
    assert (ours.toarray()[:, 3] == 0).all() and full[:, 3].any(), "row sums, on both sides"
    assert ours.nnz == np.count_nonzero(ours.toarray())
