"""The tables of a results folder: how each is computed, and written."""

from collections.abc import Callable
from functools import partial

import pandas as pd

from refstudy.analysis.agreement import rank_agreement
from refstudy.analysis.all_runs import all_runs
from refstudy.analysis.claims import cost_ledger, explanations, ledger
from refstudy.analysis.cost import cost_table, printed_costs
from refstudy.analysis.lengths import kind_table, kinds_by_run, length_curve, length_table
from refstudy.analysis.replication import replication
from refstudy.analysis.table_files import rounded, table_path, write_table
from refstudy.analysis.tables import COMPARISONS, TABLES, build_comparison, build_table
from refstudy.analysis.word_use import word_use
from refstudy.papers.audit import paper_audit
from refstudy.papers.audit.cross_check import cross_check
from refstudy.papers.printed import printed_rows
from refstudy.study.file import PAPERS_SWIN_T, ProfileStudy

TABLE_2 = "s2rm_table2"
# The variants that are compared as whole models, in the order of the papers.
COMPARED = (
    *("tile_concat", "s2rm_fpn", "acm_fpn", "pwam_fpn", "s2rm_casg", "acm_casg", "pwam_casg"),
    *("lavt", "slvit", "slvit_no_urce"),
)


def _claims(study: ProfileStudy) -> pd.DataFrame:
    both = pd.concat([ledger(study), cost_ledger(study.file)], ignore_index=True)
    return both.fillna(dict.fromkeys(("variant", "reference", "elsewhere"), ""))


def _table2(study: ProfileStudy) -> pd.DataFrame:
    """``build_table`` with the printed column Flops, and what ``printed_costs`` counts at the papers' sizes."""
    table, printed = build_table(TABLE_2, study), printed_rows(TABLE_2)["Flops"]
    counted = printed_costs(study.file).query("table == @TABLE_2").set_index("row")
    flops = table.drop_duplicates("row")[["row", "variant"]].assign(metric="G multiply-adds", runs=0, missing="")
    flops["printed"], flops["ours"] = (flops["row"].map(column) for column in (printed, counted["ours"]))
    size = counted["image_size"].astype(str) + " px, text encoder " + counted["text_encoder"]
    flops["minus_printed"], flops["data"] = flops["ours"] - flops["printed"], flops["row"].map(size).fillna("")
    return pd.concat([table, flops], ignore_index=True)


# Table -> how it is computed from a profile's run records, from the printed numbers, or from shapes.
BUILDERS: dict[str, Callable[[ProfileStudy], pd.DataFrame]] = {
    **{stem: partial(build_table, stem) for stem in TABLES},
    **{stem: partial(build_comparison, stem) for stem in COMPARISONS},
    TABLE_2: _table2,
    "s2rm_table3": length_table,
    "length_curve": length_curve,
    "kinds": kind_table,
    "kinds_by_run": kinds_by_run,
    "word_use": word_use,
    "all_runs": all_runs,
    "claims": _claims,
    "explanations": explanations,
    "rank_agreement": rank_agreement,
    "replication": replication,
    "costs": lambda study: cost_table(study.file, PAPERS_SWIN_T, COMPARED),
    "printed_costs": lambda study: printed_costs(study.file),
    "paper_audit": lambda study: paper_audit(),
    "paper_cross_check": lambda study: cross_check(),
}


def write_result(stem: str, study: ProfileStudy) -> pd.DataFrame:
    """Compute one of ``BUILDERS`` and write it into the profile's results; return it with the decimals that it has
    there."""
    table = rounded(BUILDERS[stem](study))
    write_table(table, table_path(study.folder, stem).parent, stem)
    return table
