"""A constant sparse matrix, its products, and the graphs of users and items made of it."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn

FORMATS = ("bsr", "coo", "csc", "csr", "dia", "dok", "lil")
"""Formats of scipy's sparse matrices. A file may ask for no other method of a matrix."""


class SparseMatrix(nn.Module):
    """A constant sparse matrix whose product with a dense one is differentiable in the latter.

    Args:
        rows, cols: int, shape ``(n_edges,)``. Repeated edges are summed.
        values: float, shape ``(n_edges,)``.
        shape: ``(n_rows, n_cols)``.
        persistent: whether checkpoints hold the matrix.

    The three CSR arrays are buffers, so a checkpoint restores them whatever their length. The
    transposed copy serves the backward pass and :meth:`t_matmul`; it is rebuilt on loading. The
    CSR tensors that torch multiplies with are views of the buffers, made with the first product.
    """

    remade = ("_views", "t_crow", "t_col", "t_values", "t_order", "row")
    crow: Tensor
    col: Tensor
    values: Tensor
    t_crow: Tensor
    t_col: Tensor
    t_values: Tensor
    t_order: Tensor | None
    row: Tensor | None

    def __init__(
        self,
        rows: Tensor,
        cols: Tensor,
        values: Tensor,
        shape: tuple[int, int],
        persistent: bool = True,
    ) -> None:
        """Sort the edges into CSR form."""
        super().__init__()
        self.shape = (int(shape[0]), int(shape[1]))
        self._views: dict[str, tuple[Tensor, Tensor]] = {}  # "csr", "t_csr" -> values, CSR tensor
        names = ("crow", "col", "values")
        for name, array in zip(names, _csr_arrays(rows, cols, values.float(), self.shape)):
            self.register_buffer(name, array, persistent=persistent)
        self._build_transpose()

    @classmethod
    def from_scipy(cls, matrix: sparse.spmatrix) -> SparseMatrix:
        """Copy a scipy sparse matrix."""
        coo = matrix.tocoo()
        rows, cols = torch.from_numpy(coo.row.astype("i8")), torch.from_numpy(coo.col.astype("i8"))
        return cls(rows, cols, torch.from_numpy(coo.data.astype(np.float32)), coo.shape)

    def __matmul__(self, dense: Tensor) -> Tensor:
        """Multiply by ``dense`` of shape ``(n_cols, d)``; gives ``(n_rows, d)``."""
        product: Tensor = _SparseProduct.apply(dense, self.csr(), self.t_csr())
        return product

    def t_matmul(self, dense: Tensor) -> Tensor:
        """Multiply the transpose by ``dense`` of shape ``(n_rows, d)``; gives ``(n_cols, d)``."""
        product: Tensor = _SparseProduct.apply(dense, self.t_csr(), self.csr())
        return product

    def edges(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return ``rows, cols, values`` (int64, int64, float32), sorted by row, then column."""
        return _expand(self.crow, len(self.col)), self.col.long(), self.values

    def ends(self) -> tuple[Tensor, Tensor]:
        """Row and column of every edge, int32, in the order of :meth:`edges`; they are kept."""
        if self.row is None:
            self.row = _expand(self.crow, len(self.col)).int()
        return self.row, self.col

    def row_sums(self) -> Tensor:
        """Sum of each row, shape ``(n_rows,)``."""
        rows, _, values = self.edges()
        return values.new_zeros(self.shape[0]).index_add_(0, rows, values)

    def transposed(self) -> SparseMatrix:
        """Return the transpose as a matrix of its own."""
        rows, cols, values = self.edges()
        return SparseMatrix(cols, rows, values, (self.shape[1], self.shape[0]))

    def extra_repr(self) -> str:
        """Show shape and number of edges when a model is printed."""
        return f"shape={self.shape}, n_edges={self.values.numel()}"

    def _build_transpose(self) -> None:
        rows, cols, values = self.edges()
        arrays = _csr_arrays(cols, rows, values, (self.shape[1], self.shape[0]))
        for name, array in zip(("t_crow", "t_col", "t_values"), arrays):
            self.register_buffer(name, array, persistent=False)
        for name in ("t_order", "row"):
            self.register_buffer(name, None, persistent=False)  # made when first needed

    def csr(self, values: Tensor | None = None) -> Tensor:
        """CSR tensor, with other ``values`` on the same edges if given."""
        if values is None:
            return self._view("csr", self.crow, self.col, self.values, self.shape)
        return _csr_tensor(self.crow, self.col, values, self.shape)

    def t_csr(self, values: Tensor | None = None) -> Tensor:
        """CSR tensor of the transpose; ``values`` as in :meth:`csr`."""
        shape = (self.shape[1], self.shape[0])
        if values is None:
            return self._view("t_csr", self.t_crow, self.t_col, self.t_values, shape)
        if self.t_order is None:
            rows, cols, _ = self.edges()
            self.t_order = torch.argsort(cols * self.shape[0] + rows).int()
        return _csr_tensor(self.t_crow, self.t_col, values.index_select(0, self.t_order), shape)

    def _view(
        self, name: str, crow: Tensor, col: Tensor, values: Tensor, shape: tuple[int, int]
    ) -> Tensor:
        """CSR tensor of the buffers; made anew after ``.to()`` or loading has replaced them."""
        made_of, view = self._views.get(name, (None, values))
        if made_of is not values:
            view = _csr_tensor(crow, col, values, shape)
            self._views[name] = (values, view)
        return view

    def __getstate__(self) -> dict[str, Any]:
        """Leave the views behind: in a copy they would not share memory with its buffers."""
        return {**self.__dict__, "_views": {}}

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Take the stored arrays even where their number of edges differs from ours."""
        for name in ("crow", "col", "values"):
            stored = state_dict.get(prefix + name)
            if stored is not None and stored.shape != getattr(self, name).shape:
                setattr(self, name, stored.to(getattr(self, name)))
        super()._load_from_state_dict(state_dict, prefix, *args)
        self._views.clear()  # a view may be a copy, which the new values did not reach
        self._build_transpose()


class _SparseProduct(torch.autograd.Function):
    """Sparse x dense whose backward pass uses the stored transpose instead of making one."""

    @staticmethod
    def forward(ctx: Any, dense: Tensor, matrix: Tensor, transposed: Tensor) -> Tensor:
        ctx.transposed = transposed
        return product(matrix, dense)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return product(ctx.transposed, grad), None, None


def product(matrix: Tensor, dense: Tensor) -> Tensor:
    """Multiply a sparse tensor ``(n_rows, n_cols)`` by ``dense (n_cols, d)``, without a gradient.

    torch's ``@`` fills a result with zeros before it writes to it. Here it is written once.
    """
    if matrix.layout != torch.sparse_csr:
        return matrix @ dense
    result = dense.new_empty(matrix.shape[0], dense.shape[1])
    return torch.addmm(result, matrix, dense, beta=0, out=result)


def _csr_arrays(
    rows: Tensor, cols: Tensor, values: Tensor, shape: tuple[int, int]
) -> tuple[Tensor, Tensor, Tensor]:
    keys, edge = torch.unique(rows.long() * shape[1] + cols.long(), return_inverse=True)
    summed = values.new_zeros(keys.numel()).index_add_(0, edge, values)
    counts = torch.bincount(torch.div(keys, shape[1], rounding_mode="floor"), minlength=shape[0])
    crow = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    return crow.int(), (keys % shape[1]).int(), summed


def _csr_tensor(crow: Tensor, col: Tensor, values: Tensor, shape: tuple[int, int]) -> Tensor:
    if values.is_cuda or torch.backends.mkl.is_available():
        return torch.sparse_csr_tensor(crow, col, values, shape, check_invariants=False)
    edges = torch.stack([_expand(crow, len(col)), col.long()])
    return torch.sparse_coo_tensor(edges, values, shape, check_invariants=False)


def _hear_the_announcement() -> None:
    """Make one CSR tensor: torch says once in a process that they are in beta, and says it here."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support")
        torch.zeros(1, 1).to_sparse_csr()


_hear_the_announcement()


def _expand(crow: Tensor, n_edges: int) -> Tensor:
    counts = (crow[1:] - crow[:-1]).long()
    rows = torch.arange(counts.numel(), device=crow.device)
    return torch.repeat_interleave(rows, counts, output_size=n_edges)


def bipartite(users: Tensor, items: Tensor, n_users: int, n_items: int) -> SparseMatrix:
    """Binary user-item matrix R of shape ``(n_users, n_items)``; repeated edges count once."""
    edges = torch.unique(torch.stack([users, items]), dim=1)
    ones = torch.ones(edges.shape[1], device=edges.device)
    return SparseMatrix(edges[0], edges[1], ones, (n_users, n_items))


def whole_graph(user_item: SparseMatrix, self_loops: bool = False) -> SparseMatrix:
    """Adjacency A of all nodes, users first, items after them; with ``self_loops`` A + I.

    Args:
        user_item: shape ``(n_users, n_items)``; the result is ``(n_users + n_items)`` squared,
            sparse. Padding nodes get a self loop as well.
    """
    users, items, values = user_item.edges()
    n_nodes = sum(user_item.shape)
    items = items + user_item.shape[0]
    loops = torch.arange(n_nodes if self_loops else 0, device=users.device)
    return SparseMatrix(
        torch.cat([users, items, loops]),
        torch.cat([items, users, loops]),
        torch.cat([values, values, values.new_ones(loops.numel())]),
        (n_nodes, n_nodes),
    )


def light_gcn(
    adjacency: SparseMatrix, users: Tensor, items: Tensor, n_layers: int
) -> tuple[Tensor, Tensor]:
    """LightGCN: the mean over layers 0..n_layers of propagated user and item vectors.

    Args:
        adjacency: normalised user-item matrix, shape ``(n_users, n_items)``.
        users, items: shapes ``(n_users, d)``, ``(n_items, d)``.
        n_layers: number of products.

    Returns:
        users and items, same shapes (He et al., SIGIR 2020, eq. 7 and 8 with equal weights).
    """
    graphs = adjacency.csr(), adjacency.t_csr()
    means: tuple[Tensor, Tensor] = _LayerMeans.apply(users, items, *graphs, n_layers)
    return means


def layer_mean(adjacency: SparseMatrix, nodes: Tensor, n_layers: int) -> Tensor:
    """Mean over layers 0..n_layers of ``nodes (n, d)``, propagated on a square graph."""
    mean: Tensor = _LayerMean.apply(nodes, adjacency.csr(), adjacency.t_csr(), n_layers)
    return mean


class _LayerMeans(torch.autograd.Function):
    """The sum over layers by Horner's rule, Z + A (Z + A (Z + ...)).

    A is symmetric, so the gradient is the same mean of the result's gradient.
    """

    @staticmethod
    def forward(
        ctx: Any, users: Tensor, items: Tensor, matrix: Tensor, transposed: Tensor, n_layers: int
    ) -> tuple[Tensor, Tensor]:
        ctx.matrix, ctx.transposed, ctx.n_layers = matrix, transposed, n_layers
        user_sum, item_sum = users, items
        for _ in range(n_layers):
            user_sum, item_sum = (
                torch.addmm(users, matrix, item_sum),
                torch.addmm(items, transposed, user_sum),
            )
        return user_sum / (n_layers + 1), item_sum / (n_layers + 1)

    @staticmethod
    def backward(ctx: Any, to_users: Tensor, to_items: Tensor) -> tuple[Tensor | None, ...]:
        graphs = ctx.matrix, ctx.transposed
        return *_LayerMeans.apply(to_users, to_items, *graphs, ctx.n_layers), None, None, None


class _LayerMean(torch.autograd.Function):
    """The same for one kind of nodes. The gradient is the same mean on the transposed graph."""

    @staticmethod
    def forward(
        ctx: Any, nodes: Tensor, matrix: Tensor, transposed: Tensor, n_layers: int
    ) -> Tensor:
        ctx.matrix, ctx.transposed, ctx.n_layers = matrix, transposed, n_layers
        total = nodes if n_layers > 0 else nodes.clone()
        for layer in range(1, n_layers + 1):
            scale = 1.0 if layer < n_layers else 1 / (n_layers + 1)  # the sum becomes a mean
            total = torch.addmm(nodes, matrix, total, beta=scale, alpha=scale)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        graphs = ctx.transposed, ctx.matrix
        return _LayerMean.apply(grad, *graphs, ctx.n_layers), None, None, None


def propagate(adjacency: Any, nodes: Tensor, n_layers: int) -> Tensor:
    """Return ``nodes (n, d)`` after ``n_layers`` products; only the last layer is kept."""
    for _ in range(n_layers):
        nodes = adjacency @ nodes
    return nodes


def blend_rows(old: SparseMatrix, new: SparseMatrix, rows: Tensor, weight: float) -> SparseMatrix:
    """Replace ``rows`` (bool ``(n,)``) of ``old`` by ``weight * new + (1 - weight) * old``."""
    old_row, old_col, old_value = old.edges()
    new_row, new_col, new_value = new.edges()
    scale = torch.where(rows[old_row], 1.0 - weight, 1.0)
    taken = rows[new_row]
    return SparseMatrix(
        torch.cat([old_row, new_row[taken]]),
        torch.cat([old_col, new_col[taken]]),
        torch.cat([old_value * scale, new_value[taken] * weight]),
        old.shape,
    )
