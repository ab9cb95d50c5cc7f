"""What RecBole 1.2.1 expects of numpy and scipy, and what their current versions lack.

``setup.py`` still pins numpy below 2 and scipy below 1.13. Newer ones were tried on one machine
only, with a GPU: Python 3.12.3, torch 2.11, numpy 2.5.2, scipy 1.18.1, pandas 2.3.3.

Only absent names are added, and :func:`recbole_missing.plugin.uninstall` leaves them. Each has the
meaning that it had in the versions that RecBole knew. Ray, which RecBole imports at its top, may be
absent: see :mod:`recbole_missing.lazy`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def repair() -> None:
    """Add the absent names; a second call does nothing."""
    import numpy as np
    from scipy import sparse

    # config/configurator.py sets these names, which its other modules use, from ``float_``,
    # ``complex_`` and ``unicode_``; numpy 2 has none of the three.
    names = {"bool": np.bool_, "int": np.int_, "float": np.float64, "complex": np.complex128}
    names.update(object=np.object_, str=np.str_, long=np.int_, unicode=np.str_)
    for name, meaning in names.items():
        if name not in vars(np):
            setattr(np, name, meaning)
    # ``A._update(data_dict)`` in model/general_recommender/lightgcn.py, gcmc.py, ncl.py, ngcf.py
    # and spectralcf.py, and in model/knowledge_aware_recommender/kgin.py and mcclk.py; absent
    # since scipy 1.13.
    if not hasattr(sparse.dok_matrix, "_update"):
        sparse.dok_matrix._update = _update


def _update(matrix: Any, entries: Mapping[tuple[int, int], float]) -> None:
    """Set entries of a matrix in dictionary format: (row, column) -> value."""
    matrix._dict.update(entries)
