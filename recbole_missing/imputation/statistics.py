"""Imputers that look at no neighbour: zeros, the mean, random numbers."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch

from recbole_missing.config.constraints import Int
from recbole_missing.imputation.base import Filled, Imputer


class Zeros(Imputer):
    """Zeros."""

    costly = False

    def fill(self, table: Any, others: Mapping[str, Any]) -> Filled:
        """Return zeros."""
        return Filled(torch.zeros_like(table.features))


class Mean(Imputer):
    """The mean of the observed rows; new items (no donors) do not count."""

    costly = False

    def fill(self, table: Any, others: Mapping[str, Any]) -> Filled:
        """Return the mean row once for every item."""
        return Filled(self.mean_row(table).expand_as(table.features))


class Random(Imputer):
    """Uniform numbers in [0, 1).

    Args:
        seed: start of the random numbers. The modality's name enters too, so that two modalities
            of the same width get different numbers.
    """

    costly = False
    hyperparameters = {"seed": Int(min=0)}
    seed: int

    def fill(self, table: Any, others: Mapping[str, Any]) -> Filled:
        """Return fresh uniform numbers."""
        key = hashlib.blake2b(f"{self.seed} {table.name}".encode(), digest_size=7).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(key, "little"))
        return Filled(torch.rand(table.features.shape, generator=generator))
