"""Settings, their defaults, and engines of an imputer."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import PROPERTIES
from sklearn.base import clone

from recbole_missing.config import defaults
from recbole_missing.config.constraints import Float, Int
from recbole_missing.imputation import (
    IMPUTERS,
    AutoEncoder,
    FeatProp,
    Mean,
    NearestNeighbour,
    Random,
    make_imputer,
)
from recbole_missing.imputation.base import Filled, Imputer
from recbole_missing.parallel import Serial

PACKAGE = Path(__file__).resolve().parents[2] / "recbole_missing"


@pytest.mark.parametrize("name", IMPUTERS)
def test_defaults_are_those_of_the_yaml(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stated = defaults.load(PROPERTIES / "overall.yaml")
    params = IMPUTERS[name]().get_params()
    assert params == {key: stated[f"imputation_{key}"] for key in IMPUTERS[name].hyperparameters}
    text = (PROPERTIES / "overall.yaml").read_text()
    assert "imputation_layers: 3 " in text
    changed = text.replace("imputation_layers: 3 ", "imputation_layers: 7 ")
    (tmp_path / "overall.yaml").write_text(changed.replace("fallback: mean", "fallback: zeros"))
    monkeypatch.setattr(defaults, "_ROOTS", (tmp_path,))
    defaults._read.cache_clear()
    try:
        others = IMPUTERS[name]().get_params()
    finally:
        defaults._read.cache_clear()
    expected = {"layers": 7, "fallback": "zeros"}
    assert others == {key: expected.get(key, value) for key, value in params.items()}


def test_no_imputer_states_a_default_itself() -> None:
    for path in (PACKAGE / "imputation").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and node.name == "__init__":
                assert not node.args.defaults and not any(node.args.kw_defaults), path


@pytest.mark.parametrize("name", IMPUTERS)
def test_scikit_learns_habits(name: str) -> None:
    imputer = IMPUTERS[name]()
    assert set(imputer.get_params()) == set(IMPUTERS[name].hyperparameters)
    twin = clone(imputer)
    assert type(twin) is type(imputer) and twin.get_params() == imputer.get_params()
    assert repr(imputer) == repr(twin)
    for key, value in imputer.get_params().items():
        assert f"{key}={value!r}" in repr(imputer).replace("\n", "")
    with pytest.raises(ValueError, match="Invalid parameter"):
        imputer.set_params(nonsense=1)


def test_arguments_are_stored_as_they_are() -> None:
    sizes = [5, 3]
    imputer = IMPUTERS["autoencoder"](hidden_sizes=sizes, epochs=2)
    assert imputer.hidden_sizes is sizes
    assert clone(imputer).set_params(epochs=9).get_params() == {**imputer.get_params(), "epochs": 9}


def test_an_unknown_setting_is_refused_by_name() -> None:
    with pytest.raises(TypeError, match="setting of FeatProp 'layer'. Did you mean 'layers'"):
        FeatProp(layer=2)
    with pytest.raises(TypeError, match="Unknown setting of Mean 'seed'"):
        Mean(seed=2)


def test_a_clone_keeps_the_engine() -> None:
    imputer = FeatProp(layers=2)
    assert clone(imputer).engine is Imputer.engine
    imputer.engine = Serial(progress=True)
    assert clone(imputer).engine is imputer.engine
    assert FeatProp(layers=2).engine is Imputer.engine, "other instances are left alone"


class Constant(Imputer):
    """An imputer from outside the package."""

    hyperparameters = {"value": Float(), "copies": Int(min=1)}
    properties: Any = {"value": 0.5}

    def fill(self, table: Any, others: Any) -> Filled:
        """Give the same number everywhere."""
        return Filled(table.features * 0 + self.value)


class Own(Imputer):
    """An imputer that has a constructor."""

    def __init__(self, strength: float = 2.0) -> None:
        """Store the setting."""
        self.strength = strength


def test_imputers_from_outside_bring_their_defaults(tmp_path: Path) -> None:
    imputer = clone(Constant(copies=2))
    assert imputer.get_params() == {"value": 0.5, "copies": 2}
    with pytest.raises(TypeError, match="Constant: copies must be given, for it has no default"):
        Constant()
    filled = imputer.fit(np.ones((1, 2))).transform(np.array([[1.0], [np.nan]]))
    assert filled.tolist() == [[1.0], [0.5]]
    (tmp_path / "own.yaml").write_text("value: 3.0\ncopies: 1\n")
    from_file = type("FromFile", (Constant,), {"properties": str(tmp_path / "own.yaml")})
    assert from_file().get_params() == {"value": 3.0, "copies": 1}
    assert clone(Own(3.0)).get_params() == {"strength": 3.0}


def test_a_setting_without_a_default_is_named() -> None:
    address = f"{__name__}:Constant"
    with pytest.raises(ValueError, match=r"imputation_copies must have a value, got none; give it"):
        make_imputer({"imputation": address, "imputation_value": 0.5})
    settings = {"imputation": address, "imputation_value": 0.5, "imputation_copies": 2}
    assert make_imputer(settings).get_params() == {"value": 0.5, "copies": 2}


@pytest.mark.parametrize(
    ("imputer", "message"),
    [
        (NearestNeighbour(fallback="bogus"), "NearestNeighbour: fallback must be one of mean"),
        (Random(seed="x"), "Random: seed must be an int >= 0, got 'x'"),
        (Random().set_params(seed=-1), "Random: seed must be an int >= 0, got -1"),
        (FeatProp().set_params(layers=-1), "FeatProp: layers must be"),
        (AutoEncoder(epochs=0), "AutoEncoder: epochs must be"),
        (Constant(copies=0), "Constant: copies must be an int >= 1, got 0"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_imputer_checks_its_settings(imputer: Imputer, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        imputer.fit(np.ones((2, 3)))


class Reporting(Imputer):
    """An imputer that reports numbers of numpy and torch."""

    def fill(self, table: Any, others: Any) -> Filled:
        """Give zeros."""
        numbers = {"n": np.int64(3), "mean": np.float32(0.5), "sum": torch.tensor(2.0)}
        return Filled(table.features * 0, details=numbers)


def test_a_report_holds_plain_numbers() -> None:
    imputer = Reporting().fit(np.ones((1, 2)))
    imputer.transform(np.array([[1.0], [np.nan]]))
    report = json.loads(json.dumps(imputer.report_))["X"]
    assert (report["n"], report["mean"], report["sum"]) == (3, 0.5, 2.0)
