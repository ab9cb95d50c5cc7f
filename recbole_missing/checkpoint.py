"""Checkpoints that hold only tensors and plain values, so they load with ``weights_only=True``.

RecBole 1.2.1 pickles its whole config into a checkpoint (trainer.py). torch >= 2.6 refuses to load
such a file.
"""

from __future__ import annotations

import random
import sys
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from logging import getLogger
from pathlib import Path
from typing import Any

import numpy as np
import torch
from recbole.config import Config
from recbole.utils import init_logger, init_seed
from scipy import sparse

from recbole_missing import identity, recorded
from recbole_missing.atomic import whole_file
from recbole_missing.config.check import raised_in
from recbole_missing.data import scale
from recbole_missing.data.dataset import MultimodalDataset, imputation_in_force
from recbole_missing.graph.sparse import FORMATS
from recbole_missing.imputation import IMPUTERS
from recbole_missing.memory import fits, is_exhausted, of_config
from recbole_missing.model import MODELS
from recbole_missing.registry import is_address, without_imports
from recbole_missing.version import __version__, versions

_OF_THIS_PROCESS = ("local_rank", "nproc", "world_size", "ip", "port", "offset", "device")
_TRAINER = "trainer"
_LONGEST = 300  # characters of an error in a message
_OF_A_RUN: dict[str, Any] = {
    "epoch": int,
    "cur_step": int,
    "best_epoch": (int, type(None)),
    "best_valid_score": (int, float),
    "best_valid_result": (Mapping, type(None)),
    "history": list,
    "train_loss_dict": Mapping,
    "hidden": Mapping,
    "lost": list,
    "steppers": Mapping,
    "optimizer_in_use": (str, type(None)),
    "random": Mapping,
    "loaders": list,
    "written_by": Mapping,
}
"""Part of the state of a run, beside what every checkpoint holds -> its kind."""
_PARTS_OF_AN_EPOCH = {"epoch", "seconds", "loss"}


def plain(value: Any) -> Any:
    """Reduce a value to None, bool, int, float, str, tensors, and lists and dicts of these.

    Entries of a mapping that :func:`is_plain` refuses are left out.
    """
    if value is None or isinstance(value, (bool, torch.Tensor)):
        return value
    if isinstance(value, str):
        return str(value)  # a subclass may have further attributes
    if isinstance(value, (int, float, np.integer, np.floating, np.bool_)):
        return value.item() if isinstance(value, np.generic) else value
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items() if is_plain(item)}
    return [plain(item) for item in value]


def is_plain(value: Any) -> bool:
    """Tell whether :func:`plain` can keep ``value``."""
    scalars = (bool, int, float, str, np.generic, torch.Tensor)
    if value is None or isinstance(value, Mapping) or type(value) in (list, tuple):
        items = value.values() if isinstance(value, Mapping) else value or ()
        return isinstance(value, Mapping) or all(is_plain(item) for item in items)
    return isinstance(value, scalars) and type(value).__module__ != "recbole.utils.enum_type"


def pack(value: Any) -> Any:
    """Turn arrays and scipy matrices inside a mapping into tensors. :func:`unpack` reverses it.

    RecBole's ItemKNN, EASE and other models have such values in addition to their parameters.
    Modules are left out, because their parameters are in the model's ``state_dict``.
    """
    if isinstance(value, Mapping):
        kept = {key: v for key, v in value.items() if not isinstance(v, torch.nn.Module)}
        return {key: pack(item) for key, item in kept.items()}
    if isinstance(value, np.ndarray):
        return {"array": torch.from_numpy(np.ascontiguousarray(value))}
    if sparse.issparse(value):
        edges = value.tocoo()
        parts = {key: pack(getattr(edges, key)) for key in ("data", "row", "col")}
        return {"sparse": value.format, "shape": list(value.shape), **parts}
    return value


def unpack(value: Any) -> Any:
    """Reverse :func:`pack`.

    Raises:
        ValueError: if something is called an array or a sparse matrix and is none.
    """
    if not isinstance(value, dict):
        return value
    if value.keys() == {"array"}:
        if not isinstance(value["array"], torch.Tensor):
            raise ValueError(f"array: must be a tensor, got a {type(value['array']).__name__}.")
        return value["array"].cpu().numpy()
    items = {key: unpack(item) for key, item in value.items()}
    if "sparse" not in items:
        return items
    parts = [items.get(key) for key in ("data", "row", "col")]
    arrays = all(isinstance(part, np.ndarray) and part.ndim == 1 for part in parts)
    shape = items.get("shape")
    sizes = isinstance(shape, list) and len(shape) == 2 and all(type(n) is int for n in shape)
    if items["sparse"] not in FORMATS or not arrays or not sizes:
        raise ValueError(f"sparse: must be one of {FORMATS} with arrays and a shape, got another.")
    return sparse.coo_matrix((parts[0], (parts[1], parts[2])), shape=shape).asformat(
        items["sparse"]
    )


def save(state: Mapping[str, Any], path: Path) -> None:
    """Write ``state`` to a temporary file, then move it to ``path``.

    So a crash leaves the old file unchanged.
    """
    with whole_file(path) as temporary:
        torch.save(state, temporary)


def load(path: Path, device: Any = "cpu") -> dict[str, Any]:
    """Read a checkpoint. Code that it may contain is never run.

    Returns:
        What was saved, and ``file``, the path.

    Raises:
        ValueError: if the file is absent, damaged or not written by this package, or if it needs an
            imputer from outside that the user has not named or registered in this process.
    """
    if not path.is_file():
        raise ValueError(
            f"{path}: must be a checkpoint, got no such file (a run whose validation never gave a "
            "number writes none); train again, or correct the path."
        )
    try:
        if not _is_archive(path):
            raise ValueError("no zip archive")
        state = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:
        raise ValueError(
            f"{path}: must be a checkpoint of recbole_missing, got {_kind_of(path)}."
        ) from error
    problem = _malformed(state)
    if problem:
        raise ValueError(
            f"{path}: must be a checkpoint of recbole_missing, got a file of torch in which "
            f"{problem}; correct the path, or train again."
        )
    imputation = state["config"].get("imputation")
    if imputation and state["config"].get("modalities"):
        IMPUTERS.recorded(str(imputation), path, "--imputation")
    return {**state, "file": str(path)}


def _kind_of(path: Path) -> str:
    """What a file is that torch cannot read as tensors and plain values, and what to do."""
    with path.open("rb") as file:
        content = file.read(1024)
    if not content:
        return "an empty file; copy it again, or train again"
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            pickles = [name for name in archive.namelist() if name.endswith("data.pkl")]
            content = b"".join(archive.read(name) for name in pickles)
        if b"recbole.config" in content:
            return (
                "one that RecBole wrote without this package (it pickles objects, which are never "
                "read here); train again with `import recbole_missing`"
            )
        if pickles:
            return (
                "one with objects that are no tensors and plain values, which are never read here; "
                "train again if it is yours"
            )
        return "a zip archive of another kind; correct the path"
    if content.startswith(b"PK"):
        size = path.stat().st_size
        return f"a file whose end is lost ({size:,} bytes); copy it again, or train again"
    if b"\0" not in content and not content.startswith(b"\x80"):
        return "a text file; correct the path"
    return "a file of another kind, or a damaged one; correct the path, or train again"


def _malformed(state: Any) -> str | None:
    """What a state lacks to be one of ours; None if it lacks nothing."""
    if not isinstance(state, dict):
        return f"there is a {type(state).__name__}"
    for key in ("config", "state_dict"):
        if not isinstance(state.get(key), Mapping):
            return f"there is no {key}"
    config, parameters = state["config"], state["state_dict"]
    if not all(isinstance(key, str) and is_plain(value) for key, value in config.items()):
        return "config holds more than plain values"
    if not all(isinstance(value, torch.Tensor) for value in parameters.values()):
        return "state_dict holds more than tensors"
    if not isinstance(state.get("other_parameter"), (Mapping, type(None))):
        return "other_parameter is no mapping"
    if not isinstance(state.get("model_class"), (str, type(None))):
        return "model_class is no text"
    if not isinstance(config.get("data_identity"), (Mapping, type(None))):
        return "data_identity is no mapping"
    return None


@contextmanager
def refused_as(text: str) -> Iterator[None]:
    """Run a body that uses a part of a file; if that fails, refuse the file.

    Errors of the system, absent packages, refusals of this package and memory that runs out are
    raised as they are.

    Args:
        text: the file and what is wrong with it; the error and what to do are added.

    Raises:
        ValueError: from any other error.
    """
    try:
        yield
    except Exception as error:
        ours = isinstance(error, ValueError) and raised_in(error, "recbole_missing.")
        if ours or isinstance(error, (OSError, ImportError)) or is_exhausted(error):
            raise
        words = " ".join(f"{type(error).__name__}: {error}".split())
        raise ValueError(f"{text}: {words[:_LONGEST]}; train again.") from error


def check_whole(file: str, state: Mapping[str, Any]) -> None:
    """Check that a file holds every part of the state of a run, each of its kind.

    Args:
        file: its path, for messages.
        state: what :func:`load` returned.

    Raises:
        ValueError: naming the first part that is absent or of another kind.
    """
    must = f"{file}: must hold the whole state of a run"
    if "hidden" not in state:
        raise ValueError(f"{must}, got a checkpoint of an older version; train again.")
    for part, kinds in _OF_A_RUN.items():
        if part not in state:
            raise ValueError(f"{must}, got no {part}; train again.")
        if not isinstance(state[part], kinds):
            kind = type(state[part]).__name__
            raise ValueError(f"{must}, got a bad {part}: a {kind}; train again.")
    entries = all(isinstance(entry, Mapping) for entry in state["history"])
    if not entries or not all(entry.keys() >= _PARTS_OF_AN_EPOCH for entry in state["history"]):
        raise ValueError(f"{must}, got a bad history: epochs without parts; train again.")
    if not all(isinstance(epoch, int) for epoch in state["train_loss_dict"]):
        raise ValueError(f"{must}, got a bad train_loss_dict: no numbers of epochs; train again.")
    for part in ("source", "machine"):
        if not isinstance(state["written_by"].get(part), Mapping):
            raise ValueError(f"{must}, got a bad written_by: no {part}; train again.")
    if not isinstance(state.get("noted"), (Mapping, type(None))):
        raise ValueError(f"{must}, got a bad noted: no mapping; train again.")


def _is_archive(path: Path) -> bool:
    """Tell whether torch will read a file as a zip archive, as it writes them.

    It also reads older formats. In one of them, torch before 2.6 unpickles objects whatever
    ``weights_only`` says (CVE-2025-32434).
    """
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def random_state() -> dict[str, Any]:
    """State of the random generators of a training, as tensors and plain values."""
    kind, keys, position, has_gauss, gauss = np.random.get_state()
    version, internal, gauss_next = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [kind, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, gauss],
        "python": [version, list(internal), gauss_next],
    }


def set_random_state(state: Mapping[str, Any]) -> None:
    """Restore the state that :func:`random_state` returned."""
    torch.set_rng_state(state["torch"].cpu())
    if len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([generator.cpu() for generator in state["cuda"]])
    kind, keys, position, has_gauss, gauss = state["numpy"]
    if not 0 <= position <= len(keys):  # numpy would read beyond its memory
        raise ValueError(f"numpy: position must be between 0 and {len(keys)}, got {position!r}.")
    np.random.set_state((kind, keys.cpu().numpy().astype(np.uint32), position, has_gauss, gauss))
    version, internal, gauss_next = state["python"]
    random.setstate((version, tuple(internal), gauss_next))


def config_state(config: Any) -> dict[str, Any]:
    """Settings of a run, from which another process can rebuild the config.

    ``data_path`` says where the data were, for messages; no other process reads anything there.
    """
    values = plain(config.final_config_dict)
    values["data_path"] = str(Path(config["data_path"]).resolve())
    return {key: value for key, value in values.items() if key not in _OF_THIS_PROCESS}


@contextmanager
def no_command_line() -> Iterator[None]:
    """Hide the command line of this process, because RecBole's ``Config`` reads settings there."""
    argv, sys.argv = sys.argv, sys.argv[:1]
    try:
        yield
    finally:
        sys.argv = argv


def rebuild_config(
    state: Mapping[str, Any],
    model: Any = None,
    data_path: Any = None,
    settings: Mapping[str, Any] | None = None,
    file: str = "config of a saved run",
) -> Config:
    """Rebuild the config of a saved run. The command line of this process is not read.

    The settings of the run are data (:mod:`recbole_missing.recorded`). No code that they name is
    imported: a model by address must be passed.

    Args:
        state: settings of the run, as :func:`config_state` made them.
        model: class of a model from outside; None means the model with the saved name.
        data_path: folder of the data set folders; None means RecBole's default, ``dataset``.
        settings: settings of the user, which win over those of the run.
        file: path of the checkpoint, for messages.

    Raises:
        ValueError: if a setting is not of its kind, leads out of the folder of the data set, or
            names code that the user has not handed over.
    """
    return _rebuilt(file, state, model, data_path, dict(settings or {}))[0]


def _rebuilt(
    file: str, state: Mapping[str, Any], model: Any, data_path: Any, given: dict[str, Any]
) -> tuple[Config, list[str]]:
    """The config of a saved run, and the settings that were left out."""
    recorded.check_names(file, state)
    if model is None and is_address(state["model"]):
        model = MODELS.recorded(state["model"], file, "--model")
    # RecBole derives other settings from these, or refuses its own default (SASRec).
    needed = recorded.derivations(file, state)
    needed.update(train_neg_sample_args=None, modalities=None)
    needed.update(_known_metrics(needed))
    needed.update({key: given[key] for key in given if key in recorded.OF_THIS_PROCESS})
    if data_path is not None:
        needed["data_path"] = str(data_path)
    with no_command_line(), without_imports():
        config = Config(model or state["model"], state["dataset"], config_dict=needed)
        found, left_out = recorded.settings(file, state, config, given)
    for values in (config.final_config_dict, config.external_config_dict):
        del values["modalities"]
        values.update(found)
    return config, left_out


def _known_metrics(state: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics that RecBole's ``Config`` accepts in this process, for one that does not evaluate.

    A metric from outside may be unknown here. It stays in the settings, so that an evaluation asks
    for it, and is no obstacle to anything else.
    """
    from recbole.evaluator import metrics_dict

    words = [str(word) for word in state.get("metrics", ())]
    if all(word.lower() in metrics_dict for word in words):
        return {}
    largest = max(state.get("topk") or (10,))
    return {"metrics": ["Recall"], "valid_metric": f"Recall@{largest}"}


def outside_model(state: Mapping[str, Any], path: str) -> type | None:
    """Return the model class from outside that a checkpoint needs; None if it needs none.

    Raises:
        ValueError: if the user has not named or registered that class in this process.
    """
    name = str(state["config"].get("model"))
    word = state.get("model_class") or (name if is_address(name) else None)
    return None if word is None else MODELS.recorded(word, path, "--model")


def check_data(path: str, saved: Mapping[str, Any], config: Any) -> None:
    """Check that the data are those that the model was trained on.

    With other data the ids and features of the model would not fit.

    Args:
        path: path of the checkpoint.
        saved: config of the checkpoint.
        config: config of this run, after its data are built.

    Raises:
        ValueError: if the catalogue, the split, the features, the masks, the imputation or the
            scales differ; it names them. Also if the checkpoint does not say what it was trained
            on.
    """
    built = config["data_identity"]
    if built is None:  # RecBole knows no users and items in these data
        return
    if saved.get("data_identity") is None:
        raise ValueError(
            f"{path}: must say which data it was trained on, got a checkpoint of an older version; "
            "train again."
        )
    modalities = identity.reads_modalities(config.model_class)
    parts = [identity.parts_in_force(one, modalities) for one in (saved["data_identity"], built)]
    found = [f"another {words}" for words in identity.differing(*parts)]
    one, other = (_imputation(values, config) for values in (saved, config.final_config_dict))
    for key in sorted({*one, *other}):
        if one.get(key) != other.get(key):
            found.append(f"{key} {other.get(key)!r} instead of {one.get(key)!r}")
    if modalities:
        scales = saved.get("data_scales"), config["data_scales"] or {}
        found += scale.differing(*scales)
    if found:
        raise ValueError(
            f"{path}: must meet the data that it was trained on, got {', '.join(found)} in "
            f"{config['data_path']}; restore these, or train again."
        )


def _imputation(values: Mapping[str, Any], config: Any) -> dict[str, Any]:
    found: dict[str, Any] = plain(imputation_in_force(values, config.model_class))
    return found


def note_data(config: Any, loader: Any) -> None:
    """Write identity and scales of a dataloader's data into the config, also from a cache."""
    config["data_identity"] = getattr(loader._dataset, "identity", None)
    config["data_scales"] = scale.states(getattr(loader._dataset, "scales", {}))


def written_by(config: Any) -> dict[str, Any]:
    """What wrote a checkpoint.

    Args:
        config: RecBole's config of the run.

    Returns:
        ``version`` of this package; ``source``, hashes of the code of model, imputer, data and
        trainer; ``machine``, what decides the last digits of a result.
    """
    model = config.model_class
    parts: dict[str, tuple[Any, ...]] = {f"model {config['model']}": (model,)}
    imputer = imputation_in_force(config, model).get("imputation")
    if imputer:
        parts[f"imputer {imputer}"] = (IMPUTERS.resolve(imputer),)
    parts["data set"] = (MultimodalDataset, "recbole_missing.data.sampling")
    parts[_TRAINER] = ("recbole_missing.trainer",)
    machine = {
        **versions(),
        "device": torch.device(config["device"]).type,
        "threads": torch.get_num_threads(),
    }
    source = {word: _source(*roots) for word, roots in parts.items()}
    return {"version": __version__, "source": source, "machine": machine}


@cache
def _source(*roots: type | str) -> str | None:
    """Hash of the code of some roots, as it was when this process first asked."""
    return identity.of_source(*roots)


def check_writer(path: Any, state: Mapping[str, Any], config: Any) -> None:
    """Warn if a checkpoint was written by another version, or by other code of model or data.

    Args:
        path: path of the checkpoint.
        state: what :func:`load` returned.
        config: config of this run, of the same model.
    """
    writer = _other_writer(state, config)
    if writer:
        getLogger().warning(_writer_remark(path, writer))


def _writer_remark(path: Any, writer: str) -> str:
    return f"{path}: was written by other code: {writer}; scores may differ."


def _other_writer(state: Mapping[str, Any], config: Any) -> str | None:
    """How the writer of a checkpoint differs from this process, in words; None if it does not.

    The trainer does not count: it decides no score of a trained model.
    """
    saved = state.get("written_by")
    if not isinstance(saved, Mapping) or not isinstance(saved.get("source"), Mapping):
        return "an older version of this package, which did not record itself"
    words = []
    if saved.get("version") != __version__:
        words.append(f"version {str(saved.get('version'))!r} instead of {__version__}")
    code = [word for word in other_code(state, config) if not word.endswith(_TRAINER)]
    return ", ".join([*words, *code]) or None


def other_code(state: Mapping[str, Any], config: Any) -> list[str]:
    """The code that differs from what wrote a checkpoint, in words.

    Args:
        state: what :func:`load` returned, with ``written_by``.
        config: config of this run, of the same model.
    """
    saved, words = state["written_by"]["source"], []
    for name, source in written_by(config)["source"].items():
        if source is None or saved.get(name) is None:
            words.append(f"a source of the {name} that cannot be compared")
        elif source != saved[name]:
            words.append(f"another source of the {name}")
    return words


def fill(model: Any, state: Mapping[str, Any], config: Any) -> None:
    """Put the parameters of a checkpoint into a model.

    Args:
        model: the model.
        state: what :func:`load` returned.
        config: config of this run.

    Raises:
        ValueError: if they are not those of the model; it says which, and what wrote the file.
    """
    file, saved = state.get("file", "checkpoint"), state["state_dict"]
    try:
        model.load_state_dict(saved)
    except RuntimeError as error:
        writer = _other_writer(state, config)
        after = f" (written by {writer})" if writer else ""
        raise ValueError(
            f"{file}: must hold the parameters of {config['model']}, got "
            f"{_unlike(saved, model.state_dict()) or 'others'}{after}; use the code and the "
            "settings that wrote it, or train again."
        ) from error
    try:
        others = unpack(state.get("other_parameter")) or {}
    except ValueError as error:
        raise ValueError(f"{file}: must be whole, got a bad {error} Train again.") from error
    own = getattr(model, "other_parameter_name", None) or model.other_parameter()
    strange = others.keys() - {*own}
    if strange:
        raise ValueError(
            f"{file}: must hold what {config['model']} keeps beside its parameters, got "
            f"{sorted(map(str, strange))[:5]}; train again."
        )
    model.load_other_parameter(others)


def _unlike(saved: Mapping[str, Any], own: Mapping[str, Any]) -> str:
    """Differences of two state_dicts in words, with counts and the first of each kind."""
    shapes = {key: (saved[key].shape, own[key].shape) for key in own if key in saved}
    torn = [f"{key} {tuple(a)} instead of {tuple(b)}" for key, (a, b) in shapes.items() if a != b]
    absent = [key for key in own if key not in saved]
    unknown = [str(key) for key in saved if key not in own]
    kinds = {"absent": absent, "unknown": unknown, "of another shape": torn}
    return "; ".join(f"{len(found)} {kind}: {found[0]}" for kind, found in kinds.items() if found)


def load_data_and_model(
    model_file: str, data_path: Any = None, settings: Mapping[str, Any] | None = None
) -> tuple[Any, Any, Any, Any, Any, Any]:
    """Load a checkpoint of this package. It replaces RecBole's function of this name.

    Nothing in the file is evaluated or imported, and it decides no path. The data are looked for
    where this process has them. One warning says so if another version of this package, or other
    code of the model or the imputer, wrote the file.

    Args:
        model_file: path of the checkpoint.
        data_path: folder of the data set folders; None means RecBole's default, ``dataset``.
            ``ml-100k`` comes with RecBole.
        settings: settings that win over those of the run, such as paths of files that do not lie
            in the folder of the data set.

    Returns:
        config, model, dataset, train_data, valid_data, test_data, as RecBole returns them. The
        model gives the same scores as when it was saved.

    Raises:
        ValueError: if the file is not such a checkpoint, the data are absent or have changed since,
            the settings or the parameters do not fit, or it needs a class from outside that the
            user has not named or registered in this process.
    """
    remarks, found = restored(load(Path(model_file)), data_path, settings)
    for remark in remarks:
        getLogger().warning(remark)
    return found


def restored(
    state: Mapping[str, Any], data_path: Any = None, settings: Mapping[str, Any] | None = None
) -> tuple[list[str], tuple[Any, Any, Any, Any, Any, Any]]:
    """Remarks on a checkpoint, and its model and data.

    Args:
        state: what :func:`load` returned.
        data_path, settings: see :func:`load_data_and_model`.

    Returns:
        One sentence for each remark, and what :func:`load_data_and_model` returns.

    Raises:
        ValueError: as :func:`load_data_and_model`.
    """
    from recbole.data import create_dataset, data_preparation
    from recbole.utils import get_model

    file, saved = state["file"], state["config"]
    model_class = outside_model(state, file)
    config, left_out = _rebuilt(file, saved, model_class, data_path, dict(settings or {}))
    _check_folder(file, saved, config)
    with refused_as(f"{file}: its settings do not fit {config['model']}"):
        init_seed(config["seed"], config["reproducibility"])
        init_logger(config)
        getLogger().info(config)
        with fits(f"data set {config['dataset']!r}: its tables and features", {}):
            dataset = create_dataset(config)
            getLogger().info(dataset)
            train_data, valid_data, test_data = data_preparation(config, dataset)
        note_data(config, train_data)
        check_data(file, saved, config)
        init_seed(config["seed"], config["reproducibility"])
        with fits(f"{config['model']}: the model", of_config(config, "embedding_size", "knn_k")):
            network = get_model(config["model"])(config, train_data._dataset)
            model = network.to(config["device"])
    fill(model, state, config)
    writer = _other_writer(state, config)
    remarks = [_writer_remark(file, writer)] if writer else []
    if left_out:
        remarks.append(
            f"{file}: {', '.join(left_out)} of the run not taken from the checkpoint, as nothing "
            "declares them or they are paths; pass them with --set, or `settings` in Python."
        )
    return remarks, (config, model, dataset, train_data, valid_data, test_data)


def _check_folder(file: str, saved: Mapping[str, Any], config: Any) -> None:
    """Refuse data that are absent. RecBole would ask whether to download some."""
    folder = Path(config["data_path"])
    if folder.is_dir():
        return
    raise ValueError(
        f"{file}: its data set {config['dataset']!r} must be in {folder.parent}, got no such "
        f"folder (the run read it in {str(saved.get('data_path'))!r}); say where with "
        "--data-path, or with data_path in Python."
    )
