"""Files that keep imputed rows, so that the next run on the same data need not impute again.

The name of a file is a hash of everything that decides the rows: class, settings and source code of
the imputer, features and mask of every modality, training interactions, donors and edges. So
another run or another model on the same data finds the file. If the imputer, a mask, a feature or
the split changes, the name changes too.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from logging import getLogger
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from scipy import sparse
from torch import Tensor

from recbole_missing import identity
from recbole_missing.atomic import whole_file
from recbole_missing.modality import Modalities

if TYPE_CHECKING:
    from recbole_missing.imputation.base import Imputer


def transform(
    imputer: Imputer,
    modalities: Modalities,
    interactions: sparse.spmatrix,
    donors: Tensor | None,
    edges: sparse.spmatrix | None,
    folder: Path,
) -> Modalities:
    """Impute the missing rows, or read them from the file of an earlier run.

    Args:
        imputer: not yet fitted. Its ``report_`` is set in both cases.
        modalities, interactions, donors, edges: see :meth:`Imputer.fit` and ``transform``.
        folder: folder of the files; created if absent.
    """
    name = key(imputer, modalities, interactions, donors, edges)
    path = folder / f"{name}.safetensors"
    rows = _read(path, imputer, modalities) if name else None
    if rows is None:
        completed: Modalities = imputer.fit(interactions, donors, edges).transform(modalities)
        if name:
            try:
                _write(path, completed, imputer.report_)
            except OSError as error:  # a run does not need the file
                getLogger().warning(f"{error} The next run imputes again.")
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
) -> str | None:
    """Hash of everything that decides the completed rows.

    Returns:
        The hash. None if the source of the imputer is not in a file, because a change of its code
        could not be noticed then.
    """
    method = type(imputer)
    source = identity.of_source(method)
    tables = [[name, m.features, m.observed] for name, m in modalities.items()]
    content = [tables, sparse.csr_matrix(interactions), donors, edges]
    name = f"{method.__module__}:{method.__qualname__}"
    settings = imputer.get_params(deep=False)
    return None if source is None else identity.digest([name, settings, source, content])


def _read(path: Path, imputer: Imputer, names: Iterable[str]) -> dict[str, Tensor] | None:
    """Rows of an earlier run. None if there is no file or it is damaged."""
    if not path.is_file():
        return None
    try:
        with safe_open(str(path), framework="pt") as file:
            rows = {name: file.get_tensor(name) for name in names}
            imputer.report_ = json.loads(file.metadata()["report"])
    except (SafetensorError, KeyError, ValueError) as error:
        getLogger().warning(f"{path}: cannot be read ({error}); imputed again.")
        return None
    return rows


def _write(path: Path, completed: Modalities, report: Mapping[str, Any]) -> None:
    rows = {name: m.features[m.missing].contiguous() for name, m in completed.items()}
    with whole_file(path) as temporary:
        save_file(rows, temporary, metadata={"report": json.dumps(report)})
