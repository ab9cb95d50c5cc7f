"""FREEDOM: a frozen item graph smooths item identities; user-item edges are re-drawn every epoch.

Paper:   Zhou and Shen, "A Tale of Two Graphs: Freezing and Denoising Graph Structures for
         Multimodal Recommendation", ACM MM 2023, https://arxiv.org/abs/2211.06924
Code:    https://github.com/enoche/MMRec, src/models/freedom.py, e775373 (read for facts)
Follows: code. The feature tables are trained, and the kNN edges count 1 each and are normalised
         by row sums on both sides.
Quirks:  `reg_weight` weighs the content BPR terms, there is no norm penalty. With mean imputation
         all items that lack a modality point to the same k of them (`knn_missing: imputed`,
         published; `isolated` avoids it). New items are cut off from the item graph in training.
Needs:   User-item graph, one kNN graph of all modalities; trains the feature tables.
Missing: Works on imputed features; `knn_missing` says what its item graph does with lacking items.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from recbole_missing.config.constraints import Choice, Float, Int
from recbole_missing.graph.knn import KNN_MISSING, knn_graph
from recbole_missing.graph.normalise import row_sum_norm, symmetric_norm
from recbole_missing.graph.sparse import SparseMatrix, light_gcn, propagate
from recbole_missing.model.base import MultimodalRecommender
from recbole_missing.nn.layers import ItemGraph, feature_table, rows, xavier_table
from recbole_missing.nn.losses import bpr_loss


def draw_edges(weights: Tensor, n_drawn: int) -> Tensor:
    """Positions of distinct edges, drawn one by one with probabilities proportional to ``weights``.

    An exponential race: the same law as ``torch.multinomial`` without replacement, which refuses
    more than 2^24 edges.

    Args:
        weights: positive, shape ``(n_edges,)``.
        n_drawn: how many, at most ``n_edges``; the result has shape ``(n_drawn,)``.
    """
    return (weights / torch.empty_like(weights).exponential_()).topk(n_drawn).indices


def keep_edges(matrix: SparseMatrix, kept: Tensor | slice) -> SparseMatrix:
    """Normalise the binary graph of the edges ``kept`` anew, by its own degrees.

    Args:
        matrix: user-item graph, shape ``(n_users, n_items)``.
        kept: positions, a bool mask or a slice, in the order of ``matrix.edges()``.
    """
    users, items, values = matrix.edges()
    ones = torch.ones_like(values[kept])
    return symmetric_norm(SparseMatrix(users[kept], items[kept], ones, matrix.shape))


class FREEDOM(MultimodalRecommender):
    """LightGCN on a pruned user-item graph, plus item vectors smoothed on the item graph."""

    hyperparameters = {
        "embedding_size": Int(min=1),
        "n_ui_layers": Int(min=0),
        "n_mm_layers": Int(min=0),
        "knn_k": Int(min=1),
        "knn_missing": Choice(*KNN_MISSING),
        "first_modality_weight": Float(min=0, max=1),
        "dropout": Float(min=0, max=1),
        "reg_weight": Float(min=0),
    }

    def __init__(self, config: Any, dataset: Any) -> None:
        """Create tables and projections, and build the graphs."""
        super().__init__(config, dataset)
        size = self.embedding_size
        self.user = xavier_table(self.n_users, size)
        self.item = xavier_table(self.n_items, size)
        self.features = nn.ParameterDict(
            {name: feature_table(modality) for name, modality in self.modalities.items()}
        )
        self.projections = nn.ModuleDict(
            {name: nn.Linear(modality.dim, size) for name, modality in self.modalities.items()}
        )
        self.item_graph = ItemGraph(self._mixed_item_graph, self.new_items)
        self.user_item = symmetric_norm(self.user_item_matrix(dataset))
        self.pruned = keep_edges(self.user_item, slice(None))

    def on_epoch_start(self, minimise: Callable[[Tensor], None]) -> None:
        """Draw the user-item edges of the epoch; edges of low degree are favoured."""
        if self.dropout > 0:
            weights = self.user_item.values
            n_drawn = int(weights.numel() * (1 - self.dropout))
            self.pruned = keep_edges(self.user_item, draw_edges(weights, n_drawn))

    def encode(self) -> tuple[Tensor, Tensor]:
        """Users and items, ``(n, d)``: the pruned graph in training, the full one for scores."""
        graph = self.pruned if self.training else self.user_item
        users, items = light_gcn(graph, self.user, self.item, self.n_ui_layers)
        return users, items + propagate(self.item_graph, self.item, self.n_mm_layers)

    def loss_terms(self, interaction: Any) -> dict[str, Tensor]:
        """BPR of the final vectors and, per modality, of projected content against the users."""
        batch = self.batch(interaction)
        users, positives, negatives = self.gather(*self.encode(), batch)
        terms = {"bpr": bpr_loss(users, positives, negatives)}
        if self.reg_weight == 0:  # the wide feature tables then cost nothing
            return terms
        for name, projection in self.projections.items():
            content = (projection(rows(self.features[name], ids)) for ids in batch[1:])
            terms[f"bpr_{name}"] = self.reg_weight * bpr_loss(users, *content)
        return terms

    def _mixed_item_graph(self, excluded: Tensor) -> SparseMatrix:
        """Weighted sum of the modalities' unweighted kNN graphs, ``(n_items, n_items)``."""
        others = len(self.modalities) - 1
        first = self.first_modality_weight
        weights = [first] + [(1.0 - first) / others] * others if others else [1.0]
        edges = []
        for weight, modality in zip(weights, self.modalities.values()):
            x, observed = modality.features, modality.observed
            graph = knn_graph(x, self.knn_k, observed, self.knn_missing, False, excluded)
            items, neighbours, values = row_sum_norm(graph).edges()
            edges.append((items, neighbours, weight * values))
        items, neighbours, values = (torch.cat(parts) for parts in zip(*edges))
        return SparseMatrix(items, neighbours, values, (self.n_items, self.n_items))
