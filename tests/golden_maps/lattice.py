"""LATTICE: the original graphs are loaded where identical imputed rows tie."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from golden_maps import dense, identities, padded_graph, projected_features
from recbole_missing.model.lattice import LATTICE

MODEL = LATTICE
UNUSED = {
    "norm_adj": "compared by extra",
    "*_original_adj": "put in by prepare where ties decide, else compared by extra",
}


def settings(meta: dict[str, Any]) -> dict[str, Any]:
    published = meta["config"]
    same = ["embedding_size", "knn_k", "reg_weight", "train_batch_size"]
    return {
        **{key: published[key] for key in same},
        "projection_size": published["feat_embed_dim"],
        "n_ui_layers": len(published["weight_size"]),
        "n_mm_layers": published["n_layers"],
        "original_weight": published["lambda_coeff"],
        "knn_missing": "imputed",
        "normalise_learned": "always",
        "initial_logits": None,
    }


def names(modalities: Any, meta: Any = None) -> dict[str, str]:
    return {**identities(), "logits": "modal_weight", **projected_features(modalities)}


def terms(modalities: Any) -> dict[str, str]:
    return {"bpr": "loss0_bpr", "reg": "loss0_reg"}


def prepare(model: LATTICE, npz: dict[str, np.ndarray]) -> None:
    """Compare the graphs; where ties decide who is a neighbour, how near they are, then swap."""
    ties = any(npz[key].size for key in npz if key.startswith("missing_"))
    for name, graph in model.item_graphs.items():
        ours, published = dense(graph.full), npz[f"param/{name}_original_adj"]
        if ties:
            graph.full = padded_graph(published)
            ours, published = np.sort(ours, axis=1), np.sort(published, axis=1)
        same(ours, published, name)


def extra(model: LATTICE, npz: dict[str, np.ndarray]) -> None:
    same(dense(model._item_graph().pattern), npz["graph/batch0_item_adj"], "item graph")
    n_users = model.n_users
    real = np.delete(np.arange(1, n_users + model.n_items), n_users - 1)
    walk = torch.eye(n_users + model.n_items).numpy()
    walk[1:, 1:] = dense(model.walk_graph)
    same(walk[np.ix_(real, real)], npz["param/norm_adj"], "user-item graph")


def batch(model: LATTICE, npz: dict[str, np.ndarray], k: int, monkeypatch: Any) -> None:
    """The gradients are those of batch k - 1: only the first of two learns the graph."""
    if k > 0:
        graph = [model.logits, *model.features.values(), *model.projections.parameters()]
        learns = [parameter.grad is not None for parameter in graph]
        assert all(learns) if k in (1, 3) else not any(learns), f"gradients of batch {k - 1}"


def same(actual: np.ndarray, expected: np.ndarray, what: str) -> None:
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6, err_msg=what)
