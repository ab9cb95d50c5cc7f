"""RecBole's atomic files (``.inter``, ``.user``, ``.item``): header, rows, and what is wrong there.

RecBole reads them with pandas. What it would read wrongly without a word is refused here.
"""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from recbole_missing.data.files import read_first_line, read_text, with_mark

_TYPES = ("token", "token_seq", "float", "float_seq")
_SEPARATORS = ("\t", ",", ";", "|", "::", " ")
_EXACT = 2**53  # up to here float64 holds every integer


def encoding_of(config: Any) -> str:
    """Encoding of the atomic files: RecBole's setting ``encoding``; UTF-8 by default."""
    return config["encoding"] or "utf-8"


@dataclass(frozen=True)
class AtomicFile:
    """One atomic file, of which the header has been read.

    Args:
        path: the file.
        header: cells of the first line, ``field:type``.
        separator: separator between two cells.
        encoding: encoding of the file; a byte-order mark is no part of the text.
    """

    path: Path
    header: Sequence[str]
    separator: str
    encoding: str

    @classmethod
    def opened(cls, path: Path, config: Any, ids: Collection[str]) -> AtomicFile:
        """Read and check the header.

        Args:
            path: the file.
            config: RecBole's config.
            ids: fields that must be there as tokens, if they are there.

        Raises:
            ValueError: if the file is empty or its header is wrong.
        """
        separator, encoding = config["field_separator"], encoding_of(config)
        line = read_first_line(path, encoding)
        table = cls(path, line.split(separator), separator, encoding)
        table._check_header(ids)
        return table

    @property
    def names(self) -> list[str]:
        """The fields, without their types."""
        return [cell.partition(":")[0] for cell in self.header]

    def type_of(self, field: str) -> str:
        """Type of a field, such as ``token``."""
        return self.header[self.names.index(field)].partition(":")[2]

    def _check_header(self, ids: Collection[str]) -> None:
        if self.header == [""]:
            raise ValueError(
                f"{self.path}: the first line must be a header of `field:type`, got an empty line; "
                "write it."
            )
        if len(self.header) == 1 and self.header[0].count(":") != 1:
            self._refuse_separator()
        if not all(cell.count(":") == 1 for cell in self.header):
            raise ValueError(
                f"{self.path}: the first line must be a header of `field:type`, got "
                f"{list(self.header)[:5]}; correct it."
            )
        for name, kind in (cell.split(":") for cell in self.header):
            allowed = ("token",) if name in ids else _TYPES
            if kind not in allowed:
                raise ValueError(
                    f"{self.path}: the type of {name} must be {' or '.join(allowed)}, got "
                    f"{kind!r}; correct the header."
                )
        twice = [name for name in self.names if self.names.count(name) > 1]
        if twice:
            raise ValueError(
                f"{self.path}: columns must have different names, got {twice[0]!r} "
                f"{self.names.count(twice[0])} times; rename or remove one."
            )

    def _refuse_separator(self) -> None:
        line = self.header[0]
        fitting = [
            other for other in _SEPARATORS if all(c.count(":") == 1 for c in line.split(other))
        ]
        if fitting and self.separator not in line:
            raise ValueError(
                f"{self.path}: cells must be separated by field_separator {self.separator!r}, got "
                f"a first line without it; {fitting[0]!r} occurs there, so set field_separator to "
                "it."
            )

    def lines(self) -> NDArray[np.int64]:
        """Line number of each row, in the order of RecBole's table, ``(n_rows,)``.

        Blank lines are no rows. Quotes mean what they mean to RecBole, which reads as CSV does.

        Raises:
            ValueError: if a row has more or fewer cells than the header; RecBole would fill it up,
                cut it off or shift it without a word.
        """
        try:
            widths = np.fromiter(map(len, self._rows()), dtype=np.int32)[1:]
        except (csv.Error, UnicodeError) as error:
            raise self._unreadable(error) from error
        is_row = widths > 0
        wrong = np.flatnonzero(is_row & (widths != len(self.header)))
        for place in wrong.tolist():
            cells = self.cells(place + 2)
            if len(cells) > 1 or cells[0].strip():
                text = self.separator.join(cells)[:60]
                raise ValueError(
                    f"{self.path}: every row must have {len(self.header)} cells as the header, got "
                    f"{len(cells)} in line {place + 2} ({text!r}; {len(wrong):,} lines are so); "
                    "correct it."
                )
            is_row[place] = False
        return np.flatnonzero(is_row) + 2

    def cells(self, line: int) -> list[str]:
        """Cells of one line."""
        for number, cells in enumerate(self._rows(), 1):
            if number == line:
                return cells
        raise IndexError(f"{self.path} has no line {line}")

    def _rows(self) -> Iterator[list[str]]:
        with self.path.open(encoding=with_mark(self.encoding), newline="") as file:
            if len(self.separator) == 1:
                yield from csv.reader(file, delimiter=self.separator)
            else:
                yield from (line.rstrip("\r\n").split(self.separator) for line in file)

    def check_ids(self, frame: pd.DataFrame, ids: Iterable[str], lines: NDArray[Any]) -> None:
        """Refuse rows without a user or item.

        Raises:
            ValueError: naming the first line. Words that pandas takes for an empty cell, such as
                ``NA`` and ``null``, are no tokens either.
        """
        for field in ids:
            empty = np.flatnonzero(frame[field].isna())
            if len(empty):
                line, got = self._found(field, empty[0], lines)
                raise ValueError(
                    f"{self.path}: {field} must be a token, got {got!r} in line {line}, which "
                    f"means that it is empty ({len(empty):,} of {len(frame):,} rows); write a "
                    "token or remove the row."
                )

    def check_times(self, frame: pd.DataFrame, field: str, lines: NDArray[Any]) -> None:
        """Refuse times that are not finite.

        Raises:
            ValueError: naming the first line.
        """
        wrong = np.flatnonzero(~np.isfinite(frame[field].to_numpy(dtype=np.float64)))
        if len(wrong):
            line, got = self._found(field, wrong[0], lines)
            raise ValueError(
                f"{self.path}: {field} must be a finite number to put interactions in order, got "
                f"{got!r} in line {line} ({len(wrong):,} of {len(frame):,} rows); correct it."
            )

    def _found(self, field: str, row: int, lines: NDArray[Any]) -> tuple[int, str]:
        line = int(lines[row])
        return line, self.cells(line)[self.names.index(field)]

    def exact(self, frame: pd.DataFrame, field: str) -> pd.Series:
        """A column of finite numbers, in which those that differ in the file differ.

        Returns:
            The column as it is where float64 tells its numbers apart. Otherwise integers, or
            objects (int or Decimal) where 64 bits are not enough.
        """
        column = frame[field]
        read = column.to_numpy(dtype=np.float64)
        is_large = len(read) > 0 and np.abs(read).max() >= _EXACT
        if not is_large and (read % 1 == 0).all():
            return column
        if is_large:
            inferred = self._texts([field], None)[field]
            if inferred.dtype.kind in "iu":  # pandas found no point, and no more than 64 bits
                return inferred.set_axis(column.index)
        codes, words = pd.factorize(self._texts([field])[field])
        numbers: list[Any] = [Decimal(word) for word in words]
        if is_large:
            whole = [int(number) for number in numbers]
            numbers = whole if whole == numbers else numbers
            if numbers is whole and min(whole) >= -(2**63) and max(whole) < 2**63:
                return pd.Series(np.array(whole, dtype=np.int64)[codes], column.index)
        if _is_told_apart(numbers, codes, read):
            return column
        return pd.Series(np.array(numbers, dtype=object)[codes], column.index)

    def unreadable(self, error: ValueError, fields: Iterable[str]) -> ValueError:
        """What to say of a file that pandas could not read: the first cell that is no number.

        Args:
            error: what pandas or RecBole raised.
            fields: the columns that were read.
        """
        if isinstance(error, UnicodeError):
            return self._unreadable(error)
        numbers = [field for field in fields if self.type_of(field) == "float"]
        texts = self._texts(numbers)
        for field in numbers:
            wrong = pd.to_numeric(texts[field], errors="coerce").isna() & texts[field].notna()
            if wrong.any():
                row = int(np.flatnonzero(wrong)[0])
                return ValueError(
                    f"{self.path}: {field} must be a number, got {texts[field].iloc[row]!r} in "
                    f"line {self.lines()[row]} ({wrong.sum():,} of {len(wrong):,} rows); correct "
                    "it, or the type in the header."
                )
        return self._unreadable(error)

    def _unreadable(self, error: Exception) -> ValueError:
        if isinstance(error, UnicodeError):
            try:
                read_text(self.path, self.encoding)
            except ValueError as refusal:
                return refusal
        return ValueError(f"{self.path}: must be an atomic file, got: {error}; correct it.")

    def _texts(self, fields: Sequence[str], dtype: type | None = str) -> pd.DataFrame:
        wanted = [self.header[self.names.index(field)] for field in fields]
        # The parser in C is ten times as fast, and knows separators of one byte only. Quotes that
        # RecBole's parser would not take have been refused before.
        one_byte = len(self.separator.encode()) == 1
        texts = pd.read_csv(
            self.path, delimiter=self.separator, usecols=wanted, dtype=dtype,
            encoding=with_mark(self.encoding), engine="c" if one_byte else "python",
        )  # fmt: skip
        return texts.rename(columns=dict(zip(wanted, fields)))


def _is_told_apart(
    numbers: Sequence[Any], codes: NDArray[np.int64], read: NDArray[np.float64]
) -> bool:
    """Tell whether what was read is in the order of the exact numbers, and equal for none of them.

    Args:
        numbers: distinct exact numbers.
        codes: for each row the place of its number.
        read: for each row what pandas read. Its last digit may be wrong.
    """
    nearest = np.array(numbers, dtype=np.float64)
    order = np.argsort(nearest)
    of_number = np.empty(len(numbers))
    of_number[codes] = read
    return all(bool((np.diff(values[order]) > 0).all()) for values in (nearest, of_number))
