"""GRCN: content attention weighs or cuts training edges before identities are propagated.

Paper:   Wei, Wang, Nie, He and Chua, "Graph-Refined Convolutional Network for Multimedia
         Recommendation with Implicit Feedback", ACM MM 2020, https://arxiv.org/abs/2111.02036
Code:    https://github.com/enoche/MMRec, src/models/grcn.py, e775373 (read for facts)
Follows: code. The paper refines a user's preference by attention over the user's items (routing).
         The released routing sends messages to items alone, so that preferences never change.
         `routing_steps: 0` gives the released model, a positive number the paper's routing. Every
         modality has a content part and a column of confidences. The maximum over modalities
         decides the weight of an edge.
Quirks:  An edge is weighed with the confidence of the node that sends along it. About half of the
         confidences are negative at the start. An edge that has no positive product of attention
         and confidence gets weight zero. Identities are propagated as unit rows, but the penalty
         takes them as they are. Beside the preferences of the batch's users the penalty takes all
         preferences of the first listed modality. That is MMRec's; the authors' repository has
         no such term.
Needs:   User-item graph. Features stay constant.
Missing: No special treatment. The model reads the features as imputation completed them. A new
         item has no edge: its vector is its random identity and its own content.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_missing.config.constraints import Float, Int
from recbole_missing.model.base import MultimodalRecommender
from recbole_missing.nn.edges import edge_dots, edge_product, edge_softmax, edge_t_product
from recbole_missing.nn.layers import FrozenFeatures, node_tables, rows, unit_rows
from recbole_missing.nn.losses import bpr_loss

# The model, with the paper's symbols; j -> i is a training edge along which j sends to i, in both
# directions; norm scales rows to unit length; | concatenates:
#
# Content, for every modality m:
#   p_m          = norm(P_m)                         preferences of users    -> self._content
#   f_m          = norm(leaky(X_m W_m + b_m))        features of items       -> self._content
#   x_m          = [p_m; f_m]                        all nodes
#   a_m(j -> i)  = softmax over the neighbours j of i of <x_m,i , x_m,j>        edge_softmax
#   c_m,i        = x_m,i + sum_j a_m(j -> i) x_m,j                              self._parts
# Refined graph, conf the confidences:
#   w(j -> i)    = relu(max_m a_m(j -> i) conf_j,m)                             edge_weights
# Identities, L = n_ui_layers:
#   e_0          = norm([E_u; E_i])
#   e_l,i        = sum_j w(j -> i) e_(l-1),j                                    self._identities
# Vectors and score:
#   z            = [e_0 + ... + e_L | c_1 | ... | c_M]                       -> self.encode
#   score(u,i)   = <z_u, z_i>
#
# For a batch of triples (u, p, n); ms is the mean of squares over rows and columns:
#
#   bpr       = mean of -log sigmoid(score(u,p) - score(u,n))                -> losses.bpr_loss
#   reg_batch = reg_weight * (ms(E_u[u]) + ms(E_i[p and n]) + sum_m ms(P_m[u]))
#   reg_all   = reg_weight * ms(P_1)                                            all users


class GRCN(MultimodalRecommender):
    """Identities on the refined graph, concatenated with one content part a modality."""

    hyperparameters = {
        "embedding_size": Int(min=1),  # d, width of the identity part
        "latent_size": Int(min=1),  # c, width of each content part
        "n_ui_layers": Int(min=1),  # L, products with the refined graph
        "routing_steps": Int(min=0),  # refinements of the preferences; released code: none
        "reg_weight": Float(min=0),  # weight of the mean squares
    }

    def __init__(self, config: Any, dataset: Any) -> None:
        """Create identities, confidences, preferences and projections."""
        super().__init__(config, dataset)
        sizes = self.n_users, self.n_items
        users, items = node_tables(*sizes, self.embedding_size)
        self.user_embedding, self.item_embedding = nn.Parameter(users), nn.Parameter(items)
        users, items = node_tables(*sizes, len(self.modalities))
        self.user_confidence, self.item_confidence = nn.Parameter(users), nn.Parameter(items)
        self.features = FrozenFeatures(self.modalities)
        self.preferences, self.projections = nn.ParameterDict(), nn.ModuleDict()
        for name, modality in self.modalities.items():
            preference = torch.zeros(self.n_users, self.latent_size)
            nn.init.xavier_normal_(preference[1:])
            self.preferences[name] = nn.Parameter(preference)
            self.projections[name] = nn.Linear(modality.dim, self.latent_size)
            nn.init.xavier_normal_(self.projections[name].weight)
        self.interactions = self.user_item_matrix(dataset)

    def encode(self) -> tuple[Tensor, Tensor]:
        """Users ``(n_users, d + M c)`` and items ``(n_items, d + M c)``."""
        user_parts, item_parts = self._parts()
        return torch.cat(user_parts, dim=1), torch.cat(item_parts, dim=1)

    def loss_terms(self, interaction: Any) -> dict[str, Tensor]:
        """BPR loss, and mean squares of identities and preferences."""
        user_ids, positive_ids, negative_ids = self.batch(interaction)
        item_ids = torch.cat([positive_ids, negative_ids])
        user_parts, item_parts = self._parts()
        users = torch.cat([rows(part, user_ids) for part in user_parts], dim=1)
        items = torch.cat([rows(part, item_ids) for part in item_parts], dim=1)
        positives, negatives = items.chunk(2)
        squares = [
            rows(self.user_embedding, user_ids).square().mean(),
            rows(self.item_embedding, item_ids).square().mean(),
        ]
        for preference in self.preferences.values():
            squares.append(rows(preference, user_ids).square().mean())
        first_preference = next(iter(self.preferences.values()))
        return {
            "bpr": bpr_loss(users, positives, negatives),
            "reg_batch": self.reg_weight * torch.stack(squares).sum(),
            "reg_all": self.reg_weight * first_preference[1:].square().mean(),
        }

    def _parts(self) -> tuple[list[Tensor], list[Tensor]]:
        """Identity part and content parts of z, first those of users, then those of items."""
        graph = self.interactions
        user_parts, item_parts = [], []
        to_users, to_items = [], []  # a_m(i -> u) and a_m(u -> i) on every edge
        for name in self.modalities:
            users, items = self._content(name)
            logits = edge_dots(graph, users, items)  # cosines, the same in both directions
            to_users.append(edge_softmax(graph, logits, dim=1, bound=1.0))
            to_items.append(edge_softmax(graph, logits, dim=0, bound=1.0))
            user_parts.append(users + edge_product(graph, to_users[-1], items))
            item_parts.append(items + edge_t_product(graph, to_items[-1], users))
        user_ids, item_ids = graph.ends()
        users, items = self._identities(
            edge_weights(to_users, self.item_confidence, senders=item_ids),
            edge_weights(to_items, self.user_confidence, senders=user_ids),
        )
        return [users, *user_parts], [items, *item_parts]

    def _content(self, name: str) -> tuple[Tensor, Tensor]:
        """p_m ``(n_users, c)`` and f_m ``(n_items, c)``."""
        users = unit_rows(self.preferences[name])
        projected = self.projections[name](self.features[name])
        items = unit_rows(F.leaky_relu(projected))
        for _ in range(self.routing_steps):  # p_m <- norm(p_m + sum_j a_m(j -> u) f_m,j)
            logits = edge_dots(self.interactions, users, items)
            attention = edge_softmax(self.interactions, logits, bound=1.0)
            messages = edge_product(self.interactions, attention, items)
            users = unit_rows(users + messages)
        return users, items

    def _identities(self, to_users: Tensor, to_items: Tensor) -> tuple[Tensor, Tensor]:
        """e_0 + ... + e_L of users and of items, on edges of these weights."""
        users = unit_rows(self.user_embedding)
        items = unit_rows(self.item_embedding)
        user_sum, item_sum = users, items
        for _ in range(self.n_ui_layers):
            users, items = (
                edge_product(self.interactions, to_users, items),
                edge_t_product(self.interactions, to_items, users),
            )
            user_sum, item_sum = user_sum + users, item_sum + items
        return user_sum, item_sum


def edge_weights(attention: list[Tensor], confidence: Tensor, senders: Tensor) -> Tensor:
    """w(j -> i) of every edge, shape ``(n_edges,)``.

    Args:
        attention: a_m(j -> i), one ``(n_edges,)`` a modality.
        confidence: conf, shape ``(n_nodes, M)``.
        senders: the node j of every edge, shape ``(n_edges,)``.
    """
    products = []
    for shares, column in zip(attention, confidence.T.contiguous()):
        products.append(shares * column.index_select(0, senders))
    return torch.stack(products).max(dim=0).values.relu()
