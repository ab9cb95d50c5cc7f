"""Feature tables and training interactions from files, without RecBole and without padding.

Three kinds of source become one :class:`Collection`: a RecBole data set folder, a folder in MMRec's
or DGMRec's layout, and single files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from scipy import sparse
from torch import Tensor

from recbole_missing.convert import importers
from recbole_missing.convert.folder import ITEM, SPLITS, USER, Interactions, Layout
from recbole_missing.data.aligned import Catalogue, Matrix, Source
from recbole_missing.data.edges import read_edges
from recbole_missing.data.files import read_ids, read_matrix
from recbole_missing.data.missing import read_missing_file, write_token_file
from recbole_missing.data.pairs import count, on_items, read_interactions
from recbole_missing.data.recbole_folder import (
    NO_MASK,
    PADDING,
    find,
    in_order,
    is_recbole_folder,
    open_folder,
)
from recbole_missing.data.sources import modality_settings, open_source
from recbole_missing.imputation.base import Table


@dataclass(frozen=True)
class Collection:
    """What an imputer needs: items, their features, training interactions.

    Args:
        name: of the data, for titles and folders.
        items: item tokens; item i is row i of every table.
        tables: modality -> :class:`Table`; rows that are not observed hold zeros.
        interactions: shape ``(n_users, n_items)``.
        donors: bool ``(n_items,)``, see :meth:`Imputer.fit`; None: everyone.
        edges: shape ``(n_items, n_items)``, an item graph of the user's own, or None.
        notes: what was chosen or left out while reading.
    """

    name: str
    items: list[str]
    tables: dict[str, Table]
    interactions: sparse.csr_matrix
    donors: Tensor | None = None
    edges: sparse.csr_matrix | None = None
    notes: list[str] = field(default_factory=list)


def read_folder(folder: Path, mask: str | None = None, edges: str | None = None) -> Collection:
    """Read a RecBole data set folder, or one in MMRec's or DGMRec's layout.

    Args:
        folder: with ``<name>.yaml``, or with one ``.inter`` and ``<modality>_feat.npy`` files.
        mask: a mask file, ``none``, or None for what the folder itself says: its YAML, or the
            first of its ``missing_items_<ratio>.npy``.
        edges: a file of item-item edges (:func:`recbole_missing.data.edges.read_edges`).

    Raises:
        ValueError: if the folder is neither, or a file is refused.
    """
    if is_recbole_folder(folder) or not any(folder.glob("*_feat.npy")):
        return _read_dataset(folder, mask, edges)
    return _read_layout(folder, mask, edges)


def read_files(
    interactions: Path,
    features: Mapping[str, Path],
    ids: Mapping[str, Path],
    mask: str | None = None,
    edges: str | None = None,
) -> Collection:
    """Read single files.

    Args:
        interactions: training interactions (:func:`recbole_missing.data.pairs.read_interactions`).
        features: modality -> matrix, or folder of one ``<item>.npy`` an item (Ducho, Elliot).
        ids: modality -> the item token of each row of a matrix. Without any, row r is item r.
        mask: a mask file (``.tsv``), ``none`` or None.
        edges: as in :func:`read_folder`.

    Raises:
        ValueError: if the files do not fit together or one is refused.
    """
    _check_names(features, ids)
    matrix, columns = read_interactions(interactions)
    items = _items_of(interactions, columns, features, ids)
    tokens, folder = [PADDING, *items], Path()
    catalogue = Catalogue(interactions.stem, folder, tokens, "item_id")
    sources = []
    for name, path in features.items():
        settings = dict.fromkeys(modality_settings(name))
        settings[f"{name}_features"] = str(path.resolve())
        settings[f"{name}_ids"] = str(ids[name].resolve()) if name in ids else None
        sources.append(open_source(name, settings, catalogue))
    hidden = np.zeros((len(tokens), len(features)), dtype=bool)
    if mask not in (None, NO_MASK):
        hidden = read_missing_file(find(folder, str(mask)), tokens, list(features))
    return Collection(
        interactions.stem,
        items,
        _tables(sources, hidden),
        on_items(interactions, matrix, columns, items),
        edges=_edges(folder, edges, tokens),
    )


def write_tables(
    folder: Path,
    items: Sequence[str],
    features: Mapping[str, Tensor],
    observed: Mapping[str, Tensor],
    kind: str,
) -> None:
    """Write ``<modality>``, ``<modality>_observed`` and ``items.ids``, row i everywhere item i.

    Args:
        folder: an existing one.
        items: item tokens.
        features: modality -> ``(n_items, dim)``.
        observed: modality -> bool ``(n_items,)``.
        kind: ``npy`` or ``safetensors`` (one tensor a file).
    """
    for name, matrix in features.items():
        for stem, key, tensor in (
            (name, "features", matrix),
            (f"{name}_observed", "observed", observed[name]),
        ):
            if kind == "npy":
                np.save(folder / f"{stem}.npy", tensor.numpy())
            else:
                save_file({key: tensor.contiguous()}, folder / f"{stem}.safetensors")
    write_token_file(folder / "items.ids", items)


def _read_dataset(path: Path, mask: str | None, edges: str | None) -> Collection:
    """As a run with the folder's YAML sees it; training interactions of new items are no training.

    Its items are those of the interactions, numbered as RecBole numbers them, so that ties in an
    item graph, which the smaller number wins, end the same way.
    """
    folder = open_folder(path)
    parts = folder.pairs()
    items = list(dict.fromkeys(item for part in parts for _, item in part))
    hidden, new = folder.draw(items, parts[0], mask)
    catalogue = folder.catalogue(items)
    names = folder.settings["modalities"]
    is_new = dict(zip(catalogue.tokens, new))
    matrix, columns = count([pair for pair in parts[0] if not is_new[pair[1]]])
    protocol = folder.settings["missing_protocol"]
    from_yaml = folder.settings["missing_file"] if protocol == "file" else protocol
    return Collection(
        folder.name,
        items,
        _tables([open_source(name, folder.settings, catalogue) for name in names], hidden),
        on_items(path, matrix, columns, items),
        torch.from_numpy(~new[1:]),
        _edges(path, edges or folder.settings["imputation_edges_file"], catalogue.tokens),
        [f"mask: {mask or from_yaml}"],
    )


def _read_layout(path: Path, mask: str | None, edges: str | None) -> Collection:
    """Row r of every modality is itemID r, so items without interaction are items too."""
    layout = importers._read_mmrec(path)
    items = [str(item) for item in range(max(map(len, layout.features.values())))]
    tokens = [PADDING, *items]
    sources = []
    for name, matrix in layout.features.items():
        rows = np.full(len(tokens), -1)
        rows[1 : len(matrix) + 1] = np.arange(len(matrix))
        rows[1 + np.asarray(layout.holes.get(name, []), dtype=np.int64)] = -1
        sources.append(Matrix(name, path / f"{name}_feat.npy", matrix, rows, tokens))
    known = layout.interactions
    places = [known.columns.index(column) for column in (USER, ITEM)]
    train = [(row[places[0]], row[places[1]]) for row in known.splits["train"]]
    hidden = _layout_mask(layout, items, mask)
    return Collection(
        layout.inter_file.stem,
        items,
        _tables(sources, hidden),
        on_items(layout.inter_file, *count(train), items),
        edges=_edges(path, edges, tokens),
        notes=layout.notes,
    )


def _layout_mask(layout: Layout, items: list[str], mask: str | None) -> NDArray[np.bool_]:
    """Bool ``(1 + n_items, n_modalities)``; what was chosen joins the notes."""
    folder, names = layout.inter_file.parent, list(layout.features)
    found = sorted(path.name for path in folder.glob("missing_items_*.npy"))
    chosen = mask or (found or [NO_MASK])[0]
    layout.notes.append(f"mask: {chosen}" + (f" (of {', '.join(found)})" if found else ""))
    hidden = np.zeros((1 + len(items), len(names)), dtype=bool)
    if chosen == NO_MASK:
        return hidden
    path = find(folder, chosen)
    if path.suffix != ".npy":
        return read_missing_file(path, [PADDING, *items], names)
    # To the importer, an item without interaction is none; here every row is one.
    everyone = Interactions([ITEM], {split: [[item] for item in items] for split in SPLITS})
    lacking = importers._read_mask(path, replace(layout, interactions=everyone))
    for item, lacks in lacking.items():
        hidden[1 + int(item)] = [name in lacks for name in names]
    return hidden


def _tables(sources: Sequence[Source], hidden: NDArray[np.bool_]) -> dict[str, Table]:
    """Encode what is observed; ``hidden`` is bool ``(1 + n_items, n_modalities)``."""
    tables = {}
    for column, source in enumerate(sources):
        observed = source.present & ~hidden[:, column]
        if not observed.any():
            raise ValueError(
                f"modality {source.name!r}: must be observed for at least one item, got 0 of "
                f"{len(observed) - 1}; hide fewer (--missing {NO_MASK} hides nothing)."
            )
        features = torch.from_numpy(source.features(observed)[1:])
        tables[source.name] = Table(source.name, features, torch.from_numpy(observed[1:]))
    return tables


def _edges(folder: Path, file: str | None, tokens: Sequence[str]) -> sparse.csr_matrix | None:
    return None if file is None else read_edges(find(folder, file), tokens)[1:, 1:]


def _check_names(features: Mapping[str, Path], ids: Mapping[str, Path]) -> None:
    for name in features:
        if not name.isidentifier():
            raise ValueError(f"features: a name must be an identifier such as image, got {name!r}.")
    strangers = [name for name in ids if name not in features]
    if strangers:
        raise ValueError(
            f"ids: must belong to one of the features {list(features)}, got {strangers}; name the "
            "modality whose rows they are."
        )


def _items_of(
    interactions: Path, columns: list[str], features: Mapping[str, Path], ids: Mapping[str, Path]
) -> list[str]:
    """Everyone that an id or an interaction names; without ids the row numbers of the features."""
    named = [read_ids(path) for path in ids.values()]
    folders = [path for path in features.values() if path.is_dir()]
    named += [[file.stem for file in folder.glob("*.npy")] for folder in folders]
    if named:
        return in_order({*columns, *(token for tokens in named for token in tokens)})
    rows = [str(row) for row in range(max(len(read_matrix(path)) for path in features.values()))]
    strangers = sorted(set(columns).difference(rows))
    if strangers:
        raise ValueError(
            f"{interactions}: items must be row numbers of the features, 0 to {len(rows) - 1}, got "
            f"{strangers[:5]}; say which row is whose with --ids NAME=FILE."
        )
    return rows
