"""The tables of a results folder as files: their places, and one of them made readable. Loads no PyTorch."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


def table_path(folder: Path, stem: str) -> Path:
    """The file of a table in a results folder."""
    return folder / f"{stem}.csv" if stem == "claims" else folder / "tables" / f"{stem}.csv"


def table_files(folder: Path) -> dict[str, Path]:
    """The tables that a results folder holds: stem -> CSV."""
    return {path.stem: path for path in sorted([*folder.glob("*.csv"), *folder.glob("tables/*.csv")])}


def readable(table: "pd.DataFrame") -> "pd.DataFrame":
    """A paper's table with one line per printed row: the printed number and, in brackets, ours; others as they are."""
    rows = ["metric", "row"] if "benchmark" in table else ["row"]
    columns = [name for name in ("metric", "benchmark", "dataset", "bucket") if name in table and name not in rows]
    if not {"row", "printed", "ours"} <= set(table) or not columns:
        return table
    printed, ours = (table[name].map("{:.2f}".format, na_action="ignore").fillna("") for name in ("printed", "ours"))
    cells = table.assign(cell=(printed + (" (" + ours + ")").where(ours != "", "")).str.strip())
    wide = cells.set_index([*rows, *columns])["cell"].unstack(columns, sort=False).fillna("")
    return wide.loc[:, (wide != "").any()]
