"""Retrieval in place of generation: the features of the most similar item are copied."""

from __future__ import annotations

from collections.abc import Mapping
from logging import getLogger
from typing import Any

import torch
from torch import Tensor, nn

from recbole_missing.config.constraints import Choice
from recbole_missing.graph.knn import stable_topk
from recbole_missing.imputation.base import Filled, Imputer

BLOCK_ENTRIES = 2**25
"""Similarities held at a time; how many rows make a block follows from it."""


class NearestNeighbour(Imputer):
    """A copy of the item that is nearest by the modalities that are left.

    Paper: Kim, Kang, Kim, Kim and Park, "Disentangling and Generating Modalities for Recommendation
        in Missing Modality Scenarios", SIGIR 2025, https://arxiv.org/abs/2504.16352

    There it is the baseline of injecting a neighbour. Near means the sum of the cosines over the
    modalities that both items have. Donors that have the missing modality and share another one
    with the item are compared, all of them; among equal sums (on a grid of 2^-20) the smaller item
    id wins. Cost: one product of lacking items by donors a pair of rows, in blocks.

    Args:
        fallback: what an item gets that lacks everything or shares nothing with any donor:
            ``mean`` of the observed rows, or ``zeros``.
    """

    hyperparameters = {"fallback": Choice("mean", "zeros")}

    def __init__(self, fallback: str = "mean") -> None:
        """Store the setting."""
        self.fallback = fallback

    def fill(self, table: Any, others: Mapping[str, Any]) -> Filled:
        """Copy the nearest donor's row, or give the fallback."""
        empty = torch.zeros_like(table.features[0])
        fallback = self.mean_row(table) if self.fallback == "mean" else empty
        values = fallback.repeat(len(table.features), 1)
        reached = table.observed.clone()
        donors = (table.observed & self.donors_).nonzero()[:, 0]
        lacking = _lacking_but_not_all(table, others)
        if len(lacking) == 0 or len(donors) == 0:
            return Filled(values, reached)
        units, seen = _unit_rows(others)
        size = max(1, BLOCK_ENTRIES // len(donors))
        blocks = [block.clone() for block in lacking.split(size)]  # a view would travel whole
        shared = (units, seen, donors)
        for items, (nearest, found) in zip(
            blocks, self.engine.map(_nearest, shared, blocks, f"nearest for {table.name}")
        ):
            values[items[found]] = table.features[nearest[found]]
            reached[items[found]] = True
        return Filled(values, reached)


def _lacking_but_not_all(table: Any, others: Mapping[str, Any]) -> Tensor:
    """Ids of items that lack the modality and have another one."""
    if not others:
        getLogger().warning(
            f"nearest neighbour: modality {table.name!r} is alone, so that nothing tells which "
            "item is near; every missing row gets the fallback."
        )
        return torch.empty(0, dtype=torch.long)
    something = torch.stack([other.observed for other in others.values()]).any(dim=0)
    return (~table.observed & something).nonzero()[:, 0]


def _unit_rows(others: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """Rows of unit length side by side, zeros where not observed, and who has what.

    The inner product of two rows is then the sum of cosines over the modalities that both have.
    """
    units = [
        nn.functional.normalize(other.features, eps=1e-12) * other.observed[:, None]
        for other in others.values()
    ]
    seen = torch.stack([other.observed for other in others.values()], dim=1)
    return torch.cat(units, dim=1), seen.float()


def _nearest(units: Tensor, seen: Tensor, donors: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
    """Nearest donor of each of ``items``, and whether there is one that shares a modality."""
    similarity = units[items] @ units[donors].T
    comparable = seen[items] @ seen[donors].T > 0
    best, position = stable_topk(similarity.masked_fill(~comparable, -torch.inf), 1)
    return donors[position[:, 0]], best[:, 0] > -torch.inf
