"""Run the jobs that a store does not hold yet, until every job has a line.

Several processes may work on one store. Each reserves a job before it runs it, and waits at the end
for the jobs that other processes run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import reduce
from pathlib import Path
from typing import Any

from recbole_missing import resume as resuming
from recbole_missing.atomic import check_no_link
from recbole_missing.benchmark.job import Identified
from recbole_missing.benchmark.line import Line, better
from recbole_missing.benchmark.progress import Progress
from recbole_missing.benchmark.store import Store

_PATIENCE = 2.0  # seconds between two looks at what another process is doing


def settle(
    jobs: list[Identified],
    store: Store,
    workers: Any,
    say: Callable[[str], None],
    retry_failed: bool = False,
    rerun_changed: bool = False,
) -> list[Line]:
    """Get a line for every job: from the store, by running it, or from another process.

    Args:
        jobs: different runs of one benchmark.
        store: finished runs are looked up here, and new ones are written here.
        workers: one of the classes of :mod:`.workers`.
        say: called with each message.
        retry_failed: run failed runs again.
        rerun_changed: run again what was made by other code than the present one.

    Returns:
        The lines of the jobs, in their order.

    Raises:
        ValueError: if a symbolic link is in the place of a file or folder beside the store.
    """
    if not jobs:
        return []
    sources = {job.run: job.source for job in jobs}

    def repeated(line: Line) -> bool:
        changed = rerun_changed and line.source != sources.get(line.run)
        return changed or (retry_failed and not line.done)

    done = {line.run for line in store.lines() if line.done and not repeated(line)}
    check_no_link(unfinished(store))
    resuming.remove_leftovers(unfinished(store), done.__contains__)
    board = Board(jobs, store, repeated)
    progress = Progress(jobs[0].job, workers, say)
    progress.begin(board)
    for remark in board.remarks():
        say(remark)
    waiting = False
    while board.refresh():
        claims = _Claims(board)
        try:
            for job, line in workers.run(claims):
                store.append(line)
                if line.done:
                    job.forget()
                claims.release(job)
                progress.ended(line, board)
        finally:
            claims.close()
        if not claims.made and board.refresh():
            if not waiting:
                say(f"waiting for {len(board.left)} runs that another process has begun")
            waiting = True
            time.sleep(_PATIENCE)
    return [board.lines[job.run] for job in jobs]


def unfinished(store: Store) -> Path:
    """Folder beside a store with the checkpoints of its runs that have begun."""
    return store.path.with_name(f".{store.path.name}.unfinished")


def distinct(jobs: list[Identified], say: Callable[[str], None]) -> list[Identified]:
    """Leave out jobs that are the same run as an earlier one, and print a message.

    Two points are the same run if they differ only in settings that have no effect. Examples are
    the imputer of a model that reads no modalities, and the seed of a mask that hides nothing.

    Raises:
        ValueError: if an axis has no effect on any run.
    """
    first: dict[str, Identified] = {}
    for job in jobs:
        first.setdefault(job.run, job)
    if len(first) == len(jobs):
        return jobs
    name, points = jobs[0].job.benchmark, [job.job.point for job in jobs]
    for axis in points[0]:
        others = {str([v for key, v in point.items() if key != axis]) for point in points}
        unread = all(axis not in job.config for job in jobs)
        if unread and len(others) == len(first) and len({str(p[axis]) for p in points}) > 1:
            raise ValueError(
                f"{name}: {axis} must not be an axis, it decides no result of these runs; drop it, "
                "or choose one of its values with --only."
            )
    left_out = [job for job in jobs if first[job.run] is not job]
    words = [" ".join(f"{k}={v}" for k, v in job.job.point.items()) for job in left_out[:3]]
    say(
        f"{name}: {len(left_out)} of {len(jobs)} points are the same run as an earlier one, and "
        f"are left out: {', '.join(words)}{', ...' if len(left_out) > 3 else ''}"
    )
    return list(first.values())


class Board:
    """Keeps account of the jobs that are settled.

    A job is settled if it has a line that is done, or one that failed and is not to be repeated.

    Args:
        jobs: all jobs.
        store: the store with their lines.
        repeated: tells for a line of the store whether its run is to be repeated. Default: no run
            is repeated.

    Attributes:
        lines: run -> line, for every settled job.
    """

    def __init__(
        self, jobs: list[Identified], store: Store, repeated: Callable[[Line], bool] | None = None
    ) -> None:
        """Note which lines of the store are ignored."""
        self.jobs, self.store = jobs, store
        self.lines: dict[str, Line] = {}
        # Lines are only appended, so the place of a line identifies it.
        lines = store.lines() if repeated else []
        self._ignored = {place for place, line in enumerate(lines) if repeated and repeated(line)}

    @property
    def left(self) -> list[Identified]:
        """Jobs that are not settled."""
        return [job for job in self.jobs if job.run not in self.lines]

    def look(self) -> dict[str, Line]:
        """Read the store and note which jobs are settled.

        Returns:
            Run -> line, for jobs that have a line only at another place of a grid.
        """
        found: dict[str, list[Line]] = {}
        for place, line in enumerate(self.store.lines()):
            if place not in self._ignored:
                found.setdefault(line.run, []).append(line)
        elsewhere = {}
        for job in self.left:
            lines = found.get(job.run, [])
            answers = [line for line in lines if job.is_answered_by(line)]
            own = [line for line in answers if job.owns(line)]
            failed = [line for line in lines if self._is_final(line, job)]
            if own:
                self.lines[job.run] = reduce(better, own)
            elif answers:
                elsewhere[job.run] = reduce(better, answers)
            elif failed and lines[-1]["status"] == "failed":
                self.lines[job.run] = failed[-1]
        return elsewhere

    def refresh(self) -> bool:
        """Read the store again, and tell whether a job is left.

        If the store has the run of a job at another place of a grid, its line is copied to the
        place of the job. If another process has reserved the run, nothing is copied.
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

    def remarks(self) -> list[str]:
        """Sentences on the settled runs that were made by other code; empty if there are none."""
        lines = [(self.lines[job.run], job) for job in self.jobs if job.run in self.lines]
        sources = [(line.get("source"), job.source) for line, job in lines]
        other = sum(made is not None and made != now for made, now in sources)
        unknown = sum(made is None for made, _ in sources)
        counts = [(other, "other code than this"), (unknown, "code that was not recorded")]
        made = [f"{n} of {len(lines)} runs {_was(n)} made by {code}" for n, code in counts if n]
        if not made:
            return []
        them = "it" if other + unknown == 1 else "them"
        name = self.jobs[0].job.benchmark
        return [f"{name}: {'; '.join(made)}; --rerun-changed makes {them} again"]

    def _is_final(self, line: Line, job: Identified) -> bool:
        return line["status"] == "failed" and line["benchmark"] == job.job.benchmark


def _was(count: int) -> str:
    return "was" if count == 1 else "were"


class _Claims(Iterator[Identified]):
    """Reserves one job after the other for this process, except those of other processes."""

    def __init__(self, board: Board) -> None:
        self.made = 0
        self._board, self._waiting = board, iter(board.left)
        self._locks: dict[str, Any] = {}

    def __next__(self) -> Identified:
        for job in self._waiting:
            lock = self._board.store.claim(job.run)
            if lock is None:
                continue
            self._locks[job.run] = lock
            elsewhere = self._board.look()  # another process may have ended it before this claim
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
