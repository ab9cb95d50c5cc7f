"""Imputation of a growing catalogue, and against the published algorithms at Baby's size.

    python tests/speed/scale.py [--items 125000 250000 500000 1000000] [--ray N] [--popular]
    python tests/speed/scale.py --baby [--diffusion]

The first form runs ``FeatProp(layers=20, top_k=20).fit(R).transform(X, observed)`` on arrays, each
size in a process of its own: 10 interactions an item, 128 dimensions, half of the rows missing.
``--ray`` adds a local Ray of that many CPUs at the first size and compares; ``--popular`` adds five
users who draw 10,000 items each at the last size, with and without ``max_user_items``.

The second form restates what the published scripts do (the whole dense product R^T R and its
torch.topk, all rows in every step; a dense inverse; a dense exponential) from their formulas and
runs both on the training interactions of Amazon Baby (../shared/data/baby; a synthetic catalogue of
its size without that file). Equal results are compared on one adjacency, since torch.topk breaks
ties as it happens to. Not a test: times depend on the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any, Callable

import numpy as np
import torch
from scipy import linalg, sparse

ROOT = Path(__file__).resolve().parents[2]
BABY = ROOT.parent / "shared" / "data" / "baby" / "baby.inter"
LAYERS, TOP_K, DIM, PER_ITEM = 20, 20, 128, 10
USER_TAIL, LEAST, ITEM_TAIL = 2.2, 3, 1.4
POPULAR_USERS, POPULAR_ITEMS, MAX_USER_ITEMS = 5, 10_000, 2_000


# --------------------------------------------------------------------------------- catalogues


def catalogue(n_items: int, n_edges: int, popular: bool = False) -> sparse.csr_matrix:
    """Interactions with power laws on both sides, repeated ones counted once.

    A user has d items with P(d >= x) = (3 / x)^2.2; an item is drawn in proportion to a weight w
    with P(w >= x) = x^-1.4. ``popular`` adds five users who draw 10,000 items each.
    """
    generator = np.random.default_rng(0)
    degrees = (LEAST * generator.random(n_edges // LEAST) ** (-1 / USER_TAIL)).astype(np.int64)
    degrees = np.minimum(degrees, n_items)
    degrees = degrees[: int(np.searchsorted(np.cumsum(degrees), n_edges)) + 1]
    if popular:
        degrees = np.append(degrees, np.full(POPULAR_USERS, POPULAR_ITEMS))
    weights = np.cumsum(generator.random(n_items) ** (-1 / ITEM_TAIL))
    n_edges = int(degrees.sum())
    items = np.searchsorted(weights, generator.random(n_edges) * weights[-1])
    users = np.repeat(np.arange(len(degrees)), degrees)
    ones = np.ones(n_edges, dtype=np.float32)
    return sparse.csr_matrix((ones, (users, items)), shape=(len(degrees), n_items))


def baby() -> sparse.csr_matrix:
    """Training interactions of Amazon Baby, or a synthetic catalogue of its size."""
    if not BABY.exists():
        return catalogue(7_050, 118_551)
    users, items, label = np.loadtxt(BABY, dtype=np.int64, skiprows=1, delimiter="\t").T
    train = label == 0
    ones = np.ones(int(train.sum()), dtype=np.float32)
    return sparse.csr_matrix((ones, (users[train], items[train])))


def shape_of(matrix: sparse.csr_matrix) -> str:
    """Quantiles of the degrees of users and of items that have any."""
    binary = matrix != 0
    lines = []
    for who, axis in (("user", 1), ("item", 0)):
        degrees = np.asarray(binary.sum(axis=axis)).ravel()
        degrees = degrees[degrees > 0]
        found = np.quantile(degrees, [0.5, 0.9, 0.99, 0.999, 1]).round().astype(int)
        values = ", ".join(f"{value:,}" for value in found)
        lines.append(f"{len(degrees):,} {who}s, mean {degrees.mean():.1f}, quantiles {values}")
    return "; ".join(lines)


def half_missing(n_items: int, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """Random features, and who has them."""
    generator = np.random.default_rng(1)
    features = generator.random((n_items, dim), dtype=np.float32)
    return features, generator.random(n_items) < 0.5


# -------------------------------------------------------------------------- a growing catalogue


def measure(n_items: int) -> dict[str, Any]:
    """Seconds of graph and propagation, and peak GiB after each, in this process."""
    from recbole_missing.imputation import FeatProp

    interactions = catalogue(n_items, PER_ITEM * n_items)
    features, observed = half_missing(n_items, DIM)
    row = {**sizes_of(interactions), "peak_input": peak()}
    imputer = FeatProp(layers=LAYERS, top_k=TOP_K)
    start = clocks()
    imputer.fit(interactions)
    row["graph"], row["peak_graph"] = since(start), peak()
    start = clocks()
    result = imputer.transform(features, observed)
    row["propagation"], row["peak"] = since(start), peak()
    assert np.isfinite(result).all()
    assert np.array_equal(result[observed], features[observed])
    return row


def measure_popular(n_items: int, limit: int | None) -> dict[str, Any]:
    """Seconds and peak GiB of the graph alone, with users of very many items."""
    from recbole_missing.graph.co_interaction import co_interaction

    interactions = catalogue(n_items, PER_ITEM * n_items, popular=True)
    row = {**sizes_of(interactions), "peak_input": peak()}
    start = clocks()
    co_interaction(interactions, TOP_K, max_user_items=limit)
    row["graph"], row["peak"] = since(start), peak()
    return row


def sizes_of(interactions: sparse.csr_matrix) -> dict[str, Any]:
    """Numbers of a table's row; pairs are the sum of the users' squared numbers of items."""
    user_items = np.asarray((interactions != 0).sum(axis=1)).ravel().astype(np.int64)
    row = {"items": interactions.shape[1], "users": len(user_items)}
    return {**row, "interactions": int(user_items.sum()), "pairs": int((user_items**2).sum())}


def clocks() -> tuple[float, float]:
    """Time on the wall, and on the processor, which other work on the machine disturbs less."""
    return time.perf_counter(), time.process_time()


def since(start: tuple[float, float]) -> str:
    """Seconds since then, those of the processor in brackets."""
    wall, cpu = (now - then for now, then in zip(clocks(), start))
    return f"{wall:.1f} ({cpu:.1f})"


def peak() -> float:
    """Largest GiB that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def apart(*arguments: str) -> dict[str, Any]:
    """What this script prints with these arguments, in a process of its own."""
    command = [sys.executable, __file__, "--one", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def grow(sizes: list[int], popular: bool) -> None:
    """Print a row a size."""
    print("power laws: user degree (3/x)^2.2, item weight x^-1.4; at Baby's size the generator has")
    print(f"  synthetic: {shape_of(catalogue(7_050, 118_551))}")
    if BABY.exists():
        print(f"  Baby:      {shape_of(baby())}")
    print("  (quantiles 50, 90, 99, 99.9 and 100 %)\n")
    head = "items | users | interactions | pairs | graph s (CPU) | propagation s (CPU)"
    print(f"| {head} | peak GiB: input | + graph | + propagation |")
    print("|---" * 9 + "|", flush=True)
    for size in sizes:
        show(apart(str(size)), "graph", "propagation", "peak_input", "peak_graph", "peak")
    if popular:
        print(f"\n{POPULAR_USERS} users draw {POPULAR_ITEMS:,} items each; the graph of all users,")
        print(f"then with max_user_items={MAX_USER_ITEMS:,}\n")
        head = "items | users | interactions | pairs of all | graph s (CPU)"
        print(f"| {head} | peak GiB: input | + graph |")
        print("|---" * 7 + "|", flush=True)
        for limit in ([], ["--limit", str(MAX_USER_ITEMS)]):
            show(apart(str(sizes[-1]), "--popular", *limit), "graph", "peak_input", "peak")


def show(row: dict[str, Any], *measured: str) -> None:
    """Print a row of a table: its sizes, and what was measured."""
    counts = [f"{row[key]:,}" for key in ("items", "users", "interactions", "pairs")]
    cells = [row[key] if isinstance(row[key], str) else f"{row[key]:.1f}" for key in measured]
    print(f"| {' | '.join(counts + cells)} |", flush=True)


def on_ray(n_items: int, n_cpus: int) -> None:
    """The same work in this process and on a local Ray, and whether the results are equal."""
    from recbole_missing.parallel import Ray, Serial

    interactions = catalogue(n_items, PER_ITEM * n_items)
    features, observed = half_missing(n_items, DIM)
    results = {}
    with Ray(num_cpus=n_cpus) as ray:
        run_on(ray, catalogue(2_000, 20_000), *half_missing(2_000, 64))  # workers start and import
        for name, engine in (("Serial", Serial()), ("Ray", ray)):
            results[name], times = run_on(engine, interactions, features, observed)
            seconds = f"graph {times[0]:.1f} s, propagation {times[1]:.1f} s"
            print(f"{name}, {n_items:,} items: {seconds}", flush=True)
    (graph, values), (other_graph, other_values) = results["Serial"], results["Ray"]
    equal = (graph != other_graph).nnz == 0, np.array_equal(values, other_values)
    print(f"equal graphs: {equal[0]}; equal imputed values: {equal[1]}", flush=True)


def run_on(engine: Any, interactions: Any, features: Any, observed: Any) -> Any:
    """Graph and values made by an engine, and the seconds of both."""
    from recbole_missing.imputation import FeatProp

    imputer = FeatProp(layers=LAYERS, top_k=TOP_K)
    imputer.engine = engine
    start = time.perf_counter()
    imputer.fit(interactions)
    fitted = time.perf_counter()
    values = imputer.transform(features, observed)
    return (imputer.graph_, values), (fitted - start, time.perf_counter() - fitted)


# ------------------------------------------------------------- the published algorithms, restated


def published_graph(interactions: sparse.csr_matrix) -> np.ndarray:
    """Dense 0/1 adjacency: the ``top_k`` largest entries of each row of the dense R^T R."""
    counts = torch.from_numpy((interactions.T @ interactions).toarray())
    adjacency = torch.zeros_like(counts).scatter_(1, counts.topk(TOP_K, dim=1).indices, 1.0)
    return adjacency.numpy()


def published_featprop(
    adjacency: np.ndarray, features: np.ndarray, observed: np.ndarray, layers: int
) -> np.ndarray:
    """Every row in every step, by a sparse product, as the release does."""
    operator = torch.from_numpy(adjacency).fill_diagonal_(0)
    degree = operator.sum(dim=1)
    root = torch.where(degree > 0, degree.rsqrt(), torch.zeros(()))
    operator = (root[:, None] * operator * root).to_sparse()
    known, seen = torch.from_numpy(features), torch.from_numpy(observed)
    values = known * seen[:, None]
    for _ in range(layers):
        values = operator @ values
        values[seen] = known[seen]
    return values.numpy()


def published_diffusion(
    adjacency: np.ndarray, features: np.ndarray, observed: np.ndarray, layers: int, kind: str
) -> np.ndarray:
    """S dense in double precision, each column's ``top_k`` largest, the column's sum divided out.

    ``page_rank`` with alpha 0.1, ``heat`` with time 5.
    """
    n_items = len(adjacency)
    hop = (adjacency + np.eye(n_items)) / (TOP_K + 1)
    if kind == "page_rank":
        spread = 0.1 * linalg.inv(np.eye(n_items) - 0.9 * hop)
    else:
        spread = linalg.expm(-5.0 * (np.eye(n_items) - hop))
    receivers = torch.from_numpy(spread).topk(TOP_K, dim=0)
    operator = torch.zeros(n_items, n_items, dtype=torch.double)
    operator.scatter_(0, receivers.indices, receivers.values)
    sums = operator.sum(dim=0)
    operator /= torch.where(sums > 0, sums, torch.ones(()))
    known, seen = torch.from_numpy(features).double(), torch.from_numpy(observed)
    values = known * seen[:, None]
    for _ in range(layers):
        values = operator @ values
        values[seen] = known[seen]
    return values.numpy()


def compare(name: str, imputer: Any, dim: int, published: Callable[..., np.ndarray]) -> None:
    """Time both from interactions to values; theirs goes on with our graph, to be comparable."""
    from recbole_missing.graph.co_interaction import co_interaction

    interactions = baby()
    features, observed = half_missing(interactions.shape[1], dim)
    start = time.perf_counter()
    values = imputer.fit(interactions).transform(features, observed)
    ours = time.perf_counter() - start
    same = (co_interaction(interactions, TOP_K) != 0).toarray().astype(np.float32)
    start = time.perf_counter()
    published_graph(interactions)
    expected = published(same, features, observed, imputer.layers)
    theirs = time.perf_counter() - start
    times = f"{ours:.2f} s against {theirs:.2f} s, {theirs / ours:.1f} times as fast"
    print(f"{name}, layers {imputer.layers}, {dim} dims: {times}")
    difference = np.abs(values - expected)[~observed].max(axis=1)
    apart = difference[difference > 1e-5]
    largest = difference[difference <= 1e-5].max()
    print(f"  on one adjacency: largest difference {largest:.1e}", end="")
    print(f", in all but {len(apart)} of {len(difference)} rows" if len(apart) else "", flush=True)


def against_published(diffusions: bool) -> None:
    """Run the comparisons at Baby's size."""
    from recbole_missing.imputation import FeatProp, diffusion

    print(f"Baby: {shape_of(baby())}")
    print(f"top_k {TOP_K}, half of the rows missing; ours against the published algorithm\n")
    for layers, dim in ((3, 384), (20, 384), (3, 4096)):
        imputer = FeatProp(layers=layers, top_k=TOP_K, fallback="zeros")
        compare("FeatProp", imputer, dim, published_featprop)
    if diffusions:
        for name, kind in (("PersPageRank", "page_rank"), ("Heat", "heat")):
            imputer = getattr(diffusion, name)(layers=1, top_k=TOP_K, fallback="zeros")
            compare(name, imputer, 384, partial(published_diffusion, kind=kind))


def main() -> None:
    """Read the arguments and run one of the two forms."""
    sys.path.insert(0, str(ROOT))
    parser = argparse.ArgumentParser(description=__doc__)
    sizes = [125_000, 250_000, 500_000, 1_000_000]
    parser.add_argument("--items", nargs="+", type=int, default=sizes)
    parser.add_argument("--ray", type=int, metavar="N")
    parser.add_argument("--popular", action="store_true")
    parser.add_argument("--baby", action="store_true")
    parser.add_argument("--diffusion", action="store_true")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--limit", type=int, help=argparse.SUPPRESS)
    known = parser.parse_args()
    if known.one:
        one = measure_popular(known.one, known.limit) if known.popular else measure(known.one)
        print(json.dumps(one))
        return
    print(f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}", end=", ")
    print(f"{torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}\n", flush=True)
    if known.baby:
        against_published(known.diffusion)
        return
    grow(known.items, known.popular)
    if known.ray:
        on_ray(known.items[0], known.ray)


if __name__ == "__main__":
    main()
