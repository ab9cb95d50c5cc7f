"""``recbole-missing impute``: complete feature files, or measure which method does it best."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from recbole_missing.commands.options import add_imputation, imputation_settings, named

RATIOS = (10, 30, 50, 70, 90)
_LEGEND = (
    "energy: Dirichlet energy on the item graph, missing rows first zeros, then completed\n"
    "held out: a tenth of the observed rows hidden, completed; MSE of features divided by their\n"
    "standard deviation, about 1 for the mean row"
)
_PARTNERS = {
    "interactions": "features",
    "features": "interactions",
    "ids": "features",
    "ratios": "evaluate",
    "methods": "evaluate",
    "only": "evaluate",
    "plot": "evaluate",
}


def arguments(parser: ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument(
        "source",
        type=Path,
        nargs="?",
        help="a RecBole data set folder with its YAML, or a folder in MMRec's or DGMRec's layout",
    )
    files = parser.add_argument_group("single files instead of a folder")
    files.add_argument("--interactions", type=Path, help="training: users and items, or .npz")
    files.add_argument("--features", nargs="+", metavar="NAME=FILE", help="image=a.npy text=b.npy")
    files.add_argument("--ids", nargs="+", metavar="NAME=FILE", help="item token of each row")
    parser.add_argument("--method", help="word of the setting `imputation` (default: featprop)")
    parser.add_argument("--edges", metavar="FILE", help="item-item edges of your own")
    parser.add_argument("--output", type=Path, help="folder to write (default: NAME_imputed)")
    parser.add_argument("--format", choices=["npy", "safetensors"], default="npy")
    parser.add_argument("--seed", type=int, default=0, help="of the rows that are held out")
    parser.add_argument(
        "--ray",
        nargs="?",
        const="local",
        metavar="ADDRESS",
        help="share the work among the cores of this machine, or of a Ray cluster",
    )
    add_imputation(parser)
    quality = parser.add_argument_group("instead of completing, measure quality")
    quality.add_argument("--evaluate", action="store_true", help="hide what is known, compare")
    quality.add_argument("--ratios", nargs="+", type=float, help="percentages (default: 10 to 90)")
    quality.add_argument("--methods", nargs="+", help="default: every method")
    quality.add_argument("--only", metavar="NAME", help="hide this modality alone, not all")
    quality.add_argument("--plot", type=Path, help="file of a figure, such as quality.png")


def execute(known: Namespace) -> None:
    """Run the command.

    Raises:
        ValueError: for options that do not go together, and whatever the files are refused for.
    """
    _check(known)
    if known.evaluate:
        _evaluate(known)
    else:
        _complete(known)


def _check(known: Namespace) -> None:
    if (known.source is None) == (known.interactions is None):
        raise ValueError("impute: must be given a folder or --interactions; add or drop one.")
    for key, partner in _PARTNERS.items():
        if getattr(known, key) and not getattr(known, partner):
            raise ValueError(f"impute: --{key} must come with --{partner}; add it or drop --{key}.")
    if known.evaluate and known.method:
        raise ValueError("impute: --evaluate compares --methods, got --method; add an s.")
    if known.plot and find_spec("matplotlib") is None:
        raise ValueError(
            "impute: --plot needs matplotlib, got none; run `pip install 'recbole-missing[plot]'`."
        )


def _read(known: Namespace, mask: str | None) -> Any:
    from recbole_missing.imputation import tables

    if known.source is not None:
        return tables.read_folder(known.source, mask, known.edges)
    features, ids = (
        {name: Path(file) for name, file in named(option, words or []).items()}
        for option, words in (("--features", known.features), ("--ids", known.ids))
    )
    return tables.read_files(known.interactions, features, ids, mask, known.edges)


def _complete(known: Namespace) -> None:
    from recbole_missing.atomic import REPORT, check_target, new_folder
    from recbole_missing.imputation.completion import complete
    from recbole_missing.imputation.tables import write_tables
    from recbole_missing.version import __version__

    method = known.method or "featprop"
    settings = {"imputation": method, **imputation_settings([method], known.set)}
    name = known.source.resolve().name if known.source else known.interactions.stem
    target = check_target(known.output or Path(f"{name}_imputed"), known.force)
    collection = _read(known, known.missing)
    with _engine(known.ray) as engine:
        done = complete(collection, settings, known.seed, engine)
    report = {
        "version": __version__,
        "data": collection.name,
        "items": len(collection.items),
        "interactions": collection.interactions.nnz,
        "settings": _of_method(settings),
        "seed": known.seed,
        "modalities": done.report,
        "notes": collection.notes,
    }
    observed = {name: table.observed for name, table in collection.tables.items()}
    with new_folder(target, report) as folder:
        write_tables(folder, collection.items, done.features, observed, known.format)
    files = [f"{name}.{known.format}, {name}_observed.{known.format}" for name in done.features]
    print(table(report))
    print(f"Wrote {target}: {', '.join(files)}, items.ids, {REPORT}")


def _engine(ray: str | None) -> Any:
    """What runs the blocks, in a ``with`` block."""
    from recbole_missing.parallel import Ray, Serial

    progress = sys.stderr.isatty()
    if ray is None:
        return nullcontext(Serial(progress))
    return Ray(None if ray == "local" else ray, progress=progress)


def table(report: Mapping[str, Any]) -> str:
    """What a report says, for people."""
    from tabulate import tabulate

    columns = {
        "missing": "missing",
        "reached": "reached",
        "unreached": "unreached",
        "energy_before": "energy\nbefore",
        "energy_after": "energy\nafter",
        "held_out_cosine": "held out:\ncosine",
        "held_out_mse": "\nMSE",
    }
    settings = ", ".join(f"{key} {value}" for key, value in report["settings"].items())
    lines = [
        f"{report['data']}: {report['items']:,} items, {report['interactions']:,} training "
        f"interactions; {settings}"
    ]
    lines += [f"  {note}" for note in report["notes"]]
    rows = [[name, *(_cell(m[key]) for key in columns)] for name, m in report["modalities"].items()]
    align = ["left"] + ["right"] * len(columns)
    headers = ["modality", *columns.values()]
    lines.append(tabulate(rows, headers, disable_numparse=True, colalign=align))
    lines += _extra(report["modalities"], columns)
    return "\n".join([*lines, _LEGEND])


def _extra(modalities: Mapping[str, Mapping[str, Any]], columns: Mapping[str, str]) -> list[str]:
    """What a method counts of its own, such as iterations, one line a modality."""
    shown = {*columns, "dim", "items", "held_out_rows"}
    lines = []
    for name, values in modalities.items():
        own = [f"{key} {_cell(value)}" for key, value in values.items() if key not in shown]
        lines += [f"{name}: {', '.join(own)}"] if own else []
    return lines


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _of_method(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The method and the settings that it reads, by their short names."""
    from recbole_missing.imputation import imputer_settings

    method = settings["imputation"]
    prefix = len("imputation_")
    return {"method": method, **{k[prefix:]: settings[k] for k in imputer_settings(method)}}


def _evaluate(known: Namespace) -> None:
    from recbole_missing.atomic import check_target, new_folder
    from recbole_missing.evaluation import imputation
    from recbole_missing.imputation import IMPUTERS
    from recbole_missing.report import plots

    methods = known.methods or list(IMPUTERS)
    settings = imputation_settings(methods, known.set)
    ratios = known.ratios or list(RATIOS)
    if known.plot is not None and known.plot.exists() and not known.force:
        raise ValueError(f"{known.plot}: must not exist yet; replace it with --force.")
    if known.output is not None:
        check_target(known.output, known.force)
    collection = _read(known, known.missing or "none")
    result = imputation.compare(
        collection.tables,
        collection.interactions,
        methods,
        ratios,
        settings,
        seed=known.seed,
        only=known.only,
        donors=collection.donors,
        edges=collection.edges,
    )
    print(result.table())
    print(f"\n{result.by_degree(ratios[len(ratios) // 2])}")
    if known.output is not None:
        with new_folder(known.output, {"data": collection.name, "seed": known.seed}) as folder:
            (folder / "evaluation.json").write_text(result.to_json(), encoding="utf-8")
        print(f"Wrote {known.output / 'evaluation.json'}")
    if known.plot is not None:
        known.plot.parent.mkdir(parents=True, exist_ok=True)
        plots.quality(result, known.plot)
        print(f"Wrote {known.plot}")
