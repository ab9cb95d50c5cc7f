"""Interactions as RecBole reads them, and checks of the settings that read and filter them.

RecBole reads, filters, sorts and splits the interactions. Where it would do so wrongly without a
word, :class:`CheckedDataset` does it right, or refuses, or gives a count. Nothing here knows of
modalities.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence
from logging import getLogger
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import recbole
from numpy.typing import NDArray
from recbole.data.dataloader import UserDataLoader
from recbole.data.dataset import Dataset
from recbole.data.utils import get_dataloader
from recbole.utils import FeatureSource, InputType, ModelType

from recbole_missing import identity
from recbole_missing.config import defaults
from recbole_missing.config.constraints import ListOf, Text, unknown
from recbole_missing.data.atomic_files import AtomicFile
from recbole_missing.data.files import with_mark

SPLITS = ("training", "validation", "test")
_NO_LIMIT = (None, "[0,inf)")  # RecBole's defaults of the two intervals, which filter nothing


# -------------------------------------------------------------------------- before files are read


def check_interaction_files(config: Any) -> None:
    """Refuse settings and headers with which RecBole would read, filter or sort wrongly.

    Raises:
        ValueError: if the data set or a file is absent, a header is wrong, or a setting of columns,
            filters or order does not fit the columns; it names the file or the setting. Also if
            the model needs negatives and there are none.
    """
    _check_negatives(config)
    folder, name = Path(config["data_path"]), config["dataset"]
    if not folder.is_dir():
        raise ValueError(_absent(folder, name))
    parts = config["benchmark_filename"]
    if parts is not None and not ListOf(Text(), length=3).accepts(parts):
        raise ValueError(
            "benchmark_filename: must be a list of three names, for training, validation and "
            f"test, got {parts!r}; correct it."
        )
    _check_column_settings(config)
    ids = [config["USER_ID_FIELD"], config["ITEM_ID_FIELD"]]
    _check_ids(config, ids)
    columns: dict[str, str] = {}
    for path in [folder / f"{part}.inter" for part in _stems(config)]:
        if not path.is_file():
            raise ValueError(f"{path}: must be an interaction file, got no such file; add it.")
        table = AtomicFile.opened(path, config, ids)
        columns.update(_loaded_columns(config, "inter", table, ids))
        _check_time(config, table)
    interaction_columns = list(columns)
    for suffix, field in (("user", ids[0]), ("item", ids[1])):
        path = folder / f"{name}.{suffix}"
        if path.is_file() and _is_read(config, suffix):
            table = AtomicFile.opened(path, config, [field])
            columns.update(_loaded_columns(config, suffix, table, [field]))
    for suffix in config["additional_feat_suffix"] or ():
        path = folder / f"{name}.{suffix}"
        if path.is_file():
            columns.update(dict.fromkeys(AtomicFile.opened(path, config, []).names, "token"))
    _check_filters(config, columns)
    _check_threshold(config, interaction_columns)
    _check_discretization(config, columns)


def _check_discretization(config: Any, columns: Collection[str]) -> None:
    for field in config["discretization"] or ():
        if field not in (config["numerical_features"] or ()) or field not in columns:
            raise ValueError(
                "discretization: every column must be read and be in numerical_features, got "
                f"{field!r}, numerical_features {config['numerical_features']} and the columns "
                f"{list(columns)}; add it, or remove it here."
            )


def _check_negatives(config: Any) -> None:
    """Refuse a model of pairs without negatives. Our own models say themselves if they need them.

    Raises:
        ValueError: naming the setting.
    """
    model = config.model_class
    if not identity.is_recboles(model) or config["MODEL_INPUT_TYPE"] != InputType.PAIRWISE:
        return
    if not _samples_negatives(config) and not _reads_users(config):
        raise ValueError(
            f"{config['model']}: train_neg_sample_args must sample negatives, because the model "
            "learns from pairs of a positive and a negative item, got none; set it to "
            "{distribution: uniform, sample_num: 1}, or take another model."
        )


def _samples_negatives(config: Any) -> bool:
    return (config["train_neg_sample_args"] or {}).get("distribution", "none") != "none"


def _reads_users(config: Any) -> bool:
    """Tell whether the model learns from whole users, whatever type of input it declares."""
    return get_dataloader(config, "train") is UserDataLoader


def _check_ids(config: Any, ids: Sequence[str]) -> None:
    """Refuse settings that give users and items one column, or that take one of theirs away."""
    if ids[0] == ids[1]:
        raise ValueError(
            f"USER_ID_FIELD, ITEM_ID_FIELD: must be two columns, got {ids[0]!r} for both; correct "
            "one."
        )
    for suffix, fields in (config["unused_col"] or {}).items():
        needed = [field for field in fields if field in ids]
        if needed:
            raise ValueError(
                f"unused_col: must not name users and items, got {needed} under {suffix}; remove "
                "them there."
            )


def _stems(config: Any) -> list[str]:
    """Names of the interaction files, without ``.inter``."""
    name = config["dataset"]
    return [f"{name}.{part}" for part in config["benchmark_filename"] or ()] or [name]


def _absent(folder: Path, name: str) -> str:
    known = defaults.load(Path(recbole.__file__).parent / "properties" / "dataset" / "url.yaml")
    where = f" Files of a data set of this name are at {known[name]}." if name in known else ""
    return (
        f"{folder}: must be the folder of the data set {name!r}, got no such folder; create it, or "
        f"correct dataset or data_path.{where}"
    )


def _check_column_settings(config: Any) -> None:
    for key in ("load_col", "unload_col"):
        value = config[key]
        if value is None:
            continue
        lists = value.values() if isinstance(value, Mapping) else [value]
        fits = all(
            ListOf(Text()).accepts(one) or (key == "load_col" and one == "*") for one in lists
        )
        if not isinstance(value, Mapping) or not fits:
            raise ValueError(
                f"{key}: must give each file a list of columns, such as {{inter: [user_id, "
                f"item_id]}}, got {value!r}; correct it."
            )
    both = {*(config["load_col"] or ())} & {*(config["unload_col"] or ())}
    both = {suffix for suffix in both if config["load_col"][suffix] not in ("*", [])}
    if both:
        raise ValueError(
            f"unload_col: must not name files that load_col names too, got {sorted(both)}; keep "
            "one of the two (load_col: ~ reads all columns)."
        )


def _is_read(config: Any, suffix: str) -> bool:
    """Tell whether ``load_col`` lets RecBole read a file at all."""
    return config["load_col"] is None or bool(config["load_col"].get(suffix))


def loaded_fields(config: Any, suffix: str, names: Sequence[str]) -> list[str]:
    """The fields of a file that ``load_col`` and ``unload_col`` let RecBole read."""
    if not _is_read(config, suffix):
        return []
    wanted = (config["load_col"] or {}).get(suffix, "*")
    unwanted = (config["unload_col"] or {}).get(suffix, ())
    return [name for name in names if (wanted == "*" or name in wanted) and name not in unwanted]


def _loaded_columns(
    config: Any, suffix: str, table: AtomicFile, ids: Sequence[str]
) -> dict[str, str]:
    """Field -> type of what RecBole reads of a file, which must have the ``ids`` among it."""
    for field in ids:
        if field not in table.names:
            raise ValueError(
                f"{table.path}: the first line must be a header of `field:type` with "
                f"{sorted(ids)}, got {list(table.header)[:5]}; correct it, or USER_ID_FIELD and "
                "ITEM_ID_FIELD."
            )
    loaded = loaded_fields(config, suffix, table.names)
    for field in ids:
        if field not in loaded and (loaded or suffix == "inter"):
            hides = field in (config["unload_col"] or {}).get(suffix, ())
            key, verb = ("unload_col", "keep") if hides else ("load_col", "name")
            raise ValueError(
                f"{key}: must {verb} {field!r} under {suffix}, got {config[key]}; the columns of "
                f"{table.path.name} are {table.names}, add it."
            )
    asked = (config["load_col"] or {}).get(suffix, ())
    strangers = [field for field in asked if asked != "*" and field not in table.names]
    if strangers:
        getLogger().warning(
            f"load_col: {strangers} are not in {table.path.name}, whose columns are {table.names}."
        )
    return {field: table.type_of(field) for field in loaded}


def needs_times(config: Any) -> bool:
    """Tell whether RecBole puts the interactions in the order of time."""
    if config["benchmark_filename"] is not None:
        return False
    return config["eval_args"]["order"] == "TO" or config["rm_dup_inter"] is not None


def _check_time(config: Any, table: AtomicFile) -> None:
    field = config["TIME_FIELD"]
    if not needs_times(config):
        return
    loaded = loaded_fields(config, "inter", table.names)
    if field not in loaded and config["eval_args"]["order"] == "TO":
        what = f"eval_args: order TO needs the times of interactions, TIME_FIELD {field!r}, got "
        if field not in table.names:
            raise ValueError(
                f"{what}{table.path.name} with the columns {table.names}; set TIME_FIELD to one "
                "of them, or order to RO."
            )
        raise ValueError(
            f"{what}the columns {loaded} of {table.names} in {table.path.name}; add it to "
            f"load_col: {{inter: [{', '.join([*loaded, field])}]}}."
        )
    if field in loaded and table.type_of(field) != "float":
        line = next(iter(table.lines()), 0)
        example = f" (first: {table.cells(line)[table.names.index(field)]!r})" if line else ""
        raise ValueError(
            f"{table.path}: {field} must be numbers, `{field}:float`, to put interactions in "
            f"order, got `{field}:{table.type_of(field)}`{example}; correct the header or "
            "TIME_FIELD."
        )


def _check_filters(config: Any, columns: Mapping[str, str]) -> None:
    for key in ("user_inter_num_interval", "item_inter_num_interval"):
        if config[key] is not None:
            _check_interval(key, config[key])
    if config["rm_dup_inter"] not in (None, "first", "last"):
        raise ValueError(
            f"rm_dup_inter: must be first or last, or empty, got {config['rm_dup_inter']!r}; "
            "correct it."
        )
    intervals = config["val_interval"] or {}
    if not isinstance(intervals, Mapping):
        raise ValueError(
            'val_interval: must give columns an interval, such as {rating: "[4,inf)"}, got '
            f"{intervals!r}; correct it."
        )
    for field, interval in intervals.items():
        if field not in columns:
            raise ValueError(
                f"val_interval: {unknown('column', field, columns)} If a file has it, add it to "
                "load_col."
            )
        if columns[field].startswith("float"):
            _check_interval(f"val_interval: {field}", interval)
        elif not ListOf(Text()).accepts(interval):
            raise ValueError(
                f"val_interval: {field} holds tokens and must have a list of them, each in quotes, "
                f"got {interval!r}; correct it."
            )


def _check_interval(who: str, value: Any) -> None:
    if all(_is_interval(text.strip()) for text in str(value).split(";")):
        return
    bound = value if isinstance(value, (int, float)) else 5
    raise ValueError(
        f'{who}: must be an interval, such as "[{bound},inf)" for {bound} or more, or several '
        f"joined by ;, got {value!r}; correct it."
    )


def _is_interval(text: str) -> bool:
    if len(text) < 5 or text[0] not in "([" or text[-1] not in ")]":
        return False
    try:
        low, high = map(float, text[1:-1].split(","))
    except ValueError:
        return False
    return low <= high


def _check_threshold(config: Any, columns: Collection[str]) -> None:
    value = config["threshold"]
    if value is None:
        return
    if not isinstance(value, Mapping) or len(value) != 1 or next(iter(value)) not in columns:
        raise ValueError(
            "threshold: must give one column of the interactions a number, such as {rating: 4}, "
            f"got {value!r} and the columns {list(columns)}; correct it, or add the column to "
            "load_col."
        )


# ------------------------------------------------------------------------- after tables are read


def check_idle_filters(config: Any, n_interactions: int, n_kept: int) -> None:
    """Refuse filters that would leave something out but are not applied to ``benchmark_filename``.

    Args:
        config: RecBole's config.
        n_interactions: number of interactions in the files.
        n_kept: number of interactions that the filters of :func:`filters_given` would keep.

    Raises:
        ValueError: naming the settings.
    """
    if n_kept < n_interactions:
        raise ValueError(
            f"{', '.join(filters_given(config))}: must be empty with benchmark_filename, whose "
            "files RecBole takes as they are, got filters that would leave out "
            f"{n_interactions - n_kept:,} of {n_interactions:,} interactions; filter the files, or "
            "remove the settings."
        )


def filters_given(config: Any) -> list[str]:
    """Names of the filters that are set and could leave out interactions."""
    counts = [
        key
        for key in ("user_inter_num_interval", "item_inter_num_interval")
        if config[key] not in _NO_LIMIT
    ]
    return [key for key in ("rm_dup_inter", "val_interval") if config[key]] + counts


def check_labels(config: Any, labels: NDArray[Any]) -> None:
    """Refuse interactions with a negative label, which a ranking run would take for positive ones.

    Args:
        config: RecBole's config.
        labels: label of every interaction, numbers or words.

    Raises:
        ValueError: with the number of interactions whose label is 0 or less.
    """
    labeled = {*config["eval_args"]["mode"].values()} == {"labeled"}
    if labeled and not _samples_negatives(config) and _learns_labels(config):
        return  # every reader of the interactions reads the labels too
    negative = int((pd.to_numeric(pd.Series(labels), errors="coerce") <= 0).sum())
    if not negative:
        return
    field = config["LABEL_FIELD"]
    if config["threshold"]:
        column, value = next(iter(config["threshold"].items()))
        who, what = "threshold", f"with {column} below {value}"
        remedy = f'set val_interval: {{{column}: "[{value},inf)"}} instead of threshold'
    else:
        who, what, remedy = field, "with label 0", f'set val_interval: {{{field}: "(0,inf)"}}'
    if config["benchmark_filename"] is not None:
        remedy = "remove them from the files"
    harm = "RecBole would train on and count as hits all the same"
    if labeled and not _learns_labels(config):
        harm = f"{config['model']} would train on as positive ones"
        remedy += ", or take a model that learns from labels, such as NeuMF"
    raise ValueError(
        f"{who}: every interaction must be a positive one, got {negative:,} of {len(labels):,} "
        f"{what}, which {harm}; {remedy}."
    )


def _learns_labels(config: Any) -> bool:
    """Tell whether a model learns from single pairs and their labels, and from nothing else."""
    pointwise = config["MODEL_INPUT_TYPE"] == InputType.POINTWISE
    traditional = config["MODEL_TYPE"] == ModelType.TRADITIONAL
    return pointwise and not traditional and not _reads_users(config)


def check_given(config: Any, table: pd.DataFrame) -> None:
    """Refuse empty cells where labels come from: RecBole would fill them with the mean.

    Args:
        config: RecBole's config.
        table: the interactions that are left after filters.

    Raises:
        ValueError: with the number of such cells.
    """
    source = next(iter(config["threshold"] or [config["LABEL_FIELD"]]))
    empty = int(table[source].isna().sum()) if source in table else 0
    if empty:
        who = "threshold" if config["threshold"] else source
        remedy = "write a number there or remove the rows"
        if config["benchmark_filename"] is None and table[source].dtype != object:
            remedy += f', for example with val_interval: {{{source}: "(-inf,inf)"}}'
        raise ValueError(
            f"{who}: every interaction must have a {source}, got {empty:,} empty cells in "
            f"{len(table):,} rows, which RecBole would fill with the mean; {remedy}."
        )


def check_repeats(config: Any, pairs: Sequence[NDArray[np.int64]]) -> None:
    """Refuse pairs of user and item that several splits have; say how many a split has twice.

    RecBole does not hide a training item that is also a test item of the same user, so what was
    learnt by heart would count as a hit. With ``repeatable: True`` this is what is asked for.

    Args:
        config: RecBole's config.
        pairs: for each split a number for each interaction, equal for equal pairs.

    Raises:
        ValueError: with the number of such interactions in validation and test.
    """
    if config["repeatable"]:
        return
    in_files = config["benchmark_filename"] is not None
    remedy = "remove them from the files" if in_files else "set rm_dup_inter: first"
    unique = [np.unique(one) for one in pairs]
    found = []
    for late in (1, 2):
        for early in range(late):
            repeated = int(np.isin(pairs[late], unique[early]).sum())
            if repeated:
                found.append(
                    f"{repeated:,} of {len(pairs[late]):,} {SPLITS[late]} interactions that are in "
                    f"{SPLITS[early]} too"
                )
    name = config["dataset"]
    if found:
        raise ValueError(
            f"data set {name!r}: a user and an item must meet in one split only, got "
            f"{' and '.join(found)}; {remedy}, or set repeatable: True if users come back to the "
            "same items."
        )
    twice = [len(one) - len(each) for one, each in zip(pairs, unique)]
    if any(twice):
        counts = ", ".join(f"{SPLITS[place]} {count:,}" for place, count in enumerate(twice))
        getLogger().warning(
            f"data set {name!r}: {sum(twice):,} interactions repeat a pair of user and item "
            f"({counts}). Every one of them is trained on; to count a pair once, {remedy}."
        )


def say_untrained(name: str, users: Sequence[NDArray[Any]], items: Sequence[NDArray[Any]]) -> None:
    """Say how many users and items of validation and test have no training interaction.

    Args:
        name: name of the data set.
        users, items: ids of the interactions of each split.
    """
    counts = {}
    for word, ids in (("users", users), ("items", items)):
        late = np.unique(np.concatenate(ids[1:]))
        counts[word] = int((~np.isin(late, ids[0])).sum()), len(late)
    if counts["users"][0]:
        cold, total = counts["users"]
        getLogger().warning(
            f"data set {name!r}: {cold:,} of {total:,} users of validation and test have no "
            "training interaction. They are ranked all the same, by what a model gives to a user "
            "it has not met."
        )
    if counts["items"][0]:
        cold, total = counts["items"]
        getLogger().info(
            f"data set {name!r}: {cold:,} of {total:,} items of validation and test have no "
            "training interaction."
        )


# ----------------------------------------------------------------------------- what RecBole does


class CheckedDataset(Dataset):
    """RecBole's :class:`Dataset`, which sorts by exact times and refuses what it cannot read right.

    RecBole keeps times as float32. Times within about two minutes are equal there, in seconds
    since 1970 as in milliseconds.
    """

    config: Any
    inter_feat: Any
    _times: NDArray[Any] | None = None  # exact, of the sorted interactions

    def split(self) -> list[Any]:
        """Training, validation and test split as RecBole makes them, before anything is hidden.

        Raises:
            ValueError: if a pair of user and item is in two splits.
        """
        splits: list[Any] = super().build()
        tables = [split.inter_feat for split in splits]
        pairs = [
            table[self.uid_field].numpy() * self.item_num + table[self.iid_field].numpy()
            for table in tables
        ]
        check_repeats(self.config, pairs)
        return splits

    def _load_feat(self, filepath: str, source: Any) -> Any:
        """Read a table as RecBole does; a byte-order mark is skipped.

        Raises:
            ValueError: if a row has another number of cells than the header, no user or item, or a
                text where a number must be.
        """
        suffix = source.value if isinstance(source, FeatureSource) else source
        ids = [self.uid_field, self.iid_field]
        file = AtomicFile.opened(Path(filepath), self.config, ids)
        fields = loaded_fields(self.config, suffix, file.names)
        if not fields:
            return super()._load_feat(filepath, source)
        lines, config = file.lines(), self.config
        self.config = copy.copy(config)
        encoding = {"encoding": with_mark(file.encoding)}
        self.config.final_config_dict = {**config.final_config_dict, **encoding}
        try:
            table = super()._load_feat(filepath, source)
        except ValueError as error:
            raise file.unreadable(error, fields) from error
        finally:
            self.config = config
        file.check_ids(table, [field for field in ids if field in fields], lines)
        time = self.time_field
        sorts = source == FeatureSource.INTERACTION and needs_times(config)
        if sorts and time in fields:
            file.check_times(table, time, lines)
            table[time] = file.exact(table, time)
        return table

    def _data_processing(self) -> None:
        """Filter, number and clean the tables.

        Raises:
            ValueError: if a filter is set that RecBole would skip and that would leave out rows.
        """
        if self.benchmark_filename_list and filters_given(self.config):
            shadow = copy.copy(self)
            shadow.feat_name_list = self._build_feat_name_list()
            for name in shadow.feat_name_list:
                setattr(shadow, name, getattr(self, name).copy())
            for step in ("_remove_duplication", "_filter_by_field_value", "_filter_by_inter_num"):
                getattr(shadow, step)()
            check_idle_filters(self.config, len(self.inter_feat), len(shadow.inter_feat))
        super()._data_processing()

    def _remove_duplication(self) -> None:
        """Keep the first or last of equal pairs; of those at one time, by their place in the file.

        RecBole's own sort is not stable, so its choice may differ between machines.
        """
        keep, time = self.config["rm_dup_inter"], self.time_field
        if keep is None or time not in self.inter_feat:
            super()._remove_duplication()
            return
        table = self.inter_feat.sort_values(time, kind="stable")
        self.inter_feat = table.drop_duplicates([self.uid_field, self.iid_field], keep=keep)

    def _filter_inter_by_user_or_item(self) -> None:
        """Leave out interactions of users and items that their own tables lack; say how many."""
        before = len(self.inter_feat)
        super()._filter_inter_by_user_or_item()
        lost = before - len(self.inter_feat)
        if lost:
            name = self.dataset_name
            self.logger.warning(
                f"filter_inter_by_user_or_item: {lost:,} of {before:,} interactions are left out, "
                f"because {name}.user or {name}.item has no row for their user or item."
            )

    def _reset_index(self) -> None:
        """Number the rows again.

        Raises:
            ValueError: if a table is empty.
        """
        for name in self.feat_name_list:
            if getattr(self, name).empty:
                filters = {key: self.config[key] for key in filters_given(self.config)}
                raise ValueError(
                    f"data set {self.dataset_name!r}: {name[: -len('_feat')]} table must have "
                    f"rows, got none after the filters {filters}; loosen them, or fill the file."
                )
        super()._reset_index()

    def _remap_ID_all(self) -> None:  # noqa: N802  RecBole's name
        """Number users and items; then sort by time, while times are exact.

        RecBole sorts again later, by float32. That sort is stable, so it keeps this order.
        Interactions at one time keep the order of the file.

        Raises:
            ValueError: if an interaction has no label where labels are read.
        """
        check_given(self.config, self.inter_feat)
        super()._remap_ID_all()
        table, time = self.inter_feat, self.time_field
        if time not in table or not needs_times(self.config):
            return
        if self.config["eval_args"]["order"] == "TO":
            table.sort_values(time, kind="stable", ignore_index=True, inplace=True)
            self._times = table[time].to_numpy()
        table[time] = table[time].astype(np.float64)

    def _set_label_by_threshold(self) -> None:
        """Set labels.

        Raises:
            ValueError: if there are negative ones.
        """
        super()._set_label_by_threshold()
        field = self.label_field
        if field in self.inter_feat:
            labels = self.inter_feat[field].to_numpy()
            words = self.field2id_token.get(field)
            check_labels(self.config, labels if words is None else words[labels])

    def time_based_split(self, ratios: Sequence[float], group_by: str) -> list[Any]:
        """Split as RecBole does, by exact times. The interactions are in the order of time.

        The last part has what is later than a share ``1 - ratios[-1]`` of all interactions. What is
        left of each user is cut in the ratio of the first two.

        Raises:
            ValueError: if the interactions are not in the order of time.
        """
        if self._times is None:
            raise ValueError(
                "eval_args: split TS must come with order TO, got "
                f"{self.config['eval_args']['order']}; set order to TO."
            )
        shares = np.array(ratios) / sum(ratios)
        # RecBole's bound is a percentile, between the time of this interaction and the next.
        last = int((1 - shares[-1]) * (len(self._times) - 1) + 1e-9)
        is_late = self._times > self._times[last]
        users = pd.factorize(self.inter_feat[group_by].numpy())[0]
        by_user = np.argsort(users, kind="stable")
        early, late = by_user[~is_late[by_user]], by_user[is_late[by_user]]
        counts = np.bincount(users[early], minlength=users.max() + 1)
        cuts = (counts * (shares[0] / (1 - shares[2]))).astype(int)
        places = np.arange(len(early)) - (np.cumsum(counts) - counts)[users[early]]
        is_train = places < cuts[users[early]]
        self._drop_unused_col()
        parts = early[is_train], early[~is_train], late
        return [self.copy(self.inter_feat[part]) for part in parts]
