"""GUME: two published versions and three modalities; all graphs are compared.

Where identical imputed rows tie (variant ``original``) the item graphs are loaded, and the edges
between items must follow from them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from golden_maps import identities, letter, linear
from recbole_missing.graph.sparse import SparseMatrix, bipartite
from recbole_missing.model.gume import GUME, perturb

MODEL = GUME
COMPLETE = {"nomissing"}
PREFIXES = {"v": "image", "t": "text", "a": "audio"}
SETTINGS = {
    "embedding_size": "embedding_size",
    "n_ui_layers": "n_ui_layers",
    "n_mm_layers": "n_layers",
    "knn_k": "knn_k",
    "reg_weight": "reg_weight_1",
    "taste_reg_weight": "reg_weight_2",
    "align_weight": "vt_loss",
    "behaviour_cl_weight": "bm_loss",
    "behaviour_temperature": "bm_temp",
    "taste_cl_weight": "um_loss",
    "taste_temperature": "um_temp",
    "train_batch_size": "train_batch_size",
}
VERSIONS = {
    "": {},
    "nomissing": {"contrast_items": "all"},
    "original": {
        "knn_k": 10,  # fixed in that version's search for shared neighbours
        "knn_missing": "imputed",
        "item_edges": "shared",
        "align_nodes": "all",
        "contrast_items": "all",
    },
}
UNUSED = {"*_space_trans.*": "other names of *_reduce_dim and *_trans_dim"}


def settings(meta: dict[str, Any]) -> dict[str, Any]:
    return {
        **{ours: meta["config"][theirs] for ours, theirs in SETTINGS.items()},
        "knn_missing": "isolated" if len(meta["modalities"]) == 2 else "isolated_after_topk",
        "item_edges": "none",
        "align_nodes": "item_numbers",
        "contrast_items": "complete",
        **VERSIONS[meta["variant"]],
    }


def names(modalities: Any, meta: Any = None) -> dict[str, str]:
    ours = {
        **identities(),
        **linear("integration.attention.0", "separate_coarse.0"),
        "integration.attention.2.weight": "separate_coarse.2.weight",
    }
    for name in modalities:
        theirs = PREFIXES[letter(name)]
        ours[f"tastes.{name}"] = f"extended_{theirs}_user.weight"
        ours[f"purified.features.{name}"] = f"{theirs}_embedding.weight"
        ours.update(linear(f"purified.gates.{name}.0", f"{theirs}_reduce_dim"))
        ours.update(linear(f"purified.gates.{name}.1", f"{theirs}_trans_dim.0"))
        ours.update(linear(f"integration.preferences.{name}", f"{theirs}_behavior.0"))
    return ours


def terms(modalities: Any) -> dict[str, str]:
    return {
        "bpr": "loss0_bpr",
        "reg": "loss0_reg_1_weighted",
        "taste_reg": "loss0_reg_2",
        "align": "loss0_align",
        "behaviour_cl": "loss0_bm_user + loss0_bm_item",
        "taste_cl": "loss0_um_c + loss0_um_noise_integration + loss0_um_noise_extended",
    }


def prepare(model: GUME, npz: dict[str, np.ndarray]) -> None:
    for name, graph in model.purified.item_graphs.items():
        published = stored_graph(npz, f"{PREFIXES[letter(name)]}_adj", model.n_items)
        if model.knn_missing == "imputed":
            graph.full = published
        else:
            same_graph(graph.full, published, name)
    edges = (torch.from_numpy(npz[f"train_{kind}"]) + 1 for kind in ("user", "item"))
    nobody = torch.zeros(model.n_items, dtype=torch.bool)
    interactions = bipartite(*edges, model.n_users, model.n_items)
    model.node_graph.full = model._build_node_graph(interactions, nobody)
    published = stored_graph(npz, "norm_adj", model.n_users + model.n_items, model.n_users)
    same_graph(model.node_graph.full, published, "graph of all nodes")


def batch(model: GUME, npz: dict[str, np.ndarray], k: int, monkeypatch: Any) -> None:
    """The file has no noise; with noise every row moves by 0.1, each in its own way."""
    x = torch.ones(4, 5)
    with monkeypatch.context() as noisy:
        noisy.setattr(torch, "rand_like", lambda x: torch.empty_like(x).uniform_())
        moved = perturb(x) - x
    torch.testing.assert_close(moved.norm(dim=1), torch.full((4,), 0.1))
    assert len(moved.unique(dim=0)) == 4


def stored_graph(
    npz: dict[str, np.ndarray], key: str, size: int, second: int | None = None
) -> SparseMatrix:
    """Published edges with a padding node in front, and one more at number ``second``."""
    row, col = (torch.from_numpy(npz[f"graph/{key}/{part}"]) + 1 for part in ("row", "col"))
    if second is not None:
        row, col = (ids + (ids >= second) for ids in (row, col))
    return SparseMatrix(row, col, torch.from_numpy(npz[f"graph/{key}/val"]), (size, size))


def same_graph(ours: SparseMatrix, published: SparseMatrix, what: str) -> None:
    for mine, theirs in zip(ours.edges(), published.edges()):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, err_msg=what)
