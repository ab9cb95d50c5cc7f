"""``recbole-missing impute``: complete feature files, or measure which method does it best."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from recbole_missing.commands.opened import add_data_set, data_name, imputation_of, opened
from recbole_missing.commands.options import add_imputation, imputation_settings, named

RATIOS = (10, 30, 50, 70, 90)
CHECK = 10.0
_COLUMNS = {
    "missing": "missing",
    "reached": "reached",
    "unreached": "unreached",
    "energy_before": "energy\nbefore",
    "energy_after": "energy\nafter",
}
_CHECKED = {"check_cosine": "check:\ncosine", "check_mse": "\nMSE"}
_LEGEND = (
    "energy: Dirichlet energy of the features on the item graph, before (missing rows are zeros)\n"
    "and after imputation"
)
_CHECK_LEGEND = (
    "check: {percent:g}% of the observed rows of each modality hidden, completed and compared\n"
    "with the truth; MSE of features divided by their standard deviation, about 1 for the mean row"
)
_PARTNERS = {
    "interactions": "features",
    "features": "interactions",
    "ids": "features",
    "config_files": "source",
    "data_path": "source",
    "ratios": "evaluate",
    "methods": "evaluate",
    "only": "evaluate",
    "plot": "evaluate",
}


def arguments(parser: ArgumentParser) -> None:
    """Declare the command's options."""
    add_data_set(parser, nargs="?")
    files = parser.add_argument_group("single files instead of a data set (RecBole is not needed)")
    files.add_argument(
        "--interactions",
        type=Path,
        help="training interactions: .csv, .tsv or .inter with a header, or .npz (users x items)",
    )
    files.add_argument(
        "--features",
        nargs="+",
        metavar="NAME=FILE",
        help="feature matrices: image=a.npy text=b.npy",
    )
    files.add_argument(
        "--ids", nargs="+", metavar="NAME=FILE", help="files with the item token of each row"
    )
    parser.add_argument("--method", help="word of the setting `imputation` (default: featprop)")
    parser.add_argument("--edges", metavar="FILE", help="item-item edges of your own")
    parser.add_argument("--output", type=Path, help="folder to write (default: NAME_imputed)")
    parser.add_argument("--format", choices=["npy", "safetensors"], default="npy")
    parser.add_argument(
        "--check",
        type=float,
        nargs="?",
        const=CHECK,
        metavar="PERCENT",
        help="before completing, hide so many of the observed rows (default: 10) and measure how "
        "well the method restores them; a method that trains is trained once more for this",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the draw of hidden rows")
    parser.add_argument(
        "--ray",
        nargs="?",
        const="local",
        metavar="ADDRESS",
        help="share the work among the cores of this machine, or of a Ray cluster",
    )
    add_imputation(parser)
    _add_quality(parser)


def _add_quality(parser: ArgumentParser) -> None:
    """Declare the options that compare methods."""
    quality = parser.add_argument_group("instead of completing, measure quality")
    quality.add_argument("--evaluate", action="store_true", help="hide what is known, compare")
    quality.add_argument(
        "--ratios", nargs="+", type=float, help="percentages to hide (default: 10 30 50 70 90)"
    )
    quality.add_argument("--methods", nargs="+", help="methods to compare (default: all)")
    quality.add_argument(
        "--only", metavar="NAME", help="hide this modality alone (default: all at once)"
    )
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
        raise ValueError("impute: must be given a data set or --interactions; add or drop one.")
    for key, partner in _PARTNERS.items():
        if getattr(known, key) and not getattr(known, partner):
            wanted = "a data set" if partner == "source" else f"--{partner}"
            option = "--data-path" if key == "data_path" else f"--{key}"
            raise ValueError(f"impute: {option} must come with {wanted}; add it or drop {option}.")
    if known.evaluate and known.method:
        raise ValueError("impute: --evaluate compares --methods, got --method; add an s.")
    if known.evaluate and known.check is not None:
        raise ValueError("impute: --check must come without --evaluate, which measures; drop one.")
    if known.plot and find_spec("matplotlib") is None:
        raise ValueError(
            "impute: --plot needs matplotlib, got none; run `pip install 'recbole-missing[plot]'`."
        )


@contextmanager
def _collection(
    known: Namespace, methods: list[str], mask: str | None
) -> Iterator[tuple[Any, dict[str, Any], list[str]]]:
    """Items, features and interactions; settings of imputation; what to tell people."""
    from recbole_missing.data.collection import Collection
    from recbole_missing.data.single_files import read_files

    settings = imputation_settings(methods, known.set)
    if known.source is None:
        features, ids = (
            {name: Path(file) for name, file in named(option, words or []).items()}
            for option, words in (("--features", known.features), ("--ids", known.ids))
        )
        collection = read_files(known.interactions, features, ids, mask, known.edges)
        yield collection, settings, list(collection.notes)
        return
    with opened(known, mask, known.edges) as data:
        settings = imputation_of(methods, known.set, data.config)
        collection = Collection.of(data.splits[0])
        yield collection, settings, [*data.notes, *collection.notes]


def _complete(known: Namespace) -> None:
    from recbole_missing.atomic import REPORT, new_folder, write_report

    name = data_name(known) if known.source else known.interactions.stem
    target = known.output or Path(f"{name}_imputed")
    with new_folder(target, "impute", known.force) as folder:
        report = _completed(known, folder)
        write_report(folder, report)
    kind = known.format
    files = [f"{name}.{kind}, {name}_observed.{kind}" for name in report["modalities"]]
    print(table(report))
    print(f"Wrote {target}: {', '.join(files)}, items.ids, {REPORT}")


def _completed(known: Namespace, folder: Path) -> dict[str, Any]:
    """Write the completed features into a folder, and return the report."""
    from recbole_missing.imputation import make_imputer

    method = known.method or "featprop"
    with _collection(known, [method], known.missing) as (collection, settings, notes):
        settings = {**settings, "imputation": method}
        with _engine(known.ray) as engine:
            checked = _checked(known, collection, settings, engine)
            imputer = make_imputer(settings)
            imputer.engine = engine
            features = collection.completed(imputer)
        collection.write(folder, collection.in_source_space(features), known.format)
    return {
        **_report(collection, settings, imputer, features, checked),
        "check": known.check,
        "seed": known.seed,
        "notes": notes,
    }


def _report(
    collection: Any,
    settings: Mapping[str, Any],
    imputer: Any,
    features: Mapping[str, Any],
    checked: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """What was completed, by which method, and what is known about the result."""
    from recbole_missing.evaluation.imputation import energies
    from recbole_missing.version import __version__

    tables, interactions = collection.tables, collection.interactions
    energy = energies(imputer, tables, features, interactions, settings["imputation_top_k"])
    return {
        "version": __version__,
        "data": collection.name,
        "items": len(collection.items),
        "interactions": interactions.nnz,
        "settings": _of_method(settings),
        "modalities": {
            name: {
                "dim": rows.shape[1],
                **imputer.report_[name],
                **energy[name],
                **checked.get(name, {}),
            }
            for name, rows in features.items()
        },
    }


def _checked(
    known: Namespace, collection: Any, settings: Mapping[str, Any], engine: Any
) -> dict[str, dict[str, Any]]:
    """What ``--check`` measures of each modality; empty without it."""
    from recbole_missing.evaluation.imputation import compare

    if known.check is None:
        return {}
    data = collection.in_order()  # the draw must not depend on the order of a file
    scores = compare(
        data.tables, data.interactions, [settings["imputation"]], [known.check], settings,
        known.seed, None, data.donors, data.edges, apart=True, engine=engine,
    ).scores  # fmt: skip
    for score in scores:
        if score.error is not None:
            raise ValueError(f"impute: --check failed on {score.modality}: {score.error}")
    return {
        score.modality: {
            "check_rows": score.hidden,
            "check_cosine": score.measures["cosine"],
            "check_mse": score.measures["mse"],
        }
        for score in scores
    }


def _engine(ray: str | None) -> Any:
    """What runs the blocks, in a ``with`` block."""
    from recbole_missing.parallel import Ray, Serial

    progress = sys.stderr.isatty()
    if ray is None:
        return nullcontext(Serial(progress))
    return Ray(None if ray == "local" else ray, progress=progress)


def table(report: Mapping[str, Any]) -> str:
    """The table of a report, for people."""
    from recbole_missing import tables

    checked = report["check"] is not None
    columns = {**_COLUMNS, **(_CHECKED if checked else {})}
    settings = ", ".join(f"{key} {value}" for key, value in report["settings"].items())
    lines = [
        f"{report['data']}: {report['items']:,} items, {report['interactions']:,} training "
        f"interactions; {settings}"
    ]
    lines += [f"  {note}" for note in report["notes"]]
    rows = [[name, *(_cell(m[key]) for key in columns)] for name, m in report["modalities"].items()]
    lines.append(tables.plain(tables.Table.of_rows(["modality", *columns.values()], rows)))
    lines += _extra(report["modalities"], columns)
    lines += [_LEGEND, *([_CHECK_LEGEND.format(percent=report["check"])] if checked else [])]
    return "\n".join(lines)


def _extra(modalities: Mapping[str, Mapping[str, Any]], columns: Mapping[str, str]) -> list[str]:
    """One line a modality of what the method itself counted, such as iterations."""
    shown = {*columns, "dim", "items", "check_rows"}
    lines = []
    for name, values in modalities.items():
        own = [f"{key} {_cell(value)}" for key, value in values.items() if key not in shown]
        lines += [f"{name}: {', '.join(own)}"] if own else []
    return lines


def _cell(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _of_method(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The method and the settings that it reads, by their short names."""
    from recbole_missing.imputation import imputer_settings

    method = settings["imputation"]
    prefix = len("imputation_")
    return {"method": method, **{k[prefix:]: settings[k] for k in imputer_settings(method)}}


def _evaluate(known: Namespace) -> None:
    from recbole_missing.atomic import check_file, new_folder, whole_file, write_report
    from recbole_missing.report import plots

    if known.plot is not None:
        check_file(known.plot, known.force)
    if known.output is None:
        _, result = _measured(known)
    else:
        with new_folder(known.output, "impute", known.force) as folder:
            data, result = _measured(known)
            (folder / "evaluation.json").write_text(result.to_json(), encoding="utf-8")
            write_report(folder, {"data": data, "seed": known.seed})
        print(f"Wrote {known.output / 'evaluation.json'}")
    if known.plot is not None:
        with whole_file(known.plot, known.force) as temporary:
            plots.quality(result, temporary)
        print(f"Wrote {known.plot}")


def _measured(known: Namespace) -> tuple[str, Any]:
    """Compare methods, print the tables, and return the name of the data and the scores."""
    from recbole_missing.evaluation import imputation
    from recbole_missing.imputation import IMPUTERS

    methods = known.methods or list(IMPUTERS)
    ratios = known.ratios or list(RATIOS)
    with _collection(known, methods, known.missing or "none") as (collection, settings, _):
        data = collection.in_order()  # the draw must not depend on the order of a file
        with _engine(known.ray) as engine:
            result = imputation.compare(
                data.tables, data.interactions, methods, ratios, settings, known.seed, known.only,
                data.donors, data.edges, engine=engine,
            )  # fmt: skip
    print(result.table())
    print(f"\n{result.by_degree(ratios[len(ratios) // 2])}")
    return collection.name, result
