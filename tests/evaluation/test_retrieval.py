"""Cross-modal retrieval: a slow count, ties, and the truth that training never sees."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from folders import AT_WORK, Toy, prepare, refused, tiny_content
from folders import workplace as workplace
from helpers import tiny_modalities
from recbole.utils import init_seed

from recbole_missing import cli
from recbole_missing.data.aligned import Source
from recbole_missing.data.dataset import MultimodalDataset
from recbole_missing.evaluation.retrieval import _exchanged, evaluate, retrieval
from recbole_missing.imputation import Mean, NearestNeighbour
from recbole_missing.modality import Modalities, Modality

HERE = ("--data-path", ".")
pytestmark = AT_WORK

NAMES = ("image", "title", "tags")
STRATIFIED = {"missing_protocol": "stratified", "missing_ratio": 0.5}


@pytest.fixture
def settings(tmp_path):
    return {**tiny_content().write(tmp_path), **STRATIFIED}


def tables(n_items=60, seed=0):
    """True modalities, some of them absent by nature, and who still had what."""
    true = tiny_modalities(n_items, {"a": 4, "b": 5, "c": 6}, missing=0.2, seed=seed)
    kept = torch.rand(n_items, 3, generator=torch.Generator().manual_seed(seed)) < 0.5
    return true, true.observed & kept


def noisy(true, noise=1.0):
    generator = torch.Generator().manual_seed(9)
    return {
        name: m.features + noise * torch.randn(m.features.shape, generator=generator)
        for name, m in true.items()
    }


def slow_hit(query, modality, item, k):
    """Expected hit of one query over random orders of what ties, one candidate at a time."""

    def cosine(other):
        x, y = query.double().numpy(), modality.features[other].double().numpy()
        return round(float(x @ y / max(np.linalg.norm(x) * np.linalg.norm(y), 1e-12)) * 2**20)

    candidates = modality.observed.nonzero()[:, 0].tolist()
    better = sum(cosine(other) > cosine(item) for other in candidates)
    ties = sum(cosine(other) == cosine(item) for other in candidates)
    return float(np.mean([better + place < k for place in range(ties)]))


# ------------------------------------------------------------------------------- on bare tensors


@pytest.mark.parametrize("entries", [2**25, 100, 1])
def test_hits_equal_a_slow_count(monkeypatch, entries):
    monkeypatch.setattr("recbole_missing.graph.knn.BLOCK_ENTRIES", entries)
    true, observed = tables()
    completed = noisy(true)
    result = retrieval(true, completed, observed, ks=(1, 3, 10))
    lacking = (~observed).sum(dim=1)
    assert list(result) == ["a", "b", "c"]
    for column, (name, modality) in enumerate(true.items()):
        hidden = modality.observed & ~observed[:, column]
        n_candidates = int(modality.observed.sum())
        assert list(result[name]) == ["1 missing", "2 missing", "3 missing"]
        for count in (1, 2, 3):
            values = result[name][f"{count} missing"]
            items = (hidden & (lacking == count)).nonzero()[:, 0].tolist()
            assert values["items"] == len(items) > 0
            for k in (1, 3, 10):
                hits = [slow_hit(completed[name][i], modality, i, k) for i in items]
                assert values[f"hit@{k}"] == pytest.approx(np.mean(hits))
                assert values[f"chance@{k}"] == pytest.approx(k / n_candidates)


def test_ties_count_by_their_expected_place():
    rows = torch.tensor([[0.0, 0], [1, 0], [2, 0], [3, 0], [0, 1]])
    true = {"a": Modality("a", rows, rows.any(dim=1))}
    observed = torch.tensor([[False], [False], [True], [True], [False]])
    result = retrieval(true, {"a": rows}, observed, ks=(1, 2, 3))["a"]["1 missing"]
    # Item 1 ties with two others, item 4 with none.
    assert [result[f"hit@{k}"] for k in (1, 2, 3)] == pytest.approx([4 / 6, 5 / 6, 1])


def test_the_truth_is_found_again():
    true, observed = tables()
    truth = {name: modality.features for name, modality in true.items()}
    result = retrieval(true, truth, observed, ks=(1,))
    assert all(v["hit@1"] == 1 for groups in result.values() for v in groups.values())


def test_a_constant_query_does_not_profit():
    true, observed = tables()
    hidden = Modalities(
        [
            Modality(name, m.features * observed[:, [j]], observed[:, j])
            for j, (name, m) in enumerate(true.items())
        ]
    )
    means = Mean().fit(torch.zeros(1, 60).numpy()).transform(hidden)
    result = retrieval(true, {name: m.features for name, m in means.items()}, observed, ks=(5,))
    zeros = {name: torch.zeros_like(m.features) for name, m in true.items()}
    nothing = retrieval(true, zeros, observed, ks=(5,))
    for name, groups in result.items():
        assert sum(v["items"] * v["hit@5"] for v in groups.values()) <= 5 + 1e-9
        assert all(v["hit@5"] == pytest.approx(v["chance@5"]) for v in nothing[name].values())


def test_no_number_is_no_hit_and_only_hidden_rows_are_read():
    true, observed = tables()
    truth = {name: modality.features.clone() for name, modality in true.items()}
    for column, name in enumerate(truth):
        truth[name][observed[:, column]] = torch.nan
    result = retrieval(true, truth, observed)
    assert all(v["hit@10"] == 1 for groups in result.values() for v in groups.values())
    result = retrieval(true, {n: torch.full_like(x, torch.nan) for n, x in truth.items()}, observed)
    assert all(v["hit@20"] == 0 for groups in result.values() for v in groups.values())


def test_features_must_have_the_shape_of_the_true_ones():
    true, observed = tables()
    completed = {name: modality.features[1:] for name, modality in true.items()}
    with pytest.raises(ValueError, match=r"'a' must have shape \(60, 4\), got \(59, 4\)"):
        retrieval(true, completed, observed)


# ------------------------------------------------------------------------------ on a data set


def without_control(groups):
    """What :func:`retrieval` gave, before ``evaluate`` added the control."""
    return {
        group: {key: v for key, v in values.items() if not key.startswith("control@")}
        for group, values in groups.items()
    }


def test_evaluate_reports_model_and_nearest_neighbour(settings):
    run = prepare(Toy, settings, imputation="featprop")
    dataset = run.train._dataset
    result = evaluate(run.network(), dataset)
    true, given = dataset.true_features(), dataset.modalities
    filled = {name: modality.features for name, modality in given.items()}
    measured = retrieval(true, filled, given.observed)
    assert {name: without_control(groups) for name, groups in result["model"].items()} == measured
    copies = NearestNeighbour().fit(torch.zeros(1, given["image"].n_items).numpy()).transform(given)
    nearest = retrieval(
        true, {name: modality.features for name, modality in copies.items()}, given.observed
    )
    for name in NAMES:
        assert "3 missing" in nearest[name]
        found = result["nearest_neighbour"][name]
        assert found.pop("3 missing") is None
        assert without_control(found) == {k: v for k, v in nearest[name].items() if k in found}


def test_a_model_that_knows_the_truth_gets_every_hit(settings):
    run = prepare(Toy, settings)
    network, true = run.network(), run.train._dataset.true_features()
    network.completed_features = lambda: {n: m.features for n, m in true.items()}
    result = evaluate(network, run.train._dataset)["model"]
    hits = [v["hit@10"] for groups in result.values() for v in groups.values()]
    assert len(hits) > 3 and set(hits) == {1}


def pooled(groups, measure):
    """Mean over the items of all groups."""
    total = sum(v["items"] for v in groups.values())
    return sum(v["items"] * v[measure] for v in groups.values()) / total


def test_the_control_tells_features_from_identities(settings):
    run = prepare(Toy, settings)
    dataset = run.train._dataset
    network, true, given = run.network(), dataset.true_features(), dataset.modalities
    codes = torch.eye(given["image"].n_items)
    network.retrieval_spaces = lambda features: {
        "features": {name: (true[name].features, rows) for name, rows in features.items()},
        "identity": {name: (codes, codes + 0 * rows.sum()) for name, rows in features.items()},
    }
    result = evaluate(network, dataset, ks=(1,))
    for name in NAMES:
        assert pooled(result["identity"][name], "hit@1") == 1
        assert pooled(result["identity"][name], "control@1") == 1
    image = result["features"]["image"]  # no two items have equal images
    assert pooled(image, "hit@1") == 1 and pooled(image, "control@1") == 0


def test_every_hidden_feature_changes_its_place():
    true, observed = tables()
    changed = _exchanged(true, observed)
    for column, (name, modality) in enumerate(true.items()):
        hidden = modality.observed & ~observed[:, column]
        moved = (changed[name].features != modality.features).any(dim=1)
        assert moved.equal(hidden) and changed[name].observed.equal(modality.observed)
        rows = [sorted(m.features[hidden].tolist()) for m in (modality, changed[name])]
        assert rows[0] == rows[1], "the same features, at other places"
        assert changed[name].features.equal(_exchanged(true, observed)[name].features)


def test_one_modality_has_no_nearest_item(settings):
    run = prepare(Toy, settings, modalities=["image"])
    result = evaluate(run.network(), run.train._dataset)
    assert set(result["model"]["image"]) == {"1 missing"}
    assert result["nearest_neighbour"] == {"image": {"1 missing": None}}


def test_what_cannot_be_measured_is_refused(settings):
    none = {"missing_protocol": "none"}
    run = prepare(Toy, {key: settings[key] for key in settings if key != "missing_ratio"}, **none)
    with pytest.raises(ValueError, match="must hide features"):
        evaluate(run.network(), run.train._dataset)
    run = prepare("BPR", settings)
    with pytest.raises(ValueError, match="a model with modalities, got BPR"):
        evaluate(run.network(), run.train._dataset)
    none = {"modalities": None, "missing_protocol": "none", "plugin_defaults": True}
    run = prepare("BPR", settings, **none)
    with pytest.raises(ValueError, match="'tiny': must have modalities, got none"):
        run.dataset.true_features()


# --------------------------------------------------------------------------------- the truth


def test_the_truth_lies_in_the_space_of_the_features(settings):
    content = tiny_content()
    run = prepare(Toy, settings)
    dataset = run.train._dataset
    before = {name: m.features.clone() for name, m in dataset.modalities.items()}
    true = dataset.true_features()
    tokens = dataset.field2id_token["item_id"].tolist()
    for name, given in dataset.modalities.items():
        assert given.features.equal(before[name]), "evaluation wrote into what models train on"
        assert given.features[given.observed].equal(true[name].features[given.observed])
        hidden = true[name].observed & ~given.observed
        assert hidden.any() and true[name].features[hidden].any(dim=1).any()
    for item in range(1, len(tokens)):
        has = tokens[item] in content.image_ids
        assert bool(true["image"].observed[item]) == has
        row = content.image[content.row(tokens[item])] if has else np.zeros(6, np.float32)
        assert np.array_equal(true["image"].features[item].numpy(), row)


@pytest.mark.parametrize("dim", [8, 100])  # with and without SVD
def test_a_hidden_text_shows_in_its_own_true_row_alone(tmp_path, dim):
    found = []
    for changed in (False, True):
        content = tiny_content()
        content.lacks = {"i8": list(NAMES), "i9": ["title", "tags"]}
        if changed:
            content.titles["i8"] = "unheard words " + content.titles["i10"]
            content.tags["i8"] = "unheard " + content.tags["i10"]
        changes = {"missing_protocol": "file", "missing_file": "lacks.tsv", "title_dim": dim}
        run = prepare(Toy, {**content.write(tmp_path / str(changed)), **changes})
        dataset = run.train._dataset
        found.append((dataset.modalities, dataset.true_features()))
    ids = {token: item for item, token in enumerate(dataset.field2id_token["item_id"].tolist())}
    own, twin = ids["i8"], ids["i10"]
    for name in ("title", "tags"):
        assert found[0][0][name].features.equal(found[1][0][name].features)
        one, other = (true[name].features for _, true in found)
        differs = (one != other).any(dim=1).nonzero()[:, 0].tolist()
        assert differs == [own]
        same = torch.cosine_similarity(other[own], other[twin], dim=0)
        assert same == pytest.approx(1, abs=1e-3 if name == "tags" or dim == 100 else 0.05)


def test_training_and_testing_never_ask_for_the_truth(settings, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("somebody looked at hidden features")

    original = Source.features
    monkeypatch.setattr(MultimodalDataset, "true_features", refuse)
    monkeypatch.setattr(Source, "features", lambda self, observed: original(self, observed))
    for model in (Toy, "DGMRec"):
        run = prepare(model, settings, epochs=1)
        trainer = run.trainer()
        trainer.fit(run.train, run.valid, saved=False)
        trainer.evaluate(run.test, load_best_model=False)


# ------------------------------------------------------------------------------------ DGMRec


def test_dgmrec_returns_its_tables_and_invents_what_no_epoch_generates(settings):
    run = prepare("DGMRec", settings, epochs=1, embedding_size=8, knn_k=3)
    trainer = run.trainer()
    trainer.fit(run.train, run.valid, saved=False)
    model = trainer.model.eval()
    state = {key: value.clone() for key, value in model.state_dict().items()}
    init_seed(0, True)
    made = model.completed_features()
    again = model.completed_features()
    assert all(value.equal(state[key]) for key, value in model.state_dict().items())
    for column, (name, features) in enumerate(made.items()):
        assert not features.requires_grad and features.equal(again[name])
        assert features.shape == model.modalities[name].features.shape
        assert not features[0].any()
        kept = model.observed[:, column] | model.generated[:, column]
        table = model.features[name].detach()
        assert features[kept].equal(table[kept])
        rest = ~kept
        rest[0] = False
        assert rest.sum() > 1 and not features[rest].equal(table[rest])
        assert len(features[rest].unique(dim=0)) > 1, "taste tells them apart"
    result = evaluate(model, run.train._dataset)
    assert set(result["model"]) == set(NAMES)
    parts = ["general part", "specific part", "gated parts", "features from gated parts"]
    assert list(result) == ["model", *parts, "nearest_neighbour"]
    assert set(result["gated parts"]) == set(NAMES)


def test_gated_parts_are_found_with_the_wrong_features(settings):
    run = prepare("DGMRec", settings, epochs=1)
    result = evaluate(run.network().eval(), run.train._dataset, (1,))
    for name in NAMES:
        groups = result["gated parts"][name]
        assert pooled(groups, "control@1") > 5 * pooled(groups, "chance@1")


# ------------------------------------------------------------------------------- command line


def checkpoint_of(model, settings, **changes):
    run = prepare(model, settings, **changes)
    trainer = run.trainer()
    trainer.fit(run.train, run.valid)
    return run, trainer.saved_model_file


def test_command_prints_and_writes(settings, capsys, tmp_path):
    run, file = checkpoint_of("VBPR", settings, imputation="featprop")
    target = tmp_path / "made" / "retrieval.json"
    capsys.readouterr()
    cli.main(["retrieve", file, *HERE, "--top", "5", "2", "--output", str(target)])
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("VBPR on tiny; missing: 50% stratified; imputation: featprop")
    measures = [f"{name}@{k}" for name in ("hit", "control", "chance") for k in (2, 5)]
    assert out[1].split() == ["modality", "lacking", "items", "source", *measures]
    rows = [line.replace("nearest neighbour", "nearest").split() for line in out[3:-6]]
    nearest, rows = rows[1::2], rows[::2]
    report = json.loads(target.read_text())
    shown = {
        (name, group[0]): v
        for name, g in report["retrieval"]["model"].items()
        for group, v in g.items()
    }
    assert [tuple(row[:2]) for row in rows] == list(shown)
    for place, measure in enumerate(measures, start=4):
        assert all(float(row[place]) == round(shown[row[0], row[1]][measure], 4) for row in rows)
    assert all(row[3] == "model" for row in rows)
    assert all(row[3] == "nearest" for row in nearest)
    assert all((row[4:] == ["-"] * 6) == (row[1] == "3") for row in nearest)
    assert report["title"] == out[0]
    assert report["retrieval"] == evaluate(run.network(), run.train._dataset, (2, 5))


def test_command_refuses(settings, capsys, tmp_path):
    _, file = checkpoint_of("VBPR", settings)
    assert "--top must be ints >= 1, got 0" in refused(capsys, "retrieve", file, "--top", "0")
    taken = tmp_path / "taken.json"
    taken.write_text("mine")
    assert "must not exist yet" in refused(capsys, "retrieve", file, "--output", taken)
    assert taken.read_text() == "mine"
    assert "no such file" in refused(capsys, "retrieve", tmp_path / "none.pth")
    _, file = checkpoint_of("BPR", settings)
    assert "got BPR" in refused(capsys, "retrieve", file, *HERE)
    _, file = checkpoint_of("VBPR", settings, missing_ratio=0.0)
    assert "must hide features" in refused(capsys, "retrieve", file, *HERE)
