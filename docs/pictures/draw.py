"""Draw the pictures of the documentation: ``python docs/pictures/draw.py [FOLDER]``.

The mask and the results come from the package's own functions: a mask drawn for ml-100k, and the
committed store of results. A test draws all pictures again and compares their words.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from recbole_missing.benchmark.store import Store
from recbole_missing.config import defaults
from recbole_missing.report.published import published
from recbole_missing.report.style import COLOURS, new_figure, plain_axes

HERE = Path(__file__).resolve().parent
INK, PALE, GREY = "#1a1a1a", "#dfe7ef", "#8c8c8c"
matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "recbole_missing"})


def flow(path: Path) -> None:
    """From files to results: what each step reads, and what it never sees."""
    figure = new_figure(figsize=(10, 3.6), layout="constrained")
    axes = figure.subplots()
    axes.set(xlim=(0, 100), ylim=(0, 36))
    axes.set_axis_off()
    boxes = {
        "interactions": (0, 22, "interactions\n(who had what)"),
        "content": (0, 4, "content\n(vectors, texts, pictures)"),
        "split": (22, 22, "split\ntrain | valid | test"),
        "mask": (22, 4, "mask\nwho lacks what"),
        "imputation": (44, 4, "imputation\ncompletes missing rows"),
        "model": (66, 13, "model\nlearns from train"),
        "test": (84, 13, "results\nby group of items"),
    }
    for x, y, text in boxes.values():
        width = 16 if x > 80 else 18 if x < 60 else 14
        box = FancyBboxPatch((x + 0.5, y), width - 1, 10, boxstyle="round,pad=0.3", fc=PALE, ec=INK)
        axes.add_patch(box)
        axes.text(x + width / 2, y + 5, text, ha="center", va="center", color=INK, fontsize=9.5)
    for start, end, note, at in (
        ((18.6, 27), (21.8, 27), "", None),
        ((18.6, 9), (21.8, 9), "", None),
        ((40.6, 9), (43.8, 9), "", None),
        ((31, 21.5), (31, 14.8), "train only", (24, 17.6)),
        ((40.6, 24), (52, 14.8), "train only", (38, 17.6)),
        ((40.6, 28), (72, 23.9), "train, valid", (54, 23.4)),
        ((62.6, 10), (66, 14), "", None),
        ((80.6, 18), (83.8, 18), "", None),
        ((40.6, 31), (91, 23.9), "test, read once at the end", (60, 30)),
    ):
        arrow = FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=12, color=INK, lw=1.1)
        axes.add_patch(arrow)
        if at:
            axes.text(*at, note, fontsize=8.5, color=INK, style="italic")
    axes.text(
        0, 0, "Hidden rows are set to zero before anything reads them: no encoder and no imputer "
        "sees them.", fontsize=8.5, color=INK,
    )  # fmt: skip
    save(figure, path)


def mask(path: Path) -> None:
    """Which items of ml-100k lack what in the main job, popular items on the left."""
    names, observed, counts = drawn_mask()
    order = np.argsort(-counts, kind="stable")
    figure = new_figure(figsize=(9, 3.1), layout="constrained")
    above, below = figure.subplots(2, sharex=True, height_ratios=[1.1, 1])
    above.fill_between(np.arange(len(order)), counts[order], color=COLOURS[0], lw=0)
    above.set(ylabel="training\ninteractions", xlim=(0, len(order)))
    plain_axes(above, "y")
    shown = observed[order].T.astype(float)
    below.imshow(
        shown, aspect="auto", interpolation="nearest", cmap="Blues", vmin=-0.35, vmax=1.25,
        extent=(0, len(order), len(names), 0),
    )  # fmt: skip
    labels = [
        f"{name}: {1 - share:.0%} hidden" for name, share in zip(names, observed.mean(axis=0))
    ]
    below.set_yticks(np.arange(len(names)) + 0.5, labels)
    below.set_xlabel(
        f"the {len(order):,} items of ml-100k, popular ones first; dark: known, light: hidden"
    )
    below.tick_params(length=0)
    save(figure, path)


def drawn_mask() -> tuple[list[str], np.ndarray, np.ndarray]:
    """Modalities, who has them ``(n_items, n_modalities)``, training interactions of each item."""
    from recbole.config import Config
    from recbole.data import create_dataset

    with tempfile.TemporaryDirectory() as folder:
        arguments, sys.argv = sys.argv, sys.argv[:1]  # RecBole reads the command line
        own = {"imputation": "zeros", "checkpoint_dir": folder, "state": "ERROR"}
        try:
            config = Config("VBPR", "ml-100k", config_dict=own)
        finally:
            sys.argv = arguments
        train = create_dataset(config).build()[0]
    items = train.inter_feat[train.iid_field].numpy()
    known = train.known
    counts = np.bincount(items, minlength=train.item_num)[1:]
    return list(known), known.observed.numpy()[1:], counts


def results(path: Path) -> None:
    """Recall@20 of every model on TikTok, ours and the published one."""
    block = defaults.read("benchmark", "dgmrec_missing")["published"]
    theirs = published(block)
    assert theirs is not None
    ours = {}
    for line in Store(HERE.parent / "results" / "tiktok.jsonl").latest():
        if line["benchmark"] == "dgmrec_missing":
            printed = theirs.at(line["point"], "recall@20")
            ours[line["point"]["model"]] = (line["test"]["recall@20"], printed)
    rows = sorted(ours.items(), key=lambda row: row[1][0])
    figure = new_figure(figsize=(7.2, 5.2), layout="constrained")
    axes = figure.subplots()
    for place, (_, (value, printed)) in enumerate(rows):
        if printed is not None:
            axes.plot([value, printed], [place, place], color=GREY, lw=1, zorder=1)
            axes.plot(printed, place, "D", color=COLOURS[1], ms=5.5, mfc="white", zorder=2)
        axes.plot(value, place, "o", color=COLOURS[0], ms=7, zorder=3)
    axes.plot([], [], "o", color=COLOURS[0], ms=7, label="this package")
    axes.plot([], [], "D", color=COLOURS[1], ms=5.5, mfc="white", label="published")
    axes.set_yticks(range(len(rows)), [name for name, _ in rows])
    axes.set(xlabel="Recall@20 on TikTok, 60 % of the items lack something", xlim=(0, None))
    axes.legend(loc="lower right", frameon=False)
    plain_axes(axes, "x")
    save(figure, path)


def retrieval(path: Path) -> None:
    """How often hidden features are found on three data sets, and how often exchanged ones are."""
    asking = {
        ("VBPR", "autoencoder", "model"): "auto-encoder",
        ("VBPR", "mean", "nearest_neighbour"): "nearest neighbour",
        ("VBPR", "featprop", "model"): "FeatProp",
        ("DGMRec", "mean", "model"): "DGMRec: generated features",
        ("DGMRec", "mean", "features from gated parts"): "DGMRec: features from gated parts",
        ("DGMRec", "mean", "general part"): "DGMRec: general part",
        ("DGMRec", "mean", "specific part"): "DGMRec: specific part",
        ("DGMRec", "mean", "gated parts"): "DGMRec: gated parts",
    }
    panels = {"office-mm": "title, text", "hm-mm": "image, caption", "lfm2k-mm": "text, audio"}
    panels = {name: text for name, text in panels.items() if found_features(name)}
    figure = new_figure(figsize=(10, 3.4), layout="constrained")
    places = {key: place for place, key in enumerate(reversed(asking))}
    for axes, (data_set, names) in zip(
        figure.subplots(1, len(panels), sharey=True), panels.items()
    ):
        for key, (hit, control) in found_features(data_set).items():
            if key in places:
                axes.plot([control, hit], [places[key]] * 2, color=GREY, lw=1, zorder=1)
                axes.plot(hit, places[key], "o", color=COLOURS[0], ms=7, zorder=2)
                axes.plot(control, places[key], "D", color=COLOURS[1], ms=5, mfc="none", zorder=3)
        axes.set_yticks(range(len(asking)), list(asking.values())[::-1])
        axes.set(title=f"{data_set}: {names}", xlabel="hit@20", xlim=(-0.04, 1.04))
        plain_axes(axes, "x")
    axes.plot([], [], "o", color=COLOURS[0], ms=7, label="the hidden feature is found")
    axes.plot([], [], "D", color=COLOURS[1], ms=5, mfc="none", label="control: an exchanged one is")
    figure.legend(loc="outside lower center", frameon=False, ncols=2)
    save(figure, path)


def found_features(data_set: str) -> dict[tuple[str, str, str], tuple[float, float]]:
    """Model, imputation and source -> hit@20 and control@20, mean over queries of all modalities.

    Only items that lack one modality ask. Standard scale and a learning rate of 0.005.
    """
    found = {}
    for line in Store(HERE.parent / "results" / "retrieval_real.jsonl").latest():
        point = line["point"]
        main = point["modality_scale"] == "standard" and point["learning_rate"] == 0.005
        if point["dataset"] != data_set or not main:
            continue
        for source, by_modality in line["retrieval"].items():
            groups = [modality["1 missing"] for modality in by_modality.values()]
            weights = [group["items"] for group in groups]
            hit, control = (
                float(np.average([group[measure] for group in groups], weights=weights))
                for measure in ("hit@20", "control@20")
            )
            found[point["model"], point["imputation"], source] = (hit, control)
    return found


def save(figure: Any, path: Path) -> None:
    """Write an SVG without the date."""
    figure.savefig(path, metadata={"Date": None}, bbox_inches="tight", facecolor="white")


PICTURES = {
    "flow.svg": flow,
    "mask.svg": mask,
    "results.svg": results,
    "retrieval.svg": retrieval,
}

if __name__ == "__main__":
    target = Path(sys.argv[1]) if sys.argv[1:] else HERE
    for name, draw in PICTURES.items():
        draw(target / name)
        print(f"Wrote {target / name}")
