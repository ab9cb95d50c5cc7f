"""``recbole-missing run``: train and test a model."""

from __future__ import annotations

import sys
import warnings
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence


def arguments(parser: ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument(
        "--model", "-m", default="DGMRec", help="name of the model, or module:Class of yours"
    )
    parser.add_argument("--dataset", "-d", default="ml-100k", help="name of the data set")
    parser.add_argument("--config_files", default="", help="YAML files, separated by spaces")
    parser.add_argument(
        "--nproc", type=int, default=1, help="number of processes, one for each GPU"
    )


def execute(known: Namespace) -> None:
    """Run the command.

    Raises:
        ValueError: for settings or data that are refused.
    """
    settings = named_settings(known.settings)
    import torch
    from recbole.quick_start import run as run_processes

    from recbole_missing import quick_start

    warnings.filterwarnings("ignore", category=FutureWarning, module=r"recbole\.")
    files = known.config_files.split() or None
    sys.argv = sys.argv[:1]  # RecBole would parse the rest again
    if known.nproc > max(1, torch.cuda.device_count()):
        raise ValueError(
            f"nproc: must be at most the number of GPUs ({torch.cuda.device_count()}), "
            f"got {known.nproc}; RecBole runs one process a GPU."
        )
    if known.nproc > 1:
        settings = {"plugin_defaults": True, **settings}
        run_processes(known.model, known.dataset, files, settings, nproc=known.nproc)
    else:
        quick_start.run_recbole_missing(known.model, known.dataset, files, settings)


def named_settings(arguments: Sequence[str]) -> dict[str, object]:
    """Read ``--key=value`` words; RecBole turns the values into numbers, lists and so on.

    Raises:
        ValueError: if a word has another form, or a key comes with two values.
    """
    settings: dict[str, object] = {}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not (key.startswith("--") and len(key) > 2 and equals):
            raise ValueError(f"command line: a setting must read --key=value, got {argument!r}.")
        if settings.setdefault(key[2:], value) != value:
            raise ValueError(f"command line: {key} must be given once, got two values; drop one.")
    return settings
