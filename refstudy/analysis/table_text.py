"""Tables as text, for notebooks and pages."""

import pandas as pd

from refstudy.analysis.inference import UNTESTABLE
from refstudy.metrics import METRICS
from refstudy.papers.printed import SPLITS


def with_interval(table: pd.DataFrame, column: str, digits: int = 1, signed: bool = False) -> pd.Series:
    """A column with its interval from the columns _low and _high, as text: "43.6 [40.5, 46.6]"; without an interval the
    number alone, without a number empty."""
    form = f"{{:{'+z' if signed else ''}.{digits}f}}".format
    values, low, high = (table[f"{column}{end}"].map(form) for end in ("", "_low", "_high"))
    return (values + " [" + low + ", " + high + "]").str.replace(r"( \[)?\+?nan.*", "", regex=True)


def render(table: pd.DataFrame) -> pd.DataFrame:
    """``build_table`` as text, a line per row: for each printed metric the printed number, and ours with its interval;
    then, where there are any, the gains over the baseline row in overall IoU; the number of runs, and our data. Counted
    numbers have no interval."""
    cells = {}
    for metric, part in table[table["printed"].notna()].set_index("row").groupby("metric", sort=False):
        cells[metric, "printed"] = part["printed"].map("{:.2f}".format)
        cells[metric, "ours"] = with_interval(part, "ours")
    wide = pd.DataFrame(cells).reindex(table["row"].unique()).fillna("")
    overall = table[table["metric"] == METRICS[0]].set_index("row")
    if overall["printed_gain"].notna().any():
        wide[f"gain in {METRICS[0]}", "printed"] = overall["printed_gain"].map("{:+.2f}".format).replace("+nan", "")
    if overall[["printed_gain", "gain"]].notna().any(axis=None):
        wide[f"gain in {METRICS[0]}", "ours"] = with_interval(overall, "gain", signed=True)
    return wide.assign(**{"runs": overall["runs"], "our data": overall["data"]})


def render_comparison(table: pd.DataFrame) -> pd.DataFrame:
    """``build_comparison`` to read: a line per row; a column of printed numbers per benchmark, then one of ours per
    data set on which they were measured, with the number of runs where there are several."""
    ours = table[table["ours"].notna()]
    runs = ours["runs"].map(lambda count: f" ({count:.0f} runs)" if count > 1 else "")
    cells = pd.concat(
        [
            table.assign(column=table["benchmark"], cell=table["printed"].map("{:.2f}".format).replace("nan", "")),
            ours.assign(column="ours: " + ours["data"], cell=ours["ours"].map("{:.1f}".format) + runs),
        ]
    )
    order = [column for column in SPLITS if column in set(table["benchmark"])]
    order += [f"ours: {data}" for data in ours["data"].unique()]
    wide = cells.pivot(index=["metric", "row"], columns="column", values="cell")[order].fillna("")
    return wide.reindex(pd.MultiIndex.from_frame(table[["metric", "row"]].drop_duplicates()))


def render_verdicts(table: pd.DataFrame, *texts: str) -> pd.DataFrame:
    """Verdicts as text: the columns ``texts`` as they are; printed points, if the table has them, and measured ones
    with their 95 % interval; runs, if the table has them, "5 / 3" when the reference has another number; the verdict in
    Markdown's bold, with the smallest gain that could have been seen if it is undecided, and the ceiling if it is
    untestable."""

    def points(column: str, digits: int) -> pd.Series:
        return table[column].map(f"{{:+z.{digits}f}}".format, na_action="ignore").astype(object)

    shown = table[list(texts)].copy()
    if "printed" in table:
        shown["printed"] = points("printed", 2)
    shown["measured"] = points("measured", 1)
    shown["95 % interval"] = points("low", 1).str.cat(points("high", 1), sep=" to ")
    if "runs" in table:
        own, other = (table[side].map("{:.0f}".format, "ignore").astype(object) for side in ("runs", "reference_runs"))
        shown["runs"] = own.where(own == other, own.str.cat(other, sep=" / "))
    smallest = detectable(table["smallest"])
    if "runs_needed" in table:
        needed = table["runs_needed"].fillna("").astype(str)
        smallest += ("; one as measured needs " + needed + " a side").where(needed != "", "")
    smallest = (smallest + ")").radd(" (")
    shown["verdict"] = "**" + table["verdict"] + "**" + smallest.where(table["smallest"].notna(), "")
    if "ceiling" in table:
        ceiling = (table["ceiling"].map("{:.1f}".format) + " %)").radd(" (ceiling ")
        shown["verdict"] += ceiling.where(table["verdict"] == UNTESTABLE, "")
    return shown.fillna("")


def detectable(smallest: pd.Series) -> pd.Series:
    """Say which gain, in points of a percentage, the runs of an undecided claim find with a chance of 80 %."""
    text = smallest.map("these runs find a gain of {:.1f} in 4 of 5 cases".format)
    return text.mask(smallest > 100, "these runs find no gain")


def markdown(table: pd.DataFrame) -> str:
    """A table of strings, without its index, in Markdown."""
    lines = [table.columns, ["---"] * len(table.columns), *table.itertuples(index=False)]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def untrained(*tables: pd.DataFrame) -> str:
    """List, in Markdown, the commands that train the rows of these tables without a run, and those with missing seeds;
    empty when none is missing."""
    recorded: dict[str, bool] = {}
    for table in tables:
        for missing, runs in zip(table["missing"], pd.to_numeric(table["runs"]), strict=True):
            for command in missing.split(" && "):
                if command.startswith("refstudy"):
                    recorded[command] = recorded.get(command, False) or bool(pd.notna(runs) and runs > 0)
    parts = []
    for text, some in (("No run yet:", False), ("Recorded; further seeds missing:", True)):
        commands = [f"    {command}" for command, has_runs in recorded.items() if has_runs is some]
        parts += ["\n".join([text, "", *commands])] if commands else []
    return "\n\n".join(parts)
