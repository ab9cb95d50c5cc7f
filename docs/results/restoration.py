"""How well do imputers restore hidden features, and where does FeatProp's gain come from?

``python docs/results/restoration.py measure --data-path DIR [--tiktok FILE.yaml]`` measures what
``restoration.jsonl`` does not hold yet. ``python docs/results/restoration.py draw`` writes the
tables of ``restoration.md`` and the figure from the store.

Every item of a mask loses either all its modalities (``hidden: all``) or one (``hidden: NAME``).
The masks are those of a benchmark with ``missing_protocol: random_items``; the interactions are
split by ``seed: 1``. The imputers see training interactions only. They are fitted once for a data
set, because they learn nothing from features.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pages
import torch
from scipy import stats

from recbole_missing import tables
from recbole_missing.evaluation.imputation import DEGREE_GROUPS
from recbole_missing.report.style import line_styles, new_figure, plain_axes

STORE, PAGE = pages.HERE / "restoration.jsonl", pages.HERE / "restoration.md"
FIGURE = pages.HERE / "restoration.svg"

DATASETS = ("lfm2k-mm", "office-mm", "hm-mm", "tiktok", "instruments-mm")
RATIOS, MASKS, MIDDLE = (0.1, 0.3, 0.5, 0.7, 0.9), (0, 1, 2, 3, 4), 0.5
FEATPROP = "featprop"
IMPUTERS: dict[str, dict[str, Any]] = {
    "zeros": {},
    "mean": {},
    "random": {},
    "nearest_neighbour": {},
    "neigh_mean": {},
    FEATPROP: {},
    "featprop, 20 layers": {"imputation_layers": 20},
    "featprop, converge": {"imputation_layers": "converge"},
    "featprop, top_k 5": {"imputation_top_k": 5},
    "featprop, top_k 10": {"imputation_top_k": 10},
    "featprop, top_k 50": {"imputation_top_k": 50},
    "pers_page_rank": {},
    "heat": {},
}
"""Name -> settings that differ from the defaults (3 layers, top_k 20)."""

VARIANTS = tuple(word for word in IMPUTERS if "," in word)
"""They are measured where half of the items lose everything."""

OF_ONE = ("mean", "nearest_neighbour", "neigh_mean", FEATPROP)
"""Imputers that are measured where items lose one modality and keep the others."""

FEWEST = 5
"""A group by degree with fewer hidden items (mean over modalities and masks) is left out."""

Line = dict[str, Any]


# ---------------------------------------------------------------------------------- measurement


def measure(
    data_path: Path, tiktok: Path | None, datasets: Sequence[str], masks: int = len(MASKS)
) -> None:
    """Measure what the store does not hold yet."""
    for name in datasets:
        done = {place(line) for line in pages.read(STORE)}
        draws = planned(name, modalities_of(name, data_path, tiktok), MASKS[:masks])
        wanted = [(name, "truth", 0.0, 0), *draws]
        todo = [one for one in wanted if one not in done]
        if not todo:
            continue
        known = {"data_path": str(data_path), "file": tiktok if name == "tiktok" else None}
        if todo[0][1] == "truth":
            pages.append(STORE, [truth(name, built(name, known))])
        fitted: dict[str, Any] = {}
        for _, hidden, ratio, mask in (one for one in todo if one[1] != "truth"):
            splits = built(name, known, hidden, ratio, mask)
            pages.append(STORE, measured(name, splits, fitted, hidden, ratio, mask))
            print(name, hidden, ratio, mask, flush=True)


def planned(
    name: str, modalities: Sequence[str], masks: Sequence[int]
) -> Iterator[tuple[str, str, float, int]]:
    """Data set, what is hidden, ratio and mask of each draw."""
    for mask in masks:
        for ratio in (MIDDLE, *(ratio for ratio in RATIOS if ratio != MIDDLE)):
            yield name, "all", ratio, mask
        for modality in modalities:
            yield name, modality, MIDDLE, mask


def words(hidden: str, ratio: float) -> list[str]:
    """Imputers that are measured at a draw."""
    if hidden != "all":
        return list(OF_ONE)
    return [word for word in IMPUTERS if ratio == MIDDLE or word not in VARIANTS]


def place(line: Line) -> tuple[str, str, float, int]:
    """What identifies the draw of a line."""
    return line["dataset"], line["hidden"], line["ratio"], line["mask"]


def modalities_of(name: str, data_path: Path, tiktok: Path | None) -> list[str]:
    """Names of the modalities that the data set declares."""
    config = pages.configured(
        "VBPR", name, {"data_path": str(data_path)}, tiktok if name == "tiktok" else None
    )
    return list(config["modalities"])


def built(
    name: str, known: Mapping[str, Any], hidden: str = "", ratio: float = 0.0, mask: int = 0
) -> list[Any]:
    """Splits of a data set after a draw; nothing is hidden by default."""
    from recbole.data import create_dataset
    from recbole.utils import init_seed

    settings: dict[str, Any] = {
        "seed": 1,
        "modality_scale": "standard",
        "missing_protocol": "random_items" if hidden else "none",
        "missing_file": None,
        "missing_ratio": ratio,
        "missing_seed": mask,
        "missing_modalities": None if hidden in ("", "all") else [hidden],
    }
    if known["file"] is None:
        settings["data_path"] = known["data_path"]
    config = pages.configured("VBPR", name, settings, known["file"])
    init_seed(config["seed"], config["reproducibility"])
    splits: list[Any] = create_dataset(config).build()
    return splits


def truth(name: str, splits: list[Any]) -> Line:
    """Homophily of each modality, by the definition of `recbole-missing describe`."""
    from recbole_missing.describe import content
    from recbole_missing.describe.arrays import Arrays

    arrays = Arrays.of(splits)
    graph = content.item_graph(arrays)
    found = {
        modality: {
            "items": int(rows.observed.sum()),
            "homophily": content.homophily_of(rows, graph),
        }
        for modality, rows in content.rows_of(arrays).items()
        if modality in arrays.tables
    }
    counts = arrays.counts
    facts = {"items": len(counts), "interactions": int(counts.sum())}
    return {"dataset": name, "hidden": "truth", "ratio": 0.0, "mask": 0, **facts, "of": found}


def measured(
    name: str, splits: list[Any], fitted: dict[str, Any], hidden: str, ratio: float, mask: int
) -> Iterator[Line]:
    """One line for each imputer; those that are fitted already are in ``fitted``."""
    from recbole_missing.evaluation.restoration import restored
    from recbole_missing.imputation import make_imputer
    from recbole_missing.imputation.base import imputing

    train = splits[0]
    interactions, true = train.interaction_matrix(), train.true_features()
    degree = np.asarray((interactions != 0).sum(axis=0)).ravel()
    group = np.searchsorted(list(DEGREE_GROUPS.values()), degree, side="right") - 1
    groups = {label: torch.from_numpy(group == g) for g, label in enumerate(DEGREE_GROUPS)}
    for word in words(hidden, ratio):
        changed = {"imputation": word.split(",")[0], **IMPUTERS[word]}
        imputer = fitted.get(word)
        start = perf_counter()
        if imputer is None:
            imputer = make_imputer({**train.config.final_config_dict, **changed})
            with imputing(imputer):
                fitted[word] = imputer.fit(interactions)
        middle = perf_counter()
        with imputing(imputer):
            completed = imputer.transform(train.known)
        seconds = [middle - start, perf_counter() - middle]
        rows = {one: modality.features for one, modality in completed.items()}
        found = restored(true, rows, train.known, hits=ratio == MIDDLE)
        line: Line = {"dataset": name, "hidden": hidden, "ratio": ratio, "mask": mask}
        line |= {"imputer": word, "fit_and_fill_seconds": seconds}
        line["of"] = {one: rows.measures() for one, rows in found.items()}
        if ratio == MIDDLE and word in ("mean", FEATPROP) and hidden == "all":
            line["by_degree"] = {
                one: {label: rows.measures(items) for label, items in groups.items()}
                for one, rows in found.items()
            }
        yield line


# ------------------------------------------------------------------------------------- the page


def draw() -> None:
    """Write the tables of the page, and the figure."""
    lines = pages.read(STORE)
    pages.write(PAGE, pages.filled(PAGE.read_text(encoding="utf-8"), shown(lines)))
    pages.draw(figure(lines), FIGURE)


def shown(lines: Sequence[Line]) -> dict[str, str]:
    """Name -> text of each block of the page."""
    return {
        "homophily": tables.markdown(homophily_table(lines)) + "\n\n" + correlations(lines),
        "imputers": tables.markdown(imputer_table(lines)),
        "ratios": tables.markdown(ratio_table(lines)),
        "degrees": tables.markdown(degree_table(lines)),
        "one": tables.markdown(one_table(lines)),
    }


def truths(lines: Sequence[Line]) -> dict[tuple[str, str], Line]:
    """Data set and modality -> number of items and homophily, the highest homophily first."""
    found = {
        (line["dataset"], modality): facts
        for line in lines
        if line["hidden"] == "truth"
        for modality, facts in line["of"].items()
    }
    return dict(sorted(found.items(), key=lambda pair: -pair[1]["homophily"]))


def over_masks(
    lines: Sequence[Line], dataset: str, imputer: str, measure: str, ratio: float = MIDDLE
) -> dict[str, list[float]]:
    """Modality -> a measure of each mask, where items lose everything."""
    found: dict[str, list[float]] = {}
    for line in lines:
        wanted = (line["dataset"], line["hidden"], line.get("imputer")) == (dataset, "all", imputer)
        if wanted and line["ratio"] == ratio:
            for modality, measures in line["of"].items():
                found.setdefault(modality, []).append(measures[measure])
    return found


def mean_of(lines: Sequence[Line], dataset: str, imputer: str, measure: str, ratio: float) -> float:
    """Mean of a measure over modalities and masks."""
    found = over_masks(lines, dataset, imputer, measure, ratio)
    return float(np.mean([np.mean(values) for values in found.values()]))


def present(lines: Sequence[Line]) -> list[str]:
    """Data sets of the store, in order."""
    return [name for name in DATASETS if any(line["dataset"] == name for line in lines)]


def homophily_table(lines: Sequence[Line]) -> tables.Table:
    """FeatProp and the homophily of each modality, half of the items hidden."""
    facts = truths(lines)
    labels = {"data set": [d for d, _ in facts], "modality": [m for _, m in facts]}
    cells = {
        measure: [
            pages.mean_and_deviation(over_masks(lines, dataset, FEATPROP, measure)[modality])
            for dataset, modality in facts
        ]
        for measure in ("cosine", "relative_mse", "hit@10", "chance@10")
    }
    columns = [
        tables.Column("items", [one["items"] for one in facts.values()], form="count"),
        tables.Column("homophily", [f"{f['homophily']:.3f}" for f in facts.values()], form="cell"),
        *(tables.Column(name, values, form="cell") for name, values in cells.items()),
    ]
    return tables.Table(labels, columns)


def gains(lines: Sequence[Line], imputer: str) -> dict[str, list[float]]:
    """Homophily and gain over the mean of each modality, half of the items hidden."""
    facts = truths(lines)
    cosine, error = (
        [
            float(np.mean(over_masks(lines, dataset, imputer, measure)[modality]))
            for dataset, modality in facts
        ]
        for measure in ("cosine", "relative_mse")
    )
    homophily = [one["homophily"] for one in facts.values()]
    return {"homophily": homophily, "cosine": cosine, "error": [1 - value for value in error]}


def correlations(lines: Sequence[Line]) -> str:
    """Rank correlations of homophily and gain, as a table."""
    rows = []
    for imputer in (FEATPROP, "neigh_mean", "pers_page_rank"):
        found = gains(lines, imputer)
        for gain, name in (("cosine", "cosine"), ("error", "1 - relative_mse")):
            result = stats.spearmanr(found["homophily"], found[gain])
            number = str(len(found["homophily"]))
            p = "< 0.0001" if result.pvalue < 0.0001 else f"{result.pvalue:.4f}"
            rows.append([imputer, name, number, f"{result.statistic:.2f}", p])
    heads = ["imputer", "gain over the mean", "modalities", "Spearman with homophily", "p"]
    return tables.markdown(tables.Table.of_rows(heads, rows))


def imputer_table(lines: Sequence[Line]) -> tables.Table:
    """Cosine and relative error of every imputer, half of the items hidden."""
    names = present(lines)
    columns = [
        tables.Column(
            f"{name}: {measure}",
            [f"{mean_of(lines, name, word, measure, MIDDLE):.3f}" for word in IMPUTERS],
            form="cell",
        )
        for name in names
        for measure in ("cosine", "relative_mse")
    ]
    return tables.Table({"imputer": list(IMPUTERS)}, columns)


def ratio_table(lines: Sequence[Line]) -> tables.Table:
    """FeatProp, random numbers and the plain mean of neighbours against the ratio."""
    done = {(line["dataset"], line["ratio"]) for line in lines}
    keys = [
        (name, word, measure)
        for name in present(lines)
        if done >= {(name, ratio) for ratio in RATIOS}
        for word, measure in (
            (FEATPROP, "cosine"),
            ("neigh_mean", "cosine"),
            (FEATPROP, "relative_mse"),
            ("neigh_mean", "relative_mse"),
            ("random", "relative_mse"),
        )
    ]
    labels = {
        head: [key[i] for key in keys] for i, head in enumerate(("data set", "imputer", "measure"))
    }
    columns = [
        tables.Column(
            f"{ratio:.0%}", [f"{mean_of(lines, *key, ratio):.3f}" for key in keys], form="cell"
        )
        for ratio in RATIOS
    ]
    return tables.Table(labels, columns)


def by_degree(lines: Sequence[Line], dataset: str) -> dict[str, dict[str, float]]:
    """Group of items -> mean number of hidden items, cosine and error of FeatProp."""
    found: dict[str, dict[str, list[float]]] = {}
    for line in lines:
        if line["dataset"] == dataset and "by_degree" in line and line["imputer"] == FEATPROP:
            for groups in line["by_degree"].values():
                for label, measures in groups.items():
                    for name, value in measures.items():
                        found.setdefault(label, {}).setdefault(name, []).append(value)
    return {
        label: {name: float(np.mean(values)) for name, values in found[label].items()}
        for label in DEGREE_GROUPS
        if "cosine" in found.get(label, {}) and np.mean(found[label]["items"]) >= FEWEST
    }


def degree_table(lines: Sequence[Line]) -> tables.Table:
    """FeatProp by the number of training interactions of the hidden item."""
    keys = [(n, m) for n in present(lines) for m in ("items", "cosine", "relative_mse")]
    labels = {"data set": [name for name, _ in keys], "measure": [measure for _, measure in keys]}
    found = {group for name in present(lines) for group in by_degree(lines, name)}
    groups = [group for group in DEGREE_GROUPS if group in found]

    def cell(name: str, measure: str, group: str) -> str:
        found = by_degree(lines, name).get(group)
        if found is None:
            return tables.ABSENT
        return f"{found[measure]:,.0f}" if measure == "items" else f"{found[measure]:.3f}"

    columns = [
        tables.Column(group, [cell(*key, group) for key in keys], form="cell") for group in groups
    ]
    return tables.Table(labels, columns)


def one_table(lines: Sequence[Line]) -> tables.Table:
    """Cosine where items lose one modality and keep the others, half of the items hidden."""
    found: dict[tuple[str, str], dict[str, list[float]]] = {}
    for line in lines:
        if line["hidden"] not in ("all", "truth"):
            measures = line["of"][line["hidden"]]
            of_word = found.setdefault((line["dataset"], line["hidden"]), {})
            of_word.setdefault(line["imputer"], []).append(measures["cosine"])
    keys = [key for key in truths(lines) if key in found]
    labels = {"data set": [d for d, _ in keys], "hidden": [m for _, m in keys]}
    columns = [
        tables.Column(
            word, [pages.mean_and_deviation(found[key][word]) for key in keys], form="cell"
        )
        for word in OF_ONE
    ]
    return tables.Table(labels, columns)


def figure(lines: Sequence[Line]) -> Any:
    """Left: cosine against homophily. Right: cosine by the degree of the item."""
    drawn = new_figure(figsize=(10, 4.2), layout="constrained")
    left, right = drawn.subplots(1, 2)
    styles = line_styles(present(lines))
    facts, found = truths(lines), gains(lines, FEATPROP)
    points = zip(facts, found["homophily"], found["cosine"])
    for number, ((dataset, modality), x, y) in enumerate(points):
        style = styles[dataset]
        left.plot(x, y, color=style["color"], marker=style["marker"], markersize=7)
        where = (
            {"xytext": (6, 3), "ha": "left"} if number % 2 else {"xytext": (-6, 3), "ha": "right"}
        )
        left.annotate(modality, (x, y), textcoords="offset points", fontsize="small", **where)
    left.set(xlabel="homophily of the modality", ylabel="cosine of FeatProp's values")
    for dataset in present(lines):
        groups = by_degree(lines, dataset)
        at = [list(DEGREE_GROUPS).index(group) for group in groups]
        right.plot(at, [one["cosine"] for one in groups.values()], **styles[dataset])
    right.set_xticks(range(len(DEGREE_GROUPS)), list(DEGREE_GROUPS))
    right.set(
        xlabel="training interactions of the hidden item", ylabel="cosine of FeatProp's values"
    )
    right.legend(frameon=False)
    for axes in (left, right):
        axes.axhline(0, color="0.6", linewidth=0.8)
        plain_axes(axes, "y")
    return drawn


def main() -> None:
    """Run a command."""
    parser, first = pages.commands(__doc__)
    first.add_argument("--tiktok", type=Path, help="the YAML file of the imported TikTok")
    first.add_argument("--datasets", nargs="+", choices=DATASETS, default=DATASETS)
    first.add_argument("--masks", type=int, default=len(MASKS), help="how many of the masks")
    known = parser.parse_args()
    if known.command == "draw":
        draw()
    else:
        measure(known.data_path, known.tiktok, known.datasets, known.masks)


if __name__ == "__main__":
    main()
