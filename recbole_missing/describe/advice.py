"""What follows from the measurements, by stated rules.

Two numbers are told apart if they differ by more than two standard errors. A modality carries

- ``much`` if recommending by it alone beats popularity on held-out interactions;
- ``some`` if that is better than chance and not worse than popularity, or if hidden items are
  ranked with an area under the curve of more than :data:`CLEAR`;
- ``little`` if either is better than chance;
- ``nothing`` if neither is;
- ``unknown`` if there was too little data to measure either.

The modalities that carry much or some are advised. If none does alone, those above ``nothing`` are
advised, provided that all modalities together carry much or some, or that many items are new, which
content alone can rank.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from recbole_missing.data.scale import FAR
from recbole_missing.describe.description import (
    ITEM_KNN,
    POPULARITY,
    TOGETHER,
    Advice,
    Content,
    Data,
    HeldOut,
    Holes,
    Missing,
    Restored,
)

CLEAR = 0.6
"""In three of five pairs of hidden items the one that the user consumed comes first."""

HALF = 0.5
"""Share of absent features from which on generating and propagating models come first."""

COLD = 0.05
"""Share of items without training interactions from which on models for new items come first."""

PLAIN = ("LightGCN", "BPR")
CONTENT = ("FREEDOM", "MGCN", "LightGCN")
SPARSE = ("FREEDOM", "DGMRec", "LightGCN")
NEW = ("VBPR", "FREEDOM", "LightGCN")
NEW_LITTLE = ("LightGCN", "VBPR")
"""Models to try first: without content, with it, with many holes, with many new items, and with
many new items if content carries little.

``docs/guides/new_items.md`` measures how models order new items.
"""

CARRIES = ("much", "some")
ABOVE_NOTHING = (*CARRIES, "little")


def level(content: Content) -> str:
    """How much a modality carries: ``much``, ``some``, ``little``, ``nothing`` or ``unknown``."""
    held_out, cold = content.held_out, content.cold
    if held_out is not None and (held_out.chance >= 1 or held_out.beyond_chance.error is None):
        held_out = None
    if cold is not None and cold.auc.error is None:
        cold = None
    if held_out is None and cold is None:
        return "unknown"
    above_chance = held_out is not None and held_out.beyond_chance.above(0)
    if held_out is not None and held_out.beyond_popularity.above(0) and above_chance:
        return "much"
    even = held_out is not None and above_chance and not held_out.beyond_popularity.below(0)
    if even or (cold is not None and cold.auc.above(CLEAR)):
        return "some"
    if above_chance or (cold is not None and cold.auc.above(0.5)):
        return "little"
    return "nothing"


def carrying(data: Data, content: Mapping[str, Content]) -> list[str]:
    """The modalities that are advised, see above."""
    own = {name: one.level for name, one in content.items() if _own(name)}
    found = [name for name, word in own.items() if word in CARRIES]
    together = TOGETHER in content and content[TOGETHER].level in CARRIES
    if not found and (together or _cold_share(data) >= COLD):
        found = [name for name, word in own.items() if word in ABOVE_NOTHING]
    return found


def far_apart(holes: Mapping[str, Holes], names: Sequence[str]) -> list[str]:
    """Of these modalities those to scale: none, or two or more with norms over FAR apart."""
    norms = {name: holes[name].norm for name in names if holes[name].norm > 0}
    apart = len(norms) > 1 and max(norms.values()) > FAR * min(norms.values())
    return list(norms) if apart else []


def advice(
    data: Data,
    missing: Missing,
    baselines: Mapping[str, HeldOut],
    content: Mapping[str, Content],
    scaled: Sequence[str],
    imputers: Mapping[str, Mapping[str, Restored]],
    best: Mapping[str, Sequence[str]],
) -> Advice:
    """Words, models, imputer and YAML lines.

    Args:
        data, missing, baselines, content, imputers, best: as in :class:`.Description`.
        scaled: modalities of :func:`carrying` that the YAML lines scale by ``standard``.
    """
    if not content:
        sentences = [
            "The data set has no modalities. Name them in `modalities` to learn whether content "
            f"helps. Until then, try {_listed(PLAIN)}."
        ]
        return Advice(sentences, PLAIN, None, _yaml([], None, PLAIN, []))
    names = carrying(data, content)
    holes = {name: missing.holes[name] for name in names}
    alone = any(content[name].level in CARRIES for name in names)
    shown = [name for name in content if _own(name) or (names and not alone)]
    sentences = [_carries(name, content[name]) for name in shown]
    sentences += _of_baselines(baselines, content, names)
    models, reason = _models(data, holes, content)
    imputer, of_imputer = _imputer(holes, imputers, best)
    sentences += [reason, *of_imputer, *_of_scale(holes, scaled)]
    return Advice(sentences, models, imputer, _yaml(names, imputer, models, scaled))


def _own(name: str) -> bool:
    return name != TOGETHER


def _cold_share(data: Data) -> float:
    return data.items_tail.none / data.items


def _carries(name: str, content: Content) -> str:
    held_out, cold = content.held_out, content.cold
    verb = "carries" if _own(name) else "carry"
    says = {
        "much": f"{verb} much: recommending by content alone beats popularity",
        "some": f"{verb} something",
        "little": f"{verb} little: {_how_little(held_out)}",
        "nothing": f"{verb} nothing that these interactions could show",
        "unknown": ": too little data to tell",
    }[content.level]
    numbers = [f"{name}{'' if says.startswith(':') else ' '}{says}."]
    if held_out is not None:
        popular = held_out.recall.value - held_out.beyond_popularity.value
        numbers.append(
            f"Recall@20 on held-out interactions: {held_out.recall.value:.3f} by content, "
            f"{popular:.3f} by popularity, {held_out.chance:.3f} by chance."
        )
    if cold is None:
        numbers.append("Too few items have it to hide some whole.")
    else:
        numbers.append(
            f"Recall@20 on hidden items: {cold.recall.value:.3f} by content, {cold.chance:.3f} by "
            "chance."
        )
    return " ".join(numbers)


def _how_little(held_out: HeldOut | None) -> str:
    if held_out is not None and held_out.beyond_chance.above(0):
        return "worse than popularity, better than chance"
    return "better than chance in ordering hidden items"


def _of_baselines(
    baselines: Mapping[str, HeldOut], content: Mapping[str, Content], names: Sequence[str]
) -> list[str]:
    """Whether content alone finds more than both baselines, by differences on the same lists."""
    found = {name: content[name].held_out for name in names}
    known = {name: one for name, one in found.items() if one is not None}
    if not baselines or not known:
        return []
    values = {name: baselines[name].recall.value for name in (ITEM_KNN, POPULARITY)}
    without = (
        f"Without content, ItemKNN reaches Recall@20 {values[ITEM_KNN]:.3f} and popularity "
        f"{values[POPULARITY]:.3f}"
    )
    above = [
        name
        for name, one in known.items()
        if one.beyond_popularity.above(0) and one.beyond_item_knn.above(0)
    ]
    if above:
        best = max(above, key=lambda name: known[name].recall.value)
        return [
            f"{without}, both less than {best} alone: models that use content are worth their time."
        ]
    bar = max(values, key=values.__getitem__)
    return [f"{without}. A model with content must beat the better one, {bar}."]


def _models(
    data: Data, holes: Mapping[str, Holes], content: Mapping[str, Content]
) -> tuple[Sequence[str], str]:
    cold = _cold_share(data)
    new = f"{cold:.0%} of the items have no training interaction."
    if not holes:
        unknown = all(one.level == "unknown" for one in content.values())
        because = "There is too little data to tell whether content helps."
        if not unknown:
            because = "No modality was shown to carry something."
        unranked = f" {new} These models cannot rank them." if cold >= COLD else ""
        return PLAIN, f"{because} Try {_listed(PLAIN)} first, which use no content.{unranked}"
    if cold >= COLD and not any(one.level in CARRIES for one in content.values()):
        plain, other = NEW_LITTLE
        return NEW_LITTLE, (
            f"{new} Only content can rank them, and it carries little: try {plain}, which uses no "
            f"content, for the other items, and {other} for a list of new items alone (`recommend "
            "--only new`)."
        )
    if cold >= COLD:
        return NEW, (
            f"{new} Only content can rank them: try {_listed(NEW[:2])}, and show new items in a "
            f"list of their own (`recommend --only new`). {NEW[2]}, which uses no content, is for "
            "the other items."
        )
    absent = sum(one.lacks + one.hidden for one in holes.values()) / (data.items * len(holes))
    if absent >= HALF:
        return SPARSE, (
            f"{absent:.0%} of these features are absent: try {SPARSE[0]} behind an imputation and "
            f"{SPARSE[1]}, which generates what is missing. Compare with {SPARSE[2]}, which uses "
            "no content."
        )
    return CONTENT, (
        f"Try {_listed(CONTENT[:2])}, which build item graphs from content. Compare with "
        f"{CONTENT[2]}, which uses no content."
    )


def _imputer(
    holes: Mapping[str, Holes],
    imputers: Mapping[str, Mapping[str, Restored]],
    best: Mapping[str, Sequence[str]],
) -> tuple[str | None, list[str]]:
    """The imputer that is among the best where most of what carries is missing."""
    n_holes = {name: one.lacks + one.hidden for name, one in holes.items()}
    lacking = [name for name, n in n_holes.items() if n]
    if not lacking:
        none = "No item lacks these modalities: nothing is to be imputed."
        return None, [none] if holes else []
    known = [name for name in lacking if best.get(name)]
    sentences = [_restores(name, best.get(name), imputers.get(name)) for name in lacking]
    if not known:
        return None, sentences
    words = [word for name in known for word in best[name]]
    votes = {word: sum(n_holes[name] for name in known if word in best[name]) for word in words}
    most = max(votes.values())
    leaders = [word for word in votes if votes[word] == most]
    plain = [word for word in ("featprop", "mean") if word in leaders]
    chosen = plain[0] if plain else max(leaders, key=lambda word: _cosine(imputers, known, word))
    return chosen, sentences


def _restores(name: str, best: Sequence[str] | None, ranked: Mapping[str, Restored] | None) -> str:
    if ranked is None:
        return f"Too few items have {name} to compare imputers."
    if not best:
        return f"No imputer could restore hidden rows of {name}."
    cosine = ranked[best[0]].cosine
    value = "" if cosine is None else f" ({cosine.value:.3f})"
    if len(best) == 1:
        return f"By cosine{value}, {best[0]} restores hidden rows of {name} best."
    return (
        f"By cosine{value}, {_listed(best)} restore hidden rows of {name} best and cannot be told "
        "apart."
    )


def _cosine(imputers: Mapping[str, Mapping[str, Restored]], names: list[str], word: str) -> float:
    found = [imputers[name][word].cosine for name in names]
    return sum(one.value for one in found if one is not None)


def _of_scale(holes: Mapping[str, Holes], scaled: Sequence[str]) -> list[str]:
    if not scaled:
        return []
    norms = {name: holes[name].norm for name in scaled}
    largest, smallest = max(norms, key=norms.__getitem__), min(norms, key=norms.__getitem__)
    return [
        f"Rows of {largest} are typically {norms[largest] / norms[smallest]:,.0f} times as long as "
        f"rows of {smallest}. Models that put modalities side by side or add up their errors, such "
        f"as VBPR and DGMRec, would see little but {largest}: the lines below scale them. FREEDOM, "
        "whose item graph is made of cosines, is hardly concerned."
    ]


def _yaml(
    names: Sequence[str], imputer: str | None, models: Sequence[str], scaled: Sequence[str]
) -> list[str]:
    lines = [f"model: {models[0]}  # then {_listed(models[1:])}"]
    lines += [f"modalities: [{', '.join(names)}]"] if names else []
    lines += [f"imputation: {imputer}"] if imputer else []
    return [*lines, *(f"{name}_scale: standard" for name in scaled)]


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
