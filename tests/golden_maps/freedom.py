"""FREEDOM: the item graph is loaded where identical imputed rows tie."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from golden_maps import dense, identities, padded_graph, projected_features, untied_rows
from recbole_missing.graph.sparse import SparseMatrix, light_gcn
from recbole_missing.model.freedom import FREEDOM, keep_edges

MODEL = FREEDOM
UNUSED = {
    "norm_adj": "built from the interactions; the scores depend on it",
    "masked_adj": "equals norm_adj in the file (no edge is dropped); see extra",
    "mm_adj": "put in by prepare where ties decide, else compared by extra",
}
LOOSE = {"projections.*.bias": (None, "cancels in positive minus negative: its gradient is noise")}


def settings(meta: dict[str, Any]) -> dict[str, Any]:
    published = meta["config"]
    same = ["embedding_size", "n_ui_layers", "n_mm_layers", "knn_k", "reg_weight", "dropout"]
    weight = published["mm_image_weight"]
    fixed = {"first_modality_weight": weight, "knn_missing": "imputed"}
    return {**{key: published[key] for key in same}, **fixed}


def names(modalities: Any, meta: Any = None) -> dict[str, str]:
    return {**identities(), **projected_features(modalities)}


def terms(modalities: Any) -> dict[str, str]:
    content = " + ".join(f"bpr_{name}" for name in modalities)
    return {"bpr": "loss0_bpr", content: "loss0_modal"}


def prepare(model: FREEDOM, npz: dict[str, np.ndarray]) -> None:
    """Compare the rows of the graph that no tie decides, then put in the stored one."""
    tables = [modality.features[1:].numpy() for modality in model.modalities.values()]
    sure = np.all([untied_rows(table, model.knn_k) for table in tables], axis=0)
    sure |= not has_ties(npz)
    assert sure.any()
    ours, published = dense(model.item_graph.full), npz["param/mm_adj"]
    np.testing.assert_allclose(ours[sure], published[sure], rtol=1e-5, atol=1e-7)
    model.item_graph.full = padded_graph(published)


def extra(model: FREEDOM, npz: dict[str, np.ndarray]) -> None:
    np.testing.assert_allclose(
        dense(model.item_graph.full), npz["param/mm_adj"], rtol=1e-5, atol=1e-7
    )
    _, _, weights = model.user_item_graph.edges()
    np.testing.assert_allclose(weights, npz["extra/prune_sampling_weights"], rtol=1e-5)
    users, items = torch.from_numpy(npz["extra/prune_kept_edges"]) + 1
    kept = torch.isin(edge_keys(model.user_item_graph), users * model.n_items + items)
    pruned = keep_edges(model.user_item_graph, kept)
    order = torch.argsort(torch.argsort(users * model.n_items + items))
    np.testing.assert_allclose(
        pruned.values[order], npz["extra/prune_values"], rtol=1e-5, err_msg="pruned edges"
    )
    training_uses_the_drawn_edges(model)


def training_uses_the_drawn_edges(model: FREEDOM) -> None:
    """The file itself drops no edge; here half of them go, and come back."""
    dropout, model.dropout = model.dropout, 0.5
    torch.manual_seed(0)
    weights, kept = model.user_item_graph.values, []
    for _ in range(20):
        model.on_epoch_start(lambda loss: None)
        kept.append(torch.isin(edge_keys(model.user_item_graph), edge_keys(model.pruned_graph)))
        assert kept[-1].sum() == model.pruned_graph.values.numel() == weights.numel() // 2
    assert weights[torch.stack(kept).float().mean(dim=0) > 0.5].mean() > weights.mean()
    for graph, training in ((model.pruned_graph, True), (model.user_item_graph, False)):
        users, _ = light_gcn(graph, model.user_embedding, model.item_embedding, model.n_ui_layers)
        torch.testing.assert_close(model.train(training).encode()[0], users)
    model.dropout, model.pruned_graph = dropout, keep_edges(model.user_item_graph, slice(None))


def edge_keys(matrix: SparseMatrix) -> torch.Tensor:
    users, items, _ = matrix.edges()
    return users * matrix.shape[1] + items


def has_ties(npz: dict[str, np.ndarray]) -> bool:
    return any(npz[key].size for key in npz if key.startswith("missing_"))
