"""SLMRec: a LightGCN per item representation, fused; a chain of views is contrasted fine to coarse.

Paper:   Tao, Liu, Xia et al., "Self-Supervised Learning for Multimedia Recommendation", IEEE
         Transactions on Multimedia 2022, https://doi.org/10.1109/TMM.2022.3187556
Code:    https://github.com/enoche/MMRec, src/models/slmrec.py, e775373 (read for facts)
Follows: code, with the paper's feature fine and coarse (FAC) task. Propagation and fusion take any
         number of modalities. The contrast walks a chain, identity -> first modality -> ...;
         `contrast_chain: first_two` is what both releases do (the first two modalities, with the
         linear map of a left-out step between them), `all` is the authors' chain through every
         modality in order (theirs: image, audio, text). One modality has a chain of one step.
Quirks:  Training compares normalised vectors, scores are inner products of unnormalised ones (the
         release takes their sigmoid: the same order, but ties far from zero). The contrast has
         neither normalisation nor a reverse direction, and an item that occurs twice in a batch
         is its own negative. Weight decay acts on everything. The DGMRec release contrasts only
         items that LACK the modality, its mask being inverted (`ssl_rows: lacking`).
Needs:   User-item graph; features stay constant; no negatives.
Missing: Works on imputed features; `ssl_rows` says which items' rows are contrasted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_missing.config.constraints import Choice, Float, Int
from recbole_missing.graph.normalise import symmetric_norm
from recbole_missing.model.base import MultimodalRecommender
from recbole_missing.nn.layers import rows, xavier_table
from recbole_missing.nn.losses import info_nce


def alternate(
    there: Callable[[Tensor], Tensor], back: Callable[[Tensor], Tensor], table: Tensor, n: int
) -> tuple[Tensor, Tensor]:
    """Walk a bipartite graph; sum what is at home after even, and away after odd, steps 0..n.

    Args:
        there, back: products that lead from the table's side to the other, and from there back.
        table: where the walk starts.
        n: number of steps, at least 1.
    """
    latest = away = there(table)
    home = table
    for step in range(2, n + 1):
        if step % 2:
            latest = there(latest)
            away = away + latest
        else:
            latest = back(latest)
            home = home + latest
    return home, away


def diagonal_loss(anchors: Tensor, others: Tensor, temperature: float, kept: Tensor) -> Tensor:
    """Cross entropy of inner products whose right answer is the diagonal, mean over kept rows.

    Args:
        anchors, others: shape ``(batch, d)``, not normalised; every row of ``others`` is a choice.
        temperature: divides the inner products.
        kept: bool ``(batch,)``, whose rows count. None gives zero.
    """
    answers = torch.arange(len(anchors), device=anchors.device)
    losses = F.cross_entropy(anchors @ others.T / temperature, answers, reduction="none")
    return torch.where(kept, losses, 0.0).sum() / kept.sum().clamp(min=1)


class SLMRec(MultimodalRecommender):
    """In-batch softmax of fused users and items, plus the contrasts of the chain."""

    hyperparameters = {
        "embedding_size": Int(min=1),
        "n_ui_layers": Int(min=1),
        "temperature": Float(min=1e-6),
        "cl_weight": Float(min=0),
        "cl_temperature": Float(min=1e-6),
        "contrast_chain": Choice("first_two", "all"),
        "ssl_rows": Choice("all", "lacking", "observed"),
    }

    def __init__(self, config: Any, dataset: Any) -> None:
        """Create tables, projections, fusion and the chain's heads, and build the graph."""
        super().__init__(config, dataset)
        size = self.embedding_size
        self.user = xavier_table(self.n_users, size)
        self.item = xavier_table(self.n_items, size)
        self.projections = nn.ModuleDict()
        for name, modality in self.modalities.items():
            unit = F.normalize(modality.features, eps=1e-12)
            self.register_buffer(f"features_{name}", unit)
            self.projections[name] = nn.Linear(modality.dim, size)
        width = (1 + len(self.modalities)) * size
        self.user_fusion, self.item_fusion = nn.Linear(width, size), nn.Linear(width, size)
        self.coarse, self.fine = self._heads()
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
        self.user_item = symmetric_norm(self.user_item_matrix(dataset))

    def encode(self) -> tuple[Tensor, Tensor]:
        """Fused users ``(n_users, d)`` and items ``(n_items, d)``."""
        users, items = self._views()
        return self.user_fusion(users), self.item_fusion(items)

    def loss_terms(self, interaction: Any) -> dict[str, Tensor]:
        """Softmax over the batch's items, and one contrast for every link of the chain."""
        user_ids, item_ids = interaction[self.USER_ID], interaction[self.ITEM_ID]
        all_users, all_items = self._views()
        users, items = rows(all_users, user_ids), rows(all_items, item_ids)
        fused = self.user_fusion(users), self.item_fusion(items)
        terms = {"main": info_nce(*fused, self.temperature)}
        coarse, *contents = items.split(self.embedding_size, dim=1)
        kept = self._contrasted(item_ids)
        for name, content, counts in zip(self.fine, contents, kept):
            coarse, fine = self.coarse[name](coarse), self.fine[name](content)
            contrast = diagonal_loss(coarse, fine, self.cl_temperature, counts)
            terms[f"cl_{name}"] = self.cl_weight * contrast
        return terms

    def _heads(self) -> tuple[nn.ModuleDict, nn.ModuleDict]:
        """Heads of the chain, coarse ones in a row; the last link is half as wide."""
        size = self.embedding_size
        shortened = self.contrast_chain == "first_two"
        names = list(self.modalities)[: 2 if shortened else None]
        coarse, fine = nn.ModuleDict(), nn.ModuleDict()
        for name in names:
            width = max(size // 2, 1) if name == names[-1] else size
            left_out = [nn.Linear(size, size)] if shortened and name != names[0] else []
            coarse[name] = nn.Sequential(*left_out, nn.Linear(size, width))
            fine[name] = nn.Linear(size, width)
        return coarse, fine

    def _views(self) -> tuple[Tensor, Tensor]:
        """Identity and every modality after LightGCN, side by side: ``(n, (1 + M) d)`` each.

        All views share the user table and the graph is linear, so that table travels once and
        alone, and the item tables in one product a layer.
        """
        tables: list[Tensor] = [self.item]
        for name, projection in self.projections.items():
            tables.append(projection(self.get_buffer(f"features_{name}")))
        to_users, to_items = self.user_item.__matmul__, self.user_item.t_matmul
        n = self.n_ui_layers
        users, users_at_items = alternate(to_items, to_users, self.user, n)
        items, items_at_users = alternate(to_users, to_items, torch.cat(tables, dim=1), n)
        users = users.repeat(1, len(tables)) + items_at_users
        items = users_at_items.repeat(1, len(tables)) + items
        return users / (n + 1), items / (n + 1)

    def _contrasted(self, item_ids: Tensor) -> Tensor:
        """Whose rows count in the contrast with each modality, bool ``(M, batch)``."""
        observed = self.observed[item_ids].T
        if self.ssl_rows == "all":
            return torch.ones_like(observed)
        return observed if self.ssl_rows == "observed" else ~observed
