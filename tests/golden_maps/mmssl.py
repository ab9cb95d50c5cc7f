"""MMSSL: two optimisers; the file's batches as one epoch of four and as two of two."""

from __future__ import annotations

import copy
import json
from typing import Any

import numpy as np
import pytest
import torch

from recbole_missing.model import mmssl
from recbole_missing.model.mmssl import MMSSL

MODEL = MMSSL
LAYERS = {"first": "0", "rest.0": "2", "rest.2": "4", "rest.3": "6", "rest.5": "8"}
"""Layers of our critic -> published numbers; activations stand between them."""

UNUSED = {
    "D.net.[04].bias": "cancelled by the normalisation behind it",
    "D.net.*.running_*": "never read: the critic judges by the statistics of its input",
    "D.net.*.num_batches_tracked": "never read",
    "encoder.*": "the same tensors as *_trans",
    "*common_trans.*": "never used by the release",
    "batch_norm.*": "never used by the release",
    "*_embedding.weight": "constant features",
    "weight_dict.w_k": "never used by the release",
    "weight_dict.w_v": "never used by the release",
    "weight_dict.w_self_attention_item": "never used by the release",
    "weight_dict.w_self_attention_user": "never used by the release",
    "weight_dict.w_q": "used without effect: it only decays",
}
LOOSE = {
    "critic.rest.0.bias": (None, "without dropout the next normalisation cancels it: noise"),
}


def settings(meta: dict[str, Any]) -> dict[str, Any]:
    published = meta["config"]
    meta.setdefault("lr", published["lr"])  # read by the comparison of parameters
    return {
        "embedding_size": published["embed_size"],
        "n_ui_layers": len(json.loads(published["weight_size"])),
        "n_heads": published["head_num"],
        "dropout": published["drop_rate"],
        "guide_weight": published["id_cat_rate"],
        "content_weight": published["model_cat_rate"],
        "reg_weight": json.loads(published["regs"])[0],
        "content_reg_weight": published["feat_reg_decay"],
        "cl_weight": published["cl_rate"],
        "temperature": published["tau"],
        "adversarial_weight": published["G_rate"],
        "critic_learning_rate": published["D_lr"],
        "critic_dropout": [published["G_drop1"], published["G_drop2"]],
        "penalty_weight": 0.3 * published["gp_rate"],
        "real_noise": published["log_log_scale"] / published["real_data_tau"],
        "real_score_weight": published["ui_pre_scale"],
        "graph_update": "released",
        "graph_interval": published["T"],
        "graph_top_share": published["m_topk_rate"],
        "train_batch_size": published["batch_size"],
    }


def names(modalities: Any, meta: Any = None) -> dict[str, str]:
    ours = {
        "user_embedding": "user_id_embedding.weight",
        "item_embedding": "item_id_embedding.weight",
        "heads": "weight_dict.w_self_attention_cat",
    }
    for name in modalities:
        for part in ("weight", "bias"):
            ours[f"projections.{name}.{part}"] = f"{name}_trans.{part}"
    for layer, number in LAYERS.items():
        ours[f"critic.{layer}.weight"] = f"D.net.{number}.weight"
        if layer not in ("first", "rest.2"):
            ours[f"critic.{layer}.bias"] = f"D.net.{number}.bias"
    return ours


def terms(modalities: Any) -> dict[str, Any]:
    weighted = {
        f"cl_{name}": lambda npz, name=name: rate(npz, "cl_rate") * npz[f"loss0_cl_{name}"]
        for name in modalities
    }
    return {
        "bpr": "loss0_bpr",
        "reg": "loss0_emb_weighted",
        "content_reg": "loss0_feat_weighted",
        "adversarial": lambda npz: rate(npz, "G_rate") * npz["loss0_adv"],
        **weighted,
    }


def rate(npz: dict[str, np.ndarray], key: str) -> float:
    return json.loads(str(npz["meta"]))["config"][key]


def optimizer(model: MMSSL, meta: dict[str, Any]) -> torch.optim.Optimizer:
    options = meta["optimizer"]["generator"]
    critic = {id(parameter) for parameter in model.auxiliary_parameters()}
    main = [p for p in model.parameters() if id(p) not in critic]
    return torch.optim.AdamW(main, options["lr"], weight_decay=options["weight_decay"])


def batch(model: MMSSL, npz: dict[str, np.ndarray], k: int, monkeypatch: Any) -> None:
    """Go on with the epoch at batch 2; compare the graphs and the critic's terms."""
    if k == 2:
        model.batch_number = 2
    if k == 1:
        compare_scores(model, npz, "scores1")
        compare_critic(model, npz, "afterD1")
    compare_batch(model, npz, k, "")


def extra(model: MMSSL, npz: dict[str, np.ndarray]) -> None:
    """Intermediate values at the initial parameters, recorded draws, two epochs of two batches."""
    model = copy.deepcopy(model)
    compare_forward(model, npz)
    compare_gradients_of_critic(model, npz)
    compare_with_draws(copy.deepcopy(model), npz)
    two_epochs(copy.deepcopy(model), npz)


def compare_forward(model: MMSSL, npz: dict[str, np.ndarray]) -> None:
    with torch.no_grad():
        content, guides = model._content(), model._guides()
        for final, key in zip(model._final(content, guides), ("ua", "ia")):
            same(final[1:], npz[f"mid0/G_{key}_embeddings"], f"final {key}")
        for m, name in enumerate(model.modalities):
            same(content[0][1:, m], npz[f"mid0/G_{name}_user_embeds"], f"user content of {name}")
            same(content[1][1:, m], npz[f"mid0/G_{name}_item_embeds"], f"item content of {name}")
            same(guides[0][name][1:], npz[f"mid0/G_{name}_user_id"], f"guide of {name}")
        compare_rows(model, npz, content, model._final(content, guides))


def compare_rows(model: MMSSL, npz: dict[str, np.ndarray], content: Any, final: Any) -> None:
    """What the critic is shown: rows of scores, and real rows without and with the draws."""
    user_ids = ids_of_batch(npz, 0)["user_id"]
    seen = mmssl.seen_items(model.interactions, user_ids)
    fakes = mmssl.score_rows(content[0][user_ids], content[1][1:], seen)
    for name, fake in zip(model.modalities, fakes):
        same(fake, npz[f"mid0/{name}_u_sim_detach"], f"scores by {name}")
    (scores,) = mmssl.score_rows(final[0][user_ids, None], final[1][1:, None], seen)
    same(scores, npz["mid0/ui_u_sim_detach"], "scores")
    draws = {"": torch.zeros(scores.shape), "rand/": torch.from_numpy(npz["rand/uniform"])}
    for group, uniform in draws.items():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch, "rand", lambda *_, uniform=uniform, **__: uniform)
            weights = model.real_noise, model.real_score_weight
            real = mmssl.real_rows(seen, scores, torch.arange(len(seen)), *weights)
        same(real, npz[f"{group}mid0/u_ui"], f"{group}real rows")


def compare_gradients_of_critic(model: MMSSL, npz: dict[str, np.ndarray]) -> None:
    critic_loss(model.train(), npz, 0).backward()
    parameters = dict(model.critic.named_parameters())
    largest = max(np.abs(value).max() for key, value in npz.items() if key.startswith("gradD0/"))
    floor = 1e-6 * float(largest)  # some biases' gradients are sums that nearly cancel
    for layer, number in LAYERS.items():
        for part in ("weight", "bias"):
            ours = f"{layer}.{part}"
            if ours in parameters and (layer, part) != ("rest.0", "bias"):
                expected = npz[f"gradD0/net.{number}.{part}"]
                same(parameters[ours].grad, expected, f"gradient of {ours}", floor)
    model.zero_grad()


def compare_with_draws(model: MMSSL, npz: dict[str, np.ndarray]) -> None:
    """Batch 0 with the recorded draws of real rows and of the penalty."""
    model.train()
    steps = Steps(model, npz)
    with pytest.MonkeyPatch.context() as patch:
        draws = [torch.from_numpy(npz[f"rand/{key}"]) for key in ("uniform", "alpha")]
        patch.setattr(torch, "rand", lambda *size, **_: next_draw(draws, size))
        compare_terms_of_critic(model, npz, 0, "rand/")
        draws[:] = [torch.from_numpy(npz[f"rand/{key}"]) for key in ("uniform", "alpha")]
        steps.run(0, "rand/")


def next_draw(draws: list[torch.Tensor], size: tuple[Any, ...]) -> torch.Tensor:
    draw = draws.pop(0)
    shape = tuple(size[0]) if isinstance(size[0], (tuple, list)) else tuple(size)
    assert draw.shape == shape
    return draw


def two_epochs(model: MMSSL, npz: dict[str, np.ndarray]) -> None:
    """The same batches as two epochs of two: a learned graph serves the last scores."""
    steps = Steps(model, npz)
    for k in range(4):
        model.train()
        if k in (0, 2):
            model.on_epoch_start(steps.minimise)
        compare_batch(model, npz, k, "two_epochs/")
        steps.run(k, "two_epochs/")
    compare_graphs(model, npz, "two_epochs/", 3)
    compare_scores(model, npz, "two_epochs/scores4")


class Steps:
    """Both optimisers of a copy of the model."""

    def __init__(self, model: MMSSL, npz: dict[str, np.ndarray]) -> None:
        """Create them as the release does."""
        self.model, self.npz = model, npz
        self.main = optimizer(model, json.loads(str(npz["meta"])))
        self.critic = torch.optim.Adam(model.auxiliary_parameters(), **model.auxiliary_options)

    def minimise(self, loss: torch.Tensor) -> None:
        """Make one step of the critic."""
        self.critic.zero_grad()
        loss.backward()
        self.critic.step()

    def run(self, k: int, group: str) -> None:
        """One batch; its loss is that of the file."""
        interaction = ids_of_batch(self.npz, k)
        self.model.on_batch_start(interaction, self.minimise)
        loss = self.model.calculate_loss(interaction)
        same(loss, self.npz[f"{group}loss{k}"], f"{group}loss{k}")
        self.main.zero_grad()
        loss.backward()
        self.main.step()


def ids_of_batch(npz: dict[str, np.ndarray], k: int) -> dict[str, torch.Tensor]:
    ours = {"user_id": "user", "item_id": "pos", "neg_item_id": "neg"}
    return {key: torch.from_numpy(npz[f"batch{k}_{name}"]) + 1 for key, name in ours.items()}


def critic_loss(model: MMSSL, npz: dict[str, np.ndarray], k: int) -> torch.Tensor:
    losses: list[torch.Tensor] = []
    model.on_batch_start(ids_of_batch(npz, k), losses.append)
    return losses[0]


def compare_batch(model: MMSSL, npz: dict[str, np.ndarray], k: int, group: str) -> None:
    """State that batch k - 1 has left, and what the critic minimises on batch k."""
    if k:
        compare_graphs(model, npz, group, k - 1)
    compare_terms_of_critic(model, npz, k, group)
    same(critic_loss(model, npz, k), npz[f"{group}lossD{k}"], f"{group}lossD{k}")


def compare_terms_of_critic(model: MMSSL, npz: dict[str, np.ndarray], k: int, group: str) -> None:
    found = model.critic_terms(ids_of_batch(npz, k)["user_id"])
    found["gp"] = model.penalty_weight * found.pop("penalty")
    for part, value in found.items():
        same(value, npz[f"{group}lossD{k}_{part}"], f"{group}lossD{k}_{part}")


def compare_graphs(model: MMSSL, npz: dict[str, np.ndarray], group: str, k: int) -> None:
    """Graphs and collected pairs after batch k, both directions."""
    n_users, n_items = int(npz["n_users"]), int(npz["n_items"])
    for name in model.modalities:
        pairs = npz[f"{group}queue{k}/{name}_user"], npz[f"{group}queue{k}/{name}_item"]
        queued = np.zeros((n_users, n_items), np.float32)
        np.add.at(queued, pairs, 1)
        rows, cols, values = model.collected_pairs[name].edges()
        ours = torch.zeros(n_users + 1, n_items + 1)
        ours[rows, cols] = values
        same(ours[1:, 1:], queued, f"{group}collected of {name} after {k}")
        to_users = mmssl.sum_over_items(model.modality_graphs[name], torch.eye(n_items + 1))
        to_items = mmssl.sum_over_users(model.modality_graphs[name], torch.eye(n_users + 1))
        for key, ours in (("ui", to_users), ("iu", to_items)):
            prefix = f"{group}graph_after{k}/{name}_{key}_graph"
            published = np.zeros(tuple(size - 1 for size in ours.shape), np.float32)
            published[npz[f"{prefix}_row"], npz[f"{prefix}_col"]] = npz[f"{prefix}_val"]
            same(ours[1:, 1:], published, prefix)


def compare_critic(model: MMSSL, npz: dict[str, np.ndarray], group: str) -> None:
    parameters = dict(model.critic.named_parameters())
    for layer, number in LAYERS.items():
        expected = npz[f"{group}/D.net.{number}.weight"]
        same(parameters[f"{layer}.weight"], expected, f"{layer} at {group}", floor=2e-6)


def compare_scores(model: MMSSL, npz: dict[str, np.ndarray], key: str) -> None:
    training = model.training
    n_users, n_items = npz[key].shape
    users = torch.arange(1, n_users + 1)
    scores = model.eval().full_sort_predict({"user_id": users}).view(n_users, n_items + 1)
    same(scores[:, 1:], npz[key], key)
    model.train(training)


def same(actual: Any, expected: np.ndarray, what: str, floor: float = 0.0) -> None:
    actual = actual.detach().numpy() if isinstance(actual, torch.Tensor) else actual
    floor = max(floor, 1e-6 * float(np.abs(expected).max(initial=0.0)))
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=floor, err_msg=what)
