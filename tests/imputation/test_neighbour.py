"""The nearest neighbour against loops over items and donors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import some_items
from scipy import sparse

from recbole_missing.imputation.neighbour import NearestNeighbour

N_ITEMS = 40
WIDTHS = [{"image": 6, "text": 4}, {"image": 6, "text": 4, "sound": 6}]


@pytest.fixture
def interactions() -> sparse.csr_matrix:
    """Nobody interacts: this imputer does not read it."""
    return sparse.csr_matrix((1, N_ITEMS), dtype=np.float32)


@pytest.mark.parametrize("widths", WIDTHS, ids=len)
def test_nearest_neighbour_against_loops(
    widths: dict[str, int], interactions: sparse.csr_matrix, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recbole_missing.graph.knn.BLOCK_ENTRIES", 100)
    modalities = some_items(widths)
    donors = torch.ones(N_ITEMS, dtype=torch.bool)
    donors[1::6] = False
    imputer = NearestNeighbour(fallback="zeros").fit(interactions, donors)
    result = imputer.transform(modalities)
    for name, target in modalities.items():
        others = [other for other in modalities.values() if other.name != name]
        for item in target.missing.nonzero()[:, 0].tolist():
            sums = {}
            for donor in (target.observed & donors).nonzero()[:, 0].tolist():
                shared = [o for o in others if o.observed[item] and o.observed[donor]]
                if shared:
                    sums[donor] = sum(
                        float(torch.cosine_similarity(o.features[item], o.features[donor], dim=0))
                        for o in shared
                    )
            nearest = target.features[max(sums, key=sums.get)] if sums else torch.zeros(target.dim)
            assert torch.equal(result[name].features[item], nearest), (name, item)


def test_nearest_neighbour_takes_the_smaller_id_of_equals(interactions: sparse.csr_matrix) -> None:
    text = torch.ones(N_ITEMS, 3)
    image = torch.arange(N_ITEMS, dtype=torch.float32)[:, None].repeat(1, 2)
    observed = {"text": torch.ones(N_ITEMS).bool(), "image": torch.ones(N_ITEMS).bool()}
    observed["image"][[0, 1, 2, 30]] = False
    result = (
        NearestNeighbour().fit(interactions).transform({"text": text, "image": image}, observed)
    )
    assert (result["image"][[0, 1, 2, 30]] == 3).all()


def test_the_only_donor_is_copied_however_far_it_is(interactions: sparse.csr_matrix) -> None:
    text = torch.ones(N_ITEMS, 3)
    text[7] = -1.0
    observed = {"text": torch.ones(N_ITEMS).bool(), "image": torch.arange(N_ITEMS) == 7}
    image = torch.full((N_ITEMS, 2), 5.0)
    method = NearestNeighbour(fallback="zeros").fit(interactions)
    assert (method.transform({"text": text, "image": image}, observed)["image"] == 5).all()
    assert method.report_["image"]["unreached"] == 0
