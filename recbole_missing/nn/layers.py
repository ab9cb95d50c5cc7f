"""Parameters and modules that two or more models share."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_missing.graph.knn import knn_graph
from recbole_missing.graph.normalise import row_sum_norm
from recbole_missing.graph.sparse import SparseMatrix, propagate
from recbole_missing.modality import Modalities, Modality


def xavier_table(n_rows: int, size: int) -> nn.Parameter:
    """Xavier-uniform table ``(n_rows, size)`` whose padding row 0 is zero and outside the fan."""
    table = torch.zeros(n_rows, size)
    nn.init.xavier_uniform_(table[1:])
    return nn.Parameter(table)


def node_tables(n_users: int, n_items: int, size: int) -> tuple[Tensor, Tensor]:
    """User and item tables, Xavier-normal as one matrix; padding rows are 0 and outside the fan."""
    nodes = nn.init.xavier_normal_(torch.empty(n_users + n_items - 2, size))
    users, items = nodes.split([n_users - 1, n_items - 1])
    return F.pad(users, (0, 0, 1, 0)), F.pad(items, (0, 0, 1, 0))


class FrozenFeatures(nn.Module):
    """Features that training leaves as they are: name -> buffer ``(n_items, dim)``.

    It reads like an ``nn.ParameterDict``, the form in which models hold features that they train
    (:func:`trained_features`), so that ``self.features[name]`` is the same in every model.
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


def trained_features(modalities: Modalities) -> nn.ParameterDict:
    """Trainable copies of the features: name -> ``(n_items, dim)``, in the order of the config."""
    tables = nn.ParameterDict()  # its constructor would sort a dict by name
    for name, modality in modalities.items():
        tables[name] = feature_table(modality)
    return tables


def feature_table(modality: Modality) -> nn.Parameter:
    """Trainable copy of the features, shape ``(n_items, dim)``."""
    return nn.Parameter(modality.features.clone())


def rows(table: Tensor, ids: Tensor) -> Tensor:
    """Rows ``ids`` of ``table``, shape ``(*ids.shape, size)``; its gradient is a dense table."""
    return F.embedding(ids, table)


def perturb(x: Tensor, draws: Tensor | None = None) -> Tensor:
    """Add 0.1 sign(x) * u / |u| to every row of x ``(rows, d)``, u uniform on [0, 1).

    Args:
        x: shape ``(rows, d)``.
        draws: int ``(rows,)``, if given: rows of equal number share one u.

    Source: Yu et al., "Are Graph Augmentations Necessary?", SIGIR 2022, eq. 7.
    """
    noise = F.normalize(torch.rand_like(x), eps=1e-12)
    return x + 0.1 * x.sign() * (noise if draws is None else noise[draws])


class ItemGraph(nn.Module):
    """A constant item-item graph from which new items are cut off while the model trains.

    Args:
        build: makes the normalised graph, shape ``(n_items, n_items)``; its argument, bool
            ``(n_items,)``, says which items must not touch any other.
        new_items: bool ``(n_items,)``. Without new items one graph serves both.
    """

    def __init__(self, build: Callable[[Tensor], SparseMatrix], new_items: Tensor) -> None:
        """Build the graph, and with new items its training form."""
        super().__init__()
        self.full = build(torch.zeros_like(new_items))
        self.without_new = build(new_items) if new_items.any() else None

    @property
    def current(self) -> SparseMatrix:
        """The graph that the mode of the module puts in force."""
        if self.training and self.without_new is not None:
            return self.without_new
        return self.full

    def __matmul__(self, dense: Tensor) -> Tensor:
        """Multiply the current graph by ``dense (n_items, d)``."""
        return self.current @ dense


def knn_item_graph(modality: Modality, k: int, missing: str, new_items: Tensor) -> ItemGraph:
    """Cosine-weighted kNN graph of a modality, normalised by row sums (LATTICE and successors).

    Args:
        modality: its completed features.
        k, missing: see :func:`~recbole_missing.graph.knn_graph`.
        new_items: bool ``(n_items,)``, cut off before the top-k in training.
    """
    x, observed = modality.features, modality.observed

    def build(excluded: Tensor) -> SparseMatrix:
        return row_sum_norm(knn_graph(x, k, observed, missing, excluded=excluded))

    return ItemGraph(build, new_items)


class PurifiedItems(nn.Module):
    """Item identities that each modality's trained features gate, smoothed on its kNN graph.

    Args:
        modalities: completed modalities.
        size: width d of the identities.
        k, missing, new_items: see :func:`knn_item_graph`.

    Source: MGCN (ACM MM 2023), whose gate has two linear maps and one sigmoid; so has GUME's.
    """

    def __init__(
        self, modalities: Modalities, size: int, k: int, missing: str, new_items: Tensor
    ) -> None:
        """Create feature tables and gates, and build the graphs."""
        super().__init__()
        self.features = nn.ParameterDict()
        self.gates, self.graphs = nn.ModuleDict(), nn.ModuleDict()
        for name, modality in modalities.items():
            self.features[name] = feature_table(modality)
            layers = nn.Linear(modality.dim, size), nn.Linear(size, size), nn.Sigmoid()
            self.gates[name] = nn.Sequential(*layers)
            self.graphs[name] = knn_item_graph(modality, k, missing, new_items)

    def forward(self, identities: Tensor, n_layers: int) -> list[Tensor]:
        """Turn ``identities (n_items, d)`` into one ``(n_items, d)`` a modality."""
        return [
            propagate(graph, identities * self.gates[name](self.features[name]), n_layers)
            for name, graph in self.graphs.items()
        ]


class Integration(nn.Module):
    """Attention finds what modalities have in common, gates pick from what is special in each.

    Args:
        size: width d of every vector.
        names: of the modalities.

    Source: MGCN (ACM MM 2023) and GUME (CIKM 2024, where common is coarse and special is fine).
    """

    def __init__(self, size: int, names: Iterable[str]) -> None:
        """Create the attention, which all modalities share, and a gate for each."""
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
