"""Imputers that look at no graph: zeros, the mean, random numbers."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from recbole_missing.data.modality import Modality
from recbole_missing.imputation.base import Imputer
from recbole_missing.settings import Int


class Zeros(Imputer):
    """Zeros."""

    def fill(self, modality: Modality) -> Tensor:
        """Return zeros."""
        return torch.zeros_like(modality.features)


class Mean(Imputer):
    """The mean of the observed rows (not of new items)."""

    def fill(self, modality: Modality) -> Tensor:
        """Return the mean row once for every item."""
        return self.mean_row(modality).expand_as(modality.features)


class Random(Imputer):
    """Uniform numbers in [0, 1).

    Args:
        seed: of a generator of its own, one draw a modality and a seed; the modality's name
            enters too, so that two modalities of one width differ.
    """

    hyperparameters = {"seed": Int(min=0)}

    def __init__(self, seed: int = 0) -> None:
        """Store the seed."""
        self.seed = seed

    def fill(self, modality: Modality) -> Tensor:
        """Return fresh uniform numbers."""
        key = hashlib.blake2b(f"{self.seed} {modality.name}".encode(), digest_size=7).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(key, "little"))
        return torch.rand(modality.features.shape, generator=generator)
