"""FREEDOM's item graph and its drawing of edges, beyond the golden files."""

from __future__ import annotations

import pytest
import torch
from helpers import dense, model_defaults, tiny_config, tiny_dataset

from recbole_missing.model.freedom import FREEDOM, draw_edges

NAMES = ("smell", "text", "hue")


@pytest.mark.parametrize("weights", [[1.0], [0.1, 0.9], [0.1, 0.45, 0.45]])
def test_the_first_modality_has_its_weight_and_the_others_share_the_rest(
    weights: list[float],
) -> None:
    dataset = tiny_dataset(NAMES[: len(weights)])
    settings = {**model_defaults("FREEDOM"), "embedding_size": 4, "knn_k": 3}
    model = FREEDOM(tiny_config(**settings), dataset)
    expected = torch.zeros(17, 17)
    for weight, modality in zip(weights, dataset.modalities.values()):
        unit = torch.nn.functional.normalize(modality.features[1:])
        nearest = torch.zeros(16, 16)
        for row, cosines in enumerate(unit @ unit.T):  # equal cosines: the smaller number first
            nearest[row, cosines.round(decimals=5).sort(descending=True, stable=True)[1][:3]] = 1
        expected[1:, 1:] += weight * nearest / 3  # every row has three edges
    torch.testing.assert_close(dense(model.item_graph.full), expected)


def test_edges_are_drawn_in_proportion_to_their_weights() -> None:
    torch.manual_seed(0)
    weights = torch.tensor([1.0, 2.0, 5.0])
    drawn = torch.cat([draw_edges(weights, 1) for _ in range(4000)])
    shares = torch.bincount(drawn, minlength=3) / 4000
    torch.testing.assert_close(shares, weights / 8, atol=0.03, rtol=0)
    assert draw_edges(weights, 3).sort().values.tolist() == [0, 1, 2]
