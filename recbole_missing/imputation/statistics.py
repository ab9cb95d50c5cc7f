"""Imputers that look at no graph: zeros, the mean, random numbers."""

from __future__ import annotations

import torch
from torch import Tensor

from recbole_missing.data.modality import Modality
from recbole_missing.imputation.base import Imputer
from recbole_missing.settings import Int


class Zeros(Imputer):
    """Zeros in every missing row."""

    def fill(self, modality: Modality) -> Tensor:
        """Return zeros."""
        return torch.zeros_like(modality.features)


class Mean(Imputer):
    """The mean of the observed rows of items that occur in training, in every missing row."""

    def fill(self, modality: Modality) -> Tensor:
        """Return the mean row once for every item."""
        return self.mean_row(modality).expand_as(modality.features)


class Random(Imputer):
    """Uniform numbers in [0, 1), one draw a modality and a seed.

    Args:
        seed: of a generator of its own; the modality's name enters too, so that two modalities of
            one width differ.
    """

    hyperparameters = {"seed": Int(min=0)}

    def __init__(self, seed: int = 0) -> None:
        """Store the seed."""
        self.seed = seed

    def fill(self, modality: Modality) -> Tensor:
        """Return fresh uniform numbers."""
        name = int.from_bytes(modality.name.encode()[:6], "little")
        generator = torch.Generator().manual_seed(self.seed * 2**16 + name % 2**31)
        return torch.rand(modality.features.shape, generator=generator)
