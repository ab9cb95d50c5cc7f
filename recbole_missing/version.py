"""Versions of this package and of what its numbers depend on."""

from __future__ import annotations

import platform
from importlib import metadata

__version__ = "0.1.0"


def versions() -> dict[str, str]:
    """Versions of Python, of this package and of what its numbers depend on."""
    names = ("recbole", "torch", "numpy", "scipy", "pandas")
    found = {"python": platform.python_version(), "recbole-missing": __version__}
    return {**found, **{name: metadata.version(name) for name in names}}
