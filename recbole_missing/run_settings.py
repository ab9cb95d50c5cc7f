"""The settings of a run: which there are, and what they must be.

:mod:`.plugin` calls this while RecBole makes a config. The rules stand where the settings are read:
in :mod:`.config.of_recbole` for RecBole's, in the rooms of data, imputers and models for ours.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Collection, Iterable
from logging import getLogger
from pathlib import Path
from typing import Any

import recbole

from recbole_missing import identity, registry
from recbole_missing.config import check, constraints, defaults, of_recbole
from recbole_missing.data.dataset import DATA_SETTINGS
from recbole_missing.data.names import check_names, of_recboles_model, recbole_settings
from recbole_missing.data.sources import KINDS, check_library, modality_settings
from recbole_missing.evaluation.metrics import check_metrics
from recbole_missing.imputation import IMPUTERS, imputer_settings
from recbole_missing.model import MODELS
from recbole_missing.model.base import MultimodalRecommender

SWITCHES = ("modalities", "missing_protocol", "new_items", "test_mask")
"""Settings that turn this package on for RecBole's own models."""


def is_ours(model: type) -> bool:
    """Tell whether a model class reads modalities and declares its settings, as ours do."""
    return issubclass(model, MultimodalRecommender)


def has_our_settings(config: Any) -> bool:
    """Tell whether a config holds the settings of this package, so that they are in force."""
    return config.final_config_dict.keys() >= {*SWITCHES}  # older checkpoints lack newer settings


def own_settings(model_class: type) -> frozenset[str]:
    """Settings that a model declares itself and that are not ours; empty for our own models."""
    if is_ours(model_class):
        return frozenset()
    declared = getattr(model_class, "hyperparameters", {})
    return frozenset({*defaults.of_class(model_class, MODELS), *declared})


@functools.cache
def package_settings() -> dict[str, Any]:
    """Settings of this package that every run of ours reads, and their constraints."""
    return {**DATA_SETTINGS, **check.OF_PACKAGE}


def check_recboles(config: Any, model: str, model_class: Any) -> None:
    """Refuse values of RecBole's settings that would fail, or mean nothing, later on.

    Raises:
        ValueError: in the grammar of :mod:`recbole_missing.config.constraints`.
    """
    given = config.external_config_dict
    for key, kind in (("topk", list), ("gpu_id", tuple)):  # RecBole takes one of the two kinds
        if isinstance(given.get(key), (list, tuple)):
            given[key] = kind(given[key])
    negatives = given.get("train_neg_sample_args")
    if isinstance(negatives, dict) and negatives.get("distribution") == "none":
        given["train_neg_sample_args"] = None  # RecBole writes one and reads only the other
    values = {**config.internal_config_dict, **given}
    of_recbole.check_evaluation(model, values)
    declared = {**of_recbole.OF_RUNS, **of_recbole.OF_DATA}
    if is_ours(model_class):
        of_recbole.check_derived(model, given)
        declared |= of_recbole.OF_TRAINING
        values["learner"] = _lower(values["learner"])
    own = getattr(model_class, "hyperparameters", {})
    declared = {key: rule for key, rule in declared.items() if key in values and key not in own}
    constraints.check(model, values, declared)
    if is_ours(model_class):
        of_recbole.check_training(model, values)
    check_metrics(values)


def _lower(word: Any) -> Any:
    """Name of a learner as RecBole reads it, in lower case."""
    return word.lower() if isinstance(word, str) else word


def check_config(config: Any) -> None:
    """Refuse settings that nothing reads, that break their constraint, or that do not fit together.

    Raises:
        ValueError: in the grammar of :mod:`recbole_missing.config.constraints`.
    """
    if not has_our_settings(config):
        _warn_of_idle_settings(config)
        return
    ours = is_ours(config.model_class)
    constraints.check(config.model, config, {"modalities": package_settings()["modalities"]})
    declared = _declared(config)
    _check_names(config, declared, ours)
    if ours:
        config["learner"] = _lower(config["learner"])
        declared = {**declared, **config.model_class.hyperparameters}
        check.refuse_absent(config.model, config.model_class.hyperparameters, config)
    else:
        for key in ("preset", "learning_rate_scheduler"):
            del declared[key]
    constraints.check(config.model, config, declared)
    _check_other_imputers(config, declared)
    for name in config["modalities"] or ():
        check_library(name, config)
    check.check_together(config, config.external_config_dict)
    if ours and config["enable_amp"]:
        raise ValueError(
            f"{config.model}: enable_amp must be False, got True; sparse products are float32."
        )


def _declared(config: Any) -> dict[str, Any]:
    """Constraints of the settings of data, modalities and the chosen imputer."""
    declared = dict(package_settings())
    del declared["imputation"]  # the registry of imputers judges that word
    if isinstance(config["modalities"], (list, tuple)):
        declared.update(imputer_settings(config["imputation"]))
    for name in _modality_names(config):
        declared.update(modality_settings(name))
    return declared


def _check_other_imputers(config: Any, declared: dict[str, Any]) -> None:
    """Refuse values that no imputer takes, of settings that the chosen one does not read.

    Raises:
        ValueError: naming the setting.
    """
    rules: dict[str, list[Any]] = {}
    for name in IMPUTERS:
        for key, rule in imputer_settings(name).items():
            rules.setdefault(key, []).append(rule)
    for key in config.external_config_dict.keys() & rules.keys() - declared.keys():
        if not any(rule.accepts(config[key]) for rule in rules[key]):
            constraints.check(config.model, config, {key: rules[key][0]})


def _modality_names(config: Any) -> list[str]:
    """Modalities of every layer: a shorter list on the command line leaves keys without use."""
    layers = [config.internal_config_dict, *config.config_files_read, config.variable_config_dict]
    lists = [layer.get("modalities") for layer in (*layers, config.final_config_dict)]
    names = [str(name) for one in lists if isinstance(one, (list, tuple)) for name in one]
    return list(dict.fromkeys(names))


def _check_names(config: Any, declared: dict[str, Any], ours: bool) -> None:
    """Refuse names of modalities and of settings.

    Raises:
        ValueError: naming the modality or the setting.
    """
    of_model = {*defaults.of_class(config.model_class, MODELS)}
    of_model |= set(getattr(config.model_class, "hyperparameters", ()))
    if identity.is_recboles(config.model_class):
        of_model |= of_recboles_model(config.model)
    of_run = {*package_settings(), *defaults.overall(), *recbole_settings()}
    check_names(_modality_names(config), of_run | of_model)
    given = config.external_config_dict
    of_package = {*declared, *defaults.overall()}
    of_modality = {
        "modalities": _modality_names(config),
        "endings": [key[1:] for key in modality_settings("x")],
    }
    if not ours:
        known = of_package | recbole_settings() | config.internal_config_dict.keys()
        theirs = identity.is_recboles(config.model_class)
        choices = known if theirs else of_package - recbole_settings()
        check.warn_of_likeness(config.model, given, known, choices, **of_modality)
        return
    of_others = {key for name in MODELS for key in defaults.read("model", name)}
    of_others |= {f"imputation_{key}" for one in IMPUTERS.values() for key in one.hyperparameters}
    check.refuse_unknown(
        config.model,
        given,
        known=of_package | of_model | recbole_settings(),
        of_others=of_others,
        from_command_line=config.cmd_config_dict,
        sources=[f"_{kind}" for kind in KINDS],
        **of_modality,
    )


def refuse_unread(models: Iterable[type], words: Collection[str]) -> None:
    """Refuse settings of a command line that nobody reads, where RecBole's own models run.

    RecBole's models pass over such a setting in silence; ours refuse it themselves. A model from
    outside may read any setting, so nothing is refused where there is one. Neither is a setting of
    another model, nor anything in files and Python calls. A name such as ``title_dim`` may
    be that of a modality, and ``imputation_mine`` that of an imputer from outside; the latter is
    refused if it is near a name of ours.

    Args:
        models: classes of all models that run; not looked at if every setting is known.
        words: names of the settings.

    Raises:
        ValueError: naming the nearest setting that is known.
    """
    endings = tuple(key[1:] for key in modality_settings("x"))
    declared = _of_every_run()
    unread = [word for word in words if word not in declared and not word.endswith(endings)]
    unread = [word for word in unread if not _may_be_of_an_imputer(word)]
    models = list(models) if unread else []
    theirs = [model.__name__ for model in models if identity.is_recboles(model)]
    if not theirs or any(registry.is_outside(model) for model in models):
        return
    known = _read_by_anyone()
    unread = [word for word in unread if word not in known]
    if unread:
        raise ValueError(
            f"Unknown setting {unread[0]!r}.{constraints.did_you_mean(unread[0], known)} "
            f"{theirs[0]} would ignore it; correct its name, or remove it."
        )


def _may_be_of_an_imputer(word: str) -> bool:
    """Tell whether a setting may be one of an imputer from outside: no name of ours is near."""
    start, prefix, rest = word.partition("imputation_")
    ours = {key for imputer in IMPUTERS.values() for key in imputer.hyperparameters}
    return not start and bool(prefix) and not constraints.did_you_mean(rest, ours)


_READ = re.compile(
    r"""config\[\s*["'](\w+)["']\s*\]|["'](\w+)["'] in (?:self\.)?config\b"""
    r"""|config_dict\.get\(\s*["'](\w+)["']"""
)


def _of_every_run() -> set[str]:
    """Settings of every run."""
    return {*recbole_settings(), *defaults.overall(), "plugin_defaults"}


@functools.cache
def _read_by_anyone() -> frozenset[str]:
    """Settings that some model, data set or trainer reads, RecBole's or ours."""
    found = {*_of_every_run()}
    folder = Path(recbole.__file__).parent
    for path in folder.glob("properties/*/*.yaml"):
        found.update(defaults.load(path))
    for path in folder.rglob("*.py"):  # not all of them stand in a YAML file
        pairs = _READ.findall(path.read_text(encoding="utf-8"))
        found.update(key for pair in pairs for key in pair if key)
    for name in MODELS:
        found.update(defaults.read("model", name))
    for imputer in IMPUTERS.values():
        found.update(imputer_settings(imputer))
    return frozenset(found)


def _warn_of_idle_settings(config: Any) -> None:
    """Say it where settings of this package are given and nothing turns the package on.

    ``ties_improve`` has an effect: the trainer, which is ours for every model, reads it.

    Raises:
        ValueError: if ``ties_improve`` is no bool.
    """
    theirs = recbole_settings()
    ours = {key: value for key, value in defaults.overall().items() if key not in theirs}
    given = config.external_config_dict
    if identity.is_recboles(config.model_class):
        known = {*ours, *theirs, *config.internal_config_dict}
        check.warn_of_likeness(config.model, given, known, choices=known)
    own = own_settings(config.model_class)
    mine = [key for key in ours if key in given and key not in own]
    of_trainer = {key: check.OF_PACKAGE[key] for key in mine if key == "ties_improve"}
    constraints.check(config.model, given, of_trainer)
    idle = [key for key in mine if given[key] not in (None, ours[key]) and key not in of_trainer]
    if idle:
        getLogger().warning(
            f"{config.model}: {', '.join(idle)} of recbole_missing has no effect without "
            "`modalities` or `plugin_defaults: True`."
        )
