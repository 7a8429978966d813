"""The measured tables of docs/performance.md and docs/decisions.md: `python benchmarks/page.py` renews them.

A table stands between ``<!-- NAME -->`` and ``<!-- end -->``, NAME being that of a CSV file in benchmarks/results, or
"slopes", or "blocks".
"""

import re
from pathlib import Path

import pandas as pd

from refstudy.analysis.cost import slopes
from refstudy.base.files import atomic_write

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGES = [ROOT / "docs" / name for name in ("performance.md", "decisions.md")]
DERIVED = {"slopes": "growth", "blocks": "core_hours"}  # table -> the CSV file it is computed from
STAMP = ["machine", "torch", "date"]
TABLE = re.compile(r"<!-- (\w+) -->\n.*?<!-- end -->", re.DOTALL)


def filled(text: str) -> str:
    """The page's text with every table as its CSV file has it now."""
    return TABLE.sub(lambda found: f"<!-- {found[1]} -->\n{table(found[1])}\n<!-- end -->", text)


def table(name: str) -> str:
    """A CSV file in Markdown, with where and when it was measured below."""
    path = RESULTS / f"{DERIVED.get(name, name)}.csv"
    if not path.exists():
        return f"*Not measured yet: `python benchmarks/bench_{path.stem}.py`.*"
    rows = pd.read_csv(path, dtype=str, keep_default_na=False)
    where = "; ".join(
        f"{machine}, torch {torch}, {date}" for machine, torch, date in rows[STAMP].drop_duplicates().to_numpy()
    )
    shown = rows.drop(columns=STAMP)
    if name == "slopes":
        fitted = slopes(pd.read_csv(path))
        shown = fitted.assign(**(fitted.select_dtypes("float") + 0.0)).astype(str)  # no "-0.0"
    elif name == "blocks":
        shown = blocks(pd.read_csv(path)).astype(str)
    lines = ["| " + " | ".join(cells) + " |" for cells in [shown.columns, *shown.to_numpy()]]
    rule = "|" + "---|" * len(shown.columns)
    return "\n".join([lines[0], rule, *lines[1:], "", f"*{where}.*"])


def blocks(runs: pd.DataFrame) -> pd.DataFrame:
    """Rows (variants), runs and core-hours of every block of the study's runs, and of all."""
    hours = (runs["core_minutes"] * runs["runs"] / 60).rename("core_hours")
    table = runs.assign(core_hours=hours).groupby("block", sort=False)
    table = table.agg(rows=("variant", "size"), runs=("runs", "sum"), core_hours=("core_hours", "sum"))
    table.loc["all"] = table.sum()
    return table.astype({"rows": int, "runs": int}).round(1).reset_index()


def main() -> None:
    for page in PAGES:
        text = filled(page.read_text(encoding="utf-8"))
        with atomic_write(page) as temporary:
            temporary.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
