"""The one file that reaches into RecBole's look-ups.

Importing the package calls :func:`install`, after which RecBole's own ``run_recbole``, ``run``,
``load_data_and_model``, ``objective_function``, ``get_model`` and ``create_dataset`` know our
models, data set, trainer and YAML. Each replacement keeps the signature and the name of what it
replaces, and falls back to it.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from logging import getLogger
from types import FunctionType
from typing import Any

import recbole.data.dataset
import recbole.data.utils
import recbole.quick_start.quick_start
import recbole.trainer.trainer
import recbole.utils.utils
from recbole.config import Config
from recbole.trainer import Trainer
from recbole.utils.argument_list import dataset_arguments

from recbole_missing.checkpoint import load_data_and_model
from recbole_missing.config import check as configuration
from recbole_missing.config.constraints import unknown
from recbole_missing.data.dataset import MultimodalDataset, check_interaction_files, fingerprint
from recbole_missing.data.sampling import adapt_samplers
from recbole_missing.model import MODELS
from recbole_missing.model.base import MultimodalRecommender
from recbole_missing.trainer import MultimodalTrainer, PluginTrainer

_SCORE_BLOCK = 2**28  # most scores that one evaluation batch holds: 1 GiB
_outside: dict[str, type] = {}  # models that live outside the package

_get_model = recbole.utils.utils.get_model
_get_trainer = recbole.utils.utils.get_trainer
_create_dataset = recbole.data.utils.create_dataset
_create_samplers = recbole.data.utils.create_samplers
_load_data_and_model = recbole.quick_start.quick_start.load_data_and_model
_run = recbole.quick_start.quick_start.run
_run_recboles = recbole.quick_start.quick_start.run_recboles


def install() -> None:
    """Rebind RecBole's look-ups; a second call does nothing."""
    if "data_fingerprint" in dataset_arguments:
        return
    dataset_arguments.append("data_fingerprint")
    Config.__init__ = _checked(Config.__init__)
    Config._load_internal_config_dict = _with_defaults(Config._load_internal_config_dict)
    replaced = {
        _get_model: get_model,
        _get_trainer: get_trainer,
        _create_dataset: create_dataset,
        _create_samplers: create_samplers,
        _load_data_and_model: load_data_and_model,
        _run: run,
        _run_recboles: run_recboles,
    }
    for module_name, module in list(sys.modules.items()):
        members = {} if module_name == __name__ else getattr(module, "__dict__", {})
        for name, value in list(members.items()):
            if type(value) is FunctionType and value in replaced:
                setattr(module, name, replaced[value])


def register_model(model: type) -> type:
    """Make a model class outside the package known by its name; usable as a decorator.

    Args:
        model: a RecBole general recommender; one that uses modalities derives from
            :class:`~recbole_missing.model.base.MultimodalRecommender`. Its optional class
            attribute ``properties`` (path of a YAML file, or a dict) holds its settings' defaults.

    Raises:
        ValueError: if the name already belongs to another class.
    """
    name = model.__name__
    try:
        holder = get_model(name)
    except ValueError:
        holder = model
    if (holder.__module__, holder.__qualname__) != (model.__module__, model.__qualname__):
        raise ValueError(
            f"register_model: {name!r} must be a name that is not taken, got a second class "
            f"({model.__module__} beside {holder.__module__}); rename yours."
        )
    _outside[name] = model
    return model


# ------------------------------------------------------------------------------------- config


def _checked(original: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(original)
    def init(
        self: Any,
        model: Any = None,
        dataset: str | None = None,
        config_file_list: list[str] | None = None,
        config_dict: dict[str, Any] | None = None,
    ) -> None:
        if inspect.isclass(model):
            _outside[model.__name__] = model
        configuration.check_files(config_file_list or ())
        try:
            original(self, model, dataset, config_file_list, config_dict)
        except NotImplementedError as error:  # an unknown metric
            raise ValueError(f"{error}; correct `metrics`.") from error
        configuration.check(self)

    return init


def _with_defaults(original: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(original)
    def load(self: Any, model: str, model_class: type, dataset: str) -> None:
        original(self, model, model_class, dataset)
        configuration.add_defaults(self, model, model_class, dataset)

    return load


# ------------------------------------------------------------------------------------ look-ups


@functools.wraps(_get_model)
def get_model(model_name: str) -> type:
    """Find a model class by name: ours, registered ones, RecBole's."""
    known = _outside.get(model_name) or MODELS.get(model_name)
    if known is not None:
        return known
    try:
        return _get_model(model_name)
    except (ValueError, AttributeError, ImportError) as error:
        if model_name in ("LightGBM", "XGBoost"):  # RecBole's models of optional libraries
            raise
        choices = {*MODELS, *_outside, "BPR", "LightGCN", "NGCF", "SGL"}
        raise ValueError(
            unknown("model", model_name, choices) + " Other RecBole models go by their "
            "class names; make your own known with recbole_missing.register_model."
        ) from error


@functools.wraps(_get_trainer)
def get_trainer(model_type: Any, model_name: str) -> type:
    """Find a trainer: ours for multimodal models, else RecBole's with our checkpoints."""
    model = _outside.get(model_name) or MODELS.get(model_name)
    if model is not None and issubclass(model, MultimodalRecommender):
        return MultimodalTrainer
    trainer = _get_trainer(model_type, model_name)
    if trainer is Trainer:
        return PluginTrainer
    if issubclass(trainer, Trainer) and not issubclass(trainer, PluginTrainer):
        return type(trainer.__name__, (PluginTrainer, trainer), {})
    return trainer


@functools.wraps(_create_dataset)
def create_dataset(config: Any) -> Any:
    """Create the data set; general recommenders get a :class:`MultimodalDataset`."""
    if config["MODEL_TYPE"] not in configuration.WITH_OUR_DATA:
        return _create_dataset(config)
    own_class = f"{config['model']}Dataset"  # where RecBole looks first
    if not hasattr(recbole.data.dataset, own_class):
        setattr(recbole.data.dataset, own_class, MultimodalDataset)
    check_interaction_files(config)
    config["data_fingerprint"] = fingerprint(config)
    dataset = _create_dataset(config)
    dataset.config = config  # one from RecBole's cache still holds the config that made it
    _set_eval_batch_size(config, dataset)
    return dataset


def _set_eval_batch_size(config: Any, dataset: Any) -> None:
    """RecBole counts user-item pairs; ``eval_users`` counts users, within a memory bound."""
    if set(config["eval_args"]["mode"].values()) != {"full"}:
        return  # sampled candidates: RecBole's number of pairs stands
    if "eval_batch_size" not in config.external_config_dict:
        users = max(1, min(config["eval_users"], _SCORE_BLOCK // dataset.item_num))
        config["eval_batch_size"] = users * dataset.item_num
    users = max(1, config["eval_batch_size"] // dataset.item_num)
    getLogger().info(f"Evaluation ranks all items for up to {users} users at a time.")


@functools.wraps(_create_samplers)
def create_samplers(config: Any, dataset: Any, built_datasets: list[Any]) -> Any:
    """Create RecBole's samplers and apply ``new_items`` and ``test_mask`` to them."""
    samplers = _create_samplers(config, dataset, built_datasets)
    if isinstance(dataset, MultimodalDataset):
        return adapt_samplers(config, built_datasets, samplers)
    return samplers


@contextmanager
def without_tensorboard() -> Iterator[None]:
    """Keep the trainers of this process from opening a folder of TensorBoard each."""
    opened = recbole.trainer.trainer.get_tensorboard
    recbole.trainer.trainer.get_tensorboard = lambda logger: _NoTensorBoard()
    try:
        yield
    finally:
        recbole.trainer.trainer.get_tensorboard = opened


class _NoTensorBoard:
    def add_scalar(self, *args: Any, **kwargs: Any) -> None:
        """Drop it."""

    def add_hparams(self, *args: Any, **kwargs: Any) -> None:
        """Drop them."""


# ----------------------------------------------------------------------------------- processes


@functools.wraps(_run)
def run(model: Any, *args: Any, **kwargs: Any) -> Any:
    """Run; spawned processes get a registered class itself, for they have not registered it."""
    return _run(_outside.get(model, model) if isinstance(model, str) else model, *args, **kwargs)


def run_recboles(rank: int, *args: Any) -> None:
    """RecBole's worker of a spawned process, which installs the plugin by unpickling this name."""
    _run_recboles(rank, *args)
