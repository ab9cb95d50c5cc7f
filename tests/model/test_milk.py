"""MILK against its formulas, written out item by item."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers import TinyDataset, model_defaults, tiny_batch, tiny_config, tiny_dataset
from torch import Tensor

from recbole_missing.model.milk import MILK

NAMES = ("smell", "text", "hue")
SETTINGS = {
    "embedding_size": 6,
    "reg_weight": 0.3,
    "invariance_weight": 0.7,
    "align_weight": 0.2,
    "normalise_features": False,
}


def build(dataset: TinyDataset, **settings: Any) -> MILK:
    torch.manual_seed(0)
    defaults = {**model_defaults("MILK"), **SETTINGS}
    return MILK(tiny_config(**{**defaults, **settings}), dataset).double()


def content(model: MILK, item: int) -> Tensor:
    """Projected modalities z of one item, ``(M, d)``."""
    vectors = []
    for name, layer in model.projections.items():
        vectors.append(layer.weight @ model.features[name][item] + layer.bias)
    return torch.stack(vectors)


def scale(model: MILK, item: int) -> float:
    count = int(model.observed[item].sum())
    if model.item_scale == "none":
        return 1.0
    return 1.0 / count if count else 0.0


@pytest.mark.parametrize("item_scale", ["per_observed", "none"])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_scores(count: int, item_scale: str) -> None:
    dataset = tiny_dataset(NAMES[:count])
    model = build(dataset, item_scale=item_scale)
    users, items = model.encode()
    assert users is model.user_embedding
    for item in range(1, len(items)):
        expected = scale(model, item) * content(model, item).sum(dim=0)
        torch.testing.assert_close(items[item], expected)


@pytest.mark.parametrize("align_items", ["no_lone_gap", "both_observed"])
@pytest.mark.parametrize("count", [2, 3])
def test_loss(count: int, align_items: str, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = tiny_dataset(NAMES[:count])
    model = build(dataset, align_items=align_items)
    draw = torch.tensor([0.7, 0.2, 0.1][:count]).double()
    monkeypatch.setattr(model, "_draw", lambda: draw)
    batch = tiny_batch(dataset, size=12)
    terms = model.loss_terms(batch)
    environments = [torch.full_like(draw, 1 / count)]
    environments += [draw.roll(shift) for shift in range(count)]
    risks = []
    for weights in environments:
        losses = []
        for u, i, j in zip(*batch.values()):
            positive = scale(model, i) * (weights @ content(model, i))
            negative = scale(model, j) * (weights @ content(model, j))
            losses.append(-F.logsigmoid(model.user_embedding[u] @ (positive - negative)))
        risks.append(sum(losses) / len(losses))
    mean = sum(risks) / len(risks)
    variance = sum((risk - mean) ** 2 for risk in risks) / (len(risks) - 1)
    torch.testing.assert_close(terms["bpr"], sum(risks))
    torch.testing.assert_close(terms["invariance"], 0.7 * variance)
    torch.testing.assert_close(terms["reg"], 0.3 * squares(model, batch))
    torch.testing.assert_close(terms["align"], 0.2 * alignment(model, batch["item_id"]))


def squares(model: MILK, batch: dict[str, Tensor]) -> Tensor:
    total = torch.zeros(()).double()
    for u, i, j in zip(*batch.values()):
        total = total + model.user_embedding[u].square().sum()
        for item in (i, j):
            vector = scale(model, item) * content(model, item).mean(dim=0)
            total = total + vector.square().sum()
    return total / (2 * len(batch["user_id"]))


def alignment(model: MILK, positives: Tensor) -> Tensor:
    n_modalities, total = len(model.modalities), torch.zeros(()).double()
    for left, right in combinations(range(n_modalities), 2):
        differences = []
        for item in set(positives.tolist()):
            has = model.observed[item].tolist()
            lacks_several = has.count(False) > 1
            aligned = has[left] and has[right]
            if model.align_items == "no_lone_gap":
                aligned = aligned or lacks_several
            if aligned:
                z = content(model, item)
                differences.append((z[left] - z[right]).square().mean())
        assert differences, "the batch must test something"
        total = total + sum(differences) / len(differences)
    return total


def test_environments_are_equal_weights_and_the_cyclic_shifts_of_a_draw() -> None:
    model = build(tiny_dataset(NAMES))
    weights = model._environments()
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(4).double())
    torch.testing.assert_close(weights[0], torch.full((3,), 1 / 3).double())
    assert [row.roll(-k).tolist() for k, row in enumerate(weights[1:])] == 3 * [weights[1].tolist()]
    assert not torch.equal(model._environments()[1], weights[1]), "every batch draws anew"


def test_a_small_alpha_draws_lopsided_weights() -> None:
    dataset = tiny_dataset(NAMES)
    largest = {}
    for alpha in (0.05, 50.0):
        model = build(dataset, dirichlet_alpha=alpha)
        largest[alpha] = torch.stack([model._draw().max() for _ in range(50)]).mean()
    assert largest[0.05] > 0.8 > 0.5 > largest[50.0]


def test_features_are_normalised_and_frozen_on_request() -> None:
    dataset = tiny_dataset(NAMES)
    model = build(dataset, normalise_features=True, train_features=False)
    for name, modality in dataset.modalities.items():
        expected = F.normalize(modality.features).double()
        torch.testing.assert_close(model.features[name].detach(), expected)
        assert not model.features[name].requires_grad
        assert build(dataset).features[name].requires_grad
