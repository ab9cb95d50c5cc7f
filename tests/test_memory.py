"""Memory that runs out, in torch, numpy and CUDA: one line with the size and what to lower."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from folders import AT_WORK, tiny_content
from folders import workplace as workplace
from recbole.quick_start import run_recbole
from scipy import sparse

from recbole_missing import cli, memory, run_recbole_missing
from recbole_missing.benchmark import plan, runner
from recbole_missing.benchmark.store import Store
from recbole_missing.benchmark.workers import Here
from recbole_missing.imputation import FeatProp, impute
from recbole_missing.modality import Modalities, Modality
from recbole_missing.model.base import MultimodalRecommender
from recbole_missing.trainer import MultimodalTrainer

CUDA = "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 79.11 GiB"


def cuda_error(*args: Any, **kwargs: Any) -> Any:
    """What torch raises on a full GPU."""
    raise torch.cuda.OutOfMemoryError(CUDA)


@pytest.mark.parametrize(
    ("allocate", "mib"),
    [
        (lambda: torch.empty(2**60), 2**42),
        (lambda: np.zeros((2**28, 2**28)), 2**39),
        (cuda_error, 20 * 1024),
    ],
)
def test_errors_of_torch_numpy_and_cuda_are_known(allocate: Any, mib: float) -> None:
    with pytest.raises((RuntimeError, MemoryError)) as raised:
        allocate()
    assert memory.is_exhausted(raised.value)
    assert memory.asked_mib(raised.value) == pytest.approx(mib, rel=1e-3)
    message = "^it must fit into the memory of the "
    with pytest.raises(ValueError, match=message) as said, memory.fits("it", {}):
        allocate()
    assert type(said.value.__cause__) is type(raised.value) and cli.is_refusal(said.value)
    assert "\n" not in str(said.value)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        MemoryError("std::bad_alloc"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("CUDA error: out of memory"),
    ],
)
def test_errors_that_name_no_size_are_known_too(error: Exception) -> None:
    assert memory.is_exhausted(error) and memory.asked_mib(error) is None
    message = "it must fit .*, got no more memory; lower a .now 3"
    with pytest.raises(ValueError, match=message), memory.fits("it", {"a": 3}):
        raise error


@pytest.mark.parametrize("error", [RuntimeError("shapes do not match"), KeyError("memory")])
def test_a_bug_stays_what_it_is(error: Exception) -> None:
    with pytest.raises(type(error)) as raised, memory.fits("it", {}):
        raise error
    assert raised.value is error


pytestmark = AT_WORK


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, Any]:
    """Settings of a short run on the tiny data set."""
    return tiny_content().write(tmp_path / "dataset")


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (
            "_train_epoch",
            "VBPR: training must fit into the memory of the GPU, got a request for 20,480 MiB "
            "more; lower train_batch_size (now 128) or embedding_size (now 8), or set gpu_id to "
            "'' for the CPU.",
        ),
        (
            "_full_sort_batch_eval",
            "VBPR: evaluation must fit into the memory of the GPU, got a request for 20,480 MiB "
            "more; lower eval_users (now 2048) or eval_batch_size (now 63488), or set gpu_id to "
            "'' for the CPU.",
        ),
    ],
)
def test_training_and_evaluation_say_what_to_lower(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch, method: str, message: str
) -> None:
    monkeypatch.setattr(MultimodalTrainer, method, cuda_error)
    for run in (run_recbole_missing, run_recbole):
        with pytest.raises(ValueError) as said:
            run("VBPR", config_dict=dict(settings))
        assert str(said.value) == message


def test_a_table_that_fits_into_no_machine_is_one_line_of_the_command(
    settings: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    words = [f"--{key}={value}" for key, value in {**settings, "embedding_size": 2**42}.items()]
    with pytest.raises(SystemExit) as ended:
        cli.main(["run", "--model=VBPR", *words])
    (line,) = [one for one in capsys.readouterr().err.splitlines() if one.startswith("error: ")]
    assert ended.value.code == 2
    assert line.startswith("error: VBPR: the model must fit into the memory of the machine, got a ")
    assert line.endswith(f" MiB more; lower embedding_size (now {2**42}).")


def test_imputation_says_what_to_lower(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FeatProp, "fit", lambda self, *args: np.zeros((2**28, 2**28)))
    given = Modalities([Modality("image", torch.zeros(3, 2), torch.tensor([False, True, False]))])
    settings = {"imputation": "featprop", "imputation_layers": 1, "imputation_top_k": 7}
    settings |= {"imputation_graph": "co_interaction", "imputation_max_user_items": None}
    settings |= {"imputation_fallback": "mean", "imputation_guide": None}
    settings |= {"imputation_tolerance": 1e-6}
    with pytest.raises(ValueError) as said:
        impute(given, sparse.csr_matrix((2, 3)), settings)
    assert str(said.value).startswith("imputation by FeatProp must fit into the memory of the mach")
    assert str(said.value).endswith(" MiB more; lower imputation_top_k (now 7).")


def test_a_benchmark_goes_on_and_its_line_says_what_to_lower(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dataset/tiny/tiny.yaml").write_text(yaml.safe_dump(settings))
    grid = {"dataset": ["tiny"], "model": ["VBPR", "BPR"], "seed": [1]}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"grid": grid}))
    monkeypatch.setattr(MultimodalRecommender, "full_sort_predict", cuda_error)
    options = runner.Options(data_path=tmp_path / "dataset", say=lambda text: None)
    mine = plan.read(tmp_path / "mine.yaml")
    lines = runner.run(mine, Store(tmp_path / "mine.jsonl"), Here(), options)
    assert [line.status for line in lines] == ["failed", "done"]
    assert lines[0].error.startswith(
        "ValueError: VBPR: evaluation must fit into the memory of the GPU, got a request for 20,480"
    )
    assert "\n" not in lines[0].error
