"""refstudy: a reproducible study of referring image segmentation (S²RM + CASG, SLViT and what they are compared to).

study = refstudy.open("scenes")
study.table("s2rm_table4"), study.record("s2rm_casg", 0), study.model("s2rm_casg"), study.corpus("val")
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from refstudy.analysis.opened import OpenStudy


def open(profile: str = "scenes", study: str = "papermill_runs.yaml", results: str = "") -> "OpenStudy":
    """Open the study under a profile, as ``refstudy.analysis.opened.open_study``; nothing is loaded before."""
    from refstudy.analysis.opened import open_study

    return open_study(profile, study, results)
