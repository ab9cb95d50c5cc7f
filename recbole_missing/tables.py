"""A table, and its output as Markdown, LaTeX, CSV, HTML, or text for a terminal."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
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


def counted(number: int, noun: str) -> str:
    """A number and a noun whose plural ends with s: ``1 user``, ``1,024 users``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Args:
        name: heading of the column.
        values: one value for each row; None if there is no value.
        std: standard deviation of each value; None if there is none.
        n: number of runs behind each value; only CSV shows it.
        form: how a value is printed. ``text`` is aligned to the left. ``cell`` is text that is
            aligned to the right, such as a formatted number.
        marked: whether the cell of each row is marked, which is bold on a page. If it is empty, no
            cell is marked.
    """

    name: str
    values: Sequence[Any]
    std: Sequence[float | None] = ()
    n: Sequence[int | None] = ()
    form: str = "score"
    marked: Sequence[bool] = ()

    def cells(self) -> list[str]:
        """Text of each row, without marks."""
        write = _FORMS[self.form]
        cells = []
        for i, value in enumerate(self.values):
            spread = self.std[i] if self.std else None
            cell = ABSENT if value is None else write(value)
            cells.append(cell if spread is None else f"{cell} ± {write(spread)}")
        return cells


@dataclass(frozen=True)
class Table:
    """Rows and columns.

    Args:
        labels: heading -> text of each row. These are the first columns, which name the rows.
        columns: the other columns.
        name: name of its files, without the ending.
        title, caption: texts above the table.
        protocol: how the numbers were measured; part of the caption in LaTeX.
    """

    labels: Mapping[str, Sequence[str]]
    columns: Sequence[Column]
    name: str = ""
    title: str = ""
    caption: str = ""
    protocol: str = ""

    @classmethod
    def of_rows(cls, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
        """Make a table from rows of formatted cells. The first cell names the row."""
        named, *others = [list(column) for column in zip(*rows)] or [[] for _ in heads]
        columns = [Column(head, cells, form="cell") for head, cells in zip(heads[1:], others)]
        return cls({heads[0]: named}, columns)

    @property
    def heads(self) -> list[str]:
        """Headings of all columns."""
        return [*self.labels, *(column.name for column in self.columns)]

    def rows(self, mark: Callable[[str], str], plain: Callable[[str], str]) -> list[list[str]]:
        """Texts of the cells. ``plain`` escapes a text; ``mark`` marks one that is escaped."""
        texts = [[plain(text) for text in texts] for texts in self.labels.values()]
        for column in self.columns:
            cells = [plain(cell) for cell in column.cells()]
            marked = column.marked or [False] * len(cells)
            texts.append([mark(cell) if is_so else cell for cell, is_so in zip(cells, marked)])
        return [list(row) for row in zip(*texts)]


def markdown(table: Table) -> str:
    """Write Markdown for GitHub; marked cells are bold."""
    rows = table.rows(lambda cell: f"**{cell}**", markdown_text)
    sides = ["---"] * len(table.labels)
    sides += ["---" if column.form in _LEFT else "---:" for column in table.columns]
    lines = [[markdown_text(head) for head in table.heads], sides, *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def markdown_text(text: str) -> str:
    """Escape characters that are markup in a Markdown table."""
    one_line = " ".join(text.split())
    return re.sub(r"([\\`*_|~\[\]])", r"\\\1", one_line).replace("<", "&lt;").replace(">", "&gt;")


def latex(table: Table) -> str:
    r"""Write LaTeX for the package ``booktabs``; marked cells are ``\textbf``."""
    rows = table.rows(lambda cell: rf"\textbf{{{cell}}}", latex_text)
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
    """Escape characters that LaTeX reads as commands."""
    return "".join(_LATEX.get(sign, sign) for sign in " ".join(text.split()))


def csv_text(table: Table) -> str:
    """Write one line for each cell, with all digits: row labels, column, value, std, n."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([*table.labels, "column", "value", "std", "n"])
    for i, row in enumerate(zip(*table.labels.values())):
        for column in table.columns:
            extra = [values[i] if values else None for values in (column.std, column.n)]
            writer.writerow([*row, column.name, column.values[i], *extra])
    return file.getvalue()


def html(table: Table) -> str:
    """Write HTML; marked cells are bold; a cell of a number has the class ``n``."""
    rows = table.rows(lambda cell: f"<b>{cell}</b>", escape)
    sides = ["<th>"] * len(table.labels)
    sides += ["<td>" if column.form in _LEFT else '<td class="n">' for column in table.columns]
    ends = [f"</{side[1:3]}>" for side in sides]
    heads = "".join(f"<th>{escape(head)}</th>" for head in table.heads)
    body = [
        "".join(f"{side}{cell}{end}" for side, cell, end in zip(sides, row, ends)) for row in rows
    ]
    lines = "\n".join(f"<tr>{row}</tr>" for row in body)
    return f"<table>\n<thead><tr>{heads}</tr></thead>\n<tbody>\n{lines}\n</tbody>\n</table>"


def plain(table: Table) -> str:
    """Write text for a terminal: ``*`` follows a marked cell."""
    rows = table.rows(lambda cell: f"{cell}*", lambda cell: cell)
    sides = ["left"] * len(table.labels)
    sides += ["left" if column.form in _LEFT else "right" for column in table.columns]
    return tabulate(rows, headers=table.heads, colalign=sides, disable_numparse=True)


def number(value: Any) -> float | None:
    """Turn a number into a float, and NaN into None."""
    return None if value is None or math.isnan(value) else float(value)
