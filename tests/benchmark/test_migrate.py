"""A store of the first schema becomes one of the present schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from folders import AT_WORK, tiny_content
from folders import workplace as workplace

from recbole_missing import checkpoint
from recbole_missing.benchmark import migrate, plan, runner
from recbole_missing.benchmark.job import Job
from recbole_missing.benchmark.line import settled
from recbole_missing.benchmark.store import Store
from recbole_missing.benchmark.workers import Here

pytestmark = AT_WORK
ELSEWHERE = (
    "checkpoint_dir",
    "data_path",
    "device",
    "eval_batch_size",
    "gpu_id",
    "state",
    "use_gpu",
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    settings = tiny_content().write(tmp_path / "dataset")
    settings.update({"epochs": 1, "checkpoint_dir": str(tmp_path / "saved")})
    (tmp_path / "dataset" / "tiny" / "tiny.yaml").write_text(yaml.safe_dump(settings))
    return tmp_path


def of_first_schema(line: dict[str, Any], folder: Path, number: int) -> dict[str, Any]:
    """The line that the first schema had for this run."""
    yaml_file = folder / "dataset" / "tiny" / "tiny.yaml"
    settings = {"data_path": str(folder / "dataset"), "seed": line["point"]["seed"]}
    job = Job("mine", "Mine", line["point"], settings, [str(yaml_file)])
    state = checkpoint.config_state(job.config())
    state.pop("data_fingerprint", None)
    config = {key: value for key, value in state.items() if key not in ELSEWHERE}
    config["data_fingerprint"] = migrate._fingerprint(config, folder / "dataset" / "tiny")
    run = f"{number:016x}"
    kept = {key: value.replace(line["run"], run) for key, value in line["kept"].items()}
    for old, new in zip(line["kept"].values(), kept.values()):
        (folder / old).replace(folder / new)
    old = {key: value for key, value in line.items() if key not in ("data", "source")}
    return {**old, "run": run, "config": config, "kept": kept}


def test_lines_become_those_that_the_present_code_writes(folder: Path) -> None:
    grid = {"dataset": ["tiny"], "model": ["BPR", "VBPR"], "seed": [1]}
    mine, path = plan.Plan("mine", "Mine", grid), folder / "mine.jsonl"
    options = runner.Options(keep=("users",), data_path=folder / "dataset", say=lambda text: None)
    lines = runner.run(mine, Store(path), Here(), options)
    old = [of_first_schema(line, folder, number) for number, line in enumerate(lines)]
    path.write_text("".join(json.dumps(line) + "\n" for line in old))
    states = runner.preview(mine, Store(path), options)
    assert all(state.endswith("(to do)") for state in states)

    assert migrate.migrate(path, folder / "dataset") == []
    wanted = [{**line, "source": None} for line in lines]
    assert [settled(line) for line in Store(path).lines()] == [settled(line) for line in wanted]
    assert all((folder / line["kept"]["users"]).is_file() for line in lines)
    states = runner.preview(mine, Store(path), options)
    assert [state.endswith("(done)") for state in states] == [True, True, False]
    assert "2 of 2 runs were made by code that was not recorded" in states[2]
    before = path.read_bytes()
    assert migrate.migrate(path, folder / "dataset") == []
    assert path.read_bytes() == before, "a second time changes nothing"


def test_a_line_that_cannot_be_brought_over_stays_and_is_reported(folder: Path) -> None:
    grid = {"dataset": ["tiny"], "model": ["BPR", "VBPR"], "seed": [1]}
    mine, path = plan.Plan("mine", "Mine", grid), folder / "mine.jsonl"
    options = runner.Options(data_path=folder / "dataset", say=lambda text: None)
    lines = runner.run(mine, Store(path), Here(), options)
    old = [of_first_schema(line, folder, number) for number, line in enumerate(lines)]
    old[0]["config"]["imputation"] = old[1]["config"]["imputation"] = "no_such_imputer"
    old[0]["point"] = {**old[0]["point"], "model": "NoSuchModel"}
    path.write_text("".join(json.dumps(line) + "\n" for line in old))
    problems = migrate.migrate(path, folder / "dataset")
    assert len(problems) == 2 and "Unknown model 'NoSuchModel'" in problems[0]
    assert Store(path).lines() == [{**line, "data": None, "source": None} for line in old]

    old[1]["config"]["imputation"] = "featprop"
    path.write_text(json.dumps(old[1]) + "\n")
    image = folder / "dataset" / "tiny" / "image.npy"
    np.save(image, np.load(image) + 1)
    (problem,) = migrate.migrate(path, folder / "dataset")
    assert "line 1" in problem and "must be those that the run read, got others" in problem
    assert Store(path).lines() == [{**old[1], "data": None, "source": None}]
