"""Masks from and to COCO's segmentation forms."""

import re
from functools import reduce
from typing import Any

import numpy as np
import pandas as pd
from pycocotools import mask as coco_mask

from refstudy.errors import StudyError

FARTHEST = 100  # longer sides of its image beyond which a polygon's point is a mistake; pycocotools dies of such points
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


def has_masks(table: pd.DataFrame) -> bool:
    """Whether these data have masks: a form with boxes alone has none at all."""
    return bool(table["segmentation"].map(bool).any())


def _decode_rle(segmentation: Any, height: int, width: int) -> np.ndarray:
    """One RLE as bool (height, width); not by pycocotools, which leaves what short counts do not reach unwritten."""
    if not isinstance(segmentation, dict) or not {"size", "counts"} <= set(segmentation):
        raise StudyError(f"segmentation: neither polygons nor RLE, but {type(segmentation).__name__}")
    if list(segmentation["size"]) != [height, width]:
        raise StudyError(
            f"segmentation: RLE is of size {list(segmentation['size'])}, its image is {[height, width]}; "
            "mask and image do not belong together"
        )
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
    left, top, width, height = coco_mask.toBbox(coco_mask.encode(np.asfortranarray(mask.astype(np.uint8))))
    return int(left), int(top), int(width), int(height)
