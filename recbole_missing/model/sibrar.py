"""SIBRAR: one small network encodes an item's identity and each of its modalities.

Paper:   Ganhoer, Moscati, Hausberger et al., "A Multimodal Single-Branch Embedding Network for
         Recommendation in Cold-Start and Missing Modality Scenarios", RecSys 2024,
         https://arxiv.org/abs/2409.17864
Code:    https://github.com/ptkjw1997/DGMRec, src/models/sibrar.py, cd8f00d (read for facts)
Follows: that release. The identity counts as one more modality. A training row draws two of the
         1 + M.
         The authors' own code (github.com/hcai-mms) differs. It encodes interaction vectors
         instead of an identity table. It normalises the input of the shared network. It draws for
         the positive and the negative item separately. It averages the two drawn encodings in
         training. It contrasts all items of a row with each other.
Quirks:  Training sums the two drawn encodings, but scores average all of them. The encodings of
         modalities are normalised and the encoding of the identity is not. There is no penalty on
         norms. The release uses an embedding size of 64 whatever its configuration says. With
         `modality_pool: observed` positives and negatives draw separately, and a positive that has
         one choice only does not enter the contrast.
Needs:   Interactions alone, no graph. The feature tables are trained.
Missing: `modality_pool: all` is the release. It ignores which modalities are missing, and it
         averages even the untrained identity of a new item. `modality_pool: observed` is the
         paper's idea. It draws and averages only what an item truly has; the identity belongs to
         that unless the item is new. A new item without any modality then scores 0.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_missing.config.constraints import Choice, Float, Int
from recbole_missing.model.base import MultimodalRecommender
from recbole_missing.nn.distinct import distinct
from recbole_missing.nn.layers import rows, trained_features, unit_rows, xavier_table
from recbole_missing.nn.losses import bpr_loss

# The model in formulas, in the order of the computation. Item i has the identity vector e_i and
# the features x_m,i of modality m = 1..M; n(.) scales a row to unit length.
#
#   shared network   g(x)  = W_2 relu(W_1 x + b_1) + b_2                         -> branch
#   encodings        h_0,i = g(e_i)                                              -> _encodings
#                    h_m,i = n(g(V_m x_m,i + c_m)), m = 1..M
#   pool             P_i   = the modalities of item i that count, 0 for its identity   -> pool
#
#   In training, for a row of user u, positive i and negative j:
#   draws            (a, b) two different members of P_i; (a', b') of P_j         -> _draw_pairs
#                    modality_pool "all": (a', b') = (a, b)
#   loss             -log sigmoid(<p_u, h_a,i + h_b,i> - <p_u, h_a',j + h_b',j>), mean over rows
#                    + cl_weight (mean over rows of                               -> _contrast
#                      softplus((<h_a,i, h_b',j> - <h_a,i, h_b,i>) / temperature)
#                      + softplus((<h_b,i, h_a',j> - <h_a,i, h_b,i>) / temperature))
#
#   score            <p_u, mean of h_m,i over m in P_i>                           -> encode


class SIBRAR(MultimodalRecommender):
    """Users with free vectors, and items whose identity and modalities share two layers.

    The formulas stand above this class.
    """

    hyperparameters = {
        "embedding_size": Int(min=1),  # d, width of users and of encodings
        "cl_weight": Float(min=0),  # of the contrast of a positive's two encodings
        "temperature": Float(min=1e-6),  # of that contrast
        "modality_pool": Choice("all", "observed"),  # P_i: everything, or what the item truly has
    }
    pool: Tensor

    def __init__(self, config: Any, dataset: Any) -> None:
        """Create tables, one projection a modality, the shared branch and each item's pool."""
        super().__init__(config, dataset)
        size = self.embedding_size
        self.user_embedding = xavier_table(self.n_users, size)
        self.item_embedding = xavier_table(self.n_items, size)
        self.features = trained_features(self.modalities)
        self.projections = nn.ModuleDict()
        for name, modality in self.modalities.items():
            self.projections[name] = nn.Linear(modality.dim, size)
        self.branch = nn.Sequential(nn.Linear(size, size), nn.ReLU(), nn.Linear(size, size))
        has_identity = ~self.new_items[:, None]
        pool = torch.cat([has_identity, self.observed], dim=1)  # (n_items, 1 + M)
        self.register_buffer("pool", torch.ones_like(pool) if self.modality_pool == "all" else pool)

    def encode(self) -> tuple[Tensor, Tensor]:
        """Users ``(n_users, d)`` and items ``(n_items, d)``, the mean encoding of their pool."""
        shares = self.pool / self.pool.sum(dim=1, keepdim=True).clamp(min=1)  # (n_items, 1 + M)
        items = (shares.T[..., None] * self._encodings()).sum(dim=0)
        return self.user_embedding, items

    def loss_terms(self, interaction: Any) -> dict[str, Tensor]:
        """BPR of the sums of two drawn encodings, and the contrast of a positive's two."""
        user_ids, positive_ids, negative_ids = self.batch(interaction)
        items = distinct(torch.cat([positive_ids, negative_ids]))
        encodings = self._encodings(items.ids)  # each distinct item is encoded once
        positive_draws = self._draw_pairs(positive_ids)
        if self.modality_pool == "all":
            negative_draws = positive_draws
        else:
            negative_draws = self._draw_pairs(negative_ids)
        users = rows(self.user_embedding, user_ids)
        draws = torch.stack([positive_draws.T, negative_draws.T])  # (2, 2, batch)
        places = draws * len(items.ids) + items.numbers.view(2, 1, -1)
        p, q = rows(encodings.flatten(0, 1), places)  # each (2, batch, d)
        two_drawn = positive_draws[:, 0] != positive_draws[:, 1]
        contrast = self._contrast(p, q, two_drawn)
        return {
            "bpr": bpr_loss(users, p.sum(dim=0), q.sum(dim=0)),
            "cl": self.cl_weight * contrast,
        }

    def _encodings(self, item_ids: Tensor | None = None) -> Tensor:
        """Encodings h of the items ``item_ids (n,)`` or of all items, ``(1 + M, n, d)``.

        The identity comes first, then the modalities in the order of the config.
        """
        table = self.item_embedding
        encodings = [self.branch(table if item_ids is None else rows(table, item_ids))]
        for name, projection in self.projections.items():
            table = self.features[name]
            projected = projection(table if item_ids is None else rows(table, item_ids))
            encodings.append(unit_rows(self.branch(projected)))
        return torch.stack(encodings)

    def _draw_pairs(self, item_ids: Tensor) -> Tensor:
        """Two different members of each item's pool in random order, ``(n, 2)``.

        Both entries are the same where the pool has one member only.
        """
        pool = self.pool[item_ids]
        keys = torch.rand(pool.shape, device=pool.device).masked_fill(~pool, -1.0)
        first, second = keys.topk(2, dim=1).indices.unbind(dim=1)
        return torch.stack([first, second.where(pool.sum(dim=1) > 1, first)], dim=1)

    def _contrast(self, p: Tensor, q: Tensor, two_drawn: Tensor) -> Tensor:
        """Contrast a positive's two encodings with the negative's, mean over rows.

        Args:
            p, q: the two drawn encodings of positives and negatives, shape ``(2, batch, d)``.
            two_drawn: bool ``(batch,)``, rows whose positive has two different encodings. The
                others do not count.
        """
        agreement = (p[0] * p[1]).sum(dim=1)  # <h_a,i, h_b,i>
        # <h_a,i, h_b',j> and <h_b,i, h_a',j>, (2, batch)
        crossed = torch.stack([(p[0] * q[1]).sum(dim=1), (p[1] * q[0]).sum(dim=1)])
        losses = F.softplus((crossed - agreement) / self.temperature).sum(dim=0)
        return (losses * two_drawn).sum() / two_drawn.sum().clamp(min=1)
