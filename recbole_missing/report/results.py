"""From the lines of a store to the content of tables.

:func:`parts` assigns runs to the rows of tables. :func:`summary` computes mean and standard
deviation over the runs of a row. :func:`protocol` describes in words what runs have in common.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from recbole_missing.benchmark.line import Line, place
from recbole_missing.benchmark.plan import REPETITIONS
from recbole_missing.evaluation.metrics import smaller_metrics

Order = Mapping[str, Sequence[Any]]  # axis -> its values in the order to show

RATIO = "missing_ratio"
IMPUTATION = "imputation"
NO_CONTENT = "no content"  # in place of the imputation of a model that reads no modalities
_ROW_AXES = 2  # number of settings that name the rows; other settings make separate tables
_FIRST = ("model", IMPUTATION)
_PLAIN = (*_FIRST, "dataset")  # the values of these are written without the name of the setting


@dataclass(frozen=True)
class Part:
    """The runs of one table.

    Args:
        benchmark, dataset: the same for all runs.
        axes: settings whose values name a row.
        context: setting -> its one value in this table, for the other settings that vary.
        rows: values of ``axes`` -> the runs that are done; empty if all failed.
    """

    benchmark: str
    dataset: str
    axes: tuple[str, ...]
    context: dict[str, str]
    rows: dict[tuple[str, ...], list[Line]]

    @property
    def labels(self) -> list[str]:
        """Text of each row, such as ``DGMRec, featprop``."""
        return [label(dict(zip(self.axes, row))) for row in self.rows]

    @property
    def by_label(self) -> dict[str, list[Line]]:
        """Text of each row -> its runs."""
        return dict(zip(self.labels, self.rows.values()))

    @property
    def lines(self) -> list[Line]:
        """Every run that is done."""
        return [line for lines in self.rows.values() for line in lines]

    @property
    def heading(self) -> str:
        """Data set and context."""
        return label({"dataset": self.dataset, **self.context})

    def smaller_is_better(self, metric: str) -> bool:
        """Tell whether smaller values of a test metric are better.

        It is taken from the field ``smaller`` of a line. If no line has recorded it, it is known
        for the validation metric. For other metrics it is looked up in RecBole's register.
        """
        for line in self.lines:
            if line.smaller is not None and metric in (line.test or {}):
                return metric in line.smaller
        for line in self.lines:
            validated = str(line.config.get("valid_metric")).lower()
            if validated == metric and "valid_metric_bigger" in line.config:
                return not line.config["valid_metric_bigger"]
        return bool(smaller_metrics([metric]))


def text(value: Any) -> str:
    """Write a value of a setting: ``~`` for None, numbers without trailing zeros."""
    if value is None:
        return "~"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(text(item) for item in value) + "]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {text(item)}" for key, item in value.items()) + "}"
    return str(value)


def reads_content(line: Line) -> bool:
    """Tell whether a model reads modalities: its settings in force have an imputation then."""
    return not line.config or IMPUTATION in line.config


def value_of(line: Line, axis: str) -> str:
    """Text of a run's value on an axis.

    The grid may have imputations, and the model may read no modalities. Then the value on that axis
    is :data:`NO_CONTENT`.
    """
    if axis == IMPUTATION and axis in line.point and not reads_content(line):
        return NO_CONTENT
    return text(line.point.get(axis))


def label(values: Mapping[str, str]) -> str:
    """Join settings to one text. Most values are written with the name of their setting."""
    words = [v if axis in _PLAIN else f"{axis} {v}" for axis, v in values.items()]
    return ", ".join(words)


def by_size(value: str) -> tuple[bool, float, str, str]:
    """Sort key of texts: numbers by size, then words in alphabetical order."""
    try:
        return (False, float(value), "", value)
    except ValueError:
        return (True, 0.0, value.lower(), value)


def tested(lines: Iterable[Line]) -> list[Line]:
    """Runs of the stage ``test``, in an order that does not depend on the order in the store."""
    found = (line for line in lines if line.stage == "test")
    return sorted(found, key=lambda line: (*place(line), line.run))


def metrics_of(lines: Iterable[Line]) -> list[str]:
    """Test metrics that at least one run has."""
    return list(dict.fromkeys(m for line in lines if line.test for m in line.test))


def parts(lines: Sequence[Line], orders: Mapping[str, Order]) -> list[Part]:
    """Divide the runs of each benchmark and data set into tables.

    The first two settings that vary name the rows of a table. Each value of the other settings has
    its own table. The missing ratio names rows only if nothing else varies, because results at
    different ratios are not compared with each other.

    Args:
        lines: what :func:`tested` returned.
        orders: benchmark -> axis -> values in the order of the benchmark's file.
    """
    found = []
    for benchmark, dataset, members in _sections(lines, orders):
        order = orders.get(benchmark, {})
        axes, others = _layout(members)
        for values, group in _split(members, others, order).items():
            rows = _split(group, axes, order)
            context = dict(zip(others, values))
            found.append(Part(benchmark, dataset, tuple(axes), context, _done(rows)))
    return found


def robustness_parts(lines: Sequence[Line], orders: Mapping[str, Order]) -> list[Part]:
    """One part for each benchmark and data set with several missing ratios.

    A row holds the runs of all ratios.
    """
    found = []
    for benchmark, dataset, members in _sections(lines, orders):
        axes = [axis for axis in _varying(members) if axis != RATIO]
        rows = _done(_split(members, axes or ["model"], orders.get(benchmark, {})))
        part = Part(benchmark, dataset, tuple(axes or ["model"]), {}, rows)
        if RATIO in _varying(members) and part.lines:
            found.append(part)
    return found


def summary(rows: Sequence[Sequence[Mapping[str, Any]]]) -> pd.DataFrame:
    """Mean, sample standard deviation and count over the runs of each row.

    Args:
        rows: for each row, a mapping name -> value for each run. None and absent values are
            ignored.

    Returns:
        A frame with the same rows and the columns ``(name, "mean" | "std" | "count")``.
    """
    records = [{"row": i, **values} for i, runs in enumerate(rows) for values in runs]
    names = list(dict.fromkeys(name for runs in rows for values in runs for name in values))
    frame = pd.DataFrame(records, columns=["row", *names]).astype(dict.fromkeys(names, float))
    if not names:
        return pd.DataFrame(index=range(len(rows)))
    return frame.groupby("row")[names].agg(["mean", "std", "count"]).reindex(range(len(rows)))


def scores(part: Part, metrics: Sequence[str]) -> pd.DataFrame:
    """:func:`summary` of test metrics."""

    def values(run: Line) -> dict[str, Any]:
        return {metric: (run.test or {}).get(metric) for metric in metrics}

    return summary([[values(run) for run in runs] for runs in part.rows.values()])


def groups_in(run: Line, within: bool) -> Mapping[str, Mapping[str, Any]]:
    """Results of a run by group, or within the groups; empty if they were not measured."""
    return (run.within_groups if within else run.groups) or {}


def of_group(group: str, metric: str, within: bool) -> Callable[[Line], float | None]:
    """The value of a metric in a group of test items."""
    return lambda run: groups_in(run, within).get(group, {}).get(metric)


def group_scores(
    part: Part, groups: Sequence[str], metric: str, within: bool = False
) -> pd.DataFrame:
    """:func:`summary` of one metric, with a column for each group of test items.

    Args:
        part: the runs of one table.
        groups: names of groups.
        metric: metric of the groups.
        within: take the results in which only the items of a group are candidates.
    """

    def values(run: Line) -> dict[str, Any]:
        return {group: of_group(group, metric, within)(run) for group in groups}

    return summary([[values(run) for run in runs] for runs in part.rows.values()])


def groups_of(part: Part, metric: str, within: bool = False) -> tuple[list[str], list[str]]:
    """Groups of test items that have a metric: those by missing modalities, and warm and new."""
    found = {
        group
        for run in part.lines
        for group, values in groups_in(run, within).items()
        if metric in values
    }
    counts = sorted((g for g in found if g.endswith(" missing")), key=lambda g: int(g.split()[0]))
    return counts, [group for group in ("warm", "new") if group in found]


def pooled(groups: Iterable[Mapping[str, Any] | None]) -> dict[str, Any]:
    """Mean of measures over modalities, weighted by their ``items``, which are summed."""
    known = [group for group in groups if group]
    items = sum(group["items"] for group in known)
    names = [name for group in known[:1] for name in group if name != "items"]
    means = {n: sum(group[n] * group["items"] for group in known) / items for n in names}
    return {"items": items, **means} if known else {}


def ratio_of(line: Line) -> str:
    """Text of a run's missing ratio."""
    return text(line.point.get(RATIO))


def ratios_of(part: Part) -> list[str]:
    """Missing ratios of a part, in rising order."""
    return sorted({ratio_of(run) for run in part.lines}, key=by_size)


def at_ratio(part: Part, ratio: str) -> dict[str, list[Line]]:
    """Text of each row -> its runs at one missing ratio."""
    return {
        label: [run for run in runs if ratio_of(run) == ratio]
        for label, runs in part.by_label.items()
    }


def ratio_scores(part: Part, metric: str) -> pd.DataFrame:
    """:func:`summary` of one metric, with a column for each missing ratio, in rising order."""
    ratios = ratios_of(part)
    rows = [
        [{**dict.fromkeys(ratios), ratio_of(run): (run.test or {}).get(metric)} for run in runs]
        for runs in part.rows.values()
    ]
    return summary(rows)


def losses(means: pd.DataFrame, smaller: bool) -> pd.DataFrame:
    """Relative loss against the first column, one column a ratio.

    A loss is a drop, (first - value) / first. If ``smaller`` values are better, it is a rise,
    (value - first) / first. It is NaN if the first value is 0.
    """
    first = means.iloc[:, 0]
    drops = means.rsub(first, axis=0).div(first.where(first != 0), axis=0)
    return -drops if smaller else drops


def _done(rows: Mapping[tuple[str, ...], list[Line]]) -> dict[tuple[str, ...], list[Line]]:
    """Runs of each row that are done. A run that stands at several places of a row counts once."""
    done: dict[tuple[str, ...], list[Line]] = {}
    for row, runs in rows.items():
        once = {(run.run, ratio_of(run)): run for run in runs if run.done}
        done[row] = [*once.values()]
    return done


def _sections(
    lines: Sequence[Line], orders: Mapping[str, Order]
) -> Iterable[tuple[str, str, list[Line]]]:
    for benchmark in sorted({line.benchmark for line in lines}):
        members = [line for line in lines if line.benchmark == benchmark]
        order = orders.get(benchmark, {})
        for (dataset,), group in _split(members, ["dataset"], order).items():
            yield benchmark, dataset, group


def _varying(lines: Sequence[Line]) -> list[str]:
    """Axes with several values: model, imputation, others in alphabetical order, missing ratio."""
    values: dict[str, set[str]] = {}
    for line in lines:
        for axis in line.point:
            values.setdefault(axis, set()).add(value_of(line, axis))
    found = {axis for axis, seen in values.items() if len(seen) > 1}
    found -= {"dataset", RATIO, *REPETITIONS}
    rest = sorted(found - set(_FIRST))
    last = [RATIO] if len(values.get(RATIO, ())) > 1 else []
    return [*(axis for axis in _FIRST if axis in found), *rest, *last]


def _layout(lines: Sequence[Line]) -> tuple[list[str], list[str]]:
    """Axes of the rows, and axes of the context."""
    varying = _varying(lines)
    named = [axis for axis in varying if axis != RATIO] or varying or ["model"]
    axes = named[:_ROW_AXES]
    return axes, [axis for axis in varying if axis not in axes]


def _split(
    lines: Sequence[Line], axes: Sequence[str], order: Order
) -> dict[tuple[str, ...], list[Line]]:
    """Group by the values of some axes. Values of ``order`` come first, the others by size."""
    groups: dict[tuple[str, ...], list[Line]] = {}
    for line in lines:
        groups.setdefault(tuple(value_of(line, axis) for axis in axes), []).append(line)
    known = [[text(value) for value in order.get(axis, ())] for axis in axes]

    def place(values: tuple[str, ...]) -> list[Any]:
        return [
            (seen.index(value) if value in seen else len(seen), by_size(value))
            for seen, value in zip(known, values)
        ]

    return {values: groups[values] for values in sorted(groups, key=place)}


def protocol(part: Part) -> str:
    """Write one sentence on how the runs of a table were made, for its caption.

    It names data, split, mask, candidate items of the test, choice of the epoch and seeds. If the
    runs of a table differ, it names every value that occurs.
    """
    lines = part.lines
    if not lines:
        return f"Data set {part.dataset}; no run succeeded."
    pieces = [
        f"Data set {part.dataset}",
        *(f"{axis} {value}" for axis, value in part.context.items()),
        _all(lines, _splitting),
        "missing: " + _all(lines, _missing),
        _hidden(lines),
        "new items: " + _all(lines, _new_items),
        _test_mask(part),
        _choice(lines),
        _search(lines),
        *(_constant(part, axis) for axis in ("model", "imputation")),
        _seeds(lines),
    ]
    return "; ".join(piece for piece in pieces if piece) + "."


def _all(lines: Iterable[Line], say: Callable[[Line], str]) -> str:
    return " or ".join(sorted({say(line) for line in lines}, key=by_size))


def _setting(key: str) -> Callable[[Line], str]:
    return lambda line: text(line.config.get(key))


def _splitting(line: Line) -> str:
    config = line.config
    if config.get("benchmark_filename"):
        return f"published split ({', '.join(map(str, config['benchmark_filename']))})"
    given = config.get("eval_args") or {}
    shown = [f"{key} {text(given[key])}" for key in ("order", "group_by") if key in given]
    sizes = [f"{kind} {text(size)}" for kind, size in (given.get("split") or {}).items()]
    return f"split {', '.join([*sizes, *shown])}" if sizes or shown else "split not stated"


def _missing(line: Line) -> str:
    config = line.config
    word = text(config.get("missing_protocol", "none"))
    if word == "none":
        return "nothing hidden"
    if word == "file":
        return f"file {text(config.get('missing_file'))}"
    only = config.get("missing_modalities")
    return f"{word}, ratio {text(config.get('missing_ratio'))}" + (
        f" of {text(only)}" if only else ""
    )


def _hidden(lines: list[Line]) -> str:
    """Number of items without each modality, over the masks of the table."""
    masks = [line.mask["missing"] for line in lines if line.mask]
    words = []
    for name in dict.fromkeys(name for mask in masks for name in mask):
        counts = [mask[name] for mask in masks if name in mask]
        words.append(f"{name} {_range(counts)}")
    return "items without " + ", ".join(words) if words else ""


def _range(counts: list[int]) -> str:
    low, high = min(counts), max(counts)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _new_items(line: Line) -> str:
    word = text(line.config.get("new_items", "none"))
    count = (line.mask or {}).get("new_items")
    return f"{word} ({count:,})" if count else word


def _test_mask(part: Part) -> str:
    users: dict[str, list[str]] = {}
    for row, runs in zip(part.labels, part.rows.values()):
        for mask in sorted({_setting("test_mask")(run) for run in runs}):
            users.setdefault(mask, []).append(row)
    if len(users) == 1:
        return f"test_mask {next(iter(users))}"
    which = [f"{mask} ({', '.join(users[mask])})" for mask in sorted(users)]
    return f"test_mask differs, so rows do not compare: {', '.join(which)}"


def _choice(lines: list[Line]) -> str:
    metric, patience, step, epochs = (
        _all(lines, _setting(key))
        for key in ("valid_metric", "stopping_step", "eval_step", "epochs")
    )
    ties = {line.config.get("ties_improve", True) for line in lines}
    rule = {True: "a tie improves", False: "a tie does not improve"}
    return (
        f"epoch chosen by {metric} on validation, stopping_step {patience} "
        f"({', '.join(rule[tie] for tie in sorted(ties, reverse=True))}), eval_step {step}, "
        f"at most {epochs} epochs"
    )


def _search(lines: list[Line]) -> str:
    """Number of trials from which hyper-parameters were chosen; empty without a search."""
    found = [line.search["trials"] for line in lines if line.search]
    if not found:
        return ""
    rest = "" if len(found) == len(lines) else " (not of every row)"
    return f"hyper-parameters{rest} chosen on validation among {_range(found)} trials"


def _constant(part: Part, axis: str) -> str:
    """Value of an axis that all rows share and that no column shows."""
    found = [
        value_of(line, axis) if axis in line.point else line.config.get(axis) for line in part.lines
    ]
    values = {text(value) for value in found if value is not None}  # of models that have it
    hidden = axis in part.axes or axis in part.context or len(values) != 1
    return "" if hidden else f"{axis} {values.pop()}"


def _seeds(lines: list[Line]) -> str:
    words = [f"seeds {_listed(line['point'].get('seed') for line in lines)}"]
    masks = {line.point.get("missing_seed") for line in lines} - {None}
    drawn = {line.config.get("missing_seed") for line in lines if _draws(line)} - {None}
    if masks or drawn:
        words.append(f"mask seeds {_listed(masks or drawn)}")
    return "; ".join(words)


def _draws(line: Line) -> bool:
    """Tell whether the mask or the new items were drawn at random."""
    config = line.config
    drawn = config.get("missing_protocol") not in (None, "none", "file")
    return drawn or config.get("new_items") == "stratified"


def _listed(values: Iterable[Any]) -> str:
    return ", ".join(sorted({text(value) for value in values}, key=by_size))
