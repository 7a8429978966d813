"""Drawings of things: the parts listed in `drawings.yaml`, drawn with a pen; people and birds, which vary more, are
code."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
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
DARK = PAINTS["dark"]


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


Draw = Callable[[Pen, Colour, Pose], None]


Term = tuple[float, float, str]  # a number; and how much of what varies is added, "lean", "up" or "side"


class Part(NamedTuple):
    """A line of `drawings.yaml`; ``groups`` are the points (x, y) of each shape."""

    shape: str
    sizes: tuple[float, float, float]  # those that the shape has not are 0
    paint: str
    options: frozenset[str]
    groups: list[list[tuple[Term, Term]]]


SIZES = {"poly": 0, "body": 0, "box": 0, "line": 0, "limb": 1, "dot": 1, "wheel": 1, "oval": 2}  # how many a shape has


def _part(about: str, points: str) -> Part:
    shape, *words = about.split()
    if shape not in SIZES:
        raise StudyError(f"{PATH}: unknown shape '{shape}' in '{about}'; known: {', '.join(SIZES)}")
    count = SIZES[shape]
    count += shape == "oval" and re.fullmatch(r"-?[\d.]+", words[2]) is not None  # its tilt
    paint, *options = words[count:] or ["dark"]
    first, second, third = map(float, [*words[:count], "0", "0", "0"][:3])
    groups = [_points(group) for group in points.split(";")]
    return Part(shape, (first, second, third), paint, frozenset(options), groups)


def _points(text: str) -> list[tuple[Term, Term]]:
    found: list[tuple[Term, Term]] = []
    for point in text.split(","):
        first, *others = point.split()
        if first == "arc":
            u, v, ru, rv, n, start, stop, tilt = map(float, others + ["0", "2", "0"][len(others) - 5 :])
            arc = oval_points(u, v, ru, rv, tilt * math.pi, start * math.pi, stop * math.pi, int(n))
            found += [((x, 0.0, "lean"), (y, 0.0, "lean")) for x, y in arc]
        else:
            found.append((_term(first), _term(*others)))
    return found


def _term(text: str) -> Term:
    number, by, name = re.fullmatch(r"(-?[\d.]+)(?:([+-][\d.]+)\*(\w+))?", text).groups()  # type: ignore[union-attr]
    return float(number), float(by or 0), name or "lean"


def _paint(text: str, own: Colour) -> Colour:
    if "|" in text:
        bright, dark, least = re.split(r"[|@]", text)
        return _paint(bright if sum(own) > int(least) else dark, own)
    name, _, factor = text.partition("*")
    colour = own if name == "colour" else _rgb(int(name, 16)) if name.startswith("0x") else PAINTS[name]
    return shade(colour, float(factor)) if factor else colour


def draw_parts(parts: list[Part | str], pen: Pen, colour: Colour, pose: Pose) -> None:
    """Draw the parts of one thing; a name among them stands for all parts of that other thing."""
    varying = {"lean": pose.lean, "up": max(0.0, pose.lean), "side": 1.0 if pose.lean > 0 else -1.0}
    for part in parts:
        if isinstance(part, str):
            DRAWINGS[part](pen, colour, pose)
            continue
        shape, (size, high, tilt), paint, options, groups = part
        if "plain" in options and pen.pattern != "plain":
            continue
        fill, edge = _paint(paint, colour), "flat" not in options
        for group in groups:
            points: list[Point] = [
                (u + by * varying[name], v + by_v * varying[name_v]) for (u, by, name), (v, by_v, name_v) in group
            ]
            match shape:
                case "poly":
                    pen.poly(points, fill, edge)
                case "body":
                    pen.body(points, fill)
                case "box":
                    pen.box(*points[0], *points[1], fill)
                case "limb":
                    pen.limb(points, size, fill)
                case "line":
                    pen.line(points, fill)
                case "dot":
                    for u, v in points:
                        pen.dot(u, v, size, fill)
                case "wheel":
                    for u, v in points:
                        pen.oval(u, v, size, size, DARK)
                        pen.oval(u, v, size * 0.5, size * 0.5, (190, 192, 196))
                case "oval":
                    for u, v in points:
                        pen.oval(u, v, size, high, fill, tilt, edge, body="body" in options)


def person(pen: Pen, colour: Colour, pose: Pose, child: bool, female: bool) -> None:
    skin, hair, below = SKIN[pose.skin], HAIR[pose.hair], TROUSERS[pose.trousers]
    head, neck = (0.125, 0.74) if child else (0.085, 0.82)
    dress, stride = "dress" in pose.extras, 0.13 if "walking" in pose.extras else 0.06
    for side in (-1, 1):
        foot = side * stride
        pen.limb([(side * 0.05, 0.45), (foot, 0.03)], 0.06 if dress else 0.095, skin if dress else below)
        pen.limb([(foot, 0.02), (foot + 0.045, 0.02)], 0.045, DARK)
    if female:  # long hair behind the shoulders
        pen.oval(0, neck + 0.02, head * 1.15, head * 1.7, hair)
    if "bag" in pose.extras:
        pen.box(-0.3, neck - 0.5, -0.12, neck - 0.3, PAINTS["bag"])
        pen.limb([(-0.21, neck - 0.3), (-0.13, neck - 0.06)], 0.025, shade(PAINTS["bag"], 0.7))
    raised = 0.30 if "waving" in pose.extras else -0.26
    pen.limb([(-0.11, neck - 0.06), (-0.19, neck - 0.19), (-0.17, neck - 0.33)], 0.062, shade(colour, 0.85))
    pen.dot(-0.17, neck - 0.35, 0.034, skin)
    pen.limb([(0.11, neck - 0.06), (0.19, neck - 0.06 + raised * 0.4), (0.2, neck - 0.06 + raised)], 0.062, colour)
    pen.limb([(0.2, neck - 0.05 + raised), (0.2, neck - 0.04 + raised)], 0.06, skin)
    if dress:
        pen.body(
            [(-0.1, neck - 0.01), (0.1, neck - 0.01), (0.09, 0.56), (0.19, 0.25), (-0.19, 0.25), (-0.09, 0.56)], colour
        )
    else:
        pen.box(-0.1, 0.4, 0.1, 0.5, below)
        pen.body([(-0.14, neck - 0.02), (0.14, neck - 0.02), (0.115, 0.46), (-0.115, 0.46)], colour)
    if "jacket" in pose.extras:  # open, over something white
        pen.poly([(-0.04, neck - 0.02), (0.04, neck - 0.02), (0.03, 0.47), (-0.03, 0.47)], (244, 244, 244))
    pen.limb([(0, neck - 0.03), (0, neck)], 0.07, skin)
    pen.oval(0, neck + head, head * 0.92, head, skin)
    pen.poly(oval_points(0, neck + head * 1.15, head, head * 0.95, 0, 0.0, math.pi, 10), hair)
    if female:
        pen.limb([(-head * 0.9, neck + head * 1.1), (-head * 0.95, neck)], 0.035, hair)
    if "beard" in pose.extras:
        pen.poly(oval_points(0, neck + head * 0.75, head * 0.85, head * 0.85, 0, math.pi, 2 * math.pi, 9), hair)
    for eye in (-0.35, 0.4):
        pen.dot(eye * head, neck + head * 0.85, 0.011, DARK)
        if "glasses" in pose.extras:
            pen.oval(eye * head, neck + head * 0.87, head * 0.33, head * 0.27, (20, 20, 24))
    pen.dot(0.03 * head, neck + head * 0.4, 0.012, (170, 70, 66))
    if pose.hat:
        pen.box(-head * 0.85, neck + head * 1.25, head * 0.85, neck + head * 2.1, COLOURS[pose.hat])
        pen.limb([(-head * 1.4, neck + head * 1.3), (head * 1.4, neck + head * 1.3)], 0.035, COLOURS[pose.hat])


def bird(pen: Pen, colour: Colour, pose: Pose) -> None:
    flying = "flying" in pose.extras
    for u in () if flying else (-0.03, 0.1):
        pen.limb([(u, 0.3), (u, 0.03)], 0.045, (222, 144, 40))
        pen.limb([(u - 0.05, 0.02), (u + 0.09, 0.02)], 0.035, (222, 144, 40))
    pen.poly([(-0.3, 0.52), (-0.78, 0.44), (-0.74, 0.62), (-0.24, 0.66)], shade(colour, 0.7))
    pen.oval(0, 0.5, 0.4, 0.26, colour, 0.25, body=True)
    pen.oval(0.32, 0.78, 0.2, 0.19, colour)
    pen.poly([(0.48, 0.84), (0.72, 0.77), (0.48, 0.7)], (236, 160, 44))
    wing = 0.75 if flying else 0.1
    pen.poly([(0.16, 0.6), (-0.14, 0.44), (-0.52, 0.56 + wing), (-0.16, 0.68 + wing)], shade(colour, 0.75))
    pen.dot(0.37, 0.83, 0.035, DARK)


DRAWINGS: dict[str, Draw] = {
    name: partial(draw_parts, [line if isinstance(line, str) else _part(*next(iter(line.items()))) for line in lines])
    for name, lines in FILE["things"].items()
} | {
    "man": partial(person, child=False, female=False),
    "woman": partial(person, child=False, female=True),
    "boy": partial(person, child=True, female=False),
    "girl": partial(person, child=True, female=True),
    "bird": bird,
}
