"""Recommendation lists for any user: a slow ranking, what is hidden, tokens in and out."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from folders import AT_WORK, N_ITEMS, N_USERS, Toy, pairs_of, prepare, refused, tiny_content
from folders import workplace as workplace
from scipy import sparse

from recbole_missing import cli
from recbole_missing.evaluation import ranking
from recbole_missing.evaluation.ranking import top_items

pytestmark = AT_WORK
HERE = ("--data-path", ".")
HEADER = "user_id:token\titem_id:token\trank:float\tscore:float"


@pytest.fixture
def settings(tmp_path):
    return tiny_content().write(tmp_path)


def train(model, settings, **changes):
    run = prepare(model, settings, **changes)
    trainer = run.trainer()
    trainer.fit(run.train, run.valid)
    return run, trainer


def slow_lists(run, network, splits, k):
    """Token -> tokens of the best items, one pair at a time."""
    users, items = (run.dataset.field2id_token[key].tolist() for key in ("user_id", "item_id"))
    seen = {pair for split in splits for pair in pairs_of(getattr(run, split)._dataset)}
    network.eval()
    lists = {}
    for user in range(1, len(users)):
        pairs = {"user_id": torch.full((len(items),), user), "item_id": torch.arange(len(items))}
        with torch.no_grad():
            scores = network.predict(pairs).tolist()
        candidates = [i for i in range(1, len(items)) if (users[user], items[i]) not in seen]
        ranked = sorted(candidates, key=lambda item: -scores[item])[:k]
        lists[users[user]] = [items[item] for item in ranked]
    return lists


def recommend(capsys, *words):
    """Lists by user token, as the command prints them, and its rows."""
    capsys.readouterr()
    cli.main(["recommend", *HERE, *(str(word) for word in words)])
    header, *lines = capsys.readouterr().out.splitlines()
    assert header == HEADER
    return by_user(lines), lines


def by_user(lines):
    lists = {}
    for user, item, rank, score in (line.split("\t") for line in lines):
        found = lists.setdefault(user, [])
        found.append(item)
        assert int(rank) == len(found) and np.isfinite(float(score))
    return lists


@pytest.mark.parametrize("model", [Toy, "VBPR", "DGMRec", "BPR", "NeuMF"])  # NeuMF: pairs alone
def test_lists_equal_a_slow_ranking(settings, capsys, model):
    run, trainer = train(model, settings)
    file = trainer.saved_model_file
    lists, _ = recommend(capsys, file)
    assert len(lists) == N_USERS
    assert lists == slow_lists(run, trainer.model, ("train", "valid"), 10)


@pytest.mark.parametrize(
    ("word", "splits"), [("train_valid", ("train", "valid")), ("train", ("train",)), ("none", ())]
)
def test_what_is_hidden(settings, capsys, word, splits):
    run, trainer = train("VBPR", settings)
    lists, _ = recommend(capsys, trainer.saved_model_file, "--hide", word, "--top-k", N_ITEMS)
    expected = slow_lists(run, trainer.model, splits, N_ITEMS)
    assert lists == expected
    lengths = {len(items) for items in lists.values()}
    assert max(lengths) == N_ITEMS - {"none": 0, "train": 8, "train_valid": 10}[word]


@pytest.mark.parametrize("model", ["ItemKNN", "Pop", "EASE"])
def test_traditional_models_of_recbole(settings, capsys, model):
    run, trainer = train(model, settings)
    lists, lines = recommend(capsys, trainer.saved_model_file, "--top-k", 3)
    seen = pairs_of(run.train._dataset) | pairs_of(run.valid._dataset)
    assert len(lists) == N_USERS and all(len(items) == 3 for items in lists.values())
    assert not seen & {tuple(line.split("\t")[:2]) for line in lines}


def test_users_by_token_and_by_file(settings, capsys, tmp_path):
    _, trainer = train("VBPR", settings)
    file = trainer.saved_model_file
    everyone, _ = recommend(capsys, file, "--top-k", 4)
    some, _ = recommend(capsys, file, "--users", "u7", "u3", "u7", "--top-k", 4)
    assert list(some) == ["u7", "u3"]
    assert some == {user: everyone[user] for user in some}
    wanted = tmp_path / "users.txt"
    wanted.write_text("u3\r\n\nu12\n")
    some, _ = recommend(capsys, file, "--users-file", wanted, "--top-k", 4)
    assert list(some) == ["u3", "u12"] and some["u12"] == everyone["u12"]


def test_unknown_users(settings, capsys, tmp_path):
    run, trainer = train("VBPR", settings)
    file = trainer.saved_model_file
    strangers = [f"x{number}" for number in range(7)]
    message = refused(capsys, "recommend", file, *HERE, "--users", "u1", *strangers, "[PAD]")
    assert "8 of 9 unknown: 'x0', 'x1', 'x2', 'x3', 'x4';" in message
    cli.main(["recommend", file, *HERE, "--users", "u1", *strangers, "--on-unknown", "skip"])
    out, message = capsys.readouterr()
    assert list(by_user(out.splitlines()[1:])) == ["u1"] and "7 of 8 unknown: 'x0'" in message
    cli.main(["recommend", file, *HERE, "--users", "x0", "u1", "x1", "--on-unknown", "popular"])
    popular, message = capsys.readouterr()
    lists = by_user(popular.splitlines()[1:])
    assert list(lists) == ["x0", "u1", "x1"] and "popular items for users, 2 of 3 unk" in message
    assert lists["u1"] == by_user(out.splitlines()[1:])["u1"]
    counts = Counter(item for _, item in pairs_of(run.train._dataset))
    assert sorted(counts.values(), reverse=True)[:10] == [counts[item] for item in lists["x1"]]
    words = ["--users", *strangers, "--on-unknown", "skip"]
    assert "7 of 7 unknown" in refused(capsys, "recommend", file, *HERE, *words)
    assert "must be a file" in refused(capsys, "recommend", file, "--users-file", tmp_path / "no")


def test_a_file_is_written_whole_and_never_replaced_unasked(
    settings, capsys, tmp_path, monkeypatch
):
    _, trainer = train("VBPR", settings)
    file, target = trainer.saved_model_file, tmp_path / "made" / "lists.tsv"
    printed, lines = recommend(capsys, file)
    words = ["recommend", str(file), *HERE, "--output", str(target)]
    cli.main(words)
    assert target.read_text().splitlines() == [HEADER, *lines]
    assert f"Wrote {target}: up to 10 items for {N_USERS} users" in capsys.readouterr().out
    target.write_text("mine")
    assert "must not exist yet; replace a file with --force" in refused(capsys, *words)
    with monkeypatch.context() as patch:
        patch.setattr(
            type(target), "replace", lambda *paths: (_ for _ in ()).throw(OSError("full"))
        )
        assert refused(capsys, *words, "--force") == "error: full\n"
    assert target.read_text() == "mine"
    cli.main([*words, "--force"])
    assert target.read_text().splitlines() == [HEADER, *lines]
    assert [path.name for path in target.parent.iterdir()] == ["lists.tsv"]
    assert "--force" in refused(capsys, "recommend", file, "--output", tmp_path, "--force")


def test_fields_go_by_the_names_of_the_data_set(settings, capsys, tmp_path):
    for path in (tmp_path / "tiny").glob("tiny*.i*"):
        text = path.read_text()
        path.write_text(text.replace("user_id:", "who:").replace("item_id:", "what:"))
    names = {"USER_ID_FIELD": "who", "ITEM_ID_FIELD": "what"}
    load = {"load_col": {"inter": ["who", "what"]}}
    _, trainer = train("VBPR", settings, **names, **load)
    capsys.readouterr()
    cli.main(["recommend", trainer.saved_model_file, *HERE, "--users", "u1"])
    header, *lines = capsys.readouterr().out.splitlines()
    assert header == "who:token\twhat:token\trank:float\tscore:float" and len(lines) == 10


# -------------------------------------------------------------------------------- the function


def test_batches_and_blocks_do_not_change_lists(settings, monkeypatch):
    run = prepare("NeuMF", settings)
    network, users = run.network(), torch.tensor([5, 2, 9, 2])
    hidden = ranking.interactions([run.train._dataset], N_USERS + 1, N_ITEMS + 1)
    monkeypatch.setattr(ranking, "PAIRS", 7)
    network.train()
    found = []
    for size in (1, 3 * (N_ITEMS + 1), 10**6):
        run.config["eval_batch_size"] = size
        found.append(top_items(network, run.config, run.train._dataset, users, hidden, 6))
    assert network.training
    assert all(items.equal(found[0][0]) for items, _ in found)
    assert found[0][0][1].equal(found[0][0][3]) and found[0][0].dtype == torch.int64
    (none, _) = top_items(network, run.config, run.train._dataset, users[:0], hidden, 6)
    assert none.shape == (0, 6)


def test_short_lists_end_in_padding(settings):
    run = prepare("VBPR", settings)
    hidden = sparse.lil_matrix((N_USERS + 1, N_ITEMS + 1), dtype=bool)
    hidden[3, 4:] = True
    users = torch.tensor([3, 4])
    items, scores = top_items(run.network(), run.config, run.train._dataset, users, hidden, 9)
    assert sorted(items[0].tolist()) == [0] * 6 + [1, 2, 3] and items[0, 3:].eq(0).all()
    assert scores[0, 3:].eq(-torch.inf).all() and scores[0, :3].isfinite().all()
    assert (items[1] > 0).all()
    items, _ = top_items(run.network(), run.config, run.train._dataset, users, None, 99)
    assert items.shape == (2, N_ITEMS) and (items > 0).all()


def test_what_cannot_be_ranked_is_refused(settings):
    run = prepare("VBPR", settings)
    arguments = (run.network(), run.config, run.train._dataset, torch.tensor([1]), None)
    with pytest.raises(ValueError, match="must be an int >= 1, got 0"):
        top_items(*arguments, 0)
    run.config["MODEL_TYPE"] = "sequential"
    with pytest.raises(ValueError, match="VBPR must be a general recommender"):
        top_items(*arguments, 5)
