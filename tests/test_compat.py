"""RecBole on versions of numpy, scipy and Ray that it does not know, and without Ray."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from folders import in_new_process
from scipy import sparse

from recbole_missing import compat


def test_absent_names_of_numpy_get_their_meaning(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("float", "unicode", "float_", "complex_", "unicode_"):
        monkeypatch.delitem(vars(np), name, raising=False)
    monkeypatch.setitem(vars(np), "long", "kept")
    for _ in range(2):
        compat.repair()
        assert (np.float, np.unicode, np.long) == (np.float64, np.str_, "kept")
        assert (np.float_, np.complex_, np.unicode_) == (np.float64, np.complex128, np.str_)


def test_pandas_3_is_refused() -> None:
    compat.refuse_pandas("2.3.3")
    with pytest.raises(ValueError, match=r'older than 3 .*got 3\.0\.1; run `.* "pandas<3"`'):
        compat.refuse_pandas("3.0.1")


def test_a_result_goes_to_a_trial_of_either_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []

    def former(_metric: Any = None, **values: float) -> None:
        told.append(("former", values))

    def current(metrics: dict[str, float], *, checkpoint: Any = None) -> None:
        told.append(("current", metrics))

    for report in (former, current):
        monkeypatch.setitem(sys.modules, "ray.tune", SimpleNamespace(report=report))
        compat.report(recall=0.5)
    monkeypatch.delitem(sys.modules, "ray.tune")
    compat.report(recall=0.7)
    assert told == [("former", {"recall": 0.5}), ("current", {"recall": 0.5})]


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
from recbole.quick_start import objective_function, quick_start
settings = tiny_content().write(Path.cwd())
result = recbole_missing.run_recbole_missing("VBPR", "tiny", config_dict=dict(settings))
assert result["test_result"]["recall@10"] > 0
print(objective_function({**settings, "model": "BPR"}, saved=False)["test_result"]["recall@10"])
recbole_missing.plugin.uninstall()
try:
    quick_start.tune.report(recall=1.0)
except ImportError as error:
    print(error)
"""


def test_recbole_runs_where_ray_is_absent(tmp_path: Path) -> None:
    recall, said = in_new_process(WITHOUT_RAY, tmp_path).splitlines()[-2:]
    assert float(recall) > 0
    assert said == "No module named 'ray'; run `pip install ray`."
