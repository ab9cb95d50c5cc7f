"""Imputers that spread features by a diffusion: personalised PageRank and the heat kernel.

Source: Malitesta et al., "Training-free Graph-based Imputation of Missing Modalities in Multimodal
Recommendation", arXiv 2602.17354. Facts about the released numbers:
danielemalitesta/Graph-Missing-Modalities-TKDE, impute.py, commit c29f97f.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from scipy import sparse, special
from torch import Tensor

from recbole_missing.config.constraints import Float, Int
from recbole_missing.imputation.propagation import GraphImputer, fixed_point, reach
from recbole_missing.parallel import column_blocks

_ENTRY_ERROR = 1e-10
"""Bound of the error of an entry of S (all are between 0 and 1), before it is cut."""

_TIE_BITS = 33
"""Entries are compared on a grid of 2^-33, just above that error; smaller ones count as zero."""

_VALUE_ERROR = 1e-7
"""Bound of the error of an untruncated product S x, relative to the norm of a column of x."""


# The truncated diffusions, in the order of the computation (k = top_k, L = layers, K = items that
# have the modality, A the binary item graph):
#
#   H = (A + I) / (k + 1)                                     -> Diffusion.operator
#   S = alpha (I - (1 - alpha) H)^-1                          -> page_rank (PersPageRank)
#   S = exp(-t (I - H))                                       -> heat (Heat)
#   O = S, of each column the k largest entries, divided by their sum  -> _truncated
#   L times:  X <- O X,  X[K] <- features[K]                  -> propagation.propagate
#
# A column of S is what one item sends. The untruncated diffusions take H = D^-1 (A + I) with the
# row sums D of A + I, and S in place of O.


class Diffusion(GraphImputer):
    """What a diffusion S of the item graph brings, cut to its largest entries.

    H has the same degree k + 1 for all items, also where a row is shorter. Equal entries of a
    column of S are kept by smaller item id. Everything is float64. S is dense, so it only exists as
    blocks of columns, which are cut at once; O has at most ``n_items * top_k`` entries. Entries of
    S are known to an error below 1e-10, and those that differ by less than 2^-33 count as equal.
    The time to find O grows with the square of the number of items; for large catalogues there are
    the untruncated variants.

    An item that lacks the modality may be in nobody's list of kept entries. Then nothing reaches
    it. The release leaves it zero (``fallback: zeros``).
    """

    hyperparameters: ClassVar[Mapping[str, Any]] = {
        "layers": Int(min=1),
        **GraphImputer.hyperparameters,
    }
    layers: int

    def kernel(self) -> tuple[Callable[..., Any], float]:
        """Return the function that applies S and its parameter."""
        raise NotImplementedError

    def operator(self, adjacency: sparse.spmatrix) -> sparse.csr_matrix:
        """Turn the binary item graph into the truncated diffusion O."""
        walk = _looped(adjacency) / (self.top_k + 1)
        n_items = walk.shape[0]
        tasks = column_blocks(n_items, n_items)
        shared = (walk, *self.kernel(), self.top_k)
        blocks = list(self.engine.map(_truncated, shared, tasks, "diffusion"))
        error = max(error for _, error in blocks)
        if error > _ENTRY_ERROR:
            raise ValueError(
                f"{type(self).__name__}: the diffusion must be found to an error of "
                f"{_ENTRY_ERROR:g}, got {error:.3g}; shorten its reach (larger alpha)."
            )
        return sparse.hstack([block for block, _ in blocks], format="csr")


class PersPageRank(Diffusion):
    """PageRank-weighted sums of known rows; each row of weights keeps ``imputation_top_k`` entries.

    Paper: Malitesta, Rossi, Pomo, Di Noia and Malliaros, "Training-free Graph-based Imputation of
        Missing Modalities in Multimodal Recommendation", arXiv 2026,
        https://arxiv.org/abs/2602.17354

    S = alpha (I - (1 - alpha) H)^-1; H, the truncation and the steps are those of
    :class:`Diffusion`.

    Args:
        layers: number of steps.
        top_k: entries a row of the item graph and a column of S keep.
        alpha: probability of a restart.
        graph, guide, max_user_items, fallback: as in :class:`~.propagation.GraphImputer`.
    """

    hyperparameters = {**Diffusion.hyperparameters, "alpha": Float(min=0.001, max=1)}
    alpha: float

    def kernel(self) -> tuple[Callable[..., Any], float]:
        """Personalised PageRank."""
        return page_rank, self.alpha


class Heat(Diffusion):
    """Heat-kernel-weighted sums of known rows; each row of weights keeps ``imputation_top_k``.

    Paper: Malitesta, Rossi, Pomo, Di Noia and Malliaros, "Training-free Graph-based Imputation of
        Missing Modalities in Multimodal Recommendation", arXiv 2026,
        https://arxiv.org/abs/2602.17354

    S = exp(-t (I - H)); H, the truncation and the steps are those of :class:`Diffusion`.

    Args:
        layers: number of steps.
        top_k: entries a row of the item graph and a column of S keep.
        time: t.
        graph, guide, max_user_items, fallback: as in :class:`~.propagation.GraphImputer`.
    """

    hyperparameters = {**Diffusion.hyperparameters, "time": Float(min=0, max=1000)}
    time: float

    def kernel(self) -> tuple[Callable[..., Any], float]:
        """Heat kernel."""
        return heat, self.time


class Untruncated(Diffusion):
    """The whole diffusion S, with H = D^-1 (A + I) and D the row sums of A + I.

    ``layers`` times x <- S x, observed rows reset. S never exists: S x is a few dozen products of H
    with blocks of feature columns, so the cost is linear in the number of items. An item that leads
    to no observed item, over any number of edges, gets the fallback.
    """

    def operator(self, adjacency: sparse.spmatrix) -> sparse.csr_matrix:
        """Turn the binary item graph into H, whose rows sum to 1."""
        looped = _looped(adjacency)
        return (sparse.diags(1 / np.asarray(looped.sum(axis=1)).ravel()) @ looped).tocsr()

    def complete(
        self, table: Any, operator: sparse.csr_matrix
    ) -> tuple[Tensor, Tensor, Mapping[str, float]]:
        """Diffuse; the report gains the ``error`` bound, relative to the norm of a column."""
        features, observed = table.features, table.observed
        tasks = column_blocks(features.shape[1], len(features))
        sources, missing = (observed & self.donors_).numpy(), (~observed).numpy()
        shared = (operator, *self.kernel(), features.numpy(), sources, missing, self.layers)
        values, worst = features.clone(), 0.0
        blocks = self.engine.map(_diffused, shared, tasks, "diffusion")
        for (start, stop), (block, error) in zip(tasks, blocks):
            values[~observed, start:stop] = torch.from_numpy(block)
            worst = max(worst, error)
        return values, reach(operator, observed), {"error": worst}


class PersPageRankUntruncated(Untruncated, PersPageRank):
    """PageRank-weighted sums of known rows, with all weights.

    One layer gives the fixed point of x <- (1 - alpha) H x + alpha x_0, with missing rows of x_0
    zero; see :class:`Untruncated`. This is another method than ``pers_page_rank``: on Amazon Baby
    the rows of both have a mean cosine of 0.58, 0.44 and 0.14 with 10, 50 and 90 % missing.

    Args:
        layers, alpha, graph, guide, max_user_items, fallback: as in :class:`PersPageRank`.
        top_k: entries a row of the item graph keeps.
    """

    hyperparameters = {**PersPageRank.hyperparameters, "alpha": Float(min=0.001, max=0.999)}


class HeatUntruncated(Untruncated, Heat):
    """Heat-kernel-weighted sums of known rows, with all weights.

    One layer gives exp(-t (I - H)) x_0, with missing rows of x_0 zero; see :class:`Untruncated`.

    Args:
        layers, time, graph, guide, max_user_items, fallback: as in :class:`Heat`.
        top_k: entries a row of the item graph keeps.
    """

    hyperparameters = {**Heat.hyperparameters, "time": Float(min=0.001, max=1000)}


def page_rank(walk: sparse.csr_matrix, x: Any, alpha: float, tolerance: float) -> tuple[Any, float]:
    """Apply alpha (I - (1 - alpha) H)^-1 to columns, by a Krylov method.

    Returns:
        The product and a bound of its error, relative to the norm of a column of ``x``. Rows of H
        sum to at most 1, so that |error| <= |residual| / alpha in the maximum norm.
    """
    values, _, residual = fixed_point((1 - alpha) * walk, alpha * x, tolerance)
    return values, residual


def heat(walk: sparse.csr_matrix, x: Any, time: float, tolerance: float) -> tuple[Any, float]:
    """Apply exp(-t (I - H)) to columns, by its series: the mean of H^N x, N Poisson with mean t.

    Returns:
        The product and a bound of its error, relative to the norm of a column of ``x``: the
        probability of the terms left out, as rows of H sum to at most 1.
    """
    n_terms = 0
    while special.pdtrc(n_terms, time) > tolerance:
        n_terms += 1
    orders = np.arange(n_terms + 1)
    weights = np.exp(special.xlogy(orders, time) - time - special.gammaln(orders + 1))
    values = weights[0] * x
    for weight in weights[1:]:
        x = walk @ x
        values += weight * x
    return values, float(special.pdtrc(n_terms, time))


def _looped(adjacency: sparse.spmatrix) -> sparse.csr_matrix:
    binary = (adjacency.tocsr() != 0).astype(np.float64)
    return (binary + sparse.eye(binary.shape[0], format="csr")).tocsr()


def _truncated(
    walk: sparse.csr_matrix,
    kernel: Callable[..., Any],
    parameter: float,
    top_k: int,
    task: tuple[int, int],
) -> tuple[sparse.csc_matrix, float]:
    """Columns ``task`` of the diffusion, each cut to its ``top_k`` largest entries, sum 1."""
    start, stop = task
    sources = np.zeros((walk.shape[0], stop - start))
    sources[np.arange(start, stop), np.arange(stop - start)] = 1.0
    columns, error = kernel(walk, sources, parameter, _ENTRY_ERROR)
    n_items, width = columns.shape
    kept = min(top_k, n_items)
    # One integer holds value and item, so that no two compare as equal.
    columns = np.ascontiguousarray(columns.T)
    keys = np.rint(columns * 2.0**_TIE_BITS).astype(np.int64)
    ranked = keys * n_items + np.arange(n_items - 1, -1, -1)
    rows = np.argpartition(ranked, n_items - kept, axis=1)[:, n_items - kept :]
    values = np.take_along_axis(columns, rows, axis=1)
    values[np.take_along_axis(keys, rows, axis=1) <= 0] = 0.0
    values /= values.sum(axis=1, keepdims=True)  # the source's own entry is positive
    pairs = (rows.ravel(), np.repeat(np.arange(width), kept))
    block = sparse.csc_matrix((values.ravel(), pairs), shape=(n_items, width))
    block.eliminate_zeros()
    return block, error


def _diffused(
    walk: sparse.csr_matrix,
    kernel: Callable[..., Any],
    parameter: float,
    features: Any,
    sources: Any,
    missing: Any,
    layers: int,
    task: tuple[int, int],
) -> tuple[Any, float]:
    start, stop = task
    x = np.where(sources[:, None], features[:, start:stop], 0).astype(np.float64)
    known, worst = x[sources], 0.0
    for _ in range(layers):
        x, error = kernel(walk, x, parameter, _VALUE_ERROR)
        worst = max(worst, error)
        x[sources] = known
    return x[missing].astype(np.float32), worst
