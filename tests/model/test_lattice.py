"""LATTICE against its formulas in dense matrices, new items and the release's versions included."""

from __future__ import annotations

import pytest
import torch
from helpers import (
    dense,
    dense_adjacency,
    model_defaults,
    plain_bpr,
    tiny_batch,
    tiny_config,
    tiny_dataset,
)

from recbole_missing.graph.knn import KNN_MISSING
from recbole_missing.model.lattice import LATTICE

NAMES = ("smell", "text", "hue")
LAMBDA = 0.7


def build(dataset, **settings) -> LATTICE:
    torch.manual_seed(0)
    small = {"embedding_size": 4, "projection_size": 3, "knn_k": 4, "reg_weight": 0.3}
    given = {"original_weight": LAMBDA, "initial_logits": [0.1, 0.9, -0.4], **settings}
    return LATTICE(tiny_config(**{**model_defaults("LATTICE"), **small, **given}), dataset)


def with_new_items(n_items: int = 17):
    dataset = tiny_dataset(NAMES, n_items=n_items)
    new = torch.zeros(n_items, dtype=torch.bool)
    new[[4, 11]] = True
    kept = ~new[dataset.inter_feat["item_id"]]
    dataset.inter_feat = {field: ids[kept] for field, ids in dataset.inter_feat.items()}
    dataset.new_items = new
    return dataset


def dense_knn(modality, features, excluded: torch.Tensor, missing: str) -> torch.Tensor:
    """The four largest cosines of each row; isolated items keep a loop of weight 1 alone."""
    unit = features / features.norm(dim=1, keepdim=True).clamp(min=1e-12)
    cosines = unit @ unit.T
    cosines[0] = cosines[:, 0] = -2.0  # the padding item is nobody's neighbour
    isolated = excluded if missing == "imputed" else excluded | modality.missing
    before_topk = isolated if missing == "isolated" else excluded
    cosines[before_topk] = 0.0
    cosines[:, before_topk] = 0.0
    graph = torch.zeros_like(cosines)
    for row in range(1, len(cosines)):
        best = cosines[row].argsort(descending=True)[:4]
        graph[row, best] = cosines[row, best]
    graph[isolated] = 0.0
    graph[:, isolated] = 0.0
    graph[isolated, isolated] = 1.0
    return graph


def lap(graph: torch.Tensor) -> torch.Tensor:
    sums = graph.sum(dim=1)
    roots = torch.where(sums > 0, sums.abs() ** -0.5, torch.zeros_like(sums))
    return roots[:, None] * graph * roots


@torch.no_grad()
def dense_item_graph(model, dataset, cut: bool, normalised: bool) -> torch.Tensor:
    excluded = dataset.new_items if cut else torch.zeros_like(dataset.new_items)
    missing = model.knn_missing
    shares = model.logits.exp() / model.logits.exp().sum()
    learned, original = 0.0, 0.0
    for share, (name, modality) in zip(shares, dataset.modalities.items()):
        projection = model.projections[name]
        projected = model.features[name] @ projection.weight.T + projection.bias
        learned = learned + share * dense_knn(modality, projected, excluded, missing)
        constant = dense_knn(modality, modality.features, excluded, missing)
        original = original + share * lap(constant)
    learned = lap(learned) if normalised else learned
    return (1 - LAMBDA) * learned + LAMBDA * original


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("missing", KNN_MISSING)
@pytest.mark.parametrize("normalise", ["always", "training", "never"])
def test_the_item_graph_equals_the_dense_formula(
    normalise: str, missing: str, training: bool
) -> None:
    """New items have no neighbour while the model trains, and some when it scores."""
    dataset = with_new_items()
    for modality in dataset.modalities.values():
        modality.features[1:] += 0.01 * torch.randn(16, modality.dim)  # no two rows alike
    model = build(dataset, normalise_learned=normalise, knn_missing=missing).train(training)
    with torch.no_grad():
        for name in NAMES:
            model.features[name][1:] += torch.randn(16, model.features[name].shape[1])
    normalised = normalise == "always" or (normalise == "training" and training)
    expected = dense_item_graph(model, dataset, cut=training, normalised=normalised)
    graph = model._item_graph()
    torch.testing.assert_close(dense(graph.pattern), expected)
    torch.testing.assert_close(graph.values.detach(), graph.pattern.values)
    new = dataset.new_items
    assert (expected[~new][:, new] != 0).any() != training


def test_vectors_and_losses_equal_the_dense_formulas() -> None:
    dataset = with_new_items()
    for modality in dataset.modalities.values():
        modality.features[1:] += 0.01 * torch.randn(16, modality.dim)
    model, batch = build(dataset, n_ui_layers=2, n_mm_layers=2), tiny_batch(dataset)
    with torch.no_grad():
        model.item_embedding[dataset.new_items] = torch.randn(2, 4)
    adjacency = dense_adjacency(dataset) + torch.eye(model.n_users + model.n_items)
    walk = adjacency / adjacency.sum(dim=1, keepdim=True)
    graph = dense_item_graph(model, dataset, cut=True, normalised=True)
    smoothed = graph @ graph @ model.item_embedding
    nodes = torch.cat([model.user_embedding, model.item_embedding])
    nodes = (nodes + walk @ nodes + walk @ walk @ nodes) / 3
    users, items = nodes.split([model.n_users, model.n_items])
    items = items + smoothed / smoothed.norm(dim=1, keepdim=True).clamp(min=1e-12)
    ours = model.train().encode()
    torch.testing.assert_close(ours[0], users)
    torch.testing.assert_close(ours[1], items)

    u, p, n = (batch[field] for field in ("user_id", "item_id", "neg_item_id"))
    squares = sum((block**2).sum() for block in (users[u], items[p], items[n]))
    model.on_epoch_start(None)
    terms = model.loss_terms(batch)
    torch.testing.assert_close(terms["bpr"], plain_bpr(users, items, batch))
    torch.testing.assert_close(terms["reg"], 0.3 * squares / (2 * model.batch_size))


def test_an_epoch_learns_its_graph_once() -> None:
    dataset = tiny_dataset(NAMES)
    model, batch = build(dataset), tiny_batch(dataset)
    for epoch in range(2):
        model.on_epoch_start(None)
        for number in range(3):
            model.zero_grad(set_to_none=True)
            model.calculate_loss(batch).backward()
            learned = [model.logits, *model.features.values(), *model.projections.parameters()]
            reached = {parameter.grad is not None for parameter in learned}
            assert reached == {number == 0}, f"epoch {epoch}, batch {number}"


def test_new_items_start_from_zero() -> None:
    dataset = with_new_items()
    table = build(dataset).item_embedding
    zero = (table == 0).all(dim=1)
    assert zero.nonzero()[:, 0].tolist() == [0, 4, 11]


def test_logits_start_equal_or_as_given() -> None:
    dataset = tiny_dataset(NAMES)
    torch.testing.assert_close(build(dataset).logits.detach(), torch.tensor([0.1, 0.9, -0.4]))
    equal = build(dataset, initial_logits=None).logits
    assert equal.shape == (3,) and equal.unique().numel() == 1
    with pytest.raises(ValueError, match="initial_logits must be a list of 3 numbers"):
        build(dataset, initial_logits=[0.5, 0.5])
