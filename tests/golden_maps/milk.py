"""MILK: the recorded draws of the environments are replayed."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from golden_maps import projected_features
from recbole_missing.model.milk import MILK

MODEL = MILK
UNUSED = {
    "fusion_trs.*": "never used by the release",
    "modality_count": "built from the mask, compared by extra",
}
ROUNDING = 2.0**-23
"""Of a BPR loss near one in float32; the invariance weight, 1000, multiplies it."""

SCORES = {"scores4": 3e-4}
"""That rounding, after four steps: float32 and float64 of the same formula differ so much."""

LOOSE = {"*": (4e-5, "the tolerance of all models; gradients are compared by batch")}


def settings(meta: dict[str, Any]) -> dict[str, Any]:
    published = meta["config"]
    return {
        "embedding_size": published["embedding_size"],
        "reg_weight": published["reg_coeff"],
        "invariance_weight": published["penalty_coeff"],
        "align_weight": published["align_coeff"],
        "dirichlet_alpha": published["alpha"],
        "item_scale": "per_observed",
        "align_items": "no_lone_gap",
        "normalise_features": "a" not in meta["modalities"],
        "train_features": True,
    }


def names(modalities: Any, meta: Any = None) -> dict[str, str]:
    return {"user_embedding": "user_embedding.weight", **projected_features(modalities)}


def terms(modalities: Any) -> dict[str, str]:
    return {
        "bpr": "loss0_bpr_sum_weighted",
        "bpr + invariance": "loss0_bpr_sum_weighted + loss0_var_weighted",
        "reg": "loss0_reg_weighted",
        "align": "loss0_align_weighted",
    }


def extra(model: MILK, npz: dict[str, np.ndarray]) -> None:
    np.testing.assert_allclose(model.scale[1:], npz["param/modality_count"], rtol=1e-6)
    for name, modality in model.modalities.items():
        x = F.normalize(modality.features) if model.normalise_features else modality.features
        published = npz[f"param/{name}_embedding.weight"]
        np.testing.assert_allclose(x[1:], published, rtol=1e-5, atol=1e-7, err_msg=name)


def batch(model: MILK, npz: dict[str, np.ndarray], k: int, monkeypatch: Any) -> None:
    """Replay the draw; then look back at batch 0, whose gradients are still there."""
    drawn = torch.from_numpy(npz[f"batch{k}_env"])
    monkeypatch.setattr(model, "_draw", lambda: drawn)
    if k == 1:
        variance = float(model.last_terms["invariance"]) / model.invariance_weight
        published = float(npz["loss0_var"])
        np.testing.assert_allclose(variance**0.5, published**0.5, rtol=1e-5, atol=ROUNDING)
        compare_gradients(model, npz)


def compare_gradients(model: MILK, npz: dict[str, np.ndarray]) -> None:
    """A risk's rounding enters its weight, 1 + invariance weight times its excess over the mean.

    Computed in float64, the same formula differs from the file by a tenth of what is allowed here.
    """
    parameters = dict(model.named_parameters())
    for ours, theirs in names(model.modalities).items():
        grad, expected = parameters[ours].grad, npz[f"grad0/{theirs}"]
        grad = grad[-len(expected) :]  # without the padding row
        allowed = model.invariance_weight * ROUNDING * np.abs(expected).max()
        np.testing.assert_allclose(grad, expected, rtol=1e-5, atol=allowed, err_msg=ours)
