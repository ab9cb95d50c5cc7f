"""A model of ours beside one golden file: load, compare, step, compare."""

from __future__ import annotations

from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import TinyDataset, tiny_config

from golden_maps import LETTERS, Published
from recbole_missing.modality import Modalities, Modality

RELATIVE = 1e-5
"""Published numbers are float32; two correct orders of summation differ by about 1e-6."""


class GoldenRun:
    """One model of ours beside one golden file."""

    def __init__(self, names: Any, npz: dict[str, np.ndarray], meta: dict[str, Any]) -> None:
        """Build the model on the file's data, with the file's settings."""
        self.map, self.npz, self.meta = names, npz, meta
        torch.manual_seed(0)
        self.dataset = golden_dataset(names, npz, meta)
        self.model = names.MODEL(tiny_config(**names.settings(meta)), self.dataset)
        self.state = {**dict(self.model.named_parameters()), **dict(self.model.named_buffers())}
        mapped = names.names(self.dataset.modalities, meta)
        self.sources = {
            ours: source if isinstance(source, Published) else Published((source,), as_it_is)
            for ours, source in mapped.items()
        }
        self.auxiliary = list(self.model.auxiliary_parameters())

    def load(self) -> None:
        """Load every published parameter; refuse one that the map forgot, on either side."""
        published = {key[6:] for key in self.npz if key.startswith("param/")}
        used = {name for source in self.sources.values() for name in source.names}
        unused = getattr(self.map, "UNUSED", {})
        forgotten = {name for name in published - used if not matches(name, unused)}
        assert not forgotten, f"published parameters without a place in the map: {forgotten}"
        random = {name for name, _ in self.model.named_parameters()} - set(self.sources)
        assert not random, f"parameters of ours without a published value: {random}"
        with torch.no_grad():
            for ours in self.sources:
                self.state[ours].copy_(torch.from_numpy(self.published("param", ours)))
        if hasattr(self.map, "prepare"):
            self.map.prepare(self.model, self.npz)

    def published(self, group: str, ours: str) -> np.ndarray:
        """Published array in our layout, a padding row of zeros included."""
        source = self.sources[ours]
        value = source.transform(*(self.npz[f"{group}/{name}"] for name in source.names))
        shape = tuple(self.state[ours].shape)
        if shape and shape == (value.shape[0] + 1, *value.shape[1:]):
            value = np.concatenate([np.zeros_like(value[:1]), value])
        value = np.ascontiguousarray(value).reshape(value.shape)
        assert value.shape == shape, f"{ours}: ours has {shape}, published {value.shape}"
        return value

    def optimizer(self) -> torch.optim.Optimizer:
        """Adam over what the main optimiser of the trainer owns."""
        if hasattr(self.map, "optimizer"):
            return self.map.optimizer(self.model, self.meta)
        skipped = {id(parameter) for parameter in self.auxiliary}
        trained = [p for p in self.model.parameters() if p.requires_grad and id(p) not in skipped]
        stored = self.meta["optimizer"] if isinstance(self.meta["optimizer"], dict) else {}
        return torch.optim.Adam(trained, self.rate, weight_decay=stored.get("weight_decay", 0.0))

    @property
    def rate(self) -> float:
        """Learning rate of the main optimiser."""
        return self.meta["lr"] if "lr" in self.meta else self.meta["optimizer"]["lr"]

    def step(self, k: int, optimizer: torch.optim.Optimizer, monkeypatch: Any) -> None:
        """Compare the loss of batch k (its parts and gradients at batch 0) and make one step."""
        self.model.train()
        if k in (0, 2):
            self.epoch_work(k)
        if hasattr(self.map, "batch"):
            self.map.batch(self.model, self.npz, k, monkeypatch)
        fields = {"user_id": "user", "item_id": "pos", "neg_item_id": "neg"}
        ids = {ours: self.npz[f"batch{k}_{name}"] + 1 for ours, name in fields.items()}
        interaction = {key: torch.from_numpy(ids[key]) for key in ids}
        self.model.on_batch_start(interaction, self.minimise)
        optimizer.zero_grad()
        loss = self.model.calculate_loss(interaction)
        share = getattr(self.map, "LOSS", 0.0)
        close(loss, self.npz[f"loss{k}"], f"loss{k}", floor=share * float(self.npz[f"loss{k}"]))
        loss.backward()
        if k == 0:
            self.compare_terms()
            self.compare_gradients()
        optimizer.step()

    def epoch_work(self, k: int) -> None:
        """Do what the trainer does before the first batch of an epoch."""
        if hasattr(self.map, "epoch"):
            self.map.epoch(self.model, k)
            return
        if k == 0 and self.auxiliary:
            options = self.model.auxiliary_options
            self.auxiliary_optimizer = torch.optim.Adam(self.auxiliary, **options)
        self.model.on_epoch_start(self.minimise)

    def minimise(self, loss: torch.Tensor) -> None:
        """Make one step of the second optimiser."""
        self.auxiliary_optimizer.zero_grad()
        loss.backward()
        self.auxiliary_optimizer.step()

    # ---------------------------------------------------------------------------- comparisons

    def compare_scores(self, key: str) -> None:
        """Compare full-sort scores in evaluation mode."""
        self.model.eval()
        if hasattr(self.map, "before_scores"):
            self.map.before_scores(self.model, self.npz, key)
        n_users, n_items = self.npz[key].shape
        users = torch.arange(1, n_users + 1)
        products = self.model.full_sort_predict({"user_id": users}).view(n_users, n_items + 1)
        ours = getattr(self.map, "scores", as_it_is)(products[:, 1:])
        share = getattr(self.map, "SCORES", {}).get(key, 0.0)
        close(ours, self.npz[key], key, floor=share * float(np.abs(self.npz[key]).max()))

    def compare_terms(self) -> None:
        """Compare the parts of the last loss, all of ours."""
        if not any(key.startswith("loss0_") for key in self.npz):
            return  # the three-modality extras store whole losses only
        ours = {name: float(term) for name, term in self.model.last_terms.items()}
        terms = self.map.terms(self.dataset.modalities)
        named = {name for joined in terms for name in joined.split(" + ")}
        assert named == set(ours), f"terms in the map {named}, of the model {set(ours)}"
        weights = self.meta.get("loss_parts", {})
        for joined, key in terms.items():
            value = sum(ours[name] for name in joined.split(" + "))
            parts = [] if callable(key) else key.split(" + ")
            weighted = [weights.get(part[6:], 1.0) * self.npz[part] for part in parts]
            expected = key(self.npz) if callable(key) else sum(weighted)
            floor = getattr(self.map, "LOSS", 0.0) * abs(float(expected))
            close(np.float32(value), np.float32(expected), f"loss0 {joined}", floor=floor)

    def compare_gradients(self) -> None:
        """Compare gradients of the last loss, where the file has them."""
        for ours, source in self.sources.items():
            if not all(f"grad0/{name}" in self.npz for name in source.names) or self.loose(ours):
                continue
            expected, grad = self.published("grad0", ours), self.state[ours].grad
            grad = torch.zeros_like(self.state[ours]) if grad is None else grad
            # 1e-8: below this a gradient is the rounding noise of a sum whose true value is zero
            close(grad, expected, f"gradient of {ours}", floor=1e-8)

    def compare_parameters(self) -> None:
        """Compare what four steps made of every parameter."""
        # Adam moves an entry by up to its rate however small the gradient is, so rounding noise
        # in a tiny gradient grows to a visible fraction of that: one percent of four steps.
        floor = 0.01 * 4 * self.rate
        for ours, source in self.sources.items():
            if not all(f"param4/{name}" in self.npz for name in source.names):
                continue
            loose = self.loose(ours)
            if loose is None or loose[0] is not None:
                allowed = floor if loose is None else loose[0]
                close(self.state[ours], self.published("param4", ours), f"{ours} after 4", allowed)
        left = {key[7:] for key in self.npz if key.startswith("param4/")}
        left -= {name for source in self.sources.values() for name in source.names}
        unused = getattr(self.map, "UNUSED", {})
        assert all(matches(name, unused) for name in left), f"not compared: {left}"

    def loose(self, ours: str) -> tuple[float | None, str] | None:
        """Entry of the map's ``LOOSE`` for a name of ours."""
        table = getattr(self.map, "LOOSE", {})
        return next((table[pattern] for pattern in table if fnmatch(ours, pattern)), None)


# ------------------------------------------------------------------------------ small helpers


def variants(file: Path) -> list[str]:
    """Names of the versions in a file; the empty one is the file itself."""
    with np.load(file) as stored:
        found = {key.split("/")[0][8:] for key in stored.files if key.startswith("variant_")}
    return ["", *sorted(found)]


def of_variant(npz: dict[str, np.ndarray], name: str, complete: bool) -> dict[str, np.ndarray]:
    """The file as this version would have written it; with ``complete`` nothing is missing."""
    prefix = f"variant_{name}/"
    own = {key[len(prefix) :]: value for key, value in npz.items() if key.startswith(prefix)}
    inputs = ("n_users", "n_items", "train_", "feat_", "missing_", "batch", "param/", "imputed_")
    given = {key: value for key, value in npz.items() if key.startswith((*inputs, "graph/"))}
    if complete:
        missing = [key for key in given if key.startswith("missing_")]
        given.update({key: given[key][:0] for key in missing})
        given = {key: value for key, value in given.items() if "imputed" not in key}
    return {**given, **own}


def as_it_is(array: Any) -> Any:
    return array


def matches(name: str, patterns: dict[str, Any]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)


def close(actual: Any, expected: np.ndarray, what: str, floor: float | None = None) -> None:
    """Relative 1e-5, or ``floor`` for entries near zero (else 1e-6 of the largest entry)."""
    actual = actual.detach().numpy() if isinstance(actual, torch.Tensor) else actual
    largest = float(np.abs(expected).max(initial=0.0))
    floor = max(floor or 0.0, 1e-6 * largest)
    np.testing.assert_allclose(actual, expected, rtol=RELATIVE, atol=floor, err_msg=what)


def without_randomness(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the draws that the golden files were made with: zeros, and n-1..0."""
    for name in ("rand_like", "randn_like"):
        monkeypatch.setattr(torch, name, torch.zeros_like)
    for name in ("rand", "randn"):
        monkeypatch.setattr(torch, name, zeros_instead)
    monkeypatch.setattr(torch, "randperm", lambda n, **_: torch.arange(n - 1, -1, -1))


def zeros_instead(*size: Any, generator: Any = None, **options: Any) -> torch.Tensor:
    return torch.zeros(*size, **options)


def golden_dataset(names: Any, npz: dict[str, np.ndarray], meta: dict[str, Any]) -> TinyDataset:
    """The file's data with ids + 1 and a padding row of zeros."""
    n_users, n_items = int(npz["n_users"]) + 1, int(npz["n_items"]) + 1
    modalities = []
    for letter in meta["modalities"]:
        observed = torch.from_numpy(observed_items(npz, letter))
        features = getattr(names, "features", given_features)(npz, letter)
        padded = torch.from_numpy(np.pad(features, ((1, 0), (0, 0))))
        modalities.append(Modality(LETTERS[letter], padded, observed))
    users, items = npz["train_user"] + 1, npz["train_item"] + 1
    new_items = torch.zeros(n_items).bool()
    new_items[npz.get("new_items", np.zeros(0, int)) + 1] = True
    edges = torch.from_numpy(users), torch.from_numpy(items)
    return TinyDataset(*edges, n_users, n_items, Modalities(modalities), new_items)


def observed_items(npz: dict[str, np.ndarray], letter: str) -> np.ndarray:
    """Bool ``(n_items + 1,)``; the key ``missing_tv`` lists items that lack text and image."""
    observed = np.ones(int(npz["n_items"]) + 1, dtype=bool)
    observed[0] = False
    for key, items in npz.items():
        if key.startswith("missing_") and (key == "missing_all" or letter in key[8:]):
            observed[items + 1] = False
    return observed


def given_features(npz: dict[str, np.ndarray], letter: str) -> np.ndarray:
    """Features that the published model received: mean-imputed where a file holds raw ones."""
    for key in (f"imputed_{letter}", f"feat_{letter}_imputed"):
        if key in npz:
            return npz[key]
    features, observed = npz[f"feat_{letter}"].copy(), observed_items(npz, letter)[1:]
    features[~observed] = features[observed].mean(axis=0)
    return features
