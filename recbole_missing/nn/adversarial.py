"""A Wasserstein critic over rows of item scores, its gradient penalty, and what it is shown."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_missing.graph.sparse import SparseMatrix


def seen_rows(interactions: SparseMatrix, user_ids: Tensor) -> Tensor:
    """Rows of the interactions without the padding item, bool ``(rows, n_items - 1)``.

    Args:
        interactions: shape ``(n_users, n_items)``.
        user_ids: shape ``(rows,)``; repeated ones are allowed.
    """
    start, column = interactions.crow.long(), interactions.col.long()
    first, counts = start[user_ids], start[user_ids + 1] - start[user_ids]
    row = torch.arange(len(user_ids), device=column.device).repeat_interleave(counts)
    edge = torch.arange(len(row), device=column.device) + (first - counts.cumsum(0) + counts)[row]
    seen = torch.zeros(len(user_ids), interactions.shape[1], dtype=torch.bool, device=row.device)
    seen[row, column[edge]] = True
    return seen[:, 1:]


def score_rows(users: Tensor, items: Tensor, seen: Tensor) -> Tensor:
    """Scores of what is not ``seen``, zero elsewhere, rows of unit length.

    Args:
        users, items: shapes ``(rows, M, d)``, ``(n_items, M, d)``: one score a modality.
        seen: bool ``(rows, n_items)``.

    Returns:
        Shape ``(M * rows, n_items)``, the rows of a modality together.
    """
    scores = torch.einsum("umd,imd->mui", users, items).masked_fill(seen, 0.0)
    return F.normalize(scores, dim=2).flatten(0, 1)


def add_top_items(
    counts: SparseMatrix, user_ids: Tensor, scores: Tensor, top: int, aligned: bool
) -> SparseMatrix:
    """Add one to ``counts (n_users, n_items)`` for every user and top item.

    Args:
        counts: of former batches.
        user_ids: shape ``(rows,)``.
        scores: shape ``(rows, n_items - 1)``, without the padding item.
        top: highest scores of a row that count, zero allowed.
        aligned: whether a user gets the items of its own row; otherwise the whole list of users
            is laid ``top`` times along the list of items, as MMSSL's release has it.
    """
    items = scores.topk(top, dim=1).indices.flatten() + 1
    users = user_ids.repeat_interleave(top) if aligned else user_ids.repeat(top)
    old_users, old_items, old = counts.edges()
    ones = old.new_ones(len(items))
    edges = torch.cat([old_users, users]), torch.cat([old_items, items]), torch.cat([old, ones])
    return SparseMatrix(*edges, counts.shape)


def without_edges(counts: SparseMatrix) -> SparseMatrix:
    """An empty matrix of the same shape."""
    rows, cols, values = (edge[:0] for edge in counts.edges())
    return SparseMatrix(rows, cols, values, counts.shape)


def real_rows(seen: Tensor, scores: Tensor, noise: float, score_weight: float) -> Tensor:
    """Interactions with Gumbel noise under a softmax, plus weighted scores, rows of unit length.

    Args:
        seen: bool ``(rows, n_items)``, the interactions.
        scores: same shape.
        noise: scale of the Gumbel draws.
        score_weight: of ``scores``.
    """
    gumbel = -((torch.rand(seen.shape, device=seen.device) + 1e-8).log().neg() + 1e-8).log()
    return F.normalize((seen.float() + noise * gumbel).softmax(dim=1) + score_weight * scores)


class RowCritic(nn.Module):
    """Tells real rows of item scores from generated ones: 100 sigmoid of three linear maps.

    The maps go from ``n`` items to n / 4, n / 8 and 1, a batch normalisation (always with the
    statistics of its input) and dropout after the first two. It has no other non-linearity, so a
    bias in these two would cancel. The weights, n^2 / 4 numbers, grow with the catalogue squared.

    Args:
        n_items: items of a row, the padding item not among them.
        dropout: probabilities after the two normalisations.

    Raises:
        ValueError: if the last hidden width would be zero.

    Source: Wei et al., WWW 2023; Gulrajani et al., NeurIPS 2017 (the penalty).
    """

    def __init__(self, n_items: int, dropout: Sequence[float]) -> None:
        """Create the layers, weights Kaiming normal."""
        super().__init__()
        wide, narrow = n_items // 4, n_items // 8
        if narrow == 0:
            raise ValueError(
                f"RowCritic: rows must have at least 8 items, got {n_items}; use more items."
            )
        self.first = nn.Linear(n_items, wide, bias=False)
        second, last = nn.Linear(wide, narrow, bias=False), nn.Linear(narrow, 1)
        self.rest = nn.Sequential(
            nn.BatchNorm1d(wide, track_running_stats=False),
            nn.Dropout(dropout[0]),
            second,
            nn.BatchNorm1d(narrow, track_running_stats=False),
            nn.Dropout(dropout[1]),
            last,
        )
        for layer in (self.first, second, last):
            nn.init.kaiming_normal_(layer.weight)
        nn.init.zeros_(last.bias)

    def forward(self, rows: Tensor) -> Tensor:
        """Judge ``rows (n, n_items)``, shape ``(n,)``."""
        return self._judge(self.first(rows))

    def terms(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        """What the critic minimises, its penalty unweighted.

        Everything before the first normalisation is linear. So real rows, of which one serves
        several fakes, pass the wide map once, and the mixtures of both never do.

        Args:
            real: shape ``(n, n_items)``, no gradient.
            fake: shape ``(copies * n, n_items)``, no gradient; row i stands beside real i mod n.

        Returns:
            ``real``: minus the mean verdict, ``fake``: the mean verdict, ``penalty``: mean of
            (slope - 1)^2, the slope taken at a random point between real and fake.
        """
        fakes = self.first(fake)
        reals = self.first(real).repeat(len(fake) // len(real), 1)
        share = torch.rand(len(fakes), 1, device=fakes.device)
        mixed = share * reals + (1 - share) * fakes
        (to_mixed,) = torch.autograd.grad(self._judge(mixed).sum(), mixed, create_graph=True)
        slopes = torch.linalg.vector_norm(to_mixed @ self.first.weight, dim=1)
        return {
            "real": -self._judge(reals).mean(),
            "fake": self._judge(fakes).mean(),
            "penalty": (slopes - 1).square().mean(),
        }

    def _judge(self, hidden: Tensor) -> Tensor:
        if len(hidden) == 1:  # alone it has no variance; with its double it is normalised to zero
            hidden = hidden.repeat(2, 1)
        verdicts: Tensor = 100 * self.rest(hidden).squeeze(1).sigmoid()
        return verdicts
