"""No batch of training makes the CPU wait for a GPU. It is checked on a GPU, and without one, too.

Without a GPU the operations are watched whose result, or its shape, the CPU must know before it can
go on; tensors say that they lie on a GPU, so that models take that branch.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import pytest
import torch
from helpers import TinyDataset, model_defaults, tiny_batch, tiny_config, tiny_dataset
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from recbole_missing.model import MODELS
from recbole_missing.model.base import MultimodalRecommender
from recbole_missing.optim import OPTIM

WAITING = {
    "_local_scalar_dense",  # item, int, float, bool, if
    "_unique2",
    "bincount",
    "equal",
    "is_nonzero",
    "masked_select",
    "nonzero",
    "unique_consecutive",
    "unique_dim",
}
"""Operations after which the CPU waits."""


WAITING_MODELS = {"MMSSL": "it must know how many items the users of a batch have seen"}
MODELS_OF_THE_TEST = [
    pytest.param(name, marks=pytest.mark.xfail(reason=WAITING_MODELS[name], strict=True))
    if name in WAITING_MODELS
    else name
    for name in MODELS
]


class NothingWaits(TorchDispatchMode):
    """Fails on what makes the CPU wait for a GPU."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Look at the operation and run it."""
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        assert name not in WAITING, f"the CPU waits for {name}"
        if name in ("index", "index_put", "index_put_", "_unsafe_index"):
            masks = [i for i in args[1] if i is not None and i.dtype in (torch.bool, torch.uint8)]
            constant = name.startswith("index_put") and args[2].numel() == 1 and len(args[1]) == 1
            assert constant or not masks, f"the CPU waits for the number of rows of a mask: {name}"
        if name == "lift_fresh":  # torch.tensor(numbers): a copy to the GPU, but for a scalar
            assert args[0].dim() == 0, "the CPU waits for the copy of a new tensor"
        if name == "repeat_interleave":
            assert kwargs.get("output_size"), "the CPU waits for the length of repeat_interleave"
        return func(*args, **kwargs)


class OnGpu(TorchFunctionMode):
    """Tensors say that they lie on a GPU."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Answer for ``is_cuda``, and run everything else."""
        if func == torch.Tensor.is_cuda.__get__:
            return True
        return func(*args, **(kwargs or {}))


def batch_step(
    name: str, dataset: TinyDataset, device: str
) -> Callable[[dict[str, torch.Tensor]], torch.Tensor]:
    """Build a model and its optimisers; return what the trainer does with a batch."""
    torch.manual_seed(0)
    settings = {**model_defaults(name), "embedding_size": 8, "graph_top_share": 0.1}
    model: MultimodalRecommender = MODELS[name](tiny_config(**settings, device=device), dataset)
    model.to(device).train()
    auxiliary = list(model.auxiliary_parameters())
    main = [p for p in model.parameters() if all(p is not other for other in auxiliary)]
    kind = partial(OPTIM.Adam, fused=True) if device == "cuda" else OPTIM.SGD
    optimizer, second = kind(main, lr=0.01), kind(auxiliary or main[:1], lr=0.01)
    sums: dict[str, Any] = {}

    def minimise(loss: torch.Tensor) -> None:
        second.zero_grad()
        loss.backward()
        second.step()
        second.zero_grad()

    def step(batch: dict[str, torch.Tensor]) -> torch.Tensor:
        for parameter in auxiliary:
            parameter.requires_grad_(True)
        model.on_batch_start(batch, minimise)
        for parameter in auxiliary:
            parameter.requires_grad_(False)
        optimizer.zero_grad()
        loss = model.calculate_loss(batch)
        for term, value in model.last_terms.items():
            sums[term] = sums.get(term, 0.0) + value
        loss.backward()
        optimizer.step()
        return loss

    model.on_epoch_start(minimise)
    return step


def batches(dataset: TinyDataset, device: str) -> list[dict[str, torch.Tensor]]:
    found = [tiny_batch(dataset, seed=seed) for seed in range(3)]
    return [{field: ids.to(device) for field, ids in batch.items()} for batch in found]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", MODELS_OF_THE_TEST)
def test_no_batch_waits_for_the_gpu(name: str) -> None:
    dataset = tiny_dataset(("smell", "text"))
    step = batch_step(name, dataset, "cuda")
    first, *others = batches(dataset, "cuda")
    step(first)
    torch.cuda.set_sync_debug_mode("error")
    try:
        losses = [step(batch) for batch in others]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(map(torch.isfinite, losses))


@pytest.mark.parametrize("name", MODELS_OF_THE_TEST)
def test_no_batch_would_wait_for_a_gpu(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fresh = "recbole_missing.nn.transport._empty"  # takes memory of numpy on a CPU
    monkeypatch.setattr(fresh, lambda like, size: like.new_empty(size), raising=False)
    dataset = tiny_dataset(("smell", "text"))
    step = batch_step(name, dataset, "cpu")
    first, *others = batches(dataset, "cpu")
    # RecBole's model SINE turns the detection of anomalies on when it is imported; that waits.
    with torch.autograd.set_detect_anomaly(False), OnGpu():
        step(first)
        with NothingWaits():
            losses = [step(batch) for batch in others]
    assert all(map(torch.isfinite, losses))


OTHER_DRAWS = {
    (
        "DGMRec",
        "generation",
    ): "each of the distinct items has noise, and so has padding behind them",
    ("MMSSL", "adversarial"): "a GPU has a dropout of its own",
}
"""Loss terms whose random draws are others on a GPU."""


def loss_terms(
    name: str, mode: AbstractContextManager[Any], temperature: float | None
) -> dict[str, torch.Tensor]:
    """Loss terms of a batch. In the mode ``OnGpu`` models take the form that a GPU has."""
    dataset = tiny_dataset(("smell", "text"))
    settings = {**model_defaults(name), "embedding_size": 8, "graph_top_share": 0.1}
    if temperature is not None:
        settings.update({key: temperature for key in settings if key.endswith("temperature")})
    torch.manual_seed(0)
    model: MultimodalRecommender = MODELS[name](tiny_config(**settings), dataset).train()
    torch.manual_seed(1)
    with mode:
        return model.loss_terms(tiny_batch(dataset))


@pytest.mark.parametrize("temperature", [None, 1e-3])
@pytest.mark.parametrize("name", MODELS)
def test_both_forms_have_the_same_loss(
    name: str, temperature: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the default temperatures, and at one where powers would overflow."""
    fresh = "recbole_missing.nn.transport._empty"  # takes memory of numpy on a CPU
    monkeypatch.setattr(fresh, lambda like, size: like.new_empty(size), raising=False)
    found = loss_terms(name, OnGpu(), temperature)
    for term, expected in loss_terms(name, nullcontext(), temperature).items():
        assert torch.isfinite(found[term]), term
        if (name, term) not in OTHER_DRAWS:
            torch.testing.assert_close(found[term], expected, rtol=1e-4, atol=1e-5, msg=term)


@pytest.mark.parametrize(
    "work",
    [
        lambda x: x.sum().item(),
        lambda x: x[x > 1],
        lambda x: x.unique(),
        lambda x: torch.tensor([1.0]) + x,
        lambda x: x.repeat_interleave(x.long()),
        lambda x: 1 if x.sum() > 3 else 2,
    ],
)
def test_the_guard_sees_what_waits(work: Callable[[torch.Tensor], Any]) -> None:
    values = torch.arange(4.0)
    with pytest.raises(AssertionError, match="the CPU waits"), NothingWaits():
        work(values)


def test_the_guard_lets_other_work_pass() -> None:
    values, rows = torch.arange(4.0), torch.tensor([1, 1])
    with OnGpu(), NothingWaits():
        assert values.is_cuda
        values[rows] = 2.0
        values[values > 2] = 0.0
        values.sort()
