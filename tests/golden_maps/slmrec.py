"""SLMRec: published scores are the sigmoid of ours."""

from __future__ import annotations

from typing import Any

import torch

from golden_maps import letter
from recbole_missing.model.slmrec import SLMRec

MODEL = SLMRec
UNUSED = {"g_a_iva.*": "no release uses it: the third modality is not contrasted"}
LINKS = (
    {"coarse_heads.0": "g_i_iv", "fine_heads": "g_v_iv"},
    {"coarse_heads.0": "g_iv_iva", "coarse_heads.1": "g_iva_ivat", "fine_heads": "g_t_ivat"},
)
"""Published heads of the chain's two links."""

LOOSE = {
    "fine_heads.*.bias": (4e-4, "a sum that nearly cancels; Adam turns its rounding into steps")
}


def settings(meta: dict[str, Any]) -> dict[str, Any]:
    published = meta["config"]
    return {
        "embedding_size": published["recdim"],
        "n_ui_layers": published["layer_num"],
        "temperature": published["temp"],
        "cl_weight": published["ssl_alpha"],
        "cl_temperature": published["ssl_temp"],
        "contrast_chain": "first_two",
        "ssl_rows": "lacking" if meta["variant"] == "dgmrec" else "all",
    }


def names(modalities: Any, meta: Any = None) -> dict[str, str]:
    layers = {
        "user_fusion": "embedding_user_after_GCN",
        "item_fusion": "embedding_item_after_GCN",
        **{f"projections.{name}": f"{letter(name)}_dense" for name in modalities},
    }
    for name, link in zip(modalities, LINKS):
        for ours, theirs in link.items():
            side, *layer = ours.split(".")
            layers[".".join([side, name, *layer])] = theirs
    return {
        "user_embedding": "embedding_user.weight",
        "item_embedding": "embedding_item.weight",
        **{
            f"{ours}.{part}": f"{theirs}.{part}"
            for ours, theirs in layers.items()
            for part in ("weight", "bias")
        },
    }


def terms(modalities: Any) -> dict[str, str]:
    contrasts = {f"cl_{name}": f"loss0_fac_{letter(name)}" for name in list(modalities)[:2]}
    return {"main": "loss0_infonce", **contrasts}


def optimizer(model: SLMRec, meta: dict[str, Any]) -> torch.optim.Optimizer:
    stored = meta["optimizer"]
    decay = 0.0 if meta["variant"] == "nodecay" else stored["weight_decay"]
    return torch.optim.Adam(model.parameters(), stored["lr"], weight_decay=decay)


def scores(products: torch.Tensor) -> torch.Tensor:
    return products.sigmoid()
