"""The things of RefScenes: the categories of `categories.csv`."""

import csv
from collections.abc import Iterator
from pathlib import Path

from pydantic.dataclasses import dataclass

from refstudy.base.errors import StudyError

from .drawing import DRAWINGS, FILE

PATH = Path(__file__).with_name("categories.csv")
PALETTES: dict[str, list[str]] = FILE["palettes"]


@dataclass(frozen=True)
class Category:
    """A category: a line of `categories.csv`.

    ``nouns`` are names that expressions may use, ``loosely`` names that a reader may still take to mean it. ``places``
    are where it is found. ``height`` is the share of the picture's side that the thing measures in a middling shot,
    ``aspect`` width over height of what is drawn. ``traits``: patterned; walks; climbs (may stand on something);
    afloat, airborne, or flies (now and then); sideless (an animal or a vehicle that faces nowhere in particular).
    ``holds`` is how high its upper side is, of its height, where something can stand on it, else 0.
    """

    name: str
    nouns: tuple[str, ...]
    loosely: tuple[str, ...]
    group: str
    places: tuple[str, ...]
    colours: tuple[str, ...]
    height: float
    aspect: float
    traits: frozenset[str]
    holds: float


def _read() -> Iterator[Category]:
    with open(PATH, encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["name"] not in DRAWINGS:
                raise StudyError(f"{PATH}: '{row['name']}' has no drawing; add one to drawings.yaml")
            lists = {key: row[key].split() for key in ("nouns", "loosely", "places", "colours", "traits")}
            lists["colours"] = PALETTES.get(row["colours"], lists["colours"])
            yield Category(**row | lists | {"holds": row["holds"] or 0})


CATEGORIES = tuple(_read())
BY_NAME = {category.name: category for category in CATEGORIES}
