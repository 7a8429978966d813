"""The REFER layout: ``<dataset>/refs(<split_by>).p`` and ``<dataset>/instances.json``, unpacked or still in their zip.

Source of the format: the public REFER toolkit's field names.
"""

import json
import pickle
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from refstudy.base.errors import StudyError
from refstudy.base.files import read_text
from refstudy.data.entries import Entries, Found, dataset_name, image_folder, unreadable
from refstudy.data.zips import JUNK, member_names, unpack

REFS = re.compile(r"refs\(([\w-]+)\)\.p")
IMAGE_ARCHIVES = {"refclef": "saiapr_tc-12.zip"}  # every other dataset is drawn on COCO
COCO_ARCHIVE = "train2014.zip"


def find(root: Path) -> Iterator[Found]:
    """The data sets under ``root`` in this form."""
    for path in sorted(root.glob("[!.]*/refs(*).p")):
        if match := REFS.fullmatch(path.name):
            folder = path.parent
            read = partial(_read, root, folder, match[1])
            yield Found(dataset_name(folder.name), match[1], "REFER files", folder, read)
    for archive in sorted(root.glob("*.zip")):
        folder = archive.with_suffix("")
        if folder.exists() or archive.name in (COCO_ARCHIVE, *IMAGE_ARCHIVES.values()):
            continue
        try:
            names = member_names(archive)
        except StudyError as error:
            yield unreadable(dataset_name(folder.name), "REFER zip", archive, error)
            continue
        for name in map(PurePosixPath, names):
            if (match := REFS.fullmatch(name.name)) and not JUNK & set(name.parts):
                if name.parent.name in ("", folder.name) and len(name.parts) <= 2:
                    read = partial(_read, root, folder, match[1])
                    yield Found(dataset_name(folder.name), match[1], "REFER zip", archive, read)
                else:
                    deep = StudyError(f"{archive}: holds {name}; unpack it so that {root}/{name.parent.name} is there")
                    yield unreadable(dataset_name(name.parent.name), "REFER zip", archive, deep)


def read_pickle(path: Path) -> Any:
    """Plain data from a pickle, Python 2's included. Raises StudyError, and runs nothing, if it holds anything else."""
    try:
        with open(path, "rb") as file:
            return PlainUnpickler(file, encoding="utf-8", errors="replace").load()  # text as Python 2 wrote it
    except OSError as error:
        raise StudyError(f"{path}: cannot be read ({error.strerror}); put it there, or allow to read it") from error
    except Exception as error:  # a malformed pickle can make the unpickler raise almost anything
        remedy = "only plain data is read; fetch it again, or unpack it if compressed"
        raise StudyError(f"{path}: refused, {error}; {remedy}") from error


class PlainUnpickler(pickle.Unpickler):
    """Reads numbers, text, lists and dictionaries, and refuses everything that would name or run code."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it names the global {module}.{name}")

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("it refers to an object outside the file")


def read_json(path: Path) -> Any:
    """Read a JSON file. Raises StudyError when it is missing or broken."""
    try:
        return json.loads(read_text(path))
    except FileNotFoundError as error:
        raise StudyError(f"{path}: not found; it comes with the annotations of the data set") from error
    except OSError as error:
        raise StudyError(f"{path}: cannot be read ({error.strerror}); allow to read it") from error
    except StudyError:
        raise
    except (ValueError, RecursionError) as error:
        raise StudyError(f"{path}: not JSON ({error}); fetch it again, or unpack it if it is compressed") from error


def _read(root: Path, folder: Path, split_by: str) -> Entries:
    if not folder.is_dir():
        unpack(folder.with_name(f"{folder.name}.zip"), folder)
    dataset = dataset_name(folder.name)
    pictures, archive = image_folder(root, dataset), root / IMAGE_ARCHIVES.get(dataset, COCO_ARCHIVE)
    if archive.is_file() and (pictures == root / "images" or not pictures.is_dir()):
        pictures = unpack(archive, root / "images" / archive.stem)
    refs_path, instances_path = folder / f"refs({split_by}).p", folder / "instances.json"
    refs, instances = read_pickle(refs_path), read_json(instances_path)
    if not isinstance(refs, list):
        raise StudyError(f"{refs_path}: no list of referents but {type(refs).__name__}; it is no REFER file")
    try:
        lists = [list(instances[key]) for key in ("images", "annotations", "categories")]
    except (KeyError, TypeError) as error:
        raise StudyError(f"{instances_path}: lacks {error}; it is no COCO instances file") from error
    return Entries(pictures, refs_path, instances_path, refs, *lists)
