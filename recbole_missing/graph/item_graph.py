"""Item graphs that carry features: co-interactions, edges of the user's own, nearest neighbours.

An item graph is binary, directed and sparse, shape ``(n_items, n_items)``. Row i lists the items
that item i receives from, at most ``top_k`` of them. Donors are the items that may send; items that
are no donors stand in nobody's row.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from recbole_missing.graph.co_interaction import co_interaction
from recbole_missing.graph.knn import Cosines, block_rows, nearest
from recbole_missing.parallel import SERIAL

GRAPHS = ("co_interaction", "edges", "knn")
"""Strongest co-interactions, a graph of the user's own, nearest items by another modality."""


def interaction_graph(
    interactions: sparse.spmatrix,
    donors: Tensor,
    top_k: int,
    max_user_items: int | None = None,
    engine: Any = SERIAL,
) -> sparse.csr_matrix:
    """Each item's ``top_k`` strongest co-interactions (itself among them), counts discarded.

    Args:
        interactions, top_k, max_user_items, engine: see
            :func:`~recbole_missing.graph.co_interaction.co_interaction`.
        donors: bool ``(n_items,)``.
    """
    counts = co_interaction(interactions, top_k, max_user_items=max_user_items, engine=engine)
    return _binary(_from_donors(counts, donors))


def edge_graph(edges: Any, donors: Tensor, top_k: int) -> sparse.csr_matrix:
    """Keep the ``top_k`` heaviest of each row's given edges, weights then discarded.

    Weights only decide which edges are kept: the heavier one, then the one to the smaller item id.
    So every graph is treated like the co-interaction graph. A zero is no edge.

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


def nearest_graph(guide: Any, donors: Tensor, top_k: int, engine: Any = SERIAL) -> Any:
    """Cosine nearest neighbours among the items that truly have the modality ``guide``.

    Args:
        guide: a table (``features``, ``observed``). Items that lack it have no neighbours and are
            nobody's neighbour.
        donors: bool ``(n_items,)``.
        top_k: neighbours of a row, the item itself among them; ties (on a grid of 2^-20) go to the
            smaller item id.
        engine: runs blocks of rows. Time is quadratic in the number of items that have ``guide``,
            memory is not.

    Returns:
        CSR of shape ``(n_items, n_items)``, columns sorted.
    """
    shape = (len(donors), len(donors))
    receivers = guide.observed.nonzero()[:, 0]
    senders = (guide.observed & donors).nonzero()[:, 0]
    k = min(top_k, len(senders))
    if k == 0:
        return sparse.csr_matrix(shape, dtype=np.float32)
    cosines = Cosines(guide.features[receivers], guide.features[senders])
    queries = torch.arange(len(receivers), device=receivers.device)
    _, found = nearest(cosines, queries, k, block_rows(len(senders)), engine)
    pairs = torch.stack([receivers.repeat_interleave(k), senders[found].flatten()]).cpu().numpy()
    graph = sparse.csr_matrix((np.ones(pairs.shape[1], dtype=np.float32), pairs), shape=shape)
    graph.sort_indices()
    return graph


def without_loops(adjacency: sparse.spmatrix) -> sparse.csr_matrix:
    """Return ``adjacency`` in float64 without its diagonal."""
    edges = adjacency.tocoo()
    others = edges.row != edges.col
    pairs = (edges.row[others], edges.col[others])
    return sparse.csr_matrix((edges.data[others].astype(np.float64), pairs), shape=edges.shape)


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
