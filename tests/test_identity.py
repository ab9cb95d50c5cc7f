"""What decides a result, as one value: plain values, data, source code."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import sparse

from recbole_missing import identity
from recbole_missing.imputation import FeatProp, Mean
from recbole_missing.model import MODELS

HOUSES = ("house", "mine", "beside", "mypkg")
CODE = '''"""A docstring."""
from house.helper import twice


class Method:
    """Another."""

    def value(self, x):
        # a comment
        return twice(x) - 1
'''


# ------------------------------------------------------------------------------------ one value


def test_equal_values_have_one_digest_in_every_process() -> None:
    value = {"b": [1, 2.5, None, True, "x"], "a": (0.0, {"c": np.arange(3)})}
    same = {"a": [0, {"c": torch.arange(3)}], "b": (1.0, np.float64(2.5), None, np.True_, "x")}
    assert identity.digest(value) == identity.digest(same)
    code = "from recbole_missing import identity; print(identity.digest(['x', 1, {'k': 0.5}]))"
    printed = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=Path(identity.__file__).parents[1],
        env={"PYTHONHASHSEED": str(hash("x") % 2**32), "PATH": ""},  # not the one of this process
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert printed == identity.digest(["x", 1, {"k": 0.5}]) + "\n"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, True),
        (1, "1"),
        (0.1, 0.2),
        (None, "None"),
        (["ab", "c"], ["a", "bc"]),
        ([[1], [2]], [[1, 2]]),
        ({"a": 1}, {"a": 2}),
        ({"a": 1}, {"b": 1}),
        (np.zeros(2), np.zeros((2, 1))),
        (np.zeros(2, dtype=np.float32), np.zeros(2)),
        (sparse.eye(3), sparse.eye(3) * 2),
        (sparse.eye(3), sparse.csr_matrix((3, 3))),
    ],
    ids=repr,
)
def test_other_values_have_another_digest(one: Any, other: Any) -> None:
    assert identity.digest(one) != identity.digest(other)


def test_the_storage_of_a_matrix_does_not_count() -> None:
    matrix = sparse.random(6, 5, 0.5, format="csr", random_state=0)
    order = np.random.default_rng(0).permutation(matrix.nnz)
    edges = matrix.tocoo()
    entries = edges.data[order], (edges.row[order], edges.col[order])
    shuffled = sparse.coo_matrix(entries, shape=matrix.shape)
    assert identity.digest(shuffled) == identity.digest(matrix)
    assert identity.digest(np.asfortranarray(matrix.toarray())) == identity.digest(matrix.toarray())


def test_what_cannot_be_compared_is_refused() -> None:
    for value in (object(), np.array([object()]), {1, 2}):
        with pytest.raises(TypeError, match="digest: must be a plain value or an array, got "):
            identity.digest(value)


# ------------------------------------------------------------------------------------- the data


def test_interactions_are_told_by_tokens_and_not_by_numbers_or_order() -> None:
    users, items = ["[PAD]", "u1", "u2"], ["[PAD]", "a", "b"]
    pairs = np.array([[1, 1], [1, 2], [2, 2]])

    def digest(users: list[str], items: list[str], pairs: np.ndarray, **columns: Any) -> str:
        names = identity.of_tokens(users), identity.of_tokens(items)
        ids = names[0][pairs[:, 0]], names[1][pairs[:, 1]]
        return identity.of_interactions(*ids, columns)

    first = digest(users, items, pairs)
    renumbered = np.array([0, 2, 1])[pairs]
    assert digest(users, items, pairs[::-1]) == first
    assert digest(["[PAD]", "u2", "u1"], ["[PAD]", "b", "a"], renumbered) == first
    assert digest(users, items, renumbered) != first
    assert digest(users, items, pairs[:2]) != first
    assert digest(users, items, pairs[[0, 0, 1, 2]]) != first, "a repeat is an interaction"
    times = np.array([3.0, 1.0, 2.0])
    timed = digest(users, items, pairs, time=times)
    assert first != timed != digest(users, items, pairs, time=times[::-1])
    assert digest(users, items, pairs[::-1], time=times[::-1]) == timed
    ordered = [
        identity.of_interactions(identity.of_tokens(some), identity.of_tokens(some), {}, True)
        for some in (["a", "b"], ["b", "a"])
    ]
    assert ordered[0] != ordered[1], "where the order decides the batches"


def test_the_message_names_what_differs() -> None:
    one = {"catalogue": "a", "split": "b", "masks": "c"}
    assert identity.differing(one, dict(one)) == []
    found = identity.differing(one, {"catalogue": "x", "split": "b", "new_items": "d"})
    assert found == [
        "catalogue of users and items",
        "mask of missing modalities",
        "set of new items",
    ]


def test_features_decide_nothing_of_a_model_that_reads_none() -> None:
    parts = {"catalogue": "a", "features": "b", "masks": "c", "edges": "d"}
    assert identity.parts_in_force(parts, modalities=True) == parts
    assert identity.parts_in_force(parts, modalities=False) == {"catalogue": "a", "masks": "c"}


# --------------------------------------------------------------------------------- the settings


def test_every_setting_of_recboles_training_and_evaluation_counts_or_decides_nothing() -> None:
    from recbole.utils import argument_list

    nothing = {
        "loss_decimal_place": "it rounds what is printed",
        "eval_batch_size": "the ranking of a user does not depend on who is ranked with them",
        "eval_args": "the split is part of the data; the mode is in the *_neg_sample_args",
    }
    named = {*argument_list.training_arguments, *argument_list.evaluation_arguments}
    counted = {*identity.TRAINING, *identity.EVALUATION}
    assert named - counted == nothing.keys()
    assert not counted & nothing.keys()


# ----------------------------------------------------------------------------------- the source


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of three modules that is taken for this one."""
    folder = tmp_path / "house"
    folder.mkdir()
    (folder / "__init__.py").write_text("from house.method import Method\n")
    (folder / "method.py").write_text(CODE)
    (folder / "helper.py").write_text("def twice(x):\n    return 2 * x\n")
    (folder / "other.py").write_text("def thrice(x):\n    return 3 * x\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(identity, "_PACKAGE", "house")
    yield folder
    unload()


def unload() -> None:
    """Forget the modules of the tests, as a new process would."""
    for name in [name for name in sys.modules if name.partition(".")[0] in HOUSES]:
        del sys.modules[name]
    importlib.invalidate_caches()


def edit(path: Path, text: str) -> None:
    """Write a file of source code for a new process."""
    path.write_text(text)
    unload()


def source(*roots: Any) -> str:
    digest = identity.of_source(*(roots or ("house.method",)))
    assert digest is not None
    return digest


def test_words_about_the_code_do_not_count(house: Path) -> None:
    first = source()
    quiet = CODE.replace("A docstring", "Others").replace('    """Another."""\n\n', "")
    quiet = quiet.replace("        # a comment\n", "").replace(
        "twice(x) - 1", "twice(\n    x\n) - 1"
    )
    assert quiet != CODE
    edit(house / "method.py", quiet)
    assert source() == first
    edit(house / "method.py", CODE.replace("twice(x) - 1", "twice(x) + 1"))
    assert source() != first, "a flipped sign"


def test_what_is_imported_counts_and_nothing_else(house: Path) -> None:
    first = source()
    edit(house / "other.py", "def thrice(x):\n    return 4 * x\n")
    edit(house / "__init__.py", "from house.other import thrice\n")
    assert source() == first
    edit(house / "helper.py", "from house.other import thrice as twice\n")
    second = source()
    assert second != first
    edit(house / "other.py", "def thrice(x):\n    return 5 * x\n")
    assert source() != second, "what an import imports"


def test_an_outside_class_counts_with_what_it_uses_of_the_package(
    house: Path, tmp_path: Path
) -> None:
    edit(tmp_path / "mine.py", "from house import Method\n\n\nclass Mine(Method):\n    x = 1\n")
    from mine import Mine  # type: ignore[import-not-found]

    first = source(Mine)
    edit(house / "helper.py", "def twice(x):\n    return -2 * x\n")
    second = source(Mine)
    assert second != first
    edit(tmp_path / "mine.py", "from house import Method\n\n\nclass Mine(Method):\n    x = 2\n")
    assert source(Mine) != second


def test_two_classes_of_one_name_and_code_are_two_methods(house: Path) -> None:
    edit(house / "copy.py", CODE)
    from house.copy import Method as Copy  # type: ignore[import-not-found]
    from house.method import Method  # type: ignore[import-not-found]

    assert source(Copy) != source(Method)


def test_an_outside_package_counts_with_what_it_imports_of_itself(tmp_path: Path) -> None:
    package = tmp_path / "mypkg"
    (package / "deep").mkdir(parents=True)
    texts = {
        "__init__.py": "SCALE = 1\n",
        "imp.py": "from .helpers import VALUE\nfrom . import SCALE\nclass Mine:\n    x = VALUE\n",
        "helpers.py": "import numpy\nimport mypkg.far\nfrom .deep.er import VALUE\n",
        "far.py": "X = 1\n",
        "deep/__init__.py": "",
        "deep/er.py": "from .. import aside\nVALUE = 1\n",
        "aside.py": "X = 1\n",
        "unread.py": "X = 1\n",
    }
    for name, text in texts.items():
        (package / name).write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(tmp_path))
        first = source("mypkg.imp")
        for name, text in texts.items():
            edit(package / name, f"{text}OTHER = 2\n")
            read = name not in ("unread.py", "deep/__init__.py")
            assert (source("mypkg.imp") != first) is read, name
            edit(package / name, text)
        assert source("mypkg.imp") == first
        unload()


def test_an_outside_file_counts_with_the_files_beside_it(house: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("import numpy.linalg\nfrom beside import VALUE\n")
    (tmp_path / "beside.py").write_text("VALUE = 1\n")
    first = source("mine")
    edit(tmp_path / "beside.py", "VALUE = -5\n")
    assert source("mine") != first


def test_code_that_was_changed_since_it_was_loaded_is_not_known(tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("VALUE = 1\n")
    (tmp_path / "mine.py").write_text("import recbole_missing\nfrom beside import VALUE\n")
    code = """if True:
        import importlib, os, pathlib, time
        import mine, beside
        from recbole_missing import identity
        def source():
            return identity.of_source("mine")
        first = source()
        path = pathlib.Path(beside.__file__)
        time.sleep(0.05)
        path.write_text("VALUE = -5\\n")
        os.utime(path, (1, 1))  # as a copy that keeps the time of the original
        changed = source()
        time.sleep(0.05)
        importlib.reload(beside)
        again = source()
        print(first is not None, changed, again not in (None, first))
    """
    root = Path(identity.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": f"{tmp_path}:{root}", "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "True None True\n"


def test_a_class_that_lies_in_no_file_has_no_source() -> None:
    typed = type("Typed", (Mean,), {"__module__": "typed_into_a_session"})
    assert identity.of_source(typed) is None


def test_an_imputer_of_ours_does_not_count_for_another() -> None:
    """So that a new imputer in the package makes nothing else's code another."""
    files = set()
    parsed = identity._parsed

    def noted(path: Path, *args: Any) -> Any:
        files.add(path.stem)
        return parsed(path, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(identity, "_parsed", noted)
        assert identity.of_source(FeatProp)
        assert "propagation" in files and not {"learned", "diffusion"} & files
        files.clear()
        assert identity.of_source(MODELS["DGMRec"], Mean, "recbole_missing.data.dataset")
        assert {"dgmrec", "base", "statistics", "missing", "losses"} <= files
        assert not {"gume", "propagation", "learned", "identity", "check"} & files
        files.clear()
        assert identity.of_source("recbole_missing.trainer")
    assert {"trainer", "optim"} <= files  # a step of an optimiser decides a result
    assert not {"lazy", "plugin"} & files
