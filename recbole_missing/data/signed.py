"""Pickled caches that only the user who wrote them can read.

A pickle can run any code when it is read. So :func:`write` puts a signature beside the pickle, and
:func:`read` unpickles nothing that does not have one. The signature is an HMAC-SHA256 of the
content under a secret key of the user. The key lies in the user's cache folder
(``$XDG_CACHE_HOME/recbole_missing/key``, by default in ``~/.cache``). It is made when it is first
needed, and only the user can read it.
"""

from __future__ import annotations

import hmac
import os
import pickle
import secrets
import stat
from logging import getLogger
from pathlib import Path
from typing import Any

from recbole_missing.atomic import whole_file

_KEY_SIZE = 32  # bytes


def write(path: Path, kind: str, value: Any) -> None:
    """Pickle a value into a file, and sign it.

    If the key cannot be written, the file has no signature and a warning says so.

    Args:
        path: the file. Its folder is created if absent.
        kind: what the value is. :func:`read` accepts no other kind.
        value: anything that can be pickled.
    """
    content = pickle.dumps(value)
    path.parent.mkdir(parents=True, exist_ok=True)
    signature = signature_of(path)
    signature.unlink(missing_ok=True)
    with whole_file(path) as temporary:
        temporary.write_bytes(content)
    try:
        key = user_key()
    except OSError as error:
        getLogger().warning(f"{path}: has no signature and will not be read: {error}")
        return
    with whole_file(signature) as temporary:
        temporary.write_text(_sign(key, kind, content), encoding="ascii")


def read(path: Path, kind: str) -> Any:
    """Unpickle what :func:`write` wrote.

    Returns:
        The value. None if there is no such file, or if its signature is absent or wrong. A warning
        names the file in the second case, and nothing in it is read.
    """
    if not path.is_file():
        return None
    content = path.read_bytes()
    try:
        found = signature_of(path).read_bytes()
        genuine = hmac.compare_digest(found, _sign(user_key(), kind, content).encode())
        problem = "its signature is wrong"
    except OSError:
        genuine, problem = False, "it has no signature that this user can check"
    if not genuine:
        getLogger().warning(f"{path}: {problem}; it is not read, and the data are built anew.")
        return None
    return pickle.loads(content)


def signature_of(path: Path) -> Path:
    """File that holds the signature of a pickle."""
    return path.with_name(f"{path.name}.sig")


def user_key() -> bytes:
    """The secret key of the user.

    A key that others can read or made, and a symbolic link in its place, is replaced by a new one.

    Raises:
        OSError: if there is no key and none can be written that only this user can read.
    """
    path = key_file()
    if not _is_private(path):
        if path.is_symlink():
            path.unlink(missing_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with whole_file(path) as temporary:
            temporary.unlink(missing_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
            with os.fdopen(os.open(temporary, flags, 0o600), "wb") as file:
                file.write(secrets.token_bytes(_KEY_SIZE))
        if not _is_private(path):
            raise PermissionError(f"{path}: must be a file that only this user can read")
    return path.read_bytes()  # another process may have made it in the meantime


def key_file() -> Path:
    """Path of the key."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache, "recbole_missing", "key")


def _is_private(path: Path) -> bool:
    try:
        state = path.lstat()
    except OSError:
        return False
    if not stat.S_ISREG(state.st_mode) or state.st_size != _KEY_SIZE:
        return False
    return os.name != "posix" or (state.st_uid == os.geteuid() and not state.st_mode & 0o077)


def _sign(key: bytes, kind: str, content: bytes) -> str:
    return hmac.new(key, f"{kind}\n".encode() + content, "sha256").hexdigest()
