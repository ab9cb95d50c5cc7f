"""Retrieval in place of generation: the features of the most similar item are copied."""

from __future__ import annotations

from collections.abc import Mapping
from logging import getLogger
from typing import Any

import torch
from torch import Tensor

from recbole_missing.config.constraints import Choice
from recbole_missing.graph.knn import SharedCosines, block_rows, nearest
from recbole_missing.imputation.base import Filled, Imputer

# The formula, in the order of the computation, for an item i that lacks modality m:
#
#   s_ij = sum of cos(x_i^n, x_j^n) over the modalities n != m that i and j both have
#                                                                  -> graph.knn.SharedCosines
#   j*   = the donor j that has m and the largest s_ij             -> graph.knn.nearest
#   x_i^m = x_j*^m                                                 -> NearestNeighbour.fill


class NearestNeighbour(Imputer):
    """A copy of the item that is nearest by the other modalities.

    Paper: Kim, Kang, Kim, Kim and Park, "Disentangling and Generating Modalities for Recommendation
        in Missing Modality Scenarios", SIGIR 2025, https://arxiv.org/abs/2504.16352

    The paper uses it as a baseline. The search is exact: the item is compared with every donor that
    has the missing modality and shares another one with it. Among equal sums of cosines (on a grid
    of 2^-20) the smaller item id wins. The cost is the number of lacking items times the number of
    donors.

    Args:
        fallback: what an item gets that lacks every modality or shares none with any donor:
            ``mean`` of the observed rows, or ``zeros``.
    """

    hyperparameters = {"fallback": Choice("mean", "zeros")}
    fallback: str

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
        similarity = SharedCosines(list(others.values()), lacking, donors)
        positions, size = torch.arange(len(lacking)), block_rows(len(donors))
        label = f"nearest for {table.name}"
        best, found = nearest(similarity, positions, 1, size, self.engine, label)
        comparable = best[:, 0] > -torch.inf  # some donor shares a modality
        items = lacking[comparable]
        values[items] = table.features[donors[found[comparable, 0]]]
        reached[items] = True
        return Filled(values, reached)


def _lacking_but_not_all(table: Any, others: Mapping[str, Any]) -> Tensor:
    """Ids of items that lack the modality and have another one."""
    if not others:
        getLogger().warning(
            f"nearest neighbour: modality {table.name!r} is alone, so no other one tells which "
            "item is near; every missing row gets the fallback."
        )
        return torch.empty(0, dtype=torch.long)
    something = torch.stack([other.observed for other in others.values()]).any(dim=0)
    return (~table.observed & something).nonzero()[:, 0]
