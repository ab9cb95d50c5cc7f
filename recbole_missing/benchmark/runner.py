"""Do what a plan asks for and a store lacks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recbole_missing.benchmark import search
from recbole_missing.benchmark.job import ELSEWHERE, Identified, Job, Line
from recbole_missing.benchmark.names import dataset_folder
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
    points = _present(plan, options)
    chosen: Mapping[str, Any] = {}
    if plan.search:
        jobs = _trials(plan, store, points, options)
        chosen = search.choose(_settle(jobs, store, workers, options))
    jobs = [_job(plan, store, options, p, **chosen.get(cell(p), {})) for p in points]
    return _settle(jobs, store, workers, options)


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
        board = _Board(jobs, store, [])
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


def _settle(jobs: list[Identified], store: Store, workers: Any, options: Options) -> list[Line]:
    """Bring every job to a line, by running it, or by waiting for who runs it."""
    _check_distinct(jobs)
    ignored = [line for line in store.lines() if line["status"] == "failed"]
    board = _Board(jobs, store, ignored if options.retry_failed else [])
    progress = Progress(jobs[0].job, workers, options.say)
    progress.begin(board)
    waiting = False
    while board.refresh():
        claims = _Claims(board)
        try:
            for job, line in workers.run(claims):
                store.append(line)
                claims.release(job)
                progress.ended(line, board)
        finally:
            claims.close()
        if not claims.made and board.refresh():
            if not waiting:
                options.say(f"waiting for {len(board.left)} runs that another process has begun")
            waiting = True
            time.sleep(_PATIENCE)
    return [board.lines[job.run] for job in jobs]


def _check_distinct(jobs: list[Identified]) -> None:
    known: dict[str, Identified] = {}
    for job in jobs:
        twin = known.setdefault(job.run, job)
        if twin is not job:
            both = " and ".join(str(dict(one.job.point)) for one in (twin, job))
            raise ValueError(
                f"{job.job.benchmark}: two points must not be one run, got {both}; exclude one."
            )


class _Board:
    """Jobs, and the lines of those that are settled: done, or failed and not to be repeated."""

    def __init__(self, jobs: list[Identified], store: Store, ignored: list[Line]) -> None:
        self.jobs, self.store = jobs, store
        self.lines: dict[str, Line] = {}
        self._ignored = ignored  # failures that are to be repeated

    @property
    def left(self) -> list[Identified]:
        """Jobs that are not settled."""
        return [job for job in self.jobs if job.run not in self.lines]

    def look(self) -> dict[str, Line]:
        """Note what is settled; return lines that only stand at another place, by run."""
        found: dict[str, list[Line]] = {}
        for line in self.store.lines():
            found.setdefault(line["run"], []).append(line)
        elsewhere = {}
        for job in self.left:
            lines = found.get(job.run, [])
            answers = [line for line in lines if job.is_answered_by(line)]
            own = [line for line in answers if job.owns(line)]
            failed = [line for line in lines if self._is_final(line, job)]
            if own:
                self.lines[job.run] = own[-1]
            elif answers:
                elsewhere[job.run] = answers[-1]
            elif failed and lines[-1]["status"] == "failed":
                self.lines[job.run] = failed[-1]
        return elsewhere

    def refresh(self) -> bool:
        """Look into the store; tell whether something is left.

        A run that stands there under another benchmark, or elsewhere in the grid, gets a line of
        its own, unless another process is about to write it.
        """
        elsewhere = self.look()
        for job in [job for job in self.left if job.run in elsewhere]:
            lock = self.store.claim(job.run)
            if lock is None:
                continue
            if job.run in self.look():
                self.lines[job.run] = job.adopted(elsewhere[job.run])
                self.store.append(self.lines[job.run])
            self.store.release(lock)
        return bool(self.left)

    def _is_final(self, line: Line, job: Identified) -> bool:
        failed = line["status"] == "failed" and line["benchmark"] == job.job.benchmark
        return failed and line not in self._ignored


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
            elsewhere = self._board.look()  # it may have ended between the list and the claim
            if job.run not in self._board.lines and job.run not in elsewhere:
                self.made += 1
                return job
            self.release(job)
        raise StopIteration

    def release(self, job: Identified) -> None:
        """Give a claim back."""
        self._board.store.release(self._locks.pop(job.run))

    def close(self) -> None:
        """Give all claims back."""
        while self._locks:
            self._board.store.release(self._locks.popitem()[1])
