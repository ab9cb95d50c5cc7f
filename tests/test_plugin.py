"""What RecBole's own functions know once the package is imported."""

from __future__ import annotations

import json
import pickle
import sys
from pathlib import Path

import pytest
import recbole.data.dataset
import recbole.quick_start
import recbole.quick_start.quick_start as quick_start
import torch
import yaml
from folders import (
    AT_WORK,
    MODALITIES,
    RECBOLE_ALONE,
    Named,
    Toy,
    in_new_process,
    pairs_of,
    prepare,
    tiny_content,
)
from folders import workplace as workplace
from recbole.config import Config
from recbole.data import create_dataset
from recbole.quick_start import load_data_and_model
from recbole.sampler import Sampler
from recbole.trainer import Trainer
from recbole.utils import ModelType, get_model, get_trainer

import recbole_missing
from recbole_missing import MODELS, cli, plugin, register_model, run_settings
from recbole_missing.config import defaults
from recbole_missing.config.constraints import Int, Text
from recbole_missing.data.dataset import MultimodalDataset
from recbole_missing.model.vbpr import VBPR
from recbole_missing.trainer import MultimodalTrainer, PluginTrainer

pytestmark = AT_WORK


@pytest.fixture
def settings(tmp_path):
    return tiny_content().write(tmp_path)


# ------------------------------------------------------------------------- RecBole's functions


def test_recboles_look_ups_know_models_trainer_and_data_set(settings):
    for name, model in MODELS.items():
        assert get_model(name) is model
        assert get_trainer(ModelType.GENERAL, name) is MultimodalTrainer
    assert get_trainer(ModelType.GENERAL, "BPR") is PluginTrainer
    dataset = create_dataset(Config("VBPR", config_dict=settings))
    assert type(dataset) is MultimodalDataset


def test_run_recbole_and_run_train_and_test_our_models(settings):
    by_run_recbole = recbole.quick_start.run_recbole("VBPR", "tiny", config_dict=dict(settings))
    by_run = recbole.quick_start.run("VBPR", "tiny", config_dict=dict(settings))
    by_us = recbole_missing.run_recbole_missing("VBPR", "tiny", config_dict=dict(settings))
    assert set(by_run_recbole["test_result"]) == {"recall@5", "recall@10", "ndcg@5", "ndcg@10"}
    assert by_run["test_result"] == by_run_recbole["test_result"] == by_us["test_result"]
    assert by_us["test_result_by_group"] and Path(by_us["checkpoint"]).is_file()


def test_objective_function_of_hyper_tuning_runs_our_models(settings, monkeypatch):
    reported = {}
    monkeypatch.setattr(quick_start.tune, "report", lambda **values: reported.update(values))
    values = {**settings, "model": "VBPR", "reg_weight": 0.5}
    result = recbole.quick_start.objective_function(values, saved=False)
    assert result["model"] == "VBPR" and reported == result["test_result"]


EARLY_NAMES = """
import torch
from recbole.config import Config
from recbole.data import create_dataset, create_samplers, data_preparation
from recbole.quick_start import load_data_and_model, run, run_recboles
from recbole.utils import get_model, get_trainer
import recbole.data.utils
allowed = getattr(torch.serialization, "get_safe_globals", list)
before = torch.load, torch.save, allowed()
import recbole_missing
from folders import tiny_content
from pathlib import Path
assert (torch.load, torch.save, allowed()) == before
settings = tiny_content().write(Path.cwd())
config = Config("VBPR", config_dict=settings)
dataset = create_dataset(config)
train, valid, test = data_preparation(config, dataset)
model = get_model("VBPR")(config, train._dataset)
trainer = get_trainer(config["MODEL_TYPE"], "VBPR")(config, model)
trainer.fit(train, valid)
print(type(dataset).__name__, type(trainer).__name__, create_samplers.__wrapped__ is not None)
loaded = load_data_and_model(trainer.saved_model_file, Path.cwd())[1]
same = torch.equal(loaded.user_embedding, model.user_embedding)
print(same, run.__wrapped__ is not run, run_recboles.__module__)
"""


@pytest.mark.slow
@RECBOLE_ALONE
def test_names_imported_before_the_package_know_it_too(tmp_path):
    lines = in_new_process(EARLY_NAMES, tmp_path).splitlines()
    assert lines[-2] == "MultimodalDataset MultimodalTrainer True"
    assert lines[-1] == "True True recbole_missing.plugin"


def test_installing_twice_changes_nothing():
    before = (Config.__init__, quick_start.get_model, quick_start.run_recboles)
    plugin.install()
    assert (Config.__init__, quick_start.get_model, quick_start.run_recboles) == before


# ----------------------------------------------------------------------- import, install, uninstall


def test_importing_the_package_imports_neither_torch_nor_recbole(tmp_path):
    code = """
import sys
import recbole_missing
from recbole_missing import register_model
assert {"MODELS", "run_recbole_missing"} <= set(dir(recbole_missing))
print([name for name in ("torch", "recbole", "numpy", "pandas", "ray") if name in sys.modules])
"""
    assert in_new_process(code, tmp_path).splitlines()[-1] == "[]"


LATE_NAMES = """
import recbole_missing
from recbole.config import Config
from recbole.data import create_dataset, create_samplers
from recbole.quick_start import load_data_and_model, run, run_recboles
from recbole.utils import get_model, get_trainer
import recbole.data.utils, recbole.quick_start.quick_start as quick_start
from recbole_missing import plugin
assert get_model is quick_start.get_model is plugin.get_model
assert create_dataset is recbole.data.utils.create_dataset is plugin.create_dataset
assert (run, run_recboles) == (plugin.run, plugin.run_recboles)
print(get_model("VBPR").__module__, Config("VBPR", "ml-100k")["modalities"])
"""


UNINSTALLED = """
import sys
{first}
import recbole.quick_start, recbole.trainer, recbole.data.dataset
from recbole.config import Config
from recbole.utils import get_model
from recbole.utils.argument_list import dataset_arguments

def state():
    found = {{}}
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] == "recbole" or name == "__main__":
            found.update({{(name, key): id(value) for key, value in vars(module).items()}})
    found.update({{key: id(value) for key, value in vars(Config).items()}})
    own = [str(type(value)) for value in sys.meta_path if "recbole" in type(value).__module__]
    return found, list(dataset_arguments), own

def ours():
    return {{n for n, m in sys.modules.items() if n.split(".")[0] == "recbole" and any(
        getattr(v, "__globals__", {{}}).get("__name__") == "recbole_missing.plugin"
        for v in [*vars(m).values(), *vars(Config).values()])}}

{before}
import recbole_missing
from recbole_missing import plugin
from recbole_missing.quick_start import run_recbole_missing
from recbole.quick_start.quick_start import run
installed = state()
config = Config("VBPR", "ml-100k")
recbole.quick_start.quick_start.create_dataset(config)
assert "recbole.quick_start.quick_start" in ours() and "data_fingerprint" in dataset_arguments
plugin.uninstall()
plugin.uninstall()
{after}
assert not ours() and "data_fingerprint" not in dataset_arguments and not state()[2]
assert run is recbole.quick_start.quick_start.run and get_model.__module__ == "recbole.utils.utils"
assert not any(name.startswith("VBPR") for name in vars(recbole.data.dataset))
try:
    get_model("VBPR")
except (ValueError, ImportError):  # ImportError: RecBole looks among its optional models last
    pass
else:
    raise AssertionError("RecBole knows VBPR")
assert Config("BPR", "ml-100k")["data_fingerprint"] is None
assert get_model("Pop").__module__ == "recbole.model.general_recommender.pop"
plugin.install()
assert get_model("Pop").__module__ == "recbole_missing.baseline.pop"
print(get_model("VBPR").__name__, Config("VBPR", "ml-100k")["missing_protocol"], run is plugin.run)
"""


@pytest.mark.parametrize(
    "first", [pytest.param("RecBole", marks=[RECBOLE_ALONE, pytest.mark.slow]), "the package"]
)
def test_uninstall_puts_everything_back(tmp_path, first):
    recbole_first = first == "RecBole"
    code = UNINSTALLED.format(
        first="" if recbole_first else LATE_NAMES,
        before="Config('BPR', 'ml-100k'); plain = state()" if recbole_first else "",
        after="""
again = state()
assert again[1:] == plain[1:]
changed = {key for key in plain[0] if again[0].get(key) != plain[0][key]}
assert {key for key in changed if key[0] != "__main__"} == set(), changed
"""
        if recbole_first
        else "",
    )
    lines = in_new_process(code, tmp_path).splitlines()
    assert lines[-1] == "VBPR stratified True"
    names = "recbole_missing.model.vbpr ['title', 'genres']"
    assert recbole_first or names in lines, "names that are imported after the package know it too"


BLOCKED = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("recbole", "ray"):
            raise ImportError(f"{name} is not installed here")

sys.meta_path.insert(0, Blocker())
import numpy as np
from scipy import sparse
import recbole_missing
import recbole_missing.config.check, recbole_missing.config.defaults, recbole_missing.data.missing
import recbole_missing.graph.co_interaction, recbole_missing.graph.knn, recbole_missing.modality
import recbole_missing.nn.layers, recbole_missing.nn.losses
from recbole_missing.imputation import IMPUTERS, FeatProp, imputer_defaults, make_imputer
assert all(issubclass(cls, recbole_missing.imputation.Imputer) for cls in IMPUTERS.values())
defaults = recbole_missing.config.defaults.overall()
interactions = sparse.csr_matrix(np.array([[0, 1, 1, 0], [0, 0, 1, 1]]))
features = np.array([[0.0], [1.0], [np.nan], [3.0]])
imputer = make_imputer({**defaults, "imputation": "featprop", "imputation_layers": 1})
assert type(imputer) is FeatProp
print(imputer.fit(interactions).transform(features)[2], "recbole" in sys.modules)
"""


def test_imputation_works_where_recbole_and_ray_are_not_installed(tmp_path):
    filled, there = in_new_process(BLOCKED, tmp_path).splitlines()[-1].rsplit(" ", 1)
    assert there == "False" and float(filled.strip("[]")) > 0


# --------------------------------------------------------------- RecBole's models are left alone


PLAIN = """
import hashlib, json, sys
{first}
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.utils import get_model, get_trainer, init_logger, init_seed
{second}
for name in ("BPR", "LightGCN", "NeuMF"):
    config = Config(name, "tiny", config_dict=json.loads({settings!r}))
    init_seed(config["seed"], config["reproducibility"])
    init_logger(config)
    data = create_dataset(config)
    train, valid, test = data_preparation(config, data)
    init_seed(config["seed"], config["reproducibility"])
    model = get_model(config["model"])(config, train._dataset)
    trainer = get_trainer(config["MODEL_TYPE"], config["model"])(config, model)
    best = trainer.fit(train, valid, saved=False, show_progress=False)
    result = trainer.evaluate(test, load_best_model=False)
    values = [value.numpy().tobytes() for value in model.state_dict().values()]
    digest = [hashlib.sha1(value).hexdigest() for value in values]
    print("RESULT", json.dumps([name, digest, [dict(best[1]), dict(result)], config["topk"]]))
"""
FULL = {"state": "ERROR", "metric_decimal_place": 15, "epochs": 3, "train_batch_size": 64}
SAME = {
    "metrics": ["Recall", "NDCG", "MRR"],
    "topk": [5, 10],
    "valid_metric": "NDCG@10",
    "stopping_step": 10,
    "eval_batch_size": 4096,
}


def results(tmp_path, settings, first="", second=""):
    code = PLAIN.format(first=first, second=second, settings=json.dumps(settings))
    lines = in_new_process(code, tmp_path).splitlines()
    return [json.loads(line[7:]) for line in lines if line.startswith("RESULT ")]


@pytest.mark.slow
@RECBOLE_ALONE
def test_recboles_models_give_plain_recboles_result_bit_for_bit(settings, tmp_path):
    """All but those of recbole_missing.baseline, which tests/model/test_baselines.py checks."""
    ours = {key: settings[key] for key in MODALITIES}
    plain = {k: v for k, v in settings.items() if k not in {*ours, "topk", "valid_metric"}} | FULL
    expected = results(tmp_path, plain)
    assert [name for name, *_ in expected] == ["BPR", "LightGCN", "NeuMF"]
    assert all(topk == [10] for *_, topk in expected), "RecBole's own default"
    package = "import recbole_missing"
    assert results(tmp_path, plain, first=package) == expected
    gone = f"{package}; recbole_missing.plugin.uninstall()"
    assert results(tmp_path, plain, second=gone) == expected
    expected = results(tmp_path, {**plain, **SAME})
    assert results(tmp_path, {**plain, **SAME, **ours}, second=package) == expected
    assert results(tmp_path, {**plain, **SAME, "plugin_defaults": True}, first=package) == expected


def test_defaults_of_recboles_models_are_recboles_until_the_package_is_turned_on(settings):
    plain = Config("BPR", "ml-100k")
    assert (plain["epochs"], plain["topk"], plain["stopping_step"]) == (300, [10], 10)
    assert plain["modalities"] is None and not run_settings.has_our_settings(plain)
    for words in ({"plugin_defaults": True}, {"new_items": "stratified"}, {"test_mask": "train"}):
        config = Config("BPR", "ml-100k", config_dict=words)
        assert (config["epochs"], config["stopping_step"]) == (500, 20)
        assert run_settings.has_our_settings(config) and config["plugin_defaults"] is None
    assert Config("VBPR", "ml-100k", config_dict={"plugin_defaults": False})["epochs"] == 500
    with pytest.raises(ValueError, match="plugin_defaults: must be True or False, got 'yes'"):
        Config("BPR", "ml-100k", config_dict={"plugin_defaults": "yes"})


def test_our_commands_give_recboles_models_our_defaults(settings, monkeypatch):
    plain = {key: settings[key] for key in settings if key not in MODALITIES}
    del plain["topk"], plain["valid_metric"]
    settings = {**plain, "topk": [10, 20]}
    found = recbole_missing.run_recbole_missing("BPR", config_dict=settings)["test_result"]
    assert set(found) == {"recall@10", "recall@20", "ndcg@10", "ndcg@20"}
    words = {"plugin_defaults": False, **plain}
    found = recbole_missing.run_recbole_missing("BPR", config_dict=words)["test_result"]
    assert set(found) == {f"{name}@10" for name in ("recall", "mrr", "ndcg", "hit", "precision")}


def test_a_setting_of_ours_that_has_no_effect_is_warned_of(settings, caplog):
    Config("BPR", "ml-100k", config_dict={"imputation": "mean", "missing_seed": 42})
    assert "BPR: imputation of recbole_missing has no effect without" in caplog.text


def test_the_rule_of_ties_has_an_effect_without_the_package_too(settings, caplog):
    """The trainer is ours for every model."""
    assert Config("BPR", "ml-100k", config_dict={"ties_improve": False})["ties_improve"] is False
    assert "ties_improve" not in caplog.text
    with pytest.raises(ValueError, match="BPR: ties_improve must be True or False, got 'no'"):
        Config("BPR", "ml-100k", config_dict={"ties_improve": "no"})


def test_recbole_evaluates_without_a_validation_split_as_ever(settings):
    plain = {key: settings[key] for key in settings if key not in MODALITIES}
    split = {"eval_args": {"split": {"LS": "test_only"}}, "benchmark_filename": None}
    words = {**plain, **split, "eval_step": 0}
    result = recbole.quick_start.run_recbole("BPR", config_dict=words, saved=False)
    assert result["test_result"]["recall@10"] > 0


@pytest.mark.parametrize("ours", [{}, {"modalities": ["image"]}])
@pytest.mark.parametrize("model", ["BPR", Named])
def test_settings_of_models_that_are_not_ours_are_theirs(settings, caplog, model, ours):
    own = {"metric": "cosine", "seeds": [1], "eval_user": "u1", "learner": "sparse_adam"}
    own |= {"embedding_size": 4, "learning_rate_scheduler": "cosine", "preset": 3, "zzyzx": None}
    config = Config(model, config_dict={**settings, **own, "modalities": None, **ours})
    assert {key: config[key] for key in own} == own
    name, found = config["model"], caplog.text
    for key, meant in (("metric", "metrics"), ("seeds", "seed"), ("eval_user", "eval_users")):
        likeness = f"{name}: {key!r} is a setting of neither RecBole nor recbole_missing. "
        # Whatever a class from outside reads is its own affair; RecBole's models are known.
        warned = model == "BPR" or (ours and key == "eval_user")
        assert found.count(f"{likeness}Did you mean {meant!r}?") == bool(warned)
    assert "zzyzx" not in found and ("has no effect" in found) == (not ours)


def test_our_own_settings_are_checked_for_models_that_are_not_ours(settings):
    for changes, message in (
        ({"missing_ratio": 2}, "BPR: missing_ratio must be a number between 0 and 1, got 2"),
        ({"imputation": "featpop"}, "Unknown imputation 'featpop'"),
        ({"image_encoder": "words"}, "BPR: image_encoder must be one of"),
    ):
        with pytest.raises(ValueError, match=message):
            Config("BPR", config_dict={**settings, **changes})


class Switched(Named):
    """A model of others whose own settings have names of ours."""

    properties = {"modalities": 3, "new_items": "abc", "eval_users": "many"}


class Declaring(Named):
    """The same, by its table of constraints."""

    hyperparameters = {"modalities": Int(min=1), "test_mask": Text()}


@pytest.mark.parametrize(
    ("model", "given"),
    [
        (Switched, {}),
        (Switched, {"modalities": 4, "new_items": "abcd"}),
        (Declaring, {"modalities": 4, "test_mask": "of mine"}),
    ],
)
def test_settings_that_a_model_declares_are_its_own(settings, caplog, model, given):
    plain = {key: value for key, value in settings.items() if key != "modalities"}
    config = Config(model, config_dict={**plain, **given})
    values = {**getattr(model, "properties", {}), **given}
    assert {key: config[key] for key in given} == given
    assert not run_settings.has_our_settings(config) and "has no effect" not in caplog.text
    asked = Config(model, config_dict={**plain, **values, "plugin_defaults": True})
    assert {key: asked[key] for key in values} == values
    assert not run_settings.has_our_settings(asked)
    assert "modalities" in caplog.text and "recbole_missing is not turned on" in caplog.text
    both = Config(Declaring, config_dict={**settings, "new_items": "none", "missing_ratio": 0.0})
    assert not run_settings.has_our_settings(both), "a value of theirs turns nothing on"


# --------------------------------------------------------------------------- order of override


@pytest.fixture
def our_yaml(tmp_path, monkeypatch):
    """A stand-in for ``properties/`` where each level sets one key more than the next one."""
    folder = tmp_path / "our_properties"
    for kind in ("model", "dataset"):
        (folder / kind).mkdir(parents=True)
    overall = defaults.load(defaults.root() / "overall.yaml")
    levels = {
        "overall": {**overall, **dict.fromkeys(KEYS[1:], 2)},
        "model/VBPR": {
            **defaults.read("model", "VBPR"),
            **dict.fromkeys(KEYS[2:], 3),
            "presets": {
                "tiny": dict.fromkeys(KEYS[3:], 4),
                "other": dict.fromkeys(KEYS[3:], 9),
            },
        },
        "dataset/tiny": dict.fromkeys(KEYS[4:], 5),
    }
    for name, values in levels.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(values))
    monkeypatch.setattr(defaults, "_ROOTS", (folder,))
    defaults._read.cache_clear()
    yield
    defaults._read.cache_clear()


# RecBole's default, overall, model, preset, data set, config file, dict, command line.
KEYS = (
    "worker",
    "stopping_step",
    "eval_step",
    "train_batch_size",
    "epochs",
    "missing_seed",
    "imputation_top_k",
    "imputation_layers",
)


def levels_of(config):
    return [config[key] for key in KEYS]


def test_order_of_override(our_yaml, settings, tmp_path, monkeypatch):
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(dict.fromkeys(KEYS[5:], 6)))
    monkeypatch.setattr(sys, "argv", ["run.py", f"--{KEYS[7]}=8"])
    values = {key: settings[key] for key in settings if key not in KEYS}
    values |= dict.fromkeys(KEYS[6:], 7)
    config = Config("VBPR", "tiny", ["own.yaml"], values)
    assert levels_of(config) == [0, 2, 3, 4, 5, 6, 7, 8]


@pytest.mark.parametrize(
    ("preset", "expected"), [("auto", 4), ("tiny", 4), ("other", 9), ("none", 3)]
)
def test_preset_chooses_released_values(our_yaml, settings, preset, expected):
    values = {key: settings[key] for key in settings if key not in KEYS}
    assert Config("VBPR", config_dict={**values, "preset": preset})["train_batch_size"] == expected


def test_preset_auto_leaves_other_data_sets_alone(our_yaml, tmp_path):
    values = tiny_content().write(tmp_path, "another")
    values = {key: values[key] for key in values if key not in KEYS}
    assert Config("VBPR", config_dict={**values, "preset": "auto"})["train_batch_size"] == 3


def test_unknown_preset_is_refused(settings):
    with pytest.raises(ValueError, match="VBPR: preset must be one of auto, none, baby, .*'babby'"):
        Config("VBPR", config_dict={**settings, "preset": "babby"})


# -------------------------------------------------------------------- RecBole's models, baselines


@pytest.mark.parametrize("model", ["BPR", "LightGCN", "NGCF", "SGL"])
def test_recboles_own_models_run_on_the_same_splits(settings, model):
    changes = {"new_items": "stratified", "benchmark_filename": None}
    ours, theirs = (prepare(name, settings, **changes) for name in ("VBPR", model))
    for split in ("train", "valid", "test"):
        one, other = (getattr(prepared, split)._dataset for prepared in (ours, theirs))
        assert pairs_of(one) == pairs_of(other)
    result = recbole_missing.run_recbole_missing(
        model,
        config_dict={
            **settings,
            **changes,
            "missing_protocol": "random_items",
            "missing_ratio": 0.5,
        },
    )
    assert result["test_result"]["recall@10"] > 0 and "warm" in result["test_result_by_group"]


def test_recboles_model_gets_the_same_result_with_and_without_modalities(settings):
    none = {"modalities": None, "image_features": None, "missing_protocol": "none"}
    metrics = {"metrics": ["Recall", "NDCG"], "stopping_step": 10}
    results = [
        recbole.quick_start.run_recbole("BPR", config_dict={**settings, **metrics, **changes})
        for changes in ({}, none)
    ]
    assert results[0]["test_result"] == results[1]["test_result"]


def test_a_model_that_needs_modalities_says_so(settings):
    with pytest.raises(ValueError, match="VBPR: the data set must have modalities, got none; "):
        recbole.quick_start.run_recbole("VBPR", config_dict={**settings, "modalities": None})


# ------------------------------------------------------------------------------ outside models


def test_an_outside_class_runs_by_passing_it(settings):
    result = recbole.quick_start.run_recbole(Toy, config_dict=dict(settings))
    assert result["test_result"]["recall@10"] > 0
    config = Config(Toy, config_dict=settings)
    assert get_model(config["model"]) is Toy and config["model"] == "Toy"
    assert get_trainer(config["MODEL_TYPE"], config["model"]) is MultimodalTrainer
    with pytest.raises(ValueError, match="Unknown model 'Toy'"):
        get_model("Toy")


def test_a_registered_class_runs_by_its_name(settings):
    assert register_model(Toy) is Toy and register_model(Toy) is Toy
    result = recbole.quick_start.run_recbole("Toy", "tiny", config_dict=dict(settings))
    assert result["test_result"]["recall@10"] > 0
    register_model(Named)
    assert recbole.quick_start.run_recbole("Named", "tiny", config_dict=dict(settings))
    assert get_trainer(ModelType.GENERAL, "Named") is PluginTrainer


def test_defaults_of_an_outside_class_from_dict_and_from_file(settings, tmp_path):
    assert Config(Toy, config_dict=settings)["toy_weight"] == 0.25  # preset of the data set
    assert Config(Toy, config_dict={**settings, "preset": "none"})["toy_weight"] == 0.5
    (tmp_path / "toy.yaml").write_text("embedding_size: 3\ntoy_weight: 1e-3\n")
    in_file = type("InFile", (Toy,), {"properties": tmp_path / "toy.yaml"})
    assert Config(in_file, config_dict=settings)["toy_weight"] == 0.001


def test_a_taken_name_is_refused():
    for name, holder in (("VBPR", "recbole_missing.model.vbpr"), ("BPR", "recbole.model")):
        clashing = type(name, (Toy,), {"__module__": "elsewhere"})
        with pytest.raises(ValueError, match=f"register_model: '{name}' must be .*{holder}.*; re"):
            register_model(clashing)
    register_model(Toy)
    with pytest.raises(ValueError, match="'Toy' must be a name that is not taken"):
        register_model(type("Toy", (Toy,), {"__module__": "elsewhere"}))
    assert get_model("VBPR") is VBPR and get_model("Toy") is Toy


# ------------------------------------------------------------------------------ unknown names


@pytest.fixture
def no_training(monkeypatch):
    def fit(*args, **kwargs):
        raise AssertionError("training has begun")

    monkeypatch.setattr(Trainer, "fit", fit)


@pytest.mark.parametrize(
    ("word", "meant"), [("VBRP", "VBPR"), ("dgmrec", "DGMRec"), ("NGC", "NGCF")]
)
def test_unknown_model_is_refused_with_the_nearest_name(no_training, settings, word, meant):
    register_model(Toy)
    with pytest.raises(ValueError, match=f"Unknown model '{word}'. Did you mean '{meant}'"):
        recbole.quick_start.run_recbole(word, "tiny", config_dict=settings)


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("reg_wieght", "reg_weight"),
        ("missing_ratios", "missing_ratio"),
        ("imputaton", "imputation"),
        ("learning_rte", "learning_rate"),
        ("image_feature", "image_features"),
    ],
)
def test_unknown_setting_is_refused_with_the_nearest_name(no_training, settings, word, meant):
    with pytest.raises(ValueError, match=f"Unknown setting '{word}'. Did you mean '{meant}'"):
        recbole.quick_start.run_recbole("VBPR", "tiny", config_dict={**settings, word: 1})


def test_unknown_setting_without_likeness_is_refused_for_our_models(no_training, settings):
    with pytest.raises(ValueError, match="Unknown setting 'zzyzx'. Remove it"):
        recbole.quick_start.run_recbole("VBPR", "tiny", config_dict={**settings, "zzyzx": 1})


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("imputation", "featpop", "Unknown imputation 'featpop'. Did you mean 'featprop'"),
        ("imputation_layers", 0, "imputation_layers must be an int >= 1, or 'converge', got 0"),
        ("missing_ratio", 1.5, "missing_ratio must be a number between 0 and 1, got 1.5"),
        ("missing_protocol", "half", "missing_protocol must be one of none, random_items"),
        ("test_mask", "all", "test_mask must be one of train_valid, train, got 'all'"),
        ("learner", "adm", "learner must be one of adam, .*, got 'adm'"),
        ("learning_rate_scheduler", [0.9], "must be a list of two values"),
        ("eval_users", 0, "eval_users must be an int >= 1, got 0"),
        ("modalities", "image", "modalities must be a list"),
        ("image_encoder", "words", "image_encoder must be one of text, tags, vector"),
        ("embedding_size", 0, "embedding_size must be an int >= 1, got 0"),
    ],
)
def test_values_outside_their_constraint_are_refused(no_training, settings, key, value, message):
    with pytest.raises(ValueError, match=message):
        recbole.quick_start.run_recbole("VBPR", "tiny", config_dict={**settings, key: value})


# ----------------------------------------------------------------------------------- processes


def test_the_worker_of_a_spawned_process_brings_the_plugin(tmp_path):
    data = pickle.dumps(recbole.quick_start.run_recboles)
    assert b"recbole_missing" in data
    code = f"""
import pickle, sys
worker = pickle.loads({data!r})
from recbole.utils import get_model
print("recbole_missing" in sys.modules, get_model("VBPR").__module__, worker.__name__)
"""
    printed = in_new_process(code, tmp_path).split()
    assert printed[-3:] == ["True", "recbole_missing.model.vbpr", "run_recboles"]


def test_run_hands_a_registered_class_to_its_processes(settings, monkeypatch):
    spawned = []
    monkeypatch.setattr(
        torch.multiprocessing,
        "spawn",
        lambda worker, args, **kwargs: spawned.append((worker, args)),
    )
    register_model(Toy)
    for model in ("Toy", Toy, "folders:Toy", "VBPR"):
        recbole.quick_start.run(model, "tiny", config_dict=dict(settings), nproc=2)
    workers, arguments = zip(*spawned)
    assert set(workers) == {plugin.run_recboles}
    assert [args[0] for args in arguments] == [Toy, Toy, Toy, "VBPR"]
    assert pickle.loads(pickle.dumps(arguments[0][0])) is Toy


def test_recboles_sampler_class_is_left_alone(settings):
    assert type(prepare("VBPR", settings).train._sampler) is not Sampler
    assert "sample_by_key_ids" not in vars(Sampler)
    plain = {key: settings[key] for key in ("data_path", "dataset", "checkpoint_dir", "gpu_id")}
    run = prepare("BPR", plain)
    assert not isinstance(run.dataset, MultimodalDataset)
    assert type(run.train._sampler) is Sampler


# -------------------------------------------------------------------------------- command line


def as_arguments(settings, **changes):
    return [f"--{key}={value}" for key, value in {**settings, **changes}.items()]


def test_the_command_line_runs_a_model(settings, monkeypatch):
    for name in ("a.yaml", "b.yaml"):
        Path(name).write_text("epochs: 1\n")
    seen = []
    monkeypatch.setattr(
        "recbole_missing.quick_start.run_recbole_missing", lambda *args, resume: seen.append(args)
    )
    cli.main(["run", "--model=BM3", "--dataset=tiny", "--config_files=a.yaml b.yaml", "--epochs=2"])
    cli.main(["run", "-m", "BPR", "-d", "tiny", "--topk=[5]"])
    assert seen == [
        ("BM3", "tiny", ["a.yaml", "b.yaml"], {"epochs": "2"}),
        ("BPR", "tiny", None, {"topk": "[5]"}),
    ]


def test_settings_of_the_command_line_have_their_types(settings, monkeypatch):
    results = []
    run = recbole_missing.run_recbole_missing
    monkeypatch.setattr(
        "recbole_missing.quick_start.run_recbole_missing",
        lambda *args, **more: results.append(run(*args, **more)),
    )
    cli.main(["run", "--model=VBPR", *as_arguments(settings, topk=[5], valid_metric="NDCG@5")])
    assert set(results[0]["test_result"]) == {"recall@5", "ndcg@5"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--image_features=none.npy"], "error: image: image_features must name a file"),
        (["--reg_wieght=1"], "error: Unknown setting 'reg_wieght'. Did you mean 'reg_weight'"),
        (
            ["--topk=[5,", "10]"],
            "error: command line: a setting must read --key=value, got '10]'; quote values with "
            "spaces: --topk='[10, 20]'.",
        ),
        (["--foo=1"], "error: Unknown setting 'foo'. Remove it"),
        (["--embedding_dim=7"], "error: Unknown setting 'embedding_dim'. Did you mean 'embedding_"),
        (["--valid_metric=Recall"], "error: valid_metric: must be one of metrics ['Recall', 'NDCG"),
        (["--missing_protocol=random_items"], "error: missing_ratio: must be set with missing_pro"),
        (["--epochs"], "error: command line: a setting must read --key=value, got '--epochs'."),
        (["--seed=1", "--seed=2"], "error: command line: --seed must be given once"),
    ],
)
def test_a_mistake_ends_in_one_line_and_exit_code_two(settings, capsys, arguments, message):
    given = {word.partition("=")[0][2:] for word in arguments} - {"seed"}
    settings = {key: value for key, value in settings.items() if key not in given}
    with pytest.raises(SystemExit) as ended:
        cli.main(["run", "--model=VBPR", *as_arguments(settings), *arguments])
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert ended.value.code == 2 and len(lines) == 1 and lines[0].startswith(message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "bad.yaml: must be a YAML file, got no such file"),
        ("", "bad.yaml: must hold keys and values as `key: value`, got nothing"),
        ("- epochs", "bad.yaml: must hold keys and values as `key: value`, got a list"),
        ("epochs: [1", "bad.yaml: must be YAML, got"),
    ],
)
def test_bad_config_files_are_refused(no_training, settings, tmp_path, text, message):
    if text is not None:
        (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(ValueError, match=message):
        recbole.quick_start.run_recbole("VBPR", "tiny", [str(tmp_path / "bad.yaml")], settings)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"topk": [7], "valid_metric": "Recall@20"}, "valid_metric: must be one of metrics"),
        ({"metrics": ["Recal"]}, "metrics: Unknown metric 'Recal'. Did you mean 'Recall'"),
        ({"epochs": "x"}, "VBPR: epochs must be an int >= 0, got 'x'"),
        ({"learning_rate": "abc"}, "VBPR: learning_rate must be a number >= 0, got 'abc'"),
        ({"train_batch_size": 0}, "VBPR: train_batch_size must be an int >= 1, got 0"),
        (
            {"eval_args": {"split": {"RS": [0.8, 0.2]}}, "benchmark_filename": None},
            "VBPR: eval_args: split: RS must be a list of three numbers > 0",
        ),
        ({"n_layers": 5}, "Unknown setting 'n_layers'"),
        ({"tau": 0.5}, "Unknown setting 'tau'"),
        ({"imgae_ids": "x.ids"}, "Unknown setting 'imgae_ids'. Did you mean 'image'"),
        ({"missing_protocol": "file", "missing_ratio": 0.75}, "missing_ratio: must be 0 or unset"),
        ({"repeatable": True, "test_mask": "train"}, "repeatable: must be False"),
        ({"enable_amp": True}, "VBPR: enable_amp must be False"),
        ({"train_neg_sample_args": None}, "VBPR: a batch must hold negatives, got none"),
        ({"modalities": "image"}, "VBPR: modalities must be a list"),
        ({"modalities": ["items"]}, "items"),
        ({"reg_weight": -1}, "VBPR: reg_weight must be a number >= 0, got -1"),
    ],
)
def test_what_cannot_run_is_refused_in_one_line(settings, changes, message):
    with pytest.raises(ValueError, match=message) as refused:
        recbole.quick_start.run_recbole("VBPR", config_dict={**settings, **changes})
    assert "\n" not in str(refused.value)


def test_sampled_evaluation_keeps_recboles_number_of_pairs(settings):
    sampled = {"eval_args": {"split": {"RS": [0.8, 0.1, 0.1]}, "mode": "uni5"}}
    assert prepare("VBPR", settings, **sampled).config["eval_batch_size"] == 4096


def test_a_preset_asked_for_by_name_goes_over_the_data_set_yaml():
    config = Config("VBPR", "ml-100k", config_dict={"preset": "baby"})
    assert (config["learning_rate"], config["stopping_step"]) == (0.005, 25)


@pytest.mark.parametrize(
    ("modalities", "place", "normalised"),
    [
        (["title"], "call", True),
        (["image", "title"], "file", True),
        (["image", "title", "tags"], "call", False),
    ],
)
def test_a_released_preset_takes_the_path_of_its_number_of_modalities(
    tmp_path, modalities, place, normalised
):
    """Up to the model; a value of the user wins."""
    layer = {"modalities": modalities}
    settings = {**tiny_content().write(tmp_path, "tiktok"), **layer}
    files = ["own.yaml"] if place == "file" else None
    if files:
        Path("own.yaml").write_text(yaml.safe_dump(layer))
        del settings["modalities"]
    result = recbole_missing.run_recbole_missing("MILK", "tiktok", files, settings)
    config, model, *_ = load_data_and_model(result["checkpoint"], settings["data_path"])
    assert config["preset"] == "tiktok" and model.invariance_weight == 50
    assert config["normalise_features"] is model.normalise_features is normalised
    assert "by_modalities" not in config
    asked = {**settings, "normalise_features": not normalised}
    assert Config("MILK", "tiktok", files, asked)["normalise_features"] is not normalised


def test_a_class_passed_may_bear_a_name_that_is_taken(settings):
    mine = type("VBPR", (Toy,), {"__module__": "mine"})
    other = type("VBPR", (Named,), {"__module__": "other"})
    configs = [Config(model, config_dict=settings) for model in (mine, other, "VBPR")]
    assert [config["model"] for config in configs] == ["VBPR"] * 3
    assert [get_model(config["model"]) for config in configs] == [mine, other, VBPR]
    trainers = [get_trainer(config["MODEL_TYPE"], config["model"]) for config in configs]
    assert trainers == [MultimodalTrainer, PluginTrainer, MultimodalTrainer]
    for model in (mine, "VBPR"):
        assert recbole.quick_start.run_recbole(model, config_dict=dict(settings))
    copied = pickle.loads(pickle.dumps(Config(Toy, config_dict=settings)["model"]))
    assert get_model(copied) is Toy


@pytest.mark.parametrize("text", ["", "1\t2\n", "user_id:token\tmovie:token\n1\t2\n"])
def test_bad_headers_of_interactions_are_refused(settings, text):
    for path in (Path(settings["data_path"]) / "tiny").glob("*.inter"):
        path.write_text(text)
    with pytest.raises(ValueError, match="inter: the first line must be a header"):
        recbole.quick_start.run_recbole("VBPR", config_dict=settings)
