"""The tables of a report. Each one is made from the runs of one part."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from recbole_missing.benchmark.line import Line
from recbole_missing.report import restored, results, significance
from recbole_missing.report.published import Published
from recbole_missing.report.restored import Point
from recbole_missing.report.results import RATIO, Part, protocol
from recbole_missing.report.significance import Gains, Marks, UserFiles
from recbole_missing.tables import Column, Table, number

_SOURCES = {"model": "model", "nearest_neighbour": "nearest neighbour"}
_ALL = "all"
_COST = {
    "seconds": "seconds",
    "epoch_seconds": "seconds an epoch",
    "epochs": "epochs run",
    "peak_memory_mib": "peak memory (MiB)",
    "peak_gpu_mib": "peak GPU memory (MiB)",
}


def stem(part: Part, kind: str) -> str:
    """File name of a table or figure without its ending."""
    words = [part.benchmark, part.dataset, *(f"{k}_{v}" for k, v in part.context.items()), kind]
    return "_".join(re.sub(r"[^\w.-]+", "_", word).strip("_") for word in words)


def main_table(
    part: Part, metrics: Sequence[str], printed: Published | None, files: UserFiles | None = None
) -> Table:
    """Test metrics, with the published ones if there are any.

    If runs kept their users, half of the 95 % interval of the first metric stands beside it.
    """
    frame = results.scores(part, metrics)
    columns, marked = [], {}
    for metric in metrics:
        value, smaller = significance.of_test(metric), part.smaller_is_better(metric)
        marked[metric] = significance.marks(part.by_label, value, smaller, metric, files)
        column = _column(frame, metric, marked=marked[metric].rows)
        columns.append(column)
        columns += _interval(part, metric, files) if metric == metrics[0] else []
        theirs = [_published(runs, printed, metric) for runs in part.rows.values()]
        if any(value is not None for value in theirs):
            pairs = zip(column.values, theirs)
            gaps = [None if None in pair else pair[0] - pair[1] for pair in pairs]
            columns.append(Column(f"{metric} published", theirs))
            columns.append(Column(f"{metric} difference", gaps, form="difference"))
    columns.append(Column("runs", [len(runs) for runs in part.rows.values()], form="count"))
    captions = [_direction(part, metrics), bold(marked), *_uneven(part, marked)]
    if any(column.name == _INTERVAL for column in columns):
        captions.append(_INTERVAL_CAPTION)
    if any(column.name.endswith(" published") for column in columns) and printed:
        captions.append(f"Published: {printed.source}.")
    return _table(part, "scores", f"{part.heading}: test metrics", joined(captions), columns)


_INTERVAL = "95% ±"
_INTERVAL_CAPTION = (
    f"{_INTERVAL}: half of the 95% interval of the mean over users, whose values are averaged over "
    "the runs."
)


def _interval(part: Part, metric: str, files: UserFiles | None) -> list[Column]:
    """Column of half intervals over users; empty if no run kept its users."""
    if files is None:
        return []
    halves = [files.interval(runs, metric) for runs in part.rows.values()]
    return [Column(_INTERVAL, halves)] if any(half is not None for half in halves) else []


def bold(marked: Mapping[str, Marks]) -> str:
    """Sentences on what bold means in a table.

    Args:
        marked: heading of a column -> its marks.
    """
    tests = {one.over for one in marked.values()} - {""}
    shown = {name for name, one in marked.items() if any(one.rows)}
    rest = [name for name in marked if name not in shown]
    if not tests:
        return (
            "Nothing is bold, because nothing could be tested. It takes two rows, and values of "
            "users for this table or several seeds in common."
        )
    over = " or ".join(sorted(tests, reverse=True))
    words = f"paired t-test over {over}, 5%, Holm's correction over the rows"
    if not shown:
        return f"Nothing is bold, because no row is told from the best one ({words})."
    where = f" In {', '.join(rest)} no test tells a row from the best one." if rest else ""
    untested = sorted({row for one in marked.values() for row in one.untested})
    where += f" Not tested, so not bold: {'; '.join(untested)}." if untested else ""
    return f"Bold: the best mean and the rows that are not told from it ({words}).{where}"


def group_table(
    part: Part, groups: Sequence[str], metric: str, kind: str, within: bool = False
) -> Table | None:
    """One metric by group of test items; None if no run has such a group.

    Args:
        part: the runs of the table.
        groups: names of groups.
        metric: metric of the groups.
        kind: ``missing`` or ``new``.
        within: show the results in which only the items of a group are candidates.
    """
    if not groups:
        return None
    frame = results.group_scores(part, groups, metric, within)
    columns, marked, smaller = [], {}, part.smaller_is_better(metric)
    for group in groups:
        value = results.of_group(group, metric, within)
        marked[group] = significance.marks(part.by_label, value, smaller)
        found = [results.groups_in(run, within).get(group, {}) for run in part.lines]
        sizes = [_span(found, "users"), *([_span(found, "items")] if within else [])]
        title = f"{group} ({', '.join(sizes)})"
        columns.append(_column(frame, group, marked=marked[group].rows, title=title))
    captions = [
        f"{metric} over the test items of a group and the users who have one: columns differ in "
        "items and users, so compare within a column.",
        _direction(part, [metric]),
        bold(marked),
    ]
    words = {"missing": "by number of missing modalities", "new": "warm and new items"}
    title = f"{part.heading}: {words[kind]}"
    if not within:
        return _table(part, f"by_{kind}", title, joined(captions), columns)
    caption = joined([_WITHIN, *captions, *_unmeasured(part)])
    return _table(part, f"within_{kind}", f"{title}, within the group", caption, columns)


_WITHIN = (
    "Only the items of a group are candidates; their number is in the head. Items that the test "
    "hides from a user are none for this user. The expected Recall@k of a random order is k / "
    "(items that are not hidden from the user); for new items, nothing is hidden."
)


def _span(found: Iterable[Mapping[str, Any]], name: str) -> str:
    counts = [values[name] for values in found if name in values]
    most = f" to {max(counts):,}" if min(counts) < max(counts) else ""
    return f"{min(counts):,}{most} {name}"


def _unmeasured(part: Part) -> list[str]:
    """Sentence on the runs of a version that did not measure results within groups, if any."""
    without = sum(run.within_groups is None for run in part.lines)
    if not without:
        return []
    return [f"{without} of {len(part.lines)} runs are older than this measure and do not count."]


def loss_table(part: Part, metric: str) -> Table | None:
    """Relative loss of a metric against the smallest missing ratio; None for a single ratio."""
    means = _means(results.ratio_scores(part, metric))
    if means.shape[1] < 2:
        return None
    first = means.columns[0]
    smaller = part.smaller_is_better(metric)
    losses = results.losses(means, smaller)
    columns = [
        Column(f"{RATIO} {ratio}", [number(v) for v in losses[ratio]], form="percent")
        for ratio in means.columns[1:]
    ]
    base = Column(f"{metric} at {first}", [number(value) for value in means[first]])
    against = "nothing missing (ratio 0)" if float(first) == 0 else f"the smallest ratio, {first}"
    word, formula = ("rise", "(here - there)") if smaller else ("drop", "(there - here)")
    caption = (
        f"Relative {word} of the mean {metric} against {against}: {formula} / there; negative "
        f"is a gain."
    )
    title = f"{part.heading}: relative {word} of {metric}"
    return _table(part, word, title, caption, [base, *columns])


def ratio_table(part: Part, metric: str, files: UserFiles | None = None) -> Table:
    """One metric, with a column for each missing ratio."""
    frame = results.ratio_scores(part, metric)
    value, smaller = significance.of_test(metric), part.smaller_is_better(metric)
    columns, marked = [], {}
    for ratio in dict.fromkeys(ratio for ratio, _ in frame.columns):
        rows = results.at_ratio(part, ratio)
        marks = significance.marks(rows, value, smaller, metric, files)
        columns.append(_column(frame, ratio, marked=marks.rows, title=f"{RATIO} {ratio}"))
        marked[columns[-1].name] = marks
    title = f"{part.heading}: {metric} against the missing ratio"
    caption = joined([_direction(part, [metric]), bold(marked)])
    return _table(part, "ratio", title, caption, columns)


def gains(part: Part, metric: str, reference: str, files: UserFiles) -> dict[str, Gains]:
    """Gain of each row over the row with another imputation and the same other settings.

    Args:
        part: a table, or one of :func:`.results.robustness_parts`.
        metric: test metric.
        reference: the imputation of the rows that the others are compared with.
        files: the files of users.

    Returns:
        Missing ratio -> gains of the rows that have a counterpart; :data:`ALL_RATIOS` -> gains over
        all ratios, of the rows that have every ratio. It is empty if no row has a counterpart.
    """
    pairs = _counterparts(part, reference)
    ratios = results.ratios_of(part)
    wanted = {**{ratio: {ratio} for ratio in ratios if len(ratios) > 1}, ALL_RATIOS: set(ratios)}
    found = {}
    for name, some in wanted.items() if pairs else ():
        sides = {
            label: [[run for run in runs if results.ratio_of(run) in some] for runs in both]
            if all(some <= {results.ratio_of(run) for run in runs} for runs in both)
            else [[], []]
            for label, both in pairs.items()
        }
        found[name] = significance.gains(sides, metric, files)
    return found


ALL_RATIOS = "all ratios"


def _counterparts(part: Part, reference: str) -> dict[str, list[list[Line]]]:
    """Label of a row -> its runs, and those of the same row with another imputation."""
    if results.IMPUTATION not in part.axes:
        return {}
    place = part.axes.index(results.IMPUTATION)
    found = {}
    for label, (row, runs) in zip(part.labels, part.rows.items()):
        theirs = part.rows.get((*row[:place], reference, *row[place + 1 :]), [])
        if runs and theirs and row[place] != reference:
            found[label] = [runs, theirs]
    return found


def gain_table(part: Part, metric: str, reference: str, found: Mapping[str, Gains]) -> Table | None:
    """What an imputation gains over another one, and what it costs; None if there are no gains.

    Args:
        part, metric, reference: as of :func:`gains`.
        found: what :func:`gains` returned.
    """
    if not found:
        return None
    columns = []
    for name, one in found.items():
        title = ("gain" if len(found) == 1 else name) if name == ALL_RATIOS else f"{RATIO} {name}"
        marked = [c.apart for c in one.gains]
        shown, counts = [c.difference for c in one.gains], [c.n for c in one.gains]
        columns.append(Column(title, shown, n=counts, form="difference", marked=marked))
        head = _INTERVAL if len(found) == 1 else f"{name} {_INTERVAL}"
        columns.append(Column(head, [c.half for c in one.gains]))
    kept = [c.other for c in found[ALL_RATIOS].gains]
    over = " or ".join(sorted({one.over for one in found.values()}))
    caption = (
        f"{metric} of a row minus that of the same row with {reference}, paired over {over}. "
        f"{_INTERVAL}: half of its 95% interval. Bold: it differs from 0 (paired t-test, 5%, "
        "Holm's correction over the rows). Repetitions share interactions, and masks of one seed "
        "share the split, so an interval is too narrow for other splits."
    )
    costs = _gain_costs(part, reference, kept)
    captions = [caption, _direction(part, [metric]), _SECONDS if costs else ""]
    rows = [row for row, label in zip(part.rows, part.labels) if label in kept]
    labels = {axis: [row[i] for row in rows] for i, axis in enumerate(part.axes)}
    title = f"{part.heading}: gain over {reference}"
    return _table(part, "gain", title, joined(captions), [*columns, *costs], labels)


_SECONDS = "Seconds of a whole run, averaged over the runs of the row."


def _gain_costs(part: Part, reference: str, kept: Sequence[str]) -> list[Column]:
    """Seconds of the rows and of those that they are compared with; empty if none are known."""
    pairs = _counterparts(part, reference)
    names = {"seconds": "seconds", "imputation_seconds": "seconds of imputation"}
    columns = []
    for key, name in names.items():
        for side, title in enumerate((name, f"{name}, {reference}")):
            runs = [[{title: run.cost.get(key)} for run in pairs[label][side]] for label in kept]
            columns.append(_column(results.summary(runs), title, form="amount"))
    return [column for column in columns if any(value is not None for value in column.values)]


def retrieval_table(part: Part, printed: Published | None) -> Table | None:
    """Cross-modal retrieval by model, in its spaces, and by nearest neighbour, if measured."""
    rows = _retrieved(part)
    if not rows:
        return None
    frame = results.summary(list(rows.values()))
    names = list(dict.fromkeys(name for name, _ in frame.columns)) if len(frame.columns) else []
    columns = []
    for name in names:
        columns.append(_column(frame, name, form="count" if name == "items" else "score"))
        theirs = [_published_hit(part, row, printed, name) for row in rows]
        if any(value is not None for value in theirs):
            columns.append(Column(f"{name} published", theirs))
    heads = [*part.axes, "source", "lacking", "modality"]
    labels = {head: [row[i] for row in rows] for i, head in enumerate(heads)}
    caption = (
        "An item that lacks a modality asks with what stands in for it; a hit is its own true "
        "feature among the nearest (cosine) of all items. Nearest neighbour: the feature of the "
        "nearest item by another modality. `all`: mean over modalities by items."
    )
    if any(name.startswith("control@") for name in names):
        caption += (
            " Control: the same, after the hidden features changed places; a hit is about features "
            "only as far as it is above its control. Other sources than the model and the nearest "
            "neighbour: what the model makes inside, compared with what it makes of the true "
            "features."
        )
    if len(columns) > len(names) and printed:
        caption += f" Published (beside `all`; it names no modality): {printed.source}."
    title = f"{part.heading}: cross-modal retrieval"
    return _table(part, "retrieval", title, caption, columns, labels)


def _retrieved(part: Part) -> dict[tuple[str, ...], list[dict[str, float]]]:
    """Row of the retrieval table -> measures of each run; empty if they are undefined."""
    rows: dict[tuple[str, ...], list[dict[str, float]]] = {}
    for row, runs in part.rows.items():
        for run in runs:
            for source, by_modality in (run.retrieval or {}).items():
                counts = dict.fromkeys(count for groups in by_modality.values() for count in groups)
                for count in counts:
                    found = {name: groups.get(count) for name, groups in by_modality.items()}
                    for name, measures in {**found, _ALL: results.pooled(found.values())}.items():
                        key = (*row, _SOURCES.get(source, source), count, name)
                        rows.setdefault(key, []).append(measures or {})
    return rows


def restoration_table(part: Part, metric: str, found: Sequence[Point]) -> Table | None:
    """Spearman's rho of restoration and recommendation; None without points.

    Args:
        part: the runs.
        metric: test metric.
        found: what :func:`.restored.points` returned.
    """
    rows = [
        (panel, measure, own)
        for panel, own in restored.by_panel(found).items()
        for measure in restored.MEASURES
        if any(measure in point.quality for point in own)
    ]
    if not rows:
        return None
    columns = [
        Column("points", [len(own) for *_, own in rows], form="count"),
        Column("rho", [restored.rho(own, measure) for _, measure, own in rows], form="difference"),
        Column(
            "rho within a ratio",
            [restored.rho_within(own, measure) for _, measure, own in rows],
            form="difference",
        ),
    ]
    labels = {"restoration": [measure for _, measure, _ in rows]}
    if len(part.axes) > 1:
        labels = {part.axes[0]: [panel for panel, *_ in rows], **labels}
    caption = (
        f"Spearman's rho of restoration and {metric}, over the imputations at each missing ratio. "
        "Within a ratio: mean of rho over the ratios. A relative_mse is better if it is lower, so "
        "a negative rho is the expected one. There is no p-value, because points share masks."
    )
    title = f"{part.heading}: restoration and recommendation"
    return _table(part, "restoration", title, caption, columns, labels)


def cost_table(part: Part) -> Table:
    """Time and memory of the runs."""

    def measured(run: Line) -> dict[str, Any]:
        cost = {**run.cost, "epochs": len(run.epochs or [])}
        return {name: cost[key] for key, name in _COST.items() if cost.get(key) is not None}

    frame = results.summary([[measured(run) for run in runs] for runs in part.rows.values()])
    known = {name for name, _ in frame.columns} if len(frame.columns) else set()
    columns = [_column(frame, n, form="amount") for n in _COST.values() if n in known]
    where = {
        f"{run['cost'].get('device')}, {run['cost'].get('threads')} CPU thread(s)"
        for run in part.lines
    }
    caption = f"Device: {' or '.join(sorted(where))}. An epoch is counted without its validation."
    title = f"{part.benchmark}, {part.heading}: time and memory"
    return _table(part, "cost", title, caption, columns)


def best_row(part: Part, metric: str) -> str | None:
    """Label of the row with the best mean; None if no row has a mean."""
    means = _means(results.scores(part, [metric]))
    values = means[metric].dropna() if metric in means else pd.Series(dtype=float)
    if values.empty:
        return None
    best = values.idxmin() if part.smaller_is_better(metric) else values.idxmax()
    return part.labels[best]


def significance_tables(
    part: Part, metric: str, method: str | None, files: UserFiles
) -> list[Table]:
    """Tests of one row against the others, over users and over seeds.

    The best other row comes first. There is no table over users if no run kept the metrics of its
    users. There is no table over seeds if no other row has several seeds in common with the chosen
    one.
    """
    known = [label for label, runs in zip(part.labels, part.rows.values()) if runs]
    chosen = method or best_row(part, metric)
    if chosen not in known or len(known) < 2:
        return []
    means = _means(results.scores(part, [metric]))[metric].set_axis(part.labels)[known]
    ordered = means.sort_values(ascending=part.smaller_is_better(metric), kind="stable").index
    rows = {label: part.by_label[label] for label in ordered}
    why = "" if method else ", chosen for its mean on the same test results"
    opening = f"{metric} of {chosen}{why}, minus that of the row; best row first."
    tables = []
    if any((run.kept or {}).get("users") for run in part.lines):
        comparisons = significance.over_users(rows, chosen, metric, files)
        tables.append(_tests(part, "users", comparisons, opening))
    comparisons = significance.over_seeds(rows, chosen, significance.of_test(metric))
    if any(one.n > 1 for one in comparisons):
        tables.append(_tests(part, "seeds", comparisons, opening))
    return tables


def _tests(
    part: Part, over: str, comparisons: Sequence[significance.Comparison], opening: str
) -> Table:
    def column(name: str, key: str, form: str) -> Column:
        return Column(name, [getattr(c, key) for c in comparisons], form=form)

    columns = [
        *([column("runs", "runs", "count")] if over == "users" else []),
        column(over if over == "users" else "runs", "n", "count"),
        column("difference", "difference", "difference"),
        column("95% from", "low", "difference"),
        column("to", "high", "difference"),
        column("Wilcoxon p", "wilcoxon", "p"),
        column("Holm", "wilcoxon_holm", "p"),
        column("t-test p", "t_test", "p"),
        column("Holm (t)", "t_test_holm", "p"),
        Column("note", [c.note or None for c in comparisons], form="text"),
    ]
    what = "users, values averaged over common seeds" if over == "users" else "common seeds"
    caption = (
        f"{opening} Two-sided paired tests over {what}: Wilcoxon's signed-rank test without "
        "differences of 0, t-test and its 95% interval; Holm's correction over the rows. "
    )
    title = f"{part.heading}: tests over {over}"
    labels = {"against": [c.other for c in comparisons]}
    return _table(part, f"tests_{over}", title, caption, columns, labels)


def _table(
    part: Part,
    kind: str,
    title: str,
    caption: str,
    columns: Sequence[Column],
    labels: Mapping[str, Sequence[str]] | None = None,
) -> Table:
    """Table of a part. Its rows are those of the part, unless ``labels`` names others."""
    rows = _labels(part) if labels is None else labels
    return Table(rows, columns, stem(part, kind), title, caption, protocol(part))


def _uneven(part: Part, marked: Mapping[str, Marks]) -> list[str]:
    """Sentence on rows with different numbers of runs, if there is a test."""
    counts = {len(runs) for runs in part.rows.values()} - {0}
    if len(counts) < 2 or not any(one.over for one in marked.values()):
        return []
    return ["Rows have different numbers of runs; a test takes the seeds that both rows have."]


def joined(sentences: Iterable[str]) -> str:
    """Put sentences together, without the empty ones."""
    return " ".join(sentence for sentence in sentences if sentence)


def _direction(part: Part, metrics: Sequence[str]) -> str:
    """Sentence on the metrics for which smaller values are better; empty if there are none."""
    smaller = [metric for metric in metrics if part.smaller_is_better(metric)]
    return f"Lower is better: {', '.join(smaller)}." if smaller else ""


def _labels(part: Part) -> dict[str, list[str]]:
    return {axis: [row[i] for row in part.rows] for i, axis in enumerate(part.axes)}


def _column(
    frame: pd.DataFrame,
    name: str,
    form: str = "score",
    marked: Sequence[bool] = (),
    title: str = "",
) -> Column:
    """Column of a summary. A cell is None if no run has the value."""
    mean, std, count = (
        [number(value) for value in frame[name, stat]]
        if (name, stat) in frame
        else [None] * len(frame)
        for stat in ("mean", "std", "count")
    )
    return Column(title or name, mean, std, [int(n or 0) for n in count], form, marked)


def _means(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.xs("mean", axis=1, level=1) if len(frame.columns) else frame


def _published(runs: Sequence[Line], printed: Published | None, metric: str) -> float | None:
    if printed is None:
        return None
    found = {printed.at({**run.config, **run.point}, metric) for run in runs}
    return found.pop() if len(found) == 1 else None


def _published_hit(
    part: Part, row: tuple[str, ...], printed: Published | None, measure: str
) -> float | None:
    """Value that was published for a row of the retrieval table.

    The axis ``row`` of the published numbers has values such as ``DGMRec, 1 missing``. They name
    the model, but no other axes of the part such as the imputation.
    """
    *values, source, count, modality = row
    if printed is None or modality != _ALL or source not in _SOURCES.values():
        return None
    runs = part.rows[tuple(values)]
    model = results.text(runs[0]["point"]["model"])
    who = model if source == _SOURCES["model"] else "nearest_neighbour"
    return printed.at({"dataset": part.dataset, "row": f"{who}, {count}"}, measure)
