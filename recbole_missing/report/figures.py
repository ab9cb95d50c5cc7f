"""Figures of benchmark results: a metric by row, by missing ratio, and by group of test items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from recbole_missing.report import results
from recbole_missing.report.results import Part
from recbole_missing.report.style import COLOURS, line_styles, new_figure, plain_axes

_MOST_BANDS = 4  # with more lines, bands would hide one another, so error bars are drawn
_MOST_PANELS = 3  # side by side
_PAGE = 8.6  # width of a figure as wide as a page, in inches
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


def dots(parts: Sequence[Part], metric: str, paths: Sequence[Path]) -> None:
    """Draw the mean of a metric of every row: a panel for each data set, best rows on top.

    A line of a panel is a value of the first axis of the rows, such as a model. A dot is a row; its
    colour and marker tell the other axis, such as the imputation. Bars show the standard deviation
    over runs. Models that read no content have a name in italics and an open marker.

    Args:
        parts: tables of one benchmark, one for each data set, with the same axes.
        metric: test metric.
        paths: files to write.

    Raises:
        ValueError: if matplotlib is absent.
    """
    columns = min(len(parts), _MOST_PANELS)
    panels = -(-len(parts) // columns)
    lines = max(len({row[0] for row in part.rows}) for part in parts)
    height = 0.9 + panels * (0.75 + 0.19 * max(lines, 4))
    figure = new_figure(figsize=(max(4.6, _PAGE * columns / 3), height), layout="constrained")
    others = list(dict.fromkeys(row[1] for part in parts for row in part.rows if len(row) > 1))
    styles = _dot_styles(others)
    axes = figure.subplots(panels, columns, squeeze=False).flatten()
    for panel, part in zip(axes, parts):
        _dot_panel(panel, part, metric, styles)
    for panel in axes[len(parts) :]:
        panel.set_visible(False)
    handles = {}
    for panel in axes:
        handles.update(zip(*panel.get_legend_handles_labels()[::-1]))
    if styles:
        known = [name for name in styles if name in handles]
        figure.legend(
            [handles[name] for name in known], known, loc="outside lower center",
            ncols=min(len(known), 5), frameon=False, fontsize="small",
        )  # fmt: skip
    figure.suptitle(f"{parts[0].benchmark}: {metric}", fontsize="medium")
    _save(figure, paths)


def _dot_styles(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Look of each value of the second axis. That of models without content is open and grey."""
    styles = line_styles([name for name in names if name != results.NO_CONTENT])
    for style in styles.values():
        style["linestyle"] = "none"
    plain = {"label": results.NO_CONTENT, "color": "0.35", "linestyle": "none", "marker": "o"}
    plain.update(markerfacecolor="white", markersize=5.5)
    return {**styles, **({results.NO_CONTENT: plain} if results.NO_CONTENT in names else {})}


def _dot_panel(
    panel: Any, part: Part, metric: str, styles: Mapping[str, Mapping[str, Any]]
) -> None:
    frame = results.scores(part, [metric])[metric]
    rows = [
        (row[0], row[1] if len(row) > 1 else "", mean, spread)
        for row, mean, spread in zip(part.rows, frame["mean"], frame["std"].fillna(0))
        if not np.isnan(mean)
    ]
    upwards = not part.smaller_is_better(metric)  # the last line is drawn on top
    best: dict[str, float] = {}
    for name, _, mean, _ in rows:
        best[name] = (max if upwards else min)(mean, best.get(name, mean))
    names = sorted(best, key=lambda name: best[name] if upwards else -best[name])
    default = {"color": COLOURS[0], "linestyle": "none", "marker": "o"}
    for name, other, mean, spread in rows:
        mates = [one[1] for one in rows if one[0] == name]
        shift = (mates.index(other) - (len(mates) - 1) / 2) * min(0.2, 0.7 / len(mates))
        style = {**default, **styles.get(other, {})}
        panel.errorbar(
            mean, names.index(name) - shift, xerr=spread or None,
            elinewidth=1.0, ecolor=style["color"], **{**style, "markersize": 5},
        )  # fmt: skip
    panel.set_yticks(range(len(names)), names, fontsize="small")
    plain = {name for name, other, *_ in rows if other == results.NO_CONTENT}
    for text, name in zip(panel.get_yticklabels(), names):
        text.set(style="italic" if name in plain else "normal")
    panel.set_title(part.heading, fontsize="medium")
    panel.set_ylim(-0.7, len(names) - 0.3)
    panel.locator_params(axis="x", nbins=5, steps=[1, 2, 5, 10])
    panel.tick_params(axis="x", labelsize="small")
    plain_axes(panel, "both")


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
