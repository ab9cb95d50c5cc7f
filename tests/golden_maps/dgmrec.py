"""DGMRec: two modalities, three modalities, and two modalities with new items."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from golden_maps import Published, dense, letter, padded_graph
from recbole_missing.model.dgmrec import DGMRec

MODEL = DGMRec
PREFIXES = {"v": "image", "t": "text", "a": "audio"}
TRANSLATORS = {"v": "text2image", "t": "image2text", "a": "text2audio"}
SETTINGS = {
    "embedding_size": "embedding_size",
    "n_mm_layers": "n_mm_layers",
    "knn_k": "knn_k",
    "reg_weight": "reg",
    "recon_weight": "recon",
    "generation_weight": "additive",
    "inter_modal_weight": "interModal",
    "inter_modal_temperature": "interModalTemp",
    "intra_modal_weight": "intraModal",
    "intra_modal_temperature": "intraModalTemp",
    "align_weight": "alignBM",
    "align_temperature": "alignBMTemp",
    "club_weight": "sampler",
    "avg_lambda": "avg_lambda",
}
EPOCHS_BEFORE = 3
"""The published counter was preset to this, so that the work before batch 2 refreshes."""

UNUSED = {
    "*_adj": "graphs, compared in prepare and batch",
    "*_adj_infer": "graphs, compared in prepare and batch",
    "*_s_filter_trans.weight": "never used by the release",
    "user_*_prefer.weight": "never used by the release",
    "user_*_estimator.*": "never used by the release",
    "item_*_estimator.*": "estimators beyond those of the map",
}


def settings(meta: dict[str, Any]) -> dict[str, Any]:
    return {
        **{ours: meta["config"][theirs] for ours, theirs in SETTINGS.items()},
        "n_ui_layers": meta["fixed_in_code"]["n_ui_layers"],
        "knn_missing": "isolated_after_topk",
        "refresh_inference_graph": bool(meta["config"]["infer_adj_update"]),
        "score_on_refreshed_graph": False,
        "treat_modalities_alike": False,
    }


def names(modalities: Any, meta: Any = None) -> dict[str, str | Published]:
    mapped: dict[str, str | Published] = {
        "user_embedding": "user_embedding.weight",
        "item_embedding": "item_id_embedding.weight",
        "shared_encoder.weight": "shared_encoder.weight",
        "shared_encoder.bias": "shared_encoder.bias",
    }
    for position, name in enumerate(modalities):
        theirs = PREFIXES[letter(name)]
        mapped[f"features.{name}"] = f"{theirs}_embedding.weight"
        layers = {
            "decoder": f"{theirs}_decoder",
            **{f"generator.{layer}": f"{theirs}_gen.{layer}" for layer in (0, 2)},
            **{f"translator.{k}": f"{TRANSLATORS[letter(name)]}.{k}" for k in (0, 2)},
        }
        for ours, layer in layers.items():
            mapped[f"networks.{name}.{ours}.weight"] = f"{layer}.weight"
            mapped[f"networks.{name}.{ours}.bias"] = f"{layer}.bias"
        for kind in ("weight", "bias"):
            halves = (f"{theirs}_encoder.{kind}", f"{theirs}_encoder_s.{kind}")
            mapped[f"networks.{name}.encoder.{kind}"] = Published(halves, stacked)
        mapped[f"networks.{name}.gate.weight"] = f"{theirs}_g_filter_trans.weight"
        if position < 2:
            mapped.update(club_names(name, f"item_{theirs}_estimator"))
    return mapped


def stacked(*arrays: np.ndarray) -> np.ndarray:
    return np.concatenate(arrays)


def club_names(name: str, theirs: str) -> dict[str, str]:
    nets = {"mean": "p_mu", "log_variance": "p_logvar"}
    return {
        f"clubs.{name}.{ours}.{layer}.{kind}": f"{theirs}.{net}.{layer}.{kind}"
        for ours, net in nets.items()
        for layer in (0, 2)
        for kind in ("weight", "bias")
    }


def terms(modalities: Any) -> dict[str, str]:
    """CLUB is a tiny difference of large sums: only its rounding is relative to something else.

    Here it hides beside another term; :func:`batch` compares it alone.
    """
    return {
        "bpr + club": "loss0_bpr + loss0_sampler",
        "reg": "loss0_reg",
        "recon": "loss0_recon",
        "inter_modal": "loss0_interModal",
        "intra_modal": "loss0_intraModal",
        "align": "loss0_alignBM",
        "generation": "loss0_additive",
    }


def prepare(model: DGMRec, npz: dict[str, np.ndarray]) -> None:
    model.epochs_started.fill_(EPOCHS_BEFORE)
    kinds = {"adj": model.training_graphs, "adj_infer": model.inference_graphs}
    for kind, graphs in kinds.items():
        for name in graphs:
            stored = npz[f"param/{PREFIXES[letter(name)]}_{kind}"]
            ours = dense(graphs[name])
            if kind == "adj" and "new_items" in npz:
                # identical imputed rows tie: whichever is chosen, a row has the same values
                same(np.sort(ours, axis=1), np.sort(stored, axis=1), f"values of {kind} of {name}")
                graphs[name] = padded_graph(stored)
            else:
                same(ours, stored, f"initial {kind} of {name}")


def extra(model: DGMRec, npz: dict[str, np.ndarray]) -> None:
    """Collaborative vectors, raw parts and gates at the initial parameters."""
    gates = model._gates()
    raw, gated = model._disentangled(gates)
    users, items = model._nodes(gated, model.training_graphs)
    same(users.z[1:], npz["trace/cge_user"], "collaborative users")
    same(items.z[1:], npz["trace/cge_item"], "collaborative items")
    for name in model.modalities:
        theirs = letter(name)
        same(raw.general[name][1:], npz[f"trace/general_{theirs}"], f"general part of {name}")
        same(raw.specific[name][1:], npz[f"trace/specific_{theirs}"], f"specific part of {name}")
        same(gates[name][1:], npz[f"trace/filter_{theirs}"], f"gate of {name}")


def batch(model: DGMRec, npz: dict[str, np.ndarray], k: int, monkeypatch: Any) -> None:
    """Compare the state that the epoch work has left; the loss with noise; validation's work."""
    if k in (0, 2):
        compare_state(model, npz, "epoch1" if k == 0 else "epoch2")
    if k == 0:
        ids = {"user_id": "user", "item_id": "pos", "neg_item_id": "neg"}
        batch = {ours: torch.from_numpy(npz[f"batch0_{key}"]) + 1 for ours, key in ids.items()}
        with monkeypatch.context() as noisy, torch.no_grad():
            club = model.loss_terms(batch)["club"]
            same(club, npz["loss0_sampler"], "loss0 club", floor=1e-9)
            noisy.setattr(torch, "rand_like", lambda x: torch.full_like(x, 0.5))
            same(model.calculate_loss(batch), npz["noise05/loss0"], "loss0 with noise")
    if k == 3 and "new_items" in npz:
        validate_before_scoring(model, npz, monkeypatch)


def compare_state(model: DGMRec, npz: dict[str, np.ndarray], stage: str) -> None:
    """Tables, graphs and, where stored, estimators."""
    state = dict(model.named_parameters())
    for ours, theirs in names(model.modalities).items():
        if isinstance(theirs, str) and f"{stage}/{theirs}" in npz:
            value = state[ours][1:] if ours.startswith("features.") else state[ours]
            same(value, npz[f"{stage}/{theirs}"], f"{ours} at {stage}", floor=6e-6)
    kinds = {"adj": model.training_graphs, "adj_infer": model.inference_graphs}
    for kind, graphs in kinds.items():
        for name in graphs:
            stored = npz[f"{stage}/{PREFIXES[letter(name)]}_{kind}"]
            same(dense(graphs[name]), stored, f"{kind} of {name} at {stage}", floor=1e-5)


def validate_before_scoring(model: DGMRec, npz: dict[str, np.ndarray], monkeypatch: Any) -> None:
    """Let the next scores be those after ``on_validation_start``, as in the file.

    The file's parameters after four steps are the ones before that work, so they are put back.
    """
    predict = model.full_sort_predict

    def validated(interaction: dict[str, torch.Tensor]) -> torch.Tensor:
        before = {name: table.detach().clone() for name, table in model.features.items()}
        scores = predict(interaction).view(len(npz["scores4"]), -1)[:, 1:]
        same(scores, npz["scores4_before_hooks"], "scores4 before validation's work", floor=2e-6)
        model.on_validation_start()
        model.eval()  # as every evaluation of the trainer begins
        compare_state(model, npz, "infer")
        after = predict(interaction)
        with torch.no_grad():
            for name, table in before.items():
                model.features[name].copy_(table)
        return after

    monkeypatch.setattr(model, "full_sort_predict", validated)


def same(actual: Any, expected: np.ndarray, what: str, floor: float = 1e-6) -> None:
    actual = actual.detach().numpy() if isinstance(actual, torch.Tensor) else actual
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=floor, err_msg=what)
