"""Graphs: edges to normalised sparse matrices, exact kNN in blocks, co-interaction, products.

Pure functions on bare tensors, and one module that holds a sparse matrix. Nothing here stores a
matrix of n_items x n_items or n_users x n_items. Item 0 (RecBole's padding) has no edge.
"""

from __future__ import annotations

import warnings
from logging import getLogger
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn

KNN_MISSING = ("imputed", "isolated", "isolated_after_topk")
"""What a kNN graph does with items that lack the modality, see :func:`knn_graph`."""

_ODD = 0x9E3779B97F4A7C15 - 2**64  # spreads the bits of a product (Knuth's multiplicative hash)

_TIE_GRID = 2.0**20
"""Similarities are compared on a grid of 2^-20, above the rounding noise of a float32 product."""


class SparseMatrix(nn.Module):
    """A constant sparse matrix whose product with a dense one is differentiable in the latter.

    Args:
        rows, cols: int, shape ``(n_edges,)``. Repeated edges are summed.
        values: float, shape ``(n_edges,)``.
        shape: ``(n_rows, n_cols)``.

    The three CSR arrays are buffers, so a checkpoint restores them whatever their length; the
    transposed copy serves the backward pass and :meth:`t_matmul` and is rebuilt on loading.
    """

    crow: Tensor
    col: Tensor
    values: Tensor
    t_crow: Tensor
    t_col: Tensor
    t_values: Tensor
    t_order: Tensor | None

    def __init__(self, rows: Tensor, cols: Tensor, values: Tensor, shape: tuple[int, int]) -> None:
        """Sort the edges into CSR form."""
        super().__init__()
        self.shape = (int(shape[0]), int(shape[1]))
        names = ("crow", "col", "values")
        for name, array in zip(names, _csr_arrays(rows, cols, values.float(), self.shape)):
            self.register_buffer(name, array)
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
        return _expand(self.crow), self.col.long(), self.values

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
        self.register_buffer("t_order", None, persistent=False)  # made when first needed

    def csr(self, values: Tensor | None = None) -> Tensor:
        """CSR tensor, with other ``values`` on the same edges if given."""
        return _csr_tensor(
            self.crow, self.col, self.values if values is None else values, self.shape
        )

    def t_csr(self, values: Tensor | None = None) -> Tensor:
        """CSR tensor of the transpose; ``values`` as in :meth:`csr`."""
        shape = (self.shape[1], self.shape[0])
        if values is None:
            return _csr_tensor(self.t_crow, self.t_col, self.t_values, shape)
        if self.t_order is None:
            rows, cols, _ = self.edges()
            self.t_order = torch.argsort(cols * self.shape[0] + rows)
        return _csr_tensor(self.t_crow, self.t_col, values[self.t_order], shape)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Take the stored arrays even where their number of edges differs from ours."""
        for name in ("crow", "col", "values"):
            stored = state_dict.get(prefix + name)
            if stored is not None and stored.shape != getattr(self, name).shape:
                setattr(self, name, stored.to(getattr(self, name)))
        super()._load_from_state_dict(state_dict, prefix, *args)
        self._build_transpose()


class _SparseProduct(torch.autograd.Function):
    """Sparse x dense whose backward pass uses the stored transpose instead of making one."""

    @staticmethod
    def forward(ctx: Any, dense: Tensor, matrix: Tensor, transposed: Tensor) -> Tensor:
        ctx.transposed = transposed
        return matrix @ dense

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return ctx.transposed @ grad, None, None


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
        with warnings.catch_warnings():  # torch announces once a process that CSR is in beta
            warnings.filterwarnings("ignore", message="Sparse CSR tensor support")
            return torch.sparse_csr_tensor(crow, col, values, shape, check_invariants=False)
    edges = torch.stack([_expand(crow), col.long()])
    return torch.sparse_coo_tensor(edges, values, shape, check_invariants=False)


def _expand(crow: Tensor) -> Tensor:
    counts = (crow[1:] - crow[:-1]).long()
    return torch.repeat_interleave(torch.arange(counts.numel(), device=crow.device), counts)


# ----------------------------------------------------------------------------- normalisations


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


# ------------------------------------------------------------------------------- propagation


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
    user_sum, item_sum = users, items
    for _ in range(n_layers):
        users, items = adjacency @ items, adjacency.t_matmul(users)
        user_sum, item_sum = user_sum + users, item_sum + items
    return user_sum / (n_layers + 1), item_sum / (n_layers + 1)


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


# ---------------------------------------------------------------------------------- k nearest


@torch.no_grad()
def knn_graph(
    features: Tensor,
    k: int,
    observed: Tensor,
    missing: str = "imputed",
    weighted: bool = True,
    excluded: Tensor | None = None,
    block_size: int = 1024,
) -> SparseMatrix:
    """Cosine k-nearest-neighbour graph, exact, built in row blocks.

    Args:
        features: shape ``(n_items, dim)``; row 0 (padding) gets no edge.
        k: neighbours of a row, the row itself among them when it is near enough; at most the
            number of candidates.
        observed: bool ``(n_items,)``: who truly has the modality.
        missing: what happens to the other items. ``imputed``: their rows take part like any other
            (right behind FeatProp). ``isolated``: a self loop of weight 1 is their only edge and
            they are nobody's neighbour, so that observed rows fill up with observed neighbours of
            positive similarity (right behind mean and zeros). ``isolated_after_topk``: the same,
            but their edges are cut after the top-k, so that observed rows keep fewer neighbours
            (DGMRec).
        weighted: keep the cosine as weight, else 1.
        excluded: bool ``(n_items,)``: items that are isolated whatever they have, before the
            top-k (new items, while a model trains).
        block_size: rows of one block; memory is ``block_size * n_items`` floats.

    Returns:
        A directed adjacency of shape ``(n_items, n_items)``, not normalised. Among equal
        similarities (on a grid of 2^-20) the smaller item id wins, on every device and for every
        block size: identical rows, as mean imputation makes them, are compared only once.
    """
    n_items = features.shape[0]
    real = torch.ones(n_items, dtype=torch.bool, device=features.device)
    real[0] = False
    excluded = torch.zeros_like(real) if excluded is None else real & excluded
    isolated = excluded | (real & ~observed) if missing != "imputed" else excluded
    left_out = isolated if missing == "isolated" else excluded
    candidates = (real & ~left_out).nonzero()[:, 0]
    n_zeros = min(int(left_out.sum()), k)
    rows, cols, values = _top_similar(features, k, candidates, n_zeros, block_size)
    if not weighted:
        values = torch.ones_like(values)
    kept = ~(isolated[rows] | isolated[cols])
    loops = isolated.nonzero()[:, 0]
    return SparseMatrix(
        torch.cat([rows[kept], loops]),
        torch.cat([cols[kept], loops]),
        torch.cat([values[kept], values.new_ones(loops.numel())]),
        (n_items, n_items),
    )


def _top_similar(
    features: Tensor, k: int, items: Tensor, n_zeros: int, block_size: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Edges from each of ``items`` to its k most similar ones among ``items``.

    ``n_zeros`` others compete with a similarity of zero and leave no edge where they win.
    """
    distinct, position = distinct_rows(features[items])
    unit = nn.functional.normalize(distinct, eps=1e-12)
    if k > items.numel():
        getLogger().warning(f"knn_graph: k is {k}, {items.numel()} items can be neighbours; taken.")
    k = min(k, items.numel() + n_zeros)
    cols, values = [], []
    for block in unit.split(block_size):
        similarity = (block @ unit.T)[:, position]  # (block, n_candidates)
        similarity = nn.functional.pad(similarity, (0, n_zeros))
        value, col = stable_topk(similarity, k)
        cols.append(col)
        values.append(value)
    col, value = torch.cat(cols)[position].flatten(), torch.cat(values)[position].flatten()
    edge = col < items.numel()
    return items.repeat_interleave(k)[edge], items[col[edge]], value[edge]


def distinct_rows(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return the distinct rows and, for every row, which of them it equals.

    Rows are told apart by a 64-bit hash of their bits, which is exact integer arithmetic and so
    the same on every device.
    """
    generator = torch.Generator().manual_seed(0)
    odd = 2 * torch.randint(-(2**62), 2**62, (rows.shape[1],), generator=generator) + 1
    odd = odd.to(rows.device)
    bits = ((block + 0.0).view(torch.int32) for block in rows.split(1024))  # -0.0 becomes 0.0
    # Multiplied before the fold, so that 0/1 features, whose low bits are all 0, keep 64 bits.
    mixed = (((block.long() * _ODD) ^ (block.long() * _ODD >> 32)) * odd for block in bits)
    keys = torch.cat([numbers.sum(dim=1) for numbers in mixed])
    distinct, position = torch.unique(keys, return_inverse=True)
    numbers = torch.arange(len(rows), device=rows.device)
    first = numbers.new_full(distinct.shape, len(rows))
    return rows[first.scatter_reduce(0, position, numbers, "amin")], position


def stable_topk(similarity: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Top k of each row by (similarity on the grid, smaller column); values stay unrounded."""
    key = torch.round(similarity * _TIE_GRID)
    spare = min(k + 1, key.shape[1])
    top, col = key.topk(spare, dim=1)
    col = col[:, :k]
    if spare > k:
        tied = (top[:, k - 1] == top[:, k]).nonzero()[:, 0]
        if tied.numel():
            col = col.clone()
            col[tied] = _lowest_columns(key[tied], top[tied, k - 1, None], k)
    return similarity.gather(1, col), col


def _lowest_columns(key: Tensor, threshold: Tensor, k: int) -> Tensor:
    """Columns above the threshold, then the first ones equal to it, exactly k a row."""
    above, equal = key > threshold, key == threshold
    room = k - above.sum(dim=1, keepdim=True)
    chosen = above | (equal & (equal.cumsum(dim=1) <= room))
    return chosen.nonzero()[:, 1].view(-1, k)


# ------------------------------------------------------------------------------ co-interaction


def co_interaction(
    interactions: sparse.spmatrix,
    top_k: int,
    block_work: int = 2**22,
    max_user_items: int | None = None,
    engine: Any = None,
) -> sparse.csr_matrix:
    """Item-item graph: who was interacted with by the same users, each row's strongest ``top_k``.

    Args:
        interactions: training interactions R, shape ``(n_users, n_items)``; any non-zero entry is
            one interaction.
        top_k: entries a row keeps, the item itself (its degree) among them. Larger count first,
            then smaller item id. Rows with fewer co-interacted items stay shorter: no filler.
        block_work: pairs of items that one block of rows of R^T R may have; it bounds memory, the
            product is never whole. A user with d items makes d^2 pairs, so that all cost
            sum_u d_u^2, which is logged.
        max_user_items: leave users with more items than that out of the graph, because they square
            the work and say little. Counts are then those of the other users, and an item that
            nobody else has gets an empty row. Default: everyone counts.
        engine: its method ``map`` runs the blocks (:mod:`recbole_missing.imputation.engine`);
            default one after the other, here.

    Returns:
        Co-interaction counts as CSR, shape ``(n_items, n_items)``, float32, columns sorted;
        directed, because the top-k is taken row by row. The same for every ``block_work`` and
        ``engine``.
    """
    items_by_user = _ones(interactions)
    if max_user_items is not None:
        items_by_user = _without_popular(items_by_user, max_user_items)
    user_items = np.diff(items_by_user.indptr).astype(np.int64)
    _log_pairs(user_items)
    users_by_item = items_by_user.T.tocsr()
    shared = (users_by_item, items_by_user, top_k)
    tasks = _row_blocks(users_by_item, users_by_item @ user_items, block_work)
    if engine is None:
        blocks = [strongest_rows(*shared, rows) for rows in tasks]
    else:
        blocks = list(engine.map(strongest_rows, shared, tasks, "co-interaction"))
    return sparse.vstack(blocks, format="csr")


def strongest_rows(
    users_by_item: sparse.csr_matrix,
    items_by_user: sparse.csr_matrix,
    top_k: int,
    rows: tuple[int, int],
) -> sparse.csr_matrix:
    """Rows ``rows[0]`` to ``rows[1]`` of the graph that :func:`co_interaction` describes.

    The entries are sorted once, as integers that hold (row, falling count, item) in this order.
    """
    counts = users_by_item[rows[0] : rows[1]] @ items_by_user
    counts.sort_indices()
    row, col, count = _without_late_ones(counts, top_k)
    width, height = counts.shape[1], int(counts.data.max(initial=0)) + 1
    keys = (row * height + (height - 1 - count)) * width + col
    keys.sort()
    row = keys // (height * width)
    first = np.searchsorted(row, np.arange(counts.shape[0]))
    kept = np.arange(row.size) - first[row] < top_k
    row, rest = row[kept], keys[kept] % (height * width)
    values = (height - 1 - rest // width).astype(np.float32)
    strongest = sparse.csr_matrix((values, (row, rest % width)), shape=counts.shape)
    strongest.sort_indices()
    return strongest


def _without_late_ones(counts: sparse.csr_matrix, top_k: int) -> tuple[np.ndarray, ...]:
    """Row, column, count (int64), without the ones behind a row's first ``top_k`` ones.

    They are most of a sparse catalogue's pairs, and by the tie rule none of them can be kept.
    """
    row = np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr))
    one = counts.data == 1
    ones = np.concatenate([[0], np.cumsum(one)])  # how many of them stand before an entry
    kept = ~one | (ones[:-1] - ones[counts.indptr[:-1]][row] < top_k)
    return row[kept], counts.indices[kept].astype(np.int64), counts.data[kept].astype(np.int64)


def _ones(interactions: sparse.spmatrix) -> sparse.csr_matrix:
    """R with ones, int32, each interaction once; a copy."""
    matrix = interactions.tocsr(copy=True)
    matrix.eliminate_zeros()
    matrix = sparse.csr_matrix(
        (np.ones(matrix.nnz, dtype=np.int32), matrix.indices, matrix.indptr), matrix.shape
    )
    matrix.sum_duplicates()
    matrix.data[:] = 1
    return matrix


def _without_popular(items_by_user: sparse.csr_matrix, limit: int) -> sparse.csr_matrix:
    few = np.diff(items_by_user.indptr) <= limit
    kept = items_by_user[few]
    getLogger().info(
        f"co_interaction: {(~few).sum():,} of {len(few):,} users have more than {limit} items and "
        f"are left out, with {1 - kept.nnz / max(items_by_user.nnz, 1):.1%} of the interactions."
    )
    return kept


def _log_pairs(user_items: np.ndarray) -> None:
    """Say what the product costs, and who causes it; ``user_items``: items of each user."""
    pairs = int((user_items**2).sum())
    getLogger().info(f"co_interaction: {pairs:,} pairs of items from {len(user_items):,} users.")
    top = np.sort(user_items)[len(user_items) - len(user_items) // 100 :]
    share = int((top**2).sum()) / max(pairs, 1)
    if share > 0.5:
        getLogger().warning(
            f"co_interaction: 1 % of the users, with {top[0]:,} items or more, cause {share:.0%} "
            f"of the {pairs:,} pairs with {top.sum() / user_items.sum():.0%} of the interactions; "
            f"max_user_items={top[0]} leaves out who has more."
        )


def _row_blocks(
    users_by_item: sparse.csr_matrix, pairs: np.ndarray, block_work: int
) -> list[tuple[int, int]]:
    """Consecutive rows of at most ``block_work`` pairs, or one row.

    Blocks are also short enough for a key of :func:`strongest_rows` to fit into 63 bits.
    """
    n_items = users_by_item.shape[0]
    largest = int(np.diff(users_by_item.indptr).max(initial=0)) + 1
    most_rows = max(2**63 // (largest * max(n_items, 1)), 1)
    ends, blocks, start, done = np.cumsum(pairs), [], 0, 0
    while start < n_items:
        stop = int(np.searchsorted(ends, done + block_work, side="right"))
        stop = min(max(stop, start + 1), start + most_rows)
        blocks.append((start, stop))
        start, done = stop, int(ends[stop - 1])
    return blocks
