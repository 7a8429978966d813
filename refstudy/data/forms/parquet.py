"""Exports of the Hugging Face Hub: Parquet or Arrow files in ``<dataset>/`` or a folder of it, with two sets of
columns.

A file belongs to the split that it is named after (``validation-00000-of-00001.parquet``), else to the one that
``state.json`` in its folder names (``save_to_disk``), else to that of its folder (``validation/0000.parquet``).

``sentences``: a row per referent with REFER's own fields, its annotation and its image as JSON text in ``raw_anns`` and
``raw_image_info`` (jxu124/refcoco, refcocoplus, refcocog). Its column ``bbox`` holds corners and is not used.
``answer``: a row per referent with its expressions, one flat polygon, the box (x, y, width, height) and the picture
(lmms-lab/RefCOCO, RefCOCOplus, RefCOCOg). It has no REFER numbers: rows are numbered in the order of the files.

Pictures that are embedded (a struct of ``bytes`` and ``path``) are written once to ``<dataset>/images-<digest>``.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from refstudy.base.errors import StudyError
from refstudy.base.files import atomic_folder
from refstudy.base.locks import locked
from refstudy.data.entries import Entries, Found, dataset_name, image_folder, inside, numbered, unreadable
from refstudy.data.forms.refer_files import read_json
from refstudy.data.masks import decode_mask
from refstudy.data.pictures import read_image_size
from refstudy.data.schema import AnswerRow, ReferRow, checked

KINDS = ({"sentences", "raw_anns", "raw_image_info"}, {"answer", "segmentation", "bbox", "file_name"})  # columns
SPLIT_BY = {"refcocog": "umd"}  # the exports hold one partition each, without naming it; unc for the others
SPLIT_NAMES = {"validation": "val"}
MOST_BYTES = 64 * 2**20  # of an embedded picture


def find(root: Path) -> Iterator[Found]:
    """The data sets under ``root`` in this form."""
    for folder in sorted(path for path in root.glob("[!.]*") if path.is_dir()):
        names = ("*.parquet", "*.arrow", "*/*.parquet", "*/*.arrow")
        files = sorted(file for name in names for file in folder.glob(name))
        dataset = dataset_name(folder.name)
        try:
            if files and all(any(kind <= set(_columns(path)) for kind in KINDS) for path in files):
                read = partial(_read, root, folder, dataset, files)
                yield Found(dataset, SPLIT_BY.get(dataset, "unc"), "Hub export", folder, read)
        except StudyError as error:
            yield unreadable(dataset, "Hub export", folder, error)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeError) as error:
        raise StudyError(f"{path}: does not read ({' '.join(str(error).split())}); fetch it again") from error


def _columns(path: Path) -> list[str]:
    with _reading(path):
        if path.suffix == ".parquet":
            return pq.read_schema(path).names
        with pa.memory_map(str(path)) as source:
            return pa.ipc.open_stream(source).schema.names


def _rows(path: Path, columns: list[str]) -> Iterator[dict[str, Any]]:
    """The rows of a file as dictionaries, a few at a time."""
    with _reading(path):
        if path.suffix == ".parquet":
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(batch_size=128, columns=columns):
                    yield from batch.to_pylist()
        else:
            with pa.memory_map(str(path)) as source:
                for batch in pa.ipc.open_stream(source):
                    yield from batch.select(columns).to_pylist()


def _read(root: Path, folder: Path, dataset: str, files: list[Path]) -> Entries:
    pictures = _embedded_pictures(folder, files) or image_folder(root, dataset)
    entries = Entries(pictures, folder, folder)
    images: dict[Any, dict] = {}
    for path in files:
        names = [name for name in _columns(path) if name != "image"]
        split = _split(path)
        for number, row in enumerate(_rows(path, names)):
            row.setdefault("split", split)
            add = _add_refer_row if "raw_anns" in row else _add_answer_row
            with entries.reading(path, number):
                add(row, entries, images)
    entries.images = list(images.values())
    return entries


def _split(path: Path) -> str:
    """The split of a file: see above."""
    name = re.split(r"[-.]", path.name)[0]
    if name == "data" or name.isdigit():
        state = path.with_name("state.json")
        saved = read_json(state) if state.is_file() else {}
        named = saved.get("_split") if isinstance(saved, dict) else None
        name = str(named or path.parent.name)
    return SPLIT_NAMES.get(name, name)


def _add_refer_row(row: dict[str, Any], entries: Entries, images: dict[Any, dict]) -> None:
    about = checked(ReferRow, row)
    images[row["raw_image_info"]] = about.raw_image_info
    entries.annotations.append(about.raw_anns)
    entries.refs.append(row)


def _add_answer_row(row: dict[str, Any], entries: Entries, images: dict[Any, dict]) -> None:
    number, about = len(entries.refs), checked(AnswerRow, row)
    name = _picture_name(row)
    if name not in images:
        try:
            height, width = read_image_size(inside(entries.image_folder, name, entries.source))
        except StudyError:
            height = width = 0
        number_in_coco = int(Path(name).stem.split("_")[-1])
        images[name] = {"id": number_in_coco, "file_name": name, "height": height, "width": width}
    image = images[name]
    polygon = [about.segmentation] if about.segmentation else []
    annotation = {"id": number, "image_id": image["id"], "segmentation": polygon, "bbox": row["bbox"]}
    try:
        annotation["area"] = int(decode_mask(polygon, image["height"], image["width"]).sum())
    except StudyError:
        annotation["area"] = 0
    entries.annotations.append(annotation)
    ref = {"ref_id": number, "ann_id": number, "image_id": image["id"], "category_id": 0, "split": row["split"]}
    entries.refs.append(ref | {"sentences": numbered(row["answer"], 1000 * number)})


def _picture_name(row: dict[str, Any]) -> str:
    """COCO's name of a row's picture; file names of referents carry one number more."""
    if "raw_image_info" in row:
        return str(Path(json.loads(row["raw_image_info"])["file_name"]))
    path = Path(row["file_name"])
    return "_".join(path.stem.split("_")[:3]) + path.suffix


def _embedded_pictures(folder: Path, files: list[Path]) -> Path | None:
    """The folder with the pictures of these files, written at the first call; None when there are none."""
    if "image" not in _columns(files[0]):
        return None
    about = "".join(f"{path.name} {path.stat().st_size} {path.stat().st_mtime_ns}\n" for path in files)
    target = folder / f"images-{hashlib.sha256(about.encode()).hexdigest()[:8]}"
    if target.is_dir():  # where nothing may be written, either
        return target
    failure = f"{files[0]}: its pictures cannot be unpacked to {target}"
    with locked(target, failure):
        if target.is_dir():
            return target
        try:
            with atomic_folder(target) as temporary:
                for path in files:
                    name_column = "raw_image_info" if "raw_image_info" in _columns(path) else "file_name"
                    for row in _rows(path, ["image", name_column]):
                        _write_picture(row, temporary, path)
        except OSError as error:
            raise StudyError(f"{failure} ({error.strerror}); make room or allow to write there") from error
    return target


def _write_picture(row: dict[str, Any], folder: Path, source: Path) -> None:
    """Write an embedded picture, unless its row has none.

    Raises StudyError for a picture that is no struct of ``bytes``, and for names that are none or more than a name.
    """
    picture = row["image"] or {}
    if not isinstance(picture, dict) or not isinstance(content := picture.get("bytes"), bytes | None):
        raise StudyError(f"{source}: column 'image' is no struct of 'bytes' and 'path'; fetch it again")
    if content is None:
        return
    try:
        name = _picture_name(row)
    except (KeyError, TypeError, ValueError) as error:
        raise StudyError(f"{source}: a picture without a name ({error!r}); fetch it again") from error
    if (path := inside(folder, name, source)).parent != folder:
        raise StudyError(f"{source}: picture '{name}' is not a plain file name; refused")
    if len(content) > MOST_BYTES:
        raise StudyError(f"{source}: picture '{name}' has {len(content)} bytes; refused")
    if not path.exists():
        path.write_bytes(content)
