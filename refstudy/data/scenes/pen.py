"""The pen that draws a thing twice at once: its colours into the picture, its number into the map of visible things."""

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageChops, ImageDraw

Colour = tuple[int, int, int]
Point = tuple[float, float]


def shade(colour: Colour, factor: float) -> Colour:
    """``colour`` darker (factor < 1) or lighter (factor > 1, towards white)."""
    if factor <= 1:
        return tuple(int(channel * factor) for channel in colour)  # type: ignore[return-value]
    return tuple(int(255 - (255 - channel) * (2 - factor)) for channel in colour)  # type: ignore[return-value]


class Canvas:
    """A picture and, on the same grid, the number of the thing that is visible at each pixel (0: nothing)."""

    def __init__(self, side: int):
        self.side = side
        self.picture = Image.new("RGB", (side, side))
        self.numbers = Image.new("L", (side, side))
        self.draw = ImageDraw.Draw(self.picture)
        self.number_draw = ImageDraw.Draw(self.numbers)


@dataclass(frozen=True)
class Pen:
    """Draws in a thing's own units: the origin between its feet, y up, its height 1; ``flip`` mirrors it."""

    canvas: Canvas
    number: int
    x: float
    y: float
    height: float
    flip: bool = False
    pattern: str = "plain"
    phase: int = 0

    def _place(self, points: Sequence[Point]) -> list[Point]:
        sign = -1 if self.flip else 1
        return [(self.x + sign * u * self.height, self.y - v * self.height) for u, v in points]

    def poly(self, points: Sequence[Point], fill: Colour, edge: bool = True, body: bool = False) -> None:
        """A filled polygon with a thin darker edge; a ``body`` carries the thing's pattern: stripes, squares or spots
        in a contrasting shade."""
        placed = self._place(points)
        self.canvas.draw.polygon(placed, fill=fill, outline=shade(fill, 0.6) if edge else None)
        self.canvas.number_draw.polygon(placed, fill=self.number, outline=self.number)
        if body and self.pattern != "plain":
            left, top = (int(min(p[axis] for p in placed)) for axis in (0, 1))
            right, bottom = (int(max(p[axis] for p in placed)) + 1 for axis in (0, 1))
            inside = Image.new("L", (right - left, bottom - top))
            ImageDraw.Draw(inside).polygon([(u - left, v - top) for u, v in placed], fill=255)
            marks = pattern_tile(self.pattern, max(4, int(self.height * 0.085)), self.phase, inside.size)
            ink = shade(fill, 0.42) if sum(fill) > 240 else shade(fill, 1.65)
            self.canvas.picture.paste(ink, (left, top), ImageChops.multiply(inside, marks))

    def oval(self, centres: Sequence[Point], fill: Colour, ru: float, rv: float, tilt: float = 0, **how: bool) -> None:
        """Ellipses with half axes ru and rv, turned by ``tilt`` radians; ``how`` as of a polygon."""
        for u, v in centres:
            self.poly(oval_points(u, v, ru, rv, tilt), fill, **how)

    def box(self, corners: Sequence[Point], fill: Colour) -> None:
        """An upright rectangle between two corners."""
        (u0, v0), (u1, v1) = corners
        self.poly([(u0, v0), (u1, v0), (u1, v1), (u0, v1)], fill)

    def limb(self, points: Sequence[Point], fill: Colour, width: float) -> None:
        """A thick line with round joints (legs, arms, handles); ``width`` in units of the thing's height."""
        placed, radius = self._place(points), max(1, round(width * self.height)) / 2
        for draw, paint in ((self.canvas.draw, fill), (self.canvas.number_draw, self.number)):
            for (u, v), (p, q) in itertools.pairwise(placed):
                length = math.sqrt((p - u) ** 2 + (q - v) ** 2) or 1.0
                across, along = radius * (q - v) / length, radius * (p - u) / length
                corners = [(u - across, v + along), (u + across, v - along), (p + across, q - along)]
                draw.polygon([*corners, (p - across, q + along)], fill=paint)
            for u, v in placed:
                draw.ellipse((u - radius, v - radius, u + radius, v + radius), fill=paint)

    def line(self, points: Sequence[Point], fill: Colour) -> None:
        """A line of one pixel; as ``dot``, it never changes which thing a pixel belongs to."""
        self.canvas.draw.line(self._place(points), fill=fill)

    def dot(self, centres: Sequence[Point], fill: Colour, radius: float) -> None:
        """Small details (an eye, a button); they never change which thing a pixel belongs to."""
        r = max(0.8, radius * self.height)
        for x, y in self._place(centres):
            self.canvas.draw.ellipse((x - r, y - r, x + r, y + r), fill=fill)


@functools.cache
def _turn(angle: float) -> Point:
    """Cosine and sine, rounded so that they do not depend on the machine's mathematical library."""
    return round(math.cos(angle), 9), round(math.sin(angle), 9)


def oval_points(u: float, v: float, ru: float, rv: float, tilt: float = 0.0, start=0.0, stop=2 * math.pi, n=18):
    """``n`` points along an ellipse (or the arc of it from ``start`` to ``stop`` radians)."""
    cos, sin = _turn(tilt)
    step = (stop - start) / (n - (0 if stop - start >= 2 * math.pi else 1))
    around = [(ru * p, rv * q) for p, q in (_turn(start + step * k) for k in range(n))]
    return [(u + p * cos - q * sin, v + p * sin + q * cos) for p, q in around]


def pattern_tile(pattern: str, period: int, phase: int, size: tuple[int, int]) -> Image.Image:
    """An 8-bit picture of ``size`` (width, height) that is 255 on the stripes, squares or spots of the pattern."""
    width, height = size
    rows, columns = np.mgrid[0:height, 0:width]
    if pattern == "striped":
        marks = ((columns + rows // 3 + phase) // period) % 2 == 0
    elif pattern == "checkered":
        marks = ((columns + phase) // period + (rows + phase) // period) % 2 == 0
    else:
        row = (rows + phase) // (2 * period)
        centre_u = (columns + phase + row % 2 * period) % (2 * period) - period
        centre_v = (rows + phase) % (2 * period) - period
        marks = centre_u**2 + centre_v**2 < (0.62 * period) ** 2
    return Image.fromarray((marks * 255).astype(np.uint8))
