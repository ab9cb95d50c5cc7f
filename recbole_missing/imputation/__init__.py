"""Imputation of missing modality features; usable without RecBole."""

from __future__ import annotations

from collections.abc import Mapping
from logging import getLogger
from typing import Any

from scipy import sparse
from torch import Tensor

from recbole_missing.config import constraints as setting
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

IMPUTERS: dict[str, type[Imputer]] = {
    "autoencoder": AutoEncoder,
    "featprop": FeatProp,
    "graph_autoencoder": GraphAutoEncoder,
    "heat": Heat,
    "heat_untruncated": HeatUntruncated,
    "mean": Mean,
    "nearest_neighbour": NearestNeighbour,
    "neigh_mean": NeighMean,
    "pers_page_rank": PersPageRank,
    "pers_page_rank_untruncated": PersPageRankUntruncated,
    "random": Random,
    "zeros": Zeros,
}

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
    "imputer_settings",
    "log_report",
    "make_imputer",
]


def imputer_settings(name: str) -> dict[str, Any]:
    """Config keys of an imputer and their constraints.

    Raises:
        ValueError: if there is no imputer of this name.
    """
    if name not in IMPUTERS:
        raise ValueError(setting.unknown("imputation", str(name), IMPUTERS))
    declared = IMPUTERS[name].hyperparameters
    return {f"imputation_{key}": constraint for key, constraint in declared.items()}


def make_imputer(settings: Mapping[str, Any]) -> Imputer:
    """Build the imputer that ``settings["imputation"]`` names from its ``imputation_*`` keys.

    Raises:
        ValueError: for an unknown imputer or a setting outside its constraint.
    """
    name = settings["imputation"]
    declared = imputer_settings(name)
    setting.check(name, settings, declared)
    prefix = len("imputation_")
    return IMPUTERS[name](**{key[prefix:]: settings[key] for key in declared})


def impute(
    modalities: Modalities,
    interactions: sparse.spmatrix,
    settings: Mapping[str, Any],
    donors: Tensor | None = None,
    edges: sparse.spmatrix | None = None,
) -> Modalities:
    """Complete every modality from the training interactions alone.

    Args:
        modalities: missing rows hold zeros.
        interactions: training interactions, shape ``(n_users, n_items)``, padding included.
        settings: ``imputation`` and its ``imputation_*`` keys.
        donors: bool ``(n_items,)``, items whose rows may enter a mean; default all.
        edges: an item graph of the user's own, shape ``(n_items, n_items)``.

    Returns:
        New modalities; observed rows and ``observed`` are those of the input.
    """
    imputer = make_imputer(settings)
    completed: Modalities = imputer.fit(interactions, donors, edges).transform(modalities)
    log_report(settings["imputation"], imputer)
    return completed


def log_report(method: str, imputer: Imputer) -> None:
    """Log what an imputer counted in its last :meth:`~Imputer.transform`."""
    for name, counts in imputer.report_.items():
        numbers = ", ".join(f"{key} {value:g}" for key, value in counts.items())
        getLogger().info(f"imputation {method} of {name}: {numbers}")
