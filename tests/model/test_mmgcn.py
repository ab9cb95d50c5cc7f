"""MMGCN against its formulas in dense matrices, with settings that no golden file has."""

from __future__ import annotations

import pytest
import torch
from helpers import (
    dense_adjacency,
    model_defaults,
    plain_bpr,
    same_terms_and_gradients,
    tiny_batch,
    tiny_config,
    tiny_dataset,
)

from recbole_missing.model.mmgcn import MMGCN

NAMES = ("smell", "text", "hue")


def build(dataset, **settings) -> MMGCN:
    torch.manual_seed(0)
    small = {"embedding_size": 4, "reg_weight": 0.3, "latent_sizes": [6, 0]}
    defaults = {**model_defaults("MMGCN"), **small, **settings}
    model = MMGCN(tiny_config(**defaults), dataset)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("aggregation_bias"):
                parameter.normal_()  # zero at the start
    return model


def leaky(x: torch.Tensor) -> torch.Tensor:
    return torch.where(x > 0, x, 0.01 * x)


def unit(x: torch.Tensor) -> torch.Tensor:
    return x / x.norm(dim=1, keepdim=True).clamp(min=1e-12)


def dense_nodes(model, dataset, unit_mean: bool) -> torch.Tensor:
    adjacency = dense_adjacency(dataset)
    mean = adjacency / adjacency.sum(dim=1, keepdim=True).clamp(min=1)
    identities = torch.cat([model.user_embedding, model.item_embedding])
    outputs = []
    for name, modality in dataset.modalities.items():
        features = modality.features
        if name == NAMES[0]:
            projection = model.projections[name]
            features = features @ projection.weight.T + projection.bias
        x = torch.cat([unit(model.preferences[name]), unit(features)])
        for layers in model.layers:
            layer = layers[name]
            if unit_mean:
                h = leaky(unit(mean @ (x @ layer.aggregation + layer.aggregation_bias)))
            else:
                h = leaky(mean @ (x @ layer.aggregation))
            s = leaky(x @ layer.own.weight.T + layer.own.bias) + identities
            both = torch.cat([h, s], dim=1)
            x = leaky(both @ layer.combination.weight.T + layer.combination.bias)
        outputs.append(x)
    return sum(outputs) / len(outputs)


@pytest.mark.parametrize(
    ("latent_size", "n_ui_layers"), [(6, 3), (4, 2), (6, 1)], ids=["wider", "narrower", "one layer"]
)
@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("neighbourhood", ["mean", "unit_mean"])
def test_vectors_and_losses_equal_the_dense_formulas(
    neighbourhood: str, trained: bool, latent_size: int, n_ui_layers: int
) -> None:
    dataset = tiny_dataset(NAMES)
    kept = dataset.inter_feat["user_id"] != 5  # a node without neighbours
    dataset.inter_feat = {field: ids[kept] for field, ids in dataset.inter_feat.items()}
    batch = tiny_batch(dataset)
    penalised = "all" if trained else "first"
    model = build(
        dataset,
        neighbourhood=neighbourhood,
        train_tables=trained,
        penalised_preferences=penalised,
        latent_sizes=[latent_size, 0],  # of 5 features
        n_ui_layers=n_ui_layers,
    )
    nodes = dense_nodes(model, dataset, neighbourhood == "unit_mean")
    users, items = nodes.split([model.n_users, model.n_items])
    ours = model.encode()
    torch.testing.assert_close(ours[0], users)
    torch.testing.assert_close(ours[1], items)

    u, p, n = batch["user_id"], batch["item_id"], batch["neg_item_id"]
    of_items = torch.cat([model.item_embedding[p], model.item_embedding[n]])
    identities = (model.user_embedding[u] ** 2).mean() + (of_items**2).mean()
    names = NAMES if trained else NAMES[:1]
    preferences = sum((model.preferences[name][1:] ** 2).mean() for name in names)
    expected = {
        "bpr": plain_bpr(users, items, batch),
        "reg_identities": 0.3 * identities,
        "reg_preferences": 0.3 * preferences,
    }
    same_terms_and_gradients(model, model.loss_terms(batch), expected)


@pytest.mark.parametrize("trained", [False, True])
def test_the_setting_decides_what_is_trained(trained: bool) -> None:
    model = build(tiny_dataset(NAMES), train_tables=trained)
    tables = {"user_embedding", "item_embedding", *(f"preferences.{name}" for name in NAMES)}
    parameters = {name for name, _ in model.named_parameters()}
    buffers = {name for name, _ in model.named_buffers()}
    assert tables <= (parameters if trained else buffers)


def test_constants_follow_a_loaded_state() -> None:
    dataset = tiny_dataset(NAMES)
    model = build(dataset)
    state = dict(model.state_dict())
    for name in NAMES:
        state[f"preferences.{name}"] = torch.randn_like(state[f"preferences.{name}"])
    model.load_state_dict(state)
    nodes = dense_nodes(model, dataset, unit_mean=False)
    torch.testing.assert_close(torch.cat(model.encode()), nodes)


def test_more_latent_sizes_than_modalities_are_refused() -> None:
    with pytest.raises(ValueError, match=r"MMGCN: latent_sizes must .* remove 1\."):
        build(tiny_dataset(NAMES[:1]))
