"""The restricted unpickler: what it reads, and what it refuses."""

from __future__ import annotations

import io
import os
import pickle
import tracemalloc

import numpy as np
import pytest
from pickles import Call, Stateful, pickled, python2, save_object
from scipy import sparse

from recbole_missing.convert.legacy_pickle import load_pickled_arrays, load_pickled_matrix


@pytest.mark.parametrize("protocol", [3, 4])
def test_load_pickled_arrays(tmp_path, protocol):
    mask = {"t": np.array([3, 1]), "v": np.array([], dtype=float), "b": np.array([7], dtype=">i4")}
    save_object(tmp_path / "m.npy", pickled(mask, protocol))
    loaded = load_pickled_arrays(tmp_path / "m.npy")
    assert {key: ids.tolist() for key, ids in loaded.items()} == {"t": [3, 1], "v": [], "b": [7]}
    assert all(ids.dtype == np.int64 for ids in loaded.values())
    renamed = pickled(mask, 3).replace(b"numpy.core.multiarray", b"numpy._core.multiarray")
    save_object(tmp_path / "numpy2.npy", renamed)
    assert load_pickled_arrays(tmp_path / "numpy2.npy")["t"].tolist() == [3, 1]


@pytest.mark.parametrize(
    ("function", "template"),
    [(os.system, "touch {}"), (eval, "open({!r}, 'w')"), (os.mkdir, "{}"), (io.FileIO, "{}")],
)
def test_a_crafted_pickle_does_not_run(tmp_path, function, template):
    trace = tmp_path / "trace"
    argument = template.format(str(trace) if "!r" in template else trace)
    for value in (Call(function, argument), {"t": Call(function, argument)}):
        save_object(tmp_path / "evil.npy", value)
        with pytest.raises(ValueError, match=r"evil\.npy: .*is not admitted"):
            load_pickled_arrays(tmp_path / "evil.npy")
        save_object(tmp_path / "bare.npy", pickle.dumps(value))
        with pytest.raises(ValueError, match="is not admitted"):
            load_pickled_arrays(tmp_path / "bare.npy")
    assert not trace.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        pickled({"t": np.array([1])})[:-9],
        pickled({"t": np.array(["a"])}),
        pickled({"t": np.array([1.5])}),
        pickled({"t": np.array([[1]])}),
        pickled({"t": np.array([{}], dtype=object)}),
        pickled({"t": [1]}),
        pickled({1: np.array([1])}),
        pickled({"t"}),
        pickled([1]),
        b"cnumpy.core.multiarray\n_reconstruct\n)\x81.",
        b"cnumpy.core.multiarray\n_reconstruct\n}b.",
        b"cnumpy\ndtype\n.",
    ],
)
def test_other_pickles_are_refused(tmp_path, content):
    save_object(tmp_path / "m.npy", content)
    with pytest.raises(ValueError, match=r"m\.npy"):
        load_pickled_arrays(tmp_path / "m.npy")


def test_files_that_are_no_pickled_dict_are_refused(tmp_path):
    np.save(tmp_path / "plain.npy", np.arange(3))
    (tmp_path / "text.npy").write_text("hello")
    for name in ("plain.npy", "text.npy", "absent.npy"):
        with pytest.raises(ValueError, match=name):
            load_pickled_arrays(tmp_path / name)


DENSE = np.array([[0, 1, 0, 2], [0, 0, 0, 0], [1, 0, 0, 1]])
COO = sparse.coo_matrix(DENSE)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("form", ["coo", "csr", "csc"])
@pytest.mark.parametrize("dtype", ["f8", "f4", "i8", "b1"])
def test_load_pickled_matrix(tmp_path, form, protocol, dtype):
    matrix = COO.astype(dtype).asformat(form)
    (tmp_path / "m.pkl").write_bytes(pickle.dumps(matrix, protocol=protocol))
    loaded = load_pickled_matrix(tmp_path / "m.pkl")
    np.testing.assert_array_equal(loaded.toarray(), DENSE != 0)
    assert loaded.shape == DENSE.shape and loaded.dtype == np.float32
    assert list(zip(loaded.row, loaded.col)) == [(0, 1), (0, 3), (2, 0), (2, 3)]


@pytest.mark.parametrize("kind", ["matrix", "array"])
@pytest.mark.parametrize("mark", ["", "_"])
def test_matrices_of_old_and_new_scipy(tmp_path, mark, kind):
    module, name = f"scipy.sparse.{mark}csr", f"csr_{kind}"
    csr = COO.tocsr()
    state = {"_shape": csr.shape, "maxprint": 50}
    state |= {key: getattr(csr, key) for key in ("data", "indices", "indptr")}
    (tmp_path / "new.pkl").write_bytes(Stateful(module, name, state).dumps())
    np.testing.assert_array_equal(load_pickled_matrix(tmp_path / "new.pkl").toarray(), DENSE != 0)


def test_a_matrix_of_a_big_endian_machine(tmp_path):
    state = {"_shape": COO.shape, "data": COO.data.astype(">f4")}
    state |= {"row": COO.row.astype(">i4"), "col": COO.col.astype(">i8")}
    (tmp_path / "m.pkl").write_bytes(Stateful("scipy.sparse.coo", "coo_matrix", state).dumps())
    np.testing.assert_array_equal(load_pickled_matrix(tmp_path / "m.pkl").toarray(), DENSE != 0)


@pytest.mark.parametrize("named", [False, True])
def test_coo_with_rows_and_columns_or_with_coordinates(tmp_path, named):
    place = {"row": COO.row, "col": COO.col} if named else {"coords": (COO.row, COO.col)}
    state = {"_shape": COO.shape, "data": COO.data, **place}
    (tmp_path / "m.pkl").write_bytes(Stateful("scipy.sparse.coo", "coo_matrix", state).dumps())
    np.testing.assert_array_equal(load_pickled_matrix(tmp_path / "m.pkl").toarray(), DENSE != 0)


@pytest.mark.parametrize("protocol", [0, 2])
def test_a_matrix_of_python_2(tmp_path, protocol):
    parts = {"row": COO.row, "col": COO.col, "data": COO.data.astype("f8")}
    content = python2("scipy.sparse.coo", "coo_matrix", COO.shape, protocol, **parts)
    assert b"\xf0" in content or rb"\xf0" in content, "bytes that are no ASCII"
    (tmp_path / "m.pkl").write_bytes(content)
    np.testing.assert_array_equal(load_pickled_matrix(tmp_path / "m.pkl").toarray(), DENSE != 0)
    csr = COO.tocsr()
    parts = {key: getattr(csr, key) for key in ("data", "indices", "indptr")}
    content = python2("scipy.sparse.csr", "csr_matrix", csr.shape, protocol, **parts)
    (tmp_path / "m.pkl").write_bytes(content)
    np.testing.assert_array_equal(load_pickled_matrix(tmp_path / "m.pkl").toarray(), DENSE != 0)


def test_repeated_and_zero_entries(tmp_path):
    places = ([0, 0, 1, 1], [2, 2, 0, 1])
    matrix = sparse.coo_matrix(([1.0, 1.0, 0.0, 3.0], places), shape=(2, 3))
    (tmp_path / "m.pkl").write_bytes(pickle.dumps(matrix))
    np.testing.assert_array_equal(
        load_pickled_matrix(tmp_path / "m.pkl").toarray(), [[0, 0, 1], [0, 1, 0]]
    )


@pytest.mark.parametrize(
    ("function", "template"),
    [(os.system, "touch {}"), (eval, "open({!r}, 'w')"), (os.mkdir, "{}"), (io.FileIO, "{}")],
)
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_crafted_matrix_does_not_run(tmp_path, function, template, protocol):
    trace = tmp_path / "trace"
    call = Call(function, template.format(str(trace) if "!r" in template else trace))
    state = {"_shape": (1, 1), "data": call, "row": np.array([0]), "col": np.array([0])}
    for value in (call, [call], {"a": call}, {**state}):
        (tmp_path / "evil.pkl").write_bytes(pickle.dumps(value, protocol=protocol))
        with pytest.raises(ValueError, match=r"evil\.pkl: .*is not admitted"):
            load_pickled_matrix(tmp_path / "evil.pkl")
    evil = Stateful("scipy.sparse.coo", "coo_matrix", state).dumps()
    (tmp_path / "evil.pkl").write_bytes(evil)
    with pytest.raises(ValueError, match="is not admitted"):
        load_pickled_matrix(tmp_path / "evil.pkl")
    assert not trace.exists()


TWICE = b"c_codecs\nencode\nh\x00X\x06\x00\x00\x00latin1\x86R"
"""Opcodes that make the same bytes once more."""


def _coo(**changes):
    state = {"_shape": (2, 3), "data": np.ones(2)}
    state |= {"row": np.array([0, 1]), "col": np.array([0, 2]), **changes}
    return Stateful("scipy.sparse._coo", "coo_matrix", state).dumps()


def _csr(form="csr", **changes):
    state = {"_shape": (2, 3), "data": np.ones(2)}
    state |= {"indices": np.array([0, 2]), "indptr": np.array([0, 1, 2]), **changes}
    return Stateful(f"scipy.sparse._{form}", f"{form}_matrix", state).dumps()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (_coo(row=np.array([0, 2])), r"rows outside of 0 to 1: \[2\]"),
        (_coo(col=np.array([0, -1])), r"columns outside of 0 to 2: \[-1\]"),
        (_coo(row=np.array([0.0, 1.0])), "1-D array of integers"),
        (_coo(row=np.array([0])), "2 values, 1 rows and 2 columns"),
        (_coo(row=[0, 1]), "row is a list"),
        (_coo(row=np.array([[0, 1]])), "row is an array of"),
        (_coo(data=None), "data is a NoneType"),
        (_coo(data=np.array([1.0, np.nan])), "negative or not finite"),
        (_coo(data=np.array([1.0, -1.0])), "negative or not finite"),
        (_coo(data=np.array([1, "a"], dtype=object)), "arrays of objects are not admitted"),
        (_coo(data=np.array(["a", "b"])), "dtype 'U1' are not admitted"),
        (_coo(_shape=(2,)), r"shape \(2,\)"),
        (_coo(_shape=(2, 10**40)), "shape"),
        (_coo(_shape=(0, 3)), "shape"),
        (_coo(_shape=(True, 3)), "shape"),
        (_coo(_shape=None), "shape None"),
        (_coo(coords=(np.array([9, 9]), np.array([0, 0]))), "rows outside"),
        (_csr(indptr=np.array([0, 1])), "2 steps, it has 1"),
        (_csr(indptr=np.array([0, 2, 1])), "must rise"),
        (_csr(indptr=np.array([1, 1, 2])), "must rise from 0"),
        (_csr(indptr=np.array([0, 1, 9])), "ends at 9 of 2"),
        (_csr(indices=np.array([0, 3])), "columns outside"),
        (_csr("csc", indptr=np.array([0, 1, 2])), "3 steps, it has 2"),
        (Stateful("scipy.sparse._dok", "dok_matrix", {}).dumps(), "dok_matrix is not admitted"),
        (Stateful("scipy.sparse._lil", "lil_matrix", {}).dumps(), "lil_matrix is not admitted"),
        (Stateful("scipy.sparse._coo", "coo_matrix", [1]).dumps(), "a list as state"),
        (Stateful("scipy.sparse._coo", "os", {}).dumps(), "is not admitted"),
        (pickle.dumps(np.ones((2, 2))), "got UnpicklingError"),
        (pickle.dumps(COO)[:-30], "got "),
        (b"", "got "),
        (b"hello", "got "),
        (b"\x80\x05\x96" + (2**40).to_bytes(8, "little") + b"x.", "expected 1099511627776 bytes"),
        (b"\x80\x02Nr\xff\xff\xff\x7f.", "memo entry 2147483647"),
        (b"ccopyreg\n_reconstructor\n}X\x01\x00\x00\x00aK\x01sb.", "a function has no state"),
        (b"ccopyreg\n_reconstructor\ncnumpy\ndtype\ncbuiltins\nobject\nN\x87R.", "no sparse"),
        (b"c_codecs\nencode\nX\x01\x00\x00\x00aX\x05\x00\x00\x00utf-8\x86R.", "utf-8"),
        (b"cscipy.sparse._coo\ncoo_matrix\n}b.", "TypeError"),
        (b"P1\n.", "got "),
        (b"\xff.", "opcode"),
        (b"\x82\x01.", "opcode"),
        (b"N", "opcode '' at byte 1"),
        (b"U" + bytes([200]) + b"x" * 200 + b"q\x00" + TWICE * 501 + b".", "more than 500 objects"),
    ],
)
def test_other_matrices_are_refused(tmp_path, content, message):
    (tmp_path / "m.pkl").write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        load_pickled_matrix(tmp_path / "m.pkl")
    assert "m.pkl: must be one pickled COO, CSR or CSC matrix" in str(caught.value)


def test_a_huge_shape_takes_no_memory(tmp_path):
    (tmp_path / "m.pkl").write_bytes(_coo(_shape=(2**31 - 1, 2**31 - 1)))
    loaded = load_pickled_matrix(tmp_path / "m.pkl")
    assert loaded.nnz == 2 and loaded.shape[0] == 2**31 - 1


def _repeated(shared, count, size, code=b"i1"):
    """A dict of arrays that are built from the same memoised content, as protocol 2 writes them."""
    text = b"X" + (2).to_bytes(4, "little") + code
    dtype = b"cnumpy\ndtype\n" + text + b"K\x00K\x01\x87R(K\x03X\x01\x00\x00\x00|NNN"
    dtype += b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    shape = b"J" + size.to_bytes(4, "little") + b"\x85"
    make = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R"
    array = make + b"(K\x01" + shape + b"h\x00\x89h\x01tb"
    key = b"X\x02\x00\x00\x00%02d"
    items = b"".join(key % number + array for number in range(count))
    return b"\x80\x03" + dtype + b"q\x000" + shared + b"q\x010}(" + items + b"u."


@pytest.mark.parametrize("kind", ["bytes", "text"])
def test_many_arrays_of_one_content_take_the_memory_of_one(tmp_path, kind):
    size = 4_000_000
    begin = b"B" if kind == "bytes" else b"T"  # the latter is text of Python 2
    shared = begin + size.to_bytes(4, "little") + bytes(size)
    save_object(tmp_path / "m.npy", _repeated(shared, 40, size))
    tracemalloc.start()
    with pytest.raises(ValueError, match="160,000,000 numbers in 4,0"):
        load_pickled_arrays(tmp_path / "m.npy")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 6 * size
    save_object(tmp_path / "one.npy", _repeated(shared, 1, size))
    assert load_pickled_arrays(tmp_path / "one.npy")["00"].shape == (size,)


def test_one_array_under_many_names_is_one(tmp_path):
    ids = np.arange(1000)
    save_object(tmp_path / "m.npy", pickled({str(number): ids for number in range(50)}))
    loaded = load_pickled_arrays(tmp_path / "m.npy")
    assert len(loaded) == 50 and len({id(array) for array in loaded.values()}) == 1


def test_a_shape_of_numpy_integers(tmp_path):
    (tmp_path / "m.pkl").write_bytes(_coo(_shape=(np.int64(2), np.int32(3))))
    assert load_pickled_matrix(tmp_path / "m.pkl").shape == (2, 3)


def test_an_absent_matrix(tmp_path):
    with pytest.raises(ValueError, match=r"m\.pkl: .*no such file"):
        load_pickled_matrix(tmp_path / "m.pkl")
