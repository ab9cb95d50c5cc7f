"""Cross-modal retrieval: is the feature that was made for a hidden one close to the true one?

The query is the feature that a model or an imputer made for an item whose modality was hidden. The
true features of all items that have the modality are ranked by their cosine with the query. The
query is a hit if the item's own true feature is among the first k.

Two cosines tie if they are equal on a grid of 2^-20. Ties count as if they were in random order. If
b candidates are better than the item's own feature, and t candidates tie with it, itself included,
the probability of a hit is min(max((k - b) / t, 0), 1). So a query that is the same for all items
gets at most k hits in total, and a row of zeros gets exactly the chance level.

The control repeats the measure with true features that changed places: every item whose modality
was hidden gets the feature of another one. The queries stay as they are. A method that finds
features falls to the chance level. A method that still hits finds the item by something else that
the query and the candidate share, such as the gate of DGMRec. Then a hit says nothing about
features.

Source: Kim, Kang, Kim, Kim and Park, "Disentangling and Generating Modalities for Recommendation in
Missing Modality Scenarios", SIGIR 2025. The baseline there copies the feature of the nearest item.
The control is ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Optional

import torch
from scipy import sparse
from torch import Tensor

from recbole_missing.graph.knn import Cosines, block_rows, places
from recbole_missing.imputation import NearestNeighbour
from recbole_missing.modality import Modalities, Modality

TOP = (10, 20)

Groups = dict[str, Optional[dict[str, float]]]
"""``"<n> missing"`` -> ``items``, ``hit@k`` and ``chance@k``, or None where undefined."""


def evaluate(model: Any, dataset: Any, ks: Sequence[int] = TOP) -> dict[str, dict[str, Groups]]:
    """Measure retrieval by what a model made, and by the features of the nearest item.

    All use the same mask.

    Args:
        model: a :class:`~recbole_missing.model.base.MultimodalRecommender`. It may have a method
            ``retrieval_spaces``. This takes features (modality -> ``(n_items, dim)``), and gives
            name of a space -> modality -> what the model made for each item without these
            features, and what it makes of them; both ``(n_items, d)``.
        dataset: the data set that it was built from, or another split of it. Its files are read
            again to get the true features.
        ks: lengths of the lists.

    Returns:
        Source -> modality -> what :func:`retrieval` gives, and ``control@k``, the ``hit@k`` of the
        control. Sources are ``model`` (its completed features), the spaces of the model, and
        ``nearest_neighbour``. An item that lacks every modality has no
        nearest neighbour; the group of these items is None under ``nearest_neighbour``.

    Raises:
        ValueError: if the model has no modalities, or nothing is hidden.
    """
    if not hasattr(model, "completed_features"):
        raise ValueError(
            f"retrieval: must be given a model with modalities, got {type(model).__name__}; "
            "choose one of `recbole-missing doctor`."
        )
    given, true = dataset.modalities, dataset.true_features()
    if not (true.observed & ~given.observed).any():
        raise ValueError(
            "retrieval: an experiment must hide features that can be searched for, got none "
            "hidden; set missing_protocol."
        )
    features = {
        "model": model.completed_features(),
        "nearest_neighbour": _copied(given, ~dataset.new_items),
    }
    device = model.observed.device
    made = {
        source: {name: rows.to(device) for name, rows in tables.items()}
        for source, tables in features.items()
    }
    results = _searched(model, made, true, given.observed, ks)
    control = _searched(model, made, _exchanged(true, given.observed), given.observed, ks)
    for source, by_modality in results.items():
        for name, groups in by_modality.items():
            for group, values in groups.items():
                other = control[source][name][group]
                values.update({f"control@{k}": other[f"hit@{k}"] for k in ks})
    for groups in results["nearest_neighbour"].values():
        groups.update({key: None for key in groups if key == f"{len(given)} missing"})
    return results


def _searched(
    model: Any,
    made: Mapping[str, Mapping[str, Tensor]],
    true: Modalities,
    observed: Tensor,
    ks: Sequence[int],
) -> dict[str, dict[str, Groups]]:
    """Retrieval by the features ``made`` (source -> modality), and in the spaces of the model."""
    results = {"model": retrieval(true, made["model"], observed, ks)}
    truth = {name: modality.features.to(model.observed.device) for name, modality in true.items()}
    spaces = model.retrieval_spaces(truth) if hasattr(model, "retrieval_spaces") else {}
    for space, pairs in spaces.items():
        queries = {name: query for name, (query, _) in pairs.items()}
        candidates = {name: _candidates(true[name], rows) for name, (_, rows) in pairs.items()}
        results[space] = retrieval(candidates, queries, observed, ks)
    results["nearest_neighbour"] = retrieval(true, made["nearest_neighbour"], observed, ks)
    return results


def _candidates(true: Modality, rows: Tensor) -> Modality:
    """What a model makes of the true features, for the items that have them."""
    rows = torch.where(true.observed[:, None], rows.cpu(), torch.zeros(()))
    return Modality(true.name, rows, true.observed)


def _exchanged(true: Modalities, observed: Tensor) -> Modalities:
    """Every item whose modality was hidden gets the true feature of another such item.

    The order is random but always the same. If only one item is hidden, it keeps its feature.
    """
    generator, exchanged = torch.Generator().manual_seed(0), []
    for column, (name, modality) in enumerate(true.items()):
        hidden = (modality.observed & ~observed[:, column].to("cpu")).nonzero()[:, 0]
        order = hidden[torch.randperm(len(hidden), generator=generator)]
        rows = modality.features.clone()
        rows[order] = modality.features[order.roll(1)]
        exchanged.append(Modality(name, rows, modality.observed))
    return Modalities(exchanged)


@torch.no_grad()
def retrieval(
    true: Mapping[str, Modality],
    completed: Mapping[str, Tensor],
    observed: Tensor,
    ks: Sequence[int] = TOP,
) -> dict[str, Groups]:
    """Share of the hidden features that are found by the features made for them.

    Args:
        true: modality -> true features ``(n_items, dim)``. ``observed`` is True for items that
            truly have the modality.
        completed: modality -> completed features ``(n_items, dim)`` in the same space, on the
            device that computes. Only rows of hidden features are read.
        observed: bool ``(n_items, n_modalities)``, the modalities that were not hidden. Columns
            are in the order of ``true``.
        ks: lengths of the lists.

    Returns:
        Modality -> ``"<n> missing"`` (the number of modalities that the item lacks) -> ``items``
        (number of queries), ``hit@k`` (mean over queries) and ``chance@k`` (the value of a random
        order). Groups without a query are left out.

    Raises:
        ValueError: if the shape of completed features is not that of the true ones.
    """
    results: dict[str, Groups] = {}
    lacking = (~observed).sum(dim=1)
    for column, (name, modality) in enumerate(true.items()):
        made, shape = completed[name], tuple(modality.features.shape)
        if tuple(made.shape) != shape:
            raise ValueError(
                f"retrieval: completed features of {name!r} must have shape {shape}, got "
                f"{tuple(made.shape)}; give a row for each item, the padding included."
            )
        items = (modality.observed & ~observed[:, column].to("cpu")).nonzero()[:, 0]
        found = hits(modality, made, items, ks)
        results[name] = {}
        for count in range(1, observed.shape[1] + 1):
            mine = found[lacking[items].to("cpu") == count]
            if len(mine):
                results[name][f"{count} missing"] = _shares(mine, int(modality.observed.sum()), ks)
    return results


def _shares(hits: Tensor, n_candidates: int, ks: Sequence[int]) -> dict[str, float]:
    shares: dict[str, float] = {"items": len(hits)}
    shares.update({f"hit@{k}": float(share) for k, share in zip(ks, hits.mean(dim=0))})
    shares.update({f"chance@{k}": min(k, n_candidates) / n_candidates for k in ks})
    return shares


def hits(modality: Modality, made: Tensor, items: Tensor, ks: Sequence[int]) -> Tensor:
    """Probability that the query of each item finds its own true feature among the first k.

    Args:
        modality: true features; all items that have the modality are candidates.
        made: the queries, ``(n_items, dim)``, on the device that computes.
        items: ids of the items that ask, int64 ``(n,)`` on the CPU. Each has the modality.
        ks: lengths of the lists.

    Returns:
        Float64 ``(n, len(ks))`` on the CPU.
    """
    candidates = modality.observed.nonzero()[:, 0]
    truth = modality.features[candidates].to(made.device)
    own = torch.searchsorted(candidates, items).to(made.device)
    similarity = Cosines(made[items.to(made.device)], truth)
    better, ties = (n.cpu() for n in places(similarity, own, block_rows(len(candidates))))
    room = torch.tensor(ks, dtype=torch.double) - better[:, None]
    return (room / ties.clamp(min=1)[:, None]).clamp(0, 1)


def _copied(given: Modalities, donors: Tensor) -> Mapping[str, Tensor]:
    """Features ``(n_items, dim)`` in which missing rows are those of the nearest donor."""
    if len(given) == 1:  # no other modality tells which item is near; the result is undefined
        return {name: modality.features for name, modality in given.items()}
    imputer = NearestNeighbour().fit(sparse.csr_matrix((1, len(donors))), donors)
    return {name: modality.features for name, modality in imputer.transform(given).items()}
