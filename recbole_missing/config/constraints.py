"""Constraints of settings: what a value may be, and one grammar for saying that it is not.

Every message reads *who: what must be what, got what; what to do*. A scalar of numpy is accepted
where the Python value of its kind is; numpy itself is not imported.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any


@dataclass(frozen=True)
class Int:
    """An integer within bounds (both inclusive)."""

    min: int | None = None
    max: int | None = None

    def accepts(self, value: Any) -> bool:
        """Tell whether ``value`` is an int (not a bool) within the bounds."""
        return isinstance(value, Integral) and not _is_bool(value) and _within(value, self)

    def __str__(self) -> str:
        """Describe the constraint in words."""
        return "an int" + _bounds(self)


@dataclass(frozen=True)
class Float:
    """A finite real number within bounds (both inclusive)."""

    min: float | None = None
    max: float | None = None

    def accepts(self, value: Any) -> bool:
        """Tell whether ``value`` is a finite number (not a bool) within the bounds."""
        is_number = isinstance(value, Real) and not _is_bool(value)
        return is_number and abs(value) < float("inf") and _within(value, self)

    def __str__(self) -> str:
        """Describe the constraint in words."""
        return "a number" + _bounds(self)


@dataclass(frozen=True)
class Bool:
    """True or False."""

    def accepts(self, value: Any) -> bool:
        """Tell whether ``value`` is a bool."""
        return _is_bool(value)

    def __str__(self) -> str:
        """Describe the constraint in words."""
        return "True or False"


@dataclass(frozen=True)
class Text:
    """A non-empty string."""

    def accepts(self, value: Any) -> bool:
        """Tell whether ``value`` is a non-empty string."""
        return isinstance(value, str) and value != ""

    def __str__(self) -> str:
        """Describe the constraint in words."""
        return "a non-empty string"


class Choice:
    """One of a few words."""

    def __init__(self, *words: str) -> None:
        """Store the allowed ``words``."""
        self.words = words

    def accepts(self, value: Any) -> bool:
        """Tell whether ``value`` is one of the words."""
        return isinstance(value, str) and value in self.words

    def __str__(self) -> str:
        """Describe the constraint in words."""
        return "one of " + ", ".join(self.words) if len(self.words) > 1 else repr(*self.words)


@dataclass(frozen=True)
class ListOf:
    """A list whose elements all satisfy ``element``; ``length``, if given, is their number."""

    element: Any
    length: int | None = None

    def accepts(self, value: Any) -> bool:
        """Tell whether ``value`` is such a list."""
        fits = isinstance(value, (list, tuple)) and self.length in (None, len(value))
        return fits and all(self.element.accepts(item) for item in value)

    def __str__(self) -> str:
        """Describe the constraint in words."""
        size = "" if self.length is None else f" of length {self.length}"
        return f"a list{size}, each element {self.element}"


@dataclass(frozen=True)
class Pair:
    """A list of two values, each with a constraint of its own."""

    first: Any
    second: Any

    def accepts(self, value: Any) -> bool:
        """Tell whether ``value`` is such a list."""
        fits = isinstance(value, (list, tuple)) and len(value) == 2
        return fits and self.first.accepts(value[0]) and self.second.accepts(value[1])

    def __str__(self) -> str:
        """Describe the constraint in words."""
        return f"a list of two values: {self.first}, {self.second}"


@dataclass(frozen=True)
class Optional:
    """``constraint``, or nothing (``~`` in YAML)."""

    constraint: Any

    def accepts(self, value: Any) -> bool:
        """Tell whether ``value`` is None or satisfies the constraint."""
        return value is None or self.constraint.accepts(value)

    def __str__(self) -> str:
        """Describe the constraint in words."""
        return f"{self.constraint}, or empty"


@dataclass(frozen=True)
class Either:
    """A value that satisfies the first constraint or the second."""

    first: Any
    second: Any

    def accepts(self, value: Any) -> bool:
        """Tell whether ``value`` satisfies one of the two."""
        return self.first.accepts(value) or self.second.accepts(value)

    def __str__(self) -> str:
        """Describe the constraint in words."""
        return f"{self.first}, or {self.second}"


def _is_bool(value: Any) -> bool:
    """Tell whether ``value`` is a bool of Python or of numpy."""
    kind = type(value)
    return kind is bool or (kind.__module__ == "numpy" and kind.__name__ in ("bool", "bool_"))


def _within(value: Any, bounds: Int | Float) -> bool:
    return (bounds.min is None or value >= bounds.min) and (
        bounds.max is None or value <= bounds.max
    )


def _bounds(bounds: Int | Float) -> str:
    if bounds.min is not None and bounds.max is not None:
        return f" between {bounds.min} and {bounds.max}"
    if bounds.min is not None:
        return f" >= {bounds.min}"
    return "" if bounds.max is None else f" <= {bounds.max}"


def check(who: str, values: Mapping[str, Any], declared: Mapping[str, Any]) -> None:
    """Refuse values that break their declared constraint.

    Args:
        who: whose settings these are, first word of the message.
        values: a dict, a RecBole config, or anything else with ``values[key]``.
        declared: setting name -> constraint (:class:`Int`, :class:`Float`, ...).

    Raises:
        ValueError: naming the setting, what it must be and what it is.
    """
    for key, constraint in declared.items():
        value = values[key]
        if not constraint.accepts(value):
            raise ValueError(f"{who}: {key} must be {constraint}, got {value!r}.")


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """Return ``" Did you mean 'x'?"`` for the choice nearest to ``word``, or an empty string."""
    by_lower = {choice.lower(): choice for choice in choices}
    near = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.75)
    return f" Did you mean {by_lower[near[0]]!r}?" if near else ""


def unknown(kind: str, word: str, choices: Iterable[str]) -> str:
    """Message for a name that is not in a table: the nearest choice, then all choices."""
    choices = sorted(choices)
    return f"Unknown {kind} {word!r}.{did_you_mean(word, choices)} Choices: {', '.join(choices)}."
