"""Which way a metric is better."""

from __future__ import annotations

from collections.abc import Iterable


def smaller_metrics(metrics: Iterable[str]) -> list[str]:
    """Choose the metrics of which a smaller value is better, as RecBole's register tells.

    A metric says so by its class attribute ``smaller``. A metric that the register does not know
    in this process counts as one of which a larger value is better, as in RecBole.

    Args:
        metrics: names of RecBole's metrics, or of a user's registered ones, in any case; a cut-off
            (``giniindex@20``) does not matter.
    """
    # Imported late: a report of lines that tell by themselves works without loading RecBole.
    from recbole.evaluator import register

    def is_smaller(metric: str) -> bool:
        name = metric.partition("@")[0].lower()
        known = getattr(register.metrics_dict.get(name), "smaller", False) is True
        return known or name in register.smaller_metrics

    return [metric for metric in metrics if is_smaller(metric)]
