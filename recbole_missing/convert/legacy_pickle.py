"""Read pickled ``.npy`` files of other projects without running code that they contain."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


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
    loaded = _unpickle(path)
    if isinstance(loaded, _PickledArray):
        loaded = loaded.content
    if not isinstance(loaded, dict) or not all(isinstance(key, str) for key in loaded):
        raise ValueError(f"{path}: must hold a dict from names to arrays, got {kind_of(loaded)}.")
    return {key: integers(f"{path}, key {key!r}", value) for key, value in loaded.items()}


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
            flat = np.frombuffer(data, dtype=dtype.order + dtype.code)
            self.content = flat.reshape(shape, order="F" if fortran else "C").copy()
        elif shape == ():
            (self.content,) = data
        else:
            raise pickle.UnpicklingError("arrays of objects are not admitted")


class _ArrayUnpickler(pickle.Unpickler):
    """Unpickler of numpy arrays (numpy 1 or 2) that replaces them by the classes above."""

    admitted: Mapping[tuple[str, str], Any] = {
        ("numpy.core.multiarray", "_reconstruct"): _PickledArray,
        ("numpy._core.multiarray", "_reconstruct"): _PickledArray,
        ("numpy", "ndarray"): "ndarray",
        ("numpy", "dtype"): _PickledDtype,
    }

    def find_class(self, module: str, name: str) -> Any:
        """Return the replacement of ``module.name``; raise an error if there is none."""
        if (module, name) not in self.admitted:
            raise pickle.UnpicklingError(f"{module}.{name} is not admitted")
        return self.admitted[module, name]


def _unpickle(path: Path) -> Any:
    """The object in a ``.npy`` file of objects. Any defect of the file is a ValueError."""
    if not path.is_file():
        raise ValueError(f"{path}: must be a .npy file, got no such file; check the path.")
    with path.open("rb") as file:
        try:
            version = np.lib.format.read_magic(file)
            read_header = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }[version]
            shape, _, dtype = read_header(file)
            if shape != () or dtype != np.dtype(object):
                raise pickle.UnpicklingError(f"its array is {dtype} of shape {shape}")
            return _ArrayUnpickler(file).load()
        except Exception as error:  # a hostile pickle can raise anything
            raise ValueError(
                f"{path}: must be one pickled dict of integer arrays in a .npy file, got "
                f"{type(error).__name__}: {error}; do not load this file by other means unless "
                f"you made it."
            ) from error
