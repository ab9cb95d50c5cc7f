"""Files of Cornac (https://github.com/PreferredAI/cornac).

Cornac has no layout of its own: a script gives a ``Reader`` a file of ratings, and a modality
``features`` and ``ids``. Its own data sets (``cornac/datasets/amazon_clothing.py``, which lie in
``~/.cornac``) look so, and other data can be laid out in the same way:

- ``rating.txt``: lines that ``cornac/data/reader.py`` reads as ``UIR`` (user, item, rating),
  ``UIRT`` (and a time) or ``UI`` (a user and its items), cut at a separator without any quotes,
- ``<modality>_features.npy`` or ``features.npy``, one row for each line of ``<modality>_ids.txt``,
  ``item_ids.txt``, or the same as ``.npy``,
- ``text.txt``: ``<item>::<text>``.

In Cornac an item without features inherits the row of another item
(``cornac/data/modality.py``, ``_swap_feature``). Here it is a hole.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from recbole_missing.config.constraints import unknown
from recbole_missing.convert.folder import ITEM, USER, WHOLE, Interactions, Layout
from recbole_missing.convert.reading import checked, is_number, listed, read_features
from recbole_missing.data.files import read_ids, read_lines

FORMATS = {
    "UI": [USER, ITEM],
    "UIR": [USER, ITEM, "rating"],
    "UIRT": [USER, ITEM, "rating", "timestamp"],
}
"""Format of ``cornac.data.Reader`` -> columns of the data set."""
CONTENT = "content"
"""Modality of ``features.npy`` and ``item_features.npy``, whose names say no modality."""
_END = "features.npy"


def read_cornac(
    source: Path,
    ratings: str = "rating.txt",
    fmt: str = "UIR",
    sep: str = "\t",
    skip_lines: int = 0,
) -> Layout:
    """Read ratings, features with ids, and texts.

    The interactions are not split: Cornac does that in a script. RecBole splits them in a run.

    Args:
        source: the folder.
        ratings: name of the file of ratings.
        fmt: ``UI``, ``UIR`` or ``UIRT``, as in ``Reader.read``.
        sep: separator of that file, as in ``Reader.read``.
        skip_lines: number of first lines to skip, as in ``Reader.read``.

    Raises:
        ValueError: if the folder is incomplete or inconsistent.
    """
    if fmt not in FORMATS:
        raise ValueError(f"import cornac: {unknown('format', fmt, FORMATS)}")
    if skip_lines < 0 or not sep:
        raise ValueError(
            f"import cornac: sep must be text and skip_lines 0 or more, got {sep!r}, {skip_lines}."
        )
    notes: list[str] = []
    rows = _read_ratings(source / ratings, fmt, sep, skip_lines, notes)
    interactions = checked(Interactions(FORMATS[fmt], {WHOLE: rows}), notes, ratings)
    items = interactions.tokens(ITEM)
    files = _feature_files(source)
    features, holes = read_features(files, notes)
    ids = {name: _ids(source, name, len(matrix)) for name, matrix in features.items()}
    for name in features:
        lacking = {ids[name][row] for row in holes.get(name, ())}
        _compare(f"{name} features", items, set(ids[name]) - lacking, notes)
    texts = {} if "text" in features else _texts(source, items, notes)
    if not features and not texts:
        raise ValueError(f"{source}: must hold *{_END} or text.txt, got neither; add one.")
    notes.append("not split: the YAML has RecBole's random split, change its eval_args")
    return Layout(interactions, features, holes, ids, texts, notes=notes)


def _read_ratings(
    path: Path, fmt: str, sep: str, skip_lines: int, notes: list[str]
) -> list[list[str]]:
    """Cells of every interaction."""
    columns = FORMATS[fmt]
    rows: list[list[str]] = []
    longer = 0
    for number, line in enumerate(read_lines(path)[skip_lines:], skip_lines + 1):
        cells = line.strip().split(sep)
        if cells == [""]:
            continue
        read = cells[: len(columns)]
        if len(read) < len(columns) or not all(read) or not all(map(is_number, read[2:])):
            raise ValueError(
                f"{path}: line {number} must be {', '.join(columns)} separated by {sep!r}, got "
                f"{cells[:5]}; give --fmt, --sep and --skip-lines as for cornac.data.Reader."
            )
        if fmt == "UI":
            rows += [[cells[0], item] for item in cells[1:] if item]
        else:
            rows.append(read)
            longer += len(cells) > len(columns)
    if longer:
        notes.append(f"{path.name}: {longer:,} lines have more cells than {fmt}; left out")
    return rows


def _feature_files(source: Path) -> dict[str, Path]:
    """Modality -> its matrix."""
    files: dict[str, Path] = {}
    for path in sorted(source.glob(f"*{_END}")):
        name = path.name[: -len(_END)].removesuffix("_")
        name = CONTENT if name in ("", "item") else name
        if name in files:
            raise ValueError(f"{source}: {files[name].name} and {path.name} are both {name}.")
        files[name] = path
    return listed(files)


def _ids(source: Path, name: str, n_rows: int) -> list[str]:
    """The item of each row."""
    stems = [stem for stem in (f"{name}_ids", "item_ids", "ids")]
    found = [source / f"{stem}{end}" for stem in stems for end in (".txt", ".npy")]
    path = next((path for path in found if path.is_file()), None)
    if path is None:
        names = ", ".join(path.name for path in found[:4])
        raise ValueError(
            f"{source}: features need their ids in one of {names}, got none; save the list that "
            "you give Cornac as ids, one id a line."
        )
    ids = [token.strip() for token in read_ids(path)]
    if len(ids) != n_rows:
        raise ValueError(
            f"{path}: must have one id for each of {n_rows:,} rows of {name}, got {len(ids):,}; "
            "write both again."
        )
    repeated = [token for token, count in Counter(ids).items() if count > 1]
    if repeated:
        raise ValueError(f"{path}: an id must stand once, got several of {repeated[:5]}; keep one.")
    return ids


def _texts(source: Path, items: set[str], notes: list[str]) -> dict[str, dict[str, str]]:
    """Modality ``text``, if there is a file of texts."""
    path = source / "text.txt"
    if not path.is_file():
        return {}
    texts: dict[str, str] = {}
    for number, line in enumerate(read_lines(path), 1):
        item, mark, text = line.strip().partition("::")
        if item and (not mark or item in texts):
            raise ValueError(
                f"{path}: line {number} must be a new item, '::' and its text, got {line!r:.50}; "
                "correct it."
            )
        if item:
            texts[item] = text
    _compare(path.name, items, {item for item, text in texts.items() if text.strip()}, notes)
    return {"text": {item: text for item, text in texts.items() if item in items}}


def _compare(who: str, items: set[str], found: set[str], notes: list[str]) -> None:
    """Count items without content, and content of no item."""
    lacking, strangers = len(items - found), len(found - items)
    if lacking == len(items):
        raise ValueError(
            f"{who}: ids must be items of the ratings, none of {len(found):,} is: the ratings have "
            f"{min(items)!r}, not {min(found, default='')!r}; write ids alike."
        )
    if lacking:
        notes.append(
            f"{who}: {lacking:,} of {len(items):,} items have none; holes here (Cornac gives them "
            "the row of another item)"
        )
    if strangers:
        notes.append(f"{who}: {strangers:,} ids are in no rating")
