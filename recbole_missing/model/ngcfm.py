"""NGCFM: NGCF on identities, plus a user taste that meets the item's projected content.

Paper:   Malitesta, Rossi, Pomo, Di Noia and Malliaros, "Do We Really Need to Drop Items with
         Missing Modalities in Multimodal Recommendation?", CIKM 2024,
         https://arxiv.org/abs/2408.11767
Code:    https://github.com/sisinflab/Graph-Missing-Modalities,
         external/models/ngcf_m/NGCFMModel.py, ac57d2d (read for facts)
Follows: code (NGCF-M in the paper) for content, score and loss; the paper of NGCF (Wang et al.,
         SIGIR 2019, eq. 7) for the layer, whose file could not be read. As in the code, layers are
         normalised and averaged.
Quirks:  No golden file exists for it.
Needs:   User-item graph; features stay constant.
Missing: Nothing of its own: every item's content is what imputation made of it.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_missing.config.constraints import Float
from recbole_missing.graph.normalise import symmetric_norm
from recbole_missing.graph.sparse import whole_graph
from recbole_missing.model.lightgcnm import LightGCNM


class NGCFM(LightGCNM):
    """LightGCNM whose collaborative half is made by NGCF's layers."""

    hyperparameters = {**LightGCNM.hyperparameters, "dropout": Float(min=0, max=1)}

    def __init__(self, config: Any, dataset: Any) -> None:
        """Create the maps of each layer: of sums and of element-wise products."""
        super().__init__(config, dataset)
        for table in (self.user, self.item):
            nn.init.xavier_uniform_(table.data[1:])
        size, layers = self.embedding_size, range(self.n_ui_layers)
        self.nodes = symmetric_norm(whole_graph(self.user_item_matrix(dataset)))
        self.sums = nn.ModuleList(nn.Linear(size, size) for _ in layers)
        self.products = nn.ModuleList(nn.Linear(size, size) for _ in layers)

    def collaborate(self) -> tuple[Tensor, Tensor]:
        """Users and items of the collaborative half, ``(n, d)``: the mean over all layers."""
        nodes = torch.cat([self.user, self.item])
        layers = [nodes]
        for sums, products in zip(self.sums, self.products):
            neighbours = self.nodes @ nodes
            nodes = F.leaky_relu(sums(neighbours + nodes) + products(neighbours * nodes))
            nodes = F.normalize(F.dropout(nodes, self.dropout, self.training), eps=1e-12)
            layers.append(nodes)
        users, items = torch.stack(layers).mean(dim=0).split([self.n_users, self.n_items])
        return users, items
