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
from recbole_missing.nn.distinct import Distinct, distinct
from recbole_missing.nn.layers import FrozenFeatures, rows, unit_rows, xavier_table
from recbole_missing.nn.losses import bpr_loss, norm_loss, weighted_log_sum_exp

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
#   global          Q_i,m = the item rows of G at first;                          -> _hyperedges
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
    """What the final vectors of users, or of items, are made of; modalities lie side by side."""

    collaborative: Tensor  # G, (n, d)
    local: Tensor  # L, (n, M d)
    members: Tensor  # H, (n, M h)

    def of(self, ids: Tensor) -> Views:
        """Take the rows ``ids`` of all three."""
        return Views(*(rows(view, ids) for view in self))


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
        users, items, hyperedges = self._views()
        return self._final(users, hyperedges), self._final(items, hyperedges)

    def loss_terms(self, interaction: Any) -> dict[str, Tensor]:
        """BPR, contrasts of the global vectors, and norms of the final vectors."""
        user_ids, positive_ids, negative_ids = self.batch(interaction)
        distinct_users, distinct_items = distinct(user_ids), distinct(positive_ids)
        user_views, item_views, hyperedges = self._views()
        users = self._final(user_views.of(distinct_users.ids), hyperedges)
        users = distinct_users.spread(users)
        item_ids = torch.cat([positive_ids, negative_ids])
        positives, negatives = self._final(item_views.of(item_ids), hyperedges).chunk(2)
        all_users = torch.arange(1, self.n_users, device=user_ids.device)
        if self.contrast_items == "complete":
            distinct_items = self.complete(distinct_items)
        user_contrast = self._contrast(user_views.members, hyperedges, distinct_users, all_users)
        item_contrast = self._contrast(
            item_views.members, hyperedges, distinct_items, self.candidates
        )
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

    def _views(self) -> tuple[Views, Views, Tensor]:
        """Views of all users and of all items, and the vectors T of the hyperedges ``(M, h, d)``.

        The padding item belongs to no hyperedge. Neither does a new item while the model trains.
        """
        users, items = light_gcn(
            self.user_item_graph, self.user_embedding, self.item_embedding, self.n_ui_layers
        )
        item_content = self._of_all_modalities(self.projections)  # Y_i, (n_items, M d)
        item_logits = self._of_all_modalities(self.prototypes)  # Z_i, (n_items, M h)
        user_content = (self.interactions @ item_content) * self.inverse_degrees
        user_logits = self.interactions @ item_logits
        outside = self.new_items & self.training
        outside[:1].fill_(True)
        members = self._memberships(self._by_modality(item_logits)).masked_fill(
            outside[:, None], 0.0
        )
        hyperedges = self._hyperedges(members, items)
        user_members = self._memberships(self._by_modality(user_logits))
        user_local, item_local = self._local(user_content, item_content)
        return (
            Views(users, user_local, user_members.transpose(0, 1).flatten(1)),
            Views(items, item_local, members.transpose(0, 1).flatten(1)),
            hyperedges,
        )

    def _of_all_modalities(self, weights: nn.ParameterDict) -> Tensor:
        """X_m times the weights of m, for all modalities side by side, ``(n_items, M k)``."""
        products = [features @ weights[name] for name, features in self.features.items()]
        return torch.cat(products, dim=1)

    def _by_modality(self, side_by_side: Tensor) -> Tensor:
        """Turn columns of all modalities side by side ``(n, M k)`` into ``(M, n, k)``."""
        return torch.stack(side_by_side.chunk(len(self.modalities), dim=1))

    def _local(self, users: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
        """Propagate content of users and items, ``(n, M d)``; only the last layer counts."""
        for _ in range(self.n_mm_layers):
            users, items = self.user_item_graph @ items, self.user_item_graph.t_matmul(users)
        return users, items

    def _hyperedges(self, members: Tensor, items: Tensor) -> Tensor:
        """The last T_m ``(M, h, d)``, from members ``(M, n_items, h)``, items ``(n_items, d)``."""
        hyperedges = members.transpose(1, 2) @ items
        for _ in range(self.n_hyper_layers - 1):
            hyperedges = members.transpose(1, 2) @ (members @ hyperedges)
        return hyperedges

    def _memberships(self, logits: Tensor) -> Tensor:
        """Membership of each node in each hyperedge, ``(M, n, h)``."""
        if self.training or self.evaluation_noise:
            memberships = F.gumbel_softmax(logits, tau=self.temperature, dim=-1)
        else:
            memberships = (logits / self.temperature).softmax(dim=-1)
        return F.dropout(memberships, self.dropout, self.training)

    def _final(self, views: Views, hyperedges: Tensor) -> Tensor:
        """Final vectors ``(n, d)``."""
        local = views.local.unflatten(1, (-1, self.embedding_size))  # (n, M, d)
        local = unit_rows(local).sum(dim=1)
        hyper = unit_rows(views.members @ hyperedges.flatten(0, 1))  # of sum_m Q_m
        return views.collaborative + local + self.global_weight * hyper

    def _contrast(
        self, members: Tensor, hyperedges: Tensor, ids: Distinct, candidates: Tensor
    ) -> Tensor:
        """Sum over ``ids`` of InfoNCE, mean over the pairs of modalities.

        Args:
            members: in hyperedges, of all users or of all items, shape ``(n, M h)``.
            hyperedges: shape ``(M, h, d)``.
            ids: rows of the batch.
            candidates: rows of the denominators.
        """
        # Q_m = H_m T_m, so <n(Q_a,r), n(Q_b,k)> is an inner product of h numbers instead of d,
        # which is less work if h < d: that of (H_a,r / |Q_a,r|) T_a T_b^T and H_b,k / |Q_b,k|.
        # n(Q_m) does not depend on the scale of T_m, but T_a T_b^T might overflow: T_m is divided
        # by its largest entry, and so is the smallest norm, 1e-12.
        largest = hyperedges.detach().abs().amax(dim=(1, 2), keepdim=True).clamp(min=1e-12)
        hyperedges, smallest = hyperedges / largest, 1e-12 / largest[:, 0]
        unit = []  # H_m / |Q_m|
        parts = zip(members.chunk(len(hyperedges), dim=1), hyperedges, smallest)
        for of_modality, vectors, least in parts:
            norms = torch.linalg.vector_norm(of_modality @ vectors, dim=1, keepdim=True)
            unit.append(of_modality / torch.maximum(norms, least))
        total, pairs = members.new_zeros(()), contrast_pairs(len(hyperedges))
        counts, bound = ids.like(members).counts, 1 / self.temperature
        for a, b in pairs:
            anchors = rows(unit[a], ids.ids) @ (hyperedges[a] @ hyperedges[b].T) / self.temperature
            rivals = rows(unit[b], candidates)
            total = total + weighted_log_sum_exp(anchors, rivals, counts, bound=bound)
            total = total - counts @ (anchors * rows(unit[b], ids.ids)).sum(dim=1)
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
