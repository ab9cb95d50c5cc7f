"""Do what a plan asks for and a store lacks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import recbole

from recbole_missing.benchmark import search
from recbole_missing.benchmark.job import ELSEWHERE, Identified, Job, Line
from recbole_missing.benchmark.plan import Plan, Point, cell
from recbole_missing.benchmark.settle import Board, settle
from recbole_missing.benchmark.store import Store


@dataclass(frozen=True)
class Options:
    """How a benchmark is run.

    Args:
        keep: names of :data:`.job.KEEP`.
        retry_failed: run failed runs again.
        data_path: folder of the data set folders.
        say: takes each line of progress.
    """

    keep: Sequence[str] = ()
    retry_failed: bool = False
    data_path: Path = Path("dataset")
    say: Callable[[str], None] = print


def run(plan: Plan, store: Store, workers: Any, options: Options) -> list[Line]:
    """Run a plan: first its search, if it has one, then what is to be tested.

    Args:
        plan: what to run; data sets that are not there are left out, and said so.
        store: where finished runs are looked up and written to.
        workers: one of :mod:`.workers`.
        options: the rest.

    Returns:
        The lines of the plan's points, failed ones among them.

    Raises:
        ValueError: before anything runs, for settings that are refused, or if no data set is there.
    """
    points = _present(plan, options)
    chosen: Mapping[str, Any] = {}
    if plan.search:
        jobs = _trials(plan, store, points, options)
        chosen = search.choose(settle(jobs, store, workers, options.say, options.retry_failed))
    jobs = [_job(plan, store, options, p, **chosen.get(cell(p), {})) for p in points]
    return settle(jobs, store, workers, options.say, options.retry_failed)


def preview(plan: Plan, store: Store, options: Options) -> list[str]:
    """One line a run: its place in the grid, and whether the store has it; nothing is run.

    Of a plan with a search these are its trials, and the runs that will take what they choose.

    Raises:
        ValueError: as :func:`run`.
    """
    points = _present(plan, options)
    trials = _trials(plan, store, points, options) if plan.search else []
    tests = [_job(plan, store, options, point) for point in points]
    lines = []
    for jobs in (trials, [] if trials else tests):
        board = Board(jobs, store, [])
        board.look()
        for job in jobs:
            state = board.lines.get(job.run, {"status": "to do"})["status"]
            tried = [f"{key}={value}" for key, value in (job.job.trial or {}).items()]
            lines.append(" ".join([*_words(job.job.point), *tried, f"({state})"]))
    if trials:
        lines += [" ".join([*_words(job.job.point), "(after the search)"]) for job in tests]
    return lines


def _words(point: Mapping[str, Any]) -> list[str]:
    return [f"{key}={value}" for key, value in point.items()]


def _trials(plan: Plan, store: Store, points: list[Point], options: Options) -> list[Identified]:
    jobs = [
        _job(plan, store, options, point, settings, stage="search")
        for point, settings in search.trials(plan, points)
    ]
    return list({job.run: job for job in jobs}.values())  # a draw may come twice


def _present(plan: Plan, options: Options) -> list[Point]:
    for axis in plan.grid:
        if axis in ELSEWHERE:
            raise ValueError(f"{plan.name}: {axis} must not be an axis, it decides no result.")
    points = plan.points()
    absent = {p["dataset"] for p in points if not _there(p["dataset"], options)}
    left = [point for point in points if point["dataset"] not in absent]
    if not points:
        raise ValueError(f"{plan.name}: at least one run must be left, got none; name fewer.")
    if absent:
        names = ", ".join(sorted(absent))
        where = f"{options.data_path}/<name>"
        options.say(
            f"{plan.name}: {len(points) - len(left)} runs left out, for {where} is absent: {names}"
        )
    if not left:
        raise ValueError(
            f"{plan.name}: at least one of its data sets must be there, got none; bring one with "
            "`recbole-missing import`, or name the folder with --data-path."
        )
    return left


def dataset_folder(dataset: str, data_path: Path) -> Path:
    """Where a data set lies; ``ml-100k`` comes with RecBole."""
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
) -> Identified:
    """Job of a point; ``settings`` are tried (stage search), or were ``found`` by a search."""
    own = options.data_path / point["dataset"] / f"{point['dataset']}.yaml"
    path = {} if point["dataset"] == "ml-100k" else {"data_path": str(options.data_path)}
    job = Job(
        benchmark=plan.name,
        title=plan.title,
        point=point,
        settings={**plan.settings_of(point), **(settings or {}), **path},
        files=[str(own)] if own.is_file() else [],
        stage=stage,
        measures=plan.measures,
        keep=options.keep if stage == "test" else (),
        folder=store.path.with_name(f"{store.path.name}.kept"),
        search=found,
        trial=settings if stage == "search" else None,
    )
    try:
        return job.identified()
    except ValueError as error:
        where = ", ".join(f"{key} {value}" for key, value in point.items())
        raise ValueError(f"{plan.name} ({where}): {error}") from error
