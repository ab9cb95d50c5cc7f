"""How stable are imputed values and lists while a catalogue grows? H&M, month by month.

``python docs/results/months.py measure --data-path DIR`` measures what ``months.jsonl`` does not
hold yet. ``python docs/results/months.py draw`` writes the tables of ``months.md`` and the figure
from the store.

At the end of each month everything starts from the interactions so far: the catalogue (items that
somebody has bought), the scale of the features, the values that FeatProp imputes, and FREEDOM. The
interactions of the next month, with users and items that are known by then, are the test.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pages
import torch
from torch import Tensor
from torch.nn import functional

from recbole_missing import tables
from recbole_missing.imputation import register_imputer
from recbole_missing.imputation.base import Filled, Imputer
from recbole_missing.report.style import line_styles, new_figure, plain_axes

STORE, PAGE, FIGURE = (pages.HERE / f"months.{ending}" for ending in ("jsonl", "md", "svg"))

NAME, MODEL, TOP = "hm-mm", "FREEDOM", 20
ENDS = [
    datetime(year, month, 1, tzinfo=timezone.utc)
    for year, month in [*((2019, m) for m in range(10, 13)), *((2020, m) for m in range(1, 11))]
]
"""A month begins at each date but the last; the data so far end there. September 2020 is cut."""

HIDDEN = {"none": 0.0, "half": 0.5}
"""What is hidden on top of the real holes -> share of the items that lose everything."""

SETTINGS = {
    "learning_rate": 0.003,
    "reg_weight": 0.0,
    "dropout": 0.9,
    "train_batch_size": 2048,
    "modality_scale": "standard",
    "preset": "none",
    "test_mask": "train",
    "eval_step": 0,
    "metrics": ["Recall"],
    "topk": [TOP],
    "valid_metric": f"Recall@{TOP}",
    "imputation_cache": False,
    "benchmark_filename": ["train", "valid", "test"],
    "load_col": {"inter": ["user_id", "item_id"]},
}
"""A trial of the benchmark ``real_holes`` on ``hm-mm``; its best epoch was the 45th."""

EPOCHS, WARM_EPOCHS = 50, 12
AGES = {"1 to 3": 1, "4 to 12": 4, "more than 12": 13}
NEW = {"0": 0, "1": 1, "2 or more": 2}

HEADS = {"none": "real holes", "half": "half hidden"}
LISTS = {"all": "all users", "idle": "users who bought nothing"}
COMPARED = {
    "another seed": "FeatProp, two seeds, the same month",
    "mean instead of featprop": "FeatProp and mean, one seed, the same month",
    "kept instead of recomputed": "recomputed and kept values, one seed, the same month",
    "last month, featprop": "FeatProp, this and last month",
    "last month, mean": "mean, this and last month",
    "last month, warm": "FeatProp with warm starts, this and last month",
}
VARIANTS = {
    "featprop 1": "FeatProp, recomputed",
    "featprop 2": "FeatProp, recomputed, another seed",
    "kept 1": "FeatProp, values of last month kept",
    "mean 1": "mean",
    "warm": "FeatProp, recomputed, warm start",
}
COSTS = {
    "imputation": "FeatProp, all modalities",
    "training": f"training, {EPOCHS} epochs",
    "warm": f"training from last month's model, {WARM_EPOCHS} epochs",
}
KINDS = {"by_age": "months since the first purchase:", "by_new": "purchases in the month:"}
GROUPS = [("all", "all"), *(("by_age", age) for age in AGES), *(("by_new", new) for new in NEW)]

Line = dict[str, Any]


@register_imputer
class Kept(Imputer):
    """The values of last month; items that had none get the mean.

    Attributes:
        rows: modality -> rows ``(n_items, dim)`` in the scale of this month.
        known: modality -> bool ``(n_items,)``, items that had a value.
    """

    costly = False
    rows: Mapping[str, Tensor] = {}
    known: Mapping[str, Tensor] = {}

    def fill(self, table: Any, others: Mapping[str, Any]) -> Filled:
        """Return the rows of last month."""
        mean = self.mean_row(table).expand_as(table.features)
        known = self.known[table.name]
        return Filled(torch.where(known[:, None], self.rows[table.name], mean), known)


@dataclass(frozen=True)
class Trained:
    """A model at the end of a month.

    Args:
        lists: user -> the first items of the list.
        recall: of the next month.
        parameters: name -> values, for a warm start.
        users, items: tokens by id.
        seconds: of training.
    """

    lists: Mapping[str, list[str]]
    recall: float
    parameters: Mapping[str, Tensor]
    users: list[str]
    items: list[str]
    seconds: float


# ---------------------------------------------------------------------------------- measurement


def measure(data_path: Path, hidden: Sequence[str]) -> None:
    """Measure what the store does not hold yet; a chain of months begins anew to go on."""
    done = [(line["hidden"], line["month"]) for line in pages.read(STORE)]
    rows = [line.split("\t") for line in _inter(data_path).read_text().splitlines()[1:]]
    rows.sort(key=lambda row: float(row[2]))
    for word in hidden:
        if (word, f"{ENDS[-2]:%Y-%m}") in done:
            continue
        with tempfile.TemporaryDirectory() as folder:
            for line in Months(data_path, Path(folder), rows, word).lines():
                if (word, line["month"]) not in done:
                    pages.append(STORE, [line])
                print(word, line["month"], flush=True)


def _inter(data_path: Path) -> Path:
    return data_path / NAME / f"{NAME}.inter"


class Months:
    """The months of one mask.

    Args:
        data_path: folder of the data sets.
        folder: scratch folder.
        rows: user, item and second of each interaction, in the order of time.
        hidden: word of :data:`HIDDEN`.
    """

    def __init__(self, data_path: Path, folder: Path, rows: list[list[str]], hidden: str) -> None:
        """Draw the mask, which stays the same over the months."""
        self.data_path, self.folder, self.rows, self.hidden = data_path, folder, rows, hidden
        items = sorted({row[1] for row in rows})
        lost = np.random.default_rng(0).permutation(items)[: int(HIDDEN[hidden] * len(items))]
        (folder / NAME).mkdir()
        mask = ["item_id:token\tmissing:token_seq", *(f"{i}\timage text caption" for i in lost)]
        (folder / NAME / "mask.tsv").write_text("\n".join(mask) + "\n")
        self.first: dict[str, float] = {}
        for _, item, time in rows:
            self.first.setdefault(item, float(time))

    def lines(self) -> Iterator[Line]:
        """One line a month."""
        before = None
        for start, end in zip(ENDS, ENDS[1:]):
            now = Month(self, start, end)
            yield now.line(before)
            before = now

    def config(self, imputation: str, seed: int, epochs: int) -> Any:
        """Config of a run on the files of the month."""
        own = self.data_path / NAME
        features = {
            f"{name}_{part}": str(own / f"{name}{ending}")
            for name in ("image", "text", "caption")
            for part, ending in (("features", "_feat.npy"), ("ids", ".ids"))
        }
        masked = {"missing_protocol": "file", "missing_file": "mask.tsv"}
        settings = {
            **SETTINGS,
            **features,
            **(masked if HIDDEN[self.hidden] else {"missing_protocol": "none"}),
            "data_path": str(self.folder),
            "checkpoint_dir": str(self.folder / "saved"),
            "imputation": imputation,
            "seed": seed,
            "epochs": epochs,
        }
        return pages.configured(MODEL, NAME, settings)


class Month:
    """The state at the end of a month."""

    def __init__(self, chain: Months, start: datetime, end: datetime) -> None:
        """Write the files of the month, and impute."""
        from recbole.data import create_dataset

        self.chain, self.start = chain, start
        past = [row for row in chain.rows if float(row[2]) < start.timestamp()]
        users, items = ({row[side] for row in past} for side in (0, 1))
        self.future = [
            row
            for row in chain.rows
            if start.timestamp() <= float(row[2]) < end.timestamp()
            and row[0] in users
            and row[1] in items
        ]
        self.past = past
        unread, *tested = self.future  # RecBole wants a validation split; nobody looks at it
        for name, rows in (("train", past), ("valid", [unread]), ("test", tested)):
            text = "".join(f"{user}\t{item}\n" for user, item, _ in rows)
            path = chain.folder / NAME / f"{NAME}.{name}.inter"
            path.write_text(f"user_id:token\titem_id:token\n{text}")
        self.data = create_dataset(chain.config("featprop", 1, EPOCHS)).build()[0]
        self.tokens = self.data.field2id_token["item_id"].tolist()
        begin = perf_counter()
        self.values = self.data.modalities  # they are imputed when they are read
        self.seconds = perf_counter() - begin
        self.models: dict[str, Trained] = {}

    def line(self, before: Month | None) -> Line:
        """Train the models, and compare them and the values with those of last month."""
        for word, seed in (("featprop", 1), ("featprop", 2), ("mean", 1)):
            self.models[f"{word} {seed}"] = self.trained(word, seed)
        self.models["warm"] = self.models["featprop 1"]
        moved = None
        if before is not None:
            moved = self.moved(before)
            self.models["kept 1"] = self.trained("Kept", 1)
            self.models["warm"] = self.trained("featprop", 1, before.models["warm"])
        return {
            "hidden": self.chain.hidden,
            "month": f"{self.start:%Y-%m}",
            "users": len({row[0] for row in self.past}),
            "items": len(self.tokens) - 1,
            "interactions": len(self.past),
            "tested": len(self.future) - 1,
            "imputed": {name: int(one.missing.sum()) for name, one in self.data.known.items()},
            "seconds": {
                "imputation": self.seconds,
                "training": self.models["featprop 1"].seconds,
                "warm": self.models["warm"].seconds if before else None,
            },
            "moved": moved,
            "recall": {name: model.recall for name, model in self.models.items()},
            "overlap": dict(self.overlaps(before)),
        }

    def trained(self, imputation: str, seed: int, start: Trained | None = None) -> Trained:
        """Train a model, from the parameters of another one if there is one."""
        from recbole_missing.quick_start import prepare

        epochs = EPOCHS if start is None else WARM_EPOCHS
        run = prepare(self.chain.config(imputation, seed, epochs), saved=False)
        model, data = run.trainer.model, run.train_data._dataset
        users, items = (data.field2id_token[name].tolist() for name in ("user_id", "item_id"))
        if start is not None:
            warm(model, start, users, items)
        begin = perf_counter()
        run.fit()
        seconds = perf_counter() - begin
        recall = run.test()[f"recall@{TOP}"]
        parameters = {name: one.detach().clone() for name, one in model.named_parameters()}
        return Trained(lists(model, data, users, items), recall, parameters, users, items, seconds)

    def moved(self, before: Month) -> dict[str, Any]:
        """How far FeatProp's values moved since last month, in the scale of this month."""
        place = {token: i for i, token in enumerate(before.tokens)}
        old = torch.tensor([place.get(token, 0) for token in self.tokens])
        found, Kept.rows, Kept.known = {}, {}, {}
        for name, values in self.values.items():
            last = before.values[name]
            rows = before.data.scales[name].undone(last.features)
            rows = self.data.scales[name].apply(rows[old], old > 0)
            both = values.missing & last.missing[old] & (old > 0)
            Kept.rows, Kept.known = {**Kept.rows, name: rows}, {**Kept.known, name: both}
            if both.any():
                found[name] = self._changes(values.features[both], rows[both], both, before)
        return found

    def _changes(self, new: Tensor, old: Tensor, items: Tensor, before: Month) -> dict[str, Any]:
        typical = old.norm(dim=1).mean()
        change = ((new - old).norm(dim=1) / typical).double().numpy()
        cosine = functional.cosine_similarity(new, old, dim=1).double().numpy()
        tokens = [self.tokens[i] for i in items.nonzero()[:, 0].tolist()]
        seconds = before.start.timestamp()
        months = [(seconds - self.chain.first[token]) / (365.25 / 12 * 86400) for token in tokens]
        fresh = {token: 0 for token in tokens}
        for _, item, _ in self.past[len(before.past) :]:
            if item in fresh:
                fresh[item] += 1
        groups = {
            "all": {"all": np.ones(len(tokens), bool)},
            "by_age": grouped(AGES, np.ceil(np.maximum(months, 0.5))),
            "by_new": grouped(NEW, np.array([fresh[token] for token in tokens])),
        }
        return {
            kind: {
                label: {
                    "items": int(some.sum()),
                    "change": float(change[some].mean()),
                    "median_change": float(np.median(change[some])),
                    "cosine": float(cosine[some].mean()),
                }
                for label, some in parts.items()
                if some.any()
            }
            for kind, parts in groups.items()
        }

    def overlaps(self, before: Month | None) -> Iterator[tuple[str, dict[str, float]]]:
        """Name of a comparison -> mean overlap of two lists: of all users, of idle users."""
        pairs = {
            "another seed": ("featprop 1", "featprop 2"),
            "mean instead of featprop": ("featprop 1", "mean 1"),
        }
        if before is not None:
            pairs["kept instead of recomputed"] = ("featprop 1", "kept 1")
        for name, (one, other) in pairs.items():
            yield name, overlap(self.models[one].lists, self.models[other].lists, set())
        if before is not None:
            busy = {row[0] for row in self.past[len(before.past) :]}
            for name in ("featprop 1", "mean 1", "warm"):
                both = self.models[name].lists, before.models[name].lists
                yield f"last month, {name.split()[0]}", overlap(*both, busy)


def grouped(bounds: Mapping[str, int], values: Any) -> dict[str, Any]:
    """Label -> bool ``(n,)``: values from its bound up to the next."""
    group = np.searchsorted(list(bounds.values()), values, side="right") - 1
    return {label: group == number for number, label in enumerate(bounds)}


def warm(model: Any, start: Trained, users: Sequence[str], items: Sequence[str]) -> None:
    """Take parameters over: rows of users and items by their tokens, other parameters as a whole.

    Tables of features are left out; they hold the imputed values of this month.
    """
    sides = ((users, start.users), (items, start.items))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.startswith("features."):
                continue
            old = start.parameters[name]
            for new_tokens, old_tokens in sides:
                if len(parameter) == len(new_tokens) and len(old) == len(old_tokens):
                    place = {token: i for i, token in enumerate(old_tokens)}
                    pairs = [(i, place[t]) for i, t in enumerate(new_tokens) if t in place]
                    here, there = torch.tensor(pairs).T
                    parameter[here] = old[there]
                    break
            else:
                parameter.copy_(old)


@torch.no_grad()
def lists(
    model: Any, data: Any, users: Sequence[str], items: Sequence[str]
) -> dict[str, list[str]]:
    """The first items of each user who has bought something, without what the user has."""
    model.eval()
    user_rows, item_rows = model.embeddings()
    scores = user_rows @ item_rows.T
    scores[:, 0] = -torch.inf
    bought = data.interaction_matrix().tocoo()
    scores[bought.row, bought.col] = -torch.inf
    best = scores.topk(TOP).indices.tolist()
    return {users[i]: [items[j] for j in best[i]] for i in range(1, len(users))}


def overlap(
    one: Mapping[str, list[str]], other: Mapping[str, list[str]], busy: set[str]
) -> dict[str, float]:
    """Mean share of the items of a list that the other list has, over users who have both."""
    users = [user for user in one if user in other]
    shares = np.array([len(set(one[user]) & set(other[user])) / TOP for user in users])
    idle = np.array([user not in busy for user in users])
    return {
        "users": len(users),
        "all": float(shares.mean()),
        "idle_users": int(idle.sum()),
        "idle": float(shares[idle].mean()),
    }


# ------------------------------------------------------------------------------------- the page


def draw() -> None:
    """Write the tables of the page, and the figure."""
    lines = pages.read(STORE)
    pages.write(PAGE, pages.filled(PAGE.read_text(encoding="utf-8"), shown(lines)))
    pages.draw(figure(lines), FIGURE)


def shown(lines: Sequence[Line]) -> dict[str, str]:
    """Name -> text of each block of the page."""
    found = {
        "lists": list_table(lines),
        "recall": recall_table(lines),
        "values": value_table(lines),
        "cost": cost_table(lines),
        "months": month_table(lines),
    }
    return {name: tables.markdown(table) for name, table in found.items()}


def later(lines: Sequence[Line], hidden: str) -> list[Line]:
    """The months of a mask that have a month before them."""
    return [line for line in lines if line["hidden"] == hidden and line["moved"] is not None]


def masks(lines: Sequence[Line]) -> list[str]:
    """Words of :data:`HIDDEN` in the store."""
    return [word for word in HIDDEN if later(lines, word)]


def list_table(lines: Sequence[Line]) -> tables.Table:
    """Overlap of lists: mean and deviation over months."""
    names = list(later(lines, masks(lines)[0])[0]["overlap"])
    columns = [
        tables.Column(
            f"{HEADS[word]}: {LISTS[users]}",
            [
                pages.mean_and_deviation(
                    [line["overlap"][name][users] for line in later(lines, word)]
                )
                if users == "all" or name.startswith("last month")
                else None
                for name in names
            ],
            form="cell",
        )
        for word in masks(lines)
        for users in LISTS
    ]
    return tables.Table({"lists that are compared": [COMPARED[name] for name in names]}, columns)


def recall_table(lines: Sequence[Line]) -> tables.Table:
    """Recall of the next month: mean and deviation over months, and the difference in pairs."""
    names = list(VARIANTS)
    columns = []
    for word in masks(lines):
        months = later(lines, word)
        recall = {name: np.array([line["recall"][name] for line in months]) for name in names}
        means = [pages.mean_and_deviation(recall[name].tolist(), 4) for name in names]
        columns.append(tables.Column(f"{HEADS[word]}: Recall@{TOP}", means, form="cell"))
        first = recall[names[0]]
        differences = [
            None if name == names[0] else pages.mean_and_deviation((one - first).tolist(), 4)
            for name, one in recall.items()
        ]
        columns.append(tables.Column("difference from the first row", differences, form="cell"))
    return tables.Table({"model": list(VARIANTS.values())}, columns)


def value_table(lines: Sequence[Line]) -> tables.Table:
    """How far imputed values move in a month, over months."""
    rows: list[list[str]] = []
    for word in masks(lines):
        months = [line["moved"] for line in later(lines, word)]
        for name in dict.fromkeys(name for month in months for name in month):
            for kind, group in GROUPS:
                found = [
                    month[name][kind][group]
                    for month in months
                    if name in month and group in month[name][kind]
                ]
                items = np.array([one["items"] for one in found])
                cells = [
                    f"{np.average([one[key] for one in found], weights=items):.3f}"
                    for key in ("change", "median_change", "cosine")
                ]
                label = "all" if kind == "all" else f"{KINDS[kind]} {group}"
                rows.append([HEADS[word], name, label, f"{items.mean():.0f}", *cells])
    heads = ("hidden", "modality", "items", "number", "mean change", "median change", "cosine")
    labels = {head: [row[i] for row in rows] for i, head in enumerate(heads[:3])}
    columns = [
        tables.Column(head, [row[i] for row in rows], form="cell")
        for i, head in enumerate(heads[3:], start=3)
    ]
    return tables.Table(labels, columns)


def cost_table(lines: Sequence[Line]) -> tables.Table:
    """Seconds a month."""
    columns = [
        tables.Column(
            HEADS[word],
            [
                pages.mean_and_deviation([line["seconds"][n] for line in later(lines, word)], 2)
                for n in COSTS
            ],
            form="cell",
        )
        for word in masks(lines)
    ]
    return tables.Table({"seconds of a month": list(COSTS.values())}, columns)


def month_table(lines: Sequence[Line]) -> tables.Table:
    """What each month begins with."""
    months = [line for line in lines if line["hidden"] == masks(lines)[0]]
    columns = [
        tables.Column(head, [line[head] for line in months], form="count")
        for head in ("users", "items", "interactions", "tested")
    ]
    for name in ("text", "caption"):
        columns.append(
            tables.Column(
                f"items without {name}", [line["imputed"][name] for line in months], form="count"
            )
        )
    return tables.Table({"first day": [f"{line['month']}-01" for line in months]}, columns)


def figure(lines: Sequence[Line]) -> Any:
    """Left: change of values. Right: overlap of lists. Both by month."""
    drawn = new_figure(figsize=(11, 4.4), layout="constrained")
    left, right = drawn.subplots(1, 2)
    word = masks(lines)[0]
    months = later(lines, word)
    ticks = [line["month"][2:] for line in months]
    names = list(months[0]["moved"])
    for name, style in line_styles(names).items():
        moved = [line["moved"][name]["all"]["all"] for line in months]
        left.plot(ticks, [one["change"] for one in moved], **{**style, "label": f"{name}, mean"})
        median = {**style, "label": f"{name}, median", "linestyle": ":"}
        left.plot(ticks, [one["median_change"] for one in moved], **median)
    left.set(ylabel="change of an imputed value in a month")
    left.set_ylim(0, 1.5 * left.get_ylim()[1])
    for name, style in line_styles(list(months[0]["overlap"])).items():
        shares = [line["overlap"][name]["all"] for line in months]
        right.plot(ticks, shares, **{**style, "label": COMPARED[name]})
    right.set(ylabel=f"items that two lists of {TOP} share", ylim=(0, 1))
    drawn.legend(*right.get_legend_handles_labels(), loc="outside right upper", frameon=False)
    left.legend(frameon=False, ncols=2, loc="upper right", fontsize="small")
    for axes in (left, right):
        axes.tick_params(axis="x", rotation=60)
        axes.set_xlabel("month (year-month)")
        plain_axes(axes, "y")
    return drawn


def main() -> None:
    """Run a command."""
    parser, first = pages.commands(__doc__)
    first.add_argument("--hidden", nargs="+", choices=list(HIDDEN), default=list(HIDDEN))
    known = parser.parse_args()
    if known.command == "draw":
        draw()
    else:
        measure(known.data_path, known.hidden)


if __name__ == "__main__":
    main()
