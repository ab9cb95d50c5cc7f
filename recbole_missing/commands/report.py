"""``recbole-missing report``: tables, tests and figures from stores of benchmark results."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass


def arguments(parser: ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument(
        "stores", type=Path, nargs="+", metavar="STORE", help="files that benchmark wrote (.jsonl)"
    )
    parser.add_argument("--output", type=Path, help="folder to write (default: STORE_report)")
    parser.add_argument(
        "--benchmark",
        type=Path,
        metavar="FILE",
        help="benchmark file with published numbers (default: the one of the benchmark's name)",
    )
    parser.add_argument(
        "--metrics",
        nargs="+",
        metavar="METRIC",
        help="test metrics, the main one first (default: recall@20, ndcg@20 and published ones)",
    )
    parser.add_argument(
        "--method",
        metavar="ROW",
        help="row to test against the others, as in `DGMRec, featprop` (default: the best one)",
    )
    parser.add_argument(
        "--reference",
        metavar="IMPUTATION",
        help="imputation that the gains of the others are measured against (default: zeros)",
    )
    parser.add_argument("--no-figures", action="store_true", help="tables and tests alone")
    parser.add_argument("--pdf", action="store_true", help="write every figure as PDF too")
    parser.add_argument("--force", action="store_true", help="replace a former report")


def execute(known: Namespace) -> None:
    """Run the command.

    Raises:
        ValueError: for a file that is absent, options that do not go together, and whatever the
            results are refused for.
    """
    from recbole_missing import registry, tables
    from recbole_missing.atomic import REPORT, new_folder, write_report
    from recbole_missing.benchmark import identified
    from recbole_missing.benchmark.line import latest
    from recbole_missing.benchmark.store import Store
    from recbole_missing.report import document

    _check(known)
    first = known.stores[0]
    target = known.output or first.with_name(f"{first.stem}_report")
    options = document.Options(
        known.metrics,
        known.method,
        known.benchmark,
        not known.no_figures,
        known.pdf,
        known.reference,
    )
    with new_folder(target, "report", known.force) as folder:
        lines = latest(line for store in known.stores for line in Store(store).lines())
        files, main = document.write(lines, known.stores, folder, options)
        names = sorted(store.name for store in known.stores)
        write_report(folder, {"stores": names, "runs": len(lines)})
    for table in main:
        print(f"{table.title}\n{table.caption}\n{tables.plain(table)}\n")
    if any(any(column.marked) for table in main for column in table.columns):
        print("* bold in the report")
    count = Counter(path.suffix for path in files)
    counted = ", ".join(f"{count[end]} {end}" for end in (".tex", ".csv", ".png", ".pdf"))
    with registry.without_imports():
        notes = document.sources_note(lines, identified.current_source)
    for sentence in notes:
        print(sentence)
    print(f"Wrote {target}: report.md, {counted}, {REPORT}")


def _check(known: Namespace) -> None:
    from recbole_missing.config import check

    for path in (*known.stores, *([known.benchmark] if known.benchmark else [])):
        if not path.is_file():
            raise ValueError(f"report: {path} must be a file, got none; check the path.")
    check.check_files([str(known.benchmark)] if known.benchmark else [])
    if known.pdf and known.no_figures:
        raise ValueError("report: --pdf must come without --no-figures; drop one.")
    if not known.no_figures and find_spec("matplotlib") is None:
        raise ValueError(
            "report: figures need matplotlib, got none; run `pip install 'recbole-missing[plot]'` "
            "or add --no-figures."
        )
