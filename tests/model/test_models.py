"""One contract over MODELS x {1, 2, 4} modalities of any name."""

from __future__ import annotations

import copy
from fnmatch import fnmatch
from typing import Any

import pytest
import torch
from helpers import TinyDataset, model_defaults, tiny_batch, tiny_config, tiny_dataset
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from recbole_missing.imputation import IMPUTERS
from recbole_missing.modality import Modalities, Modality
from recbole_missing.model import MODELS
from recbole_missing.model.base import MultimodalRecommender

NAMES = ("smell", "text", "hue", "price")


@pytest.fixture(params=MODELS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=[1, 2, 4], ids=lambda count: f"{count}m")  # golden files have three
def dataset(request: pytest.FixtureRequest) -> TinyDataset:
    return tiny_dataset(NAMES[: request.param])


def build(name: str, dataset: TinyDataset, **settings: Any) -> MultimodalRecommender:
    torch.manual_seed(0)
    defaults = {**model_defaults(name), "embedding_size": 8, "graph_top_share": 0.1}
    return MODELS[name](tiny_config(**{**defaults, **settings}), dataset)


def train(model: MultimodalRecommender, dataset: TinyDataset, epochs: int) -> None:
    """Some epochs of three batches each, as the trainer runs them."""
    auxiliary = {id(parameter) for parameter in model.auxiliary_parameters()}
    main = [p for p in model.parameters() if id(p) not in auxiliary]
    optimizer = torch.optim.Adam(main, 0.01)
    second = torch.optim.Adam(list(model.auxiliary_parameters()) or main[:1], 0.01)

    def minimise(loss: torch.Tensor) -> None:
        second.zero_grad()
        loss.backward()
        second.step()

    def unfreeze(trained: bool) -> None:
        for parameter in model.auxiliary_parameters():
            parameter.requires_grad_(trained)

    for epoch in range(epochs):
        model.train()
        model.on_epoch_start(minimise)
        for number in range(3):
            batch = tiny_batch(dataset, seed=3 * epoch + number)
            model.on_batch_start(batch, minimise)
            unfreeze(False)
            loss = model.calculate_loss(batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            unfreeze(True)


def scores(model: MultimodalRecommender, dataset: TinyDataset) -> torch.Tensor:
    users = torch.arange(1, dataset.num("user_id"))
    return model.full_sort_predict({"user_id": users}).view(len(users), -1)


def test_every_loss_term_is_a_finite_scalar(name: str, dataset: TinyDataset) -> None:
    model = build(name, dataset)
    terms = model.loss_terms(tiny_batch(dataset))
    assert all(term.dim() == 0 and torch.isfinite(term) for term in terms.values())
    total = model.calculate_loss(tiny_batch(dataset))
    torch.testing.assert_close(total, sum(model.last_terms.values()))


def test_every_loss_is_computed_in_double_precision_too(name: str) -> None:
    dataset = tiny_dataset(NAMES[:2])
    model = build(name, dataset).double().train()
    loss = model.calculate_loss(tiny_batch(dataset))
    loss.backward()
    assert loss.dtype == torch.double and torch.isfinite(loss)


def test_every_parameter_gets_a_gradient(name: str) -> None:
    """Every parameter has a gradient other than zero, or its class says why it may have none."""
    excused = dict(MODELS[name].idle_parameters)
    needed = set()
    for count in (1, 2, 3, 4):
        dataset = tiny_dataset(NAMES[:count])
        for parameter in idle_parameters(build(name, dataset), dataset):
            reasons = [pattern for pattern in excused if fnmatch(parameter, pattern)]
            assert reasons, f"{parameter} has no gradient with {count} modalities"
            needed.update(reasons)
    assert needed == set(excused), "an excuse that nothing needs"


def idle_parameters(model: MultimodalRecommender, dataset: TinyDataset) -> set[str]:
    """Names of the parameters without gradient, up to rounding, in an epoch of three batches."""
    largest = {name: 0.0 for name, _ in model.named_parameters()}

    def collect(loss: torch.Tensor) -> None:
        model.zero_grad()
        loss.backward()
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                largest[name] = max(largest[name], float(parameter.grad.abs().max()))

    model.train()
    model.on_epoch_start(collect)
    for seed in range(3):
        batch = tiny_batch(dataset, seed=seed)
        model.on_batch_start(batch, collect)
        collect(model.calculate_loss(batch))
    return {name for name, gradient in largest.items() if gradient < 1e-9}


def test_predict_agrees_with_full_sort_predict(name: str, dataset: TinyDataset) -> None:
    model = build(name, dataset).eval()
    all_scores = scores(model, dataset)
    users, items = torch.tensor([1, 5, 9]), torch.tensor([3, 3, 16])
    pairs = model.predict({"user_id": users, "item_id": items})
    torch.testing.assert_close(pairs, all_scores[users - 1, items])


def test_evaluation_is_deterministic_and_encodes_once(name: str, dataset: TinyDataset) -> None:
    model = build(name, dataset).eval()
    encode, calls = model.encode, []
    model.encode = lambda: calls.append(1) or encode()
    first = scores(model, dataset)
    with model.scoring():
        assert torch.equal(scores(model, dataset), first)
        assert torch.equal(scores(model, dataset), first)
    assert len(calls) == 2
    train(model, dataset, epochs=1)
    assert not torch.equal(scores(model.eval(), dataset), first), "scores of old parameters"


def test_training_leaves_the_padding_rows_and_a_checkpoint_keeps_scores(
    name: str, dataset: TinyDataset
) -> None:
    model = build(name, dataset)
    tables = {
        key: parameter
        for key, parameter in [*model.named_parameters(), *model.named_buffers()]
        if parameter.dim() == 2
        and len(parameter) in (dataset.num("user_id"), dataset.num("item_id"))
    }
    assert tables
    before = {key: table[0].clone() for key, table in tables.items()}
    train(model, dataset, epochs=6)
    for key, table in tables.items():
        assert torch.equal(table[0], before[key]), key
    model.on_validation_start()
    stored = copy.deepcopy(model.state_dict())
    torch.manual_seed(1)
    fresh = build(name, dataset)
    fresh.load_state_dict(stored)
    assert torch.equal(scores(model.eval(), dataset), scores(fresh.eval(), dataset))


def test_a_deep_copy_scores_the_same(name: str, dataset: TinyDataset) -> None:
    """RecBole's FLOPs counter copies the model."""
    model = build(name, dataset).eval()
    expected = scores(model, dataset)
    assert torch.equal(scores(copy.deepcopy(model), dataset), expected)


def test_a_bad_hyperparameter_is_named(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}: embedding_size must be an int >= 1, got 0"):
        build(name, tiny_dataset(), embedding_size=0)


def test_a_data_set_without_modalities_is_refused(name: str) -> None:
    dataset = tiny_dataset()
    dataset.modalities = None
    with pytest.raises(ValueError, match=f"{name}: the data set must have modalities"):
        build(name, dataset)


# ----------------------------------------------------------------------------------- new items

NEW = [4, 11]


def with_new_items(features_seed: int = 0) -> TinyDataset:
    """Two items lose their interactions; their features depend on the seed.

    The first one has all modalities, the second one lacks the first modality.
    """
    dataset = tiny_dataset(NAMES[:2])
    new = torch.zeros(dataset.num("item_id"), dtype=torch.bool)
    new[NEW] = True
    kept = ~new[dataset.inter_feat["item_id"]]
    dataset.inter_feat = {field: ids[kept] for field, ids in dataset.inter_feat.items()}
    dataset.new_items = new
    everyone = torch.Generator().manual_seed(0)
    newcomers = torch.Generator().manual_seed(1 + features_seed)
    modalities = []
    for name, modality in dataset.modalities.items():
        completed = torch.randn(modality.features.shape, generator=everyone)
        completed[NEW] = torch.randn(len(NEW), modality.dim, generator=newcomers)
        completed[0] = 0
        observed = modality.observed.clone()
        observed[NEW] = torch.tensor([True, name != NAMES[0]])
        modalities.append(Modality(name, completed, observed))
    dataset.modalities = Modalities(modalities)
    return dataset


def batch_without_new_items(dataset: TinyDataset) -> dict[str, torch.Tensor]:
    batch = tiny_batch(dataset)
    old = torch.tensor([i for i in range(1, dataset.num("item_id")) if i not in NEW])
    return {**batch, "neg_item_id": old[batch["neg_item_id"] % len(old)]}


def other_versions(name: str) -> list[dict[str, str]]:
    """The defaults, and each word of each setting that has a few words to choose from."""
    defaults, found = model_defaults(name), [{}]
    for key, constraint in MODELS[name].hyperparameters.items():
        for word in getattr(constraint, "words", ()):
            if word != defaults[key]:
                found.append({key: word})
    return found


def what_training_sees(name: str, features_seed: int, **settings: Any) -> dict[str, torch.Tensor]:
    """Loss terms of a batch, and the vectors of users and of old items, in training mode.

    The seed also changes the rows of new items in every table of parameters.
    """
    dataset = with_new_items(features_seed)
    model = build(name, dataset, **settings).train()
    generator = torch.Generator().manual_seed(features_seed)
    for parameter in model.parameters():
        if parameter.dim() == 2 and len(parameter) == dataset.num("item_id"):
            drawn = torch.randn(len(NEW), parameter.shape[1], generator=generator)
            parameter.data[NEW] = drawn
    second = list(model.auxiliary_parameters())
    optimizer = torch.optim.Adam(second or [torch.zeros(1, requires_grad=True)], 0.01)

    def minimise(loss: torch.Tensor) -> None:
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    torch.manual_seed(1)
    model.on_epoch_start(minimise)
    batch = batch_without_new_items(dataset)
    model.on_batch_start(batch, minimise)
    torch.manual_seed(2)
    seen = {term: loss.detach() for term, loss in model.loss_terms(batch).items()}
    torch.manual_seed(3)
    with torch.no_grad():
        users, items = model.encode()
    return {**seen, "users": users, "items": items[~dataset.new_items]}


def test_training_does_not_see_new_items(name: str) -> None:
    """Neither features nor identities nor edges of new items; exceptions are declared."""
    declared = set(MODELS[name].new_items_in_training)
    needed = set()
    for settings in other_versions(name):
        one = what_training_sees(name, 0, **settings)
        other = what_training_sees(name, 1, **settings)
        for key, value in one.items():
            if not torch.allclose(value, other[key], rtol=1e-5, atol=1e-7):
                assert key in declared, f"new items change {key} with {settings}"
                needed.add(key)
    assert needed == declared, "an exception that nothing needs"


def test_features_of_new_items_count_in_their_scores(name: str) -> None:
    """Two models differ in nothing else. A model declares the opposite in its class."""
    found = []
    for seed in (0, 1):
        dataset = with_new_items(seed)
        model = build(name, dataset)
        model.on_validation_start()
        found.append(scores(model.eval(), dataset)[:, NEW])
    assert torch.allclose(*found) == bool(MODELS[name].new_features_ignored)


def test_new_items_are_scored_and_lend_no_interaction(name: str) -> None:
    dataset = with_new_items()
    model = build(name, dataset)
    train(model, dataset, epochs=6)
    model.on_validation_start()
    assert torch.isfinite(scores(model.eval(), dataset)[:, NEW]).all()


# ---------------------------------------------------------------------------------- large data


class NothingSquare(TorchDispatchMode):
    """Fails on any dense result of n_items x n_items or n_users x n_items."""

    def __init__(self, n_users: int, n_items: int) -> None:
        """Store the sizes; the padding row may be there or not."""
        super().__init__()
        self.items = {n_items, n_items - 1}
        self.users = {n_users, n_users - 1}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation and look at the sizes of what it made."""
        result = func(*args, **(kwargs or {}))
        for value in tree_flatten(result)[0]:
            if isinstance(value, torch.Tensor) and value.layout == torch.strided:
                sizes = list(value.shape)
                square = sum(size in self.items for size in sizes) > 1
                across = any(s in self.items for s in sizes) and any(s in self.users for s in sizes)
                assert not square and not across, f"{func} made {tuple(sizes)}"
        return result


def test_nothing_of_the_catalogue_squared(name: str) -> None:
    n_users, n_items = 523, 2203  # more items than one block of the kNN builder
    dataset = tiny_dataset(NAMES[:2], n_users, n_items)
    with NothingSquare(n_users, n_items):
        model = build(name, dataset)
        train(model, dataset, epochs=5)
        model.on_validation_start()
        model.eval().embeddings()


def test_the_guard_sees_a_square() -> None:
    with pytest.raises(AssertionError, match="made"), NothingSquare(5, 7):
        torch.ones(7, 2) @ torch.ones(2, 7)


def test_tables_are_alphabetical() -> None:
    assert list(MODELS) == sorted(MODELS)
    assert list(IMPUTERS) == sorted(IMPUTERS)
    assert all(name == model.__name__ for name, model in MODELS.items())
