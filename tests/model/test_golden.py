"""Every model against numbers of published implementations (numbers, not code).

The list of tests is the list of files in ``--golden-dir`` (each must have a map in
``golden_maps``) and of the variants inside them: the same start through another published version.
Nothing here depends on the sizes or the values of one set of files.
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import numpy as np
import pytest
from golden_maps.run import GoldenRun, of_variant, variants, without_randomness


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "golden_file" not in metafunc.fixturenames:
        return
    folder = metafunc.config.getoption("golden_dir")
    if not folder.is_dir():
        raise pytest.UsageError(f"--golden-dir: must be a folder, got {folder}.")
    files = [file for file in sorted(folder.glob("*.npz")) if file.stem != "imputation"]
    cases = [(file, variant) for file in files for variant in variants(file)]
    ids = ["-".join(filter(None, (file.stem, variant))) for file, variant in cases]
    metafunc.parametrize(("golden_file", "variant"), cases, ids=ids)


def test_published_numbers(
    golden_file: Path, variant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = importlib.import_module(f"golden_maps.{golden_file.stem.split('-')[0].lower()}")
    with np.load(golden_file) as stored:
        npz = dict(stored)
    meta = {**json.loads(str(npz["meta"])), "variant": variant}
    if variant:
        npz = of_variant(npz, variant, complete=variant in getattr(names, "COMPLETE", ()))
    run = GoldenRun(names, npz, meta)
    without_randomness(monkeypatch)
    run.load()
    run.compare_scores("scores0")
    if hasattr(names, "extra"):
        names.extra(run.model, npz)
    optimizer = run.optimizer()
    for k in range(4):
        run.step(k, optimizer, monkeypatch)
    run.compare_scores("scores4")
    run.compare_parameters()
