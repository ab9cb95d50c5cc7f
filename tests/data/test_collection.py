"""The arrays that an imputer is given: order of items, completion, files."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import sparse

from recbole_missing.data.collection import Collection, in_order
from recbole_missing.imputation import FeatProp, Mean
from recbole_missing.imputation.base import Table


@pytest.fixture
def collection():
    generator = np.random.default_rng(0)
    items = ["10", "9", "2", "33", "4"]
    observed = torch.tensor([True, False, True, True, True])
    features = torch.from_numpy(generator.normal(size=(5, 3)).astype(np.float32))
    table = Table("image", features * observed[:, None], observed)
    interactions = sparse.csr_matrix((generator.random((6, 5)) < 0.6).astype(np.float32))
    donors = torch.tensor([True, True, True, False, True])
    edges = sparse.csr_matrix(([1.0, 1.0], ([0, 1], [1, 0])), (5, 5))  # items "10" and "9"
    return Collection("toy", items, {"image": table}, interactions, donors, edges)


def test_tokens_in_order():
    assert in_order(["10", "9", "2", "9"]) == ["2", "9", "10"]
    assert in_order(["10", "9", "02"]) == ["02", "10", "9"], "02 is a name"
    assert in_order(["b", "a"]) == ["a", "b"]


def test_everything_moves_with_its_item(collection):
    ordered = collection.in_order()
    assert ordered.items == ["2", "4", "9", "10", "33"]
    assert ordered.name == "toy"
    rows = [collection.items.index(item) for item in ordered.items]
    table, former = ordered.tables["image"], collection.tables["image"]
    assert torch.equal(table.features, former.features[rows])
    assert torch.equal(table.observed, former.observed[rows])
    assert torch.equal(ordered.donors, collection.donors[rows])
    dense = collection.interactions.toarray()[:, rows]
    np.testing.assert_array_equal(ordered.interactions.toarray(), dense)
    edges = collection.edges.toarray()[rows][:, rows]
    np.testing.assert_array_equal(ordered.edges.toarray(), edges)


def test_completion_hears_of_donors_and_edges(collection):
    table = collection.tables["image"]
    mean = collection.completed(Mean())["image"]
    torch.testing.assert_close(mean[1], table.features[[0, 2, 4]].mean(dim=0))
    of_edges = collection.completed(FeatProp(graph="edges", layers=1))["image"]
    assert torch.equal(of_edges[table.observed], table.features[table.observed])
    torch.testing.assert_close(of_edges[1], table.features[0])


@pytest.mark.parametrize("kind", ["npy", "safetensors"])
def test_written_rows_are_in_the_order_of_the_ids(collection, tmp_path, kind):
    features = collection.completed(Mean())
    collection.write(tmp_path, features, kind)
    items = (tmp_path / "items.ids").read_text().split()
    assert items == ["2", "4", "9", "10", "33"]
    rows = [collection.items.index(item) for item in items]
    if kind == "npy":
        written = np.load(tmp_path / "image.npy"), np.load(tmp_path / "image_observed.npy")
    else:
        load = pytest.importorskip("safetensors.numpy").load_file
        written = (
            load(tmp_path / "image.safetensors")["features"],
            load(tmp_path / "image_observed.safetensors")["observed"],
        )
    np.testing.assert_array_equal(written[0], features["image"][rows].numpy())
    assert written[1].tolist() == [True, True, False, True, True]
