"""Whether content follows consumption: pairs of items, held-out interactions, hidden items.

The rows of a modality are centred by their mean over the items that have it and scaled to unit
length, so that an inner product is the cosine of two centred rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor
from torch.nn import functional

from recbole_missing.describe import uncertain
from recbole_missing.describe.arrays import Arrays
from recbole_missing.describe.description import (
    ITEM_KNN,
    POPULARITY,
    TOGETHER,
    Cold,
    Content,
    Estimate,
    HeldOut,
    Pairs,
)
from recbole_missing.graph.co_interaction import co_interaction
from recbole_missing.graph.item_graph import without_loops
from recbole_missing.graph.knn import Cosines, block_rows, nearest, places
from recbole_missing.graph.normalise import inverse_root_array
from recbole_missing.graph.smoothness import homophily

K = 20
"""Length of a list, and number of the most co-consumed items of an item."""

NEIGHBOURS = 50
"""Nearest items that each training item of a user votes for."""

COLD_SHARE = 0.2
"""Share of the items with a modality that lose all their training interactions."""

FEWEST_COLD, FEWEST_PAIRS = 2 * K, 20
MOST_PAIRS, MOST_INTERACTIONS = 100_000, 20_000
N_BINS = 40
_BLOCK = 4096  # rows compared at a time

Array = NDArray[Any]
Scores = Callable[[Array], Array]
"""Ids of users ``(b,)`` -> scores of all candidates, float32 ``(b, n_candidates)``."""


@dataclass(frozen=True)
class Rows:
    """Centred rows of unit length: ``features`` float32 ``(n_items, dim)``; who has one."""

    features: Tensor
    observed: Tensor


def rows_of(arrays: Arrays) -> dict[str, Rows]:
    """Rows of each modality, and of all of them side by side if there are several.

    In the latter an item that lacks a modality has zeros there.
    """
    rows = {name: _centred(table) for name, table in arrays.tables.items()}
    if len(rows) > 1:
        together = torch.cat([one.features for one in rows.values()], dim=1)
        anything = torch.stack([one.observed for one in rows.values()]).any(dim=0)
        rows[TOGETHER] = Rows(functional.normalize(together, eps=1e-12), anything)
    return rows


def measured(
    arrays: Arrays, seed: int
) -> tuple[dict[str, Content], dict[str, HeldOut], tuple[int, int]]:
    """Section 3 and 4.

    Returns:
        Modality -> :class:`Content`, without its level; ``popularity`` and ``ItemKNN`` ->
        :class:`HeldOut`; number of the users that were ranked, and of all users with held-out
        interactions.
    """
    graph = item_graph(arrays)
    held_out = Lists.of(arrays, seed)
    baselines, contents = {}, {}
    if held_out.n:
        scores = {POPULARITY: popularity(arrays), ITEM_KNN: item_knn(arrays)}
        hits = {name: held_out.hits(score) for name, score in scores.items()}
        baselines = {name: held_out.judged(hit, hits) for name, hit in hits.items()}
    for place, (name, rows) in enumerate(rows_of(arrays).items()):
        found = None
        if held_out.n:
            hit = held_out.hits(votes(arrays, neighbours(rows, arrays)))
            found = held_out.judged(hit, hits, rows.observed.numpy())
        contents[name] = Content(
            pairs(rows, graph, np.random.default_rng([seed, 1, place])),
            found,
            cold(arrays, rows, np.random.default_rng([seed, 2, place])),
            homophily_of(rows, graph),
        )
    return contents, baselines, held_out.of_users


def item_graph(arrays: Arrays) -> sparse.csr_matrix:
    """The :data:`K` most co-consumed items of each item, without itself; every edge is 1."""
    graph = without_loops(co_interaction(arrays.train, K + 1))
    graph.data[:] = 1
    return graph


def pairs(rows: Rows, graph: sparse.csr_matrix, generator: np.random.Generator) -> Pairs | None:
    """Cosines of co-consumed pairs against random pairs of items that have the modality.

    Args:
        rows: of one modality.
        graph: the most co-consumed items of each item, without loops.
        generator: draws the random pairs, and pairs of the graph if it has more than
            :data:`MOST_PAIRS`.
    """
    observed = rows.observed.numpy()
    edges = graph.tocoo()
    known = observed[edges.row] & observed[edges.col]
    joined = np.stack([edges.row[known], edges.col[known]], axis=1)
    if len(joined) < FEWEST_PAIRS:
        return None
    if len(joined) > MOST_PAIRS:
        joined = joined[np.sort(generator.choice(len(joined), MOST_PAIRS, replace=False))]
    items = np.flatnonzero(observed)
    drawn = generator.choice(items, (MOST_PAIRS, 2))
    drawn = drawn[drawn[:, 0] != drawn[:, 1]]
    near, far = _cosines(rows, joined), _cosines(rows, drawn)
    bins = np.linspace(min(near.min(), far.min()), max(near.max(), far.max()) + 1e-6, N_BINS + 1)
    return Pairs(
        uncertain.mean_of_pairs(near, joined),
        uncertain.mean_of_pairs(far, drawn),
        uncertain.auc(near, far, joined, drawn),
        bins.tolist(),
        (np.histogram(near, bins)[0] / len(near)).tolist(),
        (np.histogram(far, bins)[0] / len(far)).tolist(),
    )


def popularity(arrays: Arrays) -> Scores:
    """Scores of an item: its number of users in training."""
    counts = arrays.counts.astype(np.float32)
    return lambda users: np.tile(counts, (len(users), 1))


def item_knn(arrays: Arrays) -> Scores:
    """ItemKNN with the cosine of consumption and all neighbours.

    With the training matrix R and the numbers of users d of each item, the scores of a user with
    the row r are ``r D^-1/2 R^T R D^-1/2``. R^T R is never made.
    """
    root = sparse.diags(inverse_root_array(arrays.counts.astype(np.float32))).tocsr()
    scaled = sparse.csr_matrix(arrays.train @ root)
    users_of = arrays.train.T.tocsr()
    return lambda users: ((scaled[users] @ users_of) @ scaled).toarray()


def neighbours(rows: Rows, arrays: Arrays) -> sparse.csr_matrix:
    """The :data:`NEIGHBOURS` nearest items of each item with a training interaction.

    Only items that have the modality take part. An entry is the cosine; an item is not its own
    neighbour. Shape ``(n_items, n_items)``.
    """
    shape = (len(rows.observed),) * 2
    candidates = rows.observed.nonzero()[:, 0]
    voters = (rows.observed & torch.from_numpy(arrays.counts > 0)).nonzero()[:, 0]
    k = min(NEIGHBOURS + 1, len(candidates))
    if k < 2 or not len(voters):
        return sparse.csr_matrix(shape, dtype=np.float32)
    cosines = Cosines(rows.features[voters], rows.features[candidates])
    value, col = nearest(cosines, cosines.distinct, k, block_rows(len(candidates)))
    value, col = value[cosines.kind], candidates[col[cosines.kind]]
    own = col == voters[:, None]
    own[:, -1] |= ~own.any(dim=1)  # more than k equal rows: one neighbour less, not one more
    kept = value[~own], voters.repeat_interleave(k - 1), col[~own]
    values, heads, tails = (part.numpy() for part in kept)
    return sparse.csr_matrix((values, (heads, tails)), shape=shape)


def votes(arrays: Arrays, near: sparse.csr_matrix) -> Scores:
    """Scores of an item: the cosines of a user's training items that have it as a neighbour."""
    return lambda users: (arrays.train[users] @ near).toarray()


@dataclass(frozen=True)
class Lists:
    """Held-out interactions, and lists of candidates that a recommender ranks for their users.

    Args:
        users, items: the interactions, sorted by user, ``(n,)``.
        excluded: candidates that each user already has, ``(n_users, n_candidates)``.
        positives: all held-out candidates of each user, ``(n_users, n_candidates)``.
        of_users: number of users here, and before some were drawn.
    """

    users: Array
    items: Array
    excluded: sparse.csr_matrix
    positives: sparse.csr_matrix
    of_users: tuple[int, int]

    @classmethod
    def of(cls, arrays: Arrays, seed: int) -> Lists:
        """The validation interactions; candidates are all items that a user lacks in training."""
        return cls.drawn(arrays.valid, arrays.train, np.random.default_rng([seed, 0]))

    @classmethod
    def drawn(
        cls,
        positives: sparse.csr_matrix,
        excluded: sparse.csr_matrix,
        generator: np.random.Generator,
    ) -> Lists:
        """Draw users with at most :data:`MOST_INTERACTIONS` interactions, and one user at least."""
        numbers = np.diff(positives.indptr)
        users = np.flatnonzero(numbers)
        order = generator.permutation(users)
        n_drawn = max(int((np.cumsum(numbers[order]) <= MOST_INTERACTIONS).sum()), 1)
        chosen = np.zeros(len(numbers), dtype=bool)
        chosen[order[:n_drawn]] = True
        pair = positives.tocoo()
        kept = chosen[pair.row]
        of_users = (min(n_drawn, len(users)), len(users))
        return cls(pair.row[kept], pair.col[kept], excluded, positives, of_users)

    @property
    def n(self) -> int:
        """Number of interactions."""
        return len(self.users)

    def hits(self, scores: Scores) -> Array:
        """Probability that each item is among the first :data:`K`; equal scores in random order."""
        better, ties = self._places(scores, alone=False)
        return np.clip((K - better) / ties, 0, 1)

    def wins(self, scores: Scores) -> Array:
        """Share of the candidates that no user of the interaction took and that come after it."""
        better, ties = self._places(scores, alone=True)
        taken = np.diff(self.positives.indptr) + np.diff(self.excluded.indptr)
        others = self.positives.shape[1] - taken[self.users]
        shares = 1 - (better + (ties - 1) / 2) / np.maximum(others, 1)
        return np.where(others > 0, shares, 0.5)

    def chance(self) -> Array:
        """Probability that each item is among the first :data:`K` of a random list."""
        candidates = self.positives.shape[1] - np.diff(self.excluded.indptr)[self.users]
        return np.minimum(K / np.maximum(candidates, 1), 1)

    def judged(
        self, hits: Array, baselines: Mapping[str, Array], observed: Array | None = None
    ) -> HeldOut:
        """Recall of a recommender.

        Args:
            hits: :meth:`hits` of the recommender.
            baselines: :meth:`hits` of ``popularity`` and ``ItemKNN``.
            observed: bool ``(n_items,)``, items that have the modality, for content.
        """
        by_chance = self.chance()
        known = np.zeros(self.n, bool) if observed is None else observed[self.items]
        return HeldOut(
            uncertain.mean(hits, self.users),
            uncertain.mean(hits[known], self.users[known]) if known.any() else None,
            float(by_chance.mean()),
            uncertain.mean(hits - by_chance, self.users),
            *(
                uncertain.mean(hits - baselines[name], self.users)
                for name in (POPULARITY, ITEM_KNN)
            ),
        )

    def _places(self, scores: Scores, alone: bool) -> tuple[Array, Array]:
        """How many candidates come before each item, and how many share its score, itself too."""
        own = torch.from_numpy(self.items.astype(np.int64))
        hidden = self.excluded + self.positives if alone else self.excluded

        def similarity(queries: Tensor) -> Tensor:
            users, place = np.unique(self.users[queries.numpy()], return_inverse=True)
            found = np.asarray(scores(users), dtype=np.float32)
            mine = found[place, self.items[queries.numpy()]]
            taken = hidden[users].tocoo()
            found[taken.row, taken.col] = -np.inf
            block = torch.from_numpy(found[place])
            return block.scatter_(1, own[queries, None], torch.from_numpy(mine)[:, None])

        better, ties = places(similarity, own, block_rows(self.positives.shape[1]))
        return better.numpy(), ties.numpy()


def cold(arrays: Arrays, rows: Rows, generator: np.random.Generator) -> Cold | None:
    """Hide items whole, and rank them for the users who had them.

    :data:`COLD_SHARE` of the items that have the modality lose all their training interactions.
    The score of such an item is the sum of its cosines to the other training items of the user.
    Means are over users, so that a user with many hidden items counts once.
    """
    items = np.flatnonzero(rows.observed.numpy() & (arrays.counts > 0))
    n_cold = int(COLD_SHARE * len(items))
    if n_cold < FEWEST_COLD:
        return None
    hidden = np.sort(generator.choice(items, n_cold, replace=False))
    warm = np.ones(arrays.train.shape[1], dtype=bool)
    warm[hidden] = False
    history = sparse.csr_matrix(arrays.train @ sparse.diags(warm.astype(np.float32)))
    history.eliminate_zeros()
    has_history = sparse.diags((np.diff(history.indptr) > 0).astype(np.float32))
    positives = sparse.csr_matrix(has_history @ arrays.train[:, hidden])
    positives.eliminate_zeros()
    if not positives.nnz:
        return None
    lists = Lists.drawn(positives, sparse.csr_matrix(positives.shape), generator)
    features = rows.features.numpy()
    candidates = features[hidden].T

    def scores(users: Array) -> Array:
        return (history[users] @ features) @ candidates

    hits, wins, by_chance = lists.hits(scores), lists.wins(scores), lists.chance()
    sides = (lists.users, lists.items)
    every_user_once = 1 / np.diff(lists.positives.indptr)[lists.users]

    def over_users(values: Array) -> Estimate:
        return uncertain.mean(values, *sides, weights=every_user_once)

    return Cold(
        n_cold,
        lists.of_users[0],
        over_users(wins),
        over_users(hits),
        float(by_chance.mean()),
        over_users(hits - by_chance),
    )


def homophily_of(rows: Rows, graph: sparse.csr_matrix) -> float | None:
    """Homophily of a modality on the graph among the items that have it; None without an edge."""
    known = rows.observed.numpy()
    joined = graph[known][:, known]
    return float(homophily(rows.features[rows.observed], joined)) if joined.nnz else None


def _cosines(rows: Rows, pair: Array) -> Array:
    first, second = torch.from_numpy(pair.astype(np.int64)).T
    blocks = zip(first.split(_BLOCK), second.split(_BLOCK))
    return torch.cat([(rows.features[i] * rows.features[j]).sum(dim=1) for i, j in blocks]).numpy()


def _centred(table: Any) -> Rows:
    observed = table.observed
    centre = table.features[observed].double().mean(dim=0).float()
    rows = torch.where(observed[:, None], table.features - centre, 0.0)
    return Rows(functional.normalize(rows, eps=1e-12), observed)
