"""What training costs: an epoch, an evaluation, memory and the first step of every model.

    python tests/speed/epochs.py [--model NAME ...] [--threads 1 2] [--json FILE]
    python tests/speed/epochs.py --data-path PARENT --dataset NAME [--config_files FILE] [--k=v]
    python tests/speed/epochs.py --against COMMIT [--pairs N] ...

Each model runs in a process of its own through RecBole's config, data set, dataloaders and trainer:
one batch (the first step), ``--epochs`` whole epochs with all hooks, one validation of all users.
``--batches 20`` or ``--batches MMSSL=2 CI2MG=4`` measures the hook of an epoch, its first batch
and so many further ones, and scales these to an epoch. ``--device cuda`` runs on the GPU.

``--against`` runs another commit (or the folder of another checkout) beside this one, with the same
seed and data: two processes that are kept and train an epoch each in turn, ``--pairs`` times, A B
B A ... It prints the ratio of seconds (median of the pairs, with the smallest and the largest one)
and the largest relative difference of a loss term in the first batch and in the first epoch. Adam
amplifies rounding, so that only the first batch must agree closely. Commit c8e375f was compared
with the published code on TikTok; the last column multiplies the ratio then by ours now:

    recbole-missing import dgmrec ../shared/data/tiktok --name tiktok
    sed -i '/^# written for/d' dataset/tiktok/missing_*.tsv  # a line that it does not know
    python tests/speed/epochs.py --against c8e375f --data-path dataset --dataset tiktok
        --config_files dataset/tiktok/tiktok.yaml --train_batch_size=2048 --preset=none --pairs 3

Prints Markdown. Not a test: times depend on the machine, CPU seconds less than others.
"""

from __future__ import annotations

import argparse
import compileall
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from speed.arguments import batch_counts, check_against, file_to_write, positive  # noqa: E402
from speed.printed import (  # noqa: E402
    ALONE,
    PAIR,
    alone_row,
    commit_of,
    head,
    line,
    machine,
    mean,
    pair_row,
    ratios,
)

CHILD = Path(__file__).resolve().with_name("one_model.py")
COMPARED = "c8e375f"  # the commit that was run in turn with the published code
AS_COMPARED = {"train_batch_size": "2048", "preset": "none"}
# CPU seconds of an epoch of the published code and of that commit, in one process each, one thread:
# TikTok with image and audio, batches of 2048, default settings.
PUBLISHED = {
    "BM3": (3.43, 1.30),
    "CI2MG": (282, 62),
    "DAMRS": (125, 64.6),
    "DGMRec": (27.2, 19.6),
    "FREEDOM": (3.83, 1.64),
    "GRCN": (27.8, 14.0),
    "GUME": (17.5, 10.8),
    "LATTICE": (32, 2.5),  # did not end within 32
    "LGMRec": (22.2, 12.3),
    "MGCN": (10.9, 4.5),
    "MILK": (2.20, 0.92),
    "MMGCN": (37.6, 17.4),
    "MMSSL": (535, 424),
    "SIBRAR": (2.07, 1.06),
    "SLMRec": (15.4, 8.3),
    "VBPR": (0.97, 0.63),
}
UNFINISHED = ("LATTICE",)
AS_PUBLISHED = ["published then, CPU s", "c8e375f then", "times the published code"]


def times_published(model: str, ratio: float) -> float | None:
    """How many times as fast as the published code; ``ratio`` is against the compared commit."""
    if model not in PUBLISHED:
        return None
    theirs, ours = PUBLISHED[model]
    return theirs / ours * ratio


def published_cells(model: str, ratio: float) -> list[str]:
    """Cells of ``AS_PUBLISHED``."""
    times = times_published(model, ratio)
    if times is None:
        return ["-"] * len(AS_PUBLISHED)
    theirs, ours = PUBLISHED[model]
    least = "> " if model in UNFINISHED else ""
    return [f"{least}{theirs}", f"{ours}", f"{least}{times:.1f}"]


def summary(times: Mapping[str, float]) -> str:
    """Median and smallest of how many times as fast each model is."""
    slowest = min(times, key=lambda model: times[model])
    return (
        f"{len(times)} models; times the published code: median {median(times.values()):.1f}, "
        f"smallest {times[slowest]:.1f} ({slowest})"
    )


def is_as_compared(known: argparse.Namespace, commit: str) -> bool:
    """Tell whether a run has the code, the data and the settings of that comparison.

    Args:
        known: options of the run.
        commit: what it runs against; a plus sign says that files differ from the commit.
    """
    same_code = commit.startswith(COMPARED) and not commit.endswith("+")
    same_run = known.dataset == "tiktok" and known.given == AS_COMPARED and known.device == "cpu"
    return same_code and same_run


class FailedError(Exception):
    """A process ended before it had answered; the message is its last line."""


class Child:
    """A process that measures one model (``one_model.py``).

    Args:
        root: folder of the package that it imports.
        order: what it builds, see ``one_model.py``.
        threads: number of threads of torch.
        folder: where it may write.
    """

    def __init__(self, root: Path, order: Mapping[str, Any], threads: int, folder: Path) -> None:
        """Start the process."""
        limits = {f"{name}_NUM_THREADS": str(threads) for name in ("OMP", "MKL", "OPENBLAS")}
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115, closed with the process
        options = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self.errors}
        environment = {**os.environ, **limits}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)  # a first step must not compile anew
        options.update(env=environment, cwd=folder, text=True)
        self.process = subprocess.Popen([sys.executable, str(CHILD)], **options)
        order = {**order, "root": str(root), "born": time.time()}
        self._write(json.dumps(order))

    def ask(self, what: str) -> dict[str, Any]:
        """Have one thing measured.

        Raises:
            FailedError: if the process has ended.
        """
        self._write(what)
        line = self.process.stdout.readline()
        if not line:
            code = self.process.wait()
            self.errors.seek(0)
            raise FailedError(
                (self.errors.read().strip().splitlines() or [f"exit code {code}"])[-1]
            )
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _write(self, line: str) -> None:
        with contextlib.suppress(BrokenPipeError):  # the missing answer says more
            self.process.stdin.write(f"{line}\n")
            self.process.stdin.flush()

    def end(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.errors):
            with contextlib.suppress(BrokenPipeError):
                stream.close()


def measure(children: Sequence[Child], rounds: int) -> list[dict[str, Any]]:
    """Let children measure in turn, in the opposite order every second time.

    Returns:
        What each child found: ``first_step``, ``epochs`` (one for each round), ``evaluation``,
        ``memory``.
    """
    found: list[dict[str, Any]] = [{} for _ in children]
    for child, result in zip(children, found):
        result["first_step"], result["epochs"] = child.ask("first_step"), []
    both = list(zip(children, found))
    for number in range(rounds):
        for child, result in both[:: -1 if number % 2 else 1]:
            result["epochs"].append(child.ask("epoch"))
    for what in ("evaluation", "memory"):
        for child, result in both:
            result[what] = child.ask(what)
    return found


def run(roots: Sequence[Path], order: Mapping[str, Any], threads: int, rounds: int) -> Any:
    """Measure a model in each of the roots; the reason if a process fails."""
    children = []
    with tempfile.TemporaryDirectory() as folder:
        try:
            for number, root in enumerate(roots):
                own = Path(folder) / str(number)
                own.mkdir()
                children.append(Child(root, order, threads, own))
                children[-1].ask("memory")  # it is built: the next one starts on an idle machine
            return measure(children, rounds)
        except FailedError as error:
            return f"failed: {str(error)[:200]}"
        finally:
            for child in children:
                child.end()


# ----------------------------------------------------------------------------------- the command


@contextlib.contextmanager
def checkout(commit: str) -> Iterator[Path]:
    """Folder with the files of a commit, removed at the end; a folder is taken as it is."""
    if Path(commit).is_dir():
        yield Path(commit).resolve()
        return
    git = ["git", "-C", str(ROOT), "worktree"]
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "checkout"
        subprocess.run(
            [*git, "add", "--detach", str(folder), commit], check=True, capture_output=True
        )
        try:
            yield folder
        finally:
            subprocess.run([*git, "remove", "--force", str(folder)], check=True)


def compiled(root: Path) -> Path:
    """The folder of a package whose modules are all compiled, so that no first step does it."""
    compileall.compile_dir(root / "recbole_missing", quiet=2)
    return root


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Options; ``settings`` of every model, and which of them were ``given``."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = sorted(path.stem for path in (ROOT / "properties" / "model").glob("*.yaml"))
    parser.add_argument("--model", nargs="+", default=names, choices=names)
    parser.add_argument("--dataset", default="ml-100k")
    parser.add_argument("--data-path", type=Path, help="folder in which the data set's folder lies")
    parser.add_argument("--config_files", default="", help="YAML files, separated by spaces")
    parser.add_argument("--threads", nargs="+", type=positive, default=[1])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--epochs", type=positive, default=1, help="measured without --against")
    parser.add_argument("--batches", nargs="+", default=[], metavar="N|MODEL=N")
    parser.add_argument("--against", metavar="COMMIT|FOLDER")
    parser.add_argument("--pairs", type=positive, default=2, help="measured epochs, with --against")
    parser.add_argument("--json", type=file_to_write, help="file for everything that was measured")
    known, rest = parser.parse_known_args(arguments)
    wrong = [word for word in rest if not word.startswith("--") or "=" not in word]
    if wrong:
        parser.error(f"unrecognized arguments: {' '.join(wrong)}")
    folder = known.data_path and known.data_path / known.dataset
    if folder and not folder.is_dir():  # RecBole would take its own copy of ml-100k instead
        parser.error(f"--data-path: must hold a folder {known.dataset!r}, got {known.data_path}")
    known.config_files = known.config_files.split()
    absent = [file for file in known.config_files if not Path(file).is_file()]
    if absent:
        parser.error(f"--config_files: must be files, got {' '.join(absent)}")
    try:
        known.batches = batch_counts(known.batches, names)
        if known.against:
            check_against(known.against, ROOT)
    except argparse.ArgumentTypeError as error:
        parser.error(str(error))
    settings = {"gpu_id": "" if known.device == "cpu" else "0", "show_progress": False}
    settings.update({"state": "ERROR", "seed": 2020, "checkpoint_dir": "saved"})
    if known.data_path:
        settings["data_path"] = str(known.data_path.resolve())
    known.given = dict(word[2:].split("=", 1) for word in rest)
    known.settings = {**settings, **known.given}
    return known


def main() -> None:
    """Measure every model and print a row each; end with 1 if one failed."""
    known = parsed()
    files = [str(Path(file).resolve()) for file in known.config_files]
    report: dict[str, Any] = {"machine": machine(known.device), "commit": commit_of(ROOT)}
    report.update(device=known.device, dataset=known.dataset, settings=known.given, rows=[])
    with contextlib.ExitStack() as stack:
        roots, columns, is_published = [ROOT], ALONE, False
        if known.against:
            roots.insert(0, stack.enter_context(checkout(known.against)))
            report["against"] = commit_of(roots[0])
            is_published = is_as_compared(known, report["against"])
            columns = PAIR + AS_PUBLISHED * is_published
        roots = [compiled(root) for root in roots]
        print(*(f"{key}: {value}" for key, value in report.items() if key != "rows"), sep="; ")
        print(f"\n{head(columns)}", flush=True)
        times: dict[str, float] = {}
        for model in known.model:
            batches = known.batches.get(model, known.batches.get("*"))
            order = {"model": model, "dataset": known.dataset, "config_files": files}
            order.update(settings=known.settings, batches=batches)
            one = None
            for threads in known.threads:
                found = run(roots, order, threads, known.pairs if known.against else known.epochs)
                report["rows"].append({"model": model, "threads": threads, "found": found})
                if isinstance(found, str):
                    cells = [model, str(threads), found]
                elif known.against:
                    cells = pair_row(model, threads, *found)
                    ratio = median(ratios(*found))
                    if is_published and threads == 1 and model in PUBLISHED:
                        cells += published_cells(model, ratio)
                        times[model] = times_published(model, ratio)
                else:
                    cells = alone_row(model, threads, found[0], one)
                    one = one or mean(found[0], "wall")
                print(line(cells + [""] * (len(columns) - len(cells))), flush=True)
                if known.json:
                    known.json.write_text(json.dumps(report, indent=1) + "\n")
        if times:
            print(f"\n{summary(times)}")
    if any(isinstance(row["found"], str) for row in report["rows"]):
        sys.exit(1)


if __name__ == "__main__":
    main()
