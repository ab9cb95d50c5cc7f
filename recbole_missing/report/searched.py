"""The trials of a search: what was tried for each row, and what validation chose."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from recbole_missing.benchmark import search
from recbole_missing.benchmark.line import Line
from recbole_missing.benchmark.plan import REPETITIONS, cell
from recbole_missing.report import results
from recbole_missing.tables import Column, Table

_CAPTION = (
    "Best and worst trial by the metric that chooses, on validation, with the first seed. Rows "
    "that were searched but not tested are there, too. A row with more trials has a better chance "
    "of a high value."
)


def search_tables(lines: Iterable[Line]) -> list[Table]:
    """One table for each benchmark and data set that has trials.

    A row is a cell of the grid. Trials that failed or were never validated are counted, but they
    have no value. What a tested run says of its search wins: a store may hold older trials, too.
    """
    lines = list(lines)
    told = {
        (line.benchmark, cell(line.point)): line.search
        for line in lines
        if line.stage == "test" and line.search
    }
    groups: dict[tuple[str, str], dict[str, list[Line]]] = {}
    for line in lines:
        if line.stage == "search":
            place = (line.benchmark, results.text(line.point.get("dataset")))
            groups.setdefault(place, {}).setdefault(cell(line.point), []).append(line)
    return [_table(*place, [*groups[place].values()], told) for place in sorted(groups)]


def _table(
    benchmark: str, dataset: str, cells: list[list[Line]], told: Mapping[Any, Mapping[str, Any]]
) -> Table:
    points = [trials[0].point for trials in cells]
    shown = [axis for axis in points[0] if axis not in (*REPETITIONS, "dataset")]
    varying = [axis for axis in shown if len({results.text(p.get(axis)) for p in points}) > 1]
    names = [
        tuple(results.value_of(trials[0], axis) for axis in varying or shown[:1])
        for trials in cells
    ]
    order = sorted(range(len(cells)), key=lambda i: [results.by_size(name) for name in names[i]])
    trials = [cells[i] for i in order]
    ranked = [sorted(filter(search.is_validated, found), key=search.score) for found in trials]
    said = [told.get((benchmark, cell(found[0].point))) for found in trials]
    metric = next((_metric(line) for found in ranked for line in found), "metric")
    labels = {axis: [names[i][n] for i in order] for n, axis in enumerate(varying or shown[:1])}
    columns = [
        Column("trials", [_count(*pair) for pair in zip(trials, said)], form="count"),
        Column(f"best {metric}", [_best(*pair) for pair in zip(ranked, said)]),
        Column(f"worst {metric}", [_valid(found[0]) if found else None for found in ranked]),
        Column("chosen", [_chosen(*pair) for pair in zip(ranked, said)], form="text"),
    ]
    title = f"{benchmark}, {dataset}: trials of the search"
    return Table(labels, columns, f"{benchmark}_{dataset}_search", title, _CAPTION)


def _metric(line: Line) -> str:
    return results.text(line.config["valid_metric"])


def _valid(line: Line) -> float | None:
    """Validation value of the metric that chooses."""
    value: float | None = (line.valid or {})[_metric(line).lower()]
    return value


def _count(trials: Sequence[Line], said: Mapping[str, Any] | None) -> int:
    return said["trials"] + said["failed"] if said else len(trials)


def _best(ranked: Sequence[Line], said: Mapping[str, Any] | None) -> float | None:
    if said and ranked:
        value: float | None = said["valid"][_metric(ranked[-1]).lower()]
        return value
    return _valid(ranked[-1]) if ranked else None


def _chosen(ranked: Sequence[Line], said: Mapping[str, Any] | None) -> str:
    settings = said["chosen"] if said else search.choose(ranked)
    if not said:
        settings = next((one["settings"] for one in settings.values()), {})
    return ", ".join(f"{key} {results.text(value)}" for key, value in settings.items()) or "-"
