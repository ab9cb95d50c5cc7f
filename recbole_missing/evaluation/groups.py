"""Results by group of items, from the same ranking and with the same metrics as RecBole's result.

All items are ranked. Only test items of the group count as relevant. The average is taken over the
users who have such a test item.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from recbole.evaluator import Collector
from recbole.evaluator.collector import DataStruct
from torch import Tensor

from recbole_missing import tables

_OF_LISTS = ("rec.items", "rec.topk")
"""What RecBole's metrics need of the top-k lists, made here from one ranking."""


class GroupCollector(Collector):
    """RecBole's collector that also keeps the hits of each group of items.

    Only metrics that RecBole computes from the top-k list are reported by group.

    Attributes:
        on_ranking: called with every batch of a full ranking, unless it is None. Its arguments are
            user ids ``(users,)``, their top items ``(users, k)``, the scores of these items
            ``(users, k)``, whether each is a hit ``(users, k)``, and the number of test items of
            each user ``(users,)``.
    """

    def __init__(self, config: Any) -> None:
        """Start without groups."""
        super().__init__(config)
        self.register = _Rest(self.register)  # RecBole would rank the items for each of the needs
        self.on_ranking: Callable[..., None] | None = None
        self._user_field = config["USER_ID_FIELD"]
        self._groups: dict[str, Tensor] = {}
        self._hits: dict[str, list[Tensor]] = {}

    def start(self, groups: Mapping[str, Tensor]) -> None:
        """Begin an evaluation; ``groups`` maps a name to a bool tensor ``(n_items,)``."""
        self._groups = {name: items.to(self.device) for name, items in groups.items()}
        self._hits = {name: [] for name in groups}

    def eval_batch_collect(
        self, scores_tensor: Tensor, interaction: Any, positive_u: Tensor, positive_i: Tensor
    ) -> None:
        """Collect one batch: scores ``(users, n_items)``, or ``(pairs,)``, and positive pairs."""
        super().eval_batch_collect(scores_tensor, interaction, positive_u, positive_i)
        lists = [key for key in _OF_LISTS if self.register.everything.need(key)]
        ranks = scores_tensor.dim() == 2  # metrics of pairs come with scores of pairs
        if not ranks or not (lists or self._groups or self.on_ranking):
            return
        n_users, n_items = scores_tensor.shape
        scores, ranked = scores_tensor.topk(max(self.topk), dim=1)
        pairs = (positive_u * n_items + positive_i).unique().to(self.device)
        positive_u, positive_i = pairs // n_items, pairs % n_items
        possible = torch.bincount(positive_u, minlength=n_users)
        hit = _contained(ranked, pairs, n_items)
        if "rec.items" in lists:
            self.data_struct.update_tensor("rec.items", ranked)
        if "rec.topk" in lists:
            self.data_struct.update_tensor("rec.topk", torch.cat([hit, possible[:, None]], dim=1))
        if self.on_ranking is not None and len(interaction) == n_users:  # one row a user
            self.on_ranking(interaction[self._user_field], ranked, scores, hit, possible)
        for name, items in self._groups.items():
            members = positive_u[items[positive_i]]
            count = torch.bincount(members, minlength=n_users)[:, None]
            rows = torch.cat([(hit & items[ranked]).int(), count.int()], dim=1)
            self._hits[name].append(rows[count[:, 0] > 0].cpu())

    def get_data_struct(self) -> DataStruct:
        """Hand over what was collected, and forget what belongs to one evaluation.

        RecBole moves everything to the CPU as if it were a tensor. The number of items and the
        counts of interactions are none, so its GiniIndex, ItemCoverage, AveragePopularity and
        TailPercentage would fail.
        """
        collected = self.data_struct._data_dict
        constant = {key: value for key, value in collected.items() if not torch.is_tensor(value)}
        for key in constant:
            del collected[key]
        struct = super().get_data_struct()
        for key, value in constant.items():
            struct.set(key, value)
        collected.update(constant)
        return struct

    def results_by_group(self, evaluator: Any) -> dict[str, dict[str, float]]:
        """Metrics of each group. Groups without a test item are left out."""
        metrics = [m for m in evaluator.metric_class.values() if m.metric_need == ["rec.topk"]]
        results = {}
        for name, batches in self._hits.items():
            rows = torch.cat(batches) if batches else torch.empty(0)
            if len(rows):
                data = DataStruct()
                data.set("rec.topk", rows)
                values = {k: v for m in metrics for k, v in m.calculate_metric(data).items()}
                results[name] = {"users": len(rows), **values}
        self._hits = {}
        return results


def _contained(ranked: Tensor, pairs: Tensor, n_items: int) -> Tensor:
    """Bool of the shape of ``ranked``: whether ``row * n_items + item`` is in ``pairs``.

    Args:
        ranked: items ``(rows, k)``.
        pairs: ``(n_pairs,)`` in ascending order, at least one.
    """
    rows = torch.arange(len(ranked), device=ranked.device)[:, None]
    wanted = rows * n_items + ranked
    places = torch.searchsorted(pairs, wanted).clamp(max=len(pairs) - 1)
    return pairs[places] == wanted


class _Rest:
    """RecBole's register of what metrics need, without the top-k lists."""

    def __init__(self, everything: Any) -> None:
        self.everything = everything

    def need(self, key: str) -> bool:
        return key not in _OF_LISTS and self.everything.need(key)


def results_table(
    overall: Mapping[str, float], groups: Mapping[str, Mapping[str, float]], title: str
) -> str:
    """Write a table for the terminal: a row for all items and one for each group.

    Its columns are the metrics that every group has.

    Args:
        overall: metric -> value.
        groups: what :meth:`GroupCollector.results_by_group` returned.
        title: line above the table, which says how the results came about.
    """
    metrics = [name for name in overall if all(name in values for values in groups.values())]
    rows = [["all", "", *(f"{overall[name]:.4f}" for name in metrics)]]
    for group, values in groups.items():
        scores = [f"{values[name]:.4f}" for name in metrics]
        rows.append([group, f"{values['users']}", *scores])
    table = tables.Table.of_rows(["test items", "users", *metrics], rows)
    return f"{title}\n{tables.plain(table)}"
