"""Published numbers from benchmark files, looked up by the settings of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from recbole_missing.report.results import text

_KEYS = ("source", "axes", "metrics", "values")


@dataclass(frozen=True)
class Published:
    """Numbers of one published table.

    Args:
        source: where they were published.
        axes: settings whose values identify a row.
        metrics: names of the columns.
        numbers: values of ``axes`` -> metric -> number; None if the table has no number there.
    """

    source: str
    axes: tuple[str, ...]
    metrics: tuple[str, ...]
    numbers: Mapping[tuple[str, ...], Mapping[str, float | None]]

    def at(self, settings: Mapping[str, Any], metric: str) -> float | None:
        """Number that was published for a run with these settings; None if there is none."""
        place = tuple(text(settings.get(axis)) for axis in self.axes)
        return self.numbers.get(place, {}).get(metric)


def published(block: Mapping[str, Any] | None) -> Published | None:
    """Read the block ``published`` of a benchmark's file; None if there is no block.

    Raises:
        ValueError: if a key is absent, or the values do not fit the axes and metrics.
    """
    if not block:
        return None
    absent = [key for key in _KEYS if key not in block]
    if absent:
        raise ValueError(f"published: must have {', '.join(_KEYS)}, got no {', '.join(absent)}.")
    axes, metrics = tuple(block["axes"]), tuple(block["metrics"])
    numbers = {
        place: dict(zip(metrics, row))
        for place, row in _leaves(block["values"], axes, metrics, ()).items()
    }
    return Published(str(block["source"]), axes, metrics, numbers)


def _leaves(
    values: Any, axes: Sequence[str], metrics: Sequence[str], place: tuple[str, ...]
) -> dict[tuple[str, ...], list[float | None]]:
    where = " / ".join(place) or "values"
    if len(place) == len(axes):
        if not isinstance(values, list) or len(values) != len(metrics):
            raise ValueError(
                f"published: {where} must be a list of {len(metrics)} numbers "
                f"({', '.join(metrics)}), got {values!r}."
            )
        return {place: values}
    if not isinstance(values, Mapping):
        raise ValueError(
            f"published: {where} must be a mapping by {axes[len(place)]}, got {values!r}."
        )
    found = {}
    for key, inner in values.items():
        found.update(_leaves(inner, axes, metrics, (*place, text(key))))
    return found
