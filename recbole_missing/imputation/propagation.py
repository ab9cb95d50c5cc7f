"""Imputers that carry features along the item co-interaction graph; they differ by one filter.

Source: Malitesta et al., "Dealing with Missing Modalities in Multimodal Recommendation: a Feature
Propagation-based Approach", arXiv 2403.19841; extended in arXiv 2408.11767 and 2602.17354.
Facts about the released numbers: danielemalitesta/Graph-Missing-Modalities-TKDE, impute.py,
commit c29f97f. Where the release fills rows of the graph that are too short with arbitrary items
of zero co-interactions, and breaks ties as torch.topk happens to, this graph has no fillers and a
stated tie rule (:func:`recbole_missing.graph.co_interaction`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from recbole_missing.graph import SparseMatrix, co_interaction
from recbole_missing.imputation.base import Filled, Imputer
from recbole_missing.settings import Choice, Int


class FeatProp(Imputer):
    """What travels ``imputation_layers`` steps along the co-interaction graph.

    Paper: Malitesta, Rossi, Pomo, Malliaros and Di Noia, "Dealing with Missing Modalities in
        Multimodal Recommendation: a Feature Propagation-based Approach", arXiv 2024,
        https://arxiv.org/abs/2403.19841

    Each step is x <- P x, observed rows reset. P_ij = B_ij / sqrt(d_i d_j), where B holds each
    item's ``top_k`` strongest co-interactions (itself counted among them, then dropped; counts
    discarded) and d are B's row sums.

    Args:
        layers: number of propagation steps L.
        top_k: entries a row of the graph keeps.
        fallback: what an item gets that no observed item reaches within ``layers`` steps (it has
            no training interaction, or only unobserved company): ``mean`` of the observed rows,
            or ``zeros`` as in the release.
    """

    hyperparameters = {
        "layers": Int(min=1),
        "top_k": Int(min=1),
        "fallback": Choice("mean", "zeros"),
    }
    operator_: sparse.csr_matrix

    def __init__(self, layers: int = 3, top_k: int = 20, fallback: str = "mean") -> None:
        """Store the settings."""
        self.layers = layers
        self.top_k = top_k
        self.fallback = fallback

    def fit(
        self,
        interactions: sparse.spmatrix,
        donors: Tensor | None = None,
        edges: sparse.spmatrix | None = None,
    ) -> FeatProp:
        """Build the item graph of the training interactions and its propagation operator."""
        super().fit(interactions, donors, edges)
        self.operator_ = self.operator(co_interaction(interactions, self.top_k))
        return self

    def operator(self, adjacency: sparse.spmatrix) -> sparse.csr_matrix:
        """Turn the top-k adjacency (``(n, n)``, row = receiving item) into the operator P."""
        edges = adjacency.tocoo()
        others = edges.row != edges.col
        pairs = (edges.row[others], edges.col[others])
        without_self = sparse.csr_matrix((np.ones(others.sum()), pairs), shape=edges.shape)
        degree = np.asarray(without_self.sum(axis=1)).ravel()
        factor = sparse.diags(np.divide(1.0, np.sqrt(degree), where=degree > 0, out=degree * 0))
        return (factor @ without_self @ factor).tocsr().astype(np.float32)

    def fill(self, table: Any, others: Mapping[str, Any]) -> Filled:
        """Propagate, then give the items that nothing reached their fallback."""
        values, reached = propagate(table.features, table.observed, self.operator_, self.layers)
        if self.fallback == "mean":
            values[~reached] = self.mean_row(table)
        return Filled(values, reached)


class NeighMean(FeatProp):
    """The sum over the ``imputation_top_k`` strongest co-interacted items, divided by that number.

    Paper: Malitesta, Rossi, Pomo, Di Noia and Malliaros, "Do We Really Need to Drop Items with
        Missing Modalities in Multimodal Recommendation?", CIKM 2024,
        https://arxiv.org/abs/2408.11767

    The item itself and neighbours that lack the modality enter as zero vectors and the divisor
    stays ``top_k``, as in the release: the result is shrunk.

    Args:
        top_k, fallback: as in :class:`FeatProp`.
    """

    hyperparameters = {"top_k": Int(min=1), "fallback": Choice("mean", "zeros")}

    layers = 1

    def __init__(self, top_k: int = 20, fallback: str = "mean") -> None:
        """Store the settings; one layer by definition."""
        self.top_k = top_k
        self.fallback = fallback

    def operator(self, adjacency: sparse.spmatrix) -> sparse.csr_matrix:
        """Divide the binary adjacency, diagonal included, by ``top_k``."""
        return _binary(adjacency) / np.float32(self.top_k)


def propagate(
    features: Tensor, observed: Tensor, operator: sparse.spmatrix, layers: int
) -> tuple[Tensor, Tensor]:
    """Repeat x <- O x on the missing rows, observed rows held fixed.

    Args:
        features: shape ``(n, dim)``; rows that are not observed count as zero.
        observed: bool ``(n,)``.
        operator: O, shape ``(n, n)``, non-negative, row = receiving item; sparse from end to end.
        layers: number of steps.

    Returns:
        Values of shape ``(n, dim)`` and, bool ``(n,)``, who is observed or was reached.
    """
    missing = (~observed).nonzero()[:, 0]
    receive = SparseMatrix.from_scipy(operator.tocsr()[missing.numpy()])
    known = observed.float()[:, None]
    values = torch.cat([features * known, known], dim=1)  # last column: weight that has arrived
    for _ in range(layers):
        values[missing] = receive @ values
    return values[:, :-1], values[:, -1] > 0


def _binary(adjacency: sparse.spmatrix) -> sparse.csr_matrix:
    binary = adjacency.tocsr().astype(np.float32)
    binary.data = np.ones_like(binary.data)
    return binary
