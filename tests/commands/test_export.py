"""`recbole-missing export`: a data set in another layout, and back."""

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


def test_export_elliot_numbers_what_is_no_integer(place, capsys):
    folder, _ = recbole_folder(place)
    run("export", "elliot", folder)
    exported = place / "elliot" / "tiny"
    users, items = (dict(read_inter(exported / f"{letter}_id_mapping.csv")[1:]) for letter in "ui")
    content = tiny_content()
    rows = read_inter(exported / "train.tsv")
    assert {(row[0], row[1]) for row in rows} == {(users[u], items[i]) for u, i in content.train}
    assert {row[2] for row in rows} == {"1"}
    vectors = exported / "visual_embeddings" / "recbole_missing" / "features" / "0"
    names = {path.stem for path in vectors.iterdir()}
    assert names == {number for item, number in items.items() if item not in ("i6", "i7")}
    written = np.load(vectors / f"{items['i8']}.npy")
    np.testing.assert_array_equal(written, content.image[content.row("i8")])
    out = capsys.readouterr().out
    assert "Elliot has no loader for title; it is not in elliot.yml" in out
    assert "Elliot drops 2 of 30 items" in out
    assert out.endswith("Next: run_experiment('elliot/tiny/elliot.yml') in Elliot.\n")
    run("export", "elliot", folder, "--method=mean", "--force")
    assert len(list(vectors.iterdir())) == 30
    assert "drops" not in capsys.readouterr().out


@pytest.mark.parametrize("method", [[], ["--method=mean"]])
def test_features_are_exported_as_their_source_has_them(place, capsys, method):
    """A run scales them; a user of another project does not know how."""
    folder, _ = recbole_folder(place, image_scale="standard")
    run("export", "elliot", folder, *method)
    vectors = place / "elliot/tiny/visual_embeddings/recbole_missing/features/0"
    items = dict(read_inter(place / "elliot/tiny/i_id_mapping.csv")[1:])
    content = tiny_content()
    for item in content.image_ids:
        written = np.load(vectors / f"{items[item]}.npy")
        np.testing.assert_array_equal(written, content.image[content.row(item)])
    if method:
        filled = np.load(vectors / f"{items['i6']}.npy")
        np.testing.assert_allclose(filled, content.image.mean(axis=0), atol=1e-5)
    assert "image_scale standard" in capsys.readouterr().out


def test_export_ducho_is_read_by_a_run(place, capsys):
    folder, _ = recbole_folder(place)
    run("export", "ducho", folder, "--output=features")
    vectors = place / "features/tiny/visual_embeddings/recbole_missing/features/0"
    assert np.load(vectors / "i8.npy").shape == (1, 6), "tokens stay, a file is one row"
    assert not (vectors / "i6.npy").exists()
    out = capsys.readouterr().out
    assert f"image_features: {vectors.relative_to(place)}" in out
    text = (folder / "tiny.yaml").read_text()
    text = text.replace("image_features: image.npy", f"image_features: {vectors}")
    (folder / "tiny.yaml").write_text(text.replace("image_ids: image_ids.txt\n", ""))
    run("export", "mmrec", folder, "--method=zeros", "--output=again")
    items = dict(read_inter(place / "again/tiny/i_id_mapping.csv")[1:])
    image = np.load(place / "again/tiny/image_feat.npy")
    content = tiny_content()
    for item, number in items.items():
        expected = content.image[content.row(item)] if item in content.image_ids else np.zeros(6)
        np.testing.assert_array_equal(image[int(number)], expected)


def test_export_ducho_numbers_tokens_that_are_no_file_names(place):
    folder, _ = recbole_folder(place)
    for path in (*folder.glob("*.inter"), folder / "image_ids.txt", folder / "tiny.item"):
        path.write_text(path.read_text().replace("i8", "i.8/../8"))
    run("export", "ducho", folder)
    exported = place / "ducho" / "tiny"
    items = dict(read_inter(exported / "i_id_mapping.csv")[1:])
    (vectors,) = {path.parent for path in (exported / "visual_embeddings").rglob("*.npy")}
    content = tiny_content()
    written = np.load(vectors / f"{items['i.8/../8']}.npy")
    np.testing.assert_array_equal(written[0], content.image[content.row("i8")])


def test_the_options_of_a_layout(place, capsys):
    source = place / "raw"
    source.mkdir()
    (source / "users.csv").write_text("".join(f"u{user},a,b,c\n" for user in range(5)))
    np.save(source / "item_features.npy", np.eye(3, dtype=np.float32))
    (source / "item_ids.txt").write_text("a\nb\nc\n")
    words = ["--name=x", "--ratings=users.csv", "--fmt=UI", "--sep=,"]
    run("import", "cornac", source, *words)
    assert "5 users, 3 items; interactions: all 15" in capsys.readouterr().out
    assert "Unknown format" in refused(
        capsys, "import", "cornac", source, *words, "--fmt=X", "--force"
    )
