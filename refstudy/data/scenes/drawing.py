"""Drawings of things: the parts listed in `drawings.yaml`, drawn with a pen."""

import math
import re
from dataclasses import dataclass
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any, NamedTuple

from refstudy.base.errors import StudyError
from refstudy.base.yaml_files import read_yaml

from .pen import Colour, Pen, Point, oval_points, shade


def _rgb(number: int) -> Colour:
    return number >> 16, number >> 8 & 255, number & 255


PATH = Path(__file__).with_name("drawings.yaml")
FILE: dict[str, Any] = read_yaml(PATH).content
PAINTS, COLOURS, HAIR, TROUSERS = (
    {name: _rgb(number) for name, number in FILE[kind].items()} for kind in ("paints", "colours", "hair", "trousers")
)
SKIN = tuple(map(_rgb, FILE["skin"]))
SURFACES = {name: [(colour, _rgb(number)) for colour, number in some] for name, some in FILE["surfaces"].items()}
SIZES = {"poly": 0, "box": 0, "line": 0, "limb": 1, "dot": 1, "oval": 2}  # how many a shape has
TERM = re.compile(r"([+-]?)([\d.]*)\*?([a-z]*)(?=[+-]|$)")
Sum = list[tuple[float, str]]  # numbers, each times a name, "" for none


@dataclass(frozen=True)
class Pose:
    """The differences between two things of one category and colour.

    ``extras`` of people: dress or jacket, walking, waving, bag, beard, glasses; of a bird: flying.
    """

    lean: float = 0.0  # -1..1: legs, tail
    skin: int = 0
    hair: str = "black"
    trousers: str = "blue"
    hat: str = ""  # its colour
    extras: frozenset[str] = frozenset()


class Part(NamedTuple):
    """A line of `drawings.yaml`, drawn in all states that it ``needs`` and none of those that ``bar`` it.

    ``groups``: of each shape, the points (x, y), or an arc as the numbers that describe it. ``options``: of the pen.
    """

    shape: str
    sizes: list[Sum]
    paint: str
    needs: list[str]
    bars: list[str]
    options: dict[str, bool]
    groups: list[list[list[Sum]]]


def _parts(name: str) -> list[Part]:
    parts = []
    for line in FILE["things"][name]:
        parts += _parts(line) if isinstance(line, str) else [_part(*about) for about in line.items()]
    return parts


def _part(about: str, points: str) -> Part:
    shape, *words = about.split()
    if shape not in SIZES:
        raise StudyError(f"{PATH}: unknown shape '{shape}' in '{about}'; known: {', '.join(SIZES)}")
    count = SIZES[shape]
    count += shape == "oval" and re.fullmatch(r"-?[\d.]+", words[2]) is not None  # its tilt
    needs, bars = (re.findall(rf" {word}=(\w+)", about) for word in ("if", "unless"))
    options = {"edge": False} if "flat" in words else {"body": True} if "body" in words else {}
    groups = [[_sums(point.strip().removeprefix("arc")) for point in group.split(",")] for group in points.split(";")]
    return Part(shape, _sums(" ".join(words[:count])), words[count], needs, bars, options, groups)


def _sums(text: str) -> list[Sum]:
    terms = [TERM.findall(word) for word in text.split()]
    return [[(float(f"{sign}{factor or 1}"), name) for sign, factor, name in some if factor or name] for some in terms]


def _numbers(sums: list[Sum], values: dict[str, float]) -> list[float]:
    # not ``sum``, which rounds otherwise from Python 3.12 on: the bytes of the scenes would depend on the version
    return [reduce(add, (factor * values[name] for factor, name in terms)) for terms in sums]


def _points(group: list[list[Sum]], values: dict[str, float]) -> list[Point]:
    found: list[Point] = []
    for point in group:
        first, second, *arc = _numbers(point, values)
        if arc:
            ru, rv, n, start, stop, tilt = arc + [0, 2, 0][len(arc) - 3 :]
            found += oval_points(first, second, ru, rv, tilt * math.pi, start * math.pi, stop * math.pi, int(n))
        else:
            found.append((first, second))
    return found


def _paint(text: str, paints: dict[str, Colour]) -> Colour:
    if "|" in text:
        bright, dark, least = re.split(r"[|@]", text)
        return _paint(bright if sum(paints["colour"]) > int(least) else dark, paints)
    name, _, factor = text.partition("*")
    colour = _rgb(int(name, 16)) if name.startswith("0x") else paints[name]
    return shade(colour, float(factor)) if factor else colour


DRAWINGS = {name: _parts(name) for name in FILE["things"]}


def draw(name: str, pen: Pen, colour: Colour, pose: Pose) -> None:
    """Draw a thing of the category ``name``, part over part."""
    child, extras, lean = name in ("boy", "girl"), pose.extras, pose.lean
    values = {"": 1.0, "lean": lean, "up": max(0.0, lean), "side": 1.0 if lean > 0 else -1.0}
    values |= {"head": 0.125 if child else 0.085, "neck": 0.74 if child else 0.82}
    values |= {"stride": 0.13 if "walking" in extras else 0.06, "raised": 0.3 if "waving" in extras else -0.26}
    values |= {"wing": 0.75 if "flying" in extras else 0.1}
    paints = PAINTS | {"colour": colour, "skin": SKIN[pose.skin], "hair": HAIR[pose.hair]}
    paints |= {"trousers": TROUSERS[pose.trousers], "hat": COLOURS.get(pose.hat, colour)}
    flags = {"female": name in ("woman", "girl"), "hat": bool(pose.hat), "patterned": pen.pattern != "plain"}
    states = extras | {flag for flag, is_set in flags.items() if is_set}
    for part in DRAWINGS[name]:
        if states.issuperset(part.needs) and states.isdisjoint(part.bars):
            fill, sizes = _paint(part.paint, paints), _numbers(part.sizes, values)
            for group in part.groups:
                getattr(pen, part.shape)(_points(group, values), fill, *sizes, **part.options)
