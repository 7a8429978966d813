"""Comparison of the numbers that both papers print for the same method."""

from pathlib import Path

import pandas as pd
from pydantic import RootModel

from refstudy.base.yaml_files import read_yaml
from refstudy.papers.printed import SPLITS, load_printed

EPSILON = 1e-9  # of floating point, far below any printed digit


def same_methods() -> dict[str, str]:
    """Load the methods that both papers list: row of SLViT, Table 1 -> row of S²RM, Table I."""
    return read_yaml(Path(__file__).with_name("same_methods.yaml")).checked(RootModel[dict[str, str]]).root


def cross_check() -> pd.DataFrame:
    """Compare the papers for each (method, split) that at least one of them prints, for the methods that both list.

    Columns: method and s2rm_row (its names in SLViT and in S²RM); split; slvit and s2rm (the numbers, NaN where the
    paper prints a dash); difference (slvit - s2rm); verdict ("same", "differs", "SLViT only", "S²RM only");
    slvit_measure and s2rm_measure (what each paper says the number is); s2rm_split_of_slvit (the other split at which
    S²RM prints SLViT's number; a sign of shifted columns). A method that S²RM lists under both measures is compared
    under SLViT's, the overall IoU.
    """
    ours, theirs = load_printed("slvit_table1"), load_printed("s2rm_table1")
    lines = []
    for method, s2rm_row in same_methods().items():
        measures = [measure for measure, row in theirs.index if row == s2rm_row]
        measure = "Overall IoU" if "Overall IoU" in measures else measures[0]
        first, second = ours.loc[method], theirs.loc[(measure, s2rm_row)]
        for split in SPLITS[:9]:
            a, b = float(first[split]), float(second[split])
            if pd.isna(a) and pd.isna(b):
                continue
            if pd.isna(a) or pd.isna(b):
                verdict = "S²RM only" if pd.isna(a) else "SLViT only"
            else:
                verdict = "same" if abs(a - b) < EPSILON else "differs"
            others = [s for s in SPLITS[:9] if s != split and abs(float(second[s]) - a) < EPSILON]
            lines.append((method, s2rm_row, split, a, b, a - b, verdict, "Overall IoU", measure, ", ".join(others)))
    columns = "method s2rm_row split slvit s2rm difference verdict slvit_measure s2rm_measure s2rm_split_of_slvit"
    return pd.DataFrame(lines, columns=columns.split())
