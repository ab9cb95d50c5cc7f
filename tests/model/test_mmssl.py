"""MMSSL against its formulas on dense matrices; which pairs make the modality graphs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers import TinyDataset, model_defaults, tiny_batch, tiny_config, tiny_dataset
from torch import Tensor

from recbole_missing.graph.sparse import bipartite
from recbole_missing.model import mmssl
from recbole_missing.model.mmssl import MMSSL, TwiceDifferentiableBatchNorm, norms_of_products

NAMES = ("smell", "text", "hue")
SETTINGS = {
    "embedding_size": 6,
    "n_ui_layers": 2,
    "n_heads": 3,
    "dropout": 0.0,
    "guide_weight": 0.4,
    "content_weight": 0.6,
    "reg_weight": 0.1,
    "content_reg_weight": 0.2,
    "cl_weight": 0.3,
    "temperature": 0.5,
    "adversarial_weight": 0.05,
    "critic_dropout": [0.0, 0.0],
    "penalty_weight": 0.3,
    "real_noise": 0.02,
    "real_score_weight": 3.0,
    "graph_top_share": 0.1,
    "train_batch_size": 64,
}


@pytest.fixture(params=[1, 2, 3], ids=lambda count: f"{count}m")
def dataset(request: pytest.FixtureRequest) -> TinyDataset:
    return tiny_dataset(NAMES[: request.param], n_items=27)


def build(dataset: TinyDataset, **settings: Any) -> MMSSL:
    torch.manual_seed(0)
    values = {**model_defaults("MMSSL"), **SETTINGS, **settings}
    return MMSSL(tiny_config(**values), dataset).double().train()


def dense(dataset: TinyDataset) -> Tensor:
    """Interactions without the padding rows."""
    full = torch.zeros(dataset.num("user_id"), dataset.num("item_id")).double()
    full[dataset.inter_feat["user_id"], dataset.inter_feat["item_id"]] = 1.0
    return full[1:, 1:]


def aggregate(counts: Tensor, x: Tensor) -> Tensor:
    """D^-1/2 counts x with the row sums D."""
    return counts @ x / counts.sum(dim=1, keepdim=True).clamp(min=1).sqrt()


class Reference:
    """All vectors of a model, computed from dense matrices without the padding rows."""

    def __init__(self, model: MMSSL, r: Tensor, graphs: dict[str, Tensor]) -> None:
        """Follow the formulas above the class."""
        self.user_content, self.item_content, self.guides = {}, {}, {}
        users, items = model.user_embedding[1:], model.item_embedding[1:]
        user_guide = item_guide = torch.zeros(()).double()
        for name, layer in model.projections.items():
            content = layer(model.features[name][1:])
            self.user_content[name] = aggregate(r, content)
            self.item_content[name] = aggregate(r.T, self.user_content[name])
            self.guides[name] = aggregate(graphs[name], items)
            user_guide = user_guide + self.guides[name] / len(graphs)
            item_guide = item_guide + aggregate(graphs[name].T, users) / len(graphs)
        attention = sum(model.heads.split(model.embedding_size))
        users = users + model.guide_weight * F.normalize(user_guide @ attention)
        items = items + model.guide_weight * F.normalize(item_guide @ attention)
        user_stages, item_stages = [users], [items]
        for layer in range(model.n_ui_layers):
            users = aggregate(r, items)
            users = users.softmax(dim=1) if layer == model.n_ui_layers - 1 else users
            items = aggregate(r.T, users)
            items = items.softmax(dim=1) if layer == model.n_ui_layers - 1 else items
            user_stages.append(users)
            item_stages.append(items)
        self.users = sum(user_stages) / len(user_stages)
        self.items = sum(item_stages) / len(item_stages)
        for name in model.modalities:
            self.users = self.users + model.content_weight * F.normalize(self.user_content[name])
            self.items = self.items + model.content_weight * F.normalize(self.item_content[name])


def rows_of_scores(users: Tensor, items: Tensor, r: Tensor, ids: Tensor) -> Tensor:
    return F.normalize((users[ids] @ items.T) * (1 - r[ids]))


def verdicts(model: MMSSL, x: Tensor) -> Tensor:
    """The critic, layer by layer."""
    first_norm, _, second, second_norm, _, last = model.critic.rest
    hidden = standard(x @ model.critic.first.weight.T) * first_norm.weight + first_norm.bias
    hidden = standard(hidden @ second.weight.T) * second_norm.weight + second_norm.bias
    return 100 * (hidden @ last.weight.T + last.bias).sigmoid()[:, 0]


def standard(x: Tensor) -> Tensor:
    return (x - x.mean(dim=0)) / (x.var(dim=0, unbiased=False) + 1e-5).sqrt()


def batch_of(dataset: TinyDataset) -> tuple[dict[str, Tensor], Tensor]:
    """A batch in which users occur twice, and the rows of its users in the reference."""
    batch = tiny_batch(dataset, size=12)
    assert len(batch["user_id"].unique()) < 12
    return batch, batch["user_id"] - 1


def test_final_vectors_before_and_after_the_graphs_are_learned(dataset: TinyDataset) -> None:
    model, r = build(dataset), dense(dataset)
    counts = torch.randint(0, 3, r.shape, generator=torch.Generator().manual_seed(2)).double()
    graphs = {name: counts.roll(m, dims=1) for m, name in enumerate(model.modalities)}
    for graph in (None, *graphs.values()):
        if graph is not None:
            replace_graphs(model, graphs)
        reference = Reference(model, r, graphs if graph is not None else dict.fromkeys(graphs, r))
        users, items = model.encode()
        torch.testing.assert_close(users[1:], reference.users)
        torch.testing.assert_close(items[1:], reference.items)


def replace_graphs(model: MMSSL, graphs: dict[str, Tensor]) -> None:
    for name, graph in graphs.items():
        rows, columns = graph.nonzero(as_tuple=True)
        matrix = type(model.interactions)(
            rows + 1, columns + 1, graph[rows, columns], model.interactions.shape
        )
        model.modality_graphs[name] = matrix.double()


def test_loss(dataset: TinyDataset) -> None:
    model, r = build(dataset), dense(dataset)
    batch, ids = batch_of(dataset)
    reference = Reference(model, r, {name: r for name in model.modalities})
    terms = model.loss_terms(batch)
    users, positives = reference.users[ids], reference.items[batch["item_id"] - 1]
    negatives = reference.items[batch["neg_item_id"] - 1]
    margins = (users * positives).sum(dim=1) - (users * negatives).sum(dim=1)
    torch.testing.assert_close(terms["bpr"], -margins.sigmoid().log().mean())
    squares = sum(x.square().sum() for x in (users, positives, negatives))
    torch.testing.assert_close(terms["reg"], 0.1 * squares / 2 / 64)
    content = [*reference.user_content.values(), *reference.item_content.values()]
    squares = sum(x.square().sum() for x in content)
    torch.testing.assert_close(terms["content_reg"], 0.2 * squares / 2 / 26)
    fakes = [
        rows_of_scores(reference.user_content[name], reference.item_content[name], r, ids)
        for name in model.modalities
    ]
    expected = -0.05 * verdicts(model, torch.cat(fakes)).mean()
    torch.testing.assert_close(terms["adversarial"], expected)
    for name in model.modalities:
        expected = 0.3 * contrast(reference.guides[name][ids], users)
        torch.testing.assert_close(terms[f"cl_{name}"], expected)


def contrast(guides: Tensor, finals: Tensor) -> Tensor:
    guides, finals = F.normalize(guides), F.normalize(finals)
    losses = []
    for j, guide in enumerate(guides):
        to_guides = (guides @ guide / SETTINGS["temperature"]).exp()
        to_finals = (finals @ guide / SETTINGS["temperature"]).exp()
        share = to_finals[j] / (to_guides.sum() - to_guides[j] + to_finals.sum())
        losses.append(-(share + 1e-8).log())
    return sum(losses) / len(losses)


def test_what_the_critic_minimises(dataset: TinyDataset) -> None:
    model, r = build(dataset), dense(dataset)
    _, ids = batch_of(dataset)
    torch.manual_seed(5)
    terms = model.critic_terms(ids + 1)
    torch.manual_seed(5)  # the same draws again, in the same order
    uniform = torch.rand(12, 26)
    gumbel = -((uniform + 1e-8).log().neg() + 1e-8).log()
    shares = torch.rand(12 * len(model.modalities), 1)
    with torch.no_grad():
        reference = Reference(model, r, {name: r for name in model.modalities})
        likes = (r[ids] + model.real_noise * gumbel).softmax(dim=1)
        scores = rows_of_scores(reference.users, reference.items, r, ids)
        real = F.normalize(likes + model.real_score_weight * scores)
        real = torch.cat([real for _ in model.modalities])
        fake = torch.cat(
            [
                rows_of_scores(reference.user_content[name], reference.item_content[name], r, ids)
                for name in model.modalities
            ]
        )
    mixed = (shares * real + (1 - shares) * fake).requires_grad_()
    (gradients,) = torch.autograd.grad(verdicts(model, mixed).sum(), mixed)
    penalty = (gradients.norm(dim=1) - 1).square().mean()
    close = {"rtol": 1e-5, "atol": 1e-6}  # the draws are single
    torch.testing.assert_close(terms["real"], -verdicts(model, real).mean(), **close)
    torch.testing.assert_close(terms["fake"], verdicts(model, fake).mean(), **close)
    torch.testing.assert_close(terms["penalty"], penalty, **close)
    sums = []
    torch.manual_seed(5)
    model.on_batch_start({"user_id": ids + 1}, sums.append)
    expected = terms["real"] + terms["fake"] + model.penalty_weight * terms["penalty"]
    torch.testing.assert_close(sums[0], expected)


def top_pairs(model: MMSSL, user_ids: Tensor, scores: Tensor, aligned: bool) -> Tensor:
    """Counts ``(n_users, n_items)`` of the pairs that one batch collects."""
    counts = torch.zeros(model.interactions.shape)
    items = scores.argsort(dim=1, descending=True)[:, : model.n_top_items] + 1
    flat = items.flatten().tolist()
    for place, item in enumerate(flat):
        row = place // model.n_top_items if aligned else place % len(user_ids)
        counts[user_ids[row], item] += 1
    return counts


def counts_of(matrix: Any) -> Tensor:
    rows, columns, values = matrix.edges()
    return torch.zeros(matrix.shape).index_put_((rows, columns), values.float())


@pytest.mark.parametrize("interval", [1, 2])
@pytest.mark.parametrize("update", ["released", "kept"])
def test_modality_graphs(update: str, interval: int) -> None:
    """Two epochs of four batches: when a graph is built, and from which pairs."""
    dataset = tiny_dataset(NAMES[:2], n_items=27)
    model = build(dataset, graph_update=update, graph_interval=interval)
    assert model.n_top_items == 2
    graphs = {name: counts_of(model.interactions) for name in model.modalities}
    queues = {name: torch.zeros(model.interactions.shape) for name in model.modalities}
    generator = torch.Generator().manual_seed(1)
    for number in (0, 1, 2, 3, 0, 1, 2, 3):
        if number == 0:
            model.on_epoch_start(lambda loss: None)
        user_ids = torch.randint(1, 13, (6,), generator=generator)
        scores = torch.rand(2, 6, 26, generator=generator)
        model._learn_graphs(user_ids, scores.topk(2, dim=2).indices + 1)
        due = number > 0 and number % interval == 0
        for name, score in zip(model.modalities, scores):
            if update == "kept" or not due:
                queues[name] += top_pairs(model, user_ids, score, aligned=update == "kept")
            if due:
                graphs[name] = queues[name]
                queues[name] = torch.zeros(model.interactions.shape)
            assert torch.equal(counts_of(model.modality_graphs[name]), graphs[name])
            assert torch.equal(counts_of(model.collected_pairs[name]), queues[name])


def test_a_batch_that_trains_collects_by_the_scores_of_each_modality() -> None:
    dataset = tiny_dataset(NAMES[:2], n_items=27)
    model, r = build(dataset, graph_update="kept"), dense(dataset)
    batch, ids = batch_of(dataset)
    reference = Reference(model, r, {name: r for name in model.modalities})
    model.loss_terms(batch)
    for name in model.modalities:
        content = reference.user_content[name], reference.item_content[name]
        scores = rows_of_scores(*content, r, ids)
        expected = top_pairs(model, batch["user_id"], scores, aligned=True)
        assert torch.equal(counts_of(model.collected_pairs[name]), expected)


def test_kept_graphs_need_a_top_item() -> None:
    with pytest.raises(ValueError, match="graph_top_share must reach one of 26 items"):
        build(tiny_dataset(n_items=27), graph_update="kept", graph_top_share=0.01)


def test_a_critic_needs_eight_items() -> None:
    with pytest.raises(ValueError, match="must have at least 8 items, got 7"):
        build(tiny_dataset(n_items=8))


def test_dropout_falls_on_content_while_the_model_trains() -> None:
    model = build(tiny_dataset(NAMES[:1]), dropout=1.0)
    assert not model._content()[0].any()
    assert model.eval()._content()[0].any()


def test_the_critic_judges_by_the_statistics_of_its_input() -> None:
    """In evaluation mode as in training."""
    model = build(tiny_dataset(n_items=27))
    x = torch.randn(9, 26).double()
    first = model.critic.first
    model.critic(first(torch.randn(9, 26).double() + 3))
    torch.testing.assert_close(model.eval().critic(first(x)), verdicts(model, x))


def test_each_normalisation_of_the_critic_has_a_dropout_of_its_own() -> None:
    model = build(tiny_dataset(n_items=27), critic_dropout=[0.2, 0.6])
    layers = [m for m in model.critic.modules() if isinstance(m, torch.nn.Dropout)]
    assert [layer.p for layer in layers] == [0.2, 0.6]


@pytest.mark.parametrize("width", [9, 90])
def test_norms_of_products_in_both_forms(width: int) -> None:
    generator = torch.Generator().manual_seed(2)
    rows = torch.randn(7, 4, generator=generator, dtype=torch.double)
    rows[2] = 0.0
    weight = torch.randn(4, width, generator=generator, dtype=torch.double)
    rows, weight = rows.requires_grad_(), weight.requires_grad_()
    expected = (rows @ weight).square().sum(dim=1).sqrt()
    found = norms_of_products(rows, weight)
    torch.testing.assert_close(found, expected)
    coefficients = torch.randn(6, generator=generator, dtype=torch.double)
    others = [k for k in range(7) if k != 2]  # the root has no derivative at zero
    gradients = [
        torch.autograd.grad((coefficients * norms[others]).sum(), (rows, weight), retain_graph=True)
        for norms in (found, norms_of_products(rows, weight))
    ]
    plain = torch.linalg.vector_norm(rows @ weight, dim=1)
    expected = torch.autograd.grad((coefficients * plain[others]).sum(), (rows, weight))
    for found in gradients:
        torch.testing.assert_close(found, expected)


def test_derivatives_of_the_normalisation() -> None:
    generator = torch.Generator().manual_seed(2)
    rows = torch.randn(6, 3, generator=generator, dtype=torch.double, requires_grad=True)
    weights = torch.randn(6, 3, generator=generator, dtype=torch.double, requires_grad=True)
    layers = (
        TwiceDifferentiableBatchNorm(3, track_running_stats=False),
        torch.nn.BatchNorm1d(3, track_running_stats=False),
    )
    found = []
    for layer in layers:
        layer.double()
        with torch.no_grad():
            layer.weight.copy_(torch.tensor([0.5, -2.0, 1.5]))
        values = layer(rows)
        first = torch.autograd.grad((values * weights).sum(), rows, create_graph=True)
        inputs = (rows, weights, layer.weight)
        second = torch.autograd.grad(first[0].pow(3).sum(), inputs, retain_graph=True)
        third = torch.autograd.grad((values * weights).sum(), [rows, *layer.parameters()])
        found.append((values, *first, *second, *third))
    torch.testing.assert_close(*found)


def test_scores_are_mapped_as_their_rows_would_be() -> None:
    """The last user has seen everything; the one before has no content."""
    dataset = tiny_dataset(NAMES[:2], n_items=27)
    everything = torch.arange(1, 27)
    dataset.inter_feat["user_id"] = torch.cat([dataset.inter_feat["user_id"], everything * 0 + 12])
    dataset.inter_feat["item_id"] = torch.cat([dataset.inter_feat["item_id"], everything])
    interactions, ids = build(dataset).interactions, torch.tensor([2, 5, 11, 12])
    for dtype in (torch.double, torch.float):
        generator = torch.Generator().manual_seed(2)
        users, items, weight = (
            torch.randn(shape, generator=generator, dtype=dtype)
            for shape in ((4, 2, 6), (26, 2, 6), (5, 26))
        )
        users[2] = 0.0
        inputs = [x.requires_grad_() for x in (users, items, weight)]
        plain = mmssl.score_rows(users, items, mmssl.seen_items(interactions, ids)) @ weight.T
        mapped = mmssl.map_scores(weight, users, items, *mmssl.seen_pairs(interactions, ids))
        torch.testing.assert_close(mapped, plain, rtol=1e-5, atol=1e-5)
        kept = torch.tensor([0, 1, 3])  # a row of norm zero has no derivative
        gradients = [torch.autograd.grad(x[:, kept].sin().sum(), inputs) for x in (mapped, plain)]
        torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)


def test_mapped_scores_of_users_who_have_seen_almost_everything() -> None:
    """Users 1, 2 and 3 have seen a half, nine tenths and all of 300 items."""
    torch.manual_seed(0)
    counts = torch.tensor([0, 150, 270, 300])
    columns = torch.cat([torch.randperm(300)[:count] + 1 for count in counts])
    interactions = bipartite(torch.arange(4).repeat_interleave(counts), columns, 4, 301)
    ids, weight = torch.tensor([1, 2, 3]), torch.randn(75, 300)
    users, items = torch.randn(3, 2, 16), torch.randn(300, 2, 16)
    pairs = mmssl.seen_pairs(interactions, ids)
    mapped = mmssl.map_scores(weight, users, items, *pairs)
    seen = mmssl.seen_items(interactions, ids)
    exact = mmssl.score_rows(users.double(), items.double(), seen) @ weight.double().T
    assert (mapped - exact).abs().max() < 1e-5
    assert not mapped[:, 2].any()
