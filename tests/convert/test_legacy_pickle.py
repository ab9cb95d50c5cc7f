"""The restricted unpickler: what it reads, and what it refuses."""

from __future__ import annotations

import io
import os
import pickle

import numpy as np
import pytest
from pickles import pickled, save_object
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


class _Call:
    """Pickles as a call of ``function`` with ``arguments``."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    ("function", "template"),
    [(os.system, "touch {}"), (eval, "open({!r}, 'w')"), (os.mkdir, "{}"), (io.FileIO, "{}")],
)
def test_a_crafted_pickle_does_not_run(tmp_path, function, template):
    trace = tmp_path / "trace"
    argument = template.format(str(trace) if "!r" in template else trace)
    for value in (_Call(function, argument), {"t": _Call(function, argument)}):
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


