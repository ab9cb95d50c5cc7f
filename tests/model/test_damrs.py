"""DAMRS's graphs against their definitions, pair by pair."""

from __future__ import annotations

import pytest
import torch
from helpers import tiny_dataset, tiny_modalities

from recbole_missing.graph.sparse import bipartite
from recbole_missing.modality import Modalities
from recbole_missing.model.damrs import behaviour_edges, content_edges

N_ITEMS = 30


@pytest.mark.parametrize(("k", "min_count"), [(2, 1), (2, 2), (5, 2), (0, 1)])
def test_behaviour_edges(k: int, min_count: int) -> None:
    dataset = tiny_dataset(n_users=21, n_items=12)
    interactions = dataset.inter_feat["user_id"], dataset.inter_feat["item_id"]
    users_of = [set(interactions[0][interactions[1] == item].tolist()) for item in range(12)]
    expected = set()
    for item in range(1, 12):
        shared = [(-len(users_of[item] & users_of[o]), o) for o in range(1, 12) if o != item]
        near = [other for count, other in sorted(shared)[:k] if -count >= min_count]
        expected |= {(item, other) for other in [item, *near]}
    found = behaviour_edges(bipartite(*interactions, 21, 12), k, min_count)
    assert set(zip(*found.tolist())) == expected
    assert len(expected) == found.shape[1]


@pytest.mark.parametrize("missing", ["imputed", "isolated", "isolated_after_topk"])
def test_content_edges(missing: str) -> None:
    torch.manual_seed(0)
    given = tiny_modalities(N_ITEMS, {"smell": 3, "hue": 2})
    modalities = Modalities(
        [modality.filled(torch.randn(modality.features.shape)) for modality in given.values()]
    )
    excluded = torch.zeros(N_ITEMS, dtype=torch.bool)
    excluded[[4, 11]] = True
    found = content_edges(modalities, 4, missing, excluded, block_size=7)
    for name in modalities:
        assert set(zip(*found[name].tolist())) == expected_edges(name, modalities, 4, missing)


def expected_edges(name: str, modalities: Modalities, k: int, missing: str) -> set[tuple[int, int]]:
    items = [item for item in range(1, N_ITEMS) if item not in (4, 11)]
    cosines = {}
    for other, modality in modalities.items():
        unit = torch.nn.functional.normalize(modality.features.double())
        cosines[other] = unit @ unit.T
    means = {other: c[items][:, items].mean() - 1e-6 for other, c in cosines.items()}
    has_it = modalities[name].observed | (missing == "imputed")
    edges = {(4, 4), (11, 11)}
    for item in items:
        near = [(-3.0, item)]
        for other in items:
            agreed = all(c[item, other] >= means[m] for m, c in cosines.items())
            blocked = missing == "isolated" and not (has_it[item] and has_it[other])
            if other != item and agreed and not blocked and cosines[name][item, other] > 1e-6:
                near.append((-round(float(cosines[name][item, other]), 5), other))
        for _, other in sorted(near)[:k]:
            if other == item or (has_it[item] and has_it[other]):
                edges.add((item, other))
    return edges
