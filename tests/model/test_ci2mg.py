"""CI2MG against its formulas on dense matrices, one modality after the other."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers import TinyDataset, model_defaults, tiny_batch, tiny_config, tiny_dataset
from torch import Tensor

from recbole_missing.model.ci2mg import CI2MG

NAMES = ("smell", "text", "hue")
NEW = [4, 11]
SETTINGS = {
    "embedding_size": 6,
    "n_ui_layers": 2,
    "n_hyper_layers": 2,
    "n_prototypes": 5,
    "transport_width": 0.3,
    "transport_iterations": 3,
    "bpr_weight": 0.7,
    "cl_weight": 0.4,
    "temperature": 0.5,
}


def close(actual: Tensor, expected: Tensor) -> None:
    """Equal up to the rounding of the mean graphs, which were built in single precision."""
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6)


@pytest.fixture(params=[1, 2, 3], ids=lambda count: f"{count}m")
def dataset(request: pytest.FixtureRequest) -> TinyDataset:
    """Two new items, which have modalities and no interactions."""
    dataset = tiny_dataset(NAMES[: request.param], n_items=27)
    dataset.new_items[NEW] = True
    kept = ~dataset.new_items[dataset.inter_feat["item_id"]]
    dataset.inter_feat = {field: ids[kept] for field, ids in dataset.inter_feat.items()}
    return dataset


def build(dataset: TinyDataset, **settings: Any) -> CI2MG:
    torch.manual_seed(0)
    values = {**model_defaults("CI2MG"), **SETTINGS, **settings}
    model = CI2MG(tiny_config(**values), dataset).double()
    with torch.no_grad():
        model.norm.running_mean.normal_()
        model.norm.running_var.uniform_(0.5, 2.0)
        model.norm.weight.normal_()
        model.norm.bias.normal_()
    return model


def coupling(rows: Tensor, columns: Tensor) -> Tensor:
    """Dense Sinkhorn iterations."""
    plan = torch.exp(-torch.cdist(rows, columns).square() / SETTINGS["transport_width"])
    for _ in range(SETTINGS["transport_iterations"]):
        plan = plan / plan.sum(dim=1, keepdim=True)
        plan = plan / plan.sum(dim=0, keepdim=True)
    return plan


class Reference:
    """All vectors of a model, computed from dense matrices without the padding rows."""

    def __init__(self, model: CI2MG, dataset: TinyDataset, training: bool) -> None:
        """Follow the formulas above the class; rows of items that take no part are zero."""
        n_users, n_items = dataset.num("user_id"), dataset.num("item_id")
        r = torch.zeros(n_users, n_items).double()
        r[dataset.inter_feat["user_id"], dataset.inter_feat["item_id"]] = 1.0
        to_users = r[1:, 1:] / r[1:, 1:].sum(dim=1, keepdim=True).clamp(min=1)
        to_items = r[1:, 1:].T / r[1:, 1:].T.sum(dim=1, keepdim=True).clamp(min=1)
        left_out = [item - 1 for item in NEW] if training else []
        self.part = [item for item in range(n_items - 1) if item not in left_out]
        user_parts, item_parts = self.identities(model, to_users, to_items)
        self.projected, self.intra, self.inter, self.generated = {}, {}, {}, {}
        for name, layer in model.projections.items():
            self.projected[name] = layer(model.features[name][1:])
            users = to_users @ self.projected[name]
            user_parts.append(F.normalize(users))
            self.intra[name] = hypergraph(model, name, (to_items @ users)[self.part])
        for name, items in self.intra.items():
            others = [self.intra[other] for other in self.intra if other != name]
            plan = (
                coupling(sum(others), items).detach() if others else torch.eye(len(items)).double()
            )
            self.inter[name] = plan @ items
            decoded = model.decoders[name](torch.cat([items, self.inter[name]], dim=1))
            norm = model.norm
            mean, variance = norm.running_mean, norm.running_var
            if training:
                mean, variance = decoded.mean(dim=0), decoded.var(dim=0, unbiased=False)
            unit = (decoded - mean) / (variance + norm.eps).sqrt()
            self.generated[name] = torch.zeros(n_items - 1, unit.shape[1]).double()
            self.generated[name][self.part] = unit * norm.weight + norm.bias
            item_parts.append(F.normalize(self.generated[name]))
        self.users, self.items = torch.cat(user_parts, dim=1), torch.cat(item_parts, dim=1)

    def identities(
        self, model: CI2MG, to_users: Tensor, to_items: Tensor
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Means over layers; both sides of a layer come from the layer before."""
        users, items = model.user_embedding[1:], model.item_embedding[1:]
        user_layers, item_layers = [users], [items]
        for _ in range(model.n_ui_layers):
            users, items = to_users @ items, to_items @ users
            user_layers.append(users)
            item_layers.append(items)
        count = model.n_ui_layers + 1
        return [sum(user_layers) / count], [sum(item_layers) / count]


def hypergraph(model: CI2MG, name: str, items: Tensor) -> Tensor:
    incidence = F.normalize(items) @ F.normalize(model.prototypes[name]).T
    on_nodes, on_edges = (
        sums.where(sums != 0, 1.0) for sums in (incidence.sum(1), incidence.sum(0))
    )
    smoothing = incidence @ model.mixings[name] @ (incidence / on_edges).T / on_nodes[:, None]
    for _ in range(model.n_hyper_layers):
        items = 1 / (1 + torch.exp(-smoothing @ items))
    return items


@pytest.mark.parametrize("training", [False, True])
def test_final_vectors(dataset: TinyDataset, training: bool) -> None:
    """New items take part in evaluation, and not while the model trains."""
    model = build(dataset).train(training)
    reference = Reference(model, dataset, training)
    users, items = model.encode()
    close(users[1:], reference.users)
    close(items[1:], reference.items)


@pytest.mark.parametrize("contrast", ["same_pair", "other_items"])
@pytest.mark.parametrize("loss_items", ["own", "released"])
def test_loss(dataset: TinyDataset, contrast: str, loss_items: str) -> None:
    model = build(dataset, contrast=contrast, loss_items=loss_items).train()
    reference = Reference(model, dataset, training=True)
    batch = tiny_batch(dataset, size=16)
    terms = model.loss_terms(batch)
    users = reference.users[batch["user_id"] - 1]
    positives = reference.items[batch["item_id"] - 1]
    negatives = reference.items[batch["neg_item_id"] - 1]
    margins = (users * positives).sum(dim=1) - (users * negatives).sum(dim=1)
    close(terms["bpr"], -0.7 * margins.sigmoid().log().mean())
    rec, cl = torch.zeros(()).double(), torch.zeros(()).double()
    for m, name in enumerate(model.modalities):
        column = 1 if loss_items == "released" and m == 2 else m
        items = [i for i in set(batch["item_id"].tolist()) if model.observed[i, column]]
        ids = torch.tensor(items) - 1
        assert len(ids) > 1, "the batch must test something"
        gaps = reference.generated[name][ids] - reference.projected[name][ids]
        rec = rec + gaps.square().mean()
        if contrast == "same_pair":
            cl = cl + math.log(2)
        else:
            places = [reference.part.index(i) for i in ids]
            intra = F.normalize(reference.intra[name][places])
            inter = F.normalize(reference.inter[name][places])
            shares = (intra @ inter.T / SETTINGS["temperature"]).softmax(dim=1)
            cl = cl - shares.diagonal().log().mean()
    close(terms["rec"], rec)
    close(terms["cl"], 0.4 * cl)


def test_a_batch_without_an_observed_positive_costs_nothing() -> None:
    dataset = tiny_dataset(NAMES[:2])
    for modality in dataset.modalities.values():
        modality.observed.fill_(False)
    for contrast in ("same_pair", "other_items"):
        model = build(dataset, contrast=contrast).train()
        terms = model.loss_terms(tiny_batch(dataset))
        assert terms["rec"] == 0 and terms["cl"] == 0
