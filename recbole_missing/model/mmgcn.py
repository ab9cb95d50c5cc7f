"""MMGCN: one graph network a modality; neighbours' means meet a node's own vector and identity.

Paper:   Wei, Wang, Nie, He, Hong and Chua, "MMGCN: Multi-modal Graph Convolution Network for
         Personalized Recommendation of Micro-video", ACM MM 2019,
         https://doi.org/10.1145/3343031.3351034
Code:    https://github.com/enoche/MMRec, src/models/mmgcn.py, e775373 (read for facts)
Follows: code: both halves of a layer are concatenated, and only the last layer counts. Any number
         of modalities: networks apart, outputs averaged; `latent_sizes` says by position which
         features are projected first (released: those of the first modality).
Quirks:  Identities and preferences are random and stay so, hence the penalty is a constant; the
         paper learns them (`train_tables: True`). The DGMRec release scales neighbours' means to
         unit length with two modalities, not with three (`neighbourhood`), and penalises every
         preference (`penalised_preferences`). With three it also sees the true features of items
         that lack them, which no setting repeats.
Needs:   User-item graph; features stay constant.
Missing: Nothing of its own: every item's content is what imputation made of it. New items have no
         neighbour: random identity and own content.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_missing.config.constraints import Bool, Choice, Float, Int, ListOf
from recbole_missing.graph.normalise import row_mean_norm
from recbole_missing.graph.sparse import SparseMatrix, whole_graph
from recbole_missing.modality import Modality
from recbole_missing.model.base import MultimodalRecommender
from recbole_missing.nn.layers import node_tables, rows
from recbole_missing.nn.losses import bpr_loss


class Start(nn.Module):
    """Unit vectors of all nodes before the first layer, for one modality.

    Args:
        modality: its completed features.
        n_users: number of preferences.
        latent_size: width to which features are projected, 0 for none.
        trained: whether preferences are a parameter, else a buffer.
    """

    features: Tensor
    preferences: Tensor
    vectors: Tensor | None
    means: Tensor | None

    def __init__(self, modality: Modality, n_users: int, latent_size: int, trained: bool) -> None:
        """Create preferences and projection."""
        super().__init__()
        self.width = latent_size or modality.dim
        self.projection = nn.Linear(modality.dim, latent_size) if latent_size else None
        self.register_buffer("features", modality.features)
        preferences = torch.zeros(n_users, self.width)
        nn.init.xavier_normal_(preferences[1:])
        _register(self, "preferences", preferences, trained)
        self.register_buffer("vectors", None, persistent=False)
        self.register_buffer("means", None, persistent=False)

    def forward(self, mean: SparseMatrix) -> tuple[Tensor, Tensor]:
        """Vectors ``(n_nodes, width)`` and the means of their neighbours."""
        if self.vectors is not None and self.means is not None:
            return self.vectors, self.means
        items = self.features if self.projection is None else self.projection(self.features)
        x = torch.cat([F.normalize(part, eps=1e-12) for part in (self.preferences, items)])
        return x, mean @ x

    @torch.no_grad()
    def keep(self, mean: SparseMatrix) -> None:
        """Compute both now if training cannot change them."""
        self.vectors = self.means = None
        if self.projection is None and not isinstance(self.preferences, nn.Parameter):
            self.vectors, self.means = self(mean)


class Layer(nn.Module):
    """From width w to d: mixes the neighbours' x C with the node's own x L + b plus identity.

    With ``unit`` the neighbours' x C have a bias, and their mean is scaled to unit length.
    """

    def __init__(self, width: int, size: int, unit: bool) -> None:
        """Create the three transforms."""
        super().__init__()
        self.neighbours = nn.Parameter(nn.init.xavier_normal_(torch.empty(width, width)))
        self.bias = nn.Parameter(torch.zeros(width)) if unit else None
        self.own = nn.Linear(width, size)
        nn.init.xavier_normal_(self.own.weight)
        self.mix = nn.Linear(width + size, size)

    def forward(self, x: Tensor, means: Tensor, identities: Tensor, connected: Tensor) -> Tensor:
        """Return ``(n, d)``; ``connected (n, 1)`` is one where a node has neighbours, else zero."""
        h = means @ self.neighbours  # the mean of x C, ``means`` being those of x
        if self.bias is not None:
            h = F.normalize(h + connected * self.bias, eps=1e-12)
        own = F.leaky_relu(self.own(x)) + identities
        return F.leaky_relu(self.mix(torch.cat([F.leaky_relu(h), own], dim=1)))


class MMGCN(MultimodalRecommender):
    """The mean of one network a modality; users are the first nodes, items the others."""

    hyperparameters = {
        "embedding_size": Int(min=1),
        "latent_sizes": ListOf(Int(min=0)),
        "n_ui_layers": Int(min=1),
        "neighbourhood": Choice("mean", "unit_mean"),
        "penalised_preferences": Choice("first", "all"),
        "train_tables": Bool(),
        "reg_weight": Float(min=0),
    }
    starts: Any
    layers: Any
    identities: Tensor
    connected: Tensor

    def __init__(self, config: Any, dataset: Any) -> None:
        """Create identities, start vectors and layers."""
        super().__init__(config, dataset)
        excess = len(self.latent_sizes) - len(self.modalities)
        if excess > 0:
            raise ValueError(
                "MMGCN: latent_sizes must have at most one entry a modality, got "
                f"{self.latent_sizes} for {list(self.modalities)}; remove {excess}."
            )
        identities = node_tables(self.n_users, self.n_items, self.embedding_size)
        _register(self, "identities", torch.cat(identities), self.train_tables)
        self.mean = row_mean_norm(whole_graph(self.user_item_matrix(dataset)))
        self.register_buffer("connected", (self.mean.row_sums() > 0).float()[:, None])
        self.starts = nn.ModuleDict()
        latent_sizes = [*self.latent_sizes, *[0] * -excess]
        for latent_size, (name, modality) in zip(latent_sizes, self.modalities.items()):
            self.starts[name] = Start(modality, self.n_users, latent_size, self.train_tables)
        self.layers = nn.ModuleList(self._layers(depth) for depth in range(self.n_ui_layers))
        for layer in self.layers[0].values():
            nn.init.xavier_normal_(layer.mix.weight)
        self._keep_constants()

    def encode(self) -> tuple[Tensor, Tensor]:
        """Users ``(n_users, d)`` and items ``(n_items, d)``."""
        users, items = self._outputs().split([self.n_users, self.n_items])
        return users, items

    def loss_terms(self, interaction: Any) -> dict[str, Tensor]:
        """BPR, and mean squares of identities and preferences."""
        user_ids, *item_ids = self.batch(interaction)
        ids = torch.cat([user_ids, *(self.n_users + ids for ids in item_ids)])
        of_users, *of_items = (x.square().mean() for x in rows(self.identities, ids).chunk(3))
        squares = [start.preferences[1:].square().mean() for start in self.starts.values()]
        penalised = squares[:1] if self.penalised_preferences == "first" else squares
        return {
            "bpr": bpr_loss(*self._outputs(ids).chunk(3)),
            "reg_identities": self.reg_weight * (of_users + torch.stack(of_items).mean()),
            "reg_preferences": self.reg_weight * torch.stack(penalised).sum(),
        }

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Load, and compute the constants of what was loaded."""
        result = super().load_state_dict(*args, **kwargs)
        self._keep_constants()
        return result

    def _keep_constants(self) -> None:
        for start in self.starts.values():
            start.keep(self.mean)

    def _layers(self, depth: int) -> nn.ModuleDict:
        size, unit = self.embedding_size, self.neighbourhood == "unit_mean"
        widths = {name: size if depth else start.width for name, start in self.starts.items()}
        return nn.ModuleDict({name: Layer(width, size, unit) for name, width in widths.items()})

    def _outputs(self, ids: Tensor | None = None) -> Tensor:
        """Mean of the networks ``(n, d)``; with ``ids`` only these nodes pass the last layer."""
        vectors, means = zip(*(start(self.mean) for start in self.starts.values()))
        for layers in self.layers[:-1]:
            vectors = self._pass(layers, vectors, means)
            means = (self.mean @ torch.cat(vectors, dim=1)).chunk(len(vectors), dim=1)
        return torch.stack(self._pass(self.layers[-1], vectors, means, ids)).mean(dim=0)

    def _pass(self, layers: Any, vectors: Any, means: Any, ids: Tensor | None = None) -> Any:
        """One ``(n, d)`` a modality, for all nodes or for ``ids``."""

        def at(x: Tensor) -> Tensor:
            return x if ids is None else rows(x, ids)

        identities, connected = at(self.identities), at(self.connected)
        inputs = zip(layers.values(), vectors, means)
        return [layer(at(x), at(mean), identities, connected) for layer, x, mean in inputs]


def _register(module: nn.Module, name: str, table: Tensor, trained: bool) -> None:
    if trained:
        module.register_parameter(name, nn.Parameter(table))
    else:
        module.register_buffer(name, table)
