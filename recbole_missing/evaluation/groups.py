"""Results by group of items, with the same scores and the same metrics as RecBole's result.

Only test items of the group count as relevant. The average is taken over the users who have such a
test item. There are two results for each group, which differ in the candidates:

- *by group*: all items are candidates. It says how often the items of the group reach the lists
  that a user would get.
- *within the group*: only the items of the group are candidates. For new items this is the usual
  measure of item cold start.

In both, the items that the test hides from a user are no candidates. The expected Recall@k of a
random order is k / (items of the group that are not hidden from the user). Nothing is hidden among
new items, so it is k / (items of the group) there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from recbole.evaluator import Collector
from recbole.evaluator.collector import DataStruct
from torch import Tensor

from recbole_missing import tables
from recbole_missing.evaluation.within import Ranking

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
        self._own_items: dict[str, Tensor] = {}
        self._own_hits: dict[str, list[Tensor]] = {}

    def start(self, groups: Mapping[str, Tensor]) -> None:
        """Begin an evaluation; ``groups`` maps a name to a bool tensor ``(n_items,)``."""
        self._groups = {name: items.to(self.device) for name, items in groups.items()}
        self._hits = {name: [] for name in groups}
        own = {name: items.nonzero()[:, 0] for name, items in self._groups.items()}
        # Within a group of all items but the padding, the results are those by group.
        self._own_items = {n: ids for n, ids in own.items() if len(ids) < len(groups[n]) - 1}
        self._own_hits = {name: [] for name in self._own_items}

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
        users = interaction[self._user_field]
        ranking = Ranking(scores_tensor, users.to(self.device), ranked, pairs)
        possible = torch.bincount(pairs // n_items, minlength=n_users)
        hit = ranking.contains(ranked)
        if "rec.items" in lists:
            self.data_struct.update_tensor("rec.items", ranked)
        if "rec.topk" in lists:
            self.data_struct.update_tensor("rec.topk", torch.cat([hit, possible[:, None]], dim=1))
        if self.on_ranking is not None and len(interaction) == n_users:  # one row a user
            self.on_ranking(users, ranked, scores, hit, possible)
        self._collect_groups(ranking, hit)

    def _collect_groups(self, ranking: Ranking, hit: Tensor) -> None:
        """Keep the hits of each group, of the users who have a test item in it."""
        n_users, n_items = ranking.scores.shape
        rows_of, items_of = ranking.pairs // n_items, ranking.pairs % n_items
        for name, group in self._groups.items():
            count = torch.bincount(rows_of[group[items_of]], minlength=n_users)[:, None].int()
            if not count.any():
                continue
            found = torch.cat([(hit & group[ranking.items]).int(), count], dim=1)
            self._hits[name].append(found[count[:, 0] > 0].cpu())
            if name in self._own_items:
                rows, own_hit = ranking.hits_within(group, self._own_items[name])
                found = torch.cat([own_hit.int(), count[rows]], dim=1)
                self._own_hits[name].append(found.cpu())

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
        """Metrics of each group, with all items as candidates; ``users`` is the number of users.

        Groups without a test item are left out.
        """
        hits, self._hits = self._hits, {}
        return {
            name: {"users": sum(map(len, batches)), **_metrics(batches, evaluator)}
            for name, batches in hits.items()
            if batches
        }

    def results_within_groups(self, evaluator: Any) -> dict[str, dict[str, float]]:
        """Metrics of each group, with only its own items as candidates.

        ``users`` is the number of users and ``items`` that of the items of the group. Groups
        without a test item are left out. So are groups of all items, where the results are those of
        :meth:`results_by_group`.
        """
        hits, self._own_hits = self._own_hits, {}
        found = {}
        for name, batches in hits.items():
            if batches:
                counts = {"users": sum(map(len, batches)), "items": len(self._own_items[name])}
                found[name] = {**counts, **_metrics(batches, evaluator)}
        return found


def _metrics(batches: Sequence[Tensor], evaluator: Any) -> dict[str, float]:
    """RecBole's metrics of top-k lists ``(n_users, k + 1)``: hits, and number of test items."""
    data = DataStruct()
    data.set("rec.topk", torch.cat(list(batches)))
    metrics = [m for m in evaluator.metric_class.values() if m.metric_need == ["rec.topk"]]
    return {key: value for m in metrics for key, value in m.calculate_metric(data).items()}


class _Rest:
    """RecBole's register of what metrics need, without the top-k lists."""

    def __init__(self, everything: Any) -> None:
        self.everything = everything

    def need(self, key: str) -> bool:
        return key not in _OF_LISTS and self.everything.need(key)


def results_table(
    overall: Mapping[str, float],
    groups: Mapping[str, Mapping[str, float]],
    within: Mapping[str, Mapping[str, float]],
    title: str,
) -> str:
    """Write the tables for the terminal: results by group, and below them results within groups.

    The columns are the metrics that every group has.

    Args:
        overall: metric -> value.
        groups: what :meth:`GroupCollector.results_by_group` returned.
        within: what :meth:`GroupCollector.results_within_groups` returned. If it is empty, there is
            no second table.
        title: line above the tables, which says how the results came about.
    """
    metrics = [name for name in overall if all(name in values for values in groups.values())]
    everything = {"all": {"users": "", **overall}, **groups}
    text = f"{title}\n{_table(everything, ['users'], metrics)}"
    if not within:
        return text
    return f"{text}\n\n{_WITHIN}\n{_table(within, ['items', 'users'], metrics)}"


_WITHIN = "within the group: only its own items are candidates (`items`: how many there are)"


def _table(
    rows: Mapping[str, Mapping[str, Any]], counts: Sequence[str], metrics: Sequence[str]
) -> str:
    cells = [
        [name, *(f"{values[c]}" for c in counts), *(f"{values[m]:.4f}" for m in metrics)]
        for name, values in rows.items()
    ]
    return tables.plain(tables.Table.of_rows(["test items", *counts, *metrics], cells))
