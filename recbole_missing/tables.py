"""A table, and how it is written: as Markdown, LaTeX, CSV, or text for a terminal."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tabulate import tabulate

ABSENT = "-"
_FORMS: dict[str, Callable[[Any], str]] = {
    "score": lambda value: f"{value:.4f}",
    "difference": lambda value: f"{round(value, 4) + 0.0:+.4f}",  # no -0.0000
    "percent": lambda value: f"{100 * value:.1f}%",
    "count": lambda value: f"{value:,.0f}",
    "amount": lambda value: f"{value:,.2f}" if value < 10 else f"{value:,.0f}",
    "p": lambda value: "< 0.0001" if value < 0.0001 else f"{value:.4f}",
    "text": str,
    "cell": str,
}
_LEFT = ("text",)  # forms that are aligned to the left
_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "<": r"$<$",
    ">": r"$>$",
    **{sign: "\\" + sign for sign in "&%$#_{}"},
}


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Args:
        name: what stands over it.
        values: one value a row; None where there is none.
        std: standard deviation of each value, where there is one.
        n: number of runs behind each value; for CSV.
        form: how a value is printed. ``text`` is aligned to the left; ``cell`` is text that is
            aligned to the right, such as a number that is printed already.
        best: ``highest`` or ``lowest``: which value is marked as the best, and the next one as the
            second best. Empty: no value is marked.
    """

    name: str
    values: Sequence[Any]
    std: Sequence[float | None] = ()
    n: Sequence[int | None] = ()
    form: str = "score"
    best: str = ""

    def cells(self) -> list[str]:
        """Texts of the rows, without marks."""
        write = _FORMS[self.form]
        cells = []
        for i, value in enumerate(self.values):
            spread = self.std[i] if self.std else None
            cell = ABSENT if value is None else write(value)
            cells.append(cell if spread is None else f"{cell} ± {write(spread)}")
        return cells

    def places(self) -> list[int | None]:
        """1 for the best rows and 2 for the second best, None elsewhere.

        Values that are printed alike share a place. A single value has none.
        """
        if not self.best:
            return [None] * len(self.values)
        shown = [None if v is None else float(_FORMS["score"](v)) for v in self.values]
        known = [value for value in shown if value is not None]
        if len(known) < 2:
            return [None] * len(self.values)
        levels = sorted(set(known), reverse=self.best == "highest")
        places = {value: place for place, value in enumerate(levels[:2], start=1)}
        return [None if value is None else places.get(value) for value in shown]


@dataclass(frozen=True)
class Table:
    """Rows and columns.

    Args:
        labels: heading -> text of each row; the first columns, which name the rows.
        columns: the columns beside them.
        name: stem of the names of its files.
        title, caption: what stands over it.
        protocol: how the numbers came about; part of the caption in LaTeX.
    """

    labels: Mapping[str, Sequence[str]]
    columns: Sequence[Column]
    name: str = ""
    title: str = ""
    caption: str = ""
    protocol: str = ""

    @classmethod
    def of_rows(cls, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
        """Make a table of printed cells, row by row; the first cell names its row."""
        named, *others = [list(column) for column in zip(*rows)] or [[] for _ in heads]
        columns = [Column(head, cells, form="cell") for head, cells in zip(heads[1:], others)]
        return cls({heads[0]: named}, columns)

    @property
    def heads(self) -> list[str]:
        """Names over the columns."""
        return [*self.labels, *(column.name for column in self.columns)]

    def rows(self, mark: Callable[[str, int], str], plain: Callable[[str], str]) -> list[list[str]]:
        """Texts of the cells; ``plain`` escapes one, ``mark`` marks the best (1) or second (2)."""
        texts = [[plain(text) for text in texts] for texts in self.labels.values()]
        for column in self.columns:
            cells = [plain(cell) for cell in column.cells()]
            places = column.places()
            texts.append([mark(c, p) if p else c for c, p in zip(cells, places)])
        return [list(row) for row in zip(*texts)]


def markdown(table: Table) -> str:
    """Write for GitHub: the best is bold, the second best is underlined (``<ins>``)."""
    rows = table.rows(
        lambda cell, place: f"**{cell}**" if place == 1 else f"<ins>{cell}</ins>", markdown_text
    )
    sides = ["---"] * len(table.labels)
    sides += ["---" if column.form in _LEFT else "---:" for column in table.columns]
    lines = [[markdown_text(head) for head in table.heads], sides, *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def markdown_text(text: str) -> str:
    """Escape what would be markup within a Markdown table."""
    one_line = " ".join(text.split())
    return re.sub(r"([\\`*_|~\[\]])", r"\\\1", one_line).replace("<", "&lt;").replace(">", "&gt;")


def latex(table: Table) -> str:
    r"""Write a ``table`` for the package ``booktabs``: ``\textbf`` and ``\underline`` mark."""
    rows = table.rows(
        lambda cell, place: rf"\textbf{{{cell}}}" if place == 1 else rf"\underline{{{cell}}}",
        latex_text,
    )
    sides = "l" * len(table.labels)
    sides += "".join("l" if column.form in _LEFT else "r" for column in table.columns)
    body = [f"    {' & '.join(row)} \\\\" for row in rows]
    lines = [
        r"% \usepackage{booktabs}",
        r"\begin{table}",
        r"  \centering",
        rf"  \caption{{{latex_text(f'{table.title}. {table.caption} {table.protocol}')}}}",
        rf"  \label{{tab:{table.name}}}",
        rf"  \begin{{tabular}}{{{sides}}}",
        r"    \toprule",
        f"    {' & '.join(latex_text(head) for head in table.heads)} \\\\",
        r"    \midrule",
        *body,
        r"    \bottomrule",
        r"  \end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def latex_text(text: str) -> str:
    """Escape what LaTeX would read as a command."""
    return "".join(_LATEX.get(sign, sign) for sign in " ".join(text.split()))


def csv_text(table: Table) -> str:
    """Write one line a cell, with all digits: labels of the row, column, value, std, n."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([*table.labels, "column", "value", "std", "n"])
    for i, row in enumerate(zip(*table.labels.values())):
        for column in table.columns:
            extra = [values[i] if values else None for values in (column.std, column.n)]
            writer.writerow([*row, column.name, column.values[i], *extra])
    return file.getvalue()


def plain(table: Table) -> str:
    """Write for a terminal: ``*`` follows the best, ``+`` the second best."""
    rows = table.rows(lambda cell, place: cell + "*+"[place - 1], lambda cell: cell)
    sides = ["left"] * len(table.labels)
    sides += ["left" if column.form in _LEFT else "right" for column in table.columns]
    return tabulate(rows, headers=table.heads, colalign=sides, disable_numparse=True)


def number(value: Any) -> float | None:
    """Turn a number of pandas into a float, and what is not a number into None."""
    return None if value is None or math.isnan(value) else float(value)
