"""One line of a store: what it must hold, and which line of a run counts."""

from __future__ import annotations

import json
import pickle
from typing import Any

import pytest
from lines import COST, content, line

from recbole_missing.benchmark.line import Line, better, current, latest, settled


def begun(started: str) -> dict[str, Any]:
    return {**COST, "started": started}


def test_what_is_parsed_is_written_again_in_the_order_of_the_schema() -> None:
    values = content(title="ü", test={"recall@20": 0.1, "ndcg@20": None})
    turned = dict(reversed(values.items()))
    one = Line.parse(json.loads(json.dumps(turned)))
    assert json.loads(one.as_json()) == values
    assert list(json.loads(one.as_json())) == list(values)
    assert one.as_json().startswith('{"run": "a"'), "a store recognises lines by it"
    assert (one.title, one.test) == ("ü", {"recall@20": 0.1, "ndcg@20": None})
    assert one == values and one == Line.parse(one)
    assert pickle.loads(pickle.dumps(one)) == one


def test_fields_that_older_lines_lack_are_none() -> None:
    old = content()
    for name in ("data", "source", "smaller", "within_groups", "restoration"):
        del old[name]
    assert Line.parse(old) == line()
    assert Line.parse(old).source is None


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["run"], r"must be a mapping of fields, got \['run'\]"),
        ({"run": "a"}, "must have every field, got none of benchmark, title"),
        (content(tset={}), "must have known fields, got tset; if a newer"),
        (content(run=3), "run must be text, got 3"),
        (content(point=[1]), r"point must be a mapping, got \[1\]"),
        (content(cost=None), "cost must be a mapping, got None"),
        (content(stage="train"), "stage must be test or search, got 'train'"),
        (content(status="broken"), "status must be done or failed, got 'broken'"),
    ],
)
def test_what_is_no_line_is_refused(wrong: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^line: {message}"):
        Line.parse(wrong)


def test_a_number_that_json_lacks_is_refused() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        line(test={"recall@20": float("nan")}).as_json()


def test_a_field_that_is_not_there_is_a_key_error() -> None:
    with pytest.raises(KeyError, match="keys"):
        line()["keys"]  # a method of the class, no field
    assert line().get("parse") is None


def test_a_line_that_is_done_wins_then_the_one_that_began_later() -> None:
    early = line(cost=begun("2026-01-01"), title="early")
    late = line(cost=begun("2026-02-01"), title="late")
    lost = line(cost=begun("2026-03-01"), status="failed")
    for pair in ((early, late), (late, early)):
        assert better(*pair) is late
    for pair in ((early, lost), (lost, early)):
        assert better(*pair) is early
    same = line(cost=begun("2026-01-01"), title="same second")
    assert better(early, same) is same
    assert better(same, early) is early
    unknown = line(cost={}, status="failed")
    assert better(lost, unknown) is lost


def test_one_line_a_run_and_benchmark_counts_in_the_order_of_the_first() -> None:
    lines = [
        line("a", status="failed"),
        line("b", status="failed"),
        line("a", "other"),
        line("a", title="counts"),
        line("a", status="failed"),
    ]
    assert latest(lines) == [lines[3], lines[1], lines[2]]


def test_a_run_counts_at_every_place_of_a_grid() -> None:
    mean, zeros = (line(point={"model": "BPR", "imputation": i}) for i in ("mean", "zeros"))
    assert latest([mean, zeros, mean]) == [mean, zeros]
    before = line(point={"model": "BPR"})
    assert latest([before, mean, zeros]) == [mean, zeros], "the grid has got another axis"
    other = line("b", point={"model": "BPR"})
    assert latest([other, mean]) == [other, mean], "another run"


def test_a_failed_run_hides_no_run_of_its_place_that_is_done() -> None:
    done = line("a", cost=begun("2026-01-01"))
    failed = line("b", cost=begun("2026-02-01"), status="failed")
    newer = line("c", cost=begun("2026-03-01"))
    for lines in ([done, failed], [failed, done]):
        assert current(lines) == ([done], 1)
    assert current([failed, newer, done]) == ([newer], 2)
    same = line("z", cost=done.cost)
    assert current([same, done]) == current([done, same]) == ([same], 1)


def test_settled_leaves_out_what_two_executions_differ_in() -> None:
    one = line(cost={"seconds": 1}, versions={"torch": "2"})
    assert settled(one) == settled(line())
    assert settled(one).keys() == content().keys() - {"cost", "versions"}
