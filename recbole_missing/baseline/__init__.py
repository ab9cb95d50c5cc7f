"""Models of RecBole that compute something else than their publication, put right.

A class here has the name of RecBole's, and :func:`recbole_missing.plugin.get_model` returns it in
place of RecBole's. A model belongs here if no value of its settings gives the published model. What
a setting can mend stays RecBole's; ``docs/reference/models.md`` names that setting.

Every class states the difference in ``difference`` and logs it once when it is built. The settings
and the identity of a run are those of RecBole's class.
"""

from __future__ import annotations

from typing import Any

from recbole_missing.registry import Registry

BASELINES: Registry[Any] = Registry(
    "baseline",
    "register_model",
    {
        "NGCF": "recbole_missing.baseline.ngcf:NGCF",
        "Pop": "recbole_missing.baseline.pop:Pop",
        "SGL": "recbole_missing.baseline.sgl:SGL",
    },
)
"""Name -> the class that stands in place of RecBole's, alphabetical."""


def in_place_of(model: type) -> type:
    """The class to use where a class of RecBole is meant: ours if there is one, else ``model``."""
    if model.__module__.startswith("recbole.") and model.__name__ in BASELINES:
        return BASELINES[model.__name__]
    return model
