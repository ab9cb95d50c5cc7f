"""GRCN: identities travel on training edges that content attention has weighed or cut.

Paper:   Wei, Wang, Nie, He and Chua, "Graph-Refined Convolutional Network for Multimedia
         Recommendation with Implicit Feedback", ACM MM 2020, https://arxiv.org/abs/2111.02036
Code:    https://github.com/enoche/MMRec, src/models/grcn.py, e775373 (read for facts)
Follows: code. The paper refines preferences by attention over a user's items; released routing
         sends its messages to items alone, so that they stay (`routing_steps: 0`). Any number of
         modalities: a content part and a column of confidences each, one maximum over all.
Quirks:  An edge counts by its sender's confidence; about half of these are negative at the start,
         and an edge without a positive product is cut. Identities enter as unit rows, the penalty
         takes them as they are. Beside the preferences of the batch's users it takes all of the
         first listed modality (MMRec; the authors' repository does not).
Needs:   User-item graph; features stay constant.
Missing: Nothing of its own: every item's content is what imputation made of it. New items have no
         edge: random identity and own content.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_missing.config.constraints import Float, Int
from recbole_missing.modality import Modality
from recbole_missing.model.base import MultimodalRecommender
from recbole_missing.nn.edges import edge_dots, edge_product, edge_softmax, edge_t_product
from recbole_missing.nn.layers import node_tables, rows
from recbole_missing.nn.losses import bpr_loss


def trusted(shares: list[Tensor], confidence: Tensor, senders: Tensor) -> Tensor:
    """Weight of every edge: the best product of share and sender's confidence, at least 0.

    Args:
        shares: one ``(n_edges,)`` a modality.
        confidence: shape ``(n_nodes, M)``.
        senders: node that each edge starts from, ``(n_edges,)``.
    """
    products = torch.stack(shares, dim=1) * rows(confidence, senders)
    return products.max(dim=1).values.relu()


class Content(nn.Module):
    """Projected constant features of one modality, as unit rows ``(n_items, size)``."""

    features: Tensor

    def __init__(self, modality: Modality, size: int) -> None:
        """Store the features and create the projection."""
        super().__init__()
        self.register_buffer("features", modality.features)
        self.projection = nn.Linear(modality.dim, size)
        nn.init.xavier_normal_(self.projection.weight)

    def forward(self) -> Tensor:
        """Project all items."""
        return F.normalize(F.leaky_relu(self.projection(self.features)), eps=1e-12)


class GRCN(MultimodalRecommender):
    """Identities on the refined graph, side by side with one smoothed content part a modality."""

    hyperparameters = {
        "embedding_size": Int(min=1),
        "latent_size": Int(min=1),
        "n_ui_layers": Int(min=1),
        "routing_steps": Int(min=0),
        "reg_weight": Float(min=0),
    }

    def __init__(self, config: Any, dataset: Any) -> None:
        """Create identities, confidences and contents, and the edges."""
        super().__init__(config, dataset)
        sizes = self.n_users, self.n_items
        self.user, self.item = map(nn.Parameter, node_tables(*sizes, self.embedding_size))
        confidences = node_tables(*sizes, len(self.modalities))
        self.user_confidence, self.item_confidence = map(nn.Parameter, confidences)
        self.preferences, self.contents = nn.ParameterDict(), nn.ModuleDict()
        for name, modality in self.modalities.items():
            preference = torch.zeros(self.n_users, self.latent_size)
            nn.init.xavier_normal_(preference[1:])
            self.preferences[name] = nn.Parameter(preference)
            self.contents[name] = Content(modality, self.latent_size)
        self.user_item = self.user_item_matrix(dataset)

    def encode(self) -> tuple[Tensor, Tensor]:
        """Users ``(n_users, d + M c)`` and items ``(n_items, d + M c)``."""
        users, items = self._parts()
        return torch.cat(users, dim=1), torch.cat(items, dim=1)

    def loss_terms(self, interaction: Any) -> dict[str, Tensor]:
        """BPR, and mean squares of identities and preferences."""
        user_ids, *item_ids = self.batch(interaction)
        both_ids = torch.cat(item_ids)
        user_parts, item_parts = self._parts()
        users = torch.cat([rows(part, user_ids) for part in user_parts], dim=1)
        items = torch.cat([rows(part, both_ids) for part in item_parts], dim=1)
        preferences = list(self.preferences.values())
        drawn = [(self.user, user_ids), (self.item, both_ids)]
        drawn += [(preference, user_ids) for preference in preferences]
        squares = [rows(table, ids).square().mean() for table, ids in drawn]
        return {
            "bpr": bpr_loss(users, *items.chunk(2)),
            "reg_batch": self.reg_weight * torch.stack(squares).sum(),
            "reg_all": self.reg_weight * preferences[0][1:].square().mean(),
        }

    def _parts(self) -> tuple[list[Tensor], list[Tensor]]:
        """Identity part and content parts, those of users and those of items."""
        graph = self.user_item
        user_parts, item_parts, to_users, to_items = [], [], [], []
        for name, content in self.contents.items():
            items = content()
            users = self._routed(F.normalize(self.preferences[name], eps=1e-12), items)
            logits = edge_dots(graph, users, items)  # the same in both directions
            to_users.append(edge_softmax(graph, logits, dim=1))
            to_items.append(edge_softmax(graph, logits, dim=0))
            user_parts.append(users + edge_product(graph, to_users[-1], items))
            item_parts.append(items + edge_t_product(graph, to_items[-1], users))
        user_ids, item_ids, _ = graph.edges()
        users, items = self._identities(
            trusted(to_users, self.item_confidence, senders=item_ids),
            trusted(to_items, self.user_confidence, senders=user_ids),
        )
        return [users, *user_parts], [items, *item_parts]

    def _routed(self, users: Tensor, items: Tensor) -> Tensor:
        """Preferences drawn towards the items that resemble them (the paper's routing)."""
        for _ in range(self.routing_steps):
            shares = edge_softmax(self.user_item, edge_dots(self.user_item, users, items))
            users = F.normalize(users + edge_product(self.user_item, shares, items), eps=1e-12)
        return users

    def _identities(self, to_users: Tensor, to_items: Tensor) -> tuple[Tensor, Tensor]:
        """Sum over layers of unit identities on the graph with these edge weights."""
        users, items = F.normalize(self.user, eps=1e-12), F.normalize(self.item, eps=1e-12)
        user_sum, item_sum = users, items
        for _ in range(self.n_ui_layers):
            users, items = (
                edge_product(self.user_item, to_users, items),
                edge_t_product(self.user_item, to_items, users),
            )
            user_sum, item_sum = user_sum + users, item_sum + items
        return user_sum, item_sum
