"""RecBole on versions of numpy and scipy, and without the Ray, that it does not know."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from folders import in_new_process
from scipy import sparse

from recbole_missing import compat


def test_absent_names_of_numpy_get_their_meaning(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("float", "unicode"):
        monkeypatch.delitem(vars(np), name, raising=False)
    monkeypatch.setitem(vars(np), "long", "kept")
    for _ in range(2):
        compat.repair()
        assert (np.float, np.unicode, np.long) == (np.float64, np.str_, "kept")


def test_entries_of_a_dictionary_matrix_are_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparse.dok_matrix, "_update", None, raising=False)  # gone after the test
    for kind in sparse.dok_matrix.__mro__:
        if "_update" in vars(kind):
            monkeypatch.delattr(kind, "_update")
    compat.repair()
    matrix = sparse.dok_matrix((2, 3), dtype=np.float32)
    matrix._update({(0, 1): 2.0, (1, 2): 3.0})
    assert matrix.toarray().tolist() == [[0, 2, 0], [0, 0, 3]]
    monkeypatch.setattr(sparse.dok_matrix, "_update", "kept")
    compat.repair()
    assert sparse.dok_matrix._update == "kept"


WITHOUT_RAY = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "ray":
            raise ModuleNotFoundError(f"No module named {name!r}")

sys.meta_path.insert(0, Blocker())
import recbole_missing
from pathlib import Path
from folders import tiny_content
from recbole.quick_start import quick_start
settings = tiny_content().write(Path.cwd())
for model in ("VBPR", "LightGCN"):
    result = recbole_missing.run_recbole_missing(model, "tiny", config_dict=dict(settings))
    assert result["test_result"]["recall@10"] > 0
try:
    quick_start.tune.report(recall=1.0)
except ImportError as error:
    print(error)
"""


def test_recbole_runs_where_ray_is_absent(tmp_path: Path) -> None:
    said = in_new_process(WITHOUT_RAY, tmp_path).splitlines()[-1]
    assert said == "No module named 'ray'; run `pip install ray`."
