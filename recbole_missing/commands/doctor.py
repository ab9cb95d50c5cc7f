"""`recbole-missing doctor`: is this machine fit, and what can the package do."""

from __future__ import annotations

import platform
import textwrap

import torch

from recbole_missing import environment
from recbole_missing.commands import cards
from recbole_missing.version import __version__


def report(width: int = 100) -> str:
    """Text about the environment, every model and every imputer.

    Args:
        width: columns of a line.
    """
    sections = [
        f"recbole_missing {__version__} on Python {platform.python_version()}, {_device()}",
        "\n".join(line for _, line in environment.requirements()),
        _listing("Models (--model=NAME)", cards.models(), width),
        _listing("Imputation (--imputation=WORD)", cards.imputers(), width),
    ]
    return "\n\n".join(sections)


def markdown() -> str:
    """Both tables of the README."""
    return "\n\n".join([cards.model_table(cards.models()), cards.imputer_table(cards.imputers())])


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
