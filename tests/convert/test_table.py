"""Raw tables of interactions and items, with pictures, become data sets that run."""

from __future__ import annotations

import csv
import gzip
import json
import logging
import os
import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from folders import AT_WORK, prepare, refused
from folders import workplace as workplace
from PIL import Image

from recbole_missing import cli
from recbole_missing.convert import raw, times
from recbole_missing.convert.items import Columns, ItemTable
from recbole_missing.convert.purchases import PurchaseTable
from recbole_missing.convert.table import import_table
from recbole_missing.data.files import read_rows

pytestmark = AT_WORK

# Users a to e, items 001 to 006; b buys 001 twice.
BOUGHT = {"a": "001 002 003 004", "b": "001 002 005", "c": "002 003 004 006", "d": "003 005 001"}
ARTICLES = """article,name,description,genre,price
001,Red mug,"holds ""tea"", hot",kitchen|new,3.5
002,Blue mug,"two
lines\tand a tab",kitchen,4
003,,,home|gift shop,
004,Scarf,warm,,7
005,Lamp,,home,8.25
006,Rug,soft,home,9
007,New plate,white,kitchen,2
"""
BASE = ["import", "table", "purchases.csv", "--user", "customer", "--item", "article"]
SHOP = [*BASE, "--name", "shop"]
ITEMS = ["--items", "articles.csv", "--text", "name,description"]
TIMED = [*SHOP, "--time", "when"]


def rows_of_purchases():
    rows, day = [], 1
    for user, items in BOUGHT.items():
        for item in items.split():
            rows.append([user, item, f"2024-01-{day:02d} 10:00", str(day % 5 + 1)])
            day += 1
    return [*rows, ["b", "001", "2024-02-01 10:00", "5"]]


def write_purchases(path, rows=None, separator=",", encoding="utf-8"):
    header = ["customer", "article", "when", "stars"]
    lines = [separator.join(row) for row in [header, *(rows or rows_of_purchases())]]
    path.write_text("".join(f"{line}\n" for line in lines), encoding=encoding)


@pytest.fixture
def shop(tmp_path):
    """The working folder of a test, with both tables and pictures of 001, 004 and 007."""
    write_purchases(tmp_path / "purchases.csv")
    (tmp_path / "articles.csv").write_text(ARTICLES)
    (tmp_path / "photos" / "new").mkdir(parents=True)
    for number, name in enumerate(["001.png", "004.JPG", "new/007.png"]):
        colour = (80 * number, 10, 250 - 80 * number)
        Image.new("RGB", (20, 20), colour).save(tmp_path / "photos" / name)
    return tmp_path


def run(*words):
    cli.main([str(word) for word in words])


def table(path):
    """Cells of an atomic file, header first."""
    return [cells for _, cells in read_rows(path, "\t")]


def settings(name="shop"):
    return yaml.safe_load(Path(f"dataset/{name}/{name}.yaml").read_text(encoding="utf-8"))


# -------------------------------------------------------------------------------- what is written


def test_everything_at_once(shop, capsys):
    run(*TIMED, *ITEMS, "--tags", "genre", "--numbers", "price", "--images", "photos")
    said = capsys.readouterr().out
    for line in [
        "Read purchases.csv: 15 rows",
        "  left out: repeated user and item, the last one kept: 1",
        "  14 interactions of 4 users with 6 items (density 58.3%)",
        "  times: 2024-01-01 10:00 to 2024-02-01 10:00",
        "Read articles.csv: 7 rows",
        "  7 items can be recommended; 1 of them have no interaction",
        "  text: 6 items have it, 1 lack it",
        "  tags: 6 items have it, 1 lack it",
        "  numbers: 6 items have it, 1 lack it",
        "  image: 3 items have it, 4 lack it",
        "Wrote dataset/shop",
        "A first look: recbole-missing describe dataset/shop",
        "Next: recbole-missing run --model=DGMRec --dataset=shop "
        "--config_files=dataset/shop/shop.yaml",
    ]:
        assert line in said.splitlines()
    inter = table(shop / "dataset/shop/shop.inter")
    assert inter[0] == ["user_id:token", "item_id:token", "timestamp:float"]
    assert inter[1] == ["a", "001", "1704103200"]
    assert [row[:2] for row in inter if row[0] == "b"] == [["b", "002"], ["b", "005"], ["b", "001"]]
    assert table(shop / "dataset/shop/shop.item")[:4] == [
        ["item_id:token", "name:token_seq", "description:token_seq", "genre:token_seq",
         "price:float"],
        ["001", "Red mug", 'holds "tea", hot', "kitchen new", "3.5"],
        ["002", "Blue mug", "two\nlines\tand a tab", "kitchen", "4"],
        ["003", "", "", "home gift_shop", ""],
    ]  # fmt: skip
    report = json.loads((shop / "dataset/shop/report.json").read_text())
    assert (report["layout"], report["modalities"]["image"]) == ("table", 3)
    copied = ["images/001.png", "images/004.JPG", "images/007.png"]
    assert sorted(report["files"]) == [*copied, "shop.inter", "shop.item", "shop.yaml"]
    assert (shop / "dataset/shop/images/007.png").read_bytes() == (
        shop / "photos/new/007.png"
    ).read_bytes()


def test_the_settings_run_as_they_are(shop, monkeypatch):
    options = ["--tags", "genre", "--numbers", "price", "--images", "photos"]
    run(*TIMED, *ITEMS, *options)
    written = settings()
    assert written["image_images"] == "images"
    assert written["eval_args"]["order"] == "TO"
    run_ = prepare("VBPR", {**written, "dataset": "shop", "gpu_id": "", "epochs": 1})
    data = run_.dataset
    assert list(data.known) == ["text", "tags", "numbers", "image"]
    tokens = data.field2id_token["item_id"].tolist()
    assert sorted(tokens[1:]) == [f"00{number}" for number in range(1, 8)]
    holes = {name: {t for t, o in zip(tokens, m.observed.tolist()) if not o and t != "[PAD]"}
             for name, m in data.known.items()}  # fmt: skip
    assert holes == {
        "text": {"003"}, "tags": {"004"}, "numbers": {"003"}, "image": {"002", "003", "005", "006"}
    }  # fmt: skip
    scores = run_.scores(run_.network())
    assert scores.shape == (4, 8)


def test_the_next_command_trains_and_tests_on_it(shop, capsys, caplog):
    caplog.set_level(logging.INFO)
    run(*TIMED, *ITEMS, "--images", "photos")
    words = capsys.readouterr().out.rpartition("Next: recbole-missing ")[2].split()
    cli.main([*words, "--epochs=1", "--gpu_id="])
    assert "DGMRec on shop; missing: none; imputation: featprop" in caplog.text


@pytest.mark.parametrize("choice", ["all", "bought"])
def test_items_without_interaction_are_candidates_if_asked(shop, choice):
    run(*TIMED, *ITEMS, "--catalogue", choice)
    data = prepare("BPR", {**settings(), "dataset": "shop", "gpu_id": ""}).dataset
    assert ("007" in data.field2id_token["item_id"]) == (choice == "all")
    assert data.item_num == (8 if choice == "all" else 7)


def test_the_latest_of_each_user_is_the_test(shop):
    run(*TIMED)
    run_ = prepare("BPR", {**settings(), "dataset": "shop", "gpu_id": ""})
    last = {"a": "004", "b": "001", "c": "006", "d": "001"}
    feat, tokens = run_.test._dataset.inter_feat, run_.dataset.field2id_token
    found = zip(feat["user_id"].tolist(), feat["item_id"].tolist())
    assert {tokens["user_id"][u]: tokens["item_id"][i] for u, i in found} == last


@pytest.mark.parametrize(
    ("options", "order", "rule"),
    [
        ([], "TO", {"RS": [0.8, 0.1, 0.1]}),
        (["--split", "last"], "TO", {"LS": "valid_and_test"}),
        (["--split", "random"], "RO", {"RS": [0.8, 0.1, 0.1]}),
    ],
)
def test_splits(shop, options, order, rule):
    run(*TIMED, *options)
    eval_args = settings()["eval_args"]
    assert (eval_args["order"], eval_args["split"]) == (order, rule)
    data = prepare("BPR", {**settings(), "dataset": "shop", "gpu_id": ""})
    assert len(data.test._dataset.inter_feat) == 4


def test_without_times_and_items_it_runs_at_random(shop, capsys):
    run(*SHOP)
    said = capsys.readouterr().out
    assert "times:" not in said and "--model=LightGCN" in said
    assert settings()["eval_args"]["order"] == "RO"
    assert "modalities" not in settings()
    prepare("BPR", {**settings(), "dataset": "shop", "gpu_id": ""})


def test_cut_offs_fit_the_catalogue(shop):
    run(*TIMED, *ITEMS)
    assert settings()["topk"] == [1] and settings()["valid_metric"] == "Recall@1"
    rows = [[f"u{number % 50}", f"i{number}", "5", "1"] for number in range(200)]
    write_purchases(shop / "purchases.csv", rows)
    run(*TIMED, "--force")
    assert settings()["topk"] == [10, 20, 50] and settings()["valid_metric"] == "Recall@20"


def test_a_dry_run_counts_and_writes_nothing(shop, capsys):
    run(*TIMED, *ITEMS, "--images", "photos")
    written = capsys.readouterr().out.splitlines()
    before = {path: path.read_bytes() for path in shop.rglob("*") if path.is_file()}
    run(*TIMED, *ITEMS, "--images", "photos", "--dry-run")
    counted = capsys.readouterr().out.splitlines()
    assert counted[:-1] == written[:-3]
    assert counted[-1] == "Nothing is written. Without --dry-run: dataset/shop"
    assert {path: path.read_bytes() for path in shop.rglob("*") if path.is_file()} == before


def test_modalities_of_any_name(shop):
    run(*TIMED, "--items", "articles.csv", "--text", "title=name", "--text", "about=description")
    assert settings()["modalities"] == ["title", "about"]
    assert settings()["title_columns"] == ["name"]


def test_features_that_exist_already(shop, capsys):
    np.save(shop / "sound.npy", np.arange(12, dtype=np.float32).reshape(4, 3))
    (shop / "sound.ids").write_text("001\n003\n007\n999\n")
    run(*TIMED, *ITEMS, "--matrix", "sound=sound.npy", "--ids", "sound=sound.ids")
    assert "sound: 3 items have it, 4 lack it" in capsys.readouterr().out
    known = prepare("VBPR", {**settings(), "dataset": "shop", "gpu_id": ""}).dataset.known
    assert int(known["sound"].observed.sum()) == 3


def test_a_row_of_nan_is_a_hole(shop, capsys):
    matrix = np.arange(12, dtype=np.float32).reshape(4, 3)
    matrix[1] = np.nan
    np.save(shop / "sound.npy", matrix)
    (shop / "sound.ids").write_text("001\n003\n007\n999\n")
    words = [*TIMED, *ITEMS, "--matrix", "sound=sound.npy", "--ids", "sound=sound.ids"]
    run(*words)
    said = capsys.readouterr().out
    assert "sound: 2 items have it, 5 lack it" in said
    assert "note: sound.npy: 1 rows are NaN; their items have no sound" in said
    known = prepare("VBPR", {**settings(), "dataset": "shop", "gpu_id": ""}).dataset.known
    assert int(known["sound"].observed.sum()) == 2
    np.save(shop / "sound.npy", np.full((4, 3), np.nan))
    assert "sound: some item must have it, got none of 7" in refused(capsys, *words, "--force")
    matrix[0, 1] = np.inf
    np.save(shop / "sound.npy", matrix)
    assert "every number must be finite in float32" in refused(capsys, *words, "--force")


def test_the_item_table_names_the_pictures(shop, capsys):
    articles = pd.read_csv(shop / "articles.csv", dtype=str)
    articles["file"] = ["a.png", "deep/b.JPG", "gone.png", "", "../articles.csv", "", ""]
    articles.to_csv(shop / "articles.csv", index=False)
    (shop / "shots" / "deep").mkdir(parents=True)
    Image.new("RGB", (9, 9), "red").save(shop / "shots" / "a.png")
    Image.new("RGB", (9, 9), "blue").save(shop / "shots" / "deep" / "b.JPG")
    run(*TIMED, *ITEMS, "--images", "shots", "--image-column", "file")
    said = capsys.readouterr().out
    assert "image: 2 items have it, 5 lack it" in said
    assert "2 pictures that the table names are not in shots" in said
    copied = sorted(path.name for path in (shop / "dataset/shop/images").iterdir())
    assert copied == ["001.png", "002.JPG"]
    known = prepare("VBPR", {**settings(), "dataset": "shop", "gpu_id": ""}).dataset.known
    assert int(known["image"].observed.sum()) == 2
    run(*TIMED, *ITEMS, "--images", "shots", "--image-column", "file", "--force")


def test_headers_of_any_name(shop):
    text = ARTICLES.replace("name,description", '"Name: ""short""",item_id')
    (shop / "articles.csv").write_text(text)
    run(*TIMED, "--items", "articles.csv", "--text", 'Name: "short",item_id')
    assert table(shop / "dataset/shop/shop.item")[0] == [
        "item_id:token", "Name_short:token_seq", "item_id_2:token_seq"
    ]  # fmt: skip
    assert settings()["text_columns"] == ["Name_short", "item_id_2"]
    prepare("VBPR", {**settings(), "dataset": "shop", "gpu_id": ""})


def test_an_item_that_the_table_lacks_keeps_its_interactions(shop, capsys):
    rows = [line for line in ARTICLES.splitlines() if not line.startswith("006")]
    (shop / "articles.csv").write_text("\n".join(rows))
    run(*TIMED, *ITEMS)
    said = capsys.readouterr().out
    assert "1 of 6 items with an interaction are not in articles.csv, for example '006'" in said
    data = prepare("BPR", {**settings(), "dataset": "shop", "gpu_id": ""}).dataset
    assert data.inter_num == 14


# ------------------------------------------------------------------------------------------- ids


ODD = ["007", "1.0", "a b", "é", "'q'", "tab\there", "line\nend", 'say "hi"', '"begins', "1e5"]


def test_odd_ids_are_read_back_by_recbole(tmp_path):
    frame = pd.DataFrame({"u": [f"u{i % 6}" for i in range(30)], "i": ODD * 3})
    frame.to_csv(tmp_path / "p.csv", index=False)
    import_table(PurchaseTable(tmp_path / "p.csv", "u", "i"), "odd")
    data = prepare("BPR", {**settings("odd"), "dataset": "odd", "gpu_id": ""}).dataset
    assert set(data.field2id_token["item_id"][1:]) == set(ODD)
    assert data.inter_num == 30


def test_parquet_gives_the_same_as_csv(shop):
    pytest.importorskip("pyarrow", exc_type=ImportError)
    run(*TIMED, *ITEMS, "--rating", "stars")
    expected = [table(shop / f"dataset/shop/shop.{suffix}") for suffix in ("inter", "item")]
    frame = pd.read_csv(shop / "purchases.csv", dtype={"article": str})
    frame["when"] = pd.to_datetime(frame["when"]).dt.tz_localize("UTC")
    frame["stars"] = frame["stars"].astype(float)
    frame.to_parquet(shop / "purchases.parquet")
    pd.read_csv(shop / "articles.csv", dtype=str).to_parquet(shop / "articles.parquet")
    words = [word.replace(".csv", ".parquet") for word in [*TIMED, *ITEMS]]
    run(*words, "--rating", "stars", "--force")
    assert [table(shop / f"dataset/shop/shop.{suffix}") for suffix in ("inter", "item")] == expected


def test_ids_of_parquet_are_whole(tmp_path):
    pytest.importorskip("pyarrow", exc_type=ImportError)
    users = np.repeat([1, 2, 3], 4)
    cells = [10, 20, 30, None, 20, 30, 40, None, 10, 30, 40, None]
    items = pd.array(cells, dtype="Int64")
    frame = pd.DataFrame({"u": users, "i": items, "f": users + 0.5, "n": [["x"]] * 12})
    frame["g"] = frame["i"].astype("float64")
    frame.to_parquet(tmp_path / "p.parquet")
    for column in "ig":
        wanted = PurchaseTable(tmp_path / "p.parquet", "u", column, drop_incomplete=True)
        report = import_table(wanted, "ints", force=True)
        assert report.dropped == {"incomplete": 3}
        assert {row[1] for row in table(tmp_path / "dataset/ints/ints.inter")[1:]} == {
            "10", "20", "30", "40"
        }  # fmt: skip
    for column, kind in {"f": "double", "n": "list<"}.items():
        with pytest.raises(
            ValueError, match=f"'{column}' must hold text or whole numbers, got {kind}"
        ):
            import_table(PurchaseTable(tmp_path / "p.parquet", "u", column), "no")


@pytest.mark.parametrize("content", [b"", b"customer,article\n", None])
def test_a_damaged_parquet_file(shop, content):
    pytest.importorskip("pyarrow", exc_type=ImportError)
    path = shop / "p.parquet"
    pd.DataFrame({"u": list("abc") * 5000, "i": range(15000)}).to_parquet(path)
    path.write_bytes(path.read_bytes()[:-200] if content is None else content)
    with pytest.raises(ValueError, match="p.parquet: must (be a Parquet file|hold a table)"):
        import_table(PurchaseTable(path, "u", "i"), "no")


def test_words_for_an_empty_cell_are_no_ids_in_parquet_either(tmp_path):
    pytest.importorskip("pyarrow", exc_type=ImportError)
    frame = pd.DataFrame({"u": ["a", "NA", "", "b", None, "a"], "i": list("xyzxyz")})
    frame.to_parquet(tmp_path / "p.parquet")
    read = raw.open_table(tmp_path / "p.parquet").read(["u"])["u"]
    assert read.isna().tolist() == [False, True, True, False, True, False]
    assert raw.texts(read).tolist() == ["a", "", "", "b", "", "a"]


def test_parquet_may_hold_no_nul_either(tmp_path):
    pytest.importorskip("pyarrow", exc_type=ImportError)
    pd.DataFrame({"u": ["a\0b", None, "a\0c"]}).to_parquet(tmp_path / "p.parquet")
    with pytest.raises(ValueError, match="column 'u' must hold text, got a NUL character"):
        raw.open_table(tmp_path / "p.parquet").read(["u"])


@pytest.mark.parametrize("suffix", [".tsv", ".csv.gz", ".txt"])
def test_kinds_of_text_files(shop, suffix):
    separator = {".tsv": "\t", ".csv.gz": ",", ".txt": ";"}[suffix]
    write_purchases(shop / "plain", separator=separator, encoding="utf-8-sig")
    content = (shop / "plain").read_bytes().replace(b"\n", b"\r\n")
    path = shop / f"purchases{suffix}"
    path.write_bytes(gzip.compress(content) if suffix == ".csv.gz" else content)
    run(*TIMED)
    expected = table(shop / "dataset/shop/shop.inter")
    extra = ["--separator", ";"] if suffix == ".txt" else []
    run(*[word.replace("purchases.csv", path.name) for word in TIMED], *extra, "--force")
    assert table(shop / "dataset/shop/shop.inter") == expected


def test_another_encoding(shop):
    text = (shop / "purchases.csv").read_text().replace("customer", "Käufer")
    (shop / "purchases.csv").write_text(text, encoding="cp1252")
    words = [word.replace("customer", "Käufer") for word in TIMED]
    run(*words, "--encoding", "cp1252")
    assert len(table(shop / "dataset/shop/shop.inter")) == 15


# ----------------------------------------------------------------------------------------- times


@pytest.mark.parametrize(
    ("cells", "options", "expected"),
    [
        (["2024-01-02", "2024-01-02T03:00:00+01:00", "2024-01-02 02:00:00.5Z"], [],
         [1704153600, 1704160800, 1704160800.5]),
        (["1704153600", "1704153600.25", "-5"], [], [1704153600, 1704153600.25, -5]),
        (["01/02/2024", "12/02/2024"], [], [1704153600, 1733097600]),
        (["01/02/2024", "13/02/2024 10:00"], ["--day-first"], [1706745600, 1707818400]),
        (["Jan 2, 2024", "2 January 2024 01:00"], [], [1704153600, 1704157200]),
        (["20240102", "20240103"], ["--time-format", "%Y%m%d"], [1704153600, 1704240000]),
        (["1969-12-31", "1970-01-01"], [], [-86400, 0]),
        (["2024-02-01", "2024-01-02"], ["--day-first"], [1706745600, 1704153600]),
    ],
)  # fmt: skip
def test_times(shop, cells, options, expected):
    rows = rows_of_purchases()[:14]
    for number, row in enumerate(rows):
        row[2] = f'"{cells[number % len(cells)]}"'
    write_purchases(shop / "purchases.csv", rows)
    run(*TIMED, *options)
    read = [float(row[2]) for row in table(shop / "dataset/shop/shop.inter")[1:]]
    assert read == [expected[number % len(expected)] for number in range(14)]


def dates(*words, **options):
    """Seconds of each word; the message of the error in place of one."""
    found = []
    for word in words:
        try:
            column = pd.Series([word], dtype="category")
            found += times.seconds("when", column, "row {}".format, **options).tolist()
        except ValueError as error:
            found.append(str(error))
    return found


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "word",
    [
        "2023-01-01 10:00:00Z", "2023-01-01 12:00 GMT+2", "2023-01-01 12:00 +2",
        "2023-01-01 12:00Z+2", "2023-01-01 15:30 UTC+5:30", "2023-01-01 05:00 gmt -5",
        "Sun Jan 01 2023 11:00:00 GMT+0100 (CET)", "Sun, 1 Jan 2023 05:00:00 -0500 (EST)",
        "Sun Jan 01 2023 11:00:00 GMT+0100 (Central European Standard Time)",
        "Sun Jan  1 10:00:00 UTC 2023", "Sun Jan 01 05:00:00 -0500 2023", "10:00 on 1 January 2023",
        "Sunday, January 1st, 2023 10:00 AM", "20230101T100000", "1/1/2023 10:00:00 a.m.",
    ],
)  # fmt: skip
def test_zones_and_words_of_dates(word):
    assert dates(word) == [1672567200]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "word",
    [
        "Mon Jan  2 15:04:05 EST 2006", "2023-01-01 10:00 PT", "2023-01-01 10:00 AT",
        "2023-01-01 10:00 AMT", "2023-01-01 10:00 NOVT", "2023-01-01 10 PT", "EST 2023-01-01 10:00",
        "2023-01-01 10:00 Etc/GMT+2", "2023-01-01 10:00 (CET)", "10:00 01-01-2023 (PT)",
        "2023-01-01 10:00 P.M.", "2023-01-01 10:00 M", "10:30", "103005+02",
        "202301 10", "10:30:05+02:00", "10:30 UTC", "T103005", "now", "today", "2023-01-01 now",
    ],
)  # fmt: skip
def test_zones_that_are_not_known_and_clocks_alone(word):
    (said,) = dates(word)
    assert str(said).startswith("when must be a time, got")


def test_a_reading_of_dates_is_shown(shop, capsys):
    write_purchases(
        shop / "purchases.csv", [[*row[:2], "01/02/1969", "1"] for row in rows_of_purchases()]
    )
    run(*TIMED)
    said = capsys.readouterr().out
    assert "note: when: '01/02/1969' is read as 1969-01-02 00:00 UTC" in said
    assert "note: when: 15 times are before 1970" in said


# --------------------------------------------------------------------------------------- filters


@pytest.mark.parametrize(
    ("keep", "kept"), [("last", "1706781600"), ("first", "1704448800"), ("keep", None)]
)
def test_duplicates(shop, keep, kept):
    rows = rows_of_purchases()
    write_purchases(shop / "purchases.csv", [rows[-1], *rows[:-1]])  # the latest comes first
    run(*TIMED, "--duplicates", keep)
    times = [row[2] for row in table(shop / "dataset/shop/shop.inter") if row[:2] == ["b", "001"]]
    assert times == ([kept] if kept else ["1706781600", "1704448800"])
    assert settings().get("repeatable", False) == (keep == "keep")
    data = prepare("BPR", {**settings(), "dataset": "shop", "gpu_id": ""}).dataset
    assert data.inter_num == (14 if kept else 15)


def test_ratings(shop, capsys):
    run(*TIMED, "--rating", "stars", "--min-rating", "2")
    assert "left out: rating below 2: 2" in capsys.readouterr().out
    rows = table(shop / "dataset/shop/shop.inter")
    assert rows[0][2] == "rating:float" and min(row[2] for row in rows[1:]) == "2"
    prepare("BPR", {**settings(), "dataset": "shop", "gpu_id": ""})


def test_low_ratings_count_too_and_a_note_says_so(shop, capsys):
    run(*TIMED, "--rating", "stars", "--dry-run")
    note = "note: stars: 1 to 5; every row counts as an interaction, low ratings too; --min-rating"
    assert note in capsys.readouterr().out
    run(*TIMED, "--rating", "stars", "--min-rating", "1", "--dry-run")
    assert "low ratings" not in capsys.readouterr().out


ZONES = ["Z", "+01:00", " GMT", "+0100", "-05", " a.m. +01:00"]


@pytest.mark.parametrize("zone", ZONES)
def test_dates_without_zone_beside_others_are_counted(shop, capsys, zone):
    rows = [[*row[:2], row[2] + zone, row[3]] for row in rows_of_purchases()]
    rows[3][2], rows[5][2] = "2024-01-04 10:00", "2024-01-06"
    write_purchases(shop / "purchases.csv", rows)
    run(*TIMED, "--dry-run")
    assert "note: when: 2 of 15 times have no zone and are read as UTC" in capsys.readouterr().out


def test_dates_of_one_kind_need_no_count_of_zones(shop, capsys):
    for end in ("", "+01:00"):
        rows = [[*row[:2], row[2] + end, row[3]] for row in rows_of_purchases()]
        write_purchases(shop / "purchases.csv", rows)
        run(*TIMED, "--dry-run")
        assert "have no zone" not in capsys.readouterr().out


def test_pictures_that_cannot_be_read_are_holes(shop, capsys):
    (shop / "photos" / "001.png").write_bytes(b"not a picture")
    (shop / "photos" / "002.png").write_bytes(b"")
    run(*TIMED, *ITEMS, "--images", "photos")
    said = capsys.readouterr().out
    note = "note: image: 2 of 4 pictures cannot be read, left out: '001.png', '002.png'"
    assert note in said and "image: 2 items have it, 5 lack it" in said
    assert len(list((shop / "dataset/shop/images").iterdir())) == 2


def test_one_picture_at_least_must_be_readable(shop, capsys):
    for path in (shop / "photos").rglob("*.*"):
        path.write_bytes(b"not a picture")
    text = refused(capsys, *TIMED, *ITEMS, "--images", "photos")
    assert "--images: one picture or more must be readable, got none of 3: '001.png'" in text
    assert not (shop / "dataset").exists()


def test_k_core_is_iterated_and_comes_last(shop, capsys):
    pairs = ["a1", "a2", "a3", "b1", "b2", "b4", "c1", "c3", "c4", "d5", "d5", "e5", "e1"]
    write_purchases(shop / "purchases.csv", [[user, f"00{item}", "5", "1"] for user, item in pairs])
    run(*TIMED, *ITEMS, "--k-core", "2")
    said = capsys.readouterr().out
    # d has two rows, but one is a repeat. Without d, item 5 has one row. Without item 5, so has e.
    assert "left out: repeated user and item, the last one kept: 1; 2-core: 3" in said
    assert "9 interactions of 3 users with 4 items" in said
    assert "4 items can be recommended; 0 of them" in said
    run(*TIMED, *ITEMS, "--k-core", "2", "--catalogue", "all", "--force")
    assert "7 items can be recommended; 3 of them" in capsys.readouterr().out


def test_incomplete_rows_are_dropped_with_a_count(shop, capsys):
    holes = [["", "001", "2024-01-01", "1"], ["a", "NA", "2024-01-01", "1"], ["a", "001", "", "1"]]
    write_purchases(shop / "purchases.csv", [*rows_of_purchases(), *holes])
    run(*TIMED, "--drop-incomplete")
    assert "left out: incomplete: 3; repeated" in capsys.readouterr().out
    assert len(table(shop / "dataset/shop/shop.inter")) == 15


def test_partial_numbers_are_holes(shop, capsys):
    text = ARTICLES.replace("genre,price", "size,price")
    for number, word in enumerate(["kitchen|new", "home|gift shop", "kitchen", "home"]):
        text = text.replace(word, str(number))
    (shop / "articles.csv").write_text(text)
    run(*TIMED, "--items", "articles.csv", "--numbers", "price,size")
    said = capsys.readouterr().out
    assert "numbers: 2 items have only some of price, size; they count as holes" in said
    assert "numbers: 5 items have it, 2 lack it" in said


def test_a_wrong_number_of_an_item_that_is_left_out_does_not_matter(shop, capsys):
    change(shop, "kitchen,2", "kitchen,?", file="articles.csv")
    words = ["--items", "articles.csv", "--numbers", "price"]
    assert "price must be a number, got '?' in line 9" in refused(capsys, *TIMED, *words)
    run(*TIMED, *words, "--catalogue", "bought")
    change(shop, "001,Red", ",Red", file="articles.csv")
    said = refused(capsys, *TIMED, *words, "--drop-incomplete", "--force")
    assert "price must be a number, got '?' in line 9" in said


def test_ids_that_are_no_file_names_have_no_picture(shop, capsys):
    for file in ("purchases.csv", "articles.csv"):
        change(shop, "004", "../4", file=file)
    articles = pd.read_csv(shop / "articles.csv", dtype=str)
    articles["file"] = ["001.png", "", "", "004.JPG", "", "", ""]
    articles.to_csv(shop / "articles.csv", index=False)
    run(*TIMED, *ITEMS, "--images", "photos", "--image-column", "file")
    said = capsys.readouterr().out
    assert "image: 1 items whose ids can be no file names lack it, for example '../4'" in said
    assert [path.name for path in (shop / "dataset/shop/images").iterdir()] == ["001.png"]
    assert not list(shop.glob("dataset/**/4.JPG"))


def test_some_ids_without_zeros_are_noticed(shop, capsys):
    change(shop, "\n006", "\n6", file="articles.csv")
    run(*TIMED, *ITEMS)
    assert "'006' (zeros at the beginning are lost in one of them); th" in capsys.readouterr().out


def test_a_wrong_tag_separator_is_noticed(shop, capsys):
    (shop / "articles.csv").write_text(ARTICLES.replace("kitchen|new", "kitchen;new").replace(
        "home|gift shop", "home;gift").replace(",kitchen,", ",kitchen;x,"))  # fmt: skip
    run(*TIMED, *ITEMS, "--tags", "genre")
    said = capsys.readouterr().out
    assert "no cell has '|' but most have ';', see --tag-separator" in said


# ------------------------------------------------------------------------------------- bad input


def change(shop, old, new, file="purchases.csv"):
    text = (shop / file).read_text()
    assert old in text
    (shop / file).write_text(text.replace(old, new))


FIRST = "a,001,2024-01-01 10:00,2"
BAD = {
    "absent column": (None, [*SHOP, "--time", "wen"], "--time: .*Did you mean 'when'"),
    "duplicate header": (("when,stars", "when,when"), TIMED, "different names, got 'when' 2 times"),
    "no rows": (lambda p: p.write_text("customer,article,when\n"), TIMED, "got a header only"),
    "no bytes": (lambda p: p.write_text(""), TIMED, "must hold a table, got 0 bytes"),
    "blank header": (lambda p: p.write_text("\n\n"), TIMED, "first line must name the columns"),
    "no file": (lambda p: p.unlink(), TIMED, "must be a file, got a folder or nothing"),
    "one user": (lambda p: p.write_text("customer,article\n" + "".join(
        f"a,{i}\n" for i in range(9))), SHOP, "--user customer: must have two .*only 'a'"),
    "a user with all": (lambda p: p.write_text("customer,article\n" + "".join(
        f"{u},{i}\n" for u in "ab" for i in range(3 + (u == "a")))),
        [*SHOP, "--duplicates", "keep"],
        "every user must have at least one item without .*got 1 user with all 4, such as 'a'"),
    "orders as users": (lambda p: p.write_text("customer,article\n" + "".join(
        f"o{i},{i % 5}\n" for i in range(9))), SHOP, "three items or more.*at most 1 .*orders"),
    "k-core takes all": (None, [*TIMED, "--k-core", "9"], "got none of 15 .*9-core 14"),
    "wrong separator": (None, [*TIMED, "--separator", ";"], "got one column, 'customer,article,when"
                        ",stars'; give the right --separator. ',' occurs there"),
    "long separator": (None, [*TIMED, "--separator", "::"], "--separator: must be one character"),
    "no such suffix": (lambda p: p.rename("purchases.xlsx"), [
        word.replace(".csv", ".xlsx") for word in TIMED], "must be a .csv, .*got '.xlsx'"),
    "name with a path": (None, [*BASE, "--name", "../shop"], "plain folder name"),
    "one column twice": (None, [*BASE, "--time", "article", "--name", "shop"],
                         "--item and --time: must be different columns, got 'article' for both"),
    "no time": ((FIRST, "a,001,,2"), TIMED, r"when 1\), the first in line 2; .*--drop-incomplete"),
    "no user": ((FIRST, ",001,2024-01-01,2"), TIMED, "1 of 15 rows with an empty cell"),
    "text as time": ((FIRST, "a,001,soon,2"), TIMED, "when must be a time, got 'soon' in line 2"),
    "clock with fractions": ((FIRST, "a,001,10:30:05.1234,2"), TIMED, "got '10:30:05.1234'"),
    "zone by name": ((FIRST, "a,001,2024-01-02 10:00 CET,2"), TIMED, "got '2024-01-02 10:00 CET'"),
    "no such folder": (None, [word.replace("purch", "no/purch") for word in TIMED],
                       "no/purchases.csv: must be a file"),
    "line of a cell": ((FIRST, 'a,"00\n1",2024-01-01,2\n\na,001,x,2'), TIMED, "got 'x' in line 5"),
    "clock as time": ((FIRST, "a,001,10:30:05,2"), TIMED, "must be a time, got '10:30:05'"),
    "day first": ((FIRST, "a,001,13/01/2024,2"), TIMED, "got '13/01/2024' in line 2.*--day-first"),
    "days as numbers": (lambda p: p.write_text("customer,article,when\na,1,20240101\n"), TIMED,
                        "got '20240101', which looks like a date .*--time-format %Y%m%d"),
    "wrong format": (None, [*TIMED, "--time-format", "%d.%m.%Y"], "correct it, or --time-format"),
    "format without time": (None, [*SHOP, "--day-first"], "must come with --time"),
    "split without time": (None, [*SHOP, "--split", "last"], "--split last: must come with --time"),
    "text as rating": ((FIRST, "a,001,2024-01-01,good"), [*TIMED, "--rating", "stars"],
                       "stars must be a number, got 'good' in line 2"),
    "limit without rating": (None, [*TIMED, "--min-rating", "3"], "must come with --rating"),
    "duplicates refused": (None, [*TIMED, "--duplicates", "error"],
                           "got 1 rows that repeat such a pair, for example 'b' and '001'"),
    "long row": ((FIRST, f"{FIRST},9"), TIMED, "must have 4 cells as the header, got 5 in line 2"),
    "short row": ((FIRST, "a,001"), TIMED, "must have 4 cells as the header, got 2 in line 2"),
    "open quote": ((FIRST, 'a,001,"2024-01-01,2'), TIMED, "4 cells as the header, got 3 in line 2"),
    "open quote at the end": ((FIRST, 'a,001,2024-01-01,"2'), TIMED, "EOF inside string"),
    "NUL in an id": ((FIRST, f"a\0b{FIRST[1:]}"), TIMED, "line 2 must be cells .*NUL"),
    "NUL in the header": (("customer", "custom\0er"), TIMED, "line 1 must be cells .*NUL"),
    "not UTF-8": (lambda p: p.write_bytes(b"customer,article,when\na,b\xe4,1\n"), TIMED,
                  "must be UTF-8 text, got byte 0xe4 at position 3 of line 2; .*--encoding cp1252"),
    "no such encoding": (None, [*TIMED, "--encoding", "utf-9"], "--encoding: must be an encoding"),
    "cut gzip": (lambda p: (p.parent / "purchases.csv.gz").write_bytes(
        gzip.compress(p.read_bytes())[:40]), [word.replace(".csv", ".csv.gz") for word in TIMED],
        "must be a whole .gz file"),
}  # fmt: skip


@pytest.mark.parametrize(("spoil", "words", "message"), BAD.values(), ids=BAD)
def test_bad_interactions(shop, capsys, spoil, words, message):
    if isinstance(spoil, tuple):
        change(shop, *spoil)
    elif spoil is not None:
        spoil(shop / "purchases.csv")
    check_refusal(shop, capsys, words, message)


def check_refusal(shop, capsys, words, message):

    said = refused(capsys, *words)
    assert re.search(message, said), said
    assert said.count("\n") == 1 or "EOF" in said or "\\n" in said
    assert not (shop / "dataset").exists()


BAD_ITEMS = {
    "zeros are lost": (("\n00", "\n"), ITEMS, "got none of 6: there an item is '001', here '1' "
                       r"\(zeros at the beginning are lost in one of them\)"),
    "other ids": (("\n00", "\nX"), ITEMS, "there an item is '001', here 'X1'; write ids alike"),
    "rows that differ": (("006,Rug", "005,Rug"), ITEMS, "rows that differ for 1 id: '005' "
                         r"\(the first in name, description, line 7 and line 8\)"),
    "no id": (("007,", ","), ITEMS, "every row must have article, got 1 of 7 rows"),
    "absent column": (None, [*ITEMS, "--tags", "genres"], "modality tags: .*Did you mean 'genre'"),
    "other id column": (("article,", "sku,"), ITEMS, r"--item \(or give --item-id\): .*'article'"),
    "one column twice": (None, [*ITEMS, "--tags", "name"],
                         "modality text and modality tags: must be different columns, got 'name'"),
    "one name twice": (None, [*ITEMS, "--text", "genre"], "--text: must name text once"),
    "two kinds of one name": (None, [*ITEMS, "--tags", "text=genre"], "must have a new name"),
    "no plain name": (None, [*ITEMS, "--tags", "my genre=genre"], "a plain name such as title"),
    "empty column": (None, [*ITEMS, "--tags", "genre,"], "must read COLUMN,COLUMN or NAME=COLUMN"),
    "text as number": (None, [*ITEMS, "--numbers", "genre"],
                       "genre must be a number, got 'kitchen.new' in line 2"),
    "nobody has it": (lambda p: p.write_text("article,name\n001,\n"),
                      ["--items", "articles.csv", "--text", "name"], "got none of 6"),
    "columns without a table": (None, ["--text", "name"], "must come with --items"),
    "no folder": (None, [*ITEMS, "--images", "photo"], "--images: must be a folder, got 'photo'"),
    "no pictures": (None, [*ITEMS, "--images", "empty"], "empty must hold pictures .*got none"),
    "other names": (None, [*ITEMS, "--images", "others"],
                    r"must bear ids of items, such as '001' .*got none of 1 that does: '1.png' "
                    r"\(zeros at the beginning are lost"),
    "two pictures": (None, [*ITEMS, "--images", "."],
                     "item '001' must have one picture, got others/001.gif and photos/001.png"),
    "place without folder": (None, [*ITEMS, "--images-in-place"], "--images-in-place: must come"),
    "column without folder": (None, [*ITEMS, "--image-column", "name"], "must come with --images"),
    "no such pictures": (None, [*ITEMS, "--images", "photos", "--image-column", "genre"],
                         "the table has 'kitchen.new', .*, the folder has '001.png'"),
    "matrix without ids": (None, ["--matrix", "a=a.npy"], r"same modalities, got \['a'\] and \[\]"),
    "ids too few": (None, ["--matrix", "a=a.npy", "--ids", "a=few.ids"],
                    "one id for each of the 2 rows of a.npy, got 1"),
    "ids of others": (None, ["--matrix", "a=a.npy", "--ids", "a=other.ids"],
                      "must hold ids of items, such as '001', got 'x', 'y'"),
    "a setting of ours": (None, [*ITEMS, "--numbers", "modality=price"],
                          "'modality': .* modality_scale is a setting already; rename"),
    "a setting of a model": (None, [*ITEMS, "--numbers", "item=price"], "item_scale is a setting"),
    "a setting of RecBole": (None, [*ITEMS, "--numbers", "numerical=price"], "numerical_features"),
    "of a model of RecBole": (None, [*ITEMS, "--numbers", "noise=price"], "noise_scale is a sett"),
    "a name of torch": (None, [*ITEMS, "--tags", "type=genre"], "'type': the name must be"),
    "name of the pictures": (None, [*ITEMS, "--tags", "image=genre", "--images", "photos"],
                             "different names, got 'image' twice"),
}  # fmt: skip


@pytest.mark.parametrize(("spoil", "words", "message"), BAD_ITEMS.values(), ids=BAD_ITEMS)
def test_bad_items(shop, capsys, spoil, words, message):
    (shop / "empty").mkdir()
    (shop / "others").mkdir()
    np.save(shop / "a.npy", np.ones((2, 3)))
    (shop / "few.ids").write_text("001\n")
    (shop / "other.ids").write_text("x\ny\n")
    name = "001.gif" if "." in words else "1.png"
    Image.new("RGB", (9, 9)).save(shop / "others" / name)
    if isinstance(spoil, tuple):
        change(shop, *spoil, file="articles.csv")
    elif spoil is not None:
        spoil(shop / "articles.csv")
    check_refusal(shop, capsys, [*TIMED, *words], message)


def test_pictures_may_stay_where_they_are(shop):
    run(*TIMED, *ITEMS, "--images", "photos", "--images-in-place")
    assert settings()["image_images"] == "../../photos"
    assert not (shop / "dataset/shop/images").exists()
    known = prepare("VBPR", {**settings(), "dataset": "shop", "gpu_id": ""}).dataset.known
    assert int(known["image"].observed.sum()) == 3


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="has no named pipes")
@pytest.mark.parametrize("options", [[], ["--dry-run"]])
def test_pictures_that_are_no_files_are_counted(shop, capsys, options):
    (shop / "photos" / "002.png").symlink_to("nowhere.png")
    os.mkfifo(shop / "photos" / "003.png")
    run(*TIMED, *ITEMS, "--images", "photos", *options)
    said = capsys.readouterr().out
    assert "image: 2 of 5 pictures are no files (a broken link, a named pipe), left out: " in said
    assert "'002.png', '003.png'" in said and "image: 3 items have it, 4 lack it" in said


def test_an_unknown_picture_is_counted(shop, capsys):
    Image.new("RGB", (9, 9)).save(shop / "photos" / "cover.png")
    run(*TIMED, *ITEMS, "--images", "photos")
    said = capsys.readouterr().out
    assert "image: 1 of 4 pictures are of no item, for example 'cover.png'" in said


def test_a_data_set_that_exists(shop, capsys):
    run(*TIMED)
    assert "replace it with --force" in refused(capsys, *TIMED)
    (shop / "dataset/shop/mine.txt").write_text("keep me")
    run(*TIMED, *ITEMS, "--force")
    assert (shop / "dataset/shop/mine.txt").read_text() == "keep me"
    (shop / "dataset/other").mkdir()
    (shop / "dataset/other/file").write_text("")
    words = [*BASE, "--name", "other", "--force"]
    assert "files of another origin" in refused(capsys, *words)


def test_equal_repeats_of_an_item_are_one(shop, capsys):
    (shop / "articles.csv").write_text(ARTICLES + "006,Rug,soft,home,9\n")
    run(*TIMED, *ITEMS)
    said = capsys.readouterr().out
    assert "left out: equal repeats: 1" in said and "7 items can be recommended" in said


def test_without_pyarrow_the_remedy_is_said(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "p.parquet").write_text("x")
    with pytest.raises(ValueError, match="needs pyarrow, got: .*; run `pip install .*pyarrow"):
        raw.open_table(tmp_path / "p.parquet")


def test_the_interface_of_python(shop):
    items = ItemTable(
        shop / "articles.csv", modalities={"text": Columns("text", ["name"])}, catalogue="bought"
    )
    wanted = PurchaseTable(shop / "purchases.csv", "customer", "article", time="when")
    report = import_table(wanted, "shop", items, output=shop / "out")
    assert (report.items, report.item_dropped) == (6, {"without an interaction that is left": 1})
    with pytest.raises(ValueError, match="--split: must be one of"):
        import_table(wanted, "shop", split="middle")


def test_two_readers_at_once_leave_the_limit_of_csv_alone(tmp_path: Path) -> None:
    limit, path = csv.field_size_limit(), tmp_path / "a.csv"
    path.write_text("a,b\n1,2\n3,4\n" + "x" * (limit + 1) + ",5\n")
    table = raw.open_table(path, None, "utf-8")
    one, other = table._rows(), table._rows()
    assert [next(one), next(other)] == [["a", "b"], ["a", "b"]]
    assert csv.field_size_limit() == limit
    assert len([*one]) == len([*other]) == 3
    assert csv.field_size_limit() == limit
