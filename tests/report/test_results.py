"""The committed results: redrawn from their store, and what the README shows of them."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest

from recbole_missing import cli
from recbole_missing.benchmark.store import Store

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "docs" / "results"
TIKTOK = ROOT.parent / "shared" / "data" / "tiktok"
STORE, REPORT = RESULTS / "tiktok.jsonl", RESULTS / "tiktok"
COMMANDS = (RESULTS / "tiktok.md").read_text(encoding="utf-8").replace("\\\n", " ")


@pytest.mark.slow
def test_the_committed_report_is_that_of_the_committed_store(tmp_path: Path) -> None:
    (line,) = re.findall(r"^recbole-missing report tiktok.jsonl .*", COMMANDS, flags=re.MULTILINE)
    words = [str(STORE) if word == STORE.name else word for word in shlex.split(line)[1:]]
    words[words.index("--output") + 1] = str(tmp_path / "tiktok")
    cli.main(words)
    texts = {path.name for path in REPORT.iterdir() if path.suffix in (".md", ".tex", ".csv")}
    assert len(texts) > 10
    drawn = {path.name for path in (tmp_path / "tiktok").iterdir()}
    assert drawn == {path.name for path in REPORT.iterdir()}
    for name in texts:
        ours, theirs = tmp_path / "tiktok" / name, REPORT / name
        assert ours.read_bytes() == theirs.read_bytes(), name


@pytest.mark.slow
@pytest.mark.skipif(not TIKTOK.is_dir(), reason="../shared/data/tiktok is absent")
def test_the_documented_commands_have_nothing_left_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (STORE, RESULTS / "tiktok_complete.jsonl"):
        shutil.copy(path, tmp_path)
    shutil.copytree(f"{STORE}.kept", tmp_path / f"{STORE.name}.kept")
    monkeypatch.chdir(tmp_path)
    cli.main(["import", "dgmrec", str(TIKTOK), "--name", "tiktok"])
    commands = re.findall(r"^recbole-missing benchmark .*", COMMANDS, flags=re.MULTILINE)
    assert len(commands) == 4
    capsys.readouterr()
    for line in commands:
        cli.main([*shlex.split(line)[1:], "--dry-run"])
        planned = [row for row in capsys.readouterr().out.splitlines() if "=" in row]
        assert planned
        assert all(row.endswith("(done)") for row in planned), line


def test_the_page_of_retrieval_shows_rows_of_the_report(tmp_path: Path) -> None:
    page = (RESULTS / "retrieval.md").read_text(encoding="utf-8")
    (line,) = re.findall(r"^recbole-missing report retrieval_real.jsonl .*", page, re.MULTILINE)
    words = [str(RESULTS / word) if word.endswith(".jsonl") else word for word in shlex.split(line)]
    words[words.index("--output") + 1] = str(tmp_path / "report")
    cli.main(words[1:])
    report = (tmp_path / "report" / "report.md").read_text(encoding="utf-8").splitlines()
    shown = [
        row
        for row in page.splitlines()
        if re.match(r"\| (DGMRec|VBPR|mean|featprop|imputation) \|", row)
    ]
    assert len(shown) > 30
    assert set(shown) <= set(report)


def test_the_readme_shows_the_first_table_of_the_report() -> None:
    report = (REPORT / "report.md").read_text(encoding="utf-8")
    table = re.search(r"#### tiktok: test metrics\n.*?(\n\|.*?\n)\n", report, flags=re.DOTALL)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = readme.split("<!-- results -->")[1].split("<!-- end of results -->")[0]
    assert table is not None
    assert table[1] in shown
    assert readme.index("<!-- results -->") < 600, "on the first screen"


def test_every_committed_run_names_files_that_are_there() -> None:
    for line in Store(STORE).latest():
        assert line["status"] == "done", line["error"]
        for path in line["kept"].values():
            assert (RESULTS / path).is_file()
        assert line["config"]["test_mask"] == "train"
        if line["epochs"]:
            assert line["epochs"][line["best_epoch"]]["valid"] == line["valid"]
