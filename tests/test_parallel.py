"""The engines that run blocks."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from helpers import assert_same_bits, catalogue, model_defaults, tiny_config, tiny_dataset

from recbole_missing.graph.co_interaction import co_interaction
from recbole_missing.graph.knn import SEARCHES
from recbole_missing.imputation import FeatProp
from recbole_missing.model import MODELS
from recbole_missing.parallel import Ray, Serial, column_blocks, worker_environment


def scaled(table: np.ndarray, factor: float, task: int) -> tuple[int, np.ndarray, int]:
    return task, table[task] * factor, torch.get_num_threads()


@pytest.fixture(scope="module")
def two_workers() -> Iterator[Ray]:
    ray = pytest.importorskip("ray")
    engine = Ray(num_cpus=2)
    try:
        engine._connect()
    except Exception as error:  # noqa: BLE001
        engine.close()
        pytest.skip(f"Ray does not start on this machine: {error}")
    yield engine
    engine.close()
    assert not ray.is_initialized(), "what the engine started still runs"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_ray_gives_equal_results_in_order(two_workers: Ray) -> None:
    table = np.arange(40.0)
    results = list(two_workers.map(scaled, (table, 2.0), list(range(40)), "doubling"))
    assert [result[:2] for result in results] == [(task, 2.0 * task) for task in range(40)]
    assert {result[2] for result in results} == {1}, "workers share the cores"

    interactions = catalogue()
    got = co_interaction(interactions, 5, 500, engine=two_workers)
    assert_same_bits(got, co_interaction(interactions, 5))

    features = np.random.default_rng(0).random((interactions.shape[1], 6), dtype=np.float32)
    observed = np.arange(len(features)) % 2 == 0
    local, distributed = FeatProp(), FeatProp()
    distributed.engine = two_workers
    expected = local.fit(interactions).transform(features, observed)
    assert np.array_equal(distributed.fit(interactions).transform(features, observed), expected)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_ray_of_somebody_else_is_left_alone(two_workers: Ray) -> None:
    import ray

    with Ray() as guest:
        assert next(iter(guest.map(scaled, (np.ones(1), 1.0), [0], "visiting")))[0] == 0
    assert ray.is_initialized()


def test_serial_yields_results_in_order_as_they_are_asked_for() -> None:
    seen = []

    def block(offset: int, task: int) -> int:
        seen.append(task)
        return offset + task

    results = Serial().map(block, (10,), [3, 1, 2], "adding")
    assert next(results) == 13
    assert seen == [3]
    assert list(results) == [11, 12]


@pytest.mark.parametrize(("n_columns", "n_rows"), [(1, 1), (300, 10), (4096, 10**6), (0, 5)])
def test_column_blocks_cover_every_column_once(n_columns: int, n_rows: int) -> None:
    blocks = column_blocks(n_columns, n_rows)
    assert [c for start, stop in blocks for c in range(start, stop)] == list(range(n_columns))
    assert all(16 <= stop - start <= 256 for start, stop in blocks[:-1])


def test_worker_environment_is_inherited_and_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    monkeypatch.setattr(sys, "path", [*sys.path, "/somewhere/else"])
    code = "import os, sys; print(os.environ['OMP_NUM_THREADS'], '/somewhere/else' in sys.path)"
    with worker_environment(threads=3):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == ["3", "True"]
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert "MKL_NUM_THREADS" not in os.environ


@pytest.mark.parametrize(("progress", "delay", "shown"), [(True, 0, True), (True, 9, False)])
def test_a_bar_appears_after_its_delay(progress: bool, delay: float, shown: bool, capfd) -> None:
    engine = Serial(progress, delay)
    assert list(engine.map(divmod, (7,), [2, 3], "quotients")) == [(3, 1), (2, 1)]
    assert ("quotients" in capfd.readouterr().err) == shown


@pytest.mark.parametrize("shown", [True, False])
def test_searches_show_a_bar_if_the_run_does(shown: bool) -> None:
    defaults = model_defaults("FREEDOM")
    MODELS["FREEDOM"](tiny_config(**defaults, show_progress=shown), tiny_dataset())
    assert SEARCHES.progress == shown
