"""A tiny real RecBole data set on disk, toy models, and short runs over both."""

from __future__ import annotations

import copy
import logging
import logging.handlers  # before a test replaces what it derives from
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import recbole.trainer.trainer as trainer_module
import torch
import yaml
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.model.general_recommender import BPR
from recbole.utils import get_model, get_trainer, init_seed
from torch import Tensor, nn

from recbole_missing import IMPUTERS, MODELS, MultimodalRecommender, cli
from recbole_missing.config.constraints import Float, Int
from recbole_missing.data import missing

REPOSITORY = Path(__file__).resolve().parents[1]
N_USERS, N_ITEMS = 40, 30
COLD = "i99"  # an item that only validation and test know
Pairs = list[tuple[str, str]]

MODEL = {"embedding_size": 8, "learning_rate": 0.01, "train_batch_size": 128}
RUN = {"epochs": 1, "topk": [5, 10], "valid_metric": "Recall@5", "show_progress": False}
MODALITIES = {
    "modalities": ["image", "title", "tags"],
    "image_features": "image.npy",
    "image_ids": "image_ids.txt",
    "title_columns": ["title"],
    "title_encoder": "text",
    "title_dim": 8,
    "tags_columns": ["tags"],
    "tags_encoder": "tags",
}
BENCHMARK = {"benchmark_filename": ["train", "valid", "test"]}
BY_TIME = {
    "benchmark_filename": None,
    "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
    "eval_args": {"split": {"RS": [0.7, 0.15, 0.15]}, "order": "TO", "group_by": "user"},
}
MMREC_INTER = """userID\titemID\tx_label
0\t0\t0
0\t1\t0
0\t2\t1
1\t1\t0
1\t3\t0
1\t0\t2
2\t3\t0
2\t0\t0
2\t1\t1
"""


@dataclass
class Content:
    """What a data set folder will hold; a test changes what it likes, then writes it.

    The image matrix lacks two items and holds its rows in an order of its own, two titles and one
    cell of tags are blank. Every item but ``COLD`` occurs in training; its first validation row
    gives the cold item the last item id.
    """

    train: Pairs
    valid: Pairs
    test: Pairs
    image: np.ndarray
    image_ids: list[str]
    titles: dict[str, str]
    tags: dict[str, str]
    lacks: dict[str, list[str]] = field(default_factory=dict)

    def write(self, root: Path, name: str = "tiny") -> dict[str, Any]:
        """Write the folder ``root/name``; return the settings of a short run on it."""
        folder = root / name
        folder.mkdir(parents=True, exist_ok=True)
        splits = {".train": self.train, ".valid": self.valid, ".test": self.test}
        splits[""] = [*self.train, *self.valid, *self.test]
        for suffix, pairs in splits.items():
            rows = [f"{user}\t{item}\t{time}" for time, (user, item) in enumerate(pairs)]
            header = "user_id:token\titem_id:token\ttimestamp:float"
            _write_lines(folder / f"{name}{suffix}.inter", [header, *rows])
        cells = [f"{item}\t{self.titles[item]}\t{self.tags[item]}" for item in self.titles]
        header = "item_id:token\ttitle:token_seq\ttags:token_seq"
        _write_lines(folder / f"{name}.item", [header, *cells])
        np.save(folder / "image.npy", self.image)
        _write_lines(folder / "image_ids.txt", self.image_ids)
        missing.write_missing_file(folder / "lacks.tsv", self.lacks)
        paths = {"data_path": str(root), "checkpoint_dir": str(root / "saved"), "dataset": name}
        return {**RUN, **MODEL, **MODALITIES, **BENCHMARK, **paths, "gpu_id": ""}

    def row(self, token: str) -> int:
        """Row of an item in the image matrix."""
        return self.image_ids.index(token)


def tiny_content(seed: int = 0) -> Content:
    """Twelve items a user: eight to train on, two to validate, two to test. It is the caller's."""
    drawn = _drawn(seed)
    return Content(*(copy.copy(getattr(drawn, part.name)) for part in fields(Content)))


@cache
def _drawn(seed: int) -> Content:
    generator = np.random.default_rng(seed)
    items = [*(f"i{number}" for number in generator.permutation(N_ITEMS - 1)), COLD]
    popularity = np.linspace(2, 1, N_ITEMS - 1)
    train, valid, test = [], [], []
    for number in generator.permutation(N_USERS):
        picks = generator.choice(items[:-1], 12, replace=False, p=popularity / popularity.sum())
        user = f"u{number}"
        train += [(user, item) for item in picks[:8]]
        valid += [(user, item) for item in picks[8:10]]
        test += [(user, item) for item in picks[10:]]
    valid[0], test[-1] = (valid[0][0], COLD), (test[-1][0], COLD)
    words = ["red", "blue", "night", "sea", "dog", "love", "war", "moon", "train", "snow"]
    titles = {item: " ".join(generator.choice(words, 3)) for item in generator.permutation(items)}
    tags = {item: " ".join(generator.choice(list("abcde"), 2, replace=False)) for item in titles}
    titles["i3"] = titles["i4"] = tags["i5"] = ""
    pictured = [item for item in generator.permutation(items).tolist() if item not in ("i6", "i7")]
    image = generator.normal(size=(len(pictured), 6)).astype(np.float32)
    lacks = {"i8": ["image"], "i9": ["image", "title"], "i10": ["tags"], "i6": ["title"]}
    return Content(train, valid, test, image, pictured, titles, tags, lacks)


def recbole_folder(root: Path, **settings: Any) -> tuple[Path, dict[str, Any]]:
    """Write the tiny data set with a YAML file; return its folder and the settings of a run."""
    run_settings = tiny_content().write(root / "data")
    written = {**MODALITIES, **BENCHMARK, **settings}
    folder = root / "data" / "tiny"
    (folder / "tiny.yaml").write_text(yaml.safe_dump(written))
    return folder, {**run_settings, **settings}


def mmrec_folder(root: Path, interactions: str = MMREC_INTER) -> Path:
    """Write MMRec's layout: the last two of six rows have no interaction, item 1 has no image."""
    folder = root / "mm"
    folder.mkdir()
    (folder / "mm.inter").write_text(interactions)
    np.save(folder / "image_feat.npy", np.arange(12, dtype=np.float16).reshape(6, 2))
    np.save(folder / "text_feat.npy", np.arange(18, dtype=np.float32).reshape(6, 3) + 1)
    (folder / "missed_img_itemIDs.csv").write_text("1\n")
    return folder


def _write_lines(path: Path, lines: list[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


class Toy(MultimodalRecommender):
    """Inner products of tables and content plus a buffer that drifts; notes what is called."""

    hyperparameters = {"embedding_size": Int(min=1), "toy_weight": Float(min=0)}
    properties = {
        "embedding_size": 4,
        "toy_weight": 0.5,
        "presets": {"tiny": {"toy_weight": 0.25}, "other": {"toy_weight": 0.125}},
    }
    auxiliary_options = {"lr": 0.05}
    features: Tensor
    drift: Tensor

    def __init__(self, config: Any, dataset: Any) -> None:
        """Create tables, a projection and the critic, which only the second optimiser trains."""
        super().__init__(config, dataset)
        size = self.embedding_size
        self.user = nn.Parameter(torch.randn(self.n_users, size))
        self.item = nn.Parameter(torch.randn(self.n_items, size))
        self.content = nn.Linear(self.modalities.total_dim, size)
        self.critic = nn.Linear(size, 1)
        self.register_buffer("features", self.modalities.concatenated())
        self.register_buffer("drift", torch.zeros(self.n_items, size))
        self.calls: list[str] = []

    def on_epoch_start(self, minimise: Any) -> None:
        """Train the critic for a step and move the buffer."""
        self.calls.append("epoch")
        minimise(self.critic(self.item.detach()).square().mean())
        self.drift += torch.randn_like(self.drift)

    def on_validation_start(self) -> None:
        """Note the call."""
        self.calls.append("valid")

    def auxiliary_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters of the critic."""
        return self.critic.parameters()

    def encode(self) -> tuple[Tensor, Tensor]:
        """Users and items, each of ``embedding_size``."""
        self.calls.append("encode")
        return self.user, self.item + self.content(self.features) + self.drift

    def loss_terms(self, interaction: Any) -> dict[str, Tensor]:
        """BPR and a penalty that the critic takes part in."""
        self.calls.append("batch")
        items = self.item + self.content(self.features) + self.drift
        users, positives, negatives = self.gather(self.user, items, self.batch(interaction))
        margin = (users * (positives - negatives)).sum(dim=1)
        bpr = -torch.nn.functional.logsigmoid(margin).mean()
        return {"bpr": bpr, "judged": self.toy_weight * self.critic(positives).square().mean()}


class Named(BPR):
    """A model without modalities that lives outside of both packages."""


@dataclass
class Prepared:
    """A run up to training, through RecBole's own functions."""

    config: Config
    dataset: Any
    train: Any
    valid: Any
    test: Any

    def network(self) -> Any:
        """Build the model from the run's seed."""
        init_seed(self.config["seed"], self.config["reproducibility"])
        return get_model(self.config["model"])(self.config, self.train._dataset)

    def trainer(self, network: Any = None) -> Any:
        """Build the trainer that RecBole finds."""
        network = self.network() if network is None else network
        return get_trainer(self.config["MODEL_TYPE"], self.config["model"])(self.config, network)

    def scores(self, network: Any) -> Tensor:
        """Scores of all items for all users, ``(n_users - 1, n_items)``."""
        network.eval()
        users = torch.arange(1, self.dataset.user_num)
        batch = {"user_id": users}
        with torch.no_grad():
            return network.full_sort_predict(batch).view(len(users), -1)


def prepare(model: Any, settings: dict[str, Any], **changes: Any) -> Prepared:
    """Read, split and impute the data set of ``settings`` under some changes."""
    config = Config(model, config_dict={**settings, **changes})
    init_seed(config["seed"], config["reproducibility"])
    dataset = create_dataset(config)
    return Prepared(config, dataset, *data_preparation(config, dataset))


def pairs_of(split: Any) -> set[tuple[str, str]]:
    """Interactions of a split (a data set) as tokens."""
    columns = [
        split.id2token(name, split.inter_feat[name].numpy()) for name in ("user_id", "item_id")
    ]
    return set(zip(*(column.tolist() for column in columns)))


def in_new_process(code: str, folder: Path) -> str:
    """Run Python code in a fresh interpreter and return what it prints."""
    paths = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests")])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def refused(capsys: pytest.CaptureFixture[str], *words: Any) -> str:
    """What the command line says when it refuses ``words``: one message and exit code 2."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        cli.main([str(word) for word in words])
    assert stopped.value.code == 2
    output, message = capsys.readouterr()
    assert output == ""
    return message


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty working folder (RecBole writes into it) and nothing that outlives the test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # of the key that signs
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # Config overwrites it
    for registry in (MODELS, IMPUTERS):
        monkeypatch.setattr(registry, "registered", {})
        monkeypatch.setattr(registry, "_given", {})
    monkeypatch.setattr(psutil, "cpu_percent", lambda interval=None: 0.0)  # RecBole sleeps here
    opened: list[Any] = []

    def noted(make: Any) -> Any:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            opened.append(make(*args, **kwargs))
            return opened[-1]

        return wrapper

    monkeypatch.setattr(logging, "FileHandler", noted(logging.FileHandler))
    monkeypatch.setattr(trainer_module, "get_tensorboard", noted(trainer_module.get_tensorboard))
    yield
    for log in opened:  # RecBole leaves them open; tensorboard's threads write by relative path
        log.close()


RECBOLE_ALONE = pytest.mark.skipif(
    np.__version__ >= "2" or not list(metadata.distributions(name="ray")),
    reason="RecBole before recbole_missing needs numpy < 2 and Ray",
)

AT_WORK = [
    pytest.mark.usefixtures(workplace.__name__),
    pytest.mark.filterwarnings("ignore:distutils Version classes are deprecated"),  # thop
    pytest.mark.filterwarnings(r"ignore:torch\.sparse\.SparseTensor"),  # LightGCN, NGCF
    pytest.mark.filterwarnings("ignore:TypedStorage is deprecated"),  # torch 2.0's own load
]
