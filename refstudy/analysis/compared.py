"""A new variant compared to recorded baselines: levels, gains with verdicts, and the gains that its runs can show.

The rules are those of the claims (docs/statistics.md): the gains over all baselines are judged together.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from refstudy.analysis.agreement import FEWEST, kendall, ranked_rows
from refstudy.analysis.claims import COLUMNS, answers
from refstudy.analysis.cost import cost
from refstudy.analysis.inference import (
    ALPHA,
    CONTRADICTED,
    EQUIVALENT,
    LOOKS,
    SUPPORTED,
    UNDECIDED,
    UNMEASURED,
    Side,
    Spread,
    estimate,
    pooled,
    smallest_gain,
)
from refstudy.analysis.lengths import MAIN, by_bucket, measure_groups, measured_groups, printed_buckets, printed_dataset
from refstudy.analysis.measures import jackknifed_metrics, metrics_of, pictures_variance, spelled
from refstudy.analysis.opened import OpenStudy
from refstudy.analysis.rows import seed_records
from refstudy.analysis.word_use import PAIRS, mask_agreement
from refstudy.metrics import METRICS
from refstudy.models.own_parts import is_own
from refstudy.papers.claims import MARGIN, Question
from refstudy.study.file import ProfileStudy, Variant
from refstudy.training.records import Record

WORDS = {SUPPORTED: "better", CONTRADICTED: "worse", EQUIVALENT: f"equal within {MARGIN:g} points"}


@dataclass(frozen=True)
class Compared(OpenStudy):
    """A study with a new variant ``own``. Its runs, with the ``planned`` seeds, are recorded under the study's home;
    those of the ``baselines`` are in ``folder``."""

    own: str
    planned: tuple[int, ...]
    baselines: tuple[str, ...]

    @property
    def variant_names(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*super().variant_names, self.own)))

    def seeds(self, variant: str) -> tuple[int, ...]:
        return self.planned if variant == self.own else super().seeds(variant)

    def records_of(self, variant: str) -> Path:
        own = self.file.results(self.profile) / "records"
        return own if variant == self.own else super().records_of(variant)

    def recorded(self) -> dict[str, list[Record]]:
        """The records of each baseline that has any, that with the highest overall IoU first."""
        found = {name: records for name in self.baselines if (records := self.records(name))}
        split = self.settings.splits[0]
        reached = {name: np.mean([one.metrics[split][METRICS[0]] for one in found[name]]) for name in found}
        return {name: found[name] for name in sorted(found, key=lambda name: -reached[name])}


def usual_baselines(study: ProfileStudy, own: str) -> tuple[str, ...]:
    """The baselines that ``own`` is compared to if none are named: the papers' model, and, without ablations, the
    variants with the same decoder, or with the same fusion module where the decoder is a new class; for a whole model
    the whole models."""
    new = study.file.variants[own]
    same, other = ("fusion", "decoder") if new.decoder and is_own(new.decoder.name) else ("decoder", "fusion")

    def alike(one: Variant) -> bool:
        if new.whole or one.whole:
            return bool(new.whole and one.whole and not one.whole.options)
        return getattr(one, same) == getattr(new, same) and not getattr(one, other).options

    known = {name: study.file.variants[name] for name in study.variant_names if name != own}
    return tuple(name for name, one in known.items() if one.longer == 1 and (name == MAIN or alike(one)))


def gains(study: Compared) -> pd.DataFrame:
    """The gain over each recorded baseline, a line each: the columns of ``claims.ledger`` from variant on, without
    printed, and ``said``, the verdict in words.

    Baselines with enough runs for a verdict are judged together; a gain over any other has none, and so has every gain
    until all planned seeds are recorded.
    """
    recorded, runs = study.recorded(), len(study.records(study.own))
    several = [name for name, records in recorded.items() if len(records) >= LOOKS[0]]
    groups = [several] * bool(several) + [[name] for name in recorded if name not in several]
    parts = [answers(study, [Question(better=study.own, worse=name) for name in names]) for names in groups]
    table = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=list(COLUMNS))
    if runs < len(study.planned):
        table = table.assign(verdict=UNMEASURED, smallest=np.nan)
    said = [_said(study, line, runs) for line in table.itertuples()]
    return table.drop(columns=["printed", "missing"]).assign(said=said)


def _said(study: Compared, line, runs: int) -> str:
    if line.verdict == UNDECIDED:
        return f"undecided; a gain of {line.smallest:.1f} would be seen"
    if line.verdict != UNMEASURED:
        return WORDS.get(line.verdict, line.verdict)
    if runs < len(study.planned):
        return f"no verdict: {_runs(runs)} of {len(study.planned)} seeds"
    return few(runs) if runs < LOOKS[0] else few(line.reference_runs, " of it")


def few(runs: int, of: str = "") -> str:
    """Say that so few runs give no verdict."""
    return f"no verdict: {_runs(runs)}{of}, {LOOKS[0]} are needed"


def _runs(runs: int) -> str:
    return "one run" if runs == 1 else f"{runs} runs"


def levels(study: Compared) -> pd.DataFrame:
    """The scores of ``own`` and of each recorded baseline on the first split, and their cost, a line each.

    Columns: variant, label, runs; oIoU with its 95 % interval oIoU_low, oIoU_high, and the other metrics, in percent;
    same and other (percent that masks for two expressions share which mean one thing, or two); parameters (millions),
    macs and further (G multiply-adds, as in ``Cost``; empty where a class cannot be counted on shapes alone); minutes
    (of a run, where it was trained) and peak_memory_mb.
    """
    measure, lines = metrics_of(study, study.settings.splits[0]), []
    for name, records in ({study.own: study.records(study.own)} | study.recorded()).items():
        level = measure(study.profile, name, records).level()
        line = {"variant": name, "label": study.label(name), "runs": len(records)}
        line |= spelled(METRICS[0], level[METRICS[0]], percent=True)
        line |= {metric: float(level.points[metric]) for metric in METRICS[1:]}
        made = pd.DataFrame([record.provenance() for record in records])
        made = made.reindex(columns=["training_seconds", "evaluation_seconds", "peak_memory_mb"]).mean()
        agreed = pd.DataFrame([mask_agreement(record) for record in records]).reindex(columns=list(PAIRS)).mean()
        line |= agreed.to_dict() | {"minutes": made.iloc[:2].sum(skipna=False) / 60, "peak_memory_mb": made.iloc[2]}
        lines.append(line | _cost(study, name))
    return pd.DataFrame(lines)


def _cost(study: Compared, variant: str) -> dict[str, float]:
    try:
        found = cost(study.config(variant).model)
    except Exception:  # a new class may look at values, and shapes have none
        return dict.fromkeys(("parameters", "macs", "further"), np.nan)
    return {"parameters": sum(found.parameters.values()), "macs": sum(found.macs.values()), "further": found.further}


def by_length(study: Compared) -> pd.DataFrame:
    """Overall IoU by number of words, and the gain over each recorded baseline, in the buckets of Table III; empty for
    data that it has no buckets for.

    Columns: words, expressions; ours, ours_low, ours_high (percent); baseline; gain, gain_low, gain_high (points).
    """
    split, records, lines = study.settings.splits[0], study.records(study.own), []
    if buckets := printed_buckets().get(printed_dataset(study.settings.data), ()):
        label, names = by_bucket(buckets), [str(bucket) for bucket in buckets]
        measure = measure_groups(study, split, label, names)
        own = measure(study.profile, study.own, records)
        reached = measured_groups(records, split, label, names, own)
        for name, theirs in study.recorded().items():
            gain = own.above(measure(study.profile, name, theirs))
            for words, line in reached[reached["expressions"] > 0].iterrows():
                lines.append({"words": words, **line, "baseline": name} | spelled("gain", gain[words]))
    columns = "words expressions ours ours_low ours_high baseline gain gain_low gain_high"
    return pd.DataFrame(lines, columns=columns.split()).astype({"expressions": int})


def smallest_gains(study: Compared) -> dict[str, float]:
    """The gain in overall IoU over each recorded baseline, in points, that the planned seeds would show with a chance
    of 80 %; over one with too few runs for a verdict, if it had enough. NaN where no variant has two runs.

    The spread over seeds is that of the family, or that of the pilot where no variant of the family has two runs.
    """
    split, metric = study.settings.splits[0], METRICS[0]
    measure, recorded = metrics_of(study, split), study.recorded()
    ends = {name: measure(study.profile, name, records) for name, records in recorded.items()}
    others = [seed_records(study, name, study.settings.pilot) for name in study.variant_names if name != study.own]
    pilot = [[jackknifed_metrics(record, split)[metric] for record in runs] for runs in others if len(runs) > 1]
    alone = Spread(pooled([[run.iloc[0] for run in runs] for runs in pilot]).variance, 0)
    family = {name: study.file.variants[name].family for name in (*ends, study.own)}
    known = {family[name]: one.side(metric).spread for name, one in ends.items() if one.spread.freedom}
    judged = max(1, sum(one.runs >= LOOKS[0] for one in ends.values()))
    found = {}
    for name, one in ends.items():
        runs = {study.own: len(study.planned), name: max(LOOKS[0], one.runs)}
        coming = Counter({family[study.own]: len(study.planned) - max(1, len(study.records(study.own)))})
        coming[family[name]] += runs[name] - one.runs
        spreads = {of: known.get(of, alone) for of in coming}
        spreads = {of: Spread(spread.variance, spread.freedom + coming[of]) for of, spread in spreads.items()}
        sides = [Side(family[side], runs[side], spreads[family[side]]) for side in runs]
        pairs = [one.values[metric] - other.values[metric] for key, other in ends.items() if key != name]
        pairs += [runs[0] - runs[1] for runs in pilot]
        pictures = pictures_variance(pairs[0]) if pairs else 0.0
        gain = estimate(0.0, pictures, *sides)
        found[name] = float(smallest_gain(gain.error, gain.freedom, ALPHA / len(LOOKS) / judged))
    return found


def epoch_scores(study: Compared) -> dict[str, dict[int, float]]:
    """The mean score of each recorded baseline at every validation: variant -> number of the epoch -> percent."""
    found = {}
    for name, records in study.recorded().items():
        train = records[0].config.train
        epochs = [k for k in range(1, train.epochs + 1) if not k % train.evaluate_every or k == train.epochs]
        scores = [record.curve()["val_oIoU"].dropna().to_numpy() for record in records]
        found[name] = dict(zip(epochs, np.mean([s for s in scores if len(s) == len(epochs)] or [[]], 0), strict=False))
    return found


def agreement(study: Compared) -> str:
    """Say how far the order of modules here agrees with their order in print."""
    rows = ranked_rows(study)
    tau, low, high = kendall(rows)
    if np.isnan(low):
        known = f"{len(rows)} of {FEWEST} rows recorded"
        return f"whether orders here agree with orders in print is not known yet ({known})"
    return f"orders here and in print agree with Kendall's tau {tau:.2f} [{low:.2f}, {high:.2f}] ({len(rows)} rows)"
