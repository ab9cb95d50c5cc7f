"""Where runs take place: in this process, in processes of their own, or on a Ray cluster.

Each of them takes jobs when it has room for one and yields every job with its line; equal jobs give
equal lines wherever they run.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing import connection
from pathlib import Path
from threading import Thread
from typing import Any

import torch

from recbole_missing.benchmark.job import Identified, Line
from recbole_missing.parallel import worker_environment

Jobs = Iterator[Identified]
Done = Iterator[tuple[Identified, Line]]


class Here:
    """One run after the other in this process.

    Args:
        threads: of torch's; default: as many as it has.
    """

    count = 1

    def __init__(self, threads: int | None = None) -> None:
        """Set the number of threads."""
        if threads:
            torch.set_num_threads(threads)

    def run(self, jobs: Jobs) -> Done:
        """Yield every job with its line."""
        for job in jobs:
            yield job, job.execute()


class Processes:
    """Up to ``count`` runs side by side, each in a fresh process of this machine.

    A process that dies (for want of memory, say) fails its run alone. All end with this process.
    On a machine with several GPUs every process has one of its own, as far as they go, unless the
    benchmark sets ``gpu_id``.

    Args:
        count: most processes at a time.
        threads: of each; default: this machine's cores shared out, at least one.
    """

    def __init__(self, count: int, threads: int | None = None) -> None:
        """Store the numbers; nothing starts yet."""
        self.count = count
        self.threads = threads or max(1, (os.cpu_count() or 1) // count)
        self.n_gpus = torch.cuda.device_count()  # before a config hides some from this process

    def run(self, jobs: Jobs) -> Done:
        """Yield every job with its line, in the order in which they end."""
        running: dict[Any, tuple[Any, Identified, int]] = {}
        try:
            yield from self._run(jobs, running)
        finally:
            for process, *_ in running.values():
                process.terminate()

    def _run(self, jobs: Jobs, running: dict[Any, tuple[Any, Identified, int]]) -> Done:
        exhausted, places = False, list(range(self.count))
        while True:
            while places and not exhausted:
                job = next(jobs, None)
                exhausted = job is None
                if job is not None:
                    place = places.pop(0)
                    receiver, process = self._start(self.placed(job, place))
                    running[receiver] = (process, job, place)
            if not running:
                return
            for receiver in connection.wait(list(running)):
                process, job, place = running.pop(receiver)
                places.append(place)
                yield job, _received(receiver, process, job)

    def placed(self, job: Identified, place: int) -> Identified:
        """Give the job the GPU of its place."""
        if self.n_gpus < 2 or "gpu_id" in job.job.settings:
            return job
        settings = {**job.job.settings, "gpu_id": str(place % self.n_gpus)}
        return replace(job, job=replace(job.job, settings=settings))

    def _start(self, job: Identified) -> tuple[Any, Any]:
        context = multiprocessing.get_context("spawn")
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(
            target=_in_process, args=(job, self.threads, sender), name=job.run
        )  # no daemon: dataloaders may have workers
        with worker_environment(self.threads):
            process.start()
        sender.close()  # so that the end of the process is the end of the pipe
        return receiver, process


class Ray:
    """Runs on the machines of a Ray cluster, which see this folder and have this package.

    Args:
        address: of the cluster; ``auto`` is the one that this machine belongs to, ``local`` one of
            this machine alone, which ends with the benchmark.
        threads: CPUs of Ray's that a run takes, and its threads.
    """

    def __init__(self, address: str, threads: int | None = None) -> None:
        """Store the arguments; nothing starts yet."""
        self.address = address
        self.threads = threads or 1
        self.count = 1

    def run(self, jobs: Jobs) -> Done:
        """Yield every job with its line, in the order in which they end."""
        ray = importlib.import_module("ray")
        with worker_environment(self.threads):
            options = {"include_dashboard": False} if self.address == "local" else {}
            ray.init(address=self.address, log_to_driver=False, **options)
        try:
            yield from self._run(ray, jobs)
        finally:
            ray.shutdown()

    def _run(self, ray: Any, jobs: Jobs) -> Done:
        most = max(node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"])
        if self.threads > most:
            raise ValueError(
                f"--threads: must be at most the CPUs of Ray's largest machine ({most:.0f}), got "
                f"{self.threads}; lower it."
            )
        self.count = max(1, int(ray.cluster_resources()["CPU"]) // self.threads)
        gpus = min(1.0, ray.cluster_resources().get("GPU", 0) / self.count)
        # A worker takes one run and ends: its peak of memory is its own.
        remote = ray.remote(num_cpus=self.threads, num_gpus=gpus, max_retries=0, max_calls=1)(
            _on_cluster
        )
        running: dict[Any, Identified] = {}
        exhausted = False
        while True:
            while len(running) < self.count and not exhausted:
                job = next(jobs, None)
                exhausted = job is None
                if job is not None:
                    running[remote.remote(job, self.threads, str(Path.cwd()))] = job
            if not running:
                return
            (ended, *_), _rest = ray.wait(list(running))
            job = running.pop(ended)
            try:
                line = ray.get(ended)
            except ray.exceptions.RayError as error:
                reason = str(error).strip().splitlines() or [type(error).__name__]
                line = job.died(f"the Ray worker died: {reason[0]}")
            yield job, line


def _received(receiver: Any, process: Any, job: Identified) -> Line:
    try:
        line: Line = receiver.recv()
    except (EOFError, OSError):
        process.join()
        code = process.exitcode
        reason = f"signal {-code} (out of memory?)" if code < 0 else f"exit code {code}"
        return job.died(f"the process of this run died with {reason}")
    process.join()
    return line


def _in_process(job: Identified, threads: int, sender: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends this process
    Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    sender.send(job.execute())


def _end_with_parent() -> None:
    """A killed parent cannot take a line any more, and its run may begin elsewhere."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)


def _on_cluster(job: Identified, threads: int, folder: str) -> Line:
    os.chdir(folder)
    torch.set_num_threads(threads)
    return job.execute()
