"""The one file that replaces RecBole's look-ups with ones that know this package.

Importing :mod:`recbole_missing` calls :func:`install`; :func:`uninstall` puts everything back. In
between RecBole's own ``run_recbole``, ``run``, ``load_data_and_model``, ``objective_function``,
``get_model``, ``get_trainer`` and ``create_dataset`` know our models, data set, trainer and YAML.
RecBole may be imported before or after: a module that is already there is changed at once, any
other as soon as it has been executed. Nothing heavy is imported before RecBole calls us.

**RecBole's own models are left alone, except for a few that are wrong.** Without a word about this
package, a run of theirs has RecBole's defaults, data set and evaluation, and gives RecBole's result
bit for bit; only its checkpoint is of the kind that this package can load. The models that compute
something else than their publication are always replaced, also if RecBole's class is passed, and
say so in the log (:mod:`recbole_missing.baseline`). The defaults of this package
(``properties/overall.yaml`` and ``properties/dataset/``) apply to RecBole's models, and make them
baselines on the same splits and metrics as our models, in two cases:

- the user turns on something of ours: ``modalities``, ``missing_protocol``, ``new_items`` or
  ``test_mask`` has another value than in ``overall.yaml``;
- the setting ``plugin_defaults`` is True. Our commands (``recbole-missing run`` and ``benchmark``)
  and :func:`recbole_missing.run_recbole_missing` set it; pass ``plugin_defaults: False`` to them to
  get RecBole's defaults.

Settings of models that are not ours are theirs: only our own settings are checked for them. If such
a model declares a setting with the name of one of ours (in its ``properties`` or
``hyperparameters``), the value is the model's, and it turns nothing of ours on.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from logging import getLogger
from types import FunctionType, ModuleType, SimpleNamespace
from typing import Any

from recbole_missing import compat, lazy, loaded, logs
from recbole_missing.data import saved
from recbole_missing.optim import OPTIM

_SCORE_BLOCK = 2**28  # most scores that one evaluation batch holds: 1 GiB

# ------------------------------------------------------------------------- install and uninstall


def install() -> None:
    """Replace RecBole's look-ups, now or when RecBole is imported; a second call does nothing."""
    if _hook in sys.meta_path:
        return
    loaded.watch()
    sys.meta_path.insert(0, _hook)
    for name in _REPLACEMENTS:
        if name in sys.modules:
            _replace(sys.modules[name])
    _rebind({_originals[path]: new for path, new in _replaced()})


def uninstall() -> None:
    """Put back everything that :func:`install` has changed; a second call does nothing."""
    if _hook not in sys.meta_path:
        return
    loaded.stop()
    sys.meta_path.remove(_hook)
    _rebind({new: _originals[path] for path, new in _replaced()})
    for path, _ in _replaced():
        owner, name = _owner(path)
        setattr(owner, name, _originals[path])
    _originals.clear()
    arguments = sys.modules.get("recbole.utils.argument_list")
    if arguments is not None and "data_fingerprint" in arguments.dataset_arguments:
        arguments.dataset_arguments.remove("data_fingerprint")


class _Hook:
    """Finder that changes a module of RecBole right after it has been executed."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """Let the other finders find the module, and follow its execution."""
        if name not in _REPLACEMENTS:
            return None
        finders = (finder for finder in sys.meta_path if finder is not self)
        specs = (finder.find_spec(name, path, target) for finder in finders)
        spec = next((spec for spec in specs if spec is not None), None)
        loader: Any = None if spec is None else spec.loader
        if loader is None:
            return spec
        execute = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            del loader.exec_module  # the loader is as it was found
            with lazy.waiting(*lazy.OF_RECBOLE.get(name, ())):
                execute(module)
            _replace(module)

        loader.exec_module = exec_module
        return spec


def _replace(module: ModuleType) -> None:
    """Put our replacements into one module of RecBole."""
    for attribute, new in _REPLACEMENTS[module.__name__].items():
        path = f"{module.__name__}:{attribute}"
        owner, name = _owner(path)
        _originals[path] = getattr(owner, name)
        # A spawned process must find run_recboles here, to install the plugin.
        if type(new) is FunctionType and new is not run_recboles:
            functools.update_wrapper(new, _originals[path])
        setattr(owner, name, new)
    if module.__name__ == "recbole.utils.argument_list":  # what RecBole's caches compare
        module.dataset_arguments.append("data_fingerprint")


def _rebind(changes: dict[FunctionType, FunctionType]) -> None:
    """Change the functions that other modules have taken by ``from module import name``."""
    for module_name, module in list(sys.modules.items()):
        members = {} if module_name == __name__ else getattr(module, "__dict__", {})
        for name, value in list(members.items()):
            if type(value) is FunctionType and value in changes:
                setattr(module, name, changes[value])


def _replaced() -> Iterator[tuple[str, Any]]:
    """``module:attribute`` and replacement of everything that is replaced at present."""
    for module, attributes in _REPLACEMENTS.items():
        for attribute, new in attributes.items():
            if f"{module}:{attribute}" in _originals:
                yield f"{module}:{attribute}", new


def _owner(path: str) -> tuple[Any, str]:
    """The module or class that holds an attribute, and the attribute's name."""
    module, _, attribute = path.partition(":")
    *classes, name = attribute.split(".")
    return functools.reduce(getattr, classes, sys.modules[module]), name


def _original(path: str) -> Any:
    """RecBole's own function behind a replacement."""
    importlib.import_module(path.partition(":")[0])
    return _originals[path] if path in _originals else getattr(*_owner(path))


# --------------------------------------------------------------------------- models from outside


def register_model(model: type) -> type:
    """Make a model class from outside the package known by its name; usable as a decorator.

    Args:
        model: a RecBole general recommender; one that uses modalities derives from
            :class:`~recbole_missing.model.base.MultimodalRecommender`. Its optional class
            attribute ``properties`` (path of a YAML file, or a dict) holds its settings' defaults.

    Raises:
        ValueError: if another class already has the name.
    """
    from recbole_missing.model import MODELS

    try:
        holder = _original("recbole.utils.utils:get_model")(model.__name__)
    except (ValueError, AttributeError, ImportError):
        return MODELS.register(model)
    raise MODELS.taken(model, holder)


# ---------------------------------------------------------------------------------------- config


def _init_config(
    self: Any,
    model: Any = None,
    dataset: str | None = None,
    config_file_list: list[str] | None = None,
    config_dict: dict[str, Any] | None = None,
) -> None:
    from recbole_missing import run_settings
    from recbole_missing.config import check

    self.config_files_read = check.check_files(config_file_list or ())
    original = _original("recbole.config.configurator:Config.__init__")
    original(self, model, dataset, config_file_list, config_dict)
    check.refuse_code(self.model_class, self)
    if self.model_class.type in _types_with_our_data():
        run_settings.check_config(self)


def _compatibility_settings(self: Any) -> None:
    """Give numpy the names that RecBole uses. RecBole's own way fails with numpy 2."""
    compat.repair()


def _convert_config_dict(self: Any, config_dict: dict[str, Any]) -> dict[str, Any]:
    """Read settings that come as text. RecBole evaluates them; here they are data."""
    from recbole_missing.config import values

    for key, value in config_dict.items():
        if isinstance(value, str):
            config_dict[key] = values.read(value)
    return config_dict


def _build_yaml_loader(self: Any) -> type:
    """RecBole's reader of YAML without the tags that make objects of Python."""
    from recbole_missing.config import defaults

    return defaults.Loader


def _update_internal_config_dict(self: Any, file: str) -> dict[str, Any]:
    """Put a file of RecBole's defaults over what is there; a process parses each file once."""
    from recbole_missing.config import defaults

    values = defaults.of_recbole(file)
    self.internal_config_dict.update(values)
    return values


def _get_model_and_dataset(self: Any, model: Any, dataset: Any) -> tuple[Any, Any, Any]:
    """Name, class and data set; the name of a class that was handed over remembers the class."""
    from recbole_missing import registry
    from recbole_missing.baseline import in_place_of
    from recbole_missing.model import MODELS

    given = self.external_config_dict.get("model", "") if model is None else model
    if not isinstance(given, (str, type)):
        raise ValueError(f"model: must be a name, module:Class or a class, got {given!r}.")
    original = _original("recbole.config.configurator:Config._get_model_and_dataset")
    name, cls, dataset = original(self, model, dataset)
    if not isinstance(dataset, str):
        raise ValueError(f"dataset: must be the name of a data set, got {dataset!r}.")
    cls = in_place_of(cls)
    if not isinstance(given, str) or registry.is_address(given) or given in MODELS.registered:
        name = registry.ModelName(MODELS.remember(cls))
    return name, cls, dataset


def _load_internal_config_dict(self: Any, model: str, model_class: Any, dataset: str) -> None:
    """Read RecBole's defaults, put ours over them where they apply, and check RecBole's settings.

    From here on RecBole derives settings from others, so a wrong one is refused before.
    """
    from recbole_missing import run_settings
    from recbole_missing.config import check, defaults

    given = self.external_config_dict
    alien = check.make_plain(given)
    for key in ("imputation", "model"):  # these may be classes, and become names
        if isinstance(given.get(key), type):
            alien.pop(key, None)
    check.refuse_alien(model, {key: alien[key] for key in alien if key in defaults.overall()})
    _layer(self, model, model_class, dataset)
    general = model_class.type in _types_with_our_data()
    if general and defaults.overall().keys() <= self.internal_config_dict.keys():
        check.refuse_alien(model, alien)
        run_settings.check_recboles(self, model, model_class)
    elif alien:
        words = ", ".join(f"{key}: {part}" for key, part in alien.items())
        getLogger().warning(f"{model}: checkpoints will not hold what is no plain value: {words}.")


def _layer(self: Any, model: str, model_class: Any, dataset: str) -> None:
    from recbole_missing import run_settings
    from recbole_missing.config import defaults
    from recbole_missing.model import MODELS

    original = _original("recbole.config.configurator:Config._load_internal_config_dict")
    original(self, model, model_class, dataset)
    given = self.external_config_dict
    _register_metrics(given)
    asked = given.pop("plugin_defaults", False)
    if not isinstance(asked, bool):
        raise ValueError(f"plugin_defaults: must be True or False, got {asked!r}.")
    if model_class.type not in _types_with_our_data():
        return
    of_model = defaults.of_class(model_class, MODELS)
    ours = run_settings.is_ours(model_class)
    theirs = run_settings.own_settings(model_class)
    alien = _alien({**of_model, **given}, theirs)
    wanted = asked or _turns_something_on(given, theirs)
    if alien and wanted:
        getLogger().warning(
            f"{model}: recbole_missing is not turned on, for the model has settings of its own "
            f"with names of ours and other values: {', '.join(alien)}."
        )
    if not ours and (alien or not wanted):
        of_model.pop("presets", None)
        self.internal_config_dict.update(of_model)
        return
    preset = defaults.overall()["preset"]
    if ours or "presets" in of_model:
        preset = given.pop("preset", preset)
    named = {**of_model, **defaults.read("dataset", dataset), **given}
    modalities = named.get("modalities")
    n_modalities = len(modalities) if isinstance(modalities, (list, tuple)) else 0
    arguments = (model, of_model, dataset, preset, n_modalities)
    of_imputer = _of_outside_imputer({**defaults.of_run(*arguments, {}), **given}, given)
    self.internal_config_dict.update(defaults.of_run(*arguments, of_imputer))


def _register_metrics(given: dict[str, Any]) -> None:
    """Import the metrics that are named ``module:Class``, and leave their names in ``metrics``."""
    from recbole_missing.registry import import_class, is_address

    words = given.get("metrics")
    words = [words] if isinstance(words, str) else words
    if not isinstance(words, (list, tuple)) or not any(is_address(str(w)) for w in words):
        return
    from recbole_missing.evaluation.metrics import register_metric

    names = []
    for word in map(str, words):
        is_outside = is_address(word)
        names.append(register_metric(import_class("metric", word)).__name__ if is_outside else word)
    given["metrics"] = names


def _turns_something_on(given: dict[str, Any], theirs: frozenset[str]) -> bool:
    from recbole_missing import run_settings
    from recbole_missing.config import defaults

    default = defaults.overall()
    switches = [key for key in run_settings.SWITCHES if key not in theirs]
    return any(given.get(key) not in (None, default[key]) for key in switches)


def _alien(values: dict[str, Any], theirs: frozenset[str]) -> list[str]:
    """Settings of the model itself whose values cannot be meant for ours of the same name."""
    from recbole_missing import run_settings

    constraints = run_settings.package_settings()
    unchecked = ("imputation", "preset", "learning_rate_scheduler")
    shared = [key for key in constraints if key in theirs and key not in unchecked]
    return [key for key in shared if key in values and not constraints[key].accepts(values[key])]


def _of_outside_imputer(values: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Defaults of an imputer from outside, whose setting becomes its address ``module:Class``."""
    from recbole_missing.imputation import IMPUTERS, imputer_defaults
    from recbole_missing.registry import address

    word = values["imputation"]
    if not values["modalities"] or word in IMPUTERS:
        return {}
    given["imputation"] = address(IMPUTERS.resolve(word))
    return imputer_defaults(given["imputation"])


@functools.cache
def _types_with_our_data() -> tuple[Any, ...]:
    """Kinds of RecBole models that get our settings and data: those that rank items for users."""
    from recbole.utils import ModelType

    return ModelType.GENERAL, ModelType.TRADITIONAL


# -------------------------------------------------------------------------------------- look-ups


def get_model(model_name: str) -> Any:
    """Find a model class: one of ours, a registered one, ``module:Class``, or one of RecBole's.

    Where RecBole's is wrong, it is the right one of the same name.
    """
    from recbole_missing.baseline import BASELINES, in_place_of
    from recbole_missing.config.constraints import unknown
    from recbole_missing.model import MODELS
    from recbole_missing.registry import ModelName, is_address

    if isinstance(model_name, ModelName):
        return model_name.model
    known = MODELS.resolve(model_name) if is_address(model_name) else MODELS.find(model_name)
    if known is not None:
        return in_place_of(known)
    try:
        return in_place_of(_original("recbole.utils.utils:get_model")(model_name))
    except (ValueError, AttributeError, ImportError) as error:
        if model_name in ("LightGBM", "XGBoost"):  # RecBole's models of optional libraries
            raise
        of_recbole = {*BASELINES, "BPR", "EASE", "ItemKNN", "LightGCN"}
        choices = {*MODELS, *MODELS.registered, *of_recbole}
        raise ValueError(
            unknown("model", model_name, choices) + " Other RecBole models go by their "
            "class names; make your own known with recbole_missing.register_model."
        ) from error


def get_trainer(model_type: Any, model_name: str) -> Any:
    """Find a trainer: ours for multimodal models, else RecBole's with our checkpoints."""
    from recbole.trainer import Trainer

    from recbole_missing import run_settings
    from recbole_missing.model import MODELS
    from recbole_missing.registry import ModelName
    from recbole_missing.trainer import MultimodalTrainer, PluginTrainer

    known = model_name.model if isinstance(model_name, ModelName) else MODELS.find(model_name)
    if known is not None and run_settings.is_ours(known):
        return MultimodalTrainer
    trainer = _original("recbole.utils.utils:get_trainer")(model_type, model_name)
    if trainer is Trainer:
        return PluginTrainer
    if issubclass(trainer, Trainer) and not issubclass(trainer, PluginTrainer):
        return type(trainer.__name__, (PluginTrainer, trainer), {})
    return trainer


def create_dataset(config: Any) -> Any:
    """Create the data set: a :class:`MultimodalDataset` where our settings are in force."""
    from recbole_missing import run_settings

    ours = config["MODEL_TYPE"] in _types_with_our_data() and run_settings.has_our_settings(config)
    if ours:
        from recbole_missing.data.dataset import fingerprint
        from recbole_missing.data.interactions import check_interaction_files

        check_interaction_files(config)
        config["data_fingerprint"] = fingerprint(config)
    make = _dataset_class(config, ours)
    dataset = saved.load_dataset(config, make)
    if dataset is None:
        dataset = make(config)
        if config["save_dataset"]:
            dataset.save()
    if ours:
        dataset.config = config  # one from a cache still holds the config that made it
        _set_eval_batch_size(config, dataset)
    return dataset


def _dataset_class(config: Any, ours: bool) -> Any:
    """Class of the data set, chosen as RecBole's ``create_dataset`` does; ours in some cases."""
    import recbole.data.dataset as classes
    from recbole.utils import ModelType

    from recbole_missing.data.dataset import MultimodalDataset

    names = {
        ModelType.SEQUENTIAL: "SequentialDataset",
        ModelType.KNOWLEDGE: "KnowledgeBasedDataset",
    }
    general = getattr(classes, names.get(config["MODEL_TYPE"], "Dataset"))
    return getattr(classes, f"{config['model']}Dataset", MultimodalDataset if ours else general)


def _set_eval_batch_size(config: Any, dataset: Any) -> None:
    """RecBole counts user-item pairs; ``eval_users`` counts users, within a memory bound."""
    if set(config["eval_args"]["mode"].values()) != {"full"}:
        return  # sampled candidates: RecBole's number of pairs stands
    if "eval_batch_size" not in config.external_config_dict:
        users = max(1, min(config["eval_users"], _SCORE_BLOCK // dataset.item_num))
        config["eval_batch_size"] = users * dataset.item_num
    users = max(1, config["eval_batch_size"] // dataset.item_num)
    getLogger().info(f"Evaluation ranks all items for up to {users} users at a time.")


def create_samplers(config: Any, dataset: Any, built_datasets: list[Any]) -> Any:
    """Create RecBole's samplers and apply ``new_items`` and ``test_mask`` to them.

    Here the splits of RecBole's own data sets get their ``identity``, for the checkpoints.
    """
    from recbole_missing.data.dataset import MultimodalDataset, table_identity
    from recbole_missing.data.sampling import adapt_samplers

    original = _original("recbole.data.utils:create_samplers")
    samplers = original(config, dataset, built_datasets)
    if isinstance(dataset, MultimodalDataset):
        return adapt_samplers(config, built_datasets, samplers)
    if dataset.uid_field is not None and dataset.iid_field is not None:
        parts = config["data_identity"] = table_identity(dataset, built_datasets)
        for split in built_datasets:
            split.identity = parts
    return samplers


def get_dataloader(config: Any, phase: str) -> Any:
    """RecBole's class of a dataloader, or ours that makes the same batches faster."""
    from recbole.data.dataloader import FullSortEvalDataLoader

    from recbole_missing.data.loading import RankingDataLoader

    found = _original("recbole.data.utils:get_dataloader")(config, phase)
    return RankingDataLoader if found is FullSortEvalDataLoader else found


def load_data_and_model(
    model_file: str, data_path: Any = None, settings: dict[str, Any] | None = None
) -> Any:
    """Load a checkpoint of this package: :func:`recbole_missing.checkpoint.load_data_and_model`."""
    from recbole_missing import checkpoint

    return checkpoint.load_data_and_model(model_file, data_path, settings)


@contextmanager
def without_tensorboard() -> Iterator[None]:
    """Keep the trainers of this process from opening a folder of TensorBoard each."""
    import recbole.trainer.trainer

    opened = recbole.trainer.trainer.get_tensorboard
    recbole.trainer.trainer.get_tensorboard = lambda logger: logs.TensorBoard()
    try:
        yield
    finally:
        recbole.trainer.trainer.get_tensorboard = opened


def get_tensorboard(logger: Any) -> Any:
    """RecBole's writer of TensorBoard; a disk that is full ends the writer, not the run.

    So does a TensorBoard that is absent or broken, which RecBole imports at its top.
    """
    if importlib.util.find_spec("tensorboard") is None:
        getLogger().warning("TensorBoard: absent; run `pip install tensorboard` to have its files.")
        return logs.TensorBoard()
    now = SimpleNamespace(handlers=list(logger.handlers))  # they name its folder
    return logs.TensorBoard(lambda: _original("recbole.utils.utils:get_tensorboard")(now))


def init_logger(config: Any) -> None:
    """RecBole's log; a disk that is full ends its file, not the run."""
    logs.init_logger(_original("recbole.utils.logger:init_logger"), config)


# ------------------------------------------------------------------------------------- processes


def run(model: Any, *args: Any, **kwargs: Any) -> Any:
    """Run; spawned processes get a model from outside as its class, which they can import."""
    from recbole_missing.model import MODELS
    from recbole_missing.registry import is_address

    if isinstance(model, str):
        model = MODELS.resolve(model) if is_address(model) else MODELS.registered.get(model, model)
    return _original("recbole.quick_start.quick_start:run")(model, *args, **kwargs)


def run_recboles(rank: int, *args: Any) -> None:
    """RecBole's worker of a spawned process, which installs the plugin by unpickling this name."""
    _original("recbole.quick_start.quick_start:run_recboles")(rank, *args)


_REPLACEMENTS: dict[str, dict[str, Any]] = {
    **{module: {} for module in lazy.OF_RECBOLE},
    "recbole.utils.argument_list": {},
    "recbole.utils.logger": {"init_logger": init_logger},
    "recbole.utils.utils": {
        "get_model": get_model,
        "get_tensorboard": get_tensorboard,
        "get_trainer": get_trainer,
    },
    "recbole.config.configurator": {
        "Config.__init__": _init_config,
        "Config._build_yaml_loader": _build_yaml_loader,
        "Config.compatibility_settings": _compatibility_settings,
        "Config._convert_config_dict": _convert_config_dict,
        "Config._get_model_and_dataset": _get_model_and_dataset,
        "Config._load_internal_config_dict": _load_internal_config_dict,
        "Config._update_internal_config_dict": _update_internal_config_dict,
    },
    "recbole.data.dataset.dataset": {"Dataset.save": saved.save_dataset},
    "recbole.data.utils": {
        "create_dataset": create_dataset,
        "create_samplers": create_samplers,
        "get_dataloader": get_dataloader,
        "load_split_dataloaders": saved.load_split_dataloaders,
        "save_split_dataloaders": saved.save_split_dataloaders,
    },
    "recbole.trainer.trainer": {"optim": OPTIM},
    "recbole.quick_start.quick_start": {
        "load_data_and_model": load_data_and_model,
        "run": run,
        "run_recboles": run_recboles,
        "tune": compat.TUNE,
    },
}
"""Module of RecBole -> attribute -> what takes its place while the plugin is installed."""

_originals: dict[str, Any] = {}  # "module:attribute" -> RecBole's own
_hook = _Hook()
