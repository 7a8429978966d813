"""Lists of expressions with boxes and without masks: RefCOCO's in CSV, ReferIt's in JSON.

``<dataset>_<split_by>_<split>.csv``, without image sizes: uid, ref_id, img_id, sent_id, sent, bbox (x, y, width,
height), separated by commas, semicolons or tabs.
``referit_query_<split>.json``: region to expressions. ``referit_bbox_*.json``: region to left, top, right, bottom, all
inclusive. ``referit_imsize.json``: image to width, height.
"""

import csv
import io
import re
from functools import partial
from pathlib import Path
from typing import Any

from refstudy.base.errors import StudyError
from refstudy.base.files import read_text
from refstudy.data.entries import Entries, Found, image_folder, numbered
from refstudy.data.forms.refer_files import read_json
from refstudy.data.schema import BoxRow, Region, checked

NAME = re.compile(r"(refcoco[+g]?)_(unc|google|umd)_(\w+)\.csv")
COLUMNS = {"ref_id", "img_id", "sent_id", "sent", "bbox"}
QUERIES = "referit_query_"


def find(root: Path) -> list[Found]:
    """The data sets in ``root`` in these forms; ReferIt as refclef (berkeley)."""
    files: dict[tuple[str, str], dict[str, Path]] = {}
    for path in sorted(root.glob("refcoco*.csv")):
        if match := NAME.fullmatch(path.name):
            files.setdefault((match[1], match[2]), {})[match[3]] = path
    form = "boxes in CSV, no masks"
    found = [Found(*data, form, root, partial(_read_csv, root, data[0], splits)) for data, splits in files.items()]
    if queries := {path.stem.removeprefix(QUERIES): path for path in sorted(root.glob(f"{QUERIES}*.json"))}:
        read = partial(_read_queries, root, queries)
        found.append(Found("refclef", "berkeley", "queries and boxes in JSON, no masks", root, read))
    return found


def _read_csv(root: Path, dataset: str, splits: dict[str, Path]) -> Entries:
    entries = Entries(image_folder(root, dataset), root, root)
    refs: dict[Any, dict] = {}
    for split, path in splits.items():
        text = read_text(path)
        header = text[: text.find("\n")]
        try:
            rows = list(csv.DictReader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=header.count)))
        except csv.Error as error:
            raise StudyError(f"{path}: no CSV ({error}); fetch it again") from error
        if rows and (lacking := COLUMNS - rows[0].keys()):
            raise StudyError(f"{path}: lacks the columns {', '.join(sorted(lacking))}; its first line is {header!r}")
        for number, row in enumerate(rows, 2):
            with entries.reading(path, row.get("uid") or f"number {number}"):
                _add_row(row, split, entries, refs)
    return entries


def _add_row(row: dict[str, str], split: str, entries: Entries, refs: dict[Any, dict]) -> None:
    about = checked(BoxRow, row)
    ref_id, image_id = about.ref_id, about.img_id
    if ref_id not in refs:
        shared = {"ref_id": ref_id, "ann_id": ref_id, "image_id": image_id, "category_id": 0}
        refs[ref_id] = shared | {"split": split, "sentences": []}
        entries.refs.append(refs[ref_id])
        entries.annotations.append({"id": ref_id, "image_id": image_id, "bbox": about.bbox, "segmentation": []})
        name = f"COCO_train2014_{image_id:012d}.jpg"
        entries.images.append({"id": image_id, "file_name": name, "height": 0, "width": 0})
    refs[ref_id]["sentences"].append({"sent_id": row["sent_id"], "sent": row["sent"]})


def _read_queries(root: Path, splits: dict[str, Path]) -> Entries:
    entries = Entries(image_folder(root, "refclef"), root, root)
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
