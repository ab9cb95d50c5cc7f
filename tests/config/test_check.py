"""Names and values that a user set, without any model, data or RecBole."""

from __future__ import annotations

import pytest

from recbole_missing.config import check

ENDINGS = ("_features", "_ids")
RIGHT = {
    "missing_protocol": "none",
    "missing_ratio": 0.0,
    "valid_metric": "Recall@20",
    "metrics": ["Recall"],
    "topk": [20],
    "repeatable": False,
    "new_items": "none",
    "test_mask": "train_valid",
    "eval_args": {"split": {"RS": [0.8, 0.1, 0.1]}},
}


def refuse(*given, command_line=()):
    known = {"reg_weight", "epochs"}
    others = {"tau"}
    check.refuse_unknown("VBPR", given, known, others, command_line, {"image"}, ENDINGS)


def test_known_settings_pass_in_silence(caplog):
    refuse("reg_weight", "epochs")
    assert not caplog.records


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("reg_wieght", "Unknown setting 'reg_wieght'. Did you mean 'reg_weight'?"),
        ("imgae_ids", "Did you mean 'image'?"),
        ("zzyzx", "Unknown setting 'zzyzx'. Remove it"),
    ],
)
def test_unknown_settings_are_refused(key, message):
    with pytest.raises(ValueError, match=message.replace("?", r"\?")):
        refuse(key)


@pytest.mark.parametrize(("key", "line"), [("tau", ()), ("audio_ids", ()), ("zzyzx", ("zzyzx",))])
def test_harmless_settings_are_warned_of(caplog, key, line):
    refuse(key, command_line=line)
    assert f"VBPR: setting '{key}' is not known here" in caplog.text


def test_likeness_is_warned_of(caplog):
    given = ["metric", "seeds", "eval_users", "eval_user", "image_ids", "title_ids", "imgae_ids"]
    check.warn_of_likeness("Mine", given, {"eval_users"}, {"image"}, ENDINGS)
    first, second = (record.message for record in caplog.records)
    assert "'eval_user' is not a setting of recbole_missing. Did you mean 'eval_users'?" in first
    assert "'imgae_ids' is not a setting of recbole_missing. Did you mean 'image'?" in second


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"missing_protocol": "file", "missing_ratio": 0.5}, "missing_ratio: must be 0 or unset"),
        ({"valid_metric": "NDCG@20"}, "valid_metric: must be one of metrics"),
        ({"valid_metric": "Recall@10"}, "valid_metric: must be one of metrics"),
        ({"repeatable": True, "new_items": "stratified"}, "repeatable: must be False"),
        ({"eval_args": {"split": {"RS": [0.8, 0.2]}}}, "split RS must have three ratios"),
    ],
)
def test_settings_that_do_not_go_together(changes, message):
    check.check_together(RIGHT, RIGHT)
    with pytest.raises(ValueError, match=message):
        check.check_together({**RIGHT, **changes}, changes)
