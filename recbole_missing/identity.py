"""What decides a result, as one value: the data as built, the settings in force, the source code.

Runs of a benchmark, cached imputations and the data of checkpoints are all keyed here. A key holds
what decides the result and nothing else. :func:`of_source` reads the files of source code, and may
import modules to find them. The other functions depend on their arguments alone. None needs
RecBole.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse

from recbole_missing import loaded

Parts = dict[str, str]
"""Identity of a data set: name of a part -> its digest. The parts do not depend on each other:

- ``catalogue``: user and item tokens in the order of their ids,
- ``split``: the interactions of every split, in whatever numbering. Those of training count in
  their order, because it decides the batches; those of validation and test in any order,
- ``columns``: other columns of users and items, where some were loaded,
- ``features``: what the rows of the observed items are made from, and their scale if it is not
  ``none``, for every modality in order,
- ``masks``: which items are observed, for every modality in order,
- ``new_items``: the items of the new-item setting, where there are some,
- ``edges``: the user's own item graph, where the imputer reads one.
"""

PART_NAMES = {
    "catalogue": "catalogue of users and items",
    "split": "split of the interactions",
    "columns": "columns of users or items",
    "features": "set of features",
    "masks": "mask of missing modalities",
    "new_items": "set of new items",
    "edges": "item graph",
}

TRAINING = (
    "clip_grad_norm", "enable_amp", "enable_scaler", "epochs", "eval_step", "learner",
    "learning_rate", "reproducibility", "require_pow", "seed", "shuffle", "stopping_step",
    "train_batch_size", "train_neg_sample_args", "transform", "weight_decay", "worker",
)  # fmt: skip
"""Settings of RecBole's training that decide a result."""

EVALUATION = (
    "metric_decimal_place", "metrics", "repeatable", "test_mask", "test_neg_sample_args", "topk",
    "valid_metric", "valid_metric_bigger", "valid_neg_sample_args",
)  # fmt: skip
"""Settings of the evaluation that decide a result. How the data are split is part of the data."""

_PACKAGE = __name__.partition(".")[0]
_NO_VALUES = (
    "atomic",
    "checkpoint",
    "compat",
    "config",
    "environment",
    "hidden_state",
    "identity",
    "in_force",
    "lazy",
    "loaded",
    "plugin",
    "quiet",
    "registry",
    "resume",
    "version",
)
"""Rooms of the package that compute nothing of a result: they check settings and write files."""


# ------------------------------------------------------------------------------------ one value


def digest(value: Any, size: int = 16) -> str:
    """Hexadecimal blake2b of a value; equal values have equal digests in every process.

    Args:
        value: None, bool, int, float, str, bytes, arrays, tensors, sparse matrices, and mappings
            and sequences of these. The order of a mapping does not count, a list and a tuple are
            one value, and so are 1 and 1.0.
        size: bytes of the digest.

    Raises:
        TypeError: for anything else.
    """
    state = hashlib.blake2b(digest_size=size)
    _feed(state, value)
    return state.hexdigest()


def of_blocks(blocks: Iterable[bytes]) -> str:
    """Digest of the content of a file, read block by block."""
    state = hashlib.blake2b(digest_size=16)
    for block in blocks:
        state.update(block)
    return state.hexdigest()


def _feed(state: Any, value: Any) -> None:
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if value is None or isinstance(value, (bool, int, float, str, bytes)):
        content = value if isinstance(value, bytes) else repr(value).encode()
        state.update(f"{type(value).__name__} {len(content)} ".encode() + content)
    elif isinstance(value, (list, tuple)):
        state.update(f"sequence {len(value)} ".encode())
        for item in value:
            _feed(state, item)
    elif isinstance(value, Mapping):
        state.update(b"mapping ")
        _feed(state, [[key, value[key]] for key in sorted(value, key=repr)])
    elif sparse.issparse(value):
        matrix = sparse.csr_matrix(value, copy=True)
        matrix.sum_duplicates()
        indices = [part.astype(np.int64) for part in (matrix.indptr, matrix.indices)]
        _feed(state, ["sparse", list(matrix.shape), *indices, matrix.data])
    else:
        _feed_array(state, value.detach().cpu().numpy() if torch.is_tensor(value) else value)


def _feed_array(state: Any, value: Any) -> None:
    if not isinstance(value, np.ndarray) or value.dtype.hasobject:
        raise TypeError(f"digest: must be a plain value or an array, got {type(value).__name__}.")
    array = np.ascontiguousarray(value)
    state.update(f"array {array.dtype.str} {value.shape} ".encode())
    state.update(array.data if array.dtype.kind in "biuf" and array.size else array.tobytes())


# ------------------------------------------------------------------------------------- the data


def of_tokens(tokens: Iterable[str]) -> NDArray[np.uint64]:
    """A number for every token, uint64 ``(n,)``, that depends on the token alone."""
    words = (hashlib.blake2b(str(token).encode(), digest_size=8).digest() for token in tokens)
    return np.frombuffer(b"".join(words), dtype=np.uint64)


def of_rows(rows: Iterable[bytes]) -> NDArray[np.bytes_]:
    """A digest for every row, ``(n,)`` of 16 bytes each."""
    words = (hashlib.blake2b(row, digest_size=16).digest() for row in rows)
    return np.frombuffer(b"".join(words), dtype="V16")


def of_interactions(
    users: NDArray[np.uint64],
    items: NDArray[np.uint64],
    columns: Mapping[str, Any],
    in_order: bool = False,
) -> str:
    """Digest of the interactions of a split.

    Args:
        users, items: :func:`of_tokens` of the user and the item of each interaction.
        columns: other columns of the interactions that were loaded, by name.
        in_order: whether the order of the interactions counts.
    """
    arrays = {name: np.asarray(columns[name]) for name in sorted(columns)}
    keys = [array for array in arrays.values() if array.ndim == 1]
    order = np.arange(len(users)) if in_order else np.lexsort([*keys, items, users])
    return digest([users[order], items[order], {k: array[order] for k, array in arrays.items()}])


def of_items(tokens: NDArray[np.uint64], chosen: NDArray[np.bool_], values: Any = None) -> str:
    """Digest of some items, and of their ``values``; the numbering of the items does not count.

    Args:
        tokens: :func:`of_tokens` of all items, ``(n_items,)``.
        chosen: bool ``(n_items,)``.
        values: an array with one row for each of the chosen items, or None.
    """
    names = tokens[chosen]
    order = np.argsort(names, kind="stable")
    return digest([names[order], None if values is None else values[order].tobytes()])


def differing(one: Mapping[str, str], other: Mapping[str, str]) -> list[str]:
    """Parts of two identities of data that differ, in words."""
    return [
        words for part, words in PART_NAMES.items() if part in one or part in other
        if one.get(part) != other.get(part)
    ]  # fmt: skip


def parts_in_force(parts: Mapping[str, str], modalities: bool) -> Parts:
    """The parts that decide the result of a model.

    Args:
        parts: all of them.
        modalities: whether the model reads modalities. A model that reads none has nothing of
            features and item graph. The masks count all the same: the results of every model are
            also reported by the number of modalities that an item lacks.
    """
    unread = () if modalities else ("features", "edges")
    return {part: value for part, value in parts.items() if part not in unread}


# --------------------------------------------------------------------------------- the settings


def is_recboles(model: type) -> bool:
    """Tell whether a model is RecBole's own, or stands in its place (:mod:`.baseline`)."""
    return model.__module__.startswith(("recbole.", f"{_PACKAGE}.baseline."))


def reads_modalities(model: type) -> bool:
    """Tell whether a model may read modalities. Only RecBole's own models surely read none."""
    return not is_recboles(model)


def model_name(model: type) -> str:
    """Name that no other model has: ``DGMRec``, ``BPR``, or ``module:Class`` for an outside one."""
    known = _top(model.__module__) in (_PACKAGE, "recbole")
    return model.__qualname__ if known else f"{model.__module__}:{model.__qualname__}"


def of_run(
    model: type, parts: Mapping[str, str], settings: Mapping[str, Any], stage: str = "test"
) -> str:
    """Identity of a run.

    Args:
        model: class of the model.
        parts: identity of its data.
        settings: those in force.
        stage: ``test``, or ``search`` for a run whose test split is not looked at.
    """
    data = parts_in_force(parts, reads_modalities(model))
    return digest([model_name(model), data, settings, stage], size=8)


# ----------------------------------------------------------------------------------- the source


def of_source(*roots: type | str) -> str | None:
    """Digest of the code that the roots run, wherever it lies.

    It covers the module of every root and of the classes that a root derives from. Transitively, it
    covers every module that one of them imports from this package, from the package of an outside
    root, or, for an outside root that is a single file, from the files beside it. Comments,
    docstrings and formatting do not count, nor do tables of names in ``__init__`` files of this
    package. Other libraries are not covered; of RecBole only the modules of the roots are.

    Args:
        roots: classes, or names of modules.

    Returns:
        None if it is not known what code runs: the code of a root lies in no file, as that of a
        class typed into a session, or a file has changed since its module was loaded.
    """
    modules: list[str] = []
    for root in roots:
        found = [root] if isinstance(root, str) else _modules_of(root)
        if _file(found[0]) is None:
            return None
        modules += found
    packages, folders = _covered(modules)
    seen: dict[str, str] = {}
    while modules:
        module = modules.pop()
        path = _file(module)
        if module in seen or path is None or _makes_no_values(module):
            continue
        if not loaded.is_current(module, path):
            return None
        code, imported = _parsed(path, path.stat().st_mtime_ns, path.stat().st_size)
        for written, name, level in imported:
            target = _absolute(module, path, written, level)
            if _top(target) in packages or _lies_in(target, folders):
                modules += _module_behind(target, name)
        seen[module] = "" if _is_table(module, path) else code
    names = {} if isinstance(roots[0], str) else {"root": model_name(roots[0])}
    return digest([names, seen])


def _modules_of(root: type) -> list[str]:
    """The module of a class first, then those of its bases that are no library's."""
    bases = [base.__module__ for base in root.__mro__[1:]]
    top = _top(root.__module__)
    return [root.__module__, *(b for b in bases if _top(b) in (_PACKAGE, top))]


def _covered(modules: Iterable[str]) -> tuple[set[str], set[Path]]:
    """Packages whose modules are covered, and folders whose single files are."""
    outside = {_top(module) for module in modules} - {_PACKAGE, "recbole"}
    files = {top: _file(top) for top in outside}
    single = {top for top, path in files.items() if path and path.name != "__init__.py"}
    folders = {path.parent for top, path in files.items() if path and top in single}
    return {_PACKAGE, *outside} - single, folders


def _lies_in(module: str, folders: Iterable[Path]) -> bool:
    """Tell whether a module is a single file in one of the folders. No library is imported."""
    paths = [folder / f"{module}.py" for folder in folders]
    return any(path.is_file() and path == _file(module) for path in paths)


def _absolute(module: str, path: Path, written: str, level: int) -> str:
    """Absolute name of what a module imports; ``level`` is the number of leading dots."""
    if not level:
        return written
    parents = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    parents = parents[: len(parents) - level + 1]
    return ".".join([*parents, written] if written else parents)


def _top(module: str) -> str:
    return module.partition(".")[0]


def _makes_no_values(module: str) -> bool:
    package, _, room = module.partition(".")
    return package == _PACKAGE and _top(room) in ("", *_NO_VALUES)


def _is_table(module: str, path: Path) -> bool:
    return path.name == "__init__.py" and _top(module) == _PACKAGE


def _file(module: str) -> Path | None:
    """Source file of a module that was imported, or could be; None if there is none."""
    known = sys.modules.get(module)
    file = getattr(known, "__file__", None)
    if known is None:
        try:
            spec = importlib.util.find_spec(module)
        except (ImportError, ValueError):
            return None
        file = None if spec is None else spec.origin
    return Path(file) if file and file.endswith(".py") and Path(file).is_file() else None


@cache
def _parsed(path: Path, changed: int, size: int) -> tuple[str, list[tuple[str, str, int]]]:
    """Digest of a file's code, and what it imports: (module, name, number of leading dots)."""
    tree = ast.parse(path.read_bytes())
    imported = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported += [(alias.name, "", 0) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            imported += [(node.module or "", alias.name, node.level) for alias in node.names]
    return digest(repr(_plain(tree))), imported  # as one text: 0.2 s less a start


def _module_behind(module: str, name: str) -> Sequence[str]:
    """Modules that an import of ``name`` from ``module`` leads to."""
    path = _file(module)
    submodule = f"{module}.{name}"
    if not name or (path is not None and path.name != "__init__.py"):
        return [module]
    if _file(submodule) is not None:
        return [submodule] if _top(module) == _PACKAGE else [module, submodule]
    if _top(module) != _PACKAGE:  # its ``__init__`` counts, with what it imports
        return [module]
    try:  # the package hands on what one of its modules defines
        value = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError):
        return []
    return [] if getattr(value, "__module__", module) == module else [value.__module__]


def _plain(node: Any) -> Any:
    """A syntax tree as plain values, the same in every version of Python, without docstrings."""
    if isinstance(node, list):
        return [_plain(item) for item in node if not _is_docstring(item)]
    if not isinstance(node, ast.AST):
        return f"{type(node).__name__} {node!r}"
    values = ((key, getattr(node, key, None)) for key in sorted(node._fields))
    fields = {key: _plain(value) for key, value in values if value is not None and value != []}
    return [type(node).__name__, fields]


def _is_docstring(node: Any) -> bool:
    value = node.value if isinstance(node, ast.Expr) else None
    return isinstance(value, ast.Constant) and isinstance(value.value, str)
