"""The README's two commands; the blocks of every page are run by tests/test_docs.py."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest
import yaml
from folders import prepare, refused, tiny_content
from folders import workplace as workplace

from recbole_missing import cli, quick_start
from recbole_missing.commands.run import chosen
from recbole_missing.data.sources import modality_settings

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8").replace("\\\n", " ")


def command(pattern: str) -> list[str]:
    """Words of the one README command that matches, without an install step before it."""
    lines = [line for line in README.splitlines() if re.search(pattern, line)]
    (line,) = [line for line in lines if line.startswith(("python", "recbole-missing"))]
    words = shlex.split(line.split("&&")[-1])
    start = {
        "python": [sys.executable],
        "recbole-missing": [sys.executable, "-m", "recbole_missing.cli"],
    }
    words = [str(ROOT / word) if word == "run_recbole_missing.py" else word for word in words]
    return [*start[words[0]], *words[1:]]


def run(words: list[str], folder: Path) -> str:
    """Run in ``folder`` with the checkout importable; returns standard output and error."""
    done = subprocess.run(
        words,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-2000:]
    return done.stdout


def tables(output: str) -> list[list[str]]:
    """First words of the rows of every table of results in an output."""
    found = re.findall(r"^test items .*\n-{4}.*\n((?:\w+.*\n?)+)", output, flags=re.MULTILINE)
    return [[line[:12].strip() for line in table.splitlines()] for table in found]


@pytest.mark.slow
def test_the_main_job_ends_with_a_table(tmp_path: Path) -> None:
    output = run([*command(r"pip install \. && "), "--epochs=1"], tmp_path)
    assert "DGMRec on ml-100k; missing: 40% stratified; imputation: featprop" in output
    groups = ["0 missing", "1 missing", "2 missing"]
    assert tables(output) == [["all", *groups], groups]
    shown = README.split("It ends with")[1].split("```")[1]
    assert tables(shown) == tables(output)
    assert "Train     0" in output, "no progress bar"


def test_ci_runs_the_readme_command() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    assert "README.md" in script
    block = README.split("<!-- test command -->")[1].split("```")[1]
    line = block.split("\n")[1]
    assert line.startswith('python -m pip install ".[test]" && ')
    assert line.endswith("&& python -m pytest")


def test_run_takes_model_and_data_set_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text("model: VBPR\ndataset: other\n")
    (tmp_path / "two.yaml").write_text("model: BM3\n")
    files = [str(tmp_path / name) for name in ("one.yaml", "two.yaml")]
    nothing, given = Namespace(model=None, dataset=None), Namespace(model="MGCN", dataset="mine")
    assert chosen(nothing, []) == ("DGMRec", "ml-100k")
    assert chosen(nothing, files[:1]) == ("VBPR", "other")
    assert chosen(nothing, files) == ("BM3", "other")
    assert chosen(given, files) == ("MGCN", "mine")


# ------------------------------------------------------- settings that RecBole's models pass over


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, object]]:
    """Settings of the runs that the command starts; nothing runs."""
    found: list[dict[str, object]] = []
    monkeypatch.setattr(
        quick_start, "run_recbole_missing", lambda *words, **options: found.append(words[3])
    )
    return found


@pytest.mark.parametrize("model", ["BPR", "LightGCN", "Pop", "SASRec"])
def test_run_refuses_what_nobody_reads(workplace, ran, capsys, model: str) -> None:
    text = refused(capsys, "run", f"--model={model}", "--learnign_rate=0.1")
    assert text == (
        "error: Unknown setting 'learnign_rate'. Did you mean 'learning_rate'? "
        f"{model} would ignore it; correct its name, or remove it.\n"
    )
    assert "Unknown setting 'zzz'. " in refused(capsys, "run", f"--model={model}", "--zzz=1")
    text = refused(capsys, "run", f"--model={model}", "--imputation_layer=3")
    assert "Did you mean 'imputation_layers'?" in text
    assert not ran


@pytest.mark.parametrize(
    "key",
    [
        "learning_rate", "embedding_size", "n_layers", "MASK_ITEM_SEQ", "has_residual", "topk",
        "encoding", "knn_k", "plugin_defaults", "imputation_of_mine", "modality_scale",
        "loss_decimal_place", "gpu_id", "training_neg_sample_num", *modality_settings("sound"),
    ],
)  # fmt: skip
def test_run_takes_what_somebody_reads(workplace, ran, key: str) -> None:
    cli.main(["run", "--model=BPR", f"--{key}=1"])
    assert ran == [{key: "1"}]


def test_a_model_from_outside_may_read_any_setting(workplace, ran) -> None:
    cli.main(["run", "--model=folders:Named", "--learnign_rate=1"])
    assert ran == [{"learnign_rate": "1"}]


def test_python_and_files_may_hold_any_setting(workplace, tmp_path: Path) -> None:
    settings = {**tiny_content().write(tmp_path), "my_own_key": 3}
    assert prepare("BPR", settings).config["my_own_key"] == 3


def test_benchmark_refuses_what_nobody_reads(workplace, tmp_path: Path, capsys) -> None:
    settings = {**tiny_content().write(tmp_path / "dataset"), "my_key": 1}
    del settings["dataset"]
    grid = {"dataset": ["tiny"], "model": ["BPR", "VBPR"], "seed": [1]}
    file = tmp_path / "mine.yaml"
    words = ["benchmark", str(file), "--data-path", str(tmp_path / "dataset"), "--dry-run", "--set"]
    file.write_text(yaml.safe_dump({"title": "Mine", "grid": grid}))
    text = refused(capsys, *words, "epoch=1")
    assert "Unknown setting 'epoch'. Did you mean 'epochs'? BPR would ignore it" in text
    grid["model"] = ["BPR"]
    file.write_text(yaml.safe_dump({"title": "Mine", "grid": grid, "settings": settings}))
    cli.main([*words, "epochs=1", "my_key=2", "seed=[3]"])  # the file itself names my_key
    assert "dataset=tiny model=BPR seed=3 (to do)" in capsys.readouterr().out
    grid["model"] = ["BPR", "folders:Named"]
    file.write_text(yaml.safe_dump({"title": "Mine", "grid": grid, "settings": settings}))
    cli.main([*words, "epoch=1"])
    assert "(refused" not in capsys.readouterr().out
