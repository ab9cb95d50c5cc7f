"""Completed rows kept in files that are named by the content they were made from.

The name of a file is a hash of everything that decides the result: the method and its settings,
features and masks of every modality, training interactions, donors, edges and the version of this
package. So another run, or another model, on the same data reads it, and a changed mask, feature or
split never meets it.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from logging import getLogger
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from scipy import sparse
from torch import Tensor

from recbole_missing.imputation.base import Imputer
from recbole_missing.modality import Modalities
from recbole_missing.version import __version__


def transform(
    imputer: Imputer,
    modalities: Modalities,
    interactions: sparse.spmatrix,
    donors: Tensor | None,
    edges: sparse.spmatrix | None,
    folder: Path,
) -> Modalities:
    """Fit and transform, or read what a former run kept.

    Args:
        imputer: not yet fitted; its ``report_`` is set in both cases.
        modalities, interactions, donors, edges: see :meth:`Imputer.fit` and ``transform``.
        folder: where files lie; made if absent.
    """
    path = folder / f"{key(imputer, modalities, interactions, donors, edges)}.safetensors"
    rows = _read(path, imputer, modalities)
    if rows is None:
        completed: Modalities = imputer.fit(interactions, donors, edges).transform(modalities)
        _write(path, completed, imputer.report_)
        return completed
    filled = []
    for name, modality in modalities.items():
        features = torch.zeros_like(modality.features)
        features[modality.missing] = rows[name]
        filled.append(modality.filled(features))
    return Modalities(filled)


def key(
    imputer: Imputer,
    modalities: Modalities,
    interactions: sparse.spmatrix,
    donors: Tensor | None,
    edges: sparse.spmatrix | None,
) -> str:
    """Hexadecimal hash of everything that decides the completed rows."""
    digest = hashlib.blake2b(digest_size=16)
    settings = sorted(imputer.get_params().items())
    digest.update(repr((__version__, type(imputer).__name__, settings)).encode())
    for part in _parts(modalities, interactions, donors, edges):
        array = np.ascontiguousarray(part)
        digest.update(f"{array.dtype} {array.shape}".encode())
        digest.update(array.data)
    digest.update(repr(list(modalities)).encode())
    return digest.hexdigest()


def _parts(
    modalities: Modalities,
    interactions: sparse.spmatrix,
    donors: Tensor | None,
    edges: sparse.spmatrix | None,
) -> Iterable[Any]:
    for modality in modalities.values():
        yield modality.features.numpy()
        yield modality.observed.numpy()
    for matrix in (interactions, edges):
        if matrix is not None:
            csr = sparse.csr_matrix(matrix, copy=True)
            csr.sum_duplicates()
            yield from (csr.indptr.astype(np.int64), csr.indices.astype(np.int64), csr.data)
    if donors is not None:
        yield donors.numpy()


def _read(path: Path, imputer: Imputer, names: Iterable[str]) -> dict[str, Tensor] | None:
    """Rows of a former run, or None; a damaged file is made anew."""
    if not path.is_file():
        return None
    try:
        with safe_open(str(path), framework="pt") as file:
            rows = {name: file.get_tensor(name) for name in names}
            imputer.report_ = json.loads(file.metadata()["report"])
    except (SafetensorError, KeyError, ValueError) as error:
        getLogger().warning(f"{path}: cannot be read ({error}); imputed anew.")
        return None
    return rows


def _write(path: Path, completed: Modalities, report: Mapping[str, Any]) -> None:
    """Write beside and rename, so that no reader ever sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = {name: m.features[m.missing].contiguous() for name, m in completed.items()}
    handle, scratch = tempfile.mkstemp(dir=path.parent, suffix=".part")
    os.close(handle)
    try:
        save_file(rows, scratch, metadata={"report": json.dumps(report)})
        Path(scratch).replace(path)
    finally:
        Path(scratch).unlink(missing_ok=True)
