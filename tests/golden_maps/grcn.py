"""GRCN: published tables hold users and items; confidences come in the order image, audio, text."""

from __future__ import annotations

from typing import Any

import numpy as np

from golden_maps import Published, letter
from recbole_missing.model.grcn import GRCN

MODEL = GRCN
CONFIDENCE_ORDER = "vat"


def settings(meta: dict[str, Any]) -> dict[str, Any]:
    """The routing of all files is without effect, whatever their ``n_layers``."""
    published = meta["config"]
    same = {key: published[key] for key in ("embedding_size", "reg_weight")}
    fixed = {"n_ui_layers": 2, "routing_steps": 0}
    return {**same, **fixed, "latent_size": published["latent_embedding"]}


def names(modalities: Any, meta: Any = None) -> dict[str, str | Published]:
    n_items = modalities.observed.shape[0] - 1
    letters = [letter(name) for name in modalities]
    columns = [sorted(letters, key=CONFIDENCE_ORDER.index).index(one) for one in letters]

    def of_users(nodes: np.ndarray) -> np.ndarray:
        return nodes[:-n_items]

    def of_items(nodes: np.ndarray) -> np.ndarray:
        return nodes[-n_items:]

    identities, confidences = ("id_gcn.id_embedding",), ("model_specific_conf",)
    mapped: dict[str, str | Published] = {
        "user_embedding": Published(identities, of_users),
        "item_embedding": Published(identities, of_items),
        "user_confidence": Published(confidences, lambda nodes: of_users(nodes)[:, columns]),
        "item_confidence": Published(confidences, lambda nodes: of_items(nodes)[:, columns]),
    }
    for name, one in zip(modalities, letters):
        mapped[f"preferences.{name}"] = f"{one}_gcn.preference"
        for kind in ("weight", "bias"):
            mapped[f"projections.{name}.{kind}"] = f"{one}_gcn.MLP.{kind}"
    return mapped


def terms(modalities: Any) -> dict[str, str]:
    letters = [letter(name) for name in modalities]
    batch = [f"loss0_reg_pref_{one}_batch" for one in letters]
    return {
        "bpr": "loss0_bpr",
        "reg_batch": " + ".join(["loss0_reg_id", *batch]),
        "reg_all": f"loss0_reg_pref_{letters[0]}_all",
    }
