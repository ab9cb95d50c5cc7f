"""Sizes, long tails, and who lacks what."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timezone
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from recbole_missing.data.scale import typical_norm
from recbole_missing.describe.arrays import Arrays
from recbole_missing.describe.description import Data, Holes, Missing, Tail
from recbole_missing.graph.knn import Cosines
from recbole_missing.imputation.base import Table

N_GROUPS = 5
"""Groups of items by popularity."""

FEW = 5
"""Items and users with fewer interactions are counted."""

TOP = (1, 5, 20)
"""Percentages of the most active items and users."""

_MILLISECONDS = 1e11  # seconds since 1970 reach this in the year 5138


def data(arrays: Arrays, mask: str) -> Data:
    """Section 1: sizes and long tails."""
    n_users, n_items = arrays.train.shape
    user_counts = np.asarray(arrays.train.sum(axis=1)).ravel().astype(np.int64)
    total = sum(arrays.rows.values())
    return Data(
        n_users,
        n_items,
        arrays.rows,
        100 * total / (n_users * n_items),
        _period(arrays.times),
        int(arrays.new.sum()),
        tail(arrays.counts),
        tail(user_counts),
        mask,
    )


def tail(counts: NDArray[Any]) -> Tail:
    """How unequal counts are.

    With the counts c_1 <= ... <= c_n and their sum C the Gini coefficient is
    ``sum (2 i - n - 1) c_i / (n C)``, and 0 if C is 0. A top share takes the part of a count that
    the percentage cuts through.

    Args:
        counts: ``(n,)``, at least one.
    """
    rising = np.sort(counts).astype(np.float64)
    n, total = len(rising), rising.sum()
    ranks = 2 * np.arange(1, n + 1) - n - 1
    reached = np.concatenate([[0], np.cumsum(rising[::-1])]) / max(total, 1)
    shares = np.interp(np.linspace(0, n, 101), np.arange(n + 1), reached)
    return Tail(
        n,
        {f"{percent}": float(shares[percent]) for percent in TOP},
        float(np.median(rising)),
        float(ranks @ rising / (n * total)) if total else 0.0,
        int((counts < FEW).sum()),
        int((counts == 0).sum()),
        shares.tolist(),
    )


def missing(arrays: Arrays) -> Missing:
    """Section 2: holes by nature and by the mask, by popularity, and their overlaps."""
    counts = arrays.counts
    groups = [g for g in np.array_split(np.argsort(counts, kind="stable"), N_GROUPS) if len(g)]
    holes = {
        name: _holes(table, arrays.present[name], groups) for name, table in arrays.tables.items()
    }
    return Missing(
        holes,
        [(int(counts[group].min()), int(counts[group].max())) for group in groups],
        [len(group) for group in groups],
        _overlaps(arrays.tables),
    )


def _holes(table: Table, present: torch.Tensor, groups: list[NDArray[Any]]) -> Holes:
    observed = table.observed
    rows = table.features[observed]
    lacking, hidden = (~observed).numpy(), (present & ~observed).numpy()
    return Holes(
        rows.shape[1],
        int(observed.sum()),
        int((~present).sum()),
        int(hidden.sum()),
        typical_norm(table.features, observed),
        int((~rows.any(dim=1)).sum()),
        len(rows) - len(Cosines(rows).distinct),
        [float(lacking[group].mean()) for group in groups],
        [float(hidden[group].mean()) for group in groups],
    )


def _overlaps(tables: dict[str, Table]) -> dict[str, int]:
    if not tables:
        return {}
    has = torch.stack([table.observed for table in tables.values()], dim=1).tolist()
    found = Counter(" + ".join(n for n, own in zip(tables, row) if own) or "none" for row in has)
    return dict(sorted(found.items(), key=lambda pair: (-pair[1], pair[0])))


def _period(times: tuple[float, float] | None) -> tuple[str, str] | None:
    """First and last day; None if the numbers are no times since 1970, such as places in a list."""
    if times is None:
        return None
    unit = 1e3 if times[1] > _MILLISECONDS else 1
    first, last = (moment / unit for moment in times)
    if not 1e8 < last < 1e10 or first < 0:
        return None
    days = [
        datetime.fromtimestamp(moment, timezone.utc).date().isoformat() for moment in (first, last)
    ]
    return days[0], days[1]
