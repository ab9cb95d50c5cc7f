"""Encoders of text, tags and colours. Each learns only from the rows that it is fitted on."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np

from recbole_missing import lazy
from recbole_missing.tables import counted

Rows = Sequence[Sequence[str]]

_ROUNDING = 1e-6
"""A singular value below this part of the largest one is a zero with rounding errors."""


def encode_text(who: str, texts: Sequence[str], dim: int, others: Sequence[str] = ()) -> np.ndarray:
    """Encode texts by TF-IDF and a truncated SVD. The same texts always give the same matrix.

    A text without any word (only punctuation) gets a zero vector, and a log line counts such texts.
    If there are ``dim`` words or fewer, the TF-IDF weights are returned without an SVD.

    Args:
        who: the modality, for messages.
        texts: the texts to learn from and to encode.
        dim: wanted number of features. If the data allow fewer, a log line says so.
        others: further texts to encode. Nothing is learnt from them. Words that are not in
            ``texts`` are ignored.

    Returns:
        Float32 ``(len(texts) + len(others), at most dim)``; rows of ``texts`` first.

    Raises:
        ValueError: if no text holds a word.
    """
    with lazy.waiting("scipy.stats", "scipy.interpolate"):
        from sklearn.feature_extraction.text import TfidfVectorizer

    # One-character words count: in Chinese or Japanese they carry meaning.
    vectorizer = TfidfVectorizer(token_pattern=r"(?u)\b\w+\b")
    if not any(map(vectorizer.build_tokenizer(), texts)):
        raise ValueError(
            f"{who}: the text must hold words, got none in {len(texts):,} observed items; "
            "choose other columns."
        )
    weights = vectorizer.fit_transform(texts)
    wordless = (weights.getnnz(axis=1) == 0).sum()
    if wordless:
        logging.getLogger().warning(
            f"{who}: {wordless:,} of {len(texts):,} observed texts hold no word; they stay "
            "observed with a zero vector."
        )
    shown = vectorizer.transform(others) if len(others) else weights[:0]
    words = weights.shape[1]
    what = f"{counted(len(texts), 'text')} with {counted(words, 'word')}"
    if words <= min(dim, len(texts)):
        _note_fewer(who, what, dim, words)
        return np.concatenate([weights.toarray(), shown.toarray()]).astype(np.float32)
    return _reduced(who, what, dim, weights, shown)


def encode_colours(
    who: str, rows: np.ndarray, dim: int, others: np.ndarray, blocks: Sequence[int]
) -> np.ndarray:
    """Encode descriptions of pictures by a truncated SVD. The same rows give the same matrix.

    The mean of ``rows`` is subtracted. Then the columns of each block are divided by the root of
    their mean squared length over ``rows``, so that every block has the same weight.

    Args:
        who: the modality, for messages.
        rows: descriptions to learn from and to encode, ``(n, n_columns)``.
        dim: wanted number of features. If the data allow fewer, a log line says so.
        others: further descriptions to encode, ``(m, n_columns)``. Nothing is learnt from them.
        blocks: columns at which a new block begins, without 0.

    Returns:
        Float32 ``(n + m, at most dim)``; rows of ``rows`` first.
    """
    mean = rows.mean(axis=0, dtype=np.float64)
    parts = [np.split(table - mean, blocks, axis=1) for table in (rows, others)]
    scales = [np.sqrt((block**2).sum(axis=1).mean()) or 1.0 for block in parts[0]]
    weights, shown = (
        np.concatenate([block / scale for block, scale in zip(part, scales)], axis=1)
        for part in parts
    )
    what = f"{counted(len(rows), 'picture')} with {rows.shape[1]:,} numbers each"
    return _reduced(who, what, dim, weights, shown)


def _reduced(who: str, what: str, dim: int, weights: Any, shown: Any) -> np.ndarray:
    """Truncated SVD of ``weights``, and ``shown`` in the same space, one below the other.

    A column beyond the rank of ``weights`` would hold rounding errors, which a scale makes as large
    as the others. So there is none, and a log line says so.
    """
    with lazy.waiting("scipy.stats", "scipy.interpolate"):  # half a second, for other methods
        from sklearn.utils.extmath import randomized_svd

    size = min(dim, *weights.shape)
    left, scales, right = randomized_svd(weights, n_components=size, random_state=0)
    rank = max(1, int((scales > _ROUNDING * scales[0]).sum()))
    _note_fewer(who, what, dim, rank)
    left, scales, right = left[:, :rank], scales[:rank], right[:rank]
    return np.concatenate([left * scales, shown @ right.T]).astype(np.float32)


def _note_fewer(who: str, what: str, asked: int, allowed: int) -> None:
    if allowed < asked:
        logging.getLogger().warning(
            f"{who}: {asked} features were asked for, but {what} allow {allowed} at most; that "
            "many are used."
        )


def encode_tags(
    who: str, columns: Sequence[str], rows: Rows, separator: str, others: Rows = ()
) -> np.ndarray:
    """Encode the words of each row as a multi-hot vector.

    The same word in two columns makes two features.

    Args:
        who: the modality, for messages.
        columns: names of the columns.
        rows: one row for each item, with one cell for each column.
        separator: separator between two words of a cell.
        others: further rows to encode; words that are not in ``rows`` are ignored.

    Returns:
        Float32 zeros and ones ``(len(rows) + len(others), n_words)``, rows of ``rows`` first,
        columns and words in sorted order.

    Raises:
        ValueError: if no cell holds a word.
    """
    with lazy.waiting("scipy.stats", "scipy.interpolate"):
        from sklearn.preprocessing import MultiLabelBinarizer

    words, shown = (
        [
            {
                f"{column}:{word}"
                for column, cell in zip(columns, row)
                for word in split(cell, separator)
            }
            for row in part
        ]
        for part in (rows, others)
    )
    if not any(words):
        raise ValueError(
            f"{who}: the columns must hold words, got none in {len(rows):,} observed items; "
            "choose other columns."
        )
    known = set().union(*words)
    shown = [row & known for row in shown]
    return MultiLabelBinarizer().fit(words).transform([*words, *shown]).astype(np.float32)


def split(cell: str, separator: str) -> list[str]:
    """Return the words of a cell, without blank ones."""
    return [word for word in cell.split(separator) if word.strip()]
