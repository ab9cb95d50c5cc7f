"""Importers on tiny folders in the published layouts, and on the real TikTok release."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import yaml
from pickles import save_object

from recbole_missing.convert import folder
from recbole_missing.convert.importers import import_folder
from recbole_missing.data.missing import read_missing_file, read_token_file

import_mmrec, import_dgmrec = (partial(import_folder, layout) for layout in ("mmrec", "dgmrec"))
TIKTOK = Path(__file__).resolve().parents[3] / "shared" / "data" / "tiktok"

INTER = """userID\titemID\trating\ttimestamp\tx_label
0\t0\t5.0\t100\t0
0\t1\t4.0\t101\t1
0\t2\t3.0\t102\t2
007\t3\t5.0\t103\t0
007\t4\t5.0\t104\t0
007\t0\t5.0\t105\t1
007\t1\t5.0\t106\t2
cold\t2\t5.0\t107\t1
cold\t5\t5.0\t108\t2
"""


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "raw"
    folder.mkdir()
    (folder / "tiny.inter").write_text(INTER)
    np.save(folder / "text_feat.npy", np.arange(14, dtype=np.float16).reshape(7, 2))
    np.save(folder / "image_feat.npy", np.arange(21, dtype=np.float32).reshape(7, 3))
    return folder


@pytest.fixture
def masked(source):
    mask = {"t": [0], "v": [1, 6], "a": [2], "ta": [3], "all": [4], "tv": [], "va": []}
    save_object(source / "missing_items_0.6.npy", {key: np.array(ids) for key, ids in mask.items()})
    rows = [line for line in INTER.splitlines() if not line.startswith("007\t4\t")]
    (source / "tiny_del.inter").write_text("\n".join(rows) + "\n")
    return source


def test_mmrec(source, tmp_path):
    report = import_mmrec(source, "tiny", tmp_path / "out")
    folder = tmp_path / "out" / "tiny"
    header = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
    assert (folder / "tiny.train.inter").read_text() == header + (
        "0\t0\t5.0\t100\n007\t3\t5.0\t103\n007\t4\t5.0\t104\n"
    )
    assert (
        folder / "tiny.valid.inter"
    ).read_text() == header + "0\t1\t4.0\t101\n007\t0\t5.0\t105\n"
    assert (folder / "tiny.test.inter").read_text() == header + "0\t2\t3.0\t102\n007\t1\t5.0\t106\n"
    for modality in ("image", "text"):
        written = np.load(folder / "features" / f"{modality}.npy")
        raw = np.load(source / f"{modality}_feat.npy")
        np.testing.assert_array_equal(written, raw)
        assert written.dtype == raw.dtype
        assert (folder / "features" / f"{modality}.ids").read_text() == "0\n1\n2\n3\n4\n5\n6\n"
    assert not (folder / "new_items.txt").exists()
    assert (report.users, report.items) == (2, 5)
    assert report.interactions == {"train": 3, "valid": 2, "test": 2}
    assert report.modalities == {"image": (7, 3), "text": (7, 2)}
    assert "1 users without training interaction dropped from valid 1, test 1" in str(report)
    assert str(report).endswith(
        "Next: recbole-missing run --model=DGMRec --dataset=tiny "
        f"--config_files={folder / 'tiny.yaml'}"
    )
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["tiny"]


def test_mmrec_config(source, tmp_path):
    import_mmrec(source, "tiny", tmp_path / "out")
    config = yaml.safe_load((tmp_path / "out" / "tiny" / "tiny.yaml").read_text())
    assert config == {
        "USER_ID_FIELD": "user_id",
        "ITEM_ID_FIELD": "item_id",
        "load_col": {"inter": ["user_id", "item_id"]},
        "benchmark_filename": ["train", "valid", "test"],
        "data_path": str(tmp_path / "out"),
        "modalities": ["image", "text"],
        "image_features": "features/image.npy",
        "image_ids": "features/image.ids",
        "text_features": "features/text.npy",
        "text_ids": "features/text.ids",
        "metrics": ["Recall", "NDCG"],
        "topk": [1],
        "valid_metric": "Recall@1",
    }


@pytest.mark.parametrize("text", ["1\n5\n", "1\t5", "5,1\r\n"])
def test_rows_that_mmrec_filled_with_the_mean_are_holes(source, tmp_path, text):
    (source / "missed_img_itemIDs.csv").write_text(text)
    report = import_mmrec(source, "tiny", tmp_path)
    features = tmp_path / "tiny" / "features"
    assert (features / "image.ids").read_text().split() == ["0", "2", "3", "4", "6"]
    np.testing.assert_array_equal(
        np.load(features / "image.npy"), np.load(source / "image_feat.npy")[[0, 2, 3, 4, 6]]
    )
    assert report.modalities == {"image": (5, 3), "text": (7, 2)}
    assert "2 items have no image" in str(report)


def test_a_modality_of_any_name(source, tmp_path):
    np.save(source / "acoustic_feat.npy", np.ones((7, 1), dtype=np.int64))
    report = import_mmrec(source, "tiny", tmp_path)
    assert list(report.modalities) == ["image", "text", "acoustic"]


def test_dgmrec(masked, tmp_path):
    save_object(masked / "missing_items_0.75.npy", {"all": np.array([0, 5])})
    report = import_dgmrec(masked, "tiny", tmp_path)
    folder = tmp_path / "tiny"
    tokens, names = ["[PAD]", "0", "1", "2", "3", "4"], ["image", "text"]
    missing = read_missing_file(folder / "missing_0.6.tsv", tokens, names)
    assert (folder / "missing_0.6.tsv").read_text().startswith(f"# written for\t{folder.name}\t")
    expected = {"0": [0, 1], "1": [1, 0], "2": [0, 0], "3": [0, 1], "4": [1, 1]}
    np.testing.assert_array_equal(missing[1:], [expected[token] for token in tokens[1:]])
    everything = read_missing_file(folder / "missing_0.75.tsv", tokens, names)
    np.testing.assert_array_equal(np.argwhere(everything), [[1, 0], [1, 1]])
    np.testing.assert_array_equal(
        np.flatnonzero(read_token_file(folder / "new_items.txt", tokens)), [5]
    )
    assert report.interactions["train"] == 3
    assert report.masks["missing_0.6.tsv"] == {"image": 2, "text": 3}
    assert "missing_items_0.6.npy: names audio, which has no features; left out" in str(report)
    assert "missing_items_0.6.npy: items without interaction left out: 1" in str(report)
    text = (folder / "tiny.yaml").read_text()
    config = yaml.safe_load(text)
    assert config["missing_protocol"] == "file" and config["missing_file"] == "missing_0.6.tsv"
    assert config["new_items"] == "none" and config["new_items_file"] == "new_items.txt"
    assert "# Another mask of the source: `missing_file: missing_0.75.tsv`." in text
    assert "new_items: file" in text


def test_all_means_what_a_two_modality_mask_speaks_of(source, tmp_path):
    np.save(source / "audio_feat.npy", np.ones((7, 1)))
    mask = {"t": np.array([0]), "v": np.array([1]), "all": np.array([2])}
    save_object(source / "missing_items_0.6.npy", mask)
    report = import_dgmrec(source, "tiny", tmp_path)
    assert report.masks["missing_0.6.tsv"] == {"image": 2, "text": 2, "audio": 0}
    assert "says nothing of audio" in str(report)


def test_new_items_from_their_own_file(masked, tmp_path):
    (masked / "tiny_del.inter").unlink()
    np.save(masked / "new_items.npy", np.array([3, 6, 0]))
    import_dgmrec(masked, "tiny", tmp_path)
    assert (tmp_path / "tiny" / "new_items.txt").read_text() == "0\n3\n"


def test_mmrec_says_that_masks_are_not_read(masked, tmp_path):
    report = import_mmrec(masked, "tiny", tmp_path)
    assert "missing_items_0.6.npy: not read" in str(report)
    assert not list((tmp_path / "tiny").glob("missing*"))


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ({"x": [1]}, "keys must be 'all' or made of the letters"),
        ({"": [1]}, "keys must be"),
        ({}, "keys must be"),
        ({"t": [-1]}, r"between 0 and 6, got \[-1\]"),
        ({"t": [7]}, r"between 0 and 6, got \[7\]"),
        ({"t": [1], "v": [1]}, r"under one key once, got several entries for \[1\]"),
        ({"t": [1, 1]}, "under one key once"),
    ],
)
def test_bad_masks(source, tmp_path, mask, message):
    arrays = {key: np.array(ids) for key, ids in mask.items()}
    save_object(source / "missing_items_0.6.npy", arrays)
    with pytest.raises(ValueError, match=message):
        import_dgmrec(source, "tiny", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_dgmrec_needs_a_mask(source, tmp_path):
    with pytest.raises(ValueError, match="import mmrec"):
        import_dgmrec(source, "tiny", tmp_path)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("tiny.inter", INTER.replace("x_label", "split"), r"header must name \['x_label'\]"),
        ("tiny.inter", "", "must hold data, got 0 bytes"),
        ("tiny.inter", INTER + "1\t2\n", "line 11 must have 5 cells"),
        ("tiny.inter", INTER + "1\t2.0\t5\t1\t0\n", "line 11: itemID must be a row number"),
        ("tiny.inter", INTER + "1\t-1\t5\t1\t0\n", "itemID must be a row number"),
        ("tiny.inter", INTER + "1\t1\t5\t1\t3\n", "line 11: x_label must be 0"),
        (
            "tiny.inter",
            INTER + "1\t7\t5\t1\t0\n",
            "image_feat.npy has 7 rows, tiny.inter has item 7",
        ),
        ("tiny.inter", INTER.replace("\t2\n", "\t1\n"), "test interactions: must be one or more"),
        ("image_feat.npy", b"\x93NUMPY", "image_feat.npy: must have a readable .npy header"),
        ("two words_feat.npy", b"", "must be an identifier"),
        ("other.inter", INTER, r"must hold one <dataset>\.inter"),
        ("missed_img_itemIDs.csv", "1\nitemID\n", r"must hold item ids, got \['itemID'\]"),
        ("missed_img_itemIDs.csv", "9", r"between 0 and 6, got \[9\]"),
    ],
)
def test_bad_sources(source, tmp_path, file, content, message):
    path = source / file
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(ValueError, match=message):
        import_mmrec(source, "tiny", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "matrix", [np.arange(7), np.full((7, 1), "a"), np.full((7, 1), None), np.ones((6, 1))[:4]]
)
def test_bad_features(source, tmp_path, matrix):
    np.save(source / "image_feat.npy", matrix)
    with pytest.raises(ValueError, match=r"image_feat\.npy"):
        import_mmrec(source, "tiny", tmp_path)


def test_several_inter_files_the_one_named_after_the_folder_counts(source, tmp_path):
    (source / "raw.inter").write_text(INTER.replace("007", "8"))
    assert import_mmrec(source, "tiny", tmp_path / "out").users == 2
    assert "8\t3" in (tmp_path / "out" / "tiny" / "tiny.train.inter").read_text()


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../a", "a\\b", "a..b", "a b", "-x", "x."])
def test_bad_names(source, tmp_path, name):
    with pytest.raises(ValueError, match="plain folder name"):
        import_mmrec(source, name, tmp_path / "out")


def test_a_name_that_is_no_file_name_for_its_length(source, tmp_path):
    with pytest.raises(ValueError, match="must have 200 bytes at most, got 300"):
        import_mmrec(source, "x" * 300, tmp_path / "out")
    import_mmrec(source, "x" * 200, tmp_path / "out")
    assert (tmp_path / "out" / ("x" * 200)).is_dir()


def test_names_of_modalities_are_those_that_a_run_takes(source, tmp_path):
    for name, message in (("item", "item_scale is a setting already"), ("keys", "identifier")):
        np.save(source / f"{name}_feat.npy", np.ones((7, 2)))
        with pytest.raises(ValueError, match=f"modality '{name}': .*{message}"):
            import_mmrec(source, "tiny", tmp_path / "out")
        (source / f"{name}_feat.npy").unlink()
    assert not (tmp_path / "out" / "tiny").exists()


@pytest.mark.parametrize(("n_items", "topk"), [(3, [1]), (30, [1, 3, 5]), (200, [10, 20, 50])])
def test_cut_offs_fit_the_items(tmp_path, n_items, topk):
    (tmp_path / "raw").mkdir()
    rows = [f"{u}\t{(u + k) % n_items}\t{k}" for u in range(n_items) for k in range(3)]
    text = "\n".join(["userID\titemID\tx_label", *rows]) + "\n"
    (tmp_path / "raw" / "raw.inter").write_text(text)
    np.save(tmp_path / "raw" / "image_feat.npy", np.ones((n_items, 2)))
    import_mmrec(tmp_path / "raw", "tiny", tmp_path)
    config = yaml.safe_load((tmp_path / "tiny" / "tiny.yaml").read_text())
    assert config["topk"] == topk
    assert config["valid_metric"] == f"Recall@{topk[len(topk) // 2]}"


@pytest.mark.parametrize("column", [0, 1])
def test_numbers_of_thousands_of_digits(source, tmp_path, column):
    cells = ["9" * 5000, "0"][:: -1 if column else 1]
    (source / "tiny.inter").write_text(INTER + "\t".join([*cells, "1", "1", "0"]) + "\n")
    if column:
        with pytest.raises(ValueError, match="line 11: itemID must be a row number"):
            import_mmrec(source, "tiny", tmp_path / "out")
    else:
        assert import_mmrec(source, "tiny", tmp_path / "out").users == 3
    (source / "missed_img_itemIDs.csv").write_text("9" * 5000)
    (source / "tiny.inter").write_text(INTER)
    with pytest.raises(ValueError, match="missed_img_itemIDs.csv: must hold item ids"):
        import_mmrec(source, "other", tmp_path / "out")


def test_an_existing_folder_is_replaced_only_by_force_and_keeps_the_files_of_others(
    source, tmp_path
):
    import_mmrec(source, "tiny", tmp_path)
    mine = [tmp_path / "tiny" / name for name in ("notes.txt", "features/mine", "own/deep/file")]
    for path in mine:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
    (tmp_path / "tiny" / "link").symlink_to(source)
    with pytest.raises(ValueError, match="--force"):
        import_mmrec(source, "tiny", tmp_path)
    (source / "image_feat.npy").rename(source / "picture_feat.npy")
    import_mmrec(source, "tiny", tmp_path, force=True)
    assert [path.read_text() for path in mine] == ["mine"] * 3
    assert (tmp_path / "tiny" / "link").resolve() == source.resolve()
    features = {path.name for path in (tmp_path / "tiny" / "features").glob("*.npy")}
    assert features == {"picture.npy", "text.npy"}, "the old import's own files are gone"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["raw", "tiny"]


def test_force_refuses_what_no_import_wrote_and_what_was_changed_since(source, tmp_path):
    (tmp_path / "tiny").mkdir()
    notes = tmp_path / "tiny" / "tiny.yaml"
    notes.write_text("mine")
    with pytest.raises(ValueError, match="tiny: must be absent, .* got files of another origin"):
        import_mmrec(source, "tiny", tmp_path, force=True)
    assert notes.read_text() == "mine"
    import_mmrec(source, "other", tmp_path)
    notes = tmp_path / "other" / "other.yaml"
    notes.write_text("mine")
    with pytest.raises(ValueError, match="other.yaml: must be as the last run wrote it .* changed"):
        import_mmrec(source, "other", tmp_path, force=True)
    assert notes.read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "raw", "tiny"]


def test_force_does_not_replace_the_source(source, tmp_path):
    with pytest.raises(ValueError, match="must not contain the source"):
        import_mmrec(source, "raw", tmp_path, force=True)
    with pytest.raises(ValueError, match="must not contain the source"):
        import_mmrec(source, tmp_path.name, tmp_path.parent, force=True)
    assert (source / "tiny.inter").exists()


@pytest.mark.parametrize("failing", ["_write_interactions", "_yaml"])
def test_a_failure_leaves_the_old_data_and_nothing_else(source, tmp_path, monkeypatch, failing):
    import_mmrec(source, "tiny", tmp_path)
    before = (tmp_path / "tiny" / "tiny.train.inter").read_text()

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(folder, failing, fail)
    for name, force in (("tiny", True), ("other", False)):
        with pytest.raises(OSError, match="disk full"):
            import_mmrec(source, name, tmp_path, force=force)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["raw", "tiny"]
    assert (tmp_path / "tiny" / "tiny.train.inter").read_text() == before


def test_a_failure_of_the_last_step_puts_the_old_data_back(source, tmp_path, monkeypatch):
    import_mmrec(source, "tiny", tmp_path)
    (tmp_path / "tiny" / "mine").write_text("")
    rename = Path.replace

    def fail(self, target):
        if self.name == "new":
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(KeyboardInterrupt):
        import_mmrec(source, "tiny", tmp_path, force=True)
    assert (tmp_path / "tiny" / "mine").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["raw", "tiny"]


@pytest.mark.skipif(not TIKTOK.exists(), reason="../shared/data/tiktok is absent")
def test_tiktok(tmp_path):
    report = import_dgmrec(TIKTOK, "tiktok", tmp_path)
    folder = tmp_path / "tiktok"
    # 6,130 and 3,051 interactions, less those of ten users who have no training interaction.
    assert report.interactions == {"train": 59_541, "valid": 6_130 - 5, "test": 3_051 - 5}
    assert report.new_items == 1_242
    assert len((folder / "new_items.txt").read_text().splitlines()) == 1_242
    # Items 4161 and 5851 occur only with dropped users, so the data set does not know them.
    assert report.items == 6_710 - 2
    assert report.masks == {
        "missing_0.6.tsv": {"image": 2_685, "audio": 2_685 - 1},
        "missing_0.75.tsv": {"image": 3_355 - 2, "audio": 3_353 - 2},
    }
    assert report.modalities == {"image": (6_710, 128), "audio": (6_710, 128)}
    assert np.load(folder / "features" / "audio.npy").dtype == np.float16
    config = yaml.safe_load((folder / "tiktok.yaml").read_text())
    assert config["modalities"] == ["image", "audio"]
    assert config["missing_file"] == "missing_0.6.tsv"


def test_quotes_are_no_part_of_an_id(source, tmp_path):
    """As MMRec reads them, with pandas; what needs quotes is written with quotes."""
    import_mmrec(source, "plain", tmp_path)
    rows = INTER.replace("007", '"007"').replace("\n0\t", '\n"0"\t').replace("\t4\t", '\t"4"\t')
    (source / "tiny.inter").write_text(rows)
    import_mmrec(source, "quoted", tmp_path)
    for split in ("train", "valid", "test"):
        read = [(tmp_path / name / f"{name}.{split}.inter").read_text() for name in
                ("plain", "quoted")]  # fmt: skip
        assert read[0] == read[1]
    (source / "tiny.inter").write_text(INTER.replace("007", '"""007"""'))
    import_mmrec(source, "named", tmp_path)
    assert '"""007"""\t3\t' in (tmp_path / "named" / "named.train.inter").read_text()


def test_a_row_of_nan_is_a_hole_and_other_numbers_must_be_finite(source, tmp_path):
    image = np.load(source / "image_feat.npy")
    image[4] = np.nan
    np.save(source / "image_feat.npy", image)
    (source / "missed_img_itemIDs.csv").write_text("1\n4\n")
    report = import_mmrec(source, "tiny", tmp_path)
    assert "image_feat.npy: 1 rows are NaN; their items have no image" in report.notes
    ids = (tmp_path / "tiny" / "features" / "image.ids").read_text().split()
    assert ids == ["0", "2", "3", "5", "6"]
    for wrong in (np.nan, np.inf, -np.inf):
        image[2, 1] = wrong
        np.save(source / "image_feat.npy", image)
        with pytest.raises(ValueError, match=r"must be finite .* in 1 rows such as \[2\]"):
            import_mmrec(source, "other", tmp_path)


def test_repeated_pairs_are_kept_and_counted(source, tmp_path):
    rows = "0\t0\t5.0\t108\t0\n0\t0\t5.0\t109\t2\n"
    (source / "tiny.inter").write_text(INTER + rows)
    report = import_mmrec(source, "tiny", tmp_path)
    assert "train: 1 interactions repeat an earlier pair; kept" in report.notes
    assert "1 pairs of user and item are in two splits or more; kept" in str(report)
    assert report.interactions == {"train": 4, "valid": 2, "test": 3}
