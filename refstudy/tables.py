"""The study's tables: printed numbers beside our own, with intervals, from run records alone."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from refstudy.config import THRESHOLD, DataConfig, EvaluationConfig
from refstudy.data.scenes import FLAVOURS
from refstudy.errors import StudyError
from refstudy.files import atomic_write
from refstudy.metrics import METRICS, THRESHOLDS, iou
from refstudy.records import Record, find_record
from refstudy.reported import SPLITS, load_reported
from refstudy.study import Study, training_command

RESAMPLES = 2000
LEVEL = 0.95
USUAL = EvaluationConfig()
Values = TypeVar("Values", pd.DataFrame, pd.Series)  # resampled: row 0 the estimate, then a row per resampling
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
    """What a table shows: its place in the paper, the row that the others are held against, what the printed numbers
    were measured on, and rows that no variant can fill, with the reason."""

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
    """What a number was measured on, e.g. "RefScenes val, 128 px" or "RefCOCO (unc) val, 512 px"; and how, where that
    is not the usual way."""
    drawn = FLAVOURS.get(data.dataset)
    partition = f" ({data.split_by})" if drawn is None or len(drawn.partitions) > 1 else ""
    name = DATA_NAMES.get(data.dataset, data.dataset) + partition
    raw = ", raw sentences" if data.sentence_field == "raw" else ""
    original = ", counted at the original size" if evaluation.resolution == "original" else ""
    threshold = f", threshold {evaluation.threshold:g}" if evaluation.threshold != THRESHOLD else ""
    return f"{name} {split}, {data.image_size} px{raw}{original}{threshold}"


def measured_on(study: Study, profile: str) -> str:
    """What a profile's numbers were measured on where nothing else is said: ``data_name`` of its first split."""
    settings = study.profile(profile)
    return data_name(settings.data, settings.splits[0], settings.evaluation)


def measured_by(records: list[Record], split: str) -> str:
    """What these records of one variant were measured on, ``data_name`` of a split; empty without records."""
    config = records[0].config if records else None
    return data_name(config.data, split, config.evaluation) if config else ""


def resampled_metrics(records: list[Record], split: str) -> pd.DataFrame:
    """Each metric under ``RESAMPLES`` resamplings of the split's images, averaged over runs; row 0 is the estimate.

    Expressions of one image are not independent, so whole images are drawn (a cluster bootstrap). The draws depend on
    the number of images alone: two variants on the same images are resampled together, so differences are paired.
    ``over_runs`` says what several runs add; one run cannot say what another seed would give.
    """
    return over_runs([_resampled(record, split) for record in records]).clip(0, 100)


def _resampled(record: Record, split: str) -> pd.DataFrame:
    counts = record.counts()
    return resampled_counts(counts[counts["split"] == split])


def over_runs(values: Sequence[Values]) -> Values:
    """The mean over runs of what each gave under the resamplings.

    Where there are several, every row but the first, the estimate, is moved by the runs' standard error in it, times
    Student's t: an interval then is the usual one for the mean of so few trainings, widened by the resampled images.
    Differences between what shares its runs are to be taken run by run, before.
    """
    runs, mean = len(values), sum(values) / len(values)
    if runs == 1:
        return mean
    error = (sum((one - mean) ** 2 for one in values) / (runs - 1) / runs) ** 0.5
    return mean + error.mul(_student(runs), axis=0)


@lru_cache(maxsize=8)
def _student(runs: int) -> np.ndarray:
    """Values of Student's t with ``runs`` - 1 degrees of freedom, evenly over its probabilities and in an order of
    their own, (1 + RESAMPLES,); the first is 0."""
    levels = (np.random.default_rng([SEED, 1]).permutation(RESAMPLES) + 0.5) / RESAMPLES
    return np.concatenate([[0.0], stdtrit(runs - 1, levels)])


def common_seeds(first: list[Record], second: list[Record]) -> list[int]:
    """The seeds that two variants both have."""
    one, other = ({record.config.seed for record in records} for records in (first, second))
    return sorted(one & other)


def resampled_gains(first: list[Record], second: list[Record], split: str, paired: bool = True) -> pd.DataFrame | None:
    """How far the first variant is above the second, over the seeds that both have; as ``resampled_metrics``. None
    where there is no such seed. ``paired`` False: of the records as they stand, one against one, whatever their seeds.
    Raises StudyError where two that are compared were measured on different data."""
    common = common_seeds(first, second)
    sides = [first, second]
    if paired:
        sides = [sorted((r for r in side if r.config.seed in common), key=lambda r: r.config.seed) for side in sides]
    if not all(sides):
        return None
    _refuse_other_data(sides[0] + sides[1])
    return over_runs([_resampled(one, split) - _resampled(other, split) for one, other in zip(*sides, strict=True)])


def resampled_counts(counts: pd.DataFrame) -> pd.DataFrame:
    """As ``resampled_metrics``, of the pixel counts of one split's expressions, as ``evaluate`` returns them."""
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
    """How often each of ``count`` images is drawn, (1 + RESAMPLES, count); the first row takes each once."""
    random = np.random.default_rng(SEED)
    return np.vstack([np.ones(count), random.multinomial(count, np.full(count, 1 / count), size=RESAMPLES)])


def interval(values: pd.Series | np.ndarray) -> tuple[float, float]:
    """The percentile interval of resampled values (without row 0, the estimate)."""
    low, high = np.percentile(np.asarray(values)[1:], [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    return float(low), float(high)


def verdict(low: float, high: float) -> str:
    """What a 95 % interval of a gain says about the claim that it is positive."""
    return "supported" if low > 0 else "not supported" if high < 0 else "undecided"


def variant_records(study: Study, profile: str, variant: str, results: str = "") -> list[Record]:
    """The records of a variant under exactly the profile's settings, one per seed that has been run. Raises StudyError
    where two were measured on different data."""
    folder = study.results(profile, results) / "records"
    found = (find_record(folder, study.run_config(profile, variant, s)) for s in study.seeds(profile, variant))
    records = [record for record in found if record is not None]
    _refuse_other_data(records)
    return records


def _refuse_other_data(records: list[Record]) -> None:
    for record in records[1:]:
        if record.summary.get("data_fingerprint") != records[0].summary.get("data_fingerprint"):
            raise StudyError(
                f"{records[0].path} and {record.path}: measured on different data (data_fingerprint); "
                "train one of them again"
            )


@dataclass(frozen=True)
class Row:
    """What fills a printed row: a variant under a profile, and its records of exactly that profile's settings, one per
    seed that has been run. ``missing``: the command that trains the other seeds."""

    profile: str
    variant: str
    records: list[Record]
    missing: str

    def data(self, split: str) -> str:
        """What its numbers on a split were measured on; empty without records."""
        return measured_by(self.records, split)


def table_rows(
    stem: str, study: Study, profile: str, results: str = "", profiles: Sequence[str] | None = None
) -> dict[str, Row]:
    """Row as printed -> what fills it, among ``profiles``: if none are named, this one and those beside it that have
    the same data, first the one that trains most of the table, so that rows which are compared have one encoder."""
    if profiles is None:
        near = study.compared(profile)
        of_table = {name for name, variant in study.variants.items() if stem in variant.tables}
        profiles = sorted(near, key=lambda name: -len(of_table.intersection(study.variant_names(name))))
    found = {}
    for row, (name, variant) in study.rows(stem, profiles).items():
        records = variant_records(study, name, variant, str(study.results_beside(profile, name, results)))
        unseen = set(study.seeds(name, variant)) - {record.config.seed for record in records}
        found[row] = Row(name, variant, records, training_command(name, variant) if unseen else "")
    return found


def benchmark_splits(study: Study, profile: str) -> dict[str, tuple[str, list[str]]]:
    """Column as the tables over benchmarks head it, e.g. "RefCOCOg val-U" -> the split, and the profiles that have it:
    this one and those beside it."""
    found: dict[str, tuple[str, list[str]]] = {}
    for name in study.together(profile):
        settings = study.profile(name)
        benchmark, splits = BENCHMARKS.get((settings.data.dataset, settings.data.split_by), ("", {}))
        for split in settings.splits:
            if split in splits:
                found.setdefault(f"{benchmark} {splits[split]}", (split, []))[1].append(name)
    return found


def printed_rows(stem: str) -> pd.DataFrame:
    """A printed table with one name per row; where it has blocks, the block stands before the row: "small: 5 B"."""
    printed = load_reported(stem)
    if isinstance(printed.index, pd.MultiIndex):
        printed.index = pd.Index([f"{block}: {row}" for block, row in printed.index], name="row")
    return printed


def build_table(stem: str, study: Study, profile: str, results: str = "") -> pd.DataFrame:
    """One of ``TABLES``, a line per row and metric, all in percent.

    Columns: row, variant, metric; printed (on the paper's data); ours with its 95 % interval ours_low, ours_high;
    minus_printed; printed_gain and gain, gain_low, gain_high over the baseline row (paired resampling over the
    gain_runs seeds that both rows have; empty for the baseline); runs (seeds averaged), data (what ours was measured
    on), missing (the command that trains what the row lacks, or why none can).
    What no run fills is empty.
    """
    spec, printed = TABLES[stem], printed_rows(stem)
    rows, split = table_rows(stem, study, profile, results), study.profile(profile).splits[0]
    measured = {name: resampled_metrics(row.records, split) for name, row in rows.items() if row.records}
    base = rows[spec.baseline].records if spec.baseline in rows else []
    gained = {name: resampled_gains(row.records, base, split) for name, row in rows.items() if name != spec.baseline}
    lines = []
    for name in printed.index:
        row = rows.get(name, Row(profile, "", [], spec.unfilled.get(name, "")))
        for metric in METRICS:
            line: dict[str, object] = {"row": name, "variant": row.variant, "metric": metric}
            if metric in printed:
                line["printed"] = printed.loc[name, metric]
                if name != spec.baseline:
                    line["printed_gain"] = printed.loc[name, metric] - printed.loc[spec.baseline, metric]
            if name in measured:
                values = measured[name][metric]
                line["ours"] = values[0]
                line["ours_low"], line["ours_high"] = interval(values)
                line["minus_printed"] = values[0] - line.get("printed", np.nan)  # type: ignore[operator]
                if (gains := gained.get(name)) is not None:
                    line["gain"] = gains[metric][0]
                    line["gain_low"], line["gain_high"] = interval(gains[metric])
                    line["gain_runs"] = len(common_seeds(row.records, base))
            lines.append(line | {"runs": len(row.records), "data": row.data(split), "missing": row.missing})
    columns = (
        "row variant metric printed ours ours_low ours_high minus_printed printed_gain gain gain_low gain_high "
        "gain_runs runs data missing"
    )
    return pd.DataFrame(lines, columns=columns.split()).astype({"gain_runs": "Int64"})


def build_comparison(stem: str, study: Study, profile: str, results: str = "") -> pd.DataFrame:
    """One of ``COMPARISONS``, a line per printed row, measure and benchmark split that is printed, all in percent; ours
    from the records of this profile and of those beside it.

    Columns: row, citation, metric, benchmark (as the table heads it), printed; variant; ours with its 95 % interval
    ours_low, ours_high; runs, data (what ours was measured on), missing (the command that trains the
    row, or the seeds that it lacks).
    """
    printed = load_reported(stem)
    if not isinstance(printed.index, pd.MultiIndex):
        printed = pd.concat({"Overall IoU": printed}, names=["block"])
    variants = {row: variant for row, (_, variant) in study.rows(stem, study.together(profile)).items()}
    ours = {
        column: (split, table_rows(stem, study, profile, results, profiles))
        for column, (split, profiles) in benchmark_splits(study, profile).items()
    }
    lines = []
    for (measure, name), cells in printed.iterrows():
        metric = {"Overall IoU": "oIoU", "Mean IoU": "mIoU"}[measure]
        for column in cells.index.intersection(SPLITS):
            split, rows = ours.get(column, ("", {}))
            row = rows.get(name)
            if np.isnan(cells[column]) and not (row and row.records):
                continue
            line: dict[str, object] = {"row": name, "citation": cells["citation"], "metric": metric}
            line |= {"benchmark": column, "printed": cells[column], "variant": variants.get(name, "")}
            if row and row.records:
                values = resampled_metrics(row.records, split)[metric]
                line["ours"] = values[0]
                line["ours_low"], line["ours_high"] = interval(values)
                line |= {"runs": len(row.records), "data": row.data(split)}
            if row:
                line["missing"] = row.missing
            lines.append(line)
    columns = "row citation metric benchmark printed variant ours ours_low ours_high runs data missing"
    table = pd.DataFrame(lines, columns=columns.split())
    return table.astype({"runs": "Int64"}).fillna({"data": "", "missing": ""})


def write_table(table: pd.DataFrame, folder: Path | str, stem: str) -> Path:
    """Write ``<stem>.csv`` with two decimals; the same numbers give the same bytes."""
    path = Path(folder) / f"{stem}.csv"
    numbers = table.select_dtypes("float")
    table = table.assign(**(numbers.round(2) + 0.0))  # no "-0.00"
    with atomic_write(path) as temporary:
        table.to_csv(temporary, index=False, float_format="%.2f", lineterminator="\n")
    return path


def with_interval(table: pd.DataFrame, column: str, digits: int = 1, signed: bool = False) -> pd.Series:
    """A column to read, with the interval of its columns _low and _high: "43.6 [40.5, 46.6]"; a number without an
    interval stands alone, and where there is none the cell is empty."""
    form = f"{{:{'+z' if signed else ''}.{digits}f}}".format
    values, low, high = (table[f"{column}{end}"].map(form) for end in ("", "_low", "_high"))
    return (values + " [" + low + ", " + high + "]").str.replace(r"( \[)?\+?nan.*", "", regex=True)


def render(table: pd.DataFrame) -> pd.DataFrame:
    """A table to read: a line per row; printed number, and ours with its interval, for each metric that is printed;
    then ours above the baseline row in overall IoU and how many seeds that is over; the number of runs, and what ours
    was measured on. A number that was counted has no interval; of gains in overall IoU there are columns where there
    are gains."""
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
        runs = overall["gain_runs"].map("{:.0f}".format, na_action="ignore")
        wide[f"gain in {METRICS[0]}", "runs"] = runs.astype(object).fillna("")
    return wide.assign(**{"runs": overall["runs"], "our data": overall["data"]})


def render_comparison(table: pd.DataFrame) -> pd.DataFrame:
    """``build_comparison`` to read: a line per row, a column per benchmark; printed, and ours, which may be of other
    data, in brackets and Markdown's italics, with the number of runs where there are several."""

    def cell(line) -> str:
        printed = "" if np.isnan(line.printed) else f"{line.printed:.2f}"
        runs = f", {line.runs:.0f} runs" if line.runs > 1 else ""
        return printed if np.isnan(line.ours) else f"{printed} *({line.ours:.1f}{runs})*".strip()

    numbers = table.astype({"ours": float, "runs": float})
    cells = table.assign(cell=[cell(line) for line in numbers.itertuples()])
    order = [column for column in SPLITS if column in set(table["benchmark"])]
    wide = cells.pivot(index=["metric", "row"], columns="benchmark", values="cell")[order].fillna("")
    return wide.reindex(pd.MultiIndex.from_frame(table[["metric", "row"]].drop_duplicates()))


def render_verdicts(table: pd.DataFrame, *texts: str) -> pd.DataFrame:
    """Verdicts to read: the columns ``texts`` as they are; printed, where the table has it, and measured points with
    their 95 % interval; the number of runs, where the table has it; the verdict in Markdown's bold."""

    def points(column: str, digits: int) -> pd.Series:
        return table[column].map(f"{{:+z.{digits}f}}".format, na_action="ignore").astype(object)

    shown = table[list(texts)].copy()
    if "printed" in table:
        shown["printed"] = points("printed", 2)
    shown["measured"] = points("measured", 1)
    shown["95 % interval"] = points("low", 1).str.cat(points("high", 1), sep=" to ")
    if "runs" in table:
        shown["runs"] = table["runs"].map("{:.0f}".format, na_action="ignore").astype(object)
    return shown.assign(verdict="**" + table["verdict"] + "**").fillna("")


def markdown(table: pd.DataFrame) -> str:
    """A table of strings, without its index, in Markdown."""
    lines = [table.columns, ["---"] * len(table.columns), *table.itertuples(index=False)]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def untrained(*tables: pd.DataFrame) -> str:
    """What no run of these tables' rows has yet, and what has some of its seeds, with the commands, in Markdown; empty
    where every row is whole."""
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
