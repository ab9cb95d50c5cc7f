"""CI2MG: a soft hypergraph smooths each modality, optimal transport carries it over to the others.

Paper:   Lin, Tan, Zhan et al., "Contrastive Intra- and Inter-Modality Generation for Enhancing
         Incomplete Multimedia Recommendation", ACM MM 2023,
         https://dl.acm.org/doi/proceedings/10.1145/3581783
Code:    https://github.com/ptkjw1997/DGMRec, src/models/ci2mg.py, cd8f00d (read for facts; no code
         of the authors was found)
Follows: that code. A modality is coupled with the sum of all others and averages its own items
         by that coupling; one modality alone has nobody to meet and keeps its smoothed items.
Quirks:  Similarities to prototypes keep their sign, so a node or hyperedge degree may be negative
         or close to zero. Couplings run from the others to a modality and are no transposes of
         each other. One batch normalisation serves all modalities; the decoders' biases cancel
         in it and drift at random. The released contrast compares a pair with itself and is the
         constant ln 2 a modality (`contrast: same_pair`); `other_items` departs from the release:
         InfoNCE between an item's smoothed and carried-over vectors, other positives of the batch
         as negatives. New items enter hypergraph, coupling and normalisation in evaluation only;
         without interactions all of them get the same modality vectors.
Needs:   User-item graph; features stay constant. Every batch couples all items: time, not memory,
         grows with the square of their number.
Missing: Works on imputed features; decoders learn to rebuild observed ones only, and an item's
         decoded vector, not its imputed one, is what gets scored.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_missing.config.constraints import Choice, Float, Int
from recbole_missing.graph.normalise import row_mean_norm
from recbole_missing.modality import Modality
from recbole_missing.model.base import MultimodalRecommender
from recbole_missing.nn.layers import rows, xavier_table
from recbole_missing.nn.losses import bpr_loss, info_nce
from recbole_missing.nn.transport import mutual_transport, transport


class CI2MG(MultimodalRecommender):
    """Identity vectors beside one decoded vector a modality, ``(1 + M) d`` wide."""

    hyperparameters = {
        "embedding_size": Int(min=1),
        "n_ui_layers": Int(min=0),
        "n_hyper_layers": Int(min=0),
        "n_prototypes": Int(min=1),
        "transport_width": Float(min=1e-2),
        "transport_iterations": Int(min=1),
        "bpr_weight": Float(min=0),
        "cl_weight": Float(min=0),
        "temperature": Float(min=1e-6),
        "contrast": Choice("same_pair", "other_items"),
        "loss_items": Choice("own", "second_beyond_two"),
    }
    real_items: Tensor
    known_items: Tensor

    def __init__(self, config: Any, dataset: Any) -> None:
        """Create tables, one branch a modality, and the two mean graphs."""
        super().__init__(config, dataset)
        size = self.embedding_size
        self.user = xavier_table(self.n_users, size)
        self.item = xavier_table(self.n_items, size)
        self.branches = nn.ModuleDict(
            {name: Branch(m, size, self.n_prototypes) for name, m in self.modalities.items()}
        )
        self.norm = nn.BatchNorm1d(size)
        user_item = self.user_item_matrix(dataset)
        self.mean_of_items = row_mean_norm(user_item)  # for every user
        self.mean_of_users = row_mean_norm(user_item.transposed())  # for every item
        real = torch.arange(1, self.n_items, device=self.new_items.device)
        self.register_buffer("real_items", real)
        self.register_buffer("known_items", real[~self.new_items[1:]])

    def encode(self) -> tuple[Tensor, Tensor]:
        """Users ``(n_users, (1 + M) d)`` and items of the same width."""
        return self._whole(self._views())

    def loss_terms(self, interaction: Any) -> dict[str, Tensor]:
        """Reconstruction of observed modalities, contrast, BPR."""
        batch = self.batch(interaction)
        views = self._views()
        rec = cl = self.item.new_zeros(())
        for m, ids in enumerate(self._owners(torch.unique(batch[1]))):
            gap = rows(views.decoded[m], ids) - rows(views.raw[m], ids)
            rec = rec + gap.square().sum() / max(gap.numel(), 1)
            if self.contrast == "same_pair":
                cl = cl + (math.log(2.0) if ids.numel() else 0.0)
            else:
                pair = rows(views.smoothed[m], ids), rows(views.carried[m], ids)
                cl = cl + info_nce(*pair, self.temperature)
        users, positives, negatives = self.gather(*self._whole(views), batch)
        return {
            "rec": rec,
            "cl": self.cl_weight * cl,
            "bpr": self.bpr_weight * bpr_loss(users, positives, negatives),
        }

    def _owners(self, items: Tensor) -> list[Tensor]:
        """For each modality those of ``items`` that its losses run over."""
        columns = list(range(len(self.modalities)))
        if self.loss_items == "second_beyond_two":
            columns = [min(m, 1) for m in columns]
        return [items[self.observed[items, m]] for m in columns]

    def _views(self) -> Views:
        items = self.known_items if self.training else self.real_items
        branches: list[Any] = [*self.branches.values()]
        raw = [branch.projection(branch.features) for branch in branches]
        tastes = self.mean_of_items @ torch.cat(raw, dim=1)  # one product for all modalities
        audience = (self.mean_of_users @ tastes)[items].chunk(len(branches), dim=1)
        smoothed = [b.smooth(x, self.n_hyper_layers) for b, x in zip(branches, audience)]
        carried = self._carry(smoothed)
        pairs = [torch.cat(pair, dim=1) for pair in zip(smoothed, carried)]
        decoded = [self.norm(b.decoder(pair)) for b, pair in zip(branches, pairs)]
        tables = ([self._table(items, x) for x in xs] for xs in (smoothed, carried, decoded))
        return Views([*tastes.chunk(len(branches), dim=1)], raw, *tables)

    def _carry(self, smoothed: list[Tensor]) -> list[Tensor]:
        """Own items of each modality, averaged by its coupling with the sum of the others."""
        setting = self.transport_width, self.transport_iterations
        if len(smoothed) == 1:
            return smoothed
        if len(smoothed) == 2:  # the general case at half its price: one kernel serves both
            to_first, to_second = mutual_transport(smoothed[0], smoothed[1], *setting)
            return [to_second, to_first]
        others = [torch.stack([y for y in smoothed if y is not x]).sum(dim=0) for x in smoothed]
        return [transport(other, x, *setting) for other, x in zip(others, smoothed)]

    def _table(self, items: Tensor, x: Tensor) -> Tensor:
        """Rows of ``items`` in a table of all, the rest zero."""
        return x.new_zeros(self.n_items, x.shape[1]).index_copy(0, items, x)

    def _whole(self, views: Views) -> tuple[Tensor, Tensor]:
        """Identity vectors, means over layers of alternating means, beside those of the views."""
        users: list[Tensor] = [self.user]
        items: list[Tensor] = [self.item]
        for _ in range(self.n_ui_layers):
            users.append(self.mean_of_items @ items[-1])
            items.append(self.mean_of_users @ users[-2])
        tables = []
        for layers, parts in ((users, views.tastes), (items, views.decoded)):
            identity = torch.stack(layers).mean(dim=0)
            tables.append(torch.cat([identity, *(F.normalize(x, eps=1e-12) for x in parts)], dim=1))
        return tables[0], tables[1]


class Views(NamedTuple):
    """What the modalities say, one table each: first of users, then of items."""

    tastes: list[Tensor]  # mean of a user's raw items
    raw: list[Tensor]
    smoothed: list[Tensor]
    carried: list[Tensor]
    decoded: list[Tensor]


class Branch(nn.Module):
    """Projection, hypergraph and decoder of one modality; its features are a buffer.

    Args:
        modality: completed features ``(n_items, dim)``.
        size: width of all vectors.
        n_prototypes: number of hyperedges.
    """

    features: Tensor

    def __init__(self, modality: Modality, size: int, n_prototypes: int) -> None:
        """Draw the parameters as the release does."""
        super().__init__()
        self.register_buffer("features", modality.features)
        self.projection = nn.Linear(modality.dim, size)
        self.decoder = nn.Linear(2 * size, size)
        self.prototypes = nn.Parameter(torch.empty(n_prototypes, size))
        bound = n_prototypes**-0.5
        self.mixing = nn.Parameter(torch.empty(n_prototypes, n_prototypes).uniform_(-bound, bound))
        for weight in (self.projection.weight, self.decoder.weight, self.prototypes):
            nn.init.xavier_uniform_(weight)

    def smooth(self, items: Tensor, n_layers: int) -> Tensor:
        """Pass ``items (n, d)`` through the hypergraph; n x n is never formed, its rank is p."""
        incidence = F.normalize(items, eps=1e-12) @ F.normalize(self.prototypes, eps=1e-12).T
        of_nodes, of_edges = (_degrees(incidence, dim) for dim in (1, 0))
        for _ in range(n_layers):
            on_edges = (incidence.T @ items) / of_edges.T
            items = (incidence @ (self.mixing @ on_edges) / of_nodes).sigmoid()
        return items


def _degrees(incidence: Tensor, dim: int) -> Tensor:
    sums = incidence.sum(dim=dim, keepdim=True)
    return torch.where(sums == 0, torch.ones_like(sums), sums)
