"""Rank the items for any user with any general recommender, in batches that bound the memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from typing import Any

import torch
from recbole.data.interaction import Interaction
from recbole.utils import ModelType
from scipy import sparse
from torch import Tensor

from recbole_missing.graph.knn import top_columns

PAIRS = 2**20
"""Number of user-item pairs in a batch, for models that score pairs only."""


def top_items(
    model: Any,
    config: Any,
    dataset: Any,
    users: Tensor,
    hidden: sparse.spmatrix | None,
    k: int,
    candidates: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Rank all items, or some of them, for some users, in evaluation mode.

    Args:
        model: one of ours or of RecBole's general recommenders.
        config: RecBole's; ``eval_batch_size`` bounds the scores that are held at a time.
        dataset: any split of the data set that the model was built from.
        users: ids, ``(n_users,)``.
        hidden: ``(user_num, item_num)``; an item that is stored for a user is no candidate, see
            :func:`interactions`. None hides nothing. The padding item is never a candidate.
        k: length of the lists, but at most the number of items.
        candidates: bool ``(item_num,)``, the items that are ranked. None means all items.

    Returns:
        Items, int64, and scores, float32, each ``(n_users, k)`` on the CPU, best first, and of
        equal scores the smaller id first. If a user has fewer candidates, the rest of the list is
        item 0 (padding) with score -inf.

    Raises:
        ValueError: for a model that is no general recommender, or a k below 1.
    """
    if config["MODEL_TYPE"] not in (ModelType.GENERAL, ModelType.TRADITIONAL):
        raise ValueError(
            f"recommend: {config['model']} must be a general recommender, got a model that needs "
            "more than a user to score items; choose another checkpoint."
        )
    if k < 1:
        raise ValueError(f"recommend: the length of the lists must be an int >= 1, got {k}.")
    known = None if hidden is None else sparse.csr_matrix(hidden)
    scores_of = _scorer(model, dataset)
    was_training = model.training
    model.eval()
    size = max(1, config["eval_batch_size"] // dataset.item_num)
    nothing = torch.zeros(dataset.item_num, dtype=torch.bool)
    left_out = nothing if candidates is None else ~candidates
    left_out[0] = True  # padding
    k = min(k, int((~left_out).sum()))
    batches = users.cpu().split(size) if len(users) else ()
    with getattr(model, "scoring", nullcontext)():
        best = [_best(scores_of(batch), left_out, _cells(known, batch), k) for batch in batches]
    model.train(was_training)
    empty = (torch.empty(0, k, dtype=torch.long), torch.empty(0, k))
    items, scores = (torch.cat(parts) for parts in zip(empty, *best))
    return items, scores


def interactions(splits: Iterable[Any], n_users: int, n_items: int) -> sparse.csr_matrix:
    """Interactions of some splits as a bool matrix ``(n_users, n_items)`` of user and item ids.

    Args:
        splits: RecBole data sets.
        n_users, n_items: numbers of users and items, padding included.
    """
    met = sparse.csr_matrix((n_users, n_items), dtype=bool)
    for split in splits:
        users, items = (split.inter_feat[key].numpy() for key in (split.uid_field, split.iid_field))
        ones = torch.ones(len(users), dtype=torch.bool).numpy()
        met = met + sparse.csr_matrix((ones, (users, items)), shape=met.shape)
    return met


def _best(
    scores: Tensor, left_out: Tensor, cells: tuple[Tensor, Tensor], k: int
) -> tuple[Tensor, Tensor]:
    scores = scores.float()
    scores[:, left_out] = -torch.inf
    scores[cells] = -torch.inf
    best = top_columns(scores, k)
    values, items = scores.gather(1, best).cpu(), best.cpu()
    return items.masked_fill(values == -torch.inf, 0), values


def _cells(hidden: sparse.csr_matrix | None, users: Tensor) -> tuple[Tensor, Tensor]:
    """Positions of the hidden items: row in the batch, and column."""
    if hidden is None:
        return torch.empty(0, dtype=torch.long), torch.empty(0, dtype=torch.long)
    rows, columns = hidden[users.numpy()].nonzero()
    return torch.from_numpy(rows).long(), torch.from_numpy(columns).long()


def _scorer(model: Any, dataset: Any) -> Callable[[Tensor], Tensor]:
    """Return a function from user ids ``(n,)`` to scores ``(n, item_num)``."""
    device = next(model.parameters(), torch.empty(0)).device
    items = dataset.get_item_feature().to(device)

    @torch.no_grad()
    def scores_of(users: Tensor) -> Tensor:
        batch = dataset.join(Interaction({dataset.uid_field: users})).to(device)
        try:
            scores = model.full_sort_predict(batch)
        except NotImplementedError:
            rows = (batch[row : row + 1] for row in range(len(batch)))
            scores = torch.stack([_score_pairs(model, user, items) for user in rows])
        return scores.view(len(users), dataset.item_num)

    return scores_of


def _score_pairs(model: Any, user: Interaction, items: Interaction) -> Tensor:
    """Scores ``(item_num,)`` of one user, by a model that scores pairs only."""
    found = []
    for start in range(0, len(items), PAIRS):
        part = items[start : start + PAIRS]
        pairs = user.repeat(len(part))
        pairs.update(part)
        found.append(model.predict(pairs).view(-1))
    return torch.cat(found)
