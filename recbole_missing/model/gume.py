"""GUME: gated identities on item graphs, plus a learned taste of every user for each modality.

Paper:   Lin, Meng, Wang et al., "GUME: Graphs and User Modalities Enhancement for Long-Tail
         Multimodal Recommendation", CIKM 2024, https://arxiv.org/abs/2407.12338
Code:    https://github.com/ptkjw1997/DGMRec, src/models/gume.py, cd8f00d, and the authors'
         https://github.com/NanGongNingYi/GUME, src/models/gume.py (both read for facts)
Follows: code of the DGMRec release, which has no edges between items. The authors' version is
         `item_edges: shared` (edges between neighbours in every modality), `align_nodes: all`,
         `contrast_items: all`, `knn_missing: imputed`. Alignment: mean over pairs of modalities.
Quirks:  `align_nodes: item_numbers` takes item ids as row numbers of a users-first table, so the
         alignment mostly sees users that nothing relates to the batch. Penalties divide by the
         configured `train_batch_size`. Features are trained, item graphs are not rebuilt. Noise is
         drawn for the users of a batch instead of all: other draws, the same law. New items keep
         only a self loop while the model trains, and `knn_missing` still holds (not so in the
         release); the release detaches the gated identities then
         and so stops gates and features (not followed).
Needs:   User-item graph, a kNN graph a modality; trains the feature tables.
Missing: Works on imputed features; `knn_missing` and `contrast_items` may set lacking items apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from recbole_missing.config.constraints import Choice, Float, Int
from recbole_missing.graph.knn import KNN_MISSING
from recbole_missing.graph.normalise import row_sum_norm
from recbole_missing.graph.sparse import SparseMatrix, whole_graph
from recbole_missing.model.base import MultimodalRecommender
from recbole_missing.nn.layers import (
    Integration,
    ItemGraph,
    PurifiedItems,
    perturb,
    rows,
    xavier_table,
)
from recbole_missing.nn.losses import bpr_loss, info_nce, squared_loss


def shared_neighbours(graphs: Sequence[SparseMatrix]) -> tuple[Tensor, Tensor]:
    """Rows and columns of the edges that all ``graphs (n, n)`` have, self loops left out."""
    n = graphs[0].shape[1]
    keys = torch.cat([row * n + col for row, col, _ in (graph.edges() for graph in graphs)])
    keys, counts = torch.unique(keys, return_counts=True)
    keys = keys[(counts == len(graphs)) & (keys // n != keys % n)]
    return keys // n, keys % n


def unlikeness(content: Tensor) -> Tensor:
    """Gaps between variances and means of two modalities, mean over pairs; ``(M, n, d)``."""
    numbers = content.flatten(1)
    if numbers.shape[1] < 2:
        return 0.0 * numbers.sum()
    moments = torch.stack([numbers.var(dim=1), numbers.mean(dim=1)], dim=1)
    gaps = (moments[:, None] - moments).abs().sum(dim=2)  # (M, M), zero on the diagonal
    return gaps.sum() / max(len(gaps) * (len(gaps) - 1), 1)


class GUME(MultimodalRecommender):
    """Scores from the extended identity g plus the integration i of the explicit content e.

    The extended content t is in the loss alone. The N nodes are all users, then all items.
    """

    hyperparameters = {
        **dict.fromkeys(("embedding_size", "n_ui_layers", "knn_k"), Int(min=1)),
        "n_mm_layers": Int(min=0),
        "knn_missing": Choice(*KNN_MISSING),
        "item_edges": Choice("none", "shared"),
        "align_nodes": Choice("item_numbers", "all"),
        "contrast_items": Choice("complete", "all"),
        **dict.fromkeys(("reg_weight", "taste_reg_weight", "align_weight"), Float(min=0)),
        **dict.fromkeys(("behaviour_cl_weight", "taste_cl_weight"), Float(min=0)),
        **dict.fromkeys(("behaviour_temperature", "taste_temperature"), Float(min=1e-6)),
    }

    def __init__(self, config: Any, dataset: Any) -> None:
        """Create tables, gates and attention, and build the graphs."""
        super().__init__(config, dataset)
        size = self.embedding_size
        self.batch_size = config["train_batch_size"]
        self.user = xavier_table(self.n_users, size)
        self.item = xavier_table(self.n_items, size)
        self.tastes = nn.ParameterDict(
            {name: xavier_table(self.n_users, size) for name in self.modalities}
        )
        neighbours = self.knn_k, self.knn_missing, self.new_items
        self.purified = PurifiedItems(self.modalities, size, *neighbours)
        self.integration = Integration(size, self.modalities)
        user_item = self.user_item_matrix(dataset)
        self.nodes = ItemGraph(lambda new: self._node_graph(user_item, new), self.new_items)
        alignable = torch.cat([torch.ones(self.n_users, dtype=torch.bool), ~self.new_items])
        alignable[[0, self.n_users]] = False
        self.register_buffer("alignable", alignable)

    def encode(self) -> tuple[Tensor, Tensor]:
        """Users ``(n_users, d)`` and items ``(n_items, d)``: g + i."""
        g, _, e = self._views()
        final = g + self.integration(g, e)
        return final[: self.n_users], final[self.n_users :]

    def loss_terms(self, interaction: Any) -> dict[str, Tensor]:
        """BPR, two penalties, unlikeness of the modalities, agreement of the views.

        The integration looks at one node at a time, so only the batch's nodes pass it.
        """
        users, positives, negatives = self.batch(interaction)
        contrasted = self._contrasted(positives)
        items = self.n_users + torch.cat([positives, negatives, contrasted])
        nodes, sizes = torch.cat([users, items]), [len(users)] * 3 + [len(contrasted)]
        all_g, all_t, all_e = self._views()
        g, t = rows(all_g, nodes), rows(all_t, nodes)
        i = self.integration(g, all_e[:, nodes])
        final = (g + i).split(sizes)[:3]
        (user_g, _, _, item_g), (user_i, _, _, item_i) = g.split(sizes), i.split(sizes)
        user_t, positive_t, *_ = t.split(sizes)
        draws = torch.unique(users, return_inverse=True)[1]
        views = [(perturb(x, draws), perturb(x, draws)) for x in (user_i, user_t)]
        behaviour, tastes = [(user_i, user_g), (item_i, item_g)], [(user_t, user_i), *views]
        agreement = sum(info_nce(*pair, self.behaviour_temperature) for pair in behaviour)
        likeness = sum(info_nce(*pair, self.taste_temperature) for pair in tastes)
        return {
            "bpr": bpr_loss(*final),
            "reg": self.reg_weight * squared_loss(*final) / self.batch_size,
            "taste_reg": self.taste_reg_weight * squared_loss(positive_t) / self.batch_size,
            "align": self.align_weight * unlikeness(all_e[:, self._aligned(contrasted)]),
            "behaviour_cl": self.behaviour_cl_weight * agreement,
            "taste_cl": self.taste_cl_weight * likeness,
        }

    def _node_graph(self, user_item: SparseMatrix, new_items: Tensor) -> SparseMatrix:
        """Normalised graph of all nodes; edges between items come from the item graphs."""
        row, col, value = whole_graph(user_item).edges()
        if self.item_edges == "shared":
            form = "without_new" if new_items.any() else "full"
            graphs = [getattr(graph, form) for graph in self.purified.graphs.values()]
            item, neighbour = (ids + self.n_users for ids in shared_neighbours(graphs))
            row, col = torch.cat([row, item]), torch.cat([col, neighbour])
            value = torch.cat([value, value.new_ones(len(item))])
        return row_sum_norm(SparseMatrix(row, col, value, (self.n_users + self.n_items,) * 2))

    def _views(self) -> tuple[Tensor, Tensor, Tensor]:
        """Views g and t of all nodes, ``(N, d)``, and e, ``(M, N, d)``."""
        smooth = self.purified(self.item, self.n_mm_layers)
        users = torch.cat([self.user, *self.tastes.values()], dim=1)
        start = torch.cat([users, torch.cat([self.item, *smooth], dim=1)])
        first = self.nodes @ start  # a user gets what their items have, nothing of their own
        layers = [self._averaged(start), self._averaged(first)]
        while len(layers) <= self.n_ui_layers:
            layers.append(self.nodes @ layers[-1])
        g, t = torch.stack(layers).mean(dim=0).chunk(2, dim=1)
        explicit = torch.cat([first[: self.n_users], start[self.n_users :]])
        return g, t, torch.stack(explicit.chunk(1 + len(smooth), dim=1)[1:])

    def _averaged(self, nodes: Tensor) -> Tensor:
        """Identity beside the mean of the modalities, from ``(N, (1 + M) d)`` to ``(N, 2 d)``."""
        blocks = nodes.view(len(nodes), -1, self.embedding_size)
        return torch.cat([blocks[:, 0], blocks[:, 1:].mean(dim=1)], dim=1)

    def _contrasted(self, positives: Tensor) -> Tensor:
        """Positives as they are, or the distinct ones that have every modality."""
        if self.contrast_items == "all":
            return positives
        return self.complete_items(positives)

    def _aligned(self, items: Tensor) -> Tensor:
        """Nodes that the alignment looks at; never a padding row, never a new item."""
        if self.align_nodes == "all":
            return self.alignable.nonzero()[:, 0]
        nodes = items + (items >= self.n_users)  # the release's tables have no padding rows
        return nodes[self.alignable[nodes]]
