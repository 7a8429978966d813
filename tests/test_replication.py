"""A gain with fresh seeds: the interval foretold for it, by formula and by trial; no table counts these runs."""

import numpy as np
import pytest
from scipy import stats

from refstudy.analysis.inference import Side, estimate, pooled
from refstudy.analysis.replication import replication
from refstudy.analysis.results import write_result
from refstudy.analysis.seeds import runs_by_seed

from .helpers import STUDY, put

OWN, OTHER = "s2rm_fpn", "tile_concat"


def put_all(folder, variant, ends, first=0):
    for seed, end in enumerate(ends, first):
        put(folder, variant, [end / 100] * 20, seed=seed)


def test_the_interval_is_that_of_the_formula_and_says_whether_it_holds_the_new_gain(tmp_path):
    study = STUDY.under("scenes", tmp_path)
    assert replication(study).empty
    ends = {OWN: (52, 54, 53), OTHER: (50, 51, 50, 51, 50)}
    for variant, own in ends.items():
        put_all(tmp_path, variant, own)
    foretold = replication(study).iloc[0]
    squares = sum(np.var(own, ddof=1) * (len(own) - 1) for own in ends.values())
    error = (squares / 6 * (1 / 3 + 1 / 5 + 2 / 5)) ** 0.5
    gain, half = np.mean(ends[OWN]) - np.mean(ends[OTHER]), stats.t.ppf(0.975, 6) * error
    numbers = foretold[["gain", "low", "high"]].astype(float)
    assert numbers.tolist() == pytest.approx([gain, gain - half, gain + half], abs=0.05)  # of whole pixels
    assert (foretold["runs"], foretold["reference_runs"], foretold["fresh_runs"]) == (3, 5, 0)
    assert np.isnan(foretold["fresh"]) and foretold["inside"] == ""
    wanted = "refstudy train --profile scenes --variant s2rm_fpn --variant tile_concat --seed 5 --seed 6 --seed 7"
    assert foretold["missing"] == f"{wanted} --seed 8 --seed 9"

    put_all(tmp_path, OTHER, [50] * 5, first=5)
    put_all(tmp_path, OWN, [53] * 4, first=5)
    assert np.isnan(replication(study).iloc[0]["fresh"])  # one run is still missing
    for last, fresh, inside in ((53, 3.0, "yes"), (83, 9.0, "no")):
        put_all(tmp_path, OWN, [last], first=9)
        line = replication(study).iloc[0]
        assert (line["fresh_runs"], line["inside"], line["missing"]) == (5, inside, "")
        assert line["fresh"] == pytest.approx(fresh, abs=0.05)
        assert line[["gain", "low", "high"]].equals(foretold[["gain", "low", "high"]])  # fresh runs move none of it


def test_no_table_counts_fresh_runs(tmp_path):
    study = STUDY.under("scenes", tmp_path)
    for variant in (OWN, OTHER):
        put_all(tmp_path, variant, (50, 52))
    stems = ("all_runs", "claims", "rank_agreement", "s2rm_table4")
    before = [write_result(stem, study) for stem in stems], runs_by_seed(study)
    put_all(tmp_path, OWN, [80] * 5, first=5)
    assert all(one.equals(write_result(stem, study)) for one, stem in zip(before[0], stems, strict=True))
    assert runs_by_seed(study).equals(before[1])


def test_it_holds_nineteen_of_twenty_new_gains():
    random, trials, held = np.random.default_rng(0), 4000, 0
    runs = random.normal(
        0, 1.4, (trials, 2, 10)
    )  # five that count and five fresh ones a side, in a family of their own
    for old, new in zip(runs[..., :5], runs[..., 5:], strict=True):
        sides = [Side("fpn", 5, pooled(list(old)))] * 4
        low, high = estimate(old[0].mean() - old[1].mean(), 0.0, *sides).interval()
        held += low <= new[0].mean() - new[1].mean() <= high
    assert held / trials == pytest.approx(0.95, abs=0.015)
