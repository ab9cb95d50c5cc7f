"""DGMRec beyond the shared golden run: its switches, any number of modalities, empty sets."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from golden_maps import dgmrec as published
from golden_maps.run import GoldenRun, without_randomness
from helpers import (
    TinyDataset,
    model_defaults,
    tiny_batch,
    tiny_config,
    tiny_dataset,
    tiny_modalities,
)

from recbole_missing.graph.sparse import propagate
from recbole_missing.model.dgmrec import DGMRec, _Disentangling, _imitation
from recbole_missing.nn import layers

LOG_2 = 0.6931472
LOSSES = {"bpr", "reg", "recon", "intra_modal", "align"}


@pytest.mark.parametrize("name", ["DGMRec", "DGMRec-3m"])
def test_scores_on_the_refreshed_graph(
    name: str, golden_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = golden_dir / f"{name}.npz"
    if not file.is_file():
        pytest.skip(f"{file} is not there")
    with np.load(file) as stored:
        npz = dict(stored)
    names = SimpleNamespace(**vars(published))
    names.settings = lambda meta: {**published.settings(meta), "score_on_refreshed_graph": True}
    del names.batch
    run = GoldenRun(names, npz, json.loads(str(npz["meta"])))
    without_randomness(monkeypatch)
    run.load()
    optimizer = run.optimizer()
    for k in range(4):
        run.step(k, optimizer, monkeypatch)
    run.compare_scores("scores4_refreshed_graph")


@pytest.mark.parametrize("alike", [False, True])
@pytest.mark.parametrize("n_modalities", [1, 2, 4])
def test_any_number_of_modalities(n_modalities: int, alike: bool) -> None:
    model, dataset = build(names=letters(n_modalities), treat_modalities_alike=alike)
    optimizer = torch.optim.Adam(model.auxiliary_parameters())
    for _ in range(5):
        model.on_epoch_start(lambda loss: minimise(loss, optimizer))
        model.calculate_loss(tiny_batch(dataset)).backward()
    expected = LOSSES | {"club", "generation"} | ({"inter_modal"} if n_modalities > 1 else set())
    assert set(model.last_terms) == expected
    assert all(torch.isfinite(term) for term in model.last_terms.values())
    assert all(p.grad is not None for p in model.parameters())
    assert len(model.clubs) == (n_modalities if alike else min(n_modalities, 2))


@pytest.mark.parametrize("n_modalities", [1, 2])
def test_switch_changes_nothing_up_to_two_modalities(n_modalities: int) -> None:
    losses = []
    for alike in (False, True):
        model, dataset = build(names=letters(n_modalities), treat_modalities_alike=alike)
        torch.manual_seed(1)
        model.epochs_started.fill_(4)
        model.on_epoch_start(lambda loss: None)
        losses.append(model.calculate_loss(tiny_batch(dataset)).item())
    assert losses[0] == losses[1]


def test_who_is_generated_and_refreshed() -> None:
    released, dataset = build(names=letters(3))
    alike, _ = build(names=letters(3), treat_modalities_alike=True)
    missing = ~dataset.modalities.observed
    missing[0] = False
    lacking = missing.sum(dim=1, keepdim=True)
    assert {1, 2, 3} <= set(lacking.flatten().tolist())  # else the test could not fail
    assert released.generated.equal(missing & (lacking == 1))
    assert released.refreshed.equal(missing & (lacking == 1))
    assert alike.generated.equal(missing & (lacking <= 2))
    assert alike.refreshed.equal(missing)


def test_epoch_work_rewrites_missing_rows_alone() -> None:
    model, _ = build(club_weight=0.0)
    before = {name: table.detach().clone() for name, table in model.features.items()}
    model.on_epoch_start(lambda loss: pytest.fail("no estimator, nothing to minimise"))
    for j, (name, table) in enumerate(model.features.items()):
        changed = (table != before[name]).any(dim=1)
        assert changed.equal(model.generated[:, j])


def test_generated_features_are_noisy() -> None:
    features = []
    for seed in (1, 2):
        model, _ = build(club_weight=0.0)
        torch.manual_seed(seed)
        model.on_epoch_start(lambda loss: None)
        features.append(model.features["a"].detach())
    assert (features[0] != features[1]).any(dim=1).equal(model.generated[:, 0])


def test_completed_features_add_rows_that_no_epoch_generates() -> None:
    model, _ = build()
    made, again = model.completed_features(), model.completed_features()
    for j, (name, table) in enumerate(model.features.items()):
        assert torch.equal(made[name], again[name]), "noise"
        left = ~(model.observed[:, j] | model.generated[:, j])
        left[0] = False
        assert left.any()
        assert (made[name] != table).any(dim=1).equal(left)


def test_retrieval_spaces_in_formulas() -> None:
    model, _ = build(names=letters(2))
    torch.manual_seed(3)
    sought = {name: torch.randn_like(table) for name, table in model.features.items()}
    spaces = model.retrieval_spaces(sought)
    gates, made = model._gates(), model.completed_features()

    def parts(tables: Any, name: str) -> tuple[torch.Tensor, torch.Tensor]:
        lin, lin_specific = model.networks[name].encoder(tables[name]).chunk(2, dim=1)
        return torch.sigmoid(model.shared_encoder(torch.tanh(lin))), torch.sigmoid(lin_specific)

    def through_graph(name: str, part: torch.Tensor) -> torch.Tensor:
        return propagate(model.inference_graphs[name], part, model.n_mm_layers)

    def gated(tables: Any, name: str) -> torch.Tensor:
        both = [through_graph(name, gates[name] * part) for part in parts(tables, name)]
        return torch.cat(both, dim=1)

    for name, other in (("a", "b"), ("b", "a")):
        network, general = model.networks[name], parts(model.features, other)[0]
        taste = network.generator(gates[name])
        translated = network.translator(gated(model.features, other)[:, : general.shape[1]])
        consistent = torch.cat([translated, through_graph(name, gates[name] * taste)], dim=1)
        expected = {
            "general part": (network.translator(general), parts(sought, name)[0]),
            "specific part": (taste, parts(sought, name)[1]),
            "gated parts": (gated(made, name), gated(sought, name)),
            "features from gated parts": (network.decoder(consistent), sought[name]),
        }
        assert list(spaces) == list(expected)
        for space, pair in expected.items():
            for found, right in zip(spaces[space][name], pair):
                torch.testing.assert_close(found[1:], right[1:])
                assert not found.requires_grad


def test_nothing_missing() -> None:
    model, dataset = build(missing=0.0)
    model.epochs_started.fill_(4)
    before = model.state_dict()
    before = {name: value.clone() for name, value in before.items()}
    model.on_epoch_start(lambda loss: None)
    before["epochs_started"] += 1
    after = model.state_dict()
    assert all(value.equal(after[name]) for name, value in before.items())
    model.calculate_loss(tiny_batch(dataset))
    assert set(model.last_terms) == LOSSES | {"club", "inter_modal"}


def test_terms_without_weight_are_not_computed() -> None:
    model, dataset = build(club_weight=0.0, inter_modal_weight=0.0)
    model.calculate_loss(tiny_batch(dataset))
    assert set(model.last_terms) == LOSSES | {"generation"}
    assert not list(model.auxiliary_parameters())


def test_batch_without_a_complete_item_gives_no_nan() -> None:
    model, dataset = build(missing=1.0)
    loss = model.calculate_loss(tiny_batch(dataset))
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_checkpoint_restores_refreshed_graphs_and_counter() -> None:
    model, dataset = build(score_on_refreshed_graph=True)
    model.epochs_started.fill_(4)
    model.on_epoch_start(lambda loss: None)
    fresh, _ = build(score_on_refreshed_graph=True)
    fresh.load_state_dict(model.state_dict())
    users = {"user_id": torch.arange(1, dataset.num("user_id"))}
    torch.testing.assert_close(fresh.full_sort_predict(users), model.full_sort_predict(users))
    assert int(fresh.epochs_started) == 5
    assert fresh.training_graphs["a"].edges()[2].equal(model.training_graphs["a"].edges()[2])


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("n_layers", [1, 2])
def test_imitation_and_its_gradients(
    n_layers: int, masked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layers, "CPU_BLOCK", 4)  # the last block is shorter
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(5, 3), torch.nn.Tanh(), torch.nn.Linear(3, 2))
    network = (network if n_layers == 2 else network[0]).double()
    x = torch.randn(10, 5, dtype=torch.float64, requires_grad=True)
    target = torch.randn(10, 4 - n_layers, dtype=torch.float64, requires_grad=True)
    counted = torch.arange(10) % 3 > 0 if masked else torch.ones(10, dtype=torch.bool)
    torch.manual_seed(1)
    plain = (network(layers.perturb(x)) - target).square()[counted].mean()
    torch.manual_seed(1)
    fast = _imitation(network, x, target, counted if masked else None)
    torch.testing.assert_close(fast, plain)
    inputs = [x, target, *network.parameters()]
    for ours, theirs in zip(*(torch.autograd.grad(3 * loss, inputs) for loss in (fast, plain))):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("first", [0, 1, 2])
def test_imitation_leaves_the_first_rows_out(first: int) -> None:
    torch.manual_seed(0)
    network = torch.nn.Linear(5, 3).double()
    x = torch.randn(10, 5, dtype=torch.float64, requires_grad=True)
    target = torch.randn(10, 3, dtype=torch.float64, requires_grad=True)
    losses = []
    for arguments in ((x, target, None, first), (x[first:], target[first:])):
        torch.manual_seed(1)
        losses.append(_imitation(network, *arguments))
    torch.testing.assert_close(*losses)
    gradients = [torch.autograd.grad(loss, [x, target, network.weight]) for loss in losses]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("ids", [None, [4, 1, 9]])
def test_disentangling_and_its_gradients(
    ids: list[int] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layers, "CPU_BLOCK", 4)  # the last block is shorter
    torch.manual_seed(0)
    encoder, shared = torch.nn.Linear(5, 6).double(), torch.nn.Linear(3, 3).double()
    features, gate = (
        torch.randn(10, size, dtype=torch.float64, requires_grad=True) for size in (5, 3)
    )
    general, specific = encoder(features).chunk(2, dim=1)
    raw = torch.cat([shared(general.tanh()), specific], dim=1).sigmoid()
    chosen = None if ids is None else torch.tensor(ids)
    plain = (raw if chosen is None else raw[chosen]), raw * gate.repeat(1, 2)
    layers_of_both = [*encoder.parameters(), *shared.parameters()]
    fast = _Disentangling.apply(features, gate, chosen, *layers_of_both)
    torch.testing.assert_close(fast, plain)
    weights = [torch.randn_like(table) for table in plain]
    gradients = []
    for tables in (fast, plain):
        total = sum((table * weight).sum() for table, weight in zip(tables, weights))
        gradients.append(torch.autograd.grad(total, [features, gate, *layers_of_both]))
    torch.testing.assert_close(*gradients)


def test_imitation_of_nothing_is_zero() -> None:
    x = torch.randn(3, 2, requires_grad=True)
    loss = _imitation(torch.nn.Linear(2, 2), x, torch.randn(3, 2), torch.zeros(3, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0.0
    assert x.grad is not None
    assert not x.grad.any()


def test_repeated_triples_count_as_often_as_they_occur() -> None:
    model, dataset = build(club_weight=0.0)
    batch = tiny_batch(dataset)
    twice = {name: ids.repeat(2) for name, ids in batch.items()}
    losses = []
    for triples in (batch, twice):
        torch.manual_seed(1)
        losses.append(model.loss_terms(triples))
    once, double = losses
    for name in ("bpr", "recon", "generation"):
        torch.testing.assert_close(double[name], once[name])
    torch.testing.assert_close(double["reg"], once["reg"] / 2**0.5)
    # Each row of the batch has twice as many rivals: the positive one and all others twice.
    torch.testing.assert_close(double["align"], once["align"] + 2 * model.align_weight * LOG_2)
    weight = model.intra_modal_weight * (2 + len(model.modalities))
    torch.testing.assert_close(double["intra_modal"], once["intra_modal"] + weight * LOG_2)
    assert len(batch["user_id"]) > len(batch["user_id"].unique())  # so the rows repeat already


# ------------------------------------------------------------------------------ small helpers


def letters(count: int) -> str:
    return "abcd"[:count]


def build(names: str = "ab", missing: float = 0.4, **settings: Any) -> tuple[DGMRec, TinyDataset]:
    dataset = tiny_dataset(names=list(names), n_items=40)
    dims = {name: 5 + position for position, name in enumerate(names)}
    dataset.modalities = tiny_modalities(40, dims, missing=missing)
    torch.manual_seed(0)
    small = {"embedding_size": 8, "knn_k": 3}
    config = tiny_config(**{**model_defaults("DGMRec"), **small, **settings})
    return DGMRec(config, dataset), dataset


def minimise(loss: torch.Tensor, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
