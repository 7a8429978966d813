"""Levels and gains of variants with their errors: pictures resampled, the spread over seeds pooled."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

from refstudy.analysis.inference import LEVEL, Estimate, Side, Spread, estimate, pooled
from refstudy.analysis.rows import refuse_unlike, variant_records
from refstudy.metrics import METRICS, THRESHOLDS, iou
from refstudy.study.file import ProfileStudy
from refstudy.training.records import Record

RESAMPLES = 2000
SEED = 20240509  # of the resampling: the same draws for every table, variant and machine

# The numbers of one run, a column per measure: row 0 as measured, then a row per resampling of the pictures.
Sample = Callable[[Record], pd.DataFrame]


@dataclass(frozen=True)
class Ends:
    """The results of a variant's ``runs``: ``values`` are their mean, as a ``Sample``. The ``spread`` of one run is
    pooled over the runs of all variants of the ``family``."""

    values: pd.DataFrame
    runs: int
    family: str
    spread: Spread
    records: tuple[Record, ...] = ()

    def level(self) -> Estimate:
        """The mean itself, Series of measures."""
        return _estimated(self.values, self._side)

    def above(self, other: "Ends") -> Estimate:
        """The gain over another variant, with pictures resampled together. Raises StudyError when the two were measured
        on different data."""
        refuse_unlike([*self.records, *other.records])
        return _estimated(self.values - other.values, self._side, other._side)

    def above_fixed(self, values: pd.DataFrame) -> Estimate:
        """The gain over values that do not depend on a training, with pictures resampled together."""
        return _estimated(self.values - values, self._side)

    def side(self, measure: Any) -> Side:
        """The runs, with the spread of one measure."""
        return Side(self.family, self.runs, Spread(self.spread.variance[measure], self.spread.freedom))

    @property
    def _side(self) -> Side:
        return Side(self.family, self.runs, self.spread)


def _estimated(values: pd.DataFrame, *sides: Side) -> Estimate:
    return estimate(values.iloc[0], values.iloc[1:].var(ddof=0), *sides)


def own_ends(samples: Sequence[pd.DataFrame]) -> Ends:
    """The results of some runs of one variant, whose spread is estimated from these runs alone."""
    return Ends(sum(samples) / len(samples), len(samples), "", pooled([[one.iloc[0] for one in samples]]))


class Measure:
    """Levels and gains of a study's variants by one ``sample``, with the spread over seeds pooled by family.

    ``exact`` is row 0 of ``sample``, computed faster; it returns None for a record without that measure. The
    spread is pooled over all variants that a profile trains, from their recorded runs.
    """

    def __init__(self, study: ProfileStudy, sample: Sample, exact: Callable[[Record], pd.Series | None]):
        self._study, self._sample, self._exact = study, sample, exact
        self._pools: dict[str, dict[str, Spread]] = {}
        self._ends: dict[tuple[str, str], Ends] = {}

    def __call__(self, trainer: str, variant: str, records: Sequence[Record]) -> Ends:
        """The results of a variant that the profile ``trainer`` trains, from its ``records``, at least one."""
        if (trainer, variant) not in self._ends:
            values = sum(map(self._sample, records)) / len(records)
            family = self._study.file.variants[variant].family
            spread = self._pool(trainer).get(family, Spread(values.iloc[0] * np.nan, 0))
            self._ends[trainer, variant] = Ends(values, len(records), f"{trainer}: {family}", spread, tuple(records))
        return self._ends[trainer, variant]

    def _pool(self, trainer: str) -> dict[str, Spread]:
        if trainer not in self._pools:
            study = self._study.beside(trainer)
            groups: dict[str, list[list[pd.Series]]] = {}
            for name in study.variant_names:
                own = [one for record in variant_records(study, name) if (one := self._exact(record)) is not None]
                if len(own) > 1:
                    groups.setdefault(study.file.variants[name].family, []).append(own)
            self._pools[trainer] = {family: pooled(ends) for family, ends in groups.items()}
        return self._pools[trainer]


def metrics_of(study: ProfileStudy, split: str) -> Measure:
    """All metrics of a split, in percent. Expressions of one picture are not independent, so whole pictures are drawn
    (a cluster bootstrap), by draws that depend on their number alone: variants on the same pictures are resampled
    together."""

    def exact(record: Record) -> pd.Series | None:
        return pd.Series(record.metrics[split]) if split in record.metrics else None

    return Measure(study, lambda record: sampled_metrics(record, split), exact)


def sampled_metrics(record: Record, split: str) -> pd.DataFrame:
    """All metrics of one run, in percent; row 0 as measured, then ``RESAMPLES`` resamplings of the split's pictures.
    They say nothing about other trainings."""
    return resampled_counts(record.counts(split))


def resampled_counts(counts: pd.DataFrame) -> pd.DataFrame:
    """The resamplings of ``sampled_metrics``, from the pixel counts of one split, as ``evaluate`` returns them."""
    counts = counts.sort_values("sent_id")
    ious = iou(counts["intersection"], counts["union"])
    per_image = counts[["image_id", "intersection", "union"]].assign(expressions=1, mIoU=ious)
    for threshold in THRESHOLDS:
        per_image[f"P@{threshold}"] = ious > threshold
    sums = per_image.groupby("image_id", sort=True).sum()
    drawn = pd.DataFrame(draws(len(sums)) @ sums.to_numpy(float), columns=sums.columns)
    metrics = drawn[list(METRICS[1:])].div(drawn["expressions"], axis=0)
    metrics.insert(0, "oIoU", drawn["intersection"] / drawn["union"])
    return 100 * metrics


@lru_cache(maxsize=8)
def draws(count: int) -> np.ndarray:
    """The number of times that each of ``count`` images is drawn, (1 + RESAMPLES, count): in row 0 once each."""
    random = np.random.default_rng(SEED)
    return np.vstack([np.ones(count), random.multinomial(count, np.full(count, 1 / count), size=RESAMPLES)])


def interval(values: pd.Series | np.ndarray) -> tuple[float, float]:
    """The percentile interval of resampled values (without row 0, the estimate)."""
    low, high = np.percentile(np.asarray(values)[1:], [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    return float(low), float(high)


def resampled_mean(values: pd.Series, images: pd.Series | np.ndarray) -> pd.Series:
    """The mean of a value of each expression, whose picture ``images`` names: row 0 of all, then by resampling."""
    sums = values.groupby(images).agg(["sum", "count"])
    drawn = draws(len(sums)) @ sums.to_numpy(float)
    return pd.Series(drawn[:, 0] / drawn[:, 1])


def spelled(name: str, found: Estimate | pd.Series, percent: bool = False) -> dict[str, float]:
    """An estimate, or resampled values, as cells of a table: name, name_low and name_high; ``percent`` clips the
    interval to 0 to 100."""
    value, ends = (found.points, found.interval()) if isinstance(found, Estimate) else (found[0], interval(found))
    low, high = np.clip(ends, 0, 100) if percent else ends
    return {name: float(value), f"{name}_low": float(low), f"{name}_high": float(high)}
