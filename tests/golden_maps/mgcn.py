"""MGCN: the item graphs are loaded where identical imputed rows tie."""

from __future__ import annotations

from typing import Any

import numpy as np

from golden_maps import dense, identities, letter, linear, padded_graph
from recbole_missing.model.mgcn import MGCN

MODEL = MGCN
UNUSED = {
    "norm_adj": "built from the interactions; the scores depend on it",
    "R": "a block of norm_adj",
    "*_original_adj": "put in by prepare where ties decide, else compared by extra",
}


def settings(meta: dict[str, Any]) -> dict[str, Any]:
    published = meta["config"]
    same = ["embedding_size", "n_ui_layers", "knn_k", "reg_weight", "train_batch_size"]
    return {
        **{key: published[key] for key in same},
        "n_mm_layers": published["n_layers"],
        "cl_weight": published["cl_loss"],
        "temperature": 0.2,
        "knn_missing": "imputed",
    }


def names(modalities: Any, meta: Any = None) -> dict[str, str]:
    ours = {
        **identities(),
        **linear("side.attention.0", "query_common.0"),
        "side.attention.2.weight": "query_common.2.weight",
    }
    for name in modalities:
        ours[f"purified.features.{name}"] = f"{name}_embedding.weight"
        ours.update(linear(f"purified.gates.{name}.0", f"{name}_trs"))
        ours.update(linear(f"purified.gates.{name}.1", f"gate_{letter(name)}.0"))
        ours.update(linear(f"side.preferences.{name}", f"gate_{name}_prefer.0"))
    return ours


def terms(modalities: Any) -> dict[str, str]:
    return {"bpr": "loss0_bpr", "reg": "loss0_reg", "cl": "loss0_cl"}


def prepare(model: MGCN, npz: dict[str, np.ndarray]) -> None:
    """Compare the graphs; where ties decide who is a neighbour, how near they are, then swap."""
    ties = any(npz[key].size for key in npz if key.startswith("missing_"))
    for name, graph in model.purified.item_graphs.items():
        ours, published = dense(graph.full), npz[f"param/{name}_original_adj"]
        if ties:
            graph.full = padded_graph(published)
            ours, published = np.sort(ours, axis=1), np.sort(published, axis=1)
        np.testing.assert_allclose(ours, published, rtol=1e-5, atol=1e-6, err_msg=name)
