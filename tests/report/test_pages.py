"""The pages of results that a program of their own makes: redrawn from their stores."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from folders import AT_WORK, Toy, prepare, tiny_content
from folders import workplace as workplace

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "docs" / "results"
sys.path.insert(0, str(RESULTS))

import months  # noqa: E402
import pages  # noqa: E402
import restoration  # noqa: E402

pytestmark = AT_WORK
PROGRAMS = [months, restoration]


def words(path: Path) -> list[str]:
    return re.findall(r">([^<>]+)</text>", path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_a_page_is_that_of_its_store(program: Any, tmp_path: Path) -> None:
    page = program.PAGE.read_text(encoding="utf-8")
    lines = pages.read(program.STORE)
    assert pages.filled(page, program.shown(lines)) == page
    pages.draw(program.figure(lines), tmp_path / "drawn.svg")
    drawn = words(tmp_path / "drawn.svg")
    assert len(drawn) > 10
    assert drawn == words(program.FIGURE)
    assert f"({program.FIGURE.name})" in page


def test_a_page_must_have_the_tables_that_are_made() -> None:
    page = "a\n<!-- results: one -->\nold\n<!-- end of results -->\nb\n"
    new = "a\n<!-- results: one -->\n\nnew\n\n<!-- end of results -->\nb\n"
    assert pages.filled(page, {"one": "new"}) == new
    assert pages.filled(new, {"one": "new"}) == new
    with pytest.raises(ValueError, match=r"must have the tables \['two'\], got \['one'\]"):
        pages.filled(page, {"two": "new"})


# ------------------------------------------------------------------------------- restoration.py


def test_every_imputer_is_measured_at_a_draw(tmp_path: Path) -> None:
    changes = {"missing_protocol": "random_items", "missing_ratio": 0.5, "modality_scale": "none"}
    run = prepare(Toy, {**tiny_content().write(tmp_path), **changes})
    fitted: dict[str, Any] = {}
    lines = list(restoration.measured("tiny", [run.train._dataset], fitted, "all", 0.5, 0))
    assert [line["imputer"] for line in lines] == list(restoration.IMPUTERS) == list(fitted)
    of = {line["imputer"]: line["of"] for line in lines}
    assert {one["relative_mse"] for one in of["mean"].values()} == {1}
    assert of["featprop"] != of["featprop, top_k 5"] != of["featprop, 20 layers"]
    (groups,) = [line["by_degree"] for line in lines if line["imputer"] == "featprop"]
    for modality, measures in of["featprop"].items():
        assert sum(group["items"] for group in groups[modality].values()) == measures["items"] > 5
    again = list(restoration.measured("tiny", [run.train._dataset], fitted, "image", 0.5, 0))
    assert [line["imputer"] for line in again] == list(restoration.OF_ONE)
    assert "hit@10" in of["mean"]["image"]


def test_the_store_has_every_draw_once() -> None:
    lines = pages.read(restoration.STORE)
    keys = [(*restoration.place(line), line.get("imputer")) for line in lines]
    assert len(set(keys)) == len(keys)
    for name in restoration.DATASETS:
        draws = {key[:4] for key in keys if key[0] == name and key[1] != "truth"}
        assert (name, "all", restoration.MIDDLE, 0) in draws
        for draw in draws:
            found = [key[4] for key in keys if key[:4] == draw]
            assert found == restoration.words(draw[1], draw[2])


# ------------------------------------------------------------------------------------ months.py


def test_overlap_counts_items_that_both_lists_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(months, "TOP", 2)
    one = {"u": ["a", "b"], "v": ["a", "c"], "w": ["a", "b"]}
    other = {"u": ["b", "a"], "v": ["c", "d"]}
    found = months.overlap(one, other, {"u"})
    assert found == {"users": 2, "all": 0.75, "idle_users": 1, "idle": 0.5}


def test_groups_go_from_a_bound_to_the_next() -> None:
    found = months.grouped({"1 to 3": 1, "more": 4}, np.array([1, 3, 4, 9]))
    assert found["1 to 3"].tolist() == [True, True, False, False]
    assert found["more"].tolist() == [False, False, True, True]


def test_a_warm_start_takes_rows_over_by_token() -> None:
    model = torch.nn.Module()
    model.user, model.item = (torch.nn.Parameter(torch.zeros(n, 2)) for n in (3, 4))
    model.weight = torch.nn.Parameter(torch.zeros(2, 2))
    model.features = torch.nn.ParameterDict({"image": torch.nn.Parameter(torch.zeros(4, 2))})
    old = {
        "user": torch.tensor([[0.0, 0], [1, 1]]),
        "item": torch.tensor([[0.0, 0], [1, 1], [2, 2]]),
        "weight": torch.ones(2, 2),
    }
    start = months.Trained({}, 0.0, old, ["", "u"], ["", "a", "b"], 1.0)
    months.warm(model, start, ["", "v", "u"], ["", "b", "c", "a"])
    assert model.user[:, 0].tolist() == [0, 0, 1]
    assert model.item[:, 0].tolist() == [0, 2, 0, 1]
    assert model.weight.eq(1).all() and not model.features["image"].any()


def test_kept_values_are_those_of_last_month_and_the_mean_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known = torch.tensor([False, False, True, False])
    monkeypatch.setattr(months.Kept, "known", {"a": known})
    monkeypatch.setattr(months.Kept, "rows", {"a": torch.full((4, 2), 7.0)})
    rows = np.array([[0.0, 0], [4, 2], [np.nan] * 2, [np.nan] * 2], dtype=np.float32)
    imputer = months.Kept().fit(np.ones((1, 4), dtype=np.float32))
    filled = imputer.transform({"a": rows}, {"a": np.array([False, True, False, False])})["a"]
    assert filled[1:].tolist() == [[4, 2], [7, 7], [4, 2]]
