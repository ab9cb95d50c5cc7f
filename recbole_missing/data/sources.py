"""Read features from files and columns, and align their rows to items by token.

All feature files are read here. Reading takes two steps: :func:`open_source` reads and checks,
:meth:`Source.features` encodes. An encoder that learns from its input (TF-IDF, a list of tags) must
not learn from hidden items. So it is fitted only when the observed items are known. Nothing is
imputed here. :func:`read_edges` reads the user's own item graph, which also names items by token.
"""

from __future__ import annotations

import logging
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

import numpy as np
from scipy import sparse

from recbole_missing import identity
from recbole_missing.config import defaults
from recbole_missing.config.constraints import Choice, Int, ListOf, Optional, Text, check
from recbole_missing.data import pictures, pretrained
from recbole_missing.data.encoded import EncodedRows
from recbole_missing.data.encoders import Rows, encode_colours, encode_tags, encode_text, split
from recbole_missing.data.files import (
    read_columns,
    read_folder,
    read_header,
    read_ids,
    read_matrix,
)
from recbole_missing.data.scale import SCALES
from recbole_missing.imputation import arrays
from recbole_missing.parallel import Serial

_CHUNK = 4096  # rows that are read at a time while a file on disk is checked
_FEW_EQUAL = 2  # so many equal rows, and 1 in 100, are taken for variants of one item
_NEURAL = ("sentence", "clip")  # encoders that need a model
_ITEM, _NEIGHBOUR, _WEIGHT = "item_id", "neighbour_id", "weight"  # columns of an edge file


@dataclass(frozen=True)
class Catalogue:
    """The items of a dataset, and the folder and format of its files.

    Args:
        dataset: name of the dataset, first part of the names of its atomic files.
        folder: the dataset's folder.
        tokens: item tokens by item id; ``tokens[0]`` is RecBole's ``"[PAD]"``.
        item_field: name of the item column in atomic files.
        field_separator: separator between two cells of an atomic file.
        seq_separator: separator between two words of a cell.
        encoding: encoding of the atomic files.
    """

    dataset: str
    folder: Path
    tokens: Sequence[str]
    item_field: str
    field_separator: str = "\t"
    seq_separator: str = " "
    encoding: str = "utf-8"


def rows_in_order(name: str, path: Path, n_rows: int, catalogue: Catalogue) -> np.ndarray:
    """Give the r-th row to the item with the r-th smallest token, int ``(n_items,)``.

    Raises:
        ValueError: if there are more or fewer rows than items, or a token is not an integer.
    """
    remedy = f"give an id file ({name}_ids)."
    tokens = [str(token) for token in catalogue.tokens[1:]]
    if n_rows != len(tokens):
        raise ValueError(
            f"{path.name} has {n_rows} rows, dataset {catalogue.dataset!r} has {len(tokens)} "
            f"items; {remedy}"
        )
    words = [token for token in tokens if not re.fullmatch("-?[0-9]+", token)]
    if words or len({int(token) for token in tokens}) < len(tokens):
        got = repr(words[0]) if words else "two tokens of one number"
        raise ValueError(
            f"{path.name}: item tokens must be distinct integers to say which row is whose, "
            f"got {got}; {remedy}"
        )
    rows = np.full(len(tokens) + 1, -1)
    rows[1 + np.argsort([int(token) for token in tokens])] = np.arange(len(tokens))
    return rows


def rows_by_token(
    path: Path,
    tokens: Sequence[str],
    catalogue: Catalogue,
    same: Callable[[int, int], bool],
    what: str = "rows",
) -> np.ndarray:
    """Find the row of each item, int ``(n_items,)``; -1 if the item has no row.

    Args:
        path: file of the tokens, for messages.
        tokens: the token of each row; a row whose token is not an item is ignored.
        catalogue: the items.
        same: tells whether two rows with the same token hold the same data.
        what: what a row is, for messages.

    Raises:
        ValueError: if no token is an item, or an item has several rows and they differ.
    """
    items = {str(token): item for item, token in enumerate(catalogue.tokens) if item}
    rows = np.full(len(catalogue.tokens), -1)
    strangers: list[str] = []
    repeated: list[str] = []
    torn: list[str] = []
    for row, token in enumerate(tokens):
        item = items.get(token)
        if item is None:
            strangers.append(token)
        elif rows[item] < 0:
            rows[item] = row
        else:
            (repeated if same(rows[item], row) else torn).append(token)
    if tokens and len(strangers) == len(tokens):
        raise ValueError(f"{path.name}: ids must be {no_match(catalogue.tokens, tokens)}")
    if torn:
        raise ValueError(
            f"{path.name}: an item must have one row, got rows that differ for "
            f"{_first(torn)}; keep one row each."
        )
    for why, found in {"no such item": strangers, "equal repeats, one kept": repeated}.items():
        if found:
            logging.getLogger().warning(
                f"{path.name}: {len(found):,} of {len(tokens):,} {what} ignored, {why}: "
                f"{_first(found)}."
            )
    return rows


def no_match(tokens: Sequence[str], found: Sequence[str]) -> str:
    """End of a message: no id of a file is an item token.

    Args:
        tokens: item tokens by item id; ``tokens[0]`` is the padding.
        found: ids of the file.
    """
    return (
        f"item tokens, no id matches ({len(found):,} ids, {len(tokens) - 1:,} items): the data set "
        f"has {str(tokens[1])!r}, the file has {found[0]!r}; write ids alike."
    )


def _first(tokens: Sequence[str]) -> str:
    return ", ".join(repr(token) for token in list(dict.fromkeys(tokens))[:5])


class Source(ABC):
    """One modality's data, aligned to items and not yet encoded.

    Args:
        name: the modality.
        present: bool ``(n_items,)``, True for items that truly have the modality; row 0 (padding)
            is False.

    Attributes:
        encoder: name and settings of what encodes the :meth:`pieces`, and nothing that it does not
            read; None if the pieces are numbers, which are not encoded.

    Raises:
        ValueError: if no item has the modality.
    """

    encoder: Sequence[Any] | None = None

    def __init__(self, name: str, present: np.ndarray) -> None:
        """Store the arguments; raise an error if no item has the modality."""
        self.name, self.present = name, present
        counts = f"{present.sum():,} of {len(present) - 1:,} items have it"
        if not present.any():
            raise ValueError(f"{name}: {counts}; drop it from `modalities`.")
        logging.getLogger().info(f"{name}: {counts}.")

    def features(self, observed: np.ndarray, reveal: bool = False) -> np.ndarray:
        """Encode the observed items as if the others did not exist.

        Args:
            observed: bool ``(n_items,)``, a subset of ``present`` that is not empty.
            reveal: encode the other items of ``present`` too, with the encoder that was fitted on
                the observed ones. Evaluations compare with these rows; training never uses them.

        Returns:
            Float32 ``(n_items, dim)``. Rows outside ``observed`` have no influence on the others.
            They are zero unless they are revealed.

        Raises:
            ValueError: if ``observed`` is not such a mask.
        """
        if observed.dtype != bool or observed.shape != self.present.shape:
            raise ValueError(
                f"{self.name}: observed must be bool of shape {self.present.shape}, "
                f"got {observed.dtype} {observed.shape}."
            )
        if not observed.any() or (observed & ~self.present).any():
            raise ValueError(
                f"{self.name}: observed must hold one or more of the {self.present.sum():,} items "
                f"that have it and no other, got {observed.sum():,} items, "
                f"{(observed & ~self.present).sum():,} of them without it; hide fewer items."
            )
        items = np.flatnonzero(observed)
        others = np.flatnonzero(self.present & ~observed & reveal)
        encoded = self._encode(items, others)
        features = np.zeros((len(observed), encoded.shape[1]), dtype=np.float32)
        features[np.concatenate([items, others])] = encoded
        return features

    @abstractmethod
    def pieces(self) -> Iterator[bytes]:
        """Bytes that the features of each present item are made from, in the order of the items."""

    @abstractmethod
    def _encode(self, items: np.ndarray, others: np.ndarray) -> np.ndarray:
        """Learn from ``items`` alone, then encode ``items`` and ``others``.

        Returns:
            Float32 ``(len(items) + len(others), dim)``.
        """


class Matrix(Source):
    """A modality that is a matrix of numbers.

    Args:
        name: the modality.
        path: file of the numbers, for messages.
        matrix: real numbers of any dtype ``(n_rows, dim)``, perhaps on disk; never written to.
        rows: int ``(n_items,)``, the row of each item or -1.
        tokens: item tokens by item id, for messages.

    Raises:
        ValueError: if the row of an item holds a number that is not finite. A row in which every
            number is NaN is allowed; it means that the item lacks the modality.
    """

    def __init__(
        self,
        name: str,
        path: Path,
        matrix: np.ndarray,
        rows: np.ndarray,
        tokens: Sequence[str],
    ) -> None:
        """Store the arguments and check the numbers of the items."""
        self._matrix, self._rows, self._path = matrix, rows, path
        if matrix.dtype.newbyteorder("=") != np.float32:
            logging.getLogger().info(f"{path.name}: {matrix.dtype} is read as float32.")
        present = rows >= 0
        present[self._holes(np.flatnonzero(present), tokens)] = False
        super().__init__(name, present)
        self._warn_if_imputed(np.flatnonzero(present))

    def pieces(self) -> Iterator[bytes]:
        """Bytes of the row of each present item."""
        for _, values in self._blocks(np.flatnonzero(self.present)):
            yield from (row.tobytes() for row in values)

    def _encode(self, items: np.ndarray, others: np.ndarray) -> np.ndarray:
        return self._numbers(np.concatenate([items, others]))

    def _numbers(self, items: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore"):  # what overflows float32 becomes inf, which _holes refuses
            return self._matrix[self._rows[items]].astype(np.float32)

    def _blocks(self, items: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for start in range(0, len(items), _CHUNK):
            block = items[start : start + _CHUNK]
            yield block, self._numbers(block)

    def _holes(self, items: np.ndarray, tokens: Sequence[str]) -> np.ndarray:
        """Items in whose row every number is NaN. Any other non-finite number is an error."""
        holes: list[int] = []
        broken: list[int] = []
        for block, values in self._blocks(items):
            hole, wrong = arrays.holes(values)
            holes.extend(block[hole])
            broken.extend(block[wrong])
        if broken:
            first = [f"{self._rows[i]} (item {str(tokens[i])!r})" for i in broken[:5]]
            raise ValueError(
                f"{self._path.name}: every number must be finite in float32, got NaN, inf or "
                f"overflow in {len(broken):,} rows: {', '.join(first)}; repair them, or make the "
                "whole row NaN where the item lacks the modality."
            )
        if holes:
            logging.getLogger().info(
                f"{self._path.name}: {len(holes):,} rows are NaN; their items lack the modality."
            )
        return np.array(holes, dtype=np.int64)

    def _warn_if_imputed(self, items: np.ndarray) -> None:
        """Warn about rows that may have been imputed: zeros, the column mean, one row for many."""
        total, squares = np.zeros((2, self._matrix.shape[1]))
        for _, values in self._blocks(items):
            total += values.sum(axis=0, dtype=np.float64)
            squares += np.square(values, dtype=np.float64).sum(axis=0)
        mean = total / len(items)
        spread = np.sqrt(np.maximum(squares / len(items) - mean**2, 0))
        # The mean in the file may be rounded to its dtype, or summed in another order.
        dtype = self._matrix.dtype
        rounding = max(1e-6, float(np.finfo(dtype).eps) if dtype.kind == "f" else 0.0)
        near = 1e-3 * spread + rounding * np.abs(mean)
        zeros = means = 0
        others: list[int] = []  # a hash of 64 bits of every other row
        for _, values in self._blocks(items):
            is_zero = ~values.any(axis=1)
            is_mean = ~is_zero & (np.abs(values - mean) <= near).all(axis=1) & (len(items) > 1)
            zeros += is_zero.sum()
            means += is_mean.sum()
            others.extend(hash(row.tobytes()) for row in values[~is_zero & ~is_mean])
        sizes = np.unique(np.array(others, dtype=np.int64), return_counts=True)[1]
        largest, repeated = sizes.max(initial=0), sizes[sizes > 1].sum()
        same = largest if largest > max(_FEW_EQUAL, len(items) / 100) else 0
        for count, what in (
            (zeros, "zero"),
            (means, "the column mean"),
            (same, f"one and the same ({repeated:,} equal some other row)"),
        ):
            if count:
                logging.getLogger().warning(
                    f"{self._path.name}: looks imputed; {count:,} of {len(items):,} rows are "
                    f"{what}; if they are holes, leave them out (a matrix then needs an id file)."
                )


class Cells(Source):
    """A modality that is text. An item whose cells are all blank lacks it.

    Args:
        name: the modality.
        cells: one row of cells for each line of the table.
        rows: int ``(n_items,)``, the row of each item or -1.
        encode: function of two arguments, the cells to learn from and the cells of further items.
            It returns float32 ``(n, dim)``, with the rows of the first argument first.
        encoder: name of the encoder, and the settings that it reads.
    """

    def __init__(
        self,
        name: str,
        cells: Sequence[Sequence[str]],
        rows: np.ndarray,
        encode: Callable[[list[Sequence[str]], list[Sequence[str]]], np.ndarray],
        encoder: Sequence[Any],
    ) -> None:
        """Store the arguments and find the items that have a word."""
        self.encoder = encoder
        self._cells, self._rows, self._fit = cells, rows, encode
        present = rows >= 0
        present[present] = [any(cell.strip() for cell in cells[row]) for row in rows[present]]
        super().__init__(name, present)

    def pieces(self) -> Iterator[bytes]:
        """Bytes of the cells of each present item."""
        yield from (repr(tuple(self._cells[row])).encode() for row in self._rows[self.present])

    def _encode(self, items: np.ndarray, others: np.ndarray) -> np.ndarray:
        cells, shown = ([self._cells[row] for row in self._rows[ids]] for ids in (items, others))
        return self._fit(cells, shown)


class Encoded(Source):
    """A modality whose contents are encoded one by one, such as pictures.

    The encoder learns nothing, so the row of an item depends on the content of that item alone.
    Content whose row is known is not encoded again.

    Args:
        name: the modality.
        keys: a digest of the content of each item that has the modality, by item id.
        n_items: number of items, padding included.
        rows: known rows.
        encoder: name of the encoder, and what decides its rows.
        encode: function that encodes items. It yields a row for each, float32 ``(dim,)``. None:
            every row is known.
        learn: function of two arguments, the rows to learn from and the rows of further items. It
            returns both, encoded anew, one below the other. None: rows stay as they are.
    """

    def __init__(
        self,
        name: str,
        keys: Mapping[int, bytes],
        n_items: int,
        rows: EncodedRows,
        encoder: Sequence[Any],
        encode: Callable[[Sequence[int]], Iterable[np.ndarray]] | None = None,
        learn: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None,
    ) -> None:
        """Store the arguments."""
        self.encoder = encoder
        self._keys, self._known, self._one_by_one, self._learn = keys, rows, encode, learn
        present = np.zeros(n_items, dtype=bool)
        present[list(keys)] = True
        super().__init__(name, present)

    def pieces(self) -> Iterator[bytes]:
        """Digest of the content of each present item."""
        yield from (self._keys[item] for item in np.flatnonzero(self.present))

    def _encode(self, items: np.ndarray, others: np.ndarray) -> np.ndarray:
        rows = self._rows(items)
        shown = self._rows(others) if len(others) else rows[:0]
        return np.concatenate([rows, shown]) if self._learn is None else self._learn(rows, shown)

    def _rows(self, items: np.ndarray) -> np.ndarray:
        keys = [self._keys[item] for item in items]
        new = [(key, int(item)) for key, item in zip(keys, items) if key not in self._known]
        if self._one_by_one is not None:
            logging.getLogger().info(
                f"{self.name}: {len(new):,} of {len(items):,} contents are new and are encoded now."
            )
            self._add(dict(new))
        return self._known.of(keys)

    def _add(self, items: Mapping[bytes, int]) -> None:
        """Encode items. What is encoded before an error, or before Ctrl-C, is kept."""
        rows: dict[bytes, np.ndarray] = {}
        try:
            if self._one_by_one is not None and items:
                rows.update(zip(items, self._one_by_one(list(items.values()))))
        finally:
            self._known.add(rows)


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

    def rows(self, encoder: Sequence[Any]) -> EncodedRows:
        """Return the rows that an encoder has made for this modality, in earlier runs too."""
        path = None
        if self.values["cached"] and self.values["saved"]:
            key = identity.digest([self.catalogue.dataset, self.name, *encoder])
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
    keys = {item: pictures.digest(text.encode()) for item, text in texts.items() if text.strip()}
    model = request.model("sentence")
    identified = ["sentence", pretrained.VERSION, model.key]

    def encode(items: Sequence[int]) -> Iterable[np.ndarray]:
        return model.texts([texts[item] for item in items])

    known = request.rows(identified)
    return Encoded(request.name, keys, len(rows), known, identified, encode)


def _open_images(request: _Request) -> Source:
    name, encoder, n_items = request.name, request.encoder(), len(request.catalogue.tokens)
    model = request.model(encoder) if encoder == "clip" else None
    described, files = request.rows(pictures.DESCRIPTION), _item_pictures(request)
    keys = _readable(request, files, described)
    if model is not None:
        identified = [encoder, pretrained.VERSION, model.key]

        def encode(items: Sequence[int]) -> Iterable[np.ndarray]:
            return model.pictures([(files[item], keys[item]) for item in items])

        return Encoded(name, keys, n_items, request.rows(identified), identified, encode)
    dim = request.of_encoder(encoder, "dim")
    logging.getLogger().info(
        f"{name}: the encoder pixels sees the colours of a picture and where they are, but not "
        f"what it shows; {name}_model: {request.of_encoder('clip', 'model')} brings CLIP."
    )

    def learn(rows: np.ndarray, others: np.ndarray) -> np.ndarray:
        return encode_colours(name, rows, dim, others, pictures.BLOCKS)

    identified = ["pixels", *pictures.DESCRIPTION, dim]
    return Encoded(name, keys, n_items, described, identified, learn=learn)


def _item_pictures(request: _Request) -> dict[int, Path]:
    """Find the picture of each item that has one; the stem of the file name is the token."""
    folder, catalogue = request.path("images"), request.catalogue
    files = pictures.find(folder)
    if not files:
        raise ValueError(
            f"{request.name}: {folder} must be a folder of pictures <item> with an ending of "
            f"{', '.join(pictures.SUFFIXES)}, got none; name the folder of the pictures."
        )
    stems = [path.stem for path in files]
    _check_stems(request, files)
    rows = rows_by_token(folder, stems, catalogue, lambda one, other: False, "pictures")
    return {item: files[row] for item, row in enumerate(rows) if row >= 0}


def _check_stems(request: _Request, files: Sequence[Path]) -> None:
    """Refuse two pictures of one item."""
    items = set(map(str, request.catalogue.tokens[1:]))
    found: dict[str, Path] = {}
    for path in files:
        other = found.setdefault(path.stem, path)
        if other != path and path.stem in items:
            raise ValueError(
                f"{request.name}: item {path.stem!r} must have one picture, got {other} and "
                f"{path}; remove one of them."
            )


def _readable(
    request: _Request, files: Mapping[int, Path], described: EncodedRows
) -> dict[int, bytes]:
    """Digests of the pictures that can be read. Their descriptions are known afterwards.

    Raises:
        ValueError: if one cannot be read and the setting ``unreadable`` is ``error``.
    """
    name, keys, broken = request.name, {}, []
    new: list[tuple[bytes, np.ndarray]] = []
    engine = Serial(bool(request.values["progress"]), delay=3.0)
    seen = engine.map(pictures.look, (described,), list(files.values()), f"{name}: pictures")
    try:
        for item, (key, row, problem) in zip(files, seen):
            if problem is None:
                keys[item] = key
            else:
                broken.append(f"{files[item].name} ({problem})")
            if row is not None:
                new.append((key, row))
    finally:  # what was read before Ctrl-C is kept
        described.add(dict(new))
    logging.getLogger().info(f"{name}: {len(new):,} of {len(files):,} pictures are new.")
    if broken:
        said = f"got {len(broken):,} of {len(files):,} that cannot be read: {', '.join(broken[:5])}"
        who = f"{name}: the pictures of {request.values['images']} must be whole"
        if request.values["unreadable"] == "error":
            raise ValueError(f"{who}, {said}; repair or remove them.")
        logging.getLogger().warning(f"{who}, {said}; their items lack the modality.")
    return keys


def _open_preload_weight(request: _Request) -> Source:
    path, id_field, vector_field = request.preload_weight()
    return _open_vectors(request, path, id_field, [vector_field])


def _open_vectors(request: _Request, path: Path, id_field: str, columns: list[str]) -> Source:
    """Read numbers from cells. A row of blank cells becomes NaN, which means missing."""
    catalogue = request.catalogue
    cells, rows = _cells_by_token(request, path, id_field, columns)
    vectors: dict[int, list[float]] = {}
    for item in np.flatnonzero(rows >= 0):
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
    return [path for path in sorted(folder.rglob("*")) if path.is_file()] if neural else []


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


def read_edges(
    path: Path, tokens: Sequence[str], separator: str = "\t", encoding: str = "utf-8"
) -> sparse.csr_matrix:
    """Read an item graph from an atomic file with ``item_id:token`` and ``neighbour_id:token``.

    A column ``weight:float`` is optional. Without it every edge has the weight 1. Along an edge the
    item receives from the neighbour. An edge in both directions needs two lines. Edges of items
    that are not in the data set are left out, and a log line counts them.

    Args:
        path: the file.
        tokens: item tokens by item id; ``tokens[0]`` is the padding.
        separator: separator between two cells.
        encoding: encoding of the file.

    Returns:
        Matrix ``(n_items, n_items)``. A row belongs to the receiving item.

    Raises:
        ValueError: if the file is absent or ill-formed, a weight is not a positive number, or no
            edge joins two items of the data set.
    """
    if not path.is_file():
        raise ValueError(f"{path}: must be a file of item-item edges, got no such file; add it.")
    fields = [_ITEM, _NEIGHBOUR]
    fields += [_WEIGHT] if _WEIGHT in read_header(path, separator, encoding) else []
    lines = read_columns(path, fields, separator, encoding)
    item_of = {token: item for item, token in enumerate(tokens) if item}
    found = [
        (item_of[line[0]], item_of[line[1]], _weight(path, line))
        for line in lines
        if line[0] in item_of and line[1] in item_of
    ]
    if len(found) < len(lines):
        logging.getLogger().info(
            f"{path}: {len(lines) - len(found)} of {len(lines)} edges are of items "
            "that the data set does not have; left out."
        )
    if not found:
        raise ValueError(
            f"{path}: edges must join two items, got none of {len(lines)} that do; ids must be "
            f"{no_match(tokens, [line[0] for line in lines])}"
        )
    rows, cols, weights = (np.array(column) for column in zip(*found))
    return sparse.csr_matrix((weights.astype(np.float32), (rows, cols)), (len(tokens),) * 2)


def _weight(path: Path, line: tuple[str, ...]) -> float:
    if len(line) < 3:
        return 1.0
    try:
        weight = float(line[2])
    except ValueError:
        weight = np.nan
    if not 0 < weight < np.inf:
        raise ValueError(f"{path}: a weight must be a positive number, got {line[2]!r}; fix it.")
    return weight
