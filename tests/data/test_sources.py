"""Feature files and columns: what is accepted, what is refused, what never leaks."""

from __future__ import annotations

import logging
import math
import pickle
import re

import numpy as np
import pytest

from recbole_missing.data.catalogue import Catalogue
from recbole_missing.data.sources import feature_files, modality_settings, open_source

TOKENS = ("[PAD]", "10", "9", "2", "33")
MATRIX = np.array([[1, 2, 5], [-3, 4, 0], [5, 0.5, 1], [0, 8, -7]], dtype=np.float32)
# Numeric order of the tokens is 2, 9, 10, 33: rows 0, 1, 2, 3.
ALIGNED = np.vstack([np.zeros(3), MATRIX[[2, 1, 0, 3]]]).astype(np.float32)


class Config:
    """Answers like RecBole's Config: no ``get``, None for an absent key."""

    def __init__(self, **values):  # noqa: D107
        self._values = values

    def __contains__(self, key):  # noqa: D105
        return key in self._values

    def __getitem__(self, key):  # noqa: D105
        return self._values.get(key)


@pytest.fixture
def catalogue(tmp_path):
    return Catalogue("toy", tmp_path, TOKENS, "item_id")


@pytest.fixture
def warnings_of(caplog):
    caplog.set_level(logging.INFO)
    return lambda level=logging.WARNING: [
        record.getMessage() for record in caplog.records if record.levelno == level
    ]


def save(catalogue, matrix=MATRIX, name="f.npy"):
    np.save(catalogue.folder / name, matrix)
    return catalogue.folder / name


def write(catalogue, text, name="ids.txt"):
    (catalogue.folder / name).write_text(text, encoding="utf-8")
    return catalogue.folder / name


def write_items(catalogue, *lines, header="item_id:token\ttitle:token_seq\tbrand:token"):
    return write(catalogue, "\n".join([header, *lines]) + "\n", "toy.item")


def image(catalogue, features="f.npy", **more):
    return open_source("image", {"image_features": features, **more}, catalogue)


def text(catalogue, columns="title", encoder="text", **more):
    settings = {"text_columns": columns, "text_encoder": encoder, **more}
    return open_source("text", settings, catalogue)


def all_of(source):
    return source.features(source.present)


def message(call, *args, **kwargs):
    with pytest.raises(ValueError) as caught:
        call(*args, **kwargs)
    return str(caught.value)


# ---------------------------------------------------------------- matrices and their formats


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".safetensors"])
@pytest.mark.parametrize("key", ["features", "anything"])
def test_every_format_gives_the_same_rows(catalogue, suffix, key):
    path = catalogue.folder / f"f{suffix}"
    if suffix == ".npy":
        np.save(path, MATRIX)
    elif suffix == ".npz":
        np.savez_compressed(path, **{key: MATRIX})
    else:
        pytest.importorskip("safetensors.numpy").save_file({key: MATRIX}, str(path))
    source = image(catalogue, path.name)
    np.testing.assert_array_equal(all_of(source), ALIGNED)
    assert source.name == "image"
    assert source.present.tolist() == [False, True, True, True, True]
    assert feature_files("image", {"image_features": path.name}, catalogue) == [path]


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f4", "i2", "i8", "u1", "?"])
def test_every_real_dtype_becomes_float32(catalogue, dtype):
    matrix = np.abs(MATRIX).astype(dtype)
    save(catalogue, matrix)
    features = all_of(image(catalogue))
    assert features.dtype == np.float32
    np.testing.assert_array_equal(features[1:], matrix[[2, 1, 0, 3]].astype(np.float32))


def test_a_float16_file_stays_on_disk_untouched(catalogue):
    path = save(catalogue, np.asfortranarray(MATRIX.astype(np.float16)))
    path.chmod(0o444)
    before = path.read_bytes()
    source = image(catalogue, str(path))
    np.testing.assert_array_equal(all_of(source), ALIGNED)
    base = source._matrix
    while not isinstance(base, np.memmap) and base.base is not None:
        base = base.base
    assert isinstance(base, np.memmap) and base.mode == "r"
    assert path.read_bytes() == before


def test_hidden_rows_are_zero(catalogue):
    save(catalogue)
    observed = np.array([False, True, False, True, False])
    features = image(catalogue).features(observed)
    np.testing.assert_array_equal(features, ALIGNED * observed[:, None])


@pytest.mark.parametrize(
    ("observed", "says"),
    [
        (np.zeros(5, bool), "got 0 items"),
        (np.ones(5, bool), "1 of them without it"),
        (np.ones(4, bool), "must be bool of shape (5,), got bool (4,)"),
        (np.ones(5), "got float64"),
    ],
)
def test_observed_must_be_a_subset_of_present(catalogue, observed, says):
    save(catalogue)
    assert says in message(image(catalogue).features, observed)


@pytest.mark.parametrize("n_rows", [0, 3, 5])
def test_row_count_without_ids(catalogue, n_rows):
    save(catalogue, np.ones((n_rows, 3)))
    expected = f"f.npy has {n_rows} rows, dataset 'toy' has 4 items; give an id file (image_ids)."
    assert message(image, catalogue) == expected


@pytest.mark.parametrize("token", ["B000", "1.5", "1_0", "010"])
def test_order_needs_distinct_integer_tokens(tmp_path, token):
    catalogue = Catalogue("toy", tmp_path, [*TOKENS[:4], token], "item_id")
    save(catalogue)
    assert "give an id file (image_ids)" in message(image, catalogue)


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (np.ones(4), "matrix (n_rows, dim), got (4,)"),
        (np.ones((4, 1, 3)), "got (4, 1, 3)"),
        (np.ones((4, 0)), "got (4, 0)"),
        (np.full((4, 2), "x"), "must hold real numbers, got <U1"),
        (np.ones((4, 2), complex), "got complex128"),
        (np.zeros(4, [("a", "f4")]), "matrix"),
    ],
)
def test_only_matrices_of_numbers(catalogue, array, says):
    save(catalogue, array)
    assert says in message(image, catalogue)


# ------------------------------------------------------------------------- damaged files


class Bomb:
    """Would call print if it were unpickled."""

    def __reduce__(self):  # noqa: D105
        return print, ("unpickled",)


@pytest.mark.parametrize("name", ["f.npy", "f.npz", "f.pkl", "raw.npy"])
def test_pickles_are_refused_unread(catalogue, name, capsys):
    path = catalogue.folder / name
    if name in ("f.pkl", "raw.npy"):
        path.write_bytes(pickle.dumps(Bomb()))
    else:
        (np.save if name == "f.npy" else np.savez)(path, np.array([[Bomb()]] * 4, dtype=object))
    says = message(image, catalogue, name)
    assert "pickled; convert it, or run `recbole-missing import`" in says and str(path) in says
    assert "unpickled" not in capsys.readouterr().out


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".safetensors"])
@pytest.mark.parametrize("keep", [0, 5, 9, 0.5, -1])
def test_truncated_files(catalogue, suffix, keep):
    path = catalogue.folder / f"f{suffix}"
    if suffix == ".npy":
        np.save(path, MATRIX)
    elif suffix == ".npz":
        np.savez(path, MATRIX)
    else:
        pytest.importorskip("safetensors.numpy").save_file({"x": MATRIX}, str(path))
    whole = path.read_bytes()
    part = whole[: math.floor(len(whole) * keep) if keep == 0.5 else keep]
    path.write_bytes(part)
    says = message(image, catalogue, path.name)
    assert says.startswith(str(path))
    assert f"got {len(part)}" in says or "must start with" in says


def test_truncation_says_expected_and_found_bytes(catalogue):
    path = save(catalogue)
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-1])
    assert f"must have {size} bytes for float32 (4, 3), got {size - 1}" in message(image, catalogue)


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".safetensors"])
def test_wrong_magic(catalogue, suffix):
    path = catalogue.folder / f"f{suffix}"
    path.write_bytes(b"<html>404 not found</html>" * 10)
    assert message(image, catalogue, path.name).startswith(str(path))


def test_a_header_that_lies_is_refused_before_memory_is_taken(catalogue):
    path = save(catalogue)
    honest, lie = b"(4, 3), }          ", b"(4000000000, 3), } "
    content = path.read_bytes()
    assert honest in content
    path.write_bytes(content.replace(honest, lie))
    assert "must have 48,000,000,128 bytes" in message(image, catalogue)


def test_npz_with_a_damaged_member(catalogue):
    path = catalogue.folder / "f.npz"
    np.savez(path, MATRIX)
    whole = bytearray(path.read_bytes())
    whole[whole.index(MATRIX.tobytes()) + 3] ^= 0xFF
    path.write_bytes(whole)
    assert message(image, catalogue, "f.npz").startswith(str(path))


def test_npz_with_several_arrays_and_no_features(catalogue):
    np.savez(catalogue.folder / "f.npz", a=MATRIX, b=MATRIX)
    assert "got ['a', 'b']" in message(image, catalogue, "f.npz")


def test_safetensors_in_bfloat16_say_so(catalogue):
    torch, safetensors = pytest.importorskip("torch"), pytest.importorskip("safetensors.torch")
    safetensors.save_file(
        {"x": torch.ones(4, 3).bfloat16()}, str(catalogue.folder / "f.safetensors")
    )
    assert "got BF16" in message(image, catalogue, "f.safetensors")


@pytest.mark.parametrize("name", ["absent.npy", "f.csv"])
def test_absent_or_unknown_files(catalogue, name):
    write(catalogue, "1,2", "f.csv")
    says = message(image, catalogue, name)
    assert str(catalogue.folder / name) in says and "got" in says


# ------------------------------------------------------------------------------------ ids


@pytest.mark.parametrize("dtype", [None, "i8", "U"])
@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 1, 0, 2]])
def test_permuted_ids_give_the_same_result(catalogue, order, dtype):
    tokens = [TOKENS[1:][i] for i in order]
    save(catalogue, ALIGNED[1:][order])
    if dtype:
        ids = save(catalogue, np.array(tokens).astype(dtype), "ids.npy")
    else:
        ids = write(catalogue, "\r\n".join(tokens))
    np.testing.assert_array_equal(all_of(image(catalogue, image_ids=ids.name)), ALIGNED)
    settings = {"image_features": "f.npy", "image_ids": ids.name}
    assert feature_files("image", settings, catalogue) == [catalogue.folder / "f.npy", ids]


def test_unknown_ids_are_ignored_and_absent_items_are_missing(catalogue, warnings_of):
    save(catalogue, np.vstack([MATRIX, np.full((1, 3), np.inf)]))
    write(catalogue, "2\n33\n[PAD]\nx1\nx2\n")
    source = image(catalogue, image_ids="ids.txt")
    assert source.present.tolist() == [False, False, False, True, True]
    features = all_of(source)
    assert features.shape == (5, 3)
    np.testing.assert_array_equal(features[[3, 4]], MATRIX[:2])
    assert not features[:3].any()
    assert warnings_of() == ["ids.txt: 3 of 5 rows ignored, no such item: '[PAD]', 'x1', 'x2'."]
    assert warnings_of(logging.INFO) == [
        "f.npy: float64 is read as float32.", "image: 2 of 4 items have it.",
    ]  # fmt: skip


def test_equal_repeats_keep_one(catalogue, warnings_of):
    save(catalogue, np.vstack([MATRIX, MATRIX[1:2]]))
    write(catalogue, "2\n9\n10\n33\n9")
    np.testing.assert_array_equal(all_of(image(catalogue, image_ids="ids.txt")), ALIGNED)
    assert warnings_of() == ["ids.txt: 1 of 5 rows ignored, equal repeats, one kept: '9'."]


def test_repeats_that_differ_are_refused(catalogue):
    save(catalogue, np.vstack([MATRIX, MATRIX[:2] + 1]))
    write(catalogue, "2\n9\n10\n33\n9\n2")
    assert "differ for '9', '2';" in message(image, catalogue, image_ids="ids.txt")


@pytest.mark.parametrize("ids", ["2\n9\n10", "2\n9\n10\n33\n7", "item_id:token\n2\n9\n10\n33"])
def test_as_many_ids_as_rows(catalogue, ids):
    save(catalogue)
    write(catalogue, ids)
    assert "the 4 rows of f.npy" in message(image, catalogue, image_ids="ids.txt")


def test_nobody_has_it(catalogue):
    save(catalogue)
    write(catalogue, "a\nb\nc\nd")
    assert message(image, catalogue, image_ids="ids.txt") == (
        "ids.txt: ids must be item tokens, no id matches (4 ids, 4 items): the data set has '10', "
        "the file has 'a'; write ids alike."
    )


@pytest.mark.parametrize(
    "content", [b"", b"2\n9\n\xff\n33", np.ones(4), np.ones((4, 1), int), np.array([{}] * 4)]
)
def test_bad_id_files(catalogue, content):
    save(catalogue)
    if isinstance(content, bytes):
        name = "ids.txt"
        (catalogue.folder / name).write_bytes(content)
    else:
        name = save(catalogue, content, "ids.npy").name
    assert str(catalogue.folder / name) in message(image, catalogue, image_ids=name)


# ----------------------------------------------------------------- numbers that are no numbers


def test_a_whole_row_of_nan_is_missing(catalogue, warnings_of):
    matrix = MATRIX.copy()
    matrix[1] = np.nan
    save(catalogue, matrix)
    source = image(catalogue)
    assert source.present.tolist() == [False, True, False, True, True]
    assert np.isfinite(all_of(source)).all()
    assert "f.npy: 1 rows are NaN; their items lack the modality." in warnings_of(logging.INFO)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_other_numbers_must_be_finite(catalogue, value):
    matrix = np.ones((4, 3)) * [[1], [2], [3], [4]]
    matrix[0, 2] = matrix[3, 0] = value
    save(catalogue, matrix)
    says = message(image, catalogue)
    # In the order of item ids: token 2 has id 3, token 33 has id 4.
    assert says.startswith("f.npy: ") and "in 2 rows: 0 (item '2'), 3 (item '33');" in says


@pytest.mark.parametrize(
    ("location", "dtype", "mean_dtype"),
    [(0, "f4", "f2"), (3, "f4", "f4"), (100, "f2", "f2"), (100, "f8", "f4")],
)
def test_rows_that_look_imputed_are_counted_and_stay(
    tmp_path, warnings_of, location, dtype, mean_dtype
):
    tokens = ["[PAD]", *map(str, range(50))]
    catalogue = Catalogue("toy", tmp_path, tokens, "item_id")
    matrix = np.random.default_rng(0).normal(location, 1, (50, 16)).astype(dtype)
    matrix[40:] = matrix[:40].mean(axis=0, dtype="f8").astype(mean_dtype)
    save(catalogue, matrix)
    assert image(catalogue).present.sum() == 50
    assert [line for line in warnings_of() if "10 of 50 rows are the column mean" in line]
    matrix[7:9] = 0
    save(catalogue, matrix)
    assert image(catalogue).present.sum() == 50
    assert [line for line in warnings_of() if "2 of 50 rows are zero" in line]


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i8"])
def test_one_row_for_many_items_looks_imputed(tmp_path, warnings_of, dtype):
    tokens = ["[PAD]", *map(str, range(200))]
    catalogue = Catalogue("toy", tmp_path, tokens, "item_id")
    matrix = np.random.default_rng(0).integers(1, 1000, (200, 16)).astype(dtype)
    matrix[50:53], matrix[10:12] = matrix[0], matrix[13]
    save(catalogue, matrix)
    source = image(catalogue)
    assert source.present.sum() == 200
    assert warnings_of() == [
        "f.npy: looks imputed; 4 of 200 rows are one and the same (7 equal some other row); if "
        "they are holes, leave them out (a matrix then needs an id file)."
    ]
    assert np.array_equal(all_of(source)[1:], matrix.astype("f4"))


def test_a_matrix_of_one_row_only_looks_imputed_once(tmp_path, warnings_of):
    catalogue = Catalogue("toy", tmp_path, ["[PAD]", *map(str, range(9))], "item_id")
    save(catalogue, np.full((9, 3), 7.0))
    image(catalogue)
    assert len(warnings_of()) == 1 and "9 of 9 rows are the column mean" in warnings_of()[0]


def test_pairs_of_equal_rows_are_variants(tmp_path, warnings_of):
    catalogue = Catalogue("toy", tmp_path, ["[PAD]", *map(str, range(500))], "item_id")
    matrix = np.random.default_rng(0).normal(size=(500, 8))
    matrix[:100] = matrix[100:200]
    matrix[300:304] = matrix[305]
    save(catalogue, matrix)
    image(catalogue)
    assert warnings_of() == []


def test_ordinary_rows_do_not_look_imputed(catalogue, warnings_of):
    save(catalogue)
    image(catalogue)
    assert warnings_of() == []


# --------------------------------------------------------------------------- Ducho folders


def ducho(catalogue, **vectors):
    folder = catalogue.folder / "image"
    folder.mkdir()
    for name, vector in vectors.items():
        np.save(folder / f"{name}.npy", vector)
    return folder


def test_ducho_folder(tmp_path, warnings_of):
    catalogue = Catalogue("toy", tmp_path, ["[PAD]", "a.b", "c", "d"], "item_id")
    folder = ducho(
        catalogue, **{"c": [[3.0, 4.0]], "a.b": [1.0, 2.0], "a": [9.0], "other": [[[9.0]]]}
    )
    (folder / "readme.txt").write_text("not a feature")
    source = image(catalogue, "image")
    assert source.present.tolist() == [False, True, True, False]
    np.testing.assert_array_equal(all_of(source), np.array([[0, 0], [1, 2], [3, 4], [0, 0]], "f4"))
    assert warnings_of() == ["image: 2 of 4 rows ignored, no such item: 'a', 'other'."]
    files = feature_files("image", {"image_features": "image"}, catalogue)
    assert [path.name for path in files] == ["a.b.npy", "a.npy", "c.npy", "other.npy"]


@pytest.mark.parametrize("odd", [np.ones(3), np.ones((2, 2)), np.float32(1), np.ones(0)])
def test_ducho_names_the_first_odd_file(catalogue, odd):
    folder = ducho(catalogue, **{"2": [1.0, 2.0], "33": odd, "9": [1.0, 2.0]})
    assert message(image, catalogue, "image").startswith(f"{folder / '33.npy'}: features must")


def test_ducho_damaged_and_empty(catalogue):
    folder = ducho(catalogue)
    assert "innermost folder" in message(image, catalogue, "image")
    (folder / "9.npy").write_bytes(b"")
    assert message(image, catalogue, "image").startswith(f"{folder / '9.npy'}: ")
    assert "remove image_ids" in message(image, catalogue, "image", image_ids="ids.txt")


# ---------------------------------------------------------------------- columns: text, tags


LINES = ("10\tred cotton shirt\tAcme", "9\tblue wool hat\tAcme", "2\t \t", "33\tred wool\tZed")


def test_text_by_token_and_blank_is_missing(catalogue):
    path = write_items(catalogue, *LINES)
    source = text(catalogue, text_dim=2)
    assert source.present.tolist() == [False, True, True, False, True]
    features = all_of(source)
    assert features.shape == (5, 2) and features.dtype == np.float32
    assert not features[[0, 3]].any() and features[[1, 2, 4]].any(axis=1).all()
    np.testing.assert_array_equal(features, all_of(text(catalogue, text_dim=2)))
    settings = {"text_columns": "title", "text_encoder": "text"}
    empty = Catalogue("toy", catalogue.folder, (), "item_id")
    assert feature_files("text", settings, empty) == [path]


def test_svd_keeps_the_inner_products_of_tfidf(catalogue):
    write_items(catalogue, *LINES)
    wide, reduced = all_of(text(catalogue)), all_of(text(catalogue, text_dim=3))
    np.testing.assert_allclose(reduced @ reduced.T, wide @ wide.T, atol=1e-5)
    assert wide.shape[1] == 3 == reduced.shape[1]


def test_fewer_features_than_asked_for_are_logged(catalogue, warnings_of):
    write_items(catalogue, *LINES)
    all_of(text(catalogue, ["title", "brand"]))
    assert [
        line for line in warnings_of() if "64 features were asked for" in line and "allow 3" in line
    ]


def test_texts_of_few_kinds_give_no_features_of_rounding_errors(tmp_path, warnings_of):
    tokens = ["[PAD]", *map(str, range(1, 31))]
    catalogue = Catalogue("toy", tmp_path, tokens, "item_id")
    kinds = ["a red mug", "a blue lamp", "one green rug"]
    write_items(catalogue, *(f"{t}\t{kinds[int(t) % 3]}\tx" for t in tokens[1:]))
    rows = all_of(text(catalogue, text_dim=6))
    assert rows.shape[1] == 3
    assert (np.linalg.norm(rows, axis=0) > 0.1).all()
    assert [
        line for line in warnings_of() if "6 features were asked for" in line and "allow 3" in line
    ]


def test_a_small_vocabulary_needs_no_svd(catalogue):
    write_items(catalogue, "10\tred", "9\tred red", "2\tred", "33\tred", header="item_id\ttitle")
    np.testing.assert_array_equal(all_of(text(catalogue)), [[0], [1], [1], [1], [1]])


def test_one_character_is_a_word(catalogue):
    write_items(catalogue, "10\t\u4e66", "9\t\u4e66 \u8336", header="item_id\ttitle")
    assert all_of(text(catalogue)).shape == (5, 2)


@pytest.mark.parametrize("encoder", ["text", "tags"])
def test_hidden_rows_never_influence_the_encoder(catalogue, encoder):
    observed = np.array([False, True, True, False, True])
    seen = []
    for hidden in ("green linen sock\tQ", "red red red wool wool hat cotton\tAcme"):
        write_items(catalogue, LINES[0], LINES[1], f"2\t{hidden}", LINES[3])
        source = text(catalogue, ["title", "brand"], encoder)
        assert source.present[3]
        seen.append(source.features(observed))
    np.testing.assert_array_equal(*seen)
    assert not seen[0][3].any()


def test_wordless_text_stays_observed_as_zero(catalogue, warnings_of):
    write_items(catalogue, LINES[0], "9\t!?\t", "2\t\t", LINES[3])
    source = text(catalogue)
    assert source.present.tolist() == [False, True, True, False, True]
    assert not all_of(source)[2].any()
    assert [line for line in warnings_of() if "1 of 3 observed texts hold no word" in line]


@pytest.mark.parametrize(("encoder", "cell"), [("text", "!?"), ("tags", ",")])
def test_nothing_to_learn_from(tmp_path, encoder, cell):
    catalogue = Catalogue("toy", tmp_path, TOKENS, "item_id", seq_separator=",")
    write_items(catalogue, f"10\t{cell}\t")
    assert "choose other columns" in message(all_of, text(catalogue, encoder=encoder))


def test_tags_of_two_columns_are_two_features(catalogue):
    write_items(catalogue, "10\tred hat\that", "9\that  hat\t", "2\t\t ", "33\t\that")
    features = all_of(text(catalogue, ["title", "brand"], "tags"))
    # brand:hat, title:hat, title:red
    np.testing.assert_array_equal(features, [[0, 0, 0], [1, 1, 1], [0, 1, 0], [0, 0, 0], [1, 0, 0]])
    assert features.dtype == np.float32


def test_cells_are_read_as_recbole_reads_them(catalogue):
    write_items(
        catalogue, '"10"\t"""5"" inch"\tNA', '9\tnull" é\tx', '"2"\t"a\nb"\tx', "33\tc\tx", ""
    )
    source = text(catalogue, encoder="tags", columns=["title", "brand"])
    assert source.present[1:].all()
    assert all_of(source).shape[1] == len({'"5"', "inch", 'null"', "é", "a\nb", "c"}) + len("Nx")
    path = write_items(catalogue, '10\t"5 inch\tNA', "9\tx\tx", "2\ty\tx")
    says = message(text, catalogue)
    assert says.startswith(f"{path}: line 2 must be cells separated by '\\t', got: unexpected end")


def test_item_rows_repeated(catalogue, warnings_of):
    write_items(catalogue, *LINES, LINES[0])
    assert text(catalogue).present.sum() == 3
    assert warnings_of() == ["toy.item: 1 of 5 rows ignored, equal repeats, one kept: '10'."]
    write_items(catalogue, *LINES, "10\t\t")
    assert "rows that differ for '10'" in message(text, catalogue)


def test_item_file_defects(catalogue):
    assert str(catalogue.folder / "toy.item") in message(text, catalogue)
    path = write_items(catalogue, *LINES, "7\ttoo few")
    assert message(text, catalogue).startswith(f"{path}: line 6 must have 3 cells, got 2")
    write_items(catalogue, *LINES)
    assert "Unknown column 'titel'. Did you mean 'title'?" in message(text, catalogue, "titel")


# --------------------------------------------------------------- numbers in atomic files


def test_vector_columns(catalogue, warnings_of):
    header = "item_id:token\tv:float_seq\tw:float"
    write_items(catalogue, "33\t1 2\t3", "9\t\t ", "x\t1\t2", "10\t4 5\t6", header=header)
    source = text(catalogue, ["v", "w"], "vector")
    assert source.present.tolist() == [False, True, False, False, True]
    np.testing.assert_array_equal(all_of(source)[[1, 4]], [[4, 5, 6], [1, 2, 3]])
    assert len(warnings_of()) == 1 and "'x'" in warnings_of()[0]


@pytest.mark.parametrize(
    ("cell", "says"),
    [
        ("1", "item '9' must hold 2 numbers as other items do, got 1"),
        ("1 b", "item '9' must hold numbers"),
        ("1 inf", "must be finite"),
        ("1 nan", "must be finite"),
    ],
)
def test_vectors_that_are_no_vectors(catalogue, cell, says):
    write_items(catalogue, "10\t1 2", f"9\t{cell}", header="item_id:token\tv:float_seq")
    says_it = message(text, catalogue, "v", "vector")
    assert says in says_it and says_it.startswith("toy.item")


def test_empty_vectors_are_nobodys(catalogue):
    write_items(catalogue, "10\t", "9\t ", header="item_id:token\tv:float_seq")
    assert "0 of 4 items have it" in message(text, catalogue, "v", "vector")
    write_items(catalogue, header="item_id:token\tv:float_seq")
    assert "0 of 4 items have it" in message(text, catalogue, "v", "vector")


@pytest.mark.parametrize("suffix", ["emb", ["other", "emb"]])
def test_preload_weight(catalogue, suffix, warnings_of):
    write(catalogue, "ent:token\tx:token\n", "toy.other")
    path = write(catalogue, "iid:token\tvec:float_seq\n9\t1 2\nnew\t7 7\n33\t3 4\n", "toy.emb")
    settings = Config(
        image_preload_weight="iid", preload_weight={"iid": "vec"}, additional_feat_suffix=suffix
    )
    features = all_of(open_source("image", settings, catalogue))
    np.testing.assert_array_equal(features, [[0, 0], [0, 0], [1, 2], [0, 0], [3, 4]])
    assert len(warnings_of()) == 1 and "'new'" in warnings_of()[0]
    assert feature_files("image", settings, catalogue) == [path]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"preload_weight": {"other": "vec"}},
        {"preload_weight": {"iid": "vec"}},
        {"preload_weight": {"iid": "nope"}, "additional_feat_suffix": "emb"},
        {"preload_weight": {"iid": "vec"}, "additional_feat_suffix": "absent"},
    ],
)
def test_preload_weight_is_not_found(catalogue, settings):
    write(catalogue, "iid:token\tvec:float_seq\n9\t1 2\n", "toy.emb")
    settings = {"image_preload_weight": "iid", **settings}
    assert message(open_source, "image", settings, catalogue).startswith("image: ")


# -------------------------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({}, "exactly one of image_features, image_columns, image_images, .* got none"),
        ({"image_features": None}, "got none"),
        (
            {"image_features": "f.npy", "image_columns": "title"},
            "got image_features, image_columns",
        ),
        ({"image_features": 3}, "image_features must be a non-empty string"),
        (
            {"image_columns": "title", "image_encoder": "bert"},
            "image_encoder must be one of text, tags, vector, .*got 'bert'",
        ),
        ({"image_columns": "a", "image_encoder": "pixels"}, "image_encoder must be one of text"),
        ({"image_images": "a", "image_encoder": "text"}, "image_encoder must be .*pixels"),
        ({"image_columns": "a", "image_unreadable": "hole"}, "must come with image_images"),
        ({"image_images": "a", "image_unreadable": "skip"}, "one of hole, error.* got 'skip'"),
        ({"image_columns": [], "image_encoder": "text"}, "image_columns must be a column name"),
        ({"image_columns": "a", "image_encoder": "text", "image_dim": 0}, "image_dim must be"),
        ({"image_features": "f.npy", "image_dim": 3}, "image_dim must come with image_columns or"),
        ({"image_columns": "title", "image_ids": "i.txt"}, "remove image_ids"),
    ],
)
def test_settings_are_checked(catalogue, settings, says):
    assert re.search(says, message(open_source, "image", settings, catalogue))


def test_declared_settings_accept_nothing_and_what_is_documented():
    declared = modality_settings("sound")
    documented = ("features", "ids", "columns", "encoder", "dim", "preload_weight")
    documented += ("images", "model", "unreadable")
    assert set(declared) >= {f"sound_{key}" for key in documented}
    assert all(constraint.accepts(None) for constraint in declared.values())
    assert declared["sound_columns"].accepts("title")
    assert declared["sound_columns"].accepts(["title", "brand"])
    assert not declared["sound_columns"].accepts([1])
