"""Failures by measurable cause, the calibration of confidence, and expressions that are true of nothing.

Fig. 6 of S²RM shows misplaced masks and a mask for a thing that is not there. Here every miss gets one cause, by what
its mask covers of all things in the picture.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from refstudy.analysis.tables import draws, interval, metrics_of, recorded, resampled_counts, spelled
from refstudy.base.config import THRESHOLD
from refstudy.data.batches import Corpus, resize_mask
from refstudy.data.masks import decode_mask
from refstudy.data.scenes.grammar import KINDS
from refstudy.data.scenes.things import BY_NAME, CATEGORIES
from refstudy.models.segmenter import Segmenter
from refstudy.prediction.predict import confidence, predict
from refstudy.study.file import ProfileStudy
from refstudy.training.evaluation import ABOUT

HIT = 0.5  # a mask whose IoU exceeds this is a hit, as in P@0.5
FOUND = 0.5  # a referent, or another thing, is found when at least this share of it is marked
TOUCHED = 0.1  # and missed when less than this share of it is
SMALL = 0.02  # a referent below this share of the picture is small (the smallest of RefScenes have 0.01)
RESPONSE = 0.0025  # a mask of at least this share of the picture is a response: a quarter of the smallest referent
CAUSES = {
    "hit": f"IoU above {HIT}; without a referent, less than {RESPONSE:.2%} of the picture marked",
    "absent referent": "there is no referent, and more is marked than that",
    "wrong instance": f"less than {FOUND:.0%} of the referent marked, and more pixels on another thing than on it",
    "missed small": f"less than {TOUCHED:.0%} marked of a referent below {SMALL:.0%} of the picture",
    "missed": f"less than {TOUCHED:.0%} marked of a larger referent",
    "several things": f"at least {FOUND:.0%} of the referent marked, and as much of another thing",
    "partial": "the mask lacks more of the referent than it adds: recall below precision",
    "leaked": "the mask adds at least as much as it lacks: precision not above recall",
}
WORDLESS = {  # masks that ignore the words
    "every": "every thing, whatever the words",
    "best": "the best mask without words",
}
PROBES = ("present", "colour absent", "category absent")


@dataclass(frozen=True)
class Thing:
    """One annotated thing or region of background: category, group, colour, bool mask (S, S)."""

    ann_id: int
    category: str
    group: str
    colour: str
    mask: np.ndarray

    @property
    def nouns(self) -> tuple[str, ...]:
        """The names that it may have. Background goes by every word of its name and by what such a thing is called: a
        "table top" shows a table, a desk."""
        if self.category in BY_NAME:
            return BY_NAME[self.category].nouns
        words = tuple(self.category.split())
        return words + tuple(n for c in CATEGORIES if set(c.nouns) & set(words) for n in c.nouns)


@dataclass(frozen=True)
class Diagnosis:
    """The cause (a key of ``CAUSES``) and the numbers behind it. ``rival``: the number of the other thing with most of
    the mask's pixels, -1 when the mask touches none."""

    cause: str
    iou: float
    recall: float
    precision: float
    rival: int


@dataclass(frozen=True)
class Probe:
    """An expression of noun and colour. ``kind`` is one of ``PROBES``; ``target`` the thing it is true of, or -1."""

    text: str
    kind: str
    noun: str
    colour: str
    target: int


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
    if iou > HIT or not (wanted or responds):
        cause = "hit"
    elif not wanted:
        cause = "absent referent"
    elif recall < FOUND and on_rival > inter:
        cause = "wrong instance"
    elif recall < TOUCHED:
        cause = "missed small" if wanted < SMALL * truth.size else "missed"
    elif recall >= FOUND and _any_found(predicted, others):
        cause = "several things"
    else:
        cause = "partial" if recall < precision else "leaked"
    return Diagnosis(cause, iou, recall, precision, rival)


def most_covered(predicted: np.ndarray, masks: np.ndarray) -> tuple[int, int]:
    """Find the mask, of (n, S, S), with most of the predicted pixels: its number and how many; (-1, 0) for none."""
    pixels = np.count_nonzero(masks & predicted, axis=(1, 2))
    return (int(pixels.argmax()), int(pixels.max())) if pixels.any() else (-1, 0)


def _any_found(predicted: np.ndarray, masks: np.ndarray) -> bool:
    marked, areas = (np.count_nonzero(part, axis=(1, 2)) for part in (masks & predicted, masks))
    return bool(((marked > 0) & (marked >= FOUND * areas)).any())


def scene_things(root: Path | str, dataset: str, image_ids: Iterable[int], side: int) -> dict[int, list[Thing]]:
    """All annotated things and regions of these images of RefScenes, masks resized to ``side``; image_id -> things."""
    instances = json.loads((Path(root) / dataset / "instances.json").read_text(encoding="utf-8"))
    categories = {category["id"]: category for category in instances["categories"]}
    sizes = {image["id"]: (image["height"], image["width"]) for image in instances["images"]}
    found: dict[int, list[Thing]] = {int(image): [] for image in image_ids}
    for annotation in instances["annotations"]:
        if annotation["image_id"] in found:
            category = categories[annotation["category_id"]]
            mask = decode_mask(annotation["segmentation"], *sizes[annotation["image_id"]])
            thing = Thing(
                annotation["id"],
                category["name"],
                category["supercategory"],
                annotation["color"],
                resize_mask(mask, side, side),
            )
            found[annotation["image_id"]].append(thing)
    return found


def wordless_counts(corpus: Corpus, things: dict[int, list[Thing]]) -> pd.DataFrame:
    """The counts of a mask of every thing in the picture without the background: a model would get them that knows what
    a thing is and ignores the words. Columns as ``evaluation.whole_image_counts``."""

    def every(image: int, truths: np.ndarray) -> np.ndarray:
        masks = _stack([thing for thing in things[image] if thing.group != "stuff"], truths.shape[1:])
        return np.logical_or.reduce(masks)

    return _wordless(corpus, every)


def best_wordless_counts(corpus: Corpus) -> pd.DataFrame:
    """The counts of the best masks that ignore the words, one per picture: of all such masks, those with the highest
    overall IoU, which no model without words can exceed. Columns as ``evaluation.whole_image_counts``.

    A pixel that n of a picture's N expressions mean adds n to the intersection and N - n to the union. So it is marked
    where n exceeds N - n times the ratio that is reached, which rises until it is (Dinkelbach's iteration).
    """
    ratio = 0.0  # all that any expression means
    while True:

        def worth(image: int, truths: np.ndarray, least: float = ratio) -> np.ndarray:
            meant = truths.sum(axis=0)
            return meant > least * (len(truths) - meant)

        counts = _wordless(corpus, worth)
        reached = counts["intersection"].sum() / counts["union"].sum()
        if reached <= ratio:
            return counts
        ratio = reached


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
    wordless = {floor: resampled_counts(floors[floor]) for floor in WORDLESS}
    lines: list[dict[str, object]] = []
    for floor, label in WORDLESS.items():
        low, high = interval(wordless[floor]["oIoU"])
        lines.append({"label": label, "oIoU": wordless[floor]["oIoU"][0], "oIoU_low": low, "oIoU_high": high})
    ends_of = metrics_of(study, split)
    for name, records in recorded(study).items():
        own = ends_of(study.profile, name, records)
        line = {"variant": name, "label": study.file.variants[name].label, "runs": len(records)}
        for floor, values in wordless.items():
            line |= spelled(f"above_{floor}", own.above_fixed(values)["oIoU"])
        lines.append(line | spelled("oIoU", own.level()["oIoU"], percent=True))
    measured = [f"{name}{end}" for name in ("oIoU", *(f"above_{f}" for f in WORDLESS)) for end in ("", "_low", "_high")]
    table = pd.DataFrame(lines, columns=["variant", "label", "runs", *measured]).astype({"runs": "Int64"})
    table["variant"] = table["variant"].fillna("")
    first = len(WORDLESS)
    return pd.concat([table[:first], table[first:].sort_values("oIoU")], ignore_index=True)


def diagnose_corpus(model: Segmenter, corpus: Corpus, things: dict[int, list[Thing]]) -> pd.DataFrame:
    """Every expression of a corpus diagnosed, in the corpus' order.

    Columns: those of ``evaluation.ABOUT`` and expression; category (the referent's), area (its share of the picture);
    intersection, union, cause, iou, recall, precision; confidence; rival_category, rival_colour (of the other thing
    with most of the mask, empty without one) and same_category, whether that is the referent's. Background is no rival.
    """
    image_of = corpus.image_of_ref[corpus.ref_of_expression]
    lines: dict[int, dict[str, object]] = {}
    for image in range(len(corpus.images)):
        numbers = np.flatnonzero(image_of == image)
        rows = corpus.table.iloc[numbers]
        around = [thing for thing in things[int(rows["image_id"].iloc[0])] if thing.group != "stuff"]
        picture = corpus.images[image].transpose(1, 2, 0)
        probabilities = predict(model, picture, rows["expression"].tolist())
        truths = corpus.mask(corpus.ref_of_expression[numbers])
        for number, ann_id, probability, truth in zip(numbers, rows["ann_id"], probabilities, truths, strict=True):
            rivals = [thing for thing in around if thing.ann_id != ann_id]
            predicted = probability > 0.5
            found = diagnose(predicted, truth, _stack(rivals, truth.shape))
            rival = rivals[found.rival] if found.rival >= 0 else None
            lines[int(number)] = {
                "area": float(truth.mean()),
                "intersection": int((predicted & truth).sum()),
                "union": int((predicted | truth).sum()),
                "cause": found.cause,
                "iou": found.iou,
                "recall": found.recall,
                "precision": found.precision,
                "confidence": confidence(probability),
                "rival_category": rival.category if rival else "",
                "rival_colour": rival.colour if rival else "",
            }
    about = corpus.table[[*ABOUT, "expression", "category"]]
    table = about.join(pd.DataFrame.from_dict(lines, orient="index"))
    return table.assign(same_category=table["rival_category"] == table["category"])


def _stack(things: list[Thing], shape: tuple[int, ...]) -> np.ndarray:
    return np.stack([thing.mask for thing in things]) if things else np.zeros((0, *shape), bool)


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


def true_of(things: list[Thing], noun: str, colour: str) -> list[int]:
    """The numbers of the things that "colour noun" is true of. Background matches by name in any colour, since its
    shades are not annotated."""
    return [k for k, t in enumerate(things) if noun in t.nouns and (t.group == "stuff" or t.colour == colour)]


def probes(things: list[Thing], rng: np.random.Generator) -> list[Probe]:
    """At most one expression of each of ``PROBES``, all of one noun and one colour.

    *present*: true of exactly one thing, not a small one. *colour absent*: things go by that noun, none in that colour.
    *category absent*: nothing goes by that noun. Colours are those in which RefScenes draws the category.
    """
    chosen: dict[str, list[tuple[str, str, int]]] = {kind: [] for kind in PROBES}
    for category in CATEGORIES:
        for noun in category.nouns:
            named = any(noun in thing.nouns for thing in things)
            for colour in category.colours:
                meant = true_of(things, noun, colour)
                if not meant:
                    chosen["colour absent" if named else "category absent"].append((noun, colour, -1))
                elif len(meant) == 1:
                    (only,) = meant
                    if things[only].group != "stuff" and things[only].mask.mean() >= SMALL:
                        chosen["present"].append((noun, colour, only))
    found = []
    for kind, options in chosen.items():
        if options:
            noun, colour, target = options[int(rng.integers(len(options)))]
            found.append(Probe(_phrase(noun, colour), kind, noun, colour, target))
    return found


def _phrase(noun: str, colour: str) -> str:
    """Noun and colour as the grammar of RefScenes joins them."""
    person = any(noun in category.nouns for category in CATEGORIES if category.group == "person")
    return f"{noun} in {colour}" if person else f"{colour} {noun}"


def probe_corpus(model: Segmenter, corpus: Corpus, things: dict[int, list[Thing]], seed: int = 0) -> pd.DataFrame:
    """Ask the model for things that are in each image, and for things that are not.

    Columns: image (its number in the corpus), image_id, expression, kind, noun, colour; marked (share of the picture),
    responds (bool: at least ``RESPONSE`` marked), confidence; cause; on_noun and on_colour: whether
    what has most of the mask, thing or background, goes by the noun, and whether it has the colour.
    """
    image_of = corpus.image_of_ref[corpus.ref_of_expression]
    lines = []
    for image in range(len(corpus.images)):
        image_id = int(corpus.table["image_id"].iloc[np.flatnonzero(image_of == image)[0]])
        around = things[image_id]
        asked = probes(around, np.random.default_rng([seed, image_id]))
        picture = corpus.images[image].transpose(1, 2, 0)
        texts = [probe.text for probe in asked]
        masks = predict(model, picture, texts)
        for probe, probability in zip(asked, masks, strict=True):
            predicted = probability > 0.5
            truth = around[probe.target].mask if probe.target >= 0 else np.zeros_like(predicted)
            rivals = [t for k, t in enumerate(around) if k != probe.target and t.group != "stuff"]
            most, _ = most_covered(predicted, _stack(around, predicted.shape))
            marked = float(predicted.mean())
            line = {"image": image, "image_id": image_id, "expression": probe.text, "kind": probe.kind}
            line |= {"noun": probe.noun, "colour": probe.colour, "marked": marked, "responds": marked >= RESPONSE}
            line["confidence"] = confidence(probability)
            line["cause"] = diagnose(predicted, truth, _stack(rivals, predicted.shape)).cause
            line["on_noun"] = most >= 0 and probe.noun in around[most].nouns
            line["on_colour"] = most >= 0 and probe.colour == around[most].colour
            lines.append(line)
    return pd.DataFrame(lines)


def cause_table(diagnosed: pd.DataFrame) -> pd.DataFrame:
    """Counts of ``diagnose_corpus``, a line per kind of expression ("all" first) and cause.

    Columns: kind, cause, expressions; share of the kind's expressions in percent with its 95 % interval share_low,
    share_high over resampled images; iou and confidence (means, NaN for a cause that does not occur).
    """
    lines = []
    kinds = [kind for kind in KINDS if (diagnosed["kind"] == kind).any()]
    for kind in ("all", *kinds):
        part = diagnosed if kind == "all" else diagnosed[diagnosed["kind"] == kind]
        for cause in CAUSES:
            rows = part[part["cause"] == cause]
            line = {"kind": kind, "cause": cause, "expressions": len(rows)}
            line |= _share(part["image_id"], part["cause"] == cause)
            lines.append(line | {"iou": rows["iou"].mean(), "confidence": rows["confidence"].mean()})
    return pd.DataFrame(lines)


def probe_table(probed: pd.DataFrame) -> pd.DataFrame:
    """Summarise ``probe_corpus``, a row per kind of probe.

    Columns: kind, expressions; share that responds, in percent, with its 95 % interval share_low, share_high over
    resampled images; hits (percent); marked (mean percent of the picture); confidence (mean); on_noun, on_colour:
    percent of the responses that lie mostly on something of that noun, of that colour.
    """
    lines = []
    for kind in PROBES:
        part = probed[probed["kind"] == kind]
        if len(part):
            responses = part[part["responds"]]
            line = {"kind": kind, "expressions": len(part)} | _share(part["image_id"], part["responds"])
            line |= {"hits": 100 * (part["cause"] == "hit").mean(), "marked": 100 * part["marked"].mean()}
            line["confidence"] = part["confidence"].mean()
            lines.append(line | {name: 100 * responses[name].mean() for name in ("on_noun", "on_colour")})
    return pd.DataFrame(lines)


def _share(images: pd.Series, happened: pd.Series) -> dict[str, float]:
    """Percent of expressions for which ``happened`` is true, with the interval over resampled images."""
    per_image = happened.groupby(images).agg(["sum", "count"]).to_numpy(float)
    drawn = draws(len(per_image)) @ per_image
    shares = 100 * drawn[:, 0] / drawn[:, 1]
    low, high = interval(shares)
    return {"share": float(shares[0]), "share_low": low, "share_high": high}


def separability(present: np.ndarray, absent: np.ndarray) -> float:
    """The share of pairs in which the present referent has the higher value, ties counting half (the area under the ROC
    curve): 1 tells them apart, 0.5 not at all."""
    present, absent = np.asarray(present)[:, None], np.asarray(absent)[None]
    return float((present > absent).mean() + (present == absent).mean() / 2)
