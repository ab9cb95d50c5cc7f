"""Peak memory of a run."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def restart_peak_memory() -> None:
    """Reset the peak memory, so that the next peak is that of one run (Linux and CUDA)."""
    if torch.cuda.is_initialized():  # initialising it here would fix which GPUs are visible
        torch.cuda.reset_peak_memory_stats()
    try:
        _CLEAR.write_text("5")
    except OSError:  # not Linux, or not allowed: the peak of the whole process is reported
        return


def peak_memory() -> dict[str, float | None]:
    """Peak memory in MiB since :func:`restart_peak_memory`, of this process and of its GPU."""
    gpu = torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_initialized() else None
    return {"peak_memory_mib": _resident(), "peak_gpu_mib": gpu and round(gpu, 1)}


def _resident() -> float | None:
    if _STATUS.is_file():
        lines = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines())
        if "VmHWM" in lines:
            return round(int(lines["VmHWM"].split()[0]) / 1024, 1)
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 1024), 1)
