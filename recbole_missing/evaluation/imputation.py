"""Quality of imputation without a recommender: hide known features, impute them, compare.

:func:`compare` hides the features of some items at every ratio. Every method completes them. The
completed rows are then compared with the true ones:

- ``cosine``: mean cosine of the raw feature rows; a row of zeros counts as 0.
- ``mse``: mean squared error. First every column is divided by its standard deviation over the
  items that truly have the modality. So the mean row gets about 1. Columns that are constant,
  rounding apart (:func:`recbole_missing.data.scale.varying`), do not count.
- ``reached``: share of the hidden rows that got their value from the method, not its fallback.
- ``energy``: normalised Dirichlet energy of the completed features on the co-interaction graph
  among the items that truly have the modality. It is the same graph for all methods.
- ``seconds``: time of one run, including the fit on the interactions.

:func:`energies` needs no true features. It measures how smooth features are on the graph before and
after imputation.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from time import perf_counter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor
from torch.nn import functional

from recbole_missing import tables
from recbole_missing.data.scale import moments, varying
from recbole_missing.graph.item_graph import interaction_graph
from recbole_missing.graph.smoothness import dirichlet_energy, homophily
from recbole_missing.imputation import make_imputer
from recbole_missing.imputation.base import Filled, Imputer, Table, imputing

DEGREE_GROUPS = {"0": 0, "1-4": 1, "5-9": 5, "10-19": 10, "20+": 20}
MEASURES = {
    "cosine": "{:.3f}",
    "mse": "{:.3f}",
    "reached": "{:.1%}",
    "energy": "{:.4g}",
    "seconds": "{:.2f}",
}
_BLOCK = 16384  # rows compared at a time
_MSE_NOTE = "mse: features divided by their standard deviation; about 1 for the mean row"


@dataclass(frozen=True)
class Score:
    """Result of one method for one modality at one ratio.

    Args:
        modality, method: names.
        ratio: percentage of the items that were hidden.
        hidden: number of rows that were hidden and measured.
        measures: name -> value of the measures of this module; empty if the method failed.
        by_degree: label of :data:`DEGREE_GROUPS` -> ``items``, ``cosine``, ``mse`` and ``reached``
            of the hidden items with that many training interactions. Empty groups are left out.
        error: message of the error if the method failed, otherwise None.
        rows: ``cosine`` and ``mse`` of each hidden row, by item, if they were asked for.
    """

    modality: str
    method: str
    ratio: float
    hidden: int
    measures: Mapping[str, float] = field(default_factory=dict)
    by_degree: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    error: str | None = None
    rows: Mapping[str, Sequence[float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Result:
    """What :func:`compare` measured.

    Args:
        seed: seed of the draw of hidden items.
        only: the one modality that was hidden, or None for all.
        top_k: entries kept in each row of the graph for energy and homophily.
        truth: modality -> ``items`` (number of items that truly have it), ``dim``, and the
            ``homophily`` and ``energy`` of their true features on the graph among them.
        scores: one :class:`Score` for every modality, method and ratio.
    """

    seed: int
    only: str | None
    top_k: int
    truth: Mapping[str, Mapping[str, float]]
    scores: Sequence[Score]

    @property
    def modalities(self) -> list[str]:
        """Modalities that were hidden, in order."""
        return _distinct(score.modality for score in self.scores)

    @property
    def methods(self) -> list[str]:
        """Methods in order."""
        return _distinct(score.method for score in self.scores)

    @property
    def ratios(self) -> list[float]:
        """Missing percentages in order."""
        return _distinct(score.ratio for score in self.scores)

    def score(self, modality: str, method: str, ratio: float) -> Score:
        """Return the score of one method on one modality at one ratio (percent).

        Raises:
            ValueError: if that was not measured.
        """
        for score in self.scores:
            if (score.modality, score.method, score.ratio) == (modality, method, ratio):
                return score
        raise ValueError(
            f"imputation quality: modality, method and ratio must be among {self.modalities}, "
            f"{self.methods} and {self.ratios}, got {(modality, method, ratio)}."
        )

    def table(self, *measures: str) -> str:
        """Text with one table for each modality, and then the failures.

        Rows are methods and columns are ratios.

        Args:
            measures: names of :data:`MEASURES`, side by side; default ``cosine`` and ``mse``.
        """
        columns = [(name, ratio) for name in measures or ("cosine", "mse") for ratio in self.ratios]
        headers = _headers([(name, f"{ratio:g}%") for name, ratio in columns])
        parts = []
        for modality in self.modalities:
            rows = []
            for method in self.methods:
                scores = {ratio: self.score(modality, method, ratio) for ratio in self.ratios}
                cells = [_cell(scores[r].error, scores[r].measures, name) for name, r in columns]
                rows.append([method, *cells])
            parts.append(f"{self._title(modality)}\n{_table(headers, rows)}")
        notes = [_MSE_NOTE] if "mse" in (name for name, _ in columns) else []
        return "\n\n".join([*parts, *notes, *self._warnings(self.ratios)])

    def by_degree(self, ratio: float) -> str:
        """Text with cosine and MSE at one ratio (percent), by number of training interactions."""
        parts = []
        for modality in self.modalities:
            scores = [self.score(modality, method, ratio) for method in self.methods]
            groups = {label: int(g["items"]) for s in scores for label, g in s.by_degree.items()}
            columns = [(name, label) for name in ("cosine", "mse") for label in groups]
            headers = _headers([(name, f"{g}\n({groups[g]})") for name, g in columns])
            rows = [
                [s.method, *(_cell(s.error, s.by_degree.get(g, {}), name) for name, g in columns)]
                for s in scores
            ]
            title = f"{modality}, {ratio:g}% hidden, by training interactions of the (hidden items)"
            parts.append(f"{title}\n{_table(headers, rows)}")
        return "\n\n".join([*parts, _MSE_NOTE, *self._warnings([ratio])])

    def failed(self, modality: str, method: str) -> list[float]:
        """Ratios (percent) at which a method failed on a modality."""
        scores = [self.score(modality, method, ratio) for ratio in self.ratios]
        return [score.ratio for score in scores if score.error is not None]

    def unreached(self, method: str) -> bool:
        """Tell whether a method reached no hidden row. Then only its fallback was measured."""
        own = [s.measures["reached"] for s in self.scores if s.method == method and s.measures]
        return bool(own) and not any(own)

    def to_json(self) -> str:
        """JSON text of the whole result."""
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> Result:
        """Read what :meth:`to_json` wrote."""
        values = json.loads(text)
        return cls(**{**values, "scores": [Score(**score) for score in values["scores"]]})

    def _title(self, modality: str) -> str:
        facts = self.truth[modality]
        return (
            f"{modality}: {facts['items']:,} items, {facts['dim']} features; true features on the "
            f"co-interaction graph (top_k {self.top_k}): homophily {facts['homophily']:.3f}, "
            f"energy {facts['energy']:.4g}"
        )

    def _warnings(self, ratios: Sequence[float]) -> list[str]:
        lines = [
            f"{method}: reached no hidden row, so its numbers are those of its fallback"
            for method in self.methods
            if self.unreached(method)
        ]
        lines += [
            f"failed: {s.method} on {s.modality} at {s.ratio:g}%: {s.error}"
            for s in self.scores
            if s.error is not None and s.ratio in ratios
        ]
        return ["\n".join(lines)] if lines else []


def compare(
    tables: Mapping[str, Table],
    interactions: sparse.spmatrix,
    methods: Sequence[str],
    ratios: Sequence[float],
    settings: Mapping[str, Any],
    seed: int = 0,
    only: str | None = None,
    donors: Tensor | None = None,
    edges: sparse.spmatrix | None = None,
    apart: bool = False,
    engine: Any = None,
    keep_rows: bool = False,
) -> Result:
    """Hide known features at several ratios and measure how well every method restores them.

    Args:
        tables: raw features of every modality. Rows that are truly missing are never measured.
        interactions: training interactions, shape ``(n_users, n_items)``.
        methods: words of the ``imputation`` setting.
        ratios: percentages above 0 and below 100. Each is a share of the items that have a
            modality. A hidden item loses all its modalities. So a method that works from the other
            modalities of the item can only give its fallback (but see ``only`` and ``apart``).
            Every ratio has its own generator, made from ``seed`` and the ratio. So draws are not
            nested.
        settings: the ``imputation_*`` keys of all methods.
        seed: seed of the hidden items.
        only: hide and measure only this modality; the others are not hidden.
        donors, edges: as in :meth:`recbole_missing.imputation.base.Imputer.fit`.
        apart: draw the hidden items separately for each modality, so that most items that lose
            one modality keep the others.
        engine: runs the blocks (:mod:`recbole_missing.parallel`); default: in this process.
        keep_rows: keep the cosine and the error of each hidden row, for paired comparisons.

    Raises:
        ValueError: for an unknown method, modality or ratio, a setting outside its constraint, or
            tables that do not fit the interactions. Later errors of a method are recorded in its
            scores.
    """
    imputers = {word: make_imputer({**settings, "imputation": word}) for word in methods}
    for imputer in imputers.values():
        imputer.engine = engine or imputer.engine
    names = _names(tables, only, interactions.shape[1])
    draws = {float(ratio): _draw(tables, names, ratio, seed, apart) for ratio in ratios}
    top_k = settings["imputation_top_k"]
    everyone = torch.ones(interactions.shape[1], dtype=torch.bool)
    graph = interaction_graph(interactions, everyone if donors is None else donors, top_k)
    degree = _degree(interactions)
    rulers = {name: _Ruler(tables[name], graph, degree, keep_rows) for name in names}
    scores = [
        score
        for word, imputer in imputers.items()
        for score in _try(word, imputer, (interactions, donors, edges), tables, draws, rulers)
    ]
    truth = {name: ruler.facts() for name, ruler in rulers.items()}
    return Result(seed, only, top_k, truth, scores)


def energies(
    imputer: Imputer,
    tables: Mapping[str, Table],
    completed: Mapping[str, Tensor],
    interactions: sparse.spmatrix,
    top_k: int,
) -> dict[str, dict[str, float]]:
    """Dirichlet energy of features on the co-interaction graph, before and after imputation.

    Args:
        imputer: fitted on the interactions. If it has the co-interaction graph, that is used.
        tables: features before imputation, missing rows zeros.
        completed: modality -> features after imputation.
        interactions: training interactions, shape ``(n_users, n_items)``.
        top_k: entries kept in each row of the graph.

    Returns:
        Modality -> ``energy_before`` and ``energy_after``.
    """
    if getattr(imputer, "graph", None) == "co_interaction" and hasattr(imputer, "graph_"):
        graph = imputer.graph_
    else:
        graph = interaction_graph(interactions, imputer.donors_, top_k)
    return {
        name: {
            "energy_before": float(dirichlet_energy(table.features, graph)),
            "energy_after": float(dirichlet_energy(completed[name], graph)),
        }
        for name, table in tables.items()
    }


def _names(tables: Mapping[str, Table], only: str | None, n_items: int) -> list[str]:
    if only is not None and only not in tables:
        raise ValueError(
            f"imputation quality: only must be one of the modalities {sorted(tables)}, "
            f"got {only!r}."
        )
    for name, table in tables.items():
        if len(table.features) != n_items or len(table.observed) != n_items:
            raise ValueError(
                f"modality {name!r}: must have a row for each of the {n_items} items of the "
                f"interactions, got {len(table.features)}; align them."
            )
    return list(tables) if only is None else [only]


def _draw(
    tables: Mapping[str, Table], names: list[str], ratio: float, seed: int, apart: bool
) -> dict[str, Tensor]:
    """Modality -> bool ``(n_items,)``: the items that lose it at this ratio."""
    if not 0 < ratio < 100:
        raise ValueError(
            f"imputation quality: a ratio must be a percentage above 0 and below 100, got {ratio}."
        )
    if apart:
        states = {name: [seed, round(1e6 * ratio), place] for place, name in enumerate(names)}
        return {name: _sample(tables[name].observed, ratio, states[name]) for name in names}
    has_some = torch.stack([tables[name].observed for name in names]).any(dim=0)
    return dict.fromkeys(names, _sample(has_some, ratio, [seed, round(1e6 * ratio)]))


def _sample(candidates: Tensor, ratio: float, state: list[int]) -> Tensor:
    """Draw this percentage of the candidates: bool ``(n_items,)``."""
    items = candidates.nonzero()[:, 0].numpy()
    n_hidden = int(ratio * len(items) / 100)
    if n_hidden == 0:
        raise ValueError(
            f"imputation quality: {ratio:g}% of {len(items)} items is none; give a larger ratio."
        )
    hidden = torch.zeros_like(candidates)
    hidden[np.random.default_rng(state).choice(items, n_hidden, replace=False)] = True
    return hidden


def _try(
    word: str,
    imputer: Imputer,
    known: tuple[Any, ...],
    tables: Mapping[str, Table],
    draws: Mapping[float, Mapping[str, Tensor]],
    rulers: Mapping[str, _Ruler],
) -> list[Score]:
    """Scores of one method. It is fitted once for all ratios, because the fit sees no features."""
    start = perf_counter()
    error = None
    try:
        with imputing(imputer):
            imputer.fit(*known)
    except Exception as failure:  # the other methods go on
        error = _said(failure)
    fit_seconds = perf_counter() - start
    scores = []
    for ratio, drawn in draws.items():
        masked = {**tables, **{name: _hide(tables[name], drawn[name]) for name in rulers}}
        for name, ruler in rulers.items():
            hidden = drawn[name] & tables[name].observed
            trial = Score(name, word, ratio, int(hidden.sum()), error=error)
            scores.append(trial if error else _run(trial, imputer, fit_seconds, masked, ruler))
    return scores


def _run(
    trial: Score, imputer: Imputer, fit_seconds: float, masked: Mapping[str, Table], ruler: _Ruler
) -> Score:
    table = masked[trial.modality]
    others = {name: other for name, other in masked.items() if name != trial.modality}
    start = perf_counter()
    try:
        if not table.observed.any():
            raise ValueError("no item keeps this modality; give a smaller ratio.")
        if not trial.hidden:
            raise ValueError("no item that has this modality was drawn; give a larger ratio.")
        with imputing(imputer):
            filled = imputer.fill(table, others)
        seconds = fit_seconds + perf_counter() - start
        measures, groups, rows = ruler.measure(table, filled)
    except Exception as failure:  # the other methods and ratios go on
        return Score(*_key(trial), error=_said(failure))
    return Score(*_key(trial), {**measures, "seconds": seconds}, groups, rows=rows)


def _hide(table: Table, hidden: Tensor) -> Table:
    """Hide the rows in which ``hidden`` (bool ``(n_items,)``) is True: set them to zero."""
    observed = table.observed & ~hidden
    return Table(table.name, table.features * observed[:, None], observed)


class _Ruler:
    """The true features of one modality, and the measures of completed features against them.

    For the squared error every column is divided by its standard deviation over the observed rows.
    So the mean row gets about 1. Columns that are constant, rounding apart, are left out.
    """

    def __init__(
        self, table: Table, graph: sparse.csr_matrix, degree: NDArray[Any], keep_rows: bool
    ) -> None:
        self.table, self.keep_rows = table, keep_rows
        self.group = np.searchsorted(list(DEGREE_GROUPS.values()), degree, side="right") - 1
        known = table.observed.numpy()
        self.graph = graph[known][:, known]
        mean, deviation = moments(table.features, table.observed.nonzero()[:, 0])
        varies = varying(mean, deviation)
        self.n_columns = int(varies.sum())
        self.scale = torch.where(varies, 1 / deviation, torch.zeros(())).float()

    def facts(self) -> dict[str, float]:
        rows = self.table.features[self.table.observed]
        return {
            "items": rows.shape[0],
            "dim": rows.shape[1],
            "homophily": float(homophily(rows, self.graph)),
            "energy": float(dirichlet_energy(rows, self.graph)),
        }

    def measure(
        self, masked: Table, filled: Filled
    ) -> tuple[dict[str, float], dict[str, dict[str, float]], dict[str, list[float]]]:
        """Measures of the hidden rows: overall, by number of training interactions, and each."""
        if not torch.isfinite(filled.features[~masked.observed]).all():
            raise ValueError("its values must be finite, got NaN or infinity.")
        hidden = (self.table.observed & ~masked.observed).nonzero()[:, 0]
        own = torch.ones(len(masked.observed)) if filled.reached is None else filled.reached
        cosine, mse = self._errors(filled.features, hidden)
        rows = torch.stack([cosine, mse, own[hidden].double()], dim=1).numpy()
        group = self.group[hidden.numpy()]
        groups = {
            label: {"items": int((group == g).sum()), **_means(rows[group == g])}
            for g, label in enumerate(DEGREE_GROUPS)
            if (group == g).any()
        }
        whole = torch.where(masked.observed[:, None], self.table.features, filled.features)
        energy = dirichlet_energy(whole[self.table.observed], self.graph)
        each = {"cosine": cosine.tolist(), "mse": mse.tolist()} if self.keep_rows else {}
        return {**_means(rows), "energy": float(energy)}, groups, each

    def _errors(self, guess: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine and mean squared error of each of ``rows`` (ids), double ``(n_rows,)``."""
        cosines, errors = [], []
        for part in rows.split(_BLOCK):
            truth, ours = self.table.features[part], guess[part].float()
            cosines.append(functional.cosine_similarity(truth, ours, dim=1).double())
            error = ((truth - ours) * self.scale).double().square().sum(dim=1)
            errors.append(error / max(self.n_columns, 1))
        return torch.cat(cosines), torch.cat(errors)


def _key(trial: Score) -> tuple[str, str, float, int]:
    return trial.modality, trial.method, trial.ratio, trial.hidden


def _said(failure: Exception) -> str:
    if isinstance(failure, ValueError) and str(failure):
        return str(failure)
    return f"{type(failure).__name__}: {failure}"


def _means(rows: NDArray[Any]) -> dict[str, float]:
    return dict(zip(("cosine", "mse", "reached"), rows.mean(axis=0).tolist()))


def _degree(interactions: sparse.spmatrix) -> NDArray[Any]:
    """Number of users of each item. Any non-zero entry is one interaction."""
    pairs = sparse.csr_matrix(interactions, copy=True)
    pairs.sum_duplicates()
    return np.asarray((pairs != 0).sum(axis=0)).ravel()


def _distinct(values: Iterable[Any]) -> list[Any]:
    return list(dict.fromkeys(values))


def _cell(error: str | None, measures: Mapping[str, float], name: str) -> str:
    return "failed" if error is not None else MEASURES[name].format(measures[name])


def _headers(columns: Sequence[tuple[str, str]]) -> list[str]:
    """Column headers. The name of a measure is written only above its first column."""
    names = [name for name, _ in columns]
    firsts = {names.index(name) for name in names}
    return [f"{name if i in firsts else ''}\n{word}" for i, (name, word) in enumerate(columns)]


def _table(headers: list[str], rows: list[list[str]]) -> str:
    return tables.plain(tables.Table.of_rows(["method", *headers], rows))
