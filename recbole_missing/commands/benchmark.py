"""``recbole-missing benchmark``: run what a YAML file asks for and a store lacks."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from recbole_missing.commands.options import value


def arguments(parser: ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("file", help="a name of properties/benchmark, or a .yaml file")
    parser.add_argument(
        "--quick", action="store_true", help="run the quick variant of the file: a few minutes"
    )
    parser.add_argument(
        "--store", type=Path, help="file of results, JSON lines (default: <name>.jsonl)"
    )
    parser.add_argument(
        "--only", nargs="+", action="extend", default=[], metavar="AXIS=VALUE,...",
        help="run these values of an axis only: dataset=tiktok model=MGCN,DGMRec",
    )  # fmt: skip
    parser.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE",
        help="settings over those of the file; an axis takes a list: seed=[1,2,3]",
    )  # fmt: skip
    parser.add_argument(
        "--keep", nargs="+", default=[], choices=["users", "lists", "checkpoint"],
        help="keep files beside the store: metrics of every user, their top items, the model",
    )  # fmt: skip
    parser.add_argument(
        "--data-path", type=Path, default=Path("dataset"), help="folder of the data set folders"
    )
    parser.add_argument("--retry-failed", action="store_true", help="run failed runs again")
    parser.add_argument(
        "--rerun-changed", action="store_true", help="run again the runs that other code has made"
    )
    parser.add_argument("--dry-run", action="store_true", help="list the runs, and run nothing")
    _add_groups(parser)


def _add_groups(parser: ArgumentParser) -> None:
    """Declare the options of workers and of the search."""
    where = parser.add_argument_group("where it runs (default: in this process)")
    where.add_argument("--workers", type=int, help="number of processes on this machine")
    where.add_argument(
        "--ray", nargs="?", const="local", metavar="ADDRESS",
        help="the cores of this machine through Ray, or a Ray cluster",
    )  # fmt: skip
    where.add_argument("--threads", type=int, help="threads of each run (default: cores / workers)")
    search = parser.add_argument_group("hyper-parameters, chosen on validation before the tests")
    search.add_argument(
        "--search", choices=["grid", "random"], help="method of the search (default: the file's)"
    )
    search.add_argument("--space", type=Path, metavar="FILE", help="RecBole's .hyper file")
    search.add_argument(
        "--trials",
        type=int,
        help="for --search random: number of trials for each model and data set",
    )


def execute(known: Namespace) -> None:
    """Run the command.

    Raises:
        ValueError: for a file or options that are refused.
        SystemExit: with code 1, once everything was run, if a run failed.
    """
    from recbole_missing.benchmark import plan, runner
    from recbole_missing.benchmark.store import Store
    from recbole_missing.config import defaults
    from recbole_missing.plugin import get_model
    from recbole_missing.run_settings import refuse_unread

    chosen = _searched(plan.read(known.file, known.quick), known)
    settings = {key: value(text) for key, text in _pairs("--set", known.set)}
    named = {*chosen.grid, *chosen.settings}
    chosen = chosen.override(settings)
    chosen = chosen.only({axis: text.split(",") for axis, text in _pairs("--only", known.only)})
    refuse_unread(map(get_model, chosen.grid["model"]), settings.keys() - named)
    store = Store(known.store or Path(f"{chosen.name.replace(':', '_')}.jsonl"))
    options = runner.Options(
        known.keep, known.retry_failed, known.rerun_changed, known.data_path, _say
    )
    if known.dry_run:
        print("\n".join(runner.preview(chosen, store, options)))
        return
    try:
        lines = runner.run(chosen, store, _workers(known), options)
    except KeyboardInterrupt as stop:
        raise KeyboardInterrupt(
            f"{store.path} holds the finished runs; the same command runs the others"
        ) from stop
    failed = sum(not line.done for line in lines)
    print(f"{len(lines) - failed} of {len(lines)} runs are done, in {store.path}")
    own = "" if known.file in defaults.names("benchmark") else f" --benchmark {known.file}"
    print(f"Next: recbole-missing report {store.path}{own}")
    if failed:
        raise SystemExit(1)


def _pairs(option: str, words: Sequence[str]) -> list[tuple[str, str]]:
    from recbole_missing.commands.options import named

    return list(named(option, words).items())


def _searched(plan: Any, known: Namespace) -> Any:
    from recbole_missing.benchmark import hyper_file

    changes: dict[str, Any] = {}
    if known.search:
        changes["method"] = known.search
    if known.trials is not None:
        changes["trials"] = known.trials
    if known.space:
        changes["space"] = hyper_file.read(known.space)
    if not (plan.search or known.space) and changes:
        raise ValueError(
            f"{plan.name}: --search and --trials need a space, got none; write `search` into the "
            "file or give --space."
        )
    return replace(plan, search={**plan.search, **changes})


def _workers(known: Namespace) -> Any:
    from recbole_missing.benchmark.workers import Here, Processes, Ray

    for option in ("workers", "threads"):
        number = getattr(known, option)
        if number is not None and number < 1:
            raise ValueError(f"--{option}: must be an int >= 1, got {number}.")
    if known.workers and known.ray:
        raise ValueError("--workers and --ray: must not come together; drop one.")
    if known.ray:
        return Ray(known.ray, known.threads)
    if known.workers:
        return Processes(known.workers, known.threads)
    return Here(known.threads)


def _say(text: str) -> None:
    print(text, flush=True)
