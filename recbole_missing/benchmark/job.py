"""One run of a benchmark: its settings, its identity, and the line that it leaves in the store."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import traceback
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from recbole.config import Config

from recbole_missing import checkpoint, plugin, registry, version
from recbole_missing.benchmark.measured import mask_of, peak_memory, restart_peak_memory
from recbole_missing.data.dataset import check_interaction_files, fingerprint
from recbole_missing.evaluation import retrieval
from recbole_missing.evaluation.users import UserResults, write_rows
from recbole_missing.quick_start import Run, prepare

KEEP = ("users", "lists", "checkpoint")
"""What a run can leave beside its line: metrics of single users, their lists, the model."""

Line = dict[str, Any]

# Settings that decide no result: they are no part of a run's identity.
ELSEWHERE = frozenset({
    "checkpoint_dir", "data_path", "dataloaders_save_path", "dataset_save_path", "device",
    "eval_batch_size", "eval_users", "gpu_id", "imputation_cache", "ip", "local_rank", "log_wandb",
    "nproc", "offset", "port", "save_dataset", "show_progress", "single_spec", "state", "use_gpu",
    "wandb_project", "world_size",
})  # fmt: skip


@dataclass(frozen=True)
class Job:
    """A run before it is run; it travels between processes.

    Args:
        benchmark, title: of the benchmark file.
        point: axis -> value.
        settings: what goes over the data set's YAML.
        files: YAML files that are read before.
        stage: ``test``, or ``search`` for a trial: the test split is not looked at.
        measures: names of :data:`.plan.MEASURES`.
        keep: names of :data:`KEEP`.
        folder: where kept files go.
        search: what a search chose for this run, and among how many trials, or None.
        trial: of a search: the settings that are tried.
    """

    benchmark: str
    title: str
    point: Mapping[str, Any]
    settings: Mapping[str, Any]
    files: Sequence[str] = ()
    stage: str = "test"
    measures: Sequence[str] = ()
    keep: Sequence[str] = ()
    folder: Path = Path("kept")
    search: Mapping[str, Any] | None = None
    trial: Mapping[str, Any] | None = None

    def config(self) -> Any:
        """RecBole's config of this run.

        Raises:
            ValueError: for settings that are refused.
        """
        quiet = {"show_progress": False, "state": "WARNING", "plugin_defaults": True}
        with checkpoint.no_command_line():
            return Config(
                self.point["model"],
                self.point["dataset"],
                list(self.files) or None,
                {**quiet, **self.settings},
            )

    def identified(self) -> Identified:
        """The job with the hash of everything that decides its result.

        Raises:
            ValueError: for settings that are refused, or a data set that is absent.
        """
        config = self.config()
        self._check(config)
        check_interaction_files(config)
        config["data_fingerprint"] = fingerprint(config)
        settings = {k: v for k, v in checkpoint.config_state(config).items() if k not in ELSEWHERE}
        if registry.is_outside(config.model_class):
            settings["model_source"] = registry.source(config.model_class)
        settings = json.loads(json.dumps(settings, sort_keys=True, default=str))
        whole = json.dumps([settings, self.stage], sort_keys=True)
        digest = hashlib.blake2b(whole.encode(), digest_size=8).hexdigest()
        return Identified(self, digest, settings)

    def _check(self, config: Any) -> None:
        """Refuse what could only fail after training."""
        sampled = set(config["eval_args"]["mode"].values()) != {"full"}
        if sampled and {"users", "lists"} & set(self.keep):
            raise ValueError(
                "--keep: users and lists need a ranking of all items, got sampled candidates; "
                "set the mode of eval_args to full."
            )
        if self.stage == "search" and config["eval_step"] < 1:
            raise ValueError("search: eval_step must be an int >= 1, got 0; nothing is validated.")


@dataclass(frozen=True)
class Identified:
    """A job, its ``run`` (hash) and its whole ``config``, plain values by name."""

    job: Job
    run: str
    config: Mapping[str, Any] = field(repr=False)

    def execute(self) -> Line:
        """Run, and return the line for the store; whatever goes wrong is in it."""
        started, start = _now(), perf_counter()
        restart_peak_memory()
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", category=FutureWarning, module=r"recbole\.")
                found = self._measured()
            status, error = "done", None
        except Exception as failure:
            found, status, error = {}, "failed", _explained(failure)
        device = found.pop("device", None)
        cost = {
            "started": started,
            "seconds": round(perf_counter() - start, 2),
            "epoch_seconds": _mean([entry.pop("seconds") for entry in found.get("epochs", ())]),
            **peak_memory(),
            "device": device,
            "threads": torch.get_num_threads(),
        }
        return self.line(status, error, found, cost)

    def died(self, reason: str) -> Line:
        """The line of a run whose process ended before it could tell."""
        return self.line("failed", reason, {}, {**dict.fromkeys(_COST), "started": _now()})

    def line(
        self, status: str, error: str | None, found: Mapping[str, Any], cost: Mapping[str, Any]
    ) -> Line:
        """Put a line together."""
        empty = dict.fromkeys(
            ("mask", "epochs", "best_epoch", "valid", "test", "groups", "retrieval", "kept")
        )
        line = {
            "run": self.run,
            **self._place(),
            "stage": self.job.stage,
            "status": status,
            "error": error,
            "config": dict(self.config),
            **empty,
            **found,
            "versions": version.versions(),
            "cost": dict(cost),
        }
        return {key: _finite(value) for key, value in line.items()}

    def adopted(self, line: Mapping[str, Any]) -> Line:
        """A line of this very run, wherever it stood in whichever grid, at this job's place."""
        return {**line, **self._place()}

    def owns(self, line: Mapping[str, Any]) -> bool:
        """Whether a line stands at this job's place."""
        place = json.loads(json.dumps(self._place()))
        return all(line.get(key) == value for key, value in place.items())

    def _place(self) -> dict[str, Any]:
        job = self.job
        return {
            "benchmark": job.benchmark,
            "title": job.title,
            "point": dict(job.point),
            "search": job.search,
            "trial": job.trial,
        }

    def is_answered_by(self, line: Mapping[str, Any]) -> bool:
        """Whether a finished line has all that this job asks for, measures and kept files too."""
        kept = line.get("kept") or {}
        files = all(
            name in kept and (self.job.folder.parent / kept[name]).is_file()
            for name in self.job.keep
        )
        measured = all(line.get(name) is not None for name in self.job.measures)
        return line["status"] == "done" and files and measured

    def _measured(self) -> dict[str, Any]:
        job = self.job
        config = job.config()
        with plugin.without_tensorboard():
            run = prepare(config)
        trainer = run.trainer
        try:
            run.fit()
            found = {
                "device": str(config["device"]),
                "mask": mask_of(run.train_data._dataset),
                "epochs": [_rounded(entry) for entry in trainer.history],
                "best_epoch": _best_epoch(trainer.history, config),
                "valid": dict(trainer.best_valid_result or {}),
            }
            if job.stage == "test":
                found.update(self._tested(run))
        finally:
            Path(trainer.saved_model_file).unlink(missing_ok=True)
        return found

    def _tested(self, run: Run) -> dict[str, Any]:
        job, trainer = self.job, run.trainer
        users = UserResults()
        listening = {"users", "lists"} & set(job.keep)
        trainer.eval_collector.on_ranking = users if listening else None
        found = {"test": dict(run.test()), "groups": trainer.group_results}
        if "retrieval" in job.measures:
            asked = hasattr(trainer.model, "completed_features")
            data = run.train_data._dataset
            found["retrieval"] = retrieval.evaluate(trainer.model, data) if asked else {}
        return {**found, "kept": self._keep(run, users.gather() if listening else users)}

    def _keep(self, run: Run, users: UserResults) -> dict[str, str]:
        trainer, data = run.trainer, run.train_data._dataset
        tokens = [data.field2id_token[name] for name in (data.uid_field, data.iid_field)]
        paths = {name: self.job.folder / f"{self.run}.{_ENDINGS[name]}" for name in self.job.keep}
        if paths:
            self.job.folder.mkdir(parents=True, exist_ok=True)
        if "users" in paths:
            write_rows(paths["users"], users.metric_rows(trainer.evaluator, tokens[0]))
        if "lists" in paths:
            write_rows(paths["lists"], users.list_rows(*tokens))
        if "checkpoint" in paths:
            shutil.move(trainer.saved_model_file, paths["checkpoint"])
        return {name: f"{path.parent.name}/{path.name}" for name, path in paths.items()}


_COST = (
    "started", "seconds", "epoch_seconds", "peak_memory_mib", "peak_gpu_mib", "device", "threads",
)  # fmt: skip
_ENDINGS = {"users": "users.tsv.gz", "lists": "lists.tsv.gz", "checkpoint": "pth"}


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _best_epoch(history: Sequence[Mapping[str, Any]], config: Any) -> int | None:
    """The epoch that is tested: of equally good ones RecBole keeps the last."""
    metric, sign = config["valid_metric"].lower(), 1 if config["valid_metric_bigger"] else -1
    places = [
        (sign * entry["valid"][metric], entry["epoch"]) for entry in history if "valid" in entry
    ]
    return max(places)[1] if places else None


def _rounded(entry: Mapping[str, Any]) -> dict[str, Any]:
    loss = {name: float(f"{value:.6g}") for name, value in entry["loss"].items()}
    return {**entry, "loss": loss}


def _finite(value: Any) -> Any:
    """JSON knows neither infinity nor what is not a number: null stands for both."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _mean(values: Sequence[float]) -> float | None:
    return round(sum(values) / len(values), 3) if values else None


def _explained(error: Exception) -> str:
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({Path(last.filename).name}, line {last.lineno})"
