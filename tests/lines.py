"""Made-up lines of a store, for tests of the store and of the report."""

from __future__ import annotations

from typing import Any

from recbole_missing.benchmark.line import Line

COST = {
    "started": "2026-01-01T00:00:00+00:00",
    "seconds": 1.0,
    "epoch_seconds": None,
    "peak_memory_mib": None,
    "peak_gpu_mib": None,
    "device": "cpu",
    "threads": 1,
}


def content(run: str = "a", benchmark: str = "mine", **changes: Any) -> dict[str, Any]:
    """Fields of a line that measured nothing, with some of them changed."""
    return {
        "run": run,
        "benchmark": benchmark,
        "title": "Mine",
        "stage": "test",
        "point": {},
        "status": "done",
        "error": None,
        "search": None,
        "trial": None,
        "config": {},
        "data": None,
        "source": None,
        "mask": None,
        "epochs": None,
        "best_epoch": None,
        "valid": None,
        "test": None,
        "smaller": None,
        "groups": None,
        "within_groups": None,
        "retrieval": None,
        "restoration": None,
        "kept": None,
        "versions": {},
        "cost": COST,
        **changes,
    }


def line(run: str = "a", benchmark: str = "mine", **changes: Any) -> Line:
    """A line that measured nothing, with some fields changed."""
    return Line.parse(content(run, benchmark, **changes))
