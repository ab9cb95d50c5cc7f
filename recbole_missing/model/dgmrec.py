"""DGMRec: general and specific parts of each modality, gated by taste; missing ones are generated.

Paper:   Kim, Kang, Kim, Kim and Park, "Disentangling and Generating Modalities for Recommendation
         in Missing Modality Scenarios", SIGIR 2025, https://arxiv.org/abs/2504.16352
Code:    https://github.com/ptkjw1997/DGMRec, src/models/dgmrec.py, src/utils/mi_estimator.py,
         branch main (extended version of the paper), cd8f00d (read for facts)
Follows: code. The gate is the mean over an item's users of tanh(W_m e_u), one for both parts.
Quirks:  Scores use the kNN graphs of construction, which no refresh reaches (the conference code
         differs: `score_on_refreshed_graph`). Feature tables are trained, and reconstruction aims
         at them. The second intra term has the inter temperature. Generators, translators and
         CLUB see raw parts in one place, propagated ones in another. Only items lacking exactly
         one modality are generated. Modalities beyond the second have no CLUB and no user-level
         inter term, their intra term compares general parts, and three or more refresh generated
         items only (`treat_modalities_alike` ends this). With new items the training graphs isolate
         these but link mean-imputed rows, and refreshed rows may choose new items.
Needs:   User-item graph, kNN graphs, a second optimiser (CLUB); trains the feature tables.
Missing: Generates missing features during training and leaves them out of every target.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_missing.config.constraints import Bool, Choice, Float, Int
from recbole_missing.graph.knn import KNN_MISSING, knn_graph
from recbole_missing.graph.normalise import row_mean_norm, row_sum_norm, symmetric_norm
from recbole_missing.graph.sparse import blend_rows, light_gcn, propagate
from recbole_missing.model.base import MultimodalRecommender
from recbole_missing.nn.club import ClubEstimator
from recbole_missing.nn.layers import perturb, xavier_table
from recbole_missing.nn.losses import bpr_loss, info_nce, norm_loss

CLUB_STEPS, CLUB_ROWS = 5, 2048
EPOCHS_PER_REFRESH, ID_REG_WEIGHT = 5, 1e-5


def _two_layers(n_in: int, size: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(n_in, size), nn.Tanh(), nn.Linear(size, size))


class ModalityNetwork(nn.Module):
    """Dense layers of one modality with ``dim`` features; parts have ``size`` entries."""

    def __init__(self, dim: int, size: int, n_others: int) -> None:
        """Create them; without other modalities there is no translator."""
        super().__init__()
        self.encoder = nn.Linear(dim, 2 * size)  # proj_m and spec_m in one product
        self.gate = nn.Linear(size, size, bias=False)
        self.decoder = nn.Linear(2 * size, dim)
        self.generator = _two_layers(size, size)
        self.translator = _two_layers(n_others * size, size) if n_others else None


class DGMRec(MultimodalRecommender):
    """Disentangling and generating modalities.

    *Parts* are tensors ``(n, M, 2, d)``: the general (0) and the specific part (1) of each item
    or user in each of the M modalities; d = ``embedding_size``.
    """

    hyperparameters = {
        **dict.fromkeys(("embedding_size", "knn_k"), Int(min=1)),
        **dict.fromkeys(("n_ui_layers", "n_mm_layers"), Int(min=0)),
        "knn_missing": Choice(*KNN_MISSING),
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
            self.features[name] = nn.Parameter(modality.features[1:].clone())  # no padding row
            self.networks[name] = ModalityNetwork(modality.dim, size, count - 1)
        for layer in [layer for layer in self.modules() if isinstance(layer, nn.Linear)]:
            nn.init.xavier_uniform_(layer.weight)
        for network in self.networks.values():
            for half in network.encoder.weight.data.chunk(2):
                nn.init.xavier_uniform_(half)
        self.n_full = count if self.treat_modalities_alike else min(count, 2)
        full = [name for name in list(self.modalities)[: self.n_full] if self.club_weight > 0]
        self.clubs = nn.ModuleDict({name: ClubEstimator(size) for name in full})
        self.pairs = [(a, (a + 1) % count) for a in range(count if count > 2 else count - 1)]
        self._build_graphs(dataset)
        missing = torch.stack([modality.missing for modality in self.modalities.values()], dim=1)
        self.anything_missing = bool(missing.any())
        most = max(count - 1, 1) if self.treat_modalities_alike else 1
        generated = missing & (missing.sum(dim=1, keepdim=True) <= most)
        self.register_buffer("generated", generated)  # both (n_items, M)
        self.register_buffer("refreshed", missing if self.n_full == count else generated)
        self.register_buffer("epochs_started", torch.zeros((), dtype=torch.long))

    def _build_graphs(self, dataset: Any) -> None:
        interactions = self.user_item_matrix(dataset)
        self.user_item_graph = symmetric_norm(interactions)
        self.users_from_items = row_mean_norm(interactions)
        self.items_from_users = row_mean_norm(interactions.transposed())
        self.training_graphs, self.inference_graphs = nn.ModuleDict(), nn.ModuleDict()
        for name, modality in self.modalities.items():
            features, k = modality.features, self.knn_k
            nearest = knn_graph(features, k, modality.observed, self.knn_missing)
            self.inference_graphs[name] = row_sum_norm(nearest)
            if self.new_items.any():
                nearest = knn_graph(features, k, ~self.new_items, "isolated")
            self.training_graphs[name] = row_sum_norm(nearest)

    def auxiliary_parameters(self) -> Iterable[nn.Parameter]:
        """Parameters of the CLUB estimators."""
        return self.clubs.parameters()

    def on_epoch_start(self, minimise: Callable[[Tensor], None]) -> None:
        """Fit the estimators, generate the missing features, refresh every fifth time."""
        self.epochs_started += 1
        raw = self._raw_parts().detach()
        for _ in range(CLUB_STEPS if self.clubs else 0):
            sample = torch.randperm(self.n_items - 1, device=raw.device)[:CLUB_ROWS] + 1
            judged = zip(self.clubs.values(), raw[sample].unbind(dim=1))
            minimise(sum(club.negative_log_likelihood(parts) for club, parts in judged))
        old = ~self.new_items
        chosen = self.generated & old[:, None]
        self._generate(self._invented(raw, self.training_graphs), chosen, self.features)
        scored = [self.inference_graphs] if self.score_on_refreshed_graph else []
        self._refresh(old, self.training_graphs, *scored)

    @torch.no_grad()
    def on_validation_start(self) -> None:
        """Generate the features of new items and refresh their rows of the inference graphs."""
        if self.new_items.any():
            parts = self._invented(self._raw_parts(), self.inference_graphs)
            self._generate(parts, self.generated & self.new_items[:, None], self.features)
            if self.refresh_inference_graph:
                self._refresh(self.new_items, self.inference_graphs)

    @torch.no_grad()
    def completed_features(self) -> dict[str, Tensor]:
        """The feature tables as trained, but for missing rows that no epoch generates.

        Those (of items lacking everything, in the release) are invented here as the others are:
        the general part translated from imputed rows, the specific part from the users' taste,
        both decoded, without noise. Scores work with the imputed and drifted row instead.
        """
        tables = {name: table.detach().clone() for name, table in self.features.items()}
        parts = self._invented(self._raw_parts(), self.inference_graphs)
        self._generate(parts, ~(self.observed | self.generated), tables, noise=torch.clone)
        return {name: F.pad(table, (0, 0, 1, 0)) for name, table in tables.items()}

    @torch.no_grad()
    def _generate(self, parts: Tensor, chosen: Tensor, tables: Any, noise: Any = perturb) -> None:
        """Overwrite ``chosen`` features (bool ``(n_items, M)``) with decoded ``parts``."""
        for j, (name, network) in enumerate(self.networks.items()):
            rows = chosen[1:, j].nonzero()[:, 0]  # tables have no padding row
            tables[name][rows] = network.decoder(noise(parts[rows + 1, j].flatten(1)))

    def _refresh(self, items: Tensor, *chosen: nn.ModuleDict) -> None:
        """Blend rows of ``items`` with graphs of the current features, every fifth epoch."""
        useful = self.anything_missing and self.avg_lambda > 0
        if self.epochs_started % EPOCHS_PER_REFRESH or not useful:
            return
        for j, (name, table) in enumerate(self.features.items()):
            features = F.pad(table.detach(), (0, 0, 1, 0))
            current = knn_graph(features, self.knn_k, self.observed[:, j])
            current, rows = row_sum_norm(current), self.refreshed[:, j] & items
            for graphs in chosen:
                graphs[name] = blend_rows(graphs[name], current, rows, self.avg_lambda)

    def encode(self) -> tuple[Tensor, Tensor]:
        """Collaborative vectors plus all parts of all modalities."""
        vectors, parts = self._forward(self._raw_parts(), self._gates(), self.inference_graphs)
        return self._fuse(vectors[0], parts[0]), self._fuse(vectors[1], parts[1])

    def loss_terms(self, interaction: Any) -> dict[str, Tensor]:
        """The terms of the release; a term without weight or without meaning here is left out."""
        batch = self.batch(interaction)
        raw, gates = self._raw_parts(), self._gates()
        vectors, (user_parts, item_parts) = self._forward(raw, gates, self.training_graphs)
        ids = self.gather(*vectors, batch)
        rows = self.gather(user_parts.flatten(1), item_parts.flatten(1), batch)
        parts = [block.view(-1, *raw.shape[1:]) for block in rows]
        blocks = zip(item_parts[1:].detach().unbind(dim=1), self.networks.values())
        decoded = (network.decoder(perturb(block.flatten(1))) for block, network in blocks)
        recon = sum(F.mse_loss(*pair) for pair in zip(decoded, self.features.values()))
        intra_modal, align = self._user_item_contrasts(ids, parts)
        reg = self.reg_weight * norm_loss(*parts[1].sum(dim=2).unbind(dim=1))
        terms = {
            "bpr": bpr_loss(*(self._fuse(*pair) for pair in zip(ids, parts))),
            "reg": ID_REG_WEIGHT * norm_loss(*ids) + reg,
            "recon": self.recon_weight * recon,
            "intra_modal": self.intra_modal_weight * intra_modal,
            "align": self.align_weight * align,
        }
        items = torch.unique(torch.cat(batch[1:]))
        if self.inter_modal_weight and self.pairs:
            terms["inter_modal"] = self.inter_modal_weight * self._inter_modal(raw, items, parts[0])
        if self.clubs:
            judged = zip(self.clubs.values(), item_parts[1:].unbind(dim=1))
            terms["club"] = self.club_weight * sum(club.bound(block) for club, block in judged)
        if self.anything_missing:
            generation = self._generation(raw, gates, item_parts, items)
            terms["generation"] = self.generation_weight * generation
        return terms

    def _forward(self, raw: Tensor, gates: Tensor, graphs: nn.ModuleDict) -> tuple[Any, Any]:
        """Collaborative vectors ``(n, d)`` and parts, each of all users and of all items."""
        tables = (self.user_table, self.item_table)
        vectors = light_gcn(self.user_item_graph, *tables, self.n_ui_layers)
        items = self._propagate(raw * gates[:, :, None], graphs)
        users = (self.users_from_items @ items.flatten(1)).view(-1, *items.shape[1:])
        return vectors, (users, items)

    def _raw_parts(self) -> Tensor:
        """Item parts as encoded, before gate and graph; the padding row is zero."""
        pairs = zip(self.networks.values(), self.features.values())
        encoded = torch.stack([network.encoder(table) for network, table in pairs], dim=1)
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
        blocks = zip(graphs.values(), parts.flatten(2).unbind(dim=1))
        moved = [propagate(adjacency, block, self.n_mm_layers) for adjacency, block in blocks]
        return torch.stack(moved, dim=1).view_as(parts)

    def _fuse(self, collaborative: Tensor, parts: Tensor) -> Tensor:
        """All general parts count as one (their mean), every specific part as one."""
        content = parts[:, :, 0].mean(dim=1) + parts[:, :, 1].sum(dim=1)
        return collaborative + content / (parts.shape[1] + 1)

    def _invent(self, general: Tensor, gates: Tensor, noisy: bool = False) -> Tensor:
        """General parts translated from those of the others, specific parts made from gates."""
        made, noise = [], perturb if noisy else torch.clone
        for j, network in enumerate(self.networks.values()):
            others = general.roll(-(j + 1), dims=1)[:, :-1].flatten(1)  # j+1, j+2, ... cyclic
            own = network.translator(noise(others)) if network.translator else general[:, j]
            made.append(torch.stack([own, network.generator(noise(gates[:, j]))], dim=1))
        return torch.stack(made, dim=1)

    @torch.no_grad()
    def _invented(self, raw: Tensor, graphs: nn.ModuleDict) -> Tensor:
        """Item parts invented from raw ones and gates, propagated."""
        return self._propagate(self._invent(raw[:, :, 0], self._gates()), graphs)

    def _user_item_contrasts(self, ids: list[Tensor], parts: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Intra-modal term (user against positive item) and alignment (collaborative, general)."""
        users, items = parts[:2]
        general = [block[:, :, 0].sum(dim=1) for block in (users, items)]
        kinds = enumerate([1] * self.n_full + [0] * (len(self.networks) - self.n_full))
        pairs = [(users[:, j, kind], items[:, j, kind]) for j, kind in kinds]
        intra = sum(info_nce(*pair, self.intra_modal_temperature) for pair in [ids[:2], *pairs])
        intra = intra + info_nce(*general, self.inter_modal_temperature)
        return intra, sum(info_nce(*pair, self.align_temperature) for pair in zip(ids, general))

    def _inter_modal(self, raw: Tensor, items: Tensor, users: Tensor) -> Tensor:
        """General parts across modalities: raw ones of complete items, propagated ones of users."""
        complete = self.complete_items(items)
        blocks = [(raw[:, :, 0].index_select(0, complete), pair) for pair in self.pairs]
        blocks += [(users[:, :, 0], pair) for pair in self.pairs if max(pair) < self.n_full]
        temperature = self.inter_modal_temperature
        return sum(info_nce(block[:, a], block[:, b], temperature) for block, (a, b) in blocks)

    def _generation(self, raw: Tensor, gates: Tensor, parts: Tensor, items: Tensor) -> Tensor:
        """Invented parts against propagated general (if complete), raw specific (if observed)."""
        targets = (parts[:, :, 0], raw[:, :, 1])
        general, specific = (block.index_select(0, items) for block in targets)
        made = self._invent(general, gates.index_select(0, items), noisy=True)
        errors = (made - torch.stack([general, specific], dim=2)).square().mean(dim=3)
        observed = self.observed[items]
        complete = observed.all(dim=1, keepdim=True).expand_as(observed)
        counted = torch.stack([complete, observed], dim=2)
        return ((errors * counted).sum(dim=0) / counted.sum(dim=0).clamp(min=1)).sum()
