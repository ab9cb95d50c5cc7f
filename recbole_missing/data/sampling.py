"""RecBole's samplers: which items are drawn as negatives, and which are hidden in the test."""

from __future__ import annotations

from itertools import chain
from typing import Any

import numpy as np
from recbole.sampler import Sampler
from torch import Tensor, from_numpy

Ids = np.ndarray[Any, np.dtype[np.int64]]


class NegativeSampler(Sampler):
    """RecBole's sampler of training negatives, bit for bit, with fewer look-ups.

    RecBole looks every drawn item up among those of its user. Here a table marks the remainders of
    the used pairs' numbers, and only pairs with a marked remainder, few besides the used ones, are
    looked up.
    """

    _marked: np.ndarray[Any, np.dtype[np.bool_]]

    def set_phase(self, phase: str) -> Any:
        """RecBole's copy for a phase."""
        sampler = super().set_phase(phase)
        sizes = [len(items) for items in sampler.used_ids]
        users = np.repeat(np.arange(len(sizes)), sizes)
        items = np.fromiter(chain.from_iterable(sampler.used_ids), np.int64, len(users))
        sampler._marked = np.zeros(16 * len(users) + 1, dtype=bool)
        sampler._marked[sampler._remainders(users, items)] = True
        return sampler

    def sample_by_key_ids(self, key_ids: Any, num: int) -> Tensor:
        """Draw ``num`` items for each user of ``key_ids (n,)``: ``(num * n,)``, round by round."""
        users = np.tile(np.asarray(key_ids), num)
        items = np.zeros(len(users), dtype=np.int64)
        rows = np.arange(len(users))
        while len(rows):
            items[rows] = self.sampling(len(rows))
            rows = rows[self._is_used(users[rows], items[rows])]
        return from_numpy(items)

    def _is_used(self, users: Ids, items: Ids) -> np.ndarray[Any, np.dtype[np.bool_]]:
        used = self._marked[self._remainders(users, items)]
        for row in np.flatnonzero(used):
            used[row] = items[row] in self.used_ids[users[row]]
        return used

    def _remainders(self, users: Ids, items: Ids) -> Ids:
        return (users * self.item_num + items) % len(self._marked)


class OldItemSampler(NegativeSampler):
    """RecBole's sampler of training negatives, without the new items.

    Args:
        dataset: training split. Its ``new_items`` are never drawn.
        distribution, alpha: as in RecBole's ``train_neg_sample_args``.

    Raises:
        ValueError: if a user has interacted with every old item, so that no negative exists.
    """

    def __init__(self, dataset: Any, distribution: str, alpha: float) -> None:
        """Collect the items that may be drawn."""
        self.old_items = (~dataset.new_items).nonzero()[1:, 0].numpy()  # without the padding
        super().__init__("train", dataset, distribution, alpha)
        if max(len(used) for used in self.used_ids["train"]) >= len(self.old_items):
            raise ValueError(
                "new_items: every user must leave at least one old item to draw negatives from, "
                "got a user who has them all; lower new_item_ratio or remove that user."
            )

    def _uni_sampling(self, sample_num: int) -> np.ndarray:
        return self.old_items[np.random.randint(0, len(self.old_items), sample_num)]


def adapt_samplers(config: Any, splits: list[Any], samplers: tuple[Any, ...]) -> tuple[Any, ...]:
    """Apply ``new_items`` and ``test_mask`` to RecBole's three samplers.

    Args:
        config: RecBole's config.
        splits: training, validation and test data set.
        samplers: what RecBole's ``create_samplers`` returned for them.

    Returns:
        Training, validation and test sampler. The training sampler never draws a new item. It
        counts popularity on training interactions alone; RecBole's counts all three splits. With
        ``test_mask: train`` the test sampler knows only training and test interactions. So
        validation items stay candidates in the test, as in MMRec and DGMRec. RecBole hides them
        (``train_valid``).
    """
    train, valid, test = samplers
    if config["repeatable"]:
        return samplers
    if train is not None:
        args = config["train_neg_sample_args"]
        drawn = (splits[0], args["distribution"], args["alpha"])
        new_items = splits[0].new_items.any()
        train = OldItemSampler(*drawn) if new_items else NegativeSampler("train", *drawn)
        train = train.set_phase("train")
    if test is not None and config["test_mask"] == "train":
        distribution = config["test_neg_sample_args"]["distribution"]
        phases = Sampler(["train", "test"], [splits[0], splits[2]], distribution)
        test = phases.set_phase("test")
    return train, valid, test
