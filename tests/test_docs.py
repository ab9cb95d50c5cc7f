"""Every code block of the README and of ``docs/`` runs, page by page, or says why not.

The blocks of a page run in their order, in one fresh folder:

- ``bash`` with ``bash -euo pipefail``, ``python`` as a script;
- a block below ``<!-- file: NAME -->`` is written to that file; ``yaml``, ``csv`` and ``tsv`` need
  the mark;
- a block without a language shows output. Each of its lines must be printed by the blocks that ran
  since the last such block. Numbers and widths of columns may differ, ``...`` stands for anything.
- ``<!-- not run: REASON -->`` above a block leaves it out, and the output below it.

``<!-- slow -->`` on a page marks its test slow. ``<!-- needs: PATH -->`` skips the page where the
data beside the project are absent.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import re
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from recbole_missing import cli
from recbole_missing.commands.run import named_settings

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
SHARED = ROOT.parent / "shared"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
PAGES = [page for page in PAGES if page.parent.parent.name != "results"]  # made by `report`

RUN = ("bash", "python")
FILES = ("csv", "tsv", "yaml")
OF_A_BLOCK = ("file", "not run")
OF_A_PAGE = (
    "end", "end of results", "from", "generated", "needs", "results", "slow", "test command",
)  # fmt: skip
FENCE = re.compile(r"^ *(`{3,}|:{3,})(.*)$")
MARK = re.compile(r"^ *<!-- ([a-z ]+?)(?:: (.+))? -->$")


@dataclasses.dataclass
class Block:
    """A fenced block: its language, its text, the marks above it, the number of its first line."""

    language: str
    text: str
    marks: dict[str, str]
    line: int

    @property
    def runs(self) -> bool:
        """Whether its text is run, and not written to a file or left out."""
        return self.language in RUN and not {"file", "not run"} & {*self.marks}


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    found: list[Block] = []
    marks: dict[str, str] = {}
    lines = enumerate(page.read_text(encoding="utf-8").splitlines(), start=1)
    for number, line in lines:
        fence, mark = FENCE.match(line), MARK.match(line)
        if fence:
            inside: list[str] = []
            for _, text in lines:
                if text.strip() == fence[1]:
                    break
                inside.append(text)
            text = textwrap.dedent("\n".join(inside)) + "\n"
            found.append(Block(fence[2].strip(), text, marks, number))
        marks = {**marks, mark[1]: mark[2] or ""} if mark else {}
    return found


def page_marks(page: Path) -> dict[str, str]:
    found = map(MARK.match, page.read_text(encoding="utf-8").splitlines())
    return {mark[1]: mark[2] or "" for mark in found if mark}


def named(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def runnable() -> list[object]:
    pages = [page for page in PAGES if any(block.runs for block in blocks(page))]
    slow = {page: [pytest.mark.slow] for page in pages if "slow" in page_marks(page)}
    return [pytest.param(page, id=named(page), marks=slow.get(page, ())) for page in pages]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder beside which the data lie, with the script of the checkout in it."""
    if SHARED.is_dir():
        (tmp_path / "shared").symlink_to(SHARED)
    here = tmp_path / "here"
    here.mkdir()
    (here / "run_recbole_missing.py").symlink_to(ROOT / "run_recbole_missing.py")
    return here


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Return an environment in which `python` and `recbole-missing` are those of the checkout."""
    programs = tmp_path / "bin"
    programs.mkdir()
    scripts = {
        "python": f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n',  # a link is no venv
        "recbole-missing": f"#!{sys.executable}\nfrom recbole_missing.cli import main\nmain()\n",
    }
    for name, text in scripts.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    own = {
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "COLUMNS": "100",
        "MPLBACKEND": "Agg",
        "OMP_NUM_THREADS": "1",
    }
    return {**os.environ, **own}


@pytest.mark.parametrize("page", runnable())
def test_page_runs(page: Path, folder: Path, environment: dict[str, str]) -> None:
    needs = page_marks(page).get("needs")
    if needs and not (folder / needs).exists():
        pytest.skip(f"{needs} is absent")
    printed, left_out = "", False
    for block in blocks(page):
        place = f"{named(page)}, line {block.line}"
        if block.runs:
            printed += run(block, folder, environment, place)
            left_out = False
        elif "file" in block.marks:
            path = folder / block.marks["file"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text, encoding="utf-8")
        elif block.language in RUN:
            left_out = True
        elif not block.language and "not run" not in block.marks and not left_out:
            absent = not_printed(block.text, printed)
            assert not absent, f"{place}: not printed: {absent}\n\n{without_bars(printed)}"
            printed = ""


def run(block: Block, folder: Path, environment: dict[str, str], place: str) -> str:
    """Run a block, and return what it printed."""
    start = {
        "bash": ["bash", "-euo", "pipefail", "-c", block.text],
        "python": [sys.executable, "-c", block.text],
    }
    done = subprocess.run(
        start[block.language],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=600,
    )
    assert done.returncode == 0, (
        f"{place}: exit code {done.returncode}\n\n{without_bars(done.stdout)}"
    )
    return done.stdout


def without_bars(printed: str) -> str:
    """The last lines of an output, without progress bars."""
    lines = [line for line in re.split(r"[\r\n]", printed) if line and "it/s]" not in line]
    return "\n".join(lines[-60:])


def not_printed(shown: str, printed: str) -> list[str]:
    """Lines of a shown output that do not stand in the printed one."""
    whole = "\n".join(map(plain, re.split(r"[\r\n]", printed)))
    absent = []
    for line in shown.splitlines():
        parts = [re.escape(plain(part)) for part in re.split(r"\.\.\.", line)]
        if line.strip() and not re.search(f"^{'.*'.join(parts)}$", whole, flags=re.MULTILINE):
            absent.append(line)
    return absent


def plain(line: str) -> str:
    """A line without colours and time, with one word for all numbers, one blank between words."""
    line = re.sub(r"\x1b\[[0-9;]*m", "", line)
    line = re.sub(r"^\d\d \w{3} \d\d:\d\d +[A-Z]+ +", "", line)  # as RecBole's log begins
    line = re.sub(r"[-+]?(?<![\w.])\d[\d,.]*(?:e[-+]?\d+)?|\bnan\b", "0", line)
    return " ".join(re.sub(r"-{2,}", "--", line).split())


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_block_runs_or_says_why_not(page: Path) -> None:
    for name in page_marks(page):
        assert name in OF_A_BLOCK + OF_A_PAGE, f"{name}: no such mark"
    for block in blocks(page):
        place = f"{named(page)}, line {block.line}"
        if block.language.startswith("{"):
            continue  # a directive of Sphinx
        assert block.language in (*RUN, *FILES, ""), f"{place}: language {block.language!r}"
        if block.language in FILES:
            assert block.marks, f"{place}: <!-- file: NAME --> or <!-- not run: REASON -->"
        if "not run" in block.marks:
            assert len(block.marks["not run"].split()) > 2, f"{place}: a reason of a few words"
        if block.language == "yaml":
            assert yaml.safe_load(block.text), place


def command_lines(text: str) -> Iterator[list[str]]:
    """Words of each command of this package in a block of bash, without the program."""
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words = [*lexer, ";"]
        while words:
            end = next(i for i, word in enumerate(words) if set(word) <= set("&|;<>()"))
            command, words = words[:end], words[end + 1 :]
            while command and re.fullmatch(r"\w+=.*|srun", command[0]):
                command.pop(0)
            if command[:1] == ["recbole-missing"]:
                yield command[1:]
            elif command[:2] == ["python", "run_recbole_missing.py"]:
                yield ["run", *command[2:]]


def test_commands_are_found_in_a_line() -> None:
    line = (
        "A=1 recbole-missing report 'a b.jsonl' --pdf > x && ls; python run_recbole_missing.py -m X"
    )
    found = [["report", "a b.jsonl", "--pdf"], ["run", "-m", "X"]]
    assert [*command_lines(line)] == found


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_command_is_one(page: Path) -> None:
    for block in blocks(page):
        if block.language == "bash":
            for words in command_lines(block.text):
                named_settings(cli.parsed(words).settings)
    text = re.sub(r"^ *(`{3,}).*?\1", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    for words in re.findall(r"`recbole-missing ([a-z][^`]*)`", text):
        first, *rest = words.split()
        assert first in cli.COMMANDS, f"recbole-missing {words}"
        options = [word.split("=")[0] for word in rest if word.startswith("--")]
        if first != "run":
            known = known_options(first)
            assert set(options) <= known, f"recbole-missing {words}: {set(options) - known}"


def known_options(command: str) -> set[str]:
    """Options of a command and of its sub-commands."""
    parsers = [cli.parser()._subparsers._group_actions[0].choices[command]]  # type: ignore[union-attr,index]
    found: set[str] = set()
    for parser in parsers:
        for action in parser._actions:
            found |= set(action.option_strings)
            if isinstance(action, argparse._SubParsersAction):
                parsers += action.choices.values()
    return found


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_lead_somewhere(page: Path) -> None:
    for target, anchor in links(page):
        path = page.parent / target if target else page
        assert path.exists(), f"{named(page)}: {target}"
        if anchor:
            assert anchor in anchors(path), f"{named(page)}: {target}#{anchor}"


def links(page: Path) -> list[tuple[str, str]]:
    """Files that a page links to, and the anchor in each."""
    text = re.sub(r"^ *(`{3,}).*?\1", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    return re.findall(r"\]\((?!https?:)([^)#\s]*)#?([^)\s]*)\)", text)


def anchors(page: Path) -> set[str]:
    """Anchors of the headings of a page, as GitHub and MyST make them."""
    heads = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    plain_heads = (re.sub(r"[^\w\- ]", "", head.lower()) for head in heads)
    return {head.strip().replace(" ", "-") for head in plain_heads}


def test_the_readme_is_short() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(readme.splitlines()) <= 150


def test_index_names_every_page() -> None:
    """A page that no table of contents names cannot be found in the built pages."""
    listed = set()
    for page in PAGES:
        for block in blocks(page):
            if block.language == "{toctree}":
                lines = [line for line in block.text.splitlines() if line and line[0] != ":"]
                listed |= {(page.parent / f"{line}.md").resolve() for line in lines}
    assert {page for page in PAGES if page.is_relative_to(DOCS)} - listed == {DOCS / "index.md"}
    assert {path for path in listed if not path.is_file()} == set()


# --------------------------------------------------------------------------- the rules themselves


def test_a_shown_output_is_compared_up_to_numbers() -> None:
    printed = (
        "a table\n27 Nov 03:05    INFO  all    0.25  7\n\x1b[32mdone\x1b[0m in [3.1s]\rloss: 4"
    )
    assert not_printed("all 0.31    8\n\ndone in [0.47s]\nloss: -1e-3\na ...", printed) == []
    assert not_printed("all 0.31\ndone\nnothing ...", printed) == [
        "all 0.31",
        "done",
        "nothing ...",
    ]


def test_marks_belong_to_the_block_below_them(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "<!-- slow -->\n\n<!-- file: a.yaml -->\n```yaml\nb: 1\n```\n\n```bash\nls\n```\n\n"
        "<!-- not run: it takes days -->\n   ```python\n   pass\n   ```\n"
    )
    one, two, three = blocks(page)
    assert (one.language, one.text, one.marks) == ("yaml", "b: 1\n", {"file": "a.yaml"})
    assert two.runs and two.line == 8
    assert not three.runs and three.text == "pass\n"
    assert page_marks(page) == {"slow": "", "file": "a.yaml", "not run": "it takes days"}
