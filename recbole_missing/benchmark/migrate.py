"""Convert a store from the first schema of version 0.1 to the present schema.

``python -m recbole_missing.benchmark.migrate STORE --data-path DIR``

In the first schema a run was identified by a hash of every known setting and by a
``data_fingerprint`` of the files. In the present schema it is identified by the data as built and
the settings in force.

A converted line keeps its measured values. It gets a new ``run``, the identity of its ``data``, and
a ``config`` without the settings that have no effect. Its ``source`` is null, because the code was
not recorded. Files in ``STORE.kept`` are renamed together with their runs. A line stays as it is if
its data in ``DIR`` have changed or are absent, or if one of its settings is refused. Such lines are
reported.
"""

from __future__ import annotations

import hashlib
import sys
from argparse import ArgumentParser
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from recbole_missing import checkpoint, identity, in_force, plugin
from recbole_missing.atomic import whole_file
from recbole_missing.benchmark import identified
from recbole_missing.benchmark.line import Line
from recbole_missing.benchmark.runner import dataset_folder
from recbole_missing.benchmark.store import Store
from recbole_missing.config import defaults
from recbole_missing.data import sources
from recbole_missing.data.catalogue import Catalogue


def migrate(path: Path, data_path: Path) -> list[str]:
    """Convert the lines of a store. Lines of the present schema stay as they are.

    Args:
        path: the store.
        data_path: folder of the data set folders.

    Returns:
        A message for each line that could not be converted.
    """
    with Store(path).locked():  # no other process may add a line meanwhile
        return _migrate(path, data_path)


def _migrate(path: Path, data_path: Path) -> list[str]:
    data_sets = identified.DataSets()
    lines, problems, renamed = [], [], {}
    for number, line in enumerate(Store(path).lines(), 1):
        try:
            new = line if line.data is not None else migrated(line, data_path, data_sets)
        except (ValueError, KeyError) as error:
            where = f"{path}, line {number} ({line['benchmark']}, {line['point']})"
            problems.append(f"{where}: left as it was: {error}")
            new = line
        renamed.update(zip((line["kept"] or {}).values(), (new["kept"] or {}).values()))
        lines.append(new)
    with whole_file(path) as temporary:
        text = "".join(line.as_json() + "\n" for line in lines)
        temporary.write_text(text, encoding="utf-8", newline="\n")
        for old, name in renamed.items():
            if (path.parent / old).is_file():
                (path.parent / old).replace(path.parent / name)
    return problems


def migrated(line: Line, data_path: Path, data_sets: identified.DataSets) -> Line:
    """Convert one line.

    Raises:
        ValueError: if the data are not those of the run, or a setting is wrong.
        KeyError: if a setting is absent.
    """
    old = dict(line["config"])
    model = plugin.get_model(line["point"]["model"])
    folder = dataset_folder(line["point"]["dataset"], data_path)
    # Settings that are younger than the line have their defaults, which change no result.
    config = checkpoint.rebuild_config({**defaults.overall(), **old})
    config["data_path"] = str(folder)
    if _fingerprint(old, folder) != old["data_fingerprint"]:
        raise ValueError(f"the files in {folder} must be those that the run read, got others.")
    parts = data_sets.identity(config)
    run = identity.of_run(model, parts, in_force.settings_in_force(old, model), line["stage"])
    kept = {k: v.replace(line["run"], run) for k, v in (line["kept"] or {}).items()}
    shown = in_force.described_settings(old, model)
    data = {"id": identity.digest(parts), **parts}
    mask = line["mask"] and {**line["mask"], "id": identified.mask_id(parts)}
    return replace(line, run=run, config=shown, data=data, mask=mask, kept=kept)


_DATA_SETTINGS = (
    "imputation", "imputation_edges_file", "missing_file", "missing_modalities",
    "missing_protocol", "missing_ratio", "missing_seed", "missing_stream", "modalities",
    "new_item_ratio", "new_items", "new_items_file", "test_mask",
)  # fmt: skip
_SPLIT_SETTINGS = (
    "benchmark_filename", "filter_inter_by_user_or_item", "item_inter_num_interval",
    "rm_dup_inter", "user_inter_num_interval", "val_interval",
)  # fmt: skip


def _fingerprint(config: Mapping[str, Any], folder: Path) -> str:
    """``data_fingerprint`` of the first schema: a hash of settings and of the files."""
    names = list(config["modalities"] or ())
    prefixes = ("missing_", "new_item", "imputation", *(f"{name}_" for name in names))
    keys = sorted(k for k in config if k in _DATA_SETTINGS or k.startswith(prefixes))
    values = [(key, config[key]) for key in (*keys, *_SPLIT_SETTINGS)]
    split = {key: value for key, value in config["eval_args"].items() if key != "mode"}
    seed = None if config["benchmark_filename"] else config["seed"]
    digest = hashlib.blake2b(repr((values, sorted(split.items()), seed)).encode(), digest_size=16)
    catalogue = Catalogue(config["dataset"], folder, (), config["ITEM_ID_FIELD"])
    files = list(folder.glob(f"{config['dataset']}*.inter"))
    for name in names:
        files += sources.feature_files(name, config, catalogue)
    named = ("missing_file", "new_items_file", "imputation_edges_file")
    files += [folder / config[key] for key in named if config[key]]
    for path in sorted({path for path in files if path.is_file()}):
        digest.update(path.name.encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def main() -> None:
    """Run the command. The exit code is 1 if a line could not be converted."""
    parser = ArgumentParser(description="Convert a store of the first schema.")
    parser.add_argument("store", type=Path)
    parser.add_argument("--data-path", type=Path, default=Path("dataset"), help="of the data sets")
    known = parser.parse_args()
    problems = migrate(known.store, known.data_path)
    print("\n".join([*problems, f"{known.store}: {len(problems)} lines left as they were"]))
    if problems:
        sys.exit(1)


if __name__ == "__main__":
    main()
