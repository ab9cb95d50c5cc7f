"""Metrics from outside RecBole, and whether larger or smaller values of a metric are better."""

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


def register_metric(metric: type) -> type:
    """Register a metric from outside RecBole by its class name. It can be used as a decorator.

    RecBole finds metrics only in its own module. After this call, ``metrics`` and ``valid_metric``
    may contain the name, in upper or lower case. Every other process must register the metric too,
    for example in the module of a model that it imports.

    Args:
        metric: a class with the interface of ``recbole.evaluator.base_metric.AbstractMetric``:
            ``metric_need``, ``metric_type``, ``calculate_metric``, and ``smaller = True`` if a
            smaller value is better.

    Raises:
        ValueError: if the class lacks one of these, or another metric has the name.
    """
    from recbole.evaluator import register

    name = metric.__name__.lower()
    absent = [
        word for word in ("metric_need", "metric_type", "calculate_metric", "smaller")
        if not hasattr(metric, word)
    ]  # fmt: skip
    if absent:
        raise ValueError(
            f"register_metric: {metric.__name__} must have {', '.join(absent)}, got none; derive "
            "it from a class of recbole.evaluator.base_metric."
        )
    holder = register.metrics_dict.get(name, metric)
    if (holder.__module__, holder.__qualname__) != (metric.__module__, metric.__qualname__):
        raise ValueError(
            f"register_metric: {metric.__name__!r} must be a name that is not taken, got a second "
            f"class ({metric.__module__} beside {holder.__module__}); rename yours."
        )
    register.metrics_dict[name] = metric
    register.metric_information[name] = metric.metric_need
    register.metric_types[name] = metric.metric_type
    if metric.smaller and name not in register.smaller_metrics:
        register.smaller_metrics.append(name)
    return metric
