"""The content of a source folder, and how it is written as a RecBole data set folder."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml  # type: ignore[import-untyped]
from numpy.typing import NDArray

from recbole_missing.atomic import write_report
from recbole_missing.data.files import write_rows
from recbole_missing.data.missing import write_missing_file, write_token_file
from recbole_missing.version import __version__

USER, ITEM = "userID", "itemID"
SPLITS = ("train", "valid", "test")
KEPT_COLUMNS = {
    USER: "user_id:token",
    ITEM: "item_id:token",
    "rating": "rating:float",
    "timestamp": "timestamp:float",
}

Lacking = dict[str, list[str]]


@dataclass(frozen=True)
class ImportReport:
    """What an importer wrote and what it left out. ``str()`` gives a text for the user."""

    folder: Path
    users: int
    items: int
    interactions: dict[str, int]
    modalities: dict[str, tuple[int, int]]
    masks: dict[str, dict[str, int]]
    new_items: int
    notes: list[str]

    def __str__(self) -> str:
        """Return the report as text; its end is the command to run next."""
        name = self.folder.name
        sizes = ", ".join(f"{split} {count:,}" for split, count in self.interactions.items())
        lines = [
            f"Wrote {self.folder}",
            f"  {self.users:,} users, {self.items:,} items; interactions: {sizes}",
        ]
        for modality, (rows, dim) in self.modalities.items():
            lines.append(f"  {modality}: {rows:,} rows, {dim:,} features")
        for file, counts in self.masks.items():
            lacking = ", ".join(f"{modality} {count:,}" for modality, count in counts.items())
            lines.append(f"  {file}: items that lack {lacking}")
        if self.new_items:
            lines.append(f"  new_items.txt: {self.new_items:,} new items")
        lines += [f"  note: {note}" for note in self.notes]
        lines.append(
            f"Next: python run_recbole_missing.py --model=DGMRec --dataset={name} "
            f"--config_files={self.folder / name}.yaml"
        )
        return "\n".join(lines)


@dataclass(frozen=True)
class Interactions:
    """Rows of an ``.inter`` file by split. Cells are text, and ``columns`` has their names."""

    columns: list[str]
    splits: dict[str, list[list[str]]]

    def tokens(self, column: str, *splits: str) -> set[str]:
        """Distinct cells of ``column`` in some splits (none given: in all)."""
        index = self.columns.index(column)
        return {row[index] for split in splits or SPLITS for row in self.splits[split]}


@dataclass(frozen=True)
class Layout:
    """The content of a source folder, read and checked. Nothing is written yet.

    Args:
        inter_file: the interaction file.
        interactions: rows of that file by split.
        features: modality -> matrix; row r belongs to item r.
        holes: modality -> rows of the items that truly lack it.
        masks: name of a mask -> the modalities that each item lacks.
        new_items: tokens of the new items.
        notes: sentences on what was left out, for the report.
        every_row: True if each row of the features becomes an item of the data set, False if only
            items with an interaction do.
    """

    inter_file: Path
    interactions: Interactions
    features: dict[str, NDArray[Any]]
    holes: dict[str, NDArray[np.int64]]
    masks: dict[str, Lacking] = field(default_factory=dict)
    new_items: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    every_row: bool = False

    @property
    def items(self) -> list[str]:
        """Tokens of the items of the data set, in the order of their numbers."""
        if self.every_row:
            return [str(row) for row in range(max(map(len, self.features.values())))]
        return sorted(self.interactions.tokens(ITEM), key=int)


def target_folder(source: Path, name: str, output: Path) -> Path:
    """Return the folder to write. Check its name, and that it does not contain the source."""
    if not re.fullmatch(r"[\w-][\w.-]*", name) or ".." in name:
        raise ValueError(
            f"import: the name must be a plain folder name such as baby, got {name!r}."
        )
    if not source.is_dir():
        raise ValueError(f"import: the source must be a folder, got {str(source)!r}.")
    if output.exists() and not output.is_dir():
        raise ValueError(f"import: the output must be a folder, got the file {str(output)!r}.")
    target = output / name
    if target.resolve() in (source.resolve(), *source.resolve().parents):
        raise ValueError(f"import: {target} must not contain the source {source}; rename one.")
    return target


def write(layout: Layout, folder: Path, target: Path, kind: str) -> ImportReport:
    """Write the data set into ``folder``, which will become ``target``."""
    modalities = _write_features(layout, folder / "features")
    _write_interactions(layout.interactions, folder, target.name)
    if layout.every_row:
        write_token_file(folder / f"{target.name}.item", [KEPT_COLUMNS[ITEM], *layout.items])
    for ratio, lacking in layout.masks.items():
        write_missing_file(folder / f"missing_{ratio}.tsv", lacking, target.name, layout.items)
    if layout.new_items:
        write_token_file(folder / "new_items.txt", layout.new_items)
    (folder / f"{target.name}.yaml").write_text(_yaml(layout, target, kind), encoding="utf-8")
    report = ImportReport(
        folder=target,
        users=len(layout.interactions.tokens(USER)),
        items=len(layout.items),
        interactions={split: len(rows) for split, rows in layout.interactions.splits.items()},
        modalities=modalities,
        masks={
            f"missing_{ratio}.tsv": {
                name: sum(name in lacks for lacks in lacking.values()) for name in layout.features
            }
            for ratio, lacking in layout.masks.items()
        },
        new_items=len(layout.new_items),
        notes=layout.notes,
    )
    about = {"version": __version__, "layout": kind, **asdict(report)}
    write_report(folder, {**about, "folder": target.name})
    return report


def _write_features(layout: Layout, folder: Path) -> dict[str, tuple[int, int]]:
    """Write matrix and item tokens of each modality; return the numbers of rows and columns."""
    folder.mkdir()
    sizes = {}
    for modality, matrix in layout.features.items():
        rows = np.delete(np.arange(len(matrix)), layout.holes.get(modality, []))
        kept = matrix if len(rows) == len(matrix) else matrix[rows]
        np.save(folder / f"{modality}.npy", kept)
        write_token_file(folder / f"{modality}.ids", [str(row) for row in rows])
        sizes[modality] = (kept.shape[0], kept.shape[1])
    return sizes


def _write_interactions(interactions: Interactions, folder: Path, name: str) -> None:
    header = [KEPT_COLUMNS[column] for column in interactions.columns]
    for split, rows in interactions.splits.items():
        write_rows(folder / f"{name}.{split}.inter", [header, *rows])


def _yaml(layout: Layout, target: Path, kind: str) -> str:
    """YAML text of a RecBole config for the data set."""
    columns = {
        "inter": ["user_id", "item_id"],
        **({"item": ["item_id"]} if layout.every_row else {}),
    }
    settings: dict[str, Any] = {
        "USER_ID_FIELD": "user_id",
        "ITEM_ID_FIELD": "item_id",
        "load_col": columns,
        "benchmark_filename": list(SPLITS),
        "data_path": str(target.parent),
        "modalities": list(layout.features),
    }
    for modality in layout.features:
        settings[f"{modality}_features"] = f"features/{modality}.npy"
        settings[f"{modality}_ids"] = f"features/{modality}.ids"
    head = [f"Written by `recbole-missing import {kind}`."]
    if layout.masks:
        files = [f"missing_{ratio}.tsv" for ratio in layout.masks]
        settings.update({"missing_protocol": "file", "missing_file": files[0]})
        settings["imputation"] = "mean"  # as the release does
        head += [f"Another mask of the source: `missing_file: {file}`." for file in files[1:]]
    if layout.new_items:
        settings.update({"new_items": "none", "new_items_file": "new_items.txt"})
        head.append("For the setting with new items: `new_items: file`.")
    settings.update(metrics=["Recall", "NDCG"], topk=[10, 20, 50], valid_metric="Recall@20")
    comments = "".join(f"# {line}\n" for line in head)
    dumped: str = yaml.safe_dump(
        settings, sort_keys=False, default_flow_style=None, allow_unicode=True, width=1000
    )
    return comments + dumped
