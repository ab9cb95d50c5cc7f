"""SLMRec: one LightGCN for every view of an item; the views are fused, and contrasted in a chain.

Paper:   Tao, Liu, Xia et al., "Self-Supervised Learning for Multimedia Recommendation", IEEE
         Transactions on Multimedia 2022, https://doi.org/10.1109/TMM.2022.3187556
Code:    https://github.com/enoche/MMRec, src/models/slmrec.py, e775373 (read for facts)
Follows: code, with the paper's feature fine and coarse (FAC) task. Propagation and fusion take any
         number of modalities. The contrast follows a chain: identity, first modality, second
         modality, and so on. `contrast_chain: first_two` is what both releases do. They contrast
         the first two modalities, and the linear map of a step that they leave out stays between
         these two. `contrast_chain: all` is the authors' chain through every modality in order
         (theirs: image, audio, text). With one modality the chain has one step.
Quirks:  The main loss compares normalised vectors, the scores are inner products of unnormalised
         ones. The release takes the sigmoid of the scores. That leaves their order alone, except
         for ties far from zero. The contrast does not normalise and has one direction only. An
         item that occurs twice in a batch is its own negative. Weight decay acts on everything.
         The DGMRec release inverts a mask by mistake and contrasts only items that lack the
         modality (`ssl_rows: lacking`).
Needs:   User-item graph. Features stay constant. No negatives.
Missing: The model reads the features as imputation completed them. `ssl_rows` says which items of
         a batch are contrasted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_missing.config.constraints import Choice, Float, Int
from recbole_missing.graph.normalise import symmetric_norm
from recbole_missing.modality import Modalities
from recbole_missing.model.base import MultimodalRecommender
from recbole_missing.nn.distinct import distinct
from recbole_missing.nn.layers import FrozenFeatures, rows, xavier_table
from recbole_missing.nn.losses import batch_softmax_loss, info_nce

# The model, with the paper's symbols; A is the normalised user-item graph of all nodes,
# L = n_ui_layers, the views v are the identity and the modalities 1..M, | concatenates:
#
#   T_id  = E_i                                                         -> self.item_embedding
#   T_m   = norm(X_m) W_m + b_m                   for every modality m  -> self.projections[m]
#   H_v   = 1 / (L + 1) sum over l = 0..L of A^l [E_u; T_v]     LightGCN -> self._views
#   user  = [H_id | H_1 | ... | H_M] W_u + b_u    rows of users         -> self.user_fusion
#   item  = [H_id | H_1 | ... | H_M] W_i + b_i    rows of items         -> self.item_fusion
#   score(u,i) = <user u, item i>
#
# For a batch of B pairs (u_b, i_b); CE(S) = mean over rows b of -log(exp S_bb / sum_b' exp S_bb'):
#
#   main  = CE(cos(user u_b, item i_b') / temperature)                  -> losses.info_nce
#   c_0   = H_id,  c_k = coarse_k(c_(k-1))        k-th modality m       -> self.coarse_heads[m]
#   f_k   = fine_k(H_m)                                                 -> self.fine_heads[m]
#   cl_m  = cl_weight * CE(<c_k at i_b, f_k at i_b'> / cl_temperature)  -> losses.batch_softmax_loss


class SLMRec(MultimodalRecommender):
    """In-batch softmax of fused users and items, plus the contrasts of the chain."""

    hyperparameters = {
        "embedding_size": Int(min=1),  # d
        "n_ui_layers": Int(min=1),  # L, products with the user-item graph
        "temperature": Float(min=1e-6),  # of the main loss
        "cl_weight": Float(min=0),  # weight of the contrasts
        "cl_temperature": Float(min=1e-6),  # of the contrasts
        "contrast_chain": Choice("first_two", "all"),  # which modalities are contrasted
        "ssl_rows": Choice("all", "lacking", "observed"),  # which items of a batch are contrasted
    }

    def __init__(self, config: Any, dataset: Any) -> None:
        """Create tables, projections, fusion and the chain's heads, and build the graph."""
        super().__init__(config, dataset)
        size = self.embedding_size
        self.user_embedding = xavier_table(self.n_users, size)
        self.item_embedding = xavier_table(self.n_items, size)
        unit_rows, self.projections = [], nn.ModuleDict()
        for name, modality in self.modalities.items():
            unit = F.normalize(modality.features, eps=1e-12)
            unit_rows.append(replace(modality, features=unit))
            self.projections[name] = nn.Linear(modality.dim, size)
        self.features = FrozenFeatures(Modalities(unit_rows))
        width = (1 + len(self.modalities)) * size
        self.user_fusion = nn.Linear(width, size)
        self.item_fusion = nn.Linear(width, size)
        self.coarse_heads, self.fine_heads = self._heads()
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
        self.user_item_graph = symmetric_norm(self.user_item_matrix(dataset))

    def encode(self) -> tuple[Tensor, Tensor]:
        """Fused users ``(n_users, d)`` and items ``(n_items, d)``."""
        device = self.user_embedding.device
        users, items = self._views(
            torch.arange(self.n_users, device=device), torch.arange(self.n_items, device=device)
        )
        return self.user_fusion(users), self.item_fusion(items)

    def loss_terms(self, interaction: Any) -> dict[str, Tensor]:
        """Softmax over the batch's items, and one contrast for every step of the chain."""
        users, items = distinct(interaction[self.USER_ID]), distinct(interaction[self.ITEM_ID])
        user_views, item_views = self._views(users.ids, items.ids)
        fused_users, fused_items = self.user_fusion(user_views), self.item_fusion(item_views)
        terms = {"main": info_nce(fused_users, fused_items, self.temperature, users, items)}
        coarse, *contents = item_views.split(self.embedding_size, dim=1)
        contrasted = self._contrasted(items.ids)
        for name, content, kept in zip(self.fine_heads, contents, contrasted):
            coarse = self.coarse_heads[name](coarse)
            fine = self.fine_heads[name](content)
            contrast = batch_softmax_loss(coarse, fine, self.cl_temperature, kept, items)
            terms[f"cl_{name}"] = self.cl_weight * contrast
        return terms

    def _heads(self) -> tuple[nn.ModuleDict, nn.ModuleDict]:
        """Linear maps of the chain's steps; the last step is half as wide."""
        size = self.embedding_size
        first_two = self.contrast_chain == "first_two"
        names = list(self.modalities)[: 2 if first_two else None]
        coarse, fine = nn.ModuleDict(), nn.ModuleDict()
        for name in names:
            width = max(size // 2, 1) if name == names[-1] else size
            left_out = [nn.Linear(size, size)] if first_two and name != names[0] else []
            coarse[name] = nn.Sequential(*left_out, nn.Linear(size, width))
            fine[name] = nn.Linear(size, width)
        return coarse, fine

    def _views(self, user_ids: Tensor, item_ids: Tensor) -> tuple[Tensor, Tensor]:
        """All views of these users and items after LightGCN, side by side: ``(n, (1 + M) d)``."""
        tables: list[Tensor] = [self.item_embedding]
        for name, projection in self.projections.items():
            tables.append(projection(self.features[name]))
        # The plain form, one LightGCN for every view:
        #     views = [light_gcn(graph, self.user_embedding, table, n) for table in tables]
        # The faster form below joins the parts for the rows that are asked for. It uses two facts.
        # A is linear and all views share E_u: A^l [E_u; T] = A^l [E_u; 0] + A^l [0; T]. So E_u is
        # propagated once, and the tables T side by side in one product a layer.
        # A is bipartite: A^l [E_u; 0] is zero for all items if l is even, for all users if l is
        # odd, and A^l [0; T] the other way round. So only one half of each layer is computed.
        graph, n = self.user_item_graph, self.n_ui_layers
        to_users, to_items = graph.__matmul__, graph.t_matmul
        users, users_at_items = one_sided_sums(self.user_embedding, to_items, to_users, n)
        items, items_at_users = one_sided_sums(torch.cat(tables, dim=1), to_users, to_items, n)
        user_part, item_part = rows(users, user_ids), rows(users_at_items, item_ids)
        user_views = user_part.repeat(1, len(tables)) + rows(items_at_users, user_ids)
        item_views = item_part.repeat(1, len(tables)) + rows(items, item_ids)
        return user_views / (n + 1), item_views / (n + 1)

    def _contrasted(self, item_ids: Tensor) -> Tensor:
        """Which of these items each modality contrasts, bool ``(M, n)``."""
        observed = self.observed[item_ids].T
        if self.ssl_rows == "all":
            return torch.ones_like(observed)
        return observed if self.ssl_rows == "observed" else ~observed


def one_sided_sums(
    table: Tensor,
    forth: Callable[[Tensor], Tensor],
    back: Callable[[Tensor], Tensor],
    n_layers: int,
) -> tuple[Tensor, Tensor]:
    """Sum over layers 0..n of A^l applied to vectors of one side, the other side being zero.

    Args:
        table: vectors of one side, users or items, shape ``(n_side, d)``.
        forth: product with the normalised graph that leads to the other side.
        back: product that leads from the other side to this one.
        n_layers: number of products, at least 1.

    Returns:
        The sum on this side, from even layers, and the sum on the other side, from odd layers.
    """
    # A (x_0 + A^2 x_0 + ...) is the sum of the odd layers, A of that, plus x_0, of the even ones.
    here, there = table, forth(table)
    for layer in range(2, n_layers + 1):
        if layer % 2 == 0:
            here = table + back(there)
        else:
            there = forth(here)
    return here, there
