"""The contract of an imputer, on one page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from scipy import sparse
from torch import Tensor

from recbole_missing.data.modality import Modality


class Imputer:
    """Invents values for the items that lack a modality, before any model sees them.

    The constructor only stores its arguments. :meth:`fit` learns what it needs from the training
    interactions (attributes that end in an underscore); :meth:`transform` returns a new
    :class:`Modality`. Whatever the method, observed rows are bit-identical, ``observed`` is
    unchanged so that models still know what was missing, row 0 (padding) stays zero, nothing is
    mutated, and every value is finite.

    ``hyperparameters`` names the constructor's arguments and their constraints; the config key of
    an argument is its name behind ``imputation_``.
    """

    hyperparameters: ClassVar[Mapping[str, Any]] = {}
    donors_: Tensor

    def fit(self, interactions: sparse.spmatrix, donors: Tensor | None = None) -> Imputer:
        """Learn from the training interactions.

        Args:
            interactions: shape ``(n_users, n_items)``, padding row and column included; any
                non-zero entry is one interaction.
            donors: bool ``(n_items,)``, items whose rows may enter a mean; default all. In the
                new-item setting new items are none.
        """
        everyone = torch.ones(interactions.shape[1], dtype=torch.bool)
        self.donors_ = everyone if donors is None else donors
        return self

    def transform(self, modality: Modality) -> Modality:
        """Return ``modality`` with values in its missing rows.

        Raises:
            ValueError: if no item has the modality.
        """
        if not modality.observed.any():
            raise ValueError(
                f"modality {modality.name!r}: must be observed for at least one item, got none; "
                "drop it from `modalities` or lower missing_ratio."
            )
        return modality.filled(self.fill(modality))

    def fill(self, modality: Modality) -> Tensor:
        """Return values for every row, shape ``(n_items, dim)``; observed rows are ignored."""
        raise NotImplementedError

    def mean_row(self, modality: Modality) -> Tensor:
        """Mean feature row, shape ``(dim,)``, over the observed donors.

        If no donor is observed, over all observed items.
        """
        donors = modality.observed & self.donors_
        rows = modality.features[donors if donors.any() else modality.observed]
        return rows.double().mean(dim=0).float()
