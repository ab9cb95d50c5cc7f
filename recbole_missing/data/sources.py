"""Feature files and columns, their rows aligned to item tokens; the only reader of feature files.

Two steps: :func:`open_source` reads and checks, :meth:`Source.features` encodes. An encoder that
learns from its input (TF-IDF, a list of tags) must not learn from what an experiment hides, so it
is fitted when the observed items are known. No hole is filled here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from recbole_missing.config.constraints import Choice, Int, ListOf, Optional, Text, check
from recbole_missing.data.aligned import (
    Catalogue,
    Cells,
    Matrix,
    Source,
    rows_by_token,
    rows_in_order,
)
from recbole_missing.data.encoders import Rows, encode_tags, encode_text, split
from recbole_missing.data.files import (
    read_columns,
    read_folder,
    read_header,
    read_ids,
    read_matrix,
)

_DEFAULT_DIM = 64


class _Names:
    """A name, or a list of names."""

    def accepts(self, value: Any) -> bool:
        """Tell whether ``value`` is a non-empty string or a non-empty list of them."""
        return bool(value) and (Text().accepts(value) or ListOf(Text()).accepts(value))

    def __str__(self) -> str:
        """Describe the constraint in words."""
        return "a column name or a list of column names"


_CONSTRAINTS = {
    "features": Text(),
    "ids": Text(),
    "columns": _Names(),
    "encoder": Choice("tags", "text", "vector"),
    "dim": Int(min=1),
    "preload_weight": Text(),
}
# What may say where the data are -> the settings that make sense with it only.
_COMPANIONS = {"features": ("ids",), "columns": ("encoder", "dim"), "preload_weight": ()}


def modality_settings(name: str) -> dict[str, Any]:
    """Return the flat setting keys of the modality ``name`` and the constraint of each."""
    return {f"{name}_{key}": Optional(constraint) for key, constraint in _CONSTRAINTS.items()}


def open_source(name: str, settings: Mapping[str, Any], catalogue: Catalogue) -> Source:
    """Open and check the data of one modality.

    Args:
        name: the modality.
        settings: a dict or a RecBole config with the keys of :func:`modality_settings`, and
            RecBole's ``preload_weight`` and ``additional_feat_suffix`` if they are referred to.
        catalogue: the items.

    Raises:
        ValueError: if the settings, the files or the columns are not as documented.
    """
    request = _request(name, settings, catalogue)
    openers = {
        "features": _open_features,
        "columns": _open_columns,
        "preload_weight": _open_preload_weight,
    }
    return openers[request.kind](request)


def feature_files(name: str, settings: Mapping[str, Any], catalogue: Catalogue) -> list[Path]:
    """List every file whose bytes decide the modality ``name``; the tokens are not needed.

    Raises:
        ValueError: if the settings are wrong or a file does not exist.
    """
    request = _request(name, settings, catalogue)
    if request.kind == "columns":
        return [request.atomic_file("item")]
    if request.kind == "preload_weight":
        return [request.preload_weight()[0]]
    path = request.path("features")
    if path.is_dir():
        return _item_files(path)
    return [path] if request.values["ids"] is None else [path, request.path("ids")]


@dataclass(frozen=True)
class _Request:
    """What the settings ask of one modality; the keys of ``values`` lack the modality's name."""

    name: str
    kind: str
    values: Mapping[str, Any]
    catalogue: Catalogue

    def path(self, key: str) -> Path:
        """Return the existing file or folder that ``key`` names."""
        path = self.catalogue.folder / Path(self.values[key]).expanduser()
        if not path.exists():
            raise ValueError(
                f"{self.name}: {self.name}_{key} must name a file or folder that exists, "
                f"got {path}; correct the path."
            )
        return path

    def atomic_file(self, suffix: str) -> Path:
        """Return the existing atomic file of the dataset with this suffix."""
        path = self.catalogue.folder / f"{self.catalogue.dataset}.{suffix}"
        if not path.is_file():
            raise ValueError(
                f"{self.name}: {self.name}_{self.kind} needs the file {path}, got none; add it."
            )
        return path

    def preload_weight(self) -> tuple[Path, str, str]:
        """Return the file, the id field and the vector field of RecBole's ``preload_weight``."""
        id_field, fields = self.values["preload_weight"], self.values["fields"]
        if not isinstance(fields, Mapping) or id_field not in fields:
            raise ValueError(
                f"{self.name}: {self.name}_preload_weight must be a key of preload_weight, got "
                f"{id_field!r} and preload_weight {fields!r}; add '{id_field}: <vector field>'."
            )
        suffixes = self.values["suffixes"] or []
        for suffix in [suffixes] if isinstance(suffixes, str) else suffixes:
            path = self.atomic_file(suffix)
            header = read_header(path, self.catalogue.field_separator)
            if {id_field, fields[id_field]} <= set(header):
                return path, id_field, fields[id_field]
        raise ValueError(
            f"{self.name}: a file of additional_feat_suffix must hold the columns {id_field!r} and "
            f"{fields[id_field]!r}, got suffixes {suffixes!r}; add the file's suffix."
        )


def _request(name: str, settings: Mapping[str, Any], catalogue: Catalogue) -> _Request:
    def get(key: str) -> Any:
        return settings[key] if key in settings else None  # noqa: SIM401  Config has no `get`

    declared = modality_settings(name)
    check(name, {key: get(key) for key in declared}, declared)
    values = {key: get(f"{name}_{key}") for key in _CONSTRAINTS}
    chosen = [kind for kind in _COMPANIONS if values[kind] is not None]
    if len(chosen) != 1:
        keys, got = (
            ", ".join(f"{name}_{kind}" for kind in kinds) for kinds in (_COMPANIONS, chosen)
        )
        raise ValueError(f"{name}: exactly one of {keys} must be set, got {got or 'none'}.")
    for kind, companions in _COMPANIONS.items():
        for key in companions:
            if kind != chosen[0] and values[key] is not None:
                raise ValueError(
                    f"{name}: {name}_{key} must come with {name}_{kind}, got {name}_{chosen[0]}; "
                    f"remove {name}_{key}."
                )
    values.update(fields=get("preload_weight"), suffixes=get("additional_feat_suffix"))
    return _Request(name, chosen[0], values, catalogue)


def _open_features(request: _Request) -> Source:
    name, catalogue, path = request.name, request.catalogue, request.path("features")
    if path.is_dir():
        return _open_folder(request, path)
    matrix = read_matrix(path)
    if request.values["ids"] is None:
        rows = rows_in_order(name, path, len(matrix), catalogue)
        return Matrix(name, path, matrix, rows, catalogue.tokens)
    ids_path = request.path("ids")
    ids = read_ids(ids_path)
    if len(ids) != len(matrix):
        raise ValueError(
            f"{name}: {ids_path.name} must have one id for each of the {len(matrix)} rows of "
            f"{path.name}, got {len(ids)}; write both anew."
        )

    def same(one: int, other: int) -> bool:
        return np.array_equal(matrix[one], matrix[other], equal_nan=True)

    rows = rows_by_token(ids_path, ids, catalogue, same)
    return Matrix(name, path, matrix, rows, catalogue.tokens)


def _open_folder(request: _Request, folder: Path) -> Source:
    if request.values["ids"] is not None:
        raise ValueError(
            f"{request.name}: the file names in {folder} are the ids, got {request.name}_ids too; "
            f"remove {request.name}_ids."
        )
    tokens = [path.name[: -len(".npy")] for path in _item_files(folder)]
    rows = rows_by_token(folder, tokens, request.catalogue, same=lambda one, other: True)
    used = np.unique(rows[rows >= 0])
    if not len(used):
        raise ValueError(
            f"{request.name}: {folder} must hold a file <item>.npy for one item or more of dataset "
            f"{request.catalogue.dataset!r}, got {len(tokens)} .npy files of other names; "
            "name the innermost folder."
        )
    rows[rows >= 0] = np.searchsorted(used, rows[rows >= 0])
    matrix = read_folder(folder, [tokens[row] for row in used])
    return Matrix(request.name, folder, matrix, rows, request.catalogue.tokens)


def _open_columns(request: _Request) -> Source:
    name, values = request.name, request.values
    check(
        name, {f"{name}_encoder": values["encoder"]}, {f"{name}_encoder": _CONSTRAINTS["encoder"]}
    )
    columns = [values["columns"]] if isinstance(values["columns"], str) else list(values["columns"])
    path, separator = request.atomic_file("item"), request.catalogue.seq_separator
    if values["encoder"] == "vector":
        return _open_vectors(request, path, request.catalogue.item_field, columns)
    cells, rows = _cells_by_token(request, path, request.catalogue.item_field, columns)
    dim = values["dim"] or _DEFAULT_DIM

    def tags(fitted: Rows, others: Rows) -> np.ndarray:
        return encode_tags(name, columns, fitted, separator, others)

    def text(fitted: Rows, others: Rows) -> np.ndarray:
        texts, shown = ([" ".join(row) for row in part] for part in (fitted, others))
        return encode_text(name, texts, dim, shown)

    return Cells(name, cells, rows, tags if values["encoder"] == "tags" else text)


def _open_preload_weight(request: _Request) -> Source:
    path, id_field, vector_field = request.preload_weight()
    return _open_vectors(request, path, id_field, [vector_field])


def _open_vectors(request: _Request, path: Path, id_field: str, columns: list[str]) -> Source:
    """Read numbers from cells; a row of blank cells becomes NaN, which means missing."""
    catalogue = request.catalogue
    cells, rows = _cells_by_token(request, path, id_field, columns)
    vectors: dict[int, list[float]] = {}
    for item in np.flatnonzero(rows >= 0):
        words = [w for cell in cells[rows[item]] for w in split(cell, catalogue.seq_separator)]
        who = f"{path.name}: columns {columns} of item {str(catalogue.tokens[item])!r}"
        try:
            vector = [float(word) for word in words]
        except ValueError as error:
            raise ValueError(f"{who} must hold numbers ({error}); correct them.") from error
        dim = len(next(iter(vectors.values()), vector))
        if vector and len(vector) != dim:
            raise ValueError(
                f"{who} must hold {dim} numbers as other items do, got {len(vector)}; correct "
                "them, or empty the cells."
            )
        if vector:
            vectors[rows[item]] = vector
    matrix = np.full((len(cells), len(next(iter(vectors.values()), [0.0]))), np.nan)
    for row, vector in vectors.items():
        matrix[row] = vector
    return Matrix(request.name, path, matrix, rows, catalogue.tokens)


def _cells_by_token(
    request: _Request, path: Path, id_field: str, columns: list[str]
) -> tuple[list[tuple[str, ...]], np.ndarray]:
    table = read_columns(path, [id_field, *columns], request.catalogue.field_separator)
    tokens, cells = [row[0] for row in table], [row[1:] for row in table]

    def same(one: int, other: int) -> bool:
        return cells[one] == cells[other]

    return cells, rows_by_token(path, tokens, request.catalogue, same)


def _item_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix == ".npy")
