"""``recbole-missing run``: train and test a model."""

from __future__ import annotations

import sys
import warnings
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path


def arguments(parser: ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument(
        "--model", "-m", help="name of a model, or module:Class of yours (default: DGMRec)"
    )
    parser.add_argument("--dataset", "-d", help="name of a data set (default: ml-100k)")
    parser.add_argument("--config_files", default="", help="YAML files, separated by spaces")
    parser.add_argument(
        "--nproc", type=int, default=1, help="number of processes, one for each GPU"
    )
    parser.add_argument(
        "--resume", metavar="auto|FILE",
        help="go on with a run that was killed: with the same one, or from this checkpoint",
    )  # fmt: skip


def execute(known: Namespace) -> None:
    """Run the command.

    Raises:
        ValueError: for settings or data that are refused.
    """
    settings = named_settings(known.settings)
    import torch
    from recbole.quick_start import run as run_processes

    from recbole_missing import quick_start
    from recbole_missing.plugin import get_model
    from recbole_missing.run_settings import refuse_unread

    warnings.filterwarnings("ignore", category=FutureWarning, module=r"recbole\.")
    files = known.config_files.split() or None
    model, dataset = chosen(known, files or ())
    sys.argv = sys.argv[:1]  # RecBole would parse the rest again
    refuse_unread([get_model(model)], settings)
    if known.nproc > max(1, torch.cuda.device_count()):
        raise ValueError(
            f"nproc: must be at most the number of GPUs ({torch.cuda.device_count()}), "
            f"got {known.nproc}; RecBole runs one process a GPU."
        )
    if known.nproc > 1 and known.resume is not None:
        raise ValueError(
            f"--resume: must be left out with --nproc {known.nproc}, got {known.resume}; runs of "
            "several processes write no checkpoint to go on from."
        )
    if known.nproc > 1:
        settings = {"plugin_defaults": True, **settings}
        run_processes(model, dataset, files, settings, nproc=known.nproc)
    else:
        quick_start.run_recbole_missing(model, dataset, files, settings, resume=known.resume)


def chosen(known: Namespace, files: Sequence[str]) -> tuple[str, str]:
    """Model and data set: those of the command line, or of the last file that names one.

    Raises:
        ValueError: for a file that is no YAML mapping.
    """
    from recbole_missing.config import check, defaults

    check.check_files(files)
    found = {"model": "DGMRec", "dataset": "ml-100k"}
    for file in files:
        content = defaults.load(Path(file))
        found.update({key: str(content[key]) for key in found if content.get(key)})
    return known.model or found["model"], known.dataset or found["dataset"]


def named_settings(arguments: Sequence[str]) -> dict[str, object]:
    """Read ``--key=value`` words; RecBole turns the values into numbers, lists and so on.

    Raises:
        ValueError: if a word has another form, or a key comes with two values.
    """
    settings: dict[str, object] = {}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not (key.startswith("--") and len(key) > 2 and equals):
            last = next(reversed(settings), None)
            split = last is not None and str(settings[last]).lstrip()[:1] in ("[", "{", "(")
            hint = f"; quote values with spaces: --{last}='[10, 20]'" if split else ""
            raise ValueError(
                f"command line: a setting must read --key=value, got {argument!r}{hint}."
            )
        if settings.setdefault(key[2:], value) != value:
            raise ValueError(f"command line: {key} must be given once, got two values; drop one.")
    return settings
