"""RefCOCO, RefCOCO+, RefCOCOg, ReferIt and RefScenes as one table, a row per expression, whatever form they lie in."""

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from refstudy.data.entries import Found, Problem, make_table
from refstudy.data.forms import FORMS
from refstudy.errors import StudyError
from refstudy.files import note


def load_refer(root: Path | str, dataset: str, split_by: str) -> pd.DataFrame:
    """All expressions of a data set that lies under ``root``, with their referents, annotations and images.

    Columns: sent_id, ref_id, ann_id, image_id, split, category_id, category, expression, words, kind, image_path,
    height, width, bbox (x, y, width, height), area, segmentation (COCO polygons or RLE; empty in a form without masks,
    which serves statistics and cannot be trained on). ``refstudy.data.forms`` has a reader for each form; the first
    that finds the data set reads it.

    Raises StudyError, naming file and entry, for missing files, unknown names, referents without annotation,
    annotations without image, and empty expressions.
    """
    chosen = choose(root, dataset, split_by)
    table = make_table(chosen.read(), _refuse)
    note("read", chosen.path)
    return table


def load_leniently(found: Found) -> tuple[pd.DataFrame, list[Problem]]:
    """The table without its broken entries, and what is wrong with those."""
    problems: list[Problem] = []
    return make_table(found.read(), problems.append), problems


def find_data(root: Path | str) -> list[Found]:
    """What lies under ``root``, in any form; a data set in two forms once, in the first. Raises StudyError for files
    that do not read and folders that do not exist."""
    root = Path(root)
    if not root.is_dir():
        raise StudyError(f"{root}: no such folder; name the folder that holds the data sets")
    found: dict[tuple[str, str], Found] = {}
    for form in FORMS:
        for one in form.find(root):
            found.setdefault((one.dataset, one.split_by), one)
    return list(found.values())


def choose(root: Path | str, dataset: str, split_by: str) -> Found:
    """Where and how this data set lies under ``root``. Raises StudyError, with what lies there, when it does not."""
    found = find_data(root)
    partitions = [one.split_by for one in found if one.dataset == dataset]
    folder = Path(root) / dataset
    if not partitions:
        known = sorted({one.dataset for one in found})
        raise StudyError(f"{folder}: no such dataset; under {root} there is {', '.join(known) or 'none'}")
    if split_by not in partitions:
        raise StudyError(f"{folder}: split_by '{split_by}' is not one of {', '.join(partitions)}")
    return next(one for one in found if (one.dataset, one.split_by) == (dataset, split_by))


def _refuse(problem: Problem) -> None:
    raise StudyError(problem.message)


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
