"""What RecBole's own settings may be, so that a wrong value is refused before data are read.

RecBole looks at most of its settings only where it uses them. A wrong value then ends in an error
of Python after the data are read, after the first epoch, or nowhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from recbole_missing.config.constraints import (
    Bool,
    Choice,
    Either,
    Float,
    Int,
    Keys,
    ListOf,
    MapOf,
    Matching,
    Optional,
    Text,
    check,
)

_WORDS = Optional(ListOf(Text()))


class _Ratios:
    """Three positive numbers in a list, for RecBole takes no tuple."""

    def accepts(self, value: Any) -> bool:
        right = isinstance(value, list) and len(value) == 3 and all(map(Float(0).accepts, value))
        return right and 0 not in value

    def __str__(self) -> str:
        return "a list of three numbers > 0 (for training, validation and test)"


_RATIOS = _Ratios()
_MODE = Matching(r"full|labeled|(uni|pop)[1-9]\d*", "full, labeled, uniN or popN (N: a number)")

OF_EVALUATION = {
    "metrics": Either(Text(), ListOf(Text(), empty=False)),
    "topk": Either(Int(min=1), ListOf(Int(min=1), empty=False)),
    "valid_metric": Text(),
    "valid_metric_bigger": Bool(),
    "eval_batch_size": Int(min=1),
    "metric_decimal_place": Int(min=0, max=15),
    "repeatable": Bool(),
    "tail_ratio": Optional(Float(min=0)),
}
"""RecBole's settings of the evaluation, beside ``eval_args``."""

EVAL_ARGS = {
    "split": Keys({"RS": _RATIOS, "LS": Choice("valid_and_test"), "TS": _RATIOS}),
    "order": Choice("RO", "TO"),
    "group_by": Optional(Choice("user", "none", "None")),
    "mode": Either(_MODE, Keys({"valid": _MODE, "test": _MODE})),
}
"""Keys of ``eval_args``. Every split must leave pairs to train on, to validate and to test."""

OF_RUNS = {
    "gpu_id": Either(
        Either(Int(min=-1), ListOf(Int(min=0))),
        Matching(r"(|-1|(\d+|(GPU|MIG)-[\w-]+)(, ?(\d+|(GPU|MIG)-[\w-]+))*)", "'0', '0,1' or ''"),
    ),
    "use_gpu": Bool(),
    "worker": Int(min=0, max=1024),
    "seed": Int(min=0, max=2**32 - 1),
    "state": Optional(Text()),
    "reproducibility": Bool(),
    "data_path": Text(),
    "checkpoint_dir": Text(),
    "show_progress": Bool(),
    "save_dataset": Bool(),
    "dataset_save_path": Optional(Text()),
    "save_dataloaders": Bool(),
    "dataloaders_save_path": Optional(Text()),
    "log_wandb": Bool(),
    "wandb_project": Text(),
    "shuffle": Bool(),
    "nproc": Int(min=1),
    "world_size": Int(),
    "offset": Int(min=0),
    "ip": Text(),
    "port": Either(Text(), Int(min=0, max=65535)),
}
"""RecBole's settings of a run and its machine."""

OF_TRAINING = {
    "learner": Choice("adam", "adamw", "sgd", "adagrad", "rmsprop"),
    "learning_rate": Float(min=0),
    "weight_decay": Float(min=0),
    "epochs": Int(min=0),
    "train_batch_size": Int(min=1),
    "eval_step": Int(min=0),
    "stopping_step": Int(min=0),
    "clip_grad_norm": Optional(
        Keys(
            {
                "max_norm": Float(min=0),
                "norm_type": Either(Float(), Choice("inf")),
                "error_if_nonfinite": Bool(),
                "foreach": Optional(Bool()),
            },
            needed=("max_norm",),
        )
    ),
    "loss_decimal_place": Optional(Int(min=0, max=15)),
    "require_pow": Bool(),
    "enable_amp": Bool(),
    "enable_scaler": Bool(),
    "transform": Optional(Text()),
    "train_neg_sample_args": Optional(
        Keys(
            {
                "distribution": Optional(Choice("uniform", "popularity", "none", "None")),
                "sample_num": Either(Int(min=1), Choice("none")),
                "alpha": Either(Float(min=0, max=10), Choice("none")),
                "dynamic": Bool(),
                "candidate_num": Int(min=0),
            }
        )
    ),
}
"""RecBole's settings of the training as our own models need them; others may take other values."""

OF_DATA = {
    **dict.fromkeys(("field_separator", "seq_separator", "NEG_PREFIX"), Text()),
    **dict.fromkeys(("USER_ID_FIELD", "ITEM_ID_FIELD"), Text()),
    **dict.fromkeys(("RATING_FIELD", "TIME_FIELD", "LABEL_FIELD"), Optional(Text())),
    "unused_col": Optional(MapOf(ListOf(Text()))),
    "seq_len": Optional(MapOf(Int(min=1))),
    "numerical_features": _WORDS,
    "additional_feat_suffix": Optional(Either(Text(), ListOf(Text()))),
    "filter_inter_by_user_or_item": Bool(),
    **{f"alias_of_{kind}_id": _WORDS for kind in ("user", "item", "entity", "relation")},
    "preload_weight": Optional(MapOf(Text())),
    "normalize_field": _WORDS,
    "normalize_all": Optional(Bool()),
    "discretization": Optional(MapOf(MapOf(Either(Text(), Int(min=1))))),
    "encoding": Optional(Text()),
}
"""RecBole's settings of the data; :mod:`.data.interactions` judges those of columns and filters."""

OF_OUR_MODELS = {**OF_RUNS, **OF_TRAINING, **OF_DATA}
"""RecBole's settings that our own models depend on, beside those of the evaluation."""

DERIVED = {
    "device": "gpu_id ('' for the CPU)",
    "single_spec": "nproc",
    "local_rank": "nproc",
    "eval_type": "metrics",
    "valid_neg_sample_args": "mode of eval_args",
    "test_neg_sample_args": "mode of eval_args",
    "MODEL_TYPE": "model",
    "MODEL_INPUT_TYPE": "model",
    "neg_sampling": "train_neg_sample_args",
    "training_neg_sample_num": "train_neg_sample_args",
}
"""Settings that RecBole overwrites or no longer reads -> what to set in their place."""

UNLISTED = ("encoding", "tail_ratio", "verbose")
"""Settings that RecBole reads for every model and names in none of its lists."""


def check_evaluation(model: str, values: Mapping[str, Any]) -> None:
    """Refuse values of ``eval_args`` and of :data:`OF_EVALUATION` that RecBole cannot use.

    Args:
        model: its name, first word of the message.
        values: every setting of the run, before RecBole derives others from them.

    Raises:
        ValueError: naming the setting.
    """
    check(model, values, {key: OF_EVALUATION[key] for key in OF_EVALUATION if key in values})
    given: Any = values.get("eval_args")
    # RecBole reads neither split nor order where the files are split already.
    split_already = values.get("benchmark_filename") is not None
    unread = ("split", "order", "group_by") if split_already and isinstance(given, Mapping) else ()
    content = {key: v for key, v in given.items() if key not in unread} if unread else given
    check(model, {"eval_args": content}, {"eval_args": Keys(EVAL_ARGS)})
    split = content.get("split") if content else None
    if split is not None and len(split) != 1:
        raise ValueError(
            f"{model}: eval_args: split must have exactly one of RS, LS and TS, got {split}."
        )


def check_training(model: str, values: Mapping[str, Any]) -> None:
    """Refuse values of :data:`OF_TRAINING` that do not go together.

    Raises:
        ValueError: naming the setting.
    """
    negatives = values.get("train_neg_sample_args") or {}
    if negatives.get("dynamic") and not negatives.get("candidate_num"):
        raise ValueError(
            f"{model}: train_neg_sample_args: candidate_num must be an int >= 1 with dynamic: "
            "True, got 0; set it."
        )


def check_derived(model: str, given: Mapping[str, Any]) -> None:
    """Refuse settings that RecBole takes without a word and then overwrites or ignores.

    Raises:
        ValueError: naming the setting to set in its place.
    """
    for key in given:
        if key in DERIVED and not (key == "local_rank" and "nproc" in given):
            raise ValueError(
                f"{model}: {key} must be left out, because RecBole makes it itself; set "
                f"{DERIVED[key]}."
            )
