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

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pages
import torch
from scipy import stats

from recbole_missing import tables
from recbole_missing.report.style import COLOURS, line_styles, new_figure, plain_axes

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

OF_ONE = ("mean", "nearest_neighbour", "neigh_mean", FEATPROP)
"""Imputers that are measured where items lose one modality and keep the others."""

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
    from recbole_missing.evaluation.imputation import DEGREE_GROUPS
    from recbole_missing.evaluation.restoration import restored
    from recbole_missing.imputation import make_imputer
    from recbole_missing.imputation.base import imputing

    train = splits[0]
    interactions, true = train.interaction_matrix(), train.true_features()
    degree = np.asarray((interactions != 0).sum(axis=0)).ravel()
    group = np.searchsorted(list(DEGREE_GROUPS.values()), degree, side="right") - 1
    groups = {label: torch.from_numpy(group == g) for g, label in enumerate(DEGREE_GROUPS)}
    for word in IMPUTERS if hidden == "all" else OF_ONE:
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


def main() -> None:
    """Run a command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    first = commands.add_parser("measure", help="measure what the store does not hold yet")
    first.add_argument("--data-path", type=Path, required=True, help="folder of the data sets")
    first.add_argument("--tiktok", type=Path, help="the YAML file of the imported TikTok")
    first.add_argument("--datasets", nargs="+", choices=DATASETS, default=DATASETS)
    first.add_argument("--masks", type=int, default=len(MASKS), help="how many of the masks")
    commands.add_parser("draw", help="write the tables of the page and the figure")
    known = parser.parse_args()
    if known.command == "draw":
        draw()
    else:
        measure(known.data_path, known.tiktok, known.datasets, known.masks)


if __name__ == "__main__":
    main()
