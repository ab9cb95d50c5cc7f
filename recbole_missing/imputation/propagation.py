"""Imputers that carry features along an item graph, step by step; FeatProp and NeighMean.

Source: Malitesta et al., "Dealing with Missing Modalities in Multimodal Recommendation: a Feature
Propagation-based Approach", arXiv 2403.19841; extended in arXiv 2408.11767 and 2602.17354.
Facts about the released numbers: danielemalitesta/Graph-Missing-Modalities-TKDE, impute.py, commit
c29f97f. The item graph differs from the release in two points. The release fills rows that are too
short with arbitrary items of zero co-interactions; here such rows stay short. The release breaks
ties as torch.topk happens to; here the smaller item id wins
(:func:`recbole_missing.graph.co_interaction.co_interaction`).
"""

from __future__ import annotations

from collections.abc import Mapping
from logging import getLogger
from typing import Any, ClassVar

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from recbole_missing.config.constraints import Choice, Either, Float, Int, Optional, Text
from recbole_missing.graph.item_graph import (
    GRAPHS,
    edge_graph,
    interaction_graph,
    nearest_graph,
    without_loops,
)
from recbole_missing.graph.normalise import row_sum_norm_scipy
from recbole_missing.imputation.base import Filled, Imputer
from recbole_missing.parallel import SERIAL, column_blocks


class GraphImputer(Imputer):
    """What reaches missing rows along an item graph A; subclasses say how.

    Args:
        top_k: entries a row of the item graph keeps.
        graph: ``co_interaction``: the items that the same users interacted with, strongest first,
            the item itself among them. ``edges``: the matrix given to :meth:`fit`, each row's
            heaviest edges, weights then discarded. ``knn``: the nearest items by cosine of the
            modality ``guide``, among the items that truly have it.
        guide: for ``knn``, the name of a modality. Missing rows of the guide itself have no
            neighbours and get the fallback.
        max_user_items: users with more items than that are left out of the co-interaction graph,
            whose cost grows with the square of a user's items; None: nobody is.
        fallback: what an item gets that no observed item reaches (it has no neighbours, or only
            neighbours that nothing reaches either): ``mean`` of the observed rows, or ``zeros`` as
            in the release.

    Attributes:
        graph_: the binary item graph A, ``(n_items, n_items)``, row = receiving item; for ``knn``
            after :meth:`transform`.
        operator_: what a step multiplies with, same shape.

    Items that are no donors (new items) send nothing.
    """

    hyperparameters: ClassVar[Mapping[str, Any]] = {
        "top_k": Int(min=1),
        "graph": Choice(*GRAPHS),
        "guide": Optional(Text()),
        "max_user_items": Optional(Int(min=1)),
        "fallback": Choice("mean", "zeros"),
    }
    layers: Any
    top_k: int
    graph: str
    guide: str | None
    max_user_items: int | None
    fallback: str
    graph_: sparse.csr_matrix
    operator_: sparse.csr_matrix

    def learn(self, interactions: sparse.csr_matrix, edges: sparse.csr_matrix | None) -> None:
        """Build the item graph and the operator; for ``knn``, :meth:`transform` builds them.

        Raises:
            ValueError: for ``edges`` that are absent, negative or of another shape.
        """
        if self.graph == "co_interaction":
            self.graph_ = interaction_graph(
                interactions, self.donors_, self.top_k, self.max_user_items, self.engine
            )
        elif self.graph == "edges":
            self.graph_ = edge_graph(edges, self.donors_, self.top_k)
        if self.graph != "knn":
            self.operator_ = self.operator(self.graph_)

    def operator(self, adjacency: sparse.spmatrix) -> sparse.csr_matrix:
        """Turn the binary item graph A into what a step multiplies with."""
        raise NotImplementedError

    def complete(
        self, table: Any, operator: sparse.csr_matrix
    ) -> tuple[Tensor, Tensor, Mapping[str, float]]:
        """Values ``(n, dim)``, bool ``(n,)`` of who is observed or reached, numbers to report."""
        features, observed = table.features, table.observed
        return (*propagate(features, observed, operator, self.layers, self.engine), {})

    def fill(self, table: Any, others: Mapping[str, Any]) -> Filled:
        """Apply the filter, then give the items that nothing reached their fallback."""
        values, reached, details = self.complete(table, self._operator(table, others))
        values[~reached] = self.mean_row(table) if self.fallback == "mean" else 0.0
        return Filled(values, reached, details)

    def _operator(self, table: Any, others: Mapping[str, Any]) -> sparse.csr_matrix:
        if self.graph != "knn":
            return self.operator_
        if self.guide == table.name and others:
            n_items = len(self.donors_)
            return sparse.csr_matrix((n_items, n_items), dtype=np.float32)
        if self.guide is None or self.guide not in others:
            names = sorted({table.name, *others}) if others else []
            choices = (
                f"one of {', '.join(names)}" if names else "another modality than the only one"
            )
            raise ValueError(
                f"{type(self).__name__}: guide must be {choices} for graph 'knn', got "
                f"{self.guide!r}; name it (imputation_guide) or choose another graph."
            )
        self.graph_ = nearest_graph(others[self.guide], self.donors_, self.top_k, self.engine)
        self.operator_ = self.operator(self.graph_)
        return self.operator_


# FeatProp, in the order of the computation (L = layers, K = items that have the modality):
#
#   C    = R^T R, R the binary training interactions         -> graph.co_interaction
#   A_ij = 1 if C_ij is among the top_k of its row, else 0   -> graph_
#   B    = A without its diagonal                            -> operator
#   d_i  = sum_j B_ij
#   P_ij = B_ij / sqrt(d_i d_j)                              -> operator_
#   X    = 0 in missing rows                                 -> propagate
#   L times:  X <- P X,  X[K] <- features[K]
#   X    = fallback where nothing arrived                    -> fill


class FeatProp(GraphImputer):
    """Features that travel ``imputation_layers`` steps along the item graph, or to their limit.

    Paper: Malitesta, Rossi, Pomo, Malliaros and Di Noia, "Dealing with Missing Modalities in
        Multimodal Recommendation: a Feature Propagation-based Approach", arXiv 2024,
        https://arxiv.org/abs/2403.19841

    d are row sums, on both sides, although P is directed. An item whose own row is empty therefore
    sends nothing. This can only happen in a user's graph, and it is logged: give such edges in both
    directions.

    With ``layers="converge"`` the limit of many steps is solved for. It is x_M = P_MM x_M + P_MK
    x_K for the missing items M that a known item can reach. P is similar to D^-1 B, whose rows sum
    to 1, and each of these items leads to a known one, so the solution exists and is unique. The
    report gains the number of ``iterations`` and the ``residual``, the largest over all columns.

    Propagation by itself: Rossi, Kenlay, Gorinova, Chamberlain, Dong and Bronstein, "On the
    Unreasonable Effectiveness of Feature Propagation in Learning on Graphs with Missing Node
    Features", LoG 2022, https://arxiv.org/abs/2111.12128

    Args:
        layers: number of propagation steps L, or ``converge``.
        top_k, graph, guide, max_user_items, fallback: as in :class:`GraphImputer`; reached means
            within ``layers`` steps.
        tolerance: for ``converge``, ``|P_MM x + b - x| / |b|`` of every feature column, where
            b = P_MK x_K; the error of x can be larger where known items are many steps away.
    """

    hyperparameters = {
        "layers": Either(Int(min=1), Choice("converge")),
        "tolerance": Float(min=1e-10, max=0.1),
        **GraphImputer.hyperparameters,
    }
    layers: int | str
    tolerance: float

    def operator(self, adjacency: sparse.spmatrix) -> sparse.csr_matrix:
        """Turn the item graph A into the operator P, float32."""
        others = without_loops(adjacency)
        degree = np.diff(others.indptr)
        silent = int((degree[np.unique(others.indices)] == 0).sum())
        if silent:
            getLogger().warning(
                f"featprop: items in another's row must have a row of their own to send, got "
                f"{silent} without; give edges in both directions."
            )
        return row_sum_norm_scipy(others).astype(np.float32)

    def complete(
        self, table: Any, operator: sparse.csr_matrix
    ) -> tuple[Tensor, Tensor, Mapping[str, float]]:
        """Propagate a number of steps, or to the limit."""
        if self.layers != "converge":
            return super().complete(table, operator)
        values, reached, details = equilibrium(
            table.features, table.observed, operator, self.tolerance, self.engine
        )
        if details["residual"] > self.tolerance:
            getLogger().warning(
                f"featprop: modality {table.name!r} must converge to a residual of "
                f"{self.tolerance:g}, got {details['residual']:.3g} after "
                f"{details['iterations']} iterations; taken."
            )
        return values, reached, details


# NeighMean: x_i = (1 / top_k) sum_j A_ij x_j, with x_j = 0 where item j lacks the modality.


class NeighMean(GraphImputer):
    """The sum over the item's ``imputation_top_k`` strongest neighbours, divided by that number.

    Paper: Malitesta, Rossi, Pomo, Di Noia and Malliaros, "Do We Really Need to Drop Items with
        Missing Modalities in Multimodal Recommendation?", CIKM 2024,
        https://arxiv.org/abs/2408.11767

    The item itself and neighbours that lack the modality enter as zero vectors, and the divisor is
    ``top_k`` even where a row of the graph is shorter, as in the release. So the result is shorter
    than a mean of the observed neighbours.

    Args:
        top_k, graph, guide, max_user_items, fallback: as in :class:`GraphImputer`.
    """

    layers = 1  # by definition

    def operator(self, adjacency: sparse.spmatrix) -> sparse.csr_matrix:
        """Divide the item graph A, diagonal included, by ``top_k``."""
        binary = (adjacency.tocsr() != 0).astype(np.float32)
        binary.data /= self.top_k
        return binary


# -------------------------------------------------------------------------------- steps and limit


def propagate(
    features: Tensor,
    observed: Tensor,
    operator: sparse.spmatrix,
    layers: int,
    engine: Any = SERIAL,
) -> tuple[Tensor, Tensor]:
    """Repeat x <- O x, observed rows reset after every step.

    Args:
        features: shape ``(n, dim)``; rows that are not observed count as zero.
        observed: bool ``(n,)``.
        operator: O, shape ``(n, n)``, non-negative, row = receiving item; its dtype is that of
            the steps.
        layers: number of steps.
        engine: runs blocks of feature columns.

    Returns:
        Values of shape ``(n, dim)`` and, bool ``(n,)``, who is observed or was reached.
    """
    # Plainly:
    #
    #     x = where(observed, features, 0)
    #     for _ in range(layers):
    #         x = operator @ x
    #         x[observed] = features[observed]
    #
    # Observed rows K are reset in every step, so what the missing rows M receive from them never
    # changes: b = O_MK x_K. It is computed once, and only the missing rows are iterated:
    # x_M = b, then layers - 1 times x_M <- O_MM x_M + b.
    shared = (*_split(operator, ~observed.numpy(), observed.numpy()), features.numpy(), layers)
    tasks = column_blocks(features.shape[1], int((~observed).sum()))
    values = features.clone()
    for (start, stop), block in zip(tasks, engine.map(_steps, shared, tasks, "propagation")):
        values[~observed, start:stop] = torch.from_numpy(block)
    return values, reach(operator, observed, layers)


def equilibrium(
    features: Tensor,
    observed: Tensor,
    operator: sparse.spmatrix,
    tolerance: float,
    engine: Any = SERIAL,
) -> tuple[Tensor, Tensor, dict[str, float]]:
    """Limit of :func:`propagate` over many layers, as the solution of a linear system.

    Args:
        features, observed, operator, engine: as in :func:`propagate`; float64 is used.
        tolerance: relative residual of each feature column.

    Returns:
        Values, zero where nothing reaches; who is observed or reached; ``iterations`` and
        ``residual``, the largest over all columns.
    """
    reached = reach(operator, observed)
    solved = reached & ~observed
    inner, outer = _split(operator.astype(np.float64), solved.numpy(), observed.numpy())
    tasks = column_blocks(features.shape[1], int(solved.sum()))
    values = torch.where(observed[:, None], features, 0.0)
    most, worst = 0, 0.0
    blocks = engine.map(_limit, (inner, outer, features.numpy(), tolerance), tasks, "equilibrium")
    for (start, stop), (block, iterations, residual) in zip(tasks, blocks):
        values[solved, start:stop] = torch.from_numpy(block)
        most, worst = max(most, iterations), max(worst, residual)
    return values, reached, {"iterations": most, "residual": worst}


def reach(operator: sparse.spmatrix, observed: Tensor, layers: int | None = None) -> Tensor:
    """Bool ``(n,)``: who is observed or receives from someone who is, in at most ``layers`` steps.

    Args:
        operator: non-negative, row = receiving item.
        layers: None for any number of steps.
    """
    weights = operator.tocsr()
    links = (weights.data > 0).astype(np.float32)
    pattern = sparse.csr_matrix((links, weights.indices, weights.indptr), shape=weights.shape)
    known = observed.numpy()
    reached, size, step = known, -1, 0
    while reached.sum() > size and (layers is None or step < layers):
        size, step = reached.sum(), step + 1
        reached = known | (pattern @ reached.astype(np.float32) > 0)
    return torch.from_numpy(reached.copy())


def fixed_point(
    matrix: sparse.csr_matrix, right: Any, tolerance: float, most: int = 2000
) -> tuple[Any, int, float]:
    """Solve x = G x + b for all columns of b at once with BiCGSTAB.

    A column whose recurrence breaks down starts anew from its residual; the residual is computed
    anew before the result is trusted.

    Source: van der Vorst, "Bi-CGSTAB: A Fast and Smoothly Converging Variant of Bi-CG for the
    Solution of Nonsymmetric Linear Systems", SIAM J. Sci. Stat. Comput. 13(2), 1992.

    Args:
        matrix: G, shape ``(n, n)``, non-negative, spectral radius below 1.
        right: b, float64, shape ``(n, width)``.
        tolerance: of |G x + b - x| / |b|, column by column.
        most: iterations (two products with G each) before giving up.

    Returns:
        x, the number of iterations and the largest relative residual.
    """
    scale = np.where(_norms(right) > 0, _norms(right), 1.0)
    x, residual = right.copy(), matrix @ right
    trusted, iteration = True, 0
    while True:
        if not trusted:
            residual = matrix @ x + right - x
        open_ = _norms(residual) > tolerance * scale
        if iteration >= most or not open_.any():
            return x, iteration, float((_norms(residual) / scale).max(initial=0.0))
        iteration += _bicgstab(matrix, x, residual, tolerance * scale, most - iteration)
        trusted = False


def _bicgstab(matrix: sparse.csr_matrix, x: Any, residual: Any, bound: Any, most: int) -> int:
    """Improve x in place until its recurrence says that all columns are within ``bound``."""
    shadow, direction = residual.copy(), residual.copy()
    rho = _dots(residual, residual)
    for iteration in range(1, most + 1):
        v = direction - matrix @ direction
        running = _norms(residual) > bound
        alpha = _ratio(rho, _dots(shadow, v)) * running
        half = residual - alpha * v
        t = half - matrix @ half
        omega = _ratio(_dots(t, half), _dots(t, t)) * running
        x += alpha * direction + omega * half
        residual = half - omega * t
        size = _norms(residual)
        if not (size > bound).any():
            return iteration
        previous, rho = rho, _dots(shadow, residual)
        lost = np.abs(rho) <= 1e-10 * _norms(shadow) * size
        beta = np.where(lost, 0.0, _ratio(rho * alpha, previous * omega))
        direction = residual + beta * (direction - omega * v)
        shadow[:, lost] = residual[:, lost]
        rho = np.where(lost, size**2, rho)
    return most


def _split(
    operator: sparse.spmatrix, rows: Any, known: Any
) -> tuple[sparse.csr_matrix, sparse.csr_matrix]:
    """Return O_MM and O_MK: what ``rows`` receive from each other, and from ``known``.

    ``rows`` and ``known`` are bool ``(n,)``. O_MK keeps a column for every item.
    """
    received = operator.tocsr()[rows.nonzero()[0]]
    outer = received.copy()
    outer.data = np.where(known[outer.indices], outer.data, 0)
    outer.eliminate_zeros()
    return received[:, rows.nonzero()[0]], outer


def _steps(
    inner: sparse.csr_matrix,
    outer: sparse.csr_matrix,
    features: Any,
    layers: int,
    task: tuple[int, int],
) -> Any:
    start, stop = task
    constant = outer @ np.ascontiguousarray(features[:, start:stop], dtype=outer.dtype)
    x = constant
    for _ in range(layers - 1):
        x = inner @ x
        x += constant
    return x.astype(np.float32, copy=False)


def _limit(
    inner: sparse.csr_matrix,
    outer: sparse.csr_matrix,
    features: Any,
    tolerance: float,
    task: tuple[int, int],
) -> tuple[Any, int, float]:
    start, stop = task
    constant = outer @ np.ascontiguousarray(features[:, start:stop], dtype=outer.dtype)
    x, iterations, residual = fixed_point(inner, constant, tolerance)
    return x.astype(np.float32), iterations, residual


def _dots(left: Any, right: Any) -> Any:
    return np.einsum("ij,ij->j", left, right)


def _norms(columns: Any) -> Any:
    return np.sqrt(_dots(columns, columns))


def _ratio(numerator: Any, denominator: Any) -> Any:
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator != 0)
