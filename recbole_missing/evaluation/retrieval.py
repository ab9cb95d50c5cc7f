"""Cross-modal retrieval: is the feature that was made for a hidden one close to the true one?

The query is the feature that a model or an imputer made for an item whose modality was hidden. The
true features of all items that have the modality are ranked by their cosine with the query. The
query is a hit if the item's own true feature is among the first k.

Two cosines tie if they are equal on a grid of 2^-20. Ties count as if they were in random order. If
b candidates are better than the item's own feature, and t candidates tie with it, itself included,
the probability of a hit is min(max((k - b) / t, 0), 1). So a query that is the same for all items
gets at most k hits in total, and a row of zeros gets exactly the chance level.

Source: Kim, Kang, Kim, Kim and Park, "Disentangling and Generating Modalities for Recommendation in
Missing Modality Scenarios", SIGIR 2025. The baseline there copies the feature of the nearest item.
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
    """Measure retrieval by the features of a model, and by those of the nearest item.

    Both use the same mask.

    Args:
        model: a :class:`~recbole_missing.model.base.MultimodalRecommender`.
        dataset: the data set that it was built from, or another split of it. Its files are read
            again to get the true features.
        ks: lengths of the lists.

    Returns:
        ``model`` and ``nearest_neighbour`` -> modality -> what :func:`retrieval` gives. An item
        that lacks every modality has no nearest neighbour; the group of these items is None under
        ``nearest_neighbour``.

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
    device = model.observed.device
    completed = {name: rows.to(device) for name, rows in model.completed_features().items()}
    results = {"model": retrieval(true, completed, given.observed, ks)}
    copied = {name: rows.to(device) for name, rows in _copied(given, ~dataset.new_items).items()}
    nearest = retrieval(true, copied, given.observed, ks)
    for groups in nearest.values():
        groups.update({key: None for key in groups if key == f"{len(given)} missing"})
    return {**results, "nearest_neighbour": nearest}


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
