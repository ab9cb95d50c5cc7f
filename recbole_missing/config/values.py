"""Values of settings that come as text. They are data: nothing in them is evaluated."""

from __future__ import annotations

import ast
from typing import Any


def read(text: str) -> Any:
    """Read a value as RecBole does, but without evaluating it.

    A Python literal of numbers, strings, lists, tuples, dicts, booleans and None becomes its value.
    ``true`` and ``false`` in any case become booleans. Anything else stays text.

    RecBole evaluates text as code. So the two differ for whatever is no literal and that RecBole
    can evaluate: expressions such as ``2**10``, ``3*0.1``, ``not True`` and ``'a'+'b'``, calls such
    as ``len('ab')``, and words that happen to be names where RecBole evaluates them, such as
    ``key``, ``value`` and ``metric_types``. They stay text here.
    """
    try:
        value = ast.literal_eval(text.lstrip(" \t"))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return {"true": True, "false": False}.get(text.lower(), text)
    known = value is None or isinstance(value, (str, int, float, list, tuple, dict))
    return value if known else text
