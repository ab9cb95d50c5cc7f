"""Every setting, ours and RecBole's, with values of every wrong kind: one line that names it."""

from __future__ import annotations

import copy
import datetime
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import recbole
from folders import AT_WORK, tiny_content
from folders import workplace as workplace
from recbole.config import Config
from recbole.evaluator import register

from recbole_missing import IMPUTERS, MODELS, run_recbole_missing, run_settings
from recbole_missing.cli import is_refusal
from recbole_missing.config import check, of_recbole
from recbole_missing.config.constraints import Keys
from recbole_missing.data.names import recbole_settings
from recbole_missing.data.sources import modality_settings
from recbole_missing.imputation import imputer_settings

pytestmark = AT_WORK
WRONG = (
    None, "a word", "", [], [1], ["a"], [None], {}, {"a": 1}, True, -1, 0, 1.5, -0.5, math.inf,
    math.nan, 2**64, -(2**64), datetime.date(2020, 1, 1), b"x", {1, 2}, object(), np.ones(2),
)  # fmt: skip
FEW = (None, "a word", [1], {"a": 1}, True, -1, math.nan, 2**64)
RANKING = sorted(n for n, kind in register.metric_types.items() if kind.name == "RANKING")
OF_PAIRS = sorted(n for n, kind in register.metric_types.items() if kind.name == "VALUE")


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, Any]:
    """Settings of a short run on the tiny data set; its files are never read."""
    return tiny_content().write(tmp_path / "dataset")


def said(model: Any, settings: Mapping[str, Any], config: Any = None) -> str:
    """What is said of settings that are refused; empty if they are taken.

    Args:
        model: name of the model.
        settings: all settings; or, with a config, those that are put into it.
        config: an old config that is checked again, which is fast; None makes a new one.
    """
    try:
        if config is None:
            Config(model, config_dict=dict(settings))
        else:
            again = copy.copy(config)
            again.__dict__["final_config_dict"] = {**config.final_config_dict, **settings}
            run_settings.check_config(again)
    except Exception as error:
        assert isinstance(error, ValueError) and is_refusal(error), f"{error!r} is no refusal"
        module = error.__traceback__
        while module.tb_next is not None:
            module = module.tb_next
        assert module.tb_frame.f_globals["__name__"].startswith("recbole_missing."), repr(error)
        assert "\n" not in str(error)
        return str(error)
    return ""


def refuse_all_wrong(
    model: str,
    settings: dict[str, Any],
    declared: Mapping[str, Any],
    values: Any = WRONG,
    config: Any = None,
) -> None:
    for key, constraint in declared.items():
        wrong = [value for value in values if not constraint.accepts(value)]
        assert len(wrong) >= len(values) * 0.4, f"{key}: {constraint} takes almost everything"
        for value in wrong:
            given = {key: value} if config else {**settings, key: value}
            message = said(model, given, config)
            assert re.search(rf"\b{key}\b", message), f"{model} {key}={value!r}: {message!r}"


@pytest.mark.parametrize("model", MODELS)
def test_settings_of_every_model(settings: dict[str, Any], model: str) -> None:
    declared = MODELS[model].hyperparameters
    refuse_all_wrong(model, {}, declared, config=Config(model, config_dict=settings))
    key = next(iter(declared))  # the way through a new config is the same for all
    refuse_all_wrong(model, settings, {key: declared[key]}, FEW)


@pytest.mark.parametrize("imputer", IMPUTERS)
def test_settings_of_every_imputer(settings: dict[str, Any], imputer: str) -> None:
    config = Config("VBPR", config_dict={**settings, "imputation": imputer})
    refuse_all_wrong("VBPR", {}, imputer_settings(imputer), config=config)


@pytest.mark.parametrize("model", ["VBPR", "BPR"])
def test_settings_of_data_and_modalities(settings: dict[str, Any], model: str) -> None:
    declared = {**run_settings.package_settings(), **modality_settings("image")}
    if model == "BPR":  # it may have settings of its own by these names
        for key in ("preset", "learning_rate_scheduler"):
            del declared[key]
    refuse_all_wrong(model, settings, declared)


@pytest.mark.parametrize("model", ["VBPR", "BPR"])
def test_settings_of_recbole(settings: dict[str, Any], model: str) -> None:
    declared = {**of_recbole.OF_EVALUATION, **of_recbole.OF_RUNS, **of_recbole.OF_DATA}
    declared["eval_args"] = Keys(of_recbole.EVAL_ARGS)
    if model == "BPR":
        refuse_all_wrong(model, settings, of_recbole.OF_EVALUATION, FEW)
    else:
        refuse_all_wrong(model, settings, {**declared, **of_recbole.OF_TRAINING}, FEW)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"valid_metric": "Recall"}, "at one of topk [5, 10] (Recall@5, Recall@10, NDCG@5, NDCG@1"),
        ({"valid_metric": "Recall@7"}, "got 'Recall@7'"),
        ({"valid_metric": "Recall@x"}, "got 'Recall@x'"),
        ({"valid_metric": "Recall@"}, "got 'Recall@'"),
        ({"valid_metric": "Hit@5"}, "got 'Hit@5'"),
        ({"metrics": "GAUC", "valid_metric": "GAUC@5"}, "(GAUC), got 'GAUC@5'"),
        ({"metrics": ["Recall", "AUC"]}, "got Recall (of rankings) and AUC (of pairs)"),
        ({"metrics": ["Recal"]}, "metrics: Unknown metric 'Recal'. Did you mean 'Recall'"),
        ({"eval_args": {"mode": "labeled"}}, "got labeled, which ranks nothing"),
        ({"eval_args": {"mode": {"test": "labeled"}}}, "got labeled, which ranks nothing"),
        ({"metrics": "RMSE", "valid_metric": "RMSE"}, "mode must be labeled, uniN or popN with RM"),
        (
            {"metrics": "AUC", "valid_metric": "AUC", "eval_args": {"mode": "labeled"}},
            "must have labels, got no threshold, and no 'label' in load_col",
        ),
        (
            {
                "metrics": "ItemCoverage",
                "valid_metric": "itemcoverage@5",
                "eval_args": {"mode": "uni7"},
            },
            "topk: must be at most the candidates of a user (8 with mode uni7)",
        ),
        ({"eval_args": {"mode": "uni"}}, "mode must be full, labeled, uniN or popN"),
        ({"eval_args": {"mode": "uni0"}}, "mode must be full, labeled, uniN or popN"),
        ({"eval_args": {"mode": "pop-3"}}, "mode must be full, labeled, uniN or popN"),
        ({"eval_args": {"mode": {"tset": "full"}}}, "keys of valid, test, got {'tset': 'full'}"),
        ({"eval_args": {"splits": 1}}, "eval_args: Unknown key 'splits'. Did you mean 'split'"),
        ({"eval_args": {"split": None}}, "split must be a mapping with keys of RS, LS, TS"),
        ({"eval_args": {"split": {}}}, "split must have exactly one of RS, LS and TS, got {}"),
        ({"eval_args": {"split": {"RS": [0.8, 0.2]}}}, "RS must be a list of three numbers > 0"),
        ({"eval_args": {"split": {"RS": [0.8, 0.2, 0]}}}, "RS must be a list of three numbers"),
        ({"eval_args": {"split": {"RS": [0.8, -0.1, 0.1]}}}, "RS must be a list of three numbers"),
        ({"eval_args": {"split": {"RS": ["8", "1", "1"]}}}, "RS must be a list of three numbers"),
        ({"eval_args": {"split": {"RS": "8:1:1"}}}, "RS must be a list of three numbers"),
        ({"eval_args": {"split": {"LS": "valid_and_tset"}}}, "LS must be 'valid_and_test', got"),
        ({"eval_args": {"split": {"LS": "test_only"}}}, "LS must be 'valid_and_test', got"),
        ({"eval_args": {"split": {"SR": [1, 1, 1]}}}, "Unknown key 'SR'"),
        ({"eval_args": {"order": "TR"}}, "order must be one of RO, TO, got 'TR'"),
        ({"eval_args": {"group_by": "item"}}, "group_by must be one of user, none, None, or empty"),
        ({"train_neg_sample_args": {"sample_nums": 2}}, "Did you mean 'sample_num'"),
        ({"train_neg_sample_args": {"sample_num": 0}}, "sample_num must be an int >= 1"),
        (
            {"train_neg_sample_args": {"distribution": "zipf"}},
            "distribution must be one of un",
        ),
        ({"train_neg_sample_args": {"dynamic": True}}, "candidate_num must be an int >= 1 with dy"),
        ({"clip_grad_norm": {"max": 1}}, "clip_grad_norm: Unknown key 'max'"),
        ({"clip_grad_norm": {"norm_type": 2}}, "max_norm must be a number >= 0, got none; add it"),
        ({"device": "cpu"}, "device must be left out, because RecBole makes it itself; set gpu_id"),
        ({"neg_sampling": {"uniform": 1}}, "set train_neg_sample_args"),
        ({"local_rank": 0}, "local_rank must be left out, because RecBole makes it itself"),
        (
            {"toy_date": datetime.date(2020, 1, 1)},
            "toy_date must be a number, text, True, False, or",
        ),
        ({"toy": {"a": [np.ones(2)]}}, "got array([1., 1.]) (ndarray); write it as text"),
    ],
)
@pytest.mark.parametrize("model", ["VBPR", "BPR"])
def test_what_no_evaluation_or_training_can_use(
    settings: dict[str, Any], model: str, changes: dict[str, Any], message: str
) -> None:
    of_training = {"train_neg_sample_args", "clip_grad_norm", *of_recbole.DERIVED}
    if model == "BPR" and of_training & changes.keys():
        return  # whatever RecBole's own models make of it
    assert message in said(model, {**settings, "benchmark_filename": None, **changes})


def test_right_values_in_other_words(settings: dict[str, Any]) -> None:
    for changes in (
        {"valid_metric": "recall@10"},
        {"metrics": "recall", "topk": 5},
        {"topk": (5, 10)},
        {"metrics": ["GAUC", "Recall"], "valid_metric": "gauc"},
        {"eval_args": {"group_by": None, "split": {"TS": [8, 1, 1]}}, "benchmark_filename": None},
        {"eval_args": {"mode": {"valid": "uni5", "test": "full"}}},
        {"eval_args": {"split": {"LS": "test_only"}}},  # not read: the files are split already
        {"learner": "AdamW", "gpu_id": "", "clip_grad_norm": {"max_norm": 1.0}},
        {"checkpoint_dir": Path("saved")},
    ):
        assert not said("VBPR", {**settings, **changes}), changes
    assert Config("VBPR", config_dict={**settings, "gpu_id": [0, 1]})["gpu_id"] == "0,1"
    assert (
        Config("VBPR", config_dict={**settings, "checkpoint_dir": Path("a")})["checkpoint_dir"]
        == "a"
    )


def test_a_setting_that_no_checkpoint_holds_is_said_for_plain_recbole(
    settings: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    plain = {key: value for key, value in settings.items() if key != "modalities"}
    Config("BPR", config_dict={**plain, "toy_date": datetime.date(2020, 1, 1)})
    words = "BPR: checkpoints will not hold what is no plain value: toy_date: datetime.date(2020"
    assert words in caplog.text


def test_model_and_data_set_must_be_names(settings: dict[str, Any]) -> None:
    assert said(None, {**settings, "model": 5}).startswith("model: must be a name, module:Class")
    assert said("VBPR", {**settings, "dataset": 5}).startswith("dataset: must be the name of a")


def test_every_metric_of_rankings_alone_and_all_together(settings: dict[str, Any]) -> None:
    def ran(metrics: list[str]) -> dict[str, float]:
        with_cut = register.metrics_dict[metrics[0]].metric_need != ["rec.meanrank"]
        valid = f"{metrics[0]}@5" if with_cut else metrics[0]
        words = {**settings, "metrics": metrics, "valid_metric": valid, "state": "ERROR"}
        return dict(run_recbole_missing("VBPR", config_dict=words)["test_result"])

    together = ran(RANKING)
    assert len(together) == 2 * len(RANKING) - 1, "all but GAUC have a value at each cut-off"
    alone = {key: value for name in RANKING for key, value in ran([name]).items()}
    # Which epoch is the best depends on the metric; here there is one epoch.
    assert alone == together and all(math.isfinite(value) for value in together.values())


@pytest.mark.parametrize("mode", ["uni5", "pop5", "labeled"])
def test_metrics_of_pairs_run_with_their_modes(settings: dict[str, Any], mode: str) -> None:
    words = {"metrics": OF_PAIRS, "valid_metric": "AUC", "eval_args": {"mode": mode}}
    model = "VBPR"
    if mode == "labeled":  # a model that reads labels, and no sampled negatives
        load = {"inter": ["user_id", "item_id", "timestamp"]}
        model, words["train_neg_sample_args"] = "NeuMF", None
        words |= {"load_col": load, "threshold": {"timestamp": 40}}
    result = run_recbole_missing(model, config_dict={**settings, **words})["test_result"]
    assert set(result) == set(OF_PAIRS) and 0 <= result["auc"] <= 1


# ------------------------------------------------------------------------------- RecBole's keys

FOLDER = Path(recbole.__file__).parent
_OF_ONE_KIND = {
    # of optional libraries, of knowledge graphs, and of trainers of single models
    "convert_token_to_onehot", "token_num_threshold", "warm_up_step", "train_rec_step",
    "train_kg_step", "save_step", "pretrain_epochs", "n_enc_epochs", "n_dec_epochs", "m_step",
    "kge_interval", "eta", "beta", "reg_weight",
    # of models that do not state what their batches hold
    "loss_type",
    # of the transforms of sequential models
    "mask_ratio", "ft_ratio",
}  # fmt: skip


def keys_that_recbole_reads() -> set[str]:
    """Every key that RecBole reads of a config, outside of its models."""
    read = re.compile(
        r"""\b(?:final_config_dict|config)(?:\[|\.get\(\s*)["'](\w+)["'](?!\]\s*=[^=])"""
    )
    files = [path for path in FOLDER.rglob("*.py") if "model" not in path.relative_to(FOLDER).parts]
    return {key for path in files for key in read.findall(path.read_text(encoding="utf-8"))}


def test_every_key_that_recbole_reads_is_known(settings: dict[str, Any]) -> None:
    keys = keys_that_recbole_reads()
    assert {"encoding", "tail_ratio", "topk", "worker", "transform", "NEG_PREFIX"} <= keys
    of_one = _OF_ONE_KIND | {key for key in keys if key.startswith(("xgb_", "lgb_"))}
    known = recbole_settings().union(of_recbole.DERIVED)
    of_transforms = {key for key in keys if key.isupper() and key not in known}
    assert of_transforms <= {"POS_ITEMS", "NEG_ITEMS", "MASK_ITEM_SEQ", "MASK_INDEX"}
    for key in sorted(keys - of_one - of_transforms):
        message = said("VBPR", {**settings, key: settings.get(key)})
        assert "Unknown setting" not in message, message
    assert of_one >= _OF_ONE_KIND & keys
    assert not (_OF_ONE_KIND & recbole_settings())


def test_a_setting_has_one_table() -> None:
    tables = (of_recbole.OF_EVALUATION, of_recbole.OF_OUR_MODELS, run_settings.package_settings())
    names = [name for table in tables for name in table]
    assert len(names) == len(set(names))
    assert not set(of_recbole.DERIVED) & set(names)
    assert set(check.OF_PACKAGE) <= set(run_settings.package_settings())


def test_settings_of_imputers_that_are_not_chosen_are_checked_too(settings: dict[str, Any]) -> None:
    for key, value in (("imputation_seed", "x"), ("imputation_l1", "x"), ("imputation_time", "x")):
        with pytest.raises(ValueError, match=f"VBPR: {key} must be "):
            Config("VBPR", "tiny", config_dict={**settings, "imputation": "featprop", key: value})
    Config("VBPR", "tiny", config_dict={**settings, "imputation": "mean", "imputation_seed": 3})
