"""How smooth features are on an item graph: Dirichlet energy and homophily."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from scipy import sparse

from recbole_missing.graph.item_graph import without_loops
from recbole_missing.graph.normalise import inverse_root_array
from recbole_missing.parallel import column_blocks


def dirichlet_energy(features: Any, adjacency: sparse.spmatrix) -> float:
    """Half the sum of B_ij |x_i / sqrt(d_i) - x_j / sqrt(d_j)|^2: how rough features are.

    B is ``adjacency`` without its diagonal and d are its row sums, as in FeatProp. If B is
    symmetric, FeatProp's fixed point has the least energy of all completions. If every row has the
    same length, this is the plain energy divided by that length.

    Source: Rossi, Kenlay, Gorinova, Chamberlain, Dong and Bronstein, "On the Unreasonable
    Effectiveness of Feature Propagation in Learning on Graphs with Missing Node Features", LoG
    2022, https://arxiv.org/abs/2111.12128, for symmetric graphs.

    Args:
        features: shape ``(n, dim)``, every row filled.
        adjacency: shape ``(n, n)``, non-negative.
    """
    graph = without_loops(adjacency)
    degree = np.asarray(graph.sum(axis=1)).ravel()
    mass = (degree + np.asarray(graph.sum(axis=0)).ravel()) / 2
    scale = inverse_root_array(degree)[:, None]
    energy = 0.0
    for block in _columns(features):
        x = scale * block
        energy += float(mass @ np.square(x).sum(axis=1) - np.vdot(x, graph @ x))
    return max(energy, 0.0)


def homophily(features: Any, adjacency: sparse.spmatrix) -> float:
    """Correlation of the features at both ends of an edge, between -1 and 1.

    m = mean over the edges (i, j) of (x_i + x_j) / 2
    h = sum <x_i - m, x_j - m> / sqrt(sum |x_i - m|^2 * sum |x_j - m|^2)

    Loops count as edges, with correlation 1. It is 0 where features do not vary.

    Source: Malitesta et al., "Training-free Graph-based Imputation of Missing Modalities in
    Multimodal Recommendation", arXiv 2602.17354.

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


def _columns(features: Any) -> Iterator[Any]:
    matrix = np.asarray(features)
    for start, stop in column_blocks(matrix.shape[1], matrix.shape[0]):
        yield np.ascontiguousarray(matrix[:, start:stop], dtype=np.float64)
