"""One run of a benchmark: its settings, its identity, and the line that it leaves in the store."""

from __future__ import annotations

import json
import math
import shutil
import traceback
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from recbole.config import Config

from recbole_missing import checkpoint, identity, in_force, plugin, version
from recbole_missing import resume as resuming
from recbole_missing.atomic import FullDiskError, whole_file
from recbole_missing.benchmark.identified import DataSets, mask_of
from recbole_missing.benchmark.line import Line
from recbole_missing.benchmark.measured import peak_memory, restart_peak_memory
from recbole_missing.config import check
from recbole_missing.data.interactions import check_interaction_files
from recbole_missing.evaluation import restoration, retrieval
from recbole_missing.evaluation.metrics import smaller_metrics
from recbole_missing.evaluation.users import UserResults, check_metrics, write_rows
from recbole_missing.quick_start import Run, prepare

KEEP = ("users", "lists", "checkpoint")
"""Files that a run can keep: metrics of every user, top items of every user, the model."""


@dataclass(frozen=True)
class Job:
    """A run that has not started. It can be sent to another process.

    Args:
        benchmark, title: name and title of the benchmark file.
        point: axis -> value.
        settings: settings that win over those of ``files``.
        files: YAML files of settings in the folder of the data set.
        stage: ``test``, or ``search`` for a trial, which never looks at the test split.
        measures: names of :data:`.plan.MEASURES`.
        keep: names of :data:`KEEP`.
        folder: folder of the kept files.
        unfinished: folder of the checkpoints of runs that have begun, from which they go on if
            their process was killed.
        search: the settings that a search chose for this run, and the number of trials; or None.
        trial: for a trial of a search: the settings that it tries; otherwise None.
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
    unfinished: Path = Path("unfinished")
    search: Mapping[str, Any] | None = None
    trial: Mapping[str, Any] | None = None

    def config(self) -> Any:
        """RecBole's config of this run.

        Raises:
            ValueError: if a setting is wrong.
        """
        check.check_found_files(map(Path, self.files))
        quiet = {"show_progress": False, "state": "WARNING", "plugin_defaults": True}
        with checkpoint.no_command_line():
            return Config(
                self.point["model"],
                self.point["dataset"],
                list(self.files) or None,
                {**quiet, **self.settings},
            )

    def identified(self, data_sets: DataSets) -> Identified:
        """Find out what decides the result of the job: data, settings in force, source code.

        Args:
            data_sets: reads the data. It does not read again what it read for other jobs.

        Raises:
            ValueError: if settings or data are wrong, or the data set is absent.
        """
        config = self.config()
        self._check(config)
        check_interaction_files(config)
        parts = data_sets.identity(config)
        values = json.loads(json.dumps(checkpoint.config_state(config), default=str))
        settings = in_force.settings_in_force(values, config.model_class)
        run = identity.of_run(config.model_class, parts, settings, self.stage)
        shown = in_force.described_settings(values, config.model_class)
        source = in_force.source_of(values, config.model_class)
        return Identified(self, run, shown, parts, source)

    def _check(self, config: Any) -> None:
        """Refuse settings now that would otherwise fail after training, or have no identity."""
        values = config.final_config_dict
        settings = {key: values[key] for key in values if key not in in_force.OF_A_CONFIG}
        check.refuse_alien(config.model, check.make_plain(settings))
        sampled = set(config["eval_args"]["mode"].values()) != {"full"}
        if sampled and {"users", "lists"} & set(self.keep):
            raise ValueError(
                "--keep: users and lists need a ranking of all items, got sampled candidates; "
                "set the mode of eval_args to full."
            )
        if "users" in self.keep:
            check_metrics(config["metrics"])
        if self.stage == "search" and config["eval_step"] < 1:
            raise ValueError("search: eval_step must be an int >= 1, got 0; nothing is validated.")


@dataclass(frozen=True)
class Identified:
    """A job, together with everything that decides its result.

    Args:
        job: the job.
        run: hash of everything that decides the result.
        config: settings in force, and the settings that the data are made with.
        data: identity of the data: part -> hash.
        source: hash of the code that makes the result; None if it is not known.
    """

    job: Job
    run: str
    config: Mapping[str, Any] = field(repr=False)
    data: identity.Parts = field(default_factory=dict, repr=False)
    source: str | None = None

    def execute(self) -> Line:
        """Run the job, and return its line for the store. If it fails, the line holds the error.

        A run that was killed goes on where it was; see :meth:`forget`. Its cost is that of all
        parts which the result is made from.

        The ``source`` of the line is that of the code which this process has loaded. It may have
        been edited after the job was identified.

        Raises:
            OSError: if the disk is full. The run has no line then, and can go on.
        """
        cost = Cost()
        ran = self
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", category=FutureWarning, module=r"recbole\.")
                config = self.job.config()
                values = config.final_config_dict
                source = in_force.source_of(values, config.model_class)
                ran = replace(self, source=source)
                found = ran._measured(config, cost)
            status, error = "done", None
        except Exception as failure:
            if _is_full(failure):  # it would stop the next runs, too
                raise OSError(
                    f"{failure} Start the benchmark again when there is room; the run goes on."
                ) from failure
            found, status, error = {}, "failed", _explained(failure)
        device = found.pop("device", None)
        seconds = [entry.pop("seconds") for entry in found.get("epochs", ())]
        line_cost = {
            **cost.so_far(),
            "epoch_seconds": _mean(seconds),
            "device": device,
            "threads": torch.get_num_threads(),
        }
        return ran.line(status, error, found, line_cost)

    def died(self, reason: str) -> Line:
        """Line of a run whose process ended before it returned a line."""
        return self.line("failed", reason, {}, {**dict.fromkeys(_COST), "started": _now()})

    def line(
        self, status: str, error: str | None, found: Mapping[str, Any], cost: Mapping[str, Any]
    ) -> Line:
        """Make the line of this run from its results."""
        measured = ("mask", "epochs", "best_epoch", "valid", "test", "smaller", "groups")
        empty = dict.fromkeys((*measured, "within_groups", "retrieval", "restoration", "kept"))
        line = {
            "run": self.run,
            **self._place(),
            "stage": self.job.stage,
            "status": status,
            "error": error,
            "config": dict(self.config),
            "data": {"id": identity.digest(self.data), **self.data},
            "source": self.source,
            **empty,
            **found,
            "versions": version.versions(),
            "cost": dict(cost),
        }
        return Line.parse({key: _finite(value) for key, value in line.items()})

    def adopted(self, line: Line) -> Line:
        """Copy a line of the same run from another place in a grid to the place of this job."""
        return replace(line, **self._place())

    def owns(self, line: Mapping[str, Any]) -> bool:
        """Tell whether a line has the place of this job: benchmark, title, point, search, trial."""
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
        """Tell whether a line is done and has all measures and kept files of this job."""
        kept = line.get("kept") or {}
        files = all(
            name in kept and (self.job.folder.parent / kept[name]).is_file()
            for name in self.job.keep
        )
        measured = all(line.get(name) is not None for name in self.job.measures)
        return line["status"] == "done" and files and measured

    def forget(self) -> None:
        """Remove the checkpoints of the run, for its line is in the store."""
        resuming.remove_of(self.job.unfinished, self.run)

    def _measured(self, config: Any, cost: Cost) -> dict[str, Any]:
        with plugin.without_tensorboard():
            run = prepare(config)
        self._check_data(config)
        trainer, best = run.trainer, self.job.unfinished / f"{self.run}.pth"
        with resuming.kept(run, run_id=self.run, note=cost.so_far, best=best) as last:
            if last is not None and last.noted:
                cost.add(last.noted)
            try:
                return self._trained(run)
            except Exception as error:  # not an interrupt, after which the run goes on
                if not _is_full(error):
                    if last is not None:
                        last.remove()
                    Path(trainer.saved_model_file).unlink(missing_ok=True)
                raise

    def _trained(self, run: Run) -> dict[str, Any]:
        """Results of a run; its best checkpoint is removed, unless it is kept."""
        run.fit()
        trainer, config = run.trainer, run.config
        found = {
            "device": str(config["device"]),
            "mask": mask_of(run.train_data._dataset),
            "epochs": [_rounded(entry) for entry in trainer.history],
            "best_epoch": _best_epoch(trainer.history, config),
            "valid": dict(trainer.best_valid_result or {}),
        }
        if self.job.stage == "test":
            found.update(self._tested(run))
        Path(trainer.saved_model_file).unlink(missing_ok=True)
        return found

    def _check_data(self, config: Any) -> None:
        """Refuse data that changed after the identity of the run was computed."""
        changed = identity.differing(self.data, config["data_identity"] or self.data)
        if changed:
            raise ValueError(
                f"{self.job.benchmark}: the data must not change while it runs, got another "
                f"{' and another '.join(changed)}; start it again."
            )

    def _tested(self, run: Run) -> dict[str, Any]:
        job, trainer = self.job, run.trainer
        users = UserResults()
        listening = {"users", "lists"} & set(job.keep)
        trainer.eval_collector.on_ranking = users if listening else None
        test = dict(run.test())
        found = {
            "test": test,
            "smaller": smaller_metrics(test),
            "groups": trainer.group_results,
            "within_groups": trainer.within_group_results,
        }
        asked = hasattr(trainer.model, "completed_features")
        for name in job.measures:
            measure = _MEASURES[name]
            found[name] = measure(trainer.model, run.train_data._dataset) if asked else {}
        try:
            found["kept"] = self._keep(run, users.gather() if listening else users)
        except OSError as error:  # the line will have no results
            raise OSError(f"{error} The test gave {dict(test)}.") from error
        return found

    def _keep(self, run: Run, users: UserResults) -> dict[str, str]:
        trainer, data = run.trainer, run.train_data._dataset
        tokens = [data.field2id_token[name] for name in (data.uid_field, data.iid_field)]
        paths = {name: self.job.folder / f"{self.run}.{_ENDINGS[name]}" for name in self.job.keep}
        if "users" in paths:
            write_rows(paths["users"], users.metric_rows(trainer.evaluator, tokens[0]))
        if "lists" in paths:
            write_rows(paths["lists"], users.list_rows(*tokens))
        if "checkpoint" in paths:
            with whole_file(paths["checkpoint"]) as temporary:
                shutil.move(trainer.saved_model_file, temporary)
        return {name: f"{path.parent.name}/{path.name}" for name, path in paths.items()}


class Cost:
    """What a run costs: the part of this process, and the parts that it goes on from."""

    def __init__(self) -> None:
        """Begin to count."""
        self._started, self._start = _now(), perf_counter()
        self._before: dict[str, Any] = {}
        restart_peak_memory()

    def add(self, before: Mapping[str, Any]) -> None:
        """Count what :meth:`so_far` returned when the checkpoint was written, too."""
        self._before = dict(before)

    def so_far(self) -> dict[str, Any]:
        """Costs up to now. What was computed after the last checkpoint and is lost is not known."""
        before, peaks = self._before, peak_memory()
        for name, value in peaks.items():
            known = [one for one in (value, before.get(name)) if one is not None]
            peaks[name] = max(known, default=None)
        return {
            "started": before.get("started", self._started),
            "seconds": round(perf_counter() - self._start + before.get("seconds", 0.0), 2),
            "resumed": before.get("resumed", -1) + 1,
            **peaks,
        }


_COST = (
    "started", "seconds", "resumed", "epoch_seconds", "peak_memory_mib", "peak_gpu_mib", "device",
    "threads",
)  # fmt: skip
_MEASURES = {"retrieval": retrieval.evaluate, "restoration": restoration.evaluate}
_ENDINGS = {"users": "users.tsv.gz", "lists": "lists.tsv.gz", "checkpoint": "pth"}


def _is_full(error: BaseException | None) -> bool:
    """Tell whether a full disk caused an error."""
    while error is not None and not isinstance(error, FullDiskError):
        error = error.__cause__
    return error is not None


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _best_epoch(history: Sequence[Mapping[str, Any]], config: Any) -> int | None:
    """The epoch that is tested: of several equally good ones the last, as ``ties_improve`` says."""
    metric, sign = config["valid_metric"].lower(), 1 if config["valid_metric_bigger"] else -1
    order = -1 if config["ties_improve"] is False else 1
    places = [
        (sign * entry["valid"][metric], order * entry["epoch"], entry["epoch"])
        for entry in history
        if "valid" in entry
    ]
    return max(places)[-1] if places else None


def _rounded(entry: Mapping[str, Any]) -> dict[str, Any]:
    loss = {name: float(f"{value:.6g}") for name, value in entry["loss"].items()}
    return {**entry, "loss": loss}


def _finite(value: Any) -> Any:
    """Replace infinity and NaN by None, because JSON has neither."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _mean(values: Sequence[float]) -> float | None:
    return round(sum(values) / len(values), 3) if values else None


def _explained(error: Exception) -> str:
    """Text of an error: one line for an error of this package, with traceback for any other."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    line = f"{type(error).__name__}: {error} ({Path(last.filename).name}, line {last.lineno})"
    package = Path(identity.__file__).resolve().parent
    if (
        isinstance(error, (ValueError, OSError))
        and package in Path(last.filename).resolve().parents
    ):
        return line
    whole = traceback.format_exception(type(error), error, error.__traceback__)
    return f"{line}\n{''.join(whole)}"
