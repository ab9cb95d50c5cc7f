"""Benchmark files: what they ask for, and what is refused."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from lines import line

from recbole_missing import cli
from recbole_missing.benchmark import hyper_file, plan, search
from recbole_missing.benchmark.line import Line
from recbole_missing.benchmark.plan import cell
from recbole_missing.config import defaults

GRID = {"dataset": ["a", "b"], "model": ["BPR", "MGCN"], "seed": [1, 2]}
SHIPPED = defaults.names("benchmark")


def write(folder: Path, **content: Any) -> Path:
    """Write a benchmark file; ``grid`` unless it is given."""
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump({"grid": GRID, **content}, sort_keys=False))
    return path


def test_the_last_axis_varies_fastest_and_excluded_points_are_left_out(tmp_path: Path) -> None:
    exclude = [{"model": "BPR", "seed": [2]}, {"dataset": "b"}]
    points = plan.read(write(tmp_path, exclude=exclude)).points()
    assert [tuple(point.values()) for point in points] == [
        ("a", "BPR", 1),
        ("a", "MGCN", 1),
        ("a", "MGCN", 2),
    ]


def test_later_settings_win(tmp_path: Path) -> None:
    cases = [
        {"dataset": "a", "settings": {"x": "a", "y": "a", "z": "a"}},
        {"dataset": ["a", "b"], "model": "MGCN", "settings": {"y": "MGCN", "z": "MGCN"}},
    ]
    mine = plan.read(write(tmp_path, settings={"x": 0, "w": 0}, cases=cases)).override({"z": "set"})
    point = {"dataset": "a", "model": "MGCN", "seed": 2}
    assert mine.settings_of(point) == {"x": "a", "w": 0, "y": "MGCN", "z": "set", "seed": 2}
    other = mine.settings_of({"dataset": "b", "model": "BPR", "seed": 1})
    assert other == {"x": 0, "w": 0, "z": "set", "seed": 1}


def test_quick_replaces_whole_keys_and_is_another_benchmark(tmp_path: Path) -> None:
    quick = {"grid": {**GRID, "seed": [7]}, "settings": {"epochs": 1}}
    path = write(tmp_path, settings={"epochs": 9, "x": 1}, quick=quick)
    assert plan.read(path).name == "mine"
    fast = plan.read(path, quick=True)
    assert (fast.name, fast.settings, fast.grid["seed"]) == ("mine:quick", {"epochs": 1}, [7])


def test_overriding_an_axis_changes_the_grid(tmp_path: Path) -> None:
    mine = plan.read(write(tmp_path)).override({"seed": [5, 6], "model": "BPR", "epochs": 3})
    assert (mine.grid["seed"], mine.grid["model"]) == ([5, 6], ["BPR"])
    assert mine.settings_of(mine.points()[0]) == {"epochs": 3, "seed": 5}


def test_only_keeps_the_type_of_a_value(tmp_path: Path) -> None:
    mine = plan.read(write(tmp_path)).only({"seed": ["2"], "model": ["MGCN"]})
    assert (mine.grid["seed"], mine.grid["model"]) == ([2], ["MGCN"])
    with pytest.raises(ValueError, match=r"--only: Unknown axis 'sed'. Did you mean 'seed'"):
        mine.only({"sed": ["1"]})
    with pytest.raises(ValueError, match="--only: Unknown model 'MGNC'. Did you mean 'MGCN'"):
        mine.only({"model": ["MGNC"]})


WRONG = (
    None, "w", "", [1], ["a"], [None], [[]], [{}], {"a": 1}, {1: 2}, {"a": None}, True, -1, 1.5,
    float("nan"), datetime.date(2020, 1, 1), [{"settings": {1: 2}}], [{1: 1}],
)  # fmt: skip


@pytest.mark.parametrize("key", plan._KEYS)
@pytest.mark.parametrize("quick", [False, True])
def test_every_key_of_every_wrong_shape_ends_in_one_line(
    tmp_path: Path, key: str, quick: bool
) -> None:
    refused = 0
    for value in WRONG:
        path = write(tmp_path, **({"quick": {key: value}} if quick else {key: value}))
        try:
            mine = plan.read(path, quick)
            [mine.settings_of(point) for point in mine.points()]
            if mine.search:
                search.trials(mine, mine.points())
        except ValueError as error:
            assert cli.is_refusal(error) and "\n" not in str(error)
            assert "mine" in str(error)
            refused += 1
    assert refused >= 9


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"gird": {}}, r"Unknown key 'gird'. Did you mean 'grid'"),
        ({"grid": {"dataset": ["a"], "model": ["BPR"]}}, "must have the axis 'seed'"),
        ({"grid": {**GRID, "seed": 3}}, "seed must be a list of values, got 3"),
        ({"grid": {**GRID, "seed": []}}, "seed must be a list of values"),
        ({"grid": {**GRID, "seed": [1, 1]}}, "seed must name each value once"),
        ({"settings": [1]}, "settings must be a mapping"),
        ({"cases": {}}, "cases must be a list"),
        ({"cases": [{"model": "BPR"}]}, "a case must be a mapping with `settings`"),
        ({"cases": [{"modle": "BPR", "settings": {}}]}, "Unknown axis 'modle'"),
        ({"exclude": ["BPR"]}, "exclude must list mappings"),
        ({"exclude": [{"ratio": 1}]}, "Unknown axis 'ratio'"),
        ({"exclude": [{"settings": 1}]}, "Unknown axis 'settings'"),
        ({"exclude": [{"model": ["BPR", "MGNC"]}]}, "Unknown model 'MGNC'. Did you mean 'MGCN'"),
        ({"cases": [{"seed": 3, "settings": {}}]}, "Unknown seed '3'"),
        ({"grid": {**GRID, "model": [1]}}, "model must list names"),
        ({"grid": {**GRID, "dataset": [5]}}, "dataset must list names"),
        ({"quick": [1]}, "quick must hold keys and values"),
        ({"search": {"metod": "grid"}}, "Unknown key of search 'metod'. Did you mean 'method'"),
        ({"search": {"space": [1]}}, "a space must be a mapping"),
        ({"search": {"space_of": {"MCGN": {}}}}, "Unknown model 'MCGN'. Did you mean 'MGCN'"),
        ({"measures": [{}]}, "Unknown measure '{}'"),
        ({"title": 2020}, "title must be text, got 2020; quote it"),
        ({"title": None}, "title must be text, got None"),
        ({"quick": {"gird": {}}}, "Unknown key 'gird'"),
        ({"settings": {1: 2}}, "settings: must have names of settings, got 1"),
        ({"settings": {"model": "BPR"}}, "settings: model must be an axis of the grid; move it"),
        ({"cases": [{"settings": {None: 1}}]}, "settings of a case: must have names"),
        ({"grid": {**GRID, 1: [2]}}, "an axis must be the name of a setting, got 1"),
        ({"exclude": [{1: 1}]}, "Unknown axis '1'"),
        ({"search": {1: 2}}, "Unknown key of search '1'"),
        ({"search": {"space": {1: [2]}}}, "a space: must have names of settings, got 1"),
        ({"published": [1]}, "published must be a mapping"),
        ({"measures": ["retreival"]}, "Unknown measure 'retreival'. Did you mean 'retrieval'"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, content: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        plan.read(write(tmp_path, **content))
    assert str(tmp_path / "mine.yaml") in str(caught.value)


def test_what_is_not_there_is_named() -> None:
    with pytest.raises(ValueError, match="Did you mean 'dgmrec_missing'"):
        plan.read("dgmrec_mising")
    with pytest.raises(ValueError, match="no such file"):
        plan.read("nowhere.yaml")


def test_a_file_that_is_no_yaml_or_bears_a_shipped_name_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("grid: [")
    with pytest.raises(ValueError, match="mine.yaml: must be YAML"):
        plan.read(path)
    path.write_text("just words")
    with pytest.raises(ValueError, match="must hold keys and values"):
        plan.read(path)
    taken = write(tmp_path).rename(tmp_path / "dgmrec_missing.yaml")
    with pytest.raises(ValueError, match="must not have the name of a shipped benchmark"):
        plan.read(taken)
    shipped = defaults.root() / "benchmark" / "dgmrec_missing.yaml"
    assert plan.read(shipped) == plan.read("dgmrec_missing")


def test_values_may_be_lists(tmp_path: Path) -> None:
    grid = {**GRID, "dataset": ["a"], "model": ["BPR"], "topk": [[10], [10, 20]]}
    cases = [{"topk": [10, 20], "settings": {"x": 1}}]
    mine = plan.read(write(tmp_path, grid=grid, cases=cases))
    found = [mine.settings_of(point).get("x") for point in mine.points()]
    assert found == [None, 1, None, 1]
    assert len({cell(point) for point in mine.points()}) == 2


# ------------------------------------------------------------------------------ the shipped files


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_file_is_right(name: str) -> None:
    whole, quick = plan.read(name), plan.read(name, quick=True)
    assert whole.title != name, "a title of its own"
    assert quick.grid["dataset"] == ["ml-100k"]
    assert set(quick.grid) >= set(whole.grid), "quick tries the same axes"
    assert 2 <= len(quick.points()) <= 16
    head = defaults.root().joinpath("benchmark", f"{name}.yaml").read_text().splitlines()[:2]
    assert all(line.startswith("# ") for line in head), "what it is, and where it was printed"


@pytest.mark.slow
def test_every_point_of_quick_makes_a_config(tmp_path: Path, monkeypatch: Any) -> None:
    from recbole_missing.benchmark.identified import DataSets
    from recbole_missing.benchmark.job import Job

    monkeypatch.chdir(tmp_path)
    data_sets = DataSets()  # reads what the files share once
    for name in SHIPPED:
        quick = plan.read(name, quick=True)
        runs, points = set(), set()
        for point in quick.points():
            settings = quick.settings_of(point)
            job = Job(quick.name, quick.title, point, settings, measures=quick.measures)
            runs.add(job.identified(data_sets).run)
            unmasked = {"missing_seed": None} if point.get("missing_ratio") == 0 else {}
            points.add(str({**point, **unmasked}))
        assert len(runs) == len(points), f"{name}: without holes both mask seeds are one run"


def test_published_tables_cover_the_slides() -> None:
    for name in ("dgmrec_missing", "dgmrec_new_items"):
        published = defaults.read("benchmark", name)["published"]
        assert list(published["values"]) == ["baby", "sports", "clothing", "tiktok"]
        models = set(defaults.read("benchmark", name)["grid"]["model"])
        for rows in published["values"].values():
            assert len(rows) == 14
            assert set(rows) <= models
            assert all(len(row) == len(published["metrics"]) for row in rows.values())


# --------------------------------------------------------------------------------------- searches


def searching(**changes: Any) -> plan.Plan:
    """A plan with a search of two settings over two cells, two repetitions each."""
    space = {"learning_rate": [0.1, 0.2], "reg_weight": [1, 2, 3]}
    found = {"method": "grid", "space": space, **changes}
    return plan.Plan("mine", "Mine", {**GRID, "dataset": ["a"]}, search=found, first={"seed": 1})


def test_a_grid_search_tries_everything_with_the_first_repetition() -> None:
    mine = searching()
    found = search.trials(mine, mine.points())
    assert len(found) == 2 * 6
    assert {point["seed"] for point, _ in found} == {1}
    assert [settings for point, settings in found if point["model"] == "BPR"] == [
        {"learning_rate": rate, "reg_weight": weight} for rate in (0.1, 0.2) for weight in (1, 2, 3)
    ]


def test_whatever_is_run_the_first_repetition_of_the_file_is_searched() -> None:
    mine = searching()
    whole = plan.Plan("mine", "Mine", mine.grid, search=mine.search, first={"seed": 1})
    part = whole.only({"seed": ["2"]})
    assert search.trials(part, part.points()) == search.trials(whole, whole.points())
    with pytest.raises(ValueError, match="learning_rate must not be in --set too"):
        search.trials(whole.override({"learning_rate": 1}), whole.points())


def test_a_model_may_have_a_space_of_its_own() -> None:
    mine = searching(space={}, space_of={"MGCN": {"cl_weight": [0.1, 0.2]}})
    found = search.trials(mine, mine.points())
    assert [(p["model"], s) for p, s in found] == [
        ("MGCN", {"cl_weight": 0.1}),
        ("MGCN", {"cl_weight": 0.2}),
    ]


def test_a_random_search_is_decided_by_its_seed_and_stays_within_limits() -> None:
    space = {
        "a": {"uniform": [1, 2]},
        "b": {"loguniform": [1e-4, 1e-2]},
        "c": {"quniform": [10, 20, 5]},
        "d": ["x", "y"],
    }
    mine = searching(method="random", trials=40, space=space)
    drawn = [settings for _, settings in search.trials(mine, mine.points())]
    assert drawn == [settings for _, settings in search.trials(mine, mine.points())]
    other = searching(method="random", trials=40, space=space, seed=1)
    assert drawn != [settings for _, settings in search.trials(other, other.points())]
    assert len(drawn) == 80
    assert all(1 <= s["a"] <= 2 and 1e-4 <= s["b"] <= 1e-2 and s["d"] in "xy" for s in drawn)
    assert {s["c"] for s in drawn} == {10, 15, 20}
    assert sum(s["b"] < 1e-3 for s in drawn) > 20, "uniform in the logarithm"


def test_a_random_search_over_lists_repeats_nothing() -> None:
    mine = searching(method="random", trials=100)
    found = [settings for point, settings in search.trials(mine, mine.points()[:1])]
    assert len({str(settings) for settings in found}) == len(found) == 6


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "best"}, "method must be grid or random, got 'best'"),
        ({"method": "random"}, "trials must be an int >= 1 for random"),
        ({"trials": 0}, "trials must be an int >= 1, or empty, got 0"),
        ({"trials": 5}, "trials must be left out for grid"),
        ({"space": {"seed": [1]}}, "seed must not be an axis"),
        ({"space": {"x": 3}}, "x must be a list of values"),
        ({"space": {"x": {"loguniform": [0, 1]}}}, "x must be a list of values"),
        ({"space": {"x": {"uniform": [2, 1]}}}, "x must be a list of values"),
        ({"space": {"x": {"uniform": [1, 2]}}}, "x must be a list for grid"),
        ({"space": {"x": {"quniform": [0, 1, 0]}}}, "x must be a list of values"),
        ({"space": {"x": {"uniform": [0, float("inf")]}}}, "x must be a list of values"),
        ({"space": {"x": {"uniform": [False, True]}}}, "x must be a list of values"),
        ({"space": {}}, "must have a space"),
    ],
)
def test_a_wrong_search_is_refused(changes: dict, message: str) -> None:
    mine = searching(**changes)
    with pytest.raises(ValueError, match=message):
        search.trials(mine, mine.points())


def trial(value: float | None, status: str = "done", bigger: bool = True, **settings: Any) -> Line:
    """The line of a trial, with a test result that must not matter."""
    return line(
        stage="search",
        point={"dataset": "a", "model": "BPR", "seed": 1},
        status=status,
        error="no luck",
        trial=settings,
        config={"valid_metric": "Recall@20", "valid_metric_bigger": bigger},
        valid={"recall@20": value},
        test={"recall@20": 1 - (value or 0)},
    )


def test_the_best_on_validation_wins_and_failures_never_do() -> None:
    lines = [trial(0.1, x=1), trial(0.9, "failed", x=2), trial(0.3, x=3), trial(0.3, x=4)]
    (found,) = search.choose(lines).values()
    assert found["settings"] == {"x": 3}
    assert (found["found"]["trials"], found["found"]["failed"]) == (3, 1)
    lower = [trial(0.1, bigger=False, x=1), trial(0.3, bigger=False, x=2)]
    assert search.choose(lower)[cell(lower[0].point)]["settings"] == {"x": 1}
    diverged = [trial(None, x=1), trial(0.1, x=2)]
    assert search.choose(diverged)[cell(lower[0].point)]["settings"] == {"x": 2}
    lost = [trial(0.9, "failed"), trial(0.8, "failed")]
    assert search.choose(lost) == {} and search.failures(lines) == {}
    assert search.failures(lost) == {
        cell(lost[0].point): "search: a trial must succeed, got 2 failures, the first: no luck"
    }


def test_a_trial_that_was_never_validated_is_not_chosen() -> None:
    """An eval_step over the number of epochs: Pop, ItemKNN and EASE have one epoch."""
    config = {"valid_metric": "Recall@20", "valid_metric_bigger": True, "eval_step": 5}
    unseen = line(
        stage="search", point=trial(0.1).point, config=config, valid=None, epochs=[{"epoch": 0}]
    )
    assert search.choose([unseen]) == {}
    (reason,) = search.failures([unseen]).values()
    assert reason.endswith("never validated in 1 epochs with eval_step 5; lower eval_step")
    (found,) = search.choose([unseen, trial(0.2, x=1)]).values()
    assert found["settings"] == {"x": 1}


def test_models_without_content_try_the_same_values_before_every_imputation(tmp_path: Path) -> None:
    """Their cells are one experiment: other draws would be averaged as if they were one model."""
    grid = {**GRID, "dataset": ["a"], "model": ["BPR", "MGCN"], "imputation": ["zeros", "mean"]}
    space = {"learning_rate": {"loguniform": [1e-4, 1e-1]}}
    given = {"method": "random", "trials": 2, "space": space}
    mine = plan.read(write(tmp_path, grid=grid, search=given))
    tried: dict[str, dict[str, list[Any]]] = {"BPR": {}, "MGCN": {}}
    for point, settings in search.trials(mine, mine.points()):
        tried[point["model"]].setdefault(point["imputation"], []).append(settings)
    assert tried["BPR"]["zeros"] == tried["BPR"]["mean"]
    assert tried["MGCN"]["zeros"] != tried["MGCN"]["mean"]


def test_a_model_without_a_space_needs_no_trials(tmp_path: Path) -> None:
    given = {"method": "grid", "space_of": {"MGCN": {"cl_weight": [0.1, 1.0]}}}
    mine = plan.read(write(tmp_path, search=given)).only({"model": ["BPR"]})
    assert search.trials(mine, mine.points()) == []


def test_hyper_files_of_recbole(tmp_path: Path) -> None:
    path = tmp_path / "mine.hyper"
    path.write_text(
        "# a comment\nlearning_rate loguniform -8,0\n\nembedding_size choice [64,96]\n"
        "dropout uniform 0.0,1.0\nsize quniform 1,9,2\nact choice ['relu','tanh']\n"
        "mlp choice ['[64,32]','[8]']\n"
    )
    space = hyper_file.read(path)
    assert space.pop("learning_rate")["loguniform"] == pytest.approx([3.3546e-4, 1], rel=1e-4)
    assert space == {
        "embedding_size": [64, 96],
        "dropout": {"uniform": [0.0, 1.0]},
        "size": {"quniform": [1, 9, 2]},
        "act": ["relu", "tanh"],
        "mlp": ["[64,32]", "[8]"],
    }
    path.write_text("x choice [1]\ny normal 0,1\n")
    with pytest.raises(ValueError, match=r"mine.hyper, line 2: must read `name kind values`"):
        hyper_file.read(path)
    for nonsense in ("choice __import__('os')", "loguniform 'a','b'", "loguniform 1,2000"):
        path.write_text(f"x {nonsense}\n")
        with pytest.raises(ValueError, match="line 1"):
            hyper_file.read(path)
