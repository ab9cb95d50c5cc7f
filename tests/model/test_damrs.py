"""DAMRS's graphs against their definitions, pair by pair."""

from __future__ import annotations

import pytest
import torch
from helpers import tiny_dataset, tiny_modalities

from recbole_missing.graph.sparse import bipartite
from recbole_missing.modality import Modalities
from recbole_missing.model.damrs import behaviour_edges, content_edges, neighbour_losses

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


@pytest.mark.parametrize("tau", [0.2, 0.01])
def test_neighbour_losses(tau: float) -> None:
    """Losses and gradients against the formula, over several blocks; weight 0 leaves out a row."""
    torch.manual_seed(0)
    views = torch.nn.functional.normalize(torch.randn(3, 150, 4, dtype=torch.float64), dim=2)
    views.requires_grad_()
    weights = torch.full((90,), 1 / 89, dtype=torch.float64)
    weights[40] = 0
    found = neighbour_losses(views[:, :90], views, 3, tau, weights)
    expected = torch.stack(plain_losses(views, 90, 3, tau)) @ weights
    torch.testing.assert_close(found, expected)
    scale = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    gradients = [torch.autograd.grad(loss @ scale, views)[0] for loss in (found, expected)]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("tau", [0.2, 0.05])
def test_neighbour_losses_in_single_precision(tau: float) -> None:
    """Z - A must not be found by a subtraction: A may be all but a millionth of Z."""
    torch.manual_seed(0)
    views = torch.nn.functional.normalize(torch.randn(2, 150, 3), dim=2)
    exact = views.double().requires_grad_()
    views.requires_grad_()
    weights = torch.full((90,), 1 / 90)
    found = neighbour_losses(views[:, :90], views, 20, tau, weights)
    expected = torch.stack(plain_losses(exact, 90, 20, tau)) @ weights.double()
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=0)
    (ours,), (theirs,) = (
        torch.autograd.grad(loss.sum(), x) for loss, x in ((found, views), (expected, exact))
    )
    assert (ours - theirs).abs().max() < 1e-5 * theirs.abs().max()


def plain_losses(views: torch.Tensor, n_rows: int, n: int, tau: float) -> list[torch.Tensor]:
    """-log(A / Z) - log(B / (Z - A)) of each row, one view after the other."""
    cosines = views[:, :n_rows] @ views.transpose(1, 2)
    shares = cosines.detach().softmax(dim=2)
    losses = []
    for cosine, share in zip(cosines, shares):
        powers, of_view = (cosine / tau).exp(), []
        for row, total, own in zip(powers, shares.sum(dim=0) + share, share):
            index = torch.arange(len(row))
            first = total.topk(n).indices
            left = index[~torch.isin(index, first)]
            second = left[own[left].topk(n).indices]
            a, b, rest = row[first].sum(), row[second].sum(), row[left].sum()
            of_view.append(-(a / row.sum() + 1e-9).log() - (b / rest + 1e-9).log())
        losses.append(torch.stack(of_view))
    return losses


def test_no_anchor_gives_no_neighbour_loss() -> None:
    views = torch.nn.functional.normalize(torch.randn(2, 9, 4), dim=2).requires_grad_()
    losses = neighbour_losses(views[:, :0], views, 3, 0.2, torch.ones(0))
    losses.sum().backward()
    assert losses.tolist() == [0.0, 0.0]
    assert not views.grad.any()
