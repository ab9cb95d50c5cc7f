"""VBPR: matrix factorisation whose item vector has an identity half and a content half.

Paper:   He and McAuley, "VBPR: Visual Bayesian Personalized Ranking from Implicit Feedback",
         AAAI 2016, https://arxiv.org/abs/1510.01784
Code:    https://github.com/enoche/MMRec, src/models/vbpr.py, e775373 (read for facts)
Follows: code. The features of all modalities are concatenated and one linear map projects them.
         The paper has free biases and gives the visual half a width of its own; the code has
         neither.
Quirks:  The penalty takes the unsquared norms of whole blocks of vectors. The code adds 1e-10
         inside the logarithm of the BPR loss. This file does not: the guard only matters where a
         negative scores more than ten above its positive. The DGMRec release reads the text alone;
         set `modalities: [text]` to repeat its tables.
Needs:   One linear map. Features stay constant.
Missing: No special treatment. The model reads the features as imputation completed them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from recbole_missing.config.constraints import Float, Int
from recbole_missing.model.base import MultimodalRecommender
from recbole_missing.nn.distinct import distinct
from recbole_missing.nn.layers import FrozenFeatures, project, rows, xavier_table
from recbole_missing.nn.losses import bpr_loss, norm_loss

# The model, with the paper's symbols; u is a user, i an item, | concatenates:
#
#   f_i        = [x_i,1 | ... | x_i,M]                constant features  -> self.features
#   item i     = [gamma_i | E f_i + b]                (2 d)              -> self._items
#   user u     = [gamma_u | theta_u]                  (2 d)              -> self.user_embedding
#   score(u,i) = <gamma_u, gamma_i> + <theta_u, E f_i + b> = <user u, item i>
#
# For a batch of B triples (u, p, n), with U, P, N the (B, 2 d) blocks of their vectors:
#
#   bpr = -1/B sum log sigmoid(score(u,p) - score(u,n))                  -> losses.bpr_loss
#   reg = reg_weight * (|U|_F + |P|_F + |N|_F) / B                       -> losses.norm_loss


class VBPR(MultimodalRecommender):
    """Matrix factorisation with a content half; users and items are ``2 d`` wide."""

    hyperparameters = {
        "embedding_size": Int(min=1),  # d, the width of each half
        "reg_weight": Float(min=0),  # weight of the norms
    }

    def __init__(self, config: Any, dataset: Any) -> None:
        """Create both tables and the projection."""
        super().__init__(config, dataset)
        size = self.embedding_size
        self.user_embedding = xavier_table(self.n_users, 2 * size)
        self.item_embedding = xavier_table(self.n_items, size)
        self.projection = nn.Linear(self.modalities.total_dim, size)  # E and b
        nn.init.xavier_normal_(self.projection.weight)
        nn.init.zeros_(self.projection.bias)
        self.features = FrozenFeatures(self.modalities)

    def encode(self) -> tuple[Tensor, Tensor]:
        """Users ``(n_users, 2 d)`` and items ``(n_items, 2 d)``."""
        return self.user_embedding, self._items()

    def loss_terms(self, interaction: Any) -> dict[str, Tensor]:
        """BPR loss and the norms of the batch's vectors."""
        user_ids, positive_ids, negative_ids = self.batch(interaction)
        users = rows(self.user_embedding, user_ids)
        items = distinct(torch.cat([positive_ids, negative_ids]))
        positives, negatives = items.spread(self._items(items.ids)).chunk(2)
        return {
            "bpr": bpr_loss(users, positives, negatives),
            "reg": self.reg_weight * norm_loss(users, positives, negatives),
        }

    def _items(self, ids: Tensor | None = None) -> Tensor:
        """[gamma_i | E f_i + b] of the items ``ids (n,)`` or of all items, ``(n, 2 d)``."""
        identities = self.item_embedding if ids is None else rows(self.item_embedding, ids)
        content = project(self.projection, self.features.values(), ids)
        return torch.cat([identities, content], dim=1)
