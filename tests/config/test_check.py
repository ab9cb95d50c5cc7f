"""Names and values that a user set, without any model, data or RecBole."""

from __future__ import annotations

import pytest

from recbole_missing.config import check

ENDINGS = ("_features", "_ids", "_dim")
SOURCES = ("_features",)
RIGHT = {
    "missing_protocol": "none",
    "missing_ratio": 0.0,
    "repeatable": False,
    "new_items": "none",
    "test_mask": "train_valid",
}


def refuse(*given, command_line=(), modalities=("image", "audio")):
    known = {"reg_weight", "epochs", "embedding_size"}
    others = {"tau"}
    check.refuse_unknown(
        "VBPR", given, known, others, command_line, set(modalities), ENDINGS, SOURCES
    )


def test_known_settings_pass_in_silence(caplog):
    refuse("reg_weight", "epochs")
    assert not caplog.records


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("reg_wieght", "Unknown setting 'reg_wieght'. Did you mean 'reg_weight'?"),
        ("imgae_ids", "Did you mean 'image'?"),
        ("zzyzx", "Unknown setting 'zzyzx'. Remove it"),
        ("embedding_dim", "Unknown setting 'embedding_dim'. Did you mean 'embedding_size'?"),
        ("smell_ids", r"Unknown setting 'smell_ids'. 'smell' is not in modalities \['audio', 'im"),
    ],
)
def test_unknown_settings_are_refused(key, message):
    with pytest.raises(ValueError, match=message.replace("?", r"\?")):
        refuse(key)


@pytest.mark.parametrize("key", ["tau", "audio_ids", "audio_dim"])
def test_harmless_settings_are_warned_of(caplog, key):
    refuse(key)
    assert f"VBPR: setting '{key}' is not known here" in caplog.text


@pytest.mark.parametrize("modalities", [(), ("image",)])
def test_settings_of_a_modality_whose_source_is_given_are_harmless(caplog, modalities):
    refuse("smell_ids", "smell_features", "smell_dim", modalities=modalities)
    assert "VBPR: setting 'smell_ids' is not known here" in caplog.text
    with pytest.raises(ValueError, match="Did you mean 'embedding_size'"):
        refuse("embedding_dim", "smell_features", modalities=modalities)
    with pytest.raises(ValueError, match="Unknown setting 'imgae_features'. Did you mean 'image'"):
        refuse("imgae_features", "imgae_dim")


def test_the_command_line_excuses_nothing():
    with pytest.raises(ValueError, match="Unknown setting 'foo'. .* the whole command line of a"):
        refuse("foo", command_line=("foo",))


def test_likeness_is_warned_of(caplog):
    given = ["metric", "seeds", "eval_users", "eval_user", "image_ids", "title_ids", "imgae_ids"]
    known = {"eval_users", "seed"}
    check.warn_of_likeness("Mine", given, known, {"eval_users"}, {"image"}, ENDINGS)
    first, second = (record.message for record in caplog.records)
    neither = "is a setting of neither RecBole nor recbole_missing. Did you mean"
    assert first == f"Mine: 'eval_user' {neither} 'eval_users'?"
    assert second == f"Mine: 'imgae_ids' {neither} 'image'?"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"missing_protocol": "file", "missing_ratio": 0.5}, "missing_ratio: must be 0 or unset"),
        ({"missing_protocol": "random_items"}, "missing_ratio: must be set with .* random_items"),
        ({"missing_protocol": "stratified"}, "missing_ratio: must be set with .* stratified"),
        ({"repeatable": True, "new_items": "stratified"}, "repeatable: must be False"),
    ],
)
def test_settings_that_do_not_go_together(changes, message):
    check.check_together(RIGHT, RIGHT)
    with pytest.raises(ValueError, match=message):
        check.check_together({**RIGHT, **changes}, changes)


@pytest.mark.parametrize("protocol", ["random_items", "stratified"])
def test_a_ratio_of_zero_that_is_meant_is_right(protocol):
    given = {"missing_protocol": protocol, "missing_ratio": 0}
    check.check_together({**RIGHT, **given}, given)
    ratio_of_the_data_set = {**RIGHT, "missing_protocol": protocol, "missing_ratio": 0.4}
    check.check_together(ratio_of_the_data_set, {"missing_protocol": protocol})
