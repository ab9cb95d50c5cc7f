"""The settings that a checkpoint records, as a run may use them.

Anyone may have made the file. So its settings are data here: only known ones are taken, their
kinds are checked, none is evaluated or imported, and none decides where something is read or
written. Paths, caches and devices are those of the present process.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from recbole.utils import argument_list

from recbole_missing.config import check, constraints, defaults, of_recbole
from recbole_missing.config.constraints import Int, ListOf, Optional, Text
from recbole_missing.data import pretrained
from recbole_missing.data.sources import modality_settings
from recbole_missing.imputation import imputer_settings
from recbole_missing.run_settings import is_ours, package_settings

OF_THIS_PROCESS = frozenset({
    "MODEL_INPUT_TYPE", "MODEL_TYPE", "checkpoint_dir", "config_file", "config_files",
    "data_fingerprint", "data_identity", "data_path", "data_scales", "dataloaders_save_path",
    "dataset", "dataset_save_path", "device", "eval_type", "gpu_id", "ip", "local_rank",
    "log_wandb", "model", "nproc", "offset", "plugin_defaults", "port", "save_dataloaders",
    "save_dataset", "single_spec", "test_neg_sample_args", "use_gpu", "valid_metric_bigger",
    "valid_neg_sample_args", "wandb_project", "worker", "world_size",
})  # fmt: skip
"""Entries of a config that the present process makes itself."""

_START = ("mf_pretrain_path", "mlp_pretrain_path", "pretrain_path", "train_method", "use_pretrain")
"""Settings of RecBole's models for parameters to start with; a checkpoint has the final ones."""

_PATHS = re.compile(r"(.*_)?(path|file|folder|dir|directory|url)|warm_up|xgb_model|lgb_model")
_FILES = ("missing_file", "new_items_file", "imputation_edges_file")
_FILE_ENDINGS = ("features", "ids", "images", "model")
_SUFFIXES = ("benchmark_filename", "additional_feat_suffix", "load_col", "unload_col", "unused_col")
_DERIVE = {
    "metrics": ListOf(Text()),
    "topk": Optional(ListOf(Int(min=1))),
    "valid_metric": Text(),
    "loss_type": Optional(Text()),
}
_OF_EVALUATION = (*of_recbole.OF_EVALUATION, "eval_args", "benchmark_filename")
_WORD = re.compile(r"\w+(@\d+)?")
_UNLISTED = (*of_recbole.UNLISTED, "train_neg_sample_args")  # RecBole lists them nowhere


def check_names(file: str, saved: Mapping[str, Any]) -> None:
    """Refuse names of a model and a data set that are no plain names.

    Raises:
        ValueError: naming the file and the setting.
    """
    model = saved.get("model")
    if not isinstance(model, str) or not all(map(str.isidentifier, re.split("[.:]", model))):
        raise ValueError(f"{file}: model must be the name of a class, got {model!r}.")
    dataset = saved.get("dataset")
    if not isinstance(dataset, str) or not _is_name(dataset):
        raise ValueError(
            f"{file}: dataset must be the name of a data set without a path, got {dataset!r}."
        )


def derivations(file: str, saved: Mapping[str, Any]) -> dict[str, Any]:
    """The settings from which RecBole's ``Config`` derives others.

    Raises:
        ValueError: if one is of another kind.
    """
    found = {key: saved[key] for key in _DERIVE if key in saved}
    constraints.check(file, found, {key: _DERIVE[key] for key in found})
    words = (*found.get("metrics", ()), found.get("valid_metric"), found.get("loss_type"))
    for word in words:
        if word is not None and not _WORD.fullmatch(word):
            raise ValueError(
                f"{file}: metrics, valid_metric and loss_type must be names such as Recall@20, "
                f"got {word!r}."
            )
    of_evaluation = {key: saved[key] for key in _OF_EVALUATION if key in saved}
    if of_evaluation.get("topk", ()) is None:  # metrics without lists
        del of_evaluation["topk"]
    of_recbole.check_evaluation(file, {"eval_args": {}, **of_evaluation})
    if "eval_args" in saved:
        found["eval_args"] = dict(saved["eval_args"])
    return found


def settings(
    file: str, saved: Mapping[str, Any], config: Any, given: Mapping[str, Any]
) -> tuple[dict[str, Any], list[str]]:
    """The settings of a run that this process takes from a checkpoint.

    Args:
        file: path of the checkpoint, for messages.
        saved: settings of the run.
        config: config of the same model, with the defaults of this process.
        given: settings of the user, which win.

    Returns:
        The settings, ``given`` among them, and the names of settings of the model that are left
        out: paths, and text that nothing declares.

    Raises:
        ValueError: if one is of another kind than its default, or leads out of the folder of the
            data set, or if the user gives one that nothing reads.
    """
    defined = config.final_config_dict
    left_out = [key for key in saved if _PATHS.fullmatch(key) and key not in _files(saved)]
    left_out = [key for key in left_out if saved[key] and key not in OF_THIS_PROCESS]
    # RecBole has completed eval_args by its defaults.
    skipped = {*OF_THIS_PROCESS, *_START, *left_out, *given, "eval_args"}
    declared = _declared(config.model_class, saved)
    rules = _of_recbole(config.model_class)
    if defaults.overall().keys() <= {*defined, *saved}:
        rules |= declared
    known = {*defined, *defaults.overall(), *declared, *_UNLISTED}
    known |= {*argument_list.training_arguments, *argument_list.evaluation_arguments}
    known |= {*argument_list.dataset_arguments, *argument_list.general_arguments}
    strange = [key for key in given if key not in known] if is_ours(config.model_class) else ()
    for key in strange:
        near = constraints.did_you_mean(key, known)
        raise ValueError(f"{file}: unknown setting {key!r}.{near} Remove it, or correct its name.")
    found = {key: given[key] for key in given if key not in OF_THIS_PROCESS}
    for key, value in saved.items():
        if key in skipped:
            continue
        if key not in known and not _is_number(value):
            left_out += [] if is_ours(config.model_class) else [key]
            continue
        default = defined.get(key)
        kind = _kind(default)
        if key not in rules and kind and value is not None and _kind(value) != kind:
            raise ValueError(f"{file}: {key} must be {kind} like {default!r}, got {value!r}.")
        found[key] = value
    constraints.check(file, found, {key: rules[key] for key in rules if key in found})
    _check(file, found, config.model_class, given)
    _check_models(file, found, given, Path(config["data_path"]))
    return found, sorted({*left_out} - {*_START, *given})


def _check(file: str, values: Mapping[str, Any], model: type, given: Mapping[str, Any]) -> None:
    check.refuse_code(model, values)
    for key in _files(values):
        value = values.get(key)
        if key not in given and value is not None and not _is_inside(value):
            raise ValueError(
                f"{file}: {key} must lie in the folder of the data set, got {value!r}; a "
                f"checkpoint decides no path: pass --set {key}=FILE, or "
                f"settings={{{key!r}: FILE}} in Python, if you trust it."
            )
    for key in _SUFFIXES:
        names = values.get(key)
        names = names if isinstance(names, (list, tuple, Mapping, type(None))) else [names]
        odd = [name for name in names or () if not _is_name(name)]
        if key not in given and odd:
            raise ValueError(f"{file}: {key} must hold endings of file names, got {odd[0]!r}.")
    if "n_cate" in values and "n_cate" not in given and values["n_cate"] != 1:
        raise ValueError(
            f"{file}: n_cate must be 1, got {values['n_cate']!r}, with which RecBole unpickles "
            "item_emb.npy of the data set; pass --set n_cate=... if you trust that file."
        )


def _check_models(
    file: str, values: Mapping[str, Any], given: Mapping[str, Any], folder: Path
) -> None:
    """Refuse a model of an encoder that would be downloaded because a checkpoint names it."""
    usual = {settings.get("model") for settings in defaults.read("", "encoders").values()}
    for key in _files(values):
        model = values.get(key)
        if not key.endswith("_model") or key in given or model is None or model in usual:
            continue
        if not pretrained.is_here(model, folder):
            raise ValueError(
                f"{file}: {key} must be a model that is on this machine already, got {model!r}; a "
                f"checkpoint decides no download: pass --set {key}={model}, or "
                f"settings={{{key!r}: {model!r}}} in Python, if you trust it."
            )


def _declared(model: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Constraints of our own settings: of package, data, modalities, imputer and model."""
    found = dict(package_settings())
    del found["imputation"]  # the registry of imputers judges that word
    names = values.get("modalities")
    if isinstance(names, (list, tuple)):
        found.update(imputer_settings(values["imputation"]))
        for name in map(str, names):
            found.update(modality_settings(name))
    if is_ours(model):
        own: dict[str, Any] = model.hyperparameters  # type: ignore[attr-defined]
        return {**found, **own}
    return {key: found[key] for key in found if key not in ("preset", "learning_rate_scheduler")}


def _of_recbole(model: type) -> dict[str, Any]:
    """Constraints of RecBole's settings that a model does not declare itself."""
    rules = {**of_recbole.OF_RUNS, **of_recbole.OF_DATA}
    rules["train_neg_sample_args"] = of_recbole.OF_TRAINING["train_neg_sample_args"]
    if is_ours(model):
        rules = of_recbole.OF_OUR_MODELS
    own = getattr(model, "hyperparameters", {})
    return {key: rule for key, rule in rules.items() if key not in own}


def _files(values: Mapping[str, Any]) -> Iterable[str]:
    """Settings that name a file of the data set."""
    names = values.get("modalities")
    names = names if isinstance(names, (list, tuple)) else ()
    return (*_FILES, *(f"{name}_{end}" for name in names for end in _FILE_ENDINGS))


def _is_number(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(_is_number, value))
    return value is None or isinstance(value, (bool, int, float))


def _kind(value: Any) -> str | None:
    """Kind of a value in words; None if it is of no kind."""
    kinds = {
        "a number": (bool, int, float), "text": str, "a list": (list, tuple), "a mapping": Mapping
    }  # fmt: skip
    return next((word for word, kind in kinds.items() if isinstance(value, kind)), None)


def _is_name(text: Any) -> bool:
    return isinstance(text, str) and _is_inside(text) and not set(text) & {"/", "\\", ":"}


def _is_inside(text: Any) -> bool:
    """Tell whether a path stays in the folder it is relative to, on every system."""
    if not isinstance(text, str) or text in ("", ".") or "\0" in text or text.startswith("~"):
        return False
    absolute = PurePosixPath(text).anchor or PureWindowsPath(text).anchor
    return not absolute and not PureWindowsPath(text).drive and ".." not in re.split(r"[/\\]", text)
