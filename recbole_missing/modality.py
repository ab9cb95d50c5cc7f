"""A modality: a named feature matrix, and the items that truly have it.

This module reads no files and imputes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

_OF_TORCH = {*dir(nn.ModuleDict()), *dir(nn.ParameterDict())}


def check_name(name: str) -> None:
    """Refuse a name that no modality can have.

    Raises:
        ValueError: if it is no identifier, or torch's containers have an attribute of that name.
    """
    if not name.isidentifier() or name in _OF_TORCH:
        raise ValueError(
            f"modality {name!r}: the name must be an identifier such as 'image', and none that "
            "torch's ModuleDict and ParameterDict use themselves; rename it."
        )


@dataclass(frozen=True)
class Modality:
    """One modality of all items, RecBole's padding item included.

    Args:
        name: any identifier, for example ``"image"``.
        features: float32, shape ``(n_items, dim)``. Rows that are not observed hold zeros or
            imputed values. Row 0 is padding and always zero.
        observed: bool, shape ``(n_items,)``. True where the item truly has the modality and an
            experiment has not hidden it. Imputation never changes it. Row 0 is never observed.

    Raises:
        ValueError: if a shape, a dtype or the padding row is not as described.
    """

    name: str
    features: Tensor
    observed: Tensor

    def __post_init__(self) -> None:
        """Check shapes, dtypes and the padding row."""
        check_name(self.name)
        who = f"modality {self.name!r}"
        if self.features.dim() != 2 or self.features.dtype != torch.float32:
            raise ValueError(
                f"{who}: features must be a float32 matrix (n_items, dim), "
                f"got {self.features.dtype} {tuple(self.features.shape)}."
            )
        if self.observed.dtype != torch.bool or self.observed.shape != self.features.shape[:1]:
            raise ValueError(
                f"{who}: observed must be bool of shape ({self.features.shape[0]},), "
                f"got {self.observed.dtype} {tuple(self.observed.shape)}."
            )
        if self.observed[0] or self.features[0].any():
            raise ValueError(
                f"{who}: row 0 is RecBole's padding item and must be unobserved zeros."
            )

    @property
    def n_items(self) -> int:
        """Number of rows, the padding item included."""
        return self.features.shape[0]

    @property
    def dim(self) -> int:
        """Number of features of one item."""
        return self.features.shape[1]

    @property
    def missing(self) -> Tensor:
        """Bool ``(n_items,)``: real items (not the padding) that lack this modality."""
        missing = ~self.observed
        missing[0] = False
        return missing

    def filled(self, features: Tensor) -> Modality:
        """Return this modality with missing rows from ``features``. Observed rows do not change."""
        rows = torch.where(self.missing[:, None], features.to(torch.float32), self.features)
        return Modality(self.name, rows, self.observed)


class Modalities(Mapping[str, Modality]):
    """An ordered mapping name -> :class:`Modality`. All modalities have the same items.

    The order is that of the config.

    Raises:
        ValueError: if there is no modality, a name occurs twice, or numbers of items differ.
    """

    def __init__(self, modalities: Sequence[Modality]) -> None:
        """Check that there is at least one modality and that all describe the same items."""
        self._by_name = {modality.name: modality for modality in modalities}
        if not modalities or len(self._by_name) != len(modalities):
            names = [modality.name for modality in modalities]
            raise ValueError(f"modalities: must be one or more with distinct names, got {names}.")
        sizes = {name: modality.n_items for name, modality in self._by_name.items()}
        if len(set(sizes.values())) != 1:
            raise ValueError(f"modalities: must describe the same items, got row counts {sizes}.")

    def __getitem__(self, name: str) -> Modality:
        """Return the modality called ``name``."""
        return self._by_name[name]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names in the order of the config."""
        return iter(self._by_name)

    def __len__(self) -> int:
        """Return the number of modalities."""
        return len(self._by_name)

    @property
    def observed(self) -> Tensor:
        """Bool ``(n_items, n_modalities)``: which modalities of each item are observed."""
        return torch.stack([modality.observed for modality in self.values()], dim=1)

    @property
    def n_missing(self) -> Tensor:
        """Int64 ``(n_items,)``: how many modalities each item lacks (padding: all of them)."""
        return (~self.observed).sum(dim=1)

    @property
    def total_dim(self) -> int:
        """Sum of the feature dimensions."""
        return sum(modality.dim for modality in self.values())

    def concatenated(self) -> Tensor:
        """Features of all modalities side by side, shape ``(n_items, total_dim)``."""
        return torch.cat([modality.features for modality in self.values()], dim=1)
