"""The quick variant of every shipped benchmark, through to its report.

One epoch, one repetition, and one value of every numeric axis.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from folders import AT_WORK
from folders import workplace as workplace

from recbole_missing import cli
from recbole_missing.benchmark import plan
from recbole_missing.benchmark.store import Store
from recbole_missing.config import defaults

pytestmark = [*AT_WORK, pytest.mark.slow]


def is_numeric(values: list[Any]) -> bool:
    """Tell whether an axis has numbers, such as ratios, of which one is enough here."""
    return all(isinstance(value, (int, float)) for value in values)


@pytest.mark.parametrize("name", defaults.names("benchmark"))
def test_the_quick_variant_runs_and_is_reported(name: str, tmp_path: Path, capsys: Any) -> None:
    store = tmp_path / "quick.jsonl"
    whole = plan.read(name, quick=True)
    one = {axis: values[-1] for axis, values in whole.grid.items() if is_numeric(values)}
    one |= whole.first
    quick = whole.only({axis: [value] for axis, value in one.items()})
    words = ["benchmark", name, "--quick", "--store", str(store), "--set", "epochs=1"]
    words += ["--keep", "users", "--only", *(f"{axis}={value}" for axis, value in one.items())]
    cli.main(words)
    points = quick.points()
    lines = [line for line in Store(store).latest() if line["stage"] == "test"]
    assert [line["point"] for line in lines] == points
    assert all(line["status"] == "done" for line in lines)
    assert all(line["groups"].keys() >= {"0 missing"} for line in lines)
    measured = [line["retrieval"] for line in lines if line["retrieval"]]
    assert bool(measured) == ("retrieval" in quick.measures)
    cli.main(["report", str(store), "--no-figures"])
    output = capsys.readouterr().out
    assert f"{len(points)} of {len(points)} runs are done" in output
    report = (tmp_path / "quick_report" / "report.md").read_text(encoding="utf-8")
    assert "## Failed runs\n\nNone." in report
    for model in quick.grid["model"]:
        assert f"| {model} |" in report
