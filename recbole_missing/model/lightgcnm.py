"""LightGCNM: LightGCN on identities, plus a user preference that meets the item's content.

Paper:   Malitesta, Rossi, Pomo, Di Noia and Malliaros, "Do We Really Need to Drop Items with
         Missing Modalities in Multimodal Recommendation?", CIKM 2024,
         https://arxiv.org/abs/2408.11767
Code:    https://github.com/sisinflab/Graph-Missing-Modalities,
         external/models/lightgcn_m/LightGCNMModel.py, 9715114 (read for facts)
Follows: code (LightGCN-M in the paper). The features of all modalities are concatenated, one
         linear map projects them, and the projected rows are scaled to unit length.
Quirks:  No published numbers test this file; a dense reference in the tests does.
Needs:   User-item graph. Features stay constant.
Missing: No special treatment. The model reads the features as imputation completed them.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_missing.config.constraints import Float, Int
from recbole_missing.graph.normalise import symmetric_norm
from recbole_missing.graph.sparse import light_gcn
from recbole_missing.model.base import MultimodalRecommender
from recbole_missing.nn.layers import FrozenFeatures, project, rows, unit_rows, xavier_table
from recbole_missing.nn.losses import bpr_loss, squared_loss

# The model; A is the normalised user-item graph, L = n_ui_layers, | concatenates:
#
#   z_u, z_i   = mean over l = 0..L of A^l [E_u; E_i]             LightGCN   -> self.collaborate
#   f_i        = [x_i,1 | ... | x_i,M]                   constant features   -> self.features
#   c_i        = norm(W f_i + b)                                             -> self._content
#   theta_u    = preference of user u                                        -> self.preference
#   user u     = [z_u | theta_u],   item i = [z_i | c_i]          (2 d)      -> self.encode
#   score(u,i) = <z_u, z_i> + <theta_u, c_i> = <user u, item i>
#
# For a batch of B triples (u, p, n):
#
#   bpr = -1/B sum log sigmoid(score(u,p) - score(u,n))                      -> losses.bpr_loss
#   reg = reg_weight / (2 B) sum (|user u|^2 + |item p|^2 + |item n|^2)      -> losses.squared_loss


class LightGCNM(MultimodalRecommender):
    """LightGCN with a content half; users and items are ``2 d`` wide."""

    hyperparameters = {
        "embedding_size": Int(min=1),  # d, the width of each half
        "n_ui_layers": Int(min=0),  # L, products with the user-item graph
        "reg_weight": Float(min=0),  # weight of the squared norms
    }

    def __init__(self, config: Any, dataset: Any) -> None:
        """Create the tables and the projection, and build the graph."""
        super().__init__(config, dataset)
        size = self.embedding_size
        self.user_embedding = _normal_table(self.n_users, size)
        self.item_embedding = _normal_table(self.n_items, size)
        self.preference = xavier_table(self.n_users, size)
        self.projection = nn.Linear(self.modalities.total_dim, size)
        self.features = FrozenFeatures(self.modalities)
        self.user_item_graph = symmetric_norm(self.user_item_matrix(dataset))

    def encode(self) -> tuple[Tensor, Tensor]:
        """Users ``(n_users, 2 d)`` and items ``(n_items, 2 d)``."""
        users, items = self.collaborate()
        content = self._content()
        return torch.cat([users, self.preference], dim=1), torch.cat([items, content], dim=1)

    def loss_terms(self, interaction: Any) -> dict[str, Tensor]:
        """BPR loss and the squared norms of the batch's vectors."""
        user_ids, positive_ids, negative_ids = self.batch(interaction)
        all_users, all_items = self.collaborate()
        users = torch.cat([rows(all_users, user_ids), rows(self.preference, user_ids)], dim=1)
        ids = torch.cat([positive_ids, negative_ids])
        items = torch.cat([rows(all_items, ids), self._content(ids)], dim=1)
        positives, negatives = items.chunk(2)
        squares = squared_loss(users, positives, negatives)
        return {
            "bpr": bpr_loss(users, positives, negatives),
            "reg": self.reg_weight * squares / len(user_ids),
        }

    def collaborate(self) -> tuple[Tensor, Tensor]:
        """z_u ``(n_users, d)`` and z_i ``(n_items, d)``."""
        return light_gcn(
            self.user_item_graph, self.user_embedding, self.item_embedding, self.n_ui_layers
        )

    def _content(self, ids: Tensor | None = None) -> Tensor:
        """c_i of the items ``ids (n,)`` or of all items, ``(n, d)``."""
        projected = project(self.projection, self.features.values(), ids)
        return unit_rows(projected)


def _normal_table(n_rows: int, size: int) -> nn.Parameter:
    """Table ``(n_rows, size)`` of normal entries, standard deviation 0.1; padding row 0 is zero."""
    return nn.Parameter(F.pad(0.1 * torch.randn(n_rows - 1, size), (0, 0, 1, 0)))
