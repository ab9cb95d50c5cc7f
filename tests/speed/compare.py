"""Our code beside the obvious alternative, in one run: ``python tests/speed/compare.py``.

Sizes of Amazon Baby (19,445 users, 7,050 items, 118,551 training interactions, 384 and 4,096
features), random numbers, a popularity tail. The alternatives are restated here from the formulas:
dense item-item products, a COO matrix, Adam without fusing, a matrix of all pairs. Prints seconds
and their ratio.
"""

from __future__ import annotations

import time
import warnings
from typing import Any, Callable

import numpy as np
import torch
from scipy import sparse

from recbole_missing.graph.knn import knn_graph
from recbole_missing.graph.normalise import row_sum_norm, symmetric_norm
from recbole_missing.graph.sparse import SparseMatrix, bipartite, light_gcn
from recbole_missing.imputation import FeatProp
from recbole_missing.modality import Modality
from recbole_missing.nn.losses import info_nce

N_USERS, N_ITEMS, N_EDGES = 19_446, 7_051, 118_551


def seconds(work: Callable[[], Any], repeats: int) -> float:
    work()
    start = time.perf_counter()
    for _ in range(repeats):
        work()
    return (time.perf_counter() - start) / repeats


def interactions() -> sparse.csr_matrix:
    generator = np.random.default_rng(0)
    popularity = 1.0 / np.arange(1, N_ITEMS) ** 0.7
    items = generator.choice(np.arange(1, N_ITEMS), N_EDGES, p=popularity / popularity.sum())
    users = generator.integers(1, N_USERS, N_EDGES)
    ones = np.ones(N_EDGES, dtype=np.float32)
    matrix = sparse.csr_matrix((ones, (users, items)), shape=(N_USERS, N_ITEMS))
    matrix.data[:] = 1.0
    return matrix


def dense_knn(features: torch.Tensor, k: int = 10) -> torch.Tensor:
    unit = torch.nn.functional.normalize(features)
    similarity = unit @ unit.T
    value, col = similarity.topk(k, dim=1)
    adjacency = torch.zeros_like(similarity).scatter_(1, col, value)
    root = adjacency.sum(1).clamp(min=1e-7).rsqrt()
    return (root[:, None] * adjacency * root).to_sparse()


def dense_featprop(
    matrix: sparse.csr_matrix, features: torch.Tensor, observed: torch.Tensor
) -> torch.Tensor:
    full = torch.from_numpy((matrix.T @ matrix).toarray())
    adjacency = torch.zeros_like(full).scatter_(1, full.topk(20, dim=1).indices, 1.0)
    adjacency.fill_diagonal_(0)
    root = adjacency.sum(1).rsqrt()
    operator = root[:, None] * adjacency * root
    values = features * observed[:, None]
    for _ in range(3):
        values = operator @ values
        values[observed] = features[observed]
    return values


def featprop(
    matrix: sparse.csr_matrix, features: torch.Tensor, observed: torch.Tensor
) -> torch.Tensor:
    modality = Modality("text", features * observed[:, None], observed)
    return FeatProp(layers=3, top_k=20).fit(matrix).transform(modality).features


def coo_light_gcn(adjacency: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    layers = [table]
    for _ in range(3):
        layers.append(torch.sparse.mm(adjacency, layers[-1]))
    return torch.stack(layers).mean(0)


def propagation() -> tuple[Callable[[], Any], Callable[[], Any]]:
    matrix = interactions().tocoo()
    users, items = torch.from_numpy(matrix.row).long(), torch.from_numpy(matrix.col).long()
    ours = symmetric_norm(bipartite(users, items, N_USERS, N_ITEMS))
    rows, cols, values = ours.edges()
    both = torch.stack([torch.cat([rows, cols + N_USERS]), torch.cat([cols + N_USERS, rows])])
    size = (N_USERS + N_ITEMS,) * 2
    whole = torch.sparse_coo_tensor(both, values.repeat(2), size, check_invariants=False).coalesce()
    table = torch.randn(N_USERS + N_ITEMS, 64, requires_grad=True)
    halves = [half.detach().requires_grad_() for half in table.split([N_USERS, N_ITEMS])]
    return (
        lambda: sum(part.sum() for part in light_gcn(ours, *halves, 3)).backward(),
        lambda: coo_light_gcn(whole, table).sum().backward(),
    )


def small_products() -> tuple[Callable[[], Any], Callable[[], Any]]:
    """500 products of a 50 x 50 matrix, where the call costs more than the arithmetic."""
    rows, cols = torch.randint(50, (2, 300))
    matrix, x = SparseMatrix(rows, cols, torch.ones(300), (50, 50)), torch.randn(50, 8)

    def with_new_csr_tensors() -> None:
        for _ in range(500):
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Sparse CSR tensor support")
                matrix._views.clear()
                matrix @ x

    return lambda: [matrix @ x for _ in range(500)], with_new_csr_tensors


def adam(fused: bool) -> Callable[[], None]:
    table = torch.nn.Parameter(torch.randn(N_ITEMS, 4096))
    table.grad = torch.randn_like(table)
    return torch.optim.Adam([table], 1e-3, fused=fused, foreach=False).step


def contrast(blocks: bool) -> Callable[[], None]:
    """InfoNCE of a batch of 4,096 and 64 dimensions, with its gradient."""
    rows, others = (torch.randn(4096, 64, requires_grad=True) for _ in range(2))

    def dense() -> torch.Tensor:
        units = [torch.nn.functional.normalize(block) for block in (rows, others)]
        logits = units[0] @ units[1].T / 0.2
        return torch.nn.functional.cross_entropy(logits, torch.arange(len(logits)))

    return lambda: (info_nce(rows, others, 0.2) if blocks else dense()).backward()


def main() -> None:
    torch.manual_seed(0)
    features = torch.randn(N_ITEMS, 384)
    features[0] = 0
    observed = torch.rand(N_ITEMS) < 0.6
    observed[0] = False
    matrix = interactions()
    ours, alternative = propagation()
    cases = {
        "kNN graph, 384 features, against a dense n x n one": (
            lambda: row_sum_norm(knn_graph(features, 10, observed)),
            lambda: dense_knn(features),
            3,
        ),
        "FeatProp, 3 layers, top 20, against a dense n x n one": (
            lambda: featprop(matrix, features, observed),
            lambda: dense_featprop(matrix, features, observed),
            3,
        ),
        "LightGCN, 3 layers, forward and backward, against COO autograd": (ours, alternative, 10),
        "500 products of a 50 x 50 matrix, against CSR tensors made anew for each": (
            *small_products(),
            20,
        ),
        "Adam step of a 7,050 x 4,096 table, fused against one by one": (
            adam(fused=True),
            adam(fused=False),
            10,
        ),
        "InfoNCE of 4,096 rows, forward and backward, against a rows x rows matrix": (
            contrast(blocks=True),
            contrast(blocks=False),
            10,
        ),
    }
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    for name, (work, other, repeats) in cases.items():
        here, there = seconds(work, repeats), seconds(other, repeats)
        print(f"{name}: {here:.3f} s against {there:.3f} s, {there / here:.1f} times faster")


if __name__ == "__main__":
    main()
