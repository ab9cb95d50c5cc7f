"""A RecBole data set folder -> other projects' layouts.

:func:`export_mmrec` writes MMRec's (enoche/MMRec): ``<name>.inter`` with ``userID``, ``itemID`` and
``x_label`` (0 training, 1 validation, 2 test), ``<modality>_feat.npy`` whose row r is item r, and
the settings that MMRec's ``src/configs/dataset`` wants. MMRec knows no mask: whoever lacks a
modality needs invented features, and is listed in ``missed_<modality>_itemIDs.csv`` as MMRec lists
items without an image.

Elliot (sisinflab/elliot) reads the same facts laid out otherwise: one file without a header for
each split (user, item, rating), and a folder with one ``<item>.npy`` an item for each modality; it
drops items that have no such file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
import yaml  # type: ignore[import-untyped]
from numpy.typing import NDArray

from recbole_missing.atomic import check_target, new_folder
from recbole_missing.convert.folder import ITEM, KEPT_COLUMNS, SPLITS, USER
from recbole_missing.convert.importers import HOLES, LABEL
from recbole_missing.data.missing import write_token_file
from recbole_missing.data.recbole_folder import NO_MASK, RecBoleFolder, in_order, open_folder
from recbole_missing.imputation.completion import fill
from recbole_missing.imputation.tables import Collection, read_folder
from recbole_missing.version import __version__

# The modalities that MMRec reads, and its setting for each.
FEATURE_FILES = {"image": "vision_feature_file", "text": "text_feature_file"}
_HOLE_FILES = {modality: file for file, modality in HOLES.items()}


@dataclass(frozen=True)
class ExportReport:
    """What was written; ``str()`` of it is for people."""

    folder: Path
    report: Mapping[str, Any]

    def __str__(self) -> str:
        """Return the report, ending with what to do next."""
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
    source: Path | str,
    output: Path | str = Path("mmrec"),
    settings: Mapping[str, Any] | None = None,
    mask: str | None = None,
    force: bool = False,
) -> ExportReport:
    """Write a RecBole data set folder as ``<output>/<name>`` in MMRec's layout.

    Users and items get numbers from 0 in the order of their tokens; ``u_id_mapping.csv`` and
    ``i_id_mapping.csv`` (tab separated, as MMRec's are) keep the tokens.

    Args:
        source: the data set folder, with its YAML.
        output: the folder of MMRec's data sets; created if absent.
        settings: ``imputation`` and all ``imputation_*`` keys; needed if an item lacks a modality.
        mask: replaces the mask of the YAML: a file, or ``none``.
        force: whether a former export is replaced.

    Raises:
        ValueError: if the source is refused, an item lacks a modality and there are no
            ``settings``, or the target exists. Nothing is written then.
    """
    folder = open_folder(Path(source))
    target = check_target(Path(output) / folder.name, force)
    collection = read_folder(folder.path, mask)
    features = _features(collection, settings)
    columns, splits = _interactions(folder, collection)
    users, items = in_order(row[0] for rows in splits for row in rows), in_order(collection.items)
    place = {item: row for row, item in enumerate(collection.items)}
    order = [place[item] for item in items]
    observed = {name: table.observed.numpy()[order] for name, table in collection.tables.items()}
    report = {
        "version": __version__,
        "imputation": settings and settings["imputation"],
        "users": len(users),
        "items": len(items),
        "interactions": {name: len(rows) for name, rows in zip(SPLITS, splits)},
        "modalities": {
            name: {"dim": matrix.shape[1], "missing": int((~observed[name]).sum())}
            for name, matrix in features.items()
        },
        "notes": [*collection.notes, *_notes(features)],
    }
    with new_folder(target, report) as scratch:
        user_ids = _write_mapping(scratch / "u_id_mapping.csv", "user_id", USER, users)
        item_ids = _write_mapping(scratch / "i_id_mapping.csv", "item_id", ITEM, items)
        file = scratch / f"{target.name}.inter"
        _write_interactions(file, columns, splits, user_ids, item_ids)
        for name, matrix in features.items():
            _write_features(scratch, name, matrix[order], observed[name])
        (scratch / f"{target.name}.yaml").write_text(_yaml(target.name, features), encoding="utf-8")
    return ExportReport(target, report)


def _features(
    collection: Collection, settings: Mapping[str, Any] | None
) -> dict[str, NDArray[np.float32]]:
    if settings is not None:
        return {name: rows.numpy() for name, rows in fill(collection, settings).items()}
    for name, table in collection.tables.items():
        count = int((~table.observed).sum())
        if count:
            raise ValueError(
                f"export: MMRec knows no missing modality, got {count:,} items without {name}; "
                "invent their features with --method mean (as MMRec's own files do), featprop or "
                f"another, or uncover what a mask hides with --missing {NO_MASK}."
            )
    return {name: table.features.numpy() for name, table in collection.tables.items()}


def _interactions(
    folder: RecBoleFolder, collection: Collection
) -> tuple[list[str], list[list[tuple[str, ...]]]]:
    """Columns by MMRec's names, and rows by split; what is training of new items becomes test."""
    of_all = set.intersection(*(set(folder.columns(split)) for split in range(len(SPLITS))))
    extra = [name for name in KEPT_COLUMNS if name in of_all.difference(folder.fields)]
    rows = [folder.rows(split, [*folder.fields, *extra]) for split in range(len(SPLITS))]
    if collection.donors is not None:
        new = set(compress(collection.items, ~collection.donors))
        rows[2] = rows[2] + [row for row in rows[0] if row[1] in new]
        rows[0] = [row for row in rows[0] if row[1] not in new]
    return [USER, ITEM, *extra], rows


def _write_mapping(path: Path, token: str, number: str, tokens: Sequence[str]) -> dict[str, str]:
    """Number the tokens from 0, write both, return token -> number."""
    numbers = {name: str(place) for place, name in enumerate(tokens)}
    lines = [f"{token}\t{number}", *("\t".join(pair) for pair in numbers.items())]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return numbers


def _write_interactions(
    path: Path,
    columns: Sequence[str],
    splits: Sequence[Sequence[tuple[str, ...]]],
    users: Mapping[str, str],
    items: Mapping[str, str],
) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write("\t".join([*columns, LABEL]) + "\n")
        for label, rows in enumerate(splits):
            for user, item, *rest in rows:
                file.write("\t".join([users[user], items[item], *rest, str(label)]) + "\n")


def _write_features(
    folder: Path, name: str, matrix: NDArray[np.float32], observed: NDArray[np.bool_]
) -> None:
    np.save(folder / f"{name}_feat.npy", matrix)
    if not observed.all():
        file = _HOLE_FILES.get(name, f"missed_{name}_itemIDs.csv")
        write_token_file(folder / file, [str(item) for item in np.flatnonzero(~observed)])


def _yaml(name: str, modalities: Iterable[str]) -> str:
    """What MMRec wants to know of a data set."""
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
    """What MMRec leaves to its user."""
    strangers = [name for name in modalities if name not in FEATURE_FILES]
    notes = ["DualGNN, DRAGON and others also want user_graph_dict.npy, which MMRec's script makes"]
    if strangers:
        read = ", ".join(FEATURE_FILES)
        notes.append(f"MMRec reads {read}; {', '.join(strangers)} needs a model of your own")
    return notes
