"""MMSSL and DiffMM: tiny folders, the counts of Amazon Baby and TikTok, bad input."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from layouts import lacking, pairs, splits_of
from pickles import Call
from scipy import sparse

from recbole_missing.convert.importers import import_folder

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
SPLITS = {
    "train": {0: [0, 2], 1: [1, 2], 2: [3]},
    "valid": {0: [1], 1: [0], 3: [2]},  # user 3 is in no training
    "test": {0: [3], 1: [3], 2: [0]},
}
N_ITEMS = 5  # item 4 has no interaction
IMAGE = np.arange(15, dtype=np.float16).reshape(N_ITEMS, 3)


def write_features(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    text = np.ones((N_ITEMS, 2), dtype=np.float32)
    text[1] = np.nan
    np.save(folder / "image_feat.npy", IMAGE)
    np.save(folder / "text_feat.npy", text)


def write_json(folder: Path, splits=SPLITS) -> None:
    folder.mkdir(exist_ok=True)
    for file, split in (("train", "train"), ("val", "valid"), ("test", "test")):
        lists = {str(user): items for user, items in splits[split].items()}
        (folder / f"{file}.json").write_text(json.dumps(lists))


def matrix(split: str) -> sparse.coo_matrix:
    pairs = [(user, item) for user, items in SPLITS[split].items() for item in items]
    return sparse.coo_matrix((np.ones(len(pairs)), tuple(zip(*pairs))), shape=(4, N_ITEMS))


def write_pickles(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for split, file in (("train", "trn"), ("valid", "val"), ("test", "tst")):
        (folder / f"{file}Mat.pkl").write_bytes(pickle.dumps(matrix(split)))


@pytest.fixture(params=["mmssl", "lattice", "diffmm"])
def layout(request, tmp_path):
    """Layout and its folder."""
    folder = tmp_path / "raw"
    write_features(folder)
    if request.param == "diffmm":
        write_pickles(folder)
        return "diffmm", folder
    write_json(folder if request.param == "mmssl" else folder / "5-core")
    return "mmssl", folder


def test_a_folder(layout, tmp_path):
    report = import_folder(*layout, "tiny", tmp_path / "out")
    folder = tmp_path / "out" / "tiny"
    read = {
        split: (folder / f"tiny.{split}.inter").read_text().replace("\t", " ").splitlines()[1:]
        for split in ("train", "valid", "test")
    }
    assert read == {
        "train": ["0 0", "0 2", "1 1", "1 2", "2 3"],
        "valid": ["0 1", "1 0"],
        "test": ["0 3", "1 3", "2 0"],
    }
    np.testing.assert_array_equal(np.load(folder / "features" / "image.npy"), IMAGE)
    assert np.load(folder / "features" / "image.npy").dtype == np.float16
    assert (folder / "features" / "text.ids").read_text().split() == ["0", "2", "3", "4"]
    assert report.notes == [
        "text_feat.npy: 1 rows are NaN; their items have no text",
        "1 users without training interaction dropped from valid 1",
        "1 of 5 items have no interaction; no items of the data set",
    ]
    assert (report.users, report.items) == (3, 4)


def test_it_runs(layout, tmp_path):
    import_folder(*layout, "tiny", tmp_path)
    train, _, test = splits_of(tmp_path / "tiny")
    expected = {(str(user), str(item)) for user, items in SPLITS["train"].items() for item in items}
    assert pairs(train) == expected and len(pairs(test)) == 3
    assert lacking(train, "text") == {"1"} and not lacking(train, "image")


def test_force_and_names_are_those_of_every_import(layout, tmp_path):
    import_folder(*layout, "tiny", tmp_path)
    with pytest.raises(ValueError, match="--force"):
        import_folder(*layout, "tiny", tmp_path)
    import_folder(*layout, "tiny", tmp_path, force=True)
    with pytest.raises(ValueError, match="plain folder name"):
        import_folder(*layout, "../tiny", tmp_path)


@pytest.mark.parametrize("protocol", [2, 4])
def test_the_pickled_training_matrix_is_compared(tmp_path, protocol):
    write_features(tmp_path / "raw")
    write_json(tmp_path / "raw")
    path = tmp_path / "raw" / "train_mat"
    path.write_bytes(pickle.dumps(matrix("train").tocsr(), protocol=protocol))
    report = import_folder("mmssl", tmp_path / "raw", "same", tmp_path)
    assert "train_mat: the same 5 pairs as train.json" in report.notes
    path.write_bytes(pickle.dumps(matrix("test").tocsr(), protocol=protocol))
    report = import_folder("mmssl", tmp_path / "raw", "other", tmp_path)
    assert "3 pairs are only in the matrix, 5 only in train.json" in str(report)
    trace = tmp_path / "trace"
    path.write_bytes(pickle.dumps(Call(Path.touch, trace), protocol=protocol))
    report = import_folder("mmssl", tmp_path / "raw", "evil", tmp_path)
    assert "train_mat: not read, and not needed" in str(report) and not trace.exists()
    assert report.interactions["train"] == 5


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("train.json", "[]", "train interactions: must be one or more"),
        ("train.json", "{", "must be whole JSON"),
        ("train.json", "[[1, 2]]", "got another kind of JSON"),
        ("train.json", '{"0": [0], "0": [1]}', "a user must have one list"),
        ("train.json", '{"0": {"1": 2}}', "must be an integer of 0 or more"),
        ("train.json", '{"0": 1}', "user '0' must have a list of items, got 1"),
        ("train.json", '{"a": [1]}', "a user must be an integer of 0 or more"),
        ("train.json", '{"0": ["1"]}', "an item of user '0' must be an integer .* got '1'"),
        ("train.json", '{"0": [1.0]}', "must be an integer .* got 1.0"),
        ("train.json", '{"0": [true]}', "must be an integer .* got True"),
        ("train.json", '{"0": [-1]}', "must be an integer .* got -1"),
        ("train.json", f'{{"{"9" * 5000}": [1]}}', "train.json: a user must be an integer"),
        ("train.json", f'{{"0": [{"9" * 5000}]}}', "train.json: must be"),
        ("train.json", f'{{"0": [{"9" * 30}]}}', "train.json: .* that fits 64 bits"),
        ("train.json", '{"0": [5]}', "image_feat.npy has 5 rows, .* has item 5"),
        (
            "val.json",
            "{}",
            "valid interactions: must be one or more of users in training, got none",
        ),
        ("val.json", '{"9": [1]}', "got 1 of users without training interaction"),
        ("val.json", "", "must hold data, got 0 bytes"),
        ("val.json", None, "got no val.json"),
        ("image_feat.npy", None, None),
        ("text_feat.npy", IMAGE[:4], r"a row for each of 5 items, got text_feat.npy 4"),
        ("text_feat.npy", IMAGE[:3], r"text_feat.npy has 3 rows, .* has item 3"),
        ("text_feat.npy", IMAGE.ravel(), "must be a matrix"),
        ("text_feat.npy", np.full((5, 2), np.inf), "every number must be finite in float32"),
    ],
)
def test_bad_json_and_features(tmp_path, file, content, message):
    write_features(tmp_path / "raw")
    write_json(tmp_path / "raw")
    path = tmp_path / "raw" / file
    if content is None:
        path.unlink()
    elif isinstance(content, str):
        path.write_text(content)
    else:
        np.save(path, content)
    if message is None:
        assert list(import_folder("mmssl", tmp_path / "raw", "x", tmp_path).modalities) == ["text"]
        return
    with pytest.raises(ValueError, match=message):
        import_folder("mmssl", tmp_path / "raw", "tiny", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_truncated_feature_file(layout, tmp_path):
    path = layout[1] / "image_feat.npy"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"image_feat\.npy: must have 158 bytes .* got 157"):
        import_folder(*layout, "tiny", tmp_path / "out")
    for path in layout[1].glob("*_feat.npy"):
        path.unlink()
    with pytest.raises(ValueError, match="must hold <modality>_feat.npy files, got none"):
        import_folder(*layout, "tiny", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_two_cores_are_refused(tmp_path):
    write_features(tmp_path / "raw")
    for core in ("5-core", "10-core"):
        write_json(tmp_path / "raw" / core)
    with pytest.raises(ValueError, match="must hold one split, got"):
        import_folder("mmssl", tmp_path / "raw", "tiny", tmp_path / "out")


def test_repeated_pairs_are_counted(tmp_path):
    write_features(tmp_path / "raw")
    write_json(tmp_path / "raw", {**SPLITS, "test": {0: [0, 0, 3], 1: [2], 2: [0]}})
    report = import_folder("mmssl", tmp_path / "raw", "tiny", tmp_path)
    assert "test: 1 interactions repeat an earlier pair; kept" in report.notes
    assert "2 pairs of user and item are in two splits or more; kept" in str(report)
    assert report.interactions["test"] == 5


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("valMat.pkl", None, "got no valMat.pkl"),
        ("valMat.pkl", pickle.dumps(sparse.coo_matrix((3, N_ITEMS))), "one shape"),
        (
            "valMat.pkl",
            pickle.dumps(sparse.coo_matrix((4, N_ITEMS))),
            "valid interactions: must be",
        ),
        ("tstMat.pkl", pickle.dumps(Call(Path.mkdir, Path("pwned"))), "is not admitted"),
        ("tstMat.pkl", pickle.dumps(matrix("test").todok()), "is not admitted"),
        ("tstMat.pkl", pickle.dumps(matrix("test"))[:99], "must be one pickled"),
        ("image_feat.npy", IMAGE[:4], "got image_feat.npy 4"),
    ],
)
def test_bad_pickles(tmp_path, monkeypatch, file, content, message):
    monkeypatch.chdir(tmp_path)
    write_features(tmp_path / "raw")
    write_pickles(tmp_path / "raw")
    path = tmp_path / "raw" / file
    if content is None:
        path.unlink()
    elif isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.save(path, content)
    with pytest.raises(ValueError, match=message):
        import_folder("diffmm", tmp_path / "raw", "tiny", tmp_path / "out")
    assert not (tmp_path / "out").exists() and not Path("pwned").exists()


def published(name: str, source: Path) -> dict[str, list[list[int]]]:
    """Rows and columns of each split of a table with ``x_label``, as DiffMM's files."""
    label = {0: "trn", 1: "val", 2: "tst"}
    found: dict[str, list[list[int]]] = {part: [[], []] for part in label.values()}
    with (DATA / name / f"{name}.inter").open() as file:
        header = next(file).rstrip("\n").split("\t")
        places = [header.index(column) for column in ("userID", "itemID", "x_label")]
        for line in file:
            cells = line.rstrip("\n").split("\t")
            user, item, part = (int(cells[place]) for place in places)
            found[label[part]][0].append(user)
            found[label[part]][1].append(item)
    source.mkdir()
    shape = tuple(max(max(pairs[side]) for pairs in found.values()) + 1 for side in (0, 1))
    for part, (rows, columns) in found.items():
        built = sparse.coo_matrix((np.ones(len(rows)), (rows, columns)), shape=shape)
        (source / f"{part}Mat.pkl").write_bytes(pickle.dumps(built))
    return found


@pytest.mark.skipif(not (DATA / "baby").exists(), reason="../shared/data/baby is absent")
def test_baby(tmp_path):
    found = published("baby", tmp_path / "raw")
    np.save(tmp_path / "raw" / "image_feat.npy", np.ones((7_050, 1), dtype=np.float16))
    report = import_folder("diffmm", tmp_path / "raw", "baby", tmp_path)
    assert (report.users, report.items) == (19_445, 7_050)
    assert sum(report.interactions.values()) == 160_792
    assert report.interactions["train"] == len(found["trn"][0])


@pytest.mark.skipif(not (DATA / "tiktok").exists(), reason="../shared/data/tiktok is absent")
def test_tiktok_says_that_its_splits_are_swapped(tmp_path):
    published("tiktok", tmp_path / "raw")
    for name in ("image", "audio"):
        (tmp_path / "raw" / f"{name}_feat.npy").symlink_to(DATA / "tiktok" / f"{name}_feat.npy")
    report = import_folder("diffmm", tmp_path / "raw", "tiktok", tmp_path)
    assert "validation has 6,130 interactions and test 3,051, as in DGMRec; DiffMM has" in str(
        report
    )
    same = import_folder("dgmrec", DATA / "tiktok", "same", tmp_path)
    assert report.interactions == same.interactions and report.items == same.items
    assert report.modalities == same.modalities
