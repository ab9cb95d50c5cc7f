"""Where runs take place: in this process, in processes of their own, or on a Ray cluster.

Each class has a method ``run``. It takes the next job when it has a free place. When a job has
ended, it yields the job and its line. The place changes only the ``cost`` of a line.
"""

from __future__ import annotations

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

from recbole_missing.benchmark.job import Identified
from recbole_missing.benchmark.line import Line
from recbole_missing.parallel import start_ray, worker_environment

Jobs = Iterator[Identified]
Done = Iterator[tuple[Identified, Line]]


class Here:
    """Makes one run after the other in this process.

    Args:
        threads: number of torch's threads; by default it is left as it is.
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
    """Makes up to ``count`` runs at the same time, each in a new process of this machine.

    If a process dies, for example because memory ran out, only its run fails. All processes end
    when this process ends. On a machine with several GPUs, the processes are spread over the GPUs,
    unless the benchmark sets ``gpu_id``.

    Args:
        count: largest number of processes at a time.
        threads: number of threads of each process; by default the cores of this machine divided by
            ``count``, at least one.
    """

    def __init__(self, count: int, threads: int | None = None) -> None:
        """Store the numbers; nothing starts yet."""
        self.count = count
        self.threads = threads or max(1, (os.cpu_count() or 1) // count)
        self.n_gpus = torch.cuda.device_count()  # a config may hide some of them later

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
        """Set the GPU of a job that runs at a place (0 to ``count`` - 1)."""
        if self.n_gpus < 2 or "gpu_id" in job.job.settings:
            return job
        settings = {**job.job.settings, "gpu_id": str(place % self.n_gpus)}
        return replace(job, job=replace(job.job, settings=settings))

    def _start(self, job: Identified) -> tuple[Any, Any]:
        context = multiprocessing.get_context("spawn")
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(
            target=_in_process, args=(job, self.threads, sender), name=job.run
        )  # a daemon could not start workers of a data loader
        with worker_environment(self.threads):
            process.start()
        sender.close()  # the pipe then ends when the process ends
        return receiver, process


class Ray:
    """Makes runs on the machines of a Ray cluster.

    Every machine must have this package, and must see the current folder under the same path.

    Args:
        address: address of the cluster. ``auto`` is the cluster of this machine. ``local`` is a new
            one on this machine alone, which ends with the benchmark.
        threads: number of threads of a run; Ray reserves as many CPUs for it.
    """

    def __init__(self, address: str, threads: int | None = None) -> None:
        """Store the arguments; nothing starts yet."""
        self.address = address
        self.threads = threads or 1
        self.count = 1

    def run(self, jobs: Jobs) -> Done:
        """Yield every job with its line, in the order in which they end."""
        ray = start_ray(self.address, self.threads, log_to_driver=False)
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
        # A worker ends after one run, so that its peak memory is that of the run.
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
        line: Line | str = receiver.recv()
    except (EOFError, OSError):
        process.join()
        code = process.exitcode
        reason = f"signal {-code} (out of memory?)" if code < 0 else f"exit code {code}"
        return job.died(f"the process of this run died with {reason}")
    process.join()
    if isinstance(line, str):
        raise OSError(line)
    return line


def _in_process(job: Identified, threads: int, sender: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends this process
    Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    try:
        sender.send(job.execute())
    except OSError as error:  # the disk is full
        sender.send(str(error))


def _end_with_parent() -> None:
    """End this process when its parent ends.

    Without the parent, no process receives the line of this run, and another one may repeat it.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)


def _on_cluster(job: Identified, threads: int, folder: str) -> Line:
    os.chdir(folder)
    torch.set_num_threads(threads)
    return job.execute()
