"""Which way a metric is better."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from folders import AT_WORK, prepare, tiny_content
from folders import workplace as workplace
from recbole.evaluator import metrics_dict, register
from recbole.evaluator.base_metric import AbstractMetric, TopkMetric

from recbole_missing.evaluation.metrics import register_metric, smaller_metrics

pytestmark = AT_WORK


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


class Misses(TopkMetric):
    """Share of users without a hit among the first k: a smaller value is better."""

    smaller = True

    def calculate_metric(self, dataobject: Any) -> dict[str, float]:
        """Value at every cut-off."""
        hits, _ = self.used_info(dataobject)
        return self.topk_result("misses", (np.cumsum(hits, axis=1) == 0).astype(float))


@pytest.fixture
def register_alone() -> Iterator[None]:
    yield
    for known in (register.metrics_dict, register.metric_information, register.metric_types):
        known.pop("misses", None)
    if "misses" in register.smaller_metrics:
        register.smaller_metrics.remove("misses")


@pytest.mark.usefixtures("register_alone")
def test_a_users_metric_chooses_the_epoch_and_is_reported(tmp_path: Path) -> None:
    settings = tiny_content().write(tmp_path)
    words = {"metrics": ["Recall", "Misses", "Hit"], "valid_metric": "Misses@5"}
    with pytest.raises(ValueError, match="metrics: Unknown metric 'Misses'"):
        prepare("VBPR", settings, **words)
    assert register_metric(Misses) is Misses and register_metric(Misses) is Misses
    run = prepare("VBPR", settings, **words)
    assert run.config["valid_metric_bigger"] is False
    trainer = run.trainer()
    trainer.fit(run.train, run.valid, saved=False)
    result = trainer.evaluate(run.test, load_best_model=False)
    for k in (5, 10):
        assert result[f"misses@{k}"] == pytest.approx(1 - result[f"hit@{k}"], abs=2e-4)
        assert smaller_metrics([f"misses@{k}"])


def test_what_is_no_metric_is_refused() -> None:
    class Recall(TopkMetric):
        """Of the name of one of RecBole's."""

    with pytest.raises(ValueError, match="'Recall' must be a name that is not taken"):
        register_metric(Recall)
    with pytest.raises(ValueError, match="must have metric_need, metric_type, got none"):
        register_metric(Oddity)
