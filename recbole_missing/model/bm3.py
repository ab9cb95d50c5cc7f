"""BM3: LightGCN without negatives; a predictor maps one view to a dropout copy of the other.

Paper:   Zhou, Zhou, Liu et al., "Bootstrap Latent Representations for Multi-modal
         Recommendation", WWW 2023, https://arxiv.org/abs/2207.05969
Code:    https://github.com/enoche/MMRec, src/models/bm3.py, e775373 (read for facts)
Follows: code. The feature tables are trained. The second view of a vector is its dropout copy,
         and no gradient flows into it.
Quirks:  The penalty takes the unsquared norms of all propagated users and items. It divides them
         by the number of items, whatever the batch size. Dropout is drawn for every row of the
         batch, so an item that occurs twice has two masks. The DGMRec release also zeroes the
         projected features of items that lack a modality, with two modalities only. MMRec does
         not, and this file follows MMRec.
Needs:   User-item graph. The feature tables are trained. No negatives.
Missing: No special treatment. The model reads the features as imputation completed them.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_missing.config.constraints import Float, Int
from recbole_missing.graph.normalise import symmetric_norm
from recbole_missing.graph.sparse import light_gcn
from recbole_missing.model.base import MultimodalRecommender
from recbole_missing.nn.distinct import Distinct, distinct
from recbole_missing.nn.layers import rows, trained_features, unit_rows, xavier_table

# The model, with the paper's symbols; A is the normalised user-item graph, L = n_ui_layers:
#
#   h_u, h_i'  = mean over l = 0..L of A^l [E_u; E_i]          LightGCN    -> self._propagate
#   h_i        = h_i' + E_i                                                -> self._propagate
#   h_m        = X_m W_m + b_m                          for every modality m -> self.projections[m]
#   f(h)       = h W_p + b_p                            linear predictor   -> self.predictor
#   t(h)       = dropout(stop_gradient(h))              target view        -> self._target
#   C(a, b)    = 1 - mean over rows of cos(a, b)                           -> self._disagreement
#   score(u,i) = <f(h_u), f(h_i)>                                          -> self.encode
#
# For a batch of users u and their positive items i; every h stands for its rows in the batch:
#
#   graph = C(f(h_u), t(h_i)) + C(f(h_i), t(h_u))
#   cl    = cl_weight * sum_m [ C(f(h_m), t(h_i)) + C(f(h_m), t(h_m)) ]
#   reg   = reg_weight * (|h_i|_F + |h_u|_F) / n_items      all users, all items


class BM3(MultimodalRecommender):
    """LightGCN and projected features, trained by agreement between views."""

    new_items_in_training: ClassVar[dict[str, str]] = {
        "reg": "The penalty takes all rows of the item table.",
    }
    new_features_ignored = "The scores come from identities alone; features are in the loss."
    hyperparameters = {
        "embedding_size": Int(min=1),  # d
        "n_ui_layers": Int(min=0),  # L, products with the user-item graph
        "dropout": Float(min=0, max=1),  # share of a target's entries that are dropped
        "reg_weight": Float(min=0),  # weight of the norms of all users and items
        "cl_weight": Float(min=0),  # weight of the modalities' agreement
    }

    def __init__(self, config: Any, dataset: Any) -> None:
        """Create tables, predictor and projections, and build the graph."""
        super().__init__(config, dataset)
        size = self.embedding_size
        self.user_embedding = xavier_table(self.n_users, size)
        self.item_embedding = xavier_table(self.n_items, size)
        self.predictor = nn.Linear(size, size)
        self.features = trained_features(self.modalities)
        self.projections = nn.ModuleDict()
        for name, modality in self.modalities.items():
            self.projections[name] = nn.Linear(modality.dim, size)
        for layer in (self.predictor, *self.projections.values()):
            nn.init.xavier_normal_(layer.weight)
        self.user_item_graph = symmetric_norm(self.user_item_matrix(dataset))

    def encode(self) -> tuple[Tensor, Tensor]:
        """Users f(h_u) ``(n_users, d)`` and items f(h_i) ``(n_items, d)``."""
        users, items = self._propagate()
        return self.predictor(users), self.predictor(items)

    def loss_terms(self, interaction: Any) -> dict[str, Tensor]:
        """Agreement of users with items, agreement of modalities with items, and norms."""
        user_ids, item_ids = (
            distinct(interaction[self.USER_ID]),
            distinct(interaction[self.ITEM_ID]),
        )
        all_users, all_items = self._propagate()
        users, items = rows(all_users, user_ids.ids), rows(all_items, item_ids.ids)
        user_target, item_target = self._target(users, user_ids), self._target(items, item_ids)
        graph = self._disagreement(users, user_ids, item_target)
        graph = graph + self._disagreement(items, item_ids, user_target)
        modal = graph.new_zeros(())
        for name, projection in self.projections.items():
            content = projection(rows(self.features[name], item_ids.ids))  # h_m
            targets = item_target, self._target(content, item_ids)
            modal = modal + self._disagreement(content, item_ids, *targets)
        # Padding rows are zero, so the norms may take them along.
        norms = torch.linalg.vector_norm(all_items) + torch.linalg.vector_norm(all_users)
        return {
            "graph": graph,
            "cl": self.cl_weight * modal,
            "reg": self.reg_weight * norms / (self.n_items - 1),
        }

    def _propagate(self) -> tuple[Tensor, Tensor]:
        """h_u ``(n_users, d)`` and h_i ``(n_items, d)``."""
        users, items = light_gcn(
            self.user_item_graph, self.user_embedding, self.item_embedding, self.n_ui_layers
        )
        return users, items + self.item_embedding

    @torch.no_grad()
    def _target(self, view: Tensor, ids: Distinct) -> Tensor:
        """Unit vectors of t(h) in every row of the batch, ``(batch, d)``; no gradient flows."""
        return unit_rows(F.dropout(ids.spread(view), self.dropout), eps=1e-8)

    def _disagreement(self, view: Tensor, ids: Distinct, *targets: Tensor) -> Tensor:
        """Sum of C(f(h), t) over the targets t.

        Args:
            view: h of the distinct ids, shape ``(n, d)``.
            ids: rows of the batch.
            targets: unit vectors, shape ``(batch, d)``.
        """
        online = ids.spread(unit_rows(self.predictor(view), eps=1e-8))
        agreement = (online * torch.stack(targets).sum(dim=0)).sum()
        return len(targets) - agreement / len(online)
