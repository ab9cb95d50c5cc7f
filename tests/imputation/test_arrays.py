"""Arrays of the caller: what has one meaning is converted, the rest is refused by name."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

from recbole_missing.imputation import FeatProp, GraphAutoEncoder, Mean
from recbole_missing.imputation.arrays import as_features, as_interactions, as_mask

N_USERS, N_ITEMS = 20, 12


@pytest.fixture
def dense() -> np.ndarray:
    return (np.random.default_rng(0).random((N_USERS, N_ITEMS)) < 0.3).astype(np.float32)


@pytest.fixture
def features() -> np.ndarray:
    rows = np.random.default_rng(1).standard_normal((N_ITEMS, 3)).astype(np.float32)
    rows[1::3] = np.nan
    return rows


FORMATS = {
    **{f"{kind}_matrix": getattr(sparse, f"{kind}_matrix") for kind in ("csr", "csc", "coo")},
    **{f"{kind}_array": getattr(sparse, f"{kind}_array") for kind in ("csr", "bsr", "coo")},
    "dok": sparse.dok_matrix,
    "lil": sparse.lil_matrix,
    "dia": sparse.dia_matrix,
    "numpy": np.array,
    "read-only": lambda full: np.frombuffer(full.tobytes(), np.float32).reshape(full.shape),
    "bool": lambda full: full > 0,
    "int8": lambda full: full.astype(np.int8),
    "DataFrame": pd.DataFrame,
    "sparse DataFrame": lambda full: pd.DataFrame(full).astype(pd.SparseDtype("float32", 0)),
    "nullable DataFrame": lambda full: pd.DataFrame(full).astype("Int64"),
    "named DataFrame": lambda full: pd.DataFrame(full, columns=[f"i{i}" for i in range(N_ITEMS)]),
    "tensor": torch.from_numpy,
    "bfloat16": lambda full: torch.from_numpy(full).bfloat16(),
    "sparse tensor": lambda full: torch.from_numpy(full).to_sparse(),
    "CSR tensor": lambda full: torch.from_numpy(full).to_sparse_csr(),
    "CSC tensor": lambda full: torch.from_numpy(full).to_sparse_csc(),
}


@pytest.mark.filterwarnings("ignore:Sparse CS:UserWarning")
@pytest.mark.parametrize("kind", FORMATS)
def test_interactions_of_every_kind_are_one_matrix(kind, dense, features) -> None:
    given = FORMATS[kind](dense.copy())
    matrix = as_interactions("x", given)
    assert sparse.isspmatrix_csr(matrix)
    assert np.array_equal(matrix.toarray() > 0, dense > 0)
    expected = FeatProp().fit(sparse.csr_matrix(dense)).transform(features)
    assert np.array_equal(FeatProp().fit(given).transform(features), expected)


def test_entries_that_repeat_do_not_overflow() -> None:
    """256 times 1 is 0 in uint8: the interaction would be gone."""
    ones, zeros = np.ones(256, dtype=np.uint8), np.zeros(256, dtype=int)
    repeated = sparse.coo_matrix((ones, (zeros, zeros)), (1, 2))
    assert as_interactions("x", repeated).toarray().tolist() == [[256.0, 0.0]]
    learned = GraphAutoEncoder(epochs=1).fit(repeated)
    assert learned.interactions_.toarray().tolist() == [[1.0, 0.0]]


def with_entry(value: float) -> np.ndarray:
    full = np.zeros((3, 4))
    full[1, 2] = value
    return full


MATRIX = r"FeatProp: interactions must be a matrix \(n_users, n_items\), got "
REFUSED = {
    "nan": (with_entry(np.nan), "interactions must be finite, got 1 entries such as nan"),
    "sparse nan": (sparse.csr_matrix(with_entry(np.nan)), "must be finite, got 1 entries"),
    "inf": (with_entry(np.inf), "must be finite, got 1 entries such as inf"),
    "negative": (with_entry(-2), "must be 0 or positive, got 1 entries such as -2.0"),
    "masked": (np.ma.masked_equal(with_entry(2), 2), "must be finite, got 1 entries"),
    "pairs": ([(0, 1), (2, 3)], MATRIX + "a list; make one of pairs"),
    "table of pairs": (
        pd.DataFrame({"user_id": [0, 1], "item_id": [1, 0]}),
        MATRIX + r"columns \['user_id', 'item_id'\]",
    ),
    "one row": (np.ones(4), MATRIX + r"shape \(4,\)"),
    "three axes": (np.ones((2, 2, 2)), MATRIX + r"shape \(2, 2, 2\)"),
    "no items": (np.ones((3, 0)), MATRIX + r"shape \(3, 0\)"),
    "text": (np.full((2, 2), "1"), "interactions must be real numbers, got <U1"),
    "complex": (np.ones((2, 2), complex), "must be real numbers, got complex128"),
    "objects": (np.full((2, 2), None), "must be real numbers, got object"),
    "text columns": (pd.DataFrame({"a": ["x"]}), "must be real numbers, got object"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_other_interactions_are_refused(case) -> None:
    given, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        FeatProp().fit(given)


@pytest.mark.parametrize(
    "convert", [np.asarray, pd.DataFrame, torch.from_numpy, sparse.csr_array, sparse.coo_matrix]
)
def test_edges_of_every_kind(convert, dense, features) -> None:
    edges = np.ones((N_ITEMS, N_ITEMS)) - np.eye(N_ITEMS)
    method = FeatProp(graph="edges")
    expected = method.fit(dense, edges=sparse.csr_matrix(edges)).transform(features)
    assert np.array_equal(method.fit(dense, edges=convert(edges)).transform(features), expected)
    with pytest.raises(ValueError, match="FeatProp: edges must be real numbers, got <U1"):
        method.fit(dense, edges=np.full((N_ITEMS, N_ITEMS), "1"))


MASKS = [list, np.asarray, pd.Series, torch.from_numpy]


@pytest.mark.parametrize("convert", MASKS)
def test_masks_of_bool(convert, dense, features) -> None:
    full, known = np.nan_to_num(features), np.isfinite(features).all(axis=1)
    expected = Mean().fit(dense).transform(features)
    assert np.array_equal(Mean().fit(dense).transform(full, convert(known)), expected)
    donors = np.arange(N_ITEMS) != 2
    assert Mean().fit(dense, convert(donors)).donors_.tolist() == donors.tolist()


@pytest.mark.parametrize(
    ("mask", "got"),
    [
        (np.array([0, 2, 3]), r"int64 \(3,\)"),
        (np.arange(N_ITEMS), r"int64 \(12,\)"),
        (np.ones(N_ITEMS, dtype=int), r"int64 \(12,\)"),
        (np.ones(N_ITEMS), r"float64 \(12,\)"),
        (torch.ones(N_ITEMS, dtype=torch.uint8), r"uint8 \(12,\)"),
        (np.ones((N_ITEMS, 1), dtype=bool), r"bool \(12, 1\)"),
        (np.ones(5, dtype=bool), r"bool \(5,\)"),
        (pd.Series([True, None] * 6), r"object \(12,\)"),
    ],
)
def test_a_mask_of_integers_may_mean_two_things(mask, got, dense, features) -> None:
    full = np.nan_to_num(features)
    with pytest.raises(
        ValueError, match=rf"modality 'X': observed must be bool .*12,\), got {got}"
    ):
        Mean().fit(dense).transform(full, mask)
    with pytest.raises(ValueError, match=rf"Mean: donors must be bool of shape .*, got {got}"):
        Mean().fit(dense, mask)


def test_a_mask_is_a_copy() -> None:
    mask = np.ones(3, dtype=bool)
    kept = as_mask("x", "observed", mask, 3)
    mask[0] = False
    assert kept.tolist() == [True] * 3


def test_a_row_loses_no_number_without_a_word(dense, features) -> None:
    """Files refuse a row with some NaN; so do arrays."""
    features[4] = [7, np.nan, np.nan]
    features[5] = [np.inf, 0, 0]
    imputer = Mean().fit(dense)
    with pytest.raises(ValueError, match=r"every number must be finite .* 2 rows such as \[4, 5\]"):
        imputer.transform(features)
    known = np.isfinite(features).all(axis=1)
    assert np.isfinite(imputer.transform(features, known)).all(), "declared missing"
    known[4] = known[1] = True
    with pytest.raises(ValueError, match=r"where observed is True, got .* 2 rows such as \[1, 4\]"):
        imputer.transform(features, known)


def test_numbers_beyond_float32_are_refused(dense) -> None:
    with pytest.raises(ValueError, match=r"overflow in 1 rows such as \[2\]"):
        as_features("x", np.diag([1.0, 2.0, 1e39]))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (np.ones(N_ITEMS), r"must be a matrix \(n_items, dim\), got \(12,\)"),
        (np.ones((N_ITEMS, 0)), r"got \(12, 0\)"),
        (np.ones((1, N_ITEMS, 2)), r"got \(1, 12, 2\)"),
        (np.ones((N_ITEMS - 1, 2)), "a row for each of the 12 items of the interactions, got 11"),
        (np.ones((2, N_ITEMS)), "a row for each of the 12 items of the interactions, got 2"),
        (np.full((N_ITEMS, 2), "1"), "must be numbers, got <U1"),
        (np.full((N_ITEMS, 2), 1j), "must be numbers, got complex128"),
        (np.full((N_ITEMS, 2), None), "must be numbers, got object"),
        ([[1.0, 2.0], [1.0]], "must be numbers, got object"),
        (np.full((N_ITEMS, 2), np.nan), "must be observed for at least one item, got none"),
    ],
)
def test_other_features_are_refused(rows, message, dense) -> None:
    with pytest.raises(ValueError, match=f"modality 'X': .*{message}"):
        Mean().fit(dense).transform(rows)


def test_rows_and_columns_with_names_must_agree(dense, features) -> None:
    names = [f"i{number}" for number in range(N_ITEMS)]
    wide, table = pd.DataFrame(dense, columns=names), pd.DataFrame(features, index=names)
    expected = Mean().fit(dense).transform(features)
    imputer = Mean().fit(wide)
    assert np.array_equal(imputer.transform(table), expected)
    assert np.array_equal(imputer.transform(features), expected)
    with pytest.raises(ValueError, match="rows must be named as the columns of the interactions"):
        imputer.transform(table.iloc[::-1])


def test_modalities_with_observed_rows_that_are_not_finite(dense) -> None:
    from recbole_missing.modality import Modality

    rows, observed = torch.ones(N_ITEMS, 2), torch.ones(N_ITEMS, dtype=torch.bool)
    rows[0], observed[0], rows[3] = 0.0, False, torch.nan
    with pytest.raises(ValueError, match=r"modality 'a': observed rows must be finite.* \[3\]"):
        Mean().fit(dense).transform(Modality("a", rows, observed))
    rows[3] = 3e38
    assert Mean().fit(dense).transform(Modality("a", rows, observed)) is not None


@pytest.mark.parametrize("given", [None, 3, "text", {}])
def test_interactions_that_are_no_matrix_are_named(given):
    with pytest.raises(ValueError, match=r"FeatProp: interactions must be a matrix .* got "):
        FeatProp().fit(given)
