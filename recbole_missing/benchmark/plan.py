"""What a benchmark runs: the benchmark file, its grid, and the settings of every point.

The format is described in ``docs/guides/benchmarks.md``.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from recbole_missing.config import defaults
from recbole_missing.config.constraints import unknown

REPETITIONS = ("seed", "missing_seed")
"""Axes that repeat an experiment. Reports average over their values."""

MEASURES = ("retrieval", "restoration")
"""What a run can measure in addition to RecBole's metrics."""

SEARCH = ("method", "space", "space_of", "trials", "seed")
"""Keys of a search."""

_AXES = ("dataset", "model", "seed")  # every grid has them
_KEYS = (
    "title", "grid", "settings", "cases", "exclude", "measures", "published", "search", "quick",
)  # fmt: skip

Point = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """A benchmark file, read and checked.

    Args:
        name: name of the file; ``name:quick`` for its quick variant.
        title: title of the report.
        grid: axis -> values; an axis is any setting of RecBole or of this package.
        settings: settings of every run.
        cases: mappings of axis -> value (or list of values), with a key ``settings``. These
            settings hold for the points that match; later cases win over earlier ones.
        exclude: mappings of axis -> value (or list of values); matching points are not run.
        measures: names of :data:`MEASURES`.
        search: ``method``, ``space`` and more (:func:`.search.trials`), or empty.
        overrides: settings that win over those of the file.
        first: axis -> first value in the file, for each axis of :data:`REPETITIONS`. A search runs
            its trials with these values, even if the tests are restricted to other values.
    """

    name: str
    title: str
    grid: Mapping[str, Sequence[Any]]
    settings: Mapping[str, Any] = field(default_factory=dict)
    cases: Sequence[Mapping[str, Any]] = ()
    exclude: Sequence[Mapping[str, Any]] = ()
    measures: Sequence[str] = ()
    search: Mapping[str, Any] = field(default_factory=dict)
    overrides: Mapping[str, Any] = field(default_factory=dict)
    first: Mapping[str, Any] = field(default_factory=dict)

    def points(self) -> list[Point]:
        """Every combination of the grid that is not excluded; the last axis varies fastest."""
        combinations = itertools.product(*self.grid.values())
        points = [dict(zip(self.grid, values)) for values in combinations]
        return [point for point in points if not any(_matches(e, point) for e in self.exclude)]

    def settings_of(self, point: Point) -> dict[str, Any]:
        """Settings of one point, with its axes but without ``model`` and ``dataset``."""
        found = dict(self.settings)
        for case in self.cases:
            if _matches({key: case[key] for key in case if key != "settings"}, point):
                found.update(case["settings"])
        axes = {key: value for key, value in point.items() if key not in ("model", "dataset")}
        return {**found, **axes, **self.overrides}

    def only(self, wanted: Mapping[str, Sequence[Any]]) -> Plan:
        """Return the plan with fewer values on some axes.

        Raises:
            ValueError: for an axis or a value that the grid does not have.
        """
        grid = dict(self.grid)
        for axis, values in wanted.items():
            if axis not in grid:
                raise ValueError(f"--only: {unknown('axis', axis, grid)}")
            by_text = {str(value): value for value in grid[axis]}
            for value in map(str, values):
                if value not in by_text:
                    raise ValueError(f"--only: {unknown(axis, value, by_text)}")
            grid[axis] = [by_text[str(value)] for value in values]
        return replace(self, grid=grid)

    def override(self, settings: Mapping[str, Any]) -> Plan:
        """Return the plan with settings that win. If a setting is an axis, its values change."""
        axes = {k: v if isinstance(v, list) else [v] for k, v in settings.items() if k in self.grid}
        others = {key: value for key, value in settings.items() if key not in axes}
        grid = {**self.grid, **axes}
        overrides = {**self.overrides, **others}
        return replace(self, grid=grid, overrides=overrides, first=_first(grid))


def cell(point: Mapping[str, Any]) -> str:
    """Text of a point without its repetitions. Points that repeat each other have equal texts."""
    return json.dumps({key: value for key, value in point.items() if key not in REPETITIONS})


def _first(grid: Mapping[str, Sequence[Any]]) -> Point:
    return {axis: grid[axis][0] for axis in REPETITIONS if grid.get(axis)}


def find(name: str | Path) -> Path:
    """Find a benchmark file by its path, or by its name in ``properties/benchmark``.

    Raises:
        ValueError: if there is no such file, or if another file has the name of a shipped one.
    """
    path = Path(name)
    shipped = defaults.root() / "benchmark" / f"{path.stem}.yaml"
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise ValueError(f"{path}: must be a benchmark file, got no such file.")
        if shipped.is_file() and not shipped.samefile(path):
            raise ValueError(
                f"{path}: must not have the name of a shipped benchmark, because its results would "
                "be taken for results of that benchmark; rename it."
            )
        return path
    if not shipped.is_file():
        raise ValueError(unknown("benchmark", str(name), defaults.names("benchmark")))
    return shipped


def read(name: str | Path, quick: bool = False) -> Plan:
    """Read a benchmark file.

    Args:
        name: a path that ends in ``.yaml``, or a name of ``properties/benchmark``.
        quick: replace keys of the file by those under its key ``quick``.

    Raises:
        ValueError: if the file is wrong; it names the file and the key.
    """
    path = find(name)
    content = defaults.load(path)
    variant = content.pop("quick", {})
    if not isinstance(variant, dict):
        raise ValueError(f"{path}: quick must hold keys and values, got {variant!r}.")
    _check_keys(path, variant)
    if "quick" in variant:
        raise ValueError(f"{path}: quick must not have a key `quick` of its own; drop it.")
    if quick:
        if not variant:
            raise ValueError(f"{path}: must have a key `quick` for --quick, got none.")
        content.update(variant)
    _check(path, content)
    content.pop("published", None)  # only the report reads it
    title = content.pop("title", path.stem)
    name = f"{path.stem}:quick" if quick else path.stem
    return Plan(name, title, first=_first(content["grid"]), **content)


def _check_keys(path: Path, content: Mapping[str, Any]) -> None:
    for key in content:
        if key not in _KEYS:
            raise ValueError(f"{path}: {unknown('key', key, _KEYS)}")


def _check(path: Path, content: Mapping[str, Any]) -> None:
    _check_keys(path, content)
    if not isinstance(content.get("title", ""), str):
        raise ValueError(f"{path}: title must be text, got {content['title']!r}; quote it.")
    kinds = {"grid": dict, "settings": dict, "search": dict, "cases": list}
    if content.get("published") is not None:
        kinds["published"] = dict
    for key, kind in {**kinds, "exclude": list, "measures": list}.items():
        if not isinstance(content.get(key, kind()), kind):
            words = "a list" if kind is list else "a mapping"
            raise ValueError(f"{path}: {key} must be {words}, got {content[key]!r}.")
    grid = content.get("grid", {})
    _check_grid(path, grid)
    _check_settings(path, "settings", content.get("settings", {}))
    _check_rules(path, grid, content)
    _check_search(path, grid, content.get("search", {}))


def _check_grid(path: Path, grid: Mapping[str, Any]) -> None:
    for axis in _AXES:
        if axis not in grid:
            raise ValueError(f"{path}: grid must have the axis {axis!r}, got {list(grid)}; add it.")
    for axis, values in grid.items():
        if not isinstance(axis, str):
            raise ValueError(f"{path}: grid: an axis must be the name of a setting, got {axis!r}.")
        if not isinstance(values, list) or not values:
            raise ValueError(f"{path}: grid: {axis} must be a list of values, got {values!r}.")
        if len({str(value) for value in values}) < len(values):
            raise ValueError(f"{path}: grid: {axis} must name each value once, got {values!r}.")
        if axis in ("dataset", "model") and not all(isinstance(value, str) for value in values):
            raise ValueError(f"{path}: grid: {axis} must list names, got {values!r}.")


def _check_settings(path: Path, where: str, settings: Mapping[str, Any]) -> None:
    for key in settings:
        if not isinstance(key, str):
            raise ValueError(f"{path}: {where}: must have names of settings, got {key!r}.")
        if key in ("model", "dataset"):
            raise ValueError(f"{path}: {where}: {key} must be an axis of the grid; move it there.")


def _check_rules(path: Path, grid: Mapping[str, Any], content: Mapping[str, Any]) -> None:
    for measure in content.get("measures", ()):
        if measure not in MEASURES:
            raise ValueError(f"{path}: {unknown('measure', measure, MEASURES)}")
    for case in content.get("cases", ()):
        if not isinstance(case, dict) or not isinstance(case.get("settings"), dict):
            raise ValueError(f"{path}: a case must be a mapping with `settings`, got {case!r}.")
        _check_settings(path, "settings of a case", case["settings"])
        _check_rule(path, grid, {key: case[key] for key in case if key != "settings"})
    for rule in content.get("exclude", ()):
        if not isinstance(rule, dict):
            raise ValueError(f"{path}: exclude must list mappings of axes, got {rule!r}.")
        _check_rule(path, grid, rule)


def _check_rule(path: Path, grid: Mapping[str, Any], rule: Mapping[str, Any]) -> None:
    for axis, values in rule.items():
        if axis not in grid:
            raise ValueError(f"{path}: {unknown('axis', axis, grid)}")
        wanted = values if isinstance(values, list) and values not in grid[axis] else [values]
        for value in wanted:
            if value not in grid[axis]:
                raise ValueError(f"{path}: {unknown(axis, str(value), map(str, grid[axis]))}")


def _check_search(path: Path, grid: Mapping[str, Any], search: Mapping[str, Any]) -> None:
    for key in search:
        if key not in SEARCH:
            raise ValueError(f"{path}: {unknown('key of search', key, SEARCH)}")
    spaces = search.get("space_of", {})
    if not isinstance(spaces, dict):
        raise ValueError(f"{path}: search: space_of must be a mapping of models, got {spaces!r}.")
    for model in spaces:
        if model not in grid["model"]:
            raise ValueError(f"{path}: {unknown('model', str(model), grid['model'])}")
    for space in (search.get("space", {}), *spaces.values()):
        if not isinstance(space, dict):
            raise ValueError(f"{path}: search: a space must be a mapping, got {space!r}.")
        _check_settings(path, "search: a space", space)


def _matches(rule: Mapping[str, Any], point: Point) -> bool:
    for axis, values in rule.items():
        several = isinstance(values, list) and point[axis] in values
        if not several and point[axis] != values:
            return False
    return True
