"""One model in a process of its own: it measures what ``epochs.py`` asks for, line by line.

The first line on standard input is an order (JSON): ``root`` (folder of the package to import),
``model``, ``dataset``, ``config_files``, ``settings``, ``batches`` (None: whole epochs) and
``born`` (seconds since 1970 when the process was started). Each further line is one of the words
``first_step``, ``epoch``, ``evaluation`` and ``memory``; the answer is one line of JSON. The script
uses nothing but RecBole's own path, so that it runs with older versions of the package too.
"""

from __future__ import annotations

import importlib
import itertools
import json
import math
import resource
import sys
import time
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any


class Measured:
    """A model, its data and its trainer, built as RecBole's ``run_recbole`` does.

    Args:
        order: content of the first line, see the module.
    """

    def __init__(self, order: dict[str, Any]) -> None:
        """Import the package and RecBole, read the data and build the model."""
        sys.path.insert(0, order["root"])
        package = importlib.import_module("recbole_missing")  # installs the plugin
        if not Path(package.__file__).resolve().is_relative_to(order["root"]):
            raise ValueError(f"{order['root']}: must hold recbole_missing, got {package.__file__}")
        from recbole.config import Config
        from recbole.data import create_dataset, data_preparation
        from recbole.utils import get_model, get_trainer, init_logger, init_seed

        self.n_batches = order["batches"]
        name = order["model"]
        config = Config(name, order["dataset"], order["config_files"], order["settings"])
        init_logger(config)
        self.reseed = lambda epoch: init_seed(config["seed"] + epoch, config["reproducibility"])
        self.reseed(0)
        self.train, self.valid, _ = data_preparation(config, create_dataset(config))
        self.reseed(0)
        self.device = config["device"]
        model = get_model(name)(config, self.train._dataset).to(self.device)
        self.trainer = get_trainer(config["MODEL_TYPE"], name)(config, model)
        self.epochs = itertools.count()
        self.built = time.time() - order["born"]

    def clocks(self) -> tuple[float, float]:
        """CPU seconds of this process and seconds on the wall, when the device is idle."""
        if self.device.type == "cuda":
            import torch

            torch.cuda.synchronize()
        return time.process_time(), time.time()

    def first_step(self) -> dict[str, Any]:
        """An epoch that ends after its first batch: seconds since the process was started."""
        batches, (_, start) = Batches(self.train, 1, self.clocks), self.clocks()
        terms = self._train(batches)
        cpu, now = self.clocks()
        rows = {"rows": batches.checksum, "n_batches": len(self.train)}
        return {"cpu": cpu, "wall": self.built + now - start, "terms": terms, **rows}

    def epoch(self) -> dict[str, Any]:
        """Seconds of a whole epoch with its hooks; or of its start and some batches, scaled to one.

        The start is the epoch's hook and the first batch, which may have to make what holds for the
        epoch. ``start`` and ``batch`` are CPU seconds, not known of a whole epoch.
        """
        total = len(self.train)
        count = min(self.n_batches or total, total)
        some = None if count >= total - 1 else Batches(self.train, 1 + count, self.clocks)
        start = self.clocks()
        terms = self._train(some or self.train)
        end = self.clocks()
        if some is None:
            cpu, wall = (e - s for s, e in zip(start, end))
            return {"cpu": cpu, "wall": wall, "terms": terms, "measured": total}
        once = [second - s for s, second in zip(start, some.second)]
        batch = [(e - second) / count for second, e in zip(some.second, end)]
        cpu, wall = (o + (total - 1) * b for o, b in zip(once, batch))
        parts = {"start": once[0], "batch": batch[0]}
        return {"cpu": cpu, "wall": wall, "terms": terms, "measured": count, **parts}

    def evaluation(self) -> dict[str, Any]:
        """Seconds of a validation of all users, with the model's hook."""
        start = self.clocks()
        self.trainer._valid_epoch(self.valid)
        cpu, wall = (now - then for then, now in zip(start, self.clocks()))
        return {"cpu": cpu, "wall": wall}

    def memory(self) -> dict[str, Any]:
        """Largest GiB that the process has held; on a GPU, that its tensors have held there."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        if self.device.type == "cuda":
            import torch

            return {"process": peak, "peak": torch.cuda.max_memory_allocated() / 2**30}
        return {"peak": peak}

    def _train(self, batches: Any) -> dict[str, float]:
        """Train an epoch; the sum over its batches of every loss term."""
        epoch = next(self.epochs)
        self.reseed(epoch)
        self.trainer._train_epoch(batches, epoch)
        return dict(self.trainer.history[-1]["loss"])


class Batches:
    """The first batches of a dataloader.

    Attributes:
        second: clocks when the second batch was asked for.
        checksum: of the ids in all batches.
    """

    def __init__(self, loader: Any, count: int, clocks: Callable[[], tuple[float, float]]) -> None:
        """Store the arguments."""
        self.loader, self.count, self.clocks = loader, count, clocks
        self.second, self.checksum = (math.nan, math.nan), 0

    def __iter__(self) -> Iterator[Any]:
        """Give the batches one after the other."""
        for number, batch in enumerate(itertools.islice(self.loader, self.count)):
            if number == 1:
                self.second = self.clocks()
            for name in sorted(batch.interaction):
                ids = batch.interaction[name].cpu().numpy().tobytes()
                self.checksum = zlib.crc32(ids, self.checksum)
            yield batch

    def __len__(self) -> int:
        """Count the batches."""
        return self.count

    def __getattr__(self, name: str) -> Any:
        """Be the dataloader in everything else."""
        return getattr(self.loader, name)


def serve(lines: Iterable[str], answer: Callable[[str], Any]) -> None:
    """Build what the first line orders, then answer each further line."""
    lines = iter(lines)
    measured = Measured(json.loads(next(lines)))
    for line in lines:
        answer(json.dumps(getattr(measured, line.strip())()) + "\n")


def main() -> None:
    """Serve the process that started this one; whatever prints goes to standard error."""
    warnings.simplefilter("ignore")
    pipe, sys.stdout, sys.argv = sys.stdout, sys.stderr, sys.argv[:1]

    def answer(text: str) -> None:
        pipe.write(text)
        pipe.flush()

    serve(iter(sys.stdin.readline, ""), answer)


if __name__ == "__main__":
    main()
