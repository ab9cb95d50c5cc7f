"""torch's optimisers without its compiler.

torch's optimisers import its compiler, ``torch._dynamo``, only to tell it to leave them alone. That
takes 1.6 s and 70 MB. :data:`OPTIM` holds the same optimisers without it.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_METHODS = ("add_param_group", "load_state_dict", "state_dict", "step", "zero_grad")


class _Optim:
    """``torch.optim``, whose optimisers do the same arithmetic and do not import the compiler.

    An optimiser is torch's own where the compiler is there already, and where somebody has changed
    one of its methods.
    """

    def __getattr__(self, name: str) -> Any:
        value = getattr(importlib.import_module("torch.optim"), name)
        is_optimizer = hasattr(value, "add_param_group") and name != "Optimizer"
        if not is_optimizer or "torch._dynamo" in sys.modules or not _is_torchs(value):
            return value
        return _without_compiler(value)


OPTIM = _Optim()


def _is_torchs(optimizer: type) -> bool:
    """Whether all methods, and all that wraps them, are code of torch."""
    import torch

    folder = Path(torch.__file__).parent
    layers = [part for name in _METHODS for part in _layers(getattr(optimizer, name))]
    code = [getattr(part, "__code__", None) for part in layers]
    return all(one is not None and folder in Path(one.co_filename).parents for one in code)


def _layers(function: Any) -> Iterator[Any]:
    """A function, and one after the other what it wraps."""
    while function is not None:
        yield function
        function = getattr(function, "__wrapped__", None)


@functools.cache
def _without_compiler(optimizer: type) -> type:
    """A subclass of the same name, of whose methods the decorators for the compiler are left out.

    These decorators also set the mode of gradients in ``step``, which is done here.
    """
    import torch

    plain = {name: inspect.unwrap(getattr(optimizer, name)) for name in _METHODS}
    original = plain["step"]

    def step(self: Any, closure: Any = None) -> Any:
        with torch.set_grad_enabled(self.defaults.get("differentiable", False)):
            return original(self, closure)

    def reduce(self: Any, protocol: Any) -> Any:
        """Be a plain optimiser of torch in a pickle and in a copy."""
        return object.__new__, (optimizer,), self.__getstate__()  # type: ignore[attr-defined]

    methods = {**plain, "step": step, "__reduce_ex__": reduce}
    return type(optimizer.__name__, (optimizer,), methods)
