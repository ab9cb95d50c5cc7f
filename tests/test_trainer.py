"""Checkpoints, resuming, epoch hooks, schedule, second optimiser."""

from __future__ import annotations

import functools
import logging
import os
import pickle
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import recbole.trainer
import torch
from folders import AT_WORK, BY_TIME, Toy, prepare, tiny_content
from folders import workplace as workplace
from recbole.config import Config
from recbole.quick_start import load_data_and_model
from recbole.utils import ModelType, get_trainer
from scipy import sparse

from recbole_missing import checkpoint, register_model, run_recbole_missing
from recbole_missing.trainer import MultimodalTrainer, PluginTrainer, protocol

pytestmark = AT_WORK


@pytest.fixture
def settings(tmp_path):
    return {
        **tiny_content().write(tmp_path),
        "missing_protocol": "stratified",
        "missing_ratio": 0.4,
    }


def fitted(model, settings, **changes):
    """A run that has trained, and its trainer."""
    run = prepare(model, settings, **changes)
    trainer = run.trainer()
    trainer.fit(run.train, run.valid)
    return run, trainer


def state_of(trainer):
    return {key: value.clone() for key, value in trainer.model.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


# --------------------------------------------------------------------------------- checkpoints


def strange(value, path="state"):
    """Paths of everything in a checkpoint that is neither a tensor nor a plain value."""
    if isinstance(value, torch.Tensor) or value is None or type(value) in (bool, int, float, str):
        return []
    if isinstance(value, Mapping):
        keys = [f"{path}.{key!r}" for key in value if type(key) not in (str, int)]
        return keys + [p for key in value for p in strange(value[key], f"{path}.{key}")]
    if type(value) in (list, tuple):
        return [p for place, item in enumerate(value) for p in strange(item, f"{path}[{place}]")]
    return [f"{path}: {type(value)}"]


@pytest.mark.parametrize("model", ["VBPR", "DGMRec", "BPR", "SGL", Toy])
def test_a_checkpoint_holds_tensors_and_plain_values(settings, model):
    _, trainer = fitted(model, settings)
    state = torch.load(trainer.saved_model_file, weights_only=True)
    assert not strange(state)
    assert {"config", "epoch", "state_dict", "optimizer", "best_valid_score"} <= state.keys()
    assert state["config"]["missing_ratio"] == 0.4 and state["config"]["metrics"]


@pytest.mark.parametrize(
    ("model", "changes"),
    [
        ("VBPR", {"imputation": "random", "imputation_seed": 3}),
        ("BM3", {}),
        ("FREEDOM", {}),
        ("MGCN", {"new_items": "stratified"}),
        ("DGMRec", {"epochs": 5, "eval_step": 5, "score_on_refreshed_graph": True}),
        ("LightGCN", {"new_items": "stratified", "test_mask": "train"}),
        (Toy, {"epochs": 2}),
    ],
)
def test_a_loaded_model_scores_as_the_saved_one(settings, model, changes):
    run, trainer = fitted(model, settings, **changes)
    trainer.evaluate(run.test, load_best_model=True)
    expected = run.scores(trainer.model)
    config, network, dataset, train, valid, test = load_data_and_model(
        trainer.saved_model_file, settings["data_path"]
    )
    assert torch.equal(run.scores(network), expected)
    assert same(network.state_dict(), trainer.model.state_dict())
    assert config["model"] == run.config["model"] and config["data_path"] == run.config["data_path"]
    for one, other in ((train, run.train), (valid, run.valid), (test, run.test)):
        assert np.array_equal(
            one._dataset.inter_feat["item_id"], other._dataset.inter_feat["item_id"]
        )
    loaded = get_trainer(config["MODEL_TYPE"], config["model"])(config, network)
    assert loaded.evaluate(test, load_best_model=False) == trainer.evaluate(test, False)
    assert loaded.group_results == trainer.group_results != {}


def test_graphs_that_training_refreshed_come_from_the_file(settings):
    """Else the test above would not see a graph that is rebuilt instead of loaded."""
    run, trainer = fitted("DGMRec", settings, epochs=5, eval_step=5, score_on_refreshed_graph=True)
    fresh, trained = run.network().state_dict(), trainer.model.state_dict()
    graphs = [key for key in fresh if key.startswith("inference_graphs.image")]
    assert graphs and any(not torch.equal(fresh[key], trained[key]) for key in graphs)


def test_loading_ignores_the_command_line_of_the_process(settings, monkeypatch):
    _, trainer = fitted("VBPR", settings)
    monkeypatch.setattr("sys.argv", ["other.py", "--imputation=zeros", "--missing_ratio=7"])
    config = load_data_and_model(trainer.saved_model_file, settings["data_path"])[0]
    assert config["imputation"] == "featprop" and config["missing_ratio"] == 0.4


class Payload:
    """Unpickling it would call a function."""

    def __reduce__(self):
        """Name the function."""
        return (Path.touch, (Path("ran"),))


def test_torch_load_keeps_refusing_objects(settings, tmp_path):
    load = torch.load
    _, trainer = fitted("VBPR", settings)
    load_data_and_model(trainer.saved_model_file, settings["data_path"])
    assert torch.load is load is torch.serialization.load
    torch.save({"config": {}, "extra": Payload()}, tmp_path / "object.pth")
    if tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 6):  # where it is the default
        with pytest.raises(pickle.UnpicklingError):
            torch.load(tmp_path / "object.pth")
    with pytest.raises(ValueError, match=r"object\.pth: must be a checkpoint of recbole_missing"):
        load_data_and_model(str(tmp_path / "object.pth"), settings["data_path"])
    assert not Path("ran").exists()


WHAT_IT_IS = {
    "absent": "no such file (a run whose validation never gave a number writes none)",
    "cut": "a file whose end is lost (",
    "one byte short": "a file whose end is lost (",
    "empty": "an empty file; copy it again, or train again",
    "text": "a text file; correct the path",
    "other": "a file of torch in which there is a list",
    "pickle": "a file of another kind, or a damaged one",
    "objects": "one with objects that are no tensors and plain values, which are never read here",
    "of RecBole": "one that RecBole wrote without this package",
}


@pytest.mark.parametrize("damage", WHAT_IT_IS)
def test_a_bad_file_is_refused_by_its_path(settings, tmp_path, damage):
    path = tmp_path / "bad.pth"
    run = prepare("VBPR", settings)
    torch.save([torch.zeros(2)], path)
    whole = path.read_bytes()
    if damage == "absent":
        path.unlink()
    elif damage in ("cut", "one byte short"):
        path.write_bytes(whole[: len(whole) // 2 if damage == "cut" else -1])
    elif damage in ("empty", "text"):
        path.write_text("no checkpoint" if damage == "text" else "")
    elif damage == "pickle":
        path.write_bytes(pickle.dumps(Payload()))
    elif damage == "objects":
        torch.save({"config": {}, "extra": Payload()}, path)
    elif damage == "of RecBole":
        torch.save({"config": run.config, "state_dict": {}}, path, pickle_protocol=4)
    for use in (
        lambda: load_data_and_model(str(path), settings["data_path"]),
        lambda: run.trainer().resume_checkpoint(str(path)),
        lambda: run.trainer().evaluate(run.test, model_file=str(path)),
    ):
        with pytest.raises(ValueError, match="bad.pth: must be a checkpoint") as refusal:
            use()
        assert WHAT_IT_IS[damage] in str(refusal.value)
    assert not Path("ran").exists()


def test_a_crash_while_saving_leaves_the_old_file(settings, monkeypatch):
    run, trainer = fitted("VBPR", settings)
    file = Path(trainer.saved_model_file)
    before, content = sorted(file.parent.iterdir()), file.read_bytes()

    def full_disk(state, target, *args, **kwargs):
        Path(target).write_bytes(b"half a file")
        raise OSError("no space left")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="no space"):
        patch.setattr(torch, "save", full_disk)
        trainer._save_checkpoint(1)
    assert sorted(file.parent.iterdir()) == before and file.read_bytes() == content
    targets, save = [], torch.save
    monkeypatch.setattr(
        torch, "save", lambda state, path: (targets.append(path), save(state, path))
    )
    trainer._save_checkpoint(1)
    assert sorted(file.parent.iterdir()) == before
    assert len(targets) == 1 and file.parent in targets[0].parents and targets[0] != file
    assert torch.load(file, weights_only=True)["epoch"] == 1


def test_a_trainer_of_recboles_own_saves_and_loads(settings):
    result = run_recbole_missing("RecVAE", config_dict=dict(settings))
    trainer = get_trainer(ModelType.GENERAL, "RecVAE")
    assert issubclass(trainer, (PluginTrainer, recbole.trainer.RecVAETrainer))
    assert issubclass(trainer, recbole.trainer.RecVAETrainer)
    assert not strange(torch.load(result["checkpoint"], weights_only=True))
    config, network, _, _, _, test = load_data_and_model(
        result["checkpoint"], settings["data_path"]
    )
    assert trainer(config, network).evaluate(test, False) == result["test_result"]


WHOLE = {"modalities": None, "missing_protocol": "none"}


@pytest.mark.parametrize("model", ["ItemKNN", "EASE", "SLIMElastic", "Pop", "SASRec"])
def test_recboles_other_models_save_and_load(settings, model):
    """Matrices beside the parameters, and settings whose defaults RecBole itself refuses."""
    by_time = {**BY_TIME, "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO"}}
    settings = {**settings, **WHOLE, **by_time, "train_neg_sample_args": None}
    settings = {key: settings[key] for key in settings if not key.startswith("missing")}
    result = run_recbole_missing(model, config_dict=settings)
    assert not strange(torch.load(result["checkpoint"], weights_only=True))
    config, network, _, _, _, test = load_data_and_model(
        result["checkpoint"], settings["data_path"]
    )
    trainer = get_trainer(config["MODEL_TYPE"], model)(config, network)
    assert trainer.evaluate(test, load_best_model=False) == result["test_result"]


def test_the_first_stage_of_two_saves_and_loads(settings):
    stage = {"train_stage": "actor_pretrain", "pretrain_epochs": 1, "save_step": 1}
    result = run_recbole_missing("RaCT", config_dict={**settings, **stage})
    assert result["checkpoint"].endswith("RaCT-tiny-1.pth")  # the name that RecBole gives it
    assert not strange(torch.load(result["checkpoint"], weights_only=True))
    assert result["test_result"]["recall@10"] > 0


def test_packed_matrices_come_back():
    matrix = sparse.random(5, 4, 0.5, format="csc", random_state=0)
    packed = checkpoint.pack(
        {"a": np.eye(2), "m": matrix, "t": torch.ones(1), "n": torch.nn.ReLU()}
    )
    assert not strange(packed)
    value = checkpoint.unpack(packed)
    assert value.keys() == {"a", "m", "t"} and np.array_equal(value["a"], np.eye(2))
    assert value["m"].format == "csc" and (value["m"] != matrix).nnz == 0
    assert checkpoint.unpack(checkpoint.pack(None)) is None


def test_the_saved_model_is_the_one_that_is_tested(settings):
    run, trainer = fitted("VBPR", settings)
    best = run.scores(trainer.model)
    with torch.no_grad():
        trainer.model.user_embedding.zero_()
    trainer.evaluate(run.test, load_best_model=True)
    assert torch.equal(run.scores(trainer.model), best)


# -------------------------------------------------------------------------------------- resume


def resumed(model, settings, file, **changes):
    run = prepare(model, settings, **changes)
    trainer = run.trainer()
    trainer.resume_checkpoint(file)
    return run, trainer


EVERY_EPOCH = {"eval_step": 0, "learning_rate_scheduler": [0.5, 1], "learning_rate": 0.02}


def test_resume_restores_epoch_optimisers_and_schedule(settings):
    _, first = fitted(Toy, settings, epochs=2, **EVERY_EPOCH)
    run, second = resumed(Toy, settings, first.saved_model_file, epochs=5, **EVERY_EPOCH)
    assert second.start_epoch == 2 and second.scheduler.last_epoch == 2
    assert second.saved_model_file == first.saved_model_file
    assert same(second.model.state_dict(), first.model.state_dict())
    for name in ("optimizer", "auxiliary_optimizer"):
        old, new = (getattr(trainer, name).state_dict()["state"] for trainer in (first, second))
        assert old and old.keys() == new.keys() and all(same(old[key], new[key]) for key in old)
    second.fit(run.train, run.valid)
    assert list(second.train_loss_dict) == [0, 1, 2, 3, 4]
    assert second.model.calls.count("epoch") == 5, "the list of the first part comes back"
    assert torch.load(second.saved_model_file, weights_only=True)["epoch"] == 4


def test_a_resumed_run_has_the_learning_rates_of_an_unbroken_one(settings):
    _, first = fitted(Toy, settings, epochs=2, **EVERY_EPOCH)
    run, second = resumed(Toy, settings, first.saved_model_file, epochs=4, **EVERY_EPOCH)
    rates = []
    run_epoch = second._train_epoch

    def spied(train_data, epoch_idx, *args, **kwargs):
        rates.append((epoch_idx, second.optimizer.param_groups[0]["lr"]))
        return run_epoch(train_data, epoch_idx, *args, **kwargs)

    second._train_epoch = spied
    second.fit(run.train, run.valid)
    assert rates == [(2, pytest.approx(0.02 * 0.5**2)), (3, pytest.approx(0.02 * 0.5**3))]


def test_a_resumed_run_ends_where_an_unbroken_one_does(settings):
    _, unbroken = fitted(Toy, settings, epochs=4, **EVERY_EPOCH)
    _, first = fitted(Toy, settings, epochs=2, **EVERY_EPOCH)
    run, second = resumed(Toy, settings, first.saved_model_file, epochs=4, **EVERY_EPOCH)
    second.fit(run.train, run.valid)
    assert same(state_of(second), state_of(unbroken))


def test_resume_knows_the_best_result_so_far(settings):
    _, first = fitted("VBPR", settings)
    run, second = resumed("VBPR", settings, first.saved_model_file, epochs=2, learning_rate=0.0)
    assert second.best_valid_score == first.best_valid_score
    assert second.best_valid_result == first.best_valid_result
    assert second.best_valid_result["recall@5"] == second.best_valid_score


def test_resume_refuses_the_file_of_another_model(settings):
    _, first = fitted("VBPR", settings)
    with pytest.raises(ValueError, match=r"VBPR-.*must be a checkpoint of BM3, got one of VBPR; "):
        prepare("BM3", settings).trainer().resume_checkpoint(first.saved_model_file)


# ------------------------------------------------------------------- which epoch is the best one

GINI = {"metrics": ["Recall", "GiniIndex"], "valid_metric": "GiniIndex@5"}  # smaller is better


def validated(settings, scores, monkeypatch, **changes):
    """Epochs that were trained, and the epoch that is kept, for given validation results."""
    coming = iter(scores)

    def result(self, *args, **kwargs):
        score = next(coming)
        return score, {self.valid_metric: score}

    monkeypatch.setattr(recbole.trainer.Trainer, "_valid_epoch", result)
    _, trainer = fitted("VBPR", settings, epochs=len(scores), stopping_step=1, **changes)
    saved = torch.load(trainer.saved_model_file, weights_only=True)
    seen = [next(iter(entry["valid"].values())) for entry in trainer.history]
    assert seen == scores[: len(seen)], "the history has the results as they are"
    best = max(seen) if trainer.valid_metric_bigger else min(seen)
    assert trainer.best_valid_score == saved["best_valid_score"] == best
    return len(seen), saved["epoch"]


@pytest.mark.parametrize(
    ("scores", "tie_improves", "tie_does_not"),
    [
        ([0.3, 0.3, 0.3, 0.3, 0.3], (5, 4), (3, 0)),
        ([0.1, 0.2, 0.3, 0.3, 0.4], (5, 4), (5, 4)),
        ([0.2, 0.3, 0.1, 0.3, 0.1], (5, 3), (4, 1)),
        ([0.0, 0.0, 0.0, 0.1, 0.1], (5, 4), (3, 0)),
        ([0.4, 0.3, 0.2, 0.2, 0.4], (3, 0), (3, 0)),
    ],
)
def test_a_tie_improves_or_not(settings, scores, tie_improves, tie_does_not, monkeypatch):
    for rule, expected in ((True, tie_improves), (False, tie_does_not)):
        assert validated(settings, scores, monkeypatch, ties_improve=rule) == expected
        turned = [-score for score in scores]
        smaller = {**GINI, "ties_improve": rule}
        assert validated(settings, turned, monkeypatch, **smaller) == expected
    assert validated(settings, scores, monkeypatch) == tie_improves, "RecBole's rule by default"


@pytest.mark.parametrize("model", ["VBPR", "BPR"])
@pytest.mark.parametrize("metric", [{}, GINI])
def test_a_run_that_learns_nothing_ties(settings, model, metric):
    """All its validations give one result."""
    changes = {"learning_rate": 0.0, "epochs": 6, "stopping_step": 2, **metric}
    ended = {}
    for rule in (True, False):
        _, trainer = fitted(model, settings, ties_improve=rule, **changes)
        saved = torch.load(trainer.saved_model_file, weights_only=True)
        ended[rule] = len(trainer.history), saved["epoch"], trainer.best_valid_result
    assert ended[True][:2] == (6, 5) and ended[False][:2] == (4, 0)
    assert ended[True][2] == ended[False][2]


# --------------------------------------------------------------------------- epochs and batches


def test_hooks_are_called_once_and_in_order(settings):
    run, trainer = fitted(Toy, settings, epochs=2, train_batch_size=200)
    batches = ["batch"] * len(run.train)
    assert len(batches) > 1
    assert trainer.model.calls == 2 * ["epoch", *batches, "valid", "encode"]


def test_hooks_are_called_in_training_and_validation_only(settings):
    run, trainer = fitted(Toy, settings, epochs=3, eval_step=2)
    assert trainer.model.calls.count("epoch") == 3 and trainer.model.calls.count("valid") == 1
    trainer.evaluate(run.test, load_best_model=False)
    assert trainer.model.calls.count("valid") == 1


def test_learning_rate_schedule(settings):
    run = prepare(Toy, settings, learning_rate=0.01, learning_rate_scheduler=[0.96, 50], epochs=3)
    trainer = run.trainer()
    rates = []
    trainer.model.on_epoch_start = lambda minimise: rates.append(
        trainer.optimizer.param_groups[0]["lr"]
    )
    trainer.fit(run.train, run.valid)
    assert rates == pytest.approx([0.01 * 0.96 ** (epoch / 50) for epoch in range(3)], rel=1e-12)


@pytest.mark.parametrize("learner", ["adam", "adamw", "sgd", "adagrad", "rmsprop"])
def test_each_parameter_has_one_optimiser(settings, learner):
    trainer = prepare(Toy, settings, learner=learner).trainer()
    critic = {id(parameter) for parameter in trainer.model.critic.parameters()}
    everything = {id(parameter) for parameter in trainer.model.parameters()}
    assert type(trainer.optimizer).__name__.lower() == learner

    def owned(optimizer):
        return [id(p) for group in optimizer.param_groups for p in group["params"]]

    assert set(owned(trainer.auxiliary_optimizer)) == critic
    assert sorted(owned(trainer.optimizer)) == sorted(everything - critic)
    assert trainer.auxiliary_optimizer.param_groups[0]["lr"] == Toy.auxiliary_options["lr"]


def test_batches_leave_auxiliary_parameters_alone(settings):
    run = prepare(Toy, settings)
    trainer = run.trainer()
    trainer.model.on_epoch_start = lambda minimise: None
    before = state_of(trainer)
    trainer.fit(run.train, run.valid)
    after = state_of(trainer)
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert changed == {"user", "item", "content.weight", "content.bias"}


def test_a_model_without_auxiliary_parameters_has_one_optimiser(settings):
    assert prepare("VBPR", settings).trainer().auxiliary_optimizer is None


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_with_its_terms(settings, value):
    register_model(Toy)
    run = prepare("Toy", settings)
    trainer = run.trainer()
    terms = trainer.model.loss_terms
    trainer.model.loss_terms = lambda batch: {**terms(batch), "odd": torch.tensor(value)}
    with pytest.raises(ValueError, match=f"Toy: every loss term must be finite, .*'odd': {value}"):
        trainer.fit(run.train, run.valid)


@pytest.mark.parametrize(("first", "seen"), [(4, 6), (8, 8)])  # the last window is not full
def test_losses_that_are_checked_together_name_the_first_bad_batch(settings, first, seen):
    """As on a GPU, where a loss that is read at once would make the CPU wait."""
    run = prepare("VBPR", settings, train_batch_size=40)
    trainer = run.trainer()
    assert len(run.train) == 8
    trainer._checked_together, terms = 3, trainer.model.loss_terms

    def odd(batch):
        value = float("nan") if trainer._batches + 1 >= first else 0.0
        return {**terms(batch), "odd": torch.tensor(value)}

    trainer.model.loss_terms = odd
    with pytest.raises(ValueError, match=f"'odd': nan}} in batch {first} of epoch 0"):
        trainer._train_epoch(run.train, 0)
    assert trainer._batches == seen and not trainer.history


def in_several_processes(trainer, loader):
    """Have the loop call what only a run of several processes has; return these calls."""
    calls = []

    def sync_loss():
        calls.append("sync")
        return sum((parameter**2).sum() for parameter in trainer.model.parameters())

    loader.sampler.set_epoch = calls.append
    trainer.set_reduce_hook, trainer.sync_grad_loss = lambda: calls.append("hook"), sync_loss
    trainer.config["single_spec"] = False
    return calls


@pytest.mark.parametrize(
    ("model", "changes", "processes"),
    [
        ("VBPR", {}, 1),
        ("SGL", {}, 1),
        ("BPR", {}, 1),
        ("VBPR", {"clip_grad_norm": {"max_norm": 0.01}, "learner": "sgd"}, 1),
        ("NeuMF", {"enable_amp": True}, 1),
        ("VBPR", {}, 2),
    ],
)
def test_an_epoch_is_that_of_recboles_loop(settings, model, changes, processes, monkeypatch):
    """Also where a loss has several parts, and in one of several processes."""
    losses, states, calls = [], [], []
    for common in (True, False):
        run = prepare(model, settings, train_batch_size=40, **changes)
        trainer = run.trainer()
        if processes > 1:
            calls.append(in_several_processes(trainer, run.train))
        if model == "BPR":
            whole = trainer.model.calculate_loss
            trainer.model.calculate_loss = lambda batch, whole=whole: (whole(batch), whole(batch))
        if not common:
            monkeypatch.setattr(PluginTrainer, "_has_recboles_common", lambda self, method: False)
        losses.append(trainer._train_epoch(run.train, 7))
        states.append(state_of(trainer))
    assert losses[0] == losses[1] and same(*states)
    assert calls == ([] if processes == 1 else 2 * [[7, *8 * ["hook", "sync"]]])


def test_a_loop_that_somebody_has_put_into_recboles_trainer_is_used(settings, monkeypatch):
    epochs, loop = [], recbole.trainer.Trainer._train_epoch

    @functools.wraps(loop)
    def patched(self, train_data, epoch_idx, *args, **kwargs):
        epochs.append(epoch_idx)
        return loop(self, train_data, epoch_idx, *args, **kwargs)

    fitted("BPR", settings)
    assert not epochs
    monkeypatch.setattr(recbole.trainer.Trainer, "_train_epoch", patched)
    for model in ("BPR", "VBPR"):
        fitted(model, settings)
    assert epochs == [0, 0]


def test_the_log_names_the_terms(settings, caplog):
    caplog.set_level(logging.INFO)
    run = prepare(Toy, settings)
    trainer = run.trainer()
    sums = dict.fromkeys(("bpr", "judged"), 0.0)
    calculate = trainer.model.calculate_loss

    def spied(batch):
        loss = calculate(batch)
        for name in sums:
            sums[name] += trainer.model.last_terms[name].item()
        return loss

    trainer.model.calculate_loss = spied
    trainer.fit(run.train, run.valid)
    lines = [r.getMessage() for r in caplog.records if "train loss" in r.getMessage()]
    assert len(lines) == 1
    assert lines[0].endswith(f"[bpr: {sums['bpr']:.4f}, judged: {sums['judged']:.4f}]")
    assert f"{sums['bpr'] + sums['judged']:.4f}" in lines[0]


def test_an_unknown_learner_is_refused(settings):
    with pytest.raises(ValueError, match="VBPR: learner must be one of adam, .*, got 'lion'"):
        Config("VBPR", config_dict={**settings, "learner": "lion"})


def test_protocol_line_says_what_a_result_must_be_read_with(settings):
    config = prepare("VBPR", settings, test_mask="train").config
    assert protocol(config) == (
        "VBPR on tiny; missing: 40% stratified; imputation: featprop; test_mask: train; seed: 2020"
    )
    assert "imputation: none (BPR reads no modalities);" in protocol(
        prepare("BPR", settings).config
    )


# ------------------------------------------------------------------------------- plain values


def test_plain_keeps_values_and_drops_objects():
    value = {
        "scalars": (1, 2.5, True, None, "x", np.float32(0.5), np.int64(3), np.bool_(True)),
        "nested": {"list": [{"a": torch.ones(1)}], "object": object(), "enum": ModelType.GENERAL},
        "list_of_objects": [1, object()],
    }
    kept = checkpoint.plain(value)
    assert not strange(kept)
    assert kept["scalars"] == [1, 2.5, True, None, "x", 0.5, 3, True]
    assert kept["nested"].keys() == {"list"} and "list_of_objects" not in kept


def test_random_state_comes_back():
    import random

    state = checkpoint.random_state()
    assert not strange(state)
    first = (torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random())
    checkpoint.set_random_state(state)
    assert (torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random()) == first


def test_two_runs_of_one_second_have_two_files(settings):
    run = prepare("VBPR", settings)
    assert run.trainer().saved_model_file != run.trainer().saved_model_file


def test_trainer_of_our_models_is_a_recbole_trainer(settings):
    assert isinstance(prepare("VBPR", settings).trainer(), MultimodalTrainer)


def test_scores_follow_the_parameters_in_evaluation_mode_too(settings):
    model = prepare("VBPR", settings).trainer().model.eval()
    users = {"user_id": torch.tensor([1, 2])}
    before = model.full_sort_predict(users)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.data.mul_(2.0)
    assert not torch.equal(model.full_sort_predict(users), before)


BY_ITEM_FILE = {"load_col": {"inter": ["user_id", "item_id"], "item": ["item_id"]}}


def other_features(settings, row):
    """Change the image of one item."""
    file = Path(settings["data_path"]) / "tiny" / "image.npy"
    image = np.load(file)
    image[row] += 1
    np.save(file, image)


def rows_of_images(settings):
    """Rows of the image file of an item that is observed, and of one that is hidden."""
    dataset, content = prepare("VBPR", settings).dataset, tiny_content()
    tokens = dict(zip(dataset.field2id_token["item_id"], dataset.known["image"].observed.tolist()))
    shown = [tokens[item] for item in content.image_ids]
    return shown.index(True), shown.index(False)


def test_a_checkpoint_is_refused_on_other_data(settings):
    saved = run_recbole_missing("VBPR", config_dict=settings)["checkpoint"]
    shown, hidden = rows_of_images(settings)
    other_features(settings, hidden)
    assert load_data_and_model(saved, settings["data_path"]), "what the mask hides decides nothing"
    other_features(settings, shown)
    with pytest.raises(
        ValueError, match="data that it was trained on, got another set of features in"
    ):
        load_data_and_model(saved, settings["data_path"])


def test_features_do_not_matter_to_a_model_that_reads_none(settings):
    saved = run_recbole_missing("BPR", config_dict=settings)["checkpoint"]
    other_features(settings, rows_of_images(settings)[0])
    assert load_data_and_model(saved, settings["data_path"])


@pytest.mark.parametrize("change", ["reversed", "longer"])
def test_a_checkpoint_is_refused_on_another_catalogue(settings, tmp_path, change):
    """Else scores would be on other items, or torch would say "size mismatch"."""
    settings = {**settings, **BY_ITEM_FILE}
    file = tmp_path / "tiny" / "tiny.item"
    header, *lines = file.read_text().splitlines()
    lines += ["i500\ta title\ta b", "i501\ta title\ta b"]
    file.write_text("\n".join([header, *lines]) + "\n")
    _, trainer = fitted("VBPR", settings)
    saved = trainer.saved_model_file
    lines = lines[::-1] if change == "reversed" else [*lines, "i502\ta title\ta b"]
    file.write_text("\n".join([header, *lines]) + "\n")
    other = prepare("VBPR", settings)
    for use in (
        lambda: load_data_and_model(saved, settings["data_path"]),
        lambda: other.trainer().resume_checkpoint(saved),
        lambda: other.trainer().evaluate(other.test, model_file=saved),
    ):
        with pytest.raises(ValueError, match=r"VBPR.*got another catalogue of users and items"):
            use()


def test_a_setting_that_nobody_reads_refuses_no_checkpoint(settings):
    mean = {**settings, "imputation": "mean"}
    _, first = fitted("VBPR", mean, imputation_alpha=0.1)
    run = prepare("VBPR", mean, imputation_alpha=0.2, missing_seed=42)
    run.trainer().resume_checkpoint(first.saved_model_file)
    other = prepare("VBPR", settings, imputation="zeros")
    with pytest.raises(ValueError, match="imputation 'zeros' instead of 'mean' in"):
        other.trainer().resume_checkpoint(first.saved_model_file)
    _, last = fitted("VBPR", settings, imputation="featprop", imputation_layers=1)
    other = prepare("VBPR", settings, imputation="featprop", imputation_layers=2)
    with pytest.raises(ValueError, match="imputation_layers 2 instead of 1 in"):
        other.trainer().resume_checkpoint(last.saved_model_file)
    _, plain = fitted("BPR", settings, imputation="mean")
    prepare("BPR", settings, imputation="zeros").trainer().resume_checkpoint(plain.saved_model_file)


def test_a_checkpoint_that_does_not_name_its_data_is_refused(settings):
    run, trainer = fitted("VBPR", settings)
    state = checkpoint.load(Path(trainer.saved_model_file))
    del state["config"]["data_identity"]
    checkpoint.save(state, Path(trainer.saved_model_file))
    with pytest.raises(ValueError, match="must say which data it was trained on, got .* older"):
        load_data_and_model(trainer.saved_model_file, settings["data_path"])


def test_data_from_a_cache_of_dataloaders_have_their_identity(settings):
    kept = {**settings, "save_dataset": True, "save_dataloaders": True}
    prepare("VBPR", kept)
    _, trainer = fitted("VBPR", kept)
    saved = torch.load(trainer.saved_model_file, weights_only=True)["config"]
    fresh = prepare("VBPR", settings, checkpoint_dir="elsewhere").dataset.identity
    assert saved["data_identity"] == fresh


def test_a_checkpoint_loads_from_another_working_directory(settings, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    relative = {**settings, "data_path": os.path.relpath(settings["data_path"], tmp_path)}
    saved = Path(run_recbole_missing("VBPR", config_dict=relative)["checkpoint"]).resolve()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert load_data_and_model(str(saved), settings["data_path"])


@pytest.mark.parametrize("model", ["BPR", "SASRec"])
def test_recboles_own_models_are_refused_on_other_interactions_too(settings, tmp_path, model):
    """Also without our settings, where RecBole's own class reads the data."""
    by_time = {"eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO"}}
    keys = ("data_path", "dataset", "checkpoint_dir", "gpu_id", "epochs", "show_progress")
    plain = {key: settings[key] for key in keys} | by_time
    plain |= {"load_col": {"inter": ["user_id", "item_id", "timestamp"]}}
    plain |= {"train_neg_sample_args": None} if model == "SASRec" else {}
    run, trainer = fitted(model, plain)
    saved = trainer.saved_model_file
    assert type(run.dataset).__name__ in ("Dataset", "SequentialDataset")
    trainer.evaluate(run.test)
    assert load_data_and_model(saved, settings["data_path"])
    file = tmp_path / "tiny" / "tiny.inter"
    header, *lines = file.read_text().splitlines()
    user, _, time = lines[0].split("\t")
    item = next(line.split("\t")[1] for line in lines if not line.startswith(f"{user}\t"))
    lines[0] = f"{user}\t{item}\t{time}"
    file.write_text("\n".join([header, *lines]) + "\n")
    with pytest.raises(ValueError, match="data that it was trained on, got another"):
        load_data_and_model(saved, settings["data_path"])
    with pytest.raises(ValueError, match="data that it was trained on, got another"):
        prepare(model, plain).trainer().resume_checkpoint(saved)
