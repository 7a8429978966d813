"""Masks from and to COCO's segmentation forms."""

from typing import Any

import numpy as np
import pandas as pd
from pycocotools import mask as coco_mask

from refstudy.errors import StudyError

FARTHEST = 100  # longer sides of its image beyond which a polygon's point is a mistake; pycocotools dies of such points


def decode_mask(segmentation: Any, height: int, width: int) -> np.ndarray:
    """A COCO segmentation as bool (height, width).

    Polygons (a list of flat [x, y, ...] lists) are united, so overlapping parts count once; RLE may be compressed or
    not, and a list of them, as ReferIt has it, is united too. Raises StudyError for an RLE of another size or one that
    does not decode, and for anything else that is no segmentation.
    """
    try:
        if isinstance(segmentation, list) and segmentation and isinstance(segmentation[0], dict):
            rle = coco_mask.merge([_checked_rle(part, height, width) for part in segmentation])
        elif isinstance(segmentation, list) and segmentation:
            if any(not isinstance(part, list) or len(part) < 6 or len(part) % 2 for part in segmentation):
                raise StudyError("segmentation: a polygon needs at least three points, as a flat list [x, y, ...]")
            if not np.abs(np.concatenate(segmentation).astype(float)).max() < FARTHEST * max(height, width):
                raise StudyError("segmentation: a polygon is no number, or far outside its image; fetch it again")
            rle = coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))
        else:
            rle = _checked_rle(segmentation, height, width)
        return coco_mask.decode(rle).astype(bool)
    except StudyError:
        raise
    except (ValueError, TypeError, OverflowError) as error:
        raise StudyError(f"segmentation: does not decode ({error}); fetch the annotations again") from error


def has_masks(table: pd.DataFrame) -> bool:
    """Whether these data have masks: a form with boxes alone has none at all."""
    return bool(table["segmentation"].map(bool).any())


def _checked_rle(segmentation: Any, height: int, width: int) -> dict[str, Any]:
    """One RLE in compressed form, known to be of this size."""
    if not isinstance(segmentation, dict) or not {"size", "counts"} <= set(segmentation):
        raise StudyError(f"segmentation: neither polygons nor RLE, but {type(segmentation).__name__}")
    if list(segmentation["size"]) != [height, width]:
        raise StudyError(
            f"segmentation: RLE is of size {list(segmentation['size'])}, its image is {[height, width]}; "
            "mask and image do not belong together"
        )
    counts = segmentation["counts"]
    if not isinstance(counts, list):
        return segmentation
    if sum(counts) != height * width:
        raise StudyError(f"segmentation: RLE counts sum to {sum(counts)}, not {height * width} pixels")
    return coco_mask.frPyObjects(segmentation, height, width)


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
