"""RecBole's ``.hyper`` files. Each line is one setting: ``name kind values``."""

from __future__ import annotations

import ast
import math
from pathlib import Path
from typing import Any

_KINDS = ("choice", "uniform", "loguniform", "quniform")


def read(path: Path) -> dict[str, Any]:
    """Read a search space for :func:`.search.draw`.

    As in RecBole, the limits of ``loguniform low,high`` are natural logarithms of the values.

    Raises:
        ValueError: if the file is absent or a line is wrong; it names the file and the line.
    """
    if not path.is_file():
        raise ValueError(f"{path}: must be a .hyper file, got no such file; correct the path.")
    space: dict[str, Any] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        words = line.split(maxsplit=2)
        if not words or words[0].startswith("#"):
            continue
        try:
            name, kind, text = words
            space[name] = _values(kind, text)
        except (
            ValueError,
            SyntaxError,
            TypeError,
            OverflowError,
            RecursionError,
            MemoryError,
        ) as error:
            raise ValueError(
                f"{path}, line {number}: must read `name kind values` with a kind of "
                f"{', '.join(_KINDS)}, got {line!r}."
            ) from error
    return space


def _values(kind: str, text: str) -> Any:
    if kind not in _KINDS:
        raise ValueError(kind)
    values = ast.literal_eval(text if text.startswith("[") else f"[{text}]")
    if kind == "choice":
        return values
    if kind == "loguniform":
        values = [math.exp(value) for value in values]
    return {kind: values}
