"""Where the YAML files lie and what they say; no number is chosen anywhere else."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import yaml

_PACKAGE = Path(__file__).resolve().parents[1]
_ROOTS = (_PACKAGE / "properties", _PACKAGE.parent / "properties")  # installed, or a checkout


def read(kind: str, name: str) -> dict[str, Any]:
    """Content of ``properties/<kind>/<name>.yaml``; empty if there is no such file."""
    return dict(_read(kind, name))


def names(kind: str) -> list[str]:
    """Names of the YAML files of a kind (``model``, ``dataset``, ``benchmark``), sorted."""
    return sorted(path.stem for path in (root() / kind).glob("*.yaml"))


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


def load(path: Path) -> dict[str, Any]:
    """Read a YAML mapping; ``1e-3`` is a number, as in RecBole's own files."""
    with path.open(encoding="utf-8") as file:
        return yaml.load(file, Loader=_Loader) or {}


class _Loader(yaml.SafeLoader):
    """Safe YAML that reads ``1e-3`` as a number, as RecBole's configurator does."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)
