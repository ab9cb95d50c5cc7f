"""Known rows hidden on purpose, and how near a guess comes to them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from recbole_missing.imputation.base import Table

_BLOCK = 16384  # rows compared at a time


def hide(table: Table, hidden: Tensor) -> Table:
    """Return the table without the rows ``hidden`` (bool ``(n_items,)``), zeros from here on."""
    observed = table.observed & ~hidden
    return Table(table.name, table.features * observed[:, None], observed)


class Truth:
    """What one modality truly holds, and the scale that errors are measured on.

    Every column is divided by its standard deviation over the observed rows, so that the mean row
    gets a squared error of about 1; constant columns are left out.
    """

    def __init__(self, table: Table) -> None:
        """Measure the columns."""
        self.table = table
        rows = table.features[table.observed].double()
        deviation = rows.std(dim=0, correction=0)
        varies = deviation > 1e-6 * rows.abs().amax(dim=0)
        self.n_columns = int(varies.sum())
        self.scale = torch.where(varies, 1 / deviation, torch.zeros(())).float()

    def errors(self, guess: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine and mean squared error of each of ``rows`` (ids), shape ``(n_rows,)``, double.

        Args:
            guess: features of all items, ``(n_items, dim)``.
            rows: ids, shape ``(n_rows,)``; a row of zeros has cosine 0.
        """
        cosines, errors = [], []
        for part in rows.split(_BLOCK):
            truth, ours = self.table.features[part], guess[part].float()
            cosines.append(functional.cosine_similarity(truth, ours, dim=1).double())
            error = ((truth - ours) * self.scale).double().square().sum(dim=1)
            errors.append(error / max(self.n_columns, 1))
        return torch.cat(cosines), torch.cat(errors)
