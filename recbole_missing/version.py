"""Versions of this package and of what its numbers depend on."""

from __future__ import annotations

from functools import cache

__version__ = "0.2.0"


def versions() -> dict[str, str]:
    """Versions of Python, of this package and of what its numbers depend on."""
    return dict(_versions())


@cache
def _versions() -> dict[str, str]:
    """Look them up once: it takes some 20 milliseconds, and every checkpoint names them."""
    import platform
    from importlib import metadata  # here, because every import of the package reads the version

    names = ("recbole", "torch", "numpy", "scipy", "pandas")
    found = {"python": platform.python_version(), "recbole-missing": __version__}
    return {**found, **{name: metadata.version(name) for name in names}}


@cache
def installed(distribution: str) -> str | None:
    """Version of an installed distribution, which is not imported; None if it is absent."""
    from importlib import metadata

    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
