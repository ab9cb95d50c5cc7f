"""Training: RecBole's trainer with safe checkpoints, results by group, and hooks of a model."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from recbole.trainer import Trainer
from torch import Tensor

from recbole_missing import checkpoint, registry
from recbole_missing.data.dataset import imputation_in_force
from recbole_missing.evaluation.groups import GroupCollector, results_table
from recbole_missing.memory import limited

_runs = itertools.count(1)  # trainers of this process


class PluginTrainer(Trainer):
    """RecBole's :class:`Trainer` for any general recommender, RecBole's own included.

    Its checkpoints load with every version of torch (:mod:`recbole_missing.checkpoint`). In a test
    it also reports the metrics by group of items (:attr:`group_results`).

    Attributes:
        group_results: group name -> metrics of the last test, over the users with a test item in
            the group.
        history: one entry for each epoch: ``epoch``, ``seconds`` of training, ``loss`` (term -> sum
            over the batches) and, if the epoch was validated, ``valid`` (metric -> value).
    """

    def __init__(self, config: Any, model: Any) -> None:
        """Build RecBole's trainer around the model."""
        super().__init__(config, model)
        path = Path(self.saved_model_file)  # RecBole's file name changes only every second
        name = f"{path.stem}-{os.getpid()}-{next(_runs)}{path.suffix}"
        self.saved_model_file = str(path.with_name(name))
        self.eval_collector = GroupCollector(config)
        self.group_results: dict[str, dict[str, float]] = {}
        self.history: list[dict[str, Any]] = []
        self._validating = False
        self._epoch = self._batches = 0  # the present epoch, and its batches so far
        self._valid_result: Any = None  # of the latest validation
        self._shuffle: torch.Generator | None = None  # decides the order of the batches
        self._shuffle_state: Tensor | None = None
        self._resumed: tuple[str, dict[str, Any]] | None = None  # a file and its config

    @limited("training", "train_batch_size", "embedding_size")
    def fit(self, train_data: Any, *args: Any, **kwargs: Any) -> Any:
        """Train as RecBole does. A resumed run continues with the saved order of batches.

        Raises:
            ValueError: if the run was resumed from a checkpoint of other data.
        """
        checkpoint.note_data(self.config, train_data)
        if self._resumed is not None:
            checkpoint.check_data(*self._resumed, self.config)
        self._shuffle = getattr(train_data, "generator", None)
        if self._shuffle is not None and self._shuffle_state is not None:
            self._shuffle.set_state(self._shuffle_state)
        return super().fit(train_data, *args, **kwargs)

    @limited("evaluation", "eval_users", "eval_batch_size")
    def evaluate(
        self,
        eval_data: Any,
        load_best_model: bool = True,
        model_file: str | None = None,
        show_progress: bool = False,
    ) -> Any:
        """Evaluate as RecBole does. In a test, evaluate by group of items too."""
        if not eval_data:
            return None
        checkpoint.note_data(self.config, eval_data)
        if load_best_model:
            file = model_file or self.saved_model_file
            state = checkpoint.load(Path(file), self.device)
            checkpoint.check_data(str(file), state["config"], self.config)
            self._load_model(state)
            self.logger.info(f"Loading model structure and parameters from {file}")
        by_group = not self._validating and self.config["single_spec"]
        item_groups = getattr(eval_data._dataset, "item_groups", dict)
        self.eval_collector.start(item_groups() if by_group else {})
        result = super().evaluate(eval_data, load_best_model=False, show_progress=show_progress)
        self.group_results = self.eval_collector.results_by_group(self.evaluator)
        if self.group_results:
            self.logger.info(f"test result: {result}")
            self.logger.info(results_table(result, self.group_results, protocol(self.config)))
        return result

    def save_pretrained_model(self, epoch: int, saved_model_file: str) -> None:
        """Write the checkpoint with which the second stage of RecBole's RaCT and S3Rec starts."""
        self._save_checkpoint(epoch, verbose=False, saved_model_file=saved_model_file)
        self.saved_model_file = saved_model_file

    def resume_checkpoint(self, resume_file: str) -> None:
        """Continue from a checkpoint of this package: model, optimisers, schedule, generators."""
        state = checkpoint.load(Path(resume_file), self.device)
        if state["config"]["model"] != self.config["model"]:
            raise ValueError(
                f"{resume_file}: must be a checkpoint of {self.config['model']}, "
                f"got one of {state['config']['model']}; pass the file of the same model."
            )
        checkpoint.check_data(resume_file, state["config"], self.config)
        self._resumed = (resume_file, state["config"])
        self.saved_model_file = str(resume_file)
        self.start_epoch = state["epoch"] + 1
        self.cur_step = state["cur_step"]
        self.best_valid_score = state["best_valid_score"]
        self.best_valid_result = self._valid_result = state["best_valid_result"]
        self._load_model(state)
        self.optimizer.load_state_dict(state["optimizer"])
        checkpoint.set_random_state(state["random"])
        shuffle = state["shuffle"]
        self._shuffle_state = None if shuffle is None else shuffle.cpu()
        self._load_training(state)
        self.logger.info(f"Checkpoint loaded. Resume training from epoch {self.start_epoch}")

    def _train_epoch(
        self, train_data: Any, epoch_idx: int, loss_func: Any = None, show_progress: bool = False
    ) -> Any:
        start, self._epoch, self._batches = perf_counter(), epoch_idx, 0
        loss = super()._train_epoch(train_data, epoch_idx, loss_func, show_progress)
        entry = {"epoch": epoch_idx, "seconds": perf_counter() - start, "loss": self._terms(loss)}
        self.history.append(entry)
        return loss

    def _check_nan(self, loss: Tensor) -> None:
        self._batches += 1
        if torch.isfinite(loss):
            return
        raise ValueError(
            f"{self.config['model']}: every loss term must be finite, got {self._last_terms(loss)} "
            f"in batch {self._batches} of epoch {self._epoch}; lower learning_rate, or look for "
            "extreme values in the features."
        )

    def _last_terms(self, loss: Tensor) -> dict[str, float]:
        """Loss of the present batch by term."""
        return {"loss": loss.item()}

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
        return score, self._valid_result

    def _save_checkpoint(self, epoch: int, verbose: bool = True, **kwargs: Any) -> None:
        if not self.config["single_spec"] and self.config["local_rank"] != 0:
            return
        file = Path(kwargs.pop("saved_model_file", self.saved_model_file))
        model = self.config.model_class
        state = {
            "config": checkpoint.config_state(self.config),
            "model_class": registry.address(model) if registry.is_outside(model) else None,
            "written_by": checkpoint.written_by(self.config),
            "epoch": epoch,
            "cur_step": self.cur_step,
            "best_valid_score": float(self.best_valid_score),
            # RecBole saves the best epoch before it notes that epoch's result.
            "best_valid_result": checkpoint.plain(self._valid_result),
            "state_dict": self.model.state_dict(),
            "other_parameter": checkpoint.pack(self.model.other_parameter()),
            "optimizer": self.optimizer.state_dict(),
            "random": checkpoint.random_state(),
            "shuffle": None if self._shuffle is None else self._shuffle.get_state(),
            **self._training_state(),
        }
        checkpoint.save(state, file)
        if verbose:
            self.logger.info(f"Saving current: {file}")

    def _load_model(self, state: dict[str, Any]) -> None:
        checkpoint.fill(self.model, state, self.config)

    def _training_state(self) -> dict[str, Any]:
        return {}

    def _load_training(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`_training_state` saved."""


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
            torch.optim.Adam(auxiliary, **model.auxiliary_options, fused=self._fused())
            if auxiliary
            else None
        )
        self._term_sums: dict[str, Tensor] = {}

    def _build_optimizer(self, **kwargs: Any) -> torch.optim.Optimizer:
        auxiliary = {id(parameter) for parameter in self.model.auxiliary_parameters()}
        main = [p for p in self.model.parameters() if id(p) not in auxiliary]
        kinds = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
        if self.learner in kinds:  # one fused pass over the large feature tables
            decay, rate = self.weight_decay, self.learning_rate
            return kinds[self.learner](main, lr=rate, weight_decay=decay, fused=self._fused())
        return super()._build_optimizer(params=main, **kwargs)

    def _fused(self) -> bool:
        return self.device.type == "cuda" or _version(torch.__version__) >= (2, 4)

    def _train_epoch(
        self, train_data: Any, epoch_idx: int, loss_func: Any = None, show_progress: bool = False
    ) -> Any:
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

    def _last_terms(self, loss: Tensor) -> dict[str, float]:
        return {name: term.item() for name, term in self.model.last_terms.items()}

    def _terms(self, loss: Any) -> dict[str, float]:
        return {name: total.item() for name, total in self._term_sums.items()}

    def _generate_train_loss_output(
        self, epoch_idx: int, s_time: float, e_time: float, losses: Any
    ) -> str:
        output = super()._generate_train_loss_output(epoch_idx, s_time, e_time, losses)
        terms = ", ".join(f"{name}: {total.item():.4f}" for name, total in self._term_sums.items())
        return f"{output} [{terms}]"

    def _training_state(self) -> dict[str, Any]:
        auxiliary = self.auxiliary_optimizer
        return {
            "scheduler": self.scheduler.state_dict(),
            "auxiliary_optimizer": None if auxiliary is None else auxiliary.state_dict(),
        }

    def _load_training(self, state: dict[str, Any]) -> None:
        self.scheduler.load_state_dict(state["scheduler"])
        if self.auxiliary_optimizer is not None:
            self.auxiliary_optimizer.load_state_dict(state["auxiliary_optimizer"])


def protocol(config: Any) -> str:
    """Text that belongs to a result: model, data, mask, imputation, test_mask, seed."""
    mask = config["missing_protocol"]
    if mask in ("random_items", "stratified"):
        mask = f"{config['missing_ratio']:.0%} {mask}"
    if mask == "file":
        mask = config["missing_file"]
    if config["new_items"] not in (None, "none"):
        mask = f"{mask}; new_items: {config['new_items']}"
    imputed = imputation_in_force(config, config.model_class)
    imputation = imputed.get("imputation", f"none ({config['model']} reads no modalities)")
    return (
        f"{config['model']} on {config['dataset']}; missing: {mask}; imputation: {imputation}; "
        f"test_mask: {config['test_mask']}; seed: {config['seed']}"
    )


def _version(text: str) -> tuple[int, int]:
    major, minor = text.split(".")[:2]
    return int(major), int(minor)
