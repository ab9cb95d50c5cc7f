"""Where blocks of work run: one after the other in this process, or on a Ray cluster.

A block is a pure function of what all blocks share and of its own task, so both give equal results.
"""

from __future__ import annotations

import importlib
import pickle
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from tqdm import tqdm

from recbole_missing import environment


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
    ) -> Iterator[Any]:
        """Yield ``function(*shared, task)`` for every task, in order.

        Args:
            function: a function of a module, so that it can travel.
            shared: large read-only arguments, the same for all tasks.
            tasks: small arguments, one a block.
            label: what the bar says.
        """
        for task in tqdm(tasks, label, disable=not self.progress, leave=False):
            yield function(*shared, task)


class Ray:
    """Blocks side by side on a Ray cluster, or on Ray in this machine; the same results in order.

    Shared arguments are put into Ray's object store once; what is a numpy array or a scipy matrix
    in them is read there in place by all workers of a machine, so blocks must not write to it. A
    block is one CPU of Ray's and one thread, so that workers do not fight over cores.

    Args:
        address: of a running cluster (``auto``: the one that this machine belongs to), where this
            package must be installed in the same version. Default: Ray as this process runs it
            already, or else a local one, started with the first block.
        num_cpus: cores of a local Ray that this engine starts; default all.
        progress: show a bar on standard error.

    A Ray that this engine started (or a connection that it made) ends with :meth:`close`, at the
    end of a ``with`` block, or with the process; any other is left alone.
    """

    def __init__(
        self, address: str | None = None, num_cpus: int | None = None, progress: bool = False
    ) -> None:
        """Store the settings; nothing starts yet."""
        self.address = address
        self.num_cpus = num_cpus
        self.progress = progress
        self._started = False

    def map(
        self,
        function: Callable[..., Any],
        shared: tuple[Any, ...],
        tasks: Sequence[Any],
        label: str,
    ) -> Iterator[Any]:
        """Yield what :meth:`Serial.map` yields; at most two blocks a CPU are under way."""
        ray = self._connect()
        remote = ray.remote(num_cpus=1)(_alone)
        stored, under_way = [ray.put(value) for value in shared], deque[Any]()
        room = max(2 * int(ray.cluster_resources().get("CPU", 1)), 1)
        with tqdm(total=len(tasks), desc=label, disable=not self.progress, leave=False) as bar:
            for task in tasks:
                if len(under_way) == room:
                    yield pickle.loads(ray.get(under_way.popleft()))
                    bar.update()
                under_way.append(remote.remote(function, task, *stored))
            while under_way:
                yield pickle.loads(ray.get(under_way.popleft()))
                bar.update()

    def close(self) -> None:
        """End Ray if this engine started it; the next block starts it again."""
        if self._started:
            importlib.import_module("ray").shutdown()
            self._started = False

    def __enter__(self) -> Ray:
        """Return itself, for a ``with`` block."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close."""
        self.close()

    def _connect(self) -> Any:
        ray = importlib.import_module("ray")  # takes a second, and only this class needs it
        if not ray.is_initialized():
            if self.address:
                ray.init(address=self.address)
            else:
                with environment.of_workers(threads=1):
                    ray.init(address="local", num_cpus=self.num_cpus, include_dashboard=False)
            self._started = True
        return ray


def _alone(function: Callable[..., Any], task: Any, *shared: Any) -> bytes:
    """Run a block; as bytes, so that its arrays are writable and leave the object store."""
    torch.set_num_threads(1)
    return pickle.dumps(function(*shared, task))
