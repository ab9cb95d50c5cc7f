"""The trials of a search: what was tried for each row, and what validation chose."""

from __future__ import annotations

from collections.abc import Iterable

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
    have no value.
    """
    groups: dict[tuple[str, str], dict[str, list[Line]]] = {}
    for line in lines:
        if line.stage == "search":
            place = (line.benchmark, results.text(line.point.get("dataset")))
            groups.setdefault(place, {}).setdefault(cell(line.point), []).append(line)
    return [_table(*place, [*groups[place].values()]) for place in sorted(groups)]


def _table(benchmark: str, dataset: str, cells: list[list[Line]]) -> Table:
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
    chosen = [search.choose(found) for found in trials]
    settings = [[*one.values()][0]["settings"] if one else {} for one in chosen]
    metric = results.text(trials[0][0].config.get("valid_metric"))
    labels = {axis: [names[i][n] for i in order] for n, axis in enumerate(varying or shown[:1])}
    columns = [
        Column("trials", [len(found) for found in trials], form="count"),
        Column(f"best {metric}", [_valid(found[-1]) if found else None for found in ranked]),
        Column(f"worst {metric}", [_valid(found[0]) if found else None for found in ranked]),
        Column("chosen", [_words(one) for one in settings], form="text"),
    ]
    title = f"{benchmark}, {dataset}: trials of the search"
    return Table(labels, columns, f"{benchmark}_{dataset}_search", title, _CAPTION)


def _valid(line: Line) -> float | None:
    """Validation value of the metric that chooses."""
    value: float | None = (line.valid or {})[line.config["valid_metric"].lower()]
    return value


def _words(settings: dict[str, object]) -> str:
    return ", ".join(f"{key} {results.text(value)}" for key, value in settings.items()) or "-"
