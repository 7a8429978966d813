"""Agreement of the study's order of modules with the papers': Kendall's tau of printed and measured overall IoU.

A gain is over a row of its own table, so only rows of one table are compared, the reference row among them: a pair
agrees when the row that is better in print is better here.
"""

from itertools import combinations

import numpy as np
import pandas as pd

from refstudy.analysis.claims import grid_decides
from refstudy.analysis.inference import LEVEL
from refstudy.analysis.measures import metrics_of
from refstudy.analysis.rows import table_rows
from refstudy.analysis.tables import TABLES
from refstudy.metrics import METRICS
from refstudy.papers.printed import printed_rows
from refstudy.study.file import ProfileStudy

# Tables whose rows differ in a module. The two rows of SLViT's Table 2(c) stand in its Table 2(e) as well.
RANKED = tuple(stem for stem in TABLES if stem not in ("s2rm_table2", "slvit_table2c"))
FEWEST = 8  # rows that an interval needs
RESAMPLES, SEED = 2000, 20240509  # of the bootstrap
PRINTED_SPREAD = 0.5  # points by which runs of LAVT differ, its authors say (README of yz93/LAVT-RIS, issue 8)


def ranked_rows(study: ProfileStudy) -> pd.DataFrame:
    """The rows of the papers' ablations that are recorded, on the profile's first split.

    Columns: table, row, variant, runs; printed and measured overall IoU in percent; error, the standard error that the
    seeds give the measured one (NaN where their spread is unknown). Rows whose grid cannot reach ``REACH`` are left
    out: they rank grids.
    """
    split, metric = study.settings.splits[0], METRICS[0]
    ends_of = metrics_of(study, split)
    lines = []
    for stem in RANKED:
        printed = printed_rows(stem)
        for name, row in table_rows(stem, study).items():
            if row.records and not grid_decides(study, row.variant):
                ends = ends_of(row.profile, row.variant, row.records)
                error = (ends.spread.variance[metric] / ends.runs) ** 0.5
                numbers = (printed.loc[name, metric], ends.level().points[metric], error)
                lines.append((stem, name, row.variant, ends.runs, *numbers))
    return pd.DataFrame(lines, columns="table row variant runs printed measured error".split())


def row_pairs(rows: pd.DataFrame) -> pd.DataFrame:
    """The pairs of ``ranked_rows`` of one table that differ in print, the row that is better in print first.

    Columns: table, better, worse (variants); printed and measured, the first row's overall IoU less the second's, in
    points; error, the standard error that the seeds give the measured difference.
    """
    lines = []
    for stem, own in rows.groupby("table", sort=False):
        for one, other in combinations(own.sort_values("printed", ascending=False).itertuples(), 2):
            if (printed := one.printed - other.printed) > 0:
                error = (one.error**2 + other.error**2) ** 0.5
                lines.append((stem, one.variant, other.variant, printed, one.measured - other.measured, error))
    return pd.DataFrame(lines, columns="table better worse printed measured error".split())


def rank_agreement(study: ProfileStudy) -> pd.DataFrame:
    """Kendall's tau of a profile's ``ranked_rows``: a line for all pairs, and one for those that differ in print by
    ``PRINTED_SPREAD`` or more. Columns: least (points), tau, low, high (NaN as in ``kendall``), pairs, rows."""
    rows = ranked_rows(study)
    rows, apart = rows[rows["table"].duplicated(keep=False)], row_pairs(rows)["printed"]
    lines = []
    for least in (0.0, PRINTED_SPREAD):
        tau, low, high = kendall(rows, least=least)
        lines.append((least, tau, low, high, (apart >= least).sum(), len(rows)))
    return pd.DataFrame(lines, columns="least tau low high pairs rows".split())


def kendall(rows: pd.DataFrame, resamples: int = RESAMPLES, least: float = 0.0) -> tuple[float, float, float]:
    """Kendall's tau over the pairs of rows of one table that differ in print, of all tables together, with its 95 %
    interval; NaN without such a pair.

    Args:
        rows: columns table, printed, measured and error, as ``ranked_rows`` has them.
        resamples: draws of the bootstrap.
        least: points by which a pair must differ in print to be counted.

    The interval is by bootstrap: rows are drawn anew within their tables, and each measured number is moved by its
    error. It is NaN of fewer than ``FEWEST`` rows, or where an error is unknown.
    """
    table, printed, measured, error = (rows[name].to_numpy() for name in ("table", "printed", "measured", "error"))
    estimate = _tau(table, printed, measured, least)
    if len(rows) < FEWEST or np.isnan(error).any() or np.isnan(estimate):
        return estimate, np.nan, np.nan
    random, places = np.random.default_rng(SEED), list(rows.groupby("table", sort=True).indices.values())
    drawn = []
    for _ in range(resamples):
        moved = random.normal(measured, error)
        some = np.concatenate([random.choice(own, len(own)) for own in places])
        drawn.append(_tau(table[some], printed[some], moved[some], least))
    low, high = np.nanquantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return estimate, float(low), float(high)


def _tau(table: np.ndarray, printed: np.ndarray, measured: np.ndarray, least: float) -> float:
    """Pairs that agree minus pairs that disagree, divided by all pairs within a table that differ in print, by
    ``least`` points at least."""
    apart = np.triu(printed[:, None] - printed)
    counted = np.triu(table[:, None] == table, k=1) & (apart != 0) & (np.abs(apart) >= least)
    agree = np.sign(apart) * np.sign(measured[:, None] - measured)
    return float(agree[counted].mean()) if counted.any() else np.nan
