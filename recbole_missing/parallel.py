"""Where blocks of work run: one after the other in this process, or side by side on Ray.

A block is a pure function of what all blocks share and of its own task. So it does not matter
where it runs: both engines give equal results.
"""

from __future__ import annotations

import os
import pickle
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from recbole_missing import lazy

_BLOCK_ENTRIES = 2**17
"""Entries of a dense block of columns: 1 MB of float64, so that products find it in the cache."""


class Serial:
    """Blocks one after the other, in this process; torch and scipy use its threads.

    Args:
        progress: show a bar on standard error.
        delay: seconds after which it appears, so that short work shows none.
    """

    def __init__(self, progress: bool = False, delay: float = 0.0) -> None:
        """Store whether and when to show a bar."""
        self.progress, self.delay = progress, delay

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
        bar = {"disable": not self.progress, "leave": False, "delay": self.delay}
        for task in tqdm(tasks, label, **bar):
            yield function(*shared, task)


SERIAL = Serial()
"""The engine that everything uses unless another one is given."""


class Ray:
    """Blocks side by side on a Ray cluster, or on Ray in this machine; results come in order.

    Shared arguments are put into Ray's object store once. Numpy arrays and scipy matrices are read
    there in place by all workers of a machine, so a block must not write to them. A block takes
    one CPU and one thread.

    Args:
        address: address of a running cluster, on whose machines the same version of this package
            must be installed; ``auto`` means the cluster that this machine belongs to. Default:
            the Ray that this process already uses; if there is none, a local Ray is started with
            the first block.
        num_cpus: cores of a local Ray that this engine starts; default all.
        progress: show a bar on standard error.

    A Ray that this engine started (or a connection that it made) ends with :meth:`close`, at the
    end of a ``with`` block, or with the process. A Ray that somebody else started keeps running.
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
            lazy.load("ray").shutdown()
            self._started = False

    def __enter__(self) -> Ray:
        """Return itself, for a ``with`` block."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close."""
        self.close()

    def _connect(self) -> Any:
        ray = lazy.load("ray")  # takes a second, and only this class needs it
        if not ray.is_initialized():
            start_ray(self.address or "local", threads=1, num_cpus=self.num_cpus)
            self._started = True
        return ray


def start_ray(address: str, threads: int, num_cpus: int | None = None, **options: Any) -> Any:
    """Connect this process to a Ray cluster, or start Ray on this machine; return the module.

    Args:
        address: of the cluster; ``local`` starts Ray on this machine.
        threads: of the numerical libraries in each worker of a local Ray.
        num_cpus: cores of a local Ray; default all.
        options: further arguments of ``ray.init``.
    """
    ray = lazy.load("ray")
    if address == "local":
        options.update(num_cpus=num_cpus, include_dashboard=False)
    with worker_environment(threads):
        ray.init(address=address, **options)
    return ray


def column_blocks(n_columns: int, n_rows: int) -> list[tuple[int, int]]:
    """Split the columns of a dense matrix into ranges of about 1 MB, at least 16 columns each."""
    width = max(16, min(256, _BLOCK_ENTRIES // max(1, n_rows)))
    return [(start, min(start + width, n_columns)) for start in range(0, n_columns, width)]


@contextmanager
def worker_environment(threads: int) -> Iterator[None]:
    """Set what processes started inside the ``with`` block inherit.

    They find the same modules as this process, and their numerical libraries use ``threads``
    threads. Afterwards the environment is as it was.
    """
    paths = os.pathsep.join(path or str(Path.cwd()) for path in sys.path)
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    inherited = {"PYTHONPATH": paths, **dict.fromkeys(names, str(threads))}
    before = {name: os.environ.get(name) for name in inherited}
    os.environ.update(inherited)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _alone(function: Callable[..., Any], task: Any, *shared: Any) -> bytes:
    """Run a block; as bytes, so that its arrays are writable and leave the object store."""
    torch.set_num_threads(1)
    return pickle.dumps(function(*shared, task))
