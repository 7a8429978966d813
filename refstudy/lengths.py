"""Overall IoU by the length of the expression, as in Table III of S²RM, and by its kind, from run records alone."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from refstudy.config import DataConfig
from refstudy.data.scenes import FLAVOURS
from refstudy.data.scenes.grammar import KINDS
from refstudy.records import Record
from refstudy.reported import load_reported
from refstudy.study import Study, training_command
from refstudy.tables import (
    DATA_NAMES,
    benchmark_splits,
    draws,
    interval,
    measured_by,
    over_runs,
    table_rows,
    variant_records,
    verdict,
)

TABLE = "s2rm_table3"
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


@dataclass(frozen=True)
class Bucket:
    """Expressions of ``first`` to ``last`` words, both included."""

    first: int
    last: int

    def __str__(self) -> str:
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"


def printed_buckets() -> dict[str, tuple[Bucket, ...]]:
    """Data set -> the buckets that Table III prints for it, shortest first, read from the table's columns."""
    buckets: dict[str, tuple[Bucket, ...]] = {}
    for column in load_reported(TABLE).columns:
        found = re.fullmatch(r"(.+) (\d+)(?:-(\d+))?", column)
        if found:
            name, first, last = found.groups()
            buckets[name] = (*buckets.get(name, ()), Bucket(int(first), int(last or first)))
    return buckets


def by_bucket(buckets: Sequence[Bucket]) -> Label:
    """Groups named like the buckets. The paper clips expressions at 20 words (Sec. IV-B), where its last bucket ends:
    a longer one belongs to the last."""
    longest = max(bucket.last for bucket in buckets)

    def label(counts: pd.DataFrame) -> pd.Series:
        words = counts["words"].clip(upper=longest)
        names = pd.Series(np.nan, counts.index, dtype=object)
        for bucket in buckets:
            names[words.between(bucket.first, bucket.last)] = str(bucket)
        return names

    return label


def by_words(counts: pd.DataFrame) -> pd.Series:
    """A group for every number of words."""
    return counts["words"]


def by_kind(counts: pd.DataFrame) -> pd.Series:
    """A group for every kind of expression; released data do not name kinds."""
    return counts["kind"]


def by_kind_and_bucket(buckets: Sequence[Bucket]) -> Label:
    """Groups named by both, e.g. "location, 4-5"."""
    bucket = by_bucket(buckets)
    return lambda counts: by_kind(counts) + ", " + bucket(counts)


def grouped_oiou(records: list[Record], split: str, label: Label, groups: Sequence) -> pd.DataFrame:
    """Overall IoU in percent per group, averaged over records: row 0 the estimate, then one row per resampling.

    The split's images are resampled whole, with the draws of ``refstudy.tables.resampled_metrics``, so that groups of
    one split are paired. NaN where no expression of a group was drawn.
    """
    return over_runs([_grouped(record, split, label, groups) for record in records]).clip(0, 100)


def _grouped(record: Record, split: str, label: Label, groups: Sequence) -> pd.DataFrame:
    counts = record.counts().query("split == @split")
    images = np.sort(counts["image_id"].unique())
    named = counts.assign(group=label(counts)).dropna(subset="group")
    per_image = named.groupby(["image_id", "group"])[["intersection", "union"]].sum()
    weights = draws(len(images))
    inter, union = (
        weights
        @ per_image[column].unstack(fill_value=0).reindex(index=images, columns=groups, fill_value=0).to_numpy(float)
        for column in ("intersection", "union")
    )
    return 100 * pd.DataFrame(np.divide(inter, union, out=np.full_like(inter, np.nan), where=union > 0), columns=groups)


def measured_groups(records: list[Record], split: str, label: Label, groups: Sequence) -> pd.DataFrame:
    """A line per group: ours (overall IoU, percent) with its 95 % interval, and expressions, how many the group has.

    An empty group has 0 expressions and no number; without records nothing has a number.
    """
    lines = pd.DataFrame(index=list(groups), columns=["ours", "ours_low", "ours_high", "expressions"], dtype=float)
    lines["expressions"] = 0
    if records:
        values = grouped_oiou(records, split, label, groups)
        lines["expressions"] = (
            label(records[0].counts().query("split == @split")).value_counts().reindex(groups).fillna(0)
        )
        for group in groups:
            if not np.isnan(values[group][0]):
                lines.loc[group, ["ours", "ours_low", "ours_high"]] = (
                    values[group][0],
                    *interval(values[group].dropna()),
                )
    return lines.astype({"expressions": int})


def group_gap(records: list[Record], split: str, label: Label, first: str, second: str) -> tuple[float, float, float]:
    """Points of overall IoU that one group is above another, with the paired 95 % interval; NaN for an empty group."""
    return _gap([_grouped(record, split, label, [first, second]) for record in records])


def _gap(runs: list[pd.DataFrame]) -> tuple[float, float, float]:
    """How far the first column is above the second, over runs, with its 95 % interval."""
    gaps = over_runs([run.iloc[:, 0] - run.iloc[:, 1] for run in runs])
    return (np.nan, np.nan, np.nan) if np.isnan(gaps[0]) else (float(gaps[0]), *interval(gaps.dropna()))


def length_gaps(records: list[Record], split: str, label: Label, first: str, second: str) -> pd.DataFrame:
    """Points of overall IoU that one group of lengths is above another.

    Index: "as they are"; "one mix of kinds", when the expressions of both groups are weighted to the same shares of
    kinds: what is left is not of the kinds; and the difference of these, "owed to kinds". Columns: gap, and its paired
    95 % interval low, high. NaN where a group is empty or the two have no kind in common.
    """
    both = [first, second]
    plain, mixed = ([of(record, split, label, both) for record in records] for of in (_grouped, _at_one_mix))
    owed = [one - other for one, other in zip(plain, mixed, strict=True)]
    lines = {"as they are": _gap(plain), "one mix of kinds": _gap(mixed), "owed to kinds": _gap(owed)}
    return pd.DataFrame.from_dict(lines, orient="index", columns=["gap", "low", "high"])


def _at_one_mix(record: Record, split: str, label: Label, groups: Sequence) -> pd.DataFrame:
    """As ``_grouped`` for two groups, every expression weighted so that both have the same mix of kinds: that of
    Mantel and Haenszel, in which a kind counts as n1 n2 / (n1 + n2), so that one which either lacks has no part."""
    counts = record.counts().query("split == @split")
    images, kinds = np.sort(counts["image_id"].unique()), counts["kind"].dropna().unique()
    sums = {}
    for group in groups:
        part = counts[label(counts) == group].assign(expressions=1).groupby(["image_id", "kind"])
        sums[group] = {
            column: draws(len(images))
            @ part[column]
            .sum()
            .unstack(fill_value=0)
            .reindex(index=images, columns=kinds, fill_value=0)
            .to_numpy(float)
            for column in ("intersection", "union", "expressions")
        }
    first, second = (sums[group]["expressions"][0] for group in groups)
    with np.errstate(invalid="ignore", divide="ignore"):  # kinds that were not drawn: NaN
        mix = np.nan_to_num(first * second / (first + second))
        shared = mix > 0
        found = {}
        for group, of in sums.items():
            inter, union = (
                (of[column] / of["expressions"])[:, shared] @ mix[shared] for column in ("intersection", "union")
            )
            found[group] = 100 * inter / union
    return pd.DataFrame(found)


def judged(claim: str, gap: Sequence[float]) -> dict[str, object]:
    """A claim that a gap is positive, with the gap's points and interval (as ``group_gap`` gives them) and the verdict:
    a line for ``tables.render_verdicts``."""
    measured, low, high = gap
    rule = "nothing to compare" if np.isnan(measured) else verdict(low, high)
    return {"claim": claim, "measured": measured, "low": low, "high": high, "verdict": rule}


def length_verdicts(records: list[Record], split: str, buckets: Sequence[Bucket]) -> pd.DataFrame:
    """Are short expressions easier than longer ones?

    The first bucket against each longer one: all expressions "as they are" and, of the kinds that both have, at "one
    mix of kinds", and what of the gap is so "owed to kinds". Then, within each kind that several buckets have ("one
    kind"), its first of these against its last. Columns: claim, compared (one of the four), short and longer (the two
    buckets), kinds (a tuple; () for "as they are"); measured, low, high, verdict, as ``judged`` has them.
    """
    counts, both = records[0].counts().query("split == @split"), by_kind_and_bucket(buckets)
    present = [kind for kind in KINDS if (counts["kind"] == kind).any()]
    filled = set(both(counts).dropna()) if present else set()  # released data do not name kinds
    short, *longer_ones = names = [str(bucket) for bucket in buckets]
    lines = []
    for longer in longer_ones:
        gaps = length_gaps(records, split, by_bucket(buckets), short, longer)
        about = {"compared": "as they are", "short": short, "longer": longer, "kinds": ()}
        claim = f"{short} words are easier than {longer}"
        lines.append(about | judged(claim, gaps.loc["as they are"]))
        if shared := tuple(kind for kind in present if {f"{kind}, {short}", f"{kind}, {longer}"} <= filled):
            named = f"{claim}, at one mix of kinds ({', '.join(shared)})"
            for how, text in (("one mix of kinds", named), ("owed to kinds", f"{claim} by their kinds")):
                lines.append(about | {"compared": how, "kinds": shared} | judged(text, gaps.loc[how]))
    for kind in present:
        own = [name for name in names if f"{kind}, {name}" in filled]
        if len(own) > 1:
            gap = group_gap(records, split, both, f"{kind}, {own[0]}", f"{kind}, {own[-1]}")
            claim = f"among expressions of kind *{kind}*, {own[0]} words are easier than {own[-1]}"
            about = {"compared": "one kind", "short": own[0], "longer": own[-1], "kinds": (kind,)}
            lines.append(about | judged(claim, gap))
    return pd.DataFrame(lines, columns="claim compared short longer kinds measured low high verdict".split())


def length_table(study: Study, profile: str, results: str = "") -> pd.DataFrame:
    """Table III, a line per printed row, data set and bucket; overall IoU in percent.

    Columns: row, variant, dataset and bucket as printed, printed; ours, ours_low, ours_high (95 %), expressions, runs,
    data (what ours was measured on: a flavour of RefScenes stands in for its benchmark, and is named), missing (the
    command that trains what the row lacks). Ours are of this profile and of those beside it; empty where none has the
    data set.
    """
    printed, measured_splits = load_reported(TABLE), benchmark_splits(study, profile)
    found = {}
    for dataset, column in COLUMNS.items():
        split, profiles = measured_splits.get(column, ("", []))
        found[dataset] = split, table_rows(TABLE, study, profile, results, profiles)
    variants = {row: variant for row, (_, variant) in study.rows(TABLE, study.together(profile)).items()}
    lines = []
    for row in printed.index:
        for dataset, buckets in printed_buckets().items():
            split, rows = found[dataset]
            ours = rows.get(row)
            records = [record for record in ours.records if split in record.metrics] if ours else []
            measured = measured_groups(records, split, by_bucket(buckets), [str(bucket) for bucket in buckets])
            about = {"runs": len(records), "data": "", "missing": ""}
            if ours:
                about |= {"data": ours.data(split), "missing": ours.missing}
            for bucket, numbers in measured.iterrows():
                line = {"row": row, "variant": variants.get(row, ""), "dataset": dataset, "bucket": bucket}
                lines.append(line | {"printed": printed.loc[row, f"{dataset} {bucket}"]} | numbers.to_dict() | about)
    columns = "row variant dataset bucket printed ours ours_low ours_high expressions runs data missing"
    return pd.DataFrame(lines, columns=columns.split()).astype({"expressions": int})


def printed_dataset(data: DataConfig) -> str:
    """The data set of Table III that these data are, or after which they are made, whatever the partition."""
    name = FLAVOURS[data.dataset].target.benchmark if data.dataset in FLAVOURS else DATA_NAMES.get(data.dataset, "")
    return next((dataset for dataset in COLUMNS if dataset.split()[0] == name), "")


def length_curve(study: Study, profile: str, results: str = "") -> pd.DataFrame:
    """Overall IoU over the exact number of words, from 1 to the most there is, for every variant with a record.

    Columns: variant, words, ours, ours_low, ours_high, expressions, runs, data, missing.
    """
    return _per_variant(study, profile, results, by_words, "words")


def kind_table(study: Study, profile: str, results: str = "") -> pd.DataFrame:
    """Overall IoU by kind of expression (``KINDS`` of the grammar), for every variant with a record.

    Columns: variant, kind, ours, ours_low, ours_high, expressions, runs, data, missing.
    """
    return _per_variant(study, profile, results, by_kind, "kind")


def kinds_by_run(study: Study, profile: str, results: str = "") -> pd.DataFrame:
    """``kind_table`` of every single run: what a seed decides.

    Columns: variant, seed, kind, ours, ours_low, ours_high (over pictures), expressions, data.
    """
    lines, split = [], study.profile(profile).splits[0]
    for variant in study.variant_names(profile):
        for record in variant_records(study, profile, variant, results):
            about = {"variant": variant, "seed": record.config.seed, "data": measured_by([record], split)}
            for kind, numbers in measured_groups([record], split, by_kind, KINDS).iterrows():
                lines.append(about | {"kind": kind} | numbers.to_dict())
    columns = "variant seed kind ours ours_low ours_high expressions data"
    return pd.DataFrame(lines, columns=columns.split()).astype({"expressions": int, "seed": int})


def _per_variant(study: Study, profile: str, results: str, label: Label, name: str) -> pd.DataFrame:
    """A line per variant and group, on the profile's first split."""
    lines, split = [], study.profile(profile).splits[0]
    for variant in study.variant_names(profile):
        records = variant_records(study, profile, variant, results)
        if not records:
            continue
        groups = range(1, records[0].counts()["words"].max() + 1) if name == "words" else KINDS
        unseen = set(study.seeds(profile, variant)) - {record.config.seed for record in records}
        about = {
            "runs": len(records),
            "data": measured_by(records, split),
            "missing": training_command(profile, variant) if unseen else "",
        }
        for group, numbers in measured_groups(records, split, label, groups).iterrows():
            lines.append({"variant": variant, name: group} | numbers.to_dict() | about)
    columns = ["variant", name, *"ours ours_low ours_high expressions runs data missing".split()]
    return pd.DataFrame(lines, columns=columns).astype({"expressions": int})
