"""Statistics of few runs: levels and gains with their errors, and verdicts on many claims at once.

Everything here works on numbers alone, of run records or made up (benchmarks/simulate_verdicts.py). SciPy is loaded by
what computes with it. docs/statistics.md has the formulas and the reasons.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from refstudy.papers.claims import MARGIN

LEVEL = 0.95  # of the intervals that are shown
ALPHA = 0.05  # of all claims and looks together; of each test of equivalence
LOOKS = (3, 5)  # runs a side at the first and at the last look at the verdicts
FAR = 4  # pooled SDs; runs of one row that lie farther apart than this have to be explained
POWER = 0.8  # with which the smallest gain would have been seen
MOST_RUNS = 50  # a side; of a claim that would need more, no number is given

SUPPORTED, CONTRADICTED, EQUIVALENT = "supported", "contradicted", "equivalent"
UNDECIDED, UNTESTABLE, UNMEASURED = "undecided", "untestable here", "not judged yet"


class Spread(NamedTuple):
    """The spread of one run over seeds: its ``variance``, a number or a Series of several measures, with its degrees of
    ``freedom``. NaN, with no freedom, when no variant has two runs."""

    variance: Any
    freedom: int


class Side(NamedTuple):
    """The runs behind one side of an estimate: their number, and their ``family``, which shares one ``spread``."""

    family: str
    runs: int
    spread: Spread


@dataclass(frozen=True)
class Estimate:
    """``points`` with their standard ``error`` and its degrees of ``freedom``; numbers, or Series or arrays of them.
    An unknown error is NaN."""

    points: Any
    error: Any
    freedom: Any

    def __getitem__(self, measure: Any) -> "Estimate":
        """The estimate of one measure."""
        return Estimate(self.points[measure], self.error[measure], self.freedom[measure])

    def interval(self, level: float = LEVEL) -> tuple[Any, Any]:
        """Student's interval (low, high)."""
        from scipy import stats

        half = stats.t.ppf((1 + level) / 2, self.freedom) * self.error
        return self.points - half, self.points + half

    def percent(self) -> str:
        """The numbers as "43.6 [40.5, 46.6]", the interval cut to 0 to 100 and left out where it is unknown."""
        low, high = np.clip(self.interval(), 0, 100)
        return f"{self.points:.1f}" + ("" if np.isnan(low) else f" [{low:.1f}, {high:.1f}]")

    def p(self) -> np.ndarray:
        """The two-sided p-value of no gain; 1 where points and error are both 0, NaN where the error is unknown."""
        from scipy import stats

        points, error = np.abs(np.asarray(self.points, float)), np.asarray(self.error, float)
        with np.errstate(invalid="ignore", divide="ignore"):
            ratio = np.where((points == 0) & (error == 0), 0.0, points / error)
        return 2 * stats.t.sf(ratio, self.freedom)


def pooled(groups: Iterable[Any]) -> Spread:
    """The variance within groups, pooled: the squared distances of each group from its own mean, over the sum of n - 1.
    A group is the sequence of one variant's results, each a number or a Series of several measures."""
    squares: Any = 0.0
    freedom = 0
    for ends in groups:
        mean = sum(ends) / len(ends)
        squares = squares + sum((end - mean) ** 2 for end in ends)
        freedom += len(ends) - 1
    return Spread(squares / freedom if freedom else squares * np.nan, freedom)


def estimate(points: Any, pictures: Any, *sides: Side, pictures_freedom: float | None = None) -> Estimate:
    """A mean over the runs of one side, or the difference of the means of two.

    ``pictures`` is the variance that another choice of pictures gives ``points``. Seeds add their spread over the runs
    of each side; sides of one family share one estimate of it. The degrees of freedom are those of the seeds, of two
    families by Welch and Satterthwaite; those of the pictures are counted with them only where they are given.
    """
    shares: dict[str, float] = {}
    spreads = {side.family: side.spread for side in sides}
    for side in sides:
        shares[side.family] = shares.get(side.family, 0.0) + 1 / side.runs
    parts = [(share * spreads[family].variance, spreads[family].freedom) for family, share in shares.items()]
    seeds = sum(variance for variance, _ in parts)
    with np.errstate(invalid="ignore", divide="ignore"):
        counted = parts if pictures_freedom is None else [*parts, (pictures, pictures_freedom)]
        together = sum(variance for variance, _ in counted) ** 2
        uncertain = sum(np.divide(variance**2, freedom) for variance, freedom in counted)
        freedom = np.divide(np.maximum(together, np.finfo(float).tiny), uncertain)  # infinite where nothing varies
    return Estimate(points, (pictures + seeds) ** 0.5, freedom)


def holm(p: np.ndarray) -> np.ndarray:
    """p-values adjusted for their number: claims with adjusted values of at most alpha are decided, and the chance that
    any of them is wrong is at most alpha. Source: Holm (1979), Scandinavian Journal of Statistics 6, 65-70."""
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


def smallest_gain(error: Any, freedom: Any, level: float) -> np.ndarray:
    """The gain, in points, that a two-sided test at this ``level`` detects with probability ``POWER``, by the
    noncentral t distribution."""
    from scipy import special, stats

    freedom = np.minimum(freedom, 1e6)  # practically infinite
    return special.nctdtrinc(freedom, 1 - POWER, stats.t.isf(level / 2, freedom)) * np.asarray(error)


def runs_needed(points: float, pictures: float, level: float, *sides: Side) -> float:
    """The runs a side with which a test at this ``level`` would find a gain as large as the measured ``points`` with
    probability ``POWER``, from one more on than the ``sides`` have; infinite above ``MOST_RUNS``.

    ``pictures`` is as in ``estimate``. Every further run also adds a degree of freedom to the spread of its family.
    """
    for runs in range(max(side.runs for side in sides) + 1, MOST_RUNS + 1):
        added = {one.family: sum(runs - side.runs for side in sides if side.family == one.family) for one in sides}
        grown = [Spread(side.spread.variance, side.spread.freedom + added[side.family]) for side in sides]
        found = estimate(
            points, pictures, *(Side(side.family, runs, one) for side, one in zip(sides, grown, strict=True))
        )
        if smallest_gain(found.error, found.freedom, level) <= abs(points):
            return runs
    return np.inf


class Verdicts(NamedTuple):
    """Arrays with an entry a claim: ``p`` adjusted for the number of claims and of looks (NaN for an untestable one),
    the ``verdict``, and the ``smallest`` gain that could have been seen (NaN unless the verdict is "undecided"), which
    is tested at the ``level`` that Holm's procedure has reached."""

    p: np.ndarray
    verdict: np.ndarray
    smallest: np.ndarray
    level: float


def judge(gains: Estimate, runs: np.ndarray, testable: np.ndarray, margin: Any = MARGIN) -> Verdicts:
    """Verdicts on claims that a gain is above zero, judged together.

    Args:
        gains: arrays (n,) of points, error and freedom; NaN where nothing was measured.
        runs: (n,), those of the side that has fewer.
        testable: bool (n,). Untestable claims are not counted among those that are judged together; claims that are not
            measured are.
        margin: points, one number or (n,), below which a gain counts as none; NaN where that is not asked.
    """
    points = np.asarray(gains.points, float)
    measured = testable & (runs >= LOOKS[0]) & np.isfinite(gains.error)
    p = np.full(len(points), np.nan)
    p[testable] = np.minimum(1.0, len(LOOKS) * holm(np.where(measured, gains.p(), 1.0)[testable]))
    decided = measured & (p <= ALPHA)
    low, high = gains.interval(1 - 2 * ALPHA)
    equal = (runs >= LOOKS[-1]) & (low > -margin) & (high < margin)
    rules = [~testable, ~measured, decided & (points > 0), decided, equal]
    verdict = np.select(rules, [UNTESTABLE, UNMEASURED, SUPPORTED, CONTRADICTED, EQUIVALENT], UNDECIDED)
    still_open = max(int(np.sum(testable & ~decided)), 1)  # Holm holds the least of their p-values against this level
    level = ALPHA / len(LOOKS) / still_open
    smallest = smallest_gain(gains.error, gains.freedom, level)
    return Verdicts(p, verdict, np.where(verdict == UNDECIDED, smallest, np.nan), level)


def second_look(sides: Sequence[tuple[str, str]], verdict: Sequence[str]) -> set[str]:
    """The rows that are trained with further seeds: both sides of every claim that the first look leaves undecided."""
    return {row for pair, found in zip(sides, verdict, strict=True) if found == UNDECIDED for row in pair}
