"""The store: whole lines only, shared safely, nothing lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from folders import REPOSITORY

from recbole_missing.benchmark.store import Store, settled


def line(run: str = "a", benchmark: str = "mine", **values: Any) -> dict[str, Any]:
    """Least of a line."""
    least = {"stage": "test", "point": {}, "status": "done", "config": {}, "cost": {}}
    return {"run": run, "benchmark": benchmark, **least, **values}


def test_what_goes_in_comes_out_in_order(tmp_path: Path) -> None:
    store = Store(tmp_path / "deep" / "mine.jsonl")
    assert store.lines() == []
    lines = [line("a", text="ü\n"), line("b"), line("a", value=0.1)]
    for one in lines:
        store.append(one)
    assert store.lines() == lines
    assert store.latest() == [lines[2], lines[1]]


def test_one_run_of_two_benchmarks_is_two_lines(tmp_path: Path) -> None:
    store = Store(tmp_path / "mine.jsonl")
    store.append(line("a", "one"))
    store.append(line("a", "two"))
    assert [found["benchmark"] for found in store.latest()] == ["one", "two"]


@pytest.mark.parametrize("rest", [b'{"run": "b", "bench', b"{", b'{"run": "b"}', b'{"run": "\xff'])
def test_half_a_line_is_recognised_and_cut_off_by_the_next_writer(
    tmp_path: Path, rest: bytes, caplog: Any
) -> None:
    store = Store(tmp_path / "mine.jsonl")
    store.append(line("a"))
    with store.path.open("ab") as file:
        file.write(rest)
    assert store.lines() == [line("a")]
    assert "half a line" in caplog.text
    assert store.path.read_bytes().endswith(rest), "reading changes nothing"
    store.append(line("c"))
    assert store.lines() == [line("a"), line("c")]
    assert rest not in store.path.read_bytes().split(b"\n")


@pytest.mark.parametrize("content", ['{"my": "notes"}', "a,b\n1,2\n", "words", '{"my": "notes"}\n'])
def test_a_file_of_something_else_is_refused_and_left_alone(tmp_path: Path, content: str) -> None:
    store = Store(tmp_path / "notes.json")
    store.path.write_text(content)
    with pytest.raises(ValueError, match="line 1: must be a run .* name another store"):
        store.lines()
    assert store.path.read_text() == content
    with pytest.raises(ValueError, match="must be a file, got a folder"):
        Store(tmp_path).lines()


def test_a_run_that_is_done_is_not_lost_by_a_later_failure(tmp_path: Path) -> None:
    store = Store(tmp_path / "mine.jsonl")
    lines = [line("a", status="failed"), line("a", n=1), line("a", n=2)]
    for one in [*lines, line("a", status="failed"), line("b", status="failed", n=3)]:
        store.append(one)
    assert store.latest() == [lines[2], line("b", status="failed", n=3)]


def test_a_long_half_line_is_found_too(tmp_path: Path) -> None:
    store = Store(tmp_path / "mine.jsonl")
    store.append(line("a", long="x" * 200_000))
    with store.path.open("ab") as file:
        file.write(b'{"run": "' + b"y" * 150_000)
    store.append(line("b"))
    assert [found["run"] for found in store.lines()] == ["a", "b"]


def test_a_whole_line_without_its_end_is_kept(tmp_path: Path) -> None:
    store = Store(tmp_path / "mine.jsonl")
    store.path.write_text(json.dumps(line("a")))
    assert store.lines() == [line("a")]
    store.append(line("b"))
    assert store.lines() == [line("a"), line("b")]


def test_a_damaged_line_in_the_middle_is_named_and_nothing_is_lost(tmp_path: Path) -> None:
    store = Store(tmp_path / "mine.jsonl")
    store.path.write_text(f"{json.dumps(line('a'))}\nnonsense\n{json.dumps(line('b'))}\n")
    before = store.path.read_bytes()
    with pytest.raises(ValueError, match="mine.jsonl, line 2: must be a run"):
        store.lines()
    assert store.path.read_bytes() == before


def test_a_refused_write_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: Any) -> None:
    store = Store(tmp_path / "mine.jsonl")
    store.append(line("a"))
    before = store.path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        store.append(line("b"))
    assert store.path.read_bytes() == before


def test_a_number_that_is_none_is_refused(tmp_path: Path) -> None:
    store = Store(tmp_path / "mine.jsonl")
    with pytest.raises(ValueError, match="not JSON compliant"):
        store.append(line("a", value=float("nan")))
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


def test_writers_of_two_processes_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    code = (
        "import sys; from recbole_missing.benchmark.store import Store\n"
        "least = {'stage': 'test', 'point': {}, 'status': 'done', 'config': {}, 'cost': {}}\n"
        "for n in range(60): Store(sys.argv[1]).append({'run': sys.argv[2] + str(n), "
        "'benchmark': 'm', **least, 'long': 'x' * 20000})"
    )
    words = [sys.executable, "-W", "ignore", "-c", code, str(path)]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    writers = [subprocess.Popen([*words, name], env=environment) for name in "ab"]
    assert [writer.wait() for writer in writers] == [0, 0]
    assert sorted(one["run"] for one in Store(path).lines()) == sorted(
        f"{name}{number}" for name in "ab" for number in range(60)
    )


def test_settled_leaves_out_what_two_executions_differ_in() -> None:
    assert settled(line("a", cost={"seconds": 1}, versions={})) == settled(line("a"))
