"""The report on benchmark results, from made-up lines whose numbers are known."""

from __future__ import annotations

import csv
import json
import random
from argparse import ArgumentParser
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lines import COST, line
from scipy import stats

from recbole_missing import tables
from recbole_missing.benchmark import identified
from recbole_missing.benchmark.line import Line, current
from recbole_missing.commands import report as command
from recbole_missing.evaluation.users import write_rows
from recbole_missing.report import document, figures, restored, results, sections, significance
from recbole_missing.report.document import Options
from recbole_missing.report.published import published
from recbole_missing.report.results import protocol
from recbole_missing.report.searched import search_tables
from recbole_missing.report.significance import UserFiles, of_test
from recbole_missing.tables import Column, Table

CONFIG = {
    "test_mask": "train",
    "missing_protocol": "file",
    "missing_file": "missing_0.6.tsv",
    "new_items": "none",
    "imputation": "mean",
    "benchmark_filename": ["train", "valid", "test"],
    "valid_metric": "Recall@20",
    "stopping_step": 20,
    "eval_step": 1,
    "epochs": 500,
}
GROUPS = {"0 missing": 0.9, "1 missing": 0.7, "2 missing": 0.4, "warm": 1.1, "new": 0.1}
PUBLISHED = {
    "source": "Table 1 of a paper",
    "axes": ["dataset", "model"],
    "metrics": ["recall@20"],
    "values": {"tiktok": {"A": [0.25]}},
}


NO_FILES = UserFiles([])
NOTHING_TESTED = "users for this table or several seeds in common."


def made(model: str, seed: int, recall: float, **changes: Any) -> Line:
    """A line of a store; ``point`` and ``config`` among ``changes`` are added to."""
    point = {"dataset": "tiktok", "model": model, "seed": seed, **changes.pop("point", {})}
    config = {**CONFIG, **changes.pop("config", {})}
    groups = {
        group: {"users": 1200 + seed, "recall@20": recall * share}
        for group, share in GROUPS.items()
    }
    measured = {
        "mask": {"id": "m", "missing": {"image": 2700, "audio": 2698}, "new_items": 0},
        "epochs": [{}] * 7,
        "test": {"recall@20": recall, "ndcg@20": recall / 2},
        "groups": groups,
        "kept": {},
        "versions": {"torch": "2.13.0"},
        "cost": {**COST, "seconds": 100.0 + seed, "epoch_seconds": 9.5, "peak_memory_mib": 1100.0},
    }
    run = f"{model}-{'-'.join(str(value) for value in point.values())}"
    changes = {"run": run, "title": "My title", "point": point, "config": config, **changes}
    return line(**{**measured, **changes})


def failed(model: str, seed: int, error: str) -> Line:
    gone = dict.fromkeys(("test", "groups", "mask", "epochs", "kept"))
    return made(model, seed, 0.0, status="failed", error=error, **gone)


def one_part(lines: list[Line]) -> results.Part:
    (part,) = results.parts(results.tested(lines), {})
    return part


def column(table: Table, name: str) -> Column:
    (found,) = (c for c in table.columns if c.name == name)
    return found


VALUES = {"A": [0.21, 0.22, 0.26], "B": [0.20, 0.25, 0.18], "C": [0.1]}


@pytest.fixture
def lines() -> list[Line]:
    runs = [made(m, seed, v) for m, values in VALUES.items() for seed, v in enumerate(values)]
    runs.append(made("A", 0, 0.9, run="trial", stage="search", test=None))
    runs.append(failed("C", 1, "ValueError: 5% of x_y & z\nTraceback"))
    return runs


@pytest.fixture
def ratio_lines() -> list[Line]:
    return [
        made(model, 1, start * (1 - loss * ratio) + 0.01 * seed, point=point, config=point)
        for model, start, loss in (("A", 0.2, 0.5), ("B", 0.1, 0.1))
        for ratio in (0.0, 0.4, 0.8)
        for seed in (1, 2)
        for point in [{"missing_ratio": ratio, "missing_seed": seed}]
    ]


def test_one_run_a_row_has_no_tests_over_seeds() -> None:
    one = one_part([made("A", 1, 0.3), made("B", 1, 0.2)])
    assert sections.significance_tables(one, "recall@20", None, NO_FILES) == []
    two = one_part([made(model, seed, 0.1 * seed) for model in "AB" for seed in (1, 2)])
    (table,) = sections.significance_tables(two, "recall@20", None, NO_FILES)
    assert table.title.endswith("tests over seeds")


def test_a_point_that_was_run_again_with_other_settings_counts_once(tmp_path: Path) -> None:
    old, new = made("A", 1, 0.1), made("A", 1, 0.3, run="other")
    new = replace(new, cost={**new.cost, "started": "2026-02-01"})
    for lines in ([old, new], [new, old]):
        kept, replaced = current(lines)
        assert ([line.run for line in kept], replaced) == (["other"], 1)
    text = written([old, new], tmp_path / "report")["report.md"].decode()
    assert "1 earlier runs of the same points with other settings are left out" in text
    assert "0.3000" in text
    assert "0.1000" not in text


def written(lines: Any, folder: Path, **options: Any) -> dict[str, bytes]:
    folder.mkdir(parents=True)
    options.setdefault("figures", False)
    files, _ = document.write(lines, [folder.parent / "store.jsonl"], folder, Options(**options))
    assert sorted(files) == sorted(folder.iterdir())
    return {path.name: path.read_bytes() for path in files}


# ------------------------------------------------------------------------------------ numbers


def test_mean_deviation_and_count(lines):
    table = sections.main_table(one_part(lines), ["recall@20", "ndcg@20"], None)
    assert list(table.labels["model"]) == ["A", "B", "C"]
    recall = column(table, "recall@20")
    assert recall.values == pytest.approx([np.mean(values) for values in VALUES.values()])
    assert recall.std[:2] == pytest.approx([np.std(VALUES[m], ddof=1) for m in "AB"])
    assert recall.std[2] is None
    assert list(recall.n) == [3, 3, 1]
    assert column(table, "ndcg@20").values == pytest.approx([v / 2 for v in recall.values])
    assert column(table, "runs").cells() == ["3", "3", "1"]
    assert recall.cells() == ["0.2300 ± 0.0265", "0.2100 ± 0.0361", "0.1000"]


def test_a_row_without_a_run_stays(lines):
    part = one_part([*lines, failed("D", 0, "boom")])
    table = sections.main_table(part, ["recall@20"], None)
    assert table.columns[0].cells()[-1] == "-"
    assert column(table, "runs").cells() == ["3", "3", "1", "0"]


def test_layout_of_the_axes(ratio_lines):
    more = [
        replace(line, point={**line.point, "imputation": word, "imputation_layers": layers})
        for line in ratio_lines
        for word in ("zeros", "mean")
        for layers in (10, 9)
    ]
    parts = results.parts(results.tested(more), {"mine": {"imputation": ["zeros", "mean"]}})
    assert {part.axes for part in parts} == {("model", "imputation")}
    assert [part.context for part in parts] == [
        {"imputation_layers": layers, "missing_ratio": ratio}
        for layers in ("9", "10")
        for ratio in ("0", "0.4", "0.8")
    ]
    assert parts[0].labels == ["A, zeros", "A, mean", "B, zeros", "B, mean"]
    (whole,) = results.robustness_parts(results.tested(more), {})
    assert whole.labels[0] == "A, mean, imputation_layers 9"


def test_the_missing_ratio_alone_names_rows(ratio_lines):
    part = one_part([line for line in ratio_lines if line.point["model"] == "A"])
    assert part.labels == ["missing_ratio 0", "missing_ratio 0.4", "missing_ratio 0.8"]
    assert [len(runs) for runs in part.rows.values()] == [2, 2, 2]


def test_each_benchmark_and_data_set_has_its_own_table(lines):
    other = [replace(line, benchmark="yours") for line in lines]
    moved = [replace(line, point={**line.point, "dataset": "baby"}) for line in lines]
    parts = results.parts(results.tested([*lines, *other, *moved]), {})
    places = [(part.benchmark, part.dataset) for part in parts]
    assert places == [("mine", "baby"), ("mine", "tiktok"), ("yours", "tiktok")]


def test_relative_drop(ratio_lines):
    (part,) = results.robustness_parts(results.tested(ratio_lines), {})
    table = sections.loss_table(part, "recall@20")
    base, at_4, at_8 = table.columns
    start = [0.2 + 0.015, 0.1 + 0.015]
    assert base.values == pytest.approx(start)
    assert at_4.values == pytest.approx([0.2 * 0.5 * 0.4 / start[0], 0.1 * 0.1 * 0.4 / start[1]])
    assert at_8.values == pytest.approx([0.2 * 0.5 * 0.8 / start[0], 0.1 * 0.1 * 0.8 / start[1]])
    assert at_8.cells() == ["37.2%", "7.0%"]
    assert "nothing missing (ratio 0)" in table.caption
    (late,) = results.robustness_parts([r for r in ratio_lines if r.config["missing_ratio"]], {})
    assert "the smallest ratio, 0.4" in sections.loss_table(late, "recall@20").caption
    by_ratio = sections.ratio_table(part, "recall@20")
    assert by_ratio.columns[2].values == pytest.approx([0.2 * 0.6 + 0.015, 0.1 * 0.92 + 0.015])
    assert by_ratio.columns[2].std == pytest.approx([0.01 / 2**0.5] * 2)


def test_groups(lines):
    part = one_part(lines)
    counts = ["0 missing", "1 missing", "2 missing"]
    assert results.groups_of(part, "recall@20") == (counts, ["warm", "new"])
    assert results.groups_of(part, "gauc") == ([], [])
    table = sections.group_table(part, ["warm", "new"], "recall@20", "new")
    new = column(table, "new (1,200 to 1,202 users)")
    assert new.values == pytest.approx([0.023, 0.021, 0.01])
    assert sections.group_table(part, [], "recall@20", "new") is None


def measured_within(run: Line, recall: float, items: int = 12) -> Line:
    found = {"new": {"users": 30, "items": items, "recall@20": recall}}
    return replace(run, within_groups=found)


def test_groups_among_their_own_items(lines):
    part = one_part(lines)
    assert results.groups_of(part, "recall@20", within=True) == ([], [])
    mixed = [measured_within(lines[0], 0.5), measured_within(lines[3], 0.75, 14), *lines[1:3]]
    part = one_part([*mixed, *lines[4:]])
    assert results.groups_of(part, "recall@20", within=True) == ([], ["new"])
    table = sections.group_table(part, ["new"], "recall@20", "new", within=True)
    assert column(table, "new (30 users, 12 to 14 items)").cells() == ["0.5000", "0.7500", "-"]
    assert table.title == "tiktok: warm and new items, within the group"
    assert "k / (items that are not hidden from the user)" in table.caption
    assert table.caption.endswith("5 of 7 runs are older than this measure and do not count.")
    caption = sections.group_table(
        one_part([mixed[0]]), ["new"], "recall@20", "new", within=True
    ).caption
    assert "older" not in caption


def test_a_report_of_older_and_newer_lines(lines, tmp_path):
    older = written(lines, tmp_path / "older")
    assert not [name for name in older if "within" in name]
    newer = written([measured_within(lines[0], 0.5), *lines[1:]], tmp_path / "newer")
    assert newer.keys() - older.keys() == {
        f"mine_tiktok_within_new{end}" for end in (".tex", ".csv")
    }
    assert all(newer[name] == older[name] for name in older if name != "report.md")
    text = newer["report.md"].decode()
    table = text.split("#### tiktok: warm and new items, within the group")[1]
    assert "| A | 0.5000 |" in table and "| B | - |" in table
    assert "6 of 7 runs are older than this measure" in table
    assert b'A,"new (30 users, 12 items)",0.5,,1' in newer["mine_tiktok_within_new.csv"]


def test_costs(lines):
    table = sections.cost_table(one_part(lines))
    assert column(table, "seconds").values == [101.0, 101.0, 100.0]
    assert column(table, "epochs run").values == [7.0] * 3
    assert "peak GPU memory (MiB)" not in table.heads


def test_retrieval():
    one = {"items": 30, "hit@10": 0.4, "hit@20": 0.5}
    two = {"items": 10, "hit@10": 0.2, "hit@20": 0.3}
    found = {
        "model": {"image": {"1 missing": one}, "audio": {"1 missing": two}},
        "nearest_neighbour": {"image": {"2 missing": None}},
    }
    printed = published(
        {**PUBLISHED, "axes": ["dataset", "row"], "metrics": ["hit@10"]}
        | {"values": {"tiktok": {"A, 1 missing": [0.3]}}}
    )
    part = one_part([made("A", 1, 0.1, retrieval=found), made("B", 1, 0.1)])
    table = sections.retrieval_table(part, printed)
    assert list(zip(*table.labels.values())) == [
        ("A", "model", "1 missing", "image"),
        ("A", "model", "1 missing", "audio"),
        ("A", "model", "1 missing", "all"),
        ("A", "nearest neighbour", "2 missing", "image"),
        ("A", "nearest neighbour", "2 missing", "all"),
    ]
    pooled = (30 * 0.4 + 10 * 0.2) / 40
    assert column(table, "hit@10").values == pytest.approx([0.4, 0.2, pooled, None, None])
    assert column(table, "items").cells() == ["30", "10", "40", "-", "-"]
    assert column(table, "hit@10 published").values == [None, None, 0.3, None, None]
    assert sections.retrieval_table(one_part([made("A", 1, 0.1)]), None) is None
    assert "Control:" not in table.caption, "older lines have none"


def test_retrieval_with_control():
    found = {
        source: {"image": {"1 missing": {"items": 30, "hit@10": hit, "control@10": control}}}
        for source, hit, control in (("model", 0.4, 0.1), ("gated parts", 0.9, 0.8))
    }
    printed = published(
        {**PUBLISHED, "axes": ["dataset", "row"], "metrics": ["hit@10"]}
        | {"values": {"tiktok": {"A, 1 missing": [0.3], "nearest_neighbour, 1 missing": [0.2]}}}
    )
    table = sections.retrieval_table(one_part([made("A", 1, 0.1, retrieval=found)]), printed)
    assert table.labels["source"] == ["model", "model", "gated parts", "gated parts"]
    assert column(table, "hit@10 published").values == [None, 0.3, None, None]
    assert column(table, "control@10").values == [0.1, 0.1, 0.8, 0.8]
    assert "Control: the same, after the hidden features changed places" in table.caption


# ---------------------------------------------------------------------------- which way is better


GINI = {"A": 0.9, "B": 0.5, "C": 0.7}  # less is better: B wins, C is second


def lower_is_better(**changes: Any) -> list[Line]:
    """Lines of metrics of which less is better; ``oddity`` is not one of RecBole's."""
    values = {"smaller": ["giniindex@20", "oddity@20"], **changes}
    lines = []
    for model, gini in GINI.items():
        for seed in (1, 2):
            # Differences that are equal in every pair would have no p-value.
            noise = 1e-6 * (-1) ** seed * (model == "B")
            test = {name: gini + 0.01 * seed + noise for name in ("giniindex@20", "oddity@20")}
            groups = {name: {"users": 9, **test} for name in ("warm", "new")}
            lines.append(made(model, seed, 0.1, test=test, groups=groups, **values))
    return lines


@pytest.mark.parametrize("metric", ["giniindex@20", "oddity@20"])
def test_the_lowest_value_is_the_best_where_less_is_better(metric, tmp_path):
    part = one_part(lower_is_better())
    main = sections.main_table(part, [metric], None)
    assert column(main, metric).marked == (False, True, False)
    assert main.caption.startswith(f"Lower is better: {metric}. Bold: the best mean and the rows")
    groups = sections.group_table(part, ["warm"], metric, "new")
    assert groups.columns[0].marked == (False, True, False)
    assert f"within a column. Lower is better: {metric}. Bold: " in groups.caption
    assert sections.best_row(part, metric) == "B"
    (tests,) = sections.significance_tables(part, metric, None, NO_FILES)
    assert list(tests.labels["against"]) == ["C", "A"]
    assert column(tests, "difference").values == pytest.approx([-0.2, -0.4])
    text = written(lower_is_better(), tmp_path / "out", metrics=[metric])["report.md"].decode()
    assert "| B | **0.5150 ± 0.0071** | 2 |" in text
    assert "| C | 0.7150 ± 0.0071 | 2 |" in text


def test_what_a_run_recorded_decides_then_its_validation_then_recboles_register():
    def smaller(metric: str, **changes: Any) -> bool:
        return one_part(lower_is_better(**changes)).smaller_is_better(metric)

    assert not smaller("giniindex@20", smaller=[])
    assert smaller("giniindex@20", smaller=None), "RecBole's register"
    assert not smaller("oddity@20", smaller=None), "nobody knows"
    bigger = {"valid_metric": "Oddity@20", "valid_metric_bigger": False}
    assert smaller("oddity@20", smaller=None, config=bigger)
    assert not smaller("recall@20", smaller=None)


def test_a_rise_is_the_loss_where_less_is_better():
    lines = [
        made("A", seed, 0.1, test={"rmse": value}, smaller=["rmse"], point=point, config=point)
        for seed, by_ratio in ((1, (0.4, 0.5, 0.3)), (2, (0.6, 0.7, 0.5)))
        for ratio, value in zip((0.0, 0.4, 0.8), by_ratio)
        for point in [{"missing_ratio": ratio}]
    ]
    (part,) = results.robustness_parts(results.tested(lines), {})
    table = sections.loss_table(part, "rmse")
    assert [one.cells() for one in table.columns] == [["0.5000"], ["20.0%"], ["-20.0%"]]
    assert table.title == "tiktok: relative rise of rmse"
    assert "(here - there) / there; negative is a gain." in table.caption
    ratios = sections.ratio_table(one_part_of_two_models(lines), "rmse")
    assert [one.marked for one in ratios.columns] == [(False, False)] * 3
    assert ratios.caption.endswith(NOTHING_TESTED)


def one_part_of_two_models(lines: list[Line]) -> results.Part:
    """The part of some lines of model A, and of a model B whose values are smaller by 0.2."""
    less = [
        replace(
            line, run=f"B{line.run}", point={**line.point, "model": "B"},
            test={name: value - 0.2 for name, value in (line.test or {}).items()},
        )
        for line in lines
    ]  # fmt: skip
    (part,) = results.robustness_parts(results.tested([*lines, *less]), {})
    return part


# ---------------------------------------------------------------------------------- published


def test_published_numbers_and_differences(lines):
    table = sections.main_table(one_part(lines), ["recall@20", "ndcg@20"], published(PUBLISHED))
    assert column(table, "recall@20 published").values == [0.25, None, None]
    difference = column(table, "recall@20 difference")
    assert difference.values == [pytest.approx(-0.02), None, None]
    assert difference.cells() == ["-0.0200", "-", "-"]
    assert "ndcg@20 published" not in table.heads
    assert "Published: Table 1 of a paper." in table.caption


def test_published_numbers_by_a_setting_outside_the_grid(lines):
    block = {**PUBLISHED, "axes": ["imputation"], "values": {"mean": [0.5]}}
    assert published(block).at(lines[0].config, "recall@20") == 0.5
    assert published(block).at({"imputation": "zeros"}, "recall@20") is None
    assert published(None) is None


def test_published_numbers_by_a_number():
    block = {**PUBLISHED, "axes": ["missing_ratio"], "values": {0.10: [0.5]}}
    assert published(block).at({"missing_ratio": 0.1}, "recall@20") == 0.5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"values": {"tiktok": {"A": [0.1, 0.2]}}}, "tiktok / A must be a list of 1 numbers"),
        ({"values": {"tiktok": [0.1]}}, "tiktok must be a mapping by model"),
        ({"values": {"tiktok": {"A": {"x": 1}}}}, "tiktok / A must be a list"),
    ],
)
def test_bad_published_blocks(change, message):
    with pytest.raises(ValueError, match=message):
        published({**PUBLISHED, **change})


def test_a_published_block_without_source():
    with pytest.raises(ValueError, match="got no source"):
        published({key: value for key, value in PUBLISHED.items() if key != "source"})


# --------------------------------------------------------------------------------------- text


def test_csv_has_the_numbers_in_full(lines):
    table = sections.main_table(one_part(lines), ["recall@20"], None)
    rows = list(csv.DictReader(tables.csv_text(table).splitlines()))
    recall = [row for row in rows if row["column"] == "recall@20"]
    assert [row["model"] for row in recall] == ["A", "B", "C"]
    assert float(recall[0]["value"]) == pytest.approx(np.mean(VALUES["A"]), abs=1e-15)
    assert float(recall[0]["std"]) == pytest.approx(np.std(VALUES["A"], ddof=1), abs=1e-15)
    assert [row["n"] for row in recall] == ["3", "3", "1"]
    assert recall[2]["std"] == ""


def test_a_row_that_was_not_tested_is_named() -> None:
    """Two repetitions tell nothing apart, so such a row is neither better nor worse."""
    best = [made("A", seed, 0.3 + seed / 1000) for seed in range(5)]
    few = [made("B", seed, 0.29 + seed / 1000) for seed in range(2)]
    worse = [made("C", seed, 0.2 + seed / 500) for seed in range(5)]
    table = sections.main_table(one_part([*best, *few, *worse]), ["recall@20"], None)
    assert column(table, "recall@20").marked == (True, False, False)
    assert table.caption.count("Not tested, so not bold: B.") == 1


def test_trials_of_a_search_are_shown() -> None:
    """The best one by validation, whether it was tested or not; failed trials have no value."""
    config = {"valid_metric": "Recall@20", "valid_metric_bigger": True, "eval_step": 1}

    def tried(model: str, rate: float, value: float, status: str = "done") -> Line:
        point = {"dataset": "a", "model": model, "seed": 1}
        valid = {"recall@20": value} if status == "done" else None
        return line(
            stage="search", point=point, status=status, config=config, valid=valid, test=None,
            trial={"learning_rate": rate}, run=f"{model} {rate}", error="no luck",
        )  # fmt: skip

    (table,) = search_tables(
        [tried("VBPR", 0.1, 0.2), tried("VBPR", 0.01, 0.3), tried("VBPR", 1.0, 0.9, "failed"),
         tried("BPR", 0.1, 0.1, "failed")]
    )  # fmt: skip
    assert table.labels == {"model": ["BPR", "VBPR"]}
    cells = {column.name: column.cells() for column in table.columns}
    assert cells == {
        "trials": ["1", "3"],
        "best Recall@20": ["-", "0.3000"],
        "worst Recall@20": ["-", "0.2000"],
        "chosen": ["-", "learning_rate 0.01"],
    }


def test_protocol(lines):
    assert protocol(one_part(lines)) == (
        "Data set tiktok; published split (train, valid, test); missing: file missing_0.6.tsv; "
        "items without image 2,700, audio 2,698; new items: none; test_mask train; epoch chosen "
        "by Recall@20 on validation, stopping_step 20 (a tie improves), eval_step 1, "
        "at most 500 epochs; "
        "imputation mean; seeds 0, 1, 2."
    )


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ([{}, {}], "(a tie improves)"),
        ([{"ties_improve": False}] * 2, "(a tie does not improve)"),
        ([{"ties_improve": False}, {}], "(a tie improves, a tie does not improve)"),
    ],
)
def test_protocol_names_the_rule_of_ties(rules, words):
    lines = [made(model, 1, 0.1, config=rule) for model, rule in zip("AB", rules)]
    assert f"stopping_step 20 {words}, eval_step 1" in protocol(one_part(lines))


def test_protocol_says_what_differs():
    split = {"split": {"RS": [0.8, 0.1, 0.1]}, "order": "RO", "group_by": "user", "mode": "full"}
    drawn = {"missing_protocol": "stratified", "missing_ratio": 0.6, "missing_seed": 42}
    other = {**drawn, "benchmark_filename": None, "eval_args": split}
    other |= {"test_mask": "train_valid", "stopping_step": 30}
    lines = [made("A", 1, 0.1), made("B", 1, 0.1, config=other, search={"trials": 12})]
    text = protocol(one_part(lines))
    assert "test_mask differs, so rows do not compare: train (A), train_valid (B)" in text
    assert "or split RS [0.8, 0.1, 0.1], order RO, group_by user" in text
    assert "missing: file missing_0.6.tsv or stratified, ratio 0.6" in text
    assert "stopping_step 20 or 30" in text
    assert "hyper-parameters (not of every row) chosen on validation among 12 trials" in text
    assert text.endswith("seeds 1; mask seeds 42.")


# ------------------------------------------------------------------------------- significance


def test_holm_by_hand():
    # Sorted 0.01, 0.02, 0.03, 0.04 times 4, 3, 2, 1, then never falling.
    assert significance.holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert significance.holm([0.5, 0.9, 0.001]) == pytest.approx([1.0, 1.0, 0.003])
    assert significance.holm([None, 0.02, None, 0.04]) == [None, 0.04, None, 0.04]
    assert significance.holm([]) == []


FIRST = np.array([0.31, 0.52, 0.13, 0.74, 0.45, 0.66, 0.57, 0.28])
SECOND = np.array([0.30, 0.48, 0.15, 0.65, 0.42, 0.59, 0.52, 0.20])


def test_paired_tests_agree_with_scipy():
    found = significance.paired("B", FIRST, SECOND, 1)
    assert (found.other, found.n, found.note) == ("B", 8, "")
    assert found.difference == pytest.approx(np.mean(FIRST - SECOND))
    theirs = stats.ttest_rel(FIRST, SECOND)
    assert found.t_test == pytest.approx(theirs.pvalue)
    interval = theirs.confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    exact = stats.wilcoxon([0.01, 0.04, -0.02, 0.09, 0.03, 0.07, 0.05, 0.08]).pvalue
    assert found.wilcoxon == pytest.approx(exact) == pytest.approx(6 / 256)


def test_wilcoxon_with_zeros_and_ties():
    difference = np.array([0, 0, 1, 1, -1, 2, 3, 3, 4, 5, 6, 7], float)
    found = significance.paired("B", difference, np.zeros(12), 1)
    theirs = stats.wilcoxon(difference[2:], method="approx")
    assert found.wilcoxon == pytest.approx(theirs.pvalue)
    assert found.t_test == pytest.approx(stats.ttest_1samp(difference, 0).pvalue)


@pytest.mark.parametrize(
    ("first", "second", "note"),
    [
        ([], [], "n too small"),
        ([0.3], [0.2], "n too small"),
        ([0.3, 0.4], [0.3, 0.4], "no difference in any pair"),
        ([0.3, 0.5], [0.2, 0.4], "the same in every pair"),
    ],
)
def test_no_p_value_where_there_is_none(first, second, note):
    found = significance.paired("B", np.array(first), np.array(second), 1)
    assert (found.note, found.t_test, found.wilcoxon) == (note, None, None)
    assert found.difference == (pytest.approx(np.subtract(first, second).mean()) if first else None)


def test_over_seeds_pairs_common_seeds():
    values = {"A": {1: 0.30, 2: 0.35, 3: 0.31}, "B": {3: 0.25, 2: 0.28, 9: 0.9}, "C": {1: 0.1}}
    rows = {m: [made(m, s, v) for s, v in by.items()] for m, by in values.items()}
    b, c = significance.over_seeds(rows, "A", of_test("recall@20"))
    expected = stats.ttest_rel([0.35, 0.31], [0.28, 0.25]).pvalue
    assert (b.n, b.t_test, b.wilcoxon) == (2, pytest.approx(expected), None)
    assert b.difference == pytest.approx(0.065)
    assert b.t_test_holm == b.t_test  # C gave no p-value, so there is one comparison
    assert (c.n, c.t_test, c.note) == (1, None, "n too small")


def test_over_seeds_with_many_seeds():
    rows = {m: [made(m, i, v) for i, v in enumerate(by)] for m, by in (("A", FIRST), ("B", SECOND))}
    rows["C"] = [made("C", i, v + 0.001 * (-1) ** i) for i, v in enumerate(FIRST)]
    b, c = significance.over_seeds(rows, "A", of_test("recall@20"))
    assert b.wilcoxon == pytest.approx(6 / 256)
    assert b.wilcoxon_holm == pytest.approx(2 * 6 / 256)
    assert c.wilcoxon_holm == c.wilcoxon


def keep_users(folder: Path, name: str, values: dict[str, float]) -> dict[str, str]:
    rows = [["user_id", "recall@10", "recall@20"]]
    rows += [[user, "0", str(value)] for user, value in values.items()]
    (folder / "store.kept").mkdir(exist_ok=True)
    write_rows(folder / "store.kept" / f"{name}.tsv.gz", iter(rows))
    return {"users": f"store.kept/{name}.tsv.gz"}


def test_over_users_matches_tokens_and_averages_seeds(tmp_path):
    users = [f"u{i}" for i in range(8)]
    a = {
        seed: dict(zip(users, FIRST + shift)) | ({"extra": 0.9} if seed == 1 else {})
        for seed, shift in ((1, 0.02), (2, -0.02))
    }
    b = {1: dict(zip(users[::-1], SECOND[::-1])), 2: dict(zip(users, SECOND)), 7: {"u0": 1.0}}
    rows = {
        m: [
            made(m, s, 0.1, kept=keep_users(tmp_path, f"{m}{s}", values))
            for s, values in by.items()
        ]
        for m, by in (("A", a), ("B", b))
    }
    rows["C"] = [made("C", 1, 0.1, kept={"users": "store.kept/gone.tsv.gz"})]
    rows["D"] = [made("D", 1, 0.1)]
    rows["E"] = [made("E", 5, 0.1, kept=keep_users(tmp_path, "E5", b[1]))]
    found = significance.over_users(
        rows, "A", "recall@20", UserFiles([tmp_path / "none", tmp_path])
    )
    assert (found[0].n, found[0].runs) == (8, 2)
    assert found[0].wilcoxon == pytest.approx(6 / 256)
    assert found[0].difference == pytest.approx(np.mean(FIRST - SECOND))
    assert [c.note for c in found[1:]] == [
        "file absent: store.kept/gone.tsv.gz",
        "no file of users kept",
        "no seed in common",
    ]
    assert all(c.t_test is None for c in found[1:])
    alone = {m: runs[:1] for m, runs in rows.items() if m in "AB"}
    (first,) = significance.over_users(alone, "A", "recall@20", UserFiles([tmp_path]))
    assert (first.n, first.note) == (8, "1 users left out: not in every file")


def test_which_row_is_tested(lines):
    part = one_part(lines)
    assert sections.best_row(part, "recall@20") == "A"
    (table,) = sections.significance_tables(part, "recall@20", None, NO_FILES)
    assert list(table.labels["against"]) == ["B", "C"]
    assert "recall@20 of A, chosen for its mean on the same test results" in table.caption
    (table,) = sections.significance_tables(part, "recall@20", "B", NO_FILES)
    assert list(table.labels["against"]) == ["A", "C"]
    assert column(table, "difference").values == pytest.approx([-0.02, 0.10])
    assert "chosen" not in table.caption.split(",")[0]
    assert sections.significance_tables(part, "recall@20", "Z", NO_FILES) == []


# --------------------------------------------------------------------------------- the report


def test_a_report_is_the_same_whatever_the_order(lines, ratio_lines, tmp_path):
    everything = [*lines, *(replace(line, benchmark="ratios") for line in ratio_lines)]
    first = written(everything, tmp_path / "a")
    for seed in range(3):
        shuffled = random.Random(seed).sample(everything, len(everything))
        assert written(shuffled, tmp_path / str(seed)) == first
    assert str(tmp_path).encode() not in b"".join(first.values())


def test_what_a_report_says(lines, tmp_path):
    files = written(lines, tmp_path / "out")
    text = files["report.md"].decode()
    assert text.startswith(
        "# My title\n\nFrom `store.jsonl`: 7 runs succeeded, 1 failed.\n\nMean over runs"
    )
    row = "| A | 0.2300 ± 0.0265 | 0.1150 ± 0.0132 | 3 |"
    assert row in text
    assert r"ValueError: 5% of x\_y & z" in text.split("\n## Failed runs")[1]
    assert "Traceback" not in text
    assert "trial" not in text.split(": trials of the search")[0]
    assert "torch 2.13.0." in text.split("## Versions")[1]
    assert r"5\% of x\_y \& z" in files["failed_runs.tex"].decode()
    tested = {name for name in files if name.endswith(".tex")}
    assert {name[:-4] + ".csv" for name in tested} == set(files) - tested - {"report.md"}


def test_a_report_without_failures_says_so(tmp_path):
    text = written([made("A", 1, 0.1)], tmp_path / "out")["report.md"].decode()
    assert "## Failed runs\n\nNone." in text


def test_a_report_of_failures_alone(tmp_path):
    text = written([failed("A", 1, "boom")], tmp_path / "out")["report.md"].decode()
    assert "| A | - | - | 0 |" in text
    assert "boom" in text


def test_runs_of_other_code_are_said_on_the_terminal_alone(lines, tmp_path, monkeypatch, capsys):
    sources = {"A": "old", "B": "new", "C": None}
    marked = [replace(line, source=sources[line.point["model"]]) for line in lines]
    now = {"A": "new", "B": "new", "C": "new"}
    assert document.sources_note(marked, lambda line: now[line.point["model"]]) == [
        "2 runs were made by code that was not recorded (C 2).",
        "3 runs were made by other code than the present one (A 3).",
    ]
    assert document.sources_note(marked[:3], lambda line: None) == [], "nobody can tell"
    assert document.sources_note(marked[:3], lambda line: "old") == []
    (one,) = document.sources_note(marked[:1], lambda line: "new")
    assert one.startswith("1 run was made by")
    assert written(marked, tmp_path / "a") == written(lines, tmp_path / "b")
    Path(tmp_path / "mine.jsonl").write_text("".join(f"{line.as_json()}\n" for line in marked))
    monkeypatch.setattr(identified, "current_source", lambda line: "new")
    parser = ArgumentParser()
    command.arguments(parser)
    command.execute(parser.parse_args([str(tmp_path / "mine.jsonl"), "--no-figures"]))
    assert "3 runs were made by other code than the present one (A 3)." in capsys.readouterr().out


def test_metrics_are_chosen(lines, tmp_path):
    text = written(lines, tmp_path / "out", metrics=["ndcg@20"])["report.md"].decode()
    assert "| model | ndcg@20 | runs |" in text
    assert "recall@20 |" not in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metrics": ["recal@20"]}, "Unknown metric 'recal@20'. Did you mean 'recall@20'?"),
        ({"method": "AA"}, "Unknown row 'AA'. Choices: A, B, C."),
        ({"reference": "zeroes"}, "--reference: Unknown imputation 'zeroes'."),
    ],
)
def test_unknown_words(lines, tmp_path, options, message):
    with pytest.raises(ValueError) as refused:
        written(lines, tmp_path / "out", **options)
    assert message in str(refused.value)


def test_nothing_to_report(lines, tmp_path):
    with pytest.raises(ValueError, match="at least one test run"):
        written([line for line in lines if line.stage == "search"], tmp_path / "out")


def test_numbers_and_order_of_a_benchmark_file(lines, tmp_path):
    file = tmp_path / "mine.yaml"
    content = {"grid": {"model": ["C", "A", "B"]}, "published": PUBLISHED}
    file.write_text(json.dumps({**content, "quick": {"grid": {"model": ["B"]}}}))
    text = written(lines, tmp_path / "out", benchmark=file)["report.md"].decode()
    assert text.index("| C | 0.1") < text.index("| A | 0.2") < text.index("| B | 0.2")
    assert "| 0.2500 | -0.0200 |" in text
    quick = [replace(line, benchmark="mine:quick") for line in lines]
    files = written(quick, tmp_path / "quick", benchmark=file)
    text = files["report.md"].decode()
    assert text.index("| B | 0.2") < text.index("| A | 0.2")
    assert "published |" not in text
    assert "mine_quick_tiktok_scores.tex" in files


def test_the_command(lines, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name, some in (("a.jsonl", lines[:4]), ("b.jsonl", lines[3:])):
        Path(name).write_text("".join(f"{line.as_json()}\n" for line in some))
    again = made("C", 1, 0.4, cost={**COST, "started": "2025"})
    Path("c.jsonl").write_text(again.as_json() + "\n")

    def run(*words: str) -> str:
        parser = ArgumentParser()
        command.arguments(parser)
        command.execute(parser.parse_args(words))
        return capsys.readouterr().out

    shown = run("a.jsonl", "b.jsonl", "--no-figures")
    assert "Wrote a_report: report.md, 7 .tex, 7 .csv, 0 .png, 0 .pdf, report.json" in shown
    assert "0.2300 ± 0.0265 " in shown
    assert "bold in the report" not in shown
    assert "7 runs succeeded, 1 failed" in Path("a_report/report.md").read_text()
    with pytest.raises(ValueError, match="--force"):
        run("a.jsonl", "--no-figures")
    run("a.jsonl", "b.jsonl", "c.jsonl", "--no-figures", "--force")
    assert "8 runs succeeded, 0 failed" in Path("a_report/report.md").read_text()  # done wins
    with pytest.raises(ValueError, match="gone.jsonl must be a file"):
        run("gone.jsonl")
    monkeypatch.setattr(command, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="--no-figures"):
        run("a.jsonl", "--output=other")
    with pytest.raises(ValueError, match="drop one"):
        run("a.jsonl", "--output=other", "--pdf", "--no-figures")


# -------------------------------------------------------------------------------------- figures


def test_every_kind_of_figure(lines, ratio_lines, tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is an extra")
    lines = [*lines, *(replace(line, benchmark="ratios") for line in ratio_lines)]
    files = written(lines, tmp_path / "out", figures=True, pdf=True)
    kinds = ["mine_tiktok_by_missing", "mine_tiktok_by_new", "ratios_tiktok_ratio"]
    for kind in [*kinds, "ratios_tiktok_drop"]:
        assert files[f"{kind}.png"].startswith(b"\x89PNG")
        assert files[f"{kind}.pdf"].startswith(b"%PDF")
        assert f"]({kind}.png)" in files["report.md"].decode()


def test_what_a_line_shows(ratio_lines, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib", reason="matplotlib is an extra")
    kept: list[Any] = []
    monkeypatch.setattr(figures, "_save", lambda figure, paths: kept.append(figure))
    lost = replace(failed("C", 1, "boom"), point={**ratio_lines[0].point, "model": "C"})
    (part,) = results.robustness_parts(results.tested([*ratio_lines, lost]), {})
    figures.against_ratio(part, "recall@20", [])
    figures.loss(part, "recall@20", [])
    metric, drop = (figure.axes[0] for figure in kept)
    assert metric.lines[0].get_xdata().tolist() == [0.0, 0.4, 0.8]
    assert metric.lines[0].get_ydata() == pytest.approx([0.215, 0.175, 0.135])
    assert len(metric.collections) == 2  # bands of the two rows with runs
    assert drop.lines[0].get_ydata() == pytest.approx([0, 100 * 0.04 / 0.215, 100 * 0.08 / 0.215])
    labels = [text.get_text() for text in kept[0].legends[0].get_texts()]
    assert labels == ["A", "B", "C (no result)"]


def test_what_groups_show(lines, monkeypatch):
    pytest.importorskip("matplotlib", reason="matplotlib is an extra")
    kept: list[Any] = []
    monkeypatch.setattr(figures, "_save", lambda figure, paths: kept.append(figure))
    part = one_part([*lines, failed("D", 0, "boom")])
    figures.by_group(part, ["warm", "new"], "recall@20", False, [])
    warm, new = kept[0].axes
    assert [tick.get_text() for tick in warm.get_yticklabels()] == ["C", "B", "A"]  # best on top
    assert drawn(new) == {("A", 0.023), ("B", 0.021), ("C", 0.01)}
    figures.by_group(one_part(lower_is_better()), ["warm"], "giniindex@20", False, [])
    labels = [tick.get_text() for tick in kept[1].axes[0].get_yticklabels()]
    assert labels == ["A", "C", "B"], "the lowest is the best and stands on top"
    figures.by_group(one_part([measured_within(lines[0], 0.5)]), ["new"], "recall@20", True, [])
    assert drawn(kept[2].axes[0]) == {("A", 0.5)}
    assert kept[2].get_suptitle().endswith("recall@20 within the group")


def drawn(panel: Any) -> set[tuple[str, float]]:
    """Name of the line and value of each dot of a panel. The first panel names shared lines."""
    shown = (panel.get_yticklabels(), panel.figure.axes[0].get_yticklabels())
    names = [tick.get_text() for tick in next(ticks for ticks in shown if ticks)]
    dots = [line.get_xydata()[0] for line in panel.lines if len(line.get_xydata()) == 1]
    return {(names[round(place)], round(value, 12)) for value, place in dots}


def imputed(values: dict[tuple[str, str], float], **changes: Any) -> list[Line]:
    """Lines of models before imputations, of two seeds whose values differ by 0.02."""
    found = []
    for (model, imputation), value in values.items():
        config = dict(changes.pop("config", {}))
        for seed in (1, 2):
            point = {"imputation": imputation, **changes.get("point", {})}
            run = made(model, seed, value + 0.02 * seed, point=point)
            kept = {k: v for k, v in {**run.config, **config}.items() if k != "imputation"}
            own = {} if model == "Pop" else {"imputation": imputation}
            found.append(replace(run, config={**kept, **own}))
    return found


GRID = {("Pop", "zeros"): 0.1, ("A", "zeros"): 0.2, ("A", "mean"): 0.3, ("B", "zeros"): 0.15}


def test_a_model_without_content_has_no_imputation(monkeypatch):
    part = one_part(imputed(GRID))
    assert part.labels == ["A, mean", "A, zeros", "B, zeros", "Pop, no content"]
    twice = one_part(imputed({**GRID, ("Pop", "mean"): 0.1}))
    assert twice.labels == part.labels
    same = [
        replace(run, run=f"Pop-{run.point['seed']}") for run in twice.by_label["Pop, no content"]
    ]
    rest = [run for run in twice.lines if run.point["model"] != "Pop"]
    once = one_part([*rest, *same])
    assert len(once.by_label["Pop, no content"]) == 2, "one run at several places counts once"


def test_dots_have_a_panel_a_data_set_and_mark_models_without_content(monkeypatch):
    pytest.importorskip("matplotlib", reason="matplotlib is an extra")
    kept: list[Any] = []
    monkeypatch.setattr(figures, "_save", lambda figure, paths: kept.append(figure))
    moved = [replace(run, point={**run.point, "dataset": "baby"}) for run in imputed(GRID)]
    parts = results.parts(results.tested([*imputed(GRID), *moved]), {})
    figures.dots(parts, "recall@20", NO_FILES, [])
    baby, tiktok = kept[0].axes
    assert (baby.get_title(), tiktok.get_title()) == ("baby", "tiktok")
    assert drawn(tiktok) == {("A", 0.33), ("A", 0.23), ("B", 0.18), ("Pop", 0.13)}
    styles = {tick.get_text(): tick.get_style() for tick in baby.get_yticklabels()}
    assert styles == {"Pop": "italic", "B": "normal", "A": "normal"}
    legend = [text.get_text() for text in kept[0].legends[0].get_texts()]
    assert legend == ["mean", "zeros", "no content"]
    assert kept[0].get_suptitle().endswith("standard deviation over runs")


# ----------------------------------------------------------------------------------------- marks


def seeded(**values: list[float]) -> dict[str, list[Line]]:
    return {m: [made(m, seed, v) for seed, v in enumerate(vs)] for m, vs in values.items()}


def marked(rows: dict[str, list[Line]], smaller: bool = False) -> list[str]:
    found = significance.marks(rows, of_test("recall@20"), smaller)
    assert found.over == "repetitions"
    return [row for row, mark in zip(rows, found.rows) if mark]


def test_the_best_and_what_no_test_tells_from_it_are_marked():
    near, far = [0.50, 0.49, 0.52, 0.51], [0.30, 0.31, 0.30, 0.32]
    rows = seeded(A=[0.51, 0.50, 0.50, 0.52], B=near, C=far)
    assert stats.ttest_rel([0.51, 0.50, 0.50, 0.52], far).pvalue * 2 < 0.05
    assert marked(rows) == ["A", "B"]
    assert marked(rows, smaller=True) == ["C"]
    assert marked({name: rows[name] for name in "AB"}) == [], "a test that tells nothing"
    tie = {**rows, "D": [replace(run, point={**run.point, "model": "D"}) for run in rows["A"]]}
    assert marked(tie) == ["A", "B", "D"]
    alone = {**rows, "E": [made("E", 9, 0.505)]}
    assert marked(alone) == ["A", "B"], "a row that was not tested is not marked"


def test_no_mark_without_a_test(lines):
    found = significance.marks(seeded(A=[0.3], B=[0.1]), of_test("recall@20"), False)
    assert (found.rows, found.over) == ((False, False), "")
    table = sections.main_table(
        one_part([made("A", 1, 0.3), made("B", 1, 0.1)]), ["recall@20"], None
    )
    assert table.caption.endswith(NOTHING_TESTED)
    table = sections.main_table(one_part(lines), ["recall@20"], None, NO_FILES)
    assert "no row is told from the best one (paired t-test over repetitions" in table.caption


def test_marks_over_users_and_the_interval(tmp_path):
    users, rng = [f"u{i}" for i in range(40)], np.random.default_rng(0)
    a = rng.normal(0.5, 0.1, 40)
    values = {"A": a, "B": a + rng.normal(0, 0.01, 40) - 0.001, "C": a - rng.uniform(0, 0.2, 40)}
    runs = [
        made(m, 1, float(v.mean()), kept=keep_users(tmp_path, m, dict(zip(users, v))))
        for m, v in values.items()
    ]
    files = UserFiles([tmp_path])
    table = sections.main_table(one_part(runs), ["recall@20"], None, files)
    assert column(table, "recall@20").marked == (True, True, False)
    assert "Bold: the best mean and the rows that are not told from it" in table.caption
    assert "over users" in table.caption
    low, high = stats.t.interval(0.95, 39, loc=a.mean(), scale=stats.sem(a))
    assert column(table, "95% ±").values[0] == pytest.approx((high - low) / 2)
    assert a.mean() == pytest.approx((high + low) / 2)
    assert table.heads == ["model", "recall@20", "95% ±", "runs"]
    gone = one_part([*runs, made("D", 1, 0.1)])
    assert column(sections.main_table(gone, ["recall@20"], None, files), "95% ±").values[3] is None


# ----------------------------------------------------------------------------------------- gains


def ratio_grid() -> list[Line]:
    """Two models at two ratios and three masks: ``mean`` gains 0.01, 0.02, 0.03 times the ratio."""
    return [
        replace(
            made(model, 1, value, point={**point, "imputation": imputation}, config=point),
            cost={**COST, "seconds": 10.0 + 5 * (imputation == "mean")},
        )
        for model, start in (("A", 0.2), ("B", 0.1))
        for imputation in ("zeros", "mean")
        for ratio in (0.5, 1.0)
        for mask in (1, 2, 3)
        for point in [{"missing_ratio": ratio, "missing_seed": mask}]
        for value in [start + 0.05 * mask + (imputation == "mean") * 0.01 * mask * ratio]
    ]


def test_gains_are_paired_over_masks():
    (part,) = results.robustness_parts(results.tested(ratio_grid()), {})
    found = sections.gains(part, "recall@20", "zeros", NO_FILES)
    assert list(found) == ["0.5", "1", sections.ALL_RATIOS]
    table = sections.gain_table(part, "recall@20", "zeros", found)
    assert list(zip(*table.labels.values())) == [("A", "mean"), ("B", "mean")]
    assert column(table, "missing_ratio 1").values == pytest.approx([0.02, 0.02])
    assert column(table, "all ratios").values == pytest.approx([0.015, 0.015])
    low, high = stats.t.interval(0.95, 2, loc=0.02, scale=stats.sem([0.01, 0.02, 0.03]))
    assert column(table, "1 95% ±").values == pytest.approx([(high - low) / 2] * 2)
    assert table.columns[0].marked == [False, False]  # p of 3 masks, times 2, is over 0.05
    assert column(table, "seconds").values == [15.0, 15.0]
    assert column(table, "seconds, zeros").values == [10.0, 10.0]
    assert "paired over repetitions" in table.caption
    assert sections.gains(part, "recall@20", "featprop", NO_FILES) == {}
    less = sections.gains(part, "recall@20", "mean", NO_FILES)
    assert [gain.difference for gain in less["1"].gains] == pytest.approx([-0.02, -0.02])


def test_a_ratio_that_one_side_lacks_is_no_gain():
    lines = [
        run for run in ratio_grid()
        if (run.point["imputation"], run.point["missing_ratio"]) != ("zeros", 1.0)
    ]  # fmt: skip
    (part,) = results.robustness_parts(results.tested(lines), {})
    found = sections.gains(part, "recall@20", "zeros", NO_FILES)
    assert [gain.difference for gain in found[sections.ALL_RATIOS].gains] == [None] * 2
    assert [gain.n for gain in found["1"].gains] == [0, 0]


def test_gains_over_users_with_one_repetition(tmp_path):
    users = [f"u{i}" for i in range(8)]
    values = {"zeros": SECOND, "mean": FIRST}
    runs = [
        made("A", 1, 0.1, point={"imputation": imputation},
             kept=keep_users(tmp_path, imputation, dict(zip(users, by_user))))
        for imputation, by_user in values.items()
    ]  # fmt: skip
    found = sections.gains(one_part(runs), "recall@20", "zeros", UserFiles([tmp_path]))
    (gain,) = found[sections.ALL_RATIOS].gains
    assert found[sections.ALL_RATIOS].over == "users"
    assert gain.difference == pytest.approx(np.mean(FIRST - SECOND))
    table = sections.gain_table(one_part(runs), "recall@20", "zeros", found)
    assert table.heads[:3] == ["imputation", "gain", "95% ±"]
    assert column(table, "gain").marked == [stats.ttest_rel(FIRST, SECOND).pvalue < 0.05]


def test_gains_are_drawn_in_a_panel_a_model(monkeypatch):
    pytest.importorskip("matplotlib", reason="matplotlib is an extra")
    kept: list[Any] = []
    monkeypatch.setattr(figures, "_save", lambda figure, paths: kept.append(figure))
    (part,) = results.robustness_parts(results.tested(ratio_grid()), {})
    found = sections.gains(part, "recall@20", "zeros", NO_FILES)
    figures.gains(part, "recall@20", "zeros", found, [])
    first = kept[0].axes[0].lines[0]
    assert first.get_ydata() == pytest.approx([0.01, 0.02])
    names = [("A", f"i{i}") for i in range(5)] + [("B", f"i{i}") for i in range(5)]
    frame = figures.pd.DataFrame({"0.5": range(10)}, dtype=float)
    many = figures.Lines(names, frame, frame)
    assert many.panels() == {"A": [0, 1, 2, 3, 4], "B": [5, 6, 7, 8, 9]}
    assert many.names(alone=False)[:2] == ["i0", "i1"]
    assert figures.Lines(names[:3], frame[:3], frame[:3]).panels() == {"": [0, 1, 2]}


# ------------------------------------------------------------------------------------ restoration


def restored_line(imputation: str, ratio: float, cosine: float, recall: float) -> Line:
    """A run whose modalities have 10 and 30 items; the mean cosine over items is ``cosine``."""
    point = {"imputation": imputation, "missing_ratio": ratio}
    quality = {
        "image": {"items": 10, "cosine": cosine + 0.03, "relative_mse": 1 - cosine, "hit@10": 0.1},
        "audio": {"items": 30, "cosine": cosine - 0.01, "relative_mse": 1 - cosine, "hit@10": 0.1},
    }
    return made("A", 1, recall, point=point, config=point, restoration=quality)


def test_restoration_and_recommendation(monkeypatch):
    values = {  # within each ratio the better restored is the worse; over all it looks otherwise
        0.2: [("zeros", 0.5, 0.33), ("mean", 0.6, 0.32), ("featprop", 0.7, 0.31)],
        0.8: [("zeros", 0.1, 0.13), ("mean", 0.2, 0.12), ("featprop", 0.3, 0.11)],
    }
    lines = [restored_line(i, ratio, c, r) for ratio, rows in values.items() for i, c, r in rows]
    lines.append(made("A", 1, 0.2, point={"imputation": "heat", "missing_ratio": 0.2}))
    (part,) = results.robustness_parts(results.tested(lines), {})
    points = restored.points(part, "recall@20")
    assert [(p.name, p.ratio) for p in points[:2]] == [("featprop", "0.2"), ("featprop", "0.8")]
    assert points[0].quality["cosine"] == pytest.approx(0.7)
    table = sections.restoration_table(part, "recall@20", points)
    assert list(table.labels["restoration"]) == ["cosine", "relative_mse", "hit@10"]
    x, y = zip(*[(c, r) for rows in values.values() for _, c, r in rows])
    whole = stats.spearmanr(x, y)[0]
    assert whole > 0
    assert column(table, "rho").values == [pytest.approx(whole), pytest.approx(-whole), None]
    assert column(table, "rho within a ratio").values[:2] == pytest.approx([-1, 1])
    assert column(table, "points").cells() == ["6", "6", "6"]
    assert sections.restoration_table(part, "recall@20", []) is None
    pytest.importorskip("matplotlib", reason="matplotlib is an extra")
    kept: list[Any] = []
    monkeypatch.setattr(figures, "_save", lambda figure, paths: kept.append(figure))
    figures.restoration(part, "recall@20", points, [])
    panel = kept[0].axes[0]
    assert panel.get_title() == f"rho {whole:.2f}, within a ratio -1.00"
    assert {tuple(line.get_xydata()[0]) for line in panel.lines} == {
        (p.quality["cosine"], p.value) for p in points
    }


def test_a_report_shows_gains_and_restoration_where_there_are_any(lines, tmp_path):
    runs = [restored_line(i, r, 0.1, 0.1 + r) for i in ("zeros", "mean") for r in (0.2, 0.8)]
    files = written(runs, tmp_path / "out")
    assert {"mine_tiktok_gain.csv", "mine_tiktok_restoration.csv"} <= files.keys()
    text = files["report.md"].decode()
    assert "#### tiktok: gain over zeros" in text
    mean = written(runs, tmp_path / "mean", reference="mean")["report.md"].decode()
    assert "#### tiktok: gain over mean" in mean
    assert not [name for name in written(lines, tmp_path / "none") if "gain" in name]


def test_a_small_group_has_no_figure(lines, tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is an extra")
    few = [
        replace(line, groups={**line.groups, "2 missing": {"users": 7, "recall@20": 0.5}})
        if line.groups else line
        for line in lines
    ]  # fmt: skip
    text = written(few, tmp_path / "out", figures=True)["report.md"].decode()
    assert text.count("The figure leaves out groups of fewer than 30 users.") == 1
    assert "2 missing (7 users)" in text
