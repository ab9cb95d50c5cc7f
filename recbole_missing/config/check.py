"""Checks of names and values that a user set; plain values in, an error or a warning out.

:mod:`recbole_missing.plugin` collects what is declared (by RecBole, the data, the imputer and the
model) and calls these functions.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from logging import getLogger
from pathlib import Path
from typing import Any

import yaml

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

OF_PACKAGE = {
    "checkpoint_every": Optional(Float(min=0)),
    "eval_users": Int(min=1),
    "learning_rate_scheduler": Pair(Float(min=0), Float(min=1e-9)),
    "preset": Text(),
}
"""Settings of this package beside those of data, imputation and models."""

OF_TRAINING = {
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
"""RecBole's settings as our own models need them; RecBole's models may take other values."""


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


def refuse_unknown(
    model: str,
    given: Iterable[str],
    known: Collection[str],
    of_others: Collection[str],
    from_command_line: Collection[str],
    modalities: Collection[str],
    endings: Collection[str],
) -> None:
    """Refuse settings that nothing reads, for one of our models; warn of the harmless ones.

    A setting that another method of ours reads is harmless, so that several methods can share one
    config file. So are a modality's settings when the run leaves that modality out, and anything on
    the command line that resembles no known setting.

    Args:
        model: its name.
        given: settings that the user set.
        known: settings that RecBole, the data, the imputer or the model reads.
        of_others: settings that other models and imputers of ours read.
        from_command_line: the settings of the command line.
        modalities: names of the modalities.
        endings: endings of the settings of a modality, such as ``_features``.

    Raises:
        ValueError: naming the nearest known setting.
    """
    for key in given:
        if key in known:
            continue
        modality = _modality_of(key, endings)
        near = did_you_mean(modality, modalities) if modality else did_you_mean(key, known)
        harmless = modality or key in from_command_line
        if key not in of_others and (near or not harmless):
            raise ValueError(
                f"Unknown setting {key!r}.{near} Remove it, correct its name, or declare it in the "
                "hyperparameters of your model."
            )
        getLogger().warning(f"{model}: setting {key!r} is not known here and has no effect.")


def warn_of_likeness(
    model: str,
    given: Iterable[str],
    ours: Collection[str],
    modalities: Collection[str],
    endings: Collection[str],
) -> None:
    """Warn of settings that look like misspelt ones of this package; any of them may be right.

    Args:
        model: name of a model that is not ours, whose settings are its own affair.
        given: settings that the user set and RecBole does not name.
        ours: the settings of this package, without those of the modalities.
        modalities: names of the modalities.
        endings: endings of the settings of a modality, such as ``_features``.
    """
    for key in given:
        modality = _modality_of(key, endings)
        word, choices = (modality, modalities) if modality else (key, ours)
        near = did_you_mean(word, choices)
        if word not in choices and near:
            getLogger().warning(f"{model}: {key!r} is not a setting of recbole_missing.{near}")


def refuse_absent(model: str, names: Iterable[str], config: Any) -> None:
    """Refuse a model whose settings have no default.

    Raises:
        ValueError: naming the settings, and where a default is written.
    """
    absent = [name for name in names if name not in config]
    if absent:
        raise ValueError(
            f"{model}: {', '.join(absent)} must have a default, got none; write it into "
            f"properties/model/{model}.yaml, or into `properties` of a class of yours."
        )


def check_together(values: Mapping[str, Any], given: Collection[str]) -> None:
    """Refuse settings that are right one by one and wrong together.

    Args:
        values: every setting of the run.
        given: the settings that the user set.

    Raises:
        ValueError: naming the setting to change.
    """
    protocol = values["missing_protocol"]
    unused = protocol == "file" or (protocol == "none" and "missing_protocol" not in given)
    if "missing_ratio" in given and values["missing_ratio"] and unused:
        raise ValueError(
            f"missing_ratio: must be 0 or unset with missing_protocol {protocol}, got "
            f"{values['missing_ratio']}; set missing_protocol to random_items or stratified."
        )
    metric, _, k = values["valid_metric"].partition("@")
    metrics = [name.lower() for name in values["metrics"]]
    if metric.lower() not in metrics or (k and k not in map(str, values["topk"] or ())):
        raise ValueError(
            f"valid_metric: must be one of metrics {values['metrics']} at one of topk "
            f"{values['topk']}, got {values['valid_metric']!r}; set valid_metric too."
        )
    if values["repeatable"] and (values["new_items"] != "none" or values["test_mask"] == "train"):
        raise ValueError("repeatable: must be False with new_items or test_mask: train, got True.")
    split = values["eval_args"]["split"]
    if isinstance(split, Mapping) and len(split.get("RS", "123")) != 3:
        raise ValueError(f"eval_args: split RS must have three ratios, got {split['RS']}.")


def _modality_of(key: str, endings: Iterable[str]) -> str | None:
    """Return ``image`` for a key like ``image_features``."""
    return next((key[: -len(end)] for end in endings if key.endswith(end) and key != end), None)
