"""BM3: LightGCN without negatives; a predictor must hit the partner's detached, dropped-out vector.

Paper:   Zhou, Zhou, Liu et al., "Bootstrap Latent Representations for Multi-modal
         Recommendation", WWW 2023, https://arxiv.org/abs/2207.05969
Code:    https://github.com/enoche/MMRec, src/models/bm3.py, e775373 (read for facts)
Follows: code. The feature tables are trained; the second view is the dropout of final vectors.
Quirks:  The penalty takes the unsquared norms of all propagated users and items and divides by
         the number of items, whatever the batch. Dropout is drawn per row of the batch, so an
         item that occurs twice has two masks. The DGMRec release also zeroes the projections of
         items that lack a modality (two modalities only); MMRec, followed here, does not.
Needs:   User-item graph; trains the feature tables; no negatives.
Missing: Nothing of its own: every item's content is what imputation made of it.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from recbole_missing.config.constraints import Float, Int
from recbole_missing.graph.normalise import symmetric_norm
from recbole_missing.graph.sparse import light_gcn
from recbole_missing.model.base import MultimodalRecommender
from recbole_missing.nn.layers import feature_table, rows, xavier_table
from recbole_missing.nn.losses import cosine_loss, norm_loss


class BM3(MultimodalRecommender):
    """Online vectors pass a linear predictor; target vectors are detached and dropped out."""

    hyperparameters = {
        "embedding_size": Int(min=1),
        "n_ui_layers": Int(min=0),
        "dropout": Float(min=0, max=1),
        "reg_weight": Float(min=0),
        "cl_weight": Float(min=0),
    }

    def __init__(self, config: Any, dataset: Any) -> None:
        """Create tables, predictor and one projection a modality."""
        super().__init__(config, dataset)
        size = self.embedding_size
        self.user = xavier_table(self.n_users, size)
        self.item = xavier_table(self.n_items, size)
        self.predictor = nn.Linear(size, size)
        self.features = nn.ParameterDict(
            {name: feature_table(modality) for name, modality in self.modalities.items()}
        )
        self.projections = nn.ModuleDict(
            {name: nn.Linear(modality.dim, size) for name, modality in self.modalities.items()}
        )
        for layer in (self.predictor, *self.projections.values()):
            nn.init.xavier_normal_(layer.weight)
        self.user_item = symmetric_norm(self.user_item_matrix(dataset))

    def encode(self) -> tuple[Tensor, Tensor]:
        """Predicted users ``(n_users, d)`` and items ``(n_items, d)``."""
        users, items = self._propagate()
        return self.predictor(users), self.predictor(items)

    def loss_terms(self, interaction: Any) -> dict[str, Tensor]:
        """Agreement across the graph, agreement of modalities, and norms; no negatives."""
        user_ids, item_ids = interaction[self.USER_ID], interaction[self.ITEM_ID]
        all_users, all_items = self._propagate()
        users, items = rows(all_users, user_ids), rows(all_items, item_ids)
        user_target, item_target = self._target(users), self._target(items)
        graph = self._disagreement(users, item_target) + self._disagreement(items, user_target)
        modal = graph.new_zeros(())
        for name, projection in self.projections.items():
            content = projection(rows(self.features[name], item_ids))  # (batch, d)
            modal = modal + self._disagreement(content, item_target)
            modal = modal + self._disagreement(content, self._target(content))
        return {
            "graph": graph,
            "cl": self.cl_weight * modal,
            "reg": self.reg_weight * norm_loss(all_items[1:], all_users[1:]),
        }

    def _propagate(self) -> tuple[Tensor, Tensor]:
        users, items = light_gcn(self.user_item, self.user, self.item, self.n_ui_layers)
        return users, items + self.item

    def _target(self, online: Tensor) -> Tensor:
        return F.dropout(online.detach(), self.dropout)

    def _disagreement(self, online: Tensor, target: Tensor) -> Tensor:
        return cosine_loss(self.predictor(online), target)
