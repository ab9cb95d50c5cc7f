"""What RecBole 1.2.1 expects of other packages, and what their current versions lack.

:func:`repair` adds absent names only, with the meaning that they had in the versions that RecBole
knew, and :func:`recbole_missing.plugin.uninstall` leaves them. :data:`TUNE` takes the place of
``ray.tune`` in RecBole while the plugin is installed. One more repair lives elsewhere: Ray, which
RecBole imports at its top, may be absent (:mod:`recbole_missing.lazy`).
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping
from typing import Any


def repair() -> None:
    """Add the absent names; a second call does nothing.

    Raises:
        ValueError: if pandas is one with which RecBole reads other data than there are.
    """
    import numpy as np
    import pandas as pd
    from scipy import sparse

    refuse_pandas(pd.__version__)
    # config/configurator.py:628-635 sets ``np.bool``, ``np.float`` and so on, which RecBole's other
    # modules use, from ``np.float_``, ``np.complex_`` and ``np.unicode_``, which numpy 2 has not.
    # Here are the first, which our Config takes, and the second, for RecBole's own.
    names = {"bool": np.bool_, "int": np.int_, "float": np.float64, "complex": np.complex128}
    names.update(object=np.object_, str=np.str_, long=np.int_, unicode=np.str_)
    names.update(float_=np.float64, complex_=np.complex128, unicode_=np.str_)
    for name, meaning in names.items():
        if name not in vars(np):
            setattr(np, name, meaning)
    # ``A._update(data_dict)`` in model/general_recommender/lightgcn.py:111, gcmc.py:174,
    # ncl.py:131, ngcf.py:110 and spectralcf.py:123, and in
    # model/knowledge_aware_recommender/kgin.py:356 and mcclk.py:425; absent since scipy 1.13.
    if not hasattr(sparse.dok_matrix, "_update"):
        sparse.dok_matrix._update = _update


def report(**values: float) -> None:
    """Tell a trial of Ray its result, as ``tune.report(**test_result)`` does.

    RecBole's ``objective_function`` calls it (quick_start/quick_start.py:223) in every search for
    hyper-parameters. Where no Ray is used, it does nothing. A current Ray takes the values as one
    mapping.
    """
    tune = sys.modules.get("ray.tune")
    if tune is None:
        return
    if "metrics" in inspect.signature(tune.report).parameters:
        tune.report(values)
    else:
        tune.report(**values)


class _Tune:
    """What RecBole uses of ``ray.tune``."""

    report = staticmethod(report)


TUNE = _Tune()


def refuse_pandas(version: str) -> None:
    """Refuse pandas 3.

    There ``df[field].fillna(value, inplace=True)`` changes nothing (data/dataset/dataset.py:501,
    648 and 650), so that holes of a column would stay in the data.
    """
    if int(version.split(".")[0]) >= 3:
        raise ValueError(
            f"pandas: must be older than 3 for RecBole 1.2.1, which would leave holes in its "
            f'columns, got {version}; run `python -m pip install "pandas<3"`.'
        )


def _update(matrix: Any, entries: Mapping[tuple[int, int], float]) -> None:
    """Set entries of a matrix in dictionary format: (row, column) -> value."""
    matrix._dict.update(entries)
