"""Imputation of missing modality features; usable without RecBole."""

from __future__ import annotations

from collections.abc import Mapping
from logging import getLogger
from typing import TYPE_CHECKING, Any

from recbole_missing.config import constraints as setting
from recbole_missing.config import defaults
from recbole_missing.registry import Registry

if TYPE_CHECKING:
    from scipy import sparse
    from torch import Tensor

    from recbole_missing.imputation.base import Imputer
    from recbole_missing.imputation.diffusion import (
        Heat,
        HeatUntruncated,
        PersPageRank,
        PersPageRankUntruncated,
    )
    from recbole_missing.imputation.learned import AutoEncoder, GraphAutoEncoder
    from recbole_missing.imputation.neighbour import NearestNeighbour
    from recbole_missing.imputation.propagation import FeatProp, NeighMean
    from recbole_missing.imputation.statistics import Mean, Random, Zeros
    from recbole_missing.modality import Modalities

IMPUTERS: Registry[Imputer] = Registry(
    "imputation",
    "register_imputer",
    {
        "autoencoder": "recbole_missing.imputation.learned:AutoEncoder",
        "featprop": "recbole_missing.imputation.propagation:FeatProp",
        "graph_autoencoder": "recbole_missing.imputation.learned:GraphAutoEncoder",
        "heat": "recbole_missing.imputation.diffusion:Heat",
        "heat_untruncated": "recbole_missing.imputation.diffusion:HeatUntruncated",
        "mean": "recbole_missing.imputation.statistics:Mean",
        "nearest_neighbour": "recbole_missing.imputation.neighbour:NearestNeighbour",
        "neigh_mean": "recbole_missing.imputation.propagation:NeighMean",
        "pers_page_rank": "recbole_missing.imputation.diffusion:PersPageRank",
        "pers_page_rank_untruncated": (
            "recbole_missing.imputation.diffusion:PersPageRankUntruncated"
        ),
        "random": "recbole_missing.imputation.statistics:Random",
        "zeros": "recbole_missing.imputation.statistics:Zeros",
    },
    base="recbole_missing.imputation.base:Imputer",
)
"""The table of imputers: word of the setting ``imputation`` -> ``module:Class``, alphabetical."""

_PREFIX = "imputation_"

__all__ = [
    "IMPUTERS",
    "AutoEncoder",
    "FeatProp",
    "GraphAutoEncoder",
    "Heat",
    "HeatUntruncated",
    "Imputer",
    "Mean",
    "NearestNeighbour",
    "NeighMean",
    "PersPageRank",
    "PersPageRankUntruncated",
    "Random",
    "Zeros",
    "impute",
    "imputer_defaults",
    "imputer_settings",
    "log_report",
    "make_imputer",
    "register_imputer",
]


def __getattr__(name: str) -> Any:
    """Import an imputer's class when it is first asked for, as in ``imputation.FeatProp``."""
    if name == "Imputer":
        from recbole_missing.imputation.base import Imputer

        return Imputer
    if name[:1].isupper():
        for imputer in IMPUTERS.values():
            if imputer.__name__ == name:
                return imputer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def register_imputer(imputer: type[Imputer]) -> type[Imputer]:
    """Make an imputer from outside the package known by its class name; usable as a decorator.

    Args:
        imputer: derived from :class:`~recbole_missing.imputation.base.Imputer`. Its optional class
            attribute ``properties`` (a dict, or the path of a YAML file) holds defaults of its
            ``hyperparameters``, by the names of the constructor's arguments.

    Raises:
        ValueError: if another class already has the name.
    """
    return IMPUTERS.register(imputer)


def imputer_settings(name: Any) -> dict[str, Any]:
    """Config keys of an imputer and their constraints.

    Args:
        name: word of the setting ``imputation``, name of a registered class, ``module:Class``, or a
            class.

    Raises:
        ValueError: if there is no such imputer.
    """
    declared = IMPUTERS.resolve(name).hyperparameters
    return {_PREFIX + key: constraint for key, constraint in declared.items()}


def imputer_defaults(name: Any) -> dict[str, Any]:
    """Config keys and default values that an imputer from outside brings in ``properties``.

    The defaults of this package's imputers are in ``overall.yaml``, so theirs are empty.

    Raises:
        ValueError: if there is no such imputer.
    """
    imputer = IMPUTERS.resolve(name)
    values = defaults.of_properties(imputer, getattr(imputer, "properties", {}))
    return {_PREFIX + key: value for key, value in values.items()}


def make_imputer(settings: Mapping[str, Any]) -> Imputer:
    """Build the imputer that ``settings["imputation"]`` names from its ``imputation_*`` keys.

    Raises:
        ValueError: for an unknown imputer or a setting outside its constraint.
    """
    name = settings["imputation"]
    declared = imputer_settings(name)
    absent = [key for key in declared if key not in settings]
    if absent:
        raise ValueError(
            f"{name}: {', '.join(absent)} must have a value, got none; give it (impute: --set), or "
            "write a default into `properties` of the class."
        )
    setting.check(str(name), settings, declared)
    chosen = {key[len(_PREFIX) :]: settings[key] for key in declared}
    return IMPUTERS.resolve(name)(**chosen)


def impute(
    modalities: Modalities,
    interactions: sparse.spmatrix,
    settings: Mapping[str, Any],
    donors: Tensor | None = None,
    edges: sparse.spmatrix | None = None,
) -> Modalities:
    """Complete every modality; only training interactions are used.

    Args:
        modalities: missing rows hold zeros.
        interactions: training interactions, shape ``(n_users, n_items)``, padding included.
        settings: ``imputation`` and its ``imputation_*`` keys.
        donors: bool ``(n_items,)``, items whose rows may enter a mean; default all.
        edges: an item graph of the user's own, shape ``(n_items, n_items)``.

    Returns:
        New modalities; observed rows and ``observed`` are those of the input.
    """
    from recbole_missing.imputation.base import imputing

    imputer = make_imputer(settings)
    with imputing(imputer):
        completed: Modalities = imputer.fit(interactions, donors, edges).transform(modalities)
    log_report(settings["imputation"], imputer)
    return completed


def log_report(method: str, imputer: Imputer, remark: str = "") -> None:
    """Log what an imputer counted in its last :meth:`~Imputer.transform`, with a remark."""
    for name, counts in imputer.report_.items():
        numbers = ", ".join(f"{key} {value:g}" for key, value in counts.items())
        getLogger().info(f"imputation {method} of {name}: {numbers}{remark}")
