"""The input of an imputer as arrays without padding: items, features, training interactions.

A :class:`Collection` comes from the training split of a data set (:meth:`Collection.of`), or from
single files where RecBole is not installed (:mod:`recbole_missing.data.single_files`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from scipy import sparse
from torch import Tensor

from recbole_missing.data.missing import write_token_file
from recbole_missing.data.scale import Scale
from recbole_missing.imputation.base import Imputer, Table, imputing

_WRITTEN = {
    "standard": "imputed as {0}_scale standard makes it, written in the space of its source",
    "unit": "imputed and written in rows of length 1 ({0}_scale unit); the lengths in its source "
    "cannot be given back",
}
"""What a user must know of files of a modality that is scaled."""


@dataclass(frozen=True)
class Collection:
    """Feature tables of some items and the training interactions with them.

    Args:
        name: name of the data, for titles and folders.
        items: item tokens; item i is row i of every table.
        tables: modality -> :class:`Table`, scaled as a run sees it; rows that are not observed
            hold zeros.
        interactions: training interactions, shape ``(n_users, n_items)``.
        donors: bool ``(n_items,)``, see :meth:`Imputer.fit`; None: every item is a donor.
        edges: the user's own item graph, shape ``(n_items, n_items)``, or None.
        notes: lines for people on how the files were read and scaled.
        undo: modality -> its scale, and its observed rows before the scale, for the modalities
            that :meth:`in_source_space` brings back.
    """

    name: str
    items: list[str]
    tables: dict[str, Table]
    interactions: sparse.csr_matrix
    donors: Tensor | None = None
    edges: sparse.csr_matrix | None = None
    notes: Sequence[str] = ()
    undo: Mapping[str, tuple[Scale, Tensor]] = field(default_factory=dict)

    @classmethod
    def of(cls, train: Any) -> Collection:
        """Take the arrays of a training split; the padding item and the padding user are dropped.

        Items keep the order of RecBole's ids. A tie in an item graph goes to the smaller id, so
        an imputer gives the same values here as in a run.

        Args:
            train: training split of a built
                :class:`~recbole_missing.data.dataset.MultimodalDataset`.

        Raises:
            ValueError: if the data set has no modalities.
        """
        if train.known is None:
            raise ValueError(
                f"data set {train.dataset_name!r}: must have modalities, got none; name them in "
                "`modalities`, in a YAML file of its folder or in --config_files."
            )
        tables = {
            name: Table(name, modality.features[1:], modality.observed[1:])
            for name, modality in train.known.items()
        }
        edges = train._edges()
        undo = {
            name: (scale, train.unscaled(name)[1:])
            for name, scale in train.scales.items()
            if scale.word == "standard"
        }
        return cls(
            train.dataset_name,
            [str(token) for token in train.field2id_token[train.iid_field][1:]],
            tables,
            train.interaction_matrix()[1:, 1:],
            ~train.new_items[1:],
            None if edges is None else edges[1:, 1:],
            [
                f"{name}: {_WRITTEN[scale.word].format(name)}"
                for name, scale in train.scales.items()
                if scale.word in _WRITTEN
            ],
            undo,
        )

    def in_order(self) -> Collection:
        """Return this collection with items in the order of their tokens (:func:`in_order`)."""
        rows = self._rows()
        tables = {
            name: Table(name, table.features[rows], table.observed[rows])
            for name, table in self.tables.items()
        }
        return replace(
            self,
            items=[self.items[row] for row in rows],
            tables=tables,
            interactions=self.interactions[:, rows.numpy()],
            donors=None if self.donors is None else self.donors[rows],
            edges=None if self.edges is None else self.edges[rows.numpy()][:, rows.numpy()],
            undo={name: (scale, table[rows]) for name, (scale, table) in self.undo.items()},
        )

    def completed(self, imputer: Imputer) -> dict[str, Tensor]:
        """Fit the imputer and complete every table.

        Returns:
            Modality -> features without missing rows, float32 ``(n_items, dim)``, scaled as the
            tables are.
        """
        features = {name: table.features for name, table in self.tables.items()}
        observed = {name: table.observed for name, table in self.tables.items()}
        with imputing(imputer):
            imputer.fit(self.interactions, self.donors, self.edges)
            completed: dict[str, Tensor] = imputer.transform(features, observed)
        return completed

    def in_source_space(
        self, features: Mapping[str, Tensor], completed: bool = True
    ) -> dict[str, Tensor]:
        """Undo the scales of features ``(n_items, dim)``, so that they fit the user's own files.

        Observed rows are those of the source, bit for bit. Rows of the scale ``unit`` stay as they
        are, observed ones too: nobody knows how long an imputed row would be.

        Args:
            features: modality -> features, for example of :meth:`completed`.
            completed: whether an imputer filled the missing rows; if not, they stay zero.
        """
        found = dict(features)
        for name, (scale, source) in self.undo.items():
            missing = ~self.tables[name].observed[:, None]
            rows = scale.undone(features[name]) if completed else torch.zeros_like(source)
            found[name] = torch.where(missing, rows, source)
        return found

    def write(self, folder: Path, features: Mapping[str, Tensor], kind: str) -> None:
        """Write the files ``<modality>``, ``<modality>_observed`` and ``items.ids``.

        In all files, rows are in the order of the item tokens (:func:`in_order`).

        Args:
            folder: an existing folder.
            features: modality -> ``(n_items, dim)``, for example of :meth:`in_source_space`.
            kind: ``npy`` or ``safetensors`` (one tensor in each file).
        """
        rows = self._rows()
        for name, table in self.tables.items():
            for stem, key, tensor in (
                (name, "features", features[name][rows]),
                (f"{name}_observed", "observed", table.observed[rows]),
            ):
                if kind == "npy":
                    np.save(folder / f"{stem}.npy", tensor.numpy())
                else:
                    save_file({key: tensor.contiguous()}, folder / f"{stem}.safetensors")
        write_token_file(folder / "items.ids", [self.items[row] for row in rows])

    def _rows(self) -> Tensor:
        place = {item: row for row, item in enumerate(self.items)}
        return torch.tensor([place[item] for item in in_order(self.items)])


def in_order(tokens: Iterable[str]) -> list[str]:
    """Distinct tokens, sorted as numbers if all of them are numbers, and as text otherwise."""
    distinct = sorted(set(tokens))
    if all(re.fullmatch("0|[1-9][0-9]*", token) for token in distinct):
        distinct.sort(key=int)
    return distinct
