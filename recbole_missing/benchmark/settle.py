"""Which runs a store still lacks, who runs them, and the wait until all of them have a line."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import reduce
from typing import Any

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
) -> list[Line]:
    """Bring every job to a line, by running it, or by waiting for who runs it.

    Args:
        jobs: runs of one benchmark, each another one.
        store: where finished runs are looked up and written to.
        workers: one of :mod:`.workers`.
        say: takes each line of progress.
        retry_failed: run failed runs again.

    Returns:
        The lines of the jobs, in their order.

    Raises:
        ValueError: if two jobs are the same run.
    """
    _check_distinct(jobs)
    ignored = [line for line in store.lines() if line["status"] == "failed"]
    board = Board(jobs, store, ignored if retry_failed else [])
    progress = Progress(jobs[0].job, workers, say)
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
                say(f"waiting for {len(board.left)} runs that another process has begun")
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


class Board:
    """Jobs, and the lines of those that are settled: done, or failed and not to be repeated.

    Args:
        jobs: all of them.
        store: where their lines are.
        ignored: failures that are to be repeated.

    Attributes:
        lines: run -> line of every job that is settled.
    """

    def __init__(self, jobs: list[Identified], store: Store, ignored: list[Line]) -> None:
        """Store the arguments; nothing is read yet."""
        self.jobs, self.store = jobs, store
        self.lines: dict[str, Line] = {}
        self._ignored = ignored

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
                self.lines[job.run] = reduce(better, own)
            elif answers:
                elsewhere[job.run] = reduce(better, answers)
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
