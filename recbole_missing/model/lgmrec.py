"""LGMRec: local vectors from the user-item graph, and global ones from learned hyperedges.

Paper:   Guo, Li, Li et al., "LGMRec: Local and Global Graph Learning for Multimodal
         Recommendation", AAAI 2024, https://arxiv.org/abs/2312.16400
Code:    https://github.com/enoche/MMRec, src/models/lgmrec.py, e775373 (read for facts)
Follows: code. Local and global vectors are sums over any number of modalities. The contrast is the
         mean over all pairs of modalities; `contrast_pairs` says which one of a pair is the
         anchor. With one modality there is no contrast.
Quirks:  Memberships are weights that nothing normalises by degree. The logits of a user are sums
         over its items, so a user with many items belongs to one hyperedge almost entirely. The
         contrast is a sum over the batch, so its strength grows with `train_batch_size`. The
         penalty takes unsquared norms of the final vectors.
         The release draws Gumbel noise in evaluation too, anew for every batch of users. Here
         scores have no noise, or one draw for a whole evaluation (`evaluation_noise`). The DGMRec
         release contrasts distinct items that have all modalities (`contrast_items: complete`).
         In the release new items belong to hyperedges and to the contrast. Here they belong to
         hyperedges in evaluation only, and never to the contrast.
Needs:   User-item graph. The features are constant.
Missing: Works on imputed features. `contrast_items` may limit the contrast of items to those that
         have all modalities.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_missing.config.constraints import Bool, Choice, Float, Int
from recbole_missing.graph.normalise import symmetric_norm
from recbole_missing.graph.sparse import light_gcn
from recbole_missing.model.base import MultimodalRecommender
from recbole_missing.nn.layers import FrozenFeatures, rows, xavier_table
from recbole_missing.nn.losses import bpr_loss, info_nce, norm_loss

# The model in formulas, in the order of the computation. R: binary interactions. N: the normalised
# adjacency of users and items together, n(.): rows scaled to unit length. E: identity vectors,
# X_m: features of modality m, [a; b]: users above items.
#
#   collaborative   G     = mean over l = 0..n_ui_layers of N^l [E_u; E_i]        -> light_gcn
#   content         Y_i,m = X_m W_m                                               -> _contents
#                   Y_u,m = mean of Y_i,m over the items of each user
#   local           L_m   = N^n_mm_layers [Y_u,m; Y_i,m]                          -> _local
#   logits          Z_i,m = X_m V_m,  Z_u,m = R Z_i,m                             -> _contents
#   memberships     H_m   = dropout(softmax over hyperedges of                    -> _memberships
#                           (Z_m + Gumbel noise) / temperature)
#   global          Q_i,m = the item rows of G at first;                          -> _hypergraph
#                   n_hyper_layers times: T_m = H_i,m^T Q_i,m,  Q_i,m = H_i,m T_m
#                   Q_u,m = H_u,m T_m, with the last T_m (the vectors of the hyperedges)
#   final vectors   F     = G + sum_m n(L_m) + global_weight n(sum_m Q_m)         -> _final
#   score           <F_u, F_i>
#
#   loss            mean over the batch of -log sigmoid(<F_u, F_i - F_j>)
#                   + cl_weight (C of the batch's users against all users
#                                + C of its positives against all items)          -> _contrast
#                   + reg_weight (|F_users| + |F_positives| + |F_negatives|) / B  -> norm_loss
#   contrast        C     = mean over the pairs (a, b) of modalities of the sum over rows r of
#                           -<n(Q_a,r), n(Q_b,r)> / temperature
#                           + log sum_k exp(<n(Q_a,r), n(Q_b,k)> / temperature)


class Views(NamedTuple):
    """The three kinds of vectors of users, or of items, whose sum is the final vector."""

    collaborative: Tensor  # G, (n, d)
    local: Tensor  # L, (M, n, d)
    hyper: Tensor  # Q, (M, n, d)

    def of(self, ids: Tensor) -> Views:
        """Take the rows ``ids`` of all three."""
        return Views(rows(self.collaborative, ids), self.local[:, ids], self.hyper[:, ids])


class LGMRec(MultimodalRecommender):
    """LightGCN, propagated content, and a hypergraph whose memberships come from raw features.

    The formulas stand above this class.
    """

    hyperparameters = {
        "embedding_size": Int(min=1),  # d, width of every vector
        "n_ui_layers": Int(min=0),  # products of the identities with the user-item graph
        "n_mm_layers": Int(min=0),  # products of the content with the user-item graph
        "n_hyper_layers": Int(min=1),  # passes from items to hyperedges and back
        "n_hyperedges": Int(min=1),  # h, hyperedges of a modality
        "dropout": Float(min=0, max=1),  # on the memberships in hyperedges
        "global_weight": Float(min=0),  # of the global vectors in the final ones
        "temperature": Float(min=1e-6),  # of memberships and of the contrast
        "cl_weight": Float(min=0),  # of the contrast
        "reg_weight": Float(min=0),  # of the norms of the batch's final vectors
        "contrast_items": Choice("all", "complete"),  # items of the contrast
        "evaluation_noise": Bool(),  # whether scores have Gumbel noise too
    }
    candidates: Tensor
    inverse_degrees: Tensor

    def __init__(self, config: Any, dataset: Any) -> None:
        """Create tables, projections and hyperedge prototypes, and build the graphs."""
        super().__init__(config, dataset)
        size = self.embedding_size
        self.user_embedding = xavier_table(self.n_users, size)
        self.item_embedding = xavier_table(self.n_items, size)
        self.features = FrozenFeatures(self.modalities)
        self.projections = nn.ParameterDict()  # W
        self.prototypes = nn.ParameterDict()  # V
        for name, modality in self.modalities.items():
            projection = nn.init.xavier_uniform_(torch.empty(modality.dim, size))
            prototypes = nn.init.xavier_uniform_(torch.empty(modality.dim, self.n_hyperedges))
            self.projections[name] = nn.Parameter(projection)
            self.prototypes[name] = nn.Parameter(prototypes)
        self.interactions = self.user_item_matrix(dataset)
        self.user_item_graph = symmetric_norm(self.interactions)
        degrees = self.interactions.row_sums()[:, None]
        self.register_buffer("inverse_degrees", 1.0 / degrees.clamp(min=1))
        self.register_buffer("candidates", self._contrasted_items(), persistent=False)

    def encode(self) -> tuple[Tensor, Tensor]:
        """Final users ``(n_users, d)`` and items ``(n_items, d)``."""
        users, items = self._views()
        return self._final(users), self._final(items)

    def loss_terms(self, interaction: Any) -> dict[str, Tensor]:
        """BPR, contrasts of the global vectors, and norms of the final vectors."""
        user_ids, positive_ids, negative_ids = self.batch(interaction)
        user_views, item_views = self._views()
        users = self._final(user_views.of(user_ids))
        item_ids = torch.cat([positive_ids, negative_ids])
        positives, negatives = self._final(item_views.of(item_ids)).chunk(2)
        all_users = torch.arange(1, self.n_users, device=user_ids.device)
        if self.contrast_items == "complete":
            positive_ids = self.complete_items(positive_ids)
        user_contrast = self._contrast(user_views.hyper, user_ids, all_users)
        item_contrast = self._contrast(item_views.hyper, positive_ids, self.candidates)
        return {
            "bpr": bpr_loss(users, positives, negatives),
            "hcl_user": self.cl_weight * user_contrast,
            "hcl_item": self.cl_weight * item_contrast,
            "reg": self.reg_weight * norm_loss(users, positives, negatives),
        }

    def _contrasted_items(self) -> Tensor:
        """Ids of the items in the denominators of the contrast; new items are not among them."""
        contrasted = ~self.new_items
        contrasted[0] = False
        if self.contrast_items == "complete":
            contrasted &= self.observed.all(dim=1)
        return contrasted.nonzero()[:, 0]

    def _views(self) -> tuple[Views, Views]:
        """Views of all users and of all items."""
        users, items = light_gcn(
            self.user_item_graph, self.user_embedding, self.item_embedding, self.n_ui_layers
        )
        (user_content, user_logits), (item_content, item_logits) = self._contents()
        user_local, item_local = self._local(user_content, item_content)
        user_hyper, item_hyper = self._hypergraph(user_logits, item_logits, items)
        return Views(users, user_local, user_hyper), Views(items, item_local, item_hyper)

    def _contents(self) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Content ``(M, n, d)`` and logits ``(M, n, h)``, first of users, then of items."""
        # Plain form, for each modality: Y_i = X W, Z_i = X V, Y_u = user means of Y_i, Z_u = R Z_i.
        # Here W and V lie side by side, and one sparse product serves all modalities.
        products = []
        for name, features in self.features.items():
            weights = torch.cat([self.projections[name], self.prototypes[name]], dim=1)
            products.append(features @ weights)
        side_by_side = torch.cat(products, dim=1)  # (n_items, M (d + h))
        widths = [self.embedding_size, self.n_hyperedges]
        items, item_logits = self._by_modality(side_by_side).split(widths, dim=2)
        sums, user_logits = self._by_modality(self.interactions @ side_by_side).split(widths, dim=2)
        return (sums * self.inverse_degrees, user_logits), (items, item_logits)

    def _local(self, users: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
        """Propagate content ``(M, n, d)`` of users and items; only the last layer counts."""
        # The modalities lie side by side, so that one sparse product serves all of them.
        users, items = torch.cat(tuple(users), dim=1), torch.cat(tuple(items), dim=1)
        for _ in range(self.n_mm_layers):
            users, items = self.user_item_graph @ items, self.user_item_graph.t_matmul(users)
        return self._by_modality(users), self._by_modality(items)

    def _by_modality(self, side_by_side: Tensor) -> Tensor:
        """Turn columns of all modalities side by side ``(n, M k)`` into ``(M, n, k)``."""
        return torch.stack(side_by_side.chunk(len(self.modalities), dim=1))

    def _hypergraph(
        self, user_logits: Tensor, item_logits: Tensor, items: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Global vectors ``(M, n, d)`` of users and items, from items ``(n_items, d)``.

        The padding item belongs to no hyperedge. Neither does a new item while the model trains.
        """
        outside = self.new_items & self.training
        outside[0] = True
        item_members = self._memberships(item_logits).masked_fill(outside[:, None], 0.0)
        user_members = self._memberships(user_logits)
        for _ in range(self.n_hyper_layers):
            hyperedges = item_members.transpose(1, 2) @ items  # (M, h, d)
            items = item_members @ hyperedges  # (M, n_items, d)
        return user_members @ hyperedges, items

    def _memberships(self, logits: Tensor) -> Tensor:
        """Membership of each node in each hyperedge, ``(M, n, h)``."""
        if self.training or self.evaluation_noise:
            memberships = F.gumbel_softmax(logits, tau=self.temperature, dim=-1)
        else:
            memberships = (logits / self.temperature).softmax(dim=-1)
        return F.dropout(memberships, self.dropout, self.training)

    def _final(self, views: Views) -> Tensor:
        """Final vectors ``(n, d)``."""
        local = F.normalize(views.local, dim=-1, eps=1e-12).sum(dim=0)
        hyper = F.normalize(views.hyper.sum(dim=0), dim=-1, eps=1e-12)
        return views.collaborative + local + self.global_weight * hyper

    def _contrast(self, hyper: Tensor, ids: Tensor, candidates: Tensor) -> Tensor:
        """Sum over ``ids`` of InfoNCE, mean over the pairs of modalities.

        Args:
            hyper: global vectors, shape ``(M, n, d)``.
            ids: rows of the batch, shape ``(batch,)``.
            candidates: rows of the denominators.
        """
        total, pairs = hyper.new_zeros(()), contrast_pairs(len(hyper))
        tables = hyper.unbind()
        for anchor, other in pairs:
            mean = info_nce(
                rows(tables[anchor], ids),
                rows(tables[other], ids),
                self.temperature,
                rows(tables[other], candidates),
            )
            total = total + len(ids) * mean
        return total / max(len(pairs), 1)


def contrast_pairs(n_modalities: int) -> list[tuple[int, int]]:
    """Positions (anchor, other) of the pairs of modalities in the contrast.

    Every pair is contrasted once. Let a < b be its positions in the config. If b - a is odd,
    a is the anchor, otherwise b:

        modalities   pairs
        two          (0, 1)                                          as in MMRec
        three        (0, 1) (2, 0) (1, 2)                            as in the DGMRec release
        four         (0, 1) (2, 0) (0, 3) (1, 2) (3, 1) (2, 3)
    """
    pairs = []
    for a, b in combinations(range(n_modalities), 2):
        is_odd = (b - a) % 2 == 1
        pairs.append((a, b) if is_odd else (b, a))
    return pairs
