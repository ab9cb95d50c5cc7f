"""Raw tables: CSV, TSV or Parquet files, whose columns are chosen by name.

Every cell is read as text, so an id such as ``0108775015`` keeps its zeros. A column comes as
categories (each different text once) and codes, which takes little memory where texts repeat.
"""

from __future__ import annotations

import bz2
import codecs
import csv
import gzip
import io
import itertools
import lzma
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from recbole_missing.config.constraints import unknown
from recbole_missing.data.files import with_mark

SEPARATORS = {".csv": ",", ".tsv": "\t", ".tab": "\t"}
_PARQUET = (".parquet", ".pq")
_OPENERS: Mapping[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
_LONGEST = 2**31 - 1  # characters of a cell; csv takes no more on every system
_LIKELY = (",", ";", "\t", "|")


class RawTable(ABC):
    """A table of which the header has been read.

    Attributes:
        path: the file.
        names: the columns, in the order of the file.
    """

    path: Path
    names: Sequence[str]

    @abstractmethod
    def read(self, columns: Sequence[str], ids: Collection[str] = ()) -> pd.DataFrame:
        """Read some columns as text.

        Args:
            columns: the wanted columns.
            ids: those of them that hold ids. In Parquet they must be texts or whole numbers.

        Returns:
            Categorical columns in that order, one row for each row of the file. What pandas takes
            for an empty cell (``""``, ``NA``, ``null`` and others) is NaN. RecBole reads its own
            files in the same way.

        Raises:
            ValueError: if the file is damaged or a column cannot be read as text.
        """

    @abstractmethod
    def where(self, row: int) -> str:
        """Say where in the file a row of :meth:`read` is, such as ``line 7``."""

    def check_columns(self, wanted: Mapping[str, str]) -> None:
        """Refuse columns that are absent, ambiguous, or asked for twice.

        Args:
            wanted: what asks for the column, such as ``--user`` -> the column.

        Raises:
            ValueError: naming the option.
        """
        for option, column in wanted.items():
            if column not in self.names:
                self._refuse_separator()
                raise ValueError(f"{self.path}: {option}: {unknown('column', column, self.names)}")
            if self.names.count(column) > 1:
                raise ValueError(
                    f"{self.path}: columns must have different names, got {column!r} "
                    f"{self.names.count(column)} times; rename one."
                )
        uses = Counter(wanted.values())
        for column, count in uses.items():
            if count > 1:
                options = [option for option, name in wanted.items() if name == column]
                raise ValueError(
                    f"{' and '.join(options)}: must be different columns, got {column!r} for "
                    f"{'both' if count == 2 else 'all'}; correct one."
                )

    def _refuse_separator(self) -> None:
        """Refuse a file in which the separator does not occur, if its header looks so."""
        return


def open_table(path: Path, separator: str | None = None, encoding: str = "utf-8") -> RawTable:
    """Open a table and read its header.

    Args:
        path: ``.csv``, ``.tsv`` or ``.tab``, perhaps with ``.gz``, ``.bz2`` or ``.xz`` behind it,
            or ``.parquet`` or ``.pq``. Another suffix needs a separator.
        separator: one character between two cells; None for that of the suffix. Parquet files have
            none.
        encoding: encoding of a text file. A byte-order mark is no part of the text.

    Raises:
        ValueError: if there is no such file, it is empty, it is not such a file, there is no such
            encoding, or the file is Parquet and pyarrow cannot be imported.
    """
    check_there(path)
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes[-1:] and suffixes[-1] in _PARQUET:
        return _Parquet(path)
    plain = suffixes[:-1] if suffixes[-1:] and suffixes[-1] in _OPENERS else suffixes
    chosen = separator or SEPARATORS.get(plain[-1] if plain else "")
    if chosen is None:
        raise ValueError(
            f"{path}: must be a {', '.join((*SEPARATORS, *_PARQUET))} file, got "
            f"{path.suffix or 'no suffix'!r}; save it as one of them, or give --separator if it is "
            "text."
        )
    chosen = {"\\t": "\t", "tab": "\t"}.get(chosen, chosen)
    if len(chosen) != 1 or not chosen.isascii() or chosen in "\r\n\"'":
        raise ValueError(
            f"--separator: must be one character, such as ';' or tab, got {chosen!r}; correct it."
        )
    return _Delimited(path, chosen, encoding)


def check_there(path: Path) -> None:
    """Refuse a table that is not there.

    Raises:
        ValueError: if there is no such file, or it is empty.
    """
    if not path.is_file():
        raise ValueError(f"{path}: must be a file, got a folder or nothing; correct the path.")
    if not path.stat().st_size:
        raise ValueError(f"{path}: must hold a table, got 0 bytes; write it again.")


class _Delimited(RawTable):
    """A text file. Quotes are those of CSV."""

    def __init__(self, path: Path, separator: str, encoding: str) -> None:
        self.path, self.separator, self.encoding = path, separator, encoding
        header = next((cells for cells in self._rows() if cells), [])
        self.names = header
        if not any(name.strip() for name in header):
            raise ValueError(
                f"{path}: the first line must name the columns, got {header}; write a header."
            )

    def read(self, columns: Sequence[str], ids: Collection[str] = ()) -> pd.DataFrame:
        self._check_widths()
        places = [self.names.index(column) for column in columns]
        try:
            with self._opened() as file:
                frame = pd.read_csv(
                    file, sep=self.separator, header=0, usecols=places, dtype="category",
                    index_col=False,
                )  # fmt: skip
        except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
            raise ValueError(
                f"{self.path}: must be cells separated by {self.separator!r}, got: "
                f"{str(error).strip()}; correct the file, or give --separator."
            ) from error
        frame.columns = pd.Index([self.names[place] for place in sorted(places)])
        return frame[list(columns)]

    def where(self, row: int) -> str:
        line, _ = next(itertools.islice(self._numbered(), row + 1, None))
        return f"line {line}"

    def _check_widths(self) -> None:
        """Refuse rows with more or fewer cells than the header.

        pandas would cut the former off and fill the latter up, without a word.
        """
        widths = np.fromiter(map(len, self._rows()), dtype=np.int32)
        if not ((widths > 0) & (widths != len(self.names))).any():
            return
        wrong = (row for row in self._numbered() if len(row[1]) != len(self.names))
        line, cells = next(wrong, (0, []))
        if not line:  # only lines of spaces, which pandas skips too
            return
        text = self.separator.join(cells)[:60]
        raise ValueError(
            f"{self.path}: every row must have {len(self.names)} cells as the header, got "
            f"{len(cells)} in line {line} ({text!r}); correct it. A text that holds "
            f"{self.separator!r} or a line end stands in quotes."
        )

    def _refuse_separator(self) -> None:
        if len(self.names) > 1:
            return
        fitting = [sign for sign in _LIKELY if sign in self.names[0] and sign != self.separator]
        hint = f" {fitting[0]!r} occurs there: --separator {_shown(fitting[0])}." if fitting else ""
        raise ValueError(
            f"{self.path}: cells must be separated by {self.separator!r}, got one column, "
            f"{self.names[0]!r}; give the right --separator.{hint}"
        )

    def _numbered(self) -> Iterator[tuple[int, list[str]]]:
        """Number of its first line, and cells, of each row that is not blank; header first."""
        reader, start = self._reader(), 1
        for cells in self._lines(reader):
            if _is_filled(cells):
                yield start, cells
            start = reader.line_num + 1

    def _rows(self) -> Iterator[list[str]]:
        yield from self._lines(self._reader())

    def _lines(self, reader: Any) -> Iterator[list[str]]:
        while (cells := self._next(reader)) is not None:
            yield cells

    def _next(self, reader: Any) -> list[str] | None:
        """Read a row; None at the end. The limit of csv is lifted for this row alone."""
        limit = csv.field_size_limit(_LONGEST)
        try:
            cells: list[str] | None = next(reader, None)
            if cells and "\0" in "".join(cells):  # pandas would end the cell there
                raise csv.Error("a NUL character")
        except csv.Error as error:
            raise ValueError(
                f"{self.path}: line {reader.line_num} must be cells separated by "
                f"{self.separator!r}, got: {error}; correct it."
            ) from error
        finally:
            csv.field_size_limit(limit)
        return cells

    def _reader(self) -> Any:
        def lines() -> Iterator[str]:
            with self._opened() as file:
                yield from file

        return csv.reader(lines(), delimiter=self.separator)

    @contextmanager
    def _opened(self) -> Iterator[IO[str]]:
        opener = _OPENERS.get(self.path.suffix.lower(), open)
        try:
            codecs.lookup(self.encoding)
            with opener(self.path, "rt", encoding=with_mark(self.encoding), newline="") as file:
                yield file
        except LookupError as error:
            raise ValueError(
                f"--encoding: must be an encoding of Python, got {self.encoding!r}; correct it."
            ) from error
        except UnicodeError as error:
            raise ValueError(self._undecodable(error)) from error
        except (EOFError, lzma.LZMAError, gzip.BadGzipFile) as error:
            raise ValueError(
                f"{self.path}: must be a whole {self.path.suffix} file, got: {error}; copy it "
                "again."
            ) from error

    def _undecodable(self, error: UnicodeError) -> str:
        """What to say of a text that is not in the encoding: the first line that is not."""
        name, start = self.encoding.upper(), f"{self.path}: must be {self.encoding.upper()} text"
        remedy = (
            f"save it as {name}, or name its encoding: --encoding cp1252 (Windows), latin-1, utf-16"
        )
        opener = _OPENERS.get(self.path.suffix.lower(), open)
        with opener(self.path, "rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    line.decode(self.encoding)
                except UnicodeDecodeError as wrong:
                    return (
                        f"{start}, got byte {line[wrong.start]:#04x} at position {wrong.start} of "
                        f"line {number}; {remedy}."
                    )
        return f"{start}, got: {error}; {remedy}."


class _Parquet(RawTable):
    """A Parquet file, read by pyarrow."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            import pyarrow
            from pyarrow import parquet
        except ImportError as error:
            # Version 26 demands numpy 2, and pip does not know it.
            package = "pyarrow" if int(np.__version__.split(".")[0]) >= 2 else '"pyarrow<26"'
            raise ValueError(
                f"{path}: needs pyarrow, got: {error}; run `pip install {package}`, or save the "
                "table as CSV."
            ) from error
        try:
            self._file = parquet.ParquetFile(str(path))
        except (pyarrow.ArrowException, OSError) as error:
            raise ValueError(
                f"{path}: must be a Parquet file, got: {error}; write it again."
            ) from error
        self.names = self._file.schema_arrow.names

    def read(self, columns: Sequence[str], ids: Collection[str] = ()) -> pd.DataFrame:
        import pyarrow

        try:
            table = self._file.read(columns=list(columns))
        except (pyarrow.ArrowException, OSError) as error:
            raise ValueError(
                f"{self.path}: must be a whole file, got: {error}; copy it."
            ) from error
        return pd.DataFrame({name: self._text(table, name, name in ids) for name in columns})

    def where(self, row: int) -> str:
        return f"row {row + 1}"

    def _text(self, table: Any, name: str, is_id: bool) -> pd.Categorical:
        import pyarrow

        column, kind = table.column(name), table.schema.field(name).type
        try:
            if is_id and pyarrow.types.is_floating(kind):
                column = column.cast(pyarrow.int64())
            texts = column.cast(pyarrow.string()).combine_chunks().dictionary_encode()
        except pyarrow.ArrowException as error:
            needed = "text or whole numbers" if is_id else "text, numbers or times"
            raise ValueError(
                f"{self.path}: column {name!r} must hold {needed}, got {kind} ({error}); convert "
                "it."
            ) from error
        if isinstance(texts, pyarrow.ChunkedArray):
            texts = texts.combine_chunks()
        words = np.array(texts.dictionary.to_pylist(), dtype=object)
        if any("\0" in word for word in words.tolist()):  # no reader of text files takes it
            raise ValueError(
                f"{self.path}: column {name!r} must hold text, got a NUL character; remove it."
            )
        codes = texts.indices.fill_null(-1).to_numpy(zero_copy_only=False)
        empty = _is_empty(words)
        number = np.append(np.where(empty, -1, np.cumsum(~empty) - 1), -1)
        return pd.Categorical.from_codes(number[codes], categories=pd.Index(words[~empty], object))


def _is_filled(cells: Sequence[str]) -> bool:
    """Tell whether a row is one to pandas, which skips blank lines."""
    return len(cells) > 1 or bool(cells and cells[0].strip())


def _is_empty(words: NDArray[np.object_]) -> NDArray[np.bool_]:
    """Tell which words pandas takes for an empty cell, bool ``(n_words,)``."""
    text = io.StringIO(newline="")
    csv.writer(text, quoting=csv.QUOTE_ALL).writerows(zip(words))
    text.seek(0)
    options: dict[str, Any] = {"header": None, "names": ["word"], "skip_blank_lines": False}
    if not len(words):
        return np.zeros(0, dtype=bool)
    return pd.read_csv(text, dtype=str, **options)["word"].isna().to_numpy()


def _shown(separator: str) -> str:
    return "tab" if separator == "\t" else repr(separator)


def distinct(column: pd.Series) -> pd.Series:
    """Each different text of a categorical column once, object ``(n,)``."""
    return pd.Series(np.asarray(column.cat.categories, dtype=object), dtype=object)


def spread(values: NDArray[Any], column: pd.Series, empty: Any) -> NDArray[Any]:
    """Value of each row of a categorical column, ``(n_rows,)``.

    Args:
        values: value of each text of :func:`distinct`.
        column: the column.
        empty: value where it is empty.
    """
    return np.append(values, empty)[column.cat.codes.to_numpy()]


def texts(column: pd.Series) -> NDArray[np.object_]:
    """Text of each row of a categorical column; ``""`` where it is empty."""
    return spread(distinct(column).to_numpy(), column, "")
