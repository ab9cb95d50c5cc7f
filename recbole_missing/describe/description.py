"""What :func:`recbole_missing.describe.describe` returns: plain values that two writers show.

No value here depends on the test split, except the number of its interactions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

SCHEMA = 1
"""Version of the JSON that :meth:`Description.to_json` writes."""

TOGETHER = "all modalities"
"""Name of the concatenation of all modalities among the contents."""

POPULARITY, ITEM_KNN = "popularity", "ItemKNN"
"""Names of the baselines."""


@dataclass(frozen=True)
class Estimate:
    """A mean with its standard error.

    Args:
        value: the mean.
        error: standard error; None if there is too little to estimate it.
        n: number of values behind the mean.
    """

    value: float
    error: float | None
    n: int

    def above(self, bound: float) -> bool:
        """Tell whether the value is more than two standard errors above ``bound``."""
        return self.error is not None and self.value - 2 * self.error > bound

    def below(self, bound: float) -> bool:
        """Tell whether the value is more than two standard errors below ``bound``."""
        return self.error is not None and self.value + 2 * self.error < bound


@dataclass(frozen=True)
class Tail:
    """How training interactions are spread over items, or over users.

    Args:
        n: number of items or users, those without an interaction among them.
        top: percentage -> share of the interactions that fall on so many of the most active ones.
        median: median number of interactions.
        gini: Gini coefficient: 0 if all have the same number, near 1 if one has everything.
        few: how many have fewer than 5 interactions, those without any among them.
        none: how many have no interaction.
        curve: share of the interactions that fall on the most active 0, 1, ..., 100 %.
    """

    n: int
    top: Mapping[str, float]
    median: float
    gini: float
    few: int
    none: int
    curve: Sequence[float]


@dataclass(frozen=True)
class Data:
    """Size of the data set.

    Args:
        users, items: numbers.
        interactions: number of interactions of the ``training``, ``validation`` and ``test`` split.
        density: share of the pairs of user and item that have an interaction, in percent.
        period: first and last day of the training interactions, as ISO dates; None without times.
        new_items: number of items whose training interactions were moved to the test split.
        items_tail, users_tail: see :class:`Tail`.
        mask: what hides modalities, such as ``none`` or a file.
    """

    users: int
    items: int
    interactions: Mapping[str, int]
    density: float
    period: tuple[str, str] | None
    new_items: int
    items_tail: Tail
    users_tail: Tail
    mask: str


@dataclass(frozen=True)
class Holes:
    """Who lacks one modality, and what its rows look like.

    Args:
        dim: number of features.
        has: number of items that have it.
        lacks: number of items that lack it by nature.
        hidden: number of items more from which the mask hides it.
        norm: median L2 norm of the rows.
        zeros: number of items that have it with a row of zeros.
        repeated: number of items whose row equals that of an item before it.
        by_popularity: share of items that lack it, real holes and hidden ones, for each of
            :attr:`Missing.groups`.
        hidden_by_popularity: the part of these shares that the mask hides.
    """

    dim: int
    has: int
    lacks: int
    hidden: int
    norm: float
    zeros: int
    repeated: int
    by_popularity: Sequence[float]
    hidden_by_popularity: Sequence[float]


@dataclass(frozen=True)
class Missing:
    """Who lacks what.

    Args:
        holes: modality -> :class:`Holes`.
        groups: items in groups of equal size by number of training interactions, the least popular
            first: smallest and largest number of interactions of each group.
        group_items: number of items of each group.
        overlaps: modalities that an item has, joined by `` + `` (``none`` without any) -> number of
            items, the largest first.
    """

    holes: Mapping[str, Holes]
    groups: Sequence[tuple[int, int]]
    group_items: Sequence[int]
    overlaps: Mapping[str, int]


@dataclass(frozen=True)
class Pairs:
    """Cosines of items that the same users consumed, against random pairs of items.

    Args:
        co_consumed, random: mean cosine of the centred rows.
        auc: probability that a co-consumed pair is nearer than a random one, ties as one half.
        bins: edges of a histogram of cosines.
        co_consumed_bins, random_bins: share of the pairs in each bin.
    """

    co_consumed: Estimate
    random: Estimate
    auc: Estimate
    bins: Sequence[float]
    co_consumed_bins: Sequence[float]
    random_bins: Sequence[float]


@dataclass(frozen=True)
class HeldOut:
    """Recall@20 on validation interactions: the share of them that a list finds.

    Args:
        recall: over all of them.
        with_modality: over those whose item has the modality.
        chance: Recall@20 of random lists, over all of them.
        beyond_chance: ``recall`` minus ``chance``.
        beyond_popularity, beyond_item_knn: ``recall`` minus that of popularity and of ItemKNN, on
            the same interactions.
    """

    recall: Estimate
    with_modality: Estimate | None
    chance: float
    beyond_chance: Estimate
    beyond_popularity: Estimate
    beyond_item_knn: Estimate


@dataclass(frozen=True)
class Cold:
    """Ranking of items that lost all their training interactions, among themselves; user means.

    Args:
        items, users: numbers of hidden items, and of users who had one of them.
        auc: probability that a hidden item of the user comes before another hidden item.
        recall: Recall@20.
        chance: Recall@20 of random lists.
        beyond_chance: ``recall`` minus ``chance``.
    """

    items: int
    users: int
    auc: Estimate
    recall: Estimate
    chance: float
    beyond_chance: Estimate


@dataclass(frozen=True)
class Content:
    """Whether one modality, or all of them side by side, follows consumption.

    Args:
        pairs: None if too few co-consumed pairs have it.
        held_out: None if there is no held-out interaction.
        cold: None if too few items have it.
        homophily: correlation of the centred rows at both ends of an edge of the item graph; None
            if no edge joins two items that have it.
        level: ``much``, ``some``, ``little``, ``nothing`` or ``unknown``, see :mod:`.advice`.
    """

    pairs: Pairs | None
    held_out: HeldOut | None
    cold: Cold | None
    homophily: float | None
    level: str = "unknown"


@dataclass(frozen=True)
class Restored:
    """How well one imputer restores hidden rows of one modality.

    Args:
        rows: number of hidden rows.
        cosine, mse: means; ``mse`` is of features divided by their standard deviation.
        behind: cosine of the best imputer minus that of this one, paired over the rows.
        failure: message if the imputer failed.
    """

    rows: int
    cosine: Estimate | None
    mse: Estimate | None
    behind: Estimate | None = None
    failure: str | None = None


@dataclass(frozen=True)
class Advice:
    """What follows from the measurements.

    Args:
        sentences: in words.
        models: models that are worth trying first, in this order.
        imputer: word of the setting ``imputation``; None if nothing lacks or nothing carries.
        yaml: lines for a config file.
    """

    sentences: Sequence[str]
    models: Sequence[str]
    imputer: str | None
    yaml: Sequence[str]


@dataclass(frozen=True)
class Description:
    """A first look at a data set.

    Args:
        name: of the data set.
        seed: of every draw.
        data, missing: see the classes.
        baselines: Recall@20 of ``popularity`` and ``ItemKNN`` on validation interactions.
        held_out_users: users whose validation interactions were ranked, of so many.
        content: modality -> :class:`Content`; :data:`TOGETHER` comes last if there are several.
        scaled: modalities that are scaled by ``standard`` before imputers are compared, because
            the advice sets it.
        imputers: modality -> word of the setting ``imputation`` -> :class:`Restored`, the best
            first.
        best: modality -> imputers that cannot be told apart from the best one, it first.
        advice: see the class.
        notes: what was chosen or left out on the way.
    """

    name: str
    seed: int
    data: Data
    missing: Missing
    baselines: Mapping[str, HeldOut]
    held_out_users: tuple[int, int]
    content: Mapping[str, Content]
    scaled: Sequence[str]
    imputers: Mapping[str, Mapping[str, Restored]]
    best: Mapping[str, Sequence[str]]
    advice: Advice
    notes: Sequence[str] = field(default_factory=list)

    def to_json(self) -> str:
        """JSON text of everything, with the version of its form as ``schema``."""
        return json.dumps({"schema": SCHEMA, **asdict(self)}, indent=1, ensure_ascii=False)
