"""LGMRec: two and three modalities; the files were made without Gumbel noise."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from golden_maps import letter
from recbole_missing.model import lgmrec
from recbole_missing.model.lgmrec import LGMRec

MODEL = LGMRec


def settings(meta: dict[str, Any]) -> dict[str, Any]:
    published = meta["config"]
    same = ["embedding_size", "n_ui_layers", "n_mm_layers", "cl_weight", "reg_weight"]
    return {
        **{key: published[key] for key in same},
        "n_hyper_layers": published["n_hyper_layer"],
        "n_hyperedges": published["hyper_num"],
        "dropout": 1 - published["keep_rate"],
        "global_weight": published["alpha"],
        "temperature": 0.2,
        "contrast_items": "complete" if meta["variant"] == "dgmrec" else "all",
        "evaluation_noise": False,
    }


def names(modalities: Any, meta: Any = None) -> dict[str, str]:
    ours = {
        "user_embedding": "user_embedding.weight",
        "item_embedding": "item_id_embedding.weight",
    }
    for name in modalities:
        ours[f"features.{name}"] = f"{name}_embedding.weight"
        ours[f"projections.{name}"] = f"item_{name}_trs"
        ours[f"prototypes.{name}"] = f"{letter(name)}_hyper"
    return ours


def terms(modalities: Any) -> dict[str, str]:
    return {name: f"loss0_{name}" for name in ("bpr", "hcl_user", "hcl_item", "reg")}


def extra(model: LGMRec, npz: dict[str, np.ndarray]) -> None:
    """With the switch, scores have noise: one draw an evaluation."""
    quiet, _ = model.encode()
    model.evaluation_noise = True
    users = []
    for _ in range(2):
        with model.eval().scoring():
            users.append(model.embeddings()[0])
            assert model.embeddings()[0] is users[-1]
    assert not torch.allclose(users[0], users[1]) and not torch.allclose(users[0], quiet)
    model.evaluation_noise = False


def batch(model: LGMRec, npz: dict[str, np.ndarray], k: int, monkeypatch: Any) -> None:
    monkeypatch.setattr(
        lgmrec.F, "gumbel_softmax", lambda logits, tau, dim: (logits / tau).softmax(dim)
    )
