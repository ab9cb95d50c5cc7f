"""MILK: users rank by content alone, equally well however the modalities are weighed.

Paper:   Bai, Wu, Hou et al., "Multimodality Invariant Learning for Multimedia-Based New Item
         Recommendation", SIGIR 2024, https://arxiv.org/abs/2405.15783
Code:    https://github.com/ptkjw1997/DGMRec, src/models/milk.py, cd8f00d (read for facts)
Follows: that release. M modalities have 1 + M environments, equal weights and every cyclic shift
         of one draw, and are aligned in pairs; one modality has no pair and no variance. The
         authors (github.com/HaoyueBai98/MILK) freeze features (`train_features: False`), do not
         scale items (`item_scale: none`), align by `align_items: both_observed` and start users
         from a normal of deviation 0.1, here Xavier.
Quirks:  The environments' BPR losses are summed. The penalty takes projected and scaled item
         vectors. Scores sum the modalities where the equal environment averages them, which keeps
         a user's order. The release normalises two modalities, not three (`normalise_features`).
         The invariance weight multiplies float32 rounding: gradients hold three or four digits.
         The release's fusion layers train nothing and are absent.
Needs:   Interactions alone, no graph; trains the feature tables unless `train_features: False`.
Missing: Uses the mask: an item is scaled by 1 / (modalities it has), so that those with none tie at
         score 0, and `align_items` says whose modalities are aligned. New items need no identity:
         their imputed content is projected like any other.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_missing.config.constraints import Bool, Choice, Float, Int
from recbole_missing.model.base import MultimodalRecommender
from recbole_missing.nn.layers import rows, xavier_table
from recbole_missing.nn.losses import squared_loss


class MILK(MultimodalRecommender):
    """Matrix factorisation of users and projected content, trained in several environments."""

    hyperparameters = {
        "embedding_size": Int(min=1),
        "reg_weight": Float(min=0),
        "invariance_weight": Float(min=0),
        "align_weight": Float(min=0),
        "dirichlet_alpha": Float(min=0.01),
        "item_scale": Choice("per_observed", "none"),
        "align_items": Choice("no_lone_gap", "both_observed"),
        "normalise_features": Bool(),
        "train_features": Bool(),
    }
    scale: Tensor
    concentration: Tensor

    def __init__(self, config: Any, dataset: Any) -> None:
        """Create user and feature tables, one projection a modality, and the item scale."""
        super().__init__(config, dataset)
        self.user = xavier_table(self.n_users, self.embedding_size)
        self.features, self.projections = nn.ParameterDict(), nn.ModuleDict()
        for name, modality in self.modalities.items():
            x = F.normalize(modality.features) if self.normalise_features else modality.features
            self.features[name] = nn.Parameter(x.clone(), requires_grad=self.train_features)
            self.projections[name] = nn.Linear(modality.dim, self.embedding_size)
        n_observed = self.observed.sum(dim=1)
        scale = (n_observed > 0) / n_observed.clamp(min=1)
        unscaled = self.item_scale == "none"
        self.register_buffer("scale", torch.ones_like(scale) if unscaled else scale)
        alphas = torch.full((len(self.modalities),), float(self.dirichlet_alpha))
        self.register_buffer("concentration", alphas)

    def encode(self) -> tuple[Tensor, Tensor]:
        """Users ``(n_users, d)`` and items ``(n_items, d)``, the scaled sum of the modalities."""
        items = self._content(lambda table: table).sum(dim=0)
        return self.user, self.scale[:, None] * items

    def loss_terms(self, interaction: Any) -> dict[str, Tensor]:
        """BPR over the environments, its variance among them, norms and alignment.

        Each item of the batch is projected once; an environment mixes the modalities' logits.
        """
        user_ids, positive_ids, negative_ids = self.batch(interaction)
        ids, places = torch.cat([positive_ids, negative_ids]).unique(return_inverse=True)
        positives, negatives = places.chunk(2)
        users = rows(self.user, user_ids)
        z = self._content(lambda table: rows(table, ids))
        scaled = self.scale[ids, None] * z  # (M, n, d)
        margins = (users * (scaled[:, positives] - scaled[:, negatives])).sum(dim=2)  # (M, batch)
        risks = F.softplus(-self._environments() @ margins).mean(dim=1)
        equal = scaled.mean(dim=0)
        squares = squared_loss(users, equal[positives], equal[negatives]) / len(user_ids)
        liked = torch.zeros_like(ids, dtype=torch.bool).index_fill(0, positives, True)
        return {
            "bpr": risks.sum(),
            "reg": self.reg_weight * squares,
            "align": self.align_weight * self._disagreement(z, ids, liked),
            "invariance": self.invariance_weight * risks.var(),
        }

    def _content(self, pick: Callable[[Tensor], Tensor]) -> Tensor:
        """Projected modalities, ``(M, n, d)``.

        Args:
            pick: takes a feature table and returns its rows to project, ``n`` of them.
        """
        layers = self.projections.items()
        return torch.stack([layer(pick(self.features[name])) for name, layer in layers])

    def _environments(self) -> Tensor:
        """Weights of the modalities, ``(1 + M, M)``: equal, then every cyclic shift of one draw."""
        drawn = self._draw()
        equal = torch.full_like(drawn, 1 / len(drawn))
        return torch.stack([equal, *(drawn.roll(shift) for shift in range(len(drawn)))])

    def _draw(self) -> Tensor:
        return torch.distributions.Dirichlet(self.concentration).sample()

    def _disagreement(self, z: Tensor, ids: Tensor, liked: Tensor) -> Tensor:
        """Mean squared difference of the modalities over distinct positives, summed over pairs.

        Args:
            z: projected modalities, shape ``(M, n, d)``, of the items ``ids``, ``(n,)``.
            liked: bool ``(n,)``, positives of the batch. A pair without any item counts 0.
        """
        observed = self.observed[ids]
        several_gaps = observed.sum(dim=1) < len(z) - 1
        total = z.new_zeros(())
        for left, right in combinations(range(len(z)), 2):
            aligned = observed[:, left] & observed[:, right]
            if self.align_items == "no_lone_gap":
                aligned = aligned | several_gaps
            kept = aligned & liked
            squares = (z[left] - z[right]).square().mean(dim=1)
            total = total + (squares * kept).sum() / kept.sum().clamp(min=1)
        return total
