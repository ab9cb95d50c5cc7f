"""Write a RecBole data set in the layout of another project.

:func:`export_mmrec` writes the layout of MMRec (enoche/MMRec):

- ``<name>.inter`` with the three columns that MMRec reads: ``userID``, ``itemID`` and ``x_label``
  (0 training, 1 validation, 2 test),
- ``<modality>_feat.npy``, in which row r is item r,
- the settings for MMRec's ``src/configs/dataset``,
- ``missed_<modality>_itemIDs.csv``, the items that lack the modality. MMRec has no masks, so these
  items need imputed features. MMRec itself has such a list for images.

There is no exporter for Elliot (sisinflab/elliot). It reads the same data from other files: one
file without a header (user, item, rating) for each split, and for each modality a folder with one
``<item>.npy`` for each item. It drops items without such a file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import yaml  # type: ignore[import-untyped]
from numpy.typing import NDArray

from recbole_missing.atomic import new_folder, write_report
from recbole_missing.convert.folder import ITEM, SPLITS, USER
from recbole_missing.convert.importers import HOLES
from recbole_missing.data.collection import Collection, in_order
from recbole_missing.data.files import write_rows
from recbole_missing.data.missing import write_token_file
from recbole_missing.data.single_files import LABEL, NO_MASK
from recbole_missing.imputation import make_imputer
from recbole_missing.version import __version__

# The modalities that MMRec reads, and its setting for each.
FEATURE_FILES = {"image": "vision_feature_file", "text": "text_feature_file"}
_HOLE_FILES = {modality: file for file, modality in HOLES.items()}


@dataclass(frozen=True)
class ExportReport:
    """What was written. ``str()`` gives a text for the user."""

    folder: Path
    report: Mapping[str, Any]

    def __str__(self) -> str:
        """Return the report as text; its end says what to do next."""
        counts = self.report["interactions"].items()
        sizes = ", ".join(f"{split} {count:,}" for split, count in counts)
        lines = [
            f"Wrote {self.folder}",
            f"  {self.report['users']:,} users, {self.report['items']:,} items; "
            f"interactions: {sizes}",
        ]
        for name, facts in self.report["modalities"].items():
            filled = f", {facts['missing']:,} of them imputed" if facts["missing"] else ""
            lines.append(
                f"  {name}: {self.report['items']:,} rows, {facts['dim']:,} features{filled}"
            )
        lines += [f"  note: {note}" for note in self.report["notes"]]
        settings = self.folder / f"{self.folder.name}.yaml"
        lines.append(f"Next: copy the folder into MMRec's data/ and {settings} into")
        return "\n".join([*lines, "MMRec's src/configs/dataset/."])


def export_mmrec(
    splits: Sequence[Any],
    output: Path | str = Path("mmrec"),
    settings: Mapping[str, Any] | None = None,
    notes: Iterable[str] = (),
    force: bool = False,
) -> ExportReport:
    """Write a data set as ``<output>/<name>`` in MMRec's layout.

    Users and items with an interaction are numbered from 0 in the order of their tokens. The files
    ``u_id_mapping.csv`` and ``i_id_mapping.csv`` (tab separated, as in MMRec) hold the tokens.

    Args:
        splits: training, validation and test split of a built
            :class:`~recbole_missing.data.dataset.MultimodalDataset`.
        output: the folder of MMRec's data sets; created if absent.
        settings: ``imputation`` and all ``imputation_*`` keys; needed if an item lacks a modality.
        notes: further notes for the report.
        force: whether an earlier export is replaced.

    Raises:
        ValueError: if an item lacks a modality and there are no ``settings``, or the target
            exists. Nothing is written then.
    """
    target = Path(output) / splits[0].dataset_name
    with new_folder(target, "export", force) as folder:
        report = _export(splits, folder, target.name, settings, notes)
        write_report(folder, report)
    return ExportReport(target, report)


def _export(
    splits: Sequence[Any],
    folder: Path,
    name: str,
    settings: Mapping[str, Any] | None,
    notes: Iterable[str],
) -> dict[str, Any]:
    """Write the files of a data set, and return the report."""
    collection = Collection.of(splits[0])
    pairs = [_pairs(split) for split in splits]
    users, items = (in_order(pair[side] for part in pairs for pair in part) for side in (0, 1))
    place = {item: row for row, item in enumerate(collection.items)}
    rows = [place[item] for item in items]
    features = _features(collection, settings, rows)
    observed = {name: table.observed.numpy()[rows] for name, table in collection.tables.items()}
    user_ids = _write_mapping(folder / "u_id_mapping.csv", "user_id", USER, users)
    item_ids = _write_mapping(folder / "i_id_mapping.csv", "item_id", ITEM, items)
    _write_interactions(folder / f"{name}.inter", pairs, user_ids, item_ids)
    for modality, matrix in features.items():
        _write_features(folder, modality, matrix, observed[modality])
    (folder / f"{name}.yaml").write_text(_yaml(name, features), encoding="utf-8")
    return {
        "version": __version__,
        "imputation": settings and settings["imputation"],
        "users": len(users),
        "items": len(items),
        "interactions": {split: len(part) for split, part in zip(SPLITS, pairs)},
        "modalities": {
            modality: {"dim": matrix.shape[1], "missing": int((~observed[modality]).sum())}
            for modality, matrix in features.items()
        },
        "notes": [*notes, *collection.notes, *_notes(features)],
    }


def _pairs(split: Any) -> list[tuple[str, str]]:
    """User and item token of every interaction of a split, in the split's order."""
    users, items = (
        split.id2token(field, split.inter_feat[field].numpy()).tolist()
        for field in (split.uid_field, split.iid_field)
    )
    return list(zip(users, items))


def _features(
    collection: Collection, settings: Mapping[str, Any] | None, rows: Sequence[int]
) -> dict[str, NDArray[np.float32]]:
    """Modality -> features of the items in ``rows``, completed if there are settings."""
    if settings is not None:
        completed = collection.in_source_space(collection.completed(make_imputer(settings)))
        return {name: matrix.numpy()[rows] for name, matrix in completed.items()}
    for name, table in collection.tables.items():
        count = int((~table.observed[rows]).sum())
        if count:
            raise ValueError(
                f"export: every item must have every modality in MMRec, got {count:,} items "
                f"without {name}; impute their features with --method mean (as MMRec's own files "
                f"do), featprop or another, or lift a mask with --missing {NO_MASK}."
            )
    tables = {name: table.features for name, table in collection.tables.items()}
    return {name: m.numpy()[rows] for name, m in collection.in_source_space(tables).items()}


def _write_mapping(path: Path, token: str, number: str, tokens: Sequence[str]) -> dict[str, str]:
    """Number the tokens from 0, write tokens and numbers, and return token -> number."""
    numbers = {name: str(place) for place, name in enumerate(tokens)}
    write_rows(path, [(token, number), *numbers.items()])
    return numbers


def _write_interactions(
    path: Path,
    splits: Sequence[Sequence[tuple[str, str]]],
    users: Mapping[str, str],
    items: Mapping[str, str],
) -> None:
    labelled = (
        (users[user], items[item], str(label))
        for label, pairs in enumerate(splits)
        for user, item in pairs
    )
    write_rows(path, chain([(USER, ITEM, LABEL)], labelled))


def _write_features(
    folder: Path, name: str, matrix: NDArray[np.float32], observed: NDArray[np.bool_]
) -> None:
    np.save(folder / f"{name}_feat.npy", matrix)
    if not observed.all():
        file = _HOLE_FILES.get(name, f"missed_{name}_itemIDs.csv")
        write_token_file(folder / file, [str(item) for item in np.flatnonzero(~observed)])


def _yaml(name: str, modalities: Iterable[str]) -> str:
    """MMRec's settings of a data set."""
    settings = {
        "USER_ID_FIELD": USER,
        "ITEM_ID_FIELD": ITEM,
        "filter_out_cod_start_users": True,  # spelled so in MMRec
        "inter_file_name": f"{name}.inter",
        "inter_splitting_label": LABEL,
        "field_separator": "\t",
    }
    read = {FEATURE_FILES[m]: f"{m}_feat.npy" for m in modalities if m in FEATURE_FILES}
    head = "# For src/configs/dataset/ of MMRec. Written by `recbole-missing export mmrec`.\n"
    return head + yaml.safe_dump({**settings, **read}, sort_keys=False)


def _notes(modalities: Iterable[str]) -> list[str]:
    """Notes on what the user of MMRec must know or do."""
    strangers = [name for name in modalities if name not in FEATURE_FILES]
    notes = ["DualGNN, DRAGON and others also need user_graph_dict.npy, which MMRec's script makes"]
    if strangers:
        read = ", ".join(FEATURE_FILES)
        notes.append(f"MMRec reads {read}; {', '.join(strangers)} needs a model of your own")
    return notes
