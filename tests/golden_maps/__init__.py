"""Maps from published parameter, term and setting names to ours, one small module a model.

A module ``golden_maps/<model in lower case>.py`` serves ``<Model>.npz`` and ``<Model>-*.npz`` and
must define

``MODEL``
    our class.
``settings(meta) -> dict``
    our config values, from the file's ``meta`` (``meta["config"]`` holds the published ones).
``names(modalities, meta) -> dict``
    our parameter or buffer name -> published name (without ``param/``), or :class:`Published`
    where the layouts differ. ``modalities`` is the :class:`Modalities` of the file. A published
    array with one row less than ours gets a zero row 0 for the padding id.
``terms(modalities) -> dict``
    our loss term, or several joined by `` + `` -> published key ``loss0_<part>``, or several
    joined by `` + `` (``meta["loss_parts"]`` weights are applied), or a function of the file.

and may define

``COMPLETE``: names of variants (``variant_<name>/*`` in a file, then ``meta["variant"]``) in which
    nothing is missing and the features are the raw ones.
``UNUSED``: pattern of published names -> the reason why nothing of ours corresponds to them.
``LOOSE``: pattern of our names -> (absolute tolerance or None for no comparison, the reason);
    holds for values after four steps and for gradients.
``SCORES``: ``scores0`` or ``scores4`` -> allowed difference as a share of the largest score, where
    float32 itself is no better.
``LOSS``: the same for losses and their parts.
``scores(products)``: published scores as a function of inner products (a sigmoid, say).
``before_scores(model, npz, key)``: what the published scores of that key need.
``features(npz, letter)``: the matrix that the published model received, ``(n_items, dim)``.
``prepare(model, npz)``: after loading, for instance put in stored graphs where ties decide.
``epoch(model, k)``: work of an epoch before batch 0 and 2, instead of ``on_epoch_start``.
``batch(model, npz, k, monkeypatch)``: before batch k, for instance replay recorded draws.
``optimizer(model, meta)``: instead of Adam with the rate and decay of ``meta``.
``extra(model, npz)``: further comparisons, on the model after ``prepare``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable

import numpy as np
import torch

from recbole_missing.graph.sparse import SparseMatrix

LETTERS = {"v": "image", "t": "text", "a": "audio"}
"""Modality letters of the golden files -> our names."""


@dataclass(frozen=True)
class Published:
    """Published arrays ``names`` and how they give ours: ``transform(*arrays) -> array``."""

    names: tuple[str, ...]
    transform: Callable[..., np.ndarray]


def letter(name: str) -> str:
    """Letter of one of our modality names."""
    return {ours: theirs for theirs, ours in LETTERS.items()}[name]


def identities() -> dict[str, str]:
    """User and item tables under the name that most publications give them."""
    return {
        "user_embedding": "user_embedding.weight",
        "item_embedding": "item_id_embedding.weight",
    }


def linear(ours: str, theirs: str) -> dict[str, str]:
    """Weight and bias of a linear layer."""
    return {f"{ours}.{part}": f"{theirs}.{part}" for part in ("weight", "bias")}


def projected_features(modalities: Any) -> dict[str, str]:
    """Feature tables and the linear map of each modality."""
    found: dict[str, str] = {}
    for name in modalities:
        found[f"features.{name}"] = f"{name}_embedding.weight"
        found.update(linear(f"projections.{name}", f"{name}_trs"))
    return found


def padded_graph(dense: np.ndarray, padded_rows: int = 1, padded_cols: int = 1) -> SparseMatrix:
    """Published dense graph -> ours, with empty padding rows and columns in front."""
    matrix = torch.from_numpy(np.pad(dense, ((padded_rows, 0), (padded_cols, 0))))
    rows, cols = matrix.nonzero(as_tuple=True)
    return SparseMatrix(rows, cols, matrix[rows, cols], tuple(matrix.shape))


def untied_rows(features: np.ndarray, k: int) -> np.ndarray:
    """Bool ``(n_items,)``: whose k nearest rows by cosine are beyond doubt."""
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    cosines = np.sort(unit.astype(np.float64) @ unit.T.astype(np.float64), axis=1)[:, ::-1]
    return cosines[:, k - 1] - cosines[:, k] > 1e-5


def dense(matrix: Any) -> np.ndarray:
    """Our sparse matrix -> dense, without the padding row and column."""
    rows, cols, values = matrix.edges()
    full = torch.zeros(matrix.shape).index_put_((rows, cols), values, accumulate=True)
    return full[1:, 1:].numpy()
