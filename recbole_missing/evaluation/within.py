"""Hits of a ranking in which only the items of one group are candidates."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from recbole_missing.graph.knn import top_columns

_BLOCK = 2**22  # scores that are copied at a time
_KNUTH = 2654435761  # its multiples are spread evenly over [0, 2**32)


class Ranking(NamedTuple):
    """Scores of all items for a batch of users, and their top-k lists.

    Args:
        scores: ``(n_users, n_items)``; an item that is hidden from a user has -inf.
        users: ids of the users, ``(n_users,)``.
        items: top-k lists, ``(n_users, k)``.
        pairs: ``row * n_items + item`` of all test items, in ascending order, at least one.
    """

    scores: Tensor
    users: Tensor
    items: Tensor
    pairs: Tensor

    def contains(self, ranked: Tensor, rows: Tensor | None = None) -> Tensor:
        """Tell which items are test items, bool of the shape of ``ranked``.

        Args:
            ranked: items, ``(n_rows, any)``.
            rows: row of each list, ``(n_rows,)``; None means all rows.
        """
        if rows is None:
            rows = torch.arange(len(ranked), device=ranked.device)
        wanted = rows[:, None] * self.scores.shape[1] + ranked
        places = torch.searchsorted(self.pairs, wanted).clamp(max=len(self.pairs) - 1)
        return self.pairs[places] == wanted

    def hits_within(self, group: Tensor, candidates: Tensor) -> tuple[Tensor, Tensor]:
        """Rank the items of a group for the users who have a test item in it.

        Candidates of equal score stand in a random order. A model that learns nothing about a
        group, such as Pop about new items, gives all of them one score. Their ids follow the file
        of the interactions, where popular items often come first. So any order by id would say
        something that the model does not know. The random order of a user depends on his id and on
        the number of candidates alone. So it is the same for every model and every size of batches.

        Args:
            group: bool ``(n_items,)``.
            candidates: ids of the items of the group, ascending.

        Returns:
            Rows of these users, ascending, and bool ``(n_rows, k)``: whether the candidate at each
            place is a test item. Places after the last candidate are False.
        """
        n_items, k = self.scores.shape[1], self.items.shape[1]
        rows = (self.pairs // n_items)[group[self.pairs % n_items]].unique()
        hits = torch.zeros(len(rows), k, dtype=torch.bool, device=rows.device)
        size = max(1, _BLOCK // n_items)
        for part, found in zip(rows.split(size), hits.split(size)):
            own = self.scores.index_select(0, part).index_select(1, candidates)
            columns = _best_columns(own, self.users[part], k)
            found[:, : columns.shape[1]] = self.contains(candidates[columns], part)
        return rows, hits


def _best_columns(scores: Tensor, users: Tensor, k: int) -> Tensor:
    """Columns of the k largest scores, or of all; columns of equal scores in a random order.

    Args:
        scores: ``(n_rows, n_columns)``.
        users: id of the user of each row.
        k: number of columns.
    """
    n_columns = scores.shape[1]
    k = min(k, n_columns)
    values, best = scores.topk(min(k + 1, n_columns), dim=1)
    best = best[:, :k]
    tied = ((values[:, 1:] == values[:, :-1]) & (values[:, 1:] > -torch.inf)).any(dim=1)
    if tied.any():
        order = _random_order(users[tied], n_columns)
        best[tied] = order.gather(1, top_columns(scores[tied].gather(1, order), k))
    return best


def _random_order(users: Tensor, n: int) -> Tensor:
    """Numbers below n, ``(n_users, n)``, in a random order that is drawn for each user's id.

    All users have the same cycle. Each one starts at a place of his own.
    """
    cycle = torch.randperm(n, generator=torch.Generator().manual_seed(0)).to(users.device)
    starts = (users * _KNUTH % 2**32) * n // 2**32
    return cycle[(torch.arange(n, device=users.device) + starts[:, None]) % n]
