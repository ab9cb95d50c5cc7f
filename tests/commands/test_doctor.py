"""What the docstrings say is what `doctor` and the reference show."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from recbole_missing import cli, environment
from recbole_missing.baseline import BASELINES
from recbole_missing.commands import doctor
from recbole_missing.imputation import IMPUTERS
from recbole_missing.model import MODELS

ROOT = Path(__file__).resolve().parents[2]
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
