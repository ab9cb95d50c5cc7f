"""``recbole-missing recommend``: list what a trained model recommends to users, by token."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from recbole_missing.commands.trained import (
    add_checkpoint,
    add_output,
    check_output,
    trained,
    write_new,
)

HIDDEN = {"train_valid": 2, "train": 1, "none": 0}
"""Word of ``--hide`` -> how many of the splits (training, validation, test) are hidden."""


def arguments(parser: ArgumentParser) -> None:
    """Declare the command's options."""
    add_checkpoint(parser)
    who = parser.add_mutually_exclusive_group()
    who.add_argument(
        "--users", nargs="+", metavar="TOKEN", help="user tokens (default: every user)"
    )
    who.add_argument(
        "--users-file", type=Path, metavar="FILE", help="file with one user token on each line"
    )
    parser.add_argument(
        "--top-k", type=int, default=10, help="number of items for each user (default: 10)"
    )
    parser.add_argument(
        "--only",
        metavar="GROUP|FILE",
        help="rank these items alone: new (no training interaction, also if nobody bought them "
        "yet), warm (the others), `0 missing` and so on (they lack so many modalities), or a file "
        "with one item token on each line",
    )
    parser.add_argument(
        "--hide",
        choices=list(HIDDEN),
        default="train_valid",
        help="interactions that are not recommended again (default: train_valid)",
    )
    parser.add_argument(
        "--on-unknown",
        choices=["error", "skip", "popular"],
        default="error",
        help="what users get that the data set does not know: an error (default), nothing, or the "
        "items with the most training interactions, whose number is the score",
    )
    add_output(parser, "FILE.tsv")


def execute(known: Namespace) -> None:
    """Run the command.

    Raises:
        ValueError: for unknown users or items, lists longer than the catalogue, a group without
            items, a model that cannot rank, a file that exists, and whatever the checkpoint is
            refused for.
    """
    from recbole_missing.evaluation import ranking
    from recbole_missing.tables import counted

    check_output(known.output, known.force)
    asked = _asked(known)
    config, model, dataset, *loaders = trained(known)
    if known.top_k >= dataset.item_num:
        raise ValueError(
            f"recommend: --top-k must be at most the number of items ({dataset.item_num - 1}), got "
            f"{known.top_k}; lower it."
        )
    tokens = dataset.field2id_token
    names, users = _users(asked, tokens[dataset.uid_field], known.on_unknown, config["dataset"])
    splits = [loader._dataset for loader in loaders[: HIDDEN[known.hide]]]
    hidden = ranking.interactions(splits, dataset.user_num, dataset.item_num)
    train = loaders[0]._dataset
    only = None if known.only is None else _only(known.only, train)
    best = ranking.top_items(model, config, train, users[users > 0], hidden, known.top_k, only)
    items, scores = _beside_popular(train, users, best, known.top_k, only)
    _say_short(items, known, only)
    lines = _lines(dataset, names, items, scores)
    if known.output is None:
        sys.stdout.writelines(f"{line}\n" for line in lines)
        return
    write_new(known.output, (f"{line}\n" for line in lines), known.force)
    most, of = counted(known.top_k, "item"), counted(len(users), "user")
    print(f"Wrote {known.output}: up to {most} for {of}")


def _asked(known: Namespace) -> list[str] | None:
    """Distinct user tokens in the order given, or None for everyone."""
    from recbole_missing.data.files import read_ids

    tokens = known.users
    if known.users_file is not None:
        if not known.users_file.is_file():
            raise ValueError(f"{known.users_file}: must be a file, got none; correct the path.")
        tokens = [token.strip() for token in read_ids(known.users_file)]
    return None if tokens is None else list(dict.fromkeys(tokens))


def _users(
    asked: list[str] | None, tokens: Sequence[str], on_unknown: str, dataset: str
) -> tuple[Sequence[str], Any]:
    """Tokens of the users that get a list, and their ids, int64 ``(n_users,)``; 0 if unknown."""
    import torch

    if asked is None:
        return tokens[1:], torch.arange(1, len(tokens))
    ids = {str(token): number for number, token in enumerate(tokens) if number}
    unknown = [token for token in asked if token not in ids]
    first = ", ".join(repr(token) for token in unknown[:5])
    who = f"{len(unknown):,} of {len(asked):,} unknown: {first}"
    none_left = on_unknown == "skip" and len(unknown) == len(asked)
    if unknown and (on_unknown == "error" or none_left):
        raise ValueError(
            f"recommend: users must be in data set {dataset!r}, got {who}; correct them, leave "
            "unknown ones out with --on-unknown skip (one must be left), or give them the most "
            "popular items with --on-unknown popular."
        )
    if unknown:
        what = "skipped users" if on_unknown == "skip" else "the most popular items for users"
        print(f"recommend: {what}, {who}", file=sys.stderr)
    if on_unknown == "skip":
        asked = [token for token in asked if token in ids]
    return asked, torch.tensor([ids.get(token, 0) for token in asked], dtype=torch.long)


def _only(word: str, train: Any) -> Any:
    """Items that ``--only`` names, bool ``(item_num,)``."""
    import torch

    from recbole_missing.data.missing import read_token_file

    groups = _groups(train)
    if word not in groups:
        path = Path(word)
        if not path.is_file():
            choices = ", ".join(repr(group) for group, items in groups.items() if items.any())
            raise ValueError(
                f"recommend: --only must be a file of item tokens or one of {choices}, got "
                f"{word!r}; correct it."
            )
        chosen = torch.from_numpy(read_token_file(path, train.field2id_token[train.iid_field]))
        if not chosen.any():
            raise ValueError(
                f"{path}: must name an item, got none; add one item token on each line."
            )
        return chosen
    if not groups[word].any():
        raise ValueError(
            f"recommend: --only {word} needs items without a training interaction, got none in "
            f"data set {train.dataset_name!r}; list the items in {train.dataset_name}.item with "
            f"load_col: {{item: [{train.iid_field}]}} before training, or train with new_items."
        )
    return groups[word]


def _groups(train: Any) -> dict[str, Any]:
    """Groups of items that ``--only`` may name: name -> bool ``(item_num,)``.

    Here an item is new if it has no training interaction. So the items are among them that nobody
    has bought yet. In tables of results ``new`` are the items that the setting ``new_items`` made
    new, because only these have test interactions for that reason.
    """
    counts = _counts(train)
    new = counts == 0
    new[0] = False  # padding
    return {**getattr(train, "item_groups", dict)(), "warm": counts > 0, "new": new}


def _counts(train: Any) -> Any:
    """Number of training interactions of each item, int ``(item_num,)``."""
    import torch

    return torch.bincount(train.inter_feat[train.iid_field], minlength=train.item_num)


def _beside_popular(
    train: Any, users: Any, best: tuple[Any, Any], k: int, only: Any
) -> tuple[Any, Any]:
    """Lists of known users, and the items with most training interactions for unknown ones."""
    counts = _counts(train)
    counts[0] = -1  # padding
    if only is not None:
        counts[~only] = -1
    if (users == 0).any() and counts.max() < 1:
        raise ValueError(
            "recommend: --on-unknown popular needs items with training interactions, got none "
            "under --only; leave unknown users out with --on-unknown skip."
        )
    k = min(k, int((counts >= 0).sum()))
    popular = counts.argsort(descending=True, stable=True)[:k]
    items = popular.repeat(len(users), 1)
    scores = counts[popular].float().repeat(len(users), 1)
    items[users > 0], scores[users > 0] = best
    return items, scores


def _say_short(items: Any, known: Namespace, only: Any) -> None:
    """Say on standard error how many lists are shorter than asked for."""
    lengths = (items > 0).sum(dim=1)
    short = int((lengths < known.top_k).sum())
    if not short:
        return
    reasons = [] if only is None else [f"--only {known.only} names {int(only.sum()):,} items"]
    if known.hide != "none":
        reasons.append(f"--hide {known.hide} leaves out what a user has met")
    print(
        f"recommend: {short:,} of {len(items):,} lists have fewer than {known.top_k} items, the "
        f"shortest has {int(lengths.min())}: {'; '.join(reasons)}",
        file=sys.stderr,
    )


def _lines(dataset: Any, users: Sequence[str], items: Any, scores: Any) -> Iterator[str]:
    """Header of an atomic file and one line a recommended item."""
    user_field, item_field = dataset.uid_field, dataset.iid_field
    tokens = dataset.field2id_token[item_field]
    yield f"{user_field}:token\t{item_field}:token\trank:float\tscore:float"
    for user, row, values in zip(users, items.tolist(), scores.tolist()):
        for rank, (item, score) in enumerate(zip(row, values), 1):
            if item:
                yield f"{user}\t{tokens[item]}\t{rank}\t{score:.6g}"
