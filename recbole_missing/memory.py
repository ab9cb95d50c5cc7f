"""Memory that runs out: one line on what was being done, what was asked for, and what to lower."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

# How torch, CUDA and numpy say it; a MemoryError says it by its class.
_SAID = re.compile(
    r"out of memory|can't allocate memory|not enough memory|unable to allocate|alloc_failed"
    r"|std::bad_alloc|storage size calculation overflowed",
    re.IGNORECASE,
)
_ASKED = re.compile(r"allocate (\d+\.?\d*) ?(bytes|[KMGTPE]iB)", re.IGNORECASE)
_MIB = dict(zip(("BYTES", "KIB", "MIB", "GIB", "TIB", "PIB", "EIB"), (-2, -1, 0, 1, 2, 3, 4)))


@contextmanager
def fits(doing: str, knobs: Mapping[str, Any]) -> Iterator[None]:
    """Run the body; if memory runs out in it, say so in one line.

    Args:
        doing: what the body does, such as ``VBPR: training``.
        knobs: setting -> present value, of the settings that decide how much memory it needs.

    Raises:
        ValueError: if memory ran out, from the error of torch or numpy.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_exhausted(error):
            raise
        on_gpu = type(error).__name__ == "OutOfMemoryError" or "cuda" in str(error).lower()
        asked = asked_mib(error)
        raise ValueError(
            f"{doing} must fit into the memory of the {'GPU' if on_gpu else 'machine'}, got "
            f"{'no more memory' if asked is None else f'a request for {asked:,.0f} MiB more'}; "
            f"{_advice(knobs, on_gpu)}"
        ) from error


def limited(doing: str, *knobs: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Guard a method by :func:`fits`; its object has RecBole's ``config``, which has the knobs."""

    def guarded(method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
            with fits(f"{self.config['model']}: {doing}", of_config(self.config, *knobs)):
                return method(self, *args, **kwargs)

        return wrapper

    return guarded


def of_config(config: Any, *knobs: str) -> dict[str, Any]:
    """Knobs that a config has."""
    return {key: config[key] for key in knobs if config[key] is not None}


def is_exhausted(error: BaseException) -> bool:
    """Tell whether an error means that memory ran out, on the machine or on a GPU."""
    by_class = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return by_class or (isinstance(error, RuntimeError) and bool(_SAID.search(str(error))))


def asked_mib(error: BaseException) -> float | None:
    """MiB of the array that could not be allocated; None if the error does not say."""
    found = _ASKED.search(str(error))
    return None if found is None else float(found[1]) * 1024.0 ** _MIB[found[2].upper()]


def _advice(knobs: Mapping[str, Any], on_gpu: bool) -> str:
    named = [f"{key} (now {value})" for key, value in knobs.items()]
    advice = [f"lower {' or '.join(named)}"] if named else []
    advice += ["set gpu_id to '' for the CPU"] if on_gpu else []
    return (", or ".join(advice) or "use smaller data or a larger machine") + "."
