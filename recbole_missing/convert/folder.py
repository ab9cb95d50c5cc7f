"""The content of a source folder, and how it is written as a RecBole data set folder."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml  # type: ignore[import-untyped]
from numpy.typing import NDArray

from recbole_missing.atomic import write_report
from recbole_missing.data import pictures
from recbole_missing.data.catalogue import first_few
from recbole_missing.data.collection import in_order
from recbole_missing.data.files import write_rows
from recbole_missing.data.missing import write_missing_file, write_token_file
from recbole_missing.data.names import check_names, of_any_run
from recbole_missing.tables import counted
from recbole_missing.version import __version__

USER, ITEM = "userID", "itemID"
SPLITS = ("train", "valid", "test")
WHOLE = "all"
"""Key of interactions that the source does not split; RecBole splits them in a run."""
RANDOM_SPLIT = {"split": {"RS": [0.8, 0.1, 0.1]}, "order": "RO", "group_by": "user", "mode": "full"}
"""RecBole's own ``eval_args``, written out for interactions without a split."""
KEPT_COLUMNS = {
    USER: "user_id:token",
    ITEM: "item_id:token",
    "rating": "rating:float",
    "timestamp": "timestamp:float",
}

IMAGE = "image"
"""The modality of pictures, which are copied into the folder ``images`` of the data set."""

Lacking = dict[str, list[str]]

_CUT_OFFS = (1, 3, 5, 10, 20, 50)
_SHARE = 4  # a list is at most one in so many items long, so that chance alone stays small
_NAME_SIZE = 200  # bytes of a name; names of files add to it, and most systems allow 255


@dataclass(frozen=True)
class ImportReport:
    """What an importer wrote and what it left out. ``str()`` gives a text for the user."""

    folder: Path
    users: int
    items: int
    interactions: dict[str, int]
    modalities: dict[str, tuple[int, int]]
    texts: dict[str, int]
    images: int
    masks: dict[str, dict[str, int]]
    new_items: int
    notes: list[str]

    def __str__(self) -> str:
        """Return the report as text; its end is the command to run next."""
        sizes = ", ".join(f"{split} {count:,}" for split, count in self.interactions.items())
        lines = [
            f"Wrote {self.folder}",
            f"  {counted(self.users, 'user')}, {counted(self.items, 'item')}; "
            f"interactions: {sizes}",
        ]
        for modality, (rows, dim) in self.modalities.items():
            lines.append(f"  {modality}: {counted(rows, 'row')}, {counted(dim, 'feature')}")
        for modality, count in self.texts.items():
            lines.append(f"  {modality}: {counted(count, 'text')}")
        if self.images:
            lines.append(f"  {IMAGE}: {counted(self.images, 'picture')}, copied")
        for file, counts in self.masks.items():
            lacking = ", ".join(f"{modality} {count:,}" for modality, count in counts.items())
            lines.append(f"  {file}: items that lack {lacking}")
        if self.new_items:
            lines.append(f"  new_items.txt: {counted(self.new_items, 'new item')}")
        lines += [f"  note: {note}" for note in self.notes]
        return "\n".join([*lines, next_command("DGMRec", self.folder)])


def next_command(model: str, folder: Path) -> str:
    """Last line of a report: the command that trains a model on the data set in a folder."""
    name = folder.name
    files = f"--config_files={folder / name}.yaml"
    return f"Next: recbole-missing run --model={model} --dataset={name} {files}"


@dataclass(frozen=True)
class Interactions:
    """Rows of an ``.inter`` file by split. Cells are text, and ``columns`` has their names.

    The keys of ``splits`` are :data:`SPLITS`, or :data:`WHOLE` alone.
    """

    columns: list[str]
    splits: dict[str, list[list[str]]]

    def tokens(self, column: str, *splits: str) -> set[str]:
        """Distinct cells of ``column`` in some splits (none given: in all)."""
        index = self.columns.index(column)
        return {row[index] for split in splits or self.splits for row in self.splits[split]}


@dataclass(frozen=True)
class Layout:
    """The content of a source folder, read and checked. Nothing is written yet.

    Args:
        interactions: rows by split.
        features: modality -> matrix; row r belongs to item r, unless ``ids`` says otherwise.
        holes: modality -> rows of the items that truly lack it.
        ids: modality -> item token of each row; a modality that is absent has row numbers.
        texts: modality -> text of each item that has one.
        images: the picture of each item that has one; together they are the modality ``image``.
        masks: name of a mask -> the modalities that each item lacks.
        new_items: tokens of the new items.
        notes: sentences on what was left out, for the report.
        every_row: True if each row of the features becomes an item of the data set, False if only
            items with an interaction do.
    """

    interactions: Interactions
    features: dict[str, NDArray[Any]]
    holes: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    ids: dict[str, list[str]] = field(default_factory=dict)
    texts: dict[str, dict[str, str]] = field(default_factory=dict)
    images: Mapping[str, Path] = field(default_factory=dict)
    masks: dict[str, Lacking] = field(default_factory=dict)
    new_items: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    every_row: bool = False

    @property
    def items(self) -> list[str]:
        """Tokens of the items of the data set, in order (:func:`in_order`)."""
        if self.every_row:
            return [str(row) for row in range(max(map(len, self.features.values())))]
        return in_order(self.interactions.tokens(ITEM))

    @property
    def modalities(self) -> list[str]:
        """Names of the modalities."""
        return [*self.features, *self.texts, *([IMAGE] if self.images else [])]


def target_folder(source: Path, name: str, output: Path) -> Path:
    """Return the folder to write. Check its name, and that it does not contain the source."""
    if not re.fullmatch(r"\w([\w.-]*[\w-])?", name) or ".." in name:
        raise ValueError(
            f"import: the name must be a plain folder name such as baby, got {name!r}."
        )
    if len(name.encode()) > _NAME_SIZE:
        raise ValueError(
            f"import: the name must have {_NAME_SIZE} bytes at most, got {len(name.encode()):,} "
            f"({name:.20}...); choose a shorter one."
        )
    if not source.is_dir():
        raise ValueError(f"import: the source must be a folder, got {str(source)!r}.")
    if output.exists() and not output.is_dir():
        raise ValueError(f"import: the output must be a folder, got the file {str(output)!r}.")
    target = output / name
    if target.resolve() in (source.resolve(), *source.resolve().parents):
        raise ValueError(f"import: {target} must not contain the source {source}; rename one.")
    return target


def check_modality_names(names: Iterable[str]) -> None:
    """Refuse names of modalities that some run would refuse.

    Raises:
        ValueError: naming the modality.
    """
    check_names(names, of_any_run())


def find_pictures(folder: Path, notes: list[str]) -> list[Path]:
    """Pictures in a folder and in the folders inside it. A sentence counts those that are no files.

    Args:
        folder: the folder.
        notes: gets the sentence.
    """
    named = pictures.find(folder)
    files = [path for path in named if path.is_file()]
    if len(files) < len(named):
        odd = [str(path.relative_to(folder)) for path in named if not path.is_file()]
        notes.append(
            f"{IMAGE}: {len(odd):,} of {len(named):,} pictures are no files (a broken link, a "
            f"named pipe), left out: {first_few(odd, 3)}"
        )
    return files


def copy_pictures(files: Mapping[str, Path], folder: Path) -> None:
    """Copy the picture of each item into the folder ``images`` of a data set, named by its item."""
    (folder / "images").mkdir()
    for token, path in files.items():
        shutil.copyfile(path, folder / "images" / f"{token}{path.suffix}")


def write(layout: Layout, folder: Path, target: Path, kind: str) -> ImportReport:
    """Write the data set into ``folder``, which will become ``target``.

    Raises:
        ValueError: if no run would take the name of a modality.
    """
    check_modality_names(layout.modalities)
    modalities = _write_features(layout, folder / "features")
    _write_interactions(layout.interactions, folder, target.name)
    if layout.every_row or layout.texts:
        _write_items(layout, folder / f"{target.name}.item")
    for ratio, lacking in layout.masks.items():
        write_missing_file(folder / f"missing_{ratio}.tsv", lacking, target.name, layout.items)
    if layout.new_items:
        write_token_file(folder / "new_items.txt", layout.new_items)
    if layout.images:
        copy_pictures(layout.images, folder)
    (folder / f"{target.name}.yaml").write_text(_yaml(layout, target, kind), encoding="utf-8")
    report = ImportReport(
        folder=target,
        users=len(layout.interactions.tokens(USER)),
        items=len(layout.items),
        interactions={split: len(rows) for split, rows in layout.interactions.splits.items()},
        modalities=modalities,
        texts={name: sum(map(bool, texts.values())) for name, texts in layout.texts.items()},
        images=len(layout.images),
        masks={
            f"missing_{ratio}.tsv": {
                name: sum(name in lacks for lacks in lacking.values()) for name in layout.modalities
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
        ids = layout.ids.get(modality)
        tokens = [str(row) if ids is None else ids[row] for row in rows.tolist()]
        np.save(folder / f"{modality}.npy", kept)
        write_token_file(folder / f"{modality}.ids", tokens)
        sizes[modality] = (kept.shape[0], kept.shape[1])
    return sizes


def _write_items(layout: Layout, path: Path) -> None:
    """Write the ``.item`` file: the items of the data set and their texts."""
    header = [KEPT_COLUMNS[ITEM], *(f"{name}:token_seq" for name in layout.texts)]
    texts = layout.texts.values()
    rows = ([item, *(text.get(item, "") for text in texts)] for item in layout.items)
    write_rows(path, [header, *rows])


def _write_interactions(interactions: Interactions, folder: Path, name: str) -> None:
    header = [KEPT_COLUMNS[column] for column in interactions.columns]
    for split, rows in interactions.splits.items():
        file = f"{name}.inter" if split == WHOLE else f"{name}.{split}.inter"
        write_rows(folder / file, [header, *rows])


def _split(layout: Layout) -> dict[str, Any]:
    """Settings that say how the interactions are split."""
    if WHOLE in layout.interactions.splits:
        return {"eval_args": RANDOM_SPLIT}
    return {"benchmark_filename": list(SPLITS)}


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
        **_split(layout),
        "data_path": str(target.parent),
        "modalities": layout.modalities,
    }
    for modality in layout.features:
        settings[f"{modality}_features"] = f"features/{modality}.npy"
        settings[f"{modality}_ids"] = f"features/{modality}.ids"
    for modality in layout.texts:
        settings.update({f"{modality}_columns": modality, f"{modality}_encoder": "text"})
    if layout.images:
        settings[f"{IMAGE}_images"] = "images"
    head = [f"Written by `recbole-missing import {kind}`."]
    if layout.masks:
        files = [f"missing_{ratio}.tsv" for ratio in layout.masks]
        settings.update({"missing_protocol": "file", "missing_file": files[0]})
        settings["imputation"] = "mean"  # as the release does
        head += [f"Another mask of the source: `missing_file: {file}`." for file in files[1:]]
    if layout.new_items:
        settings.update({"new_items": "none", "new_items_file": "new_items.txt"})
        head.append("For the setting with new items: `new_items: file`.")
    return yaml_text([("\n".join(head), settings), evaluation(len(layout.items))])


def evaluation(n_items: int) -> tuple[str, dict[str, Any]]:
    """Comment and settings of metrics whose lists are short beside the number of items."""
    topk = [k for k in _CUT_OFFS if _SHARE * k <= n_items][-3:] or [1]
    middle = topk[len(topk) // 2]
    return (
        f"Lengths of the lists that are judged; they fit the {n_items:,} items.\n"
        "Training stops when valid_metric no longer grows.",
        {"metrics": ["Recall", "NDCG"], "topk": topk, "valid_metric": f"Recall@{middle}"},
    )


def yaml_text(parts: Iterable[tuple[str, Mapping[str, Any]]]) -> str:
    """YAML text of comments and the settings below each."""
    return "\n".join(_yaml_lines(parts))


def _yaml_lines(parts: Iterable[tuple[str, Mapping[str, Any]]]) -> Iterator[str]:
    for comment, settings in parts:
        yield from (f"# {line}" for line in comment.split("\n") if line)
        yield from (f"{key}: {_yaml_value(value)}" for key, value in settings.items())
        yield ""


def _yaml_value(value: Any) -> str:
    """A value as YAML in one line."""
    options: dict[str, Any] = {"sort_keys": False, "allow_unicode": True, "width": 10_000}
    text: str = yaml.safe_dump(value, default_flow_style=True, **options)
    return text.removesuffix("...\n").rstrip("\n")
