"""LGMRec: local views of identities and modalities, plus a global one through soft hyperedges.

Paper:   Guo, Li, Li et al., "LGMRec: Local and Global Graph Learning for Multimodal
         Recommendation", AAAI 2024, https://arxiv.org/abs/2312.16400
Code:    https://github.com/enoche/MMRec, src/models/lgmrec.py, e775373 (read for facts)
Follows: code. Local and global views are sums over any number of modalities; the contrast is the
         mean over all pairs, a pair going forward if its positions differ by an odd number and
         backward if not, which gives the releases' pairs for two and three. One modality has no
         pair and no contrast.
Quirks:  Memberships count as unnormalised weights, and a user's logits are sums over items, so
         heavy users sit on one hyperedge. The contrast is a sum over the batch, so its strength
         grows with `train_batch_size`. The penalty takes unsquared norms of final vectors. The
         release draws Gumbel noise for every batch of an evaluation too; here scores have none,
         or one draw an evaluation (`evaluation_noise`). The DGMRec release contrasts distinct
         complete items only (`contrast_items: complete`). New items join hyperedges and the
         contrast in the release; here not while the model trains, and never the contrast.
Needs:   User-item graph; features stay constant.
Missing: Works on imputed features; `contrast_items` may limit the item contrast to complete items.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_missing.config.constraints import Bool, Choice, Float, Int
from recbole_missing.graph.normalise import symmetric_norm
from recbole_missing.graph.sparse import light_gcn
from recbole_missing.model.base import MultimodalRecommender
from recbole_missing.nn.layers import rows, xavier_table
from recbole_missing.nn.losses import bpr_loss, info_nce, norm_loss

Views = tuple[Tensor, Tensor, Tensor]
"""Collaborative ``(n, d)``, local content ``(M, n, d)`` and global vectors ``(M, n, d)``."""


def per_modality(side_by_side: Tensor, count: int) -> Tensor:
    """Columns of ``count`` modalities side by side ``(n, M d)`` -> ``(M, n, d)``."""
    return torch.stack(side_by_side.chunk(count, dim=1))


class LGMRec(MultimodalRecommender):
    """LightGCN, smoothed content, and a hypergraph whose memberships come from raw features."""

    hyperparameters = {
        "embedding_size": Int(min=1),
        "n_ui_layers": Int(min=0),
        "n_mm_layers": Int(min=0),
        "n_hyper_layers": Int(min=1),
        "n_hyperedges": Int(min=1),
        "dropout": Float(min=0, max=1),
        "global_weight": Float(min=0),
        "temperature": Float(min=1e-6),
        "cl_weight": Float(min=0),
        "reg_weight": Float(min=0),
        "contrast_items": Choice("all", "complete"),
        "evaluation_noise": Bool(),
    }
    candidates: Tensor
    inverse_degrees: Tensor

    def __init__(self, config: Any, dataset: Any) -> None:
        """Create tables, projections and hyperedge prototypes, and build the graphs."""
        super().__init__(config, dataset)
        size = self.embedding_size
        self.user = xavier_table(self.n_users, size)
        self.item = xavier_table(self.n_items, size)
        self.projections, self.prototypes = nn.ParameterDict(), nn.ParameterDict()
        for name, modality in self.modalities.items():
            self.register_buffer(f"features_{name}", modality.features)
            for tables, width in ((self.projections, size), (self.prototypes, self.n_hyperedges)):
                table = nn.init.xavier_uniform_(torch.empty(modality.dim, width))
                tables[name] = nn.Parameter(table)
        self.interactions = self.user_item_matrix(dataset)
        self.user_item = symmetric_norm(self.interactions)
        degrees = self.interactions.row_sums()[:, None]
        self.register_buffer("inverse_degrees", 1.0 / degrees.clamp(min=1))
        self._choose_contrasted()

    def encode(self) -> tuple[Tensor, Tensor]:
        """Users ``(n_users, d)`` and items ``(n_items, d)``: local plus global vectors."""
        users, items = self._views()
        return self._final(*users), self._final(*items)

    def loss_terms(self, interaction: Any) -> dict[str, Tensor]:
        """BPR, agreement of the modalities' global views, and norms of the final vectors."""
        user_ids, positive_ids, negative_ids = self.batch(interaction)
        user_views, item_views = self._views()
        users = self._final(*self._rows(user_views, user_ids))
        item_ids = torch.cat([positive_ids, negative_ids])
        positives, negatives = self._final(*self._rows(item_views, item_ids)).chunk(2)
        everyone = torch.arange(1, self.n_users, device=user_ids.device)
        if self.contrast_items == "complete":
            positive_ids = self.complete_items(positive_ids)
        user_contrast = self._contrast(user_views[2], user_ids, everyone)
        item_contrast = self._contrast(item_views[2], positive_ids, self.candidates)
        return {
            "bpr": bpr_loss(users, positives, negatives),
            "hcl_user": self.cl_weight * user_contrast,
            "hcl_item": self.cl_weight * item_contrast,
            "reg": self.reg_weight * norm_loss(users, positives, negatives),
        }

    def _choose_contrasted(self) -> None:
        """Note the items in the denominators of the item contrast."""
        candidates = ~self.new_items
        candidates[0] = False
        if self.contrast_items == "complete":
            candidates &= self.observed.all(dim=1)
        self.register_buffer("candidates", candidates.nonzero()[:, 0], persistent=False)

    def _views(self) -> tuple[Views, Views]:
        """Views of all users and of all items; modalities share every sparse product."""
        count, size = len(self.modalities), self.embedding_size
        content = torch.cat([self._content(name) for name in self.modalities], dim=1)
        widths = [size, self.n_hyperedges]
        local, logits = per_modality(content, count).split(widths, dim=2)
        sums, user_logits = per_modality(self.interactions @ content, count).split(widths, dim=2)
        users, items = light_gcn(self.user_item, self.user, self.item, self.n_ui_layers)
        user_local, item_local = self._smoothed(sums * self.inverse_degrees, local)
        user_global, item_global = self._hypergraph(user_logits, logits, items)
        return (users, user_local, user_global), (items, item_local, item_global)

    def _content(self, name: str) -> Tensor:
        """Projected features and membership logits of all items, ``(n_items, d + h)``."""
        weights = torch.cat([self.projections[name], self.prototypes[name]], dim=1)
        return self.get_buffer(f"features_{name}") @ weights

    def _smoothed(self, users: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
        """Content ``(M, n, d)`` of users and items after ``n_mm_layers``; the last layer only."""
        count = len(items)
        users, items = torch.cat(tuple(users), dim=1), torch.cat(tuple(items), dim=1)
        for _ in range(self.n_mm_layers):
            users, items = self.user_item @ items, self.user_item.t_matmul(users)
        return per_modality(users, count), per_modality(items, count)

    def _hypergraph(
        self, user_logits: Tensor, item_logits: Tensor, items: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Global vectors ``(M, n, d)``: items -> hyperedges -> items and users.

        The padding item belongs to no hyperedge, nor does a new one while the model trains.
        """
        outside = self.new_items & self.training
        outside[0] = True
        item_shares = self._memberships(item_logits).masked_fill(outside[:, None], 0.0)
        user_shares = self._memberships(user_logits)
        for _ in range(self.n_hyper_layers):
            hyperedges = item_shares.transpose(1, 2) @ items  # (M, h, d)
            items = item_shares @ hyperedges
        return user_shares @ hyperedges, items

    def _memberships(self, logits: Tensor) -> Tensor:
        """Shares of each node in the hyperedges, ``(M, n, h)``, Gumbel softmax with dropout."""
        if self.training or self.evaluation_noise:
            shares = F.gumbel_softmax(logits, tau=self.temperature, dim=-1)
        else:
            shares = (logits / self.temperature).softmax(dim=-1)
        return F.dropout(shares, self.dropout, self.training)

    @staticmethod
    def _rows(views: Views, ids: Tensor) -> Views:
        collaborative, local, world = views
        return rows(collaborative, ids), local[:, ids], world[:, ids]

    def _final(self, collaborative: Tensor, local: Tensor, world: Tensor) -> Tensor:
        """Final vectors ``(n, d)`` of the nodes of one set of views."""
        near = collaborative + F.normalize(local, dim=-1, eps=1e-12).sum(dim=0)
        return near + self.global_weight * F.normalize(world.sum(dim=0), dim=-1, eps=1e-12)

    def _contrast(self, world: Tensor, ids: Tensor, candidates: Tensor) -> Tensor:
        """Mean over pairs of modalities of InfoNCE, summed over ``ids``, against ``candidates``."""
        pairs = [
            (first, second) if (second - first) % 2 else (second, first)
            for first, second in combinations(range(len(world)), 2)
        ]
        tables, total = world.unbind(), world.new_zeros(())
        for anchor, other in pairs:
            anchors, others = rows(tables[anchor], ids), rows(tables[other], ids)
            everything = rows(tables[other], candidates)
            agreement = info_nce(anchors, others, self.temperature, everything)
            total = total + len(ids) * agreement
        return total / max(len(pairs), 1)
