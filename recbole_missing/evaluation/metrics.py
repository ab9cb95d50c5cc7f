"""Which metrics fit a run, metrics from outside RecBole, and whether larger values are better."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from recbole_missing.config.constraints import unknown

_FROM_LISTS = {"rec.topk", "rec.items"}  # what a metric with a cut-off is computed from


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


def check_metrics(values: Mapping[str, Any]) -> None:
    """Refuse metrics that RecBole does not know, or that the mode of the evaluation cannot give.

    Args:
        values: every setting of the run, of the right types, before RecBole derives others.

    Raises:
        ValueError: naming the setting to change.
    """
    from recbole.evaluator import register

    words = values["metrics"]
    names = [words] if isinstance(words, str) else list(words)
    for name in names:
        if name.lower() not in register.metrics_dict:
            known = sorted(metric.__name__ for metric in register.metrics_dict.values())
            raise ValueError(
                f"metrics: {unknown('metric', name, known)} Make your own known with "
                "recbole_missing.register_metric, or name it module:Class."
            )
    topk = values["topk"]
    cuts: list[int] = list(topk) if isinstance(topk, (list, tuple)) else [topk]
    _check_mode(names, values, cuts)
    _check_valid_metric(names, values, cuts)


def _check_mode(names: Sequence[str], values: Mapping[str, Any], cuts: Sequence[int]) -> None:
    from recbole.evaluator import register

    of_pairs = [n for n in names if register.metric_types[n.lower()].name == "VALUE"]
    of_lists = [name for name in names if name not in of_pairs]
    if of_pairs and of_lists:
        raise ValueError(
            f"metrics: must all rank items or all judge scores of pairs, got {', '.join(of_lists)} "
            f"(of rankings) and {', '.join(of_pairs)} (of pairs); take them in two runs."
        )
    modes = _modes(values.get("eval_args") or {})
    if of_pairs and "full" in modes:
        raise ValueError(
            f"eval_args: mode must be labeled, uniN or popN with {', '.join(of_pairs)}, got full; "
            "set the mode, or take metrics of rankings such as Recall."
        )
    if of_lists and "labeled" in modes:
        raise ValueError(
            f"eval_args: mode must be full, uniN or popN with {', '.join(of_lists)}, got labeled, "
            "which ranks nothing; set the mode, or take metrics of pairs such as AUC."
        )
    counting = [n for n in of_lists if "rec.items" in register.metric_information[n.lower()]]
    sampled = [int(mode[3:]) for mode in modes if mode[:3] in ("uni", "pop")]
    if counting and sampled and max(cuts) > min(sampled) + 1:
        raise ValueError(
            f"topk: must be at most the candidates of a user ({min(sampled) + 1} with mode "
            f"{'/'.join(modes)}) for {', '.join(counting)}, got {max(cuts)}; lower it."
        )
    if "labeled" in modes:
        _check_labels(values)


def _modes(eval_args: Mapping[str, Any]) -> list[str]:
    mode = eval_args.get("mode", "full")
    if isinstance(mode, Mapping):
        other = mode.get("valid", mode.get("test", "full"))
        return sorted({mode.get("valid", other), mode.get("test", other)})
    return [mode]


def _check_labels(values: Mapping[str, Any]) -> None:
    columns = values.get("load_col")
    columns = None if columns is None else columns.get("inter", ())
    label = values.get("LABEL_FIELD")
    loaded = columns is None or columns == "*" or label in columns
    if not loaded and not values.get("threshold"):
        raise ValueError(
            f"eval_args: mode labeled must have labels, got no threshold, and no {label!r} in "
            f"load_col inter {columns}; set threshold, or load the column."
        )


def _check_valid_metric(
    names: Sequence[str], values: Mapping[str, Any], cuts: Sequence[int]
) -> None:
    """Refuse a ``valid_metric`` that no evaluation gives; RecBole looks after the first epoch."""
    given = values["valid_metric"]
    possible = [word for name in names for word in _values_of(name, cuts)]
    if given.lower() not in [word.lower() for word in possible]:
        shown = ", ".join([*possible[:8], *(["..."] if len(possible) > 8 else [])])
        raise ValueError(
            f"valid_metric: must be one of metrics {list(names)} at one of topk {list(cuts)} "
            f"({shown}), got {given!r}; set valid_metric too."
        )


def _values_of(name: str, cuts: Sequence[int]) -> list[str]:
    """Names of the values that a metric gives. One from outside may name them in either way."""
    from recbole.evaluator import register

    metric = register.metrics_dict[name.lower()]
    with_cuts = [f"{name}@{cut}" for cut in cuts]
    if metric.__module__.startswith("recbole."):
        return with_cuts if _FROM_LISTS & {*metric.metric_need} else [name]
    return [*with_cuts, name]
