"""Whether RecBole and the requirements of this package are there, in the versions that it needs.

Only the standard library and `packaging`, if it is there, are imported. So this works even where a
requirement of the package is absent.
"""

from __future__ import annotations

from importlib import metadata

INSTALL_RECBOLE = "python -m pip install --no-deps recbole==1.2.1"
"""What brings RecBole on every Python.

RecBole demands ``ray<=2.6.3``, of which Python 3.12 and later have no build, so that pip refuses to
install it, and a package that requires it. Without ``--no-deps`` an older Python gets numpy < 2.
What else RecBole requires is required by this package itself (``setup.py``).
"""

EXTRAS = {
    "docs": "build the documentation",
    "encode": "sentence encoders and CLIP",
    "plot": "figures",
    "ray": "benchmark --ray, impute --ray",
    "table": "Parquet files",
    "test": "run the tests",
}
"""Extra of ``setup.py`` -> what it is for."""

_DISTRIBUTION = "recbole-missing"
_RECBOLE = INSTALL_RECBOLE.split()[-1]


def requirements() -> list[tuple[bool, str]]:
    """Check RecBole and every requirement: whether it is met, and a line that says what to do.

    A checkout that is not installed declares no requirements; one line says so. Without
    `packaging`, which compares versions, only RecBole is looked for.
    """
    if not _can_compare():
        missing = (False, "MISSING packaging: python -m pip install packaging")
        return [missing] if _is_there("recbole") else [missing, _absent("recbole", INSTALL_RECBOLE)]
    recbole = _check(_RECBOLE, INSTALL_RECBOLE)
    declared = _declared()
    if declared is None:
        text = f"{_DISTRIBUTION} is not installed (a checkout): other versions not checked"
        return [recbole, (True, text)]
    return [recbole, *(_check(text) for text in declared if _applies(text))]


def extras() -> list[tuple[bool, str]]:
    """Check the requirements of every extra: whether they are met, and a line that says so."""
    found = []
    for extra, use in EXTRAS.items() if _can_compare() else ():
        texts = [t for t in _declared() or () if _applies(t, extra) and not _applies(t)]
        checks = [_check(text) for text in texts]
        lacking = [text for text, (met, _) in zip(texts, checks) if not met]
        if not texts:
            continue
        plain = " ".join(f'"{text.partition(";")[0].strip()}"' for text in lacking)
        state = f"python -m pip install {plain}" if lacking else "ok"
        found.append((not lacking, f"{extra:<7} {use}: {state}"))
    return found


def problems() -> list[str]:
    """Lines of the requirements that are not met."""
    return [line for met, line in requirements() if not met]


def _declared() -> list[str] | None:
    try:
        return metadata.requires(_DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        return None


def _can_compare() -> bool:
    try:
        import packaging.requirements
    except ImportError:
        return False
    return bool(packaging.requirements)


def _is_there(name: str) -> bool:
    try:
        return bool(metadata.version(name))
    except metadata.PackageNotFoundError:
        return False


def _absent(name: str, command: str) -> tuple[bool, str]:
    return False, f"MISSING {name}: {command}"


def _applies(text: str, extra: str = "") -> bool:
    """Whether a requirement counts on this Python, and with an extra."""
    from packaging.requirements import Requirement

    marker = Requirement(text).marker
    return marker is None or marker.evaluate({"extra": extra})


def _check(text: str, command: str = "") -> tuple[bool, str]:
    """Whether a requirement is met, and the line of it; ``command`` installs it."""
    from packaging.requirements import Requirement

    requirement = Requirement(text)
    requirement.marker = None
    command = command or f'python -m pip install "{requirement}"'
    if not _is_there(requirement.name):
        return _absent(requirement.name, command)
    version = metadata.version(requirement.name)
    if not requirement.specifier.contains(version, prereleases=True):
        return False, f"WRONG   {requirement.name} {version}: {command}"
    return True, f"ok      {requirement.name} {version}"
