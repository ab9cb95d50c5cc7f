"""The losses of two epochs are the same on every version of numpy, scipy, pandas and torch.

The values were computed with numpy 1.26.4, scipy 1.12.0 and torch 2.13.0 on Python 3.11. Everything
before a loss decides them as well: how the files are read and split, the mask, TF-IDF and its
decomposition, imputation, the graphs, the draws of negatives, initial values, the optimisers.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from folders import AT_WORK, prepare, tiny_content
from folders import workplace as workplace
from recbole.utils import get_trainer

pytestmark = AT_WORK

LOSSES = {
    "BPR": [3.5001132, 3.4200633],
    "DGMRec": [13.56807, 9.3867334],
    "FREEDOM": [3.4392367, 3.3998332],
    "LATTICE": [3.3763086, 3.2980384],
    "LightGCN": [3.4388578, 3.4166697],
    "MMGCN": [3.4680959, 3.4585156],
    "VBPR": [5.9459558, 5.3906718],
}
"""Model -> loss of the first and of the second epoch."""


@pytest.mark.parametrize("name", LOSSES)
def test_losses_do_not_depend_on_versions(name: str, tmp_path: Path) -> None:
    settings = tiny_content().write(tmp_path)
    changes = {"missing_protocol": "random_items", "missing_ratio": 0.4, "imputation": "featprop"}
    changes.update(train_batch_size=64, plugin_defaults=True)
    prepared = prepare(name, settings, **changes)
    model = prepared.network()
    trainer = get_trainer(prepared.config["MODEL_TYPE"], name)(prepared.config, model)
    losses = [float(np.sum(trainer._train_epoch(prepared.train, epoch))) for epoch in range(2)]
    assert losses == pytest.approx(LOSSES[name], rel=1e-5)
