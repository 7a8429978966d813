"""``triples.json``: a few referents of RefCOCO, each with its picture and its mask as image files."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from refstudy.base.errors import StudyError
from refstudy.data.entries import Entries, Found, inside
from refstudy.data.forms.refer_files import read_json
from refstudy.data.masks import encode_mask
from refstudy.data.pictures import opened
from refstudy.data.schema import Triple, checked


def find(root: Path) -> list[Found]:
    """The triples, if they lie in ``root``, under a name of their own: they are a sample, not RefCOCO."""
    path = root / "triples.json"
    return [Found("refcoco_triples", "unc", "triples", root, partial(_read, path))] if path.is_file() else []


def _read(path: Path) -> Entries:
    entries = Entries(path.parent, path, path)
    triples = read_json(path)
    if not isinstance(triples, list):
        raise StudyError(f"{path}: no list of triples; fetch it again")
    for number, triple in enumerate(triples):
        with entries.reading(path, number):
            _add_triple(triple, entries)
    return entries


def _add_triple(triple: dict[str, Any], entries: Entries) -> None:
    files = checked(Triple, triple)
    with opened(path := inside(entries.image_folder, files.mask, entries.source)) as picture:
        values = np.asarray(picture.convert("L"))
    mask = values > 127
    if (most := values.max()) <= 127:
        raise ValueError(f"{path}: no pixel of this mask is above 127, the most is {most}; save it as 0 and 255")
    about = {"id": triple["ann_id"], "image_id": triple["image_id"], "bbox": triple["bbox"], "area": int(mask.sum())}
    size = {"height": triple["height"], "width": triple["width"]}
    sentences = [{"sent_id": number, "sent": text} for number, text in zip(files.sent_ids, files.sents, strict=True)]
    ref = {key: triple[key] for key in ("ref_id", "ann_id", "image_id", "split")}
    if all(image["id"] != triple["image_id"] for image in entries.images):  # each triple brings a picture of its own
        entries.images.append(size | {"id": triple["image_id"], "file_name": files.image})
    entries.annotations.append(about | {"segmentation": encode_mask(mask)})
    entries.refs.append(ref | {"category_id": 0, "sentences": sentences})
