"""The tables of the papers: printed numbers next to our own, with intervals, from run records alone."""

import numpy as np
import pandas as pd

from refstudy.analysis.data_names import measured_by
from refstudy.analysis.measures import metrics_of, spelled
from refstudy.analysis.rows import Row, benchmark_splits, table_rows
from refstudy.metrics import METRICS
from refstudy.papers.printed import SPLITS, load_printed, printed_rows
from refstudy.papers.printed.specs import SPECS
from refstudy.study.file import ProfileStudy

TABLES = SPECS.tables  # those with a line per variant
PAPER_TABLES = SPECS.titles | {stem: spec.title for stem, spec in TABLES.items()}
COMPARISONS = ("s2rm_table1", "slvit_table1")  # the tables that list methods over benchmarks


def build_table(stem: str, study: ProfileStudy) -> pd.DataFrame:
    """One of ``TABLES``, a line per row and metric, all in percent.

    Columns: row, variant, metric; printed (on the paper's data); ours, the mean over runs, with its 95 % interval
    ours_low, ours_high (empty where the spread over seeds is unknown); minus_printed; printed_gain and gain, gain_low,
    gain_high over the baseline row, which has none; runs, data (what ours was measured on), missing (the command that
    trains the missing runs, or why there is none). Cells without runs are empty.
    """
    spec, printed = TABLES[stem], printed_rows(stem)
    rows, split = table_rows(stem, study), study.settings.splits[0]
    ends_of = metrics_of(study, split)
    ends = {name: ends_of(row.profile, row.variant, row.records) for name, row in rows.items() if row.records}
    base = ends.get(spec.baseline)
    lines = []
    for name in printed.index:
        row = rows.get(name, Row(missing=spec.unfilled.get(name, "")))
        for metric in METRICS:
            line: dict[str, object] = {"row": name, "variant": row.variant, "metric": metric}
            if metric in printed:
                line["printed"] = printed.loc[name, metric]
                if name != spec.baseline:
                    line["printed_gain"] = printed.loc[name, metric] - printed.loc[spec.baseline, metric]
            if name in ends:
                line |= spelled("ours", ends[name].level()[metric], percent=True)
                line["minus_printed"] = line["ours"] - line.get("printed", np.nan)  # type: ignore[operator]
                if base and name != spec.baseline:
                    line |= spelled("gain", ends[name].above(base)[metric])
            line |= {"runs": len(row.records), "data": measured_by(row.records, split), "missing": row.missing}
            lines.append(line)
    measured = "ours ours_low ours_high minus_printed printed_gain gain gain_low gain_high runs data missing"
    return pd.DataFrame(lines, columns=["row", "variant", "metric", "printed", *measured.split()])


def build_comparison(stem: str, study: ProfileStudy) -> pd.DataFrame:
    """One of ``COMPARISONS``, a line per printed row, measure and benchmark split that is printed, all in percent; ours
    from the records of this profile and of those named in its ``beside``.

    Columns: row, citation, metric, benchmark (as the table heads it), printed; variant; ours with its 95 % interval
    ours_low, ours_high; runs, data (what ours was measured on), missing (the command that trains the
    row, or the seeds that it lacks).
    """
    printed = load_printed(stem)
    if not isinstance(printed.index, pd.MultiIndex):
        printed = pd.concat({"Overall IoU": printed}, names=["block"])
    variants = {row: variant for row, (_, variant) in study.file.rows(stem, study.file.together(study.profile)).items()}
    ours = {
        column: (split, table_rows(stem, study, profiles), metrics_of(study, split))
        for column, (split, profiles) in benchmark_splits(study).items()
    }
    lines = []
    for (measure, name), cells in printed.iterrows():
        metric = {"Overall IoU": "oIoU", "Mean IoU": "mIoU"}[measure]
        for column in cells.index.intersection(SPLITS):
            split, rows, ends_of = ours.get(column, ("", {}, None))
            row = rows.get(name, Row())
            if np.isnan(cells[column]) and not row.records:
                continue
            line: dict[str, object] = {"row": name, "citation": cells["citation"], "metric": metric}
            line |= {"benchmark": column, "printed": cells[column], "variant": variants.get(name, "")}
            line |= {"data": measured_by(row.records, split), "missing": row.missing}
            if row.records and ends_of:
                level = ends_of(row.profile, row.variant, row.records).level()
                line |= spelled("ours", level[metric], percent=True) | {"runs": len(row.records)}
            lines.append(line)
    columns = "row citation metric benchmark printed variant ours ours_low ours_high runs data missing"
    return pd.DataFrame(lines, columns=columns.split()).astype({"runs": "Int64"})
