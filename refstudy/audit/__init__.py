"""The papers held against their own tables, and against each other: no data, no model."""

import pandas as pd

from refstudy.audit import s2rm, slvit
from refstudy.audit.claim import judge
from refstudy.audit.cross import MATCHES, cross_check

__all__ = ["MATCHES", "claims", "cross_check"]

PAPERS = {"S²RM": s2rm.SENTENCES, "SLViT": slvit.SENTENCES}
COLUMNS = "paper place quotation claim kind claimed recomputed difference agrees verdict note"


def claims() -> pd.DataFrame:
    """Every claim of both papers that their printed tables can confirm or contradict, in the order of the papers.

    Columns: paper, place, quotation; claim (what it is about), kind; claimed (as printed), recomputed, difference;
    agrees (by the rounding of the printed digits), verdict (``judge``), note (on the cause).
    """
    lines = []
    for paper, sentences in PAPERS.items():
        for sentence in sentences:
            for claim in sentence.claims:
                recomputed = claim.recompute()
                difference, verdict = judge(claim.claimed, recomputed)
                place = (paper, sentence.place, sentence.quotation)
                numbers = (claim.claimed, round(recomputed.value, 9), round(difference, 9))
                judged = (verdict == "agrees", verdict, claim.note)
                lines.append((*place, claim.what, recomputed.kind, *numbers, *judged))
    return pd.DataFrame(lines, columns=COLUMNS.split())
