"""DAMRS: item graphs on which all modalities agree; their agreement weighs BPR, labels a contrast.

Paper:   Xv, Li, Xie et al., "Improving Multi-modal Recommender Systems by Denoising and Aligning
         Multi-modal Content and User Feedback", KDD 2024, https://arxiv.org/abs/2406.12501
Code:    https://github.com/enoche/MMRec, src/models/damrs.py, e775373 (read for facts)
Follows: code, on LightGCN; with any number of modalities all of them and behaviour are averaged.
Quirks:  Features only select edges, shared users only rank them; out-degrees scale both ends of an
         edge. For three modalities the DGMRec release has other `contrast_items`, `pseudo_labels`
         and half the `cl_weight`. Where releases fail: a row of zeros keeps its self loop, and
         fewer than 2 * `pseudo_labels` items label half of themselves. No norm penalty.
Needs:   User-item graph, a kNN graph a modality, a co-interaction graph; features stay constant.
Missing: `knn_missing` rules the edges of lacking items; their imputed rows still count in what is
         similar. `contrast_items: complete` leaves them out. In training, new items touch nothing.
"""

from __future__ import annotations

from logging import getLogger
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy import sparse
from torch import Tensor

from recbole_missing.config.constraints import Choice, Float, Int
from recbole_missing.graph.co_interaction import co_interaction
from recbole_missing.graph.knn import KNN_MISSING, distinct_rows, stable_topk
from recbole_missing.graph.normalise import row_sum_norm, symmetric_norm
from recbole_missing.graph.sparse import SparseMatrix, light_gcn, propagate
from recbole_missing.modality import Modalities
from recbole_missing.model.base import MultimodalRecommender
from recbole_missing.nn.layers import ItemGraph, rows, xavier_table
from recbole_missing.nn.losses import log_sum_exp


class DAMRS(MultimodalRecommender):
    """LightGCN plus views: identities smoothed on each content graph and on behaviour's."""

    hyperparameters = {
        **dict.fromkeys(("embedding_size", "knn_k", "pseudo_labels"), Int(min=1)),
        **dict.fromkeys(("n_ui_layers", "n_mm_layers", "behaviour_k"), Int(min=0)),
        "knn_missing": Choice(*KNN_MISSING),
        "behaviour_min_count": Int(min=1),
        "kl_weight": Float(min=0),
        "cl_weight": Float(min=0),
        "temperature": Float(min=1e-6),
        "contrast_items": Choice("all", "complete"),
    }

    def __init__(self, config: Any, dataset: Any) -> None:
        """Create the two tables and build the graphs."""
        super().__init__(config, dataset)
        self.user = xavier_table(self.n_users, self.embedding_size)
        self.item = xavier_table(self.n_items, self.embedding_size)
        self.view_terms = (*(f"nd_{name}" for name in self.modalities), "behaviour_nd")
        fewest = 2 * self.pseudo_labels
        if len(self.new_items) - 1 < fewest:
            getLogger().warning(f"DAMRS: {fewest} items are needed for labels; half serve.")
        self.register_buffer("old_items", (~self.new_items).nonzero()[1:, 0], persistent=False)
        self.user_item = symmetric_norm(self.user_item_matrix(dataset))
        self.view_graphs = ItemGraph(self._view_graphs, self.new_items)

    def encode(self) -> tuple[Tensor, Tensor]:
        """Users and items, ``(n, d)``: LightGCN, and for items the mean of the views on top."""
        users, items, views = self._parts()
        return users, items + views.mean(dim=0)

    def loss_terms(self, interaction: Any) -> dict[str, Tensor]:
        """Weighted BPR, agreement of scores by both sides, a contrast of neighbours a view."""
        batch = self.batch(interaction)
        users, items, views = self._parts()
        side, unit = views.mean(dim=0), F.normalize(views, dim=2)
        triples = self.gather(users, items + side, batch)
        user_ids, item_ids = batch[0].unique(), torch.cat(batch[1:]).unique()
        gap = score_gap(rows(users, user_ids), rows(items, item_ids), rows(side, item_ids))
        wbpr = weighted_bpr(triples, unit[:, batch[1]], unit[:, batch[2]])
        if self.contrast_items == "complete":
            item_ids = self.complete_items(batch[1])
        contrast = self._contrast(*(unit.index_select(1, i) for i in (item_ids, self.old_items)))
        return {"wbpr": wbpr, "kl": self.kl_weight * gap, **contrast}

    def _parts(self) -> tuple[Tensor, Tensor, Tensor]:
        """LightGCN's users and items, ``(n, d)``, and the views ``(n_views, n_items, d)``."""
        users, items = light_gcn(self.user_item, self.user, self.item, self.n_ui_layers)
        identities = self.item.repeat(len(self.view_terms), 1)
        views = propagate(self.view_graphs, identities, self.n_mm_layers)
        return users, items, views.view(-1, *self.item.shape)

    def _view_graphs(self, excluded: Tensor) -> SparseMatrix:
        """The views' binary graphs as blocks of one diagonal, normalised."""
        edges = content_edges(self.modalities, self.knn_k, self.knn_missing, excluded)
        edges += [behaviour_edges(self.user_item, self.behaviour_k, self.behaviour_min_count)]
        items, neighbours = torch.cat([e + i * self.n_items for i, e in enumerate(edges)], dim=1)
        size, ones = len(edges) * self.n_items, torch.ones(len(items))
        return row_sum_norm(SparseMatrix(items, neighbours, ones, (size, size)))

    def _contrast(self, anchors: Tensor, candidates: Tensor) -> dict[str, Tensor]:
        if self.cl_weight == 0:  # the contrast is most of the work
            return {}
        labels = pseudo_neighbours(anchors, candidates, self.pseudo_labels)
        weight, tau = self.cl_weight / len(labels), self.temperature
        views = zip(self.view_terms, anchors, candidates, labels)
        return {term: weight * neighbour_loss(a, c, n, tau) for term, a, c, n in views}


def weighted_bpr(triples: tuple[Tensor, ...], liked: Tensor, disliked: Tensor) -> Tensor:
    """BPR both ways; constant weights say how surely a triple is right, or wrong; mean.

    Args:
        triples: users, positives, negatives, shape ``(batch, d)`` each.
        liked, disliked: unit vectors of the items in every view, ``(n_views, batch, d)``.
    """
    users, positives, negatives = triples
    with torch.no_grad():
        chances = (users * liked).sum(dim=2).sigmoid()
        mean, usual = chances.mean(dim=0), (users * disliked).sum(dim=2).sigmoid().mean()
        right = mean * (-2 * chances.var(dim=0)).exp()
        wrong = (chances.amax(dim=0) - usual).clamp(min=0) * (mean < usual)
    margin = (users * (positives - negatives)).sum(dim=1)
    return -(right * F.logsigmoid(margin) + wrong * F.logsigmoid(-margin)).mean()


def score_gap(users: Tensor, items: Tensor, sides: Tensor) -> Tensor:
    """KL(x|y) + KL(y|x), mean over all pairs; x, y: sigmoids of scores by items and by sides."""
    a, b = users @ F.normalize(items).T, users @ F.normalize(sides).T
    return ((a.sigmoid() - b.sigmoid()) * (a - b)).mean()  # the same, and finite for all scores


@torch.no_grad()
def pseudo_neighbours(anchors: Tensor, candidates: Tensor, n: int) -> Tensor:
    """``n`` candidates nearest by all views (the own one twice), then ``n`` more by the own one.

    Args:
        anchors, candidates: unit vectors, ``(n_views, n_rows, d)``, ``(n_views, n_candidates, d)``.
        n: half the candidates if they are fewer; the result is ``(n_views, n_rows, 2 * n)``.
    """
    labels, n = [], min(n, candidates.shape[1] // 2)
    block_size = 1 + 2**24 // candidates[..., 0].numel()  # a bound on the similarities held
    for part in anchors.split(block_size, dim=1):
        cosines = part @ candidates.transpose(1, 2)
        shares = cosines.softmax(dim=2)
        first = (shares + shares.sum(dim=0)).topk(n).indices
        second = cosines.scatter_(2, first, -torch.inf).topk(n).indices
        labels.append(torch.cat([first, second], dim=2))
    return torch.cat(labels, dim=1)


def neighbour_loss(anchors: Tensor, candidates: Tensor, labels: Tensor, tau: float) -> Tensor:
    """-log(A / Z) - log(B / (Z - A)), mean over the anchors of one view; none give zero.

    Z sums exp(cosine / tau) over all candidates, A over the first half of an anchor's ``labels``
    ``(n_rows, 2 * n)``, B over the second half.
    """
    logits = (rows(candidates, labels) @ anchors[:, :, None])[:, :, 0] / tau
    shares = (logits - log_sum_exp(anchors / tau, candidates)[:, None]).exp()
    a, b = (half.sum(dim=1) for half in shares.chunk(2, dim=1))
    rest = torch.maximum(1 - a, b).clamp(min=1e-30)  # rounding may make 1 - a too small
    return -((a + 1e-9).log() + (b / rest + 1e-9).log()).sum() / max(len(anchors), 1)


def behaviour_edges(user_item: SparseMatrix, k: int, min_count: int) -> Tensor:
    """Edges ``(2, n_edges)`` from every item to itself and the ``k`` that share most users with it.

    Of equal counts the smaller id wins; counts below ``min_count`` are no edges.
    """
    users, items, values = user_item.edges()
    matrix = sparse.csr_matrix((values, (users, items)), shape=user_item.shape)
    loops = sparse.eye(user_item.shape[1], format="csr")[1:]  # so an item shares most with itself
    counts = co_interaction(sparse.vstack([matrix, loops]), k + 1)
    edges, count = torch.from_numpy(np.stack(counts.nonzero())), torch.from_numpy(counts.data)
    return edges[:, (edges[0] == edges[1]) | (count >= min_count)]


@torch.no_grad()
def content_edges(
    modalities: Modalities, k: int, missing: str, excluded: Tensor, block_size: int = 512
) -> list[Tensor]:
    """Edges ``(2, n_edges)``, a modality each, to the nearest items similar in all modalities.

    Similar means a cosine of at least the mean over all pairs (which is the squared norm of the
    mean unit row), up to 2^-20. An item is its own first neighbour; then the larger cosine (above
    zero, on a grid of 2^-20) wins, then the smaller id. ``missing`` is that of
    :func:`~recbole_missing.graph.knn_graph`; ``excluded`` items have self loops only.
    """
    items = (~excluded).nonzero()[1:, 0]
    tables = [distinct_rows(F.normalize(m.features[items])) for m in modalities.values()]
    means = torch.stack([unit[at].mean(dim=0).square().sum() for unit, at in tables])
    lacking = ~modalities.observed[items].T & (missing != "imputed")
    found: list[list[Tensor]] = [[excluded.nonzero().T.expand(2, -1)] for _ in tables]
    for block in torch.arange(len(items)).split(block_size):
        cosines = torch.stack([(unit[at[block]] @ unit.T)[:, at] for unit, at in tables])
        cosines *= (cosines >= means[:, None, None] - 2.0**-20).all(dim=0)
        if missing == "isolated":
            cosines *= ~(lacking[:, block, None] | lacking[:, None])
        cosines[:, torch.arange(len(block)), block] = 2.0  # itself, above every cosine
        for edges, cosine, lacks in zip(found, cosines, lacking):
            value, col = stable_topk(cosine, min(k, len(items)))
            row = block[:, None].expand_as(col)
            kept = (value > 0) & ((row == col) | ~(lacks[row] | lacks[col]))
            edges.append(items[torch.stack([row[kept], col[kept]])])
    return [torch.cat(edges, dim=1) for edges in found]
