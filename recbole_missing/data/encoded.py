"""Rows of an encoder, kept by the content that they were made from.

Content that was encoded before is not encoded again, whichever item it belongs to.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from logging import getLogger
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from recbole_missing.atomic import whole_file

KEY_SIZE = 16
"""Bytes of :func:`key_of`."""


def key_of(content: bytes) -> bytes:
    """Digest of a content, by which its row is known."""
    return hashlib.blake2b(content, digest_size=KEY_SIZE).digest()


class EncodedRows:
    """Rows of one encoder by the digest of their content, in memory and in a file.

    Args:
        path: the file; read when it is first needed. None: in memory only.
    """

    def __init__(self, path: Path | None) -> None:
        """Store the argument; nothing is read yet."""
        self.path = path
        self._rows: dict[bytes, np.ndarray] | None = None

    def __contains__(self, key: bytes) -> bool:
        """Tell whether the row of a content is known."""
        return key in self._known()

    def of(self, keys: Sequence[bytes]) -> np.ndarray:
        """Rows of known contents, float32 ``(len(keys), dim)``; at least one key."""
        known = self._known()
        return np.stack([known[key] for key in keys])

    def add(self, rows: dict[bytes, np.ndarray]) -> None:
        """Add rows, and write them into the file, beside those that it holds by now.

        If the file cannot be written, a warning says so.
        """
        self._known().update(rows)
        if self.path is None or not rows:
            return
        try:
            with whole_file(self.path) as temporary:  # no other process writes at the same time
                merged = {**_read(self.path), **rows}
                keys = np.frombuffer(b"".join(merged), dtype=np.uint8).reshape(-1, KEY_SIZE)
                save_file({"keys": keys, "rows": np.stack(list(merged.values()))}, temporary)
        except OSError as error:  # a run does not need the file
            getLogger().warning(f"{error} The next run encodes again.")

    def _known(self) -> dict[bytes, np.ndarray]:
        if self._rows is None:
            self._rows = {} if self.path is None else _read(self.path)
        return self._rows


def _read(path: Path) -> dict[bytes, np.ndarray]:
    """Rows of the file; none if there is no file or it is damaged."""
    if not path.is_file():
        return {}
    try:
        content = load_file(path)
        keys, rows = content["keys"], content["rows"]
        whole = keys.dtype == np.uint8 and keys.shape == (len(rows), KEY_SIZE)
        if not whole or rows.dtype != np.float32 or rows.ndim != 2 or not np.isfinite(rows).all():
            raise ValueError(f"keys {keys.dtype} {keys.shape}, rows {rows.dtype} {rows.shape}")
    except (SafetensorError, OSError, KeyError, ValueError, TypeError) as error:
        getLogger().warning(f"{path}: cannot be read ({error}); encoded again.")
        return {}
    return {key.tobytes(): row for key, row in zip(keys, rows)}
