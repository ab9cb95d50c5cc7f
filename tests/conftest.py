"""Options and fixtures of every test."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest

import recbole_missing  # noqa: F401  before RecBole, which then does without an absent Ray

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: tests run side by side
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # else every command compiles the package anew


def pytest_addoption(parser: pytest.Parser) -> None:
    default = Path(__file__).parent / "golden"
    text = "folder of golden npz files (write --golden-dir=FOLDER), see test_golden.py"
    parser.addoption("--golden-dir", type=Path, default=default, help=text)


def pytest_collection_finish() -> None:
    """What has been imported lives until the end; no garbage collection has to visit it again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def golden_dir(request: pytest.FixtureRequest) -> Path:
    return request.config.getoption("golden_dir")


@pytest.fixture(autouse=True)
def _own_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """RecBole's Config parses the command line of the process, which here is pytest's."""
    monkeypatch.setattr("sys.argv", ["pytest"])


@pytest.fixture(autouse=True)
def _no_wait_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test of this process outlives a power cut; the commands of test_crash.py do wait."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
