"""What is kept between runs, and what never meets it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import tiny_modalities
from scipy import sparse

from recbole_missing.config import defaults
from recbole_missing.data import cache
from recbole_missing.imputation import FeatProp, Mean, impute
from recbole_missing.modality import Modalities, Modality

N_ITEMS = 30


@pytest.fixture
def given() -> dict[str, Any]:
    full = np.random.default_rng(0).random((40, N_ITEMS)) < 0.1
    full[0] = full[:, 0] = False
    return {
        "modalities": tiny_modalities(N_ITEMS, {"image": 4, "text": 3}, missing=0.4),
        "interactions": sparse.csr_matrix(full.astype(np.float32)),
        "donors": torch.ones(N_ITEMS, dtype=torch.bool),
        "edges": None,
    }


def test_a_second_run_reads_what_the_first_wrote(
    given: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = FeatProp(layers=2)
    expected = cache.transform(first, **given, folder=tmp_path / "kept")
    monkeypatch.setattr(FeatProp, "fit", lambda *_: pytest.fail("computed anew"))
    second = FeatProp(layers=2)
    read = cache.transform(second, **given, folder=tmp_path / "kept")
    assert second.report_ == first.report_
    for name in expected:
        assert torch.equal(read[name].features, expected[name].features)
        assert torch.equal(read[name].observed, expected[name].observed)
    assert [path.suffix for path in (tmp_path / "kept").iterdir()] == [".safetensors"]


def test_every_change_has_a_key_of_its_own(given: dict[str, Any]) -> None:
    image, text = given["modalities"].values()
    shifted = Modality("image", image.features + image.observed[:, None], image.observed)
    masked = image.observed.clone()
    masked[image.observed.nonzero()[0]] = False
    hidden = Modality("image", image.features * masked[:, None], masked)
    other = given["interactions"].tolil()
    other[1, 5] = 1 - other[1, 5]
    keys = [
        cache.key(FeatProp(layers=2), **given),
        cache.key(FeatProp(layers=3), **given),
        cache.key(Mean(), **given),
        cache.key(FeatProp(layers=2), **{**given, "modalities": Modalities([shifted, text])}),
        cache.key(FeatProp(layers=2), **{**given, "modalities": Modalities([hidden, text])}),
        cache.key(FeatProp(layers=2), **{**given, "modalities": Modalities([text, image])}),
        cache.key(FeatProp(layers=2), **{**given, "interactions": other}),
        cache.key(FeatProp(layers=2), **{**given, "donors": None}),
        cache.key(FeatProp(layers=2), **{**given, "edges": sparse.eye(N_ITEMS, format="csr")}),
    ]
    assert len(set(keys)) == len(keys)
    assert cache.key(FeatProp(layers=2), **given) == keys[0]
    shuffled = given["interactions"].tocoo()
    order = np.random.default_rng(1).permutation(shuffled.nnz)
    entries = shuffled.data[order], (shuffled.row[order], shuffled.col[order])
    same = sparse.coo_matrix(entries, shape=shuffled.shape)
    assert cache.key(FeatProp(layers=2), **{**given, "interactions": same}) == keys[0]


def test_a_damaged_file_is_made_anew(given: dict[str, Any], tmp_path: Path) -> None:
    expected = cache.transform(FeatProp(layers=2), **given, folder=tmp_path)
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    file.write_bytes(b"")
    again = cache.transform(FeatProp(layers=2), **given, folder=tmp_path)
    assert all(torch.equal(again[name].features, expected[name].features) for name in expected)
    assert file.read_bytes() == whole


def test_what_was_reached_is_logged(
    given: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    words = defaults.load(defaults.root() / "overall.yaml")
    with caplog.at_level("INFO"):
        impute(given["modalities"], given["interactions"], words)
    assert "imputation featprop of image: items 30, missing" in caplog.text
