"""Who bought what: the interactions of a raw table, after the filters that the user asks for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from recbole_missing.convert import times
from recbole_missing.convert.raw import RawTable, distinct, open_table, spread

DUPLICATES = ("last", "first", "keep", "error")


@dataclass(frozen=True)
class PurchaseTable:
    """A raw table of interactions, and what to keep of it.

    Args:
        path: CSV, TSV or Parquet file; see :func:`.raw.open_table`.
        user, item: columns of the ids.
        time: column of the times; None without times.
        rating: column of numbers that is kept; None without.
        time_format: format of odd dates, as of ``strptime``.
        day_first: dates such as 01/02/2023 have the day first.
        min_rating: rows with a lower rating are left out.
        duplicates: what becomes of rows of one user and one item: ``last`` or ``first`` by time (by
            place in the file without times) is kept, ``keep`` keeps all, ``error`` refuses them.
        k_core: users and items with fewer rows are left out, again and again until none has; 0 for
            no such filter.
        drop_incomplete: leave out rows without a user, item or time instead of refusing them.
        separator, encoding: of a text file.
    """

    path: Path
    user: str
    item: str
    time: str | None = None
    rating: str | None = None
    time_format: str | None = None
    day_first: bool = False
    min_rating: float | None = None
    duplicates: str = "last"
    k_core: int = 0
    drop_incomplete: bool = False
    separator: str | None = None
    encoding: str = "utf-8"

    def options(self) -> dict[str, str]:
        """Option of the command -> column."""
        named = {
            "--user": self.user, "--item": self.item, "--time": self.time, "--rating": self.rating
        }  # fmt: skip
        return {option: column for option, column in named.items() if column is not None}


@dataclass
class Purchases:
    """Interactions that are left.

    Attributes:
        users, items: categorical ids ``(n,)``, in the order of the file.
        times, ratings: float64 ``(n,)``, or None.
        rows: number of rows of the table.
        dropped: rule -> number of rows that it left out.
        repeats: number of rows that repeat a user and item.
        notes: sentences for the user.
    """

    users: pd.Series
    items: pd.Series
    times: NDArray[np.float64] | None
    ratings: NDArray[np.float64] | None
    rows: int
    dropped: dict[str, int] = field(default_factory=dict)
    repeats: int = 0
    notes: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        """Number of interactions."""
        return len(self.users)

    def keep(self, rule: str, kept: NDArray[np.bool_]) -> None:
        """Keep some rows; note how many the rule left out."""
        lost = int((~kept).sum())
        if not lost:
            return
        self.dropped[rule] = self.dropped.get(rule, 0) + lost
        self.users, self.items = self.users[kept], self.items[kept]
        self.times = None if self.times is None else self.times[kept]
        self.ratings = None if self.ratings is None else self.ratings[kept]


def read_purchases(wanted: PurchaseTable) -> Purchases:
    """Read and filter interactions.

    The filters come in this order: incomplete rows, ratings, duplicates, k-core.

    Raises:
        ValueError: if the file, a column, a cell or an option is wrong, or too little is left for
            training, validation and test.
    """
    _check(wanted)
    table = open_table(wanted.path, wanted.separator, wanted.encoding)
    columns = wanted.options()
    table.check_columns(columns)
    frame = table.read(list(columns.values()), ids=(wanted.user, wanted.item))
    if frame.empty:
        raise ValueError(f"{wanted.path}: must have rows, got a header only; fill the table.")
    found = _parsed(wanted, table, frame)
    del frame
    found.keep("incomplete", ~_incomplete(wanted, found, table))
    if wanted.min_rating is not None and found.ratings is not None:
        found.keep(f"rating below {wanted.min_rating:g}", found.ratings >= wanted.min_rating)
    _settle_duplicates(wanted, found)
    if wanted.k_core:
        kept = _core(found.users, found.items, wanted.k_core)
        found.keep(f"{wanted.k_core}-core", kept)
    _check_left(wanted, found)
    return found


def _check(wanted: PurchaseTable) -> None:
    if wanted.duplicates not in DUPLICATES:
        raise ValueError(
            f"--duplicates: must be one of {', '.join(DUPLICATES)}, got {wanted.duplicates!r}."
        )
    if wanted.k_core < 0:
        raise ValueError(f"--k-core: must be 0 or more, got {wanted.k_core}.")
    if wanted.min_rating is not None and wanted.rating is None:
        raise ValueError("--min-rating: must come with --rating, got none; name the column.")
    if wanted.time is None and (wanted.time_format is not None or wanted.day_first):
        raise ValueError(
            "--time-format, --day-first: must come with --time, got none; name the column."
        )


def _parsed(wanted: PurchaseTable, table: RawTable, frame: pd.DataFrame) -> Purchases:
    moments = ratings = None
    if wanted.time is not None:
        who = f"{wanted.path}: {wanted.time}"
        moments = times.seconds(
            who, frame[wanted.time], table.where, wanted.time_format, wanted.day_first
        )
    if wanted.rating is not None:
        ratings = numbers(f"{wanted.path}: {wanted.rating}", frame[wanted.rating], table)
    found = Purchases(frame[wanted.user], frame[wanted.item], moments, ratings, len(frame))
    if ratings is not None and wanted.min_rating is None and np.isfinite(ratings).any():
        found.notes.append(
            f"{wanted.rating}: {np.nanmin(ratings):g} to {np.nanmax(ratings):g}; every row counts "
            "as an interaction, low ratings too; --min-rating X leaves them out"
        )
    if moments is not None:
        _note_times(wanted, frame[str(wanted.time)], moments, found.notes)
    return found


def numbers(who: str, column: pd.Series, table: RawTable) -> NDArray[np.float64]:
    """Read a categorical column as finite numbers; NaN where it is empty.

    Args:
        who: file and column, for messages.
        column: texts; its index holds the row of each in the file.
        table: the file.

    Raises:
        ValueError: naming the first cell that is none.
    """
    column = column.cat.remove_unused_categories()
    words = distinct(column)
    values = pd.to_numeric(words, errors="coerce").to_numpy(dtype=np.float64)
    wrong = np.flatnonzero(~np.isfinite(values))
    if len(wrong):
        place = int(np.flatnonzero(np.isin(column.cat.codes, wrong))[0])
        row = int(column.index[place])
        raise ValueError(
            f"{who} must be a number, got {column.iloc[place]!r} in {table.where(row)} "
            f"({len(wrong):,} of {len(words):,} different ones are none); correct it, with a point "
            "before decimals and none between thousands."
        )
    return spread(values, column, np.nan)


def _note_times(
    wanted: PurchaseTable, column: pd.Series, moments: NDArray[np.float64], notes: list[str]
) -> None:
    known = np.flatnonzero(np.isfinite(moments))
    if not len(known):
        return
    first = column.iloc[known[0]]
    if pd.to_numeric(first, errors="coerce") != moments[known[0]]:
        notes.append(f"{wanted.time}: {first!r} is read as {times.shown(moments[known[0]])} UTC")
        without = int(times.without_zone(column).sum())
        if 0 < without < len(known):
            notes.append(
                f"{wanted.time}: {without:,} of {len(known):,} times have no zone and are read as "
                "UTC"
            )
    before = int((moments < 0).sum())
    if before:
        notes.append(f"{wanted.time}: {before:,} times are before 1970")


def _incomplete(wanted: PurchaseTable, found: Purchases, table: RawTable) -> NDArray[np.bool_]:
    """Rows that lack something, bool ``(n,)``.

    Raises:
        ValueError: if there are such rows and they may not be left out.
    """
    lacks = {
        wanted.user: found.users.isna().to_numpy(),
        wanted.item: found.items.isna().to_numpy(),
    }
    if wanted.time is not None and found.times is not None:
        lacks[wanted.time] = np.isnan(found.times)
    if wanted.rating is not None and found.ratings is not None and wanted.min_rating is not None:
        lacks[wanted.rating] = np.isnan(found.ratings)
    return settle_incomplete(wanted.path, table, lacks, wanted.drop_incomplete)


def settle_incomplete(
    path: Path, table: RawTable, lacks: Mapping[str, NDArray[np.bool_]], drop: bool
) -> NDArray[np.bool_]:
    """Rows with an empty cell where there must be none, bool ``(n,)``.

    Args:
        path: the file.
        table: the opened file.
        lacks: column -> bool ``(n,)``, where it is empty.
        drop: whether such rows may be left out.

    Raises:
        ValueError: if there are such rows and they may not be left out; it names the first three.
    """
    wrong = np.logical_or.reduce(list(lacks.values()))
    if wrong.any() and not drop:
        rows = np.flatnonzero(wrong)
        places = ", ".join(table.where(int(row)) for row in rows[:3])
        counts = ", ".join(f"{name} {int(empty.sum()):,}" for name, empty in lacks.items())
        raise ValueError(
            f"{path}: every row must have {' and '.join(lacks)}, got {len(rows):,} of "
            f"{len(wrong):,} rows with an empty cell there ({counts}), the first in {places}; "
            "complete them, or leave such rows out with --drop-incomplete. NA, null and the like "
            "count as empty."
        )
    return wrong


def _settle_duplicates(wanted: PurchaseTable, found: Purchases) -> None:
    """Leave out rows that repeat a user and item, as the user wants.

    Raises:
        ValueError: if there must be none.
    """
    pairs = found.users.cat.codes.to_numpy(dtype=np.int64) * len(found.items.cat.categories)
    pairs += found.items.cat.codes.to_numpy()
    order = np.arange(len(pairs))
    if found.times is not None:
        order = np.argsort(found.times, kind="stable")
    keep = "first" if wanted.duplicates == "first" else "last"
    repeated = np.empty(len(pairs), dtype=bool)
    repeated[order] = pd.Series(pairs[order]).duplicated(keep=keep).to_numpy()
    count = int(repeated.sum())
    if count and wanted.duplicates == "error":
        row = int(np.flatnonzero(repeated)[0])
        raise ValueError(
            f"{wanted.path}: a user and an item must meet once, got {count:,} rows that repeat "
            f"such a pair, for example {found.users.iloc[row]!r} and {found.items.iloc[row]!r}; "
            "choose with --duplicates last, first or keep."
        )
    if wanted.duplicates == "keep":
        found.repeats = count
    else:
        found.keep(f"repeated user and item, the {keep} one kept", ~repeated)


def _core(users: pd.Series, items: pd.Series, k: int) -> NDArray[np.bool_]:
    """Rows whose user and item have ``k`` such rows or more, bool ``(n,)``."""
    ids = [column.cat.codes.to_numpy() for column in (users, items)]
    kept = np.ones(len(users), dtype=bool)
    while True:
        few = np.zeros(len(users), dtype=bool)
        for column in ids:
            few |= np.bincount(column[kept], minlength=int(column.max(initial=0)) + 1)[column] < k
        if not (few & kept).any():
            return kept
        kept &= ~few


def _check_left(wanted: PurchaseTable, found: Purchases) -> None:
    """Refuse interactions that cannot be split in three parts."""
    lost = ", ".join(f"{rule} {count:,}" for rule, count in found.dropped.items()) or "none"
    if not len(found):
        raise ValueError(
            f"{wanted.path}: some rows must be left after the filters, got none of {found.rows:,} "
            f"(left out: {lost}); loosen them."
        )
    for option, column, ids in (
        ("--user", wanted.user, found.users),
        ("--item", wanted.item, found.items),
    ):
        if ids.nunique() < 2:
            raise ValueError(
                f"{wanted.path}: {option} {column}: must have two different ids or more, got only "
                f"{ids.iloc[0]!r} in {len(found):,} rows (left out: {lost}); name the column of "
                "the ids."
            )
    most = int(np.bincount(found.users.cat.codes).max())
    if most < 3:
        raise ValueError(
            f"{wanted.path}: some user must have three items or more, one each to train on, "
            f"validate and test, got at most {most} (left out: {lost}); is {wanted.user!r} the "
            "column of users, and not that of orders?"
        )
