"""Interactions: order of time, labels, repeats, filters, columns, and files with faults."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from folders import AT_WORK, BY_TIME, Prepared, pairs_of, prepare, tiny_content
from folders import workplace as workplace
from recbole.config import Config
from recbole.data import create_dataset

from recbole_missing import MODELS
from recbole_missing.data.atomic_files import AtomicFile

pytestmark = AT_WORK

N_USERS, N_EACH = 40, 8
LEAVE_TWO = {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": "full"}
IN_TIME = {"load_col": {"inter": ["user_id", "item_id", "timestamp"]}, "eval_args": LEAVE_TWO}
MINUTE = 60_000  # milliseconds
NOW = 1_600_000_000_000  # milliseconds since 1970, 13 digits


@pytest.fixture
def write(tmp_path):
    """Write files of a data set named ``few``; give the settings of a run on it."""

    def write_files(**files):
        folder = tmp_path / "few"
        folder.mkdir(exist_ok=True)
        for suffix, text in files.items():
            path = folder / f"few.{suffix.replace('_', '.')}"
            path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return {
            "data_path": str(tmp_path), "checkpoint_dir": str(tmp_path / "saved"),
            "dataset": "few", "gpu_id": "", "topk": [3], "valid_metric": "Recall@3",
            "metrics": ["Recall"], "show_progress": False, "plugin_defaults": True, "epochs": 1,
            "embedding_size": 4, "train_batch_size": 64,
        }  # fmt: skip

    return write_files


@pytest.fixture
def said(caplog):
    """What was logged at the level of warnings and above."""
    caplog.set_level(logging.INFO)
    return lambda level="WARNING": [r.message for r in caplog.records if r.levelname == level]


def lines(header: str, rows) -> str:
    return "\n".join([header, *("\t".join(map(str, row)) for row in rows)]) + "\n"


HEADER = "user_id:token\titem_id:token\ttimestamp:float"
PAIRS = "user_id:token\titem_id:token"


def shuffled_times(step: int, start: int) -> pd.DataFrame:
    """Interactions of each user ``step`` apart, in a random order of lines."""
    generator = np.random.default_rng(0)
    table = pd.DataFrame(
        [
            (f"u{user}", f"i{(3 * user + place) % 20}", start + (user + place * N_USERS) * step)
            for user in range(N_USERS)
            for place in range(N_EACH)
        ],
        columns=["user", "item", "time"],
    )
    return table.sample(frac=1, random_state=generator.integers(100))


def plain(rows) -> str:
    return lines(PAIRS, rows)


def many(n_users: int = 10, n_each: int = 6) -> list[tuple[str, str]]:
    return [(f"u{u}", f"i{(u + k) % 12}") for u in range(n_users) for k in range(n_each)]


def splits_of(run: Prepared) -> list[set[tuple[str, str]]]:
    return [pairs_of(loader._dataset) for loader in (run.train, run.valid, run.test)]


def refused(settings, model="BPR", **changes) -> str:
    with pytest.raises(ValueError) as caught:
        prepare(model, settings, **changes)
    message = str(caught.value)
    assert "\n" not in message and message.endswith("."), message
    return message


# -------------------------------------------------------------------------------- order of time


@pytest.mark.parametrize(
    ("step", "start"),
    [
        (MINUTE // N_USERS, NOW),  # a minute between two interactions of a user
        (1, NOW),
        (1, NOW // 1000),
        (1, NOW * 1000),
        (1, NOW * 1_000_000),  # nanoseconds, beyond what float64 tells apart
    ],
)
@pytest.mark.parametrize("normalize_all", [None, True])
def test_the_newest_item_of_a_user_is_the_test_item(write, step, start, normalize_all):
    table = shuffled_times(step, start)
    settings = write(inter=lines(HEADER, table.to_numpy()))
    run = prepare("BPR", settings, **IN_TIME, normalize_all=normalize_all)
    ordered = table.sort_values("time").groupby("user")["item"].apply(list)
    train, valid, test = splits_of(run)
    assert test == {(user, items[-1]) for user, items in ordered.items()}
    assert valid == {(user, items[-2]) for user, items in ordered.items()}
    assert train == {(user, item) for user, items in ordered.items() for item in items[:-2]}


@pytest.mark.parametrize(
    "form",
    [
        "1700000000{:09d}.0",  # what pandas writes of nanoseconds
        "1700000000.{:09d}",  # seconds
        "+1700000000{:09d}",
        "9223372036{:09d}",  # beyond 2**63
        "1700000000123{:09d}",  # 22 digits
        "-9999999999{:09d}",
    ],
)
def test_times_that_float64_does_not_tell_apart(write, form):
    table = shuffled_times(1, 854_775_900)
    times = table["time"].map(form.format)
    step = -1 if form.startswith("-") else 1
    settings = write(inter=lines(HEADER, table.assign(time=times).to_numpy()))
    test = splits_of(prepare("BPR", settings, **IN_TIME))[2]
    newest = table.assign(time=step * table["time"]).sort_values("time").groupby("user")["item"]
    assert test == set(newest.last().items())
    assert times.astype(np.float64).nunique() < len(times)


def test_times_that_float64_tells_apart_stay_as_read(tmp_path):
    path = tmp_path / "a.inter"
    path.write_text("t:float\n1700000000.25\n1700000000.123456\n5\n")
    frame = pd.DataFrame({"t": [1700000000.25, 1700000000.123456, 5.0]})
    file = AtomicFile(path, ["t:float"], "\t", "utf-8")
    assert file.exact(frame, "t") is frame["t"]


def test_ids_follow_the_file_and_not_the_order_of_time(write):
    """Else the identity of stored runs would change."""
    table = shuffled_times(MINUTE, NOW)
    run = prepare("BPR", write(inter=lines(HEADER, table.to_numpy())), **IN_TIME)
    assert run.dataset.field2id_token["item_id"].tolist() == ["[PAD]", *table["item"].unique()]


def test_interactions_at_one_time_keep_the_order_of_the_file(write):
    generator = np.random.default_rng(1)
    rows = [(f"u{u}", f"i{i}", NOW) for i in generator.permutation(30) for u in range(20) if i != u]
    newest = {user: item for user, item, _ in rows}
    run = prepare("BPR", write(inter=lines(HEADER, rows)), **IN_TIME)
    assert splits_of(run)[2] == set(newest.items())


@pytest.mark.parametrize("keep", ["first", "last"])
def test_duplicates_are_removed_by_exact_time(write, keep):
    generator = np.random.default_rng(2)
    rows = [(u, i, NOW + int(t)) for u, i in many() for t in generator.permutation(5)]
    rows = [rows[place] for place in generator.permutation(len(rows))]
    columns = {"inter": ["user_id", "item_id", "timestamp", "rating"]}
    coded = [(*row, row[2] - NOW) for row in rows]
    text = lines(f"{HEADER}\trating:float", coded)
    run = prepare(
        "BPR", write(inter=text), load_col=columns, rm_dup_inter=keep, eval_args=LEAVE_TWO
    )
    for loader in (run.train, run.valid, run.test):
        assert set(loader._dataset.inter_feat["rating"].tolist()) == {0 if keep == "first" else 4}


@pytest.mark.parametrize("keep", ["first", "last"])
def test_duplicates_at_one_time_are_chosen_by_the_order_of_the_file(write, keep):
    rows = [(u, i, NOW, place) for place in range(30) for u, i in many()]
    columns = {"inter": ["user_id", "item_id", "timestamp", "rating"]}
    settings = write(inter=lines(f"{HEADER}\trating:float", rows))
    run = prepare("BPR", settings, load_col=columns, rm_dup_inter=keep)
    ratings = run.train._dataset.inter_feat["rating"].tolist()
    assert set(ratings) == {0 if keep == "first" else 29}


def test_an_interval_of_times_is_exact(write):
    rows = [(u, i, NOW + place) for place, (u, i) in enumerate(many())]
    settings = write(inter=lines(HEADER, rows))
    interval = {"timestamp": f"[{NOW + 10},{NOW + 39}]"}
    run = prepare("BPR", settings, **{**IN_TIME, "val_interval": interval})
    assert set.union(*splits_of(run)) == {row[:2] for row in rows[10:40]}


def by_global_time(table: pd.DataFrame, shares: list[float]) -> list[set[tuple[str, str]]]:
    """A plain reading of RecBole's TS: late ones are test, the rest of each user is cut."""
    times = np.sort(table["time"].to_numpy())
    bound = times[int(len(times) * (1 - shares[2]) - 1)]
    parts: list[set[tuple[str, str]]] = [set(), set(), set()]
    for user, own in table.sort_values("time").groupby("user"):
        early = own[own["time"] <= bound]["item"].tolist()
        cut = int(len(early) * shares[0] / (1 - shares[2]))
        late = own[own["time"] > bound]["item"].tolist()
        for part, items in zip(parts, (early[:cut], early[cut:], late)):
            part |= {(user, item) for item in items}
    return parts


@pytest.mark.parametrize("start", [0, NOW])
def test_a_split_at_a_global_time_is_exact(write, start):
    """At ``start`` 0 float32 is exact too, and RecBole's own split gives the same."""
    table = shuffled_times(1, start)
    shares = [0.7, 0.15, 0.15]
    by_time = {**LEAVE_TWO, "split": {"TS": shares}}
    settings = write(inter=lines(HEADER, table.to_numpy()))
    run = prepare("BPR", settings, **{**IN_TIME, "eval_args": by_time})
    assert splits_of(run) == by_global_time(table, shares)
    if start == 0:
        theirs = prepare(
            "BPR", settings, **{**IN_TIME, "eval_args": by_time, "plugin_defaults": False}
        )
        assert splits_of(theirs) == splits_of(run)
        ours, recboles = (one.train._dataset.inter_feat for one in (run, theirs))
        assert all((ours[name] == recboles[name]).all() for name in ("user_id", "item_id"))
    message = refused(settings, **{**IN_TIME, "eval_args": {**by_time, "order": "RO"}})
    assert message.startswith("eval_args: split TS must come with order TO, got RO;")


def test_times_that_float32_holds_give_recboles_own_split(write):
    table = shuffled_times(1, 0)
    settings = write(inter=lines(HEADER, table.to_numpy()))
    ours, theirs = (
        prepare("BPR", settings, **IN_TIME, plugin_defaults=plugin) for plugin in (True, False)
    )
    for name in ("train", "valid", "test"):
        one, other = (getattr(run, name)._dataset.inter_feat for run in (ours, theirs))
        assert all((one[field] == other[field]).all() for field in one.columns)


@pytest.mark.parametrize("bad", ["x", "2020-01-01", "", "nan", "inf"])
def test_a_time_that_is_no_number_is_refused(write, bad):
    rows = [(u, i, NOW + place) for place, (u, i) in enumerate(many())]
    rows[4] = (*rows[4][:2], bad)
    message = refused(write(inter=lines(HEADER, rows)), **IN_TIME)
    assert "few.inter: timestamp must be a" in message and f"got {bad!r} in line 6" in message


def test_times_that_are_tokens_are_refused(write):
    rows = [(u, i, f"day {place}") for place, (u, i) in enumerate(many())]
    settings = write(inter=lines(HEADER.replace("timestamp:float", "timestamp:token"), rows))
    message = refused(settings, **IN_TIME)
    assert "timestamp must be numbers, `timestamp:float`" in message and "'day 0'" in message


def test_order_of_time_needs_a_loaded_column(write):
    rows = [(u, i, place) for place, (u, i) in enumerate(many())]
    settings = write(inter=lines(HEADER, rows))
    ids = {"inter": ["user_id", "item_id"]}
    assert refused(settings, load_col=ids, eval_args=LEAVE_TWO) == (
        "eval_args: order TO needs the times of interactions, TIME_FIELD 'timestamp', got the "
        "columns ['user_id', 'item_id'] of ['user_id', 'item_id', 'timestamp'] in few.inter; add "
        "it to load_col: {inter: [user_id, item_id, timestamp]}."
    )
    message = refused(settings, load_col=None, eval_args=LEAVE_TWO, TIME_FIELD="date")
    assert "['user_id', 'item_id', 'timestamp']; set TIME_FIELD to one of them" in message


# --------------------------------------------------------------------------- labels and repeats

RATED = f"{PAIRS}\trating:float"
RATINGS = {"load_col": {"inter": ["user_id", "item_id", "rating"]}}


def rated() -> list[tuple[str, str, int]]:
    return [(u, i, 1 + place % 5) for place, (u, i) in enumerate(many())]


def test_a_threshold_that_leaves_disliked_pairs_is_refused(write):
    settings = write(inter=lines(RATED, rated()))
    message = refused(settings, **RATINGS, threshold={"rating": 4})
    assert message == (
        "threshold: every interaction must be a positive one, got 36 of 60 with rating below 4, "
        "which RecBole would train on and count as hits all the same; set val_interval: "
        '{rating: "[4,inf)"} instead of threshold.'
    )
    run = prepare("BPR", settings, **RATINGS, val_interval={"rating": "[4,inf)"})
    assert set.union(*splits_of(run)) == {(u, i) for u, i, rating in rated() if rating >= 4}
    prepare("BPR", settings, **RATINGS, threshold={"rating": 1})
    for wrong in ({"stars": 4}, {"rating": 4, "stars": 4}, 4):
        assert refused(settings, **RATINGS, threshold=wrong).startswith("threshold: must give one")


@pytest.mark.parametrize("kind", ["float", "token"])
def test_a_column_of_labels_is_judged_too(write, kind):
    rows = [(u, i, int(rating >= 4)) for u, i, rating in rated()]
    settings = write(inter=lines(f"{PAIRS}\tlabel:{kind}", rows))
    columns = {"load_col": {"inter": ["user_id", "item_id", "label"]}}
    message = refused(settings, **columns)
    assert message.startswith("label: every interaction must be a positive one, got 36 of 60 with")
    keep = {"label": "(0,inf)" if kind == "float" else ["1"]}
    run = prepare("BPR", settings, **columns, val_interval=keep)
    assert sum(map(len, splits_of(run))) == 24
    prepare("BPR", settings)  # the column is not loaded


@pytest.mark.parametrize("kind", ["float", "token"])
def test_interactions_without_a_label_are_counted(write, kind):
    """RecBole would give them the mean, which is more than 0."""
    rows = [(u, i, 1 if rating >= 4 else "") for u, i, rating in rated()]
    settings = write(inter=lines(f"{PAIRS}\tlabel:{kind}", rows))
    columns = {"load_col": {"inter": ["user_id", "item_id", "label"]}}
    message = refused(settings, **columns)
    assert message.startswith(
        "label: every interaction must have a label, got 36 empty cells in 60 rows"
    )
    keep = {"label": "(-inf,inf)" if kind == "float" else ["1"]}
    run = prepare("BPR", settings, **columns, val_interval=keep)
    assert sum(map(len, splits_of(run))) == 24


def test_interactions_without_the_value_of_a_threshold_are_counted(write):
    rows = [(u, i, rating if rating >= 4 else "") for u, i, rating in rated()]
    settings = write(inter=lines(RATED, rows))
    message = refused(settings, **RATINGS, threshold={"rating": 4})
    assert message.startswith(
        "threshold: every interaction must have a rating, got 36 empty cells in 60 rows"
    )
    prepare("BPR", settings, **RATINGS)  # nothing reads the ratings


OF_LABELS = {
    "load_col": {"inter": ["user_id", "item_id", "label"]},
    "eval_args": {"split": {"RS": [8, 1, 1]}, "order": "RO", "mode": "labeled"},
    "metrics": ["AUC"],
    "valid_metric": "AUC",
    "train_neg_sample_args": None,
}


@pytest.mark.parametrize("model", ["Pop", "ItemKNN", "EASE", "MultiVAE", "ENMF", "NeuMF"])
def test_labels_are_judged_unless_the_model_learns_from_them(write, model):
    rows = [(u, i, int(rating >= 4)) for u, i, rating in rated()]
    settings = write(inter=lines(f"{PAIRS}\tlabel:float", rows))
    if model == "NeuMF":
        prepare(model, settings, **OF_LABELS)
        return
    message = refused(settings, model, **OF_LABELS)
    assert f"got 36 of 60 with label 0, which {model} would train on as positive" in message
    none = {**OF_LABELS, "train_neg_sample_args": {"distribution": "none"}}
    assert refused(settings, model, **none) == message


@pytest.mark.parametrize("model", ["BPR", "LightGCN"])
def test_a_model_of_pairs_without_negatives_is_refused(write, model):
    message = refused(write(inter=plain(many())), model, train_neg_sample_args=None)
    assert message.startswith(f"{model}: train_neg_sample_args must sample negatives, because")


def test_no_negatives_may_be_said_in_two_ways(write):
    settings = write(inter=plain(many()))
    for none in (None, {"distribution": "none"}, {"distribution": None}):
        config = prepare("Pop", settings, train_neg_sample_args=none).config
        assert config["train_neg_sample_args"]["distribution"] == "none"


THREE = {"benchmark_filename": ["train", "valid", "test"]}


def in_three(train, valid, test) -> dict[str, str]:
    return {"train_inter": plain(train), "valid_inter": plain(valid), "test_inter": plain(test)}


def test_pairs_in_two_splits_are_refused(write):
    pairs = many()
    settings = write(**in_three(pairs[:40], pairs[40:50], [*pairs[50:], *pairs[:30]]))
    message = refused(settings, **THREE)
    assert message == (
        "data set 'few': a user and an item must meet in one split only, got 30 of 40 test "
        "interactions that are in training too; remove them from the files, or set repeatable: "
        "True if users come back to the same items."
    )
    message = refused(settings, **THREE, rm_dup_inter="first")
    assert message.startswith("rm_dup_inter: must be empty with benchmark_filename, whose files")
    assert "that would leave out 30 of 90 interactions" in message
    run = prepare("BPR", settings, **THREE, repeatable=True)
    assert len(run.test._dataset.inter_feat) == 40
    message = refused(write(**in_three(pairs[:40], pairs[35:50], pairs[48:])), **THREE)
    assert "5 of 15 validation interactions that are in training too and 2 of 12 test" in message
    settings = write(inter=plain(many() * 3))
    assert "set rm_dup_inter: first, or set repeatable" in refused(settings)
    assert sum(map(len, splits_of(prepare("BPR", settings, rm_dup_inter="first")))) == 60


def test_repeats_within_a_split_are_counted(write, said):
    pairs = many()
    settings = write(**in_three(pairs[:40] + pairs[:3], pairs[40:50], pairs[50:] + pairs[50:51]))
    prepare("BPR", settings, **THREE)
    (message,) = [one for one in said() if "repeat" in one]
    assert "4 interactions repeat a pair" in message
    assert "(training 3, validation 0, test 1)" in message


# --------------------------------------------------------------------------------------- filters


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        ({"item_inter_num_interval": "[5,inf)"}, "item_inter_num_interval"),
        ({"user_inter_num_interval": "[7,inf)"}, "user_inter_num_interval"),
        ({"val_interval": {"item_id": ["i1", "i2"]}}, "val_interval"),
    ],
)
def test_filters_that_benchmark_files_would_escape_are_refused(write, filters, names):
    pairs = many()
    settings = write(**in_three(pairs[:40], pairs[40:50], pairs[50:]), inter=plain(pairs))
    message = refused(settings, **THREE, **filters)
    assert message.startswith(f"{names}: must be empty with benchmark_filename, whose files")
    kept = 0
    try:
        kept = len(create_dataset(Config("BPR", config_dict={**settings, **filters})).inter_feat)
    except ValueError as error:
        assert "must have rows, got none after the filters" in str(error)
    assert f"got filters that would leave out {60 - kept} of 60 interactions" in message


def test_filters_that_would_leave_out_nothing_are_no_fault(write):
    pairs = many()
    settings = write(**in_three(pairs[:40], pairs[40:50], pairs[50:]))
    everybody = {"user_id": [f"u{n}" for n in range(10)]}
    filters = {"user_inter_num_interval": "[6,inf)", "val_interval": everybody}
    assert sum(map(len, splits_of(prepare("BPR", settings, **THREE, **filters)))) == 60


@pytest.mark.parametrize("wrong", [5, "5,inf)", "[5,inf", "[5;inf)", "[9,5]", "[a,b]", [5, 9, 2]])
@pytest.mark.parametrize("key", ["user_inter_num_interval", "item_inter_num_interval"])
def test_an_interval_is_refused_with_the_right_form(write, key, wrong):
    message = refused(write(inter=plain(many())), **{key: wrong})
    assert message.startswith(f'{key}: must be an interval, such as "[5,inf)" for 5 or more')


def test_intervals_of_values_name_columns_that_are_read(write):
    settings = write(inter=lines(RATED, rated()))
    message = refused(settings, val_interval={"rating": "[4,inf)"})
    assert message.startswith("val_interval: Unknown column 'rating'.")
    assert message.endswith("add it to load_col.")
    assert "'ratings'. Did you mean 'rating'" in refused(
        settings, **RATINGS, val_interval={"ratings": "[4,inf)"}
    )
    message = refused(settings, **RATINGS, val_interval={"rating": "4,inf)"})
    assert message.startswith("val_interval: rating: must be an interval")
    for wrong in ([1, 2], "i1"):
        message = refused(settings, val_interval={"item_id": wrong})
        assert message.startswith("val_interval: item_id holds tokens and must have a list")
    assert refused(settings, val_interval="[4,inf)").startswith("val_interval: must give columns")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"unused_col": {"inter": ["item_id"]}}, "unused_col: must not name users and items, got "),
        ({"ITEM_ID_FIELD": "user_id"}, "USER_ID_FIELD, ITEM_ID_FIELD: must be two columns, got "),
        (
            {"discretization": {"rating": {"method": "LD"}}},
            "discretization: every column must be read and be in numerical_features, got 'rating'",
        ),
    ],
)
def test_columns_in_a_role_that_they_cannot_have(write, changes, expected):
    settings = write(inter=lines(RATED, rated()))
    assert refused(settings, **{**RATINGS, **changes}).startswith(expected)


def test_filters_that_leave_nothing_name_themselves(write):
    settings = write(inter=lines(RATED, rated()))
    message = refused(settings, **RATINGS, val_interval={"rating": "[9,inf)"})
    assert "inter table must have rows, got none after the filters {'val_interval':" in message


@pytest.mark.parametrize("wrong", [False, True, "newest"])
def test_a_choice_of_duplicates_is_first_or_last(write, wrong):
    message = refused(write(inter=plain(many())), rm_dup_inter=wrong)
    assert message.startswith("rm_dup_inter: must be first or last, or empty, got")


def test_interactions_of_items_without_a_row_are_counted(write, said):
    items = lines("item_id:token\tname:token", [(f"i{n}", "x") for n in range(10)])
    settings = write(inter=plain(many()), item=items)
    prepare("BPR", settings, load_col={"inter": ["user_id", "item_id"], "item": ["item_id"]})
    (message,) = [one for one in said() if one.startswith("filter_inter_by_user_or_item")]
    lost = sum(item in ("i10", "i11") for _, item in many())
    assert f": {lost} of 60 interactions are left out" in message


# --------------------------------------------------------------------------------------- columns


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"load_col": ["user_id", "item_id"]}, "load_col: must give each file a list of columns"),
        ({"load_col": {"inter": "user_id"}}, "load_col: must give each file a list of columns"),
        ({"load_col": {"inter": ["user_id"]}}, "load_col: must name 'item_id' under inter"),
        ({"load_col": {"item": ["item_id"]}}, "load_col: must name 'user_id' under inter"),
        ({"load_col": {}}, "load_col: must name 'user_id' under inter"),
        (
            {"load_col": None, "unload_col": {"inter": ["item_id"]}},
            "unload_col: must keep 'item_id' under inter",
        ),
        ({"unload_col": {"inter": ["rating"]}}, "unload_col: must not name files that load_col"),
        ({"load_col": None, "unload_col": ["rating"]}, "unload_col: must give each file"),
    ],
)
def test_columns_that_are_not_read_right(write, columns, expected):
    message = refused(write(inter=lines(RATED, rated())), **columns)
    assert message.startswith(expected), message


def test_columns_that_may_be_read(write, said):
    settings = write(inter=lines(RATED, rated()))
    for columns in (
        {"load_col": {"inter": "*"}},
        {"load_col": None},
        {"load_col": None, "unload_col": {"inter": ["rating"]}},
        {"load_col": {"inter": ["user_id", "item_id", "ratng"]}},
    ):
        assert sum(map(len, splits_of(prepare("BPR", settings, **columns)))) == 60
    (message,) = {one for one in said() if one.startswith("load_col")}
    assert message.startswith("load_col: ['ratng'] are not in few.inter, whose columns are")


# ----------------------------------------------------------------------------- files with faults


@pytest.mark.parametrize("separator", [",", ";", "::", "|"])
def test_a_wrong_separator_is_named(write, separator):
    settings = write(inter=plain(many()).replace("\t", separator))
    message = refused(settings)
    assert "cells must be separated by field_separator '\\t', got a first line without" in message
    assert f"{separator!r} occurs there" in message
    if separator != "|":  # RecBole takes several signs for a pattern, and | is one
        assert sum(map(len, splits_of(prepare("BPR", settings, field_separator=separator)))) == 60


def test_a_byte_order_mark_is_skipped(write):
    mark = b"\xef\xbb\xbf"
    items = lines("item_id:token\tname:token", [(f"i{n}", "x") for n in range(12)])
    users = lines("user_id:token\tage:float", [(f"u{n}", 7) for n in range(10)])
    columns = {"load_col": None}
    bare = prepare("BPR", write(inter=plain(many()), item=items, user=users), **columns)
    marked = {
        name: mark + text.encode()
        for name, text in {"inter": plain(many()), "item": items, "user": users}.items()
    }
    run = prepare("BPR", write(**marked), **columns)
    assert splits_of(run) == splits_of(bare)
    assert run.dataset.identity == bare.dataset.identity
    assert run.config["encoding"] is None, "the setting is as it was"


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_files_may_have_another_encoding(write, encoding):
    text = plain([(user, f"caf\xe9 {item}") for user, item in many()])
    settings = write(inter=text.encode(encoding))
    run = prepare("BPR", settings, encoding=encoding)
    assert run.dataset.field2id_token["item_id"][1] == "caf\xe9 i0"
    message = refused(settings)
    assert "few.inter: must be UTF-8 text, got byte" in message and "or set encoding" in message
    for odd in ("", "s"):  # read as UTF-16 it has an even or an odd number of bytes
        settings = write(inter=plain(many()).replace("user_id", f"user_id{odd}", 1))
        assert "few.inter: " in refused(settings, encoding="utf-16")


def spoilt(place: int, line: str) -> str:
    """The plain file, with another line at a place (the header is line 1)."""
    rows = lines(RATED, rated()).splitlines()
    return "\n".join([*rows[: place - 1], line, *rows[place:]]) + "\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"", "the first line must be a header of `field:type`, got an empty line"),
        (f"{PAIRS}\n", "inter table must have rows, got none"),
        (plain(many()).replace(":token", ""), "the first line must be a header of"),
        (spoilt(1, "user_id:token\titem_id:word\trating:float"), "the type of item_id must be"),
        (spoilt(1, "user_id:token\titem_id:float\trating:float"), "item_id must be token, got"),
        (spoilt(1, "user_id:token\titem_id:token\trating:int"), "the type of rating must be token"),
        (spoilt(1, "user:token\titem_id:token\trating:float"), "header of `field:type` with"),
        (spoilt(1, f"{PAIRS}\titem_id:float"), "the type of item_id must be token"),
        (spoilt(1, f"{PAIRS}\tuser_id:token"), "got 'user_id' 2 times"),
        (spoilt(5, "u0\ti3"), "every row must have 3 cells as the header, got 2 in line 5"),
        (spoilt(5, "i3\t3"), "every row must have 3 cells as the header, got 2 in line 5"),
        (spoilt(5, "u0"), "every row must have 3 cells as the header, got 1 in line 5"),
        (spoilt(5, "u0\ti3\t3\t4"), "every row must have 3 cells as the header, got 4 in line 5"),
        (spoilt(2, "u0\ti3\t3\t"), "every row must have 3 cells as the header, got 4 in line 2"),
        (spoilt(5, "\ti3\t3"), "user_id must be a token, got '' in line 5"),
        (spoilt(5, "u0\t\t3"), "item_id must be a token, got '' in line 5"),
        (spoilt(5, "u0\tNA\t3"), "item_id must be a token, got 'NA' in line 5"),
        (spoilt(5, "\n   \n\nnull\ti3\t3"), "user_id must be a token, got 'null' in line 8"),
        (spoilt(5, "u0\ti3\tgood"), "rating must be a number, got 'good' in line 5 (1 of 60"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("benchmark", [False, True])
def test_faults_name_file_and_line(write, text, expected, benchmark):
    files, settings = {"inter": text}, {"load_col": None}
    if benchmark:
        halves = (lines(RATED, half) for half in (rated()[:30], rated()[30:]))
        files = {"train_inter": text, **dict(zip(("valid_inter", "test_inter"), halves))}
        settings.update(THREE)
        if expected.startswith("inter table"):
            expected = "the training split must not be empty, got 0 of 60"
    message = refused(write(**files), **settings)
    assert expected in message, message
    assert ("few.train.inter: " if benchmark else "few.inter: ") in message or "got " in message


def test_a_row_without_an_item_in_its_own_table_is_refused(write):
    items = lines("item_id:token\tname:token", [*((f"i{n}", "x") for n in range(12)), ("", "y")])
    settings = write(inter=plain(many()), item=items)
    message = refused(settings, load_col=None)
    assert "few.item: item_id must be a token, got '' in line 14" in message
    prepare("BPR", settings)  # the table is not read


def test_quotes_and_blank_lines_mean_what_they_mean_to_recbole(write):
    rows = [(f'"{user}"', f'"{item}"') for user, item in many()]
    quoted = plain(rows).replace("\n", "\n\n", 5)
    assert splits_of(prepare("BPR", write(inter=quoted))) == splits_of(
        prepare("BPR", write(inter=plain(many())))
    )


def test_an_absent_folder_is_named_and_nothing_is_downloaded(write, monkeypatch):
    def download(*args):
        raise AssertionError("the net was asked")

    monkeypatch.setattr("urllib.request.urlopen", download)
    settings = write(inter=plain(many()))
    message = refused(settings, dataset="ml-1m")
    assert "ml-1m: must be the folder of the data set 'ml-1m', got no such folder" in message
    assert "https://" in message
    assert "https://" not in refused(settings, dataset="fwe")


@pytest.mark.parametrize("wrong", ["train", ["train", "test"], [["a"], "b", "c"]])
def test_benchmark_files_are_three(write, wrong):
    message = refused(write(inter=plain(many())), benchmark_filename=wrong)
    assert message.startswith("benchmark_filename: must be a list of three names"), message


def test_millions_of_rows_are_checked_in_seconds(tmp_path, write):
    """The bound is loose; reading with RecBole takes many times as long."""
    from time import perf_counter

    path = tmp_path / "many.inter"
    row = "u123456\ti1234567\t1600000000000\n"
    path.write_text(f"{HEADER}\n" + row * 1_000_000)
    file = AtomicFile(path, HEADER.split("\t"), "\t", "utf-8")
    start = perf_counter()
    assert file.lines()[-1] == 1_000_001
    assert perf_counter() - start < 10


# ------------------------------------------------------------------------------ without training


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory):
    """The tiny data set, in which two users have no training interaction."""
    root: Path = tmp_path_factory.mktemp("untrained")
    content = tiny_content()
    cold = sorted({user for user, _ in content.train})[:2]
    content.train = [(user, item) for user, item in content.train if user not in cold]
    return content.write(root)


def test_users_without_training_are_counted_once(untrained, said):
    run = prepare("VBPR", untrained, imputation="zeros")
    (message,) = [one for one in said() if "no training interaction" in one]
    assert message.startswith("data set 'tiny': 2 of 40 users of validation and test have no")
    (message,) = [one for one in said("INFO") if "no training interaction" in one]
    assert message.startswith("data set 'tiny': 1 of ")
    assert len(run.test.uid_list) == 40, "they are tested"


@pytest.mark.parametrize("model", [*MODELS, "BPR", "LightGCN", "Pop"])
def test_no_model_fails_on_users_without_training(untrained, model):
    changes = {"imputation": "zeros", "plugin_defaults": True}
    run = prepare(model, untrained, **changes)
    trainer = run.trainer()
    trainer.fit(run.train, run.valid, saved=False)
    result = trainer.evaluate(run.test, load_best_model=False)
    assert all(np.isfinite(value) for value in result.values())
    assert np.isfinite(run.scores(trainer.model)[:, 1:]).all()


def test_by_time_of_the_tiny_data_set_is_as_before(tmp_path):
    """Its times are small: RecBole's own split, its ids and its order."""
    settings = tiny_content().write(tmp_path)
    settings = {key: value for key, value in settings.items() if key != "modalities"}
    ours, theirs = (
        prepare("BPR", settings, **BY_TIME, plugin_defaults=plugin) for plugin in (True, False)
    )
    assert ours.config["data_identity"] == theirs.config["data_identity"]
