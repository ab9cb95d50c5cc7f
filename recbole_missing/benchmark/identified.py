"""What identifies a run: the data, the settings in force, the source code.

A run is identified before it starts, so that what a store already holds is not run again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from recbole.data import create_dataset
from recbole.utils import argument_list, init_seed

from recbole_missing import identity, in_force, plugin, registry, run_settings
from recbole_missing.data.dataset import (
    MultimodalDataset,
    data_settings,
    reads_edges,
    table_identity,
)
from recbole_missing.identity import Parts
from recbole_missing.imputation import IMPUTERS
from recbole_missing.memory import fits
from recbole_missing.model import MODELS
from recbole_missing.quiet import quiet


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
    return "" if run_settings.has_our_settings(config) else str(config["model"])


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
        return in_force.source_of(line["config"], plugin.get_model(words[0]))
    except ValueError:
        return None


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
