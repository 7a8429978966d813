"""Properties of the real benchmarks: figures that come with the code, and small samples where they lie beside it."""

import os
import re
from pathlib import Path

import numpy as np
import pandas as pd

from refstudy.data.refer import load_refer
from refstudy.data.scenes.grammar import LOCATION_WORDS

REAL_VAL = Path(__file__).with_name("real_val.csv")
USUAL_PIXELS = 640 * 450  # of a picture of COCO whose size the lists of boxes do not say
LONGEST = 16  # words; the last class holds all longer expressions
MOST_REFERENTS = 8  # of a picture; the last class holds all pictures with more

# benchmark -> folder, data set and partition of a real validation split
SAMPLES = {
    "RefCOCO": ("refcoco_csv", "refcoco", "unc"),
    "RefCOCO+": ("refcoco_csv", "refcoco+", "unc"),
    "RefCOCOg": ("refcoco_csv", "refcocog", "umd"),
    "ReferIt": ("referit", "refclef", "berkeley"),
}


def sample_folder() -> Path | None:
    """The folder that REFSTUDY_REALDATA names, or ``shared/realdata`` beside the repository; None if neither exists."""
    named = os.environ.get("REFSTUDY_REALDATA")
    folder = Path(named) if named else Path(__file__).resolve().parents[3] / "shared" / "realdata"
    return folder if folder.is_dir() else None


def sample_expressions(folder: Path) -> pd.DataFrame:
    """Real expressions of the validation splits: benchmark, image_id, ref_id, expression, area, words.

    ``area`` is the referent's box as a share of its image; where the lists do not say its size, of ``USUAL_PIXELS``.
    """
    frames = []
    for benchmark, (part, dataset, split_by) in SAMPLES.items():
        rows = load_refer(folder / part, dataset, split_by).query("split == 'val'")
        box = pd.DataFrame(rows["bbox"].tolist(), rows.index, ["x", "y", "width", "height"])
        pixels = (rows["height"] * rows["width"]).replace(0, USUAL_PIXELS)
        frames.append(
            pd.DataFrame(
                {
                    "benchmark": benchmark,
                    "image_id": rows["image_id"].astype(str),
                    "ref_id": rows["ref_id"].astype(str),
                    "expression": rows["expression"],
                    "area": box["width"] * box["height"] / pixels,
                    "words": rows["words"],
                }
            )
        )
    return pd.concat(frames, ignore_index=True)


def summary(expressions: pd.DataFrame) -> pd.DataFrame:
    """The rows of `real_val.csv` from the table of ``sample_expressions``: of each benchmark the quantiles of its
    referents' boxes, the shares of its expressions by number of words and of its pictures by number of referents, and
    ``speech``. Columns: benchmark, measure, at, value."""
    lines = []
    for benchmark, rows in expressions.groupby("benchmark", sort=False):
        boxes = rows.drop_duplicates("ref_id")["area"]
        for at in np.arange(0, 41) / 40:
            lines.append((benchmark, "box over picture, quantile", at, boxes.quantile(at)))
        lengths = rows["words"].clip(upper=LONGEST).value_counts(normalize=True)
        lines += [(benchmark, "expressions by words", n, lengths.get(n, 0.0)) for n in range(1, LONGEST + 1)]
        lines += [(benchmark, "pictures by referents", n, share) for n, share in referents_per_picture(rows).items()]
        lines += [(benchmark, measure, 0, share) for measure, share in speech(rows["expression"]).items()]
    return pd.DataFrame(lines, columns=["benchmark", "measure", "at", "value"])


def referents_per_picture(table: pd.DataFrame) -> pd.Series:
    """The share of the pictures that have 1 ... ``MOST_REFERENTS`` referents (or more), from image_id and ref_id."""
    counts = table.groupby("image_id")["ref_id"].nunique().clip(upper=MOST_REFERENTS)
    return counts.value_counts(normalize=True).reindex(range(1, MOST_REFERENTS + 1), fill_value=0.0)


def speech(expressions: pd.Series) -> dict[str, float]:
    """The share of the expressions with a word of place, and of *the* among all words."""
    texts = expressions.str.lower()
    words = re.findall(r"[a-z]+", " ".join(texts))
    places = texts.map(lambda text: bool(LOCATION_WORDS & set(text.split())))
    return {"expressions that say where": float(places.mean()), "words that are *the*": words.count("the") / len(words)}


def real_figures(measure: str) -> dict[str, pd.Series]:
    """For each benchmark's validation split, the values of a measure of ``summary``, indexed by ``at``."""
    table = pd.read_csv(REAL_VAL)
    rows = table[table["measure"] == measure]
    return {str(name): part.set_index("at")["value"] for name, part in rows.groupby("benchmark", sort=False)}
