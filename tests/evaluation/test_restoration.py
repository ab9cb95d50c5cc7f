"""Restoration: a slow computation, what a constant row gets, the scale, and who is measured."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from folders import AT_WORK, Toy, prepare, tiny_content
from folders import workplace as workplace
from helpers import tiny_modalities

from recbole_missing.evaluation.restoration import evaluate, restored
from recbole_missing.evaluation.retrieval import hits
from recbole_missing.imputation import FeatProp, Mean
from recbole_missing.modality import Modalities, Modality

pytestmark = AT_WORK


@pytest.fixture
def settings(tmp_path: Any) -> dict[str, Any]:
    stratified = {"missing_protocol": "stratified", "missing_ratio": 0.5}
    return {**tiny_content().write(tmp_path), **stratified}


def tables(n_items: int = 60, seed: int = 0) -> tuple[Modalities, Modalities]:
    """True modalities, some of them absent by nature, far from zero; and what a mask left."""
    drawn = tiny_modalities(n_items, {"a": 4, "b": 5}, missing=0.2, seed=seed)
    true = [
        Modality(name, (m.features + 9) * m.observed[:, None], m.observed)
        for name, m in drawn.items()
    ]
    kept = torch.rand(n_items, 2, generator=torch.Generator().manual_seed(seed)) < 0.5
    left = [
        Modality(m.name, m.features * (m.observed & kept[:, j])[:, None], m.observed & kept[:, j])
        for j, m in enumerate(true)
    ]
    return Modalities(true), Modalities(left)


def constant(true: Modalities, value: float) -> dict[str, torch.Tensor]:
    return {name: torch.full_like(modality.features, value) for name, modality in true.items()}


def noisy(true: Modalities) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(9)
    return {
        name: m.features + torch.randn(m.features.shape, generator=generator)
        for name, m in true.items()
    }


# ------------------------------------------------------------------------------- on bare tensors


@pytest.mark.parametrize("block", [4096, 7])
def test_measures_equal_a_slow_computation(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr("recbole_missing.evaluation.restoration._BLOCK", block)
    true, known = tables()
    made = noisy(true)
    donors = torch.arange(60) % 5 > 0
    found = restored(true, made, known, donors)
    assert list(found) == ["a", "b"]
    for name, modality in true.items():
        shown = (known[name].observed & donors).numpy()
        mean = modality.features.double().numpy()[shown].mean(axis=0)
        items = [i for i in range(60) if modality.observed[i] and not known[name].observed[i]]
        assert found[name].items.tolist() == items and len(items) > 10
        cosines, errors, spreads = [], [], []
        for item in items:
            own = modality.features[item].double().numpy() - mean
            ours = made[name][item].double().numpy() - mean
            cosines.append(own @ ours / np.linalg.norm(own) / np.linalg.norm(ours))
            errors.append(((own - ours) ** 2).sum())
            spreads.append((own**2).sum())
        measures = found[name].measures()
        assert measures.pop("items") == len(items)
        hit = hits(modality, made[name], torch.tensor(items), [10]).mean()
        expected = {
            "cosine": np.mean(cosines),
            "relative_mse": np.sum(errors) / np.sum(spreads),
            "hit@10": float(hit),
            "chance@10": 10 / int(modality.observed.sum()),
        }
        assert measures == pytest.approx(expected, rel=1e-5)
        assert 0.1 < measures["cosine"] < 0.95


def test_the_mean_gets_nothing_and_the_truth_everything() -> None:
    true, known = tables()
    mean = Mean().fit(np.zeros((1, 60), dtype=np.float32)).transform(known)
    for one in restored(true, {n: m.features for n, m in mean.items()}, known).values():
        assert one.measures()["cosine"] == 0, "raw rows are far from zero: their cosine is near 1"
        assert one.measures()["relative_mse"] == 1
    for one in restored(true, {n: m.features for n, m in true.items()}, known).values():
        assert one.measures()["cosine"] == pytest.approx(1)
        assert one.measures()["relative_mse"] == 0
        assert one.measures()["hit@10"] == 1


def test_no_constant_row_looks_good() -> None:
    true, known = tables(2000)
    for value in (0.0, 9.5, -3.0):
        for one in restored(true, constant(true, value), known).values():
            measures = one.measures()
            assert abs(measures["cosine"]) < 0.1
            assert measures["relative_mse"] > 1
            assert measures["hit@10"] <= 10 / measures["items"] + 1e-9


def test_only_hidden_rows_are_read_and_what_is_truly_missing_is_not_measured() -> None:
    true, known = tables()
    made = noisy(true)
    expected = {name: one.measures() for name, one in restored(true, made, known).items()}
    for name, modality in true.items():
        made[name][known[name].observed | ~modality.observed] = torch.nan
    found = restored(true, made, known)
    assert {name: one.measures() for name, one in found.items()} == expected
    assert restored(true, made, true) == {}, "nothing is hidden"


def test_some_items_alone() -> None:
    true, known = tables()
    one = restored(true, noisy(true), known)["a"]
    some = torch.arange(60) < 30
    parts = [one.measures(among) for among in (some, ~some)]
    assert sum(part["items"] for part in parts) == one.measures()["items"]
    chosen = some[one.items]
    assert parts[0]["cosine"] == pytest.approx(float(one.cosine[chosen].mean()))
    assert parts[0]["relative_mse"] == pytest.approx(
        float(one.error[chosen].sum() / one.spread[chosen].sum())
    )
    assert one.measures(torch.zeros(60, dtype=torch.bool)) == {"items": 0}


def test_features_must_have_the_shape_of_the_true_ones() -> None:
    true, known = tables()
    made = {name: rows[1:] for name, rows in noisy(true).items()}
    with pytest.raises(ValueError, match=r"'a' must have shape \(60, 4\), got \(59, 4\)"):
        restored(true, made, known)


# ------------------------------------------------------------------------------ on a data set


@pytest.mark.parametrize("scale", ["none", "standard"])
def test_a_model_is_measured_by_what_it_reads(settings: dict[str, Any], scale: str) -> None:
    run = prepare(Toy, settings, imputation="featprop", modality_scale=scale)
    dataset = run.train._dataset
    result = evaluate(run.network(), dataset)
    filled = {name: modality.features for name, modality in dataset.modalities.items()}
    expected = restored(dataset.true_features(), filled, dataset.known)
    assert result == {name: one.measures() for name, one in expected.items()}
    imputed = FeatProp().fit(dataset.interaction_matrix()).transform(dataset.known)
    assert all(imputed[name].features.equal(rows) for name, rows in filled.items())
    assert {measures["items"] for measures in result.values()} != {0}
    network = run.network()
    true = dataset.true_features()
    network.completed_features = lambda: {n: m.features.clone() for n, m in true.items()}
    assert {measures["relative_mse"] for measures in evaluate(network, dataset).values()} == {0}


def test_new_items_have_no_part_in_the_mean(settings: dict[str, Any]) -> None:
    changes = {"imputation": "mean", "new_items": "stratified", "test_mask": "train"}
    run = prepare(Toy, settings, **changes)
    assert run.train._dataset.new_items.any()
    for measures in evaluate(run.network(), run.train._dataset).values():
        assert (measures["cosine"], measures["relative_mse"]) == (0, 1)


def test_nothing_hidden_gives_nothing(settings: dict[str, Any]) -> None:
    run = prepare(Toy, settings, missing_ratio=0.0)
    assert evaluate(run.network(), run.train._dataset) == {}
