"""MMSSL: a critic makes the score rows of each modality look like interactions of its users.

Paper:   Wei, Huang, Xia, Zhang, "Multi-Modal Self-Supervised Learning for Recommendation", WWW
         2023, https://arxiv.org/abs/2302.10632
Code:    https://github.com/HKUDS/MMSSL, MMSSL/main.py and Models.py, f8d8955 (read for facts)
Follows: code. Its attention over modalities weighs equal values, so only the sum of one matrix's
         head blocks acts. With M modalities the critic sees M rows a user, guides are a mean,
         contents and contrasts sums. Batches are RecBole's: a user may occur twice in one.
Quirks:  `graph_update: released`, `graph_interval: 1`: batch 0 of an epoch is collected, batch 1
         builds the modality graphs from it, batch 2 from nothing, and empty ones serve from then
         on (no guide, constant contrast); beyond one top item, users get other users' items.
         `kept`, the paper's intent: every batch is collected, pairs hold, a graph stays until
         another can be built. By design the critic's first layer is n_items / 4 x n_items
         (63,001 items: 4 GB, as much for its gradient, twice for Adam). Its step has its own draw
         of dropout, its biases before a normalisation are left out. Unused items have no content.
Needs:   User-item graph, a learned one a modality, a second optimiser; features stay constant.
Missing: Works on imputed features; it makes no difference between observed and lacking items.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_missing.config.constraints import Choice, Float, Int, Pair
from recbole_missing.model.base import MultimodalRecommender
from recbole_missing.nn import adversarial
from recbole_missing.nn.layers import rows, xavier_table
from recbole_missing.nn.losses import bpr_loss, squared_loss


class MMSSL(MultimodalRecommender):
    """Identities guided by learned graphs, propagated, and shifted by aggregated content."""

    hyperparameters = {
        **dict.fromkeys(("embedding_size", "n_ui_layers", "n_heads", "graph_interval"), Int(min=1)),
        **dict.fromkeys(("dropout", "graph_top_share"), Float(min=0, max=1)),
        **dict.fromkeys(("guide_weight", "content_weight", "cl_weight"), Float(min=0)),
        **dict.fromkeys(("reg_weight", "content_reg_weight"), Float(min=0)),
        **dict.fromkeys(("adversarial_weight", "critic_learning_rate"), Float(min=0)),
        **dict.fromkeys(("penalty_weight", "real_noise", "real_score_weight"), Float(min=0)),
        "temperature": Float(min=1e-6),
        "critic_dropout": Pair(Float(min=0, max=1), Float(min=0, max=1)),
        "graph_update": Choice("released", "kept"),
    }
    features: Tensor

    def __init__(self, config: Any, dataset: Any) -> None:
        """Create tables, projections and critic; modality graphs start as the interactions."""
        super().__init__(config, dataset)
        size = self.embedding_size
        self.batch_size = config["train_batch_size"]
        if self.graph_update == "kept" and self._top == 0:
            raise ValueError(
                f"MMSSL: graph_top_share must reach one of {self.n_items - 1} items for "
                f"`graph_update: kept`, got {self.graph_top_share}; raise it, for instance to 0.02."
            )
        self.auxiliary_options = {"lr": self.critic_learning_rate, "betas": (0.5, 0.9)}
        self.user = xavier_table(self.n_users, size)
        self.item = xavier_table(self.n_items, size)
        self.heads = nn.Parameter(nn.init.xavier_uniform_(torch.empty(self.n_heads * size, size)))
        self.interactions = self.user_item_matrix(dataset)
        self.projections = nn.ModuleDict()
        self.graphs: Any = nn.ModuleDict()
        self.collected: Any = nn.ModuleDict()
        for name, modality in self.modalities.items():
            self.projections[name] = projection = nn.Linear(modality.dim, size)
            nn.init.xavier_uniform_(projection.weight)
            self.graphs[name] = self.user_item_matrix(dataset)
            self.collected[name] = adversarial.without_edges(self.interactions)
        self.register_buffer("features", self.modalities.concatenated())
        self.critic = adversarial.RowCritic(self.n_items - 1, self.critic_dropout)
        self.batch_number = 0  # within the epoch

    def auxiliary_parameters(self) -> Iterable[nn.Parameter]:
        """The critic's."""
        return self.critic.parameters()

    def on_epoch_start(self, minimise: Callable[[Tensor], None]) -> None:
        """Count batches anew; what has been collected stays."""
        self.batch_number = 0

    def on_batch_start(self, interaction: Any, minimise: Callable[[Tensor], None]) -> None:
        """Make one step of the critic."""
        terms = self.critic_terms(interaction[self.USER_ID])
        minimise(terms["real"] + terms["fake"] + self.penalty_weight * terms["penalty"])

    def critic_terms(self, user_ids: Tensor) -> dict[str, Tensor]:
        """Unweighted terms that the critic minimises, see :meth:`RowCritic.terms`."""
        with torch.no_grad():
            content = self._content()
            users, items = self._final(content, self._guides())
            seen = adversarial.seen_rows(self.interactions, user_ids)
            scores = adversarial.score_rows(users[user_ids, None], items[1:, None], seen)
            real = adversarial.real_rows(seen, scores, self.real_noise, self.real_score_weight)
            fake = adversarial.score_rows(content[0][user_ids], content[1][1:], seen)
        return self.critic.terms(real, fake)

    def encode(self) -> tuple[Tensor, Tensor]:
        """Users ``(n_users, d)`` and items ``(n_items, d)``."""
        return self._final(self._content(), self._guides())

    def loss_terms(self, interaction: Any) -> dict[str, Tensor]:
        """BPR, norms, the critic's verdict and contrasts; then the modality graphs move on."""
        batch = self.batch(interaction)
        content, guides = self._content(), self._guides()
        final = self.gather(*self._final(content, guides), batch)
        seen = adversarial.seen_rows(self.interactions, batch[0])
        scores = adversarial.score_rows(content[0][batch[0]], content[1][1:], seen)
        terms = {
            "bpr": bpr_loss(*final),
            "reg": self.reg_weight * squared_loss(*final) / self.batch_size,
            "content_reg": self.content_reg_weight * squared_loss(*content) / (self.n_items - 1),
            "adversarial": -self.adversarial_weight * self.critic(scores).mean(),
        }
        for name in self.modalities:
            guide = rows(guides[name][0], batch[0]) if name in guides else 0 * final[0].detach()
            terms[f"cl_{name}"] = self.cl_weight * _contrast(guide, final[0], self.temperature)
        self._learn_graphs(batch[0], scores.detach())
        return terms

    def _content(self) -> tuple[Tensor, Tensor]:
        """Aggregated content of users and items, ``(n, M, d)``; all modalities in one product."""
        blocks = self.features.split([m.dim for m in self.modalities.values()], dim=1)
        projected = [project(x) for project, x in zip(self.projections.values(), blocks)]
        dropped = F.dropout(torch.cat(projected, dim=1), self.dropout, self.training)
        users = _to_users(self.interactions, dropped)
        items = _to_items(self.interactions, users)
        return users.unflatten(1, (len(blocks), -1)), items.unflatten(1, (len(blocks), -1))

    def _guides(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Partners' identities of users and items, ``(n, d)``, in the graphs that have edges."""
        return {
            name: (_to_users(graph, self.item), _to_items(graph, self.user))
            for name, graph in self.graphs.items()
            if len(graph.values)
        }

    def _final(self, content: tuple[Tensor, Tensor], guides: dict[str, Any]) -> tuple[Any, Any]:
        """Final users and items, ``(n, d)``."""
        users = user_sum = self._guided(self.user, [guide for guide, _ in guides.values()])
        items = item_sum = self._guided(self.item, [guide for _, guide in guides.values()])
        for left in reversed(range(self.n_ui_layers)):
            close = nn.Identity() if left else nn.Softmax(dim=1)
            users = close(_to_users(self.interactions, items))
            items = close(_to_items(self.interactions, users))
            user_sum, item_sum = user_sum + users, item_sum + items
        stages = self.n_ui_layers + 1
        shifts = [self.content_weight * F.normalize(side, dim=2).sum(dim=1) for side in content]
        return user_sum / stages + shifts[0], item_sum / stages + shifts[1]

    def _guided(self, identities: Tensor, guides: list[Tensor]) -> Tensor:
        """Shift ``identities (n, d)`` along the mean guide under the summed heads."""
        size = self.embedding_size
        zero = identities.new_zeros(1, size)  # with no guide, heads get a zero gradient, not none
        mean = sum(guides, start=zero) / len(self.modalities)
        direction = F.normalize(mean @ self.heads.view(-1, size, size).sum(dim=0))
        return identities + self.guide_weight * direction

    @property
    def _top(self) -> int:
        return int((self.n_items - 1) * self.graph_top_share)

    def _learn_graphs(self, user_ids: Tensor, scores: Tensor) -> None:
        """Collect the batch's top items, ``scores (M * batch, n_items - 1)``, or build graphs."""
        due = self.batch_number > 0 and self.batch_number % self.graph_interval == 0
        kept = self.graph_update == "kept"
        self.batch_number += 1
        for name, score in zip(self.modalities, scores.split(len(user_ids))):
            pairs, graph = self.collected[name], self.graphs[name]
            if kept or not due:
                pairs = adversarial.add_top_items(pairs, user_ids, score, self._top, aligned=kept)
            if due and (len(pairs.values) or (len(graph.values) and not kept)):
                self.graphs[name], pairs = pairs, adversarial.without_edges(pairs)
            self.collected[name] = pairs


def _to_users(counts: Any, items: Tensor) -> Tensor:
    """Sum over a user's items by the root of their number; zero without any."""
    return (counts @ items) / (counts @ items.new_ones(len(items), 1)).clamp(min=1).sqrt()


def _to_items(counts: Any, users: Tensor) -> Tensor:
    number = counts.t_matmul(users.new_ones(len(users), 1)).clamp(min=1)
    return counts.t_matmul(users) / number.sqrt()


def _contrast(guides: Tensor, finals: Tensor, temperature: float) -> Tensor:
    """InfoNCE from guides to final vectors ``(n, d)``; the other guides are negatives as well."""
    guides = F.normalize(guides)
    same = (guides @ guides.T / temperature).fill_diagonal_(-torch.inf)
    cross = guides @ F.normalize(finals).T / temperature
    share = cross.diagonal() - torch.cat([same, cross], dim=1).logsumexp(dim=1)
    return -(share.exp() + 1e-8).log().mean()
