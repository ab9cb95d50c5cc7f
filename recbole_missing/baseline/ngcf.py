"""NGCF: an embedding is what a network makes of its neighbours, layer by layer.

Paper:   Wang, He, Wang, Feng and Chua, "Neural Graph Collaborative Filtering", SIGIR 2019,
         https://arxiv.org/abs/1905.08108
Code:    https://github.com/xiangwang1223/neural_graph_collaborative_filtering, NGCF/NGCF.py,
         9e50248 (read for facts)
Follows: paper (eq. 7) for the layer, code for the normalised outputs that are concatenated.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from recbole.model.general_recommender import ngcf as recboles
from torch import Tensor

# A = D^-1/2 [0 R; R^T 0] D^-1/2 is the normalised graph of all nodes, * the element-wise product:
#
#   e_0 = [E_u; E_i]
#   e_l = dropout(leaky( (A + I) e_(l-1) W1_l + (A e_(l-1) * e_(l-1)) W2_l + b_l ))
#   [z_u; z_i] = [e_0 | norm(e_1) | ... | norm(e_L)]


class NGCF(recboles.NGCF):
    """RecBole's NGCF whose layers pass on e_l, as published, and not norm(e_l)."""

    difference = (
        "a layer passes its output on as it is; RecBole's NGCF scales it to unit length first, "
        "which neither the paper nor the authors' code does"
    )

    def __init__(self, config: Any, dataset: Any) -> None:
        """Build RecBole's model."""
        super().__init__(config, dataset)
        self.logger.info(f"NGCF: {self.difference}.")

    def forward(self) -> tuple[Tensor, Tensor]:
        """z_u ``(n_users, d)`` and z_i ``(n_items, d)``."""
        graph = self.norm_adj_matrix
        if self.node_dropout != 0:
            graph = self.sparse_dropout(graph)
        nodes = self.get_ego_embeddings()
        outputs = [nodes]
        for layer in self.GNNlayers:
            nodes = self.emb_dropout(F.leaky_relu(layer(graph, self.eye_matrix, nodes), 0.2))
            outputs.append(F.normalize(nodes))
        users, items = torch.cat(outputs, dim=1).split([self.n_users, self.n_items])
        return users, items
