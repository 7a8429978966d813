"""Ceilings: what masks that are drawn on coarse cells can score."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from refstudy.base.files import exists, note
from refstudy.data.batches import Corpus
from refstudy.metrics import summarize

STRIDES = (4, 8, 16, 32)  # pixels
LEVELS = 20  # values, from 0 to 1, at which a fitted map is cut
PROJECTIONS = 20  # after the first fit


def ceilings(corpus: Corpus) -> pd.DataFrame:
    """What masks that are drawn on coarse cells can reach, at least: for every referent the best mask that was found on
    cells of ``stride`` pixels a side, upsampled bilinearly, as most models upsample their logits.

    A row for each of ``STRIDES``; columns: ``stride`` and all metrics, in percent.
    """
    lines, refs = [], np.arange(len(corpus.image_of_ref))
    for stride in STRIDES:
        parts = (corpus.mask(some) for some in np.array_split(refs, -(-len(refs) // 64)))
        found = zip(*(_best_counts(torch.from_numpy(truth), stride) for truth in parts), strict=True)
        inter, union = (np.concatenate(counts)[corpus.ref_of_expression] for counts in found)
        lines.append({"stride": stride} | summarize(inter, union))
    return pd.DataFrame(lines)


def _best_counts(truth: Tensor, stride: int) -> tuple[np.ndarray, np.ndarray]:
    """Intersection and union of each mask bool (n, S, S) with the pixels at which ``_fitted`` has at least some value:
    for each mask the value, in twentieths, that gives the best IoU, since a map plus a number is a map too."""
    values, area = _fitted(truth, stride), truth.sum((1, 2)).numpy()
    marked = [values >= k / LEVELS for k in range(1, LEVELS)]
    inter = np.stack([(one & truth).sum((1, 2)).numpy() for one in marked])
    union = np.stack([one.sum((1, 2)).numpy() for one in marked]) + area - inter
    best = (inter / np.maximum(union, 1)).argmax(0)
    return inter[best, np.arange(len(truth))], union[best, np.arange(len(truth))]


def _fitted(truth: Tensor, stride: int) -> Tensor:
    """Maps of coarse cells, upsampled (n, S, S), that are fitted to masks bool (n, S, S): to be 1 or more inside and 0
    or less outside. The least squares fit to 1 and 0, to which the fit of what is still missing is added, over and
    over: alternating projections."""
    cells = torch.eye(-(-truth.shape[-1] // stride), dtype=torch.float64)
    upsample = interpolate(cells[None], size=truth.shape[-1], mode="linear", align_corners=False)[0].T
    fit = torch.linalg.pinv(upsample)
    values, missing = torch.zeros((), dtype=torch.float64), truth.double()
    for _ in range(1 + PROJECTIONS):
        values = values + upsample @ (fit @ missing @ fit.T) @ upsample.T
        missing = torch.where(truth, (1 - values).clamp(min=0), -values.clamp(min=0))
    return values


def read_ceilings(results: Path) -> pd.DataFrame | None:
    """The table of ``ceilings`` in a results folder, by stride; None where there is none yet."""
    path = results / "tables" / "ceilings.csv"
    if not exists(path):
        return None
    note("read", path)
    return pd.read_csv(path).set_index("stride")
