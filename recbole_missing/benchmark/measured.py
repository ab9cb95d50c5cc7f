"""What identifies a run (data, settings in force, source code, mask), and peak memory."""

from __future__ import annotations

import hashlib
import logging
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import recbole
import torch
from recbole.data import create_dataset
from recbole.utils import argument_list, init_seed

from recbole_missing import identity, plugin, registry
from recbole_missing.config import defaults
from recbole_missing.data.dataset import (
    MultimodalDataset,
    data_settings,
    imputation_in_force,
    table_identity,
)
from recbole_missing.imputation import IMPUTERS
from recbole_missing.model import MODELS
from recbole_missing.model.base import MultimodalRecommender

_RECBOLE = Path(recbole.__file__).parent / "properties"
# Entries of a config that are no settings: RecBole and this package add them.
_OF_A_RUN = (
    "MODEL_INPUT_TYPE", "MODEL_TYPE", "config_files", "data_fingerprint", "data_identity",
    "dataset", "device", "eval_type", "ip", "local_rank", "model", "nproc", "offset", "port",
    "plugin_defaults", "preset", "single_spec", "test_neg_sample_args", "train_neg_sample_args",
    "valid_neg_sample_args", "world_size",
)  # fmt: skip
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


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
        self._known: dict[str, identity.Parts] = {}

    @staticmethod
    def split_of(config: Any) -> str:
        """Text of everything that decides the split of a config: files, filters, split, seed."""
        keys = [*argument_list.dataset_arguments, "dataset", "data_path", "repeatable"]
        values = {key: config[key] for key in keys if key != "data_fingerprint"}
        arguments = {key: value for key, value in config["eval_args"].items() if key != "mode"}
        seed = None if config["benchmark_filename"] else [config["seed"], config["reproducibility"]]
        return repr([sorted(values.items()), sorted(arguments.items()), seed, _kind(config)])

    def identity(self, config: Any) -> identity.Parts:
        """Identity of the data that a run with this config builds.

        Raises:
            ValueError: if the data or their settings are wrong.
        """
        with _quiet():
            split = self.split_of(config)
            if split != self._split:
                self._split, self._read, self._known = split, {}, {}
                init_seed(config["seed"], config["reproducibility"])
                dataset = create_dataset(config)
                ours = isinstance(dataset, MultimodalDataset)
                self._data = dataset, dataset.split() if ours else dataset.build()
            settings = repr(sorted(data_settings(config.final_config_dict).items()))
            if settings not in self._known:
                self._known[settings] = self._described(config)
            return self._known[settings]

    def _described(self, config: Any) -> identity.Parts:
        dataset, splits = self._data
        if isinstance(dataset, MultimodalDataset):
            return dataset.identity_under(config, splits, self._read)
        return table_identity(dataset, splits)


def _kind(config: Any) -> str:
    """Text that differs if models use different classes of data sets.

    All runs with settings of this package use one class. Other models may have their own.
    """
    return "" if plugin.has_our_settings(config) else str(config["model"])


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress log lines and warnings while data are read. The runs will print them."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(disabled)


def settings_in_force(values: Mapping[str, Any], model: type) -> dict[str, Any]:
    """Settings that the model, its imputer and the protocol read. They decide the result.

    A model of this package, or a subclass of its base class, reads its ``hyperparameters``.
    RecBole's own models and models from outside also read the keys of their YAML file or
    ``properties``, and every setting that neither RecBole nor this package knows.

    Args:
        values: every setting of the run, as plain values.
        model: class of the model.

    Raises:
        ValueError: for an unknown imputer.
    """
    keys = {*identity.TRAINING, *identity.EVALUATION, *getattr(model, "hyperparameters", {})}
    if issubclass(model, MultimodalRecommender):
        keys.add("learning_rate_scheduler")  # of our trainer
    if not model.__module__.startswith("recbole_missing."):
        keys |= _own_settings(model) | (values.keys() - _known_settings(values, model))
    found = {key: values[key] for key in sorted(keys) if key in values}
    return {**found, **imputation_in_force(defaultdict(lambda: None, values), model)}


def described_settings(values: Mapping[str, Any], model: type) -> dict[str, Any]:
    """The ``config`` of a line: settings in force, and settings that the data are made with."""
    names = {key: values[key] for key in ("dataset", "model") if key in values}
    settings = {**data_settings(values), **settings_in_force(values, model)}
    return {**names, **dict(sorted(settings.items()))}


def source_of(values: Mapping[str, Any], model: type) -> str | None:
    """Hash of the code that makes the result of a run: model, imputer, data, trainer.

    Returns:
        The hash. None if the code of the model or the imputer is not in a file.
    """
    imputer = imputation_in_force(defaultdict(lambda: None, values), model).get("imputation")
    imputers = [IMPUTERS.resolve(imputer)] if imputer else []
    rooms = ("recbole_missing.data.sampling", "recbole_missing.trainer")
    return identity.of_source(model, *imputers, MultimodalDataset, *rooms)


def current_source(line: Mapping[str, Any]) -> str | None:
    """The ``source`` that a run would have if it was made now.

    This function never imports a model or an imputer from outside.

    Returns:
        The hash. None if the model or the imputer is not known in this process.
    """
    words = line["point"]["model"], str(line["config"].get("imputation", ""))
    strangers = [
        registry.is_address(word) and kind.find(word) is None
        for word, kind in zip(words, (MODELS, IMPUTERS))
    ]
    if any(strangers):
        return None
    try:
        return source_of(line["config"], plugin.get_model(words[0]))
    except ValueError:
        return None


def _own_settings(model: type) -> set[str]:
    """Keys of the YAML file, or of the ``properties``, of a model from outside or of RecBole."""
    own = getattr(model, "properties", _RECBOLE / "model" / f"{model.__name__}.yaml")
    if not isinstance(own, Mapping):
        own = defaults.load(Path(own)) if Path(own).is_file() else {}
    return {*own} - {"presets"}


def _known_settings(values: Mapping[str, Any], model: type) -> set[str]:
    """Keys that belong to RecBole, to this package, to the data or to other models."""
    known = {*_package_settings(), *data_settings(values)}
    known |= {key for key in values if key.startswith("imputation_")}
    if not identity.reads_modalities(model):  # such a model does not read settings of ours
        known |= {key for name in defaults.names("model") for key in defaults.read("model", name)}
    return known


@cache
def _package_settings() -> frozenset[str]:
    files = (_RECBOLE / "overall.yaml", _RECBOLE / "dataset" / "sample.yaml")
    paths = [*files, defaults.root() / "overall.yaml"]
    lists = (
        getattr(argument_list, name) for name in dir(argument_list) if name.endswith("_arguments")
    )
    return frozenset(_OF_A_RUN).union(*map(defaults.load, paths), *lists)


def mask_of(dataset: Any) -> dict[str, Any] | None:
    """Hash and counts of the mask; None for a data set without modalities.

    Args:
        dataset: training split of a :class:`~recbole_missing.data.dataset.MultimodalDataset`.

    Returns:
        ``id`` (hash over item tokens, so that it does not depend on internal ids), ``missing``
        (modality -> number of items that lack it), ``new_items`` (their number).
    """
    modalities = getattr(dataset, "known", None)
    if modalities is None:
        return None
    tokens = dataset.field2id_token[dataset.iid_field]
    lacks = (~modalities.observed).long()
    rows = zip(tokens[1:], lacks[1:].tolist(), dataset.new_items[1:].tolist())
    digest = hashlib.blake2b(repr(list(modalities)).encode(), digest_size=8)
    for row in sorted((str(token), *rest) for token, *rest in rows):
        digest.update(repr(row).encode())
    missing = dict(zip(modalities, lacks[1:].sum(dim=0).tolist()))
    return {
        "id": digest.hexdigest(),
        "missing": missing,
        "new_items": int(dataset.new_items.sum()),
    }


def restart_peak_memory() -> None:
    """Reset the peak memory, so that the next peak is that of one run (Linux and CUDA)."""
    if torch.cuda.is_initialized():  # initialising it here would fix which GPUs are visible
        torch.cuda.reset_peak_memory_stats()
    try:
        _CLEAR.write_text("5")
    except OSError:  # not Linux, or not allowed: the peak of the whole process is reported
        return


def peak_memory() -> dict[str, float | None]:
    """Peak memory in MiB since :func:`restart_peak_memory`, of this process and of its GPU."""
    gpu = torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_initialized() else None
    return {"peak_memory_mib": _resident(), "peak_gpu_mib": gpu and round(gpu, 1)}


def _resident() -> float | None:
    if _STATUS.is_file():
        lines = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines())
        if "VmHWM" in lines:
            return round(int(lines["VmHWM"].split()[0]) / 1024, 1)
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 1024), 1)
