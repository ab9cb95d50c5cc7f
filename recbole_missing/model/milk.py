"""MILK: users rank items by content alone, in several environments that weigh the modalities.

Paper:   Bai, Wu, Hou et al., "Multimodality Invariant Learning for Multimedia-Based New Item
         Recommendation", SIGIR 2024, https://arxiv.org/abs/2405.15783
Code:    https://github.com/ptkjw1997/DGMRec, src/models/milk.py, cd8f00d (read for facts)
Follows: that release. It has 1 + M environments for M modalities: equal weights, and every cyclic
         shift of one Dirichlet draw. The modalities are aligned in pairs. With one modality there
         is no pair, and the risks do not vary.
         The authors' own code (github.com/HaoyueBai98/MILK) differs in four points. It freezes the
         features (`train_features: False`). It does not scale items (`item_scale: none`). It
         aligns items that have both modalities (`align_items: both_observed`). It starts users
         from a normal distribution of deviation 0.1; here they start from Xavier.
Quirks:  The BPR losses of the environments are summed, not averaged. The penalty takes the
         projected and scaled item vectors. Scores use the sum of the modalities, where the equal
         environment uses their mean; a user's ranking is the same. The release normalises the
         features of two modalities but not of three (`normalise_features`). The invariance weight
         of up to 1000 multiplies the rounding errors of float32, so gradients are exact to three
         or four digits. The release creates fusion layers that it never uses; they are left out.
Needs:   Interactions alone, no graph. The feature tables are trained unless `train_features:
         False`.
Missing: An item is scaled by 1 / (number of modalities that it has). Items without any modality
         score 0 for every user. `align_items` says which items are aligned. New items need no
         identity: their imputed content is projected like that of any other item.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_missing.config.constraints import Bool, Choice, Float, Int
from recbole_missing.model.base import MultimodalRecommender
from recbole_missing.nn.distinct import distinct
from recbole_missing.nn.layers import rows, trained_features, xavier_table
from recbole_missing.nn.losses import squared_loss

# The model in formulas, in the order of the computation. Item i has the features x_m,i of modality
# m = 1..M; a batch holds B triples of a user u, a positive item i and a negative item j.
#
#   content        z_m,i = W_m x_m,i + b_m                                      -> _projected
#   item scale     c_i   = 1 / (number of modalities that i has), 0 if none     -> scale
#   environments   w_0   = (1/M, ..., 1/M)                                      -> _environments
#                  w_e   = e-th cyclic shift of one draw from Dirichlet(alpha), e = 1..M
#   item vector    v_e,i = c_i sum_m w_e,m z_m,i
#   risk           L_e   = mean over the batch of softplus(-<p_u, v_e,i - v_e,j>)
#   loss           sum_e L_e
#                  + reg_weight (sum over the batch of |p_u|^2 + |v_0,i|^2 + |v_0,j|^2) / (2 B)
#                  + align_weight sum over pairs m < m' of
#                    mean over items and entries of (z_m,i - z_m',i)^2          -> _alignment
#                  + invariance_weight Var(L_0, ..., L_M), divided by M          -> loss_terms
#   score          <p_u, c_i sum_m z_m,i>                                        -> encode


class MILK(MultimodalRecommender):
    """Matrix factorisation of users and projected content, trained in several environments.

    The formulas stand above this class.
    """

    hyperparameters = {
        "embedding_size": Int(min=1),  # d, width of users and of projected content
        "reg_weight": Float(min=0),  # of the squared norms of the batch's vectors
        "invariance_weight": Float(min=0),  # of the variance of the environments' risks
        "align_weight": Float(min=0),  # of the squared differences between modalities
        "dirichlet_alpha": Float(min=0.01),  # alpha, of the draw of the environments
        "item_scale": Choice("per_observed", "none"),  # c_i as above, or 1 for every item
        "align_items": Choice("no_lone_gap", "both_observed"),  # see _is_aligned
        "normalise_features": Bool(),  # scale the rows of the features to unit length first
        "train_features": Bool(),  # whether the features are trained
    }
    scale: Tensor
    concentration: Tensor

    def __init__(self, config: Any, dataset: Any) -> None:
        """Create user and feature tables, one projection a modality, and the item scale."""
        super().__init__(config, dataset)
        self.user_embedding = xavier_table(self.n_users, self.embedding_size)
        self.features = trained_features(self.modalities)
        self.projections = nn.ModuleDict()
        for name, modality in self.modalities.items():
            if self.normalise_features:
                self.features[name].data = F.normalize(modality.features)
            self.projections[name] = nn.Linear(modality.dim, self.embedding_size)
        self.features.requires_grad_(self.train_features)
        self.register_buffer("scale", self._item_scale())
        alphas = torch.full((len(self.modalities),), float(self.dirichlet_alpha))
        self.register_buffer("concentration", alphas)

    def encode(self) -> tuple[Tensor, Tensor]:
        """Users ``(n_users, d)`` and items ``(n_items, d)``, the scaled sum of the modalities."""
        return self.user_embedding, self.scale[:, None] * self._projected().sum(dim=0)

    def loss_terms(self, interaction: Any) -> dict[str, Tensor]:
        """BPR over the environments, norms, alignment, and the variance of the risks."""
        user_ids, positive_ids, negative_ids = self.batch(interaction)
        items = distinct(torch.cat([positive_ids, negative_ids]))
        users = rows(self.user_embedding, user_ids)
        content = self._projected(items.ids)  # each distinct item is projected once
        scaled = self.scale[items.ids, None] * content  # (M, n, d)
        # An environment mixes vectors: <p_u, v_e,i - v_e,j>. The product is linear, so it mixes
        # the margins <p_u, c_i z_m,i - c_j z_m,j> of the modalities instead.
        margins = torch.stack([_margins(users, *items.spread(z).chunk(2)) for z in scaled])
        risks = F.softplus(-self._environments() @ margins).mean(dim=1)  # (1 + M,)
        sizes = scaled.mean(dim=0).square().sum(dim=1)  # |v_0|^2 of each distinct item
        squares = (squared_loss(users) + 0.5 * (items.counts * sizes).sum()) / len(user_ids)
        is_positive = torch.zeros_like(items.ids, dtype=torch.bool)
        is_positive = is_positive.index_fill(0, items.numbers[: len(positive_ids)], True)
        return {
            "bpr": risks.sum(),
            "reg": self.reg_weight * squares,
            "align": self.align_weight * self._alignment(content, items.ids, is_positive),
            "invariance": self.invariance_weight * risks.var(),
        }

    def _item_scale(self) -> Tensor:
        """Scale c of every item, ``(n_items,)``."""
        n_observed = self.observed.sum(dim=1)
        if self.item_scale == "none":
            return torch.ones(self.n_items, device=n_observed.device)
        return (n_observed > 0) / n_observed.clamp(min=1)

    def _projected(self, item_ids: Tensor | None = None) -> Tensor:
        """Projected content z of the items ``item_ids (n,)`` or of all items, ``(M, n, d)``."""
        projected = []
        for name, projection in self.projections.items():
            table = self.features[name]
            projected.append(projection(table if item_ids is None else rows(table, item_ids)))
        return torch.stack(projected)

    def _environments(self) -> Tensor:
        """Weights of the modalities in each environment, ``(1 + M, M)``."""
        drawn = self._draw()
        n_modalities = len(drawn)
        weights = [torch.full_like(drawn, 1 / n_modalities)]
        for shift in range(n_modalities):
            weights.append(drawn.roll(shift))
        return torch.stack(weights)

    def _draw(self) -> Tensor:
        """One draw from the Dirichlet distribution, ``(M,)``."""
        return torch.distributions.Dirichlet(self.concentration, validate_args=False).sample()

    def _alignment(self, content: Tensor, item_ids: Tensor, is_positive: Tensor) -> Tensor:
        """Mean squared difference of two modalities, summed over the pairs of modalities.

        The mean runs over the distinct positives that count for the pair; without any it is 0.

        Args:
            content: projected modalities, shape ``(M, n, d)``, of the items ``item_ids (n,)``.
            is_positive: bool ``(n,)``, the positives of the batch.
        """
        total = content.new_zeros(())
        for left, right in combinations(range(len(content)), 2):
            counted = self._is_aligned(item_ids, left, right) & is_positive
            squares = (content[left] - content[right]).square().mean(dim=1)
            total = total + (squares * counted).sum() / counted.sum().clamp(min=1)
        return total

    def _is_aligned(self, item_ids: Tensor, left: int, right: int) -> Tensor:
        """Bool ``(n,)``: the items whose modalities number ``left`` and ``right`` are aligned.

        These are the items that have both. ``no_lone_gap`` adds the items that lack two or more
        modalities: the release removes only those that lack one of the pair and nothing else.
        """
        observed = self.observed[item_ids]
        has_both = observed[:, left] & observed[:, right]
        if self.align_items == "both_observed":
            return has_both
        lacks_several = observed.sum(dim=1) < len(self.modalities) - 1
        return has_both | lacks_several


def _margins(users: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
    """<u, p - n> of every row, ``(batch,)``; all arguments are ``(batch, d)``."""
    return (users * (positives - negatives)).sum(dim=1)
