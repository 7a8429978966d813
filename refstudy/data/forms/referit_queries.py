"""ReferIt as lists of queries by region: ``referit_query_<split>.json`` with boxes and image sizes; no masks.

``referit_bbox_*.json``: region to left, top, right, bottom, all inclusive. ``referit_imsize.json``: image to width,
height.
"""

from functools import partial
from pathlib import Path
from typing import Any

from refstudy.base.errors import StudyError
from refstudy.data.entries import Entries, Found, image_folder, numbered
from refstudy.data.forms.refer_files import read_json
from refstudy.data.schema import Region, checked

QUERIES = "referit_query_"


def find(root: Path) -> list[Found]:
    """ReferIt (refclef, berkeley), if its lists lie in ``root``."""
    splits = {path.stem.removeprefix(QUERIES): path for path in sorted(root.glob(f"{QUERIES}*.json"))}
    if not splits:
        return []
    return [Found("refclef", "berkeley", "queries and boxes in JSON, no masks", root, partial(_read, root, splits))]


def _read(root: Path, splits: dict[str, Path]) -> Entries:
    entries = Entries([], [], [], image_folder(root, "refclef"), root, root)
    sizes = _mapping(root / "referit_imsize.json")
    boxes: dict[str, Any] = {}
    for path in sorted(root.glob("referit_bbox_*.json")):
        boxes |= _mapping(path)
    images: dict[int, dict] = {}
    sentences = 0
    for split, path in splits.items():
        for region, expressions in _mapping(path).items():
            image = region.split("_")[0]
            with entries.reading(path, region):
                known = {"image": image, "box": boxes.get(region), "size": sizes.get(f"{image}.jpg")}
                about = checked(Region, known)
                image_id, (width, height), (left, top, right, bottom) = about.image, about.size, about.box
                images[image_id] = {"id": image_id, "file_name": f"{image_id}.jpg", "height": height, "width": width}
                box = (left, top, right - left + 1, bottom - top + 1)
                ref = {"ref_id": region, "ann_id": region, "image_id": image_id, "category_id": 0, "split": split}
                queries = numbered(expressions, sentences)
                sentences += len(queries) if isinstance(queries, list) else 0
                entries.annotations.append({"id": region, "image_id": image_id, "bbox": box, "segmentation": []})
                entries.refs.append(ref | {"sentences": queries})
    entries.images = list(images.values())
    return entries


def _mapping(path: Path) -> dict[str, Any]:
    content = read_json(path)
    if not isinstance(content, dict):
        raise StudyError(f"{path}: holds no regions or images by name; fetch it again")
    return content
