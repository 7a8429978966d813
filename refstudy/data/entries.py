"""REFER's own entries, which every form of the data is read into, and the one step that makes a table of them."""

import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING, Any, Literal

from refstudy.base.config import SentenceField
from refstudy.base.errors import StudyError
from refstudy.data import schema

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = (
    "sent_id ref_id ann_id image_id split category_id category expression words kind "
    "image_path height width bbox area segmentation"
).split()
MOST_PIXELS = 2**28  # of an image; larger sizes are refused before anything of that size is made
UNREADABLE = "?"  # the partition of a file that is there but does not read
Report = Callable[["Problem"], None]

# Where REFER, and people, keep the pictures: relative to the root, tried in this order; then at any place two deep.
COCO_FOLDERS = ("images/mscoco/images/train2014", "images/train2014", "train2014")
IMAGE_FOLDERS = {"refclef": ("images/saiapr_tc-12", "saiapr_tc-12")}  # every other dataset is drawn on COCO


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
    A form without masks has empty segmentations, one without image sizes gives 0 for height and width. ``problems``
    are those that the reader found.
    """

    image_folder: Path
    source: Path
    instances: Path
    refs: list[Any] = field(default_factory=list)
    images: list[Any] = field(default_factory=list)
    annotations: list[Any] = field(default_factory=list)
    categories: list[Any] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    @contextmanager
    def reading(self, path: Path, row: int | str) -> Iterator[None]:
        """Read a row of a file; where it is broken, note that and go on."""
        try:
            yield
        except (KeyError, ValueError) as error:
            said = f"lacks {error}" if isinstance(error, KeyError) else str(error)
            self.problems.append(Problem("broken row", f"row {row}", f"{path}: row {row}: {said}"))


@dataclass(frozen=True)
class Found:
    """A data set that lies somewhere, in one of the forms, and how to read it."""

    dataset: str
    split_by: str
    form: str
    path: Path
    read: Callable[[], Entries]


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
        Links to folders are followed, each folder once."""
        files = sorted(_files(self.folder), key=lambda file: (file.count(os.sep), file), reverse=True)
        return {os.path.basename(file).lower(): Path(file) for file in files}  # of one name, the last stays


def _files(top: Path) -> Iterator[str]:
    seen = set[str]()
    for folder, folders, names in os.walk(top, followlinks=True):
        if (real := os.path.realpath(folder)) in seen:
            folders.clear()
            continue
        seen.add(real)
        yield from (os.path.join(folder, name) for name in names)


def inside(folder: Path, name: str, source: Path) -> Path:
    """``folder / name``, unless that leaves the folder: then StudyError naming ``source``, the file that says so."""
    windows = PureWindowsPath(name)
    if Path(name).is_absolute() or windows.anchor or ".." in windows.parts or "\0" in name or not windows.name:
        raise StudyError(f"{source}: file_name {name!r} leads out of {folder}; correct it")
    return folder.joinpath(*windows.parts)


def numbered(texts: Any, first: int = 0) -> Any:
    """Sentences with new numbers; anything but a list stays as it is, and ``make_table`` reports it."""
    return [{"sent_id": first + k, "sent": text} for k, text in enumerate(texts)] if isinstance(texts, list) else texts


def make_table(entries: Entries, report: Report, sentence_field: SentenceField = "sent") -> "pd.DataFrame":
    """One row per expression, with its referent, annotation and image: the columns of ``refer.load_refer``.

    Every entry that is not as ``refstudy.data.schema`` has it is given to ``report`` and left out; what depends on it
    is left out without another word. A ``report`` that raises makes the reading strict.
    """
    import pandas as pd  # what only looks for data needs none of it

    for problem in entries.problems:
        report(problem)
    pictures, instances = Pictures(entries.image_folder), entries.instances
    read = partial(_known, source=instances, report=report)
    images = read(entries.images, schema.Image, lambda image: _about_image(image, pictures, instances))
    annotations = read(entries.annotations, schema.Annotation, vars)
    categories = read(entries.categories, schema.Category, vars)
    rows: list[dict[str, Any]] = []
    for number, raw in enumerate(entries.refs, 1):
        entry = schema.name_of("referent", raw, "ref_id", number)
        where = f"{entries.source}: {entry}"
        try:
            ref = schema.checked(schema.Referent, raw)
        except ValueError as error:
            report(Problem("broken referent", entry, f"{where}: {error}"))
            continue
        if misfit := _misfit(ref, images, annotations, instances.name):
            report(Problem(misfit[0], entry, f"{where} {misfit[1]}; the two files do not belong together"))
        elif (image := images.get(ref.image_id)) and (annotation := annotations.get(ref.ann_id)):
            category_id = -1 if ref.category_id is None else ref.category_id
            category = categories.get(category_id) or {"name": "unknown"}
            shared = {"ref_id": ref.ref_id, "ann_id": ref.ann_id, "split": ref.split} | annotation | image
            shared |= {"category_id": category_id, "category": category["name"]}
            rows += _sentences(ref, shared, where, report, sentence_field)
    table = pd.DataFrame(rows, columns=COLUMNS)
    for column in ("sent_id", "ref_id", "ann_id", "image_id"):
        if table[column].map(type).nunique() > 1:  # numbers and text, which have no common order
            table[column] = table[column].map(str)
    return table


def _known(items: list, kind: type, about: Callable[[Any], dict], source: Path, report: Report) -> dict:
    """The items of an instances file by their id, as ``about`` describes them: None for a broken one; an item without
    id has the id None."""
    known: dict[Any, Any] = {}
    what = kind.__name__.lower()
    for number, item in enumerate(items, 1):
        items[number - 1] = None  # hundreds of thousands of annotations are not held twice
        key = schema.identity_of(item, "id")
        try:
            described = about(schema.checked(kind, item))
        except ValueError as error:
            known.setdefault(key, None)
            entry = schema.name_of(what, item, "id", number)
            outside = isinstance(error, StudyError)
            message = str(error) if outside else f"{source}: {entry}: {error}"
            report(Problem("path outside its folder" if outside else f"broken {what}", entry, message))
        else:
            if (known.setdefault(key, described) or described) != described:
                entry = schema.name_of(what, item, "id", number)
                message = f"{source}: {entry} is there more than once, and differs; fetch the file again"
                report(Problem(f"duplicate {what} id", entry, message))
    return known


def _about_image(image: schema.Image, pictures: Pictures, source: Path) -> dict[str, Any]:
    path = str(pictures.find(inside(pictures.folder, image.file_name, source)))
    if image.height * image.width > MOST_PIXELS:
        raise ValueError(f"an image of {image.height} x {image.width} pixels is refused")
    schema.plain_text(path)
    return {"image_path": path, "height": image.height, "width": image.width}


def _misfit(ref: schema.Referent, images: dict, annotations: dict, name: str) -> tuple[str, str] | None:
    """The reason why a referent does not belong to the instances of that file name: kind and text. None where it does,
    and where the instances are broken, which is reported already."""
    for what, known, key in (("image", images, ref.image_id), ("annotation", annotations, ref.ann_id)):
        if key not in known and None not in known:
            return f"referent without {what}", f"has no {what} {key} in {name}"
    annotation = annotations.get(ref.ann_id)
    if annotation and annotation["image_id"] != ref.image_id:
        said = f"is in image {ref.image_id}, its annotation {ref.ann_id} in {annotation['image_id']}"
        return "annotation of another image", said
    return None


def _sentences(ref: schema.Referent, shared: dict, where: str, report: Report, key: SentenceField) -> Iterator[dict]:
    for number, raw in enumerate(ref.sentences, 1):
        try:
            sentence = schema.checked(schema.SENTENCES[key], raw)
        except ValueError as error:
            which = schema.name_of("sentence", raw, "sent_id", number)
            text = raw.get(key) if isinstance(raw, dict) else raw
            empty = text is None or text != text or (isinstance(text, str) and not text.strip())
            report(Problem("empty sentence" if empty else "broken sentence", which, f"{where}, {which}: {error}"))
            continue
        text = getattr(sentence, key)
        about = {"sent_id": sentence.sent_id, "expression": text, "words": len(text.split()), "kind": sentence.kind}
        yield shared | about
