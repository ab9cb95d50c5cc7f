"""What a run is told apart by, and what it cost: its mask and its peak memory."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Any

import torch

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def mask_of(dataset: Any) -> dict[str, Any] | None:
    """Who lacks what, as a hash and as counts; None for a data set without modalities.

    Args:
        dataset: training split of a :class:`~recbole_missing.data.dataset.MultimodalDataset`.

    Returns:
        ``id`` (hash over item tokens, so that it does not depend on internal ids), ``missing``
        (modality -> number of items that lack it), ``new_items`` (their number).
    """
    modalities = getattr(dataset, "known", None)
    if modalities is None:
        return None
    tokens = dataset.field2id_token[dataset.iid_field]
    lacks = (~modalities.observed).long()
    rows = zip(tokens[1:], lacks[1:].tolist(), dataset.new_items[1:].tolist())
    digest = hashlib.blake2b(repr(list(modalities)).encode(), digest_size=8)
    for row in sorted((str(token), *rest) for token, *rest in rows):
        digest.update(repr(row).encode())
    missing = dict(zip(modalities, lacks[1:].sum(dim=0).tolist()))
    return {
        "id": digest.hexdigest(),
        "missing": missing,
        "new_items": int(dataset.new_items.sum()),
    }


def restart_peak_memory() -> None:
    """Forget the peak so far, so that the next one is of what comes now (Linux and CUDA)."""
    if torch.cuda.is_initialized():  # asking for more would fix which GPUs are visible
        torch.cuda.reset_peak_memory_stats()
    try:
        _CLEAR.write_text("5")
    except OSError:  # not Linux, or not allowed: the peak of the whole process stands
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
