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


PAGES = {path.stem: path.read_text(encoding="utf-8") for path in RESULTS.glob("*.md")}
DRAWN = [
    (page, line)
    for page, text in sorted(PAGES.items())
    for line in re.findall(
        r"^recbole-missing report \S+\.jsonl .*--output (?!report).*",
        text.replace("\\\n", " "),
        flags=re.MULTILINE,
    )
]


def test_every_store_with_a_report_is_drawn_by_a_command() -> None:
    stores = {path.stem for path in RESULTS.glob("*.jsonl") if (RESULTS / path.stem).is_dir()}
    assert stores == {shlex.split(line)[2].replace(".jsonl", "") for _, line in DRAWN}


@pytest.mark.slow
@pytest.mark.parametrize("page, line", DRAWN)
def test_a_committed_report_is_that_of_its_store(page: str, line: str, tmp_path: Path) -> None:
    words = shlex.split(line)[1:]
    report = RESULTS / words[words.index("--output") + 1]
    words[1] = str(RESULTS / words[1])
    words[words.index("--output") + 1] = str(tmp_path / "report")
    cli.main(words)
    texts = {path.name for path in report.iterdir() if path.suffix in (".md", ".tex", ".csv")}
    assert len(texts) > 4
    drawn = {path.name for path in (tmp_path / "report").iterdir()}
    assert drawn == {path.name for path in report.iterdir()}
    for name in texts:
        assert (tmp_path / "report" / name).read_bytes() == (report / name).read_bytes(), name


def test_tables_of_the_pages_are_those_of_the_reports() -> None:
    """A table behind `<!-- from: FILE: HEADING -->` stands under that heading of the report."""
    found = 0
    for page, text in PAGES.items():
        blocks = re.findall(
            r"<!-- from: ([^:\n]+): ([^\n]+) -->\n\n(.*?)\n\n<!-- end -->", text, flags=re.DOTALL
        )
        assert text.count("<!-- from: ") == len(blocks), page
        for file, heading, table in blocks:
            report = (RESULTS / file).read_text(encoding="utf-8")
            under = report.split(f" {heading}\n", 1)[1].split("\n#", 1)[0]
            assert f"\n{table}\n" in under, (page, heading)
            found += 1
    assert found > 5


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
