"""SGL: LightGCN that also tells a node's two augmented views from the views of all other nodes.

Paper:   Wu, Wang, Feng, He, Chen, Lian and Xie, "Self-supervised Graph Learning for
         Recommendation", SIGIR 2021, https://arxiv.org/abs/2010.10783
"""

from __future__ import annotations

from typing import Any

from recbole.model.general_recommender import sgl as recboles
from torch import Tensor

from recbole_missing.nn.distinct import distinct
from recbole_missing.nn.layers import rows
from recbole_missing.nn.losses import info_nce


class SGL(recboles.SGL):
    """RecBole's SGL whose contrast (eq. 10) has users and items only, not RecBole's padding."""

    difference = (
        "the contrast has the users and items of the data; RecBole's SGL also has the padding user "
        "and the padding item among the negatives"
    )

    def __init__(self, config: Any, dataset: Any) -> None:
        """Build RecBole's model."""
        super().__init__(config, dataset)
        self.logger.info(f"SGL: {self.difference}.")

    def calc_ssl_loss(
        self,
        user_list: Tensor,
        pos_item_list: Tensor,
        user_sub1: Tensor,
        user_sub2: Tensor,
        item_sub1: Tensor,
        item_sub2: Tensor,
    ) -> Tensor:
        """Weighted contrast of the users and the items of a batch, a sum over its rows.

        Args:
            user_list, pos_item_list: ids, ``(batch,)``.
            user_sub1, user_sub2: both views of all users, ``(n_users, d)``.
            item_sub1, item_sub2: both views of all items, ``(n_items, d)``.
        """
        total = user_sub1.new_zeros(())
        for batch, one, other in (
            (user_list, user_sub1, user_sub2),
            (pos_item_list, item_sub1, item_sub2),
        ):
            ids = distinct(batch)
            pairs = rows(one, ids.ids), rows(other, ids.ids)
            mean = info_nce(*pairs, self.ssl_tau, ids, candidates=other[1:])
            total = total + len(batch) * mean
        return self.ssl_weight * total
