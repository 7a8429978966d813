"""Seeds alone: how far runs that are equal but for their seed end apart, and what one would have made of that."""

import numpy as np
import pandas as pd
from scipy import stats

from refstudy.analysis.inference import pooled
from refstudy.analysis.rows import seed_records
from refstudy.study.file import ProfileStudy


def runs_by_seed(study: ProfileStudy) -> pd.DataFrame:
    """Every recorded run of the profile on its first split, the pilot's among them: variant, seed, oIoU in percent."""
    split, lines = study.settings.splits[0], []
    for variant in study.file.variants:
        for record in seed_records(study, variant, (*study.seeds(variant), *study.settings.pilot)):
            lines.append((variant, record.config.seed, record.metrics[split]["oIoU"]))
    return pd.DataFrame(lines, columns=["variant", "seed", "oIoU"])


def seed_pairs(runs: pd.DataFrame) -> pd.DataFrame:
    """Each run against each other one of its own variant, in both directions: variant, seed, other, gain in points."""
    both = runs.merge(runs, on="variant", suffixes=("", "_other")).query("seed != seed_other")
    gain = both["oIoU"] - both["oIoU_other"]
    return both.assign(gain=gain)[["variant", "seed", "seed_other", "gain"]].rename(columns={"seed_other": "other"})


def seed_spread(runs: pd.DataFrame) -> float:
    """The standard deviation of one run over seeds, pooled over variants; NaN where none has two runs."""
    groups = [some["oIoU"].tolist() for _, some in runs.groupby("variant")]
    return float(np.sqrt(pooled(groups).variance))


def chance_of_gain(spread: float, seeds: int, gain: float) -> float:
    """The chance that a module without any gain comes out better by ``gain`` points or more, in means of ``seeds`` runs
    a side, if runs scatter normally with this ``spread``."""
    return float(stats.norm.sf(gain, scale=spread * np.sqrt(2 / seeds)))
