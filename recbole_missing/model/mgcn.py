"""MGCN: a behaviour view and a view of all modalities, smoothed on item graphs, are added.

Paper:   Yu, Tan, Lu et al., "Multi-View Graph Convolutional Network for Multimedia
         Recommendation", ACM MM 2023, https://arxiv.org/abs/2308.03588
Code:    https://github.com/enoche/MMRec, src/models/mgcn.py, e775373 (read for facts)
Follows: code.
Quirks:  The feature tables are trained through the gates, but the item graphs stay those of the
         construction. The norm penalty divides by the configured `train_batch_size`, also in a
         shorter last batch. If the cosines of a kNN row have a negative sum, the row gets zeros
         here and NaN in the release. With mean imputation, all items that lack a modality have
         the same k neighbours (`knn_missing: imputed`, MMRec); the DGMRec release uses `isolated`.
         With new items, this model and the DGMRec release differ in training: here a new item
         keeps a self loop and `knn_missing` still holds. The release gives it no edge, ignores
         `knn_missing`, and detaches the gated identities, which stops gates and features.
Needs:   User-item graph, a kNN graph for each modality; trains the feature tables.
Missing: Works on imputed features; `knn_missing` says what its item graphs do with lacking items.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from recbole_missing.config.constraints import Choice, Float, Int
from recbole_missing.graph.knn import KNN_MISSING
from recbole_missing.graph.normalise import symmetric_norm
from recbole_missing.graph.sparse import light_gcn
from recbole_missing.model.base import MultimodalRecommender
from recbole_missing.nn.distinct import distinct
from recbole_missing.nn.layers import Integration, PurifiedItems, rows, stacked_rows, xavier_table
from recbole_missing.nn.losses import bpr_loss, info_nce, squared_loss

# The model in formulas. R is the binary training matrix, A the graph of R; "*" multiplies entry by
# entry.
#
#   Identities       E_u, E_i                         -> self.user_embedding, self.item_embedding
#   Behaviour view   Z_0 = [E_u ; E_i] by rows,  Z_l+1 = D^-1/2 A D^-1/2 Z_l,
#                    c = mean of Z_0 .. Z_L                                     -> self._behaviour
#   Purifier         P_m = E_i * sigmoid((X_m W_m + b_m) W'_m + b'_m)           -> self.purified
#   Content          h_m of items = A_m^L P_m, A_m the kNN graph of m,
#                    h_m of users = D_u^-1/2 R D_i^-1/2 h_m of items            -> self._content
#   Attention        w_m = softmax over m of w2^T tanh(W1 h_m + b1),
#                    common = sum_m w_m h_m                                     -> self.side
#   Preference       special_m = sigmoid(V_m c + v_m) * (h_m - common)          -> self.side
#   Side view        side = (sum_m special_m + common) / (M + 1)                -> self.side
#   Final vectors    user, item = c + side;  score = <user, item>               -> self.encode
#
# Losses of a batch of triples (u, p, n); NCE(a, b): InfoNCE from rows of a to rows of b:
#   L_bpr = mean of -log sigmoid(<user_u, item_p> - <user_u, item_n>)
#   L_reg = 1/2 (sum of the squares of user_u, item_p and item_n) / train_batch_size
#   L_cl  = NCE(side_p, c_p) + NCE(side_u, c_u)
#   loss  = L_bpr + reg_weight L_reg + cl_weight L_cl                           -> self.loss_terms


class MGCN(MultimodalRecommender):
    """A behaviour view (LightGCN) plus a side view of all modalities; formulas stand above."""

    hyperparameters = {
        "embedding_size": Int(min=1),  # d, width of every vector
        "n_ui_layers": Int(min=0),  # L of the behaviour view
        "n_mm_layers": Int(min=0),  # L of the content
        "knn_k": Int(min=1),  # neighbours of an item in A_m, the item itself among them
        "knn_missing": Choice(*KNN_MISSING),  # what A_m does with items that lack m
        "reg_weight": Float(min=0),
        "cl_weight": Float(min=0),
        "temperature": Float(min=1e-6),  # of L_cl
    }
    idle_parameters: ClassVar[dict[str, str]] = {
        "side.attention.*": "With one modality its weight is 1, whatever the attention says.",
        "side.preferences.*": "With one modality nothing is special: h_m equals what is common.",
    }

    def __init__(self, config: Any, dataset: Any) -> None:
        """Create tables, gates and attention, and build the graphs."""
        super().__init__(config, dataset)
        size = self.embedding_size
        self.batch_size = config["train_batch_size"]
        self.user_embedding = xavier_table(self.n_users, size)
        self.item_embedding = xavier_table(self.n_items, size)
        neighbours = self.knn_k, self.knn_missing, self.new_items, self.device
        self.purified = PurifiedItems(self.modalities, size, *neighbours)
        self.side = Integration(size, self.modalities)
        self.user_item_graph = symmetric_norm(self.user_item_matrix(dataset))

    def encode(self) -> tuple[Tensor, Tensor]:
        """Users ``(n_users, d)`` and items ``(n_items, d)``: behaviour plus side view."""
        users, items = self._behaviour()
        user_content, item_content = self._content()
        user_side = self.side(users, torch.stack(user_content))
        return users + user_side, items + self.side(items, torch.stack(item_content))

    def loss_terms(self, interaction: Any) -> dict[str, Tensor]:
        """L_bpr, L_reg and L_cl. Only the batch's nodes pass :class:`Integration`."""
        user_ids, positive_ids, negative_ids = self.batch(interaction)
        distinct_users, distinct_items = distinct(user_ids), distinct(positive_ids)
        item_ids = torch.cat([distinct_items.ids, negative_ids])
        sizes = [len(distinct_items.ids), len(negative_ids)]
        all_users, all_items = self._behaviour()
        user_content, item_content = self._content()
        users, items = rows(all_users, distinct_users.ids), rows(all_items, item_ids)  # c
        user_side = self.side(users, stacked_rows(user_content, distinct_users.ids))
        item_side = self.side(items, stacked_rows(item_content, item_ids))
        final_positives, final_negatives = (items + item_side).split(sizes)
        final_users = distinct_users.spread(users + user_side)
        final_positives = distinct_items.spread(final_positives)
        positives, positive_side = items.split(sizes)[0], item_side.split(sizes)[0]
        agreement = info_nce(positive_side, positives, self.temperature, distinct_items)
        agreement = agreement + info_nce(user_side, users, self.temperature, distinct_users)
        squares = squared_loss(final_users, final_positives, final_negatives) / self.batch_size
        return {
            "bpr": bpr_loss(final_users, final_positives, final_negatives),
            "reg": self.reg_weight * squares,
            "cl": self.cl_weight * agreement,
        }

    def _behaviour(self) -> tuple[Tensor, Tensor]:
        """Behaviour vectors c of all users and of all items."""
        identities = self.user_embedding, self.item_embedding
        return light_gcn(self.user_item_graph, *identities, self.n_ui_layers)

    def _content(self) -> tuple[list[Tensor], list[Tensor]]:
        """Content h_m of users ``(n_users, d)`` and of items ``(n_items, d)``, for each m."""
        items = list(self.purified(self.item_embedding, self.n_mm_layers).values())
        return [self.user_item_graph @ table for table in items], items
