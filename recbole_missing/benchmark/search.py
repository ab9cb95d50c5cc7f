"""Search of hyper-parameters: which trials are run, and which one is the best on validation.

A trial is a run that never looks at the test split. A cell of the grid is a point without its
repetitions. Every cell has its own search. Its trials run with the first value of every repetition
in the file. The settings of the best trial are then tested with all repetitions.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from recbole_missing.benchmark.line import Line
from recbole_missing.benchmark.plan import Plan, Point, cell
from recbole_missing.config.constraints import Float, Int, Optional, check
from recbole_missing.model import MODELS
from recbole_missing.registry import is_address

METHODS = ("grid", "random")
Space = Mapping[str, Any]


def trials(plan: Plan, points: Sequence[Point]) -> list[tuple[Point, dict[str, Any]]]:
    """Point and settings of every trial, in order.

    Args:
        plan: a plan with a ``search``. Its keys are ``method`` (grid or random), ``space`` (setting
            -> list of values, or a distribution, see :func:`draw`) and ``space_of`` (model -> a
            further space). For random there are also ``trials`` (number for each cell) and
            ``seed``.
        points: the points to test.

    Raises:
        ValueError: if a key or value of the search is wrong.
    """
    search: dict[str, Any] = {"method": "grid", "space": {}, "space_of": {}, "trials": None}
    search |= {"seed": 0, **plan.search}
    _check(plan, search)
    found = []
    firsts = {cell(point): {**point, **plan.first} for point in points}
    first_of: dict[str, str] = {}
    for point in firsts.values():
        drawn_as = first_of.setdefault(cell(_read_by_model(point)), cell(point))
        space = {**search["space"], **search["space_of"].get(point["model"], {})}
        if not space:
            continue
        if search["method"] == "grid":
            candidates = grid(space)
        else:
            generator = random.Random(f"{search['seed']} {drawn_as}")
            candidates = draw(space, search["trials"], generator)
        found += [(point, settings) for settings in candidates]
    if not found and not search["space"] and not any(search["space_of"].values()):
        raise ValueError(f"{plan.name}: search must have a space for one of its models, got none.")
    return found


def _read_by_model(point: Point) -> Point:
    """A point without its imputation, if the model reads no features.

    Cells that differ by an imputation alone are then one experiment, and must try the same values.
    """
    model = str(point["model"])
    if model in MODELS or is_address(model):
        return point
    return {key: value for key, value in point.items() if not key.startswith("imputation")}


def grid(space: Space) -> list[dict[str, Any]]:
    """Every combination of a space of lists.

    Raises:
        ValueError: for a distribution, which has infinitely many values.
    """
    for key, values in space.items():
        if not isinstance(values, list):
            raise ValueError(f"search: {key} must be a list for grid, got {values}; take random.")
    return [dict(zip(space, values)) for values in itertools.product(*space.values())]


def draw(space: Space, count: int, generator: random.Random) -> list[dict[str, Any]]:
    """Draw ``count`` combinations.

    Values of a list are drawn with equal probability. ``{uniform: [low, high]}`` is uniform,
    ``{loguniform: [low, high]}`` is uniform in the logarithm of the value, and
    ``{quniform: [low, high, step]}`` is uniform and then rounded to a multiple of the step. If all
    values are in lists, no combination is drawn twice. So there may be fewer than ``count``.
    """
    if all(isinstance(values, list) for values in space.values()):
        every = grid(space)
        return generator.sample(every, min(count, len(every)))
    return [{k: _drawn(v, generator) for k, v in space.items()} for _ in range(count)]


def _drawn(values: Any, generator: random.Random) -> Any:
    if isinstance(values, list):
        return generator.choice(values)
    (kind, limits), *_ = values.items()
    if kind == "loguniform":
        return math.exp(generator.uniform(*(math.log(limit) for limit in limits)))
    value = generator.uniform(*limits[:2])
    return round(value / limits[2]) * limits[2] if kind == "quniform" else value


def choose(lines: Iterable[Line]) -> dict[str, dict[str, Any]]:
    """Choose the best trial of each cell by its validation metric.

    If several trials are equally good, the earliest one wins. Trials that failed, or that were
    never validated, never win.

    Returns:
        Cell -> ``settings`` of the best trial, and ``found``, the value of the field ``search`` of
        a line. Cells of which every trial failed are left out (:func:`failures`).
    """
    chosen = {}
    for key, rivals in _by_cell(lines).items():
        done = [line for line in rivals if is_validated(line)]
        if done:
            best = max(done, key=score)
            settings = best.trial
            found = {"chosen": settings, "trials": len(done), "failed": len(rivals) - len(done)}
            chosen[key] = {"settings": settings, "found": {**found, "valid": best.valid}}
    return chosen


def failures(lines: Iterable[Line]) -> dict[str, str]:
    """Cell -> message, for each cell of which every trial failed."""
    return {
        key: f"search: a trial must succeed, got {len(rivals)} failures, the first: "
        f"{_reason(rivals[0])}"
        for key, rivals in _by_cell(lines).items()
        if not any(map(is_validated, rivals))
    }


def is_validated(line: Line) -> bool:
    """Tell whether a trial succeeded and has a validation result."""
    return line.done and bool(line.valid)


def _reason(line: Line) -> str:
    if not line.done:
        return str(line.error).splitlines()[0]
    epochs, step = len(line.epochs or ()), line.config["eval_step"]
    return f"it was never validated in {epochs} epochs with eval_step {step}; lower eval_step"


def _by_cell(lines: Iterable[Line]) -> dict[str, list[Line]]:
    found: dict[str, list[Line]] = {}
    for line in lines:
        found.setdefault(cell(line.point), []).append(line)
    return found


def score(line: Line) -> float:
    """Validation metric of a trial, with its sign changed if smaller values are better."""
    value = (line.valid or {})[line.config["valid_metric"].lower()]
    if value is None:
        return -math.inf
    return value if line.config["valid_metric_bigger"] else -value


def _check(plan: Plan, search: Mapping[str, Any]) -> None:
    if search["method"] not in METHODS:
        raise ValueError(
            f"{plan.name}: search method must be grid or random, got {search['method']!r}."
        )
    rules = {"trials": Optional(Int(min=1)), "seed": Int(min=0)}
    check(f"{plan.name}: search", search, rules)
    if search["method"] == "grid" and search["trials"] is not None:
        raise ValueError(f"{plan.name}: search: trials must be left out for grid; take random.")
    if search["method"] == "random" and search["trials"] is None:
        raise ValueError(f"{plan.name}: search: trials must be an int >= 1 for random, got none.")
    spaces = [search["space"], *search["space_of"].values()]
    for key, values in itertools.chain.from_iterable(space.items() for space in spaces):
        if key in plan.grid or key in plan.overrides:
            where = "an axis of the grid" if key in plan.grid else "in --set"
            raise ValueError(f"{plan.name}: search: {key} must not be {where} too; drop one.")
        if not _is_space(values):
            raise ValueError(
                f"{plan.name}: search: {key} must be a list of values, or uniform, loguniform or "
                f"quniform with its limits, got {values!r}."
            )


def _is_space(values: Any) -> bool:
    if isinstance(values, list):
        return bool(values)
    if not isinstance(values, Mapping) or len(values) != 1:
        return False
    (kind, limits), *_ = values.items()
    sizes = {"uniform": 2, "loguniform": 2, "quniform": 3}
    numbers = isinstance(limits, list) and all(map(Float().accepts, limits))
    right = numbers and kind in sizes and len(limits) == sizes[kind] and limits[0] <= limits[1]
    step = kind != "quniform" or (right and limits[2] > 0)
    return bool(right and step and (kind != "loguniform" or limits[0] > 0))
