"""Made-up studies, judged by the functions that judge the real one: how often its verdicts are wrong, what they find.

``python benchmarks/simulate_verdicts.py`` prints the tables of docs/statistics.md.
"""

from collections import Counter
from typing import NamedTuple

import numpy as np

from refstudy.analysis.claims import CLAIMS
from refstudy.analysis.inference import (
    ALPHA,
    CONTRADICTED,
    EQUIVALENT,
    LOOKS,
    SUPPORTED,
    Estimate,
    Side,
    Spread,
    Verdicts,
    estimate,
    judge,
    pooled,
    second_look,
    smallest_gain,
)
from refstudy.papers.claims import MARGIN
from refstudy.study.file import Study
from refstudy.study.load import find_study, load_study

# Points of overall IoU, from the pilot's five runs. Seeds: their SD; the pilot has no other family, so all get it.
# Pictures: of one variant, so that a difference has 0.51, as the differences of the pilot's runs have (0.47 to 0.54).
SEED_SD = {"fpn": 1.37, "casg": 1.37, "lavt": 1.37, "slvit": 1.37}
PICTURES_SD = 0.36
PICTURES = 400
WHOLE = ("s2rm_fpn", "s2rm_casg", "slvit")  # rows that most claims are about
STUDIES = 1000
SEED = 20261129


class Design(NamedTuple):
    """The claims' ``sides`` (better, worse), the ``family`` of every row, and the true SD of its runs, ``seed_sd``."""

    sides: list[tuple[str, str]]
    family: dict[str, str]
    seed_sd: dict[str, float]

    def uneven(self, factor: float) -> "Design":
        """The same, where runs of the ``WHOLE`` models lie so many times as far apart as those of their families."""
        return self._replace(seed_sd=self.seed_sd | {row: factor * self.seed_sd[row] for row in WHOLE})


def design(study: Study) -> Design:
    """The design of the study: every claim of the ledger about accuracy."""
    sides = [(claim.better, claim.worse) for claim in CLAIMS]
    family = {row: study.variants[row].family for pair in sides for row in pair}
    return Design(sides, family, {row: SEED_SD[name] for row, name in family.items()})


def made_up(of: Design, gains: np.ndarray, random: np.random.Generator) -> tuple[Verdicts, Verdicts]:
    """The verdicts of one study at both looks, where each claim's true gain is that of ``gains`` (points).

    Every row has three runs at first; those that ``second_look`` names have five at the second.
    """
    pictures = {row: random.normal(0, PICTURES_SD) for row in of.family}
    ends = {row: random.normal(0, sd, LOOKS[-1]) for row, sd in of.seed_sd.items()}
    resampled = 2 * PICTURES_SD**2 * random.chisquare(PICTURES - 1, len(of.sides)) / (PICTURES - 1)
    runs = dict.fromkeys(of.family, LOOKS[0])

    def look() -> Verdicts:
        spreads = {
            family: pooled([ends[row][: runs[row]] for row, own in of.family.items() if own == family])
            for family in set(of.family.values())
        }
        mean = {row: ends[row][:count].mean() + pictures[row] for row, count in runs.items()}
        found = [
            estimate(mean[one] - mean[other], variance, *(_side(of, row, runs, spreads) for row in (one, other)))
            for (one, other), variance in zip(of.sides, resampled, strict=True)
        ]
        points, error, freedom = np.array([(each.points, each.error, each.freedom) for each in found]).T
        fewer = np.array([min(runs[row] for row in pair) for pair in of.sides])
        return judge(Estimate(points + gains, error, freedom), fewer, np.ones(len(found), bool))

    first = look()
    runs |= dict.fromkeys(second_look(of.sides, list(first.verdict)), LOOKS[-1])
    return first, look()


def _side(of: Design, row: str, runs: dict[str, int], spreads: dict[str, Spread]) -> Side:
    return Side(of.family[row], runs[row], spreads[of.family[row]])


def wrong_calls(of: Design, studies: int = STUDIES, seed: int = SEED) -> tuple[int, float]:
    """Count, of studies in which no row differs from another, how many call any claim supported or contradicted, at
    either look; and the share of claims, in percent, that are rightly called equivalent in the end."""
    random, wrong, right = np.random.default_rng([seed, 0]), 0, 0.0
    for _ in range(studies):
        looks = made_up(of, np.zeros(len(of.sides)), random)
        wrong += any(np.isin(look.verdict, (SUPPORTED, CONTRADICTED)).any() for look in looks)
        right += (looks[-1].verdict == EQUIVALENT).mean()
    return wrong, 100 * right / studies


def wrongly_equivalent(of: Design, studies: int = STUDIES, seed: int = SEED) -> float:
    """The share of claims, in percent, called equivalent at either look where every true gain is the margin."""
    random, wrong = np.random.default_rng([seed, 1]), 0.0
    for _ in range(studies):
        looks = made_up(of, np.full(len(of.sides), MARGIN), random)
        wrong += np.any([look.verdict == EQUIVALENT for look in looks], axis=0).mean()
    return 100 * wrong / studies


def found(of: Design, size: float, studies: int = STUDIES, seed: int = SEED) -> tuple[float, float]:
    """The share, in percent, of claims with a true gain of ``size`` SDs over seeds that are supported at the first
    look, and in the end. One claim a study has such a gain, each in its turn; the others have none."""
    random, supported = np.random.default_rng([seed, 2]), np.zeros(2)
    for number in range(studies):
        claim = number % len(of.sides)
        gains = np.zeros(len(of.sides))
        gains[claim] = size * max(of.seed_sd[row] for row in of.sides[claim])
        looks = made_up(of, gains, random)
        supported += [look.verdict[claim] == SUPPORTED for look in looks]
    first, last = 100 * supported / studies
    return float(first), float(last)


def smallest_gains(of: Design) -> dict[tuple[str, ...], list[float]]:
    """By the families of a claim's sides, the gain (points) that is found with a chance of ``POWER`` at each of
    ``LOOKS``, were every spread as in ``SEED_SD`` and no other claim decided."""
    rows = Counter(of.family.values())
    found: dict[tuple[str, ...], list[float]] = {}
    for pair in of.sides:
        families = tuple(sorted(of.family[row] for row in pair))
        found[families] = []
        for runs in LOOKS:
            sides = [Side(name, runs, Spread(SEED_SD[name] ** 2, (runs - 1) * rows[name])) for name in families]
            gain = estimate(0.0, 2 * PICTURES_SD**2, *sides)
            level = ALPHA / len(LOOKS) / len(of.sides)
            found[families].append(float(smallest_gain(gain.error, gain.freedom, level)))
    return found


def planned(of: Design) -> list[str]:
    """The page's table of ``smallest_gains``, line by line."""
    lines = ["| decoders of the two sides | three runs a side | five |", "|---|---|---|"]
    for families, gains in smallest_gains(of).items():
        lines.append(f"| {', '.join(dict.fromkeys(families))} | {gains[0]:.1f} | {gains[1]:.1f} |")
    return lines


def simulated(of: Design, studies: int = STUDIES) -> list[str]:
    """The page's table of what made-up studies call, line by line."""
    (wrong, right), at_margin = wrong_calls(of, studies), wrongly_equivalent(of, studies)
    lines = [
        "| true gains | called | how often |",
        "|---|---|---|",
        f"| none | any claim supported or contradicted, at either look | {wrong} of {studies} studies |",
        f"| none | equivalent, in the end | {right:.0f} % of claims |",
        f"| {MARGIN:.0f} points, the margin | equivalent, at either look | {at_margin:.1f} % of claims |",
    ]
    for factor in (1.5, 2):
        calls, _ = wrong_calls(of.uneven(factor), studies)
        rows = f"none; runs of S²RM + FPN, S²RM + CASG and SLViT lie {factor} times as far apart as others"
        lines.append(f"| {rows} | any claim supported or contradicted, at either look | {calls} of {studies} studies |")
    for size in range(2, 9):
        first, last = found(of, size, studies)
        lines.append(
            f"| {size} SDs over seeds | supported | {first:.0f} % after three seeds, {last:.0f} % in the end |"
        )
    return lines


def main() -> None:
    """Print the page's tables."""
    of = design(load_study(find_study()))
    print("\n".join([*planned(of), "", *simulated(of)]))


if __name__ == "__main__":
    main()
