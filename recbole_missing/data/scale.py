"""The scale of a modality: what is done to its numbers before anything reads them.

``x`` is the row of an item, ``j`` a column:

- ``none``: ``x`` as it comes.
- ``unit``: ``x / ||x||`` with the L2 norm; a row of zeros stays zero.
- ``standard``: ``(x_j - mean_j) / deviation_j``. Mean and population deviation
  (``sqrt(mean((x_j - mean_j)^2))``, not n - 1) of column j are fitted in float64 on the observed
  rows of the donors: hidden items, items that lack the modality, new items and the padding do not
  count. If no donor is observed, all observed rows count, as for the imputer ``mean``. A column
  that is constant in these rows, rounding apart (:func:`varying`), becomes zero in every row.

Scaling comes after the encoder and before the imputation. So an imputer, a model and an evaluation
see scaled rows: the imputer ``zeros`` gives the mean row under ``standard``, and ``random`` draws
its numbers beside scaled ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from logging import getLogger
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recbole_missing.config.constraints import Choice
from recbole_missing.modality import Modality

SCALES = Choice("none", "unit", "standard")
FOR_ALL = "modality_scale"
"""Setting of the modalities that have no ``NAME_scale``."""

FAR = 30.0
"""Modalities whose typical norms differ by more than this factor give a warning.

A squared error differs by its square, about 1,000. Real pairs that did no harm are up to 16 apart;
``docs/guides/scales.md`` has the measurements.
"""

_BLOCK = 4096  # rows that are held in float64 at a time
_AGREE = 1e-3  # of a deviation: encoders differ in their last digits between machines
_TINY = 1e-6  # of a number: float32 of an encoder


def chosen(name: str, settings: Any) -> str | None:
    """The scale that the user has chosen for a modality; None if there is none, which is ``none``.

    Args:
        name: the modality.
        settings: a dict or a RecBole config.
    """
    found = (settings[key] for key in (f"{name}_scale", FOR_ALL) if key in settings)
    return next((word for word in found if word is not None), None)


@dataclass(frozen=True)
class Scale:
    """A scale with its fitted numbers.

    Args:
        name: the modality, for messages.
        word: ``none``, ``unit`` or ``standard``.
        mean, deviation: of ``standard``: float64 ``(dim,)``; ``deviation`` is 0 in a constant
            column. Otherwise None.
    """

    name: str
    word: str
    mean: Tensor | None = None
    deviation: Tensor | None = None

    @classmethod
    def fitted(
        cls, name: str, word: str, features: Tensor, observed: Tensor, donors: Tensor
    ) -> Scale:
        """Fit a scale.

        Args:
            name: the modality, for messages.
            word: ``none``, ``unit`` or ``standard``.
            features: ``(n_items, dim)``.
            observed: bool ``(n_items,)``, at least one.
            donors: bool ``(n_items,)``, items that are not new.

        Raises:
            ValueError: for ``standard``, if all rows to fit on are equal; one row is.
        """
        if word != "standard":
            return cls(name, word)
        rows = observed & donors
        items = (rows if rows.any() else observed).nonzero()[:, 0]
        mean, deviation = moments(features, items)
        varies = varying(mean, deviation)
        if not varies.any():
            raise ValueError(
                f"{name}: {name}_scale standard must have observed rows that differ, got "
                f"{len(items):,} equal to each other; choose unit or none, or hide fewer items."
            )
        small = ~varies & (deviation > _TINY * torch.hypot(mean, deviation))
        if small.any():
            getLogger().warning(
                f"{name}: {int(small.sum()):,} of {len(varies):,} columns vary by less than the "
                f"rounding of a typical row and count as constant under {name}_scale standard; "
                "columns that are measures of their own want a modality of their own."
            )
        return cls(name, word, mean, deviation * varies)

    def apply(self, features: Tensor, rows: Tensor) -> Tensor:
        """Scale some rows, and make the others zero.

        Args:
            features: float32 ``(n_items, dim)``; unchanged.
            rows: bool ``(n_items,)``. A row's result does not depend on which others are chosen.

        Returns:
            Float32 ``(n_items, dim)``; for ``none`` the features themselves.

        Raises:
            ValueError: if a scaled number is not finite in float32.
        """
        if self.word == "none":
            return features
        blocks = features.split(_BLOCK)
        scaled = torch.cat([self._scaled(block.double()).float() for block in blocks])
        scaled[~rows] = 0
        if not scaled.isfinite().all():
            raise ValueError(
                f"{self.name}: rows scaled by {self.word} must be finite in float32, got items "
                "that lie more than 1e38 deviations from the others; repair these features."
            )
        return scaled

    def _scaled(self, rows: Tensor) -> Tensor:
        if self.mean is None or self.deviation is None:
            norms = rows.norm(dim=1, keepdim=True)
            return rows / norms.masked_fill(norms == 0, 1)
        constant = self.deviation == 0
        centred = (rows - self.mean).masked_fill(constant, 0)
        return centred / self.deviation.masked_fill(constant, 1)

    def undone(self, features: Tensor) -> Tensor:
        """Bring scaled rows back into the space of their source, float32 ``(n, dim)``.

        Only ``standard`` can be undone, to the last digits of float32; a constant column gets its
        constant. The rows of ``unit`` stay as they are, for their lengths are lost.
        """
        if self.mean is None or self.deviation is None:
            return features
        blocks = features.split(_BLOCK)
        return torch.cat([(b.double() * self.deviation + self.mean).float() for b in blocks])

    def state(self) -> dict[str, Any]:
        """The scale as plain values and tensors, for a checkpoint."""
        return {"scale": self.word, "mean": self.mean, "deviation": self.deviation}


def moments(features: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and population deviation of each column, float64 ``(dim,)`` each.

    Args:
        features: ``(n_items, dim)``.
        items: ids of the rows to read, at least one.
    """
    total, squares = torch.zeros(2, features.shape[1], dtype=torch.float64)
    for part in items.split(_BLOCK):
        total += features[part].double().sum(dim=0)
    mean = total / len(items)
    for part in items.split(_BLOCK):
        squares += (features[part].double() - mean).square().sum(dim=0)
    return mean, (squares / len(items)).sqrt()


def varying(mean: Tensor, deviation: Tensor) -> Tensor:
    """Tell which columns vary by more than the rounding of float32, bool ``(dim,)``.

    With the size ``s_j = sqrt(mean_j^2 + deviation_j^2)`` of column j, its median ``s`` over the
    columns and the spacing ``eps`` of float32 at 1, column j varies if its deviation is above

    - ``1e-6 s_j``: a constant that an encoder rounds differently varies by less;
    - ``eps s sqrt(dim)``: about the rounding of a sum over a typical row. An encoder that gives
      0 as 6e-8 in some rows of length 1 varies by less.

    Args:
        mean, deviation: of :func:`moments`.
    """
    size = torch.hypot(mean, deviation)
    noise = torch.finfo(torch.float32).eps * len(size) ** 0.5 * size.median()
    return deviation > (_TINY * size).clamp(min=float(noise))


def states(scales: Mapping[str, Scale]) -> dict[str, dict[str, Any]]:
    """Modality -> :meth:`Scale.state` of those that are scaled."""
    return {name: scale.state() for name, scale in scales.items() if scale.word != "none"}


def differing(saved: Any, built: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Scales that are not the saved ones, in words; a thousandth of a deviation does not count.

    The last digits of fitted numbers, and of the encoders before them, differ between machines.

    Args:
        saved: what :func:`states` returned when a checkpoint was written. Anyone may have made it,
            so that it may be anything.
        built: what :func:`states` returns of the data as they are now.
    """
    saved = saved if isinstance(saved, Mapping) else {}
    found = []
    for name in dict.fromkeys([*built, *map(str, saved)]):
        one, other = (_word(part.get(name)) for part in (saved, built))
        if one != other:
            found.append(f"{name}_scale {other} instead of {one}")
        elif not _agree(saved.get(name), built.get(name)):
            found.append(f"other numbers of {name}_scale {other}")
    return found


def _word(state: Any) -> str:
    if state is None:
        return "none"
    word = state.get("scale") if isinstance(state, Mapping) else state
    return str(word)[:20]


def _agree(saved: Any, built: Mapping[str, Any] | None) -> bool:
    if saved is None or built is None:
        return saved is built
    if not isinstance(saved, Mapping):
        return False
    if built["mean"] is None:
        return True
    near = _AGREE * built["deviation"]
    for key in ("mean", "deviation"):
        one, own = saved.get(key), built[key]
        if not isinstance(one, Tensor) or one.shape != own.shape or one.is_complex():
            return False
        if not ((one.cpu().double() - own).abs() <= near + _TINY * own.abs()).all():
            return False
    return True


def typical_norm(features: Tensor, observed: Tensor) -> float:
    """Median L2 norm of the observed rows, computed in float64.

    Args:
        features: ``(n_items, dim)``.
        observed: bool ``(n_items,)``; the other rows have no influence.

    Raises:
        ValueError: if no row is observed.
    """
    if not observed.any():
        raise ValueError("typical norm: one row or more must be observed, got none.")
    parts = observed.nonzero()[:, 0].split(_BLOCK)
    return float(np.median(torch.cat([features[part].double().norm(dim=1) for part in parts])))


def warn_if_far_apart(dataset: str, modalities: Mapping[str, Modality], settings: Any) -> None:
    """Warn if the typical norms of modalities differ by more than :data:`FAR`.

    There is no warning if a scale is chosen for each of them, be it ``none``. A modality whose
    typical row is zero does not count.

    Args:
        dataset: its name, for the message.
        modalities: scaled rows; missing ones do not count.
        settings: a dict or a RecBole config.
    """
    open_names = [name for name in modalities if chosen(name, settings) is None]
    if not open_names:
        return
    norms = {name: typical_norm(one.features, one.observed) for name, one in modalities.items()}
    norms = {name: norm for name, norm in norms.items() if norm}
    if not norms or max(norms.values()) <= FAR * min(norms.values()):
        return
    large, small = max(norms, key=norms.__getitem__), min(norms, key=norms.__getitem__)
    one = large if large in open_names else open_names[0]
    getLogger().warning(
        f"data set {dataset!r}: rows of {large!r} are typically {norms[large] / norms[small]:,.0f} "
        f"times as long as those of {small!r} (L2 norms {norms[large]:.3g} and "
        f"{norms[small]:.3g}), so that {large!r} may decide a loss or a sum alone; set "
        f"`{FOR_ALL}: standard` or `unit` (`{one}_scale` for one modality), or `none` to "
        "keep them as they are."
    )
