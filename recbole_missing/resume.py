"""Going on with a run that was killed: the ``last`` checkpoint, and which run may take it.

While a run trains, the state after an epoch is written beside its best checkpoint
``saved/NAME.pth``:

- ``saved/NAME.RUN.last``: the state after an epoch, with everything that training depends on. RUN
  is the identity of the run: data, settings in force and model.
- ``saved/NAME.RUN.best-EPOCH``: the best checkpoint as it was then. A later best one may replace
  ``NAME.pth`` before the process is killed.
- ``saved/.NAME.lock``: locked by the process that writes ``NAME.pth``, from before its training.

They are removed when the run has been tested.
"""

from __future__ import annotations

import glob
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from logging import getLogger
from pathlib import Path
from time import perf_counter
from typing import Any

from filelock import FileLock, Timeout

from recbole_missing import checkpoint, identity, in_force
from recbole_missing.atomic import check_no_link, whole_file

AUTO = "auto"
_EVERY = 5.0  # seconds, where the settings of this package are not in force
_ENDING = ".last"
_OF_RUN = re.compile(r"\.?(?P<run>[0-9a-f]{16})\.(pth|lock|(?P=run)\.(last|best-\d+))")
_BEST = re.compile(r"(.+)\.([^.]+)\.best-\d+")  # NAME.RUN.best-EPOCH
_COMPARED = 3  # files of other runs that are read, and differences that are named
_begun: list[Last] = []  # by this process; an interrupted run stays until the next one begins


def run_of(config: Any) -> str:
    """Identity of the run of a config whose data are built: hash of data, settings and model."""
    values, model = _plain(checkpoint.config_state(config)), config.model_class
    settings = in_force.settings_in_force(values, model)
    return identity.of_run(model, config["data_identity"], settings)


class Last:
    """The ``last`` checkpoint of a run, and the best one that belongs to it.

    Args:
        best: path of the best checkpoint.
        run: identity of the run.
        every: seconds between two writes; None means that nothing is written.
        note: returns plain values that are kept with the state.

    Attributes:
        path: path of the ``last`` checkpoint.
        noted: what ``note`` returned when the checkpoint was written that the run goes on from.
    """

    def __init__(
        self,
        best: Path,
        run: str,
        every: float | None,
        note: Callable[[], Mapping[str, Any]] = dict,
    ) -> None:
        """Take the arguments; nothing is written or locked yet."""
        self.path = best.with_name(f"{best.stem}.{run}{_ENDING}")
        self.noted: Mapping[str, Any] = {}
        self._best, self._every, self._note = best, every, note
        self._lock = FileLock(_lock_of(best))
        self._written = perf_counter()
        self._refused = False  # by the disk
        self._kept: int | None = None  # epoch of the best checkpoint that is kept

    # ------------------------------------------------------------------------- for the trainer

    def is_due(self) -> bool:
        """Tell whether the state is to be written now."""
        return self._every is not None and perf_counter() - self._written >= self._every

    def write(self, state: Mapping[str, Any], best: Path) -> None:
        """Write the state after an epoch. If the disk refuses it, a warning says so.

        Args:
            state: content of the checkpoint.
            best: path of the best checkpoint; it is kept as it is now.
        """
        if state["lost"]:
            getLogger().warning(
                f"{state['config']['model']}: no checkpoint of the last epoch is written, for "
                f"training changes {', '.join(state['lost'])}, which no checkpoint can hold; name "
                "them in `remade` if every epoch makes them anew."
            )
            self._every = None
            return
        if not self._lock.is_locked:
            return
        try:
            self._keep(best, state["best_epoch"])
            checkpoint.save({**state, "noted": dict(self._note())}, self.path)
            self._drop(others_than=state["best_epoch"])
        except OSError as error:
            if not self._refused:
                getLogger().warning(
                    f"{self.path}: not written ({error}); the run goes on without it."
                )
            self._refused = True
        self._written = perf_counter()

    def make_room(self) -> bool:
        """Give up the files for the best checkpoint, which found no room on the disk.

        Returns:
            False if there are none.
        """
        if not self._lock.is_locked or not self.path.is_file():
            return False
        self.remove()
        self._every = None
        getLogger().warning(
            f"{self.path}: removed, for the disk has no room for it and the best checkpoint; the "
            "run goes on without it."
        )
        return True

    def _keep(self, best: Path, epoch: int | None) -> None:
        """Keep the best checkpoint, as a link where the file system has links."""
        if epoch is not None and epoch != self._kept and best.is_file():
            _copy(best, self._best_of(epoch))
            self._kept = epoch

    def _drop(self, others_than: int | None = None) -> None:
        kept = None if others_than is None else self._best_of(others_than)
        prefix = f"{self.path.stem}.best-"
        for file in list(self.path.parent.iterdir()):
            if file.name.removeprefix(prefix).isdecimal() and file != kept:
                file.unlink(missing_ok=True)

    def _best_of(self, epoch: int) -> Path:
        return self.path.with_name(f"{self.path.stem}.best-{epoch}")

    # ------------------------------------------------------------------------- for who runs it

    def check_links(self) -> None:
        """Refuse symbolic links in the place of the files, also of the best checkpoint.

        Raises:
            ValueError: if there is one.
        """
        own = self.path.parent.glob(f"{glob.escape(self.path.stem)}.best-*")
        for path in (self._best, self.path, *own):
            check_no_link(path)

    def claim(self, patience: float = 0.0) -> bool:
        """Reserve the files for this process; False if another one has reserved them.

        Args:
            patience: seconds to wait for it.

        Raises:
            ValueError: if a symbolic link is in the place of the lock.
        """
        check_no_link(Path(self._lock.lock_file))
        with suppress(Timeout):
            self._lock.acquire(timeout=patience)
            with suppress(OSError):  # Windows: a locked file cannot be written
                Path(self._lock.lock_file).write_text(str(os.getpid()))
            for file in list(self.path.parent.iterdir()):  # what a killed process left
                if _is_left(file, self._best.stem):
                    file.unlink(missing_ok=True)
            return True
        self._every = None
        return False

    def reserve(self, file: Path | None = None) -> None:
        """Reserve the files for this process.

        Args:
            file: what the user asked for; it is the best checkpoint by default.

        Raises:
            ValueError: if another process has reserved them.
        """
        if not self.claim():
            raise ValueError(
                f"{file or self._best}: must not be in use, got {self.user()}; wait for its end."
            )

    def user(self) -> str:
        """The process that has reserved the files, in words."""
        text = _content(Path(self._lock.lock_file))
        return f"process {text}" if text.isdigit() else "another process"

    def give_back(self) -> None:
        """End the claim. The files stay for a later process if there are any."""
        if self._lock.is_locked:
            with suppress(OSError):
                Path(self._lock.lock_file).unlink(missing_ok=True)
        self._lock.release(force=True)

    def remove(self) -> None:
        """Remove the files, for the run has ended. The best checkpoint stays."""
        if self._lock.is_locked:  # a process killed in between leaves what the next one finds
            self._drop()
            self.path.unlink(missing_ok=True)

    def load(self, trainer: Any, file: Path) -> None:
        """Let a trainer go on from a file.

        Raises:
            ValueError: if it is not a checkpoint of this run; the message names what differs.
        """
        state = checkpoint.load(file, trainer.device)
        checkpoint.check_whole(str(file), state)
        with checkpoint.refused_as(f"{file}: must hold the settings of a run, got others"):
            differs = _differences(state, trainer.config)
        if differs:
            raise ValueError(
                f"{file}: must be a checkpoint of this run, got {', '.join(differs)}; restore "
                "these, or start without --resume."
            )
        kept = None
        if file.suffix == _ENDING:
            kept = self._kept_best(file, state, trainer.config)
        elif state.get("best_epoch", state["epoch"]) != state["epoch"]:
            raise ValueError(
                f"{file}: must be the checkpoint of a best epoch, got that of a last one (epoch "
                f"{state['epoch']}, where {state['best_epoch']} is the best); keep its name "
                f"NAME.RUN{_ENDING}, beside NAME.RUN.best-{state['best_epoch']}."
            )
        trainer.restore(state, str(file))
        if kept is not None:
            _copy(kept, self._best)
        trainer.saved_model_file = str(self._best)
        self.noted = state.get("noted") or {}
        for word, now in checkpoint.written_by(trainer.config)["machine"].items():
            then = state["written_by"]["machine"].get(word, now)
            if then != now:
                getLogger().warning(
                    f"{file}: written with {word} {then}, continued with {now}; results may differ "
                    "in their last digits."
                )

    def _kept_best(self, file: Path, state: Mapping[str, Any], config: Any) -> Path | None:
        """The best checkpoint that belongs to a file; None if it is in its place, or there is none.

        Raises:
            ValueError: if it is absent, damaged, or of another epoch or run.
        """
        epoch = state["best_epoch"]
        if epoch is None:
            return None
        kept = file.with_name(f"{file.stem}.best-{epoch}")
        there = kept.is_file()
        if not there and not (self._best.is_file() and _epoch_of(self._best) == epoch):
            raise ValueError(
                f"{file}: must lie beside {kept.name}, the best checkpoint that belongs to it, got "
                "no such file; copy both."
            )
        best = checkpoint.load(kept if there else self._best)
        differs = [] if best["epoch"] == epoch else [f"epoch {best['epoch']} instead of {epoch}"]
        differs += _differences(best, config)
        if differs:
            raise ValueError(
                f"{best['file']}: must be the best checkpoint that belongs to {file.name}, got "
                f"{', '.join(differs)}; copy both again, or start without --resume."
            )
        return kept if there else None


@contextmanager
def kept(
    run: Any,
    resume: str | Path | None = None,
    run_id: str | None = None,
    note: Callable[[], Mapping[str, Any]] = dict,
    best: Path | None = None,
) -> Iterator[Last | None]:
    """Write the ``last`` checkpoint of a run while the block lasts, and go on from one.

    The block ends with :meth:`Last.remove` if the run needs its files no more. Otherwise, also
    after an error, they stay.

    Args:
        run: a :class:`recbole_missing.quick_start.Run` that has not begun.
        resume: ``auto`` goes on from the file of the same run, if there is one. A path goes on from
            this file. None starts anew.
        run_id: identity of the run; it is computed by default.
        note: returns plain values that are kept with the state.
        best: path of the best checkpoint. Then no other run of the same identity has another path.

    Yields:
        None if the run writes no ``last`` checkpoint.

    Raises:
        ValueError: if the file is no checkpoint of this run, or such a run cannot be resumed, or
            another process writes the best checkpoint, or a symbolic link is in the place of one of
            the files.
    """
    trainer, config = run.trainer, run.config
    checkpoint.note_data(config, run.train_data)
    obstacle = _obstacle(trainer, config)
    if obstacle or not (run.saved or resume):
        if resume is not None and obstacle:
            raise ValueError(f"resume: must be left out for {config['model']}, got {obstacle}.")
        alone = Last(Path(trainer.saved_model_file), "", None)
        try:
            if run.saved:
                alone.reserve()
            yield None
        finally:
            alone.give_back()
        return
    every = config.final_config_dict.get("checkpoint_every", _EVERY)
    options = (run_id or run_of(config), every, note)
    if best is not None:
        check_no_link(best.parent)
        best.parent.mkdir(parents=True, exist_ok=True)
        last = Last(best, *options)
        last.check_links()
        if last.claim(patience=10.0):
            trainer.saved_model_file = str(best)
            if last.path.is_file():
                _continued(last, trainer)
        else:
            last = _new(trainer, (options[0], None, note))
    elif resume == AUTO:
        last = _found(trainer, options)
    elif resume is not None:
        last = _given(resume, trainer, options)
    else:
        last = _new(trainer, options)
    trainer.last = last
    _begun[:] = [last]
    try:
        yield last
    finally:
        trainer.last = None
        last.give_back()


def last_checkpoint() -> Path | None:
    """Path of the ``last`` checkpoint of the run that this process began last.

    After an interrupt, the same command with ``--resume=auto`` goes on from it.

    Returns:
        None if the run has ended, or has written none yet.
    """
    return next((one.path for one in _begun if one.path.is_file()), None)


def remove_leftovers(folder: Path, is_over: Callable[[str], bool], days: float = 14.0) -> None:
    """Remove the files of runs in a folder that no process will go on with.

    Files with other names than a benchmark gives, and a folder behind a symbolic link, stay.

    Args:
        folder: its files begin with the identity of their run. It is removed when it is empty.
        is_over: tells for the identity of a run whether it is over.
        days: files that nothing has changed for so long are removed, too.
    """
    times: dict[str, float] = {}
    for file, run in _of_runs(folder):
        with suppress(FileNotFoundError):  # its run has just ended
            times[run] = max(times.get(run, 0.0), file.lstat().st_mtime)
    newest = max(times.values(), default=0.0)
    for run, time in times.items():
        if is_over(run) or newest - time > days * 86400:
            remove_of(folder, run)
    with suppress(OSError):
        folder.rmdir()


def remove_of(folder: Path, run: str) -> None:
    """Remove the files of one run in a folder, unless a process has reserved them."""
    lock = _lock_of(folder / f"{run}.pth")
    if not folder.is_dir() or folder.is_symlink() or lock.is_symlink():
        return
    with suppress(Timeout), FileLock(lock).acquire(blocking=False):
        for file, owner in _of_runs(folder):
            if owner == run and file != lock:
                file.unlink(missing_ok=True)
        with suppress(OSError):
            lock.unlink(missing_ok=True)
    with suppress(OSError):  # other runs have files there
        folder.rmdir()


def _of_runs(folder: Path) -> list[tuple[Path, str]]:
    """The files of runs in the folder of a benchmark, and the identity of each one's run."""
    if not folder.is_dir() or folder.is_symlink():
        return []
    found = [(file, _OF_RUN.fullmatch(file.name)) for file in folder.iterdir()]
    return [(file, name["run"]) for file, name in found if name and not file.is_dir()]


# ------------------------------------------------------------------------------ which checkpoint


def _obstacle(trainer: Any, config: Any) -> str:
    """Why a run writes no ``last`` checkpoint; empty if it does."""
    if not config["single_spec"]:
        return "more than one process (nproc), whose generators no checkpoint holds"
    if not getattr(trainer, "can_resume", False):
        return f"{type(trainer).__name__}, a trainer of RecBole with a training of its own"
    if config["data_identity"] is None:
        return "data without users and items"
    return ""


def _new(trainer: Any, options: tuple[Any, ...]) -> Last:
    """Reserve the best checkpoint of a trainer that starts anew."""
    last = Last(Path(trainer.saved_model_file), *options)
    last.reserve()
    return last


def _found(trainer: Any, options: tuple[Any, ...]) -> Last:
    """The ``last`` checkpoint of the same run that was written latest, or a new one."""
    folder, run = Path(trainer.saved_model_file).parent, options[0]
    ending = f".{run}{_ENDING}"
    for file in _lasts(folder):
        if not file.name.endswith(ending):
            continue
        last = Last(file.with_name(f"{file.name.removesuffix(ending)}.pth"), *options)
        last.check_links()
        if not last.claim():
            getLogger().info(f"resume: {file} is in use by {last.user()}")
        elif file.is_file() and _continued(last, trainer):
            _tidy(folder)
            return last
        last.give_back()
    _tidy(folder)
    nearest = _nearest(folder, ending, trainer.config)
    getLogger().info(
        f"resume: {folder} holds no checkpoint of this run, which starts anew{nearest}"
    )
    return _new(trainer, options)


def _lasts(folder: Path) -> list[Path]:
    """The ``last`` checkpoints in a folder, the newest one first."""
    files = [file for file in folder.glob(f"*{_ENDING}") if not file.name.startswith(".")]
    return sorted(files, key=lambda file: file.stat().st_mtime, reverse=True)


def _nearest(folder: Path, ending: str, config: Any) -> str:
    """What the newest file of the same model and data set differs in; empty if there is none."""
    for file in [file for file in _lasts(folder) if not file.name.endswith(ending)][:_COMPARED]:
        try:
            state = checkpoint.load(file)
        except ValueError:
            continue
        if any(state["config"].get(key) != config[key] for key in ("model", "dataset")):
            continue
        differs = _differences(state, config)
        if not differs:
            epochs = f"{state['config'].get('epochs')} instead of {config['epochs']}"
            return f"; only epochs {epochs} differ in {file}: --resume={file} goes on from it"
        more = [f"{len(differs) - _COMPARED} more"] if len(differs) > _COMPARED else []
        return f"; {file} is of a run with {', '.join(differs[:_COMPARED] + more)}"
    return ""


def _tidy(folder: Path) -> None:
    """Remove what runs left that were killed before their first ``last`` checkpoint."""
    names = {file.name.rpartition(".")[0].rpartition(".")[0] for file in _lasts(folder)}
    left = set()
    for file in folder.iterdir():
        found = _BEST.fullmatch(file.name)
        if found:
            left.add(found[1])
        elif file.name.startswith(".") and file.suffix == ".lock" and _content(file).isdigit():
            left.add(file.name[1 : -len(".lock")])
    for name in left - names:
        one = Last(folder / f"{name}.pth", "", None)
        with suppress(OSError, ValueError):  # it belongs to another user, or is a link
            one.claim()
            one.give_back()


def _is_left(file: Path, name: str) -> bool:
    """Tell whether a killed process that wrote ``NAME.pth`` left a file which is of no use."""
    found = _BEST.fullmatch(file.name)
    if found:
        return found[1] == name and not file.with_name(f"{name}.{found[2]}{_ENDING}").exists()
    return file.suffix == ".tmp" and file.name.startswith(f"{name}.")


def _continued(last: Last, trainer: Any) -> bool:
    """Go on from a file if it fits; otherwise say why not."""
    try:
        last.load(trainer, last.path)
    except ValueError as error:
        if trainer.is_resumed:  # it has a part of the state, so it cannot start anew
            raise
        getLogger().warning(f"resume: not continued: {error}")
        return False
    getLogger().info(f"resume: {last.path}, epoch {trainer.start_epoch} is next")
    return True


def _given(resume: str | Path, trainer: Any, options: tuple[Any, ...]) -> Last:
    """The ``last`` checkpoint of a run that goes on from a file.

    Raises:
        ValueError: if the file is no checkpoint of this run, or is in use.
    """
    file = Path(resume)
    if not str(resume) or file.is_dir():
        got = f"the folder {resume}" if str(resume) else "nothing"
        raise ValueError(
            f"resume: must be `{AUTO}` or a file NAME.RUN{_ENDING} or NAME.pth, got {got}; name a "
            f"file, or `{AUTO}`."
        )
    if not file.is_file():
        checkpoint.load(file)  # says what is wrong
    if _BEST.fullmatch(file.name):
        other = f"{file.stem}{_ENDING}"
        raise ValueError(
            f"{file}: must be a file NAME.RUN{_ENDING} or NAME.pth, got the best checkpoint that "
            f"belongs to {other}; name that one."
        )
    best = file
    if file.suffix == _ENDING:
        name = file.stem.rpartition(".")[0]
        if not name:
            raise ValueError(
                f"{file}: must keep its name NAME.RUN{_ENDING}, got another one; give it the name "
                "of its file NAME.RUN.best-EPOCH again."
            )
        best = file.with_name(f"{name}.pth")
    last = Last(best, *options)
    last.check_links()
    last.reserve(file)
    try:
        last.load(trainer, file)
    except BaseException:
        last.give_back()
        raise
    getLogger().info(f"resume: {file}, epoch {trainer.start_epoch} is next")
    return last


def _epoch_of(file: Path) -> int:
    epoch: int = checkpoint.load(file)["epoch"]
    return epoch


def _content(lock: Path) -> str:
    """What a lock file says: the number of a process."""
    try:
        return lock.read_text()
    except (OSError, UnicodeDecodeError):
        return ""


def _lock_of(best: Path) -> Path:
    return best.with_name(f".{best.stem}.lock")


def _differences(state: Mapping[str, Any], config: Any) -> list[str]:
    """What differs between the run of a checkpoint and a run, in words; empty if nothing does.

    A run may have more ``epochs`` than the one that it goes on from.
    """
    values, model = _plain(checkpoint.config_state(config)), config.model_class
    old, found = _plain(state["config"]), []
    if old.get("model") != values["model"]:
        return [f"model {old.get('model')} instead of {values['model']}"]
    theirs = in_force.settings_in_force(old, model)
    ours = in_force.settings_in_force(values, model)
    if _goes_further(state["epoch"] + 1, theirs, ours):
        theirs["epochs"] = ours["epochs"]
    if old.get("data_identity"):
        modalities = identity.reads_modalities(model)
        parts = [identity.parts_in_force(one["data_identity"], modalities) for one in (old, values)]
        found += [f"another {words}" for words in identity.differing(*parts)]
    found += [
        f"{key} {theirs.get(key)!r} instead of {ours.get(key)!r}"
        for key in sorted({*theirs, *ours})
        if theirs.get(key) != ours.get(key)
    ]
    return found + checkpoint.other_code(state, config)


def _goes_further(done: int, theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> bool:
    """Tell whether a run only has more epochs. RecBole validates at least in the last one."""
    fewest = min(theirs["epochs"], ours["epochs"])
    return done <= ours["epochs"] and fewest >= ours["eval_step"]


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(json.dumps(values, default=str))
    return plain


def _copy(source: Path, target: Path) -> None:
    """Make ``target`` the file that ``source`` is now, as a link where that is possible."""
    with whole_file(target) as temporary:
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copy2(source, temporary)
