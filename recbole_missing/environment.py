"""Whether the requirements of this package are installed in the versions that it needs.

Nothing but the standard library (and `packaging`, if it is there) is imported, so that this works
where the package itself does not.
"""

from __future__ import annotations

import platform
from importlib import metadata

from recbole_missing.version import __version__

_DISTRIBUTION = "recbole-missing"


def requirements() -> list[tuple[bool, str]]:
    """Return for every requirement whether it is met, and a line that says what to do if not.

    A package that runs from a checkout, not installed, declares nothing: one line says so.
    """
    try:
        declared = metadata.requires(_DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        return [(True, f"{_DISTRIBUTION} is not installed (a checkout): versions not checked")]
    return [_check(text) for text in declared if "extra ==" not in text]


def versions() -> dict[str, str]:
    """Versions of Python, of this package and of what its numbers depend on."""
    names = ("recbole", "torch", "numpy", "scipy", "pandas")
    found = {"python": platform.python_version(), _DISTRIBUTION: __version__}
    return {**found, **{name: metadata.version(name) for name in names}}


def problems() -> list[str]:
    """Lines of the requirements that are not met."""
    return [line for met, line in requirements() if not met]


def _check(text: str) -> tuple[bool, str]:
    try:
        from packaging.requirements import Requirement
    except ImportError:
        return False, "MISSING packaging: pip install packaging"
    requirement = Requirement(text)
    try:
        version = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return False, f"MISSING {requirement.name}: pip install '{requirement}'"
    if not requirement.specifier.contains(version, prereleases=True):
        return False, f"WRONG   {requirement.name} {version}: pip install '{requirement}'"
    return True, f"ok      {requirement.name} {version}"
