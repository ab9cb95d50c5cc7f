"""Log files and TensorBoard: what cannot be written is dropped after one warning."""

from __future__ import annotations

import copy
import logging
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from recbole_missing import logs, plugin

FULL = OSError(28, "No space left on device")


@pytest.fixture(autouse=True)
def own_root(monkeypatch: pytest.MonkeyPatch) -> Iterator[logging.Logger]:
    """A root logger without handlers."""
    root = logging.getLogger()
    before = root.handlers
    root.handlers = [handler for handler in before if type(handler).__name__ == "LogCaptureHandler"]
    yield root
    root.handlers = before


class Full(logging.FileHandler):
    """A file on a full disk."""

    def flush(self) -> None:
        """Fail."""
        if self.stream is not None:
            raise FULL


def test_a_log_file_on_a_full_disk_is_given_up_once(
    tmp_path: Path, caplog: Any, capsys: Any, own_root: logging.Logger
) -> None:
    handler = Full(tmp_path / "run.log")
    logs.init_logger(lambda config: own_root.addHandler(handler), {"state": None})
    for number in range(3):
        logging.getLogger().warning(f"epoch {number}")
    assert caplog.text.count("the run goes on without a log file") == 1
    assert "epoch 2" in caplog.text
    assert handler not in own_root.handlers
    assert "Traceback" not in capsys.readouterr().err


def test_a_log_folder_that_cannot_be_made_leaves_the_terminal(caplog: Any) -> None:
    def fail(config: Any) -> None:
        raise FULL

    logs.init_logger(fail, {"state": "info"})
    assert caplog.text.count("the run goes on without a log file") == 1


def test_a_bug_in_a_message_is_shown_as_ever(
    tmp_path: Path, capsys: Any, own_root: logging.Logger
) -> None:
    handler = logging.FileHandler(tmp_path / "run.log")
    logs.init_logger(lambda config: own_root.addHandler(handler), {"state": None})
    handler.handle(logging.makeLogRecord({"msg": "%d", "args": ("text",)}))
    handler.close()
    assert "TypeError" in capsys.readouterr().err


class Writer:
    """A writer of TensorBoard whose second value does not fit."""

    def __init__(self) -> None:
        """Start empty."""
        self.values: list[float] = []

    def add_scalar(self, name: str, value: float) -> None:
        """Keep one."""
        if self.values:
            raise FULL
        self.values.append(value)


def test_tensorboard_is_given_up_once(caplog: Any) -> None:
    writer = Writer()
    board = logs.TensorBoard(lambda: writer)
    for value in range(4):
        board.add_scalar("loss", value)
    board.add_hparams({}, {})
    assert writer.values == [0]
    assert caplog.text.count("the run goes on without it") == 1


def test_a_tensorboard_that_cannot_be_imported_is_given_up_once(caplog: Any) -> None:
    def broken() -> Any:
        raise TypeError("Descriptors cannot be created directly.")

    board = logs.TensorBoard(broken)
    for value in range(2):
        board.add_scalar("loss", value)
    assert caplog.text.count("Descriptors cannot be created directly.; the run goes on") == 1


def test_an_absent_tensorboard_is_named_at_the_start(
    caplog: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    board = plugin.get_tensorboard(logging.getLogger())
    assert caplog.text.count("pip install tensorboard") == 1
    board.add_scalar("loss", 1.0)
    assert len(caplog.records) == 1


def test_a_look_at_tensorboard_makes_no_writer() -> None:
    made: list[int] = []
    board = logs.TensorBoard(lambda: made.append(1))
    assert not hasattr(board, "__len__") and not hasattr(board, "_private")
    assert type(copy.copy(board)) is type(copy.deepcopy(board)) is logs.TensorBoard
    assert not made
    assert board.add_scalar("loss", 1.0) is None and made == [1]


def test_the_folder_of_tensorboard_is_named_as_the_log(
    monkeypatch: pytest.MonkeyPatch, own_root: logging.Logger, tmp_path: Path
) -> None:
    """As the logger was when the trainer was made; another run may have changed it since."""
    monkeypatch.chdir(tmp_path)
    made: list[str] = []
    monkeypatch.setattr("recbole.utils.utils.SummaryWriter", made.append)
    handler = logging.FileHandler(tmp_path / "VBPR-of-this-run.log")
    own_root.addHandler(handler)
    board = plugin.get_tensorboard(own_root)
    own_root.removeHandler(handler)
    handler.close()
    board.add_scalar("loss", 1.0)
    assert [Path(folder).name for folder in made] == ["VBPR-of-this-run"]


def test_a_thread_of_tensorboard_prints_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", lambda failure: seen.append(failure.exc_value))
    logs._watch_threads()
    logs._watch_threads()

    def fail(error: Exception) -> None:
        raise error

    of_tensorboard = type("Thread", (threading.Thread,), {"__module__": "tensorboard.writer"})
    bug = KeyError("a bug")
    for kind, error in ((of_tensorboard, FULL), (of_tensorboard, bug), (threading.Thread, FULL)):
        thread = kind(target=fail, args=(error,))
        thread.start()
        thread.join()
    assert seen == [bug, FULL]
