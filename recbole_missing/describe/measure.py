"""Measure a data set: one flow from its splits to a :class:`Description`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from recbole_missing.data import scale
from recbole_missing.describe import advice, content, counts, imputers
from recbole_missing.describe.arrays import Arrays
from recbole_missing.describe.description import Description


def describe(
    splits: list[Any],
    settings: Mapping[str, Any] | None = None,
    seed: int = 0,
    thorough: bool = False,
    notes: Sequence[str] = (),
) -> Description:
    """Take a first look at a data set.

    Training interactions are read, and validation interactions as the held-out ones. The test
    split gives the number of its interactions and nothing else, so that a choice that follows from
    a description does not know it. The same data and seed give the same description.

    Args:
        splits: training, validation and test split, from
            :meth:`recbole_missing.data.dataset.MultimodalDataset.build`. Hidden modalities count as
            missing, as in a run.
        settings: the ``imputation_*`` keys; default: those of the data set's config.
        seed: of every draw: random pairs, hidden items and rows, and users if there are many.
        thorough: compare the imputers that take long, too (:data:`.imputers.SLOW`).
        notes: lines for people, kept as they are.

    Raises:
        ValueError: for a setting of an imputer outside its constraint.
    """
    config = splits[0].config
    arrays = Arrays.of(splits)
    found, baselines, of_users = content.measured(arrays, seed)
    found = {name: replace(one, level=advice.level(one)) for name, one in found.items()}
    words = imputers.methods(thorough)
    chosen = imputers.settings_of(config, words) if settings is None else settings
    data, missing = counts.data(arrays, _mask(config)), counts.missing(arrays)
    advised = advice.carrying(data, found)
    scaled = _scaled(config, advice.far_apart(missing.holes, advised))
    ranked = imputers.restored(arrays.standardised(scaled), words, chosen, seed, advised)
    best = {name: imputers.indistinguishable(one) for name, one in ranked.items()}
    return Description(
        arrays.name,
        seed,
        data,
        missing,
        baselines,
        of_users,
        found,
        scaled,
        ranked,
        best,
        advice.advice(data, missing, baselines, found, scaled, ranked, best),
        list(notes),
    )


def _scaled(config: Any, apart: list[str]) -> list[str]:
    """Modalities to scale: none if the user has chosen the scale of one of them."""
    return [] if any(scale.chosen(name, config) is not None for name in apart) else apart


def _mask(config: Any) -> str:
    protocol = config["missing_protocol"]
    if protocol == "file":
        return f"file {config['missing_file']}"
    return protocol if protocol == "none" else f"{protocol} {config['missing_ratio']:g}"
