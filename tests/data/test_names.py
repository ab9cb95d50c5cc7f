"""Names of modalities: none whose settings mean something else in the run."""

from __future__ import annotations

import pytest
from folders import tiny_content
from recbole.config import Config

from recbole_missing import plugin
from recbole_missing.data.names import check_names, of_any_run
from recbole_missing.data.sources import modality_settings

CLASHES = [
    ("VBPR", "modality", "modality_scale"),
    ("VBPR", "numerical", "numerical_features"),
    ("MILK", "item", "item_scale"),
    ("DiffRec", "noise", "noise_scale"),
]


@pytest.mark.parametrize(("model", "name", "key"), CLASHES)
def test_a_run_refuses_a_modality_whose_setting_is_another_one(tmp_path, model, name, key):
    settings = tiny_content().write(tmp_path)
    settings.update({"modalities": [name], f"{name}_columns": "title", f"{name}_encoder": "text"})
    plugin.install()
    with pytest.raises(ValueError, match=f"modality '{name}': .* {key} is a setting already"):
        Config(model, "tiny", config_dict=settings)


@pytest.mark.parametrize("name", ["item", "noise"])
def test_a_name_is_free_where_the_model_has_no_such_setting(tmp_path, name):
    settings = tiny_content().write(tmp_path)
    settings.update({"modalities": [name], f"{name}_columns": "title", f"{name}_encoder": "text"})
    plugin.install()
    assert Config("VBPR", "tiny", config_dict=settings)["modalities"] == [name]


def test_names_in_use_are_free_everywhere():
    check_names(["image", "text", "audio", "video", "title", "tags", "numbers"], of_any_run())
    clashing = {key for name in ("item", "noise") for key in modality_settings(name)}
    assert clashing & of_any_run() == {"item_scale", "noise_scale"}
