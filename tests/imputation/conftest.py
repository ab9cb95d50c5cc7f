"""A small catalogue for the imputers that walk along a graph; 60 items."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import tiny_modalities
from scipy import sparse

from recbole_missing.modality import Modalities

N_ITEMS = 60


@pytest.fixture
def interactions() -> sparse.csr_matrix:
    """Random interactions; the last three items have none."""
    full = np.random.default_rng(0).random((80, N_ITEMS)) < 0.08
    full[:, -3:] = False
    return sparse.csr_matrix(full.astype(np.float32))


@pytest.fixture
def pair() -> Modalities:
    return tiny_modalities(N_ITEMS, {"image": 7, "text": 3}, missing=0.6)


@pytest.fixture
def features() -> np.ndarray:
    """An array without padding; item 0 is observed, every second one and the last ones are not."""
    values = np.random.default_rng(1).standard_normal((N_ITEMS, 5)).astype(np.float32)
    values[1::2] = np.nan
    values[-3:] = np.nan
    return values
