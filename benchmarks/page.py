"""The tables of docs/performance.md, from the CSV files in benchmarks/results: `python benchmarks/page.py` renews them.

A table stands between ``<!-- NAME -->`` and ``<!-- end -->``, NAME being that of a CSV file or "slopes".
"""

import re
from pathlib import Path

import pandas as pd

from refstudy.analysis.cost import slopes
from refstudy.base.files import atomic_write

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "performance.md"
STAMP = ["machine", "torch", "date"]
TABLE = re.compile(r"<!-- (\w+) -->\n.*?<!-- end -->", re.DOTALL)


def filled(text: str) -> str:
    """The page's text with every table as its CSV file has it now."""
    return TABLE.sub(lambda found: f"<!-- {found[1]} -->\n{table(found[1])}\n<!-- end -->", text)


def table(name: str) -> str:
    """A CSV file in Markdown, with where and when it was measured below."""
    path = RESULTS / f"{'growth' if name == 'slopes' else name}.csv"
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
    lines = ["| " + " | ".join(cells) + " |" for cells in [shown.columns, *shown.to_numpy()]]
    rule = "|" + "---|" * len(shown.columns)
    return "\n".join([lines[0], rule, *lines[1:], "", f"*{where}.*"])


def main() -> None:
    text = filled(PAGE.read_text(encoding="utf-8"))
    with atomic_write(PAGE) as temporary:
        temporary.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
