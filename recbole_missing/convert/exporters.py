"""Write a RecBole data set in the layout of another project.

One flow for every layout: the run's splits become a
:class:`~recbole_missing.convert.content.Content`, and the layout's writer writes it. A layout is
one line in :data:`WRITERS`. The data set is what a run has: read, filtered, split and masked. Items
without an interaction are left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

from recbole_missing.atomic import new_folder, write_report
from recbole_missing.config.constraints import unknown
from recbole_missing.convert.content import Content
from recbole_missing.convert.elliot import write_ducho, write_elliot
from recbole_missing.convert.mmrec import write_mmrec
from recbole_missing.tables import counted
from recbole_missing.version import __version__

WRITERS: Mapping[str, Callable[[Content, Path, Path], str]] = {
    "ducho": write_ducho,
    "elliot": write_elliot,
    "mmrec": write_mmrec,
}
"""Layout -> what writes a content into a folder that will become the second; it says what next."""


@dataclass(frozen=True)
class ExportReport:
    """What was written. ``str()`` gives a text for the user."""

    folder: Path
    report: Mapping[str, Any]

    def __str__(self) -> str:
        """Return the report as text; its end says what to do next."""
        counts = self.report["interactions"].items()
        sizes = ", ".join(f"{split} {count:,}" for split, count in counts)
        lines = [
            f"Wrote {self.folder}",
            f"  {counted(self.report['users'], 'user')}, {counted(self.report['items'], 'item')}; "
            f"interactions: {sizes}",
        ]
        for name, facts in self.report["modalities"].items():
            missing = facts["missing"]
            filled = f", {missing:,} of them imputed" if missing and facts["imputed"] else ""
            rows = self.report["items"] - (0 if facts["imputed"] else missing)
            lines.append(
                f"  {name}: {counted(rows, 'row')}, {counted(facts['dim'], 'feature')}{filled}"
            )
        lines += [f"  note: {note}" for note in self.report["notes"]]
        return "\n".join([*lines, f"Next: {self.report['next']}"])


def export_folder(
    layout: str,
    splits: Sequence[Any],
    output: Path | str | None = None,
    settings: Mapping[str, Any] | None = None,
    notes: Sequence[str] = (),
    force: bool = False,
) -> ExportReport:
    """Write a data set as ``<output>/<name>`` in another project's layout.

    Args:
        layout: one of :data:`WRITERS`.
        splits: training, validation and test split of a built
            :class:`~recbole_missing.data.dataset.MultimodalDataset`.
        output: folder of that project's data sets, created if absent; None: named as the layout.
        settings: ``imputation`` and all ``imputation_*`` keys. MMRec needs them if an item lacks a
            modality. In the other layouts a hole without them has no file.
        notes: further notes for the report.
        force: whether an earlier export is replaced.

    Raises:
        ValueError: if there is no such layout, the data do not fit it, or the target exists.
            Nothing is written then.
    """
    if layout not in WRITERS:
        raise ValueError(f"export: {unknown('layout', layout, WRITERS)}")
    target = Path(layout if output is None else output) / splits[0].dataset_name
    with new_folder(target, "export", force) as folder:
        content = Content.of(splits, settings, notes)
        following = WRITERS[layout](content, folder, target)
        report = {
            "version": __version__,
            "layout": layout,
            "imputation": settings and settings["imputation"],
            "users": len(content.users),
            "items": len(content.items),
            "interactions": {split: len(pairs) for split, pairs in content.pairs.items()},
            "modalities": {
                name: {
                    "dim": matrix.shape[1],
                    "missing": int((~content.observed[name]).sum()),
                    "imputed": content.completed,
                }
                for name, matrix in content.features.items()
            },
            "notes": content.notes,
            "next": following,
        }
        write_report(folder, report)
    return ExportReport(target, report)
