"""MMGCN: identities and preferences are buffers; two modalities have a version of the release."""

from __future__ import annotations

from typing import Any

import numpy as np

from golden_maps import Published, letter
from recbole_missing.model.mmgcn import MMGCN

MODEL = MMGCN


def settings(meta: dict[str, Any]) -> dict[str, Any]:
    published = meta["config"]
    of_release = meta["variant"] == "dgmrec" or "DGMRec" in meta["source"]
    unit = of_release and len(meta["modalities"]) == 2
    return {
        "embedding_size": published["embedding_size"],
        "reg_weight": published["reg_weight"],
        "latent_sizes": [256],
        "n_ui_layers": 3,
        "neighbourhood": "unit_mean" if unit else "mean",
        "penalised_preferences": "all" if of_release else "first",
        "train_tables": False,
    }


def features(npz: dict[str, np.ndarray], letter: str) -> np.ndarray:
    """With three modalities the release sees the true features of items that lack them."""
    return npz.get(f"imputed_{letter}", npz[f"feat_{letter}"])


def names(modalities: Any, meta: Any = None) -> dict[str, str | Published]:
    unit = settings(meta)["neighbourhood"] == "unit_mean"
    n_items = modalities.observed.shape[0] - 1

    identities = ("id_embedding",)
    mapped: dict[str, str | Published] = {
        "user_embedding": Published(identities, lambda nodes: nodes[:-n_items]),
        "item_embedding": Published(identities, lambda nodes: nodes[-n_items:]),
    }
    for position, name in enumerate(modalities):
        theirs = f"{letter(name)}_gcn"
        mapped[f"preferences.{name}"] = f"{theirs}.preference"
        if position == 0:
            for kind in ("weight", "bias"):
                mapped[f"projections.{name}.{kind}"] = f"{theirs}.MLP.{kind}"
        for depth in range(3):
            mapped.update(layer_names(f"layers.{depth}.{name}", theirs, depth + 1, unit))
    return mapped


def layer_names(ours: str, theirs: str, number: int, unit: bool) -> dict[str, str]:
    mapped = {f"{ours}.aggregation": f"{theirs}.conv_embed_{number}.weight"}
    if unit:
        mapped[f"{ours}.aggregation_bias"] = f"{theirs}.conv_embed_{number}.bias"
    for kind in ("weight", "bias"):
        mapped[f"{ours}.own.{kind}"] = f"{theirs}.linear_layer{number}.{kind}"
        mapped[f"{ours}.combination.{kind}"] = f"{theirs}.g_layer{number}.{kind}"
    return mapped


def terms(modalities: Any) -> dict[str, str]:
    ours = {"reg_identities": "loss0_reg_id", "reg_preferences": "loss0_reg_pref"}
    return {"bpr": "loss0_bpr", **ours}


def prepare(model: MMGCN, npz: dict[str, np.ndarray]) -> None:
    model.load_state_dict(model.state_dict())  # the constants follow the loaded preferences
