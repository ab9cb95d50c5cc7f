"""A collection completed, with numbers that say how far to trust the invented rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from recbole_missing.graph.item_graph import interaction_graph
from recbole_missing.graph.smoothness import dirichlet_energy
from recbole_missing.imputation import make_imputer
from recbole_missing.imputation.base import Imputer, Table
from recbole_missing.imputation.tables import Collection
from recbole_missing.imputation.truth import Truth, hide

HELD_OUT = 10  # one row in so many


@dataclass(frozen=True)
class Completed:
    """What :func:`complete` returns.

    Args:
        features: modality -> ``(n_items, dim)``, float32, without a hole.
        report: modality -> ``dim``, what the imputer counted (``missing``, ``reached``,
            ``unreached``, ...), ``energy_before`` and ``energy_after`` (Dirichlet energy of the
            features on the co-interaction graph, missing rows first zeros, then completed) and
            ``held_out_rows``, ``held_out_cosine``, ``held_out_mse`` (:func:`held_out`).
    """

    features: dict[str, Tensor]
    report: dict[str, dict[str, Any]]


def complete(
    collection: Collection, settings: Mapping[str, Any], seed: int = 0, engine: Any = None
) -> Completed:
    """Complete every modality of a collection and report on it.

    Args:
        collection: see :mod:`recbole_missing.imputation.tables`.
        settings: ``imputation`` and all ``imputation_*`` keys.
        seed: of the rows that are held out for the reconstruction error.
        engine: runs the blocks (:mod:`recbole_missing.parallel`); default as it is.
    """
    imputer = _fitted(collection, settings, engine)
    features = _transform(imputer, collection.tables)
    counted = imputer.report_
    errors = held_out(imputer, collection.tables, seed)
    graph = _item_graph(imputer, collection, settings["imputation_top_k"])
    report = {}
    for name, table in collection.tables.items():
        energies = [float(dirichlet_energy(x, graph)) for x in (table.features, features[name])]
        report[name] = {
            "dim": table.features.shape[1],
            **counted[name],
            **dict(zip(("energy_before", "energy_after"), energies)),
            **errors[name],
        }
    return Completed(features, report)


def fill(collection: Collection, settings: Mapping[str, Any]) -> dict[str, Tensor]:
    """Complete every modality without a report; arguments as in :func:`complete`."""
    return _transform(_fitted(collection, settings), collection.tables)


def held_out(imputer: Imputer, tables: Mapping[str, Table], seed: int) -> dict[str, dict[str, Any]]:
    """Hide a tenth of the observed rows of each modality, complete them, compare with the truth.

    Args:
        imputer: fitted.
        tables: each modality's rows are drawn by themselves, so most of them keep the others.
        seed: of the draw.

    Returns:
        modality -> number of ``held_out_rows``; the mean of their ``held_out_cosine`` (a row of
        zeros counts as 0); ``held_out_mse``, their mean squared error after every column was
        divided by its standard deviation over the observed rows, so that the mean row gets about
        1. None where fewer than two rows are observed.
    """
    generator = torch.Generator().manual_seed(seed)
    hidden = {name: _draw(table, generator) for name, table in tables.items()}
    masked = {}
    for name, table in tables.items():
        drawn = torch.zeros_like(table.observed)
        drawn[hidden[name]] = True
        masked[name] = hide(table, drawn)
    features = _transform(imputer, masked)
    return {name: _errors(tables[name], features[name], rows) for name, rows in hidden.items()}


def _fitted(collection: Collection, settings: Mapping[str, Any], engine: Any = None) -> Imputer:
    imputer = make_imputer(settings)
    imputer.engine = engine or imputer.engine
    return imputer.fit(collection.interactions, collection.donors, collection.edges)


def _item_graph(imputer: Imputer, collection: Collection, top_k: int) -> Any:
    """The co-interaction graph; the imputer's own if it has built one."""
    if getattr(imputer, "graph", None) == "co_interaction" and hasattr(imputer, "graph_"):
        return imputer.graph_
    return interaction_graph(collection.interactions, imputer.donors_, top_k)


def _transform(imputer: Imputer, tables: Mapping[str, Table]) -> dict[str, Tensor]:
    features = {name: table.features for name, table in tables.items()}
    observed = {name: table.observed for name, table in tables.items()}
    completed: dict[str, Tensor] = imputer.transform(features, observed)
    return completed


def _draw(table: Table, generator: torch.Generator) -> Tensor:
    """Rows to hide; at least one row of the modality is left."""
    known = table.observed.nonzero()[:, 0]
    count = min(len(known) - 1, max(1, len(known) // HELD_OUT))
    return known[torch.randperm(len(known), generator=generator)[:count]]


def _errors(table: Table, guess: Tensor, rows: Tensor) -> dict[str, Any]:
    if not len(rows):
        return {"held_out_rows": 0, "held_out_cosine": None, "held_out_mse": None}
    cosine, mse = Truth(table).errors(guess, rows)
    return {
        "held_out_rows": len(rows),
        "held_out_cosine": float(cosine.mean()),
        "held_out_mse": float(mse.mean()),
    }
