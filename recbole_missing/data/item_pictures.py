"""Which picture is of which item, and which pictures can be read."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from recbole_missing.data import pictures
from recbole_missing.data.catalogue import Catalogue, first_few, no_match
from recbole_missing.data.encoded import EncodedRows
from recbole_missing.parallel import Serial


def item_pictures(name: str, folder: Path, catalogue: Catalogue) -> dict[int, Path]:
    """Find the picture of each item that has one (:func:`.pictures.of_items`).

    Args:
        name: the modality.
        folder: folder of the pictures.
        catalogue: the items.

    Returns:
        Item id -> picture. A warning counts the pictures of no item.

    Raises:
        ValueError: if there is no picture, none is of an item, or two are of one item.
    """
    files = pictures.find(folder)
    if not files:
        raise ValueError(
            f"{name}: {folder} must be a folder of pictures <item> with an ending of "
            f"{', '.join(pictures.SUFFIXES)}, got none; name the folder of the pictures."
        )
    items = {str(token): item for item, token in enumerate(catalogue.tokens) if item}
    found, strangers = pictures.of_items(name, files, items)
    if not found:
        stems = [path.stem for path in files]
        raise ValueError(f"{folder.name}: ids must be {no_match(catalogue.tokens, stems)}")
    if strangers:
        logging.getLogger().warning(
            f"{folder.name}: {len(strangers):,} of {len(files):,} pictures ignored, no such item: "
            f"{first_few(path.stem for path in strangers)}."
        )
    return {items[token]: path for token, path in found.items()}


def readable_pictures(
    name: str,
    folder: str,
    files: Mapping[int, Path],
    described: EncodedRows,
    refuses: bool,
    progress: bool,
) -> dict[int, bytes]:
    """Find the pictures that can be read. Their descriptions are known afterwards.

    Args:
        name: the modality.
        folder: folder of the pictures, for messages.
        files: item id -> picture.
        described: gets :func:`.pictures.colours` of each picture that is new.
        refuses: whether a picture that cannot be read is an error; a warning otherwise.
        progress: whether a bar is shown.

    Returns:
        Item id -> digest of the picture.

    Raises:
        ValueError: if one cannot be read and ``refuses``.
    """
    keys, broken = {}, []
    new: list[tuple[bytes, np.ndarray]] = []
    engine = Serial(progress, delay=3.0)
    seen = engine.map(pictures.look, (described,), list(files.values()), f"{name}: pictures")
    try:
        for item, (key, row, problem) in zip(files, seen):
            if problem is None:
                keys[item] = key
            else:
                broken.append(f"{files[item].name} ({problem})")
            if row is not None:
                new.append((key, row))
    finally:  # what was read before Ctrl-C is kept
        described.add(dict(new))
    logging.getLogger().info(f"{name}: {len(new):,} of {len(files):,} pictures are new.")
    if broken:
        said = f"got {len(broken):,} of {len(files):,} that cannot be read: {', '.join(broken[:5])}"
        who = f"{name}: the pictures of {folder} must be whole"
        if refuses:
            raise ValueError(f"{who}, {said}; repair or remove them.")
        logging.getLogger().warning(f"{who}, {said}; their items lack the modality.")
    return keys
