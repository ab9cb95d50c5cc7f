"""SIBRAR: the recorded draws of two modalities a row are replayed."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import torch

from recbole_missing.model.sibrar import SIBRAR

MODEL = SIBRAR
UNUSED = {
    "b_norm.*": "never used by the release",
    "modality_count": "never used by the release",
}


def settings(meta: dict[str, Any]) -> dict[str, Any]:
    return {
        "embedding_size": meta["param_shapes"]["user_embedding.weight"][1],
        "cl_weight": meta["config"]["lamb"],
        "temperature": meta["config"]["temp"],
        "modality_pool": "all",
    }


def names(modalities: Any, meta: Any = None) -> dict[str, str]:
    ours = {"user": "user_embedding.weight", "item": "item_id_embedding.weight"}
    layers = {"branch.0": "fc1", "branch.2": "fc2"}
    for name in modalities:
        ours[f"features.{name}"] = f"{name}_embedding.weight"
        layers[f"projections.{name}"] = f"{name}_trs"
    for layer, theirs in layers.items():
        ours[f"{layer}.weight"], ours[f"{layer}.bias"] = f"{theirs}.weight", f"{theirs}.bias"
    return ours


def terms(modalities: Any) -> dict[str, Any]:
    return {"bpr": "loss0_bpr", "cl": weighted_info}


def weighted_info(npz: dict[str, np.ndarray]) -> Any:
    return json.loads(str(npz["meta"]))["config"]["lamb"] * npz["loss0_info"]


def batch(model: SIBRAR, npz: dict[str, np.ndarray], k: int, monkeypatch: Any) -> None:
    drawn = torch.from_numpy(npz[f"batch{k}_modal"])
    monkeypatch.setattr(model, "_draw_pairs", lambda ids: drawn)
