"""Overall IoU, mean IoU and precision at IoU thresholds, from per-expression pixel counts."""

import numpy as np
from numpy.typing import ArrayLike

from refstudy.base.errors import StudyError

THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)
METRICS = ("oIoU", "mIoU", *(f"P@{threshold}" for threshold in THRESHOLDS))


def iou(intersection: ArrayLike, union: ArrayLike) -> np.ndarray:
    """IoU per expression, in 0..1; 0 where the union is empty. Raises StudyError for impossible counts."""
    inter, whole = np.asarray(intersection, np.float64), np.asarray(union, np.float64)
    if inter.shape != whole.shape or inter.ndim != 1 or not len(inter):
        both = f"intersection {inter.shape} and union {whole.shape}"
        raise StudyError(f"metrics: {both} must be equally long and not empty")
    if (inter < 0).any() or (inter > whole).any():
        raise StudyError("metrics: every intersection must lie between 0 and its union")
    return np.divide(inter, whole, out=np.zeros_like(inter), where=whole > 0)


def overlap(mask: np.ndarray, truth: np.ndarray) -> float:
    """IoU, in 0..1, of two bool masks (H, W); 0 where both are empty."""
    return float(iou([(mask & truth).sum()], [(mask | truth).sum()])[0])


def summarize(intersection: ArrayLike, union: ArrayLike) -> dict[str, float]:
    """All metrics in percent, from pixel counts with one entry per expression.

    oIoU is summed intersections over summed unions, mIoU the mean of the expressions' IoU, P@X the share of
    expressions whose IoU exceeds X. Source: S²RM, Sec. IV-A.
    """
    ious = iou(intersection, union)
    total = float(np.sum(union))
    overall = float(np.sum(intersection)) / total if total else 0.0
    precision = {f"P@{threshold}": 100 * float((ious > threshold).mean()) for threshold in THRESHOLDS}
    return {"oIoU": 100 * overall, "mIoU": 100 * float(ious.mean())} | precision
