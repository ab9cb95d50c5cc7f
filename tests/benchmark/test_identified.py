"""What tells runs apart is found out without reading anything twice."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import recbole.data.dataset
from folders import AT_WORK, BY_TIME, prepare, tiny_content
from folders import workplace as workplace

from recbole_missing import identity
from recbole_missing.benchmark import plan, runner
from recbole_missing.benchmark.identified import DataSets
from recbole_missing.benchmark.store import Store
from recbole_missing.data import sources

pytestmark = AT_WORK


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often data are loaded, feature files opened, rows hashed, and imputers made."""
    calls: Counter[str] = Counter()

    def noted(where: Any, name: str) -> None:
        original = getattr(where, name)

        def wrapper(*args: Any, **kwargs: Any) -> Any:
            calls[name] += 1
            return original(*args, **kwargs)

        monkeypatch.setattr(where, name, wrapper)

    noted(recbole.data.dataset.Dataset, "_from_scratch")
    noted(sources, "open_source")
    noted(identity, "of_rows")
    return calls


def test_points_of_one_split_read_each_file_once(tmp_path: Path, counted: Counter[str]) -> None:
    settings = tiny_content().write(tmp_path / "dataset")
    grid = {
        "dataset": ["tiny"],
        "missing_ratio": [0.2, 0.4, 0.6],
        "model": ["VBPR", "BM3", "BPR"],
        "imputation": ["zeros", "featprop"],
        "missing_seed": [1, 2],
        "seed": [1, 2],
    }
    mask = {"missing_protocol": "random_items"}
    mine = plan.Plan("mine", "Mine", grid, {**settings, **mask})
    said: list[str] = []
    options = runner.Options(data_path=tmp_path / "dataset", say=said.append)
    found = runner.preview(mine, Store(tmp_path / "mine.jsonl"), options)
    assert len(found) == 72 - 12, "BPR reads no imputation"
    assert said[0].startswith("mine: 12 of 72 points are the same run")
    assert counted == {"_from_scratch": 1, "open_source": 3, "of_rows": 3}


def test_a_random_split_is_drawn_once_a_seed(tmp_path: Path, counted: Counter[str]) -> None:
    settings = {**tiny_content().write(tmp_path / "dataset"), **BY_TIME}
    settings["eval_args"] = {**settings["eval_args"], "order": "RO"}
    grid = {"dataset": ["tiny"], "model": ["VBPR", "BM3"], "seed": [1, 2, 3]}
    mine = plan.Plan("mine", "Mine", grid, settings)
    options = runner.Options(data_path=tmp_path / "dataset")
    assert len(runner.preview(mine, Store(tmp_path / "mine.jsonl"), options)) == 6
    assert counted == {"_from_scratch": 3, "open_source": 9, "of_rows": 9}


@pytest.mark.parametrize("split", ["benchmark", "random"])
def test_it_is_the_identity_of_what_a_run_builds(tmp_path: Path, split: str) -> None:
    settings = tiny_content().write(tmp_path)
    if split == "random":
        settings.update(BY_TIME)
        settings["eval_args"] = {**settings["eval_args"], "order": "RO"}
    data_sets = DataSets()
    stratified = {"missing_protocol": "stratified", "missing_ratio": 0.4}
    for changes in (
        {},
        stratified,
        {**stratified, "missing_seed": 3},
        {"new_items": "stratified"},
        {**stratified, "new_items": "stratified"},
        {"modalities": ["tags", "image"]},
        {"title_dim": 3},
        {"modalities": None},
    ):
        built = prepare("BPR", settings, plugin_defaults=True, **changes)
        assert data_sets.identity(built.config) == built.dataset.identity, changes


def test_data_sets_of_recboles_other_models_have_an_identity(tmp_path: Path) -> None:
    settings = {**tiny_content().write(tmp_path), **BY_TIME, "train_neg_sample_args": None}
    settings["eval_args"] = {"split": {"LS": "valid_and_test"}, "order": "TO"}
    kept = ("data_path", "dataset", "eval_args", "load_col", "train_neg_sample_args", "epochs")
    settings = {key: settings[key] for key in kept}
    one, other = (
        DataSets().identity(prepare("SASRec", {**settings, "seed": seed}).config) for seed in (1, 1)
    )
    assert one == other and one.keys() >= {"catalogue", "split"}
