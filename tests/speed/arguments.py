"""Arguments of the measuring scripts, refused before anything is measured."""

from __future__ import annotations

import os
import subprocess
from argparse import ArgumentTypeError
from pathlib import Path


def positive(text: str) -> int:
    """An integer of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"must be an integer of at least 1, got {text!r}")
    return int(text)


def file_to_write(text: str) -> Path:
    """A file in a folder that exists."""
    path = Path(text).resolve()
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise ArgumentTypeError(f"must be a file in a folder that can be written to, got {text!r}")
    return path


def batch_counts(words: list[str], models: list[str]) -> dict[str, int]:
    """``N`` and ``MODEL=N`` as model -> N; ``*`` stands for every other model."""
    counts = {}
    for word in words:
        model, _, count = word.rpartition("=")
        is_known = model in models if "=" in word else True
        if not is_known or not count.isdecimal() or int(count) < 1:
            must = "must be N or MODEL=N with a model and N at least 1"
            raise ArgumentTypeError(f"--batches: {must}, got {word!r}")
        counts[model or "*"] = int(count)
    return counts


def check_against(text: str, root: Path) -> None:
    """Refuse what is neither a folder with the package nor a commit of the repository at root."""
    if Path(text).is_dir():
        if not (Path(text) / "recbole_missing" / "__init__.py").is_file():
            raise ArgumentTypeError(f"--against: must hold recbole_missing, got {text!r}")
        return
    git = ["git", "-C", str(root), "rev-parse", "--verify", "--quiet", f"{text}^{{commit}}"]
    if subprocess.run(git, capture_output=True).returncode:
        raise ArgumentTypeError(f"--against: must be a commit or a folder, got {text!r}")
