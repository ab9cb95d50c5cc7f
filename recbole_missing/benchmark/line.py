"""One line of a store: its schema, and the choice among several lines of one run."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

STAGES = ("test", "search")
STATUSES = ("done", "failed")


@dataclass(frozen=True, eq=False)
class Line(Mapping[str, Any]):
    """One run of a benchmark, done or failed.

    This docstring is the schema of a store. Fields are read as attributes. A line is also a
    read-only mapping of its fields, in the order below. As a mapping it is written as JSON and
    compared.

    Infinity and NaN are None, because JSON has neither. In the line of a failed run, the measured
    fields (``mask`` to ``kept``) are None.

    Attributes:
        run: hash of everything that decides the result.
        benchmark: name of the benchmark file; ``name:quick`` for its quick variant.
        title: title of the benchmark file.
        stage: ``test``, or ``search`` for a trial, which never looks at the test split.
        point: axis -> value; the place of the run in the grid.
        status: ``done`` or ``failed``.
        error: what failed, and where; None if the run is done.
        search: for a run whose settings were searched: ``chosen`` (setting -> value), ``trials``
            and ``failed`` (numbers of trials), ``valid`` (metric -> value of the best trial).
            Otherwise None.
        trial: for a trial: setting -> value that is tried. Otherwise None.
        config: setting -> value. These are the settings in force, RecBole's included, and the
            settings that the data were made with.
        data: identity of the data as built: ``id``, and part -> hash
            (:mod:`recbole_missing.identity`). None if it was not recorded.
        source: hash of the code that made the result. None if it was not recorded.
        mask: ``id`` (hash of the mask, by item token), ``missing`` (modality -> number of
            items that lack it), ``new_items`` (number). None for data without modalities.
        epochs: one mapping an epoch: ``epoch`` (from 0), ``loss`` (term -> sum over batches), and
            ``valid`` (metric -> value) if the epoch was validated.
        best_epoch: the epoch that is tested, chosen on validation; None without validation.
        valid: metric -> value of the best epoch on validation.
        test: metric -> value on test; None for a trial.
        smaller: names of the test metrics for which a smaller value is better. None if this was
            not recorded.
        groups: group of test items (``0 missing``, ``1 missing``, ..., ``warm``, ``new``) ->
            ``users`` (number) and metric -> value. All items are candidates.
        within_groups: the same groups -> ``users``, ``items`` (number of items of the group) and
            metric -> value. Only the items of the group are candidates. None if this was not
            measured. Groups of all items are left out.
        retrieval: ``model`` and ``nearest_neighbour`` -> modality -> ``1 missing``, ... ->
            ``items`` (number), ``hit@10``, ``chance@10`` and more. None if it was not asked for.
        restoration: modality -> ``items`` (number), ``cosine``, ``relative_mse``, ``hit@10``,
            ``chance@10`` (:mod:`recbole_missing.evaluation.restoration`). Modalities of which the
            mask hid nothing are left out. It is empty for a model that reads no modalities, and
            None if it was not asked for.
        kept: ``users``, ``lists``, ``checkpoint`` -> path of the file, relative to the store.
        versions: package -> version.
        cost: ``started`` (ISO 8601, UTC), ``seconds``, ``resumed`` (how often the run went on after
            its process was killed; the costs are then those of all parts), ``epoch_seconds`` (mean
            over epochs, without validation), ``peak_memory_mib``, ``peak_gpu_mib``, ``device``,
            ``threads`` (number).
    """

    run: str
    benchmark: str
    title: str
    stage: str
    point: Mapping[str, Any]
    status: str
    error: str | None
    search: Mapping[str, Any] | None
    trial: Mapping[str, Any] | None
    config: Mapping[str, Any]
    data: Mapping[str, str] | None
    source: str | None
    mask: Mapping[str, Any] | None
    epochs: Sequence[Mapping[str, Any]] | None
    best_epoch: int | None
    valid: Mapping[str, float | None] | None
    test: Mapping[str, float | None] | None
    smaller: Sequence[str] | None
    groups: Mapping[str, Mapping[str, Any]] | None
    within_groups: Mapping[str, Mapping[str, Any]] | None
    retrieval: Mapping[str, Any] | None
    restoration: Mapping[str, Mapping[str, Any]] | None
    kept: Mapping[str, str] | None
    versions: Mapping[str, str]
    cost: Mapping[str, Any]

    @classmethod
    def parse(cls, content: Any) -> Line:
        """Make a line from a mapping, such as a parsed JSON line.

        Fields that older versions did not record become None.

        Raises:
            ValueError: if a field is absent or unknown, or has the wrong type or value.
        """
        if not isinstance(content, Mapping):
            raise ValueError(f"line: must be a mapping of fields, got {content!r}.")
        absent = [name for name in _FIELDS if name not in content and name not in _RECENT]
        unknown = [name for name in content if name not in _FIELDS]
        if absent:
            raise ValueError(f"line: must have every field, got none of {', '.join(absent)}.")
        if unknown:
            raise ValueError(
                f"line: must have known fields, got {', '.join(map(str, unknown))}; if a newer "
                "version wrote it, update this package."
            )
        for name, kind in _KINDS.items():
            if not isinstance(content[name], kind):
                raise ValueError(f"line: {name} must be {_WORDS[kind]}, got {content[name]!r}.")
        for name, choices in (("stage", STAGES), ("status", STATUSES)):
            if content[name] not in choices:
                raise ValueError(
                    f"line: {name} must be {' or '.join(choices)}, got {content[name]!r}."
                )
        return cls(**{**dict.fromkeys(_RECENT), **content})

    @property
    def done(self) -> bool:
        """Whether the run succeeded."""
        return self.status == "done"

    def as_json(self) -> str:
        """Write the line as one line of JSON.

        Raises:
            ValueError: for infinity and NaN.
        """
        return json.dumps(dict(self), ensure_ascii=False, allow_nan=False)

    def __getitem__(self, name: str) -> Any:
        """Value of a field."""
        if name not in _FIELDS:
            raise KeyError(name)
        return getattr(self, name)

    def __iter__(self) -> Iterator[str]:
        """Names of the fields, in order."""
        return iter(_FIELDS)

    def __len__(self) -> int:
        """Number of fields."""
        return len(_FIELDS)


_FIELDS = tuple(field.name for field in fields(Line))
_RECENT = ("data", "source", "smaller", "within_groups", "restoration")  # older lines lack them
_KINDS: dict[str, type] = {
    **dict.fromkeys(("run", "benchmark", "title", "stage", "status"), str),
    **dict.fromkeys(("point", "config", "versions", "cost"), Mapping),
}
_WORDS: dict[type, str] = {str: "text", Mapping: "a mapping"}


def settled(line: Line) -> dict[str, Any]:
    """Fields that are equal if a run is repeated: all except ``cost`` and ``versions``."""
    return {name: value for name, value in line.items() if name not in ("cost", "versions")}


def better(first: Line, second: Line) -> Line:
    """Choose one of two lines of the same run.

    A line that is done wins over one that failed. If both are done or both failed, the run that
    began later wins. If both began in the same second, ``second`` wins.
    """

    def rank(line: Line) -> tuple[bool, str]:
        return line.done, line.cost.get("started") or ""

    return second if rank(second) >= rank(first) else first


def latest(lines: Iterable[Line]) -> list[Line]:
    """Choose one line for each run at each place of a grid, by :func:`better`.

    One run may stand at several places, such as a model that reads no modalities at every imputer.
    If a grid has got another axis, the places without that axis are left out.

    Returns:
        One line for each benchmark, point and run, in the order of first appearance.
    """
    found = _best(lines, lambda line: (*place(line), line.run))
    points: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for line in found:
        points.setdefault((line.benchmark, line.run), []).append(dict(line.point))

    def has_grown(line: Line) -> bool:
        here = dict(line.point).items()
        return any(here < there.items() for there in points[line.benchmark, line.run])

    return [line for line in found if not has_grown(line)]


def current(lines: Iterable[Line]) -> tuple[list[Line], int]:
    """Choose one run at each place of a grid, by :func:`better`, and count the others.

    A place has several runs if its benchmark was run again with other settings. Such runs are not
    repetitions of each other.
    """
    # Of two that began in the same second, the choice must not depend on the order in the store.
    ordered = sorted(lines, key=lambda line: (*place(line), line.run))
    kept = _best(ordered, place)
    return kept, len(ordered) - len(kept)


def place(line: Line) -> tuple[str, str]:
    """Place of a line in a grid, sortable: its benchmark and its point."""
    return line.benchmark, json.dumps(line.point, sort_keys=True)


def _best(lines: Iterable[Line], key: Callable[[Line], tuple[str, ...]]) -> list[Line]:
    found: dict[tuple[str, ...], Line] = {}
    for line in lines:
        known = key(line)
        found[known] = better(found[known], line) if known in found else line
    return list(found.values())
