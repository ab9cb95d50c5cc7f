"""A RecBole data set folder with its YAML, read without RecBole; what it holds is what a run sees.

:mod:`recbole_missing.convert.folder` writes such folders.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recbole_missing.config import defaults
from recbole_missing.convert.folder import SPLITS
from recbole_missing.data.aligned import Catalogue
from recbole_missing.data.files import read_columns, read_header
from recbole_missing.data.missing import draw

PADDING = "[PAD]"
NO_MASK = "none"
"""The word for: hide nothing (real holes stay)."""

Pairs = list[tuple[str, ...]]


@dataclass(frozen=True)
class RecBoleFolder:
    """A data set whose interactions are split into files.

    Args:
        path: the folder.
        name: first part of the names of its files.
        settings: its YAML over the package's defaults.
    """

    path: Path
    name: str
    settings: Mapping[str, Any]

    @property
    def fields(self) -> list[str]:
        """Names of the user and of the item column."""
        return [self.settings["USER_ID_FIELD"], self.settings["ITEM_ID_FIELD"]]

    def columns(self, split: int) -> list[str]:
        """Names of the columns of one split."""
        return read_header(self._file(split), self.settings["field_separator"])

    def rows(self, split: int, columns: Sequence[str]) -> Pairs:
        """Cells of the training (0), validation (1) or test (2) interactions."""
        return read_columns(self._file(split), columns, self.settings["field_separator"])

    def pairs(self) -> list[Pairs]:
        """User and item of every interaction, by split."""
        return [self.rows(split, self.fields) for split in range(len(SPLITS))]

    def catalogue(self, items: Sequence[str]) -> Catalogue:
        """Return what the readers of features want to know; ``items`` are without padding."""
        settings = self.settings
        separators = (settings["field_separator"], settings["seq_separator"])
        return Catalogue(self.name, self.path, [PADDING, *items], self.fields[1], *separators)

    def draw(
        self, items: Sequence[str], train: Pairs, mask: str | None
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Who lacks what and who is new, padding first; see :func:`missing.draw`.

        Args:
            items: item tokens without padding.
            train: training interactions.
            mask: a file that replaces the mask of the YAML, :data:`NO_MASK`, or None.
        """
        settings = dict(self.settings)
        if mask is not None:
            file = None if mask == NO_MASK else str(find(self.path, mask).resolve())
            protocol = "none" if file is None else "file"
            settings.update(missing_protocol=protocol, missing_file=file)
            settings.update(missing_stream=None, missing_modalities=None)
        place = {item: number for number, item in enumerate(items, 1)}
        counts = np.bincount([place[item] for _, item in train], minlength=len(items) + 1)
        return draw(settings, [PADDING, *items], settings["modalities"], counts, self.path)

    def _file(self, split: int) -> Path:
        path = self.path / f"{self.name}.{self.settings['benchmark_filename'][split]}.inter"
        if not path.is_file():
            raise ValueError(f"{path}: must be an interaction file, got no such file; add it.")
        return path


def open_folder(path: Path) -> RecBoleFolder:
    """Read the YAML of a data set folder: the one named after the folder, or the only one.

    Raises:
        ValueError: if there is none, or it does not name modalities and three parts.
    """
    if not path.is_dir():
        raise ValueError(f"{path}: must be a folder, got none of that name; correct the path.")
    found = _yaml_files(path)
    if len(found) != 1:
        raise ValueError(
            f"{path}: must hold {path.resolve().name}.yaml or one .yaml (`recbole-missing import` "
            "writes one), or <modality>_feat.npy as MMRec's folders do, got "
            f"{[file.name for file in sorted(path.iterdir())][:5]}; name single files instead."
        )
    settings = {**_defaults(), **defaults.load(found[0])}
    for key, length in (("modalities", None), ("benchmark_filename", len(SPLITS))):
        value = settings[key]
        if not isinstance(value, list) or not value or length not in (None, len(value)):
            example = "[image, text]" if length is None else f"[{', '.join(SPLITS)}]"
            raise ValueError(f"{found[0]}: {key} must be a list such as {example}, got {value!r}.")
    return RecBoleFolder(path, found[0].stem, settings)


def is_recbole_folder(path: Path) -> bool:
    """Tell whether a YAML in the folder names modalities."""
    return any("modalities" in defaults.load(file) for file in _yaml_files(path))


def _yaml_files(path: Path) -> list[Path]:
    """The YAML file named after the folder if there is one, else all of them."""
    named = path / f"{path.resolve().name}.yaml"
    return [named] if named.is_file() else sorted(path.glob("*.yaml"))


def find(folder: Path, file: str) -> Path:
    """Return ``file`` inside ``folder``, or as it stands.

    Raises:
        ValueError: if it is neither.
    """
    for path in (folder / file, Path(file)):
        if path.is_file():
            return path
    raise ValueError(f"{file}: must be a file, here or in {folder}, got none; correct the path.")


def in_order(tokens: Iterable[str]) -> list[str]:
    """Distinct tokens by number if all are plain numbers, else by their letters."""
    distinct = sorted(set(tokens))
    if all(re.fullmatch("0|[1-9][0-9]*", token) for token in distinct):
        distinct.sort(key=int)
    return distinct


def _defaults() -> dict[str, Any]:
    """What the package and RecBole say of the keys that are read here."""
    of_recbole = {
        "USER_ID_FIELD": "user_id",
        "ITEM_ID_FIELD": "item_id",
        "field_separator": "\t",
        "seq_separator": " ",
        "benchmark_filename": None,
    }
    return {**of_recbole, **defaults.load(defaults.root() / "overall.yaml")}
