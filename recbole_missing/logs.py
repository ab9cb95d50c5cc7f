"""Log files and TensorBoard's files of a run. Where they cannot be written, the run goes on."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any


def init_logger(original: Callable[[Any], None], config: Any) -> None:
    """Start RecBole's log.

    If its file cannot be written, one warning says so, and the log goes to the terminal alone.

    Args:
        original: RecBole's ``init_logger``.
        config: RecBole's config.
    """
    try:
        original(config)
    except OSError as error:
        logging.basicConfig(level=str(config["state"] or "info").upper())
        logging.getLogger().warning(f"log: {error}; the run goes on without a log file.")
    for handler in logging.getLogger().handlers:
        if hasattr(handler, "baseFilename"):
            handler.handleError = _ending(handler)  # type: ignore[method-assign]


def _ending(handler: Any) -> Callable[[logging.LogRecord], None]:
    def handle(record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            type(handler).handleError(handler, record)
            return
        root = logging.getLogger()
        root.removeHandler(handler)
        with suppress(OSError):
            handler.close()
        root.warning(f"{handler.baseFilename}: {error}; the run goes on without a log file.")

    return handle


class TensorBoard:
    """A writer of TensorBoard that drops what it cannot write, after one warning.

    Args:
        make: makes the writer, when something is first written; None drops everything.
    """

    def __init__(self, make: Callable[[], Any] | None = None) -> None:
        """Make nothing yet: a run writes after its first epoch."""
        self._writer: Any = None
        self._make = make

    def __getattr__(self, name: str) -> Any:
        """Attribute or method of the writer."""
        if name.startswith("_"):  # of those who look at it, as copy and hasattr do
            raise AttributeError(name)
        if self._make is not None and name not in ("flush", "close"):
            make, self._make = self._make, None
            _watch_threads()
            try:
                self._writer = make()
            except Exception as error:  # a full disk, or a TensorBoard that cannot be imported
                self._give_up(error)
        value = getattr(self._writer, name, _nothing)
        if not callable(value):
            return value
        return lambda *args, **kwargs: self._tried(value, *args, **kwargs)

    def _tried(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        try:
            return call(*args, **kwargs)
        except OSError as error:
            self._give_up(error)
            return None

    def _give_up(self, error: Exception) -> None:
        self._writer = None
        logging.getLogger().warning(f"TensorBoard: {error}; the run goes on without it.")


def _nothing(*args: Any, **kwargs: Any) -> None:
    """Drop it."""


def _watch_threads() -> None:
    """Keep the thread of a writer from printing what the next call of the writer raises again."""
    before = threading.excepthook
    if getattr(before, "of_tensorboard", False):
        return

    def hook(failure: Any) -> None:
        ours = type(failure.thread).__module__.startswith("tensorboard.")
        if not (ours and isinstance(failure.exc_value, OSError)):
            before(failure)

    hook.of_tensorboard = True  # type: ignore[attr-defined]
    threading.excepthook = hook
