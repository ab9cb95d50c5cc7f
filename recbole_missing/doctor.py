"""`recbole-missing doctor`: is this machine fit, and what can the package do."""

from __future__ import annotations

import platform
import textwrap
from importlib import metadata

import torch
from packaging.requirements import Requirement

from recbole_missing import cards
from recbole_missing.version import __version__

_DISTRIBUTION = "recbole-missing"


def report(width: int = 100) -> str:
    """Text about the environment, every model and every imputer.

    Args:
        width: columns of a line.
    """
    sections = [
        f"recbole_missing {__version__} on Python {platform.python_version()}, {_device()}",
        "\n".join(environment()),
        _listing("Models (--model=NAME)", cards.models(), width),
        _listing("Imputation (--imputation=WORD)", cards.imputers(), width),
    ]
    return "\n\n".join(sections)


def markdown() -> str:
    """Both tables of the README."""
    return "\n\n".join([cards.model_table(cards.models()), cards.imputer_table(cards.imputers())])


def environment() -> list[str]:
    """One line a declared requirement: what is installed, and whether it is in range."""
    try:
        declared = metadata.requires(_DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        return ["not installed (run from a checkout): versions of the requirements not checked"]
    lines = []
    for requirement in map(Requirement, declared):
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            lines.append(f"MISSING  {requirement}: pip install '{requirement}'")
            continue
        fits = requirement.specifier.contains(version, prereleases=True)
        advice = "" if fits else f": pip install '{requirement}'"
        lines.append(f"{'ok' if fits else 'WRONG':8} {requirement.name} {version}{advice}")
    return lines


def _device() -> str:
    if torch.cuda.is_available():
        return f"GPU {torch.cuda.get_device_name()}"
    return f"no GPU, {torch.get_num_threads()} CPU threads"


def _listing(title: str, listed: list[cards.Card], width: int) -> str:
    lines = [title]
    for card in listed:
        paper = f"{card.title}, {card.venue}, {card.url}" if card.title else ""
        details = [("", card.idea), ("paper: ", paper), ("needs: ", card.needs)]
        details.append(("missing modalities: ", card.missing))
        lines.append(f"  {card.name}")
        for label, text in details:
            if text:
                indent = {"initial_indent": " " * 6, "subsequent_indent": " " * 8}
                lines += textwrap.wrap(label + text, width, **indent, break_on_hyphens=False)
    return "\n".join(lines)
