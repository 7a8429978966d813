"""Statistics of a folder of RefScenes, for its test and for notebook 01."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from refstudy.data.forms.refer_files import read_pickle

WORD_EXPRESSIONS, OF_SCENES = 30, 12_000  # a word counts when it is in so many expressions of so many scenes
TOLD_APART = {("location", "front"): "near", ("location", "bottom"): "low", ("superlative", "big"): "area"}
DISAGREEING = {  # what is first by a word, and not by something else
    "the thing in front is not the lowest, % of cases": ("front", "low"),
    "the thing in front is not the largest, % of cases": ("front", "area"),
    "the thing at the bottom is not the nearest, % of cases": ("bottom", "near"),
    "the biggest thing is not the nearest, % of cases": ("big", "near"),
}


def things_of(folder: Path) -> pd.DataFrame:
    """Every visible thing of a folder: its annotation, with the centre of its box ``x``, ``low`` (y, from the top) and
    its ``area`` as shares of the picture. Background is left out."""
    instances = json.loads((folder / "instances.json").read_text(encoding="utf-8"))
    side = instances["images"][0]["width"]
    things = pd.DataFrame([one for one in instances["annotations"] if "near" in one])
    x, y, width, height = np.array(things["bbox"].tolist()).T / side
    return things.assign(x=x + width / 2, low=y + height / 2, area=things["area"] / side**2)


def sentences_of(folder: Path, split_by: str) -> list[dict[str, Any]]:
    """Every expression with its program, and of its referent ``ann_id`` and ``image_id``."""
    refs = read_pickle(folder / f"refs({split_by}).p")
    return [sent | {key: ref[key] for key in ("ann_id", "image_id")} for ref in refs for sent in ref["sentences"]]


def told_apart(folder: Path, split_by: str) -> pd.DataFrame:
    """Every expression with front, bottom or big, and whether its referent is also the nearest, the lowest and the
    largest of the things that its earlier words could mean. Columns: word, near, low, area."""
    by_image, lines = dict(list(things_of(folder).set_index("id").groupby("image_id"))), []
    for sentence in sentences_of(folder, split_by):
        for number, step in enumerate(sentence["program"]):
            if tuple(step[:2]) in TOLD_APART:
                things = by_image[sentence["image_id"]]
                facts = {fact for kind, fact, *_ in sentence["program"][:number] if kind == "fact"}
                among = things[[facts <= own.keys() for own in things["facts"]]]  # they fit, or might fit, all of them
                first = {name: among[name].idxmax() == sentence["ann_id"] for name in TOLD_APART.values()}
                lines.append({"word": step[1]} | first)
    return pd.DataFrame(lines)


def census(folder: Path, split_by: str) -> dict[str, float]:
    """The figures of a folder by their names, which end with a unit where it is not a count."""
    things, sentences = things_of(folder), sentences_of(folder, split_by)
    referents = things[things["id"].isin({sentence["ann_id"] for sentence in sentences})]
    by_image = things.groupby("image_id")
    alike = things.groupby(["image_id", "category_id"]).size().groupby("image_id").max()
    grounded = things[~things["airborne"]]
    near, low = (grounded[key] - grounded.groupby("image_id")[key].transform("mean") for key in ("near", "low"))
    counts = Counter(word for sentence in sentences for word in set(sentence["sent"].split()))
    common = sum(count * OF_SCENES >= WORD_EXPRESSIONS * by_image.ngroups for count in counts.values())
    lengths = np.array([len(sentence["sent"].split()) for sentence in sentences])
    apart = told_apart(folder, split_by).groupby("word").mean()
    sizes = by_image.size()
    figures: dict[str, float] = {"things per picture, mean": sizes.mean()}
    figures |= {"things per picture, fewest": sizes.min(), "things per picture, most": sizes.max()}
    figures |= {"pictures with several things of a kind, %": 100 * (alike > 1).mean()}
    figures |= {"referents cut by the border, %": 100 * (referents["inside"] < 0.97).mean()}
    figures |= {"referents partly hidden, %": 100 * (referents["shown"] < 0.97).mean()}
    figures |= {"nearer things stand lower, correlation": near.corr(low)}
    figures |= {"different words": len(counts), "different words that are not rare": common}
    figures |= {"words of the longest expression": lengths.max()}
    figures |= {"expressions of nine words and more, %": 100 * (lengths > 8).mean()}
    told = {name: pair for name, pair in DISAGREEING.items() if pair[0] in apart.index}
    return figures | {name: 100 * (1 - apart.loc[pair]) for name, pair in told.items()}
