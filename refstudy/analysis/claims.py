"""The claims ledger: each claim of the papers about their parts, with the printed and measured gain and a verdict.

The claims are entries of refstudy/papers/claims/claims.yaml; docs/statistics.md says by which rules they are judged.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from refstudy.analysis.ceilings import read_ceilings
from refstudy.analysis.cost import cost
from refstudy.analysis.data_names import measured_by
from refstudy.analysis.inference import (
    CONTRADICTED,
    MOST_RUNS,
    SUPPORTED,
    UNDECIDED,
    UNMEASURED,
    Estimate,
    Side,
    estimate,
    judge,
    runs_needed,
)
from refstudy.analysis.measures import Measure, jackknifed_counts, spelled
from refstudy.analysis.rows import variant_records
from refstudy.analysis.table_text import with_interval
from refstudy.metrics import METRICS
from refstudy.models.build import mask_stride
from refstudy.papers.claims import Question, load_claims
from refstudy.papers.printed import printed_cells
from refstudy.study.file import ProfileStudy, Study, training_command
from refstudy.training.evaluation import summarize_counts
from refstudy.training.records import Record

FILE = load_claims()
CLAIMS, EXPLANATIONS = FILE.claims, FILE.explanations
SATURATED = 1.0  # points; a gain below counts as none
REACH = 60.0  # percent; every full model reaches it, so a ceiling below it limits a row
# Kinds of expressions: those that a thing's looks answer, and those that ask for its place.
STRATA = {"looks": ("category", "attribute", "superlative"), "places": ("location", "relation")}
COLUMNS = (
    "variant reference metric printed measured low high p p_own runs reference_runs verdict smallest runs_needed "
    "ceiling looks places elsewhere data missing"
).split()


def explanations(study: ProfileStudy) -> pd.DataFrame:
    """List every explanation with the result of the runs that test it, in overall IoU, a line each, judged together.

    Columns: outcome, explanation, seen ("yes": it was written when its runs were known), and those of ``ledger`` from
    variant on, without printed.
    """
    table = answers(study, EXPLANATIONS)
    table.insert(0, "outcome", [one.outcome for one in EXPLANATIONS])
    table.insert(1, "explanation", [one.text for one in EXPLANATIONS])
    table.insert(2, "seen", ["yes" if one.seen else "" for one in EXPLANATIONS])
    return table.drop(columns="printed")


def ledger(study: ProfileStudy) -> pd.DataFrame:
    """List every claim with the printed gain and the measured one, a line each, judged together on the first split.

    Columns: paper, claim, variant and the reference that it is held against, metric, printed (points), measured with
    its 95 % interval low, high; p (adjusted for the number of claims and of looks); p_own (the same if the
    spread over seeds of each row is that of its own runs alone, as in Welch's test); runs, reference_runs; verdict;
    smallest (of an undecided claim the gain that could have been seen); runs_needed (with which a gain as large as the
    measured one would be seen); ceiling (percent that masks drawn on the coarser side's grid can reach, at least; a
    claim whose ceiling is below ``REACH`` is untestable); looks, places (the gain on the ``STRATA`` of expressions) and
    elsewhere (on the profile's other splits), each with its interval and without a verdict; data; missing (the commands
    that train the seeds that are asked for and have no record).
    """
    table = answers(study, [*CLAIMS, _saturation(study)])
    table.insert(0, "paper", [*(claim.paper for claim in CLAIMS), "SLViT"])
    table.insert(1, "claim", [*(claim.text for claim in CLAIMS), "twice as many regions bring no more"])
    table["printed"] = [*(claim.printed for claim in CLAIMS), np.nan]
    if not table.iloc[-1]["variant"]:
        table.loc[len(CLAIMS), "missing"] = "no variant has twice the K of this profile's SLViT"
    return table


def answers(study: ProfileStudy, questions: Sequence[Question]) -> pd.DataFrame:
    """Answer questions, a line of ``COLUMNS`` each, judged together."""
    measures = {part: _measure(study, part) for part in (*study.settings.splits, *STRATA)}
    ceilings = read_ceilings(study.folder)
    lines, tested, alone, behind = [], [], [], []
    for asked in questions:
        line, gain, own, sides = _measured(study, asked, measures)
        if ceilings is not None and asked.better:
            strides = [mask_stride(study.config(name).model) for name in (asked.better, asked.worse)]
            line["ceiling"] = ceilings.loc[max(strides), asked.metric]
        lines.append(line)
        points = gain.points if asked.most is None else asked.most - gain.points
        tested.append((points, gain.error, gain.freedom))
        alone.append((points, own.error, own.freedom))
        behind.append(sides)
    table = pd.DataFrame(lines, columns=COLUMNS).astype(dict.fromkeys(("measured", "low", "high", "ceiling"), float))
    table = table.astype(dict.fromkeys(("runs", "reference_runs"), "Int64"))
    fewer = table[["runs", "reference_runs"]].min(axis=1).fillna(0).to_numpy(int)
    margins = np.array([asked.margin if asked.most is None else np.nan for asked in questions])
    testable = ~(table["ceiling"] < REACH).to_numpy()
    gains = Estimate(*np.array(tested, float).T)
    judged = judge(gains, fewer, testable, margins)
    runs = ["" for _ in questions]
    for k in np.flatnonzero(judged.verdict == UNDECIDED):
        pictures = gains.error[k] ** 2 - estimate(0.0, 0.0, *behind[k]).error ** 2
        needed = runs_needed(gains.points[k], pictures, judged.level, *behind[k])
        runs[k] = f"{needed:.0f}" if needed <= MOST_RUNS else f"over {MOST_RUNS}"
    p_own = judge(Estimate(*np.array(alone, float).T), fewer, testable, margins).p
    known = testable & (judged.verdict != UNMEASURED)
    for name, values in (("p", judged.p), ("p_own", p_own)):
        table[name] = [f"{one:.4f}" if now else "" for one, now in zip(values, known, strict=True)]
    table = table.assign(verdict=judged.verdict, smallest=judged.smallest, runs_needed=runs)
    return table.fillna(dict.fromkeys(("variant", "reference", "looks", "places", "elsewhere", "data", "missing"), ""))


def grid_decides(study: ProfileStudy, variant: str) -> bool:
    """Tell if the best masks found on a variant's grid stay below ``REACH``, so that its row measures the grid; False
    where no ceiling was measured."""
    ceilings = read_ceilings(study.folder)
    return ceilings is not None and bool(ceilings.loc[mask_stride(study.config(variant).model), METRICS[0]] < REACH)


def _counts(study: ProfileStudy, record: Record, part: str) -> pd.DataFrame:
    """A record's counts of a part: of a split, or of one of ``STRATA`` of the first split."""
    counts = record.counts(study.settings.splits[0] if part in STRATA else part)
    return counts[counts["kind"].isin(STRATA[part])] if part in STRATA else counts


def _measure(study: ProfileStudy, part: str) -> Measure:
    """All metrics of a part, of records that have it."""

    def exact(record: Record) -> pd.Series | None:
        counts = _counts(study, record, part)
        return pd.Series(summarize_counts(counts)) if len(counts) else None

    return Measure(study, lambda record: jackknifed_counts(_counts(study, record, part)), exact)


def _measured(
    study: ProfileStudy, asked: Question, measures: dict[str, Measure]
) -> tuple[dict[str, Any], Estimate, Estimate, list[Side]]:
    """Measure the gain of one variant over another: cells of the ledger, the gain, the same by each row's own spread,
    and the runs behind its two sides. NaN, and no sides, without runs of both."""
    line: dict[str, Any] = {"variant": asked.better, "reference": asked.worse, "metric": asked.metric}
    names = (asked.better, asked.worse) if asked.better else ()
    trainers = _trainers(study, *names)
    sides = {name: variant_records(study.beside(trainer), name) for name, trainer in trainers.items()}
    lacking = [name for name in names if len(sides[name]) < len(study.beside(trainers[name]).seeds(name))]
    line["missing"] = " && ".join(training_command(trainers[name], name) for name in lacking)
    unknown = Estimate(np.nan, np.nan, np.nan)
    if not (names and all(sides.values())):
        return line, unknown, unknown, []
    split, *others = study.settings.splits
    better, worse = (measures[split](trainers[name], name, sides[name]) for name in names)

    def gain(part: str) -> Estimate:
        if any(_counts(study, record, part).empty for records in sides.values() for record in records):
            return unknown
        one, other = (measures[part](trainers[name], name, sides[name]) for name in names)
        return one.above(other)[asked.metric]

    def shown(part: str) -> str:
        return with_interval(pd.DataFrame([spelled("x", gain(part))]), "x", signed=True)[0]

    found = gain(split)
    line["measured"], (line["low"], line["high"]) = found.points, found.interval()
    line["runs"], line["reference_runs"] = (len(sides[name]) for name in names)
    line["data"] = " against ".join(dict.fromkeys(measured_by(sides[name], split) for name in names))
    line |= {name: shown(name) for name in STRATA}
    line["elsewhere"] = "; ".join(f"{other}: {text}" for other in others if (text := shown(other)))
    own = better.apart(asked.better).above(worse.apart(asked.worse))[asked.metric]
    return line, found, own, [side.side(asked.metric) for side in (better, worse)]


def _trainers(study: ProfileStudy, *variants: str) -> dict[str, str]:
    """Find for each variant the profile whose records are used: of those with the same data, the first
    that trains all of the variants, otherwise the first that trains this one."""
    near = study.file.compared(study.profile)
    trained = {name: set(study.file.variant_names(name)) for name in near}
    all_of_them = [name for name in near if trained[name].issuperset(variants)]
    return {
        variant: next(iter(all_of_them + [name for name in near if variant in trained[name]]), study.profile)
        for variant in variants
    }


def _saturation(study: ProfileStudy) -> Question:
    """The question of SLViT's claim that more regions than its K bring no more (Fig. 5a, without printed numbers): do 2
    K gain less than ``SATURATED`` points over K? It has no variants when none has 2 K."""
    by_regions = variants_by_regions(study)
    own = next((K for K, name in by_regions.items() if name == "slvit"), 0)
    more = by_regions.get(2 * own, "") if own else ""
    return Question(better=more, worse="slvit" if more else "", most=SATURATED)


def variants_by_regions(study: ProfileStudy) -> dict[int, str]:
    """Find the variants of SLViT that differ in nothing but K, the number of regions that URCE refines: K -> variant,
    in rising order; 0 stands for no URCE. A K above the number of cells of the profile's grid is left out."""
    found: dict[int, str] = {}
    for name, variant in study.file.variants.items():
        if variant.whole is None or variant.whole.name != "slvit":
            continue
        options = variant.whole.options
        if set(options) <= {"regions"} or options == {"urce": False}:
            model = study.config(name).model
            own = model.whole.options if model.whole else {}
            K = own.get("regions", 32) if options != {"urce": False} else 0
            if (model.image_size // 32) ** 2 >= K:
                found.setdefault(K, name)  # the whole model comes first, so it stands for the profile's own K
    return dict(sorted(found.items()))


def cost_ledger(study: Study) -> pd.DataFrame:
    """List the claims about cost, which need no training: multiply-adds counted at one size for both sides, the text
    encoder included, every equation computed as the papers write it. Columns as ``ledger``, without gains and variants.

    ``printed`` and ``measured`` are percent by which the first costs less than the second.
    """
    rows = []
    for claim in FILE.costs:
        counts = []
        for profile, variant in (claim.first, claim.second):
            model = study.run_config(profile, variant, 0).model.model_copy(update={"image_size": claim.size})
            counts.append(cost(model).further_written if claim.further else cost(model).written)
        printed = printed_cells(claim.table, claim.rows)["Flops"].tolist() if claim.table else [np.nan, np.nan]
        about: dict[str, Any] = {"paper": claim.paper, "claim": claim.text, "metric": "multiply-adds, % less"}
        saved, printed_saved = (100 * (1 - first / second) for first, second in (counts, printed))
        about |= {"printed": printed_saved, "measured": saved, "data": f"counted at {claim.size} px, BERT included"}
        rows.append(about | {"verdict": SUPPORTED if saved > 0 else CONTRADICTED})
    return pd.DataFrame(rows)
