"""Figures of imputation quality."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recbole_missing.evaluation.imputation import Result
from recbole_missing.report.style import line_styles, new_figure, plain_axes

_ROWS = {
    "cosine": "mean cosine (higher is better)",
    "mse": "standardised MSE (lower is better)",
}
_HALO = {"linewidth": 6, "alpha": 0.35, "marker": "", "zorder": 1}
_NOTE = {"fontsize": "small", "color": "0.35", "verticalalignment": "bottom"}
_MOST_STRETCH = 3  # a line that would stretch a panel's range by a larger factor is left out


def quality(result: Result, path: Path | str) -> None:
    """Draw imputation quality against the missing ratio, one line a method.

    Each modality has a column. The first row shows the mean cosine, the second the standardised
    MSE. The scale of a panel is chosen for the better half of the methods and for those close to
    them. Values off the scale are written above the panel. If a method failed, its line has a gap,
    and the legend says at which ratios. If a method reached no hidden row, its line is broad and
    pale and lies under the line of its fallback.

    Args:
        result: what :func:`recbole_missing.evaluation.imputation.compare` returned.
        path: file to write. Its ending decides the format (``.png``, ``.pdf``, ``.svg``).

    Raises:
        ValueError: if matplotlib is absent, all methods failed, or matplotlib does not know the
            format.
    """
    if all(score.error is not None for score in result.scores):
        raise ValueError("plot: at least one method must have succeeded, got failures only.")
    n_columns = len(result.modalities)
    styles = _styles(result)
    legend = 0.9 + 0.085 * max(len(s["label"].split("\n")[0]) for s in styles.values())
    figure = new_figure(figsize=(3.8 * n_columns + legend, 6.6), layout="constrained")
    axes = figure.subplots(len(_ROWS), n_columns, sharex=True, squeeze=False)
    for row, (measure, label) in enumerate(_ROWS.items()):
        axes[row, 0].set_ylabel(label)
        for column, modality in enumerate(result.modalities):
            _panel(axes[row, column], result, modality, measure, styles)
    for column, modality in enumerate(result.modalities):
        axes[0, column].set_title(modality, pad=24)
        axes[-1, column].set_xlabel("items without the feature (%)")
    figure.align_ylabels()
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", frameon=False)
    figure.savefig(path, dpi=160)


def _styles(result: Result) -> dict[str, dict[str, Any]]:
    return {
        method: {
            **style,
            "label": method + _caveat(result, method),
            **(_HALO if result.unreached(method) else {}),
        }
        for method, style in line_styles(result.methods).items()
    }


def _caveat(result: Result, method: str) -> str:
    """Addition to the legend: where a method failed, or that it reached no row."""
    if result.unreached(method):
        return "\n(its fallback only)"
    failed = {ratio for name in result.modalities for ratio in result.failed(name, method)}
    if not failed:
        return ""
    where = ", ".join(f"{ratio:g}%" for ratio in sorted(failed))
    return "\n(failed)" if len(failed) == len(result.ratios) else f"\n(failed at {where})"


def _panel(
    axis: Any, result: Result, modality: str, measure: str, styles: dict[str, dict[str, Any]]
) -> None:
    lines = {method: _line(result, modality, method, measure) for method in result.methods}
    best_first = sorted(result.methods, key=lambda method: _distance(lines[method], measure))
    for method in best_first:
        axis.plot(result.ratios, lines[method], **styles[method])
    on_scale = _on_scale([lines[method] for method in best_first])
    low, high = _range(lines[method] for method in best_first[:on_scale])
    margin = 0.06 * (high - low) or 0.05
    axis.set_ylim(low - margin, high + margin)
    axis.set_xticks(result.ratios)
    plain_axes(axis, "y")
    beyond = [m for m in best_first[on_scale:] if not np.isnan(lines[m]).all()]
    note = "off the scale: " + ", ".join(f"{m} {np.nanmean(lines[m]):.2f}" for m in beyond)
    axis.text(0, 1.02, fill(note, 48) if beyond else "", transform=axis.transAxes, **_NOTE)


def _line(result: Result, modality: str, method: str, measure: str) -> NDArray[Any]:
    scores = [result.score(modality, method, ratio) for ratio in result.ratios]
    return np.array([score.measures.get(measure, np.nan) for score in scores])


def _distance(line: NDArray[Any], measure: str) -> float:
    """Mean distance of a line from the perfect value; infinity for a line without points."""
    if np.isnan(line).all():
        return np.inf
    return float(np.nanmean(1 - line if measure == "cosine" else line))


def _on_scale(lines: Sequence[NDArray[Any]]) -> int:
    """Number of lines, best first, that the scale of a panel is chosen for."""
    count = max(2, (len(lines) + 1) // 2)
    low, high = _range(lines[:count])
    while count < len(lines):
        wider = _range(lines[: count + 1])
        if wider[1] - wider[0] > _MOST_STRETCH * (high - low):
            break
        count, (low, high) = count + 1, wider
    return min(count, len(lines))


def _range(lines: Iterable[NDArray[Any]]) -> tuple[float, float]:
    values = np.concatenate(list(lines))
    values = values[~np.isnan(values)]
    return (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
