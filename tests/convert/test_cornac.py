"""Cornac's files: ratings as its Reader reads them, features with ids, texts; bad input."""

from __future__ import annotations

import numpy as np
import pytest
import yaml
from layouts import lacking, splits_of

from recbole_missing.convert.importers import import_folder

ITEMS = ["b", "a", "007", "d e", "f"]
RATINGS = "".join(f"u{user}\t{item}\t{1 + user % 5}\n" for user in range(10) for item in ITEMS[:4])
IMAGE = np.arange(8, dtype=np.float32).reshape(4, 2)
IDS = ["f", "007", "b", "stranger"]  # "a" and "d e" lack features


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "raw"
    folder.mkdir()
    (folder / "rating.txt").write_text(RATINGS + "u1\tf\t2\n")
    np.save(folder / "image_features.npy", IMAGE)
    (folder / "item_ids.txt").write_text("".join(f"{item}\n" for item in IDS))
    return folder


def features_of(split, item):
    row = list(split.field2id_token["item_id"]).index(item)
    return split.known["image"].features[row].tolist()


def test_an_item_without_features_is_a_hole_and_inherits_nothing(source, tmp_path):
    report = import_folder("cornac", source, "tiny", tmp_path)
    splits = splits_of(tmp_path / "tiny")
    assert sum(len(split.inter_feat) for split in splits) == 41
    assert all(len(split.inter_feat) for split in splits), "RecBole splits them"
    assert lacking(splits[0], "image") == {"a", "d e"}
    assert features_of(splits[0], "a") == [0, 0]
    for row, item in enumerate(IDS[:3]):
        assert features_of(splits[0], item) == IMAGE[row].tolist()
    assert report.interactions == {"all": 41} and (report.users, report.items) == (10, 5)
    assert "image features: 2 of 5 items have none; holes here" in str(report)
    assert "image features: 1 ids are in no rating" in report.notes
    config = yaml.safe_load((tmp_path / "tiny" / "tiny.yaml").read_text())
    assert config["eval_args"]["split"] == {"RS": [0.8, 0.1, 0.1]}
    assert "benchmark_filename" not in config
    first = (tmp_path / "tiny" / "tiny.inter").read_text().splitlines()[:2]
    assert first == ["user_id:token\titem_id:token\trating:float", "u0\tb\t1"]


@pytest.mark.parametrize(
    ("options", "text", "rows"),
    [
        ({"fmt": "UI", "sep": ","}, "u,a,b\nv,b\n\n", ["u\ta", "u\tb", "v\tb"]),
        ({"fmt": "UIRT", "sep": "::"}, "u::a::5::9\nv::b::1::8\n", ["u\ta\t5\t9", "v\tb\t1\t8"]),
        ({"skip_lines": 1, "sep": ","}, "user,item,r\nu,a,5\n", ["u\ta\t5"]),
        ({"sep": " "}, "u a 5 99\nv b 1 98\n", ["u\ta\t5", "v\tb\t1"]),
    ],
)
def test_formats_of_the_reader(source, tmp_path, options, text, rows):
    (source / "mine.csv").write_text(text)
    (source / "item_ids.txt").write_text("a\nb\nc\nd\n")
    report = import_folder("cornac", source, "tiny", tmp_path, ratings="mine.csv", **options)
    assert (tmp_path / "tiny" / "tiny.inter").read_text().splitlines()[1:] == rows
    assert ("2 lines have more cells than UIR" in str(report)) == (" 99" in text)


@pytest.mark.parametrize("name", ["features.npy", "item_features.npy"])
@pytest.mark.parametrize("ids", ["content_ids.npy", "item_ids.npy", "ids.txt"])
def test_names_of_the_files(source, tmp_path, name, ids):
    (source / "image_features.npy").rename(source / name)
    (source / "item_ids.txt").unlink()
    if ids.endswith("npy"):
        np.save(source / ids, np.array(IDS))
    else:
        (source / ids).write_text("\n".join(IDS))
    report = import_folder("cornac", source, "tiny", tmp_path)
    assert report.modalities == {"content": (4, 2)}


def test_ids_may_be_integers(source, tmp_path):
    (source / "rating.txt").write_text("1\t10\t5\n2\t11\t5\n")
    (source / "item_ids.txt").unlink()
    np.save(source / "item_ids.npy", np.array([10, 11, 12, 13]))
    import_folder("cornac", source, "tiny", tmp_path)
    ids = (tmp_path / "tiny" / "features" / "image.ids").read_text().split()
    assert ids == ["10", "11", "12", "13"]


def test_texts(source, tmp_path):
    (source / "text.txt").write_text("b::A book :: of doors\na::\nstranger::x\n")
    report = import_folder("cornac", source, "tiny", tmp_path)
    assert report.texts == {"text": 1}
    assert "text.txt: 4 of 5 items have none" in str(report)
    train = splits_of(tmp_path / "tiny")[0]
    assert lacking(train, "text") == {"a", "007", "d e", "f"}
    assert "b\tA book :: of doors\n" in (tmp_path / "tiny" / "tiny.item").read_text()


def test_a_row_of_nan_is_a_hole(source, tmp_path):
    image = IMAGE.copy()
    image[0] = np.nan
    np.save(source / "image_features.npy", image)
    report = import_folder("cornac", source, "tiny", tmp_path)
    assert "image_features.npy: 1 rows are NaN; their items have no image" in report.notes
    assert lacking(splits_of(tmp_path / "tiny")[0], "image") == {"a", "d e", "f"}


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("rating.txt", None, "rating.txt: must be a file"),
        ("rating.txt", "", "must hold data, got 0 bytes"),
        ("rating.txt", "\n\n", "all interactions: must be one or more"),
        ("rating.txt", "u\ta\n", "line 1 must be userID, itemID, rating separated by '.t'"),
        ("rating.txt", "u a 5\n", "line 1 must be .* give --fmt, --sep and --skip-lines"),
        ("rating.txt", "user\titem\trating\nu\ta\t5\n", "line 1 must be"),
        ("rating.txt", RATINGS + "u\t\t5\n", "line 41 must be"),
        ("rating.txt", RATINGS + "u\ta\t1_0\n", "line 41 must be"),
        ("rating.txt", RATINGS + "u\ta\tinf\n", "line 41 must be"),
        ("rating.txt", "u\tzz\t5\n", "none of 4 is: the ratings have 'zz', not '007'"),
        ("item_ids.txt", None, "features need their ids in one of image_ids.txt"),
        ("item_ids.txt", "a\nb\nc\n", "one id for each of 4 rows of image, got 3"),
        ("item_ids.txt", "a\na\nb\nc\n", r"an id must stand once, got several of \['a'\]"),
        ("item_ids.txt", "a\tb\nb\nc\nd\n", "line 1 must be one id"),
        ("image_features.npy", None, r"must hold \*features.npy or text.txt"),
        ("image_features.npy", b"\x80\x04N.", "It is pickled"),
        ("text.txt", "b\n", "text.txt: line 1 must be a new item"),
        ("text.txt", "b::x\nb::y\n", "text.txt: line 2 must be a new item"),
        ("text.txt", "zz::x\n", "text.txt: ids must be items of the ratings"),
        ("my image_features.npy", b"", "must be an identifier"),
    ],
)
def test_bad_input(source, tmp_path, file, content, message):
    path = source / file
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=message):
        import_folder("cornac", source, "tiny", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_bad_options(source, tmp_path):
    with pytest.raises(ValueError, match="Unknown format 'UITR'. Did you mean 'UIR'"):
        import_folder("cornac", source, "tiny", tmp_path, fmt="UITR")
    with pytest.raises(ValueError, match="skip_lines 0 or more"):
        import_folder("cornac", source, "tiny", tmp_path, skip_lines=-1)
    with pytest.raises(ValueError, match="Unknown layout 'conrac'. Did you mean 'cornac'"):
        import_folder("conrac", source, "tiny", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]
