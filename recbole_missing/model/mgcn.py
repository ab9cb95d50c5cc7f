"""MGCN: gated identities travel on per-modality item graphs; attention splits common and special.

Paper:   Yu, Tan, Lu et al., "Multi-View Graph Convolutional Network for Multimedia
         Recommendation", ACM MM 2023, https://arxiv.org/abs/2308.03588
Code:    https://github.com/enoche/MMRec, src/models/mgcn.py, e775373 (read for facts)
Follows: code.
Quirks:  The feature tables are trained through the gates although the item graphs stay those of
         construction. The penalty divides by the configured `train_batch_size`, not by the rows
         present. kNN rows whose cosines sum to a negative number get zeros, where the release
         gets NaN. With mean imputation all items that lack a modality point to the same k of
         them (`knn_missing: imputed`, MMRec); the DGMRec release uses `isolated`. New items keep a
         self loop while the model trains, and `knn_missing` still holds (not so in the DGMRec
         release); the DGMRec release gives them no edge and, by detaching
         the gated identities, stops training gates and features in that setting (not followed).
Needs:   User-item graph, a kNN graph a modality; trains the feature tables.
Missing: Works on imputed features; `knn_missing` says what its item graphs do with lacking items.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from recbole_missing.config.constraints import Choice, Float, Int
from recbole_missing.graph.knn import KNN_MISSING
from recbole_missing.graph.normalise import symmetric_norm
from recbole_missing.graph.sparse import light_gcn
from recbole_missing.model.base import MultimodalRecommender
from recbole_missing.nn.layers import Integration, PurifiedItems, rows, xavier_table
from recbole_missing.nn.losses import bpr_loss, info_nce, squared_loss


class MGCN(MultimodalRecommender):
    """A behaviour view (LightGCN) plus a side view made of all modalities."""

    hyperparameters = {
        "embedding_size": Int(min=1),
        "n_ui_layers": Int(min=0),
        "n_mm_layers": Int(min=0),
        "knn_k": Int(min=1),
        "knn_missing": Choice(*KNN_MISSING),
        "reg_weight": Float(min=0),
        "cl_weight": Float(min=0),
        "temperature": Float(min=1e-6),
    }

    def __init__(self, config: Any, dataset: Any) -> None:
        """Create tables, gates and attention, and build the graphs."""
        super().__init__(config, dataset)
        size = self.embedding_size
        self.batch_size = config["train_batch_size"]
        self.user = xavier_table(self.n_users, size)
        self.item = xavier_table(self.n_items, size)
        neighbours = self.knn_k, self.knn_missing, self.new_items
        self.purified = PurifiedItems(self.modalities, size, *neighbours)
        self.side = Integration(size, self.modalities)
        self.user_item = symmetric_norm(self.user_item_matrix(dataset))

    def encode(self) -> tuple[Tensor, Tensor]:
        """Users ``(n_users, d)`` and items ``(n_items, d)``: behaviour plus side view."""
        users, items = self._behaviour()
        user_content, item_content = self._content()
        return users + self.side(users, user_content), items + self.side(items, item_content)

    def loss_terms(self, interaction: Any) -> dict[str, Tensor]:
        """BPR, squared norms of the batch, and agreement of the two views.

        Attention and gates look at one node at a time, so only the batch's nodes pass them.
        """
        user_ids, positive_ids, negative_ids = self.batch(interaction)
        item_ids = torch.cat([positive_ids, negative_ids])
        all_users, all_items = self._behaviour()
        user_content, item_content = self._content()
        users, items = rows(all_users, user_ids), rows(all_items, item_ids)
        user_side = self.side(users, user_content[:, user_ids])
        item_side = self.side(items, item_content[:, item_ids])
        final_users = users + user_side
        positives, negatives = (items + item_side).chunk(2)
        n = len(user_ids)
        agreement = info_nce(item_side[:n], items[:n], self.temperature)
        agreement = agreement + info_nce(user_side, users, self.temperature)
        squares = squared_loss(final_users, positives, negatives) / self.batch_size
        return {
            "bpr": bpr_loss(final_users, positives, negatives),
            "reg": self.reg_weight * squares,
            "cl": self.cl_weight * agreement,
        }

    def _behaviour(self) -> tuple[Tensor, Tensor]:
        return light_gcn(self.user_item, self.user, self.item, self.n_ui_layers)

    def _content(self) -> tuple[Tensor, Tensor]:
        """Purified identities on the graphs, ``(M, n_users, d)`` and ``(M, n_items, d)``."""
        purified = self.purified(self.item, self.n_mm_layers)
        users = self.user_item @ torch.cat(purified, dim=1)  # one product for all modalities
        return torch.stack(users.chunk(len(purified), dim=1)), torch.stack(purified)
