"""Imputers that learn to translate one modality into another: auto-encoders with and without graph.

Source: Malitesta et al., "Training-free Graph-based Imputation of Missing Modalities in Multimodal
Recommendation", arXiv 2602.17354, where they are the trained baselines. Facts about the released
numbers: danielemalitesta/Graph-Missing-Modalities-TKDE, impute_autoencoder.py, commit c29f97f. The
release has two modalities of 2048 and 768 features; any number of any width is our extension.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Mapping, Sequence
from logging import getLogger
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from scipy import sparse
from torch import Tensor
from tqdm import tqdm

from recbole_missing.config.constraints import Bool, Choice, Float, Int, ListOf, Optional
from recbole_missing.graph.co_interaction import co_interaction
from recbole_missing.graph.normalise import inverse_root_array
from recbole_missing.graph.sparse import SparseMatrix
from recbole_missing.imputation.base import Filled, Imputer
from recbole_missing.parallel import Serial

Layers = list[tuple[Tensor, Tensor]]
"""Weight ``(n_out, n_in)`` and bias ``(n_out,)`` of each layer."""

Hops = list[SparseMatrix]
"""Matrices to multiply by before the second layer, the third and so on."""

RowsOf = Callable[[np.ndarray], sparse.csr_matrix]
"""Gives the asked rows of a square sparse matrix."""

BLOCK_ITEMS = 64
"""Items whose missing modality is predicted at a time."""


# The auto-encoder of a source s and a target t, in the order of the computation; T are the items
# that have both modalities:
#
#   x  = (s_i - min) / (max - min), per feature over T; y the same of t  -> Scale.shrink
#   h  = LeakyReLU(W h + b), layer by layer from h = x                   -> forward
#   y' = sigmoid(last W h + b)                                           -> forward, translate
#   loss = BCE(y', y), mean, + l1 * sum y' if t is wider than s          -> train
#   t_i = y' (max - min) + min for the items that have s and lack t      -> Scale.restore
#
# The graph auto-encoder puts D^-1/2 A D^-1/2 before each W of the first half of the layers.


class AutoEncoder(Imputer):
    """The output of an auto-encoder that predicts the row from another modality of the item.

    Paper: Malitesta et al., "Training-free Graph-based Imputation of Missing Modalities in
        Multimodal Recommendation", arXiv 2026, https://arxiv.org/abs/2602.17354

    Each ordered pair source -> target has a network of its own, optimised by Adagrad. An item that
    has several other modalities gets the mean of their networks' answers. A feature that is
    constant over the training items (0/0 in the release) is 0 on the input side and that constant
    on the output side. The loss is computed from logits, so outputs that round to 0 or 1 still
    learn; otherwise its numbers are those of the release.

    Args:
        epochs, batch_size: of the training of each network; released: 1000 and 32.
        learning_rate: None means the released 0.01.
        hidden_sizes: sizes between source and target, for every pair. None derives them from the
            widths (:func:`hidden_sizes`), which at 2048 and 768 gives the released ones.
        l1: weight of the summed output of a batch, for a target wider than its source; released:
            1e-4. Beside a mean over batch and features, such a sum pulls wide targets towards each
            feature's minimum.
        seed: of initial weights and the order of items; each pair has random numbers of its own.
        fallback: what an item gets that lacks every modality: ``mean`` of the observed rows, or
            ``zeros`` as in the release.
    """

    hyperparameters: ClassVar[Mapping[str, Any]] = {
        "epochs": Int(min=1),
        "batch_size": Int(min=1),
        "learning_rate": Optional(Float(min=0)),
        "hidden_sizes": Optional(ListOf(Int(min=1))),
        "l1": Float(min=0),
        "seed": Int(min=0),
        "fallback": Choice("mean", "zeros"),
    }
    epochs: int
    batch_size: int
    learning_rate: float | None
    hidden_sizes: Sequence[int] | None
    l1: float
    seed: int
    fallback: str

    _optimiser: ClassVar[Any] = torch.optim.Adagrad
    _released_rate: ClassVar[float] = 0.01
    _name: ClassVar[str] = "auto-encoder"

    def fill(self, table: Any, others: Mapping[str, Any]) -> Filled:
        """Translate from each other modality and average; items without any get the fallback."""
        total = torch.zeros_like(table.features)
        answers = torch.zeros(len(total))
        details = {}
        worker = copy.copy(self)  # travels without the engine that carries it
        worker.engine = Serial(progress=getattr(self.engine, "progress", False))
        sources = self._usable(table, others)
        shared = (worker, table, {name: others[name] for name in sources})
        runs = self.engine.map(_translate, shared, sources, f"{self._name} to {table.name}")
        for name, (items, rows, loss) in zip(sources, runs):
            total[items] += rows
            answers[items] += 1
            details[f"loss_from_{name}"] = loss
        reached = answers > 0
        values = total / answers.clamp(min=1)[:, None]
        if self.fallback == "mean":
            values[~reached] = self.mean_row(table)
        return Filled(values, reached, details)

    def _usable(self, table: Any, others: Mapping[str, Any]) -> list[str]:
        """Names of sources that some lacking item has and that can be learned from."""
        wanted = [name for name in others if (others[name].observed & ~table.observed).any()]
        usable = [name for name in wanted if self._both(table, others[name]).any()]
        if not others:
            getLogger().warning(
                f"{self._name}: modality {table.name!r} is alone, so nothing can be "
                "translated into it; every missing row gets the fallback."
            )
        for name in sorted(set(wanted) - set(usable)):
            getLogger().warning(
                f"{self._name}: no training item has both {name!r} and {table.name!r}, so "
                "this pair is left out."
            )
        return usable

    def _both(self, table: Any, source: Any) -> Tensor:
        return table.observed & source.observed & self.donors_

    def translate(self, table: Any, source: Any) -> tuple[Tensor, Tensor, float]:
        """Train the network ``source -> table`` and apply it.

        Returns:
            Ids of the items that have ``source`` and lack ``table``, their rows, and the mean loss
            of the last epoch.
        """
        both = self._both(table, source).nonzero()[:, 0]
        lacking = (source.observed & ~table.observed).nonzero()[:, 0]
        source_scale, target_scale = (Scale.of(known.features[both]) for known in (source, table))
        for known, scale in ((source, source_scale), (table, target_scale)):
            if not scale.span.isfinite().all():
                raise ValueError(
                    f"{self._name}: features of {known.name!r} must span less than "
                    f"{torch.finfo(torch.float32).max:.3g}, got {known.features[both].min():.3g} "
                    f"to {known.features[both].max():.3g}; divide them by a number."
                )
        inputs = source_scale.shrink(source.features)
        targets = target_scale.shrink(table.features[both])
        sizes = self.sizes(inputs.shape[1], targets.shape[1])
        key = f"{self.seed} {source.name} {table.name}".encode()
        digest = hashlib.blake2b(key, digest_size=7).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest, "little"))
        layers = self.start(sizes, generator)
        items = self.view(inputs, both, lacking, sizes)
        loss = self.train(layers, items, targets, self._l1(sizes), generator)
        with torch.no_grad():
            blocks = (items.lacking(block) for block in lacking.split(BLOCK_ITEMS))
            outputs = torch.cat([forward(layers, x, hops).sigmoid() for x, hops in blocks])
        return lacking, target_scale.restore(outputs), loss

    def train(
        self, layers: Layers, items: Any, targets: Tensor, l1: float, generator: torch.Generator
    ) -> float:
        """Change ``layers`` in place; gives the mean loss of the last epoch."""
        parameters = [tensor.requires_grad_() for layer in layers for tensor in layer]
        rate = self._released_rate if self.learning_rate is None else self.learning_rate
        optimiser = self._optimiser(parameters, lr=rate)
        for _ in tqdm(range(self.epochs), "epochs", disable=not self.engine.progress, leave=False):
            losses = []
            for batch in self.order(len(targets), generator).split(self.batch_size):
                with torch.enable_grad():
                    output = forward(layers, *items.known(batch))
                    loss = F.binary_cross_entropy_with_logits(output, targets[batch])
                    loss = loss + l1 * torch.sigmoid(output).sum()
                    optimiser.zero_grad()
                    loss.backward()
                optimiser.step()
                losses.append(loss.detach())
        return float(torch.stack(losses).mean())

    def sizes(self, source: int, target: int) -> list[int]:
        """Widths of all layers from ``source`` to ``target``."""
        between = hidden_sizes(source, target) if self.hidden_sizes is None else self.hidden_sizes
        return [source, *between, target]

    def start(self, sizes: Sequence[int], generator: torch.Generator) -> Layers:
        """Initial weights and biases, uniform within 1 / sqrt(n_in), torch's default."""
        return [
            (
                _uniform((n_out, n_in), n_in**-0.5, generator),
                _uniform((n_out,), n_in**-0.5, generator),
            )
            for n_in, n_out in zip(sizes, sizes[1:])
        ]

    def order(self, n_items: int, generator: torch.Generator) -> Tensor:
        """Order in which an epoch visits the training items."""
        return torch.randperm(n_items, generator=generator)

    def view(self, inputs: Tensor, both: Tensor, lacking: Tensor, sizes: Sequence[int]) -> Any:
        """What the network reads of an item."""
        return OnItsOwn(inputs, both)

    def _l1(self, sizes: Sequence[int]) -> float:
        return self.l1 if sizes[-1] > sizes[0] else 0.0


class GraphAutoEncoder(AutoEncoder):
    """The output of a graph convolutional network on another modality of the item and neighbours.

    Paper: Malitesta et al., "Training-free Graph-based Imputation of Missing Modalities in
        Multimodal Recommendation", arXiv 2026, https://arxiv.org/abs/2602.17354

    This is :class:`AutoEncoder` whose first half of layers (rounded up) are convolutions
    D^-1/2 A D^-1/2 over the items that have both modalities. A holds each item's ``top_k``
    strongest co-interactions among them (counts discarded, the item itself always) and D its row
    sums. The optimiser is Adam, and there is no L1 term. Ties and short rows of A are treated as in
    :func:`recbole_missing.graph.co_interaction.co_interaction`; the release breaks ties as
    torch.topk happens to and fills short rows with items of zero co-interactions.

    Args:
        epochs, batch_size, hidden_sizes, seed, fallback: as in :class:`AutoEncoder`.
        learning_rate: None means the released 1e-4.
        top_k: entries a row of A keeps.
        inductive: False, as released: each lacking item joins the training items on its own, as
            the last one, so that answers do not depend on each other. True: all lacking items
            join at once; this gives other numbers, and needs one graph instead of one an item.
    """

    hyperparameters: ClassVar[Mapping[str, Any]] = {
        **{key: limit for key, limit in AutoEncoder.hyperparameters.items() if key != "l1"},
        "top_k": Int(min=1),
        "inductive": Bool(),
    }
    l1 = 0.0  # the release has no such term here
    top_k: int
    inductive: bool

    _optimiser = torch.optim.Adam
    _released_rate = 1e-4
    _name = "graph auto-encoder"

    interactions_: sparse.csr_matrix

    def learn(self, interactions: sparse.csr_matrix, edges: sparse.csr_matrix | None) -> None:
        """Keep the training interactions; each pair of modalities has a graph of its own."""
        binary = sparse.csr_matrix(interactions, dtype=np.float32, copy=True)
        binary.sum_duplicates()
        binary.eliminate_zeros()
        binary.data[:] = 1.0
        self.interactions_ = binary

    def start(self, sizes: Sequence[int], generator: torch.Generator) -> Layers:
        """Initial weights: convolutions Glorot-uniform, their biases 0; the rest torch's."""
        layers = super().start(sizes, generator)
        for depth in range(_convolutions(sizes)):
            n_out, n_in = layers[depth][0].shape
            weight = _uniform((n_out, n_in), (6 / (n_in + n_out)) ** 0.5, generator)
            layers[depth] = (weight, torch.zeros(n_out))
        return layers

    def view(self, inputs: Tensor, both: Tensor, lacking: Tensor, sizes: Sequence[int]) -> Any:
        """What the network reads of an item: its features and those of its neighbours."""
        everyone = self.graph(torch.cat([both, lacking])) if self.inductive else None
        return WithNeighbours(inputs, self.graph(both), everyone, _convolutions(sizes))

    def graph(self, items: Tensor) -> ConvolutionGraph:
        """Graph of some items, numbered in the order given."""
        return ConvolutionGraph(self.interactions_, items.numpy(), self.top_k)


class OnItsOwn:
    """Network inputs of items that are read without neighbours.

    Args:
        inputs: scaled source features, shape ``(n_items, n_in)``.
        both: ids of the training items.
    """

    def __init__(self, inputs: Tensor, both: Tensor) -> None:
        """Store the arguments."""
        self.inputs = inputs
        self.both = both

    def known(self, positions: Tensor) -> tuple[Tensor, Hops]:
        """Inputs of training items, given by their position in ``both``."""
        return self.inputs[self.both[positions]], []

    def lacking(self, items: Tensor) -> tuple[Tensor, Hops]:
        """Inputs of items that lack the target, given by id."""
        return self.inputs[items], []


class WithNeighbours:
    """Network inputs of items that are read together with their neighbours.

    The result is that of encoding the whole graph, with less work. Only the rows that a batch
    depends on are computed. The features are constant, so they are multiplied with the first
    convolution once, before training.

    Args:
        inputs: scaled source features, shape ``(n_items, n_in)``.
        known: graph of the training items.
        everyone: graph of the training items and, after them, of all that lack the target; None
            if each of the latter is to join ``known`` on its own.
        convolutions: number of convolutions, at least 1.
    """

    def __init__(
        self,
        inputs: Tensor,
        known: ConvolutionGraph,
        everyone: ConvolutionGraph | None,
        convolutions: int,
    ) -> None:
        """Multiply the first hop of the training items."""
        self.inputs = inputs
        self.graph = known
        self.everyone = everyone
        self.steps = convolutions - 1
        hop = known.rows(np.arange(known.n_items))
        self.first = SparseMatrix.from_scipy(hop) @ inputs[torch.from_numpy(known.items)]

    def known(self, positions: Tensor) -> tuple[Tensor, Hops]:
        """Inputs of training items, given by their position in the graph, and their hops."""
        rows, hops = unroll(self.graph.rows, positions.numpy(), self.steps)
        return self.first[torch.from_numpy(rows)], [SparseMatrix.from_scipy(hop) for hop in hops]

    def lacking(self, items: Tensor) -> tuple[Tensor, Hops]:
        """Inputs of items that lack the target, given by id, and their hops."""
        if self.everyone is None:
            parts = [self._unrolled(*self.graph.joined_by(item)) for item in items.tolist()]
        else:
            n_known = self.graph.n_items  # who lacks the target follows, in ascending order
            rows = n_known + np.searchsorted(self.everyone.items[n_known:], items.numpy())
            parts = [self._unrolled(self.everyone.rows, self.everyone.items, rows)]
        first = sparse.vstack([part[0] for part in parts])
        hops = [sparse.block_diag(blocks) for blocks in zip(*(part[1] for part in parts))]
        return SparseMatrix.from_scipy(first) @ self.inputs, [
            SparseMatrix.from_scipy(hop) for hop in hops
        ]

    def _unrolled(
        self, rows_of: RowsOf, names: np.ndarray, rows: np.ndarray
    ) -> tuple[sparse.csr_matrix, list[sparse.csr_matrix]]:
        """First hop, with item ids as columns, and the later ones."""
        rows, hops = unroll(rows_of, rows, self.steps)
        first = rows_of(rows)
        shape = (len(rows), len(self.inputs))
        return sparse.csr_matrix((first.data, names[first.indices], first.indptr), shape), hops


class ConvolutionGraph:
    """The graph of a convolution: D^-1/2 A D^-1/2 among some items.

    A_ij = 1 where j is among the ``top_k`` strongest co-interactions of i, or j = i; D holds the
    row sums of A. The graph gives its rows when asked (:meth:`rows`), and can be grown by one item
    without building it anew (:meth:`joined_by`).

    Args:
        interactions: binary, shape ``(n_users, n_all_items)``.
        items: ids of the items; positions in it number the nodes.
        top_k: entries a row keeps before its diagonal is set.
    """

    def __init__(self, interactions: sparse.csr_matrix, items: np.ndarray, top_k: int) -> None:
        """Rank each row's entries, so that a joining item can take the place of the last one."""
        self.items, self.n_items, self.top_k = items, len(items), top_k
        self._by_user = interactions[:, items].tocsr()
        self._by_item = interactions.tocsc()
        counts = co_interaction(self._by_user, top_k).tocoo()
        order = np.lexsort((counts.col, -counts.data, counts.row))
        row, col, count = counts.row[order], counts.col[order], counts.data[order]
        rank = np.arange(len(row)) - np.searchsorted(row, row) + 1
        self._weakest = np.zeros(self.n_items, dtype=np.float32)
        self._weakest[row[rank == top_k]] = count[rank == top_k]
        other = row != col
        shape = (self.n_items, self.n_items)
        self._ranks = sparse.csr_matrix((rank[other], (row[other], col[other])), shape=shape)
        self._degree = np.diff(self._ranks.indptr) + 1.0

    def rows(self, rows: np.ndarray) -> sparse.csr_matrix:
        """Normalised rows, shape ``(len(rows), n_items)``."""
        picked = self._ranks[rows].tocoo()
        return _normalised(rows, picked.row, picked.col, self._degree)

    def joined_by(self, item: int) -> tuple[RowsOf, np.ndarray, np.ndarray]:
        """Graph of the items and one more, which is the last one and so loses every tie.

        Returns:
            A function like :meth:`rows` of the grown graph, the ids of its nodes, and, as an array
            of length one, the number of the new node.
        """
        indptr, n = self._by_item.indptr, self.n_items
        users = self._by_item.indices[indptr[item] : indptr[item + 1]]
        weight = np.bincount(self._by_user[users].indices, minlength=n)
        enters = weight > self._weakest
        company = np.append(np.flatnonzero(weight), n)
        strength = np.append(weight, len(users))[company]
        own = company[np.lexsort((company, -strength))][: self.top_k]
        own = own[own != n]
        degree = np.append(self._degree + (enters & (self._weakest == 0)), len(own) + 1.0)

        def rows_of(rows: np.ndarray) -> sparse.csr_matrix:
            old = np.flatnonzero(rows < n)
            picked = self._ranks[rows[old]].tocoo()
            stays = ~(enters[rows[old[picked.row]]] & (picked.data == self.top_k))
            hosts = old[enters[rows[old]]]
            new = np.repeat(np.flatnonzero(rows == n), len(own))
            row = np.concatenate([old[picked.row[stays]], hosts, new])
            col = np.concatenate([picked.col[stays], np.full(len(hosts), n), own[: len(new)]])
            return _normalised(rows, row, col, degree)

        return rows_of, np.append(self.items, item), np.array([n])


def forward(layers: Layers, x: Tensor, hops: Sequence[SparseMatrix] = ()) -> Tensor:
    """Apply the network, but not its last sigmoid.

    Args:
        layers: LeakyReLU(0.01) between them.
        x: inputs, those of a convolution already multiplied by its first hop.
        hops: matrices to multiply by before the second layer, the third and so on; may be fewer.
    """
    for depth, (weight, bias) in enumerate(layers):
        if 0 < depth <= len(hops):
            x = hops[depth - 1] @ x
        x = F.linear(x, weight, bias)
        if depth < len(layers) - 1:
            x = F.leaky_relu(x, 0.01)
    return x


def unroll(
    rows_of: RowsOf, rows: np.ndarray, steps: int
) -> tuple[np.ndarray, list[sparse.csr_matrix]]:
    """What ``steps`` products with a sparse matrix need to end in ``rows``.

    Returns:
        The rows that must be there before the first product, and the matrices in order of use.
    """
    hops: list[sparse.csr_matrix] = []
    for _ in range(steps):
        reached = rows_of(rows)
        rows, columns = np.unique(reached.indices, return_inverse=True)
        shape = (reached.shape[0], len(rows))
        hops.insert(0, sparse.csr_matrix((reached.data, columns, reached.indptr), shape))
    return rows, hops


def hidden_sizes(source: int, target: int) -> list[int]:
    """Sizes between source and target: half of the wider one; if that is the source, a quarter too.

    2048 -> 768 gives 1024, 512, 512 and 768 -> 2048 gives 1024, as released.
    """
    half, quarter = max(1, max(source, target) // 2), max(1, max(source, target) // 4)
    return [half, quarter, quarter] if source >= target else [half]


class Scale(NamedTuple):
    """Minimum and span of each feature over the training items, shape ``(dim,)``.

    A constant feature has span 0. The release divides by it and gets NaN; here it tells nothing as
    an input (0) and is that constant as an output.
    """

    low: Tensor
    span: Tensor

    @classmethod
    def of(cls, features: Tensor) -> Scale:
        """Measure the rows of ``features``."""
        low = features.amin(dim=0)
        return cls(low, features.amax(dim=0) - low)

    def shrink(self, features: Tensor) -> Tensor:
        """Map to [0, 1]; rows outside the training range may leave it."""
        shrunk = (features - self.low) / torch.where(self.span > 0, self.span, 1.0)
        return torch.where(self.span > 0, shrunk, 0.0)

    def restore(self, shrunk: Tensor) -> Tensor:
        """Map back."""
        return shrunk * self.span + self.low


def _translate(
    worker: AutoEncoder, table: Any, others: Mapping[str, Any], name: str
) -> tuple[Tensor, Tensor, float]:
    return worker.translate(table, others[name])


def _convolutions(sizes: Sequence[int]) -> int:
    return len(sizes) // 2


def _normalised(
    rows: np.ndarray, row: np.ndarray, col: np.ndarray, degree: np.ndarray
) -> sparse.csr_matrix:
    """Rows with the given entries and their diagonal, each over sqrt(d_i d_j)."""
    row = np.concatenate([row, np.arange(len(rows))])
    col = np.concatenate([col, rows])
    factor = inverse_root_array(degree)
    value = (factor[rows[row]] * factor[col]).astype(np.float32)
    return sparse.csr_matrix((value, (row, col)), shape=(len(rows), len(degree)))


def _uniform(shape: tuple[int, ...], bound: float, generator: torch.Generator) -> Tensor:
    return torch.empty(shape).uniform_(-bound, bound, generator=generator)
