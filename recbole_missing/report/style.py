"""The style of all figures. Matplotlib is imported only when a figure is drawn.

The colours are the palette of Okabe and Ito without its yellow. Colour-blind readers can tell them
apart. From the ninth line on, the colours are used again with another dash. Markers differ too.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from typing import Any

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C8C8C")
_MARKERS = "osD^vPXh<>*p8d"
_DASHES = ("-", "--", ":")
_LINE = {"markersize": 6.5, "markeredgecolor": "white", "markeredgewidth": 0.7}


def new_figure(**options: Any) -> Any:
    """Make a figure without pyplot, which would choose a backend for the user's whole session.

    Raises:
        ValueError: if matplotlib is absent.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ValueError(
            'plot: needs the package matplotlib; run `pip install "recbole-missing[plot]"`.'
        ) from error
    return Figure(**options)


def line_styles(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Colour, dash and marker of each name's line, as keywords of matplotlib's ``plot``."""
    looks = [(colour, dash) for dash in _DASHES for colour in COLOURS]
    return {
        name: {"label": name, "color": colour, "linestyle": dash, "marker": marker, **_LINE}
        for name, (colour, dash), marker in zip(names, cycle(looks), cycle(_MARKERS))
    }


def plain_axes(axes: Any, grid: str) -> None:
    """Hide the right and the upper border; draw a light grid for one axis (``x`` or ``y``)."""
    axes.grid(axis=grid, color="0.9")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
