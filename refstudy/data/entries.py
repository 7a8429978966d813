"""REFER's own entries, which every form of the data is read into, and the one step that makes a table of them."""

import itertools
import os
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PureWindowsPath
from typing import Any, Literal

import pandas as pd

from refstudy.base.config import SentenceField
from refstudy.base.errors import StudyError

COLUMNS = (
    "sent_id ref_id ann_id image_id split category_id category expression words kind "
    "image_path height width bbox area segmentation"
).split()
MOST_PIXELS = 2**28  # of an image; larger sizes are refused before anything of that size is made

# Where REFER, and people, keep the pictures: relative to the root, tried in this order; then at any place two deep.
COCO_FOLDERS = ("images/mscoco/images/train2014", "images/train2014", "train2014")
SAIAPR_FOLDERS = ("images/saiapr_tc-12", "saiapr_tc-12")
IMAGE_FOLDERS = {"refclef": SAIAPR_FOLDERS}  # every other dataset is drawn on COCO


@dataclass(frozen=True)
class Problem:
    """Something wrong with the data (``problem``) or worth knowing (``note``): its kind, the entry, one line."""

    kind: str
    entry: str
    message: str
    level: Literal["problem", "note"] = "problem"


@dataclass
class Entries:
    """One data set, not yet checked: REFER's referents and COCO's images, annotations and categories.

    ``source`` and ``instances`` are the files that messages name; image names are relative to ``image_folder``.
    A form without masks has empty segmentations, one without image sizes gives 0 for height and width. ``problems`` are
    those that the reader met itself.
    """

    refs: list[Any]
    images: list[Any]
    annotations: list[Any]
    image_folder: Path
    source: Path
    instances: Path
    categories: list[Any] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def add_broken(self, path: Path, row: int | str, error: Exception) -> None:
        """Note that a row of a file could not be read."""
        self.problems.append(Problem("broken row", f"row {row}", f"{path}: row {row}: {error!r}; fetch it again"))


@dataclass(frozen=True)
class Found:
    """A data set that lies somewhere, in one of the forms, and how to read it."""

    dataset: str
    split_by: str
    form: str
    path: Path
    read: Callable[[], Entries]


UNREADABLE = "?"  # the partition of a file that is there but does not read


def unreadable(dataset: str, form: str, path: Path, error: StudyError) -> Found:
    """A data set whose file is broken: found, and reading it raises."""

    def read() -> Entries:
        raise error

    return Found(dataset, UNREADABLE, form, path, read)


def dataset_name(folder: str) -> str:
    """The data set that a folder of this name holds: ``RefCOCOplus`` is refcoco+."""
    return folder.lower().replace("plus", "+")


def image_folder(root: Path, dataset: str) -> Path:
    """The folder of the pictures, the first of the known ones that exists; without any, where to put them."""
    known = IMAGE_FOLDERS.get(dataset, COCO_FOLDERS)
    folders = (root / name for name in (f"{dataset}/images", *known))
    deeper = (folder for depth in ("*", "*/*") for folder in sorted(root.glob(f"{depth}/{known[-1]}")))
    tried = itertools.chain(folders, deeper, [root / "images"])
    return next((folder for folder in tried if folder.is_dir()), root / "images" / known[-1])


class Pictures:
    """The pictures of a folder by name, however deep they lie in it and whatever the case of their suffix.

    SAIAPR-12 has them in ``00/images`` to ``40/images``; COCO's release of 2017 calls ``COCO_train2014_X.jpg``
    ``X.jpg``.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def find(self, path: Path) -> Path:
        """Find the picture that should be at ``path``; return ``path`` itself when there is none."""
        if path.is_file() or not self.folder.is_dir():
            return path
        name = path.name.lower()
        return self.by_name.get(name) or self.by_name.get(name.removeprefix("coco_train2014_")) or path

    @cached_property
    def by_name(self) -> dict[str, Path]:
        """Every file below the folder by its name in small letters; of several, the least deep, then the first by path.
        Links are not followed."""
        found: dict[str, Path] = {}
        files = (os.path.join(folder, name) for folder, _, names in os.walk(self.folder) for name in names)
        for file in sorted(files, key=lambda file: (file.count(os.sep), file)):
            found.setdefault(os.path.basename(file).lower(), Path(file))
        return found


def inside(folder: Path, name: str, source: Path) -> Path:
    """``folder / name``, unless that leaves the folder: then StudyError naming ``source``, the file that says so."""
    windows = PureWindowsPath(name)
    if Path(name).is_absolute() or windows.anchor or ".." in windows.parts or "\0" in name or not windows.name:
        raise StudyError(f"{source}: file_name {name!r} leads out of {folder}; correct it")
    return folder.joinpath(*windows.parts)


def make_table(
    entries: Entries, report: Callable[[Problem], None], sentence_field: SentenceField = "sent"
) -> pd.DataFrame:
    """One row per expression, with its referent, annotation and image: the columns of ``refer.load_refer``.

    Every broken entry is given to ``report`` and left out; a ``report`` that raises makes the reading strict.
    """
    instances = entries.instances
    for problem in entries.problems:
        report(problem)
    pictures = Pictures(entries.image_folder)
    images = _known(entries.images, "image", lambda image: _about_image(image, pictures, instances), instances, report)
    annotations = _known(entries.annotations, "annotation", _about_annotation, instances, report)
    categories = _known(entries.categories, "category", lambda category: category["name"], instances, report)
    rows = []
    for number, ref in enumerate(entries.refs):
        try:
            shared = _about_ref(ref, images, annotations, entries)
            shared["category"] = categories.get(shared["category_id"], "unknown")
            sentences = list(ref["sentences"])
            if not sentences:
                raise _BrokenEntry(
                    "referent without sentences",
                    f"referent {ref['ref_id']}",
                    f"{entries.source}: referent {ref['ref_id']} has no sentences; remove it or give it some",
                )
        except _BrokenEntry as error:
            report(error.problem)
        except (KeyError, TypeError) as error:
            message = f"{entries.source}: a referent lacks {error}; it is no REFER file"
            report(Problem("broken referent", f"referent {number + 1} of the file", message))
        else:
            rows += _sentences(sentences, shared, entries.source, report, sentence_field)
    return pd.DataFrame(rows, columns=COLUMNS)


class _BrokenEntry(Exception):
    def __init__(self, kind: str, entry: str, message: str):
        self.problem = Problem(kind, entry, message)


def _known(
    items: list[Any], what: str, about: Callable[[Any], Any], source: Path, report: Callable[[Problem], None]
) -> dict[Any, Any]:
    """The known facts about the items of an instances file, by their id."""
    known: dict[Any, Any] = {}
    for number, item in enumerate(items):
        entry = f"{what} {item.get('id', f'number {number + 1}') if isinstance(item, dict) else number + 1}"
        try:
            described = about(item)
            if known.setdefault(item["id"], described) != described:
                message = f"{source}: {entry} is there more than once, and differs; fetch the file again"
                report(Problem(f"duplicate {what} id", entry, message))
        except StudyError as error:
            report(Problem("path outside its folder", entry, str(error)))
        except (KeyError, TypeError) as error:
            report(Problem(f"broken {what}", entry, f"{source}: lacks {error}; it is no COCO instances file"))
        except (ValueError, OverflowError) as error:
            report(Problem(f"broken {what}", entry, f"{source}: {entry}: {error}; fetch it again"))
    return known


def _about_image(image: dict, pictures: Pictures, source: Path) -> dict[str, Any]:
    path = str(pictures.find(inside(pictures.folder, image["file_name"], source)))
    height, width = int(image["height"]), int(image["width"])
    if min(height, width) < 0 or height * width > MOST_PIXELS:
        raise ValueError(f"an image of {height} x {width} pixels is refused")
    return {"image_path": path, "height": height, "width": width}


def _about_annotation(annotation: dict) -> dict[str, Any]:
    about = {key: annotation[key] for key in ("image_id", "segmentation")}
    box = tuple(annotation["bbox"])
    if len(box) != 4:
        raise ValueError(f"bbox has {len(box)} numbers, not x, y, width, height")
    return about | {"bbox": box, "area": float(annotation["area"])}


def _about_ref(ref: dict, images: dict, annotations: dict, entries: Entries) -> dict[str, Any]:
    for key in ("ref_id", "split"):
        if not isinstance(ref[key], Hashable):
            message = f"{entries.source}: a referent has the {key} {ref[key]!r}; it is no REFER file"
            raise _BrokenEntry("broken referent", f"referent {ref['ref_id']}", message)
    found = {}
    for what, known, key in (("image", images, "image_id"), ("annotation", annotations, "ann_id")):
        if ref[key] not in known:
            message = (
                f"{entries.source}: referent {ref['ref_id']} has no {what} {ref[key]} in {entries.instances.name}; "
                "the two files do not belong together"
            )
            raise _BrokenEntry(f"referent without {what}", f"referent {ref['ref_id']}", message)
        found[what] = known[ref[key]]
    if found["annotation"]["image_id"] != ref["image_id"]:
        message = (
            f"{entries.source}: referent {ref['ref_id']} is in image {ref['image_id']}, its annotation "
            f"{ref['ann_id']} in {found['annotation']['image_id']}; the two files do not belong together"
        )
        raise _BrokenEntry("annotation of another image", f"referent {ref['ref_id']}", message)
    about = {key: ref[key] for key in ("ref_id", "ann_id", "split")} | {"category_id": ref.get("category_id", -1)}
    return about | found["annotation"] | found["image"]


def _sentences(
    sentences: list[Any],
    shared: dict[str, Any],
    source: Path,
    report: Callable[[Problem], None],
    sentence_field: SentenceField,
) -> list[dict[str, Any]]:
    rows = []
    for sentence in sentences:
        try:
            number, kind = sentence["sent_id"], sentence.get("kind")
            if sentence_field == "raw" and sentence.get("raw") is None:
                message = f"{source}: sentence {number} has no raw text; set data.sentence_field to sent"
                report(Problem("sentence without raw text", f"sentence {number}", message))
                continue
            text = str(sentence[sentence_field]).strip()
        except (KeyError, TypeError) as error:
            message = f"{source}: a referent lacks {error}; it is no REFER file"
            report(Problem("broken sentence", f"referent {shared['ref_id']}", message))
            continue
        if text:
            rows.append(shared | {"sent_id": number, "expression": text, "words": len(text.split()), "kind": kind})
        else:
            message = f"{source}: sentence {number} is empty; remove it or give it words"
            report(Problem("empty sentence", f"sentence {number}", message))
    return rows
