"""Stand-ins that tests share: a data set without files, its modalities, a plain config."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from scipy import sparse
from torch import Tensor

from recbole_missing.graph.sparse import SparseMatrix
from recbole_missing.modality import Modalities, Modality

PROPERTIES = Path(__file__).resolve().parents[1] / "properties"


class TinyDataset:
    """What a model reads of a data set, and no more.

    Args:
        users, items: training interactions, ids from 1 (0 is padding), shape ``(n_edges,)``.
        n_users, n_items: table sizes, the padding row included.
        modalities: completed modalities over ``n_items`` rows.
        new_items: bool ``(n_items,)``; none by default.
    """

    def __init__(
        self,
        users: Tensor,
        items: Tensor,
        n_users: int,
        n_items: int,
        modalities: Modalities,
        new_items: Tensor | None = None,
    ) -> None:
        """Store the arguments."""
        self.inter_feat = {"user_id": users, "item_id": items}
        self.modalities = modalities
        self.new_items = torch.zeros(n_items).bool() if new_items is None else new_items
        self._sizes = {"user_id": n_users, "item_id": n_items}

    def num(self, field: str) -> int:
        """Size of a field's table."""
        return self._sizes[field]


def tiny_config(**settings: Any) -> dict[str, Any]:
    """Keys that RecBole's base class reads, plus ``settings``; an unknown key is a KeyError."""
    fields = {"USER_ID_FIELD": "user_id", "ITEM_ID_FIELD": "item_id", "NEG_PREFIX": "neg_"}
    return {**fields, "device": "cpu", "train_batch_size": 64, **settings}


def model_defaults(model: str) -> dict[str, Any]:
    """Content of ``properties/model/<model>.yaml`` without the presets."""
    values = copy.deepcopy(_properties(model))
    values.pop("presets", None)
    return values


@cache
def _properties(model: str) -> dict[str, Any]:
    return yaml.safe_load((PROPERTIES / "model" / f"{model}.yaml").read_text()) or {}


def tiny_modalities(
    n_items: int, dims: Mapping[str, int], missing: float = 0.3, seed: int = 0
) -> Modalities:
    """Random modalities of which about ``missing`` of the rows are not observed; holes are 0."""
    generator = torch.Generator().manual_seed(seed)
    modalities = []
    for name, dim in dims.items():
        observed = torch.rand(n_items, generator=generator) >= missing
        observed[0] = False
        features = torch.randn(n_items, dim, generator=generator) * observed[:, None]
        modalities.append(Modality(name, features, observed))
    return Modalities(modalities)


def tiny_dataset(
    names: Sequence[str] = ("image", "text"), n_users: int = 13, n_items: int = 17, seed: int = 0
) -> TinyDataset:
    """Three distinct items a user; modality m has 5 + m features and 30 % holes (zeros)."""
    generator = torch.Generator().manual_seed(seed)
    picks = [torch.randperm(n_items - 1, generator=generator)[:3] + 1 for _ in range(1, n_users)]
    users = torch.arange(1, n_users).repeat_interleave(3)
    dims = {name: 5 + position for position, name in enumerate(names)}
    modalities = tiny_modalities(n_items, dims, seed=seed)
    return TinyDataset(users, torch.cat(picks), n_users, n_items, modalities)


def tiny_batch(dataset: TinyDataset, size: int = 8, seed: int = 0) -> dict[str, Tensor]:
    """One BPR batch: training pairs and uniformly drawn negatives (a negative may be known)."""
    generator = torch.Generator().manual_seed(seed)
    users, items = dataset.inter_feat["user_id"], dataset.inter_feat["item_id"]
    rows = torch.randint(users.numel(), (size,), generator=generator)
    negatives = torch.randint(1, dataset.num("item_id"), (size,), generator=generator)
    return {"user_id": users[rows], "item_id": items[rows], "neg_item_id": negatives}


def dense(matrix: SparseMatrix) -> torch.Tensor:
    rows, cols, values = matrix.edges()
    return torch.zeros(matrix.shape).index_put_((rows, cols), values, accumulate=True)


def dense_adjacency(dataset: TinyDataset) -> Tensor:
    """Binary adjacency of all nodes, users first, items after them, ``(n_nodes, n_nodes)``."""
    n_users, n_items = dataset.num("user_id"), dataset.num("item_id")
    adjacency = torch.zeros(n_users + n_items, n_users + n_items)
    for user, item in zip(dataset.inter_feat["user_id"], dataset.inter_feat["item_id"]):
        adjacency[user, n_users + item] = adjacency[n_users + item, user] = 1.0
    return adjacency


def dense_symmetric(adjacency: Tensor) -> Tensor:
    """D^-1/2 A D^-1/2; nodes without neighbours have empty rows and columns."""
    roots = adjacency.sum(dim=1).clamp(min=1).sqrt()
    return adjacency / roots[:, None] / roots


def plain_bpr(users: Tensor, items: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
    """-log sigmoid(<u, p> - <u, n>), mean over the batch, one triple after the other."""
    total = torch.zeros(())
    triples = list(zip(batch["user_id"], batch["item_id"], batch["neg_item_id"]))
    for user, positive, negative in triples:
        margin = users[user] @ items[positive] - users[user] @ items[negative]
        total = total - torch.log(torch.sigmoid(margin))
    return total / len(triples)


def same_terms_and_gradients(
    model: torch.nn.Module, ours: Mapping[str, Tensor], expected: Mapping[str, Tensor]
) -> None:
    """Compare loss terms, and the gradient of each term in every parameter of the model."""
    assert set(ours) == set(expected)
    parameters = dict(model.named_parameters())
    for name in ours:
        _same(ours[name], expected[name], name)
        if not ours[name].requires_grad and not expected[name].requires_grad:
            continue
        gradients = []
        for term in (ours[name], expected[name]):
            found = torch.autograd.grad(
                term, list(parameters.values()), allow_unused=True, retain_graph=True
            )
            gradients.append(found)
        for key, one, other in zip(parameters, *gradients):
            zeros = torch.zeros_like(parameters[key])
            one, other = (zeros if grad is None else grad for grad in (one, other))
            _same(one, other, f"gradient of {name} in {key}")


def _same(actual: Tensor, expected: Tensor, what: str) -> None:
    torch.testing.assert_close(
        actual, expected, rtol=1e-4, atol=1e-6, msg=lambda text: f"{what}: {text}"
    )


def random_matrix(n_rows: int = 7, n_cols: int = 5, seed: int = 0) -> SparseMatrix:
    generator = torch.Generator().manual_seed(seed)
    full = torch.rand(n_rows, n_cols, generator=generator)
    full = full * (torch.rand(n_rows, n_cols, generator=generator) < 0.5)
    rows, cols = full.nonzero(as_tuple=True)
    return SparseMatrix(rows, cols, full[rows, cols], (n_rows, n_cols))


def catalogue(n_users: int = 300, n_items: int = 120, seed: int = 0) -> sparse.csr_matrix:
    """Interactions with popular items and users, repeated ones, and items that nobody has."""
    generator = np.random.default_rng(seed)
    degrees = np.minimum(generator.pareto(1.5, n_users).astype(int) + 1, n_items)
    users = np.repeat(np.arange(n_users), degrees)
    items = (n_items * generator.random(len(users)) ** 3).astype(int)
    ones = np.ones(len(users), dtype=np.float32)
    return sparse.coo_matrix((ones, (users, items)), shape=(n_users, n_items + 3)).tocsr()


def assert_same_bits(got: sparse.csr_matrix, expected: sparse.csr_matrix) -> None:
    assert got.shape == expected.shape
    for name in ("data", "indices", "indptr"):
        ours, theirs = getattr(got, name), getattr(expected, name)
        assert ours.dtype == theirs.dtype
        assert np.array_equal(ours, theirs), name


def dense_propagation(
    x: np.ndarray, observed: np.ndarray, operator: np.ndarray, layers: int
) -> np.ndarray:
    """The published loop, restated on dense matrices."""
    start = np.where(observed[:, None], x, 0.0)
    value = start
    for _ in range(layers):
        value = np.where(observed[:, None], start, operator @ value)
    return value


def some_items(widths: Mapping[str, int], missing: float = 0.4, n_items: int = 40) -> Modalities:
    """Items 1 and 2 have everything; item 3, and others by chance, nothing."""
    drawn = tiny_modalities(n_items, widths, missing=missing)
    changed = []
    for modality in drawn.values():
        features, observed = modality.features.clone(), modality.observed.clone()
        features[1:4] = torch.randn(3, modality.dim)
        features[3], observed[1:4] = 0, torch.tensor([True, True, False])
        changed.append(Modality(modality.name, features, observed))
    return Modalities(changed)


def dense_content(model: Any, dataset: TinyDataset) -> Tensor:
    """Projected features of all modalities side by side, rows of unit length."""
    features = torch.cat([m.features for m in dataset.modalities.values()], dim=1)
    content = features @ model.projection.weight.T + model.projection.bias
    return content / content.norm(dim=1, keepdim=True)


def dense_bpr_and_reg(
    users: Tensor, items: Tensor, batch: Mapping[str, Tensor], weight: float
) -> dict[str, Tensor]:
    """BPR, and half the squares of the batch's vectors, divided by its size and weighted."""
    blocks = users[batch["user_id"]], items[batch["item_id"]], items[batch["neg_item_id"]]
    squares = sum((block**2).sum() for block in blocks)
    reg = weight * squares / (2 * len(batch["user_id"]))
    return {"bpr": plain_bpr(users, items, batch), "reg": reg}
