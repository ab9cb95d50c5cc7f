"""What the measuring scripts print: Markdown rows, the machine, the commit of a checkout."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def machine(device: str) -> str:
    """Processor, number of cores and load, torch; the GPU, without which the script ends."""
    command = "import torch; print(torch.__version__)"
    if device == "cuda":
        command += "; print(torch.cuda.get_device_name())"
    asked = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True)
    if asked.returncode:
        raise SystemExit(asked.stderr.strip().splitlines()[-1])
    cores = f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    return ", ".join([cores, "torch " + ", ".join(asked.stdout.splitlines())])


def commit_of(folder: Path) -> str:
    """Commit of a checkout, with a plus sign if files of the package differ from it."""
    found = []
    for words in (["rev-parse", "--short", "HEAD"], ["status", "--short", "recbole_missing"]):
        command = ["git", "-C", str(folder), *words]
        try:
            found.append(subprocess.run(command, capture_output=True, text=True).stdout.strip())
        except FileNotFoundError:  # no git on this machine
            return "unknown"
    commit, changed = found
    return f"{commit}+" if changed else commit or "unknown"


def mean(found: Mapping[str, Any], clock: str) -> float:
    """Mean seconds of the epochs of a child."""
    return statistics.fmean(epoch[clock] for epoch in found["epochs"])


def ratios(old: Mapping[str, Any], new: Mapping[str, Any], clock: str = "cpu") -> list[float]:
    """Seconds of the old code over those of the new one, for each pair of epochs."""
    return [a[clock] / b[clock] for a, b in zip(old["epochs"], new["epochs"])]


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[float, str]:
    """Largest relative difference of a loss term, and the term's name.

    A term of less than a thousandth of the loss is compared with this thousandth. A term that only
    one of the two has makes the difference infinite.
    """
    if old.keys() != new.keys():
        return float("inf"), ", ".join(sorted(old.keys() ^ new.keys()))
    least = sum(abs(value) for value in old.values()) / 1000 or 1.0
    return max((abs(old[key] - new[key]) / max(abs(old[key]), least), key) for key in old)


def seconds(value: float) -> str:
    """Three digits."""
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def label(model: str, found: Mapping[str, Any]) -> str:
    """Name of the model; of how many batches an epoch was scaled."""
    count, total = found["epochs"][0]["measured"], found["first_step"]["n_batches"]
    return model if count == total else f"{model} (scaled from {count} of {total} batches)"


def alone_row(model: str, threads: int, found: Mapping[str, Any], one: float | None) -> list[str]:
    """Cells of a model; ``one`` is the wall time of an epoch with the first number of threads."""
    wall = mean(found, "wall")
    timed = [mean(found, "cpu"), wall]
    for what in ("evaluation", "first_step"):
        timed += [found[what]["cpu"], found[what]["wall"]]
    cells = [label(model, found), str(threads), *map(seconds, timed)]
    return [*cells, f"{found['memory']['peak']:.2f}", f"{one / wall:.2f}" if one else ""]


ALONE = [
    "model", "threads", "epoch, CPU s", "wall s", "evaluation, CPU s", "wall s",
    "first step, CPU s", "wall s", "peak GiB", "epoch, times faster by threads",
]  # fmt: skip


def pair_row(model: str, threads: int, old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Cells of a model before and now."""
    found = ratios(old, new)
    ratio = statistics.median(found)
    same = old["first_step"]["rows"] == new["first_step"]["rows"]
    losses = [
        difference(old["first_step"]["terms"], new["first_step"]["terms"]),
        difference(old["epochs"][0]["terms"], new["epochs"][0]["terms"]),
    ]
    cells = [label(model, new), str(threads), seconds(mean(old, "cpu")), seconds(mean(new, "cpu"))]
    cells += [f"{ratio:.2f} ({min(found):.2f} to {max(found):.2f})"]
    cells += [f"{statistics.median(ratios(old, new, 'wall')):.2f}"]
    for what, key in (("evaluation", "cpu"), ("first_step", "wall"), ("memory", "peak")):
        cells.append(" -> ".join(seconds(side[what][key]) for side in (old, new)))
    return cells + [f"{gap:.0e} {name}" if same else "other batches" for gap, name in losses]


PAIR = [
    "model", "threads", "epoch before, CPU s", "now", "times faster (of all pairs)", "wall",
    "evaluation, CPU s", "first step, wall s", "peak GiB", "losses differ: first batch", "epoch",
]  # fmt: skip


def line(cells: Sequence[str]) -> str:
    """A row of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def head(names: Sequence[str]) -> str:
    """The first two rows of a Markdown table."""
    return f"{line(names)}\n|{'---|' * len(names)}"
