"""Elliot's tables and Ducho's folders, read and written; Elliot's reading rules as an oracle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from layouts import lacking, pairs, splits_of

from recbole_missing.convert.exporters import export_folder
from recbole_missing.convert.importers import import_folder

TABLES = {
    "train": "0\t10\t5\t100\n0\t11\t4\t101\n1\t11\t3\t102\n2\t12\t5\t103\n",
    "val": "0\t12\t5\t104\n1\t10\t1\t105\n",
    "test": "1\t12\t5\t106\n2\t10\t5\t107\n",
}
LAYER = Path("torch/ResNet50/avgpool")


def add_vectors(source, name, items, shape=(3,), layer=LAYER):
    folder = source / f"{name}_embeddings" / layer
    folder.mkdir(parents=True)
    for item in items:
        np.save(folder / f"{item}.npy", np.full(shape, item, dtype=np.float32))
    return folder


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "raw"
    folder.mkdir()
    for name, text in TABLES.items():
        (folder / f"{name}.tsv").write_text(text)
    add_vectors(folder, "visual", [10, 12])
    add_vectors(folder, "textual", [10, 11, 12], shape=(1, 2))
    return folder


def test_read(source, tmp_path):
    report = import_folder("elliot", source, "tiny", tmp_path)
    train, valid, test = splits_of(tmp_path / "tiny")
    assert pairs(train) == {("0", "10"), ("0", "11"), ("1", "11"), ("2", "12")}
    assert pairs(valid) == {("0", "12"), ("1", "10")}
    assert pairs(test) == {("1", "12"), ("2", "10")}
    assert report.modalities == {"image": (2, 3), "text": (3, 2)}
    assert lacking(train, "image") == {"11"} and not lacking(train, "text")
    assert "avgpool: 1 of 3 items have no image" in report.notes
    rows = (tmp_path / "tiny" / "tiny.valid.inter").read_text().splitlines()
    assert rows[:2] == [
        "user_id:token\titem_id:token\trating:float\ttimestamp:float",
        "0\t12\t5\t104",
    ]


def test_a_vector_of_nan_is_a_hole(source, tmp_path):
    np.save(source / "visual_embeddings" / LAYER / "12.npy", np.full(3, np.nan))
    report = import_folder("elliot", source, "tiny", tmp_path)
    assert "avgpool: 2 of 3 items have no image" in report.notes
    assert lacking(splits_of(tmp_path / "tiny")[0], "image") == {"11", "12"}


def test_lines_without_time(source, tmp_path):
    (source / "test.tsv").write_text("1\t12\t5\n2\t10\t5\n")
    report = import_folder("elliot", source, "tiny", tmp_path)
    assert "timestamp: left out, for some lines have none" in report.notes
    rows = (tmp_path / "tiny" / "tiny.train.inter").read_text().splitlines()
    assert rows[:2] == ["user_id:token\titem_id:token\trating:float", "0\t10\t5"]


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("train.tsv", None, r"must hold one of \['train.tsv'\], got \[\]"),
        ("val.tsv", None, "must hold one of"),
        ("validation.tsv", TABLES["val"], r"got \['validation.tsv', 'val.tsv'\]"),
        ("test.tsv", "", "must hold data, got 0 bytes"),
        ("test.tsv", "\n", "must hold interactions, got none"),
        ("test.tsv", "userId\titemId\trating\n1\t12\t5\n", "line 1 must be user, item"),
        ("test.tsv", "1\n", "line 1 must be user, item"),
        ("test.tsv", "1\t12\t5\t1\t1\n", "line 1 must be user, item"),
        ("test.tsv", "1\t12\t1_0\n", "test.tsv: line 1 must be user, item, rating, time"),
        ("test.tsv", "9\t12\n", "got 1 of users without training interaction"),
        ("visual_embeddings/torch/ResNet50/avgpool/11.npy", b"\x93NUMPY", "11.npy: must have a"),
        ("visual_embeddings/other/11.npy", b"", "must hold one folder of .npy files"),
        ("my own_embeddings/a/b/1.npy", b"", "must be an identifier"),
    ],
)
def test_bad_input(source, tmp_path, file, content, message):
    path = source / file
    if content is None:
        path.unlink()
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=message):
        import_folder("elliot", source, "tiny", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_features_of_other_items_or_other_lengths(source, tmp_path):
    add_vectors(source, "audio", [77])
    with pytest.raises(ValueError, match=r"got \['77'\], items are named '10'"):
        import_folder("elliot", source, "tiny", tmp_path / "out")
    add_vectors(source, "depth", [10, 11])
    np.save(source / "depth_embeddings" / LAYER / "12.npy", np.ones(9))
    (source / "audio_embeddings" / LAYER / "77.npy").unlink()
    with pytest.raises(ValueError, match="must hold one folder of .npy files, got"):
        import_folder("elliot", source, "tiny", tmp_path / "out")


class Elliot:
    """What Elliot's loaders do with the files of one experiment, and no more."""

    names = ("userId", "itemId", "rating", "timestamp")

    def __init__(self, path):
        """Read the YAML file and its tables (dataset.py, strategy fixed)."""
        config = yaml.load(path.read_text(), Loader=yaml.FullLoader)["experiment"]
        assert {"dataset", "data_config", "top_k", "evaluation", "models"} <= set(config)
        data = config["data_config"]
        assert data["strategy"] == "fixed"
        self.tables = {}
        for part in ("train", "validation", "test"):
            local = data[f"{part}_path"]
            assert local.startswith("."), "namespace_model.py takes only these for paths"
            self.tables[part] = pd.read_csv(
                path.parent / local.format(config["dataset"]), sep="\t", header=None,
                names=self.names,
            )  # fmt: skip
        self.sides = {
            side["dataloader"]: self.load(path.parent, side) for side in data["side_information"]
        }

    def load(self, folder, side):
        """Read vectors by integer item id (visual_attribute.py, textual_attribute.py)."""
        (local,) = (value for key, value in side.items() if key != "dataloader")
        files = list((folder / local).iterdir())
        shape = np.load(files[0]).shape[0]
        rows = {int(file.name.split(".")[0]): np.empty(shape) for file in files}
        for item, row in rows.items():
            row[...] = np.load(folder / local / f"{item}.npy")
        return rows


def test_what_is_written_is_read_by_elliot_and_by_us(source, tmp_path):
    import_folder("elliot", source, "tiny", tmp_path)
    report = export_folder("elliot", splits_of(tmp_path / "tiny"), tmp_path / "out")
    folder = tmp_path / "out" / "tiny"
    elliot = Elliot(folder / "elliot.yml")
    for part, file in (("train", "train"), ("validation", "val"), ("test", "test")):
        table = elliot.tables[part]
        assert table["userId"].dtype == table["itemId"].dtype == np.int64
        written = sorted(zip(table["userId"], table["itemId"]))
        lines = TABLES[file].splitlines()
        assert written == sorted(tuple(map(int, line.split("\t")[:2])) for line in lines)
        assert (table["rating"] == 1).all() and table["timestamp"].isna().all()
    assert elliot.sides["VisualAttribute"].keys() == {10, 12}
    assert elliot.sides["TextualAttribute"][11].tolist() == [11, 11]
    assert elliot.sides["VisualAttribute"][12].tolist() == [12, 12, 12]
    assert "Elliot drops 1 of 3 items" in str(report)
    assert not list(folder.glob("*mapping*")), "integers stay"
    import_folder("elliot", folder, "again", tmp_path)
    first, second = splits_of(tmp_path / "tiny"), splits_of(tmp_path / "again")
    for one, other in zip(first, second):
        assert pairs(one) == pairs(other)
    for name in ("image", "text"):
        for part in ("npy", "ids"):
            file = f"features/{name}.{part}"
            assert (tmp_path / "tiny" / file).read_bytes() == (
                tmp_path / "again" / file
            ).read_bytes()


def test_ratings_that_the_run_loads_are_written(source, tmp_path):
    train = TABLES["train"].replace("11\t4\t", "11\t1234567\t").replace("12\t5\t", "12\t0.1\t")
    (source / "train.tsv").write_text(train)
    import_folder("elliot", source, "tiny", tmp_path)
    config = tmp_path / "tiny" / "tiny.yaml"
    text = config.read_text().replace(
        "inter: [user_id, item_id]", "inter: [user_id, item_id, rating]"
    )
    config.write_text(text)
    export_folder("elliot", splits_of(tmp_path / "tiny"), tmp_path / "out")
    rows = (tmp_path / "out" / "tiny" / "train.tsv").read_text().splitlines()
    assert sorted(row.rpartition("\t")[0] for row in rows) == ["0\t10", "0\t11", "1\t11", "2\t12"]
    numbers = {row.rpartition("\t")[0]: np.float32(row.rpartition("\t")[2]) for row in rows}
    assert numbers == {"0\t10": 5, "0\t11": 1234567, "1\t11": 3, "2\t12": np.float32(0.1)}
