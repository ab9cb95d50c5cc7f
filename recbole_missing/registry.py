"""Classes by name: those of this package, registered ones, and ``module:Class`` from outside.

There are three registries: :data:`recbole_missing.model.MODELS`,
:data:`recbole_missing.imputation.IMPUTERS`, and :data:`recbole_missing.baseline.BASELINES` with the
models that stand in place of RecBole's of the same name. A name in a config file, on the command
line, in a benchmark file or in a checkpoint becomes a class here and nowhere else. RecBole's own
models are found by :func:`recbole_missing.plugin.get_model`, which asks the registries first.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

from recbole_missing.config.constraints import unknown

T = TypeVar("T")


class Registry(Mapping[str, "type[T]"], Generic[T]):
    """Name -> class of one kind. As a mapping it holds this package's own classes.

    A module is imported when its class is first asked for, so that a table costs nothing.

    Args:
        kind: what the classes are, as error messages say it.
        register: name of the function that registers a class from outside, for error messages.
        table: name -> ``module:Class``, alphabetical.
        base: ``module:Class`` from which a class from outside must derive; None for no such class.

    Attributes:
        registered: name -> class from outside the package, made known by :meth:`register`.
    """

    def __init__(
        self, kind: str, register: str, table: Mapping[str, str], base: str | None = None
    ) -> None:
        """Store the table; nothing is imported yet."""
        self._base = base
        self.kind = kind
        self.register_name = register
        self.registered: dict[str, type[T]] = {}
        self._table = dict(table)
        self._given: dict[str, type[T]] = {}  # by address; these never answer to a short name

    def __getitem__(self, name: str) -> type[T]:
        """Return the class of this package that has this name."""
        return _import(self._table[name])

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names of this package's own classes."""
        return iter(self._table)

    def __len__(self) -> int:
        """Count this package's own classes."""
        return len(self._table)

    def __contains__(self, name: object) -> bool:
        """Tell whether this package has a class of this name, without importing it."""
        return isinstance(name, str) and name in self._table

    def register(self, cls: type[T]) -> type[T]:
        """Make a class from outside known by its name.

        Raises:
            ValueError: if another class already has the name.
        """
        name = cls.__name__
        holder = self.registered.get(name) or self.get(name)
        if holder is not None and address(holder) != address(cls):
            raise self.taken(cls, holder)
        self.registered[name] = self.remember(cls)
        return cls

    def taken(self, cls: type, holder: type) -> ValueError:
        """Return the error for a class whose name another class already has."""
        return ValueError(
            f"{self.register_name}: {cls.__name__!r} must be a name that is not taken, got a "
            f"second class ({cls.__module__} beside {holder.__module__}); rename yours."
        )

    def remember(self, cls: type[T]) -> type[T]:
        """Note a class that the user handed over, so that :meth:`find` knows its address."""
        self._given[address(cls)] = cls
        return cls

    def find(self, word: str) -> type[T] | None:
        """Return the class of a name or of an address ``module:Class``, or None.

        No code from outside is imported: an address is known only if the user has registered,
        passed or named the class in this process.
        """
        return self.registered.get(word) or self._given.get(word) or self.get(word)

    def resolve(self, word: str | type[T]) -> type[T]:
        """Return the class that the user means by a name, an address ``module:Class`` or itself.

        A module that an address names is imported, from the current folder too.

        Raises:
            ValueError: for an unknown name, or an address that does not lead to a class of this
                kind.
        """
        if isinstance(word, type):
            return self.remember(self._judged(word, word.__name__))
        word = str(word)
        found = self.find(word)
        if found is not None:
            return found
        if not is_address(word):
            raise ValueError(unknown(self.kind, word, {*self, *self.registered}))
        return self.remember(self._judged(import_class(self.kind, word), word))

    def _judged(self, cls: type, word: str) -> type[T]:
        base = object if self._base is None else _import(self._base)
        if not issubclass(cls, base):
            raise ValueError(
                f"{self.kind}: {word!r} must be a subclass of {address(base)}, got a class that is "
                "not; derive it."
            )
        return cast("type[T]", cls)

    def recorded(self, word: str, path: Path | str, option: str) -> type[T] | None:
        """Return the class that a checkpoint names; a checkpoint never makes Python import code.

        Args:
            word: the address in the checkpoint.
            path: the checkpoint, for the message.
            option: option of the command line that takes such an address.

        Raises:
            ValueError: if the user has not handed over that class in this process.
        """
        found = self.find(word)
        if found is None:
            raise ValueError(
                f"{path}: the {self.kind} {word} must be known before this checkpoint is read, for "
                f"a checkpoint imports no code; pass {option} {word}, or import the class and call "
                f"recbole_missing.{self.register_name}."
            )
        return found


class ModelName(str):
    """Name of a model that remembers its class, for a run that was given the class itself.

    RecBole keeps only the name in ``config["model"]`` and looks the class up again. With this name
    the look-up finds the very class, and no other run is affected.
    """

    model: type

    def __new__(cls, model: type) -> ModelName:
        """Take the name from the class."""
        name = super().__new__(cls, model.__name__)
        name.model = model
        return name

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle and copy the class along."""
        return ModelName, (self.model,)


def is_address(word: str) -> bool:
    """Tell whether ``word`` has the form ``module:Class``."""
    return ":" in word


def address(cls: type) -> str:
    """``module:Class`` of a class."""
    return f"{cls.__module__}:{cls.__qualname__}"


def is_outside(cls: type) -> bool:
    """Tell whether a class comes neither from this package nor from RecBole."""
    return cls.__module__.split(".")[0] not in ("recbole", "recbole_missing")


def _import(word: str) -> Any:
    module, _, name = word.partition(":")
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    return found


_imports_allowed: ContextVar[bool] = ContextVar("_imports_allowed", default=True)


class NotImportedError(ValueError):
    """A class from outside is named where only what is already imported may be used."""


@contextmanager
def without_imports() -> Iterator[None]:
    """Import no module that an address names. One that is already imported can be used."""
    token = _imports_allowed.set(False)
    try:
        yield
    finally:
        _imports_allowed.reset(token)


def import_class(kind: str, word: str) -> type:
    """Import the class that ``module:Class`` names, from the current folder too.

    Args:
        kind: what the class is to be, for error messages.
        word: the address.

    Raises:
        ValueError: if it does not lead to a class.
        NotImportedError: inside :func:`without_imports`, if its module is not imported yet.
    """
    if not _imports_allowed.get() and word.partition(":")[0] not in sys.modules:
        raise NotImportedError(
            f"{kind} {word!r}: must be imported already, got a module that is not."
        )
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        cls = _import(word)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"{kind}: {word!r} must be module:Class of something that Python can import, "
            f"got: {error}."
        ) from error
    if not inspect.isclass(cls):
        raise ValueError(f"{kind}: {word!r} must be module:Class, got a {type(cls).__name__}.")
    return cls
