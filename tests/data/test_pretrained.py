"""Sentences and pictures through models of sentence-transformers, tiny and made here."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from folders import AT_WORK, prepare, refused, tiny_content
from folders import workplace as workplace
from PIL import Image
from recbole.config import Config
from tiny_models import ABSENT, clip_model, text_model

from recbole_missing import MODELS, cli, identity, run_recbole_missing
from recbole_missing.data import pictures, pretrained
from recbole_missing.data.catalogue import Catalogue
from recbole_missing.data.sources import feature_files, open_source
from recbole_missing.in_force import settings_in_force

IS_ABSENT = importlib.util.find_spec("sentence_transformers") is None
pytestmark = [*AT_WORK, pytest.mark.skipif(IS_ABSENT, reason=ABSENT)]

TOKENS = ("[PAD]", *(str(number) for number in range(1, 9)))
TITLES = ["red dog", "sea", "", "love war moon", "red dog", "snow train", "night", " "]
BRANDS = ["a", "blue", "", "", "a", "sea", "war", ""]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {"text": text_model(folder / "text"), "clip": clip_model(folder / "clip")}


@pytest.fixture
def shop(tmp_path):
    """Eight items; the third has no words, the last one blanks; the first six have pictures."""
    folder = tmp_path / "data" / "shop"
    (folder / "photos").mkdir(parents=True)
    write_items(folder, TITLES)
    generator = np.random.default_rng(0)
    for number in range(1, 7):
        pixels = generator.integers(0, 256, (20 + number, 30, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "photos" / f"{number}.png")
    return Catalogue("shop", folder, TOKENS, "item_id")


def write_items(folder, titles):
    rows = zip(TOKENS[1:], titles, BRANDS)
    lines = ["item_id:token\ttitle:token_seq\tbrand:token", *("\t".join(row) for row in rows)]
    (folder / "shop.item").write_text("\n".join(lines) + "\n")


@pytest.fixture
def said(caplog):
    caplog.set_level(logging.INFO)
    return lambda: [record.getMessage() for record in caplog.records]


@pytest.fixture
def cached(tmp_path):
    return {"encoder_cache": True, "checkpoint_dir": str(tmp_path / "saved")}


def sentences(catalogue, model, columns="title", **settings):
    chosen = {"text_columns": columns, "text_encoder": "sentence", "text_model": str(model)}
    return open_source("text", {**chosen, **settings}, catalogue)


def photos(catalogue, model, **settings):
    chosen = {"photo_images": "photos", "photo_encoder": "clip", "photo_model": str(model)}
    return open_source("photo", {**chosen, **settings}, catalogue)


READERS = ((sentences, "text"), (photos, "clip"))


def all_of(source):
    return source.features(source.present)


def refusal(call, *args, **settings):
    with pytest.raises(ValueError) as caught:
        call(*args, **settings)
    text = str(caught.value)
    assert "\n" not in text
    return text


def by_the_library(folder, contents):
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    return model.encode(contents, show_progress_bar=False)


# ----------------------------------------------------------------------------------- the features


def test_sentences_are_those_of_the_library(shop, models):
    source = sentences(shop, models["text"])
    assert np.flatnonzero(source.present).tolist() == [1, 2, 4, 5, 6, 7]
    found = all_of(source)
    assert found.dtype == np.float32 and not found[[0, 3, 8]].any()
    expected = by_the_library(models["text"], [text for text in TITLES if text.strip()])
    np.testing.assert_allclose(found[source.present], expected, atol=1e-6)


def test_the_cells_of_several_columns_are_joined_by_blanks(shop, models):
    found = all_of(sentences(shop, models["text"], ["title", "brand"]))
    expected = by_the_library(models["text"], ["red dog a", "sea blue"])
    np.testing.assert_allclose(found[[1, 2]], expected, atol=1e-6)


def test_pictures_are_those_of_the_library(shop, models):
    source = photos(shop, models["clip"])
    assert np.flatnonzero(source.present).tolist() == [1, 2, 3, 4, 5, 6]
    images = [Image.open(shop.folder / "photos" / f"{number}.png") for number in range(1, 7)]
    expected = by_the_library(models["clip"], images)
    np.testing.assert_allclose(all_of(source)[1:7], expected, atol=1e-6)


def test_a_model_chooses_the_encoder_that_reads_it(shop, models):
    settings = {"text_columns": "title", "text_model": str(models["text"])}
    assert open_source("text", settings, shop).encoder[0] == "sentence"
    settings = {"text_images": "photos", "text_model": str(models["clip"])}
    assert open_source("text", settings, shop).encoder[0] == "clip"


def test_a_model_without_a_reader_has_no_effect(shop, said):
    settings = {"text_columns": "title", "text_model": "x", "text_encoder": "tags", "text_dim": 3}
    open_source("text", settings, shop)
    assert "text: text_model has no effect with the encoder tags." in said()
    assert "text: text_dim has no effect with the encoder tags." in said()


@pytest.mark.parametrize("kind", ["text", "clip"])
def test_hidden_contents_have_no_influence(shop, models, kind):
    read = {"text": sentences, "clip": photos}[kind]
    source = read(shop, models[kind])
    observed = source.present.copy()
    observed[[2, 6]] = False
    before, revealed = source.features(observed), source.features(observed, reveal=True)
    assert not before[[2, 6]].any() and revealed[[2, 6]].any(axis=1).all()
    np.testing.assert_array_equal(revealed[observed], before[observed])
    write_items(shop.folder, [*TITLES[:1], "war war war war war war", *TITLES[2:]])
    Image.new("RGB", (99, 10), "green").save(shop.folder / "photos" / "2.png")
    changed = read(shop, models[kind])
    np.testing.assert_array_equal(changed.features(observed), before)
    assert (changed.features(observed, reveal=True)[2] != revealed[2]).any()


def test_nothing_of_the_run_changes(shop, models, monkeypatch):
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "true")
    monkeypatch.delenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", raising=False)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    grad = torch.is_grad_enabled()
    all_of(sentences(shop, models["text"]))
    all_of(photos(shop, models["clip"]))
    assert torch.equal(torch.get_rng_state(), before[0]) and torch.is_grad_enabled() == grad
    np.testing.assert_array_equal(np.random.get_state()[1], before[1])
    assert random.getstate() == before[2]
    assert os.environ["TOKENIZERS_PARALLELISM"] == "true"
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ


def test_texts_that_are_cut_are_counted(shop, models, said):
    write_items(shop.folder, ["red " * 40, *TITLES[1:]])
    all_of(sentences(shop, models["text"]))
    line = next(text for text in said() if "longer than" in text)
    assert line.startswith("text: 1 of 6 texts are longer than the 16 tokens that")


def test_texts_are_split_into_words_block_by_block(shop, models, said, monkeypatch):
    from transformers import PreTrainedTokenizerBase as Tokenizer

    sizes, call = [], Tokenizer.__call__
    write_items(shop.folder, ["red " * 40, *TITLES[1:]])
    expected = all_of(sentences(shop, models["text"]))
    monkeypatch.setattr(Tokenizer, "__call__", lambda self, texts, **options: (
        sizes.append(len(texts)), call(self, texts, **options))[1])  # fmt: skip
    monkeypatch.setattr(pretrained, "_BLOCK", 2)
    np.testing.assert_allclose(all_of(sentences(shop, models["text"])), expected, atol=1e-6)
    assert max(sizes) == 2
    found = [text for text in said() if "longer than" in text]
    assert len(found) == 2 and found[0] == found[1]


def test_large_pictures_are_held_one_by_one(shop, models, monkeypatch):
    sizes, read = [], pictures.read_again
    expected = all_of(photos(shop, models["clip"]))
    monkeypatch.setattr(pictures, "read_again", lambda block: (
        sizes.append(len(block)), read(block))[1])  # fmt: skip
    # They have 21 to 26 rows of 30 pixels: 630, 660, 690, 720, 750, 780.
    for pixels, blocks in [(1300, [2, 1, 1, 1, 1]), (100, [1] * 6), (2**26, [6])]:
        sizes.clear()
        monkeypatch.setattr(pretrained, "_PIXELS", pixels)
        np.testing.assert_allclose(all_of(photos(shop, models["clip"])), expected, atol=1e-6)
        assert sizes == blocks
    sizes.clear()
    monkeypatch.setattr(pretrained, "_PICTURES", 4)
    all_of(photos(shop, models["clip"]))
    assert sizes == [4, 2]


# -------------------------------------------------------------------------------------- the cache


def counts(said):
    found = [text for text in said() if "are new and are encoded" in text]
    return [text.split(": ")[1].split(" contents")[0] for text in found]


@pytest.mark.parametrize("kind", ["text", "clip"])
def test_only_new_contents_are_encoded(shop, models, cached, said, kind):
    read = {"text": sentences, "clip": photos}[kind]
    before = all_of(read(shop, models[kind], **cached))
    again = all_of(read(shop, models[kind], **cached))
    np.testing.assert_array_equal(again, before)
    write_items(shop.folder, [*TITLES[:2], "moon", *TITLES[3:]])
    Image.new("RGB", (9, 9), "blue").save(shop.folder / "photos" / "7.png")
    more = all_of(read(shop, models[kind], **cached))
    kept = before.any(axis=1)
    np.testing.assert_array_equal(more[kept], before[kept])
    assert counts(said) == ["6 of 6", "0 of 6", "1 of 7"]


@pytest.mark.parametrize("library", ["sentence-transformers", "transformers", "pillow"])
def test_rows_of_another_version_are_not_taken(shop, models, cached, said, monkeypatch, library):
    from recbole_missing.data import sources

    before = [read(shop, models[kind], **cached) for read, kind in READERS]
    found = [all_of(source) for source in before]
    real = sources.installed
    other = lambda name: "0.0" if name == library else real(name)  # noqa: E731
    monkeypatch.setattr(sources, "installed", other)
    after = [read(shop, models[kind], **cached) for read, kind in READERS]
    for source, kept, rows in zip(after, before, found):
        np.testing.assert_array_equal(all_of(source), rows)
        assert source.encoder == kept.encoder
    text = "0 of 6" if library == "pillow" else "6 of 6"
    assert counts(said) == ["6 of 6", "6 of 6", text, "6 of 6"]


def test_what_is_encoded_before_an_error_is_kept(shop, models, cached, said, monkeypatch):
    monkeypatch.setattr(pretrained, "_PICTURES", 2)
    source = photos(shop, models["clip"], **cached)
    path = shop.folder / "photos" / "6.png"
    content = path.read_bytes()
    path.write_bytes(content + b" ")
    refusal(all_of, source)
    path.write_bytes(content)
    all_of(photos(shop, models["clip"], **cached))
    assert counts(said) == ["6 of 6", "2 of 6"]


def test_a_model_that_gives_no_numbers(shop, models, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = copied(models, tmp_path)
    weights = load_file(folder / "model.safetensors")
    spoilt = {name: torch.full_like(weight, torch.nan) for name, weight in weights.items()}
    save_file(spoilt, folder / "model.safetensors", metadata={"format": "pt"})
    text = refusal(all_of, sentences(shop, folder))
    assert text.startswith("text: text_model must give finite numbers, got NaN or inf")


def test_another_model_has_other_rows(shop, models, cached, tmp_path):
    other = text_model(tmp_path / "other", seed=1)
    one, two = (sentences(shop, model, **cached) for model in (models["text"], other))
    assert one.encoder != two.encoder and list(one.pieces()) == list(two.pieces())
    assert np.abs(all_of(one) - all_of(two)).max() > 0.01


def test_a_model_is_its_files(shop, models, tmp_path):
    key = sentences(shop, models["text"]).encoder
    copy = Path(shutil.copytree(models["text"], tmp_path / "copy"))
    (copy / "README.md").write_text("other words")
    (copy / ".git").mkdir()
    (copy / ".git" / "config.json").write_text("{}")
    assert sentences(shop, copy, device="meta").encoder == key
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "hidden_act": "relu"}))
    assert sentences(shop, copy).encoder != key


def test_the_library_waits_until_something_is_new(shop, models, cached, tmp_path):
    all_of(sentences(shop, models["text"], **cached))
    all_of(photos(shop, models["clip"], **cached))
    program = tmp_path / "program.py"
    program.write_text(
        "import sys\n"
        "from pathlib import Path\n"
        "from recbole_missing.data.catalogue import Catalogue\n"
        "from recbole_missing.data.sources import open_source\n"
        f"shop = Catalogue('shop', Path({str(shop.folder)!r}), {TOKENS!r}, 'item_id')\n"
        f"settings = {cached!r} | {{'text_columns': 'title', 'photo_images': 'photos'}}\n"
        f"settings |= {{'text_model': {str(models['text'])!r}}}\n"
        f"settings |= {{'photo_model': {str(models['clip'])!r}}}\n"
        "for name in ('text', 'photo'):\n"
        "    source = open_source(name, settings, shop)\n"
        "    source.features(source.present)\n"
        "names = ('sentence_transformers', 'transformers', 'huggingface_hub', 'PIL')\n"
        "print([name for name in names if name in sys.modules])\n"
    )
    found = subprocess.run([sys.executable, program], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"


def test_what_lies_behind_a_link_to_a_folder_is_of_the_model(shop, models, tmp_path, monkeypatch):
    folder, elsewhere = copied(models, tmp_path), tmp_path / "elsewhere"
    shutil.move(folder / "1_Pooling", elsewhere)
    (folder / "1_Pooling").symlink_to(elsewhere)
    key = sentences(shop, models["text"]).encoder
    assert sentences(shop, folder).encoder == key
    settings = {"text_columns": "title", "text_model": str(folder)}
    assert folder / "1_Pooling" / "config.json" in feature_files("text", settings, shop)
    config = elsewhere / "config.json"
    before = config.read_text()
    config.write_text(before + " ")
    assert sentences(shop, folder).encoder != key
    config.write_text('{"activation_function": "evil.Activation"}')
    assert "got evil.Activation in" in refusal(sentences, shop, folder)
    config.write_text(before)
    (elsewhere / "pytorch_model.bin").write_bytes(b"")
    monkeypatch.setattr(torch, "__version__", "2.5.1")
    assert "must have model.safetensors, got only the pickle" in refusal(sentences, shop, folder)


def test_links_without_an_end(shop, models, tmp_path):
    folder = copied(models, tmp_path)
    (folder / "1_Pooling" / "up").symlink_to(folder)
    assert "a model must hold a folder once, got" in refusal(sentences, shop, folder)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="has no named pipes")
def test_a_pipe_is_no_file_of_a_model(shop, models, tmp_path):
    folder = copied(models, tmp_path)
    os.mkfifo(folder / "vocab.txt.new")
    assert "a model must consist of files, got" in refusal(sentences, shop, folder)


@pytest.mark.parametrize("place", ["../out", "/out", "a/../../out", "C:\\out", "..\\out"])
def test_a_part_of_a_model_lies_in_it(shop, models, tmp_path, place):
    folder = copied(models, tmp_path)
    modules = json.loads((folder / "modules.json").read_text())
    modules[1]["path"] = place
    (folder / "modules.json").write_text(json.dumps(modules))
    text = refusal(sentences, shop, folder)
    assert f"must consist of files in its folder, got the path {place!r}" in text


def test_files_of_a_model_belong_to_the_data(shop, models):
    settings = {"text_columns": "title", "text_model": str(models["text"])}
    files = feature_files("text", settings, shop)
    assert shop.folder / "shop.item" in files and models["text"] / "model.safetensors" in files


# ------------------------------------------------------------------------------ what is refused


def test_an_absent_library(shop, models, monkeypatch):
    monkeypatch.setattr(pretrained.importlib.util, "find_spec", lambda name: None)
    for read in (sentences, photos):
        text = refusal(read, shop, models["text"])
        assert 'python -m pip install "recbole-missing[encode]"' in text


@pytest.mark.parametrize("model", ["../models/none", "./x", "a/b/c", "~/x", "C:\\x", "/no/folder"])
def test_a_path_without_a_folder(shop, model):
    text = refusal(sentences, shop, model)
    assert text.startswith("text: text_model must be a folder or the name of a model, got")
    assert "there is no folder /" in text


@pytest.mark.parametrize("model", ["all-MiniLM-L6-v2", "models/mine"])
def test_a_name_without_a_network(shop, monkeypatch, model):
    import huggingface_hub

    def offline(repository, **options):
        assert repository.count("/") == 1
        raise ConnectionError("no route to host\nand 30 lines more")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    text = refusal(sentences, shop, model)
    assert f"got {model}: there is no folder {shop.folder / model}, and it cannot be" in text
    assert "(no route to host)" in text and "set text_model to its path" in text
    full = model if "/" in model else f"sentence-transformers/{model}"
    assert f"`hf download {full} --local-dir FOLDER`" in text


def test_a_name_is_downloaded_without_code_and_pickles(shop, models, monkeypatch, tmp_path):
    import huggingface_hub

    asked, folder = [], copied(models, tmp_path)
    for name in ("train.py", "pytorch_model.bin", "onnx/config.json", "README.md"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("{}")

    def download(repository, **patterns):
        asked.append((repository, patterns))
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    settings = {"text_columns": "title", "text_encoder": "sentence"}
    source = open_source("text", settings, shop)
    assert source.encoder == sentences(shop, models["text"]).encoder
    ((repository, patterns),) = asked
    assert repository == "sentence-transformers/all-MiniLM-L6-v2"
    assert {"*.py", "*.bin", "onnx/*", "*.md"} <= set(patterns["ignore_patterns"])
    (folder / "model.safetensors").unlink()
    open_source("text", settings, shop)
    assert asked[-1] == (repository, {"allow_patterns": ["*pytorch_model.bin"]})


def copied(models, tmp_path, kind="text"):
    return Path(shutil.copytree(models[kind], tmp_path / "copy"))


def test_code_of_a_model_is_not_run(shop, models, tmp_path):
    folder = copied(models, tmp_path)
    modules = json.loads((folder / "modules.json").read_text())
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Transformer: 0")
    for kind in ("evil.Transformer", "sentence_transformers.evil", "os.system"):
        modules[0]["type"] = kind
        (folder / "modules.json").write_text(json.dumps(modules))
        text = refusal(sentences, shop, folder)
        assert f"got {kind} in modules.json, and no code of a model is run" in text
    modules[0]["type"] = "sentence_transformers.models.Transformer"
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling" / "config.json").write_text('{"activation_function": "evil.Activation"}')
    assert "got evil.Activation in" in refusal(sentences, shop, folder)
    assert not (tmp_path / "ran").exists()


def test_code_that_a_configuration_names_is_not_run(shop, models, tmp_path):
    folder = copied(models, tmp_path)
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Model: 0")
    config = json.loads((folder / "config.json").read_text())
    config.update(model_type="evil", auto_map={"AutoConfig": "evil.Model", "AutoModel": "evil.M"})
    (folder / "config.json").write_text(json.dumps(config))
    text = refusal(all_of, sentences(shop, folder))
    assert "text_model must be a model that sentence-transformers can load" in text
    assert not (tmp_path / "ran").exists()


class Evil:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        """Store the path."""
        self.path = path

    def __reduce__(self):
        """Open the file."""
        return open, (self.path, "w")


def test_a_pickle_makes_tensors_only(shop, models, tmp_path, monkeypatch):
    from safetensors.torch import load_file

    folder = copied(models, tmp_path)
    weights = folder / "model.safetensors"
    torch.save(load_file(weights), folder / "pytorch_model.bin")
    weights.unlink()
    expected = all_of(sentences(shop, models["text"]))
    np.testing.assert_allclose(all_of(sentences(shop, folder)), expected, atol=1e-6)
    torch.save({"x": Evil(str(tmp_path / "ran"))}, folder / "pytorch_model.bin")
    assert "must be a model that" in refusal(all_of, sentences(shop, folder))
    assert not (tmp_path / "ran").exists()
    monkeypatch.setattr(torch, "__version__", "2.5.1")
    assert "must have model.safetensors, got only the pickle" in refusal(sentences, shop, folder)


@pytest.mark.parametrize("damage", ["weights", "modules", "config", "none"])
def test_damaged_models(shop, models, tmp_path, damage):
    folder = copied(models, tmp_path)
    if damage == "weights":
        content = (folder / "model.safetensors").read_bytes()
        (folder / "model.safetensors").write_bytes(content[: len(content) // 2])
        text = refusal(all_of, sentences(shop, folder))
        assert text.startswith("text: text_model must be a model that sentence-transformers can")
        return
    if damage == "none":
        shutil.rmtree(folder)
        folder.mkdir()
        text = refusal(sentences, shop, folder)
        assert "must be a folder with modules.json or config.json" in text
        return
    (folder / f"{damage}.json").write_text("{")
    assert f"must have a whole {folder / damage}.json" in refusal(sentences, shop, folder)


def test_a_model_of_another_kind(shop, models):
    text = refusal(all_of, photos(shop, models["text"]))
    assert text.startswith("photo: photo_model must encode a picture, got")


def test_a_picture_that_changes_in_between(shop, models):
    source = photos(shop, models["clip"])
    Image.new("RGB", (9, 9)).save(shop.folder / "photos" / "4.png")
    assert "must stay as it is while pictures are encoded" in refusal(all_of, source)


# -------------------------------------------------------------------------------------- in a run


@pytest.fixture
def run_settings(models, tmp_path):
    """A run whose titles are encoded by a model that lies in the data set's folder."""
    settings = tiny_content().write(tmp_path / "data")
    shutil.copytree(models["text"], tmp_path / "data" / "tiny" / "mini")
    none = dict.fromkeys(("title_encoder", "title_dim"))
    return {**settings, **none, "modalities": ["image", "title"], "title_model": "mini"}


def run_id(settings, **changes):
    config = prepare("VBPR", settings, **changes).config
    plain = config.final_config_dict
    in_force = settings_in_force(plain, MODELS["VBPR"])
    return identity.of_run(MODELS["VBPR"], config["data_identity"], in_force)


def test_what_identifies_a_run(run_settings, models, tmp_path):
    before = run_id(run_settings)
    assert run_id(run_settings, encoder_cache=False) == before
    assert run_id(run_settings, title_model=str(models["text"])) == before
    assert run_id(run_settings, title_encoder="sentence", title_dim=3) == before
    assert run_id(run_settings, title_encoder="text") != before
    other = text_model(tmp_path / "other", seed=1)
    assert run_id(run_settings, title_model=str(other)) != before


def test_an_absent_library_is_said_before_data_are_read(run_settings, monkeypatch):
    monkeypatch.setattr(pretrained.importlib.util, "find_spec", lambda name: None)
    settings = {**run_settings, "data_path": "/no/folder", "modalities": ["title"]}
    with pytest.raises(ValueError, match=r"needs? the library sentence-transformers, got none"):
        Config("VBPR", config_dict=settings)
    Config("VBPR", config_dict={**settings, "modalities": ["image"]})


def of_a_checkpoint(run_settings, capsys, model, *words):
    """Train with a model in the folder of the data, let the checkpoint name another one, use it."""
    run_recbole_missing("VBPR", config_dict={**run_settings, "title_model": "mini"})
    (checkpoint,) = Path(run_settings["checkpoint_dir"]).glob("*.pth")
    saved = torch.load(checkpoint, weights_only=False)
    saved["config"]["title_model"] = model
    torch.save(saved, checkpoint)
    data = ["--data-path", run_settings["data_path"], "--users", "u1", "--top-k", "2"]
    return ["recommend", str(checkpoint), *data, *words]


def test_a_checkpoint_decides_no_download(run_settings, capsys, monkeypatch):
    import huggingface_hub

    asked = []

    def absent(repository, local_files_only=False, **options):
        asked.append(local_files_only)
        raise OSError("not in the cache")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", absent)
    words = of_a_checkpoint(run_settings, capsys, "someone/repo")
    said = refused(capsys, *words)
    assert "title_model must be a model that is on this machine already, got 'someone/repo'" in said
    assert "pass --set title_model=someone/repo" in said and asked == [True]


@pytest.mark.parametrize("model", ["someone/repo", "all-MiniLM-L6-v2"])
def test_a_checkpoint_may_name_a_downloaded_model_or_a_default(
    run_settings, capsys, models, monkeypatch, model
):
    import huggingface_hub

    def download(repository, local_files_only=False, **options):
        assert not local_files_only or repository == "someone/repo"
        return str(models["text"])

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    cli.main(of_a_checkpoint(run_settings, capsys, model))
    assert "u1" in capsys.readouterr().out


@pytest.mark.parametrize("model", ["~/model", "~someone/model"])
def test_a_checkpoint_knows_no_home(run_settings, capsys, model):
    said = refused(capsys, *of_a_checkpoint(run_settings, capsys, model))
    assert "a checkpoint decides no path: pass --set title_model" in said


def test_a_checkpoint_decides_no_path_of_a_model(run_settings, models, tmp_path, capsys):
    data = Path(run_settings["data_path"])
    for model in ("mini", str(models["text"])):
        run_recbole_missing("VBPR", config_dict={**run_settings, "title_model": model})
        (checkpoint,) = Path(run_settings["checkpoint_dir"]).glob("*.pth")
        words = ["recommend", checkpoint, "--data-path", data, "--users", "u1", "--top-k", 2]
        if model == "mini":
            cli.main([str(word) for word in words])
            assert "u1" in capsys.readouterr().out
        else:
            assert "a checkpoint decides no path: pass --set title_model" in refused(capsys, *words)
        checkpoint.unlink()
