"""``recbole-missing retrieve``: test whether completed features find the true ones."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from typing import Any

from recbole_missing.commands.trained import (
    add_checkpoint,
    add_output,
    check_output,
    trained,
    write_new,
)
from recbole_missing.quiet import quiet

_LEGEND = (
    "lacking: how many modalities the items lack\n"
    "model: the feature that the model uses in place of the missing one\n"
    "nearest neighbour: the feature of the nearest item by the other modalities (-: the items lack "
    "them too)\n"
    "other sources: what the model makes inside, compared with what it makes of the true features\n"
    "control: the same, after the hidden features changed places; a hit@K is about features only "
    "as far as it is above its control"
)


def arguments(parser: ArgumentParser) -> None:
    """Declare the command's options."""
    add_checkpoint(parser)
    parser.add_argument(
        "--top",
        nargs="+",
        type=int,
        default=[10, 20],
        metavar="K",
        help="cut-offs of hit@K (default: 10 20)",
    )
    add_output(parser, "FILE.json")


def execute(known: Namespace) -> None:
    """Run the command.

    Raises:
        ValueError: for a model without modalities, nothing hidden, lists longer than the
            catalogue, a file that exists, and whatever the checkpoint is refused for.
    """
    from recbole_missing.evaluation import retrieval
    from recbole_missing.trainer import protocol
    from recbole_missing.version import __version__

    check_output(known.output, known.force)
    if min(known.top) < 1:
        raise ValueError(f"retrieve: --top must be ints >= 1, got {min(known.top)}.")
    ks = sorted(set(known.top))
    config, model, dataset, train_data, *_ = trained(known)
    if ks[-1] >= dataset.item_num:
        raise ValueError(
            f"retrieve: --top must be at most the number of items ({dataset.item_num - 1}), got "
            f"{ks[-1]}; lower it."
        )
    with quiet():
        results = retrieval.evaluate(model, train_data._dataset, ks)
    title = protocol(config)
    print(table(results, ks, title))
    if known.output is not None:
        report = {"version": __version__, "title": title, "retrieval": results}
        text = json.dumps(report, indent=1, ensure_ascii=False)
        write_new(known.output, [text, "\n"], known.force)
        print(f"Wrote {known.output}")


def table(results: Mapping[str, Any], ks: Sequence[int], title: str) -> str:
    """Text table: one row a modality, number of missing modalities and source."""
    from recbole_missing import tables

    measures = [f"{name}@{k}" for name in ("hit", "control", "chance") for k in ks]
    headers = ["modality", "lacking", "items", "source", *measures]
    rows = []
    for modality, groups in results["model"].items():
        for group, values in groups.items():
            start = [modality, group.split()[0], f"{values['items']:,}"]
            for source, found in results.items():
                numbers = found[modality][group] or {}
                cells = [f"{numbers[m]:.4f}" if m in numbers else "-" for m in measures]
                rows.append([*start, source.replace("_", " "), *cells])
    return f"{title}\n{tables.plain(tables.Table.of_rows(headers, rows))}\n{_LEGEND}"
