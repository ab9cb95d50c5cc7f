"""The committed results: redrawn from their store, and what the README shows of them."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest

from recbole_missing import cli
from recbole_missing.benchmark.job import Identified
from recbole_missing.benchmark.store import Store

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "docs" / "results"
SHARED = ROOT.parent / "shared" / "data"


PAGES = {path.stem: path.read_text(encoding="utf-8") for path in RESULTS.glob("*.md")}
DRAWN = [
    (page, line)
    for page, text in sorted(PAGES.items())
    for line in re.findall(
        r"^recbole-missing report \S+\.jsonl .*--output .*",
        text.replace("\\\n", " "),
        flags=re.MULTILINE,
    )
    if (RESULTS / line.rpartition("--output ")[2]).is_dir()
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


def _commands(page: str, command: str) -> list[list[str]]:
    """Words of the commands that a page shows, without the name of the program."""
    text = PAGES[page].replace("\\\n", " ")
    lines = re.findall(rf"^recbole-missing {command} .*", text, flags=re.MULTILINE)
    return [shlex.split(line)[1:] for line in lines]


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if _commands(page, "benchmark")])
def test_the_documented_commands_have_nothing_left_to_do(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not SHARED.is_dir():
        pytest.skip("the data sets beside the project are absent: ../shared/data")
    for path in RESULTS.glob("*.jsonl"):
        shutil.copy(path, tmp_path)
        if Path(f"{path}.kept").is_dir():
            shutil.copytree(f"{path}.kept", tmp_path / f"{path.name}.kept")
    monkeypatch.chdir(tmp_path)
    for words in _commands(page, "import"):
        cli.main([word.replace("../shared/data", str(SHARED)) for word in words])
    begun: list[str] = []

    def begin(job: Identified) -> None:
        begun.append(f"{job.job.stage} {job.job.point}")
        raise AssertionError(begun[0])

    monkeypatch.setattr(Identified, "execute", begin)
    for words in _commands(page, "benchmark"):
        here = _without_workers(words)
        cli.main([word.replace("../shared/data", str(SHARED)) for word in here])
    assert not begun


def _without_workers(words: list[str]) -> list[str]:
    """The same benchmark in this process."""
    found = list(words)
    for option in ("--workers", "--threads"):
        if option in found:
            del found[found.index(option) : found.index(option) + 2]
    return found


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


def test_the_readme_shows_the_table_of_real_holes() -> None:
    report = (RESULTS / "real_holes" / "report.md").read_text(encoding="utf-8")
    table = re.search(r"#### lfm2k-mm: test metrics\n.*?(\n\|.*?\n)\n", report, flags=re.DOTALL)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = readme.split("<!-- results -->")[1].split("<!-- end of results -->")[0]
    assert table is not None
    assert table[1] in shown
    assert readme.index("<!-- results -->") < 600, "on the first screen"


@pytest.mark.parametrize("store", [*RESULTS.glob("*.jsonl")], ids=lambda path: path.stem)
def test_every_committed_run_names_files_that_are_there(store: Path) -> None:
    lines = Store(store).lines() if _has_runs(store) else []
    for line in lines:
        assert line["status"] == "done", line["error"]
        for path in (line["kept"] or {}).values():
            assert (RESULTS / path).is_file()
        if "tiktok" in store.stem:
            assert line["config"]["test_mask"] == "train"
        if line["epochs"] and line["valid"]:
            assert line["epochs"][line["best_epoch"]]["valid"] == line["valid"]


def _has_runs(store: Path) -> bool:
    """Tell a store of a benchmark from one of the programs beside the pages."""
    return "benchmark" in json.loads(store.read_text(encoding="utf-8").split("\n", 1)[0])
