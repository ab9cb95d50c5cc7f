"""Whether the requirements of this package are installed in the versions that it needs.

Only the standard library and `packaging`, if it is there, are imported. So this works even where a
requirement of the package is absent.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

_DISTRIBUTION = "recbole-missing"


def requirements() -> list[tuple[bool, str]]:
    """Check every requirement: whether it is met, and a line that says what to do if it is not.

    A checkout that is not installed declares no requirements; one line says so.
    """
    try:
        declared = metadata.requires(_DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        return [(True, f"{_DISTRIBUTION} is not installed (a checkout): versions not checked")]
    return [_check(text) for text in declared if "extra ==" not in text]


def problems() -> list[str]:
    """Lines of the requirements that are not met."""
    return [line for met, line in requirements() if not met]


@contextmanager
def of_workers(threads: int) -> Iterator[None]:
    """What processes started meanwhile inherit: the modules of this one, and so many threads."""
    paths = os.pathsep.join(path or str(Path.cwd()) for path in sys.path)
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    inherited = {"PYTHONPATH": paths, **dict.fromkeys(names, str(threads))}
    before = {name: os.environ.get(name) for name in inherited}
    os.environ.update(inherited)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


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
