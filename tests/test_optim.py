"""Optimisers without torch's compiler."""

from __future__ import annotations

import copy
import functools
import pickle
from types import SimpleNamespace
from typing import Any

import pytest
import recbole.trainer.trainer
import torch

from recbole_missing import optim
from recbole_missing.optim import OPTIM


@pytest.fixture(autouse=True)
def without_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the compiler seem absent; another test may have imported it."""
    monkeypatch.setattr(optim, "sys", SimpleNamespace(modules={}))


def stepped(optimizer: Any) -> Any:
    """The optimiser after a step of its table."""
    table = optimizer.param_groups[0]["params"][0]
    optimizer.zero_grad()
    (table**2).sum().backward()
    optimizer.step()
    return optimizer


def of(owner: Any, kind: str, **options: float) -> Any:
    """An optimiser of a table."""
    table = torch.nn.Parameter(torch.linspace(-1, 1, 12).view(4, 3))
    return getattr(owner, kind)([table], lr=0.1, **options)


@pytest.mark.parametrize(
    ("kind", "options"),
    [("Adam", {}), ("AdamW", {}), ("SGD", {"momentum": 0.9}), ("Adagrad", {}), ("RMSprop", {})],
)
def test_an_optimiser_without_the_compiler_does_the_same(
    kind: str, options: dict[str, float]
) -> None:
    tables = []
    for owner in (torch.optim, OPTIM):
        table = torch.nn.Parameter(torch.linspace(-1, 1, 12).view(4, 3))
        optimizer = getattr(owner, kind)([table], lr=0.1, weight_decay=0.01, **options)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: 0.9**epoch)
        for step in range(3):
            optimizer.zero_grad()
            ((table - step) ** 2).sum().backward()
            optimizer.step()
            schedule.step()
        state = optimizer.state_dict()
        optimizer.load_state_dict(copy.deepcopy(state))
        optimizer.zero_grad()
        optimizer.step(lambda loss=table: _loss(loss))
        assert (
            isinstance(optimizer, getattr(torch.optim, kind)) and type(optimizer).__name__ == kind
        )
        tables.append(table.detach())
    assert torch.equal(*tables)


def _loss(table: torch.Tensor) -> Any:
    loss = (table**2).sum()
    loss.backward()
    return loss


@pytest.mark.parametrize("kind", ["Adam", "SGD"])
@pytest.mark.parametrize("protocol", [0, 2, pickle.HIGHEST_PROTOCOL])
def test_a_pickle_is_that_of_a_plain_optimiser(kind: str, protocol: int) -> None:
    optimizer = stepped(of(OPTIM, kind))
    assert type(optimizer) is not getattr(torch.optim, kind)
    copies = [pickle.loads(pickle.dumps(optimizer, protocol)), copy.deepcopy(optimizer)]
    for again in copies:
        assert type(again) is getattr(torch.optim, kind)
        assert str(again.state_dict()) == str(optimizer.state_dict())
    after = [stepped(one).param_groups[0]["params"][0] for one in (optimizer, *copies)]
    assert torch.equal(after[0], after[1]) and torch.equal(after[0], after[2])


def test_the_base_of_all_optimisers_is_torchs() -> None:
    of_recbole = recbole.trainer.trainer.optim
    assert of_recbole is OPTIM
    for owner in (torch.optim, OPTIM):
        assert isinstance(of(owner, "SGD"), of_recbole.Optimizer)


def test_a_step_that_somebody_has_changed_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    before, seen = of(OPTIM, "SGD"), []
    step = torch.optim.SGD.step

    @functools.wraps(step)
    def changed(self: Any, *args: Any) -> Any:
        seen.append(self)
        return step(self, *args)

    stepped(of(torch.optim, "SGD"))  # now torch has wrapped the method for its hooks
    monkeypatch.setattr(torch.optim.SGD, "step", changed)
    optimizer = stepped(of(OPTIM, "SGD"))
    assert seen == [optimizer]
    assert type(before) is not type(optimizer) is torch.optim.SGD


def test_the_compiler_that_is_there_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optim, "sys", SimpleNamespace(modules={"torch._dynamo": None}))
    assert OPTIM.Adam is torch.optim.Adam and OPTIM.lr_scheduler is torch.optim.lr_scheduler
