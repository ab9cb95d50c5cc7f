"""How the cost of every model grows, and what it needs at published sizes, on synthetic data.

    python tests/speed/growth.py [--model NAME ...] [--json FILE]
    python tests/speed/growth.py --size elec [--model NAME ...] [--batches 1]

The first form doubles users, items and interactions three times. It fits the exponents of the CPU
seconds up to the first step, of a batch and of an epoch, and of the peak memory, and sets beside
each one what the model's formulas demand; a larger one is set in bold. The second form prints one
row a model at the size of a published data set, of all models but MMSSL if none is named.

A model runs in a process of its own, through RecBole (``one_model.py``). Interactions have power
laws on both sides (``scale.py``), 40 % of the items lack each modality, imputation takes the mean.
Settings are the defaults, or the released ones of the published size. Not a test: times depend on
the machine.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import sys
import tempfile
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from speed import one_model  # noqa: E402
from speed.arguments import file_to_write, positive  # noqa: E402
from speed.printed import head, line, machine, seconds  # noqa: E402
from speed.scale import catalogue  # noqa: E402

SIZES = {  # users, items, training interactions, feature dimensions, batch size
    "tiktok": (9_308, 6_710, 59_541, {"image": 128, "audio": 128}, 2048),
    "baby": (19_445, 7_050, 118_551, {"image": 4096, "text": 384}, 2048),
    "elec": (192_403, 63_001, 1_254_441, {"image": 4096, "text": 384}, 2048),
}
SMALLEST = (3_000, 1_500, 15_000, {"image": 128, "text": 64}, 512)
MEMORY_LIMIT = 20  # GiB at the size of elec
TOLERANCE = 0.15  # of a fitted exponent
TESTED_USERS = 100

# Exponents that the formulas demand, for batches of one size: seconds up to the first step, seconds
# of a batch, memory. An exact kNN graph takes n^2 steps. A batch of a graph model propagates over
# the whole graph, and Adam steps through whole tables: n. An epoch has n batches. CI2MG's coupling
# and MMSSL's critic meet all pairs of items in every batch.
DEMANDED = {
    "CI2MG": (2, 2, 1),
    "DAMRS": (2, 1, 1),
    "DGMRec": (2, 1, 1),
    "FREEDOM": (2, 1, 1),
    "GUME": (2, 1, 1),
    "LATTICE": (2, 1, 1),
    "MGCN": (2, 1, 1),
    "MMSSL": (2, 2, 2),
}
LINEAR = (1, 1, 1)


# --------------------------------------------------------------------------------- the data sets


def write(
    folder: Path, n_users: int, n_items: int, n_edges: int, dims: Mapping[str, int]
) -> dict[str, Any]:
    """Write a data set of a folder's name, with about these numbers; return its settings."""
    matrix = catalogue(n_items, n_edges).tocoo()
    pairs = np.unique(np.stack([matrix.row % n_users, matrix.col], axis=1), axis=0)
    some = np.random.default_rng(0).permutation(len(pairs))[: 2 * TESTED_USERS]
    splits = {"train": np.delete(pairs, some, axis=0)}
    splits.update(valid=pairs[some[:TESTED_USERS]], test=pairs[some[TESTED_USERS:]])
    folder.mkdir()
    for split, rows in splits.items():
        file = folder / f"{folder.name}.{split}.inter"
        header = "user_id:token\titem_id:token"
        np.savetxt(file, rows, fmt="%d", delimiter="\t", header=header, comments="")
    np.savetxt(folder / "items", np.arange(n_items), fmt="%d")
    generator = np.random.default_rng(1)
    settings: dict[str, Any] = {"modalities": list(dims), "benchmark_filename": list(splits)}
    for name, dim in dims.items():
        factors = [generator.normal(size=shape) for shape in ((n_items, 16), (16, dim))]
        features = factors[0].astype(np.float32) @ factors[1].astype(np.float32)
        np.save(folder / f"{name}.npy", features.astype(np.float16))
        settings.update({f"{name}_features": f"{name}.npy", f"{name}_ids": "items"})
    settings.update(missing_protocol="random_items", missing_ratio=0.4, imputation="mean")
    settings.update(data_path=str(folder.parent), load_col={"inter": ["user_id", "item_id"]})
    return {**settings, "gpu_id": "", "show_progress": False, "state": "ERROR"}


# -------------------------------------------------------------------------------- one measurement


def measure(order: Mapping[str, Any]) -> dict[str, Any] | str:
    """What one model needs, measured in a fork of this process, which has imported everything.

    Returns:
        CPU seconds ``first`` (up to the end of the first step), ``batch`` and ``epoch``, and
        ``peak`` GiB; or the reason why there are none.
    """
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(order, sender))
    process.start()
    sender.close()
    try:
        answers = [receiver.recv() for _ in range(3)]
    except EOFError:
        process.join()
        return f"failed: exit code {process.exitcode}"
    finally:
        process.join()
    wrong = [answer for answer in answers if isinstance(answer, str) and answer]
    if wrong:
        return wrong[0]
    first, epoch, memory = answers
    batch = epoch.get("batch", epoch["cpu"] / first["n_batches"])
    return {"first": first["cpu"], "batch": batch, "epoch": epoch["cpu"], "peak": memory["peak"]}


def _answer(order: Mapping[str, Any], pipe: Any) -> None:
    """In the fork: send three answers, or the reason why there are none."""
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        sys.argv = sys.argv[:1]
        asked = ["first_step", "epoch", "memory"]
        try:
            one_model.serve(
                [json.dumps({**order, "root": str(ROOT), "born": time.time()}), *asked],
                lambda text: pipe.send(json.loads(text)),
            )
        except Exception as error:
            pipe.send(f"failed: {type(error).__name__}: {str(error)[:150]}")
            pipe.send("")
            pipe.send("")
        os._exit(0)  # nothing of the parent's is ended here


# ---------------------------------------------------------------------------------------- tables


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """Slope of log(value) over log(size), by least squares."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def demanded(model: str) -> tuple[int, int, int, int]:
    """Exponents of first step, batch, epoch and memory that a model's formulas demand."""
    first, batch, memory = DEMANDED.get(model, LINEAR)
    return first, batch, max(1 + batch, first), memory


def growth_row(model: str, rows: Sequence[Mapping[str, float]], resident: float) -> list[str]:
    """Cells of a model: seconds and memory at every size, and the exponents.

    ``resident`` GiB are those of the libraries alone.
    """
    sizes = [2.0**k for k in range(len(rows))]
    series = [[row[key] for row in rows] for key in ("first", "batch", "epoch")]
    series.append([max(row["peak"] - resident, 2**-20) for row in rows])
    cells = [model, " / ".join(seconds(row["epoch"]) for row in rows)]
    cells.append(" / ".join(f"{row['peak']:.2f}" for row in rows))
    for values, most in zip(series, demanded(model)):
        found = exponent(sizes, values)
        text = f"**{found:.2f}**" if found > most + TOLERANCE else f"{found:.2f}"
        cells.append(f"{text} of {most}")
    return cells


GROWTH = [
    "model", "epoch, CPU s", "peak GiB", "exponent: first step", "batch", "epoch", "memory"
]  # fmt: skip
SIZE = ["size", "model", "first step, CPU s", "batch, CPU s", "epoch, CPU s", "peak GiB"]


def main() -> None:
    """Measure every model and print a row each; end with 1 if one failed."""
    warnings.simplefilter("ignore")
    names = sorted(path.stem for path in (ROOT / "properties" / "model").glob("*.yaml"))
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", nargs="+", choices=names)
    parser.add_argument("--size", nargs="+", default=[], choices=list(SIZES))
    parser.add_argument("--doublings", type=positive, default=3)
    parser.add_argument("--batches", type=positive, default=2, help="measured behind the first")
    parser.add_argument("--threads", type=positive, default=1)
    parser.add_argument("--json", type=file_to_write, help="file for everything that was measured")
    known = parser.parse_args()
    models = known.model or [name for name in names if name != "MMSSL" or not known.size]
    print(f"{machine('cpu')}, {known.threads} thread(s)", flush=True)
    import_everything(known.threads)
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"Python with its libraries holds {resident:.2f} GiB of each number.\n")
    found: dict[str, Any] = {}

    def keep(name: str, measured: Any) -> None:
        found[name] = measured
        if known.json:
            known.json.write_text(json.dumps(found, indent=1) + "\n")

    with tempfile.TemporaryDirectory() as folder:
        if known.size:
            published(models, known.size, Path(folder), known.batches, keep)
        else:
            grow(models, known.doublings, Path(folder), known.batches, keep, resident)
    if any(isinstance(row, str) for rows in found.values() for row in rows):
        sys.exit(1)


def import_everything(threads: int) -> None:
    """Import once what every fork needs."""
    import recbole.quick_start  # noqa: F401
    import torch

    import recbole_missing

    torch.set_num_threads(threads)
    for name in recbole_missing.MODELS:
        recbole_missing.MODELS[name]


def grow(
    models: Sequence[str], doublings: int, folder: Path, batches: int, keep: Any, resident: float
) -> None:
    """Measure every model at every size, and print a row a model."""
    n_users, n_items, n_edges, dims, batch_size = SMALLEST
    orders = []
    for k in range(doublings + 1):
        sizes = n_users * 2**k, n_items * 2**k, n_edges * 2**k
        settings = write(folder / f"size{k}", *sizes, dims)
        settings.update(train_batch_size=batch_size, preset="none")
        orders.append({"dataset": f"size{k}", "settings": settings, "batches": batches})
        print(f"size {k}: {sizes[0]:,} users, {sizes[1]:,} items, {sizes[2]:,} interactions")
    print(f"\n{head(GROWTH)}", flush=True)
    for model in models:
        rows = [measure({**order, "model": model, "config_files": []}) for order in orders]
        keep(model, rows)
        wrong = [row for row in rows if isinstance(row, str)]
        cells = [model, *wrong[:1]] if wrong else growth_row(model, rows, resident)
        print(line(cells + [""] * (len(GROWTH) - len(cells))), flush=True)


def published(
    models: Sequence[str], sizes: Sequence[str], folder: Path, batches: int, keep: Any
) -> None:
    """Measure every model at published sizes, and print a row each."""
    print(head(SIZE), flush=True)
    for size in sizes:
        *numbers, batch_size = SIZES[size]
        settings = write(folder / size, *numbers)  # the name chooses the preset
        settings.update(train_batch_size=batch_size)
        for model in models:
            order = {"dataset": size, "settings": settings, "batches": batches, "model": model}
            row = measure({**order, "config_files": []})
            keep(f"{size} {model}", [row])
            if isinstance(row, str):
                cells = [size, model, row, "", "", ""]
            else:
                cells = [size, model, *(seconds(row[key]) for key in ("first", "batch", "epoch"))]
                too_much = size == "elec" and not row["peak"] < MEMORY_LIMIT
                cells.append(f"**{row['peak']:.1f}**" if too_much else f"{row['peak']:.1f}")
            print(line(cells), flush=True)


if __name__ == "__main__":
    main()
