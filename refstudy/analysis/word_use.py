"""Measure how much masks depend on the words: compare the masks of one picture's expressions.

A model that ignores the words draws one mask per picture, whatever is asked. One that understands draws the same mask
for two expressions of one thing, and disjoint masks for two things. Neither needs the true masks.
"""

from itertools import combinations
from typing import Any

import pandas as pd

from refstudy.analysis.data_names import measured_by
from refstudy.analysis.measures import leave_out, over_pictures, spelled
from refstudy.analysis.rows import recorded
from refstudy.metrics import overlap
from refstudy.study.file import ProfileStudy
from refstudy.training.records import Record

PAIRS = ("same", "other")  # two expressions of one thing; of two things


def word_use(study: ProfileStudy) -> pd.DataFrame:
    """The mean IoU, in percent, of the masks for two expressions of one picture, a line per run; the run that uses
    words least (the highest ``other``) comes first.

    Columns: variant, seed; same (both expressions mean one thing) and other (they mean two), each with its 95 %
    interval over pictures (_low, _high) and the number of pairs (_pairs); pictures, data. Runs whose record keeps no
    masks are left out, and so are pictures without kept masks.
    """
    lines, split = [], study.settings.splits[0]
    for variant, records in recorded(study).items():
        for record in records:
            if found := mask_agreement(record):
                about = {"variant": variant, "seed": record.config.seed, "data": measured_by([record], split)}
                lines.append(about | found)
    columns = ["variant", "seed", *(f"{pair}{end}" for pair in PAIRS for end in ("", "_low", "_high", "_pairs"))]
    table = pd.DataFrame(lines, columns=[*columns, "pictures", "data"])
    return table.sort_values("other", ascending=False, kind="stable", ignore_index=True)


def mask_agreement(record: Record) -> dict[str, Any]:
    """The columns of ``word_use`` for one run, except data; empty when its record keeps no masks."""
    sums = _agreement(record)
    if sums.empty:
        return {}
    found: dict[str, Any] = {"pictures": len(sums)}
    left = pd.DataFrame(leave_out(sums.to_numpy()), columns=sums.columns)
    for pair in PAIRS:
        found[f"{pair}_pairs"] = int(sums[f"{pair}_pairs"].sum())
        found |= spelled(pair, over_pictures(100 * left[pair] / left[f"{pair}_pairs"]), percent=True)
    return found


def _agreement(record: Record) -> pd.DataFrame:
    """A row per picture whose masks the record keeps: of each of ``PAIRS`` the sum of IoU and the number of pairs."""
    masks, counts = record.masks(), record.counts()
    rows = []
    for _, around in counts[counts["sent_id"].isin(list(masks))].groupby("image_id", sort=True):
        row = dict.fromkeys([*PAIRS, *(f"{pair}_pairs" for pair in PAIRS)], 0.0)
        for one, other in combinations(around.itertuples(), 2):
            pair = PAIRS[one.ref_id != other.ref_id]
            first, second = masks[one.sent_id], masks[other.sent_id]
            row[pair] += overlap(first, second) if first.any() or second.any() else 1.0  # two empty ones are equal
            row[f"{pair}_pairs"] += 1
        rows.append(row)
    return pd.DataFrame(rows)
