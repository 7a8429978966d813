"""Places, sizes and relations of the things of a scene: the tests by which the grammar calls them true.

Comparisons keep a margin, so that a person who looks at the picture agrees.
"""

import itertools
from collections.abc import Callable, Iterator
from functools import partial

from .scene import Scene, gap

SIDE_MARGIN = 0.07  # share of the picture by which the leftmost, topmost ... thing leads
EDGE_MARGIN = 0.04  # and by which the upper edge of the topmost, the lower edge of the bottommost leads
NEAR_MARGIN = 0.12  # of nearness, 0 to 1, by which the nearest, farthest thing leads
SIZE_MARGIN, TALL_MARGIN = 1.45, 1.25  # ratio of areas, of heights, by which the biggest, the tallest thing leads
CLOSE, CLOSER = 0.24, 0.08  # gap between boxes: a reader may call this next to each other; the grammar calls this so
Test = Callable[[frozenset[int], int], bool]  # among these things, is it this one?


def leading(values: list[float], among: frozenset[int], margin: float, ratio: bool = False) -> int | None:
    """The one of ``among`` whose value is the smallest by at least ``margin`` (difference or ratio); None if there is
    none."""
    order = sorted(among, key=lambda k: values[k])
    if len(order) < 2:
        return None
    first, second = values[order[0]], values[order[1]]
    return order[0] if (second > first * margin if ratio else second - first > margin) else None


class Positions:
    """The positions of a scene's things, and their comparisons, from which places are built.

    Each comparison takes the things ``among`` which the words so far leave the choice, and the thing ``k``.
    """

    def __init__(self, scene: Scene):
        self.boxes = scene.boxes
        self.x, self.y = ([centre[axis] for centre in scene.centres] for axis in (0, 1))
        self.near = [thing.near for thing in scene.things]
        self.feet = [scene.things[thing.on].y if thing.on >= 0 else thing.y for thing in scene.things]
        self.airborne = [thing.airborne for thing in scene.things]

    def first(self, values: list[float], sign: int, margin: float = SIDE_MARGIN) -> Test:
        """The test for the smallest value (``sign`` 1) or the largest (-1)."""
        signed = [sign * value for value in values]
        return lambda among, k: leading(signed, among, margin) == k

    def ordered(self, place: int, least: int, among: frozenset[int], k: int) -> bool:
        """Tell if it has this place in the order from left to right, of at least so many things."""
        order = sorted(among, key=lambda one: self.x[one])
        if len(order) < least or order[place] != k:
            return False
        return all(self.x[after] - self.x[before] > SIDE_MARGIN for before, after in itertools.pairwise(order))

    def outermost(self, sign: int, among: frozenset[int], k: int) -> bool:
        """Tell if it is the highest (``sign`` 1) or the lowest (-1), by its centre and its outer edge, and lies in its
        half of the picture or beyond all others. Of things that all reach out of the picture, none leads."""
        box, others, outer, inner = self.boxes[k], among - {k}, 2 - sign, 2 + sign
        beyond = all(sign * (self.y[one] - box[inner]) > 0 for one in others)
        ahead = all(sign * (self.boxes[one][outer] - box[outer]) > EDGE_MARGIN for one in others)
        return (sign * (0.5 - self.y[k]) > 0 or beyond) and ahead and self.first(self.y, sign)(among, k)

    def middle(self, among: frozenset[int], k: int) -> bool:
        """Tell if it is the second of three from the left, in the central third, and nearest to the centre."""
        apart = {one: (self.x[one] - 0.5) ** 2 + (self.y[one] - 0.5) ** 2 for one in among}
        central = 1 / 3 < self.x[k] < 2 / 3 and apart[k] == min(apart.values())
        return central and len(among) == 3 and self.ordered(1, 3, among, k)

    def evident(self, among: frozenset[int], k: int) -> bool:
        """Tell if the picture shows which is nearer: by their feet, or by how one hides another that is much
        farther."""
        for one in among - {k}:
            apart = self.near[k] - self.near[one]
            lower = (self.feet[k] - self.feet[one]) * (1 if apart > 0 else -1) > 0.03
            if not (lower or (abs(apart) > 0.25 and max(gap(self.boxes[k], self.boxes[one])) < 0)):
                return False
        return not any(self.airborne[one] for one in among)


def places_of(scene: Scene) -> dict[str, Test]:
    """Every place of `words.yaml` with the test that a thing, among those the words so far are true of, has it.

    A place is where a person would say so: a side only in its half, "far" in the outer fifth, "middle" in the central
    third, "top" and "bottom" in their half or clearly beyond all others. Front and back are by nearness alone, where
    the picture shows it, among things that all stand on something.
    """
    at = Positions(scene)
    x, y, top, bottom = at.x, at.y, partial(at.outermost, 1), partial(at.outermost, -1)
    left, right = at.first(x, 1), at.first(x, -1)
    nearest, farthest = at.first(at.near, -1, NEAR_MARGIN), at.first(at.near, 1, NEAR_MARGIN)
    return {
        "left": lambda among, k: x[k] < 0.6 and left(among, k),
        "right": lambda among, k: x[k] > 0.4 and right(among, k),
        "left half": lambda among, k: x[k] < 0.45 and left(among, k),
        "right half": lambda among, k: x[k] > 0.55 and right(among, k),
        "far left": lambda among, k: x[k] < 0.2 and left(among, k),
        "far right": lambda among, k: x[k] > 0.8 and right(among, k),
        "top": top,
        "bottom": bottom,
        "front": lambda among, k: at.evident(among, k) and nearest(among, k),
        "back": lambda among, k: at.evident(among, k) and farthest(among, k),
        "middle": at.middle,
        "top left": lambda among, k: y[k] < 0.4 and x[k] < 0.36 and top(among, k) and left(among, k),
        "top right": lambda among, k: y[k] < 0.4 and x[k] > 0.64 and top(among, k) and right(among, k),
        "bottom left": lambda among, k: y[k] > 0.6 and x[k] < 0.36 and bottom(among, k) and left(among, k),
        "bottom right": lambda among, k: y[k] > 0.6 and x[k] > 0.64 and bottom(among, k) and right(among, k),
        "second left": partial(at.ordered, 1, 3),
        "second right": partial(at.ordered, -2, 3),
        "third left": partial(at.ordered, 2, 4),  # the third of three is the last
        "third right": partial(at.ordered, -3, 4),
    }


def sizes_of(scene: Scene) -> dict[str, Test]:
    """Every size of `words.yaml` with its test: by visible area, or by height, of things that are seen nearly whole."""
    heights = [thing.height for thing in scene.things]
    whole = [thing.inside > 0.8 and shown > 0.75 for thing, shown in zip(scene.things, scene.shown, strict=True)]

    def test(values: list[float], sign: int, margin: float, fit: list[bool]) -> Test:
        signed = values if sign > 0 else [1 / max(value, 1e-6) for value in values]
        return lambda among, k: all(fit[one] for one in among) and leading(signed, among, margin, ratio=True) == k

    tall = [fits and thing.category.aspect < 1 for fits, thing in zip(whole, scene.things, strict=True)]
    return {
        "big": test(scene.areas, -1, SIZE_MARGIN, whole),
        "small": test(scene.areas, 1, SIZE_MARGIN, whole),
        "tall": test(heights, -1, TALL_MARGIN, tall),
        "short": test(heights, 1, TALL_MARGIN, tall),
    }


def relations_of(scene: Scene, k: int, anchor: int) -> Iterator[tuple[str, frozenset[int]]]:
    """Relations in which ``k`` clearly stands to ``anchor``, each with all things of which it could be said.

    ``k`` must meet a strict bound, while all things within a looser bound count as meant too: then an expression is
    unambiguous even for a reader whose idea of "next to" is wider than ours.
    """
    things, boxes, centres = scene.things, scene.boxes, scene.centres
    others = [one for one in range(len(things)) if one != anchor and scene.areas[one] > 0]
    gaps = {one: gap(boxes[one], boxes[anchor]) for one in others}

    def where(test: Callable[[int], bool]) -> frozenset[int]:
        return frozenset(one for one in others if test(one))

    wide, high = gaps[k]
    (x, y), (ax, ay) = centres[k], centres[anchor]
    near, there = things[k].near - things[anchor].near, things[anchor]
    beside = wide > -0.1 and high < 0 and abs(x - ax) > abs(y - ay)
    if things[k].on == anchor:
        yield "on", where(lambda one: things[one].on == anchor or (max(gaps[one]) < 0 and centres[one][1] < ay))
        return
    alike = things[k].airborne == there.airborne
    if alike and max(wide, high) < CLOSER and (beside or abs(near) < 0.15) and there.on != k:
        yield "near", where(lambda one: max(gaps[one]) < CLOSE)
        if max(wide, high) < 0 and scene.touch(k, anchor):
            yield "touching", where(lambda one: max(gaps[one]) < 0.04)
    if beside and max(wide, high) < CLOSE:
        word, sign = ("left of", 1) if x < ax else ("right of", -1)
        yield word, where(lambda one: sign * (ax - centres[one][0]) > 0)
        if (other := between(scene, k, anchor)) >= 0:
            low, most = sorted((ax, centres[other][0]))
            yield "between", where(lambda one: one != other and low < centres[one][0] < most)
    grounded = not (things[k].airborne or there.airborne)
    if grounded and abs(near) > 0.14 and wide < -0.03 and high < 0.03 and there.on < 0 and things[k].on < 0:
        word, sign = ("behind", 1) if near < 0 else ("in front of", -1)
        yield word, where(lambda one: sign * (there.near - things[one].near) > 0)
    if wide < -0.03 and high > -0.04 and abs(y - ay) < 0.6:
        word, sign = ("above", 1) if y < ay else ("below", -1)
        yield word, where(lambda one: sign * (ay - centres[one][1]) > 0)


def between(scene: Scene, k: int, anchor: int) -> int:
    """The nearest thing on the other side of ``k``, at about the same height; -1 when there is none."""
    x = scene.centres[k][0]
    sign = 1 if scene.centres[anchor][0] < x else -1
    seen = [one for one in range(len(scene.things)) if one not in (k, anchor) and scene.areas[one] > 0.008]
    beyond = [one for one in seen if sign * (scene.centres[one][0] - x) > SIDE_MARGIN]
    gaps = {one: gap(scene.boxes[one], scene.boxes[k]) for one in beyond}
    level = [one for one in beyond if max(gaps[one]) < CLOSE and gaps[one][1] < 0]
    return min(level, key=lambda one: abs(scene.centres[one][0] - x), default=-1)
