"""Write a report: ``report.md`` with all tables and figures, and every table as TeX and CSV.

Equal lines give equal bytes. A report holds no date and no path of a machine, and its order does
not depend on the order of the lines.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from recbole_missing import tables
from recbole_missing.benchmark.line import Line, current
from recbole_missing.config import defaults
from recbole_missing.config.constraints import unknown
from recbole_missing.report import figures, restored, results, searched, sections
from recbole_missing.report.published import Published, published
from recbole_missing.report.results import Part
from recbole_missing.report.significance import UserFiles
from recbole_missing.tables import Column, Table

METRICS = ("recall@20", "ndcg@20")
_QUICK = ":quick"
_REFERENCE = "zeros"
_LEAST_USERS = 30  # a group of fewer users has a table but no figure
_LEAST_DOTS = 5  # fewer rows need no figure beside their table
_READING = (
    "Mean over runs ± sample standard deviation where there are several; `-` where there is no "
    "value. `runs` counts the runs behind a row: 0 where all failed. A test over users concerns "
    "these trained models on these users. How much a method varies from one training to the next "
    "is what ± says."
)
_MACHINE = (
    "Measured on the machine that ran each run, whatever else it was doing: a property of that "
    "machine as much as of the method."
)


@dataclass(frozen=True)
class Options:
    """What a report shows.

    Args:
        metrics: test metrics; the first one is the main one. None means :data:`METRICS` and the
            published ones.
        method: label of the row that is tested against the others. None means the best row of
            each table.
        benchmark: file with published numbers and the order of rows. None means the file with the
            name of the benchmark.
        figures: whether figures are drawn.
        pdf: whether every figure is also written as PDF.
        reference: the imputation that the gains of the others are measured against. None means
            ``zeros``.
    """

    metrics: Sequence[str] | None = None
    method: str | None = None
    benchmark: Path | None = None
    figures: bool = True
    pdf: bool = False
    reference: str | None = None


@dataclass
class Report:
    """The text of ``report.md`` so far, with its tables and figures.

    Tables are written at the end. Figures are written immediately.
    """

    folder: Path
    options: Options
    stores: Sequence[Path]
    blocks: list[str] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    figures: list[Path] = field(default_factory=list)

    def users(self) -> UserFiles:
        """The files of users beside the stores, none of them read yet."""
        return UserFiles([store.parent for store in self.stores])

    def say(self, *blocks: str) -> None:
        """Add paragraphs."""
        self.blocks.extend(blocks)

    def show(self, table: Table | None) -> None:
        """Add a table, if there is one."""
        if table is None:
            return
        self.tables.append(table)
        caption = tables.markdown_text(table.caption)
        self.say(f"#### {tables.markdown_text(table.title)}", caption, tables.markdown(table))

    def draw(self, part: Part, kind: str, drawing: Any, *arguments: Any) -> None:
        """Add a figure of a part, if figures are wanted."""
        self.draw_as(
            sections.stem(part, kind), f"{part.heading}: {kind}", drawing, part, *arguments
        )

    def draw_as(self, stem: str, words: str, drawing: Any, *arguments: Any) -> None:
        """Add a figure with a file name of its own, if figures are wanted."""
        if not self.options.figures:
            return
        endings = (".png", ".pdf") if self.options.pdf else (".png",)
        paths = [self.folder / f"{stem}{ending}" for ending in endings]
        drawing(*arguments, paths)
        self.figures.extend(paths)
        self.say(f"![{tables.markdown_text(words)}]({paths[0].name})")


def write(
    lines: Iterable[Line], stores: Sequence[Path], folder: Path, options: Options
) -> tuple[list[Path], list[Table]]:
    """Write a report.

    Args:
        lines: one line for each run of each benchmark.
        stores: files of the lines. Paths of kept files are relative to their folders.
        folder: existing folder to write into.
        options: what to show.

    Returns:
        The written files, and the main tables.

    Raises:
        ValueError: if there is no test run, a metric or row is unknown, or the benchmark file is
            wrong.
    """
    lines = list(lines)
    tested, replaced = current(results.tested(lines))
    if not tested:
        raise ValueError("report: must get at least one test run, got none; run a benchmark first.")
    files = {name: _definition(name, options) for name in {run.benchmark for run in tested}}
    printed = {name: published(content.get("published")) for name, content in files.items()}
    metrics = _metrics(tested, printed.values(), options)
    orders = {name: content.get("grid") or {} for name, content in files.items()}
    parts = results.parts(tested, orders)
    _check_method(parts, options)
    report = Report(folder, options, stores)
    _head(report, tested, replaced)
    main = []
    for name in sorted(files):
        own = [part for part in parts if part.benchmark == name]
        titles = sorted({run.title for run in tested if run.benchmark == name})
        title = f"{'; '.join(titles)} ({name})"
        report.say(f"## {tables.markdown_text(title)}")
        _overview(report, own, metrics[0])
        main += [_part(report, part, metrics, printed[name]) for part in own]
        for part in results.robustness_parts(tested, orders):
            if part.benchmark == name:
                _robustness(report, part, metrics[0])
    for table in searched.search_tables(lines):
        report.show(table)
    _end(report, parts, tested)
    return _files(report), main


def sources_note(
    lines: Iterable[Line], current_source_of: Callable[[Line], str | None]
) -> list[str]:
    """Sentences on runs of a report that were made by other code than the present one.

    They are for the terminal. They are not part of the report, because a report depends only on its
    stores.

    Args:
        lines: one line for each run of each benchmark.
        current_source_of: returns the ``source`` that the run of a line would have if it was made
            now, or None if it is unknown, for example because its model cannot be imported here.

    Returns:
        The sentences; empty if all runs were made by the present code.
    """
    unrecorded, others = [], []
    for line in current(results.tested(lines))[0]:
        now = current_source_of(line)
        if line.data is not None and line.data.keys() == {"id"}:
            continue  # refused before its data were read, so no code made it
        if line.source is None:
            unrecorded.append(line)
        elif now is not None and now != line.source:
            others.append(line)
    return [
        *_made_by(unrecorded, "code that was not recorded"),
        *_made_by(others, "other code than the present one"),
    ]


def _made_by(lines: Sequence[Line], code: str) -> list[str]:
    """Sentence on some runs, with their number for each model; empty for no runs."""
    if not lines:
        return []
    counts = Counter(results.text(line.point.get("model")) for line in lines)
    models = ", ".join(f"{model} {counts[model]}" for model in sorted(counts))
    were = "run was" if len(lines) == 1 else "runs were"
    return [f"{len(lines)} {were} made by {code} ({models})."]


def _definition(name: str, options: Options) -> dict[str, Any]:
    """Content of a benchmark's file. A quick variant has its own grid and no published numbers."""
    plain = name[: -len(_QUICK)] if name.endswith(_QUICK) else name
    content = (
        defaults.load(options.benchmark) if options.benchmark else defaults.read("benchmark", plain)
    )
    if plain == name:
        return dict(content)
    return {"grid": (content.get("quick") or {}).get("grid") or content.get("grid")}


def _metrics(
    tested: Sequence[Line], printed: Iterable[Published | None], options: Options
) -> list[str]:
    known = results.metrics_of(tested)
    if options.metrics:
        for metric in options.metrics:
            if metric not in known:
                raise ValueError(f"report: --metrics: {unknown('metric', metric, known)}")
        return list(dict.fromkeys(options.metrics))
    wanted = {*METRICS, *(m for table in printed if table for m in table.metrics)}
    return [m for m in known if m in wanted] or known[:2] or list(METRICS)


def _check_method(parts: Sequence[Part], options: Options) -> None:
    known = {label for part in parts for label in part.labels}
    if options.method and options.method not in known:
        raise ValueError(f"report: --method: {unknown('row', options.method, known)}")
    used = {results.value_of(run, results.IMPUTATION) for part in parts for run in part.lines}
    if options.reference and options.reference not in used:
        raise ValueError(f"report: --reference: {unknown('imputation', options.reference, used)}")


def _head(report: Report, tested: Sequence[Line], replaced: int) -> None:
    titles = sorted({run.title for run in tested})
    failed = sum(not run.done for run in tested)
    sources = ", ".join(f"`{name}`" for name in sorted({store.name for store in report.stores}))
    tally = f"{len(tested) - failed} runs succeeded, {failed} failed"
    if replaced:
        tally += f"; {replaced} earlier runs of the same points with other settings are left out"
    report.say(
        f"# {tables.markdown_text('; '.join(titles))}", f"From {sources}: {tally}.", _READING
    )


def _overview(report: Report, parts: Sequence[Part], metric: str) -> None:
    """Show the figure over all data sets of a benchmark, for each context."""
    groups: dict[tuple[tuple[str, str], ...], list[Part]] = {}
    for part in parts:
        if any(part.rows.values()) and results.RATIO not in (*part.context, *part.axes):
            groups.setdefault(tuple(part.context.items()), []).append(part)
    for group in groups.values():
        if max(sum(map(bool, part.rows.values())) for part in group) < _LEAST_DOTS:
            continue
        context = results.label(group[0].context)
        stem = sections.stem(replace(group[0], dataset="all"), "dots")
        words = f"{metric} of every row{f', {context}' if context else ''}"
        report.draw_as(stem, words, figures.dots, group, metric, report.users())


def _part(
    report: Report,
    part: Part,
    metrics: Sequence[str],
    printed: Published | None,
) -> Table:
    """Show the tables and figures of a part, and return its main table."""
    files = report.users()
    main = sections.main_table(part, metrics, printed, files)
    report.say(f"### {tables.markdown_text(part.heading)}", tables.markdown_text(main.protocol))
    report.show(main)
    for within in (False, True):
        _groups(report, part, metrics[0], within)
    if results.RATIO not in part.context:
        _imputations(report, part, metrics[0], files)
    report.show(sections.retrieval_table(part, printed))
    for table in sections.significance_tables(part, metrics[0], report.options.method, files):
        report.show(table)
    return main


def _groups(report: Report, part: Part, metric: str, within: bool) -> None:
    for groups, kind in zip(results.groups_of(part, metric, within), ("missing", "new")):
        report.show(sections.group_table(part, groups, metric, kind, within))
        large = [group for group in groups if _users(part, group, within) >= _LEAST_USERS]
        if large and sum(map(bool, part.rows.values())) > 1:
            name = f"{'within' if within else 'by'}_{kind}"
            report.draw(part, name, figures.by_group, large, metric, within)
            if large != groups:
                report.say(f"The figure leaves out groups of fewer than {_LEAST_USERS} users.")


def _users(part: Part, group: str, within: bool) -> int:
    """Largest number of users of a group, over the runs."""
    found = [results.groups_in(run, within).get(group, {}).get("users", 0) for run in part.lines]
    return max(found, default=0)


def _imputations(report: Report, part: Part, metric: str, files: UserFiles) -> None:
    reference = report.options.reference or _REFERENCE
    found = sections.gains(part, metric, reference, files)
    report.show(sections.gain_table(part, metric, reference, found))
    if len(found) > 1:
        report.draw(part, "gain", figures.gains, metric, reference, found)
    points = restored.points(part, metric)
    report.show(sections.restoration_table(part, metric, points))
    if len(points) > 1:
        report.draw(part, "restoration", figures.restoration, metric, points)


def _robustness(report: Report, part: Part, metric: str) -> None:
    table = sections.loss_table(part, metric)
    if table is None:
        return
    heading = f"### {tables.markdown_text(part.heading)}: against the missing ratio"
    report.say(heading, tables.markdown_text(table.protocol))
    files = report.users()
    report.show(sections.ratio_table(part, metric, files))
    report.draw(part, "ratio", figures.against_ratio, metric)
    _imputations(report, part, metric, files)
    report.show(table)
    kind = "rise" if part.smaller_is_better(metric) else "drop"
    report.draw(part, kind, figures.loss, metric)


def _end(report: Report, parts: Sequence[Part], tested: Sequence[Line]) -> None:
    report.say("## Time and memory", _MACHINE)
    for part in parts:
        if part.lines:
            report.show(sections.cost_table(part))
    failed = [run for run in tested if not run.done]
    report.say("## Failed runs", "" if failed else "None.")
    if failed:
        report.show(_failed(failed))
    report.say("## Versions", _versions(tested))


def _failed(runs: Sequence[Line]) -> Table:
    points = [", ".join(f"{k} {results.text(v)}" for k, v in run.point.items()) for run in runs]
    errors = [next(iter(str(run.error or "").strip().splitlines()), "") for run in runs]
    labels = {"benchmark": [run.benchmark for run in runs], "run": [run.run for run in runs]}
    columns = [Column("settings", points, form="text"), Column("error", errors, form="text")]
    return Table(labels, columns, "failed_runs", "Failed runs", "First line of each error.")


def _versions(tested: Sequence[Line]) -> str:
    found: dict[str, set[str]] = {}
    for run in tested:
        for package, version in (run.versions or {}).items():
            found.setdefault(package, set()).add(str(version))
    listed = [f"{package} {' or '.join(sorted(found[package]))}" for package in sorted(found)]
    return tables.markdown_text(", ".join(listed)) + "."


def _files(report: Report) -> list[Path]:
    texts: Mapping[str, str] = {
        "report.md": "\n\n".join(block for block in report.blocks if block) + "\n",
        **{f"{table.name}.tex": tables.latex(table) for table in report.tables},
        **{f"{table.name}.csv": tables.csv_text(table) for table in report.tables},
    }
    paths = []
    for name, text in texts.items():
        paths.append(report.folder / name)
        paths[-1].write_text(text, encoding="utf-8", newline="\n")
    return [*paths, *report.figures]
