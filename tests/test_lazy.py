"""Modules that wait until they are used."""

from __future__ import annotations

import copy
import signal
import sys
from pathlib import Path

import pytest
from folders import in_new_process

from recbole_missing import lazy


@pytest.fixture
def slow_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package that a module imports at its top, as RecBole imports Ray."""
    package = tmp_path / "slow_package"
    package.mkdir()
    (package / "__init__.py").write_text("def double(x):\n    return 2 * x\n\nVALUE = 5\n")
    (package / "inner.py").write_text("NAME = 'inner'\n")
    (tmp_path / "user_of_it.py").write_text(
        "import slow_package\nfrom slow_package import double, inner\n"
        "def four(x):\n    return double(double(x))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("slow_package", "slow_package.inner", "user_of_it"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    lazy._real.cache_clear()
    return "slow_package"


def test_a_module_waits_until_a_part_of_it_is_used(slow_module: str) -> None:
    with lazy.waiting(slow_module):
        import user_of_it
    assert slow_module not in sys.modules
    assert copy.copy(user_of_it.double) is not None and not hasattr(user_of_it.double, "__name__")
    assert slow_module not in sys.modules
    assert user_of_it.four(3) == 12
    assert user_of_it.inner.NAME == "inner"
    assert user_of_it.slow_package.VALUE == 5
    import slow_package

    assert slow_package.double is not user_of_it.double and slow_package.double(1) == 2
    with pytest.raises(AttributeError, match="NONE"):
        _ = user_of_it.inner.NONE


def test_what_is_imported_already_is_left_alone(slow_module: str) -> None:
    import slow_package

    with lazy.waiting(slow_module):
        import user_of_it
    assert user_of_it.slow_package is slow_package and user_of_it.double is slow_package.double


def test_an_absent_module_is_named_where_it_is_used(
    slow_module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with lazy.waiting(slow_module):
        import user_of_it
    (tmp_path / slow_module / "__init__.py").unlink()
    (tmp_path / slow_module / "inner.py").unlink()
    (tmp_path / slow_module).rmdir()
    with pytest.raises(ImportError, match="No module .*slow_package.*pip install slow_package"):
        user_of_it.four(1)
    monkeypatch.setitem(sys.modules, "sklearn.metrics", None)
    with pytest.raises(ImportError, match="pip install scikit-learn"):
        lazy.load("sklearn.metrics")


def test_an_import_leaves_the_handler_of_sigterm(
    slow_module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taker = tmp_path / "taker_of_sigterm.py"
    taker.write_text("import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n")
    before = signal.getsignal(signal.SIGTERM)
    lazy.load("taker_of_sigterm")
    assert signal.getsignal(signal.SIGTERM) is before


PLAIN_RUN = """
import sys
import recbole_missing
from recbole.quick_start import run_recbole
from recbole.utils import get_model
get_model("LightGCN")
names = ("ray", "tensorboard", "torch.utils.tensorboard", "matplotlib", "scipy.stats",
         "sklearn.metrics", "torch._dynamo")
print("LOADED AT THE START", [name for name in names if name in sys.modules])
from folders import tiny_content
from pathlib import Path
settings = tiny_content().write(Path.cwd())
for model in ("VBPR", "BPR"):
    recbole_missing.run_recbole_missing(model, "tiny", config_dict=dict(settings))
names = ("ray", "matplotlib", "plotly", "scipy.stats", "torch._dynamo")
print("LOADED", [name for name in names if name in sys.modules])
print("FILES", len(list(Path("log_tensorboard").glob("*/events*"))))
from recbole.quick_start import quick_start
import recbole.evaluator.metrics as metrics
import recbole.model.general_recommender.slimelastic as slimelastic
import recbole.trainer.trainer as trainer
import numpy as np
print(metrics.mean_absolute_error([1.0], [3.0]), slimelastic.ElasticNet(alpha=2.0).alpha)
print(metrics.sk_auc(np.array([0.0, 1.0]), np.array([0.0, 1.0])))
from sklearn.preprocessing import QuantileTransformer
QuantileTransformer(n_quantiles=2, output_distribution="normal").fit_transform([[1.0], [2.0]])
recbole_missing.plugin.uninstall()
assert trainer.optim.__name__ == "torch.optim"
try:
    import ray.tune
except ImportError:  # Ray is absent, or without its extra `tune`
    pass
else:
    assert quick_start.tune.choice([1]).categories == [1]
"""


def test_a_plain_run_imports_nothing_that_it_does_not_use(tmp_path: Path) -> None:
    lines = in_new_process(PLAIN_RUN, tmp_path).splitlines()
    assert {"LOADED AT THE START []", "LOADED []", "FILES 2"} <= set(lines)
    assert lines[-2:] == ["2.0 2.0", "0.5"]


WHILE_IT_WAITS = """
import importlib.util
assert importlib.util.find_spec("slow_package").name == "slow_package"
import slow_package
class Derived(slow_package.Base):
    pass
"""


def test_a_class_that_derives_from_a_part_does_not_wait(slow_module: str, tmp_path: Path) -> None:
    """As a class of scikit-learn 1.2 derives from one of scipy.stats."""
    with (tmp_path / slow_module / "__init__.py").open("a") as file:
        file.write("class Base:\n    def __init__(self, name):\n        self.name = name\n")
    (tmp_path / "user_of_it.py").write_text(WHILE_IT_WAITS)
    with lazy.waiting(slow_module):
        import user_of_it
    import slow_package

    assert user_of_it.Derived.__mro__[1] is slow_package.Base
    assert user_of_it.Derived("it").name == "it"
