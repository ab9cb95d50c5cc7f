"""Parameters and modules that two or more models share."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_missing.data.modality import Modality


def xavier_table(n_rows: int, size: int) -> nn.Parameter:
    """Xavier-uniform table ``(n_rows, size)`` whose padding row 0 is zero and outside the fan."""
    table = torch.zeros(n_rows, size)
    nn.init.xavier_uniform_(table[1:])
    return nn.Parameter(table)


def feature_table(modality: Modality) -> nn.Parameter:
    """Trainable copy of the features, shape ``(n_items, dim)``."""
    return nn.Parameter(modality.features.clone())


def rows(table: Tensor, ids: Tensor) -> Tensor:
    """Rows ``ids`` of ``table``, shape ``(*ids.shape, size)``; its gradient is a dense table."""
    return F.embedding(ids, table)
