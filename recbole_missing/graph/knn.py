"""The one neighbour search: exact, in blocks of rows, on the device of its inputs.

A *similarity* is called with ids of queries and gives what they have in common with every candidate
(:class:`Cosines`, :class:`SharedCosines`, or a function of a model's own). :func:`nearest` asks it
for one block of queries after the other and keeps the k most similar candidates, so a matrix of all
queries by all candidates never exists.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from logging import getLogger
from typing import Any

import torch
from torch import Tensor, nn

from recbole_missing.graph.sparse import SparseMatrix
from recbole_missing.parallel import Serial

KNN_MISSING = ("imputed", "isolated", "isolated_after_topk")
"""What a kNN graph does with items that lack the modality, see :func:`knn_graph`."""

SEARCHES = Serial(delay=3.0)
"""The engine of searches without one of their own. A model switches its bar on or off."""

BLOCK_ENTRIES = 2**25
"""Similarities held at a time (128 MB); :func:`block_rows` turns it into a number of queries."""

_MOST_ROWS = 1024

_TIE_GRID = 2.0**20
"""Similarities are compared on a grid of 2^-20, above the rounding noise of a float32 product."""

_ODD = 0x9E3779B97F4A7C15 - 2**64  # spreads the bits of a product (Knuth's multiplicative hash)

Similarity = Callable[[Tensor], Tensor]
"""Ids of queries ``(n,)`` -> their similarities to all candidates, ``(..., n, n_candidates)``."""


class Cosines:
    """Cosine of each query with each candidate; call it with ids of queries.

    Equal rows are stored and multiplied once. So they have bit-identical similarities, wherever
    they stand in the table and whatever block they fall into, and mean-imputed rows cost little.

    Args:
        queries: features, shape ``(n_queries, dim)``. A row of zeros has a cosine of 0 with all.
        candidates: features, shape ``(n_candidates, dim)``. Default: the queries themselves.

    Attributes:
        distinct: ids of queries, the first one of each distinct row, ascending, ``(n_distinct,)``.
        kind: which of ``distinct`` each query equals, shape ``(n_queries,)``.
    """

    def __init__(self, queries: Tensor, candidates: Tensor | None = None) -> None:
        """Find equal rows and scale the distinct ones to unit length."""
        self.distinct, self.kind = _distinct(queries)
        self._rows = _unit(queries[self.distinct])
        self._columns, self._column_of = self._rows, self.kind
        if candidates is not None:
            first, self._column_of = _distinct(candidates)
            self._columns = _unit(candidates[first])

    def __call__(self, queries: Tensor) -> Tensor:
        """Cosines of the queries with these ids, shape ``(len(queries), n_candidates)``."""
        found = self._rows[self.kind[queries]] @ self._columns.T
        if len(self._columns) == len(self._column_of):  # no two are equal, so they are in order
            return found
        return found.index_select(1, self._column_of)

    def mean(self) -> Tensor:
        """Mean cosine over all pairs: the inner product of both sides' mean unit rows, a scalar."""
        rows, columns = self._rows[self.kind], self._columns[self._column_of]
        return (rows.mean(dim=0) * columns.mean(dim=0)).sum()


class SharedCosines:
    """Sum of the cosines over the modalities that a query and a candidate both have.

    A candidate that shares no modality with the query has the similarity minus infinity.

    Args:
        tables: objects with ``features (n, dim)`` and ``observed`` bool ``(n,)``, one a modality.
        queries, candidates: row numbers in the tables, shapes ``(n_queries,)``,
            ``(n_candidates,)``. A call takes positions in ``queries``.
    """

    def __init__(self, tables: Sequence[Any], queries: Tensor, candidates: Tensor) -> None:
        """Blank out what is not observed: a row of zeros adds nothing to a sum of cosines."""
        seen = torch.stack([table.observed for table in tables], dim=1)
        self._query_has, self._candidate_has = seen[queries].float(), seen[candidates].float()
        self._cosines = []
        for table in tables:
            rows = torch.where(table.observed[:, None], table.features, 0.0)
            self._cosines.append(Cosines(rows[queries], rows[candidates]))

    def __call__(self, queries: Tensor) -> Tensor:
        """Similarities of the queries at these positions, ``(len(queries), n_candidates)``."""
        total = torch.stack([cosines(queries) for cosines in self._cosines]).sum(dim=0)
        n_shared = self._query_has[queries] @ self._candidate_has.T
        return total.masked_fill(n_shared == 0, -torch.inf)


@torch.no_grad()
def nearest(
    similarity: Similarity,
    queries: Tensor,
    k: int,
    block_size: int,
    engine: Any = None,
    label: str = "neighbours",
) -> tuple[Tensor, Tensor]:
    """The ``k`` most similar candidates of each query.

    Candidates are compared on a grid of 2^-20, and among equal ones the smaller number wins. The
    grid is coarser than the rounding noise in which devices and block sizes differ.

    Args:
        similarity: see :data:`Similarity`; leading dimensions, such as one a modality, are kept.
        queries: ids that ``similarity`` is called with, shape ``(n_queries,)``.
        k: at most the number of candidates.
        block_size: queries looked at together (:func:`block_rows`); it bounds memory.
        engine: runs the blocks (:mod:`recbole_missing.parallel`); default :data:`SEARCHES`.
        label: what a progress bar says.

    Returns:
        Similarities (not rounded) and numbers of the candidates, each ``(..., n_queries, k)``, the
        most similar one first.
    """
    blocks = [block.clone() for block in queries.split(block_size)]  # a view would travel whole
    values, found = zip(
        *(engine or SEARCHES).map(_nearest_in_block, (similarity, k), blocks, label)
    )
    return torch.cat(values, dim=-2), torch.cat(found, dim=-2)


@torch.no_grad()
def places(similarity: Similarity, own: Tensor, block_size: int) -> tuple[Tensor, Tensor]:
    """How many candidates come before a certain one, and how many share its place.

    Args:
        similarity: see :data:`Similarity`, without leading dimensions.
        own: for query 0, 1, ... the number of the candidate in question, shape ``(n_queries,)``.
        block_size: as in :func:`nearest`.

    Returns:
        For each query the number of candidates that are more similar than its own one, and of
        those that are equally similar on a grid of 2^-20 (itself among them); int64
        ``(n_queries,)``. If the similarity of a query to its own candidate is NaN, all candidates
        count as more similar, and none as equal.
    """
    better, ties = [], []
    for queries in torch.arange(len(own), device=own.device).split(block_size):
        grid = _on_grid(similarity(queries))
        mine = grid.gather(1, own[queries, None])
        better.append((~(grid <= mine)).sum(dim=1))
        ties.append((grid == mine).sum(dim=1))
    return torch.cat(better), torch.cat(ties)


def block_rows(n_candidates: int) -> int:
    """How many queries make a block of at most :data:`BLOCK_ENTRIES` similarities (1 to 1024)."""
    return max(1, min(_MOST_ROWS, BLOCK_ENTRIES // max(1, n_candidates)))


@torch.no_grad()
def knn_graph(
    features: Tensor,
    k: int,
    observed: Tensor,
    missing: str = "imputed",
    weighted: bool = True,
    excluded: Tensor | None = None,
    block_size: int | None = None,
    device: Any = None,
) -> SparseMatrix:
    """Cosine k-nearest-neighbour graph of items, exact.

    Args:
        features: shape ``(n_items, dim)``; row 0 (padding) gets no edge.
        k: neighbours of a row, the row itself among them when it is near enough; at most the
            number of candidates.
        observed: bool ``(n_items,)``: who truly has the modality.
        missing: what happens to the other items. ``imputed``: their rows take part like any other
            (right behind FeatProp). ``isolated``: a self loop of weight 1 is their only edge. They
            are left out before the search, so all places go to observed neighbours (right behind
            mean and zeros). ``isolated_after_topk``: the same, but their edges are cut after the
            search, so observed items keep fewer neighbours (DGMRec).
        weighted: keep the cosine as weight, else 1.
        excluded: bool ``(n_items,)``: items that are isolated whatever they have, before the
            search (new items, while a model trains).
        block_size: rows of a block, which bounds memory; default :func:`block_rows`.
        device: where to search, for example ``config["device"]``: a data set's features are on
            the CPU when a model is built. Default: where the features are. The graph comes back
            to the device of ``features``.

    Returns:
        A directed adjacency of shape ``(n_items, n_items)``, not normalised. Among equal
        similarities (on a grid of 2^-20) the smaller item id wins.

    An item that is left out before the search still takes a place in it: published code sets its
    similarity to 0, as that of a row of zeros, and then takes the top k. So an item whose k-th
    neighbour has a negative cosine loses that neighbour if an item was left out. This function
    lets the same number of blank candidates of similarity 0 take part and drops their edges.
    """
    home = features.device
    features, observed = features.to(device or home), observed.to(device or home)
    n_items = features.shape[0]
    real = torch.ones(n_items, dtype=torch.bool, device=features.device)
    real[0] = False
    excluded = torch.zeros_like(real) if excluded is None else real & excluded.to(real.device)
    isolated = excluded | (real & ~observed) if missing != "imputed" else excluded
    left_out = isolated if missing == "isolated" else excluded
    candidates = (real & ~left_out).nonzero()[:, 0]
    n_blank = min(int(left_out.sum()), k)
    rows, cols, values = _top_similar(features, k, candidates, n_blank, block_size)
    if not weighted:
        values = torch.ones_like(values)
    kept = ~(isolated[rows] | isolated[cols])
    loops = isolated.nonzero()[:, 0]
    return SparseMatrix(
        torch.cat([rows[kept], loops]),
        torch.cat([cols[kept], loops]),
        torch.cat([values[kept], values.new_ones(loops.numel())]),
        (n_items, n_items),
    ).to(home)


def _top_similar(
    features: Tensor, k: int, items: Tensor, n_blank: int, block_size: int | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Edges from each of ``items`` to its k most similar ones among ``items``.

    ``n_blank`` more candidates of similarity 0 take part; who wins one of them gets no edge for it.
    """
    n_items = items.numel()
    if k > n_items:
        getLogger().warning(
            f"knn_graph: k is {k}, but only {n_items} items can be neighbours; each item gets all "
            "of them."
        )
    k = min(k, n_items + n_blank)
    cosines = Cosines(features[items])

    def similarity(queries: Tensor) -> Tensor:
        found = cosines(queries)
        return nn.functional.pad(found, (0, n_blank)) if n_blank else found

    size = block_size or block_rows(n_items + n_blank)
    value, col = nearest(similarity, cosines.distinct, k, size)
    value, col = value[cosines.kind].flatten(), col[cosines.kind].flatten()
    edge = col < n_items
    return items.repeat_interleave(k)[edge], items[col[edge]], value[edge]


def stable_topk(similarity: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Top k of each row by (similarity on the grid, smaller column), in this order.

    Args:
        similarity: shape ``(n_rows, n_columns)``.
        k: at most ``n_columns``.

    Returns:
        Similarities, not rounded, and columns, each ``(n_rows, k)``.
    """
    col = top_columns(_on_grid(similarity), k)
    return similarity.gather(1, col), col


def largest(key: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest values of each row and their columns, as :func:`torch.topk`, but faster.

    The columns are taken in groups. The k largest values stand in the k groups whose maxima are
    largest, so only these groups are searched.

    Args:
        key: shape ``(n_rows, n_columns)``.
        k: at most ``n_columns``.

    Returns:
        Values in falling order, and int64 columns; of equal values any. Each ``(n_rows, k)``.
    """
    n_columns = key.shape[1]
    # The search takes n / width maxima and k * width values. torch is faster from 64 k values on.
    width = min(math.isqrt(n_columns // max(k, 1)), n_columns // max(64 * k, 1))
    if width < 4:
        top, col = key.topk(k, dim=1)
        return top, col
    n_groups = n_columns // width
    n_grouped = width * n_groups
    # Group g has the columns g, g + n_groups, g + 2 n_groups, ...
    groups = key[:, :n_grouped].unflatten(1, (width, n_groups))
    best = groups.amax(dim=1).topk(k, dim=1, sorted=False).indices
    inside = groups.gather(2, best[:, None].expand(-1, width, -1)).flatten(1)
    top, place = torch.cat([inside, key[:, n_grouped:]], dim=1).topk(k, dim=1)
    col = torch.div(place, k, rounding_mode="floor") * n_groups + best.gather(1, place % k)
    return top, torch.where(place < width * k, col, place - width * k + n_grouped)


def top_columns(key: Tensor, k: int) -> Tensor:
    """Columns of the k largest values of each row, in falling order; of equal ones the smaller.

    :func:`torch.topk` may take any of equal values.

    Args:
        key: shape ``(n_rows, n_columns)``.
        k: at most ``n_columns``.

    Returns:
        int64, ``(n_rows, k)``.
    """
    spare = min(k + 1, key.shape[1])
    top, col = largest(key, spare)
    col = col[:, :k].sort(dim=1).values
    if spare > k:
        tied = (top[:, k - 1] == top[:, k]).nonzero()[:, 0]
        if tied.numel():
            col[tied] = _lowest_columns(key[tied], top[tied, k - 1, None], k)
    order = key.gather(1, col).argsort(dim=1, descending=True, stable=True)
    return col.gather(1, order)


def _nearest_in_block(similarity: Similarity, k: int, queries: Tensor) -> tuple[Tensor, Tensor]:
    found = similarity(queries)
    values, cols = stable_topk(found.flatten(0, -2), k)
    shape = (*found.shape[:-1], k)
    return values.view(shape), cols.view(shape)


def _on_grid(similarity: Tensor) -> Tensor:
    return (similarity * _TIE_GRID).round_()


def _lowest_columns(key: Tensor, threshold: Tensor, k: int) -> Tensor:
    """Columns above the threshold, then the first ones equal to it, exactly k a row, ascending."""
    above, equal = key > threshold, key == threshold
    room = k - above.sum(dim=1, keepdim=True)
    chosen = above | (equal & (equal.cumsum(dim=1) <= room))
    return chosen.nonzero()[:, 1].view(-1, k)


def _unit(rows: Tensor) -> Tensor:
    rows = rows.float()
    size = rows.norm(dim=1)
    # The square of a number so large or small leaves float32; such rows are scaled first.
    odd = ~((size > 1e-12) & (size < torch.inf)) & rows.any(dim=1)
    if odd.any():
        largest = rows[odd].abs().amax(dim=1, keepdim=True)
        rows = rows.index_put((odd,), rows[odd] / largest)
    return nn.functional.normalize(rows, eps=1e-12)


def _distinct(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Number of the first row of each kind, ascending, and the kind of every row.

    Rows are told apart by a 64-bit hash of their bits, which is exact integer arithmetic and so
    the same on every device.
    """
    generator = torch.Generator().manual_seed(0)
    odd = 2 * torch.randint(-(2**62), 2**62, (rows.shape[1],), generator=generator) + 1
    odd = odd.to(rows.device)
    bits = ((block.float() + 0.0).view(torch.int32) for block in rows.split(1024))  # -0.0 is 0.0
    # Multiplied before the fold, so that 0/1 features, whose low bits are all 0, keep 64 bits.
    mixed = (((block.long() * _ODD) ^ (block.long() * _ODD >> 32)) * odd for block in bits)
    keys = torch.cat([numbers.sum(dim=1) for numbers in mixed])
    kinds, kind = torch.unique(keys, return_inverse=True)
    numbers = torch.arange(len(rows), device=rows.device)
    first = numbers.new_full(kinds.shape, len(rows))
    first, order = first.scatter_reduce(0, kind, numbers, "amin").sort()
    place = torch.empty_like(order).scatter_(0, order, numbers[: len(order)])
    return first, place[kind]
