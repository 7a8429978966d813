"""Does the study repeat itself? The gain of one variant over another with fresh seeds, beside the interval foretold."""

import numpy as np
import pandas as pd

from refstudy.analysis.inference import estimate
from refstudy.analysis.measures import metrics_of
from refstudy.analysis.rows import seed_records, variant_records
from refstudy.metrics import METRICS
from refstudy.study.file import ProfileStudy

COLUMNS = "variant reference metric runs reference_runs gain low high fresh_runs fresh inside missing".split()


def replication(study: ProfileStudy) -> pd.DataFrame:
    """Foretell the gain between the two variants of ``fresh_seeds``, the first over the second, and say what it came
    out as; no line while one of them has no run that counts.

    Columns: variant, reference; metric (overall IoU on the first split); runs, reference_runs that count, and their
    gain in points; low, high, the 95 % prediction interval of the gain with fresh seeds; fresh_runs, recorded on the
    side that has fewer; fresh, their gain, and inside ("yes" or "no": whether the interval holds it), both empty until
    all are recorded; missing, the command that trains the others.
    """
    planned, split, metric = study.settings.fresh_seeds, study.settings.splits[0], METRICS[0]
    counted = {name: variant_records(study, name) for name in planned}
    if not planned or not all(counted.values()):
        return pd.DataFrame(columns=COLUMNS)
    own, other = (metrics_of(study, split)(study.profile, name, records) for name, records in counted.items())
    gain = own.above(other)[metric].points
    # Both means err, that of the runs that count and that of the fresh ones. The pictures are the same.
    sides = []
    for ends, seeds in zip((own, other), planned.values(), strict=True):
        sides += [ends.side(metric), ends.side(metric)._replace(runs=len(seeds))]
    low, high = estimate(gain, 0.0, *sides).interval()
    found = {name: seed_records(study, name, seeds) for name, seeds in planned.items()}
    fresh, inside, missing = np.nan, "", ""
    if any(len(found[name]) < len(seeds) for name, seeds in planned.items()):
        asked = [f"--variant {name}" for name in planned]
        asked += [f"--seed {seed}" for seed in sorted(set().union(*planned.values()))]
        missing = f"refstudy train --profile {study.profile} {' '.join(asked)}"
    else:
        first, second = (np.mean([one.metrics[split][metric] for one in records]) for records in found.values())
        fresh = float(first - second)
        inside = "yes" if low <= fresh <= high else "no"
    fewest = min(map(len, found.values()))
    line = (*planned, metric, own.runs, other.runs, gain, low, high, fewest, fresh, inside, missing)
    return pd.DataFrame([line], columns=COLUMNS)
