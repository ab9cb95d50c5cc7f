"""Imports that wait until they are used.

RecBole imports Ray, TensorBoard and scikit-learn at the top of its modules, and a plain run uses
none of them before its first epoch ends. So, while one of these modules is executed,
:func:`waiting` puts a stand-in into ``sys.modules`` for each such name. The module takes from the
stand-in what it would have taken from the real one, and the real one is imported when that is
called or an attribute of it is read. Afterwards ``sys.modules`` is as it was. A module that is
imported already is left alone. (``importlib.util.LazyLoader`` would import at ``from ray import
tune`` already.)
"""

from __future__ import annotations

import functools
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.machinery import ModuleSpec
from typing import Any

OF_RECBOLE = {
    "recbole.evaluator.metrics": ("sklearn.metrics",),
    "recbole.model.general_recommender.slimelastic": ("sklearn.linear_model", "scipy.stats"),
    "recbole.quick_start.quick_start": ("ray",),
    "recbole.utils.utils": ("torch.utils.tensorboard",),
}
"""Module of RecBole -> what it imports at its top and may wait."""

_PACKAGES = {"sklearn": "scikit-learn", "torch": "tensorboard"}  # of torch this is all that waits


@contextmanager
def waiting(*names: str) -> Iterator[None]:
    """Let modules that are imported in this block for the first time wait for their use."""
    stand_ins: dict[str, Any] = {name: _Module(name) for name in names if name not in sys.modules}
    sys.modules.update(stand_ins)
    try:
        yield
    finally:
        for name, stand_in in stand_ins.items():
            stand_in.is_open = False
            if sys.modules.get(name) is stand_in:
                del sys.modules[name]


def load(name: str, *parts: str) -> Any:
    """Import a module that waited, and those of ``parts`` that are modules inside it.

    Raises:
        ImportError: if it is absent; the message says what to install.
    """
    before = signal.getsignal(signal.SIGTERM)
    if isinstance(sys.modules.get(name), _Module):  # it is used before the block ends
        del sys.modules[name]
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="pkg_resources is deprecated")  # by Ray
            return __import__(name, fromlist=parts or ("",))
    except ModuleNotFoundError as error:
        root = name.split(".")[0]
        package = _PACKAGES.get(root, root)
        raise ImportError(f"{error}; run `pip install {package}`.") from error
    finally:
        with suppress(ValueError, TypeError):  # another thread; a handler that is not Python's
            signal.signal(signal.SIGTERM, before)  # Ray takes it


@functools.cache
def _real(module: str, part: str) -> Any:
    return getattr(load(module, part), part)


class _Module:
    """Stand-in of a module; its attributes wait too, as long as it stands in ``sys.modules``."""

    def __init__(self, name: str) -> None:
        self.name, self.is_open = name, True
        self.__spec__ = ModuleSpec(name, None)  # for those who look whether the module is there

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("_"):
            raise AttributeError(attribute)
        return _Part(self.name, attribute) if self.is_open else _real(self.name, attribute)


class _Part:
    """Stand-in of a function, a class or a module inside a module."""

    def __init__(self, module: str, name: str) -> None:
        self._of = module, name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return _real(*self._of)(*args, **kwargs)

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[Any, ...]:
        """Be the real class where another one derives from it, which does not wait."""
        return (_real(*self._of),)

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("_"):  # of those who look at it, as inspect, pickle and copy do
            raise AttributeError(attribute)
        return getattr(_real(*self._of), attribute)
