"""The study's tables: printed numbers beside our own, with intervals, from run records alone."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
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


@dataclass(frozen=True)
class TableSpec:
    """The specification of a table: its place in the paper, the row that the others are held against, what the printed
    numbers were measured on, and rows that no variant can fill, with the reason."""

    title: str
    baseline: str
    printed_on: str = "RefCOCO val, 512 px"
    unfilled: dict[str, str] = field(default_factory=dict)


SLVIT_ON = "RefCOCO val, 480 px"
COMPETITORS = ("BRINet", "LTS", "CEFNet", "VLT", "M3Att", "SADLR")
TABLES = {
    "s2rm_table2": TableSpec(
        "S²RM, Table II: precision and cost beside other methods",
        "LAVT",
        printed_on="RefCOCO val, each method at its own size (Ours 512 px, LAVT 480)",
        unfilled=dict.fromkeys(COMPETITORS, "a competitor's number; not reimplemented")
        | {"SwinB-Ours": "needs profile refcoco_swinb"},
    ),
    "s2rm_table4": TableSpec("S²RM, Table IV: the parts of S²RM (decoder: FPN)", "W. Tile & Concat."),
    "s2rm_table5": TableSpec("S²RM, Table V: the parts of CASG (fusion: S²RM)", "W. CASG (Full)"),
    "s2rm_table6": TableSpec("S²RM, Table VI: removing decoding stages of CASG", "Full"),
    "s2rm_table7": TableSpec("S²RM, Table VII: fusion modules and decoders", "ACM [17] + FPN"),
    "slvit_table2a": TableSpec("SLViT, Table 2(a): one strip pair", "small: 5 B", SLVIT_ON),
    "slvit_table2b": TableSpec("SLViT, Table 2(b): strip pairs and gate", "7B + 11B + 21B + Gate", SLVIT_ON),
    "slvit_table2c": TableSpec("SLViT, Table 2(c): URCE", "SLViT(w/o URCE)", SLVIT_ON),
    "slvit_table2d": TableSpec(
        "SLViT, Table 2(d): stages that URCE joins",
        "4: S1 + S2 + S3 + S4",
        SLVIT_ON,
        unfilled={"1: S2 + S3 + S4": "printed twice with different numbers; our run stands beside the second"},
    ),
    "slvit_table2e": TableSpec("SLViT, Table 2(e): features for the prediction", "F̃1, F̃2, F̃3, F̃4", SLVIT_ON),
}


PAPER_TABLES = {
    "s2rm_table1": "S²RM, Table I: methods over benchmarks",
    "s2rm_table3": "S²RM, Table III: expressions by length",
    "slvit_table1": "SLViT, Table 1: methods over benchmarks",
} | {stem: spec.title for stem, spec in TABLES.items()}
COMPARISONS = ("s2rm_table1", "slvit_table1")  # the tables that list methods over benchmarks
# Dataset and partition -> the benchmark as the tables head it, and what its splits are called there. RefScenes'
# flavours stand beside the benchmark that they are modelled on; ``data`` says what was measured.
COCO_SPLITS = {"val": "val", "testA": "testA", "testB": "testB"}
BENCHMARKS = {
    ("refcoco", "unc"): ("RefCOCO", COCO_SPLITS),
    ("refcoco+", "unc"): ("RefCOCO+", COCO_SPLITS),
    ("refcocog", "umd"): ("RefCOCOg", {"val": "val-U", "test": "test-U"}),
    ("refcocog", "google"): ("RefCOCOg", {"val": "val-G"}),
    ("refclef", "berkeley"): ("ReferIt", {"test": "test"}),
    ("refscenes", "unc"): ("RefCOCO", COCO_SPLITS),
    ("refscenes+", "unc"): ("RefCOCO+", COCO_SPLITS),
    ("refscenesg", "umd"): ("RefCOCOg", {"val": "val-U", "test": "test-U"}),
    ("refscenesg", "google"): ("RefCOCOg", {"val": "val-G"}),
    ("referscenes", "berkeley"): ("ReferIt", {"test": "test"}),
}


def data_name(data: DataConfig, split: str, evaluation: EvaluationConfig = USUAL) -> str:
    """The data that a number was measured on, e.g. "RefScenes val, 128 px" or "RefCOCO (unc) val, 512 px"; and how,
    where that is not the usual way."""
    drawn = FLAVOURS.get(data.dataset)
    partition = f" ({data.split_by})" if drawn is None or len(drawn.partitions) > 1 else ""
    name = DATA_NAMES.get(data.dataset, data.dataset) + partition
    kinds = f" ({' and '.join(data.kinds)})" if data.kinds else ""
    raw = ", raw sentences" if data.sentence_field == "raw" else ""
    original = ", counted at the original size" if evaluation.resolution == "original" else ""
    threshold = f", threshold {evaluation.threshold:g}" if evaluation.threshold != THRESHOLD else ""
    return f"{name} {split}{kinds}, {data.image_size} px{raw}{original}{threshold}"


def measured_on(study: ProfileStudy) -> str:
    """The data that a profile's numbers were measured on where nothing else is said: ``data_name`` of its first
    split."""
    settings = study.settings
    return data_name(settings.data, settings.splits[0], settings.evaluation)


def measured_by(records: list[Record], split: str) -> str:
    """The data that these records of one variant were measured on, ``data_name`` of a split; empty without records."""
    config = records[0].config if records else None
    return data_name(config.data, split, config.evaluation) if config else ""


# One run's numbers: row 0 is what it reached, then a row per resampling of the pictures; a column per measure.
Sample = Callable[[Record], pd.DataFrame]


@dataclass(frozen=True)
class Ends:
    """The end of a variant's ``runs``: ``values`` are their mean, as a ``Sample``; ``family`` names those variants
    over whose runs the ``spread`` of one run is pooled."""

    values: pd.DataFrame
    runs: int
    family: str
    spread: Spread
    records: tuple[Record, ...] = ()

    def level(self) -> Estimate:
        """The mean itself, Series of measures."""
        return _estimated(self.values, self._side)

    def above(self, other: "Ends") -> Estimate:
        """The gain over another variant, of other runs, pictures resampled together. Raises StudyError where the two
        were measured on different data."""
        _refuse_unlike([*self.records, *other.records])
        return _estimated(self.values - other.values, self._side, other._side)

    def above_fixed(self, values: pd.DataFrame) -> Estimate:
        """The gain over something that no training moves, on pictures resampled together with these."""
        return _estimated(self.values - values, self._side)

    @property
    def _side(self) -> Side:
        return Side(self.family, self.runs, self.spread)


def _estimated(values: pd.DataFrame, *sides: Side) -> Estimate:
    return estimate(values.iloc[0], values.iloc[1:].var(ddof=0), *sides)


def own_ends(samples: Sequence[pd.DataFrame]) -> Ends:
    """The ends of some runs of one variant, whose spread is their own alone."""
    return Ends(sum(samples) / len(samples), len(samples), "", pooled([[one.iloc[0] for one in samples]]))


class Measure:
    """Levels and gains of a study's variants by one ``sample``, with seeds pooled by family.

    ``exact``: row 0 of ``sample``, where it can be had for less; None for a record that lacks what is measured. Seeds
    are pooled over all variants that a profile trains, with those of their runs that are recorded.
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
        """The ends of a variant that the profile ``trainer`` trains; of its ``records``, at least one."""
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
    """All metrics of one run, in percent, under ``RESAMPLES`` resamplings of the split's pictures, which say nothing of
    other trainings; row 0 is the run's own."""
    counts = record.counts()
    return resampled_counts(counts[counts["split"] == split])


def resampled_counts(counts: pd.DataFrame) -> pd.DataFrame:
    """Do as ``sampled_metrics`` does, with the pixel counts of one split's expressions, as ``evaluate`` returns
    them."""
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
    """The number of times that each of ``count`` images is drawn, (1 + RESAMPLES, count); the first row takes each
    once."""
    random = np.random.default_rng(SEED)
    return np.vstack([np.ones(count), random.multinomial(count, np.full(count, 1 / count), size=RESAMPLES)])


def interval(values: pd.Series | np.ndarray) -> tuple[float, float]:
    """The percentile interval of resampled values (without row 0, the estimate)."""
    low, high = np.percentile(np.asarray(values)[1:], [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    return float(low), float(high)


def spelled(name: str, found: Estimate, percent: bool = False) -> dict[str, float]:
    """An estimate as cells of a table: name, name_low and name_high; ``percent`` keeps an interval within 0 to 100."""
    low, high = (float(end) for end in found.interval())
    if percent:
        low, high = np.clip([low, high], 0, 100)
    return {name: float(found.points), f"{name}_low": low, f"{name}_high": high}


def variant_records(study: ProfileStudy, variant: str) -> list[Record]:
    """The records of a variant under exactly the profile's settings, one per seed that has been run. Raises StudyError
    where two were measured on different data or computed in different precisions."""
    found = (find_record(study.folder / "records", study.config(variant, seed)) for seed in study.seeds(variant))
    records = [record for record in found if record is not None]
    _refuse_unlike(records)
    return records


def _refuse_unlike(records: list[Record]) -> None:
    """Refuse runs, of one row or of two that are compared, of different data or computed in different precisions."""
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
    """The filling of a printed row: a variant under a profile, and its records of exactly that profile's settings, one
    per seed that has been run. ``missing``: the command that trains the other seeds."""

    profile: str
    variant: str
    records: list[Record]
    missing: str

    def data(self, split: str) -> str:
        """The data that its numbers on a split were measured on; empty without records."""
        return measured_by(self.records, split)


def table_rows(stem: str, study: ProfileStudy, profiles: Sequence[str] | None = None) -> dict[str, Row]:
    """Row as printed -> what fills it, among ``profiles``: if none are named, this one and those beside it that have
    the same data, first the one that trains most of the table, so that rows which are compared have one encoder."""
    if profiles is None:
        near = study.file.compared(study.profile)
        of_table = {name for name, variant in study.file.variants.items() if stem in variant.tables}
        profiles = sorted(near, key=lambda name: -len(of_table.intersection(study.file.variant_names(name))))
    found = {}
    for row, (name, variant) in study.file.rows(stem, profiles).items():
        trainer = study.beside(name)
        records = variant_records(trainer, variant)
        unseen = set(trainer.seeds(variant)) - {record.config.seed for record in records}
        found[row] = Row(name, variant, records, training_command(name, variant) if unseen else "")
    return found


def benchmark_splits(study: ProfileStudy) -> dict[str, tuple[str, list[str]]]:
    """Column as the tables over benchmarks head it, e.g. "RefCOCOg val-U" -> the split, and the profiles that have it:
    this one and those beside it."""
    found: dict[str, tuple[str, list[str]]] = {}
    for name in study.file.together(study.profile):
        settings = study.file.profile(name)
        benchmark, splits = BENCHMARKS.get((settings.data.dataset, settings.data.split_by), ("", {}))
        for split in settings.splits:
            if split in splits:
                found.setdefault(f"{benchmark} {splits[split]}", (split, []))[1].append(name)
    return found


def build_table(stem: str, study: ProfileStudy) -> pd.DataFrame:
    """One of ``TABLES``, a line per row and metric, all in percent.

    Columns: row, variant, metric; printed (on the paper's data); ours, the mean over runs, with its 95 % interval
    ours_low, ours_high (``Ends``; empty where nothing is known of the spread over seeds); minus_printed; printed_gain
    and gain, gain_low, gain_high over the baseline row, which has none; runs, data (what ours was measured on), missing
    (the command that trains what the row lacks, or why none can). What no run fills is empty.
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
    """A column to read, with the interval of its columns _low and _high: "43.6 [40.5, 46.6]"; a number without an
    interval stands alone, and where there is none the cell is empty."""
    form = f"{{:{'+z' if signed else ''}.{digits}f}}".format
    values, low, high = (table[f"{column}{end}"].map(form) for end in ("", "_low", "_high"))
    return (values + " [" + low + ", " + high + "]").str.replace(r"( \[)?\+?nan.*", "", regex=True)


def render(table: pd.DataFrame) -> pd.DataFrame:
    """A table to read: a line per row; printed number, and ours with its interval, for each metric that is printed;
    then ours above the baseline row in overall IoU; the number of runs, and what ours was measured on. A number that
    was counted has no interval; of gains in overall IoU there are columns where there are gains."""
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
    """Verdicts to read: the columns ``texts`` as they are; printed, where the table has it, and measured points with
    their 95 % interval; runs, where the table has them, "5 / 3" where the reference has fewer or more; the verdict in
    Markdown's bold with, of an undecided one, the smallest gain that could have been seen, of an untestable one the
    ceiling."""

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
    """List the rows of these tables without a run, and with some of their seeds only, with the commands, in Markdown;
    empty where every row is whole."""
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
