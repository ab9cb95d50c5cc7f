"""``recbole-missing describe``: a first look at a data set."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from logging import LogRecord, getLogger
from pathlib import Path
from typing import TYPE_CHECKING

from recbole_missing.commands.opened import add_data_set, imputation_of, opened
from recbole_missing.commands.options import add_imputation

if TYPE_CHECKING:
    from recbole_missing.describe import Description


def arguments(parser: ArgumentParser) -> None:
    """Declare the command's options."""
    add_data_set(parser)
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page with plots, too")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers, too")
    parser.add_argument(
        "--thorough",
        action="store_true",
        help="compare imputers that take long, too, such as the auto-encoders",
    )
    parser.add_argument("--seed", type=int, default=0, help="of every draw (default: 0)")
    add_imputation(parser)


def execute(known: Namespace) -> None:
    """Run the command.

    Raises:
        ValueError: for a file that exists, an absent matplotlib, a wrong setting, and whatever the
            data set is refused for.
    """
    from recbole_missing.describe import describe, imputers, text

    _check(known)
    words = imputers.methods(known.thorough)
    with opened(known, known.missing) as data:
        settings = imputation_of(words, known.set, data.config)
        with _each_line_once():
            found = describe(data.splits, settings, known.seed, known.thorough, data.notes)
    written = _write(known, found)
    print("\n".join([*written, text.text(found)]))  # its last lines are YAML, to be copied


@contextmanager
def _each_line_once() -> Iterator[None]:
    """Drop log lines that were said before: every graph imputer makes the same item graph."""
    said: set[str] = set()

    def is_new(record: LogRecord) -> bool:
        line = record.getMessage()
        new = line not in said
        said.add(line)
        return new

    logger = getLogger()
    logger.addFilter(is_new)
    try:
        yield
    finally:
        logger.removeFilter(is_new)


def _check(known: Namespace) -> None:
    """Refuse before any work what could not be written at the end."""
    from recbole_missing.atomic import check_file

    if known.seed < 0:
        raise ValueError(f"describe: --seed must be at least 0, got {known.seed}; raise it.")
    files = [path for path in (known.html, known.json) if path is not None]
    for path in files:
        check_file(path, known.force)
    if len({path.resolve() for path in files}) < len(files):
        raise ValueError(
            f"describe: --html and --json must be two files, got {files[0]}; change one."
        )
    if known.html and find_spec("matplotlib") is None:
        raise ValueError(
            "describe: --html needs matplotlib, got none; run `pip install "
            "'recbole-missing[plot]'`."
        )


def _write(known: Namespace, found: Description) -> list[str]:
    """Write the files that are wanted; one line says so of each."""
    from recbole_missing.atomic import whole_file
    from recbole_missing.describe import page

    contents = {}
    if known.json:
        contents[known.json] = found.to_json() + "\n"
    if known.html:
        contents[known.html] = page.page(found)
    for path, content in contents.items():
        with whole_file(path, known.force) as temporary:
            temporary.write_text(content, encoding="utf-8")
    return [f"Wrote {path}" for path in contents]
