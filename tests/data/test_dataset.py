"""The data set: alignment, masks, new items, what testing hides, caches, bad input."""

from __future__ import annotations

import random
import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import recbole.quick_start
import torch
from folders import (
    AT_WORK,
    BY_TIME,
    COLD,
    Content,
    Prepared,
    pairs_of,
    prepare,
    tiny_content,
)
from folders import workplace as workplace
from recbole.data.dataloader import FullSortEvalDataLoader
from recbole.data.dataset import Dataset
from recbole.data.interaction import Interaction
from recbole.sampler import Sampler
from recbole.trainer import Trainer
from recbole.utils import init_seed

from recbole_missing import IMPUTERS
from recbole_missing.data import dataset as dataset_module
from recbole_missing.data import missing
from recbole_missing.data.dataset import MultimodalDataset, fingerprint
from recbole_missing.data.loading import RankingDataLoader
from recbole_missing.data.sampling import NegativeSampler, OldItemSampler
from recbole_missing.imputation.base import Filled
from recbole_missing.imputation.statistics import Zeros

pytestmark = AT_WORK

HOLES = {"image": {"i6", "i7"}, "title": {"i3", "i4"}, "tags": {"i5"}}


@pytest.fixture
def content():
    return tiny_content()


@pytest.fixture
def settings(content, tmp_path):
    return content.write(tmp_path)


def tokens_of(run: Prepared) -> list[str]:
    return [str(token) for token in run.dataset.field2id_token["item_id"]]


def unobserved(run: Prepared) -> dict[str, set[str]]:
    """Tokens of the items that lack each modality."""
    tokens = np.array(tokens_of(run))
    return {
        name: set(tokens[modality.missing.numpy()].tolist())
        for name, modality in run.dataset.modalities.items()
    }


def features_by_token(run: Prepared, name: str) -> dict[str, torch.Tensor]:
    return dict(zip(tokens_of(run), run.dataset.modalities[name].features))


def same_modalities(one: Prepared, other: Prepared) -> bool:
    return all(
        torch.equal(one.dataset.modalities[name].features, modality.features)
        and torch.equal(one.dataset.modalities[name].observed, modality.observed)
        for name, modality in other.dataset.modalities.items()
    )


# ----------------------------------------------------------------------------------- alignment


def test_rows_belong_to_tokens(settings, content):
    features = features_by_token(prepare("VBPR", settings, imputation="zeros"), "image")
    for token in content.image_ids:
        assert np.array_equal(features[token].numpy(), content.image[content.row(token)]), token
    assert not features["i6"].any() and not features["[PAD]"].any()


@pytest.mark.parametrize("split", ["benchmark", "by_time"])
def test_the_order_of_rows_in_files_does_not_matter(settings, content, tmp_path, split):
    changes = BY_TIME if split == "by_time" else {}
    order = np.random.default_rng(5).permutation(len(content.image_ids))
    shuffled = replace(
        content,
        image=content.image[order],
        image_ids=[content.image_ids[row] for row in order],
        titles=dict(reversed(list(content.titles.items()))),
    )
    other = prepare("VBPR", shuffled.write(tmp_path / "other"), **changes)
    one = prepare("VBPR", settings, **changes)
    assert tokens_of(one) == tokens_of(other) and same_modalities(one, other)


def test_the_order_of_interactions_does_not_matter_either(settings, content, tmp_path):
    reversed_ids = replace(content, train=content.train[::-1])
    one = prepare("VBPR", settings, imputation="mean")
    other = prepare("VBPR", reversed_ids.write(tmp_path / "other"), imputation="mean")
    assert tokens_of(one) != tokens_of(other)
    for name in ("image", "tags"):
        ours, theirs = features_by_token(one, name), features_by_token(other, name)
        assert all(torch.allclose(ours[token], theirs[token], atol=1e-5) for token in ours)


def test_the_three_splits_share_one_object(settings):
    run = prepare("VBPR", settings)
    datasets = [run.dataset, *(loader._dataset for loader in (run.train, run.valid, run.test))]
    assert len({id(dataset.modalities) for dataset in datasets}) == 1
    assert list(run.dataset.modalities) == settings["modalities"]


def test_features_are_never_in_a_batch(settings):
    run = prepare("VBPR", settings)
    assert run.dataset.item_feat is None
    for batch in run.train:
        assert set(batch.columns) == {"user_id", "item_id", "neg_item_id"}
    for loader in (run.valid, run.test):
        for interaction, *_ in loader:
            assert set(interaction.columns) == {"user_id"}


def test_without_modalities_the_data_set_is_recboles(settings):
    run = prepare("BPR", settings, modalities=None, plugin_defaults=True)
    assert run.dataset.modalities is None and not run.dataset.new_items.any()
    assert run.dataset.item_groups() == {}


# --------------------------------------------------------------------------------------- masks


@pytest.mark.parametrize(
    "mask",
    [
        {"missing_protocol": "none"},
        {"missing_protocol": "random_items", "missing_ratio": 0.3},
        {"missing_protocol": "random_items", "missing_ratio": 0.3, "missing_modalities": ["tags"]},
        {"missing_protocol": "stratified", "missing_ratio": 0.4},
        {"missing_protocol": "file", "missing_file": "lacks.tsv"},
    ],
    ids=lambda mask: "-".join(map(str, mask.values())),
)
@pytest.mark.parametrize("imputation", ["featprop", "random"])
def test_real_holes_always_count(settings, mask, imputation):
    run = prepare("VBPR", settings, imputation=imputation, imputation_epochs=2, **mask)
    lacking, counts = unobserved(run), run.dataset.modalities.n_missing
    assert all(HOLES[name] <= lacking[name] for name in HOLES)
    for item, token in enumerate(tokens_of(run)[1:], 1):
        assert counts[item] == sum(token in lacking[name] for name in HOLES)
    if mask["missing_protocol"] == "none":
        assert lacking == HOLES


def test_a_mask_is_what_the_protocol_drew_plus_the_holes(settings):
    ratio = {"missing_protocol": "random_items", "missing_ratio": 0.3, "missing_seed": 7}
    run = prepare("VBPR", settings, **ratio)
    trained = sorted({item for _, item in pairs_of(run.train._dataset)})
    others = sorted({*tokens_of(run)[1:]} - {*trained})
    hidden = set()
    for items, seed in ((trained, 7), (others, 7 + 2**32)):
        drawn = missing.random_items(len(items) + 1, 3, 0.3, seed)[1:, 0]
        hidden |= {token for token, hide in zip(items, drawn) if hide}
    assert len(hidden) > 7
    assert unobserved(run) == {name: hidden | HOLES[name] for name in HOLES}


def test_a_mask_file_hides_what_it_names(settings, content):
    run = prepare("VBPR", settings, missing_protocol="file", missing_file="lacks.tsv")
    assert unobserved(run) == {
        "image": {"i6", "i7", "i8", "i9"},
        "title": {"i3", "i4", "i6", "i9"},
        "tags": {"i5", "i10"},
    }


@pytest.mark.parametrize("protocol", ["random_items", "stratified"])
def test_mask_seed_and_training_seed_are_independent(settings, protocol):
    mask = {"missing_protocol": protocol, "missing_ratio": 0.4}
    base = unobserved(prepare("VBPR", settings, **mask))
    assert unobserved(prepare("VBPR", settings, seed=7, **mask)) == base
    assert unobserved(prepare("VBPR", settings, missing_seed=7, **mask)) != base


@pytest.mark.parametrize("protocol", ["random_items", "stratified"])
def test_ratio_zero_hides_nothing(settings, protocol):
    run = prepare("VBPR", settings, missing_protocol=protocol, missing_ratio=0.0)
    assert unobserved(run) == HOLES


def test_observed_rows_are_untouched_and_missing_ones_are_filled(settings):
    mask = {"missing_protocol": "stratified", "missing_ratio": 0.4}
    zeros, filled = (prepare("VBPR", settings, imputation=i, **mask) for i in ("zeros", "mean"))
    for name, modality in filled.dataset.modalities.items():
        plain = zeros.dataset.modalities[name].features
        assert torch.equal(plain[modality.observed], modality.features[modality.observed])
        assert not plain[modality.missing].any()
        assert modality.features[modality.missing].any(dim=1).all()


# ----------------------------------------------------------------------------------- new items


def new_tokens(run: Prepared) -> set[str]:
    return {token for token, new in zip(tokens_of(run), run.dataset.new_items) if new}


def splits_of(run: Prepared) -> list[set[tuple[str, str]]]:
    return [pairs_of(loader._dataset) for loader in (run.train, run.valid, run.test)]


def test_training_interactions_of_new_items_move_to_test(settings):
    old, run = (prepare("VBPR", settings, new_items=kind) for kind in ("none", "stratified"))
    new = new_tokens(run)
    train, valid, test = splits_of(old)
    moved = {(user, item) for user, item in train if item in new}
    assert len(new) == 5 and moved and any(item in new for _, item in valid)
    assert splits_of(run) == [train - moved, valid, test | moved]


def test_users_without_training_leave_validation_and_test(settings, content, tmp_path):
    user = content.train[0][0]
    items = sorted({item for one, item in content.train if one == user})
    missing.write_token_file(tmp_path / "tiny" / "new.txt", items)
    old = prepare("VBPR", settings)
    run = prepare("VBPR", settings, new_items="file", new_items_file="new.txt")
    assert new_tokens(run) == set(items)
    train, valid, test = splits_of(run)
    users = {user for user, _ in train}
    assert user not in users and {u for u, _ in splits_of(old)[0]} - users
    assert valid == {(u, i) for u, i in splits_of(old)[1] if u in users}
    moved = {(u, i) for u, i in splits_of(old)[0] if i in items and u in users}
    assert test == {(u, i) for u, i in splits_of(old)[2] if u in users} | moved


@pytest.mark.parametrize("distribution", ["uniform", "popularity"])
def test_no_training_negative_is_a_new_item(settings, distribution):
    changes = {"train_neg_sample_args": {"distribution": distribution, "sample_num": 1}}
    run = prepare("VBPR", settings, new_items="stratified", **changes)
    control = prepare("VBPR", settings, **changes)
    new = run.dataset.new_items
    assert isinstance(run.train._sampler, Sampler) and type(run.train._sampler) is OldItemSampler
    assert type(control.train._sampler) is NegativeSampler

    def drawn(prepared):
        batches = [batch for _ in range(20) for batch in prepared.train]
        return torch.cat([batch["neg_item_id"] for batch in batches])

    assert new[drawn(control)].any()
    negatives = drawn(run)
    assert negatives.min() > 0 and not new[negatives].any()
    n_old = int((~new).sum()) - 1
    assert len(negatives.unique()) >= n_old - 1  # the cold item has no popularity
    used = run.train._sampler.used_ids
    users = np.repeat(np.arange(1, 41), 50)
    values = run.train._sampler.sample_by_user_ids(users, None, 1)
    assert not any(item in used[user] for user, item in zip(users, values.tolist()))


def test_batches_are_those_of_recboles_loaders_and_sampler(settings, tmp_path, monkeypatch):
    ages = "\n".join(f"u{number}\t{number}" for number in range(40))
    (tmp_path / "tiny" / "tiny.user").write_text(f"user_id:token\tage:float\n{ages}\n")
    columns = {"inter": ["user_id", "item_id"], "user": ["user_id", "age"]}
    columns["item"] = ["item_id", "title", "tags"]
    run = prepare("VBPR", settings, load_col=columns)

    def batches():
        run.train.generator.manual_seed(1)
        np.random.seed(1)
        train = [batch.interaction for _ in range(2) for batch in run.train]
        return train, [(*history, u, i) for _, history, u, i in run.test]

    train, ranked = batches()
    monkeypatch.setattr(NegativeSampler, "sample_by_key_ids", Sampler.sample_by_key_ids)
    monkeypatch.setattr(MultimodalDataset, "__getitem__", Dataset.__getitem__)
    monkeypatch.setattr(MultimodalDataset, "join", Dataset.join)
    monkeypatch.setattr(type(run.test), "collate_fn", FullSortEvalDataLoader.collate_fn)
    of_recbole, ranked_by_recbole = batches()
    assert {"age", "title", "tags", "neg_title"} <= train[0].keys()
    assert len(train) == len(of_recbole) and len(ranked) == len(ranked_by_recbole)
    for ours, theirs in zip(train, of_recbole):
        assert ours.keys() == theirs.keys() and all(
            map(torch.equal, ours.values(), theirs.values())
        )
    for ours, theirs in zip(ranked, ranked_by_recbole):
        assert all(map(torch.equal, ours, theirs))


def test_batches_of_a_sequential_model_are_recboles(settings, monkeypatch):
    plain = {key: settings[key] for key in ("data_path", "dataset", "checkpoint_dir", "gpu_id")}
    columns = {"inter": ["user_id", "item_id", "timestamp"]}
    run = prepare("GRU4Rec", plain, load_col=columns, train_neg_sample_args=None)
    assert type(run.test) is RankingDataLoader and run.test.is_sequential
    ours = list(run.test)
    monkeypatch.setattr(RankingDataLoader, "collate_fn", FullSortEvalDataLoader.collate_fn)
    for (rows, history, *positive), (others, no_history, *expected) in zip(ours, run.test):
        assert history is no_history is None
        assert all(map(torch.equal, positive, expected))
        assert rows.interaction.keys() == others.interaction.keys()
        assert all(torch.equal(rows[name], others[name]) for name in rows.interaction)


@pytest.mark.parametrize(("n_users", "n_items", "used_each"), [(60, 500, 2), (40, 30, 8)])
def test_negatives_are_those_of_recboles_sampler(n_users, n_items, used_each):
    """Also where pairs that are not used have the remainder of a used one."""
    generator = np.random.default_rng(0)
    rows = [generator.choice(np.arange(1, n_items), used_each, False) for _ in range(1, n_users)]
    users = np.repeat(np.arange(1, n_users), used_each)
    columns = {"user_id": users, "item_id": np.concatenate(rows)}
    table = Interaction({name: torch.from_numpy(column) for name, column in columns.items()})
    names = {"uid_field": "user_id", "iid_field": "item_id", "inter_feat": table}
    split = SimpleNamespace(**names, user_num=n_users, item_num=n_items)
    drawn = []
    for kind in (NegativeSampler, Sampler):
        sampler = kind("train", split).set_phase("train")
        np.random.seed(0)
        drawn.append(sampler.sample_by_user_ids(np.tile(np.arange(1, n_users), 50), None, 3))
    assert torch.equal(*drawn)
    sampler = NegativeSampler("train", split).set_phase("train")
    every_pair = np.repeat(np.arange(1, n_users), n_items), np.tile(np.arange(n_items), n_users - 1)
    n_marked = sampler._marked[sampler._remainders(*every_pair)].sum()
    assert (n_marked > len(users)) == (n_users * n_items > 16 * len(users))


def test_evaluation_keeps_new_items_as_candidates(settings):
    run = prepare("VBPR", settings, new_items="stratified")
    new = set(run.dataset.new_items.nonzero()[:, 0].tolist())
    for loader in (run.valid, run.test):
        users = loader.uid_list.tolist()
        assert any(new & set(loader.uid2positive_item[user].tolist()) for user in users)
        for user in users:
            hidden = set(loader.uid2history_item[user].tolist())
            assert not hidden & set(loader.uid2positive_item[user].tolist())


def test_a_user_with_all_old_items_is_refused(content, tmp_path):
    user, old = content.train[0][0], [f"i{number}" for number in range(4)]
    content.valid = [(one, item) for one, item in content.valid if one != user]
    content.test = [(one, item) for one, item in content.test if one != user]
    everything = [(user, item) for item in old if (user, item) not in content.train]
    settings = replace(content, train=[*content.train, *everything]).write(tmp_path)
    new = sorted({item for _, item in content.train} - set(old)) + [COLD]
    missing.write_token_file(tmp_path / "tiny" / "new.txt", new)
    with pytest.raises(ValueError, match="new_items: every user must leave at least one old item"):
        prepare("VBPR", settings, new_items="file", new_items_file="new.txt")


# ---------------------------------------------------------------------------- what testing hides


@pytest.mark.parametrize("new_items", ["none", "stratified"])
def test_test_mask_changes_the_history_of_testing_and_nothing_else(settings, new_items):
    both = {
        mask: prepare("VBPR", settings, test_mask=mask, new_items=new_items)
        for mask in ("train_valid", "train")
    }
    assert splits_of(both["train"]) == splits_of(both["train_valid"])
    assert same_modalities(both["train"], both["train_valid"])
    batches = []
    for run in both.values():
        init_seed(1, True)
        batches.append(torch.cat([batch["neg_item_id"] for batch in run.train]))
    assert torch.equal(*batches)
    ids = {}
    for split in ("train", "valid"):
        inter = getattr(both["train"], split)._dataset.inter_feat
        ids[split] = {user: set() for user in range(1, 41)}
        for user, item in zip(inter["user_id"].tolist(), inter["item_id"].tolist()):
            ids[split][user].add(item)
    for mask, run in both.items():
        for user in run.valid.uid_list.tolist():
            assert set(run.valid.uid2history_item[user].tolist()) == ids["train"][user]
        for user in run.test.uid_list.tolist():
            hidden = ids["train"][user] | (ids["valid"][user] if mask == "train_valid" else set())
            assert set(run.test.uid2history_item[user].tolist()) == hidden


# -------------------------------------------------------------------------------------- caches

STRATIFIED = {"missing_protocol": "stratified", "missing_ratio": 0.4}
OTHER_SETTINGS = [
    {"missing_seed": 7},
    {"missing_ratio": 0.3},
    {"missing_protocol": "random_items"},
    {"imputation": "mean"},
    {"imputation_layers": 1},
    {"test_mask": "train"},
    {"new_items": "stratified"},
    {"title_dim": 3},
    {"modalities": ["image", "title"]},
]


def other_image(content: Content) -> Content:
    return replace(content, image=content.image + 1)


def other_ids(content: Content) -> Content:
    return replace(content, image_ids=content.image_ids[::-1])


def other_titles(content: Content) -> Content:
    return replace(content, titles={item: "war " + title for item, title in content.titles.items()})


def other_file(content: Content) -> Content:
    return replace(content, lacks={"i12": ["image"]})


def other_catalogue(content: Content) -> Content:
    words = {"i500": "a new item"}
    return replace(content, titles={**content.titles, **words}, tags={**content.tags, **words})


def other_interactions(content: Content) -> Content:
    return replace(content, train=content.train[:-1])


@pytest.fixture
def made(monkeypatch):
    """Names of the steps that were done and not served from a cache."""
    steps = []

    def noted(step, original):
        def wrapper(self, *args):
            steps.append(step)
            return original(self, *args)

        return wrapper

    for step in ("__init__", "build"):
        monkeypatch.setattr(MultimodalDataset, step, noted(step, getattr(MultimodalDataset, step)))
    return steps


BY_ITEM_FILE = {"load_col": {"inter": ["user_id", "item_id"], "item": ["item_id"]}}
CACHES = {"save_dataset": True, "save_dataloaders": True}


def test_caches_serve_what_has_not_changed(settings, made):
    first = prepare("VBPR", settings, **STRATIFIED, **CACHES)
    assert made == ["__init__", "build"]
    second = prepare("VBPR", settings, **STRATIFIED, **CACHES, learning_rate=0.1)
    assert made == ["__init__", "build"]
    modalities = second.train._dataset.modalities
    for name, modality in first.dataset.modalities.items():
        assert torch.equal(modalities[name].features, modality.features)
        assert torch.equal(modalities[name].observed, modality.observed)
    assert splits_of(first) == splits_of(second)


@pytest.mark.parametrize("changes", OTHER_SETTINGS, ids=lambda changes: "-".join(changes))
def test_caches_do_not_serve_other_settings(settings, made, changes):
    first = prepare("VBPR", settings, **STRATIFIED, **CACHES)
    second = prepare("VBPR", settings, **{**STRATIFIED, **CACHES, **changes})
    assert made == ["__init__", "build"] * 2
    fresh = prepare("VBPR", settings, **{**STRATIFIED, **changes}, checkpoint_dir="elsewhere")
    assert same_modalities(second, fresh) and splits_of(second) == splits_of(fresh)
    assert first.config["data_fingerprint"] != second.config["data_fingerprint"]


@pytest.mark.parametrize(
    "change",
    [other_image, other_ids, other_titles, other_file, other_interactions, other_catalogue],
)
def test_caches_do_not_serve_other_content(settings, content, tmp_path, made, change):
    by_file = {"missing_protocol": "file", "missing_file": "lacks.tsv", **CACHES, **BY_ITEM_FILE}
    prepare("VBPR", settings, **by_file)
    change(content).write(tmp_path)
    second = prepare("VBPR", settings, **by_file)
    assert made == ["__init__", "build"] * 2
    fresh = prepare("VBPR", settings, **{**by_file, "checkpoint_dir": "elsewhere"})
    assert same_modalities(second, fresh) and splits_of(second) == splits_of(fresh)
    assert tokens_of(second) == tokens_of(fresh)


def test_caches_do_not_serve_another_item_file_that_no_modality_reads(
    settings, content, tmp_path, made
):
    changes = {"modalities": ["image"], **CACHES, **BY_ITEM_FILE}
    first = prepare("VBPR", settings, **changes)
    other_catalogue(content).write(tmp_path)
    second = prepare("VBPR", settings, **changes)
    assert made == ["__init__", "build"] * 2
    assert tokens_of(second) == [*tokens_of(first), "i500"]


def test_a_served_run_trains_as_the_run_that_saved(settings):
    results = [
        recbole.quick_start.run_recbole(
            "VBPR", config_dict={**settings, **STRATIFIED, "save_dataset": True}
        )
        for _ in range(2)
    ]
    assert results[0] == results[1]


def test_no_file_is_hashed_where_recbole_keeps_no_cache(settings):
    base = prepare("VBPR", settings)
    assert base.config["data_fingerprint"] is None
    kept = [prepare("VBPR", settings, save_dataset=True, seed=seed).config for seed in (1, 2)]
    assert fingerprint(kept[0]) == kept[0]["data_fingerprint"] == kept[1]["data_fingerprint"]
    assert prepare("VBPR", settings).config["data_fingerprint"] is None, "it asks for none"


# ------------------------------------------------------------------------------------ identity


def parts_of(settings, model="VBPR", **changes):
    return prepare(model, settings, **changes).dataset.identity


def changed_parts(one, other):
    return {part for part in {*one, *other} if one.get(part) != other.get(part)}


def test_identity_is_that_of_what_was_built(settings):
    first = parts_of(settings)
    assert first.keys() == {"catalogue", "split", "features", "masks"}
    run = prepare("BM3", settings, seed=3, learning_rate=0.5, epochs=9, imputation="zeros")
    assert run.dataset.identity == first, "no setting of models, training or imputation"
    assert run.config["data_identity"] == first
    for loader in (run.train, run.valid, run.test):
        assert loader._dataset.identity is run.dataset.identity
    bare = parts_of(settings, "BPR", modalities=None, plugin_defaults=True)
    assert bare.keys() == {"catalogue", "split"}


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (lambda c: replace(c, train=c.train[:-1]), {"split"}),
        (lambda c: replace(c, valid=c.valid[:-1]), {"split"}),
        (lambda c: replace(c, test=c.test[1:]), {"split"}),
        (lambda c: replace(c, train=[*c.train, c.train[-1]]), {"split"}),
        # The order of training decides the batches; no other order counts.
        (lambda c: replace(c, train=[*c.train[:-2], c.train[-1], c.train[-2]]), {"split"}),
        (lambda c: replace(c, valid=c.valid[::-1], test=c.test[::-1]), set()),
        (lambda c: replace(c, train=c.train[::-1]), {"catalogue", "split"}),
        (other_image, {"features"}),
        (
            lambda c: replace(c, titles={i: t and f"war {t}" for i, t in c.titles.items()}),
            {"features"},
        ),
        (lambda c: replace(c, lacks={"i12": ["image"]}), {"features", "masks"}),
        (lambda c: replace(c, titles=dict(reversed(list(c.titles.items())))), set()),
    ],
)
def test_each_part_follows_what_it_is_made_of(settings, content, tmp_path, change, parts):
    by_file = {"missing_protocol": "file", "missing_file": "lacks.tsv"}
    other = change(content).write(tmp_path / "other")
    assert changed_parts(parts_of(settings, **by_file), parts_of(other, **by_file)) == parts


def test_settings_of_the_mask_count_by_what_they_hide(settings):
    first = parts_of(settings)
    assert parts_of(settings, missing_protocol="random_items", missing_ratio=0.0) == first
    assert parts_of(settings, missing_seed=9) == first, "nothing is drawn"
    drawn = {"missing_protocol": "random_items", "missing_ratio": 0.4}
    masked = parts_of(settings, **drawn)
    assert changed_parts(first, masked) == {"masks", "features"}
    assert changed_parts(masked, parts_of(settings, **drawn, missing_seed=9)) == {
        "masks",
        "features",
    }
    new = parts_of(settings, new_items="stratified")
    assert changed_parts(first, new) == {"split", "new_items"}


def test_the_item_file_decides_a_catalogue_that_is_read_from_it(content, tmp_path):
    """Items without interactions get their ids in the order of its lines."""

    def read(*strangers):
        words = {item: "a new item" for item in strangers}
        more = replace(content, titles={**content.titles, **words}, tags={**content.tags, **words})
        return parts_of(more.write(tmp_path), **BY_ITEM_FILE)

    first = read("i500", "i501")
    assert changed_parts(first, read("i501", "i500")) == {"catalogue"}
    assert "catalogue" in changed_parts(first, read("i500", "i501", "i502"))


def test_what_else_is_read_counts_too(settings):
    named = {
        "load_col": {"inter": ["user_id", "item_id", "timestamp"], "item": ["item_id", "tags"]}
    }
    assert changed_parts(parts_of(settings, **BY_ITEM_FILE), parts_of(settings, **named)) == {
        "split",
        "columns",
    }


def test_an_item_graph_counts_by_its_edges(settings, tmp_path):
    file = tmp_path / "tiny" / "edges.tsv"
    file.write_text("item_id:token\tneighbour_id:token\ni1\ti2\n")
    changes = {"imputation_edges_file": file.name, "imputation_graph": "edges"}
    changes["imputation"] = "featprop"
    first = parts_of(settings, **changes)
    assert changed_parts(parts_of(settings), first) == {"edges"}
    file.write_text("item_id:token\tneighbour_id:token\ni1\ti3\n")
    assert changed_parts(first, parts_of(settings, **changes)) == {"edges"}
    for unread in ({"imputation": "mean"}, {"imputation_graph": "co_interaction"}):
        assert parts_of(settings, **{**changes, **unread}) == parts_of(settings), unread


def test_an_encoder_counts_with_what_it_reads(settings, tmp_path):
    first, default = parts_of(settings), parts_of(settings, title_dim=None)
    assert parts_of(settings, tags_dim=7) == first, "tags have no dim"
    assert parts_of(settings, title_dim=64) == default != first
    assert changed_parts(first, parts_of(settings, title_dim=3)) == {"features"}
    path = tmp_path / "tiny" / "tiny.item"
    before = path.read_text()
    assert before.count("tags:") == 1
    path.write_text(before.replace("tags:", "labels:"))
    renamed = parts_of(settings, tags_columns=["labels"])
    assert changed_parts(first, renamed) == {"features"}, "tags are sorted by column and word"


def test_a_model_that_reads_no_modalities_pays_for_no_imputation(settings, monkeypatch):
    asked, make = [], dataset_module.make_imputer
    monkeypatch.setattr(
        dataset_module, "make_imputer", lambda config: asked.append(config) or make(config)
    )
    run = prepare("BPR", settings, epochs=1)
    trainer = run.trainer()
    trainer.fit(run.train, run.valid)
    trainer.evaluate(run.test)
    assert trainer.group_results and not asked
    prepare("VBPR", settings).trainer()
    assert len(asked) == 1, "else the test would not see it"


# ----------------------------------------------------------------------------------- bad input


@pytest.fixture
def refusal(monkeypatch):
    """Run through RecBole's quick start; return the one line that it stops with."""

    def fit(*args, **kwargs):
        raise AssertionError("training has begun")

    monkeypatch.setattr(Trainer, "fit", fit)

    def run(settings, **changes):
        with pytest.raises(ValueError) as caught:
            recbole.quick_start.run_recbole("VBPR", "tiny", config_dict={**settings, **changes})
        message = str(caught.value)
        assert "\n" not in message and message.endswith(".")
        return message

    return run


GRAMMAR = re.compile(r"^.+?:? .*(must|has) .*(, got |, dataset ).*; .+\.$")


def test_empty_split(refusal, settings, content, tmp_path):
    none = {"split": {"RS": [0.9, 0.1, 0.0]}, "order": "TO", "group_by": "user"}
    message = refusal(settings, **{**BY_TIME, "eval_args": none})
    assert message == (
        "VBPR: eval_args: split: RS must be a list of three numbers > 0 (for training, validation "
        "and test), got [0.9, 0.1, 0.0]."
    )
    message = refusal(replace(content, valid=[]).write(tmp_path))
    assert "the validation split must not be empty, got 0 of 400" in message


def test_top_k_beyond_the_catalogue(refusal, settings):
    assert refusal(settings, topk=[5, 31]) == (
        "topk: must be at most the number of items (30), got 31; lower it."
    )
    prepare("VBPR", settings, topk=[5, 30])


@pytest.mark.parametrize("protocol", ["random_items", "stratified"])
def test_modality_that_nobody_has(refusal, settings, protocol):
    changes = {"missing_protocol": protocol, "missing_ratio": 1.0, "modalities": ["image"]}
    message = refusal(settings, **changes)
    assert GRAMMAR.match(message)
    assert message.startswith("modality 'image': must be observed for at least one item, got 0 of")


def test_modality_without_a_source(refusal, settings):
    message = refusal(settings, modalities=["image", "sound"])
    assert message.startswith("sound: exactly one of sound_features, sound_columns")


def test_modality_with_two_sources(refusal, settings):
    assert "image: exactly one of" in refusal(settings, image_columns=["title"])


def test_modality_given_twice(refusal, settings):
    assert "distinct names" in refusal(settings, modalities=["image", "image"])


def nan_cell(content, folder):
    content.image[4, 2] = np.nan
    np.save(folder / "image.npy", content.image)
    return rf"image\.npy: .*must be finite.* 4 \(item '{content.image_ids[4]}'\)"


def infinity(content, folder):
    content.image[4, 2] = np.inf
    np.save(folder / "image.npy", content.image)
    return r"image\.npy: .*must be finite"


def overflow(content, folder):
    image = content.image.astype(np.float64)
    image[0, 0] = 1e300
    np.save(folder / "image.npy", image)
    return r"image\.npy: .*must be finite"


def duplicate_ids(content, folder):
    content.image_ids[1] = content.image_ids[0]
    (folder / "image_ids.txt").write_text("\n".join(content.image_ids))
    return rf"image_ids\.txt: an item must have one row, .*'{content.image_ids[0]}'"


def too_few_ids(content, folder):
    (folder / "image_ids.txt").write_text("\n".join(content.image_ids[:-1]))
    return r"image: image_ids\.txt must have one id for each of the 28 rows"


def unknown_ids(content, folder):
    (folder / "image_ids.txt").write_text("\n".join(f"x{i}" for i in range(28)))
    return r"image_ids\.txt: ids must be item tokens, no id matches \(28 ids, 30 items\)"


def object_array(content, folder):
    np.save(folder / "image.npy", content.image.astype(object))
    return r"image\.npy"


def truncated(content, folder):
    path = folder / "image.npy"
    path.write_bytes(path.read_bytes()[:-40])
    return r"image\.npy"


def no_file(content, folder):
    (folder / "image.npy").unlink()
    return "image: image_features must name a file or folder that exists"


def no_column(content, folder):
    (folder / "tiny.item").write_text("item_id:token\ttags:token_seq\ni1\ta b\n")
    return r"tiny\.item"


def blank_column(content, folder):
    content.titles = dict.fromkeys(content.titles, "")
    content.write(folder.parent)
    return "title: 0 of 30 items have it"


def unknown_item_in_mask(content, folder):
    (folder / "lacks.tsv").write_text(f"{missing.HEADER}\nx1\timage\n")
    return r"lacks\.tsv: items must be in the data set, .*'x1'"


def unknown_modality_in_mask(content, folder):
    (folder / "lacks.tsv").write_text(f"{missing.HEADER}\ni1\timages\n")
    return r"lacks\.tsv: Unknown modality 'images'. Did you mean 'image'"


def item_twice_in_mask(content, folder):
    (folder / "lacks.tsv").write_text(f"{missing.HEADER}\ni1\timage\ni1\ttitle\n")
    return r"lacks\.tsv: an item must have one line, got several for \['i1'\]"


@pytest.mark.parametrize(
    "spoil",
    [
        nan_cell,
        infinity,
        overflow,
        duplicate_ids,
        too_few_ids,
        unknown_ids,
        object_array,
        truncated,
        no_file,
        no_column,
        blank_column,
        unknown_item_in_mask,
        unknown_modality_in_mask,
        item_twice_in_mask,
    ],
)
def test_spoilt_files_stop_before_training(refusal, settings, content, tmp_path, spoil):
    expected = spoil(content, tmp_path / "tiny")
    message = refusal(settings, missing_protocol="file", missing_file="lacks.tsv")
    assert re.search(expected, message), message


def test_rows_without_ids_must_be_as_many_as_the_items(refusal, content, tmp_path):
    changes = {"image_ids": None, "modalities": ["image"]}
    assert refusal(content.write(tmp_path), **changes) == (
        "image.npy has 28 rows, dataset 'tiny' has 30 items; give an id file (image_ids)."
    )


def test_mask_of_two_sources_is_refused(refusal, settings):
    both = {"missing_protocol": "random_items", "missing_ratio": 0.5, "missing_file": "lacks.tsv"}
    message = refusal(settings, **both)
    assert message.startswith("missing: missing_file must be empty unless missing_protocol is file")


def test_a_bug_in_an_imputer_is_seen_as_it_is(settings, monkeypatch):
    def broken(self, table, others):
        return table.no_such_attribute

    monkeypatch.setattr(Zeros, "fill", broken)
    run = prepare("VBPR", settings, imputation="zeros")
    with pytest.raises(AttributeError, match="no_such_attribute"):
        run.trainer()


def test_files_may_have_another_encoding(content, tmp_path):
    """RecBole's setting ``encoding`` holds for all atomic files."""
    content.titles["i0"] = "caf\xe9 \xfcber"
    expected = prepare("VBPR", content.write(tmp_path / "plain")).dataset.modalities
    settings = content.write(tmp_path / "coded")
    folder = tmp_path / "coded" / "tiny"
    for path in (*folder.glob("*.inter"), folder / "tiny.item"):
        path.write_bytes(path.read_text(encoding="utf-8").encode("latin-1"))
    run = prepare("VBPR", settings, encoding="latin-1")
    for name, modality in run.dataset.modalities.items():
        assert torch.equal(modality.features, expected[name].features)
    with pytest.raises(ValueError, match="tiny.item: must be UTF-8 text, got byte 0xe9"):
        prepare("VBPR", settings)
    with pytest.raises(ValueError, match="encoding: must be an encoding of Python, got 'latin-0'"):
        prepare("VBPR", settings, encoding="latin-0")


class Drawing(Zeros):
    """An imputer of others that draws from every global generator."""

    def fill(self, table, others):
        """Give one number of each generator."""
        drawn = random.random() + np.random.rand() + torch.rand(1)
        return Filled(torch.zeros_like(table.features) + drawn)


def states():
    kind, keys, *_ = np.random.get_state()
    return random.getstate(), kind, keys.tolist(), torch.get_rng_state().tolist()


@pytest.mark.parametrize("costly", [True, False])
def test_imputing_neither_reads_nor_changes_the_generators_of_the_run(
    settings, monkeypatch, costly
):
    monkeypatch.setattr(Drawing, "costly", costly)
    found = []
    for seed in (1, 2):
        changes = {"imputation": IMPUTERS.register(Drawing).__name__, "imputation_cache": False}
        run = prepare("VBPR", settings, seed=seed, **changes)
        before = states()
        found.append(run.dataset.modalities["image"].features)
        assert states() == before
    assert torch.equal(*found), "the seed of the run decides nothing"
    assert found[0].any()
