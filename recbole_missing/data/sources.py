"""Open the data of a modality as its settings say: files, columns, pictures.

All feature files are opened here. Reading takes two steps: :func:`open_source` reads, checks and
aligns rows to items, :meth:`.Source.features` encodes. Nothing is imputed here.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

import numpy as np

from recbole_missing import identity
from recbole_missing.config import defaults
from recbole_missing.config.constraints import Choice, Int, ListOf, Optional, Text, check
from recbole_missing.data import pictures, pretrained
from recbole_missing.data.aligned import Cells, Encoded, Matrix, Source
from recbole_missing.data.catalogue import Catalogue, rows_by_token, rows_in_order
from recbole_missing.data.encoded import EncodedRows, key_of
from recbole_missing.data.encoders import Rows, encode_colours, encode_tags, encode_text, split
from recbole_missing.data.files import (
    read_columns,
    read_folder,
    read_header,
    read_ids,
    read_matrix,
)
from recbole_missing.data.item_pictures import item_pictures, readable_pictures
from recbole_missing.data.scale import SCALES
from recbole_missing.version import installed

_NEURAL = ("sentence", "clip")  # encoders that need a model
_OF_MODELS = ("sentence-transformers", "tokenizers", "transformers")
_OF_PICTURES = ("pillow",)


class _Names:
    """A name, or a list of names."""

    def accepts(self, value: Any) -> bool:
        """Tell whether ``value`` is a non-empty string or a non-empty list of them."""
        return Text().accepts(value) or ListOf(Text(), empty=False).accepts(value)

    def __str__(self) -> str:
        """Describe the constraint in words."""
        return "a column name or a list of column names"


def modality_settings(name: str) -> dict[str, Any]:
    """Return the setting names of the modality ``name``, with the constraint of each."""
    return {f"{name}_{key}": Optional(constraint) for key, constraint in _constraints().items()}


def open_source(name: str, settings: Mapping[str, Any], catalogue: Catalogue) -> Source:
    """Open and check the data of one modality.

    Args:
        name: the modality.
        settings: a dict or a RecBole config with the keys of :func:`modality_settings`, and
            RecBole's ``preload_weight`` and ``additional_feat_suffix`` if they are referred to.
            With ``encoder_cache``, encoded rows are kept in ``checkpoint_dir``. ``device`` is that
            of neural encoders, and ``show_progress`` shows their bar.
        catalogue: the items.

    Raises:
        ValueError: if a setting, a file or a column is wrong.
    """
    request = _request(name, settings, catalogue)
    return KINDS[request.kind].open(request)


def check_library(name: str, settings: Mapping[str, Any]) -> None:
    """Refuse an encoder whose library is absent, before any data are read.

    Args:
        name, settings: see :func:`open_source`.

    Raises:
        ValueError: with the command that installs the library.
    """
    encoder, model = (_value(settings, f"{name}_{key}") for key in ("encoder", "model"))
    if encoder in _NEURAL or (encoder is None and model is not None):
        pretrained.check_installed(name)


def feature_files(name: str, settings: Mapping[str, Any], catalogue: Catalogue) -> list[Path]:
    """List the files that a modality is read from. The catalogue may lack the tokens here.

    Raises:
        ValueError: if the settings are wrong or a file does not exist.
    """
    request = _request(name, settings, catalogue)
    return KINDS[request.kind].files(request)


@dataclass(frozen=True)
class _Request:
    """The settings of one modality. Keys of ``values`` are without the modality's name."""

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

    def encoder(self) -> str:
        """Return the name of the encoder; settings that it does not read get a warning."""
        key, encoders = f"{self.name}_encoder", _ENCODERS[self.kind]
        plain, neural = list(encoders)[0], list(encoders)[-1]
        chosen = self.values["encoder"] or (neural if self.values["model"] else plain)
        check(self.name, {key: chosen}, {key: Choice(*encoders)})
        for unread in sorted(_OF_ENCODERS.keys() - {"encoder", *encoders[chosen]}):
            if self.values[unread] is not None:
                logging.getLogger().warning(
                    f"{self.name}: {self.name}_{unread} has no effect with the encoder {chosen}."
                )
        return str(chosen)

    def of_encoder(self, encoder: str, key: str) -> Any:
        """Value of a setting of an encoder, or the default of the package."""
        value = self.values[key]
        return defaults.read("", "encoders")[encoder][key] if value is None else value

    def rows(self, encoder: Sequence[Any], libraries: Sequence[str]) -> EncodedRows:
        """Return the rows that an encoder has made for this modality, in earlier runs too.

        Args:
            encoder: its name and what decides its rows.
            libraries: distributions that compute the rows. Those of other versions are not taken,
                so that one matrix holds no rows of two versions.
        """
        path = None
        if self.values["cached"] and self.values["saved"]:
            used = {name: installed(name) for name in libraries}
            key = identity.digest([self.catalogue.dataset, self.name, *encoder, used])
            path = Path(self.values["saved"]) / "encoded" / f"{key}.safetensors"
        return EncodedRows(path)

    def model(self, encoder: str) -> pretrained.Pretrained:
        """Return the model of an encoder. It runs on the device of the run.

        Raises:
            ValueError: if it is absent.
        """
        model, values = self.of_encoder(encoder, "model"), self.values
        device, progress = values["device"] or "cpu", bool(values["progress"])
        return pretrained.Pretrained(self.name, model, self.catalogue.folder, device, progress)

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
            catalogue = self.catalogue
            header = read_header(path, catalogue.field_separator, catalogue.encoding)
            if {id_field, fields[id_field]} <= set(header):
                return path, id_field, fields[id_field]
        raise ValueError(
            f"{self.name}: a file of additional_feat_suffix must hold the columns {id_field!r} and "
            f"{fields[id_field]!r}, got suffixes {suffixes!r}; add the file's suffix."
        )


_OF_THE_RUN = {
    "fields": "preload_weight",
    "suffixes": "additional_feat_suffix",
    "cached": "encoder_cache",
    "saved": "checkpoint_dir",
    "progress": "show_progress",
    "device": "device",
}
"""Settings of the run that sources read; they stand in ``values`` under these names."""


def _request(name: str, settings: Mapping[str, Any], catalogue: Catalogue) -> _Request:
    declared = modality_settings(name)
    check(name, {key: _value(settings, key) for key in declared}, declared)
    values = {key: _value(settings, f"{name}_{key}") for key in _constraints()}
    chosen = [kind for kind in KINDS if values[kind] is not None]
    if len(chosen) != 1:
        keys, got = (", ".join(f"{name}_{kind}" for kind in kinds) for kinds in (KINDS, chosen))
        raise ValueError(f"{name}: exactly one of {keys} must be set, got {got or 'none'}.")
    for key in _constraints():
        owners = [f"{name}_{kind}" for kind in KINDS if key in KINDS[kind].companions]
        if owners and key not in KINDS[chosen[0]].companions and values[key] is not None:
            raise ValueError(
                f"{name}: {name}_{key} must come with {' or '.join(owners)}, got "
                f"{name}_{chosen[0]}; remove {name}_{key}."
            )
    values.update({key: _value(settings, setting) for key, setting in _OF_THE_RUN.items()})
    return _Request(name, chosen[0], values, catalogue)


def _value(settings: Mapping[str, Any], key: str) -> Any:
    return settings[key] if key in settings else None  # noqa: SIM401  Config has no `get`


def _open_features(request: _Request) -> Source:
    name, catalogue, path = request.name, request.catalogue, request.path("features")
    if path.is_dir():
        return _open_folder(request, path)
    matrix = read_matrix(path)
    if request.values["ids"] is None:
        rows = rows_in_order(name, path, len(matrix), catalogue)
        return Matrix(name, path, matrix, rows, catalogue.tokens)
    ids_path = request.path("ids")
    ids = read_ids(ids_path, catalogue.encoding)
    if len(ids) != len(matrix):
        raise ValueError(
            f"{name}: {ids_path.name} must have one id for each of the {len(matrix)} rows of "
            f"{path.name}, got {len(ids)} from {ids[:1]} to {ids[-1:]}; write both again, without "
            "a header."
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
    if not set(tokens) & set(map(str, request.catalogue.tokens[1:])):
        raise ValueError(
            f"{request.name}: {folder} must hold a file <item>.npy for one item or more of dataset "
            f"{request.catalogue.dataset!r}, got {len(tokens)} .npy files of other names "
            f"{tokens[:1]}, items are named {str(request.catalogue.tokens[1])!r}; name the "
            "innermost folder."
        )
    rows = rows_by_token(folder, tokens, request.catalogue, same=lambda one, other: True)
    used = np.unique(rows[rows >= 0])
    rows[rows >= 0] = np.searchsorted(used, rows[rows >= 0])
    matrix = read_folder(folder, [tokens[row] for row in used])
    return Matrix(request.name, folder, matrix, rows, request.catalogue.tokens)


def _open_columns(request: _Request) -> Source:
    name, values, encoder = request.name, request.values, request.encoder()
    columns = [values["columns"]] if isinstance(values["columns"], str) else list(values["columns"])
    path, separator = request.atomic_file("item"), request.catalogue.seq_separator
    if encoder == "vector":
        return _open_vectors(request, path, request.catalogue.item_field, columns)
    cells, rows = _cells_by_token(request, path, request.catalogue.item_field, columns)
    if encoder == "sentence":
        return _open_sentences(request, cells, rows)
    dim = request.of_encoder("text", "dim")

    def tags(fitted: Rows, others: Rows) -> np.ndarray:
        return encode_tags(name, columns, fitted, separator, others)

    def text(fitted: Rows, others: Rows) -> np.ndarray:
        texts, shown = ([" ".join(row) for row in part] for part in (fitted, others))
        return encode_text(name, texts, dim, shown)

    if encoder == "tags":
        return Cells(name, cells, rows, tags, ("tags", columns, separator))
    return Cells(name, cells, rows, text, ("text", dim))


def _open_sentences(request: _Request, cells: Sequence[Sequence[str]], rows: np.ndarray) -> Source:
    texts = {item: " ".join(cells[row]) for item, row in enumerate(rows) if row >= 0}
    keys = {item: key_of(text.encode()) for item, text in texts.items() if text.strip()}
    model = request.model("sentence")
    identified = ["sentence", pretrained.VERSION, model.key]

    def encode(items: Sequence[int]) -> Iterable[np.ndarray]:
        return model.texts([texts[item] for item in items])

    known = request.rows(identified, _OF_MODELS)
    return Encoded(request.name, keys, len(rows), known, identified, encode)


def _open_images(request: _Request) -> Source:
    name, encoder, n_items = request.name, request.encoder(), len(request.catalogue.tokens)
    model = request.model(encoder) if encoder == "clip" else None
    described = request.rows(pictures.DESCRIPTION, _OF_PICTURES)
    files = item_pictures(name, request.path("images"), request.catalogue)
    values = request.values
    keys = readable_pictures(
        name,
        values["images"],
        files,
        described,
        refuses=values["unreadable"] == "error",
        progress=bool(values["progress"]),
    )
    if model is not None:
        identified = [encoder, pretrained.VERSION, model.key]

        def encode(items: Sequence[int]) -> Iterable[np.ndarray]:
            return model.pictures([(files[item], keys[item]) for item in items])

        known = request.rows(identified, (*_OF_MODELS, *_OF_PICTURES))
        return Encoded(name, keys, n_items, known, identified, encode)
    dim = request.of_encoder(encoder, "dim")
    logging.getLogger().info(
        f"{name}: the encoder pixels sees the colours of a picture and where they are, but not "
        f"what it shows; {name}_model: {request.of_encoder('clip', 'model')} brings CLIP."
    )

    def learn(rows: np.ndarray, others: np.ndarray) -> np.ndarray:
        return encode_colours(name, rows, dim, others, pictures.BLOCKS)

    identified = ["pixels", *pictures.DESCRIPTION, dim]
    return Encoded(name, keys, n_items, described, identified, learn=learn)


def _open_preload_weight(request: _Request) -> Source:
    path, id_field, vector_field = request.preload_weight()
    return _open_vectors(request, path, id_field, [vector_field])


def _open_vectors(request: _Request, path: Path, id_field: str, columns: list[str]) -> Source:
    """Read numbers from cells. A row of blank cells becomes NaN, which means missing."""
    catalogue = request.catalogue
    cells, rows = _cells_by_token(request, path, id_field, columns)
    vectors: dict[int, list[float]] = {}
    for item in np.flatnonzero(rows >= 0).tolist():
        words = [w for cell in cells[int(rows[item])] for w in split(cell, catalogue.seq_separator)]
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
    catalogue = request.catalogue
    fields = [id_field, *columns]
    table = read_columns(path, fields, catalogue.field_separator, catalogue.encoding)
    tokens, cells = [row[0] for row in table], [row[1:] for row in table]

    def same(one: int, other: int) -> bool:
        return cells[one] == cells[other]

    return cells, rows_by_token(path, tokens, catalogue, same)


def _item_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix == ".npy")


def _features_files(request: _Request) -> list[Path]:
    path = request.path("features")
    if path.is_dir():
        return _item_files(path)
    return [path] if request.values["ids"] is None else [path, request.path("ids")]


def _columns_files(request: _Request) -> list[Path]:
    return [request.atomic_file("item"), *_model_files(request)]


def _images_files(request: _Request) -> list[Path]:
    return [*pictures.find(request.path("images")), *_model_files(request)]


def _model_files(request: _Request) -> list[Path]:
    """Files of a model in a folder; those of a downloaded one do not change."""
    folder = request.catalogue.folder / Path(request.values["model"] or "").expanduser()
    neural = request.values["model"] and request.encoder() in _NEURAL
    return pretrained.model_files(folder) if neural else []


def _preload_weight_files(request: _Request) -> list[Path]:
    return [request.preload_weight()[0]]


_ENCODERS: dict[str, dict[str, Sequence[str]]] = {
    "columns": {"text": ["dim"], "tags": [], "vector": [], "sentence": ["model"]},
    "images": {"pixels": ["dim"], "clip": ["model"]},
}
"""Kind of source -> its encoders -> the settings that they read.

The first encoder of a kind is chosen if no model is set, the last one if a model is set.
"""

ENCODERS = Choice(*(encoder for encoders in _ENCODERS.values() for encoder in encoders))


@dataclass(frozen=True)
class Kind:
    """A kind of source.

    Args:
        value: constraint of the setting ``<modality>_<kind>``, which chooses this kind.
        companions: constraint of each further setting ``<modality>_<companion>``.
        open: function that opens and checks the data.
        files: function that lists the files that are read.
    """

    value: Any
    companions: Mapping[str, Any]
    open: Callable[[_Request], Source]
    files: Callable[[_Request], list[Path]]


_OF_ENCODERS = {"encoder": ENCODERS, "dim": Int(min=1), "model": Text()}

KINDS = {
    "features": Kind(Text(), {"ids": Text()}, _open_features, _features_files),
    "columns": Kind(_Names(), _OF_ENCODERS, _open_columns, _columns_files),
    "images": Kind(
        Text(),
        {**_OF_ENCODERS, "unreadable": Choice("hole", "error")},
        _open_images,
        _images_files,
    ),
    "preload_weight": Kind(Text(), {}, _open_preload_weight, _preload_weight_files),
}
"""Setting that chooses a kind of source -> the kind. A new kind needs one line here."""


def _constraints() -> dict[str, Any]:
    """Constraints of all settings of a modality. Keys are without the modality's name."""
    found = {kind: declared.value for kind, declared in KINDS.items()}
    for declared in KINDS.values():
        found.update(declared.companions)
    return {**found, "scale": SCALES}
