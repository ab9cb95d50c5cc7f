"""A description as text for a terminal."""

from __future__ import annotations

from textwrap import fill

from recbole_missing import tables
from recbole_missing.describe.description import Description
from recbole_missing.describe.sections import Block, rules, sections

_WIDTH = 100


def text(found: Description) -> str:
    """Write all sections, and the advice with its YAML lines."""
    parts = ["\n".join([f"{found.name}, seed {found.seed}", *found.notes])]
    for number, section in enumerate(sections(found), start=1):
        blocks = "\n\n".join(_block(block) for block in section.blocks)
        parts.append(f"{_heading(f'{number}. {section.title}')}\n{blocks}")
    parts.append(_advice(found, len(parts)))
    return "\n\n".join(parts)


def _block(block: Block) -> str:
    caption = fill(block.caption, _WIDTH)
    return caption if block.table is None else f"{tables.plain(block.table)}\n{caption}"


def _advice(found: Description, number: int) -> str:
    sentences = [
        fill(sentence, _WIDTH, initial_indent="- ", subsequent_indent="  ")
        for sentence in found.advice.sentences
    ]
    lines = [_heading(f"{number}. What follows"), *sentences]
    if found.content:
        lines += ["", fill(rules(), _WIDTH)]
    return "\n".join([*lines, "", "Lines for a config file:", "", *found.advice.yaml])


def _heading(title: str) -> str:
    return f"{title}\n{'-' * len(title)}"
