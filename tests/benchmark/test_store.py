"""The store: whole lines only, shared safely, nothing lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from folders import REPOSITORY
from lines import content, line

from recbole_missing.benchmark.line import Line
from recbole_missing.benchmark.store import Store


def test_what_goes_in_comes_out_in_order(tmp_path: Path) -> None:
    store = Store(tmp_path / "deep" / "mine.jsonl")
    assert store.lines() == []
    lines = [line("a", title="ü\n"), line("b"), line("a", test={"recall@20": 0.1})]
    for one in lines:
        store.append(one)
    assert store.lines() == lines
    assert store.latest() == [lines[2], lines[1]]


def test_one_run_of_two_benchmarks_is_two_lines(tmp_path: Path) -> None:
    store = Store(tmp_path / "mine.jsonl")
    store.append(line("a", "one"))
    store.append(line("a", "two"))
    assert [found["benchmark"] for found in store.latest()] == ["one", "two"]


@pytest.mark.parametrize("rest", [b'{"run": "b", "bench', b"{", b'{"run": "\xff'])
def test_half_a_line_is_recognised_and_cut_off_by_the_next_writer(
    tmp_path: Path, rest: bytes, caplog: Any
) -> None:
    store = Store(tmp_path / "mine.jsonl")
    store.append(line("a"))
    with store.path.open("ab") as file:
        file.write(rest)
    assert store.lines() == [line("a")]
    assert "the last line is incomplete" in caplog.text
    assert store.path.read_bytes().endswith(rest), "reading changes nothing"
    store.append(line("c"))
    assert store.lines() == [line("a"), line("c")]
    assert rest not in store.path.read_bytes().split(b"\n")


@pytest.mark.parametrize(
    "text", ['{"my": "notes"}', '{"run": "b"}', "a,b\n1,2\n", "words", '{"my": "notes"}\n']
)
def test_a_file_of_something_else_is_refused_and_left_alone(tmp_path: Path, text: str) -> None:
    store = Store(tmp_path / "notes.json")
    store.path.write_text(text)
    with pytest.raises(ValueError, match="line 1: must be a run .* name another store"):
        store.lines()
    assert store.path.read_text() == text
    with pytest.raises(ValueError, match="must be a file, got a folder"):
        Store(tmp_path).lines()


def test_a_run_that_is_done_is_not_lost_by_a_later_failure(tmp_path: Path) -> None:
    store = Store(tmp_path / "mine.jsonl")
    lines = [line("a", status="failed"), line("a", title="1"), line("a", title="2")]
    for one in [*lines, line("a", status="failed"), line("b", status="failed")]:
        store.append(one)
    assert store.latest() == [lines[2], line("b", status="failed")]


def test_a_long_half_line_is_found_too(tmp_path: Path) -> None:
    store = Store(tmp_path / "mine.jsonl")
    store.append(line("a", title="x" * 200_000))
    with store.path.open("ab") as file:
        file.write(b'{"run": "' + b"y" * 150_000)
    store.append(line("b"))
    assert [found["run"] for found in store.lines()] == ["a", "b"]


def test_a_whole_line_without_its_end_is_kept(tmp_path: Path) -> None:
    store = Store(tmp_path / "mine.jsonl")
    store.path.write_text(line("a").as_json())
    assert store.lines() == [line("a")]
    store.append(line("b"))
    assert store.lines() == [line("a"), line("b")]


def test_a_damaged_line_in_the_middle_is_named_and_nothing_is_lost(tmp_path: Path) -> None:
    store = Store(tmp_path / "mine.jsonl")
    store.path.write_text(f"{line('a').as_json()}\nnonsense\n{line('b').as_json()}\n")
    before = store.path.read_bytes()
    with pytest.raises(ValueError, match="mine.jsonl, line 2: must be a run"):
        store.lines()
    assert store.path.read_bytes() == before


def test_a_refused_write_leaves_the_file_as_it_was(
    tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    store = Store(tmp_path / "mine.jsonl")
    store.append(line("a"))
    before = store.path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "other"))
    with pytest.raises(OSError, match=r"mine\.jsonl: must fit on its disk, got 5\d\d bytes where"):
        store.append(line("b"))
    assert store.path.read_bytes() == before
    printed = json.loads(capsys.readouterr().out)
    assert Line.parse(printed) == line("b"), "the other place was full, too"


def test_what_is_no_line_is_not_written(tmp_path: Path) -> None:
    store = Store(tmp_path / "mine.jsonl")
    with pytest.raises(ValueError, match="not JSON compliant"):
        store.append(line("a", test={"recall@20": float("nan")}))
    with pytest.raises(ValueError, match="line: must have known fields, got value"):
        store.append(content("a", value=1))
    assert not store.path.exists()


def test_a_claim_is_exclusive_until_it_is_released(tmp_path: Path) -> None:
    first, second = Store(tmp_path / "mine.jsonl"), Store(tmp_path / "mine.jsonl")
    claim = first.claim("a")
    assert claim is not None
    assert in_another_process(second.path, "a") == "None"
    assert in_another_process(second.path, "b") != "None"
    first.release(claim)
    assert in_another_process(second.path, "a") != "None"


def in_another_process(path: Path, run: str) -> str:
    """What another process gets when it claims a run; the claim ends with that process."""
    imports = "from recbole_missing.benchmark.store import Store"
    code = f"{imports}; print(Store({str(path)!r}).claim({run!r}))"
    words = [sys.executable, "-W", "ignore", "-c", code]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(words, env=environment, capture_output=True, text=True).stdout.strip()


def together(*codes: str, folder: Path) -> list[int]:
    """Exit codes of processes that run side by side, one for each piece of code."""
    paths = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests")])
    environment = {**os.environ, "PYTHONPATH": paths}
    words = [sys.executable, "-W", "ignore", "-c"]
    running = [
        subprocess.Popen([*words, code, name], env=environment, cwd=folder)
        for code, name in zip(codes, "abc")
    ]
    return [process.wait() for process in running]


WRITER = """
import sys
from lines import line
from recbole_missing.benchmark.store import Store

for n in range(60):
    Store("mine.jsonl").append(line(sys.argv[1] + str(n), title="x" * 20000))
"""


def test_writers_of_two_processes_do_not_mix(tmp_path: Path) -> None:
    assert together(WRITER, WRITER, folder=tmp_path) == [0, 0]
    assert sorted(one.run for one in Store(tmp_path / "mine.jsonl").lines()) == sorted(
        f"{name}{number}" for name in "ab" for number in range(60)
    )


CLAIMER = """
from pathlib import Path
from recbole_missing.benchmark.store import Store

store, claimed = Store("mine.jsonl"), 0
while claimed < 100:
    run = f"run{claimed % 3}"
    lock = store.claim(run)
    if lock is None:
        continue
    held = Path(f"{run} is held")
    held.touch(exist_ok=False)  # it exists if another process has the claim too
    held.unlink()
    store.release(lock)
    claimed += 1
"""


def test_processes_that_claim_and_release_all_the_time_share_the_claims(tmp_path: Path) -> None:
    assert together(CLAIMER, CLAIMER, CLAIMER, folder=tmp_path) == [0, 0, 0]
    assert [path.name for path in tmp_path.iterdir()] == [".mine.jsonl.lock"]


def test_a_claim_of_a_killed_process_is_free_and_its_file_is_removed(tmp_path: Path) -> None:
    code = """
import os
from recbole_missing.benchmark.store import Store

held = [Store("mine.jsonl").claim(run) for run in "ab"]
os._exit(9)
"""
    assert together(code, folder=tmp_path) == [9]
    store = Store(tmp_path / "mine.jsonl")
    claim = store.claim("a")
    assert claim is not None
    store.release(claim)
    assert [path.name for path in tmp_path.iterdir()] == [".mine.jsonl.lock"]
