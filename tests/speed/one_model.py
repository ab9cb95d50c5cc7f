"""One model in a process of its own: it measures what ``epochs.py`` asks for, line by line.

The first line on standard input is an order (JSON): ``root`` (folder of the package to import),
``model``, ``dataset``, ``config_files``, ``settings``, ``batches`` (None: the whole epoch) and
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
from typing import Any


class Measured:
    """A model, its data and its trainer, built as RecBole's ``run_recbole`` does.

    Args:
        order: content of the first line, see the module.
    """

    def __init__(self, order: dict[str, Any]) -> None:
        """Import the package and RecBole, read the data and build the model."""
        sys.path.insert(0, order["root"])
        importlib.import_module("recbole_missing")  # installs the plugin
        from recbole.config import Config
        from recbole.data import create_dataset, data_preparation
        from recbole.utils import get_model, get_trainer, init_logger, init_seed

        self.born, self.n_batches = order["born"], order["batches"]
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

    def clocks(self) -> tuple[float, float]:
        """CPU seconds of this process and seconds on the wall, when the device is idle."""
        if self.device.type == "cuda":
            import torch

            torch.cuda.synchronize()
        return time.process_time(), time.time()

    def first_step(self) -> dict[str, Any]:
        """An epoch that ends after its first batch: seconds since the process was started."""
        batches = Batches(self.train, 1, self.clocks)
        terms = self._train(batches)
        cpu, now = self.clocks()
        rows = {"rows": batches.checksum, "n_batches": len(self.train)}
        return {"cpu": cpu, "wall": now - self.born, "terms": terms, **rows}

    def epoch(self) -> dict[str, Any]:
        """Seconds of a whole epoch with its hooks, or of some batches, scaled to an epoch.

        ``hook``: CPU seconds of what the model does once an epoch; not known of a whole epoch.
        """
        total = len(self.train)
        count = min(self.n_batches or total, total)
        batches = self.train if count == total else Batches(self.train, count, self.clocks)
        start = self.clocks()
        terms = self._train(batches)
        end = self.clocks()
        begun = start if count == total else batches.began
        cpu, wall = (b - s + (e - b) * total / count for s, b, e in zip(start, begun, end))
        hook = None if count == total else begun[0] - start[0]
        return {"cpu": cpu, "wall": wall, "hook": hook, "terms": terms, "measured": count}

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
        began: clocks when the first batch was asked for, so that the epoch's hook was over.
        checksum: of the ids in all batches.
    """

    def __init__(self, loader: Any, count: int, clocks: Callable[[], tuple[float, float]]) -> None:
        """Store the arguments."""
        self.loader, self.count, self.clocks = loader, count, clocks
        self.began, self.checksum = (math.nan, math.nan), 0

    def __iter__(self) -> Iterator[Any]:
        """Give the batches one after the other."""
        self.began = self.clocks()
        for batch in itertools.islice(self.loader, self.count):
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
