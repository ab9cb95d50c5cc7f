"""The command line: ``recbole-missing COMMAND``; ``recbole-missing --help`` lists them.

Only the standard library is imported before a command runs, so that ``--help`` answers at once.
Each command has a module in :mod:`recbole_missing.commands` with two functions: ``arguments``
declares its options, ``execute`` runs it.
"""

from __future__ import annotations

import argparse
import atexit
import os
import select
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from recbole_missing.commands import (
    benchmark,
    describe,
    doctor,
    export,
    import_data,
    impute,
    recommend,
    report,
    retrieve,
    run,
)

COMMANDS = {
    "run": (run, "train and test a model; any setting goes as --key=value"),
    "import": (import_data, "turn another project's files into ours"),
    "describe": (describe, "a first look at a data set: who lacks what, whether content helps"),
    "impute": (impute, "complete feature files, compare methods"),
    "export": (export, "write a data set in another project's layout"),
    "benchmark": (benchmark, "run the experiments of a YAML file"),
    "report": (report, "tables, tests and figures of a store of results"),
    "recommend": (recommend, "the best items for any user"),
    "retrieve": (retrieve, "test whether completed features find the true ones"),
    "doctor": (doctor, "check this machine, list every method"),
}
"""Name of a command -> its module and its line in ``--help``."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command.

    What the user can mend ends in one line on standard error and exit code 2; see
    :func:`is_refusal`. Ctrl-C ends in one line and code 130, SIGTERM in one line and code 143; both
    remove what is half written. A reader of the output that closes it, such as ``head``, ends the
    command silently with code 141. Any other exception is a bug and keeps its traceback.
    """
    known = parsed(arguments)
    try:
        with _ended_by_sigterm():
            COMMANDS[known.command][0].execute(known)
            sys.stdout.flush()
    except KeyboardInterrupt as stop:
        atexit.register(_ignore_signals)  # a second one must not break what Python does at its end
        print(f"interrupted{_told(stop)}", file=sys.stderr)
        raise SystemExit(143 if _caused_by(stop, _Terminated) else 130) from None
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _is_closed(sys.stdout):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise SystemExit(141) from None
        if not is_refusal(error):
            raise
        missing = _absent() if isinstance(error, ImportError) else []
        print("; ".join([f"error: {error}", *missing]), file=sys.stderr)
        raise SystemExit(2) from error


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    whole = argparse.ArgumentParser(
        prog="recbole-missing", description="Recommendation with missing modalities, in RecBole."
    )
    subparsers = whole.add_subparsers(dest="command", required=True)
    for name, (command, line) in COMMANDS.items():
        about = f"{line[:1].upper()}{line[1:]}."
        command.arguments(subparsers.add_parser(name, help=line, description=about))
    return whole


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse a command line; ``settings`` of the result are the ``--key=value`` words of ``run``."""
    whole = parser()
    known, rest = whole.parse_known_args(arguments)
    known.settings = rest
    if rest and known.command != "run":
        whole.error(f"unrecognized arguments: {' '.join(rest)}")
    return known


def is_refusal(error: Exception) -> bool:
    """Tell whether an exception tells the user what to mend, rather than us.

    These do: a ValueError that a ``raise`` statement of this package made; whatever a ``raise`` of
    RecBole's configuration, data reading or sampling made, for these judge settings and files; an
    OSError, which is the operating system's answer (no such file, disk full); and an ImportError
    that a ``raise`` of this package made, as for an extra, or that comes where a requirement of
    this package is absent. A ValueError from inside torch, or from an expression of ours that went
    wrong, is a bug.
    """
    if isinstance(error, OSError) or (isinstance(error, ImportError) and _absent()):
        return True
    from recbole_missing.config.check import raised_in

    ours = isinstance(error, (ValueError, ImportError)) and raised_in(error, "recbole_missing.")
    return ours or raised_in(error, "recbole.config.", "recbole.data.", "recbole.sampler.")


class _Terminated(KeyboardInterrupt):
    """SIGTERM, which ends a command as Ctrl-C does."""


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Raise an exception in the block at SIGTERM, so that it cleans up."""

    def end(number: int, frame: object) -> None:
        raise _Terminated

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _ignore_signals() -> None:
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)


def _told(stop: KeyboardInterrupt) -> str:
    return "".join(f": {text}" for text in stop.args)


def _caused_by(error: BaseException | None, kind: type) -> bool:
    while error is not None and not isinstance(error, kind):
        error = error.__cause__ or error.__context__
    return error is not None


def _is_closed(stream: Any) -> bool:
    """Tell whether the reader of a stream has closed it."""
    try:
        poll = select.poll()
        poll.register(stream.fileno(), select.POLLOUT)
        return any(event & select.POLLERR for _, event in poll.poll(0))
    except (AttributeError, OSError, ValueError):  # no such call, or no file
        return False


def _absent() -> list[str]:
    """What to do about requirements of this package that are absent."""
    from recbole_missing import environment

    return environment.problems()


if __name__ == "__main__":
    main()
