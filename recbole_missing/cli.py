"""The command line: ``recbole-missing COMMAND``; ``recbole-missing --help`` lists them."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from recbole_missing.commands import benchmark, export, impute, recommend, report, retrieve


def main(arguments: Sequence[str] | None = None) -> None:
    """Dispatch to a command; an error that the user can mend ends in one line and exit code 2."""
    parser = argparse.ArgumentParser(
        prog="recbole-missing", description="Recommendation with missing modalities, in RecBole."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    _run_arguments(commands.add_parser("run", help="train and test a model"))
    _import_arguments(commands.add_parser("import", help="turn another project's files into ours"))
    impute.arguments(commands.add_parser("impute", help="complete feature files, compare methods"))
    export.arguments(commands.add_parser("export", help="write a data set in another's layout"))
    benchmark.arguments(commands.add_parser("benchmark", help="run the experiments of a YAML file"))
    report.arguments(commands.add_parser("report", help="tables, tests and figures of a store"))
    recommend.arguments(commands.add_parser("recommend", help="the best items of any user"))
    retrieve.arguments(commands.add_parser("retrieve", help="find hidden features by made-up ones"))
    _doctor_arguments(commands.add_parser("doctor", help="check this machine, list every method"))
    known, rest = parser.parse_known_args(arguments)
    if known.command == "run":
        _or_exit(lambda: _run(known, rest))
    elif rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    else:
        _or_exit(lambda: _COMMANDS[known.command](known))


def run(arguments: Sequence[str] | None = None) -> None:
    """Train and test a model: what ``run_recbole_missing.py`` does."""
    parser = argparse.ArgumentParser(
        description="Train and test a model; any setting goes as --key=value."
    )
    _run_arguments(parser)
    known, rest = parser.parse_known_args(arguments)
    _or_exit(lambda: _run(known, rest))


def _run_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", "-m", default="DGMRec", help="name of the model")
    parser.add_argument("--dataset", "-d", default="ml-100k", help="name of the data set")
    parser.add_argument("--config_files", default="", help="YAML files, separated by spaces")
    parser.add_argument("--nproc", type=int, default=1, help="processes (GPUs) of this machine")


def _import_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("layout", choices=["mmrec", "dgmrec"], help="whose files they are")
    parser.add_argument("source", type=Path, help="folder that holds them")
    parser.add_argument("--name", required=True, help="name of the new data set")
    parser.add_argument("--output", type=Path, default=Path("dataset"), help="where to put it")
    parser.add_argument("--force", action="store_true", help="replace a data set of that name")


def _doctor_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--markdown", action="store_true", help="print the README's tables of methods instead"
    )


def _run(known: argparse.Namespace, rest: Sequence[str]) -> None:
    import torch
    from recbole.quick_start import run as run_processes

    from recbole_missing.quick_start import run_recbole_missing

    warnings.filterwarnings("ignore", category=FutureWarning, module=r"recbole\.")
    settings = _settings(rest)
    files = known.config_files.split() or None
    sys.argv = sys.argv[:1]  # RecBole would parse the rest again
    if known.nproc > max(1, torch.cuda.device_count()):
        raise ValueError(
            f"nproc: must be at most the number of GPUs ({torch.cuda.device_count()}), "
            f"got {known.nproc}; RecBole runs one process a GPU."
        )
    if known.nproc > 1:
        run_processes(known.model, known.dataset, files, settings, nproc=known.nproc)
    else:
        run_recbole_missing(known.model, known.dataset, files, settings)


def _settings(arguments: Sequence[str]) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not (key.startswith("--") and len(key) > 2 and equals):
            raise ValueError(f"command line: a setting must read --key=value, got {argument!r}.")
        if settings.setdefault(key[2:], value) != value:
            raise ValueError(f"command line: {key} must be given once, got two values; drop one.")
    return settings


def _import(known: argparse.Namespace) -> None:
    from recbole_missing.convert import importers

    command = {"mmrec": importers.import_mmrec, "dgmrec": importers.import_dgmrec}[known.layout]
    print(command(known.source, known.name, output=known.output, force=known.force))


def _doctor(known: argparse.Namespace) -> None:
    from recbole_missing import environment
    from recbole_missing.commands import doctor

    print(doctor.markdown() if known.markdown else doctor.report())
    if environment.problems():
        raise SystemExit(1)


def _or_exit(command: Any) -> None:
    try:
        command()
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from error


_COMMANDS: dict[str, Callable[[argparse.Namespace], None]] = {
    "import": _import,
    "impute": impute.execute,
    "export": export.execute,
    "benchmark": benchmark.execute,
    "report": report.execute,
    "recommend": recommend.execute,
    "retrieve": retrieve.execute,
    "doctor": _doctor,
}


if __name__ == "__main__":
    main()
