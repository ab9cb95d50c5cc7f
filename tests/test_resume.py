"""A run that is stopped and resumed ends as an undisturbed one, bit for bit."""

from __future__ import annotations

import logging
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from folders import AT_WORK, Toy, tiny_content
from folders import workplace as workplace
from recbole.config import Config
from scipy import sparse
from torch import nn

from recbole_missing import MODELS, checkpoint, cli, quick_start, run_recbole_missing
from recbole_missing import resume as resuming
from recbole_missing.hidden_state import HiddenState
from recbole_missing.trainer import PluginTrainer

pytestmark = AT_WORK

RECBOLES = ["BPR", "LightGCN", "NGCF", "SGL"]
OFTEN = {"checkpoint_every": 0, "epochs": 4, "train_batch_size": 100}
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
        if (len(run.trainer.train_loss_dict), run.trainer._batch) == (epoch, batch):
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
