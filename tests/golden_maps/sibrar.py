"""SIBRAR: the recorded draws of two modalities a row are replayed."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import torch

from golden_maps import linear, projected_features
from recbole_missing.model.sibrar import SIBRAR

MODEL = SIBRAR
SCORES = {"scores4": 2e-5}
"""Float32 and float64 of the same formula differ so much after four steps of Adam."""

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
    branch = {**linear("branch.0", "fc1"), **linear("branch.2", "fc2")}
    tables = {
        "user_embedding": "user_embedding.weight",
        "item_embedding": "item_id_embedding.weight",
    }
    return {**tables, **branch, **projected_features(modalities)}


def terms(modalities: Any) -> dict[str, Any]:
    return {"bpr": "loss0_bpr", "cl": weighted_info}


def weighted_info(npz: dict[str, np.ndarray]) -> Any:
    return json.loads(str(npz["meta"]))["config"]["lamb"] * npz["loss0_info"]


def batch(model: SIBRAR, npz: dict[str, np.ndarray], k: int, monkeypatch: Any) -> None:
    drawn = torch.from_numpy(npz[f"batch{k}_modal"])
    monkeypatch.setattr(model, "_draw_pairs", lambda ids: drawn)
