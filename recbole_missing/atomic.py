"""Write a file or a folder completely or not at all, and nothing over what others wrote.

While ``data/baby`` is written, the hidden folder ``data/.baby.writing`` holds it, and a lock of the
operating system marks that folder as in use. The lock ends with its process, however that ends. So
the next writer in ``data`` knows what a killed process left there. It puts old content back that
was moved aside, and removes the rest. A lock also holds between machines that share a disk. Where
the system has no locks, nothing of another process is removed.

A clone or an archive can hold anything at these names. So no symbolic link is followed there, and a
folder of another user, or one without our lock, is left as it is.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import os
import shutil
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

REPORT = "report.json"
"""File in every folder of results: what was done, ``command``, and ``files``, their digests."""

_SUFFIX, _LOCK = ".writing", "lock"
_BLOCK = 1 << 20
_TRIES, _PAUSE = 10, 0.05  # and seconds


def check_file(path: Path, force: bool) -> None:
    """Refuse to replace a file unless ``force`` is set.

    Raises:
        ValueError: if there is something of that name.
    """
    if path.exists() and not (force and path.is_file()):
        raise ValueError(f"{path}: must not exist yet; replace a file with --force.")


def check_no_link(path: Path) -> None:
    """Refuse a symbolic link at a name where this package keeps files of its own.

    Raises:
        ValueError: if there is one.
    """
    if path.is_symlink():
        raise ValueError(f"{path}: must not be a symbolic link, got one; remove it.")


@contextmanager
def whole_file(path: Path, force: bool = True) -> Iterator[Path]:
    """Give a temporary path of the same name. The file written there becomes ``path`` at the end.

    It is on the disk before it gets its name. After a crash or an error the old file is unchanged.

    Args:
        path: file to write; its folder is created if absent.
        force: replace a file that exists at the end.

    Raises:
        ValueError: if ``force`` is not set and the file exists at the end, or if the hidden folder
            is a link or not ours.
        OSError: if the file cannot be written; for a full disk it says how many bytes fit.
    """
    target = _real(path)
    with _scratch(target, path, wait=True) as scratch, _room(path, scratch):
        temporary = scratch / target.name
        yield temporary
        check_file(path, force)
        _to_disk(temporary)
        temporary.replace(target)
        _folder_to_disk(target.parent)


@contextmanager
def new_folder(target: Path, command: str, force: bool = False) -> Iterator[Path]:
    """Give a new folder to fill. It becomes ``target`` when the block ends without an error.

    ``target`` is reserved for this process until then. :data:`REPORT` in the folder gets the
    command and the list ``files``. With ``force`` an earlier folder is replaced: its listed files
    go, and every other file in it is kept.

    Args:
        target: a folder that is absent or empty, or with ``force`` one that this function made for
            the same command.
        command: such as ``import``.
        force: replace the folder.

    Raises:
        ValueError: if another process writes the folder, if it is the root of a disk, if it is not
            one of those, if a file in
            it that this function did not write, or not with that content, would be replaced, or if
            the hidden folder is a link or not ours.
        OSError: if a file cannot be written; for a full disk it says how many bytes fit.
    """
    real = _real(target)
    if os.path.ismount(real):
        raise ValueError(
            f"{target}: must not be the root of a disk, which cannot be replaced in one step; "
            f"choose a folder in it, such as {target / command}."
        )
    with _scratch(real, target, wait=False) as scratch:
        _check_folder(target, command, force)
        folder, old = scratch / "new", scratch / "old"
        folder.mkdir()
        with _room(target, scratch):
            yield folder
            _list_files(folder, command)
            for top, _, files in os.walk(folder):
                for name in files:
                    _to_disk(Path(top, name))
                _folder_to_disk(Path(top))
        foreign = _check_folder(target, command, force)
        _check_collisions(target, foreign, folder)
        if real.exists():
            real.replace(old)
        folder.replace(real)
        _folder_to_disk(real.parent)
        # The end of _scratch carries the foreign files over, as it does after a crash.


def write_report(folder: Path, content: Mapping[str, Any]) -> None:
    """Write :data:`REPORT` into a folder that :func:`new_folder` gave."""
    text = json.dumps(content, indent=1, ensure_ascii=False)
    (folder / REPORT).write_text(text + "\n", encoding="utf-8")


def tidy(folder: Path) -> None:
    """Put back or remove what killed writers left in a folder."""
    for scratch in folder.glob(f".*{_SUFFIX}"):
        name = scratch.name[1 : -len(_SUFFIX)]
        if name in ("", ".", ".."):  # no writer has such a target
            continue
        lock = _Lock(scratch / _LOCK)
        # A ValueError concerns the next writer of that target, an OSError another user's files.
        with suppress(ValueError, OSError):
            _check_own(scratch)
            if not lock.path.is_file():
                scratch.rmdir()  # if it is empty: its process was killed before it took the lock
            elif lock.take() and lock.holds:
                _end(scratch, folder / name)
        lock.release()


# ------------------------------------------------------------------------- the folder of a writer


class _Lock:
    """A lock of the operating system on a file, which it creates."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.holds = False  # False without locks, too
        self._file = -1

    def take(self, wait: bool = False) -> bool:
        """Lock the file; False if another process has locked it, or has removed its folder.

        Raises:
            ValueError: if it is a symbolic link.
        """
        check_no_link(self.path)
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
        try:
            self._file = os.open(self.path, flags, 0o666)
        except FileNotFoundError:
            return False
        try:
            if fcntl is not None:
                fcntl.flock(self._file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
                self.holds = True
        except BlockingIOError:
            self.release()
            return False
        except OSError as error:
            if error.errno not in (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK):
                self.release()
                raise
        except BaseException:
            self.release()
            raise
        return self._is_there() or self.release()

    def release(self) -> bool:
        """Unlock the file; False, for nothing is locked then."""
        if self._file >= 0:
            if self.holds and fcntl is not None:
                fcntl.flock(self._file, fcntl.LOCK_UN)  # a forked process may have it open
            os.close(self._file)
        self.holds, self._file = False, -1
        return False

    def _is_there(self) -> bool:
        """Tell whether the path still is the locked file: its last holder removes it."""
        try:
            return os.path.samestat(os.fstat(self._file), self.path.stat())
        except FileNotFoundError:
            return False


@contextmanager
def _scratch(target: Path, shown: Path, wait: bool) -> Iterator[Path]:
    """Give an empty folder beside ``target`` that this process alone uses until the block ends."""
    made = [path for path in target.parents if not path.exists()]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        tidy(target.parent)
        scratch = target.with_name(f".{target.name}{_SUFFIX}")
        lock = _reserved(scratch, shown, wait)
        try:
            own = scratch if lock.holds else scratch / str(os.getpid())
            if own != scratch:
                _make(own)
            _empty(own, target)
            try:
                yield own
            finally:
                _end(own, target)
        finally:
            alone = lock.holds
            lock.release()
            with suppress(OSError):  # it is gone, or without locks another process uses it
                if not alone:
                    lock.path.unlink()
                    scratch.rmdir()
    finally:
        for path in made:
            with suppress(OSError):  # it is not empty
                path.rmdir()


def _reserved(scratch: Path, shown: Path, wait: bool) -> _Lock:
    lock = _Lock(scratch / _LOCK)
    for _ in itertools.count() if wait else range(_TRIES):
        _make(scratch)
        unmarked = _is_unmarked(scratch)
        if lock.take(wait):
            if unmarked and lock.holds and any(path != lock.path for path in scratch.iterdir()):
                lock.path.unlink()
                lock.release()
                raise _refusal(scratch, "a folder without our lock")
            return lock
        if not wait:  # another process may just be tidying up
            time.sleep(_PAUSE)
    raise ValueError(
        f"{shown}: must be written by one process at a time, got another one that writes it; wait "
        "for its end, or choose another name."
    )


def _make(scratch: Path) -> None:
    """Make a folder, or refuse what is there if it is not ours."""
    try:
        scratch.mkdir()
    except FileExistsError:
        with suppress(FileNotFoundError):  # its process has just ended
            _check_own(scratch)


def _check_own(scratch: Path) -> None:
    """Refuse anything but a folder of this user.

    Raises:
        ValueError: if it is a symbolic link, a file, or a folder of another user.
    """
    state = scratch.lstat()
    if stat.S_ISLNK(state.st_mode):
        raise _refusal(scratch, "a symbolic link")
    if not stat.S_ISDIR(state.st_mode):
        raise _refusal(scratch, "a file")
    if os.name == "posix" and state.st_uid != os.geteuid():
        raise _refusal(scratch, "a folder of another user")


def _is_unmarked(scratch: Path) -> bool:
    """Tell whether a folder has content but no lock, which our writers make first."""
    try:
        return any(scratch.iterdir()) and not os.path.lexists(scratch / _LOCK)
    except FileNotFoundError:
        return False


def _refusal(scratch: Path, got: str) -> ValueError:
    return ValueError(
        f"{scratch}: must be absent, or a folder that a writer of this user left, got {got}; "
        "remove it, or choose another name."
    )


def _empty(scratch: Path, target: Path) -> None:
    """Put back what was moved aside, carry foreign files over, and remove the rest.

    Raises:
        ValueError: if old content can neither be put back nor be replaced.
    """
    old = scratch / "old"
    moved = old.is_dir() and not old.is_symlink()
    if moved and not os.path.lexists(target):
        old.replace(target)
    elif moved:
        foreign = _foreign(old)
        if (scratch / "new").exists():
            raise ValueError(
                f"{target}: must be absent, for a killed process had moved its former content to "
                f"{old}; delete one of them."
            )
        _check_collisions(target, foreign, target)
        for path in foreign:
            (target / path).parent.mkdir(parents=True, exist_ok=True)
            (old / path).replace(target / path)
        old.replace(scratch / "done")  # while it is removed, its list may be gone before its files
    for path in scratch.iterdir():
        if path.name != _LOCK:
            _remove(path)


def _end(scratch: Path, target: Path) -> None:
    """Remove the folder of a writer, the lock last."""
    _empty(scratch, target)
    with suppress(OSError):
        (scratch / _LOCK).unlink(missing_ok=True)
        scratch.rmdir()


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _real(path: Path) -> Path:
    """The path behind symbolic links, which stay."""
    return Path(os.path.realpath(path))


# ------------------------------------------------------------------------ whose files a folder has


def _list_files(folder: Path, command: str) -> None:
    """Add the command and the digest of every file to the report of a folder."""
    path = folder / REPORT
    content = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    listed = sorted(leaf for leaf in _leaves(folder) if leaf != path)
    files = {leaf.relative_to(folder).as_posix(): _digest(leaf) for leaf in listed}
    write_report(folder, {**content, "command": command, "files": files})


def _listed(folder: Path, command: str | None = None) -> dict[str, str] | None:
    """The digests in the report of a folder; None if it has no such list, or of another command."""
    try:
        content = json.loads((folder / REPORT).read_text(encoding="utf-8"))
        files = content["files"]
        ours = isinstance(files, dict) and command in (None, content["command"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return files if ours else None


def _check_folder(target: Path, command: str, force: bool) -> list[Path]:
    """Files of others in a folder that may be replaced, relative to it; see :func:`new_folder`."""
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return []
    if not target.is_dir() or _listed(target, command) is None:
        got = "files of another origin" if target.is_dir() else "a file"
        raise ValueError(
            f"{target}: must be absent, or a folder of `recbole-missing {command}` with the list "
            f"of its files ({REPORT}), got {got}; choose another name, or move it away."
        )
    if not force:
        raise ValueError(f"{target}: must not exist yet; replace it with --force.")
    return _foreign(target)


def _foreign(folder: Path) -> list[Path]:
    """What is not in the list of a folder, or not as the list has it; without the report."""
    listed = _listed(folder) or {}
    found = []
    for leaf in _leaves(folder):
        path = leaf.relative_to(folder)
        known = listed.get(path.as_posix())
        ours = known is not None and leaf.is_file() and _digest(leaf) == known
        if not ours and path != Path(REPORT):
            found.append(path)
    return found


def _check_collisions(target: Path, foreign: list[Path], folder: Path) -> None:
    """Refuse to replace files of others by those in ``folder``, or to follow a link there."""
    for path in foreign:
        parts = [folder / part for part in path.parents]
        above = any(part.is_file() or part.is_symlink() for part in parts)
        if above or os.path.lexists(folder / path):
            raise ValueError(
                f"{target / path}: must be as the last run wrote it to be replaced, got a file "
                "that is yours or was changed; move it away. Nothing was replaced."
            )


def _leaves(folder: Path) -> Iterator[Path]:
    """Files and symbolic links inside a folder."""
    for top, folders, files in os.walk(folder):
        links = [name for name in folders if Path(top, name).is_symlink()]
        yield from (Path(top, name) for name in (*files, *links))


def _digest(path: Path) -> str:
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


# ------------------------------------------------------------------------------------ the disk


FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Codes of the system for a disk that is full, a quota, and a limit on the size of a file."""


class FullDiskError(OSError):
    """A file or folder that does not fit on its disk.

    Args:
        path: the file or folder.
        code: one of :data:`FULL`.
        needed: number of bytes, in words.
        free: bytes that are free.
        end: a sentence on what is there now.
    """

    def __init__(self, path: Path, code: int, needed: str, free: int, end: str) -> None:
        """Make the message."""
        super().__init__(
            f"{path}: must fit on its disk, got {needed} bytes where {free:,} are free "
            f"({os.strerror(code).lower()}); make room, or choose another place. {end}"
        )
        self.errno = code


@contextmanager
def _room(path: Path, scratch: Path) -> Iterator[None]:
    """Turn every error that a full disk causes into one OSError in one line."""
    try:
        yield
    except FullDiskError:
        raise
    except Exception as error:
        code = _full(error, scratch)
        if code is None:
            raise
        written = sum(leaf.stat().st_size for leaf in _leaves(scratch) if leaf.is_file())
        free = shutil.disk_usage(scratch).free + written
        needed = f"more than {written or free:,}"
        raise FullDiskError(path, code, needed, free, "What was there is unchanged.") from error


def _full(error: BaseException | None, scratch: Path) -> int | None:
    """The system's code if a full disk, a quota or a limit caused an error, None otherwise."""
    told = error
    while told is not None:
        for code in FULL:
            if getattr(told, "errno", None) == code or os.strerror(code) in str(told):
                return code
        told = told.__cause__ or told.__context__
    if isinstance(error, (OSError, RuntimeError)) and getattr(error, "errno", None) is None:
        return _refused(scratch)  # torch and numpy do not say why they failed
    return None


def _refused(scratch: Path) -> int | None:
    """The system's code if a further megabyte does not fit where a writer failed."""
    files = [leaf for leaf in _leaves(scratch) if leaf.is_file() and not leaf.is_symlink()]
    try:
        with max(files, key=lambda leaf: leaf.stat().st_size).open("ab", buffering=0) as file:
            left = _BLOCK
            while left:
                left -= file.write(bytes(left)) or 0
    except OSError as error:
        return error.errno if error.errno in FULL else None
    return None


def _to_disk(path: Path) -> None:
    """Wait until a file is on the disk: a name must not be there before its content."""
    if path.is_file():
        with path.open("rb+") as file:
            os.fsync(file.fileno())


def _folder_to_disk(path: Path) -> None:
    with suppress(OSError):  # some systems cannot
        folder = os.open(path, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
