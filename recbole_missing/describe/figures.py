"""Plots of a description as inline SVG. Matplotlib is imported only when one is drawn.

Text and axes are drawn in ``currentColor``, the colour of the text around them, so that a plot is
legible on a light page and on a dark one.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from recbole_missing.describe.content import K
from recbole_missing.describe.description import (
    ITEM_KNN,
    POPULARITY,
    TOGETHER,
    Description,
    Estimate,
)
from recbole_missing.describe.sections import ranges
from recbole_missing.report.style import COLOURS, new_figure, plain_axes

_INK = "#010203"  # replaced by currentColor
_GRID = {"color": "#888888", "alpha": 0.35, "linewidth": 0.6}
_BLUE, _RED, _GREEN, _PURPLE, _ORANGE, _SKY = COLOURS[:6]
_PER_ROW = 3
_BAR = {"error_kw": {"ecolor": _INK, "elinewidth": 1.1, "capsize": 3}}


def figures(found: Description) -> dict[str, tuple[str, str]]:
    """Draw every plot that the description has numbers for.

    Returns:
        Name of a plot -> a title that says what one sees, as plain text, and the SVG.

    Raises:
        ValueError: if matplotlib is absent.
    """
    drawn = {
        "tails": _tails(found),
        "holes": _holes(found),
        "overlaps": _overlaps(found),
        "pairs": _pairs(found),
        "recall": _recall(found),
        "cold": _cold(found),
        "imputers": _imputers(found),
    }
    return {name: (one[0], _svg(one[1])) for name, one in drawn.items() if one is not None}


def _tails(found: Description) -> Any:
    figure, (axis,) = _panels(1, (5.2, 3.4))
    percent = np.arange(101)
    sides = {"items": (found.data.items_tail, _BLUE), "users": (found.data.users_tail, _RED)}
    for name, (tail, colour) in sides.items():
        axis.plot(percent, 100 * np.array(tail.curve), color=colour, label=name, linewidth=2)
    axis.plot([0, 100], [0, 100], color=_INK, linestyle=":", linewidth=1, label="all alike")
    axis.set(xlabel="most active items or users (%)", ylabel="training interactions (%)")
    axis.set(xlim=(0, 100), ylim=(0, 101))
    _legend(axis, loc="lower right")
    shares = [f"{tail.top['20']:.0%}" for tail, _ in sides.values()]
    title = (
        f"The top 20% of the items have {shares[0]} of the interactions, those of the users "
        f"{shares[1]}"
    )
    return title, figure


def _holes(found: Description) -> Any:
    holes = found.missing.holes
    if not holes:
        return None
    figure, axes = _panels(len(holes))
    place = np.arange(len(found.missing.groups))
    for axis, (name, one) in zip(axes, holes.items()):
        hidden = 100 * np.array(one.hidden_by_popularity)
        lacks = 100 * np.array(one.by_popularity) - hidden
        axis.bar(place, lacks, color=_BLUE, label="lacks by nature")
        axis.bar(place, hidden, bottom=lacks, color=_ORANGE, label="hidden by the mask")
        axis.set(title=name, xlabel="training interactions of the item", ylim=(0, 100))
        axis.set_xticks(place, ranges(found), rotation=30)
        axis.set_ylabel("items that lack it (%)")
    _legend(axes[0])
    most = max(holes, key=lambda name: sum(holes[name].by_popularity))
    shares = holes[most].by_popularity
    if not any(shares):
        return "Every item has every modality", figure
    return (
        f"{most}: absent from {shares[0]:.0%} of the least popular items and from "
        f"{shares[-1]:.0%} of the most popular"
    ), figure


def _overlaps(found: Description) -> Any:
    overlaps = dict(list(found.missing.overlaps.items())[:12])
    if not overlaps:
        return None
    figure, (axis,) = _panels(1, (6.4, 0.9 + 0.38 * len(overlaps)))
    names, counts = list(overlaps)[::-1], list(overlaps.values())[::-1]
    bars = axis.barh(names, counts, color=_BLUE, height=0.7)
    axis.bar_label(bars, [f"{n:,}" for n in counts], padding=3, color=_INK, fontsize="small")
    axis.set(xlabel="items", xlim=(0, 1.15 * max(counts)))
    _grid(axis, "x")
    whole = found.missing.overlaps.get(" + ".join(found.missing.holes), 0)
    return f"{whole / found.data.items:.0%} of the items have every modality", figure


def _pairs(found: Description) -> Any:
    known = {name: one.pairs for name, one in found.content.items() if one.pairs is not None}
    if not known:
        return None
    figure, axes = _panels(len(known))
    for axis, (name, one) in zip(axes, known.items()):
        for label, shares, colour in (
            ("random pairs", one.random_bins, _SKY),
            (f"top {K} co-consumed", one.co_consumed_bins, _RED),
        ):
            axis.stairs(100 * np.array(shares), one.bins, color=colour, label=label, linewidth=1.8)
            axis.stairs(100 * np.array(shares), one.bins, color=colour, fill=True, alpha=0.18)
        axis.set(title=f"{name}: AUC {one.auc.value:.3f}", xlabel="cosine of centred rows")
        axis.set_ylabel("pairs (%)")
    _legend(axes[0])
    aucs = ", ".join(f"{name} {one.auc.value:.0%}" for name, one in known.items())
    return f"How often co-consumed items are nearer than random ones: {aucs}", figure


def _recall(found: Description) -> Any:
    if not found.baselines:
        return None
    bars = {name: (one.recall, _ORANGE) for name, one in found.baselines.items()}
    for name, one in found.content.items():
        if one.held_out is not None:
            bars[name] = (one.held_out.recall, _PURPLE if name == TOGETHER else _BLUE)
    chance = next(iter(found.baselines.values())).chance
    figure, (axis,) = _panels(1, (6.4, 1.1 + 0.42 * len(bars)))
    _bars(axis, {name: one for name, (one, _) in bars.items()}, [c for _, c in bars.values()])
    axis.axvline(chance, color=_INK, linestyle=":", linewidth=1.4, label=f"chance {chance:.4f}")
    axis.set(xlabel=f"Recall@{K} on held-out interactions (bars: ± 2 standard errors)")
    _legend(axis, loc="lower right")
    values = {name: one.value for name, (one, _) in bars.items()}
    popular, knn = values.pop(POPULARITY), values.pop(ITEM_KNN)
    if not values:
        return (
            f"Popularity finds {popular:.1%} of the held-out interactions, ItemKNN {knn:.1%}",
            figure,
        )
    best = max(values, key=values.__getitem__)
    return (
        f"{best} alone finds {values[best]:.1%} of the held-out interactions, popularity "
        f"{popular:.1%}, ItemKNN {knn:.1%}"
    ), figure


def _cold(found: Description) -> Any:
    known = {name: one.cold for name, one in found.content.items() if one.cold is not None}
    if not known:
        return None
    figure, axes = _panels(2, (4.4, 1.1 + 0.42 * len(known)))
    colours = [_PURPLE if name == TOGETHER else _BLUE for name in known]
    _bars(axes[0], {name: one.recall for name, one in known.items()}, colours)
    for place, one in enumerate(reversed(list(known.values()))):
        label = "chance" if place == 0 else None
        axes[0].plot([one.chance] * 2, [place - 0.4, place + 0.4], color=_RED, lw=2, label=label)
    axes[0].set(title="lists", xlabel=f"Recall@{K} among hidden items (± 2 standard errors)")
    _legend(axes[0], loc="lower right")
    _bars(axes[1], {name: one.auc for name, one in known.items()}, colours)
    axes[1].axvline(0.5, color=_RED, lw=2, label="chance")
    axes[1].set(title="pairs", xlabel="AUC (± 2 standard errors)", xlim=(0, 1))
    best = max(known, key=lambda name: known[name].recall.value / known[name].chance)
    times = known[best].recall.value / known[best].chance
    return (
        f"Items without any interaction: {best} finds {times:.1f} times as many as chance",
        figure,
    )


def _imputers(found: Description) -> Any:
    known = {}
    for name, ranked in found.imputers.items():
        cosines = {word: one.cosine for word, one in ranked.items() if one.cosine is not None}
        known.update({name: cosines} if cosines else {})
    if not known:
        return None
    figure, axes = _panels(len(known), (3.9, 0.9 + 0.3 * max(map(len, known.values()))))
    for axis, (name, cosines) in zip(axes, known.items()):
        best = found.best[name]
        _bars(axis, cosines, [_GREEN if word in best else _SKY for word in cosines])
        axis.set(title=name, xlabel="cosine with the truth (± 2 SE)")
    said = ", ".join(f"{found.best[name][0]} for {name}" for name in known)
    return f"Best at restoring hidden rows: {said} (green: not told apart from the best)", figure


def _bars(axis: Any, values: Mapping[str, Estimate], colours: Sequence[str]) -> None:
    """Horizontal bars, the first one on top, with two standard errors to both sides."""
    names = list(values)[::-1]
    lengths = [values[name].value for name in names]
    errors = [2 * (values[name].error or 0.0) for name in names]
    axis.barh(names, lengths, xerr=errors, color=list(colours)[::-1], height=0.7, **_BAR)
    _grid(axis, "x")


def _panels(n: int, size: tuple[float, float] = (3.7, 3.1)) -> tuple[Any, list[Any]]:
    """A figure with ``n`` panels of this size (width, height in inches), at most three a row."""
    columns = 2 if n == 4 else min(n, _PER_ROW)
    n_rows = -(-n // columns)
    figure = new_figure(figsize=(size[0] * columns, size[1] * n_rows), layout="constrained")
    axes = list(figure.subplots(n_rows, columns, squeeze=False).flat)
    for axis in axes[n:]:
        axis.remove()
    for axis in axes[:n]:
        _grid(axis, "y")
        axis.set_facecolor("none")
        axis.tick_params(colors=_INK)
        for part in (axis.xaxis.label, axis.yaxis.label, axis.title):
            part.set_color(_INK)
        for spine in axis.spines.values():
            spine.set_color(_INK)
    return figure, axes[:n]


def _grid(axis: Any, side: str) -> None:
    axis.grid(visible=False, axis="both")
    plain_axes(axis, side)
    axis.grid(axis=side, **_GRID)


def _legend(axis: Any, loc: str = "best") -> None:
    axis.legend(frameon=False, labelcolor=_INK, fontsize="small", loc=loc)


def _svg(figure: Any) -> str:
    """The figure as an SVG element that takes the colour of the text around it."""
    from matplotlib import rc_context

    buffer = io.StringIO()
    with rc_context({"svg.hashsalt": "describe", "svg.fonttype": "path"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    element = svg[svg.index("<svg") :]
    element = re.sub(r"<metadata>.*?</metadata>", "", element, flags=re.DOTALL)
    return re.sub(r"<!--.*?-->", "", element, flags=re.DOTALL).replace(_INK, "currentColor")
