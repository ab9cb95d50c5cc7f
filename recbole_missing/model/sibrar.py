"""SIBRAR: one small network encodes identity and modalities alike; a training row sees two of them.

Paper:   Ganhoer, Moscati, Hausberger et al., "A Multimodal Single-Branch Embedding Network for
         Recommendation in Cold-Start and Missing Modality Scenarios", RecSys 2024,
         https://arxiv.org/abs/2409.17864
Code:    https://github.com/ptkjw1997/DGMRec, src/models/sibrar.py, cd8f00d (read for facts)
Follows: that release. M modalities and the identity are 1 + M choices; a row draws two. The authors
         (github.com/hcai-mms) encode interaction vectors instead of an identity table, normalise
         what enters the shared network, draw for positive and negative apart, average the two
         encodings in training too and contrast all items of a row with each other.
Quirks:  Training adds two encodings where scores average all. Modalities are normalised after the
         shared network, the identity is not. There is no penalty. The release's embedding size
         is 64 whatever the configuration says. With `modality_pool: observed` positive and
         negative draw apart, and a positive with a single choice has no contrast.
Needs:   Interactions alone, no graph; trains the feature tables.
Missing: `modality_pool: all` (release) ignores the mask and averages even the untrained identity of
         a new item; `observed` (the paper's idea) draws and averages what an item truly has, its
         identity included unless it is new. A new item with nothing then scores 0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_missing.config.constraints import Choice, Float, Int
from recbole_missing.model.base import MultimodalRecommender
from recbole_missing.nn.layers import feature_table, rows, xavier_table
from recbole_missing.nn.losses import bpr_loss


class SIBRAR(MultimodalRecommender):
    """Free users meet items whose identity and modalities pass the same two layers."""

    hyperparameters = {
        "embedding_size": Int(min=1),
        "cl_weight": Float(min=0),
        "temperature": Float(min=1e-6),
        "modality_pool": Choice("all", "observed"),
    }
    pool: Tensor

    def __init__(self, config: Any, dataset: Any) -> None:
        """Create tables, one projection a modality, the shared branch and each item's pool."""
        super().__init__(config, dataset)
        size = self.embedding_size
        self.user = xavier_table(self.n_users, size)
        self.item = xavier_table(self.n_items, size)
        self.features, self.projections = nn.ParameterDict(), nn.ModuleDict()
        for name, modality in self.modalities.items():
            self.features[name] = feature_table(modality)
            self.projections[name] = nn.Linear(modality.dim, size)
        self.branch = nn.Sequential(nn.Linear(size, size), nn.ReLU(), nn.Linear(size, size))
        pool = torch.cat([~self.new_items[:, None], self.observed], dim=1)
        whole = self.modality_pool == "all"
        self.register_buffer("pool", torch.ones_like(pool) if whole else pool)

    def encode(self) -> tuple[Tensor, Tensor]:
        """Users ``(n_users, d)`` and items ``(n_items, d)``, the mean encoding of their pool."""
        shares = self.pool / self.pool.sum(dim=1, keepdim=True).clamp(min=1)  # (n_items, 1 + M)
        encodings = self._encodings(lambda table: table)
        return self.user, (shares.T[..., None] * encodings).sum(dim=0)

    def loss_terms(self, interaction: Any) -> dict[str, Tensor]:
        """BPR of the two drawn encodings' sums, and agreement of a positive's two encodings.

        Each item of the batch is encoded once.
        """
        user_ids, *item_ids = self.batch(interaction)
        ids, places = torch.cat(item_ids).unique(return_inverse=True)
        encodings = self._encodings(lambda table: rows(table, ids))
        pairs = self._draw_pairs(item_ids[0])
        other = pairs if self.modality_pool == "all" else self._draw_pairs(item_ids[1])
        positives, negatives = places.chunk(2)
        p, q = encodings[pairs.T, positives], encodings[other.T, negatives]  # (2, batch, d)
        contrast = self._contrast(p, q, differ=pairs[:, 0] != pairs[:, 1])
        return {
            "bpr": bpr_loss(rows(self.user, user_ids), p.sum(dim=0), q.sum(dim=0)),
            "cl": self.cl_weight * contrast,
        }

    def _encodings(self, pick: Callable[[Tensor], Tensor]) -> Tensor:
        """Encodings of the identity, then of each modality, ``(1 + M, n, d)``.

        Args:
            pick: takes an item table and returns its rows to encode, ``n`` of them.
        """
        found = [self.branch(pick(self.item))]
        for name, projection in self.projections.items():
            found.append(F.normalize(self.branch(projection(pick(self.features[name])))))
        return torch.stack(found)

    def _draw_pairs(self, ids: Tensor) -> Tensor:
        """Two different columns of each item's pool, ordered, ``(n, 2)``; an only one twice."""
        pool = self.pool[ids]
        keys = torch.rand(pool.shape, device=pool.device).masked_fill(~pool, -1.0)
        first, second = keys.topk(2, dim=1).indices.unbind(dim=1)
        return torch.stack([first, second.where(pool.sum(dim=1) > 1, first)], dim=1)

    def _contrast(self, p: Tensor, q: Tensor, differ: Tensor) -> Tensor:
        """Each of a positive's two encodings against the negative's other one, mean over rows.

        Args:
            p, q: encodings of positives and negatives, shape ``(2, batch, d)``.
            differ: bool ``(batch,)``, rows that count: their positive has two encodings.
        """
        agreement = (p[0] * p[1]).sum(dim=1)
        crossed = (p * q.flip(0)).sum(dim=2)  # (2, batch)
        losses = F.softplus((crossed - agreement) / self.temperature).sum(dim=0)
        return (losses * differ).sum() / differ.sum().clamp(min=1)
