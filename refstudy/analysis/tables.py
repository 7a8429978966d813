"""The study's tables: printed numbers beside our own, with intervals, from run records alone."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd

from refstudy.analysis.inference import LEVEL, UNTESTABLE, Estimate, Side, Spread, estimate, pooled
from refstudy.base.config import THRESHOLD, DataConfig, EvaluationConfig
from refstudy.base.errors import StudyError
from refstudy.base.files import atomic_write, note
from refstudy.data.scenes import FLAVOURS
from refstudy.metrics import METRICS, THRESHOLDS, iou
from refstudy.papers.printed import SPLITS, load_printed, printed_rows
from refstudy.papers.printed.specs import SPECS
from refstudy.study.file import ProfileStudy, training_command
from refstudy.training.records import Record, find_record

RESAMPLES = 2000
USUAL = EvaluationConfig()
SEED = 20240509  # of the resampling: the same draws for every table, variant and machine
DATA_NAMES = {
    "refscenes": "RefScenes",
    "refscenes+": "RefScenes+",
    "refscenesg": "RefScenesG",
    "referscenes": "ReferScenes",
    "refcoco": "RefCOCO",
    "refcoco+": "RefCOCO+",
    "refcocog": "RefCOCOg",
    "refclef": "ReferIt",
}


TABLES = SPECS.tables  # those with a line per variant
PAPER_TABLES = SPECS.titles | {stem: spec.title for stem, spec in TABLES.items()}
COMPARISONS = ("s2rm_table1", "slvit_table1")  # the tables that list methods over benchmarks


def data_name(data: DataConfig, split: str, evaluation: EvaluationConfig = USUAL) -> str:
    """The data that a number was measured on, e.g. "RefScenes val, 128 px" or "RefCOCO (unc) val, 512 px"; and the way
    of measuring, where it is not the usual one."""
    drawn = FLAVOURS.get(data.dataset)
    partition = f" ({data.split_by})" if drawn is None or len(drawn.partitions) > 1 else ""
    name = DATA_NAMES.get(data.dataset, data.dataset) + partition
    kinds = f" ({' and '.join(data.kinds)})" if data.kinds else ""
    raw = ", raw sentences" if data.sentence_field == "raw" else ""
    original = ", counted at the original size" if evaluation.resolution == "original" else ""
    threshold = f", threshold {evaluation.threshold:g}" if evaluation.threshold != THRESHOLD else ""
    return f"{name} {split}{kinds}, {data.image_size} px{raw}{original}{threshold}"


def measured_on(study: ProfileStudy) -> str:
    """The usual data of a profile's numbers: ``data_name`` of its first split."""
    settings = study.settings
    return data_name(settings.data, settings.splits[0], settings.evaluation)


def measured_by(records: list[Record], split: str) -> str:
    """The data that these records of one variant were measured on, ``data_name`` of a split; empty without records."""
    config = records[0].config if records else None
    return data_name(config.data, split, config.evaluation) if config else ""


# The numbers of one run, a column per measure: row 0 as measured, then a row per resampling of the pictures.
Sample = Callable[[Record], pd.DataFrame]


@dataclass(frozen=True)
class Ends:
    """The results of a variant's ``runs``: ``values`` are their mean, as a ``Sample``. The ``spread`` of one run is
    pooled over the runs of all variants of the ``family``."""

    values: pd.DataFrame
    runs: int
    family: str
    spread: Spread
    records: tuple[Record, ...] = ()

    def level(self) -> Estimate:
        """The mean itself, Series of measures."""
        return _estimated(self.values, self._side)

    def above(self, other: "Ends") -> Estimate:
        """The gain over another variant, with pictures resampled together. Raises StudyError when the two were measured
        on different data."""
        _refuse_unlike([*self.records, *other.records])
        return _estimated(self.values - other.values, self._side, other._side)

    def above_fixed(self, values: pd.DataFrame) -> Estimate:
        """The gain over values that do not depend on a training, with pictures resampled together."""
        return _estimated(self.values - values, self._side)

    @property
    def _side(self) -> Side:
        return Side(self.family, self.runs, self.spread)


def _estimated(values: pd.DataFrame, *sides: Side) -> Estimate:
    return estimate(values.iloc[0], values.iloc[1:].var(ddof=0), *sides)


def own_ends(samples: Sequence[pd.DataFrame]) -> Ends:
    """The results of some runs of one variant, whose spread is estimated from these runs alone."""
    return Ends(sum(samples) / len(samples), len(samples), "", pooled([[one.iloc[0] for one in samples]]))


class Measure:
    """Levels and gains of a study's variants by one ``sample``, with the spread over seeds pooled by family.

    ``exact`` is row 0 of ``sample``, computed faster; it returns None for a record without that measure. The
    spread is pooled over all variants that a profile trains, from their recorded runs.
    """

    def __init__(
        self,
        study: ProfileStudy,
        sample: Sample,
        exact: Callable[[Record], pd.Series | None] | None = None,
    ):
        self._study, self._sample = study, sample
        self._exact = exact or (lambda record: sample(record).iloc[0])
        self._pools: dict[str, dict[str, Spread]] = {}
        self._ends: dict[tuple[str, str], Ends] = {}

    def __call__(self, trainer: str, variant: str, records: Sequence[Record]) -> Ends:
        """The results of a variant that the profile ``trainer`` trains, from its ``records``, at least one."""
        found = self._ends.get((trainer, variant))
        if found is None:
            samples, family = [self._sample(record) for record in records], self._study.file.variants[variant].family
            unknown = Spread(samples[0].iloc[0] * np.nan, 0)
            spread = self._pool(trainer).get(family, unknown)
            values = sum(samples) / len(samples)
            found = Ends(values, len(samples), f"{trainer}: {family}", spread, tuple(records))
            self._ends[trainer, variant] = found
        return found

    def _pool(self, trainer: str) -> dict[str, Spread]:
        if trainer not in self._pools:
            study = self._study.beside(trainer)
            ends: dict[str, list[list[pd.Series]]] = {}
            for name in study.variant_names:
                reached = map(self._exact, variant_records(study, name))
                own = [one for one in reached if one is not None]
                ends.setdefault(study.file.variants[name].family, []).append(own)
            several = {family: [own for own in groups if len(own) > 1] for family, groups in ends.items()}
            self._pools[trainer] = {family: pooled(groups) for family, groups in several.items() if groups}
        return self._pools[trainer]


def metrics_of(study: ProfileStudy, split: str) -> Measure:
    """All metrics of a split, in percent. Expressions of one picture are not independent, so whole pictures are drawn
    (a cluster bootstrap), by draws that depend on their number alone: variants on the same pictures are resampled
    together."""

    def exact(record: Record) -> pd.Series | None:
        return pd.Series(record.metrics[split]) if split in record.metrics else None

    return Measure(study, lambda record: sampled_metrics(record, split), exact)


def sampled_metrics(record: Record, split: str) -> pd.DataFrame:
    """All metrics of one run, in percent; row 0 as measured, then ``RESAMPLES`` resamplings of the split's pictures.
    They say nothing about other trainings."""
    counts = record.counts()
    return resampled_counts(counts[counts["split"] == split])


def resampled_counts(counts: pd.DataFrame) -> pd.DataFrame:
    """As ``sampled_metrics``, from the pixel counts of one split's expressions, as ``evaluate`` returns them."""
    counts = counts.sort_values("sent_id")
    ious = iou(counts["intersection"], counts["union"])
    per_image = counts[["image_id", "intersection", "union"]].assign(expressions=1, mIoU=ious)
    for threshold in THRESHOLDS:
        per_image[f"P@{threshold}"] = ious > threshold
    sums = per_image.groupby("image_id", sort=True).sum()
    drawn = pd.DataFrame(draws(len(sums)) @ sums.to_numpy(float), columns=sums.columns)
    metrics = drawn[list(METRICS[1:])].div(drawn["expressions"], axis=0)
    metrics.insert(0, "oIoU", drawn["intersection"] / drawn["union"])
    return 100 * metrics


@lru_cache(maxsize=8)
def draws(count: int) -> np.ndarray:
    """How often each of ``count`` images is drawn, (1 + RESAMPLES, count); in the first row, once each."""
    random = np.random.default_rng(SEED)
    return np.vstack([np.ones(count), random.multinomial(count, np.full(count, 1 / count), size=RESAMPLES)])


def interval(values: pd.Series | np.ndarray) -> tuple[float, float]:
    """The percentile interval of resampled values (without row 0, the estimate)."""
    low, high = np.percentile(np.asarray(values)[1:], [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    return float(low), float(high)


def spelled(name: str, found: Estimate, percent: bool = False) -> dict[str, float]:
    """An estimate as cells of a table: name, name_low and name_high; ``percent`` clips the interval to 0 to 100."""
    low, high = (float(end) for end in found.interval())
    if percent:
        low, high = np.clip([low, high], 0, 100)
    return {name: float(found.points), f"{name}_low": low, f"{name}_high": high}


def variant_records(study: ProfileStudy, variant: str) -> list[Record]:
    """The records of a variant with exactly the profile's settings, one per seed that has been run. Raises StudyError
    when two were measured on different data or computed in different precisions."""
    found = (find_record(study.folder / "records", study.config(variant, seed)) for seed in study.seeds(variant))
    records = [record for record in found if record is not None]
    _refuse_unlike(records)
    return records


def recorded(study: ProfileStudy) -> dict[str, list[Record]]:
    """The records of every variant of the profile that has any."""
    return {variant: records for variant in study.variant_names if (records := variant_records(study, variant))}


def missing_runs(study: ProfileStudy, variant: str, records: list[Record]) -> str:
    """The command that trains the seeds of a variant that are not among its ``records``; empty when none is missing."""
    unseen = set(study.seeds(variant)) - {record.config.seed for record in records}
    return training_command(study.profile, variant) if unseen else ""


def _refuse_unlike(records: list[Record]) -> None:
    """Raise StudyError for runs of different data or precisions, whether of one row or of two that are compared."""
    for record in records[1:]:
        if record.summary.get("data_fingerprint") != records[0].summary.get("data_fingerprint"):
            raise StudyError(
                f"{records[0].path} and {record.path}: measured on different data (data_fingerprint); "
                "train one of them again"
            )
    kinds = {record.provenance().get("precision", "float32"): record.path for record in records}
    if len(kinds) > 1:
        names = " and ".join(f"{path} in {kind}" for kind, path in sorted(kinds.items()))
        raise StudyError(f"{names}: runs that are compared are computed in one precision; train one of them again")


@dataclass(frozen=True)
class Row:
    """The variant that fills a printed row under a profile, and its records with exactly that profile's settings, one
    per seed that has been run. ``missing``: the command that trains the other seeds."""

    profile: str
    variant: str
    records: list[Record]
    missing: str

    def data(self, split: str) -> str:
        """The data that its numbers on a split were measured on; empty without records."""
        return measured_by(self.records, split)


def table_rows(stem: str, study: ProfileStudy, profiles: Sequence[str] | None = None) -> dict[str, Row]:
    """Row as printed -> the ``Row`` that fills it, from ``profiles``. By default these are this profile and those
    beside it with the same data, first the one that trains most of the table, so that compared rows have one
    encoder."""
    if profiles is None:
        near = study.file.compared(study.profile)
        of_table = {name for name, variant in study.file.variants.items() if stem in variant.tables}
        profiles = sorted(near, key=lambda name: -len(of_table.intersection(study.file.variant_names(name))))
    found = {}
    for row, (name, variant) in study.file.rows(stem, profiles).items():
        trainer = study.beside(name)
        records = variant_records(trainer, variant)
        found[row] = Row(name, variant, records, missing_runs(trainer, variant, records))
    return found


def benchmark_splits(study: ProfileStudy) -> dict[str, tuple[str, list[str]]]:
    """Column of the tables over benchmarks, e.g. "RefCOCOg val-U" -> the split, and the profiles that have it, among
    this one and those beside it."""
    found: dict[str, tuple[str, list[str]]] = {}
    for name in study.file.together(study.profile):
        settings = study.file.profile(name)
        columns = SPECS.columns.get(f"{settings.data.dataset} {settings.data.split_by}", {})
        for split in settings.splits:
            if split in columns:
                found.setdefault(columns[split], (split, []))[1].append(name)
    return found


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
        row = rows.get(name, Row(study.profile, "", [], spec.unfilled.get(name, "")))
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
            lines.append(line | {"runs": len(row.records), "data": row.data(split), "missing": row.missing})
    columns = (
        "row variant metric printed ours ours_low ours_high minus_printed printed_gain gain gain_low gain_high runs "
        "data missing"
    )
    return pd.DataFrame(lines, columns=columns.split())


def build_comparison(stem: str, study: ProfileStudy) -> pd.DataFrame:
    """One of ``COMPARISONS``, a line per printed row, measure and benchmark split that is printed, all in percent; ours
    from the records of this profile and of those beside it.

    Columns: row, citation, metric, benchmark (as the table heads it), printed; variant; ours with its 95 % interval
    ours_low, ours_high; runs, data (what ours was measured on), missing (the command that trains the
    row, or the seeds that it lacks).
    """
    printed = load_printed(stem)
    if not isinstance(printed.index, pd.MultiIndex):
        printed = pd.concat({"Overall IoU": printed}, names=["block"])
    variants = {row: variant for row, (_, variant) in study.file.rows(stem, study.file.together(study.profile)).items()}
    ours = {
        column: (
            split,
            table_rows(stem, study, profiles),
            metrics_of(study, split),
        )
        for column, (split, profiles) in benchmark_splits(study).items()
    }
    lines = []
    for (measure, name), cells in printed.iterrows():
        metric = {"Overall IoU": "oIoU", "Mean IoU": "mIoU"}[measure]
        for column in cells.index.intersection(SPLITS):
            split, rows, ends_of = ours.get(column, ("", {}, None))
            row = rows.get(name)
            if np.isnan(cells[column]) and not (row and row.records):
                continue
            line: dict[str, object] = {"row": name, "citation": cells["citation"], "metric": metric}
            line |= {"benchmark": column, "printed": cells[column], "variant": variants.get(name, "")}
            if row and row.records and ends_of:
                level = ends_of(row.profile, row.variant, row.records).level()
                line |= spelled("ours", level[metric], percent=True)
                line |= {"runs": len(row.records), "data": row.data(split)}
            if row:
                line["missing"] = row.missing
            lines.append(line)
    columns = "row citation metric benchmark printed variant ours ours_low ours_high runs data missing"
    table = pd.DataFrame(lines, columns=columns.split())
    return table.astype({"runs": "Int64"}).fillna({"data": "", "missing": ""})


def rounded(table: pd.DataFrame) -> pd.DataFrame:
    """The table with two decimals, as it is written."""
    return table.assign(**(table.select_dtypes("float").round(2) + 0.0))  # no "-0.00"


def write_table(table: pd.DataFrame, folder: Path | str, stem: str, live: bool = False) -> Path:
    """Write ``<stem>.csv`` with two decimals; the same numbers give the same bytes.

    ``live``: the numbers are of a model that computed just now. A file whose numbers all lie within one unit of their
    last digit of these stays as it is, since another processor rounds differently.
    """
    path, table = Path(folder) / f"{stem}.csv", rounded(table)
    if live and path.exists() and _agrees(pd.read_csv(path), table):
        note("wrote", path)
        return path
    with atomic_write(path) as temporary:
        table.to_csv(temporary, index=False, float_format="%.2f", lineterminator="\n")
    return path


def _agrees(old: pd.DataFrame, new: pd.DataFrame) -> bool:
    """Tell whether two tables are the same, decimals within one hundredth."""
    new = pd.read_csv(StringIO(new.to_csv(index=False, float_format="%.2f")))  # the same types as those of the old one
    try:
        pd.testing.assert_frame_equal(old, new, rtol=0, atol=0.0101)
    except AssertionError:
        return False
    return True


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
    shown = table[table["printed"].notna()]
    cells = {}
    for metric in shown["metric"].unique():
        part = shown[shown["metric"] == metric].set_index("row")
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
    smallest = (table["smallest"].map("{:.1f}".format) + " would be seen)").radd(" (")
    shown["verdict"] = "**" + table["verdict"] + "**" + smallest.where(table["smallest"].notna(), "")
    if "ceiling" in table:
        ceiling = (table["ceiling"].map("{:.1f}".format) + ")").radd(" (at most ")
        shown["verdict"] += ceiling.where(table["verdict"] == UNTESTABLE, "")
    return shown.fillna("")


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
