"""Time and peak memory of training every model on synthetic catalogues of published sizes.

    python tests/speed/models.py [--size tiktok baby elec] [--model NAME ...] [--batches 3]

Each row runs in a process of its own: construction, the work of an epoch, some batches with their
Adam steps, one scoring pass of 256 users. Interactions have a popularity tail; 40 % of the items
lack each modality; settings are the released ones of that size. Prints a Markdown table. Not a
test: times depend on the machine.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SIZES = {  # users, items, training interactions, feature dimensions
    "tiktok": (9_308, 6_710, 59_541, {"image": 128, "audio": 128}),
    "baby": (19_445, 7_050, 118_551, {"image": 4096, "text": 384}),
    "elec": (192_403, 63_001, 1_254_441, {"image": 4096, "text": 384}),
}


def measure(name: str, size: str, n_batches: int) -> dict[str, float]:
    """Seconds and peak GiB of one model at one size."""
    import torch

    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    from helpers import tiny_batch, tiny_config

    from recbole_missing.config import defaults
    from recbole_missing.model import MODELS
    from recbole_missing.trainer import MultimodalTrainer

    torch.manual_seed(0)
    values = defaults.read("model", name)
    presets = values.pop("presets", {})
    values.update(presets.get(size, {}))
    batch_size = values.pop("train_batch_size", 4096 if size == "tiktok" else 2048)
    dataset = synthetic(*SIZES[size])
    start = time.perf_counter()
    model = MODELS[name](tiny_config(**{**values, "train_batch_size": batch_size}), dataset)
    built = time.perf_counter() - start
    auxiliary = list(model.auxiliary_parameters())
    known = {id(parameter) for parameter in auxiliary}
    main = [parameter for parameter in model.parameters() if id(parameter) not in known]
    optimizer = torch.optim.Adam(main, 1e-3, fused=True)
    second = torch.optim.Adam(auxiliary, **model.auxiliary_options) if auxiliary else None

    def minimise(loss: torch.Tensor) -> None:
        second.zero_grad()
        loss.backward()
        second.step()

    def trained(enabled: bool) -> None:  # as the trainer does it
        MultimodalTrainer._unfreeze_auxiliary(argparse.Namespace(model=model), enabled)

    model.train()
    start = time.perf_counter()
    trained(True)
    model.on_epoch_start(minimise)
    epoch = time.perf_counter() - start
    times = []
    for k in range(n_batches):
        start = time.perf_counter()
        batch = tiny_batch(dataset, batch_size, seed=k)
        trained(True)
        model.on_batch_start(batch, minimise)
        trained(False)
        optimizer.zero_grad()
        model.calculate_loss(batch).backward()
        optimizer.step()
        times.append(time.perf_counter() - start)
    model.on_validation_start()
    model.eval()
    start = time.perf_counter()
    model.full_sort_predict({"user_id": torch.arange(1, 257)})
    scored = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    batch_time = sorted(times)[len(times) // 2]
    return {"built": built, "epoch": epoch, "batch": batch_time, "scored": scored, "peak": peak}


def synthetic(n_users: int, n_items: int, n_edges: int, dims: dict[str, int]) -> object:
    """A data set of these sizes, padding rows added; items are drawn with Zipf weights."""
    import torch
    from helpers import TinyDataset

    from recbole_missing.modality import Modalities, Modality

    weights = 1.0 / torch.arange(1, n_items + 1).double() ** 0.8
    items = torch.multinomial(weights, n_edges, replacement=True) + 1
    users = torch.cat([torch.arange(1, n_users + 1), torch.randint(1, n_users + 1, (n_edges,))])
    modalities = []
    for name, dim in dims.items():
        observed = torch.rand(n_items + 1) > 0.4
        observed[0] = False
        features = torch.randn(n_items + 1, 16) @ torch.randn(16, dim)
        features[~observed] = features[observed].mean(dim=0)
        features[0] = 0
        modalities.append(Modality(name, features, observed))
    sizes = (n_users + 1, n_items + 1)
    return TinyDataset(users[:n_edges], items, *sizes, Modalities(modalities))


def main() -> None:
    """Run every row in a process of its own and print the table."""
    sys.path.insert(0, str(ROOT))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", nargs="+", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--model", nargs="+")
    parser.add_argument("--batches", type=int, default=3)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    known = parser.parse_args()
    if known.one:
        print(json.dumps(measure(*known.one, known.batches)))
        return
    if not known.model:
        from recbole_missing.model import MODELS

        known.model = list(MODELS)
    print("| size | model | build s | epoch hook s | batch s | scoring s | peak GiB |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for size in known.size:
        for name in known.model:
            command = [sys.executable, __file__, "--one", name, size]
            command += ["--batches", str(known.batches)]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                lines = done.stderr.strip().splitlines() or [f"killed ({done.returncode})"]
                print(f"| {size} | {name} | failed: {lines[-1][:90]} |", flush=True)
                continue
            row = json.loads(done.stdout.strip().splitlines()[-1])
            cells = [f"{row[key]:.2f}" for key in ("built", "epoch", "batch", "scored")]
            print(f"| {size} | {name} | {' | '.join(cells)} | {row['peak']:.1f} |", flush=True)


if __name__ == "__main__":
    main()
