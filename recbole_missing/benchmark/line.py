"""One line of a store: its schema, and which of several lines of one run counts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

STAGES = ("test", "search")
STATUSES = ("done", "failed")


@dataclass(frozen=True, eq=False)
class Line(Mapping[str, Any]):
    """One run of a benchmark, done or failed.

    This docstring is the schema of a store. A line is read by attribute. It is also a read-only
    mapping of its fields, in this order; this is how it is written as JSON and compared.

    JSON has no infinity and no "not a number": both are None. Of a failed run, ``config`` and
    everything before it are known; what was measured (``mask`` to ``kept``) is None.

    Attributes:
        run: hash of everything that decides the result.
        benchmark: name of the benchmark file; ``name:quick`` for its quick variant.
        title: title of the benchmark file.
        stage: ``test``, or ``search`` for a trial, which never looks at the test split.
        point: axis -> value; the place of the run in the grid.
        status: ``done`` or ``failed``.
        error: what failed, and where; None if the run is done.
        search: of a run whose settings were searched: ``chosen`` (setting -> value), ``trials``
            and ``failed`` (numbers of trials), ``valid`` (metric -> value of the best trial).
            Otherwise None.
        trial: of a trial: setting -> value that is tried. Otherwise None.
        config: setting -> value, for the settings in force; RecBole's settings are included.
        data: identity of the data as built: ``id``, and part -> digest
            (:mod:`recbole_missing.identity`). None: it was not recorded.
        source: identity of the code of the methods that ran. None: it was not recorded.
        mask: ``id`` (hash of who lacks what, by item token), ``missing`` (modality -> number of
            items that lack it), ``new_items`` (number). None for data without modalities.
        epochs: one mapping an epoch: ``epoch`` (from 0), ``loss`` (term -> sum over batches), and
            ``valid`` (metric -> value) if the epoch was validated.
        best_epoch: the epoch that is tested, chosen on validation; None without validation.
        valid: metric -> value of the best epoch on validation.
        test: metric -> value on test; None for a trial.
        smaller: names of the test metrics of which a smaller value is better. None: it was not
            recorded.
        groups: group of test items (``0 missing``, ``1 missing``, ..., ``warm``, ``new``) ->
            ``users`` (number) and metric -> value.
        retrieval: ``model`` and ``nearest_neighbour`` -> modality -> ``1 missing``, ... ->
            ``items`` (number), ``hit@10``, ``chance@10`` and more. None if it was not asked for.
        kept: ``users``, ``lists``, ``checkpoint`` -> path of the file, relative to the store.
        versions: package -> version.
        cost: ``started`` (ISO 8601, UTC), ``seconds``, ``epoch_seconds`` (mean over epochs, without
            validation), ``peak_memory_mib``, ``peak_gpu_mib``, ``device``, ``threads`` (number).
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
    retrieval: Mapping[str, Any] | None
    kept: Mapping[str, str] | None
    versions: Mapping[str, str]
    cost: Mapping[str, Any]

    @classmethod
    def parse(cls, content: Any) -> Line:
        """Make a line of what JSON gave, or of another mapping.

        Fields that older versions did not record are None.

        Raises:
            ValueError: if a field is absent, unknown or of another kind.
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
        """Whether the run ended well."""
        return self.status == "done"

    def as_json(self) -> str:
        """Write the line as one line of JSON.

        Raises:
            ValueError: for numbers that JSON lacks.
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
_RECENT = ("data", "source", "smaller")  # older lines lack them
_KINDS: dict[str, type] = {
    **dict.fromkeys(("run", "benchmark", "title", "stage", "status"), str),
    **dict.fromkeys(("point", "config", "versions", "cost"), Mapping),
}
_WORDS: dict[type, str] = {str: "text", Mapping: "a mapping"}


def settled(line: Line) -> dict[str, Any]:
    """Fields of a line in which two executions of one run agree: not ``cost``, not ``versions``."""
    return {name: value for name, value in line.items() if name not in ("cost", "versions")}


def better(first: Line, second: Line) -> Line:
    """Decide which of two lines of one run counts.

    A line that is done wins over one that failed. Of two equal ones the run that began later wins;
    of two that began in the same second, the second argument, which stands later in the store.
    """

    def rank(line: Line) -> tuple[bool, str]:
        return line.done, line.cost.get("started") or ""

    return second if rank(second) >= rank(first) else first


def latest(lines: Iterable[Line]) -> list[Line]:
    """Choose the line that counts for every run of every benchmark, by :func:`better`.

    Returns:
        One line a run and benchmark, in the order in which these first appear.
    """
    found: dict[tuple[str, str], Line] = {}
    for line in lines:
        key = (line.benchmark, line.run)
        found[key] = better(found[key], line) if key in found else line
    return list(found.values())
