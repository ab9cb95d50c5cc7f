"""SIBRAR against its formulas, written out row by row."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from helpers import TinyDataset, model_defaults, tiny_batch, tiny_config, tiny_dataset
from torch import Tensor

from recbole_missing.model.sibrar import SIBRAR

NAMES = ("smell", "text", "hue")
NEW = [4, 11]


@pytest.fixture(params=[1, 2, 3], ids=lambda count: f"{count}m")
def dataset(request: pytest.FixtureRequest) -> TinyDataset:
    """Two new items, one of them without any modality."""
    dataset = tiny_dataset(NAMES[: request.param])
    dataset.new_items[NEW] = True
    for modality in dataset.modalities.values():
        modality.observed[NEW[0]] = False
    return dataset


def build(dataset: TinyDataset, pool: str) -> SIBRAR:
    torch.manual_seed(0)
    settings = {"embedding_size": 6, "cl_weight": 0.4, "temperature": 0.5, "modality_pool": pool}
    return SIBRAR(tiny_config(**{**model_defaults("SIBRAR"), **settings}), dataset).double()


def encoding(model: SIBRAR, item: int, member: int) -> Tensor:
    """Encoding of one item: of its identity (0) or of modality ``member`` - 1."""
    if member == 0:
        return shared(model, model.item_embedding[item])
    name = list(model.modalities)[member - 1]
    layer = model.projections[name]
    encoded = shared(model, layer.weight @ model.features[name][item] + layer.bias)
    return encoded / encoded.norm()


def shared(model: SIBRAR, x: Tensor) -> Tensor:
    first, _, second = model.branch
    return second.weight @ (first.weight @ x + first.bias).clamp(min=0) + second.bias


def members(model: SIBRAR, item: int) -> list[int]:
    """Pool of an item."""
    everything = range(1 + len(model.modalities))
    if model.modality_pool == "all":
        return list(everything)
    has = [item not in NEW, *model.observed[item].tolist()]
    return [member for member in everything if has[member]]


@pytest.mark.parametrize("pool", ["all", "observed"])
def test_scores_use_the_mean_encoding_of_the_pool(dataset: TinyDataset, pool: str) -> None:
    model = build(dataset, pool)
    users, items = model.encode()
    assert users is model.user_embedding
    for item in range(1, len(items)):
        vectors = [encoding(model, item, member) for member in members(model, item)]
        expected = torch.stack(vectors).mean(dim=0) if vectors else torch.zeros(6).double()
        torch.testing.assert_close(items[item], expected)


@pytest.mark.parametrize("pool", ["all", "observed"])
def test_loss(dataset: TinyDataset, pool: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(dataset, pool)
    draw, draws = model._draw_pairs, []
    monkeypatch.setattr(model, "_draw_pairs", lambda ids: draws.append(draw(ids)) or draws[-1])
    batch = tiny_batch(dataset, size=20)
    terms = model.loss_terms(batch)
    assert len(draws) == (1 if pool == "all" else 2)
    bpr, contrast = [], []
    for row, (u, i, j) in enumerate(zip(*batch.values())):
        a, b = draws[0][row].tolist()
        c, d = draws[-1][row].tolist()
        p = encoding(model, i, a), encoding(model, i, b)
        q = encoding(model, j, c), encoding(model, j, d)
        user = model.user_embedding[u]
        bpr.append(-F.logsigmoid(user @ (p[0] + p[1]) - user @ (q[0] + q[1])))
        if a != b:
            together = (p[0] @ p[1] / 0.5).exp()
            first, second = (p[0] @ q[1] / 0.5).exp(), (p[1] @ q[0] / 0.5).exp()
            shares = together / (together + first), together / (together + second)
            contrast.append(-shares[0].log() - shares[1].log())
    torch.testing.assert_close(terms["bpr"], sum(bpr) / len(bpr))
    torch.testing.assert_close(terms["cl"], 0.4 * sum(contrast) / len(contrast))


@pytest.mark.parametrize("pool", ["all", "observed"])
def test_draws_are_two_members_in_every_order(dataset: TinyDataset, pool: str) -> None:
    model = build(dataset, pool)
    for item in range(1, dataset.num("item_id")):
        found = {tuple(pair) for pair in model._draw_pairs(torch.full((400,), item)).tolist()}
        has = members(model, item)
        if len(has) == 1:
            assert found == {(has[0], has[0])}
        elif has:
            assert found == {(a, b) for a in has for b in has if a != b}
