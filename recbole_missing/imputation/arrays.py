"""Arrays of the caller, checked and brought into the one form that imputers work on.

What has one meaning is converted; anything else is refused by name. The caller's data never change.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

_BLOCK = 4096  # rows that are looked at together
_USER_COLUMNS = ("user", "userid", "uid")


def as_interactions(who: str, given: Any) -> sparse.csr_matrix:
    """Return training interactions as :func:`as_sparse` does; any non-zero entry is one.

    Raises:
        ValueError: as :func:`as_sparse`, or if an entry is NaN, infinite or negative.
    """
    matrix = as_sparse(who, "interactions", "(n_users, n_items)", given)
    values = matrix.data
    for must, wrong in (
        ("finite", ~np.isfinite(values)),
        ("0 or positive", values < 0 if values.dtype.kind != "b" else np.zeros(0, dtype=bool)),
    ):
        if wrong.any():
            raise ValueError(
                f"{who}: interactions must be {must}, got {int(wrong.sum()):,} entries such as "
                f"{values[wrong][0]}; a non-zero entry is an interaction, so make them 0 or 1."
            )
    return matrix


def as_sparse(who: str, what: str, shape: str, given: Any) -> sparse.csr_matrix:
    """Return a matrix of real numbers as a CSR matrix.

    Args:
        who: the imputer, for messages.
        what: what the matrix is, for messages.
        shape: its shape in words, for messages.
        given: a matrix of scipy (any sparse format), numpy, torch (dense or sparse) or pandas.

    Returns:
        The same entries. A CSR matrix shares its memory with the result.

    Raises:
        ValueError: if it is no such matrix.
    """
    if isinstance(given, Tensor) and given.layout != torch.strided:
        pairs = given.detach().cpu().to_sparse_coo().coalesce()
        flat = pairs.sparse_dim() == pairs.dim()
        matrix: Any = pairs.values().numpy()
        if flat and pairs.dim() == 2:
            places = tuple(pairs.indices().numpy())
            matrix = sparse.coo_matrix((_plain(pairs.values()), places), shape=tuple(pairs.shape))
    else:
        _refuse_pairs(who, what, shape, given)
        matrix = given if sparse.issparse(given) else _plain(given)
    if len(matrix.shape) != 2 or not matrix.shape[1]:
        raise ValueError(
            f"{who}: {what} must be a matrix {shape}, got {_words(given, matrix)}; reshape it."
        )
    if matrix.dtype.kind not in "biuf":
        raise ValueError(f"{who}: {what} must be real numbers, got {matrix.dtype}; convert them.")
    if matrix.dtype.kind != "b" and matrix.dtype.itemsize < 4:
        matrix = matrix.astype(np.float32)  # so that adding up repeated entries does not overflow
    return sparse.csr_matrix(matrix)


def _words(given: Any, array: Any) -> str:
    return f"shape {tuple(array.shape)}" if hasattr(given, "shape") else f"{given!r:.40}"


def as_mask(who: str, what: str, given: Any, n_items: int) -> Tensor:
    """Return a mask of items, bool ``(n_items,)``.

    Integers are refused, as they may be a mask or item numbers.

    Raises:
        ValueError: if it is no array of bool, or has another shape.
    """
    mask = _plain(given)
    if mask.dtype == bool and mask.shape == (n_items,):
        return torch.from_numpy(np.array(mask))
    raise ValueError(
        f"{who}: {what} must be bool of shape ({n_items},), got {mask.dtype} {mask.shape}; make "
        f"a mask of row numbers with np.isin(np.arange({n_items}), rows), of 0 and 1 with == 1."
    )


def as_features(name: str, given: Any, observed: Any = None) -> tuple[Tensor, Tensor]:
    """Return features and who has them.

    Args:
        name: the modality, for messages.
        given: real numbers of any dtype, ``(n_items, dim)``, of numpy, torch, pandas or scipy.
            Masked entries of a masked array are NaN.
        observed: bool ``(n_items,)``. Rows outside may hold anything. None: a row in which every
            number is NaN is missing.

    Returns:
        Float32 ``(n_items, dim)``, always a copy, in which missing rows are zero, and bool
        ``(n_items,)``.

    Raises:
        ValueError: if it is no such matrix, or an observed row holds a number that is not finite.
    """
    who = f"modality {name!r}"
    matrix = _plain(given.toarray() if sparse.issparse(given) else given)
    if matrix.dtype.kind not in "biuf":
        raise ValueError(f"{who}: features must be numbers, got {matrix.dtype}; convert them.")
    if matrix.ndim != 2 or not matrix.shape[1]:
        raise ValueError(
            f"{who}: features must be a matrix (n_items, dim), got {matrix.shape}; reshape it."
        )
    known = None if observed is None else as_mask(who, "observed", observed, len(matrix))
    shown = np.ones(len(matrix), dtype=bool) if known is None else known.numpy()
    features = np.zeros(matrix.shape, dtype=np.float32)
    broken: list[int] = []
    for start in range(0, len(matrix), _BLOCK):
        rows = start + np.flatnonzero(shown[start : start + _BLOCK])
        with np.errstate(over="ignore"):  # what overflows becomes inf, which is refused
            values = matrix[rows].astype(np.float32)
        hole, wrong = holes(values)
        if known is None:
            shown[rows[hole]] = False
        else:
            wrong |= hole
        broken.extend(rows[wrong])
        features[rows[~hole]] = values[~hole]
    if broken:
        rule = "where observed is True" if known is not None else "unless its whole row is NaN"
        raise ValueError(
            f"{who}: every number must be finite in float32 {rule}, got NaN, inf or overflow in "
            f"{len(broken):,} rows such as {[int(row) for row in broken[:5]]}; repair them, or "
            "make the whole row NaN where the item lacks the modality."
        )
    return torch.from_numpy(features), torch.from_numpy(shown)


def holes(values: NDArray[np.floating[Any]]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Tell which rows are holes (every number is NaN), and which others are not finite."""
    hole = np.isnan(values).all(axis=1)
    return hole, ~hole & ~np.isfinite(values).all(axis=1)


def not_finite(rows: Tensor, where: Tensor) -> Tensor:
    """Numbers of the rows with NaN or inf among those ``where`` is True, int64 ``(n,)``."""
    # A sum is one pass without a second matrix; it may overflow, so suspects are looked at again.
    suspects = (where & ~torch.isfinite(rows.sum(dim=1))).nonzero()[:, 0]
    return suspects[~torch.isfinite(rows[suspects]).all(dim=1)]


def labels(given: Any, axis: str) -> list[Any] | None:
    """Names of the rows (``index``) or ``columns`` of a DataFrame; None if they are numbers 0 to n.

    Anything else than a DataFrame has no names either.
    """
    names = list(getattr(given, axis)) if hasattr(given, "iloc") else None
    return None if names == list(range(len(names or ()))) else names


def _plain(given: Any) -> NDArray[Any]:
    """As a numpy array, without a copy where that is possible."""
    if isinstance(given, Tensor):
        tensor = given.detach().cpu().resolve_conj().resolve_neg()
        if tensor.layout != torch.strided:
            tensor = tensor.to_dense()
        half = tensor.is_floating_point() and tensor.dtype not in (torch.float32, torch.float64)
        return np.asarray((tensor.float() if half else tensor).numpy())
    if hasattr(given, "iloc"):
        return _of_pandas(given)
    if isinstance(given, np.ma.MaskedArray):
        return np.ma.filled(given.astype(np.float64), np.nan)
    try:
        return np.asarray(given)
    except ValueError:  # rows of several lengths
        return np.asarray(given, dtype=object)


def _of_pandas(given: Any) -> NDArray[Any]:
    """A DataFrame or Series; NA in nullable columns of a DataFrame becomes NaN."""
    types = list(given.dtypes) if given.ndim == 2 else []
    if not types or any(dtype.kind not in "biuf" for dtype in types):
        return np.asarray(given)
    dtype = np.float32 if all(dtype == np.float32 for dtype in types) else np.float64
    return np.asarray(given.to_numpy(dtype=dtype, na_value=np.nan))


def _refuse_pairs(who: str, what: str, shape: str, given: Any) -> None:
    """Refuse lists, and tables with a column of users: pairs look like a narrow matrix."""
    columns = labels(given, "columns") or []
    words = [str(name).lower().replace("_", "") for name in columns]
    if isinstance(given, (list, tuple)) or any(word in _USER_COLUMNS for word in words):
        got = f"columns {columns}" if columns else f"a {type(given).__name__}"
        raise ValueError(
            f"{who}: {what} must be a matrix {shape}, got {got}; make one of pairs with "
            "scipy.sparse.csr_matrix((ones, (rows, columns)), shape)."
        )
