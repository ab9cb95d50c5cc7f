"""DGMRec: splits each modality into a general and a specific part, and generates missing ones.

Paper:   Kim, Kang, Kim, Kim and Park, "Disentangling and Generating Modalities for Recommendation
         in Missing Modality Scenarios", SIGIR 2025, https://arxiv.org/abs/2504.16352
Code:    https://github.com/ptkjw1997/DGMRec, src/models/dgmrec.py, src/utils/mi_estimator.py,
         branch main (extended version of the paper), cd8f00d (read for facts)
Follows: code. The gate of an item is the mean of tanh(W_m e_u) over its users. Both parts of a
         modality have the same gate.
Quirks:  Scores use the kNN graphs of the construction. The refresh reaches the training graphs
         only (the conference code also refreshes the graphs of the scores:
         `score_on_refreshed_graph`).
         The feature tables are trained, and they are the targets of the reconstruction.
         The second intra-modal term uses the inter-modal temperature.
         The general part is translated from propagated parts in the loss and from raw parts when
         features are generated. CLUB is fitted to raw parts and applied to propagated ones.
         Features are generated only for items that lack exactly one modality.
         The release makes exceptions from the third modality on: it has no CLUB term and no
         inter-modal term of users, and its intra-modal term compares general parts. With three
         modalities or more, the refresh covers the generated rows only. All of this ends with
         `treat_modalities_alike`.
         With new items, the training graphs isolate the new items, but they link rows that were
         imputed with the mean. Refreshed rows may choose new items as neighbours.
Needs:   User-item graph, kNN graphs, a second optimiser (CLUB); trains the feature tables.
Missing: Generates missing features once an epoch. A missing modality is no target of the
         inter-modal and the generation terms; the reconstruction covers every row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from dataclasses import replace
from functools import cached_property, reduce
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from recbole_missing.config.constraints import Bool, Choice, Float, Int
from recbole_missing.graph.knn import KNN_MISSING, knn_graph
from recbole_missing.graph.normalise import row_mean_norm, row_sum_norm, symmetric_norm
from recbole_missing.graph.sparse import blend_rows, light_gcn, propagate
from recbole_missing.model.base import MultimodalRecommender
from recbole_missing.nn.club import ClubEstimator
from recbole_missing.nn.distinct import Distinct, distinct, shares
from recbole_missing.nn.layers import perturb, row_blocks, rows, trained_features, xavier_table
from recbole_missing.nn.losses import bpr_loss, info_nce

CLUB_STEPS = 5  # steps of the CLUB estimators before an epoch
CLUB_ROWS = 2048  # items that one of these steps looks at
EPOCHS_PER_REFRESH = 5
ID_REG_WEIGHT = 1e-5  # weight of the norms of the collaborative vectors

# The model in formulas. There are M modalities m. R is the binary training matrix, D_u and D_i are
# the diagonal matrices of its row and column sums. "*" multiplies entry by entry, [a ; b] puts
# columns side by side, Lin is a linear layer with bias. Every loss is a mean over its rows.
#
#   Item features        X_m                         (n_items, dim_m)   -> self.features[name]
#   Identities           E_u, E_i                    -> self.user_embedding, self.item_embedding
#
# Forward
#   Collaborative        Z_0 = [E_u ; E_i] by rows, Z_l+1 = D^-1/2 A D^-1/2 Z_l, A the graph of R,
#                        z_u, z_i = mean of Z_0 .. Z_L          -> light_gcn, self._collaborative
#   General part         g_m = sigmoid(Lin_shared(tanh(Lin_m(X_m))))         -> self._disentangled
#   Specific part        s_m = sigmoid(Lin'_m(X_m))                          -> self._disentangled
#   Gate                 p_m = D_i^-1 R^T tanh(E_u W_m^T)                        -> self._gates
#   Propagation          G_m = A_m^L (p_m * g_m),  S_m = A_m^L (p_m * s_m),
#                        A_m the kNN graph of modality m                         -> self._propagated
#   Users                G_m of users = D_u^-1 R G_m,  S_m in the same way     -> Parts.averaged
#   Fusion               user, item = z + (mean_m G_m + sum_m S_m) / (M + 1)     -> Nodes.fused
#   Score                <user, item>
#
# Losses of a batch of triples (u, p, n); A: its distinct items, A_m: those that have modality m,
# A_all: those that have all; NCE(a, b): InfoNCE from rows of a to rows of b, where a batch repeats
# users and items (the code computes with the distinct ones and how often they occur, see Batch);
# noise(x) = x + 0.1 sign(x) * v / |v|, v uniform on [0, 1)                      -> perturb
#   L_bpr   = -log sigmoid(<user_u, item_p> - <user_u, item_n>)                 -> self._bpr
#   L_reg   = (1e-5 (|z_u| + |z_p| + |z_n|) + reg_weight sum_m |G_m[p] + S_m[p]|) / batch, with
#             Frobenius norms, not squared                                       -> self._norms
#   L_club  = sum_m CLUB_m(S_m, G_m) over all items                              -> self._club
#   L_inter = sum_(m, m') NCE(g_m[A_all], g_m'[A_all]) + NCE(G_m[u], G_m'[u]) over the pairs
#             (1, 2), (2, 3), ..., (M, 1); one pair for M = 2                   -> self._inter_modal
#   L_intra = NCE(z_u, z_p) + NCE(sum_m G_m[u], sum_m G_m[p]) + sum_m NCE(S_m[u], S_m[p])
#                                                                               -> self._intra_modal
#   L_recon = sum_m |Dec_m(noise([G_m ; S_m])) - X_m|^2 over all items, mean over the entries; no
#             gradient to G_m and S_m                                      -> self._reconstruction
#   L_gen   = sum_m |Tr_m(noise([G_m' of the others])) - G_m|^2 over A_all
#           + sum_m |Gen_m(noise(p_m)) - s_m|^2 over A_m                         -> self._generation
#   L_align = NCE(z_p, sum_m G_m[p]) + NCE(z_u, sum_m G_m[u])                    -> self._alignment
#   Gen_m and Tr_m are Lin(tanh(Lin(x))), Dec_m is Lin                           -> ModalityNetwork
#   loss    = L_bpr + L_reg + the other ones, each times its weight              -> self.loss_terms
#
# Before each epoch                                                           -> on_epoch_start
#   1. Fit CLUB_m to (s_m, g_m) of sampled items: 5 steps of the second optimiser -> self._fit_clubs
#   2. X_m = Dec_m(noise([A_m^L Tr_m([g_m' of the others]) ; A_m^L Gen_m(p_m)])) in the rows of
#      items that lack m alone                      -> self._generated_parts, self._write_features
#   3. Every fifth epoch, rows of items that lack m: A_m = avg_lambda * kNN(X_m)
#      + (1 - avg_lambda) * A_m                                           -> self._refresh_graphs


class ModalityNetwork(nn.Module):
    """Layers of one modality.

    Args:
        dim: number of its features.
        size: width d of a part.
        others: names of the other modalities, in the cyclic order that begins after this one.
    """

    def __init__(self, dim: int, size: int, others: Sequence[str]) -> None:
        """Create the layers; a modality without others has no translator."""
        super().__init__()
        self.others = others
        self.encoder = nn.Linear(dim, 2 * size)  # Lin_m and Lin'_m in one product
        self.gate = nn.Linear(size, size, bias=False)
        self.decoder = nn.Linear(2 * size, dim)
        self.generator = _two_layers(size, size)
        self.translator = _two_layers(len(others) * size, size) if others else None


def _two_layers(n_in: int, size: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(n_in, size), nn.Tanh(), nn.Linear(size, size))


class Parts:
    """Parts of n items or of n users.

    Args:
        both: name of a modality -> ``(n, 2 d)``, general and specific part side by side.

    Attributes:
        general, specific: name -> ``(n, d)``.
    """

    def __init__(self, both: Mapping[str, Tensor]) -> None:
        """Name the halves."""
        self.both = both
        self.general: dict[str, Tensor] = {}
        self.specific: dict[str, Tensor] = {}
        for name, block in both.items():
            self.general[name], self.specific[name] = block.chunk(2, dim=1)

    def rows(self, ids: Tensor) -> Parts:
        """Parts of the items or users ``ids``."""
        return Parts({name: rows(block, ids) for name, block in self.both.items()})

    def averaged(self, graph: Any) -> Parts:
        """``graph`` times the parts."""
        return Parts({name: graph @ block for name, block in self.both.items()})


class Nodes:
    """Items or users: collaborative vectors ``z (n, d)`` and propagated ``parts``."""

    def __init__(self, z: Tensor, parts: Parts) -> None:
        """Store them."""
        self.z = z
        self.parts = parts

    def rows(self, ids: Tensor) -> Nodes:
        """Return the nodes ``ids``."""
        return Nodes(rows(self.z, ids), self.parts.rows(ids))

    @cached_property
    def general(self) -> Tensor:
        """Sum of the general parts over the modalities, ``(n, d)``."""
        return self._sums[0]

    @cached_property
    def fused(self) -> Tensor:
        """Vectors that the scores come from, ``(n, d)``."""
        count, (general, specific) = len(self.parts.both), self._sums
        return self.z + (general / count + specific) / (count + 1)

    @cached_property
    def _sums(self) -> tuple[Tensor, ...]:
        return reduce(torch.add, self.parts.both.values()).chunk(2, dim=1)


class Batch:
    """A batch of triples in terms of its distinct nodes.

    Args:
        user_ids: u of the triples.
        item_ids: first p, then n of the triples.
        users: the nodes ``user_ids.ids``.
        items: the nodes ``item_ids.ids``.

    Attributes:
        size: number of triples.
        positive_ids: p of the triples, as places in ``items``.
        positives: the nodes ``positive_ids.ids``.
    """

    def __init__(self, user_ids: Distinct, item_ids: Distinct, users: Nodes, items: Nodes) -> None:
        """Take the positives out of the items."""
        self.user_ids, self.users = user_ids, users
        self.item_ids, self.items = item_ids, items
        assert item_ids.numbers is not None, "p and n of every triple"
        self.size = len(item_ids.numbers) // 2
        self.positive_ids = distinct(item_ids.numbers[: self.size])
        self.positives = items.rows(self.positive_ids.ids)


class DGMRec(MultimodalRecommender):
    """Disentangling and generating modalities; the formulas stand above."""

    hyperparameters = {
        "embedding_size": Int(min=1),  # d
        "n_ui_layers": Int(min=0),  # L of the collaborative vectors
        "n_mm_layers": Int(min=0),  # L of the propagation
        "knn_k": Int(min=1),  # neighbours of an item in A_m, the item itself among them
        "knn_missing": Choice(*KNN_MISSING),  # what A_m does with items that lack m
        "reg_weight": Float(min=0),  # of the parts in L_reg
        "club_weight": Float(min=0),
        "inter_modal_weight": Float(min=0),
        "inter_modal_temperature": Float(min=1e-6),  # also of the second term of L_intra
        "intra_modal_weight": Float(min=0),
        "intra_modal_temperature": Float(min=1e-6),
        "recon_weight": Float(min=0),
        "generation_weight": Float(min=0),
        "align_weight": Float(min=0),
        "align_temperature": Float(min=1e-6),
        "avg_lambda": Float(min=0, max=1),  # share of the new graph in refreshed rows
        "refresh_inference_graph": Bool(),  # rows of new items, before validation
        "score_on_refreshed_graph": Bool(),  # the refresh reaches the graphs of the scores, too
        "treat_modalities_alike": Bool(),  # no exceptions from the third modality on
    }
    new_items_in_training: ClassVar[dict[str, str]] = {
        "recon": "The reconstruction covers every row of the feature tables.",
        "club": "The estimators are fitted to raw parts of all items, new ones among them.",
        "users": "Vectors of both modes come from the inference graphs, losses from others.",
        "items": "As for users.",
    }

    def __init__(self, config: Any, dataset: Any) -> None:
        """Create parameters and graphs, and note which rows are generated and refreshed."""
        super().__init__(config, dataset)
        names, count = list(self.modalities), len(self.modalities)
        self.regular = names if self.treat_modalities_alike else names[:2]  # no exceptions here
        following = names[1:] + names[:1]
        self.pairs = list(zip(names, following if count > 2 else names[1:]))
        self._build_parameters(names)
        self._build_graphs(dataset)
        missing = torch.stack([modality.missing for modality in self.modalities.values()], dim=1)
        self.anything_missing = bool(missing.any())
        most = max(count - 1, 1) if self.treat_modalities_alike else 1
        generated = missing & (missing.sum(dim=1, keepdim=True) <= most)
        self.register_buffer("generated", generated)  # both bool (n_items, M)
        self.register_buffer("refreshed", missing if len(self.regular) == count else generated)
        self.register_buffer("epochs_started", torch.zeros((), dtype=torch.long))

    def _build_parameters(self, names: list[str]) -> None:
        size = self.embedding_size
        self.user_embedding = xavier_table(self.n_users, size)
        self.item_embedding = xavier_table(self.n_items, size)
        self.shared_encoder = nn.Linear(size, size)
        self.features = trained_features(self.modalities)
        self.networks = nn.ModuleDict()
        for j, (name, modality) in enumerate(self.modalities.items()):
            others = names[j + 1 :] + names[:j]
            self.networks[name] = ModalityNetwork(modality.dim, size, others)
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
        for network in self.networks.values():
            for weight in network.encoder.weight.data.chunk(2):  # two layers, each with its fan
                nn.init.xavier_uniform_(weight)
        self.clubs = nn.ModuleDict()
        if self.club_weight > 0:
            for name in self.regular:
                self.clubs[name] = ClubEstimator(size)

    def _build_graphs(self, dataset: Any) -> None:
        interactions = self.user_item_matrix(dataset)
        self.user_item_graph = symmetric_norm(interactions)
        self.user_mean_graph = row_mean_norm(interactions)
        self.item_mean_graph = row_mean_norm(interactions.transposed())
        self.training_graphs, self.inference_graphs = nn.ModuleDict(), nn.ModuleDict()
        for name, modality in self.modalities.items():
            features, k = modality.features, self.knn_k
            observed, missing = modality.observed, self.knn_missing
            nearest = knn_graph(features, k, observed, missing, device=self.device)
            self.inference_graphs[name] = row_sum_norm(nearest)
            if self.new_items.any():
                old = ~self.new_items
                nearest = knn_graph(features, k, old, "isolated", device=self.device)
            self.training_graphs[name] = row_sum_norm(nearest)

    # ------------------------------------------------------------------------- once an epoch

    def auxiliary_parameters(self) -> Iterable[nn.Parameter]:
        """Parameters of the CLUB estimators."""
        return self.clubs.parameters()

    def on_epoch_start(self, minimise: Callable[[Tensor], None]) -> None:
        """Fit the estimators, generate missing features, refresh the graphs every fifth time."""
        self.epochs_started += 1
        with torch.no_grad():
            gates = self._gates()
            raw, _ = self._disentangled(gates)
        self._fit_clubs(raw, minimise)
        old = ~self.new_items
        parts = self._generated_parts(raw, gates, self.training_graphs)
        self._write_features(self.features, parts, self.generated & old[:, None])
        self._refresh_graphs(self.training_graphs, old)
        if self.score_on_refreshed_graph:
            self._refresh_graphs(self.inference_graphs, old)

    @torch.no_grad()
    def on_validation_start(self) -> None:
        """Do the same for new items: generate features, refresh rows of the inference graphs."""
        if not self.new_items.any():
            return
        gates = self._gates()
        raw, _ = self._disentangled(gates)
        parts = self._generated_parts(raw, gates, self.inference_graphs)
        self._write_features(self.features, parts, self.generated & self.new_items[:, None])
        if self.refresh_inference_graph:
            self._refresh_graphs(self.inference_graphs, self.new_items)

    @torch.no_grad()
    def completed_features(self) -> dict[str, Tensor]:
        """Feature tables as trained, with generated rows for all items that lack the modality.

        Training generates only a part of the missing rows (in the release: those of items that
        lack one modality). The other ones are generated here, in the same way but without noise.
        Scores do not use these: they work with the imputed row, as training has changed it.
        """
        tables = {name: table.detach().clone() for name, table in self.features.items()}
        gates = self._gates()
        raw, _ = self._disentangled(gates)
        parts = self._generated_parts(raw, gates, self.inference_graphs)
        left = ~(self.observed | self.generated)
        left[0] = False
        self._write_features(tables, parts, left, noisy=False)
        return tables

    @torch.no_grad()
    def retrieval_spaces(
        self, features: Mapping[str, Tensor]
    ) -> dict[str, dict[str, tuple[Tensor, Tensor]]]:
        """Generated parts compared with those of ``features``, and features from gated parts.

        Returns:
            ``general part`` and ``specific part``: Tr_m([g_m' of the others]) with g_m, and
            Gen_m(p_m) with s_m, both before gate and graph. ``gated parts``: [G_m ; S_m] of
            :meth:`completed_features` with those of ``features``; both sides contain p_m, so an
            item is found whatever its features are. ``features from gated parts``:
            Dec_m([Tr_m([G_m' of the others]) ; A_m^L (p_m * Gen_m(p_m))]) with ``features``: the
            decoder reads what it was trained on, which it does not in :meth:`completed_features`.
        """
        gates = self._gates()
        raw, gated = self._disentangled(gates)
        made = self._made_parts(raw, gates)
        sought, sought_gated = self._disentangled(gates, tables=features)
        _, completed = self._disentangled(gates, tables=self.completed_features())
        graphs = self.inference_graphs
        known, found = self._propagated(gated, graphs), self._propagated(completed, graphs)
        wanted = self._propagated(sought_gated, graphs)
        specific = {name: gates[name] * part for name, part in made.specific.items()}
        spaces: dict[str, dict[str, tuple[Tensor, Tensor]]] = {}
        for name, network in self.networks.items():
            general = known.general[name]
            if network.translator is not None:
                general = network.translator(_others(network, known.general))
            taste = propagate(graphs[name], specific[name], self.n_mm_layers)
            decoded = network.decoder(torch.cat([general, taste], dim=1))
            pairs = {
                "general part": (made.general[name], sought.general[name]),
                "specific part": (made.specific[name], sought.specific[name]),
                "gated parts": (found.both[name], wanted.both[name]),
                "features from gated parts": (decoded, features[name]),
            }
            for space, pair in pairs.items():
                spaces.setdefault(space, {})[name] = pair
        return spaces

    def _fit_clubs(self, raw: Parts, minimise: Callable[[Tensor], None]) -> None:
        if not self.clubs:
            return
        for _ in range(CLUB_STEPS):
            order = torch.randperm(self.n_items - 1, device=self.observed.device) + 1
            sample = raw.rows(order[:CLUB_ROWS])
            loss = torch.zeros((), device=order.device)
            for name, club in self.clubs.items():
                general, specific = sample.general[name], sample.specific[name]
                loss = loss + club.negative_log_likelihood(specific, general)
            minimise(loss)

    @torch.no_grad()
    def _generated_parts(
        self, raw: Parts, gates: dict[str, Tensor], graphs: nn.ModuleDict
    ) -> Parts:
        """Propagated parts of all items, made from their other modalities and from their users."""
        return self._propagated(self._made_parts(raw, gates), graphs)

    def _made_parts(self, raw: Parts, gates: dict[str, Tensor]) -> Parts:
        """Tr_m([g_m' of the others]) and Gen_m(p_m) of all items."""
        parts = {}
        for name, network in self.networks.items():
            general, specific = raw.general[name], network.generator(gates[name])
            if network.translator is not None:
                general = network.translator(_others(network, raw.general))
            parts[name] = torch.cat([general, specific], dim=1)
        return Parts(parts)

    @torch.no_grad()
    def _write_features(
        self,
        tables: MutableMapping[str, Tensor],
        parts: Parts,
        chosen: Tensor,
        noisy: bool = True,
    ) -> None:
        """Decode ``parts`` into the ``chosen`` rows of ``tables``, bool ``(n_items, M)``."""
        for (name, network), choice in zip(self.networks.items(), chosen.unbind(dim=1)):
            ids = choice.nonzero()[:, 0]
            made = parts.both[name][ids]
            tables[name][ids] = network.decoder(perturb(made) if noisy else made)

    def _refresh_graphs(self, graphs: nn.ModuleDict, items: Tensor) -> None:
        """Every fifth epoch, blend rows of ``items (n_items,)`` with the graph of the features."""
        useful = self.anything_missing and self.avg_lambda > 0
        if self.epochs_started % EPOCHS_PER_REFRESH or not useful:
            return
        masks = zip(self.observed.unbind(dim=1), self.refreshed.unbind(dim=1))
        for (name, table), (observed, refreshed) in zip(self.features.items(), masks):
            current = row_sum_norm(knn_graph(table.detach(), self.knn_k, observed))
            chosen = refreshed & items
            graphs[name] = blend_rows(graphs[name], current, chosen, self.avg_lambda)

    # ------------------------------------------------------------------------------- forward

    def encode(self) -> tuple[Tensor, Tensor]:
        """Users ``(n_users, d)`` and items ``(n_items, d)`` on the graphs of the scores."""
        _, gated = self._disentangled(self._gates())
        users, items = self._nodes(gated, self.inference_graphs)
        return users.fused, items.fused

    def loss_terms(self, interaction: Any) -> dict[str, Tensor]:
        """The losses of the formulas; those without weight or without meaning are left out."""
        user_ids, positive_ids, negative_ids = self.batch(interaction)
        users, items = distinct(user_ids), distinct(torch.cat([positive_ids, negative_ids]))
        gates = self._gates()
        raw, gated = self._disentangled(gates, items.ids)
        parts = self._propagated(gated, self.training_graphs)
        all_users, all_items = self._collaborative()
        user_parts = parts.averaged(self.user_mean_graph).rows(users.ids)
        batch = Batch(
            users,
            items,
            Nodes(rows(all_users, users.ids), user_parts),
            Nodes(rows(all_items, items.ids), parts.rows(items.ids)),
        )
        terms = {"bpr": self._bpr(batch), "reg": self._norms(batch)}
        if self.clubs:
            terms["club"] = self.club_weight * self._club(parts)
        if self.inter_modal_weight and self.pairs:
            inter_modal = self._inter_modal(raw, batch)
            terms["inter_modal"] = self.inter_modal_weight * inter_modal
        terms["intra_modal"] = self.intra_modal_weight * self._intra_modal(batch)
        terms["recon"] = self.recon_weight * self._reconstruction(parts)
        if self.anything_missing:
            generation = self._generation(raw, gates, batch)
            terms["generation"] = self.generation_weight * generation
        terms["align"] = self.align_weight * self._alignment(batch)
        return terms

    def _nodes(self, gated: Parts, graphs: nn.ModuleDict) -> tuple[Nodes, Nodes]:
        """All users and all items."""
        user_z, item_z = self._collaborative()
        parts = self._propagated(gated, graphs)
        return Nodes(user_z, parts.averaged(self.user_mean_graph)), Nodes(item_z, parts)

    def _collaborative(self) -> tuple[Tensor, Tensor]:
        """z_u of all users and z_i of all items."""
        identities = self.user_embedding, self.item_embedding
        return light_gcn(self.user_item_graph, *identities, self.n_ui_layers)

    def _disentangled(
        self,
        gates: dict[str, Tensor],
        ids: Tensor | None = None,
        tables: Mapping[str, Tensor] | None = None,
    ) -> tuple[Parts, Parts]:
        """g_m and s_m of the items ``ids`` or of all, and p_m * g_m and p_m * s_m of all items.

        X_m are the feature tables of the model or ``tables``. Nothing reads the parts of the
        padding item.
        """
        raw, gated = {}, {}
        tables = self.features if tables is None else tables
        for name, network in self.networks.items():
            layers = *network.encoder.parameters(), *self.shared_encoder.parameters()
            applied = _Disentangling.apply(tables[name], gates[name], ids, *layers)
            raw[name], gated[name] = applied
        return Parts(raw), Parts(gated)

    def _gates(self) -> dict[str, Tensor]:
        """p_m of all items, name -> ``(n_items, d)``; items without users have zeros."""
        # p_m = D_i^-1 R^T tanh(E_u W_m^T) for each m; here all modalities share both products.
        weights = torch.cat([network.gate.weight for network in self.networks.values()])
        preferences = torch.tanh(F.linear(self.user_embedding, weights))  # (n_users, M d)
        gates = (self.item_mean_graph @ preferences).chunk(len(self.networks), dim=1)
        return dict(zip(self.networks, gates))

    def _propagated(self, gated: Parts, graphs: nn.ModuleDict) -> Parts:
        """G_m and S_m of all items."""
        layers = self.n_mm_layers
        return Parts({name: propagate(graphs[name], x, layers) for name, x in gated.both.items()})

    # -------------------------------------------------------------------------------- losses

    def _bpr(self, batch: Batch) -> Tensor:
        """L_bpr."""
        items = batch.item_ids.spread(batch.items.fused)
        return bpr_loss(batch.user_ids.spread(batch.users.fused), *items.chunk(2))

    def _norms(self, batch: Batch) -> Tensor:
        """L_reg."""
        users, positives = batch.users, batch.positives
        both = batch.item_ids.counts  # of positives and negatives
        negative_counts = both.index_add(0, batch.positive_ids.ids, -batch.positive_ids.counts)
        identities = (
            _norm(users.z, batch.user_ids.counts)
            + _norm(positives.z, batch.positive_ids.counts)
            + _norm(batch.items.z, negative_counts)
        )
        content = torch.zeros((), device=both.device)
        for name in self.modalities:
            part = positives.parts.general[name] + positives.parts.specific[name]
            content = content + _norm(part, batch.positive_ids.counts)
        return (ID_REG_WEIGHT * identities + self.reg_weight * content) / batch.size

    def _club(self, items: Parts) -> Tensor:
        """L_club, over all items but the padding one."""
        loss = torch.zeros((), device=self.observed.device)
        for name, club in self.clubs.items():
            loss = loss + club.bound(items.both[name])
        return loss

    def _inter_modal(self, raw: Parts, batch: Batch) -> Tensor:
        """L_inter: raw general parts of complete items, propagated general parts of users."""
        observed = self.observed[batch.item_ids.ids]
        places = torch.arange(len(observed), device=observed.device)
        complete = replace(batch.item_ids.once(), ids=places).where(observed.all(dim=1))
        items = {name: rows(general, complete.ids) for name, general in raw.general.items()}
        users, tau = batch.users.parts.general, self.inter_modal_temperature
        loss = torch.zeros((), device=self.observed.device)
        for one, other in self.pairs:
            loss = loss + info_nce(items[one], items[other], tau, complete)
            if one in self.regular and other in self.regular:
                loss = loss + info_nce(users[one], users[other], tau, batch.user_ids)
        return loss

    def _intra_modal(self, batch: Batch) -> Tensor:
        """L_intra: users against the positive items."""
        users, positives = batch.users, batch.positives
        ids = batch.user_ids, batch.positive_ids
        loss = info_nce(users.z, positives.z, self.intra_modal_temperature, *ids)
        general = users.general, positives.general
        loss = loss + info_nce(*general, self.inter_modal_temperature, *ids)
        for name in self.modalities:
            pair = users.parts.specific[name], positives.parts.specific[name]
            if name not in self.regular:
                pair = users.parts.general[name], positives.parts.general[name]
            loss = loss + info_nce(*pair, self.intra_modal_temperature, *ids)
        return loss

    def _reconstruction(self, items: Parts) -> Tensor:
        """L_recon, over all items but the padding one."""
        loss = torch.zeros((), device=self.observed.device)
        for name, network in self.networks.items():
            parts, features = items.both[name].detach(), self.features[name]
            loss = loss + _imitation(network.decoder, parts, features, first=1)
        return loss

    def _generation(self, raw: Parts, gates: dict[str, Tensor], batch: Batch) -> Tensor:
        """L_gen. Masks instead of shorter tables spare a GPU the wait for their lengths."""
        ids, general = batch.item_ids.ids, batch.items.parts.general
        observed = self.observed[ids] & (batch.item_ids.counts > 0)[:, None]
        complete = observed.all(dim=1)
        loss = torch.zeros((), device=ids.device)
        for (name, network), has_it in zip(self.networks.items(), observed.unbind(dim=1)):
            if network.translator is not None:
                others = _others(network, general)
                loss = loss + _imitation(network.translator, others, general[name], complete)
            gate = rows(gates[name], ids)
            loss = loss + _imitation(network.generator, gate, raw.specific[name], has_it)
        return loss

    def _alignment(self, batch: Batch) -> Tensor:
        """L_align: collaborative vectors against the general parts of the same nodes."""
        users, positives = batch.users, batch.positives
        tau = self.align_temperature
        loss = info_nce(positives.z, positives.general, tau, batch.positive_ids)
        return loss + info_nce(users.z, users.general, tau, batch.user_ids)


def _others(network: ModalityNetwork, general: dict[str, Tensor]) -> Tensor:
    """General parts of the other modalities side by side, what the translator reads."""
    return torch.cat([general[other] for other in network.others], dim=1)


def _norm(vectors: Tensor, counts: Tensor) -> Tensor:
    """Frobenius norm of a matrix in which each row of ``vectors (n, d)`` stands so many times."""
    return torch.linalg.vector_norm(vectors * counts.sqrt()[:, None])


class _Disentangling(torch.autograd.Function):
    """Raw parts of a modality and the same times the gate, in one pass over blocks of rows.

    Returns [g_m ; s_m] of the items ``ids``, or of all, and [p_m * g_m ; p_m * s_m] of all items.
    """

    @staticmethod
    def forward(
        ctx: Any, features: Tensor, gate: Tensor, ids: Tensor | None, *layers: Tensor
    ) -> tuple[Tensor, Tensor]:
        encoder, (weight, bias) = layers[:2], layers[2:]
        hidden = torch.empty_like(gate)  # tanh(Lin_m(X_m))
        raw = gate.new_empty(len(gate), 2 * gate.shape[1])
        gated = torch.empty_like(raw)
        for x, p, t, out, times_p in row_blocks(features, gate, hidden, raw, gated):
            encoded, specific = F.linear(x, *encoder).chunk(2, dim=1)
            torch.tanh(encoded, out=t)
            (to_g, to_s), results = out.chunk(2, dim=1), times_p.chunk(2, dim=1)
            torch.addmm(bias, t, weight.T, out=to_g)
            to_s.copy_(specific)
            out.sigmoid_()
            for part, result in zip((to_g, to_s), results):
                torch.mul(part, p, out=result)
        ctx.save_for_backward(features, gate, ids, hidden, raw, *layers)
        return (raw.clone() if ids is None else raw.index_select(0, ids)), gated

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, to_rows: Tensor, to_gated: Tensor) -> tuple[Tensor | None, ...]:
        features, gate, ids, hidden, raw, *layers = ctx.saved_tensors
        weight = layers[2]
        to_gate, to_features = torch.empty_like(gate), torch.empty_like(features)
        to_raw = torch.empty_like(raw)
        for p, out, to_times_p, to_p, to_out in row_blocks(gate, raw, to_gated, to_gate, to_raw):
            (g, s), (to_g, to_s) = out.chunk(2, dim=1), to_times_p.chunk(2, dim=1)
            torch.mul(to_g, g, out=to_p).addcmul_(to_s, s)
            for grad, result in zip((to_g, to_s), to_out.chunk(2, dim=1)):
                torch.mul(grad, p, out=result)
        if ids is None:
            to_raw += to_rows
        else:
            to_raw.index_add_(0, ids, to_rows)
        to_layers = [torch.zeros_like(layer) for layer in layers]
        for x, t, out, grad, to_x in row_blocks(features, hidden, raw, to_raw, to_features):
            grad.mul_(out)
            grad.addcmul_(grad, out, value=-1)  # through the sigmoid
            general = grad[:, : gate.shape[1]]
            to_layers[2].addmm_(general.T, t)
            to_layers[3] += general.sum(dim=0)
            to_t = general @ weight
            torch.addcmul(to_t, to_t, t * t, value=-1, out=general)  # through tanh
            to_layers[0].addmm_(grad.T, x)
            to_layers[1] += grad.sum(dim=0)
            torch.mm(grad, layers[0], out=to_x)
        return to_features, to_gate, None, *to_layers


def _imitation(
    network: nn.Module,
    x: Tensor,
    target: Tensor,
    counted: Tensor | None = None,
    first: int = 0,
) -> Tensor:
    """Mean of (network(noise(x)) - target)^2 over the entries of the rows that count.

    Args:
        network: Lin or Lin(tanh(Lin)).
        x, target: shapes ``(n, n_in)`` and ``(n, n_out)``.
        counted: bool ``(n,)``, the rows that count, or all. The error of no rows is zero.
        first: rows before this one are left out.
    """
    weights = target.new_ones(len(x) - first) if counted is None else counted[first:].to(target)
    weights = shares(weights)[:, None] / target.shape[1]
    error: Tensor = _Imitation.apply(x, target, weights, first, *network.parameters())
    return error


class _Imitation(torch.autograd.Function):
    """Weighted sum of squares; one pass over blocks of rows gives it and half its gradients."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, target: Tensor, weights: Tensor, first: int, *layers: Tensor
    ) -> Tensor:
        total = target.new_zeros(())
        to_x = torch.empty_like(x) if ctx.needs_input_grad[0] else x
        to_target, to_layers = (
            torch.empty_like(target),
            [torch.zeros_like(layer) for layer in layers],
        )
        to_target[:first] = 0
        if to_x is not x:
            to_x[:first] = 0
        tables = x[first:], target[first:], weights, to_x[first:], to_target[first:]
        for block, goal, weight, to_block, to_goal in row_blocks(*tables):
            inputs = [perturb(block)]  # of each Lin
            made = F.linear(inputs[0], *layers[:2])
            if len(layers) > 2:
                inputs.append(made.tanh_())
                made = F.linear(made, *layers[2:])
            gap = made.sub_(goal)
            to_made = gap * weight
            total += torch.dot(to_made.flatten(), gap.flatten())
            torch.neg(to_made, out=to_goal)
            for k in reversed(range(len(inputs))):
                to_layers[2 * k].addmm_(to_made.T, inputs[k])
                to_layers[2 * k + 1] += to_made.sum(dim=0)
                if k > 0:
                    to_made = to_made @ layers[2 * k]
                    to_made.addcmul_(to_made, inputs[k].square_(), value=-1)  # through tanh
            if to_x is not x:
                torch.mm(to_made, layers[0], out=to_block)
        ctx.save_for_backward(None if to_x is x else to_x, to_target, *to_layers)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        to_x, *others = ctx.saved_tensors
        to_target, *to_layers = (2 * grad * half for half in others)
        return None if to_x is None else 2 * grad * to_x, to_target, None, None, *to_layers
