"""Overall IoU by the length of the expression, as in Table III of S²RM, and by its kind, from run records alone."""

import re
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import NamedTuple

import numpy as np
import pandas as pd

from refstudy.analysis.data_names import DATA_NAMES, measured_by
from refstudy.analysis.inference import Estimate, judge
from refstudy.analysis.measures import Ends, Measure, leave_out, own_ends
from refstudy.analysis.rows import Row, benchmark_splits, missing_runs, recorded, table_rows
from refstudy.base.config import DataConfig
from refstudy.data.scenes.flavours import FLAVOURS
from refstudy.data.scenes.grammar import KINDS
from refstudy.papers.printed import load_printed
from refstudy.study.file import ProfileStudy
from refstudy.training.records import Record

TABLE = "s2rm_table3"
HARDER = ("relation", "superlative", "location")  # kinds that an attribute is held against
MAIN = "s2rm_casg"  # the variant of the paper's own rows
# Data set as Table III heads it -> the column of the tables over benchmarks that has its split: by its caption the
# validation parts, of ReferIt the test part.
COLUMNS = {
    "RefCOCO": "RefCOCO val",
    "RefCOCO+": "RefCOCO+ val",
    "RefCOCOg (Google)": "RefCOCOg val-G",
    "ReferIt": "ReferIt test",
}
Label = Callable[[pd.DataFrame], pd.Series]  # rows of a record's counts -> the group of each (NaN: none)


class Bucket(NamedTuple):
    """Expressions of ``first`` to ``last`` words, both included."""

    first: int
    last: int

    def __str__(self) -> str:
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"


def printed_buckets() -> dict[str, tuple[Bucket, ...]]:
    """Data set -> the buckets that Table III prints for it, shortest first, read from the table's columns."""
    buckets: dict[str, tuple[Bucket, ...]] = {}
    for column in load_printed(TABLE).columns:
        if found := re.fullmatch(r"(.+) (\d+)(?:-(\d+))?", column):
            name, first, last = found.groups()
            buckets[name] = (*buckets.get(name, ()), Bucket(int(first), int(last or first)))
    return buckets


def by_bucket(buckets: Sequence[Bucket]) -> Label:
    """Groups named like the buckets, of which each begins where the one before ends. The paper clips expressions at 20
    words (Sec. IV-B), where its last bucket ends, so longer ones belong to the last."""
    ends, names = [bucket.last for bucket in buckets], list(map(str, buckets))
    edges = [buckets[0].first - 1, *ends]
    return lambda counts: pd.cut(counts["words"].clip(upper=ends[-1]), edges, labels=names).astype(object)


by_words: Label = itemgetter("words")  # a group for every number of words
by_kind: Label = itemgetter("kind")  # a group for every kind of expression; released data do not name kinds


def by_kind_and_bucket(buckets: Sequence[Bucket]) -> Label:
    """Groups named by both, e.g. "location, 4-5"."""
    bucket = by_bucket(buckets)
    return lambda counts: by_kind(counts) + ", " + bucket(counts)


def grouped_oiou(records: list[Record], split: str, label: Label, groups: Sequence) -> Ends:
    """Overall IoU in percent per group; the spread is that of these runs alone.

    Pictures are left out whole, as in ``refstudy.analysis.measures.jackknifed_metrics``, so groups of one split are
    paired. A group within one picture has no interval.
    """
    return own_ends([_grouped(record, split, label, groups) for record in records])


def measure_groups(study: ProfileStudy, split: str, label: Label, groups: Sequence) -> Measure:
    """``grouped_oiou`` of a study's variants, with the spread over seeds pooled by family."""

    def exact(record: Record) -> pd.Series | None:
        return _grouped(record, split, label, groups, whole=True).iloc[0] if split in record.metrics else None

    return Measure(study, lambda record: _grouped(record, split, label, groups), exact)


def _grouped(record: Record, split: str, label: Label, groups: Sequence, whole: bool = False) -> pd.DataFrame:
    counts = record.counts(split)
    named = counts.assign(group=label(counts)).dropna(subset="group")
    inter, union = _sums(named, "group", groups, counts["image_id"], ("intersection", "union"), whole)
    return 100 * pd.DataFrame(np.divide(inter, union, out=np.full_like(inter, np.nan), where=union > 0), columns=groups)


def _sums(
    rows: pd.DataFrame, by: str, groups: Sequence, images: pd.Series, columns: Sequence[str], whole: bool = False
) -> list[np.ndarray]:
    """For each of ``columns`` the sums of the ``rows`` of each group over the pictures ``images``: of all of them (row
    0), then without each, (1 + n, groups); of the ``whole`` alone, (1, groups)."""
    order = np.sort(images.unique())
    per_image = rows.groupby(["image_id", by])[list(columns)].sum()
    tables = (per_image[column].unstack(fill_value=0) for column in columns)
    sums = [table.reindex(index=order, columns=groups, fill_value=0).to_numpy(float) for table in tables]
    return [one.sum(0, keepdims=True) if whole else leave_out(one) for one in sums]


def measured_groups(
    records: list[Record], split: str, label: Label, groups: Sequence, ends: Ends | None = None
) -> pd.DataFrame:
    """A line per group: ours (overall IoU, percent) with its 95 % interval, and the number of expressions.

    An empty group has 0 expressions and no IoU; without records no group has one. ``ends`` are those of
    ``measure_groups``; without them the interval is that of these runs alone, and one run has none.
    """
    lines = pd.DataFrame(index=list(groups), columns=["ours", "ours_low", "ours_high", "expressions"], dtype=float)
    if records:
        level = (ends or grouped_oiou(records, split, label, groups)).level()
        low, high = level.interval()
        lines["ours"], lines["ours_low"], lines["ours_high"] = level.points, low.clip(0, 100), high.clip(0, 100)
        lines["expressions"] = label(records[0].counts(split)).value_counts().reindex(groups)
    return lines.fillna({"expressions": 0}).astype({"expressions": int})


def group_gap(records: list[Record], split: str, label: Label, first: str, second: str) -> Estimate:
    """Overall IoU of one group minus that of another in the same runs, in points; NaN for an empty group."""
    return _gap([_grouped(record, split, label, [first, second]) for record in records])


def _gap(runs: list[pd.DataFrame]) -> Estimate:
    """The first column minus the second, over runs."""
    return own_ends([(run.iloc[:, 0] - run.iloc[:, 1]).to_frame("gap") for run in runs]).level()["gap"]


def length_gaps(records: list[Record], split: str, label: Label, first: str, second: str) -> dict[str, Estimate]:
    """Overall IoU of one group of lengths minus that of another in the same runs, in points.

    "as they are"; "one mix of kinds": the expressions of both groups are weighted to the same shares of kinds, so that
    kinds do not cause the gap; and the difference of these two, "owed to kinds". NaN when a group is empty or the two
    have no kind in common.
    """
    both = [first, second]
    plain, mixed = ([of(record, split, label, both) for record in records] for of in (_grouped, _at_one_mix))
    owed = [one - other for one, other in zip(plain, mixed, strict=True)]
    return {"as they are": _gap(plain), "one mix of kinds": _gap(mixed), "owed to kinds": _gap(owed)}


def _at_one_mix(record: Record, split: str, label: Label, groups: Sequence) -> pd.DataFrame:
    """``_grouped`` for two groups, with expressions weighted so that both groups have the same mix of kinds: that of
    Mantel and Haenszel, where a kind counts as n1 n2 / (n1 + n2), so that a kind missing in either counts nothing."""
    counts = record.counts(split).assign(expressions=1)
    kinds, columns = counts["kind"].dropna().unique(), ("intersection", "union", "expressions")
    named = {group: counts[label(counts) == group] for group in groups}
    sums = {group: _sums(rows, "kind", kinds, counts["image_id"], columns) for group, rows in named.items()}
    first, second = (expressions[0] for _, _, expressions in sums.values())
    with np.errstate(invalid="ignore", divide="ignore"):  # a kind that one picture alone has: NaN
        mix = np.nan_to_num(first * second / (first + second))
        shared, found = mix > 0, {}
        for group, (inter, union, expressions) in sums.items():
            numerator, denominator = ((part / expressions)[:, shared] @ mix[shared] for part in (inter, union))
            found[group] = 100 * numerator / denominator
    return pd.DataFrame(found)


def judged(claims: pd.DataFrame, gaps: Sequence[Estimate], runs: int) -> pd.DataFrame:
    """Judge together claims that gaps within the same ``runs`` are positive; add measured points, their interval low,
    high, verdict and smallest, for ``tables.render_verdicts``."""
    points, error, freedom = np.array([(gap.points, gap.error, gap.freedom) for gap in gaps], float).T
    together = Estimate(points, error, freedom)
    found = judge(together, np.full(len(gaps), runs), np.isfinite(points))
    low, high = together.interval()
    return claims.assign(measured=points, low=low, high=high, verdict=found.verdict, smallest=found.smallest)


def length_verdicts(records: list[Record], split: str, buckets: Sequence[Bucket]) -> pd.DataFrame:
    """Judge if short expressions are easier than longer ones, and which kinds are easy.

    The first bucket is compared to each longer one: all expressions "as they are"; then, of the kinds that both have,
    at "one mix of kinds"; and the part of the gap that is so "owed to kinds". Then, within each kind that several
    buckets have ("one kind"), the first of these is compared to the last. Last, *attribute* is compared to each of
    ``HARDER`` ("two kinds"), at all lengths. Columns: claim, compared (one of the five), short and longer (the two
    buckets, empty for two kinds), kinds (a tuple; () for "as they are"); measured, low, high, verdict, smallest, as
    ``judged`` has them.
    """
    counts, both = records[0].counts(split), by_kind_and_bucket(buckets)
    present = [kind for kind in KINDS if (counts["kind"] == kind).any()]
    filled = set(both(counts).dropna()) if present else set()  # released data do not name kinds
    short, *longer_ones = names = [str(bucket) for bucket in buckets]
    lines: list[tuple[str, str, str, str, tuple[str, ...], Estimate]] = []
    for longer in longer_ones:
        gaps = length_gaps(records, split, by_bucket(buckets), short, longer)
        claim = f"{short} words are easier than {longer}"
        lines.append((claim, "as they are", short, longer, (), gaps["as they are"]))
        if shared := tuple(kind for kind in present if {f"{kind}, {short}", f"{kind}, {longer}"} <= filled):
            named = f"{claim}, at one mix of kinds ({', '.join(shared)})"
            for how, text in (("one mix of kinds", named), ("owed to kinds", f"{claim} by their kinds")):
                lines.append((text, how, short, longer, shared, gaps[how]))
    for kind in present:
        own = [name for name in names if f"{kind}, {name}" in filled]
        if len(own) > 1:
            claim = f"among expressions of kind *{kind}*, {own[0]} words are easier than {own[-1]}"
            gap = group_gap(records, split, both, f"{kind}, {own[0]}", f"{kind}, {own[-1]}")
            lines.append((claim, "one kind", own[0], own[-1], (kind,), gap))
    for kind in HARDER:
        if {kind, "attribute"} <= set(present):
            gap = group_gap(records, split, by_kind, "attribute", kind)
            lines.append((f"*attribute* is easier than *{kind}*", "two kinds", "", "", ("attribute", kind), gap))
    table = pd.DataFrame(lines, columns="claim compared short longer kinds gap".split())
    return judged(table.drop(columns="gap"), table["gap"], len(records))


def length_table(study: ProfileStudy) -> pd.DataFrame:
    """Table III, a line per printed row, data set and bucket; overall IoU in percent.

    Columns: row, variant, dataset and bucket as printed, printed; ours, ours_low, ours_high (95 %), expressions, runs,
    data (what ours was measured on: a flavour of RefScenes stands in for its benchmark, and is named), missing (the
    command that trains the missing runs). Ours are of this profile and of those named in its ``beside``; empty where
    none has the data set.
    """
    printed, measured_splits = load_printed(TABLE), benchmark_splits(study)
    found = {}
    for dataset, buckets in printed_buckets().items():
        split, profiles = measured_splits.get(COLUMNS[dataset], ("", []))
        label, names = by_bucket(buckets), [str(bucket) for bucket in buckets]
        measure = measure_groups(study, split, label, names)
        found[dataset] = split, table_rows(TABLE, study, profiles), label, names, measure
    variants = {row: name for row, (_, name) in study.file.rows(TABLE, study.file.together(study.profile)).items()}
    lines = []
    for row in printed.index:
        for dataset, (split, rows, label, names, measure) in found.items():
            ours = rows.get(row, Row())
            records = [record for record in ours.records if split in record.metrics]
            ends = measure(ours.profile, ours.variant, records) if records else None
            about = {"runs": len(records), "data": measured_by(ours.records, split), "missing": ours.missing}
            for bucket, numbers in measured_groups(records, split, label, names, ends).iterrows():
                line = {"row": row, "variant": variants.get(row, ""), "dataset": dataset, "bucket": bucket}
                lines.append(line | {"printed": printed.loc[row, f"{dataset} {bucket}"]} | numbers.to_dict() | about)
    columns = "row variant dataset bucket printed ours ours_low ours_high expressions runs data missing"
    return pd.DataFrame(lines, columns=columns.split()).astype({"expressions": int})


def printed_dataset(data: DataConfig) -> str:
    """The data set of Table III that these data are, or are made after, in any partition."""
    name = FLAVOURS[data.dataset].target.benchmark if data.dataset in FLAVOURS else DATA_NAMES.get(data.dataset, "")
    return next((dataset for dataset in COLUMNS if dataset.split()[0] == name), "")


def length_curve(study: ProfileStudy) -> pd.DataFrame:
    """Overall IoU by the exact number of words, from 1 to the largest, for every variant with a record.

    Columns: variant, words, ours, ours_low, ours_high, expressions, runs, data, missing.
    """
    return _per_variant(study, by_words, "words")


def kind_table(study: ProfileStudy) -> pd.DataFrame:
    """Overall IoU by kind of expression (``KINDS`` of the grammar): ``length_curve`` with kind instead of words."""
    return _per_variant(study, by_kind, "kind")


def kinds_by_run(study: ProfileStudy) -> pd.DataFrame:
    """``kind_table`` of every single run, which shows the influence of the seed.

    Columns: variant, seed, kind, ours, expressions, data.
    """
    lines, split = [], study.settings.splits[0]
    for variant, records in recorded(study).items():
        for record in records:
            about = {"variant": variant, "seed": record.config.seed, "data": measured_by([record], split)}
            for kind, numbers in measured_groups([record], split, by_kind, KINDS).iterrows():
                lines.append(about | {"kind": kind} | numbers[["ours", "expressions"]].to_dict())
    columns = "variant seed kind ours expressions data"
    return pd.DataFrame(lines, columns=columns.split()).astype({"expressions": int, "seed": int})


def _per_variant(study: ProfileStudy, label: Label, name: str) -> pd.DataFrame:
    """A line per variant and group, on the profile's first split."""
    lines, split, by_variant = [], study.settings.splits[0], recorded(study)
    words = max((records[0].counts()["words"].max() for records in by_variant.values()), default=0)
    groups: Sequence = range(1, words + 1) if name == "words" else KINDS
    ends_of = measure_groups(study, split, label, groups)
    for variant, records in by_variant.items():
        about = {"runs": len(records), "data": measured_by(records, split)}
        about["missing"] = missing_runs(study, variant, records)
        measured = measured_groups(records, split, label, groups, ends_of(study.profile, variant, records))
        for group, numbers in measured.iterrows():
            lines.append({"variant": variant, name: group} | numbers.to_dict() | about)
    columns = ["variant", name, *"ours ours_low ours_high expressions runs data missing".split()]
    return pd.DataFrame(lines, columns=columns).astype({"expressions": int})
