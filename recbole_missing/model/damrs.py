"""DAMRS: item graphs on which all modalities agree; their agreement weighs BPR and a contrast.

Paper:   Xv, Li, Xie et al., "Improving Multi-modal Recommender Systems by Denoising and Aligning
         Multi-modal Content and User Feedback", KDD 2024, https://arxiv.org/abs/2406.12501
Code:    https://github.com/enoche/MMRec, src/models/damrs.py, e775373 (read for facts)
Follows: code, on LightGCN. With any number of modalities, the views of all of them and of behaviour
         are averaged.
Quirks:  Features only decide which edges there are, and numbers of shared users only rank them:
         every edge counts 1. The normalisation takes the out-degree for both ends of an edge. For
         three modalities the DGMRec release has other `contrast_items` and `pseudo_labels` and
         half the `cl_weight`. There is no norm penalty. Where the releases fail: a row of zeros
         keeps its self loop, and if there are fewer than 2 * `pseudo_labels` items, half of them
         are labels.
Needs:   User-item graph, a kNN graph for each modality, a co-interaction graph; features
         stay constant.
Missing: `knn_missing` says what the content graphs do with lacking items. Imputed rows always
         count in the mean similarity. `contrast_items: complete` contrasts only items that have
         every modality. In training, new items have no edge to other items and are no candidates
         of the contrast.
"""

from __future__ import annotations

import math
from logging import getLogger
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy import sparse
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from recbole_missing.config.constraints import Choice, Float, Int
from recbole_missing.graph.co_interaction import co_interaction
from recbole_missing.graph.knn import KNN_MISSING, Cosines, block_rows, largest, nearest
from recbole_missing.graph.normalise import row_sum_norm, symmetric_norm
from recbole_missing.graph.sparse import SparseMatrix, light_gcn, propagate
from recbole_missing.modality import Modalities
from recbole_missing.model.base import MultimodalRecommender
from recbole_missing.nn.distinct import Distinct, distinct
from recbole_missing.nn.layers import (
    ItemGraph,
    cached_rows,
    exp_is_safe,
    rows,
    unit_rows,
    xavier_table,
)

# The model in formulas. R is the binary training matrix, A the graph of R, norm(x) = x / |x|. The
# views x are the M modalities and behaviour.
#
# Once
#   Identities       E_u, E_i                         -> self.user_embedding, self.item_embedding
#   Content graph    items i and j are similar if cos_m(i, j) >= mean of cos_m, for every m;
#                    B_m: 1 for the k similar items of largest cos_m            -> content_edges
#   Behaviour graph  B_s: 1 for the item itself and the behaviour_k items that share the most users
#                    with it, and at least behaviour_min_count                  -> behaviour_edges
#   Normalisation    A_x = B_x,ij / sqrt(r_i r_j), r the row sums of B_x        -> row_sum_norm
# Forward
#   LightGCN         Z_0 = [E_u ; E_i] by rows,  Z_l+1 = D^-1/2 A D^-1/2 Z_l,
#                    g_u, g_i = mean of Z_0 .. Z_L                              -> light_gcn
#   Views            h_x = A_x^L' E_i,  side = mean_x h_x                       -> self._forward
#   Final vectors    user = g_u,  item = g_i + side;  score = <user, item>      -> self.encode
#
# Losses of a batch of triples (u, p, n); J: the distinct items among p and n, K: the distinct u
#   q_x     = sigmoid(<g_u, norm(h_x,p)>),  q' = mean over triples and x of the same with n for p
#   a       = mean_x q_x * exp(-2 var_x q_x)
#   b       = max(max_x q_x - q', 0) where mean_x q_x < q', else 0
#   L_wbpr  = mean of -a log sigmoid(s) - b log sigmoid(-s), s = score(u, p) - score(u, n); a and b
#             have no gradient                                                  -> weighted_bpr
#   L_kl    = mean over K x J of KL(y|y') + KL(y'|y), y = sigmoid(<g_u, norm(g_j)>),
#             y' = sigmoid(<g_u, norm(side_j)>)                                 -> score_gap
#   Pseudo neighbours of an item j in J, n = pseudo_labels: P_x = softmax over all items of
#             cos(h_x,j, h_x);  first_x = the top n of sum_y P_y + P_x;  second_x = the top n of
#             P_x without first_x                                               -> pseudo_neighbours
#   L_nd    = mean_x mean_j -log(A / Z) - log(B / (Z - A)), where A, B and Z sum
#             exp(cos(h_x,j, h_x) / temperature) over first_x, second_x and all items
#                                                                              -> neighbour_losses
#   loss    = L_wbpr + kl_weight L_kl + cl_weight L_nd                          -> self.loss_terms


class DAMRS(MultimodalRecommender):
    """LightGCN plus the mean of views, identities on item graphs; formulas stand above."""

    hyperparameters = {
        "embedding_size": Int(min=1),  # d, width of every vector
        "n_ui_layers": Int(min=0),  # L, products with the user-item graph
        "n_mm_layers": Int(min=0),  # L', products with each item graph
        "knn_k": Int(min=1),  # neighbours of an item in B_m, the item itself among them
        "knn_missing": Choice(*KNN_MISSING),  # what B_m does with items that lack m
        "behaviour_k": Int(min=0),  # neighbours of an item in B_s
        "behaviour_min_count": Int(min=1),  # users that neighbours in B_s share at least
        "kl_weight": Float(min=0),
        "cl_weight": Float(min=0),
        "temperature": Float(min=1e-6),  # of L_nd
        "pseudo_labels": Int(min=1),  # n of the pseudo neighbours
        "contrast_items": Choice("all", "complete"),  # J, or positives that have every modality
    }

    def __init__(self, config: Any, dataset: Any) -> None:
        """Create the two tables and build the graphs."""
        super().__init__(config, dataset)
        self.user_embedding = xavier_table(self.n_users, self.embedding_size)
        self.item_embedding = xavier_table(self.n_items, self.embedding_size)
        fewest = 2 * self.pseudo_labels
        if self.n_items - 1 < fewest:
            getLogger().warning(
                f"DAMRS: pseudo_labels needs {fewest} items, got {self.n_items - 1}; half of them "
                "are labels."
            )
        self.register_buffer("old_items", (~self.new_items).nonzero()[1:, 0], persistent=False)
        interactions = self.user_item_matrix(dataset)
        self.user_item_graph = symmetric_norm(interactions)
        self._build_item_graphs(interactions)

    def _build_item_graphs(self, interactions: SparseMatrix) -> None:
        neighbours = self.knn_k, self.knn_missing
        nobody = torch.zeros_like(self.new_items)
        edges = content_edges(self.modalities, *neighbours, nobody, self.device)
        old_edges: dict[str, Tensor] = {}
        if self.new_items.any():
            excluded = self.new_items
            old_edges = content_edges(self.modalities, *neighbours, excluded, self.device)
        self.item_graphs = nn.ModuleDict()
        for name in self.modalities:
            without_new = self._graph(old_edges[name]) if old_edges else None
            self.item_graphs[name] = ItemGraph(self._graph(edges[name]), without_new)
        counted = self.behaviour_k, self.behaviour_min_count
        self.behaviour_graph = self._graph(behaviour_edges(interactions, *counted))

    def _graph(self, edges: Tensor) -> SparseMatrix:
        """A_x of ``edges (2, n_edges)``."""
        ones, shape = torch.ones(edges.shape[1]), (self.n_items, self.n_items)
        return row_sum_norm(SparseMatrix(edges[0], edges[1], ones, shape))

    def encode(self) -> tuple[Tensor, Tensor]:
        """Users ``(n_users, d)`` and items ``(n_items, d)``: g_u, and g_i + side."""
        users, items, views = self._forward()
        return users, items + views.mean(dim=0)

    def loss_terms(self, interaction: Any) -> dict[str, Tensor]:
        """L_wbpr, L_kl, and L_nd of each view."""
        user_ids, positive_ids, negative_ids = self.batch(interaction)
        all_users, all_items, all_views = self._forward()
        all_sides, unit = all_views.mean(dim=0), unit_rows(all_views)
        users = rows(all_users, user_ids)
        positives = rows(all_items + all_sides, positive_ids)
        negatives = rows(all_items + all_sides, negative_ids)
        liked, disliked = unit[:, positive_ids], unit[:, negative_ids]
        once_users = distinct(user_ids)  # K
        once_items = distinct(torch.cat([positive_ids, negative_ids]))  # J
        items, sides = rows(all_items, once_items.ids), rows(all_sides, once_items.ids)
        weights = (ids.like(all_users).equal_shares() for ids in (once_users, once_items))
        gap = score_gap(rows(all_users, once_users.ids), items, sides, *weights)
        terms = {
            "wbpr": weighted_bpr(users, positives, negatives, liked, disliked),
            "kl": self.kl_weight * gap,
        }
        if self.cl_weight > 0:  # the contrast is most of the work
            contrasted = once_items
            if self.contrast_items == "complete":
                contrasted = self.complete(distinct(positive_ids))
            terms.update(self._contrast(unit, contrasted))
        return terms

    def _forward(self) -> tuple[Tensor, Tensor, Tensor]:
        """g_u ``(n_users, d)``, g_i ``(n_items, d)`` and the views h_x ``(M + 1, n_items, d)``."""
        identities = self.user_embedding, self.item_embedding
        users, items = light_gcn(self.user_item_graph, *identities, self.n_ui_layers)
        views = []
        for graph in [*self.item_graphs.values(), self.behaviour_graph]:
            views.append(propagate(graph, self.item_embedding, self.n_mm_layers))
        return users, items, torch.stack(views)

    def _contrast(self, unit: Tensor, contrasted: Distinct) -> dict[str, Tensor]:
        """Weighted L_nd of each view: unit vectors of contrasted items against those of all."""
        anchors = unit.index_select(1, contrasted.ids)
        candidates = unit.index_select(1, self.old_items)
        options = self.pseudo_labels, self.temperature, contrasted.like(unit).equal_shares()
        losses = neighbour_losses(anchors, candidates, *options)
        terms = [*(f"nd_{name}" for name in self.modalities), "behaviour_nd"]
        return dict(zip(terms, self.cl_weight / len(terms) * losses))


def weighted_bpr(
    users: Tensor, positives: Tensor, negatives: Tensor, liked: Tensor, disliked: Tensor
) -> Tensor:
    """L_wbpr, mean over the triples.

    Args:
        users, positives, negatives: final vectors, ``(batch, d)``.
        liked, disliked: unit vectors of positives and negatives in every view,
            ``(n_views, batch, d)``.
    """
    with torch.no_grad():
        q = (users * liked).sum(dim=2).sigmoid()  # (n_views, batch)
        mean = q.mean(dim=0)
        usual = (users * disliked).sum(dim=2).sigmoid().mean()  # q', one number
        a = mean * (-2 * q.var(dim=0)).exp()
        b = (q.amax(dim=0) - usual).clamp(min=0) * (mean < usual)
    margin = (users * (positives - negatives)).sum(dim=1)
    return -(a * F.logsigmoid(margin) + b * F.logsigmoid(-margin)).mean()


def score_gap(
    users: Tensor, items: Tensor, sides: Tensor, user_weights: Tensor, item_weights: Tensor
) -> Tensor:
    """L_kl, weighted mean over all pairs of users and items.

    Args:
        users: shape ``(n, d)``.
        items, sides: shape ``(m, d)``.
        user_weights, item_weights: shapes ``(n,)``, ``(m,)``; each adds up to 1.
    """
    by_items, by_sides = users @ unit_rows(items).T, users @ unit_rows(sides).T
    # For y = sigmoid(a), y' = sigmoid(b): KL(y|y') + KL(y'|y) = (y - y') (a - b), which is finite
    # for all scores.
    gaps = (by_items.sigmoid() - by_sides.sigmoid()) * (by_items - by_sides)
    return user_weights @ gaps @ item_weights


def neighbour_losses(
    anchors: Tensor, candidates: Tensor, n: int, tau: float, weights: Tensor
) -> Tensor:
    """L_nd of every view, ``(n_views,)``; no anchor gives zero.

    The anchors are taken in blocks. Each block gives its part of the losses and of their gradients
    at once: its cosines with all candidates serve the pseudo neighbours, Z and the gradients, and
    are then forgotten.

    Args:
        anchors: unit vectors, ``(n_views, n_rows, d)``.
        candidates: unit vectors, ``(n_views, n_candidates, d)``.
        n: pseudo neighbours, see :func:`pseudo_neighbours`.
        tau: temperature.
        weights: of the anchors, ``(n_rows,)``; they add up to 1.
    """
    losses: Tensor = _NeighbourLosses.apply(anchors, candidates, n, tau, weights)
    return losses


class _NeighbourLosses(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, anchors: Tensor, candidates: Tensor, n: int, tau: float, weights: Tensor
    ) -> Tensor:
        total = anchors.new_zeros(len(anchors))
        to_anchors, to_candidates = torch.empty_like(anchors), torch.zeros_like(candidates)
        block_size = cached_rows(candidates.shape[1], anchors, entries=2**19, fewest=32)
        block_size = max(1, min(block_size, anchors.shape[1]))
        buffers = anchors.new_empty(2, len(anchors) * block_size * candidates.shape[1])
        blocks = (anchors.split(block_size, 1), to_anchors.split(block_size, 1))
        for block, to_block, weight in zip(*blocks, weights.split(block_size)):
            shape = (len(block), block.shape[1], candidates.shape[1])
            cosines, powers = (buffer[: math.prod(shape)].view(shape) for buffer in buffers)
            torch.bmm(block, candidates.transpose(1, 2), out=cosines)
            labels = pseudo_neighbours(cosines, torch.exp(cosines, out=powers), n)
            logits = cosines.mul_(1 / tau)
            label_logits = logits.gather(2, labels).requires_grad_()
            first, second = labels.chunk(2, dim=2)
            powers = logits.scatter_(2, first, -torch.inf)
            shift = torch.zeros_like(weight)
            if not exp_is_safe(1 / tau):
                shift = logits.gather(2, second).amax(dim=2)  # the largest one left is in second_x
                powers -= shift[:, :, None]
            sums = powers.exp_().sum(dim=2)
            log_rest = (sums.log() + shift).requires_grad_()
            with torch.enable_grad():
                losses = (weight * label_loss(label_logits, log_rest)).sum(dim=1)
                to_labels, to_rest = torch.autograd.grad(losses.sum(), (label_logits, log_rest))
            total += losses.detach()
            # The gradient of the cosines, in place
            powers *= (to_rest / sums / tau)[:, :, None]
            powers.scatter_add_(2, labels, to_labels / tau)
            torch.bmm(powers, candidates, out=to_block)
            to_candidates.baddbmm_(powers.transpose(1, 2), block)
        ctx.save_for_backward(to_anchors, to_candidates)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        to_anchors, to_candidates = ctx.saved_tensors
        grad = grad[:, None, None]
        return grad * to_anchors, grad * to_candidates, None, None, None


def pseudo_neighbours(cosines: Tensor, powers: Tensor, n: int) -> Tensor:
    """Pseudo neighbours of the anchors in every view: ``n`` of first_x, then ``n`` of second_x.

    Args:
        cosines: of anchors and candidates, ``(n_views, n_rows, n_candidates)``.
        powers: exp(cosines), which are overwritten.
        n: half the number of candidates, if that is smaller.

    Returns:
        Numbers of candidates, ``(n_views, n_rows, 2 * n)``.
    """
    n_views, n_rows, n_candidates = cosines.shape
    n = min(n, n_candidates // 2)
    shares = powers.div_(powers.sum(dim=2, keepdim=True))  # P_x
    shares += shares.sum(dim=0)
    first = largest(shares.flatten(0, 1), n)[1].view(n_views, n_rows, n)
    # The order of P_x is that of the cosines.
    found = cosines.gather(2, first)
    others = cosines.scatter_(2, first, -torch.inf)
    second = largest(others.flatten(0, 1), n)[1].view(n_views, n_rows, n)
    cosines.scatter_(2, first, found)
    return torch.cat([first, second], dim=2)


def label_loss(logits: Tensor, log_rest: Tensor) -> Tensor:
    """L_nd of each anchor, ``(..., n_rows)``, from its pseudo neighbours.

    Args:
        logits: cos / temperature of the pseudo neighbours, ``(..., n_rows, 2 * n)``.
        log_rest: log (Z - A), ``(..., n_rows)``.
    """
    log_a, log_b = (part.logsumexp(dim=-1) for part in logits.chunk(2, dim=-1))
    share_a = (log_a - torch.logaddexp(log_a, log_rest)).exp()  # A / Z
    share_b = (log_b - log_rest).exp()  # B / (Z - A)
    return -((share_a + 1e-9).log() + (share_b + 1e-9).log())


def behaviour_edges(interactions: SparseMatrix, k: int, min_count: int) -> Tensor:
    """Edges of B_s, ``(2, n_edges)``. Of equal counts the smaller item id wins."""
    users, items, values = interactions.edges()
    matrix = sparse.csr_matrix((values, (users, items)), shape=interactions.shape)
    # One more user for each item, who has this item alone: an item then shares more users with
    # itself than with any other, and also an item without users gets its self loop.
    loops = sparse.eye(interactions.shape[1], format="csr")[1:]
    counts = co_interaction(sparse.vstack([matrix, loops]), k + 1)
    edges, count = torch.from_numpy(np.stack(counts.nonzero())), torch.from_numpy(counts.data)
    return edges[:, (edges[0] == edges[1]) | (count >= min_count)]


@torch.no_grad()
def content_edges(
    modalities: Modalities,
    k: int,
    missing: str,
    excluded: Tensor,
    device: Any = None,
    block_size: int | None = None,
) -> dict[str, Tensor]:
    """Edges of B_m: name -> ``(2, n_edges)``.

    Args:
        modalities: completed modalities.
        k: neighbours of an item, which is its own first one. The larger cosine wins, among equal
            ones (on a grid of 2^-20) the smaller id; only positive cosines count.
        missing: as in :func:`~recbole_missing.graph.knn.knn_graph`.
        excluded: bool ``(n_items,)``; these items have self loops only.
        device: where neighbours are searched; default: where ``excluded`` is. The edges come back
            to the device of ``excluded``.
        block_size: items looked at together.
    """
    home = excluded.device
    excluded = excluded.to(device or home)
    items = (~excluded).nonzero()[1:, 0]
    lacking = ~modalities.observed.to(items.device)[items].T & (missing != "imputed")  # (M, n)
    similarity = _AgreedCosines(modalities, items, lacking & (missing == "isolated"))
    rows_together = block_size or block_rows(len(modalities) * len(items))
    numbers = torch.arange(len(items), device=items.device)
    values, found = nearest(similarity, numbers, min(k, len(items)), rows_together)
    edges = {}
    loops = excluded.nonzero()[:, 0].expand(2, -1)
    for name, value, col, lacks in zip(modalities, values, found, lacking):
        row = numbers[:, None].expand_as(col)
        kept = (value > 0) & ((row == col) | ~(lacks[row] | lacks[col]))
        near = items[torch.stack([row[kept], col[kept]])]
        edges[name] = torch.cat([loops, near], dim=1).to(home)
    return edges


class _AgreedCosines:
    """Cosines in every modality, zero for pairs that are not similar in all of them.

    Args:
        modalities: completed modalities.
        items: ids, ``(n,)``.
        isolated: bool ``(M, n)``, who has a cosine of zero to the others.
    """

    def __init__(self, modalities: Modalities, items: Tensor, isolated: Tensor) -> None:
        """Prepare the cosines and their means over all pairs."""
        self.isolated = isolated
        features = [modality.features.to(items.device) for modality in modalities.values()]
        self.cosines = [Cosines(table[items]) for table in features]
        self.means = torch.stack([cosines.mean() for cosines in self.cosines])

    def __call__(self, queries: Tensor) -> Tensor:
        """Cosines of the items at these positions, ``(M, len(queries), n)``."""
        found = torch.stack([cosines(queries) for cosines in self.cosines])
        found *= (found >= self.means[:, None, None] - 2.0**-20).all(dim=0)
        found *= ~(self.isolated[:, queries, None] | self.isolated[:, None])
        found[:, torch.arange(len(queries), device=queries.device), queries] = (
            2.0  # itself, above every cosine
        )
        return found
