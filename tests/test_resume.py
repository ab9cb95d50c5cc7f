"""A run that is stopped and resumed ends as an undisturbed one, bit for bit."""

from __future__ import annotations

import errno
import itertools
import logging
import logging.handlers  # `workplace` replaces what it is made of
import os
import random
import shutil
import time
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from filelock import FileLock
from folders import AT_WORK, Toy, tiny_content
from folders import workplace as workplace
from recbole.config import Config
from scipy import sparse
from torch import nn

from recbole_missing import MODELS, checkpoint, cli, quick_start, run_recbole_missing
from recbole_missing import resume as resuming
from recbole_missing.atomic import FullDiskError
from recbole_missing.benchmark import job, plan, runner
from recbole_missing.benchmark.line import settled
from recbole_missing.benchmark.store import Store
from recbole_missing.benchmark.workers import Here
from recbole_missing.hidden_state import HiddenState
from recbole_missing.trainer import PluginTrainer

pytestmark = AT_WORK

RECBOLES = ["BPR", "LightGCN", "NGCF", "SGL"]
OFTEN = {"checkpoint_every": 0, "epochs": 4, "train_batch_size": 100}
ONE = ["array", torch.zeros(1), "<f4", [1]]  # as a checkpoint holds an array of one number
# What a model changes rarely is changed here in a short run.
CHANGES: dict[str, dict[str, Any]] = {
    "DGMRec": {"epochs": 7, "score_on_refreshed_graph": True},
    "MMSSL": {"graph_interval": 1},
    "NGCF": {"node_dropout": 0.2},
}


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.fixture
def settings(tmp_path):
    return {
        **tiny_content().write(tmp_path),
        **OFTEN,
        "missing_protocol": "stratified",
        "missing_ratio": 0.4,
        "stopping_step": 20,
    }


def begun(model, settings, **changes):
    """A run that has not been trained."""
    return quick_start.prepare(Config(model, config_dict={**settings, **changes}))


def ended(run, resume=None):
    """Everything that a run ends with."""
    with resuming.kept(run, resume) as last:
        run.fit()
        test = run.test()
        last.remove()
    trainer = run.trainer
    history = [{k: v for k, v in entry.items() if k != "seconds"} for entry in trainer.history]
    return {
        "test": test,
        "groups": trainer.group_results,
        "parameters": {key: value.clone() for key, value in trainer.model.state_dict().items()},
        "history": history,
        "losses": trainer.train_loss_dict,
        "best": (trainer.best_valid_score, dict(trainer.best_valid_result or {})),
        "random": (torch.rand(1).item(), np.random.rand(), random.random()),
    }


def assert_same(one, other):
    assert one.keys() == other.keys()
    assert one["parameters"].keys() == other["parameters"].keys()
    for key, value in one["parameters"].items():
        assert torch.equal(value, other["parameters"][key]), key
    for key in one.keys() - {"parameters"}:
        assert one[key] == other[key], key


def killed(run, epoch, batch=1, resume=None):
    """Train until a batch of an epoch, and stop as a process that is killed."""
    check = run.trainer._check_nan

    def stop(loss):
        check(loss)
        if (len(run.trainer.train_loss_dict), run.trainer._batches) == (epoch, batch + 1):
            raise Killed

    run.trainer._check_nan = stop
    with pytest.raises(Killed), resuming.kept(run, resume):
        run.fit()


def files(settings):
    return sorted(path.name for path in Path(settings["checkpoint_dir"]).glob("*.*"))


def only(settings, pattern):
    (path,) = Path(settings["checkpoint_dir"]).glob(pattern)
    return path


# ------------------------------------------------------------------------------ bit for bit


@pytest.mark.parametrize("model", [*sorted(MODELS), *RECBOLES])
def test_every_model_ends_as_if_it_had_not_been_stopped(settings, model):
    changes = CHANGES.get(model, {})
    expected = ended(begun(model, settings, **changes))
    killed(begun(model, settings, **changes), epoch=changes.get("epochs", 4) - 2)
    resumed = begun(model, settings, **changes)
    assert_same(ended(resumed, "auto"), expected)
    assert resumed.trainer.start_epoch == changes.get("epochs", 4) - 2
    assert not [name for name in files(settings) if ".last" in name or ".best" in name]


class Odd(Toy):
    """Keeps all kinds of state beside parameters and buffers, and lets them decide its loss."""

    def __init__(self, config: Any, dataset: Any) -> None:
        """Make one of each kind."""
        super().__init__(config, dataset)
        self.count = 0
        self.share = np.float32(1)
        self.momentum = torch.zeros(self.embedding_size)
        self.table = np.zeros(3)
        self.matrix = sparse.eye(2, format="csr")
        self.nested: dict[Any, Any] = {"seen": [torch.zeros(1)], ("a", 1): {2}}
        self.own = torch.Generator().manual_seed(1)
        self.theirs = np.random.default_rng(1)
        self.pure = random.Random(1)
        self.register_buffer("passing", torch.zeros(1), persistent=False)

    def on_epoch_start(self, minimise: Any) -> None:
        """Change all of them."""
        super().on_epoch_start(minimise)
        self.count += 1
        self.share = np.float32(self.share * 0.9)
        self.momentum.mul_(0.5).add_(torch.rand(1, generator=self.own))
        self.table[self.count % 3] += self.theirs.random()
        self.matrix = self.matrix * 1.5
        self.nested["seen"][0] = self.nested["seen"][0] + self.pure.random()
        self.nested["a", 1].add(self.count + 5)
        self.passing += 1

    def loss_terms(self, interaction: Any) -> dict[str, Any]:
        """Scale the loss by everything."""
        numbers = (self.count, self.share, self.table.sum(), self.matrix.sum(), self.passing)
        numbers += (self.nested["seen"][0], sum(self.nested["a", 1]))
        factor = sum(float(number) for number in numbers) + self.momentum.sum()
        return {name: term * factor for name, term in super().loss_terms(interaction).items()}


@pytest.mark.parametrize(
    ("changes", "epoch"),
    [
        ({}, 3),
        ({"eval_step": 2}, 2),
        ({"eval_step": 0, "learning_rate_scheduler": [0.5, 1]}, 2),
        ({"epochs": 9, "stopping_step": 1, "learning_rate": 0.0}, 2),
    ],
)
def test_whatever_training_changes_comes_back(settings, changes, epoch):
    expected = ended(begun(Odd, settings, **changes))
    killed(begun(Odd, settings, **changes), epoch)
    run = begun(Odd, settings, **changes)
    assert_same(ended(run, "auto"), expected)
    assert run.trainer.start_epoch == epoch and run.trainer.model.count > epoch


def test_a_resumed_run_keeps_its_rule_of_ties(settings):
    """All validations of this run give one result, and the first one was before it was killed."""
    changes = {"epochs": 9, "stopping_step": 3, "learning_rate": 0.0, "ties_improve": False}
    expected = ended(begun("VBPR", settings, **changes))
    assert [entry["epoch"] for entry in expected["history"]] == [0, 1, 2, 3, 4]
    killed(begun("VBPR", settings, **changes), epoch=2)
    other = {**changes, "ties_improve": True}
    with pytest.raises(ValueError, match=r"ties_improve False instead of None"):
        ended(begun("VBPR", settings, **other), only(settings, "*.last"))
    run = begun("VBPR", settings, **changes)
    assert_same(ended(run, "auto"), expected)
    assert run.trainer.start_epoch == 2 and run.trainer._best_epoch == 0


def test_a_model_that_no_checkpoint_can_hold_is_said_to_be_one(settings, caplog):
    class Bare(Toy):
        def on_epoch_start(self, minimise: Any) -> None:
            super().on_epoch_start(minimise)
            self.thing = object()

    killed(begun(Bare, settings), 3)
    assert not list(Path(settings["checkpoint_dir"]).glob("*.last"))
    (message,) = {r.getMessage() for r in caplog.records if "no checkpoint can hold" in r.message}
    assert "training changes .thing (object)" in message
    best = only(settings, "*.pth")
    with pytest.raises(ValueError, match=r"must hold everything .* also changes \.thing"):
        ended(begun(Bare, settings), best)
    Bare.remade = ("thing",)
    killed(begun(Bare, settings), 3)
    assert begun(Bare, settings) and only(settings, "*.last")


def test_hidden_state_holds_what_changed_and_no_more():
    module = nn.Linear(2, 2)
    module.constant, module.changing = torch.ones(3), torch.ones(3)
    hidden = HiddenState(module)
    assert hidden.changed() == ({}, [])
    module.changing += 1
    values, lost = hidden.changed()
    assert list(values) == [".changing"] and not lost
    module.changing = torch.zeros(3)
    hidden.restore(values, "cpu")
    assert torch.equal(module.changing, torch.full((3,), 2.0))
    assert list(hidden.changed()[0]) == [".changing"]


class Counter:
    """An object of no library."""

    def __init__(self):
        """Begin."""
        self.seen = 0


CHANGES: dict[str, Any] = {
    "queue": (deque([1]), lambda value: value.append(2)),
    "counter": (Counter(), lambda value: setattr(value, "seen", 1)),
    "modules": ([nn.Linear(1, 1)], lambda value: value[0].weight.data.add_(1)),
    "objects": (np.array([1, "a"], dtype=object), lambda value: value.__setitem__(0, 2)),
    "behind": (torch.ones(3), lambda value: value.data.add_(1)),
}


@pytest.mark.parametrize("name", CHANGES)
def test_no_change_is_overlooked(name):
    module = nn.Linear(2, 2)
    value, change = CHANGES[name]
    setattr(module, f"own_{name}", value)
    hidden = HiddenState(module)
    assert hidden.changed() == ({}, [])
    change(value)
    values, lost = hidden.changed()
    assert [*values, *(word.split()[0] for word in lost)] == [f".own_{name}"]


@pytest.mark.parametrize("pattern", ["*.pth", "*.last", "*.best-*", ".lock"])
def test_a_link_in_the_place_of_a_file_of_a_run_is_not_followed(settings, tmp_path, pattern):
    killed(begun("BM3", settings), 3)
    folder, theirs = Path(settings["checkpoint_dir"]), tmp_path / "theirs"
    if pattern == ".lock":
        (best,) = folder.glob("*.pth")
        file = folder / f".{best.stem}.lock"
        theirs.write_text("1")
    else:
        file = next(folder.glob(pattern))
        file.rename(theirs)
    before = theirs.read_bytes()
    file.symlink_to(theirs)
    with pytest.raises(
        ValueError, match="must not be a symbolic link, got one; remove it"
    ) as raised:
        ended(begun("BM3", settings), "auto")
    assert str(raised.value).startswith(str(file))
    assert file.is_symlink() and theirs.read_bytes() == before


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (".calculate_loss", ["plain", 5]),
        (".n_items", ["plain", 3]),
        (".user", ["plain", 3]),
        (".__class__", ["plain", 3]),
        (".__made", ["plain", 3]),
        ("made", ["plain", 3]),
        ("strange.made", ["plain", 3]),
        (3, ["plain", 3]),
    ],
    ids=str,
)
def test_a_file_changes_only_what_training_changes(settings, path, value):
    run = begun(Odd, settings)
    model, hidden = run.trainer.model, run.trainer._hidden
    before = dict(vars(model))
    with pytest.raises(ValueError) as error:
        hidden.restore({".count": ["plain", 7], path: value}, "cpu", "x.last")
    assert str(error.value) == (
        "x.last: hidden must hold attributes that training changes, got "
        f"{str(path)!r}; train again."
    )
    assert vars(model) == before, "nothing is taken from such a file"
    hidden.restore({".count": ["plain", 7], ".made": ["plain", 8]}, "cpu")
    assert (model.count, model.made) == (7, 8), "training may make an attribute"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (".count", []),
        (".count", 5),
        (".count", ["plain"]),
        (".count", ["odd", 5]),
        (".count", ["generator", ["plain", 1]]),
        (".passing", ["plain", 5]),
        (".momentum", ["tensor", "text"]),
        (".table", ["array", torch.zeros(1), "O", [1]]),
        (".table", ["array", torch.zeros(1), "<f4", [9]]),
        (".matrix", ["sparse", "array", [10**9, 10**9], *[ONE] * 3]),
        (".matrix", ["sparse", "csr", [2, 2]]),
        (".own", ["generator", ["tensor", torch.zeros(3)]]),
        (".pure", ["generator", ["plain", 3]]),
        (".theirs", ["generator", ["dict", []]]),
        (".nested", ["dict", [3]]),
        (".nested", ["list", 3]),
    ],
    ids=str,
)  # fmt: skip
def test_malformed_values_are_refused(settings, path, value):
    hidden = begun(Odd, settings).trainer._hidden
    with pytest.raises(ValueError, match=rf"x: hidden must hold values .* got a bad \{path} \("):
        hidden.restore({path: value}, "cpu", "x")


def test_a_place_beyond_the_memory_of_a_generator_is_refused(settings):
    model = nn.Linear(1, 1)
    model.theirs = np.random.Generator(np.random.MT19937(1))
    model.old = np.random.RandomState(1)
    hidden = HiddenState(model)
    model.theirs.random(), model.old.rand()
    values, _ = hidden.changed()
    hidden.restore(values, "cpu")
    (pairs,) = (pair[1] for pair in values[".theirs"][1][1] if pair[0] == ["plain", "state"])
    (place,) = (pair for pair in pairs[1] if pair[0] == ["plain", "pos"])
    place[1] = ["plain", 10**6]
    values[".old"][1][1][2] = ["plain", 10**6]
    for path in (".theirs", ".old"):
        with pytest.raises(ValueError, match=f"got a bad {path} .*pos must be between 0 and 624"):
            hidden.restore({path: values[path]}, "cpu")
    state = checkpoint.random_state()
    state["numpy"][2] = 10**6
    with pytest.raises(ValueError, match="position must be between 0 and 624"):
        checkpoint.set_random_state(state)


# --------------------------------------------------------------------------------- any moment


def test_killed_between_the_best_checkpoint_and_the_last(settings, monkeypatch):
    """The best checkpoint on disk is then one of the future."""
    every_epoch_is(monkeypatch, better=True)
    expected = ended(begun("VBPR", settings))
    run = begun("VBPR", settings)
    save = run.trainer._save_checkpoint

    def stop(epoch, **kwargs):
        save(epoch, **kwargs)
        if epoch == 2:
            raise Killed

    run.trainer._save_checkpoint = stop
    with pytest.raises(Killed), resuming.kept(run):
        run.fit()
    best = Path(run.trainer.saved_model_file)
    assert checkpoint.load(only(settings, "*.last"))["best_epoch"] == 1
    assert checkpoint.load(best)["epoch"] == 2
    run = begun("VBPR", settings)
    with resuming.kept(run, "auto"):
        assert run.trainer.start_epoch == 2 and run.trainer.saved_model_file == str(best)
        assert checkpoint.load(best)["epoch"] == 1, "it is put back"
    run = begun("VBPR", settings)
    assert_same(ended(run, "auto"), expected)
    assert checkpoint.load(best)["epoch"] == 3


@pytest.mark.parametrize("moment", ["writing", "before test", "before any"])
def test_killed_at_other_moments(settings, monkeypatch, moment):
    expected = ended(begun("BM3", settings))
    run = begun("BM3", settings)
    if moment == "before any":
        killed(run, 0, 1)
    elif moment == "before test":
        with pytest.raises(Killed), resuming.kept(run):
            run.fit()
            raise Killed
    else:
        save, written = torch.save, []

        def half(state, target):
            written.append(target)
            if len(written) < 6:
                return save(state, target)
            Path(target).write_bytes(b"half")
            raise Killed

        monkeypatch.setattr(torch, "save", half)
        with pytest.raises(Killed), resuming.kept(run):
            run.fit()
        monkeypatch.setattr(torch, "save", save)
        for name in (run.trainer.saved_model_file, only(settings, "*.last")):
            scratch = Path(name).with_name(f".{Path(name).name}.writing")
            scratch.mkdir()  # a process that is killed removes nothing
            for leftover in ("lock", Path(name).name):
                (scratch / leftover).touch()
    run = begun("BM3", settings)
    assert_same(ended(run, "auto"), expected)
    assert not [name for name in files(settings) if name.endswith(".writing")]
    assert (run.trainer.start_epoch > 0) == (moment != "before any")
    if moment == "before test":
        assert run.trainer.start_epoch == 4


def test_a_run_may_be_killed_again_and_again(settings):
    expected = ended(begun("MMSSL", settings, graph_interval=1))
    for epoch in (1, 2, 3):
        run = begun("MMSSL", settings, graph_interval=1)
        killed(run, epoch, 0, resume="auto")
    assert len(list(Path(settings["checkpoint_dir"]).glob("*.last"))) == 1
    assert_same(ended(begun("MMSSL", settings, graph_interval=1), "auto"), expected)


# ---------------------------------------------------------------------------- which checkpoint


def test_a_file_of_another_run_is_refused_by_what_differs(settings):
    killed(begun("VBPR", settings), 2)
    file = str(only(settings, "*.last"))
    for model, changes, words in (
        ("VBPR", {"learning_rate": 0.02}, "learning_rate 0.01 instead of 0.02"),
        ("VBPR", {"missing_ratio": 0.2}, "another mask of missing modalities"),
        ("VBPR", {"epochs": 1}, "epochs 4 instead of 1"),
        ("BM3", {}, "model VBPR instead of BM3"),
    ):
        with pytest.raises(ValueError, match=rf"\.last: must be a checkpoint of this run.*{words}"):
            ended(begun(model, settings, **changes), file)
    assert ended(begun("VBPR", settings), file)


NEEDED = (
    "epoch", "cur_step", "best_epoch", "best_valid_score", "best_valid_result", "history",
    "train_loss_dict", "hidden", "lost", "steppers", "optimizer_in_use", "random", "loaders",
    "written_by",
)  # fmt: skip


def altered(file, change):
    state = torch.load(file, weights_only=True)
    change(state)
    torch.save(state, file)


def refused_resume(run, file, by=ended):
    with pytest.raises(ValueError) as error:
        by(run, str(file))
    assert str(error.value).startswith(f"{file}: ") and "\n" not in str(error.value)
    return str(error.value)


def test_a_file_with_parts_lost_is_refused(settings):
    killed(begun("VBPR", settings), 2)
    file = only(settings, "*.last")
    whole = file.read_bytes()
    run = begun("VBPR", settings)
    for part in NEEDED:
        altered(file, lambda state, part=part: state.pop(part))
        word = "a checkpoint of an older version" if part == "hidden" else f"no {part}"
        must = f"must hold the whole state of a run, got {word}; train again."
        assert must in refused_resume(run, file)
        by = lambda run, path: run.trainer.resume_checkpoint(path)  # noqa: E731
        assert must in refused_resume(run, file, by)
        file.write_bytes(whole)
        altered(file, lambda state, part=part: state.update({part: torch.zeros(1)}))
        assert f"got a bad {part}: a Tensor" in refused_resume(run, file)
        file.write_bytes(whole)
    assert ended(run, str(file)), "nothing of what was refused was taken"


@pytest.mark.parametrize(
    ("change", "answer"),
    [
        (lambda s: s["config"].pop("epochs"), "got others: KeyError: 'epochs'"),
        (lambda s: s["config"].update(epochs="x"), "got others: TypeError: "),
        (lambda s: s["written_by"].pop("source"), "got a bad written_by: no source"),
        (lambda s: s["written_by"].update(machine=3), "got a bad written_by: no machine"),
        (lambda s: s.update(noted=3), "got a bad noted: no mapping"),
        (lambda s: s["history"].append(3), "got a bad history: epochs without parts"),
        (lambda s: s["history"][0].pop("loss"), "got a bad history: epochs without parts"),
        (lambda s: s["train_loss_dict"].update(x=1.0), "got a bad train_loss_dict: no numbers"),
        (lambda s: s["steppers"].pop("scheduler"), "got a bad steppers: KeyError: "),
        (lambda s: s["steppers"].update(model={}), "got a bad steppers: KeyError: "),
        (lambda s: s["steppers"]["scheduler"].update(step=3), "got a bad steppers: KeyError: "),
        (lambda s: s["steppers"].update(optimizer=3), "got a bad steppers: AttributeError: "),
        (lambda s: s["random"].pop("torch"), "got a bad random or loaders: KeyError: 'torch'"),
        (lambda s: s["random"].update(numpy=[]), "got a bad random or loaders: ValueError: "),
        (lambda s: s.update(loaders=[3]), "got a bad random or loaders: AttributeError: "),
        (lambda s: s["hidden"].update({".forward": ["plain", 3]}), "got '.forward'"),
    ],
)
def test_a_file_with_malformed_parts_is_refused(settings, change, answer):
    killed(begun("VBPR", settings), 2)
    file = only(settings, "*.last")
    altered(file, change)
    assert answer in refused_resume(begun("VBPR", settings), file)


def test_a_run_that_took_a_part_of_a_state_does_not_start_anew(settings):
    killed(begun("VBPR", settings), 2)
    file = only(settings, "*.last")
    altered(file, lambda state: state["steppers"].clear())
    with pytest.raises(ValueError, match="got a bad steppers"):
        ended(begun("VBPR", settings), "auto")
    altered(file, lambda state: state.pop("steppers"))
    run = begun("VBPR", settings)
    assert ended(run, "auto") and run.trainer.start_epoch == 0


def test_auto_takes_only_the_same_run(settings, caplog):
    caplog.set_level(logging.INFO)
    killed(begun("VBPR", settings), 2)
    other = begun("VBPR", settings, learning_rate=0.02)
    ended(other, "auto")
    assert other.trainer.start_epoch == 0
    assert "holds no checkpoint of this run, which starts anew" in caplog.text
    assert only(settings, "*.last")


def test_other_code_is_not_continued(settings, monkeypatch, caplog):
    killed(begun("VBPR", settings), 2)
    file = only(settings, "*.last")
    monkeypatch.setattr(checkpoint, "_source", lambda *roots: "edited")
    with pytest.raises(ValueError, match="got another source of the model VBPR"):
        ended(begun("VBPR", settings), str(file))
    run = begun("VBPR", settings)
    ended(run, "auto")
    assert run.trainer.start_epoch == 0 and "not continued" in caplog.text


def test_a_best_checkpoint_can_be_continued_exactly(settings):
    expected = ended(begun("MMSSL", settings, graph_interval=1))
    run = begun("MMSSL", settings, graph_interval=1, checkpoint_every=None)
    killed(run, 3)
    file = Path(run.trainer.saved_model_file)
    epoch = checkpoint.load(file)["epoch"]
    assert not list(Path(settings["checkpoint_dir"]).glob("*.last"))
    run = begun("MMSSL", settings, graph_interval=1)
    assert_same(ended(run, file), expected)
    assert run.trainer.start_epoch == epoch + 1
    assert run.trainer.saved_model_file == str(file)


def test_more_epochs_may_be_added(settings):
    expected = ended(begun("LATTICE", settings, epochs=6))
    killed(begun("LATTICE", settings), 3)
    assert_same(ended(begun("LATTICE", settings, epochs=6), only(settings, "*.last")), expected)


def test_a_last_checkpoint_needs_its_best_one(settings, tmp_path):
    killed(begun("VBPR", settings), 2)
    (tmp_path / "away").mkdir()
    file = Path(shutil.copy(only(settings, "*.last"), tmp_path / "away"))
    with pytest.raises(ValueError, match=r"must lie beside VBPR-.*\.best-[01], the best .*copy"):
        ended(begun("VBPR", settings), file)


def test_two_processes_do_not_share_a_file(settings, caplog):
    caplog.set_level(logging.INFO)
    killed(begun("VBPR", settings), 2)
    file = only(settings, "*.last")
    assert resuming.last_checkpoint() == file, "what an interrupt leaves"
    with resuming.kept(begun("VBPR", settings), "auto") as first:
        assert first.path == file and resuming.last_checkpoint() == file
        with pytest.raises(ValueError, match=r"\.last: must not be in use, got process \d+; wait"):
            ended(begun("VBPR", settings), file)
        second = begun("VBPR", settings)
        with resuming.kept(second, "auto") as other:
            assert other.path != file and second.trainer.start_epoch == 0
            assert second.trainer.saved_model_file != str(first._best)
        assert f"{file} is in use by process" in caplog.text
    ended(begun("VBPR", settings), file)
    assert resuming.last_checkpoint() is None


def every_epoch_is(monkeypatch, better):
    """Let every epoch be better, or worse, than the one before."""
    valid, sign = PluginTrainer._valid_epoch, 1 if better else -1
    monkeypatch.setattr(
        PluginTrainer,
        "_valid_epoch",
        lambda self, *args, **kwargs: (sign * len(self.history), valid(self, *args, **kwargs)[1]),
    )


def names(settings):
    """All files of runs, hidden ones too."""
    return sorted(
        path.name for path in Path(settings["checkpoint_dir"]).iterdir() if path.is_file()
    )


@pytest.mark.parametrize("ending", [".last", ".pth"])
def test_a_run_with_other_epochs_does_not_write_the_checkpoint_of_a_living_one(settings, ending):
    run = begun("VBPR", settings)
    train_epoch = run.trainer._train_epoch

    def second(data, epoch, **kwargs):
        if epoch == 2:
            before = [path.read_bytes() for path in folder.glob("*.*") if path.is_file()]
            with pytest.raises(ValueError, match=r"must not be in use, got process \d+; wait"):
                ended(begun("VBPR", settings, epochs=6), only(settings, f"*{ending}"))
            assert before == [path.read_bytes() for path in folder.glob("*.*") if path.is_file()]
        return train_epoch(data, epoch, **kwargs)

    folder, run.trainer._train_epoch = Path(settings["checkpoint_dir"]), second
    ended(run)
    assert names(settings) == [Path(run.trainer.saved_model_file).name]


def test_a_run_holds_its_checkpoint_before_it_writes_a_last_one(settings):
    file = Path(settings["checkpoint_dir"]) / "mine.pth"
    shutil.copy(run_recbole_missing("VBPR", config_dict=settings)["checkpoint"], file)
    first = begun("VBPR", settings, checkpoint_every=None)
    with (
        resuming.kept(first, file),
        pytest.raises(ValueError, match=r"mine\.pth: must not be in use"),
    ):
        ended(begun("VBPR", settings, epochs=6), file)
    stage = {"train_stage": "actor_pretrain", "pretrain_epochs": 1, "save_step": 1}
    other = begun("RaCT", settings, **stage)
    with resuming.kept(other) as last:
        best = Path(other.trainer.saved_model_file)
        assert last is None and best.with_name(f".{best.stem}.lock").read_text() == str(os.getpid())
    assert not [name for name in names(settings) if name.endswith(".lock")]


def test_a_last_checkpoint_under_the_name_of_a_best_one_is_refused(settings, monkeypatch):
    every_epoch_is(monkeypatch, better=False)
    killed(begun("VBPR", settings), 3)
    file = only(settings, "*.last")
    mine = file.with_name("mine.pth")
    shutil.copy(file, mine)
    words = (
        r"mine\.pth: must be the checkpoint of a best epoch, got .*epoch 2, where 0 is.*NAME\.RUN"
    )
    with pytest.raises(ValueError, match=words):
        ended(begun("VBPR", settings), mine)
    best = only(settings, "*.best-0")
    with pytest.raises(ValueError, match=rf"got the best .* belongs to {file.name}; name that one"):
        ended(begun("VBPR", settings), best)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        ("truncated", "a file whose end is lost"),
        ("epoch", "best checkpoint that belongs to .*, got epoch 1 instead of 0"),
        ("run", "best checkpoint that belongs to .*, got learning_rate 0.1 instead of 0.01"),
    ],
)
def test_a_wrong_best_checkpoint_is_refused_before_training(
    settings, monkeypatch, caplog, spoil, words
):
    every_epoch_is(monkeypatch, better=False)
    killed(begun("VBPR", settings), 2)
    file, best = only(settings, "*.last"), only(settings, "*.best-0")
    if spoil == "truncated":
        content = best.read_bytes()
        best.unlink()  # a link to NAME.pth
        best.write_bytes(content[:100])
    elif spoil == "epoch":
        shutil.copy(file, f"{best}x")
        Path(f"{best}x").replace(best)
    else:
        state = checkpoint.load(best)
        state["config"]["learning_rate"] = 0.1
        checkpoint.save(state, best)
    with pytest.raises(ValueError, match=words):
        ended(begun("VBPR", settings), file)
    assert checkpoint.load(file.with_name(f"{file.stem.rpartition('.')[0]}.pth"))["epoch"] == 0
    run = begun("VBPR", settings)
    ended(run, "auto")
    assert run.trainer.start_epoch == 0
    assert "not continued" in caplog.text


@pytest.mark.parametrize("fits", [True, False])
def test_on_a_full_disk_the_last_checkpoint_makes_room_for_the_best_one(
    settings, monkeypatch, caplog, fits
):
    expected = run_recbole_missing("VBPR", config_dict=settings)
    save, refused = checkpoint.save, []

    def full(state, path):
        lasts = list(path.parent.glob("*.last"))
        if path.suffix == ".pth" and state["epoch"] > 0 and (lasts or not fits):
            refused.append(path)
            code = errno.ENOSPC if fits else errno.EFBIG
            raise FullDiskError(path, code, "more than 9", 9, "What was there is unchanged.")
        save(state, path)

    every_epoch_is(monkeypatch, better=True)
    monkeypatch.setattr(checkpoint, "save", full)
    if not fits:  # no room can be made: a limit on the size of a file
        words = r"unchanged\. Then the same command with --resume=auto goes on from .*\.last\.$"
        with pytest.raises(OSError, match=words):
            run_recbole_missing("VBPR", config_dict=settings)
        assert only(settings, "*.last")
        return
    found = run_recbole_missing("VBPR", config_dict=settings)
    assert len(refused) == 1 and found["test_result"].keys() == expected["test_result"].keys()
    assert checkpoint.load(Path(found["checkpoint"]))["epoch"] == 3
    assert caplog.text.count("removed, for the disk has no room") == 1
    assert not [name for name in names(settings) if ".last" in name or ".best-" in name]


def test_what_a_run_left_before_its_first_last_checkpoint_is_removed(settings):
    folder = Path(settings["checkpoint_dir"])
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("VBPR-1.pth", "VBPR-1.abc.best-0", "VBPR-3.abc.best-0", "mine.txt.best"):
        (folder / name).touch()
    for name in (".VBPR-1.lock", ".VBPR-2.lock", ".VBPR-3.lock"):
        (folder / name).write_text("1")
    (folder / ".mine.lock").write_text("of the user")
    with FileLock(folder / ".VBPR-3.lock").acquire():  # its process lives
        (folder / ".VBPR-3.lock").write_text("1")
        run = begun("VBPR", settings)
        ended(run, "auto")
        own = Path(run.trainer.saved_model_file).name
        living = {"VBPR-3.abc.best-0", ".VBPR-3.lock"}
        assert {*names(settings)} == {own, "VBPR-1.pth", "mine.txt.best", ".mine.lock", *living}


def test_a_kill_while_the_files_are_removed_leaves_what_is_found(settings, monkeypatch):
    run = begun("VBPR", settings)
    unlink = Path.unlink

    def stop(path, **options):
        if path.suffix == ".last":
            raise Killed
        unlink(path, **options)

    with pytest.raises(Killed), resuming.kept(run) as last:
        run.fit()
        monkeypatch.setattr(Path, "unlink", stop)
        last.remove()
    monkeypatch.setattr(Path, "unlink", unlink)
    assert not list(Path(settings["checkpoint_dir"]).glob("*.best-*"))
    again = begun("VBPR", settings)
    ended(again, "auto")
    assert again.trainer.start_epoch == 4
    assert names(settings) == [Path(run.trainer.saved_model_file).name]


def test_auto_names_the_nearest_run_and_what_differs(settings, caplog):
    caplog.set_level(logging.INFO)
    killed(begun("VBPR", settings), 2)
    file = only(settings, "*.last")
    for changes, words in (
        ({"learning_rate": 0.02}, f"{file} is of a run with learning_rate 0.01 instead of 0.02"),
        ({"epochs": 6}, f"only epochs 4 instead of 6 differ in {file}: --resume={file} goes on"),
    ):
        with resuming.kept(begun("VBPR", settings, **changes), "auto"):
            assert f"which starts anew; {words}" in caplog.text
    caplog.clear()
    with resuming.kept(begun("BM3", settings), "auto"):
        assert "starts anew" in caplog.text and "starts anew;" not in caplog.text


@pytest.mark.parametrize(
    ("word", "got"),
    [
        ("", "resume: must be `auto` or a file .*, got nothing; name a file, or `auto`"),
        ("saved", "resume: must be `auto` or a file .*, got the folder .*saved; name a file"),
        ("saved/mine.last", r"mine\.last: must keep its name NAME.RUN.last, .*best-EPOCH again"),
        ("saved/none.pth", "must be a checkpoint, got no such file"),
    ],
)
def test_what_is_no_checkpoint_is_refused(settings, word, got):
    folder = Path(settings["checkpoint_dir"])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "mine.last").touch()
    path = word and str(folder.parent / word.replace("saved", folder.name))
    with pytest.raises(ValueError, match=got):
        ended(begun("VBPR", settings), path)


def test_how_often_it_is_written(settings, monkeypatch):
    written = []
    monkeypatch.setattr(resuming.Last, "write", lambda self, state, best: written.append(state))
    ended(begun("VBPR", settings))
    assert [state["epoch"] for state in written] == [0, 1, 2, 3]
    for every in (3600, None):
        written.clear()
        ended(begun("VBPR", settings, checkpoint_every=every))
        assert not written
    run = begun("VBPR", settings)
    run.trainer.fit(run.train_data, run.valid_data)
    assert not written, "RecBole's own way writes the best checkpoint only"


def test_without_checkpoints_nothing_is_written_unless_asked(settings):
    result = run_recbole_missing("VBPR", config_dict=settings, saved=False)
    assert result["checkpoint"] is None and not files(settings)
    run = quick_start.prepare(Config("VBPR", config_dict=settings), saved=False)
    killed(run, 2, resume="auto")
    assert only(settings, "*.last") and not list(Path(settings["checkpoint_dir"]).glob("*.pth"))
    again = run_recbole_missing("VBPR", config_dict=settings, saved=False, resume="auto")
    assert again["test_result"] == result["test_result"]


def test_a_disk_that_refuses_the_last_checkpoint_does_not_end_the_run(
    settings, monkeypatch, caplog
):
    expected = ended(begun("VBPR", settings))
    save = checkpoint.save

    def full(state, path):
        if path.suffix == ".last":
            raise OSError("No space left on device")
        save(state, path)

    monkeypatch.setattr(checkpoint, "save", full)
    assert_same(ended(begun("VBPR", settings)), expected)
    assert "not written (No space left on device); the run goes on without it" in caplog.text


def test_where_no_run_can_be_resumed_it_is_said(settings):
    stage = {"train_stage": "actor_pretrain", "pretrain_epochs": 1, "save_step": 1}
    with pytest.raises(ValueError, match="resume: must be left out for RaCT, got RaCTTrainer"):
        run_recbole_missing("RaCT", config_dict={**settings, **stage}, resume="auto")


@pytest.mark.parametrize("words", [["--resume=auto"], ["--resume", "auto"]])
def test_the_command_line_resumes(settings, words, caplog):
    caplog.set_level(logging.INFO)
    killed(begun("VBPR", {**settings, "plugin_defaults": True}), 2)
    file = Path(settings["data_path"]) / "run.yaml"
    file.write_text(yaml.safe_dump(settings))
    cli.main(["run", "-m", "VBPR", "-d", "tiny", "--config_files", str(file), *words])
    assert "epoch 2 is next" in caplog.text and not list(
        Path(settings["checkpoint_dir"]).glob("*.last")
    )


# ------------------------------------------------------------------------------- bad numbers


def test_a_bad_loss_names_batch_epoch_and_the_last_good_checkpoint(settings):
    run = begun("VBPR", settings)
    terms = run.trainer.model.loss_terms

    def loss_terms(batch):
        bad = len(run.trainer.train_loss_dict) == 2 and run.trainer._batches == 1
        odd = float("nan") if bad else 0.0
        return {**terms(batch), "odd": torch.tensor(odd)}

    run.trainer.model.loss_terms = loss_terms
    with pytest.raises(ValueError) as error, resuming.kept(run) as last:
        run.fit()
    assert "'odd': nan} in batch 2 of epoch 2" in str(error.value)
    assert f"(the last good checkpoint is {last.path})" in str(error.value)
    assert checkpoint.load(last.path)["epoch"] == 1


def test_a_bad_loss_of_recboles_models_is_named_too(settings):
    run = begun("BPR", settings)
    run.trainer.model.calculate_loss = lambda batch: torch.tensor(float("nan"))
    words = "BPR: every loss term must be finite, got {'loss': nan} in batch 1 of epoch 0 .no check"
    with pytest.raises(ValueError, match=words):
        run.fit()


def test_bad_parameters_are_not_saved(settings):
    """The loss of the next batch would tell, and the good checkpoint would be gone."""
    run = begun("VBPR", settings)
    train_epoch = run.trainer._train_epoch

    def spoil(data, epoch, **kwargs):
        loss = train_epoch(data, epoch, **kwargs)
        if epoch == 2:
            run.trainer.model.projection.weight.data[0, 0] = float("nan")
        return loss

    run.trainer._train_epoch = spoil
    with pytest.raises(ValueError) as error, resuming.kept(run) as last:
        run.fit()
    assert "must be a number after epoch 2, got nan in projection.weight" in str(error.value)
    assert f"the last good checkpoint is {last.path}" in str(error.value)
    assert checkpoint.load(last.path)["epoch"] == 1


# -------------------------------------------------------------------------------- benchmarks


@pytest.fixture
def bench(tmp_path):
    """Makes a benchmark on the tiny data set, killed in an epoch if one is given."""
    settings = {**tiny_content().write(tmp_path / "dataset"), **OFTEN}
    (tmp_path / "dataset" / "tiny" / "tiny.yaml").write_text(yaml.safe_dump(settings))
    content = {"title": "Mine", "grid": {"dataset": ["tiny"], "model": ["BPR"], "seed": [1, 2]}}

    def make(store, stop=None, workers=None, retry_failed=False, **changes):
        (tmp_path / "mine.yaml").write_text(yaml.safe_dump({**content, **changes}))
        options = runner.Options(
            data_path=tmp_path / "dataset", retry_failed=retry_failed, say=lambda text: None
        )
        where = workers or Here()
        arguments = (plan.read(tmp_path / "mine.yaml"), Store(tmp_path / store), where, options)
        if stop is None:
            return runner.run(*arguments)
        check, count = PluginTrainer._check_nan, itertools.count()

        def spied(self, loss):
            check(self, loss)
            if next(count) == stop:
                raise KeyboardInterrupt

        with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(PluginTrainer, "_check_nan", spied)
            runner.run(*arguments)
        return None

    return make


BATCHES = 4 * 4  # of a run


@pytest.mark.parametrize("search", [None, {"method": "grid", "space": {"learning_rate": [0.1, 1]}}])
def test_a_benchmark_goes_on_with_its_half_done_run(bench, tmp_path, search):
    changes = {"search": search} if search else {}
    expected = bench("whole.jsonl", **changes)
    bench("mine.jsonl", stop=BATCHES + 10, **changes)  # the second run has had two epochs
    assert list((tmp_path / ".mine.jsonl.unfinished").glob("*.last"))
    lines = bench("mine.jsonl", **changes)
    assert [settled(line) for line in lines] == [settled(line) for line in expected]
    stored = Store(tmp_path / "mine.jsonl").lines()
    assert [line.cost["resumed"] for line in stored] == [0, 1] + [0] * (len(stored) - 2)
    assert stored[1].cost["seconds"] > stored[1].cost["epoch_seconds"] * 3
    assert not (tmp_path / ".mine.jsonl.unfinished").exists()
    assert not list((tmp_path / "dataset" / "saved").glob("*.*"))


def test_the_seconds_of_a_resumed_run_are_those_of_all_parts(bench, tmp_path, monkeypatch):
    monkeypatch.setattr(job, "perf_counter", lambda: 100.0)
    so_far = job.Cost.so_far
    monkeypatch.setattr(job.Cost, "so_far", lambda self: {**so_far(self), "seconds": 60.0})
    bench("mine.jsonl", stop=10)
    monkeypatch.setattr(job.Cost, "so_far", so_far)
    first, second = bench("mine.jsonl")
    assert (first.cost["seconds"], second.cost["seconds"]) == (60.0, 0.0)


def test_other_code_begins_a_run_of_a_benchmark_anew(bench, tmp_path, monkeypatch):
    bench("mine.jsonl", stop=10)
    monkeypatch.setattr(checkpoint, "_source", lambda *roots: "edited")
    assert [line.cost["resumed"] for line in bench("mine.jsonl")] == [0, 0]
    assert not (tmp_path / ".mine.jsonl.unfinished").exists()


def test_a_run_that_fails_leaves_no_checkpoint(bench, tmp_path, monkeypatch):
    check = PluginTrainer._check_nan

    def fail(self, loss):
        check(self, loss)
        if len(self.train_loss_dict) == 2:
            raise ValueError("no more")

    monkeypatch.setattr(PluginTrainer, "_check_nan", fail)
    assert not any(line.done for line in bench("mine.jsonl"))
    assert not list(tmp_path.glob(".mine.jsonl.unfinished/*.*"))


def test_checkpoints_of_a_benchmark_are_not_behind_a_link(bench, tmp_path):
    bench("mine.jsonl", stop=10)
    folder = tmp_path / ".mine.jsonl.unfinished"
    folder.rename(tmp_path / "theirs")
    names = sorted(path.name for path in (tmp_path / "theirs").iterdir())
    folder.symlink_to(tmp_path / "theirs")
    with pytest.raises(ValueError, match="unfinished: must not be a symbolic link"):
        bench("mine.jsonl")
    assert sorted(path.name for path in (tmp_path / "theirs").iterdir()) == names


def test_leftovers_of_runs_that_are_over_are_removed(bench, tmp_path):
    bench("mine.jsonl", stop=10)
    folder = tmp_path / ".mine.jsonl.unfinished"
    (old,) = folder.glob("*.last")
    run = old.name.partition(".")[0]
    resuming.remove_leftovers(folder, lambda name: False)
    assert old.exists(), "another benchmark may go on with it"
    lock = FileLock(folder / f".{run}.lock")
    with lock.acquire():
        resuming.remove_leftovers(folder, lambda name: name == run)
        assert old.exists(), "its process lives"
    past = time.time() - 15 * 86400
    for file in folder.iterdir():
        os.utime(file, (past, past))
    fresh = "0" * 16
    (folder / f"{fresh}.pth").touch()
    resuming.remove_leftovers(folder, lambda name: False)
    assert [file.name for file in folder.iterdir()] == [f"{fresh}.pth"]
    resuming.remove_leftovers(folder, lambda name: name == fresh)
    assert not folder.exists()
