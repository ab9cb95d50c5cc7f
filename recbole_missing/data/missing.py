"""Masks of missing modalities: drawn by a published protocol, or read from a file.

Functions take and return numpy arrays over RecBole's item ids. Row 0 is the padding item, which is
neither missing nor new. A mask depends only on the training split and on ``missing_seed``.

Sources: ``random_items`` is from Malitesta et al., "Do We Really Need to Drop Items with Missing
Modalities in Multimodal Recommendation?" (CIKM 2024) and its TKDE follow-up. ``stratified`` and
the new items are from DGMRec, "Disentangling and Generating Modalities for Recommendation in
Missing Modality Scenarios" (SIGIR 2025).
"""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from logging import getLogger
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recbole_missing.atomic import whole_file
from recbole_missing.config.constraints import (
    Choice,
    Float,
    Int,
    ListOf,
    Optional,
    Text,
    check,
    unknown,
)
from recbole_missing.data.files import read_ids, read_rows, write_rows
from recbole_missing.identity import digest

BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]

HEADER = "item_id:token\tmissing:token_seq"
_WRITTEN_FOR = "# written for"
MAX_STRATIFIED_MODALITIES = 16

MISSING_SETTINGS: dict[str, Any] = {
    "missing_protocol": Choice("none", "random_items", "stratified", "file"),
    "missing_ratio": Float(0, 1),
    "missing_seed": Int(min=0),
    "missing_stream": Optional(ListOf(Float(0, 100))),
    "missing_modalities": Optional(ListOf(Text())),
    "missing_file": Optional(Text()),
    "new_items": Choice("none", "stratified", "file"),
    "new_item_ratio": Float(0, 1),
    "new_items_file": Optional(Text()),
}

# Setting -> (other setting, value): the first is read only if the other has this value.
_READ_BY = {
    "missing_stream": ("missing_protocol", "random_items"),
    "missing_modalities": ("missing_protocol", "random_items"),
    "missing_file": ("missing_protocol", "file"),
}


def draw(
    settings: Mapping[str, Any],
    tokens: Sequence[str],
    names: Sequence[str],
    train_counts: IntArray,
    folder: Path | str,
    dataset: str | None = None,
) -> tuple[BoolArray, BoolArray]:
    """Decide which item lacks which modality and which items are new.

    Args:
        settings: anything with the keys of ``MISSING_SETTINGS``.
        tokens: item tokens by item id; ``tokens[0]`` is the padding.
        names: names of the modalities, in order.
        train_counts: number of training interactions of each item, shape ``(n_items,)``.
        folder: the folder that ``missing_file`` and ``new_items_file`` are relative to.
        dataset: name of the data set; None if it has none.

    Returns:
        ``missing``, bool ``(n_items, n_modalities)``, and ``new``, bool ``(n_items,)``. Items are
        drawn in the order of their tokens. Items of the training split are drawn first, and
        separately from the others.

    Raises:
        ValueError: if a setting breaks its constraint, the settings name two sources of one mask,
            or a file does not fit the data set.
    """
    check("missing", settings, MISSING_SETTINGS)
    _check_one_source(settings)
    if np.shape(train_counts) != (len(tokens),):
        raise ValueError(
            f"missing: train_counts must have shape ({len(tokens)},), one count an item, "
            f"got {np.shape(train_counts)}."
        )
    folder = Path(folder)
    missing = np.zeros((len(tokens), len(names)), dtype=bool)
    new = np.zeros(len(tokens), dtype=bool)
    for seed, items in _populations(tokens, train_counts, settings["missing_seed"]):
        counts = np.concatenate([[0], train_counts[items]])  # row 0 stands for the padding
        drawn, drawn_new = _draw(settings, names, counts, seed)
        missing[items] = drawn[1:]
        new[items] = drawn_new[1:] & (counts[1:] > 0)
    if settings["missing_protocol"] == "file" and names:
        missing = read_missing_file(folder / settings["missing_file"], tokens, names, dataset)
    if settings["new_items"] == "file":
        new = read_token_file(folder / settings["new_items_file"], tokens)
    return missing, new


def random_items(
    n_items: int,
    n_modalities: int,
    ratio: float,
    seed: int,
    stream: Sequence[float] | None = None,
) -> BoolArray:
    """Draw ``int(p / 100 * n)`` of the n real items without replacement. They lack everything.

    The published masks of one repeat come from one generator. It draws one sample for each
    percentage p of ``stream``, in order. So the mask of 30 % depends on the draw of 10 % before it.
    Masks of different percentages are not nested. The published values are ``seed = 42 + repeat``
    and ``stream`` 10, 20, ..., 90 (CIKM) or 10, 30, ..., 90 (TKDE).

    Args:
        n_items: number of items, the padding item included.
        n_modalities: number of columns.
        ratio: the wanted percentage of the stream, as a ratio.
        seed: seed of the stream.
        stream: percentages in the order in which they are drawn; None means ``[100 * ratio]``.

    Returns:
        Bool ``(n_items, n_modalities)``, True where missing.

    Raises:
        ValueError: if ``ratio`` is not within 0 and 1 or not in ``stream``.
    """
    check("random_items", {"missing_ratio": ratio}, {"missing_ratio": Float(0, 1)})
    # 100 * 0.29 is not 29. With the rounding, a ratio equals a stream of one percentage.
    wanted = round(100 * ratio, 9)
    generator = random.Random(seed)
    for percentage in [wanted] if stream is None else stream:
        drawn = generator.sample(range(n_items - 1), int(percentage / 100 * (n_items - 1)))
        if math.isclose(percentage, wanted, abs_tol=1e-9):
            missing = np.zeros((n_items, n_modalities), dtype=bool)
            missing[np.array(drawn, dtype=np.int64) + 1] = True
            return missing
    raise ValueError(
        f"random_items: missing_ratio must be a percentage of missing_stream divided by 100, "
        f"got {ratio} with missing_stream {list(stream or ())}; add {wanted:g} to it."
    )


def stratified(
    train_counts: IntArray, n_modalities: int, ratio: float, seed: int, new_ratio: float = 0.2
) -> tuple[BoolArray, BoolArray]:
    """Hide modalities of the same share of items in four groups: new or old, cold or warm.

    Items are sorted by training count (ties by id). The lower 70 % are cold, the others are warm.
    ``new_ratio`` of the cold and of the warm items are new. This makes four groups. ``ratio`` of
    each group lack something.

    With M modalities, 1/M of the lacking items lack all of them. The others are divided equally
    among the ``2**M - 2`` proper non-empty subsets of modalities. For M = 2 the shares are a
    quarter, a quarter and a half; for M = 3 they are six ninths and a third; for M = 1 all items
    lack the one modality. New items are drawn even if the caller ignores them, so that the mask is
    the same with and without new items.

    Args:
        train_counts: number of training interactions of each item, shape ``(n_items,)``; row 0
            is ignored.
        n_modalities: M, at most 16.
        ratio: share of items that lack something.
        seed: seed of the draw.
        new_ratio: share of items that are new.

    Returns:
        ``missing``, bool ``(n_items, M)``, and ``new``, bool ``(n_items,)``.

    Raises:
        ValueError: if a ratio is not within 0 and 1 or M is out of range.
    """
    ratios = {"missing_ratio": ratio, "new_item_ratio": new_ratio}
    check("stratified", ratios, dict.fromkeys(ratios, Float(0, 1)))
    if not 1 <= n_modalities <= MAX_STRATIFIED_MODALITIES:
        raise ValueError(
            f"stratified: modalities must be between 1 and {MAX_STRATIFIED_MODALITIES}, "
            f"got {n_modalities}; use missing_protocol random_items or file."
        )
    missing = np.zeros((len(train_counts), n_modalities), dtype=bool)
    new = np.zeros(len(train_counts), dtype=bool)
    for new_items, old_items in _strata(train_counts, seed, new_ratio):
        new[new_items] = True
        for group in (new_items, old_items):
            # A group is already in random order, so its first items are a random sample.
            lacking = group[: _share(ratio, len(group))]
            missing[lacking] = _patterns(len(lacking), n_modalities)
    return missing, new


def read_missing_file(
    path: Path | str, tokens: Sequence[str], names: Sequence[str], dataset: str | None = None
) -> BoolArray:
    """Read a mask from a file.

    The file is tab separated, and quotes are read as in an atomic file. The header is
    ``item_id:token``, ``missing:token_seq``. Each further line is an item that lacks something: its
    token, and the names of the modalities that it lacks, separated by single spaces. Modalities
    that a run does not use are ignored with a warning, so one file serves every choice of
    modalities.

    A line before the header may say which data set the mask was written for
    (:func:`write_missing_file`). A mask of another one is refused, as its tokens mean other items.

    Args:
        path: the file.
        tokens: item tokens by item id; ``tokens[0]`` is the padding.
        names: names of the modalities, in order.
        dataset: name of the data set; None if it has none.

    Returns:
        Bool ``(n_items, n_modalities)``, True where missing.

    Raises:
        ValueError: if the file is absent or ill-formed, repeats an item, names an item that the
            data set does not have, names none of the modalities, or was written for a data set of
            another name and with other items.
    """
    path = Path(path)
    lines = read_rows(path, "\t")
    if lines and lines[0][1][0] == _WRITTEN_FOR:
        _check_written_for(path, lines.pop(0)[1], tokens, dataset)
    first = "\t".join(lines[0][1]) if lines else ""
    if first != HEADER:
        raise ValueError(
            f"{path}: the first line must be {HEADER!r}, got {first!r}; "
            f"write the file with write_missing_file."
        )
    rows = [_missing_line(path, number, cells) for number, cells in lines[1:]]
    if not rows:
        getLogger().warning(f"{path}: names no item, so it hides nothing.")
    _check_names(path, {name for _, lacks in rows for name in lacks}, names)
    missing = np.zeros((len(tokens), len(names)), dtype=bool)
    for item, (_, lacks) in zip(_item_ids(path, [token for token, _ in rows], tokens), rows):
        missing[item] = [name in lacks for name in names]
    return missing


def write_missing_file(
    path: Path | str,
    missing: Mapping[str, Sequence[str]],
    dataset: str | None = None,
    items: Sequence[str] | None = None,
) -> None:
    """Write ``item token -> names of the modalities it lacks`` for :func:`read_missing_file`.

    Args:
        path: the file.
        missing: item token -> names of the modalities that it lacks.
        dataset: name of the data set that the mask belongs to. With ``items``, the file begins with
            a line that says so, and a run on another data set refuses the mask.
        items: tokens of all items of the data set.

    Raises:
        ValueError: if an item token or a modality name contains a separator of the file.
    """
    for name in {name for lacks in missing.values() for name in lacks}:
        if not name.isidentifier():
            raise ValueError(f"{path}: a modality name must be an identifier, got {name!r}.")
    _check_tokens(path, missing)
    rows = [[token, " ".join(lacks)] for token, lacks in missing.items() if lacks]
    head = []
    if dataset is not None and items is not None:
        head = [[_WRITTEN_FOR, dataset, str(len(items)), _catalogue(items)]]
    with whole_file(Path(path)) as temporary:
        write_rows(temporary, [*head, HEADER.split("\t"), *rows])


def read_token_file(path: Path | str, tokens: Sequence[str]) -> BoolArray:
    """Read a set of items from a file with one item token on each line.

    Args:
        path: the file.
        tokens: item tokens by item id; ``tokens[0]`` is the padding.

    Returns:
        Bool ``(n_items,)``, True for the items of the file.

    Raises:
        ValueError: if the file is absent or ill-formed, repeats an item, or names an item that
            the data set does not have.
    """
    path = Path(path)
    selected = np.zeros(len(tokens), dtype=bool)
    selected[_item_ids(path, read_ids(path), tokens)] = True
    return selected


def write_token_file(path: Path | str, tokens: Sequence[str]) -> None:
    """Write item tokens, one on each line, for :func:`read_token_file`.

    Raises:
        ValueError: if a token is empty or contains a tab or a line break.
    """
    _check_tokens(path, tokens)
    with whole_file(Path(path)) as temporary:
        write_rows(temporary, ([token] for token in tokens))


def _check_one_source(settings: Mapping[str, Any]) -> None:
    for key, (choice, value) in _READ_BY.items():
        if settings[key] is not None and settings[choice] != value:
            raise ValueError(
                f"missing: {key} must be empty unless {choice} is {value}, got {settings[key]!r} "
                f"with {choice} {settings[choice]}; empty one of the two (--{key}=None)."
            )
    for choice, key in (("missing_protocol", "missing_file"), ("new_items", "new_items_file")):
        if settings[choice] == "file" and settings[key] is None:
            raise ValueError(f"missing: {key} must name a file when {choice} is file, got nothing.")


def _populations(
    tokens: Sequence[str], train_counts: IntArray, seed: int
) -> list[tuple[int, IntArray]]:
    """Two groups of items that are drawn separately: a seed and item ids for each.

    The first group has the items of the training split. The second has the items that occur only
    in validation and test. Ids are in the order of their tokens. So the draw of the first group
    depends neither on RecBole's numbering nor on the second group.
    """
    items = np.arange(1, len(tokens))
    words = [str(token) for token in tokens[1:]]
    numeric = all(re.fullmatch("-?[0-9]+", word) for word in words)
    ranked = sorted(zip(map(int, words) if numeric else words, items))
    items = np.array([item for _, item in ranked], dtype=np.int64)
    trained = train_counts[items] > 0
    return [(seed, items[trained]), (seed + 2**32, items[~trained])]


def _draw(
    settings: Mapping[str, Any], names: Sequence[str], counts: IntArray, seed: int
) -> tuple[BoolArray, BoolArray]:
    """Mask and new items of one group; the first row is the padding."""
    missing = np.zeros((len(counts), len(names)), dtype=bool)
    new = np.zeros(len(counts), dtype=bool)
    ratio = settings["missing_ratio"]
    if settings["missing_protocol"] == "random_items" and names:
        stream = settings["missing_stream"]
        missing = random_items(len(counts), len(names), ratio, seed, stream)
        missing &= _columns(settings["missing_modalities"], names)
    if settings["missing_protocol"] == "stratified" and names:
        missing = stratified(counts, len(names), ratio, seed, settings["new_item_ratio"])[0]
    if settings["new_items"] == "stratified":
        chosen = _strata(counts, seed, settings["new_item_ratio"])
        new[np.concatenate([new_items for new_items, _ in chosen])] = True
    return missing, new


def _columns(wanted: Sequence[str] | None, names: Sequence[str]) -> BoolArray:
    """Bool ``(n_modalities,)``: True for the modalities that the drawn items lose."""
    if wanted is None:
        return np.ones(len(names), dtype=bool)
    if not wanted:
        raise ValueError("missing: missing_modalities must name a modality, got []; add one.")
    for word in wanted:
        if word not in names:
            raise ValueError("missing_modalities: " + unknown("modality", word, names))
    return np.array([name in wanted for name in names])


def _strata(train_counts: IntArray, seed: int, new_ratio: float) -> list[tuple[IntArray, IntArray]]:
    """``(new, old)`` item ids, in random order, of the cold and then of the warm items."""
    generator = np.random.default_rng(seed)
    by_count = np.argsort(np.asarray(train_counts)[1:], kind="stable") + 1
    n_cold = len(by_count) * 7 // 10
    strata = []
    for items in (by_count[:n_cold], by_count[n_cold:]):
        shuffled = generator.permutation(items)
        n_new = _share(new_ratio, len(items))
        strata.append((shuffled[:n_new], shuffled[n_new:]))
    return strata


def _share(ratio: float, n: int) -> int:
    """``int(ratio * n)``, also if rounding makes the product slightly smaller than an integer."""
    return int(ratio * n + 1e-9)


def _patterns(n: int, n_modalities: int) -> BoolArray:
    """Which modalities each of n items lacks, shape ``(n, n_modalities)``.

    An item has a code, in which bit m stands for modality m. The first ``(M - 1) / M * n`` items
    are divided into runs of equal length, one for each proper subset (codes 1 to ``2**M - 2``). The
    other items lack all modalities.
    """
    n_proper = 2**n_modalities - 2
    ends = np.arange(1, n_proper + 1) * n * (n_modalities - 1) // (n_modalities * max(n_proper, 1))
    codes = np.searchsorted(ends, np.arange(n), side="right") + 1
    return (codes[:, None] >> np.arange(n_modalities)) % 2 == 1


def _catalogue(items: Sequence[str]) -> str:
    return digest(sorted(map(str, items)))


def _check_written_for(
    path: Path, cells: Sequence[str], tokens: Sequence[str], dataset: str | None
) -> None:
    if len(cells) != 4 or not cells[2].isdigit():
        raise ValueError(
            f"{path}: line 1 must name a data set, its number of items and their digest, got "
            f"{cells}; remove the line."
        )
    _, name, count, items = cells
    other = [] if dataset in (None, name) else [f"name {dataset!r}"]
    other += [] if items == _catalogue(tokens[1:]) else [f"{len(tokens) - 1} items"]
    if not other:
        return
    who = f"{path}: was written for data set {name!r} with {count} items, got "
    if other[0].startswith("name") or len(tokens) - 1 >= int(count):
        raise ValueError(
            f"{who}{' and '.join(other)}; write a mask for this data set, or remove line 1 if its "
            "tokens mean the same items."
        )
    # Filters leave items out. The tokens of the mask are checked one by one.
    getLogger().warning(f"{who}{other[0]}; filters may have left out the others.")


def _missing_line(path: Path, number: int, cells: list[str]) -> tuple[str, list[str]]:
    """Item token and modality names of one line of a missing file."""
    line = "\t".join(cells)
    if len(cells) != 2 or not all([cells[0], *cells[1].split(" ")]):
        raise ValueError(
            f"{path}: line {number} must be an item token, a tab and the modalities that the item "
            f"lacks, got {line!r}; leave out items that lack nothing."
        )
    lacks = cells[1].split(" ")
    if len(set(lacks)) != len(lacks):
        raise ValueError(f"{path}: line {number} must name a modality once, got {line!r}; fix it.")
    return cells[0], lacks


def _check_names(path: Path, found: set[str], names: Sequence[str]) -> None:
    unused = sorted(found.difference(names))
    if unused and len(unused) == len(found):
        raise ValueError(f"{path}: " + unknown("modality", unused[0], names))
    if unused:
        getLogger().warning(f"{path}: names {unused}, which are not in `modalities`; ignored.")


def _item_ids(path: Path, found: Sequence[str], tokens: Sequence[str]) -> IntArray:
    """Item id of each token in ``found``; the padding is not an item."""
    ids = {token: item for item, token in enumerate(tokens) if item > 0}
    strangers = [token for token in found if token not in ids]
    if strangers:
        raise ValueError(
            f"{path}: items must be in the data set, got {len(strangers)} of {len(found)} unknown "
            f"tokens such as {strangers[:5]}, the data set has {str(tokens[1])!r}; write the file "
            "for this data set."
        )
    repeated = [token for token, count in Counter(found).items() if count > 1]
    if repeated:
        raise ValueError(
            f"{path}: an item must have one line, got several for {repeated[:5]}; merge them."
        )
    return np.array([ids[token] for token in found], dtype=np.int64)


def _check_tokens(path: Path | str, tokens: Iterable[str]) -> None:
    for token in tokens:
        if not token or any(mark in token for mark in "\t\n\r"):
            raise ValueError(
                f"{path}: an item token must be text without tab or line break, got {token!r}."
            )
