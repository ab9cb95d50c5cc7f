"""Means with standard errors, and the area under the ROC curve."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from recbole_missing.describe.description import Estimate

Array = NDArray[Any]


def mean(values: Array, *clusters: Array, weights: Array | None = None) -> Estimate:
    """Mean of values, with a standard error for values that come in clusters.

    Values of one user resemble each other, and so do values of one item. With the residuals
    ``e_k``, weights ``w_k`` and one clustering, the variance of the mean is

    V = sum over the G clusters g of (sum of w_k e_k in g)^2 / (sum of w_k)^2 * G / (G - 1)

    With two clusterings it is V_1 + V_2 - V_12, where 12 are the pairs of both. If that is smaller
    than V_1 or V_2, which happens in small samples, the larger of these two is taken.

    Source: Cameron, Gelbach and Miller, "Robust Inference With Multiway Clustering", Journal of
    Business & Economic Statistics 2011.

    Args:
        values: ``(n,)``, at least one.
        clusters: none, one or two arrays ``(n,)`` of non-negative integers. Without any, the
            values are independent.
        weights: positive, ``(n,)``; default: all alike.
    """
    values = np.asarray(values, dtype=np.float64)
    weights = np.ones(len(values)) if weights is None else weights
    weights = weights / weights.sum()
    centre = float(weights @ values)
    rest = weights * (values - centre)
    groupings = list(clusters) or [np.arange(len(values))]
    if len(values) < 2 or any(np.ptp(grouping) == 0 for grouping in groupings):
        return Estimate(centre, None, len(values))
    parts = [_variance(rest, grouping) for grouping in groupings]
    if len(groupings) == 1:
        return Estimate(centre, float(np.sqrt(parts[0])), len(values))
    first, second = (np.asarray(grouping, dtype=np.int64) for grouping in groupings)
    both = _variance(rest, first * (int(second.max()) + 1) + second)
    return Estimate(centre, float(np.sqrt(max(sum(parts) - both, *parts))), len(values))


def mean_of_pairs(values: Array, pairs: Array) -> Estimate:
    """Mean of values of pairs of items, with a standard error.

    Values resemble each other if their pairs share an item, at whichever end. With the residuals
    ``e_k`` of n pairs, the variance of the mean is

    V = (sum over the G items i of (sum of e_k of the pairs with i)^2 * G / (G - 1)
    - sum over the distinct pairs p of (sum of e_k of p)^2) / n^2

    The second sum takes off what the first one counts at both ends. If V is smaller than the second
    sum, which happens in small samples, that is taken.

    Source: Aronow, Samii and Assenova, "Cluster-Robust Variance Estimation for Dyadic Data",
    Political Analysis 2015.

    Args:
        values: ``(n,)``, at least one.
        pairs: ``(n, 2)``, non-negative integers; the order of the two does not matter.
    """
    values, n = np.asarray(values, dtype=np.float64), len(values)
    centre = float(values.mean())
    if n < 2:
        return Estimate(centre, None, n)
    rest = (values - centre) / n
    items, end = np.unique(pairs, return_inverse=True)
    end = np.sort(end.reshape(n, 2), axis=1)
    sums = np.bincount(end[:, 0], rest, len(items)) + np.bincount(end[:, 1], rest, len(items))
    both = end[:, 0] * len(items) + end[:, 1]
    distinct, place = np.unique(both, return_inverse=True)
    if len(distinct) < 2:
        return Estimate(centre, None, n)
    twice = float(np.square(np.bincount(place.ravel(), rest)).sum())
    variance = float(np.square(sums).sum()) * len(items) / (len(items) - 1) - twice
    return Estimate(centre, float(np.sqrt(max(variance, twice))), n)


def auc(positive: Array, negative: Array, of_positive: Array, of_negative: Array) -> Estimate:
    """Probability that a positive value is larger than a negative one, ties as one half.

    The standard error adds the variances of the placements on both sides.

    Source: DeLong, DeLong and Clarke-Pearson, "Comparing the Areas under Two or More Correlated
    Receiver Operating Characteristic Curves", Biometrics 1988.

    Args:
        positive, negative: ``(n,)`` and ``(m,)``, at least one each.
        of_positive, of_negative: the pairs of items behind both, ``(n, 2)`` and ``(m, 2)``, see
            :func:`mean_of_pairs`.
    """
    above = mean_of_pairs(_placements(positive, negative), of_positive)
    below = mean_of_pairs(_placements(negative, positive), of_negative)
    if above.error is None or below.error is None:
        return Estimate(above.value, None, above.n)
    return Estimate(above.value, float(np.hypot(above.error, below.error)), above.n)


def _placements(values: Array, others: Array) -> Array:
    """For each value the share of the others that are smaller, equal ones as one half."""
    ordered = np.sort(others)
    low = np.searchsorted(ordered, values, side="left")
    high = np.searchsorted(ordered, values, side="right")
    return (low + high) / (2 * len(others))


def _variance(rest: Array, cluster: Array) -> float:
    kinds, group = np.unique(cluster, return_inverse=True)
    sums = np.bincount(group.ravel(), rest)
    return float(np.square(sums).sum() * len(kinds) / max(len(kinds) - 1, 1))
