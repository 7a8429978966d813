"""A scene: a place, the things that stand in it, and the picture with the map of what is visible where."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from PIL import Image

from .pen import Canvas, Colour, Pen, shade
from .things import BY_NAME, COLOURS, Category, Pose

SUPERSAMPLING = 2  # drawn at twice the size, then averaged down: smooth edges
STUFF = ("sky", "grass", "water", "sand", "road", "wall", "floor", "trees", "buildings", "table top")


@dataclass(frozen=True)
class Thing:
    """One thing of a scene. ``x``, ``y``, ``height`` are shares of the picture's side (y from the top, at its foot)."""

    category: Category
    colour: str
    pattern: str
    x: float
    y: float
    height: float
    flip: bool
    pose: Pose


@dataclass(frozen=True)
class Stuff:
    """One region of background, by name."""

    name: str
    colour: str


@dataclass(frozen=True)
class Place:
    """A kind of background: which things are found there, from which height of the picture on they stand, and how
    much larger than usual they appear (a close-up of a table)."""

    name: str
    things: tuple[str, ...]
    horizon: float
    scale: float = 1.0


PEOPLE = ("man", "woman", "boy", "girl")
PLACES: tuple[Place, ...] = (
    Place("park", (*PEOPLE, "dog", "cat", "bird", "bicycle", "ball", "umbrella", "horse"), 0.46),
    Place("street", (*PEOPLE, "dog", "car", "bus", "truck", "bicycle", "umbrella"), 0.5),
    Place("beach", (*PEOPLE, "dog", "bird", "ball", "umbrella", "boat"), 0.56),
    Place("farm", (*PEOPLE, "horse", "cow", "sheep", "dog", "elephant", "bird", "truck"), 0.42),
    Place("room", (*PEOPLE, "dog", "cat", "chair", "sofa", "table", "lamp", "ball"), 0.6),
    Place("table", ("apple", "banana", "pizza", "cake", "cup", "bottle", "book"), 0.42, 1.1),
)
PERSON_PLACES = tuple(place for place in PLACES if "man" in place.things)


@dataclass
class Scene:
    """Things and stuff with the rendered picture.

    ``picture`` is uint8 (side, side, 3). ``numbers`` is uint8 (side, side): k for ``things[k - 1]``, 200 + k for
    ``stuff[k]``, 0 for neither. ``shown`` is, per thing, the share of it that nothing hides.
    """

    place: Place
    things: list[Thing]
    stuff: list[Stuff]
    picture: np.ndarray
    numbers: np.ndarray
    shown: np.ndarray

    @cached_property
    def areas(self) -> np.ndarray:
        """Visible share of the picture per thing, (things,)."""
        counts = np.bincount(self.numbers.ravel(), minlength=len(self.things) + 1)
        return counts[1 : len(self.things) + 1] / self.numbers.size

    @cached_property
    def centres(self) -> np.ndarray:
        """Centre (x, y) of each thing's visible pixels as shares of the side, (things, 2)."""
        side = self.numbers.shape[0]
        rows, columns = np.nonzero((self.numbers > 0) & (self.numbers < 200))
        which = self.numbers[rows, columns]
        n = len(self.things) + 1
        counts = np.maximum(np.bincount(which, minlength=n), 1)
        x = np.bincount(which, columns + 0.5, minlength=n) / counts
        y = np.bincount(which, rows + 0.5, minlength=n) / counts
        return np.stack([x, y], axis=1)[1:] / side


def make_scene(rng: np.random.Generator, side: int, people: bool | None = None) -> Scene:
    """Compose and draw one scene of ``side`` x ``side`` pixels.

    ``people`` True asks for a scene about people, False for one about other things, None for either.
    """
    place = _choose(rng, PERSON_PLACES if people else PLACES)
    things = _compose(rng, place, people)
    return render(rng, place, things, side)


def _choose(rng: np.random.Generator, options):
    return options[int(rng.integers(len(options)))]


def _compose(rng: np.random.Generator, place: Place, people: bool | None) -> list[Thing]:
    """Several of one category, as in RefCOCO (so that a bare noun seldom suffices), and others around them."""
    focal = PEOPLE if people else place.things if people is None else tuple(n for n in place.things if n not in PEOPLE)
    main = _choose(rng, focal)
    names = [main] * int(rng.choice([2, 3, 4], p=[0.5, 0.35, 0.15]))
    if main in PEOPLE and rng.random() < 0.5:
        names[-1] = _choose(rng, PEOPLE)
    second = _choose(rng, place.things)
    names += [second] * int(rng.choice([1, 2], p=[0.6, 0.4]))
    names += [_choose(rng, place.things) for _ in range(int(rng.integers(0, 3)))]
    things: list[Thing] = []
    for name in names:
        thing = _stand(rng, place, BY_NAME[name], things)
        if thing is not None:
            things.append(thing)
    return sorted(things, key=lambda thing: thing.y)  # painter's order: the nearer hides the farther


def _stand(rng: np.random.Generator, place: Place, category: Category, others: list[Thing]) -> Thing | None:
    """Find room for one more thing; None when twelve tries do not."""
    for _ in range(12):
        depth = rng.random()
        ground = (0.50, 0.60) if category.afloat else (place.horizon + 0.1, 0.97)
        y = ground[0] + depth * (ground[1] - ground[0])
        height = category.height * place.scale * (0.62 + 0.5 * depth) * rng.uniform(0.9, 1.12)
        half = height * category.aspect / 2
        x = rng.uniform(min(half * 0.9, 0.45), max(1 - half * 0.9, 0.55))
        if all(_overlap((x, y, half, height), other) < 0.22 for other in others) and y - height > 0.01:
            break
    else:
        return None
    same = [t.colour for t in others if t.category is category]
    colour = same[-1] if same and rng.random() < 0.25 else _choose(rng, category.colours)
    patterned = category.patterned and rng.random() < 0.3
    pose = Pose(float(rng.uniform(-1, 1)), int(rng.integers(4)), int(rng.integers(4)), int(rng.integers(4)))
    pattern = _choose(rng, ("striped", "spotted")) if patterned else "plain"
    return Thing(category, colour, pattern, float(x), float(y), float(height), bool(rng.random() < 0.5), pose)


def _overlap(box: tuple[float, float, float, float], other: Thing) -> float:
    """Intersection of two things' boxes over the smaller box."""
    x, y, half, height = box
    other_half = other.height * other.category.aspect / 2
    wide = min(x + half, other.x + other_half) - max(x - half, other.x - other_half)
    high = min(y, other.y) - max(y - height, other.y - other.height)
    if wide <= 0 or high <= 0:
        return 0.0
    return wide * high / min(2 * half * height, 2 * other_half * other.height)


def render(rng: np.random.Generator, place: Place, things: list[Thing], side: int) -> Scene:
    """Draw background and things; average down; add the light noise of a photograph."""
    canvas = Canvas(side * SUPERSAMPLING)
    stuff = BACKGROUNDS[place.name](rng, canvas)
    stuff_numbers = np.asarray(canvas.numbers).copy()
    canvas.numbers.paste(0, (0, 0, canvas.side, canvas.side))
    whole = np.zeros(len(things))
    for k, thing in enumerate(things, start=1):
        scale = canvas.side
        x, y, height = thing.x * scale, thing.y * scale, thing.height * scale
        shadow = height * thing.category.aspect * 0.42
        if not thing.category.afloat:
            _shadow(canvas, x, y, shadow, height * 0.05 + 1)
        pen = Pen(canvas, k, x, y, height, thing.flip, thing.pattern, phase=int(rng.integers(100)))
        thing.category.draw(pen, _tint(rng, COLOURS[thing.colour]), thing.pose)
        whole[k - 1] = max(1, canvas.numbers.histogram()[k])
    visible = np.array(canvas.numbers.histogram()[1 : len(things) + 1])
    numbers = np.asarray(canvas.numbers)
    numbers = np.where(numbers > 0, numbers, stuff_numbers)
    picture = np.asarray(canvas.picture.resize((side, side), Image.Resampling.BOX)).astype(np.int16)
    picture = picture + rng.integers(-5, 6, size=(side, side, 1), dtype=np.int16)
    offset = SUPERSAMPLING // 2
    return Scene(
        place,
        things,
        stuff,
        picture.clip(0, 255).astype(np.uint8),
        np.ascontiguousarray(numbers[offset::SUPERSAMPLING, offset::SUPERSAMPLING]),
        visible / whole,
    )


def _tint(rng: np.random.Generator, colour: Colour) -> Colour:
    """A named colour, a little lighter or darker, so that no two reds are quite equal."""
    return tuple(
        int(np.clip(channel + shift, 0, 255)) for channel, shift in zip(colour, rng.integers(-13, 14, 3), strict=True)
    )  # type: ignore[return-value]


def _shadow(canvas: Canvas, x: float, y: float, half: float, thick: float) -> None:
    ground = canvas.picture.getpixel((min(max(int(x), 0), canvas.side - 1), min(int(y), canvas.side - 1)))
    canvas.draw.ellipse((x - half, y - thick, x + half, y + thick), fill=shade(ground, 0.78))  # type: ignore[arg-type]


def _band(canvas: Canvas, top: float, bottom: float, upper: Colour, lower: Colour, number: int) -> None:
    """A horizontal band of the background with a vertical gradient."""
    side = canvas.side
    first, last = int(top * side), int(bottom * side)
    for row in range(first, last):
        t = (row - first) / max(1, last - first)
        fill = tuple(int(a + (b - a) * t) for a, b in zip(upper, lower, strict=True))
        canvas.draw.line((0, row, side, row), fill=fill)  # type: ignore[arg-type]
    canvas.number_draw.rectangle((0, first, side, last - 1), fill=number)


def _sky(rng: np.random.Generator, canvas: Canvas, bottom: float) -> Stuff:
    sunset = rng.random() < 0.2
    upper, lower = ((246, 176, 120), (252, 224, 170)) if sunset else ((112, 172, 232), (206, 228, 246))
    _band(canvas, 0, bottom, upper, lower, 200)
    for _ in range(int(rng.integers(0, 4))):
        x, y = rng.uniform(0, 1) * canvas.side, rng.uniform(0.05, max(0.08, bottom - 0.2)) * canvas.side
        for shift in (-0.05, 0.0, 0.05):
            r = canvas.side * rng.uniform(0.025, 0.045)
            u = x + shift * canvas.side
            canvas.draw.ellipse((u - 1.6 * r, y - r, u + 1.6 * r, y + r), fill=(250, 250, 250))
    return Stuff("sky", "orange" if sunset else "blue")


def _trees(rng: np.random.Generator, canvas: Canvas, ground: float, number: int) -> Stuff:
    for _ in range(int(rng.integers(3, 6))):
        pen = Pen(
            canvas, number, rng.uniform(0, 1) * canvas.side, ground * canvas.side, rng.uniform(0.2, 0.34) * canvas.side
        )
        green = (int(rng.integers(30, 66)), int(rng.integers(104, 140)), int(rng.integers(44, 70)))
        pen.limb([(0, 0.5), (0, 0.0)], 0.11, (104, 74, 46))
        for u, v, r in ((-0.18, 0.58, 0.22), (0.18, 0.58, 0.22), (0, 0.76, 0.25)):
            pen.oval(u, v, r, r, green)
    return Stuff("trees", "green")


def _grass(rng: np.random.Generator, canvas: Canvas, top: float, number: int) -> Stuff:
    dry = rng.random() < 0.2
    upper, lower = ((196, 186, 110), (172, 158, 82)) if dry else ((132, 186, 96), (92, 152, 66))
    _band(canvas, top, 1, upper, lower, number)
    for _ in range(40):
        x, y = rng.uniform(0, canvas.side), rng.uniform(top + 0.03, 1) * canvas.side
        canvas.draw.line((x, y, x + 2, y - 5), fill=shade(lower, 0.86))
    return Stuff("grass", "yellow" if dry else "green")


def _park(rng: np.random.Generator, canvas: Canvas) -> list[Stuff]:
    stuff = [_sky(rng, canvas, 0.47), _grass(rng, canvas, 0.46, 201)]
    return [*stuff, _trees(rng, canvas, 0.5, 202)] if rng.random() < 0.8 else stuff


def _farm(rng: np.random.Generator, canvas: Canvas) -> list[Stuff]:
    stuff = [_sky(rng, canvas, 0.43), _grass(rng, canvas, 0.42, 201)]
    side = canvas.side
    if rng.random() < 0.6:  # hills and a fence
        for _ in range(2):
            x, r = rng.uniform(0, side), side * rng.uniform(0.3, 0.5)
            hill = (x - r, side * 0.42 - r * 0.3, x + r, side * 0.42 + r * 0.3)
            canvas.draw.ellipse(hill, fill=(116, 160, 96))
            canvas.number_draw.ellipse(hill, fill=0)
        _band(canvas, 0.42, 1, (140, 186, 100), (100, 154, 70), 201)
        stuff[1] = Stuff("grass", "green")
    for k in range(9):
        x = side * k / 8
        canvas.draw.line((x, side * 0.4, x, side * 0.47), fill=(150, 116, 78), width=3)
    for y in (0.42, 0.45):
        canvas.draw.line((0, side * y, side, side * y), fill=(150, 116, 78), width=2)
    return stuff


def _street(rng: np.random.Generator, canvas: Canvas) -> list[Stuff]:
    sky, side = _sky(rng, canvas, 0.51), canvas.side
    x, painted = -0.05, {"brown": 0.0, "gray": 0.0}
    while x < 1:
        wide, high = rng.uniform(0.16, 0.28), rng.uniform(0.22, 0.42)
        colour, base = _choose(
            rng,
            (
                ("brown", (190, 150, 124)),
                ("gray", (172, 172, 180)),
                ("brown", (206, 190, 158)),
                ("brown", (150, 118, 108)),
            ),
        )
        painted[colour] += (min(x + wide, 1) - max(x, 0)) * high
        corner = (x * side, (0.5 - high) * side, (x + wide) * side, 0.5 * side)
        canvas.draw.rectangle(corner, fill=base, outline=shade(base, 0.7))
        canvas.number_draw.rectangle(corner, fill=202)
        for row in range(int(high / 0.09)):
            for column in range(int(wide / 0.07)):
                u, v = (x + 0.025 + column * 0.07) * side, (0.5 - high + 0.03 + row * 0.09) * side
                canvas.draw.rectangle((u, v, u + 0.035 * side, v + 0.045 * side), fill=shade(GLASS_DAY, 0.9))
        x += wide
    _band(canvas, 0.5, 0.58, (186, 182, 176), (170, 166, 160), 0)
    _band(canvas, 0.58, 1, (112, 112, 116), (88, 88, 92), 201)
    for k in range(6):
        u = side * (k / 5 - 0.05)
        canvas.draw.polygon(
            [
                (u, side * 0.76),
                (u + side * 0.1, side * 0.76),
                (u + side * 0.09, side * 0.785),
                (u - side * 0.01, side * 0.785),
            ],
            fill=(226, 222, 196),
        )
    return [sky, Stuff("road", "gray"), Stuff("buildings", max(painted, key=lambda name: painted[name]))]


def _beach(rng: np.random.Generator, canvas: Canvas) -> list[Stuff]:
    sky = _sky(rng, canvas, 0.4)
    _band(canvas, 0.4, 0.6, (60, 132, 190), (112, 184, 212), 201)
    for _ in range(12):
        x, y = rng.uniform(0, canvas.side), rng.uniform(0.43, 0.57) * canvas.side
        canvas.draw.line((x, y, x + canvas.side * 0.06, y), fill=(206, 230, 240))
    _band(canvas, 0.6, 1, (236, 216, 164), (216, 190, 134), 202)
    return [sky, Stuff("water", "blue"), Stuff("sand", "yellow")]


def _room(rng: np.random.Generator, canvas: Canvas) -> list[Stuff]:
    side = canvas.side
    name, wall = _choose(
        rng,
        (("white", (226, 220, 208)), ("blue", (178, 202, 218)), ("green", (190, 210, 180)), ("pink", (230, 200, 196))),
    )
    _band(canvas, 0, 0.62, wall, shade(wall, 0.93), 200)
    if rng.random() < 0.7:
        x = rng.uniform(0.1, 0.65) * side
        canvas.draw.rectangle(
            (x, side * 0.08, x + side * 0.26, side * 0.34),
            fill=(176, 214, 238),
            outline=(250, 250, 250),
            width=max(2, side // 60),
        )
        canvas.draw.line(
            (x + side * 0.13, side * 0.08, x + side * 0.13, side * 0.34), fill=(250, 250, 250), width=max(2, side // 80)
        )
    canvas.draw.rectangle((0, side * 0.595, side, side * 0.62), fill=shade(wall, 0.75))
    floor, wood = _choose(rng, (("brown", (188, 142, 96)), ("brown", (160, 116, 80)), ("gray", (196, 186, 172))))
    _band(canvas, 0.62, 1, shade(wood, 0.95), shade(wood, 0.8), 201)
    for k in range(5):
        y = side * (0.66 + 0.08 * k)
        canvas.draw.line((0, y, side, y), fill=shade(wood, 0.7))
    return [Stuff("wall", name), Stuff("floor", floor)]


def _table(rng: np.random.Generator, canvas: Canvas) -> list[Stuff]:
    side = canvas.side
    name, wall = _choose(
        rng,
        (("white", (230, 226, 216)), ("blue", (166, 196, 216)), ("green", (182, 206, 176)), ("gray", (190, 190, 194))),
    )
    _band(canvas, 0, 0.4, wall, shade(wall, 0.9), 200)
    top, cloth = _choose(
        rng,
        (("brown", (176, 126, 80)), ("brown", (142, 98, 64)), ("white", (214, 206, 190)), ("blue", (120, 146, 160))),
    )
    _band(canvas, 0.4, 1, shade(cloth, 0.9), cloth, 201)
    for _ in range(9):
        y = rng.uniform(0.42, 1) * side
        canvas.draw.line((0, y, side, y + rng.uniform(-4, 4)), fill=shade(cloth, 0.86))
    return [Stuff("wall", name), Stuff("table top", top)]


def as_first_described(scene: Scene) -> Scene:
    """The scene as version 1 had it, on which records rest: hills are sky; buildings, floors, table tops brown."""
    brown = ("buildings", "floor", "table top")
    stuff = [replace(region, colour="brown") if region.name in brown else region for region in scene.stuff]
    hills = (scene.numbers == 0) & (scene.place.name == "farm")
    return replace(scene, stuff=stuff, numbers=np.where(hills, np.uint8(200), scene.numbers))


GLASS_DAY: Colour = (168, 200, 222)
BACKGROUNDS = {"park": _park, "street": _street, "beach": _beach, "farm": _farm, "room": _room, "table": _table}
