"""A description as sections of tables and sentences, which the text and the page show alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from recbole_missing.describe.advice import CARRIES, CLEAR
from recbole_missing.describe.content import COLD_SHARE, FEWEST_COLD, FEWEST_PAIRS, NEIGHBOURS, K
from recbole_missing.describe.description import (
    ITEM_KNN,
    POPULARITY,
    Content,
    Description,
    Estimate,
    HeldOut,
    Restored,
    Tail,
)
from recbole_missing.describe.imputers import FEWEST_ROWS, HIDDEN
from recbole_missing.tables import ABSENT, Table

_MOST_OVERLAPS = 16


@dataclass(frozen=True)
class Block:
    """A table with a sentence or two.

    Args:
        table: None if the sentences stand alone.
        caption: the sentences.
        figure: name of the plot that shows the same, see :mod:`.figures`; empty if there is none.
    """

    table: Table | None
    caption: str
    figure: str = ""


@dataclass(frozen=True)
class Section:
    """A heading and its blocks."""

    title: str
    blocks: Sequence[Block]


def sections(found: Description) -> list[Section]:
    """All sections but the advice, in order; those of modalities only if there are any."""
    size = Section("The data", [Block(None, _size(found)), _tails(found)])
    if not found.missing.holes:
        return [size, Section("Baselines", _held_out(found))] if found.baselines else [size]
    return [
        size,
        Section("Who lacks what", [_missing(found), _by_popularity(found), _overlaps(found)]),
        Section(
            "Does content follow consumption?", [_pairs(found), *_held_out(found), _cold(found)]
        ),
        Section("Homophily", [_homophily(found)]),
        Section("Which imputer restores a hidden tenth best?", _imputers(found)),
    ]


def rules() -> str:
    """How the advice follows from the numbers."""
    return (
        "Rules: two numbers differ if more than two standard errors lie between them. A modality "
        f"carries ({' or '.join(CARRIES)}) if recommending by it is better than chance and not "
        "worse than popularity, where the difference is taken on the same interactions, or if "
        f"hidden items are ranked with an AUC above {CLEAR:g}."
    )


def _size(found: Description) -> str:
    data = found.data
    rows = ", ".join(f"{count:,} {split}" for split, count in data.interactions.items())
    period = "" if data.period is None else f" Training runs from {' to '.join(data.period)}."
    new = f" {data.new_items:,} items are new: their training interactions were moved to the test."
    return (
        f"{data.users:,} users and {data.items:,} items. Interactions: {rows}; density "
        f"{data.density:.3g}%.{period}{new if data.new_items else ''}"
    )


def _tails(found: Description) -> Block:
    sides = {"items": found.data.items_tail, "users": found.data.users_tail}
    heads = ["", "top 1%", "top 5%", "top 20%", "median", "Gini", "fewer\nthan 5", "none"]
    rows = [[name, *_tail(tail)] for name, tail in sides.items()]
    caption = (
        "Share of the training interactions that fall on the most active items and users. The top "
        f"20% of the items have {found.data.items_tail.top['20']:.0%} of them."
    )
    return Block(Table.of_rows(heads, rows), caption, "tails")


def _tail(tail: Tail) -> list[str]:
    shares = [f"{share:.1%}" for share in tail.top.values()]
    return [*shares, f"{tail.median:g}", f"{tail.gini:.3f}", f"{tail.few:,}", f"{tail.none:,}"]


def _missing(found: Description) -> Block:
    heads = ["modality", "dim", "has", "share", "lacks", "hidden", "norm", "zeros", "repeated"]
    rows = []
    for name, one in found.missing.holes.items():
        counts = [f"{number:,}" for number in (one.lacks, one.hidden)]
        sizes = [f"{one.norm:.3g}", f"{one.zeros:,}", f"{one.repeated:,}"]
        share = f"{one.has / found.data.items:.1%}"
        rows.append([name, f"{one.dim:,}", f"{one.has:,}", share, *counts, *sizes])
    caption = (
        f"lacks: by nature. hidden: by the mask ({found.data.mask}). norm: median L2 norm of a "
        "row. zeros: rows of zeros. repeated: rows that equal an earlier one, as imputed rows do."
    )
    return Block(Table.of_rows(heads, rows), caption)


def _by_popularity(found: Description) -> Block:
    rows = [
        [name, *(f"{share:.1%}" for share in one.by_popularity)]
        for name, one in found.missing.holes.items()
    ]
    caption = (
        f"Share of the items that lack it, in {len(found.missing.groups)} groups of equally many "
        "items by their number of training interactions. A number that two groups share is cut "
        "by the order of the item tokens."
    )
    return Block(Table.of_rows(["lacking", *ranges(found)], rows), caption, "holes")


def ranges(found: Description) -> list[str]:
    """Groups of items by popularity, such as ``5-7``."""
    return [f"{low}-{high}" if low != high else f"{low}" for low, high in found.missing.groups]


def _overlaps(found: Description) -> Block:
    counts = list(found.missing.overlaps.items())
    rows = [[name, f"{n:,}", f"{n / found.data.items:.1%}"] for name, n in counts[:_MOST_OVERLAPS]]
    left = len(counts) - _MOST_OVERLAPS
    caption = "Which modalities items have at the same time."
    caption += f" {left} rarer combinations are left out." if left > 0 else ""
    return Block(Table.of_rows(["items that have", "items", "share"], rows), caption, "overlaps")


def _pairs(found: Description) -> Block:
    rows = []
    for name, one in found.content.items():
        near = one.pairs
        cells = [f"fewer than {FEWEST_PAIRS} pairs", "", ""]
        if near is not None:
            cells = [_estimate(value, 3) for value in (near.auc, near.co_consumed, near.random)]
        rows.append([name, *cells])
    caption = (
        f"Cosine of the centred rows of each item and its {K} most co-consumed items, against "
        "random pairs. AUC: how often a co-consumed pair is nearer; 0.5 if content knows nothing."
    )
    heads = ["cosine of pairs", "AUC", "co-consumed", "random"]
    return Block(Table.of_rows(heads, rows), caption, "pairs")


def _held_out(found: Description) -> list[Block]:
    if not found.baselines:
        return [Block(None, "No interaction is held out, so that no list can be judged.")]
    chance = next(iter(found.baselines.values())).chance
    rows = [["chance", f"{chance:.4f}", "", "", ""]]
    rows += [_recall_row(name, one) for name, one in found.baselines.items()]
    rows += [
        _recall_row(f"content: {name}", one.held_out)
        for name, one in found.content.items()
        if one.held_out is not None
    ]
    ranked, users = found.held_out_users
    of = "" if ranked == users else f" of {users:,}"
    content = (
        f"Content: each training item of a user votes for its {NEIGHBOURS} nearest items. "
        "ItemKNN sees consumption alone. "
    )
    caption = (
        f"Held out: the validation interactions of {ranked:,}{of} users, not the test split. "
        f"Recall@{K}: share of these interactions that a list finds; it is not RecBole's mean over "
        f"users. {content if found.content else ''}±: standard error over users."
    )
    heads = [f"Recall@{K}", "all", "items that have it", "minus popularity", "minus ItemKNN"]
    return [Block(Table.of_rows(heads, rows), caption, "recall")]


def _recall_row(name: str, one: HeldOut) -> list[str]:
    with_modality = "" if one.with_modality is None else _estimate(one.with_modality)
    beyond = {POPULARITY: one.beyond_popularity, ITEM_KNN: one.beyond_item_knn}
    cells = ["" if name == other else _estimate(value) for other, value in beyond.items()]
    return [name, _estimate(one.recall), with_modality, *cells]


def _cold(found: Description) -> Block:
    rows = [_cold_row(name, one) for name, one in found.content.items()]
    heads = ["hidden items", "items", "users", "AUC", f"Recall@{K}", "chance"]
    few = (
        f" Too few: a modality needs {FEWEST_COLD / COLD_SHARE:.0f} items or more that have it and "
        f"a training interaction, of which {FEWEST_COLD} are hidden."
    )
    caption = (
        f"{COLD_SHARE:.0%} of the items with the modality lose all training interactions and are "
        "ranked among themselves; popularity cannot help. AUC: how often an item of the user comes "
        "before another hidden item. Means over users; ±: standard error over users and items."
    )
    caption += few if any(one.cold is None for one in found.content.values()) else ""
    return Block(Table.of_rows(heads, rows), caption, "cold")


def _cold_row(name: str, one: Content) -> list[str]:
    cold = one.cold
    if cold is None:
        return [name, "too few", "", "", "", ""]
    counts = [f"{cold.items:,}", f"{cold.users:,}"]
    return [name, *counts, _estimate(cold.auc, 3), _estimate(cold.recall), f"{cold.chance:.4f}"]


def _homophily(found: Description) -> Block:
    rows = [
        [name, ABSENT if one.homophily is None else f"{one.homophily:.3f}"]
        for name, one in found.content.items()
    ]
    caption = (
        f"Correlation of the centred rows of an item and its {K} most co-consumed items: 0 as for "
        "random pairs, 1 if they are the same. Graph methods such as featprop need it."
    )
    return Block(Table.of_rows(["modality", "homophily"], rows), caption)


def _imputers(found: Description) -> list[Block]:
    blocks = []
    for name in found.missing.holes:
        ranked = found.imputers.get(name)
        if ranked is None:
            few = f"{name}: fewer than {FEWEST_ROWS} items have it, too few to hide some."
            blocks.append(Block(None, few))
            continue
        rows = [_restored_row(word, one) for word, one in ranked.items()]
        heads = [name, "cosine", "MSE", "behind the best"]
        blocks.append(Block(Table.of_rows(heads, rows), _winner(found, name)))
    note = (
        f"{HIDDEN:g}% of the rows of each modality hidden, completed and compared with the truth. "
        "MSE of features divided by their standard deviation, about 1 for the mean row. ±: "
        "standard error over rows, paired for the difference in cosine. Rows that share a large "
        "mean have a high cosine with it: compare with the imputer mean."
    )
    if found.scaled:
        note += (
            f" Scaled by `standard` first, as the advised lines set it: {', '.join(found.scaled)}."
        )
    return [*blocks, Block(None, note, "imputers")]


def _restored_row(word: str, one: Restored) -> list[str]:
    if one.cosine is None or one.mse is None:
        return [word, "failed", "", one.failure or ""]
    behind = "" if one.behind is None else _estimate(one.behind)
    return [word, _estimate(one.cosine), f"{one.mse.value:.4g}", behind]


def _winner(found: Description, name: str) -> str:
    words = found.best[name]
    if not words:
        return f"No imputer could restore rows of {name}."
    first, *others = words
    if not others:
        return (
            f"By cosine, {first} restores {name} best; every other one is more than two errors "
            "behind."
        )
    return f"By cosine, {first} leads on {name}; not told apart from it: {', '.join(others)}."


def _estimate(value: Estimate, digits: int = 4) -> str:
    """A value with its standard error, such as ``0.2142 ± 0.0031``."""
    spread = "" if value.error is None else f" ± {value.error:.{digits}f}"
    return f"{value.value:.{digits}f}{spread}"
