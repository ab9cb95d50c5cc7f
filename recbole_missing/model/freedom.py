"""FREEDOM: a frozen item graph smooths item identities; user-item edges are re-drawn every epoch.

Paper:   Zhou and Shen, "A Tale of Two Graphs: Freezing and Denoising Graph Structures for
         Multimodal Recommendation", ACM MM 2023, https://arxiv.org/abs/2211.06924
Code:    https://github.com/enoche/MMRec, src/models/freedom.py, e775373 (read for facts)
Follows: code. The feature tables are trained. A kNN edge counts 1, whatever its cosine, and the
         normalisation takes row sums for both ends of an edge.
Quirks:  `reg_weight` weighs the BPR terms of the content. There is no norm penalty. With mean
         imputation, all items that lack a modality have the same k neighbours (`knn_missing:
         imputed`, as published; `isolated` avoids it). In training, new items have no edge to
         other items in the item graph.
Needs:   User-item graph, one kNN graph of all modalities; trains the feature tables.
Missing: Works on imputed features; `knn_missing` says what its item graph does with lacking items.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from recbole_missing.config.constraints import Choice, Float, Int
from recbole_missing.graph.knn import KNN_MISSING, knn_graph
from recbole_missing.graph.normalise import row_sum_norm, symmetric_norm
from recbole_missing.graph.sparse import SparseMatrix, light_gcn, propagate
from recbole_missing.model.base import MultimodalRecommender
from recbole_missing.nn.distinct import distinct
from recbole_missing.nn.layers import ItemGraph, rows, trained_features, xavier_table
from recbole_missing.nn.losses import bpr_loss

# The model in formulas; R is the binary training matrix, A the graph of R.
#
# Once
#   Identities       E_u, E_i                         -> self.user_embedding, self.item_embedding
#   Item graph       B_m: 1 for each of the k nearest items by cosine of X_m, the item among them;
#                    S_m = B_m,ij / sqrt(r_i r_j), r the row sums of B_m;
#                    S   = sum_m weight_m S_m                             -> self._build_item_graph
#   User-item graph  N = D^-1/2 A D^-1/2                                  -> self.user_item_graph
# Once an epoch
#   Pruned graph     draw (1 - dropout) of the edges without replacement, with probabilities
#                    proportional to N_ui                                 -> draw_edges
#                    N' = D'^-1/2 A' D'^-1/2 of the drawn edges           -> keep_edges
# Forward
#   Users, items     Z_0 = [E_u ; E_i] by rows,  Z_l+1 = N' Z_l (N for scores),
#                    z_u, z_i = mean of Z_0 .. Z_L                        -> light_gcn
#   Item view        h = S^L E_i                                          -> propagate
#   Final vectors    user = z_u,  item = z_i + h;  score = <user, item>   -> self.encode
#   Content          f_m = X_m W_m + b_m                                  -> self.projections
# Losses of a batch of triples (u, p, n)                                  -> self.loss_terms
#   bpr(u, p, n) = mean of -log sigmoid(<u, p> - <u, n>)
#   loss = bpr(user_u, item_p, item_n) + reg_weight sum_m bpr(user_u, f_m,p, f_m,n)


def draw_edges(weights: Tensor, n_drawn: int) -> Tensor:
    """Positions of distinct edges, drawn one by one with probabilities proportional to ``weights``.

    Each edge gets a random time, exponential with rate ``weights``, and the earliest ones win.
    This is the law of ``torch.multinomial`` without replacement, which refuses more than 2^24
    edges.

    Args:
        weights: positive, shape ``(n_edges,)``.
        n_drawn: how many, at most ``n_edges``; the result has shape ``(n_drawn,)``.
    """
    return (weights / torch.empty_like(weights).exponential_()).topk(n_drawn).indices


def keep_edges(matrix: SparseMatrix, kept: Tensor | slice) -> SparseMatrix:
    """Keep the edges ``kept`` with weight 1 and normalise the graph by its new degrees.

    Args:
        matrix: user-item graph, shape ``(n_users, n_items)``.
        kept: positions, a bool mask or a slice, in the order of ``matrix.edges()``.
    """
    users, items, values = matrix.edges()
    ones = torch.ones_like(values[kept])
    return symmetric_norm(SparseMatrix(users[kept], items[kept], ones, matrix.shape))


class FREEDOM(MultimodalRecommender):
    """LightGCN on a pruned graph plus a view of the item graph; formulas stand above."""

    hyperparameters = {
        "embedding_size": Int(min=1),  # d, width of every vector
        "n_ui_layers": Int(min=0),  # L of users and items
        "n_mm_layers": Int(min=0),  # L of the item view
        "knn_k": Int(min=1),  # neighbours of an item in B_m, the item itself among them
        "knn_missing": Choice(*KNN_MISSING),  # what B_m does with items that lack m
        "first_modality_weight": Float(min=0, max=1),  # weight_1; the others share the rest
        "dropout": Float(min=0, max=1),  # share of the edges that an epoch leaves out
        "reg_weight": Float(min=0),  # of the content's BPR terms
    }
    idle_parameters: ClassVar[dict[str, str]] = {
        "projections.*.bias": "It cancels in f_m,p - f_m,n. What is left is rounding.",
    }

    def __init__(self, config: Any, dataset: Any) -> None:
        """Create tables and projections, and build the graphs."""
        super().__init__(config, dataset)
        size = self.embedding_size
        self.user_embedding = xavier_table(self.n_users, size)
        self.item_embedding = xavier_table(self.n_items, size)
        self.features, self.projections = trained_features(self.modalities), nn.ModuleDict()
        for name, modality in self.modalities.items():
            self.projections[name] = nn.Linear(modality.dim, size)
        self.item_graph = ItemGraph.build(self._build_item_graph, self.new_items)
        self.user_item_graph = symmetric_norm(self.user_item_matrix(dataset))
        self.pruned_graph = keep_edges(self.user_item_graph, slice(None))

    def _build_item_graph(self, excluded: Tensor) -> SparseMatrix:
        """S, ``(n_items, n_items)``; items ``excluded (n_items,)`` have no edge to other items."""
        weights = [self.first_modality_weight]
        n_others = len(self.modalities) - 1
        weights += [(1.0 - self.first_modality_weight) / max(n_others, 1)] * n_others
        if not n_others:
            weights = [1.0]
        edges = []
        for weight, modality in zip(weights, self.modalities.values()):
            neighbours = self.knn_k, modality.observed, self.knn_missing
            options = {"weighted": False, "excluded": excluded, "device": self.device}
            nearest = knn_graph(modality.features, *neighbours, **options)
            items, others, values = row_sum_norm(nearest).edges()
            edges.append((items, others, weight * values))
        items, others, values = (torch.cat(parts) for parts in zip(*edges))
        return SparseMatrix(items, others, values, (self.n_items, self.n_items))

    def on_epoch_start(self, minimise: Callable[[Tensor], None]) -> None:
        """Draw the edges of the epoch. N_ui is larger where user and item have few edges."""
        if self.dropout > 0:
            weights = self.user_item_graph.values
            n_drawn = int(weights.numel() * (1 - self.dropout))
            self.pruned_graph = keep_edges(self.user_item_graph, draw_edges(weights, n_drawn))

    def encode(self) -> tuple[Tensor, Tensor]:
        """Users ``(n_users, d)`` and items ``(n_items, d)``."""
        graph = self.pruned_graph if self.training else self.user_item_graph
        identities = self.user_embedding, self.item_embedding
        users, items = light_gcn(graph, *identities, self.n_ui_layers)
        return users, items + propagate(self.item_graph, self.item_embedding, self.n_mm_layers)

    def loss_terms(self, interaction: Any) -> dict[str, Tensor]:
        """BPR of the final vectors, and of the content of each modality."""
        user_ids, positive_ids, negative_ids = self.batch(interaction)
        users, items = distinct(user_ids), distinct(torch.cat([positive_ids, negative_ids]))
        all_users, all_items = self.encode()
        user_vectors = users.spread(rows(all_users, users.ids))
        positives, negatives = items.spread(rows(all_items, items.ids)).chunk(2)
        terms = {"bpr": bpr_loss(user_vectors, positives, negatives)}
        if self.reg_weight == 0:  # the wide feature tables then cost nothing
            return terms
        for name, projection in self.projections.items():
            # f_m = projection of all X_m; only the rows of the batch are needed.
            content = projection(rows(self.features[name], items.ids))
            positives, negatives = items.spread(content).chunk(2)
            terms[f"bpr_{name}"] = self.reg_weight * bpr_loss(user_vectors, positives, negatives)
        return terms
