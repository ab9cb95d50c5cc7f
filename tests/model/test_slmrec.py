"""SLMRec against its formulas in dense matrices, chains and kinds of rows included."""

from __future__ import annotations

import pytest
import torch
from helpers import (
    dense_adjacency,
    dense_symmetric,
    model_defaults,
    same_terms_and_gradients,
    tiny_batch,
    tiny_config,
    tiny_dataset,
)

from recbole_missing.model.slmrec import SLMRec

NAMES = ("smell", "text", "hue")


def build(dataset, **settings) -> SLMRec:
    torch.manual_seed(0)
    small = {"embedding_size": 4, "cl_weight": 0.3, "temperature": 0.4, "cl_temperature": 0.7}
    return SLMRec(tiny_config(**{**model_defaults("SLMRec"), **small, **settings}), dataset)


def linear(layer, x: torch.Tensor) -> torch.Tensor:
    return x @ layer.weight.T + layer.bias


def dense_views(model, dataset, n_layers: int) -> list[torch.Tensor]:
    """One plain LightGCN for every view, on all nodes."""
    graph = dense_symmetric(dense_adjacency(dataset))
    tables = [model.item_embedding]
    for name, modality in dataset.modalities.items():
        norms = modality.features.norm(dim=1, keepdim=True).clamp(min=1e-12)
        tables.append(linear(model.projections[name], modality.features / norms))
    views = []
    for table in tables:
        layer = torch.cat([model.user_embedding, table])
        total = layer
        for _ in range(n_layers):
            layer = graph @ layer
            total = total + layer
        views.append(total / (n_layers + 1))
    return views


def dense_cross_entropy(logits: torch.Tensor, kept: list[bool]) -> torch.Tensor:
    losses = []
    for row, counts in enumerate(kept):
        if counts:
            losses.append(torch.log(logits[row].exp().sum() / logits[row, row].exp()))
    return sum(losses) / len(losses) if losses else 0 * logits.sum()


@pytest.mark.parametrize("n_layers", [1, 2, 3, 4])
def test_views_and_vectors_equal_one_light_gcn_for_each_view(n_layers: int) -> None:
    dataset = tiny_dataset(NAMES)
    model = build(dataset, n_ui_layers=n_layers)
    views = torch.cat(dense_views(model, dataset, n_layers), dim=1)
    users, items = views.split([model.n_users, model.n_items])
    ours = model.encode()
    torch.testing.assert_close(ours[0], linear(model.user_fusion, users))
    torch.testing.assert_close(ours[1], linear(model.item_fusion, items))


@pytest.mark.parametrize("ssl_rows", ["all", "lacking", "observed"])
@pytest.mark.parametrize("chain", ["first_two", "all"])
def test_losses_equal_the_dense_formulas(chain: str, ssl_rows: str) -> None:
    dataset = tiny_dataset(NAMES)
    model = build(dataset, contrast_chain=chain, ssl_rows=ssl_rows)
    batch = tiny_batch(dataset)
    views = dense_views(model, dataset, model.n_ui_layers)
    users, items = torch.cat(views, dim=1).split([model.n_users, model.n_items])
    users = linear(model.user_fusion, users)[batch["user_id"]]
    items = linear(model.item_fusion, items)[batch["item_id"]]
    cosines = (users / users.norm(dim=1, keepdim=True)) @ (items / items.norm(dim=1)[:, None]).T
    expected = {"main": dense_cross_entropy(cosines / 0.4, [True] * len(cosines))}

    rows = model.n_users + batch["item_id"]
    coarse = views[0][rows]
    names = NAMES[:2] if chain == "first_two" else NAMES
    for position, name in enumerate(names):
        for head in model.coarse_heads[name]:
            coarse = linear(head, coarse)
        fine = linear(model.fine_heads[name], views[1 + position][rows])
        has = dataset.modalities[name].observed[batch["item_id"]].tolist()
        lacks = [not one for one in has]
        kept = {"all": [True] * len(has), "lacking": lacks, "observed": has}[ssl_rows]
        contrast = dense_cross_entropy(coarse @ fine.T / 0.7, kept)
        expected[f"cl_{name}"] = 0.3 * contrast
    same_terms_and_gradients(model, model.loss_terms(batch), expected)


def test_the_chain_has_the_published_heads() -> None:
    dataset = tiny_dataset(NAMES)
    short, long = (build(dataset, contrast_chain=chain) for chain in ("first_two", "all"))

    def shapes(model) -> dict[str, list[tuple[int, ...]]]:
        heads = model.coarse_heads.items()
        return {name: [tuple(layer.weight.shape) for layer in layers] for name, layers in heads}

    assert shapes(short) == {"smell": [(4, 4)], "text": [(4, 4), (2, 4)]}
    assert shapes(long) == {"smell": [(4, 4)], "text": [(4, 4)], "hue": [(2, 4)]}
