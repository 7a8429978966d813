"""Every trained variant in a line, those that stand in no table of the papers too, with the run records behind it."""

import pandas as pd

from refstudy.analysis.data_names import measured_by
from refstudy.analysis.measures import metrics_of, spelled
from refstudy.analysis.rows import recorded
from refstudy.analysis.table_text import with_interval
from refstudy.metrics import METRICS
from refstudy.study.file import ProfileStudy

REFERENCE = "tile_concat"  # the simplest model of the study: gains of variants that stand in no table are over it


def all_runs(study: ProfileStudy) -> pd.DataFrame:
    """A line for each variant with records, of this profile and of those named in its ``beside``, on the profile's
    first split.

    Columns: profile, variant, label; tables (those of the papers in which it fills a row); runs; all metrics in
    percent, oIoU, the mean over runs, with its 95 % interval (_low, _high), and gain, in oIoU over ``REFERENCE`` under
    the same profile, with its own; data (what they were measured on); records, their names: a row of any table that
    names this variant comes from them.
    """
    lines = []
    for profile in study.file.together(study.profile):
        own = study.beside(profile)
        split = own.settings.splits[0]
        ends_of = metrics_of(own, split)
        ends = {name: ends_of(profile, name, records) for name, records in recorded(own).items()}
        for name, one in ends.items():
            variant, level = own.file.variants[name], one.level()
            line: dict[str, object] = {"profile": profile, "variant": name, "label": variant.label, "runs": one.runs}
            line |= level.points.to_dict() | spelled("oIoU", level["oIoU"], percent=True)
            if REFERENCE in ends and name != REFERENCE:
                line |= spelled("gain", one.above(ends[REFERENCE])["oIoU"])
            line |= {"tables": " ".join(variant.tables), "data": measured_by(one.records, split)}
            lines.append(line | {"records": " ".join(record.path.name for record in one.records)})
    columns = "profile variant label tables runs oIoU oIoU_low oIoU_high gain gain_low gain_high".split()
    return pd.DataFrame(lines, columns=[*columns, *METRICS[1:], "data", "records"])


def render(table: pd.DataFrame) -> pd.DataFrame:
    """``all_runs`` as text, those of no table first, then by rising overall IoU; without the records."""
    table = table.assign(named=table["tables"] != "").sort_values(["named", "oIoU"])
    shown = table[["label", "profile", "tables", "runs"]].replace({"tables": {"": "none"}})
    shown.insert(1, "overall IoU", with_interval(table, "oIoU"))
    shown.insert(2, f"gain over {REFERENCE}", with_interval(table, "gain", signed=True))
    return shown.set_index("label")
