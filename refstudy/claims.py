"""The claims ledger: what the papers claim of their parts, what they printed, what was measured here, a verdict."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from refstudy.cost import Cost, cost
from refstudy.records import Record
from refstudy.study import PAPERS_SWIN_B, PAPERS_SWIN_T, Study, training_command
from refstudy.tables import interval, measured_by, printed_rows, resampled_gains, variant_records, verdict


@dataclass(frozen=True)
class Claim:
    """That one variant is better than another by ``metric``, and the table whose two rows say so in print.

    ``worse_table`` is the table of the second row where the two stand in different ones; ``column`` is that of the
    printed numbers where they are not under the metric's name.
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

    @property
    def printed(self) -> float:
        """The printed gain, in points."""
        first, second = self.rows
        tables = (printed_rows(self.table), printed_rows(self.worse_table or self.table))
        column = self.column or self.metric
        return float(tables[0].loc[first, column] - tables[1].loc[second, column])


OURS = "this study"  # whose question it is that no paper answers
UNMEASURED = "not measured"
OF_ONE_RUN = {"supported": "held in one run", "not supported": "failed in one run", "undecided": "undecided in one run"}
SATURATED = 1.0  # points; a gain below counts as none
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
    """Why an outcome is as it is, put so that one more variant can say no: ``better`` is better than ``worse``.

    ``seeds``: those of the two runs that are held against each other, where they are not to be the same.
    """

    outcome: str
    text: str
    better: str
    worse: str
    seeds: tuple[int, int] | None = None


EXPLANATIONS = (
    Explanation(
        "what PWAM gives depends on what the decoder gets of it",
        "decoded as V_4 plus gated cells, which a sentence hardly moves at first, PWAM is worse than decoded as LAVT's "
        "decoder has it, layer-normalised cells alone",
        "pwam_fpn",
        "pwam_residual_fpn",
    ),
    Explanation(
        "S²RM + CASG ends far lower with seed 1 than with seed 0",
        "three epochs are too few for seed 1: with the same first weights and batches, and a rate that rises and falls "
        "over twice the epochs, it ends above what seed 0 reached in half of them",
        "s2rm_casg_longer",
        "s2rm_casg",
        seeds=(1, 0),
    ),
    Explanation(
        "whether the full model beats Tile & Concat stays open over five seeds",
        "three epochs are too few for some seeds of the full model, and enough for all of Tile & Concat: trained twice "
        "as long, both, the full model is better",
        "s2rm_casg_longer",
        "tile_concat_longer",
    ),
)


def explanations(study: Study, profile: str, results: str = "") -> pd.DataFrame:
    """Every explanation with what the run that tests it gave, in overall IoU, a line each.

    Columns: outcome, explanation, variant, reference, metric, and from ``measured`` on as ``ledger``.
    """
    lines = []
    for one in EXPLANATIONS:
        about = {"outcome": one.outcome, "explanation": one.text, "variant": one.better, "reference": one.worse}
        found = _measured(study, profile, one.better, one.worse, "oIoU", results, one.seeds)
        lines.append(about | _judged("oIoU", found))
    columns = "outcome explanation variant reference metric measured low high runs data verdict missing"
    return _with_gaps(pd.DataFrame(lines, columns=columns.split()))


def ledger(study: Study, profile: str, results: str = "") -> pd.DataFrame:
    """Every claim with the printed gain and the measured one, a line each.

    Columns: paper, claim, variant and the reference that it is held against, metric, printed (points), measured with
    its paired 95 % interval low, high; runs (the seeds that both sides have), data, verdict, elsewhere (the same on the
    profile's other splits), missing (commands). The verdict is by rule: "supported" when the whole interval is above
    zero, "not supported" when it is below, "undecided" otherwise; of one run a side, whose interval knows nothing of
    other trainings, the weaker words of ``OF_ONE_RUN``; "not measured" without records of both sides. For a claim of no
    gain see ``_saturation``. ``resampled_metrics`` says what the interval speaks of.
    """
    lines = []
    for claim in CLAIMS:
        about = {"paper": claim.paper, "claim": claim.text, "printed": claim.printed}
        about |= {"variant": claim.better, "reference": claim.worse}
        found = _measured(study, profile, claim.better, claim.worse, claim.metric, results)
        lines.append(about | _judged(claim.metric, found))
    lines.append(_saturation(study, profile, results))
    columns = "paper claim variant reference metric printed measured low high runs data verdict elsewhere missing"
    return _with_gaps(pd.DataFrame(lines, columns=columns.split()))


def _with_gaps(table: pd.DataFrame) -> pd.DataFrame:
    return table.astype({"runs": "Int64"}).fillna(dict.fromkeys(("data", "elsewhere", "missing"), ""))


def _judged(metric: str, found: dict[str, Any], most: float | None = None) -> dict[str, Any]:
    """What ``_measured`` found, with the metric and the verdict on one variant being better than the other, or on its
    being so by less than ``most`` points."""
    rule, elsewhere = UNMEASURED, []

    def ruled(low: float, high: float) -> str:
        rule = verdict(low, high) if most is None else verdict(most - high, most - low)
        return OF_ONE_RUN[rule] if found["runs"] == 1 else rule

    if "low" in found:
        rule = ruled(found["low"], found["high"])
        elsewhere = [
            f"{split}: {ruled(low, high)} {gain:+z.1f} [{low:+z.1f}, {high:+z.1f}]"
            for split, (gain, low, high) in found.pop("others").items()
        ]
    return {"metric": metric, "verdict": rule, "elsewhere": "; ".join(elsewhere)} | found


def _measured(
    study: Study,
    profile: str,
    better: str,
    worse: str,
    metric: str,
    results: str,
    seeds: tuple[int, int] | None = None,
) -> dict[str, Any]:
    """The gain of one variant over another as cells of the ledger, or the commands that train what is missing: over
    the seeds that both have, or of one run with the first of ``seeds`` over one with the second."""
    trainers = _trainers(study, profile, better, worse)
    sides = {
        name: variant_records(study, trainer, name, str(study.results_beside(profile, trainer, results)))
        for name, trainer in trainers.items()
    }
    split, *others = study.profile(profile).splits
    if seeds:
        for name, seed in zip((better, worse), seeds, strict=True):
            sides[name] = [record for record in sides[name] if record.config.seed == seed]
    done = {name: {record.config.seed for record in records} for name, records in sides.items()}
    runs = 1 if seeds else len(done[better] & done[worse])
    records = [record for side in sides.values() for record in side]
    splits = [split, *(other for other in others if all(other in record.metrics for record in records))]
    gains = _gains(sides[better], sides[worse], splits, metric, paired=not seeds)
    if not gains:
        wanted = dict(zip((better, worse), seeds or 2 * study.profile(profile).seeds[:1], strict=True))
        lacking = [name for name, seed in wanted.items() if seed not in done[name]]
        commands = [training_command(trainers[name], name, wanted[name] if seeds else None) for name in lacking]
        return {"missing": " && ".join(commands)}
    measured, low, high = gains.pop(split)
    data = dict.fromkeys(measured_by(sides[name], split) for name in (better, worse))
    about = {"runs": runs, "data": " against ".join(data), "others": gains}
    return {"measured": measured, "low": low, "high": high} | about


def _gains(
    better: list[Record], worse: list[Record], splits: Sequence[str], metric: str, paired: bool
) -> dict[str, tuple[float, float, float]]:
    """Split -> points by which one is above the other, with the 95 % interval; empty without runs to compare."""
    found = {split: resampled_gains(better, worse, split, paired) for split in splits}
    values = {split: gains[metric] for split, gains in found.items() if gains is not None}
    return {split: (float(of[0]), *interval(of)) for split, of in values.items()}


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


def _saturation(study: Study, profile: str, results: str) -> dict[str, Any]:
    """SLViT's claim that more regions than its K bring no more (Fig. 5a, without printed numbers): K against 2 K.

    It is supported when 2 K brings less than ``SATURATED`` points with 95 % certainty, not when it brings more.
    """
    by_regions = variants_by_regions(study, profile)
    own = next((K for K, name in by_regions.items() if name == "slvit"), 0)
    more = by_regions.get(2 * own, "") if own else ""
    about = {"paper": "SLViT", "claim": "twice as many regions bring no more", "variant": more, "reference": "slvit"}
    if not more:
        missing = "no variant has twice the K of this profile's SLViT"
        return about | {"metric": "oIoU", "verdict": UNMEASURED, "missing": missing}
    return about | _judged("oIoU", _measured(study, profile, more, "slvit", "oIoU", results), SATURATED)


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
            "verdict": "supported" if saved > 0 else "not supported",
        }
        for paper, text, printed, first, second, size in lines
    ]
    return pd.DataFrame(rows)


def _saving(first: float, second: float) -> float:
    return 100 * (1 - first / second)
