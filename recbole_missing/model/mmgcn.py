"""MMGCN: one graph network for each modality on the user-item graph; their outputs are averaged.

Paper:   Wei, Wang, Nie, He, Hong and Chua, "MMGCN: Multi-modal Graph Convolution Network for
         Personalized Recommendation of Micro-video", ACM MM 2019,
         https://doi.org/10.1145/3343031.3351034
Code:    https://github.com/enoche/MMRec, src/models/mmgcn.py, e775373 (read for facts)
Follows: code. The combination concatenates both vectors of a node, and only the last layer counts.
         Every modality has a network of its own. `latent_sizes` says, in the order of the
         modalities, which features are projected first (released: those of the first modality).
Quirks:  Identities and preferences are random and stay as they are, hence the penalty is a
         constant. The paper learns them (`train_tables: True`). With two modalities the DGMRec
         release adds a bias to the aggregation and scales its result to unit length
         (`neighbourhood: unit_mean`). It also penalises the preferences of all modalities
         (`penalised_preferences: all`). With three modalities that release reads the true features
         of items that lack them; no setting repeats this.
Needs:   User-item graph. Features stay constant.
Missing: No special treatment. The model reads the features as imputation completed them. A new
         item has no neighbour: its vector comes from its random identity and its own content.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_missing.config.constraints import Bool, Choice, Float, Int, ListOf
from recbole_missing.graph.normalise import row_mean_norm
from recbole_missing.graph.sparse import SparseMatrix, whole_graph
from recbole_missing.model.base import MultimodalRecommender
from recbole_missing.nn.distinct import distinct
from recbole_missing.nn.layers import FrozenFeatures, node_tables, rows, unit_rows
from recbole_missing.nn.losses import bpr_loss

# The model, with the paper's symbols. Nodes are users, then items; M = D^-1 A takes the mean over a
# node's neighbours; norm scales rows to unit length; | concatenates. For every modality m:
#
#   F_m        = X_m W_m + b_m where latent_sizes gives a width, else X_m     -> self.projections
#   x_m^0      = [norm(P_m); norm(F_m)]       P_m: preferences of users       -> self._first_users,
#                                                                                  _first_items
#   for l = 1..n_ui_layers, with the matrices of layer l and modality m:
#     h        = leaky(M (x_m^(l-1) W_1))                      aggregation    -> Layer.aggregate
#     s        = leaky(x_m^(l-1) W_2 + b_2) + e                               -> Layer.combine
#     x_m^l    = leaky([h | s] W_3 + b_3)                      combination    -> Layer.combine
#   e          = identities [E_u; E_i], the same in all modalities and layers
# With neighbourhood: unit_mean,
#     h        = leaky(norm(M (x_m^(l-1) W_1 + b_1)))                         -> Layer.aggregate
# Vectors and score:
#   z          = mean over m of x_m^n_ui_layers                               -> self._propagate
#   score(u,i) = <z_u, z_i>
#
# For a batch of triples (u, p, n); ms is the mean of squares over rows and columns:
#
#   bpr             = mean of -log sigmoid(score(u,p) - score(u,n))           -> losses.bpr_loss
#   reg_identities  = reg_weight * (ms(E_u[u]) + ms(E_i[p and n]))
#   reg_preferences = reg_weight * ms(P_1), all users        penalised_preferences: first
#                   = reg_weight * sum over m of ms(P_m)     penalised_preferences: all


class MMGCN(MultimodalRecommender):
    """The mean of one graph network for each modality."""

    hyperparameters = {
        "embedding_size": Int(min=1),  # d, width of identities and of every layer's output
        "latent_sizes": ListOf(Int(min=0)),  # widths of F_m, in order; 0 or no entry: X_m itself
        "n_ui_layers": Int(min=1),  # layers of every network
        "neighbourhood": Choice("mean", "unit_mean"),  # form of the aggregation
        "penalised_preferences": Choice("first", "all"),  # modalities in the penalty
        "train_tables": Bool(),  # learn identities and preferences, as in the paper
        "reg_weight": Float(min=0),  # weight of the mean squares
    }
    user_embedding: Tensor
    item_embedding: Tensor
    connected: Tensor

    def __init__(self, config: Any, dataset: Any) -> None:
        """Create identities, preferences, projections and layers, and build the graph."""
        super().__init__(config, dataset)
        users, items = node_tables(self.n_users, self.n_items, self.embedding_size)
        _register(self, "user_embedding", users, self.train_tables)
        _register(self, "item_embedding", items, self.train_tables)
        self.mean_graph = row_mean_norm(whole_graph(self.user_item_matrix(dataset)))  # M
        has_neighbours = self.mean_graph.row_sums() > 0
        self.register_buffer("connected", has_neighbours.float()[:, None])
        self.features = FrozenFeatures(self.modalities)
        self.projections = nn.ModuleDict()
        self.preferences = Preferences()
        widths = {}  # of x_m^0
        for name, latent_size in self._latent_sizes().items():
            dim = self.modalities[name].dim
            widths[name] = latent_size or dim
            if latent_size:
                self.projections[name] = nn.Linear(dim, latent_size)
            self.preferences.add(name, self.n_users, widths[name], self.train_tables)
        self.layers = nn.ModuleList()  # one ModuleDict, name -> Layer, for each l
        for _ in range(self.n_ui_layers):
            self.layers.append(self._layers(widths))
            widths = {name: self.embedding_size for name in widths}
        for layer in self.layers[0].values():
            nn.init.xavier_normal_(layer.combination.weight)
        self._keep_constants()

    def encode(self) -> tuple[Tensor, Tensor]:
        """Users ``(n_users, d)`` and items ``(n_items, d)``."""
        users, items = self._propagate()
        return users, items

    def loss_terms(self, interaction: Any) -> dict[str, Tensor]:
        """BPR loss, and mean squares of identities and preferences."""
        user_ids, positive_ids, negative_ids = self.batch(interaction)
        users, items = distinct(user_ids), distinct(torch.cat([positive_ids, negative_ids]))
        user_vectors, item_vectors = self._propagate(users.ids, items.ids)
        positives, negatives = items.spread(item_vectors).chunk(2)
        item_ids = torch.cat([positive_ids, negative_ids])
        identities = (
            rows(self.user_embedding, user_ids).square().mean()
            + rows(self.item_embedding, item_ids).square().mean()
        )
        names = list(self.modalities)
        penalised = names[:1] if self.penalised_preferences == "first" else names
        preferences = [self.preferences[name][1:].square().mean() for name in penalised]
        return {
            "bpr": bpr_loss(users.spread(user_vectors), positives, negatives),
            "reg_identities": self.reg_weight * identities,
            "reg_preferences": self.reg_weight * torch.stack(preferences).sum(),
        }

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Load, and compute the constants of what was loaded."""
        result = super().load_state_dict(*args, **kwargs)
        self._keep_constants()
        return result

    def _latent_sizes(self) -> dict[str, int]:
        """Width to which the features of each modality are projected, 0 for no projection."""
        excess = len(self.latent_sizes) - len(self.modalities)
        if excess > 0:
            raise ValueError(
                "MMGCN: latent_sizes must have at most one entry a modality, got "
                f"{self.latent_sizes} for {list(self.modalities)}; remove {excess}."
            )
        return dict(zip(self.modalities, [*self.latent_sizes, *[0] * -excess]))

    def _layers(self, widths: dict[str, int]) -> nn.ModuleDict:
        """One layer a modality, for input vectors of these widths."""
        layers, has_bias = nn.ModuleDict(), self.neighbourhood == "unit_mean"
        for name, width in widths.items():
            layers[name] = Layer(width, self.embedding_size, has_bias)
        return layers

    @torch.no_grad()
    def _keep_constants(self) -> None:
        """Take both halves of M, and compute once what no parameter is in."""
        rows, cols, values = self.mean_graph.edges()
        of_user, n_users, n_items = rows < self.n_users, self.n_users, self.n_items
        edges = rows[of_user], cols[of_user] - n_users, values[of_user]
        self.user_means = SparseMatrix(*edges, (n_users, n_items), persistent=False)
        edges = rows[~of_user] - n_users, cols[~of_user], values[~of_user]
        self.item_means = SparseMatrix(*edges, (n_items, n_users), persistent=False)
        self.first_users, self.first_items = nn.ModuleDict(), nn.ModuleDict()
        for name in self.modalities:
            if not self.train_tables:
                self.first_users[name] = FirstVectors(*self._first_users(name))
            if name not in self.projections:
                self.first_items[name] = FirstVectors(*self._first_items(name))

    def _first_users(self, name: str) -> tuple[Tensor, Tensor]:
        """x_m^0 of users ``(n_users, w)``, and its means over the users of an item."""
        if name in self.first_users:
            return self.first_users[name].vectors, self.first_users[name].means
        vectors = unit_rows(self.preferences[name])
        return vectors, self.item_means @ vectors

    def _first_items(self, name: str) -> tuple[Any, Any]:
        """x_m^0 of items ``(n_items, w)``, and its means over the items of a user.

        Both are tensors or :class:`Factors`.
        """
        if name in self.first_items:
            return self.first_items[name].vectors, self.first_items[name].means
        features = self.features[name]
        if name in self.projections:
            projection = self.projections[name]
            projected = projection(features)
            if features.shape[1] < projected.shape[1] and self.n_ui_layers > 1:
                # Rows of [X | 1] W, scaled to unit length. The narrow factor [X | 1] passes M.
                weight = torch.cat([projection.weight.T, projection.bias[None]])
                scale = torch.linalg.vector_norm(projected, dim=1, keepdim=True).clamp(min=1e-12)
                narrow = F.pad(features, (0, 1), value=1.0) / scale
                return Factors(narrow, weight), Factors(self.user_means @ narrow, weight)
            features = projected
        vectors = unit_rows(features)
        return vectors, self.user_means @ vectors

    def _propagate(self, *ids: Tensor) -> list[Tensor]:
        """Vectors z of all users ``(n_users, d)`` and of all items, or of those with these ids.

        Only the given nodes pass the last layer, since no neighbour reads its output.
        """
        users, items = {}, {}  # name -> their vectors, and the means of their neighbours' vectors
        for name in self.modalities:
            user_vectors, item_means = self._first_users(name)
            item_vectors, user_means = self._first_items(name)
            users[name], items[name] = (user_vectors, user_means), (item_vectors, item_means)
        identities = [self.user_embedding, self.item_embedding]
        connected = list(self.connected.split([self.n_users, self.n_items]))
        *earlier_layers, last_layers = self.layers
        for layers in earlier_layers:
            vectors = []
            for side, e, c in zip((users, items), identities, connected):
                outputs = [layer(*side[name], e, c) for name, layer in layers.items()]
                vectors.append(torch.cat(outputs, dim=1))
            # Plain: a product with M for each modality. Here one product serves all of them.
            means = self.user_means @ vectors[1], self.item_means @ vectors[0]
            for side, joined_vectors, joined_means in zip((users, items), vectors, means):
                parts = zip(joined_vectors.chunk(len(side), 1), joined_means.chunk(len(side), 1))
                side.update(zip(side, parts))
        found = []
        for number, (side, e, c) in enumerate(zip((users, items), identities, connected)):
            if ids:
                e, c = rows(e, ids[number]), rows(c, ids[number])
            outputs = []
            for name, layer in last_layers.items():
                inputs = side[name]
                if ids:
                    inputs = tuple(rows(x, ids[number]) for x in inputs)
                outputs.append(layer(*inputs, e, c))
            found.append(torch.stack(outputs).mean(dim=0))
        return found


class Layer(nn.Module):
    """One layer of one modality, from width w to width d.

    Args:
        width: w.
        size: d.
        unit_mean: whether the aggregation has a bias and is scaled to unit length.
    """

    def __init__(self, width: int, size: int, unit_mean: bool) -> None:
        """Create W_1 (and b_1), W_2, W_3 and their biases."""
        super().__init__()
        self.aggregation = nn.Parameter(nn.init.xavier_normal_(torch.empty(width, width)))  # W_1
        self.aggregation_bias = nn.Parameter(torch.zeros(width)) if unit_mean else None  # b_1
        self.own = nn.Linear(width, size)  # W_2, b_2
        nn.init.xavier_normal_(self.own.weight)
        self.combination = nn.Linear(width + size, size)  # W_3, b_3

    def forward(self, x: Tensor, means: Tensor, identities: Tensor, connected: Tensor) -> Tensor:
        """Vectors of the next layer, shape ``(n, d)``.

        Args:
            x: vectors of n nodes, shape ``(n, w)``, a tensor or :class:`Factors`.
            means: M x, the means of their neighbours' vectors, likewise.
            identities: e, shape ``(n, d)``.
            connected: 1 where a node has neighbours, else 0, shape ``(n, 1)``.
        """
        return self.combine(self.aggregate(means, connected), x, identities)

    def aggregate(self, means: Tensor, connected: Tensor) -> Tensor:
        """h, shape ``(n, w)``."""
        # M (x W_1 + b_1) = (M x) W_1 + b_1 where a node has neighbours, and zero elsewhere.
        h = means @ self.aggregation
        if self.aggregation_bias is None:
            return F.leaky_relu(h, inplace=True)
        return F.leaky_relu(unit_rows(h + connected * self.aggregation_bias))

    def combine(self, h: Tensor, x: Tensor, identities: Tensor) -> Tensor:
        """The next layer's vectors, shape ``(n, d)``."""
        own = (x @ self.own.weight.T).add_(self.own.bias)
        s = F.leaky_relu(own, inplace=True) + identities
        # [h | s] W_3 as a sum of two products
        of_h, of_s = self.combination.weight.split([h.shape[1], s.shape[1]], dim=1)
        product = F.linear(s, of_s, self.combination.bias).addmm_(h, of_h.T)
        return F.leaky_relu(product, inplace=True)


class Preferences(nn.Module):
    """P_m: one table ``(n_users, width)`` a modality, random, trained or constant."""

    def add(self, name: str, n_users: int, width: int, trained: bool) -> None:
        """Create the table of the modality ``name``; its padding row is zero."""
        table = torch.zeros(n_users, width)
        nn.init.xavier_normal_(table[1:])
        _register(self, name, table, trained)

    def __getitem__(self, name: str) -> Tensor:
        """Return the table of the modality ``name``."""
        table: Tensor = getattr(self, name)
        return table


class Factors(NamedTuple):
    """The matrix ``left @ right``, which its product with another one does not build."""

    left: Tensor
    right: Tensor

    def __matmul__(self, other: Tensor) -> Tensor:
        """Multiply by ``other``; right @ other is the small product."""
        return self.left @ (self.right @ other)


class FirstVectors(nn.Module):
    """x_m^0 of users or items and the means of it, as constants that a checkpoint does without."""

    vectors: Tensor
    means: Tensor

    def __init__(self, vectors: Tensor, means: Tensor) -> None:
        """Store both, of the same width."""
        super().__init__()
        self.register_buffer("vectors", vectors, persistent=False)
        self.register_buffer("means", means, persistent=False)


def _register(module: nn.Module, name: str, table: Tensor, trained: bool) -> None:
    """Make ``table`` a parameter of the module if it is trained, else a buffer."""
    if trained:
        module.register_parameter(name, nn.Parameter(table))
    else:
        module.register_buffer(name, table)
