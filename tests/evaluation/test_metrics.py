"""Which way a metric is better."""

from __future__ import annotations

import pytest
from recbole.evaluator import metrics_dict, register
from recbole.evaluator.base_metric import AbstractMetric

from recbole_missing.evaluation.metrics import smaller_metrics


def test_all_of_recboles_metrics_tell_by_themselves() -> None:
    smaller = ["averagepopularity", "giniindex", "logloss", "mae", "rmse"]
    assert smaller_metrics(sorted(metrics_dict)) == smaller
    assert smaller_metrics(["Recall@20", "GiniIndex@10", "MAE", "itemcoverage@5"]) == [
        "GiniIndex@10",
        "MAE",
    ]


class Oddity(AbstractMetric):
    """A metric of a user."""

    smaller = True


def test_a_registered_metric_of_a_user_tells_by_its_attribute(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert smaller_metrics(["oddity@20"]) == []
    monkeypatch.setitem(register.metrics_dict, "oddity", Oddity)
    assert smaller_metrics(["oddity@20", "recall@20"]) == ["oddity@20"]
    monkeypatch.setattr(Oddity, "smaller", False)
    assert smaller_metrics(["oddity@20"]) == []


def test_a_metric_of_the_registers_list_counts_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(register, "smaller_metrics", [*register.smaller_metrics, "other"])
    assert smaller_metrics(["other@3"]) == ["other@3"]
