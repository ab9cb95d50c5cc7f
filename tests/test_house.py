"""The house rules that a machine can check."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from helpers import PROPERTIES

from recbole_missing.config import defaults
from recbole_missing.imputation import IMPUTERS
from recbole_missing.model import MODELS
from recbole_missing.run_settings import package_settings

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "recbole_missing"
FILES = sorted(PACKAGE.rglob("*.py"))
MODEL_FILES = [
    path for path in (PACKAGE / "model").glob("*.py") if path.stem not in ("__init__", "base")
]

FLOORS = [
    "version atomic compat lazy loaded logs optim quiet memory modality environment config tables",
    "parallel",
    "identity registry graph",
    "nn imputation",
    "data model baseline",
    "convert evaluation",
    "run_settings",
    "recorded in_force",
    "checkpoint hidden_state",
    "trainer",
    "plugin",
    "resume",
    "quick_start",
    "benchmark",
    "report",
    "describe",
    "commands",
    "cli __init__",
]
"""Rooms from the ground up. A file imports from the floors below its own and from its own room."""

WITHOUT_RECBOLE = {"graph", "nn", "modality", "imputation", "identity", "config", "parallel"}
"""Rooms that work where RecBole is not installed, and ``data/missing``."""


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").as_posix()


def imports(path: Path) -> set[str]:
    """Absolute names of everything that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def floor(name: str) -> int:
    """Floor of the room that a dotted name (without the package) begins with."""
    return next(n for n, rooms in enumerate(FLOORS) if name.split(".")[0] in rooms.split())


@pytest.mark.parametrize("path", FILES, ids=room)
def test_import_directions(path: Path) -> None:
    own = room(path).split("/")[0]
    prefix = "recbole_missing."
    house = {name[len(prefix) :] for name in imports(path) if name.startswith(prefix)}
    foreign = {name for name in house if name.split(".")[0] != own}
    upwards = {name for name in foreign if floor(name) >= floor(own)}
    assert not upwards, f"{room(path)} imports from its own floor or one above: {upwards}"
    uses_recbole = any(f"{name}.".startswith("recbole.") for name in imports(path))
    assert not uses_recbole or not {own, room(path)} & {*WITHOUT_RECBOLE, "data/missing"}


@pytest.mark.parametrize("path", MODEL_FILES, ids=lambda path: path.stem)
def test_model_docstrings(path: Path) -> None:
    text = ast.get_docstring(ast.parse(path.read_text())) or ""
    labels = re.findall(r"^(Paper|Code|Follows|Quirks|Needs|Missing):", text, flags=re.MULTILINE)
    assert labels == ["Paper", "Code", "Follows", "Quirks", "Needs", "Missing"]
    assert text.splitlines()[0].endswith("."), "the first line is one sentence"
    assert re.search(r"\b(19|20)\d\d\b", text), "venue and year"
    assert "https://" in text.split("Paper:")[1].split("Code:")[0], "the paper's URL"
    code = text.split("Code:")[1].split("Follows:")[0].strip()
    assert code == "none" or re.search(r"\b[0-9a-f]{7,40}\b", code), "the commit consulted, or none"


@pytest.mark.parametrize("path", FILES, ids=room)
def test_forbidden_strings(path: Path) -> None:
    text = path.read_text()
    for forbidden in (".cuda(", "allow_pickle=True", "weights_only=False", "TODO", "print(os"):
        assert forbidden not in text
    assert not re.search(r"(?<![\w.])eval\(", text)
    if path in MODEL_FILES:
        code = ast.unparse(_without_docstrings(ast.parse(text)))
        assert not re.search(r"\b(image|text|audio|visual|textual|acoustic)\b", code)
        for forbidden in (".to(self.device)", ".cpu()", "open(", "np.load"):
            assert forbidden not in code


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        text = isinstance(body, list) and len(body) > 1 and isinstance(body[0], ast.Expr)
        if text and isinstance(body[0].value, ast.Constant):
            body.pop(0)
    return tree


WRITERS = {"write_text", "write_bytes", "to_csv", "savefig", "save_file", "np.save", "torch.save"}
"""Names of calls that write a file; ``open`` with another mode than reading is one, too."""

FILLERS = {
    "atomic": {"write_report", "_refused", "_to_disk"},
    "benchmark/measured": {"restart_peak_memory"},  # writes to /proc
    "benchmark/store": {"append"},  # a lock, and the file is cut back after an error
    "convert/elliot": {"write_elliot", "_write_vectors"},
    "convert/folder": {"write", "_write_features"},
    "convert/mmrec": {"write_mmrec"},
    "convert/table": {"_write"},
    "data/collection": {"write"},
    "describe/figures": {"_svg"},  # into memory
    "data/files": {"write_rows"},
    "report/document": {"_files"},
    "report/figures": {"_save"},
    "report/plots": {"quality"},
    "resume": {"claim"},  # the process that holds a lock, into its file
}
"""Functions that write into what :mod:`recbole_missing.atomic` gave their callers."""


def written(tree: ast.AST, inside: str = "", safe: bool = False) -> set[str]:
    """Names of the functions with a call that writes a file outside of our ``with`` blocks."""
    found = set()
    if isinstance(tree, ast.FunctionDef):
        inside, safe = tree.name, False
    if isinstance(tree, ast.With):
        items = ast.unparse(ast.Tuple([item.context_expr for item in tree.items], ast.Load()))
        safe = safe or "whole_file(" in items or "new_folder(" in items
    if isinstance(tree, ast.Call) and not safe and _writes(tree):
        found.add(inside)
    return found.union(*(written(child, inside, safe) for child in ast.iter_child_nodes(tree)))


def _writes(call: ast.Call) -> bool:
    name = ast.unparse(call.func)
    if name.split(".")[-1] == "open" and not name.startswith("os."):
        words = [word for word in ast.walk(call) if isinstance(word, ast.Constant)]
        return any(re.fullmatch("[rwaxbt+]*[wax+][bt+]*", str(word.value)) for word in words)
    return name in WRITERS or name.split(".")[-1] in WRITERS


@pytest.mark.parametrize("path", FILES, ids=room)
def test_every_file_is_written_as_a_whole(path: Path) -> None:
    found = written(ast.parse(path.read_text()))
    assert found == FILLERS.get(room(path), set())


def test_no_function_is_longer_than_a_page() -> None:
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                end = node.end_lineno or 0
                body = node.body[1:] if ast.get_docstring(node) else node.body
                length = end - body[0].lineno + 1 if body else 0
                assert length <= 40, f"{path}: {node.name} has {length} lines"


def test_every_model_has_a_file_of_its_name_and_a_yaml() -> None:
    assert {path.stem for path in MODEL_FILES} == {name.lower() for name in MODELS}
    assert defaults.names("model") == sorted(MODELS)


@pytest.mark.parametrize("name", MODELS)
def test_yaml_states_what_the_class_declares(name: str) -> None:
    values = defaults.read("model", name)
    presets = values.pop("presets", {})
    declared = set(MODELS[name].hyperparameters)
    training = set(values) - declared
    assert declared <= set(values), "a default is absent"
    known = set(defaults.load(PROPERTIES / "overall.yaml")) | {
        "train_batch_size",
        "learning_rate",
    }
    known |= {"eval_step", "train_neg_sample_args", "weight_decay", "learner"}
    assert training <= known, f"keys that nobody declares: {training - known}"
    for key, constraint in MODELS[name].hyperparameters.items():
        assert constraint.accepts(values[key]), key
    for preset in (defaults.fitting(preset, n) for preset in presets.values() for n in (1, 2, 3)):
        assert set(preset) <= declared | known
        assert all(
            MODELS[name].hyperparameters[k].accepts(preset[k]) for k in declared & set(preset)
        )


def test_overall_yaml_states_every_package_setting() -> None:
    values = defaults.load(PROPERTIES / "overall.yaml")
    declared = dict(package_settings())
    for imputer in IMPUTERS.values():
        declared |= {f"imputation_{key}": limit for key, limit in imputer.hyperparameters.items()}
    assert set(declared) - {"learner"} <= set(values)
    assert all(declared[key].accepts(values[key]) for key in set(declared) & set(values))


def test_a_line_of_yaml_explains_itself() -> None:
    for path in PROPERTIES.glob("model/*.yaml"):
        plain = path.read_text().split("presets:")[0]
        for line in plain.splitlines():
            if re.match(r"\w+:", line):
                assert "#" in line or line.startswith("learning_rate"), f"{path.name}: {line}"


def test_tests_that_a_page_names_exist() -> None:
    page = (ROOT / "docs" / "guides" / "reliability.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", page))
    assert len(named) > 20
    for file, test in named:
        assert f"def {test}" in (ROOT / file).read_text(encoding="utf-8"), f"{file}::{test}"
