"""Names, ``module:Class`` and classes of models and imputers, in and outside the package."""

from __future__ import annotations

import json
import os
import pickle
import sys
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import recbole.quick_start
import torch
from folders import AT_WORK, Named, Toy, prepare, refused, tiny_content
from folders import workplace as workplace
from recbole.config import Config
from recbole.evaluator import register
from recbole.utils import get_model

from recbole_missing import (
    IMPUTERS,
    MODELS,
    checkpoint,
    cli,
    register_imputer,
    register_model,
)
from recbole_missing.config import defaults
from recbole_missing.imputation import Zeros, imputer_settings, make_imputer
from recbole_missing.model.vbpr import VBPR
from recbole_missing.registry import ModelName, Registry, address, is_outside

HERE = ("--data-path", ".")
pytestmark = AT_WORK

MODULE = """
import torch
from recbole_missing.config.constraints import Float, Int
from recbole_missing.imputation import Imputer
from recbole_missing.imputation.base import Filled
from recbole_missing.model.vbpr import VBPR

class Constant(Imputer):
    "Fills in one number."
    hyperparameters = {"number": Float(), "top_k": Int(min=1)}
    properties = {"number": 0.25}
    costly = False

    def __init__(self, number, top_k):
        self.number, self.top_k = number, top_k

    def fill(self, table, others):
        return Filled(torch.full_like(table.features, self.number))

class Mine(VBPR):
    "A model of ours under another name."
"""


@pytest.fixture
def settings(tmp_path):
    return tiny_content().write(tmp_path)


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module of a user's own in the current folder; not imported yet."""
    (tmp_path / "own_methods.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    yield "own_methods"
    sys.modules.pop("own_methods", None)


# ----------------------------------------------------------------------------------- the registry


def test_a_table_imports_nothing_before_it_is_asked(module):
    table = Registry("model", "register_model", {"Mine": "own_methods:Mine"})
    assert list(table) == ["Mine"] and len(table) == 1 and "Mine" in table
    assert [1] not in table and "Other" not in table
    assert module not in sys.modules
    assert table["Mine"].__name__ == "Mine" and module in sys.modules


def test_names_addresses_and_classes_lead_to_a_class(module):
    assert MODELS.resolve("VBPR") is MODELS.resolve(VBPR) is VBPR
    found = MODELS.resolve("own_methods:Mine")
    assert found.__module__ == module and MODELS.resolve("own_methods:Mine") is found
    assert MODELS.find("own_methods:Mine") is found and MODELS.find("Mine") is None


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("VBRP", "Unknown model 'VBRP'. Did you mean 'VBPR'"),
        ("no_such_module:Mine", "model: 'no_such_module:Mine' must be module:Class"),
        ("own_methods:Yours", "model: 'own_methods:Yours' must be module:Class"),
        ("own_methods:torch", "must be module:Class, got a module"),
    ],
)
def test_what_leads_to_no_class_is_refused(module, word, message):
    with pytest.raises(ValueError, match=message):
        MODELS.resolve(word)


def test_finding_imports_no_code_from_outside(module):
    assert MODELS.find("own_methods:Mine") is None
    with pytest.raises(ValueError, match=r"a.pth: the model own_methods:Mine .*pass --model own_m"):
        MODELS.recorded("own_methods:Mine", "a.pth", "--model")
    assert module not in sys.modules


def test_registered_imputers_go_by_their_name_and_names_are_not_taken_twice(module):
    constant = IMPUTERS.resolve("own_methods:Constant")
    assert register_imputer(constant) is constant and register_imputer(constant) is constant
    assert IMPUTERS.find("Constant") is constant and "Constant" not in IMPUTERS
    clashing = type("Constant", (Zeros,), {"__module__": "elsewhere"})
    with pytest.raises(ValueError, match="register_imputer: 'Constant' must be a name that is not"):
        register_imputer(clashing)


def test_addresses():
    assert address(Toy) == "folders:Toy" and is_outside(Toy)
    assert not is_outside(VBPR) and not is_outside(Named.__base__)


def test_a_model_name_is_text_that_remembers_its_class():
    name = ModelName(Toy)
    assert name == "Toy" and f"{name}.pth" == "Toy.pth" and hash(name) == hash("Toy")
    assert type(str(name)) is str
    for copied in (deepcopy(name), pickle.loads(pickle.dumps(name))):
        assert copied == "Toy" and copied.model is Toy


# ------------------------------------------------------------------------------ imputers in a run


@pytest.mark.parametrize("way", ["address", "class", "registered"])
def test_an_imputer_from_outside_completes_a_data_set(settings, module, way):
    words = {"address": "own_methods:Constant"}
    if way != "address":
        constant = IMPUTERS.resolve("own_methods:Constant")
        words = {"class": constant, "registered": register_imputer(constant).__name__}
    run = prepare("VBPR", settings, imputation=words[way])
    assert run.config["imputation"] == "own_methods:Constant"
    assert (run.config["imputation_number"], run.config["imputation_top_k"]) == (0.25, 20)
    known, completed = run.dataset.known["image"], run.dataset.modalities["image"]
    assert completed.features[1:][~known.observed[1:]].unique().tolist() == [0.25]
    assert torch.equal(completed.features[known.observed], known.features[known.observed])


def test_settings_of_an_imputer_from_outside_are_checked(settings, module):
    chosen = {**settings, "imputation": "own_methods:Constant"}
    assert Config("VBPR", config_dict={**chosen, "imputation_number": 2})["imputation_number"] == 2
    with pytest.raises(ValueError, match="imputation_number must be a number, got 'x'"):
        Config("VBPR", config_dict={**chosen, "imputation_number": "x"})
    with pytest.raises(ValueError, match="Unknown setting 'imputation_numbre'. Did you mean"):
        Config("VBPR", config_dict={**chosen, "imputation_numbre": 2})
    with pytest.raises(ValueError, match="imputation: 'own_methods:Constat' must be module:Class"):
        Config("VBPR", config_dict={**chosen, "imputation": "own_methods:Constat"})
    assert set(imputer_settings("own_methods:Constant")) == {
        "imputation_number",
        "imputation_top_k",
    }
    values = {"imputation_number": 1.0, "imputation_top_k": 3}
    made = make_imputer({"imputation": "own_methods:Constant", **values})
    assert (made.number, made.top_k) == (1.0, 3)


def test_impute_takes_an_imputer_from_outside(module, tmp_path, capsys):
    np.save(tmp_path / "image.npy", np.array([[1.0], [np.nan], [2.0]], dtype=np.float32))
    (tmp_path / "ids.txt").write_text("a\nb\nc\n")
    (tmp_path / "train.inter").write_text("user_id:token\titem_id:token\nu\ta\nu\tb\nv\tc\n")
    words = ["impute", "--interactions", "train.inter", "--features", "image=image.npy", "--ids"]
    words += ["image=ids.txt", "--method", "own_methods:Constant", "--output", "done"]
    cli.main(words)
    features = np.load(tmp_path / "done" / "image.npy")
    items = (tmp_path / "done" / "items.ids").read_text().split()
    assert features[items.index("b")] == [0.25]
    cli.main([*words[:-1], "more", "--set", "number=3"])
    assert np.load(tmp_path / "more" / "image.npy")[items.index("b")] == [3.0]
    assert "Did you mean 'number'" in refused(capsys, *words[:-1], "no", "--set", "numbr=3")


def test_a_benchmark_takes_models_and_imputers_from_outside(settings, module, tmp_path):
    values = {key: value for key, value in settings.items() if key not in ("dataset", "data_path")}
    content = {
        "title": "Mine",
        "grid": {
            "dataset": ["tiny"],
            "seed": [1],
            "model": ["own_methods:Mine", "BPR"],
            "imputation": ["own_methods:Constant", "zeros"],
        },
        "settings": values,
    }
    (tmp_path / "mine.yaml").write_text(json.dumps(content))
    cli.main(["benchmark", "mine.yaml", "--data-path", str(tmp_path), "--store", "mine.jsonl"])
    lines = [json.loads(line) for line in (tmp_path / "mine.jsonl").read_text().splitlines()]
    assert [line["status"] for line in lines] == ["done"] * 3, "BPR reads no modality: one run"
    own = [line for line in lines if line["point"]["model"] == "own_methods:Mine"]
    assert [line["config"]["imputation"] for line in own] == ["own_methods:Constant", "zeros"]
    assert len({line["source"] for line in lines}) == 3 and all(line["source"] for line in lines)
    assert {line["config"]["stopping_step"] for line in lines} == {20}, "one protocol for all"


# ------------------------------------------------------------------------------------ checkpoints


def trained(model, settings, **changes):
    run = prepare(model, settings, **changes)
    trainer = run.trainer()
    trainer.fit(run.train, run.valid)
    return run, trainer


def forget(module):
    """Be the process that comes later and has not been given the user's classes."""
    sys.modules.pop(module, None)
    for registry in (MODELS, IMPUTERS):
        registry._given.clear()


def test_recommend_needs_the_users_word_for_a_model_from_outside(settings, module, capsys):
    run, trainer = trained("own_methods:Mine", settings)
    expected = run.scores(trainer.model)
    file = trainer.saved_model_file
    forget(module)
    message = refused(capsys, "recommend", file)
    assert f"{file}: the model own_methods:Mine must be known" in message
    assert "pass --model own_methods:Mine" in message and "register_model" in message
    assert module not in sys.modules, "a checkpoint imports no code"
    cli.main(["recommend", file, *HERE, "--model", "own_methods:Mine"])
    assert len(capsys.readouterr().out.splitlines()) > 100
    forget(module)
    register_model(get_model("own_methods:Mine"))
    config, model, *_ = recbole.quick_start.load_data_and_model(file, settings["data_path"])
    assert type(model).__name__ == config["model"] == "Mine"
    assert torch.equal(run.scores(model), expected)


def test_recommend_and_retrieve_need_it_for_an_imputer_too(settings, module, capsys):
    _, trainer = trained("VBPR", settings, imputation="own_methods:Constant")
    file = trainer.saved_model_file
    forget(module)
    assert "pass --imputation own_methods:Constant" in refused(capsys, "recommend", file)
    assert "pass --imputation own_methods:Constant" in refused(capsys, "retrieve", file)
    assert module not in sys.modules
    cli.main(["recommend", file, *HERE, "--imputation", "own_methods:Constant"])
    assert len(capsys.readouterr().out.splitlines()) > 100


def test_a_checkpoint_of_a_class_with_a_taken_name_is_never_loaded_into_ours(settings, capsys):
    mine = type("VBPR", (Toy,), {"__module__": "mine"})
    _, trainer = trained(mine, settings)
    file = trainer.saved_model_file
    assert type(recbole.quick_start.load_data_and_model(file, settings["data_path"])[1]) is mine
    MODELS._given.clear()
    with pytest.raises(ValueError, match="the model mine:VBPR must be known before"):
        recbole.quick_start.load_data_and_model(file, settings["data_path"])


PLANTED = """
from pathlib import Path
Path("was_here").touch()
from recbole_missing.imputation import Zeros
from recbole_missing.model.vbpr import VBPR
class Evil(VBPR): pass
class Filler(Zeros): pass
"""


@pytest.mark.parametrize(
    ("changes", "option"),
    [
        ({"model": "planted:Evil"}, "--model planted:Evil"),
        ({"imputation": "planted:Filler"}, "--imputation planted:Filler"),
    ],
)
def test_a_checkpoint_runs_no_planted_code(
    settings, tmp_path, monkeypatch, capsys, changes, option
):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "planted.py").write_text(PLANTED)
    _, trainer = trained("VBPR", settings)
    file = trainer.saved_model_file
    state = checkpoint.load(Path(file))
    state["config"].update(changes)
    checkpoint.save(state, Path(file))
    with pytest.raises(ValueError, match=f"pass {option}"):
        recbole.quick_start.load_data_and_model(file, settings["data_path"])
    for command in ("recommend", "retrieve"):
        message = refused(capsys, command, file)
        assert f"pass {option}" in message and f"{file}: the" in message
    assert not Path("was_here").exists() and "planted" not in sys.modules


def test_settings_of_a_saved_run_import_nothing(settings, tmp_path, monkeypatch):
    """A data set's name may lead out of our folder of YAML files, to one that names code."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "planted.py").write_text(PLANTED)
    run = prepare("VBPR", settings)
    saved = checkpoint.config_state(run.config)
    (tmp_path / "evil.yaml").write_text("modalities: [image]\nimputation: planted:Filler\n")
    folder = defaults.root() / "dataset"
    saved["dataset"] = os.path.relpath(tmp_path / "evil", folder)
    assert defaults.read("dataset", saved["dataset"])["imputation"] == "planted:Filler"
    with pytest.raises(ValueError, match="dataset must be the name of a data set without a path"):
        checkpoint.rebuild_config(saved)
    saved["dataset"] = "tiny"
    config = checkpoint.rebuild_config(saved)
    assert all(config[key] == run.config[key] for key in ("modalities", "imputation"))
    with pytest.raises(ValueError, match="the model planted:Evil must be known"):
        checkpoint.rebuild_config({**saved, "model": "planted:Evil"})
    assert not Path("was_here").exists() and "planted" not in sys.modules


METRIC = """
from recbole.evaluator.base_metric import TopkMetric

class Misses(TopkMetric):
    smaller = True

    def metric_info(self, pos_index, pos_len=None):
        return (pos_index.cumsum(axis=1) == 0).astype(float)

    def calculate_metric(self, dataobject):
        hits, _ = self.used_info(dataobject)
        return self.topk_result("misses", self.metric_info(hits))
"""


@pytest.fixture
def metric(tmp_path, monkeypatch):
    (tmp_path / "own_metrics.py").write_text(METRIC)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "own_metrics:Misses"
    forget_metric()


def forget_metric():
    sys.modules.pop("own_metrics", None)
    for known in (register.metrics_dict, register.metric_information, register.metric_types):
        known.pop("misses", None)
    register.smaller_metrics[:] = [name for name in register.smaller_metrics if name != "misses"]


def test_a_metric_from_outside_by_its_address(settings, metric, capsys):
    words = {"metrics": ["Recall", metric], "valid_metric": "Misses@5"}
    run, trainer = trained("VBPR", settings, **words)
    assert run.config["metrics"] == ["Recall", "Misses"]
    assert run.config["valid_metric_bigger"] is False
    assert {"misses@5", "recall@5"} <= set(trainer.best_valid_result)
    forget_metric()
    cli.main(["recommend", trainer.saved_model_file, *HERE, "--top-k", "2"])
    assert "own_metrics" not in sys.modules, "a checkpoint imports nothing"
    assert "user_id:token" in capsys.readouterr().out
    with pytest.raises(ValueError, match="metric: 'own_metrics:No' must be module:Class"):
        prepare("VBPR", settings, metrics=["own_metrics:No"])


@pytest.mark.parametrize("registry", [MODELS, IMPUTERS])
def test_a_class_of_another_kind_is_refused(registry):
    for word in ("pathlib:Path", Path):
        with pytest.raises(ValueError, match="must be a subclass of .*, got a class that is not"):
            registry.resolve(word)
