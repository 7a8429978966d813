"""Expressions that are true of nothing: the masks of a model for them, and its confidence in these masks."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from refstudy.analysis.failures import RESPONSE, SMALL, diagnose, most_covered
from refstudy.analysis.measures import jackknifed_mean, over_pictures, spelled
from refstudy.analysis.scene_things import Thing, stacked, true_of
from refstudy.base.config import THRESHOLD
from refstudy.data.batches import Corpus
from refstudy.data.scenes.things import CATEGORIES
from refstudy.models.segmenter import Segmenter
from refstudy.prediction.predict import confidence, predict

PROBES = ("present", "colour absent", "category absent")


class Probe(NamedTuple):
    """An expression of noun and colour. ``kind`` is one of ``PROBES``; ``target`` the thing it is true of, or -1."""

    text: str
    kind: str
    noun: str
    colour: str
    target: int


def probes(things: list[Thing], rng: np.random.Generator) -> list[Probe]:
    """At most one expression of each of ``PROBES``, all of one noun and one colour, as the grammar of RefScenes joins
    them.

    *present*: true of exactly one thing, not a small one. *colour absent*: things go by that noun, none in that colour.
    *category absent*: nothing goes by that noun. Colours are those in which RefScenes draws the category.
    """
    chosen: dict[str, list[Probe]] = {kind: [] for kind in PROBES}
    for category in CATEGORIES:
        for noun in category.nouns:
            absent = "colour absent" if any(noun in thing.nouns for thing in things) else "category absent"
            for colour in category.colours:
                text = f"{noun} in {colour}" if category.group == "person" else f"{colour} {noun}"
                meant = true_of(things, noun, colour)
                only = things[meant[0]] if len(meant) == 1 else None
                if not meant:
                    chosen[absent].append(Probe(text, absent, noun, colour, -1))
                elif only and only.group != "stuff" and only.mask.mean() >= SMALL:
                    chosen["present"].append(Probe(text, "present", noun, colour, meant[0]))
    return [options[int(rng.integers(len(options)))] for options in chosen.values() if options]


def probe_corpus(model: Segmenter, corpus: Corpus, things: dict[int, list[Thing]], seed: int = 0) -> pd.DataFrame:
    """Ask the model for things that are in each image, and for things that are not.

    Columns: image (its number in the corpus), image_id, expression, kind, noun, colour; marked (share of the picture),
    responds (bool: at least ``RESPONSE`` marked), confidence; cause; on_noun and on_colour: whether
    what has most of the mask, thing or background, goes by the noun, and whether it has the colour.
    """
    lines = []
    for image in range(len(corpus.images)):
        image_id = int(corpus.table["image_id"].iloc[corpus.rows_about(image)[0]])
        around = things[image_id]
        asked = probes(around, np.random.default_rng([seed, image_id]))
        masks = predict(model, corpus.image(image), [probe.text for probe in asked])
        for probe, probability in zip(asked, masks, strict=True):
            predicted = probability > THRESHOLD
            truth = around[probe.target].mask if probe.target >= 0 else np.zeros_like(predicted)
            rivals = [t for k, t in enumerate(around) if k != probe.target and t.group != "stuff"]
            most, _ = most_covered(predicted, stacked(around, predicted.shape))
            cause = diagnose(predicted, truth, stacked(rivals, predicted.shape)).cause
            on = (most >= 0 and probe.noun in around[most].nouns, most >= 0 and probe.colour == around[most].colour)
            marked = float(predicted.mean())
            about = (image, image_id, *probe[:4], marked, marked >= RESPONSE)
            lines.append((*about, confidence(probability), cause, *on))
    columns = "image image_id expression kind noun colour marked responds confidence cause on_noun on_colour"
    return pd.DataFrame(lines, columns=columns.split())


def probe_table(probed: pd.DataFrame) -> pd.DataFrame:
    """Summarise ``probe_corpus``, a row per kind of probe.

    Columns: kind, expressions; share that responds, in percent, with its 95 % interval share_low, share_high over
    pictures; hits (percent); marked (mean percent of the picture); confidence (mean); on_noun, on_colour:
    percent of the responses that lie mostly on something of that noun, of that colour.
    """
    lines = []
    for kind in PROBES:
        part = probed[probed["kind"] == kind]
        if len(part):
            responses = part[part["responds"]]
            share = over_pictures(jackknifed_mean(100 * part["responds"], part["image_id"]))
            line = {"kind": kind, "expressions": len(part)} | spelled("share", share, percent=True)
            line |= {"hits": 100 * (part["cause"] == "hit").mean(), "marked": 100 * part["marked"].mean()}
            line["confidence"] = part["confidence"].mean()
            lines.append(line | {name: 100 * responses[name].mean() for name in ("on_noun", "on_colour")})
    return pd.DataFrame(lines)


def separability(present: np.ndarray, absent: np.ndarray) -> float:
    """The share of pairs in which the present referent has the higher value, ties counting half (the area under the ROC
    curve): 1 for a perfect separation, 0.5 for none."""
    present, absent = np.asarray(present)[:, None], np.asarray(absent)[None]
    return float((present > absent).mean() + (present == absent).mean() / 2)
