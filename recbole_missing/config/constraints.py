"""Constraints of settings: what a value may be, and one grammar for saying that it is not.

Every message reads *who: what must be what, got what; what to do*. A scalar of numpy is accepted
where the Python value of its kind is; numpy itself is not imported.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

_LARGEST = 2**53  # sizes and seeds that torch and numpy can still count with


@dataclass(frozen=True)
class Int:
    """An integer within bounds (both inclusive), and within plus and minus 2**53."""

    min: int | None = None
    max: int | None = None

    def accepts(self, value: Any) -> bool:
        """Tell whether ``value`` is an int (not a bool) within the bounds."""
        fits = isinstance(value, Integral) and not _is_bool(value)
        return fits and abs(int(value)) <= _LARGEST and _within(value, self)

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
class Matching:
    """A string that a regular expression matches as a whole; ``words`` says which strings do."""

    pattern: str
    words: str

    def accepts(self, value: Any) -> bool:
        """Tell whether ``value`` is such a string."""
        return isinstance(value, str) and re.fullmatch(self.pattern, value) is not None

    def __str__(self) -> str:
        """Describe the constraint in words."""
        return self.words


@dataclass(frozen=True)
class ListOf:
    """A list whose elements all satisfy ``element``.

    ``length``, if given, is their number. The list may be empty unless ``empty`` is False.
    """

    element: Any
    length: int | None = None
    empty: bool = True

    def accepts(self, value: Any) -> bool:
        """Tell whether ``value`` is such a list."""
        fits = isinstance(value, (list, tuple)) and self.length in (None, len(value))
        return fits and (self.empty or len(value) > 0) and all(map(self.element.accepts, value))

    def __str__(self) -> str:
        """Describe the constraint in words."""
        size = "" if self.length is None else f" of length {self.length}"
        return f"a {'' if self.empty else 'filled '}list{size}, each element {self.element}"


@dataclass(frozen=True)
class MapOf:
    """A mapping of names to values that all satisfy ``value``."""

    value: Any

    def accepts(self, value: Any) -> bool:
        """Tell whether ``value`` is such a mapping."""
        named = isinstance(value, Mapping) and all(isinstance(key, str) for key in value)
        return named and all(map(self.value.accepts, value.values()))

    def __str__(self) -> str:
        """Describe the constraint in words."""
        return f"a mapping, each value {self.value}"


@dataclass(frozen=True)
class Keys:
    """A mapping with known keys, each with a constraint of its own; ``needed`` must be there."""

    fields: Mapping[str, Any]
    needed: Sequence[str] = ()

    def accepts(self, value: Any) -> bool:
        """Tell whether ``value`` is such a mapping."""
        known = isinstance(value, Mapping) and all(key in self.fields for key in value)
        there = known and all(key in value for key in self.needed)
        return there and all(self.fields[key].accepts(item) for key, item in value.items())

    def __str__(self) -> str:
        """Describe the constraint in words."""
        return f"a mapping with keys of {', '.join(self.fields)}"

    def explain(self, who: str, value: Mapping[str, Any]) -> None:
        """Raise for the first key or value that is wrong."""
        for key in value:
            if key not in self.fields:
                raise ValueError(f"{who}: {unknown('key', str(key), self.fields)}")
        for key in self.needed:
            if key not in value:
                raise ValueError(f"{who}: {key} must be {self.fields[key]}, got none; add it.")
        check(who, value, {key: self.fields[key] for key in value})


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
        if constraint.accepts(value):
            continue
        inner = constraint.constraint if isinstance(constraint, Optional) else constraint
        if isinstance(inner, Keys) and isinstance(value, Mapping):
            inner.explain(f"{who}: {key}", value)
        raise ValueError(f"{who}: {key} must be {constraint}, got {_shown(value)}.")


def _shown(value: Any) -> str:
    """Text of a value, on one line and of a bounded length."""
    is_scalar = type(value).__module__ == "numpy" and getattr(value, "shape", None) == ()
    text = " ".join(repr(value.item() if is_scalar else value).split())  # else np.int64(0)
    kind = "" if value is None or isinstance(value, _SAID) else f" ({type(value).__name__})"
    return (text if len(text) <= _LONGEST else f"{text[:_LONGEST]}...") + kind


_LONGEST = 200  # characters of a value in a message
_SAID = (bool, int, float, str, list, tuple, dict)  # their kind shows in their text


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """Return ``" Did you mean 'x'?"`` for the choice nearest to ``word``, or an empty string."""
    by_lower = {choice.lower(): choice for choice in choices}
    near = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.75)
    return f" Did you mean {by_lower[near[0]]!r}?" if near else ""


def unknown(kind: str, word: Any, choices: Iterable[str]) -> str:
    """Message for a name that is not in a table: the nearest choice, then all choices."""
    choices, word = sorted(choices), word if isinstance(word, str) else _shown(word)
    return f"Unknown {kind} {word!r}.{did_you_mean(word, choices)} Choices: {', '.join(choices)}."
