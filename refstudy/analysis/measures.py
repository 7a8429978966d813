"""Levels and gains of variants with their errors: each picture left out in turn, the spread over seeds pooled."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from refstudy.analysis.inference import Estimate, Side, Spread, estimate, pooled
from refstudy.analysis.rows import refuse_unlike, variant_records
from refstudy.metrics import METRICS, THRESHOLDS, iou
from refstudy.study.file import ProfileStudy
from refstudy.training.records import Record

# The numbers of one run, a column per measure: row 0 as measured, then a row per picture, measured without it.
Sample = Callable[[Record], pd.DataFrame]


@dataclass(frozen=True)
class Ends:
    """The results of a variant's ``runs``: ``values`` are their mean, as a ``Sample``. The ``spread`` of one run is
    pooled over the runs of all variants of the ``family``; ``own`` is that of these runs alone."""

    values: pd.DataFrame
    runs: int
    family: str
    spread: Spread
    own: Spread
    records: tuple[Record, ...] = ()

    def level(self) -> Estimate:
        """The mean itself, Series of measures."""
        return _estimated(self.values, self._side)

    def above(self, other: "Ends") -> Estimate:
        """The gain over another variant on the same pictures. Raises StudyError when the two were measured on different
        data."""
        refuse_unlike([*self.records, *other.records])
        return _estimated(self.values - other.values, self._side, other._side)

    def above_fixed(self, values: pd.DataFrame) -> Estimate:
        """The gain over values that do not depend on a training, on the same pictures."""
        return _estimated(self.values - values, self._side)

    def apart(self, family: str) -> "Ends":
        """The same as a ``family`` of its own, without the runs of other variants."""
        return replace(self, family=family, spread=self.own)

    def side(self, measure: Any) -> Side:
        """The runs, with the spread of one measure."""
        return Side(self.family, self.runs, Spread(self.spread.variance[measure], self.spread.freedom))

    @property
    def _side(self) -> Side:
        return Side(self.family, self.runs, self.spread)


def _estimated(values: pd.DataFrame, *sides: Side) -> Estimate:
    many = len(values) - 2 if len(sides) == 1 else None  # of two sides the seeds alone count: docs/statistics.md
    return estimate(values.iloc[0], pictures_variance(values), *sides, pictures_freedom=many)


def pictures_variance(values: Any) -> Any:
    """The variance that another choice of pictures gives the values of a ``Sample``, by the jackknife; NaN where a
    value cannot do without one of them. Source: Efron (1982), The Jackknife, the Bootstrap and Other Resampling Plans,
    Chapter 3."""
    without = values.iloc[1:]
    return (len(without) - 1) * without.var(ddof=0, skipna=False)


def own_ends(samples: Sequence[pd.DataFrame]) -> Ends:
    """The results of some runs of one variant, whose spread is estimated from these runs alone."""
    spread = pooled([[one.iloc[0] for one in samples]])
    return Ends(sum(samples) / len(samples), len(samples), "", spread, spread)


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
            samples = [self._sample(record) for record in records]
            values, own = sum(samples) / len(samples), pooled([[one.iloc[0] for one in samples]])
            family = self._study.file.variants[variant].family
            spread = self._pool(trainer).get(family, Spread(values.iloc[0] * np.nan, 0))
            runs = tuple(records)
            self._ends[trainer, variant] = Ends(values, len(runs), f"{trainer}: {family}", spread, own, runs)
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
    """All metrics of a split, in percent. Expressions of one picture are not independent, so whole pictures are left
    out."""

    def exact(record: Record) -> pd.Series | None:
        return pd.Series(record.metrics[split]) if split in record.metrics else None

    return Measure(study, lambda record: jackknifed_metrics(record, split), exact)


def jackknifed_metrics(record: Record, split: str) -> pd.DataFrame:
    """All metrics of one run, in percent, as a ``Sample``. They say nothing about other trainings."""
    return jackknifed_counts(record.counts(split))


def jackknifed_counts(counts: pd.DataFrame) -> pd.DataFrame:
    """``jackknifed_metrics`` from the pixel counts of one split, as ``evaluate`` returns them."""
    counts = counts.sort_values("sent_id")
    ious = iou(counts["intersection"], counts["union"])
    per_image = counts[["image_id", "intersection", "union"]].assign(expressions=1, mIoU=ious)
    for threshold in THRESHOLDS:
        per_image[f"P@{threshold}"] = ious > threshold
    sums = per_image.groupby("image_id", sort=True).sum()
    left = pd.DataFrame(leave_out(sums.to_numpy(float)), columns=sums.columns)
    metrics = left[list(METRICS[1:])].div(left["expressions"], axis=0)
    metrics.insert(0, "oIoU", left["intersection"] / left["union"])
    return 100 * metrics


def leave_out(sums: np.ndarray) -> np.ndarray:
    """The sums over all pictures (row 0), then over all but each, (1 + n, k), from ``sums`` of each picture, (n, k)."""
    total = sums.sum(0)
    return np.vstack([total, total - sums])


def over_pictures(values: pd.Series) -> Estimate:
    """The estimate of one measure of a ``Sample`` whose only error is the choice of pictures."""
    return Estimate(float(values[0]), float(pictures_variance(values)) ** 0.5, len(values) - 2)


def jackknifed_mean(values: pd.Series, images: pd.Series | np.ndarray) -> pd.Series:
    """The mean of a value of each expression, whose picture ``images`` names, as one measure of a ``Sample``."""
    left = leave_out(values.groupby(images).agg(["sum", "count"]).to_numpy(float))
    return pd.Series(left[:, 0]).div(left[:, 1])


def spelled(name: str, found: Estimate, percent: bool = False) -> dict[str, float]:
    """An estimate as cells of a table: name, name_low and name_high; ``percent`` clips the interval to 0 to 100."""
    low, high = np.clip(found.interval(), 0, 100) if percent else found.interval()
    return {name: float(found.points), f"{name}_low": float(low), f"{name}_high": float(high)}
