"""Bad inputs, and what a user may expect of them: the table of the design, a row a case.

E means that the run stops with one message, which names the file, the row or the id, and what to
do. W means that it warns once, with a count, and goes on. The second part holds what users typed
in and were answered wrongly, in the order in which it was reported.
"""

from __future__ import annotations

import errno
import json
import os
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import recbole.quick_start  # noqa: F401  Ray must not meet a replaced FileHandler
import torch
import yaml
from folders import (
    AT_WORK,
    BY_TIME,
    COLD,
    N_ITEMS,
    N_USERS,
    Prepared,
    Toy,
    mmrec_folder,
    prepare,
    tiny_content,
)
from folders import workplace as workplace
from lines import line
from scipy import sparse

from recbole_missing import checkpoint, cli, run_recbole_missing
from recbole_missing.atomic import whole_file
from recbole_missing.benchmark.store import Store
from recbole_missing.data import cache
from recbole_missing.data.missing import write_missing_file
from recbole_missing.data.sources import modality_settings
from recbole_missing.evaluation.ranking import top_items
from recbole_missing.graph.knn import knn_graph, stable_topk
from recbole_missing.imputation import IMPUTERS, FeatProp, Mean, imputer_settings
from recbole_missing.model import MODELS
from recbole_missing.run_settings import package_settings

pytestmark = AT_WORK
SIZE = N_ITEMS  # items of the tiny data set, the cold one included
FULL = 1.0


def row(given: str, expected: str) -> Callable[[Any], Any]:
    """One row of the table: what is given names the test, what is expected is for the reader."""
    return pytest.mark.parametrize("expected", [pytest.param(expected, id=given)], indirect=True)


@pytest.fixture(autouse=True)
def expected(request: pytest.FixtureRequest) -> str:
    """What the table promises; every test of this module must have a row."""
    return request.param


class Data:
    """The tiny data set, which a case changes before it acts, and what was said meanwhile."""

    def __init__(self, root: Path, said: Any, printed: Any) -> None:
        """Nothing is written before the case acts."""
        self.root, self.content = root / "dataset", tiny_content()
        self._said, self._printed = said, printed

    @property
    def image(self) -> np.ndarray:
        """The matrix of images, without rows for i6 and i7."""
        return self.content.image

    def picture(self, item: str) -> np.ndarray:
        """The row of an item in that matrix; to be written into."""
        return self.content.image[self.content.row(item)]

    def settings(self, **changes: Any) -> dict[str, Any]:
        """Write the folder; settings of a run of one epoch."""
        return {**self.content.write(self.root), **changes}

    def read(self, model: Any = "VBPR", **changes: Any) -> Prepared:
        """Do all that a run does before it trains."""
        return prepare(model, self.settings(**changes))

    def train(self, model: Any = "VBPR", **changes: Any) -> tuple[Prepared, Any]:
        """Train for an epoch; the run and its trainer."""
        run = self.read(model, **changes)
        trainer = run.trainer()
        trainer.fit(run.train, run.valid)
        return run, trainer

    def yaml(self, **changes: Any) -> Path:
        """Write the settings of a run into a file."""
        path = self.root / "run.yaml"
        path.write_text(yaml.safe_dump(self.settings(**changes)))
        return path

    def command(self, *words: Any) -> str:
        """Run a command in this process; what it prints."""
        self._printed.readouterr()
        cli.main([str(word) for word in words])
        return self.printed()

    def printed(self) -> str:
        """What was printed since the last command began."""
        return self._printed.readouterr().out

    @contextmanager
    def error(self, *words: Any) -> Iterator[None]:
        """Expect a refusal (:func:`recbole_missing.cli.is_refusal`) that says all ``words``."""
        with pytest.raises(BaseException) as caught:
            yield
        found = caught.value
        if isinstance(found, SystemExit):  # the command line has printed it
            assert found.code == 2
            message = self._printed.readouterr().err
            assert message.startswith("error: ") and message.count("\n") == 1, message
        else:
            if not (isinstance(found, Exception) and cli.is_refusal(found)):
                raise found
            message = str(found)
        absent = [word for word in map(str, words) if word not in message]
        assert not absent, f"{absent} not in {message!r}"

    @contextmanager
    def warning(self, *words: Any) -> Iterator[None]:
        """Expect one warning in the log that says all ``words``."""
        self._said.clear()
        yield
        warnings = [record.getMessage() for record in self._said.records if record.levelno == 30]
        found = [text for text in warnings if all(str(word) in text for word in words)]
        assert len(found) == 1, f"{words} not once in {warnings}"

    @contextmanager
    def error_or_warning(self, *words: Any) -> Iterator[None]:
        """Expect one or the other: never silence."""
        self._said.clear()
        try:
            yield
        except Exception as error:
            with self.error(*words):
                raise error
        else:
            warnings = [record.getMessage() for record in self._said.records]
            assert any(all(str(word) in text for word in words) for text in warnings), warnings

    def logged(self, *words: Any) -> bool:
        """Tell whether a line of the log says all ``words``."""
        lines = (record.getMessage() for record in self._said.records)
        return any(all(str(word) in text for word in words) for text in lines)


@pytest.fixture
def data(
    workplace: None,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> Data:
    caplog.set_level("INFO")
    return Data(tmp_path, caplog, capsys)


def absent_images(run: Prepared) -> set[str]:
    """Tokens of the items without an image."""
    tokens = run.dataset.field2id_token["item_id"]
    return set(tokens[1:][~run.dataset.known["image"].observed[1:].numpy()].tolist())


def same_features(one: Prepared, other: Prepared) -> bool:
    """Compare completed features bit for bit."""
    pairs = zip(one.dataset.modalities.values(), other.dataset.modalities.values())
    return all(torch.equal(a.features, b.features) for a, b in pairs)


def finite(run: Prepared, network: Any) -> bool:
    """Tell whether every user has a finite score for every item."""
    return bool(torch.isfinite(run.scores(network)[:, 1:]).all())


class Bomb:
    """Writes a file if it is unpickled."""

    def __reduce__(self) -> Any:  # noqa: D105
        return os.system, ("touch pwned",)


@pytest.fixture(autouse=True)
def _nothing_ran(tmp_path: Path) -> Iterator[None]:
    """Check after each case that no code of a file was run."""
    yield
    assert not (tmp_path / "pwned").exists(), "code of a file was run"


# ------------------------------------------------------------------------- the table: features


@row("feature rows != items, no id file", "E: both numbers; pass ids; never pad or cut")
@pytest.mark.parametrize("shape", [(SIZE - 1, 6), (SIZE + 1, 6), (0, 6), (6, SIZE)], ids=str)
def test_row_count(data, shape):
    data.content.image = np.ones(shape, np.float32)
    with data.error("image.npy", f"{shape[0]} rows", f"{SIZE} items", "image_ids"):
        data.read(image_ids=None)


@row("ids given, some unknown to the data set", "W with count; ignored; item_num unchanged")
def test_unknown_ids(data):
    plain = data.read()
    data.content.image = np.vstack([data.image, np.ones((5, 6), np.float32)])
    data.content.image_ids += [f"x{number}" for number in range(5)]
    with data.warning("image_ids.txt", "5 of 33", "'x0'"):
        run = data.read()
    assert run.dataset.item_num == plain.dataset.item_num == SIZE + 1
    assert same_features(run, plain)


@row("ids given, some items absent", "missing in the mask; count shown per modality")
def test_absent_ids(data):
    assert absent_images(data.read()) == {"i6", "i7"}
    assert data.logged("'image'", f"2 of {SIZE} items lack it")


@row("duplicate item ids, equal rows / different rows", "W, keep one / E")
@pytest.mark.parametrize("equal", [True, False], ids=["equal", "different"])
def test_repeated_ids(data, equal):
    plain = data.read()
    again = data.picture("i3") if equal else data.picture("i3") + 1
    data.content.image, data.content.image_ids = (
        np.vstack([data.image, again]),
        [*data.content.image_ids, "i3"],
    )
    if equal:
        with data.warning("image_ids.txt", "1 of 29", "'i3'"):
            assert same_features(data.read(), plain)
    else:
        with data.error("image_ids.txt", "'i3'"):
            data.read()


@row("whole row NaN", "missing, count shown; equals the same run with that row masked")
def test_a_row_of_nan(data):
    data.content.lacks = {"i3": ["image"]}
    masked = data.read(missing_protocol="file", missing_file="lacks.tsv")
    data.picture("i3")[:] = np.nan
    run = data.read()
    assert data.logged("image.npy", "1 rows are NaN") and "i3" in absent_images(run)
    assert same_features(run, masked)


@row("some NaN or inf in a row", "E: file, row, id")
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e39], ids=str)
def test_some_nan(data, value):
    data.content.image = data.image.astype(np.float64)
    data.picture("i3")[2] = value
    with data.error("image.npy", "1 rows", f"{data.content.row('i3')} (item 'i3')"):
        data.read()


@row("all-zero row, row equal to the mean, duplicated rows", "W looks imputed, with counts")
@pytest.mark.parametrize("kind", ["zero", "mean", ""], ids=["zero", "mean", "duplicated"])
def test_rows_that_look_imputed(data, kind):
    items = ["i0", "i1", "i2", "i8"]
    others = [place for place, item in enumerate(data.content.image_ids) if item not in items]
    for item in items:
        data.picture(item)[:] = {"zero": 0, "mean": data.image[others].mean(axis=0)}.get(kind, 7)
    with data.warning("image.npy", "looks imputed", "4 of 28", kind):
        data.read()


@row("dtype float16/float64/int/bool", "cast to float32; object or string: E")
@pytest.mark.parametrize("dtype", ["f2", "f8", ">f4", "i8", "u1", "?", "U3", "c8"])
def test_dtypes(data, dtype):
    data.content.image = np.abs(data.image * 9).astype(dtype)
    if dtype in ("U3", "c8"):
        with data.error("image.npy", "real numbers", data.image.dtype):
            data.read()
        return
    modality = data.read().dataset.known["image"]
    assert modality.features.dtype == torch.float32
    assert modality.features.sum() == pytest.approx(data.image.astype(np.float32).sum())


@row("object array / pickled .npy, .pkl", "E: pickled, import it; no global but numpy's arrays")
@pytest.mark.parametrize("name", ["image.npy", "image.npz", "image.pkl"])
def test_pickles(data, name):
    settings = data.settings(image_features=name)
    path, bombs = data.root / "tiny" / name, np.array([[Bomb()]] * 28, dtype=object)
    if name == "image.pkl":
        path.write_bytes(pickle.dumps(Bomb()))
    else:
        (np.save if name == "image.npy" else np.savez)(path, bombs)
    with data.error(path, "pickled", "recbole-missing import"):
        prepare("VBPR", settings)


@row("object array / pickled .npy, .pkl", "E: pickled, import it; no global but numpy's arrays")
def test_a_pickled_mask_with_code(data, tmp_path):
    source, bomb = mmrec_folder(tmp_path), np.empty((), dtype=object)
    bomb[()] = {"all": Bomb()}
    np.save(source / "missing_items_0.5.npy", bomb)
    with data.error("missing_items_0.5.npy", "system is not admitted"):
        data.command("import", "dgmrec", source, "--name=new")


@row("truncated .npy/.safetensors/parquet", "E: expected and found bytes; no partial array")
@pytest.mark.parametrize("cut", [1, 300, None], ids=["a byte", "half", "all"])
@pytest.mark.parametrize("name", ["image.npy", "image.safetensors", "image.parquet"])
def test_truncated_files(data, name, cut):
    settings = data.settings(image_features=name)
    path = data.root / "tiny" / name
    if name == "image.safetensors":
        pytest.importorskip("safetensors.numpy").save_file({"features": data.image}, str(path))
    elif name == "image.parquet":
        path.write_bytes(b"PAR1" + data.image.tobytes() + b"PAR1")
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut] if cut else b"")
    size = path.stat().st_size
    counts = [f"{size:,}"] if name != "image.parquet" else [".npy, .npz, .safetensors"]
    counts += [f"{len(whole):,} bytes"] if name == "image.npy" and cut else []
    with data.error(path, *counts):
        prepare("VBPR", settings)


@row(
    "1-D or 3-D array; (1,d) files of Ducho with unequal d", "squeeze (1,d); else E: first odd file"
)
@pytest.mark.parametrize("shape", [(28,), (28, 1, 6)], ids=str)
def test_other_dimensions(data, shape):
    data.content.image = np.ones(shape, np.float32)
    with data.error("image.npy", "(n_rows, dim)", shape):
        data.read()


@row(
    "1-D or 3-D array; (1,d) files of Ducho with unequal d", "squeeze (1,d); else E: first odd file"
)
def test_a_file_an_item(data):
    plain, settings = data.read(), data.settings(image_features="vectors", image_ids=None)
    (data.root / "tiny/vectors").mkdir()
    for item, vector in zip(data.content.image_ids, data.image):
        np.save(data.root / f"tiny/vectors/{item}.npy", vector[None])
    assert same_features(prepare("VBPR", settings), plain)
    np.save(data.root / "tiny/vectors/i3.npy", np.ones((1, 5), np.float32))
    with data.error("vectors/i3.npy", "6 numbers", "got 5"):
        prepare("VBPR", settings)


# ----------------------------------------------------------------- the table: missing modalities


@row("item with every modality missing", "allowed; W with count; every model gives numbers")
@pytest.mark.parametrize("model", MODELS)
def test_nothing_of_an_item(data, model):
    data.content.lacks = {item: ["image", "title", "tags"] for item in ("i8", COLD)}
    with data.warning("2 of 30 items", "every modality"):
        run, trainer = data.train(model, missing_protocol="file", missing_file="lacks.tsv")
    assert finite(run, trainer.model)


@row("modality with no observed row", "E: 0 of 30 observed; drop it from `modalities`")
@pytest.mark.parametrize("how", ["NaN", "ids", "ratio"])
def test_a_modality_of_nobody(data, how):
    if how == "NaN":
        data.image[:] = np.nan
    if how == "ids":
        data.content.image_ids = [f"x{number}" for number in range(28)]
    ratio = {"missing_protocol": "random_items", "missing_ratio": 1.0} if how == "ratio" else {}
    words = ("no id matches", "x0") if how == "ids" else ("0 of 30", "`modalities`")
    with data.error("image", *words):
        data.read(**ratio)


@row("modality fully observed, ratio 0", "the numbers of a run without a mask, bit for bit")
@pytest.mark.parametrize("protocol", ["random_items", "stratified"])
def test_nothing_hidden(data, protocol):
    scores = []
    for changes in ({}, {"missing_protocol": protocol, "missing_ratio": 0.0}):
        run, trainer = data.train("DGMRec", epochs=2, modalities=["tags"], **changes)
        scores.append(run.scores(trainer.model))
    assert torch.equal(*scores)


@row("ratio 1.0, negative, 66.6, or ratio and mask file both set", "E: the range; one source only")
@pytest.mark.parametrize("ratio", [FULL, -0.1, 66.6, "a half", True, np.nan, [0.5]], ids=str)
def test_ratios(data, ratio):
    words = ["0 of 30", "lower"] if ratio is FULL else [ratio]
    with data.error("missing_ratio", *words):
        data.read(missing_protocol="random_items", missing_ratio=ratio)


@row("ratio 1.0, negative, 66.6, or ratio and mask file both set", "E: the range; one source only")
@pytest.mark.parametrize("protocol", ["file", "random_items"])
def test_two_masks(data, protocol):
    with data.error("missing_", protocol):
        data.read(missing_protocol=protocol, missing_ratio=0.5, missing_file="lacks.tsv")


@row("mask ids out of range / negative / not integers / tokens", "E: the first five; no wrap")
@pytest.mark.parametrize("ids", [[-1, -2], [6, 99], [0.5], ["a"]], ids=str)
def test_mask_ids(data, tmp_path, ids):
    source, mask = mmrec_folder(tmp_path), np.empty((), dtype=object)
    mask[()] = {"all": np.array(ids)}
    np.save(source / "missing_items_0.5.npy", mask)
    words = [ids] if isinstance(ids[0], int) else ["integers" if ids == [0.5] else "admitted"]
    with data.error("missing_items_0.5.npy", *words):
        data.command("import", "dgmrec", source, "--name=new")


@row("mask file for another data set (hash or n_items differ)", "E")
def test_a_mask_of_another_data_set(data):
    data.content.lacks = {f"x{number}": ["image"] for number in range(7)}
    with data.error("lacks.tsv", "7 unknown", "'x0', 'x1', 'x2', 'x3', 'x4'"):
        data.read(missing_protocol="file", missing_file="lacks.tsv")


@row("mask file for another data set (hash or n_items differ)", "E, also if it has the same tokens")
def test_a_mask_of_another_data_set_with_the_same_tokens(data):
    settings = data.settings(missing_protocol="file", missing_file="lacks.tsv")
    lacks = {"i1": ["image"], "i2": ["title"]}
    file = data.root / "tiny/lacks.tsv"
    tokens = prepare("VBPR", {**settings, "missing_protocol": "none", "missing_file": None}).dataset
    items = tokens.field2id_token["item_id"][1:].tolist()
    for name, of, words in (
        ("other", list(lacks), f"'tiny' and {SIZE} items"),
        ("other", items, "name 'tiny'"),
        ("tiny", items[:-1], f"{SIZE} items"),
    ):
        write_missing_file(file, lacks, name, of)
        with data.error("lacks.tsv", f"{name!r} with {len(of)} items", words):
            prepare("VBPR", settings)
    write_missing_file(file, lacks, "tiny", [*items, "filtered"])
    with data.warning("lacks.tsv", f"'tiny' with {SIZE + 1} items, got {SIZE} items"):
        prepare("VBPR", settings)


@row("mask made after the split leaks?", "a mask does not depend on validation and test")
@pytest.mark.parametrize("protocol", ["random_items", "stratified"])
def test_masks_know_training_alone(data, protocol):
    def mask() -> list[set[str]]:
        dataset = data.read(missing_protocol=protocol, missing_ratio=0.5).dataset
        tokens = dataset.field2id_token["item_id"]
        return [set(tokens[m.observed.numpy()].tolist()) for m in dataset.known.values()]

    before = mask()
    data.content.test, data.content.valid = data.content.valid[::2], data.content.test
    assert mask() == before


@row("k >= n_items in kNN, or fewer than k observed items", "clamp, W; no padding as neighbour")
def test_k_beyond_the_items(data):
    features = torch.cat([torch.zeros(1, 2), torch.eye(2), torch.ones(1, 2)])
    with data.warning("k is 10", "3 items"):
        graph = knn_graph(features, 10, torch.tensor([False, True, True, True]))
    rows, columns, _ = graph.edges()
    assert sorted(zip(rows.tolist(), columns.tolist())) == [
        (one, other) for one in (1, 2, 3) for other in (1, 2, 3)
    ]


@row("k >= n_items in kNN, or fewer than k observed items", "clamp, W; no padding as neighbour")
@pytest.mark.parametrize("model", ["FREEDOM", "DGMRec"])
def test_k_beyond_the_items_of_a_run(data, model):
    with data.warning("k is 99", "items"):
        run, trainer = data.train(model, knn_k=99, modalities=["tags"])
    assert finite(run, trainer.model)


@row("ties in top-k", "stable by item id")
def test_ties(data):
    _, columns = stable_topk(torch.ones(3, 50), 7)
    assert columns.tolist() == [list(range(7))] * 3
    run, trainer = data.train("BPR", topk=[5])
    torch.nn.init.ones_(trainer.model.user_embedding.weight)
    torch.nn.init.ones_(trainer.model.item_embedding.weight)
    users = torch.arange(1, N_USERS + 1)
    items, _ = top_items(trainer.model, run.config, run.dataset, users, None, 7)
    assert items.tolist() == [list(range(1, 8))] * N_USERS


@row("top-k metric > n_items", "E with both numbers")
def test_long_lists(data):
    with data.error("topk", SIZE, "50"):
        data.read(topk=[5, 50])


# ------------------------------------------------------------------ the table: users and items


@row("item in the catalogue without training interaction", "candidate; graph models give numbers")
@pytest.mark.parametrize("model", MODELS)
def test_items_of_nobody(data, model):
    data.content.titles["i100"], data.content.tags["i100"] = "red sea", "a b"
    columns = {"inter": ["user_id", "item_id"], "item": ["item_id"]}
    run, trainer = data.train(model, load_col=columns)
    assert run.dataset.token2id("item_id", "i100") < run.dataset.item_num == SIZE + 2
    assert finite(run, trainer.model)


@row("user without training interaction, in test", "dropped with a count")
def test_users_without_training(data):
    data.content.test.append(("stranger", "i1"))
    with data.warning("1 ", "user", "training"):
        run, trainer = data.train()
    assert finite(run, trainer.model)


@row("user/item token unknown at inference", "E: lists tokens; --on-unknown skip")
def test_unknown_users(data):
    _, trainer = data.train()
    words = ["recommend", trainer.saved_model_file, "--users", "u1", "x1", "x2"]
    with data.error("2 of 3", "'x1', 'x2'", "--on-unknown skip"):
        data.command(*words)
    lists = data.command(*words, "--on-unknown", "skip").splitlines()[1:]
    assert {line.split("\t")[0] for line in lists} == {"u1"}


@row("empty valid or test part", "E before training starts")
@pytest.mark.parametrize("part", ["valid", "test", "train"])
def test_empty_parts(data, part):
    setattr(data.content, part, [])
    with data.error("training" if part == "train" else part, "0 of"):
        data.read()


@row("empty valid or test part", "E before training starts")
def test_a_split_without_validation(data):
    split = {"split": {"RS": [1.0, 0.0, 0.0]}, "order": "RO", "group_by": "user"}
    with data.error("validation", "[1.0, 0.0, 0.0]", "eval_args"):
        data.read(benchmark_filename=None, eval_args=split)


@row("single modality with a model that needs two", "E at construction; no IndexError later")
@pytest.mark.parametrize("model", MODELS)
def test_one_modality(data, model):
    run = data.read(model, modalities=["image"], epochs=3)
    trainer = run.trainer()
    trainer.fit(run.train, run.valid)  # every model of ours takes one
    assert finite(run, trainer.model)


# ---------------------------------------------------------------------- the table: the run


@row("unknown config key (mising_ratio)", "E: did you mean; RecBole's keys untouched")
def test_unknown_settings(data):
    with data.error("'mising_ratio'", "Did you mean 'missing_ratio'?"):
        data.read(mising_ratio=0.5)
    data.read(metric_decimal_place=3)


@row("loss NaN", "stop, keep the last good checkpoint, name batch and term")
@pytest.mark.parametrize("model", ["VBPR", "BPR"])
def test_nan(data, model, monkeypatch):
    run = data.read(model, epochs=3)
    trainer = run.trainer()
    train = trainer._train_epoch

    def poisoned(batches: Any, epoch: int, *args: Any, **kwargs: Any) -> Any:
        if epoch == 2:
            torch.nn.init.constant_(next(trainer.model.parameters()), torch.nan)
        return train(batches, epoch, *args, **kwargs)

    monkeypatch.setattr(trainer, "_train_epoch", poisoned)
    with data.error(model, "bpr" if model == "VBPR" else "loss", "nan", "batch 1 of epoch 2"):
        trainer.fit(run.train, run.valid)
    state = checkpoint.load(Path(trainer.saved_model_file))
    assert state["epoch"] <= 1
    assert all(torch.isfinite(value).all() for value in state["state_dict"].values())


class Interrupted(Toy):
    """Stops once in its third epoch, as if it were killed there."""

    armed = False

    def on_epoch_start(self, minimise: Any) -> None:
        """Work twice."""
        super().on_epoch_start(minimise)
        if Interrupted.armed and self.calls.count("epoch") == 3:
            Interrupted.armed = False
            raise KeyboardInterrupt


@row("killed mid-training, resumed", "the metrics of an undisturbed run; else E: config differs")
def test_resumed(data, monkeypatch):
    settings = data.settings(epochs=5, checkpoint_every=0)
    whole = run_recbole_missing(Interrupted, "tiny", config_dict=settings)
    settings["checkpoint_dir"] = str(data.root / "other")
    monkeypatch.setattr(Interrupted, "armed", True)
    with pytest.raises(KeyboardInterrupt):
        run_recbole_missing(Interrupted, "tiny", config_dict=settings)
    (last,) = (data.root / "other").glob("*.last")
    with data.error(last.name, "seed"):
        changed = {**settings, "seed": 1}
        run_recbole_missing(Interrupted, "tiny", config_dict=changed, resume=str(last))
    resumed = run_recbole_missing(Interrupted, "tiny", config_dict=settings, resume="auto")
    assert resumed["test_result"] == whole["test_result"]
    assert resumed["best_valid_result"] == whole["best_valid_result"]


@row("killed while writing", "old file intact; temporary file removed at next start")
def test_half_a_file(data, tmp_path):
    path = tmp_path / "model.pth"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), whole_file(path) as temporary:
        temporary.write_text("ne")
        raise KeyboardInterrupt
    assert [file.name for file in tmp_path.iterdir()] == ["model.pth"]
    assert path.read_text() == "old"


@row("killed while writing", "half a line of a store is skipped and reported")
def test_half_a_line(data, tmp_path):
    store = Store(tmp_path / "mine.jsonl")
    store.append(line("a"))
    whole = store.path.read_bytes()
    store.path.write_bytes(whole + whole[: len(whole) // 2])
    with data.warning("mine.jsonl", "incomplete"):
        assert [one.run for one in store.lines()] == ["a"]
    store.append(line("b"))
    assert [one.run for one in store.lines()] == ["a", "b"]


def full(*_: Any, **__: Any) -> Any:
    """Stand for a write on a full disk."""
    raise OSError(errno.ENOSPC, "No space left on device")


@row("disk full", "E with path and bytes; previous checkpoint intact; exit code != 0")
def test_a_full_disk(data, monkeypatch, tmp_path):
    _, trainer = data.train()
    old = Path(trainer.saved_model_file).read_bytes()
    monkeypatch.setattr(torch, "save", full)
    with data.error(trainer.saved_model_file, "bytes"):
        trainer._save_checkpoint(1)
    assert Path(trainer.saved_model_file).read_bytes() == old
    assert len(list(Path(trainer.saved_model_file).parent.glob("*tmp*"))) == 0


@row("two runs in one directory", "each gets a name of its own; a stale lock is recognised")
def test_two_runs(data, tmp_path):
    one, other = data.read().trainer(), data.read().trainer()
    assert one.saved_model_file != other.saved_model_file
    first, second = Store(tmp_path / "mine.jsonl"), Store(tmp_path / "mine.jsonl")
    claim = first.claim("a")
    assert claim is not None and second.claim("a") is None
    first.release(claim)
    (tmp_path / ".mine.jsonl.claims").mkdir()
    (tmp_path / ".mine.jsonl.claims/a").touch()  # what a killed process leaves
    assert second.claim("a") is not None


@row("sweep restarted", "finished runs skipped, failed ones listed, --retry-failed")
def test_a_sweep_restarted(data):
    data.yaml().rename(data.root / "tiny" / "tiny.yaml")
    grid = {"dataset": ["tiny"], "model": ["BPR", "VBPR"], "seed": [1]}
    cases = [{"model": "VBPR", "settings": {"learning_rate": 1e30, "train_batch_size": 64}}]
    Path("mine.yaml").write_text(yaml.safe_dump({"title": "Mine", "grid": grid, "cases": cases}))
    for options, says in (
        ([], "2 runs, 0 done, 2 to do"),
        ([], "2 runs, 1 done, 1 failed before (repeat them with --retry-failed), 0 to do"),
        (["--retry-failed"], "2 runs, 1 done, 1 to do"),
    ):
        with pytest.raises(SystemExit) as stopped:
            data.command("benchmark", "mine.yaml", "--data-path", data.root, *options)
        assert stopped.value.code == 1 and says in data.printed()
    assert [one.status for one in Store("mine.jsonl").lines()] == ["done", "failed", "failed"]


@row("cached graph/imputation with other mask or features", "rebuilt")
def test_caches(data):
    def run(folder: str, **changes: Any) -> Prepared:
        changes["checkpoint_dir"] = str(data.root / folder)
        made = data.read(imputation_cache=True, missing_protocol="stratified", **changes)
        assert made.dataset.modalities
        return made

    for number, (item, changes) in enumerate(
        [
            ("i1", {"missing_ratio": 0.3}),
            ("i1", {"missing_ratio": 0.5}),
            ("i1", {"missing_ratio": 0.5, "imputation_layers": 7}),
            ("i2", {"missing_ratio": 0.5}),
        ]
    ):
        data.picture(item)[:] = 3
        shared, fresh = run("shared", **changes), run(f"fresh{number}", **changes)
        assert same_features(shared, fresh)
        assert len(list((data.root / "shared/imputed").iterdir())) == number + 1


@row("model file from other version / other catalogue", "E: compared before loading")
def test_a_model_of_another_catalogue(data):
    _, trainer = data.train()
    data.content.train[0] = ("u1", "i100")
    data.settings()
    with data.error(trainer.saved_model_file, "catalogue"):
        data.command("recommend", trainer.saved_model_file)


@row("model file from other version / other catalogue", "E: compared before loading")
def test_a_model_of_another_version(data):
    _, trainer = data.train()
    path = Path(trainer.saved_model_file)
    state = torch.load(path, weights_only=True)
    state["written_by"]["version"] = "0.0.1"
    state["state_dict"].popitem()
    torch.save(state, path)
    with data.error(path, "0.0.1"):
        data.command("recommend", path)


@row("GPU out of memory", "E: how much was asked for, and the setting to lower")
@pytest.mark.parametrize("where", ["calculate_loss", "full_sort_predict"])
def test_gpu_out_of_memory(data, monkeypatch, where):
    def out_of_memory(*_: Any) -> Any:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 3.00 GiB.")

    run = data.read()
    trainer = run.trainer()
    monkeypatch.setattr(trainer.model, where, out_of_memory)
    knob = "train_batch_size" if where == "calculate_loss" else "eval_"
    with data.error("3,072 MiB", knob):
        trainer.fit(run.train, run.valid)


# ---------------------------------------------------------------------- the table: files


@row("feature file read-only, memory-mapped, not C-contiguous", "works, never written to")
def test_read_only_files(data):
    plain, settings = data.read(), data.settings()
    path = data.root / "tiny/image.npy"
    np.save(path, np.asfortranarray(data.image))
    path.chmod(0o444)
    before = path.read_bytes()
    assert same_features(prepare("VBPR", settings), plain)
    assert path.read_bytes() == before


@row("zip/tar member or YAML path with ..", "E in importers")
@pytest.mark.parametrize("name", ["../new", "..", "/new", "a/b", ".", "a/../../new"])
def test_names_with_dots(data, tmp_path, name):
    source = mmrec_folder(tmp_path)
    with data.error("name", repr(name)):
        data.command("import", "mmrec", source, f"--name={name}")
    assert not (tmp_path / "new").exists() and not (tmp_path.parent / "new").exists()


@row("zip/tar member or YAML path with ..", "E in importers")
def test_archive_members_with_dots(data, tmp_path):
    settings = data.settings(image_features="image.npz")
    path = data.root / "tiny/image.npz"
    np.savez(path, **{"../../pwned": data.image})
    assert finite(*(lambda run: (run, run.network()))(prepare("VBPR", settings)))
    assert not list(tmp_path.rglob("pwned*"))


YAML_CODE = "!!python/object/apply:os.system ['touch pwned']"


def a_result(model: str = "BPR") -> None:
    """Write a store that can be reported."""
    values, point = {"recall@5": 0.1}, {"dataset": "tiny", "model": model, "seed": 1}
    config = {**point, "metrics": ["Recall"], "topk": [5]}
    Store("mine.jsonl").append(line("a", config=config, point=point, test=values, valid=values))


def reading(data: Any, command: str, path: Path) -> list[Any]:
    """Words with which a command reads a YAML file."""
    a_result()
    return {
        "run": ["--model=BPR", "--dataset=tiny", f"--config_files={path}"],
        "impute": [data.root / "tiny"],
        "export": ["mmrec", data.root / "tiny", "--output=out"],
        "benchmark": [path, "--dry-run"],
        "report": ["mine.jsonl", "--benchmark", path],
    }[command]


@row("YAML tags (!!python/object) in our files", "E: no code of a file runs")
@pytest.mark.parametrize("tag", [YAML_CODE, "!!python/name:os.system ''", "!!python/module:os ''"])
@pytest.mark.parametrize("command", ["run", "impute", "benchmark", "report", "export"])
def test_yaml_tags(data, command, tag):
    data.settings()
    path = data.root / "tiny/tiny.yaml"
    path.write_text(f"title: {tag}\ngrid: {{dataset: [tiny], model: [BPR]}}\n")
    with data.error(path, "tag"):
        data.command(command, *reading(data, command, path))


# ============================================================ what users typed: wrong answers


def counts_of(run: Prepared) -> torch.Tensor:
    """Training interactions of each item, ``(n_items,)``, without the padding."""
    items = run.train._dataset.inter_feat["item_id"]
    return torch.bincount(items, minlength=run.dataset.item_num)[1:]


@row("1. Pop", "ranks by the number of training interactions")
def test_popularity(data):
    run, trainer = data.train("Pop", train_batch_size=32)
    scores, counts = run.scores(trainer.model)[0, 1:], counts_of(run)
    assert torch.equal(scores[:, None] > scores, counts[:, None] > counts)


def with_times(data: Data, times: list[Any], kind: str = "float", **changes: Any) -> dict[str, Any]:
    """Settings of a split by time, with these times in the file."""
    settings = data.settings(**BY_TIME, **changes)
    path = data.root / "tiny/tiny.inter"
    header, *rows = path.read_text().splitlines()
    rows = [f"{row.rpartition(chr(9))[0]}\t{time}" for row, time in zip(rows, times)]
    path.write_text("\n".join([header.replace("timestamp:float", f"timestamp:{kind}"), *rows]))
    return settings


@row("2. timestamp in milliseconds", "the newest item of a user is the test item")
@pytest.mark.parametrize("order", ["train first", "test first"])
def test_milliseconds(data, order):
    pairs = [*data.content.train, *data.content.valid, *data.content.test]
    places = range(len(pairs)) if order == "train first" else reversed(range(len(pairs)))
    times = [1_700_000_000_000 + 60_000 * place for place in places]
    split = {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user"}
    run = prepare("VBPR", {**with_times(data, times), "eval_args": split})
    newest = dict(pair for _, pair in sorted(zip(times, pairs)))
    tokens = {name: run.dataset.field2id_token[f"{name}_id"] for name in ("user", "item")}
    test = run.test._dataset.inter_feat
    found = zip(tokens["user"][test["user_id"]], tokens["item"][test["item_id"]])
    assert dict(found) == newest


@row("2. timestamp that is no number", "E")
def test_words_as_times(data):
    settings = with_times(data, [f"day {place}" for place in range(480)], kind="token")
    with data.error("timestamp", "TIME_FIELD"):
        prepare("VBPR", settings)


def single_files(separator: str = ",", quote: str = "", header: str = "") -> list[str]:
    """Interactions of 40 items in a text file, and a matrix with a row for each."""
    pairs = [(f"u{number % 7}", str(number)) for number in range(40)]
    swapped = header.startswith("item_id")
    pairs = [pair[::-1] if swapped else pair for pair in pairs]
    lines = [separator.join(f"{quote}{cell}{quote}" for cell in pair) for pair in pairs]
    Path("q.csv").write_text("\n".join([*([header] if header else []), *lines]) + "\n")
    image = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    image[[3, 9]] = np.nan
    np.save("f.npy", image)
    Path("ids.txt").write_text("".join(f"{number}\n" for number in range(40)))
    return ["impute", "--interactions=q.csv", "--features=image=f.npy", "--ids=image=ids.txt"]


@row("3. impute: a CSV with quoted cells, columns in any order", "40 items, not 80")
@pytest.mark.parametrize("quote", ["", '"'], ids=["plain", "quoted"])
@pytest.mark.parametrize("header", ["", "user_id,item_id", "item_id,user_id"])
def test_single_files(data, header, quote):
    data.command(*single_files(",", quote, header))
    report = json.loads(Path("q_imputed/report.json").read_text())
    assert (report["items"], report["interactions"]) == (40, 40)
    assert report["modalities"]["image"]["missing"] == 2


@row("3. impute: ids that never meet", "E with the number of those that do")
def test_ids_that_never_meet(data):
    words = single_files(header="user_id,item_id")
    Path("ids.txt").write_text("".join(f"{number:05}\n" for number in range(40)))
    with data.error("q.csv", "'0'", "'00000'"):
        data.command(*words, "--output=out")
    assert not Path("out").exists()


@row("4. quoted ids in .item", "RecBole's convention: the quotes are no part of an id")
def test_quoted_ids(data):
    plain, settings = data.read(), data.settings()
    path = data.root / "tiny/tiny.item"
    header, *rows = path.read_text().splitlines()
    quoted = [f'"{item}"\t{rest}' for item, _, rest in (row.partition("\t") for row in rows)]
    path.write_text("\n".join([header, *quoted]) + "\n")
    assert same_features(prepare("VBPR", settings), plain)


LABELS = {"load_col": {"inter": ["user_id", "item_id", "timestamp"]}, "benchmark_filename": None}


@row("5. threshold", "disliked pairs are refused or counted, never trained on in silence")
def test_threshold(data):
    with data.error_or_warning("threshold", "240"):
        data.read(**LABELS, threshold={"timestamp": 240})


@row("5. repeated pairs across splits", "refused or counted")
def test_pairs_of_two_splits(data):
    user, item = data.content.train[0]
    data.content.test.append((user, item))
    with data.error_or_warning("1 ", "test", "training"):
        data.read()


@row("5. benchmark_filename with item_inter_num_interval", "refused or said: nothing is filtered")
def test_filters_of_given_splits(data):
    with data.error_or_warning("item_inter_num_interval", "benchmark_filename"):
        data.read(item_inter_num_interval="[16,inf)")


@row("5. user_inter_num_interval: 5", "E: an interval")
@pytest.mark.parametrize("value", [5, "5", "[5", "five"], ids=str)
def test_intervals(data, value):
    with data.error("user_inter_num_interval", value):
        data.read(**BY_TIME, user_inter_num_interval=value)


@row("5. save_dataloaders: True", "the numbers of a run that saves nothing")
def test_saved_dataloaders(data):
    scores = []
    for saved in (False, True):
        run, trainer = data.train(save_dataloaders=saved, save_dataset=saved, epochs=2)
        scores.append(run.scores(trainer.model))
    assert torch.equal(*scores)


def some_array() -> tuple[Any, np.ndarray]:
    """Interactions of 12 users with 9 items, and features of which two rows are NaN."""
    generator = np.random.default_rng(0)
    features = generator.normal(size=(9, 3)).astype(np.float32)
    features[[2, 5]] = np.nan
    return sparse.csr_matrix(generator.random((12, 9)) < 0.4, dtype=np.float32), features


def imputer(method: str) -> Any:
    """An imputer with its defaults, but quick."""
    epochs = {"epochs": 2} if "epochs" in IMPUTERS[method].hyperparameters else {}
    return IMPUTERS[method](**epochs)


@row("6. fit on a dense array, DataFrame or tensor", "as on a sparse matrix")
@pytest.mark.parametrize("method", IMPUTERS)
@pytest.mark.parametrize("kind", ["array", "table", "tensor"])
def test_dense_interactions(data, method, kind):
    import pandas as pd

    interactions, features = some_array()
    convert = {"array": np.asarray, "table": pd.DataFrame, "tensor": torch.as_tensor}[kind]
    given = convert(interactions.toarray())
    features = {"a": features, "b": np.flip(features, 0).copy()}
    expected = imputer(method).fit(interactions).transform(features)
    completed = imputer(method).fit(given).transform(features)
    np.testing.assert_array_equal(completed["a"], expected["a"])


@row("6. a row [7, nan, nan], observed in integers, NaN as an interaction, text", "E by name")
@pytest.mark.parametrize("what", ["some NaN", "integers", "interaction", "text", "vector"])
def test_arrays(data, what):
    interactions, features = some_array()
    observed = None
    if what == "some NaN":
        features[2, 0] = 7
    if what == "integers":
        observed = np.array([0, 1, 3, 4, 6, 7, 8, 8, 8])
    if what == "interaction":
        interactions.data[0] = np.nan
    if what == "text":
        features = features.astype(str).astype(object)
    if what == "vector":
        interactions = np.ones(9)
    name = "interactions" if what in ("interaction", "vector") else "observed"
    with data.error({"some NaN": "1 rows", "text": "'X'"}.get(what, name)):
        Mean().fit(interactions).transform(features, observed)


@row("6. features near 3e38", "finite, or E")
@pytest.mark.parametrize("method", IMPUTERS)
def test_large_features(data, method):
    interactions, features = some_array()
    features = features / np.nanmax(np.abs(features)) * np.float32(3.3e38)
    features = {"a": features, "b": np.flip(features, 0).copy()}
    try:
        completed = imputer(method).fit(interactions).transform(features)
    except ValueError as error:
        assert cli.is_refusal(error) and "e+38" in str(error)
    else:
        assert all(np.isfinite(rows).all() for rows in completed.values())


# ============================================================ what users typed: code in files

CODE = "__import__('os').system('touch pwned')"
PLANTED = "import os\nos.system('touch pwned')\nclass Evil: pass\n"


@row("7. a checkpoint with code in its config", "nothing of it is evaluated, imported, unpickled")
@pytest.mark.parametrize(
    "changes",
    [
        {"valid_metric": f"({CODE},'Recall@5')[1]"},
        {"metrics": f"({CODE},['Recall'])[1]"},
        {"topk": f"({CODE},[5])[1]"},
        {"eval_args": f"({CODE},{{}})[1]"},
        {"learning_rate": CODE},
        {"dataset": "../tiny/tiny"},
        {"benchmark_filename": CODE},
        {"dataset_save_path": "planted.pth"},
        {"dataloaders_save_path": "planted.pth"},
        {"loss_type": CODE},
        {"model": "planted:Evil"},
        {"imputation": "planted:Evil"},
        {"metrics": ["planted:Evil"]},
    ],
    ids=lambda changes: f"{list(changes)[0]}",
)
@pytest.mark.parametrize("model", ["VBPR", "BPR"])
def test_checkpoints_with_code(data, tmp_path, monkeypatch, model, changes):
    _, trainer = data.train(model)
    (tmp_path / "planted.py").write_text(PLANTED)
    (tmp_path / "planted.pth").write_bytes(pickle.dumps(Bomb()))
    monkeypatch.syspath_prepend(tmp_path)
    path = Path(trainer.saved_model_file)
    state = torch.load(path, weights_only=True)
    state["config"].update(changes)
    torch.save(state, path)
    try:
        assert data.command("recommend", path).startswith("user_id:token")
    except SystemExit as stopped:
        assert stopped.code == 2


@row("7. a checkpoint in a format in which old versions of torch unpickle", "E")
def test_checkpoints_of_the_old_format(data):
    _, trainer = data.train()
    path = Path(trainer.saved_model_file)
    state = torch.load(path, weights_only=True)
    torch.save(state, path, _use_new_zipfile_serialization=False)
    with data.error(path, "must be a checkpoint of recbole_missing"):
        data.command("recommend", path)


@row("8. a benchmark file or --set with code", "values are data")
@pytest.mark.parametrize(
    ("where", "model", "options"),
    [
        *((where, "VBPR", []) for where in ("settings", "grid", "cases", "search", "--set")),
        ("settings", "BPR", []),
        ("--set", "BPR", []),
        ("settings", "VBPR", ["--dry-run"]),
        ("search", "BPR", ["--dry-run"]),
    ],
)
def test_benchmarks_with_code(data, where, model, options):
    data.yaml().rename(data.root / "tiny/tiny.yaml")
    code = {"learning_rate": CODE}
    plan: dict[str, Any] = {"grid": {"dataset": ["tiny"], "model": [model], "seed": [1]}}
    if where == "settings":
        plan["settings"] = code
    if where == "grid":
        plan["grid"]["learning_rate"] = [CODE]
    if where == "cases":
        plan["cases"] = [{"model": model, "settings": code}]
    if where == "search":
        plan["search"] = {"space": {"learning_rate": [CODE, 0.1]}}
    Path("mine.yaml").write_text(yaml.safe_dump(plan))
    words = ["--set", f"learning_rate={CODE}"] if where == "--set" else []
    try:
        data.command("benchmark", "mine.yaml", "--data-path", data.root, *words, *options)
    except SystemExit as stopped:  # refused, or a failed run
        assert stopped.code in (1, 2)


@row("8. module:Class", "not imported for --dry-run and report")
@pytest.mark.parametrize("command", ["benchmark", "report"])
def test_classes_are_not_imported_to_look(data, tmp_path, monkeypatch, command):
    data.yaml().rename(data.root / "tiny/tiny.yaml")
    (tmp_path / "planted.py").write_text(PLANTED)
    monkeypatch.syspath_prepend(tmp_path)
    grid = {"dataset": ["tiny"], "model": ["planted:Evil"], "seed": [1]}
    Path("mine.yaml").write_text(yaml.safe_dump({"grid": grid}))
    if command == "benchmark":
        words = ["mine.yaml", "--data-path", data.root, "--dry-run"]
    else:
        a_result("planted:Evil")
        words = ["mine.jsonl", "--benchmark", "mine.yaml"]
    try:
        data.command(command, *words)
    except SystemExit as stopped:
        assert stopped.code == 2


@row("9. a planted pickle in saved/", "a plain run loads no cache")
@pytest.mark.parametrize(
    "name",
    ["tiny-VBPRDataset.pth", "tiny-MultimodalDataset.pth", "tiny-Dataset.pth",
     "tiny-for-VBPR-dataloader.pth", "tiny-for-BPR-dataloader.pth", "tiny-BPRDataset.pth"],
)  # fmt: skip
def test_planted_caches(data, name):
    (data.root / "saved").mkdir(parents=True)
    (data.root / "saved" / name).write_bytes(pickle.dumps(Bomb()))
    for model in ("VBPR", "BPR"):
        assert data.read(model).dataset.item_num == SIZE + 1


@row("10. import --force over a folder of one's own", "E; nothing is deleted")
def test_forced_import(data, tmp_path):
    source = mmrec_folder(tmp_path)
    notes = Path("dataset/new/notes.txt")
    notes.parent.mkdir(parents=True)
    notes.write_text("mine")
    with data.error("dataset/new"):
        data.command("import", "mmrec", source, "--name=new", "--force")
    assert notes.read_text() == "mine"
    data.command("import", "mmrec", source, "--name=other")
    data.command("import", "mmrec", source, "--name=other", "--force")


# ======================================================== what users typed: killed, full, twice


@row("12. disk full: the optional cache of imputed rows", "W; the run goes on")
def test_a_full_disk_of_the_cache(data, monkeypatch):
    plain = data.read(imputation_cache=False)
    monkeypatch.setattr(cache, "save_file", full)
    with data.warning("imputed", "space"):
        assert same_features(data.read(imputation_cache=True), plain)


@row("12. disk full: the store", "E with the path; no half line")
def test_a_full_disk_of_the_store(data, monkeypatch, tmp_path):
    store = Store(tmp_path / "mine.jsonl")
    store.append(line("a"))
    before = store.path.read_bytes()
    monkeypatch.setattr(os, "fsync", full)
    with data.error(store.path):
        store.append(line("b"))
    assert store.path.read_bytes() == before


@row("13. impute twice into one folder", "E without --force")
def test_impute_twice(data):
    words = single_files()
    data.command(*words, "--output=out")
    with data.error("out", "--force"):
        data.command(*words, "--output=out", "--method=mean")


def interrupt(*_: Any, **__: Any) -> Any:
    """Stand for Ctrl-C."""
    raise KeyboardInterrupt


@row("13. Ctrl-C", "one line, exit code 130")
@pytest.mark.parametrize("command", ["run", "impute"])
def test_interrupted_commands(data, monkeypatch, capsys, command):
    words = single_files() if command == "impute" else ["run", "--model=VBPR", "--dataset=tiny"]
    words += [f"--config_files={data.yaml()}"] if command == "run" else []
    monkeypatch.setattr(FeatProp, "fill", interrupt)
    with pytest.raises(BaseException) as stopped:
        data.command(*words)
    assert isinstance(stopped.value, SystemExit) and stopped.value.code == 130
    said = [text for text in capsys.readouterr().err.splitlines() if "nterrupted" in text]
    assert len(said) == 1


@row("13. recommend where the data were moved", "--data-path")
@pytest.mark.parametrize("command", ["recommend", "retrieve"])
def test_moved_data(data, command):
    mask = {"missing_protocol": "random_items", "missing_ratio": 0.3}
    _, trainer = data.train(**mask)
    file = Path(trainer.saved_model_file).rename("model.pth")
    data.root.rename("elsewhere")
    with data.error("--data-path"):
        data.command(command, file)
    assert data.command(command, file, "--data-path=elsewhere")


# ================================================== what users typed: late, deep or unclear


@row("14. valid_metric: Recall", "E before training: at which k")
def test_a_metric_without_k(data):
    with data.error("valid_metric", "'Recall'", "Recall@"):
        data.read(valid_metric="Recall")


@row("14. metrics: [ItemCoverage]", "a number")
@pytest.mark.parametrize(
    ("model", "metric"),
    [("VBPR", "ItemCoverage"), ("BPR", "ItemCoverage"), ("VBPR", "GiniIndex"),
     ("VBPR", "ShannonEntropy"), ("VBPR", "TailPercentage"), ("VBPR", "AveragePopularity")],
)  # fmt: skip
def test_metrics_of_lists(data, model, metric):
    run, trainer = data.train(model, metrics=[metric], valid_metric=f"{metric}@5")
    result = trainer.evaluate(run.test)
    assert 0 <= result[f"{metric.lower()}@5"] < np.inf


@row("14. load_col: [user_id, item_id]", "E: a mapping by file")
@pytest.mark.parametrize(
    "value", [["user_id", "item_id"], "inter", {"inter": "user_id"}, {"inter": ["user_id"]}]
)
def test_load_col(data, value):
    with data.error("load_col"):
        data.read(load_col=value)


@row("14. order: TO without a loaded timestamp", "E: load_col")
def test_time_that_is_not_loaded(data):
    with data.error("load_col", "timestamp"):
        data.read(**{**BY_TIME, "load_col": {"inter": ["user_id", "item_id"]}})


@row("14. mode: labeled with Recall", "E before training")
def test_labeled(data):
    mode = {"eval_args": {"split": {"RS": [0.8, 0.1, 0.1]}, "order": "RO", "mode": "labeled"}}
    with data.error("labeled", "Recall"):
        data.read(benchmark_filename=None, **mode)


@row("14. encoding", "known and honoured, in our readers too")
def test_encoding(data):
    data.content.titles["i1"] = "caf\u00e9 red"
    plain, settings = data.read(), data.settings(encoding="latin-1")
    for path in (data.root / "tiny").glob("tiny.*"):
        path.write_bytes(path.read_text("utf-8").encode("latin-1"))
    assert same_features(prepare("VBPR", settings), plain)
    with data.error("tiny.", "0xe9", "encoding"):
        prepare("VBPR", {**settings, "encoding": "utf-8"})


@row("14. wrong field_separator", "E names it")
@pytest.mark.parametrize("separator", [",", ";", "", "\t\t", 3], ids=repr)
def test_separators(data, separator):
    with data.error("field_separator"):
        data.read(field_separator=separator)


@row("14. a byte-order mark", "as without one")
def test_byte_order_mark(data):
    plain, settings = data.read(), data.settings()
    for path in (data.root / "tiny").glob("tiny.*"):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert same_features(prepare("VBPR", settings), plain)


@row("14. ids of another kind", "E: no id matches, one of each")
@pytest.mark.parametrize("kind", ["00000", "0"])
def test_ids_of_another_kind(data, kind):
    data.content.image_ids = [str(place).zfill(len(kind)) for place in range(28)]
    with data.error("image", repr(kind), "'i"):
        data.read()


@row("14. a data set that RecBole would download", "E: where it was looked for")
def test_absent_data_sets(data, monkeypatch):
    import recbole.data.dataset.dataset as module

    for name in ("download_url", "extract_zip"):
        monkeypatch.setattr(module, name, lambda *_: pytest.fail("a download was begun"))
    with data.error("ml-1m", data.root):
        data.read(dataset="ml-1m")


@row("14. broken YAML", "E: file and line")
@pytest.mark.parametrize("text", ["modalities: [image\n", "- a\n", "", "a: b: c\n", "\tx: 1\n"])
@pytest.mark.parametrize("command", ["run", "impute", "export", "benchmark", "report"])
def test_broken_yaml(data, command, text):
    data.settings()
    path = data.root / "tiny/tiny.yaml"
    path.write_text(text)
    with data.error(path):
        data.command(command, *reading(data, command, path))


OURS = sorted({*package_settings(), *imputer_settings("featprop"), *MODELS["VBPR"].hyperparameters})
OF_IMAGE = sorted(modality_settings("image"))


@row("14. every setting of ours with a value of the wrong type", "E names it")
@pytest.mark.parametrize("key", [*OURS, *OF_IMAGE])
def test_types_of_settings(data, key):
    """One wrong value each; tests/config/test_every_setting.py tries those of every kind."""
    with data.error(key):
        data.read(**{"imputation": "featprop", key: {"a": 1}})


@row("15. a typo that looks like a modality's setting", "E: did you mean")
@pytest.mark.parametrize(
    ("typo", "meant"),
    [("embedding_dim", "embedding_size"), ("imagee_features", "'image'"),
     ("image_feature", "image_features"), ("reg_weigth", "reg_weight")],
)  # fmt: skip
def test_typos(data, monkeypatch, typo, meant):
    path = data.yaml()
    words = ["run", "--model=VBPR", "--dataset=tiny", f"--config_files={path}", f"--{typo}=7"]
    with data.error(repr(typo), meant):
        data.command(*words)


@row("15. missing_protocol without a ratio", "refused or said: nothing is hidden")
@pytest.mark.parametrize("protocol", ["random_items", "stratified"])
def test_no_ratio(data, protocol):
    with data.error_or_warning("missing_ratio", protocol):
        data.read(missing_protocol=protocol)


@row("15. a search with one hopeless cell", "the others are run; the cell is a failed line")
def test_a_hopeless_cell(data):
    data.yaml(missing_protocol="random_items").rename(data.root / "tiny/tiny.yaml")
    grid = {"dataset": ["tiny"], "model": ["VBPR"], "missing_ratio": [0.3, 1], "seed": [1]}
    plan = {"grid": grid, "search": {"space": {"learning_rate": [0.1, 0.01]}}}
    Path("mine.yaml").write_text(yaml.safe_dump(plan))
    with pytest.raises(SystemExit) as stopped:
        data.command("benchmark", "mine.yaml", "--data-path", data.root)
    assert stopped.value.code == 1
    lines = [one for one in Store("mine.jsonl").lines() if one.stage == "test"]
    status = {one.point["missing_ratio"]: one.status for one in lines}
    assert status[0.3] == "done" and status.get(1, "failed") == "failed"
