"""LATTICE: an item graph learned from projected features smooths item identities.

Paper:   Zhang, Zhu, Liu, Wu, Wang and Wang, "Mining Latent Structures for Multimedia
         Recommendation", ACM MM 2021, https://arxiv.org/abs/2104.09036
Code:    https://github.com/enoche/MMRec, src/models/lattice.py, e775373 (read for facts)
Follows: code, with LightGCN as collaborative part (`n_ui_layers: 0` gives matrix factorisation).
         The user-item graph is a random walk with self loops, and the learned graphs are mixed
         before they are normalised, once. Any number of modalities: softmax over their logits.
Quirks:  The graph is learned in the first batch of an epoch; in the others it is constant, and
         projections, features and logits get no gradient at all. The penalty divides by the
         configured `train_batch_size`. Items whose weights do not add up to a positive number get
         zeros, where the release gets NaN. The DGMRec release scores with an unnormalised learned
         part, and with three modalities never normalises it (`normalise_learned`). New items
         start from zero vectors, as there, and have no neighbour while the model trains.
Needs:   User-item graph, a constant and a learned kNN graph a modality; trains the feature tables.
Missing: Nothing of its own: items that lack a modality follow `knn_missing` in its original and in
         its learned graph (the DGMRec release isolates them in the original one only).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_missing.config.constraints import Choice, Float, Int, ListOf, Optional
from recbole_missing.graph.knn import KNN_MISSING, knn_graph
from recbole_missing.graph.normalise import row_mean_norm
from recbole_missing.graph.sparse import propagate, whole_graph
from recbole_missing.model.base import MultimodalRecommender
from recbole_missing.nn.edges import (
    Edges,
    LearnedGraph,
    edge_dots,
    join_edges,
    row_sum_norm_edges,
    scale_edges,
    sum_edges,
)
from recbole_missing.nn.layers import feature_table, knn_item_graph, xavier_table
from recbole_missing.nn.losses import bpr_loss, squared_loss


class LATTICE(MultimodalRecommender):
    """Item vectors of LightGCN plus normalised identities smoothed on a mixed item graph."""

    hyperparameters = {
        "embedding_size": Int(min=1),
        "projection_size": Int(min=1),
        "n_ui_layers": Int(min=0),
        "n_mm_layers": Int(min=0),
        "knn_k": Int(min=1),
        "knn_missing": Choice(*KNN_MISSING),
        "original_weight": Float(min=0, max=1),
        "normalise_learned": Choice("always", "training", "never"),
        "initial_logits": Optional(ListOf(Float())),
        "reg_weight": Float(min=0),
    }

    def __init__(self, config: Any, dataset: Any) -> None:
        """Create tables, projections and logits, and build the constant graphs."""
        super().__init__(config, dataset)
        self.batch_size = config["train_batch_size"]
        self.user = xavier_table(self.n_users, self.embedding_size)
        self.item = xavier_table(self.n_items, self.embedding_size)
        with torch.no_grad():
            self.item[self.new_items] = 0.0
        self.logits = nn.Parameter(self._first_logits())
        self.features, self.projections = nn.ParameterDict(), nn.ModuleDict()
        self.original_graphs = nn.ModuleDict()
        for name, modality in self.modalities.items():
            self.features[name] = feature_table(modality)
            self.projections[name] = nn.Linear(modality.dim, self.projection_size)
            self.original_graphs[name] = knn_item_graph(
                modality, self.knn_k, self.knn_missing, self.new_items
            )
        self.walk = row_mean_norm(whole_graph(self.user_item_matrix(dataset), self_loops=True))
        self._epoch_graph: LearnedGraph | None = None  # scores and checkpoints do without it

    def on_epoch_start(self, minimise: Callable[[Tensor], None]) -> None:
        """Let the next batch learn the item graph anew."""
        self._epoch_graph = None

    def encode(self) -> tuple[Tensor, Tensor]:
        """Users ``(n_users, d)`` and items ``(n_items, d)``, on the graph of these parameters."""
        return self._vectors(self._item_graph())

    def loss_terms(self, interaction: Any) -> dict[str, Tensor]:
        """BPR and the squares of the batch's final vectors."""
        graph = self._epoch_graph or self._item_graph()
        self._epoch_graph = graph.detached()
        vectors = self.gather(*self._vectors(graph), self.batch(interaction))
        return {
            "bpr": bpr_loss(*vectors),
            "reg": self.reg_weight * squared_loss(*vectors) / self.batch_size,
        }

    def _first_logits(self) -> Tensor:
        n, given = len(self.modalities), self.initial_logits
        if given is not None and len(given) != n:
            raise ValueError(
                f"LATTICE: initial_logits must be a list of {n} numbers, one a modality, got "
                f"{given}; leave it empty (~) for equal ones."
            )
        return torch.full((n,), 1.0 / n) if given is None else torch.tensor(given).float()

    def _vectors(self, item_graph: LearnedGraph) -> tuple[Tensor, Tensor]:
        """Mean over the layers of the random walk; items add smoothed directions."""
        layers = [torch.cat([self.user, self.item])]
        for _ in range(self.n_ui_layers):
            layers.append(self.walk @ layers[-1])
        users, items = torch.stack(layers).mean(dim=0).split([self.n_users, self.n_items])
        smoothed = propagate(item_graph, self.item, self.n_mm_layers)
        return users, items + F.normalize(smoothed, eps=1e-12)

    def _item_graph(self) -> LearnedGraph:
        """S = (1 - lambda) Lap(sum_m w_m kNN_m) + lambda sum_m w_m O_m, w = softmax(logits)."""
        learned, parts = [], []
        shares, weight = self.logits.softmax(dim=0), self.original_weight
        for name, observed, share in zip(self.modalities, self.observed.T, shares):
            learned.append(scale_edges(self._learned_edges(name, observed), share))
            parts.append(scale_edges(self.original_graphs[name].current.edges(), weight * share))
        normalised = {"always": True, "training": self.training, "never": False}
        mixed = join_edges(learned)
        if normalised[self.normalise_learned]:
            mixed = row_sum_norm_edges(mixed, self.n_items)
        return sum_edges([scale_edges(mixed, 1.0 - weight), *parts], self.n_items)

    def _learned_edges(self, name: str, observed: Tensor) -> Edges:
        """Nearest neighbours by projected features, found without and weighted with gradient."""
        unit = F.normalize(self.projections[name](self.features[name]), eps=1e-12)
        excluded = self.new_items if self.training else None
        pattern = knn_graph(
            unit.detach(), self.knn_k, observed, self.knn_missing, excluded=excluded
        )
        rows, cols, _ = pattern.edges()
        # An item's cosine with itself is 1; its gradient would be nothing but rounding noise.
        return rows, cols, torch.where(rows == cols, 1.0, edge_dots(pattern, unit, unit))
