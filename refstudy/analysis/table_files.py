"""The tables of a results folder as files: their places, and one of them made readable. Loads no PyTorch."""

from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from refstudy.base.errors import StudyError
from refstudy.base.files import atomic_write, note

if TYPE_CHECKING:
    import pandas as pd


def table_path(folder: Path, stem: str) -> Path:
    """The file of a table in a results folder."""
    return folder / f"{stem}.csv" if stem == "claims" else folder / "tables" / f"{stem}.csv"


def table_files(folder: Path) -> dict[str, Path]:
    """The tables that a results folder holds: stem -> CSV."""
    return {path.stem: path for path in sorted([*folder.glob("*.csv"), *folder.glob("tables/*.csv")])}


def read_table(path: Path, maker: str = "refstudy run", **how: Any) -> "pd.DataFrame":
    """The table of a file; ``how`` is for ``pandas.read_csv``. Raises StudyError, which names the command that makes
    it, for a file that is missing or is no table."""
    import pandas as pd

    try:
        return pd.read_csv(path, **how)
    except (OSError, ValueError) as error:
        raise StudyError(f"{path}: no table; `{maker}` makes it again") from error


def readable(table: "pd.DataFrame") -> "pd.DataFrame":
    """A paper's table with one line per printed row: the printed number and, in brackets, ours. Others as they are,
    without the names of records."""
    rows = ["metric", "row"] if "benchmark" in table else ["row"]
    columns = [name for name in ("metric", "benchmark", "dataset", "bucket") if name in table and name not in rows]
    if not {"row", "printed", "ours"} <= set(table) or not columns:
        return table.drop(columns="records", errors="ignore")
    printed, ours = (table[name].map("{:.2f}".format, na_action="ignore").fillna("") for name in ("printed", "ours"))
    cells = table.assign(cell=(printed + (" (" + ours + ")").where(ours != "", "")).str.strip())
    wide = cells.set_index([*rows, *columns])["cell"].unstack(columns, sort=False).fillna("")
    return wide.loc[:, (wide != "").any()]


def rounded(table: "pd.DataFrame") -> "pd.DataFrame":
    """The table with two decimals, as it is written."""
    return table.assign(**(table.select_dtypes("float").round(2) + 0.0))  # no "-0.00"


def write_table(table: "pd.DataFrame", folder: Path | str, stem: str, live: bool = False) -> Path:
    """Write ``<stem>.csv`` with two decimals; the same numbers give the same bytes.

    ``live``: the numbers are of a model that computed just now. A file whose numbers all lie within one unit of their
    last digit of these stays as it is, since another processor rounds differently.
    """
    path, table = Path(folder) / f"{stem}.csv", rounded(table)
    if live and path.exists() and _agrees(path, table):
        note("wrote", path)
        return path
    with atomic_write(path) as temporary:
        table.to_csv(temporary, index=False, float_format="%.2f", lineterminator="\n")
    return path


def _agrees(path: Path, new: "pd.DataFrame") -> bool:
    """Tell if the table at ``path`` is the same as a new one, decimals within one hundredth."""
    import pandas as pd

    new = pd.read_csv(StringIO(new.to_csv(index=False, float_format="%.2f")))  # the same types as those of the old one
    try:
        pd.testing.assert_frame_equal(read_table(path), new, rtol=0, atol=0.0101)
    except (AssertionError, StudyError):
        return False
    return True
