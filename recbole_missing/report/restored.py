"""Restoration beside recommendation: does the one predict the other?

A point is a row of a table at one missing ratio: how close its values are to the hidden ones
(:mod:`recbole_missing.evaluation.restoration`), and how well its model recommends. Spearman's rho
is computed for each model, over all of its points, and within each ratio. Where more is missing,
both are usually worse. So the first can be high although the second is not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from recbole_missing.benchmark.line import Line
from recbole_missing.report import results
from recbole_missing.report.results import Part

MEASURES = ("cosine", "relative_mse", "hit@10")
_FEWEST = 3  # rho of two points is 1 or -1


@dataclass(frozen=True)
class Point:
    """A row at one missing ratio.

    Args:
        panel: the model; empty if models do not vary.
        name: values of the other axes, such as an imputation.
        ratio: text of the missing ratio.
        quality: measure of restoration -> mean over modalities (by items) and runs.
        value: mean of the test metric over the same runs.
    """

    panel: str
    name: str
    ratio: str
    quality: Mapping[str, float]
    value: float


def points(part: Part, metric: str) -> list[Point]:
    """Points of a part, from the runs that measured restoration."""
    found = []
    for row, runs in part.rows.items():
        for ratio in results.ratios_of(part):
            pairs = [_measured(run, metric) for run in runs if results.ratio_of(run) == ratio]
            known = [pair for pair in pairs if pair is not None]
            if not known:
                continue
            quality = {
                name: float(np.mean([measures[name] for measures, _ in known]))
                for name in MEASURES
                if all(name in measures for measures, _ in known)
            }
            value = float(np.mean([value for _, value in known]))
            by_axis = dict(zip(part.axes, row))
            panel = by_axis.pop("model", "") if len(row) > 1 else ""
            found.append(Point(panel, ", ".join(by_axis.values()), ratio, quality, value))
    return found


def _measured(run: Line, metric: str) -> tuple[dict[str, float], float] | None:
    """Restoration and the metric of a run; None if it lacks one of them."""
    quality = results.pooled((run.restoration or {}).values())
    value = (run.test or {}).get(metric)
    return (quality, value) if quality and value is not None else None


def rho(found: Sequence[Point], measure: str) -> float | None:
    """Spearman's rho of a measure and the metric; None for fewer than three different points."""
    known = [(point.quality[measure], point.value) for point in found if measure in point.quality]
    sides = [list(side) for side in zip(*known)]
    if len(known) < _FEWEST or any(len(set(side)) < 2 for side in sides):
        return None
    return float(stats.spearmanr(*sides)[0])


def rho_within(found: Sequence[Point], measure: str) -> float | None:
    """Mean over the missing ratios of :func:`rho` of the points of each."""
    ratios = dict.fromkeys(point.ratio for point in found)
    each = [rho([point for point in found if point.ratio == one], measure) for one in ratios]
    known = [one for one in each if one is not None]
    return float(np.mean(known)) if known else None


def by_panel(found: Sequence[Point]) -> dict[str, list[Point]]:
    """Panel -> its points, in the order of first appearance."""
    panels: dict[str, list[Any]] = {}
    for point in found:
        panels.setdefault(point.panel, []).append(point)
    return panels
