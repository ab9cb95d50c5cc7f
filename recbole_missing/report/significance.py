"""Paired tests of the difference between two rows of a table.

Pairs are users (from the metrics of every user that runs kept) or repetitions (seeds). P-values are
corrected by Holm's method (Scandinavian Journal of Statistics 1979) over all comparisons of one
table.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from recbole_missing.benchmark.line import Line
from recbole_missing.benchmark.plan import REPETITIONS
from recbole_missing.evaluation.users import read_metrics
from recbole_missing.report.results import text

_FEWEST_FOR_RANKS = 6  # with fewer pairs, Wilcoxon's smallest two-sided p-value is over 0.05
_MOST_FOR_EXACT = 50  # with more pairs, the normal approximation is close
_DIGITS = 12  # differences are compared after rounding, so that equal ones tie

Repetition = tuple[str, ...]


@dataclass(frozen=True)
class Comparison:
    """Comparison of the chosen row with another one.

    Args:
        other: label of the other row.
        runs: number of repetitions that both rows have.
        n: number of pairs.
        difference: mean of the chosen row minus the other.
        low, high: 95 % interval of the difference, by the t-test.
        wilcoxon, t_test: two-sided p-values.
        note: reason why a value is None.
        wilcoxon_holm, t_test_holm: p-values corrected by Holm's method.
    """

    other: str
    runs: int = 0
    n: int = 0
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    wilcoxon: float | None = None
    t_test: float | None = None
    note: str = ""
    wilcoxon_holm: float | None = None
    t_test_holm: float | None = None


def holm(values: Sequence[float | None]) -> list[float | None]:
    """Correct p-values by Holm's step-down method; None stays None and is not counted."""
    given = sorted((p, i) for i, p in enumerate(values) if p is not None)
    corrected: list[float | None] = [None] * len(values)
    highest = 0.0
    for rank, (p, i) in enumerate(given):
        highest = max(highest, min(1.0, (len(given) - rank) * p))
        corrected[i] = highest
    return corrected


def paired(other: str, first: NDArray[Any], second: NDArray[Any], runs: int) -> Comparison:
    """Compare two rows by pairs of values ``(n,)``: paired t-test, Wilcoxon's signed-rank test."""
    n, difference = len(first), np.round(np.asarray(first) - np.asarray(second), _DIGITS)
    found = Comparison(other, runs, n, float(difference.mean()) if n else None)
    if n < 2:
        return replace(found, note="n too small")
    if (difference == difference[0]).all():
        same = "no difference in any pair" if difference[0] == 0 else "the same in every pair"
        return replace(found, note=same)
    test = stats.ttest_1samp(difference, 0.0)
    interval = test.confidence_interval(0.95)
    found = replace(
        found, low=float(interval.low), high=float(interval.high), t_test=float(test.pvalue)
    )
    moved = difference[difference != 0]
    if len(moved) < _FEWEST_FOR_RANKS:
        return replace(found, note="n too small for Wilcoxon")
    return replace(found, wilcoxon=_wilcoxon(moved))


def _wilcoxon(difference: NDArray[Any]) -> float:
    """Two-sided p-value of non-zero differences; exact if they are few and have no ties."""
    tied = len(np.unique(np.abs(difference))) < len(difference)
    exact = len(difference) <= _MOST_FOR_EXACT and not tied
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sample size too small", UserWarning)
        result = stats.wilcoxon(difference, method="exact" if exact else "approx")
    return float(result.pvalue)


def over_users(
    rows: Mapping[str, Sequence[Line]], method: str, metric: str, folders: Sequence[Path]
) -> list[Comparison]:
    """Compare a row with every other row over users.

    The values of a user are averaged over the repetitions that both rows have.

    Args:
        rows: label -> its runs.
        method: label of the chosen row.
        metric: name of a column of the files.
        folders: folders that the paths in ``kept`` are relative to.

    Returns:
        One comparison for each other row, in the order of ``rows``.
    """
    found: dict[str, dict[Repetition, pd.Series] | str] = {}
    for label, runs in rows.items():
        try:
            found[label] = {_repetition(run): _users(run, metric, folders) for run in runs}
        except FileNotFoundError as error:
            found[label] = str(error)
    chosen = found.pop(method)
    return _corrected([_by_user(other, chosen, values) for other, values in found.items()])


def over_seeds(rows: Mapping[str, Sequence[Line]], method: str, metric: str) -> list[Comparison]:
    """Compare a row with every other row over the repetitions that both have."""
    values = {
        label: {
            _repetition(run): run.test[metric]
            for run in runs
            if run.test and run.test.get(metric) is not None
        }
        for label, runs in rows.items()
    }
    chosen = values.pop(method)
    found = []
    for other, theirs in values.items():
        common = sorted(chosen.keys() & theirs.keys())
        first, second = (np.array([side[key] for key in common]) for side in (chosen, theirs))
        found.append(paired(other, first, second, len(common)))
    return _corrected(found)


def _by_user(
    other: str,
    chosen: dict[Repetition, pd.Series] | str,
    theirs: dict[Repetition, pd.Series] | str,
) -> Comparison:
    if isinstance(chosen, str) or isinstance(theirs, str):
        reasons = [side for side in (chosen, theirs) if isinstance(side, str)]
        return Comparison(other, note="; ".join(dict.fromkeys(reasons)))
    common = sorted(chosen.keys() & theirs.keys())
    if not common:
        return Comparison(other, note="no seed in common")
    first, second = (_mean([side[key] for key in common]) for side in (chosen, theirs))
    users = first.index.intersection(second.index)
    result = paired(other, first[users].to_numpy(), second[users].to_numpy(), len(common))
    alone = len(first.index.union(second.index)) - len(users)
    notes = [result.note, f"{alone:,} users left out: not in every file" if alone else ""]
    return replace(result, note="; ".join(note for note in notes if note))


def _mean(series: Sequence[pd.Series]) -> pd.Series:
    """Mean over repetitions, for the users that all repetitions have, sorted by token."""
    users = reduce(lambda known, more: known.intersection(more), [s.index for s in series])
    users = users.sort_values()
    return sum(s[users] for s in series) / len(series)


def _users(run: Line, metric: str, folders: Sequence[Path]) -> pd.Series:
    """User token -> value, read from the file that a run kept."""
    kept = (run.kept or {}).get("users")
    if not kept:
        raise FileNotFoundError("no file of users kept")
    path = next((folder / kept for folder in folders if (folder / kept).is_file()), None)
    if path is None:
        raise FileNotFoundError(f"file absent: {kept}")
    values = read_metrics(path)
    if metric not in values:
        raise FileNotFoundError(f"no {metric} in the file: {kept}")
    return pd.Series(values[metric], dtype=float)


def _repetition(run: Line) -> Repetition:
    return tuple(text(run.point.get(axis)) for axis in REPETITIONS)


def _corrected(comparisons: Sequence[Comparison]) -> list[Comparison]:
    wilcoxon = holm([c.wilcoxon for c in comparisons])
    t_test = holm([c.t_test for c in comparisons])
    return [
        replace(c, wilcoxon_holm=w, t_test_holm=t) for c, w, t in zip(comparisons, wilcoxon, t_test)
    ]
