"""BM3: the published names of modalities are ours."""

from __future__ import annotations

from typing import Any

from golden_maps import identities, linear, projected_features
from recbole_missing.model.bm3 import BM3

MODEL = BM3
UNUSED = {"norm_adj": "built from the interactions; the scores depend on it"}


def settings(meta: dict[str, Any]) -> dict[str, Any]:
    published = meta["config"]
    same = ("embedding_size", "reg_weight", "cl_weight", "dropout")
    return {**{key: published[key] for key in same}, "n_ui_layers": published["n_layers"]}


def names(modalities: Any, meta: Any = None) -> dict[str, str]:
    predictor = linear("predictor", "predictor")
    return {**identities(), **predictor, **projected_features(modalities)}


def terms(modalities: Any) -> dict[str, str]:
    return {"graph": "loss0_graph", "cl": "loss0_cl", "reg": "loss0_reg"}
