"""NGCFM: NGCF on identities, plus a user preference that meets the item's content.

Paper:   Malitesta, Rossi, Pomo, Di Noia and Malliaros, "Do We Really Need to Drop Items with
         Missing Modalities in Multimodal Recommendation?", CIKM 2024,
         https://arxiv.org/abs/2408.11767
Code:    https://github.com/sisinflab/Graph-Missing-Modalities,
         external/models/ngcf_m/NGCFMModel.py, ac57d2d (read for facts)
Follows: code (NGCF-M in the paper) for the content, the score and the loss. The layer follows the
         paper of NGCF (Wang et al., SIGIR 2019, eq. 7), because the code's file of the layer could
         not be read. As in the code, the outputs of all layers are scaled to unit length and
         averaged.
Quirks:  No published numbers test this file; a dense reference in the tests does.
Needs:   User-item graph. Features stay constant.
Missing: No special treatment. The model reads the features as imputation completed them.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_missing.config.constraints import Float
from recbole_missing.model.lightgcnm import LightGCNM
from recbole_missing.nn.layers import unit_rows

# The model; A = D^-1/2 [0 R; R^T 0] D^-1/2 is the normalised graph of all nodes, L = n_ui_layers,
# * is the element-wise product:
#
#   e_0   = [E_u; E_i]                                     -> self.user_embedding, .item_embedding
#   for l = 1..L:
#     n_l = A e_(l-1)                                         sum over the neighbours
#     h_l = leaky( (n_l + e_(l-1)) W1_l + b1_l + (n_l * e_(l-1)) W2_l + b2_l )
#                                                          -> self.sum_maps, self.product_maps
#     e_l = norm(dropout(h_l))
#   [z_u; z_i] = mean over l = 0..L of e_l                 -> self.collaborate
#
# Content, score and loss are those of LightGCNM, with these z_u and z_i.


class NGCFM(LightGCNM):
    """LightGCNM whose z_u and z_i come from NGCF's layers."""

    hyperparameters = {
        **LightGCNM.hyperparameters,
        "dropout": Float(min=0, max=1),  # share of a layer's output that training drops
    }

    def __init__(self, config: Any, dataset: Any) -> None:
        """Create the two linear maps of each layer."""
        super().__init__(config, dataset)
        for table in (self.user_embedding, self.item_embedding):
            nn.init.xavier_uniform_(table.data[1:])
        size, layers = self.embedding_size, range(self.n_ui_layers)
        self.sum_maps = nn.ModuleList(nn.Linear(size, size) for _ in layers)
        self.product_maps = nn.ModuleList(nn.Linear(size, size) for _ in layers)

    def collaborate(self) -> tuple[Tensor, Tensor]:
        """z_u ``(n_users, d)`` and z_i ``(n_items, d)``."""
        nodes = torch.cat([self.user_embedding, self.item_embedding])
        layers = [nodes]
        for sum_map, product_map in zip(self.sum_maps, self.product_maps):
            neighbours = self._neighbours(nodes)
            nodes = F.leaky_relu(sum_map(neighbours + nodes) + product_map(neighbours * nodes))
            nodes = unit_rows(F.dropout(nodes, self.dropout, self.training))
            layers.append(nodes)
        users, items = torch.stack(layers).mean(dim=0).split([self.n_users, self.n_items])
        return users, items

    def _neighbours(self, nodes: Tensor) -> Tensor:
        """A e: users receive from their items, items from their users."""
        users, items = nodes.split([self.n_users, self.n_items])
        graph = self.user_item_graph
        return torch.cat([graph @ items, graph.t_matmul(users)])
