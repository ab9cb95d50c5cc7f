"""The generated reference holds everything that is declared; the pictures are those of the code."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from recbole_missing import cli
from recbole_missing.config import defaults
from recbole_missing.data.sources import modality_settings
from recbole_missing.imputation import IMPUTERS, imputer_settings
from recbole_missing.model import MODELS
from recbole_missing.run_settings import package_settings

DOCS = Path(__file__).resolve().parents[1] / "docs"


def loaded(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


declared = loaded(DOCS / "declared.py")
SETTINGS, COMMANDS = declared.settings(), declared.commands()


def rows(text: str) -> dict[str, list[str]]:
    """First cell -> cells, for the rows of all tables."""
    cells = (re.split(r"(?<!\\)\|", line)[1:-1] for line in text.splitlines() if line[:1] == "|")
    return {row[0].strip().strip("`"): [cell.strip() for cell in row] for row in cells}


def section(heading: str) -> str:
    """Text below a heading, up to the next one."""
    return SETTINGS.split(f"\n{heading}\n")[1].split("\n#")[0]


def test_every_setting_of_a_run_is_there() -> None:
    general = rows(SETTINGS.split("\n## ")[0])
    overall = defaults.overall()
    assert set(overall) <= set(general)
    assert set(package_settings()) <= set(general)
    for key, (_, must_be, default, meaning, reader) in general.items():
        if key in overall:
            assert must_be and meaning and reader, key
            assert default.strip("`") == declared.yaml_text(overall[key])
    for name in IMPUTERS:
        for key in imputer_settings(name):
            assert f"`{name}`" in general[key][4]


def test_every_setting_of_a_modality_is_explained() -> None:
    found = rows(section("## Settings of a modality"))
    for key in modality_settings("NAME"):
        _, must_be, meaning, source = found[key]
        assert must_be and meaning and source, f"{key}: add it to the glossary of overall.yaml"


@pytest.mark.parametrize("name", MODELS)
def test_every_setting_of_a_model_is_explained(name: str) -> None:
    found = rows(section(f"### {name}"))
    for key, rule in MODELS[name].hyperparameters.items():
        assert found[key][1].replace("\\|", "|") == str(rule)
        assert found[key][3] not in ("", "RecBole's setting"), key
    presets = defaults.read("model", name).get("presets", {})
    assert set(presets) <= set(found)


def test_a_preset_says_what_belongs_to_a_number_of_modalities() -> None:
    (_, values) = rows(section("### MILK"))["tiktok"]
    assert values.endswith(
        "`stopping_step: 20`; with 2 modalities `normalise_features: True`; "
        "with 3 modalities `normalise_features: False`"
    )


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_is_there(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main([name, "--help"])
    options = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", capsys.readouterr().out)) - {"--help"}
    text = COMMANDS.split(f"## recbole-missing {name}\n")[1].split("\n## ")[0]
    assert options <= set(re.findall(r"--[a-z][\w-]*", text))


def test_the_pages_have_the_marks() -> None:
    for name in declared.GENERATED:
        page = (DOCS / "reference" / f"{name}.md").read_text(encoding="utf-8")
        filled = declared.fill(page)
        assert "generated:" not in filled and len(filled) > len(page) + 1000


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_pictures_are_those_of_the_code(tmp_path: Path) -> None:
    """Words and numbers; matplotlib's own lines differ between its versions."""
    draw = loaded(DOCS / "pictures" / "draw.py")
    for name, picture in draw.PICTURES.items():
        picture(tmp_path / name)
        drawn, committed = (
            re.findall(r"<text[^>]*>(.+?)</text>", path.read_text(encoding="utf-8"))
            for path in (tmp_path / name, DOCS / "pictures" / name)
        )
        assert drawn == committed, f"{name}: run docs/pictures/draw.py"
        assert len(drawn) > 5


def test_the_defaults_of_encoders_are_written_out() -> None:
    found = rows(section("## Settings of a modality"))
    assert found["NAME_dim"][2].endswith("default: `64`")
    assert "`all-MiniLM-L6-v2` (sentence), `clip-ViT-B-32` (clip)" in found["NAME_model"][2]
    assert "encoders.yaml" not in SETTINGS


def test_nothing_of_the_help_is_lost_as_a_tag_of_html() -> None:
    for text in (COMMANDS, SETTINGS):
        shown = re.sub(r"`[^`]*`", "", text)  # code shows what it holds
        assert not re.findall(r"(?<!\\)<[^<>]*>", shown)
    assert r"\<modality>" in COMMANDS
    conf = (DOCS / "conf.py").read_text(encoding="utf-8")
    assert "\nsmartquotes = False" in conf, "-- becomes a dash"
