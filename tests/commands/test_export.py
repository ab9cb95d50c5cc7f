"""`recbole-missing export`: a data set in MMRec's layout, and back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from folders import (
    AT_WORK,
    mmrec_folder,
    pairs_of,
    prepare,
    recbole_folder,
    refused,
    tiny_content,
)
from folders import workplace as workplace

from recbole_missing import cli

pytestmark = AT_WORK


@pytest.fixture
def place(workplace, tmp_path):
    """The working folder, empty."""
    return tmp_path


@pytest.fixture
def layout(place):
    """A folder in MMRec's layout."""
    return mmrec_folder(place)


def run(*words):
    cli.main([str(word) for word in words])


def imported(layout):
    run("import", "mmrec", layout, "--name=mm", "--output=data")
    return Path("data/mm")


def read_inter(path):
    return [line.split("\t") for line in path.read_text().splitlines()]


def test_export_and_import_give_the_same(place, layout, capsys):
    (layout / "missed_img_itemIDs.csv").unlink()
    first = imported(layout)
    run("export", "mmrec", first, "--output=mmrec")
    exported = place / "mmrec" / "mm"
    assert read_inter(exported / "mm.inter")[0] == ["userID", "itemID", "x_label"]
    assert sorted(read_inter(exported / "mm.inter")) == sorted(read_inter(layout / "mm.inter"))
    run("import", "mmrec", exported, "--name=mm", "--output=again")
    second = place / "again" / "mm"
    for split in ("train", "valid", "test"):
        file = f"mm.{split}.inter"
        assert (second / file).read_text() == (first / file).read_text()
    for name in ("image", "text"):
        np.testing.assert_array_equal(
            np.load(second / "features" / f"{name}.npy"),
            np.load(first / "features" / f"{name}.npy")[:4],  # MMRec's items are those of .inter
        )
    settings = yaml.safe_load((exported / "mm.yaml").read_text())
    assert settings["vision_feature_file"] == "image_feat.npy"
    assert settings["text_feature_file"] == "text_feat.npy"
    assert settings["inter_file_name"] == "mm.inter" and settings["field_separator"] == "\t"
    assert "Wrote mmrec/mm\n  3 users, 4 items; interactions: train 6, valid 2, test 1" in (
        capsys.readouterr().out
    )


def test_export_numbers_tokens_from_zero(place):
    folder, _ = recbole_folder(place)
    run("export", "mmrec", folder, "--method=featprop")
    exported = place / "mmrec" / "tiny"
    users, items = (dict(read_inter(exported / f"{letter}_id_mapping.csv")[1:]) for letter in "ui")
    assert sorted(map(int, items.values())) == list(range(30))
    assert sorted(map(int, users.values())) == list(range(40))
    content = tiny_content()
    pairs = {(row[0], row[1]) for row in read_inter(exported / "tiny.inter") if row[-1] == "0"}
    assert pairs == {(users[user], items[item]) for user, item in content.train}
    image = np.load(exported / "image_feat.npy")
    np.testing.assert_array_equal(image[int(items["i8"])], content.image[content.row("i8")])
    run("impute", folder, "--output=out")
    rows = [int(items[item]) for item in Path("out/items.ids").read_text().split()]
    np.testing.assert_array_equal(image[rows], np.load("out/image.npy"))
    missed = (exported / "missed_img_itemIDs.csv").read_text().split()
    assert missed == sorted((items["i6"], items["i7"]), key=int)
    assert (exported / "missed_title_itemIDs.csv").is_file()


def test_holes_come_back_as_holes(place, layout):
    run("export", "mmrec", imported(layout), "--method=mean")
    run("import", "mmrec", "mmrec/mm", "--name=mm", "--output=again")
    assert Path("again/mm/features/image.ids").read_text().split() == ["0", "2", "3"]


def test_export_refuses_holes_and_folders_of_others(layout, capsys):
    folder = imported(layout)
    capsys.readouterr()
    message = refused(capsys, "export", "mmrec", folder)
    assert "got 1 items without image" in message and "--method mean" in message
    assert not Path("mmrec").exists()
    assert "--set must come with --method" in refused(
        capsys, "export", "mmrec", folder, "--set", "layers=2"
    )
    words = ["export", "mmrec", folder, "--method=mean", "--output=data", "--force"]
    assert "files of another origin" in refused(capsys, *words), "an import wrote it"


def test_a_folder_of_mmrec_is_exported_with_its_holes_filled(layout):
    run("export", "mmrec", layout, "--method=mean")
    given = np.load(layout / "image_feat.npy").astype(np.float32)
    completed = np.load("mmrec/mm/image_feat.npy")
    np.testing.assert_array_equal(completed[[0, 2, 3]], given[[0, 2, 3]])
    np.testing.assert_allclose(completed[1], given[[0, 2, 3, 4, 5]].mean(axis=0))
    assert len(completed) == 4, "MMRec numbers the items of its .inter file"


@pytest.mark.parametrize(
    "settings",
    [
        {"benchmark_filename": None, "item_inter_num_interval": "[16,inf)"},
        {"new_items": "stratified", "new_item_ratio": 0.3},
    ],
    ids=["filtered", "new items"],
)
def test_the_splits_are_those_of_a_run(place, settings):
    folder, of_run = recbole_folder(place, **settings)
    run("export", "mmrec", folder, "--method=mean")
    exported = place / "mmrec" / "tiny"
    users, items = (dict(read_inter(exported / f"{letter}_id_mapping.csv")[1:]) for letter in "ui")
    rows = read_inter(exported / "tiny.inter")[1:]
    prepared = prepare("BPR", of_run)
    for label, part in zip("012", (prepared.train, prepared.valid, prepared.test)):
        pairs = {(users[user], items[item]) for user, item in pairs_of(part._dataset)}
        assert {(user, item) for user, item, split in rows if split == label} == pairs


def test_training_of_new_items_is_exported_as_test(place):
    new = {"new_items": "stratified", "new_item_ratio": 0.3}
    folder, _ = recbole_folder(place, **new)
    run("export", "mmrec", folder, "--method=mean")
    exported = place / "mmrec" / "tiny"
    items = dict(read_inter(exported / "i_id_mapping.csv")[1:])
    labels = {label: [row for row in read_inter(exported / "tiny.inter") if row[-1] == label] for
              label in "012"}  # fmt: skip
    content = tiny_content()
    moved = {items[item] for _, item in content.train} - {row[1] for row in labels["0"]}
    assert len(moved) >= 8
    assert len(labels["0"]) + len(labels["2"]) == len(content.train) + len(content.test)
    assert len(labels["1"]) == len(content.valid)
