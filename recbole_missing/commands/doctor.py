"""``recbole-missing doctor``: check this machine, list every method.

What it says of a model or imputer comes from the labels of their docstrings.
"""

from __future__ import annotations

import dataclasses
import inspect
import platform
import re
import sys
import textwrap
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable
from dataclasses import dataclass

_LABEL = re.compile(r"^(Paper|Code|Follows|Quirks|Needs|Missing):[ \t]*", flags=re.MULTILINE)


def arguments(parser: ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument(
        "--markdown", action="store_true", help="print the tables of docs/reference instead"
    )


def execute(known: Namespace) -> None:
    """Run the command.

    Raises:
        SystemExit: with code 1, if a requirement of the package is not met.
    """
    from recbole_missing import environment

    print(markdown() if known.markdown else report())
    if environment.problems():
        raise SystemExit(1)


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


def report(width: int = 100) -> str:
    """Text about the environment, every model, every replaced model of RecBole, every imputer.

    What is missing, or that nothing is, comes last.
    The methods are left out where a requirement is absent.

    Args:
        width: columns of a line.
    """
    from recbole_missing import environment
    from recbole_missing.version import __version__

    extras = ["Extras, each for one thing only", *(line for _, line in environment.extras())]
    sections = [
        f"recbole_missing {__version__} on Python {platform.python_version()}, {_device()}",
        "\n".join(line for _, line in environment.requirements()),
    ]
    if len(extras) > 1:
        sections.append("\n  ".join(extras))
    try:
        # Last, so that it stays in sight.
        sections += [_methods(width), "\n".join(environment.problems()) or "Everything is there."]
    except ImportError as error:
        if not environment.problems():
            raise
        why = f"The methods are not listed: {error}"
        sections.append("; ".join([why, *environment.problems()]))
    return "\n\n".join(sections)


def markdown() -> str:
    """The tables of ``docs/reference/models.md`` and ``docs/reference/imputers.md``."""
    tables = model_table(models()), baseline_table(baselines()), imputer_table(imputers())
    return "\n\n".join(tables)


def models() -> list[Card]:
    """One card a model, alphabetical."""
    from recbole_missing.model import MODELS

    return [_card(name, sys.modules[model.__module__].__doc__) for name, model in MODELS.items()]


def baselines() -> list[Card]:
    """One card a model that stands in place of RecBole's; its idea is the difference."""
    from recbole_missing.baseline import BASELINES

    cards = []
    for name, model in BASELINES.items():
        difference = f"{model.difference[:1].upper()}{model.difference[1:]}."
        card = _card(name, sys.modules[model.__module__].__doc__)
        cards.append(dataclasses.replace(card, idea=difference))
    return cards


def imputers() -> list[Card]:
    """One card an imputer, alphabetical; its paper may be absent."""
    from recbole_missing.imputation import IMPUTERS

    return [_card(name, imputer.__doc__) for name, imputer in IMPUTERS.items()]


def labels(docstring: str | None) -> dict[str, str]:
    """Text behind each label of a docstring, on one line; what stands before them is ``idea``."""
    first, *rest = _LABEL.split(inspect.cleandoc(docstring or ""))
    found = dict(zip(rest[::2], rest[1::2]))
    # A label's text ends with its paragraph; sections such as Args do not belong to it.
    joined = {label: " ".join(text.split("\n\n")[0].split()) for label, text in found.items()}
    return {"idea": " ".join(first.split("\n\n")[0].split()), **joined}


def model_table(cards: Iterable[Card]) -> str:
    """Markdown table of models."""
    rows = [
        f"| [{card.name}](../../recbole_missing/model/{card.name.lower()}.py) | "
        f"[{card.title}]({card.url}) | {card.venue} | {card.needs} | {card.missing} |"
        for card in cards
    ]
    head = "| model | paper | venue | needs | missing modalities |"
    return "\n".join([head, "|---|---|---|---|---|", *rows])


def baseline_table(cards: Iterable[Card]) -> str:
    """Markdown table of the models that stand in place of RecBole's."""
    rows = [
        f"| [{card.name}](../../recbole_missing/baseline/{card.name.lower()}.py) | "
        f"[{card.title}]({card.url}) | {card.venue} | {card.idea} |"
        for card in cards
    ]
    return "\n".join(["| model | paper | venue | difference |", "|---|---|---|---|", *rows])


def imputer_table(cards: Iterable[Card]) -> str:
    """Markdown table of imputers."""
    from recbole_missing.imputation import IMPUTERS

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


def _device() -> str:
    try:
        import torch
    except ImportError:
        return "no torch"
    if torch.cuda.is_available():
        return f"GPU {torch.cuda.get_device_name()}"
    return f"no GPU, {torch.get_num_threads()} CPU threads"


def _methods(width: int) -> str:
    listings = [
        _listing("Models (--model=NAME)", models(), width),
        _listing("Models of RecBole that are replaced (--model=NAME)", baselines(), width),
        _listing("Imputation (--imputation=WORD)", imputers(), width),
    ]
    return "\n\n".join(listings)


def _listing(title: str, listed: list[Card], width: int) -> str:
    lines = [title]
    for card in listed:
        paper = f"{card.title}, {card.venue}, {card.url}" if card.title else ""
        details = [("", card.idea), ("paper: ", paper), ("needs: ", card.needs)]
        details.append(("missing modalities: ", card.missing))
        lines.append(f"  {card.name}")
        for label, text in details:
            if text:
                lines += textwrap.wrap(
                    label + text,
                    width,
                    initial_indent=" " * 6,
                    subsequent_indent=" " * 8,
                    break_on_hyphens=False,
                )
    return "\n".join(lines)
