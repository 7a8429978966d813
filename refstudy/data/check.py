"""Find what is wrong with a data set, and where its counts differ from the published ones. Problems are data: a row
each.

``published.csv`` holds the figures: dataset, split_by, split (``all``: the whole), measure, value, kind, source, why.
Kinds: ``released``, what the released files hold; ``printed``, what a paper says; ``mirror``, what a public copy holds
instead; ``known``, images that training and evaluation share by design. ``why`` says why a figure is not the released
one.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from refstudy.base.bar import bar
from refstudy.base.errors import StudyError
from refstudy.data.entries import COLUMNS, Found, Problem
from refstudy.data.masks import decode_mask, has_masks
from refstudy.data.pictures import read_image, read_image_size
from refstudy.data.refer import find_below, load_leniently

PUBLISHED = Path(__file__).with_name("published.csv")
MEASURES = ["images", "referents", "expressions", "mean_words", "max_words"]
ORDER = ["train", "val", "test", "testA", "testB"]
EXAMPLES = 3  # of each kind of problem that the summary shows
SLACK = 1.0  # pixels by which COCO's polygons may leave the image: they are drawn along the outer edge of its pixels


def check_dataset(
    table: pd.DataFrame, dataset: str = "", split_by: str = "", images: bool = False, progress: bool = False
) -> pd.DataFrame:
    """Find what is wrong with ``load_refer``'s table, its pictures and its counts: level, kind, entry, message; a row
    each.

    ``level`` is ``problem`` or ``note``. With ``images`` every picture is decoded, otherwise its header is read.
    """
    if table.empty:
        return problem_table([Problem("no expressions", "the table", "nothing could be read")])
    found = [*_counts(table, dataset, split_by), *_splits(table, dataset, split_by), *_duplicates(table)]
    return problem_table([*found, *_masks(table, progress), *_pictures(table, images, progress)])


def problem_table(problems: Iterable[Problem]) -> pd.DataFrame:
    """Problems as a table: level, kind, entry, message; what is no Unicode is escaped."""
    rows = [(problem.level, problem.kind, problem.entry, problem.message) for problem in problems]
    escaped = [[text.encode("utf-8", "backslashreplace").decode() for text in row] for row in rows]
    return pd.DataFrame(escaped, columns=["level", "kind", "entry", "message"])


def counts(table: pd.DataFrame) -> pd.DataFrame:
    """Images, referents, expressions, mean and largest number of words, by split; the last row is ``all``."""
    splits = dict(list(table.groupby("split")))
    parts = {name: splits[name] for name in sorted(splits, key=[*ORDER, *splits].index)} | {"all": table}
    rows = [
        (part["image_id"].nunique(), part["ref_id"].nunique(), len(part), part["words"].mean(), part["words"].max())
        for part in parts.values()
    ]
    return pd.DataFrame(rows, columns=MEASURES, index=pd.Index(list(parts), name="split"))


def published() -> pd.DataFrame:
    """The published figures; values are text, so that the number of decimals is kept."""
    return pd.read_csv(PUBLISHED, dtype=str, keep_default_na=False)


def compare(found: pd.DataFrame, dataset: str, split_by: str) -> pd.DataFrame:
    """The published figures next to these counts: the columns of ``published``, found and difference (a number).

    The whole is compared only where no split of the released files is missing.
    """
    figures = published().query("dataset == @dataset and split_by == @split_by and measure in @MEASURES")
    splits = set(figures.query("kind == 'released'")["split"]) - {"all"}
    there = figures["split"].isin(found.index) & ((figures["split"] != "all") | (splits <= set(found.index)))
    rows = []
    for row in figures[there].to_dict("records"):
        decimals = len(row["value"].partition(".")[2])
        ours = round(float(found.loc[row["split"], row["measure"]]), decimals)
        difference = round(ours - float(row["value"]), decimals)
        rows.append(row | {"found": f"{ours:.{decimals}f}", "difference": difference})
    return pd.DataFrame(rows, columns=[*figures.columns, "found", "difference"])


def _counts(table: pd.DataFrame, dataset: str, split_by: str) -> Iterator[Problem]:
    found = counts(table)
    released = published().query("dataset == @dataset and split_by == @split_by and kind == 'released'")["split"]
    for split in released[released != "all"].unique():
        if split not in found.index:
            yield Problem("split missing", split, f"no split {split}; totals are not compared", "note")
    figures = compare(found, dataset, split_by)
    counted = figures[figures["measure"].isin(MEASURES[:3])]
    if len(counted) and (counted["difference"] != 0).all():
        first = counted.iloc[0]
        example = f"{first['split']} {first['measure']}: {first['found']}, published {first['value']}"
        own = f"data of your own may be called {dataset}, but it is no copy of the released files"
        yield Problem("differs from published", dataset, f"no count is a published one, e.g. {example}; {own}", "note")
        return
    for _, rows in figures.groupby(["split", "measure"], sort=False):
        explained = "; ".join(rows.loc[rows["difference"] == 0, "why"])
        met = (rows["difference"] == 0).any()
        for row in rows[rows["difference"] != 0].to_dict("records"):
            if row["kind"] == "mirror" or (row["kind"] == "printed" and not met):
                continue  # a figure that explains, or one that says no more than the released one
            why = (row["why"] if row["kind"] == "printed" else explained) or "these are not the released files"
            entry = f"{row['split']} {row['measure'].replace('_', ' ')}"
            numbers = f"{row['found']}, published {row['value']} ({row['difference']:+g})"
            message = f"{entry}: {numbers}: {why} [{row['source']}]"
            yield Problem("differs from published", entry, message, "note" if met else "problem")


def _splits(table: pd.DataFrame, dataset: str, split_by: str) -> Iterator[Problem]:
    for split, rows in table[~table["split"].isin(ORDER)].groupby("split"):
        message = f"split '{split}': nothing reads its {len(rows)} expressions; known: {', '.join(ORDER)}"
        yield Problem("unknown split", str(split), message, "note")
    pictures = {split: set(rows["image_id"]) for split, rows in table.groupby("split")}
    known = published().query("dataset == @dataset and split_by == @split_by and measure == 'shared_images'")
    why = "" if known.empty else f": {known['why'].iloc[0]}"
    train = pictures.pop("train", set())
    for split, own in pictures.items():
        if shared := sorted(train & own, key=str):
            message = f"{len(shared)} of {len(own)} images of {split} are in train too, e.g. {shared[0]}{why}"
            yield Problem("images in training and evaluation", split, message, "problem" if known.empty else "note")


def _duplicates(table: pd.DataFrame) -> Iterator[Problem]:
    for number in table.loc[table["sent_id"].duplicated(), "sent_id"].unique():
        yield Problem("duplicate sentence id", f"sentence {number}", f"sentence {number} is there more than once")
    about = table.drop_duplicates(["ref_id", "ann_id", "image_id", "split"])
    for number in about.loc[about["ref_id"].duplicated(), "ref_id"].unique():
        message = f"referent {number} is there with different annotations, images or splits"
        yield Problem("duplicate referent id", f"referent {number}", message)
    for row in table[table.duplicated(["ref_id", "expression"])].itertuples():
        said = f"referent {row.ref_id}: '{row.expression}'"
        yield Problem("same expression twice", f"sentence {row.sent_id}", said, "note")


def _masks(table: pd.DataFrame, progress: bool) -> Iterator[Problem]:
    if not has_masks(table):
        yield Problem("no masks", "the table", "boxes only: serves statistics, cannot be trained on", "note")
        return
    referents = table.drop_duplicates("ref_id")
    for row in bar(referents.itertuples(), desc="masks", total=len(referents), shown=progress):
        entry = f"referent {row.ref_id}"
        if _leaves(row):
            message = f"{entry}: its polygon leaves the image of {row.height} x {row.width} pixels"
            yield Problem("mask outside its image", entry, message)
        try:
            if not decode_mask(row.segmentation, row.height, row.width).any():
                yield Problem("empty mask", entry, f"{entry}: its mask covers no pixel")
        except StudyError as error:
            yield Problem("broken mask", entry, f"{entry}: {error}")


def _leaves(row: Any) -> bool:
    """Tell if a polygon of a referent leaves its image by more than ``SLACK``."""
    if not isinstance(row.segmentation, list) or not all(isinstance(part, list) for part in row.segmentation):
        return False  # RLE, whose size is checked when it is decoded
    points = [number for part in row.segmentation for number in zip(part[::2], part[1::2], strict=False)]
    try:
        x, y = np.array(points, float).T
    except (TypeError, ValueError):
        return False  # no polygon at all; decoding it reports that
    return bool(min(x.min(), y.min()) < -SLACK or x.max() > row.width + SLACK or y.max() > row.height + SLACK)


def _pictures(table: pd.DataFrame, decode: bool, progress: bool) -> Iterator[Problem]:
    pictures = table.drop_duplicates("image_path")
    folders = pictures["image_path"].map(lambda path: Path(path).parent).unique()
    absent = {folder for folder in folders if not folder.is_dir()}
    for folder in absent:
        message = f"{folder}: no such folder; put the images of the data set there"
        yield Problem("no images", str(folder), message, "problem" if has_masks(table) else "note")
    for row in bar(pictures.itertuples(), desc="images", total=len(pictures), shown=progress):
        path = Path(row.image_path)
        if path.parent in absent:
            continue
        if not path.is_file():
            yield Problem("missing image", path.name, f"{path}: not found")
            continue
        try:
            size = (row.height, row.width) if row.height else (None, None)
            if decode:
                read_image(path, *size)
            elif size[0] and (shape := read_image_size(path)) != size:
                yield Problem("broken image", path.name, f"{path}: is {shape}, its annotations say {size}")
        except StudyError as error:
            yield Problem("broken image", path.name, str(error))


def check_root(
    root: Path | str, dataset: str = "", split_by: str = "", images: bool = False, progress: bool = False
) -> Iterator[tuple[Found, pd.DataFrame, pd.DataFrame]]:
    """For every data set under ``root``, or those that are asked for: where it was found, its counts and its problems.

    Where ``root`` itself holds none, its folders are looked into. Raises StudyError when nothing is found.
    """
    root, wanted = Path(root), find_below(root, dataset, split_by)
    if not wanted:
        names = ", ".join(f"{one.dataset} ({one.split_by})" for _, one in find_below(root))
        none = "none; put in e.g. refcoco/refs(unc).p and refcoco/instances.json, or their zip (see docs/data.md)"
        raise StudyError(f"{root}: no such data set; there is {names or none}")
    for at, one in wanted:
        try:
            table, broken = load_leniently(one)
        except StudyError as error:
            yield one, counts(pd.DataFrame(columns=COLUMNS)), problem_table([Problem("does not read", "", str(error))])
            continue
        checked = check_dataset(table, one.dataset, one.split_by, images, progress)
        if broken:  # which is why there are none
            checked = checked[checked["kind"] != "no expressions"]
        if at != root:
            message = f"the data root to name is {at}, and not the folder above it"
            broken.append(Problem("one folder too high", one.dataset, message, "note"))
        yield one, counts(table), pd.concat([problem_table(broken), checked], ignore_index=True)


def summary(problems: pd.DataFrame) -> list[str]:
    """A line per kind of problem, problems before notes: their number, and the first few."""
    lines = []
    for (level, kind), rows in problems.groupby(["level", "kind"], sort=False):
        shown = "; ".join(rows["message"].head(EXAMPLES))
        more = f"; and {len(rows) - EXAMPLES} more" if len(rows) > EXAMPLES else ""
        lines.append(f"{level:8}{kind}, {len(rows)}: {shown}{more}")
    return sorted(lines, key=lambda line: line.startswith("note"))
