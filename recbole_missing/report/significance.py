"""Paired tests of the difference between two rows of a table, and the rows that they mark.

Pairs are users (from the metrics of every user that runs kept) or repetitions (seeds and mask
seeds). P-values are corrected by Holm's method (Scandinavian Journal of Statistics 1979) over all
comparisons of one table or column.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Any, Optional

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from recbole_missing.benchmark.line import Line
from recbole_missing.benchmark.plan import REPETITIONS
from recbole_missing.evaluation.users import read_metrics
from recbole_missing.report.results import ratio_of, text

_FEWEST_FOR_RANKS = 6  # with fewer pairs, Wilcoxon's smallest two-sided p-value is over 0.05
_MOST_FOR_EXACT = 50  # with more pairs, the normal approximation is close
_DIGITS = 12  # differences are compared after rounding, so that equal ones tie
LEVEL = 0.05  # a corrected p-value below it tells two rows apart

Repetition = tuple[str, ...]
Value = Callable[[Line], Optional[float]]
Rows = Mapping[str, Sequence[Line]]  # label -> its runs


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

    @property
    def apart(self) -> bool:
        """Whether the corrected t-test tells the two rows apart."""
        return self.t_test_holm is not None and self.t_test_holm < LEVEL

    @property
    def half(self) -> float | None:
        """Half of the 95 % interval."""
        return None if self.low is None or self.high is None else (self.high - self.low) / 2


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


class UserFiles:
    """Values of single users, from the files that runs kept. A file is read once."""

    def __init__(self, folders: Sequence[Path]) -> None:
        """Remember the folders that the paths in ``kept`` are relative to."""
        self._folders = folders
        self._read: dict[str, pd.DataFrame] = {}

    def values(self, run: Line, metric: str) -> pd.Series:
        """User token -> value of a metric.

        Raises:
            FileNotFoundError: if the run kept no file, it is absent, or it lacks the metric.
        """
        kept = (run.kept or {}).get("users")
        if not kept:
            raise FileNotFoundError("no file of users kept")
        if kept not in self._read:
            path = next((f / kept for f in self._folders if (f / kept).is_file()), None)
            if path is None:
                raise FileNotFoundError(f"file absent: {kept}")
            self._read[kept] = pd.DataFrame(read_metrics(path), dtype=float)
        if metric not in self._read[kept]:
            raise FileNotFoundError(f"no {metric} in the file: {kept}")
        return self._read[kept][metric]

    def interval(self, runs: Sequence[Line], metric: str) -> float | None:
        """Half of the 95 % interval of the mean over users, by the t distribution.

        The values of a user are averaged over the runs, for the users that all runs have. It is
        None if there is no run, a run has no values of users, or there are fewer than two users.
        """
        try:
            found = [self.values(run, metric) for run in runs]
        except FileNotFoundError:
            return None
        values = _mean(found) if found else ()
        n = len(values)
        return float(stats.t.ppf(0.975, n - 1) * stats.sem(values)) if n > 1 else None


@dataclass(frozen=True)
class Marks:
    """The rows of a column that are marked.

    Args:
        rows: whether each row is marked.
        over: pairs of the test: ``users``, ``repetitions``, or empty if nothing could be tested.
        untested: labels of rows that have a mean but could not be tested against the best one.
    """

    rows: tuple[bool, ...]
    over: str = ""
    untested: tuple[str, ...] = ()


def marks(
    rows: Rows,
    value: Value,
    smaller: bool,
    metric: str | None = None,
    files: UserFiles | None = None,
) -> Marks:
    """Mark the row with the best mean, and every row that a test does not tell from it.

    The test is the paired t-test of the best row against each other row at 5 %, with Holm's
    correction over the rows. Pairs are users, or repetitions if no users were kept. Rows that could
    not be tested, and rows with two pairs, of which a test tells next to nothing apart, are not
    marked. If no row is told from the best one, none is marked: the marks would say nothing.

    Args:
        rows: label -> its runs.
        value: the value of a run that the column shows the mean of.
        smaller: whether smaller values are better.
        metric: name of that value in the files of users. None if they do not hold it.
        files: the files of users.
    """
    means = {label: _average(runs, value) for label, runs in rows.items()}
    known = {label: mean for label, mean in means.items() if mean is not None}
    if len(known) < 2:
        return Marks((False,) * len(rows))
    best = (min if smaller else max)(known, key=known.__getitem__)
    tested: dict[str, list[Comparison]] = {}
    if metric is not None and files is not None:
        tested["users"] = over_users(rows, best, metric, files)
    tested["repetitions"] = over_seeds(rows, best, value)
    for over, comparisons in tested.items():
        if any(one.t_test is not None for one in comparisons):
            worse = {one.other for one in comparisons if _told_apart(one, smaller)}
            equal = {one.other for one in comparisons if _tested(one) and one.n > 2} - worse
            rest = tuple(row for row in known if row not in {best, *equal, *worse})
            return Marks(tuple(bool(worse) and row in {best, *equal} for row in rows), over, rest)
    return Marks((False,) * len(rows))


def _average(runs: Sequence[Line], value: Value) -> float | None:
    found = [one for one in map(value, runs) if one is not None]
    return sum(found) / len(found) if found else None


def _tested(one: Comparison) -> bool:
    """Whether two rows were compared. Equal pairs are a result, although they have no p-value."""
    return one.t_test is not None or (one.n > 1 and one.difference == 0)


def _told_apart(one: Comparison, smaller: bool) -> bool:
    """Whether the test says that the best row, from which the other is taken, is better."""
    difference = one.difference or 0.0
    return one.apart and (difference < 0 if smaller else difference > 0)


def over_users(rows: Rows, method: str, metric: str, files: UserFiles) -> list[Comparison]:
    """Compare a row with every other row over users.

    The values of a user are averaged over the repetitions that both rows have.

    Args:
        rows: label -> its runs.
        method: label of the chosen row.
        metric: name of a column of the files.
        files: the files of users.

    Returns:
        One comparison for each other row, in the order of ``rows``.
    """
    values = {label: _users(runs, metric, files, _repetition) for label, runs in rows.items()}
    chosen = values.pop(method)
    return _corrected([_by_user(other, chosen, theirs) for other, theirs in values.items()])


def of_test(metric: str) -> Value:
    """The value of a test metric."""
    return lambda run: (run.test or {}).get(metric)


def over_seeds(rows: Rows, method: str, value: Value) -> list[Comparison]:
    """Compare a value of a row with that of every other row over the repetitions of both."""
    values = {label: repeated(runs, value) for label, runs in rows.items()}
    chosen = values.pop(method)
    return _corrected([_by_repetition(other, chosen, theirs) for other, theirs in values.items()])


@dataclass(frozen=True)
class Gains:
    """Gains of rows over the rows that they are compared with.

    Args:
        gains: one comparison for each row, with the row's value minus the other.
        over: pairs of the test: ``repetitions``, or ``users`` if no two repetitions are common.
    """

    gains: tuple[Comparison, ...]
    over: str


def gains(pairs: Mapping[str, Sequence[Sequence[Line]]], metric: str, files: UserFiles) -> Gains:
    """Compare each row with another one, over the repetitions of both, or else over users.

    If both have runs at several missing ratios, the value of a repetition is its mean over these
    ratios. Repetitions without one of the ratios are left out.

    Args:
        pairs: label -> runs of the row, and runs of the one that it is compared with.
        metric: test metric.
        files: the files of users.

    Returns:
        The comparisons, corrected over the rows.
    """
    found = []
    for label, sides in pairs.items():
        ratios = sorted(set.intersection(*({ratio_of(run) for run in runs} for runs in sides)))
        mine, theirs = (_over_ratios(runs, ratios, of_test(metric)) for runs in sides)
        found.append(_by_repetition(label, mine, theirs))
    if any(one.n > 1 for one in found):
        return Gains(tuple(_corrected(found)), "repetitions")
    found = []
    for label, sides in pairs.items():
        mine_of, theirs_of = (_users(runs, metric, files, _place) for runs in sides)
        found.append(_by_user(label, mine_of, theirs_of))
    return Gains(tuple(_corrected(found)), "users")


def _over_ratios(
    runs: Sequence[Line], ratios: Iterable[str], value: Value
) -> dict[Repetition, float]:
    """Repetition -> mean of its values over some missing ratios."""
    found = [repeated([run for run in runs if ratio_of(run) == one], value) for one in ratios]
    common = set.intersection(*map(set, found)) if found else set()
    return {key: float(np.mean([values[key] for values in found])) for key in common}


def _by_repetition(
    other: str, first: Mapping[Repetition, float], second: Mapping[Repetition, float]
) -> Comparison:
    common = sorted(first.keys() & second.keys())
    sides = (np.array([side[key] for key in common]) for side in (first, second))
    return paired(other, *sides, len(common))


def _users(
    runs: Sequence[Line], metric: str, files: UserFiles, key: Callable[[Line], Repetition]
) -> dict[Repetition, pd.Series] | str:
    """Key of a run -> values of users; a text if a file is absent."""
    try:
        return {key(run): files.values(run, metric) for run in runs}
    except FileNotFoundError as error:
        return str(error)


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


def repeated(runs: Sequence[Line], value: Value) -> dict[Repetition, float]:
    """Repetition -> value, of the runs that have one."""
    found = {_repetition(run): value(run) for run in runs}
    return {key: one for key, one in found.items() if one is not None}


def _repetition(run: Line) -> Repetition:
    return tuple(text(run.point.get(axis)) for axis in REPETITIONS)


def _place(run: Line) -> Repetition:
    return (*_repetition(run), ratio_of(run))


def _corrected(comparisons: Sequence[Comparison]) -> list[Comparison]:
    wilcoxon = holm([c.wilcoxon for c in comparisons])
    t_test = holm([c.t_test for c in comparisons])
    return [
        replace(c, wilcoxon_holm=w, t_test_holm=t) for c, w, t in zip(comparisons, wilcoxon, t_test)
    ]
