"""Readers of files with numbers and words. Nothing is unpickled.

The readers know nothing of items and modalities. If a file is damaged or has the wrong format, they
raise a ValueError that names the file.
"""

from __future__ import annotations

import csv
import io
import math
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from tokenize import TokenError
from typing import Any, BinaryIO

import numpy as np

from recbole_missing.config.constraints import unknown

_MAGIC = b"\x93NUMPY"
_PICKLED = "pickled; convert it, or run `recbole-missing import`."


def read_matrix(path: Path) -> np.ndarray:
    """Read a matrix ``(n_rows, dim)`` of any real dtype. A ``.npy`` file is mapped from disk.

    Args:
        path: a ``.npy`` file, or a ``.npz`` or ``.safetensors`` file with one array or an array
            called ``features``.

    Raises:
        ValueError: if the file is damaged or does not hold a matrix of numbers.
    """
    readers = {".npy": _read_npy, ".npz": _read_npz, ".safetensors": _read_safetensors}
    if path.suffix not in readers:
        pickled = f" A {path.suffix} file is {_PICKLED}" if path.suffix in (".pkl", ".pt") else ""
        raise ValueError(
            f"{path}: features must be a {', '.join(readers)} file or a folder of .npy files, "
            f"got {path.suffix!r}; convert it.{pickled}"
        )
    _size(path)
    matrix = readers[path.suffix](path)
    if matrix.ndim != 2 or not matrix.shape[1]:
        raise ValueError(
            f"{path}: features must be a matrix (n_rows, dim), got {matrix.shape}; reshape it."
        )
    return _numbers(path, matrix)


def read_folder(folder: Path, names: Sequence[str]) -> np.ndarray:
    """Read ``<name>.npy`` for every name, vectors ``(dim,)`` or ``(1, dim)``, as one matrix.

    The layout is Ducho's (https://github.com/sisinflab/Ducho).

    Raises:
        ValueError: if a file is damaged or has another length; it names the first one.
    """
    vectors: list[np.ndarray] = []
    for name in names:
        path = folder / f"{name}.npy"
        _size(path)
        vector = _numbers(path, _read_npy(path))
        if vector.ndim == 0 or vector.size == 0 or vector.size != vector.shape[-1]:
            raise ValueError(
                f"{path}: features must be one vector (dim,) or (1, dim), got shape {vector.shape}."
            )
        if vectors and vector.size != vectors[0].size:
            raise ValueError(
                f"{path}: features must have {vectors[0].size} numbers as in {names[0]}.npy, "
                f"got {vector.size}; extract them with one model."
            )
        vectors.append(np.array(vector).reshape(-1))
    return np.stack(vectors)


def read_ids(path: Path, encoding: str = "utf-8") -> list[str]:
    """Read ids from a text file with one id on each line, or from a ``.npy`` file.

    Quotes and blank lines are those of :func:`read_rows`. A ``.npy`` file holds integers or
    strings.

    Raises:
        ValueError: if the file is damaged or holds something else.
    """
    if path.suffix != ".npy":
        rows = read_rows(path, "\t", encoding)
        for number, cells in rows:
            if len(cells) != 1:
                raise ValueError(
                    f"{path}: line {number} must be one id, got {len(cells)} cells {cells[:5]}; "
                    "remove the others."
                )
        return [cells[0] for _, cells in rows]
    _size(path)
    ids = _read_npy(path)
    if ids.ndim != 1 or ids.dtype.kind not in "iuU":
        raise ValueError(
            f"{path}: ids must be one row of integers or strings, got {ids.dtype} {ids.shape}."
        )
    return [str(token) for token in ids.tolist()]


def read_lines(path: Path, encoding: str = "utf-8") -> list[str]:
    """Read the lines of a text file, line ends removed; the file may not be empty."""
    text = read_text(path, encoding).removesuffix("\n")
    # str.splitlines would also split at separators that may stand inside a text.
    return [line.rstrip("\r") for line in text.split("\n")]


def read_text(path: Path, encoding: str = "utf-8") -> str:
    """Read a text file, a byte-order mark removed; the file may not be empty.

    Raises:
        ValueError: if there is no such file, it is empty, it is not in the encoding, or there is no
            such encoding.
    """
    _size(path)
    return _decoded(path, path.read_bytes(), encoding)


def read_first_line(path: Path, encoding: str = "utf-8") -> str:
    """Read the first line of a text file, byte-order mark and line end removed.

    Raises:
        ValueError: if the line is not in the encoding, or there is no such encoding.
    """
    try:
        with path.open(encoding=with_mark(encoding)) as file:
            return file.readline().rstrip("\n")
    except (UnicodeError, LookupError):  # found in a later line too, which is read ahead
        with path.open("rb") as file:
            return _decoded(path, file.readline(), encoding).rstrip("\r\n")


def _decoded(path: Path, content: bytes, encoding: str) -> str:
    name = encoding.upper()
    try:
        return content.decode(with_mark(encoding))
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path}: must be {name} text, got byte {error.object[error.start]:#04x} at position "
            f"{error.start}; save it as {name}, or set encoding if it is an atomic file."
        ) from error
    except UnicodeError as error:  # UTF-16 without a byte-order mark
        raise ValueError(f"{path}: must be {name} text, got: {error}; correct encoding.") from error
    except LookupError as error:
        raise ValueError(
            f"encoding: must be an encoding of Python, got {encoding!r}; correct it."
        ) from error


def with_mark(encoding: str) -> str:
    """The encoding that reads a file with or without a byte-order mark."""
    return "utf-8-sig" if encoding.lower() in ("utf-8", "utf8") else encoding


def read_rows(path: Path, separator: str, encoding: str = "utf-8") -> list[tuple[int, list[str]]]:
    """Read the cells of a text file. Quotes mean the same in every file of a data set.

    They are read as RecBole reads an atomic file, which is as in CSV. A cell that begins with a
    quote ends with one, may hold separators and line ends, and writes a quote of its own twice. A
    quote inside any other cell is a character. A separator of several characters knows no quotes.
    Lines without a word are left out.

    Args:
        path: the file.
        separator: separator between two cells.
        encoding: encoding of the file.

    Returns:
        For each row the number of its first line, and its cells.

    Raises:
        ValueError: if the file is not such text, or quotes do not match.
    """
    text = read_text(path, encoding)
    if len(separator) > 1:
        lines = enumerate(text.split("\n"), 1)
        filled = ((number, line.rstrip("\r")) for number, line in lines if line.strip())
        return [(number, line.split(separator)) for number, line in filled]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    rows, number = [], 1
    limit = csv.field_size_limit(len(text) + 1)
    try:
        for cells in reader:
            if len(cells) > 1 or (cells and cells[0].strip()):
                rows.append((number, cells))
            number = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(
            f"{path}: line {number} must be cells separated by {separator!r}, got: {error}; end a "
            'cell with a quote if it begins with one, and write a quote inside it twice ("").'
        ) from error
    finally:
        csv.field_size_limit(limit)
    return rows


def write_rows(path: Path, rows: Iterable[Sequence[str]], separator: str = "\t") -> None:
    """Write cells so that :func:`read_rows`, RecBole and pandas read the same ones."""
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter=separator, lineterminator="\n").writerows(rows)


def read_header(path: Path, separator: str, encoding: str = "utf-8") -> list[str]:
    """Return the field names of an atomic file, types (``:token``) removed."""
    line = read_first_line(path, encoding)
    fields = next(csv.reader([line], delimiter=separator), []) if len(separator) == 1 else None
    return [field.partition(":")[0] for field in fields or line.split(separator)]


def read_columns(
    path: Path, fields: Sequence[str], separator: str, encoding: str = "utf-8"
) -> list[tuple[str, ...]]:
    """Read columns of an atomic file; quotes and blank lines are those of :func:`read_rows`.

    Args:
        path: the file; its first line is a header of ``field:type``.
        fields: the wanted columns.
        separator: separator between two cells.
        encoding: encoding of the file.

    Returns:
        One tuple for each line, with cells in the order of ``fields``.

    Raises:
        ValueError: if a column does not exist or a line has another number of cells.
    """
    names = read_header(path, separator, encoding)
    for field in fields:
        if field not in names:
            raise ValueError(f"{path}: {unknown('column', field, names)}")
    picked = [names.index(field) for field in fields]
    rows = []
    for number, cells in read_rows(path, separator, encoding)[1:]:
        if len(cells) != len(names):
            raise ValueError(
                f"{path}: line {number} must have {len(names)} cells, got {len(cells)}; remove "
                "line ends and separators from the texts, or quote them."
            )
        rows.append(tuple(cells[index] for index in picked))
    return rows


def _size(path: Path) -> int:
    if not path.is_file():
        raise ValueError(f"{path}: must be a file, got a folder or nothing; correct the path.")
    size = path.stat().st_size
    if not size:
        raise ValueError(f"{path}: must hold data, got 0 bytes; write it again.")
    return size


def _numbers(path: Path, array: np.ndarray) -> np.ndarray:
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{path}: must hold real numbers, got {array.dtype}; convert it.")
    return array


def _read_npy(path: Path) -> np.ndarray:
    with path.open("rb") as file:
        _check_npy(str(path), file, _size(path))
    return np.asarray(np.load(path, mmap_mode="r"))


def _check_npy(who: str, file: BinaryIO | Any, found: int) -> None:
    """Refuse a file that :func:`numpy.load` would unpickle, or that has the wrong size."""
    start = file.read(len(_MAGIC))
    if start != _MAGIC:
        pickled = f" It is {_PICKLED}" if start[:1] == b"\x80" else " Write it again."
        raise ValueError(f"{who}: must start with {_MAGIC!r}, got {start!r}.{pickled}")
    version = file.read(2)
    read_header = {
        b"\x01\x00": np.lib.format.read_array_header_1_0,
        b"\x02\x00": np.lib.format.read_array_header_2_0,
    }.get(version)
    try:
        if read_header is None:
            raise ValueError(f"format version {version!r}")
        shape, _, dtype = read_header(file)
    except (ValueError, TypeError, SyntaxError, TokenError) as error:
        raise ValueError(
            f"{who}: must have a readable .npy header, got {found:,} bytes without one ({error}); "
            "write it again."
        ) from error
    if dtype.hasobject:
        raise ValueError(f"{who}: must hold numbers, got objects, which are {_PICKLED}")
    expected = file.tell() + dtype.itemsize * math.prod(shape)
    if found != expected:
        raise ValueError(
            f"{who}: must have {expected:,} bytes for {dtype} {shape}, got {found:,}; the file is "
            "damaged, copy it again."
        )


def _read_npz(path: Path) -> np.ndarray:
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name[: -len(".npy")] for name in archive.namelist() if name.endswith(".npy")]
            member = f"{_only(path, names)}.npy"
            with archive.open(member) as file:
                _check_npy(f"{path}: {member}", file, archive.getinfo(member).file_size)
            with archive.open(member) as file:
                return np.lib.format.read_array(file)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError) as error:
        raise ValueError(
            f"{path}: must be a .npz archive, got {_size(path):,} bytes that are not ({error}); "
            "copy it again."
        ) from error


def _read_safetensors(path: Path) -> np.ndarray:
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError as error:
        raise ValueError(
            f"{path}: needs the package safetensors; run `pip install safetensors`."
        ) from error
    try:
        with safe_open(str(path), framework="numpy") as file:
            key = _only(path, list(file.keys()))
            dtype = file.get_slice(key).get_dtype()
            if dtype.startswith(("BF", "F8", "F4")):
                raise ValueError(f"{path}: must hold float16, float32 or float64, got {dtype}.")
            return file.get_tensor(key)
    except SafetensorError as error:
        raise ValueError(
            f"{path}: must be a safetensors file, got {_size(path):,} bytes that are not "
            f"({error}); copy it again."
        ) from error


def _only(path: Path, names: Sequence[str]) -> str:
    if "features" in names:
        return "features"
    if len(names) != 1:
        raise ValueError(
            f"{path}: must hold one array or an array 'features', got {sorted(names)}; "
            "rename or remove arrays."
        )
    return names[0]
