"""RefCOCO, RefCOCO+, RefCOCOg, ReferIt and RefScenes as one table, a row per expression, whatever form they lie in."""

from pathlib import Path
from typing import TYPE_CHECKING

from refstudy.base.allocation import without_collecting
from refstudy.base.config import DataConfig, SentenceField
from refstudy.base.errors import DataMissing, StudyError
from refstudy.base.files import note
from refstudy.data.entries import UNREADABLE, Found, Problem, make_table
from refstudy.data.forms import FORMS
from refstudy.data.scenes.flavours import FLAVOURS

if TYPE_CHECKING:
    import pandas as pd


def load_refer(root: Path | str, dataset: str, split_by: str, sentence_field: SentenceField = "sent") -> "pd.DataFrame":
    """All expressions of a data set that lies under ``root``, with their referents, annotations and images.

    Columns: sent_id, ref_id, ann_id, image_id, split, category_id, category, expression, words, kind, image_path,
    height, width, bbox (x, y, width, height), area, segmentation (COCO polygons or RLE; empty in a form without masks,
    which serves statistics and cannot be trained on). ``refstudy.data.forms`` has a reader for each form; the first
    that finds the data set reads it. ``expression``, and ``words`` with it, is what REFER calls ``sent``, cleaned of
    punctuation and capitals, or ``raw``, as it was typed, which lists without REFER's fields do not have.

    Raises StudyError, naming file and entry, for missing files, unknown names, referents without annotation,
    annotations without image, and expressions that are empty or lack the ``sentence_field``.
    """
    chosen = choose(root, dataset, split_by)
    with without_collecting():
        table = make_table(chosen.read(), _refuse, sentence_field)
    note("read", chosen.path)
    return table


def load_table(config: DataConfig, root: Path) -> "pd.DataFrame":
    """``load_refer``'s table of these data under ``root``, less what their ``kinds`` and ``referents`` leave out; of
    released data, where ``scenes`` names splits, the first so many pictures of those splits."""
    table = load_refer(root, config.dataset, config.split_by, config.sentence_field)
    if config.kinds:
        table = table[table["kind"].isin(config.kinds)]
    if config.referents > 1:
        table = table[table.groupby("image_id")["ref_id"].transform("nunique") >= config.referents]
    table = table.reset_index(drop=True)
    if config.dataset in FLAVOURS or not config.scenes:
        return table
    pictures = table[["split", "image_id"]].drop_duplicates()
    wanted = pictures["split"].map(config.scenes).fillna(0).astype(int)
    return table.merge(pictures[pictures.groupby("split").cumcount() < wanted])  # in the table's order


def load_leniently(found: Found) -> "tuple[pd.DataFrame, list[Problem]]":
    """The table without its broken entries, and what is wrong with those."""
    problems: list[Problem] = []
    with without_collecting():
        return make_table(found.read(), problems.append), problems


def find_data(root: Path | str) -> list[Found]:
    """List the data under ``root``, in any form; a data set in two forms once, in the first.

    Raises DataMissing when there is no such folder, StudyError when it is one of the data sets; a file that does
    not read is reported when it is read.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataMissing(f"{root}: no such folder; name the folder that holds the data sets")
    if any(root.glob("refs(*).p")):
        raise StudyError(f"{root}: is a data set itself; name the folder above, which holds it and the pictures")
    found: dict[tuple[str, str], Found] = {}
    for form in FORMS:
        for one in form.find(root):
            found.setdefault((one.dataset, one.split_by), one)
    return list(found.values())


def find_below(root: Path | str, dataset: str = "", split_by: str = "") -> list[tuple[Path, Found]]:
    """``find_data`` with the root of each data set: ``root`` or, where it holds none, the folders in it. With a name of
    data set or partition, only what has that name."""
    root = Path(root)
    folders = sorted(path for path in root.glob("[!.]*") if path.is_dir())
    found = [(root, one) for one in find_data(root)] or [(at, one) for at in folders for one in find_data(at)]
    return [(at, one) for at, one in found if dataset in ("", one.dataset) and split_by in ("", one.split_by)]


def choose(root: Path | str, dataset: str, split_by: str) -> Found:
    """Choose the folder and the form of this data set under ``root``.

    Raises DataMissing, with what lies there, when none of its partitions does, StudyError when another one does.
    """
    found = find_data(root)
    partitions = {one.split_by: one for one in found if one.dataset == dataset}
    folder = Path(root) / dataset
    if not partitions:
        known = ", ".join(sorted({one.dataset for one in found})) or "none"
        deeper = [path for path in sorted(Path(root).glob("[!.]*")) if (path / dataset).is_dir()]
        near = f"; {deeper[0]} has it: name that folder" if deeper else ""
        raise DataMissing(f"{folder}: no such dataset; under {root} there is {known}{near}")
    chosen = partitions.get(split_by) or partitions.get(UNREADABLE)
    if chosen is None:
        raise StudyError(f"{folder}: split_by '{split_by}' is not one of {', '.join(partitions)}")
    return chosen


def _refuse(problem: Problem) -> None:
    raise StudyError(problem.message)
