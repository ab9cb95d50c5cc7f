"""Other projects' layouts -> a RecBole dataset folder.

:func:`import_mmrec` reads MMRec's layout (enoche/MMRec): one ``<dataset>.inter`` with ``userID``,
``itemID`` and ``x_label`` (0 training, 1 validation, 2 test), ``<modality>_feat.npy`` with one row
for each ``itemID``, optionally ``missed_img_itemIDs.csv``. :func:`import_dgmrec` reads the same
plus the masks and new items that DGMRec (ptkjw1997/DGMRec) releases. Pickled masks go through
:mod:`recbole_missing.data.legacy_pickle`.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml  # type: ignore[import-untyped]
from numpy.typing import NDArray

from recbole_missing.data.files import read_lines
from recbole_missing.data.legacy_pickle import integers, kind_of, load_pickled_arrays
from recbole_missing.data.missing import write_missing_file, write_token_file

# The letters of DGMRec's masks; also the order in which modalities are listed.
LETTERS = {"v": "image", "t": "text", "a": "audio"}
# MMRec fills these rows with the mean of the others: they are real holes.
HOLES = {"missed_img_itemIDs.csv": "image"}

USER, ITEM, LABEL = "userID", "itemID", "x_label"
SPLITS = ("train", "valid", "test")
KEPT_COLUMNS = {
    USER: "user_id:token",
    ITEM: "item_id:token",
    "rating": "rating:float",
    "timestamp": "timestamp:float",
}
MASK_FILE = re.compile(r"missing_items_(\d+(?:\.\d+)?)\.npy")

Lacking = dict[str, list[str]]


@dataclass(frozen=True)
class ImportReport:
    """What an importer wrote and what it left out; ``str()`` of it is for people."""

    folder: Path
    users: int
    items: int
    interactions: dict[str, int]
    modalities: dict[str, tuple[int, int]]
    masks: dict[str, dict[str, int]]
    new_items: int
    notes: list[str]

    def __str__(self) -> str:
        """Return the report, ending with the command to run next."""
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
class _Interactions:
    """Rows of an ``.inter`` file by split, cells as text; ``columns`` names the cells."""

    columns: list[str]
    splits: dict[str, list[list[str]]]

    def tokens(self, column: str, *splits: str) -> set[str]:
        """Distinct cells of ``column`` in some splits (none given: in all)."""
        index = self.columns.index(column)
        return {row[index] for split in splits or SPLITS for row in self.splits[split]}


@dataclass(frozen=True)
class _Layout:
    """A source folder, understood and checked; nothing is written yet."""

    inter_file: Path
    interactions: _Interactions
    features: dict[str, NDArray[Any]]
    holes: dict[str, NDArray[np.int64]]
    masks: dict[str, Lacking] = field(default_factory=dict)
    new_items: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def import_mmrec(
    source: Path | str, name: str, output: Path | str = Path("dataset"), force: bool = False
) -> ImportReport:
    """Turn a folder in MMRec's layout into the RecBole dataset folder ``<output>/<name>``.

    Users without a training interaction leave validation and test, as in MMRec.

    Args:
        source: the folder of the ``.inter`` file and the features.
        name: name of the new data set.
        output: the folder of RecBole data sets; created if absent.
        force: whether an existing ``<output>/<name>`` is replaced.

    Returns:
        What was written and what was left out.

    Raises:
        ValueError: if the source is incomplete or inconsistent, ``name`` is not a plain folder
            name, or the target exists and ``force`` is not given. Nothing is written then.
    """
    target = _target(Path(source), name, Path(output), force)
    layout = _read_mmrec(Path(source))
    masks = sorted(path.name for path in layout.inter_file.parent.glob("missing_items_*.npy"))
    if masks:
        layout.notes.append(f"{', '.join(masks)}: not read; `import dgmrec` reads masks")
    return _publish(layout, target, "mmrec")


def import_dgmrec(
    source: Path | str, name: str, output: Path | str = Path("dataset"), force: bool = False
) -> ImportReport:
    """Turn a folder in DGMRec's layout into the RecBole dataset folder ``<output>/<name>``.

    As :func:`import_mmrec`, with ``missing_items_<ratio>.npy`` as ``missing_<ratio>.tsv`` and the
    new items as ``new_items.txt``: the training items of ``X.inter`` that ``X_del.inter`` does
    not train on, else those of ``new_items.npy``.

    Args:
        source: the folder of the ``.inter`` file, the features and the masks.
        name: name of the new data set.
        output: the folder of RecBole data sets; created if absent.
        force: whether an existing ``<output>/<name>`` is replaced.

    Returns:
        What was written and what was left out.

    Raises:
        ValueError: as :func:`import_mmrec`, or if a mask is absent, ill-formed or unsafe.
    """
    target = _target(Path(source), name, Path(output), force)
    layout = _read_mmrec(Path(source))
    return _publish(replace(layout, masks=_masks(layout), new_items=_new(layout)), target, "dgmrec")


def _target(source: Path, name: str, output: Path, force: bool) -> Path:
    """The folder to write, once it is sure that writing it loses nothing."""
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
    if target.exists() and not force:
        raise ValueError(f"import: {target} must not exist yet; replace it with --force.")
    if target.exists() and not target.is_dir():
        raise ValueError(f"import: {target} must be a folder, got a file; move it away.")
    return target


def _read_mmrec(source: Path) -> _Layout:
    """What both layouts share: interactions, features, holes."""
    notes: list[str] = []
    inter_file = _inter_file(source)
    interactions = _read_interactions(inter_file, notes)
    features = {modality: _read_features(path) for modality, path in _feature_files(source).items()}
    last = max(map(int, interactions.tokens(ITEM)), default=-1)
    for modality, matrix in features.items():
        if len(matrix) <= last:
            raise ValueError(
                f"{modality}_feat.npy has {len(matrix)} rows, {inter_file.name} has item {last}; "
                f"a row belongs to the itemID of its number, so {last + 1} rows or more are needed."
            )
    interactions = _without_cold_users(interactions, notes)
    holes = {}
    for file, modality in HOLES.items():
        if (source / file).exists() and modality in features:
            holes[modality] = _read_holes(source / file, len(features[modality]))
            notes.append(f"{file}: {len(holes[modality])} items have no {modality}; rows left out")
    return _Layout(inter_file, interactions, features, holes, notes=notes)


def _inter_file(source: Path) -> Path:
    """The one interaction file; the one named after the folder if there are several."""
    found = sorted(p for p in source.glob("*.inter") if not p.stem.endswith("_del"))
    named = [path for path in found if path.stem == source.resolve().name]
    chosen = named or found
    if len(chosen) != 1:
        raise ValueError(
            f"{source}: must hold one <dataset>.inter, got {[path.name for path in found]}; "
            f"name one after the folder."
        )
    return chosen[0]


def _read_interactions(path: Path, notes: list[str]) -> _Interactions:
    """Rows by split, as text: an id is a name, so no parser may turn it into a number."""
    lines = read_lines(path)
    header = lines[0].split("\t") if lines else []
    absent = [column for column in (USER, ITEM, LABEL) if column not in header]
    if absent:
        raise ValueError(f"{path}: the header must name {absent}, got {header}.")
    columns = [column for column in KEPT_COLUMNS if column in header]
    places = [header.index(column) for column in columns]
    label = header.index(LABEL)
    splits: dict[str, list[list[str]]] = {split: [] for split in SPLITS}
    for number, line in enumerate(lines[1:], 2):
        cells = line.split("\t")
        _check_row(f"{path}: line {number}", header, cells)
        splits[SPLITS[int(cells[label])]].append([cells[place] for place in places])
    left_out = [column for column in header if column not in (*columns, LABEL)]
    if left_out:
        notes.append(f"{path.name}: columns {', '.join(left_out)} left out")
    return _Interactions(columns, splits)


def _check_row(who: str, header: list[str], cells: list[str]) -> None:
    row = dict(zip(header, cells))
    if len(cells) != len(header) or not row[USER]:
        raise ValueError(f"{who} must have {len(header)} cells and a {USER}, got {cells}.")
    if not re.fullmatch(r"0|[1-9][0-9]*", row[ITEM]):
        raise ValueError(f"{who}: {ITEM} must be a row number of the features, got {row[ITEM]!r}.")
    if row[LABEL] not in ("0", "1", "2"):
        raise ValueError(
            f"{who}: {LABEL} must be 0 (training), 1 (validation) or 2 (test), got {row[LABEL]!r}."
        )


def _without_cold_users(interactions: _Interactions, notes: list[str]) -> _Interactions:
    """Validation and test without the users that training does not know."""
    known = interactions.tokens(USER, "train")
    place = interactions.columns.index(USER)
    splits = {
        split: [row for row in rows if row[place] in known]
        for split, rows in interactions.splits.items()
    }
    for split, rows in splits.items():
        if not rows:
            raise ValueError(
                f"{split} interactions: must be one or more, got none with {LABEL} "
                f"{SPLITS.index(split)} of a user in training; the importer needs three parts."
            )
    dropped = {split: len(interactions.splits[split]) - len(rows) for split, rows in splits.items()}
    if any(dropped.values()):
        users = interactions.tokens(USER) - known
        counts = ", ".join(f"{split} {count}" for split, count in dropped.items() if count)
        notes.append(f"{len(users)} users without training interaction dropped from {counts}")
    return replace(interactions, splits=splits)


def _feature_files(source: Path) -> dict[str, Path]:
    """``<modality>_feat.npy`` by modality: those with a letter first, the others by name."""
    files = {path.name[: -len("_feat.npy")]: path for path in source.glob("*_feat.npy")}
    if not files:
        raise ValueError(f"{source}: must hold <modality>_feat.npy files, got none.")
    for modality, path in files.items():
        if not modality.isidentifier():
            raise ValueError(f"{path}: {modality!r} must be an identifier such as image; rename.")
    order = list(LETTERS.values())
    return dict(sorted(files.items(), key=lambda pair: _rank(pair[0], order)))


def _rank(modality: str, order: list[str]) -> tuple[int, str]:
    return (order.index(modality) if modality in order else len(order), modality)


def _read_features(path: Path) -> NDArray[Any]:
    """The matrix as it is, mapped from disk."""
    matrix = _load(path)
    if matrix.ndim != 2 or matrix.dtype.kind not in "fiub":
        raise ValueError(f"{path}: must be a matrix of numbers, got {kind_of(matrix)}.")
    return matrix


def _load(path: Path) -> NDArray[Any]:
    try:
        array = np.load(path, mmap_mode="r")
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f"{path}: must be a whole, unpickled .npy file, got: {error}") from error
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{path}: must be one .npy array, got {kind_of(array)}.")
    return array


def _read_holes(path: Path, n_rows: int) -> NDArray[np.int64]:
    """Item ids separated by tabs, commas or line breaks."""
    words = re.findall(r"[^\s,]+", "\n".join(read_lines(path)))
    strange = [word for word in words if not re.fullmatch(r"[0-9]+", word)]
    if strange:
        raise ValueError(f"{path}: must hold item ids, got {strange[:5]}; remove them.")
    return _in_range(str(path), np.array([int(word) for word in words], np.int64), n_rows)


def _in_range(who: str, items: NDArray[np.int64], n_rows: int) -> NDArray[np.int64]:
    """Distinct ids in order, once all are rows of the features."""
    strange = items[(items < 0) | (items >= n_rows)]
    if strange.size:
        raise ValueError(
            f"{who}: item ids must be between 0 and {n_rows - 1}, got {strange[:5].tolist()}."
        )
    return np.unique(items)


def _masks(layout: _Layout) -> dict[str, Lacking]:
    """Ratio, as written in the file name -> what each item lacks; the smallest ratio first."""
    ratios = {}
    for path in layout.inter_file.parent.glob("missing_items_*.npy"):
        match = MASK_FILE.fullmatch(path.name)
        if match is None:
            raise ValueError(f"{path}: must be named missing_items_<ratio>.npy, such as 0.6.")
        ratios[match[1]] = path
    if not ratios:
        raise ValueError(
            f"{layout.inter_file.parent}: must hold missing_items_<ratio>.npy, got none; "
            f"`import mmrec` needs no mask."
        )
    return {ratio: _read_mask(ratios[ratio], layout) for ratio in sorted(ratios, key=float)}


def _read_mask(path: Path, layout: _Layout) -> Lacking:
    """Item token -> modalities it lacks, of those that have features."""
    arrays = load_pickled_arrays(path)
    _check_mask(path, arrays, min(map(len, layout.features.values())))
    letters = [letter for letter in LETTERS if any(letter in key for key in arrays if key != "all")]
    # "all" means all that the file speaks of, which cannot be fewer than two.
    everything = letters if len(letters) > 1 else list(LETTERS)
    keys = {key: everything if key == "all" else list(key) for key in arrays}
    spoken = {LETTERS[letter] for key in keys.values() for letter in key}
    for modality in sorted(spoken - set(layout.features)):
        layout.notes.append(f"{path.name}: names {modality}, which has no features; left out")
    for modality in sorted(set(layout.features) - spoken):
        layout.notes.append(f"{path.name}: says nothing of {modality}, so no item lacks it")
    lacking = {}
    for key, items in arrays.items():
        modalities = [name for name in layout.features if name in {LETTERS[x] for x in keys[key]}]
        lacking.update({item: modalities for item in items.tolist() if modalities})
    return _known(path.name, {str(item): lacking[item] for item in sorted(lacking)}, layout)


def _check_mask(path: Path, arrays: Mapping[str, NDArray[np.int64]], n_rows: int) -> None:
    strange = [key for key in arrays if key != "all" and (not key or set(key) - set(LETTERS))]
    if strange or not arrays:
        raise ValueError(
            f"{path}: keys must be 'all' or made of the letters {', '.join(LETTERS)}, "
            f"got {list(arrays)}."
        )
    for key, items in arrays.items():
        _in_range(f"{path}, key {key!r}", items, n_rows)
    items, counts = np.unique(np.concatenate(list(arrays.values())), return_counts=True)
    if (counts > 1).any():
        raise ValueError(
            f"{path}: an item must be under one key once, got several entries for "
            f"{items[counts > 1][:5].tolist()}."
        )


def _known(who: str, lacking: Lacking, layout: _Layout) -> Lacking:
    """Without items that no interaction mentions: the data set will not know their tokens."""
    items = layout.interactions.tokens(ITEM)
    known = {token: names for token, names in lacking.items() if token in items}
    if len(known) < len(lacking):
        layout.notes.append(
            f"{who}: items without interaction left out: {len(lacking) - len(known)}"
        )
    return known


def _new(layout: _Layout) -> list[str]:
    """Tokens of the new items in the order of their ids; none if the source names none."""
    folder, stem = layout.inter_file.parent, layout.inter_file.stem
    deleted, listed = folder / f"{stem}_del.inter", folder / "new_items.npy"
    if deleted.exists():
        new = layout.interactions.tokens(ITEM, "train")
        new -= _read_interactions(deleted, []).tokens(ITEM, "train")
        if listed.exists():
            layout.notes.append(f"{listed.name}: not read; {deleted.name} says what is new")
    elif listed.exists():
        n_rows = min(map(len, layout.features.values()))
        items = _in_range(str(listed), integers(str(listed), _load(listed)), n_rows)
        new = set(_known(listed.name, {str(item): [] for item in items}, layout))
    else:
        new = set()
    return sorted(new, key=int)


def _publish(layout: _Layout, target: Path, kind: str) -> ImportReport:
    """Write the dataset folder beside its place, then put it there in one step."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as scratch:
        folder, old = Path(scratch, "new"), Path(scratch, "old")
        folder.mkdir()
        modalities = _write_features(layout, folder / "features")
        _write_interactions(layout.interactions, folder, target.name)
        for ratio, lacking in layout.masks.items():
            write_missing_file(folder / f"missing_{ratio}.tsv", lacking)
        if layout.new_items:
            write_token_file(folder / "new_items.txt", layout.new_items)
        (folder / f"{target.name}.yaml").write_text(_yaml(layout, target, kind), encoding="utf-8")
        try:
            if target.exists():
                target.replace(old)
            folder.replace(target)
        except BaseException:  # an interrupt must not leave the old data to the clean-up
            if old.exists():
                old.replace(target)
            raise
    return ImportReport(
        folder=target,
        users=len(layout.interactions.tokens(USER)),
        items=len(layout.interactions.tokens(ITEM)),
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


def _write_features(layout: _Layout, folder: Path) -> dict[str, tuple[int, int]]:
    """Matrix and item tokens of each modality; returns rows and columns written."""
    folder.mkdir()
    sizes = {}
    for modality, matrix in layout.features.items():
        rows = np.delete(np.arange(len(matrix)), layout.holes.get(modality, []))
        kept = matrix if len(rows) == len(matrix) else matrix[rows]
        np.save(folder / f"{modality}.npy", kept)
        write_token_file(folder / f"{modality}.ids", [str(row) for row in rows])
        sizes[modality] = (kept.shape[0], kept.shape[1])
    return sizes


def _write_interactions(interactions: _Interactions, folder: Path, name: str) -> None:
    header = "\t".join(KEPT_COLUMNS[column] for column in interactions.columns)
    for split, rows in interactions.splits.items():
        with (folder / f"{name}.{split}.inter").open("w", encoding="utf-8") as file:
            file.write(header + "\n")
            file.writelines("\t".join(row) + "\n" for row in rows)


def _yaml(layout: _Layout, target: Path, kind: str) -> str:
    """A RecBole config that runs the data set."""
    settings: dict[str, Any] = {
        "USER_ID_FIELD": "user_id",
        "ITEM_ID_FIELD": "item_id",
        "load_col": {"inter": ["user_id", "item_id"]},
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
