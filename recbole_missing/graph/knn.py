"""The k nearest neighbours, exact, in blocks; nothing of n x n is stored."""

from __future__ import annotations

from logging import getLogger

import torch
from torch import Tensor, nn

from recbole_missing.graph.sparse import SparseMatrix

KNN_MISSING = ("imputed", "isolated", "isolated_after_topk")
"""What a kNN graph does with items that lack the modality, see :func:`knn_graph`."""

_ODD = 0x9E3779B97F4A7C15 - 2**64  # spreads the bits of a product (Knuth's multiplicative hash)

_TIE_GRID = 2.0**20
"""Similarities are compared on a grid of 2^-20, above the rounding noise of a float32 product."""


@torch.no_grad()
def knn_graph(
    features: Tensor,
    k: int,
    observed: Tensor,
    missing: str = "imputed",
    weighted: bool = True,
    excluded: Tensor | None = None,
    block_size: int = 1024,
) -> SparseMatrix:
    """Cosine k-nearest-neighbour graph, exact, built in row blocks.

    Args:
        features: shape ``(n_items, dim)``; row 0 (padding) gets no edge.
        k: neighbours of a row, the row itself among them when it is near enough; at most the
            number of candidates.
        observed: bool ``(n_items,)``: who truly has the modality.
        missing: what happens to the other items. ``imputed``: their rows take part like any other
            (right behind FeatProp). ``isolated``: a self loop of weight 1 is their only edge and
            they are nobody's neighbour, so that observed rows fill up with observed neighbours of
            positive similarity (right behind mean and zeros). ``isolated_after_topk``: the same,
            but their edges are cut after the top-k, so that observed rows keep fewer neighbours
            (DGMRec).
        weighted: keep the cosine as weight, else 1.
        excluded: bool ``(n_items,)``: items that are isolated whatever they have, before the
            top-k (new items, while a model trains).
        block_size: rows of one block; memory is ``block_size * n_items`` floats.

    Returns:
        A directed adjacency of shape ``(n_items, n_items)``, not normalised. Among equal
        similarities (on a grid of 2^-20) the smaller item id wins, on every device and for every
        block size: identical rows, as mean imputation makes them, are compared only once.
    """
    n_items = features.shape[0]
    real = torch.ones(n_items, dtype=torch.bool, device=features.device)
    real[0] = False
    excluded = torch.zeros_like(real) if excluded is None else real & excluded
    isolated = excluded | (real & ~observed) if missing != "imputed" else excluded
    left_out = isolated if missing == "isolated" else excluded
    candidates = (real & ~left_out).nonzero()[:, 0]
    n_zeros = min(int(left_out.sum()), k)
    rows, cols, values = _top_similar(features, k, candidates, n_zeros, block_size)
    if not weighted:
        values = torch.ones_like(values)
    kept = ~(isolated[rows] | isolated[cols])
    loops = isolated.nonzero()[:, 0]
    return SparseMatrix(
        torch.cat([rows[kept], loops]),
        torch.cat([cols[kept], loops]),
        torch.cat([values[kept], values.new_ones(loops.numel())]),
        (n_items, n_items),
    )


def _top_similar(
    features: Tensor, k: int, items: Tensor, n_zeros: int, block_size: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Edges from each of ``items`` to its k most similar ones among ``items``.

    ``n_zeros`` others compete with a similarity of zero and leave no edge where they win.
    """
    distinct, position = distinct_rows(features[items])
    unit = nn.functional.normalize(distinct, eps=1e-12)
    if k > items.numel():
        getLogger().warning(f"knn_graph: k is {k}, {items.numel()} items can be neighbours; taken.")
    k = min(k, items.numel() + n_zeros)
    cols, values = [], []
    for block in unit.split(block_size):
        similarity = (block @ unit.T)[:, position]  # (block, n_candidates)
        similarity = nn.functional.pad(similarity, (0, n_zeros))
        value, col = stable_topk(similarity, k)
        cols.append(col)
        values.append(value)
    col, value = torch.cat(cols)[position].flatten(), torch.cat(values)[position].flatten()
    edge = col < items.numel()
    return items.repeat_interleave(k)[edge], items[col[edge]], value[edge]


def distinct_rows(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return the distinct rows and, for every row, which of them it equals.

    Rows are told apart by a 64-bit hash of their bits, which is exact integer arithmetic and so
    the same on every device.
    """
    generator = torch.Generator().manual_seed(0)
    odd = 2 * torch.randint(-(2**62), 2**62, (rows.shape[1],), generator=generator) + 1
    odd = odd.to(rows.device)
    bits = ((block + 0.0).view(torch.int32) for block in rows.split(1024))  # -0.0 becomes 0.0
    # Multiplied before the fold, so that 0/1 features, whose low bits are all 0, keep 64 bits.
    mixed = (((block.long() * _ODD) ^ (block.long() * _ODD >> 32)) * odd for block in bits)
    keys = torch.cat([numbers.sum(dim=1) for numbers in mixed])
    distinct, position = torch.unique(keys, return_inverse=True)
    numbers = torch.arange(len(rows), device=rows.device)
    first = numbers.new_full(distinct.shape, len(rows))
    return rows[first.scatter_reduce(0, position, numbers, "amin")], position


def stable_topk(similarity: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Top k of each row by (similarity on the grid, smaller column); values stay unrounded."""
    key = torch.round(similarity * _TIE_GRID)
    spare = min(k + 1, key.shape[1])
    top, col = key.topk(spare, dim=1)
    col = col[:, :k]
    if spare > k:
        tied = (top[:, k - 1] == top[:, k]).nonzero()[:, 0]
        if tied.numel():
            col = col.clone()
            col[tied] = _lowest_columns(key[tied], top[tied, k - 1, None], k)
    return similarity.gather(1, col), col


def _lowest_columns(key: Tensor, threshold: Tensor, k: int) -> Tensor:
    """Columns above the threshold, then the first ones equal to it, exactly k a row."""
    above, equal = key > threshold, key == threshold
    room = k - above.sum(dim=1, keepdim=True)
    chosen = above | (equal & (equal.cumsum(dim=1) <= room))
    return chosen.nonzero()[:, 1].view(-1, k)
