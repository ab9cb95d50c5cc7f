"""RecBole's samplers: which items are drawn as negatives, and which are hidden in the test."""

from __future__ import annotations

from typing import Any

import numpy as np
from recbole.sampler import Sampler


class OldItemSampler(Sampler):
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
        train = OldItemSampler(*drawn) if new_items else Sampler("train", *drawn)
        train = train.set_phase("train")
    if test is not None and config["test_mask"] == "train":
        distribution = config["test_neg_sample_args"]["distribution"]
        phases = Sampler(["train", "test"], [splits[0], splits[2]], distribution)
        test = phases.set_phase("test")
    return train, valid, test
