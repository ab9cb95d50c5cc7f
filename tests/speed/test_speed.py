"""The scripts that measure: what a process answers, ratios, differences, exponents, rows."""

from __future__ import annotations

import io
import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from folders import tiny_content
from speed import epochs, growth, one_model, printed


def order(tmp_path: Path, model: str, batches: int | None = None) -> dict[str, Any]:
    settings = tiny_content().write(tmp_path)
    names = {"model": model, "dataset": settings.pop("dataset"), "config_files": []}
    return {**names, "settings": settings, "batches": batches}


def answers(tmp_path: Path, batches: int | None, *asked: str) -> list[dict[str, Any]]:
    """What a process for BM3 answers, asked in this one."""
    found: list[str] = []
    first = {**order(tmp_path, "BM3", batches), "root": str(epochs.ROOT), "born": 0.0}
    one_model.serve([json.dumps(first), *asked], found.append)
    return [json.loads(text) for text in found]


def result(*seconds: float, loss: float = 1.0, rows: int = 7) -> dict[str, Any]:
    """What is known of a model whose epochs took these seconds."""
    times = [{"cpu": s, "wall": 2 * s, "terms": {"bpr": loss}, "measured": 30} for s in seconds]
    first = {"cpu": 3.0, "wall": 4.0, "terms": {"bpr": loss}, "rows": rows, "n_batches": 30}
    return {
        "first_step": first,
        "epochs": times,
        "evaluation": {"cpu": 1.0, "wall": 1.5},
        "memory": {"peak": 0.5},
    }


def test_a_process_answers(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", list(sys.path))
    monkeypatch.setattr("recbole.utils.init_logger", lambda config: None)  # it leaves open files
    asked = ("first_step", "epoch", "evaluation", "memory", "epoch")
    first, epoch, evaluation, memory, again = answers(tmp_path, None, *asked)
    assert first["n_batches"] == 3
    assert first["wall"] > first["cpu"] > 0
    assert epoch["measured"] == 3
    assert epoch["cpu"] > 0
    assert evaluation["wall"] > 0
    assert memory["peak"] > 0
    assert set(first["terms"]) == set(epoch["terms"]) == set(again["terms"])
    assert again["terms"] != epoch["terms"]  # the next epoch, not the same one
    some_first, some = answers(tmp_path, 1, "first_step", "epoch")
    assert some_first["terms"] == first["terms"]
    assert some_first["rows"] == first["rows"]
    assert some["measured"] == 1
    assert some["cpu"] == pytest.approx(some["start"] + 2 * some["batch"])


def test_a_process_that_ends_gives_a_reason(tmp_path):
    (tmp_path / "recbole_missing.py").write_text("raise RuntimeError('broken')\n")
    found = epochs.run([tmp_path], {"model": "BM3", "batches": None}, threads=1, rounds=1)
    assert found == "failed: RuntimeError: broken"


@pytest.mark.slow
def test_two_processes_in_turn(tmp_path):
    roots = [epochs.ROOT, epochs.ROOT]
    old, new = epochs.run(roots, order(tmp_path, "VBPR"), threads=1, rounds=2)
    row = printed.pair_row("VBPR", 1, old, new)
    assert row[:2] == ["VBPR", "1"]
    assert row[9].startswith("0e+00")
    assert row[10].startswith("0e+00")
    assert len(row) == len(printed.PAIR)
    assert len(printed.ratios(old, new)) == 2


def test_rows_of_tables():
    row = printed.pair_row("VBPR", 1, result(2.0, 4.0, 3.0), result(1.0, 1.0, 1.0))
    assert row[2:6] == ["3.00", "1.00", "3.00 (2.00 to 4.00)", "3.00"]
    assert row[6:9] == ["1.00 -> 1.00", "4.00 -> 4.00", "0.50 -> 0.50"]
    assert row[9:] == ["0e+00 bpr", "0e+00 bpr"]
    assert len(row) == len(printed.PAIR)
    other = printed.pair_row("VBPR", 1, result(2.0), result(1.0, rows=8))
    assert other[9:] == ["other batches", "other batches"]
    alone = printed.alone_row("BM3", 2, result(10.0, 14.0), 36.0)
    assert alone == ["BM3", "2", "12.0", "24.0", "1.00", "1.50", "3.00", "4.00", "0.50", "1.50"]
    assert len(alone) == len(printed.ALONE)
    scaled = result(1.0)
    scaled["epochs"][0]["measured"] = 2
    assert printed.label("MMSSL", scaled) == "MMSSL (scaled from 2 of 30 batches)"
    assert printed.head(["a", "b"]) == "| a | b |\n|---|---|"


def test_differences_of_losses():
    assert printed.difference({"a": 1.0, "b": 2.0}, {"a": 1.0, "b": 2.2}) == pytest.approx(
        (0.1, "b")
    )
    gap, name = printed.difference({"bpr": 1.0, "club": 1e-8}, {"bpr": 1.0, "club": 2e-8})
    assert (gap, name) == (pytest.approx(1e-5), "club")  # of a thousandth of the loss
    assert printed.difference({"a": 0.0}, {"a": 0.0}) == (0.0, "a")
    assert printed.difference({"a": 1.0}, {"b": 1.0}) == (float("inf"), "a, b")


def test_times_the_published_code():
    assert epochs.times_published("DGMRec", 3.0) == pytest.approx(27.2 / 19.6 * 3)
    assert epochs.published_cells("DGMRec", 3.0) == ["27.2", "19.6", "4.2"]
    assert epochs.published_cells("LATTICE", 2.0) == ["> 32", "2.5", "> 25.6"]
    assert epochs.published_cells("NGCFM", 2.0) == ["-", "-", "-"]
    assert epochs.summary({"A": 3.0, "B": 2.0, "C": 9.0}).endswith("median 3.0, smallest 2.0 (B)")


def test_options():
    known = epochs.parsed(["--batches", "20", "MMSSL=2", "--train_batch_size=2048"])
    assert known.batches == {"*": 20, "MMSSL": 2}
    assert known.settings["train_batch_size"] == "2048"
    assert known.settings["gpu_id"] == ""
    assert epochs.parsed(["--device", "cuda"]).settings["gpu_id"] == "0"


AS_COMPARED = ["--dataset", "tiktok", "--train_batch_size=2048", "--preset=none"]


@pytest.mark.parametrize(
    ("more", "commit", "same"),
    [
        ([], "c8e375f", True),
        ([], "c8e375f12", True),
        ([], "c8e375f+", False),
        ([], "8b51720", False),
        (["--dataset", "ml-100k"], "c8e375f", False),
        (["--device", "cuda"], "c8e375f", False),
        (["--embedding_size=8"], "c8e375f", False),
        (["--preset=tiktok"], "c8e375f", False),
    ],
)
def test_a_run_as_that_against_the_published_code(more, commit, same):
    assert epochs.is_as_compared(epochs.parsed([*AS_COMPARED, *more]), commit) is same


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--pears", "3"], "unrecognized"),
        (["--pairs", "0"], "at least 1"),
        (["--epochs", "0"], "at least 1"),
        (["--threads", "0"], "at least 1"),
        (["--batches", "0"], "at least 1"),
        (["--batches", "x"], "at least 1"),
        (["--batches", "VPBR=3"], "VPBR=3"),
        (["--json", "/absent/file"], "/absent/file"),
        (["--data-path", "/absent"], "must hold a folder 'ml-100k'"),
        (["--config_files", "absent.yaml"], "absent.yaml"),
        (["--against", "no such commit"], "must be a commit or a folder"),
        (["--against", str(epochs.ROOT / "docs")], "must hold recbole_missing"),
    ],
)
def test_a_wrong_option_is_refused_before_anything_is_measured(words, said, capsys):
    with pytest.raises(SystemExit, match="2"):
        epochs.parsed(words)
    assert said in capsys.readouterr().err


def test_a_checkout_without_the_package_is_refused(tmp_path):
    order = {"model": "BM3", "batches": None}
    found = epochs.run([tmp_path], order, threads=1, rounds=1)
    assert found.startswith("failed: ")
    assert "must hold recbole_missing" in found or "No module named" in found


def test_the_first_step_counts_no_time_of_another_process(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", list(sys.path))
    monkeypatch.setattr("recbole.utils.init_logger", lambda config: None)  # it leaves open files
    first = {**order(tmp_path, "BM3"), "root": str(epochs.ROOT), "born": time.time() - 1000}
    measured = one_model.Measured(first)
    built = time.time()
    monkeypatch.setattr(time, "time", lambda: built + 500)  # the other process is built
    assert 1000 < measured.first_step()["wall"] < 1500


def test_a_failed_model_ends_with_1(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(epochs, "run", lambda *arguments: "failed: it")
    monkeypatch.setattr(epochs, "machine", lambda device: "a machine")
    file = tmp_path / "all.json"
    monkeypatch.setattr("sys.argv", ["epochs.py", "--model", "BM3", "--json", str(file)])
    with pytest.raises(SystemExit, match="1"):
        epochs.main()
    assert "failed: it" in capsys.readouterr().out
    assert json.loads(file.read_text())["rows"][0]["found"] == "failed: it"


def test_only_one_thread_is_compared_with_the_published_code(monkeypatch, capsys):
    monkeypatch.setattr(epochs, "run", lambda *arguments: [result(3.0), result(1.0)])
    monkeypatch.setattr(epochs, "machine", lambda device: "a machine")
    monkeypatch.setattr(epochs, "commit_of", lambda folder: "c8e375f")
    words = ["--model", "BM3", "--threads", "1", "2", "--against", str(epochs.ROOT), *AS_COMPARED]
    monkeypatch.setattr("sys.argv", ["epochs.py", *words])
    epochs.main()
    one, two = (row for row in capsys.readouterr().out.splitlines() if row.startswith("| BM3"))
    assert one.endswith("| 3.43 | 1.3 | 7.9 |")
    assert two.endswith("|  |  |  |")


def test_a_process_compiles_for_the_next_one(tmp_path, monkeypatch):
    package = tmp_path / "recbole_missing"
    package.mkdir()
    (package / "__init__.py").write_text("")
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    assert epochs.compiled(tmp_path) == tmp_path
    assert len(list(package.glob("__pycache__/*.pyc"))) == 1
    started: dict[str, Any] = {}

    def start(*arguments: Any, **options: Any) -> Any:
        started.update(options)
        return SimpleNamespace(stdin=io.StringIO())

    monkeypatch.setattr("subprocess.Popen", start)
    epochs.Child(tmp_path, {}, 1, tmp_path).errors.close()
    assert "PYTHONDONTWRITEBYTECODE" not in started["env"]
    assert started["env"]["OMP_NUM_THREADS"] == "1"


@pytest.mark.parametrize("fails", [0, 1, 2])
def test_a_process_of_growth_may_fail_at_any_time(fails, monkeypatch):
    def serve(lines, answer):
        for number in range(3):
            if number == fails:
                raise RuntimeError("it")
            answer(json.dumps({"cpu": 1.0, "n_batches": 3}))

    monkeypatch.setattr(one_model, "serve", serve)
    assert growth.measure({}) == "failed: RuntimeError: it"


def test_exponents():
    assert growth.exponent([1, 2, 4], [3, 12, 48]) == pytest.approx(2)
    assert growth.demanded("VBPR") == (1, 1, 2, 1)
    assert growth.demanded("MMSSL") == (2, 2, 3, 2)
    rows = [{"first": 1.0, "batch": n**2, "epoch": n**2, "peak": 0.5 + n} for n in (1.0, 2.0, 4.0)]
    cells = growth.growth_row("VBPR", rows, resident=0.5)
    assert cells[1:3] == ["1.00 / 4.00 / 16.0", "1.50 / 2.50 / 4.50"]
    assert cells[3:] == ["0.00 of 1", "**2.00** of 1", "2.00 of 2", "1.00 of 1"]
    assert len(cells) == len(growth.GROWTH)


def test_a_synthetic_data_set(tmp_path):
    settings = growth.write(tmp_path / "small", 300, 100, 1500, {"image": 8})
    assert settings["data_path"] == str(tmp_path)
    assert settings["modalities"] == ["image"]
    lines = (tmp_path / "small" / "small.train.inter").read_text().splitlines()
    assert lines[0] == "user_id:token\titem_id:token"
    assert 1000 < len(lines) < 1500
    assert len(set(lines)) == len(lines)
