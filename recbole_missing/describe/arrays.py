"""The arrays that a description is computed from: items and users in the order of their tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from recbole_missing.data.collection import Collection, in_order
from recbole_missing.data.scale import Scale
from recbole_missing.imputation.base import Table

BoolArray = NDArray[np.bool_]


@dataclass(frozen=True)
class Arrays:
    """Training and validation split and the modalities, without padding.

    Args:
        name: of the data set.
        tables: modality -> table; rows that are not observed hold zeros.
        present: modality -> bool ``(n_items,)``: who has it by nature, hidden or not.
        train, valid: ``(n_users, n_items)``, ones; ``valid`` without pairs that training has.
        new: bool ``(n_items,)``: items whose training interactions were moved to the test split.
        edges: the user's own item graph, or None.
        rows: number of interactions of each split, repetitions counted.
        times: first and last time of training, in seconds since 1970; None without times.
    """

    name: str
    tables: dict[str, Table]
    present: Mapping[str, Tensor]
    train: sparse.csr_matrix
    valid: sparse.csr_matrix
    new: BoolArray
    edges: sparse.csr_matrix | None
    rows: Mapping[str, int]
    times: tuple[float, float] | None

    @classmethod
    def of(cls, splits: list[Any]) -> Arrays:
        """Take the arrays of a built :class:`~recbole_missing.data.dataset.MultimodalDataset`.

        The test split gives the number of its interactions and nothing else.

        Args:
            splits: training, validation and test split.
        """
        train, valid, test = splits
        users = _order(train.field2id_token[train.uid_field])
        items = _order(train.field2id_token[train.iid_field])
        matrices = [
            _ones(split.interaction_matrix()[1:, 1:][users][:, items]) for split in splits[:2]
        ]
        again = matrices[1].multiply(matrices[0])
        collection = Collection.of(train).in_order() if train.known is not None else None
        masked = train.config["missing_protocol"] != "none"
        truth = train.true_features() if masked and train.known is not None else train.known
        return cls(
            train.dataset_name,
            {} if collection is None else collection.tables,
            {name: one.observed[1:][items] for name, one in (truth or {}).items()},
            matrices[0],
            _ones(matrices[1] - again),
            train.new_items[1:].numpy()[items],
            None if collection is None else collection.edges,
            {
                "training": len(train.inter_feat),
                "validation": len(valid.inter_feat),
                "test": len(test.inter_feat),
            },
            _times(train),
        )

    def standardised(self, names: Sequence[str]) -> Arrays:
        """Return these arrays with the rows of some modalities scaled by ``standard``."""
        tables = dict(self.tables)
        for name in names:
            one = tables[name]
            scale = Scale.fitted(name, "standard", one.features, one.observed, self.donors)
            tables[name] = Table(name, scale.apply(one.features, one.observed), one.observed)
        return replace(self, tables=tables)

    @property
    def counts(self) -> NDArray[Any]:
        """Number of users of each item in training."""
        return np.asarray(self.train.sum(axis=0)).ravel().astype(np.int64)

    @property
    def donors(self) -> Tensor:
        """Bool ``(n_items,)``: items that may send features to others."""
        return torch.from_numpy(~self.new)


def _order(tokens: Any) -> NDArray[Any]:
    """Rows (the padding is not counted) in the order of their tokens."""
    place = {str(token): row for row, token in enumerate(tokens[1:])}
    return np.array([place[token] for token in in_order(place)], dtype=np.int64)


def _ones(matrix: sparse.spmatrix) -> sparse.csr_matrix:
    """A copy with each pair once."""
    pairs = sparse.csr_matrix(matrix, dtype=np.float32, copy=True)
    pairs.sum_duplicates()
    pairs.eliminate_zeros()
    pairs.data[:] = 1
    pairs.sort_indices()
    return pairs


def _times(train: Any) -> tuple[float, float] | None:
    field = train.time_field
    if field is None or field not in train.inter_feat:
        return None
    times = train.inter_feat[field].double()
    return float(times.min()), float(times.max())
