"""recbole_missing: recommendation when items lack an image, a text or a sound, as a RecBole plugin.

Importing this package is enough for RecBole's own functions to know its models, data set, trainer
and settings, whichever of the two is imported first. The import itself is light: torch and RecBole
are imported when something of theirs is first needed.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from recbole_missing import plugin
from recbole_missing.version import __version__

if TYPE_CHECKING:
    from recbole_missing.evaluation.metrics import register_metric
    from recbole_missing.imputation import IMPUTERS, register_imputer
    from recbole_missing.modality import Modalities, Modality
    from recbole_missing.model import MODELS
    from recbole_missing.model.base import MultimodalRecommender
    from recbole_missing.plugin import register_model
    from recbole_missing.quick_start import run_recbole_missing

__all__ = [
    "IMPUTERS",
    "MODELS",
    "Modalities",
    "Modality",
    "MultimodalRecommender",
    "__version__",
    "register_imputer",
    "register_metric",
    "register_model",
    "run_recbole_missing",
]

_HOMES = {
    "IMPUTERS": "imputation",
    "MODELS": "model",
    "Modalities": "modality",
    "Modality": "modality",
    "MultimodalRecommender": "model.base",
    "register_imputer": "imputation",
    "register_metric": "evaluation.metrics",
    "register_model": "plugin",
    "run_recbole_missing": "quick_start",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        module = importlib.import_module(f"{__name__}.{_HOMES[name]}")
    except ImportError as error:
        from recbole_missing import environment

        advice = "; ".join(environment.problems()) or "reinstall the package"
        raise ImportError(f"recbole_missing: {error}; {advice}") from error
    return getattr(module, name)


def __dir__() -> list[str]:
    """List the public names, imported or not."""
    return sorted({*globals(), *__all__})


plugin.install()
