"""What follows from the measurements, by stated rules.

Two numbers are told apart if they differ by more than two standard errors. A modality carries

- ``much`` if recommending by it alone beats popularity on held-out interactions;
- ``some`` if that is not worse than popularity, or if hidden items are ranked with an area under
  the curve of more than :data:`CLEAR`;
- ``little`` if either is better than chance;
- ``nothing`` otherwise.
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
NEW = ("MILK", "SIBRAR", "LightGCN")
"""Models to try first: without content, with it, with many holes, with many new items."""

CARRIES = ("much", "some")


def level(content: Content) -> str:
    """How much a modality carries: ``much``, ``some``, ``little`` or ``nothing``."""
    held_out, cold = content.held_out, content.cold
    above_chance = held_out is not None and held_out.beyond_chance.above(0)
    if held_out is not None and held_out.beyond_popularity.above(0) and above_chance:
        return "much"
    even = held_out is not None and above_chance and not held_out.beyond_popularity.below(0)
    if even or (cold is not None and cold.auc.above(CLEAR)):
        return "some"
    if above_chance or (cold is not None and cold.auc.above(0.5)):
        return "little"
    return "nothing"


def advice(
    data: Data,
    missing: Missing,
    baselines: Mapping[str, HeldOut],
    content: Mapping[str, Content],
    imputers: Mapping[str, Mapping[str, Restored]],
    best: Mapping[str, Sequence[str]],
) -> Advice:
    """Words, models, imputer and YAML lines."""
    if not content:
        sentences = [
            "The data set has no modalities. Name them in `modalities` to learn whether content "
            f"helps. Until then, try {_listed(PLAIN)}."
        ]
        return Advice(sentences, PLAIN, None, _yaml([], None, PLAIN, []))
    carrying = [name for name, one in content.items() if _own(name) and one.level in CARRIES]
    sentences = [_carries(name, one) for name, one in content.items() if _own(name)]
    sentences += _of_baselines(baselines, content, carrying)
    holes = {name: missing.holes[name] for name in carrying}
    models, reason = _models(data, holes)
    imputer, of_imputer = _imputer(holes, imputers, best)
    scaled, of_scale = _scale(missing.holes, carrying)
    sentences += [reason, *of_imputer, *of_scale]
    return Advice(sentences, models, imputer, _yaml(carrying, imputer, models, scaled))


def _own(name: str) -> bool:
    return name != TOGETHER


def _carries(name: str, content: Content) -> str:
    held_out, cold = content.held_out, content.cold
    says = {
        "much": f"{name} carries much: recommending by it alone beats popularity",
        "some": f"{name} carries something",
        "little": f"{name} carries little: it is better than chance, and no more can be claimed",
        "nothing": f"{name} carries nothing that these interactions could show",
    }[content.level]
    numbers = [f"{says}."]
    if held_out is not None:
        popular = held_out.recall.value - held_out.beyond_popularity.value
        numbers.append(
            f"Recall@20 on held-out interactions: {held_out.recall.value:.3f} by it, "
            f"{popular:.3f} by popularity, {held_out.chance:.3f} by chance."
        )
    if cold is None:
        numbers.append("Too few items have it to hide some whole.")
    else:
        numbers.append(
            f"Recall@20 on hidden items: {cold.recall.value:.3f} by it, {cold.chance:.3f} by "
            "chance."
        )
    return " ".join(numbers)


def _of_baselines(
    baselines: Mapping[str, HeldOut], content: Mapping[str, Content], carrying: Sequence[str]
) -> list[str]:
    """Whether consumption alone says more than content does."""
    if not baselines:
        return []
    knn, popular = baselines[ITEM_KNN], baselines[POPULARITY]
    found = [content[name].held_out for name in carrying]
    best = max((one.recall.value for one in found if one is not None), default=None)
    if best is None:
        return []
    if knn.recall.below(best):
        return [
            f"ItemKNN, which sees consumption alone, reaches Recall@20 {knn.recall.value:.3f}, "
            "less than content: models that use content are worth their time."
        ]
    return [
        f"ItemKNN, which sees consumption alone, reaches Recall@20 {knn.recall.value:.3f} "
        f"(popularity {popular.recall.value:.3f}). A model with content must beat that: compare "
        "it with LightGCN."
    ]


def _models(data: Data, holes: Mapping[str, Holes]) -> tuple[Sequence[str], str]:
    if not holes:
        return PLAIN, (
            f"Try {_listed(PLAIN)} first. Expect little from models with these modalities, and "
            "little from imputation."
        )
    cold = data.items_tail.none / data.items
    absent = sum(one.lacks + one.hidden for one in holes.values()) / (data.items * len(holes))
    if cold >= COLD:
        return NEW, (
            f"{cold:.0%} of the items have no training interaction. Only content can rank them: "
            f"try {_listed(NEW[:2])}, which score new items by content, and {NEW[2]} for the rest."
        )
    if absent >= HALF:
        return SPARSE, (
            f"{absent:.0%} of these features are absent: try {SPARSE[0]} behind an imputation and "
            f"{SPARSE[1]}, which generates what is missing. {SPARSE[2]} is the bar without content."
        )
    return CONTENT, (
        f"Try {_listed(CONTENT[:2])}, which build item graphs from content. {CONTENT[2]} is the "
        "bar without content."
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
        return None, ["Every item has what carries: nothing is to be imputed."] if holes else []
    known = [name for name in lacking if best.get(name)]
    if not known:
        return None, ["Too few items have these modalities to compare imputers."]
    words = [word for name in known for word in best[name]]
    votes = {word: sum(n_holes[name] for name in known if word in best[name]) for word in words}
    most = max(votes.values())
    leaders = [word for word in votes if votes[word] == most]
    plain = [word for word in ("featprop", "mean") if word in leaders]
    chosen = plain[0] if plain else max(leaders, key=lambda word: _cosine(imputers, known, word))
    return chosen, [_restores(name, best[name], imputers[name]) for name in known]


def _restores(name: str, best: Sequence[str], ranked: Mapping[str, Restored]) -> str:
    cosine = ranked[best[0]].cosine
    value = "" if cosine is None else f" (cosine {cosine.value:.3f})"
    if len(best) == 1:
        return f"{best[0]} restores hidden rows of {name} best{value}."
    return f"{_listed(best)} restore hidden rows of {name} best and cannot be told apart{value}."


def _cosine(imputers: Mapping[str, Mapping[str, Restored]], names: list[str], word: str) -> float:
    found = [imputers[name][word].cosine for name in names]
    return sum(one.value for one in found if one is not None)


def _scale(holes: Mapping[str, Holes], carrying: Sequence[str]) -> tuple[list[str], list[str]]:
    """Modalities to scale, and a sentence, if typical norms differ by more than FAR."""
    norms = {name: one.norm for name, one in holes.items() if one.norm > 0}
    if len(norms) < 2 or max(norms.values()) <= FAR * min(norms.values()):
        return [], []
    largest, smallest = max(norms, key=norms.__getitem__), min(norms, key=norms.__getitem__)
    sentence = (
        f"Rows of {largest} are typically {norms[largest] / norms[smallest]:,.0f} times as long as "
        f"rows of {smallest}. Where modalities are put side by side or summed, {largest} decides "
        "alone: set NAME_scale."
    )
    together = [name for name in carrying if name in norms]
    return (together if len(together) > 1 else []), [sentence]


def _yaml(
    carrying: Sequence[str], imputer: str | None, models: Sequence[str], scaled: Sequence[str]
) -> list[str]:
    lines = [f"model: {models[0]}  # then {_listed(models[1:])}"]
    lines += [f"modalities: [{', '.join(carrying)}]"] if carrying else []
    lines += [f"imputation: {imputer}"] if imputer else []
    return [*lines, *(f"{name}_scale: standard" for name in scaled)]


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
