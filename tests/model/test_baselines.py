"""RecBole's models that results are printed beside, compared with dense matrices.

The references are written from the papers. Data: 30 users, 20 items, RecBole's padding in front of
both. One pair is repeated, one user and one item have no training interaction.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from folders import AT_WORK, Prepared, prepare
from folders import workplace as workplace
from recbole.quick_start import load_data_and_model, run_recbole
from recbole.utils import ModelType, get_model, get_trainer
from torch import Tensor

from recbole_missing import cli, plugin
from recbole_missing.baseline import BASELINES, in_place_of
from recbole_missing.trainer import PluginTrainer

pytestmark = AT_WORK

N_USERS, N_ITEMS = 31, 21  # with the padding
REPEATED = ("u3", "i1")
UNTRAINED = ("u29", "i19")
TAU, WEIGHT = 0.4, 0.7
SMALL = {"embedding_size": 6, "learning_rate": 0.1, "learner": "sgd", "clip_grad_norm": None}
OF_MODEL: dict[str, dict[str, Any]] = {
    "BPR": {},
    "LightGCN": {"n_layers": 3, "reg_weight": 0.5},
    "NGCF": {"hidden_size_list": [5, 4, 3], "message_dropout": 0.0, "reg_weight": 0.0},
    "SGL": {"n_layers": 2, "ssl_tau": TAU, "ssl_weight": WEIGHT, "reg_weight": 0.0},
    "Pop": {},
    "ItemKNN": {},
    "EASE": {"reg_weight": 7.0},
}


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, Any]:
    """Write the data; item i1 is in most baskets, so that it occurs often in one batch."""
    generator = np.random.default_rng(3)
    users = [f"u{number}" for number in range(N_USERS - 2)]
    likely = np.linspace(3, 1, N_ITEMS - 2) ** 2
    rows = []
    for user in users:
        size = generator.integers(3, 8)
        picks = generator.choice(N_ITEMS - 2, size, replace=False, p=likely / likely.sum())
        rows += [(user, f"i{number}") for number in picks]
    rows += [("u0", "i1"), ("u1", "i1")]
    rows = [REPEATED, REPEATED, *(row for row in dict.fromkeys(rows) if row != REPEATED)]
    held = [(user, item) for user, item in zip([*users, UNTRAINED[0]], ["i4", UNTRAINED[1]] * 15)]
    folder = tmp_path / "small"
    folder.mkdir()
    for split, pairs in (("train", rows), ("valid", held), ("test", held[::-1])):
        lines = ["user_id:token\titem_id:token", *("\t".join(pair) for pair in pairs)]
        (folder / f"small.{split}.inter").write_text("\n".join(lines) + "\n")
    where = {"data_path": str(tmp_path), "checkpoint_dir": str(tmp_path / "saved")}
    names = {"dataset": "small", "benchmark_filename": ["train", "valid", "test"]}
    run = {"epochs": 2, "topk": [5], "metrics": ["Recall"], "valid_metric": "Recall@5"}
    run.update(show_progress=False, gpu_id="", train_batch_size=40, metric_decimal_place=15)
    return {**where, **names, **run, **SMALL}


def prepared(settings: dict[str, Any], model: Any, **changes: Any) -> Prepared:
    name = model if isinstance(model, str) else model.__name__
    run = prepare(model, {**settings, **OF_MODEL[name], **changes})
    assert (run.dataset.user_num, run.dataset.item_num) == (N_USERS, N_ITEMS)
    return run


def pairs_in_training(run: Prepared) -> tuple[np.ndarray, np.ndarray]:
    split = run.train._dataset.inter_feat
    return split["user_id"].numpy(), split["item_id"].numpy()


def counted(run: Prepared) -> np.ndarray:
    """How often a user has an item in training, ``(n_users, n_items)``."""
    matrix = np.zeros((N_USERS, N_ITEMS))
    np.add.at(matrix, pairs_in_training(run), 1)
    assert matrix.max() == 2 and not matrix[0].any() and not matrix[:, 0].any()
    return matrix


def normalised(matrix: np.ndarray) -> Tensor:
    """D^-1/2 [0 R; R^T 0] D^-1/2; a node without edges has zeros."""
    square = np.zeros((N_USERS + N_ITEMS,) * 2)
    square[:N_USERS, N_USERS:] = matrix
    square += square.T
    degrees = square.sum(axis=1)
    scale = np.divide(1, np.sqrt(degrees), out=np.zeros_like(degrees), where=degrees > 0)
    return torch.from_numpy(scale[:, None] * square * scale).float()


def graph_of(run: Prepared) -> Tensor:
    return normalised((counted(run) > 0).astype(float))


def batch_of(run: Prepared) -> dict[str, Tensor]:
    """Triples with a repeated user and a repeated item."""
    users, items = (torch.from_numpy(ids[[0, 1, 2, 9, 9, 30]]) for ids in pairs_in_training(run))
    return {"user_id": users, "item_id": items, "neg_item_id": torch.tensor([5, 6, 7, 5, 8, 9])}


@dataclass
class Triple:
    """Rows of a batch in two tables."""

    users: Tensor
    positives: Tensor
    negatives: Tensor

    @classmethod
    def of(cls, users: Tensor, items: Tensor, batch: dict[str, Tensor]) -> Triple:
        """Take the rows."""
        return cls(users[batch["user_id"]], items[batch["item_id"]], items[batch["neg_item_id"]])

    def margins(self) -> Tensor:
        """Score of the positive minus that of the negative."""
        return (self.users * self.positives).sum(dim=1) - (self.users * self.negatives).sum(dim=1)

    def squares(self) -> Tensor:
        """Sum of all squares."""
        return torch.stack([part.square().sum() for part in vars(self).values()]).sum()

    def norms(self) -> Tensor:
        """Sum of the three Frobenius norms, not squared."""
        return torch.stack([part.square().sum().sqrt() for part in vars(self).values()]).sum()


def tables(network: Any) -> tuple[Tensor, Tensor]:
    return network.user_embedding.weight, network.item_embedding.weight


def assert_same_gradients(network: Any, one: Tensor, other: Tensor) -> None:
    """Two scalars that agree, and whose gradients do for every parameter of the network."""
    torch.testing.assert_close(one.reshape(()), other.reshape(()), atol=1e-5, rtol=1e-5)
    parameters = list(network.parameters())
    found, expected = (
        torch.autograd.grad(value.sum(), parameters, allow_unused=True) for value in (one, other)
    )
    for mine, theirs, parameter in zip(found, expected, parameters):
        zeros = torch.zeros_like(parameter)
        pair = [zeros if gradient is None else gradient for gradient in (mine, theirs)]
        torch.testing.assert_close(*pair, atol=1e-5, rtol=1e-4)


def recboles(name: str) -> Any:
    """RecBole's own class."""
    return getattr(importlib.import_module("recbole.model.general_recommender"), name)


# --------------------------------------------------------------------------------- scores in full


def test_pop_counts_the_users_of_an_item(settings: dict[str, Any]) -> None:
    run = prepared(settings, "Pop")
    expected = torch.from_numpy((counted(run) > 0).sum(axis=0)).float()
    for size in (7, 2048):  # RecBole's depends on the size of a batch
        run = prepared(settings, "Pop", train_batch_size=size)
        network = run.network()
        run.trainer(network).fit(run.train, run.valid, saved=False)
        assert torch.equal(run.scores(network), expected.expand(N_USERS - 1, -1))
    items = torch.arange(N_ITEMS)
    batch = {"user_id": torch.ones_like(items), "item_id": items}
    assert torch.equal(network.predict(batch), expected)
    assert expected[0] == expected[run.dataset.token2id("item_id", UNTRAINED[1])] == 0


def test_recboles_pop_is_no_popularity(settings: dict[str, Any]) -> None:
    run = prepared(settings, "Pop")
    network = recboles("Pop")(run.config, run.train._dataset)
    for batch in run.train:
        network.calculate_loss(batch)
    users_of_item = (counted(run) > 0).sum(axis=0)
    assert network.item_cnt.max() <= len(run.train) < users_of_item.max()
    unseen = run.dataset.token2id("item_id", UNTRAINED[1])
    assert network.item_cnt[unseen] > 0, "it counts sampled negatives"


@pytest.mark.parametrize("method", ["item", "user"])
@pytest.mark.parametrize("shrink", [0.0, 2.5])
@pytest.mark.parametrize("k", [3, 1000])
def test_itemknn(settings: dict[str, Any], method: str, shrink: float, k: int) -> None:
    run = prepared(settings, "ItemKNN", k=k, shrink=shrink, knn_method=method)
    network = run.network()
    matrix = counted(run)
    vectors = matrix.T if method == "item" else matrix
    norms = np.sqrt((vectors**2).sum(axis=1))
    similarity = vectors @ vectors.T / (np.outer(norms, norms) + shrink + 1e-6)
    np.fill_diagonal(similarity, 0)
    kept = network.w.toarray() if method == "item" else network.w.toarray().T
    for found, true in zip(kept.T, similarity.T):  # a column holds the neighbours of one item
        assert np.allclose(found[found > 0], true[found > 0], atol=1e-5)
        best = np.sort(true)[::-1][:k]  # which of equal neighbours is kept is open
        assert np.allclose(np.sort(found)[::-1][: len(best)], best, atol=1e-5)
        assert (found > 0).sum() <= k
    expected = matrix @ kept if method == "item" else kept.T @ matrix
    assert np.allclose(run.scores(network).numpy(), expected[1:], atol=1e-4)
    pairs = {"user_id": torch.arange(1, N_ITEMS), "item_id": torch.arange(1, N_ITEMS)}
    assert np.allclose(network.predict(pairs), expected[range(1, N_ITEMS), range(1, N_ITEMS)])


@pytest.mark.parametrize("weight", [0.5, 250.0])
def test_ease(settings: dict[str, Any], weight: float) -> None:
    run = prepared(settings, "EASE", reg_weight=weight)
    network = run.network()
    matrix = counted(run)
    inverse = np.linalg.inv(matrix.T @ matrix + weight * np.eye(N_ITEMS))
    expected = np.eye(N_ITEMS) - inverse @ np.diag(1 / np.diag(inverse))
    np.fill_diagonal(expected, 0)  # it is zero up to rounding
    assert np.allclose(network.item_similarity, expected, atol=1e-5)
    assert not expected[0].any() and not expected[:, 0].any()
    assert np.allclose(run.scores(network), (matrix @ expected)[1:], atol=1e-5)
    pairs = {"user_id": torch.arange(1, N_ITEMS), "item_id": torch.arange(1, N_ITEMS)}
    slow = (matrix @ expected)[range(1, N_ITEMS), range(1, N_ITEMS)]
    assert np.allclose(network.predict(pairs), slow, atol=1e-5)


# ------------------------------------------------------------------ BPR, LightGCN: left as they are


def test_bpr(settings: dict[str, Any]) -> None:
    run = prepared(settings, "BPR")
    network, batch = run.network(), batch_of(run)
    users, items = tables(network)
    loss = -torch.log(torch.sigmoid(Triple.of(users, items, batch).margins())).mean()
    assert_same_gradients(network, network.calculate_loss(batch), loss)
    torch.testing.assert_close(run.scores(network), (users @ items.T)[1:].detach())
    torch.testing.assert_close(
        network.predict(batch),
        Triple.of(users, items, batch).users.mul(items[batch["item_id"]]).sum(dim=1),
    )


@pytest.mark.parametrize("squared", [False, True])
def test_lightgcn(settings: dict[str, Any], squared: bool) -> None:
    """Layer mean, and the L2 term: squared as in the paper with ``require_pow: True`` only."""
    run = prepared(settings, "LightGCN", require_pow=squared)
    network, batch = run.network(), batch_of(run)
    nodes = torch.cat(tables(network))
    graph = graph_of(run)
    layers = [nodes, graph @ nodes, graph @ graph @ nodes, graph @ graph @ graph @ nodes]
    users, items = torch.stack(layers).mean(dim=0).split([N_USERS, N_ITEMS])
    bpr = -F.logsigmoid(Triple.of(users, items, batch).margins()).mean()
    first = Triple.of(*tables(network), batch)
    penalty = first.squares() / 2 if squared else first.norms()
    loss = bpr + 0.5 * penalty / len(batch["user_id"])
    assert_same_gradients(network, network.calculate_loss(batch), loss)
    torch.testing.assert_close(run.scores(network), (users @ items.T)[1:].detach())


@pytest.mark.parametrize("model", ["BPR", "LightGCN", "NGCF", "SGL"])
def test_weight_decay_is_the_penalty_of_the_papers(settings: dict[str, Any], model: str) -> None:
    """One step with ``weight_decay: 2 w`` goes down the loss plus w |all parameters|^2."""
    weight, plain = 0.03, {"reg_weight": 0.0}
    run = prepared(settings, model, weight_decay=2 * weight, **plain)
    network = run.network()
    network.train()
    batch = batch_of(run)
    penalty = weight * sum(value.square().sum() for value in network.parameters())
    (network.calculate_loss(batch).sum() + penalty).backward()
    expected = [value - 0.1 * value.grad for value in network.parameters()]
    network.zero_grad()
    optimizer = run.trainer(network).optimizer
    network.calculate_loss(batch).sum().backward()
    optimizer.step()
    for found, wanted in zip(network.parameters(), expected):
        torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-5)


# --------------------------------------------------------------------------------------------- NGCF


def ngcf(network: Any, graph: Tensor, drop: Any = lambda layer, nodes: nodes) -> tuple[Any, Any]:
    """Eq. 7; what the layers hand on is not scaled, what is concatenated is, as in the code."""
    nodes = torch.cat(tables(network))
    outputs = [nodes]
    for number, layer in enumerate(network.GNNlayers):
        one, two = layer.linear, layer.interActTransform
        sums = (graph + torch.eye(len(graph))) @ nodes @ one.weight.T + one.bias
        products = ((graph @ nodes) * nodes) @ two.weight.T + two.bias
        raw = sums + products
        nodes = drop(number, torch.where(raw > 0, raw, 0.2 * raw))
        lengths = nodes.square().sum(dim=1, keepdim=True).sqrt()
        outputs.append(nodes / lengths.clamp(min=1e-12))
    return torch.cat(outputs, dim=1).split([N_USERS, N_ITEMS])


def shaken(network: Any) -> Any:
    """Biases that are not zero, and weights at which the layers' lengths differ."""
    with torch.no_grad():
        for value in network.GNNlayers.parameters():
            value.add_(torch.randn_like(value) * 0.5)
    return network


def test_ngcf(settings: dict[str, Any]) -> None:
    run = prepared(settings, "NGCF", reg_weight=0.5)
    network, batch = shaken(run.network()), batch_of(run)
    users, items = ngcf(network, graph_of(run))
    triple = Triple.of(users, items, batch)
    loss = -F.logsigmoid(triple.margins()).mean() + 0.5 * triple.norms() / len(triple.users)
    assert_same_gradients(network, network.calculate_loss(batch), loss)
    torch.testing.assert_close(run.scores(network), (users @ items.T)[1:].detach())


def test_recboles_ngcf_hands_on_scaled_layers(settings: dict[str, Any]) -> None:
    run = prepared(settings, "NGCF")
    network = shaken(recboles("NGCF")(run.config, run.train._dataset))
    users, items = ngcf(network, graph_of(run))
    found, _ = network()
    first_two = 6 + 5  # identity and the first layer do not depend on it
    torch.testing.assert_close(found[:, :first_two], users[:, :first_two])
    assert not torch.allclose(found, users, atol=1e-2)


def test_dropouts_of_ngcf(settings: dict[str, Any]) -> None:
    """They scale what they keep, and evaluation drops nothing."""
    run = prepared(settings, "NGCF", node_dropout=0.3, message_dropout=0.4)
    network = shaken(run.network())
    kept: list[Tensor] = []
    graphs: list[Tensor] = []

    def note_outputs(module: Any, inputs: Any, output: Tensor) -> None:
        kept.append((output != 0).float())
        assert torch.allclose(output, inputs[0] * kept[-1] / 0.6)

    network.emb_dropout.register_forward_hook(note_outputs)
    network.sparse_dropout.register_forward_hook(lambda *call: graphs.append(call[-1].to_dense()))
    network.train()
    found = torch.cat(network(), dim=0)
    whole = graph_of(run)
    drops = graphs[0] == 0
    assert len(graphs) == 1 and torch.allclose(graphs[0], (whole / 0.7).masked_fill(drops, 0))
    assert 0.2 < 1 - (graphs[0] != 0).sum() / (whole != 0).sum() < 0.4
    assert 0.3 < 1 - torch.cat([part.ravel() for part in kept]).mean() < 0.5
    expected = ngcf(network, graphs[0], lambda layer, nodes: nodes * kept[layer] / 0.6)
    torch.testing.assert_close(found, torch.cat(expected), atol=1e-5, rtol=1e-4)
    users, items = ngcf(network, whole)
    network.emb_dropout._forward_hooks.clear()
    torch.testing.assert_close(run.scores(network), (users @ items.T)[1:].detach())


# ---------------------------------------------------------------------------------------------- SGL


def lightgcn(network: Any, graphs: list[Tensor]) -> tuple[Any, Any]:
    layers = [torch.cat(tables(network))]
    for graph in graphs:
        layers.append(graph @ layers[-1])
    return torch.stack(layers).mean(dim=0).split([N_USERS, N_ITEMS])


def views(network: Any) -> list[list[Tensor]]:
    """The graphs of both views, one a layer, dense."""
    found = []
    for graph in (network.sub_graph1, network.sub_graph2):
        layers = graph if isinstance(graph, list) else [graph] * network.n_layers
        found.append([layer.to_dense() for layer in layers])
    return found


def contrast(one: Tensor, other: Tensor, rows: Tensor) -> Tensor:
    """Eq. 10 for the rows of a batch; row 0 is no user and no item."""
    total = torch.zeros(())
    for row in rows.tolist():
        rivals = range(1, len(other))
        cosines = torch.stack([F.cosine_similarity(one[row], other[v], dim=0) for v in rivals])
        total = total - torch.log_softmax(cosines / TAU, dim=0)[row - 1]
    return total


@pytest.mark.parametrize("kind", ["ND", "ED", "RW"])
def test_sgl(settings: dict[str, Any], kind: str) -> None:
    run = prepared(settings, "SGL", type=kind, drop_ratio=0.25, reg_weight=0.5)
    network, batch = run.network(), batch_of(run)
    network.train()
    one, other = (lightgcn(network, graphs) for graphs in views(network))
    users, items = lightgcn(network, [normalised(counted(run))] * 2)
    bpr = -F.logsigmoid(Triple.of(users, items, batch).margins()).sum()
    first = Triple.of(*tables(network), batch)
    ssl = contrast(one[0], other[0], batch["user_id"]) + contrast(
        one[1], other[1], batch["item_id"]
    )
    loss = bpr + WEIGHT * ssl + 0.5 * first.norms() / len(batch["user_id"])
    assert_same_gradients(network, network.calculate_loss(batch), loss)
    torch.testing.assert_close(run.scores(network), (users @ items.T)[1:].detach())


def test_recboles_sgl_contrasts_with_the_padding(settings: dict[str, Any]) -> None:
    run = prepared(settings, "SGL")
    ours, theirs = run.network(), recboles("SGL")(run.config, run.train._dataset)
    theirs.load_state_dict(ours.state_dict())
    ours.train()
    theirs.sub_graph1, theirs.sub_graph2 = ours.sub_graph1, ours.sub_graph2
    batch = batch_of(run)
    right, wrong = ours.calculate_loss(batch), theirs.calculate_loss(batch)
    assert wrong > right + 0.1
    (gradient,) = torch.autograd.grad(wrong.sum(), [theirs.user_embedding.weight])
    assert gradient[0].abs().sum() > 0, "the padding user is trained"
    (gradient,) = torch.autograd.grad(right.sum(), [ours.user_embedding.weight])
    assert gradient[0].abs().sum() == 0


@pytest.mark.parametrize("kind", ["ND", "ED", "RW"])
def test_views_of_sgl(settings: dict[str, Any], kind: str) -> None:
    """A view is a part of the training graph under its own degrees; every epoch draws new ones."""
    run = prepared(settings, "SGL", type=kind, drop_ratio=0.25)
    network = run.network()
    network.train()
    matrix, drawn = counted(run), []
    for graph in [layer for view in views(network) for layer in view]:
        block = graph[:N_USERS, N_USERS:].numpy()
        kept = np.where(block > 0, matrix, 0)
        if kind == "ND":
            gone = [N_USERS - (kept.sum(axis=1) > 0).sum(), N_ITEMS - (kept.sum(axis=0) > 0).sum()]
            assert gone[0] >= int(0.25 * N_USERS) and gone[1] >= int(0.25 * N_ITEMS)
        else:  # an edge of the repeated pair may be dropped alone
            edges = int(matrix.sum() * 0.75)
            assert kept.sum() - 1 <= edges <= kept.sum()
            kept[kept > 1] -= kept.sum() - edges
        torch.testing.assert_close(graph, normalised(kept), atol=1e-5, rtol=1e-4)
        drawn.append(block > 0)
    same_in_every_layer = np.array_equal(drawn[0], drawn[1])
    assert same_in_every_layer == (kind != "RW")
    assert not np.array_equal(drawn[0], drawn[-1])
    before = [layer for view in views(network) for layer in view]
    network.train()
    after = [layer for view in views(network) for layer in view]
    assert not any(torch.equal(*pair) for pair in zip(before, after))


# ------------------------------------------------------------------------------------ look-ups


@pytest.mark.parametrize("name", BASELINES)
def test_the_right_class_is_found_however_it_is_named(settings: dict[str, Any], name: str) -> None:
    ours, theirs = BASELINES[name], recboles(name)
    assert ours is get_model(name) is in_place_of(theirs) is in_place_of(ours)
    assert ours is not theirs
    for word in (name, theirs, ours, f"{theirs.__module__}:{name}"):
        config = prepare(word, {**settings, **OF_MODEL[name]}).config
        assert config.model_class is ours is get_model(config["model"])
        assert config["model"] == name
        assert issubclass(get_trainer(config["MODEL_TYPE"], config["model"]), PluginTrainer)
        assert config["MODEL_TYPE"] == (
            ModelType.TRADITIONAL if name == "Pop" else ModelType.GENERAL
        )

    class Derived(theirs):  # type: ignore[misc, valid-type]
        """A user's own class is the user's."""

    assert in_place_of(Derived) is Derived
    assert in_place_of(recboles("BPR")) is recboles("BPR")
    with pytest.raises(ValueError, match=f"'{name}' must be a name that is not taken"):
        plugin.register_model(type(name, (recboles("BPR"),), {}))


@pytest.mark.parametrize("name", BASELINES)
def test_a_run_says_the_difference_once_and_its_checkpoint_gives_the_same_scores(
    settings: dict[str, Any],
    name: str,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    caplog.set_level("INFO")
    words = {**settings, **OF_MODEL[name], "state": "INFO"}
    result = run_recbole(name, config_dict=words)["test_result"]
    lines = [record.getMessage() for record in caplog.records]
    assert lines.count(f"{name}: {BASELINES[name].difference}.") == 1
    assert "RecBole's" in BASELINES[name].difference
    (file,) = (tmp_path / "saved").glob("*.pth")
    config, network, _, _, _, test = load_data_and_model(str(file), tmp_path)
    assert type(network) is BASELINES[name]
    trainer = get_trainer(config["MODEL_TYPE"], config["model"])(config, network)
    assert trainer.evaluate(test, load_best_model=False) == result
    capsys.readouterr()
    cli.main(
        ["recommend", str(file), "--users", "u0", "--top-k", "3", "--data-path", str(tmp_path)]
    )
    assert len(capsys.readouterr().out.splitlines()) == 1 + 3
