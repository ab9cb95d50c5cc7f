"""Pickled files as other projects publish them."""

from __future__ import annotations

import pickle

import numpy as np


def save_object(path, value):
    """Write what ``np.save`` writes for an object that it has to pickle."""
    header = {"descr": "|O", "fortran_order": False, "shape": ()}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        file.write(value if isinstance(value, bytes) else pickled(value))


def pickled(value, protocol=3):
    outer = np.empty((), dtype=object)
    outer[()] = value
    return pickle.dumps(outer, protocol=protocol)
