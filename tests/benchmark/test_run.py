"""Runs of a benchmark: their lines, restarts, failures, workers, and what is kept."""

from __future__ import annotations

import datetime
import gzip
import importlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from folders import AT_WORK, REPOSITORY, Toy, tiny_content
from folders import workplace as workplace
from recbole.evaluator import register
from recbole.evaluator.base_metric import TopkMetric
from recbole.model.general_recommender import BPR
from recbole.quick_start import run_recbole

from recbole_missing import imputation, plugin
from recbole_missing.benchmark import plan, runner
from recbole_missing.benchmark.identified import DataSets, current_source
from recbole_missing.benchmark.job import Identified, Job, _best_epoch
from recbole_missing.benchmark.line import current, settled
from recbole_missing.benchmark.store import Store
from recbole_missing.benchmark.workers import Here, Processes, Ray
from recbole_missing.commands import benchmark
from recbole_missing.config import defaults
from recbole_missing.config.constraints import Float
from recbole_missing.evaluation import users
from recbole_missing.imputation import statistics
from recbole_missing.report import document

pytestmark = AT_WORK
GRID = {"dataset": ["tiny"], "model": ["BPR", "VBPR"], "seed": [1, 2]}


class Broken(Toy):
    """Fails in its second epoch."""

    def on_epoch_start(self, minimise: Any) -> None:
        """Work once."""
        super().on_epoch_start(minimise)
        if self.calls.count("epoch") == 2:
            raise RuntimeError("no more")


KILLED = """import os
import signal

from folders import Toy


class Killed(Toy):
    def __init__(self, config, dataset):
        os.kill(os.getpid(), signal.SIGKILL)  # as for want of memory
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a data set that has a YAML of its own."""
    settings = tiny_content().write(tmp_path / "dataset")
    settings.update({"epochs": 2, "checkpoint_dir": str(tmp_path / "saved")})
    (tmp_path / "dataset" / "tiny" / "tiny.yaml").write_text(yaml.safe_dump(settings))
    return tmp_path


def make(folder: Path, **content: Any) -> plan.Plan:
    """A plan over the tiny data set, from a file."""
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump({"title": "Mine", "grid": GRID, **content}, sort_keys=False))
    return plan.read(path)


def run(
    folder: Path, mine: plan.Plan, name: str = "mine", workers: Any = None, **options: Any
) -> tuple[list[dict], list[str]]:
    """Lines and messages of a benchmark."""
    said: list[str] = []
    options = {"data_path": folder / "dataset", "say": said.append, **options}
    store = Store(folder / f"{name}.jsonl")
    return runner.run(mine, store, workers or Here(), runner.Options(**options)), said


# ------------------------------------------------------------------------------------- the line


def test_a_line_holds_what_recbole_returns_and_how_it_came_about(folder: Path) -> None:
    mine = make(folder, settings={"missing_protocol": "stratified", "missing_ratio": 0.5})
    lines, said = run(folder, mine.only({"model": ["VBPR"], "seed": ["2"]}))
    (line,) = lines
    assert not list((folder / "saved").glob("*.pth")), "nobody asked for the checkpoint"
    assert not (folder / "log_tensorboard").exists()
    settings = yaml.safe_load((folder / "dataset/tiny/tiny.yaml").read_text())
    protocol = {"seed": 2, "missing_protocol": "stratified", "missing_ratio": 0.5}
    same = run_recbole("VBPR", "tiny", config_dict={**settings, **protocol})
    assert line["test"] == same["test_result"]
    assert line["valid"] == same["best_valid_result"]
    assert line["status"] == "done"
    assert line["error"] is None
    assert line["point"] == {"dataset": "tiny", "model": "VBPR", "seed": 2}
    assert [entry["epoch"] for entry in line["epochs"]] == [0, 1]
    assert set(line["epochs"][0]["loss"]) == {"bpr", "reg"}
    assert line["epochs"][line["best_epoch"]]["valid"] == line["valid"]
    assert line["config"]["missing_ratio"] == 0.5
    assert line["config"]["imputation"] == "featprop"
    assert "imputation_alpha" not in line["config"], "nobody read it"
    assert line["data"].keys() == {"id", "catalogue", "split", "features", "masks"}
    assert len(line["source"]) == 32
    assert line["config"]["reg_weight"] is not None, "defaults too"
    assert line["mask"]["missing"].keys() == {"image", "title", "tags"}
    assert {"0 missing", "1 missing"} <= line["groups"].keys()
    assert line["within_groups"].keys() == line["groups"].keys()
    for name, values in line["within_groups"].items():
        assert values.keys() == {*line["groups"][name], "items"}
    assert line["versions"].keys() >= {"recbole", "torch", "recbole-missing", "python"}
    assert line["cost"]["seconds"] > 0
    assert line["cost"]["peak_memory_mib"] > 50
    assert Store(folder / "mine.jsonl").lines() == lines
    assert said[-1].startswith("[1/1] dataset=tiny model=VBPR seed=2: recall@5")


def test_of_equal_epochs_the_last_is_tested_unless_a_tie_does_not_improve() -> None:
    config = {"valid_metric": "Recall@5", "valid_metric_bigger": True, "ties_improve": True}
    values = [0.1, 0.3, 0.3, 0.1]
    history = [{"epoch": n, "valid": {"recall@5": v}} for n, v in enumerate(values)]
    for rule, bigger, smaller in ((True, 2, 3), (False, 1, 0)):
        config["ties_improve"] = rule
        assert _best_epoch(history, config) == bigger
        assert _best_epoch(history, {**config, "valid_metric_bigger": False}) == smaller
    assert _best_epoch([{"epoch": 0}], config) is None


def test_the_rule_of_ties_is_part_of_a_run_where_it_is_not_recboles(folder: Path) -> None:
    """So runs of stores that are older than the setting keep their ids."""
    grid = {**GRID, "seed": [1]}
    mine = make(folder, grid=grid, settings={"learning_rate": 0.0})
    usual, _ = run(folder, mine)
    same, said = run(folder, mine.override({"ties_improve": True}))
    assert [line["run"] for line in same] == [line["run"] for line in usual]
    assert said[0].startswith("mine: 2 runs, 2 done, 0 to do")
    other, _ = run(folder, mine.override({"ties_improve": False}))
    assert not {line["run"] for line in other} & {line["run"] for line in usual}
    assert all("ties_improve" not in line["config"] for line in usual)
    assert [line["config"]["ties_improve"] for line in other] == [False, False]
    assert [line["best_epoch"] for line in (*usual, *other)] == [1, 1, 0, 0]


@pytest.mark.parametrize("value", ["no", 0, None, [True]])
def test_a_rule_of_ties_that_is_none_is_refused_before_any_run(folder: Path, value: Any) -> None:
    mine = make(folder, settings={"ties_improve": value})
    with pytest.raises(ValueError, match=r"(BPR|VBPR): ties_improve must be True or False, got"):
        run(folder, mine)


def test_models_without_training_are_baselines_too(folder: Path) -> None:
    lines, _ = run(folder, make(folder, grid={**GRID, "model": ["Pop", "ItemKNN"], "seed": [1]}))
    assert [line["status"] for line in lines] == ["done", "done"]
    assert all(line["groups"].keys() >= {"0 missing"} for line in lines)
    content = tiny_content()
    counts: dict[str, int] = {}
    for _, item in content.train:
        counts[item] = counts.get(item, 0) + 1
    assert lines[0]["test"]["recall@10"] > 0
    assert max(counts.values()) > 1


def identified(folder: Path, model: str = "VBPR", **settings: Any) -> Identified:
    """A run and what decides it."""
    files = [str(folder / "dataset" / "tiny" / "tiny.yaml")]
    place = {"data_path": str(folder / "dataset"), "dataset": "tiny", "model": model}
    point = {"dataset": "tiny", "model": model, "seed": 1}
    job = Job("mine", "Mine", point, {"seed": 1, **place, **settings}, files)
    return job.identified(DataSets())


def identity(folder: Path, model: str = "VBPR", **settings: Any) -> str:
    """Digest of a run."""
    return identified(folder, model, **settings).run


def test_a_run_is_told_by_what_decides_its_result(folder: Path) -> None:
    first = identity(folder)
    assert identity(folder) == first
    nothing = {
        "eval_batch_size": 50, "checkpoint_dir": "x", "imputation_cache": False, "state": "ERROR",
        "imputation_alpha": 0.3, "missing_seed": 8, "loss_decimal_place": 2, "preset": "none",
    }  # fmt: skip
    for name, value in nothing.items():
        assert identity(folder, **{name: value}) == first, name
    assert identity(folder, worker=1) != first, "negatives are drawn there"
    something = {
        "seed": 3, "reg_weight": 0.7, "imputation": "zeros", "epochs": 3, "test_mask": "train",
        "imputation_layers": 2, "topk": [5], "modalities": ["image", "title"],
    }  # fmt: skip
    for name, value in something.items():
        assert identity(folder, **{name: value}) != first, name
    assert identity(folder, "BPR") != first
    masked = {"missing_protocol": "random_items", "missing_ratio": 0.4}
    assert len({first, *(identity(folder, **masked, missing_seed=seed) for seed in (1, 2))}) == 3


def test_other_features_are_another_run_of_those_who_read_them(folder: Path) -> None:
    first, baseline = identity(folder), identity(folder, "BPR")
    image = folder / "dataset" / "tiny" / "image.npy"
    np.save(image, np.load(image) + 1)
    assert identity(folder) != first
    assert identity(folder, "BPR") == baseline


def test_an_imputer_decides_nothing_of_a_model_that_reads_no_modalities(folder: Path) -> None:
    first = identity(folder, "BPR")
    for name, value in {"imputation": "zeros", "imputation_layers": 2, "reg_weight": 0.1}.items():
        assert identity(folder, "BPR", **{name: value}) == first, name
    assert identity(folder, "BPR", embedding_size=5) != first
    masked = identity(folder, "BPR", missing_protocol="random_items", missing_ratio=0.4)
    assert masked != first, "its results by number of missing modalities are others"


def test_a_new_imputer_and_its_settings_change_no_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = [identified(folder, model) for model in ("BPR", "VBPR")]

    class Newest(imputation.Zeros):
        hyperparameters = {"strength": Float(min=0)}

    load = defaults.load
    monkeypatch.setattr(statistics, "Newest", Newest, raising=False)
    monkeypatch.setitem(imputation.IMPUTERS._table, "newest", f"{statistics.__name__}:Newest")
    monkeypatch.setattr(
        defaults,
        "load",
        lambda path: {
            **load(path),
            **({"imputation_strength": 0.5} if path.name == "overall.yaml" else {}),
        },
    )
    second = [identified(folder, model) for model in ("BPR", "VBPR")]
    assert [job.run for job in second] == [job.run for job in first]
    assert [job.source for job in second] == [job.source for job in first]


def test_one_value_in_other_words_is_one_run(folder: Path) -> None:
    words = {"metrics": ["Recall", "NDCG"], "topk": [5, 10], "valid_metric": "Recall@10"}
    first = identity(folder, **words, learner="adam")
    same = {"metrics": ["ndcg", "RECALL"], "topk": [10, 5], "valid_metric": "recall@10"}
    assert identity(folder, **same, learner="Adam") == first
    assert identity(folder, "BPR", **same, learner="Adam") == identity(
        folder, "BPR", **words, learner="adam"
    )
    for other in ({"topk": [10]}, {"metrics": ["Recall"]}, {"valid_metric": "NDCG@10"}):
        assert identity(folder, **{**words, **other}, learner="adam") != first, other


def test_a_line_claims_an_imputation_only_where_there_is_one(folder: Path) -> None:
    assert identified(folder).config["imputation"]
    assert not {"imputation", "imputation_edges_file"} & identified(folder, "BPR").config.keys()


def test_what_a_user_sets_for_an_outside_model_counts(folder: Path) -> None:
    first = identity(folder, "folders:Named")
    assert identity(folder, "folders:Named", my_own_key=1) != first
    assert identity(folder, "BPR", my_own_key=1) != identity(folder, "BPR")
    assert identity(folder, "folders:Named") != identity(folder, "BPR")


class Dated(BPR):
    """A model from outside with a default that is neither number nor text."""

    properties = {"embedding_size": 4, "start": datetime.date(2020, 1, 1)}


@pytest.mark.parametrize("value", [datetime.date(2020, 1, 1), np.ones(2), {"a": [{1, 2}]}])
def test_a_value_without_identity_is_refused(
    folder: Path, value: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two runs that differ in it alone would have one id."""
    message = r"Dated: start must be a number, text, .* got .*; write it as text or as a list"
    plugin.register_model(Dated)
    monkeypatch.setattr(Dated, "properties", {**Dated.properties, "start": value})
    with pytest.raises(ValueError, match=message):
        identity(folder, "Dated")
    monkeypatch.setattr(Dated, "properties", {**Dated.properties, "start": "2020-01-01"})
    one = identity(folder, "Dated")
    with pytest.raises(ValueError, match=message):
        identity(folder, "Dated", start=value)
    assert identity(folder, "Dated", start="2020-01-02") != one


def test_items_that_were_added_are_to_be_run(folder: Path) -> None:
    by_file = {"load_col": {"inter": ["user_id", "item_id"], "item": ["item_id"]}}
    mine = make(folder, settings={**by_file, "epochs": 1}).only({"model": ["BPR"], "seed": ["1"]})
    run(folder, mine)
    assert run(folder, mine)[1][0].startswith("mine: 1 runs, 1 done, 0 to do")
    items = folder / "dataset" / "tiny" / "tiny.item"
    items.write_text(items.read_text() + "".join(f"i5{n:02}\ta title\ta\n" for n in range(30)))
    options = runner.Options(data_path=folder / "dataset")
    (state,) = runner.preview(mine, Store(folder / "mine.jsonl"), options)
    assert state.endswith("(to do)")


def test_data_that_change_while_a_run_waits_are_refused(folder: Path) -> None:
    job = identified(folder)
    image = folder / "dataset" / "tiny" / "image.npy"
    np.save(image, np.load(image) + 1)
    line = job.execute()
    assert line["status"] == "failed"
    assert "the data must not change while it runs, got another set of features" in line["error"]
    assert "Traceback" not in line["error"], "a refusal of our own"


# ---------------------------------------------------------------------------------------- source


def test_lines_of_other_code_are_kept_named_and_rerun_when_asked(folder: Path) -> None:
    code = "from folders import Toy\n\n\nclass Mine(Toy):\n    changed = {}\n"
    (folder / "ours.py").write_text(code.format(1))
    mine = make(folder, grid={**GRID, "model": ["ours:Mine", "BPR"], "seed": [1]})
    first, said = run(folder, mine)
    assert not any("--rerun-changed" in text for text in said)
    (folder / "ours.py").write_text(code.format(2))
    kept, said = run(folder, mine)
    assert kept == first
    assert current_source(kept[0]) != kept[0]["source"]
    assert current_source(kept[1]) == kept[1]["source"]
    assert current_source({**kept[0], "point": {"model": "nowhere:Model"}}) is None
    assert said[1] == (
        "mine: 1 of 2 runs was made by other code than this; --rerun-changed makes it again"
    )
    options = runner.Options(data_path=folder / "dataset")
    states = runner.preview(mine, Store(folder / "mine.jsonl"), options)
    assert [state[-6:] for state in states[:2]] == ["(done)"] * 2 and states[2] == said[1]
    again, said = run(folder, mine, rerun_changed=True)
    assert said[0].startswith("mine: 2 runs, 1 done, 1 to do")
    assert again[1] == first[1] and again[0]["source"] != first[0]["source"]
    assert again[0]["run"] == first[0]["run"]
    last, said = run(folder, mine, rerun_changed=True)
    assert last == again and "2 done, 0 to do" in said[0]


@pytest.mark.slow
def test_the_source_is_that_of_the_process_that_runs(folder: Path) -> None:
    """A model that is edited between planning and the run of a worker."""
    code = "from folders import Toy\n\n\nclass Late(Toy):\n    changed = {}\n"
    path = folder / "late.py"
    path.write_text(code.format(1))
    mine = make(folder, grid={**GRID, "model": ["late:Late"], "seed": [1]})
    point, settings = mine.points()[0], {"data_path": str(folder / "dataset"), "epochs": 1}
    yaml_file = folder / "dataset" / "tiny" / "tiny.yaml"
    planned = Job("mine", "Mine", point, settings, [str(yaml_file)])
    job = planned.identified(DataSets())
    assert job.execute().source == job.source is not None
    path.write_text(code.format(2))
    os.utime(path, (1, 1))  # within a second Python would take what it compiled before
    ((_, edited),) = Processes(1).run(iter([job]))
    assert edited.done and edited.source not in (None, job.source)
    assert job.execute().source is None, "this process has loaded what the file no longer holds"
    del sys.modules["late"]
    importlib.invalidate_caches()
    assert planned.identified(DataSets()).source == edited.source, "the same in every process"


def test_code_that_nobody_recorded_is_named_too(folder: Path) -> None:
    mine = make(folder).only({"model": ["BPR"], "seed": ["1"]})
    (line,), _ = run(folder, mine)
    store = folder / "mine.jsonl"
    store.write_text(replace(line, source=None).as_json() + "\n")
    _, said = run(folder, mine)
    assert "mine: 1 of 1 runs was made by code that was not recorded; " in said[1]


def test_a_mask_is_told_by_tokens(folder: Path) -> None:
    settings = {"missing_protocol": "random_items", "missing_ratio": 0.5}
    grid = {**GRID, "model": ["BPR"], "seed": [1, 2], "missing_seed": [5, 6]}
    lines, _ = run(folder, make(folder, grid=grid, settings=settings))
    masks = {(line["point"]["seed"], line["point"]["missing_seed"]): line["mask"] for line in lines}
    assert masks[1, 5] == masks[2, 5] != masks[1, 6]


# -------------------------------------------------------------------------------------- restarts


def test_what_is_done_is_not_done_again_and_what_is_new_is(folder: Path) -> None:
    mine = make(folder)
    first, _ = run(folder, mine.only({"model": ["BPR"]}))
    again, said = run(folder, mine)
    assert said[0].startswith("mine: 4 runs, 2 done, 2 to do; about")
    assert again[:2] == first
    changed, said = run(folder, mine.override({"epochs": 1}))
    assert said[0].startswith("mine: 4 runs, 0 done, 4 to do")
    assert len(Store(folder / "mine.jsonl").lines()) == 8


def test_a_failure_stops_nothing_and_is_repeated_when_asked(folder: Path) -> None:
    sys.modules.setdefault("broken_models", sys.modules[__name__])
    mine = make(folder, grid={**GRID, "model": ["broken_models:Broken", "BPR"], "seed": [1]})
    lines, said = run(folder, mine)
    assert [line["status"] for line in lines] == ["failed", "done"]
    assert lines[0]["error"].startswith("RuntimeError: no more (test_run.py, line")
    assert "Traceback (most recent call last)" in lines[0]["error"], "a bug keeps its traceback"
    assert "in on_epoch_start" in lines[0]["error"]
    assert lines[0]["config"]["model"] == "Broken"
    assert lines[0]["test"] is None
    assert "FAILED: RuntimeError: no more" in said[1]
    again, said = run(folder, mine)
    assert again == lines
    assert "1 failed before (repeat them with --retry-failed), 0 to do" in said[0]
    retried, said = run(folder, mine, retry_failed=True)
    assert [line["status"] for line in retried] == ["failed", "done"]
    assert len(Store(folder / "mine.jsonl").lines()) == 3
    assert len(Store(folder / "mine.jsonl").latest()) == 2


def test_what_is_not_a_number_is_null_in_a_line(folder: Path) -> None:
    job = Job("mine", "Mine", {"dataset": "tiny", "model": "BPR", "seed": 1}, {})
    line = Identified(job, "abc", {"x": float("inf")}).line(
        "done", None, {"epochs": [{"loss": {"bpr": float("nan"), "reg": 0.5}}]}, {}
    )
    assert line["epochs"] == [{"loss": {"bpr": None, "reg": 0.5}}]
    Store(folder / "mine.jsonl").append(line)
    assert Store(folder / "mine.jsonl").lines() == [line]


def test_a_measure_is_in_the_line_and_a_model_without_modalities_has_none(folder: Path) -> None:
    settings = {"missing_protocol": "stratified", "missing_ratio": 0.5, "imputation": "mean"}
    lines, _ = run(folder, make(folder, settings=settings))
    assert all(line["restoration"] is None and line["retrieval"] is None for line in lines)
    asked = make(folder, settings=settings, measures=["restoration", "retrieval"])
    lines, _ = run(folder, asked)
    for line in lines:
        if line["point"]["model"] == "BPR":
            assert line["restoration"] == {} and line["retrieval"] == {}
            continue
        assert line["restoration"].keys() == line["mask"]["missing"].keys()
        for name, measures in line["restoration"].items():
            assert list(measures) == ["items", "cosine", "relative_mse", "hit@10", "chance@10"]
            assert 0 < measures["items"] <= line["mask"]["missing"][name]
            assert (measures["cosine"], measures["relative_mse"]) == (0, 1)
    again, said = run(folder, asked)
    assert again == lines, "a line with every measure answers"
    nothing, _ = run(folder, make(folder, settings={}, measures=["restoration"]))
    assert all(line["status"] == "done" and line["restoration"] == {} for line in nothing)


def test_a_shared_store_serves_two_benchmarks_with_one_run(folder: Path) -> None:
    first, _ = run(folder, make(folder))
    other = make(folder, title="Other")
    other = plan.Plan("other", "Other", {**other.grid, "model": ["VBPR"]})
    second, said = run(folder, other)
    assert said[0].startswith("other: 2 runs, 2 done, 0 to do")
    assert [line["benchmark"] for line in second] == ["other", "other"]
    assert [line["test"] for line in second] == [line["test"] for line in first[2:]]
    assert len(Store(folder / "mine.jsonl").lines()) == 6


def test_a_line_takes_its_place_in_a_grid_that_has_grown(folder: Path) -> None:
    ratio = {"missing_protocol": "random_items", "missing_ratio": 0.4}
    one = {**GRID, "model": ["BPR"], "seed": [1]}
    run(folder, make(folder, grid=one, settings=ratio))
    settings = {"missing_protocol": "random_items"}
    grown = make(folder, grid={**one, "missing_ratio": [0.4, 0.6]}, settings=settings)
    lines, said = run(folder, grown)
    assert said[0].startswith("mine: 2 runs, 1 done, 1 to do")
    assert [line["point"]["missing_ratio"] for line in lines] == [0.4, 0.6]
    assert run(folder, grown)[0] == lines
    assert len(Store(folder / "mine.jsonl").latest()) == 2


def test_a_good_run_outlives_a_later_failure(folder: Path) -> None:
    mine = make(folder).only({"model": ["BPR"], "seed": ["1"]})
    (good,), _ = run(folder, mine)
    Store(folder / "mine.jsonl").append({**good, "status": "failed", "test": None})
    lines, said = run(folder, mine)
    assert lines == [good]
    assert said[0].startswith("mine: 1 runs, 1 done, 0 to do")


def test_an_axis_that_decides_nothing_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="eval_users must not be an axis, it decides no result"):
        run(folder, make(folder, grid={**GRID, "eval_users": [10, 20]}))


def test_two_points_that_are_one_run_are_run_once(folder: Path) -> None:
    """As the imputers are to a model that reads no modalities."""
    grid = {**GRID, "seed": [1], "imputation": ["zeros", "mean"]}
    lines, said = run(folder, make(folder, grid=grid, settings={"epochs": 1}))
    assert said[0] == (
        "mine: 1 of 4 points are the same run as an earlier one, and are left out: dataset=tiny "
        "model=BPR seed=1 imputation=mean"
    )
    assert [(line["point"]["model"], line["point"]["imputation"]) for line in lines] == [
        ("BPR", "zeros"),
        ("VBPR", "zeros"),
        ("VBPR", "mean"),
    ]


class Odd(TopkMetric):
    """A metric without values of single users."""

    def calculate_metric(self, dataobject: Any) -> dict[str, float]:
        """Give a number."""
        return {"odd@10": 0.0}


def test_what_could_only_fail_after_training_is_refused_before(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampled = {"eval_args": {"mode": {"valid": "uni10", "test": "uni10"}}}
    with pytest.raises(ValueError, match="users and lists need a ranking of all items"):
        run(folder, make(folder, settings=sampled), keep=("users",))
    odd = {"metrics": ["Recall", "Odd"]}
    monkeypatch.setitem(register.metrics_dict, "odd", Odd)
    monkeypatch.setitem(register.metric_information, "odd", Odd.metric_need)
    monkeypatch.setitem(register.metric_types, "odd", Odd.metric_type)
    with pytest.raises(ValueError, match=r"users needs metrics .* got Odd without it"):
        run(folder, make(folder, settings=odd), keep=("users",))
    search = {"space": {"learning_rate": [0.1]}}
    with pytest.raises(ValueError, match="eval_step must be an int >= 1, got 0"):
        run(folder, make(folder, settings={"eval_step": 0}, search=search))
    with pytest.raises(ValueError, match="at least one run must be left"):
        run(folder, make(folder, exclude=[{"seed": [1, 2]}]))


def test_data_sets_that_are_absent_are_left_out_and_said_so(folder: Path) -> None:
    mine = make(folder, grid={**GRID, "dataset": ["tiny", "sports"], "model": ["BPR"]})
    lines, said = run(folder, mine)
    assert len(lines) == 2
    assert "2 runs left out" in said[0]
    assert said[0].endswith("absent: sports")
    with pytest.raises(ValueError, match="at least one of its data sets must be there"):
        run(folder, mine.only({"dataset": ["sports"]}))


def test_a_wrong_setting_stops_everything_before_it_starts(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"mine \(dataset tiny, model VBPR, seed 1\): Unknown"):
        run(folder, make(folder, settings={"missing_ration": 0.5}).only({"model": ["VBPR"]}))
    with pytest.raises(ValueError, match="nowhere:Model"):
        run(folder, make(folder, grid={**GRID, "model": ["nowhere:Model"]}))
    assert not (folder / "mine.jsonl").exists()


def test_a_point_that_is_refused_is_a_failed_line_and_stops_no_other(folder: Path) -> None:
    grid = {**GRID, "model": ["VBPR"], "seed": [1], "missing_ratio": [0.3, 1.0, 66.6]}
    mine = make(folder, grid=grid, settings={"missing_protocol": "random_items"})
    options = runner.Options(data_path=folder / "dataset")
    none, wrong = (
        "modality 'image': must be observed for at least one item, got 0 of 30; lower "
        "missing_ratio or remove it from `modalities`.",
        "VBPR: missing_ratio must be a number between 0 and 1, got 66.6.",
    )
    start = "dataset=tiny model=VBPR seed=1 missing_ratio"
    assert runner.preview(mine, Store(folder / "mine.jsonl"), options) == [
        f"{start}=0.3 (to do)",
        f"{start}=1.0 (refused: {none})",
        f"{start}=66.6 (refused: {wrong})",
    ]
    assert not (folder / "mine.jsonl").exists(), "a preview writes nothing"
    lines, said = run(folder, mine)
    assert [line["status"] for line in lines] == ["done", "failed", "failed"]
    assert [line["error"] for line in lines] == [None, none, wrong]
    assert lines[1]["point"]["missing_ratio"] == 1.0 and lines[1]["config"]["model"] == "VBPR"
    assert f"mine: {start}=66.6 (refused: {wrong})" in said
    assert not document.sources_note(lines, current_source), "no code made what was refused"
    assert [line["run"] for line in run(folder, mine)[0]] == [line["run"] for line in lines]
    stored = Store(folder / "mine.jsonl").lines()
    assert len(stored) == 3, "what is refused again is not written again"
    with pytest.raises(ValueError, match=r"mine \(.* missing_ratio 1.0\): modality 'image': must"):
        run(folder, mine.only({"missing_ratio": ["1.0", "66.6"]}))


def test_a_point_that_was_refused_and_is_mended_counts_once(folder: Path) -> None:
    settings = {"missing_protocol": "random_items", "image_features": "gone.npy"}
    grid = {**GRID, "model": ["VBPR"], "seed": [1], "modalities": [["image"], ["title"]]}
    mine = make(folder, grid=grid, settings={**settings, "missing_ratio": 0.2})
    first, _ = run(folder, mine)
    assert [line["status"] for line in first] == ["done", "failed"]
    assert "gone.npy" in first[1]["error"]
    (folder / "dataset/tiny/gone.npy").write_bytes((folder / "dataset/tiny/image.npy").read_bytes())
    assert all(line["status"] == "done" for line in run(folder, mine)[0])
    kept, others = current(Store(folder / "mine.jsonl").latest())
    assert [line["status"] for line in kept] == ["done", "done"] and others == 1


def command(folder: Path, *words: str) -> subprocess.Popen:
    """The command in another process."""
    paths = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests")])
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "recbole_missing.cli", "benchmark", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.slow
def test_killed_in_the_middle_and_restarted_it_ends_as_undisturbed(folder: Path) -> None:
    mine = make(folder, grid={**GRID, "model": ["BPR", "VBPR", "BM3"]})
    undisturbed, _ = run(folder, mine, "undisturbed")
    store = Store(folder / "killed.jsonl")
    first = command(folder, "mine.yaml", "--store", "killed.jsonl")
    while not store.path.exists() or store.path.read_bytes().count(b"\n") < 2:
        assert first.poll() is None, first.communicate()[0]
        time.sleep(0.01)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    before = store.lines()
    assert 2 <= len(before) < 6
    with store.path.open("ab") as file:  # it died while it wrote
        file.write(undisturbed[len(before)].as_json().encode()[:1000])
    second = command(folder, "mine.yaml", "--store", "killed.jsonl")
    output, _ = second.communicate()
    assert second.returncode == 0, output
    assert f"6 runs, {len(before)} done" in output
    assert store.lines()[: len(before)] == before
    assert [settled(line) for line in store.lines()] == [settled(line) for line in undisturbed]


@pytest.mark.slow
def test_two_processes_share_a_store_and_run_nothing_twice(folder: Path) -> None:
    mine = make(folder)
    undisturbed, _ = run(folder, mine, "undisturbed")
    both = [command(folder, "mine.yaml", "--store", "both.jsonl") for _ in range(2)]
    outputs = [one.communicate()[0] for one in both]
    assert [one.returncode for one in both] == [0, 0], outputs
    lines = Store(folder / "both.jsonl").lines()
    assert len(lines) == 4
    by_run = {line["run"]: settled(line) for line in lines}
    assert by_run == {line["run"]: settled(line) for line in undisturbed}
    assert all("4 of 4 runs are done" in output for output in outputs)


# --------------------------------------------------------------------------------------- workers


@pytest.mark.slow
def test_processes_give_what_this_process_gives_and_outlive_one_that_dies(folder: Path) -> None:
    (folder / "killed.py").write_text(KILLED)
    models = ["BPR", "killed:Killed", "VBPR"]
    mine = make(folder, grid={**GRID, "model": models, "seed": [1]})
    here, _ = run(folder, mine.only({"model": ["BPR", "VBPR"]}), "here")
    lines, _ = run(folder, mine, workers=Processes(2, threads=1))
    assert [line["status"] for line in lines] == ["done", "failed", "done"]
    assert "died with signal 9 (out of memory?)" in lines[1]["error"]
    assert [settled(lines[0]), settled(lines[2])] == [settled(line) for line in here]
    assert lines[0]["cost"]["threads"] == 1


def test_processes_share_out_the_gpus(folder: Path) -> None:
    workers = Processes(3, threads=1)
    workers.n_gpus = 2
    point = {"dataset": "tiny", "model": "BPR", "seed": 1}
    job = Identified(Job("mine", "Mine", point, {"epochs": 1}), "abc", {})
    found = [workers.placed(job, place).job.settings for place in range(3)]
    assert [settings["gpu_id"] for settings in found] == ["0", "1", "0"]
    own = Identified(Job("mine", "Mine", point, {"gpu_id": "5"}), "abc", {})
    assert workers.placed(own, 1) is own
    workers.n_gpus = 1
    assert workers.placed(job, 1) is job


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_ray_gives_what_this_process_gives_and_outlives_a_worker_that_dies(folder: Path) -> None:
    (folder / "killed.py").write_text(KILLED)
    models = ["killed:Killed", "VBPR"]
    mine = make(folder, grid={**GRID, "model": models, "seed": [1]})
    here, _ = run(folder, mine.only({"model": ["VBPR"]}), "here")
    lines, _ = run(folder, mine, workers=Ray("local"))
    assert lines[0]["status"] == "failed"
    assert "the Ray worker died" in lines[0]["error"]
    lines = lines[1:]
    assert [settled(line) for line in lines] == [settled(line) for line in here]


# ------------------------------------------------------------------------------------------ kept


def test_metrics_of_users_average_to_the_result(folder: Path) -> None:
    mine = make(folder, settings={"metric_decimal_place": 9}).only({"seed": ["1"]})
    lines, _ = run(folder, mine, keep=("users", "lists", "checkpoint"))
    for line in lines:
        found = users.read_metrics(folder / line["kept"]["users"])
        assert found.keys() == line["test"].keys()
        for name, by_user in found.items():
            assert len(by_user) == 40
            assert np.mean(list(by_user.values())) == pytest.approx(line["test"][name], abs=1e-6)
    again, said = run(folder, mine, keep=("users", "lists", "checkpoint"))
    assert again == lines
    (folder / lines[0]["kept"]["lists"]).unlink()
    _, said = run(folder, mine, keep=("lists",))
    assert said[0].startswith("mine: 2 runs, 1 done, 1 to do"), "a lost file is made again"


def test_kept_lists_are_those_that_the_metrics_are_of(folder: Path) -> None:
    mine = make(folder).only({"model": ["VBPR"], "seed": ["1"]})
    (line,), _ = run(folder, mine, keep=("users", "lists"))
    rows = gzip.decompress((folder / line["kept"]["lists"]).read_bytes()).decode().splitlines()
    assert rows[0] == "user_id\titem_id\trank\tscore"
    lists: dict[str, list[str]] = {}
    for row in rows[1:]:
        user, item, rank, _ = row.split("\t")
        lists.setdefault(user, []).append(item)
        assert int(rank) == len(lists[user])
    content = tiny_content()
    wanted: dict[str, set[str]] = {}
    for user, item in content.test:
        wanted.setdefault(user, set()).add(item)
    found = users.read_metrics(folder / line["kept"]["users"])["recall@5"]
    for user, items in wanted.items():
        recall = len(items & set(lists[user][:5])) / len(items)
        assert found[user] == pytest.approx(recall)
    seen = {*content.train, *content.valid}
    assert not seen & {(user, item) for user, items in lists.items() for item in items}


def test_a_model_outside_the_package_goes_by_module_and_class() -> None:
    assert plugin.get_model("folders:Toy") is Toy
    with pytest.raises(ValueError, match="'folders:Tyo' must be module:Class"):
        plugin.get_model("folders:Tyo")


# ---------------------------------------------------------------------------------------- search


def test_a_search_looks_at_validation_alone_and_its_winner_is_tested(folder: Path) -> None:
    space = {"space": {"learning_rate": [1e-5, 0.05]}}
    mine = make(folder, search=space, settings={"epochs": 4}).only({"model": ["VBPR"]})
    lines, said = run(folder, mine)
    stored = Store(folder / "mine.jsonl").lines()
    trials = [line for line in stored if line["stage"] == "search"]
    assert [line["trial"] for line in trials] == [{"learning_rate": 1e-5}, {"learning_rate": 0.05}]
    assert all(line["test"] is None and line["groups"] is None for line in trials)
    assert all(line["point"]["seed"] == 1 for line in trials)
    best = max(trials, key=lambda line: line["valid"]["recall@5"])
    assert [line["point"]["seed"] for line in lines] == [1, 2]
    assert all(line["search"]["chosen"] == best["trial"] for line in lines)
    rate = best["trial"]["learning_rate"]
    assert all(line["config"]["learning_rate"] == rate for line in lines)
    assert lines[0]["valid"] == best["valid"]
    assert said[0].startswith("mine (search): 2 runs, 0 done, 2 to do")
    assert run(folder, mine)[0] == lines


def test_a_search_without_hope_in_one_cell_goes_on_in_the_others(folder: Path) -> None:
    grid = {**GRID, "model": ["VBPR"], "missing_ratio": [0.3, 1]}
    settings = {"missing_protocol": "random_items", "epochs": 1}
    space = {"space": {"learning_rate": [0.01, 0.05]}}
    mine = make(folder, grid=grid, settings=settings, search=space)
    lines, _ = run(folder, mine)
    assert [line["status"] for line in lines] == ["done", "done", "failed", "failed"]
    assert [line["point"]["missing_ratio"] for line in lines] == [0.3, 0.3, 1, 1]
    assert lines[2]["error"] == (
        "search: a trial must succeed, got 2 failures, the first: modality 'image': must be "
        "observed for at least one item, got 0 of 30; lower missing_ratio or remove it from "
        "`modalities`."
    )
    options = runner.Options(data_path=folder / "dataset")
    listed = runner.preview(mine, Store(folder / "mine.jsonl"), options)
    assert sum("missing_ratio=1 learning_rate" in one and "(refused:" in one for one in listed) == 2
    hopeless = mine.only({"missing_ratio": ["1"]})
    with pytest.raises(ValueError, match="must be observed for at least one item"):
        run(folder, hopeless)


def test_a_cell_whose_trials_all_fail_while_they_run_stops_no_other(folder: Path) -> None:
    sys.modules.setdefault("broken_models", sys.modules[__name__])
    grid = {**GRID, "model": ["broken_models:Broken", "VBPR"], "seed": [1]}
    mine = make(folder, grid=grid, search={"space": {"learning_rate": [0.01]}})
    lines, _ = run(folder, mine)
    assert [line["status"] for line in lines] == ["done", "failed"]
    assert (
        "a trial must succeed, got 1 failures, the first: RuntimeError: no more" in lines[1].error
    )
    with pytest.raises(ValueError, match=r"mine \(.*Broken, seed 1\): search: a trial must succ"):
        run(folder, mine.only({"model": ["broken_models:Broken"]}))


def test_a_search_that_is_changed_chooses_anew(folder: Path) -> None:
    space = {"learning_rate": [0.05]}
    settings = {"epochs": 4, "embedding_size": 16}
    grid = {**GRID, "model": ["VBPR"], "seed": [1]}
    run(folder, make(folder, grid=grid, settings=settings, search={"space": space}))
    wider = {"space": {**space, "embedding_size": [1, 16]}}
    mine = make(folder, grid=grid, settings={"epochs": 4, "embedding_size": 1}, search=wider)
    (line,), said = run(folder, mine)
    assert said[0].startswith("mine (search): 2 runs, 1 done, 1 to do")
    stored = Store(folder / "mine.jsonl").latest()
    trials = [one for one in stored if one["stage"] == "search"]
    best = max(trials, key=lambda one: one["valid"]["recall@5"])
    assert best["trial"].keys() == {"learning_rate", "embedding_size"}
    assert line["search"]["chosen"] == best["trial"]
    assert line["config"]["embedding_size"] == best["trial"]["embedding_size"]


def test_a_model_without_a_space_is_tested_as_it_is(folder: Path) -> None:
    grid = {**GRID, "model": ["Pop", "VBPR"], "imputation": ["zeros"]}
    space = {"space_of": {"VBPR": {"learning_rate": [0.01, 0.05]}}}
    mine = make(folder, grid=grid, search=space)
    options = runner.Options(data_path=folder / "dataset")
    pop = mine.only({"model": ["Pop"]})
    lines, said = run(folder, pop)
    assert [(line["status"], line["search"]) for line in lines] == [("done", None)] * 2
    assert said[0].startswith("mine: 2 runs, 0 done, 2 to do"), "there is no search"
    listed = runner.preview(mine, Store(folder / "mine.jsonl"), options)
    assert listed == [
        "dataset=tiny model=VBPR seed=1 imputation=zeros learning_rate=0.01 (to do)",
        "dataset=tiny model=VBPR seed=1 imputation=zeros learning_rate=0.05 (to do)",
        "dataset=tiny model=Pop seed=1 imputation=zeros (done)",
        "dataset=tiny model=Pop seed=2 imputation=zeros (done)",
        "dataset=tiny model=VBPR seed=1 imputation=zeros (after the search)",
        "dataset=tiny model=VBPR seed=2 imputation=zeros (after the search)",
    ]
    assert runner.preview(pop, Store(folder / "mine.jsonl"), options) == listed[2:4]


def test_cells_that_share_their_trials_have_one_choice(folder: Path) -> None:
    """The imputer decides nothing of BPR; all its cells must be tuned, not the last one alone."""
    grid = {**GRID, "model": ["Pop", "BPR", "VBPR"], "imputation": ["zeros", "mean"], "seed": [1]}
    space = {"learning_rate": [1e-5, 0.05]}
    mine = make(folder, grid=grid, search={"space_of": {"BPR": space, "VBPR": space}})
    options = runner.Options(data_path=folder / "dataset")
    listed = runner.preview(mine, Store(folder / "mine.jsonl"), options)
    assert sum("model=Pop" in one for one in listed) == 1, "nor is it refused for want of an effect"
    lines, said = run(folder, mine)
    assert said[0].startswith("mine (search): 6 runs, 0 done, 6 to do")
    assert [line["point"]["model"] for line in lines] == ["Pop", "BPR", "VBPR", "VBPR"]
    assert [line["search"] and line["search"]["trials"] for line in lines] == [None, 2, 2, 2]
    assert lines[1]["config"]["learning_rate"] == lines[1]["search"]["chosen"]["learning_rate"]


# --------------------------------------------------------------------------------------- command


def call(*words: str) -> None:
    """The command in this process."""
    from argparse import ArgumentParser

    parser = ArgumentParser()
    benchmark.arguments(parser)
    benchmark.execute(parser.parse_args(words))


def test_the_command(folder: Path, capsys: Any) -> None:
    make(folder)
    call("mine.yaml", "--dry-run", "--only", "model=VBPR")
    assert capsys.readouterr().out.splitlines() == [
        "dataset=tiny model=VBPR seed=1 (to do)",
        "dataset=tiny model=VBPR seed=2 (to do)",
    ]
    (folder / "mine.hyper").write_text("learning_rate choice [0.01,0.02]\n")
    call(
        "mine.yaml", "--only", "model=VBPR", "seed=1", "--set", "epochs=1", "--space", "mine.hyper"
    )
    output = capsys.readouterr().out
    assert "mine (search): 2 runs" in output
    assert "1 of 1 runs are done, in mine.jsonl" in output
    assert "Next: recbole-missing report mine.jsonl --benchmark mine.yaml" in output
    assert (folder / "mine.jsonl").is_file()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--workers", "0"], "--workers: must be an int >= 1, got 0"),
        (["--workers", "2", "--ray", "auto"], "must not come together"),
        (["--search", "random"], "need a space"),
        (["--set", "epochs"], "--set: must read NAME=VALUE"),
        (["--quick"], "must have a key `quick`"),
    ],
)
def test_options_that_are_refused(folder: Path, words: list[str], message: str) -> None:
    make(folder)
    with pytest.raises(ValueError, match=message):
        call("mine.yaml", *words)


def test_a_failed_run_is_the_exit_code(folder: Path) -> None:
    sys.modules.setdefault("broken_models", sys.modules[__name__])
    make(folder, grid={**GRID, "model": ["broken_models:Broken"], "seed": [1]})
    with pytest.raises(SystemExit) as ended:
        call("mine.yaml")
    assert ended.value.code == 1
