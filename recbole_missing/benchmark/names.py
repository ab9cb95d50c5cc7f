"""What the names in a grid stand for: data sets on disk, models in or outside the package."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import sys
from pathlib import Path
from typing import Any

import recbole

from recbole_missing import plugin


def dataset_folder(dataset: str, data_path: Path) -> Path:
    """Where a data set lies; ``ml-100k`` comes with RecBole."""
    if dataset == "ml-100k":
        return Path(recbole.__file__).parent / "dataset_example" / dataset
    return data_path / dataset


def model_of(name: str) -> Any:
    """A model's name, or its class where the name is ``module:Class`` (or ``module.Class``).

    Raises:
        ValueError: if there is no such module or class.
    """
    module, separator, attribute = name.replace(":", ".").rpartition(".")
    if not separator:
        return name
    if "" not in sys.path:
        sys.path.insert(0, "")  # modules of the current folder, as `python -m` finds them
    try:
        return plugin.register_model(getattr(importlib.import_module(module), attribute))
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"model: {name!r} must be module:Class of something importable, got: {error}."
        ) from error


def source_of(name: str) -> str:
    """Where a model outside the package comes from, and the hash of that file."""
    source = inspect.getsourcefile(model_of(name))
    content = Path(source).read_bytes() if source else b""
    return f"{name} {hashlib.blake2b(content, digest_size=8).hexdigest()}"
