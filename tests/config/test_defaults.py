"""Layers of defaults, released values, and what a class brings along."""

from __future__ import annotations

import importlib
import sys

import pytest

from recbole_missing.config import defaults


class Ours:
    """Stands for a model of ours that has a YAML file."""


Ours.__name__ = "VBPR"
KNOWN = {"VBPR": Ours}


def test_defaults_of_a_class_are_those_of_the_nearest_class_that_has_any(tmp_path):
    of_yaml = defaults.read("model", "VBPR")
    assert of_yaml and defaults.of_class(Ours, KNOWN) == of_yaml
    assert defaults.of_class(type("Child", (Ours,), {}), KNOWN) == of_yaml
    own = type("Own", (Ours,), {"properties": {"a": 1}})
    assert defaults.of_class(own, KNOWN) == {"a": 1}
    assert defaults.of_class(type("Child", (own,), {}), KNOWN) == {"a": 1}
    (tmp_path / "own.yaml").write_text("a: 1e-3\n")
    in_file = type("InFile", (), {"properties": tmp_path / "own.yaml"})
    assert defaults.of_class(in_file, KNOWN) == {"a": 0.001}


def test_a_relative_path_is_one_beside_the_module_of_the_class(tmp_path, monkeypatch):
    (tmp_path / "theirs.py").write_text("class Theirs:\n    properties = 'theirs.yaml'\n")
    (tmp_path / "theirs.yaml").write_text("a: 5\n")
    monkeypatch.syspath_prepend(tmp_path)
    theirs = importlib.import_module("theirs").Theirs
    child = type("Child", (theirs,), {})
    assert defaults.of_class(theirs, KNOWN) == defaults.of_class(child, KNOWN) == {"a": 5}
    assert defaults.of_properties(child, child.properties) == {"a": 5}
    (tmp_path / "theirs.yaml").unlink()
    with pytest.raises(ValueError, match="Theirs: properties must be a dict or a YAML file beside"):
        defaults.of_class(theirs, KNOWN)
    del sys.modules["theirs"]


def test_a_stranger_of_the_same_name_gets_none_of_our_defaults():
    assert defaults.of_class(type("VBPR", (), {}), KNOWN) == {}


def test_later_layers_win():
    model = {"epochs": 3, "presets": {"tiny": {"epochs": 4}, "other": {"epochs": 5}}}
    imputer = {"imputation_top_k": 7, "epochs": 1}

    def epochs(dataset, preset):
        values = defaults.of_run("Mine", model, dataset, preset, 2, imputer)
        assert values["imputation_top_k"] == 7 and "presets" not in values
        return values["epochs"], values["preset"]

    assert epochs("tiny", "auto") == (4, "tiny")
    assert epochs("elsewhere", "auto") == (3, "none")
    assert epochs("tiny", "none") == (3, "none")
    assert epochs("tiny", "other") == (5, "other")
    with pytest.raises(ValueError, match="Mine: preset must be one of auto, none, tiny, other, go"):
        epochs("tiny", "third")


def test_a_preset_fits_the_number_of_modalities():
    preset = {"a": 0, "b": 0, "by_modalities": {2: {"a": 2}, 3: {"a": 3, "c": 3}}}
    found = {n: defaults.fitting(preset, n) for n in range(6)}
    assert found[0] == found[1] == found[2] == {"a": 2, "b": 0}
    assert found[3] == found[4] == found[5] == {"a": 3, "b": 0, "c": 3}
    assert defaults.fitting({"a": 1}, 2) == {"a": 1}


@pytest.mark.parametrize("n_modalities, normalised", [(2, True), (3, False)])
def test_the_preset_of_tiktok_takes_the_released_path(n_modalities, normalised):
    milk = {"presets": defaults.read("model", "MILK")["presets"]}
    found = defaults.of_run("MILK", milk, "tiktok", "auto", n_modalities, {})
    assert found["normalise_features"] is normalised and "by_modalities" not in found


def test_a_file_of_recboles_is_parsed_once_and_its_content_is_the_callers(tmp_path, monkeypatch):
    file = tmp_path / "theirs.yaml"
    file.write_text("topk: [10]\nrate: 1e-3\n")
    first = defaults.of_recbole(str(file))
    assert first == {"topk": [10], "rate": 0.001}
    first["topk"].append(20)
    monkeypatch.setattr(defaults.yaml, "load", None)
    assert defaults.of_recbole(str(file)) == {"topk": [10], "rate": 0.001}
    monkeypatch.undo()
    file.write_text("topk: [10, 20]\n")
    assert defaults.of_recbole(str(file)) == {"topk": [10, 20]}
