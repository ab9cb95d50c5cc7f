"""Processes that are killed for good."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from folders import AT_WORK, REPOSITORY, tiny_content
from folders import workplace as workplace

from recbole_missing import run_recbole_missing

pytestmark = AT_WORK

# --------------------------------------------------------------------------- SIGKILL and resume

LONG = {"checkpoint_every": 0, "epochs": 40, "train_batch_size": 50, "stopping_step": 40}
COMMAND = [sys.executable, "-W", "ignore", "-m", "recbole_missing.cli"]
SCRIPT = [sys.executable, "-W", "ignore", str(REPOSITORY / "run_recbole_missing.py")]


def start(words: list[str], folder: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.Popen(
        words, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )  # fmt: skip


def finished(words: list[str], folder: Path) -> str:
    process = start(words, folder)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output[-3000:]
    return output


def kill_once(words: list[str], folder: Path, pattern: str, delay: float) -> bool:
    """Kill a command some seconds after it has written a file; False if it ended before."""
    process = start(words, folder)
    while process.poll() is None and not list(folder.glob(pattern)):
        time.sleep(0.005)
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    return process.returncode == -signal.SIGKILL


def kept(folder: Path) -> dict[str, Any]:
    """The only best checkpoint of a folder."""
    (file,) = (folder / "saved").glob("*.pth")
    return torch.load(file, weights_only=True)


def printed_test(output: str) -> str:
    """What a run prints of its test."""
    return output[output.rindex("test result: ") :].partition("\n")[0]


def prepared(folder: Path, model: str) -> list[str]:
    """Write data and settings of a run into a folder; return the words that run it."""
    settings = {**tiny_content().write(folder), **LONG, "data_path": ".", "checkpoint_dir": "saved"}
    settings |= {"missing_protocol": "stratified", "missing_ratio": 0.4}
    (folder / "run.yaml").write_text(yaml.safe_dump(settings))
    return ["-m", model, "-d", "tiny", "--config_files", "run.yaml"]


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("model", "begin", "delays"),
    [
        ("FREEDOM", COMMAND + ["run"], [0.02]),
        pytest.param("MMSSL", SCRIPT, [0.3, 0.0, 0.1], marks=SLOW),
        pytest.param("SGL", COMMAND + ["run"], [0.0, 0.2, 0.5], marks=SLOW),
        pytest.param("DGMRec", SCRIPT, [0.5, 0.5], marks=SLOW),
    ],
)
def test_a_killed_run_ends_as_an_undisturbed_one(tmp_path, monkeypatch, model, begin, delays):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    prepared(whole, model)
    with monkeypatch.context() as here:
        here.chdir(whole)
        expected = run_recbole_missing(model, "tiny", ["run.yaml"])
    words = [*begin, *prepared(broken, model)]
    generator = random.Random(1)
    killed = 0
    for delay in delays:
        exact = delay + 0.05 * generator.random()
        killed += kill_once([*words, "--resume=auto"], broken, "saved/*.last", exact)
    assert killed
    output = finished([*words, "--resume=auto"], broken)
    assert "is next" in output, "it was resumed"
    assert printed_test(output) == f"test result: {expected['test_result']}"
    one, other = kept(whole), kept(broken)
    assert one["epoch"] == other["epoch"]
    assert one["best_valid_result"] == other["best_valid_result"]
    assert one["state_dict"].keys() == other["state_dict"].keys()
    for key, value in one["state_dict"].items():
        assert torch.equal(value, other["state_dict"][key]), key
    for name in ("epoch", "loss", "valid"):
        assert [e.get(name) for e in one["history"]] == [e.get(name) for e in other["history"]]
    assert not list((broken / "saved").glob("*.last*"))
    assert not list((broken / "saved").glob("*.best-*"))


@pytest.mark.slow
@pytest.mark.parametrize("workers", [[], ["--workers", "2"]])
def test_a_killed_benchmark_ends_as_an_undisturbed_one(tmp_path, workers):
    settings = {**tiny_content().write(tmp_path), **LONG}
    settings |= {"data_path": ".", "checkpoint_dir": "saved"}
    (tmp_path / "tiny" / "tiny.yaml").write_text(yaml.safe_dump(settings))
    grid = {"dataset": ["tiny"], "model": ["LightGCN", "MGCN"], "seed": [1, 2]}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"title": "Mine", "grid": grid}))
    words = [*COMMAND, "benchmark", "mine.yaml", "--data-path", "."]
    finished([*words, "--store", "whole.jsonl"], tmp_path)
    words += ["--store", "broken.jsonl", *workers]
    for delay in (0.0, 1.0, 0.4):
        kill_once(words, tmp_path, ".broken.jsonl.unfinished/*.last", delay)
    finished(words, tmp_path)

    def lines(name):
        found = [json.loads(line) for line in (tmp_path / name).read_text().splitlines()]
        return sorted(found, key=lambda line: line["run"])

    whole, broken = lines("whole.jsonl"), lines("broken.jsonl")
    assert sum(line["cost"]["resumed"] for line in broken) > 0
    for one, other in zip(whole, broken, strict=True):
        for line in (one, other):
            del line["cost"]
        assert one == other
    assert not (tmp_path / ".broken.jsonl.unfinished").exists()
