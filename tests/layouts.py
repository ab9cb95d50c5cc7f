"""Open an imported folder as a run does."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

from folders import pairs_of

from recbole_missing.commands.opened import opened


def splits_of(folder: Path) -> list[Any]:
    """Training, validation and test split of a data set folder, with its own YAML."""
    known = Namespace(source=str(folder), config_files="", data_path=None)
    with opened(known, None) as data:
        return data.splits


def pairs(split: Any) -> set[tuple[str, str]]:
    """User and item tokens of a split."""
    return set(pairs_of(split))


def lacking(split: Any, modality: str) -> set[str]:
    """Tokens of the items that lack a modality."""
    tokens = split.field2id_token[split.iid_field]
    observed = split.known[modality].observed.numpy()
    return {str(token) for token, has in zip(tokens[1:], observed[1:]) if not has}
