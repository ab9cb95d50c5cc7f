"""What commands on a data set share: the options that name it, and opening it as a run does."""

from __future__ import annotations

import warnings
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from recbole_missing.commands.options import imputation_settings, named
from recbole_missing.quiet import quiet

_MODEL = "BPR"
"""RecBole's settings belong to a model; this one reads no setting of the data."""
_FIXED = {
    "plugin_defaults": True,
    "metrics": ["Recall"],
    "topk": [1],
    "valid_metric": "Recall@1",
    "train_neg_sample_args": {"distribution": "uniform"},
}
"""Our defaults, and what fits the model and any data set: nothing is trained or evaluated here."""


@dataclass(frozen=True)
class Opened:
    """A data set that is read, filtered, encoded, split and masked.

    Args:
        config: RecBole's config.
        splits: training, validation and test split.
        notes: what was chosen or left out on the way, for people.
    """

    config: Any
    splits: list[Any]
    notes: list[str] = field(default_factory=list)


def add_data_set(parser: ArgumentParser, **options: Any) -> None:
    """Add the data set, ``--config_files`` and ``--data-path``."""
    parser.add_argument(
        "source",
        help="name of a RecBole data set, or its folder; a folder in MMRec's or DGMRec's layout",
        **options,
    )
    parser.add_argument(
        "--config_files",
        default="",
        help="YAML files, separated by spaces; they go over the YAML of the data set's folder",
    )
    parser.add_argument("--data-path", metavar="FOLDER", help="where data sets lie, for a name")


@contextmanager
def opened(known: Namespace, mask: str | None, edges: str | None = None) -> Iterator[Opened]:
    """Open the data set that the options of :func:`add_data_set` name.

    RecBole reads, filters, encodes and splits it as in a run with the same settings. A folder in
    MMRec's or DGMRec's layout is first imported into a temporary folder that is gone afterwards;
    each row of its features becomes an item there, also if no interaction names it.

    Args:
        known: the options.
        mask: a mask file that replaces the mask of the settings, ``none``, or None.
        edges: a file of item-item edges that replaces that of the settings, or None.

    Raises:
        ValueError: for whatever the settings or the files are refused for.
    """
    from recbole_missing.config.check import check_files, check_found_files
    from recbole_missing.convert.importers import import_rows

    files = known.config_files.split()
    check_files(files)
    _check_data_path(map(Path, files))
    folder = _folder(known.source, files, known.data_path)
    if folder is not None:
        check_found_files(_yaml(folder))
        _check_data_path(_yaml(folder))
    if folder is None or files or not _is_foreign(folder):
        yield _open(known.source, folder, files, mask, edges)
        return
    with TemporaryDirectory(prefix="recbole-missing-") as scratch:
        array, text = _which_mask(folder, mask)
        imported, notes = import_rows(folder, Path(scratch), array)
        masks = sorted(path.name for path in folder.glob("missing_items_*.npy"))
        notes += [f"masks in the folder: {', '.join(masks)}"] if masks else []
        found = None if edges is None else str(_find(folder, edges).resolve())
        yield _open(known.source, imported, [], text, found, notes)


def imputation_of(methods: Sequence[str], words: Sequence[str], config: Any) -> dict[str, Any]:
    """Every ``imputation_*`` setting: ``--set`` goes over the data set's YAML and ``config_files``.

    Args:
        methods: words of the ``imputation`` setting.
        words: the words of ``--set``.
        config: RecBole's config of the data set.

    Raises:
        ValueError: as :func:`~recbole_missing.commands.options.imputation_settings`.
    """
    values = imputation_settings(methods, words)
    chosen = {f"imputation_{key}" for key in named("--set", words)}
    found = {key: config[key] for key in values if key in config and key not in chosen}
    return {**values, **found}


def data_name(known: Namespace) -> str:
    """Last part of what names the data set, for the names of folders."""
    return Path(known.source).resolve().name


def _check_data_path(files: Iterable[Path]) -> None:
    from recbole_missing.config import constraints, defaults

    for file in files:
        value = defaults.load(file).get("data_path")
        constraints.check(
            str(file), {"data_path": value}, {"data_path": constraints.Optional(constraints.Text())}
        )


def _folder(source: str, files: list[str], data_path: str | None) -> Path | None:
    """The data set's folder; None if it is inside RecBole (ml-100k) or nowhere."""
    from recbole_missing.config import defaults

    if data_path is None and Path(source).is_dir():
        return Path(source)
    for file in files if data_path is None else ():
        data_path = defaults.load(Path(file)).get("data_path", data_path)
    folder = Path(data_path or "dataset") / source
    return folder if folder.is_dir() else None


def _open(
    source: str,
    folder: Path | None,
    files: list[str],
    mask: str | None,
    edges: str | None,
    notes: list[str] | None = None,
) -> Opened:
    from recbole.config import Config
    from recbole.utils import init_seed

    from recbole_missing.checkpoint import no_command_line
    from recbole_missing.data.dataset import MultimodalDataset
    from recbole_missing.data.interactions import check_interaction_files

    name, own = (source, []) if folder is None else _named(folder)
    here = folder or Path()
    settings = {**_FIXED, **_mask(here, mask)}
    if edges is not None:
        settings["imputation_edges_file"] = str(_find(here, edges).resolve())
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning)  # RecBole's use of pandas
        with quiet(), no_command_line():
            config = Config(_MODEL, name, [*map(str, own), *files], settings)
        if folder is not None:
            config["data_path"] = str(folder)
        if not Path(config["data_path"]).is_dir():
            raise ValueError(
                f"{source}: must be a folder or a data set in {Path(config['data_path']).parent}, "
                "got none of that name; correct it, or say where with --data-path."
            )
        check_interaction_files(config)
        init_seed(config["seed"], config["reproducibility"])
        splits = MultimodalDataset(config).build()
    protocol = config["missing_protocol"]
    chosen = config["missing_file"] if protocol == "file" else protocol
    return Opened(config, splits, [*(notes or []), f"mask: {Path(chosen).name}"])


def _named(folder: Path) -> tuple[str, list[Path]]:
    """Name of the data set in a folder, which its files begin with, and its own YAML if any."""
    yaml = _yaml(folder)
    stems = [folder.resolve().name, *(file.stem for file in yaml)]
    return next((stem for stem in stems if any(folder.glob(f"{stem}*.inter"))), stems[0]), yaml


def _yaml(folder: Path) -> list[Path]:
    """The YAML file named after the folder, or the only one; empty if there is no such file."""
    named = folder / f"{folder.resolve().name}.yaml"
    found = [named] if named.is_file() else sorted(folder.glob("*.yaml"))
    return found if len(found) == 1 else []


def _is_foreign(folder: Path) -> bool:
    """Tell whether a folder is in MMRec's layout: feature files, headers without types, no YAML."""
    from recbole_missing.config import defaults

    if not any(folder.glob("*_feat.npy")):
        return False
    headers = []
    for path in folder.glob("*.inter"):
        with path.open(encoding="utf-8", errors="replace") as file:
            headers.append(file.readline())
    typed = any(":" in header for header in headers)  # RecBole writes user_id:token
    return not typed and not any("modalities" in defaults.load(file) for file in _yaml(folder))


def _mask(folder: Path, mask: str | None) -> Mapping[str, Any]:
    """Settings of a mask that replaces the one of the YAML files."""
    from recbole_missing.data.single_files import NO_MASK

    if mask is None:
        return {}
    file = None if mask == NO_MASK else str(_find(folder, mask).resolve())
    return {
        "missing_protocol": "none" if file is None else "file",
        "missing_file": file,
        "missing_ratio": 0.0,
        "missing_stream": None,
        "missing_modalities": None,
    }


def _which_mask(folder: Path, mask: str | None) -> tuple[Path | None, str | None]:
    """The mask of a foreign folder: an array of DGMRec's, or else ``none`` or a file of ours."""
    from recbole_missing.data.single_files import NO_MASK

    arrays = sorted(folder.glob("missing_items_*.npy"))
    if mask is None:
        return (arrays[0], None) if arrays else (None, NO_MASK)
    if mask == NO_MASK:
        return None, NO_MASK
    path = _find(folder, mask).resolve()
    return (path, None) if path.suffix == ".npy" else (None, str(path))


def _find(folder: Path, file: str) -> Path:
    """Return ``file`` inside the folder, or as it stands.

    Raises:
        ValueError: if there is neither.
    """
    for path in (folder / file, Path(file)):
        if path.is_file():
            return path
    raise ValueError(f"{file}: must be a file, here or in {folder}, got none; correct the path.")
