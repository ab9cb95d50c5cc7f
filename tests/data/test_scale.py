"""Scales of features: typical norms, the two formulas, and everything that reads scaled rows."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recbole_missing.data.scale import typical_norm


def test_typical_norm_is_the_median_length_of_the_observed_rows() -> None:
    features = torch.tensor([[0.0, 0.0], [3.0, 4.0], [1e30, 0.0], [0.0, 1.0], [7.0, 0.0]])
    observed = torch.tensor([False, True, False, True, True])
    assert typical_norm(features, observed) == 5
    observed[1] = False
    assert typical_norm(features, observed) == 4  # the middle of two
    many = torch.randn(10_001, 3)
    assert typical_norm(many, many[:, 0] > 0) == pytest.approx(
        np.median(np.linalg.norm(many[many[:, 0] > 0].double(), axis=1))
    )
    huge = torch.full((2, 2), 1e38)
    assert typical_norm(huge, torch.tensor([True, True])) == pytest.approx(2**0.5 * 1e38)


def test_a_typical_norm_needs_a_row() -> None:
    with pytest.raises(ValueError, match="typical norm: one row or more must be observed"):
        typical_norm(torch.ones(2, 2), torch.zeros(2, dtype=torch.bool))
