"""Lists of expressions with boxes: ``<dataset>_<split_by>_<split>.csv``; no masks and no image sizes.

Columns: uid, ref_id, img_id, sent_id, sent, bbox (x, y, width, height).
"""

import csv
import json
import math
import re
from functools import partial
from pathlib import Path

from refstudy.base.errors import StudyError
from refstudy.data.entries import Entries, Found, image_folder

NAME = re.compile(r"(refcoco[+g]?)_(unc|google|umd)_(\w+)\.csv")


def find(root: Path) -> list[Found]:
    """The data sets in ``root`` in this form."""
    files: dict[tuple[str, str], dict[str, Path]] = {}
    for path in sorted(root.glob("refcoco*.csv")):
        if match := NAME.fullmatch(path.name):
            files.setdefault((match[1], match[2]), {})[match[3]] = path
    return [
        Found(dataset, split_by, "boxes in CSV, no masks", root, partial(_read, root, dataset, splits))
        for (dataset, split_by), splits in files.items()
    ]


def _read(root: Path, dataset: str, splits: dict[str, Path]) -> Entries:
    entries = Entries([], [], [], image_folder(root, dataset), root, root)
    refs: dict[int, dict] = {}
    for split, path in splits.items():
        try:
            with open(path, newline="", encoding="utf-8") as file:
                for row in csv.DictReader(file):
                    try:
                        _add_row(row, split, entries, refs)
                    except (KeyError, TypeError, ValueError) as error:
                        entries.add_broken(path, row.get("uid", ""), error)
        except (UnicodeDecodeError, csv.Error) as error:
            raise StudyError(f"{path}: no CSV ({error}); fetch it again") from error
    return entries


def _add_row(row: dict[str, str], split: str, entries: Entries, refs: dict[int, dict]) -> None:
    ref_id, image_id, box = int(row["ref_id"]), int(row["img_id"]), json.loads(row["bbox"])
    sentence = {"sent_id": int(row["sent_id"]), "sent": row["sent"]}
    if ref_id not in refs:
        about = {"ref_id": ref_id, "ann_id": ref_id, "image_id": image_id, "category_id": 0}
        refs[ref_id] = about | {"split": split, "sentences": []}
        entries.refs.append(refs[ref_id])
        annotation = {"id": ref_id, "image_id": image_id, "bbox": box, "area": math.nan, "segmentation": []}
        entries.annotations.append(annotation)
        name = f"COCO_train2014_{image_id:012d}.jpg"
        entries.images.append({"id": image_id, "file_name": name, "height": 0, "width": 0})
    refs[ref_id]["sentences"].append(sentence)
