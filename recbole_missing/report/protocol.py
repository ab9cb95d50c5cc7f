"""One sentence on how the numbers of a table came about, for its caption."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from recbole_missing.report.results import Line, Part, by_size, text


def protocol(part: Part) -> str:
    """Data, split, what is missing, test candidates, choice of the epoch, seeds.

    Where runs of the table differ, every value that occurs is named.
    """
    lines = part.lines
    if not lines:
        return f"Data set {part.dataset}; no run succeeded."
    pieces = [
        f"Data set {part.dataset}",
        *(f"{axis} {value}" for axis, value in part.context.items()),
        _all(lines, _split),
        "missing: " + _all(lines, _missing),
        _hidden(lines),
        "new items: " + _all(lines, _new_items),
        _test_mask(part),
        _choice(lines),
        _search(lines),
        *(_constant(part, axis) for axis in ("model", "imputation")),
        _seeds(lines),
    ]
    return "; ".join(piece for piece in pieces if piece) + "."


def _all(lines: Iterable[Line], say: Callable[[Line], str]) -> str:
    return " or ".join(sorted({say(line) for line in lines}, key=by_size))


def _setting(key: str) -> Callable[[Line], str]:
    return lambda line: text(line["config"].get(key))


def _split(line: Line) -> str:
    config = line["config"]
    if config.get("benchmark_filename"):
        return f"published split ({', '.join(map(str, config['benchmark_filename']))})"
    given = config.get("eval_args") or {}
    shown = [f"{key} {text(given[key])}" for key in ("order", "group_by") if key in given]
    sizes = [f"{kind} {text(size)}" for kind, size in (given.get("split") or {}).items()]
    return f"split {', '.join([*sizes, *shown])}" if sizes or shown else "split not stated"


def _missing(line: Line) -> str:
    config = line["config"]
    word = text(config.get("missing_protocol", "none"))
    if word == "none":
        return "nothing hidden"
    if word == "file":
        return f"file {text(config.get('missing_file'))}"
    only = config.get("missing_modalities")
    return f"{word}, ratio {text(config.get('missing_ratio'))}" + (
        f" of {text(only)}" if only else ""
    )


def _hidden(lines: list[Line]) -> str:
    """Items without each modality, over the masks of the table."""
    masks = [line["mask"]["missing"] for line in lines if line["mask"]]
    words = []
    for name in dict.fromkeys(name for mask in masks for name in mask):
        counts = [mask[name] for mask in masks if name in mask]
        words.append(f"{name} {_range(counts)}")
    return "items without " + ", ".join(words) if words else ""


def _range(counts: list[int]) -> str:
    low, high = min(counts), max(counts)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _new_items(line: Line) -> str:
    word = text(line["config"].get("new_items", "none"))
    count = (line["mask"] or {}).get("new_items")
    return f"{word} ({count:,})" if count else word


def _test_mask(part: Part) -> str:
    users: dict[str, list[str]] = {}
    for row, runs in zip(part.labels, part.rows.values()):
        for mask in sorted({_setting("test_mask")(run) for run in runs}):
            users.setdefault(mask, []).append(row)
    if len(users) == 1:
        return f"test_mask {next(iter(users))}"
    which = [f"{mask} ({', '.join(users[mask])})" for mask in sorted(users)]
    return f"test_mask differs, so rows do not compare: {', '.join(which)}"


def _choice(lines: list[Line]) -> str:
    metric, patience, step, epochs = (
        _all(lines, _setting(key))
        for key in ("valid_metric", "stopping_step", "eval_step", "epochs")
    )
    return (
        f"epoch chosen by {metric} on validation, stopping_step {patience}, eval_step {step}, "
        f"at most {epochs} epochs"
    )


def _search(lines: list[Line]) -> str:
    """Say where hyper-parameters were searched."""
    found = [line["search"]["trials"] for line in lines if line.get("search")]
    if not found:
        return ""
    rest = "" if len(found) == len(lines) else " (not of every row)"
    return f"hyper-parameters{rest} chosen on validation among {_range(found)} trials"


def _constant(part: Part, axis: str) -> str:
    """What every row shares and no column says."""
    values = {text(line["point"].get(axis, line["config"].get(axis))) for line in part.lines}
    hidden = axis in part.axes or axis in part.context or len(values) != 1 or values == {"~"}
    return "" if hidden else f"{axis} {values.pop()}"


def _seeds(lines: list[Line]) -> str:
    words = [f"seeds {_listed(line['point'].get('seed') for line in lines)}"]
    masks = {line["point"].get("missing_seed") for line in lines} - {None}
    drawn = {line["config"].get("missing_seed") for line in lines if _draws(line)} - {None}
    if masks or drawn:
        words.append(f"mask seeds {_listed(masks or drawn)}")
    return "; ".join(words)


def _draws(line: Line) -> bool:
    """Whether chance decided who lacks what, or which items are new."""
    config = line["config"]
    drawn = config.get("missing_protocol") not in (None, "none", "file")
    return drawn or config.get("new_items") == "stratified"


def _listed(values: Iterable[Any]) -> str:
    return ", ".join(sorted({text(value) for value in values}, key=by_size))
