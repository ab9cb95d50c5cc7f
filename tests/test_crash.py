"""Killed processes, full disks, two processes at one place, Ctrl-C: real ones."""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from folders import REPOSITORY, recbole_folder, tiny_content
from folders import workplace as workplace
from lines import line

from recbole_missing import atomic, resume, run_recbole_missing
from recbole_missing.benchmark.store import Store

# ------------------------------------------------- writers that are killed, and what they leave

ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests")]),
    "OMP_NUM_THREADS": "1",
    "CUDA_VISIBLE_DEVICES": "",
}
SMALL = 64 * 1024  # bytes that a file may have where a test limits them


def start(
    folder: Path, *words: str, before: Callable[[], Any] | None = None, **options: Any
) -> subprocess.Popen[str]:
    """Start Python in a folder; what it prints can be read from the process."""

    def prepare() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background has none
        if before is not None:
            before()

    return subprocess.Popen(
        [sys.executable, "-W", "ignore", *words],
        preexec_fn=prepare,
        cwd=folder,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def command(folder: Path, *words: object, **options: Any) -> subprocess.Popen[str]:
    """Start ``recbole-missing``."""
    return start(folder, "-m", "recbole_missing.cli", *map(str, words), **options)


def end(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Wait for a process; its exit code, output and errors."""
    try:
        output, errors = process.communicate(timeout=300)
    finally:
        process.kill()
    return process.returncode, output, errors


def wait_for(there: Callable[[], Any], process: subprocess.Popen[str]) -> Any:
    """Wait until something is there, while the process runs."""
    end = time.monotonic() + 120
    while time.monotonic() < end:
        found = there()
        if found:
            return found
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    raise AssertionError("waited in vain")


FILE_WRITER = """
import hashlib
from pathlib import Path
from recbole_missing import atomic

for number in range(10**6):
    body = (str(number) * 200_000)[:200_000]
    with atomic.whole_file(Path("mine")) as temporary:
        temporary.write_text(hashlib.md5(body.encode()).hexdigest() + body)
    print(number, flush=True)
"""

FOLDER_WRITER = """
from pathlib import Path
from recbole_missing import atomic

for number in range(10**6):
    with atomic.new_folder(Path("mine"), "mine", force=True) as folder:
        for name in range(4):
            (folder / f"{number}_{name}").write_text(str(number) * 10_000)
    print(number, flush=True)
"""

STORE_WRITER = """
from lines import line
from recbole_missing.benchmark.store import Store

for number in range(10**6):
    Store("mine.jsonl").append(line(f"{number}", title="x" * 300_000))
    print(number, flush=True)
"""


def killed(folder: Path, code: str, seed: int) -> int:
    """Kill a writer at a random moment; the last number that it reported."""
    process = start(folder, "-c", code)
    assert process.stdout is not None
    first = process.stdout.readline()
    time.sleep(random.Random(seed).uniform(0, 0.2))
    process.kill()
    rest, errors = process.communicate()
    assert not errors
    return int((first + rest).split()[-1])


def whole(folder: Path) -> bool:
    """Tell whether a folder of results has every file of its list, as the list has it."""
    files = json.loads((folder / atomic.REPORT).read_text())["files"]
    return all(atomic._digest(folder / name) == digest for name, digest in files.items())


@pytest.mark.parametrize("seed", range(2))
def test_a_file_is_old_or_new_whenever_its_writer_is_killed(tmp_path: Path, seed: int) -> None:
    import hashlib

    number = killed(tmp_path, FILE_WRITER, seed)
    text = (tmp_path / "mine").read_text()
    assert hashlib.md5(text[32:].encode()).hexdigest() == text[:32]
    assert text[32:].startswith((str(number), str(number + 1)))
    with atomic.whole_file(tmp_path / "other") as temporary:  # any writer tidies up its folder
        temporary.write_text("")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "other"]


@pytest.mark.parametrize("seed", range(2))
def test_a_folder_is_old_or_new_whenever_its_writer_is_killed(tmp_path: Path, seed: int) -> None:
    with atomic.new_folder(tmp_path / "mine", "mine"):
        pass
    notes = tmp_path / "mine" / "notes" / "mine.txt"
    notes.parent.mkdir()
    notes.write_text("mine")
    number = killed(tmp_path, FOLDER_WRITER, seed)
    atomic.tidy(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    assert whole(tmp_path / "mine")
    assert notes.read_text() == "mine"
    names = {path.name.split("_")[0] for path in (tmp_path / "mine").glob("*_*")}
    assert names in ({str(number)}, {str(number + 1)})


@pytest.mark.parametrize("step", range(1, 6))
def test_a_kill_between_two_renames_loses_neither_folder(tmp_path: Path, step: int) -> None:
    """The steps: old aside, new in place, two files of the user carried over, the end noted."""
    with atomic.new_folder(tmp_path / "mine", "mine") as folder:
        (folder / "result").write_text("old")
    for name in ("a", "b"):
        (tmp_path / "mine" / name).write_text("of the user")
    code = f"""
import os
import signal
from pathlib import Path
from recbole_missing import atomic

replace, calls = Path.replace, []

def counted(path, target):
    calls.append(path)
    if len(calls) == {step}:
        os.kill(os.getpid(), signal.SIGKILL)
    return replace(path, target)

Path.replace = counted
with atomic.new_folder(Path("mine"), "mine", force=True) as folder:
    (folder / "result").write_text("new")
"""
    assert end(start(tmp_path, "-c", code)) == (-signal.SIGKILL, "", "")
    if step == 2:
        assert not (tmp_path / "mine").exists(), "the worst moment"
    with atomic.whole_file(tmp_path / "other") as temporary:
        temporary.write_text("")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "other"]
    assert whole(tmp_path / "mine")
    texts = {p.name: p.read_text() for p in (tmp_path / "mine").iterdir()}
    assert texts.pop(atomic.REPORT)
    result = "old" if step <= 2 else "new"
    assert texts == {"result": result, "a": "of the user", "b": "of the user"}


@pytest.mark.parametrize("seed", range(2))
def test_a_store_keeps_every_reported_line_whenever_its_writer_is_killed(
    tmp_path: Path, seed: int
) -> None:
    number = killed(tmp_path, STORE_WRITER, seed)
    store = Store(tmp_path / "mine.jsonl")
    runs = [one.run for one in store.lines()]
    assert runs in ([str(n) for n in range(number + extra)] for extra in (1, 2))
    store.append(line("next"))
    assert [one.run for one in store.lines()] == [*runs, "next"]
    assert store.path.read_bytes().count(b"\n") == len(runs) + 1


def test_what_a_living_process_writes_is_left_alone(tmp_path: Path) -> None:
    with atomic.new_folder(tmp_path / "mine", "mine") as folder:
        (folder / "half").write_text("half")
        code = "from pathlib import Path; from recbole_missing import atomic; atomic.tidy(Path())"
        assert end(start(tmp_path, "-c", code)) == (0, "", "")
        assert (folder / "half").read_text() == "half"
    assert (tmp_path / "mine" / "half").read_text() == "half"


def test_a_file_that_came_into_being_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    with atomic.new_folder(tmp_path / "mine", "mine"):
        pass
    message = "new: must be as the last run wrote it .* Nothing was replaced"
    with (
        pytest.raises(ValueError, match=message),
        atomic.new_folder(tmp_path / "mine", "mine", True) as new,
    ):
        (new / "new").write_text("of the run")
        (tmp_path / "mine" / "new").write_text("of the user")
    assert (tmp_path / "mine" / "new").read_text() == "of the user"
    with (
        pytest.raises(ValueError, match="must not exist yet"),
        atomic.new_folder(tmp_path / "b", "mine"),
    ):
        shutil.copytree(tmp_path / "mine", tmp_path / "b")
    file = atomic.whole_file(tmp_path / "c", force=False)
    with pytest.raises(ValueError, match="must not exist yet"), file as temporary:
        temporary.write_text("of the run")
        (tmp_path / "c").write_text("of the user")
    assert (tmp_path / "c").read_text() == "of the user"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "c", "mine"]


def test_a_folder_that_others_made_after_a_kill_is_not_replaced(tmp_path: Path) -> None:
    scratch = tmp_path / ".mine.writing"
    for folder in (scratch / "old", scratch / "new", tmp_path / "mine"):
        folder.mkdir(parents=True)
        (folder / "result").write_text(folder.name)
    (scratch / "lock").touch()
    atomic.tidy(tmp_path)
    message = "must be absent, .* moved its former content to .*old;"
    again = atomic.new_folder(tmp_path / "mine", "mine", force=True)
    with pytest.raises(ValueError, match=message), again:
        pass
    for folder in (scratch / "old", tmp_path / "mine"):
        assert (folder / "result").read_text() == folder.name


def test_without_locks_no_writer_touches_what_another_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(atomic, "fcntl", None)
    other = tmp_path / ".mine.writing" / "1" / "half"
    other.parent.mkdir(parents=True)
    other.write_text("of another process")
    with atomic.whole_file(tmp_path / "mine") as temporary:
        temporary.write_text("mine")
    atomic.tidy(tmp_path)
    assert (tmp_path / "mine").read_text() == "mine"
    assert other.read_text() == "of another process"
    shutil.rmtree(tmp_path / ".mine.writing")
    with atomic.new_folder(tmp_path / "folder", "mine") as folder:
        (folder / "result").write_text("mine")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "mine"]


# ------------------------------------------- what a clone or an archive holds at our hidden names


@pytest.fixture
def precious(tmp_path: Path) -> Iterator[Path]:
    """A folder of the user outside the place that is written; it is unchanged at the end."""
    folder = tmp_path / "precious"
    (folder / "new").mkdir(parents=True)
    texts = {
        name: f"of the user: {name}" for name in ("thesis.txt", "lock", "new/a", atomic.REPORT)
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
    (tmp_path / "out").mkdir()
    yield folder
    found = {str(p.relative_to(folder)): p.read_text() for p in folder.rglob("*") if p.is_file()}
    assert found == texts


def write_file(path: Path) -> None:
    with atomic.whole_file(path) as temporary:
        temporary.write_text("mine")


def write_folder(path: Path) -> None:
    with atomic.new_folder(path, "mine", force=True) as folder:
        (folder / "result").write_text("mine")


LINKS = pytest.mark.parametrize("link", [".mine.writing", ".mine.writing/lock"])


@LINKS
@pytest.mark.parametrize("write", [write_file, write_folder])
def test_a_link_in_the_place_of_a_scratch_folder_is_not_followed(
    precious: Path, tmp_path: Path, write: Any, link: str
) -> None:
    link_to = tmp_path / "out" / link
    link_to.parent.mkdir(exist_ok=True)
    link_to.symlink_to(precious if link.endswith("writing") else precious / "lock")
    with pytest.raises(ValueError, match=f"{link}: must .* symbolic link.* remove it") as raised:
        write(tmp_path / "out" / "mine")
    assert "\n" not in str(raised.value)
    write(tmp_path / "out" / "other")
    assert link_to.is_symlink()
    link_to.unlink()
    write(tmp_path / "out" / "mine")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["mine", "other"]


def test_only_folders_of_ours_are_emptied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scratch = tmp_path / ".mine.writing"
    scratch.write_text("of the user")
    with pytest.raises(ValueError, match=r"\.mine\.writing: must .* got a file;"):
        write_file(tmp_path / "mine")
    scratch.unlink()
    scratch.mkdir()
    (scratch / "thesis.txt").write_text("of the user")
    atomic.tidy(tmp_path)
    with pytest.raises(ValueError, match=r"\.mine\.writing: must .* without our lock;"):
        write_file(tmp_path / "mine")
    assert [path.name for path in scratch.iterdir()] == ["thesis.txt"]
    (scratch / "lock").touch()
    with monkeypatch.context() as patch:
        patch.setattr(os, "geteuid", lambda: scratch.stat().st_uid + 1)
        atomic.tidy(tmp_path)
        with pytest.raises(ValueError, match=r"\.mine\.writing: must .* of another user;"):
            write_file(tmp_path / "mine")
    assert (scratch / "thesis.txt").read_text() == "of the user"
    write_file(tmp_path / "mine")
    assert not scratch.exists()


@pytest.mark.parametrize("links", [{"old": ""}, {"new": ""}, {"done": ""}, {"a": "", "b": "lock"}])
def test_links_inside_a_scratch_folder_are_not_followed(
    precious: Path, tmp_path: Path, links: dict[str, str]
) -> None:
    out = tmp_path / "out"
    (out / "mine").mkdir()
    (out / ".mine.writing").mkdir()
    (out / ".mine.writing" / "lock").touch()
    for name, end in links.items():
        (out / ".mine.writing" / name).symlink_to(precious / end)
    atomic.tidy(out)
    assert [path.name for path in out.iterdir()] == ["mine"]
    assert not list((out / "mine").iterdir())


@pytest.mark.parametrize(
    ("scratch", "planted", "link"),
    [
        (".mine.writing", "a", "mine"),
        (".mine.writing", "sub/a", "mine/sub"),
        ("....writing", "a", ""),
    ],
)
def test_content_that_was_moved_aside_is_not_carried_through_a_link(
    precious: Path, tmp_path: Path, scratch: str, planted: str, link: str
) -> None:
    """The last one names the folder above."""
    out = tmp_path / "out"
    file = out / scratch / "old" / planted
    file.parent.mkdir(parents=True)
    file.touch()
    (out / scratch / "lock").touch()
    if link:
        (out / link).parent.mkdir(exist_ok=True)
        (out / link).symlink_to(precious)
    atomic.tidy(out)
    assert file.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "precious"]


def test_without_locks_a_link_in_the_place_of_a_process_is_not_followed(
    precious: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(atomic, "fcntl", None)
    link = tmp_path / "out" / ".mine.writing" / str(os.getpid())
    link.parent.mkdir()
    link.symlink_to(precious)
    with pytest.raises(ValueError, match="got a symbolic link;"):
        write_file(tmp_path / "out" / "mine")


@pytest.mark.parametrize("name", ["lock", "claims", "claims/a"])
def test_links_beside_a_store_are_not_followed(precious: Path, tmp_path: Path, name: str) -> None:
    store = Store(tmp_path / "out" / "mine.jsonl")
    link = tmp_path / "out" / f".mine.jsonl.{name}"
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(precious if name == "claims" else precious / "lock")
    with pytest.raises(ValueError, match=f"{name}: must not be a symbolic link, got one; remove"):
        store.claim("a")
    if name != "lock":
        store.release(store.claim("b")) if name != "claims" else store.tidy()
        store.tidy()
    assert link.is_symlink()


def test_only_files_of_runs_are_removed_as_leftovers(precious: Path, tmp_path: Path) -> None:
    run = "0123456789abcdef"
    folder = tmp_path / "out" / ".mine.jsonl.unfinished"
    folder.mkdir()
    of_run = [f"{run}.pth", f"{run}.{run}.last", f"{run}.{run}.best-3", f".{run}.lock"]
    of_user = ["thesis.txt", f"{run}.txt", f"{run}.{run}.best-of", f".{run}", f"{run}0.pth"]
    for name in of_run + of_user:
        (folder / name).touch()
    moved = precious.parent / "moved"
    folder.rename(moved)
    folder.symlink_to(moved)
    resume.remove_leftovers(folder, lambda name: True)
    resume.remove_of(folder, run)
    assert len(list(moved.iterdir())) == len(of_run + of_user)
    resume.remove_leftovers(moved, lambda name: True)
    assert sorted(path.name for path in moved.iterdir()) == sorted(of_user)
    (moved / of_run[0]).touch()
    (moved / of_run[3]).symlink_to(precious / "lock")
    resume.remove_leftovers(moved, lambda name: True)
    assert (moved / of_run[0]).exists(), "its lock is a link"


# ----------------------------------------------------------------------------------- a full disk


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 2 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this machine lets us mount no small disk; see the tests with a limit")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@contextmanager
def limited(size: int) -> Iterator[None]:
    """Let files of this process have ``size`` bytes at most, as a quota would."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def limit_files() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (SMALL, SMALL))


def by_torch(path: Path) -> None:
    import torch

    torch.save({"a": torch.zeros(400_000), "b": torch.zeros(400_000)}, path)


def by_safetensors(path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(800_000)}, path)


def by_numpy(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.zeros(400_000))


def by_text(path: Path) -> None:
    path.write_text("x" * 3_200_000)


WRITERS = [by_torch, by_safetensors, by_numpy, by_text]
FULL = r"mine: must fit on its disk, got more than [\d,]+ bytes where [\d,]+ are free \(.*\);"


@pytest.mark.parametrize("write", WRITERS)
def test_a_full_disk_leaves_the_old_file_and_is_named_in_one_line(disk: Path, write: Any) -> None:
    (disk / "mine").write_text("old")
    with pytest.raises(OSError, match=FULL) as raised, atomic.whole_file(disk / "mine") as path:
        write(path)
    assert "\n" not in str(raised.value)
    assert "no space left on device" in str(raised.value)
    del raised  # torch holds the file as long as the exception lives
    assert [path.name for path in disk.iterdir()] == ["mine"]
    assert (disk / "mine").read_text() == "old"


@pytest.mark.parametrize("write", WRITERS)
def test_a_quota_leaves_the_old_folder_and_is_named_in_one_line(tmp_path: Path, write: Any) -> None:
    with atomic.new_folder(tmp_path / "mine", "mine") as folder:
        (folder / "result").write_text("old")
    new = atomic.new_folder(tmp_path / "mine", "mine", force=True)
    with pytest.raises(OSError, match=FULL) as raised, limited(SMALL), new as folder:
        write(folder / "result")
    assert "file too large" in str(raised.value)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    assert (tmp_path / "mine" / "result").read_text() == "old"


def test_a_folder_that_is_a_disk_is_refused_before_any_work(disk: Path) -> None:
    words = r"must not be the root of a disk.*disk/impute\.$"
    with pytest.raises(ValueError, match=words), atomic.new_folder(disk, "impute"):
        raise AssertionError("begun")


def test_another_failure_keeps_its_own_words(tmp_path: Path) -> None:
    for error in (RuntimeError("no more"), ValueError("no"), PermissionError(13, "denied")):
        with pytest.raises(type(error)) as raised, atomic.whole_file(tmp_path / "mine") as path:
            path.write_text("half")
            raise error
        assert raised.value is error
    assert list(tmp_path.iterdir()) == []


def test_a_store_on_a_full_disk_is_unchanged_and_its_line_is_elsewhere(
    disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    store = Store(disk / "mine.jsonl")
    store.append(line("a"))
    before = store.path.read_bytes()
    with pytest.raises(OSError, match="mine.jsonl: must fit on its disk, got 3,000,") as raised:
        store.append(line("b", title="x" * 3_000_000))
    assert store.path.read_bytes() == before
    (place,) = tmp_path.glob("mine-*.jsonl")
    assert f"add it: cat {place} >> {store.path}" in str(raised.value)
    subprocess.run(["umount", "-l", str(disk)], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(disk)], check=True)
    store.path.write_bytes(before)
    subprocess.run(f"cat {place} >> {store.path}", shell=True, check=True)
    assert [one.run for one in store.lines()] == ["a", "b"]


def test_a_store_within_a_quota_is_unchanged_and_its_line_is_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: Any
) -> None:
    store = Store(tmp_path / "mine.jsonl")
    store.append(line("a"))
    before = store.path.read_bytes()
    with pytest.raises(OSError, match="file too large.* is on standard output"), limited(SMALL):
        store.append(line("b", title="x" * SMALL))
    assert store.path.read_bytes() == before
    assert json.loads(capsys.readouterr().out)["run"] == "b"
    store.append(line("c"))
    assert [one.run for one in store.lines()] == ["a", "c"]
    assert "incomplete" not in caplog.text, "nobody was killed"


RUN = [
    "run", "--model=VBPR", "--dataset=tiny", "--show_progress=False", "--gpu_id=", "--topk=5",
    "--valid_metric=Recall@5", "--missing_protocol=random_items", "--missing_ratio=0.3",
]  # fmt: skip


def run(root: Path, cwd: Path, *words: str, **options: Any) -> subprocess.Popen[str]:
    """Start a short training with a costly imputer, and so with a file of imputed rows."""
    folder, _ = recbole_folder(root)
    paths = [f"--data_path={folder.parent}", f"--config_files={folder / 'tiny.yaml'}"]
    return command(cwd, *RUN, "--imputation=featprop", *paths, *words, **options)


@pytest.mark.slow
def test_a_checkpoint_that_does_not_fit_ends_the_run_in_one_line(tmp_path: Path) -> None:
    process = run(tmp_path, tmp_path, "--epochs=2", before=limit_files)
    code, output, errors = end(process)
    assert code == 2
    assert "Traceback" not in output + errors
    last = errors.splitlines()[-1]
    assert last.startswith("error: saved/VBPR-")
    assert "must fit on its disk, got more than 65,536 bytes" in last
    assert not [path for path in (tmp_path / "saved").iterdir() if path.is_file()]


@pytest.mark.slow
def test_a_full_disk_skips_what_is_optional_and_the_result_is_printed(
    disk: Path, tmp_path: Path
) -> None:
    """Log, TensorBoard and imputed rows lie on the full disk, the checkpoint does not."""
    (tmp_path / "saved").mkdir()
    (disk / "imputed").mkdir()
    (tmp_path / "saved" / "imputed").symlink_to(disk / "imputed")
    with (disk / "fill").open("wb", buffering=0) as file, pytest.raises(OSError, match="space"):
        while True:
            file.write(bytes(4096))
    process = run(tmp_path, disk, "--epochs=2", f"--checkpoint_dir={tmp_path / 'saved'}")
    code, output, errors = end(process)
    assert code == 0, errors[-3000:]
    assert "Traceback" not in output + errors
    for what in ("the run goes on without a log file", "TensorBoard: ", "The next run imputes"):
        assert errors.count(what) == 1, what
    assert "test items" in errors, "the table of results"
    assert len(list((tmp_path / "saved").glob("*.pth"))) == 1
    assert not list((disk / "imputed").iterdir())


@pytest.mark.slow
def test_a_full_disk_stops_a_benchmark_and_loses_no_run(disk: Path, tmp_path: Path) -> None:
    folder, _ = recbole_folder(tmp_path)
    grid = "grid: {dataset: [tiny], model: [VBPR], seed: [1, 2]}"
    settings = "settings: {epochs: 3, topk: [5], valid_metric: Recall@5, checkpoint_every: 0}"
    (tmp_path / "mine.yaml").write_text(f"title: Mine\n{grid}\n{settings}\n")
    fill = disk / "fill"
    with fill.open("wb", buffering=0) as file, pytest.raises(OSError, match="space"):
        while True:
            file.write(bytes(4096))
    os.truncate(fill, fill.stat().st_size - 16 * 1024)  # for the store, not a checkpoint
    words = ["benchmark", tmp_path / "mine.yaml", f"--data-path={folder.parent}", "--workers", "2"]
    code, output, errors = end(command(disk, *words))
    assert code == 2 and "Traceback" not in errors
    assert "must fit on its disk" in errors and "Start the benchmark again" in errors
    assert not (disk / "mine.jsonl").exists() or not (disk / "mine.jsonl").read_text()
    fill.unlink()
    assert end(command(disk, *words))[0] == 0
    lines = [json.loads(text) for text in (disk / "mine.jsonl").read_text().splitlines()]
    assert [one["status"] for one in lines] == ["done", "done"]
    assert not (disk / ".mine.jsonl.unfinished").exists()


# ----------------------------------------------------------------- two processes at one place

SLOW = """
import time
from pathlib import Path
from recbole_missing.imputation import Mean

class Slow(Mean):
    def fit(self, *args):
        Path("started").touch()
        while not Path("go on").exists():
            time.sleep(0.02)
        return super().fit(*args)
"""


@pytest.fixture
def impute(tmp_path: Path) -> list[object]:
    """Words of an imputation that waits for a file ``go on``."""
    (tmp_path / "slow.py").write_text(SLOW)
    (tmp_path / "q.csv").write_text("user_id,item_id\n" + "".join(f"u{n},{n}\n" for n in range(6)))
    np.save(tmp_path / "f.npy", np.arange(12, dtype=np.float32).reshape(6, 2))
    (tmp_path / "i.txt").write_text("".join(f"{n}\n" for n in range(6)))
    files = ["--interactions=q.csv", "--features", "image=f.npy", "--ids", "image=i.txt"]
    return ["impute", *files, "--method=slow:Slow", "--output=out"]


def left(folder: Path) -> set[str]:
    given = {"slow.py", "q.csv", "f.npy", "i.txt", "started", "go on", "__pycache__"}
    return {path.name for path in folder.iterdir()} - given


def test_of_two_imputations_into_one_folder_the_second_ends(
    tmp_path: Path, impute: list[object]
) -> None:
    first = command(tmp_path, *impute)
    wait_for((tmp_path / "started").exists, first)
    code, output, errors = end(command(tmp_path, *impute, "--force"))
    assert (code, output) == (2, "")
    assert errors == (
        "error: out: must be written by one process at a time, got another one that writes it; "
        "wait for its end, or choose another name.\n"
    )
    (tmp_path / "go on").touch()
    code, _, errors = end(first)
    assert (code, errors) == (0, "")
    assert whole(tmp_path / "out")
    assert left(tmp_path) == {"out"}


APPENDER = """
import sys
from lines import line
from recbole_missing.benchmark.store import Store

for n in range(20):
    Store("mine.jsonl").append(line(sys.argv[1] + str(n), title="x" * 50_000))
"""


def test_appenders_of_which_some_are_killed_share_a_store(tmp_path: Path) -> None:
    running = [start(tmp_path, "-c", APPENDER, name) for name in "abcd"]
    store = Store(tmp_path / "mine.jsonl")
    wait_for(lambda: store.path.exists() and store.path.stat().st_size > 10**6, running[0])
    running[3].kill()
    assert [end(process) for process in running] == [*[(0, "", "")] * 3, (-signal.SIGKILL, "", "")]
    runs = [one.run for one in store.lines()]
    assert {f"{name}{n}" for name in "abc" for n in range(20)} <= set(runs)
    assert len(set(runs)) == len(runs)


def test_two_writers_of_one_file_give_a_whole_file(tmp_path: Path) -> None:
    first, second = (start(tmp_path, "-c", FILE_WRITER) for _ in range(2))
    for process in (first, second):
        assert process.stdout is not None
        assert process.stdout.readline() == "0\n"
    first.kill()
    second.kill()
    for process in (first, second):
        assert end(process)[2] == ""
    text = (tmp_path / "mine").read_text()
    assert len(text) == 200_032


# -------------------------------------------------------------------- Ctrl-C and closed outputs


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)],
)
def test_an_interrupted_imputation_says_one_line_and_leaves_nothing(
    tmp_path: Path, impute: list[object], number: int, code: int
) -> None:
    process = command(tmp_path, *impute)
    wait_for((tmp_path / "started").exists, process)
    process.send_signal(number)
    assert end(process) == (code, "", "interrupted\n")
    assert left(tmp_path) == set()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "number", "status"), [(True, signal.SIGTERM, 143), (False, signal.SIGINT, 130)]
)
def test_an_interrupted_run_names_its_checkpoint(
    tmp_path: Path, script: bool, number: int, status: int
) -> None:
    folder, _ = recbole_folder(tmp_path)
    paths = [f"--data_path={folder.parent}", f"--config_files={folder / 'tiny.yaml'}"]
    words = [*RUN, *paths, "--epochs=100000", "--stopping_step=100000"]
    if script:
        process = start(tmp_path, str(REPOSITORY / "run_recbole_missing.py"), *words[1:])
    else:
        process = command(tmp_path, *words)
    saved = tmp_path / "saved"
    (file,) = wait_for(lambda: list(saved.glob("*.pth")), process)
    process.send_signal(number)
    code, output, errors = end(process)
    assert code == status
    assert "Traceback" not in output + errors
    last = errors.splitlines()[-1]  # the signal may come in the middle of a line of the log
    assert f"interrupted: the best epoch so far is in saved/{file.name}" in last
    others = {path.name for path in saved.iterdir() if file.stem not in path.name}
    assert others == {"imputed"}


@pytest.mark.slow
def test_an_interrupted_benchmark_ends_its_workers(tmp_path: Path) -> None:
    import psutil

    folder, _ = recbole_folder(tmp_path)
    grid = "grid: {dataset: [tiny], model: [BPR], seed: [1, 2]}"
    settings = "settings: {epochs: 90000, stopping_step: 90000, topk: [5], valid_metric: Recall@5}"
    (tmp_path / "mine.yaml").write_text(f"title: Mine\n{grid}\n{settings}\n")
    words = ["benchmark", "mine.yaml", f"--data-path={folder.parent}", "--workers=2"]
    process = command(tmp_path, *words, start_new_session=True)
    wait_for(lambda: len(list((tmp_path / ".mine.jsonl.unfinished").glob("*.pth"))) == 2, process)
    workers = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    code, _, errors = end(process)
    assert code == 130
    message = "mine.jsonl holds the finished runs; the same command runs the others"
    assert errors == f"interrupted: {message}\n"
    assert not psutil.wait_procs(workers, timeout=20)[1]
    assert not (tmp_path / ".mine.jsonl.claims").exists()


def test_a_closed_output_ends_a_command_silently(tmp_path: Path, impute: list[object]) -> None:
    (tmp_path / "go on").touch()
    process = command(tmp_path, *impute)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()  # as `| head -0` does
    with process.stderr:
        assert process.stderr.read() == ""
    assert process.wait() == 141
    assert whole(tmp_path / "out")


# --------------------------------------------------------------------------- SIGKILL and resume

LONG = {"checkpoint_every": 0, "epochs": 40, "train_batch_size": 50, "stopping_step": 40}
COMMAND = ["-m", "recbole_missing.cli"]
SCRIPT = [str(REPOSITORY / "run_recbole_missing.py")]


def finished(words: list[str], folder: Path) -> str:
    """What a command prints, which must end well."""
    code, output, errors = end(start(folder, *words))
    assert code == 0, errors[-3000:]
    return output + errors


def kill_once(words: list[str], folder: Path, pattern: str, delay: float) -> bool:
    """Kill a command some seconds after it has written a file; False if it ended before."""
    process = start(folder, *words)
    while process.poll() is None and not list(folder.glob(pattern)):
        time.sleep(0.005)
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    return process.returncode == -signal.SIGKILL


def best(folder: Path) -> dict[str, Any]:
    """The only best checkpoint of a folder."""
    (file,) = (folder / "saved").glob("*.pth")
    return torch.load(file, weights_only=True)


def printed_test(output: str) -> str:
    """What a run prints of its test."""
    return output[output.rindex("test result: ") :].partition("\n")[0]


def prepared(folder: Path, model: str) -> list[str]:
    """Write data and settings of a run into a folder; return the words that run it."""
    settings = {**tiny_content().write(folder), **LONG}
    settings |= {"data_path": ".", "checkpoint_dir": "saved"}
    settings |= {"missing_protocol": "stratified", "missing_ratio": 0.4}
    (folder / "run.yaml").write_text(yaml.safe_dump(settings))
    return ["-m", model, "-d", "tiny", "--config_files", "run.yaml"]


@pytest.mark.slow
@pytest.mark.usefixtures(workplace.__name__)
@pytest.mark.filterwarnings(r"ignore:torch\.sparse\.SparseTensor")  # LightGCN, NGCF
@pytest.mark.filterwarnings("ignore:distutils Version classes are deprecated")  # thop
@pytest.mark.parametrize(
    ("model", "begin", "delays"),
    [("SGL", COMMAND + ["run"], [0.0, 0.2, 0.5]), ("DGMRec", SCRIPT, [0.5, 0.5])],
)
def test_a_killed_run_ends_as_an_undisturbed_one(tmp_path, monkeypatch, model, begin, delays):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    prepared(whole, model)
    with monkeypatch.context() as here:
        here.chdir(whole)
        expected = run_recbole_missing(model, "tiny", ["run.yaml"])
    words = [*begin, *prepared(broken, model)]
    generator = random.Random(1)
    killed = 0
    for delay in delays:
        exact = delay + 0.05 * generator.random()
        killed += kill_once([*words, "--resume=auto"], broken, "saved/*.last", exact)
    assert killed
    output = finished([*words, "--resume=auto"], broken)
    assert "is next" in output, "it was resumed"
    assert printed_test(output) == f"test result: {expected['test_result']}"
    one, other = best(whole), best(broken)
    assert one["epoch"] == other["epoch"]
    assert one["best_valid_result"] == other["best_valid_result"]
    assert one["state_dict"].keys() == other["state_dict"].keys()
    for key, value in one["state_dict"].items():
        assert torch.equal(value, other["state_dict"][key]), key
    for name in ("epoch", "loss", "valid"):
        assert [e.get(name) for e in one["history"]] == [e.get(name) for e in other["history"]]
    assert not list((broken / "saved").glob("*.last*"))
    assert not list((broken / "saved").glob("*.best-*"))


@pytest.mark.slow
def test_a_killed_benchmark_ends_as_an_undisturbed_one(tmp_path):
    settings = {**tiny_content().write(tmp_path), **LONG}
    settings |= {"data_path": ".", "checkpoint_dir": "saved"}
    (tmp_path / "tiny" / "tiny.yaml").write_text(yaml.safe_dump(settings))
    grid = {"dataset": ["tiny"], "model": ["LightGCN", "MGCN"], "seed": [1, 2]}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"title": "Mine", "grid": grid}))
    words = [*COMMAND, "benchmark", "mine.yaml", "--data-path", "."]
    finished([*words, "--store", "whole.jsonl"], tmp_path)
    words += ["--store", "broken.jsonl", "--workers", "2"]
    for delay in (0.0, 0.7):
        kill_once(words, tmp_path, ".broken.jsonl.unfinished/*.last", delay)
    finished(words, tmp_path)

    def lines(name):
        found = [json.loads(line) for line in (tmp_path / name).read_text().splitlines()]
        return sorted(found, key=lambda line: line["run"])

    whole, broken = lines("whole.jsonl"), lines("broken.jsonl")
    assert sum(line["cost"]["resumed"] for line in broken) > 0
    for one, other in zip(whole, broken, strict=True):
        del one["cost"], other["cost"]
        assert one == other
    assert not (tmp_path / ".broken.jsonl.unfinished").exists()
