"""The two leaks that define the field: hidden features, and interactions held out of training.

Each test runs the same thing again, with something changed that training must not see, and
compares bit for bit: modalities, batches, losses of every batch, scores after training. A control
beside each changes what training may see, so that the comparison is known to notice.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from folders import AT_WORK, COLD, Content, prepare, tiny_content
from folders import workplace as workplace
from PIL import Image
from tiny_models import clip_model, text_model

from recbole_missing.imputation import IMPUTERS
from recbole_missing.model import MODELS

pytestmark = AT_WORK

MASKS = {
    "random_items": {"missing_protocol": "random_items", "missing_ratio": 0.4},
    "stratified": {"missing_protocol": "stratified", "missing_ratio": 0.4},
    "file": {"missing_protocol": "file", "missing_file": "lacks.tsv"},
    "new_items": {
        "missing_protocol": "stratified",
        "missing_ratio": 0.4,
        "new_items": "stratified",
    },
}
# Every imputer with the mask that hides most, and one imputer with every mask: no imputer is told
# how a mask was made.
CASES = [(name, "new_items") for name in IMPUTERS]
CASES += [("featprop", mask) for mask in MASKS if mask != "new_items"]
NAMES = ("image", "title", "tags")


def trace(model: str, settings: dict[str, Any], **changes: Any) -> dict[str, list[torch.Tensor]]:
    """All that a run of two epochs makes of its data, in tensors."""
    run = prepare(model, settings, epochs=2, train_batch_size=100, **changes)
    modalities = run.dataset.modalities
    seen: dict[str, list[torch.Tensor]] = {
        "ids": [torch.tensor([hash(t) for t in run.dataset.field2id_token["item_id"].tolist()])],
        "new": [run.dataset.new_items],
        "observed": [modalities.observed],
        "features": [modality.features for modality in modalities.values()],
        "batches": [],
        "losses": [],
    }
    trainer = run.trainer()
    calculate_loss = trainer.model.calculate_loss

    def noted(batch: Any) -> torch.Tensor:
        loss = calculate_loss(batch)
        seen["batches"] += [batch[column].clone() for column in sorted(batch.columns)]
        seen["losses"] += [*trainer.model.last_terms.values(), loss.detach()]
        return loss

    trainer.model.calculate_loss = noted
    trainer.fit(run.train, run.valid, saved=False)
    return {**seen, "scores": [run.scores(trainer.model)]}


def differing(one: dict[str, list[torch.Tensor]], other: dict[str, list[torch.Tensor]]) -> set[str]:
    """Names of what is not bit-identical in both."""
    return {
        name
        for name in one
        if len(one[name]) != len(other[name])
        or not all(torch.equal(a, b) for a, b in zip(one[name], other[name]))
    }


# ---------------------------------------------------------------------------- hidden features


def hidden_items(settings: dict[str, Any], mask: dict[str, Any]) -> dict[str, list[str]]:
    """Tokens of the items that a mask hides, without those that lack the modality by nature."""
    masked, whole = (
        prepare("VBPR", settings, **changes).dataset.modalities
        for changes in (mask, {**mask, "missing_protocol": "none", "missing_file": None})
    )
    tokens = prepare("VBPR", settings).dataset.field2id_token["item_id"]
    return {
        name: tokens[(whole[name].observed & ~masked[name].observed).numpy()].tolist()
        for name in NAMES
    }


def with_other_features(content: Content, items: dict[str, list[str]]) -> Content:
    """Other images, titles and tags of some items; new words, larger numbers, other lengths."""
    image = content.image.copy()
    for item in items["image"]:
        image[content.row(item)] = 1000 + np.arange(image.shape[1])
    titles = {item: f"zebra{n} quux red red" for n, item in enumerate(items["title"])}
    tags = {item: f"x{n} a y" for n, item in enumerate(items["tags"])}
    return replace(
        content, image=image, titles={**content.titles, **titles}, tags={**content.tags, **tags}
    )


class Untouched:
    """The data set as it is, and what was found of it: many tests compare with the same run."""

    def __init__(self, folder: Path) -> None:
        """Write the data set."""
        self.settings = tiny_content().write(folder)
        self.found: dict[str, Any] = {}

    def trace(self, model: str, **changes: Any) -> dict[str, list[torch.Tensor]]:
        """:func:`trace` of a run, made once."""
        key = repr((model, sorted(changes.items())))
        if key not in self.found:
            self.found[key] = trace(model, self.settings, **changes)
        return self.found[key]

    def hidden(self, mask: dict[str, Any]) -> dict[str, list[str]]:
        """:func:`hidden_items` of a mask, found once."""
        key = repr(sorted(mask.items()))
        if key not in self.found:
            self.found[key] = hidden_items(self.settings, mask)
        return self.found[key]


@pytest.fixture(scope="session")
def untouched(tmp_path_factory):
    return Untouched(tmp_path_factory.mktemp("untouched"))


@pytest.fixture
def features_changed(untouched, tmp_path):
    """Settings of a data set that differs in the features of hidden (or shown) items."""

    def build(mask: dict[str, Any], shown: bool = False) -> dict[str, Any]:
        content = tiny_content()
        hidden = untouched.hidden(mask)
        assert all(hidden.values())
        if shown:
            others = {*hidden["tags"], COLD}
            hidden = {name: [item for item in content.tags if item != COLD][:1] for name in NAMES}
            assert not set(hidden["tags"]) & others
        return with_other_features(content, hidden).write(tmp_path / "other")

    return build


@pytest.mark.parametrize(("imputation", "mask"), CASES)
def test_hidden_features_change_nothing(untouched, features_changed, imputation, mask):
    changes = {"imputation": imputation, "imputation_epochs": 2, **MASKS[mask]}
    other = trace("VBPR", features_changed(MASKS[mask]), **changes)
    assert differing(untouched.trace("VBPR", **changes), other) == set()


@pytest.mark.parametrize("model", [name for name in MODELS if name != "VBPR"])
def test_hidden_features_change_no_model(untouched, features_changed, model):
    mask = MASKS["new_items"]
    other = trace(model, features_changed(mask), **mask)
    assert differing(untouched.trace(model, **mask), other) == set()


def test_hidden_vectors_in_columns_change_nothing(tmp_path):
    """The third encoder of columns, and a matrix in the order of item ids."""
    content, mask = tiny_content(), MASKS["random_items"]
    numbers = {item: f"{n} {n % 3} 1" for n, item in enumerate(content.titles)}
    content = replace(content, titles=numbers, tags={item: "a" for item in content.tags})
    vector = {"modalities": ["title"], "title_encoder": "vector", "title_dim": None}
    vector = {**vector, **mask}
    settings = [content.write(tmp_path / "one")]
    masked = prepare("VBPR", settings[0], **vector).dataset
    hidden = masked.field2id_token["item_id"][masked.modalities["title"].missing.numpy()].tolist()
    assert len(hidden) >= 11
    changed = {**numbers, **{item: "9 9 9" for item in hidden}}
    settings.append(replace(content, titles=changed).write(tmp_path / "other"))
    assert differing(*(trace("VBPR", one, **vector) for one in settings)) == set()


def draw(folder: Path, colours: dict[str, tuple[int, int, int]]) -> None:
    """A picture of one colour, and of a darker half, for every item."""
    folder.mkdir(exist_ok=True)
    for item, colour in colours.items():
        picture = Image.new("RGB", (16, 16), colour)
        picture.paste(tuple(value // 2 for value in colour), (0, 0, 8, 16))
        picture.save(folder / f"{item}.png")


def encoded_by(encoder: str, folder: Path) -> dict[str, Any]:
    """Settings of a modality that is encoded content by content; its model lies in a folder."""
    if encoder == "sentence":
        return {"title_columns": ["title"], "title_model": str(text_model(folder / "text"))}
    if encoder == "clip":
        return {"title_images": "photos", "title_model": str(clip_model(folder / "clip"))}
    return {"title_images": "photos", "title_dim": 4}


@pytest.mark.parametrize(
    ("encoder", "cache"),
    [("pixels", True), ("clip", True), ("sentence", True), ("pixels", False)],
)
def test_hidden_pictures_and_sentences_change_nothing(tmp_path, encoder, cache):
    """One cache for both data sets: rows of the other one must not show either."""
    content, mask = tiny_content(), MASKS["stratified"]
    colours = {
        item: (9 * n % 250, 40 * n % 250, 5 * n) for n, item in enumerate(sorted(content.titles))
    }
    none = dict.fromkeys(("title_columns", "title_encoder", "title_dim"))
    settings = {**none, **encoded_by(encoder, tmp_path), **mask, "modalities": ["title"]}
    settings |= {"encoder_cache": cache, "checkpoint_dir": str(tmp_path / "saved")}
    one = {**content.write(tmp_path / "one"), **settings}
    draw(tmp_path / "one" / "tiny" / "photos", colours)
    dataset = prepare("VBPR", one).dataset
    masked, true = dataset.known["title"], dataset.true_features()["title"]
    gone = true.observed & ~masked.observed
    assert gone.sum() >= 6 and not masked.features[gone].any() and true.features[gone].any(dim=1)[0]
    assert torch.equal(true.features[masked.observed], masked.features[masked.observed])
    hidden = dataset.field2id_token["item_id"][gone.numpy()].tolist()
    changed = {**content.titles, **{item: f"war {n} sea" for n, item in enumerate(hidden)}}
    other = {**replace(content, titles=changed).write(tmp_path / "other"), **settings}
    draw(tmp_path / "other" / "tiny" / "photos", {**colours, **dict.fromkeys(hidden, (1, 2, 3))})
    assert differing(trace("VBPR", one), trace("VBPR", other)) == set()
    assert prepare("VBPR", other).dataset.identity == dataset.identity
    shown = dataset.field2id_token["item_id"][masked.observed.numpy()].tolist()
    (tmp_path / "one" / "tiny" / "tiny.item").unlink()
    content.titles[shown[0]] = "dog dog"  # a control
    content.write(tmp_path / "one")
    draw(tmp_path / "one" / "tiny" / "photos", {shown[0]: (200, 200, 0)})
    assert "features" in differing(trace("VBPR", one), trace("VBPR", other))


def test_shown_features_change_what_they_should(untouched, features_changed):
    mask = MASKS["file"]
    other = trace("VBPR", features_changed(mask, shown=True), **mask)
    assert differing(untouched.trace("VBPR", **mask), other) == {"features", "losses", "scores"}


# ------------------------------------------------------------------------ held-out interactions


def rotated(pairs: list[tuple[str, str]], keep: int) -> list[tuple[str, str]]:
    """Give each item to the next user; rows before ``keep`` stay, and so do all item ids."""
    users = [user for user, _ in pairs]
    turned = [*users[:keep], *users[keep + 3 :], *users[keep : keep + 3]]
    return [(user, item) for user, (_, item) in zip(turned, pairs)]


def held_out_changed(content: Content) -> Content:
    """Other validation and test interactions over the same tokens."""
    items = [item for _, item in content.test]
    test = [(user, item) for (user, _), item in zip(content.test, reversed(items))]
    valid = without(rotated(content.valid, keep=1), content.train)
    test = without(rotated(test, keep=0)[:-5], [*content.train, *valid])
    return replace(content, valid=valid, test=test)


def without(pairs: list[tuple[str, str]], others: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Pairs that are not among the others, for a pair must be in one split only."""
    taken = {*others}
    return [pair for pair in pairs if pair not in taken]


@pytest.mark.parametrize(("imputation", "mask"), CASES)
def test_held_out_interactions_change_nothing(untouched, tmp_path, imputation, mask):
    content = tiny_content()
    changed = held_out_changed(content)
    assert set(changed.valid) != set(content.valid) and set(changed.test) != set(content.test)
    changes = {"imputation": imputation, "imputation_epochs": 2, **MASKS[mask]}
    other = trace("VBPR", changed.write(tmp_path), **changes)
    assert differing(untouched.trace("VBPR", **changes), other) == set()


@pytest.mark.parametrize("model", [name for name in MODELS if name != "VBPR"])
def test_held_out_interactions_change_no_model(untouched, tmp_path, model):
    mask = MASKS["new_items"]
    other = trace(model, held_out_changed(tiny_content()).write(tmp_path), **mask)
    assert differing(untouched.trace(model, **mask), other) == set()


@pytest.mark.parametrize("mask", ["stratified", "file"])
def test_training_interactions_change_what_they_should(untouched, tmp_path, mask):
    content = tiny_content()
    turned = without(rotated(content.train[240:], keep=0), [*content.valid, *content.test])
    changed = replace(content, train=content.train[:240] + turned)
    other = trace("VBPR", changed.write(tmp_path), **MASKS[mask])
    one = untouched.trace("VBPR", **MASKS[mask])
    assert {"features", "batches", "losses", "scores"} <= differing(one, other)
