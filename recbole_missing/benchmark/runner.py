"""Run everything that a plan asks for and that the store does not hold yet."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import recbole

from recbole_missing import identity, registry
from recbole_missing.benchmark import search
from recbole_missing.benchmark.identified import DataSets
from recbole_missing.benchmark.job import Identified, Job
from recbole_missing.benchmark.line import Line
from recbole_missing.benchmark.plan import Plan, Point, cell
from recbole_missing.benchmark.settle import Board, distinct, settle, unfinished
from recbole_missing.benchmark.store import Store


@dataclass(frozen=True)
class Options:
    """How a benchmark is run.

    Args:
        keep: names of :data:`.job.KEEP`.
        retry_failed: run failed runs again.
        rerun_changed: run again what was made by other code than the present one.
        data_path: folder of the data set folders.
        say: called with each message.
    """

    keep: Sequence[str] = ()
    retry_failed: bool = False
    rerun_changed: bool = False
    data_path: Path = Path("dataset")
    say: Callable[[str], None] = print


def run(plan: Plan, store: Store, workers: Any, options: Options) -> list[Line]:
    """Run a plan: first the trials of its search, if it has one, and then the tests.

    Args:
        plan: what to run. Absent data sets are left out, and a message says so.
        store: finished runs are looked up here, and new ones are written here.
        workers: one of the classes of :mod:`.workers`.
        options: further options.

    A point or a trial that is refused gets a line as a failed run does, and the others are run.

    Returns:
        The lines of the tested runs, failed and refused ones included.

    Raises:
        ValueError: before the first run, if every run is refused or all data sets are absent.
    """
    points = _present(plan, options)
    store.tidy()
    again = {"retry_failed": options.retry_failed, "rerun_changed": options.rerun_changed}
    chosen: Mapping[str, Any] = {}
    hopeless: list[Refused] = []
    if plan.search:
        trials, refused = _identified(_trials(plan, store, points, options))
        lines = _recorded(refused, store, options)
        tried = settle(_once(trials), store, workers, options.say, **again)
        lines += _of_every_cell(trials, tried)
        chosen, failures = search.choose(lines), search.failures(lines)
        lost = [point for point in points if cell(point) in failures]
        points = [point for point in points if point not in lost]
        hopeless = [
            Refused(_job(plan, store, options, point), failures[cell(point)]) for point in lost
        ]
        if not points:
            raise hopeless[0].as_error()
    found, refused = _identified(
        [_job(plan, store, options, point, **chosen.get(cell(point), {})) for point in points]
    )
    lines = _recorded([*hopeless, *refused], store, options)
    found = distinct(found, options.say)
    return [*settle(found, store, workers, options.say, **again), *lines]


def preview(plan: Plan, store: Store, options: Options) -> list[str]:
    """List the runs of a plan and their states, without running anything.

    No code that the plan names as ``module:Class`` is imported. A run that needs some which is not
    imported yet is listed, but not looked up in the store.

    If the plan has a search, the trials are listed first, and at the end the runs that will use the
    chosen settings. The runs of models that the search has no space for stand between them.

    Returns:
        One text for each run, and remarks on runs that other code made.

    Raises:
        ValueError: as :func:`run`.
    """
    points = _present(plan, options)
    trials = _trials(plan, store, points, options) if plan.search else []
    searched = {cell(job.point) for job in trials}
    jobs = [_job(plan, store, options, point) for point in points if cell(point) not in searched]
    later = [point for point in points if cell(point) in searched]
    after = [" ".join([*_words(point), "(after the search)"]) for point in later]
    with registry.without_imports():
        found, refused = _identified([*trials, *jobs])
    planned = _once(found) if plan.search else distinct(found, options.say)
    board = Board(planned, store)
    board.look()
    lines = []
    for job in planned:
        state = board.lines.get(job.run, {"status": "to do"})["status"]
        tried = [f"{key}={value}" for key, value in (job.job.trial or {}).items()]
        lines.append(" ".join([*_words(job.job.point), *tried, f"({state})"]))
    return [*lines, *map(str, refused), *after, *board.remarks()]


def _words(point: Mapping[str, Any]) -> list[str]:
    return [f"{key}={value}" for key, value in point.items()]


def _trials(plan: Plan, store: Store, points: list[Point], options: Options) -> list[Job]:
    return [
        _job(plan, store, options, point, settings, stage="search")
        for point, settings in search.trials(plan, points)
    ]


def _once(jobs: list[Identified]) -> list[Identified]:
    """Each run once; a search may draw the same settings twice."""
    first: dict[str, Identified] = {}
    for job in jobs:
        first.setdefault(job.run, job)
    return list(first.values())


def _of_every_cell(trials: list[Identified], lines: list[Line]) -> list[Line]:
    """Lines of the trials, once in every cell that has the trial.

    Cells share a trial if they differ only in what has no effect on it, such as the imputer of a
    model that reads no modalities.
    """
    line_of = {line.run: line for line in lines}
    of_cells = {(cell(job.job.point), job.run): job.job.point for job in trials}
    return [replace(line_of[run], point=dict(point)) for (_, run), point in of_cells.items()]


def _present(plan: Plan, options: Options) -> list[Point]:
    points = plan.points()
    absent = {p["dataset"] for p in points if not _there(p["dataset"], options)}
    left = [point for point in points if point["dataset"] not in absent]
    if not points:
        raise ValueError(f"{plan.name}: at least one run must be left, got none; exclude fewer.")
    if absent:
        names = ", ".join(sorted(absent))
        where = f"{options.data_path}/<name>"
        options.say(
            f"{plan.name}: {len(points) - len(left)} runs left out, for {where} is absent: {names}"
        )
    if not left:
        raise ValueError(
            f"{plan.name}: at least one of its data sets must be there, got none; import one with "
            "`recbole-missing import`, or name their folder with --data-path."
        )
    return left


def dataset_folder(dataset: str, data_path: Path) -> Path:
    """Folder of a data set; ``ml-100k`` comes with RecBole."""
    if dataset == "ml-100k":
        return Path(recbole.__file__).parent / "dataset_example" / dataset
    return data_path / dataset


def _there(dataset: str, options: Options) -> bool:
    return dataset_folder(dataset, options.data_path).is_dir()


def _job(
    plan: Plan,
    store: Store,
    options: Options,
    point: Point,
    settings: Mapping[str, Any] | None = None,
    found: Mapping[str, Any] | None = None,
    stage: str = "test",
) -> Job:
    """Job of a point.

    Args:
        plan, store, options: those of the benchmark.
        point: place in the grid.
        settings: settings that a trial tries, or that a search chose.
        found: what the search reports with its choice; None without a search.
        stage: ``test`` or ``search``.
    """
    own = options.data_path / point["dataset"] / f"{point['dataset']}.yaml"
    path = {} if point["dataset"] == "ml-100k" else {"data_path": str(options.data_path)}
    return Job(
        benchmark=plan.name,
        title=plan.title,
        point=point,
        settings={**plan.settings_of(point), **(settings or {}), **path},
        files=[str(own)] if own.is_file() else [],
        stage=stage,
        measures=plan.measures,
        keep=options.keep if stage == "test" else (),
        folder=store.path.with_name(f"{store.path.name}.kept"),
        unfinished=unfinished(store),
        search=found,
        trial=settings if stage == "search" else None,
    )


@dataclass(frozen=True)
class Refused:
    """A job that cannot run or, in a preview, is not looked up, and the message that says why."""

    job: Job
    reason: str
    is_unseen: bool = False

    def __str__(self) -> str:
        """Line of a listing of runs."""
        word = "not looked up" if self.is_unseen else "refused"
        tried = [f"{key}={value}" for key, value in (self.job.trial or {}).items()]
        return " ".join([*_words(self.job.point), *tried, f"({word}: {self.reason})"])

    def as_error(self) -> ValueError:
        """Return the error of a benchmark in which nothing is left to run."""
        where = ", ".join(f"{key} {value}" for key, value in self.job.point.items())
        return ValueError(f"{self.job.benchmark} ({where}): {self.reason}")

    def line(self) -> Line:
        """Line of the store. It is equal as long as the run and the reason are."""
        values = {**self.job.settings, "model": self.job.point["model"]}
        values = json.loads(json.dumps(values, default=str))
        point, stage = dict(self.job.point), self.job.stage
        run = identity.digest([str(point), stage, json.dumps(values, sort_keys=True), self.reason])
        return Identified(self.job, run, values).died(self.reason)


def _recorded(refused: Sequence[Refused], store: Store, options: Options) -> list[Line]:
    """Say what is refused, and write a line for each of them that the store lacks."""
    known = {line.run: line for line in store.lines()} if refused else {}
    lines = []
    for one in refused:
        options.say(f"{one.job.benchmark}: {one}")
        line = one.line()
        if line.run not in known:
            store.append(line)
        lines.append(known.get(line.run, line))
    return lines


def _identified(jobs: list[Job]) -> tuple[list[Identified], list[Refused]]:
    """Find out what decides the result of each job. Jobs of one split are handled together.

    Returns:
        The jobs that can run, and those that are refused, each in their order.

    Raises:
        ValueError: if every job is refused.
    """
    data_sets = DataSets()
    refused: dict[int, Refused] = {}

    def tried(place: int, work: Callable[[Job], Any]) -> Any:
        try:
            return work(jobs[place])
        except registry.NotImportedError:
            reason = "it names code that is not imported yet"
            refused[place] = Refused(jobs[place], reason, is_unseen=True)
            return None
        except ValueError as error:
            refused[place] = Refused(jobs[place], str(error))
            if len(refused) == len(jobs) and not any(one.is_unseen for one in refused.values()):
                raise refused[min(refused)].as_error() from error
            return None

    splits = [tried(n, lambda job: DataSets.split_of(job.config())) for n in range(len(jobs))]
    left = [place for place in range(len(jobs)) if place not in refused]
    found = {}
    for place in sorted(left, key=lambda place: splits.index(splits[place])):
        found[place] = tried(place, lambda job: job.identified(data_sets))
    return (
        [found[place] for place in left if place not in refused],
        [refused[place] for place in sorted(refused)],
    )
