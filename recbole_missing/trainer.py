"""Training: RecBole's trainer with safe checkpoints, results by group, and hooks of a model."""

from __future__ import annotations

import errno
import functools
import itertools
import math
import operator
import os
from collections.abc import Mapping
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from recbole.data.interaction import Interaction
from recbole.trainer import Trainer
from recbole.trainer import trainer as trainer_of_recbole
from recbole.utils import get_gpu_usage, set_color
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.utils.data import DataLoader
from tqdm import tqdm

from recbole_missing import checkpoint, registry
from recbole_missing.data.dataset import imputation_in_force
from recbole_missing.evaluation.groups import GroupCollector, results_table
from recbole_missing.hidden_state import HiddenState
from recbole_missing.memory import limited
from recbole_missing.optim import OPTIM

_runs = itertools.count(1)  # trainers of this process

UNCHECKED = 64
"""Batches of a GPU whose losses are checked together: to read one, the CPU waits for the GPU."""


class PluginTrainer(Trainer):
    """RecBole's :class:`Trainer` for any general recommender, RecBole's own included.

    Its checkpoints load with every version of torch (:mod:`recbole_missing.checkpoint`), and
    training goes on from each of them as if it had never stopped. In a test it also reports the
    metrics by group of items (:attr:`group_results`) and within each group
    (:attr:`within_group_results`).

    Attributes:
        group_results: group name -> metrics of the last test, over the users with a test item in
            the group. All items are candidates.
        within_group_results: the same, but only the items of the group are candidates. See
            :mod:`recbole_missing.evaluation.groups`.
        history: one entry for each epoch: ``epoch``, ``seconds`` of training, ``loss`` (term -> sum
            over the batches) and, if the epoch was validated, ``valid`` (metric -> value).
        last: where the state after an epoch is written, beside that after the best one. It has
            ``is_due()``, ``write(state, best_file)`` and ``make_room()``;
            :mod:`recbole_missing.resume` sets it. None: nowhere.
    """

    def __init__(self, config: Any, model: Any) -> None:
        """Build RecBole's trainer around the model."""
        super().__init__(config, model)
        # glibc takes blocks larger than the largest one freed so far (up to 32 MiB) from the system
        # and gives them back. Gradients are such blocks: every batch would clear new pages.
        torch.empty(2**25 - 2**14, dtype=torch.uint8)
        path = Path(self.saved_model_file)  # RecBole's file name changes only every second
        name = f"{path.stem}-{os.getpid()}-{next(_runs)}{path.suffix}"
        self.saved_model_file = str(path.with_name(name))
        self.eval_collector = GroupCollector(config)
        self.group_results: dict[str, dict[str, float]] = {}
        self.within_group_results: dict[str, dict[str, float]] = {}
        self.history: list[dict[str, Any]] = []
        self.last: Any = None
        self._hidden = HiddenState(self.model)
        self._validating = False
        self._epoch: int | None = None  # the epoch that is under way, and its batches so far
        self._batches = 0
        self._unchecked: list[tuple[int, Tensor, dict[str, Tensor]]] = []  # batch, loss, terms
        self._checked_together = 1 if self.device.type == "cpu" else UNCHECKED
        self._valid_result: Any = None  # of the latest validation
        self._best_epoch: int | None = None  # the epoch of ``saved_model_file``
        self._generators: list[torch.Generator] = []  # of the loaders: order of the batches
        self._resumed: tuple[str, dict[str, Any]] | None = None  # a file and its content

    @limited("training", "train_batch_size", "embedding_size")
    def fit(
        self,
        train_data: Any,
        valid_data: Any = None,
        verbose: bool = True,
        saved: bool = True,
        show_progress: bool = False,
        callback_fn: Any = None,
    ) -> Any:
        """Train as RecBole does. A resumed run goes on where its checkpoint was written.

        Raises:
            ValueError: if the run was resumed from a checkpoint of other data, or if the loss or a
                parameter is no number.
        """
        checkpoint.note_data(self.config, train_data)
        self._generators = [*_generators(train_data), *_generators(valid_data)]
        if self._resumed is not None:
            file, state = self._resumed
            checkpoint.check_data(file, state["config"], self.config)
            with checkpoint.refused_as(f"{_must_be_whole(file)} random or loaders"):
                checkpoint.set_random_state(state["random"])
                for generator, saved_state in zip(self._generators, state["loaders"]):
                    generator.set_state(saved_state.cpu())
            if self._is_over():
                self.eval_collector.data_collect(train_data)
                return self.best_valid_score, self.best_valid_result
        options = (verbose, saved, show_progress, callback_fn)
        result = super().fit(train_data, valid_data, *options)
        self._write_last(max(self.train_loss_dict, default=-1))
        return result

    @property
    def is_resumed(self) -> bool:
        """Whether the state of another run has been taken over, as a whole or in part."""
        return self._resumed is not None

    def _is_over(self) -> bool:
        """Tell whether a resumed run has had its last epoch."""
        return self.start_epoch >= self.epochs or self.cur_step > self.stopping_step

    @property
    def can_resume(self) -> bool:
        """Whether all training happens in RecBole's common ``fit``, as its checkpoints need it."""
        return self._has_recboles_common("fit")

    def _has_recboles_common(self, method: str) -> bool:
        """Whether RecBole has no other method of the name for this kind of trainer."""
        owners = (kind for kind in type(self).__mro__ if method in vars(kind))
        return next(kind for kind in owners if not issubclass(kind, PluginTrainer)) is Trainer

    @limited("evaluation", "eval_users", "eval_batch_size")
    def evaluate(
        self,
        eval_data: Any,
        load_best_model: bool = True,
        model_file: str | None = None,
        show_progress: bool = False,
    ) -> Any:
        """Evaluate as RecBole does. In a test, evaluate by group and within groups too."""
        if not eval_data:
            return None
        checkpoint.note_data(self.config, eval_data)
        if load_best_model:
            file = model_file or self.saved_model_file
            state = checkpoint.load(Path(file), self.device)
            checkpoint.check_data(str(file), state["config"], self.config)
            checkpoint.check_writer(file, state, self.config)
            self._load_model(state)
            self.logger.info(f"Loading model structure and parameters from {file}")
        by_group = not self._validating and self.config["single_spec"]
        item_groups = getattr(eval_data._dataset, "item_groups", dict)
        self.eval_collector.start(item_groups() if by_group else {})
        result = super().evaluate(eval_data, load_best_model=False, show_progress=show_progress)
        result.update({name: float(value) for name, value in result.items()})  # numpy's repr
        self.group_results = self.eval_collector.results_by_group(self.evaluator)
        self.within_group_results = self.eval_collector.results_within_groups(self.evaluator)
        if self.group_results:
            self.logger.info(f"test result: {result}")
            results = result, self.group_results, self.within_group_results
            self.logger.info(results_table(*results, protocol(self.config)))
        return result

    def save_pretrained_model(self, epoch: int, saved_model_file: str) -> None:
        """Write the checkpoint with which the second stage of RecBole's RaCT and S3Rec starts."""
        self._save_checkpoint(epoch, verbose=False, saved_model_file=saved_model_file)
        self.saved_model_file = saved_model_file

    def resume_checkpoint(self, resume_file: str) -> None:
        """Go on from a checkpoint of this package; further epochs are saved in its place.

        Raises:
            ValueError: if the file is no such checkpoint, or one of another model or other data.
        """
        state = checkpoint.load(Path(resume_file), self.device)
        self.restore(state, str(resume_file))
        self.saved_model_file = str(resume_file)

    def restore(self, state: dict[str, Any], file: str) -> None:
        """Take over the state of a run: everything that training depends on, and its history.

        Args:
            state: content of a checkpoint.
            file: its path, for messages.

        Raises:
            ValueError: if it is the state of another model or of other data, or incomplete.
        """
        if state["config"].get("model") != self.config["model"]:
            raise ValueError(
                f"{file}: must be a checkpoint of {self.config['model']}, "
                f"got one of {state['config'].get('model')}; pass the file of the same model."
            )
        with checkpoint.refused_as(f"{_must_be_whole(file)} config"):
            checkpoint.check_data(file, state["config"], self.config)
        checkpoint.check_whole(file, state)
        if state["lost"]:
            lost = ", ".join(map(str, state["lost"]))
            raise ValueError(
                f"{file}: must hold everything that training changes, got a model that also "
                f"changes {lost}; make these buffers of the model, or name them in `remade` if "
                "every epoch makes them anew."
            )
        self._resumed = (file, state)
        self.start_epoch = state["epoch"] + 1
        self.cur_step = state["cur_step"]
        self.best_valid_score = state["best_valid_score"]
        self.best_valid_result = self._valid_result = state["best_valid_result"]
        self._best_epoch = state["best_epoch"]
        self.history = [dict(entry) for entry in state["history"]]
        self.train_loss_dict = dict(state["train_loss_dict"])
        self._load_model(state)
        self._hidden.restore(state["hidden"], self.device, file)
        with checkpoint.refused_as(f"{_must_be_whole(file)} steppers"):
            self._restore_steppers(state["steppers"], state["optimizer_in_use"])
        self.logger.info(f"Checkpoint loaded. Resume training from epoch {self.start_epoch}")

    def _restore_steppers(self, saved: Mapping[str, Any], in_use: str | None) -> None:
        steppers = self._steppers()
        if saved.keys() | {"optimizer"} != steppers.keys() | {"optimizer"}:
            raise KeyError(f"{sorted(map(str, saved))} instead of {sorted(steppers)}")
        for name, values in saved.items():
            # A schedule takes every key as an attribute.
            if values.keys() != steppers[name].state_dict().keys():
                raise KeyError(f"{sorted(map(str, values))} in {name}")
            steppers[name].load_state_dict(values)
        if "optimizer" not in saved:  # one of several that take turns
            self.optimizer = steppers[str(in_use)]

    def _steppers(self) -> dict[str, Any]:
        """Optimisers and schedules by the name of the attribute; each one once."""
        kinds = (torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler)
        found = {name: one for name, one in vars(self).items() if isinstance(one, kinds)}
        others = [one for name, one in found.items() if name != "optimizer"]
        if any(one is self.optimizer for one in others):
            del found["optimizer"]
        return found

    def _train_epoch(
        self, train_data: Any, epoch_idx: int, loss_func: Any = None, show_progress: bool = False
    ) -> Any:
        self._before_epoch(epoch_idx)
        start = perf_counter()
        common = self._has_recboles_common("_train_epoch") and _has_recboles_loop()
        train = self._train_batches if common else super()._train_epoch
        loss = train(train_data, epoch_idx, loss_func, show_progress)
        self._check_losses()
        entry = {"epoch": epoch_idx, "seconds": perf_counter() - start, "loss": self._terms(loss)}
        self.history.append(entry)
        return loss

    def _before_epoch(self, epoch: int) -> None:
        """Write the state after the previous epoch and its validation, if that is due."""
        if epoch != self._epoch and epoch > self.start_epoch:
            self._write_last(epoch - 1)
        self._epoch, self._batches, self._unchecked = epoch, 0, []

    def _train_batches(
        self, train_data: Any, epoch: int, loss_func: Any, show_progress: bool
    ) -> Any:
        """RecBole's loop over the batches, in which the CPU does not wait for a GPU."""
        self.model.train()
        loss_func = loss_func or self.model.calculate_loss
        if not self.config["single_spec"] and train_data.shuffle:
            train_data.sampler.set_epoch(epoch)
        shown = {"ncols": 100, "desc": set_color(f"Train {epoch:>5}", "pink")}
        batches = tqdm(train_data, total=len(train_data), **shown) if show_progress else train_data
        scaler = _GradScaler(enabled=self.enable_scaler)
        losses_of_batches, is_tuple = [], False
        for interaction in batches:
            interaction = _moved(interaction, self.device)
            self.optimizer.zero_grad()
            sync_loss = 0
            if not self.config["single_spec"]:
                self.set_reduce_hook()
                sync_loss = self.sync_grad_loss()
            with torch.autocast(device_type=self.device.type, enabled=self.enable_amp):
                losses = loss_func(interaction)
            is_tuple = isinstance(losses, tuple)
            parts = losses if is_tuple else (losses,)
            losses_of_batches.append(torch.stack([part.detach().reshape(()) for part in parts]))
            loss = sum(losses) if is_tuple else losses
            self._check_nan(loss)
            scaler.scale(loss + sync_loss).backward()
            if self.clip_grad_norm:
                clip_grad_norm_(self.model.parameters(), **self.clip_grad_norm)
            scaler.step(self.optimizer)
            scaler.update()
            if self.gpu_available and show_progress:
                used = "GPU RAM: " + get_gpu_usage(self.device)
                batches.set_postfix_str(set_color(used, "yellow"))
        if not losses_of_batches:
            return None
        columns = torch.stack(losses_of_batches).T.tolist()
        totals = tuple(functools.reduce(operator.add, column) for column in columns)
        return totals if is_tuple else totals[0]

    def _write_last(self, epoch: int) -> None:
        if self.last is None or not self.last.is_due():
            return
        self._check_parameters(epoch)
        self.last.write(self._state(epoch), Path(self.saved_model_file))

    def _check_nan(self, loss: Tensor) -> None:
        """Check the loss of a batch; on a GPU together with those of other batches."""
        self._batches += 1
        self._unchecked.append((self._batches, loss.detach().reshape(()), self._last_terms(loss)))
        if len(self._unchecked) >= self._checked_together:
            self._check_losses()

    def _check_losses(self) -> None:
        """Refuse the first loss that is not finite."""
        unchecked, self._unchecked = self._unchecked, []
        losses = torch.stack([loss for _, loss, _ in unchecked]).tolist() if unchecked else ()
        for (batch, _, terms), loss in zip(unchecked, losses):
            if not math.isfinite(loss):
                values = {name: term.item() for name, term in terms.items()}
                where = f"{values} in batch {batch} of epoch {self._epoch}"
                raise ValueError(self._not_finite("every loss term must be finite", where))

    def _check_parameters(self, epoch: int) -> None:
        """Refuse to save parameters that are no numbers, so that the saved ones stay good."""
        for name, parameter in self.model.named_parameters():
            if torch.isnan(parameter).any():
                must = f"every parameter must be a number after epoch {epoch}"
                raise ValueError(self._not_finite(must, f"nan in {name}"))

    def _not_finite(self, must: str, got: str) -> str:
        """Message on a loss or a parameter that is not finite, and on what is left."""
        written = [Path(self.saved_model_file)]
        if self.last is not None:
            written.insert(0, self.last.path)
        files = [file for file in written if file.is_file()]
        left = f"the last good checkpoint is {files[0]}" if files else "no checkpoint was written"
        return (
            f"{self.config['model']}: {must}, got {got} ({left}); lower learning_rate, or look for "
            "extreme values in the features."
        )

    def _last_terms(self, loss: Tensor) -> dict[str, Tensor]:
        """Loss of the present batch by term, without gradient."""
        return {"loss": loss.detach()}

    def _terms(self, loss: Any) -> dict[str, float]:
        """Loss of an epoch by term. RecBole's own models do not name their terms."""
        parts = loss if isinstance(loss, tuple) else (loss,)
        names = ["loss"] if len(parts) == 1 else [f"loss{number}" for number in range(len(parts))]
        return {name: float(part) for name, part in zip(names, parts)}

    def _valid_epoch(self, valid_data: Any, show_progress: bool = False) -> Any:
        self._validating = True
        try:
            score, self._valid_result = super()._valid_epoch(valid_data, show_progress)
        finally:
            self._validating = False
        if self.history:
            self.history[-1]["valid"] = dict(self._valid_result)
        if self.config["ties_improve"] is False and score == self.best_valid_score:
            score = math.nextafter(score, -math.inf if self.valid_metric_bigger else math.inf)
        return score, self._valid_result

    def _save_checkpoint(self, epoch: int, verbose: bool = True, **kwargs: Any) -> None:
        if not self.config["single_spec"] and self.config["local_rank"] != 0:
            return
        file = Path(kwargs.pop("saved_model_file", self.saved_model_file))
        self._check_parameters(epoch)
        self._best_epoch = epoch
        try:
            checkpoint.save(self._state(epoch), file)
        except OSError as error:
            scarce = error.errno in (errno.ENOSPC, errno.EDQUOT)
            if not scarce or self.last is None or not self.last.make_room():
                raise
            checkpoint.save(self._state(epoch), file)
        if verbose:
            self.logger.info(f"Saving current: {file}")

    def _state(self, epoch: int) -> dict[str, Any]:
        """Everything that a run is after an epoch, as tensors and plain values."""
        model = self.config.model_class
        hidden, lost = self._hidden.changed()
        steppers = self._steppers()
        in_use = next((name for name, one in steppers.items() if one is self.optimizer), None)
        return {
            "config": checkpoint.config_state(self.config),
            "model_class": registry.address(model) if registry.is_outside(model) else None,
            "written_by": checkpoint.written_by(self.config),
            "epoch": epoch,
            "cur_step": self.cur_step,
            "best_epoch": self._best_epoch,
            "best_valid_score": float(self.best_valid_score),
            # RecBole saves the best epoch before it notes that epoch's result.
            "best_valid_result": checkpoint.plain(
                self._valid_result if epoch == self._best_epoch else self.best_valid_result
            ),
            "history": checkpoint.plain(self.history),
            "train_loss_dict": checkpoint.plain(self.train_loss_dict),
            "state_dict": self.model.state_dict(),
            "other_parameter": checkpoint.pack(self.model.other_parameter()),
            "hidden": hidden,
            "lost": lost,
            "optimizer": self.optimizer.state_dict(),
            "optimizer_in_use": in_use,
            "steppers": {name: one.state_dict() for name, one in steppers.items()},
            "random": checkpoint.random_state(),
            "loaders": [generator.get_state() for generator in self._generators],
        }

    def _load_model(self, state: dict[str, Any]) -> None:
        checkpoint.fill(self.model, state, self.config)


_GradScaler = getattr(torch.amp, "GradScaler", torch.cuda.amp.GradScaler)  # torch < 2.3 has one


def _moved(interaction: Any, device: torch.device) -> Any:
    """Batch on the device. The CPU waits neither for the copy nor for what the GPU does before."""
    if not isinstance(interaction, Interaction):
        return interaction.to(device)
    columns = interaction.interaction.items()
    return Interaction({name: col.to(device, non_blocking=True) for name, col in columns})


def _has_recboles_loop() -> bool:
    """Whether ``Trainer._train_epoch`` is RecBole's own code and nobody has put another there."""
    code = getattr(Trainer._train_epoch, "__code__", None)
    return code is not None and code.co_filename == trainer_of_recbole.__file__


def _must_be_whole(file: str) -> str:
    return f"{file}: must hold the whole state of a run, got a bad"


def _generators(loader: Any) -> list[torch.Generator]:
    """Generators of a dataloader, and of the dataloaders that it is made of."""
    if not loader:
        return []
    parts = [part for part in vars(loader).values() if isinstance(part, DataLoader)]
    own = getattr(loader, "generator", None)
    found = [own] if isinstance(own, torch.Generator) else []
    return found + [generator for part in parts for generator in _generators(part)]


class MultimodalTrainer(PluginTrainer):
    """Trainer of the models of this package.

    It calls the model's hooks of epochs and batches, and it has a schedule and a second optimiser.
    The learning rate of epoch e is ``learning_rate * factor ** (e / epochs)`` with
    ``learning_rate_scheduler: [factor, epochs]``. The second optimiser is an Adam over the model's
    ``auxiliary_parameters()``. The model steps it in ``on_epoch_start`` and ``on_batch_start``.
    """

    def __init__(self, config: Any, model: Any) -> None:
        """Build both optimisers and the schedule."""
        super().__init__(config, model)
        factor, epochs = config["learning_rate_scheduler"]
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda epoch: factor ** (epoch / epochs)
        )
        auxiliary = list(model.auxiliary_parameters())
        if auxiliary and not config["single_spec"]:
            raise ValueError(
                f"{config['model']}: nproc must be 1 for a model with two optimisers, got more; "
                "run it in one process."
            )
        self.auxiliary_optimizer = (
            OPTIM.Adam(auxiliary, **model.auxiliary_options, fused=self._fused())
            if auxiliary
            else None
        )
        self._term_sums: dict[str, Tensor] = {}

    def _build_optimizer(self, **kwargs: Any) -> torch.optim.Optimizer:
        auxiliary = {id(parameter) for parameter in self.model.auxiliary_parameters()}
        main = [p for p in self.model.parameters() if id(p) not in auxiliary]
        kinds = {"adam": OPTIM.Adam, "adamw": OPTIM.AdamW}
        if self.learner in kinds:  # one fused pass over the large feature tables
            decay, rate = self.weight_decay, self.learning_rate
            return kinds[self.learner](main, lr=rate, weight_decay=decay, fused=self._fused())
        return super()._build_optimizer(params=main, **kwargs)

    def _fused(self) -> bool:
        return self.device.type == "cuda" or _version(torch.__version__) >= (2, 4)

    def _train_epoch(
        self, train_data: Any, epoch_idx: int, loss_func: Any = None, show_progress: bool = False
    ) -> Any:
        self._before_epoch(epoch_idx)
        self._term_sums = {}
        self.model.train()
        self._unfreeze_auxiliary(True)
        self.model.on_epoch_start(self._minimise)
        loss = super()._train_epoch(train_data, epoch_idx, self._summed_loss, show_progress)
        self.scheduler.step()
        return loss

    def _valid_epoch(self, valid_data: Any, show_progress: bool = False) -> Any:
        self.model.on_validation_start()
        return super()._valid_epoch(valid_data, show_progress)

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        """Evaluate as RecBole does. The model encodes once for all batches of users."""
        with self.model.scoring():
            return super().evaluate(*args, **kwargs)

    def _unfreeze_auxiliary(self, trained: bool) -> None:
        for parameter in self.model.auxiliary_parameters():
            parameter.requires_grad_(trained)

    def _minimise(self, loss: Tensor) -> None:
        assert self.auxiliary_optimizer is not None
        self.auxiliary_optimizer.zero_grad()
        loss.backward()
        self.auxiliary_optimizer.step()
        self.auxiliary_optimizer.zero_grad()  # clipping must see main gradients only

    def _summed_loss(self, interaction: Any) -> Tensor:
        self._unfreeze_auxiliary(True)
        self.model.on_batch_start(interaction, self._minimise)
        self._unfreeze_auxiliary(False)  # the loss of a batch trains only the other parameters
        loss: Tensor = self.model.calculate_loss(interaction)
        for name, term in self.model.last_terms.items():
            self._term_sums[name] = self._term_sums.get(name, 0.0) + term
        return loss

    def _last_terms(self, loss: Tensor) -> dict[str, Tensor]:
        terms: dict[str, Tensor] = self.model.last_terms
        return terms

    def _terms(self, loss: Any) -> dict[str, float]:
        return {name: total.item() for name, total in self._term_sums.items()}

    def _generate_train_loss_output(
        self, epoch_idx: int, s_time: float, e_time: float, losses: Any
    ) -> str:
        output = super()._generate_train_loss_output(epoch_idx, s_time, e_time, losses)
        terms = ", ".join(f"{name}: {total.item():.4f}" for name, total in self._term_sums.items())
        return f"{output} [{terms}]"


def protocol(config: Any) -> str:
    """Text that belongs to a result: model, data, mask, scales, imputation, test_mask, seed."""
    mask = config["missing_protocol"]
    if mask in ("random_items", "stratified"):
        mask = f"{config['missing_ratio']:.0%} {mask}"
    if mask == "file":
        mask = config["missing_file"]
    if config["new_items"] not in (None, "none"):
        mask = f"{mask}; new_items: {config['new_items']}"
    imputed = imputation_in_force(config, config.model_class)
    imputation = imputed.get("imputation", f"none ({config['model']} reads no modalities)")
    scales = (config["data_scales"] or {}).items() if imputed else ()
    scaled = ", ".join(f"{name} {state['scale']}" for name, state in scales)
    scale = f"scale: {scaled}; " if scaled else ""
    return (
        f"{config['model']} on {config['dataset']}; missing: {mask}; {scale}"
        f"imputation: {imputation}; "
        f"test_mask: {config['test_mask']}; seed: {config['seed']}"
    )


def _version(text: str) -> tuple[int, int]:
    major, minor = text.split(".")[:2]
    return int(major), int(minor)
