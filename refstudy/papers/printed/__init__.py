"""Load the tables that the papers print, S²RM + CASG (arXiv 2405.09006) and SLViT (IJCAI 2023): one CSV per table.

Every table is transcribed whole: all rows in the printed order, all methods, an empty cell where the paper prints a
dash. Scores are in percent. Besides the scores, in the columns that the tables share:

- ``row``: the row's name as printed, the year in subscript included (``LAVT₂₂``). Where the paper prints check marks
  instead of names (``slvit_table2b``, ``slvit_table2d``) it is the marked columns, e.g. ``7B + 11B``.
- ``citation``: the citation key as printed, empty for the paper's own rows; part of the name in ``s2rm_table7``.
- ``block``: in tables where two rows share a name, or that print a heading next to groups of rows. In ``s2rm_table1``
  the measure (``Mean IoU`` or ``Overall IoU``), in ``slvit_table2a`` the size of the kernel, in ``slvit_table2d`` the
  line of the table, because the text of the paper has the marks S2 S3 S4 twice.
- ``RefCOCO val``, ``RefCOCOg val-U``, ...: a column per data set and split, in the spelling of S²RM, Table I; SLViT
  calls RefCOCOg ``G-Ref`` and its splits ``val(U)``, ``test(U)``, ``val(G)``.
- ``RefCOCO 1-2``, ...: in ``s2rm_table3`` a column per data set and number of words (overall IoU); of RefCOCOg it has
  Google's partition.
- ``oIoU``, ``mIoU``: SLViT prints ``Overall IoU`` and ``Mean IoU``.
- ``Flops``, ``Flops unit``: two cells of S²RM, Table II, stand without the ``G`` of the others.

``s2rm_datasets`` and ``slvit_datasets`` hold the sizes of the data sets that the running text gives (S²RM, Sec. IV-A;
SLViT, Sec. 4.1): images, expressions, regions, mean length in words, and expressions per split, as the text assigns
them. ``cris_datasets`` is of neither paper: the referents per split of the released annotation files, as the public
code of CRIS lists them (``utils/dataset.py``). SLViT's Figure 5 has no table: its text prints no number of it.
"""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from refstudy.base.errors import StudyError

if TYPE_CHECKING:
    import pandas as pd

FOLDER = Path(__file__).parent
SPLITS = (
    *(f"{data} {split}" for data in ("RefCOCO", "RefCOCO+") for split in ("val", "testA", "testB")),
    *(f"RefCOCOg {split}" for split in ("val-U", "test-U", "val-G")),
    "ReferIt test",
)


def stems() -> list[str]:
    """List the tables that are transcribed, e.g. ``s2rm_table4``."""
    return sorted(path.stem for path in FOLDER.glob("*.csv"))


def load_printed(stem: str) -> "pd.DataFrame":
    """Load a printed table, in the printed order: index ``row``, or (``block``, ``row``) where the table has blocks.

    The columns are described above; a number that is not printed is NaN, a text that is not printed is empty.
    Raises StudyError for a table that is not transcribed.
    """
    import pandas as pd  # slow to load, and the study file needs the names of the rows only

    if stem not in stems():
        raise StudyError(f"no printed table '{stem}'; known: {', '.join(stems())}")
    table = pd.read_csv(FOLDER / f"{stem}.csv", dtype={"block": str}, keep_default_na=False, na_values=[""])
    texts = list(table.select_dtypes(exclude="number"))
    table[texts] = table[texts].fillna("")
    return table.set_index(["block", "row"] if "block" in table else "row")


def printed_rows(stem: str) -> "pd.DataFrame":
    """Load a printed table with one name per row, the block before it where the table has blocks: "small: 5 B"."""
    table = load_printed(stem)
    if table.index.nlevels > 1:
        table = table.set_axis([f"{block}: {row}" for block, row in table.index]).rename_axis("row")
    return table


def printed_cells(stem: str, rows: Sequence[str] = (), columns: Sequence[str] = ()) -> "pd.DataFrame":
    """Load the named rows and columns of ``printed_rows``; without names all rows, or all columns of numbers.

    Raises StudyError for a name that the table does not have.
    """
    table = printed_rows(stem)
    for kind, names, known in (("row", rows, table.index), ("column", columns, table.columns)):
        for name in names:
            if name not in known:
                raise StudyError(f"printed table '{stem}' has no {kind} '{name}'; known: {', '.join(known)}")
    chosen = table[list(columns)] if columns else table.select_dtypes("number")
    return chosen.loc[list(rows)] if rows else chosen


def row_names(stem: str) -> list[str]:
    """List the rows of a printed table as the study file calls them: by their name, with the block before it where the
    table has blocks other than measures, e.g. "small: 5 B"."""
    with (FOLDER / f"{stem}.csv").open(encoding="utf-8") as file:
        named = [(line.get("block", ""), line["row"]) for line in csv.DictReader(file)]
    return [row if not block or block.endswith(" IoU") else f"{block}: {row}" for block, row in named]
