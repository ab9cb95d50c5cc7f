"""Distinct ids of a batch. Work on a repeated id is done once and counted as often as it occurs."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from recbole_missing.nn.layers import rows


@dataclass(frozen=True)
class Distinct:
    """Distinct ids, and how often each of them counts.

    On a GPU their number stays there, because reading it would make the CPU wait. So the tensors
    keep the length of the batch, and ids that do not count have the count 0.

    Attributes:
        ids: int ``(n,)``.
        counts: float ``(n,)``.
        numbers: int ``(batch,)``, the place in ``ids`` of the id of every row of the batch. None
            for a set, which has no rows.
    """

    ids: Tensor
    counts: Tensor
    numbers: Tensor | None

    def spread(self, vectors: Tensor) -> Tensor:
        """Vectors of every row of the batch ``(batch, d)``, from those of ``ids``, ``(n, d)``."""
        assert self.numbers is not None, "a set has no rows"
        return rows(vectors, self.numbers)

    def once(self) -> Distinct:
        """Return the same ids as a set: each of them counts once."""
        return replace(self, counts=(self.counts > 0).to(self.counts), numbers=None)

    def like(self, x: Tensor) -> Distinct:
        """Return the same ids with counts in the number type of ``x``."""
        return replace(self, counts=self.counts.to(x.dtype))

    def equal_shares(self) -> Tensor:
        """Shares of the ids as a set: equal ones for those that count; float ``(n,)``."""
        return shares(self.once().counts)

    def where(self, kept: Tensor) -> Distinct:
        """Return the set of the ids where ``kept (n,)`` is True, with their counts."""
        if self.ids.is_cuda:
            return replace(self, counts=self.counts * kept, numbers=None)
        return Distinct(self.ids[kept], self.counts[kept], None)


def shares(counts: Tensor) -> Tensor:
    """Counts divided by their sum; zeros stay zeros, also where all of them are."""
    return counts / counts.sum().clamp(min=1)


def distinct(ids: Tensor) -> Distinct:
    """Distinct ids of ``ids (batch,)``, in ascending order.

    On a GPU they are followed by the padding id 0 with the count 0, up to the length of the batch.
    """
    ordered, order = ids.sort()
    first = torch.ones_like(ordered, dtype=torch.bool)
    first[1:] = ordered[1:] != ordered[:-1]
    group = first.cumsum(0) - 1
    numbers = torch.empty_like(group).scatter_(0, order, group)
    found = torch.zeros_like(ids).scatter_(0, group, ordered)
    counts = torch.zeros_like(ids, dtype=torch.float32).index_add_(
        0, group, torch.ones_like(ids, dtype=torch.float32)
    )
    if not ids.is_cuda:
        n = int(first.sum())
        found, counts = found[:n], counts[:n]
    return Distinct(found, counts, numbers)
