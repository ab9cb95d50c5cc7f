"""One contract over IMPUTERS, and the published numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from helpers import PROPERTIES, tiny_modalities
from published import adjacency, close, table
from published import published as published
from scipy import sparse
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from recbole_missing.graph.co_interaction import co_interaction
from recbole_missing.imputation import IMPUTERS, FeatProp, NeighMean, impute, make_imputer
from recbole_missing.imputation.propagation import GraphImputer, propagate
from recbole_missing.modality import Modality

N_ITEMS = 40
GRAPH_METHODS = [name for name, imputer in IMPUTERS.items() if issubclass(imputer, GraphImputer)]


@pytest.fixture
def settings() -> dict[str, Any]:
    overall = yaml.safe_load((PROPERTIES / "overall.yaml").read_text())
    found = {key: value for key, value in overall.items() if key.startswith("imputation")}
    return {**found, "imputation_epochs": 2}


@pytest.fixture
def modality() -> Modality:
    return tiny_modalities(N_ITEMS, {"image": 6}, missing=0.5)["image"]


@pytest.fixture
def interactions() -> sparse.csr_matrix:
    """Random interactions; the last three items have none."""
    full = np.random.default_rng(0).random((60, N_ITEMS)) < 0.1
    full[0] = full[:, 0] = full[:, -3:] = False
    return sparse.csr_matrix(full.astype(np.float32))


@pytest.mark.parametrize("name", IMPUTERS)
def test_contract(
    name: str, modality: Modality, interactions: sparse.csr_matrix, settings: dict[str, Any]
) -> None:
    before = modality.features.clone()
    imputer = make_imputer({**settings, "imputation": name})
    result = imputer.fit(interactions).transform(modality)
    assert torch.equal(modality.features, before), "the input was changed"
    assert torch.equal(result.features[modality.observed], before[modality.observed])
    assert torch.equal(result.observed, modality.observed)
    assert torch.isfinite(result.features).all()
    assert result.features[0].abs().sum() == 0
    again = make_imputer({**settings, "imputation": name}).fit(interactions).transform(modality)
    assert torch.equal(result.features, again.features)


@pytest.mark.parametrize("name", IMPUTERS)
def test_values_of_missing_rows_do_not_matter(
    name: str, modality: Modality, interactions: sparse.csr_matrix, settings: dict[str, Any]
) -> None:
    noise = torch.where(modality.missing[:, None], 1e3, modality.features)
    noisy = Modality("image", noise, modality.observed)
    imputer = make_imputer({**settings, "imputation": name}).fit(interactions)
    assert torch.equal(imputer.transform(noisy).features, imputer.transform(modality).features)


@pytest.mark.parametrize("name", [name for name in IMPUTERS if name != "random"])
def test_permuted_items_give_permuted_output(
    name: str, modality: Modality, interactions: sparse.csr_matrix, settings: dict[str, Any]
) -> None:
    settings["imputation_top_k"] = N_ITEMS  # keeps everything, so that ties decide nothing
    order = torch.cat([torch.zeros(1, dtype=torch.long), torch.randperm(N_ITEMS - 1) + 1])
    permuted = Modality("image", modality.features[order], modality.observed[order])
    imputer = make_imputer({**settings, "imputation": name})
    expected = imputer.fit(interactions).transform(modality).features[order]
    got = imputer.fit(interactions[:, order.numpy()]).transform(permuted).features
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("name", IMPUTERS)
def test_nobody_observed_is_an_error(
    name: str, interactions: sparse.csr_matrix, settings: dict[str, Any]
) -> None:
    empty = Modality("sound", torch.zeros(N_ITEMS, 2), torch.zeros(N_ITEMS, dtype=torch.bool))
    imputer = make_imputer({**settings, "imputation": name}).fit(interactions)
    with pytest.raises(ValueError, match="modality 'sound': must be observed for at least one"):
        imputer.transform(empty)


def test_bad_settings(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="Unknown imputation 'featpop'. Did you mean 'featprop'"):
        make_imputer({**settings, "imputation": "featpop"})
    with pytest.raises(ValueError, match="layers must be an int >= 1, or 'converge', got 0"):
        make_imputer({**settings, "imputation": "featprop", "imputation_layers": 0})


def test_mean_is_over_observed_rows_of_donors(
    modality: Modality, interactions: sparse.csr_matrix
) -> None:
    new = torch.zeros(N_ITEMS, dtype=torch.bool)
    new[modality.observed.nonzero()[:2, 0]] = True
    for donors in (torch.ones_like(new), ~new):
        result = IMPUTERS["mean"]().fit(interactions, donors).transform(modality)
        expected = modality.features[modality.observed & donors].double().mean(0).float()
        assert torch.equal(result.features[result.missing][0], expected)


def test_random_numbers_differ_between_modalities_and_seeds(
    interactions: sparse.csr_matrix,
) -> None:
    pair = tiny_modalities(N_ITEMS, {"image_clip": 6, "image_vit": 6}, missing=0.5)
    rows = [
        IMPUTERS["random"](seed=seed).fit(interactions).fill(modality, {}).features
        for seed in (0, 1)
        for modality in pair.values()
    ]
    assert all(not torch.equal(a, b) for i, a in enumerate(rows) for b in rows[:i])


@pytest.mark.parametrize("fallback", ["mean", "zeros"])
@pytest.mark.parametrize("name", GRAPH_METHODS)
def test_fallback_of_items_that_nothing_reaches(
    name: str, fallback: str, modality: Modality, interactions: sparse.csr_matrix
) -> None:
    observed = modality.observed.clone()
    observed[-3:] = False
    features = modality.features * observed[:, None]
    imputer = IMPUTERS[name](fallback=fallback).fit(interactions)
    result = imputer.transform(Modality("image", features, observed)).features[-3:]
    mean = features[observed & imputer.donors_].double().mean(0).float()
    assert torch.equal(result, (mean if fallback == "mean" else mean * 0).expand(3, -1))


def test_featprop_converges_to_the_dense_linear_solve(
    modality: Modality, interactions: sparse.csr_matrix
) -> None:
    imputer = FeatProp(layers=3000, top_k=8, fallback="zeros").fit(interactions)
    dense = imputer.operator_.toarray().astype(np.float64)
    missing = modality.missing.numpy()
    reached = propagate(modality.features, modality.observed, imputer.operator_, 100)[1].numpy()
    solve = missing & reached
    known = modality.observed.numpy()
    system = np.eye(solve.sum()) - dense[np.ix_(solve, solve)]
    right = dense[np.ix_(solve, known)] @ modality.features.numpy()[known]
    expected = np.linalg.solve(system, right)
    got = imputer.transform(modality).features.numpy()[solve]
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_arrays_and_their_mistakes(interactions: sparse.csr_matrix) -> None:
    features = np.random.default_rng(0).random((N_ITEMS, 3))
    features[[2, 7]] = np.nan
    with pytest.raises(NotFittedError):
        FeatProp().transform(features)
    imputer = clone(FeatProp(layers=2)).fit(interactions)
    completed = imputer.transform(features)
    assert completed.dtype == np.float32 and np.isfinite(completed).all()
    assert np.array_equal(completed[3], features[3].astype(np.float32))
    assert imputer.report_["X"]["missing"] == 2
    observed = ~np.isnan(features).any(axis=1)
    both = imputer.transform({"a": features, "b": features}, {"b": observed})
    assert np.array_equal(both["b"], completed)
    for bad in ({"c": observed}, observed):
        with pytest.raises(ValueError, match="observed: must be a dict with names among"):
            imputer.transform({"a": features}, bad)
    with pytest.raises(
        ValueError, match="finite in float32 unless its whole row is NaN, got .* 40 rows"
    ):
        imputer.transform(np.full((N_ITEMS, 2), np.inf))
    with pytest.raises(ValueError, match="FeatProp: donors must be bool of shape"):
        imputer.fit(interactions, np.arange(5))


def test_impute_keeps_the_order_of_modalities(
    interactions: sparse.csr_matrix, settings: dict[str, Any]
) -> None:
    modalities = tiny_modalities(N_ITEMS, {"text": 3, "image": 4, "sound": 2})
    completed = impute(modalities, interactions, settings)
    assert list(completed) == ["text", "image", "sound"]
    assert all(completed[name].features[1:].any(dim=1).all() for name in completed)


# ------------------------------------------------------------------------- published numbers


def published_cases(npz: dict[str, Any], method: str) -> list[tuple[str, dict[str, int], str]]:
    """Key, settings and modality letter of each stored result of a method."""
    cases = []
    for key in npz:
        if key.startswith(f"{method}__"):
            words, letter = key.split("__")[1].split("/")
            numbers = {word.strip("0123456789"): word for word in words.split("_")}
            values = {
                name: int(word[len(name) :]) for name, word in numbers.items() if name != word
            }
            cases.append((key, values, letter))
    assert cases, f"no stored result of {method}"
    return cases


@pytest.mark.parametrize("method", ["feat_prop", "neigh_mean"])
def test_published_propagation(published: dict[str, Any], method: str) -> None:
    for key, values, letter in published_cases(published, method):
        top_k, layers = values["topk"], values.get("layers", 1)
        features, observed = table(published, letter)
        imputer: FeatProp = (
            FeatProp(layers=layers, top_k=top_k) if "layers" in values else NeighMean(top_k=top_k)
        )
        operator = imputer.operator(adjacency(published, top_k))
        close(propagate(features, observed, operator, layers)[0], published[key], key)
        stored = f"op__{method}_topk{top_k}"
        if stored in published:
            close(torch.from_numpy(operator.toarray()), published[stored], stored)
            dense = sparse.csr_matrix(published[stored])
            close(propagate(features, observed, dense, layers)[0], published[key], key)


@pytest.mark.parametrize("method", ["zeros", "mean"])
def test_published_statistics(published: dict[str, Any], method: str) -> None:
    for letter in ("v", "t"):
        key = f"{method}__default/{letter}"
        if key not in published:
            continue
        features, observed = table(published, letter)
        padded = torch.nn.functional.pad(features * observed[:, None], (0, 0, 1, 0))
        modality = Modality("image", padded, torch.nn.functional.pad(observed, (1, 0)))
        everyone = sparse.csr_matrix(np.ones((2, len(padded)), dtype=np.float32))
        close(
            IMPUTERS[method]().fit(everyone).transform(modality).features[1:], published[key], key
        )


def test_our_graph_keeps_the_strongest_published_counts(
    published: dict[str, Any], golden_dir: Path
) -> None:
    """Ties and fillers aside, our rows and the stored ones hold the same counts."""
    counts, n_items = published["cooc"], int(published["n_items"])
    interactions = _interactions_behind(counts, golden_dir)
    for top_k in (5, 10, 20):
        ours = co_interaction(interactions, top_k)
        theirs = adjacency(published, top_k).tocoo()
        for item in range(n_items):
            strongest = counts[item, theirs.col[theirs.row == item]]
            np.testing.assert_array_equal(
                np.sort(ours[item].data), np.sort(strongest[strongest > 0])
            )


def _interactions_behind(counts: np.ndarray, golden_dir: Path) -> sparse.csr_matrix:
    """imputation.npz has no interactions; a model's file of the same data set does."""
    for path in sorted(golden_dir.glob("*.npz")):
        with np.load(path) as stored:
            if "train_user" not in stored or int(stored["n_items"]) != len(counts):
                continue
            users, items = stored["train_user"], stored["train_item"]
        shape = (users.max() + 1, len(counts))
        interactions = sparse.csr_matrix((np.ones(len(users)), (users, items)), shape=shape)
        if ((interactions.T @ interactions).toarray() == counts).all():
            return interactions
    return pytest.skip(f"no file in {golden_dir} has the interactions of imputation.npz")
