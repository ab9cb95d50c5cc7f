"""What tests read of ``golden/imputation.npz``, the numbers of the released imputers."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import sparse


@pytest.fixture(scope="module")
def published(request: pytest.FixtureRequest) -> dict[str, Any]:
    path: Path = request.config.getoption("golden_dir") / "imputation.npz"
    if not path.is_file():
        pytest.skip(f"{path} is absent")
    with np.load(path) as stored:
        return {**dict(stored), "meta": json.loads(str(stored["meta"]))}


def numbers(key: str) -> dict[str, float]:
    """``op__heat_topk10_time5.0`` -> topk 10, time 5.0."""
    return {word: float(n) for word, n in re.findall(r"([a-z]+)(\d+(?:\.\d+)?)", key)}


def adjacency(npz: dict[str, Any], top_k: int) -> sparse.csr_matrix:
    """The released item graph of this length of list."""
    rows, cols = npz[f"adj__topk{top_k}_row"], npz[f"adj__topk{top_k}_col"]
    shape = (int(npz["n_items"]),) * 2
    return sparse.csr_matrix((np.ones(len(rows)), (rows, cols)), shape=shape)


def table(npz: dict[str, Any], letter: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Features and who has them of the modality ``v`` or ``t``."""
    features = torch.from_numpy(npz[f"feat_{letter}"])
    observed = torch.ones(len(features), dtype=torch.bool)
    observed[npz[f"missing_{letter}"]] = False
    return features, observed


def close(actual: Any, expected: np.ndarray, key: str) -> None:
    """Equal to 1e-6 of the largest number."""
    np.testing.assert_allclose(
        actual, expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max(), err_msg=key
    )
