"""Imputation quality without a recommender: what is hidden, what is measured, what is shown."""

from __future__ import annotations

import random
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from helpers import PROPERTIES
from scipy import sparse
from torch import Tensor

from recbole_missing.evaluation.imputation import DEGREE_GROUPS, Result, compare, energies
from recbole_missing.imputation import IMPUTERS, make_imputer
from recbole_missing.imputation.base import Filled, Imputer, Table
from recbole_missing.report import plots

N_ITEMS, N_GROUPS = 120, 6


class Spy(Imputer):
    """Restores ``truth`` plus ``shift``; keeps what it was shown; fails when much is missing."""

    truth: dict[str, Tensor] = {}
    shown: list[dict[str, Table]] = []
    shift = 0.0
    fails_from = 1.0
    reached: Tensor | None = None

    def fill(self, table: Any, others: Mapping[str, Any]) -> Filled:
        """Answer with the truth, shifted, or fail."""
        self.shown.append({table.name: table, **others})
        if (~table.observed).float().mean() >= self.fails_from:
            raise RuntimeError("too little is left")
        return Filled(self.truth[table.name] + self.shift, self.reached)


@pytest.fixture
def settings() -> dict[str, Any]:
    overall = yaml.safe_load((PROPERTIES / "overall.yaml").read_text())
    return {key: value for key, value in overall.items() if key.startswith("imputation")}


@pytest.fixture
def interactions() -> sparse.csr_matrix:
    """Every user stays within one group of items; the groups differ in popularity."""
    rng = np.random.default_rng(0)
    group = np.arange(N_ITEMS) % N_GROUPS
    chance = 0.25 * (np.arange(N_ITEMS) + 1) / N_ITEMS
    users = np.arange(300) % N_GROUPS
    full = (users[:, None] == group) & (rng.random((300, N_ITEMS)) < chance)
    return sparse.csr_matrix(full.astype(np.float32))


@pytest.fixture
def tables() -> dict[str, Table]:
    """Features that are nearly the same within a group; the sound of ten items truly lacks."""
    generator = torch.Generator().manual_seed(0)
    group = torch.arange(N_ITEMS) % N_GROUPS
    made = {}
    for name, dim, lacking in (("image", 8, 0), ("sound", 5, 10)):
        centres = torch.randn(N_GROUPS, dim, generator=generator)
        features = centres[group] + 0.2 * torch.randn(N_ITEMS, dim, generator=generator)
        observed = torch.arange(N_ITEMS) >= lacking
        made[name] = Table(name, features * observed[:, None], observed)
    return made


@pytest.fixture
def spy(monkeypatch: pytest.MonkeyPatch, tables: dict[str, Table]) -> type[Spy]:
    monkeypatch.setitem(IMPUTERS.registered, "spy", Spy)
    monkeypatch.setattr(Spy, "shown", [])
    monkeypatch.setattr(Spy, "truth", {name: table.features for name, table in tables.items()})
    return Spy


def test_a_smooth_graph_orders_the_methods(
    tables: dict[str, Table], interactions: sparse.csr_matrix, settings: dict[str, Any]
) -> None:
    methods = ["random", "mean", "featprop"]
    result = compare(tables, interactions, methods, [10, 50], settings)
    assert (result.methods, result.ratios, result.modalities) == (methods, [10, 50], list(tables))
    for name in tables:
        assert result.truth[name]["homophily"] > 0.5
        for ratio in (10, 50):
            noise, mean, graph = (result.score(name, m, ratio).measures for m in methods)
            assert graph["cosine"] > mean["cosine"] > noise["cosine"]
            assert graph["mse"] < mean["mse"] < noise["mse"]
            assert 0 < graph["energy"] < noise["energy"]
        assert result.score(name, "mean", 50).measures["mse"] == pytest.approx(1, abs=0.2)


def test_a_constant_guess_gives_known_numbers(
    monkeypatch: pytest.MonkeyPatch, interactions: sparse.csr_matrix, settings: dict[str, Any]
) -> None:
    """Rows (2, 4, 0) and (4, 2, 0): deviations 1, 1 and none, whichever items are hidden."""
    features = torch.tensor([[2.0, 4.0, 0.0], [4.0, 2.0, 0.0]]).repeat(N_ITEMS // 2, 1)
    table = Table("image", features, torch.ones(N_ITEMS, dtype=torch.bool))
    monkeypatch.setitem(IMPUTERS.registered, "spy", Spy)
    monkeypatch.setattr(Spy, "truth", {"image": torch.ones(N_ITEMS, 3)})
    monkeypatch.setattr(Spy, "reached", torch.zeros(N_ITEMS, dtype=torch.bool))
    result = compare({"image": table}, interactions, ["spy", "zeros"], [30], settings)
    ones, zeros = (result.score("image", word, 30).measures for word in ("spy", "zeros"))
    assert ones["cosine"] == pytest.approx(6 / (20 * 3) ** 0.5)
    assert ones["mse"] == pytest.approx((1 + 9) / 2)
    assert ones["reached"] == 0
    assert "spy: reached no hidden row" in result.table()
    assert "zeros: reached" not in result.table()
    assert zeros["cosine"] == 0
    assert zeros["mse"] == pytest.approx((4 + 16) / 2)
    assert zeros["reached"] == 1


def test_a_column_of_float_noise_does_not_count(
    interactions: sparse.csr_matrix, settings: dict[str, Any]
) -> None:
    """An encoder gives 0 as 6e-8 in some unit rows; a guess of 0.5 there was an error of 1e14."""
    generator = torch.Generator().manual_seed(0)
    features = torch.nn.functional.normalize(torch.randn(N_ITEMS, 64, generator=generator))
    features[:, 3] = 2.0**-24 * (torch.arange(N_ITEMS) % 2)
    table = Table("text", features, torch.ones(N_ITEMS, dtype=torch.bool))
    result = compare({"text": table}, interactions, ["random"], [30], settings)
    assert result.score("text", "random", 30).measures["mse"] < 100


def test_the_truth_is_perfect(
    spy: type[Spy],
    tables: dict[str, Table],
    interactions: sparse.csr_matrix,
    settings: dict[str, Any],
) -> None:
    result = compare(tables, interactions, ["spy"], [30], settings)
    for name in tables:
        measures = result.score(name, "spy", 30).measures
        assert measures["cosine"] == pytest.approx(1)
        assert measures["mse"] == 0
        assert measures["energy"] == pytest.approx(result.truth[name]["energy"])


def test_degree_groups_partition_the_hidden_items(
    spy: type[Spy],
    tables: dict[str, Table],
    interactions: sparse.csr_matrix,
    settings: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    twice = sparse.vstack([interactions, sparse.csr_matrix((9, N_ITEMS))]) * 2  # values count once
    monkeypatch.setattr(spy, "shift", 1.0)
    monkeypatch.setattr(spy, "reached", torch.arange(N_ITEMS) < 60)
    score = compare(tables, twice, ["spy"], [50], settings).score("sound", "spy", 50)
    hidden = (tables["sound"].observed & ~spy.shown[-1]["sound"].observed).numpy()
    degree = interactions.toarray().sum(axis=0)[hidden]
    ends = [*list(DEGREE_GROUPS.values())[1:], np.inf]
    for (label, start), end in zip(DEGREE_GROUPS.items(), ends):
        inside = (start <= degree) & (degree < end)
        assert inside.any(), "the example must show every group"
        group = score.by_degree[label]
        assert group["items"] == inside.sum()
        assert group["reached"] == pytest.approx((np.flatnonzero(hidden)[inside] < 60).mean())
    assert score.hidden == hidden.sum()
    for measure in ("cosine", "mse", "reached"):
        weighted = sum(g["items"] * g[measure] for g in score.by_degree.values())
        assert weighted / score.hidden == pytest.approx(score.measures[measure])


def test_hidden_items_are_one_draw_of_their_own_generator(
    spy: type[Spy],
    tables: dict[str, Table],
    interactions: sparse.csr_matrix,
    settings: dict[str, Any],
) -> None:
    def hidden(*ratios: float, seed: int = 0) -> list[Tensor]:
        spy.shown.clear()
        compare(tables, interactions, ["spy"], ratios, settings, seed=seed)
        return [~shown["image"].observed for shown in spy.shown[::2]]

    state = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    thirty = hidden(30)[0]
    assert state[:2] == (random.getstate(), np.random.get_state()[1].tolist())
    assert torch.equal(state[2], torch.get_rng_state())
    assert thirty.sum() == 36
    assert torch.equal(hidden(10, 30)[1], thirty), "other ratios must not matter"
    assert not torch.equal(hidden(30, seed=1)[0], thirty)
    hidden(30)
    for shown in spy.shown:
        for name, table in shown.items():
            assert torch.equal(table.observed, tables[name].observed & ~thirty)
            assert not table.features[~table.observed].any(), "hidden values leak"


def test_one_modality_alone(
    spy: type[Spy],
    tables: dict[str, Table],
    interactions: sparse.csr_matrix,
    settings: dict[str, Any],
) -> None:
    result = compare(tables, interactions, ["spy"], [50], settings, only="sound")
    assert result.modalities == ["sound"]
    assert result.score("sound", "spy", 50).hidden == 55, "half of those that have a sound"
    assert torch.equal(spy.shown[0]["image"].observed, tables["image"].observed)
    assert len(spy.shown) == 1


def test_each_modality_apart(
    spy: type[Spy],
    tables: dict[str, Table],
    interactions: sparse.csr_matrix,
    settings: dict[str, Any],
) -> None:
    result = compare(tables, interactions, ["spy"], [10], settings, apart=True)
    assert [score.hidden for score in result.scores] == [12, 11], "a tenth of each one's own rows"
    hidden = [tables[name].observed & ~spy.shown[0][name].observed for name in tables]
    assert not torch.equal(*hidden)
    assert (hidden[0] & ~hidden[1]).sum() > 6, "most of the items keep the other modality"
    assert result.score("sound", "spy", 10).measures["mse"] == 0


def test_energies_before_and_after(
    tables: dict[str, Table], interactions: sparse.csr_matrix, settings: dict[str, Any]
) -> None:
    features = {name: table.features for name, table in tables.items()}
    observed = {name: table.observed for name, table in tables.items()}
    found = {}
    for method in ("featprop", "random"):
        imputer = make_imputer({**settings, "imputation": method}).fit(interactions)
        completed = imputer.transform(features, observed)
        found[method] = energies(imputer, tables, completed, interactions, 20)
        image = found[method]["image"]
        assert image["energy_before"] == image["energy_after"] > 0, "nothing was missing"
    before = found["featprop"]["sound"]["energy_before"]
    assert before == pytest.approx(found["random"]["sound"]["energy_before"]), "one graph for all"
    after = [found[method]["sound"]["energy_after"] for method in ("featprop", "random")]
    assert after[0] < min(before, after[1])


def test_failures_are_shown_and_kept(
    spy: type[Spy],
    tables: dict[str, Table],
    interactions: sparse.csr_matrix,
    settings: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(spy, "fails_from", 0.6)
    result = compare(tables, interactions, ["spy", "mean"], [10, 70], settings)
    assert result.failed("image", "spy") == [70]
    assert result.failed("image", "mean") == []
    row = next(line for line in result.table().splitlines() if line.startswith("spy"))
    assert row.split() == ["spy", "1.000", "failed", "0.000", "failed"]
    message = "failed: spy on image at 70%: RuntimeError: too little is left"
    assert message in result.table()
    assert message in result.by_degree(70)
    assert message not in result.by_degree(10)
    assert Result.from_json(result.to_json()) == result
    pytest.importorskip("matplotlib")
    plots.quality(result, tmp_path / "quality.svg")
    assert "(failed at 70%)" in (tmp_path / "quality.svg").read_text()


@pytest.mark.parametrize("where", ["fit", "fill"])
def test_a_method_that_breaks_leaves_the_others_alone(
    spy: type[Spy],
    where: str,
    tables: dict[str, Table],
    interactions: sparse.csr_matrix,
    settings: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if where == "fit":
        monkeypatch.setattr(spy, "fit", lambda *_: 1 / 0)
    else:
        monkeypatch.setattr(spy, "shift", float("nan"))
    result = compare(tables, interactions, ["spy", "mean"], [10, 70], settings)
    assert result.failed("sound", "spy") == [10, 70]
    told = {"fit": "ZeroDivisionError: division by zero", "fill": "its values must be finite"}
    assert str(result.score("sound", "spy", 70).error).startswith(told[where])
    assert result.score("sound", "mean", 70).measures["mse"] > 0


def test_by_degree_shows_every_method(
    tables: dict[str, Table], interactions: sparse.csr_matrix, settings: dict[str, Any]
) -> None:
    result = compare(tables, interactions, ["mean", "zeros"], [50], settings)
    text = result.by_degree(50)
    group = result.score("image", "mean", 50).by_degree["20+"]
    assert "20+" in text
    assert f"({group['items']})" in text
    assert f"{group['mse']:.3f}" in text
    assert text.count("\nzeros") == 2
    with pytest.raises(ValueError, match="ratio must be among .* got .*20"):
        result.by_degree(20)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"methods": ["meen"]}, "Did you mean 'mean'"),
        ({"ratios": [0]}, "above 0 and below 100, got 0"),
        ({"ratios": [100]}, "above 0 and below 100, got 100"),
        ({"ratios": [0.5]}, "0.5% of 120 items is none"),
        ({"only": "smell"}, "only must be one of the modalities"),
        ({"interactions": sparse.csr_matrix((3, 7))}, "a row for each of the 7 items"),
    ],
)
def test_mistakes_are_told_before_any_work(
    change: dict[str, Any],
    message: str,
    tables: dict[str, Table],
    interactions: sparse.csr_matrix,
    settings: dict[str, Any],
) -> None:
    given = {"interactions": interactions, "methods": ["mean"], "ratios": [10], **change}
    with pytest.raises(ValueError, match=message):
        compare(tables, settings=settings, **given)


def test_plot_says_what_is_off_its_scale(
    spy: type[Spy],
    tables: dict[str, Table],
    interactions: sparse.csr_matrix,
    settings: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    monkeypatch.setattr(spy, "shift", 1e4)
    before, pyplot = dict(matplotlib.rcParams), "matplotlib.pyplot" in sys.modules
    result = compare(tables, interactions, ["spy", "mean", "zeros", "featprop"], [10, 50], settings)
    plots.quality(result, tmp_path / "quality.svg")
    drawn = (tmp_path / "quality.svg").read_text()
    off = [line for line in drawn.splitlines() if "off the scale" in line]
    assert len(off) == 2, "the MSE panels of both modalities"
    assert all("spy" in line and "zeros" not in line for line in off)
    assert all(f"<!-- {word} -->" in drawn for word in (*tables, *result.methods))
    plots.quality(result, tmp_path / "quality.png")
    assert (tmp_path / "quality.png").read_bytes().startswith(b"\x89PNG")
    assert dict(matplotlib.rcParams) == before
    assert ("matplotlib.pyplot" in sys.modules) == pyplot


def test_plot_without_matplotlib_names_the_extra(
    tables: dict[str, Table],
    interactions: sparse.csr_matrix,
    settings: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    result = compare(tables, interactions, ["mean"], [10], settings)
    with pytest.raises(ValueError, match=r'pip install "recbole-missing\[plot\]"'):
        plots.quality(result, tmp_path / "quality.png")
