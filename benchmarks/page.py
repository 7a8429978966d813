"""The measured tables of docs/performance.md and docs/decisions.md: `python benchmarks/page.py` renews them.

A table stands between ``<!-- NAME -->`` and ``<!-- end -->``, NAME being that of a CSV file in benchmarks/results, or
"slopes", or "blocks"; "summary" is the lines of ``SUMMARY``.
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
# CSV file -> a column, how it begins in the rows that the sentence is about, and the sentence for its ratios or times
SUMMARY = {
    "models": ("what", "coparsing, ", "Coparsing from one Gram matrix is {} times as fast as from shifted copies"),
    "evaluation": ("what", "evaluation, ", "Evaluation is {} times as fast as with an image encoded for each pair"),
    "training": ("what", "training, ", "Training is {} times as fast as a loop in the style of LAVT's public code"),
    "peers": ("what", "(?=lavt|slvit)", "LAVT and SLViT are {} times as fast as their authors' own code"),
    "prompt": (
        "baseline",
        "import pandas",
        "A command without a model takes {} times the CPU time of importing pandas",
    ),
}
TABLE = re.compile(r"<!-- (\w+) -->\n.*?<!-- end -->", re.DOTALL)


def filled(text: str) -> str:
    """The page's text with every table as its CSV file has it now."""
    return TABLE.sub(lambda found: f"<!-- {found[1]} -->\n{table(found[1])}\n<!-- end -->", text)


def table(name: str) -> str:
    """A CSV file in Markdown, with where and when it was measured below; for "summary" the sentences."""
    if name == "summary":
        return "\n".join(sentence(name) for name in SUMMARY if (RESULTS / f"{name}.csv").exists())
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


def sentence(name: str) -> str:
    """The line of ``SUMMARY`` about a CSV file: from the least to the most, which rows these are, and the machine."""
    column, start, text = SUMMARY[name]
    rows = pd.read_csv(RESULTS / f"{name}.csv").rename(columns={"times": "ratio"})
    rows = rows[rows[column].str.match(start) & (rows.get("unit") != "MB")].sort_values("ratio").iloc[[0, -1]]
    least, most = (re.sub(start, "", what) for what in rows["what"])
    ratios = " to ".join(rows["ratio"].map("{:g}".format).drop_duplicates())
    about = f"; least: {least}; most: {most}" if least != most else f": {most}"
    return f"- {text.format(ratios)}{about}. *{rows['machine'].iloc[0]}, {rows['date'].iloc[0]}.*"


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
