"""MicroLens: leave-one-out, titles, covers and features on a tiny folder; bad input."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pytest
import yaml
from layouts import lacking, pairs, splits_of
from PIL import Image

from recbole_missing.convert.importers import import_folder

PAIRS = """user,item,timestamp
7,1,100
7,2,300
7,3,200
7,4,250
8,2,10
8,1,10
8,3,10
8,4,10
9,1,5
9,2,6
"""
TITLES = 'item,title\n1,"A cat, a ""dog"" here"\n2,Sea\n3,\n5,Nobody saw it\n'


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "raw"
    folder.mkdir()
    (folder / "MicroLens-50k_pairs.csv").write_text(PAIRS)
    (folder / "MicroLens-50k_titles.csv").write_text(TITLES)
    return folder


def add_covers(source, items=(1, 2, 9)):
    covers = source / "MicroLens-50k_covers"
    covers.mkdir()
    for item in items:
        (covers / f"{item}.jpg").write_bytes(b"not looked into")
    return covers


def add_features(source, kind, n_rows=5):
    path = source / f"MicroLens-50k_{kind}_features_CLIP.npy"
    np.save(path, np.arange(n_rows * 2, dtype=np.float32).reshape(n_rows, 2))
    return path


def test_leave_one_out_and_titles(source, tmp_path):
    report = import_folder("microlens", source, "tiny", tmp_path / "out")
    train, valid, test = splits_of(tmp_path / "out" / "tiny")
    assert pairs(test) == {("7", "2"), ("8", "4")}, "the last by time, then as in the file"
    assert pairs(valid) == {("7", "4"), ("8", "3")}
    assert pairs(train) == {
        *{("7", "1"), ("7", "3"), ("8", "2"), ("8", "1"), ("9", "1"), ("9", "2")}
    }
    assert lacking(train, "title") == {"3", "4"}
    assert report.notes == [
        "1 users with fewer than three interactions: in training alone",
        "1 users have equal times where they are split: as in the file",
        "MicroLens-50k_titles.csv: 2 of 4 items have no title",
        "MicroLens-50k_titles.csv: 1 titles of items without interaction left out",
    ]
    items = (tmp_path / "out" / "tiny" / "tiny.item").read_text()
    head = 'item_id:token\ttitle:token_seq\n1\t"A cat, a ""dog"" here"\n2\tSea\n3\t\n'
    assert items.startswith(head)
    header = (tmp_path / "out" / "tiny" / "tiny.test.inter").read_text().splitlines()[:2]
    assert header == ["user_id:token\titem_id:token\ttimestamp:float", "7\t2\t300"]


def test_titles_without_a_header(source, tmp_path):
    (source / "MicroLens-50k_titles.csv").unlink()
    text = '1,A cat, a "dog"\n2,"Sea, ""sky"""\n4,"\n'
    (source / "MicroLens-100k_title_en.csv").write_text(text)
    import_folder("microlens", source, "tiny", tmp_path)
    assert (tmp_path / "tiny" / "tiny.item").read_text().splitlines()[1:] == [
        '1\t"A cat, a ""dog"""',
        '2\t"Sea, ""sky"""',
        "3\t",
        '4\t""""',
    ]
    assert lacking(splits_of(tmp_path / "tiny")[0], "title") == {"3"}


def test_covers(source, tmp_path):
    covers = add_covers(source, (1, 2, 5, 9))
    (covers / "3.txt").write_text("not a picture")
    report = import_folder("microlens", source, "tiny", tmp_path)
    config = yaml.safe_load((tmp_path / "tiny" / "tiny.yaml").read_text())
    assert config["modalities"] == ["title", "image"]
    assert config["image_images"] == "images"
    copied = {path.name for path in (tmp_path / "tiny" / "images").iterdir()}
    assert copied == {"1.jpg", "2.jpg"}
    assert "MicroLens-50k_covers: 2 of 4 items have no picture" in report.notes
    assert "MicroLens-50k_covers: 2 pictures of items without interaction left out" in report.notes
    assert "image: 2 pictures, copied" in str(report)


def test_features_go_before_titles_and_covers(source, tmp_path):
    add_covers(source)
    (source / "extracted_modality_features").mkdir()
    for kind in ("image", "title_en_text"):
        add_features(source, kind)
    add_features(source / "extracted_modality_features", "video")
    report = import_folder("microlens", source, "tiny", tmp_path)
    assert report.modalities == {"image": (5, 2), "text": (5, 2), "video": (5, 2)}
    assert "MicroLens-50k_titles.csv: not read; the text features are used" in report.notes
    assert "MicroLens-50k_covers: not used; the image features are" in report.notes
    ids = (tmp_path / "tiny" / "features" / "image.ids").read_text().split()
    assert ids == ["1", "2", "3", "4", "5"], "row r is item r + 1"
    train = splits_of(tmp_path / "tiny")[0]
    item = list(train.field2id_token["item_id"]).index("2")
    assert train.known["image"].features[item].tolist() == [2, 3]


def test_covers_go_where_the_data_set_goes(source, tmp_path):
    """A run finds them after the source is gone, and two pictures of one item are refused."""
    covers = add_covers(source)
    for item in (1, 2):
        Image.new("RGB", (8, 8), (90 * item, 0, 0)).save(covers / f"{item}.jpg")
    import_folder("microlens", source, "tiny", tmp_path)
    shutil.move(tmp_path / "tiny", tmp_path / "moved" / "tiny")
    shutil.rmtree(source)
    path = tmp_path / "moved" / "tiny" / "tiny.yaml"
    path.write_text(path.read_text().replace(str(tmp_path), str(tmp_path / "moved")))
    assert lacking(splits_of(path.parent)[0], "image") == {"3", "4"}


def test_a_cover_that_is_no_file_is_counted(source, tmp_path):
    covers = add_covers(source, items=(1,))
    (covers / "2.jpg").symlink_to("gone.jpg")
    os.mkfifo(covers / "3.jpg")
    report = import_folder("microlens", source, "tiny", tmp_path)
    assert "2 of 3 pictures are no files" in str(report)
    assert [path.name for path in (tmp_path / "tiny" / "images").iterdir()] == ["1.jpg"]


def test_two_covers_of_one_item(source, tmp_path):
    covers = add_covers(source)
    (covers / "1.png").write_bytes(b"another")
    with pytest.raises(ValueError, match=r"item '1' must have one picture, got .*1.jpg and .*png"):
        import_folder("microlens", source, "tiny", tmp_path / "out")


def test_files_that_are_no_pictures_are_no_covers(source, tmp_path):
    covers = add_covers(source, items=())
    (covers / "1.txt").write_text("not a picture")
    with pytest.raises(ValueError, match="must hold <item>.jpg for one item .*, got 0 pictures"):
        import_folder("microlens", source, "tiny", tmp_path / "out")


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("MicroLens-50k_pairs.csv", None, r"must hold one \*_pairs.csv, got \[\]"),
        ("MicroLens-100k_pairs.csv", PAIRS, r"must hold one \*_pairs.csv, got \['MicroLens-100k"),
        ("MicroLens-50k_pairs.csv", "user,item\n1,2\n", r"header must name \['timestamp'\]"),
        ("MicroLens-50k_pairs.csv", PAIRS + "1,2\n", "line 12 must have 3 cells"),
        ("MicroLens-50k_pairs.csv", PAIRS + "1,-2,3\n", "line 12 must be a user, an item from 1"),
        ("MicroLens-50k_pairs.csv", PAIRS + "1,0,3\n", "line 12 must be a user, an item from 1"),
        ("MicroLens-50k_pairs.csv", PAIRS + "1,a,3\n", "line 12 must be"),
        ("MicroLens-50k_pairs.csv", PAIRS + "1,2,nan\n", "line 12 must be"),
        ("MicroLens-50k_pairs.csv", PAIRS + "1,2,1_001\n", "line 12 must be"),
        ("MicroLens-50k_pairs.csv", PAIRS + f"1,{'9' * 5000},3\n", "line 12 must be"),
        ("MicroLens-50k_pairs.csv", PAIRS + ",2,1\n", "line 12 must be"),
        ("MicroLens-50k_pairs.csv", "user,item,timestamp\n", "train interactions: must be one"),
        ("MicroLens-50k_pairs.csv", "user,item,timestamp\n1,1,1\n", "valid interactions: must be"),
        ("MicroLens-50k_titles.csv", None, "must hold features, .* got none"),
        ("MicroLens-50k_titles.csv", TITLES + "1,again\n", "line 6 must be a new item"),
        ("MicroLens-50k_titles.csv", TITLES + "x,strange\n", "line 6 must be a new item"),
        ("MicroLens-50k_titles.csv", "", "must hold data, got 0 bytes"),
        ("MicroLens-100k_title_en.csv", "1,a\n", "must hold one file of titles"),
    ],
)
def test_bad_input(source, tmp_path, file, content, message):
    path = source / file
    if content is None:
        path.unlink()
    else:
        path.write_text(content)
    with pytest.raises(ValueError, match=message):
        import_folder("microlens", source, "tiny", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_row_of_nan_is_a_hole(source, tmp_path):
    path = add_features(source, "image")
    image = np.load(path)
    image[0] = np.nan
    np.save(path, image)
    report = import_folder("microlens", source, "tiny", tmp_path)
    assert f"{path.name}: 1 rows are NaN; their items have no image" in report.notes
    assert lacking(splits_of(tmp_path / "tiny")[0], "image") == {"1"}


def test_bad_features_and_covers(source, tmp_path):
    path = add_features(source, "image", n_rows=3)
    with pytest.raises(ValueError, match="got 3 rows and item 4"):
        import_folder("microlens", source, "tiny", tmp_path / "out")
    add_features(source, "image")
    path.with_name("MicroLens-100k_image_features_X.npy").write_bytes(path.read_bytes())
    with pytest.raises(ValueError, match="must hold one matrix of image"):
        import_folder("microlens", source, "tiny", tmp_path / "out")
    for npy in source.glob("*.npy"):
        npy.unlink()
    add_covers(source, items=("a", "b"))
    with pytest.raises(ValueError, match="must hold <item>.jpg for one item .*, got 2 pictures"):
        import_folder("microlens", source, "tiny", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_repeated_pairs_are_counted(source, tmp_path):
    (source / "MicroLens-50k_pairs.csv").write_text(PAIRS + "7,1,400\n7,1,50\n")
    report = import_folder("microlens", source, "tiny", tmp_path)
    assert "train: 1 interactions repeat an earlier pair; kept" in report.notes
    assert "1 pairs of user and item are in two splits or more" in str(report)
