"""recbole_missing: recommendation when items lack an image, a text or a sound, as a RecBole plugin.

Importing this package is enough for RecBole's own functions to know its models, data set, trainer
and settings.
"""

import warnings

from recbole_missing.version import __version__  # isort: skip

try:
    with warnings.catch_warnings():  # of the Ray that RecBole imports, which nobody here can mend
        warnings.filterwarnings("ignore", message="pkg_resources is deprecated")
        from recbole_missing.modality import Modalities, Modality
        from recbole_missing.model import MODELS
        from recbole_missing.model.base import MultimodalRecommender
        from recbole_missing.plugin import install, register_model
        from recbole_missing.quick_start import run_recbole_missing
except ImportError as error:
    from recbole_missing import environment

    advice = "; ".join(environment.problems()) or "reinstall the package"
    raise ImportError(f"recbole_missing: {error}; {advice}") from error

__all__ = [
    "MODELS",
    "Modalities",
    "Modality",
    "MultimodalRecommender",
    "__version__",
    "register_model",
    "run_recbole_missing",
]

install()
