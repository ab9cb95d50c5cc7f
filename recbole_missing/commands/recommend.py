"""``recbole-missing recommend``: list what a trained model recommends to users, by token."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from recbole_missing.commands.trained import (
    add_classes,
    add_output,
    check_output,
    trained,
    write_new,
)

HIDDEN = {"train_valid": 2, "train": 1, "none": 0}
"""Word of ``--hide`` -> how many of the splits (training, validation, test) are hidden."""


def arguments(parser: ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("checkpoint", type=Path, help="file of a trained model (.pth)")
    who = parser.add_mutually_exclusive_group()
    who.add_argument(
        "--users", nargs="+", metavar="TOKEN", help="user tokens (default: every user)"
    )
    who.add_argument(
        "--users-file", type=Path, metavar="FILE", help="file with one user token a line"
    )
    parser.add_argument(
        "--top-k", type=int, default=10, help="number of items for each user (default: 10)"
    )
    parser.add_argument(
        "--hide",
        choices=list(HIDDEN),
        default="train_valid",
        help="interactions that are not recommended again (default: train_valid)",
    )
    parser.add_argument(
        "--on-unknown",
        choices=["error", "skip"],
        default="error",
        help="what to do about users that the data set does not know",
    )
    add_classes(parser)
    add_output(parser, "FILE.tsv")


def execute(known: Namespace) -> None:
    """Run the command.

    Raises:
        ValueError: for unknown users, a model that cannot rank, a file that exists, and whatever
            the checkpoint is refused for.
    """
    from recbole_missing.evaluation import ranking

    check_output(known.output, known.force)
    asked = _asked(known)
    config, model, dataset, *loaders = trained(known)
    tokens = dataset.field2id_token
    users = _ids(asked, tokens[dataset.uid_field], known.on_unknown == "skip", config["dataset"])
    splits = [loader._dataset for loader in loaders[: HIDDEN[known.hide]]]
    hidden = ranking.interactions(splits, dataset.user_num, dataset.item_num)
    train = loaders[0]._dataset
    best = ranking.top_items(model, config, train, users, hidden, known.top_k)
    lines = _lines(dataset, users, *best)
    if known.output is None:
        sys.stdout.writelines(f"{line}\n" for line in lines)
        return
    write_new(known.output, (f"{line}\n" for line in lines), known.force)
    print(f"Wrote {known.output}: up to {known.top_k} items for {len(users):,} users")


def _asked(known: Namespace) -> list[str] | None:
    """Distinct user tokens in the order given, or None for everyone."""
    from recbole_missing.data.files import read_lines

    tokens = known.users
    if known.users_file is not None:
        if not known.users_file.is_file():
            raise ValueError(f"{known.users_file}: must be a file, got none; correct the path.")
        tokens = [line.strip() for line in read_lines(known.users_file) if line.strip()]
    return None if tokens is None else list(dict.fromkeys(tokens))


def _ids(asked: list[str] | None, tokens: Sequence[str], skip: bool, dataset: str) -> Any:
    """User ids, int64 ``(n_users,)``; ``tokens[0]`` is the padding."""
    import torch

    if asked is None:
        return torch.arange(1, len(tokens))
    ids = {str(token): number for number, token in enumerate(tokens) if number}
    unknown = [token for token in asked if token not in ids]
    first = ", ".join(repr(token) for token in unknown[:5])
    who = f"{len(unknown):,} of {len(asked):,} unknown: {first}"
    if unknown and (not skip or len(unknown) == len(asked)):
        raise ValueError(
            f"recommend: users must be in data set {dataset!r}, got {who}; correct them, or leave "
            "unknown ones out with --on-unknown skip (one must be left)."
        )
    if unknown:
        print(f"recommend: skipped users, {who}", file=sys.stderr)
    return torch.tensor([ids[token] for token in asked if token in ids], dtype=torch.long)


def _lines(dataset: Any, users: Any, items: Any, scores: Any) -> Iterator[str]:
    """Header of an atomic file and one line a recommended item."""
    user_field, item_field = dataset.uid_field, dataset.iid_field
    user_tokens, item_tokens = (dataset.field2id_token[key] for key in (user_field, item_field))
    yield f"{user_field}:token\t{item_field}:token\trank:float\tscore:float"
    for user, row, values in zip(users.tolist(), items.tolist(), scores.tolist()):
        for rank, (item, score) in enumerate(zip(row, values), 1):
            if item:
                yield f"{user_tokens[user]}\t{item_tokens[item]}\t{rank}\t{score:.6g}"
