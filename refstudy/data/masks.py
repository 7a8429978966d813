"""Masks from and to COCO's segmentation forms."""

from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from refstudy.errors import StudyError


def decode_mask(segmentation: Any, height: int, width: int) -> np.ndarray:
    """A COCO segmentation as bool (height, width).

    Polygons (a list of flat [x, y, ...] lists) are united, so overlapping parts count once; RLE may be compressed or
    not. Raises StudyError for an RLE of another size and for anything else that is no segmentation.
    """
    if isinstance(segmentation, list) and segmentation:
        if any(not isinstance(part, list) or len(part) < 6 or len(part) % 2 for part in segmentation):
            raise StudyError("segmentation: a polygon needs at least three points, as a flat list [x, y, x, y, ...]")
        rle = coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))
    elif isinstance(segmentation, dict) and {"size", "counts"} <= set(segmentation):
        if list(segmentation["size"]) != [height, width]:
            raise StudyError(
                f"segmentation: RLE is of size {list(segmentation['size'])}, its image is {[height, width]}; "
                "mask and image do not belong together"
            )
        rle = segmentation
        if isinstance(rle["counts"], list):
            if sum(rle["counts"]) != height * width:
                raise StudyError(f"segmentation: RLE counts sum to {sum(rle['counts'])}, not {height * width} pixels")
            rle = coco_mask.frPyObjects(rle, height, width)
    else:
        raise StudyError(f"segmentation: neither polygons nor RLE, but {type(segmentation).__name__}")
    return coco_mask.decode(rle).astype(bool)


def encode_mask(mask: np.ndarray) -> dict[str, Any]:
    """A bool (height, width) mask as compressed RLE that JSON can hold."""
    rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": [int(side) for side in rle["size"]], "counts": rle["counts"].decode()}
