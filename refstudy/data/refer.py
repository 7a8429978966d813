"""The REFER layout (RefCOCO, RefCOCO+, RefCOCOg, ReferIt, RefScenes) as one table, a row per expression."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from refstudy.errors import StudyError
from refstudy.files import note

# Where REFER, and people, keep the pictures: relative to the root, tried in this order.
COCO_FOLDERS = ("images/mscoco/images/train2014", "images/train2014", "train2014")
SAIAPR_FOLDERS = ("images/saiapr_tc-12", "saiapr_tc-12")
IMAGE_FOLDERS = {"refclef": SAIAPR_FOLDERS}  # every other dataset is drawn on COCO


class PlainUnpickler(pickle.Unpickler):
    """Reads numbers, text, lists and dictionaries, and refuses everything that would name or run code."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it names the global {module}.{name}")

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("it refers to an object outside the file")


def read_pickle(path: Path) -> Any:
    """Plain data from a pickle, Python 2's included. Raises StudyError, and runs nothing, if it holds anything else."""
    try:
        with open(path, "rb") as file:
            return PlainUnpickler(file, encoding="utf-8", errors="replace").load()  # text as Python 2 wrote it
    except OSError:
        raise
    except Exception as error:  # a malformed pickle can make the unpickler raise almost anything
        raise StudyError(f"{path}: refused, {error}; only plain data is read, fetch the file again") from error


def load_refer(root: Path | str, dataset: str, split_by: str) -> pd.DataFrame:
    """All expressions of ``<root>/<dataset>/refs(<split_by>).p`` with their referents, annotations and images.

    Columns: sent_id, ref_id, ann_id, image_id, split, category_id, category, expression, words, kind, image_path,
    height, width, bbox (x, y, width, height), area, segmentation (COCO polygons or RLE). Source of the format: the
    public REFER toolkit's field names.

    Raises StudyError, naming file and entry, for missing files, unknown names, referents without annotation,
    annotations without image, and empty expressions.
    """
    folder = Path(root) / dataset
    if not folder.is_dir():
        known = sorted(p.parent.name for p in Path(root).glob("*/instances.json"))
        raise StudyError(f"{folder}: no such dataset; under {root} there is {', '.join(known) or 'none'}")
    refs_path, instances_path = folder / f"refs({split_by}).p", folder / "instances.json"
    if not refs_path.exists():
        known = sorted(p.name[5:-3] for p in folder.glob("refs(*).p"))
        raise StudyError(f"{refs_path}: not found; split_by '{split_by}' is not one of {', '.join(known) or 'none'}")
    refs = read_pickle(refs_path)
    instances = _read_json(instances_path)
    note("read", folder)
    return _join(refs, instances, refs_path, instances_path, _image_folder(Path(root), dataset))


def _read_json(path: Path) -> dict:
    try:
        return json.loads(path.read_text())
    except FileNotFoundError as error:
        raise StudyError(f"{path}: not found; it comes with the annotations of the data set") from error
    except ValueError as error:
        raise StudyError(f"{path}: not JSON ({error}); fetch it again") from error


def _image_folder(root: Path, dataset: str) -> Path:
    names = (f"{dataset}/images", *IMAGE_FOLDERS.get(dataset, COCO_FOLDERS), "images")
    folders = [root / name for name in names]
    return next((folder for folder in folders if folder.is_dir()), folders[0])


def _join(refs: list[dict], instances: dict, refs_path: Path, instances_path: Path, image_folder: Path) -> pd.DataFrame:
    try:
        images = {image["id"]: _about_image(image, image_folder, instances_path) for image in instances["images"]}
        annotations = {a["id"]: _about_annotation(a) for a in instances["annotations"]}
        categories = {category["id"]: category["name"] for category in instances["categories"]}
    except (KeyError, TypeError) as error:
        raise StudyError(f"{instances_path}: lacks {error}; it is no COCO instances file") from error
    rows = []
    try:
        for ref in refs:
            image = _belonging(images, ref, "image", refs_path, instances_path)
            annotation = _belonging(annotations, ref, "ann", refs_path, instances_path)
            if annotation["image_id"] != ref["image_id"]:
                raise StudyError(
                    f"{refs_path}: referent {ref['ref_id']} is in image {ref['image_id']}, its annotation "
                    f"{ref['ann_id']} in {annotation['image_id']}; the two files do not belong together"
                )
            about_ref = {key: ref[key] for key in ("ref_id", "ann_id", "split", "category_id")}
            category = categories.get(ref["category_id"], "unknown")
            shared = about_ref | annotation | image | {"category": category}
            rows += [shared | _about_sentence(sentence, refs_path) for sentence in ref["sentences"]]
    except (KeyError, TypeError) as error:
        raise StudyError(f"{refs_path}: a referent lacks {error}; it is no REFER file") from error
    columns = (
        "sent_id ref_id ann_id image_id split category_id category expression words kind "
        "image_path height width bbox area segmentation"
    )
    return pd.DataFrame(rows, columns=columns.split())


def _about_image(image: dict, folder: Path, source: Path) -> dict[str, Any]:
    path = str(inside(folder, image["file_name"], source))
    return {"image_path": path, "height": int(image["height"]), "width": int(image["width"])}


def _about_annotation(annotation: dict) -> dict[str, Any]:
    about = {key: annotation[key] for key in ("image_id", "segmentation")}
    return about | {"bbox": tuple(annotation["bbox"]), "area": float(annotation["area"])}


def _about_sentence(sentence: dict, source: Path) -> dict[str, Any]:
    text = str(sentence["sent"]).strip()
    if not text:
        raise StudyError(f"{source}: sentence {sentence['sent_id']} is empty; remove it or give it words")
    kind = sentence.get("kind")
    return {"sent_id": sentence["sent_id"], "expression": text, "words": len(text.split()), "kind": kind}


def _belonging(known: dict, ref: dict, what: str, refs_path: Path, instances_path: Path) -> dict[str, Any]:
    """The image or annotation of a referent. Raises StudyError when the other file has none."""
    found = known.get(ref[f"{what}_id"])
    if found is None:
        name = {"ann": "annotation"}.get(what, what)
        raise StudyError(
            f"{refs_path}: referent {ref['ref_id']} has no {name} {ref[f'{what}_id']} in {instances_path.name}; "
            "the two files do not belong together"
        )
    return found


def inside(folder: Path, name: str, source: Path) -> Path:
    """``folder / name``, unless that leaves the folder: then StudyError naming ``source``, the file that says so."""
    path = folder / name
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise StudyError(f"{source}: file_name '{name}' leads out of {folder}; correct it")
    return path


def read_image(path: Path | str, height: int | None = None, width: int | None = None) -> np.ndarray:
    """A picture as uint8 (height, width, 3).

    Raises StudyError when it is missing, does not decode, or is not of the size that the annotations give.
    """
    try:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))
    except FileNotFoundError as error:
        raise StudyError(f"{path}: image not found; put the images of the data set there") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise StudyError(f"{path}: image does not decode ({error}); fetch it again") from error
    if height is not None and pixels.shape[:2] != (height, width):
        raise StudyError(f"{path}: image is {pixels.shape[:2]}, its annotations say {(height, width)}; fetch it again")
    return pixels
