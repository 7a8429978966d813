"""The things of RefScenes: how each category is drawn with a pen; `categories.csv` says the rest."""

import csv
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .pen import Colour, Pen, oval_points, shade

COLOURS: dict[str, Colour] = {
    "red": (208, 40, 38),
    "orange": (240, 138, 32),
    "yellow": (244, 212, 54),
    "green": (52, 150, 64),
    "blue": (44, 92, 200),
    "purple": (126, 58, 160),
    "pink": (244, 140, 180),
    "brown": (128, 82, 46),
    "black": (44, 44, 48),
    "white": (240, 240, 238),
    "gray": (138, 140, 144),
}
PALETTES = {
    "bright": ("red", "orange", "yellow", "green", "blue", "purple", "pink", "black", "white", "gray"),
    "fur": ("brown", "black", "white", "gray", "orange"),
}
SKIN = ((244, 206, 172), (224, 172, 130), (172, 116, 78), (112, 72, 50))
HAIR = {"black": (40, 28, 22), "brown": (104, 62, 32), "blond": (226, 184, 92), "gray": (168, 168, 170)}
TROUSERS = {"blue": (52, 84, 140), "black": (48, 48, 52), "brown": (124, 96, 66), "gray": (128, 130, 134)}
DARK, GLASS, METAL, WOOD, BAG = (40, 40, 44), (176, 214, 232), (120, 124, 130), (150, 104, 62), (150, 92, 44)


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


@dataclass(frozen=True)
class Category:
    """A category: a line of `categories.csv`, and its drawing.

    ``nouns`` are names that expressions may use, ``loosely`` names that a reader may still take to mean it. ``places``
    are where it is found. ``height`` is the share of the picture's side that the thing measures in a middling shot,
    ``aspect`` width over height of what is drawn. ``traits``: patterned; walks; climbs (may stand on something);
    afloat, airborne, or flies (now and then). ``holds`` is how high its upper side is, of its height, where something
    can stand on it, else 0.
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
    draw: Draw


def wheel(pen: Pen, u: float, v: float, radius: float) -> None:
    pen.oval(u, v, radius, radius, DARK)
    pen.oval(u, v, radius * 0.5, radius * 0.5, (190, 192, 196))


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
        pen.box(-0.3, neck - 0.5, -0.12, neck - 0.3, BAG)
        pen.limb([(-0.21, neck - 0.3), (-0.13, neck - 0.06)], 0.025, shade(BAG, 0.7))
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


def man(pen: Pen, colour: Colour, pose: Pose) -> None:
    person(pen, colour, pose, child=False, female=False)


def woman(pen: Pen, colour: Colour, pose: Pose) -> None:
    person(pen, colour, pose, child=False, female=True)


def boy(pen: Pen, colour: Colour, pose: Pose) -> None:
    person(pen, colour, pose, child=True, female=False)


def girl(pen: Pen, colour: Colour, pose: Pose) -> None:
    person(pen, colour, pose, child=True, female=True)


def four_legs(pen: Pen, colour: Colour, spread: float, top: float, width: float, lean: float) -> None:
    for u, dark in ((-spread + 0.1, 0.75), (spread - 0.06, 0.75), (-spread, 1.0), (spread, 1.0)):
        pen.limb([(u, top), (u + 0.05 * lean * (1 if dark == 1 else -1), 0.03)], width, shade(colour, dark))


def dog(pen: Pen, colour: Colour, pose: Pose) -> None:
    pen.limb([(-0.48, 0.55), (-0.64, 0.72 + 0.16 * pose.lean)], 0.08, colour)
    four_legs(pen, colour, 0.36, 0.4, 0.115, pose.lean)
    pen.oval(0, 0.47, 0.5, 0.2, colour, body=True)
    pen.limb([(0.38, 0.55), (0.5, 0.72)], 0.2, colour)
    pen.oval(0.54, 0.8, 0.18, 0.16, colour)
    pen.oval(0.71, 0.74, 0.12, 0.08, shade(colour, 1.2))
    pen.oval(0.44, 0.76, 0.065, 0.17, shade(colour, 0.6), 0.2)
    pen.dot(0.81, 0.77, 0.035, DARK)
    pen.dot(0.58, 0.85, 0.026, DARK)


def cat(pen: Pen, colour: Colour, pose: Pose) -> None:
    pen.limb([(-0.3, 0.14), (-0.52, 0.3), (-0.46, 0.56 + 0.1 * pose.lean)], 0.08, shade(colour, 0.85))
    pen.body(oval_points(0, 0.3, 0.34, 0.36), colour)
    for side in (-1, 1):
        pen.oval(side * 0.16, 0.06, 0.12, 0.065, shade(colour, 1.15))
        pen.poly([(side * 0.09, 0.9), (side * 0.26, 0.84), (side * 0.24, 1.04)], shade(colour, 0.8))
    pen.oval(0, 0.74, 0.27, 0.23, colour)
    for side in (-1, 1):
        pen.dot(side * 0.11, 0.78, 0.038, (214, 214, 90))
        pen.dot(side * 0.11, 0.78, 0.02, DARK)
        pen.canvas.draw.line(pen._place([(side * 0.08, 0.66), (side * 0.3, 0.69)]), fill=(228, 228, 228))
    pen.dot(0, 0.69, 0.026, (228, 128, 128))


def horse(pen: Pen, colour: Colour, pose: Pose) -> None:
    pen.limb([(-0.38, 0.6), (-0.52, 0.46), (-0.52, 0.24)], 0.075, shade(colour, 0.5))
    four_legs(pen, colour, 0.3, 0.45, 0.075, pose.lean)
    pen.oval(0, 0.53, 0.4, 0.155, colour, body=True)
    pen.poly([(0.22, 0.62), (0.36, 0.46), (0.5, 0.84), (0.38, 0.92)], colour)
    pen.limb([(0.26, 0.68), (0.4, 0.93)], 0.055, shade(colour, 0.45))
    pen.poly([(0.37, 0.94), (0.47, 0.95), (0.68, 0.76), (0.62, 0.68), (0.44, 0.78)], colour)
    pen.poly([(0.39, 0.93), (0.46, 0.94), (0.42, 1.02)], shade(colour, 0.7))
    pen.dot(0.49, 0.87, 0.018, DARK)


def cow(pen: Pen, colour: Colour, pose: Pose) -> None:
    pen.limb([(-0.5, 0.68), (-0.58, 0.36)], 0.035, shade(colour, 0.7))
    four_legs(pen, colour, 0.38, 0.42, 0.1, pose.lean)
    pen.body([(-0.52, 0.76), (0.4, 0.78), (0.52, 0.6), (0.42, 0.36), (-0.46, 0.36), (-0.55, 0.55)], colour)
    patch = (60, 52, 48) if sum(colour) > 400 else (236, 234, 228)
    if pen.pattern == "plain":
        pen.oval(-0.22, 0.62, 0.15, 0.1, patch, 0.3, edge=False)
        pen.oval(0.18, 0.52, 0.11, 0.1, patch, -0.4, edge=False)
    pen.oval(-0.25, 0.36, 0.08, 0.06, (240, 176, 176))
    pen.poly([(0.4, 0.86), (0.62, 0.88), (0.72, 0.62), (0.56, 0.56), (0.42, 0.68)], colour)
    pen.oval(0.66, 0.61, 0.1, 0.075, (240, 190, 180))
    pen.limb([(0.44, 0.88), (0.4, 0.99)], 0.035, (236, 230, 208))
    pen.limb([(0.58, 0.89), (0.64, 0.99)], 0.035, (236, 230, 208))
    pen.dot(0.56, 0.77, 0.024, DARK)


def sheep(pen: Pen, colour: Colour, pose: Pose) -> None:
    face = (70, 62, 58) if sum(colour) > 240 else (206, 196, 184)
    four_legs(pen, face, 0.28, 0.34, 0.085, pose.lean)
    for u, v, r in (
        (-0.34, 0.5, 0.2),
        (-0.14, 0.64, 0.23),
        (0.12, 0.65, 0.23),
        (0.32, 0.52, 0.2),
        (-0.12, 0.4, 0.2),
        (0.14, 0.4, 0.2),
    ):
        pen.oval(u, v, r, r * 0.92, colour)
    pen.oval(0, 0.52, 0.36, 0.22, colour, edge=False, body=True)
    pen.oval(0.5, 0.68, 0.14, 0.18, face, 0.3)
    pen.oval(0.36, 0.74, 0.1, 0.05, face, 0.6)
    pen.oval(0.44, 0.84, 0.12, 0.08, colour)
    pen.dot(0.54, 0.73, 0.03, (240, 240, 240))


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


def elephant(pen: Pen, colour: Colour, pose: Pose) -> None:
    pen.limb([(-0.5, 0.7), (-0.6, 0.42)], 0.035, shade(colour, 0.7))
    four_legs(pen, colour, 0.34, 0.45, 0.17, pose.lean * 0.6)
    pen.oval(-0.04, 0.62, 0.5, 0.3, colour, body=True)
    pen.oval(0.48, 0.74, 0.24, 0.23, colour)
    pen.limb([(0.64, 0.68), (0.76, 0.44), (0.74, 0.24), (0.82, 0.18 + 0.1 * max(0.0, pose.lean))], 0.105, colour)
    pen.limb([(0.6, 0.57), (0.78, 0.55)], 0.05, (246, 242, 226))
    pen.oval(0.32, 0.72, 0.16, 0.24, shade(colour, 0.78), 0.1)
    pen.dot(0.56, 0.81, 0.022, DARK)


def car(pen: Pen, colour: Colour, pose: Pose) -> None:
    pen.poly([(-0.62, 0.56), (-0.42, 0.98), (0.3, 0.98), (0.62, 0.56)], colour)
    pen.poly([(-0.5, 0.58), (-0.36, 0.88), (-0.06, 0.88), (-0.06, 0.58)], GLASS)
    pen.poly([(0.02, 0.58), (0.02, 0.88), (0.26, 0.88), (0.5, 0.58)], GLASS)
    pen.body([(-1.02, 0.2), (-1.02, 0.5), (-0.9, 0.6), (0.66, 0.6), (0.98, 0.5), (1.04, 0.2)], colour)
    for u in (-0.6, 0.62):
        wheel(pen, u, 0.2, 0.21)
    pen.oval(0.98, 0.42, 0.06, 0.07, (250, 240, 170))
    pen.box(-1.04, 0.36, -0.96, 0.48, (190, 30, 30))
    pen.limb([(-0.12, 0.5), (0.0, 0.5)], 0.03, shade(colour, 0.5))


def bus(pen: Pen, colour: Colour, pose: Pose) -> None:
    pen.body([(-0.98, 0.14), (-0.98, 0.94), (-0.92, 1.0), (0.9, 1.0), (0.98, 0.9), (0.98, 0.14)], colour)
    for k in range(5):
        pen.box(-0.9 + 0.31 * k, 0.56, -0.65 + 0.31 * k, 0.84, GLASS)
    pen.box(0.7, 0.16, 0.9, 0.84, shade(GLASS, 0.85))
    pen.box(-0.98, 0.36, 0.66, 0.44, shade(colour, 1.5))
    for u in (-0.58, 0.44):
        wheel(pen, u, 0.15, 0.155)


def truck(pen: Pen, colour: Colour, pose: Pose) -> None:
    pen.box(-1.0, 0.2, 1.0, 0.28, DARK)
    pen.box(-1.0, 0.28, 0.38, 1.0, (226, 226, 220))
    for k in range(4):
        pen.limb([(-0.85 + 0.33 * k, 0.34), (-0.85 + 0.33 * k, 0.94)], 0.02, (184, 184, 178))
    pen.body([(0.44, 0.24), (0.44, 0.86), (0.76, 0.86), (0.94, 0.56), (1.02, 0.52), (1.02, 0.24)], colour)
    pen.poly([(0.56, 0.56), (0.56, 0.78), (0.74, 0.78), (0.87, 0.56)], GLASS)
    for u in (-0.72, -0.32, 0.72):
        wheel(pen, u, 0.17, 0.175)
    pen.oval(1.0, 0.4, 0.035, 0.05, (250, 240, 170))


def bicycle(pen: Pen, colour: Colour, pose: Pose) -> None:
    for u in (-0.5, 0.5):
        rim = oval_points(u, 0.33, 0.31, 0.31, n=24)
        pen.limb([*rim, rim[0]], 0.06, DARK)
        pen.limb([(u, 0.33), (u, 0.34)], 0.07, METAL)
        spokes = oval_points(u, 0.33, 0.28, 0.28, n=6)
        for k in range(3):
            pen.canvas.draw.line(pen._place([spokes[k], spokes[k + 3]]), fill=METAL)
    pen.limb([(-0.5, 0.33), (-0.16, 0.72), (0.34, 0.74), (0.0, 0.33), (-0.5, 0.33)], 0.085, colour)
    pen.limb([(0.0, 0.33), (-0.18, 0.82)], 0.085, colour)
    pen.limb([(0.5, 0.33), (0.32, 0.9)], 0.085, colour)
    pen.limb([(-0.28, 0.86), (-0.08, 0.86)], 0.09, DARK)
    pen.limb([(0.3, 0.9), (0.46, 0.96)], 0.07, DARK)


def boat(pen: Pen, colour: Colour, pose: Pose) -> None:
    pen.limb([(0.0, 0.26), (0.0, 1.0)], 0.035, WOOD)
    pen.poly([(0.04, 0.98), (0.04, 0.36), (0.46, 0.36)], (248, 246, 238))
    pen.poly([(-0.04, 0.9), (-0.04, 0.36), (-0.38, 0.36)], (228, 226, 216))
    pen.body([(-0.62, 0.28), (0.66, 0.28), (0.44, 0.02), (-0.44, 0.02)], colour)
    pen.limb([(-0.62, 0.28), (0.66, 0.28)], 0.05, shade(colour, 0.6))


def zebra(pen: Pen, colour: Colour, pose: Pose) -> None:
    horse(pen, colour, pose)
    for k in range(7):
        u = -0.32 + 0.09 * k
        pen.limb([(u, 0.42), (u + 0.04, 0.65)], 0.035, DARK)
    for k in range(3):
        pen.limb([(0.3 + 0.05 * k, 0.6 + 0.09 * k), (0.4 + 0.03 * k, 0.58 + 0.09 * k)], 0.03, DARK)


def pig(pen: Pen, colour: Colour, pose: Pose) -> None:
    four_legs(pen, colour, 0.36, 0.35, 0.13, pose.lean * 0.5)
    pen.limb([(-0.56, 0.55), (-0.68, 0.62), (-0.64, 0.72)], 0.05, colour)
    pen.oval(-0.04, 0.52, 0.56, 0.36, colour, body=True)
    pen.oval(0.48, 0.62, 0.28, 0.28, colour)
    pen.oval(0.72, 0.56, 0.11, 0.13, shade(colour, 0.8))
    pen.poly([(0.34, 0.82), (0.52, 0.84), (0.4, 1.02)], shade(colour, 0.75))
    pen.dot(0.56, 0.7, 0.035, DARK)


def giraffe(pen: Pen, colour: Colour, pose: Pose) -> None:
    pen.limb([(-0.26, 0.5), (-0.32, 0.3)], 0.025, shade(colour, 0.5))
    four_legs(pen, colour, 0.2, 0.4, 0.05, pose.lean * 0.5)
    pen.oval(0, 0.47, 0.26, 0.11, colour)
    pen.poly([(0.08, 0.5), (0.24, 0.46), (0.3, 0.9), (0.22, 0.92)], colour)
    pen.poly([(0.2, 0.94), (0.28, 0.96), (0.42, 0.86), (0.38, 0.82), (0.24, 0.86)], colour)
    pen.limb([(0.23, 0.94), (0.22, 0.99)], 0.02, shade(colour, 0.5))
    for u, v in ((-0.15, 0.5), (-0.02, 0.46), (0.1, 0.5), (-0.1, 0.42), (0.18, 0.58), (0.22, 0.7), (0.25, 0.82)):
        pen.dot(u, v, 0.035, shade(colour, 0.55))
    pen.dot(0.29, 0.91, 0.012, DARK)


def bear(pen: Pen, colour: Colour, pose: Pose) -> None:
    four_legs(pen, colour, 0.36, 0.4, 0.2, pose.lean * 0.5)
    pen.oval(-0.04, 0.58, 0.54, 0.34, colour, body=True)
    for u in (0.36, 0.56):
        pen.oval(u, 0.95, 0.08, 0.08, shade(colour, 0.7))
    pen.oval(0.46, 0.76, 0.24, 0.22, colour)
    pen.oval(0.64, 0.69, 0.13, 0.1, shade(colour, 1.35))
    pen.dot(0.74, 0.72, 0.04, DARK)
    pen.dot(0.5, 0.82, 0.025, DARK)


def duck(pen: Pen, colour: Colour, pose: Pose) -> None:
    for u in (-0.06, 0.1):
        pen.limb([(u, 0.2), (u, 0.03), (u + 0.1, 0.02)], 0.06, (236, 140, 30))
    pen.poly([(-0.3, 0.36), (-0.62, 0.62), (-0.2, 0.6)], colour)
    pen.oval(-0.02, 0.38, 0.42, 0.24, colour, body=True)
    pen.limb([(0.3, 0.5), (0.34, 0.76)], 0.17, colour)
    pen.oval(0.36, 0.82, 0.18, 0.17, colour)
    pen.poly([(0.5, 0.86), (0.68, 0.78), (0.5, 0.74)], (240, 150, 30))
    pen.oval(-0.08, 0.42, 0.24, 0.12, shade(colour, 0.8), -0.2)
    pen.dot(0.4, 0.87, 0.03, DARK)


def van(pen: Pen, colour: Colour, pose: Pose) -> None:
    pen.body([(-0.86, 0.14), (-0.86, 0.9), (-0.8, 0.98), (0.36, 0.98), (0.66, 0.6), (0.88, 0.52), (0.88, 0.14)], colour)
    pen.poly([(0.14, 0.6), (0.14, 0.88), (0.34, 0.88), (0.56, 0.6)], GLASS)
    for u in (-0.72, -0.3):
        pen.box(u, 0.6, u + 0.34, 0.86, GLASS)
    pen.box(-0.86, 0.34, 0.86, 0.4, shade(colour, 0.7))
    for u in (-0.5, 0.52):
        wheel(pen, u, 0.17, 0.17)
    pen.oval(0.85, 0.44, 0.04, 0.06, (250, 240, 170))


def plane(pen: Pen, colour: Colour, pose: Pose) -> None:
    pen.poly([(-1.0, 0.5), (-1.1, 1.0), (-0.86, 1.0), (-0.66, 0.6)], shade(colour, 0.75))
    pen.oval(0, 0.48, 1.08, 0.2, colour)
    for k in range(6):
        pen.dot(-0.5 + 0.2 * k, 0.52, 0.045, (60, 80, 110))
    pen.poly([(0.86, 0.56), (1.0, 0.56), (0.94, 0.66), (0.82, 0.64)], GLASS)
    pen.poly([(0.2, 0.44), (-0.16, 0.44), (-0.5, 0.0), (-0.28, 0.0)], shade(colour, 0.7))


def balloon(pen: Pen, colour: Colour, pose: Pose) -> None:
    pen.limb([(0, 0.38), (0.04, 0.2), (-0.03, 0.02)], 0.022, METAL)
    pen.oval(0, 0.68, 0.28, 0.32, colour)
    pen.poly([(-0.05, 0.33), (0.05, 0.33), (0, 0.38)], shade(colour, 0.7))
    pen.oval(-0.1, 0.8, 0.05, 0.08, shade(colour, 1.6), 0.3, edge=False)


def kite(pen: Pen, colour: Colour, pose: Pose) -> None:
    pen.limb([(0, 0.3), (0.12, 0.2), (-0.04, 0.1), (0.06, 0.02)], 0.025, METAL)
    pen.poly([(0, 1.0), (0.38, 0.68), (0, 0.3), (-0.38, 0.68)], colour)
    pen.poly([(0, 1.0), (0, 0.68), (0.38, 0.68)], shade(colour, 1.5))
    pen.poly([(0, 0.68), (0, 0.3), (-0.38, 0.68)], shade(colour, 0.7))


def bed(pen: Pen, colour: Colour, pose: Pose) -> None:
    for u in (-0.94, 0.94):
        pen.limb([(u, 0.4), (u, 0.04)], 0.09, WOOD)
    pen.box(-1.02, 0.1, -0.9, 1.0, WOOD)
    pen.box(-0.94, 0.14, 0.98, 0.34, shade(WOOD, 0.8))
    pen.body([(-0.9, 0.34), (1.0, 0.34), (0.98, 0.56), (-0.9, 0.56)], colour)
    pen.poly([(-0.88, 0.56), (-0.4, 0.56), (-0.46, 0.74), (-0.84, 0.74)], (250, 250, 246))


def bench(pen: Pen, colour: Colour, pose: Pose) -> None:
    for u in (-0.74, 0.74):
        pen.limb([(u, 0.5), (u, 0.04)], 0.08, DARK)
    for v in (0.66, 0.86):
        pen.box(-0.92, v, 0.92, v + 0.14, colour)
    pen.box(-0.94, 0.42, 0.94, 0.56, shade(colour, 0.8))


def tv(pen: Pen, colour: Colour, pose: Pose) -> None:
    pen.box(-0.28, 0.0, 0.28, 0.06, METAL)
    pen.limb([(0, 0.05), (0, 0.2)], 0.09, METAL)
    pen.box(-0.74, 0.14, 0.74, 1.0, colour)
    pen.box(-0.66, 0.22, 0.66, 0.92, (96, 150, 190))
    pen.poly([(-0.66, 0.22), (0.66, 0.22), (0.2, 0.56), (-0.1, 0.4), (-0.4, 0.62)], (90, 150, 90), edge=False)


def plant(pen: Pen, colour: Colour, pose: Pose) -> None:
    for u, v in ((-0.24, 0.74), (0.02, 0.88), (0.25, 0.7)):
        pen.limb([(0, 0.3), (u, v)], 0.04, (60, 130, 60))
        pen.oval(u * 0.6, 0.5, 0.13, 0.06, (72, 150, 70), 0.5 if u < 0 else -0.5)
        for p, q in ((-0.07, 0), (0.07, 0), (0, 0.07), (0, -0.07)):
            pen.oval(u + p, v + q, 0.065, 0.065, colour)
        pen.dot(u, v, 0.045, (250, 220, 80))
    pen.poly([(-0.24, 0.34), (0.24, 0.34), (0.17, 0.0), (-0.17, 0.0)], (176, 96, 62))


def clock(pen: Pen, colour: Colour, pose: Pose) -> None:
    pen.limb([(-0.28, 0.08), (-0.34, 0.02)], 0.08, shade(colour, 0.6))
    pen.limb([(0.28, 0.08), (0.34, 0.02)], 0.08, shade(colour, 0.6))
    pen.oval(0, 0.5, 0.5, 0.5, colour)
    pen.oval(0, 0.5, 0.39, 0.39, (248, 248, 244))
    pen.limb([(0, 0.5), (0, 0.8)], 0.045, DARK)
    pen.limb([(0, 0.5), (0.2 * (1 if pose.lean > 0 else -1), 0.42)], 0.055, DARK)


def pear(pen: Pen, colour: Colour, pose: Pose) -> None:
    pen.limb([(0, 0.84), (0.05, 0.98)], 0.05, (90, 60, 34))
    pen.oval(0, 0.64, 0.2, 0.25, colour)
    pen.oval(0, 0.34, 0.36, 0.34, colour)
    pen.oval(0, 0.5, 0.2, 0.22, colour, edge=False)
    pen.oval(-0.16, 0.44, 0.05, 0.1, shade(colour, 1.5), 0.3, edge=False)


def carrot(pen: Pen, colour: Colour, pose: Pose) -> None:
    for v in (0.2, 0.5, 0.8):
        pen.limb([(-0.8, 0.5), (-1.2, v)], 0.13, (72, 150, 60))
    pen.poly([(-0.86, 0.86), (-0.7, 1.0), (1.3, 0.52), (1.3, 0.44), (-0.7, 0.0), (-0.86, 0.14)], colour)
    for u in (-0.4, 0.1, 0.5):
        pen.limb([(u, 0.62), (u + 0.04, 0.82 - 0.2 * u)], 0.06, shade(colour, 0.75))


def donut(pen: Pen, colour: Colour, pose: Pose) -> None:
    pen.oval(0, 0.44, 0.7, 0.44, (212, 160, 96))
    pen.oval(0, 0.56, 0.64, 0.38, colour)
    pen.oval(0, 0.58, 0.2, 0.1, shade((212, 160, 96), 0.55))
    for k in range(8):
        u, v = oval_points(0, 0.56, 0.44, 0.25, n=8)[k]
        pen.dot(u, v, 0.035, ((250, 240, 90), (90, 200, 230), (250, 250, 250))[k % 3])


def sandwich(pen: Pen, colour: Colour, pose: Pose) -> None:
    bread = (214, 164, 96) if sum(colour) > 300 else (176, 116, 62)
    pen.box(-0.62, 0.02, 0.62, 0.24, bread)
    pen.box(-0.68, 0.24, 0.68, 0.34, (80, 170, 70))
    pen.box(-0.64, 0.34, 0.64, 0.46, (130, 62, 44))
    pen.box(-0.66, 0.46, 0.66, 0.54, (250, 206, 70))
    pen.poly(oval_points(0, 0.54, 0.66, 0.44, 0, 0, math.pi, 12), bread)
    for u, v in ((-0.3, 0.76), (0.0, 0.86), (0.3, 0.74)):
        pen.dot(u, v, 0.03, (250, 240, 210))


def bowl(pen: Pen, colour: Colour, pose: Pose) -> None:
    pen.oval(0, 0.8, 0.84, 0.2, shade(colour, 0.7))
    pen.oval(0, 0.84, 0.6, 0.14, (226, 190, 120), edge=False)
    pen.body([(-0.84, 0.78), (0.84, 0.78), (0.6, 0.22), (0.32, 0.0), (-0.32, 0.0), (-0.6, 0.22)], colour)


def vase(pen: Pen, colour: Colour, pose: Pose) -> None:
    outline = ((-0.15, 0.0), (-0.3, 0.34), (-0.26, 0.58), (-0.1, 0.78), (-0.18, 0.98))
    pen.body([*outline, *((-u, v) for u, v in reversed(outline))], colour)
    pen.oval(0, 0.97, 0.18, 0.03, shade(colour, 0.6))


def laptop(pen: Pen, colour: Colour, pose: Pose) -> None:
    pen.poly([(-0.58, 0.26), (0.58, 0.26), (0.5, 1.0), (-0.5, 1.0)], colour)
    pen.poly([(-0.5, 0.32), (0.5, 0.32), (0.43, 0.93), (-0.43, 0.93)], (110, 170, 220))
    pen.poly([(-0.58, 0.26), (0.58, 0.26), (0.72, 0.0), (-0.72, 0.0)], shade(colour, 0.85))
    pen.poly([(-0.5, 0.22), (0.5, 0.22), (0.55, 0.12), (-0.55, 0.12)], (60, 60, 64))


def suitcase(pen: Pen, colour: Colour, pose: Pose) -> None:
    pen.limb([(-0.16, 0.8), (-0.16, 0.98), (0.16, 0.98), (0.16, 0.8)], 0.05, METAL)
    for u in (-0.28, 0.28):
        pen.oval(u, 0.04, 0.05, 0.04, DARK)
    pen.box(-0.42, 0.06, 0.42, 0.82, colour)
    for u in (-0.22, 0.0, 0.22):
        pen.limb([(u, 0.16), (u, 0.72)], 0.03, shade(colour, 0.65))


def teddy(pen: Pen, colour: Colour, pose: Pose) -> None:
    for side in (-1, 1):
        pen.oval(side * 0.28, 0.12, 0.14, 0.12, shade(colour, 0.85))
        pen.oval(side * 0.32, 0.42, 0.09, 0.18, shade(colour, 0.9), side * 0.5)
        pen.oval(side * 0.22, 0.92, 0.09, 0.09, shade(colour, 0.8))
    pen.oval(0, 0.34, 0.28, 0.3, colour)
    pen.oval(0, 0.3, 0.16, 0.18, shade(colour, 1.4))
    pen.oval(0, 0.74, 0.27, 0.23, colour)
    pen.oval(0, 0.67, 0.11, 0.08, shade(colour, 1.4))
    for u in (-0.1, 0.1):
        pen.dot(u, 0.8, 0.03, DARK)
    pen.dot(0, 0.7, 0.035, DARK)


def box(pen: Pen, colour: Colour, pose: Pose) -> None:
    pen.box(-0.62, 0.0, 0.62, 0.98, colour)
    for v in (0.1, 0.5, 0.9):
        pen.limb([(-0.56, v), (0.56, v)], 0.04, shade(colour, 0.7))
    pen.limb([(-0.52, 0.1), (0.52, 0.9)], 0.07, shade(colour, 0.75))


def rock(pen: Pen, colour: Colour, pose: Pose) -> None:
    pen.poly([(-0.78, 0.0), (-0.7, 0.5), (-0.42, 0.9), (-0.1, 0.96), (0.4, 0.92), (0.66, 0.6), (0.8, 0.0)], colour)
    pen.poly([(-0.42, 0.9), (-0.1, 0.96), (-0.02, 0.5), (-0.36, 0.34)], shade(colour, 1.25), edge=False)
    pen.poly([(0.1, 0.3), (0.66, 0.6), (0.8, 0.0), (0.2, 0.0)], shade(colour, 0.75), edge=False)


def sign(pen: Pen, colour: Colour, pose: Pose) -> None:
    pen.limb([(0, 0.6), (0, 0.02)], 0.05, METAL)
    pen.poly(oval_points(0, 0.76, 0.24, 0.24, math.pi / 8, n=8), (246, 246, 244))
    pen.poly(oval_points(0, 0.76, 0.21, 0.21, math.pi / 8, n=8), colour)
    pen.box(-0.13, 0.71, 0.13, 0.81, (246, 246, 244))


def hydrant(pen: Pen, colour: Colour, pose: Pose) -> None:
    pen.box(-0.24, 0.0, 0.24, 0.1, shade(colour, 0.7))
    pen.box(-0.17, 0.1, 0.17, 0.76, colour)
    pen.poly(oval_points(0, 0.76, 0.2, 0.24, 0, 0, math.pi, 10), colour)
    for side in (-1, 1):
        pen.box(side * 0.3, 0.46, side * 0.16, 0.62, shade(colour, 0.75))
    pen.oval(0, 0.52, 0.09, 0.09, METAL)


def surfboard(pen: Pen, colour: Colour, pose: Pose) -> None:
    pen.oval(0, 0.5, 0.14, 0.5, colour, body=True)
    pen.limb([(0, 0.06), (0, 0.94)], 0.025, shade(colour, 0.6))


def chair(pen: Pen, colour: Colour, pose: Pose) -> None:
    dark = shade(colour, 0.7)
    for u in (-0.24, 0.3):
        pen.limb([(u, 0.45), (u + 0.02, 0.03)], 0.055, dark)
    pen.limb([(-0.1, 0.45), (-0.1, 0.1)], 0.05, dark)
    pen.limb([(0.17, 0.42), (0.17, 0.1)], 0.05, dark)
    pen.body([(-0.3, 0.46), (-0.2, 0.46), (-0.22, 1.0), (-0.32, 1.0)], colour)
    pen.body([(-0.22, 0.6), (0.02, 0.64), (0.0, 0.98), (-0.24, 1.0)], colour)
    pen.body([(-0.3, 0.42), (0.34, 0.42), (0.3, 0.54), (-0.22, 0.54)], colour)


def sofa(pen: Pen, colour: Colour, pose: Pose) -> None:
    for u in (-0.85, 0.85):
        pen.limb([(u, 0.12), (u, 0.03)], 0.08, WOOD)
    pen.body([(-0.88, 0.3), (-0.86, 0.96), (-0.78, 1.0), (0.78, 1.0), (0.86, 0.96), (0.88, 0.3)], colour)
    for u in (-0.42, 0.42):
        pen.poly([(u - 0.4, 0.34), (u + 0.4, 0.34), (u + 0.38, 0.56), (u - 0.38, 0.56)], shade(colour, 1.2))
    pen.box(-0.86, 0.1, 0.86, 0.34, shade(colour, 0.85))
    for u in (-0.94, 0.94):
        pen.poly([(u - 0.12, 0.08), (u + 0.12, 0.08), (u + 0.12, 0.6), (u, 0.68), (u - 0.12, 0.6)], shade(colour, 0.92))


def table(pen: Pen, colour: Colour, pose: Pose) -> None:
    for u in (-0.6, 0.6):
        pen.limb([(u * 0.8, 0.8), (u * 0.8, 0.22)], 0.07, shade(colour, 0.55))
        pen.limb([(u, 0.8), (u, 0.04)], 0.085, shade(colour, 0.75))
    pen.body([(-0.82, 0.78), (0.82, 0.78), (0.66, 1.0), (-0.66, 1.0)], colour)
    pen.box(-0.82, 0.68, 0.82, 0.78, shade(colour, 0.7))


def lamp(pen: Pen, colour: Colour, pose: Pose) -> None:
    pen.oval(0, 0.035, 0.15, 0.035, METAL)
    pen.limb([(0, 0.04), (0, 0.74)], 0.035, METAL)
    pen.body([(-0.2, 0.68), (0.2, 0.68), (0.12, 1.0), (-0.12, 1.0)], colour)
    pen.oval(0, 0.68, 0.19, 0.025, (255, 244, 196))


def apple(pen: Pen, colour: Colour, pose: Pose) -> None:
    pen.oval(-0.17, 0.42, 0.3, 0.4, colour)
    pen.oval(0.17, 0.42, 0.3, 0.4, colour)
    pen.oval(0, 0.4, 0.34, 0.36, colour, edge=False)
    pen.limb([(0, 0.74), (0.05, 0.95)], 0.055, (90, 60, 34))
    pen.oval(0.2, 0.9, 0.15, 0.065, (72, 150, 60), 0.4)
    pen.oval(-0.22, 0.58, 0.06, 0.1, shade(colour, 1.5), 0.3, edge=False)


def banana(pen: Pen, colour: Colour, pose: Pose) -> None:
    outer = oval_points(0, 1.0, 0.92, 0.95, 0, math.pi * 1.03, math.pi * 1.9, 12)
    inner = oval_points(0, 1.14, 0.76, 0.68, 0, math.pi * 1.88, math.pi * 1.05, 12)
    pen.poly([*outer, *inner], colour)
    pen.limb([outer[0], (outer[0][0] - 0.03, outer[0][1] + 0.12)], 0.1, (110, 84, 40))
    pen.limb([outer[-1], (outer[-1][0] + 0.02, outer[-1][1] + 0.03)], 0.1, (84, 64, 36))
    pen.canvas.draw.line(
        pen._place(oval_points(0, 1.08, 0.85, 0.82, 0, math.pi * 1.1, math.pi * 1.84, 10)), fill=shade(colour, 0.75)
    )


def pizza(pen: Pen, colour: Colour, pose: Pose) -> None:
    pen.oval(0, 0.5, 0.95, 0.48, (206, 148, 78))
    pen.oval(0, 0.52, 0.8, 0.38, colour)
    for u, v in oval_points(0, 0.52, 0.5, 0.23, n=7):
        pen.oval(u, v, 0.12, 0.07, (170, 36, 30), edge=False)
    for u, v in oval_points(0, 0.52, 0.28, 0.13, 0.2, n=7):
        pen.dot(u, v, 0.035, (60, 120, 50))
    pen.canvas.draw.line(pen._place([(-0.9, 0.5), (0.9, 0.54)]), fill=(170, 110, 60))
    pen.canvas.draw.line(pen._place([(-0.2, 0.07), (0.2, 0.95)]), fill=(170, 110, 60))


def cake(pen: Pen, colour: Colour, pose: Pose) -> None:
    pen.oval(0, 0.08, 0.72, 0.08, (226, 228, 232))
    pen.box(-0.56, 0.1, 0.56, 0.56, (232, 198, 150))
    pen.box(-0.56, 0.28, 0.56, 0.36, colour)
    pen.oval(0, 0.56, 0.56, 0.12, colour)
    pen.poly(
        [(-0.56, 0.56), (0.56, 0.56), (0.5, 0.44), (0.3, 0.5), (0.1, 0.42), (-0.1, 0.5), (-0.3, 0.42), (-0.5, 0.5)],
        colour,
        edge=False,
    )
    for u in (-0.26, 0.0, 0.26):
        pen.limb([(u, 0.6), (u, 0.82)], 0.05, (244, 244, 244))
        pen.oval(u, 0.9, 0.035, 0.065, (250, 190, 50), edge=False)


def umbrella(pen: Pen, colour: Colour, pose: Pose) -> None:
    pen.limb([(0, 0.7), (0, 0.1), (0.05, 0.04), (0.11, 0.07), (0.12, 0.12)], 0.035, WOOD)
    top = oval_points(0, 0.56, 0.58, 0.4, 0, 0, math.pi, 16)
    scallops = [p for k in range(4) for p in oval_points(-0.435 + 0.29 * k, 0.56, 0.145, 0.07, 0, math.pi, 0, 6)]
    pen.body([*top, *scallops], colour)
    for u in (-0.29, 0.0, 0.29):
        pen.canvas.draw.line(pen._place([(u, 0.62), (u * 0.4, 0.9), (0, 0.96)]), fill=shade(colour, 0.6))
    pen.limb([(0, 0.95), (0, 1.0)], 0.03, WOOD)


def cup(pen: Pen, colour: Colour, pose: Pose) -> None:
    handle = oval_points(0.4, 0.5, 0.22, 0.24, 0, -math.pi / 2, math.pi / 2, 8)
    pen.limb(handle, 0.09, shade(colour, 0.8))
    pen.body([(-0.4, 0.94), (0.4, 0.94), (0.32, 0.06), (-0.32, 0.06)], colour)
    pen.oval(0, 0.06, 0.32, 0.06, shade(colour, 0.9), edge=False)
    pen.oval(0, 0.92, 0.4, 0.09, shade(colour, 0.75))
    pen.oval(0, 0.9, 0.33, 0.055, (84, 52, 32), edge=False)


def bottle(pen: Pen, colour: Colour, pose: Pose) -> None:
    pen.body(
        [
            (-0.16, 0.02),
            (-0.16, 0.56),
            (-0.06, 0.74),
            (-0.06, 0.92),
            (0.06, 0.92),
            (0.06, 0.74),
            (0.16, 0.56),
            (0.16, 0.02),
        ],
        colour,
    )
    pen.box(-0.07, 0.9, 0.07, 1.0, WOOD)
    pen.box(-0.16, 0.2, 0.16, 0.42, (244, 238, 220))
    pen.limb([(-0.1, 0.48), (-0.1, 0.54)], 0.03, shade(colour, 1.6))


def ball(pen: Pen, colour: Colour, pose: Pose) -> None:
    pen.oval(0, 0.5, 0.5, 0.5, colour, body=True)
    if pen.pattern == "plain":
        pen.poly(oval_points(0, 0.5, 0.2, 0.5), (246, 246, 244) if sum(colour) < 600 else (120, 150, 200), edge=False)
    pen.oval(-0.2, 0.72, 0.09, 0.07, shade(colour, 1.6), 0.5, edge=False)


def book(pen: Pen, colour: Colour, pose: Pose) -> None:
    pen.poly([(-0.8, 0.12), (0.5, 0.02), (0.86, 0.34), (0.86, 0.5), (0.5, 0.2), (-0.8, 0.3)], (240, 234, 214))
    pen.body([(-0.8, 0.3), (0.5, 0.2), (0.88, 0.62), (-0.36, 0.74)], colour)
    pen.limb([(-0.8, 0.3), (-0.82, 0.2), (-0.8, 0.1), (0.5, 0.01)], 0.06, shade(colour, 0.7))
    pen.poly([(-0.4, 0.42), (0.3, 0.37), (0.46, 0.53), (-0.18, 0.59)], shade(colour, 1.5), edge=False)


def _read() -> tuple[Category, ...]:
    categories = []
    with open(Path(__file__).with_name("categories.csv"), encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            nouns, loosely, places, colours, traits = (
                tuple(row[key].split()) for key in ("nouns", "loosely", "places", "colours", "traits")
            )
            holds = [float(trait.split("=")[1]) for trait in traits if trait.startswith("holds=")]
            categories.append(
                Category(
                    row["name"],
                    nouns,
                    loosely,
                    row["group"],
                    places,
                    PALETTES.get(row["colours"], colours),
                    float(row["height"]),
                    float(row["aspect"]),
                    frozenset(traits),
                    sum(holds),
                    globals()[row["name"]],
                )
            )
    return tuple(categories)


CATEGORIES = _read()
BY_NAME = {category.name: category for category in CATEGORIES}
