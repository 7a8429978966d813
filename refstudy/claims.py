"""The claims ledger: what the papers claim of their parts, what they printed, what was measured here, a verdict.

docs/statistics.md says by which rules.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from refstudy.cost import Cost, cost
from refstudy.evaluation import read_ceilings, summarize_counts
from refstudy.inference import CONTRADICTED, MARGIN, SUPPORTED, UNMEASURED, Estimate, judge
from refstudy.models.build import mask_stride
from refstudy.papers.printed import printed_rows
from refstudy.records import Record
from refstudy.study import PAPERS_SWIN_B, PAPERS_SWIN_T, Study, training_command
from refstudy.tables import (
    Measure,
    measured_by,
    resampled_counts,
    variant_records,
    with_interval,
)


@dataclass(frozen=True)
class Claim:
    """That one variant is better than another by ``metric``, and the table whose two rows say so in print.

    A gain that is surely below ``margin`` (points) counts as none. ``worse_table`` is the table of the second row where
    the two stand in different ones; ``column`` is that of the printed numbers where they are not under the metric's
    name.
    """

    paper: str
    text: str
    better: str
    worse: str
    table: str
    rows: tuple[str, str]
    metric: str = "oIoU"
    worse_table: str = ""
    column: str = ""
    margin: float = MARGIN

    @property
    def printed(self) -> float:
        """The printed gain, in points."""
        first, second = self.rows
        tables = (printed_rows(self.table), printed_rows(self.worse_table or self.table))
        column = self.column or self.metric
        return float(tables[0].loc[first, column] - tables[1].loc[second, column])


OURS = "this study"  # whose question it is that no paper answers
SATURATED = 1.0  # points; a gain below counts as none
REACH = 60.0  # percent; the least that the regime brings the full model to, so a ceiling below it binds
# Kinds of expressions: those that a thing's looks answer, and those that ask for its place.
STRATA = {"looks": ("category", "attribute", "superlative"), "places": ("location", "relation")}
FULL4, FULL5, ALL, FULL_SLVIT = "W. S²RM (Full)", "W. CASG (Full)", "Full", "7B + 11B + 21B + Gate"
IV, V, VI, VII = (f"s2rm_table{number}" for number in (4, 5, 6, 7))
CLAIMS = (
    Claim("S²RM", "S²RM beats Tile & Concat", "s2rm_fpn", "tile_concat", IV, (FULL4, "W. Tile & Concat.")),
    Claim("S²RM", "shifting helps", "s2rm_fpn", "s2rm_no_shift", IV, (FULL4, "W. S²RM (-Shift)")),
    Claim("S²RM", "parsing vision by language (l2v) helps", "s2rm_fpn", "s2rm_no_l2v", IV, (FULL4, "W. S²RM (-l2v)")),
    Claim("S²RM", "parsing language by vision (v2l) helps", "s2rm_fpn", "s2rm_no_v2l", IV, (FULL4, "W. S²RM (-v2l)")),
    Claim(
        "S²RM",
        "without shifts, l2v helps",
        "s2rm_no_shift",
        "s2rm_no_shift_no_l2v",
        IV,
        ("W. S²RM (-Shift)", "W. S²RM (-Shift-l2v)"),
    ),
    Claim(
        "S²RM",
        "without shifts, v2l helps",
        "s2rm_no_shift",
        "s2rm_no_shift_no_v2l",
        IV,
        ("W. S²RM (-Shift)", "W. S²RM (-Shift-v2l)"),
    ),
    Claim("S²RM", "balancing the groups helps", "s2rm_fpn", "s2rm_no_balance", IV, (FULL4, "W. S²RM (-Balance)")),
    Claim("S²RM", "CASG beats the FPN", "s2rm_casg", "s2rm_fpn", VII, ("S²RM + CASG", "S²RM + FPN")),
    Claim("S²RM", "language helps CASG", "s2rm_casg", "casg_no_language", V, (FULL5, "W. CASG (-Lang.)")),
    Claim("S²RM", "channel attention helps CASG", "s2rm_casg", "casg_no_channel", V, (FULL5, "W. CASG (-Cha.)")),
    Claim("S²RM", "spatial attention helps CASG", "s2rm_casg", "casg_no_spatial", V, (FULL5, "W. CASG (-Spa.)")),
    Claim("S²RM", "tanh beats the sigmoid in CASG", "s2rm_casg", "casg_sigmoid", V, (FULL5, "W. CASG (Sig.)")),
    Claim("S²RM", "the last decoding stage helps", "s2rm_casg", "casg_no_d3", VI, (ALL, "-D3")),
    Claim("S²RM", "the three decoding stages together help", "s2rm_casg", "casg_no_d123", VI, (ALL, "-D1&2&3")),
    Claim("S²RM", "S²RM beats PWAM (FPN)", "s2rm_fpn", "pwam_fpn", VII, ("S²RM + FPN", "PWAM [28] + FPN")),
    Claim("S²RM", "S²RM beats PWAM (CASG)", "s2rm_casg", "pwam_casg", VII, ("S²RM + CASG", "PWAM [28] + CASG")),
    Claim("S²RM", "S²RM beats ACM (FPN)", "s2rm_fpn", "acm_fpn", VII, ("S²RM + FPN", "ACM [17] + FPN")),
    Claim("S²RM", "S²RM beats ACM (CASG)", "s2rm_casg", "acm_casg", VII, ("S²RM + CASG", "ACM [17] + CASG")),
    Claim(
        "S²RM",
        "the full model beats Tile & Concat",
        "s2rm_casg",
        "tile_concat",
        V,
        (FULL5, "W. Tile & Concat."),
        worse_table=IV,
    ),
    Claim(
        "S²RM",
        "the full model beats LAVT",
        "s2rm_casg",
        "lavt",
        "s2rm_table1",
        ("Overall IoU: SwinB-Ours", "Overall IoU: LAVT₂₂"),
        column="RefCOCO val",
    ),
    Claim("SLViT", "SLViT beats LAVT", "slvit", "lavt", "slvit_table1", ("Ours", "LAVT"), column="RefCOCO val"),
    Claim(
        "SLViT",
        "SLViT without URCE beats LAVT",
        "slvit_no_urce",
        "lavt",
        "slvit_table1",
        ("Ours (w/o URCE)", "LAVT"),
        column="RefCOCO val",
    ),
    Claim("SLViT", "URCE helps", "slvit", "slvit_no_urce", "slvit_table2c", ("SLViT(w/ URCE)", "SLViT(w/o URCE)")),
    Claim(
        "SLViT",
        "URCE sharpens borders (P@0.9)",
        "slvit",
        "slvit_no_urce",
        "slvit_table2c",
        ("SLViT(w/ URCE)", "SLViT(w/o URCE)"),
        metric="P@0.9",
    ),
    Claim(
        "SLViT",
        "the gate helps",
        "slvit",
        "slvit_strips_7_11_21",
        "slvit_table2b",
        (FULL_SLVIT, "7B + 11B + 21B"),
    ),
    Claim(
        "SLViT",
        "three strip pairs beat one of 21",
        "slvit",
        "slvit_strip21_pretrained",
        "slvit_table2b",
        (FULL_SLVIT, "large: 21 B"),
        worse_table="slvit_table2a",
    ),
)


@dataclass(frozen=True)
class Explanation:
    """Why an outcome is as it is, put so that one more variant can say no: ``better`` is better than ``worse``."""

    outcome: str
    text: str
    better: str
    worse: str


EXPLANATIONS = (
    Explanation(
        "what PWAM gives depends on what the decoder gets of it",
        "decoded as V_4 plus gated cells, which a sentence hardly moves at first, PWAM is worse than decoded as LAVT's "
        "decoder has it, layer-normalised cells alone",
        "pwam_fpn",
        "pwam_residual_fpn",
    ),
    Explanation(
        "the full model's lead over Tile & Concat may be one of few epochs",
        "the lead is no matter of a short training: trained twice as long, both, the full model is still better",
        "s2rm_casg_longer",
        "tile_concat_longer",
    ),
)


@dataclass(frozen=True)
class Question:
    """Whether ``better`` is above ``worse``; with ``most``, whether it is so by less than that many points."""

    better: str
    worse: str
    metric: str = "oIoU"
    margin: float = MARGIN
    most: float | None = None


COLUMNS = (
    "variant reference metric printed measured low high p runs reference_runs verdict smallest ceiling looks places "
    "elsewhere data missing"
).split()


def explanations(study: Study, profile: str, results: str = "") -> pd.DataFrame:
    """Every explanation with what the runs that test it gave, in overall IoU, a line each, judged together.

    Columns: outcome, explanation, and those of ``ledger`` from variant on, without printed.
    """
    table = _answers(study, profile, results, [Question(one.better, one.worse) for one in EXPLANATIONS])
    table.insert(0, "outcome", [one.outcome for one in EXPLANATIONS])
    table.insert(1, "explanation", [one.text for one in EXPLANATIONS])
    return table.drop(columns="printed")


def ledger(study: Study, profile: str, results: str = "") -> pd.DataFrame:
    """Every claim with the printed gain and the measured one, a line each, judged together on the first split.

    Columns: paper, claim, variant and the reference that it is held against, metric, printed (points), measured with
    its 95 % interval low, high; p (adjusted for the number of claims and of looks); runs, reference_runs; verdict;
    smallest (of an undecided claim the gain that could have been seen); ceiling (percent that averaged truth reaches at
    the coarser side's stride; a claim whose ceiling is below ``REACH`` is untestable); looks, places (the gain on the
    ``STRATA`` of expressions) and elsewhere (on the profile's other splits), each with its interval and without a
    verdict; data; missing (the commands that train the seeds that are asked for and have no record).
    """
    questions = [Question(claim.better, claim.worse, claim.metric, claim.margin) for claim in CLAIMS]
    table = _answers(study, profile, results, [*questions, _saturation(study, profile)])
    table.insert(0, "paper", [*(claim.paper for claim in CLAIMS), "SLViT"])
    table.insert(1, "claim", [*(claim.text for claim in CLAIMS), "twice as many regions bring no more"])
    table["printed"] = [*(claim.printed for claim in CLAIMS), np.nan]
    if not table.iloc[-1]["variant"]:
        table.loc[len(CLAIMS), "missing"] = "no variant has twice the K of this profile's SLViT"
    return table


def _answers(study: Study, profile: str, results: str, questions: Sequence[Question]) -> pd.DataFrame:
    """``COLUMNS`` of some questions, judged together."""
    splits = study.profile(profile).splits

    def sample(record: Record) -> pd.DataFrame:
        parts = _parts(record, splits)
        return pd.concat({name: resampled_counts(part) for name, part in parts.items()}, axis=1)

    def exact(record: Record) -> pd.Series:
        return pd.concat({name: pd.Series(summarize_counts(part)) for name, part in _parts(record, splits).items()})

    measure = Measure(study, profile, results, sample, exact)
    ceilings = read_ceilings(study.results(profile, results))
    lines, tested = [], []
    for asked in questions:
        line, gain = _measured(study, profile, results, asked, measure)
        if ceilings is not None and asked.better:
            strides = [mask_stride(study.run_config(profile, name, 0).model) for name in (asked.better, asked.worse)]
            line["ceiling"] = ceilings.loc[max(strides), asked.metric]
        lines.append(line)
        tested.append((gain.points if asked.most is None else asked.most - gain.points, gain.error, gain.freedom))
    table = pd.DataFrame(lines, columns=COLUMNS).astype(dict.fromkeys(("measured", "low", "high", "ceiling"), float))
    table = table.astype(dict.fromkeys(("runs", "reference_runs"), "Int64"))
    fewer = table[["runs", "reference_runs"]].min(axis=1).fillna(0).to_numpy(int)
    margins = np.array([asked.margin if asked.most is None else np.nan for asked in questions])
    testable = ~(table["ceiling"] < REACH).to_numpy()
    judged = judge(Estimate(*np.array(tested, float).T), fewer, testable, margins)
    table = table.assign(verdict=judged.verdict, smallest=judged.smallest)
    table["p"] = [
        "" if np.isnan(p) or verdict == UNMEASURED else f"{p:.4f}" for p, verdict in zip(*judged[:2], strict=True)
    ]
    return table.fillna(dict.fromkeys(("variant", "reference", "looks", "places", "elsewhere", "data", "missing"), ""))


def _parts(record: Record, splits: Sequence[str]) -> dict[str, pd.DataFrame]:
    """A record's counts by split, and on the first split by ``STRATA``; none that is empty."""
    counts = record.counts()
    parts = {split: counts[counts["split"] == split] for split in splits}
    parts |= {name: parts[splits[0]].query("kind in @kinds") for name, kinds in STRATA.items()}
    return {name: part for name, part in parts.items() if len(part)}


def _measured(
    study: Study, profile: str, results: str, asked: Question, measure: Measure
) -> tuple[dict[str, Any], Estimate]:
    """The gain of one variant over another as cells of the ledger, and itself; NaN without runs of both."""
    line: dict[str, Any] = {"variant": asked.better, "reference": asked.worse, "metric": asked.metric}
    names = (asked.better, asked.worse) if asked.better else ()
    trainers = _trainers(study, profile, *names)
    sides = {
        name: variant_records(study, trainer, name, str(study.results_beside(profile, trainer, results)))
        for name, trainer in trainers.items()
    }
    lacking = [name for name in names if len(sides[name]) < len(study.seeds(trainers[name], name))]
    line["missing"] = " && ".join(training_command(trainers[name], name) for name in lacking)
    unknown = Estimate(np.nan, np.nan, np.nan)
    if not (names and all(sides.values())):
        return line, unknown
    split, *others = study.profile(profile).splits
    better, worse = (measure(trainers[name], name, sides[name]) for name in names)
    gains = better.above(worse)

    def gain(part: str) -> Estimate:
        return gains[part, asked.metric] if (part, asked.metric) in gains.points else unknown

    def shown(part: str) -> str:
        low, high = gain(part).interval()
        measured = with_interval(
            pd.DataFrame([{"x": gain(part).points, "x_low": low, "x_high": high}]), "x", signed=True
        )
        return measured[0]

    line["measured"], (line["low"], line["high"]) = gain(split).points, gain(split).interval()
    line["runs"], line["reference_runs"] = (len(sides[name]) for name in names)
    line["data"] = " against ".join(dict.fromkeys(measured_by(sides[name], split) for name in names))
    line |= {name: shown(name) for name in STRATA}
    line["elsewhere"] = "; ".join(f"{other}: {found}" for other in others if (found := shown(other)))
    return line, gain(split)


def _trainers(study: Study, profile: str, *variants: str) -> dict[str, str]:
    """Variant -> the profile whose records speak for it: of those beside one another on the same data, the first that
    trains all of them, otherwise the first that trains this one."""
    near = study.compared(profile)
    trained = {name: set(study.variant_names(name)) for name in near}
    all_of_them = [name for name in near if trained[name].issuperset(variants)]
    return {
        variant: next(iter(all_of_them + [name for name in near if variant in trained[name]]), profile)
        for variant in variants
    }


def _saturation(study: Study, profile: str) -> Question:
    """SLViT's claim that more regions than its K bring no more (Fig. 5a, without printed numbers): 2 K against K, by
    less than ``SATURATED`` points. Without variants where none has 2 K."""
    by_regions = variants_by_regions(study, profile)
    own = next((K for K, name in by_regions.items() if name == "slvit"), 0)
    more = by_regions.get(2 * own, "") if own else ""
    return Question(more, "slvit" if more else "", most=SATURATED)


def variants_by_regions(study: Study, profile: str) -> dict[int, str]:
    """K, how many regions URCE refines, in rising order -> the variant of SLViT that has it and differs in nothing
    else; 0 is the one without URCE. A K of more regions than the profile's grid has cells is left out."""
    found: dict[int, str] = {}
    for name, variant in study.variants.items():
        if variant.whole is None or variant.whole.name != "slvit":
            continue
        options = variant.whole.options
        if set(options) <= {"regions"} or options == {"urce": False}:
            model = study.run_config(profile, name, seed=0).model
            own = model.whole.options if model.whole else {}
            K = own.get("regions", 32) if options != {"urce": False} else 0
            if (model.image_size // 32) ** 2 >= K:
                found.setdefault(K, name)  # where a profile's own K is another variant's, the whole model stands for it
    return dict(sorted(found.items()))


def cost_ledger(study: Study) -> pd.DataFrame:
    """The claims about cost, which need no training: multiply-adds counted at one size for both sides, the text encoder
    included, every equation computed as the papers write it. Columns as ``ledger``, without gaps and variants; what no
    paper claims has "this study" for its paper.

    ``printed`` and ``measured`` are percent by which the first costs less than the second.
    """

    def counted(profile: str, variant: str, size: int) -> Cost:
        config = study.run_config(profile, variant, 0).model
        return cost(config.model_copy(update={"image_size": size}))

    flops = printed_rows("s2rm_table2")["Flops"]
    printed, unprinted = _saving(flops["SwinT-Ours"], flops["LAVT"]), float("nan")
    slvit = counted(PAPERS_SWIN_T, "slvit", 480).written
    lines = []
    for encoder, profile, papers, saved in (
        ("Swin-B", PAPERS_SWIN_B, ("S²RM", "SLViT"), printed),  # as Table II and Fig. 5(b) compare them
        ("Swin-T", PAPERS_SWIN_T, (OURS, OURS), unprinted),
    ):
        lavt, small = (counted(profile, "lavt", size).written for size in (512, 480))
        own = counted(PAPERS_SWIN_T, "s2rm_casg", 512).written
        lines += [
            (papers[0], f"SwinT-Ours costs less than LAVT with {encoder}", saved, own, lavt, 512),
            (papers[1], f"SLViT costs less than LAVT with {encoder}", unprinted, slvit, small, 480),
        ]
    large, lavt_b = (counted(PAPERS_SWIN_B, name, 512).further_written for name in ("s2rm_casg", "lavt"))
    further = "with Swin-B, a further expression about the same image costs S²RM + CASG less than LAVT"
    lines.append((OURS, further, unprinted, large, lavt_b, 512))
    rows = [
        {
            "paper": paper,
            "claim": text,
            "metric": "multiply-adds, % less",
            "printed": printed,
            "measured": (saved := _saving(first, second)),
            "data": f"counted at {size} px, BERT included",
            "verdict": SUPPORTED if saved > 0 else CONTRADICTED,
        }
        for paper, text, printed, first, second, size in lines
    ]
    return pd.DataFrame(rows)


def _saving(first: float, second: float) -> float:
    return 100 * (1 - first / second)
