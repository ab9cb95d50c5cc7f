"""The contract of an imputer, on one page."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from logging import getLogger
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from recbole_missing import lazy
from recbole_missing.config import constraints as setting
from recbole_missing.config import defaults
from recbole_missing.imputation import arrays
from recbole_missing.memory import fits
from recbole_missing.modality import Modalities, Modality
from recbole_missing.parallel import SERIAL

with lazy.waiting("scipy.stats"):  # half a second, for other methods
    from sklearn.base import BaseEstimator
    from sklearn.utils.validation import check_is_fitted


class Table(NamedTuple):
    """One modality as an imputer sees it; a :class:`Modality` has the same attributes.

    ``features`` is ``(n_items, dim)``, float32, and ``observed`` bool ``(n_items,)``; rows that
    are not observed count as absent, whatever they hold.
    """

    name: str
    features: Tensor
    observed: Tensor


class Filled(NamedTuple):
    """What an imputer makes of one table.

    ``features`` is ``(n_items, dim)``; only its missing rows are used. ``reached`` bool
    ``(n_items,)`` says which values are the method's own and not its fallback (None: all of them).
    ``details`` are numbers for the report.
    """

    features: Tensor
    reached: Tensor | None = None
    details: Mapping[str, float] = {}


@contextmanager
def fixed_generators() -> Iterator[None]:
    """Set the global generators of Python, numpy and torch to a fixed seed; put them back after."""
    of_python, of_numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        random.seed(0)
        np.random.seed(0)
        torch.manual_seed(0)
        try:
            yield
        finally:
            random.setstate(of_python)
            np.random.set_state(of_numpy)


@contextmanager
def imputing(imputer: Imputer) -> Iterator[None]:
    """Run an imputer by fixed generators, and say what to lower if memory runs out."""
    names = [name for name in _MEMORY if getattr(imputer, name, None) is not None]
    knobs = {f"imputation_{name}": getattr(imputer, name) for name in names}
    with fits(f"imputation by {type(imputer).__name__}", knobs), fixed_generators():
        yield


_MEMORY = ("top_k", "max_user_items", "batch_size", "hidden_sizes")  # settings that cost memory


class Imputer(BaseEstimator):  # type: ignore[misc]
    """Invents values for the items that lack a modality, before any model sees them.

    The habits are scikit-learn's. The constructor only stores its arguments (``get_params``,
    ``set_params`` and ``clone`` work); :meth:`fit` learns what it needs from the training
    interactions (attributes that end in an underscore); :meth:`transform` returns new features of
    the kind that it was given. Every imputer keeps four promises: observed rows are bit-identical;
    who is observed is unchanged, so that models still know what was missing; nothing is mutated;
    every value is finite.

    Draws come from seeds of an imputer's settings. While an imputer runs for this package, the
    global generators are set to a fixed seed, and afterwards they are put back
    (:func:`fixed_generators`). So one that draws from them depends on nothing else in the process.

    A subclass declares its arguments in ``hyperparameters`` and has no constructor of its own. The
    default of an argument stands in ``properties/overall.yaml``, under its name behind
    ``imputation_``, and nowhere else.

    Attributes:
        hyperparameters: name of an argument -> constraint (:mod:`recbole_missing.config`).
        properties: for imputers from outside the package: defaults of arguments that
            ``overall.yaml`` does not have, a dict or the path of a YAML file.
        costly: whether results are worth a file (:mod:`recbole_missing.data.cache`).
        engine: runs blocks of work (:mod:`recbole_missing.parallel`); set it on an instance.
        report_: after :meth:`transform`, modality -> number of ``items`` and of ``missing``,
            ``reached`` and ``unreached`` rows, and what else the method counts.
    """

    hyperparameters: ClassVar[Mapping[str, Any]] = {}
    properties: ClassVar[Any] = {}
    costly: ClassVar[bool] = True
    engine: Any = SERIAL
    donors_: Tensor
    items_: list[Any] | None
    report_: dict[str, dict[str, float]]

    def __init__(self, **settings: Any) -> None:
        """Store the settings; one that is not given gets its default.

        Raises:
            TypeError: for a setting that the imputer does not have, or that has no default.
        """
        for name in settings:
            if name not in self.hyperparameters:
                kind = f"setting of {type(self).__name__}"
                raise TypeError(setting.unknown(kind, name, self.hyperparameters))
        for name in self.hyperparameters:
            setattr(self, name, settings[name] if name in settings else self._default(name))

    @classmethod
    def _get_param_names(cls) -> list[str]:
        """Names of the settings, for scikit-learn."""
        if cls.__init__ is not Imputer.__init__:  # a constructor of its own states them
            return list(super()._get_param_names())
        return sorted(cls.hyperparameters)

    @classmethod
    def _default(cls, name: str) -> Any:
        own = cls.properties
        for values, key in (
            (defaults.of_properties(cls, own), name),
            (defaults.read("", "overall"), f"imputation_{name}"),
        ):
            if key in values:
                return values[key]
        raise TypeError(
            f"{cls.__name__}: {name} must be given, for it has no default; pass {name}=... or add "
            f"it to the class attribute properties."
        )

    def __sklearn_clone__(self) -> Imputer:
        """Copy the settings and the engine, as ``sklearn.base.clone`` does the settings."""
        twin: Imputer = super().__sklearn_clone__()
        twin.engine = self.engine
        return twin

    def fit(self, interactions: Any, donors: Any = None, edges: Any = None) -> Imputer:
        """Learn from the training interactions.

        Args:
            interactions: matrix ``(n_users, n_items)`` of scipy (any sparse format), numpy, torch
                (dense or sparse) or pandas; any non-zero entry is one interaction.
            donors: bool ``(n_items,)``, items whose rows may enter a mean or be copied; default
                all. In the new-item setting new items are none.
            edges: shape ``(n_items, n_items)``, an item graph of the user's own, row = receiving
                item, for methods that are told to use it.

        Raises:
            ValueError: if a setting breaks its constraint, an array is of another kind or shape, or
                an interaction is NaN, infinite or negative.
        """
        who = type(self).__name__
        stored = {key: getattr(self, key) for key in self.hyperparameters if hasattr(self, key)}
        setting.check(who, stored, {key: self.hyperparameters[key] for key in stored})
        matrix = arrays.as_interactions(who, interactions)
        n_items = matrix.shape[1]
        everyone = torch.ones(n_items, dtype=torch.bool)
        self.donors_ = (
            everyone if donors is None else arrays.as_mask(who, "donors", donors, n_items)
        )
        self.items_ = arrays.labels(interactions, "columns")
        if edges is not None:
            edges = arrays.as_sparse(who, "edges", "(n_items, n_items)", edges)
            if getattr(self, "graph", None) != "edges":
                getLogger().warning(f"{who}: the given edges have no effect; set graph to edges.")
        self.learn(matrix, edges)
        return self

    def learn(self, interactions: sparse.csr_matrix, edges: sparse.csr_matrix | None) -> None:
        """Keep what the method needs; ``fit`` has checked both matrices. Default: nothing."""

    def transform(self, X: Any, observed: Any = None) -> Any:  # noqa: N803 (scikit-learn's name)
        """Complete the missing rows.

        Args:
            X: a :class:`Modalities`, a :class:`Modality`, an array ``(n_items, dim)`` (numpy or
                torch, pandas or scipy) or a dict of arrays, one a modality. In arrays a row in
                which every number is NaN is missing.
            observed: for arrays, bool ``(n_items,)`` or a dict of them: who truly has the
                modality; other rows may hold anything. Default: rows that are not NaN.

        Returns:
            The same kind as ``X``; arrays come back in float32, as tensors where ``X`` is one and
            as numpy arrays otherwise.

        Raises:
            NotFittedError: before :meth:`fit`.
            ValueError: if no item has a modality, a shape does not fit the interactions, an
                observed row holds a number that is not finite in float32, or numbers are so large
                that the method's own values are not.
        """
        check_is_fitted(self, "donors_")
        if isinstance(X, Modalities):
            filled = self._complete(X)
            return Modalities([X[name].filled(filled[name]) for name in X])
        if isinstance(X, Modality):
            return X.filled(self._complete({X.name: X})[X.name])
        if not isinstance(X, Mapping):
            if isinstance(observed, Mapping):
                raise ValueError(
                    "observed: must be an array where X is one, got a dict; match them."
                )
            named = None if observed is None else {"X": observed}
            return self.transform({"X": X}, named)["X"]
        if observed is not None and not (isinstance(observed, Mapping) and set(observed) <= set(X)):
            raise ValueError(
                f"observed: must be a dict with names among {list(X)}, as X is one, got "
                f"{list(observed) if isinstance(observed, Mapping) else type(observed).__name__}."
            )
        for name, x in X.items():
            self._check_labels(name, arrays.labels(x, "index"))
        tables = {
            name: Table(name, *arrays.as_features(name, x, (observed or {}).get(name)))
            for name, x in X.items()
        }
        filled = self._complete(tables)
        return {name: _like(X[name], _merge(tables[name], filled[name])) for name in X}

    def fill(self, table: Any, others: Mapping[str, Any]) -> Filled:
        """Values for every row of ``table``.

        Args:
            table: a :class:`Table` or :class:`Modality`, observed for at least one item.
            others: the other modalities by name.
        """
        raise NotImplementedError

    def mean_row(self, table: Any) -> Tensor:
        """Mean feature row, shape ``(dim,)``, over the observed donors.

        If no donor is observed, over all observed items.
        """
        donors = table.observed & self.donors_
        rows = table.features[donors if donors.any() else table.observed]
        return rows.double().mean(dim=0).float()

    def _complete(self, tables: Mapping[str, Any]) -> dict[str, Tensor]:
        self.report_, values = {}, {}
        for name, table in tables.items():
            self._check(table)
            others = {other: tables[other] for other in tables if other != name}
            with np.errstate(over="ignore", invalid="ignore"):  # _check_filled says it better
                filled = self.fill(table, others)
            if not isinstance(filled, Filled):
                kind = type(filled).__name__
                raise TypeError(f"{type(self).__name__}: fill must return a Filled, got a {kind}.")
            missing = ~table.observed
            self._check_filled(table, filled.features, missing)
            reached = missing if filled.reached is None else missing & filled.reached
            counts = {"items": len(missing), "missing": int(missing.sum())}
            counts.update(reached=int(reached.sum()), unreached=int((missing & ~reached).sum()))
            details = {key: _plain(number) for key, number in filled.details.items()}
            self.report_[name] = {**counts, **details}
            values[name] = filled.features
        return values

    def _check(self, table: Any) -> None:
        who = f"modality {table.name!r}"
        if len(table.features) != len(self.donors_):
            raise ValueError(
                f"{who}: must have a row for each of the {len(self.donors_)} items of the "
                f"interactions, got {len(table.features)}; align them."
            )
        if not table.observed.any():
            raise ValueError(
                f"{who}: must be observed for at least one item, got none; drop it from "
                "`modalities` or lower missing_ratio."
            )
        broken = arrays.not_finite(table.features, table.observed)
        if len(broken):
            raise ValueError(
                f"{who}: observed rows must be finite, got NaN or inf in {len(broken):,} such as "
                f"{broken[:5].tolist()}; repair them, or make observed False there."
            )

    def _check_labels(self, name: str, rows: list[Any] | None) -> None:
        columns = getattr(self, "items_", None)
        if rows is not None and columns is not None and rows != columns:
            raise ValueError(
                f"modality {name!r}: rows must be named as the columns of the interactions and in "
                f"their order, got {rows[:3]} and {columns[:3]}; use X.loc[interactions.columns]."
            )

    def _check_filled(self, table: Any, values: Tensor, missing: Tensor) -> None:
        """Nothing that is not finite leaves an imputer."""
        who, shape = type(self).__name__, tuple(table.features.shape)
        if tuple(values.shape) != shape:
            raise ValueError(
                f"{who}: fill must return features {shape}, got {tuple(values.shape)}; mend it."
            )
        broken = arrays.not_finite(values, missing)
        if len(broken):
            largest = float(table.features[table.observed].abs().max())
            raise ValueError(
                f"{who}: values for modality {table.name!r} must be finite in float32, got NaN or "
                f"inf in {len(broken):,} of {int(missing.sum()):,} rows, features reach "
                f"{largest:.3g}; divide them by a number if that is why."
            )


def _merge(table: Table, values: Tensor) -> Tensor:
    return torch.where(table.observed[:, None], table.features, values.float())


def _plain(number: Any) -> Any:
    """A number of numpy or torch as one of Python, which JSON knows."""
    return number.item() if isinstance(number, (np.generic, np.ndarray, Tensor)) else number


def _like(given: Any, result: Tensor) -> Any:
    return result if isinstance(given, Tensor) else result.numpy()
