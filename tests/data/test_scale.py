"""Scales of features: typical norms, the two formulas, and everything that reads scaled rows."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from folders import AT_WORK, Content, Prepared, Toy, prepare, recbole_folder, tiny_content
from folders import workplace as workplace
from recbole.quick_start import load_data_and_model

from recbole_missing import checkpoint, cli, identity
from recbole_missing.benchmark import plan, runner
from recbole_missing.benchmark.store import Store
from recbole_missing.data import cache, sources
from recbole_missing.data.collection import Collection
from recbole_missing.data.scale import FAR, Scale, differing, states, typical_norm
from recbole_missing.evaluation.retrieval import evaluate, retrieval
from recbole_missing.imputation import IMPUTERS, FeatProp, Mean
from recbole_missing.in_force import settings_in_force
from recbole_missing.trainer import protocol

SCALED = ("unit", "standard")
HIDDEN = {"missing_protocol": "random_items", "missing_ratio": 0.4}
NEW = {"missing_protocol": "stratified", "missing_ratio": 0.4, "new_items": "stratified"}
pytestmark = AT_WORK


# --------------------------------------------------------------------------------- typical norm


def test_typical_norm_is_the_median_length_of_the_observed_rows() -> None:
    features = torch.tensor([[0.0, 0.0], [3.0, 4.0], [1e30, 0.0], [0.0, 1.0], [7.0, 0.0]])
    observed = torch.tensor([False, True, False, True, True])
    assert typical_norm(features, observed) == 5
    observed[1] = False
    assert typical_norm(features, observed) == 4  # the middle of two
    many = torch.randn(10_001, 3)
    assert typical_norm(many, many[:, 0] > 0) == pytest.approx(
        np.median(np.linalg.norm(many[many[:, 0] > 0].double(), axis=1))
    )
    huge = torch.full((2, 2), 1e38)
    assert typical_norm(huge, torch.tensor([True, True])) == pytest.approx(2**0.5 * 1e38)


def test_a_typical_norm_needs_a_row() -> None:
    with pytest.raises(ValueError, match="typical norm: one row or more must be observed"):
        typical_norm(torch.ones(2, 2), torch.zeros(2, dtype=torch.bool))


# ------------------------------------------------------------------------------------- formulas


def some_rows(n_items: int = 9000, dim: int = 5) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Features, observed and donors of more items than one block holds; odd means and sizes."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(n_items, dim, generator=generator)
    features = features * torch.tensor([1.0, 1e-4, 300.0, 2.0, 0.0]) + torch.tensor(
        [0.0, 1e-3, 1e4, -7.0, 0.1]
    )
    observed = torch.rand(n_items, generator=generator) < 0.6
    donors = torch.rand(n_items, generator=generator) < 0.7
    observed[0] = False
    observed[5] = donors[5] = True
    features[5] = 0
    return features * observed[:, None], observed, donors


def formula(word: str, rows: np.ndarray, fitted: np.ndarray) -> np.ndarray:
    """The formula of a scale as numpy reads it, in float64."""
    rows, fitted = rows.astype(np.float64), fitted.astype(np.float64)
    if word == "none":
        return rows
    if word == "unit":
        norms = np.sqrt((rows**2).sum(axis=1, keepdims=True))
        return np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 0)
    deviation = fitted.std(axis=0)  # of the population
    constant = (fitted == fitted[0]).all(axis=0)
    return np.where(constant, 0, (rows - fitted.mean(axis=0)) / np.where(constant, 1, deviation))


@pytest.mark.parametrize("word", ["none", *SCALED])
def test_a_scale_is_its_formula_on_observed_donors(word: str) -> None:
    features, observed, donors = some_rows()
    before = features.clone()
    scale = Scale.fitted("image", word, features, observed, donors)
    scaled = scale.apply(features, observed)
    assert features.equal(before) and scaled.dtype == torch.float32
    expected = formula(word, features.numpy(), features[observed & donors].numpy())
    np.testing.assert_allclose(
        scaled[observed].numpy(), expected[observed.numpy()], rtol=1e-6, atol=1e-9
    )
    assert not scaled[~observed].any()
    features[~observed] = 1e6  # nothing of the other rows is read
    again = Scale.fitted("image", word, features, observed, donors)
    assert again.apply(features, observed)[observed].equal(scaled[observed])
    assert not differing(states({"image": again}), states({"image": scale}))
    if word == "standard":
        donating = scaled[observed & donors].double()
        assert donating.mean(dim=0).abs().max() < 1e-6
        torch.testing.assert_close(donating.std(dim=0, correction=0)[:4], torch.ones(4).double())


def test_a_constant_column_becomes_zero_whatever_its_rounding() -> None:
    features = torch.full((5000, 2), 0.1)
    features[:, 1] = torch.arange(5000)
    everyone = torch.ones(5000, dtype=torch.bool)
    scale = Scale.fitted("image", "standard", features, everyone, everyone)
    assert not scale.apply(features, everyone)[:, 0].any()
    stranger = torch.tensor([[5.0, 3.0]])
    assert scale.apply(stranger, torch.tensor([True]))[0, 0] == 0
    back = scale.undone(scale.apply(features, everyone))
    torch.testing.assert_close(back, features, rtol=1e-6, atol=1e-3)


def test_a_column_of_float_noise_becomes_zero() -> None:
    """As in a MiniLM table: unit rows, and one column of 0 and 6e-8; or 0.25 rounded two ways."""
    generator = torch.Generator().manual_seed(0)
    features = torch.nn.functional.normalize(torch.randn(500, 384, generator=generator))
    odd = torch.rand(500, generator=generator) < 0.5
    features[:, 319] = 2.0**-24 * odd
    features[:, 7] = 0.25 + 2.0**-25 * odd
    features[:, 8] = 1e-4 * odd  # small, but no noise
    everyone = torch.ones(500, dtype=torch.bool)
    scale = Scale.fitted("text", "standard", features, everyone, everyone)
    assert (scale.deviation == 0).nonzero()[:, 0].tolist() == [7, 319]
    assert not scale.apply(features, everyone)[:, [7, 319]].any()


def test_columns_of_different_units_are_no_noise() -> None:
    """A price in a small currency, a year, a rating and a share, each in its own unit."""
    generator = torch.Generator().manual_seed(0)
    units = torch.tensor([1e7, 10.0, 1.0, 0.1])
    features = torch.rand(500, 4, generator=generator) * units + torch.tensor([0, 2000.0, 0, 0])
    everyone = torch.ones(500, dtype=torch.bool)
    assert Scale.fitted("facts", "standard", features, everyone, everyone).deviation.all()


@pytest.mark.parametrize("word", SCALED)
def test_a_row_does_not_depend_on_which_others_are_scaled(word: str) -> None:
    features, observed, donors = some_rows()
    scale = Scale.fitted("image", word, features, observed, donors)
    some = observed & (torch.arange(len(observed)) % 3 == 0)
    assert scale.apply(features, some)[some].equal(scale.apply(features, observed)[some])


def test_new_items_count_only_if_nothing_else_is_observed() -> None:
    features, observed, _ = some_rows()
    nobody = torch.zeros(len(observed), dtype=torch.bool)
    one = Scale.fitted("image", "standard", features, observed, nobody)
    other = Scale.fitted("image", "standard", features, observed, ~nobody)
    assert states({"image": one})["image"]["mean"].equal(states({"image": other})["image"]["mean"])
    imputed = (
        Mean()
        .fit(np.zeros((1, len(observed))), nobody)
        .mean_row(type("Table", (), {"features": features, "observed": observed}))
    )
    torch.testing.assert_close(one.mean.float(), imputed)  # the donors are those of the mean


def test_standard_needs_rows_that_differ() -> None:
    features = torch.ones(4, 2)
    features[3] = 2
    observed = torch.tensor([False, True, True, False])
    everyone = torch.ones(4, dtype=torch.bool)
    for rows in (observed, torch.tensor([False, True, False, False])):
        with pytest.raises(ValueError, match="image_scale standard must have observed rows that"):
            Scale.fitted("image", "standard", features, rows, everyone)
        Scale.fitted("image", "unit", features, rows, everyone)


def test_what_is_not_finite_after_scaling_is_refused() -> None:
    features = torch.tensor([[0.0], [0.0], [1e-38], [1e38]])
    donors = torch.tensor([True, True, True, False])
    scale = Scale.fitted("image", "standard", features, donors, donors)
    with pytest.raises(ValueError, match="image: rows scaled by standard must be finite"):
        scale.apply(features, torch.ones(4, dtype=torch.bool))


# --------------------------------------------------------------------------------- the data set


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, Any]:
    return tiny_content().write(tmp_path)


def raw_images(run: Prepared, content: Content) -> np.ndarray:
    """The image matrix by item id; rows of items without an image are zero."""
    tokens = run.dataset.field2id_token["item_id"].tolist()
    rows = np.zeros((len(tokens), content.image.shape[1]), np.float32)
    for item, token in enumerate(tokens):
        if token in content.image_ids:
            rows[item] = content.image[content.row(token)]
    return rows


@pytest.mark.parametrize("mask", [HIDDEN, NEW], ids=["hidden", "new"])
@pytest.mark.parametrize("word", SCALED)
def test_features_truth_and_numbers_of_a_data_set(settings, word, mask):
    content = tiny_content()
    content.image[3] = 0
    run = prepare("VBPR", {**content.write(Path("other")), **mask}, modality_scale=word)
    dataset, raw = run.dataset, raw_images(run, content)
    known, true = dataset.known["image"], dataset.true_features()["image"]
    observed, new = known.observed.numpy(), dataset.new_items.numpy()
    assert (true.observed & ~known.observed).any() and (mask is HIDDEN) == (not new.any())
    expected = formula(word, raw, raw[observed & ~new])
    for found in (known, true):
        rows = found.observed.numpy()
        np.testing.assert_allclose(found.features[rows], expected[rows], rtol=1e-5, atol=1e-7)
        assert not found.features[~rows].any()
    assert true.features[known.observed].equal(known.features[known.observed])
    assert all(split._dataset.scales is dataset.scales for split in (run.train, run.test))


@pytest.mark.parametrize(
    ("imputation", "names"),
    [
        *((imputation, ["image", "title", "tags"]) for imputation in IMPUTERS),
        ("mean", ["title", "image"]),
        ("featprop", ["tags"]),
    ],
)
def test_imputers_see_scaled_rows_and_leave_them(settings, imputation, names):
    changes = {"modalities": names, "imputation": imputation, "imputation_epochs": 2, **HIDDEN}
    plain = prepare("VBPR", settings, **changes).dataset.known
    for word in ("none", *SCALED):
        keys = {f"{name}_scale": word for name in names}
        dataset = prepare("VBPR", settings, **keys, **changes).dataset
        for name, modality in dataset.modalities.items():
            observed, raw = modality.observed, plain[name].features
            assert modality.features[observed].equal(dataset.known[name].features[observed])
            expected = formula(word, raw.numpy(), raw[observed].numpy())[observed]
            np.testing.assert_allclose(modality.features[observed], expected, 1e-4, 1e-6)
            assert observed.equal(plain[name].observed)
            missing = modality.features[modality.missing]
            if imputation in ("mean", "zeros") and word == "standard":
                assert missing.abs().max() < 1e-6, "the mean row is zero in this space"


def test_the_setting_of_a_modality_wins_over_that_of_all(settings):
    scales = prepare("VBPR", settings, modality_scale="unit", tags_scale="none").dataset.scales
    assert {name: one.word for name, one in scales.items()} == {
        "image": "unit", "title": "unit", "tags": "none"
    }  # fmt: skip
    scales = prepare("VBPR", settings).dataset.scales
    assert {one.word for one in scales.values()} == {"none"}


@pytest.mark.parametrize("mask", [HIDDEN, NEW], ids=["hidden", "new"])
@pytest.mark.parametrize("word", SCALED)
def test_hidden_rows_and_held_out_interactions_change_no_scale(settings, tmp_path, word, mask):
    content, changes = tiny_content(), {**mask, "modality_scale": word}
    one = prepare("VBPR", settings, **changes).dataset
    tokens = one.field2id_token["item_id"]
    hidden = set(tokens[one.known["image"].missing.numpy()].tolist()) & {*content.image_ids}
    assert len(hidden) > 5
    for token in hidden:
        content.image[content.row(token)] = 1e6
    held_out = [(user, item) for (user, _), (_, item) in zip(content.test, content.test[::-1])]
    known = {*content.train, *content.valid}
    content = replace(content, test=[pair for pair in held_out if pair not in known])
    assert set(content.test) != set(tiny_content().test)
    other = prepare("VBPR", content.write(tmp_path / "other"), **changes).dataset
    assert other.field2id_token["item_id"].tolist() == tokens.tolist()
    for name, modality in one.modalities.items():
        assert modality.features.equal(other.modalities[name].features)
    for name, state in states(one.scales).items():
        for key, number in states(other.scales)[name].items():
            same = number.equal(state[key]) if torch.is_tensor(number) else number == state[key]
            assert same, (name, key)
    shown = next(t for t in content.image_ids if t not in hidden and t != "i99")
    content.image[content.row(shown)] += 1
    changed = prepare("VBPR", content.write(tmp_path / "shown"), **changes).dataset
    assert not changed.known["image"].features.equal(one.known["image"].features)


def test_retrieval_compares_in_the_scaled_space(settings):
    run = prepare(Toy, settings, **HIDDEN, modality_scale="standard", imputation="featprop")
    dataset = run.train._dataset
    filled = {name: modality.features for name, modality in dataset.modalities.items()}
    expected = retrieval(dataset.true_features(), filled, dataset.modalities.observed)
    found = {
        name: {
            lacking: {key: value for key, value in row.items() if not key.startswith("control@")}
            for lacking, row in rows.items()
        }
        for name, rows in evaluate(run.network(), dataset)["model"].items()
    }
    assert found == expected
    plain = prepare(Toy, settings, **HIDDEN, imputation="featprop", modality_scale="none")
    true = plain.train._dataset.true_features()
    assert retrieval(true, filled, dataset.modalities.observed) != expected


@pytest.mark.parametrize("key", ["image_scale", "modality_scale"])
@pytest.mark.parametrize("value", ["norm", 1, True, ["unit"]])
def test_another_scale_is_refused(settings, key, value):
    with pytest.raises(ValueError, match=f"VBPR: {key} must be one of none, unit, standard"):
        prepare("VBPR", settings, **{key: value})


@pytest.mark.parametrize("key", ["image_scal", "imag_scale", "modality_scales"])
def test_a_misspelt_scale_is_refused(settings, key):
    with pytest.raises(ValueError, match=f"Unknown setting '{key}'. Did you mean"):
        prepare("VBPR", settings, **{key: "unit"})


def test_the_line_above_a_result_names_the_scales(settings):
    line = protocol(prepare("VBPR", settings, modality_scale="unit", tags_scale="none").config)
    assert "; missing: none; scale: image unit, title unit; imputation: featprop;" in line
    assert "scale" not in protocol(prepare("VBPR", settings, image_scale="none").config)
    assert "scale" not in protocol(prepare("BPR", settings, modality_scale="unit").config)


# -------------------------------------------------------------------------------------- warning


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    found = [record.getMessage() for record in caplog.records]
    caplog.clear()
    return [text for text in found if "times as long as" in text]


@pytest.fixture
def far_apart(tmp_path: Path) -> dict[str, Any]:
    content = tiny_content()
    content.image *= 1e3
    return content.write(tmp_path)


def test_a_run_warns_once_if_norms_are_far_apart(far_apart, caplog):
    caplog.set_level(logging.INFO)
    run = prepare("VBPR", far_apart)
    run.trainer().fit(run.train, run.valid, saved=False)
    (text,) = warnings_of(caplog)
    norms = {n: typical_norm(m.features, m.observed) for n, m in run.dataset.known.items()}
    factor = norms["image"] / norms["title"]
    assert factor > FAR
    assert f"rows of 'image' are typically {factor:,.0f} times as long as those of 'title'" in text
    assert "set `modality_scale: standard` or `unit` (`image_scale` for one modality)" in text


def test_who_has_chosen_or_reads_no_modality_is_not_warned(far_apart, caplog):
    caplog.set_level(logging.INFO)
    for words in (
        {"modality_scale": "none"},
        {"image_scale": "none", "title_scale": "none", "tags_scale": "none"},
        {"image_scale": "unit"},  # and then they are near each other
        {"modalities": ["image"]},
    ):
        prepare("VBPR", far_apart, **words)
        assert not warnings_of(caplog), words
    prepare("BPR", far_apart)
    assert not warnings_of(caplog)
    prepare("VBPR", far_apart, title_scale="unit")
    assert "(`image_scale` for one modality)" in warnings_of(caplog)[0]


# --------------------------------------------------------- identity, caches, checkpoints


def run_id(settings: dict[str, Any], model: str = "VBPR", **changes: Any) -> str:
    run = prepare(model, settings, **changes)
    in_force = settings_in_force(run.config.final_config_dict, run.config.model_class)
    return identity.of_run(run.config.model_class, run.dataset.identity, in_force)


def test_none_keeps_the_id_of_a_run_and_another_scale_changes_it(settings):
    first = run_id(settings)
    assert first == run_id(settings, modality_scale="none") == run_id(settings, tags_scale="none")
    others = [
        run_id(settings, modality_scale="unit"),
        run_id(settings, modality_scale="standard"),
        run_id(settings, image_scale="standard"),
        run_id(settings, title_scale="standard"),
    ]
    assert len({first, *others}) == 5
    one_by_one = {f"{name}_scale": "unit" for name in settings["modalities"]}
    assert run_id(settings, **one_by_one) == others[0], "two ways to write one thing"
    assert run_id(settings, "BPR") == run_id(settings, "BPR", modality_scale="unit")


def test_plans_over_scales_read_each_file_once(tmp_path, monkeypatch):
    settings = tiny_content().write(tmp_path / "dataset")
    opened, original = [], sources.open_source
    monkeypatch.setattr(
        sources, "open_source", lambda *args: opened.append(args[0]) or original(*args)
    )
    grid = {"dataset": ["tiny"], "model": ["VBPR"], "modality_scale": ["none", "unit", "standard"]}
    mine = plan.Plan("mine", "Mine", {**grid, "image_scale": [None, "unit"]}, settings)
    options = runner.Options(data_path=tmp_path / "dataset", say=lambda text: None)
    assert len(runner.preview(mine, Store(tmp_path / "mine.jsonl"), options)) == 5
    assert sorted(opened) == ["image", "tags", "title"]


def test_an_imputed_cache_is_of_one_scale(settings):
    keys = set()
    for word in ("none", *SCALED):
        dataset = prepare("VBPR", settings, modality_scale=word, imputation="featprop").dataset
        matrix = dataset.interaction_matrix()
        keys.add(cache.key(FeatProp(), dataset.known, matrix, None, None))
        dataset.modalities  # noqa: B018  imputes
    assert len(keys) == 3
    assert len(list(Path(settings["checkpoint_dir"], "imputed").iterdir())) == 3


def fitted(settings: dict[str, Any], **changes: Any) -> tuple[Prepared, Any]:
    run = prepare("VBPR", settings, **changes)
    trainer = run.trainer()
    trainer.fit(run.train, run.valid)
    return run, trainer


@pytest.mark.parametrize("word", ["none", *SCALED])
def test_a_checkpoint_holds_its_scales_and_scores_alike(settings, word):
    run, trainer = fitted(settings, **HIDDEN, modality_scale=word)
    saved = torch.load(trainer.saved_model_file, weights_only=True)["config"]["data_scales"]
    expected = states(run.dataset.scales)
    assert (
        saved.keys() == expected.keys() == ({*settings["modalities"]} if word != "none" else set())
    )
    for name, state in expected.items():
        assert saved[name]["scale"] == word
        assert (word == "standard") == (saved[name]["mean"] is not None)
        if word == "standard":
            assert saved[name]["mean"].equal(state["mean"])
            assert saved[name]["deviation"].equal(state["deviation"])
    trainer.evaluate(run.test)
    found = load_data_and_model(trainer.saved_model_file, settings["data_path"])
    trainer.evaluate(run.test)  # loads the best epoch
    assert run.scores(found[1]).equal(run.scores(trainer.model))


def test_a_checkpoint_is_refused_with_another_scale(settings):
    _, trainer = fitted(settings, modality_scale="standard")
    file, folder = trainer.saved_model_file, settings["data_path"]
    for words in ({"modality_scale": "unit"}, {"image_scale": "none"}):
        (word,) = words.values()
        message = f"got another set of features, image_scale {word} instead of standard"
        with pytest.raises(ValueError, match=message):
            checkpoint.load_data_and_model(file, folder, words)
        with pytest.raises(ValueError, match=message):
            prepare("VBPR", settings, **words).trainer().resume_checkpoint(file)


def other_mean(scales: dict[str, Any]) -> None:
    scales["image"]["mean"] = scales["image"]["mean"] + 0.01 * scales["image"]["deviation"]


def other_deviation(scales: dict[str, Any]) -> None:
    scales["image"]["deviation"] = 1.01 * scales["image"]["deviation"]


def other_shape(scales: dict[str, Any]) -> None:
    scales["image"]["mean"] = torch.zeros(2)


def no_number(scales: dict[str, Any]) -> None:
    scales["image"]["mean"] = scales["image"]["mean"] * float("nan")


def no_tensor(scales: dict[str, Any]) -> None:
    scales["image"]["mean"] = "mean"


def no_state(scales: dict[str, Any]) -> None:
    scales["image"] = 3


def no_entry(scales: dict[str, Any]) -> None:
    del scales["image"]


@pytest.mark.parametrize(
    "damage",
    [other_mean, other_deviation, other_shape, no_number, no_tensor, no_state, no_entry, None],
)
def test_numbers_of_a_scale_must_be_those_of_the_data(settings, damage):
    _, trainer = fitted(settings, modality_scale="standard")
    file = Path(trainer.saved_model_file)
    state = checkpoint.load(file)
    if damage is None:
        state["config"]["data_scales"] = "none"
    else:
        damage(state["config"]["data_scales"])
    checkpoint.save(state, file)
    message = r"trained on, got (other numbers of image_scale standard|image_scale standard inst)"
    with pytest.raises(ValueError, match=message):
        load_data_and_model(str(file), settings["data_path"])


def test_last_digits_of_another_machine_are_no_other_scale(settings):
    _, trainer = fitted(settings, modality_scale="standard")
    file = Path(trainer.saved_model_file)
    state = checkpoint.load(file)
    for one in state["config"]["data_scales"].values():
        one["mean"], one["deviation"] = one["mean"] * (1 + 1e-7), one["deviation"] * (1 + 1e-5)
    checkpoint.save(state, file)
    assert load_data_and_model(str(file), settings["data_path"])


def test_a_checkpoint_from_before_there_were_scales_loads(settings):
    run, trainer = fitted(settings)
    file = Path(trainer.saved_model_file)
    state = checkpoint.load(file)
    for key in ("data_scales", "modality_scale"):
        del state["config"][key]
    checkpoint.save(state, file)
    found = load_data_and_model(str(file), settings["data_path"])
    trainer.evaluate(run.test)
    assert run.scores(found[1]).equal(run.scores(trainer.model))


# -------------------------------------------------------------------------------------- commands


def written(folder: Path, name: str = "image") -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Features, observed and item tokens that ``impute`` wrote."""
    features, observed = (np.load(folder / f"{name}{end}.npy") for end in ("", "_observed"))
    return features, observed, (folder / "items.ids").read_text().split()


@pytest.mark.parametrize("imputation", ["zeros", "featprop"])
def test_impute_writes_standard_features_in_the_space_of_their_source(tmp_path, imputation):
    content = tiny_content()
    folder, _ = recbole_folder(tmp_path, **HIDDEN, modality_scale="standard")
    cli.main(["impute", str(folder), "--method", imputation, "--output", "out"])
    features, observed, tokens = written(Path("out"))
    source = [content.row(token) for token, shown in zip(tokens, observed) if shown]
    assert features[observed].tobytes() == content.image[source].tobytes()
    if imputation == "zeros":
        mean = content.image[source].mean(axis=0)
        np.testing.assert_allclose(
            features[~observed], np.tile(mean, ((~observed).sum(), 1)), rtol=1e-5
        )
    notes = json.loads(Path("out/report.json").read_text())["notes"]
    assert (
        "image: imputed as image_scale standard makes it, written in the space of its source"
        in notes
    )


def test_impute_gives_unit_features_as_they_are_and_says_so(tmp_path, capsys):
    folder, _ = recbole_folder(tmp_path, **HIDDEN, image_scale="unit")
    cli.main(["impute", str(folder), "--method", "mean", "--output", "out"])
    assert (
        "image: imputed and written in rows of length 1 (image_scale unit)"
        in capsys.readouterr().out
    )
    features, observed, _ = written(Path("out"))
    np.testing.assert_allclose(np.linalg.norm(features[observed], axis=1), 1, rtol=1e-6)
    mean = features[observed].mean(axis=0)
    np.testing.assert_allclose(
        features[~observed], np.tile(mean, ((~observed).sum(), 1)), rtol=1e-4, atol=1e-6
    )


def test_impute_measures_in_the_scaled_space(tmp_path):
    found = {}
    for word in ("none", *SCALED):
        folder, _ = recbole_folder(tmp_path / word, modality_scale=word)
        words = [
            "--ratios",
            "30",
            "--methods",
            "zeros",
            "mean",
            "featprop",
            "--output",
            f"of_{word}",
        ]
        cli.main(["impute", str(folder), "--evaluate", *words])
        scores = json.loads(Path(f"of_{word}", "evaluation.json").read_text())["scores"]
        found[word] = {(s["modality"], s["method"]): s["measures"] for s in scores}
    image = {word: found[word]["image", "featprop"] for word in found}
    assert len({values["cosine"] for values in image.values()}) == 3
    mse = {word: found[word]["image", "mean"]["mse"] for word in found}
    assert mse["standard"] == pytest.approx(mse["none"]), "divided by the deviation in either case"
    zeros = found["standard"]["image", "zeros"]["mse"]
    assert zeros == pytest.approx(mse["standard"], rel=0.2), "zeros are nearly the mean here"


def test_export_writes_standard_features_in_the_space_of_their_source(tmp_path):
    content = tiny_content()
    folder, _ = recbole_folder(tmp_path, modality_scale="standard")
    cli.main(["export", "mmrec", str(folder), "--method", "mean", "--output", "out"])
    rows = np.load("out/tiny/image_feat.npy")
    lines = Path("out/tiny/i_id_mapping.csv").read_text().splitlines()[1:]
    for line in lines:
        token, row = line.split("\t")
        if token in content.image_ids:
            assert np.array_equal(rows[int(row)], content.image[content.row(token)])


def test_rows_that_nobody_imputed_stay_zero_in_the_space_of_their_source(settings):
    collection = Collection.of(prepare("BPR", settings, modality_scale="standard").train._dataset)
    features = {name: table.features for name, table in collection.tables.items()}
    for found in (
        collection.in_source_space(features, completed=False),
        collection.in_order().in_source_space(
            {name: table.features for name, table in collection.in_order().tables.items()}, False
        ),
    ):
        zero = ~found["image"].any(dim=1)
        assert zero.sum() == 2 and set(map(str, found)) == {"image", "title", "tags"}
    content = tiny_content()
    for token, row in zip(collection.in_order().items, found["image"].numpy()):
        if token in content.image_ids:
            assert np.array_equal(row, content.image[content.row(token)])


@pytest.mark.parametrize("word", SCALED)
@pytest.mark.parametrize("names", [["image"], ["image", "title"], ["image", "title", "tags"]])
def test_dgmrec_trains_on_scaled_features(settings, names, word):
    run = prepare("DGMRec", settings, modalities=names, modality_scale=word, **HIDDEN)
    trainer = run.trainer()
    trainer.fit(run.train, run.valid, saved=False)
    assert all(np.isfinite(term) for term in trainer.history[0]["loss"].values())


def test_columns_too_small_beside_others_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    """Prices of millions beside a rating: the rating is lost, and the user hears of it."""
    drawn = torch.Generator().manual_seed(0)
    prices = 1.5e7 + 1e6 * torch.randn(50, 2, generator=drawn)
    ratings = torch.randint(1, 6, (50, 1), generator=drawn).float()
    everyone = torch.ones(50, dtype=torch.bool)
    table = torch.cat([prices, ratings], dim=1)
    fitted = Scale.fitted("numbers", "standard", table, everyone, everyone)
    assert fitted.deviation is not None
    assert (fitted.deviation > 0).tolist() == [True, True, False]
    assert "numbers: 1 of 3 columns vary by less than the rounding of a typical row" in caplog.text
    caplog.clear()
    Scale.fitted("numbers", "standard", torch.cat([prices, prices], 1), everyone, everyone)
    assert not caplog.text
