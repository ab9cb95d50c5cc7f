"""Figures of benchmark results: a metric against the missing ratio, and by group of test items."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from recbole_missing.report import results
from recbole_missing.report.results import Part
from recbole_missing.report.style import COLOURS, line_styles, new_figure, plain_axes

_MOST_BANDS = 4  # with more lines, bands would hide one another, so error bars are drawn
_MOST_ROWS = 40  # more bars do not fit on a page
_LEAST_RANGE = 0.25  # an axis spans at least this share of the largest value
_ERROR = {"ecolor": "0.25", "elinewidth": 1.0, "capsize": 2}


def against_ratio(part: Part, metric: str, paths: Sequence[Path]) -> None:
    """Draw a metric against the missing ratio, with its standard deviation over runs.

    Each row of the table has one line.

    Args:
        part: one of :func:`.results.robustness_parts`; its rows hold all ratios.
        metric: test metric.
        paths: files to write; the ending of a file decides its format.

    Raises:
        ValueError: if matplotlib is absent.
    """
    frame = results.ratio_scores(part, metric)
    means, stds = (frame.xs(stat, axis=1, level=1) for stat in ("mean", "std"))
    _lines(part, means, stds, metric, f"{_place(part)}: {metric}", paths)


def loss(part: Part, metric: str, paths: Sequence[Path]) -> None:
    """Draw the relative loss of a metric against its value at the smallest ratio.

    A loss is a drop. If smaller values of the metric are better, it is a rise.

    Args:
        part, metric, paths: as of :func:`against_ratio`.

    Raises:
        ValueError: if matplotlib is absent.
    """
    means = results.ratio_scores(part, metric).xs("mean", axis=1, level=1)
    smaller = part.smaller_is_better(metric)
    percents = 100 * results.losses(means, smaller)
    stds = percents * np.nan
    word = "rise" if smaller else "drop"
    words = f"{word} against missing ratio {means.columns[0]} (%)"
    _lines(part, percents, stds, words, f"{_place(part)}: relative {word} of {metric}", paths)


def by_group(
    part: Part, groups: Sequence[str], metric: str, within: bool, paths: Sequence[Path]
) -> None:
    """Draw a metric by group of test items: a panel for each group, a bar for each row.

    The row with the best mean over the groups is on top. If there are many rows, only the best are
    drawn.

    Args:
        part: the runs of one table.
        groups: names of groups.
        metric: metric of the groups.
        within: draw the results in which only the items of a group are candidates.
        paths: files to write.

    Raises:
        ValueError: if matplotlib is absent.
    """
    frame = results.group_scores(part, groups, metric, within)
    means, stds = (frame.xs(stat, axis=1, level=1) for stat in ("mean", "std"))
    upwards = not part.smaller_is_better(metric)  # the last bar is drawn on top
    ordered = means.mean(axis=1).dropna().sort_values(ascending=upwards, kind="stable").index
    drawn = ordered[-_MOST_ROWS:]
    labels = [part.labels[i] for i in drawn]
    width = 1.2 + 0.075 * max(len(label) for label in labels) + 2.4 * len(groups)
    height = 1.3 + 0.27 * max(len(labels), 3)
    figure = new_figure(figsize=(width, height), layout="constrained")
    panels = figure.subplots(1, len(groups), sharey=True, squeeze=False)[0]
    for i, (panel, group) in enumerate(zip(panels, groups)):
        error = stds.loc[drawn, group].fillna(0)
        panel.barh(
            labels, means.loc[drawn, group], height=0.68, color=COLOURS[i % len(COLOURS)],
            xerr=error if error.any() else None, error_kw=_ERROR,
        )  # fmt: skip
        panel.set_title(group)
        panel.set_xlabel(metric)
        panel.locator_params(axis="x", nbins=5, steps=[1, 2, 5, 10])
        panel.set_xlim(left=0)
        panel.margins(y=0.02)
        plain_axes(panel, "x")
    best = f" (best {len(drawn)} of {len(ordered)} rows)" if len(drawn) < len(ordered) else ""
    words = "within the group" if within else "by group"
    figure.suptitle(f"{_place(part)}: {metric} {words}{best}")
    figure.get_layout_engine().set(wspace=0.06)
    _save(figure, paths)


def _lines(
    part: Part,
    means: pd.DataFrame,
    stds: pd.DataFrame,
    words: str,
    title: str,
    paths: Sequence[Path],
) -> None:
    """Draw one line for each row of ``means``, whose columns are ratios."""
    ratios = np.array([float(ratio) for ratio in means.columns])
    labels = part.labels
    styles = line_styles(labels)
    width = 5.4 + 0.085 * max(len(label) for label in labels)
    figure = new_figure(figsize=(width, max(3.9, 1.0 + 0.23 * len(labels))), layout="constrained")
    axes = figure.subplots()
    for i, label in enumerate(labels):
        line, spread = means.iloc[i].to_numpy(float), stds.iloc[i].to_numpy(float)
        absent = " (no result)" if np.isnan(line).all() else ""
        axes.plot(ratios, line, **{**styles[label], "label": label + absent})
        if not np.isnan(spread).all():
            _spread(axes, ratios, line, spread, styles[label]["color"], len(labels))
    axes.set_xlabel("missing ratio")
    axes.set_ylabel(words)
    axes.set_title(title)
    if len(ratios) < 12:
        axes.set_xticks(ratios, [f"{ratio:g}" for ratio in ratios])
    low, high = axes.get_ylim()
    room = _LEAST_RANGE * np.nanmax(np.abs(means.to_numpy(float))) - (high - low)
    if room > 0:  # without it, tiny differences would look large
        axes.set_ylim(low - room / 2, high + room / 2)
    plain_axes(axes, "y")
    _legend(figure, axes, means)
    _save(figure, paths)


def _place(part: Part) -> str:
    """Benchmark and data set, and the model if all rows have the same."""
    models = {run.point["model"] for run in part.lines}
    same = f", {models.pop()}" if len(models) == 1 else ""
    return f"{part.benchmark}, {part.heading}{same}"


def _spread(axes: Any, ratios: Any, line: Any, spread: Any, colour: str, n_lines: int) -> None:
    """Draw the standard deviation: as bands if there are few lines, as error bars otherwise."""
    if n_lines <= _MOST_BANDS:
        axes.fill_between(ratios, line - spread, line + spread, color=colour, alpha=0.18, lw=0)
    else:
        axes.errorbar(ratios, line, yerr=spread, fmt="none", ecolor=colour, elinewidth=0.8)


def _legend(figure: Any, axes: Any, means: pd.DataFrame) -> None:
    """Draw the legend beside the axes, in the order in which the lines end, from top to bottom."""
    handles, labels = axes.get_legend_handles_labels()
    ends = means.ffill(axis=1).iloc[:, -1].fillna(-np.inf).to_numpy()
    order = np.argsort(-ends, kind="stable")
    figure.legend(
        [handles[i] for i in order],
        [labels[i] for i in order],
        loc="outside right upper",
        frameon=False,
    )


def _save(figure: Any, paths: Sequence[Path]) -> None:
    for path in paths:
        dates = {"CreationDate": None} if path.suffix == ".pdf" else None
        figure.savefig(path, dpi=160, metadata=dates)
