"""Made-up studies: the verdicts err as seldom as they say, and find what the design is to find."""

import re

import numpy as np
import pytest
from simulate_verdicts import (
    SEED_SD,
    design,
    found,
    made_up,
    planned,
    simulated,
    wrong_calls,
    wrongly_equivalent,
)

from refstudy.analysis.inference import ALPHA, LOOKS, judge

from .helpers import ROOT, STUDY

DESIGN = design(STUDY)
PAGE = (ROOT / "docs" / "statistics.md").read_text()
FEWER = 300  # studies; docs/statistics.md has 1,000


def test_the_design_is_that_of_the_ledger():
    assert len(DESIGN.sides) == 26 and set(DESIGN.family.values()) == set(SEED_SD)


def test_verdicts_are_wrong_as_seldom_as_they_say():
    wrong, equivalent = wrong_calls(DESIGN, FEWER)
    assert wrong <= 0.065 * FEWER
    at_margin = wrongly_equivalent(DESIGN, FEWER)
    assert at_margin <= 6.5
    assert equivalent > 3 * at_margin  # it can be found that nothing is there


def test_a_gain_of_five_seed_deviations_is_found():
    assert found(DESIGN, 5, FEWER)[1] >= 80
    assert found(DESIGN, 2, FEWER)[1] < 50  # which a test that cannot fail would find as well


def test_without_correction_the_verdicts_would_be_wrong_far_more_often(monkeypatch):
    """So the simulation tells a rule that is too bold."""
    monkeypatch.setattr("refstudy.analysis.inference.holm", lambda p: p)
    wrong, _ = wrong_calls(DESIGN, 60)
    assert wrong > 3 * ALPHA * 60


def test_rows_of_the_second_look_get_more_runs_and_others_none(monkeypatch):
    counted = []

    def noted(gains, runs, *others):
        counted.append(runs)
        return judge(gains, runs, *others)

    monkeypatch.setattr("simulate_verdicts.judge", noted)
    gains = np.full(len(DESIGN.sides), 30.0)
    gains[-1] = 0.0  # all are decided at once, but for the last
    made_up(DESIGN, gains, np.random.default_rng(0))
    first, second = counted
    assert set(first) == {LOOKS[0]}
    more = set(DESIGN.sides[-1])
    assert [count == LOOKS[-1] for count in second] == [set(pair) <= more for pair in DESIGN.sides]


def test_the_page_has_the_gains_that_the_design_can_show():
    assert "\n".join(planned(DESIGN)) in PAGE


@pytest.mark.long  # a minute of CPU time
def test_the_page_has_what_a_thousand_studies_call():
    lines = simulated(DESIGN)
    assert "\n".join(lines) in PAGE
    calls, studies = map(int, re.search(r"(\d+) of (\d+) studies", lines[2]).groups())
    assert studies == 1000 and calls <= 65
    assert float(re.search(r"([\d.]+) % of claims", lines[4])[1]) <= 6.5
    assert int(re.search(r"(\d+) % in the end", next(line for line in lines if line.startswith("| 5 SDs")))[1]) >= 80
