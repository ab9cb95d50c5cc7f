"""VBPR: MMRec puts the feature columns in the order text, image."""

from __future__ import annotations

from typing import Any

import numpy as np

from golden_maps import Published
from recbole_missing.model.vbpr import VBPR

MODEL = VBPR
UNUSED = {"item_raw_features": "the constant features themselves, taken from the data set"}
PUBLISHED_ORDER = ("text", "image", "audio")


def settings(meta: dict[str, Any]) -> dict[str, Any]:
    return {key: meta["config"][key] for key in ("embedding_size", "reg_weight")}


def names(modalities: Any, meta: Any = None) -> dict[str, Any]:
    order = [name for name in PUBLISHED_ORDER if name in modalities]
    starts = np.cumsum([0] + [modalities[name].dim for name in order])
    start = dict(zip(order, starts))
    columns = np.concatenate([start[m.name] + np.arange(m.dim) for m in modalities.values()])
    return {
        "user_embedding": "u_embedding",
        "item_embedding": "i_embedding",
        "projection.weight": Published(("item_linear.weight",), lambda weight: weight[:, columns]),
        "projection.bias": "item_linear.bias",
    }


def terms(modalities: Any) -> dict[str, str]:
    return {"bpr": "loss0_bpr", "reg": "loss0_reg"}
