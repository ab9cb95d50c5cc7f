"""Imputers that carry features along an item graph; they differ by one filter.

Source: Malitesta et al., "Dealing with Missing Modalities in Multimodal Recommendation: a Feature
Propagation-based Approach", arXiv 2403.19841; extended in arXiv 2408.11767 and 2602.17354.
Facts about the released numbers: danielemalitesta/Graph-Missing-Modalities-TKDE, impute.py,
commit c29f97f. Where the release fills rows of the graph that are too short with arbitrary items
of zero co-interactions, and breaks ties as torch.topk happens to, this graph has no fillers and a
stated tie rule (:func:`recbole_missing.graph.co_interaction`).
"""

from __future__ import annotations

from collections.abc import Mapping
from logging import getLogger
from typing import Any, ClassVar

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from recbole_missing.config import constraints as setting
from recbole_missing.config.constraints import Choice, Either, Float, Int, Optional, Text
from recbole_missing.imputation.base import Filled, Imputer
from recbole_missing.imputation.graphs import (
    GRAPHS,
    column_blocks,
    edge_graph,
    interaction_graph,
    inverse_root,
    nearest_graph,
    without_loops,
)
from recbole_missing.parallel import Serial

_SERIAL = Serial()


class GraphImputer(Imputer):
    """What reaches missing rows along an item graph; subclasses say how.

    Args:
        top_k: entries a row of the item graph keeps.
        graph: ``co_interaction``: the items that the same users interacted with, strongest first,
            the item itself among them; ``edges``: the matrix given to :meth:`fit`, each row's
            heaviest edges, weights then discarded; ``knn``: items that are near by the modality
            ``guide``, cosine, among the items that truly have it.
        guide: for ``knn``, the name of a modality. Missing rows of the guide itself have no
            neighbours and get the fallback.
        max_user_items: users with more items than that are left out of the co-interaction graph,
            whose cost grows with the square of a user's items; None: nobody is.
        fallback: what an item gets that no observed item reaches (it has no neighbours, or only
            unobserved company): ``mean`` of the observed rows, or ``zeros`` as in the release.

    Attributes:
        graph_: the binary item graph, ``(n_items, n_items)``; for ``knn`` after :meth:`transform`.
        operator_: what a step multiplies with, same shape, row = receiving item.

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

    def __init__(
        self,
        top_k: int = 20,
        fallback: str = "mean",
        graph: str = "co_interaction",
        guide: str | None = None,
        max_user_items: int | None = None,
    ) -> None:
        """Store the settings."""
        self.top_k = top_k
        self.fallback = fallback
        self.graph = graph
        self.guide = guide
        self.max_user_items = max_user_items

    def fit(
        self,
        interactions: sparse.spmatrix,
        donors: Tensor | None = None,
        edges: sparse.spmatrix | None = None,
    ) -> GraphImputer:
        """Build the item graph and the operator; for ``knn`` they wait for the guide.

        Raises:
            ValueError: for a setting outside its constraint, or ``edges`` that are absent, negative
                or of another shape.
        """
        super().fit(interactions, donors, edges)
        setting.check(type(self).__name__, self.get_params(), self.hyperparameters)
        if self.graph == "co_interaction":
            self.graph_ = interaction_graph(
                interactions, self.donors_, self.top_k, self.max_user_items, self.engine
            )
        elif self.graph == "edges":
            self.graph_ = edge_graph(edges, self.donors_, self.top_k)
        if self.graph != "knn":
            self.operator_ = self.operator(self.graph_)
        return self

    def operator(self, adjacency: sparse.spmatrix) -> sparse.csr_matrix:
        """Turn a binary item graph, row = receiving item, into what a step multiplies with."""
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


class FeatProp(GraphImputer):
    """What travels ``imputation_layers`` steps along the item graph, or its limit (``converge``).

    Paper: Malitesta, Rossi, Pomo, Malliaros and Di Noia, "Dealing with Missing Modalities in
        Multimodal Recommendation: a Feature Propagation-based Approach", arXiv 2024,
        https://arxiv.org/abs/2403.19841

    Each step is x <- P x, observed rows reset. P_ij = B_ij / sqrt(d_i d_j), where B holds each
    item's ``top_k`` strongest neighbours (itself counted among them, then dropped; weights
    discarded) and d are B's row sums. So an item with an empty row sends nothing, which concerns
    only a user's graph (it is logged): give such edges in both directions.

    With ``converge``, the missing items M that a known one can reach are solved for, x_M = P_MM x_M
    + P_MK x_K, instead of being iterated. P is similar to D^-1 B, whose rows sum to 1, and each of
    these items leads to a known one, so the solution exists and is unique. The report gains the
    number of ``iterations`` and the ``residual``, the largest over blocks of features.

    Args:
        layers: number of propagation steps L, or ``converge``.
        top_k, graph, guide, fallback: as in :class:`GraphImputer`; reached means within ``layers``
            steps.
        tolerance: for ``converge``, |P_MM x + b - x| / |b| of every feature column; the error of x
            can be larger where known items are many steps away.
    """

    hyperparameters = {
        "layers": Either(Int(min=1), Choice("converge")),
        "tolerance": Float(min=1e-10, max=0.1),
        **GraphImputer.hyperparameters,
    }

    def __init__(
        self,
        layers: int | str = 3,
        top_k: int = 20,
        fallback: str = "mean",
        graph: str = "co_interaction",
        guide: str | None = None,
        max_user_items: int | None = None,
        tolerance: float = 1e-6,
    ) -> None:
        """Store the settings."""
        super().__init__(top_k, fallback, graph, guide, max_user_items)
        self.layers = layers
        self.tolerance = tolerance

    def operator(self, adjacency: sparse.spmatrix) -> sparse.csr_matrix:
        """Turn the top-k adjacency into the operator P."""
        others = without_loops(adjacency)
        others.data = np.ones_like(others.data)
        degree = np.asarray(others.sum(axis=1)).ravel()
        silent = int((degree[np.unique(others.indices)] == 0).sum())
        if silent:
            getLogger().warning(
                f"featprop: items in another's row must have a row of their own to send, got "
                f"{silent} without; give edges in both directions."
            )
        factor = sparse.diags(inverse_root(degree))
        return (factor @ others @ factor).tocsr().astype(np.float32)

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


class NeighMean(GraphImputer):
    """The sum over the item's ``imputation_top_k`` strongest neighbours, divided by that number.

    Paper: Malitesta, Rossi, Pomo, Di Noia and Malliaros, "Do We Really Need to Drop Items with
        Missing Modalities in Multimodal Recommendation?", CIKM 2024,
        https://arxiv.org/abs/2408.11767

    The item itself and neighbours that lack the modality enter as zero vectors and the divisor
    stays ``top_k``, also where a row of the graph is shorter, as in the release: the result is
    shrunk.

    Args:
        top_k, graph, guide, fallback: as in :class:`GraphImputer`.
    """

    layers = 1  # by definition

    def operator(self, adjacency: sparse.spmatrix) -> sparse.csr_matrix:
        """Divide the binary adjacency, diagonal included, by ``top_k``."""
        binary = (adjacency.tocsr() != 0).astype(np.float32)
        binary.data /= self.top_k
        return binary


# -------------------------------------------------------------------------------- steps and limit


def propagate(
    features: Tensor,
    observed: Tensor,
    operator: sparse.spmatrix,
    layers: int,
    engine: Any = _SERIAL,
) -> tuple[Tensor, Tensor]:
    """Repeat x <- O x on the missing rows, observed rows held fixed.

    Only missing rows are iterated: what they receive from observed rows is computed once.

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
    engine: Any = _SERIAL,
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

    Van der Vorst, SIAM J. Sci. Stat. Comput. 1992. A column whose recurrence breaks down starts
    anew from its residual; the residual is recomputed before the result is trusted.

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
    """Return what ``rows`` receive from each other, and from ``known`` (columns: all items)."""
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
