"""A RecBole data set with modalities.

The steps are, in this order: split, draw the mask, read and encode the features, scale them,
impute them.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from recbole.data.interaction import cat_interactions
from scipy import sparse
from torch import Tensor

from recbole_missing import identity, registry
from recbole_missing.config.constraints import Bool, Choice, ListOf, Optional, Text
from recbole_missing.data import cache, missing, scale, sources
from recbole_missing.data.aligned import Source
from recbole_missing.data.atomic_files import encoding_of
from recbole_missing.data.catalogue import Catalogue, read_edges
from recbole_missing.data.interactions import CheckedDataset, say_untrained
from recbole_missing.data.loading import rows_of
from recbole_missing.data.scale import Scale
from recbole_missing.identity import Parts
from recbole_missing.imputation import IMPUTERS, imputer_settings, log_report, make_imputer
from recbole_missing.modality import Modalities, Modality
from recbole_missing.quiet import quiet

DATA_SETTINGS = {
    "modalities": Optional(ListOf(Text())),
    "imputation": Choice(*IMPUTERS),
    "encoder_cache": Bool(),
    "imputation_cache": Bool(),
    "imputation_edges_file": Optional(Text()),
    scale.FOR_ALL: Optional(scale.SCALES),
    "test_mask": Choice("train_valid", "train"),
    **missing.MISSING_SETTINGS,
}
"""Settings that decide the data, in addition to those of each modality and imputer."""


class MultimodalDataset(CheckedDataset):
    """RecBole's data set with modalities. Without modalities it behaves like RecBole's, checked.

    Attributes, which all three splits share after :meth:`build`:
        known: the observed :class:`Modalities`, scaled, in which missing rows are zero; None if
            there are no modalities.
        scales: modality -> its :class:`~recbole_missing.data.scale.Scale`. The config holds their
            numbers, as ``data_scales``, so that they get into checkpoints.
        modalities: ``known`` completed by imputation. They are imputed when they are first read,
            so a model that reads no modalities does not wait for it.
        new_items: bool ``(item_num,)``, items whose training interactions were moved to the test
            split (the new-item setting).
        identity: hashes of the data as built (:data:`recbole_missing.identity.Parts`). The config
            holds them too, as ``data_identity``, so that they get into checkpoints.

    Nothing leaks: hidden rows are set to zero before imputation and no encoder sees them, and
    imputation sees training interactions only.
    """

    known: Modalities | None = None
    scales: Mapping[str, Scale] = {}
    new_items: Tensor
    identity: Parts
    _imputation: Imputation | None = None

    @property
    def modalities(self) -> Modalities | None:
        """The completed modalities; None without modalities, or before :meth:`build`."""
        return None if self._imputation is None else self._imputation.completed

    def build(self) -> list[Any]:
        """Split as RecBole does, draw the mask, read the modalities, and prepare their imputation.

        Raises:
            ValueError: if a split is empty, ``topk`` is larger than the number of items, no item
                has a modality, or a file is wrong.
        """
        splits, hidden, new = self._masked(self.split())
        self._check_splits(splits)
        columns = [
            [split.inter_feat[field].numpy() for split in splits]
            for field in (self.uid_field, self.iid_field)
        ]
        say_untrained(self.dataset_name, *columns)
        contents: dict[str, Content] = {}
        known = edges = None
        if self.config["modalities"]:
            known, contents = self._read(hidden, new)
            edges = self._edges()
        parts = table_identity(self, splits)
        parts.update(self._modality_identity(contents, hidden, new, edges))
        self.config["data_identity"] = parts
        self.config["data_scales"] = scale.states(self.scales)
        imputation = None if known is None else Imputation(known, splits[0], edges)
        for split in (self, *splits):
            split.new_items, split.identity = torch.from_numpy(new), parts
            split.known, split.scales, split._imputation = known, self.scales, imputation
        return splits

    def __getitem__(self, index: Any, join: bool = True) -> Any:
        """Rows of the interactions, with the columns of their users and items."""
        table = rows_of(self.inter_feat, index)
        return self.join(table) if join else table

    def join(self, table: Any) -> Any:
        """Add the columns of the users and of the items in ``table`` to it, and return it."""
        for field, features in ((self.uid_field, self.user_feat), (self.iid_field, self.item_feat)):
            if features is not None and field in table:
                table.update(rows_of(features, table[field]))
        return table

    def interaction_matrix(self) -> sparse.csr_matrix:
        """Interactions of this split, ``(user_num, item_num)``, padding included."""
        users = self.inter_feat[self.uid_field].numpy()
        items = self.inter_feat[self.iid_field].numpy()
        ones = np.ones(len(users), dtype=np.float32)
        return sparse.csr_matrix((ones, (users, items)), shape=(self.user_num, self.item_num))

    def item_groups(self) -> dict[str, Tensor]:
        """Groups of items for which results are reported: name -> bool ``(item_num,)``.

        There is a group for each number of missing modalities. In the new-item setting there are
        also the groups ``warm`` and ``new``.
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
        """Read the modalities again with nothing hidden. Only evaluations use this.

        Encoders and scales still learn from the observed items alone, as for ``modalities``. So an
        observed row is bit-identical to that of ``modalities``, and a hidden row is in the same
        space.

        Returns:
            Modalities in which ``observed`` is True for every item that truly has the modality.
            The other rows are zero.

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
            present = torch.from_numpy(source.present)
            scaled = self.scales[source.name].apply(features, present)
            found.append(Modality(source.name, scaled, present))
        return Modalities(found)

    def unscaled(self, name: str) -> Tensor:
        """Read the observed rows of a modality again, before their scale; the others are zero."""
        assert self.known is not None
        with quiet():  # what there is to say about the files was said in `build`
            (source,) = self._sources([name])
            return torch.from_numpy(source.features(self.known[name].observed.numpy()))

    def identity_under(self, config: Any, splits: list[Any], read: dict[str, Any]) -> Parts:
        """The ``identity`` that :meth:`build` would give with other settings of the modalities.

        Args:
            config: must have the same settings of split and filters as this data set.
            splits: what :meth:`split` returned.
            read: what earlier calls have read; this call adds to it. So a new mask can be drawn
                without reading a file again.
        """
        other = copy.copy(self)
        other.config = config
        masked, hidden, new = other._masked(splits)
        other._check_splits(masked)
        names = list(config["modalities"] or ())
        keys = {name: repr(_source_values(config, name)) for name in names}
        for source in other._sources(name for name in names if keys[name] not in read):
            read[keys[source.name]] = Content.of(source)
        graph = f"edges {config['imputation_edges_file']} {names and reads_edges(config)}"
        if graph not in read:
            read[graph] = other._edges() if names else None
        if "tables" not in read:
            read["tables"] = table_identity(self, splits)
        tables = table_identity(self, masked) if new.any() else read["tables"]
        contents = {name: read[keys[name]] for name in names}
        return {**tables, **other._modality_identity(contents, hidden, new, read[graph])}

    def _modality_identity(
        self,
        contents: Mapping[str, Content],
        hidden: np.ndarray,
        new: np.ndarray,
        edges: sparse.csr_matrix | None,
    ) -> Parts:
        items = identity.of_tokens(self.field2id_token[self.iid_field])
        masks, features, parts = [], [], {}
        for column, (name, content) in enumerate(contents.items()):
            shown = content.present & ~hidden[:, column]
            self._check_observed(name, shown)
            rows = content.rows[shown[content.present]]
            masks.append([name, identity.of_items(items, shown)])
            word = scale.chosen(name, self.config) or "none"
            scaled = [] if word == "none" else [word]  # the word and the rows decide its numbers
            rows_of_items = identity.of_items(items, shown, rows)
            features.append([name, content.encoder, rows_of_items, *scaled])
        if contents:
            parts = {"masks": identity.digest(masks), "features": identity.digest(features)}
        if new.any():
            parts["new_items"] = identity.of_items(items, new)
        if edges is not None:
            parts["edges"] = identity.digest(edges)
        return parts

    def _masked(self, splits: list[Any]) -> tuple[list[Any], np.ndarray, np.ndarray]:
        """Splits after new items were moved, the mask of missing modalities, and the new items."""
        names = list(self.config["modalities"] or ())
        train = splits[0].inter_feat[self.iid_field].numpy()
        counts = np.bincount(train, minlength=self.item_num)
        tokens = self.field2id_token[self.iid_field]
        folder = Path(self.dataset_path)
        hidden, new = missing.draw(self.config, tokens, names, counts, folder, self.dataset_name)
        if new.any():
            splits = self._move_new_items(splits, torch.from_numpy(new))
        return splits, hidden, new

    def _move_new_items(self, splits: list[Any], new: Tensor) -> list[Any]:
        """Move training interactions of new items to the test split (DGMRec's second setting).

        Users who then have no training interaction are removed from validation and test.
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

    def _read(self, hidden: np.ndarray, new: np.ndarray) -> tuple[Modalities, dict[str, Content]]:
        """Read the modalities, and fit and apply their scales (:attr:`scales`)."""
        found, contents, scales = [], {}, {}
        donors = torch.from_numpy(~new)
        for column, source in enumerate(self._sources(self.config["modalities"])):
            observed = source.present & ~hidden[:, column]
            self._check_observed(source.name, observed)
            features, rows = map(torch.from_numpy, (source.features(observed), observed))
            word = scale.chosen(source.name, self.config) or "none"
            fitted = Scale.fitted(source.name, word, features, rows, donors)
            found.append(Modality(source.name, fitted.apply(features, rows), rows))
            contents[source.name], scales[source.name] = Content.of(source), fitted
            self._report(source.present, observed, found[-1], word)
        known, self.scales = Modalities(found), scales
        if identity.reads_modalities(self.config.model_class):
            scale.warn_if_far_apart(self.dataset_name, known, self.config)
        bare = int((known.n_missing[1:] == len(known)).sum())
        if bare and len(known) > 1:
            self.logger.warning(
                f"data set {self.dataset_name!r}: {bare:,} of {self.item_num - 1:,} items lack "
                "every modality; a model knows them by their interactions and by what the "
                "imputation gives them."
            )
        return known, contents

    def _check_observed(self, name: str, observed: np.ndarray) -> None:
        if not observed.any():
            raise ValueError(
                f"modality {name!r}: must be observed for at least one item, got 0 of "
                f"{self.item_num - 1}; lower missing_ratio or remove it from `modalities`."
            )

    def _sources(self, names: Iterable[str]) -> Iterator[Source]:
        """Open the modalities one by one."""
        catalogue = Catalogue(
            self.dataset_name,
            Path(self.dataset_path),
            self.field2id_token[self.iid_field],
            self.iid_field,
            self.config["field_separator"],
            self.config["seq_separator"],
            encoding_of(self.config),
        )
        for name in names:
            yield sources.open_source(name, self.config, catalogue)

    def _edges(self) -> sparse.csr_matrix | None:
        """The user's own item graph; None if there is none or the imputer does not read it."""
        file = self.config["imputation_edges_file"]
        if file is None:
            return None
        if not reads_edges(self.config):
            self.logger.warning(
                f"imputation_edges_file: {file} has no effect, because the imputation "
                f"{self.config['imputation']} does not read it; set imputation_graph to edges."
            )
            return None
        tokens = self.field2id_token[self.iid_field]
        path = Path(self.dataset_path) / file
        separator, encoding = self.config["field_separator"], encoding_of(self.config)
        return read_edges(path, tokens, separator, encoding)

    def _report(
        self, present: np.ndarray, observed: np.ndarray, modality: Modality, word: str
    ) -> None:
        n_items = self.item_num - 1
        self.logger.info(
            f"modality {modality.name!r}: {modality.dim} features, {n_items - present.sum()} of "
            f"{n_items} items lack it by nature, {present.sum() - observed.sum()} more are hidden "
            f"({self.config['missing_protocol']}), filled by {self.config['imputation']}; scale "
            f"{word}."
        )


class Content(NamedTuple):
    """What the features of one modality are made from. It does not depend on the mask.

    ``present`` is bool ``(n_items,)``. ``rows`` holds a hash for each present item, in order.
    ``encoder`` is that of the :class:`~recbole_missing.data.aligned.Source`. The output of an
    encoder is not hashed, because its last digits differ between machines.
    """

    present: np.ndarray
    rows: np.ndarray
    encoder: Sequence[Any] | None

    @classmethod
    def of(cls, source: Source) -> Content:
        """Hash the rows of an opened modality."""
        return cls(source.present, identity.of_rows(source.pieces()), source.encoder)


class Imputation:
    """The imputation of one data set. It runs when its result is first read.

    Args:
        known: modalities whose missing rows hold zeros.
        train: the training split.
        edges: the user's own item graph, ``(item_num, item_num)``, or None.
    """

    def __init__(self, known: Modalities, train: Any, edges: sparse.csr_matrix | None) -> None:
        """Store the arguments; nothing is imputed yet."""
        self.known, self.train, self.edges = known, train, edges

    @cached_property
    def completed(self) -> Modalities:
        """The completed modalities. Imputing neither reads nor changes the run's generators."""
        from recbole_missing.imputation.base import imputing  # and scikit-learn with it

        config = self.train.config
        imputer = make_imputer(config)
        arguments = self.known, self.train.interaction_matrix(), ~self.train.new_items, self.edges
        with imputing(imputer):
            if config["imputation_cache"] and imputer.costly:
                folder = Path(config["checkpoint_dir"]) / "imputed"
                completed = cache.transform(imputer, *arguments, folder)
            else:
                completed = imputer.fit(*arguments[1:]).transform(self.known)
        log_report(config["imputation"], imputer, " (RecBole's padding counts as a missing item)")
        return completed


def table_identity(dataset: Any, splits: Sequence[Any]) -> Parts:
    """Identity of any RecBole data set after its ``build``: tokens, splits and other columns.

    Args:
        dataset: RecBole's data set, which has the tokens of its splits.
        splits: training, validation and test split.
    """
    fields = dataset.uid_field, dataset.iid_field
    tokens = [dataset.field2id_token[field] for field in fields]
    users, items = (identity.of_tokens(words) for words in tokens)
    digests = []
    for number, split in enumerate(splits):
        columns = dict(split.inter_feat.interaction)
        ids = [columns.pop(field).numpy() for field in fields]
        pairs = users[ids[0]], items[ids[1]]
        # Batches are made from the training split in its order; an evaluation sees users as sets.
        digests.append(identity.of_interactions(*pairs, columns, in_order=number == 0))
    catalogue = [[str(token) for token in words] for words in tokens]
    parts = {"catalogue": identity.digest(catalogue), "split": identity.digest(digests)}
    others = _other_columns(dataset, fields)
    return {**parts, "columns": identity.digest(others)} if others else parts


def _other_columns(dataset: Any, fields: tuple[str, str]) -> dict[str, Any]:
    """Other data that RecBole has read: columns of users and items, their tokens, vectors."""
    tables = {name: getattr(dataset, name) for name in dataset.feat_name_list}
    found: dict[str, Any] = {
        f"{name} {field}": values
        for name, table in tables.items()
        if name != "inter_feat" and table is not None
        for field, values in table.interaction.items()
        if field not in fields
    }
    for field, words in dataset.field2id_token.items():
        if field not in fields:
            found[f"tokens {field}"] = [str(word) for word in words]
    return {**found, **getattr(dataset, "_preloaded_weight", {})}


def reads_edges(config: Any) -> bool:
    """Tell whether the imputer reads the user's own item graph. One from outside may always do so.

    Args:
        config: RecBole's, or a dict with the same keys.

    Raises:
        ValueError: if there is no such imputer.
    """
    imputer = IMPUTERS.resolve(config["imputation"])
    if registry.is_outside(imputer):
        return True
    return "graph" in imputer.hyperparameters and config["imputation_graph"] == "edges"


def imputation_in_force(config: Any, model: type) -> dict[str, Any]:
    """The imputer and its settings; empty if the model or the data have no modalities.

    Args:
        config: RecBole's, or a dict with the same keys. A setting that is absent counts as None.
        model: class of the model.

    Raises:
        ValueError: if there is no such imputer.
    """

    def value(key: str) -> Any:
        return config[key] if key in config else None  # noqa: SIM401  Config has no `get`

    if not (value("modalities") and identity.reads_modalities(model)):
        return {}
    keys = ("imputation", *imputer_settings(value("imputation")))
    return {key: value(key) for key in keys}


def data_settings(config: Any) -> dict[str, Any]:
    """Settings that the data are made with: split, filters, modalities, mask, imputer.

    They describe a run. They do not identify it: the data as built do.

    Args:
        config: a dict with the keys of a RecBole config.
    """
    values = {key: config.get(key) for key in (*DATA_SETTINGS, *_SPLIT_SETTINGS)}
    del values["encoder_cache"], values["imputation_cache"]  # a cache changes no result
    return {**values, **modality_values(config, config.get("modalities") or ())}


def modality_values(config: Any, names: Iterable[str]) -> dict[str, Any]:
    """Settings of the sources of some modalities, without those that are empty."""
    keys = [key for name in names for key in sources.modality_settings(name)]
    values = {key: config[key] for key in keys if key in config}
    return {key: value for key, value in values.items() if value is not None}


def _source_values(config: Any, name: str) -> dict[str, Any]:
    """Settings that decide what :meth:`Content.of` gives for a modality: all but its scale."""
    values = modality_values(config, [name])
    return {key: value for key, value in values.items() if key != f"{name}_scale"}


_SPLIT_SETTINGS = (
    "benchmark_filename", "eval_args", "filter_inter_by_user_or_item", "item_inter_num_interval",
    "rm_dup_inter", "user_inter_num_interval", "val_interval",
)  # fmt: skip


def fingerprint(config: Any) -> str | None:
    """Key of RecBole's own caches of data sets and dataloaders.

    RecBole reads such a cache before the data are built. So the key holds more than what decides
    the data: all of their settings, all files that RecBole or this package reads, and the code that
    reads them. A cache may be made again without need, but it is never used for other data.

    Returns:
        The key. None if the run asks for no cache; then no file is read.
    """
    keys = ("save_dataset", "save_dataloaders", "dataset_save_path", "dataloaders_save_path")
    if not any(config[key] for key in keys):
        return None
    values = config.final_config_dict
    settings = data_settings(values)
    settings.update({key: value for key, value in values.items() if key.startswith("imputation_")})
    eval_args = {key: value for key, value in config["eval_args"].items() if key != "mode"}
    settings.update(eval_args=eval_args, imputation_cache=None, encoding=config["encoding"])
    names = list(config["modalities"] or ())
    files = [[path.name, _file_digest(path)] for path in _data_files(config, names)]
    return identity.digest([settings, files, identity.of_source(MultimodalDataset)])


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return identity.of_blocks(iter(lambda: file.read(1 << 20), b""))


def _data_files(config: Any, names: list[str]) -> list[Path]:
    folder, dataset = Path(config["data_path"]), config["dataset"]
    catalogue = Catalogue(
        dataset, folder, (), config["ITEM_ID_FIELD"], encoding=encoding_of(config)
    )
    files = [path for path in folder.glob("*") if path.name.startswith(f"{dataset}.")]
    for name in names:
        files += sources.feature_files(name, config, catalogue)
    keys = ("missing_file", "new_items_file", "imputation_edges_file")
    files += [folder / config[key] for key in keys if config[key]]
    return sorted({path for path in files if path.is_file()})
