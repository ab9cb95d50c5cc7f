"""GUME: gated identities on item graphs, and vectors of every user's taste for each modality.

Paper:   Lin, Meng, Wang et al., "GUME: Graphs and User Modalities Enhancement for Long-Tail
         Multimodal Recommendation", CIKM 2024, https://arxiv.org/abs/2407.12338
Code:    https://github.com/ptkjw1997/DGMRec, src/models/gume.py, cd8f00d, and the authors'
         https://github.com/NanGongNingYi/GUME, src/models/gume.py (both read for facts)
Follows: code of the DGMRec release, which has no edges between items. The authors' version is
         `item_edges: shared` (edges between neighbours in every modality), `align_nodes: all`,
         `contrast_items: all`, `knn_missing: imputed`. With three modalities or more, the
         alignment is the mean over pairs of modalities.
Quirks:  The release selects rows of the explicit content by item ids, although users come first
         in it. So its alignment mostly compares users that have nothing to do with the batch
         (`align_nodes: item_numbers`). Penalties divide by the configured `train_batch_size`. The
         features are trained, but the item graphs stay those of the construction.
         Noise is drawn for the users of a batch instead of all users. The draws differ from the
         release, their distribution does not.
         With new items, this model and the release differ in training: here a new item keeps a
         self loop and `knn_missing` still holds. The release detaches the gated identities, which
         stops gates and features.
Needs:   User-item graph, a kNN graph for each modality; trains the feature tables.
Missing: Works on imputed features. `knn_missing` says what the item graphs do with lacking items,
         `contrast_items` whether they take part in the item contrast.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from recbole_missing.config.constraints import Choice, Float, Int
from recbole_missing.graph.knn import KNN_MISSING
from recbole_missing.graph.normalise import row_sum_norm
from recbole_missing.graph.sparse import SparseMatrix, layer_mean, whole_graph
from recbole_missing.model.base import MultimodalRecommender
from recbole_missing.nn.distinct import Distinct, distinct
from recbole_missing.nn.layers import (
    Integration,
    ItemGraph,
    PurifiedItems,
    perturb,
    rows,
    stacked_rows,
    xavier_table,
)
from recbole_missing.nn.losses import bpr_loss, info_nce, squared_loss

# The model in formulas. A: graph of all nodes, users first, from the binary training matrix R (and
# edges between items, if asked for); N = D^-1/2 A D^-1/2; [a ; b]: users above items.
#
#   Identities        E_u, E_i                        -> self.user_embedding, self.item_embedding
#   Tastes of users   T_m                                                        -> self.tastes
#   Extended identity g   = mean over l = 0..L of N^l [E_u ; E_i]                -> self._views
#   Purified items    P_m = E_i * sigmoid((X_m W_m + b_m) W'_m + b'_m)           -> self.purified
#   Smoothed items    s_m = B_m^L' P_m, B_m the kNN graph of m                   -> self.purified
#   Explicit content  e_m = [(N [0 ; s_m]) of users ; s_m]                       -> self._views
#   Extended content  t   = mean over m and l of N^l [T_m ; s_m]                 -> self._views
#   Coarse            c   = sum_m w_m e_m, w_m = softmax over m of v^T tanh(A' e_m + a)
#   Fine              f_m = sigmoid(V_m g + v_m) * (e_m - c)
#   Integration       i   = (sum_m f_m + c) / (M + 1)                            -> self.integration
#   Final vectors     user, item = g + i;  score = <user, item>                  -> self.encode
#
# Losses of a batch of triples (u, p, n); q: the contrasted positives (self._contrasted), NCE(a, b):
# InfoNCE from rows of a to rows of b, noise(x) = x + 0.1 sign(x) * v / |v|, v uniform on
# [0, 1):
#   L_bpr   = mean of -log sigmoid(<user_u, item_p> - <user_u, item_n>)
#   L_reg   = 1/2 (sum of the squares of user_u, item_p and item_n) / train_batch_size
#   L_taste = 1/2 (sum of the squares of t_p) / train_batch_size
#   L_align = mean over pairs (m, m') of |var e_m - var e_m'| + |mean e_m - mean e_m'|, over all
#             entries of the rows self._aligned                                  -> moment_gap
#   L_bm    = NCE(i_u, g_u) + NCE(i_q, g_q)
#   L_um    = NCE(t_u, i_u) + NCE(noise(i_u), noise(i_u)) + NCE(noise(t_u), noise(t_u))
#   loss    = L_bpr + reg_weight L_reg + taste_reg_weight L_taste + align_weight L_align
#             + behaviour_cl_weight L_bm + taste_cl_weight L_um                  -> self.loss_terms


def shared_neighbours(graphs: Sequence[SparseMatrix]) -> tuple[Tensor, Tensor]:
    """Rows and columns of the edges that all ``graphs (n, n)`` have, without self loops."""
    n = graphs[0].shape[1]
    keys = []
    for graph in graphs:
        row, col, _ = graph.edges()
        keys.append(row * n + col)
    edges, counts = torch.unique(torch.cat(keys), return_counts=True)
    row, col = torch.div(edges, n, rounding_mode="floor"), edges % n
    kept = (counts == len(graphs)) & (row != col)
    return row[kept], col[kept]


def moment_gap(content: Tensor, counts: Tensor) -> Tensor:
    """L_align of ``content (M, n, d)``: gaps of variances and means, mean over pairs.

    One modality, or no more than one entry a modality, gives zero.

    Args:
        content: shape ``(M, n, d)``.
        counts: float ``(n,)``, how often each row counts.
    """
    weights = counts.to(content.dtype)[:, None]
    n_entries = weights.sum() * content.shape[2]
    means = (content * weights).sum(dim=(1, 2)) / n_entries.clamp(min=1)
    squares = ((content - means[:, None, None]).square() * weights).sum(dim=(1, 2))
    variances = squares / (n_entries - 1).clamp(min=1)
    moments = torch.stack([variances, means], dim=1) * (n_entries > 1)
    gaps = (moments[:, None] - moments).abs().sum(dim=2)  # (M, M), zero on the diagonal
    return gaps.sum() / max(len(gaps) * (len(gaps) - 1), 1)


class Views(NamedTuple):
    """The three views of the N nodes, all users before all items."""

    g: Tensor  # extended identity, (N, d)
    t: Tensor  # extended content times M, (N, d)
    e: list[Tensor]  # explicit content, one (N, d) a modality


class GUME(MultimodalRecommender):
    """Extended identity plus integrated content; formulas stand above."""

    hyperparameters = {
        "embedding_size": Int(min=1),  # d, width of every vector
        "n_ui_layers": Int(min=1),  # L, products with the graph of all nodes
        "n_mm_layers": Int(min=0),  # L', products with each item graph
        "knn_k": Int(min=1),  # neighbours of an item in B_m, the item itself among them
        "knn_missing": Choice(*KNN_MISSING),  # what B_m does with items that lack m
        "item_edges": Choice("none", "shared"),  # edges between items in A
        "align_nodes": Choice("item_numbers", "all"),  # rows of L_align
        "contrast_items": Choice("complete", "all"),  # which positives q are
        "reg_weight": Float(min=0),
        "taste_reg_weight": Float(min=0),
        "align_weight": Float(min=0),
        "behaviour_cl_weight": Float(min=0),
        "behaviour_temperature": Float(min=1e-6),  # of L_bm
        "taste_cl_weight": Float(min=0),
        "taste_temperature": Float(min=1e-6),  # of L_um
    }
    idle_parameters: ClassVar[dict[str, str]] = {
        "integration.attention.*": "With one modality its weight is 1, whatever it says.",
        "integration.preferences.*": "With one modality nothing is fine: e_m equals c.",
    }

    def __init__(self, config: Any, dataset: Any) -> None:
        """Create tables, gates and attention, and build the graphs."""
        super().__init__(config, dataset)
        size = self.embedding_size
        self.batch_size = config["train_batch_size"]
        self.user_embedding = xavier_table(self.n_users, size)
        self.item_embedding = xavier_table(self.n_items, size)
        self.tastes = nn.ParameterDict()
        for name in self.modalities:
            self.tastes[name] = xavier_table(self.n_users, size)
        neighbours = self.knn_k, self.knn_missing, self.new_items, self.device
        self.purified = PurifiedItems(self.modalities, size, *neighbours)
        self.integration = Integration(size, self.modalities)
        interactions = self.user_item_matrix(dataset)
        self.node_graph = ItemGraph.build(
            lambda excluded: self._build_node_graph(interactions, excluded), self.new_items
        )
        alignable = torch.cat([torch.ones(self.n_users, dtype=torch.bool), ~self.new_items])
        alignable[[0, self.n_users]] = False
        self.register_buffer("alignable", alignable)  # nodes without padding and new items

    def _build_node_graph(self, interactions: SparseMatrix, excluded: Tensor) -> SparseMatrix:
        """N, ``(n_users + n_items)`` squared; ``excluded`` items have no edge to other items."""
        row, col, value = whole_graph(interactions).edges()
        if self.item_edges == "shared":
            graphs = []
            for graph in self.purified.item_graphs.values():
                graphs.append(graph.without_new if excluded.any() else graph.full)
            item, neighbour = shared_neighbours(graphs)
            row = torch.cat([row, self.n_users + item])
            col = torch.cat([col, self.n_users + neighbour])
            value = torch.cat([value, value.new_ones(len(item))])
        n_nodes = self.n_users + self.n_items
        return row_sum_norm(SparseMatrix(row, col, value, (n_nodes, n_nodes)))

    def encode(self) -> tuple[Tensor, Tensor]:
        """Users ``(n_users, d)`` and items ``(n_items, d)``: g + i."""
        views = self._views()
        g = views.g
        final = g + self.integration(g, torch.stack(views.e))
        return final[: self.n_users], final[self.n_users :]

    def loss_terms(self, interaction: Any) -> dict[str, Tensor]:
        """The losses of the formulas. Only the batch's nodes pass :class:`Integration`."""
        user_ids, positive_ids, negative_ids = self.batch(interaction)
        users, positives = distinct(user_ids), distinct(positive_ids)
        contrasted = positives if self.contrast_items == "all" else self.complete(positives)  # q
        item_ids = torch.cat([positives.ids, negative_ids, contrasted.ids])
        nodes = torch.cat([users.ids, self.n_users + item_ids])
        sizes = [len(users.ids), len(positives.ids), len(negative_ids), len(contrasted.ids)]
        aligned, counts = self._aligned(contrasted)
        views = self._views()
        g, t = rows(views.g, nodes), rows(views.t, nodes) / len(views.e)
        e = stacked_rows(views.e, torch.cat([nodes, aligned]))
        e, aligned_e = e.split([len(nodes), len(aligned)], dim=1)
        i = self.integration(g, e)
        user_g, _, _, contrasted_g = g.split(sizes)
        user_i, _, _, contrasted_i = i.split(sizes)
        user_t, positive_t, _, _ = t.split(sizes)
        final_users, final_positives, negatives, _ = (g + i).split(sizes)
        batch_users = users.spread(final_users)
        batch_positives = positives.spread(final_positives)
        squares = squared_loss(batch_users, batch_positives, negatives) / self.batch_size
        taste_squares = squared_loss(positives.spread(positive_t)) / self.batch_size
        temperature = self.behaviour_temperature
        agreement = info_nce(user_i, user_g, temperature, users)
        agreement = agreement + info_nce(contrasted_i, contrasted_g, temperature, contrasted)
        tastes = self._taste_contrast(users, user_i, user_t, n_draws=len(user_ids))
        return {
            "bpr": bpr_loss(batch_users, batch_positives, negatives),
            "reg": self.reg_weight * squares,
            "taste_reg": self.taste_reg_weight * taste_squares,
            "align": self.align_weight * moment_gap(aligned_e, counts),
            "behaviour_cl": self.behaviour_cl_weight * agreement,
            "taste_cl": self.taste_cl_weight * tastes,
        }

    def _views(self) -> Views:
        """g, t and e of all nodes."""
        # Every view of the formulas begins with a product of N; those of t_m and of the users' e_m
        # are the same one. Behind it t is summed over m, because the further products are linear:
        # sum_m N^l [T_m ; s_m] = N^l sum_m [T_m ; s_m].
        layer_0, layer_1, e = [], [], []  # of the contents of every m
        for name, smoothed in self.purified(self.item_embedding, self.n_mm_layers).items():
            layer_0.append(torch.cat([self.tastes[name], smoothed]))
            layer_1.append(self.node_graph @ layer_0[-1])
            # Users have no edge to users, so layer 1 gives them s_m of their items and no T_m.
            e.append(torch.cat([layer_1[-1][: self.n_users], smoothed]))
        t_0, t_1 = (functools.reduce(torch.add, layer) for layer in (layer_0, layer_1))
        identities = torch.cat([self.user_embedding, self.item_embedding])
        g = layer_mean(self.node_graph.current, identities, self.n_ui_layers)
        # Layers 1..L are L of L + 1, and their mean is that of layers 0..L - 1 of t_1.
        mean = layer_mean(self.node_graph.current, t_1, self.n_ui_layers - 1)
        t = torch.lerp(t_0, mean, self.n_ui_layers / (self.n_ui_layers + 1))
        return Views(g, t, e)

    def _aligned(self, items: Distinct) -> tuple[Tensor, Tensor]:
        """Nodes of L_align and how often each counts; no padding row, no new item."""
        if self.align_nodes == "all":
            return torch.arange(len(self.alignable), device=items.ids.device), self.alignable
        # The release has no padding rows, so its node of this number stands one row later here
        # for a user, two rows later for an item; our item ids are one larger already.
        nodes = items.ids + (items.ids >= self.n_users)
        return nodes, items.counts * self.alignable[nodes]

    def _taste_contrast(
        self, users: Distinct, user_i: Tensor, user_t: Tensor, n_draws: int
    ) -> Tensor:
        """L_um. A user who stands in the batch twice gets the same noise twice.

        ``n_draws`` is the number of rows of noise that are drawn, one a row of the batch.
        """
        loss = info_nce(user_t, user_i, self.taste_temperature, users)
        for view in (user_i, user_t):
            first, second = perturb(view, n_draws=n_draws), perturb(view, n_draws=n_draws)
            loss = loss + info_nce(first, second, self.taste_temperature, users)
        return loss
