"""What the programs of these pages share: data sets, stores of JSON lines, blocks of a page.

A page is written by people, but for its tables. A table stands between ``<!-- results: NAME -->``
and ``<!-- end of results -->``, and :func:`filled` writes it anew from the committed store.
"""

from __future__ import annotations

import argparse
import json
import logging
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from recbole_missing.atomic import whole_file

HERE = Path(__file__).resolve().parent
_SVG = {"svg.fonttype": "none", "svg.hashsalt": "recbole_missing"}


def commands(description: str | None) -> tuple[argparse.ArgumentParser, argparse.ArgumentParser]:
    """Parser of a program with the commands ``measure`` and ``draw``, and that of ``measure``."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawTextHelpFormatter
    )
    both = parser.add_subparsers(dest="command", required=True)
    first = both.add_parser("measure", help="measure what the store does not hold yet")
    first.add_argument("--data-path", type=Path, required=True, help="folder of the data sets")
    both.add_parser("draw", help="write the tables of the page and the figure")
    return parser, first


def configured(model: str, dataset: str, settings: Mapping[str, Any], file: Any = None) -> Any:
    """RecBole's config of a run, without its log."""
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"recbole\.")
    logging.getLogger().setLevel(logging.ERROR)
    from recbole.config import Config

    from recbole_missing import checkpoint

    quiet = {"show_progress": False, "state": "ERROR", "plugin_defaults": True}
    with checkpoint.no_command_line():
        files = None if file is None else [str(file)]
        return Config(model, dataset, files, {**quiet, **settings})


def read(store: Path) -> list[dict[str, Any]]:
    """Lines of a store; none if there is no file."""
    if not store.exists():
        return []
    return [json.loads(line) for line in store.read_text(encoding="utf-8").splitlines()]


def append(store: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """Add lines to a store, numbers rounded to five digits."""
    text = "".join(json.dumps(_rounded(line), allow_nan=False) + "\n" for line in lines)
    with store.open("a", encoding="utf-8", newline="\n") as file:
        file.write(text)


def _rounded(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(item) for item in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value


def filled(page: str, tables: Mapping[str, str]) -> str:
    """A page with its tables written anew.

    Raises:
        ValueError: if the page lacks a table, or has one that is unknown.
    """
    pattern = r"(<!-- results: ([a-z ]+) -->\n).*?(<!-- end of results -->)"
    named = [name for _, name, _ in re.findall(pattern, page, flags=re.DOTALL)]
    if sorted(named) != sorted(tables):
        raise ValueError(f"page: must have the tables {sorted(tables)}, got {sorted(named)}.")
    return re.sub(
        pattern,
        lambda found: f"{found[1]}\n{tables[found[2]]}\n\n{found[3]}",
        page,
        flags=re.DOTALL,
    )


def write(path: Path, text: str) -> None:
    """Write a text file as a whole."""
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def draw(figure: Any, path: Path) -> None:
    """Write a figure as SVG, the same bytes for the same figure and matplotlib."""
    with whole_file(path) as temporary, matplotlib.rc_context(_SVG):
        figure.savefig(temporary, format="svg", metadata={"Date": None})


def mean_and_deviation(values: Sequence[float], digits: int = 3) -> str:
    """``0.123 ± 0.004``: mean and sample deviation; one value has no deviation."""
    mean = f"{np.mean(values):.{digits}f}"
    return mean if len(values) < 2 else f"{mean} ± {np.std(values, ddof=1):.{digits}f}"
