"""Read pickled files of other projects without running code that they contain.

Two things are read: a ``.npy`` file with a dict of integer arrays (DGMRec's masks), and a pickled
sparse matrix of scipy (``trnMat.pkl`` of DiffMM, ``train_mat`` of MMSSL). Python 2 or 3, numpy 1
or 2 and any scipy may have written them. Only what these files need is admitted: numpy arrays of
numbers, and the COO, CSR and CSC classes of scipy. Classes of this module replace all of them, so
no code of numpy or scipy unpickles anything. What a file claims (lengths, shapes, indices) is
checked before it is used.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import re
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

_OPCODES = {opcode.code: opcode for opcode in pickletools.opcodes}
_CALLS = ("BUILD", "INST", "NEWOBJ", "NEWOBJ_EX", "OBJ", "REDUCE")
_MOST_CALLS = 500  # a matrix needs about 15, a mask of four modalities 60
_REMEDY = "do not load this file by other means unless you made it."


def load_pickled_arrays(path: Path | str) -> dict[str, NDArray[Any]]:
    """Read a ``.npy`` file that holds a pickled dict of integer arrays, as DGMRec's masks do.

    The pickle may contain numpy arrays of numbers and nothing else. They are rebuilt here from
    their bytes, so not even numpy's own unpickling code runs.

    Args:
        path: the ``.npy`` file.

    Returns:
        The dict, with 1-D int64 arrays as values.

    Raises:
        ValueError: if the file holds anything else. If a pickle names another function or class,
            this error comes before anything is imported.
    """
    path = Path(path)
    what = "one pickled dict of integer arrays in a .npy file"
    loaded = _guarded(path, what, lambda: _unpickle(_object_bytes(path)))
    if isinstance(loaded, _PickledArray):
        loaded = loaded.content
    if not isinstance(loaded, dict) or not all(isinstance(key, str) for key in loaded):
        raise ValueError(f"{path}: must hold a dict from names to arrays, got {kind_of(loaded)}.")
    distinct = {id(value): (key, value) for key, value in loaded.items()}
    _check_total(path, [value for _, value in distinct.values()])
    arrays = {
        place: integers(f"{path}, key {key!r}", value) for place, (key, value) in distinct.items()
    }
    return {key: arrays[id(value)] for key, value in loaded.items()}


def load_pickled_matrix(path: Path | str) -> sparse.coo_matrix:
    """Read a pickled matrix of users and items: scipy's COO, CSR or CSC class.

    The matrix is built anew from its arrays of numbers. As in DiffMM, every value that is not 0
    means an interaction, and several values at one place mean one.

    Args:
        path: the pickle, such as ``trnMat.pkl``.

    Returns:
        Matrix of ones, shape ``(n_users, n_items)``, float32, sorted by user and item.

    Raises:
        ValueError: if the file holds anything else, if a value is negative or not finite, or if
            shape, indices and values do not fit together. If a pickle names another function or
            class, this error comes before anything is imported.
    """
    path = Path(path)

    def load() -> sparse.coo_matrix:
        loaded = _unpickle(path.read_bytes())
        if not isinstance(loaded, _PickledMatrix):
            raise pickle.UnpicklingError(f"a {type(loaded).__name__}")
        return loaded.matrix()

    return _guarded(path, "one pickled COO, CSR or CSC matrix of scipy", load)


def _check_total(path: Path, values: Iterable[Any]) -> None:
    """Refuse arrays that together have more numbers than the file has bytes.

    Many arrays may share one sequence of bytes, and each becomes int64.
    """
    contents = [value.content for value in values if isinstance(value, _PickledArray)]
    total = sum(content.size for content in contents if isinstance(content, np.ndarray))
    if total > path.stat().st_size:
        raise ValueError(
            f"{path}: must hold each number once, got {total:,} numbers in "
            f"{path.stat().st_size:,} bytes; {_REMEDY}"
        )


def integers(who: str, value: Any) -> NDArray[np.int64]:
    """Return a 1-D integer array. An empty array may have any number type."""
    array = value.content if isinstance(value, _PickledArray) else value
    fits = isinstance(array, np.ndarray) and array.ndim == 1
    if not fits or (array.dtype.kind not in "iu" and array.size):
        raise ValueError(f"{who}: must be a 1-D array of integers, got {kind_of(array)}.")
    return array.astype(np.int64)


def kind_of(value: Any) -> str:
    """Describe a value for an error message."""
    if isinstance(value, np.ndarray):
        return f"an array of {value.dtype}, shape {value.shape}"
    return f"a {type(value).__name__}"


class _PickledDtype:
    """Replaces ``numpy.dtype`` in a pickle: a number type, or objects for the outer array."""

    def __init__(self, code: str, *_: Any) -> None:
        if not re.fullmatch(r"[iufb][1248]|O8?", code):
            raise pickle.UnpicklingError(f"arrays of dtype {code!r} are not admitted")
        self.code, self.order = code, "<"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = {">": ">"}.get(state[1], "<")


class _PickledArray:
    """Replaces ``numpy._reconstruct``: an array that is rebuilt from shape, dtype and bytes."""

    content: Any = None

    def __init__(self, *_: Any) -> None:
        """Ignore the arguments; the array gets its content from ``__setstate__``."""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, data = state
        if not dtype.code.startswith("O"):
            flat = np.frombuffer(_as_bytes(data), dtype=dtype.order + dtype.code)
            self.content = flat.reshape(shape, order="F" if fortran else "C")
        elif shape == ():
            (self.content,) = data
        else:
            raise pickle.UnpicklingError("arrays of objects are not admitted")


class _PickledBuffer(_PickledArray):
    """Replaces numpy's ``_frombuffer``, which pickles of protocol 5 call."""

    def __init__(self, data: Any, dtype: _PickledDtype, shape: Any, order: str) -> None:
        """Rebuild the array."""
        self.__setstate__((1, shape, dtype, order == "F", data))


class _PickledBytes:
    """Replaces ``_codecs.encode``, with which Python 3 pickles bytes in protocol 2."""

    def __new__(cls, text: str, encoding: str) -> bytes:  # type: ignore[misc]
        """Return the bytes."""
        if encoding not in ("latin1", "latin-1"):
            raise pickle.UnpicklingError(f"text in {encoding!r} is not admitted")
        return _as_bytes(text)

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("bytes have no state")


class _PickledMatrix:
    """Replaces scipy's sparse matrices: keeps the state, and builds the matrix on request."""

    state: Mapping[str, Any] | None = None

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, dict):
            raise pickle.UnpicklingError(f"a matrix with a {type(state).__name__} as state")
        self.state = state

    def matrix(self) -> sparse.coo_matrix:
        """Matrix of ones where the pickled one is not 0."""
        state = self.state or {}
        n_rows, n_columns = shape = _shape(state)
        data = self._array("data")
        if data.dtype.kind not in "fiub" or not np.isfinite(data).all() or (data < 0).any():
            raise pickle.UnpicklingError("values that are negative or not finite")
        rows, columns = self._indices(shape)
        if not len(rows) == len(columns) == len(data):
            raise pickle.UnpicklingError(
                f"{len(data)} values, {len(rows)} rows and {len(columns)} columns of them"
            )
        _check_range("rows", rows, n_rows)
        _check_range("columns", columns, n_columns)
        # A COO matrix takes no memory for its shape, which may be a lie.
        places = np.unique(rows[data != 0] * n_columns + columns[data != 0])
        ones = np.ones(len(places), dtype=np.float32)
        return sparse.coo_matrix((ones, np.divmod(places, n_columns)), shape=shape)

    def _indices(self, shape: tuple[int, int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Row and column of every value."""
        raise NotImplementedError

    def _array(self, name: str) -> NDArray[Any]:
        """One of the state's arrays, 1-D."""
        value = (self.state or {}).get(name)
        content = value.content if isinstance(value, _PickledArray) else value
        if not isinstance(content, np.ndarray) or content.ndim != 1:
            raise pickle.UnpicklingError(f"{name} is {kind_of(content)}, not a 1-D array")
        return content


class _PickledCoo(_PickledMatrix):
    """Replaces ``coo_matrix`` and ``coo_array``."""

    def _indices(self, shape: tuple[int, int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        coords = (self.state or {}).get("coords")  # scipy >= 1.12
        if isinstance(coords, tuple) and len(coords) == 2:
            self.state = {**(self.state or {}), "row": coords[0], "col": coords[1]}
        row, column = (integers(name, self._array(name)) for name in ("row", "col"))
        return row, column


class _PickledCompressed(_PickledMatrix):
    """Replaces ``csr_matrix`` and ``csc_matrix``."""

    axis = 0

    def _indices(self, shape: tuple[int, int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        starts, minor = (integers(name, self._array(name)) for name in ("indptr", "indices"))
        lengths = np.diff(starts)
        if len(lengths) != shape[self.axis] or starts[0] != 0 or (lengths < 0).any():
            raise pickle.UnpicklingError(
                f"indptr must rise from 0 in {shape[self.axis]} steps, it has {len(lengths)}"
            )
        if starts[-1] != len(minor):
            raise pickle.UnpicklingError(f"indptr ends at {starts[-1]} of {len(minor)} indices")
        major = np.repeat(np.arange(len(lengths), dtype=np.int64), lengths)
        return (major, minor) if self.axis == 0 else (minor, major)


class _PickledCsc(_PickledCompressed):
    """Replaces ``csc_matrix`` and ``csc_array``: the columns are compressed."""

    axis = 1


def _shape(state: Mapping[str, Any]) -> tuple[int, int]:
    shape = state.get("_shape")
    if not isinstance(shape, tuple) or len(shape) != 2:
        raise pickle.UnpicklingError(f"a matrix of shape {shape!r:.50}")
    for size in shape:
        if type(size) is not int or not 0 < size < 2**31:
            raise pickle.UnpicklingError(f"a matrix of shape {shape!r:.50}")
    return shape[0], shape[1]


def _check_range(what: str, indices: NDArray[np.int64], size: int) -> None:
    strange = indices[(indices < 0) | (indices >= size)]
    if strange.size:
        raise pickle.UnpicklingError(f"{what} outside of 0 to {size - 1}: {strange[:5].tolist()}")


def _as_bytes(data: Any) -> Any:
    """Bytes of a pickle of Python 2, whose text is bytes; anything else as it is."""
    return _encoded(data) if isinstance(data, str) else data


@cache
def _encoded(text: str) -> bytes:
    """Bytes of a text, which a pickle may name many times; kept until it is read."""
    return text.encode("latin1")


def _scalar(dtype: _PickledDtype, data: Any) -> Any:
    """Replaces numpy's ``scalar``: one number."""
    (number,) = np.frombuffer(_as_bytes(data), dtype=dtype.order + dtype.code).tolist()
    return number


def _rebuilt(kind: Any, base: Any, state: Any) -> Any:
    """Replaces ``copyreg._reconstructor``, which pickles of protocol 0 and 1 call."""
    matrix = isinstance(kind, type) and issubclass(kind, _PickledMatrix)
    if not matrix or base != "object" or state is not None:
        raise pickle.UnpicklingError("an object that is no sparse matrix is not admitted")
    return kind()


class _Call:
    """A function that a pickle can call and cannot change."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        """Store the function."""
        self._function = function

    def __call__(self, *arguments: Any) -> Any:
        """Call it."""
        return self._function(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("a function has no state")


def _classes_of_scipy() -> dict[tuple[str, str], Any]:
    """Module and class -> replacement, with the module names of scipy before and since 1.8."""
    kinds = {"coo": _PickledCoo, "csr": _PickledCompressed, "csc": _PickledCsc}
    return {
        (f"scipy.sparse.{mark}{kind}", f"{kind}_{suffix}"): replacement
        for kind, replacement in kinds.items()
        for mark in ("", "_")
        for suffix in ("matrix", "array")
    }


class _Unpickler(pickle.Unpickler):
    """Unpickler of numpy arrays and sparse matrices that replaces them by the classes above."""

    admitted: Mapping[tuple[str, str], Any] = {
        ("numpy.core.multiarray", "_reconstruct"): _PickledArray,
        ("numpy._core.multiarray", "_reconstruct"): _PickledArray,
        ("numpy.core.numeric", "_frombuffer"): _PickledBuffer,
        ("numpy._core.numeric", "_frombuffer"): _PickledBuffer,
        ("numpy.core.multiarray", "scalar"): _Call(_scalar),
        ("numpy._core.multiarray", "scalar"): _Call(_scalar),
        ("numpy", "ndarray"): "ndarray",
        ("numpy", "dtype"): _PickledDtype,
        ("_codecs", "encode"): _PickledBytes,
        ("copy_reg", "_reconstructor"): _Call(_rebuilt),  # Python 2
        ("copyreg", "_reconstructor"): _Call(_rebuilt),
        ("__builtin__", "object"): "object",  # Python 2
        ("builtins", "object"): "object",
        **_classes_of_scipy(),
    }

    def find_class(self, module: str, name: str) -> Any:
        """Return the replacement of ``module.name``; raise an error if there is none."""
        if (module, name) not in self.admitted:
            raise pickle.UnpicklingError(f"{module}.{name} is not admitted")
        return self.admitted[module, name]


def _unpickle(content: bytes) -> Any:
    """The object in a pickle, with replacements for the classes that are admitted."""
    _check_sizes(content)
    try:
        return _Unpickler(io.BytesIO(content), encoding="latin1").load()
    finally:
        _encoded.cache_clear()


def _check_sizes(content: bytes) -> None:
    """Refuse a pickle that would take far more memory than it has bytes.

    It may claim more bytes or memo entries than it has, and the unpickler would reserve memory for
    them first. Or it builds a large array from the same bytes over and over. Walking over the
    opcodes reserves nothing.
    """
    file, calls = io.BytesIO(content), 0
    while True:
        code = file.read(1).decode("latin1")
        opcode = _OPCODES.get(code)
        if opcode is None or opcode.name.startswith("EXT"):  # objects of copyreg's registry
            raise pickle.UnpicklingError(f"opcode {code!r} at byte {file.tell()}")
        if opcode.name == "STOP":
            return
        if opcode.name == "STRING":  # its reader refuses the bytes of Python 2
            file.readline()
        elif opcode.arg is not None:
            argument = opcode.arg.reader(file)
            if "PUT" in opcode.name and int(argument) > len(content):
                raise pickle.UnpicklingError(f"memo entry {argument} in {len(content)} bytes")
        calls += opcode.name in _CALLS
        if calls > _MOST_CALLS:
            raise pickle.UnpicklingError(f"more than {_MOST_CALLS} objects")


def _object_bytes(path: Path) -> bytes:
    """The pickle in a ``.npy`` file of one object."""
    with path.open("rb") as file:
        version = np.lib.format.read_magic(file)
        read_header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, _, dtype = read_header(file)
        if shape != () or dtype != np.dtype(object):
            raise pickle.UnpicklingError(f"its array is {dtype} of shape {shape}")
        return file.read()


def _guarded(path: Path, what: str, load: Callable[[], Any]) -> Any:
    """Call ``load``. Any defect of the file is a ValueError."""
    if not path.is_file():
        raise ValueError(f"{path}: must be {what}, got no such file; check the path.")
    try:
        return load()
    except Exception as error:  # a hostile pickle can raise anything
        raise ValueError(
            f"{path}: must be {what}, got {type(error).__name__}: {error}; {_REMEDY}"
        ) from error
