"""Tiny models in the format of sentence-transformers, with random weights. No network is used."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

ABSENT = "the library sentence-transformers (extra [encode]) is absent"
WORDS = ["red", "blue", "night", "sea", "dog", "love", "war", "moon", "train", "snow", "a"]


def _library() -> tuple:
    library = pytest.importorskip("sentence_transformers", reason=ABSENT)
    try:
        modules = importlib.import_module("sentence_transformers.sentence_transformer.modules")
    except ModuleNotFoundError:  # before version 5.4
        modules = importlib.import_module("sentence_transformers.models")
    return library.SentenceTransformer, modules, importlib.import_module("transformers")


def text_model(folder: Path, seed: int = 0, longest: int = 16) -> Path:
    """Save a language model of one layer that gives 16 numbers for a text."""
    import torch

    make, modules, transformers = _library()
    source = folder.with_name(f"{folder.name}-plain")
    source.mkdir(parents=True)
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    (source / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = transformers.BertConfig(
            vocab_size=len(vocabulary), hidden_size=16, num_hidden_layers=1,
            num_attention_heads=2, intermediate_size=32, max_position_embeddings=longest,
        )  # fmt: skip
        transformers.BertModel(config).save_pretrained(source)
    transformers.BertTokenizerFast(str(source / "vocab.txt")).save_pretrained(source)
    parts = modules.Transformer(str(source), max_seq_length=longest)
    width = getattr(parts, "get_embedding_dimension", None) or parts.get_word_embedding_dimension
    model = make(modules=[parts, modules.Pooling(width())])
    model.save(str(folder))
    return folder


def clip_model(folder: Path, seed: int = 0) -> Path:
    """Save a CLIP that gives 8 numbers for a picture."""
    import torch

    make, modules, transformers = _library()
    source = folder.with_name(f"{folder.name}-plain")
    source.mkdir(parents=True)
    ends = ["<|startoftext|>", "<|endoftext|>"]
    letters = [*"abcdefgh", *(f"{letter}</w>" for letter in "abcdefgh"), *ends]
    vocabulary = {word: number for number, word in enumerate(letters)}
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1,
             "num_attention_heads": 2}  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        end = vocabulary[ends[1]]
        text = {**shape, "vocab_size": len(letters), "max_position_embeddings": 32,
                "eos_token_id": end, "bos_token_id": end - 1, "pad_token_id": end}  # fmt: skip
        vision = {**shape, "image_size": 32, "patch_size": 8}
        config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)
        transformers.CLIPModel(config).save_pretrained(source)
    (source / "vocab.json").write_text(json.dumps(vocabulary))
    (source / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = transformers.CLIPTokenizerFast.from_pretrained(source)
    size = {"height": 32, "width": 32}
    images = transformers.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=size)
    transformers.CLIPProcessor(images, tokenizer).save_pretrained(source)
    model = make(modules=[modules.CLIPModel(str(source))])
    model.save(str(folder))
    return folder
