"""A first look: exact small values, data sets whose truth is known, and what must not leak."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from folders import AT_WORK, MODALITIES, prepare, recbole_folder, refused, tiny_content
from folders import workplace as workplace
from scipy import sparse

from recbole_missing import cli
from recbole_missing.data.dataset import MultimodalDataset
from recbole_missing.describe import advice, content, counts, describe, imputers, uncertain
from recbole_missing.describe.arrays import Arrays
from recbole_missing.describe.description import TOGETHER, Estimate
from recbole_missing.describe.page import page
from recbole_missing.describe.text import text
from recbole_missing.imputation.base import Table

pytestmark = AT_WORK

N_USERS, N_ITEMS, N_TASTES = 300, 240, 6


def matrix(rows: list[list[int]]) -> sparse.csr_matrix:
    return sparse.csr_matrix(np.array(rows, dtype=np.float32))


def arrays(train, valid, new=None, **features) -> Arrays:
    """Arrays of a few matrices; a row of NaN is a hole."""
    tables = {}
    for name, rows in features.items():
        rows = torch.tensor(rows, dtype=torch.float32)
        observed = ~rows.isnan().any(dim=1)
        tables[name] = Table(name, rows.nan_to_num() * observed[:, None], observed)
    none = np.zeros(train.shape[1], dtype=bool)
    sizes = {"training": int(train.nnz), "validation": int(valid.nnz), "test": 0}
    present = {name: table.observed for name, table in tables.items()}
    return Arrays(
        "toy", tables, present, train, valid, none if new is None else new, None, sizes, None
    )


# ------------------------------------------------------------------------------- small exact values


def test_tail_of_four_counts() -> None:
    found = counts.tail(np.array([0, 1, 3, 6]))
    # Gini: (-3 * 0 - 1 * 1 + 1 * 3 + 3 * 6) / (4 * 10)
    assert found.gini == pytest.approx(0.5)
    assert (found.median, found.few, found.none, found.n) == (2.0, 3, 1, 4)
    # the top 20 % are 0.8 of the largest item: 0.8 * 6 / 10
    assert found.top["20"] == pytest.approx(0.48)
    assert found.curve[0] == 0
    assert found.curve[50] == pytest.approx(0.9)
    assert found.curve[100] == pytest.approx(1)


def test_tail_without_interactions() -> None:
    found = counts.tail(np.zeros(3, dtype=int))
    assert (found.gini, found.none, found.top["1"]) == (0.0, 3, 0.0)


def test_auc_of_a_few_values() -> None:
    positive, negative = np.array([3.0, 1.0]), np.array([0.0, 1.0, 2.0])
    singles = np.arange(4).reshape(2, 2), np.arange(6).reshape(3, 2)
    # 3 beats all three; 1 beats 0 and ties with 1: (3 + 1.5) / 6
    assert uncertain.auc(positive, negative, *singles).value == pytest.approx(0.75)
    assert uncertain.auc(negative, positive, *singles[::-1]).value == pytest.approx(0.25)


def test_error_of_a_mean() -> None:
    values = np.array([1.0, 0.0, 1.0, 1.0])
    assert uncertain.mean(values).error == pytest.approx(values.std(ddof=1) / 2)
    # residuals .25 -.75 .25 .25; sums by user -.5 .5: (.25 + .25) / 16 * 2 / 1
    by_user = uncertain.mean(values, np.array([0, 0, 1, 1]))
    assert by_user.error == pytest.approx(0.25)
    # weights 1 and 3 are as good as repeated values of one cluster
    weighted = uncertain.mean(np.array([1.0, 0.0]), np.array([0, 1]), weights=np.array([1.0, 3]))
    repeated = uncertain.mean(np.array([1.0, 0, 0, 0]), np.array([0, 1, 1, 1]))
    assert (weighted.value, weighted.error) == pytest.approx((repeated.value, repeated.error))
    assert uncertain.mean(np.array([1.0])).error is None


def test_error_of_clustered_values_is_the_spread_of_many_samples() -> None:
    generator = np.random.default_rng(0)
    users, items = np.divmod(np.arange(40 * 30), 30)

    def sample() -> np.ndarray:
        noise = generator.normal(size=1200)
        return generator.normal(size=40)[users] + generator.normal(size=30)[items] + noise

    found = [uncertain.mean(sample(), users, items) for _ in range(300)]
    spread = np.std([one.value for one in found])
    assert np.mean([one.error for one in found]) == pytest.approx(spread, rel=0.1)
    naive = np.mean([uncertain.mean(sample()).error for _ in range(50)])
    assert naive < spread / 3


def test_error_of_pairs_counts_an_item_at_both_ends() -> None:
    values, pairs = np.array([1.0, 0.0, 1.0, 0.0]), np.array([[0, 1], [1, 2], [3, 0], [2, 3]])
    # residuals .5 -.5 .5 -.5; sums by item 1 0 -1 0: (2 * 4 / 3 - 4 * .25) / 16
    found = uncertain.mean_of_pairs(values, pairs)
    assert found.error == pytest.approx((5 / 3 / 16) ** 0.5)
    assert uncertain.mean_of_pairs(values, pairs[:, ::-1]) == found
    assert uncertain.mean_of_pairs(values[:1], pairs[:1]).error is None
    assert uncertain.mean_of_pairs(values[:2], pairs[[0, 0]]).error is None


def test_error_of_pairs_is_the_spread_of_many_samples() -> None:
    generator = np.random.default_rng(0)
    pairs = generator.integers(0, 60, (1500, 2))
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]

    def sample() -> np.ndarray:
        of_item = generator.normal(size=60)
        return of_item[pairs].sum(axis=1) + generator.normal(size=len(pairs))

    samples = [sample() for _ in range(300)]
    spread = np.std([values.mean() for values in samples])
    errors = [uncertain.mean_of_pairs(values, pairs).error for values in samples]
    assert np.mean(errors) == pytest.approx(spread, rel=0.1)
    two_factors = [uncertain.mean(values, *pairs.T).error for values in samples]
    assert np.mean(two_factors) < 0.85 * spread


def test_holes_of_five_items() -> None:
    nan = [np.nan, np.nan]
    train = matrix([[1, 1, 1, 1, 0], [0, 1, 1, 1, 0], [0, 0, 1, 1, 0], [0, 0, 0, 1, 0]])
    image = [nan, [3, 4], [0, 0], [3, 4], nan]
    title = [[1, 0], [2, 0], nan, [4, 0], nan]
    data = arrays(train, matrix([[0] * 5] * 4), image=image, title=title)
    data = dataclasses.replace(
        data, present={**data.present, "title": torch.tensor([1, 1, 1, 1, 0]).bool()}
    )
    found = counts.missing(data)
    assert found.groups == [(0, 0), (1, 1), (2, 2), (3, 3), (4, 4)]
    assert found.overlaps == {"image + title": 2, "image": 1, "none": 1, "title": 1}
    one = found.holes["image"]
    assert (one.has, one.lacks, one.hidden, one.zeros, one.repeated) == (3, 2, 0, 1, 1)
    assert one.norm == 5.0
    assert one.by_popularity == [1, 1, 0, 0, 0]
    other = found.holes["title"]
    assert (other.has, other.lacks, other.hidden, other.norm) == (3, 1, 1, 2.0)
    assert other.hidden_by_popularity == [0, 0, 0, 1, 0]


def test_recall_breaks_ties_by_chance_and_hides_training_items(monkeypatch) -> None:
    monkeypatch.setattr(content, "K", 2)
    train, valid = matrix([[1, 0, 0, 0, 0]]), matrix([[0, 1, 0, 1, 0]])
    lists = content.Lists.of(arrays(train, valid), 0)
    assert lists.chance().tolist() == [0.5, 0.5]
    scores = np.array([[9, 5, 1, 1, 1]], dtype=np.float32)
    # item 1 is the first candidate; item 3 shares one remaining place with items 2 and 4
    assert lists.hits(lambda users: scores[users]).tolist() == pytest.approx([1, 1 / 3])
    # wins: against the candidates 2 and 4, which nobody took
    assert lists.wins(lambda users: scores[users]).tolist() == pytest.approx([1, 0.5])


def test_item_knn_is_the_dense_formula() -> None:
    generator = np.random.default_rng(0)
    train = matrix((generator.random((30, 12)) < 0.3).astype(int).tolist())
    data = arrays(train, matrix([[0] * 12] * 30))
    dense = train.toarray()
    degree = np.maximum(dense.sum(axis=0), 1)
    expected = dense @ (dense.T @ dense / np.sqrt(np.outer(degree, degree)))
    np.testing.assert_allclose(content.item_knn(data)(np.arange(30)), expected, rtol=1e-5)


def test_votes_are_the_dense_formula(monkeypatch) -> None:
    monkeypatch.setattr(content, "NEIGHBOURS", 3)
    generator = np.random.default_rng(0)
    train = matrix((generator.random((30, 12)) < 0.4).astype(int).tolist())
    features = generator.normal(size=(12, 5))
    features[4] = np.nan
    features[7] = features[8]
    data = arrays(train, matrix([[0] * 12] * 30), image=features)
    rows = content.rows_of(data)["image"]
    known = np.flatnonzero(~np.isnan(features[:, 0]))
    unit = features[known] - features[known].mean(axis=0)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    cosine = unit @ unit.T
    np.fill_diagonal(cosine, -9)
    first = np.argsort(-cosine.round(6), axis=1, kind="stable")[:, :3]  # of equal ones the smaller
    kept = np.zeros_like(cosine)
    np.put_along_axis(kept, first, np.take_along_axis(cosine, first, axis=1), axis=1)
    expected = np.zeros((12, 12))
    expected[np.ix_(known, known)] = kept
    near = content.neighbours(rows, data)
    np.testing.assert_allclose(near.toarray(), expected, atol=1e-5)
    np.testing.assert_allclose(
        content.votes(data, near)(np.array([3])), train.toarray()[[3]] @ expected, atol=1e-4
    )


# ------------------------------------------------------------------------------------- known truths


def tastes(decides: bool, seed: int = 0, holes: float = 0.0):
    """Users with one taste each. Items are of a taste, which their image shows if it decides."""
    generator = np.random.default_rng(seed)
    users, items = (np.arange(n) % N_TASTES for n in (N_USERS, N_ITEMS))
    likes = np.where(users[:, None] == items, 0.25, 0.004)
    drawn = generator.random((N_USERS, N_ITEMS)) < likes
    drawn[np.arange(N_USERS), users] = True
    held = drawn & (generator.random(drawn.shape) < 0.2)
    centres = generator.normal(size=(N_TASTES, 16))
    shown = items if decides else generator.permutation(items)
    image = centres[shown] + 0.7 * generator.normal(size=(N_ITEMS, 16))
    image[generator.random(N_ITEMS) < holes] = np.nan
    parts = [matrix(part.astype(int).tolist()) for part in (drawn & ~held, held)]
    return arrays(*parts, image=image)


def test_content_that_decides_consumption() -> None:
    found, baselines, _ = content.measured(tastes(decides=True), 0)
    one = found["image"]
    assert one.pairs.auc.value > 0.85
    assert one.held_out.recall.value > 2 * baselines["popularity"].recall.value
    assert one.cold.auc.value > 0.9
    assert one.cold.beyond_chance.above(0.2)
    assert one.homophily > 0.3
    assert advice.level(one) == "much"


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_content_that_is_independent_of_consumption(seed: int) -> None:
    found, _, _ = content.measured(tastes(decides=False, seed=seed), 0)
    one = found["image"]
    for estimate, truth in (
        (one.pairs.auc, 0.5),
        (one.held_out.recall, one.held_out.chance),
        (one.cold.auc, 0.5),
        (one.cold.recall, one.cold.chance),
    ):
        assert abs(estimate.value - truth) < 3.5 * estimate.error
    assert abs(one.homophily) < 0.1
    assert advice.level(one) in ("nothing", "little")


def test_words_follow_from_the_numbers() -> None:
    def words(**values):
        held_out = content.HeldOut(
            Estimate(0.1, 0.01, 9), None, 0.02, values["chance"], values["popularity"],
            values["popularity"],
        )  # fmt: skip
        cold = content.Cold(99, 9, values["auc"], Estimate(0.3, 0.01, 9), 0.2, values["chance"])
        return advice.level(content.Content(None, held_out, cold, None))

    up, even, down = (Estimate(value, 0.01, 9) for value in (0.1, 0.0, -0.1))
    half, fair, clear = (Estimate(value, 0.01, 9) for value in (0.5, 0.58, 0.7))
    assert words(chance=up, popularity=up, auc=half) == "much"
    assert words(chance=up, popularity=even, auc=half) == "some"
    assert words(chance=up, popularity=down, auc=clear) == "some"
    assert words(chance=up, popularity=down, auc=half) == "little"
    assert words(chance=even, popularity=down, auc=fair) == "little"
    assert words(chance=even, popularity=down, auc=half) == "nothing"
    unsure = Estimate(0.7, None, 1)
    assert words(chance=unsure, popularity=unsure, auc=unsure) == "unknown"
    assert words(chance=unsure, popularity=unsure, auc=half) == "nothing"
    assert advice.level(content.Content(None, None, None, None)) == "unknown"
    sure = content.HeldOut(Estimate(1.0, 0.0, 9), None, 1.0, *[Estimate(0.0, 0.0, 9)] * 3)
    assert advice.level(content.Content(None, sure, None, None)) == "unknown", "lists hold all"


# ------------------------------------------------------------------------------------- the advice


def estimate(value: float) -> Estimate:
    return Estimate(value, 0.001, 99)


def one_content(level: str, recall: float = 0.04, popular: float = 0.058, knn: float = 0.04):
    held_out = content.HeldOut(
        estimate(recall), None, 0.005,
        estimate(recall - 0.005), estimate(recall - popular), estimate(recall - knn),
    )  # fmt: skip
    return content.Content(None, held_out, None, None, level)


def advised(levels, cold=0, norms=None, lacks=20, failed=False, **recalls):
    """Advice on 100 items; modality -> level of :data:`TOGETHER` and its parts."""
    data = tastes(decides=True)
    own = [name for name in levels if name != TOGETHER]
    norms = {**dict.fromkeys(own, 1.0), **(norms or {})}
    holes = counts.missing(data).holes["image"]
    holes = {
        name: dataclasses.replace(holes, lacks=lacks, hidden=0, norm=norms[name]) for name in own
    }
    size = counts.data(data, "none")
    tail = dataclasses.replace(size.items_tail, none=cold)
    size = dataclasses.replace(size, items=100, items_tail=tail)
    found = {name: one_content(word, **recalls) for name, word in levels.items()}
    zero = estimate(0.0)
    popular, knn = recalls.get("popular", 0.058), recalls.get("knn", 0.04)
    baselines = {
        name: content.HeldOut(estimate(value), None, 0.005, zero, zero, zero)
        for name, value in (("popularity", popular), ("ItemKNN", knn))
    }
    ranked = {
        name: {"mean": imputers.Restored(9, estimate(0.5), estimate(1.0))}
        if not failed
        else {"mean": imputers.Restored(9, None, None, failure="no")}
        for name in own
    }
    best = {name: [] if failed else ["mean"] for name in own}
    scaled = advice.far_apart(holes, advice.carrying(size, found))
    missing = counts.Missing(holes, [], [], {})
    return advice.advice(size, missing, baselines, found, scaled, ranked, best)


def test_modalities_that_carry_together_are_advised() -> None:
    given = advised({"text": "little", "image": "little", "sound": "nothing", TOGETHER: "some"})
    assert given.models == advice.CONTENT
    assert "modalities: [text, image]" in given.yaml
    assert any(
        sentence.startswith("all modalities carry something") for sentence in given.sentences
    )
    alone = advised({"text": "some", "image": "little", TOGETHER: "some"})
    assert "modalities: [text]" in alone.yaml
    assert not any("all modalities" in sentence for sentence in alone.sentences)


def test_many_new_items_need_content_even_if_it_carries_little() -> None:
    given = advised({"text": "little", "image": "nothing", TOGETHER: "little"}, cold=5)
    assert given.models == ("LightGCN", "VBPR"), "as on TikTok, where VBPR is below Pop"
    assert "modalities: [text]" in given.yaml
    assert "recommend --only new" in " ".join(given.sentences)
    given = advised({"text": "some", "image": "little", TOGETHER: "little"}, cold=5)
    assert given.models == advice.NEW
    assert "modalities: [text]" in given.yaml
    assert advised({"text": "little", TOGETHER: "some"}, cold=5).models == advice.NEW
    assert advised({"text": "little"}, cold=4).models == advice.PLAIN
    given = advised({"text": "nothing"}, cold=50)
    assert given.models == advice.PLAIN
    assert "These models cannot rank them." in " ".join(given.sentences)


def test_models_for_new_items_are_those_that_order_them_best() -> None:
    """By the table of ``docs/guides/new_items.md``."""
    page = (Path(__file__).parents[2] / "docs/guides/new_items.md").read_text()
    rows = re.findall(r"^\| (\w+) \| [\d.]+ \| [\d.]+ \| ([\d.]+) \|$", page, re.MULTILINE)
    best = sorted(rows, key=lambda row: -float(row[1]))
    assert len(rows) >= 8
    assert advice.NEW[:2] == tuple(name for name, _ in best[:2])


def test_words_say_no_more_than_was_measured() -> None:
    said = " ".join(advised({"text": "little"}).sentences)
    assert "worse than popularity, better than chance" in said
    assert "little from" not in said
    said = " ".join(advised({"text": "unknown"}).sentences)
    assert "text: too little data to tell" in said
    assert "too little data to tell whether content helps" in said
    assert "was shown" not in said


def test_the_bar_is_the_better_baseline() -> None:
    said = " ".join(advised({"text": "some"}, recall=0.04).sentences)
    assert "must beat the better one, popularity" in said
    said = " ".join(advised({"text": "some"}, recall=0.05, popular=0.03, knn=0.08).sentences)
    assert "must beat the better one, ItemKNN" in said
    said = " ".join(advised({"text": "much"}, recall=0.09).sentences)
    assert "both less than text alone" in said
    said = " ".join(advised({"text": "much"}, recall=0.0595, popular=0.058).sentences)
    assert "must beat" in said, "less than two standard errors above popularity"


def test_scales_concern_the_advised_modalities_alone() -> None:
    norms = {"text": 1.0, "speech": 16.0, "audio": 1472.0}
    given = advised({"text": "much", "speech": "some", "audio": "little"}, norms=norms)
    assert not any("scale" in line for line in given.yaml)
    assert not any("times as long" in sentence for sentence in given.sentences)
    given = advised({"text": "much", "speech": "nothing", "audio": "some"}, norms=norms)
    assert given.yaml[-2:] == ["text_scale: standard", "audio_scale: standard"]
    assert "VBPR and DGMRec" in " ".join(given.sentences)


def test_why_no_imputer_is_advised() -> None:
    assert "No item lacks these" in " ".join(advised({"text": "some"}, lacks=0).sentences)
    given = advised({"text": "some"}, failed=True)
    assert given.imputer is None
    assert "No imputer could restore hidden rows of text." in given.sentences


def test_the_best_imputer_is_named_only_if_the_difference_carries() -> None:
    from recbole_missing.config import defaults

    settings = defaults.overall()
    rows = tastes(decides=True, holes=0.2)
    found = imputers.restored(rows, ["featprop", "mean", "zeros"], settings, 0)["image"]
    assert next(iter(found)) == "featprop"
    assert imputers.indistinguishable(found) == ["featprop"]
    assert found["mean"].behind.above(0)
    noise = tastes(decides=False, holes=0.2)
    found = imputers.restored(noise, ["mean", "neigh_mean", "zeros"], settings, 0)["image"]
    assert found["mean"].rows == int(0.1 * noise.tables["image"].observed.sum())


@pytest.mark.parametrize("chosen", [None, "none"])
def test_imputers_are_compared_in_the_space_that_the_advice_sets(
    workplace, tmp_path, monkeypatch, chosen
) -> None:
    drawn = tiny_content()
    drawn.image = 1e4 + drawn.image
    levels = iter(["much", "some", "little", "much"])
    monkeypatch.setattr(advice, "level", lambda one: next(levels))
    found = described(drawn.write(tmp_path), image_scale=chosen)
    cosine = found.imputers["image"]["mean"].cosine.value
    if chosen is None:
        assert found.scaled == ["image", "title"]
        assert cosine < 0.9, "raw, it is 1.0000"
        assert found.advice.yaml[-2:] == ["image_scale: standard", "title_scale: standard"]
        assert "Scaled by `standard` first" in " ".join(text(found).split())
    else:
        assert found.scaled == []
        assert cosine > 0.99
        assert not any("scale" in line for line in found.advice.yaml)


def test_advised_modalities_are_restored_without_the_others() -> None:
    from recbole_missing.config import defaults

    generator = np.random.default_rng(0)
    image, sound = generator.normal(size=(2, 40, 8))
    train = matrix((generator.random((30, 40)) < 0.2).astype(int).tolist())
    none = matrix([[0] * 40] * 30)
    words = ["nearest_neighbour", "mean"]
    both, twin = (arrays(train, none, image=image, sound=sound, **more) for more in
                  ({}, {"twin": image}))  # fmt: skip
    expected, all_three, found = (
        imputers.restored(one, words, defaults.overall(), 0, advised)
        for one, advised in ((both, []), (twin, []), (twin, ["image", "sound"]))
    )
    assert all_three["image"]["nearest_neighbour"].cosine.value > 0.3, "the twin tells its nearest"
    assert found["image"] == expected["image"]
    assert found["sound"] == expected["sound"]
    assert found["twin"] == all_three["twin"]


# ------------------------------------------------------------------------- through RecBole's files


def described(settings, **changes):
    run = prepare("BPR", {**settings, "plugin_defaults": True}, **changes)
    return describe(MultimodalDataset(run.config).build())


def test_a_data_set_with_every_kind_of_hole(workplace, tmp_path) -> None:
    folder, settings = recbole_folder(tmp_path, missing_protocol="file", missing_file="lacks.tsv")
    mask = {"missing_protocol": "file", "missing_file": "lacks.tsv"}
    found = described(settings, **mask)
    holes = found.missing.holes
    assert (holes["image"].lacks, holes["image"].hidden) == (2, 2)
    assert (holes["title"].lacks, holes["title"].hidden) == (2, 2)
    assert found.data.items_tail.none == 1  # an item that only validation and test know
    assert sum(found.missing.overlaps.values()) == found.data.items == 30
    assert list(found.content) == ["image", "title", "tags", TOGETHER]
    assert found.content["image"].cold is None, "too few items to hide a fifth"
    shown = text(found)
    assert "too few" in shown and "a modality needs 200 items or more" in " ".join(shown.split())
    assert "file lacks.tsv" in shown
    again = described(settings, **mask)
    assert again.to_json() == found.to_json()
    assert set(json.loads(found.to_json())) == {
        "schema",
        *(field.name for field in dataclasses.fields(found)),
    }


def test_test_interactions_and_hidden_features_change_nothing(workplace, tmp_path) -> None:
    mask = {"missing_protocol": "file", "missing_file": "lacks.tsv"}
    drawn = tiny_content()
    drawn.lacks = {"i8": ["image"], "i10": ["tags"]}
    before = described(drawn.write(tmp_path / "a"), **mask)
    items = sorted({item for _, item in drawn.train})
    had = {*drawn.train, *drawn.valid, *drawn.test}
    drawn.test = [
        (user, next(item for item in items[place % 2 * 15 :] if (user, item) not in had))
        for place, (user, _) in enumerate(drawn.test)
    ]
    drawn.image[drawn.row("i8")] += 100
    after = described(drawn.write(tmp_path / "b"), **mask)
    assert after.to_json() == before.to_json()
    drawn.train = drawn.train[1:]
    assert described(drawn.write(tmp_path / "c"), **mask).to_json() != before.to_json()


def test_order_of_the_rows_of_a_file_changes_nothing(workplace, tmp_path) -> None:
    drawn = tiny_content()
    before = described(drawn.write(tmp_path / "a"))
    drawn.train = drawn.train[::-1]
    assert described(drawn.write(tmp_path / "b")).to_json() == before.to_json()


def test_without_modalities(workplace, tmp_path) -> None:
    _, settings = recbole_folder(tmp_path)
    found = described({key: settings[key] for key in settings if key not in MODALITIES})
    assert found.advice.models == advice.PLAIN
    assert set(found.baselines) == {"popularity", "ItemKNN"}
    assert "no modalities" in text(found)
    assert "votes" not in text(found)
    assert "<svg" in page(found)


def test_one_modality_with_few_rows_and_new_items(workplace, tmp_path) -> None:
    drawn = tiny_content()
    drawn.image, drawn.image_ids = drawn.image[:3], drawn.image_ids[:3]
    changes = {
        "modalities": ["image"],
        "new_items": "stratified",
        "new_item_ratio": 0.2,
        "title_columns": None, "title_encoder": None, "title_dim": None,
        "tags_columns": None, "tags_encoder": None,
    }  # fmt: skip
    found = described(drawn.write(tmp_path), **changes)
    assert found.data.new_items > 0
    assert found.missing.holes["image"].has == 3
    assert found.imputers == {}
    assert found.advice.imputer is None
    assert "fewer than 10 items" in text(found)
    assert "<svg" in page(found)


def test_page_loads_nothing_and_escapes_names(workplace, tmp_path) -> None:
    _, settings = recbole_folder(tmp_path)
    found = dataclasses.replace(
        described(settings), name="<script>alert(1)</script>", notes=["a<b"]
    )
    shown = page(found)
    assert "<script" not in shown
    assert "&lt;script&gt;" in shown
    assert "a&lt;b" in shown
    links = re.findall(r"""(?:src|href)=["']([^"']*)""", shown)
    assert all(link.startswith("#") for link in links), "the SVGs refer to their own parts only"
    assert not re.search(r"@import|url\((?!#)|<link|<img|<iframe", shown)
    assert shown.count("<svg") >= 5
    assert shown.count("<svg") == shown.count("<figcaption>")
    assert "currentColor" in shown
    assert page(found) == shown


# ------------------------------------------------------------------------------------- the command


def run(*words) -> None:
    cli.main([str(word) for word in words])


def test_command_writes_text_page_and_json(workplace, tmp_path, capsys) -> None:
    folder, _ = recbole_folder(tmp_path)
    run("describe", folder, "--html", "look.html", "--json", "look.json", "--set", "layers=5")
    printed = capsys.readouterr().out
    for title in ("1. The data", "2. Who lacks what", "5. Which imputer", "6. What follows"):
        assert title in printed
    assert yaml.safe_load(printed.split("Lines for a config file:\n")[1])["model"], (
        "YAML comes last"
    )
    assert printed.startswith("Wrote look.json\nWrote look.html\n")
    assert json.loads(Path("look.json").read_text())["schema"] == 1
    assert Path("look.html").read_text().startswith("<!DOCTYPE html>")
    assert "must not exist yet" in refused(capsys, "describe", folder, "--html", "look.html")
    run("describe", folder, "--json", "look.json", "--force")


def test_advice_runs_as_it_is(workplace, tmp_path, capsys) -> None:
    folder, _ = recbole_folder(tmp_path)
    run("describe", folder)
    lines = capsys.readouterr().out.split("Lines for a config file:\n")[1]
    Path("advice.yaml").write_text(lines)
    files = f"{folder / (folder.name + '.yaml')} advice.yaml"
    run("run", "--dataset", folder.name, "--config_files", files, f"--data_path={folder.parent}",
        "--epochs=1", "--topk=[5]", "--valid_metric=Recall@5", "--embedding_size=8",
        "--show_progress=False", "--gpu_id=")  # fmt: skip


@pytest.mark.parametrize("unseen", [0, 10])
def test_every_line_of_an_advice_runs(workplace, tmp_path, unseen) -> None:
    """A subset of the modalities, an imputation, a scale; the first model for old or new items."""
    folder, settings = recbole_folder(tmp_path)
    found = described(settings)
    levels = {"image": "much", "title": "some", "tags": "little", TOGETHER: "much"}
    one = {name: dataclasses.replace(found.content[name], level=levels[name]) for name in levels}
    holes = {**found.missing.holes}
    holes["image"] = dataclasses.replace(holes["image"], norm=1e6)
    tail = dataclasses.replace(found.data.items_tail, none=unseen)
    given = advice.advice(
        dataclasses.replace(found.data, items_tail=tail),
        dataclasses.replace(found.missing, holes=holes),
        found.baselines,
        one,
        ["image", "title"],
        found.imputers,
        found.best,
    )
    assert given.models == (advice.NEW if unseen else advice.CONTENT)
    assert "modalities: [image, title]" in given.yaml
    assert "image_scale: standard" in given.yaml
    assert f"imputation: {given.imputer}" in given.yaml
    Path("advice.yaml").write_text("\n".join(given.yaml))
    files = f"{folder / (folder.name + '.yaml')} advice.yaml"
    run("run", "--dataset", folder.name, "--config_files", files, f"--data_path={folder.parent}",
        "--epochs=1", "--topk=[5]", "--valid_metric=Recall@5", "--embedding_size=8",
        "--show_progress=False", "--gpu_id=")  # fmt: skip


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere"], "must be a folder or a data set"),
        (["{folder}", "--seed", "-1"], "--seed must be at least 0"),
        (["{folder}", "--set", "layerz=3"], "layers"),
        (["{folder}", "--missing", "absent.tsv"], "must be a file"),
        (["{folder}", "--html", "a", "--json", "a"], "must be two files"),
        (["{folder}", "--json", "{folder}"], "must not exist yet"),
    ],
)
def test_refusals(workplace, tmp_path, capsys, words, said) -> None:
    folder, _ = recbole_folder(tmp_path)
    message = refused(capsys, "describe", *(word.format(folder=folder) for word in words))
    assert said in message


def test_page_without_matplotlib_is_refused_before_any_work(
    workplace, tmp_path, capsys, monkeypatch
) -> None:
    from recbole_missing.commands import describe as command

    monkeypatch.setattr(command, "find_spec", lambda name: None)
    message = refused(capsys, "describe", "nowhere", "--html", "look.html")
    assert "needs matplotlib" in message
    assert "nowhere" not in message
