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
from recbole.utils import ModelType
from recbole.utils.argument_list import (
    dataset_arguments,
    evaluation_arguments,
    general_arguments,
    training_arguments,
)

from recbole_missing import defaults, settings
from recbole_missing.data.dataset import DATA_SETTINGS
from recbole_missing.data.sources import modality_settings
from recbole_missing.imputation import imputer_settings
from recbole_missing.settings import Choice, Float, Int, ListOf, Text, did_you_mean

SETTINGS = {
    **DATA_SETTINGS,
    "eval_users": Int(min=1),
    "learning_rate_scheduler": ListOf(Float(min=0), length=2),
    "preset": Text(),
    "learner": Choice("adam", "adamw", "sgd", "adagrad", "rmsprop", "sparse_adam"),
}
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
    if model_class.type != ModelType.GENERAL:
        return
    overall = defaults.load(defaults.root() / "overall.yaml")
    of_model = _model_properties(model, model_class)
    presets = of_model.pop("presets", {})
    preset = config.external_config_dict.pop("preset", overall["preset"])
    if preset == "auto":
        preset = dataset if dataset in presets else "none"
    if preset not in ("none", *presets):
        choices = ", ".join(["auto", "none", *presets])
        raise ValueError(f"{model}: preset must be one of {choices}, got {preset!r}.")
    released = {**presets.get(preset, {}), "preset": preset}
    of_dataset = defaults.read("dataset", dataset)
    config.internal_config_dict.update({**overall, **of_model, **released, **of_dataset})


def _model_properties(model: str, model_class: Any) -> dict[str, Any]:
    own = getattr(model_class, "properties", None)
    if own is None:
        return defaults.read("model", model)
    return dict(own) if isinstance(own, Mapping) else defaults.load(Path(own))


def check(config: Any) -> None:
    """Refuse settings that no one knows, and values outside their constraints.

    Raises:
        ValueError: in the grammar of the house, with the nearest known name.
    """
    if config["MODEL_TYPE"] != ModelType.GENERAL:
        return
    config["learner"] = str(config["learner"]).lower()  # RecBole ignores its case
    declared = dict(SETTINGS)
    if isinstance(config["modalities"], (list, tuple)):
        declared.update(imputer_settings(config["imputation"]))
        for name in config["modalities"]:
            declared.update(modality_settings(str(name)))
    settings.check(config.model, config, declared)
    _check_names(config, set(declared))


def _check_names(config: Any, declared: set[str]) -> None:
    ours = getattr(config.model_class, "hyperparameters", None) is not None
    own = set(_model_properties(config.model, config.model_class))
    plugin = declared | set(defaults.load(defaults.root() / "overall.yaml")) | own
    models = defaults.names("model")
    of_others = {key for name in models for key in defaults.read("model", name)}
    recbole_keys = _recbole_keys()
    for key in config.external_config_dict:
        if key in plugin or key in recbole_keys or _belongs_to_a_modality(key):
            continue
        near = did_you_mean(key, plugin | recbole_keys if ours else plugin)
        if near or (ours and key not in of_others and key not in config.cmd_config_dict):
            raise ValueError(f"Unknown setting {key!r}.{near} Remove it or correct its name.")
        getLogger().warning(f"{config.model}: setting {key!r} is not known here and has no effect.")


def _belongs_to_a_modality(key: str) -> bool:
    endings = (setting[1:] for setting in modality_settings("x"))
    return key.endswith(tuple(endings))


@cache
def _recbole_keys() -> frozenset[str]:
    """Every setting that RecBole itself names: argument lists and all of its YAML files."""
    folder = Path(recbole.__file__).parent / "properties"
    files: Iterable[Path] = (path for path in folder.rglob("*.yaml") if "url" not in path.name)
    in_yaml = {key for path in files for key in defaults.load(path)}
    lists = (general_arguments, training_arguments, evaluation_arguments, dataset_arguments)
    return frozenset(in_yaml.union(_OF_A_RUN, ["local_rank"], *lists))
