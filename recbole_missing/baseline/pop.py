"""Pop: every user gets the items that most users have, TopPop in the paper.

Paper:   Cremonesi, Koren and Turrin, "Performance of Recommender Algorithms on Top-N Recommendation
         Tasks", RecSys 2010, https://doi.org/10.1145/1864708.1864721
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from recbole.model.abstract_recommender import GeneralRecommender
from recbole.utils import InputType, ModelType
from torch import Tensor, nn


class Pop(GeneralRecommender):
    """Scores an item by the number of users who have it in the training split.

    A pair of user and item counts once, however often it is repeated: one user who returns to an
    item says nothing about other users, and the metrics count a pair once too.

    Attributes:
        users_of_item: number of users of every item, float32 ``(n_items,)``; a buffer, so that a
            checkpoint holds it.
    """

    input_type = InputType.POINTWISE
    type = ModelType.TRADITIONAL
    difference = (
        "counts the users of an item in training; RecBole's Pop counts an item at most once a "
        "batch, and sampled negatives too"
    )
    users_of_item: Tensor

    def __init__(self, config: Any, dataset: Any) -> None:
        """Count; nothing is trained."""
        super().__init__(config, dataset)
        self.logger.info(f"Pop: {self.difference}.")
        items = dataset.inter_matrix(form="csr").indices  # sums repeated pairs into one entry
        counts = np.bincount(items, minlength=self.n_items)
        self.register_buffer("users_of_item", torch.from_numpy(counts).float())
        self.untrained = nn.Parameter(torch.zeros(1))  # RecBole's trainer wants a parameter

    def calculate_loss(self, interaction: Any) -> Tensor:
        """Return zero: there is nothing to learn."""
        return self.untrained.sum()

    def predict(self, interaction: Any) -> Tensor:
        """Scores of pairs, ``(batch,)``."""
        return self.users_of_item[interaction[self.ITEM_ID]]

    def full_sort_predict(self, interaction: Any) -> Tensor:
        """Scores of all items for every user of the batch, ``(batch * n_items,)``."""
        return self.users_of_item.repeat(len(interaction[self.USER_ID]))
