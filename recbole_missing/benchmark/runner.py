"""Run everything that a plan asks for and that the store does not hold yet."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import recbole

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

    Returns:
        The lines of the tested runs, failed ones included.

    Raises:
        ValueError: before the first run, if a setting is wrong or all data sets are absent.
    """
    points = _present(plan, options)
    again = {"retry_failed": options.retry_failed, "rerun_changed": options.rerun_changed}
    chosen: Mapping[str, Any] = {}
    if plan.search:
        jobs = _trials(plan, store, points, options)
        chosen = search.choose(settle(jobs, store, workers, options.say, **again))
    jobs = _identified([_job(plan, store, options, p, **chosen.get(cell(p), {})) for p in points])
    jobs = distinct(jobs, options.say)
    return settle(jobs, store, workers, options.say, **again)


def preview(plan: Plan, store: Store, options: Options) -> list[str]:
    """List the runs of a plan and their states, without running anything.

    If the plan has a search, the trials are listed first, and then the runs that will use the
    chosen settings.

    Returns:
        One text for each run, and remarks on runs that other code made.

    Raises:
        ValueError: as :func:`run`.
    """
    points = _present(plan, options)
    jobs = [_job(plan, store, options, point) for point in points]
    if plan.search:
        planned = _trials(plan, store, points, options)
        after = [" ".join([*_words(job.point), "(after the search)"]) for job in jobs]
    else:
        planned, after = distinct(_identified(jobs), options.say), []
    board = Board(planned, store)
    board.look()
    lines = []
    for job in planned:
        state = board.lines.get(job.run, {"status": "to do"})["status"]
        tried = [f"{key}={value}" for key, value in (job.job.trial or {}).items()]
        lines.append(" ".join([*_words(job.job.point), *tried, f"({state})"]))
    return [*lines, *after, *board.remarks()]


def _words(point: Mapping[str, Any]) -> list[str]:
    return [f"{key}={value}" for key, value in point.items()]


def _trials(plan: Plan, store: Store, points: list[Point], options: Options) -> list[Identified]:
    jobs = _identified(
        [
            _job(plan, store, options, point, settings, stage="search")
            for point, settings in search.trials(plan, points)
        ]
    )
    return list({job.run: job for job in jobs}.values())  # settings may be drawn twice


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


def _identified(jobs: list[Job]) -> list[Identified]:
    """Find out what decides the result of each job. Jobs of one split are handled together."""
    data_sets = DataSets()
    splits = [_refusable(job, lambda job=job: DataSets.split_of(job.config())) for job in jobs]
    found: dict[int, Identified] = {}
    for place in sorted(range(len(jobs)), key=lambda place: splits.index(splits[place])):
        job = jobs[place]
        found[place] = _refusable(job, lambda job=job: job.identified(data_sets))
    return [found[place] for place in range(len(jobs))]


def _refusable(job: Job, work: Callable[[], Any]) -> Any:
    """Do some work on a job. An error message gets the place of the job in the grid."""
    try:
        return work()
    except ValueError as error:
        where = ", ".join(f"{key} {value}" for key, value in job.point.items())
        raise ValueError(f"{job.benchmark} ({where}): {error}") from error
