"""Store lines -> rows and columns of a report: which settings vary, mean and deviation of a cell.

A store line is described in ``docs/benchmarks.md``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from recbole_missing.benchmark.plan import REPETITIONS

Line = Mapping[str, Any]
Order = Mapping[str, Sequence[Any]]  # axis -> its values in the order to show

RATIO = "missing_ratio"
_ROW_AXES = 2  # that many settings name the rows of one table; the rest get a table a value
_FIRST = ("model", "imputation")
_PLAIN = (*_FIRST, "dataset")  # values that speak for themselves
_LOWER_IS_BETTER = ("averagepopularity", "giniindex", "logloss", "mae", "rmse")


@dataclass(frozen=True)
class Part:
    """The runs of one table: one benchmark, one data set, one value of each context axis.

    ``axes`` name a row; ``context`` is axis -> value of the whole table; ``rows`` is values of
    ``axes`` -> runs that ended well (none where all failed).
    """

    benchmark: str
    dataset: str
    axes: tuple[str, ...]
    context: dict[str, str]
    rows: dict[tuple[str, ...], list[Line]]

    @property
    def labels(self) -> list[str]:
        """One text a row, as in ``DGMRec, featprop``."""
        return [label(dict(zip(self.axes, row))) for row in self.rows]

    @property
    def lines(self) -> list[Line]:
        """Every run that ended well."""
        return [line for lines in self.rows.values() for line in lines]

    @property
    def heading(self) -> str:
        """Data set and context."""
        return label({"dataset": self.dataset, **self.context})


def text(value: Any) -> str:
    """Write a value of a setting: ``~`` for none, numbers without needless digits."""
    if value is None:
        return "~"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(text(item) for item in value) + "]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {text(item)}" for key, item in value.items()) + "}"
    return str(value)


def label(values: Mapping[str, str]) -> str:
    """Join axis -> value to one text; only values that need it get their axis' name."""
    words = [v if axis in _PLAIN else f"{axis} {v}" for axis, v in values.items()]
    return ", ".join(words)


def by_size(value: str) -> tuple[bool, float, str, str]:
    """Sort key of texts: numbers by size, then words by letter."""
    try:
        return (False, float(value), "", value)
    except ValueError:
        return (True, 0.0, value.lower(), value)


def tested(lines: Iterable[Line]) -> list[Line]:
    """Runs that had to give test results, in an order that does not depend on the store's."""

    def place(line: Line) -> tuple[str, str, str]:
        return (line["benchmark"], json.dumps(line["point"], sort_keys=True), str(line["run"]))

    return sorted((line for line in lines if line["stage"] == "test"), key=place)


def current(lines: Iterable[Line]) -> tuple[list[Line], int]:
    """Of the runs of each point the one that began last, and how many others there are.

    A point has several when its benchmark was run again with other settings; they are no
    repetitions.
    """
    found: dict[tuple[str, str], list[Line]] = {}
    for line in lines:
        point = (line["benchmark"], json.dumps(line["point"], sort_keys=True))
        found.setdefault(point, []).append(line)
    kept = [max(runs, key=lambda r: (r["cost"]["started"], r["run"])) for runs in found.values()]
    return kept, sum(map(len, found.values())) - len(kept)


def metrics_of(lines: Iterable[Line]) -> list[str]:
    """Test metrics that at least one run has, each once."""
    return list(dict.fromkeys(m for line in lines if line["test"] for m in line["test"]))


def higher_is_better(metric: str) -> bool:
    """Tell whether a RecBole metric is a gain, not a loss."""
    return metric.split("@")[0].lower() not in _LOWER_IS_BETTER


def parts(lines: Sequence[Line], orders: Mapping[str, Order]) -> list[Part]:
    """One part a table; at most two axes name its rows, the other varying axes are its context.

    The missing ratio is context unless nothing else varies: rows of two ratios do not compete.

    Args:
        lines: what :func:`tested` returned.
        orders: benchmark -> axis -> values in the order of the benchmark's file.
    """
    found = []
    for benchmark, dataset, members in _sections(lines, orders):
        order = orders.get(benchmark, {})
        axes, others = _layout(members)
        for values, group in _split(members, others, order).items():
            rows = _split(group, axes, order)
            context = dict(zip(others, values))
            found.append(Part(benchmark, dataset, tuple(axes), context, _done(rows)))
    return found


def robustness_parts(lines: Sequence[Line], orders: Mapping[str, Order]) -> list[Part]:
    """One part a benchmark and data set whose missing ratio varies; a row holds every ratio."""
    found = []
    for benchmark, dataset, members in _sections(lines, orders):
        axes = [axis for axis in _varying(members) if axis != RATIO]
        rows = _done(_split(members, axes or ["model"], orders.get(benchmark, {})))
        part = Part(benchmark, dataset, tuple(axes or ["model"]), {}, rows)
        if RATIO in _varying(members) and part.lines:
            found.append(part)
    return found


def summary(rows: Sequence[Sequence[Mapping[str, Any]]]) -> pd.DataFrame:
    """Mean, sample standard deviation and count over the runs of each row.

    Args:
        rows: for each row, name -> value of each of its runs; None and absent values do not count.

    Returns:
        One row a row; columns ``(name, "mean" | "std" | "count")``.
    """
    records = [{"row": i, **values} for i, runs in enumerate(rows) for values in runs]
    names = list(dict.fromkeys(name for runs in rows for values in runs for name in values))
    frame = pd.DataFrame(records, columns=["row", *names]).astype(dict.fromkeys(names, float))
    if not names:
        return pd.DataFrame(index=range(len(rows)))
    return frame.groupby("row")[names].agg(["mean", "std", "count"]).reindex(range(len(rows)))


def scores(part: Part, metrics: Sequence[str]) -> pd.DataFrame:
    """:func:`summary` of test metrics."""
    return summary(
        [[{m: run["test"].get(m) for m in metrics} for run in runs] for runs in part.rows.values()]
    )


def group_scores(part: Part, groups: Sequence[str], metric: str) -> pd.DataFrame:
    """:func:`summary` of one metric, a column a group of test items."""

    def values(run: Line) -> dict[str, Any]:
        found = run["groups"] or {}
        return {group: found.get(group, {}).get(metric) for group in groups}

    return summary([[values(run) for run in runs] for runs in part.rows.values()])


def groups_of(part: Part, metric: str) -> tuple[list[str], list[str]]:
    """Groups of test items that some run has a metric of: by missing modalities; warm and new."""
    found = {
        group
        for run in part.lines
        for group, values in (run["groups"] or {}).items()
        if metric in values
    }
    counts = sorted((g for g in found if g.endswith(" missing")), key=lambda g: int(g.split()[0]))
    return counts, [group for group in ("warm", "new") if group in found]


def ratio_scores(part: Part, metric: str) -> pd.DataFrame:
    """:func:`summary` of one metric, a column a missing ratio, in rising order."""
    ratios = sorted({text(run["point"][RATIO]) for run in part.lines}, key=by_size)
    rows = [
        [
            {**dict.fromkeys(ratios), text(run["point"][RATIO]): run["test"].get(metric)}
            for run in runs
        ]
        for runs in part.rows.values()
    ]
    return summary(rows)


def drops(means: pd.DataFrame) -> pd.DataFrame:
    """Relative drop against the first column: (first - value) / first; one column a ratio."""
    first = means.iloc[:, 0]
    return means.rsub(first, axis=0).div(first.where(first != 0), axis=0)


def _done(rows: Mapping[tuple[str, ...], list[Line]]) -> dict[tuple[str, ...], list[Line]]:
    return {row: [run for run in runs if run["status"] == "done"] for row, runs in rows.items()}


def _sections(
    lines: Sequence[Line], orders: Mapping[str, Order]
) -> Iterable[tuple[str, str, list[Line]]]:
    for benchmark in sorted({line["benchmark"] for line in lines}):
        members = [line for line in lines if line["benchmark"] == benchmark]
        order = orders.get(benchmark, {})
        for (dataset,), group in _split(members, ["dataset"], order).items():
            yield benchmark, dataset, group


def _varying(lines: Sequence[Line]) -> list[str]:
    """Axes with several values: model, imputation, the others by letter, the missing ratio."""
    values: dict[str, set[str]] = {}
    for line in lines:
        for axis, value in line["point"].items():
            values.setdefault(axis, set()).add(text(value))
    found = {axis for axis, seen in values.items() if len(seen) > 1}
    found -= {"dataset", RATIO, *REPETITIONS}
    rest = sorted(found - set(_FIRST))
    last = [RATIO] if len(values.get(RATIO, ())) > 1 else []
    return [*(axis for axis in _FIRST if axis in found), *rest, *last]


def _layout(lines: Sequence[Line]) -> tuple[list[str], list[str]]:
    """Axes of the rows, and of the context."""
    varying = _varying(lines)
    named = [axis for axis in varying if axis != RATIO] or varying or ["model"]
    axes = named[:_ROW_AXES]
    return axes, [axis for axis in varying if axis not in axes]


def _split(
    lines: Sequence[Line], axes: Sequence[str], order: Order
) -> dict[tuple[str, ...], list[Line]]:
    """Group by the values of some axes: known values first and in order, then by size."""
    groups: dict[tuple[str, ...], list[Line]] = {}
    for line in lines:
        groups.setdefault(tuple(text(line["point"].get(a)) for a in axes), []).append(line)
    known = [[text(value) for value in order.get(axis, ())] for axis in axes]

    def place(values: tuple[str, ...]) -> list[Any]:
        return [
            (seen.index(value) if value in seen else len(seen), by_size(value))
            for seen, value in zip(known, values)
        ]

    return {values: groups[values] for values in sorted(groups, key=place)}
