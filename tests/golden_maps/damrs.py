"""DAMRS: the item graphs are loaded, for counts tie, and so do identical imputed rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from golden_maps import dense, identities, letter, padded_graph
from recbole_missing.model.damrs import DAMRS

MODEL = DAMRS
COMPLETE = {"complete"}
UNUSED = {
    "*_embedding.weight": "frozen features, which only select edges",
    "*_trs.*": "never used by the release",
}


def settings(meta: dict[str, Any]) -> dict[str, Any]:
    published = meta["config"]
    same = ["embedding_size", "n_ui_layers", "n_mm_layers", "knn_k", "kl_weight"]
    ours = {key: published[key] for key in same}
    ours.update(behaviour_k=2, behaviour_min_count=2, temperature=0.2)
    if len(meta["modalities"]) == 2:
        ours.update(knn_missing="imputed", cl_weight=published["neighbor_weight"])
        return {**ours, "pseudo_labels": 10, "contrast_items": "all"}
    ours.update(knn_missing="isolated", cl_weight=published["neighbor_weight"] / 2)
    return {**ours, "pseudo_labels": published["knn_k"], "contrast_items": "complete"}


def names(modalities: Any, meta: Any = None) -> dict[str, str]:
    return identities()


def terms(modalities: Any) -> dict[str, str]:
    contrast = {f"nd_{name}": f"loss0_nd_{letter(name)}" for name in modalities}
    return {
        "wbpr": "loss0_wbpr", "kl": "loss0_kl", **contrast, "behaviour_nd": "loss0_nd_session"
    }  # fmt: skip


def prepare(model: DAMRS, npz: dict[str, np.ndarray]) -> None:
    """Compare what ties do not decide, then put in the published graphs."""
    missing = any(npz[key].size for key in npz if key.startswith("missing_"))
    for name, graph in model.item_graphs.items():
        published = stored(npz, f"{name}_adj")
        if missing and model.knn_missing == "imputed":
            same_neighbours(cosine_matrix(model.modalities[name]), dense(graph.full), published)
        else:
            np.testing.assert_allclose(dense(graph.full), published, 1e-5, 1e-6, err_msg=name)
        graph.full = padded_graph(published)
    published = stored(npz, "session_adj")
    same_neighbours(shared_users(npz), dense(model.behaviour_graph), published)
    model.behaviour_graph = padded_graph(published)


def same_neighbours(nearness: np.ndarray, ours: np.ndarray, published: np.ndarray) -> None:
    """Each row's neighbours are equally near in both graphs, whichever of equals were chosen."""
    near = [np.sort(nearness * (graph > 0), axis=1) for graph in (ours, published)]
    np.testing.assert_allclose(*near, rtol=1e-5, atol=1e-6)


def stored(npz: dict[str, np.ndarray], name: str) -> np.ndarray:
    matrix = np.zeros((int(npz["n_items"]),) * 2, dtype=np.float32)
    row, col, value = (npz[f"graph/{name}/{part}"] for part in ("row", "col", "val"))
    matrix[row, col] = value
    return matrix


def shared_users(npz: dict[str, np.ndarray]) -> np.ndarray:
    liked = np.zeros((int(npz["n_users"]), int(npz["n_items"])))
    liked[npz["train_user"], npz["train_item"]] = 1
    return liked.T @ liked


def cosine_matrix(modality: Any) -> np.ndarray:
    rows = modality.features[1:].double().numpy()
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return rows @ rows.T
