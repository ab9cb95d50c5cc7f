"""RecBole's ``run_recbole`` in separate steps. It also returns results by group of items."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from logging import getLogger
from pathlib import Path
from typing import Any

from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.utils import get_environment, get_model, get_trainer, init_logger, init_seed

from recbole_missing import resume as resuming
from recbole_missing.atomic import FullDiskError
from recbole_missing.memory import fits, of_config


def run_recbole_missing(
    model: Any = None,
    dataset: str | None = None,
    config_file_list: list[str] | None = None,
    config_dict: dict[str, Any] | None = None,
    saved: bool = True,
    resume: str | Path | None = None,
) -> dict[str, Any]:
    """Train and test one model on one data set.

    Args:
        model: name, ``module:Class`` or class. RecBole's own general recommenders also get the
            defaults of this package, so that results can be compared. With
            ``plugin_defaults: False`` in ``config_dict`` they keep RecBole's defaults.
        dataset: name of the data set.
        config_file_list: YAML files; later ones win over earlier ones.
        config_dict: settings that win over the files. The command line wins over them.
        saved: keep the checkpoint of the best validation epoch, and test this epoch.
        resume: ``auto`` goes on with the same run where a killed process left it, or starts anew if
            there is none. A path goes on from this checkpoint. The result is that of an undisturbed
            run, on the CPU bit for bit. See ``checkpoint_every`` and :mod:`recbole_missing.resume`.

    Returns:
        What ``recbole.quick_start.run_recbole`` returns, and three more keys. They are
        ``test_result_by_group`` (group name -> metrics with all items as candidates),
        ``test_result_within_group`` (the same with only the items of the group as candidates) and
        ``checkpoint`` (path of the saved model, None if not saved).

    Raises:
        ValueError: before training, if settings or data are wrong, or if the checkpoint is not one
            of this run. In training, if the loss is no number.
    """
    # 1. configuration, 2. log
    settings = {"plugin_defaults": True, **(config_dict or {})}
    config = Config(model, dataset, config_file_list, settings)
    init_logger(config)
    getLogger().info(sys.argv)
    getLogger().info(config)
    run = prepare(config, saved)
    with _naming_checkpoint(run.trainer), resuming.kept(run, resume) as last:
        # 7. training
        run.fit()
        getLogger().info("The running environment of this training is as follows:")
        getLogger().info("\n" + get_environment(config).draw())
        getLogger().info(f"best valid: {run.trainer.best_valid_result}")
        # 8. test
        result = run.test()
        if last is not None:
            last.remove()
    return {
        "best_valid_score": run.trainer.best_valid_score,
        "valid_score_bigger": config["valid_metric_bigger"],
        "best_valid_result": run.trainer.best_valid_result,
        "test_result": result,
        "test_result_by_group": run.trainer.group_results,
        "test_result_within_group": run.trainer.within_group_results,
        "checkpoint": run.trainer.saved_model_file if saved else None,
    }


@contextmanager
def _naming_checkpoint(trainer: Any) -> Iterator[None]:
    """Let an interrupt and a full disk say which checkpoint is left."""
    try:
        yield
    except FullDiskError as error:
        last = resuming.last_checkpoint()
        if last is not None:
            error.args = (f"{error} Then the same command with --resume=auto goes on from {last}.",)
        raise
    except KeyboardInterrupt as stop:
        file = Path(trainer.saved_model_file)
        found = f"the best epoch so far is in {file}" if file.is_file() else "no epoch was saved"
        last = resuming.last_checkpoint()
        if last is not None:
            found += f"; the same command with --resume=auto goes on from {last}"
        raise KeyboardInterrupt(found) from stop


@dataclass(frozen=True)
class Run:
    """A model with everything that is needed to train and test it.

    Args:
        config: RecBole's config.
        train_data, valid_data, test_data: RecBole's dataloaders; ``train_data._dataset`` is the
            training split.
        trainer: RecBole's trainer, which holds the model.
        saved: keep the checkpoint of the best validation epoch, and test this epoch.
    """

    config: Any
    train_data: Any
    valid_data: Any
    test_data: Any
    trainer: Any
    saved: bool

    def fit(self) -> None:
        """Train. The test split is not used."""
        self.trainer.fit(
            self.train_data,
            self.valid_data,
            saved=self.saved,
            show_progress=self.config["show_progress"],
        )

    def test(self) -> Any:
        """Test, and return metric -> value on the test split."""
        return self.trainer.evaluate(
            self.test_data,
            load_best_model=self.saved,
            show_progress=self.config["show_progress"],
        )


def prepare(config: Any, saved: bool = True) -> Run:
    """Do all steps between configuration and training.

    Raises:
        ValueError: if the data are wrong.
    """
    logger = getLogger()
    # 3. seed and data set, 4. splits, mask and imputation
    init_seed(config["seed"], config["reproducibility"])
    with fits(f"data set {config['dataset']!r}: its tables and features", {}):
        data = create_dataset(config)
        logger.info(data)
        train_data, valid_data, test_data = data_preparation(config, data)
    # 5. model, 6. trainer
    init_seed(config["seed"] + config["local_rank"], config["reproducibility"])
    with fits(f"{config['model']}: the model", of_config(config, "embedding_size", "knn_k")):
        network = get_model(config["model"])(config, train_data._dataset).to(config["device"])
    logger.info(network)
    trainer = get_trainer(config["MODEL_TYPE"], config["model"])(config, network)
    return Run(config, train_data, valid_data, test_data, trainer, saved)
