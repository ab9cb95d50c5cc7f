"""LATTICE: item identities are smoothed on an item graph learned from projected features.

Paper:   Zhang, Zhu, Liu, Wu, Wang and Wang, "Mining Latent Structures for Multimedia
         Recommendation", ACM MM 2021, https://arxiv.org/abs/2104.09036
Code:    https://github.com/enoche/MMRec, src/models/lattice.py, e775373 (read for facts)
Follows: code, with LightGCN as collaborative part (`n_ui_layers: 0` gives matrix factorisation).
         The user-item graph is a random walk with self loops. The learned graphs are mixed first,
         and the mixture is normalised. The weights of the modalities are a softmax over any number
         of logits.
Quirks:  The graph is learned in the first batch of an epoch. In the other batches it is constant,
         and projections, features and logits get no gradient at all. The penalty divides by the
         configured `train_batch_size`, whatever the rows of the batch. An item whose edge weights
         do not add up to a positive number gets zero weights; the code gets NaN. The DGMRec
         release scores with an unnormalised learned part, and with three modalities it never
         normalises that part (`normalise_learned`). As in that release, new items start from zero
         vectors, and they have no neighbour while the model trains.
Needs:   User-item graph, and for every modality a constant and a learned kNN graph. The feature
         tables are trained.
Missing: `knn_missing` says what an item that lacks a modality does in both kNN graphs of that
         modality. The DGMRec release isolates such items in the constant graph only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from recbole_missing.config.constraints import Choice, Float, Int, ListOf, Optional
from recbole_missing.graph.knn import KNN_MISSING, knn_graph
from recbole_missing.graph.normalise import row_mean_norm
from recbole_missing.graph.sparse import layer_mean, propagate, whole_graph
from recbole_missing.model.base import MultimodalRecommender
from recbole_missing.nn.distinct import distinct
from recbole_missing.nn.edges import (
    Edges,
    LearnedGraph,
    edge_dots,
    join_edges,
    row_sum_norm_edges,
    scale_edges,
    sum_edges,
)
from recbole_missing.nn.layers import (
    knn_item_graph,
    rows,
    trained_features,
    unit_rows,
    xavier_table,
)
from recbole_missing.nn.losses import bpr_loss, squared_loss

# The model, with the paper's symbols; X_m are the features that training changes, X_m^0 those that
# imputation completed; kNN keeps the k largest entries of every row:
#
# Item graph, for every modality m:
#   O_m        = Lap(kNN(cos(X_m^0, X_m^0)))                  constant       -> self.item_graphs[m]
#   B_m        = kNN(cos(X_m W_m + b_m, X_m W_m + b_m))       learned        -> self._learned_edges
#   Lap(B)_ij  = r_i^-1/2 B_ij r_j^-1/2, r the row sums of B                    row_sum_norm_edges
#   w          = softmax(logits)
#   S          = (1 - lambda) Lap(sum_m w_m B_m) + lambda sum_m w_m O_m      -> self._item_graph
# Vectors, N = D^-1 (A + I) over all nodes, L = n_ui_layers:
#   h          = S^n_mm_layers E_i
#   z_u, z_i   = mean over l = 0..L of N^l [E_u; E_i]                        -> self.walk_graph
#   user u     = z_u,   item i = z_i + h_i / |h_i|                           -> self._vectors
#   score(u,i) = <user u, item i>
#
# For a batch of triples (u, p, n):
#
#   bpr = mean of -log sigmoid(score(u,p) - score(u,n))                      -> losses.bpr_loss
#   reg = reg_weight / (2 train_batch_size) * sum (|user u|^2 + |item p|^2 + |item n|^2)


class LATTICE(MultimodalRecommender):
    """LightGCN, plus item identities smoothed on a mixture of constant and learned graphs."""

    idle_parameters: ClassVar[dict[str, str]] = {
        "logits": "With one modality its weight is 1, whatever the logit.",
    }
    hyperparameters = {
        "embedding_size": Int(min=1),  # d
        "projection_size": Int(min=1),  # width of the features that the learned graph compares
        "n_ui_layers": Int(min=0),  # L, products with the user-item graph
        "n_mm_layers": Int(min=0),  # products with the item graph S
        "knn_k": Int(min=1),  # entries kept in a row of a kNN graph, the item's own included
        "knn_missing": Choice(*KNN_MISSING),  # what kNN does with items that lack the modality
        "original_weight": Float(min=0, max=1),  # lambda, share of the constant graphs
        "normalise_learned": Choice("always", "training", "never"),  # when Lap is applied to B
        "initial_logits": Optional(ListOf(Float())),  # logits of the modalities before training
        "reg_weight": Float(min=0),  # weight of the squared norms
    }

    remade: ClassVar[tuple[str, ...]] = ("_epoch_graph",)

    def __init__(self, config: Any, dataset: Any) -> None:
        """Create tables, projections and logits, and build the constant graphs."""
        super().__init__(config, dataset)
        self.batch_size = config["train_batch_size"]
        self.user_embedding = xavier_table(self.n_users, self.embedding_size)
        self.item_embedding = xavier_table(self.n_items, self.embedding_size)
        with torch.no_grad():
            self.item_embedding[self.new_items] = 0.0
        self.logits = nn.Parameter(self._first_logits())
        self.features = trained_features(self.modalities)
        self.projections, self.item_graphs = nn.ModuleDict(), nn.ModuleDict()
        for name, modality in self.modalities.items():
            self.projections[name] = nn.Linear(modality.dim, self.projection_size)
            self.item_graphs[name] = knn_item_graph(
                modality, self.knn_k, self.knn_missing, self.new_items, self.device
            )
        nodes = whole_graph(self.user_item_matrix(dataset), self_loops=True)
        self.walk_graph = row_mean_norm(nodes)
        # S of this epoch as a constant; a cache, which scores and checkpoints do without
        self._epoch_graph: LearnedGraph | None = None

    def on_epoch_start(self, minimise: Callable[[Tensor], None]) -> None:
        """Let the next batch learn the item graph anew."""
        self._epoch_graph = None

    def encode(self) -> tuple[Tensor, Tensor]:
        """Users ``(n_users, d)`` and items ``(n_items, d)``, with S of the present parameters."""
        users, items, smoothed = self._vectors(self._item_graph())
        return users, items + unit_rows(smoothed)

    def loss_terms(self, interaction: Any) -> dict[str, Tensor]:
        """BPR loss and the squared norms of the batch's vectors."""
        item_graph = self._epoch_graph or self._item_graph()
        self._epoch_graph = item_graph.detached()
        user_ids, positive_ids, negative_ids = self.batch(interaction)
        once_users = distinct(user_ids)
        once_items = distinct(torch.cat([positive_ids, negative_ids]))
        all_users, all_items, smoothed = self._vectors(item_graph)
        items = rows(all_items, once_items.ids) + unit_rows(rows(smoothed, once_items.ids))
        users = once_users.spread(rows(all_users, once_users.ids))
        positives, negatives = once_items.spread(items).chunk(2)
        squares = squared_loss(users, positives, negatives)
        return {
            "bpr": bpr_loss(users, positives, negatives),
            "reg": self.reg_weight * squares / self.batch_size,
        }

    def _first_logits(self) -> Tensor:
        """Logits of the modalities before training, shape ``(M,)``."""
        n, given = len(self.modalities), self.initial_logits
        if given is None:
            return torch.full((n,), 1.0 / n)
        if len(given) != n:
            raise ValueError(
                f"LATTICE: initial_logits must be a list of {n} numbers, one a modality, got "
                f"{given}; leave it empty (~) for equal ones."
            )
        return torch.tensor(given).float()

    def _item_graph(self) -> LearnedGraph:
        """S, shape ``(n_items, n_items)``, sparse, with a gradient."""
        weight = self.original_weight  # lambda
        shares = self.logits.softmax(dim=0)  # w
        learned, original = [], []
        for name, observed, share in zip(self.modalities, self.observed.T, shares):
            learned.append(scale_edges(self._learned_edges(name, observed), share))
            constant = self.item_graphs[name].current.edges()
            original.append(scale_edges(constant, weight * share))
        mixture = join_edges(learned)
        when = self.normalise_learned
        if when == "always" or (when == "training" and self.training):
            mixture = row_sum_norm_edges(mixture, self.n_items)
        return sum_edges([scale_edges(mixture, 1.0 - weight), *original], self.n_items)

    def _learned_edges(self, name: str, observed: Tensor) -> Edges:
        """B_m: neighbours are found without gradient, their cosines have one."""
        unit = unit_rows(self.projections[name](self.features[name]))
        new_items = self.new_items if self.training else None
        pattern = knn_graph(
            unit.detach(), self.knn_k, observed, self.knn_missing, excluded=new_items
        )
        row, col, _ = pattern.edges()
        # An item's cosine with itself is 1; its gradient would be nothing but rounding noise.
        return row, col, torch.where(row == col, 1.0, edge_dots(pattern, unit, unit))

    def _vectors(self, item_graph: LearnedGraph) -> tuple[Tensor, Tensor, Tensor]:
        """z_u ``(n_users, d)``, z_i ``(n_items, d)`` and h ``(n_items, d)``."""
        nodes = torch.cat([self.user_embedding, self.item_embedding])
        vectors = layer_mean(self.walk_graph, nodes, self.n_ui_layers)
        users, items = vectors.split([self.n_users, self.n_items])
        return users, items, propagate(item_graph, self.item_embedding, self.n_mm_layers)
