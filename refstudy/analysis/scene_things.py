"""The annotated things and regions of RefScenes' pictures, with their names and masks."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from refstudy.data.batches import resize_mask
from refstudy.data.masks import decode_mask
from refstudy.data.scenes.things import BY_NAME, CATEGORIES


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


def scene_things(root: Path | str, dataset: str, image_ids: Iterable[int], side: int) -> dict[int, list[Thing]]:
    """All annotated things and regions of these images of RefScenes, masks resized to ``side``; image_id -> things."""
    instances = json.loads((Path(root) / dataset / "instances.json").read_text(encoding="utf-8"))
    categories = {category["id"]: category for category in instances["categories"]}
    sizes = {image["id"]: (image["height"], image["width"]) for image in instances["images"]}
    found: dict[int, list[Thing]] = {int(image): [] for image in image_ids}
    for annotation in instances["annotations"]:
        if annotation["image_id"] in found:
            name, group = (categories[annotation["category_id"]][key] for key in ("name", "supercategory"))
            mask = decode_mask(annotation["segmentation"], *sizes[annotation["image_id"]])
            thing = Thing(annotation["id"], name, group, annotation["color"], resize_mask(mask, side, side))
            found[annotation["image_id"]].append(thing)
    return found


def stacked(things: list[Thing], shape: tuple[int, ...]) -> np.ndarray:
    """The masks of some things, (n, S, S), also of none."""
    return np.stack([thing.mask for thing in things]) if things else np.zeros((0, *shape), bool)


def true_of(things: list[Thing], noun: str, colour: str) -> list[int]:
    """The numbers of the things that "colour noun" is true of. Background matches by name in any colour, since its
    shades are not annotated."""
    return [k for k, t in enumerate(things) if noun in t.nouns and (t.group == "stuff" or t.colour == colour)]
