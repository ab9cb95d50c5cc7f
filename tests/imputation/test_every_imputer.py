"""What every imputer promises about its inputs, its outputs and itself."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.base import clone

from recbole_missing.imputation import IMPUTERS
from recbole_missing.imputation.base import Imputer

N_ITEMS = 24
LEARNED = ("autoencoder", "graph_autoencoder")
BY_POSITION = ("random", *LEARNED)  # what they draw; test_learned.py permutes the learned ones
SCALES = (1.0, 3e38, 1e20, 1e-20, 1e-38)


def made(name: str, **settings: Any) -> Imputer:
    quick = {"epochs": 2} if name in LEARNED else {}
    return IMPUTERS[name](**quick, **settings)


def bits(rows: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(rows).view(np.int32)


@pytest.fixture
def interactions() -> sparse.csr_matrix:
    full = np.random.default_rng(0).random((30, N_ITEMS)) < 0.2
    full[:, -2:] = False
    return sparse.csr_matrix(full.astype(np.float32))


@pytest.fixture
def given() -> dict[str, np.ndarray]:
    """Two modalities; every third row lacks the first one, some rows lack both."""
    random = np.random.default_rng(1)
    image = random.standard_normal((N_ITEMS, 5)).astype(np.float32)
    text = random.standard_normal((N_ITEMS, 3)).astype(np.float32)
    image[::3] = np.nan
    text[1::4] = np.nan
    text[[0, -1]] = image[-1] = np.nan
    return {"image": image, "text": text}


@pytest.fixture(params=IMPUTERS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_inputs_and_parameters_stay_as_they_are(name, interactions, given) -> None:
    imputer = made(name)
    params, before = imputer.get_params(), {key: rows.copy() for key, rows in given.items()}
    matrix = interactions.copy()
    imputer.fit(interactions).transform(given)
    assert imputer.get_params() == params
    assert all(np.array_equal(bits(given[key]), bits(before[key])) for key in given)
    for part in ("data", "indices", "indptr"):
        assert np.array_equal(getattr(interactions, part), getattr(matrix, part))


def test_observed_rows_are_bit_identical_and_the_rest_is_finite(name, interactions, given) -> None:
    given["image"][1] = -0.0
    completed = made(name).fit(interactions).transform(given)
    for key, rows in completed.items():
        known = np.isfinite(given[key]).all(axis=1)
        assert np.array_equal(bits(rows[known]), bits(given[key][known]))
        assert rows.dtype == np.float32 and np.isfinite(rows).all()


def test_fit_is_idempotent_and_transform_repeats(name, interactions, given) -> None:
    imputer = made(name)
    first = imputer.fit(interactions).transform(given)
    for again in (imputer.transform(given), imputer.fit(interactions).transform(given)):
        assert all(np.array_equal(bits(again[key]), bits(first[key])) for key in first)
    fresh = clone(imputer).fit(interactions).transform(given)
    assert all(np.array_equal(bits(fresh[key]), bits(first[key])) for key in first)


def test_it_survives_pickling(name, interactions, given) -> None:
    imputer = made(name).fit(interactions)
    twin = pickle.loads(pickle.dumps(imputer))
    one, other = imputer.transform(given), twin.transform(given)
    assert all(np.array_equal(bits(one[key]), bits(other[key])) for key in one)


@pytest.mark.parametrize("name", [name for name in IMPUTERS if name not in BY_POSITION])
def test_items_may_stand_in_another_order(name, interactions, given) -> None:
    kept = {"top_k": N_ITEMS} if "top_k" in IMPUTERS[name].hyperparameters else {}
    order = np.random.default_rng(2).permutation(N_ITEMS)
    expected = made(name, **kept).fit(interactions).transform(given)
    moved = {key: rows[order] for key, rows in given.items()}
    got = made(name, **kept).fit(interactions[:, order]).transform(moved)
    for key in given:
        np.testing.assert_allclose(got[key], expected[key][order], rtol=1e-4, atol=1e-6)


def kinds(rows: np.ndarray, folder: Path) -> dict[str, Any]:
    """The same numbers in other containers."""
    import pandas as pd

    np.save(folder / "rows.npy", rows)
    wide = np.zeros((2 * len(rows), 2 * rows.shape[1]), dtype=np.float32)
    wide[::2, ::2] = rows
    return {
        "read-only memmap": np.load(folder / "rows.npy", mmap_mode="r"),
        "not contiguous": wide[::2, ::2],
        "Fortran order": np.asfortranarray(rows),
        "float64": rows.astype(np.float64),
        "big endian": rows.astype(">f4"),
        "np.matrix": np.matrix(rows),
        "list": rows.tolist(),
        "DataFrame": pd.DataFrame(rows),
        "tensor": torch.from_numpy(rows.copy()),
        "tensor with gradient": torch.from_numpy(rows.copy()).requires_grad_(),
        "masked array": np.ma.masked_invalid(rows),
    }


@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
def test_features_in_any_container(name, interactions, given, tmp_path) -> None:
    imputer = made(name).fit(interactions)
    expected = imputer.transform(given)["image"]
    for kind, rows in kinds(given["image"], tmp_path).items():
        got = imputer.transform({"image": rows, "text": given["text"]})["image"]
        assert isinstance(got, torch.Tensor) == isinstance(rows, torch.Tensor), kind
        assert np.array_equal(bits(np.asarray(got.detach() if kind[:6] == "tensor" else got)),
                              bits(expected)), kind  # fmt: skip


@pytest.mark.parametrize("dtype", [np.float16, np.int8, np.int64, np.uint8, bool])
def test_features_of_any_real_dtype(name, interactions, given, dtype) -> None:
    observed = {key: np.isfinite(rows).all(axis=1) for key, rows in given.items()}
    cast = {key: np.nan_to_num(rows * 3).clip(0).astype(dtype) for key, rows in given.items()}
    imputer = made(name).fit(interactions)
    got = imputer.transform(cast, observed)
    same = {key: rows.astype(np.float32) for key, rows in cast.items()}
    for key, rows in imputer.transform(same, observed).items():
        assert np.array_equal(bits(got[key]), bits(rows))


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("shape", ["random", "constant column", "one column", "one row"])
def test_extremes_give_finite_numbers_or_are_refused(
    name, interactions, given, scale, shape
) -> None:
    image = np.sign(given["image"]) if shape == "constant column" else given["image"]
    image, text = image / np.nanmax(np.abs(image)), given["text"] / np.nanmax(np.abs(given["text"]))
    if shape == "constant column":
        image[:, 0] = np.where(np.isnan(image[:, 0]), np.nan, 1.0)
    if shape == "one column":
        image = image[:, :1]
    if shape == "one row":
        image[2:] = np.nan
    rows = {"image": (image * scale).astype(np.float32), "text": (text * scale).astype(np.float32)}
    known = np.isfinite(rows["image"]).all(axis=1)
    imputer = made(name).fit(interactions)
    try:
        completed = imputer.transform(rows)["image"]
    except ValueError as refusal:
        assert scale == 3e38 and "divide them by a number" in str(refusal)
        return
    assert np.isfinite(completed).all()
    assert np.array_equal(bits(completed[known]), bits(rows["image"][known]))


def test_the_nearest_item_is_the_same_at_every_scale(interactions, given) -> None:
    """Squares of such features leave float32, which made every cosine 0."""
    imputer = made("nearest_neighbour").fit(interactions)
    image = given["image"]
    expected = imputer.transform({"image": image, "text": given["text"]})["image"]
    for power in (-100, 100):
        text = given["text"] * np.float32(2.0**power)
        got = imputer.transform({"image": image, "text": text})["image"]
        assert np.array_equal(bits(got), bits(expected))


class Broken(Imputer):
    """An imputer from outside that returns what it may not."""

    answer: Any = None

    def fill(self, table: Any, others: Any) -> Any:
        """Return the answer."""
        from recbole_missing.imputation.base import Filled

        return Filled(self.answer)


def test_what_an_imputer_from_outside_returns_is_checked(interactions) -> None:
    imputer = Broken().fit(interactions)
    rows = np.ones((N_ITEMS, 2), dtype=np.float32)
    rows[3] = np.nan
    imputer.answer = torch.full((N_ITEMS, 2), torch.nan)
    with pytest.raises(ValueError, match="Broken: values for modality 'X' must be finite.* 1 of 1"):
        imputer.transform(rows)
    imputer.answer = torch.ones(N_ITEMS, 3)
    with pytest.raises(ValueError, match=r"Broken: fill must return features \(24, 2\), got"):
        imputer.transform(rows)
