"""Masks that ignore the words: what they score, and how far above them models are."""

from collections.abc import Callable

import numpy as np
import pandas as pd

from refstudy.analysis.measures import jackknifed_counts, metrics_of, over_pictures, spelled
from refstudy.analysis.rows import recorded
from refstudy.analysis.scene_things import Thing, stacked
from refstudy.data.batches import Corpus
from refstudy.study.file import ProfileStudy
from refstudy.training.evaluation import ABOUT

WORDLESS = {  # masks that ignore the words
    "every": "every thing, whatever the words",
    "best": "the best mask without words",
}


def wordless_counts(corpus: Corpus, things: dict[int, list[Thing]]) -> pd.DataFrame:
    """The counts of a mask of every thing in the picture without the background: a model would get them that knows what
    a thing is and ignores the words. Columns as ``evaluation.whole_image_counts``."""

    shown = {image: [thing for thing in around if thing.group != "stuff"] for image, around in things.items()}
    return _wordless(corpus, lambda image, truths: np.logical_or.reduce(stacked(shown[image], truths.shape[1:])))


def best_wordless_counts(corpus: Corpus) -> pd.DataFrame:
    """The counts of the best masks that ignore the words, one per picture: of all such masks, those with the highest
    overall IoU, which no model without words can exceed. Columns as ``evaluation.whole_image_counts``.

    A pixel that n of a picture's N expressions mean adds n to the intersection and N - n to the union. So it is marked
    where n exceeds N - n times the ratio that is reached, which rises until it is (Dinkelbach's iteration).
    """

    def above(least: float) -> pd.DataFrame:
        return _wordless(corpus, lambda _, truths: truths.sum(0) > least * (~truths).sum(0))

    ratio, counts = 0.0, above(0.0)  # all that any expression means
    while (reached := counts["intersection"].sum() / counts["union"].sum()) > ratio:
        ratio, counts = reached, above(reached)
    return counts


def _wordless(corpus: Corpus, marked: Callable[[int, np.ndarray], np.ndarray]) -> pd.DataFrame:
    """The counts of one mask (S, S) per picture, computed by ``marked`` from its image_id and the masks (n, S, S) of
    its n expressions."""
    intersection, union = np.zeros((2, len(corpus.table)), np.int64)
    for image, rows in corpus.table.groupby("image_id").indices.items():
        truths = corpus.mask(corpus.ref_of_expression[rows])
        mask = marked(image, truths)
        intersection[rows], union[rows] = (part.sum((1, 2)) for part in (truths & mask, truths | mask))
    return corpus.table[ABOUT].assign(intersection=intersection, union=union)


def wordless_table(study: ProfileStudy, floors: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """The lead of every recorded variant over masks that ignore the words, on the profile's first split; variants by
    rising overall IoU.

    ``floors``: the counts of each of ``WORDLESS``. Columns: variant, label, runs; oIoU and, on the pictures of each
    floor, above_every and above_best (negative below it), each with its 95 % interval (_low, _high), in percent. The
    first lines are the floors themselves, whose intervals are over pictures alone.
    """
    split = study.settings.splits[0]
    wordless = {floor: jackknifed_counts(floors[floor]) for floor in WORDLESS}
    alone = {WORDLESS[floor]: over_pictures(values["oIoU"]) for floor, values in wordless.items()}
    lines: list[dict] = [{"label": text} | spelled("oIoU", found) for text, found in alone.items()]
    ends_of = metrics_of(study, split)
    for name, records in recorded(study).items():
        own = ends_of(study.profile, name, records)
        line = {"variant": name, "label": study.label(name), "runs": len(records)}
        for floor, values in wordless.items():
            line |= spelled(f"above_{floor}", own.above_fixed(values)["oIoU"])
        lines.append(line | spelled("oIoU", own.level()["oIoU"], percent=True))
    measured = [f"{name}{end}" for name in ("oIoU", *(f"above_{f}" for f in WORDLESS)) for end in ("", "_low", "_high")]
    table = pd.DataFrame(lines, columns=["variant", "label", "runs", *measured]).astype({"runs": "Int64"})
    table["variant"] = table["variant"].fillna("")
    first = len(WORDLESS)
    return pd.concat([table[:first], table[first:].sort_values("oIoU")], ignore_index=True)
