"""Restoration: how close are the values made for hidden features to the true ones?

The items of a modality are those that have it and from which the mask hid it. Items that truly
lack it are left out, because nobody knows their truth. Rows are compared in the scale that the
model sees (:mod:`recbole_missing.data.scale`). With the true row ``t`` of an item, the row ``g``
that was made for it, and the row ``m`` that the imputer ``mean`` gives to every item:

- ``cosine``: mean over items of the cosine of ``g - m`` and ``t - m``; it is 0 where ``g = m``.
- ``relative_mse``: ``sum ||g - t||^2 / sum ||m - t||^2`` over items. The imputer ``mean`` gets 1.
- ``hit@10``: share of the items whose own true feature is among the 10 nearest to ``g``
  (:func:`recbole_missing.evaluation.retrieval.hits`), and ``chance@10``, that of a random order.

Rows are centred, because raw features often lie in a narrow cone: the mean row then has a high
cosine with every row, although it tells no item from another. Centred, ``mean`` gets exactly 0,
and any other constant row about 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor
from torch.nn import functional

from recbole_missing.evaluation import retrieval
from recbole_missing.imputation import Mean
from recbole_missing.modality import Modalities, Modality

TOP = 10

_BLOCK = 4096  # rows that are held in float64 at a time


@dataclass(frozen=True)
class Restored:
    """The hidden rows of one modality, each compared with its truth.

    Args:
        items: ids of the items, int64 ``(n,)``.
        cosine: of the centred rows, float64 ``(n,)``.
        error: squared distance of the row that was made from the true one, float64 ``(n,)``.
        spread: squared distance of the mean row from the true one, float64 ``(n,)``.
        hit: probability that the true feature is among the :data:`TOP` nearest, float64 ``(n,)``;
            None if nobody asked for it.
        candidates: number of items that have the modality.
    """

    items: Tensor
    cosine: Tensor
    error: Tensor
    spread: Tensor
    hit: Tensor | None
    candidates: int

    def measures(self, among: Tensor | None = None) -> dict[str, float]:
        """The measures of this module, over all items or over some.

        Args:
            among: bool ``(n_items,)``, the items that count; default all.

        Returns:
            ``items`` (number), ``cosine``, ``relative_mse``, and ``hit@10`` and ``chance@10`` if
            they were asked for; only ``items``, which is 0, if no item counts. ``relative_mse`` is
            infinite or NaN if every true row is the mean row.
        """
        chosen = slice(None) if among is None else among[self.items]
        if not len(self.items[chosen]):
            return {"items": 0}
        found = {
            "items": len(self.items[chosen]),
            "cosine": float(self.cosine[chosen].mean()),
            "relative_mse": float(self.error[chosen].sum() / self.spread[chosen].sum()),
        }
        if self.hit is not None:
            found[f"hit@{TOP}"] = float(self.hit[chosen].mean())
            found[f"chance@{TOP}"] = min(TOP, self.candidates) / self.candidates
        return found


def evaluate(model: Any, dataset: Any) -> dict[str, dict[str, float]]:
    """Measure the features that a model uses in place of the hidden ones.

    Args:
        model: a :class:`~recbole_missing.model.base.MultimodalRecommender`.
        dataset: the data set that it was built from, or another split of it. Its files are read
            again to get the true features.

    Returns:
        Modality -> :meth:`Restored.measures`. Modalities of which the mask hid nothing are left
        out.
    """
    completed = {name: rows.detach() for name, rows in model.completed_features().items()}
    rows = restored(dataset.true_features(), completed, dataset.known, ~dataset.new_items)
    return {name: one.measures() for name, one in rows.items()}


@torch.no_grad()
def restored(
    true: Mapping[str, Modality],
    completed: Mapping[str, Tensor],
    known: Modalities,
    donors: Tensor | None = None,
    hits: bool = True,
) -> dict[str, Restored]:
    """Compare the rows that were made for hidden features with the true ones.

    Args:
        true: modality -> true features ``(n_items, dim)``. ``observed`` is True for items that
            truly have the modality.
        completed: modality -> completed features ``(n_items, dim)`` in the same space. Only rows
            of hidden features are read.
        known: what the mask left, in the same space.
        donors: bool ``(n_items,)``, items that count in the mean row, as for the imputer ``mean``;
            default all.
        hits: rank the true features, too. It takes most of the time.

    Returns:
        Modality -> :class:`Restored`. Modalities of which the mask hid nothing are left out.

    Raises:
        ValueError: if the shape of completed features is not that of the true ones.
    """
    n_items = len(known.observed)
    mean = Mean().fit(sparse.csr_matrix((1, n_items), dtype=np.float32), donors)
    found = {}
    for name, modality in true.items():
        made, shape = completed[name], tuple(modality.features.shape)
        if tuple(made.shape) != shape:
            raise ValueError(
                f"restoration: completed features of {name!r} must have shape {shape}, got "
                f"{tuple(made.shape)}; give a row for each item, the padding included."
            )
        items = (modality.observed & ~known[name].observed).nonzero()[:, 0]
        if len(items):
            errors = _errors(modality.features, made, mean.mean_row(known[name]), items)
            hit = retrieval.hits(modality, made, items, [TOP])[:, 0] if hits else None
            found[name] = Restored(items, *errors, hit, int(modality.observed.sum()))
    return found


def _errors(
    truth: Tensor, made: Tensor, mean: Tensor, items: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Cosine, error and spread of each of ``items``, float64 ``(n,)`` each, on the CPU."""
    cosine, error, spread = [], [], []
    for part in items.split(_BLOCK):
        ours = made[part.to(made.device)].cpu().double() - mean
        own = truth[part].double() - mean
        cosine.append(functional.cosine_similarity(own, ours, dim=1))
        error.append((own - ours).square().sum(dim=1))
        spread.append(own.square().sum(dim=1))
    return torch.cat(cosine), torch.cat(error), torch.cat(spread)
