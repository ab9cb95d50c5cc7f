"""A description as one HTML page that loads nothing: tables, plots and YAML lines."""

from __future__ import annotations

from html import escape

from recbole_missing import tables
from recbole_missing.describe.description import Description
from recbole_missing.describe.figures import figures
from recbole_missing.describe.sections import Block, Section, rules, sections
from recbole_missing.version import __version__

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #59636e; --paper: #ffffff;
  --line: #d1d9e0; --code: #f6f8fa; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6edf3; --soft: #9198a1; --paper: #0d1117; --line: #3d444d; --code: #151b23; }
}
body { color: var(--ink); background: var(--paper); max-width: 72rem; margin: 2rem auto;
  padding: 0 1.2rem; font: 16px/1.55 system-ui, sans-serif; }
h1 { margin-bottom: 0.2rem; } h2 { margin-top: 2.6rem; border-bottom: 1px solid var(--line); }
p { max-width: 52rem; } .soft { color: var(--soft); font-size: 0.92rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: 0.8rem 0; }
th, td { padding: 0.25rem 0.9rem 0.25rem 0; text-align: left; border-bottom: 1px solid var(--line);
  white-space: nowrap; }
tbody th { font-weight: 500; } td.n, thead th:not(:first-child) { text-align: right; }
figure { margin: 1.2rem 0 2rem; } figcaption { font-weight: 600; margin-bottom: 0.4rem; }
svg { max-width: 100%; height: auto; color: var(--ink); }
pre { background: var(--code); border: 1px solid var(--line); border-radius: 6px;
  padding: 0.9rem 1.1rem; overflow-x: auto; }
"""


def page(found: Description) -> str:
    """Write the page.

    Raises:
        ValueError: if matplotlib is absent.
    """
    drawn = figures(found)
    name = escape(found.name)
    notes = "".join(f"<br>{escape(note)}" for note in found.notes)
    parts = [
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{name}: a first look</title>\n<style>{_STYLE}</style>\n</head>\n<body>",
        f"<h1>{name}: a first look</h1>",
        f'<p class="soft">recbole-missing {__version__}, seed {found.seed}{notes}</p>',
        _advice(found),
        *(_section(section, drawn) for section in sections(found)),
        "</body>\n</html>\n",
    ]
    return "\n".join(parts)


def _advice(found: Description) -> str:
    sentences = "\n".join(f"<li>{escape(one)}</li>" for one in found.advice.sentences)
    rule = f'<p class="soft">{escape(rules())}</p>' if found.content else ""
    yaml = escape("\n".join(found.advice.yaml))
    return (
        f"<h2>What follows</h2>\n<ul>\n{sentences}\n</ul>\n{rule}\n"
        f"<p>Lines for a config file:</p>\n<pre>{yaml}</pre>"
    )


def _section(section: Section, drawn: dict[str, tuple[str, str]]) -> str:
    blocks = "\n".join(_block(block, drawn) for block in section.blocks)
    return f"<h2>{escape(section.title)}</h2>\n{blocks}"


def _block(block: Block, drawn: dict[str, tuple[str, str]]) -> str:
    parts = []
    if block.table is not None:
        parts.append(f'<div class="wide">{tables.html(block.table)}</div>')
    parts.append(f"<p>{escape(block.caption)}</p>")
    if block.figure in drawn:
        title, svg = drawn[block.figure]
        parts.append(f"<figure>\n<figcaption>{escape(title)}</figcaption>\n{svg}</figure>")
    return "\n".join(parts)
