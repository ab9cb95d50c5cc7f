"""Metrics and recommendation lists of single users, by token."""

from __future__ import annotations

import gzip
import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from recbole.evaluator import register
from recbole.evaluator.base_metric import TopkMetric
from torch import Tensor

from recbole_missing.atomic import whole_file

Rows = Iterator[Sequence[str]]


class UserResults:
    """Collects the rankings of a test, as ``on_ranking`` of a :class:`.groups.GroupCollector`.

    Attributes, with one row for each tested user; they are empty before :meth:`gather`:
        users: user ids, ``(n_users,)``.
        items, scores: the top-k list, ``(n_users, k)``; the score is -inf if no candidate is left.
        hits: bool ``(n_users, k)``, whether an item of the list is a test item.
        possible: number of test items, ``(n_users,)``.
    """

    def __init__(self) -> None:
        """Start empty."""
        self._batches: list[tuple[Tensor, ...]] = []
        self.users, self.items, self.scores, self.hits, self.possible = (torch.empty(0),) * 5

    def __call__(self, *batch: Tensor) -> None:
        """Take one batch."""
        self._batches.append(tuple(part.cpu() for part in batch))

    def gather(self) -> UserResults:
        """Put the batches together.

        Raises:
            ValueError: if there is no batch, which happens if candidates are sampled.
        """
        if not self._batches:
            raise ValueError(
                "keep: users and lists need a ranking of all items, got sampled candidates; set "
                "the mode of eval_args to full."
            )
        columns = [torch.cat(parts) for parts in zip(*self._batches)]
        self.users, self.items, self.scores, self.hits, self.possible = columns
        self._batches = []
        return self

    def metrics(self, evaluator: Any) -> dict[str, NDArray[np.float64]]:
        """Metric -> value of every user, ``(n_users,)``; RecBole's metric is their mean.

        Args:
            evaluator: RecBole's evaluator. Metrics that need more than the top-k list are left out.
        """
        given = dict(zip(_GIVEN, (self.hits.numpy(), self.possible.numpy())))
        values = {}
        for name, metric in evaluator.metric_class.items():
            if metric.metric_need == ["rec.topk"]:
                wanted = inspect.signature(metric.metric_info).parameters
                by_cut = metric.metric_info(**{key: given[key] for key in wanted})
                values.update({f"{name}@{k}": by_cut[:, k - 1] for k in metric.topk})
        return values

    def metric_rows(self, evaluator: Any, user_tokens: Sequence[str]) -> Rows:
        """Rows of text: a header, then one row for each user."""
        values = self.metrics(evaluator)
        yield ["user_id", *values]
        columns = np.stack(list(values.values()), axis=1)
        for user, row in zip(self.users.tolist(), columns):
            yield [str(user_tokens[user]), *(f"{value:.6g}" for value in row)]

    def list_rows(self, user_tokens: Sequence[str], item_tokens: Sequence[str]) -> Rows:
        """Rows of text: a header, then user, item, rank from 1 and score of each recommendation."""
        yield ["user_id", "item_id", "rank", "score"]
        scored = zip(self.users.tolist(), self.items.tolist(), self.scores.tolist())
        for user, items, scores in scored:
            for rank, (item, score) in enumerate(zip(items, scores), 1):
                if score > -np.inf:
                    yield [user_tokens[user], item_tokens[item], str(rank), f"{score:.6g}"]


_GIVEN = ("pos_index", "pos_len")  # what RecBole's metrics of a top-k list are computed from


def check_metrics(names: Iterable[str]) -> None:
    """Refuse metrics that would fail in :meth:`UserResults.metrics`.

    Args:
        names: the setting ``metrics``.

    Raises:
        ValueError: if a metric of the top-k list gives no values of single users, or no metric
            does.
    """
    found = {name: register.metrics_dict.get(name.lower()) for name in names}
    known = {name: metric for name, metric in found.items() if metric is not None}
    of_lists = {name: cls for name, cls in known.items() if cls.metric_need == ["rec.topk"]}
    without = [name for name, cls in of_lists.items() if not _has_values_of_users(cls)]
    if without or not of_lists:
        raise ValueError(
            f"--keep: users needs metrics with a method metric_info({', '.join(_GIVEN)}) that "
            f"returns a value for each user and cut-off, got {', '.join(without or known)} without "
            "it; add the method, or leave users out of --keep."
        )


def _has_values_of_users(metric: type) -> bool:
    method = getattr(metric, "metric_info", TopkMetric.metric_info)
    if method is TopkMetric.metric_info:  # it only raises NotImplementedError
        return False
    return {*inspect.signature(method).parameters} <= {"self", *_GIVEN}


def write_rows(path: Path, rows: Rows) -> None:
    """Write tab-separated text, compressed by gzip. Equal rows give equal files."""
    text = "".join("\t".join(row) + "\n" for row in rows)
    with whole_file(path) as temporary:
        temporary.write_bytes(gzip.compress(text.encode(), mtime=0))


def read_metrics(path: Path) -> Mapping[str, Mapping[str, float]]:
    """Read what :meth:`UserResults.metric_rows` wrote: metric -> user token -> value."""
    header, *lines = gzip.decompress(path.read_bytes()).decode().splitlines()
    cells = [line.split("\t") for line in lines]
    names = header.split("\t")[1:]
    return {
        name: {row[0]: float(row[column]) for row in cells} for column, name in enumerate(names, 1)
    }
