"""Turn folders in the layout of other projects into RecBole data set folders.

One flow for every layout: its reader makes a :class:`~recbole_missing.convert.folder.Layout` of the
source, and :func:`~recbole_missing.convert.folder.write` writes it. A layout is one line in
:data:`READERS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable

from recbole_missing.atomic import new_folder
from recbole_missing.config.constraints import unknown
from recbole_missing.convert.cornac import read_cornac
from recbole_missing.convert.dgmrec import read_dgmrec, read_mask
from recbole_missing.convert.elliot import read_elliot
from recbole_missing.convert.folder import ImportReport, Layout, target_folder, write
from recbole_missing.convert.matrices import read_diffmm, read_mmssl
from recbole_missing.convert.microlens import read_microlens
from recbole_missing.convert.mmrec import inter_file, read_mmrec, read_plain

READERS: Mapping[str, Callable[..., Layout]] = {
    "cornac": read_cornac,
    "dgmrec": read_dgmrec,
    "diffmm": read_diffmm,
    "elliot": read_elliot,
    "microlens": read_microlens,
    "mmrec": read_mmrec,
    "mmssl": read_mmssl,
}
"""Layout -> its reader: the folder (and options) to a :class:`.Layout`."""


def import_folder(
    layout: str,
    source: Path | str,
    name: str,
    output: Path | str = Path("dataset"),
    force: bool = False,
    **options: Any,
) -> ImportReport:
    """Turn a folder in another project's layout into the RecBole data set ``<output>/<name>``.

    Args:
        layout: one of :data:`READERS`.
        source: the folder to read.
        name: name of the new data set.
        output: the folder of RecBole data sets; created if absent.
        force: whether the files that an earlier import wrote are replaced; other files stay.
        options: what the reader of the layout takes besides the folder.

    Returns:
        What was written and what was left out.

    Raises:
        ValueError: if there is no such layout, the source is incomplete, inconsistent or unsafe,
            ``name`` is not a plain folder name, another process writes the target, or
            :func:`.atomic.new_folder` may not replace it. Nothing is written then.
    """
    if layout not in READERS:
        raise ValueError(f"import: {unknown('layout', layout, READERS)}")
    target = target_folder(Path(source), name, Path(output))
    with new_folder(target, "import", force) as folder:
        return write(READERS[layout](Path(source), **options), folder, target, layout)


def import_rows(source: Path, output: Path, mask: Path | None = None) -> tuple[Path, list[str]]:
    """Import a folder of MMRec or DGMRec so that each row of its features becomes an item.

    :func:`import_folder` leaves out items without an interaction, as MMRec does. But a completed
    feature file should have all rows of the original file. So this function writes a ``.item`` file
    that lists all of them.

    Args:
        source: the folder of the ``.inter`` file and the features.
        output: parent folder of the data set folder, which is named after the ``.inter`` file.
        mask: one of DGMRec's masks, which becomes the mask of the data set, or None.

    Returns:
        The data set folder, and sentences on what was left out.

    Raises:
        ValueError: if the source or the mask is wrong.
    """
    layout = replace(read_plain(source), every_row=True)
    if mask is not None:
        name = mask.stem.replace("missing_items_", "")
        layout = replace(layout, masks={name: read_mask(mask, layout)})
    target = output / inter_file(source).stem
    with new_folder(target, "import") as folder:
        write(layout, folder, target, "mmrec")
    return target, layout.notes
