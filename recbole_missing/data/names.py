"""Names that a modality may not have, because one of its settings would mean something else.

A modality ``noise`` has the setting ``noise_scale``, which is a number in RecBole's DiffRec.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterable
from pathlib import Path

import recbole
from recbole.utils import argument_list as lists

from recbole_missing.config import defaults, of_recbole
from recbole_missing.data.sources import modality_settings
from recbole_missing.modality import check_name

_OF_A_RUN = ("model", "dataset", "config_files", "nproc", "world_size", "ip", "port", "offset")
_RECBOLE = Path(recbole.__file__).parent / "properties"


@functools.cache
def recbole_settings() -> frozenset[str]:
    """Settings that RecBole names for every model."""
    files = (_RECBOLE / "overall.yaml", _RECBOLE / "dataset" / "sample.yaml")
    in_yaml = {key for path in files for key in defaults.load(path)}
    names = (lists.general_arguments, lists.training_arguments, lists.evaluation_arguments)
    unnamed = ("local_rank", *of_recbole.UNLISTED)
    return frozenset(in_yaml.union(_OF_A_RUN, unnamed, *names, lists.dataset_arguments))


def of_recboles_model(name: str) -> frozenset[str]:
    """Settings in RecBole's own YAML file of a model; empty if there is none."""
    path = _RECBOLE / "model" / f"{name}.yaml"
    return frozenset(defaults.load(path)) if path.is_file() else frozenset()


@functools.cache
def of_any_run() -> frozenset[str]:
    """Settings of the package, of RecBole, and of all their models."""
    found = {*recbole_settings(), *defaults.overall()}
    for name in defaults.names("model"):
        found.update(defaults.read("model", name))
    for path in (_RECBOLE / "model").glob("*.yaml"):
        found.update(of_recboles_model(path.stem))
    return frozenset(found)


def check_names(names: Iterable[str], others: Collection[str]) -> None:
    """Refuse a modality whose settings are not its own.

    Args:
        names: names of the modalities.
        others: settings that belong to no modality.

    Raises:
        ValueError: naming the setting, or for a name that torch or Python cannot take.
    """
    for name in names:
        check_name(name)
        taken = [key for key in modality_settings(name) if key in others]
        if taken:
            raise ValueError(
                f"modality {name!r}: its settings must be its own, but {taken[0]} is a setting "
                "already; rename the modality."
            )
