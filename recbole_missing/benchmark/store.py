"""An append-only file of results, one JSON line a run, that several processes may share."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from logging import getLogger
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

Line = dict[str, Any]

_BEGINNING = b'{"run": "'
_NEEDED = {"run", "benchmark", "stage", "point", "status", "config", "cost"}


class Store:
    """Lines of ``path``, and the claims of the processes that work on it.

    Writers hold ``<path>.lock`` while they append. A run that is under way is claimed by a lock
    of its own in the folder ``<path>.claims``, which the operating system releases with the
    process, however it ends.

    Args:
        path: file to read and append to; it need not exist yet.
    """

    def __init__(self, path: Path | str) -> None:
        """Store the path; nothing is created yet."""
        self.path = Path(path)
        self._claims = self.path.with_name(f"{self.path.name}.claims")

    def lines(self) -> list[Line]:
        """Every whole line, in order; half a line at the end of the file is left out.

        Raises:
            ValueError: if the file is no store, or naming the first line that is no run.
        """
        if self.path.exists() and not self.path.is_file():
            raise ValueError(f"{self.path}: must be a file, got a folder; name another store.")
        if not self.path.is_file():
            return []
        *whole, rest = self.path.read_bytes().split(b"\n")
        if self._is_half(rest):
            getLogger().warning(f"{self.path}: ends in half a line (a writer was killed); ignored.")
        elif rest:
            whole.append(rest)
        return [self._parsed(number, text) for number, text in enumerate(whole, 1)]

    def _parsed(self, number: int, text: bytes) -> Line:
        line = _parse(text)
        if line is None:
            raise ValueError(
                f"{self.path}, line {number}: must be a run as `recbole-missing benchmark` writes "
                f"it, got {text[:60].decode(errors='replace')!r}; name another store, or, if a run "
                "of this one was damaged, delete the line to run it again."
            )
        return line

    def _is_half(self, rest: bytes) -> bool:
        """Whether the end of the file is what a killed writer left."""
        begun = rest.startswith(_BEGINNING) or _BEGINNING.startswith(rest)
        return bool(rest) and begun and _parse(rest) is None

    def latest(self) -> list[Line]:
        """One line for every run of every benchmark: its last one that is done, or else its last.

        In the order of the first lines.
        """
        found: dict[tuple[str, str], Line] = {}
        for line in self.lines():
            key = (line["benchmark"], line["run"])
            if line["status"] == "done" or found.get(key, line)["status"] != "done":
                found[key] = line
        return list(found.values())

    def append(self, line: Mapping[str, Any]) -> None:
        """Write one line to the disk; half a line that a killed writer left is cut off before.

        Raises:
            OSError: if the disk refuses; the file is as it was then.
            ValueError: for numbers that JSON lacks.
        """
        data = json.dumps(line, ensure_ascii=False, allow_nan=False).encode() + b"\n"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{self.path}.lock"), self.path.open("ab+") as file:
            end = self._end(file)
            file.truncate(end)
            try:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            except OSError:
                file.truncate(end)
                raise

    def claim(self, run: str) -> FileLock | None:
        """Reserve a run for this process; None if another one has it."""
        self._claims.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self._claims / run)
        try:
            return lock.acquire(blocking=False).lock
        except Timeout:
            return None

    def release(self, lock: FileLock) -> None:
        """End a claim; the folder of claims goes with the last one."""
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()
        try:
            self._claims.rmdir()
        except OSError:  # others are at work
            return

    def _end(self, file: Any) -> int:
        """Where the next line begins; a whole line without its end of line gets it."""
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        start = size
        # The last line is read backwards in blocks: a store may hold thousands of lines.
        tail = b""
        while start > 0 and b"\n" not in tail:
            start = max(0, start - (1 << 16))
            file.seek(start)
            tail = file.read(size - start)
        rest = tail.rpartition(b"\n")[2]
        if not rest:
            return size
        if self._is_half(rest):
            getLogger().warning(f"{self.path}: half a line at its end was cut off.")
            return size - len(rest)
        file.write(b"\n")
        return size + 1


def _parse(text: bytes) -> Line | None:
    try:
        line = json.loads(text)
    except ValueError:
        return None
    return line if isinstance(line, dict) and line.keys() >= _NEEDED else None


def settled(line: Mapping[str, Any]) -> Line:
    """A line without what two executions of one run differ in: its cost, and the versions used."""
    return {key: value for key, value in line.items() if key not in ("cost", "versions")}
