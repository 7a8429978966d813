"""Masks from and to COCO's segmentation forms."""

import re
from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np
from pycocotools import mask as coco_mask

from refstudy.base.errors import StudyError

if TYPE_CHECKING:
    import pandas as pd

FARTHEST = 100  # times the longer side; a polygon's point beyond is a mistake, and would crash pycocotools
PACKED = re.compile(rb"([P-o]{0,6}[0-O])+")  # compressed counts: digits from "P" on where more follow, from "0" on last


def decode_mask(segmentation: Any, height: int, width: int) -> np.ndarray:
    """A COCO segmentation as bool (height, width).

    Polygons (a list of flat [x, y, ...] lists) are united, so overlapping parts count once; RLE may be compressed or
    not, and a list of them, as ReferIt has it, is united too. Raises StudyError for an RLE of another size or one that
    does not decode, and for anything else that is no segmentation.
    """
    try:
        if isinstance(segmentation, list) and segmentation and not isinstance(segmentation[0], dict):
            if any(not isinstance(part, list) or len(part) < 6 or len(part) % 2 for part in segmentation):
                raise StudyError("segmentation: a polygon needs at least three points, as a flat list [x, y, ...]")
            if not np.abs(np.concatenate(segmentation).astype(float)).max() < FARTHEST * max(height, width):
                raise StudyError("segmentation: a polygon is no number, or far outside its image; fetch it again")
            return coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))).astype(bool)
        parts = segmentation if isinstance(segmentation, list) and segmentation else [segmentation]
        return reduce(np.logical_or, [_decode_rle(part, height, width) for part in parts])
    except StudyError:
        raise
    except (ValueError, TypeError, OverflowError) as error:
        raise StudyError(f"segmentation: does not decode ({error}); fetch the annotations again") from error


def mask_polygons(mask: np.ndarray) -> list[list[int]]:
    """A bool (height, width) mask as COCO polygons, flat lists [x, y, ...] of corners along the edges of its pixels.

    Each is the outline of a part whose pixels touch by their sides; no pixel lies in two. A part with a hole is cut
    from top to bottom at the hole's left end, for a polygon has none. pycocotools decodes them to the same mask.
    """
    padded = np.pad(mask, 1)
    corner = [padded[:-1, :-1], padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]]  # pixels around each grid point
    upper_left, upper_right, lower_left, lower_right = corner
    crossing = (upper_left == lower_right) & (upper_right == lower_left) & (upper_left != upper_right)
    # The outline turns at grid points with one or three pixels set, and at a crossing of two diagonal ones, twice.
    rows, columns = np.nonzero((upper_left ^ upper_right ^ lower_left ^ lower_right) | crossing)
    twice = 1 + crossing[rows, columns]
    rows, columns = np.repeat(rows, twice), np.repeat(columns, twice)
    count = np.arange(len(rows))
    rising = (crossing & upper_right)[rows, columns]  # there the edge to the right belongs with the one upwards
    pairs = np.lexsort((np.where(rising, -count, count), rows, columns)).reshape(-1, 2)
    upright = np.empty_like(count)  # the other end of each vertical edge; that of horizontal ones is count ^ 1
    upright[pairs] = pairs[:, ::-1]
    starts, ends, done, polygons = lower_right[rows, columns], upright.tolist(), bytearray(len(count)), []
    points = np.stack([columns, rows], axis=1).tolist()
    for first in range(len(points)):
        if done[first]:
            continue
        if not starts[first]:  # the upper left corner of an outline lies outside it: it is a hole's
            cut = points[first][0]
            left, right = mask_polygons(mask[:, :cut]), mask_polygons(mask[:, cut:])
            return left + [[v + cut * (k % 2 == 0) for k, v in enumerate(polygon)] for polygon in right]
        polygon, at = [], first
        while not done[at]:
            for one in (at, at ^ 1):
                done[one] = True
                polygon += points[one]
            at = ends[at ^ 1]
        polygons.append(polygon)
    return polygons


def has_masks(table: "pd.DataFrame") -> bool:
    """Tell if these data have masks; a form with boxes alone has none."""
    return bool(table["segmentation"].map(bool).any())


def _decode_rle(segmentation: Any, height: int, width: int) -> np.ndarray:
    """One RLE as bool (height, width). pycocotools is not used: with counts that are too short, it leaves pixels
    unwritten."""
    if not isinstance(segmentation, dict) or not {"size", "counts"} <= set(segmentation):
        raise StudyError(f"segmentation: neither polygons nor RLE, but {type(segmentation).__name__}")
    if (size := list(segmentation["size"])) != [height, width]:
        remedy = "mask and image do not belong together"
        raise StudyError(f"segmentation: RLE is of size {size}, its image is {[height, width]}; {remedy}")
    counts = segmentation["counts"]
    if isinstance(counts, str | bytes):
        counts = _unpacked(counts.encode() if isinstance(counts, str) else counts)
    if sum(counts) != height * width:
        raise StudyError(f"segmentation: RLE counts sum to {sum(counts)}, not {height * width} pixels")
    return np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(width, height).T


def _unpacked(packed: bytes) -> list[int]:
    """Compressed counts as numbers, as COCO's maskApi.c packs them: in base 32 with two's complement, and from the
    fourth on as the difference to the one two before. Raises ValueError for anything else."""
    if not PACKED.fullmatch(packed):
        raise ValueError("its counts are not compressed as COCO does")
    counts: list[int] = []
    number = shift = 0
    for character in packed:
        digit = character - 48
        number |= (digit & 31) << shift
        shift += 5
        if digit < 32:  # the last of a number, which is negative from 16 on
            number -= (digit >= 16) << shift
            counts.append(number + (counts[-2] if len(counts) > 2 else 0))
            number = shift = 0
    return counts


def encode_mask(mask: np.ndarray) -> dict[str, Any]:
    """A bool (height, width) mask as compressed RLE that JSON can hold."""
    rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": [int(side) for side in rle["size"]], "counts": rle["counts"].decode()}


def mask_box(mask: np.ndarray) -> tuple[int, int, int, int] | None:
    """(x, y, width, height) in pixels of the smallest box around a bool (height, width) mask; None for an empty one."""
    if not mask.any():
        return None
    left, top, width, height = coco_mask.toBbox(encode_mask(mask))
    return int(left), int(top), int(width), int(height)
