"""The committed results: redrawn from their store, and what the README shows of them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from recbole_missing import cli
from recbole_missing.benchmark.store import Store

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results"
STORE, REPORT = RESULTS / "tiktok.jsonl", RESULTS / "tiktok"
COMMANDS = (RESULTS / "README.md").read_text(encoding="utf-8").replace("\\\n", " ")


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
