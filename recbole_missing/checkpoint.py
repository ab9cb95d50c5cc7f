"""Checkpoints that hold only tensors and plain values, so they load with ``weights_only=True``.

RecBole 1.2.1 pickles its whole config into a checkpoint (trainer.py). torch >= 2.6 refuses to load
such a file.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from logging import getLogger
from pathlib import Path
from typing import Any

import numpy as np
import torch
from recbole.config import Config
from recbole.utils import init_logger, init_seed
from scipy import sparse

from recbole_missing import identity
from recbole_missing.atomic import whole_file
from recbole_missing.data.dataset import imputation_in_force
from recbole_missing.imputation import IMPUTERS
from recbole_missing.model import MODELS
from recbole_missing.registry import is_address

_OF_THIS_PROCESS = ("local_rank", "nproc", "world_size", "ip", "port", "offset", "device")


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
    """Reverse :func:`pack`."""
    if not isinstance(value, dict):
        return value
    if value.keys() == {"array"}:
        return value["array"].cpu().numpy()
    items = {key: unpack(item) for key, item in value.items()}
    if "sparse" not in items:
        return items
    edges = (items["data"], (items["row"], items["col"]))
    return sparse.coo_matrix(edges, shape=items["shape"]).asformat(items["sparse"])


def save(state: Mapping[str, Any], path: Path) -> None:
    """Write ``state`` to a temporary file, then move it to ``path``.

    So a crash leaves the old file unchanged.
    """
    with whole_file(path) as temporary:
        torch.save(state, temporary)


def load(path: Path, device: Any = "cpu") -> dict[str, Any]:
    """Read a checkpoint. Code that it may contain is never run.

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
            f"{path}: must be a checkpoint of recbole_missing (tensors and plain values), got "
            f"{type(error).__name__}; train again with the plugin imported."
        ) from error
    if not isinstance(state, dict) or not isinstance(state.get("config"), dict):
        raise ValueError(f"{path}: must hold a config and a state_dict; train again.")
    imputation = state["config"].get("imputation")
    if imputation and state["config"].get("modalities"):
        IMPUTERS.recorded(imputation, path, "--imputation")
    return state


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
    np.random.set_state((kind, keys.cpu().numpy().astype(np.uint32), position, has_gauss, gauss))
    version, internal, gauss_next = state["python"]
    random.setstate((version, tuple(internal), gauss_next))


def config_state(config: Any) -> dict[str, Any]:
    """Settings of a run, from which another process can rebuild the config."""
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


def rebuild_config(state: Mapping[str, Any], model: Any = None) -> Config:
    """Rebuild the config of a saved run. The command line of this process is not read.

    No code that the settings name is imported: the modalities and the imputer are put in after
    RecBole's ``Config`` is made, and a model by address must be passed.

    Args:
        state: settings of the run, as :func:`config_state` made them.
        model: class of a model from outside; None means the model with the saved name.

    Raises:
        ValueError: if the saved name is an address that the user has not handed over.
    """
    if model is None and is_address(str(state["model"])):
        model = MODELS.recorded(str(state["model"]), "config of a saved run", "--model")
    # RecBole derives other settings from these, or refuses its own default (SASRec).
    derives = ("metrics", "topk", "valid_metric", "eval_args", "loss_type")
    needed = {key: state[key] for key in derives if key in state}
    needed.update(train_neg_sample_args=None, modalities=None)
    needed.update(_known_metrics(state))
    with no_command_line():
        config = Config(model or state["model"], state["dataset"], config_dict=needed)
    for values in (config.final_config_dict, config.external_config_dict):
        del values["modalities"]
        values.update(state, model=config.model)
    return config


def _known_metrics(state: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics that RecBole's ``Config`` accepts in this process, for one that does not evaluate.

    A metric from outside may be unknown here. It stays in the settings, so that an evaluation asks
    for it, and is no obstacle to anything else.
    """
    from recbole.evaluator import metrics_dict

    words = [str(word) for word in state.get("metrics", ())]
    if all(word.lower() in metrics_dict for word in words):
        return {}
    return {"metrics": ["Recall"], "valid_metric": f"Recall@{max(state['topk'])}"}


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
        ValueError: if the catalogue, the split, the features, the masks or the imputation differ;
            it names them. Also if the checkpoint does not say what it was trained on.
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
    if found:
        raise ValueError(
            f"{path}: must meet the data that it was trained on, got {', '.join(found)} in "
            f"{config['data_path']}; restore these, or train again."
        )


def _imputation(values: Mapping[str, Any], config: Any) -> dict[str, Any]:
    found: dict[str, Any] = plain(imputation_in_force(values, config.model_class))
    return found


def note_data(config: Any, loader: Any) -> None:
    """Write the identity of a dataloader's data into the config, also if it is from a cache."""
    config["data_identity"] = getattr(loader._dataset, "identity", None)


def load_data_and_model(model_file: str) -> tuple[Any, Any, Any, Any, Any, Any]:
    """Load a checkpoint of this package. It replaces RecBole's function of this name.

    Args:
        model_file: path of the checkpoint.

    Returns:
        config, model, dataset, train_data, valid_data, test_data, as RecBole returns them. The
        model gives the same scores as when it was saved.

    Raises:
        ValueError: if the file is not such a checkpoint, the data have changed since, or it needs a
            class from outside that the user has not named or registered in this process.
    """
    from recbole.data import create_dataset, data_preparation
    from recbole.utils import get_model

    state = load(Path(model_file))
    config = rebuild_config(state["config"], outside_model(state, model_file))
    init_seed(config["seed"], config["reproducibility"])
    init_logger(config)
    getLogger().info(config)
    dataset = create_dataset(config)
    getLogger().info(dataset)
    train_data, valid_data, test_data = data_preparation(config, dataset)
    note_data(config, train_data)
    check_data(model_file, state["config"], config)
    init_seed(config["seed"], config["reproducibility"])
    model = get_model(config["model"])(config, train_data._dataset).to(config["device"])
    model.load_state_dict(state["state_dict"])
    model.load_other_parameter(unpack(state.get("other_parameter")))
    return config, model, dataset, train_data, valid_data, test_data
