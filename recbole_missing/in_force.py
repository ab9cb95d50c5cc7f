"""Which settings and which code decide the result of a run."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import recbole

from recbole_missing import identity, registry
from recbole_missing.config import defaults
from recbole_missing.data.dataset import MultimodalDataset, data_settings, imputation_in_force
from recbole_missing.data.names import recbole_settings
from recbole_missing.imputation import IMPUTERS
from recbole_missing.model.base import MultimodalRecommender

_RECBOLE = Path(recbole.__file__).parent / "properties"
OF_A_CONFIG = (
    "MODEL_INPUT_TYPE", "MODEL_TYPE", "data_fingerprint", "data_identity", "data_scales", "device",
    "eval_type", "plugin_defaults", "preset", "single_spec", "test_neg_sample_args",
    "train_neg_sample_args", "valid_neg_sample_args",
)  # fmt: skip
"""Entries of a config that are no settings: RecBole and this package add them."""


def settings_in_force(values: Mapping[str, Any], model: type) -> dict[str, Any]:
    """Settings that the model, its imputer and the protocol read. They decide the result.

    What RecBole takes for one value is one value here: it ignores the case of names of metrics and
    of the learner, and the order of ``metrics`` and ``topk`` only orders what is printed.

    A model of this package, or a subclass of its base class, reads its ``hyperparameters``.
    RecBole's own models and models from outside also read the keys of their YAML file or
    ``properties``, and every setting that neither RecBole nor this package knows.

    Args:
        values: every setting of the run, as plain values.
        model: class of the model.

    Raises:
        ValueError: for an unknown imputer.
    """
    found = _read_by(values, model)
    for key in ("learner", "valid_metric"):
        if isinstance(found.get(key), str):
            found[key] = found[key].lower()
    for key in ("metrics", "topk"):
        if isinstance(found.get(key), (list, tuple)):
            words = {v.lower() if isinstance(v, str) else v for v in found[key]}
            found[key] = sorted(words)
    return found


def _read_by(values: Mapping[str, Any], model: type) -> dict[str, Any]:
    """The settings in force, in the user's words."""
    keys = {*identity.TRAINING, *identity.EVALUATION, *getattr(model, "hyperparameters", {})}
    if issubclass(model, MultimodalRecommender):
        keys.add("learning_rate_scheduler")  # of our trainer
    if values.get("ties_improve") is False:  # not the rule of RecBole, which older stores have
        keys.add("ties_improve")
    if identity.is_recboles(model) or registry.is_outside(model):
        keys |= _own_settings(model) | (values.keys() - _known_settings(values, model))
    found = {key: values[key] for key in sorted(keys) if key in values}
    return {**found, **imputation_in_force(values, model)}


def described_settings(values: Mapping[str, Any], model: type) -> dict[str, Any]:
    """The ``config`` of a line: settings in force, and settings that the data are made with.

    They are in the user's words. A model that reads no modalities has no imputation.
    """
    names = {key: values[key] for key in ("dataset", "model") if key in values}
    settings = {**data_settings(values), **_read_by(values, model)}
    if not identity.reads_modalities(model):
        for key in ("imputation", "imputation_edges_file"):
            del settings[key]
    return {**names, **dict(sorted(settings.items()))}


def source_of(values: Mapping[str, Any], model: type) -> str | None:
    """Hash of the code that makes the result of a run: model, imputer, data, trainer.

    Returns:
        The hash. None if the code of the model or the imputer is not in a file.
    """
    imputer = imputation_in_force(values, model).get("imputation")
    imputers = [IMPUTERS.resolve(imputer)] if imputer else []
    rooms = ("recbole_missing.data.sampling", "recbole_missing.trainer")
    return identity.of_source(model, *imputers, MultimodalDataset, *rooms)


def _own_settings(model: type) -> set[str]:
    """Keys of the YAML file, or of the ``properties``, of a model from outside or of RecBole."""
    own = getattr(model, "properties", None)
    if own is not None:
        return {*defaults.of_properties(model, own)} - {"presets"}
    path = _RECBOLE / "model" / f"{model.__name__}.yaml"
    return {*defaults.load(path)} if path.is_file() else set()


def _known_settings(values: Mapping[str, Any], model: type) -> set[str]:
    """Keys that belong to RecBole, to this package, to the data or to other models."""
    known = {*_package_settings(), *data_settings(values)}
    known |= {key for key in values if key.startswith("imputation_")}
    if not identity.reads_modalities(model):  # such a model does not read settings of ours
        known |= {key for name in defaults.names("model") for key in defaults.read("model", name)}
    return known


@cache
def _package_settings() -> frozenset[str]:
    ours = defaults.load(defaults.root() / "overall.yaml")
    return recbole_settings().union(OF_A_CONFIG, ours)
