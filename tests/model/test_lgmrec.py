"""LGMRec against its formulas on dense matrices, one modality after the other."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers import TinyDataset, model_defaults, tiny_batch, tiny_config, tiny_dataset
from torch import Tensor

from recbole_missing.modality import Modalities, Modality
from recbole_missing.model.lgmrec import LGMRec, contrast_pairs
from recbole_missing.nn.distinct import distinct

NAMES = ("smell", "text", "hue", "price")
NEW = [4, 11]
SETTINGS = {
    "embedding_size": 6,
    "n_ui_layers": 2,
    "n_mm_layers": 3,
    "n_hyper_layers": 2,
    "n_hyperedges": 3,
    "dropout": 0.0,
    "global_weight": 0.4,
    "temperature": 0.3,
    "cl_weight": 0.2,
    "reg_weight": 0.1,
}


@pytest.fixture(params=[1, 2, 3, 4], ids=lambda count: f"{count}m")
def dataset(request: pytest.FixtureRequest) -> TinyDataset:
    """Two new items, which have modalities and no interactions."""
    dataset = tiny_dataset(NAMES[: request.param], n_items=27)
    dataset.new_items[NEW] = True
    kept = ~dataset.new_items[dataset.inter_feat["item_id"]]
    dataset.inter_feat = {field: ids[kept] for field, ids in dataset.inter_feat.items()}
    return dataset


@pytest.fixture(autouse=True)
def without_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(F, "gumbel_softmax", lambda x, tau, dim: (x / tau).softmax(dim))


def build(dataset: TinyDataset, **settings: Any) -> LGMRec:
    torch.manual_seed(0)
    values = {**model_defaults("LGMRec"), **SETTINGS, **settings}
    return LGMRec(tiny_config(**values), dataset).double()


class Reference:
    """All vectors of a model, computed from dense matrices without the padding rows."""

    def __init__(self, model: LGMRec, dataset: TinyDataset, training: bool) -> None:
        """Follow the formulas above the class."""
        n_users, n_items = dataset.num("user_id"), dataset.num("item_id")
        full = torch.zeros(n_users, n_items).double()
        full[dataset.inter_feat["user_id"], dataset.inter_feat["item_id"]] = 1.0
        self.interactions = r = full[1:, 1:]
        self.n_users, self.training = n_users - 1, training
        self.adjacency = self.normalised(r)
        nodes = torch.cat([model.user_embedding[1:], model.item_embedding[1:]])
        self.collaborative = torch.zeros_like(nodes)
        for _ in range(model.n_ui_layers + 1):
            self.collaborative = self.collaborative + nodes / (model.n_ui_layers + 1)
            nodes = self.adjacency @ nodes
        self.hyper = [self.globally(model, name) for name in model.modalities]
        self.final = self.collaborative + model.global_weight * F.normalize(sum(self.hyper))
        for name in model.modalities:
            self.final = self.final + F.normalize(self.local(model, name))

    def normalised(self, r: Tensor) -> Tensor:
        """D^-1/2 A D^-1/2."""
        n_users, n_items = r.shape
        above = torch.cat([torch.zeros(n_users, n_users).double(), r], dim=1)
        below = torch.cat([r.T, torch.zeros(n_items, n_items).double()], dim=1)
        adjacency = torch.cat([above, below])
        roots = adjacency.sum(dim=1).clamp(min=1).sqrt()
        return adjacency / roots[:, None] / roots

    def local(self, model: LGMRec, name: str) -> Tensor:
        """Propagated content of one modality."""
        items = model.features[name][1:].double() @ model.projections[name]
        users = self.interactions @ items / self.interactions.sum(dim=1, keepdim=True).clamp(min=1)
        nodes = torch.cat([users, items])
        for _ in range(model.n_mm_layers):
            nodes = self.adjacency @ nodes
        return nodes

    def globally(self, model: LGMRec, name: str) -> Tensor:
        """Vectors by way of the hyperedges of one modality."""
        logits = model.features[name][1:].double() @ model.prototypes[name]
        of_items = (logits / model.temperature).softmax(dim=1)
        if self.training:
            of_items[[item - 1 for item in NEW]] = 0.0
        of_users = (self.interactions @ logits / model.temperature).softmax(dim=1)
        items = self.collaborative[self.n_users :]
        for _ in range(model.n_hyper_layers):
            hyperedges = of_items.T @ items
            items = of_items @ hyperedges
        return torch.cat([of_users @ hyperedges, items])


def contrast(anchors: Tensor, others: Tensor, rows: list[int], columns: list[int]) -> Tensor:
    """Sum over ``rows`` of InfoNCE against ``columns``."""
    total = torch.zeros(()).double()
    for row in rows:
        cosines = F.normalize(others) @ F.normalize(anchors)[row] / SETTINGS["temperature"]
        total = total - cosines[row] + cosines[columns].exp().sum().log()
    return total


@pytest.mark.parametrize("training", [False, True])
def test_final_vectors(dataset: TinyDataset, training: bool) -> None:
    """New items belong to hyperedges in evaluation, and not while the model trains."""
    model = build(dataset).train(training)
    reference = Reference(model, dataset, training)
    users, items = model.encode()
    torch.testing.assert_close(users[1:], reference.final[: len(users) - 1])
    torch.testing.assert_close(items[1:], reference.final[len(users) - 1 :])


@pytest.mark.parametrize("contrast_items", ["all", "complete"])
def test_loss(dataset: TinyDataset, contrast_items: str) -> None:
    model = build(dataset, contrast_items=contrast_items).train()
    batch = tiny_batch(dataset, size=12)
    terms = model.loss_terms(batch)
    reference = Reference(model, dataset, training=True)
    n_users = reference.n_users
    users = reference.final[batch["user_id"] - 1]
    positives = reference.final[n_users + batch["item_id"] - 1]
    negatives = reference.final[n_users + batch["neg_item_id"] - 1]
    margins = (users * positives).sum(dim=1) - (users * negatives).sum(dim=1)
    torch.testing.assert_close(terms["bpr"], -margins.sigmoid().log().mean())
    norms = users.norm() + positives.norm() + negatives.norm()
    torch.testing.assert_close(terms["reg"], 0.1 * norms / 12)
    old = [item for item in range(1, dataset.num("item_id")) if item not in NEW]
    rows = batch["item_id"].tolist()
    if contrast_items == "complete":
        old = [item for item in old if model.observed[item].all()]
        rows = sorted(set(rows) & set(old))
    of_users, of_items = torch.zeros(()).double(), torch.zeros(()).double()
    pairs = contrast_pairs(len(model.modalities))
    for anchor, other in pairs:
        tables = reference.hyper[anchor], reference.hyper[other]
        user_rows = [user - 1 for user in batch["user_id"].tolist()]
        of_users = of_users + contrast(*tables, user_rows, list(range(n_users)))
        item_rows, columns = [n_users + i - 1 for i in rows], [n_users + i - 1 for i in old]
        of_items = of_items + contrast(*tables, item_rows, columns)
    torch.testing.assert_close(terms["hcl_user"], 0.2 * of_users / max(len(pairs), 1))
    torch.testing.assert_close(terms["hcl_item"], 0.2 * of_items / max(len(pairs), 1))


def test_the_contrast_does_not_depend_on_the_scale_of_the_hyperedges() -> None:
    """Products of hyperedges would overflow."""
    model, batch_items = build(tiny_dataset(NAMES[:3])).float(), torch.tensor([3, 5, 3])
    members, hyperedges = torch.rand(17, 3 * 3), torch.randn(3, 3, 6)
    losses = []
    for scale in (1.0, 1e25):
        scaled = scale * hyperedges
        losses.append(model._contrast(members, scaled, distinct(batch_items), model.candidates))
    torch.testing.assert_close(*losses)


def test_hardly_any_membership_gives_a_vector_close_to_zero() -> None:
    """Global vectors shorter than 1e-12 are not scaled to length one, whatever the hyperedges."""
    model, ids = build(tiny_dataset(NAMES[:2])).float(), torch.tensor([3, 5, 3])
    members, hyperedges = torch.rand(17, 2 * 3), 0.01 * torch.randn(2, 3, 6)
    members[5] *= 1e-11
    contrasted = model._contrast(members, hyperedges, distinct(ids), model.candidates)
    first, second = (
        F.normalize(part @ vectors, eps=1e-12)
        for part, vectors in zip(members.chunk(2, dim=1), hyperedges)
    )
    logits = first[ids] @ second[model.candidates].T / 0.3
    expected = logits.logsumexp(dim=1) - (first[ids] * second[ids]).sum(dim=1) / 0.3
    torch.testing.assert_close(contrasted, expected.sum())


def test_the_contrast_of_no_item_is_zero() -> None:
    """No item has all modalities; the temperature is so small that maxima are sought."""
    dataset = tiny_dataset(NAMES[:2])
    first, second = dataset.modalities.values()
    rest = ~first.observed & (torch.arange(17) > 0)
    dataset.modalities = Modalities([first, Modality(second.name, second.features, rest)])
    model = build(dataset, contrast_items="complete", temperature=0.01).train()
    assert len(model.candidates) == 0
    terms = model.loss_terms(tiny_batch(dataset))
    sum(terms.values()).backward()
    assert terms["hcl_item"] == 0 and terms["hcl_user"] > 0
    assert torch.isfinite(model.item_embedding.grad).all()


def test_contrast_pairs_of_the_releases() -> None:
    assert contrast_pairs(1) == []
    assert contrast_pairs(2) == [(0, 1)]
    assert contrast_pairs(3) == [(0, 1), (2, 0), (1, 2)]
    assert contrast_pairs(4) == [(0, 1), (2, 0), (0, 3), (1, 2), (3, 1), (2, 3)]


def test_dropout_falls_on_memberships_while_the_model_trains() -> None:
    """What is kept grows by 1 / (1 - dropout)."""
    model = build(tiny_dataset(NAMES[:2]), dropout=0.75)
    logits = torch.randn(2, 300, 3).double()
    full = model.eval()._memberships(logits)
    torch.testing.assert_close(full.sum(dim=2), torch.ones(2, 300).double())
    dropped = model.train()._memberships(logits)
    kept = dropped > 0
    assert 0.2 < kept.double().mean() < 0.3
    torch.testing.assert_close(dropped[kept], 4 * full[kept])


def test_training_draws_noise_and_evaluation_only_on_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawn = []
    monkeypatch.setattr(F, "gumbel_softmax", lambda x, tau, dim: drawn.append(tau) or x)
    for settings, training in (({}, True), ({"evaluation_noise": True}, False), ({}, False)):
        build(tiny_dataset(NAMES[:1]), **settings).train(training).encode()
    assert drawn == 4 * [SETTINGS["temperature"]]
