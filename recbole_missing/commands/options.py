"""Options that commands share."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Sequence
from typing import Any

_PREFIX = "imputation_"


def add_imputation(parser: ArgumentParser) -> None:
    """Add ``--set``, ``--missing`` and ``--force``."""
    parser.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="settings of the method, such as layers=20 (imputation_layers in a config file)",
    )
    parser.add_argument(
        "--missing",
        metavar="FILE",
        help="file that says who lacks what, beside the real holes; `none` hides nothing "
        "(default: what the folder's YAML says, or its first missing_items_<ratio>.npy; with "
        "--evaluate: none)",
    )
    parser.add_argument("--force", action="store_true", help="replace former results")


def named(option: str, words: Sequence[str]) -> dict[str, str]:
    """Read ``name=value`` words.

    Raises:
        ValueError: if a word has another form, or a name comes twice.
    """
    found: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not (name and equals and value):
            raise ValueError(f"{option}: must read NAME=VALUE, got {word!r}.")
        if name in found:
            raise ValueError(f"{option}: must name {name} once, got it twice; drop one.")
        found[name] = value
    return found


def imputation_settings(methods: Sequence[str], words: Sequence[str]) -> dict[str, Any]:
    """Read ``--set`` words over the ``imputation_*`` defaults of the package and the methods.

    Args:
        methods: words of the setting ``imputation``, or ``module:Class``; every word of ``--set``
            must be a setting of one of them.
        words: such as ``layers=20``; a value that is not a Python literal is text.

    Raises:
        ValueError: for an unknown method or setting, or a value outside its constraint.
    """
    from recbole_missing.config import constraints as settings
    from recbole_missing.config import defaults
    from recbole_missing.imputation import imputer_defaults, imputer_settings

    overall = defaults.overall()
    values = {key: value for key, value in overall.items() if key.startswith(_PREFIX)}
    for method in methods:
        values.update(imputer_defaults(method))
    declared = {key: rule for method in methods for key, rule in imputer_settings(method).items()}
    chosen = named("--set", words)
    keys = [key[len(_PREFIX) :] for key in declared]
    for key, text in chosen.items():
        if key not in keys:
            raise ValueError(f"--set: {settings.unknown('setting', key, keys)}")
        values[_PREFIX + key] = value(text)
    settings.check("--set", values, {_PREFIX + key: declared[_PREFIX + key] for key in chosen})
    return values


def value(text: str) -> Any:
    """Read the value of a setting, as the settings of a run are read."""
    from recbole_missing.config import values

    return values.read(text)
