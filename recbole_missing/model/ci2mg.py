"""CI2MG: hypergraphs and optimal transport generate an item vector for each modality.

Paper:   Lin, Tan, Zhan et al., "Contrastive Intra- and Inter-Modality Generation for Enhancing
         Incomplete Multimedia Recommendation", ACM MM 2023,
         https://dl.acm.org/doi/proceedings/10.1145/3581783
Code:    https://github.com/ptkjw1997/DGMRec, src/models/ci2mg.py, cd8f00d (read for facts; no code
         of the authors was found)
Follows: that code. Each modality is coupled with the sum of all others, and the coupling averages
         the modality's own items. With one modality there is no transport: the inter-modality
         vectors are the intra-modality ones.
Quirks:  Similarities to prototypes keep their sign, so a degree in the hypergraph may be negative
         or close to zero. The coupling of a first modality to a second is not the transpose of
         the coupling of the second to the first. All modalities share one batch normalisation. It
         cancels the biases of the decoders, so these drift at random.
         The released contrast compares a pair of vectors with itself. It is the constant ln 2 for
         each modality (`contrast: same_pair`). `contrast: other_items` departs from the release:
         it is InfoNCE between an item's intra- and inter-modality vector, with the other
         positives of the batch as negatives. From the third modality on, the release runs the
         losses over the items that have the second one (`loss_items: released`).
         New items enter hypergraph, coupling and normalisation in evaluation only. They have no
         interactions, so all of them get the same vectors.
Needs:   User-item graph. The features are constant. Every batch couples all items with all items:
         its time, but not its memory, grows with the square of their number.
Missing: Works on imputed features. The decoders learn from observed features only. An item is
         scored by its decoded vector, not by its imputed features.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from recbole_missing.config.constraints import Choice, Float, Int
from recbole_missing.graph.normalise import row_mean_norm
from recbole_missing.model.base import MultimodalRecommender
from recbole_missing.nn.distinct import Distinct, distinct, shares
from recbole_missing.nn.layers import FrozenFeatures, rows, unit_rows, xavier_table
from recbole_missing.nn.losses import bpr_loss, info_nce
from recbole_missing.nn.transport import mutual_transport, transport

# The model in formulas, in the order of the computation. M_u (user_mean_graph) takes the mean over
# a user's items, M_i (item_mean_graph) the mean over an item's users. X_m: features of modality m.
# n(.) scales rows to unit length. [a | b] puts vectors side by side.
#
#   identities       E_u^0, E_i^0: the tables;  E_u^l = M_u E_i^(l-1),  E_i^l = M_i E_u^(l-1)
#                    E = mean over l = 0..n_ui_layers of E^l                      -> _identities
#   projection       P_m   = X_m W_m + b_m                                        -> projections
#   two-hop means    U_m   = M_u P_m (users),  A_m = M_i U_m (items)              -> _two_hop_means
#   incidence        H_m   = n(A_m) n(C_m)^T, C_m the prototypes                  -> _intra
#                    D_v, D_e: diagonal, row and column sums of H_m, one where a sum is zero
#   intra-modality   Y_m   = A_m at first; n_hyper_layers times:
#                    Y_m   = sigmoid(D_v^-1 H_m V_m D_e^-1 H_m^T Y_m)              -> _intra
#   inter-modality   O_m   = sum of Y over the other modalities                   -> _inter
#                    Z_m   = S(O_m, Y_m) Y_m, S the entropic coupling of rows     -> nn.transport
#   generation       G_m   = batchnorm([Y_m | Z_m] B_m + c_m)                     -> decoders, norm
#   final vectors    users [E_u | n(U_1) | ... | n(U_M)]                          -> final_vectors
#                    items [E_i | n(G_1) | ... | n(G_M)]
#   score            their inner product
#
#   loss             sum_m mean of (G_m - P_m)^2 over items and entries           -> _reconstruction
#                    + cl_weight (sum_m contrast of Y_m and Z_m)                  -> _contrast
#                    + bpr_weight (mean of -log sigmoid(score difference))        -> bpr_loss
#                    The first two run over the distinct positives of _loss_items.


class ModalityVectors(NamedTuple):
    """Vectors of each modality: name -> ``(n_users, d)`` for users, else ``(n_items, d)``."""

    users: dict[str, Tensor]  # U
    projected: dict[str, Tensor]  # P
    intra: dict[str, Tensor]  # Y
    inter: dict[str, Tensor]  # Z
    generated: dict[str, Tensor]  # G


class CI2MG(MultimodalRecommender):
    """Identity vectors beside one generated vector a modality, ``(1 + M) d`` wide.

    The formulas stand above this class.
    """

    new_features_ignored = "An item's content comes through its users, and a new item has none."
    hyperparameters = {
        "embedding_size": Int(min=1),  # d, width of identities and of each modality's vectors
        "n_ui_layers": Int(min=0),  # products of the identities with the mean graphs
        "n_hyper_layers": Int(min=0),  # passes through the hypergraph of a modality
        "n_prototypes": Int(min=1),  # p, hyperedges of a modality
        "transport_width": Float(min=1e-2),  # divides squared distances in the coupling
        "transport_iterations": Int(min=1),  # Sinkhorn iterations of the coupling
        "bpr_weight": Float(min=0),  # of BPR beside the reconstruction
        "cl_weight": Float(min=0),  # of the contrast
        "temperature": Float(min=1e-6),  # of the contrast, without effect on same_pair
        "contrast": Choice("same_pair", "other_items"),  # the released constant, or InfoNCE
        "loss_items": Choice("own", "released"),  # see _loss_items
    }
    items_in_evaluation: Tensor
    items_in_training: Tensor

    def __init__(self, config: Any, dataset: Any) -> None:
        """Create tables, the parameters of each modality, and the two mean graphs."""
        super().__init__(config, dataset)
        size = self.embedding_size
        self.user_embedding = xavier_table(self.n_users, size)
        self.item_embedding = xavier_table(self.n_items, size)
        self.features = FrozenFeatures(self.modalities)
        self.projections, self.decoders = nn.ModuleDict(), nn.ModuleDict()  # W, b and B, c
        self.prototypes, self.mixings = nn.ParameterDict(), nn.ParameterDict()  # C and V
        for name, modality in self.modalities.items():
            self._create_parameters(name, modality.dim)
        self.norm = nn.BatchNorm1d(size)
        interactions = self.user_item_matrix(dataset)
        self.user_mean_graph = row_mean_norm(interactions)  # M_u
        self.item_mean_graph = row_mean_norm(interactions.transposed())  # M_i
        real = torch.arange(1, self.n_items, device=self.new_items.device)
        self.register_buffer("items_in_evaluation", real)
        self.register_buffer("items_in_training", real[~self.new_items[1:]])

    def encode(self) -> tuple[Tensor, Tensor]:
        """Users ``(n_users, (1 + M) d)`` and items of the same width."""
        users, items = self._tables(self._modality_vectors())
        return final_vectors(users), final_vectors(items)

    def loss_terms(self, interaction: Any) -> dict[str, Tensor]:
        """Reconstruction of observed projections, the contrast, and BPR."""
        user_ids, positive_ids, negative_ids = self.batch(interaction)
        vectors = self._modality_vectors()
        loss_items = self._loss_items(positive_ids)
        users, items = self._tables(vectors)
        final = []  # of the batch's rows alone
        for tables, ids in ((users, user_ids), (items, positive_ids), (items, negative_ids)):
            final.append(final_vectors([rows(table, ids) for table in tables]))
        return {
            "rec": self._reconstruction(vectors, loss_items),
            "cl": self.cl_weight * self._contrast(vectors, loss_items),
            "bpr": self.bpr_weight * bpr_loss(*final),
        }

    def _create_parameters(self, name: str, dim: int) -> None:
        """Create the parameters of a modality with ``dim`` features."""
        size, p = self.embedding_size, self.n_prototypes
        self.projections[name] = nn.Linear(dim, size)
        self.decoders[name] = nn.Linear(2 * size, size)
        bound = p**-0.5  # torch's default for a linear map of p inputs
        self.mixings[name] = nn.Parameter(torch.empty(p, p).uniform_(-bound, bound))
        self.prototypes[name] = nn.Parameter(torch.empty(p, size))
        nn.init.xavier_uniform_(self.projections[name].weight)
        nn.init.xavier_uniform_(self.decoders[name].weight)
        nn.init.xavier_uniform_(self.prototypes[name])

    def _modality_vectors(self) -> ModalityVectors:
        """Vectors of all users and items in each modality.

        New items take no part while the model trains. The padding item never does. The rows of
        both are zero in ``intra``, ``inter`` and ``generated``.
        """
        items = self.items_in_training if self.training else self.items_in_evaluation
        projected = {}
        for name, projection in self.projections.items():
            projected[name] = projection(self.features[name])
        users, means = self._two_hop_means(projected)
        intra = {}
        for name, mean in means.items():
            intra[name] = self._intra(name, mean[items])
        inter = self._inter(intra)
        tables = ModalityVectors(users, projected, intra={}, inter={}, generated={})
        for name, decoder in self.decoders.items():
            generated = self.norm(decoder(torch.cat([intra[name], inter[name]], dim=1)))
            tables.intra[name] = self._table(items, intra[name])
            tables.inter[name] = self._table(items, inter[name])
            tables.generated[name] = self._table(items, generated)
        return tables

    def _two_hop_means(
        self, projected: dict[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Means U of a user's items, and means A over an item's users of these."""
        # Plain form, for each modality: U = M_u P, A = M_i U. Here the modalities lie side by
        # side, so that one sparse product serves all of them.
        users = self.user_mean_graph @ torch.cat(list(projected.values()), dim=1)
        items = self.item_mean_graph @ users
        n_modalities = len(projected)
        by_user = dict(zip(projected, users.chunk(n_modalities, dim=1)))
        return by_user, dict(zip(projected, items.chunk(n_modalities, dim=1)))

    def _intra(self, name: str, items: Tensor) -> Tensor:
        """Pass ``items (n, d)`` through the hypergraph of a modality."""
        prototypes = unit_rows(self.prototypes[name])
        incidence = unit_rows(items) @ prototypes.T  # H, (n, p)
        node_degrees = _without_zeros(incidence.sum(dim=1, keepdim=True))  # D_v, (n, 1)
        edge_degrees = _without_zeros(incidence.sum(dim=0)[:, None])  # D_e, (p, 1)
        for _ in range(self.n_hyper_layers):
            # Plain form: sigmoid((D_v^-1 H V D_e^-1 H^T) items) with an n x n matrix. Taken from
            # the right, no product is larger than n x p.
            on_edges = (incidence.T @ items) / edge_degrees
            items = (incidence @ (self.mixings[name] @ on_edges) / node_degrees).sigmoid()
        return items

    def _inter(self, intra: dict[str, Tensor]) -> dict[str, Tensor]:
        """Average the items of each modality by its coupling with the sum of the others."""
        options = self.transport_width, self.transport_iterations
        if len(intra) == 1:
            return intra
        if len(intra) == 2:  # the general case below, for half the work: both share one kernel
            (first, first_items), (second, second_items) = intra.items()
            of_second, of_first = mutual_transport(first_items, second_items, *options)
            return {first: of_first, second: of_second}
        inter = {}
        for name, items in intra.items():
            others = torch.stack([intra[other] for other in intra if other != name]).sum(dim=0)
            inter[name] = transport(others, items, *options)
        return inter

    def _table(self, items: Tensor, vectors: Tensor) -> Tensor:
        """Put ``vectors (n, d)`` into the rows ``items (n,)`` of a table ``(n_items, d)``."""
        return vectors.new_zeros(self.n_items, vectors.shape[1]).index_copy(0, items, vectors)

    def _tables(self, vectors: ModalityVectors) -> tuple[list[Tensor], list[Tensor]]:
        """Tables that :func:`final_vectors` joins, of users and of items."""
        users, items = self._identities()
        names = self.modalities
        return (
            [users, *(vectors.users[name] for name in names)],
            [items, *(vectors.generated[name] for name in names)],
        )

    def _identities(self) -> tuple[Tensor, Tensor]:
        """Identity vectors of users and items: means over the layers of propagation."""
        user_layers, item_layers = [self.user_embedding], [self.item_embedding]
        for layer in range(self.n_ui_layers):
            user_layers.append(self.user_mean_graph @ item_layers[layer])
            item_layers.append(self.item_mean_graph @ user_layers[layer])
        return torch.stack(user_layers).mean(dim=0), torch.stack(item_layers).mean(dim=0)

    def _loss_items(self, positive_ids: Tensor) -> dict[str, Distinct]:
        """Distinct positives over which reconstruction and contrast of each modality run.

        ``own``: those that truly have the modality. ``released``: from the third modality on,
        those that have the second one, as in the release.
        """
        items = distinct(positive_ids).once()
        chosen = {}
        for position, name in enumerate(self.modalities):
            released = self.loss_items == "released"
            column = min(position, 1) if released else position
            chosen[name] = items.where(self.observed[items.ids, column])
        return chosen

    def _reconstruction(self, vectors: ModalityVectors, items: dict[str, Distinct]) -> Tensor:
        """Mean squared error of the generated vectors, summed over modalities."""
        total = self.item_embedding.new_zeros(())
        for name, of in items.items():
            gap = rows(vectors.generated[name], of.ids) - rows(vectors.projected[name], of.ids)
            total = total + shares(of.like(gap).counts) @ gap.square().mean(dim=1)
        return total

    def _contrast(self, vectors: ModalityVectors, items: dict[str, Distinct]) -> Tensor:
        """Contrast of intra- and inter-modality vectors, mean over items, sum over modalities."""
        total = self.item_embedding.new_zeros(())
        for name, of in items.items():
            if self.contrast == "other_items":
                intra, inter = rows(vectors.intra[name], of.ids), rows(vectors.inter[name], of.ids)
                total = total + info_nce(intra, inter, self.temperature, of)
            else:
                # Plain form: -log(a / (a + a)) with a = exp(cos(y, z) / temperature) for each item.
                total = total + math.log(2.0) * of.counts.sum().clamp(max=1)
        return total


def final_vectors(tables: list[Tensor]) -> Tensor:
    """Join identities and the directions of the modalities' vectors.

    Args:
        tables: identities first, then one table for each modality, each ``(n, d)``.

    Returns:
        Shape ``(n, (1 + M) d)``.
    """
    identities, *others = tables
    return torch.cat([identities, *(unit_rows(x) for x in others)], dim=1)


def _without_zeros(sums: Tensor) -> Tensor:
    """Degrees, with one where a sum is exactly zero."""
    return torch.where(sums == 0, torch.ones_like(sums), sums)
