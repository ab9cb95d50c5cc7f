"""Which imputer restores a hidden tenth best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from recbole_missing.describe import uncertain
from recbole_missing.describe.arrays import Arrays
from recbole_missing.describe.description import Restored
from recbole_missing.evaluation.imputation import Score, compare
from recbole_missing.imputation import IMPUTERS, imputer_settings

SLOW = ("autoencoder", "graph_autoencoder", "heat_untruncated", "pers_page_rank_untruncated")
"""Imputers that are left out unless ``thorough`` is set: they train, or keep no graph sparse."""

HIDDEN = 10.0
"""Percentage of the rows of each modality that is hidden."""

FEWEST_ROWS = 10
"""With fewer rows a tenth is none."""


def methods(thorough: bool) -> list[str]:
    """Words of the setting ``imputation`` that are compared."""
    return [word for word in IMPUTERS if thorough or word not in SLOW]


def settings_of(config: Any, words: Sequence[str]) -> dict[str, Any]:
    """The ``imputation_*`` keys of these imputers, as a data set's config has them."""
    keys = {key for word in words for key in imputer_settings(word)}
    return {key: config[key] for key in sorted(keys | {"imputation_top_k"})}


def restored(
    arrays: Arrays,
    words: Sequence[str],
    settings: Mapping[str, Any],
    seed: int,
    advised: Sequence[str] = (),
) -> dict[str, dict[str, Restored]]:
    """Hide a tenth of the rows of each modality, and let each imputer restore them.

    The hidden items are drawn separately for each modality, so that most keep their other
    modalities.

    Args:
        arrays: see the class.
        words: imputers.
        settings: the ``imputation_*`` keys of all of them.
        seed: of the draw.
        advised: modalities that a run would have. Their rows are restored without the others, which
            some imputers would read.

    Returns:
        Modality -> imputer -> :class:`Restored`, the highest mean cosine first. Modalities with
        fewer than :data:`FEWEST_ROWS` rows are left out.
    """
    tables = {
        name: table
        for name, table in arrays.tables.items()
        if int(table.observed.sum()) >= FEWEST_ROWS
    }
    if not tables:
        return {}
    own = {name: table for name, table in tables.items() if name in advised}
    found = {}
    for known in [tables, own] if 0 < len(own) < len(tables) else [tables]:
        result = compare(
            known, arrays.train, words, [HIDDEN], settings, seed, None, arrays.donors, arrays.edges,
            apart=True, keep_rows=True,
        )  # fmt: skip
        found.update({
            name: _ranked([result.score(name, word, HIDDEN) for word in words]) for name in known
        })  # fmt: skip
    return found


def indistinguishable(ranked: Mapping[str, Restored]) -> list[str]:
    """The best imputer, and those that are not two standard errors behind it."""
    return [
        word
        for word, one in ranked.items()
        if one.cosine is not None and (one.behind is None or not one.behind.above(0))
    ]


def _ranked(scores: Sequence[Score]) -> dict[str, Restored]:
    worked = [score for score in scores if score.error is None]
    worked.sort(key=lambda score: -score.measures["cosine"])
    ranked = {score.method: _restored(score, worked[0]) for score in worked}
    failed = [score for score in scores if score.error is not None]
    return {
        **ranked,
        **{s.method: Restored(s.hidden, None, None, failure=s.error) for s in failed},
    }


def _restored(score: Score, best: Score) -> Restored:
    cosine, mse = (np.asarray(score.rows[key]) for key in ("cosine", "mse"))
    behind = None
    if score is not best:
        behind = uncertain.mean(np.asarray(best.rows["cosine"]) - cosine)
    return Restored(score.hidden, uncertain.mean(cosine), uncertain.mean(mse), behind)
