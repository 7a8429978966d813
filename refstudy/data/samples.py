"""Properties of expressions and referents, and those of the real benchmarks, which come with the code."""

import os
import re
from pathlib import Path

import numpy as np
import pandas as pd

from refstudy.data.scenes.grammar import LOCATION_WORDS

REAL_VAL = Path(__file__).with_name("real_val.csv")
USUAL_PIXELS = 640 * 450  # of a picture of COCO whose size the lists of boxes do not say
LONGEST = 16  # words; the last class holds all longer expressions
MOST_REFERENTS = 8  # of a picture; the last class holds all pictures with more
WHERE, THE = "expressions that say where", "words that are “the”"


def sample_folder() -> Path | None:
    """The folder that REFSTUDY_REALDATA names, or ``shared/realdata`` next to the repository; None without either."""
    named = os.environ.get("REFSTUDY_REALDATA")
    folder = Path(named) if named else Path(__file__).resolve().parents[3] / "shared" / "realdata"
    return folder if folder.is_dir() else None


def box_shares(table: pd.DataFrame) -> np.ndarray:
    """The share of its picture that the box of each referent covers, of ``load_refer``'s table; of a picture whose size
    the data do not say, the share of ``USUAL_PIXELS``."""
    referents = table.drop_duplicates("ref_id")
    boxes = np.array(referents["bbox"].tolist(), float)
    pixels = (referents["height"] * referents["width"]).replace(0, USUAL_PIXELS)
    return boxes[:, 2] * boxes[:, 3] / pixels.to_numpy()


def referents_per_picture(table: pd.DataFrame) -> pd.Series:
    """The share of the pictures that have 1 ... ``MOST_REFERENTS`` referents (or more), from image_id and ref_id."""
    counts = table.groupby("image_id")["ref_id"].nunique().clip(upper=MOST_REFERENTS)
    return counts.value_counts(normalize=True).reindex(range(1, MOST_REFERENTS + 1), fill_value=0.0)


def speech(expressions: pd.Series) -> dict[str, float]:
    """The share of the expressions with a word of place, and of *the* among all words."""
    texts = expressions.str.lower()
    words = re.findall(r"[a-z]+", " ".join(texts))
    places = texts.map(lambda text: bool(LOCATION_WORDS & set(text.split())))
    return {WHERE: float(places.mean()), THE: words.count("the") / max(1, len(words))}


def real_figures(measure: str) -> dict[str, pd.Series]:
    """For each benchmark's validation split, the values of a measure in `real_val.csv`, indexed by ``at``."""
    table = pd.read_csv(REAL_VAL)
    rows = table[table["measure"] == measure]
    return {str(name): part.set_index("at")["value"] for name, part in rows.groupby("benchmark", sort=False)}
