"""DAMRS: the item graphs are loaded, for counts tie, and so do identical imputed rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from golden_maps import dense, letter, padded_graph
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
    return {"user": "user_embedding.weight", "item": "item_id_embedding.weight"}


def terms(modalities: Any) -> dict[str, str]:
    contrast = {f"nd_{name}": f"loss0_nd_{letter(name)}" for name in modalities}
    return {
        "wbpr": "loss0_wbpr", "kl": "loss0_kl", **contrast, "behaviour_nd": "loss0_nd_session"
    }  # fmt: skip


def prepare(model: DAMRS, npz: dict[str, np.ndarray]) -> None:
    """Compare what ties do not decide, then put in the published graphs."""
    names = [*model.modalities, "session"]
    published = [stored(npz, f"{name}_adj") for name in names]
    missing = any(npz[key].size for key in npz if key.startswith("missing_"))
    for name, ours, theirs in zip(names, blocks(model), published):
        if name == "session":
            shared = shared_users(npz)
            ours, theirs = (np.sort(shared * (graph > 0), axis=1) for graph in (ours, theirs))
        elif missing and model.knn_missing == "imputed":
            cosines = cosine_matrix(model.modalities[name])
            ours, theirs = (np.sort(cosines * (graph > 0), axis=1) for graph in (ours, theirs))
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6, err_msg=name)
    whole = np.zeros((len(names), model.n_items, len(names), model.n_items), dtype=np.float32)
    for i, graph in enumerate(published):
        whole[i, 1:, i, 1:] = graph
    size = len(names) * model.n_items
    model.view_graphs.full = padded_graph(whole.reshape(size, size), 0, 0)


def blocks(model: DAMRS) -> list[np.ndarray]:
    """Our graphs, dense and without the padding item."""
    whole = np.pad(dense(model.view_graphs.full), ((1, 0), (1, 0)))
    n_views = len(whole) // model.n_items
    whole = whole.reshape(n_views, model.n_items, n_views, model.n_items)
    return [whole[i, 1:, i, 1:] for i in range(n_views)]


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
