"""Inference from few runs: the textbook's numbers, Holm step by step, one verdict for every case."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from refstudy.analysis.inference import (
    ALPHA,
    LOOKS,
    MARGIN,
    POWER,
    Estimate,
    Side,
    Spread,
    estimate,
    holm,
    judge,
    pooled,
    runs_needed,
    second_look,
    smallest_gain,
)

ONE, OTHER = [61.0, 63.5, 62.2, 60.8], [57.9, 60.1, 58.4]


def gain(*families, groups=(ONE, OTHER), pictures=0.0):
    """The gain of ``ONE`` over ``OTHER``; each group's spread is its own, unless they are of one family."""
    pools = {
        name: pooled([own for own, of in zip(groups, families, strict=True) if of == name]) for name in set(families)
    }
    sides = [Side(name, len(own), pools[name]) for name, own in zip(families, groups, strict=True)]
    return estimate(np.mean(groups[0]) - np.mean(groups[1]), pictures, *sides)


@pytest.mark.parametrize("families, equal", [(("fpn", "fpn"), True), (("fpn", "casg"), False)])
def test_without_pictures_a_gain_is_that_of_the_t_tests(families, equal):
    """Student's of one family, Welch's of two."""
    found, expected = gain(*families), stats.ttest_ind(ONE, OTHER, equal_var=equal)
    assert found.p() == pytest.approx(expected.pvalue)
    assert found.freedom == pytest.approx(expected.df)
    interval = expected.confidence_interval(0.9)
    assert found.interval(0.9) == pytest.approx((interval.low, interval.high))


def test_pictures_add_to_the_error_and_not_to_the_degrees_of_freedom():
    alone, both = gain("fpn", "casg"), gain("fpn", "casg", pictures=0.25)
    assert both.error**2 == pytest.approx(alone.error**2 + 0.25)
    assert both.freedom == alone.freedom


def test_where_the_freedom_of_pictures_is_given_it_counts_as_that_of_a_second_family():
    side, pictures = Side("fpn", 3, Spread(6.0, 4)), 5.0
    one, other = estimate(1.0, pictures, side, pictures_freedom=99), estimate(1.0, pictures, side)
    as_family = estimate(1.0, 0.0, side, Side("pictures", 1, Spread(pictures, 99)))
    assert (one.error, one.freedom) == (pytest.approx(as_family.error), pytest.approx(as_family.freedom))
    assert one.freedom == pytest.approx((2 + 5) ** 2 / (2**2 / 4 + 5**2 / 99)) and other.freedom == 4
    assert estimate(1.0, pictures, Side("fpn", 3, Spread(0.0, 4)), pictures_freedom=99).freedom == pytest.approx(99)


@pytest.mark.parametrize("freedom, least", [(2, 0.92), (3, 0.93), (8, 0.94)])
@pytest.mark.parametrize("ratio", [0.25, 0.5, 1, 2, 4])
def test_levels_cover_about_as_often_as_they_say(freedom, least, ratio):
    """Whatever is larger, the error of the seeds (here 1) or of 400 pictures. docs/statistics.md quotes the numbers."""
    random, trials = np.random.default_rng(1), 40_000
    seeds = random.chisquare(freedom, trials) / freedom
    pictures = ratio**2 * random.chisquare(399, trials) / 399
    off = random.normal(size=trials) * (1 + ratio**2) ** 0.5
    low, high = estimate(off, pictures, Side("", 1, Spread(seeds, freedom)), pictures_freedom=399).interval()
    assert least < ((low < 0) & (high > 0)).mean() < 0.957


def test_a_third_row_of_the_family_makes_the_spread_surer():
    spread = pooled([ONE, OTHER, [50.0, 52.0]])
    squares = sum(np.var(own) * len(own) for own in (ONE, OTHER)) + 2
    assert spread == (pytest.approx(squares / 6), 6)
    assert pooled([[3.0], [9.0]]).freedom == 0 and np.isnan(pooled([[3.0], [9.0]]).variance)


def test_measures_side_by_side_are_measured_one_by_one():
    def frame(ends):
        return [pd.Series({"oIoU": end, "mIoU": 2 * end}) for end in ends]

    side = Side("fpn", 4, pooled([frame(ONE), frame(OTHER)]))
    together = estimate(pd.Series({"oIoU": 1.0, "mIoU": 2.0}), pd.Series({"oIoU": 0.1, "mIoU": 0.4}), side)
    alone = estimate(1.0, 0.1, Side("fpn", 4, pooled([ONE, OTHER])))
    for measure, scale in (("oIoU", 1), ("mIoU", 2)):
        assert together[measure].interval() == pytest.approx([scale * end for end in alone.interval()])


def test_where_nothing_varies_any_gain_is_certain():
    side = Side("fpn", 3, Spread(0.0, 4))
    for points, p in ((5.0, 0.0), (0.0, 1.0)):
        certain = estimate(points, 0.0, side, side)
        assert certain.interval() == (points, points) and certain.p() == p
    only_pictures = estimate(1.0, 0.25, side)
    assert only_pictures.interval() == pytest.approx((1 - 1.96 * 0.5, 1 + 1.96 * 0.5), abs=1e-3)


def test_percentages_are_written_with_their_interval_where_it_is_known():
    half = stats.t.ppf(0.975, 9)
    assert Estimate(50.0, 2.0, 9).percent() == f"50.0 [{50 - 2 * half:.1f}, {50 + 2 * half:.1f}]"
    assert Estimate(1.0, 2.0, 9).percent().startswith("1.0 [0.0, ")
    assert Estimate(31.44, np.nan, 0).percent() == "31.4"


def test_of_an_unknown_spread_nothing_is_known():
    lone = estimate(5.0, 0.1, Side("slvit", 1, Spread(np.nan, 0)), Side("fpn", 3, Spread(1.0, 4)))
    assert np.isnan(lone.error) and np.isnan(lone.interval()).all() and np.isnan(lone.p())


def test_holm_is_the_step_down_of_its_paper():
    assert holm(np.array([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    random = np.random.default_rng(0)
    for _ in range(50):
        p = random.random(7) ** 3
        for alpha in (0.02, 0.05, 0.2, 0.5):
            rejected, left = set(), sorted(range(7), key=lambda k: p[k])
            while left and p[left[0]] <= alpha / len(left):
                rejected.add(left.pop(0))
            assert set(np.flatnonzero(holm(p) <= alpha)) == rejected


@pytest.mark.parametrize("freedom", [2.5, 8, 40, np.inf])
def test_the_smallest_gain_is_found_as_often_as_it_says(freedom):
    smallest = smallest_gain(0.7, freedom, 0.01)
    freedom = min(freedom, 1e6)
    found = stats.nct.sf(stats.t.isf(0.005, freedom), freedom, smallest / 0.7)
    assert found == pytest.approx(POWER, abs=1e-4)


def test_so_many_runs_as_needed_find_the_gain_and_one_fewer_does_not():
    level, own, other = 0.001, Side("fpn", 3, Spread(2.0, 8)), Side("casg", 4, Spread(3.0, 6))
    for sides in ((own, other), (own, own)):
        freedom = [side.spread.freedom for side in sides]
        for points in (6.0, -5.0, 4.0):
            needed = runs_needed(points, 0.2, level, *sides)
            found = []
            for runs in (needed, needed - 1):
                added = [runs - side.runs for side in sides]
                added = [sum(added)] * 2 if sides[0].family == sides[1].family else added
                shares = [side.spread.variance / runs for side in sides]
                grown = [before + more for before, more in zip(freedom, added, strict=True)]
                apart = sum(share**2 / own for share, own in zip(shares, grown, strict=True))
                by = sum(shares) ** 2 / apart if sides[0].family != sides[1].family else grown[0]
                found.append(smallest_gain((0.2 + sum(shares)) ** 0.5, by, level))
            assert found[0] <= abs(points) and (
                found[1] > abs(points) or needed == 1 + max(side.runs for side in sides)
            )
    assert runs_needed(1.0, 0.2, level, own, other) == np.inf  # pictures alone move it too far


def judged(points, error=0.5, freedom=20.0, runs=5, testable=True, margin=MARGIN):
    arrays = np.broadcast_arrays(points, error, freedom, runs, testable)
    own = [np.array(array, dtype) for array, dtype in zip(arrays, (float, float, float, int, bool), strict=True)]
    return judge(Estimate(*own[:3]), *own[3:], margin)


def test_every_verdict_has_its_case():
    found = judged(
        [9, -9, 0.2, 2.4, 0.2, 9, 9, np.nan, 9],
        error=[0.5, 0.5, 0.5, 1.5, 0.5, 0.5, 0.5, np.nan, np.nan],
        runs=[3, 3, 5, 5, 3, 2, 5, 0, 5],
        testable=[True] * 6 + [False] + [True] * 2,
    )
    assert found.verdict.tolist() == [
        "supported",
        "contradicted",
        "equivalent",
        "undecided",
        "undecided",  # three runs a side are too few to be equivalent
        "not judged yet",  # two runs a side are too few for any
        "untestable here",
        "not judged yet",
        "not judged yet",  # nothing is known of the spread over seeds
    ]
    assert np.isfinite(found.smallest).tolist() == [word == "undecided" for word in found.verdict]
    assert np.isnan(found.p).tolist() == [word == "untestable here" for word in found.verdict]


def test_equivalent_is_what_two_one_sided_tests_reject():
    random = np.random.default_rng(1)
    for points, error in zip(random.uniform(-3, 3, 200), random.uniform(0.3, 2, 200), strict=True):
        (verdict,) = judged([points], error, 12).verdict
        below, above = stats.t.sf((MARGIN - points) / error, 12), stats.t.sf((MARGIN + points) / error, 12)
        is_decided = verdict in ("supported", "contradicted")
        assert is_decided or (verdict == "equivalent") == (max(below, above) < ALPHA)
    assert judged([0.0], margin=np.nan).verdict.tolist() == ["undecided"]


def test_each_claim_and_each_look_takes_its_share_of_the_error():
    p = float(stats.t.sf(3.0, 20) * 2)
    for others in (0, 9):
        found = judged([1.5] + [0.0] * others)
        assert found.p[0] == pytest.approx(min(1, len(LOOKS) * p * (1 + others)))
    untestable = judged([1.5] + [0.0] * 9, testable=[True] + [False] * 9)
    assert untestable.p[0] == pytest.approx(len(LOOKS) * p)
    unmeasured = judged([1.5] + [0.0] * 9, runs=[5] + [1] * 9)  # asked beforehand, so it counts
    assert unmeasured.p[0] == pytest.approx(len(LOOKS) * p * 10)


def test_the_smallest_gain_is_of_the_level_that_holm_has_reached():
    found = judged([50.0, 50.0, 1.0, 0.5], freedom=np.inf, runs=3)
    assert found.verdict.tolist() == ["supported", "supported", "undecided", "undecided"]
    assert found.smallest[2] == pytest.approx(smallest_gain(0.5, np.inf, ALPHA / len(LOOKS) / 2))


def test_the_second_look_is_of_both_sides_of_what_is_undecided():
    sides = [("a", "b"), ("b", "c"), ("d", "e")]
    assert second_look(sides, ["undecided", "supported", "not judged yet"]) == {"a", "b"}


def test_further_runs_are_more_than_the_larger_side_has():
    sides = Side("fpn", 3, Spread(1.0, 4)), Side("casg", 5, Spread(1.0, 8))
    assert runs_needed(100.0, 0.0, 0.05, *sides) == 6
