"""Which items are neighbours: the choice of item graph, and how smooth features are on a graph.

An item graph is binary, directed and sparse, shape ``(n_items, n_items)``, row = receiving item; a
row holds at most ``top_k`` entries. Items that are no donors are in nobody's row.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from recbole_missing.graph.co_interaction import co_interaction
from recbole_missing.graph.knn import stable_topk
from recbole_missing.parallel import Serial

GRAPHS = ("co_interaction", "edges", "knn")
"""Strongest co-interactions, a graph of the user's own, or nearest by another modality."""

_BLOCK_ENTRIES = 2**17
"""Entries of a dense block of columns: 1 MB, so that a product finds its rows in the cache."""

_SERIAL = Serial()


def column_blocks(n_columns: int, n_rows: int) -> list[tuple[int, int]]:
    """Split columns into ranges, each a block of about 1 MB and at least 16 columns."""
    width = max(16, min(256, _BLOCK_ENTRIES // max(1, n_rows)))
    return [(start, min(start + width, n_columns)) for start in range(0, n_columns, width)]


def interaction_graph(
    interactions: sparse.spmatrix,
    donors: Tensor,
    top_k: int,
    max_user_items: int | None = None,
    engine: Any = None,
) -> sparse.csr_matrix:
    """Each item's ``top_k`` strongest co-interactions (itself among them), counts discarded."""
    counts = co_interaction(interactions, top_k, max_user_items=max_user_items, engine=engine)
    return _binary(_from_donors(counts, donors))


def edge_graph(edges: Any, donors: Tensor, top_k: int) -> sparse.csr_matrix:
    """Keep the ``top_k`` heaviest of each row's given edges, weights then discarded.

    Weights only say which edges are kept (heavier first, then the smaller item id), so that every
    graph is treated like the co-interaction graph. A zero is no edge.

    Args:
        edges: shape ``(n_items, n_items)``, non-negative, row = receiving item.
        donors: bool ``(n_items,)``.
        top_k: entries a row keeps.

    Raises:
        ValueError: if there are no edges, or shape or weights are wrong.
    """
    n_items = len(donors)
    if edges is None:
        raise ValueError(
            f"item graph 'edges': must be given as a ({n_items}, {n_items}) matrix, got none; pass "
            "it to fit(edges=...) or choose another graph."
        )
    matrix = edges if sparse.issparse(edges) else np.asarray(edges)
    if matrix.shape != (n_items, n_items):
        raise ValueError(
            f"item graph 'edges': must have shape ({n_items}, {n_items}) for the {n_items} items "
            f"of the interactions, got {tuple(matrix.shape)}; align it."
        )
    weights = sparse.csr_matrix(matrix, dtype=np.float64, copy=True)
    weights.sum_duplicates()
    if not (np.isfinite(weights.data) & (weights.data >= 0)).all():
        raise ValueError(
            "item graph 'edges': weights must be finite and not negative, got "
            f"{weights.data.min(initial=0.0):g} as the smallest; remove or shift them."
        )
    return _binary(_heaviest(_from_donors(weights, donors), top_k))


def nearest_graph(guide: Any, donors: Tensor, top_k: int, engine: Any = _SERIAL) -> Any:
    """Cosine nearest neighbours among the items that truly have the modality ``guide``.

    Args:
        guide: a table (``features``, ``observed``); items that lack it have no neighbour and are
            nobody's.
        donors: bool ``(n_items,)``.
        top_k: neighbours of a row, the item itself among them; ties (on a grid of 2^-20) go to the
            smaller item id.
        engine: runs blocks of rows. Time is quadratic in the number of items that have ``guide``,
            memory is not.

    Returns:
        CSR of shape ``(n_items, n_items)``.
    """
    receivers = guide.observed.nonzero()[:, 0].numpy()
    senders = (guide.observed & donors).nonzero()[:, 0].numpy()
    unit = torch.nn.functional.normalize(guide.features, eps=1e-12).numpy()
    k = min(top_k, len(senders))
    size = max(1, 2**24 // max(1, len(senders)))
    starts = range(0, len(receivers) if k else 0, size)
    tasks = [(start, min(start + size, len(receivers))) for start in starts]
    shared = (unit[receivers], unit[senders], k)
    found = [np.zeros((0, k), dtype=np.int64), *engine.map(_nearest, shared, tasks, "neighbours")]
    cols = senders[np.concatenate(found)].ravel()
    rows = np.repeat(receivers, k)[: len(cols)]
    ones = np.ones(len(cols), dtype=np.float32)
    return sparse.csr_matrix((ones, (rows, cols)), shape=(len(donors), len(donors)))


def dirichlet_energy(features: Any, adjacency: sparse.spmatrix) -> float:
    """Half the sum of B_ij |x_i / sqrt(d_i) - x_j / sqrt(d_j)|^2: how rough features are.

    B is ``adjacency`` without its diagonal, d its row sums, as in FeatProp, whose fixed point has
    the least energy of all completions if B is symmetric (Rossi et al., LoG 2022, arXiv
    2111.12128). If every row has the same length, this is the plain energy divided by that length.

    Args:
        features: shape ``(n, dim)``, every row filled.
        adjacency: shape ``(n, n)``, non-negative.
    """
    graph = without_loops(adjacency)
    degree = np.asarray(graph.sum(axis=1)).ravel()
    mass = (degree + np.asarray(graph.sum(axis=0)).ravel()) / 2
    scale = inverse_root(degree)[:, None]
    energy = 0.0
    for block in _columns(features):
        x = scale * block
        energy += float(mass @ np.square(x).sum(axis=1) - np.vdot(x, graph @ x))
    return max(energy, 0.0)


def homophily(features: Any, adjacency: sparse.spmatrix) -> float:
    """Correlation of the features at both ends of an edge, between -1 and 1.

    With m the mean of (x_i + x_j) / 2 over the edges: the sum of <x_i - m, x_j - m> divided by the
    root of the product of both ends' summed squares (arXiv 2602.17354). Loops count as edges, with
    correlation 1. It is 0 where features do not vary.

    Args:
        features: shape ``(n, dim)``, every row filled.
        adjacency: shape ``(n, n)``; an entry is the weight of its edge.
    """
    graph = sparse.csr_matrix(adjacency, dtype=np.float64)
    receiving = np.asarray(graph.sum(axis=1)).ravel()
    sending = np.asarray(graph.sum(axis=0)).ravel()
    total = receiving.sum()
    product = left = right = 0.0
    for block in _columns(features):
        x = block - ((receiving + sending) @ block) / (2 * total) if total else block
        squares = np.square(x).sum(axis=1)
        product += float(np.vdot(x, graph @ x))
        left, right = left + float(receiving @ squares), right + float(sending @ squares)
    return product / np.sqrt(left * right) if left * right > 0 else 0.0


def without_loops(adjacency: sparse.spmatrix) -> sparse.csr_matrix:
    """Return ``adjacency`` in float64 without its diagonal."""
    edges = adjacency.tocoo()
    others = edges.row != edges.col
    pairs = (edges.row[others], edges.col[others])
    return sparse.csr_matrix((edges.data[others].astype(np.float64), pairs), shape=edges.shape)


def inverse_root(degree: Any) -> Any:
    """d^-1/2 with 0 where d is 0."""
    return np.divide(1.0, np.sqrt(degree), out=np.zeros_like(degree), where=degree > 0)


def _columns(features: Any) -> Iterator[Any]:
    matrix = np.asarray(features)
    for start, stop in column_blocks(matrix.shape[1], matrix.shape[0]):
        yield np.ascontiguousarray(matrix[:, start:stop], dtype=np.float64)


def _nearest(rows: Any, candidates: Any, k: int, task: tuple[int, int]) -> Any:
    start, stop = task
    similarity = torch.from_numpy(rows[start:stop] @ candidates.T)
    return stable_topk(similarity, k)[1].numpy()


def _from_donors(graph: sparse.csr_matrix, donors: Tensor) -> sparse.csr_matrix:
    kept = graph.copy()
    kept.data = np.where(donors.numpy()[graph.indices], graph.data, 0)
    kept.eliminate_zeros()
    return kept


def _heaviest(graph: sparse.csr_matrix, top_k: int) -> sparse.csr_matrix:
    rows = np.repeat(np.arange(graph.shape[0]), np.diff(graph.indptr))
    order = np.lexsort((graph.indices, -graph.data, rows))
    kept = order[np.arange(len(rows)) - graph.indptr[rows] < top_k]  # rows are sorted already
    pairs = (rows[kept], graph.indices[kept])
    return sparse.csr_matrix((graph.data[kept], pairs), shape=graph.shape)


def _binary(graph: sparse.csr_matrix) -> sparse.csr_matrix:
    binary = graph.astype(np.float32)
    binary.data = np.ones_like(binary.data)
    return binary
