"""A scene: a place, the things in it, and the picture with the map of the visible thing at each pixel.

All random numbers come from Python's own generator, and everything is computed by plain arithmetic and square roots,
so that scenes are equal on every machine.
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from random import Random

import numpy as np
from PIL import Image, ImageFilter

from refstudy.data.masks import mask_box

from .backgrounds import PLACES, Place, Stuff
from .drawing import COLOURS, HAIR, SKIN, TROUSERS, Pose, draw
from .pen import Canvas, Colour, Pen, shade
from .things import BY_NAME, CATEGORIES, PALETTES, Category

SUPERSAMPLING = 2  # drawn at twice the size, then averaged down: smooth edges
MOST_THINGS = 8
SHADES = ("blue", "green", "brown", "gray")  # of which there are darker and lighter ones
PEOPLE = tuple(category.name for category in CATEGORIES if category.group == "person")
PERSON_PLACES = tuple(place for place in PLACES if "man" in place.things)
GROUNDS = frozenset(place.ground for place in PLACES)
SCENERY = ("box", "rock")  # to stand on; no scene is about them
Box = tuple[float, float, float, float]  # left, top, right, bottom
Level = Callable[[float, float], float]  # how far down the ground lies, by nearness and x


def gap(first: Box, second: Box) -> tuple[float, float]:
    """Horizontal and vertical gap between two boxes, below zero where they overlap."""
    wide = max(first[0], second[0]) - min(first[2], second[2])
    return wide, max(first[1], second[1]) - min(first[3], second[3])


@dataclass(frozen=True)
class Thing:
    """One thing of a scene. ``x``, ``y``, ``height`` are shares of the picture's side; y is that of its foot, from the
    top, and may lie below the picture. ``near`` is 0 for the farthest place, 1 for the nearest. ``on`` is the number of
    the thing that it stands on, -1 for the ground; ``airborne`` things stand on nothing."""

    category: Category
    colour: str
    shade: str
    pattern: str
    x: float
    y: float
    height: float
    near: float
    flip: bool
    pose: Pose
    airborne: bool = False
    on: int = -1

    @property
    def box(self) -> Box:
        """Left, top, right, bottom as shares of the side, of the whole thing, even where it leaves the picture."""
        half = self.height * self.category.aspect / 2
        return self.x - half, self.y - self.height, self.x + half, self.y

    @property
    def inside(self) -> float:
        """Share of its box that lies in the picture."""
        left, top, right, bottom = self.box
        wide, high = gap(self.box, (0, 0, 1, 1))
        return min(wide, 0) * min(high, 0) / ((right - left) * (bottom - top))


@dataclass
class Scene:
    """Things and stuff with the rendered picture.

    ``picture`` is uint8 (side, side, 3). ``numbers`` is uint8 (side, side): k for ``things[k - 1]``, 200 + k for
    ``stuff[k]``, 0 for neither. ``shown``: of the part of each thing in the picture, the share that nothing hides.
    """

    place: Place
    things: list[Thing]
    stuff: list[Stuff]
    picture: np.ndarray
    numbers: np.ndarray
    shown: list[float]

    @cached_property
    def areas(self) -> list[float]:
        """Visible share of the picture per thing."""
        counts = np.bincount(self.numbers.ravel(), minlength=256)
        return [int(count) / self.numbers.size for count in counts[1 : len(self.things) + 1]]

    @cached_property
    def boxes(self) -> list[Box]:
        """Left, top, right, bottom of each thing's visible pixels as shares of the side; zeros where none is."""
        side = self.numbers.shape[0]
        boxes = [mask_box(self.numbers == k + 1) or (0, 0, 0, 0) for k in range(len(self.things))]
        return [(x / side, y / side, (x + wide) / side, (y + high) / side) for x, y, wide, high in boxes]

    def touch(self, one: int, other: int) -> bool:
        """Tell if at most a 64th of the side lies between the visible parts of two things."""
        reach = max(1, self.numbers.shape[0] // 64)
        grown = Image.fromarray(self.numbers == one + 1).convert("L").filter(ImageFilter.MaxFilter(2 * reach + 1))
        return bool(np.asarray(grown)[self.numbers == other + 1].any())

    @cached_property
    def centres(self) -> list[tuple[float, float]]:
        """Centre (x, y) of the box of each thing's visible pixels as shares of the side."""
        return [((left + right) / 2, (top + bottom) / 2) for left, top, right, bottom in self.boxes]


def make_scene(rng: Random, side: int, people: bool | None = None, sizes: tuple = (0.09, 0.14, 0.25)) -> Scene:
    """Compose and draw one scene of ``side`` x ``side`` pixels.

    ``people`` True asks for a scene about people, False for one about other things, None for either. ``sizes`` are
    shares of the picture; the box of the thing that the scene is about has about one of them.
    """
    place = rng.choice(PERSON_PLACES if people else PLACES)
    # The ground: how much it sinks from left to right; where in its middle the farthest things stand; how much lower
    # the nearest stand, little for a low camera, much for a high one.
    slope = rng.choice((0.0, 0.0, -0.36, -0.2, 0.2, 0.36)) if place.slopes else 0.0
    depth = rng.choice((0.2, 0.45, 1.0)) * (0.92 - place.horizon)
    first = place.horizon + 0.1 + 0.6 * rng.random() * (0.92 - place.horizon - depth)
    size = rng.choice(sizes)
    for tried in itertools.count(1):  # mostly until there are two of a kind
        things = _compose(rng, place, lambda near, x: first + near * depth + slope * (x - 0.5), people, size)
        if len({thing.category.name for thing in things}) < len(things) or (tried > 3 and len(things) > 1):
            break
    return render(rng, place, slope, things, side)


def _compose(rng: Random, place: Place, ground: Level, people: bool | None, size: float) -> list[Thing]:
    """Compose two to eight things: several of one category, as in RefCOCO, so that a noun alone seldom suffices; others
    around them; often something to stand on. Scenes of large things have fewer of them."""
    focal = [name for name in place.things if name not in SCENERY and people in (None, name in PEOPLE)]
    main = BY_NAME[rng.choice(focal)]
    zoom = min(max(math.sqrt(size / main.aspect) / main.height, 0.6), 3.2)
    most = MOST_THINGS if size < 0.16 else 6
    names = [main.name] * min(rng.choice((2, 2, 3, 3, 4)), most - 1)
    if main.name in PEOPLE and rng.random() < 0.5:
        names[-1] = rng.choice(PEOPLE)
    names += [rng.choice(place.things)] * rng.choice((1, 1, 2))
    names += [rng.choice(place.things) for _ in range(rng.randrange(5))]
    supports = [name for name in place.things if BY_NAME[name].holds]
    if supports and rng.random() < 0.7:
        names.insert(0, rng.choice(supports))
    things: list[Thing] = []
    for name in names[:most]:
        thing = _put(rng, ground, zoom if BY_NAME[name] is main else 0.85 * zoom, BY_NAME[name], things)
        if thing is not None:
            things.append(thing)
    order = sorted(range(len(things)), key=lambda k: things[k].near)  # painter's order: the nearer hides the farther
    ordered = (things[k] for k in order)
    return [thing if thing.on < 0 else replace(thing, on=order.index(thing.on)) for thing in ordered]


def _put(rng: Random, ground: Level, zoom: float, category: Category, others: list[Thing]) -> Thing | None:
    """Find room for one more thing: on the ground, in the air, or on another; None when sixteen tries fail."""
    airborne = "airborne" in category.traits or ("flies" in category.traits and rng.random() < 0.5)
    afloat = "afloat" in category.traits
    free = [k for k, other in enumerate(others) if other.category.holds and all(t.on != k for t in others)]
    grown = rng.uniform(0.72, 1.36)
    for _ in range(16):
        near, x, on = rng.random() - 1.2 * afloat, rng.random(), -1
        if free and not airborne and "climbs" in category.traits and rng.random() < 0.6:
            on = rng.choice(free)
            near = others[on].near
        height = category.height * zoom * (0.74 + 0.48 * max(near, 0)) * grown
        half = height * category.aspect / 2
        kept = 0.25 if rng.random() < 0.3 else 1.0  # how much of each half has to be in the picture
        x = half * kept + x * (1 - 2 * half * kept)
        y = 0.56 + 0.1 * near if afloat else ground(near, x)
        if on >= 0:
            below = others[on]
            if half > 0.65 * below.height * below.category.aspect:
                continue
            x = below.x + (rng.random() - 0.5) * 0.5 * below.height * below.category.aspect
            y, near = below.y - below.category.holds * below.height, near + 0.01
        elif airborne:
            y = height + rng.random() * max(0.0, min(0.3, 0.6 - height))
        else:
            y = max(y, height + rng.uniform(-0.02, 0.1))  # what is large reaches below the picture, not above it
        thing = Thing(category, "", "", "", x, y, height, near, False, Pose(), airborne, on)
        apart = all(_overlap(thing, other) < 0.36 for k, other in enumerate(others) if k != on)
        whole_side = thing.box[0] >= 0 or thing.box[2] <= 1
        if apart and whole_side and thing.inside > 0.55 and y - height > -0.06 and not (afloat and y > 0.55):
            break
    else:
        return None
    same = [t.colour for t in others if t.category is category]
    colour = same[-1] if same and rng.random() < 0.3 else rng.choice(category.colours)
    patterned = "patterned" in category.traits and rng.random() < 0.3
    tone = rng.choice(("dark", "light")) if colour in SHADES and rng.random() < 0.3 else ""
    pattern = rng.choice(("striped", "spotted", "checkered")) if patterned else "plain"
    flip, pose = rng.random() < 0.5, _pose(rng, category, airborne)
    return replace(thing, colour=colour, shade=tone, pattern=pattern, flip=flip, pose=pose)


def _pose(rng: Random, category: Category, airborne: bool) -> Pose:
    chances = {"flying": float(airborne and category.group != "toy")}
    child, female = category.name in ("boy", "girl"), category.name in ("woman", "girl")
    if category.group == "person":
        chances = {"walking": 0.35, "waving": 0.3, "bag": 0.2, "glasses": 0.2, "dress": 0.6 * female}
        chances |= {"beard": 0.4 * (category.name == "man"), "jacket": 0.25}
    extras = {extra for extra, chance in chances.items() if rng.random() < chance}
    if "dress" in extras:
        extras.discard("jacket")
    hair = rng.choice([name for name in HAIR if not (child and name == "gray")])
    hat = rng.choice(PALETTES["bright"]) if rng.random() < 0.25 else ""
    return Pose(rng.uniform(-1, 1), rng.randrange(len(SKIN)), hair, rng.choice(list(TROUSERS)), hat, frozenset(extras))


def _overlap(thing: Thing, other: Thing) -> float:
    """Intersection of two things' boxes over the smaller box."""
    wide, high = gap(thing.box, other.box)
    smaller = min((right - left) * (bottom - top) for left, top, right, bottom in (thing.box, other.box))
    return min(wide, 0) * min(high, 0) / smaller


def render(rng: Random, place: Place, slope: float, things: list[Thing], side: int) -> Scene:
    """Draw background and things; average down; add the light noise of a photograph."""
    canvas = Canvas(side * SUPERSAMPLING)
    stuff = place.paint(rng, canvas, slope)
    stuff_numbers = np.asarray(canvas.numbers).copy()
    canvas.numbers.paste(0, (0, 0, canvas.side, canvas.side))
    whole = []
    for k, thing in enumerate(things, start=1):
        x, y, height = (end * canvas.side for end in (thing.x, thing.y, thing.height))
        if not (thing.airborne or thing.on >= 0 or "afloat" in thing.category.traits):
            _shadow(canvas, x, y, height * thing.category.aspect * 0.42, height * 0.05 + 1)
        pen = Pen(canvas, k, x, y, height, thing.flip, thing.pattern, phase=rng.randrange(100))
        draw(thing.category.name, pen, _tint(rng, COLOURS[thing.colour], thing.shade), thing.pose)
        left, top, right, bottom = (int(canvas.side * end) for end in thing.box)  # limbs may leave it a little
        margin = int(0.2 * height)
        around = canvas.numbers.crop((left - margin, top - margin, right + margin, bottom + margin))
        whole.append(max(1, int(np.count_nonzero(np.asarray(around) == k))))
    numbers = np.asarray(canvas.numbers)
    visible = np.bincount(numbers.ravel(), minlength=256)[1 : len(things) + 1].tolist()
    numbers = np.where(numbers > 0, numbers, stuff_numbers)
    picture = np.asarray(canvas.picture.resize((side, side), Image.Resampling.BOX)).astype(np.int16)
    noise = np.frombuffer(rng.randbytes(side * side), np.uint8).reshape(side, side, 1)
    noisy = (picture + (noise % 11).astype(np.int16) - 5).clip(0, 255).astype(np.uint8)
    offset = SUPERSAMPLING // 2
    numbers = np.ascontiguousarray(numbers[offset::SUPERSAMPLING, offset::SUPERSAMPLING])
    shown = [seen / all_of_it for seen, all_of_it in zip(visible, whole, strict=True)]
    return Scene(place, things, stuff, noisy, numbers, shown)


def _tint(rng: Random, colour: Colour, tone: str) -> Colour:
    """A named colour, a little lighter or darker at random, so that two reds differ, or clearly so by its ``tone``."""
    base, shift = shade(colour, {"dark": 0.5, "light": 1.5, "": 1.0}[tone]), rng.randrange(-10, 11)
    return tuple(min(max(channel + shift + rng.randrange(-4, 5), 0), 255) for channel in base)  # type: ignore[return-value]


def _shadow(canvas: Canvas, x: float, y: float, half: float, thick: float) -> None:
    at = min(max(int(x), 0), canvas.side - 1), min(max(int(y), 0), canvas.side - 1)
    ground = canvas.picture.getpixel(at)
    canvas.draw.ellipse((x - half, y - thick, x + half, y + thick), fill=shade(ground, 0.78))  # type: ignore[arg-type]
