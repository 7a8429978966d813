"""Kendall's tau of printed and measured numbers: against SciPy's, within tables, with an interval that covers."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from refstudy.analysis.agreement import FEWEST, RANKED, kendall, rank_agreement, ranked_rows, row_pairs
from refstudy.analysis.table_files import write_table

from .helpers import STUDY, put


def rows_of(printed, measured, table="t", error=0.0):
    return pd.DataFrame(
        {"table": table, "printed": printed, "measured": measured, "error": error}, dtype=object
    ).astype({"printed": float, "measured": float, "error": float})


def test_one_table_without_ties_has_the_tau_of_scipy():
    random = np.random.default_rng(0)
    for _ in range(20):
        printed, measured = random.normal(size=(2, 11))
        assert kendall(rows_of(printed, measured))[0] == pytest.approx(stats.kendalltau(printed, measured).statistic)


def test_rows_of_two_tables_are_not_compared():
    """In either table the order is turned round; between them it is not."""
    one, other = rows_of([1, 2, 3], [3, 2, 1], "a"), rows_of([11, 12, 13], [13, 12, 11], "b")
    assert kendall(pd.concat([one, other], ignore_index=True))[0] == -1
    unequal = pd.concat([one, rows_of([11, 12], [1, 2], "b")], ignore_index=True)
    assert kendall(unequal)[0] == pytest.approx((-3 + 1) / 4)


def test_what_does_not_differ_in_print_is_left_out():
    assert kendall(rows_of([1, 1.2, 3, 3.1], [2, 1, 4, 3]))[0] == pytest.approx((4 - 2) / 6)
    assert kendall(rows_of([1, 1, 3, 3], [2, 1, 4, 3]))[0] == 1 and np.isnan(kendall(rows_of([5, 5], [1, 2]))).all()


def test_pairs_that_are_near_in_print_can_be_left_out():
    rows = rows_of([1, 1.2, 3, 3.1], [2, 1, 4, 3])
    assert kendall(rows, least=0.5)[0] == 1 and kendall(rows, least=0.15)[0] == pytest.approx((4 - 1) / 5)
    pairs = row_pairs(rows.assign(variant=list("abcd")))
    assert len(pairs) == 6 and (pairs["printed"] > 0).all()
    assert kendall(rows)[0] == pytest.approx(np.sign(pairs["measured"]).mean())


def test_few_rows_and_unknown_errors_have_no_interval():
    few = rows_of(np.arange(FEWEST - 1), np.arange(FEWEST - 1))
    assert kendall(few)[0] == 1 and np.isnan(kendall(few)[1:]).all()
    enough = rows_of(np.arange(FEWEST), np.arange(FEWEST))
    assert kendall(enough, resamples=50) == (1, 1, 1)
    assert np.isnan(kendall(enough.assign(error=[np.nan, *[0.1] * (FEWEST - 1)]))[1:]).all()


def test_seeds_widen_the_interval():
    printed = np.arange(12.0)
    sure, unsure = (kendall(rows_of(printed, printed, error=error), resamples=200) for error in (0.1, 5.0))
    assert sure[0] == unsure[0] == 1 and sure[1] > 0.99 and unsure[1] < 0.7


def test_recorded_rows_stand_with_their_printed_numbers(tmp_path):
    for variant, ends in {
        "tile_concat": (40, 41),
        "s2rm_fpn": (50, 51),
        "s2rm_casg": (60,),
        "casg_no_d123": (30,),
    }.items():
        for seed, end in enumerate(ends):
            put(tmp_path, variant, [end / 100 + 1e-9] * 20, seed=seed)
    rows = ranked_rows(STUDY.under("scenes", tmp_path))
    assert set(rows["table"]) <= set(RANKED) and len(rows) == 2 + 1 + 2 + 2  # of Tables IV, V, VI and VII
    lines = rank_agreement(STUDY.under("scenes", tmp_path))
    assert lines["rows"].tolist() == [2 + 2 + 2, 2 + 2 + 2] and lines["pairs"].tolist() == [3, 3]
    assert lines["tau"].tolist() == [1, 1] and lines["low"].isna().all()
    own = rows[rows["table"] == "s2rm_table4"].set_index("variant")
    assert own["printed"].to_dict() == {"tile_concat": 60.55, "s2rm_fpn": 69.57}
    assert own["measured"].tolist() == pytest.approx([40.5, 50.5])
    assert own["error"].tolist() == pytest.approx([(0.5 / 2) ** 0.5] * 2)
    assert rows[rows["variant"] == "s2rm_casg"]["error"].isna().all()
    ceilings = pd.DataFrame({"stride": [4, 8, 16, 32], "oIoU": [86, 75, 59, 35]})
    write_table(ceilings, tmp_path / "tables", "ceilings")
    assert set(rows["variant"]) - set(ranked_rows(STUDY.under("scenes", tmp_path))["variant"]) == {"casg_no_d123"}
