"""Where blocks of work run: one after the other in this process, or on a Ray cluster.

A block is a pure function of what all blocks share and of its own task, so both give equal results.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from tqdm import tqdm


class Serial:
    """Blocks one after the other, in this process; torch and scipy use its threads.

    Args:
        progress: show a bar on standard error.
    """

    def __init__(self, progress: bool = False) -> None:
        """Store whether to show a bar."""
        self.progress = progress

    def map(
        self,
        function: Callable[..., Any],
        shared: tuple[Any, ...],
        tasks: Sequence[Any],
        label: str,
    ) -> Iterable[Any]:
        """Yield ``function(*shared, task)`` for every task, in order.

        Args:
            function: a function of a module, so that it can travel.
            shared: large read-only arguments, the same for all tasks.
            tasks: small arguments, one a block.
            label: what the bar says.
        """
        for task in tqdm(tasks, label, disable=not self.progress, leave=False):
            yield function(*shared, task)
