"""Checks of names and values that a user set; plain values in, an error or a warning out.

:mod:`recbole_missing.plugin` collects what is declared (by RecBole, the data, the imputer and the
model) and calls these functions.
"""

from __future__ import annotations

import linecache
import sys
import traceback
from collections.abc import Collection, Iterable, Mapping
from logging import getLogger
from pathlib import Path, PurePath
from typing import Any

from recbole_missing.config import defaults
from recbole_missing.config.constraints import (
    Bool,
    Float,
    Int,
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
    "ties_improve": Bool(),
}
"""Settings of this package beside those of data, imputation and models."""


def raised_in(error: BaseException, *rooms: str) -> bool:
    """Tell whether a ``raise`` statement made an error, in a module whose name begins so."""
    frames = [*traceback.walk_tb(error.__traceback__)]
    if not frames:
        return False
    frame, line = frames[-1]
    statement = linecache.getline(frame.f_code.co_filename, line).lstrip()
    return statement.startswith("raise") and frame.f_globals.get("__name__", "").startswith(rooms)


def check_files(files: Iterable[str]) -> list[dict[str, Any]]:
    """Refuse config files that are not YAML mappings; return the content of each.

    Raises:
        ValueError: naming the file.
    """
    contents = []
    for file in files:
        path = Path(file)
        if not path.is_file():
            raise ValueError(f"{path}: must be a YAML file, got no such file; correct the path.")
        contents.append(defaults.load(path))
        if not contents[-1]:
            raise ValueError(f"{path}: must hold keys and values as `key: value`, got nothing.")
    return contents


def check_found_files(files: Iterable[Path]) -> None:
    """Refuse config files that the user has not named, but only their folder, if they name code.

    Whoever made the folder chose the code. In a file or an option that the user names,
    ``module:Class`` is imported by design.

    Raises:
        ValueError: naming the file, for ``module:Class`` or what :func:`check_files` refuses.
    """
    files = list(files)
    for file, content in zip(files, check_files(map(str, files))):
        metrics = content.get("metrics")
        words = {key: [content.get(key)] for key in ("imputation", "model")}
        words["metrics"] = metrics if isinstance(metrics, list) else [metrics]
        for key, values in words.items():
            named = [value for value in values if isinstance(value, str) and ":" in value]
            if named:
                raise ValueError(
                    f"{file}: {key} must be a name, got {named[0]!r}; the file of a data set's "
                    "folder imports no code. Name the class on the command line, in --config_files "
                    "or in the benchmark file."
                )


def refuse_code(model: type, values: Any) -> None:
    """Refuse the settings that RecBole's own models evaluate, unless they are plain names.

    KD_DAGFM evaluates ``teacher``, the name of a class in its module.

    Args:
        model: class of the model.
        values: every setting of the run, as a dict or a config.

    Raises:
        ValueError: for another value.
    """
    for base in model.__mro__:
        if base.__module__ != "recbole.model.context_aware_recommender.kd_dagfm":
            continue
        found = vars(sys.modules[base.__module__]).items()
        here = [
            name for name, value in found if getattr(value, "__module__", "") == base.__module__
        ]
        networks = sorted({*here} - {base.__name__})
        if values["teacher"] not in networks:
            raise ValueError(
                f"{model.__name__}: teacher must be one of {', '.join(networks)}, got "
                f"{values['teacher']!r}; correct it."
            )


def refuse_unknown(
    model: str,
    given: Iterable[str],
    known: Collection[str],
    of_others: Collection[str],
    from_command_line: Collection[str],
    modalities: Collection[str],
    endings: Collection[str],
    sources: Collection[str],
) -> None:
    """Refuse settings that nothing reads, for one of our models; warn of the harmless ones.

    A setting that another method of ours reads is harmless, so that several methods can share one
    config file. So are the settings of a modality that the run leaves out: another layer lists it,
    or its source is given.

    Args:
        model: its name.
        given: settings that the user set.
        known: settings that RecBole, the data, the imputer or the model reads.
        of_others: settings that other models and imputers of ours read.
        from_command_line: the settings that RecBole read from the command line of the process.
        modalities: names of the modalities of every layer, those that the run leaves out too.
        endings: endings of the settings of a modality, such as ``_ids``.
        sources: those of them that name a source, such as ``_features``.

    Raises:
        ValueError: naming the nearest known setting.
    """
    given = [str(key) for key in given]
    left_out = {_modality_of(key, sources) for key in given} - {None}
    left_out = {name for name in left_out if name and not did_you_mean(name, modalities)}
    for key in given:
        if key in known:
            continue
        modality = _modality_of(key, endings)
        near = _nearest(key, known, modality, modalities)
        excused = modality in modalities or modality in left_out
        if key not in of_others and not excused:
            if modality and not near:
                near = f" {modality!r} is not in modalities {sorted(modalities)}."
            line = key in from_command_line
            raise ValueError(
                f"Unknown setting {key!r}.{near} Remove it, correct its name, or declare it in the "
                "hyperparameters of your model."
                + (" RecBole reads the whole command line of a program." if line else "")
            )
        getLogger().warning(f"{model}: setting {key!r} is not known here and has no effect.")


def warn_of_likeness(
    model: str,
    given: Iterable[str],
    known: Collection[str],
    choices: Collection[str],
    modalities: Collection[str] = (),
    endings: Collection[str] = (),
) -> None:
    """Warn of settings that look like misspelt ones; any of them may be right.

    Args:
        model: name of a model that is not ours, whose settings are its own affair.
        given: settings that the user set.
        known: settings that RecBole, the model's own YAML file or this package names.
        choices: those of them that a setting may be a misspelling of.
        modalities: names of the modalities.
        endings: endings of the settings of a modality, such as ``_features``.
    """
    for key in map(str, given):
        modality = _modality_of(key, endings)
        if key in known or modality in modalities:
            continue
        near = _nearest(key, choices, modality, modalities)
        if near:
            getLogger().warning(
                f"{model}: {key!r} is a setting of neither RecBole nor recbole_missing.{near}"
            )


def _nearest(
    key: str, known: Collection[str], modality: str | None, modalities: Collection[str]
) -> str:
    """What an unknown setting may mean: that of a modality, or another one; or an empty text."""
    near = "" if modality is None else did_you_mean(modality, modalities)
    return near or did_you_mean(key, known)


def make_plain(values: dict[str, Any]) -> dict[str, str]:
    """Turn paths into text, and find what neither a checkpoint nor the id of a run can hold.

    Args:
        values: settings that the user set; changed in place.

    Returns:
        Setting -> what about it is not plain, in words; empty if all are plain.
    """
    for key, value in values.items():
        if isinstance(value, PurePath):
            values[key] = str(value)
    found = {key: _alien_part(value) for key, value in values.items()}
    return {str(key): part for key, part in found.items() if part is not None}


def refuse_alien(model: str, alien: Mapping[str, str]) -> None:
    """Refuse what :func:`make_plain` found.

    Raises:
        ValueError: naming the setting.
    """
    for key, part in alien.items():
        raise ValueError(
            f"{model}: {key} must be a number, text, True, False, or a list or mapping of these, "
            f"got {part}; write it as text or as a list."
        )


def _alien_part(value: Any) -> str | None:
    """The first part of a value that is no number, text, bool, list or mapping of these."""
    if isinstance(value, Mapping):
        parts = [*value, *value.values()]
    elif type(value) in (list, tuple):
        parts = list(value)
    else:
        kind = type(value)
        of_numpy = kind.__module__ == "numpy" and getattr(value, "ndim", 1) == 0
        plain = value is None or isinstance(value, (bool, int, float, str)) or of_numpy
        return None if plain else f"{' '.join(repr(value).split())[:80]} ({kind.__name__})"
    return next((part for part in map(_alien_part, parts) if part is not None), None)


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
    drawn = protocol in ("random_items", "stratified")
    if drawn and not values["missing_ratio"] and "missing_ratio" not in given:
        raise ValueError(
            f"missing_ratio: must be set with missing_protocol {protocol}, got none, so that "
            "nothing would be hidden; set it, to 0 if that is meant."
        )
    unused = protocol == "file" or (protocol == "none" and "missing_protocol" not in given)
    if "missing_ratio" in given and values["missing_ratio"] and unused:
        raise ValueError(
            f"missing_ratio: must be 0 or unset with missing_protocol {protocol}, got "
            f"{values['missing_ratio']}; set missing_protocol to random_items or stratified."
        )
    if values["repeatable"] and (values["new_items"] != "none" or values["test_mask"] == "train"):
        raise ValueError("repeatable: must be False with new_items or test_mask: train, got True.")


def _modality_of(key: str, endings: Iterable[str]) -> str | None:
    """Return ``image`` for a key like ``image_features``."""
    return next((key[: -len(end)] for end in endings if key.endswith(end) and key != end), None)
