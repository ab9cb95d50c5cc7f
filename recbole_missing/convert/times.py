"""Times of a raw table: numbers or dates, read as seconds since 1970."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from recbole_missing.convert.raw import distinct, spread

# A clock time alone would become a time of today.
_HAS_YEAR = r"(?<![\d.,:+])(?:\d{4}(?!\d)|\d{8})|\d+[-/. ,]+\w+[-/. ,]+\d{2}"
# pandas leaves out a zone that it does not know. So only words without such a meaning may occur.
_NAMES = (
    "jan(uary)?|feb(ruary)?|mar(ch)?|apr(il)?|may|june?|july?|aug(ust)?|sept?(ember)?|oct(ober)?"
    "|nov(ember)?|dec(ember)?|mon(day)?|tue(s(day)?)?|wed(nesday)?|thu(rs(day)?)?|fri(day)?"
    "|sat(urday)?|sun(day)?"
).replace("(", "(?:")
# In capitals, AT is a zone, and pandas takes the M of P.M. for one.
_WORDS = rf"(?i:{_NAMES}|[ap]m|t(?=\d)|z|utc|gmt)|[ap](?=\.m)|(?<=\.)m|st|nd|rd|th|of|at|on"
_LETTER = r"[^\W\d_]"
_STRANGE_WORD = re.compile(rf"(?<!{_LETTER})(?!(?:{_WORDS})(?!{_LETTER})){_LETTER}")
# With a name before it, pandas turns the sign of an offset round.
_NAME_OF_OFFSET = re.compile(rf"(?<!{_LETTER})(?i:utc|gmt|z)\s*(?=[-+]\d)")
# JavaScript and e-mail write "10:00:00 GMT+0100 (CET)".
_COMMENT = re.compile(r"(:[\d.]+\s*(?:GMT|UTC)?\s*[-+]\d\d:?\d\d)\s*\([^()]*\)\s*$")
_HAS_ZONE = (
    r"(?i)(?:[\d\s]z|utc|gmt)(?![a-z])"  # by name
    r"|(?::[\d.]+|t\d{4,6}(?:\.\d+)?)\s*(?:[ap]\.?m\.?\s*)?[-+]\d"  # behind a clock
)
_DAY_AND_MONTH = r"^\s*(\d{1,2})[-/. ](\d{1,2})[-/. ]\d{2}"
_FIRST_DAY, _LAST_DAY = 19000101, 21001231  # as seconds, all of them are in 1970
_NO_MIXED = int(pd.__version__.split(".")[0]) < 2  # before, every date was read on its own


def seconds(
    who: str,
    column: pd.Series,
    where: Callable[[int], str],
    form: str | None = None,
    day_first: bool = False,
) -> NDArray[np.float64]:
    """Read times.

    Numbers stay as they are. Dates become seconds since 1970. A date without a time zone is in UTC.

    Args:
        who: file and column, for messages.
        column: categorical texts ``(n_rows,)``.
        where: says where a row is.
        form: format of the dates, as of ``strptime``; None to find it.
        day_first: ``01/02/2023`` is the first of February.

    Returns:
        Float64 ``(n_rows,)``, NaN where the column is empty.

    Raises:
        ValueError: naming the first cell that is no time, or if some dates can only be read with
            the day first and others only with the month first.
    """
    words = distinct(column)
    values = _numbers(who, words) if form is None else None
    if values is None:
        values = _dates(words, form, day_first)
        wrong = np.flatnonzero(np.isnan(values))
        if len(wrong):
            row = int(np.flatnonzero(np.isin(column.cat.codes, wrong))[0])
            raise ValueError(
                f"{who} must be a time, got {column.iloc[row]!r} in {where(row)} "
                f"({len(wrong):,} of {len(words):,} different ones are none); "
                f"{_remedy(words, form, day_first)}."
            )
    return spread(values, column, np.nan)


def without_zone(column: pd.Series) -> NDArray[np.bool_]:
    """Tell which dates name no time zone, bool ``(n_rows,)``; False where the column is empty.

    Args:
        column: categorical texts ``(n_rows,)`` that :func:`seconds` has read as dates.
    """
    words = distinct(column)
    bare = ~words.str.contains(_HAS_ZONE, regex=True).to_numpy(dtype=bool)
    return spread(bare, column, False)


def shown(second: float) -> str:
    """A time for people: a date, or the number if it is no plausible number of seconds."""
    if -2.3e9 < second < 9.2e9 and abs(second) > 1e7:
        return f"{pd.Timestamp(second, unit='s'):%Y-%m-%d %H:%M}"
    return f"{second:.15g}"


def _numbers(who: str, words: pd.Series) -> NDArray[np.float64] | None:
    """The words as finite numbers; None if they are not."""
    for some in (words.iloc[:1], words):  # the first one mostly tells, and dates take long
        values = pd.to_numeric(some, errors="coerce").to_numpy(dtype=np.float64)
        if not np.isfinite(values).all():
            return None
    if len(values) and values.min() >= _FIRST_DAY and values.max() <= _LAST_DAY:
        raise ValueError(
            f"{who} must be seconds or dates, got {words.iloc[0]!r}, which looks like a date "
            "without separators; give --time-format %Y%m%d."
        )
    return values


def _dates(words: pd.Series, form: str | None, day_first: bool) -> NDArray[np.float64]:
    """Seconds since 1970 of each word; NaN where it is no date."""
    if form is not None:
        return _to_seconds(pd.to_datetime(words, format=form, utc=True, errors="coerce"))
    values = np.full(len(words), np.nan)
    if not _NO_MIXED:  # the fast way; words of another form take a slower one
        iso = np.flatnonzero([word[:4].isdigit() for word in words])  # "now" is none
        values[iso] = _parsed(words.iloc[iso], {"format": "ISO8601"})
    left = np.flatnonzero(np.isnan(values))
    values[left] = _other_dates(words.iloc[left], day_first)
    return values


def _other_dates(words: pd.Series, day_first: bool) -> NDArray[np.float64]:
    """Dates of any form: as the first one is written, then each on its own, which takes longest."""
    values = np.full(len(words), np.nan)
    words = words.str.replace(_COMMENT, r"\1", regex=True)
    words = words.str.replace(_NAME_OF_OFFSET, "", regex=True)
    allowed = words.str.contains(_HAS_YEAR, regex=True).to_numpy(dtype=bool)
    allowed &= ~words.str.contains(_STRANGE_WORD, regex=True).to_numpy(dtype=bool)
    allowed &= ~_other_order(words, day_first)
    first: dict[str, object] = {"dayfirst": day_first}
    for options in [first] if _NO_MIXED else [first, {"format": "mixed", **first}]:
        left = np.flatnonzero(np.isnan(values) & allowed)
        if len(left):
            values[left] = _parsed(words.iloc[left], options)
    return values


def _parsed(words: pd.Series, options: Mapping[str, object]) -> NDArray[np.float64]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # on formats that differ, which is allowed
        read = pd.to_datetime(words, utc=True, errors="coerce", **options)  # type: ignore[call-overload]
    return _to_seconds(read)


def _to_seconds(read: pd.Series) -> NDArray[np.float64]:
    start = pd.Timestamp(0, tz="UTC")
    return (read - start).dt.total_seconds().to_numpy(dtype=np.float64)


def _other_order(words: pd.Series, day_first: bool) -> NDArray[np.bool_]:
    """Dates such as 13/02/2023 that can only be read with day and month the other way round."""
    parts = words.str.extract(_DAY_AND_MONTH).astype(float)
    month = parts[1] if day_first else parts[0]
    return (month > 12).to_numpy(dtype=bool)


def _remedy(words: pd.Series, form: str | None, day_first: bool) -> str:
    if form is not None:
        return "correct it, or --time-format"
    if _other_order(words, day_first).any():
        if not _other_order(words, not day_first).any():
            return "leave out --day-first" if day_first else "give --day-first"
        return "some dates have the day first and some the month; write all of them alike"
    return "correct it, or describe odd dates with --time-format, such as %Y%m%d"
