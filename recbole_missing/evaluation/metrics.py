"""Whether larger or smaller values of a metric are better."""

from __future__ import annotations

from collections.abc import Iterable


def smaller_metrics(metrics: Iterable[str]) -> list[str]:
    """Choose the metrics for which a smaller value is better, according to RecBole's register.

    The register reads the class attribute ``smaller`` of a metric. For a metric that the register
    of this process does not know, a larger value counts as better, as in RecBole.

    Args:
        metrics: names of RecBole's metrics or of metrics that the user registered, in upper or
            lower case. They may have a cut-off (``giniindex@20``).
    """
    # Imported late: a report needs no RecBole if its lines have recorded ``smaller``.
    from recbole.evaluator import register

    def is_smaller(metric: str) -> bool:
        name = metric.partition("@")[0].lower()
        known = getattr(register.metrics_dict.get(name), "smaller", False) is True
        return known or name in register.smaller_metrics

    return [metric for metric in metrics if is_smaller(metric)]
