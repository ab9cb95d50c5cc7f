"""The content of a data set as an exporter writes it: split interactions, items and features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recbole_missing.convert.folder import SPLITS
from recbole_missing.data.collection import Collection, in_order
from recbole_missing.data.files import write_rows
from recbole_missing.imputation import make_imputer


@dataclass(frozen=True)
class Content:
    """What a run has of a data set. Nothing is written yet.

    Args:
        name: name of the data set.
        users: tokens of the users with an interaction, in order.
        items: tokens of the items with an interaction, in order.
        pairs: split -> user and item token of every interaction.
        ratings: split -> rating of every interaction; empty if the run loads none.
        features: modality -> float32 ``(len(items), dim)``, not scaled; rows that are not observed
            hold zeros, or imputed numbers if ``completed``.
        observed: modality -> bool ``(len(items),)``.
        completed: whether an imputer filled the rows that are not observed.
        notes: sentences for the report.
    """

    name: str
    users: list[str]
    items: list[str]
    pairs: dict[str, list[tuple[str, str]]]
    ratings: dict[str, list[float]]
    features: dict[str, NDArray[np.float32]]
    observed: dict[str, NDArray[np.bool_]]
    completed: bool
    notes: list[str] = field(default_factory=list)

    @classmethod
    def of(
        cls, splits: Sequence[Any], settings: Mapping[str, Any] | None, notes: Sequence[str]
    ) -> Content:
        """Take the content of built splits.

        Args:
            splits: training, validation and test split of a built
                :class:`~recbole_missing.data.dataset.MultimodalDataset`.
            settings: ``imputation`` and all ``imputation_*`` keys of the imputer that completes the
                features, or None.
            notes: first sentences for the report.
        """
        collection = Collection.of(splits[0])
        pairs = {name: _pairs(split) for name, split in zip(SPLITS, splits)}
        users, items = (
            in_order(pair[side] for part in pairs.values() for pair in part) for side in (0, 1)
        )
        place = {item: row for row, item in enumerate(collection.items)}
        rows = [place[item] for item in items]
        tensors = {name: table.features for name, table in collection.tables.items()}
        if settings is not None:
            tensors = collection.completed(make_imputer(settings))
        tensors = collection.in_source_space(tensors, settings is not None)
        return cls(
            splits[0].dataset_name,
            users,
            items,
            pairs,
            _ratings(splits),
            {name: tensor.numpy()[rows] for name, tensor in tensors.items()},
            {name: table.observed.numpy()[rows] for name, table in collection.tables.items()},
            settings is not None,
            [*notes, *collection.notes],
        )

    def has(self, modality: str) -> NDArray[np.bool_]:
        """Bool ``(len(items),)``: the items with a row of numbers, observed or imputed."""
        return self.observed[modality] | self.completed


def _pairs(split: Any) -> list[tuple[str, str]]:
    """User and item token of every interaction of a split, in the split's order."""
    users, items = (
        split.id2token(field, split.inter_feat[field].numpy()).tolist()
        for field in (split.uid_field, split.iid_field)
    )
    return list(zip(users, items))


def _ratings(splits: Sequence[Any]) -> dict[str, list[float]]:
    name = splits[0].config["RATING_FIELD"]
    if name is None or any(name not in split.inter_feat for split in splits):
        return {}
    return {part: split.inter_feat[name].tolist() for part, split in zip(SPLITS, splits)}


def numbered(path: Path, columns: tuple[str, str], tokens: Sequence[str]) -> dict[str, str]:
    """Number tokens from 0 and write both, tab separated, as MMRec's ``i_id_mapping.csv`` has them.

    Args:
        path: file to write.
        columns: its header: names of the token and of the number.
        tokens: the tokens.

    Returns:
        Token -> number, as text.
    """
    numbers = {name: str(place) for place, name in enumerate(tokens)}
    write_rows(path, [columns, *numbers.items()])
    return numbers
