"""Lists of expressions with boxes: ``<dataset>_<split_by>_<split>.csv``; no masks and no image sizes.

Columns: uid, ref_id, img_id, sent_id, sent, bbox (x, y, width, height), separated by commas, semicolons or tabs.
"""

import csv
import io
import re
from functools import partial
from pathlib import Path
from typing import Any

from refstudy.base.errors import StudyError
from refstudy.base.files import read_text
from refstudy.data.entries import Entries, Found, image_folder
from refstudy.data.schema import BoxRow, checked

NAME = re.compile(r"(refcoco[+g]?)_(unc|google|umd)_(\w+)\.csv")
COLUMNS = {"ref_id", "img_id", "sent_id", "sent", "bbox"}


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
