"""Items, the rows that belong to them, and one modality's data before it is encoded.

No file is opened here and no hole is filled here.
"""

from __future__ import annotations

import logging
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

import numpy as np

_CHUNK = 4096  # rows held in memory at a time while a file on disk is checked


@dataclass(frozen=True)
class Catalogue:
    """The items of a dataset and where its files are.

    Args:
        dataset: name of the dataset, first part of the names of its atomic files.
        folder: the dataset's folder.
        tokens: item tokens by item id; ``tokens[0]`` is RecBole's ``"[PAD]"``.
        item_field: name of the item column in atomic files.
        field_separator: what stands between two cells of an atomic file.
        seq_separator: what stands between two words of a cell.
    """

    dataset: str
    folder: Path
    tokens: Sequence[str]
    item_field: str
    field_separator: str = "\t"
    seq_separator: str = " "


def rows_in_order(name: str, path: Path, n_rows: int, catalogue: Catalogue) -> np.ndarray:
    """Give the r-th row to the item with the r-th smallest token, int ``(n_items,)``.

    Raises:
        ValueError: if the rows are not as many as the items or a token is not an integer.
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
    path: Path, tokens: Sequence[str], catalogue: Catalogue, same: Callable[[int, int], bool]
) -> np.ndarray:
    """Find the row of each item, int ``(n_items,)`` with -1 for none.

    Args:
        path: where the tokens are from.
        tokens: the token of each row; those that are not items are ignored.
        catalogue: the items.
        same: tells whether two rows that bear the same token hold the same data.

    Raises:
        ValueError: if an item has rows that differ.
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
    if torn:
        raise ValueError(
            f"{path.name}: an item must have one row, got rows that differ for "
            f"{_first(torn)}; keep one row each."
        )
    for what, found in {"no such item": strangers, "equal repeats, one kept": repeated}.items():
        if found:
            logging.getLogger().warning(
                f"{path.name}: {len(found):,} of {len(tokens):,} rows ignored, {what}: "
                f"{_first(found)}."
            )
    return rows


def _first(tokens: Sequence[str]) -> str:
    return ", ".join(repr(token) for token in list(dict.fromkeys(tokens))[:5])


class Source(ABC):
    """One modality's data, aligned to items and not yet encoded.

    Args:
        name: the modality.
        present: bool ``(n_items,)``, the items that really have it; row 0 (padding) is False.

    Raises:
        ValueError: if no item has the modality.
    """

    def __init__(self, name: str, present: np.ndarray) -> None:
        """Store the arguments; refuse a modality that nobody has."""
        self.name, self.present = name, present
        counts = f"{present.sum():,} of {len(present) - 1:,} items have it"
        if not present.any():
            raise ValueError(f"{name}: {counts}; drop it from `modalities`.")
        logging.getLogger().info(f"{name}: {counts}.")

    def features(self, observed: np.ndarray, reveal: bool = False) -> np.ndarray:
        """Encode the observed items as if the others did not exist.

        Args:
            observed: bool ``(n_items,)``, a subset of ``present`` that is not empty.
            reveal: also give the other items that have it, in the space of the observed ones: the
                truth that an evaluation compares with. Never for training.

        Returns:
            Float32 ``(n_items, dim)``; rows outside ``observed`` had no influence on the others
            and are zero unless they are revealed.

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
        """What the features of each item that has it are made from, in the order of the items."""

    @abstractmethod
    def _encode(self, items: np.ndarray, others: np.ndarray) -> np.ndarray:
        """Encode ``items``, then ``others``, having learnt from ``items`` alone.

        Returns:
            Float32 ``(len(items) + len(others), dim)``.
        """


class Matrix(Source):
    """Numbers of items.

    Args:
        name: the modality.
        path: where the numbers are from, for messages.
        matrix: real numbers of any dtype ``(n_rows, dim)``, perhaps on disk; never written to.
        rows: int ``(n_items,)``, the row of each item or -1.
        tokens: item tokens by item id, for messages.

    Raises:
        ValueError: if an item's row is neither finite nor NaN throughout (which means missing).
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
        present = rows >= 0
        present[self._holes(np.flatnonzero(present), tokens)] = False
        super().__init__(name, present)
        self._warn_if_imputed(np.flatnonzero(present))

    def pieces(self) -> Iterator[bytes]:
        """The numbers of each item that has the modality."""
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
        """Items whose row is NaN throughout; any other number that is not finite is an error."""
        holes, broken = [], []
        for block, values in self._blocks(items):
            hole = np.isnan(values).all(axis=1)
            holes.extend(block[hole])
            broken.extend(block[~hole & ~np.isfinite(values).all(axis=1)])
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
        """Count the rows that somebody may have filled in before: zeros, or the column mean."""
        total, squares = np.zeros((2, self._matrix.shape[1]))
        for _, values in self._blocks(items):
            total += values.sum(axis=0, dtype=np.float64)
            squares += np.square(values, dtype=np.float64).sum(axis=0)
        mean = total / len(items)
        spread = np.sqrt(np.maximum(squares / len(items) - mean**2, 0))
        # The writer's mean was rounded to the file's dtype, or summed in another order.
        dtype = self._matrix.dtype
        rounding = max(1e-6, float(np.finfo(dtype).eps) if dtype.kind == "f" else 0.0)
        near = 1e-3 * spread + rounding * np.abs(mean)
        zeros = means = 0
        for _, values in self._blocks(items):
            is_zero = ~values.any(axis=1)
            zeros += is_zero.sum()
            means += (~is_zero & (np.abs(values - mean) <= near).all(axis=1)).sum()
        for count, what in ((zeros, "zero"), (means if len(items) > 1 else 0, "the column mean")):
            if count:
                logging.getLogger().warning(
                    f"{self._path.name}: looks imputed; {count:,} of {len(items):,} rows are "
                    f"{what}; if they are holes, leave them out (a matrix then needs an id file)."
                )


class Cells(Source):
    """Words of items; an item whose cells are all blank lacks the modality.

    Args:
        name: the modality.
        cells: one row of cells for each line of the table.
        rows: int ``(n_items,)``, the row of each item or -1.
        encode: turns the cells of some items, then of others that it must not learn from, into
            float32 ``(n, dim)``.
    """

    def __init__(
        self,
        name: str,
        cells: Sequence[Sequence[str]],
        rows: np.ndarray,
        encode: Callable[[list[Sequence[str]], list[Sequence[str]]], np.ndarray],
    ) -> None:
        """Store the arguments and see which items have a word."""
        self._cells, self._rows, self._fit = cells, rows, encode
        present = rows >= 0
        present[present] = [any(cell.strip() for cell in cells[row]) for row in rows[present]]
        super().__init__(name, present)

    def pieces(self) -> Iterator[bytes]:
        """The words of each item that has the modality."""
        yield from (repr(tuple(self._cells[row])).encode() for row in self._rows[self.present])

    def _encode(self, items: np.ndarray, others: np.ndarray) -> np.ndarray:
        cells, shown = ([self._cells[row] for row in self._rows[ids]] for ids in (items, others))
        return self._fit(cells, shown)
