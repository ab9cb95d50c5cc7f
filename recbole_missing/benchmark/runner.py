"""Do what a plan asks for and a store lacks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recbole_missing.benchmark.job import Identified, Job, Line, dataset_folder
from recbole_missing.benchmark.plan import Plan, Point, cell
from recbole_missing.benchmark.progress import Progress
from recbole_missing.benchmark.store import Store

_PATIENCE = 2.0  # seconds between two looks at what another process is doing


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
    from recbole_missing.benchmark import search

    points = _present(plan, options)
    chosen: Mapping[Any, Any] = {}
    if plan.search:
        trials = search.trials(plan, points)
        jobs = [_job(plan, store, options, *trial, stage="search") for trial in trials]
        chosen = search.choose(_settle(jobs, store, workers, options))
    jobs = [_job(plan, store, options, p, **chosen.get(cell(p), {})) for p in points]
    return _settle(jobs, store, workers, options)


def _present(plan: Plan, options: Options) -> list[Point]:
    points = plan.points()
    absent = {p["dataset"] for p in points if not _there(p["dataset"], options)}
    left = [point for point in points if point["dataset"] not in absent]
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


def _there(dataset: str, options: Options) -> bool:
    return dataset_folder(dataset, options.data_path).is_dir()


def _job(
    plan: Plan,
    store: Store,
    options: Options,
    point: Point,
    settings: Mapping[str, Any] | None = None,
    search: Mapping[str, Any] | None = None,
    stage: str = "test",
) -> Identified:
    """Job of a point; ``settings`` are tried (stage search), or were chosen by a ``search``."""
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
        search=search,
        trial=settings if stage == "search" else None,
    )
    try:
        return job.identified()
    except ValueError as error:
        where = ", ".join(f"{key} {value}" for key, value in point.items())
        raise ValueError(f"{plan.name} ({where}): {error}") from error


def _settle(jobs: list[Identified], store: Store, workers: Any, options: Options) -> list[Line]:
    """Bring every job to a line, by running it, or by waiting for who runs it."""
    jobs = list({job.run: job for job in jobs}.values())
    ignored = [line for line in store.lines() if line["status"] == "failed"]
    board = _Board(jobs, store, ignored if options.retry_failed else [])
    progress = Progress(jobs[0].job, workers, options.say)
    progress.begin(board)
    waiting = False
    while board.refresh():
        claims = _Claims(board)
        for job, line in workers.run(claims):
            store.append(line)
            claims.release(job)
            progress.ended(line, board)
        if not claims.made and board.refresh():
            if not waiting:
                options.say(f"waiting for {len(board.left)} runs that another process has begun")
            waiting = True
            time.sleep(_PATIENCE)
    return [board.lines[job.run] for job in jobs]


class _Board:
    """Jobs, and the lines of those that are settled: done, or failed and not to be repeated."""

    def __init__(self, jobs: list[Identified], store: Store, ignored: list[Line]) -> None:
        self.jobs, self.store = jobs, store
        self.lines: dict[str, Line] = {}
        self._ignored = ignored  # failures that are to be repeated
        self._benchmark = jobs[0].job.benchmark

    @property
    def left(self) -> list[Identified]:
        """Jobs that are not settled."""
        return [job for job in self.jobs if job.run not in self.lines]

    def refresh(self) -> bool:
        """Look into the store; tell whether something is left."""
        own, others = {}, {}
        for line in self.store.lines():
            (own if line["benchmark"] == self._benchmark else others)[line["run"]] = line
        for job in self.left:
            line, other = own.get(job.run), others.get(job.run)
            if line is not None and self._settles(line, job):
                self.lines[job.run] = line
            elif other is not None and job.is_answered_by(other):
                self.lines[job.run] = job.adopted(other)
                self.store.append(self.lines[job.run])
        return bool(self.left)

    def _settles(self, line: Line, job: Identified) -> bool:
        if line["status"] == "failed":
            return line not in self._ignored
        return job.is_answered_by(line)


class _Claims(Iterator[Identified]):
    """Jobs that nobody else has begun, one at a time, reserved for this process."""

    def __init__(self, board: _Board) -> None:
        self.made = 0
        self._board, self._waiting = board, iter(board.left)
        self._locks: dict[str, Any] = {}

    def __next__(self) -> Identified:
        for job in self._waiting:
            lock = self._board.store.claim(job.run)
            if lock is None:
                continue
            self._locks[job.run] = lock
            self._board.refresh()  # it may have ended between the list and the claim
            if job.run not in self._board.lines:
                self.made += 1
                return job
            self.release(job)
        raise StopIteration

    def release(self, job: Identified) -> None:
        """Give a claim back."""
        self._board.store.release(self._locks.pop(job.run))
