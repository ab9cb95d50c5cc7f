"""VBPR: matrix factorisation whose item vector is an identity half and a content half.

Paper:   He and McAuley, "VBPR: Visual Bayesian Personalized Ranking from Implicit Feedback",
         AAAI 2016, https://arxiv.org/abs/1510.01784
Code:    https://github.com/enoche/MMRec, src/models/vbpr.py, e775373 (read for facts)
Follows: code. Content enters through one linear map of all modalities side by side; the paper's
         free biases and separate visual user dimension are absent.
Quirks:  The penalty takes unsquared norms of whole blocks. The guard 1e-10 inside the logarithm is
         left out: it changes only scores that are wrong by more than ten. The DGMRec release
         feeds text alone; list only that modality to repeat its tables.
Needs:   Nothing but one linear map; features stay constant.
Missing: Nothing of its own: every item's content is what imputation made of it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from recbole_missing.config.constraints import Float, Int
from recbole_missing.model.base import MultimodalRecommender
from recbole_missing.nn.layers import rows, xavier_table
from recbole_missing.nn.losses import bpr_loss, norm_loss


class VBPR(MultimodalRecommender):
    """Users ``(n_users, 2 d)`` meet items ``[identity | projected content]``, d a half.

    The content is a constant, all modalities in the order of the config.
    """

    hyperparameters = {"embedding_size": Int(min=1), "reg_weight": Float(min=0)}
    features: Tensor

    def __init__(self, config: Any, dataset: Any) -> None:
        """Create both tables and the projection."""
        super().__init__(config, dataset)
        size = self.embedding_size
        self.user = xavier_table(self.n_users, 2 * size)
        self.item = xavier_table(self.n_items, size)
        self.content = nn.Linear(self.modalities.total_dim, size)
        nn.init.xavier_normal_(self.content.weight)
        nn.init.zeros_(self.content.bias)
        self.register_buffer("features", self.modalities.concatenated())

    def encode(self) -> tuple[Tensor, Tensor]:
        """Users ``(n_users, 2 d)`` and items ``(n_items, 2 d)``."""
        return self.user, torch.cat([self.item, self.content(self.features)], dim=1)

    def loss_terms(self, interaction: Any) -> dict[str, Tensor]:
        """BPR and the norms of the batch's vectors; only the batch's content is projected."""
        user_ids, *item_ids = self.batch(interaction)
        users = rows(self.user, user_ids)
        positives, negatives = (self._item_rows(ids) for ids in item_ids)
        return {
            "bpr": bpr_loss(users, positives, negatives),
            "reg": self.reg_weight * norm_loss(users, positives, negatives),
        }

    def _item_rows(self, ids: Tensor) -> Tensor:
        return torch.cat([rows(self.item, ids), self.content(self.features[ids])], dim=1)
