"""Results by group of items, and how evaluation is batched."""

from __future__ import annotations

import logging
import math
import re
from collections import Counter

import numpy as np
import pytest
import torch
from folders import AT_WORK, N_ITEMS, N_USERS, Prepared, Toy, prepare, tiny_content
from folders import workplace as workplace
from recbole.quick_start import load_data_and_model, run_recbole
from recbole.utils import get_trainer

from recbole_missing import plugin, run_recbole_missing
from recbole_missing.evaluation.groups import results_table

pytestmark = AT_WORK


@pytest.fixture
def settings(tmp_path):
    return {
        **tiny_content().write(tmp_path),
        "missing_protocol": "stratified",
        "missing_ratio": 0.5,
        "metric_decimal_place": 12,
    }


@pytest.fixture
def seen(caplog):
    caplog.set_level(logging.INFO)
    return lambda: [record.getMessage() for record in caplog.records]


# ------------------------------------------------------------------------------- by brute force


def items_by_user(run: Prepared, *splits: str) -> dict[int, set[int]]:
    found = {user: set() for user in range(1, N_USERS + 1)}
    for split in splits:
        inter = getattr(run, split)._dataset.inter_feat
        for user, item in zip(inter["user_id"].tolist(), inter["item_id"].tolist()):
            found[user].add(item)
    return found


def slow_results(
    run: Prepared, scores: np.ndarray, hidden: dict, members: set[int], ranked: set[int]
) -> dict:
    """Recall, NDCG and the number of users, one user and one item at a time.

    ``members`` count as relevant; ``ranked`` are the candidates.
    """
    values = {f"{metric}@{k}": [] for metric in ("recall", "ndcg") for k in run.config["topk"]}
    for user, positives in items_by_user(run, "test").items():
        wanted = positives & members
        if not wanted:
            continue
        candidates = [item for item in sorted(ranked) if item not in hidden[user] - positives]
        ranking = sorted(candidates, key=lambda item: -scores[user, item])
        for k in run.config["topk"]:
            places = [place for place, item in enumerate(ranking[:k], 1) if item in wanted]
            gain = sum(1 / math.log2(place + 1) for place in places)
            most = sum(1 / math.log2(place + 1) for place in range(1, min(len(wanted), k) + 1))
            values[f"recall@{k}"].append(len(places) / len(wanted))
            values[f"ndcg@{k}"].append(gain / most)
    users = len(values[f"recall@{run.config['topk'][0]}"])
    return {"users": users, **{name: np.mean(value) for name, value in values.items()}}


def with_scores(run: Prepared, scores: np.ndarray):
    """The trainer of a model that answers with these scores, ``(n_users, n_items)``."""
    trainer = run.trainer()
    table = torch.from_numpy(scores)
    trainer.model.full_sort_predict = lambda batch: table[batch["user_id"]].flatten()
    return trainer


@pytest.mark.parametrize("eval_users", [2048, 7])
@pytest.mark.parametrize("test_mask", ["train_valid", "train"])
@pytest.mark.parametrize("new_items", ["none", "stratified"])
def test_results_of_groups_equal_a_slow_count(settings, test_mask, new_items, eval_users):
    changes = {"test_mask": test_mask, "new_items": new_items, "eval_users": eval_users}
    run = prepare("VBPR", settings, topk=[2, 7, N_ITEMS], valid_metric="Recall@7", **changes)
    scores = np.random.default_rng(0).normal(size=(N_USERS + 1, N_ITEMS + 1))
    trainer = with_scores(run, scores)
    overall = trainer.evaluate(run.test, load_best_model=False)
    hidden = items_by_user(run, "train", *(["valid"] if test_mask == "train_valid" else []))
    everything = set(range(1, N_ITEMS + 1))
    expected = slow_results(run, scores, hidden, everything, everything)
    assert dict(overall) == pytest.approx({key: expected[key] for key in overall}, abs=1e-9)
    counts = run.dataset.modalities.n_missing.tolist()
    members_of = {
        f"{n} missing": {item for item in everything if counts[item] == n} for n in range(4)
    }
    if new_items != "none":
        new = {item for item in everything if run.dataset.new_items[item]}
        members_of |= {"warm": everything - new, "new": new}
    assert list(trainer.group_results) == list(members_of)
    assert list(trainer.within_group_results) == list(members_of)
    for name, members in members_of.items():
        expected = slow_results(run, scores, hidden, members, everything)
        assert trainer.group_results[name] == pytest.approx(expected, abs=1e-9), name
        expected = slow_results(run, scores, hidden, members, members) | {"items": len(members)}
        assert trainer.within_group_results[name] == pytest.approx(expected, abs=1e-9), name
        assert expected[f"recall@{N_ITEMS}"] == 1.0 and len(members) < N_ITEMS


def test_groups_partition_the_test_items(settings):
    run = prepare("VBPR", settings, metrics=["Recall", "NDCG", "Precision"])
    found = run.dataset.item_groups()
    assert torch.stack(list(found.values())).sum(dim=0).tolist() == [0] + [1] * N_ITEMS
    trainer = with_scores(run, np.random.default_rng(1).normal(size=(N_USERS + 1, N_ITEMS + 1)))
    overall = trainer.evaluate(run.test, load_best_model=False)
    for k in run.config["topk"]:  # k times precision is a number of hits, and these add up
        hits = sum(g["users"] * g[f"precision@{k}"] for g in trainer.group_results.values())
        assert hits == pytest.approx(N_USERS * overall[f"precision@{k}"], abs=1e-9)


def test_groups_without_a_test_item_are_left_out(settings):
    changes = {"missing_protocol": "random_items", "missing_ratio": 0.0}
    run = prepare("VBPR", settings, **changes)
    trainer = with_scores(run, np.random.default_rng(2).normal(size=(N_USERS + 1, N_ITEMS + 1)))
    trainer.evaluate(run.test, load_best_model=False)
    assert list(run.dataset.item_groups()) == ["0 missing", "1 missing"]  # the holes
    run.test._dataset.item_groups = lambda: {"nobody": torch.zeros(N_ITEMS + 1).bool()}
    trainer.evaluate(run.test, load_best_model=False)
    assert trainer.group_results == trainer.within_group_results == {}


def test_within_a_group_of_all_items_there_is_nothing_else_to_see(settings, seen):
    run = prepare("VBPR", settings)
    trainer = with_scores(run, np.random.default_rng(3).normal(size=(N_USERS + 1, N_ITEMS + 1)))
    run.test._dataset.item_groups = lambda: {"0 missing": torch.arange(N_ITEMS + 1) > 0}
    overall = trainer.evaluate(run.test, load_best_model=False)
    assert trainer.group_results == {"0 missing": {"users": N_USERS, **overall}}
    assert trainer.within_group_results == {}
    assert not any("within the group" in line for line in seen())


def test_a_model_that_knows_nothing_of_a_group_is_at_chance_within_it(settings):
    words = {"new_items": "stratified", "new_item_ratio": 0.5, "topk": [3], "metrics": ["Recall"]}
    run = prepare("Pop", settings, **words, valid_metric="Recall@3")
    trainer = run.trainer()
    trainer.fit(run.train, run.valid, saved=False)
    trainer.evaluate(run.test, load_best_model=False)
    within = trainer.within_group_results
    chance, error = 3 / within["new"]["items"], 3 * 0.5 / within["new"]["users"] ** 0.5
    assert within["new"]["recall@3"] == pytest.approx(chance, abs=error)
    assert within["warm"]["recall@3"] > 3 / within["warm"]["items"]


def test_validation_is_not_split_into_groups(settings, seen):
    run = prepare("VBPR", settings)
    trainer = run.trainer()
    trainer.fit(run.train, run.valid)
    assert trainer.group_results == trainer.within_group_results == {}
    assert not any("test items" in line for line in seen())
    trainer.evaluate(run.test)
    tables = [line for line in seen() if "test items" in line]
    assert len(tables) == 1 and tables[0].startswith("VBPR on tiny; missing: 50% stratified; ")


def test_groups_do_not_change_recboles_result(settings):
    with_groups = run_recbole_missing("BPR", config_dict=dict(settings))
    none = {"modalities": None, "missing_protocol": "none"}
    without = run_recbole_missing("BPR", config_dict={**settings, **none})
    assert with_groups["test_result"] == without["test_result"]
    for key in ("test_result_by_group", "test_result_within_group"):
        assert with_groups[key] and without[key] == {}


def test_a_checkpoint_gives_the_results_of_its_run(settings):
    settings = {**settings, "new_items": "stratified"}
    found = run_recbole_missing("VBPR", config_dict=settings)
    config, model, _, _, _, test = load_data_and_model(found["checkpoint"], settings["data_path"])
    trainer = get_trainer(config["MODEL_TYPE"], config["model"])(config, model)
    assert trainer.evaluate(test, load_best_model=False) == found["test_result"]
    assert trainer.group_results == found["test_result_by_group"]
    assert trainer.within_group_results == found["test_result_within_group"]
    assert {"new", "warm", "0 missing"} <= trainer.within_group_results.keys()


def test_tables_have_a_row_for_all_items_and_one_a_group():
    by_group = {"0 missing": {"users": 3, "recall@5": 0.25}, "new": {"users": 1, "recall@5": 0.5}}
    within = {"new": {"users": 1, "items": 12, "recall@5": 1.0}}
    overall = {"recall@5": 0.125, "meanrank@5": 3.0}
    first, second = results_table(overall, by_group, within, "title").split("\n\n")
    lines = first.splitlines()
    assert lines[0] == "title" and lines[1].split() == ["test", "items", "users", "recall@5"]
    assert [line.split() for line in lines[3:]] == [
        ["all", "0.1250"],
        ["0", "missing", "3", "0.2500"],
        ["new", "1", "0.5000"],
    ]
    lines = second.splitlines()
    assert lines[0].startswith("within the group: only its own items are candidates")
    assert lines[1].split() == ["test", "items", "items", "users", "recall@5"]
    assert [line.split() for line in lines[3:]] == [["new", "12", "1", "1.0000"]]
    assert results_table(overall, by_group, {}, "title") == first


# ------------------------------------------------------------------------- batches of evaluation


def test_embeddings_are_computed_once_per_evaluation(settings):
    run = prepare(Toy, settings, eval_users=7)
    trainer = run.trainer()
    for times in (1, 2):
        trainer.fit(run.train, run.valid, saved=False)  # one epoch, one validation
        assert len(run.valid) == 6 and trainer.model.calls.count("encode") == times
    trainer.evaluate(run.test, load_best_model=False)
    assert trainer.model.calls.count("encode") == 3


def said(lines: list[str]) -> int:
    found = [re.fullmatch(r"Evaluation ranks all items for up to (\d+) users .*", x) for x in lines]
    (number,) = [int(match[1]) for match in found if match]
    return number


@pytest.mark.parametrize(
    ("changes", "users"),
    [
        ({}, 2048),
        ({"eval_users": 7}, 7),
        ({"eval_batch_size": 3 * (N_ITEMS + 1)}, 3),
        ({"eval_batch_size": 3 * (N_ITEMS + 1) + 5, "eval_users": 9}, 3),
        ({"eval_batch_size": 1}, 1),
    ],
)
@pytest.mark.parametrize("model", ["VBPR", "BPR"])
def test_users_are_ranked_together_and_the_log_says_how_many(settings, seen, model, changes, users):
    run = prepare(model, settings, **changes)
    assert said(seen()) == users
    for loader in (run.valid, run.test):
        sizes = [len(batch[0]) for batch in loader]
        assert sizes[0] == min(users, N_USERS) and len(sizes) == math.ceil(N_USERS / users)


def test_memory_bounds_the_number_of_users(settings, seen, monkeypatch):
    monkeypatch.setattr(plugin, "_SCORE_BLOCK", 5 * (N_ITEMS + 1) + 2)
    assert len(prepare("VBPR", settings).test) == 8 and said(seen()) == 5


def test_the_size_of_batches_does_not_change_results(settings):
    results = [
        run_recbole("VBPR", config_dict={**settings, "eval_users": users}) for users in (2048, 3)
    ]
    assert results[0]["test_result"] == pytest.approx(results[1]["test_result"], abs=1e-9)


@pytest.mark.parametrize("model", ["BPR", "VBPR"])
def test_recboles_metrics_of_whole_lists_work(settings, model):
    """RecBole 1.2.1 fails on them: it moves an int and a dict of counts to the CPU."""
    names = ["ItemCoverage", "GiniIndex", "AveragePopularity", "TailPercentage"]
    changes = {"metrics": [*names, "Recall"], "tail_ratio": 0.2, "epochs": 2}
    run = prepare(model, {**settings, **changes})
    trainer = run.trainer()
    trainer.fit(run.train, run.valid)  # two validations: the constants outlive one
    result = trainer.evaluate(run.test)
    users = sorted(items_by_user(run, "test"))
    scores = run.scores(trainer.model).numpy()
    for row, user in enumerate(users):
        scores[
            row, [0, *(i for s in ("train", "valid") for i in items_by_user(run, s)[user])]
        ] = -np.inf
    lists = (-scores).argsort(axis=1)[:, :10]
    counts = Counter(run.train._dataset.inter_feat["item_id"].tolist())
    assert result["itemcoverage@10"] == pytest.approx(len(np.unique(lists)) / (N_ITEMS + 1))
    popularity = np.vectorize(lambda item: counts[item])(lists).mean()
    assert result["averagepopularity@10"] == pytest.approx(popularity)
    shares = np.sort(np.bincount(lists.ravel(), minlength=N_ITEMS + 1))
    ranks = 2 * np.arange(1, len(shares) + 1) - len(shares) - 1
    gini = (ranks * shares).sum() / shares.sum() / len(shares)
    assert result["giniindex@10"] == pytest.approx(gini)
    assert 0 <= result["tailpercentage@10"] <= 1
