"""RecBole's caches of data sets and dataloaders, as they are written and read here.

RecBole unpickles any file that has the name of a cache, and a pickle can run code. Here a cache is
read only if the run asks for it and this user's key has signed it (:mod:`.data.signed`).
"""

from __future__ import annotations

from logging import getLogger
from pathlib import Path
from typing import Any

from recbole_missing.data import signed


def save_dataset(self: Any) -> None:
    """Save a data set for later runs that ask for it."""
    path = _cache(self.config, type(self).__name__)
    self.logger.info(f"Saving filtered dataset into [{path}]")
    signed.write(path, "dataset", self)


def load_dataset(config: Any, make: type) -> Any:
    """Data set of an earlier run; None if none is asked for, or its settings were others."""
    if not (config["save_dataset"] or config["dataset_save_path"]):
        return None
    path = Path(config["dataset_save_path"] or _cache(config, make.__name__))
    dataset = signed.read(path, "dataset")
    if dataset is None or not _same_data(config, dataset.config, "repeatable", "seed"):
        return None
    getLogger().info(f"Load filtered dataset from: [{path}]")
    return dataset


def save_split_dataloaders(config: Any, dataloaders: Any) -> None:
    """Save the dataloaders for later runs that ask for them; those of this run stay as they are."""
    path = _cache(config, f"for-{config['model']}-dataloader")
    getLogger().info(f"Saving split dataloaders into: [{path}]")
    samplers = [loader.sampler for loader in dataloaders]
    generators = [getattr(sampler, "generator", None) for sampler in samplers]
    own = [loader.generator for loader in dataloaders]
    saved = [(loader, loader.generator.get_state()) for loader in dataloaders]
    try:
        for loader in dataloaders:  # a generator cannot be pickled
            loader.generator = loader.sampler.generator = None
        signed.write(path, "dataloaders", saved)
    finally:
        for loader, generator, of_sampler in zip(dataloaders, own, generators):
            loader.generator, loader.sampler.generator = generator, of_sampler


def load_split_dataloaders(config: Any) -> Any:
    """Dataloaders of an earlier run; None if none are asked for, or their settings were others."""
    import torch

    if not (config["save_dataloaders"] or config["dataloaders_save_path"]):
        return None
    default = _cache(config, f"for-{config['model']}-dataloader")
    path = Path(config["dataloaders_save_path"] or default)
    saved = signed.read(path, "dataloaders")
    keys = ("eval_args", "repeatable", "seed")
    if saved is None or not _same_data(config, saved[0][0].config, *keys):
        return None
    for loader, state in saved:
        loader.generator = loader.sampler.generator = torch.Generator().set_state(state)
        loader.update_config(config)
    getLogger().info(f"Load split dataloaders from: [{path}]")
    return tuple(loader for loader, _ in saved)


def _cache(config: Any, what: str) -> Path:
    """File of a cache, as RecBole names it."""
    return Path(config["checkpoint_dir"], f"{config['dataset']}-{what}.pth")


def _same_data(config: Any, saved: Any, *keys: str) -> bool:
    """Tell whether a saved config makes the same data, by the settings that RecBole compares."""
    from recbole.utils.argument_list import dataset_arguments

    return all(config[key] == saved[key] for key in (*dataset_arguments, *keys))
