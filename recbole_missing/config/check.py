"""Defaults from our YAML into RecBole's config, and the check of what the user set.

Order of override, as RecBole users know it: command line > dict > config files > our data set
YAML > our model YAML (with the released values of a data set) > our overall > RecBole's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from logging import getLogger
from pathlib import Path
from typing import Any

import recbole
import yaml
from recbole.utils import ModelType
from recbole.utils.argument_list import (
    dataset_arguments,
    evaluation_arguments,
    general_arguments,
    training_arguments,
)

from recbole_missing.config import constraints as settings
from recbole_missing.config import defaults
from recbole_missing.config.constraints import (
    Choice,
    Float,
    Int,
    ListOf,
    Optional,
    Pair,
    Text,
    did_you_mean,
)
from recbole_missing.data.dataset import DATA_SETTINGS
from recbole_missing.data.sources import modality_settings
from recbole_missing.imputation import IMPUTERS, imputer_settings

SETTINGS = {
    **DATA_SETTINGS,
    "eval_users": Int(min=1),
    "learning_rate_scheduler": Pair(Float(min=0), Float(min=1e-9)),
    "preset": Text(),
}
"""Package-wide settings that our YAML states, and their constraints."""

_OF_RECBOLE = {
    "learner": Choice("adam", "adamw", "sgd", "adagrad", "rmsprop"),
    "learning_rate": Float(min=0),
    "weight_decay": Float(min=0),
    "epochs": Int(min=0),
    "train_batch_size": Int(min=1),
    "eval_step": Int(min=0),
    "stopping_step": Int(min=0),
    "seed": Int(min=0),
    "topk": Optional(ListOf(Int(min=1))),
    "benchmark_filename": Optional(ListOf(Text(), length=3)),
}
WITH_OUR_DATA = (ModelType.GENERAL, ModelType.TRADITIONAL)
"""Kinds of RecBole models that get our settings and data set: those that rank items for users."""

_OF_A_RUN = ["model", "dataset", "config_files", "nproc", "world_size", "ip", "port", "offset"]


def add_defaults(config: Any, model: str, model_class: Any, dataset: str) -> None:
    """Put our defaults over RecBole's, for general recommenders (ours and RecBole's own).

    ``preset`` becomes the name of the data set whose released values are in force, or ``none``.

    Args:
        config: a RecBole config whose internal defaults have just been read.
        model, model_class, dataset: as RecBole resolved them.

    Raises:
        ValueError: if ``preset`` names a data set that the model has no released values for.
    """
    if model_class.type not in WITH_OUR_DATA:
        return
    overall = defaults.load(defaults.root() / "overall.yaml")
    of_model = _model_properties(model, model_class)
    presets = of_model.pop("presets", {})
    chosen = preset = config.external_config_dict.pop("preset", overall["preset"])
    if preset == "auto":
        preset = dataset if dataset in presets else "none"
    if preset not in ("none", *presets):
        choices = ", ".join(["auto", "none", *presets])
        raise ValueError(f"{model}: preset must be one of {choices}, got {preset!r}.")
    released = {**presets.get(preset, {}), "preset": preset}
    of_dataset = defaults.read("dataset", dataset)
    layers = [overall, of_model, released, of_dataset]
    if chosen != "auto":  # a preset that was asked for by name goes over the data set's YAML
        layers.append(released)
    for layer in layers:
        config.internal_config_dict.update(layer)


def _model_properties(model: str, model_class: Any) -> dict[str, Any]:
    own = getattr(model_class, "properties", None)
    if own is None:
        return defaults.read("model", model)
    return dict(own) if isinstance(own, Mapping) else defaults.load(Path(own))


def check_files(files: Iterable[str]) -> None:
    """Refuse config files that are not YAML mappings.

    Raises:
        ValueError: naming the file.
    """
    for file in files:
        path = Path(file)
        if not path.is_file():
            raise ValueError(f"{path}: must be a YAML file, got no such file; correct the path.")
        try:
            content = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.FullLoader)
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ValueError(f"{path}: must be YAML, got: {error}") from error
        if not isinstance(content, dict):
            raise ValueError(
                f"{path}: must hold settings as `key: value`, got {type(content).__name__}."
            )


def check(config: Any) -> None:
    """Refuse settings that no one knows, that have no effect, or that break their constraint.

    Raises:
        ValueError: in the grammar of the house, with the nearest known name.
    """
    if config["MODEL_TYPE"] not in WITH_OUR_DATA:
        return
    config["learner"] = str(config["learner"]).lower()  # RecBole ignores its case
    ours = getattr(config.model_class, "hyperparameters", {})
    declared = {**SETTINGS, **_OF_RECBOLE, **ours}
    if isinstance(config["modalities"], (list, tuple)):
        declared.update(imputer_settings(config["imputation"]))
    for name in _modality_names(config):
        declared.update(modality_settings(name))
    _check_names(config, set(declared))
    settings.check(config.model, config, declared)
    _check_together(config)


def _modality_names(config: Any) -> list[str]:
    """Modalities of every layer: a narrower list on the command line leaves keys without use."""
    layers = (config.internal_config_dict, config.file_config_dict, config.final_config_dict)
    lists = [layer.get("modalities") for layer in layers]
    return [str(name) for names in lists if isinstance(names, (list, tuple)) for name in names]


def _check_names(config: Any, declared: set[str]) -> None:
    """Unknown settings: ours are refused; RecBole's own models may read what they like."""
    ours = hasattr(config.model_class, "hyperparameters")
    own = set(_model_properties(config.model, config.model_class)) | _overall_keys()
    known = declared | own | _recbole_keys()
    models = defaults.names("model")
    of_others = {key for name in models for key in defaults.read("model", name)}
    of_others |= {f"imputation_{key}" for one in IMPUTERS.values() for key in one.hyperparameters}
    for key in config.external_config_dict:
        if key in known or (not ours and key in config.internal_config_dict):
            continue
        modality = _modality_of(key)
        if modality:  # perhaps the source of a modality that this run leaves out
            near = did_you_mean(modality, _modality_names(config))
        else:
            near = did_you_mean(key, known if ours else declared | own)
        harmless = modality or key in config.cmd_config_dict or not ours
        if key not in of_others and (near or not harmless):
            raise ValueError(
                f"Unknown setting {key!r}.{near} Remove it, correct its name, or declare it in the "
                "hyperparameters of your model."
            )
        getLogger().warning(f"{config.model}: setting {key!r} is not known here and has no effect.")


def _modality_of(key: str) -> str | None:
    """Return ``image`` for a key like ``image_features``."""
    endings = [ending[1:] for ending in modality_settings("x")]
    return next((key[: -len(end)] for end in endings if key.endswith(end) and key != end), None)


def _check_together(config: Any) -> None:
    """Settings that are right alone and wrong together."""
    set_by_user = config.external_config_dict
    protocol = config["missing_protocol"]
    unused = protocol == "file" or (protocol == "none" and "missing_protocol" not in set_by_user)
    if set_by_user.get("missing_ratio") and unused:
        raise ValueError(
            f"missing_ratio: must be 0 or unset with missing_protocol {protocol}, got "
            f"{config['missing_ratio']}; set missing_protocol to random_items or stratified."
        )
    ours = hasattr(config.model_class, "hyperparameters")
    if "learning_rate_scheduler" in set_by_user and not ours:
        raise ValueError(
            f"{config.model}: learning_rate_scheduler must be unset for RecBole's own models, got "
            f"{config['learning_rate_scheduler']}; their trainer has no schedule."
        )
    metric, _, k = config["valid_metric"].partition("@")
    metrics = [name.lower() for name in config["metrics"]]
    if metric.lower() not in metrics or (k and int(k) not in (config["topk"] or ())):
        raise ValueError(
            f"valid_metric: must be one of metrics {config['metrics']} at one of topk "
            f"{config['topk']}, got {config['valid_metric']!r}; set valid_metric too."
        )
    if config["repeatable"] and (config["new_items"] != "none" or config["test_mask"] == "train"):
        raise ValueError("repeatable: must be False with new_items or test_mask: train, got True.")
    if config["enable_amp"] and ours:
        raise ValueError(
            f"{config.model}: enable_amp must be False, got True; sparse products are float32."
        )
    split = config["eval_args"]["split"]
    if isinstance(split, Mapping) and len(split.get("RS", "123")) != 3:
        raise ValueError(f"eval_args: split RS must have three ratios, got {split['RS']}.")


@cache
def _overall_keys() -> frozenset[str]:
    return frozenset(defaults.load(defaults.root() / "overall.yaml"))


@cache
def _recbole_keys() -> frozenset[str]:
    """Settings that RecBole names for every model."""
    folder = Path(recbole.__file__).parent / "properties"
    files = (folder / "overall.yaml", folder / "dataset" / "sample.yaml")
    in_yaml = {key for path in files for key in defaults.load(path)}
    lists = (general_arguments, training_arguments, evaluation_arguments, dataset_arguments)
    return frozenset(in_yaml.union(_OF_A_RUN, ["local_rank"], *lists))
