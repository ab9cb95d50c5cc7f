"""What identifies a run: the data, the settings in force, the source code.

A run is identified before it starts, so that what a store already holds is not run again.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import recbole
from recbole.data import create_dataset
from recbole.utils import argument_list, init_seed

from recbole_missing import identity, plugin, registry
from recbole_missing.config import defaults
from recbole_missing.data.dataset import (
    MultimodalDataset,
    data_settings,
    imputation_in_force,
    reads_edges,
    table_identity,
)
from recbole_missing.identity import Parts
from recbole_missing.imputation import IMPUTERS
from recbole_missing.memory import fits
from recbole_missing.model import MODELS
from recbole_missing.model.base import MultimodalRecommender
from recbole_missing.quiet import quiet

_RECBOLE = Path(recbole.__file__).parent / "properties"
# Entries of a config that are no settings: RecBole and this package add them.
_OF_A_CONFIG = (
    "MODEL_INPUT_TYPE", "MODEL_TYPE", "data_fingerprint", "data_identity", "device", "eval_type",
    "plugin_defaults", "preset", "single_spec", "test_neg_sample_args", "train_neg_sample_args",
    "valid_neg_sample_args",
)  # fmt: skip


class DataSets:
    """Computes identities of data sets. It reads every split and every feature file once.

    Most points of a grid differ only in the model, the imputer or the mask. They can share the
    files that were read. Only the latest split is kept in memory, so ask for all points of one
    split one after the other.
    """

    def __init__(self) -> None:
        """Start empty; nothing is read yet."""
        self._split: str | None = None
        self._data: tuple[Any, list[Any]] = (None, [])
        self._read: dict[str, Any] = {}
        self._known: dict[str, Parts] = {}

    @staticmethod
    def split_of(config: Any) -> str:
        """Text of everything that decides the split of a config: files, filters, split, seed."""
        keys = [*argument_list.dataset_arguments, "dataset", "data_path", "repeatable"]
        values = {key: config[key] for key in keys if key != "data_fingerprint"}
        arguments = {key: value for key, value in config["eval_args"].items() if key != "mode"}
        seed = None if config["benchmark_filename"] else [config["seed"], config["reproducibility"]]
        return repr([sorted(values.items()), sorted(arguments.items()), seed, _kind(config)])

    def identity(self, config: Any) -> Parts:
        """Identity of the data that a run with this config builds.

        Raises:
            ValueError: if the data or their settings are wrong.
        """
        with quiet(), fits(f"data set {config['dataset']!r}: its tables and features", {}):
            split = self.split_of(config)
            if split != self._split:
                self._split, self._read, self._known = split, {}, {}
                init_seed(config["seed"], config["reproducibility"])
                dataset = create_dataset(config)
                ours = isinstance(dataset, MultimodalDataset)
                self._data = dataset, dataset.split() if ours else dataset.build()
            settings = _described_data(config)
            if settings not in self._known:
                self._known[settings] = self._described(config)
            return self._known[settings]

    def _described(self, config: Any) -> Parts:
        dataset, splits = self._data
        if isinstance(dataset, MultimodalDataset):
            return dataset.identity_under(config, splits, self._read)
        return table_identity(dataset, splits)


def _described_data(config: Any) -> str:
    """Text of the settings that decide the data; equal texts stand for equal data."""
    edges = config["modalities"] and config["imputation_edges_file"] and reads_edges(config)
    return repr([sorted(data_settings(config.final_config_dict).items()), edges])


def _kind(config: Any) -> str:
    """Text that differs if models use different classes of data sets.

    All runs with settings of this package use one class. Other models may have their own.
    """
    return "" if plugin.has_our_settings(config) else str(config["model"])


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


def current_source(line: Mapping[str, Any]) -> str | None:
    """The ``source`` that a run would have if it was made now.

    This function never imports a model or an imputer from outside.

    Returns:
        The hash. None if the model or the imputer is not known in this process.
    """
    kinds: tuple[Any, ...] = (MODELS, IMPUTERS)
    words = line["point"]["model"], str(line["config"].get("imputation", ""))
    strangers = [
        registry.is_address(word) and kind.find(word) is None for word, kind in zip(words, kinds)
    ]
    if any(strangers):
        return None
    try:
        return source_of(line["config"], plugin.get_model(words[0]))
    except ValueError:
        return None


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
    return plugin.recbole_settings().union(_OF_A_CONFIG, ours)


def mask_of(dataset: Any) -> dict[str, Any] | None:
    """Hash and counts of the mask; None for a data set without modalities.

    Args:
        dataset: training split of a :class:`~recbole_missing.data.dataset.MultimodalDataset`.

    Returns:
        ``id`` (:func:`mask_id`), ``missing`` (modality -> number of items that lack it),
        ``new_items`` (their number).
    """
    modalities = getattr(dataset, "known", None)
    if modalities is None:
        return None
    lacks = (~modalities.observed).long()
    return {
        "id": mask_id(dataset.identity),
        "missing": dict(zip(modalities, lacks[1:].sum(dim=0).tolist())),
        "new_items": int(dataset.new_items.sum()),
    }


def mask_id(parts: Mapping[str, str]) -> str:
    """Hash of the mask and the new items of data with this identity; it is one of item tokens."""
    return identity.digest([parts["masks"], parts.get("new_items")], size=8)
