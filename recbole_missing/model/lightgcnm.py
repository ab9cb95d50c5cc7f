"""LightGCNM: LightGCN on identities, plus a user taste that meets the item's projected content.

Paper:   Malitesta, Rossi, Pomo, Di Noia and Malliaros, "Do We Really Need to Drop Items with
         Missing Modalities in Multimodal Recommendation?", CIKM 2024,
         https://arxiv.org/abs/2408.11767
Code:    https://github.com/sisinflab/Graph-Missing-Modalities,
         external/models/lightgcn_m/LightGCNMModel.py, 9715114 (read for facts)
Follows: code (LightGCN-M in the paper). One linear map of all modalities side by side, its rows
         normalised; the score is the sum of both inner products.
Quirks:  No golden file exists for it; the formulas are the release's.
Needs:   User-item graph; features stay constant.
Missing: Nothing of its own: every item's content is what imputation made of it.
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
from recbole_missing.nn.layers import rows, xavier_table
from recbole_missing.nn.losses import bpr_loss, squared_loss


class LightGCNM(MultimodalRecommender):
    """Users ``[collaborative | taste]`` meet items ``[collaborative | content]``, d each."""

    hyperparameters = {
        "embedding_size": Int(min=1),
        "n_ui_layers": Int(min=0),
        "reg_weight": Float(min=0),
    }
    features: Tensor

    def __init__(self, config: Any, dataset: Any) -> None:
        """Create the tables and the projection, and build the graph."""
        super().__init__(config, dataset)
        size = self.embedding_size
        self.user = nn.Parameter(F.pad(0.1 * torch.randn(self.n_users - 1, size), (0, 0, 1, 0)))
        self.item = nn.Parameter(F.pad(0.1 * torch.randn(self.n_items - 1, size), (0, 0, 1, 0)))
        self.taste = xavier_table(self.n_users, size)
        self.content = nn.Linear(self.modalities.total_dim, size)
        self.register_buffer("features", self.modalities.concatenated())
        self.user_item = symmetric_norm(self.user_item_matrix(dataset))

    def collaborate(self) -> tuple[Tensor, Tensor]:
        """Users and items of the collaborative half, ``(n, d)``."""
        return light_gcn(self.user_item, self.user, self.item, self.n_ui_layers)

    def encode(self) -> tuple[Tensor, Tensor]:
        """Users ``(n_users, 2 d)`` and items ``(n_items, 2 d)``."""
        users, items = self.collaborate()
        content = self._project(self.features)
        return torch.cat([users, self.taste], dim=1), torch.cat([items, content], dim=1)

    def loss_terms(self, interaction: Any) -> dict[str, Tensor]:
        """BPR and the squares of the batch's vectors; only the batch's content is projected."""
        batch = self.batch(interaction)
        collaborative = self.gather(*self.collaborate(), batch)
        content = [rows(self.taste, batch[0])]
        content += [self._project(self.features[ids]) for ids in batch[1:]]
        vectors = [torch.cat(halves, dim=1) for halves in zip(collaborative, content)]
        return {
            "bpr": bpr_loss(*vectors),
            "reg": self.reg_weight * squared_loss(*vectors) / len(batch[0]),
        }

    def _project(self, features: Tensor) -> Tensor:
        return F.normalize(self.content(features), eps=1e-12)
