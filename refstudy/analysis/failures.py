"""Misses by measurable cause, and the calibration of confidence.

Fig. 6 of S²RM shows misplaced masks. Here every miss gets one cause, by what its mask covers of all things in the
picture.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd

from refstudy.analysis.measures import jackknifed_mean, over_pictures, spelled
from refstudy.analysis.scene_things import Thing, stacked
from refstudy.base.config import THRESHOLD
from refstudy.data.batches import Corpus
from refstudy.data.scenes.grammar import KINDS
from refstudy.models.segmenter import Segmenter
from refstudy.prediction.predict import confidence, predict
from refstudy.training.evaluation import ABOUT

HIT = 0.5  # a mask whose IoU exceeds this is a hit, as in P@0.5
FOUND = 0.5  # a referent, or another thing, is found when at least this share of it is marked
TOUCHED = 0.1  # and missed when less than this share of it is
SMALL = 0.02  # a referent below this share of the picture is small (the smallest of RefScenes have 0.01)
RESPONSE = 0.0025  # a mask of at least this share of the picture is a response: a quarter of the smallest referent
CAUSES = {
    "hit": f"IoU above {HIT}; without a referent, less than {RESPONSE:.2%} of the picture marked",
    "absent referent": "there is no referent, and more is marked than that",
    "wrong thing": f"less than {FOUND:.0%} of the referent marked, and more pixels on another thing than on it",
    "missed small": f"less than {TOUCHED:.0%} marked of a referent below {SMALL:.0%} of the picture",
    "missed": f"less than {TOUCHED:.0%} marked of a larger referent",
    "several things": f"at least {FOUND:.0%} of the referent marked, and at least {FOUND:.0%} of another thing",
    "partial": "the mask lacks more of the referent than it adds: recall below precision",
    "leaked": "the mask adds at least as much as it lacks: precision not above recall",
}


class Diagnosis(NamedTuple):
    """The cause (a key of ``CAUSES``) and the numbers behind it. ``rival``: the number of the other thing with most of
    the mask's pixels, -1 when the mask touches none."""

    cause: str
    iou: float
    recall: float
    precision: float
    rival: int


def diagnose(predicted: np.ndarray, truth: np.ndarray, others: np.ndarray) -> Diagnosis:
    """The cause of a miss: the first rule of ``CAUSES`` that holds.

    Args:
        predicted, truth: bool (S, S).
        others: bool (n, S, S), the masks of the other things of the picture, n = 0 included.
    """
    inter, marked, wanted = (int(np.count_nonzero(mask)) for mask in (predicted & truth, predicted, truth))
    union = marked + wanted - inter
    iou = inter / union if union else 1.0
    responds = marked >= RESPONSE * truth.size
    recall, precision = inter / max(wanted, 1), inter / max(marked, 1)
    rival, on_rival = most_covered(predicted, others)
    covered, areas = (np.count_nonzero(part, axis=(1, 2)) for part in (others & predicted, others))
    if iou > HIT or not (wanted or responds):
        cause = "hit"
    elif not wanted:
        cause = "absent referent"
    elif recall < FOUND and on_rival > inter:
        cause = "wrong thing"
    elif recall < TOUCHED:
        cause = "missed small" if wanted < SMALL * truth.size else "missed"
    elif recall >= FOUND and ((covered > 0) & (covered >= FOUND * areas)).any():
        cause = "several things"
    else:
        cause = "partial" if recall < precision else "leaked"
    return Diagnosis(cause, iou, recall, precision, rival)


def most_covered(predicted: np.ndarray, masks: np.ndarray) -> tuple[int, int]:
    """Find the mask, of (n, S, S), with most of the predicted pixels: its number and how many; (-1, 0) for none."""
    pixels = np.count_nonzero(masks & predicted, axis=(1, 2))
    return (int(pixels.argmax()), int(pixels.max())) if pixels.any() else (-1, 0)


def diagnose_corpus(model: Segmenter, corpus: Corpus, things: dict[int, list[Thing]]) -> pd.DataFrame:
    """Every expression of a corpus diagnosed, in the corpus' order.

    Columns: those of ``evaluation.ABOUT`` and expression; category (the referent's), area (its share of the picture);
    intersection, union, cause, iou, recall, precision; confidence; rival_category, rival_colour (of the other thing
    with most of the mask, empty without one) and same_category, whether that is the referent's. Background is no rival.
    """
    lines: dict[int, dict[str, object]] = {}
    for image in range(len(corpus.images)):
        numbers = corpus.rows_about(image)
        rows = corpus.table.iloc[numbers]
        around = [thing for thing in things[int(rows["image_id"].iloc[0])] if thing.group != "stuff"]
        probabilities = predict(model, corpus.image(image), rows["expression"].tolist())
        truths = corpus.mask(corpus.ref_of_expression[numbers])
        for number, ann_id, probability, truth in zip(numbers, rows["ann_id"], probabilities, truths, strict=True):
            rivals = [thing for thing in around if thing.ann_id != ann_id]
            predicted = probability > THRESHOLD
            found = diagnose(predicted, truth, stacked(rivals, truth.shape))
            rival = rivals[found.rival] if found.rival >= 0 else None
            lines[int(number)] = {
                "area": float(truth.mean()),
                "intersection": int((predicted & truth).sum()),
                "union": int((predicted | truth).sum()),
                **{name: getattr(found, name) for name in ("cause", "iou", "recall", "precision")},
                "confidence": confidence(probability),
                "rival_category": rival.category if rival else "",
                "rival_colour": rival.colour if rival else "",
            }
    about = corpus.table[[*ABOUT, "expression", "category"]]
    table = about.join(pd.DataFrame.from_dict(lines, orient="index"))
    return table.assign(same_category=table["rival_category"] == table["category"])


def reliability(diagnosed: pd.DataFrame, bins: int = 10) -> tuple[pd.DataFrame, dict[str, float]]:
    """Measure how well confidence predicts the precision of a mask, and its IoU, in the table of ``diagnose_corpus``.

    First a line per bin of equal width. Columns: low, high (the bin's edges, the upper one included), expressions,
    confidence, precision, iou (means; NaN for an empty bin). Masks that mark nothing have no precision.

    Then, for "precision" and "iou", the mean of |confidence - it| over the bins, weighted by their expressions.
    Confidence is the mean probability of the marked pixels, so it should equal precision, the share of them that is
    right: the first distance is the expected calibration error. IoU is at most precision, and no probability.
    """
    edges = np.linspace(0, 1, bins + 1)
    which = np.clip(np.searchsorted(edges, diagnosed["confidence"], side="left") - 1, 0, bins - 1)
    values = diagnosed[["confidence", "precision", "iou"]].copy()
    values["precision"] = values["precision"].where(values["confidence"] > THRESHOLD)
    table = pd.DataFrame({"low": edges[:-1], "high": edges[1:], "expressions": np.bincount(which, minlength=bins)})
    distances = {
        name: float((values["confidence"] - values[name]).groupby(which).sum().abs().sum() / values[name].count())
        for name in ("precision", "iou")
    }
    return table.join(values.groupby(which).mean()), distances


def cause_table(diagnosed: pd.DataFrame) -> pd.DataFrame:
    """Counts of ``diagnose_corpus``, a line per kind of expression ("all" first) and cause.

    Columns: kind, cause, expressions; share of the kind's expressions in percent with its 95 % interval share_low,
    share_high over pictures; iou and confidence (means, NaN for a cause that does not occur).
    """
    lines = []
    kinds = [kind for kind in KINDS if (diagnosed["kind"] == kind).any()]
    for kind in ("all", *kinds):
        part = diagnosed if kind == "all" else diagnosed[diagnosed["kind"] == kind]
        for cause in CAUSES:
            rows = part[part["cause"] == cause]
            line = {"kind": kind, "cause": cause, "expressions": len(rows)}
            share = over_pictures(jackknifed_mean(100 * (part["cause"] == cause), part["image_id"]))
            line |= spelled("share", share, percent=True)
            lines.append(line | {"iou": rows["iou"].mean(), "confidence": rows["confidence"].mean()})
    return pd.DataFrame(lines)
