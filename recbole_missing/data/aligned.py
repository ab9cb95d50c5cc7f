"""One modality's data, aligned to items and not yet encoded: numbers, words, or pictures.

An encoder that learns from its input (TF-IDF, a list of tags, colours) must not learn from hidden
items. So :meth:`Source.features` encodes, and only when the observed items are known.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Callable

import numpy as np

from recbole_missing.data.encoded import EncodedRows
from recbole_missing.imputation import arrays

_CHUNK = 4096  # rows that are read at a time while a file on disk is checked
_FEW_EQUAL = 2  # so many equal rows, and 1 in 100, are taken for variants of one item


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
        yield from (self._keys[item] for item in np.flatnonzero(self.present).tolist())

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
