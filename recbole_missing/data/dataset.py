"""A RecBole data set with modalities: split, mask, encode, impute, attach, in this order."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from recbole.data.dataset import Dataset
from recbole.data.interaction import cat_interactions
from scipy import sparse
from torch import Tensor

from recbole_missing.config.constraints import Bool, Choice, ListOf, Optional, Text
from recbole_missing.data import cache, missing, sources
from recbole_missing.data.sources import Source, read_edges
from recbole_missing.imputation import IMPUTERS, log_report, make_imputer
from recbole_missing.modality import Modalities, Modality

DATA_SETTINGS = {
    "modalities": Optional(ListOf(Text())),
    "imputation": Choice(*IMPUTERS),
    "imputation_cache": Bool(),
    "imputation_edges_file": Optional(Text()),
    "test_mask": Choice("train_valid", "train"),
    **missing.MISSING_SETTINGS,
}
"""Settings that decide the data, beside those of each modality and imputer."""


class MultimodalDataset(Dataset):
    """RecBole's :class:`Dataset` plus ``modalities``; without any it behaves as RecBole's.

    Attributes, the same objects in all three splits after :meth:`build`:
        known: :class:`Modalities` as they are observed, missing rows zero; None without any.
        modalities: ``known`` completed by imputation, made when it is first read: a model that
            reads no modality pays for none.
        new_items: bool ``(item_num,)``, items whose training interactions were moved to the test
            split (the new-item setting).

    Hidden rows are zeroed (and never shown to an encoder) before imputation, and imputation sees
    training interactions only, so nothing leaks by construction.
    """

    known: Modalities | None = None
    new_items: Tensor
    _imputation: Imputation | None = None

    @property
    def modalities(self) -> Modalities | None:
        """The modalities completed by imputation; None without any, or before :meth:`build`."""
        return None if self._imputation is None else self._imputation.completed

    def build(self) -> list[Any]:
        """Split as RecBole does, then draw the mask, read, impute and attach the modalities.

        Raises:
            ValueError: for an empty split, a top-k beyond the catalogue, a modality that nobody
                has, and whatever the files are refused for.
        """
        splits = super().build()
        names = list(self.config["modalities"] or ())
        hidden, new = self._draw(splits[0], names)
        if new.any():
            splits = self._move_new_items(splits, torch.from_numpy(new))
        self._check_splits(splits)
        for split in (self, *splits):
            split.new_items = torch.from_numpy(new)
        if names:
            known = self._read(names, hidden)
            imputation = Imputation(known, splits[0], self._edges())
            for split in (self, *splits):
                split.known, split._imputation = known, imputation
        return splits

    def interaction_matrix(self) -> sparse.csr_matrix:
        """Interactions of this split, ``(user_num, item_num)``, padding included."""
        users = self.inter_feat[self.uid_field].numpy()
        items = self.inter_feat[self.iid_field].numpy()
        ones = np.ones(len(users), dtype=np.float32)
        return sparse.csr_matrix((ones, (users, items)), shape=(self.user_num, self.item_num))

    def item_groups(self) -> dict[str, Tensor]:
        """Bool ``(item_num,)`` for each group that results are also reported by.

        By number of missing modalities, and, in the new-item setting, warm against new.
        """
        groups: dict[str, Tensor] = {}
        real = torch.arange(self.item_num) > 0
        if self.known is not None:
            n_missing = self.known.n_missing
            for count in range(len(self.known) + 1):
                groups[f"{count} missing"] = (n_missing == count) & real
        if self.new_items.any():
            groups.update(warm=~self.new_items & real, new=self.new_items)
        return {name: items for name, items in groups.items() if items.any()}

    def true_features(self) -> Modalities:
        """Read the modalities again with nothing hidden, for an evaluation; training never does.

        Encoders learn from the observed items alone, as those of ``modalities`` did: an observed
        row is what it was there, bit for bit, and a hidden one lies in the same space.

        Returns:
            Modalities whose ``observed`` says who truly has what, zeros elsewhere.

        Raises:
            ValueError: if there are no modalities.
        """
        if self.known is None:
            raise ValueError(
                f"data set {self.dataset_name!r}: must have modalities, got none; list them in "
                "`modalities`."
            )
        found = []
        for source in self._sources(list(self.known)):
            observed = self.known[source.name].observed.numpy()
            features = torch.from_numpy(source.features(observed, reveal=True))
            found.append(Modality(source.name, features, torch.from_numpy(source.present)))
        return Modalities(found)

    def _draw(self, train: Any, names: list[str]) -> tuple[np.ndarray, np.ndarray]:
        counts = np.bincount(train.inter_feat[self.iid_field].numpy(), minlength=self.item_num)
        tokens = self.field2id_token[self.iid_field]
        return missing.draw(self.config, tokens, names, counts, Path(self.dataset_path))

    def _move_new_items(self, splits: list[Any], new: Tensor) -> list[Any]:
        """Training interactions of new items become test interactions (DGMRec's second setting).

        Users left without a training interaction leave validation and test.
        """
        train, valid, test = splits
        is_new = new[train.inter_feat[self.iid_field]]
        moved, kept = train.inter_feat[is_new], train.inter_feat[~is_new]
        has_history = torch.zeros(self.user_num, dtype=torch.bool)
        has_history[kept[self.uid_field]] = True
        test_inter = cat_interactions([test.inter_feat, moved]) if len(moved) else test.inter_feat
        evaluated = [
            inter[has_history[inter[self.uid_field]]] for inter in (valid.inter_feat, test_inter)
        ]
        self.logger.info(
            f"new items: {int(new.sum())} of {self.item_num - 1} items; {len(moved)} training "
            f"interactions moved to test; {int((~has_history[1:]).sum())} users have none left."
        )
        return [train.copy(inter) for inter in (kept, *evaluated)]

    def _check_splits(self, splits: list[Any]) -> None:
        for name, split in zip(("training", "validation", "test"), splits):
            if len(split.inter_feat) == 0:
                raise ValueError(
                    f"data set {self.dataset_name!r}: the {name} split must not be empty, "
                    f"got 0 of {self.inter_num} interactions; change eval_args or the filters."
                )
        largest = max(self.config["topk"])
        if largest > self.item_num - 1:
            raise ValueError(
                f"topk: must be at most the number of items ({self.item_num - 1}), "
                f"got {largest}; lower it."
            )

    def _read(self, names: list[str], hidden: np.ndarray) -> Modalities:
        found = []
        for column, source in enumerate(self._sources(names)):
            observed = source.present & ~hidden[:, column]
            if not observed.any():
                raise ValueError(
                    f"modality {source.name!r}: must be observed for at least one item, got 0 of "
                    f"{self.item_num - 1}; lower missing_ratio or drop it from `modalities`."
                )
            features = torch.from_numpy(source.features(observed))
            found.append(Modality(source.name, features, torch.from_numpy(observed)))
            self._report(source.present, observed, found[-1])
        return Modalities(found)

    def _sources(self, names: list[str]) -> Iterator[Source]:
        """Open the modalities one by one."""
        catalogue = sources.Catalogue(
            self.dataset_name,
            Path(self.dataset_path),
            self.field2id_token[self.iid_field],
            self.iid_field,
            self.config["field_separator"],
            self.config["seq_separator"],
        )
        for name in names:
            yield sources.open_source(name, self.config, catalogue)

    def _edges(self) -> sparse.csr_matrix | None:
        file = self.config["imputation_edges_file"]
        if file is None:
            return None
        tokens = self.field2id_token[self.iid_field]
        path = Path(self.dataset_path) / file
        return read_edges(path, tokens, self.config["field_separator"])

    def _report(self, present: np.ndarray, observed: np.ndarray, modality: Modality) -> None:
        n_items = self.item_num - 1
        self.logger.info(
            f"modality {modality.name!r}: {modality.dim} features, {n_items - present.sum()} of "
            f"{n_items} items lack it by nature, {present.sum() - observed.sum()} more are hidden "
            f"({self.config['missing_protocol']}), filled by {self.config['imputation']}."
        )


class Imputation:
    """The imputation of one data set: what goes into it, and what comes out once it is asked for.

    Args:
        known: modalities whose missing rows hold zeros.
        train: the training split.
        edges: an item graph of the user's own, ``(item_num, item_num)``, or None.
    """

    def __init__(self, known: Modalities, train: Any, edges: sparse.csr_matrix | None) -> None:
        """Store the arguments; nothing is imputed yet."""
        self.known, self.train, self.edges = known, train, edges

    @cached_property
    def completed(self) -> Modalities:
        """Every modality without holes; the generators of the run are left as they are."""
        config = self.train.config
        imputer = make_imputer(config)
        arguments = self.known, self.train.interaction_matrix(), ~self.train.new_items, self.edges
        with torch.random.fork_rng():
            if config["imputation_cache"] and imputer.costly:
                folder = Path(config["checkpoint_dir"]) / "imputed"
                completed = cache.transform(imputer, *arguments, folder)
            else:
                completed = imputer.fit(*arguments[1:]).transform(self.known)
        log_report(config["imputation"], imputer)
        return completed


def check_interaction_files(config: Any) -> None:
    """Refuse ``.inter`` files that RecBole could only fail on.

    Raises:
        ValueError: naming the file and its header.
    """
    folder, name = Path(config["data_path"]), config["dataset"]
    wanted = {config["USER_ID_FIELD"], config["ITEM_ID_FIELD"]}
    parts = [f"{name}.{part}" for part in config["benchmark_filename"] or ()] or [name]
    for path in [folder / f"{part}.inter" for part in parts if folder.is_dir()]:
        if not path.is_file():
            raise ValueError(f"{path}: must be an interaction file, got no such file; add it.")
        with path.open(encoding="utf-8") as file:
            cells = file.readline().rstrip("\n").split(config["field_separator"])
        if not all(":" in cell for cell in cells) or not wanted <= {c.split(":")[0] for c in cells}:
            raise ValueError(
                f"{path}: the first line must be a header of `field:type` with {sorted(wanted)}, "
                f"got {cells[:5]}; correct it, or USER_ID_FIELD and ITEM_ID_FIELD."
            )


_SPLIT_SETTINGS = (
    "benchmark_filename", "filter_inter_by_user_or_item", "item_inter_num_interval",
    "rm_dup_inter", "user_inter_num_interval", "val_interval",
)  # fmt: skip


def fingerprint(config: Any) -> str:
    """Hash of everything that decides split, modalities, mask, imputation and test mask.

    Settings, and the bytes of every feature, mask and interaction file: RecBole's caches of data
    sets and dataloaders are compared by it, so none is served for other content.
    """
    names = list(config["modalities"] or ())
    prefixes = ("missing_", "new_item", "imputation", *(f"{name}_" for name in names))
    keys = sorted(
        key for key in config.final_config_dict if key in DATA_SETTINGS or key.startswith(prefixes)
    )
    keys.remove("imputation_cache")  # where results are kept decides none
    values = [(key, config[key]) for key in (*keys, *_SPLIT_SETTINGS)]
    split = {key: value for key, value in config["eval_args"].items() if key != "mode"}
    seed = None if config["benchmark_filename"] else config["seed"]  # decides a random split
    digest = hashlib.blake2b(repr((values, sorted(split.items()), seed)).encode(), digest_size=16)
    for path in _data_files(config, names):
        digest.update(path.name.encode())
        with path.open("rb") as file:
            for chunk in iter(lambda: file.read(1 << 20), b""):
                digest.update(chunk)
    return digest.hexdigest()


def _data_files(config: Any, names: list[str]) -> list[Path]:
    folder = Path(config["data_path"])
    catalogue = sources.Catalogue(config["dataset"], folder, (), config["ITEM_ID_FIELD"])
    files = list(folder.glob(f"{config['dataset']}*.inter"))
    for name in names:
        files += sources.feature_files(name, config, catalogue)
    keys = ("missing_file", "new_items_file", "imputation_edges_file")
    files += [folder / config[key] for key in keys if config[key]]
    return sorted({path for path in files if path.is_file()})
