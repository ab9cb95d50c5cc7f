"""A file of results with one JSON line for each run. Several processes can use it together."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from logging import getLogger
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from recbole_missing.atomic import FULL, FullDiskError, check_no_link, tidy, whole_file
from recbole_missing.benchmark import line
from recbole_missing.benchmark.line import Line

_POLL = 0.005  # seconds between two tries to take the lock
_BEGINNING = b'{"run": "'


class Store:
    """The lines of a file, and the claims of the processes that work on it.

    A claim reserves a run for one process. Two hidden paths beside ``mine.jsonl`` coordinate the
    processes:

    - ``.mine.jsonl.lock`` is locked while a line is written, and while a claim is made or ended.
      This file is empty and is never removed.
    - ``.mine.jsonl.claims`` is a folder with one locked file for each run that is under way. The
      operating system unlocks the file when its process ends, even if it was killed. The folder is
      removed together with the last claim.

    Args:
        path: file to read and append to; it need not exist yet.
    """

    def __init__(self, path: Path | str) -> None:
        """Store the path; nothing is created yet."""
        self.path = Path(path)
        self._claims = self.path.with_name(f".{self.path.name}.claims")

    def lines(self) -> list[Line]:
        """Every line, in order. An incomplete line at the end of the file is left out.

        Raises:
            ValueError: if the path is a folder, or a line is not a run; it names the line.
        """
        if self.path.exists() and not self.path.is_file():
            raise ValueError(f"{self.path}: must be a file, got a folder; name another store.")
        if not self.path.is_file():
            return []
        *whole, rest = self.path.read_bytes().split(b"\n")
        if _is_half(rest):
            getLogger().warning(
                f"{self.path}: the last line is incomplete (its writer was killed) and is ignored; "
                "the next writer removes it."
            )
        elif rest:
            whole.append(rest)
        return [self._parsed(number, text) for number, text in enumerate(whole, 1)]

    def _parsed(self, number: int, text: bytes) -> Line:
        try:
            return Line.parse(json.loads(text))
        except ValueError as error:
            reason = f" ({error})" if _is_json(text) else ""
            raise ValueError(
                f"{self.path}, line {number}: must be a run as `recbole-missing benchmark` writes "
                f"it, got {text[:60].decode(errors='replace')!r}{reason}; name another store, or, "
                "if a run of this one was damaged, delete the line to run it again."
            ) from error

    def latest(self) -> list[Line]:
        """One line for each run of each benchmark, chosen by :func:`.line.latest`."""
        return line.latest(self.lines())

    def append(self, content: Mapping[str, Any]) -> None:
        """Write one line to the disk.

        If a killed process left an incomplete line at the end, it is removed first.

        Raises:
            OSError: if the line cannot be written. The file is then unchanged, and the line is in
                another file that the message names, or if that is impossible on standard output.
            ValueError: if the content is not a line, or holds infinity or NaN.
        """
        data = Line.parse(content).as_json().encode() + b"\n"
        try:
            with self.locked(), self.path.open("ab+", buffering=0) as file:
                self._append(file, data)
        except OSError as error:
            raise self._rescued(data, error) from error

    def _append(self, file: Any, data: bytes) -> None:
        end, whole = self._end(file)
        file.truncate(end)
        left = memoryview(data if whole else b"\n" + data)
        goal = end + len(left)
        try:
            while left:
                left = left[file.write(left) :]
            os.fsync(file.fileno())
        except BaseException as error:
            if isinstance(error, OSError) or file.seek(0, os.SEEK_END) < goal:
                file.truncate(end)
            raise

    def _rescued(self, data: bytes, error: OSError) -> OSError:
        """Write a line to another place, and make the error that names it."""
        name = f"{self.path.stem}-{os.getpid()}-{time.time_ns()}.jsonl"
        place = Path(tempfile.gettempdir(), name)
        try:
            with whole_file(place) as temporary:
                temporary.write_bytes(data)
            where = f"is in {place}; when there is room, add it: cat {place} >> {self.path}"
        except OSError:
            print(data.decode(), end="", flush=True)
            where = f"is on standard output; when there is room, add it to {self.path}"
        end = f"The file is unchanged. The line of the run {where}"
        if error.errno in FULL:
            free = shutil.disk_usage(self.path.parent).free
            return FullDiskError(self.path, error.errno, f"{len(data):,}", free, end)
        return OSError(f"{self.path}: cannot be written ({error}). {end}")

    def claim(self, run: str) -> FileLock | None:
        """Reserve a run for this process; None if it is already reserved.

        Raises:
            ValueError: if a symbolic link is in the place of the claims, of this one or of a lock.
        """
        lock = FileLock(self._claims / run)
        check_no_link(self._claims)
        check_no_link(self._claims / run)
        with self.locked():
            self._claims.mkdir(exist_ok=True)
            try:
                lock.acquire(blocking=False)
            except Timeout:
                return None
        return lock

    def release(self, lock: FileLock) -> None:
        """End a claim of this process. Remove the claims of processes that were killed."""
        with self.locked():
            lock.release()
            self._tidy()

    def tidy(self) -> None:
        """Remove what killed processes left beside the file: claims, and half-written files."""
        if self._claims.is_dir() and not self._claims.is_symlink():
            with self.locked():
                self._tidy()
        tidy(self.path.parent)

    def _tidy(self) -> None:
        if self._claims.is_symlink():
            return
        for path in self._claims.glob("*"):
            if path.is_symlink() or not path.is_file():
                continue
            with suppress(Timeout), FileLock(path).acquire(blocking=False):
                path.unlink(missing_ok=True)
        with suppress(OSError):  # it is absent, or still holds claims of other processes
            self._claims.rmdir()

    def locked(self) -> AbstractContextManager[Any]:
        """Lock the file and the claims; wait if another process has locked them.

        Raises:
            ValueError: if a symbolic link is in the place of the lock.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lock = self.path.with_name(f".{self.path.name}.lock")
        check_no_link(lock)
        return FileLock(lock).acquire(poll_interval=_POLL)

    def _end(self, file: Any) -> tuple[int, bool]:
        """Position of the next line, and whether a line break precedes it."""
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        start = size
        # A store may hold thousands of lines, so only its end is read, in blocks.
        tail = b""
        while start > 0 and b"\n" not in tail:
            start = max(0, start - (1 << 16))
            file.seek(start)
            tail = file.read(size - start)
        rest = tail.rpartition(b"\n")[2]
        if not rest:
            return size, True
        if _is_half(rest):
            getLogger().warning(f"{self.path}: the incomplete line at its end was removed.")
            return size - len(rest), True
        return size, False


def _is_json(text: bytes) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _is_half(rest: bytes) -> bool:
    """Tell whether the end of a file is an incomplete line that a killed process left."""
    begun = rest.startswith(_BEGINNING) or _BEGINNING.startswith(rest)
    return bool(rest) and begun and not _is_json(rest)
