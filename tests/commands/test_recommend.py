"""Recommendation lists for any user: a slow ranking, what is hidden, tokens in and out."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from folders import AT_WORK, COLD, N_ITEMS, N_USERS, Toy, pairs_of, prepare, refused, tiny_content
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


def slow_lists(run, network, splits, k, only=None):
    """Token -> tokens of the best items, or of the best ``only``, one pair at a time."""
    users, items = (run.dataset.field2id_token[key].tolist() for key in ("user_id", "item_id"))
    seen = {pair for split in splits for pair in pairs_of(getattr(run, split)._dataset)}
    network.eval()
    lists = {}
    for user in range(1, len(users)):
        pairs = {"user_id": torch.full((len(items),), user), "item_id": torch.arange(len(items))}
        with torch.no_grad():
            scores = network.predict(pairs).tolist()
        ranked = [i for i in range(1, len(items)) if only is None or items[i] in only]
        candidates = [i for i in ranked if (users[user], items[i]) not in seen]
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


# --------------------------------------------------------------------------- some items alone


NEVER_BOUGHT = ["fresh1", "fresh2"]
WITH_ITEMS = {"load_col": {"inter": ["user_id", "item_id"], "item": ["item_id"]}}


@pytest.fixture
def catalogue(tmp_path):
    """Settings of a data set whose .item file has two items that no interaction names."""
    content = tiny_content()
    for token in NEVER_BOUGHT:
        content.titles[token], content.tags[token] = "red moon", "a b"
    return {**content.write(tmp_path), **WITH_ITEMS}


def tokens_of(run, items):
    return set(run.dataset.field2id_token["item_id"][items.numpy()].tolist())


@pytest.mark.parametrize("new_items", ["none", "stratified"])
def test_new_items_alone(catalogue, capsys, new_items):
    mask = {"missing_protocol": "stratified", "missing_ratio": 0.5}
    run, trainer = train("VBPR", catalogue, new_items=new_items, **mask)
    file = trainer.saved_model_file
    trained_on = {item for _, item in pairs_of(run.train._dataset)}
    everything = set(run.dataset.field2id_token["item_id"][1:])
    new = everything - trained_on
    assert {*NEVER_BOUGHT, COLD} <= new
    moved = tokens_of(run, run.dataset.new_items)
    assert moved == new - {*NEVER_BOUGHT, COLD} and bool(moved) == (new_items != "none")
    splits = ("train", "valid")
    for word, items in (("new", new), ("warm", trained_on)):
        lists, _ = recommend(capsys, file, "--only", word, "--top-k", 3)
        assert lists == slow_lists(run, trainer.model, splits, 3, items)
    groups = run.dataset.item_groups()  # those of the tables
    if moved:  # items that nobody trained on are no new items of the tables, but warm ones
        assert tokens_of(run, groups["new"]) == moved
        assert tokens_of(run, groups["warm"]) == everything - moved
    lacking = tokens_of(run, groups["2 missing"])
    lists, _ = recommend(capsys, file, "--only", "2 missing", "--top-k", 3)
    assert lists == slow_lists(run, trainer.model, splits, 3, lacking)


def test_items_that_nobody_bought_may_be_the_new_items(catalogue, capsys, tmp_path):
    (tmp_path / "tiny" / "fresh.txt").write_text("\n".join(NEVER_BOUGHT) + "\n")
    run, trainer = train("VBPR", catalogue, new_items="file", new_items_file="fresh.txt")
    assert tokens_of(run, run.dataset.new_items) == {*NEVER_BOUGHT}
    trainer.evaluate(run.test)
    assert trainer.group_results and "new" not in trainer.group_results, "nobody wants them"
    lists, _ = recommend(capsys, trainer.saved_model_file, "--only", "new")
    new = {*NEVER_BOUGHT, COLD}
    assert lists == slow_lists(run, trainer.model, ("train", "valid"), 10, new)


def test_items_of_a_file_alone(settings, capsys, tmp_path):
    run, trainer = train("VBPR", settings)
    file, chosen = trainer.saved_model_file, tmp_path / "new arrivals.txt"
    chosen.write_text("i3\ni17\ni5\n")
    lists, _ = recommend(capsys, file, "--only", chosen, "--top-k", 2)
    expected = slow_lists(run, trainer.model, ("train", "valid"), 2, {"i3", "i17", "i5"})
    assert lists == {user: items for user, items in expected.items() if items}
    words = (file, *HERE, "--only")
    chosen.write_text("i3\nshoe\n")
    assert "got 1 of 2 unknown tokens such as ['shoe']" in refused(
        capsys, "recommend", *words, chosen
    )
    chosen.write_text("\n")
    assert "must name an item, got none" in refused(capsys, "recommend", *words, chosen)
    message = refused(capsys, "recommend", *words, "news")
    assert "must be a file of item tokens or one of '0 missing', " in message
    assert "'warm', 'new', got 'news'" in message


def test_data_without_new_items_are_refused_with_the_remedy(settings, capsys, tmp_path):
    """A model of RecBole on RecBole's own data set."""
    ours = [key for key in settings if key.startswith(("modalities", "image", "title", "tags"))]
    plain = {key: value for key, value in settings.items() if key not in ours}
    everything = {"benchmark_filename": None, "eval_args": {"split": {"LS": "valid_and_test"}}}
    run, trainer = train("BPR", plain, **everything, item_inter_num_interval="[5,inf)")
    assert type(run.dataset).__name__ == "Dataset"
    message = refused(capsys, "recommend", trainer.saved_model_file, *HERE, "--only", "new")
    assert "--only new needs items without a training interaction, got none in data set" in message
    assert "list the items in tiny.item with load_col: {item: [item_id]} before training" in message


def test_lists_that_end_early_are_said_to(settings, capsys):
    _, trainer = train("VBPR", settings)
    file = trainer.saved_model_file
    cli.main(["recommend", file, *HERE, "--only", "new", "--users", "u1", "u2", "--top-k", "5"])
    out, message = capsys.readouterr()
    assert len(out.splitlines()) == 3
    assert message == (
        "recommend: 2 of 2 lists have fewer than 5 items, the shortest has 1: --only new names 1 "
        "items; --hide train_valid leaves out what a user has met\n"
    )
    cli.main(["recommend", file, *HERE, "--users", "u1", "--top-k", str(N_ITEMS)])
    message = capsys.readouterr().err
    assert f"1 of 1 lists have fewer than {N_ITEMS} items, the shortest has 20: --hide" in message
    cli.main(["recommend", file, *HERE, "--users", "u1", "--top-k", "5"])
    assert capsys.readouterr().err == ""


def test_strangers_get_the_popular_ones_of_the_items_asked_for(settings, capsys, tmp_path):
    run, trainer = train("VBPR", settings)
    words = (trainer.saved_model_file, "--users", "x0", "u1", "--on-unknown", "popular", "--only")
    few = tmp_path / "few.txt"
    few.write_text(f"i3\ni17\n{COLD}\n")
    lists, _ = recommend(capsys, *words, few)
    counts = Counter(item for _, item in pairs_of(run.train._dataset))
    assert lists["x0"] == sorted(["i3", "i17", COLD], key=lambda item: -counts[item])
    assert set(lists["u1"]) <= {"i3", "i17", COLD}
    message = refused(capsys, "recommend", *words, "new", *HERE)
    assert "--on-unknown popular needs items with training interactions, got none" in message


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
