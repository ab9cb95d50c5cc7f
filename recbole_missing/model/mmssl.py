"""MMSSL: a critic pushes each modality's user-item scores towards the interactions.

Paper:   Wei, Huang, Xia, Zhang, "Multi-Modal Self-Supervised Learning for Recommendation", WWW
         2023, https://arxiv.org/abs/2302.10632
Code:    https://github.com/HKUDS/MMSSL, MMSSL/main.py and Models.py, f8d8955 (read for facts)
Follows: code. Its attention over modalities gives weights to equal values, so only the sum of the
         blocks of one matrix has an effect. With M modalities the critic sees M rows for each
         user, the guides are averaged, and contents and contrasts are summed. Batches are those
         of RecBole: a user may occur twice in a batch.
Quirks:  `graph_update: released` with `graph_interval: 1` is the released code. Batch 0 of an epoch
         collects pairs, batch 1 builds the modality graphs from them, and batch 2 builds them
         from nothing. From then on the graphs are empty: there is no guide, and the contrast is a
         constant. Where a user has more than one top item, the release pairs users with the items
         of other users.
         `graph_update: kept` is what the paper intends. Every batch collects pairs, a user is
         paired with its own items, and a graph stays until a new one can be built.
         The first layer of the critic has n_items / 4 x n_items weights (63,001 items: 4 GB, the
         same for the gradient, and twice that for Adam). The step of the critic draws a dropout
         mask of its own. The biases before a normalisation cancel and are left out. Items
         without interactions have no content.
Needs:   User-item graph, a learned graph for each modality, and a second optimiser. The features
         are constant.
Missing: Works on imputed features. Observed and missing items are treated alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from recbole_missing.config.constraints import Choice, Float, Int, Pair
from recbole_missing.graph.sparse import SparseMatrix
from recbole_missing.model.base import MultimodalRecommender
from recbole_missing.nn.distinct import Distinct, distinct
from recbole_missing.nn.edges import edge_product
from recbole_missing.nn.layers import FrozenFeatures, cached_rows, rows, unit_rows, xavier_table
from recbole_missing.nn.losses import bpr_loss, squared_loss

# The model in formulas, in the order of the computation. R: binary interactions, X_m: features of
# modality m = 1..M, E_u and E_i: identity tables, n(.): rows scaled to unit length, n(0) = 0.
# For a matrix G of counts, users x items, let
#   A_u(G) = D_u^-1/2 G   and   A_i(G) = D_i^-1/2 G^T
# with row sums D_u and column sums D_i, one where a sum is zero  -> sum_over_items, sum_over_users.
#
#   content         C_m   = dropout(X_m W_m + b_m)                                -> projections
#                   F_u,m = A_u(R) C_m,  F_i,m = A_i(R) F_u,m                     -> _content
#   guides          P_u,m = A_u(G_m) E_i,  P_i,m = A_i(G_m) E_u                   -> _guides
#                   G_m, the graph of a modality, is R at first                   -> _learn_graphs
#   start           U_0   = E_u + guide_weight n((mean over m of P_u,m) W)        -> _guided
#                   I_0   = E_i + guide_weight n((mean over m of P_i,m) W)
#                   W     = sum of the n_heads blocks (d, d) of `heads`
#   propagation     U_l   = A_u(R) I_(l-1),  I_l = A_i(R) U_l,  l = 1..L          -> _final
#                   in the last layer a softmax over the d entries closes each of the two
#   final vectors   U     = (mean over l = 0..L of U_l) + content_weight sum_m n(F_u,m)
#                   I     = (mean over l = 0..L of I_l) + content_weight sum_m n(F_i,m)
#   score           <U, I>
#
#   score rows      S(a, b) = n((a b^T) o (1 - R)), for the users of a batch      -> score_rows
#   fake rows       S_m   = S(F_u,m, F_i,m); W_1 maps them at once                -> map_scores
#   real rows       Q     = n(softmax over items of (R + real_noise Gumbel)       -> real_rows
#                             + real_score_weight S(U, I))
#   critic          V(x)  = 100 sigmoid(w_3 h_2 + b_3),                           -> Critic
#                   h_l   = dropout(batchnorm(W_l h_(l-1))), h_0 = x
#   critic's loss   - mean V(Q) + mean V(S_m)                                     -> Critic.terms
#                   + penalty_weight mean (|dV/dx| - 1)^2 at x = a Q + (1 - a) S_m, a uniform
#
#   loss            mean over the batch of -log sigmoid(<U, I_positive - I_negative>)
#                   + reg_weight (sum of the squared batch vectors) / (2 batch size)
#                   + content_reg_weight sum_m (|F_u,m|^2 + |F_i,m|^2) / (2 n_items)
#                   - adversarial_weight mean over m and users of V(S_m)
#                   + cl_weight sum_m contrast(P_u,m, U), for the users of the batch  -> contrast


class MMSSL(MultimodalRecommender):
    """Identities guided by learned graphs, propagated, and shifted by aggregated content.

    The formulas stand above this class.
    """

    new_items_in_training: ClassVar[dict[str, str]] = {
        "adversarial": "The critic sees the scores of a user's content with all items.",
    }
    new_features_ignored = "An item's content comes through its users, and a new item has none."
    hyperparameters = {
        "embedding_size": Int(min=1),  # d, width of every vector
        "n_ui_layers": Int(min=1),  # L, layers of the propagation over the interactions
        "n_heads": Int(min=1),  # blocks of the attention matrix; only their sum has an effect
        "dropout": Float(min=0, max=1),  # on the projected features
        "guide_weight": Float(min=0),  # of the guides from the modality graphs
        "content_weight": Float(min=0),  # of the aggregated content of each modality
        "reg_weight": Float(min=0),  # of the squared norms of the batch's final vectors
        "content_reg_weight": Float(min=0),  # of the squared norms of all aggregated content
        "cl_weight": Float(min=0),  # of the contrast between guides and final users
        "temperature": Float(min=1e-6),  # of that contrast
        "adversarial_weight": Float(min=0),  # of the critic's verdict in the main loss
        "critic_learning_rate": Float(min=0),  # of the critic's Adam
        "critic_dropout": Pair(Float(min=0, max=1), Float(min=0, max=1)),  # after W_1 and W_2
        "penalty_weight": Float(min=0),  # of the gradient penalty in the critic's loss
        "real_noise": Float(min=0),  # of the Gumbel noise in real rows
        "real_score_weight": Float(min=0),  # of the model's own scores in real rows
        "graph_update": Choice("released", "kept"),  # see _learn_graphs
        "graph_interval": Int(min=1),  # batches between two buildings of the modality graphs
        "graph_top_share": Float(min=0, max=1),  # top items of a user, as a share of all items
    }

    def __init__(self, config: Any, dataset: Any) -> None:
        """Create tables, projections and critic. The modality graphs start as the interactions."""
        super().__init__(config, dataset)
        size = self.embedding_size
        self.batch_size = config["train_batch_size"]
        self.n_top_items = int((self.n_items - 1) * self.graph_top_share)
        if self.graph_update == "kept" and self.n_top_items == 0:
            raise ValueError(
                f"MMSSL: graph_top_share must reach one of {self.n_items - 1} items for "
                f"`graph_update: kept`, got {self.graph_top_share}; raise it, for instance to 0.02."
            )
        self.auxiliary_options = {"lr": self.critic_learning_rate, "betas": (0.5, 0.9)}
        self.user_embedding = xavier_table(self.n_users, size)
        self.item_embedding = xavier_table(self.n_items, size)
        self.heads = nn.Parameter(nn.init.xavier_uniform_(torch.empty(self.n_heads * size, size)))
        self.features = FrozenFeatures(self.modalities)
        self.interactions = self.user_item_matrix(dataset)
        self.projections = nn.ModuleDict()
        self.modality_graphs: Any = nn.ModuleDict()  # G_m
        self.collected_pairs: Any = nn.ModuleDict()  # counts of (user, top item) since G_m
        for name, modality in self.modalities.items():
            self.projections[name] = projection = nn.Linear(modality.dim, size)
            nn.init.xavier_uniform_(projection.weight)
            self.modality_graphs[name] = self.user_item_matrix(dataset)
            self.collected_pairs[name] = without_edges(self.interactions)
        self.critic = Critic(self.n_items - 1, self.critic_dropout)
        self.batch_number = 0  # within the epoch

    def auxiliary_parameters(self) -> Iterable[nn.Parameter]:
        """Parameters of the critic."""
        return self.critic.parameters()

    def on_epoch_start(self, minimise: Callable[[Tensor], None]) -> None:
        """Count batches anew. The pairs collected so far stay."""
        self.batch_number = 0

    def on_batch_start(self, interaction: Any, minimise: Callable[[Tensor], None]) -> None:
        """Make one step of the critic."""
        terms = self.critic_terms(interaction[self.USER_ID])
        minimise(terms["real"] + terms["fake"] + self.penalty_weight * terms["penalty"])

    def critic_terms(self, user_ids: Tensor) -> dict[str, Tensor]:
        """Terms that the critic minimises, the penalty unweighted; see :meth:`Critic.terms`."""
        batch_users = distinct(user_ids)
        with torch.no_grad():
            user_content, item_content = content = self._content()
            users, items = self._final(content, self._guides())
            ids, numbers = batch_users.ids, batch_users.numbers
            seen = seen_items(self.interactions, ids)
            (scores,) = score_rows(users[ids, None], items[1:, None], seen)
            real = real_rows(seen, scores, numbers, self.real_noise, self.real_score_weight)
        return self.critic.terms(real, self._fakes(user_content, item_content, batch_users))

    def encode(self) -> tuple[Tensor, Tensor]:
        """Users ``(n_users, d)`` and items ``(n_items, d)``."""
        return self._final(self._content(), self._guides())

    def loss_terms(self, interaction: Any) -> dict[str, Tensor]:
        """BPR, norms, the critic's verdict and contrasts; then the modality graphs are updated."""
        user_ids, positive_ids, negative_ids = batch = self.batch(interaction)
        user_content, item_content = content = self._content()
        user_guides, item_guides = guides = self._guides()
        finals, items = self._final(content, guides)
        users, positives, negatives = self.gather(finals, items, batch)
        batch_users = distinct(user_ids)
        fakes = self._fakes(user_content, item_content, batch_users)
        norms = squared_loss(users, positives, negatives) / self.batch_size
        content_norms = squared_loss(user_content, item_content) / (self.n_items - 1)
        terms = {
            "bpr": bpr_loss(users, positives, negatives),
            "reg": self.reg_weight * norms,
            "content_reg": self.content_reg_weight * content_norms,
            "adversarial": -self.adversarial_weight * self.critic(fakes).mean(),
        }
        for name, guide in user_guides.items():
            vectors = rows(guide, batch_users.ids), rows(finals, batch_users.ids)
            agreement = contrast(*vectors, self.temperature, batch_users.counts)
            terms[f"cl_{name}"] = self.cl_weight * agreement
        self._learn_graphs(user_ids, self._top_items(user_content, item_content, user_ids))
        return terms

    def _fakes(self, users: Tensor, items: Tensor, batch_users: Distinct) -> Tensor:
        """W_1 of the fake rows of a batch, by modality, ``(M * batch, (n_items - 1) // 4)``.

        Args:
            users, items: the content of all.
            batch_users: of the batch.
        """
        pairs = seen_pairs(self.interactions, batch_users.ids)
        fakes = map_scores(self.critic.first.weight, users[batch_users.ids], items[1:], *pairs)
        return fakes[:, batch_users.numbers].flatten(0, 1)

    @torch.no_grad()
    def _top_items(self, users: Tensor, items: Tensor, user_ids: Tensor) -> Tensor:
        """Items of the highest fake scores, ids ``(M, batch, n_top_items)``.

        Args:
            users, items: the content of all.
            user_ids: of the batch, shape ``(batch,)``.
        """
        if self.n_top_items == 0:
            return user_ids.new_empty(users.shape[1], len(user_ids), 0)
        batch_users = distinct(user_ids)
        seen = seen_items(self.interactions, batch_users.ids)
        scores = score_rows(users[batch_users.ids], items[1:], seen)
        return scores.topk(self.n_top_items, dim=2).indices[:, batch_users.numbers] + 1

    def _content(self) -> tuple[Tensor, Tensor]:
        """Aggregated content of users ``(n_users, M, d)`` and of items ``(n_items, M, d)``."""
        # Plain form, for each modality: F_u = A_u(R) C, F_i = A_i(R) F_u. Here the modalities lie
        # side by side, so that one sparse product serves all of them.
        projected = []
        for name, projection in self.projections.items():
            projected.append(projection(self.features[name]))
        content = F.dropout(torch.cat(projected, dim=1), self.dropout, self.training)
        users = sum_over_items(self.interactions, content)
        items = sum_over_users(self.interactions, users)
        by_modality = (len(self.modalities), self.embedding_size)
        return users.unflatten(1, by_modality), items.unflatten(1, by_modality)

    def _guides(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Guides of users ``(n_users, d)`` and of items ``(n_items, d)`` in each modality."""
        of_users, of_items = {}, {}
        for name, graph in self.modality_graphs.items():
            of_users[name] = sum_over_items(graph, self.item_embedding)
            of_items[name] = sum_over_users(graph, self.user_embedding)
        return of_users, of_items

    def _guided(self, identities: Tensor, guides: dict[str, Tensor]) -> Tensor:
        """Shift ``identities (n, d)`` by the direction of their mean guide."""
        size = self.embedding_size
        mean = torch.stack(list(guides.values())).mean(dim=0)
        direction = unit_rows(mean @ self.heads.view(-1, size, size).sum(dim=0))
        return identities + self.guide_weight * direction

    def _final(
        self, content: tuple[Tensor, Tensor], guides: tuple[dict[str, Tensor], dict[str, Tensor]]
    ) -> tuple[Tensor, Tensor]:
        """Final users ``(n_users, d)`` and items ``(n_items, d)``."""
        users = user_sum = self._guided(self.user_embedding, guides[0])
        items = item_sum = self._guided(self.item_embedding, guides[1])
        for layer in range(1, self.n_ui_layers + 1):
            is_last = layer == self.n_ui_layers
            users = sum_over_items(self.interactions, items)
            users = users.softmax(dim=1) if is_last else users
            items = sum_over_users(self.interactions, users)
            items = items.softmax(dim=1) if is_last else items
            user_sum, item_sum = user_sum + users, item_sum + items
        n_stages = self.n_ui_layers + 1
        user_shift = self.content_weight * unit_rows(content[0]).sum(dim=1)
        item_shift = self.content_weight * unit_rows(content[1]).sum(dim=1)
        return user_sum / n_stages + user_shift, item_sum / n_stages + item_shift

    def _learn_graphs(self, user_ids: Tensor, top_items: Tensor) -> None:
        """Collect each user's top items, and build the modality graphs when they are due.

        Graphs are due in every batch whose number is a multiple of ``graph_interval``, but not in
        batch 0.

        ``released``: a batch either collects or builds. It builds from no pairs, too.
        ``kept``: every batch collects, and a due graph is built if there are pairs.

        Args:
            user_ids: shape ``(batch,)``.
            top_items: of these users in each modality, ids ``(M, batch, n_top_items)``.
        """
        is_due = self.batch_number > 0 and self.batch_number % self.graph_interval == 0
        is_kept = self.graph_update == "kept"
        self.batch_number += 1
        for name, items in zip(self.modalities, top_items):
            if is_kept or not is_due:
                pairs = pair(user_ids, items, aligned=is_kept)
                self.collected_pairs[name] = add_pairs(self.collected_pairs[name], *pairs)
            n_collected = len(self.collected_pairs[name].values)
            if is_due and (n_collected > 0 or not is_kept):
                self.modality_graphs[name] = self.collected_pairs[name]
                self.collected_pairs[name] = without_edges(self.interactions)


def sum_over_items(counts: SparseMatrix, items: Tensor) -> Tensor:
    """A_u(counts) items: each user's sum over its items, divided by the root of its count.

    Args:
        counts: shape ``(n_users, n_items)``.
        items: shape ``(n_items, d)``.

    Returns:
        Shape ``(n_users, d)``; zero for users without items.
    """
    degrees = counts @ items.new_ones(len(items), 1)
    return (counts @ items) / degrees.clamp(min=1).sqrt()


def sum_over_users(counts: SparseMatrix, users: Tensor) -> Tensor:
    """A_i(counts) users: each item's sum over its users, divided by the root of its count.

    Args:
        counts: shape ``(n_users, n_items)``.
        users: shape ``(n_users, d)``.

    Returns:
        Shape ``(n_items, d)``; zero for items without users.
    """
    degrees = counts.t_matmul(users.new_ones(len(users), 1))
    return counts.t_matmul(users) / degrees.clamp(min=1).sqrt()


def seen_pairs(interactions: SparseMatrix, user_ids: Tensor) -> tuple[Tensor, Tensor]:
    """Interactions of some users, in the order of rows.

    Args:
        interactions: shape ``(n_users, n_items)``.
        user_ids: shape ``(n,)``; repeated ones are allowed.

    Returns:
        Places in ``user_ids``, and items counted from 0 without the padding item; each
        ``(n_pairs,)``.
    """
    start, column = interactions.crow.long(), interactions.col.long()
    first, counts = start[user_ids], start[user_ids + 1] - start[user_ids]
    row = torch.arange(len(user_ids), device=column.device).repeat_interleave(counts)
    edge = torch.arange(len(row), device=column.device) + (first - counts.cumsum(0) + counts)[row]
    return row, column[edge] - 1


def seen_items(interactions: SparseMatrix, user_ids: Tensor) -> Tensor:
    """Rows of the interactions without the padding item, bool ``(n, n_items - 1)``.

    Args:
        interactions, user_ids: as for :func:`seen_pairs`.
    """
    # Plain form: dense(interactions)[user_ids, 1:] > 0, without the dense matrix.
    shape = (len(user_ids), interactions.shape[1] - 1)
    seen = torch.zeros(shape, dtype=torch.bool, device=user_ids.device)
    seen[seen_pairs(interactions, user_ids)] = True
    return seen


def score_rows(users: Tensor, items: Tensor, seen: Tensor) -> Tensor:
    """S(users, items): scores of the items not ``seen``, zero elsewhere, rows of unit length.

    Args:
        users, items: shapes ``(n_users, M, d)``, ``(n_items, M, d)``: a score for each modality.
        seen: bool ``(n_users, n_items)``.

    Returns:
        Shape ``(M, n_users, n_items)``.
    """
    scores = torch.einsum("umd,imd->mui", users, items).masked_fill(seen, 0.0)
    return unit_rows(scores)


def map_scores(weight: Tensor, users: Tensor, items: Tensor, row: Tensor, item: Tensor) -> Tensor:
    """W S(users, items): the rows of :func:`score_rows` after a linear map.

    Args:
        weight: W, shape ``(width, n_items)``.
        users, items: as for :func:`score_rows`.
        row, item: pairs of the items seen, in the order of rows, then items; see
            :func:`seen_pairs`.

    Returns:
        Shape ``(M, n_users, width)``.
    """
    # Plain form: F.linear(score_rows(...), weight). Without seen items a row would be b a, and
    # W b a needs no row. What the seen items add to it is subtracted, as it is from the squared
    # norm a^T (b^T b) a. The norm is found in double precision. Where less than 1e-10 of its square
    # is left, that is rounding: then all scores of unseen items are zero. What is left of the
    # products has the rounding errors of `everything`, so they matter where almost nothing is left.
    n_users, n_modalities, size = users.shape
    mapped = (weight @ items.flatten(1)).unflatten(1, (n_modalities, size))
    everything = torch.einsum("umd,wmd->muw", users, mapped)
    scores = (users[row] * items[item]).sum(dim=2)  # (n_pairs, M)
    exact = users.double(), items.double()  # the difference of two sums of squares may be small
    gram = torch.einsum("imd,ime->mde", exact[1], exact[1])
    squares = torch.einsum("umd,mde,ume->um", exact[0], gram, exact[0])
    left = squares.index_add(0, row, -(exact[0][row] * exact[1][item]).sum(dim=2).square())
    norms = torch.where(left > 1e-10 * squares, left, torch.inf).sqrt().to(users).T[:, :, None]
    rows_of_all = torch.cat([row + m * n_users for m in range(n_modalities)])
    shape = (n_modalities * n_users, len(items))
    values = scores.T.flatten()
    pattern = SparseMatrix(rows_of_all, item.repeat(n_modalities), values.detach(), shape)
    seen = edge_product(pattern.to(values.dtype), values, weight.T.contiguous())
    return (everything - seen.view_as(everything)) / norms


def real_rows(
    seen: Tensor, scores: Tensor, numbers: Tensor, noise: float, score_weight: float
) -> Tensor:
    """Rows Q that the critic takes for real, of unit length.

    Args:
        seen: bool ``(n_users, n_items)``, the interactions.
        scores: same shape.
        numbers: users of the rows, as places in ``seen``, shape ``(n,)``.
        noise: scale of the Gumbel noise.
        score_weight: of ``scores``.

    Returns:
        Shape ``(n, n_items)``; each row has noise of its own.
    """
    uniform = torch.rand((len(numbers), seen.shape[1]), device=seen.device)
    real = scores.new_empty(uniform.shape)
    block = cached_rows(seen.shape[1], seen)
    for row, draw, number in zip(real.split(block), uniform.split(block), numbers.split(block)):
        torch.add(draw, 1e-8, out=row).log_().neg_().add_(1e-8).log_()  # minus Gumbel noise
        shares = row.mul_(-noise).add_(seen[number]).softmax(dim=1)
        torch.add(shares, scores[number], alpha=score_weight, out=row)
        row /= torch.linalg.vector_norm(row, dim=1, keepdim=True).clamp(min=1e-12)
    return real


def contrast(guides: Tensor, finals: Tensor, temperature: float, counts: Tensor) -> Tensor:
    """InfoNCE from guides to final vectors, mean over the rows of a batch.

    For row j, with g = n(guides), f = n(finals) and sums over all rows k:

        -log(exp(<g_j, f_j> / t) / (sum_(k != j) exp(<g_j, g_k> / t) + sum_k exp(<g_j, f_k> / t))
             + 1e-8)

    Args:
        guides, finals: vectors of the distinct users of the batch, shape ``(n_users, d)``.
        temperature: t.
        counts: rows of the batch of each of these users, shape ``(n_users,)``.
    """
    # A user of c rows stands c times in the second sum, and c - 1 times in the first one of its
    # own rows.
    guides, counts = unit_rows(guides), counts.to(guides)
    to_guides = guides @ guides.T / temperature
    to_finals = guides @ unit_rows(finals).T / temperature
    own = torch.diag_embed(torch.ones_like(counts))
    logits = torch.cat([to_guides + (counts - own).clamp(min=0).log(), to_finals + counts.log()], 1)
    shares = (to_finals.diagonal() - logits.logsumexp(dim=1)).exp()
    return -(counts @ (shares + 1e-8).log()) / counts.sum()


def pair(user_ids: Tensor, items: Tensor, aligned: bool) -> tuple[Tensor, Tensor]:
    """Lists of users and items that belong together, each ``(batch * top,)``.

    Args:
        user_ids: shape ``(batch,)``.
        items: top items of these users, shape ``(batch, top)``.
        aligned: whether users are paired with their own items. The release repeats the whole list
            of users ``top`` times beside the list of items, which is the same for one top item.
    """
    top = items.shape[1]
    users = user_ids.repeat_interleave(top) if aligned else user_ids.repeat(top)
    return users, items.flatten()


def add_pairs(counts: SparseMatrix, users: Tensor, items: Tensor) -> SparseMatrix:
    """Add one to ``counts (n_users, n_items)`` for every pair of ``users`` and ``items (n,)``."""
    old_users, old_items, old_counts = counts.edges()
    return SparseMatrix(
        torch.cat([old_users, users]),
        torch.cat([old_items, items]),
        torch.cat([old_counts, old_counts.new_ones(len(items))]),
        counts.shape,
    )


def without_edges(counts: SparseMatrix) -> SparseMatrix:
    """Empty matrix of the same shape, on the same device."""
    users, items, values = counts.edges()
    return SparseMatrix(users[:0], items[:0], values[:0], counts.shape)


class Critic(nn.Module):
    """Wasserstein critic V: tells real rows of item scores from fake ones.

    Its three linear maps go from ``n`` items to n / 4, n / 8 and 1. The normalisations always use
    the statistics of their input. There is no other non-linearity before the sigmoid. A bias
    before a normalisation would cancel, so the first two maps have none.

    Args:
        n_items: items of a row, without the padding item.
        dropout: probabilities after the two normalisations.

    Raises:
        ValueError: if there are fewer than 8 items, so that the second map would be empty.

    Source: Wei et al., WWW 2023; Gulrajani et al., NeurIPS 2017 (the penalty).
    """

    def __init__(self, n_items: int, dropout: Sequence[float]) -> None:
        """Create the layers, weights Kaiming normal."""
        super().__init__()
        wide, narrow = n_items // 4, n_items // 8
        if narrow == 0:
            raise ValueError(
                f"MMSSL: the data set must have at least 8 items, got {n_items}; use more items."
            )
        self.first = nn.Linear(n_items, wide, bias=False)
        second, last = nn.Linear(wide, narrow, bias=False), nn.Linear(narrow, 1)
        self.rest = nn.Sequential(
            TwiceDifferentiableBatchNorm(wide, track_running_stats=False),
            FastDropout(dropout[0]),
            second,
            TwiceDifferentiableBatchNorm(narrow, track_running_stats=False),
            FastDropout(dropout[1]),
            last,
        )
        for layer in (self.first, second, last):
            nn.init.kaiming_normal_(layer.weight)
        nn.init.zeros_(last.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """Judge rows after the first map, ``(n, n_items // 4)``.

        Returns:
            Verdicts between 0 and 100, shape ``(n,)``.
        """
        if len(hidden) == 1:  # one row has no variance; beside a copy it is normalised to zero
            hidden = hidden.repeat(2, 1)
        verdicts: Tensor = 100 * self.rest(hidden).squeeze(1).sigmoid()
        return verdicts

    def terms(self, real: Tensor, fakes: Tensor) -> dict[str, Tensor]:
        """Terms that the critic minimises, the penalty unweighted.

        Args:
            real: shape ``(n, n_items)``, no gradient.
            fakes: fake rows after the first map, shape ``(M * n, n_items // 4)``; row k belongs to
                real row k mod n.

        Returns:
            ``real``: minus the mean verdict; ``fake``: the mean verdict; ``penalty``: mean of
            (norm of the gradient - 1)^2 at a random point between a real and its fake row.
        """
        # Plain form: mixed = a real + (1 - a) fake, gradients = dV(mixed) / d mixed. The first map
        # W_1 is linear, so W_1 mixed = a W_1 real + (1 - a) W_1 fake, and a gradient with respect
        # to a row is the one with respect to W_1 row, times W_1. A real row, which belongs to M
        # fake ones, is mapped once.
        reals = self.first(real).repeat(len(fakes) // len(real), 1)
        share = torch.rand(len(fakes), 1, device=fakes.device)
        mixed = share * reals + (1 - share) * fakes
        (to_mixed,) = torch.autograd.grad(self(mixed).sum(), mixed, create_graph=True)
        norms = norms_of_products(to_mixed, self.first.weight)
        return {
            "real": -self(reals).mean(),
            "fake": self(fakes).mean(),
            "penalty": (norms - 1).square().mean(),
        }


class TwiceDifferentiableBatchNorm(nn.BatchNorm1d):
    """Batch normalisation by the statistics of its input, with a second derivative in few steps.

    torch composes that derivative of some twenty operations. Here it is one formula. It is that of
    the gradient of the rows; the gradients of weight and bias have no derivative.
    """

    def forward(self, rows: Tensor) -> Tensor:
        """Normalise each column of ``rows (n, width)``, at least two."""
        normalised: Tensor = _BatchNorm.apply(rows, self.weight, self.bias, self.eps)
        return normalised


class _BatchNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        found = torch.native_batch_norm(rows, weight, bias, None, None, True, 0.0, eps)
        normalised, *statistics = found
        ctx.save_for_backward(rows, weight, *statistics)
        return normalised

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return (*_BatchNormBackward.apply(grad, *ctx.saved_tensors), None)


class _BatchNormBackward(torch.autograd.Function):
    # For one column x of n rows with mean m and inverse deviation r, let y = r (x - m), and let <.>
    # be a mean over rows. A gradient g becomes
    #     G(g) = w r (g - <g> - y <g y>),
    # and a derivative d of G becomes G(d) with respect to g, and with respect to x
    #     -w r^2 (<g y> d + <d y> g - <g y> <d> - <d y> <g>
    #             + (<d g> - <d> <g> - 3 <d y> <g y>) y).

    @staticmethod
    def forward(
        ctx: Any, grad: Tensor, rows: Tensor, weight: Tensor, mean: Tensor, inverse: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        found = _through_statistics(grad, rows, weight, mean, inverse)
        ctx.save_for_backward(grad, rows, weight, mean, inverse, *found[1:])
        ctx.mark_non_differentiable(*found[1:])
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, to_rows: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        grad, rows, weight, mean, inverse, *sums = ctx.saved_tensors
        n = len(rows)
        to_grad, *to_sums = _through_statistics(to_rows, rows, weight, mean, inverse)
        gy, g, dy, d = (total / n for total in (*sums, *to_sums))
        dg = (to_rows * grad).mean(dim=0)
        scale = -weight * inverse**2
        slope = scale * (dg - d * g - 3 * dy * gy) * inverse  # of rows, because y = r (x - m)
        shift = -scale * (gy * d + dy * g) - slope * mean
        to_input = torch.addcmul(shift, rows, slope)
        to_input.addcmul_(to_rows, scale * gy).addcmul_(grad, scale * dy)
        return to_grad, to_input, n * inverse * (dg - d * g - dy * gy), None, None


def _through_statistics(
    grad: Tensor, rows: Tensor, weight: Tensor, mean: Tensor, inverse: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """G(grad), and the sums over rows of grad * y and of grad."""
    backward = torch.ops.aten.native_batch_norm_backward
    statistics = (None, None, mean, inverse)
    return backward(grad, rows, weight, *statistics, True, 0.0, [True] * 3)


class FastDropout(nn.Dropout):
    """Dropout whose mask is drawn by ``torch.rand``: on a CPU in a third of the time."""

    def forward(self, rows: Tensor) -> Tensor:
        """Drop entries of ``rows`` while the model trains, and scale up the others."""
        if rows.is_cuda or not self.training or self.p in (0, 1):
            return super().forward(rows)
        kept = torch.rand(rows.shape, device=rows.device).lt_(1 - self.p)
        return rows * kept.div_(1 - self.p)


def norms_of_products(rows: Tensor, weight: Tensor) -> Tensor:
    """|x W| of every row x, with gradients.

    Args:
        rows: shape ``(n, k)``.
        weight: W, shape ``(k, width)``.

    Returns:
        Shape ``(n,)``.
    """
    # |x W|^2 = x (W W^T) x^T, and no product of the rows with W W^T is wider than k. With the
    # backward pass this form has 2 k^2 (n + width) multiplications, the plain one 3 n k width.
    n, (k, width) = len(rows), weight.shape
    if 2 * k * (n + width) < 3 * n * width:
        norms: Tensor = _NormsOfProducts.apply(rows, weight)
        return norms
    return torch.linalg.vector_norm(rows @ weight, dim=1)


class _NormsOfProducts(torch.autograd.Function):
    """With s = grad / norm: the gradient of x is s x W W^T, that of W is (sum of s x^T x) W."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor) -> Tensor:
        products = rows @ symmetric_product(weight, weight.T)
        norms = (products * rows).sum(dim=1).clamp(min=0).sqrt()
        ctx.save_for_backward(rows, weight, products, norms)
        return norms

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        rows, weight, products, norms = ctx.saved_tensors
        scale = torch.where(norms > 0, grad / norms, 0.0)[:, None]
        return scale * products, symmetric_product(rows.T, scale * rows) @ weight


def symmetric_product(left: Tensor, right: Tensor, n_blocks: int = 4) -> Tensor:
    """A symmetric matrix ``left (k, n) @ right (n, k)``, of which the lower half is computed.

    Args:
        left, right: matrices whose product is symmetric.
        n_blocks: of rows. Each is computed up to its last entry on the diagonal.
    """
    k = len(left)
    product = left.new_empty(k, k)
    size = max(1, -(-k // n_blocks))
    for start in range(0, k, size):
        stop = min(start + size, k)
        torch.mm(left[start:stop], right[:, :stop], out=product[start:stop, :stop])
        product[:start, start:stop] = product[start:stop, :start].T
    return product
