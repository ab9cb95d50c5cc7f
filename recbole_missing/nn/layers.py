"""Parameters and modules that two or more models share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from recbole_missing.graph.knn import knn_graph
from recbole_missing.graph.normalise import row_sum_norm
from recbole_missing.graph.sparse import SparseMatrix, propagate
from recbole_missing.modality import Modalities, Modality

CPU_BLOCK = 1024  # rows of a block for each thread


def xavier_table(n_rows: int, size: int) -> nn.Parameter:
    """Xavier-uniform table ``(n_rows, size)``.

    Row 0, the padding row, is zero. It does not count among the rows that the width of the
    distribution depends on, so the other rows are drawn as in a table without padding.
    """
    table = torch.zeros(n_rows, size)
    nn.init.xavier_uniform_(table[1:])
    return nn.Parameter(table)


def node_tables(n_users: int, n_items: int, size: int) -> tuple[Tensor, Tensor]:
    """User table ``(n_users, size)`` and item table ``(n_items, size)``.

    They are drawn as one Xavier-normal matrix of all nodes. The padding rows are zero and do not
    count among its rows.
    """
    nodes = nn.init.xavier_normal_(torch.empty(n_users + n_items - 2, size))
    users, items = nodes.split([n_users - 1, n_items - 1])
    return F.pad(users, (0, 0, 1, 0)), F.pad(items, (0, 0, 1, 0))


class FrozenFeatures(nn.Module):
    """Constant features: name -> buffer ``(n_items, dim)``.

    They are read like features that are trained (:func:`trained_features`): as
    ``self.features[name]``.
    """

    def __init__(self, modalities: Modalities) -> None:
        """Copy the features; the data set's own tensors are left alone."""
        super().__init__()
        self._names = list(modalities)
        for name, modality in modalities.items():
            self.register_buffer(name, modality.features.clone())

    def __getitem__(self, name: str) -> Tensor:
        """Features of the modality ``name``."""
        return self.get_buffer(name)

    def items(self) -> Iterable[tuple[str, Tensor]]:
        """Names and features, in the order of the config."""
        return [(name, self[name]) for name in self._names]

    def values(self) -> list[Tensor]:
        """Features, in the order of the config."""
        return [self[name] for name in self._names]


def project(linear: nn.Linear, tables: Iterable[Tensor], ids: Tensor | None = None) -> Tensor:
    """Apply ``linear`` to ``[x_1 | ... | x_M]`` of the rows ``ids (n,)`` or of all: ``(n, size)``.

    Each table x_m ``(n_rows, dim_m)`` meets its columns of the weight, so the tables are not
    concatenated.
    """
    tables = list(tables)
    projected: Tensor = linear.bias
    weights = linear.weight.split([table.shape[1] for table in tables], dim=1)
    for table, weight in zip(tables, weights):
        inputs = table if ids is None else rows(table, ids)
        projected = torch.addmm(projected, inputs, weight.T)
    return projected


def trained_features(modalities: Modalities) -> nn.ParameterDict:
    """Trainable copies of the features: name -> ``(n_items, dim)``, in the order of the config."""
    tables = nn.ParameterDict()  # its constructor would sort a dict by name
    for name, modality in modalities.items():
        tables[name] = nn.Parameter(modality.features.clone())
    return tables


def rows(table: Tensor, ids: Tensor) -> Tensor:
    """Rows ``ids`` of ``table (n, size)``, shape ``(*ids.shape, size)``; the gradient is dense."""
    return F.embedding(ids, table)


def stacked_rows(tables: Iterable[Tensor], ids: Tensor) -> Tensor:
    """Rows ``ids`` of M tables ``(n, size)``, shape ``(M, len(ids), size)``."""
    return torch.stack([rows(table, ids) for table in tables])


def unit_rows(x: Tensor, length: float = 1.0, eps: float = 1e-12) -> Tensor:
    """Length * x / max(|x|, eps) for every row of ``x (..., d)``.

    It is torch's ``normalize`` whose gradient takes half the time.
    """
    scaled: Tensor = _UnitRows.apply(x, length, eps)
    return scaled


class _UnitRows(torch.autograd.Function):
    """With y = x / |x| and the gradient g of y, that of x is (g - <g, y> y) / |x|."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, length: float, eps: float) -> Tensor:
        norms = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        factors = length / norms.clamp(min=eps)
        scaled = x * factors
        ctx.save_for_backward(scaled, factors, (norms > eps).to(x) / length**2)
        return scaled

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        scaled, factors, curved = ctx.saved_tensors
        along = (grad * scaled).sum(dim=-1, keepdim=True) * curved
        return torch.addcmul(grad, scaled, along, value=-1).mul_(factors), None, None


def exp_is_safe(bound: float | None) -> bool:
    """Whether sums of exp(x) with |x| <= ``bound`` stay far inside the range of float32.

    Then no largest x need be subtracted. None: no bound is known.
    """
    return bound is not None and bound <= 40


def cached_rows(n_columns: int, like: Tensor, entries: int = 2**18, fewest: int = 1) -> int:
    """How many rows of ``n_columns`` numbers make a block.

    Args:
        n_columns: width of a row.
        like: a tensor of the device. On a GPU few large blocks are faster.
        entries: of a block for each thread of a CPU, whose cache holds it. The default is 1 MiB;
            on a GPU a block always has 2^26.
        fewest: rows of a block in any case.
    """
    together = 2**26 if like.is_cuda else entries * torch.get_num_threads()
    return max(fewest, together // max(n_columns, 1))


def row_blocks(*tables: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Blocks of the same rows of all ``tables``; what is done with one finds it in the CPU's cache.

    On a GPU all rows are one block.
    """
    n_rows = max(1, len(tables[0]))
    size = n_rows if tables[0].is_cuda else CPU_BLOCK * torch.get_num_threads()
    return zip(*(table.split(size) for table in tables))


def perturb(x: Tensor, n_draws: int | None = None) -> Tensor:
    """Noise: x + 0.1 sign(x) * u / |u| for every row of x, u uniform on [0, 1).

    Args:
        x: shape ``(rows, d)``.
        n_draws: number of u that are drawn, at least one for each row; row r takes number r.
            Default: as many as there are rows.

    Source: Yu et al., "Are Graph Augmentations Necessary?", SIGIR 2022, eq. 7.
    """
    drawn = torch.rand_like(x if n_draws is None else x.new_empty(n_draws, x.shape[1]))
    noise = drawn[: len(x)]
    noise *= 0.1 / torch.linalg.vector_norm(noise, dim=1, keepdim=True).clamp_(min=1e-12)
    return torch.addcmul(x, x.detach().sign(), noise)


class ItemGraph(nn.Module):
    """A constant item-item graph. While the model trains, new items have no edge to other items.

    Args:
        full: the graph of evaluation, normalised, shape ``(n_items, n_items)``.
        without_new: the graph of training. None: ``full`` serves both modes.
    """

    def __init__(self, full: SparseMatrix, without_new: SparseMatrix | None = None) -> None:
        """Take both graphs."""
        super().__init__()
        self.full, self.without_new = full, without_new

    @classmethod
    def build(cls, make: Callable[[Tensor], SparseMatrix], new_items: Tensor) -> ItemGraph:
        """Make both graphs with one function.

        Args:
            make: returns the normalised graph. Its argument, bool ``(n_items,)``, says which items
                must have no edge to other items.
            new_items: bool ``(n_items,)``. If there are none, one graph serves both modes.
        """
        full = make(torch.zeros_like(new_items))
        return cls(full, make(new_items) if new_items.any() else None)

    @property
    def current(self) -> SparseMatrix:
        """The graph of the mode, training or evaluation, that the module is in."""
        if self.training and self.without_new is not None:
            return self.without_new
        return self.full

    def __matmul__(self, dense: Tensor) -> Tensor:
        """Multiply the current graph by ``dense (n_items, d)``."""
        return self.current @ dense


def knn_item_graph(
    modality: Modality, k: int, missing: str, new_items: Tensor, device: Any = None
) -> ItemGraph:
    """Cosine-weighted kNN graph of a modality, normalised by row sums (LATTICE and successors).

    Args:
        modality: its completed features.
        k, missing: see :func:`~recbole_missing.graph.knn.knn_graph`.
        new_items: bool ``(n_items,)``. In training they are left out of the neighbour search.
        device: where neighbours are searched; default: where the features are.
    """
    x, observed = modality.features, modality.observed

    def make(excluded: Tensor) -> SparseMatrix:
        return row_sum_norm(knn_graph(x, k, observed, missing, excluded=excluded, device=device))

    return ItemGraph.build(make, new_items)


class PurifiedItems(nn.Module):
    """Item identities, gated by each modality's features and smoothed on its kNN graph.

    For every modality m, with item identities E_i, features X_m and its kNN graph A_m::

        P_m = E_i * sigmoid((X_m W_m + b_m) W'_m + b'_m)         -> self.gates
        H_m = A_m^L P_m, L = n_layers                            -> propagate

    Args:
        modalities: completed modalities; their features are trained.
        size: width d of the identities.
        k, missing, new_items, device: see :func:`knn_item_graph`.

    Source: the behaviour-guided purifier of MGCN (ACM MM 2023); GUME (CIKM 2024) has the same.
    """

    def __init__(
        self,
        modalities: Modalities,
        size: int,
        k: int,
        missing: str,
        new_items: Tensor,
        device: Any = None,
    ) -> None:
        """Create feature tables and gates, and build the graphs."""
        super().__init__()
        self.features = trained_features(modalities)
        self.gates, self.item_graphs = nn.ModuleDict(), nn.ModuleDict()
        for name, modality in modalities.items():
            layers = nn.Linear(modality.dim, size), nn.Linear(size, size), nn.Sigmoid()
            self.gates[name] = nn.Sequential(*layers)
            self.item_graphs[name] = knn_item_graph(modality, k, missing, new_items, device)

    def forward(self, identities: Tensor, n_layers: int) -> dict[str, Tensor]:
        """H_m of all items for ``identities (n_items, d)``: name -> ``(n_items, d)``."""
        smoothed = {}
        for name, graph in self.item_graphs.items():
            gate: Any = self.gates[name]
            # Two linear maps in a row are one: (X W + b) W' + b' = X (W W') + (b W' + b').
            weight, bias = gate[1].weight @ gate[0].weight, gate[1](gate[0].bias)
            purified = identities * F.linear(self.features[name], weight, bias).sigmoid()
            smoothed[name] = propagate(graph, purified, n_layers)
        return smoothed


class Integration(nn.Module):
    """One vector of all modalities: what they have in common, and what is special in each.

    For every node with a behaviour vector c and content h_m of M modalities::

        w_m     = softmax over m of w2^T tanh(W1 h_m + b1)       -> self.attention
        common  = sum_m w_m h_m
        special = sum_m sigmoid(V_m c + v_m) * (h_m - common)    -> self.preferences
        result  = (special + common) / (M + 1)

    Args:
        size: width d of every vector.
        names: of the modalities.

    Source: MGCN (ACM MM 2023) and GUME (CIKM 2024), which calls them coarse and fine.
    """

    def __init__(self, size: int, names: Iterable[str]) -> None:
        """Create the attention, which all modalities share, and a gate for each modality."""
        super().__init__()
        self.attention = nn.Sequential(
            nn.Linear(size, size), nn.Tanh(), nn.Linear(size, 1, bias=False)
        )
        self.preferences = nn.ModuleDict({name: nn.Linear(size, size) for name in names})

    def forward(self, behaviour: Tensor, content: Tensor) -> Tensor:
        """Return ``(n, d)`` for nodes with ``behaviour (n, d)`` and ``content (M, n, d)``."""
        shares = self.attention(content).softmax(dim=0)  # (M, n, 1)
        common = (shares * content).sum(dim=0)
        liked = torch.stack([gate(behaviour) for gate in self.preferences.values()]).sigmoid()
        special = (liked * (content - common)).sum(dim=0)
        return (special + common) / (len(content) + 1)
