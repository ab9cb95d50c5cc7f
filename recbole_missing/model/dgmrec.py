"""DGMRec: general and specific parts of each modality, gated by taste; missing ones are generated.

Paper:   Kim, Kim, Kim et al., "Disentangling and Generating Modalities for Recommendation in
         Missing Modality Scenarios", SIGIR 2025, https://arxiv.org/abs/2504.16352
Code:    https://github.com/ptkjw1997/DGMRec, src/models/dgmrec.py, src/utils/mi_estimator.py,
         branch main (extended version of the paper), cd8f00d (read for facts)
Follows: code. The gate is the mean over an item's users of tanh(W_m e_u), one for both parts; the
         free user-preference tables of the release reach no number and are left out.
Quirks:  Scores use the kNN graphs of construction, which no refresh reaches; the conference code
         differs (`score_on_refreshed_graph`). Feature tables are trained and are also what
         reconstruction aims at. The second intra term uses the inter temperature. Generators and
         translators learn on gated and on propagated parts and serve on raw ones; CLUB learns on
         raw parts and judges propagated ones. Only items lacking exactly one modality are
         generated. From the third modality on there is no CLUB and no user-level inter term, the
         intra term compares general parts, and only generated items are refreshed
         (`treat_modalities_alike` ends this). With new items the training graphs isolate these
         but link mean-imputed rows, and refreshed rows may choose new items as neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_missing import graph
from recbole_missing.model.base import MultimodalRecommender
from recbole_missing.nn.layers import feature_table, xavier_table
from recbole_missing.nn.losses import bpr_loss, info_nce, norm_loss
from recbole_missing.settings import Bool, Choice, Float, Int

CLUB_HIDDEN, CLUB_STEPS, CLUB_ROWS = 32, 5, 2048
EPOCHS_PER_REFRESH = 5
ID_REG_WEIGHT = 1e-5


def perturb(x: Tensor) -> Tensor:
    """Add 0.1 sign(x) * u / |u| to every row of x ``(rows, width)``, u uniform on [0, 1)."""
    return x + 0.1 * x.sign() * F.normalize(torch.rand_like(x), eps=1e-12)


def _two_layers(n_in: int, hidden: int, n_out: int, activation: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Linear(n_in, hidden), activation, nn.Linear(hidden, n_out))


class ModalityNetwork(nn.Module):
    """Dense layers of one modality with ``dim`` features; parts have ``size`` entries."""

    def __init__(self, dim: int, size: int, n_others: int) -> None:
        """Create them; without other modalities there is no translator."""
        super().__init__()
        self.projection, self.specific_encoder = nn.Linear(dim, size), nn.Linear(dim, size)
        self.gate = nn.Linear(size, size, bias=False)
        self.decoder = nn.Linear(2 * size, dim)
        self.generator = _two_layers(size, size, size, nn.Tanh())
        if n_others:
            self.translator = _two_layers(n_others * size, size, size, nn.Tanh())

    def project(self, features: Tensor) -> Tensor:
        """Projection and specific encoding side by side, in one pass over the wide features."""
        layers = (self.projection, self.specific_encoder)
        weight = torch.cat([layer.weight for layer in layers])
        return F.linear(features, weight, torch.cat([layer.bias for layer in layers]))


class ClubEstimator(nn.Module):
    """Gaussian q(general | specific) of the CLUB bound; reads parts ``(rows, 2, d)``.

    Source: Cheng et al., "CLUB: A Contrastive Log-ratio Upper Bound", ICML 2020, eq. 7 and 8.
    """

    def __init__(self, size: int) -> None:
        """Create both networks, with torch's default initialisation."""
        super().__init__()
        self.mean = _two_layers(size, CLUB_HIDDEN, size, nn.ReLU())
        self.log_variance = _two_layers(size, CLUB_HIDDEN, size, nn.ReLU())

    def bound(self, parts: Tensor) -> Tensor:
        """Half the bound, mean over rows: distance to another row's general part minus own."""
        general, specific = parts.unbind(dim=1)
        other = general.index_select(0, torch.randperm(len(general), device=general.device))
        mean, log_variance = self.mean(specific), torch.tanh(self.log_variance(specific))
        gap = (mean - other).square() - (mean - general).square()
        return 0.5 * (gap / log_variance.exp()).sum(dim=1).mean()

    def negative_log_likelihood(self, parts: Tensor) -> Tensor:
        """What the estimator itself minimises, mean over rows, constants left out."""
        general, specific = parts.unbind(dim=1)
        mean, log_variance = self.mean(specific), torch.tanh(self.log_variance(specific))
        error = (mean - general).square() / log_variance.exp()
        return (error + log_variance).sum(dim=1).mean()


class DGMRec(MultimodalRecommender):
    """Disentangling and generating modalities.

    *Parts* are tensors ``(n, M, 2, d)``: of each item or user and each of the M modalities the
    general part (0) and the specific part (1), d = ``embedding_size``.
    """

    hyperparameters = {
        **dict.fromkeys(("embedding_size", "knn_k"), Int(min=1)),
        **dict.fromkeys(("n_ui_layers", "n_mm_layers"), Int(min=0)),
        "knn_missing": Choice(*graph.KNN_MISSING),
        **dict.fromkeys(("reg_weight", "recon_weight", "generation_weight"), Float(min=0)),
        **dict.fromkeys(("inter_modal_weight", "intra_modal_weight"), Float(min=0)),
        **dict.fromkeys(("align_weight", "club_weight"), Float(min=0)),
        **dict.fromkeys(("inter_modal_temperature", "intra_modal_temperature"), Float(min=1e-6)),
        "align_temperature": Float(min=1e-6),
        "avg_lambda": Float(min=0, max=1),
        **dict.fromkeys(("refresh_inference_graph", "score_on_refreshed_graph"), Bool()),
        "treat_modalities_alike": Bool(),
    }

    def __init__(self, config: Any, dataset: Any) -> None:
        """Build tables, networks and graphs."""
        super().__init__(config, dataset)
        size, count = self.embedding_size, len(self.modalities)
        self.user_table = xavier_table(self.n_users, size)
        self.item_table = xavier_table(self.n_items, size)
        self.shared_encoder = nn.Linear(size, size)
        self.features, self.networks = nn.ParameterDict(), nn.ModuleDict()
        for name, modality in self.modalities.items():
            self.features[name] = feature_table(modality)
            self.networks[name] = ModalityNetwork(modality.dim, size, count - 1)
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
        self.n_full = count if self.treat_modalities_alike else min(count, 2)
        n_clubs = self.n_full if self.club_weight else 0
        self.clubs = nn.ModuleDict({m: ClubEstimator(size) for m in [*self.modalities][:n_clubs]})
        self.pairs = [(a, (a + 1) % count) for a in range(count if count > 2 else count - 1)]

        interactions = self.user_item_matrix(dataset)
        self.user_item_graph = graph.symmetric_norm(interactions)
        self.users_from_items = graph.row_mean_norm(interactions)
        self.items_from_users = graph.row_mean_norm(interactions.transposed())
        self._build_modality_graphs()
        self._mark_missing()

    def _build_modality_graphs(self) -> None:
        self.training_graphs, self.inference_graphs = nn.ModuleDict(), nn.ModuleDict()
        for name, modality in self.modalities.items():
            wanted = [(modality.observed, self.knn_missing)] * 2
            if self.new_items.any():
                wanted[0] = (~self.new_items, "isolated")
            self.training_graphs[name], self.inference_graphs[name] = (
                graph.row_sum_norm(graph.knn_graph(modality.features, self.knn_k, *choice))
                for choice in wanted
            )

    def _mark_missing(self) -> None:
        """Whose features are generated, whose graph rows refreshed: bool ``(n_items, M)``."""
        missing, count = ~self.observed, len(self.modalities)
        missing[0] = False
        self.anything_missing = bool(missing.any())
        limit = max(count - 1, 1) if self.treat_modalities_alike else 1
        generated = missing & (missing.sum(dim=1, keepdim=True) <= limit)
        self.register_buffer("generated", generated)
        self.register_buffer("refreshed", missing if self.n_full == count else generated)
        self.register_buffer("epochs_started", torch.zeros((), dtype=torch.long))

    def auxiliary_parameters(self) -> Iterable[nn.Parameter]:
        """Parameters of the CLUB estimators."""
        return self.clubs.parameters()

    def on_epoch_start(self, minimise: Callable[[Tensor], None]) -> None:
        """Fit the estimators, generate the missing features, refresh every fifth time."""
        self.epochs_started += 1
        raw = self._raw_parts(self._real_features()).detach()
        for _ in range(CLUB_STEPS if self.clubs else 0):
            sample = torch.randperm(self.n_items - 1, device=raw.device)[:CLUB_ROWS] + 1
            judged = zip(self.clubs.values(), raw[sample].unbind(dim=1))
            minimise(sum(club.negative_log_likelihood(parts) for club, parts in judged))
        self._generate(raw, self.training_graphs, ~self.new_items)
        self._refresh(self.training_graphs, ~self.new_items)
        if self.score_on_refreshed_graph:
            self._refresh(self.inference_graphs, ~self.new_items)

    @torch.no_grad()
    def on_validation_start(self) -> None:
        """Generate the features of new items and refresh their rows of the inference graphs."""
        if self.new_items.any():
            raw = self._raw_parts(self._real_features())
            self._generate(raw, self.inference_graphs, self.new_items)
            if self.refresh_inference_graph:
                self._refresh(self.inference_graphs, self.new_items)

    @torch.no_grad()
    def _generate(self, raw: Tensor, graphs: nn.ModuleDict, items: Tensor) -> None:
        """Overwrite features of ``items`` (bool ``(n_items,)``) with decoded invented parts."""
        parts = self._propagate(self._invent(raw[:, :, 0], self._gates()), graphs)
        for j, (name, network) in enumerate(self.networks.items()):
            rows = (self.generated[:, j] & items).nonzero()[:, 0]
            self.features[name][rows] = network.decoder(perturb(parts[rows, j].flatten(1)))

    def _refresh(self, graphs: nn.ModuleDict, items: Tensor) -> None:
        """Blend rows of ``items`` with graphs of the current features, every fifth epoch."""
        late = int(self.epochs_started) % EPOCHS_PER_REFRESH
        if late or not self.anything_missing or self.avg_lambda == 0:
            return
        for j, (name, features) in enumerate(self.features.items()):
            current = graph.knn_graph(features.detach(), self.knn_k, self.observed[:, j])
            current, rows = graph.row_sum_norm(current), self.refreshed[:, j] & items
            graphs[name] = graph.blend_rows(graphs[name], current, rows, self.avg_lambda)

    def encode(self) -> tuple[Tensor, Tensor]:
        """Collaborative vectors plus all parts of all modalities."""
        users, items = self._collaborative()
        gated = self._raw_parts(self._real_features()) * self._gates()[:, :, None]
        item_parts = self._propagate(gated, self.inference_graphs)
        return self._fuse(users, self._user_parts(item_parts)), self._fuse(items, item_parts)

    def loss_terms(self, interaction: Any) -> dict[str, Tensor]:
        """The terms of the release; a term without weight or without meaning here is left out."""
        batch = self.batch(interaction)
        features, gates = self._real_features(), self._gates()
        raw = self._raw_parts(features)
        item_parts = self._propagate(raw * gates[:, :, None], self.training_graphs)
        tables = (self._user_parts(item_parts).flatten(1), item_parts.flatten(1))
        ids = self.gather(*self._collaborative(), batch)
        parts = [rows.view(-1, *raw.shape[1:]) for rows in self.gather(*tables, batch)]
        intra_modal, align = self._user_item_contrasts(ids, parts)
        reg = self.reg_weight * norm_loss(*parts[1].sum(dim=2).unbind(dim=1))
        terms = {
            "bpr": bpr_loss(*(self._fuse(*pair) for pair in zip(ids, parts))),
            "reg": ID_REG_WEIGHT * norm_loss(*ids) + reg,
            "recon": self.recon_weight * self._reconstruction(features, item_parts[1:].detach()),
            "intra_modal": self.intra_modal_weight * intra_modal,
            "align": self.align_weight * align,
        }
        items = torch.unique(torch.cat(batch[1:]))
        if self.inter_modal_weight and self.pairs:
            inter = self._inter_modal(raw, items, parts[0])
            terms["inter_modal"] = self.inter_modal_weight * inter
        if self.clubs:
            judged = zip(self.clubs.values(), item_parts[1:].unbind(dim=1))
            terms["club"] = self.club_weight * sum(club.bound(block) for club, block in judged)
        if self.anything_missing:
            generation = self._generation(raw, gates, item_parts, items)
            terms["generation"] = self.generation_weight * generation
        return terms

    def _real_features(self) -> list[Tensor]:
        """Feature tables without the padding row, ``(n_items - 1, dim)`` each."""
        return [table[1:] for table in self.features.values()]

    def _collaborative(self) -> tuple[Tensor, Tensor]:
        tables = (self.user_table, self.item_table)
        return graph.light_gcn(self.user_item_graph, *tables, self.n_ui_layers)

    def _raw_parts(self, features: list[Tensor]) -> Tensor:
        """Item parts as encoded, before gate and graph; the padding row is zero."""
        pairs = zip(self.networks.values(), features)
        encoded = torch.stack([network.project(table) for network, table in pairs], dim=1)
        general, specific = encoded.chunk(2, dim=2)
        general = self.shared_encoder(torch.tanh(general))
        parts = torch.sigmoid(torch.stack([general, specific], dim=2))
        return F.pad(parts, (0, 0, 0, 0, 0, 0, 1, 0))

    def _gates(self) -> Tensor:
        """What an item's training users prefer, ``(n_items, M, d)``."""
        weight = torch.cat([network.gate.weight for network in self.networks.values()])
        preferences = torch.tanh(F.linear(self.user_table, weight))
        return (self.items_from_users @ preferences).view(self.n_items, len(self.networks), -1)

    def _propagate(self, parts: Tensor, graphs: nn.ModuleDict) -> Tensor:
        """Item parts after ``n_mm_layers`` products with the graph of their modality."""
        blocks = list(parts.flatten(2).unbind(dim=1))
        for _ in range(self.n_mm_layers):
            blocks = [adjacency @ block for adjacency, block in zip(graphs.values(), blocks)]
        return torch.stack(blocks, dim=1).view_as(parts)

    def _user_parts(self, item_parts: Tensor) -> Tensor:
        return (self.users_from_items @ item_parts.flatten(1)).view(-1, *item_parts.shape[1:])

    def _fuse(self, collaborative: Tensor, parts: Tensor) -> Tensor:
        """All general parts count as one (their mean), every specific part as one."""
        content = parts[:, :, 0].mean(dim=1) + parts[:, :, 1].sum(dim=1)
        return collaborative + content / (parts.shape[1] + 1)

    def _invent(self, general: Tensor, gates: Tensor, noisy: bool = False) -> Tensor:
        """Parts made without the modality: translated from the others, generated from the gate.

        Both arguments are ``(n, M, d)``. A lone modality keeps its general part.
        """
        made, noise = [], perturb if noisy else torch.clone
        for j, network in enumerate(self.networks.values()):
            others = general.roll(-(j + 1), dims=1)[:, :-1].flatten(1)  # j+1, j+2, ... cyclic
            own = network.translator(noise(others)) if self.pairs else general[:, j]
            made.append(torch.stack([own, network.generator(noise(gates[:, j]))], dim=1))
        return torch.stack(made, dim=1)

    def _reconstruction(self, features: list[Tensor], parts: Tensor) -> Tensor:
        """Decoded parts against the current features of all items, generated ones included."""
        blocks = zip(self.networks.values(), parts.flatten(2).unbind(dim=1), features)
        return sum(F.mse_loss(net.decoder(perturb(block)), table) for net, block, table in blocks)

    def _user_item_contrasts(self, ids: list[Tensor], parts: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Intra-modal term (user against positive item) and alignment (collaborative, general)."""
        users, items = parts[:2]
        general = [block[:, :, 0].sum(dim=1) for block in (users, items)]
        kinds = [int(j < self.n_full) for j in range(len(self.networks))]
        pairs = [(users[:, j, kind], items[:, j, kind]) for j, kind in enumerate(kinds)]
        intra = sum(info_nce(*pair, self.intra_modal_temperature) for pair in [ids[:2], *pairs])
        intra = intra + info_nce(*general, self.inter_modal_temperature)
        return intra, sum(info_nce(*pair, self.align_temperature) for pair in zip(ids, general))

    def _inter_modal(self, raw: Tensor, items: Tensor, users: Tensor) -> Tensor:
        """General parts across modalities: raw ones of complete items, propagated ones of users."""
        complete = items[self.observed[items].all(dim=1)]
        blocks = [(raw[:, :, 0].index_select(0, complete), pair) for pair in self.pairs]
        blocks += [(users[:, :, 0], pair) for pair in self.pairs if max(pair) < self.n_full]
        temperature = self.inter_modal_temperature
        return sum(info_nce(block[:, a], block[:, b], temperature) for block, (a, b) in blocks)

    def _generation(self, raw: Tensor, gates: Tensor, parts: Tensor, items: Tensor) -> Tensor:
        """Invented against actual parts: general if complete, specific if observed.

        Targets are propagated general and raw specific parts of the batch's distinct items.
        """
        general, specific = parts[:, :, 0].index_select(0, items), raw[items, :, 1]
        made = self._invent(general, gates.index_select(0, items), noisy=True)
        errors = (made - torch.stack([general, specific], dim=2)).square().mean(dim=3)
        observed = self.observed[items]
        complete = observed.all(dim=1, keepdim=True).expand_as(observed)
        counted = torch.stack([complete, observed], dim=2)
        return ((errors * counted).sum(dim=0) / counted.sum(dim=0).clamp(min=1)).sum()
