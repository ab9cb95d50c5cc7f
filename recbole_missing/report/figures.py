"""Figures of benchmark results: a metric by row, by missing ratio, and by group of test items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np
import pandas as pd

from recbole_missing.benchmark.line import Line
from recbole_missing.report import restored, results
from recbole_missing.report.restored import Point
from recbole_missing.report.results import Part
from recbole_missing.report.significance import Gains, UserFiles
from recbole_missing.report.style import COLOURS, line_styles, new_figure, plain_axes

_MOST_BANDS = 4  # with more lines, bands would hide one another, so error bars are drawn
_MOST_PANELS = 3  # side by side
_PAGE = 8.6  # width of a figure as wide as a page, in inches
_LEAST_RANGE = 0.25  # an axis spans at least this share of the largest value


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
    _draw(Lines([*part.rows], means, stds), metric, f"{_place(part)}: {metric}", paths)


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
    word = "rise" if smaller else "drop"
    words = f"{word} against missing ratio {means.columns[0]} (%)"
    title = f"{_place(part)}: relative {word} of {metric}"
    _draw(Lines([*part.rows], percents, percents * np.nan), words, title, paths)


def gains(
    part: Part, metric: str, reference: str, found: Mapping[str, Gains], paths: Sequence[Path]
) -> None:
    """Draw the gain over an imputation against the missing ratio, with its 95 % interval.

    Args:
        part: one of :func:`.results.robustness_parts`.
        metric: test metric.
        reference: the imputation that the gains are measured against.
        found: missing ratio -> gains, and other names -> gains that are not drawn.
        paths: files to write.

    Raises:
        ValueError: if matplotlib is absent.
    """
    rows = dict(zip(part.labels, part.rows))
    kept = [gain.other for gain in next(iter(found.values())).gains]
    ratios = [ratio for ratio in results.ratios_of(part) if ratio in found]
    means = {ratio: [gain.difference for gain in found[ratio].gains] for ratio in ratios}
    halves = {ratio: [gain.half for gain in found[ratio].gains] for ratio in ratios}
    frames = (pd.DataFrame(values, dtype=float) for values in (means, halves))
    title = f"{_place(part)}: gain of {metric} over {reference}, with its 95% interval"
    words = f"gain over {reference}"
    _draw(Lines([rows[label] for label in kept], *frames), words, title, paths, from_zero=True)


def restoration(part: Part, metric: str, found: Sequence[Point], paths: Sequence[Path]) -> None:
    """Draw a metric against the cosine of the restored features; a panel for each model.

    A dot is an imputation at one missing ratio. It is larger where more is missing.

    Args:
        part: the runs.
        metric: test metric.
        found: what :func:`.restored.points` returned.
        paths: files to write.

    Raises:
        ValueError: if matplotlib is absent.
    """
    panels = restored.by_panel(found)
    names = list(dict.fromkeys(point.name for point in found))
    styles, columns = line_styles(names), min(len(panels), _MOST_PANELS)
    figure, axes = _panels(len(panels), columns, names, len(names), shared=False)
    for panel, (heading, own) in zip(axes, panels.items()):
        for point in own:
            style = {**styles[point.name], "linestyle": "none"}
            style["markersize"] = 4 + 5 * min(1.0, results.by_size(point.ratio)[1])
            panel.plot(point.quality[_RESTORED], point.value, **style)
        rhos = [restored.rho(own, _RESTORED), restored.rho_within(own, _RESTORED)]
        shown = ["-" if one is None else f"{one:.2f}" for one in rhos]
        words = f"rho {shown[0]}, within a ratio {shown[1]}"
        panel.set_title(f"{heading}\n{words}".strip(), fontsize="small")
        panel.locator_params(nbins=5)
        plain_axes(panel, "both")
    figure.supxlabel(f"{_RESTORED} of the restored features", fontsize="medium")
    figure.supylabel(metric, fontsize="medium")
    title = f"{_place(part)}: restoration and recommendation (larger dots: more is missing)"
    figure.suptitle(fill(title, int(figure.get_figwidth() * 11)), fontsize="medium")
    _legend(figure, axes, None)
    _save(figure, paths)


_RESTORED = "cosine"


def dots(parts: Sequence[Part], metric: str, files: UserFiles, paths: Sequence[Path]) -> None:
    """Draw the mean of a metric of every row: a panel for each data set, best rows on top.

    A line of a panel is a value of the first axis of the rows, such as a model. A dot is a row. Its
    colour and marker tell the other axis, such as the imputation. Bars show the standard deviation
    over runs, or the 95 % interval over users if no row has several runs. Models that read no
    content have a name in italics and an open marker.

    Args:
        parts: tables of one benchmark, one for each data set, with the same axes.
        metric: test metric.
        files: the files of users.
        paths: files to write.

    Raises:
        ValueError: if matplotlib is absent.
    """
    frames = [results.scores(part, [metric])[metric].copy() for part in parts]
    words = f"{metric}, with its standard deviation over runs"
    if all(frame["std"].isna().all() for frame in frames):
        words = f"{metric}, with its 95% interval over users"
        for part, frame in zip(parts, frames):
            frame["std"] = [files.interval(runs, metric) or np.nan for runs in part.rows.values()]
        words = words if any(frame["std"].notna().any() for frame in frames) else metric
    panels = {part.heading: _cells(part, frame) for part, frame in zip(parts, frames)}
    upwards = not parts[0].smaller_is_better(metric)  # the last line is drawn on top
    names = {heading: _ordered(cells, upwards) for heading, cells in panels.items()}
    _dots(panels, names, f"{parts[0].benchmark}: {words}", paths)


def by_group(
    part: Part, groups: Sequence[str], metric: str, within: bool, paths: Sequence[Path]
) -> None:
    """Draw a metric by group of test items, as :func:`dots` with a panel for each group.

    The lines have the same order in all panels: the best mean over the groups is on top.

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
    panels = {group: _cells(part, frame[group]) for group in groups}
    over = frame.xs("mean", axis=1, level=1)[list(groups)].mean(axis=1)
    whole = _cells(part, pd.DataFrame({"mean": over, "std": np.nan}))
    order = _ordered(whole, not part.smaller_is_better(metric))
    words = "within the group" if within else "by group"
    title = f"{_place(part)}: {metric} {words}"
    _dots(panels, dict.fromkeys(groups, order), title, paths)


@dataclass(frozen=True)
class Dot:
    """One row in a panel: the line that it stands on, its style, mean, and half of its bar."""

    line: str
    style: str
    mean: float
    spread: float


def _cells(part: Part, frame: pd.DataFrame) -> list[Dot]:
    """Dots of the rows that have a mean."""
    cells = zip(part.rows.items(), frame["mean"], frame["std"].fillna(0))
    return [
        Dot(row[0], _style(row, runs), mean, spread)
        for (row, runs), mean, spread in cells
        if not np.isnan(mean)
    ]


def _style(row: tuple[str, ...], runs: Sequence[Line]) -> str:
    """The second axis of a row, or its imputation; "no content" for models that read none."""
    if not any(map(results.reads_content, runs)):
        return results.NO_CONTENT
    used = {results.text(run.config.get(results.IMPUTATION)) for run in runs if run.config}
    return row[1] if len(row) > 1 else ", ".join(sorted(used))


def _ordered(cells: Sequence[Dot], upwards: bool) -> list[str]:
    """Lines, the one with the best dot last."""
    best: dict[str, float] = {}
    for cell in cells:
        best[cell.line] = (max if upwards else min)(cell.mean, best.get(cell.line, cell.mean))
    return sorted(best, key=lambda line: best[line] if upwards else -best[line])


def _dots(
    panels: Mapping[str, Sequence[Dot]],
    names: Mapping[str, Sequence[str]],
    title: str,
    paths: Sequence[Path],
) -> None:
    """Draw panels of dots.

    Args:
        panels: title of a panel -> its dots.
        names: title of a panel -> its lines, from bottom to top. If all panels have the same, the
            first of a row shows them.
        title: above the figure.
        paths: files to write.
    """
    columns = min(len(panels), _MOST_PANELS)
    rows = -(-len(panels) // columns)
    same = len({tuple(order) for order in names.values()}) == 1
    height = 0.9 + rows * (0.75 + 0.19 * max(4, *map(len, names.values())))
    width = max(4.6, (_PAGE - 0.8 * (columns - 1) * same) * columns / _MOST_PANELS)
    figure = new_figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(rows, columns, sharey=same, squeeze=False).flatten()
    styles = _dot_styles(list(dict.fromkeys(dot.style for own in panels.values() for dot in own)))
    for panel, (heading, cells) in zip(axes, panels.items()):
        _dot_panel(panel, cells, names[heading], styles)
        panel.set_title(heading, fontsize="medium")
    for panel in axes[len(panels) :]:
        panel.set_visible(False)
    handles = _handles(axes)
    known = [name for name in styles if name in handles]
    if known:
        fitting = int(width / (0.5 + 0.075 * max(map(len, known))))
        figure.legend(
            [handles[name] for name in known], known, loc="outside lower center",
            ncols=max(1, min(len(known), fitting)), frameon=False, fontsize="small",
        )  # fmt: skip
    figure.suptitle(fill(title, int(width * 11)), fontsize="medium")
    _save(figure, paths)


def _dot_styles(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Look of each style. That of models without content is open and grey."""
    coloured = line_styles([name for name in names if name not in ("", results.NO_CONTENT)])
    styles = {name: {**style, "linestyle": "none"} for name, style in coloured.items()}
    plain = {"label": results.NO_CONTENT, "color": "0.35", "linestyle": "none", "marker": "o"}
    plain["markerfacecolor"] = "white"
    return {**styles, **({results.NO_CONTENT: plain} if results.NO_CONTENT in names else {})}


def _dot_panel(
    panel: Any,
    cells: Sequence[Dot],
    names: Sequence[str],
    styles: Mapping[str, Mapping[str, Any]],
) -> None:
    default = {"color": COLOURS[0], "linestyle": "none", "marker": "o"}
    for dot in cells:
        mates = [cell.style for cell in cells if cell.line == dot.line]
        shift = (mates.index(dot.style) - (len(mates) - 1) / 2) * min(0.2, 0.7 / len(mates))
        style = {**default, **styles.get(dot.style, {}), "markersize": 5}
        panel.errorbar(
            dot.mean, names.index(dot.line) - shift, xerr=dot.spread or None,
            elinewidth=1.0, ecolor=style["color"], **style,
        )  # fmt: skip
    panel.set_yticks(range(len(names)), names, fontsize="small")
    plain = {dot.line for dot in cells if dot.style == results.NO_CONTENT}
    for text, name in zip(panel.get_yticklabels(), names):
        text.set(style="italic" if name in plain else "normal")
    panel.set_ylim(-0.7, len(names) - 0.3)
    panel.set_xlim(*_wide(panel.get_xlim(), max((abs(dot.mean) for dot in cells), default=0.0)))
    panel.locator_params(axis="x", nbins=5, steps=[1, 2, 5, 10])
    panel.tick_params(axis="x", labelsize="small")
    plain_axes(panel, "both")


def _handles(axes: Sequence[Any]) -> dict[str, Any]:
    """Text of the legend -> its handle, over all panels."""
    found: dict[str, Any] = {}
    for panel in axes:
        handles, names = panel.get_legend_handles_labels()
        found.update(zip(names, handles))
    return found


@dataclass(frozen=True)
class Lines:
    """Lines of a figure against the missing ratio.

    Args:
        rows: the values of the axes that name each line.
        means, spreads: a column for each ratio. A spread is half of an error bar, or NaN.
    """

    rows: Sequence[tuple[str, ...]]
    means: pd.DataFrame
    spreads: pd.DataFrame

    def panels(self) -> dict[str, list[int]]:
        """Title of each panel -> its lines. A few lines have one panel without a title.

        Many lines that are named by two axes have a panel for each value of the first.
        """
        firsts = list(dict.fromkeys(row[0] for row in self.rows))
        everything = list(range(len(self.rows)))
        if len(self.rows) <= len(COLOURS) or len(firsts) in (1, len(self.rows)):
            return {"": everything}
        return {first: [i for i in everything if self.rows[i][0] == first] for first in firsts}

    def names(self, alone: bool) -> list[str]:
        """Name of each line, without its first axis unless there is one panel ``alone``."""
        return [", ".join(row if alone else row[1:]) for row in self.rows]


def _draw(
    lines: Lines, words: str, title: str, paths: Sequence[Path], from_zero: bool = False
) -> None:
    """Draw lines in panels that share their axes, with one legend.

    Args:
        lines: what to draw.
        words: what the vertical axis shows.
        title: above the figure.
        paths: files to write.
        from_zero: whether 0 is marked. Then points of a panel stand beside one another.
    """
    panels = lines.panels()
    names = lines.names(alone=len(panels) == 1)
    styles, columns = line_styles([*dict.fromkeys(names)]), min(len(panels), _MOST_PANELS)
    figure, axes = _panels(len(panels), columns, names, len(styles))
    ratios = np.array([float(ratio) for ratio in lines.means.columns])
    for panel, (first, own) in zip(axes, panels.items()):
        for place, i in enumerate(own):
            shift = (place - (len(own) - 1) / 2) * 0.008 * np.ptp(ratios) if from_zero else 0.0
            bars = from_zero or len(own) > _MOST_BANDS
            _line(panel, ratios + shift, lines, i, styles[names[i]], bars)
        panel.set_title(first or fill(title, 52), fontsize="medium")
        if from_zero:
            panel.axhline(0, color="0.35", linewidth=1, zorder=1)
        if len(ratios) < 12:
            panel.set_xticks(ratios, [f"{ratio:g}" for ratio in ratios])
        plain_axes(panel, "y")
    figure.supxlabel("missing ratio", fontsize="medium")
    figure.supylabel(words, fontsize="medium")
    if len(panels) > 1:
        figure.suptitle(title, fontsize="medium", x=0.01, ha="left")
    if not from_zero:
        largest = np.nanmax(np.abs(lines.means.to_numpy(float)))
        axes[0].set_ylim(*_wide(axes[0].get_ylim(), largest))
    _legend(figure, axes, lines.means if len(panels) == 1 else None)
    _save(figure, paths)


def _panels(
    count: int, columns: int, names: Sequence[str], n_styles: int, shared: bool = True
) -> tuple[Any, Sequence[Any]]:
    """Figure and panels with room for a legend beside them; they may have ``shared`` axes."""
    rows = -(-count // columns)
    width = (4.8 if count == 1 else 2.7 * columns) + 0.6 + 0.085 * max(map(len, names))
    height = max(3.9, 2.5 * rows, 1 + 0.23 * n_styles)
    figure = new_figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(rows, columns, sharex=shared, sharey=shared, squeeze=False).flatten()
    for panel in axes[count:]:
        panel.set_visible(False)
    for panel in axes[max(0, count - columns) : count]:
        panel.tick_params(labelbottom=True)
    return figure, axes


def _line(panel: Any, ratios: Any, lines: Lines, i: int, style: Any, bars: bool) -> None:
    """Draw one line, with its spread as bars or as a band."""
    line, spread = (frame.iloc[i].to_numpy(float) for frame in (lines.means, lines.spreads))
    absent = " (no result)" if np.isnan(line).all() else ""
    panel.plot(ratios, line, **{**style, "label": style["label"] + absent})
    colour = style["color"]
    if np.isnan(spread).all():
        return
    if bars:
        panel.errorbar(ratios, line, yerr=spread, fmt="none", ecolor=colour, elinewidth=0.9)
    else:
        panel.fill_between(ratios, line - spread, line + spread, color=colour, alpha=0.18, lw=0)


def _wide(limits: tuple[float, float], largest: float) -> tuple[float, float]:
    """Limits of an axis with a least range. Without it, tiny differences would look large."""
    low, high = limits
    room = max(0.0, _LEAST_RANGE * largest - (high - low))
    return low - room / 2, high + room / 2


def _place(part: Part) -> str:
    """Benchmark and data set, and the model if all rows have the same."""
    models = {run.point["model"] for run in part.lines}
    same = f", {models.pop()}" if len(models) == 1 else ""
    return f"{part.benchmark}, {part.heading}{same}"


def _legend(figure: Any, axes: Sequence[Any], means: pd.DataFrame | None) -> None:
    """Draw the legend of all panels beside them.

    With ``means`` it has the order in which the lines end, from top to bottom.
    """
    handles = _handles(axes)
    names = list(handles)
    if means is not None:
        ends = means.ffill(axis=1).iloc[:, -1].fillna(-np.inf).to_numpy()
        names = [names[i] for i in np.argsort(-ends, kind="stable")]
    figure.legend(
        [handles[name] for name in names], names, loc="outside right upper", frameon=False
    )


def _save(figure: Any, paths: Sequence[Path]) -> None:
    for path in paths:
        dates = {"CreationDate": None} if path.suffix == ".pdf" else None
        figure.savefig(path, dpi=160, metadata=dates)
