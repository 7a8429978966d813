"""The backgrounds of RefScenes: each kind of place is drawn by a function that returns its stuff, from 200 on."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from random import Random

import numpy as np
from PIL import Image, ImageDraw

from .drawing import SURFACES
from .pen import Canvas, Colour, Pen, shade
from .things import CATEGORIES


@dataclass(frozen=True)
class Stuff:
    """One region of background, by name."""

    name: str
    colour: str


@dataclass(frozen=True)
class Place:
    """A kind of background: the ``ground`` that things stand on, the ``horizon`` where it begins (a share of the
    height), the function that paints it at a slope and returns its stuff, and whether it may slope."""

    name: str
    ground: str
    horizon: float
    paint: Callable[[Random, Canvas, float], list[Stuff]]
    slopes: bool = False

    @cached_property
    def things(self) -> tuple[str, ...]:
        return tuple(category.name for category in CATEGORIES if self.name in category.places)


def _band(canvas: Canvas, top: float, bottom: float, upper: Colour, lower: Colour, number: int, slope=0.0) -> None:
    """A band of the background with a vertical gradient; its upper edge sinks by ``slope`` from left to right."""
    side = canvas.side
    first, last = int(top * side), int(bottom * side)
    steps = np.clip(np.arange(side) - first, 0, last - first)[:, None, None]
    span = np.array(lower) - np.array(upper)
    rows = (np.array(upper) + span * steps // max(1, last - first)).astype(np.uint8)
    gradient = Image.fromarray(rows).resize((side, side), Image.Resampling.NEAREST)
    lift = int(slope * side / 2)
    corners = [(0, first - lift), (side, first + lift), (side, last - 1), (0, last - 1)]
    mask = Image.new("1", (side, side))
    ImageDraw.Draw(mask).polygon(corners, fill=1)
    canvas.picture.paste(gradient, (0, 0), mask)
    canvas.number_draw.polygon(corners, fill=number)


def _sky(rng: Random, canvas: Canvas, bottom: float) -> Stuff:
    sunset = rng.random() < 0.2
    upper, lower = ((246, 176, 120), (252, 224, 170)) if sunset else ((112, 172, 232), (206, 228, 246))
    _band(canvas, 0, bottom, upper, lower, 200)
    for _ in range(rng.randrange(4)):
        x, y = rng.uniform(0, 1) * canvas.side, rng.uniform(0.05, max(0.08, bottom - 0.2)) * canvas.side
        for shift in (-0.05, 0.0, 0.05):
            r = canvas.side * rng.uniform(0.025, 0.045)
            u = x + shift * canvas.side
            canvas.draw.ellipse((u - 1.6 * r, y - r, u + 1.6 * r, y + r), fill=(250, 250, 250))
    return Stuff("sky", "orange" if sunset else "blue")


def _trees(rng: Random, canvas: Canvas, ground: float, slope: float, number: int, snowy: bool = False) -> Stuff:
    side = canvas.side
    for _ in range(rng.randrange(3, 6)):
        x = rng.random()
        pen = Pen(canvas, number, x * side, (ground + slope * (x - 0.5)) * side, rng.uniform(0.22, 0.4) * side)
        green = (rng.randrange(30, 66), rng.randrange(104, 140), rng.randrange(44, 70))
        pen.limb([(0, 0.5), (0, 0.0)], (104, 74, 46), 0.11)
        if snowy:
            for v, r in ((0.2, 0.3), (0.45, 0.24), (0.68, 0.18)):
                pen.poly([(-r, v), (r, v), (0, v + 0.36)], shade(green, 0.8))
        else:
            for u, v, r in ((-0.18, 0.58, 0.22), (0.18, 0.58, 0.22), (0, 0.76, 0.25)):
                pen.oval([(u, v)], green, r, r)
    return Stuff("trees", "green")


def _grass(rng: Random, canvas: Canvas, top: float, slope: float) -> Stuff:
    dry = rng.random() < 0.2
    upper, lower = ((196, 186, 110), (172, 158, 82)) if dry else ((132, 186, 96), (92, 152, 66))
    _band(canvas, top, 1, upper, lower, 201, slope)
    for _ in range(40):
        x, y = rng.random() * canvas.side, rng.uniform(top + 0.2, 1) * canvas.side
        canvas.draw.line((x, y, x + 2, y - 5), fill=shade(lower, 0.86))
    return Stuff("grass", "yellow" if dry else "green")


def _hills(rng: Random, canvas: Canvas, horizon: float, colour: Colour, name: str, number: int) -> Stuff:
    side = canvas.side
    for _ in range(2):
        x, r, high = rng.random() * side, side * rng.uniform(0.35, 0.6), side * rng.uniform(0.12, 0.26)
        hill = (x - r, side * horizon - high, x + r, side * horizon + high)
        canvas.draw.ellipse(hill, fill=colour)
        canvas.number_draw.ellipse(hill, fill=number)
    return Stuff("hill", name)


def _park(rng: Random, canvas: Canvas, slope: float) -> list[Stuff]:
    stuff = [_sky(rng, canvas, 0.47 + abs(slope) / 2), _grass(rng, canvas, 0.46, slope)]
    return [*stuff, _trees(rng, canvas, 0.5, slope, 202)] if rng.random() < 0.8 else stuff


def _farm(rng: Random, canvas: Canvas, slope: float) -> list[Stuff]:
    sky, side = _sky(rng, canvas, 0.43 + abs(slope) / 2), canvas.side
    hills = [_hills(rng, canvas, 0.42, (84, 130, 82), "green", 202)] if rng.random() < 0.6 else []
    grass = _grass(rng, canvas, 0.42, slope)
    for k in range(9):
        x, y = side * k / 8, side * (0.42 + slope * (k / 8 - 0.5))
        canvas.draw.line((x, y - 0.02 * side, x, y + 0.05 * side), fill=(150, 116, 78), width=3)
    for y in (0.42, 0.45):
        canvas.draw.line((0, (y - slope / 2) * side, side, (y + slope / 2) * side), fill=(150, 116, 78), width=2)
    return [sky, grass, *hills]


def _snow(rng: Random, canvas: Canvas, slope: float) -> list[Stuff]:
    sky = _sky(rng, canvas, 0.45 + abs(slope) / 2)
    hills = _hills(rng, canvas, 0.44, (150, 150, 160), "gray", 203)
    _band(canvas, 0.44, 1, (226, 232, 242), (248, 250, 252), 201, slope)
    trees = _trees(rng, canvas, 0.48, slope, 202, snowy=True)
    return [sky, Stuff("snow", "white"), trees, hills]


def _street(rng: Random, canvas: Canvas, slope: float) -> list[Stuff]:
    sky, side = _sky(rng, canvas, 0.51), canvas.side
    colour, facades = rng.choice(
        (("brown", ((190, 150, 124), (206, 180, 140), (150, 114, 96))), ("gray", ((172, 172, 180), (150, 150, 158))))
    )
    x = -0.05
    while x < 1:
        wide, high, base = rng.uniform(0.16, 0.28), rng.uniform(0.22, 0.42), rng.choice(facades)
        corner = (x * side, (0.5 - high) * side, (x + wide) * side, 0.5 * side)
        canvas.draw.rectangle(corner, fill=base, outline=shade(base, 0.7))
        canvas.number_draw.rectangle(corner, fill=202)
        for row in range(int(high / 0.09)):
            for column in range(int(wide / 0.07)):
                u, v = (x + 0.025 + column * 0.07) * side, (0.5 - high + 0.03 + row * 0.09) * side
                canvas.draw.rectangle((u, v, u + 0.035 * side, v + 0.045 * side), fill=shade((168, 200, 222), 0.9))
        x += wide
    _band(canvas, 0.5, 0.56, (186, 182, 176), (170, 166, 160), 0)
    _band(canvas, 0.56, 1, (112, 112, 116), (88, 88, 92), 201)
    for k in range(6):
        u = side * (k / 5 - 0.05)
        top, low = side * 0.76, side * 0.785
        dash = [(u, top), (u + side * 0.1, top), (u + side * 0.09, low), (u - side * 0.01, low)]
        canvas.draw.polygon(dash, fill=(226, 222, 196))
    return [sky, Stuff("road", "gray"), Stuff("buildings", colour)]


def _beach(rng: Random, canvas: Canvas, slope: float) -> list[Stuff]:
    sky = _sky(rng, canvas, 0.36)
    _band(canvas, 0.36, 0.6, (60, 132, 190), (112, 184, 212), 201)
    for _ in range(16):
        x, y = rng.random() * canvas.side, rng.uniform(0.4, 0.56) * canvas.side
        canvas.draw.line((x, y, x + canvas.side * 0.06, y), fill=(206, 230, 240))
    _band(canvas, 0.59, 1, (236, 216, 164), (216, 190, 134), 202)
    return [sky, Stuff("water", "blue"), Stuff("sand", "yellow")]


def _room(rng: Random, canvas: Canvas, slope: float) -> list[Stuff]:
    side = canvas.side
    name, wall = rng.choice(SURFACES["room wall"])
    _band(canvas, 0, 0.62, wall, shade(wall, 0.93), 200)
    if rng.random() < 0.7:
        x, white = rng.uniform(0.1, 0.65) * side, (250, 250, 250)
        window = (x, side * 0.08, x + side * 0.26, side * 0.34)
        canvas.draw.rectangle(window, fill=(176, 214, 238), outline=white, width=max(2, side // 60))
        canvas.draw.line((x + side * 0.13, side * 0.08, x + side * 0.13, side * 0.34), white, max(2, side // 80))
    canvas.draw.rectangle((0, side * 0.575, side, side * 0.6), fill=shade(wall, 0.75))
    floor, wood = rng.choice(SURFACES["room floor"])
    _band(canvas, 0.6, 1, shade(wood, 0.95), shade(wood, 0.8), 201)
    for k in range(5):
        y = side * (0.64 + 0.08 * k)
        canvas.draw.line((0, y, side, y), fill=shade(wood, 0.7))
    return [Stuff("wall", name), Stuff("floor", floor)]


def _table(rng: Random, canvas: Canvas, slope: float) -> list[Stuff]:
    side = canvas.side
    name, wall = rng.choice(SURFACES["table wall"])
    _band(canvas, 0, 0.38, wall, shade(wall, 0.9), 200)
    top, cloth = rng.choice(SURFACES["table top"])
    _band(canvas, 0.37, 1, shade(cloth, 0.9), cloth, 201)
    for _ in range(9):
        y = rng.uniform(0.4, 1) * side
        canvas.draw.line((0, y, side, y + rng.uniform(-4, 4)), fill=shade(cloth, 0.86))
    return [Stuff("wall", name), Stuff("table top", top)]


PLACES = (
    Place("park", "grass", 0.44, _park, slopes=True),
    Place("street", "road", 0.5, _street),
    Place("beach", "sand", 0.54, _beach),
    Place("farm", "grass", 0.4, _farm, slopes=True),
    Place("room", "floor", 0.56, _room),
    Place("table", "table top", 0.36, _table),
    Place("snow", "snow", 0.42, _snow, slopes=True),
)
