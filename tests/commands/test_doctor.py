"""What the docstrings say is what `doctor` and the reference show."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from folders import in_new_process

from recbole_missing import cli, environment
from recbole_missing.baseline import BASELINES
from recbole_missing.commands import doctor
from recbole_missing.imputation import IMPUTERS
from recbole_missing.model import MODELS

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SETUP = (ROOT / "setup.py").read_text(encoding="utf-8")
REFERENCE = ROOT / "docs" / "reference"


@pytest.mark.parametrize("card", doctor.models(), ids=lambda card: card.name)
def test_a_model_card_is_complete(card: doctor.Card) -> None:
    assert all([card.idea, card.title, card.venue, card.url, card.needs, card.missing]), card
    assert card.venue[-4:].isdigit(), card.venue
    assert "|" not in "".join(vars(card).values())


@pytest.mark.parametrize("card", doctor.baselines(), ids=lambda card: card.name)
def test_a_card_of_a_replaced_model_is_complete(card: doctor.Card) -> None:
    assert all([card.title, card.venue, card.url]) and "RecBole's" in card.idea
    assert "|" not in "".join(vars(card).values())


def test_labels_end_where_the_next_paragraph_begins() -> None:
    text = 'A: does b.\n\nPaper: X, "T:\n    u", KDD 2024,\n    https://x.org\n\nArgs:\n    k: 1\n'
    found = doctor.labels(text)
    assert found == {"idea": "A: does b.", "Paper": 'X, "T: u", KDD 2024, https://x.org'}


def test_a_broken_installation_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "recbole.py").write_text("raise ImportError('no recbole')")
    folders = os.pathsep.join([str(tmp_path), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-c", "import recbole_missing; recbole_missing.run_recbole_missing"],
        env={**os.environ, "PYTHONPATH": folders},
        capture_output=True,
        text=True,
    )
    assert re.search(r"ImportError: recbole_missing: no recbole; \w+", done.stderr), done.stderr


WITHOUT_RECBOLE = """
import contextlib, io, sys
from importlib import metadata

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "recbole":
            raise ModuleNotFoundError("No module named 'recbole'")

def version(name, found=metadata.version):
    if name == "recbole":
        raise metadata.PackageNotFoundError(name)
    return found(name)

sys.meta_path.insert(0, Blocker())
metadata.version, metadata.requires = version, lambda name: ["torch>=2.0"]
from recbole_missing import cli
for words in (
    "run", "benchmark dgmrec_missing --quick", "recommend m.pth --users 0", "retrieve m.pth",
    "export mmrec x", "impute ml-100k", "report x.jsonl", "doctor",
):
    said, code = io.StringIO(), 0
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            cli.main(words.split())
    except SystemExit as stop:
        code = stop.code
    lines = said.getvalue().strip().splitlines()
    print(code, len(lines) == 1 or words == "doctor", lines[-1])
try:
    from recbole_missing import run_recbole_missing
except ImportError as error:
    print(2, True, error)
"""


def test_without_recbole_every_command_ends_in_the_line_that_brings_it(tmp_path: Path) -> None:
    (tmp_path / "m.pth").touch()
    lines = in_new_process(WITHOUT_RECBOLE, tmp_path).splitlines()
    assert len(lines) == 9
    for line in lines:
        assert line.startswith("1 True" if "not listed" in line else "2 True"), line
        assert line.endswith("No module named 'recbole'; MISSING recbole: " + INSTALL), line


def test_without_ray_its_option_ends_in_the_line_that_brings_it(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        cli.main(["benchmark", "dgmrec_missing", "--quick", "--only", "model=BPR", "--ray"])
    assert stopped.value.code == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: ") and last.endswith("run `pip install ray`."), last


INSTALL = "python -m pip install --no-deps recbole==1.2.1"


def test_the_one_command_is_written_the_same_everywhere() -> None:
    assert environment.INSTALL_RECBOLE == INSTALL
    assert README.count(INSTALL) >= 2  # to run, to test
    assert "recbole" not in re.findall(r'^    "([\w-]+)', SETUP, flags=re.MULTILINE)


def test_every_extra_has_a_use_and_a_state(monkeypatch: pytest.MonkeyPatch) -> None:
    block = SETUP.partition("extras_require={")[2].partition("\n    },")[0]
    assert re.findall(r'^        "(\w+)": ', block, flags=re.MULTILINE) == [*environment.EXTRAS]
    declared = ['pytest>=1; extra == "plot"', 'nowhere>=2; extra == "ray"', "numpy"]
    declared.append('pytest; python_version < "3" and extra == "docs"')
    monkeypatch.setattr(environment.metadata, "requires", lambda name: declared)
    assert environment.extras() == [
        (True, "plot    figures: ok"),
        (
            False,
            'ray     benchmark --ray, impute --ray: python -m pip install "nowhere>=2"',
        ),
    ]
    assert [line.split()[1] for _, line in environment.requirements()] == ["recbole", "numpy"]


def test_the_verdict_comes_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "problems", lambda: [])
    assert doctor.report().splitlines()[-1] == "Everything is there."
    monkeypatch.setattr(environment, "problems", lambda: ["WRONG   a 1: b", "MISSING c: d"])
    assert doctor.report().splitlines()[-2:] == ["WRONG   a 1: b", "MISSING c: d"]


@pytest.mark.parametrize("table", doctor.markdown().split("\n\n"))
def test_the_reference_shows_the_generated_tables(table: str) -> None:
    pages = [
        (REFERENCE / name).read_text(encoding="utf-8") for name in ("models.md", "imputers.md")
    ]
    assert sum(table in page for page in pages) == 1, "paste the output of `doctor --markdown`"


def test_doctor_lists_everything_and_checks_versions(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    declared = ["numpy<1", "torch>=2.0", "not-there>=1", 'pytest; extra == "test"']
    monkeypatch.setattr(environment.metadata, "requires", lambda name: declared)
    with pytest.raises(SystemExit) as stopped:
        cli.main(["doctor"])
    assert stopped.value.code == 1
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert {*MODELS, *BASELINES, *IMPUTERS} <= set(lines)
    assert any(line.startswith("WRONG") and 'pip install "numpy<1"' in line for line in lines)
    assert any(line.startswith("ok") and "torch" in line for line in lines)
    assert any(line.startswith("MISSING") and "not-there" in line for line in lines)
    assert not any("pytest" in line for line in lines)
