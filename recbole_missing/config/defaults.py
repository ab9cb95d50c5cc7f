"""Defaults of settings: the YAML files of ``properties/``, their layers, released values.

No number is chosen anywhere else. Order of override, as RecBole users know it: command line > dict
> config files > our YAML of the data set > our YAML of the model, with the values released for the
data set > our ``overall.yaml`` > RecBole.
"""

from __future__ import annotations

import copy
import re
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

_PACKAGE = Path(__file__).resolve().parents[1]
_ROOTS = (_PACKAGE / "properties", _PACKAGE.parent / "properties")  # installed, or a checkout

BY_MODALITIES = "by_modalities"
"""Key of a preset: number of modalities -> values that hold from this number on."""


def read(kind: str, name: str) -> dict[str, Any]:
    """Content of ``properties/<kind>/<name>.yaml``; empty if that file does not exist."""
    return dict(_read(kind, name))


def names(kind: str) -> list[str]:
    """Names of the YAML files of a kind (``model``, ``dataset``, ``benchmark``), sorted."""
    return sorted(path.stem for path in (root() / kind).glob("*.yaml"))


def overall() -> dict[str, Any]:
    """Content of ``properties/overall.yaml``."""
    return read("", "overall")


def of_class(cls: type, known: Mapping[str, Any]) -> dict[str, Any]:
    """Defaults that a model class brings, its ``presets`` among them.

    They are those of the first class among itself and its bases that has any: a class attribute
    ``properties`` (a dict, or the path of a YAML file), or the YAML file of a model of ours.

    Args:
        cls: any model.
        known: name -> class of the models that have a YAML file.
    """
    for base in cls.__mro__:
        own = vars(base).get("properties")
        if own is not None:
            return of_properties(base, own)
        if base.__name__ in known and known[base.__name__] is base:
            return read("model", base.__name__)
    return {}


def of_properties(cls: type, own: Any) -> dict[str, Any]:
    """Content of a class attribute ``properties``: a dict, or the path of a YAML file.

    A relative path is one beside the module of the class that states it.

    Raises:
        ValueError: if there is no such file.
    """
    if isinstance(own, Mapping):
        return dict(own)
    owner = next((base for base in cls.__mro__ if "properties" in vars(base)), cls)
    module = getattr(sys.modules.get(owner.__module__), "__file__", None)
    path = (Path(module).parent if module else Path()) / own
    if not path.is_file():
        raise ValueError(
            f"{cls.__name__}: properties must be a dict or a YAML file beside the module of the "
            f"class, got {path}; correct the path."
        )
    return load(path)


def of_run(
    model: str,
    of_model: Mapping[str, Any],
    dataset: str,
    preset: str,
    n_modalities: int,
    imputer: Mapping[str, Any],
) -> dict[str, Any]:
    """Every default of a run, the layers merged.

    Args:
        model: name of the model, for the message.
        of_model: what :func:`of_class` returned.
        dataset: name of the data set.
        preset: ``auto`` (values released for this very data set), ``none``, or a name in
            ``of_model["presets"]``, whose values then also override the data set's YAML.
        n_modalities: number of modalities of the run (:func:`fitting`).
        imputer: defaults of an imputer from outside.

    Returns:
        Setting -> default; ``preset`` is the name whose values are in force, or ``none``.

    Raises:
        ValueError: if the model has no values of that name.
    """
    plain = {key: value for key, value in of_model.items() if key != "presets"}
    presets = of_model.get("presets", {})
    found = preset
    if preset == "auto":
        found = dataset if dataset in presets else "none"
    if found not in ("none", *presets):
        choices = ", ".join(["auto", "none", *presets])
        raise ValueError(f"{model}: preset must be one of {choices}, got {preset!r}.")
    released = {**fitting(presets.get(found, {}), n_modalities), "preset": found}
    layers = [overall(), imputer, plain, released, read("dataset", dataset)]
    if preset != "auto":
        layers.append(released)
    return {key: value for layer in layers for key, value in layer.items()}


def fitting(preset: Mapping[str, Any], n_modalities: int) -> dict[str, Any]:
    """Values of a preset for a number of modalities.

    Released code has one path for two modalities and another one for three. Where they differ, a
    preset has :data:`BY_MODALITIES`: number of modalities -> further values. The values of the
    largest number that the run reaches hold; with fewer modalities, those of the smallest one.
    """
    values = {key: value for key, value in preset.items() if key != BY_MODALITIES}
    paths = preset.get(BY_MODALITIES, {})
    if paths:
        reached = [number for number in paths if number <= n_modalities]
        values |= paths[max(reached) if reached else min(paths)]
    return values


def root() -> Path:
    """Folder that holds ``overall.yaml``.

    Raises:
        ValueError: if it is neither in the installed package nor in the checkout.
    """
    for folder in _ROOTS:
        if (folder / "overall.yaml").is_file():
            return folder
    raise ValueError(
        f"recbole_missing: overall.yaml must lie in one of {[str(f) for f in _ROOTS]}, "
        "found none; reinstall the package."
    )


@cache
def _read(kind: str, name: str) -> dict[str, Any]:
    path = root() / kind / f"{name}.yaml"
    return load(path) if path.is_file() else {}


def of_recbole(file: str) -> dict[str, Any]:
    """Content of a YAML file that RecBole brings, a copy of one's own."""
    state = Path(file).stat()
    return copy.deepcopy(_parsed(file, state.st_mtime_ns, state.st_size))


@cache
def _parsed(file: str, changed: int, size: int) -> dict[str, Any]:
    content = yaml.load(Path(file).read_text(encoding="utf-8"), Loader=Loader)
    return content or {}


def load(path: Path) -> dict[str, Any]:
    """Read a YAML mapping; ``1e-3`` is a number, as in RecBole's own files. No tag makes an object.

    Raises:
        ValueError: if the file is not a YAML mapping in UTF-8, or has a tag such as
            ``!!python/name``.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=Loader) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).replace("<unicode string>", path.name).split())
        raise ValueError(f"{path}: must be YAML, got: {reason}; correct the file.") from error
    if not isinstance(content, dict):
        raise ValueError(
            f"{path}: must hold keys and values as `key: value`, got a {type(content).__name__}; "
            "correct the file."
        )
    return content


class Loader(yaml.SafeLoader):
    """Safe YAML that reads ``1e-3`` as a number, as RecBole's configurator does."""


Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)
