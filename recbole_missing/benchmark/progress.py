"""Messages on the progress of a benchmark and on the time that is left."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from statistics import mean
from typing import Any

from recbole_missing.benchmark.line import Line


class Progress:
    """Prints how many runs are left, and estimates how long they take.

    The estimate for a run is the mean over finished runs of the same model and data set. If there
    are none, it is the mean over the runs of the same model, and else over all runs.

    Args:
        job: any job of the benchmark.
        workers: where the runs take place; ``workers.count`` runs take place side by side.
        say: called with each message.
    """

    def __init__(self, job: Any, workers: Any, say: Callable[[str], None]) -> None:
        """Store the arguments."""
        trials = " (search)" if job.stage == "search" else ""
        self._name = f"{job.benchmark}{trials}"
        self._workers, self._say = workers, say
        self._seconds: dict[Any, list[float]] = defaultdict(list)

    def begin(self, board: Any) -> None:
        """Print how many runs the store already holds."""
        board.refresh()
        lines = list(board.lines.values())
        for line in lines:
            self._note(line)
        failed = sum(not line.done for line in lines)
        text = f"{self._name}: {len(board.jobs)} runs, {len(lines) - failed} done"
        text += f", {failed} failed before (repeat them with --retry-failed)" if failed else ""
        self._say(f"{text}, {len(board.left)} to do{self._estimate(board)}")

    def ended(self, line: Line, board: Any) -> None:
        """Print the outcome of a run."""
        self._note(line)
        board.refresh()
        where = " ".join(f"{key}={value}" for key, value in line.point.items())
        if not line.done:
            outcome = f"FAILED: {line.error}"
        else:
            values = line.test or line.valid or {}
            known = [(key, value) for key, value in values.items() if value is not None]
            outcome = ", ".join(f"{key} {value:.4f}" for key, value in known[:6])
        number = f"{len(board.lines)}/{len(board.jobs)}"
        seconds = line.cost["seconds"] or 0.0
        self._say(f"[{number}] {where}: {outcome} ({_span(seconds)}){self._estimate(board)}")

    def _note(self, line: Line) -> None:
        if line.done:
            point, seconds = line.point, line.cost["seconds"]
            for kind in ((point["model"], point["dataset"]), point["model"], None):
                self._seconds[kind].append(seconds)

    def _estimate(self, board: Any) -> str:
        """Text with the remaining time; empty until one run is done."""
        if not self._seconds[None] or not board.left:
            return ""
        total = 0.0
        for job in board.left:
            model, dataset = job.job.point["model"], job.job.point["dataset"]
            kinds = ((model, dataset), model, None)
            total += mean(next(self._seconds[kind] for kind in kinds if self._seconds[kind]))
        workers = min(self._workers.count, len(board.left))
        return f"; about {_span(total / workers)} left"


def _span(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"
