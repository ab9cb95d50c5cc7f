"""Sparse products, and graphs made of them, against dense formulas written here."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers import dense, random_matrix

from recbole_missing.graph.sparse import SparseMatrix, bipartite, blend_rows, light_gcn, whole_graph

PACKAGE = Path(__file__).resolve().parents[2] / "recbole_missing"


def test_products_and_their_gradients_equal_dense_ones() -> None:
    matrix = random_matrix()
    for product, full in ((matrix.__matmul__, dense(matrix)), (matrix.t_matmul, dense(matrix).T)):
        x = torch.randn(full.shape[1], 3, requires_grad=True)
        weight = torch.randn(full.shape[0], 3)
        (product(x) * weight).sum().backward()
        torch.testing.assert_close(product(x), full @ x)
        torch.testing.assert_close(x.grad, full.T @ weight)


def test_a_product_writes_every_entry_of_its_result(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory for the result may hold anything, and rows and matrices may be empty."""
    monkeypatch.setattr(torch.Tensor, "new_empty", lambda x, *shape: x.new_full(shape, torch.nan))
    nowhere = torch.zeros(0, dtype=torch.long)
    for matrix in (random_matrix(), SparseMatrix(nowhere, nowhere, torch.zeros(0), (7, 5))):
        for width in (0, 3):
            x = torch.randn(5, width)
            torch.testing.assert_close(matrix @ x, dense(matrix) @ x)


def test_repeated_edges_are_summed_and_bipartite_counts_once() -> None:
    rows, cols = torch.tensor([1, 1, 2]), torch.tensor([2, 2, 1])
    summed = SparseMatrix(rows, cols, torch.ones(3), (3, 3))
    assert dense(summed)[1, 2] == 2
    assert dense(bipartite(rows, cols, 3, 3)).sum() == 2


def test_a_state_dict_with_another_number_of_edges_loads() -> None:
    stored, other = random_matrix(seed=1), random_matrix(seed=2)
    assert stored.values.numel() != other.values.numel()
    other.load_state_dict(stored.state_dict())
    x = torch.randn(7, 2)
    torch.testing.assert_close(dense(other), dense(stored))
    torch.testing.assert_close(other.t_matmul(x), dense(stored).T @ x)


def test_light_gcn_equals_the_mean_of_dense_layers() -> None:
    matrix = random_matrix(4, 5)
    users, items = (torch.randn(n, 3, requires_grad=True) for n in (4, 5))
    full = torch.zeros(9, 9)
    full[:4, 4:], full[4:, :4] = dense(matrix), dense(matrix).T
    layers = [torch.cat([users, items])]
    for _ in range(3):
        layers.append(full @ layers[-1])
    expected = torch.stack(layers).mean(0)
    got = torch.cat(light_gcn(matrix, users, items, 3))
    torch.testing.assert_close(got, expected)
    weights = torch.randn(9, 3)
    for ours, theirs in zip(
        torch.autograd.grad((weights * got).sum(), (users, items)),
        torch.autograd.grad((weights * expected).sum(), (users, items)),
    ):
        torch.testing.assert_close(ours, theirs)


def test_blend_rows() -> None:
    old, new = random_matrix(5, 5, seed=3), random_matrix(5, 5, seed=4)
    rows = torch.tensor([False, True, False, True, False])
    blended = dense(blend_rows(old, new, rows, 0.3))
    mixed = 0.3 * dense(new) + 0.7 * dense(old)
    torch.testing.assert_close(blended, torch.where(rows[:, None], mixed, dense(old)))


def test_the_whole_graph_holds_both_directions_and_the_loops() -> None:
    matrix = random_matrix()
    expected = torch.zeros(12, 12)
    expected[:7, 7:], expected[7:, :7] = dense(matrix), dense(matrix).T
    assert torch.equal(dense(whole_graph(matrix)), expected)
    assert torch.equal(dense(whole_graph(matrix, self_loops=True)), expected + torch.eye(12))


def test_products_see_what_replaces_or_changes_the_buffers() -> None:
    """The CSR tensors are kept between products, so they must follow the buffers."""
    matrix, other = random_matrix(seed=1), random_matrix(seed=1)
    x, y = torch.randn(5, 2), torch.randn(7, 2)
    before = matrix @ x, matrix.t_matmul(y)
    assert matrix.csr() is matrix.csr()
    other.values.mul_(3)
    other._build_transpose()
    matrix.load_state_dict(other.state_dict())
    torch.testing.assert_close(matrix @ x, 3 * before[0])
    torch.testing.assert_close(matrix.t_matmul(y), 3 * before[1])
    matrix.load_state_dict(random_matrix(seed=2).state_dict())  # another number of edges
    torch.testing.assert_close(matrix @ x, dense(random_matrix(seed=2)) @ x)
    torch.testing.assert_close(matrix.t_matmul(y), dense(random_matrix(seed=2)).T @ y)
    matrix.double()
    assert (matrix @ x.double()).dtype == torch.double
    assert matrix.t_matmul(y.double()).dtype == torch.double


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_are_independent(copied: Callable[[SparseMatrix], SparseMatrix]) -> None:
    matrix, x = random_matrix(), torch.randn(5, 2)
    expected = matrix @ x
    twin = copied(matrix)
    assert torch.equal(twin @ x, expected)
    twin.load_state_dict({k: v * 2 if k == "values" else v for k, v in matrix.state_dict().items()})
    torch.testing.assert_close(twin @ x, 2 * expected)
    assert torch.equal(matrix @ x, expected)


def test_no_product_warns_and_the_filters_of_the_process_stay_as_they_are() -> None:
    code = """
import warnings
import scipy.sparse, torch
before = list(warnings.filters)
from recbole_missing.graph.sparse import SparseMatrix
assert warnings.filters == before
warnings.simplefilter("error")
ids = torch.arange(3)
print(SparseMatrix(ids, ids, torch.ones(3), (3, 3)) @ torch.ones(3, 1))
"""
    alone = "import sys, types; package = types.ModuleType('x')"
    alone += f"; package.__path__ = [{str(PACKAGE)!r}]"
    alone += "; sys.modules['recbole_missing'] = package\n"  # without the plugin and RecBole
    done = subprocess.run([sys.executable, "-c", alone + code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not done.stderr


@pytest.mark.parametrize("mkl", [True, False])
def test_loading_other_edges_of_the_same_number(monkeypatch: pytest.MonkeyPatch, mkl: bool) -> None:
    """Without MKL a product holds a copy of the edges, which loading must not leave as it was."""
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: mkl)
    values, x = torch.tensor([1.0, 2.0]), torch.arange(6.0).view(3, 2)
    one = SparseMatrix(torch.tensor([0, 1]), torch.tensor([0, 2]), values, (3, 3))
    other = SparseMatrix(torch.tensor([1, 2]), torch.tensor([1, 0]), values, (3, 3))
    assert torch.equal(one @ x, dense(one) @ x)
    one.load_state_dict(other.state_dict())
    assert torch.equal(one @ x, dense(other) @ x)
    assert torch.equal(one.t_matmul(x), dense(other).T @ x)
