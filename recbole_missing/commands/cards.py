"""What every model and imputer says of itself: the source of `doctor` and the README's tables."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass

from recbole_missing.imputation import IMPUTERS
from recbole_missing.model import MODELS

_LABEL = re.compile(r"^(Paper|Code|Follows|Quirks|Needs|Missing):[ \t]*", flags=re.MULTILINE)


@dataclass(frozen=True)
class Card:
    """One method, as the labels of its docstring describe it; a label that is absent is empty.

    Args:
        name: the word that a config file uses.
        idea: one sentence.
        title, venue, url: of the paper.
        needs: what it builds or trains beside its embeddings.
        missing: what it does about missing modalities.
    """

    name: str
    idea: str
    title: str = ""
    venue: str = ""
    url: str = ""
    needs: str = ""
    missing: str = ""


def models() -> list[Card]:
    """One card a model, alphabetical."""
    return [_card(name, sys.modules[model.__module__].__doc__) for name, model in MODELS.items()]


def imputers() -> list[Card]:
    """One card an imputer, alphabetical; its paper may be absent."""
    return [_card(name, imputer.__doc__) for name, imputer in IMPUTERS.items()]


def labels(docstring: str | None) -> dict[str, str]:
    """Text behind each label of a docstring, on one line; what stands before them is ``idea``."""
    first, *rest = _LABEL.split(inspect.cleandoc(docstring or ""))
    found = dict(zip(rest[::2], rest[1::2]))
    # A paragraph that follows the labels (Args and the like) is none of theirs.
    joined = {label: " ".join(text.split("\n\n")[0].split()) for label, text in found.items()}
    return {"idea": " ".join(first.split("\n\n")[0].split()), **joined}


def model_table(cards: Iterable[Card]) -> str:
    """Markdown table of models."""
    rows = [
        f"| [{card.name}](recbole_missing/model/{card.name.lower()}.py) | "
        f"[{card.title}]({card.url}) | {card.venue} | {card.needs} | {card.missing} |"
        for card in cards
    ]
    head = "| model | paper | venue | needs | missing modalities |"
    return "\n".join([head, "|---|---|---|---|---|", *rows])


def imputer_table(cards: Iterable[Card]) -> str:
    """Markdown table of imputers."""
    rows = []
    for card in cards:
        keys = [f"`imputation_{key}`" for key in IMPUTERS[card.name].hyperparameters]
        paper = f"[{card.title}]({card.url}), {card.venue}" if card.title else ""
        rows.append(f"| `{card.name}` | {card.idea} | {', '.join(keys)} | {paper} |")
    head = "| word | missing rows become | settings | paper |"
    return "\n".join([head, "|---|---|---|---|", *rows])


def _card(name: str, docstring: str | None) -> Card:
    text = labels(docstring)
    paper = re.fullmatch(r'.*?"(.+?),?" *,? *(.+), (https://\S+)', text.get("Paper", ""))
    title, venue, url = paper.groups() if paper else ("", "", "")
    idea = text["idea"].split(": ", 1)[-1].replace("``", "`")
    idea = idea[:1].upper() + idea[1:]
    needs, missing = text.get("Needs", ""), text.get("Missing", "")
    return Card(name, idea, title, venue, url, needs, missing)
