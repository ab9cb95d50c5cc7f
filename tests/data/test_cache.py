"""What is kept between runs, and what never meets it."""

from __future__ import annotations

import importlib
import resource
import sys
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


def test_a_full_disk_costs_the_file_and_not_the_run(
    given: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    expected = cache.transform(FeatProp(layers=2), **given, folder=tmp_path / "kept")
    (kept,) = (tmp_path / "kept").iterdir()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        completed = cache.transform(FeatProp(layers=2), **given, folder=tmp_path / "full")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert all(torch.equal(completed[name].features, expected[name].features) for name in expected)
    (warning,) = caplog.messages
    assert warning.startswith(f"{tmp_path / 'full' / kept.name}: must fit on its disk, got more")
    assert warning.endswith("The next run imputes again.")
    assert not (tmp_path / "full").exists()


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


SOURCE = """from recbole_missing.imputation.base import Filled
from recbole_missing.imputation.statistics import Zeros


class Mine(Zeros):
    costly = True

    def fill(self, table, others):
        return Filled(table.features + {value})
"""


def imported(folder: Path, name: str, value: int, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The class ``Mine`` of a module that fills in ``value``."""
    (folder / f"{name}.py").write_text(SOURCE.format(value=value))
    monkeypatch.syspath_prepend(str(folder))
    sys.modules.pop(name, None)
    importlib.invalidate_caches()
    return importlib.import_module(name).Mine


def rows(given: dict[str, Any], imputer: Any, folder: Path) -> torch.Tensor:
    image = cache.transform(imputer, **given, folder=folder)["image"]
    return image.features[image.missing]


def test_a_changed_imputer_never_gets_the_old_rows(
    given: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = imported(tmp_path, "my_imputer", 1, monkeypatch)
    assert (rows(given, first(), tmp_path / "kept") == 1).all()
    monkeypatch.setattr(first, "fit", lambda *_: pytest.fail("computed anew"))
    assert (rows(given, first(), tmp_path / "kept") == 1).all()
    changed = imported(tmp_path, "my_imputer", 22, monkeypatch)
    assert (rows(given, changed(), tmp_path / "kept") == 22).all()


def test_another_class_of_the_same_name_never_gets_the_rows(
    given: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = (imported(tmp_path, name, 1, monkeypatch) for name in ("mine_a", "mine_b"))
    assert one.__qualname__ == other.__qualname__
    assert cache.key(one(), **given) != cache.key(other(), **given)


def test_rows_of_a_class_without_a_file_are_not_kept(given: dict[str, Any], tmp_path: Path) -> None:
    typed = type("Typed", (Mean,), {"__module__": "typed_into_a_session"})
    assert cache.key(typed(), **given) is None
    assert cache.transform(typed(), **given, folder=tmp_path / "kept")
    assert not (tmp_path / "kept").exists()


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
