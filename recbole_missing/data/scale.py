"""The scale of a modality's features: what its numbers are divided by before anything reads them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

_BLOCK = 4096  # rows that are held in float64 at a time


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
