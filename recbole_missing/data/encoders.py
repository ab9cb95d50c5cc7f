"""Words of items -> numbers. Each function sees only the rows that it is fitted on.

No file is read here and no item is aligned here.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.preprocessing import MultiLabelBinarizer
from sklearn.utils.extmath import randomized_svd

Rows = Sequence[Sequence[str]]


def encode_text(who: str, texts: Sequence[str], dim: int) -> np.ndarray:
    """TF-IDF followed by a truncated SVD; the same texts always give the same matrix.

    A text without any word (only punctuation) gets a zero vector, and a log line counts it. A
    vocabulary of ``dim`` words or fewer needs no SVD: the TF-IDF weights are returned.

    Args:
        who: first word of messages.
        texts: the texts to fit and to encode.
        dim: the wanted number of features; a log line tells if the data allow fewer.

    Returns:
        Float32 ``(len(texts), at most dim)``.

    Raises:
        ValueError: if no text holds a word.
    """
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
    allowed = min(dim, *weights.shape)
    if allowed < dim:
        logging.getLogger().warning(
            f"{who}: {dim} features are wished for, {len(texts):,} texts with "
            f"{weights.shape[1]:,} words allow {allowed} features; {allowed} are used."
        )
    if allowed == weights.shape[1]:
        return weights.toarray().astype(np.float32)
    left, scales, _ = randomized_svd(weights, n_components=allowed, random_state=0)
    return (left * scales).astype(np.float32)


def encode_tags(who: str, columns: Sequence[str], rows: Rows, separator: str) -> np.ndarray:
    """Multi-hot vectors of the words in ``rows``; a word in two columns is two features.

    Args:
        who: first word of messages.
        columns: names of the columns.
        rows: one row of cells per item, a cell per column.
        separator: what stands between two words of a cell.

    Returns:
        Float32 zeros and ones ``(len(rows), n_words)``, columns and words in sorted order.

    Raises:
        ValueError: if no cell holds a word.
    """
    words = [
        {
            f"{column}:{word}"
            for column, cell in zip(columns, row)
            for word in split(cell, separator)
        }
        for row in rows
    ]
    if not any(words):
        raise ValueError(
            f"{who}: the columns must hold words, got none in {len(rows):,} observed items; "
            "choose other columns."
        )
    return MultiLabelBinarizer().fit_transform(words).astype(np.float32)


def split(cell: str, separator: str) -> list[str]:
    """Return the words of a cell, without blanks."""
    return [word for word in cell.split(separator) if word.strip()]
